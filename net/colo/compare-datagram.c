/*
 * Comparing datagrams
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Theory of operation
 *
 * A datagram of the primary leaves when the secondary has sent one with the same payload in the same flow; each of the
 * secondary's stands for one.  Place does not matter: the sides may send in another order, and each keeps
 * what the other has not sent yet.  The primary's leave in their own order.
 *
 * Different, swapped and late look the same at first.  When each side has sent something that the other has not, the
 * primary's gets a short grace in which its like may still come; after that the sides differ.  A
 * datagram that only the secondary has sent is no divergence, since no client has seen it.
 */

#include "comparator-internal.h"

#include <string.h>

/* IP identification, TTL, TOS, checksums and padding are not part of it. */
static bool same_datagram(const ColoPacket *a, const ColoPacket *b)
{
    return a->payload_len == b->payload_len && a->udp_len == b->udp_len &&
           !memcmp(a->data + a->payload, b->data + b->payload, a->payload_len);
}

static ColoPacket *find_like(const ColoQueue *queue, const ColoPacket *like)
{
    for (ColoPacket *p = queue->head; p; p = p->next) {
        if (!p->matched && same_datagram(p, like)) {
            return p;
        }
    }
    return NULL;
}

static void release_matched(ColoComparator *c, ColoCompareFlow *f)
{
    ColoPacket *p;

    while ((p = f->primary.head) && p->matched) {
        colo_queue_remove(&f->primary, p);
        colo_compare_release(c, f, p);
        colo_compare_drop(c, f, COLO_PRIMARY, p);
    }
}

/* Each side has sent what the other has not: the primary's first such one gets its grace. */
static void suspect(ColoComparator *c, ColoCompareFlow *f, int64_t now)
{
    ColoPacket *p = f->primary.head;

    if (p && f->secondary.head && !p->suspected) {
        p->suspected = true;
        p->suspect = now;
        c->suspect_at = MIN(c->suspect_at, now + COLO_GRACE);
    }
}

void colo_compare_datagram(ColoComparator *c, ColoCompareFlow *f, ColoSide side, ColoPacket *p, int64_t now)
{
    ColoSide other = side == COLO_PRIMARY ? COLO_SECONDARY : COLO_PRIMARY;
    ColoPacket *like = find_like(other == COLO_PRIMARY ? &f->primary : &f->secondary, p);

    if (side == COLO_PRIMARY) {
        if (like) {
            colo_queue_remove(&f->secondary, like);
            colo_compare_drop(c, f, COLO_SECONDARY, like);
            p->matched = true;
        }
        if (p->matched && !f->primary.head) {
            colo_compare_release(c, f, p);
            return;
        }
        colo_queue_push(&f->primary, colo_compare_hold(c, f, COLO_PRIMARY, p));
    } else if (like) {
        like->matched = true;
        colo_compare_discard(c, p);
        release_matched(c, f);
    } else {
        colo_queue_push(&f->secondary, colo_compare_hold(c, f, COLO_SECONDARY, p));
    }
    suspect(c, f, now);
}
