/*
 * Comparing byte streams
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Theory of operation
 *
 * Each side of a connection is a stream of positions: SYN, bytes, FIN.  `next` is the position up to which both
 * have been found the same.  The primary's segments wait in a queue, as they came; the secondary's in
 * another, sorted.  Whenever either grows, the two are compared from `next` on, run against run, however each side has
 * cut, merged or repeated its segments.  What is compared once is not compared again.
 *
 * A segment leaves when all of it lies before `next` and the secondary has acknowledged as much as it does.  One that is
 * compared in part is cut: its front half leaves at once.  Holding it whole could wait for ever: a
 * secondary whose window is full sends no more until the client acknowledges, and the client cannot
 * acknowledge what it has not been given.
 *
 * Acknowledgements are not packets to be paired.  How many a guest sends depends on its timers; what the client learns from
 * them is one number.  The primary's go up to the highest the secondary has made; the secondary's are noted.
 *
 * Windows.  The client may send up to where both sides allow it, or the slower one has to throw away what it has no room for,
 * and only the client's timer repeats that.  So a window of the primary's that goes beyond the secondary's is told only as far
 * as that one goes.  The primary may have nothing further to say that would tell the rest: so an acknowledgement that would
 * leave the client next to nothing to send waits until the secondary has room, unless something comes behind it.
 *
 * How many bytes a window stands for, the client knows better: the scale is that of the primary's SYN, but the SYN may not have
 * been seen, or the client may have refused to scale.  What is reckoned with here is never smaller than it is.  So too little
 * is told rather than too much: what the secondary has acknowledged beyond the primary counts for less than it should.  That
 * holds for the window of its highest acknowledgement only; one that came before would count for too much, and for long.
 *
 * Order.  Packets leave in the order in which the primary sent them, but for one: a repetition of what has left
 * overtakes what is held.  It must: if the client lost the first copy, the secondary may not send on before the
 * client has acknowledged it, and what is held waits for the secondary.
 *
 * Repetitions.  A position that has been compared may be said again, cut in another way, and the client may have missed
 * the first copy.  So what is said again is held against what was said before (history.c), and does not wait for the
 * secondary; if it says something else, or nobody remembers, that is a divergence.
 *
 * SYN.  The secondary numbers its own from where it likes, so a SYN is not looked for at a position: the last one it
 * sent is kept aside until a SYN of the primary is compared with it.  From then on the rewriter maps its segments.
 *
 * RST takes no position either.  The primary's leaves once the secondary has sent one too, which is used up by that; one that repeats
 * the last leaves at once.  The secondary may never send one: it still knows in TIME-WAIT a connection that the primary has forgotten
 * for want of room.  Nobody misses that RST; but if the client opens the connection anew, the answer to that does not wait behind it.
 */

#include "comparator-internal.h"
#include "net/colo/history.h"
#include "net/colo/seq.h"
#include "net/colo/stream.h"

#include <string.h>

/*
 * How many words of the history are looked at for one packet.  An honest repetition of 64 KiB finds its 45 segments among the
 * thousands that are under way.
 */
#define PATIENCE (256 * 1024)

/*
 * An acknowledgement that allows the client to send so much (bytes: two full segments), or half of what the primary has
 * room for, need not wait for more: senders do not, either (RFC 9293, section 3.8.6.2.1).
 */
#define WINDOW_ENOUGH 2920

/* Where the SYN was not seen: the largest scale there is (RFC 7323, section 2.3), and which part of a window is enough. */
#define WINDOW_SCALE_UNKNOWN 14
#define WINDOW_PART_ENOUGH 16

/* Segments of the secondary's in a flow beyond which one that is late is not sorted in any more. */
#define LATE_MAX 4096

/* What two SYNs must have in common besides being one. */
static uint64_t syn_options(const ColoComparator *c, const ColoPacket *p)
{
    uint8_t options[40];
    uint32_t len = colo_packet_tcp_options(p, options);

    return colo_flow_table_hash(c->flows, options, len);
}

/* Takes note of one acknowledgement more: the highest counts, and of equal ones the one that allows most. */
static void add_grant(ColoGrant *grant, bool set, ColoGrant more)
{
    if (!set || colo_seq_after(more.ack, grant->ack)) {
        *grant = more;
    } else if (more.ack == grant->ack) {
        grant->edge = colo_seq_max(grant->edge, more.edge);
    }
}

/* All before @position is compared, or was sent before the epoch. */
static void set_next(ColoTcp *t, uint32_t position)
{
    t->next = position;
    t->next_set = true;
    t->secondary_probe_set = false;
}

/* Forgets the secondary's segments that have nothing left to be compared. */
static void forget_compared(ColoComparator *c, ColoCompareFlow *f)
{
    ColoPacket *p;

    while ((p = colo_stream_take_before(&f->secondary, f->tcp.next))) {
        if (p->held) {
            colo_compare_drop(c, f, COLO_SECONDARY, p);
        }
    }
}

/* The connection is over: what the secondary has said and nobody has compared never will be. */
static void forget_secondary(ColoComparator *c, ColoCompareFlow *f)
{
    ColoPacket *next;

    for (ColoPacket *p = f->secondary.head; p; p = next) {
        next = p->next;
        if (p->held) {
            colo_queue_remove(&f->secondary, p);
            colo_compare_drop(c, f, COLO_SECONDARY, p);
        }
    }
}

/* True for a SYN of a connection that has not been opened here yet. */
static bool opens_anew(const ColoTcp *t, const ColoPacket *p)
{
    return (p->tcp_flags & (COLO_TCP_SYN | COLO_TCP_RST)) == COLO_TCP_SYN &&
           !(t->primary_isn_set && t->primary_isn == p->seq);
}

/* True if @p has nothing to be compared: an acknowledgement, or a reset. */
static bool has_no_units(const ColoPacket *p)
{
    return p->tcp_flags & COLO_TCP_RST || !colo_packet_seq_len(p);
}

/* True if all that @p says has been said, and compared, already. */
static bool is_repetition(const ColoTcp *t, const ColoPacket *p)
{
    return t->next_set && !colo_seq_after(p->seq_end, t->next);
}

/* True for the last byte said again, of whatever value, as some keep-alives do (RFC 9293, section 3.8.4). */
static bool is_probe(const ColoTcp *t, const ColoPacket *p)
{
    return p->payload_len == 1 && colo_packet_seq_len(p) == 1 && t->next_set && p->seq_end == t->next;
}

/* The primary's stream and what it is held against differ at position @seq. */
static bool differ(ColoComparator *c, const ColoCompareFlow *f, ColoReason reason, uint32_t seq)
{
    colo_compare_diverged_at(c, reason, f, seq);
    return false;
}

/* The same for two runs of bytes from @seq on, of which not all are the same. */
static bool differ_in_bytes(ColoComparator *c, const ColoCompareFlow *f, ColoRun a, ColoRun b, uint32_t seq)
{
    uint32_t same = 0;

    while (a.bytes[same] == b.bytes[same]) {
        same++;
    }
    return differ(c, f, COLO_REASON_PAYLOAD, seq + same);
}

/* What the primary has said at @seq before it said @p. */
static ColoRun said_before(const ColoComparator *c, const ColoCompareFlow *f, const ColoPacket *p, uint32_t seq,
                           uint32_t *patience)
{
    ColoRun run = colo_history_run(c->history, f->tcp.said, seq, patience);

    for (const ColoPacket *q = f->primary.head; q && q != p && run.kind == COLO_RUN_NONE; q = q->next) {
        if (!has_no_units(q) && colo_seq_after(q->compared, seq)) {
            run = colo_packet_run(q, seq);
            run.len = MIN(run.len, q->compared - seq);
        }
    }
    return run;
}

/* Compares the primary's repeated SYN. */
static bool compare_syn_again(ColoComparator *c, const ColoCompareFlow *f, const ColoPacket *p)
{
    const ColoTcp *t = &f->tcp;
    uint64_t options = syn_options(c, p);

    return options == t->primary_options || (t->secondary_isn_set && options == t->secondary_options) ||
           differ(c, f, COLO_REASON_OPTIONS, p->seq);
}

/*
 * Compares those units of @p that lie before @end, which is not after `next`, with what was said there.  Returns true if there
 * are none, or none is left.
 */
static bool compare_again(ColoComparator *c, const ColoCompareFlow *f, ColoPacket *p, uint32_t end)
{
    const ColoTcp *t = &f->tcp;
    uint32_t patience = PATIENCE;

    while (p->compared != p->seq_end && colo_seq_before(p->compared, end)) {
        ColoRun ours = colo_packet_run(p, p->compared);
        ColoRun before = said_before(c, f, p, p->compared, &patience);
        uint32_t len = MIN(MIN(ours.len, before.len), end - p->compared);

        if (ours.kind == COLO_RUN_SYN && !compare_syn_again(c, f, p)) {
            return false;
        }
        if (ours.kind == COLO_RUN_BYTES && is_probe(t, p) &&
            !(before.kind == COLO_RUN_BYTES && *ours.bytes == *before.bytes)) {
            if (!t->secondary_probe_set || t->secondary_probe != *ours.bytes) {
                return false;       /* the secondary will send one, too */
            }
            len = 1;
        } else if (before.kind != ours.kind) {
            return differ(c, f, before.kind == COLO_RUN_NONE ? COLO_REASON_PAYLOAD : COLO_REASON_FLAGS, p->compared);
        } else if (ours.kind == COLO_RUN_BYTES && memcmp(ours.bytes, before.bytes, len) != 0) {
            return differ_in_bytes(c, f, ours, before, p->compared);
        }
        p->compared += len;
    }
    return true;
}

/*
 * Compares the primary's SYN with the one the secondary has sent.  Returns false if there is none, or
 * if they differ.
 */
static bool compare_syn(ColoComparator *c, ColoCompareFlow *f, const ColoPacket *p)
{
    ColoTcp *t = &f->tcp;
    uint64_t options;

    if (!t->secondary_syn) {
        return false;
    }
    if (t->secondary_syn_ack != !!(p->tcp_flags & COLO_TCP_ACK)) {
        return differ(c, f, COLO_REASON_FLAGS, p->seq);
    }
    options = syn_options(c, p);
    if (t->secondary_options != options) {
        return differ(c, f, COLO_REASON_OPTIONS, p->seq);
    }
    t->primary_options = options;
    t->secondary_syn = false;
    return true;
}

/*
 * Moves through the primary's @p, and `next` with it, as far as the secondary's stream allows.  Returns true once @p is
 * wholly compared.
 */
static bool compare(ColoComparator *c, ColoCompareFlow *f, ColoPacket *p)
{
    ColoTcp *t = &f->tcp;

    if (has_no_units(p)) {
        return true;
    }
    if (opens_anew(t, p)) {
        return false;           /* its turn comes when what is held of the old connection has left */
    }
    if (!t->next_set) {
        set_next(t, p->seq);
    }
    if (!compare_again(c, f, p, t->next)) {
        return false;
    }
    while (p->compared != p->seq_end) {
        ColoRun ours = colo_packet_run(p, p->compared);
        ColoRun theirs;
        uint32_t len;

        if (p->compared != t->next) {
            return false;       /* something is missing before it */
        }
        if (ours.kind == COLO_RUN_SYN) {
            if (!compare_syn(c, f, p)) {
                return false;
            }
            len = 1;
        } else {
            theirs = colo_stream_run(&f->secondary, t->next);
            if (theirs.kind == COLO_RUN_NONE) {
                return false;
            }
            if (theirs.kind != ours.kind) {
                return differ(c, f, COLO_REASON_FLAGS, t->next);
            }
            len = MIN(ours.len, theirs.len);
            if (ours.kind == COLO_RUN_BYTES && memcmp(ours.bytes, theirs.bytes, len) != 0) {
                return differ_in_bytes(c, f, ours, theirs, t->next);
            }
        }
        p->compared += len;
        set_next(t, p->compared);
    }
    return true;
}

static bool repeats_rst(const ColoTcp *t, const ColoPacket *p)
{
    return t->primary_rst_set && t->primary_rst == p->seq && t->primary_rst_ack == p->ack &&
           t->primary_rst_acks == !!(p->tcp_flags & COLO_TCP_ACK);
}

/* By how many bits the window of @p is scaled, at most (RFC 7323, section 2.2: that of a SYN is not). */
static uint32_t scale_of(const ColoTcp *t, const ColoPacket *p)
{
    return p->tcp_flags & COLO_TCP_SYN ? 0 : t->window_scale_set ? t->window_scale : WINDOW_SCALE_UNKNOWN;
}

/* What @p, which has an ACK, grants the client. */
static ColoGrant grant_of(const ColoTcp *t, const ColoPacket *p)
{
    return (ColoGrant) { .ack = p->ack, .edge = p->ack + ((uint32_t)colo_packet_window(p) << scale_of(t, p)) };
}

/* True if @p, which the secondary has acknowledged as much as, allows the client to send what that has no room for. */
static bool exceeds(const ColoTcp *t, const ColoPacket *p)
{
    return (p->tcp_flags & (COLO_TCP_ACK | COLO_TCP_SYN | COLO_TCP_RST)) == COLO_TCP_ACK && !p->indivisible &&
           colo_seq_after(grant_of(t, p).edge, t->secondary_grant.edge);
}

/* The window that is to be told in place of that of such a packet. */
static uint16_t window_to_tell(const ColoTcp *t, const ColoPacket *p)
{
    return (uint16_t)((t->secondary_grant.edge - p->ack) >> scale_of(t, p));
}

/* True if the client will have something to send after @p, which the secondary has acknowledged as much as. */
static bool leaves_room(const ColoTcp *t, const ColoPacket *p)
{
    uint32_t window = colo_packet_window(p), told;

    if (!exceeds(t, p)) {
        return true;
    }
    told = window_to_tell(t, p);
    return t->window_scale_set ? 2 * told >= window || told << t->window_scale >= WINDOW_ENOUGH
                               : WINDOW_PART_ENOUGH * told >= window;
}

/* True if the secondary stands by all of @p that is not a position of the stream. */
static bool gate_is_open(const ColoTcp *t, const ColoPacket *p)
{
    bool acked = !(p->tcp_flags & COLO_TCP_ACK) ||
                 (t->secondary_grant_set && !colo_seq_after(p->ack, t->secondary_grant.ack));

    if (p->tcp_flags & COLO_TCP_RST) {
        return repeats_rst(t, p) || (t->secondary_rsts && acked);
    }
    return acked && (!has_no_units(p) || p->next || leaves_room(t, p));
}

bool colo_compare_tcp_waits_for_ack(const ColoCompareFlow *f, const ColoPacket *p)
{
    return p != f->tcp.frontier && !(p->tcp_flags & COLO_TCP_RST) && !gate_is_open(&f->tcp, p);
}

/* True if the held @p is compared in part: its front half may leave. */
static bool has_front(const ColoTcp *t, const ColoPacket *p)
{
    return !has_no_units(p) && !p->indivisible && p->compared != p->seq && p->compared != p->seq_end && gate_is_open(t, p);
}

/* Lets @p go, with a window that the secondary stands by. */
static void release_granted(ColoComparator *c, ColoCompareFlow *f, const ColoPacket *p)
{
    ColoTcp *t = &f->tcp;
    ColoPacket *narrowed;

    if (!exceeds(t, p)) {
        colo_compare_release(c, f, p);
        return;
    }
    narrowed = colo_packet_hold(p);
    colo_packet_set_window(narrowed, window_to_tell(t, p));
    colo_compare_release(c, f, narrowed);
    colo_packet_free(narrowed);
    add_grant(&t->primary_grant, t->primary_grant_set, grant_of(t, p));     /* what a checkpoint makes the secondary's */
}

/* Lets the front of the held @p go, up to where it is compared. */
static void release_front(ColoComparator *c, ColoCompareFlow *f, ColoPacket *p)
{
    uint8_t *head = g_malloc(p->size);
    uint32_t before = p->size;
    uint32_t size = colo_packet_cut(p, p->compared - p->seq, head);
    ColoPacket front;

    c->stats.held_bytes[COLO_PRIMARY] -= before - p->size;
    colo_packet_parse(&front, head, size, p->vnet_len);
    front.arrival = p->arrival;
    release_granted(c, f, &front);
    g_free(head);
}

void colo_compare_tcp_flush(ColoComparator *c, ColoCompareFlow *f)
{
    ColoPacket *p = f->primary.head;

    if (p && p == f->tcp.frontier && has_front(&f->tcp, p)) {
        release_front(c, f, p);
    }
}

/* Compares and releases as much as the two streams allow. */
static void advance_queue(ColoComparator *c, ColoCompareFlow *f)
{
    ColoTcp *t = &f->tcp;
    ColoPacket *p;

    while (t->frontier && compare(c, f, t->frontier)) {
        t->frontier = t->frontier->next;
    }
    if (t->next_set) {
        forget_compared(c, f);
    }
    while ((p = f->primary.head) && p != t->frontier && gate_is_open(t, p)) {
        colo_queue_remove(&f->primary, p);
        release_granted(c, f, p);
        if (p->held) {
            colo_compare_drop(c, f, COLO_PRIMARY, p);
        }
    }
    if (p && p == t->frontier && has_front(t, p)) {
        colo_compare_later(c, f);
    }
}

/* The primary opens a connection on this flow; what was here before is over. */
static void primary_opens(ColoComparator *c, ColoCompareFlow *f, const ColoPacket *p)
{
    ColoTcp *t = &f->tcp;

    forget_secondary(c, f);
    set_next(t, p->seq);
    t->primary_isn = p->seq;
    t->primary_isn_set = true;
    t->primary_end_set = t->primary_grant_set = t->primary_rst_set = t->answered_set = false;
    t->window_scale = colo_packet_window_scale(p);
    t->window_scale_set = true;
    t->said = 0;
    if (!t->secondary_syn) {
        t->secondary_grant_set = false;
        t->secondary_rsts = 0;
    }
    t->established = false;
}

/* The same, from one connection on this flow to the next. */
static void advance(ColoComparator *c, ColoCompareFlow *f)
{
    advance_queue(c, f);
    while (f->primary.head && f->primary.head == f->tcp.frontier && opens_anew(&f->tcp, f->primary.head)) {
        primary_opens(c, f, f->primary.head);
        advance_queue(c, f);
    }
}

/* True if @p answers a client that opens the connection anew, and so does not wait for the RST of the old one, which is held. */
static bool is_kept_by_rst(const ColoCompareFlow *f, const ColoPacket *p)
{
    return f->primary.head->tcp_flags & COLO_TCP_RST && p->tcp_flags & COLO_TCP_ACK && opens_anew(&f->tcp, p);
}

/* The primary's @p comes while others are held. */
static void primary_packet_behind(ColoComparator *c, ColoCompareFlow *f, ColoPacket *p)
{
    ColoTcp *t = &f->tcp;
    bool repeats = !has_no_units(p) && !opens_anew(t, p) && t->primary_end_set &&
                   colo_seq_before(p->seq, t->primary_end) && compare_again(c, f, p, t->primary_end);
    ColoPacket *held;

    if (is_kept_by_rst(f, p)) {
        colo_compare_diverged(c, COLO_REASON_FLAGS, f);
    }
    if (repeats && p->compared == p->seq_end && gate_is_open(t, p)) {
        release_granted(c, f, p);
        return;
    }
    held = colo_compare_hold(c, f, COLO_PRIMARY, p);
    colo_queue_push(&f->primary, held);
    if (repeats && has_front(t, held)) {
        release_front(c, f, held);          /* what has not left yet stays behind what is held */
    }
    if (!t->frontier) {
        t->frontier = held;
        advance(c, f);
    }
}

static void primary_packet(ColoComparator *c, ColoCompareFlow *f, ColoPacket *p)
{
    ColoTcp *t = &f->tcp;

    if (f->primary.head) {
        primary_packet_behind(c, f, p);
    } else {
        colo_queue_push(&f->primary, p);
        t->frontier = p;
        advance(c, f);
        if (f->primary.head) {              /* it cannot leave */
            ColoPacket *held = colo_compare_hold(c, f, COLO_PRIMARY, p);

            colo_queue_replace(&f->primary, p, held);
            t->frontier = t->frontier ? held : NULL;
        }
    }
    if (t->secondary_rsts && f->primary.tail && !(f->primary.tail->tcp_flags & COLO_TCP_RST)) {
        colo_compare_diverged(c, COLO_REASON_SECONDARY_RESET, f);
    }
}

/* Takes note of the secondary's SYN, unless it repeats one. */
static void secondary_opens(ColoComparator *c, ColoCompareFlow *f, const ColoPacket *p)
{
    ColoTcp *t = &f->tcp;

    if (t->secondary_isn_set && t->secondary_isn == p->seq) {
        t->secondary_options = syn_options(c, p);
        return;
    }
    /* After a checkpoint the secondary repeats the primary's own SYN. */
    if (t->primary_isn_set && t->primary_isn == p->seq && colo_seq_after(t->next, p->seq)) {
        return;
    }
    t->secondary_isn = p->seq;
    t->secondary_isn_set = true;
    t->secondary_syn = true;
    t->secondary_syn_ack = p->tcp_flags & COLO_TCP_ACK;
    t->secondary_options = syn_options(c, p);
    t->secondary_grant_set = false;
    t->secondary_rsts = 0;
}

/* To find the place of a segment that is late takes the longer the more wait; honest guests send few. */
static bool is_late_behind_too_many(const ColoCompareFlow *f, const ColoPacket *p)
{
    return f->count[COLO_SECONDARY] >= LATE_MAX && colo_seq_before(p->seq, f->secondary.tail->seq);
}

static void secondary_packet(ColoComparator *c, ColoCompareFlow *f, ColoPacket *p)
{
    ColoTcp *t = &f->tcp;
    bool positioned = false;    /* it says something at positions of the primary's space */

    if (p->tcp_flags & COLO_TCP_RST) {
        t->secondary_rsts += t->secondary_rsts < UINT8_MAX;
    } else if (p->tcp_flags & COLO_TCP_SYN) {
        secondary_opens(c, f, p);
    } else {
        positioned = colo_packet_seq_len(p) && !is_repetition(t, p);
        if (is_probe(t, p)) {
            t->secondary_probe = p->data[p->payload];
            t->secondary_probe_set = true;
        }
    }
    if (p->tcp_flags & COLO_TCP_ACK) {
        add_grant(&t->secondary_grant, t->secondary_grant_set, grant_of(t, p));
        t->secondary_grant_set = true;
    }

    if (positioned && is_late_behind_too_many(f, p)) {
        colo_compare_discard(c, p);
    } else if (positioned && f->secondary.head) {
        colo_stream_insert(&f->secondary, colo_compare_hold(c, f, COLO_SECONDARY, p));
    } else {
        if (positioned) {
            colo_stream_insert(&f->secondary, p);
            advance_queue(c, f);
        }
        if (positioned && f->secondary.head) {
            colo_queue_replace(&f->secondary, p, colo_compare_hold(c, f, COLO_SECONDARY, p));
        } else {
            colo_compare_discard(c, p);
        }
    }
    advance(c, f);
    if (t->secondary_rsts && f->primary.head && !(f->primary.head->tcp_flags & COLO_TCP_RST)) {
        colo_compare_diverged(c, COLO_REASON_SECONDARY_RESET, f);
    }
}

void colo_compare_tcp(ColoComparator *c, ColoCompareFlow *f, ColoSide side, ColoPacket *p)
{
    if (side == COLO_PRIMARY) {
        primary_packet(c, f, p);
    } else {
        secondary_packet(c, f, p);
    }
}

/*
 * True if the primary, which has said no more than a SYN, lies before that: it has answered the same SYN twice, with different numbers
 * (SYN cookies change with the time), and the client has taken the first.
 */
static bool goes_on_from_earlier_syn(const ColoTcp *t, const ColoPacket *p)
{
    return colo_packet_seq_len(p) && t->primary_isn_set && t->primary_end_set && t->primary_end == t->primary_isn + 1 &&
           colo_seq_before(p->seq, t->primary_isn);
}

void colo_compare_tcp_released(ColoComparator *c, ColoCompareFlow *f, const ColoPacket *p)
{
    ColoTcp *t = &f->tcp;

    if (t->frontier == p) {
        t->frontier = NULL;     /* everything leaves: an epoch ends */
    }
    if (opens_anew(t, p)) {
        primary_opens(c, f, p);
    }
    if (p->tcp_flags & COLO_TCP_RST) {
        if (t->secondary_rsts && !repeats_rst(t, p)) {
            t->secondary_rsts--;
        }
        t->primary_rst = p->seq;
        t->primary_rst_ack = p->ack;
        t->primary_rst_acks = p->tcp_flags & COLO_TCP_ACK;
        t->primary_rst_set = true;
        forget_secondary(c, f);
    } else {
        bool again = t->primary_end_set && !colo_seq_after(p->seq_end, t->primary_end);

        if (p->tcp_flags & COLO_TCP_SYN) {
            t->primary_options = syn_options(c, p);
        }
        if (goes_on_from_earlier_syn(t, p)) {
            t->primary_end_set = t->primary_isn_set = false;
        }
        if (colo_packet_seq_len(p) && !(again && is_probe(t, p))) {
            colo_history_add(c->history, &t->said, p);
        }
        if (colo_packet_seq_len(p)) {
            t->primary_end = t->primary_end_set ? colo_seq_max(t->primary_end, p->seq_end) : p->seq_end;
            t->primary_end_set = true;
        }
        /* A repetition, or a mere acknowledgement, may acknowledge what is not answered yet. */
        if (!again && colo_packet_seq_len(p) && p->tcp_flags & COLO_TCP_ACK) {
            f->answered = p->ack;
            t->answered_set = true;
        }
        if (p->tcp_flags & COLO_TCP_ACK) {
            add_grant(&t->primary_grant, t->primary_grant_set, grant_of(t, p));
            t->primary_grant_set = true;
        }
    }
    if (p->tcp_flags & (COLO_TCP_FIN | COLO_TCP_RST)) {
        colo_flow_close(c->flows, &f->flow);
        t->established = true;
    } else if (!(p->tcp_flags & COLO_TCP_SYN) && !t->established) {
        colo_flow_reopen(c->flows, &f->flow);
        t->established = true;
    }
}

void colo_compare_tcp_rebase(ColoCompareFlow *f)
{
    ColoTcp *t = &f->tcp;

    set_next(t, t->primary_end);
    t->next_set = t->primary_end_set;
    t->secondary_grant = t->primary_grant;
    t->secondary_grant_set = t->primary_grant_set;
    t->secondary_isn_set = false;
    t->secondary_syn = false;
    t->secondary_rsts = 0;
}

void colo_compare_tcp_extend_base(ColoComparator *c, ColoCompareFlow *f)
{
    ColoTcp *t = &f->tcp;

    if (t->primary_end_set) {
        set_next(t, t->next_set ? colo_seq_max(t->next, t->primary_end) : t->primary_end);
        forget_compared(c, f);
    }
    if (t->primary_grant_set) {
        add_grant(&t->secondary_grant, t->secondary_grant_set, t->primary_grant);
        t->secondary_grant_set = true;
    }
    if (t->primary_isn_set && t->secondary_isn_set && t->secondary_isn == t->primary_isn) {
        t->secondary_syn = false;       /* it repeats the primary's own */
    }
}
