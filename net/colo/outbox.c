/*
 * The outbox: packets that wait to be written to a stream
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Theory of operation
 *
 * Packets lie one behind the other with their headers, exactly as they will be written: however many there are, one write
 * takes them all.  The lengths in the headers also tell where each begins, so that a stream that breaks in the
 * middle of a packet can begin anew with that packet, and so that packets can be taken out again.
 */

#include "net/colo/outbox.h"

#include <string.h>

#include "net/colo/checksum.h"

#define FIRST_ALLOCATION (64 * 1024)
/* An empty box gives back what is beyond this. */
#define KEPT_ALLOCATION (1024 * 1024)

/* The whole length of the packet whose header is at @at. */
static size_t packet_len(const ColoOutbox *box, size_t at)
{
    return (box->vnet ? 8 : 4) + (size_t)colo_get_be32(box->bytes + at);
}

static void make_room(ColoOutbox *box, size_t len)
{
    if (box->end + len <= box->allocated) {
        return;
    }
    if (box->boundary && box->boundary >= (box->end - box->boundary)) {
        memmove(box->bytes, box->bytes + box->boundary, box->end - box->boundary);
        box->end -= box->boundary;
        box->written -= box->boundary;
        box->boundary = 0;
    }
    if (box->end + len > box->allocated) {
        box->allocated = MAX(MAX(box->allocated * 2, box->end + len), FIRST_ALLOCATION);
        box->bytes = g_realloc(box->bytes, box->allocated);
    }
}

uint8_t *colo_outbox_append(ColoOutbox *box, uint32_t size, uint32_t vnet_len)
{
    uint8_t *packet;

    make_room(box, COLO_WIRE_HEADER_MAX + (size_t)size);
    packet = box->bytes + box->end;
    packet += colo_wire_header(packet, box->vnet, size, vnet_len);
    box->end = (size_t)(packet - box->bytes) + size;
    return packet;
}

static void rewind_if_empty(ColoOutbox *box)
{
    if (box->boundary == box->end) {
        box->boundary = box->written = box->end = 0;
        if (box->allocated > KEPT_ALLOCATION) {
            colo_outbox_clear(box);
        }
    }
}

void colo_outbox_wrote(ColoOutbox *box, size_t len)
{
    box->written += len;
    g_assert(box->written <= box->end);
    if (box->written == box->end) {
        box->boundary = box->end;
    }
    while (box->boundary < box->written && box->boundary + packet_len(box, box->boundary) <= box->written) {
        box->boundary += packet_len(box, box->boundary);
    }
    rewind_if_empty(box);
}

void colo_outbox_restart(ColoOutbox *box)
{
    box->written = box->boundary;
}

void colo_outbox_empty(ColoOutbox *box, ColoWirePacket *packet, void *opaque)
{
    ColoOutbox taken = *box;
    size_t header = taken.vnet ? 8 : 4;

    /* @packet may append to @box. */
    *box = (ColoOutbox) { .vnet = taken.vnet };
    for (size_t at = taken.boundary; at < taken.end; at += packet_len(&taken, at)) {
        packet(taken.bytes + at + header, colo_get_be32(taken.bytes + at),
               taken.vnet ? colo_get_be32(taken.bytes + at + 4) : 0, opaque);
    }
    colo_outbox_clear(&taken);
}

void colo_outbox_take(ColoOutbox *box, uint32_t count, ColoWirePacket *packet, void *opaque)
{
    size_t header = box->vnet ? 8 : 4;

    g_assert(box->written == box->boundary);
    while (count-- && box->boundary < box->end) {
        size_t at = box->boundary;

        packet(box->bytes + at + header, colo_get_be32(box->bytes + at), box->vnet ? colo_get_be32(box->bytes + at + 4) : 0,
               opaque);
        box->boundary = box->written = at + packet_len(box, at);
    }
    rewind_if_empty(box);
}

void colo_outbox_clear(ColoOutbox *box)
{
    g_free(box->bytes);
    *box = (ColoOutbox) { .vnet = box->vnet };
}
