/*
 * Links: packets over a chardev
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef NET_COLO_LINK_H
#define NET_COLO_LINK_H

#include "chardev/char-fe.h"
#include "net/colo-series.h"
#include "net/colo/outbox.h"
#include "net/colo/wire.h"

/*
 * The most that is read at once (bytes): a few of the longest packets, so that most of them come whole and need not be put
 * together.
 */
#define COLO_LINK_READ (256 * 1024)

typedef struct ColoLinkOps {
    /* A packet has come.  NULL: whatever comes is read and thrown away. */
    ColoWirePacket *packet;
    /* How many bytes to read now, at most COLO_LINK_READ; NULL: that many.  Asked again on every turn of the link's main context. */
    int (*may_read)(void *opaque);
    /* All packets of one read have been handed on.  May be NULL. */
    void (*read_done)(void *opaque);
    /* Connected, or disconnected.  The latter comes out of colo_link_flush(), too, and must leave the outbox alone.  May be NULL. */
    void (*connected)(bool connected, void *opaque);
} ColoLinkOps;

/* One end of a chardev.  All calls come from the thread that runs its main context, save where it says otherwise. */
typedef struct ColoLink {
    CharFrontend chr;
    GMainContext *context;      /* NULL: the main loop's */
    const ColoLinkOps *ops;
    void *opaque;
    char *name;                 /* "colo-compare 'comp0': primary_in", for messages */
    bool open;
    bool connected;
    ColoWireReader *reader;
    ColoOutbox outbox;
    GSource *turn;              /* writes before the thread sleeps */
    guint watch;                /* waits until the chardev takes more; 0: none */
} ColoLink;

/*
 * Takes the chardev @chardev_id, named by @property of @owner, into use.  Main thread.
 *
 * @read_vnet, @write_vnet: whether packets carry virtio-net header lengths on the way in and on the way out.
 * Returns: false with an error that names the object, the property and the cure; nothing is left behind then.
 */
bool colo_link_open(ColoLink *link, Object *owner, const char *property, const char *chardev_id,
                    bool read_vnet, bool write_vnet, Error **errp);

/* Begins to read, and to see connections come and go, in @context. */
void colo_link_start(ColoLink *link, const ColoLinkOps *ops, void *opaque, GMainContext *context);

/*
 * Ends the connection if a packet has been read or written in part: whoever goes on with the chardev must not take
 * the rest of it for a new one.
 */
void colo_link_cut(ColoLink *link);

/* Neither reads nor writes any more.  Cuts as colo_link_cut() does. */
void colo_link_stop(ColoLink *link);

/* Gives the chardev back.  Main thread; after colo_link_stop(), or if never started.  Safe on a link never opened. */
void colo_link_close(ColoLink *link);

/*
 * Queues a packet, which is written before the link's thread sleeps next.  A link of the main loop's may be sent to
 * by whoever holds the big lock.
 */
void colo_link_send(ColoLink *link, const struct iovec *iov, int iovcnt, uint32_t vnet_len);

/* Writes as much as the chardev takes now, never waiting; the rest follows by itself. */
void colo_link_flush(ColoLink *link);

#endif /* NET_COLO_LINK_H */
