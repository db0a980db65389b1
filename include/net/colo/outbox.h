/*
 * The outbox: packets that wait to be written to a stream
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef NET_COLO_OUTBOX_H
#define NET_COLO_OUTBOX_H

#include "net/colo/wire.h"

/* All zero (and @vnet) is an empty one. */
typedef struct ColoOutbox {
    bool vnet;              /* the stream carries virtio-net header lengths */
    uint8_t *bytes;
    size_t allocated;
    size_t boundary;        /* where the first packet begins that is not wholly written */
    size_t written;         /* how far writing has come; within that packet, or at its start */
    size_t end;
} ColoOutbox;

/* Room for a packet of @size bytes, its header already before it; the caller fills it in. */
uint8_t *colo_outbox_append(ColoOutbox *box, uint32_t size, uint32_t vnet_len);

static inline bool colo_outbox_is_empty(const ColoOutbox *box)
{
    return box->written == box->end;
}

/* Bytes that are still to be written. */
static inline size_t colo_outbox_size(const ColoOutbox *box)
{
    return box->end - box->written;
}

/* True if a packet has been written in part. */
static inline bool colo_outbox_is_amid(const ColoOutbox *box)
{
    return box->written != box->boundary;
}

/* What to write next: colo_outbox_size() bytes from here on. */
static inline const uint8_t *colo_outbox_bytes(const ColoOutbox *box)
{
    return box->bytes + box->written;
}

/* @len bytes have been written. */
void colo_outbox_wrote(ColoOutbox *box, size_t len);

/* The stream begins anew: the packet that was written in part will be written whole. */
void colo_outbox_restart(ColoOutbox *box);

/* Takes all packets out, in order, the one written in part included. */
void colo_outbox_empty(ColoOutbox *box, ColoWirePacket *packet, void *opaque);

/* Takes up to @count packets out at the front; @packet must leave the box alone, and none may have been written in part. */
void colo_outbox_take(ColoOutbox *box, uint32_t count, ColoWirePacket *packet, void *opaque);

/* Frees everything. */
void colo_outbox_clear(ColoOutbox *box);

#endif /* NET_COLO_OUTBOX_H */
