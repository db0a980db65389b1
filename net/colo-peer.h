/*
 * The peer: a colo-proxy's connection to the other node
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef NET_COLO_PEER_H
#define NET_COLO_PEER_H

#include "crypto/tlscreds.h"
#include "io/channel-socket.h"
#include "io/net-listener.h"
#include "net/colo-turn.h"
#include "net/colo/session.h"
#include "qapi/qapi-types-colo-proxy.h"

typedef struct ColoPeerAttempt ColoPeerAttempt;

typedef struct ColoPeerOps {
    /* The other node is there, or (if we return why) shall not be.  Packets may be sent. */
    const char *(*ready)(uint64_t instance, void *opaque);
    /* It is lost; until ready() comes again nothing can be sent. */
    void (*lost)(ColoPeerLostReason reason, void *opaque);
    ColoWirePacket *packet;
    /* Returns: false if that cannot be. */
    bool (*epoch)(uint64_t number, void *opaque);
    /* The main loop is about to sleep: a turn ends.  What is sent now is still written in time. */
    void (*turn_ends)(void *opaque);
} ColoPeerOps;

/* All calls with the big lock held; all of its own come in the main loop. */
typedef struct ColoPeer {
    const char *name;           /* "colo-proxy 'f0'", for messages */
    SocketAddress *address;
    ColoSessionConfig config;
    QCryptoTLSCreds *tls_creds; /* NULL: without TLS */
    const char *tls_hostname;   /* whose certificate the secondary wants to see */
    uint32_t reconnect;         /* s between two attempts to connect */
    const ColoPeerOps *ops;
    void *opaque;

    QIONetListener *listener;   /* the primary's */
    ColoPeerAttempt *attempt;   /* at a connection, under way */
    QEMUTimer *again;           /* when it tries next */
    bool complained;            /* that it cannot */

    QIOChannel *channel;        /* connected; NULL: it is not */
    ColoSession *session;
    bool greeted;               /* the other node has said hello, and ready() was called */
    char *turned_away;          /* a secondary, when it connected last: why; NULL: it was not */
    guint read_watch;
    guint write_watch;          /* while the socket takes no more; 0: it does */
    ColoDeadline deadline;      /* the session's, and before it the handshake's */
    GSource *turn;
    uint8_t *buffer;
} ColoPeer;

/*
 * Listens at @address (as the primary), or begins to connect to it.  @name, @address and @ops stay the caller's and must live as
 * long.
 *
 * @tls_creds: the id of the TLS credentials to be used; NULL: none.
 * Returns: false with an error that says why not; nothing is left behind then.
 */
bool colo_peer_open(ColoPeer *peer, const char *name, SocketAddress *address, const char *tls_creds,
                    const ColoSessionConfig *config, uint32_t reconnect, const ColoPeerOps *ops, void *opaque, Error **errp);

/* Tells the other node @why, and closes.  Safe on one never opened. */
void colo_peer_close(ColoPeer *peer, const char *why);

/* Tells the other node @why, and ends this connection, which is not lost thereby; others may come.  Not out of ColoPeerOps. */
void colo_peer_drop(ColoPeer *peer, const char *why);

bool colo_peer_is_ready(const ColoPeer *peer);

/* True if a packet may be sent: the other node is there and keeps up. */
bool colo_peer_has_room(const ColoPeer *peer);

/* Sends a packet, if colo_peer_has_room(); it is written before the main loop sleeps. */
void colo_peer_send(ColoPeer *peer, const struct iovec *iov, int iovcnt, uint32_t vnet_len);

/* The guest has resumed from checkpoint @number; if colo_peer_is_ready(). */
void colo_peer_send_epoch(ColoPeer *peer, uint64_t number);

/* So many bytes of packets are disposed of.  If nobody is there any more, that does not matter. */
void colo_peer_took(ColoPeer *peer, uint64_t size);

#endif /* NET_COLO_PEER_H */
