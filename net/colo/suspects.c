/*
 * What speaks for a divergence before the timeout
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Theory of operation
 *
 * What the primary has sent and the secondary has not may just be late: that alone is no divergence until compare_timeout.  But the
 * secondary may have sent something else meanwhile.  Then the primary's is suspect, and its like gets a grace in which to come:
 *
 * - a datagram, if the secondary has sent another one in the same flow (compare-datagram.c),
 * - what opens a flow, if the secondary has opened one to the same place from somewhere else (openings.c),
 * - anything, if the secondary is ahead in another flow.  Two copies that take the same locks in another order come to that: one waits
 *   for a client to go on whom only the other has answered.  But so do copies that merely work off the same requests in
 *   another order.  What tells them apart is that nothing moves any more.  The grace begins anew with each packet of either
 *   side; where other clients keep them busy, it lasts for a part of compare_timeout instead, provided that the secondary
 *   goes on sending: one that stands still has not decided otherwise.
 *
 * Only streams tell that the secondary is ahead.  A datagram that only it has sent may be one that nobody will miss.
 */

#include "comparator-internal.h"

/* Of compare_timeout, where the guests are busy. */
#define BUSY_PART 10

/* Held packets that open a flow and are looked at, the oldest, when a grace may have ended. */
#define OPENERS_MAX 256

static bool is_opener(const ColoPacket *p)
{
    return p->opens && !colo_compare_has_spoken((const ColoCompareFlow *)p->flow, COLO_SECONDARY);
}

/* When the grace of the primary's held @p ends, by what has come in its own flow or in one like it; INT64_MAX: it has none. */
static int64_t grace_ends(ColoComparator *c, ColoPacket *p)
{
    const ColoCompareFlow *f = (const ColoCompareFlow *)p->flow;

    if (is_opener(p)) {
        int64_t elsewhere = colo_compare_opened_elsewhere(c, f);

        return elsewhere == INT64_MAX ? INT64_MAX : MAX(p->arrival, elsewhere) + COLO_GRACE;
    }
    p->suspected = p->suspected && f->secondary.head;       /* else what the other side sent has found its like */
    return p->suspected ? p->suspect + COLO_GRACE : INT64_MAX;
}

/* True if the primary's held @p waits for the secondary to say (or reset) the same, not just to acknowledge something. */
static bool waits_for_like(const ColoPacket *p)
{
    const ColoCompareFlow *f = (const ColoCompareFlow *)p->flow;

    return p->class == COLO_CLASS_TCP ? f->tcp.frontier == p || p->tcp_flags & COLO_TCP_RST : !p->matched;
}

/* When the grace of @p, which waits for its like, ends because the secondary is ahead elsewhere. */
static int64_t grace_of_crossed(const ColoComparator *c, const ColoPacket *p)
{
    const ColoPacket *ahead = c->held[COLO_SECONDARY].oldest;
    int64_t at_rest = MAX(c->heard_at[COLO_PRIMARY], c->heard_at[COLO_SECONDARY]) + COLO_GRACE;
    int64_t busy;

    if (!ahead) {
        return INT64_MAX;
    }
    busy = MAX(p->arrival, ahead->arrival) + c->config.timeout / BUSY_PART;
    return c->heard_at[COLO_SECONDARY] >= busy ? MIN(at_rest, busy) : at_rest;
}

void colo_compare_check_suspects(ColoComparator *c)
{
    bool crossed_known = false;
    int openers = 0;

    c->suspect_at = INT64_MAX;
    for (ColoPacket *p = c->held[COLO_PRIMARY].oldest; p; p = p->newer) {
        int64_t ends;

        if (is_opener(p) && ++openers > OPENERS_MAX) {
            c->suspect_at = MIN(c->suspect_at, c->now + COLO_GRACE);
            continue;
        }
        ends = grace_ends(c, p);
        if (!crossed_known && waits_for_like(p)) {
            ends = MIN(ends, grace_of_crossed(c, p));       /* the oldest's ends first */
            crossed_known = true;
        }
        if (ends <= c->now) {
            colo_compare_diverged(c, p->tcp_flags & (COLO_TCP_SYN | COLO_TCP_RST) ? COLO_REASON_FLAGS : COLO_REASON_PAYLOAD,
                                  (ColoCompareFlow *)p->flow);
            return;
        }
        c->suspect_at = MIN(c->suspect_at, ends);
    }
}
