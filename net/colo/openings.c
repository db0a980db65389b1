/*
 * Flows that each side opens from a port (or an address) of its own
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Theory of operation
 *
 * A guest that connects to somebody, or asks a name server, does so from any port that is free.  Which one is up to random
 * numbers, and soon after a checkpoint the two copies have different ones.  Then each has opened a flow that the other knows nothing
 * of: nothing will ever be matched in either, and to wait for it until compare_timeout, each time, would make such a guest useless.
 *
 * So the last few flows that only the secondary has opened are remembered.  When what opens one of the primary's has waited for a
 * grace, and the secondary has had one to the same place from another port for as long, the sides differ.  If the
 * copies merely open several in another order, the grace is enough for them to meet.
 *
 * A port may be used again: a flow in which nobody has spoken for a second is as good as a new one, until it is a connection.
 */

#include "comparator-internal.h"

#include <string.h>

/* Datagrams from ports below that are a service's (RFC 6335, section 6). */
#define TAKEN_FROM 1024

#define SPOKE_BOTH (1 << COLO_PRIMARY | 1 << COLO_SECONDARY)

/* In units of 2^20 ns, about a millisecond: a second. */
#define SPOKE_SHIFT 20
#define SPOKE_LATELY (1000000000 >> SPOKE_SHIFT)

void colo_compare_forget_lone_speaker(ColoCompareFlow *f)
{
    f->spoke = f->spoke == SPOKE_BOTH ? f->spoke : 0;
}

void colo_compare_note_time(ColoCompareFlow *f, const ColoPacket *p, int64_t now)
{
    uint32_t spoke_now = (uint32_t)(now >> SPOKE_SHIFT);

    if ((int32_t)(spoke_now - f->spoke_at) > SPOKE_LATELY && !f->count[COLO_PRIMARY] && !f->count[COLO_SECONDARY] &&
        (p->class != COLO_CLASS_TCP || p->tcp_flags & COLO_TCP_SYN)) {
        f->spoke = 0;
    }
    f->spoke_at = spoke_now;
}

/* A connection begins with a SYN of its own; what else has ports may begin with anything. */
static bool may_open(const ColoFlowKey *key, const ColoPacket *p)
{
    return p->class == COLO_CLASS_TCP ? (p->tcp_flags & (COLO_TCP_SYN | COLO_TCP_ACK)) == COLO_TCP_SYN
                                      : key->guest_port >= TAKEN_FROM;
}

void colo_compare_opening(ColoComparator *c, ColoCompareFlow *f, ColoSide side, const ColoPacket *p)
{
    bool first = !colo_compare_has_spoken(f, side);

    f->spoke |= 1 << side;
    if (!may_open(&f->flow.key, p)) {
        return;
    }
    if (side == COLO_SECONDARY && first) {
        c->openings[c->openings_count++ % COLO_OPENINGS] = (ColoOpening) { .key = f->flow.key, .at = c->now };
    } else if (side == COLO_PRIMARY && f->primary.tail) {
        f->primary.tail->opens = true;
    } else {
        return;
    }
    if (c->openings_count && c->held[COLO_PRIMARY].oldest) {
        c->suspect_at = MIN(c->suspect_at, c->now + COLO_GRACE);
    }
}

/* To the same place from somewhere else. */
static bool is_like(const ColoFlowKey *a, const ColoFlowKey *b)
{
    ColoFlowKey from_there = *a;

    memcpy(from_there.guest, b->guest, sizeof(b->guest));
    from_there.guest_port = b->guest_port;
    return memcmp(a, b, sizeof(*b)) != 0 && memcmp(&from_there, b, sizeof(*b)) == 0;
}

int64_t colo_compare_opened_elsewhere(ColoComparator *c, const ColoCompareFlow *f)
{
    int64_t first = INT64_MAX;

    for (uint32_t i = 0; i < MIN(c->openings_count, COLO_OPENINGS); i++) {
        const ColoOpening *opening = &c->openings[i];

        if (opening->at < first && opening->at + c->config.timeout > c->now && is_like(&f->flow.key, &opening->key)) {
            const ColoCompareFlow *its = (const ColoCompareFlow *)colo_flow_find(c->flows, &opening->key, c->now);

            if (its && its->epoch == c->epoch && !colo_compare_has_spoken(its, COLO_PRIMARY)) {
                first = opening->at;
            }
        }
    }
    return first;
}
