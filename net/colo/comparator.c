/*
 * The comparator: two sides' output in, what may leave out
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Theory of operation
 *
 * Three rules (output commit; nothing lost, invented or reordered; nothing waits for ever) come down to this: a
 * packet of the primary leaves when the secondary has sent the same, or when a checkpoint that was taken after it has
 * been loaded.  Until then it is held, in the order in which it came.
 *
 * A packet is parsed, its flow is found, and the flow's kind decides: byte streams are compared by position
 * (compare-tcp.c), everything else datagram by datagram (compare-datagram.c).  A packet that can leave
 * when it comes is never copied.  What must stay is copied into two orders at once: its flow's queue, in which it is
 * compared, and the age list of its side, from which the next deadline and the order of release at a checkpoint are
 * read off.  Nothing here ever looks through all flows.
 *
 * A divergence asks for a checkpoint once; what matches goes on leaving meanwhile.  A checkpoint costs the same whatever
 * it lets go, so it is not asked for while the primary goes on sending (config.quiet), or not for long (config.gather): eight
 * answers that differ then need one, not three.
 *
 * Epochs.  A checkpoint makes the secondary the primary's copy, so whatever either sent before it is settled: the
 * primary's leaves, the secondary's is of no more use.  Both may still be on their way when the
 * checkpoint is told of here.  A side that says where it resumed is known to be in the old epoch until it
 * does.  The secondary resumes a moment before the checkpoint is told of here; what it sends in between is kept
 * aside, and no more is read, until it is.  A flow learns of a new epoch when it is next touched; its base is then what the
 * primary has sent, for that is what the checkpoint contained.
 *
 * Time is what the caller has said last.  A checkpoint is preceded by silence, for the guests stand still; so it brings the time
 * itself, or what it lets go would seem to have been held for less than it was.
 *
 * Load.  A side that is too far ahead is not read (colo_comparator_may_read).  If that comes to hold for both sides, they wait for
 * each other across flows; a checkpoint settles it.  So it does for a primary that is not read but shows what it sends.
 *
 * Holding.  Instead of being compared, all that the primary sends may wait for the next checkpoint; the age list is all that takes.
 */

#include "comparator-internal.h"

#include <string.h>

/* Memory that one side may hold in all flows together before it is made to wait, bytes. */
#define HELD_MAX (256 * 1024 * 1024ULL)

/* The most that is remembered of what has left: more than the bandwidth-delay product of one gigabit and 200 ms. */
#define HISTORY_BYTES (32 * 1024 * 1024)

/* Held packets of each size whose memory is kept; none where a sanitizer watches who uses it when. */
#ifndef __has_feature
#define __has_feature(feature) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
#define SPARE_MAX 0
#else
#define SPARE_MAX 1024
#endif

/* From so many held packets on, each takes no more memory than it needs. */
#define HELD_MANY 1024

#define SECOND (1000 * 1000 * 1000LL)

/* Longer than any keep-alive interval (RFC 9293, section 3.8.4: two hours). */
#define IDLE_LIFETIME (3 * 3600 * SECOND)
/* TIME-WAIT: twice the maximum segment lifetime (RFC 9293, section 3.4.2); also for all that is no connection (yet). */
#define CLOSED_LIFETIME (240 * SECOND)

static const char *const reason_names[] = {
    [COLO_REASON_PAYLOAD] = "payload",
    [COLO_REASON_FLAGS] = "flags",
    [COLO_REASON_OPTIONS] = "options",
    [COLO_REASON_TIMEOUT] = "timeout",
    [COLO_REASON_ACK] = "ack",
    [COLO_REASON_QUEUE_FULL] = "queue-full",
    [COLO_REASON_SECONDARY_RESET] = "secondary-reset",
    [COLO_REASON_PEER_LOST] = "peer-lost",
};
G_STATIC_ASSERT(G_N_ELEMENTS(reason_names) == COLO_REASONS);

const char *colo_reason_name(ColoReason reason)
{
    return reason_names[reason];
}

/* Held packets */

/* Nearly always at the end; what was put together from fragments is as old as the first of them. */
static void age_insert(ColoHeld *held, ColoPacket *p)
{
    ColoPacket *older = held->newest;

    while (older && older->arrival > p->arrival) {
        older = older->older;
    }
    p->older = older;
    p->newer = older ? older->newer : held->oldest;
    *(older ? &older->newer : &held->oldest) = p;
    *(p->newer ? &p->newer->older : &held->newest) = p;
}

static void age_unlink(ColoHeld *held, ColoPacket *p)
{
    *(p->older ? &p->older->newer : &held->oldest) = p->newer;
    *(p->newer ? &p->newer->older : &held->newest) = p->older;
}

/* The secondary's datagrams go by age; its segments wait for the primary's. */
static ColoHeld *age_list(ColoComparator *c, ColoSide side, const ColoPacket *p)
{
    return side == COLO_SECONDARY && p->class != COLO_CLASS_TCP ? &c->alone : &c->held[side];
}

/*
 * A packet is held for a moment nearly always, with hundreds of others: malloc() would spend as long on each as the comparison
 * does.  So the memory of the last ones is kept.
 */
static ColoPacket *hold(ColoComparator *c, const ColoPacket *p)
{
    ColoSpare *spare = p->size <= COLO_SPARE_SMALL ? &c->small : &c->large;
    uint32_t room = p->size <= COLO_SPARE_SMALL ? COLO_SPARE_SMALL : COLO_SPARE_LARGE;
    ColoPacket *memory = spare->first;

    if (p->size > COLO_SPARE_LARGE || !SPARE_MAX ||
        (!memory && c->stats.held[COLO_PRIMARY] + c->stats.held[COLO_SECONDARY] >= HELD_MANY)) {
        return colo_packet_hold(p);
    }
    if (!memory) {
        return colo_packet_hold_in(g_malloc(sizeof(*p) + room), room, p);
    }
    spare->first = memory->next;
    spare->count--;
    return colo_packet_hold_in(memory, room, p);
}

static void end_hold(ColoComparator *c, ColoPacket *p)
{
    ColoSpare *spare = p->room == COLO_SPARE_SMALL ? &c->small : &c->large;

    if (p->parts || (p->room != COLO_SPARE_SMALL && p->room != COLO_SPARE_LARGE) || spare->count == SPARE_MAX) {
        colo_packet_free(p);
        return;
    }
    p->next = spare->first;
    spare->first = p;
    spare->count++;
}

static void free_spare(ColoSpare *spare)
{
    while (spare->first) {
        ColoPacket *p = spare->first;

        spare->first = p->next;
        colo_packet_free(p);
    }
}

ColoPacket *colo_compare_hold(ColoComparator *c, ColoCompareFlow *f, ColoSide side, ColoPacket *p)
{
    ColoPacket *copy = hold(c, p);

    copy->flow = &f->flow;
    copy->parts = p->parts;
    p->parts = NULL;
    age_insert(age_list(c, side, copy), copy);
    c->stats.held[side]++;
    c->stats.held_bytes[side] += colo_packet_footprint(copy);
    if (++f->count[side] == c->config.queue_size) {
        c->full[side]++;
    }
    if (side == COLO_PRIMARY) {
        c->stats.held_max = MAX(c->stats.held_max, c->stats.held[side]);
        c->stats.held_bytes_max = MAX(c->stats.held_bytes_max, c->stats.held_bytes[side]);
    }
    return copy;
}

void colo_compare_unhold(ColoComparator *c, ColoCompareFlow *f, ColoSide side, ColoPacket *p)
{
    age_unlink(age_list(c, side, p), p);
    c->stats.held[side]--;
    c->stats.held_bytes[side] -= colo_packet_footprint(p);
    if (f->count[side]-- == c->config.queue_size) {
        c->full[side]--;
    }
}

void colo_compare_discard(ColoComparator *c, const ColoPacket *p)
{
    for (const ColoPacket *part = p->parts; part; part = part->next) {
        colo_count(&c->stats.discarded, part->size);
    }
    if (!p->parts) {
        colo_count(&c->stats.discarded, p->size);
    }
}

void colo_compare_drop(ColoComparator *c, ColoCompareFlow *f, ColoSide side, ColoPacket *p)
{
    colo_compare_unhold(c, f, side, p);
    if (side == COLO_SECONDARY) {
        colo_compare_discard(c, p);
    }
    end_hold(c, p);
}

static void release_frame(ColoComparator *c, const ColoPacket *p)
{
    colo_count(&c->stats.released, p->size);
    if (c->comparing) {
        colo_histogram_add(&c->stats.held_times, c->now - p->arrival);
    }
    c->ops->release(p->data, p->size, p->vnet_len, c->opaque);
}

static void release(ColoComparator *c, const ColoPacket *p)
{
    if (!p->parts) {
        release_frame(c, p);
        return;
    }
    for (const ColoPacket *part = p->parts; part; part = part->next) {
        release_frame(c, part);
    }
}

void colo_compare_release(ColoComparator *c, ColoCompareFlow *f, const ColoPacket *p)
{
    if (p->class == COLO_CLASS_TCP) {
        colo_compare_tcp_released(c, f, p);
    }
    release(c, p);
}

/*
 * Lets what is held of the primary go, in the order in which it came.
 *
 * @same_epoch: no new epoch begins with that; the streams go on from what has left.
 */
static void release_held(ColoComparator *c, bool same_epoch)
{
    ColoPacket *p;

    while ((p = c->held[COLO_PRIMARY].oldest)) {
        ColoCompareFlow *f = (ColoCompareFlow *)p->flow;
        bool goes_on = same_epoch && p->class == COLO_CLASS_TCP;

        colo_queue_remove(&f->primary, p);
        colo_compare_release(c, f, p);
        colo_compare_drop(c, f, COLO_PRIMARY, p);
        if (goes_on) {
            colo_compare_tcp_extend_base(c, f);
        }
    }
}

/* Everything the primary sent leaves, everything the secondary sent is forgotten. */
static void settle(ColoComparator *c)
{
    ColoPacket *p;

    release_held(c, false);
    while ((p = c->held[COLO_SECONDARY].oldest) || (p = c->alone.oldest)) {
        ColoCompareFlow *f = (ColoCompareFlow *)p->flow;

        colo_queue_remove(&f->secondary, p);
        colo_compare_drop(c, f, COLO_SECONDARY, p);
    }
    g_assert(!c->full[COLO_PRIMARY] && !c->full[COLO_SECONDARY]);
    while (c->fronts) {
        c->fronts->has_front = false;
        c->fronts = c->fronts->next_front;
    }
    c->suspect_at = INT64_MAX;
    c->crossed_at = INT64_MAX;
    c->openings_count = 0;
    c->ask_at = INT64_MAX;
    c->asked = false;
    c->holding = c->hold_next;
    c->epoch++;
}

/* The secondary was not early after all, or is gone. */
static void drop_early(ColoComparator *c)
{
    ColoPacket *p;

    while ((p = c->early.head)) {
        colo_queue_remove(&c->early, p);
        colo_count(&c->stats.discarded, p->size);
        colo_packet_free(p);
    }
    c->secondary_early = false;
}

/* Life */

static bool flow_may_go(const ColoFlow *flow, void *opaque)
{
    const ColoCompareFlow *f = (const ColoCompareFlow *)flow;

    (void)opaque;
    return !f->count[COLO_PRIMARY] && !f->count[COLO_SECONDARY] && !f->has_front;
}

ColoComparator *colo_comparator_new(const ColoComparatorConfig *config, const ColoComparatorOps *ops, void *opaque)
{
    ColoComparator *c = g_new0(ColoComparator, 1);

    g_assert(config->queue_size > 0 && config->timeout > 0);
    c->config = *config;
    c->ops = ops;
    c->opaque = opaque;
    c->suspect_at = INT64_MAX;
    c->crossed_at = INT64_MAX;
    c->ask_at = INT64_MAX;
    c->flows = colo_flow_table_new(sizeof(ColoCompareFlow), config->secret, IDLE_LIFETIME, CLOSED_LIFETIME,
                                   flow_may_go, NULL, NULL);
    c->history = colo_history_new(config->history ? config->history : HISTORY_BYTES);
    return c;
}

void colo_comparator_free(ColoComparator *c)
{
    if (c) {
        settle(c);
        drop_early(c);
        colo_flow_table_free(c->flows);
        colo_history_free(c->history);
        free_spare(&c->small);
        free_spare(&c->large);
        g_free(c);
    }
}

void colo_comparator_set_comparing(ColoComparator *c, bool comparing, int64_t now)
{
    c->now = now;
    if (c->comparing == comparing) {
        return;
    }
    settle(c);
    colo_flow_table_clear(c->flows);
    drop_early(c);
    /* The guests resume now, or have just done so: a mark that has come is the first. */
    memset(c->epochs_behind, 0, sizeof(c->epochs_behind));
    if (!comparing) {
        memset(c->marks_epochs, 0, sizeof(c->marks_epochs));
    }
    c->comparing = comparing;
}

bool colo_comparator_is_comparing(const ColoComparator *c)
{
    return c->comparing;
}

void colo_comparator_set_holding(ColoComparator *c, bool holding)
{
    c->hold_next = holding;
}

void colo_comparator_set_timeout(ColoComparator *c, int64_t timeout)
{
    g_assert(timeout > 0);
    c->config.timeout = timeout;
}

/* Divergence */

/* How long the primary's packets may wait for the secondary's. */
static int64_t patience(const ColoComparator *c)
{
    return c->secondary_away ? 0 : c->config.timeout;
}

static void ask(ColoComparator *c)
{
    c->ask_at = INT64_MAX;
    c->ops->diverged(c->stats.last_reason, &c->stats.last_flow, c->opaque);
}

/* The primary may have more to send that the same checkpoint will let go; but nothing is held for longer than it may be. */
static void put_off_asking(ColoComparator *c)
{
    const ColoPacket *oldest = c->held[COLO_PRIMARY].oldest;

    c->ask_at = MIN(c->now + c->config.quiet, c->ask_latest);
    if (oldest) {
        c->ask_at = MIN(c->ask_at, oldest->arrival + patience(c));
    }
    if (c->ask_at <= c->now) {
        ask(c);
    }
}

void colo_compare_diverged_at(ColoComparator *c, ColoReason reason, const ColoCompareFlow *f, uint32_t seq)
{
    const ColoTcp *t = &f->tcp;
    ColoComparatorStats *stats = &c->stats;

    if (c->asked || !c->comparing) {
        return;
    }
    c->asked = true;
    stats->diverged[reason]++;
    stats->last_reason = reason;
    stats->last_flow = f->flow.key;
    stats->last_offset_set = t->primary_isn_set;
    stats->last_offset = t->primary_isn_set && seq != t->primary_isn ? seq - t->primary_isn - 1 : 0;
    stats->last_at = c->now;
    c->ask_latest = c->secondary_away ? c->now : c->now + c->config.gather;
    put_off_asking(c);
}

void colo_compare_diverged(ColoComparator *c, ColoReason reason, const ColoCompareFlow *f)
{
    colo_compare_diverged_at(c, reason, f, f->tcp.next);
}

void colo_comparator_peer_lost(ColoComparator *c, int64_t now)
{
    static const ColoCompareFlow none;

    c->now = now;
    c->secondary_away = true;
    colo_compare_diverged(c, COLO_REASON_PEER_LOST, &none);
}

bool colo_comparator_has_asked(const ColoComparator *c)
{
    return c->asked;
}

/* Packets */

/* What is not compared. */
static void pass(ColoComparator *c, ColoSide side, const ColoPacket *p)
{
    if (side == COLO_PRIMARY) {
        release(c, p);
    } else {
        colo_compare_discard(c, p);
    }
}

/* Output from before the checkpoint that has been loaded already. */
static void old_epoch_packet(ColoComparator *c, ColoCompareFlow *f, ColoSide side, const ColoPacket *p)
{
    if (side == COLO_SECONDARY) {
        colo_compare_discard(c, p);
        return;
    }
    colo_compare_release(c, f, p);
    if (p->class == COLO_CLASS_TCP) {
        colo_compare_tcp_extend_base(c, f);
    }
}

uint64_t colo_comparator_memory(const ColoComparator *c, ColoSide side)
{
    return c->stats.held_bytes[side] + c->stats.held[side] * sizeof(ColoPacket);
}

static bool is_too_far_ahead(const ColoComparator *c, ColoSide side)
{
    return c->full[side] || colo_comparator_memory(c, side) >= HELD_MAX;
}

/* The flow of @p, in this epoch. */
static ColoCompareFlow *flow_of(ColoComparator *c, ColoSide side, const ColoPacket *p, int64_t now)
{
    ColoFlowKey key;
    ColoCompareFlow *f;

    colo_flow_key(&key, p, COLO_FROM_GUEST);
    if (p->fragment && side == COLO_SECONDARY) {
        key.tag |= COLO_KEY_SECONDARY;
    }
    f = (ColoCompareFlow *)colo_flow_get(c->flows, &key, now);
    if (!f->known) {
        f->known = true;
        colo_flow_close(c->flows, &f->flow);    /* until it turns out to be a connection: anybody may ask, from any port */
    }
    if (f->epoch != c->epoch) {
        f->epoch = c->epoch;
        colo_compare_forget_lone_speaker(f);
        if (p->class == COLO_CLASS_TCP) {
            colo_compare_tcp_rebase(f);
        }
    }
    colo_compare_note_time(f, p, now);
    return f;
}

/* Nothing is compared in this epoch. */
static void keep(ColoComparator *c, ColoCompareFlow *f, ColoSide side, ColoPacket *p)
{
    if (side == COLO_SECONDARY) {
        colo_compare_discard(c, p);
    } else {
        colo_queue_push(&f->primary, colo_compare_hold(c, f, side, p));
    }
}

/* The borrowed @p finds its flow and is dealt with there. */
static void take(ColoComparator *c, ColoSide side, ColoPacket *p, int64_t now)
{
    ColoCompareFlow *f = flow_of(c, side, p, now);

    c->heard_at[side] = c->now;
    p->flow = &f->flow;
    if (p->class == COLO_CLASS_LOCAL) {
        pass(c, side, p);
    } else if (c->marks_epochs[side] && c->epochs_behind[side] > 0) {
        old_epoch_packet(c, f, side, p);
    } else if (c->holding) {
        keep(c, f, side, p);
    } else if (p->fragment) {
        ColoPacket *whole = colo_compare_fragment(c, f, side, p);

        if (whole) {
            colo_flow_remove(c->flows, &f->flow);
            take(c, side, whole, now);
            colo_packet_free(whole);
            return;
        }
    } else {
        if (p->class == COLO_CLASS_TCP) {
            colo_compare_tcp(c, f, side, p);
        } else {
            colo_compare_datagram(c, f, side, p, now);
        }
        colo_compare_note_speaker(c, f, side, p);
    }

    if (c->held[COLO_PRIMARY].oldest && c->held[COLO_SECONDARY].oldest) {
        c->crossed_at = MIN(c->crossed_at, c->now + COLO_GRACE);
    }
    if (is_too_far_ahead(c, COLO_PRIMARY) && (c->config.primary_goes_on || is_too_far_ahead(c, COLO_SECONDARY))) {
        colo_compare_diverged(c, COLO_REASON_QUEUE_FULL, f);
    }
}

void colo_comparator_packet(ColoComparator *c, ColoSide side, const uint8_t *frame, uint32_t size,
                            uint32_t vnet_len, int64_t now)
{
    ColoPacket p;

    c->now = now;
    colo_count(&c->stats.in[side], size);
    colo_packet_parse(&p, frame, size, vnet_len);
    p.arrival = now;
    if (!c->comparing || p.class == COLO_CLASS_LOCAL) {
        pass(c, side, &p);
    } else if (side == COLO_SECONDARY && c->secondary_early) {
        colo_queue_push(&c->early, colo_packet_hold(&p));
    } else {
        colo_flow_table_age(c->flows, now);
        take(c, side, &p, now);
        if (side == COLO_PRIMARY && c->ask_at != INT64_MAX) {
            put_off_asking(c);
        }
    }
}

void colo_compare_later(ColoComparator *c, ColoCompareFlow *f)
{
    if (!f->has_front) {
        f->has_front = true;
        f->next_front = c->fronts;
        c->fronts = f;
    }
}

void colo_comparator_flush(ColoComparator *c)
{
    while (c->fronts) {
        ColoCompareFlow *f = c->fronts;

        c->fronts = f->next_front;
        f->has_front = false;
        colo_compare_tcp_flush(c, f);
    }
}

bool colo_comparator_may_read(const ColoComparator *c, ColoSide side)
{
    return !is_too_far_ahead(c, side) && !(side == COLO_SECONDARY && c->secondary_early);
}

/* Epochs */

/* What was kept aside is of this epoch. */
static void take_early(ColoComparator *c)
{
    ColoPacket *p;

    c->secondary_early = false;
    while ((p = c->early.head)) {
        ColoPacket borrowed = *p;

        borrowed.held = false;
        colo_queue_remove(&c->early, p);
        take(c, COLO_SECONDARY, &borrowed, p->arrival);
        colo_packet_free(p);
    }
}

void colo_comparator_checkpoint(ColoComparator *c, int64_t now)
{
    c->now = now;
    if (c->asked && c->ask_at == INT64_MAX) {
        c->checkpoint_took = now - c->stats.last_at;
    }
    settle(c);
    c->stats.checkpoints++;
    c->epochs_behind[COLO_PRIMARY]++;
    c->epochs_behind[COLO_SECONDARY] += !c->secondary_early;
    take_early(c);
}

bool colo_comparator_resumed(ColoComparator *c, ColoSide side, int64_t behind, int64_t now)
{
    bool is_beginning = !c->marks_epochs[side] && c->epochs_behind[side] >= 0;

    if (behind < (side == COLO_SECONDARY ? -1 : 0)) {
        return false;
    }
    c->now = now;
    c->marks_epochs[side] = true;
    c->epochs_behind[side] = (int32_t)MIN(MAX(behind, 0), INT32_MAX / 2);
    if (side == COLO_SECONDARY) {
        drop_early(c);                      /* of an epoch that is over already */
        c->secondary_early = behind == -1;  /* it resumes before the frame tells us so */
    } else if (is_beginning) {
        release_held(c, true);              /* what came before that is older still */
    }
    return true;
}

void colo_comparator_reconnected(ColoComparator *c, ColoSide side)
{
    c->marks_epochs[side] = false;
    c->epochs_behind[side] = -1;        /* what it says first in this epoch is not of the beginning */
    if (side == COLO_SECONDARY) {
        drop_early(c);
        c->secondary_away = false;
    }
}

void colo_comparator_secondary_doubted(ColoComparator *c)
{
    drop_early(c);
    c->marks_epochs[COLO_SECONDARY] = true;
    c->epochs_behind[COLO_SECONDARY] = 1;
}

/* Time */

int64_t colo_comparator_deadline(const ColoComparator *c)
{
    const ColoPacket *oldest = c->held[COLO_PRIMARY].oldest;
    const ColoPacket *alone = c->alone.oldest;
    int64_t deadline = alone ? alone->arrival + c->config.timeout : INT64_MAX;

    if (oldest && !c->asked) {
        deadline = MIN(deadline, MIN(oldest->arrival + patience(c), MIN(c->suspect_at, c->crossed_at)));
    }
    return MIN(deadline, c->ask_at);
}

void colo_comparator_tick(ColoComparator *c, int64_t now)
{
    ColoPacket *p = c->held[COLO_PRIMARY].oldest;

    c->now = now;
    if (p && p->arrival + patience(c) <= now) {
        const ColoCompareFlow *f = (const ColoCompareFlow *)p->flow;
        bool ack = p->class == COLO_CLASS_TCP && !c->holding && colo_compare_tcp_waits_for_ack(f, p);

        colo_compare_diverged(c, c->secondary_away ? COLO_REASON_PEER_LOST : ack ? COLO_REASON_ACK : COLO_REASON_TIMEOUT, f);
    }
    if (c->suspect_at <= now) {
        colo_compare_check_suspects(c);
    }
    if (c->crossed_at <= now) {
        colo_compare_check_crossed(c);
    }
    if (c->ask_at != INT64_MAX && c->ask_at <= now) {
        ask(c);
    }
    /* What the secondary alone has sent is no divergence: nobody has seen it.  It goes by age. */
    while ((p = c->alone.oldest) && p->arrival + c->config.timeout <= now) {
        ColoCompareFlow *f = (ColoCompareFlow *)p->flow;

        colo_queue_remove(&f->secondary, p);
        colo_compare_drop(c, f, COLO_SECONDARY, p);
    }
}

uint32_t colo_comparator_flows(const ColoComparator *c)
{
    return colo_flow_count(c->flows);
}

const ColoComparatorStats *colo_comparator_stats(const ColoComparator *c)
{
    return &c->stats;
}
