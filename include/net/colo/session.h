/*
 * The session: what the two ends of a colo-proxy say to each other
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The protocol is specified in docs/protocol.rst.
 */

#ifndef NET_COLO_SESSION_H
#define NET_COLO_SESSION_H

#include "net/colo/comparator.h"
#include "net/colo/wire.h"

#define COLO_SESSION_VERSION 1

/* Longest text of a refusal, bytes. */
#define COLO_SESSION_TEXT_MAX 200

typedef struct ColoSession ColoSession;

typedef struct ColoSessionConfig {
    ColoSide side;
    uint64_t instance;          /* random; tells this end from any other there ever was */
    uint64_t credit;            /* bytes of packets that the peer may send before we have taken them */
    int64_t heartbeat;          /* ns between two signs of life */
    int64_t heartbeat_timeout;  /* ns of silence after which the peer is lost */
} ColoSessionConfig;

typedef struct ColoSessionOps {
    /*
     * Both have said hello, and agree.  Packets may be sent from now on.  @instance: the peer's.
     *
     * Returns: NULL, or why we do not want to have to do with it, which ends the session.
     */
    const char *(*ready)(uint64_t instance, void *opaque);
    ColoWirePacket *packet;
    /* What comes from the peer's guest from now on is of epoch @number.  Returns: false if that cannot be, which ends the session. */
    bool (*epoch)(uint64_t number, void *opaque);
} ColoSessionOps;

/* One connection begins, now: our hello lies in the outbox.  The caller frees it with colo_session_free(). */
ColoSession *colo_session_new(const ColoSessionConfig *config, const ColoSessionOps *ops, void *opaque, int64_t now);
void colo_session_free(ColoSession *s);

/*
 * The next @len bytes from the peer, cut anywhere.
 *
 * Returns: false if the session has ended; colo_session_error() says why.  What lies in the outbox (the peer is told why, too) may
 * still be written; then the connection is to be closed.
 */
bool colo_session_read(ColoSession *s, const uint8_t *bytes, size_t len, int64_t now);

/*
 * Time has come to colo_session_deadline(), or may have: heartbeats are sent.
 *
 * Returns: false if the peer has been silent for too long; colo_session_error() says so.
 */
bool colo_session_tick(ColoSession *s, int64_t now);

/* True if colo_session_tick() would find that the peer has been silent for too long. */
bool colo_session_is_silent(const ColoSession *s, int64_t now);

/* When to call colo_session_tick() next, ns. */
int64_t colo_session_deadline(const ColoSession *s);

/* Why the session has ended, in words for people; NULL if it has not. */
const char *colo_session_error(const ColoSession *s);

/* True once both have said hello, until the session ends. */
bool colo_session_is_ready(const ColoSession *s);

/* True once the peer has said more than hello; one that then says goodbye has turned us away. */
bool colo_session_has_heard(const ColoSession *s);

/* @size bytes of packets, their virtio-net headers included, have been disposed of: the peer may send as many more. */
void colo_session_took(ColoSession *s, uint64_t size);

/* True while the peer has room for one more packet, of whatever size. */
bool colo_session_has_room(const ColoSession *s);

/*
 * Room for a packet of @size bytes, its virtio-net header included, which the caller fills in before anything else is called.
 * Only while colo_session_is_ready() and colo_session_has_room().
 */
uint8_t *colo_session_append(ColoSession *s, uint32_t size, uint32_t vnet_len);

void colo_session_send_epoch(ColoSession *s, uint64_t number);

/* An orderly end: the peer is told @why. */
void colo_session_say_goodbye(ColoSession *s, const char *why);

/* What is to be written, and how much of it has been. */
const uint8_t *colo_session_bytes(const ColoSession *s);
size_t colo_session_size(const ColoSession *s);
void colo_session_wrote(ColoSession *s, size_t len);

#endif /* NET_COLO_SESSION_H */
