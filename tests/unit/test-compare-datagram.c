/*
 * Tests of compare-datagram.c
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "rig.h"

#include <string.h>

#define GRACE (20 * MS)

static void expect_text(Rig *rig, const char *text)
{
    Seen seen = rig_next(rig);

    ck_assert_msg(seen.len == strlen(text) && !memcmp(seen.payload, text, seen.len),
                  "released \"%.*s\", expected \"%s\"", (int)seen.len, seen.payload, text);
}

START_TEST(either_side_first)
{
    Rig *rig = rig_new();

    rig_udp(rig, COLO_PRIMARY, "one");
    rig_expect_nothing(rig);
    rig_udp(rig, COLO_SECONDARY, "one");
    expect_text(rig, "one");
    rig_udp(rig, COLO_SECONDARY, "two");
    rig_expect_nothing(rig);
    rig_udp(rig, COLO_PRIMARY, "two");
    expect_text(rig, "two");
    rig_end_well(rig);
}
END_TEST

START_TEST(empty_datagrams)
{
    Rig *rig = rig_new();

    rig_udp(rig, COLO_PRIMARY, "");
    rig_expect_nothing(rig);
    rig_udp(rig, COLO_SECONDARY, "");
    expect_text(rig, "");
    rig_end_well(rig);
}
END_TEST

START_TEST(echo)
{
    for (int ipv6 = 0; ipv6 < 2; ipv6++) {
        Shape s = { .ipv6 = ipv6 };
        Rig *rig = rig_new();

        rig_give(rig, COLO_PRIMARY, frame_echo(&s, 1, 1, "ping", 4));
        rig_give(rig, COLO_PRIMARY, frame_echo(&s, 1, 2, "ping", 4));
        rig_give(rig, COLO_SECONDARY, frame_echo(&s, 1, 1, "ping", 4));
        ck_assert_uint_eq(rig_pending(rig), 1);
        rig_give(rig, COLO_SECONDARY, frame_echo(&s, 1, 2, "ping", 4));
        ck_assert_uint_eq(rig_pending(rig), 2);
        rig_expect_asked(rig, 0, 0);
        rig_free(rig);
    }
}
END_TEST

START_TEST(what_is_not_compared)
{
    static const Shape pairs[][2] = {
        { { .pad_to = 60, .padding = 0x00 }, { .pad_to = 60, .padding = 0xff } },
        { { .pad_to = 60, .padding = 0xaa }, { 0 } },
        { { .ip_id = 1, .ttl = 64, .tos = 0 }, { .ip_id = 2, .ttl = 63, .tos = 8 } },
        { { 0 }, { .ip_options = 8 } },
        { { .vnet_len = 12, .needs_csum = true }, { .vnet_len = 12 } },
        { { .vnet_len = 12, .gso_type = 3, .gso_size = 2, .needs_csum = true }, { .vnet_len = 12 } },
        { { .ipv6 = true }, { .ipv6 = true, .extensions = 8, .ttl = 3 } },
    };

    for (guint i = 0; i < G_N_ELEMENTS(pairs); i++) {
        for (int order = 0; order < 2; order++) {
            Rig *rig = rig_new();

            rig_give(rig, order, frame_udp(&pairs[i][order], "abc", 3));
            rig_give(rig, !order, frame_udp(&pairs[i][!order], "abc", 3));
            expect_text(rig, "abc");
            rig_end_well(rig);
        }
    }
}
END_TEST

START_TEST(prefix_is_not_the_same)
{
    Rig *rig = rig_new();

    rig_udp(rig, COLO_PRIMARY, "abc");
    rig_udp(rig, COLO_SECONDARY, "abcd");
    rig_udp(rig, COLO_SECONDARY, "ab");
    rig_udp(rig, COLO_SECONDARY, "abd");
    rig_expect_nothing(rig);
    rig_free(rig);
}
END_TEST

/* A receiver is given as much as the header's length field says, whatever else the datagram carries. */
START_TEST(udp_length)
{
    static const Shape v4 = { 0 }, v6 = { .ipv6 = true };
    static const Shape *const shapes[] = { &v4, &v6 };

    for (guint i = 0; i < G_N_ELEMENTS(shapes); i++) {
        Rig *rig = rig_new();
        Frame *shorter = frame_udp(shapes[i], "abcdef", 6);

        put16(shorter->data + shorter->l4 + 4, 8 + 3);
        rig_give(rig, COLO_PRIMARY, shorter);
        rig_give(rig, COLO_SECONDARY, frame_udp(shapes[i], "abcdef", 6));
        rig_expect_nothing(rig);
        rig_wait(rig, GRACE);
        rig_expect_asked(rig, 1, COLO_REASON_PAYLOAD);
        rig_free(rig);
    }
}
END_TEST

START_TEST(flows_do_not_mix)
{
    static const Shape shapes[] = {
        { 0 }, { .peer_port = 1 }, { .guest_port = 1 }, { .peer_host = 9 }, { .guest_host = 9 }, { .ipv6 = true },
        { .vlans = 1, .vlan = { 5 } }, { .vlans = 1, .vlan = { 6 } },
    };
    Rig *rig = rig_new();

    for (guint i = 0; i < G_N_ELEMENTS(shapes); i++) {
        rig_give(rig, COLO_PRIMARY, frame_udp(&shapes[i], "abc", 3));
    }
    for (guint i = G_N_ELEMENTS(shapes); i > 0; i--) {
        rig_expect_nothing(rig);
        rig_give(rig, COLO_SECONDARY, frame_udp(&shapes[i - 1], "abc", 3));
        expect_text(rig, "abc");
    }
    rig_end_well(rig);
}
END_TEST

/* Each of the secondary's stands for one of the primary's. */
START_TEST(duplicates_count)
{
    Rig *rig = rig_new();

    rig_udp(rig, COLO_PRIMARY, "again");
    rig_udp(rig, COLO_PRIMARY, "again");
    rig_udp(rig, COLO_SECONDARY, "again");
    expect_text(rig, "again");
    rig_expect_nothing(rig);
    rig_udp(rig, COLO_SECONDARY, "again");
    expect_text(rig, "again");
    rig_udp(rig, COLO_SECONDARY, "more");
    rig_udp(rig, COLO_SECONDARY, "more");
    rig_udp(rig, COLO_PRIMARY, "more");
    expect_text(rig, "more");
    ck_assert_uint_eq(rig_held(rig, COLO_SECONDARY), 1);
    rig_udp(rig, COLO_PRIMARY, "more");
    expect_text(rig, "more");
    rig_end_well(rig);
}
END_TEST

/* Also behind one that is late: what has been matched already is no match for the next. */
START_TEST(duplicates_behind_a_late_one)
{
    Rig *rig = rig_new();

    rig_udp(rig, COLO_PRIMARY, "late");
    rig_udp(rig, COLO_PRIMARY, "again");
    rig_udp(rig, COLO_SECONDARY, "again");
    rig_udp(rig, COLO_SECONDARY, "again");
    rig_udp(rig, COLO_PRIMARY, "again");
    rig_expect_nothing(rig);
    rig_udp(rig, COLO_SECONDARY, "late");
    expect_text(rig, "late");
    expect_text(rig, "again");
    expect_text(rig, "again");
    rig_end_well(rig);
}
END_TEST

START_TEST(swapped)
{
    for (int first = 0; first < 2; first++) {
        Rig *rig = rig_new();

        rig_udp(rig, first, "A");
        rig_udp(rig, first, "B");
        rig_udp(rig, !first, "B");
        if (first == COLO_PRIMARY) {
            rig_expect_nothing(rig);        /* B must not overtake A */
        } else {
            expect_text(rig, "B");
        }
        rig_wait(rig, GRACE / 2);
        rig_udp(rig, !first, "A");
        expect_text(rig, "A");
        if (first == COLO_PRIMARY) {
            expect_text(rig, "B");
        }
        rig_wait(rig, 2 * RIG_TIMEOUT);
        rig_end_well(rig);
    }
}
END_TEST

/* All orders of four datagrams on the secondary, before, between and behind the primary's. */
START_TEST(every_order_of_four)
{
    static const char *const text[] = { "A", "B", "C", "D" };

    for (int order = 0; order < 256; order++) {
        int pick[4] = { order & 3, order >> 2 & 3, order >> 4 & 3, order >> 6 & 3 };

        if ((1 << pick[0] | 1 << pick[1] | 1 << pick[2] | 1 << pick[3]) != 15) {
            continue;
        }
        for (int mix = 0; mix < 256; mix++) {
            int given = 0, released = 0, got = 0;
            bool seen[4] = { false };
            Rig *rig;

            if (__builtin_popcount((unsigned int)mix) != 4) {
                continue;
            }
            rig = rig_new();
            for (int step = 0; step < 8; step++) {
                if (mix >> step & 1) {
                    rig_udp(rig, COLO_PRIMARY, text[given++]);
                } else {
                    seen[pick[got]] = true;
                    rig_udp(rig, COLO_SECONDARY, text[pick[got++]]);
                }
                while (released < given && seen[released]) {
                    expect_text(rig, text[released++]);
                }
                rig_expect_nothing(rig);
            }
            ck_assert_int_eq(released, 4);
            rig_end_well(rig);
        }
    }
}
END_TEST

START_TEST(different)
{
    for (int first = 0; first < 2; first++) {
        Rig *rig = rig_new();

        rig_udp(rig, first, first == COLO_PRIMARY ? "ours" : "theirs");
        rig_wait(rig, 5 * MS);
        rig_udp(rig, !first, first == COLO_PRIMARY ? "theirs" : "ours");
        ck_assert(colo_comparator_deadline(rig->c) == rig->now + GRACE);
        rig_wait(rig, GRACE - 1);
        rig_expect_asked(rig, 0, 0);
        rig_wait(rig, 1);
        rig_expect_asked(rig, 1, COLO_REASON_PAYLOAD);
        rig_expect_nothing(rig);
        rig_checkpoint(rig);
        expect_text(rig, "ours");
        rig_expect_nothing(rig);
        rig_free(rig);
    }
}
END_TEST

/* A datagram that is late by less than the grace makes no difference, whatever came meanwhile. */
START_TEST(late)
{
    Rig *rig = rig_new();

    for (int i = 0; i < 20; i++) {
        rig_udp(rig, COLO_PRIMARY, "late");
        rig_udp(rig, COLO_SECONDARY, "early");
        rig_wait(rig, GRACE - 1);
        rig_udp(rig, COLO_SECONDARY, "late");
        expect_text(rig, "late");
        rig_udp(rig, COLO_PRIMARY, "early");
        expect_text(rig, "early");
    }
    rig_end_well(rig);
}
END_TEST

/* The secondary is only slow: it has not sent anything else. */
START_TEST(slow_secondary_has_the_whole_timeout)
{
    Rig *rig = rig_new();

    rig_udp(rig, COLO_PRIMARY, "slow");
    rig_wait(rig, RIG_TIMEOUT - 1);
    rig_expect_asked(rig, 0, 0);
    rig_udp(rig, COLO_SECONDARY, "slow");
    expect_text(rig, "slow");
    rig_udp(rig, COLO_PRIMARY, "lost");
    rig_wait(rig, RIG_TIMEOUT - 1);
    rig_expect_asked(rig, 0, 0);
    rig_wait(rig, 1);
    rig_expect_asked(rig, 1, COLO_REASON_TIMEOUT);
    rig_free(rig);
}
END_TEST

/* What made the two look different has found its like: only slowness is left. */
START_TEST(suspicion_goes_with_its_ground)
{
    Rig *rig = rig_new();

    rig_udp(rig, COLO_PRIMARY, "slow");
    rig_udp(rig, COLO_SECONDARY, "next");       /* sent another way round */
    rig_udp(rig, COLO_PRIMARY, "next");
    rig_wait(rig, 2 * GRACE);
    rig_expect_asked(rig, 0, 0);
    rig_udp(rig, COLO_SECONDARY, "slow");
    expect_text(rig, "slow");
    expect_text(rig, "next");
    rig_end_well(rig);
}
END_TEST

/* And comes back, with a whole grace, if there is ground anew. */
START_TEST(suspicion_comes_back)
{
    Rig *rig = rig_new();

    rig_udp(rig, COLO_PRIMARY, "slow");
    rig_udp(rig, COLO_SECONDARY, "next");
    rig_udp(rig, COLO_PRIMARY, "next");
    rig_wait(rig, 2 * GRACE);
    rig_udp(rig, COLO_SECONDARY, "something else");
    rig_wait(rig, GRACE - 1);
    rig_expect_asked(rig, 0, 0);
    rig_wait(rig, 1);
    rig_expect_asked(rig, 1, COLO_REASON_PAYLOAD);
    rig_free(rig);
}
END_TEST

START_TEST(two_suspects)
{
    static const Shape other = { .peer_port = 9 };
    Rig *rig = rig_new();

    rig_udp(rig, COLO_PRIMARY, "ours");
    rig_udp(rig, COLO_SECONDARY, "theirs");
    rig_wait(rig, GRACE / 2);
    rig_give(rig, COLO_PRIMARY, frame_udp(&other, "ours", 4));
    rig_give(rig, COLO_SECONDARY, frame_udp(&other, "theirs", 6));
    rig_wait(rig, GRACE / 4);
    rig_udp(rig, COLO_SECONDARY, "ours");       /* the first is cleared of it */
    rig_wait(rig, GRACE / 2);
    rig_expect_asked(rig, 0, 0);
    rig_wait(rig, GRACE / 4);
    rig_expect_asked(rig, 1, COLO_REASON_PAYLOAD);
    ck_assert_uint_eq(rig->flow.peer_port, 9);
    rig_free(rig);
}
END_TEST

/* The next grace to end is not always that of the oldest. */
START_TEST(graces_in_another_order)
{
    static const Shape shapes[] = { { .peer_port = 1 }, { .peer_port = 2 }, { .peer_port = 3 } };

    for (int backwards = 0; backwards < 2; backwards++) {
        Rig *rig = rig_new();

        for (int i = 0; i < 3; i++) {
            rig_give(rig, COLO_PRIMARY, frame_udp(&shapes[i], "ours", 4));
        }
        for (int i = 0; i < 3; i++) {
            rig_wait(rig, 2 * MS);
            rig_give(rig, COLO_SECONDARY, frame_udp(&shapes[backwards ? 2 - i : i], "theirs", 6));
        }
        /* The first to be suspected is cleared of it. */
        rig_give(rig, COLO_SECONDARY, frame_udp(&shapes[backwards ? 2 : 0], "ours", 4));
        rig_wait(rig, GRACE - 2 * MS - 1);
        rig_expect_asked(rig, 0, 0);
        rig_wait(rig, 1);
        rig_expect_asked(rig, 1, COLO_REASON_PAYLOAD);
        ck_assert_uint_eq(rig->flow.peer_port, 2);
        rig_free(rig);
    }
}
END_TEST

/* A later one does not put off the first. */
START_TEST(first_suspect_counts)
{
    static const Shape other = { .peer_port = 9 };
    Rig *rig = rig_new();

    rig_udp(rig, COLO_PRIMARY, "ours");
    rig_udp(rig, COLO_SECONDARY, "theirs");
    rig_wait(rig, GRACE / 2);
    rig_give(rig, COLO_PRIMARY, frame_udp(&other, "ours", 4));
    rig_give(rig, COLO_SECONDARY, frame_udp(&other, "theirs", 6));
    rig_wait(rig, GRACE / 2 - 1);
    rig_expect_asked(rig, 0, 0);
    rig_wait(rig, 1);
    rig_expect_asked(rig, 1, COLO_REASON_PAYLOAD);
    ck_assert_uint_eq(rig->flow.peer_port, 4711);
    rig_free(rig);
}
END_TEST

/* No client has seen what the secondary alone has sent. */
START_TEST(secondary_alone)
{
    Rig *rig = rig_new();

    rig_udp(rig, COLO_SECONDARY, "alone");
    rig_wait(rig, 10 * RIG_TIMEOUT);
    rig_end_well(rig);
}
END_TEST

/* Its queue is emptied by time: the secondary may not be made to wait for ever by what nobody asks for. */
START_TEST(secondary_alone_is_read_on)
{
    Rig *rig = rig_new_at(RIG_TIMEOUT, 4);

    for (int i = 0; i < 4; i++) {
        rig_udp(rig, COLO_SECONDARY, "alone");
    }
    ck_assert(!colo_comparator_may_read(rig->c, COLO_SECONDARY));
    /* Only ticks that the comparator has asked for. */
    while (colo_comparator_deadline(rig->c) != INT64_MAX && rig->now < 100 * RIG_TIMEOUT) {
        rig->now = colo_comparator_deadline(rig->c);
        colo_comparator_tick(rig->c, rig->now);
    }
    ck_assert(colo_comparator_may_read(rig->c, COLO_SECONDARY));
    ck_assert_int_le(rig->now, 3 * RIG_TIMEOUT);
    rig_end_well(rig);
}
END_TEST

/* The same with a segment of a connection that the secondary is ahead in, older than the datagrams. */
START_TEST(secondary_alone_behind_a_segment)
{
    Rig *rig = rig_new_at(RIG_TIMEOUT, 4);

    rig_tcp(rig, COLO_SECONDARY, ACK, 1, 1, "ahead", 5);
    for (int i = 0; i < 4; i++) {
        rig_udp(rig, COLO_SECONDARY, "alone");
    }
    ck_assert(!colo_comparator_may_read(rig->c, COLO_SECONDARY));
    while (colo_comparator_deadline(rig->c) != INT64_MAX && rig->now < 100 * RIG_TIMEOUT) {
        rig->now = colo_comparator_deadline(rig->c);
        colo_comparator_tick(rig->c, rig->now);
    }
    ck_assert(colo_comparator_may_read(rig->c, COLO_SECONDARY));
    rig_free(rig);
}
END_TEST

/* Left-overs of the secondary's do not spoil what comes later. */
START_TEST(left_over_of_the_secondary)
{
    Rig *rig = rig_new();

    rig_udp(rig, COLO_SECONDARY, "left over");
    rig_udp(rig, COLO_PRIMARY, "same");
    rig_udp(rig, COLO_SECONDARY, "same");
    expect_text(rig, "same");
    rig_udp(rig, COLO_SECONDARY, "same again");
    rig_udp(rig, COLO_PRIMARY, "same again");
    expect_text(rig, "same again");
    rig_wait(rig, 2 * RIG_TIMEOUT);
    rig_end_well(rig);
}
END_TEST

/* A clock may begin at any number, 0 among them. */
START_TEST(time_zero)
{
    static const int64_t starts[] = { 0, -1, -GRACE, -RIG_TIMEOUT, -RIG_TIMEOUT + 1, INT64_MIN / 2 };

    for (guint i = 0; i < G_N_ELEMENTS(starts); i++) {
        Rig *rig = rig_new_at(starts[i], 100);

        rig_udp(rig, COLO_PRIMARY, "ours");
        rig_udp(rig, COLO_SECONDARY, "theirs");
        rig_wait(rig, GRACE - 1);
        rig_expect_asked(rig, 0, 0);
        rig_wait(rig, 1);
        rig_expect_asked(rig, 1, COLO_REASON_PAYLOAD);
        rig_free(rig);

        rig = rig_new_at(starts[i], 100);
        rig_udp(rig, COLO_PRIMARY, "ours");
        rig_wait(rig, RIG_TIMEOUT - 1);
        rig_expect_asked(rig, 0, 0);
        rig_wait(rig, 1);
        rig_expect_asked(rig, 1, COLO_REASON_TIMEOUT);
        rig_free(rig);
    }
}
END_TEST

/* What ought to be IP and is not, or lies under more tags than anyone uses, is compared as it stands. */

static Frame *malformed(int kind, const char *text)
{
    static const Shape plain, tags = { .vlans = 2, .vlan = { 1, 2 } };
    uint8_t body[60] = { 0 };
    uint32_t len = sizeof(body);
    uint16_t type = 0x0800;

    memcpy(body + 40, text, strlen(text));
    body[0] = 0x45;
    put16(body + 2, sizeof(body));
    body[9] = 17;
    switch (kind) {
    case 0:     /* another version */
        body[0] = 0x65;
        break;
    case 1:     /* a header shorter than any */
        body[0] = 0x44;
        break;
    case 2:     /* a header longer than the frame */
        body[0] = 0x4f;
        len = 48;
        break;
    case 3:     /* a datagram shorter than its header */
        put16(body + 2, 19);
        break;
    case 4:     /* IPv4 where IPv6 should be */
        type = 0x86dd;
        break;
    case 5:     /* half a header; the text is in it */
        len = 12;
        memcpy(body + 4, text, strlen(text));
        break;
    default:    /* five tags, the last three of them in the body */
        memmove(body + 12, body, sizeof(body) - 12);
        memcpy(body, "\0\3\x81\0" "\0\4\x81\0" "\0\5\x08\0", 12);
        return frame_ethernet(&tags, 0x8100, body, len);
    }
    return frame_ethernet(&plain, type, body, len);
}

enum {
    MALFORMED = 7,
};

START_TEST(malformed_is_compared)
{
    for (int kind = 0; kind < MALFORMED; kind++) {
        Rig *rig = rig_new();

        rig_give(rig, COLO_PRIMARY, malformed(kind, "one"));
        ck_assert_uint_eq(rig_held(rig, COLO_PRIMARY), 1);
        rig_give(rig, COLO_SECONDARY, malformed(kind, "one"));
        ck_assert_uint_eq(rig_pending(rig), 1);
        rig_give(rig, COLO_SECONDARY, malformed(kind, "two"));
        rig_give(rig, COLO_PRIMARY, malformed(kind, "two"));
        ck_assert_uint_eq(rig_pending(rig), 2);
        rig_expect_asked(rig, 0, 0);

        rig_give(rig, COLO_PRIMARY, malformed(kind, "ours"));
        rig_give(rig, COLO_SECONDARY, malformed(kind, "them"));
        ck_assert_uint_eq(rig_pending(rig), 2);
        rig_wait(rig, GRACE);
        rig_expect_asked(rig, 1, COLO_REASON_PAYLOAD);
        rig_checkpoint(rig);
        ck_assert_uint_eq(rig_pending(rig), 3);
        ck_assert_uint_eq(rig->size_out, rig->size_in);
        rig_free(rig);
    }
}
END_TEST

/* One kind does not stand for another. */
START_TEST(malformed_do_not_mix)
{
    Rig *rig = rig_new();

    for (int kind = 0; kind < MALFORMED; kind++) {
        rig_give(rig, COLO_PRIMARY, malformed(kind, "one"));
        for (int other = 0; other < MALFORMED; other++) {
            if (other != kind) {
                rig_give(rig, COLO_SECONDARY, malformed(other, "one"));
                ck_assert_uint_eq(rig_pending(rig), 0);
            }
        }
        rig_wait(rig, RIG_TIMEOUT);
        rig_checkpoint(rig);
        while (rig_pending(rig)) {
            rig_next_raw(rig);
        }
    }
    rig_free(rig);
}
END_TEST

/* A segment with an impossible header is no part of the stream, but not nothing. */
START_TEST(malformed_segments)
{
    static const Shape plain;

    for (int same = 0; same < 2; same++) {
        Rig *rig = rig_new();

        for (int side = 0; side < COLO_SIDES; side++) {
            Frame *f = frame_tcp(&plain, 1, 1, ACK, NULL, 0, "abc", 3);

            f->data[f->l4 + 12] = same || side ? 0x40 : 0xf0;   /* data offset */
            rig_give(rig, side, f);
        }
        ck_assert_uint_eq(rig_pending(rig), same);
        rig_wait(rig, GRACE);
        rig_expect_asked(rig, !same, COLO_REASON_PAYLOAD);
        rig_free(rig);
    }
}
END_TEST

/* Random traffic: nothing lost, nothing twice, nothing out of order, nothing that the secondary has not sent. */
START_TEST(random_datagrams)
{
    GRand *rand = g_rand_new_with_seed(test_seed("random_datagrams"));

    for (int run = 0; run < 300; run++) {
        Rig *rig = rig_new();
        int kinds = g_rand_int_range(rand, 1, 6);
        char sent[300];
        int n = 0, got = 0, theirs[6] = { 0 }, left[6] = { 0 };
        bool honest = true;

        for (int i = 0; i < 300; i++) {
            char text[2] = { (char)('0' + g_rand_int_range(rand, 0, kinds)), 0 };

            if (g_rand_boolean(rand)) {
                sent[n++] = text[0];
                rig_udp(rig, COLO_PRIMARY, text);
            } else {
                theirs[text[0] - '0']++;
                rig_udp(rig, COLO_SECONDARY, text);
            }
            if (g_rand_int_range(rand, 0, 50) == 0) {
                rig_checkpoint(rig);
                honest = false;     /* from here on anything may have left */
            }
            while (rig_pending(rig)) {
                Seen seen = rig_next(rig);

                ck_assert_int_lt(got, n);
                ck_assert_int_eq(seen.payload[0], sent[got++]);
                left[seen.payload[0] - '0']++;
                ck_assert(!honest || left[seen.payload[0] - '0'] <= theirs[seen.payload[0] - '0']);
            }
        }
        rig_checkpoint(rig);
        ck_assert_uint_eq(rig_pending(rig), n - got);
        while (rig_pending(rig)) {
            ck_assert_int_eq(rig_next(rig).payload[0], sent[got++]);
        }
        rig_free(rig);
    }
    g_rand_free(rand);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("compare-datagram");
    TCase *tc = tcase_create("compare-datagram");

    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, either_side_first);
    tcase_add_test(tc, empty_datagrams);
    tcase_add_test(tc, echo);
    tcase_add_test(tc, what_is_not_compared);
    tcase_add_test(tc, prefix_is_not_the_same);
    tcase_add_test(tc, udp_length);
    tcase_add_test(tc, flows_do_not_mix);
    tcase_add_test(tc, duplicates_count);
    tcase_add_test(tc, duplicates_behind_a_late_one);
    tcase_add_test(tc, swapped);
    tcase_add_test(tc, every_order_of_four);
    tcase_add_test(tc, different);
    tcase_add_test(tc, late);
    tcase_add_test(tc, slow_secondary_has_the_whole_timeout);
    tcase_add_test(tc, suspicion_goes_with_its_ground);
    tcase_add_test(tc, suspicion_comes_back);
    tcase_add_test(tc, two_suspects);
    tcase_add_test(tc, graces_in_another_order);
    tcase_add_test(tc, first_suspect_counts);
    tcase_add_test(tc, secondary_alone);
    tcase_add_test(tc, secondary_alone_is_read_on);
    tcase_add_test(tc, secondary_alone_behind_a_segment);
    tcase_add_test(tc, left_over_of_the_secondary);
    tcase_add_test(tc, time_zero);
    tcase_add_test(tc, malformed_is_compared);
    tcase_add_test(tc, malformed_do_not_mix);
    tcase_add_test(tc, malformed_segments);
    tcase_add_test(tc, random_datagrams);
    suite_add_tcase(suite, tc);
    return run_suite(suite);
}
