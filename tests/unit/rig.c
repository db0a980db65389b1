/*
 * A comparator on a bench: frames in, what it releases and asks for recorded
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "rig.h"

#include <string.h>

static void on_release(const uint8_t *frame, uint32_t size, uint32_t vnet_len, void *opaque)
{
    Rig *rig = opaque;
    Released *r = g_new(Released, 1);

    r->data = g_malloc(size + !size);
    memcpy(r->data, frame, size);
    r->size = size;
    r->vnet_len = vnet_len;
    g_ptr_array_add(rig->released, r);
    rig->size_out += size;
}

static void on_diverged(ColoReason reason, const ColoFlowKey *flow, void *opaque)
{
    Rig *rig = opaque;

    rig->asked++;
    rig->reason = reason;
    rig->flow = *flow;
    ck_assert_int_le(colo_comparator_stats(rig->c)->last_at, rig->now);
    ck_assert_int_ge(colo_comparator_stats(rig->c)->last_at, rig->now - rig->gather);
    ck_assert_msg(++rig->asked_in_epoch == 1, "asked for a second checkpoint (%s) before the first was made",
                  colo_reason_name(reason));
}

static void released_free(gpointer data)
{
    Released *r = data;

    g_free(r->data);
    g_free(r);
}

static Rig *new_rig(int64_t now, ColoComparatorConfig config)
{
    static const ColoComparatorOps ops = { .release = on_release, .diverged = on_diverged };
    Rig *rig = g_new0(Rig, 1);

    config.timeout = RIG_TIMEOUT;
    config.history = RIG_HISTORY;
    config.queue_size = config.queue_size ? config.queue_size : 1024;

    rig->now = now;
    rig->gather = config.gather;
    rig->released = g_ptr_array_new_with_free_func(released_free);
    rig->c = colo_comparator_new(&config, &ops, rig);
    ck_assert(!colo_comparator_is_comparing(rig->c));
    colo_comparator_set_comparing(rig->c, true, rig->now);
    return rig;
}

Rig *rig_new_at(int64_t now, uint32_t queue_size)
{
    return new_rig(now, (ColoComparatorConfig) { .queue_size = queue_size });
}

Rig *rig_new_with(const ColoComparatorConfig *config)
{
    return new_rig(1000 * RIG_TIMEOUT, *config);
}

Rig *rig_new(void)
{
    return rig_new_at(1000 * RIG_TIMEOUT, 1024);
}

void rig_free(Rig *rig)
{
    colo_comparator_free(rig->c);
    g_ptr_array_free(rig->released, true);
    g_free(rig);
}

void rig_end_well(Rig *rig)
{
    rig_expect_nothing(rig);
    rig_expect_asked(rig, 0, 0);
    ck_assert_uint_eq(rig_held(rig, COLO_PRIMARY), 0);
    ck_assert_uint_eq(rig_held(rig, COLO_SECONDARY), 0);
    if (colo_comparator_is_comparing(rig->c)) {
        ck_assert_uint_eq(colo_histogram_count(&colo_comparator_stats(rig->c)->held_times), rig->released->len);
    }
    rig_free(rig);
}

static void check_always(const Rig *rig)
{
    int64_t deadline = colo_comparator_deadline(rig->c);

    if (rig_held(rig, COLO_PRIMARY) && !rig->asked_in_epoch) {
        ck_assert_msg(deadline <= rig->now + RIG_TIMEOUT, "a packet is held without a deadline");
    }
}

void rig_give(Rig *rig, ColoSide side, Frame *f)
{
    uint64_t held_before = colo_comparator_stats(rig->c)->in[side].bytes;

    colo_comparator_packet(rig->c, side, f->data, f->size, f->vnet_len, rig->now);
    if (!rig->batch) {
        colo_comparator_flush(rig->c);
    }
    ck_assert_uint_eq(colo_comparator_stats(rig->c)->in[side].bytes, held_before + f->size);
    if (side == COLO_PRIMARY) {
        rig->size_in += f->size;
    }
    frame_free(f);
    check_always(rig);
}

void rig_wait(Rig *rig, int64_t ns)
{
    int64_t until = rig->now + ns;
    int64_t deadline;

    while ((deadline = colo_comparator_deadline(rig->c)) <= until) {
        rig->now = MAX(rig->now, deadline);
        colo_comparator_tick(rig->c, rig->now);
        ck_assert_msg(colo_comparator_deadline(rig->c) > rig->now, "a tick has not moved the deadline");
    }
    rig->now = until;
    colo_comparator_tick(rig->c, rig->now);
    check_always(rig);
}

void rig_checkpoint(Rig *rig)
{
    bool is_read = colo_comparator_may_read(rig->c, COLO_SECONDARY);

    colo_comparator_checkpoint(rig->c, rig->now);
    rig->asked_in_epoch = 0;
    rig->told++;
    ck_assert_uint_eq(rig_held(rig, COLO_PRIMARY), 0);
    ck_assert_uint_eq(colo_comparator_stats(rig->c)->held_bytes[COLO_PRIMARY], 0);
    if (is_read) {      /* else something of the new epoch may have come already */
        ck_assert_uint_eq(rig_held(rig, COLO_SECONDARY), 0);
        ck_assert_uint_eq(colo_comparator_stats(rig->c)->held_bytes[COLO_SECONDARY], 0);
        ck_assert(colo_comparator_deadline(rig->c) == INT64_MAX);
        ck_assert(colo_comparator_may_read(rig->c, COLO_SECONDARY));
    }
    ck_assert(colo_comparator_may_read(rig->c, COLO_PRIMARY));
}

void rig_epoch(Rig *rig, ColoSide side)
{
    ck_assert(colo_comparator_resumed(rig->c, side, rig->told - rig->resumed[side], rig->now));
    rig->resumed[side]++;
    check_always(rig);
}

guint rig_pending(const Rig *rig)
{
    return rig->released->len - rig->seen;
}

const Released *rig_next_raw(Rig *rig)
{
    ck_assert_msg(rig->seen < rig->released->len, "nothing has been released");
    return g_ptr_array_index(rig->released, rig->seen++);
}

Seen rig_next(Rig *rig)
{
    const Released *r = rig_next_raw(rig);

    return frame_check(r->data, r->size, r->vnet_len);
}

void rig_expect(Rig *rig, uint8_t flags, uint32_t seq, uint32_t len)
{
    Seen seen = rig_next(rig);

    ck_assert_msg(seen.seq == seq && seen.len == len && seen.flags == flags,
                  "released flags %02x seq %u len %u, expected flags %02x seq %u len %u",
                  seen.flags, seen.seq, seen.len, flags, seq, len);
}

void rig_expect_nothing(const Rig *rig)
{
    if (rig->seen < rig->released->len) {
        const Released *r = g_ptr_array_index(rig->released, rig->seen);
        Seen seen = frame_check(r->data, r->size, r->vnet_len);

        ck_abort_msg("released flags %02x seq %u len %u, expected nothing", seen.flags, seen.seq, seen.len);
    }
}

void rig_expect_asked(const Rig *rig, int asked, ColoReason reason)
{
    const ColoComparatorStats *stats = colo_comparator_stats(rig->c);
    uint64_t sum = 0;

    for (int i = 0; i < COLO_REASONS; i++) {
        sum += stats->diverged[i];
    }
    ck_assert_msg(rig->asked == asked, "asked for %d checkpoints (%s), expected %d", rig->asked,
                  rig->asked ? colo_reason_name(rig->reason) : "", asked);
    ck_assert_uint_eq(sum, asked);
    if (asked) {
        ck_assert_msg(rig->reason == reason, "the reason is %s, expected %s", colo_reason_name(rig->reason),
                      colo_reason_name(reason));
        ck_assert_int_eq(stats->last_reason, reason);
        ck_assert(!memcmp(&stats->last_flow, &rig->flow, sizeof(rig->flow)));
    }
}

void rig_expect_asked_after(Rig *rig, int64_t ns, ColoReason reason)
{
    int before = rig->asked;

    rig_wait(rig, ns - 1);
    ck_assert_int_eq(rig->asked, before);
    rig_wait(rig, 1);
    rig_expect_asked(rig, before + 1, reason);
}

uint32_t rig_held(const Rig *rig, ColoSide side)
{
    return colo_comparator_stats(rig->c)->held[side];
}

void rig_tcp(Rig *rig, ColoSide side, uint8_t flags, uint32_t seq, uint32_t ack, const void *payload, uint32_t len)
{
    static const Shape plain;

    rig_give(rig, side, frame_tcp(&plain, seq, ack, flags, NULL, 0, payload, len));
}

void rig_text(Rig *rig, ColoSide side, uint8_t flags, uint32_t seq, uint32_t ack, const char *text)
{
    rig_tcp(rig, side, flags, seq, ack, text, (uint32_t)strlen(text));
}

void rig_udp(Rig *rig, ColoSide side, const char *text)
{
    static const Shape plain;

    rig_give(rig, side, frame_udp(&plain, text, (uint32_t)strlen(text)));
}
