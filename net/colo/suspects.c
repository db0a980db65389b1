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
 * - anything, if the secondary is ahead in another flow: the two are crossed.  Copies that take the same locks in another order come to
 *   that: each waits for a client to go on whom only the other has answered.
 *
 * But so do copies that merely work off the same requests in another order.  What tells them apart is that nothing moves any more.  The
 * grace begins anew with each packet of either side, and is at least twice what a checkpoint takes: to wait for longer than that costs
 * more than to be wrong.  Where other clients keep the guests busy, it never ends; there a part of compare_timeout is enough, if
 * the secondary goes on sending in it: one that stands still has not decided otherwise.
 *
 * Only what answers a client counts on either side, that is the first to acknowledge more than what has left in its flow.  How much
 * of a long answer comes at once is up to windows and timers, and the rest comes when the client has acknowledged that.
 * Nor does a datagram that only the secondary has sent count, which may be one that nobody will miss, or a segment that has lain
 * there for compare_timeout: its connection may be over, which is not always seen here.
 */

#include "comparator-internal.h"
#include "net/colo/seq.h"

/* Of compare_timeout, where the guests are busy. */
#define BUSY_PART 10

/* Held packets that open a flow and are looked at, the oldest, when a grace may have ended. */
#define OPENERS_MAX 256

/* Suspects */

static bool is_opener(const ColoPacket *p)
{
    return p->opens && !colo_compare_has_spoken((const ColoCompareFlow *)p->flow, COLO_SECONDARY);
}

/* When the grace of the primary's held @p ends; INT64_MAX: nothing speaks against it now. */
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

void colo_compare_check_suspects(ColoComparator *c)
{
    int openers = 0;

    c->suspect_at = INT64_MAX;
    for (ColoPacket *p = c->held[COLO_PRIMARY].oldest; p; p = p->newer) {
        int64_t ends;

        if (is_opener(p) && ++openers > OPENERS_MAX) {
            c->suspect_at = MIN(c->suspect_at, c->now + COLO_GRACE);
            continue;
        }
        ends = grace_ends(c, p);
        if (ends <= c->now) {
            colo_compare_diverged(c, p->class == COLO_CLASS_TCP ? COLO_REASON_FLAGS : COLO_REASON_PAYLOAD,
                                  (ColoCompareFlow *)p->flow);
            return;
        }
        c->suspect_at = MIN(c->suspect_at, ends);
    }
}

/* Crossed waits */

/* True if @p says something new to what the client has said. */
static bool is_answer(const ColoPacket *p)
{
    const ColoCompareFlow *f = (const ColoCompareFlow *)p->flow;

    return !f->tcp.answered_set || !(p->tcp_flags & COLO_TCP_ACK) || colo_seq_after(p->ack, f->answered);
}

/* True if the primary's held @p waits for the secondary to say (or reset) the same, not just to acknowledge something. */
static bool waits_for_like(const ColoPacket *p)
{
    const ColoCompareFlow *f = (const ColoCompareFlow *)p->flow;

    if (p->class != COLO_CLASS_TCP) {
        return !p->matched;
    }
    return p->tcp_flags & COLO_TCP_RST || (f->tcp.frontier == p && is_answer(p));
}

static ColoPacket *find_waiting(const ColoComparator *c)
{
    ColoPacket *p = c->held[COLO_PRIMARY].oldest;

    while (p && !waits_for_like(p)) {
        p = p->newer;
    }
    return p;
}

/* True if the secondary's held @s is an answer in another flow than that of the waiting @p, or in one that @p resets. */
static bool is_ahead(const ColoComparator *c, const ColoPacket *s, const ColoPacket *p)
{
    return s->arrival + c->config.timeout > c->now && (s->flow != p->flow || p->tcp_flags & COLO_TCP_RST) && is_answer(s);
}

static const ColoPacket *find_ahead(const ColoComparator *c, const ColoPacket *p)
{
    const ColoPacket *s = c->held[COLO_SECONDARY].oldest;

    while (s && !is_ahead(c, s, p)) {
        s = s->newer;
    }
    return s;
}

void colo_compare_check_crossed(ColoComparator *c)
{
    ColoPacket *p = find_waiting(c);
    const ColoPacket *ahead = p ? find_ahead(c, p) : NULL;
    int64_t grace = MAX(COLO_GRACE, 2 * c->checkpoint_took);
    int64_t at_rest = MAX(c->heard_at[COLO_PRIMARY], c->heard_at[COLO_SECONDARY]) + grace;
    int64_t busy;

    c->crossed_at = INT64_MAX;
    if (!ahead) {
        return;
    }
    if (!colo_comparator_may_read(c, COLO_PRIMARY) || !colo_comparator_may_read(c, COLO_SECONDARY)) {
        c->crossed_at = c->now + COLO_GRACE;        /* whoever is not read seems to be at rest */
        return;
    }
    busy = MAX(p->arrival, ahead->arrival) + c->config.timeout / BUSY_PART;
    if (at_rest <= c->now || c->heard_at[COLO_SECONDARY] >= busy) {
        colo_compare_diverged(c, p->class == COLO_CLASS_TCP && !p->payload_len ? COLO_REASON_FLAGS : COLO_REASON_PAYLOAD,
                              (ColoCompareFlow *)p->flow);
    } else {
        c->crossed_at = at_rest;
    }
}
