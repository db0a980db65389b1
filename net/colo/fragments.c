/*
 * Fragments: IP datagrams put together, to be compared as what they are
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Theory of operation
 *
 * Two copies of a guest may number a datagram differently, or cut it in another way, so fragments are not compared; the
 * datagram is that they make up.  Each side's fragments of a datagram (same addresses, protocol and identification: RFC 791,
 * section 3.2; RFC 8200, section 4.5) gather in a flow of their own, held like any packet and with the same deadline.
 * When they are all there, they become the parts of one packet, which is dealt with as if it had come in one piece; where it may
 * leave, they leave, as they came.
 *
 * Fragments that overlap, or make up more than IP allows or a fragment again, are an attack on whoever puts them together
 * (RFC 5722); they make up nothing here, and leave with a checkpoint.
 */

#include "comparator-internal.h"

static uint32_t end_of(const ColoPacket *p)
{
    return colo_fragment_offset(p) + p->payload_len;
}

static bool overlap(const ColoPacket *a, const ColoPacket *b)
{
    return colo_fragment_offset(a) < end_of(b) && colo_fragment_offset(b) < end_of(a);
}

/* True if @p cannot be of one datagram with those that have come. */
static bool contradicts(const ColoQueue *queue, const ColoPacket *p)
{
    for (const ColoPacket *other = queue->head; other; other = other->next) {
        bool behind_end = (colo_fragment_is_last(p) && end_of(other) > end_of(p)) ||
                          (colo_fragment_is_last(other) && end_of(p) > end_of(other));

        if (overlap(p, other) || behind_end || (colo_fragment_is_last(p) && colo_fragment_is_last(other))) {
            return true;
        }
    }
    return !p->payload_len;
}

/* True if the fragments, none of which contradicts another, are all there. */
static bool is_complete(const ColoQueue *queue)
{
    uint32_t have = 0;
    uint32_t total = 0;

    for (const ColoPacket *p = queue->head; p; p = p->next) {
        have += p->payload_len;
        total = colo_fragment_is_last(p) ? end_of(p) : total;
    }
    return have == total;
}

ColoPacket *colo_compare_fragment(ColoComparator *c, ColoCompareFlow *f, ColoSide side, ColoPacket *p)
{
    ColoQueue *queue = side == COLO_PRIMARY ? &f->primary : &f->secondary;
    ColoPacket *whole;
    int64_t arrival;

    f->impossible = (f->impossible && queue->head) || contradicts(queue, p);
    colo_queue_push(queue, colo_compare_hold(c, f, side, p));
    if (!f->impossible && is_complete(queue)) {
        arrival = queue->head->arrival;
        whole = colo_packet_assemble(queue->head);
        if (whole) {
            for (ColoPacket *part = queue->head; part; part = part->next) {
                colo_compare_unhold(c, f, side, part);
            }
            *queue = (ColoQueue) { 0 };
            whole->arrival = arrival;
            return whole;
        }
        f->impossible = true;
    }
    if (f->impossible && side == COLO_PRIMARY) {
        colo_compare_diverged(c, COLO_REASON_PAYLOAD, f);
    }
    return NULL;
}
