/*
 * Tests of comparator.c: epochs, deadlines, load, batches
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "rig.h"

#include <string.h>

#define CLIENT 5000u

static const Shape plain;

/* A connection in the middle of its life, with `next` at @at and both having acknowledged CLIENT. */
static Rig *rig_in_the_middle(uint32_t at)
{
    Rig *rig = rig_new();

    primary(rig, ACK, at - 3, CLIENT, "abc");
    secondary(rig, ACK, at - 3, CLIENT, "abc");
    rig_expect(rig, ACK, at - 3, 3);
    rig_expect_nothing(rig);
    return rig;
}

/* Both sides' output is compared, from position @at on. */
static void expect_comparing(Rig *rig, uint32_t at)
{
    int asked = rig->asked;

    primary(rig, ACK, at, CLIENT, "xyz");
    rig_expect_nothing(rig);
    secondary(rig, ACK, at, CLIENT, "xyz");
    rig_expect(rig, ACK, at, 3);
    secondary(rig, ACK, at + 3, CLIENT, "uvw");
    primary(rig, ACK, at + 3, CLIENT, "uvw");
    rig_expect(rig, ACK, at + 3, 3);
    rig_expect_nothing(rig);
    ck_assert_int_eq(rig->asked, asked);
}

/* On and off */

START_TEST(off_at_first)
{
    Rig *rig = rig_new();
    const ColoComparatorStats *stats = colo_comparator_stats(rig->c);

    colo_comparator_set_comparing(rig->c, false, rig->now);
    ck_assert(!colo_comparator_is_comparing(rig->c));
    primary(rig, ACK, 1, CLIENT, "abc");
    rig_expect(rig, ACK, 1, 3);
    secondary(rig, ACK, 1, CLIENT, "def");
    rig_udp(rig, COLO_PRIMARY, "abc");
    ck_assert_uint_eq(rig_next(rig).len, 3);
    rig_udp(rig, COLO_SECONDARY, "abc");
    rig_expect_nothing(rig);
    ck_assert_uint_eq(colo_comparator_flows(rig->c), 0);
    ck_assert_uint_eq(stats->discarded.packets, 2);
    ck_assert_uint_eq(stats->released.packets, 2);
    ck_assert(colo_comparator_deadline(rig->c) == INT64_MAX);
    colo_comparator_peer_lost(rig->c, rig->now);
    colo_comparator_tick(rig->c, INT64_MAX);
    rig_expect_asked(rig, 0, 0);
    rig_free(rig);
}
END_TEST

START_TEST(switching_off_releases)
{
    static const Shape other = { .peer_port = 9 };
    Rig *rig = rig_new();

    primary(rig, ACK, 1, CLIENT, "a");
    rig_give(rig, COLO_PRIMARY, frame_tcp(&other, 1, CLIENT, ACK, NULL, 0, "bb", 2));
    rig_udp(rig, COLO_PRIMARY, "ccc");
    primary(rig, ACK, 2, CLIENT, "dddd");
    rig_expect_nothing(rig);
    colo_comparator_set_comparing(rig->c, false, rig->now);
    for (uint32_t len = 1; len <= 4; len++) {       /* in the order in which they came, across flows */
        ck_assert_uint_eq(rig_next(rig).len, len);
    }
    rig_expect_nothing(rig);
    ck_assert_uint_eq(rig_held(rig, COLO_PRIMARY), 0);

    /* On again: nothing of before counts. */
    secondary(rig, ACK, 1, CLIENT, "a");
    colo_comparator_set_comparing(rig->c, true, rig->now);
    colo_comparator_set_comparing(rig->c, true, rig->now);
    rig->asked_in_epoch = 0;
    expect_comparing(rig, 1);
    rig_free(rig);
}
END_TEST

/* By hand: the rig's record goes with the rig. */
typedef struct {
    int packets;
    uint32_t bytes;
} Sum;

static void sum_release(const uint8_t *frame, uint32_t size, uint32_t vnet_len, void *opaque)
{
    Sum *sum = opaque;

    ck_assert(frame && !vnet_len);
    sum->packets++;
    sum->bytes += size;
}

static void no_question(ColoReason reason, const ColoFlowKey *flow, void *opaque)
{
    ck_abort_msg("asked (%d, %p, %p)", reason, (const void *)flow, opaque);
}

START_TEST(the_end_releases)
{
    static const ColoComparatorConfig config = { .timeout = 1, .queue_size = 1 };
    static const ColoComparatorOps ops = { .release = sum_release, .diverged = no_question };
    Sum sum = { 0, 0 };
    ColoComparator *c = colo_comparator_new(&config, &ops, &sum);

    colo_comparator_set_comparing(c, true, 0);
    for (int i = 0; i < 10; i++) {
        Frame *f = frame_udp(&plain, "held", 4);

        colo_comparator_packet(c, COLO_PRIMARY, f->data, f->size, 0, 0);
        frame_free(f);
    }
    ck_assert_int_eq(sum.packets, 0);
    colo_comparator_free(c);
    ck_assert_int_eq(sum.packets, 10);
    ck_assert_uint_eq(sum.bytes, 10 * (14 + 20 + 8 + 4));
    colo_comparator_free(NULL);
}
END_TEST

/* ARP and the like pass from the primary and are dropped from the secondary, compared with nothing. */
START_TEST(local_frames)
{
    Rig *rig = rig_new();
    const Released *r;

    primary(rig, ACK, 1, CLIENT, "held");
    rig_give(rig, COLO_PRIMARY, frame_ethernet(&plain, 0x0806, "arp arp arp arp arp arp arp ", 28));
    r = rig_next_raw(rig);
    ck_assert_uint_eq(r->size, 42);
    rig_give(rig, COLO_SECONDARY, frame_ethernet(&plain, 0x0806, "arp arp arp arp arp arp arp!", 28));
    rig_give(rig, COLO_PRIMARY, frame_ethernet(&plain, 0x1234, "", 0));
    ck_assert_uint_eq(rig_next_raw(rig)->size, 14);
    rig_expect_nothing(rig);
    ck_assert_uint_eq(rig_held(rig, COLO_SECONDARY), 0);
    ck_assert_uint_eq(colo_comparator_flows(rig->c), 1);
    rig_free(rig);
}
END_TEST

START_TEST(runts)
{
    Rig *rig = rig_new();

    for (uint32_t size = 0; size < 14; size++) {
        for (uint32_t vnet_len = 0; vnet_len <= 12; vnet_len += 12) {
            uint8_t *exact = g_malloc0(size + !size);

            colo_comparator_packet(rig->c, COLO_PRIMARY, exact, size, vnet_len, rig->now);
            ck_assert_uint_eq(rig_next_raw(rig)->size, size);
            colo_comparator_packet(rig->c, COLO_SECONDARY, exact, size, vnet_len, rig->now);
            ck_assert_uint_eq(rig_pending(rig), 0);
            g_free(exact);
        }
    }
    rig_free(rig);
}
END_TEST

/* Released frames are the primary's, bytes and virtio-net header and all. */
START_TEST(released_as_it_came)
{
    static const Shape ours = { .vnet_len = 12, .needs_csum = true, .pad_to = 80, .padding = 9, .ip_id = 1 };
    static const Shape theirs = { .vnet_len = 12, .ip_id = 2 };

    for (int kind = 0; kind < 4; kind++) {
        Frame *f = kind % 2 ? frame_udp(&ours, "abc", 3) : frame_tcp(&ours, 1, 1, ACK, NULL, 0, "abc", 3);
        Frame *g = kind % 2 ? frame_udp(&theirs, "abc", 3) : frame_tcp(&theirs, 1, 1, ACK, NULL, 0, "abc", 3);
        uint8_t *copy = g_malloc(f->size);
        uint32_t size = f->size;
        const Released *r;
        Rig *rig = rig_new();

        memcpy(copy, f->data, size);
        if (kind / 2) {
            rig_give(rig, COLO_PRIMARY, f);
            rig_give(rig, COLO_SECONDARY, g);
        } else {
            rig_give(rig, COLO_SECONDARY, g);
            rig_give(rig, COLO_PRIMARY, f);
        }
        r = rig_next_raw(rig);
        ck_assert_uint_eq(r->size, size);
        ck_assert_uint_eq(r->vnet_len, 12);
        ck_assert_mem_eq(r->data, copy, size);
        g_free(copy);
        rig_free(rig);
    }
}
END_TEST

/* Questions and deadlines */

START_TEST(one_question_per_epoch)
{
    Rig *rig = rig_new();

    for (int epoch = 1; epoch <= 3; epoch++) {
        for (uint16_t flow = 1; flow <= 20; flow++) {
            Shape s = { .peer_port = flow };
            uint32_t seq = (uint32_t)epoch * 4;

            /* Every reason there is, in every flow. */
            rig_give(rig, COLO_PRIMARY, frame_tcp(&s, seq, 1, ACK, NULL, 0, "ours", 4));
            rig_give(rig, COLO_SECONDARY, frame_tcp(&s, seq, 1, ACK, NULL, 0, "them", 4));
            rig_give(rig, COLO_SECONDARY, frame_tcp(&s, seq, 1, RST, NULL, 0, NULL, 0));
            rig_give(rig, COLO_PRIMARY, frame_udp(&s, "ours", 4));
            rig_give(rig, COLO_SECONDARY, frame_udp(&s, "them", 4));
            colo_comparator_peer_lost(rig->c, rig->now);
        }
        rig_wait(rig, 3 * RIG_TIMEOUT);
        rig_expect_asked(rig, epoch, COLO_REASON_PAYLOAD);
        ck_assert(colo_comparator_deadline(rig->c) == INT64_MAX);
        rig_checkpoint(rig);
        ck_assert_uint_eq(colo_comparator_stats(rig->c)->checkpoints, epoch);
    }
    rig_free(rig);
}
END_TEST

START_TEST(deadline_is_exact)
{
    for (int kind = 0; kind < 2; kind++) {
        Rig *rig = rig_new();
        int64_t first = rig->now;

        ck_assert(colo_comparator_deadline(rig->c) == INT64_MAX);
        for (uint16_t flow = 1; flow <= 5; flow++) {
            Shape s = { .peer_port = flow };

            rig_give(rig, COLO_PRIMARY, kind ? frame_udp(&s, "abc", 3) : frame_tcp(&s, 1, 1, ACK, NULL, 0, "abc", 3));
            ck_assert(colo_comparator_deadline(rig->c) == first + RIG_TIMEOUT);
            rig_wait(rig, 10 * MS);
        }
        /* The oldest goes, but for the last: the next one's deadline counts. */
        for (uint16_t flow = 1; flow <= 4; flow++) {
            Shape s = { .peer_port = flow };

            rig_give(rig, COLO_SECONDARY, kind ? frame_udp(&s, "abc", 3) : frame_tcp(&s, 1, 1, ACK, NULL, 0, "abc", 3));
            ck_assert(colo_comparator_deadline(rig->c) == first + flow * 10 * MS + RIG_TIMEOUT);
        }
        rig_wait(rig, first + 40 * MS + RIG_TIMEOUT - 1 - rig->now);
        rig_expect_asked(rig, 0, 0);
        rig_wait(rig, 1);
        rig_expect_asked(rig, 1, COLO_REASON_TIMEOUT);
        ck_assert_uint_eq(rig->flow.peer_port, 5);
        rig_free(rig);
    }
}
END_TEST

/* A flow in the middle of the order of arrival goes: the others' deadlines stay as they were. */
START_TEST(deadline_of_the_others)
{
    static const Shape other = { .peer_port = 9 };
    Rig *rig = rig_new();
    int64_t first = rig->now;

    primary(rig, ACK, 1, 1, "abc");
    rig_wait(rig, 10 * MS);
    rig_give(rig, COLO_PRIMARY, frame_tcp(&other, 1, 1, ACK, NULL, 0, "abc", 3));
    rig_wait(rig, 10 * MS);
    primary(rig, ACK, 4, 1, "def");
    rig_give(rig, COLO_SECONDARY, frame_tcp(&other, 1, 1, ACK, NULL, 0, "abc", 3));
    ck_assert(colo_comparator_deadline(rig->c) == first + RIG_TIMEOUT);
    secondary(rig, ACK, 1, 1, "abc");
    ck_assert(colo_comparator_deadline(rig->c) == first + 20 * MS + RIG_TIMEOUT);
    secondary(rig, ACK, 4, 1, "def");
    ck_assert(colo_comparator_deadline(rig->c) == INT64_MAX);
    rig_free(rig);
}
END_TEST

START_TEST(timeout_changed)
{
    Rig *rig = rig_new();
    int64_t first = rig->now;

    primary(rig, ACK, 1, 1, "abc");
    colo_comparator_set_timeout(rig->c, 10 * MS);
    ck_assert(colo_comparator_deadline(rig->c) == first + 10 * MS);
    rig_wait(rig, 10 * MS - 1);
    rig_expect_asked(rig, 0, 0);
    rig_wait(rig, 1);
    rig_expect_asked(rig, 1, COLO_REASON_TIMEOUT);
    rig_free(rig);
}
END_TEST

START_TEST(peer_lost)
{
    Rig *rig = rig_new();

    colo_comparator_peer_lost(rig->c, rig->now);
    colo_comparator_peer_lost(rig->c, rig->now);
    rig_expect_asked(rig, 1, COLO_REASON_PEER_LOST);
    rig_free(rig);
}
END_TEST

/* Whatever is held asks at once, again after each checkpoint, until there is another connection. */
START_TEST(peer_lost_until_reconnected)
{
    Rig *rig = rig_in_the_middle(100);

    primary(rig, ACK, 100, CLIENT, "held before");
    rig_wait(rig, 10 * MS);
    colo_comparator_peer_lost(rig->c, rig->now);
    rig_expect_asked(rig, 1, COLO_REASON_PEER_LOST);
    primary(rig, ACK, 111, CLIENT, "and after");
    rig_wait(rig, 10 * RIG_TIMEOUT);
    rig_expect_asked(rig, 1, COLO_REASON_PEER_LOST);

    for (int epoch = 2; epoch < 7; epoch++) {
        rig_checkpoint(rig);
        rig_wait(rig, 10 * RIG_TIMEOUT);
        rig_expect_asked(rig, epoch - 1, COLO_REASON_PEER_LOST);    /* nothing is held, so nobody asks */
        if (epoch % 2) {
            rig_udp(rig, COLO_PRIMARY, "held");
        } else {
            primary(rig, ACK, 120, CLIENT + (uint32_t)epoch, "");   /* which waits for an acknowledgement */
        }
        rig_expect_asked(rig, epoch - 1, COLO_REASON_PEER_LOST);
        ck_assert(colo_comparator_deadline(rig->c) == rig->now);
        rig_wait(rig, 0);
        rig_expect_asked(rig, epoch, COLO_REASON_PEER_LOST);
        ck_assert_uint_eq(rig->flow.proto, epoch % 2 ? 17 : 6);
        ck_assert(colo_comparator_deadline(rig->c) == INT64_MAX);
        if (epoch == 4) {
            colo_comparator_reconnected(rig->c, COLO_PRIMARY);      /* the other one's */
        }
    }

    rig_checkpoint(rig);
    colo_comparator_reconnected(rig->c, COLO_SECONDARY);
    while (rig_pending(rig)) {
        rig_next(rig);
    }
    expect_comparing(rig, 120);
    primary(rig, ACK, 126, CLIENT, "alone");
    ck_assert(colo_comparator_deadline(rig->c) == rig->now + RIG_TIMEOUT);
    rig_wait(rig, RIG_TIMEOUT);
    rig_expect_asked(rig, 7, COLO_REASON_TIMEOUT);
    rig_free(rig);
}
END_TEST

/* Lost before COLO began, and not there since. */
START_TEST(peer_lost_before_the_beginning)
{
    Rig *rig = rig_new();

    colo_comparator_set_comparing(rig->c, false, rig->now);
    colo_comparator_peer_lost(rig->c, rig->now);
    rig_expect_asked(rig, 0, 0);
    colo_comparator_set_comparing(rig->c, true, rig->now);
    rig_wait(rig, 10 * RIG_TIMEOUT);
    rig_expect_asked(rig, 0, 0);
    primary(rig, ACK, 1, CLIENT, "held");
    rig_wait(rig, 0);
    rig_expect_asked(rig, 1, COLO_REASON_PEER_LOST);
    rig_free(rig);
}
END_TEST

START_TEST(has_asked)
{
    Rig *rig = rig_new();

    for (int epoch = 1; epoch < 4; epoch++) {
        ck_assert(!colo_comparator_has_asked(rig->c));
        primary(rig, ACK, (uint32_t)epoch, CLIENT, "y");
        ck_assert(!colo_comparator_has_asked(rig->c));
        secondary(rig, ACK, (uint32_t)epoch, CLIENT, "n");
        ck_assert(colo_comparator_has_asked(rig->c));
        rig_wait(rig, 10 * RIG_TIMEOUT);
        ck_assert(colo_comparator_has_asked(rig->c));
        rig_checkpoint(rig);
    }
    colo_comparator_peer_lost(rig->c, rig->now);
    ck_assert(colo_comparator_has_asked(rig->c));
    colo_comparator_set_comparing(rig->c, false, rig->now);
    ck_assert(!colo_comparator_has_asked(rig->c));
    colo_comparator_peer_lost(rig->c, rig->now);
    ck_assert(!colo_comparator_has_asked(rig->c));
    rig_free(rig);
}
END_TEST

/* The checkpoint is asked for when the primary has been quiet; its flow and reason are those of the divergence. */
START_TEST(asks_when_it_is_quiet)
{
    Rig *rig = rig_new_with(&(ColoComparatorConfig) { .quiet = 2 * MS, .gather = 10 * MS });

    primary(rig, ACK, 1, CLIENT, "yes");
    secondary(rig, ACK, 1, CLIENT, "no!");
    for (int i = 0; i < 4; i++) {
        ck_assert(colo_comparator_has_asked(rig->c));
        ck_assert_int_eq(rig->asked, 0);
        ck_assert(colo_comparator_deadline(rig->c) == rig->now + 2 * MS);
        rig_wait(rig, 2 * MS - 1);
        rig_udp(rig, COLO_PRIMARY, "more");
        secondary(rig, ACK, 4, CLIENT, "whatever");     /* the secondary's puts nothing off */
    }
    rig_wait(rig, MS);
    rig_udp(rig, COLO_SECONDARY, "something else");
    rig_wait(rig, MS - 1);
    ck_assert_int_eq(rig->asked, 0);
    rig_wait(rig, 1);
    rig_expect_asked(rig, 1, COLO_REASON_PAYLOAD);
    ck_assert_uint_eq(rig->flow.proto, 6);
    rig_wait(rig, 10 * RIG_TIMEOUT);
    rig_udp(rig, COLO_PRIMARY, "later");
    rig_expect_asked(rig, 1, COLO_REASON_PAYLOAD);
    rig_checkpoint(rig);
    ck_assert_uint_eq(rig_pending(rig), 6);
    rig_free(rig);
}
END_TEST

/* However much it sends. */
START_TEST(asks_though_it_is_never_quiet)
{
    Rig *rig = rig_new_with(&(ColoComparatorConfig) { .quiet = 2 * MS, .gather = 10 * MS });

    primary(rig, ACK, 1, CLIENT, "yes");
    secondary(rig, ACK, 1, CLIENT, "no!");
    for (int i = 0; i < 9; i++) {
        rig_wait(rig, MS);
        rig_udp(rig, COLO_PRIMARY, "more");
    }
    ck_assert(colo_comparator_deadline(rig->c) == rig->now + MS);
    ck_assert_int_eq(rig->asked, 0);
    rig_wait(rig, MS);
    rig_expect_asked(rig, 1, COLO_REASON_PAYLOAD);
    rig_free(rig);
}
END_TEST

/* compare_timeout is a limit for that, too; and a secondary that is away leaves nothing to wait for. */
START_TEST(asks_in_time)
{
    Rig *rig = rig_new_with(&(ColoComparatorConfig) { .quiet = 20 * MS, .gather = 100 * MS });

    rig_udp(rig, COLO_PRIMARY, "held");
    rig_wait(rig, RIG_TIMEOUT - 5 * MS);
    primary(rig, ACK, 1, CLIENT, "yes");
    secondary(rig, ACK, 1, CLIENT, "no!");
    rig_wait(rig, 5 * MS - 1);
    ck_assert_int_eq(rig->asked, 0);
    rig_wait(rig, 1);
    rig_expect_asked(rig, 1, COLO_REASON_PAYLOAD);
    rig_checkpoint(rig);
    rig_udp(rig, COLO_PRIMARY, "held");
    rig_wait(rig, RIG_TIMEOUT);
    rig_expect_asked(rig, 2, COLO_REASON_TIMEOUT);
    rig_checkpoint(rig);
    colo_comparator_peer_lost(rig->c, rig->now);
    rig_expect_asked(rig, 3, COLO_REASON_PEER_LOST);
    rig_free(rig);
}
END_TEST

/* A checkpoint that comes by itself will do; so will the end of COLO. */
START_TEST(asks_no_more_than_needed)
{
    Rig *rig = rig_new_with(&(ColoComparatorConfig) { .quiet = 2 * MS, .gather = 10 * MS });

    for (int i = 0; i < 2; i++) {
        primary(rig, ACK, 1, CLIENT, "yes");
        secondary(rig, ACK, 1, CLIENT, "no!");
        rig_wait(rig, MS);
        if (i) {
            colo_comparator_set_comparing(rig->c, false, rig->now);
        } else {
            rig_checkpoint(rig);
        }
        ck_assert(colo_comparator_deadline(rig->c) == INT64_MAX);
        rig_wait(rig, RIG_TIMEOUT);
    }
    ck_assert_int_eq(rig->asked, 0);
    rig_free(rig);
}
END_TEST

/* A secondary that counts its epochs: whatever it sends is of the one that it said last. */
START_TEST(numbered_epochs)
{
    Rig *rig = rig_in_the_middle(100);
    uint32_t seq = 100;

    colo_comparator_peer_lost(rig->c, rig->now);
    rig_checkpoint(rig);
    colo_comparator_reconnected(rig->c, COLO_SECONDARY);
    colo_comparator_secondary_doubted(rig->c);
    primary(rig, ACK, seq, CLIENT, "abc");
    secondary(rig, ACK, seq, CLIENT, "abc");
    rig_expect_nothing(rig);                            /* nobody knows from when that is */
    ck_assert(colo_comparator_resumed(rig->c, COLO_SECONDARY, 0, rig->now));
    secondary(rig, ACK, seq, CLIENT, "abc");
    rig_expect(rig, ACK, seq, 3);
    seq += 3;
    for (int epoch = 0; epoch < 4; epoch++) {
        bool early = epoch % 2;

        if (early) {
            ck_assert(colo_comparator_resumed(rig->c, COLO_SECONDARY, -1, rig->now));
            secondary(rig, ACK, seq, CLIENT, "abc");
            ck_assert_uint_eq(rig_held(rig, COLO_SECONDARY), 0);
            ck_assert(!colo_comparator_may_read(rig->c, COLO_SECONDARY));
        }
        rig_checkpoint(rig);
        if (!early) {
            secondary(rig, ACK, seq, CLIENT, "abc");    /* old */
            ck_assert_uint_eq(rig_held(rig, COLO_SECONDARY), 0);
            ck_assert(colo_comparator_resumed(rig->c, COLO_SECONDARY, 1, rig->now));
            secondary(rig, ACK, seq, CLIENT, "abc");    /* old still */
            ck_assert(colo_comparator_resumed(rig->c, COLO_SECONDARY, 0, rig->now));
            secondary(rig, ACK, seq, CLIENT, "abc");
        }
        ck_assert_uint_eq(rig_held(rig, COLO_SECONDARY), 1);
        primary(rig, ACK, seq, CLIENT, "abc");
        rig_expect(rig, ACK, seq, 3);
        seq += 3;
    }
    /* Early once more, of a checkpoint that has never been told of. */
    ck_assert(colo_comparator_resumed(rig->c, COLO_SECONDARY, -1, rig->now));
    secondary(rig, ACK, seq, CLIENT, "cba");
    ck_assert(colo_comparator_resumed(rig->c, COLO_SECONDARY, -1, rig->now));
    secondary(rig, ACK, seq, CLIENT, "abc");
    rig_checkpoint(rig);
    primary(rig, ACK, seq, CLIENT, "abc");
    rig_expect(rig, ACK, seq, 3);

    /* And once more; then it says what cannot be, and is in doubt. */
    ck_assert(colo_comparator_resumed(rig->c, COLO_SECONDARY, -1, rig->now));
    secondary(rig, ACK, seq + 3, CLIENT, "abc");
    ck_assert(!colo_comparator_may_read(rig->c, COLO_SECONDARY));
    colo_comparator_secondary_doubted(rig->c);
    ck_assert(colo_comparator_may_read(rig->c, COLO_SECONDARY));
    secondary(rig, ACK, seq + 3, CLIENT, "abc");
    ck_assert_uint_eq(rig_held(rig, COLO_SECONDARY), 0);

    ck_assert_int_eq(colo_epochs_behind(5, 7), -2);
    ck_assert_int_eq(colo_epochs_behind(5, 6), -1);
    ck_assert_int_eq(colo_epochs_behind(5, 5), 0);
    ck_assert_int_eq(colo_epochs_behind(5, 0), 5);
    ck_assert_int_eq(colo_epochs_behind(5, UINT64_MAX), -2);
    ck_assert(!colo_comparator_resumed(rig->c, COLO_SECONDARY, -2, rig->now));
    ck_assert(!colo_comparator_resumed(rig->c, COLO_SECONDARY, INT64_MIN, rig->now));
    ck_assert(colo_comparator_resumed(rig->c, COLO_SECONDARY, INT64_MAX, rig->now));
    rig_checkpoint(rig);
    ck_assert(colo_comparator_resumed(rig->c, COLO_SECONDARY, 0, rig->now));
    expect_comparing(rig, seq + 3);
    rig_expect_asked(rig, 1, COLO_REASON_PEER_LOST);
    rig_free(rig);
}
END_TEST

/* While holding, it does not matter what the secondary sends; only a checkpoint counts. */
START_TEST(holding)
{
    Rig *rig = rig_new();

    colo_comparator_set_holding(rig->c, true);
    primary(rig, ACK, 1, CLIENT, "this is compared still");
    secondary(rig, ACK, 1, CLIENT, "this is compared still");
    rig_expect(rig, ACK, 1, 22);
    rig_checkpoint(rig);
    for (int epoch = 1; epoch < 4; epoch++) {
        uint32_t seq = (uint32_t)(20 + 3 * epoch);

        primary(rig, ACK, seq, CLIENT, "abc");
        secondary(rig, ACK, seq, CLIENT, epoch % 2 ? "abc" : "cba");
        rig_udp(rig, COLO_SECONDARY, "datagram");
        rig_udp(rig, COLO_PRIMARY, "datagram");
        secondary(rig, RST, seq, 0, "");
        primary(rig, ACK, seq + 3, CLIENT, "");
        ck_assert_uint_eq(rig_held(rig, COLO_PRIMARY), 3);
        ck_assert_uint_eq(rig_held(rig, COLO_SECONDARY), 0);
        rig_wait(rig, RIG_TIMEOUT - 1);
        rig_expect_asked(rig, epoch - 1, COLO_REASON_TIMEOUT);
        rig_wait(rig, 1);
        rig_expect_asked(rig, epoch, COLO_REASON_TIMEOUT);
        rig_expect_nothing(rig);
        if (epoch == 3) {
            colo_comparator_set_holding(rig->c, false);
        }
        rig_checkpoint(rig);
        rig_expect(rig, ACK, seq, 3);
        ck_assert_uint_eq(rig_next(rig).len, 8);
        rig_expect(rig, ACK, seq + 3, 0);
    }
    expect_comparing(rig, 32);
    rig_free(rig);
}
END_TEST

/* A primary that cannot be made to wait: too much of it asks for a checkpoint. */
START_TEST(primary_goes_on)
{
    Rig *rig = rig_new_with(&(ColoComparatorConfig) { .queue_size = 4, .primary_goes_on = true });

    for (int epoch = 1; epoch < 4; epoch++) {
        for (int i = 0; i < 3; i++) {
            rig_udp(rig, COLO_PRIMARY, "one");
        }
        rig_expect_asked(rig, epoch - 1, COLO_REASON_QUEUE_FULL);
        for (int i = 0; i < 10; i++) {
            rig_udp(rig, COLO_PRIMARY, "more");
        }
        rig_expect_asked(rig, epoch, COLO_REASON_QUEUE_FULL);
        rig_checkpoint(rig);
        ck_assert_uint_eq(rig_pending(rig), 13 * (guint)epoch);
    }
    rig_free(rig);
}
END_TEST

START_TEST(reason_names)
{
    static const char *const names[] = {
        "payload", "flags", "options", "timeout", "ack", "queue-full", "secondary-reset", "peer-lost",
    };

    for (guint i = 0; i < G_N_ELEMENTS(names); i++) {
        bool found = false;

        for (int reason = 0; reason < COLO_REASONS; reason++) {
            found = found || !strcmp(colo_reason_name(reason), names[i]);
        }
        ck_assert_msg(found, "no reason is called %s", names[i]);
    }
    ck_assert_str_eq(colo_reason_name(COLO_REASON_ACK), "ack");
    ck_assert_str_eq(colo_reason_name(COLO_REASON_PEER_LOST), "peer-lost");
}
END_TEST

/* Load */

START_TEST(primary_ahead_waits)
{
    enum { SIZE = 8 };
    Rig *rig = rig_new_at(0, SIZE);

    for (uint32_t i = 0; i < 3 * SIZE; i++) {       /* some more are on their way already: none is dropped */
        ck_assert_int_eq(colo_comparator_may_read(rig->c, COLO_PRIMARY), i < SIZE);
        ck_assert(colo_comparator_may_read(rig->c, COLO_SECONDARY));
        primary(rig, ACK, 1 + 4 * i, 1, "abcd");
    }
    rig_expect_asked(rig, 0, 0);
    ck_assert_uint_eq(rig_held(rig, COLO_PRIMARY), 3 * SIZE);
    for (uint32_t i = 0; i < 3 * SIZE; i++) {
        ck_assert_int_eq(colo_comparator_may_read(rig->c, COLO_PRIMARY), 3 * SIZE - i < SIZE);
        secondary(rig, ACK, 1 + 4 * i, 1, "abcd");
        rig_expect(rig, ACK, 1 + 4 * i, 4);
    }
    ck_assert(colo_comparator_may_read(rig->c, COLO_PRIMARY));
    rig_expect_asked(rig, 0, 0);
    rig_free(rig);
}
END_TEST

START_TEST(secondary_ahead_waits)
{
    enum { SIZE = 8 };
    Rig *rig = rig_new_at(0, SIZE);

    for (uint32_t i = 0; i < 2 * SIZE; i++) {
        ck_assert_int_eq(colo_comparator_may_read(rig->c, COLO_SECONDARY), i < SIZE);
        ck_assert(colo_comparator_may_read(rig->c, COLO_PRIMARY));
        secondary(rig, ACK, 1 + 4 * i, 1, "abcd");
    }
    for (uint32_t i = 0; i < 2 * SIZE; i++) {
        ck_assert_int_eq(colo_comparator_may_read(rig->c, COLO_SECONDARY), 2 * SIZE - i < SIZE);
        primary(rig, ACK, 1 + 4 * i, 1, "abcd");
        rig_expect(rig, ACK, 1 + 4 * i, 4);
    }
    ck_assert(colo_comparator_may_read(rig->c, COLO_SECONDARY));
    rig_expect_asked(rig, 0, 0);
    rig_free(rig);
}
END_TEST

/* Each waits for the other, in two flows: only a checkpoint helps. */
START_TEST(both_wait)
{
    enum { SIZE = 4 };
    static const Shape other = { .peer_port = 9 };

    for (int order = 0; order < 2; order++) {
        Rig *rig = rig_new_at(0, SIZE);

        for (uint32_t i = 0; i < SIZE; i++) {
            for (int turn = 0; turn < 2; turn++) {
                rig_expect_asked(rig, 0, 0);
                if (turn == order) {
                    primary(rig, ACK, 1 + 4 * i, 1, "abcd");
                } else {
                    rig_give(rig, COLO_SECONDARY, frame_tcp(&other, 1 + 4 * i, 1, ACK, NULL, 0, "abcd", 4));
                }
            }
        }
        rig_expect_asked(rig, 1, COLO_REASON_QUEUE_FULL);
        rig_checkpoint(rig);
        for (uint32_t i = 0; i < SIZE; i++) {
            rig_expect(rig, ACK, 1 + 4 * i, 4);
        }
        rig_expect_nothing(rig);
        rig_free(rig);
    }
}
END_TEST

/* Many flows with little in each are too much together, too. */
START_TEST(bytes_are_bounded)
{
    uint8_t *bytes = bytes_of(1, 60000);
    Rig *rig = rig_new_at(0, 1000000);
    uint32_t n = 0;

    while (colo_comparator_may_read(rig->c, COLO_PRIMARY) && n < 20000) {
        Shape s = { .peer_port = (uint16_t)(1 + n % 1000) };

        rig_give(rig, COLO_PRIMARY, frame_tcp(&s, n / 1000 * 60000, 1, ACK, NULL, 0, bytes, 60000));
        n++;
    }
    ck_assert_msg(n < 20000, "more than a GB is held");
    ck_assert_uint_gt(n, 100);
    ck_assert(colo_comparator_may_read(rig->c, COLO_SECONDARY));
    ck_assert_uint_eq(rig_held(rig, COLO_PRIMARY), n);
    g_free(bytes);
    colo_comparator_checkpoint(rig->c, rig->now);
    ck_assert_uint_eq(rig_pending(rig), n);
    rig_free(rig);
}
END_TEST

/* More flows than the stock table had room for, something held in each. */
START_TEST(twenty_thousand_flows)
{
    enum { N = 20000 };
    Rig *rig = rig_new();

    for (uint32_t i = 0; i < N; i++) {
        Shape s = { .peer_port = (uint16_t)(1 + i % 60000), .peer_host = (uint8_t)(1 + i / 60000) };

        rig_give(rig, COLO_PRIMARY, frame_udp(&s, &i, sizeof(i)));
    }
    ck_assert_uint_eq(colo_comparator_flows(rig->c), N);
    ck_assert_uint_eq(rig_held(rig, COLO_PRIMARY), N);
    rig_expect_nothing(rig);
    for (uint32_t i = 0; i < N; i += 2) {
        Shape s = { .peer_port = (uint16_t)(1 + i % 60000), .peer_host = (uint8_t)(1 + i / 60000) };

        rig_give(rig, COLO_SECONDARY, frame_udp(&s, &i, sizeof(i)));
        ck_assert_mem_eq(rig_next(rig).payload, &i, sizeof(i));
    }
    rig_checkpoint(rig);
    for (uint32_t i = 1; i < N; i += 2) {
        ck_assert_mem_eq(rig_next(rig).payload, &i, sizeof(i));
    }
    rig_expect_nothing(rig);
    rig_free(rig);
}
END_TEST

START_TEST(flows_age)
{
    Rig *rig = rig_new();
    Shape busy = { .peer_port = 1 }, holding = { .peer_port = 2 }, ahead = { .peer_port = 2000 };

    rig_give(rig, COLO_PRIMARY, frame_tcp(&holding, 1, 1, ACK, NULL, 0, "held", 4));
    rig_give(rig, COLO_SECONDARY, frame_tcp(&ahead, 1, 1, ACK, NULL, 0, "ahead", 5));
    for (uint16_t i = 3; i < 100; i++) {
        Shape s = { .peer_port = i };

        rig_give(rig, COLO_PRIMARY, frame_tcp(&s, 1, 1, ACK | FIN, NULL, 0, NULL, 0));
        rig_give(rig, COLO_SECONDARY, frame_tcp(&s, 1, 1, ACK | FIN, NULL, 0, NULL, 0));
        rig_expect(rig, ACK | FIN, 1, 0);
    }
    ck_assert_uint_eq(colo_comparator_flows(rig->c), 99);
    rig->now += 3600 * 1000 * MS;       /* closed ones are gone within the hour */
    for (int i = 0; i < 100; i++) {
        rig_give(rig, COLO_SECONDARY, frame_tcp(&busy, 1, 1, ACK, NULL, 0, NULL, 0));
    }
    ck_assert_uint_eq(colo_comparator_flows(rig->c), 3);
    rig->now += 24 * 3600 * 1000 * MS;  /* but never one that something is held in */
    for (int i = 0; i < 100; i++) {
        rig_give(rig, COLO_SECONDARY, frame_tcp(&busy, 1, 1, ACK, NULL, 0, NULL, 0));
    }
    ck_assert_uint_eq(colo_comparator_flows(rig->c), 3);
    ck_assert_uint_eq(rig_held(rig, COLO_PRIMARY), 1);
    ck_assert_uint_eq(rig_held(rig, COLO_SECONDARY), 1);
    rig_give(rig, COLO_PRIMARY, frame_tcp(&ahead, 1, 1, ACK, NULL, 0, "ahead", 5));
    rig_expect(rig, ACK, 1, 5);
    rig_free(rig);
}
END_TEST

/* A hostile secondary leaves room for a million bytes and fills it byte by byte; an honest one may be ahead by as much. */
START_TEST(late_segments_are_bounded)
{
    const uint32_t enough = 20000;

    for (int late = 0; late < 2; late++) {
        Rig *rig = rig_new();
        Shape s = { .peer_port = 1 };

        rig_give(rig, COLO_SECONDARY, frame_tcp(&s, late ? 1000000 : 2, 1, ACK, NULL, 0, "x", 1));
        for (uint32_t i = 0; i < enough; i++) {
            rig_give(rig, COLO_SECONDARY, frame_tcp(&s, 10 + i, 1, ACK, NULL, 0, "y", 1));
        }
        if (late) {
            ck_assert_uint_lt(rig_held(rig, COLO_SECONDARY), enough / 2);
        } else {
            ck_assert_uint_eq(rig_held(rig, COLO_SECONDARY), enough + 1);
        }
        rig_free(rig);
    }
}
END_TEST

/* Questions from ever new ports, answered or not, and connections that are never made are not remembered as connections are. */
START_TEST(what_is_no_connection_goes_soon)
{
    Rig *rig = rig_new();
    Shape idle = { .peer_port = 1 };

    rig_give(rig, COLO_PRIMARY, frame_tcp(&idle, 1, 1, SYN | ACK, NULL, 0, NULL, 0));
    rig_give(rig, COLO_SECONDARY, frame_tcp(&idle, 1, 1, SYN | ACK, NULL, 0, NULL, 0));
    rig_give(rig, COLO_PRIMARY, frame_tcp(&idle, 2, 1, ACK, NULL, 0, NULL, 0));
    rig_give(rig, COLO_SECONDARY, frame_tcp(&idle, 2, 1, ACK, NULL, 0, NULL, 0));
    for (uint16_t i = 2; i < 100; i++) {
        Shape s = { .peer_port = i };

        for (int side = 0; side < COLO_SIDES; side++) {
            rig_give(rig, side, i % 2 ? frame_udp(&s, "answer", 6) : frame_tcp(&s, 1, 1, SYN | ACK, NULL, 0, NULL, 0));
        }
    }
    ck_assert_uint_eq(rig_held(rig, COLO_PRIMARY), 0);
    ck_assert_uint_eq(colo_comparator_flows(rig->c), 99);
    rig->now += 300 * 1000 * MS;
    for (int i = 0; i < 100; i++) {
        Shape other = { .peer_port = 1000 };

        rig_give(rig, COLO_SECONDARY, frame_tcp(&other, 1, 1, ACK, NULL, 0, NULL, 0));
    }
    ck_assert_uint_eq(colo_comparator_flows(rig->c), 2);
    rig_free(rig);
}
END_TEST

/* Checkpoints and epochs */

START_TEST(checkpoint_releases_and_forgets)
{
    static const uint32_t bases[] = { 1000, 0xfffffffe, 0, 2, 0x80000000 };

    for (guint b = 0; b < G_N_ELEMENTS(bases); b++) {
        uint32_t at = bases[b];
        Rig *rig = rig_in_the_middle(at);

        primary(rig, ACK, at, CLIENT + 9, "held");
        primary(rig, ACK, at + 4, CLIENT + 9, "");
        secondary(rig, ACK, at + 2, CLIENT, "ahead in another way");
        rig_expect_nothing(rig);
        rig_checkpoint(rig);
        rig_expect(rig, ACK, at, 4);
        rig_expect(rig, ACK, at + 4, 0);
        /* The secondary has the primary's state: its acknowledgement, and its position. */
        primary(rig, ACK, at + 4, CLIENT + 9, "");
        rig_expect(rig, ACK, at + 4, 0);
        expect_comparing(rig, at + 4);
        rig_expect_asked(rig, 0, 0);
        rig_free(rig);
    }
}
END_TEST

/* Nothing the secondary did before a checkpoint speaks for it afterwards: it has been undone. */
START_TEST(secondary_state_does_not_survive)
{
    Rig *rig = rig_in_the_middle(100);

    secondary(rig, SYN | ACK, 7777, CLIENT, "");
    secondary(rig, ACK, 100, CLIENT + 50, "before");
    secondary(rig, RST, 106, 0, "");
    rig_checkpoint(rig);
    primary(rig, ACK, 100, CLIENT, "before");
    rig_expect_nothing(rig);
    secondary(rig, ACK, 100, CLIENT, "before");
    rig_expect(rig, ACK, 100, 6);
    primary(rig, ACK, 106, CLIENT + 50, "");
    rig_expect_nothing(rig);
    secondary(rig, ACK, 106, CLIENT + 50, "");
    rig_expect(rig, ACK, 106, 0);
    primary(rig, RST, 106, 0, "");
    rig_expect_nothing(rig);
    rig_checkpoint(rig);
    rig_expect(rig, RST, 106, 0);

    secondary(rig, SYN, 4242, 0, "");
    rig_checkpoint(rig);
    primary(rig, SYN, 4343, 0, "");
    rig_expect_nothing(rig);
    secondary(rig, SYN, 4444, 0, "");
    rig_expect(rig, SYN, 4343, 0);
    rig_udp(rig, COLO_SECONDARY, "before");
    rig_checkpoint(rig);
    rig_udp(rig, COLO_PRIMARY, "before");
    rig_expect_nothing(rig);
    rig_expect_asked(rig, 0, 0);
    rig_free(rig);
}
END_TEST

/* The primary's SYN-ACK has left by a checkpoint: the secondary repeats it as its own. */
START_TEST(checkpoint_in_a_handshake)
{
    static const uint32_t isns[] = { 77, UINT32_MAX, 0xfffffffe };

    for (guint i = 0; i < G_N_ELEMENTS(isns); i++) {
        for (int secondary_had_sent = 0; secondary_had_sent < 2; secondary_had_sent++) {
            uint32_t isn = isns[i];
            Rig *rig = rig_new();

            if (secondary_had_sent) {
                secondary(rig, SYN | ACK, 12345, CLIENT - 1, "");   /* with an older acknowledgement: still held */
            }
            primary(rig, SYN | ACK, isn, CLIENT, "");
            rig_checkpoint(rig);
            rig_expect(rig, SYN | ACK, isn, 0);
            secondary(rig, SYN | ACK, isn, CLIENT, "");
            primary(rig, SYN | ACK, isn, CLIENT, "");
            rig_expect(rig, SYN | ACK, isn, 0);
            secondary(rig, SYN | ACK, isn, CLIENT, "");
            expect_comparing(rig, isn + 1);
            rig_expect_asked(rig, 0, 0);
            rig_free(rig);
        }
    }
}
END_TEST

/* A connection that began before, on a flow whose numbers of an older connection lie ahead. */
START_TEST(checkpoint_after_port_reuse)
{
    static const uint32_t isns[] = { 0x1000, 0x70000000, 0x80000900, 0x90000000, 0xfffffff0 };

    for (guint i = 0; i < G_N_ELEMENTS(isns); i++) {
        for (int marked = 0; marked < 2; marked++) {
            Rig *rig = rig_in_the_middle(0x900);

            if (marked) {
                rig_epoch(rig, COLO_PRIMARY);
                rig_epoch(rig, COLO_SECONDARY);
                rig_checkpoint(rig);
                rig_epoch(rig, COLO_SECONDARY);
            }
            primary(rig, SYN | ACK, isns[i], CLIENT, "");
            if (marked) {
                rig_epoch(rig, COLO_PRIMARY);       /* the SYN-ACK was of the old epoch */
            } else {
                rig_checkpoint(rig);
            }
            rig_expect(rig, SYN | ACK, isns[i], 0);
            expect_comparing(rig, isns[i] + 1);
            primary(rig, SYN | ACK, isns[i], CLIENT, "");   /* late, and nothing new */
            rig_expect(rig, SYN | ACK, isns[i], 0);
            rig_expect_asked(rig, 0, 0);
            rig_free(rig);
        }
    }
}
END_TEST

/* Old output of the secondary's, recognised by its mark: it neither speaks for the primary nor against it. */
START_TEST(old_secondary_output_is_dropped)
{
    Rig *rig = rig_in_the_middle(100);

    rig_epoch(rig, COLO_SECONDARY);
    expect_comparing(rig, 100);
    rig_checkpoint(rig);
    primary(rig, ACK, 106, CLIENT + 9, "new");
    secondary(rig, ACK, 106, CLIENT + 9, "old");
    secondary(rig, ACK, 106, CLIENT + 9, "new");
    secondary(rig, RST, 106, 0, "");
    secondary(rig, SYN, 106, 0, "");
    rig_udp(rig, COLO_SECONDARY, "old");
    rig_udp(rig, COLO_PRIMARY, "old");
    rig_expect_nothing(rig);
    rig_expect_asked(rig, 0, 0);
    ck_assert_uint_eq(rig_held(rig, COLO_SECONDARY), 0);
    rig_epoch(rig, COLO_SECONDARY);
    rig_expect_nothing(rig);
    secondary(rig, ACK, 106, CLIENT, "new");
    rig_expect_nothing(rig);
    secondary(rig, ACK, 109, CLIENT + 9, "");
    rig_expect(rig, ACK, 106, 3);
    rig_udp(rig, COLO_SECONDARY, "old");
    ck_assert_uint_eq(rig_next(rig).len, 3);
    rig_expect_nothing(rig);
    rig_expect_asked(rig, 0, 0);
    rig_free(rig);
}
END_TEST

/* Old output of the primary's is in the checkpoint. */
START_TEST(old_primary_output_is_released)
{
    static const uint32_t bases[] = { 100, 0xfffffff8, 0xfffffffe };

    for (guint b = 0; b < G_N_ELEMENTS(bases); b++) {
        uint32_t at = bases[b];
        Rig *rig = rig_in_the_middle(at);

        rig_epoch(rig, COLO_PRIMARY);
        expect_comparing(rig, at);
        rig_checkpoint(rig);
        primary(rig, ACK, at + 6, CLIENT + 9, "old");
        rig_expect(rig, ACK, at + 6, 3);
        rig_udp(rig, COLO_PRIMARY, "old");
        ck_assert_uint_eq(rig_next(rig).len, 3);
        primary(rig, ACK, at + 9, CLIENT + 9, "older");
        rig_expect(rig, ACK, at + 9, 5);
        ck_assert_uint_eq(rig_held(rig, COLO_PRIMARY), 0);
        rig_epoch(rig, COLO_PRIMARY);
        primary(rig, ACK, at + 14, CLIENT + 9, "");     /* the checkpoint's acknowledgement */
        rig_expect(rig, ACK, at + 14, 0);
        expect_comparing(rig, at + 14);
        rig_udp(rig, COLO_PRIMARY, "new");
        rig_expect_nothing(rig);
        rig_expect_asked(rig, 0, 0);
        rig_free(rig);
    }
}
END_TEST

/* The secondary's new output may be there before the last of the primary's old. */
START_TEST(secondary_is_first_in_the_new_epoch)
{
    for (int variant = 0; variant < 2; variant++) {
        Rig *rig = rig_in_the_middle(100);

        rig_epoch(rig, COLO_PRIMARY);
        rig_epoch(rig, COLO_SECONDARY);
        rig_checkpoint(rig);
        rig_epoch(rig, COLO_SECONDARY);
        secondary(rig, ACK, 106, CLIENT + 20, "new");
        primary(rig, ACK, 100, CLIENT + 10, variant ? "old" : "old123");
        rig_expect(rig, ACK, 100, variant ? 3 : 6);
        if (variant) {
            primary(rig, ACK, 103, CLIENT + 5, "123");      /* an older acknowledgement at that */
            rig_expect(rig, ACK, 103, 3);
        }
        rig_epoch(rig, COLO_PRIMARY);
        primary(rig, ACK, 106, CLIENT + 20, "new");
        rig_expect(rig, ACK, 106, 3);
        expect_comparing(rig, 109);
        rig_expect_asked(rig, 0, 0);
        rig_free(rig);
    }
}
END_TEST

/* It resets the connection, or opens one, first thing in the new epoch. */
/* The same with a SYN whose number, 0, is a number like any other. */
START_TEST(secondary_opens_first_in_the_new_epoch)
{
    Rig *rig = rig_in_the_middle(100);

    rig_epoch(rig, COLO_PRIMARY);
    rig_epoch(rig, COLO_SECONDARY);
    rig_checkpoint(rig);
    rig_epoch(rig, COLO_SECONDARY);
    secondary(rig, SYN | ACK, 0, CLIENT + 500, "");
    primary(rig, ACK, 100, CLIENT, "old");
    rig_expect(rig, ACK, 100, 3);
    rig_epoch(rig, COLO_PRIMARY);
    primary(rig, SYN | ACK, 7777, CLIENT + 500, "");
    rig_expect(rig, SYN | ACK, 7777, 0);
    rig_expect_asked(rig, 0, 0);
    rig_free(rig);
}
END_TEST

/*
 * In the new epoch the secondary repeats the SYN that it has from the primary, or opens another connection with the same
 * addresses; then the primary's own, of the old epoch, comes.  The repeated one stands for no other SYN.
 */
START_TEST(secondary_repeats_first_in_the_new_epoch)
{
    for (int repeats = 0; repeats < 2; repeats++) {
        Rig *rig = rig_new();

        rig_epoch(rig, COLO_PRIMARY);
        rig_epoch(rig, COLO_SECONDARY);
        rig_checkpoint(rig);
        rig_epoch(rig, COLO_SECONDARY);
        secondary(rig, SYN | ACK, repeats ? 9 : 70000, CLIENT, "");
        primary(rig, SYN | ACK, 9, CLIENT, "");
        rig_expect(rig, SYN | ACK, 9, 0);
        rig_epoch(rig, COLO_PRIMARY);
        primary(rig, SYN | ACK, 500000, CLIENT, "");
        if (repeats) {
            rig_expect_nothing(rig);
            secondary(rig, SYN | ACK, 70000, CLIENT, "");
        }
        rig_expect(rig, SYN | ACK, 500000, 0);
        rig_end_well(rig);
    }
}
END_TEST

START_TEST(secondary_resets_first_in_the_new_epoch)
{
    Rig *rig = rig_in_the_middle(100);

    rig_epoch(rig, COLO_PRIMARY);
    rig_epoch(rig, COLO_SECONDARY);
    rig_checkpoint(rig);
    rig_epoch(rig, COLO_SECONDARY);
    secondary(rig, RST, 103, 0, "");
    primary(rig, ACK, 100, CLIENT, "old");
    rig_expect(rig, ACK, 100, 3);
    rig_epoch(rig, COLO_PRIMARY);
    primary(rig, RST, 103, 0, "");
    rig_expect(rig, RST, 103, 0);
    rig_expect_asked(rig, 0, 0);
    rig_free(rig);
}
END_TEST

/* Two checkpoints before the secondary's connection delivers the first mark. */
START_TEST(marks_are_counted)
{
    Rig *rig = rig_in_the_middle(100);

    rig_epoch(rig, COLO_SECONDARY);
    rig_checkpoint(rig);
    rig_checkpoint(rig);
    rig_checkpoint(rig);
    for (int i = 0; i < 3; i++) {
        primary(rig, ACK, 100, CLIENT, "new");
        secondary(rig, ACK, 100, CLIENT, "new");
        rig_expect_nothing(rig);
        rig_epoch(rig, COLO_SECONDARY);
        rig_expect_nothing(rig);
    }
    secondary(rig, ACK, 100, CLIENT, "new");
    for (int i = 0; i < 3; i++) {
        rig_expect(rig, ACK, 100, 3);
    }
    rig_expect_nothing(rig);
    rig_free(rig);
}
END_TEST

START_TEST(without_marks_a_checkpoint_is_the_border)
{
    Rig *rig = rig_in_the_middle(100);

    rig_checkpoint(rig);
    expect_comparing(rig, 100);
    rig_checkpoint(rig);
    expect_comparing(rig, 106);
    rig_free(rig);
}
END_TEST

START_TEST(reconnected_without_marks)
{
    Rig *rig = rig_in_the_middle(100);

    rig_epoch(rig, COLO_SECONDARY);
    rig_checkpoint(rig);
    colo_comparator_reconnected(rig->c, COLO_SECONDARY);
    expect_comparing(rig, 100);
    rig_checkpoint(rig);
    expect_comparing(rig, 106);
    rig_free(rig);
}
END_TEST

/* The primary's connection is another one; what the secondary has sent early is none of its business. */
START_TEST(primary_reconnected)
{
    Rig *rig = rig_in_the_middle(100);

    rig_epoch(rig, COLO_PRIMARY);
    rig_epoch(rig, COLO_SECONDARY);
    rig_epoch(rig, COLO_SECONDARY);     /* of the next */
    secondary(rig, ACK, 104, CLIENT, "early");
    primary(rig, ACK, 100, CLIENT, "held");
    colo_comparator_reconnected(rig->c, COLO_PRIMARY);
    ck_assert(colo_comparator_resumed(rig->c, COLO_PRIMARY, 0, rig->now));
    rig_expect_nothing(rig);            /* that is not the beginning */
    rig_checkpoint(rig);
    rig_expect(rig, ACK, 100, 4);
    rig_epoch(rig, COLO_PRIMARY);
    primary(rig, ACK, 104, CLIENT, "early");
    rig_expect(rig, ACK, 104, 5);
    expect_comparing(rig, 109);
    rig_free(rig);
}
END_TEST

/* The frame's word and the secondary's mark take different ways: the mark may win. */
START_TEST(mark_overtakes_the_word_of_the_checkpoint)
{
    Rig *rig = rig_in_the_middle(100);

    rig_epoch(rig, COLO_SECONDARY);
    rig_epoch(rig, COLO_SECONDARY);
    rig_checkpoint(rig);
    expect_comparing(rig, 100);
    /* And the next one is in step. */
    rig_checkpoint(rig);
    secondary(rig, ACK, 106, CLIENT, "old");
    primary(rig, ACK, 106, CLIENT, "new");
    rig_expect_nothing(rig);
    rig_epoch(rig, COLO_SECONDARY);
    secondary(rig, ACK, 106, CLIENT, "new");
    rig_expect(rig, ACK, 106, 3);
    rig_expect_asked(rig, 0, 0);
    rig_free(rig);
}
END_TEST

/* What the secondary sends between its mark and the word of the checkpoint is of the new epoch, and not lost. */
START_TEST(secondary_sends_before_the_word_of_the_checkpoint)
{
    Rig *rig = rig_in_the_middle(100);

    rig_epoch(rig, COLO_SECONDARY);
    primary(rig, ACK, 100, CLIENT, "old");
    rig_expect_nothing(rig);
    rig_epoch(rig, COLO_SECONDARY);
    ck_assert(!colo_comparator_may_read(rig->c, COLO_SECONDARY));
    secondary(rig, ACK, 103, CLIENT, "new");
    rig_expect_nothing(rig);
    rig_checkpoint(rig);
    rig_expect(rig, ACK, 100, 3);
    ck_assert(colo_comparator_may_read(rig->c, COLO_SECONDARY));
    ck_assert_uint_eq(rig_held(rig, COLO_SECONDARY), 1);
    primary(rig, ACK, 103, CLIENT, "new");
    rig_expect(rig, ACK, 103, 3);
    rig_expect_asked(rig, 0, 0);
    rig_free(rig);
}
END_TEST

/* Guests may resume without a checkpoint, too; marks that mean none do not count. */
START_TEST(mark_without_a_checkpoint)
{
    Rig *rig = rig_in_the_middle(100);

    for (int epoch = 0; epoch < 3; epoch++) {
        rig_epoch(rig, COLO_SECONDARY);
        rig_epoch(rig, COLO_PRIMARY);
        if (epoch) {
            ck_assert(colo_comparator_resumed(rig->c, COLO_SECONDARY, 0, rig->now));
            ck_assert(colo_comparator_resumed(rig->c, COLO_PRIMARY, 0, rig->now));
        }
        rig_checkpoint(rig);
        secondary(rig, ACK, 100 + 3 * (uint32_t)epoch, CLIENT, "old");
        primary(rig, ACK, 100 + 3 * (uint32_t)epoch, CLIENT, "old");
        rig_expect(rig, ACK, 100 + 3 * (uint32_t)epoch, 3);
        ck_assert_uint_eq(rig_held(rig, COLO_SECONDARY), 0);
        rig_expect_nothing(rig);
    }
    rig_epoch(rig, COLO_SECONDARY);
    rig_epoch(rig, COLO_PRIMARY);
    expect_comparing(rig, 109);
    rig_free(rig);
}
END_TEST

/* The primary's guest is stopped and let go on by hand while the secondary is early: that is no word of the checkpoint. */
START_TEST(primary_resumes_while_the_secondary_is_early)
{
    Rig *rig = rig_in_the_middle(100);

    rig_epoch(rig, COLO_PRIMARY);
    rig_epoch(rig, COLO_SECONDARY);
    rig_epoch(rig, COLO_SECONDARY);
    secondary(rig, ACK, 103, CLIENT, "new");
    ck_assert(colo_comparator_resumed(rig->c, COLO_PRIMARY, 0, rig->now));
    ck_assert(!colo_comparator_may_read(rig->c, COLO_SECONDARY));
    primary(rig, ACK, 100, CLIENT, "old");
    rig_expect_nothing(rig);
    rig_checkpoint(rig);
    rig_expect(rig, ACK, 100, 3);
    rig_epoch(rig, COLO_PRIMARY);
    primary(rig, ACK, 103, CLIENT, "new");
    rig_expect(rig, ACK, 103, 3);
    ck_assert(!colo_comparator_resumed(rig->c, COLO_PRIMARY, -1, rig->now));    /* it resumes after the word */
    rig_expect_asked(rig, 0, 0);
    rig_free(rig);
}
END_TEST

/* One that has missed a mark, and hears the next, is in step. */
START_TEST(primary_misses_a_mark)
{
    Rig *rig = rig_in_the_middle(100);

    rig_epoch(rig, COLO_PRIMARY);
    rig_checkpoint(rig);
    rig_checkpoint(rig);
    ck_assert(colo_comparator_resumed(rig->c, COLO_PRIMARY, 0, rig->now));
    expect_comparing(rig, 100);
    rig_free(rig);
}
END_TEST

START_TEST(switching_on_again_is_a_new_epoch)
{
    Rig *rig = rig_in_the_middle(100);

    rig_epoch(rig, COLO_SECONDARY);
    rig_checkpoint(rig);
    colo_comparator_set_comparing(rig->c, false, rig->now);
    colo_comparator_set_comparing(rig->c, true, rig->now);
    expect_comparing(rig, 100);
    rig_free(rig);
}
END_TEST

/* Counters */

START_TEST(counters)
{
    Rig *rig = rig_new();
    const ColoComparatorStats *stats = colo_comparator_stats(rig->c);
    uint32_t size = 14 + 20 + 20 + 8;

    primary(rig, ACK, 1, 1, "12345678");
    primary(rig, ACK, 9, 1, "12345678");
    ck_assert_uint_eq(stats->in[COLO_PRIMARY].packets, 2);
    ck_assert_uint_eq(stats->in[COLO_PRIMARY].bytes, 2 * size);
    ck_assert_uint_eq(stats->held[COLO_PRIMARY], 2);
    ck_assert_uint_eq(stats->held_bytes[COLO_PRIMARY], 2 * size);
    secondary(rig, ACK, 1, 1, "123456");        /* six of them leave */
    ck_assert_uint_eq(stats->held_bytes[COLO_PRIMARY], 2 * size - 6);
    ck_assert_uint_eq(stats->released.packets, 1);
    ck_assert_uint_eq(stats->released.bytes, size - 2);
    ck_assert_uint_eq(stats->discarded.packets, 1);
    secondary(rig, ACK, 7, 1, "7812345678AB");
    ck_assert_uint_eq(stats->held[COLO_PRIMARY], 0);
    ck_assert_uint_eq(stats->held_bytes[COLO_PRIMARY], 0);
    ck_assert_uint_eq(stats->held[COLO_SECONDARY], 1);
    ck_assert_uint_eq(stats->held_bytes[COLO_SECONDARY], size + 4);
    secondary(rig, ACK, 19, 1, "so much that it holds more than the primary ever did");
    ck_assert_uint_gt(stats->held_bytes[COLO_SECONDARY], 2 * size);
    ck_assert_uint_eq(stats->held_max, 2);
    ck_assert_uint_eq(stats->held_bytes_max, 2 * size);
    ck_assert_uint_eq(stats->released.packets, 3);
    rig_checkpoint(rig);
    ck_assert_uint_eq(stats->discarded.packets, 3);
    ck_assert_uint_eq(stats->checkpoints, 1);
    primary(rig, ACK, 100, 1, "1");
    ck_assert_uint_eq(stats->held_max, 2);
    ck_assert_uint_eq(stats->held_bytes_max, 2 * size);
    rig_free(rig);
}
END_TEST

/* Many flows, none of which is full. */
START_TEST(memory_is_bounded)
{
    static const uint8_t payload[60000];
    const uint64_t bound = 256 * 1024 * 1024;
    Rig *rig = rig_new();
    Frame *f = frame_udp(&plain, payload, sizeof(payload));

    for (uint16_t port = 1; colo_comparator_may_read(rig->c, COLO_PRIMARY); port++) {
        ck_assert_uint_lt(colo_comparator_memory(rig->c, COLO_PRIMARY), bound);
        put16(f->data + f->l4 + 2, port);
        colo_comparator_packet(rig->c, COLO_PRIMARY, f->data, f->size, 0, rig->now);
    }
    ck_assert_uint_ge(colo_comparator_memory(rig->c, COLO_PRIMARY),
                      rig_held(rig, COLO_PRIMARY) * (f->size + sizeof(ColoPacket)));
    ck_assert_uint_lt(colo_comparator_memory(rig->c, COLO_PRIMARY), bound + 2 * sizeof(payload));
    ck_assert(colo_comparator_may_read(rig->c, COLO_SECONDARY));
    frame_free(f);
    rig_free(rig);
}
END_TEST

/* How long packets were held */

/* So many have left while comparing, and the longest of them was held for @max ns. */
static void expect_held_times(const Rig *rig, uint64_t count, int64_t max)
{
    const ColoComparatorStats *stats = colo_comparator_stats(rig->c);

    ck_assert_uint_eq(colo_histogram_count(&stats->held_times), count);
    ck_assert_int_eq(stats->held_times.max, max);
}

START_TEST(held_times)
{
    Rig *rig = rig_new();
    int64_t most;

    secondary(rig, ACK, 1, 1, "abc");
    rig_wait(rig, 100 * MS);
    primary(rig, ACK, 1, 1, "abc");                 /* leaves at once */
    expect_held_times(rig, 1, 0);
    rig_give(rig, COLO_PRIMARY, frame_ethernet(&plain, 0x0806, "arp", 3));
    expect_held_times(rig, 2, 0);
    primary(rig, ACK, 4, 1, "def");
    rig_wait(rig, 7 * MS);
    expect_held_times(rig, 2, 0);
    secondary(rig, ACK, 4, 1, "def");
    expect_held_times(rig, 3, 7 * MS);

    /* Each from when it came itself. */
    rig_udp(rig, COLO_PRIMARY, "first");
    rig_wait(rig, 3 * MS);
    rig_udp(rig, COLO_PRIMARY, "second");
    rig_wait(rig, 8 * MS);
    rig_udp(rig, COLO_SECONDARY, "first");
    expect_held_times(rig, 4, 11 * MS);
    rig_wait(rig, 1 * MS);
    rig_udp(rig, COLO_SECONDARY, "second");
    expect_held_times(rig, 5, 11 * MS);             /* 0, 0, 7, 9 and 11 */
    ck_assert_int_eq(colo_histogram_quantile(&colo_comparator_stats(rig->c)->held_times, 0.4), 0);
    most = colo_histogram_quantile(&colo_comparator_stats(rig->c)->held_times, 0.8);
    ck_assert(most >= 9 * MS && most < 10 * MS);
    rig_free(rig);
}
END_TEST

START_TEST(held_times_of_what_is_cut)
{
    Rig *rig = rig_in_the_middle(100);

    primary(rig, ACK, 100, CLIENT, "0123456789");
    rig_wait(rig, 5 * MS);
    secondary(rig, ACK, 100, CLIENT, "012");
    rig_expect(rig, ACK, 100, 3);
    expect_held_times(rig, 2, 5 * MS);
    rig_wait(rig, 4 * MS);
    secondary(rig, ACK, 103, CLIENT, "3456789");
    expect_held_times(rig, 3, 9 * MS);

    /* Cut when it came: the front has not waited. */
    rig_wait(rig, 100 * MS);
    secondary(rig, ACK, 110, CLIENT, "ab");
    rig_wait(rig, 100 * MS);
    primary(rig, ACK, 110, CLIENT, "abcd");
    expect_held_times(rig, 4, 9 * MS);
    rig_wait(rig, 10 * MS);
    secondary(rig, ACK, 112, CLIENT, "cd");
    expect_held_times(rig, 5, 10 * MS);
    rig_free(rig);
}
END_TEST

START_TEST(held_times_of_fragments)
{
    Frame *whole = frame_udp(&plain, "sixteen bytes...", 16);
    Rig *rig = rig_new();

    for (ColoSide side = COLO_PRIMARY; side < COLO_SIDES; side++) {
        Shape front = { .ip_id = 1, .fragment = 0x2000 };
        Shape back = { .ip_id = 1, .fragment = 1 };

        rig_give(rig, side, frame_ip(&front, 17, whole->data + whole->l4, 8));
        rig_wait(rig, 4 * MS);
        rig_give(rig, side, frame_ip(&back, 17, whole->data + whole->l4 + 8, 16));
        rig_wait(rig, 6 * MS);
    }
    expect_held_times(rig, 2, 14 * MS);
    ck_assert_int_ge(colo_histogram_quantile(&colo_comparator_stats(rig->c)->held_times, 0), 10 * MS);
    ck_assert_int_lt(colo_histogram_quantile(&colo_comparator_stats(rig->c)->held_times, 0), 11 * MS);
    frame_free(whole);
    rig_free(rig);
}
END_TEST

/* A checkpoint, a mark, the end of COLO: each lets packets go at its own time, however long nothing has been heard before. */
START_TEST(held_times_up_to_the_word)
{
    Rig *rig = rig_new();

    primary(rig, ACK, 1, CLIENT, "a");
    rig->now += 50 * MS;
    rig_epoch(rig, COLO_PRIMARY);
    rig_expect(rig, ACK, 1, 1);
    expect_held_times(rig, 1, 50 * MS);
    primary(rig, ACK, 2, CLIENT, "b");
    rig_wait(rig, RIG_TIMEOUT);
    rig_expect_asked(rig, 1, COLO_REASON_TIMEOUT);
    rig->now += 200 * MS;
    rig_checkpoint(rig);
    expect_held_times(rig, 2, RIG_TIMEOUT + 200 * MS);
    primary(rig, ACK, 3, CLIENT, "of the old epoch");
    expect_held_times(rig, 3, RIG_TIMEOUT + 200 * MS);
    rig_epoch(rig, COLO_PRIMARY);
    primary(rig, ACK, 19, CLIENT, "held");
    rig->now += 4000 * MS;
    colo_comparator_set_comparing(rig->c, false, rig->now);
    expect_held_times(rig, 4, 4000 * MS);

    /* What passes straight through is nobody's business here. */
    primary(rig, ACK, 23, CLIENT, "passes");
    expect_held_times(rig, 4, 4000 * MS);
    rig_free(rig);
}
END_TEST

/* Where the last divergence was, and when; compare-tcp has more of the positions. */
START_TEST(last_divergence)
{
    static const Shape other = { .peer_port = 9 };
    Rig *rig = rig_new();
    const ColoComparatorStats *stats = colo_comparator_stats(rig->c);

    /* The rig sees that last_at is right whenever somebody asks. */
    primary(rig, SYN | ACK, 99, CLIENT, "");
    rig_wait(rig, RIG_TIMEOUT);
    ck_assert_int_eq(stats->last_at, rig->now);
    ck_assert(stats->last_offset_set);
    ck_assert_uint_eq(stats->last_offset, 0);
    rig->now += 7 * MS;
    rig_checkpoint(rig);
    ck_assert_int_eq(stats->last_at, rig->now - 7 * MS);
    primary(rig, ACK, 100, CLIENT, "0123456789");
    secondary(rig, ACK, 100, CLIENT, "0123456");
    secondary(rig, ACK, 107, CLIENT, "7X9");
    rig_expect_asked(rig, 2, COLO_REASON_PAYLOAD);
    ck_assert(stats->last_offset_set);
    ck_assert_uint_eq(stats->last_offset, 8);
    rig_checkpoint(rig);

    /* No stream. */
    rig_udp(rig, COLO_PRIMARY, "ours");
    rig_udp(rig, COLO_SECONDARY, "them");
    rig_wait(rig, 1000 * MS);
    rig_expect_asked(rig, 3, COLO_REASON_PAYLOAD);
    ck_assert(!stats->last_offset_set);
    ck_assert_uint_eq(stats->last_offset, 0);
    rig_checkpoint(rig);

    /* One whose beginning nobody has seen. */
    rig_give(rig, COLO_PRIMARY, frame_tcp(&other, 1, 1, ACK, NULL, 0, "ours", 4));
    rig_give(rig, COLO_SECONDARY, frame_tcp(&other, 1, 1, ACK, NULL, 0, "them", 4));
    rig_expect_asked(rig, 4, COLO_REASON_PAYLOAD);
    ck_assert(!stats->last_offset_set);
    ck_assert_uint_eq(stats->last_offset, 0);
    rig_checkpoint(rig);

    /* None at all. */
    primary(rig, ACK, 110, CLIENT, "0");
    rig->now += 7 * MS;
    colo_comparator_peer_lost(rig->c, rig->now);
    rig_expect_asked(rig, 5, COLO_REASON_PEER_LOST);
    ck_assert(!stats->last_offset_set);
    ck_assert_int_eq(stats->last_at, rig->now);
    ck_assert_uint_eq(stats->last_flow.proto, 0);
    rig_free(rig);
}
END_TEST

/* Anything at all from both sides, epochs and all: no harm, and the primary's datagrams come out whole. */
START_TEST(random_frames)
{
    GRand *rand = g_rand_new_with_seed(test_seed("random_frames"));

    for (int run = 0; run < 100; run++) {
        Rig *rig = rig_new_at(g_rand_int(rand), 1 + (uint32_t)g_rand_int_range(rand, 0, 30));
        uint32_t before_cuts = 0;

        for (int i = 0; i < 400; i++) {
            Shape s = { .ipv6 = g_rand_boolean(rand), .peer_port = (uint16_t)g_rand_int_range(rand, 1, 4) };
            ColoSide side = g_rand_boolean(rand) ? COLO_PRIMARY : COLO_SECONDARY;
            uint8_t *payload = bytes_of((uint32_t)g_rand_int_range(rand, 0, 3), 60);
            uint32_t len = (uint32_t)g_rand_int_range(rand, 0, 60);
            Frame *f;

            if (g_rand_boolean(rand)) {
                f = frame_tcp(&s, 0u - 50 + (uint32_t)g_rand_int_range(rand, 0, 100), g_rand_int(rand),
                              (uint8_t)g_rand_int(rand), payload, (uint32_t)g_rand_int_range(rand, 0, 10) * 4,
                              payload, len);
            } else {
                f = frame_udp(&s, payload, len);
            }
            if (g_rand_boolean(rand)) {
                f->data[g_rand_int_range(rand, 0, (gint32)f->size)] = (uint8_t)g_rand_int(rand);
            }
            if (side == COLO_PRIMARY) {
                before_cuts++;
            }
            rig_give(rig, side, f);
            g_free(payload);
            switch (g_rand_int_range(rand, 0, 60)) {
            case 0:
                rig_checkpoint(rig);
                break;
            case 1:
                colo_comparator_resumed(rig->c, COLO_PRIMARY, g_rand_int_range(rand, -1, 3), rig->now);
                break;
            case 2:
                colo_comparator_resumed(rig->c, COLO_SECONDARY, g_rand_int_range(rand, -2, 3), rig->now);
                break;
            case 3:
                rig_wait(rig, g_rand_int_range(rand, 0, 1000) * MS);
                break;
            case 4:
                colo_comparator_reconnected(rig->c, COLO_SECONDARY);
                break;
            default:
                break;
            }
        }
        rig_checkpoint(rig);
        ck_assert_uint_ge(rig->released->len, before_cuts);
        ck_assert_uint_ge(rig->size_out, rig->size_in - 60 * before_cuts);  /* padding may go when a frame is cut */
        rig_free(rig);
    }
    g_rand_free(rand);
}
END_TEST

/* Batches: what is compared in part is cut at the end of what one read brings */

static Rig *rig_with_batches(uint32_t at)
{
    Rig *rig = rig_in_the_middle(at);

    rig->batch = true;
    return rig;
}

/* "0123456789" of which "012" has been compared, not cut yet. */
static Rig *rig_to_be_cut(void)
{
    Rig *rig = rig_with_batches(100);

    primary(rig, ACK, 100, CLIENT, "0123456789");
    secondary(rig, ACK, 100, CLIENT, "012");
    rig_expect_nothing(rig);
    return rig;
}

/* The flow that was in the list may be listed, and cut, as ever. */
static void expect_cutting(Rig *rig, uint32_t at)
{
    colo_comparator_flush(rig->c);
    rig_expect_nothing(rig);
    primary(rig, ACK, at, CLIENT, "abcdef");
    secondary(rig, ACK, at, CLIENT, "abc");
    rig_expect_nothing(rig);
    colo_comparator_flush(rig->c);
    rig_expect(rig, ACK, at, 3);
    secondary(rig, ACK, at + 3, CLIENT, "def");
    rig_expect(rig, ACK, at + 3, 3);
    colo_comparator_flush(rig->c);
    rig_expect_nothing(rig);
}

START_TEST(one_cut_for_a_batch)
{
    Rig *rig = rig_with_batches(100);

    primary(rig, ACK, 100, CLIENT, "0123456789");
    for (uint32_t i = 0; i < 7; i++) {
        rig_tcp(rig, COLO_SECONDARY, ACK, 100 + i, CLIENT, "0123456789" + i, 1);
    }
    rig_expect_nothing(rig);
    colo_comparator_flush(rig->c);
    rig_expect(rig, ACK, 100, 7);
    colo_comparator_flush(rig->c);
    rig_expect_nothing(rig);
    secondary(rig, ACK, 107, CLIENT, "789");
    rig_expect(rig, ACK, 107, 3);
    expect_cutting(rig, 110);
    rig_free(rig);
}
END_TEST

/* What is compared whole before the end of the batch is not cut at all. */
START_TEST(no_cut_for_what_is_whole)
{
    Rig *rig = rig_to_be_cut();

    secondary(rig, ACK, 103, CLIENT, "3456789");
    rig_expect(rig, ACK, 100, 10);
    expect_cutting(rig, 110);
    rig_free(rig);
}
END_TEST

/* The first leaves whole, the second is the one to be cut; a third is not looked at. */
START_TEST(the_next_one_is_cut)
{
    Rig *rig = rig_to_be_cut();

    primary(rig, ACK, 110, CLIENT, "abcdef");
    primary(rig, ACK, 116, CLIENT, "ghi");
    secondary(rig, ACK, 103, CLIENT, "3456789ab");
    rig_expect(rig, ACK, 100, 10);
    rig_expect_nothing(rig);
    colo_comparator_flush(rig->c);
    rig_expect(rig, ACK, 110, 2);
    rig_expect_nothing(rig);
    secondary(rig, ACK, 112, CLIENT, "cdefghi");
    rig_expect(rig, ACK, 112, 4);
    rig_expect(rig, ACK, 116, 3);
    expect_cutting(rig, 119);
    rig_free(rig);
}
END_TEST

START_TEST(one_cut_for_each_flow)
{
    enum { FLOWS = 50 };
    Rig *rig = rig_new();

    rig->batch = true;
    for (uint16_t n = 1; n <= FLOWS; n++) {
        Shape s = { .peer_port = n };

        rig_give(rig, COLO_PRIMARY, frame_tcp(&s, n, 1, ACK, NULL, 0, "0123456789", 10));
    }
    for (uint32_t i = 0; i < 4; i++) {
        for (uint16_t n = 1; n <= FLOWS; n++) {
            Shape s = { .peer_port = n };

            rig_give(rig, COLO_SECONDARY, frame_tcp(&s, n + i, 1, ACK, NULL, 0, "0123456789" + i, 1));
        }
    }
    rig_expect_nothing(rig);
    colo_comparator_flush(rig->c);
    ck_assert_uint_eq(rig_pending(rig), FLOWS);
    while (rig_pending(rig)) {
        ck_assert_uint_eq(rig_next(rig).len, 4);
    }
    rig_free(rig);
}
END_TEST

START_TEST(checkpoint_before_the_cut)
{
    for (int with_flush = 0; with_flush < 2; with_flush++) {
        Rig *rig = rig_to_be_cut();

        rig_checkpoint(rig);
        rig_expect(rig, ACK, 100, 10);
        if (with_flush) {
            colo_comparator_flush(rig->c);
        }
        expect_cutting(rig, 110);
        rig_free(rig);
    }
}
END_TEST

START_TEST(switched_off_before_the_cut)
{
    Rig *rig = rig_to_be_cut();

    colo_comparator_set_comparing(rig->c, false, rig->now);
    rig_expect(rig, ACK, 100, 10);
    colo_comparator_flush(rig->c);
    colo_comparator_set_comparing(rig->c, true, rig->now);
    expect_cutting(rig, 110);
    rig_free(rig);
}
END_TEST

START_TEST(the_end_before_the_cut)
{
    rig_free(rig_to_be_cut());
}
END_TEST

/* Compared whole before the end of the batch, but held for its acknowledgement: there is nothing to be cut. */
START_TEST(compared_whole_behind_a_shut_gate)
{
    Rig *rig = rig_to_be_cut();

    secondary(rig, SYN, 7777, 0, "");
    secondary(rig, 0, 103, 0, "3456789");
    colo_comparator_flush(rig->c);
    rig_expect_nothing(rig);
    secondary(rig, ACK, 110, CLIENT, "");
    rig_expect(rig, ACK, 100, 10);
    expect_cutting(rig, 110);
    rig_free(rig);
}
END_TEST

/* The secondary begins anew: the acknowledgement that the front waits for is not its any more. */
START_TEST(gate_shut_before_the_cut)
{
    Rig *rig = rig_to_be_cut();

    secondary(rig, SYN, 7777, 0, "");
    colo_comparator_flush(rig->c);
    rig_expect_nothing(rig);
    secondary(rig, ACK, 103, CLIENT, "3");
    colo_comparator_flush(rig->c);
    rig_expect(rig, ACK, 100, 4);
    secondary(rig, ACK, 104, CLIENT, "456789");
    rig_expect(rig, ACK, 104, 6);
    expect_cutting(rig, 110);
    rig_free(rig);
}
END_TEST

/* The secondary resets what is to be cut: the reset says nothing about what was the same. */
START_TEST(reset_before_the_cut)
{
    Rig *rig = rig_to_be_cut();

    secondary(rig, RST, 103, 0, "");
    colo_comparator_flush(rig->c);
    rig_expect(rig, ACK, 100, 3);
    rig_expect_nothing(rig);
    rig_expect_asked(rig, 1, COLO_REASON_SECONDARY_RESET);
    rig_checkpoint(rig);
    rig_expect(rig, ACK, 103, 7);
    expect_cutting(rig, 110);
    rig_free(rig);
}
END_TEST

/* Whoever is to be cut does not go by age, however long the end of the batch takes. */
START_TEST(age_before_the_cut)
{
    static const Shape other = { .peer_port = 7 };
    Rig *rig = rig_to_be_cut();

    rig->now += 100 * 3600 * 1000 * MS;
    for (int i = 0; i < 10; i++) {
        rig_give(rig, COLO_SECONDARY, frame_tcp(&other, 1, 1, ACK, NULL, 0, NULL, 0));
    }
    colo_comparator_flush(rig->c);
    rig_expect(rig, ACK, 100, 3);
    rig_free(rig);

    /* Nor is it forgotten when nothing of it is held any more. */
    rig = rig_to_be_cut();
    secondary(rig, ACK, 103, CLIENT, "3456789");
    rig_expect(rig, ACK, 100, 10);
    rig->now += 100 * 3600 * 1000 * MS;
    for (int i = 0; i < 10; i++) {
        rig_give(rig, COLO_SECONDARY, frame_tcp(&other, 1, 1, ACK, NULL, 0, NULL, 0));
    }
    ck_assert_uint_eq(colo_comparator_flows(rig->c), 2);
    colo_comparator_flush(rig->c);
    rig_expect_nothing(rig);
    rig_free(rig);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("comparator");
    TCase *tc = tcase_create("life");

    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, off_at_first);
    tcase_add_test(tc, switching_off_releases);
    tcase_add_test(tc, the_end_releases);
    tcase_add_test(tc, local_frames);
    tcase_add_test(tc, runts);
    tcase_add_test(tc, released_as_it_came);
    tcase_add_test(tc, one_question_per_epoch);
    tcase_add_test(tc, deadline_is_exact);
    tcase_add_test(tc, deadline_of_the_others);
    tcase_add_test(tc, timeout_changed);
    tcase_add_test(tc, peer_lost);
    tcase_add_test(tc, peer_lost_until_reconnected);
    tcase_add_test(tc, peer_lost_before_the_beginning);
    tcase_add_test(tc, has_asked);
    tcase_add_test(tc, asks_when_it_is_quiet);
    tcase_add_test(tc, asks_though_it_is_never_quiet);
    tcase_add_test(tc, asks_in_time);
    tcase_add_test(tc, asks_no_more_than_needed);
    tcase_add_test(tc, numbered_epochs);
    tcase_add_test(tc, holding);
    tcase_add_test(tc, primary_goes_on);
    tcase_add_test(tc, reason_names);
    tcase_add_test(tc, counters);
    tcase_add_test(tc, last_divergence);
    suite_add_tcase(suite, tc);

    tc = tcase_create("held");
    tcase_add_test(tc, held_times);
    tcase_add_test(tc, memory_is_bounded);
    tcase_add_test(tc, held_times_of_what_is_cut);
    tcase_add_test(tc, held_times_of_fragments);
    tcase_add_test(tc, held_times_up_to_the_word);
    suite_add_tcase(suite, tc);

    tc = tcase_create("load");
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, primary_ahead_waits);
    tcase_add_test(tc, secondary_ahead_waits);
    tcase_add_test(tc, both_wait);
    tcase_add_test(tc, bytes_are_bounded);
    tcase_add_test(tc, twenty_thousand_flows);
    tcase_add_test(tc, flows_age);
    tcase_add_test(tc, what_is_no_connection_goes_soon);
    tcase_add_test(tc, late_segments_are_bounded);
    tcase_add_test(tc, random_frames);
    suite_add_tcase(suite, tc);

    tc = tcase_create("batches");
    tcase_add_test(tc, one_cut_for_a_batch);
    tcase_add_test(tc, no_cut_for_what_is_whole);
    tcase_add_test(tc, the_next_one_is_cut);
    tcase_add_test(tc, one_cut_for_each_flow);
    tcase_add_test(tc, checkpoint_before_the_cut);
    tcase_add_test(tc, switched_off_before_the_cut);
    tcase_add_test(tc, the_end_before_the_cut);
    tcase_add_test(tc, compared_whole_behind_a_shut_gate);
    tcase_add_test(tc, gate_shut_before_the_cut);
    tcase_add_test(tc, reset_before_the_cut);
    tcase_add_test(tc, age_before_the_cut);
    suite_add_tcase(suite, tc);

    tc = tcase_create("epochs");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, checkpoint_releases_and_forgets);
    tcase_add_test(tc, secondary_state_does_not_survive);
    tcase_add_test(tc, checkpoint_in_a_handshake);
    tcase_add_test(tc, checkpoint_after_port_reuse);
    tcase_add_test(tc, old_secondary_output_is_dropped);
    tcase_add_test(tc, old_primary_output_is_released);
    tcase_add_test(tc, secondary_is_first_in_the_new_epoch);
    tcase_add_test(tc, secondary_opens_first_in_the_new_epoch);
    tcase_add_test(tc, secondary_repeats_first_in_the_new_epoch);
    tcase_add_test(tc, secondary_resets_first_in_the_new_epoch);
    tcase_add_test(tc, marks_are_counted);
    tcase_add_test(tc, without_marks_a_checkpoint_is_the_border);
    tcase_add_test(tc, reconnected_without_marks);
    tcase_add_test(tc, primary_reconnected);
    tcase_add_test(tc, mark_overtakes_the_word_of_the_checkpoint);
    tcase_add_test(tc, mark_without_a_checkpoint);
    tcase_add_test(tc, primary_resumes_while_the_secondary_is_early);
    tcase_add_test(tc, primary_misses_a_mark);
    tcase_add_test(tc, secondary_sends_before_the_word_of_the_checkpoint);
    tcase_add_test(tc, switching_on_again_is_a_new_epoch);
    suite_add_tcase(suite, tc);
    return run_suite(suite);
}
