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
 * Fragments that overlap, or make up more than IP allows, are an attack on whoever puts them together (RFC 5722); they make up
 * nothing here, and leave with a checkpoint.
 */

#include "comparator-internal.h"

static bool overlap(const ColoPacket *a, const ColoPacket *b)
{
    uint32_t a_at = colo_fragment_offset(a);
    uint32_t b_at = colo_fragment_offset(b);

    return a_at < b_at + b->payload_len && b_at < a_at + a->payload_len;
}

/* Takes note of @p; false if it cannot be of one datagram with the others. */
static bool fits(ColoAssembly *assembly, const ColoQueue *queue, const ColoPacket *p)
{
    uint32_t end = colo_fragment_offset(p) + p->payload_len;

    if (!p->payload_len || (colo_fragment_is_last(p) && assembly->total)) {
        return false;
    }
    if (colo_fragment_is_last(p)) {
        assembly->total = end;
    }
    for (const ColoPacket *other = queue->head; other; other = other->next) {
        if (overlap(p, other) || (assembly->total && colo_fragment_offset(other) >= assembly->total)) {
            return false;
        }
    }
    assembly->have += p->payload_len;
    return !assembly->total || end <= assembly->total;
}

ColoPacket *colo_compare_fragment(ColoComparator *c, ColoCompareFlow *f, ColoSide side, ColoPacket *p)
{
    ColoQueue *queue = side == COLO_PRIMARY ? &f->primary : &f->secondary;
    ColoAssembly *assembly = &f->assembly;
    ColoPacket *whole;

    assembly->impossible = assembly->impossible || !fits(assembly, queue, p);
    colo_queue_push(queue, colo_compare_hold(c, f, side, p));
    if (!assembly->impossible && assembly->have == assembly->total) {
        int64_t arrival = queue->head->arrival;

        whole = colo_packet_assemble(queue->head);
        if (whole) {
            for (ColoPacket *part = queue->head; part; part = part->next) {
                colo_compare_unhold(c, f, side, part);
            }
            *queue = (ColoQueue) { 0 };
            whole->arrival = arrival;
            return whole;
        }
        assembly->impossible = true;
    }
    if (assembly->impossible && side == COLO_PRIMARY) {
        colo_compare_diverged(c, COLO_REASON_PAYLOAD, f);
    }
    return NULL;
}
