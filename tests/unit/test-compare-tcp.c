/*
 * Tests of compare-tcp.c
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "rig.h"

#include <string.h>

#define CLIENT 5000u            /* what both sides acknowledge after the handshake */
#define SIGNED "\x13\x12" "a signature.....\1\1"      /* options of a signed segment (RFC 2385), 20 bytes */

static const Shape plain;

/* Positions of the first byte after the SYN, for tests that cross the wrap at every point. */
static const uint32_t bases[] = { 1, 1000, 0x7ffffffd, 0x80000000, 0xfffffff0, 0xfffffffd, UINT32_MAX, 0 };

/* A connection whose first byte has position @base: a SYN-ACK from each side. */
static void open_at(Rig *rig, uint32_t base)
{
    primary(rig, SYN | ACK, base - 1, CLIENT, "");
    secondary(rig, SYN | ACK, base ^ 0x13572468, CLIENT, "");
    rig_expect(rig, SYN | ACK, base - 1, 0);
    rig_expect_nothing(rig);
    ck_assert_uint_eq(rig_held(rig, COLO_PRIMARY), 0);
}

static Rig *rig_open(uint32_t base)
{
    Rig *rig = rig_new();

    open_at(rig, base);
    return rig;
}

/* Data */

START_TEST(either_side_first)
{
    for (guint b = 0; b < G_N_ELEMENTS(bases); b++) {
        uint32_t at = bases[b];
        Rig *rig = rig_open(at);

        primary(rig, ACK, at, CLIENT, "hello ");
        rig_expect_nothing(rig);
        secondary(rig, ACK, at, CLIENT, "hello ");
        rig_expect(rig, ACK, at, 6);
        secondary(rig, ACK | PSH, at + 6, CLIENT, "world");
        rig_expect_nothing(rig);
        primary(rig, ACK | PSH, at + 6, CLIENT, "world");
        rig_expect(rig, ACK | PSH, at + 6, 5);
        rig_end_well(rig);
    }
}
END_TEST

START_TEST(primary_far_ahead)
{
    for (guint b = 0; b < G_N_ELEMENTS(bases); b++) {
        uint32_t at = bases[b];
        Rig *rig = rig_open(at);

        for (uint32_t i = 0; i < 100; i++) {
            primary(rig, ACK, at + 4 * i, CLIENT, "abcd");
        }
        rig_expect_nothing(rig);
        for (uint32_t i = 0; i < 100; i++) {
            secondary(rig, ACK, at + 4 * i, CLIENT, "abcd");
            rig_expect(rig, ACK, at + 4 * i, 4);
            rig_expect_nothing(rig);
        }
        rig_end_well(rig);
    }
}
END_TEST

START_TEST(secondary_far_ahead)
{
    for (guint b = 0; b < G_N_ELEMENTS(bases); b++) {
        uint32_t at = bases[b];
        Rig *rig = rig_open(at);

        for (uint32_t i = 0; i < 100; i++) {
            secondary(rig, ACK, at + 4 * i, CLIENT, "abcd");
        }
        ck_assert_uint_eq(rig_held(rig, COLO_SECONDARY), 100);
        for (uint32_t i = 0; i < 100; i++) {
            primary(rig, ACK, at + 4 * i, CLIENT, "abcd");
            rig_expect(rig, ACK, at + 4 * i, 4);
            ck_assert_uint_eq(rig_held(rig, COLO_SECONDARY), 99 - i);
        }
        rig_end_well(rig);
    }
}
END_TEST

/* No SYN was ever seen: COLO started in the middle of the connection. */
START_TEST(joined_in_the_middle)
{
    for (int secondary_first = 0; secondary_first < 2; secondary_first++) {
        Rig *rig = rig_new();

        if (secondary_first) {
            secondary(rig, ACK, 0xfffffffe, CLIENT, "hello");
            primary(rig, ACK, 0xfffffffe, CLIENT, "hello");
        } else {
            primary(rig, ACK, 0xfffffffe, CLIENT, "hello");
            rig_expect_nothing(rig);
            secondary(rig, ACK, 0xfffffffe, CLIENT, "hello");
        }
        rig_expect(rig, ACK, 0xfffffffe, 5);
        rig_end_well(rig);
    }
}
END_TEST

/* ... and the first that is seen of it is a keep-alive, or an acknowledgement from before: no position follows from that. */
START_TEST(joined_at_an_acknowledgement)
{
    static const uint32_t before[] = { 1, 1000, 0x80000000 };

    for (guint i = 0; i < G_N_ELEMENTS(before); i++) {
        for (int side = 0; side < COLO_SIDES; side++) {
            Rig *rig = rig_new();

            rig_text(rig, side, ACK, 5 - before[i], CLIENT, "");
            rig_text(rig, !side, ACK, 5, CLIENT, "");
            rig_expect(rig, ACK, side == COLO_PRIMARY ? 5 - before[i] : 5, 0);
            primary(rig, ACK, 5, CLIENT, "hello");
            secondary(rig, ACK, 5, CLIENT, "hello");
            rig_expect(rig, ACK, 5, 5);
            rig_end_well(rig);
        }
    }
}
END_TEST

START_TEST(different_bytes)
{
    Rig *rig = rig_open(1);

    primary(rig, ACK, 1, CLIENT, "the same until HERE");
    secondary(rig, ACK, 1, CLIENT, "the same until here");
    rig_expect_asked(rig, 1, COLO_REASON_PAYLOAD);
    primary(rig, ACK, 20, CLIENT, "more");
    secondary(rig, ACK, 20, CLIENT, "more");
    rig_expect_asked(rig, 1, COLO_REASON_PAYLOAD);
    ck_assert_uint_eq(rig_held(rig, COLO_PRIMARY), 2);
    rig_checkpoint(rig);
    while (rig_pending(rig) > 1) {      /* however much was the same has left before */
        rig_next(rig);
    }
    rig_expect(rig, ACK, 20, 4);
    rig_expect_nothing(rig);
    rig_free(rig);
}
END_TEST

/* What differs must be found wherever it is, however the two cut. */
START_TEST(one_wrong_byte_anywhere)
{
    enum { LEN = 9 };
    uint8_t *ours = bytes_of(1, LEN), *theirs = bytes_of(1, LEN);

    for (uint32_t wrong = 0; wrong < LEN; wrong++) {
        for (uint32_t cut = 1; cut < LEN; cut++) {
            for (int order = 0; order < 2; order++) {
                Rig *rig = rig_open(0xfffffffc);
                uint32_t got = 0;

                theirs[wrong] ^= 0x10;
                for (int i = 0; i < 2; i++) {
                    if (i == order) {
                        rig_tcp(rig, COLO_PRIMARY, ACK, 0xfffffffc, CLIENT, ours, LEN);
                    } else {
                        rig_tcp(rig, COLO_SECONDARY, ACK, 0xfffffffc, CLIENT, theirs, cut);
                        rig_tcp(rig, COLO_SECONDARY, ACK, 0xfffffffc + cut, CLIENT, theirs + cut, LEN - cut);
                    }
                }
                theirs[wrong] ^= 0x10;
                rig_expect_asked(rig, 1, COLO_REASON_PAYLOAD);
                while (rig_pending(rig)) {
                    got += rig_next(rig).len;
                }
                ck_assert_uint_le(got, wrong);
                rig_checkpoint(rig);
                while (rig_pending(rig)) {
                    got += rig_next(rig).len;
                }
                ck_assert_uint_eq(got, LEN);
                rig_free(rig);
            }
        }
    }
    g_free(ours);
    g_free(theirs);
}
END_TEST

/* Where the sides differ, counted from the first byte */

static void expect_offset(const Rig *rig, ColoReason reason, uint32_t offset)
{
    const ColoComparatorStats *stats = colo_comparator_stats(rig->c);

    rig_expect_asked(rig, 1, reason);
    ck_assert(stats->last_offset_set);
    ck_assert_uint_eq(stats->last_offset, offset);
}

START_TEST(offset_of_a_byte)
{
    for (guint b = 0; b < G_N_ELEMENTS(bases); b++) {
        for (uint32_t wrong = 0; wrong < 8; wrong++) {
            for (int order = 0; order < 2; order++) {
                char theirs[] = "abcdefgh";
                Rig *rig = rig_open(bases[b]);

                theirs[wrong] = '!';
                primary(rig, ACK, bases[b], CLIENT, "before");
                secondary(rig, ACK, bases[b], CLIENT, "before");
                if (order) {
                    primary(rig, ACK, bases[b] + 6, CLIENT, "abcdefgh");
                    secondary(rig, ACK, bases[b] + 6, CLIENT, theirs);
                } else {
                    secondary(rig, ACK, bases[b] + 6, CLIENT, theirs);
                    primary(rig, ACK, bases[b] + 6, CLIENT, "abcdefgh");
                }
                expect_offset(rig, COLO_REASON_PAYLOAD, 6 + wrong);
                rig_free(rig);
            }
        }
    }
}
END_TEST

/* What the primary says again may differ from what it has said. */
START_TEST(offset_in_a_repetition)
{
    Rig *rig = rig_open(0xfffffffd);

    primary(rig, ACK, 0xfffffffd, CLIENT, "abcdefgh");
    secondary(rig, ACK, 0xfffffffd, CLIENT, "abcdefgh");
    primary(rig, ACK, 0xfffffffe, CLIENT, "bcdeXfgh");
    expect_offset(rig, COLO_REASON_PAYLOAD, 5);
    rig_free(rig);

    /* Nor may it end where it went on. */
    rig = rig_open(0xfffffffd);
    primary(rig, ACK, 0xfffffffd, CLIENT, "abcdefgh");
    secondary(rig, ACK, 0xfffffffd, CLIENT, "abcdefgh");
    primary(rig, ACK | FIN, 0xfffffffe, CLIENT, "bc");
    expect_offset(rig, COLO_REASON_FLAGS, 3);
    rig_free(rig);
}
END_TEST

START_TEST(offset_of_the_end)
{
    Rig *rig = rig_open(1);

    primary(rig, ACK | FIN, 1, CLIENT, "abc");
    secondary(rig, ACK, 1, CLIENT, "abcd");
    expect_offset(rig, COLO_REASON_FLAGS, 3);
    rig_free(rig);
}
END_TEST

/* A SYN has no byte; it counts as the first. */
START_TEST(offset_of_a_syn)
{
    Rig *rig = rig_new();

    rig_give(rig, COLO_PRIMARY, frame_tcp(&plain, 700, CLIENT, SYN | ACK, "\2\4\5\xb4", 4, NULL, 0));
    rig_give(rig, COLO_SECONDARY, frame_tcp(&plain, 900, CLIENT, SYN | ACK, "\2\4\5\xb5", 4, NULL, 0));
    expect_offset(rig, COLO_REASON_OPTIONS, 0);
    rig_free(rig);

    rig = rig_new();
    primary(rig, SYN | ACK, 700, CLIENT, "");
    secondary(rig, SYN, 900, 0, "");
    expect_offset(rig, COLO_REASON_FLAGS, 0);
    rig_free(rig);

    /* Nor has one that is repeated. */
    rig = rig_open(1);
    rig_give(rig, COLO_PRIMARY, frame_tcp(&plain, 0, CLIENT, SYN | ACK, "\2\4\5\xb4", 4, NULL, 0));
    expect_offset(rig, COLO_REASON_OPTIONS, 0);
    rig_free(rig);
}
END_TEST

/* Where nothing differs: how far both have come. */
START_TEST(offset_of_what_is_missing)
{
    for (guint b = 0; b < G_N_ELEMENTS(bases); b++) {
        Rig *rig = rig_open(bases[b]);

        primary(rig, ACK, bases[b], CLIENT, "0123456789");
        primary(rig, ACK, bases[b] + 10, CLIENT, "abc");
        secondary(rig, ACK, bases[b], CLIENT, "0123");
        rig_wait(rig, RIG_TIMEOUT);
        expect_offset(rig, COLO_REASON_TIMEOUT, 4);
        rig_free(rig);

        rig = rig_open(bases[b]);
        primary(rig, ACK, bases[b], CLIENT + 1, "0123");
        secondary(rig, ACK, bases[b], CLIENT, "0123");
        rig_wait(rig, RIG_TIMEOUT);
        expect_offset(rig, COLO_REASON_ACK, 4);
        rig_free(rig);

        rig = rig_open(bases[b]);
        primary(rig, ACK, bases[b], CLIENT, "0123");
        secondary(rig, ACK, bases[b], CLIENT, "01");
        secondary(rig, RST | ACK, bases[b] + 2, CLIENT, "");
        expect_offset(rig, COLO_REASON_SECONDARY_RESET, 2);
        rig_free(rig);
    }
}
END_TEST

/* Far from the beginning, and in another connection on the same ports: from where that one began. */
START_TEST(offset_after_gigabytes)
{
    Rig *rig = rig_open(0xfffffffe);
    uint32_t at = 0xfffffffe;

    for (int i = 0; i < 3; i++) {
        at += 0x50000000;
        primary(rig, ACK, at, CLIENT, "far");
        rig_checkpoint(rig);
        rig_expect(rig, ACK, at, 3);
        at += 3;
    }
    primary(rig, ACK, at, CLIENT, "ours");
    secondary(rig, ACK, at, CLIENT, "oars");
    expect_offset(rig, COLO_REASON_PAYLOAD, 3 * 0x50000003u + 1);
    rig_checkpoint(rig);
    rig_expect(rig, ACK, at, 4);
    rig_free(rig);

    rig = rig_open(1000);
    primary(rig, ACK, 1000, CLIENT, "of the old one");
    secondary(rig, ACK, 1000, CLIENT, "of the old one");
    rig_expect(rig, ACK, 1000, 14);
    open_at(rig, 900);
    primary(rig, ACK, 900, CLIENT, "ours");
    secondary(rig, ACK, 900, CLIENT, "outs");
    expect_offset(rig, COLO_REASON_PAYLOAD, 2);
    rig_free(rig);
}
END_TEST

START_TEST(matching_goes_on_after_a_question)
{
    static const Shape other = { .peer_port = 1 };
    Rig *rig = rig_open(1);

    primary(rig, ACK, 1, CLIENT, "yes");
    secondary(rig, ACK, 1, CLIENT, "no!");
    rig_expect_asked(rig, 1, COLO_REASON_PAYLOAD);
    rig_give(rig, COLO_PRIMARY, frame_tcp(&other, 1, 1, ACK, NULL, 0, "same", 4));
    rig_give(rig, COLO_SECONDARY, frame_tcp(&other, 1, 1, ACK, NULL, 0, "same", 4));
    rig_expect(rig, ACK, 1, 4);
    rig_expect_nothing(rig);
    rig_free(rig);
}
END_TEST

START_TEST(out_of_order_secondary)
{
    for (guint b = 0; b < G_N_ELEMENTS(bases); b++) {
        uint32_t at = bases[b];
        Rig *rig = rig_open(at);

        secondary(rig, ACK, at + 4, CLIENT, "ef");
        secondary(rig, ACK, at + 2, CLIENT, "cd");
        primary(rig, ACK, at, CLIENT, "abcdef");
        rig_expect_nothing(rig);
        secondary(rig, ACK, at, CLIENT, "ab");
        rig_expect(rig, ACK, at, 6);
        rig_end_well(rig);
    }
}
END_TEST

START_TEST(repetitions_cut_otherwise)
{
    for (guint b = 0; b < G_N_ELEMENTS(bases); b++) {
        uint32_t at = bases[b];
        Rig *rig = rig_open(at);

        secondary(rig, ACK, at, CLIENT, "abc");
        secondary(rig, ACK, at + 1, CLIENT, "bcde");
        secondary(rig, ACK, at, CLIENT, "abcdefg");
        primary(rig, ACK, at, CLIENT, "ab");
        primary(rig, ACK, at + 2, CLIENT, "cdefg");
        rig_expect(rig, ACK, at, 2);
        rig_expect(rig, ACK, at + 2, 5);
        rig_end_well(rig);
    }
}
END_TEST

/* Ethernet's padding, IP's identification and the like, and how the offload headers look. */
START_TEST(what_is_not_compared)
{
    static const Shape pairs[][2] = {
        { { .pad_to = 60, .padding = 0x00 }, { .pad_to = 60, .padding = 0xff } },
        { { .pad_to = 60 }, { 0 } },
        { { 0 }, { .pad_to = 100, .padding = 7 } },
        { { .ip_id = 1, .ttl = 64, .tos = 0 }, { .ip_id = 2, .ttl = 63, .tos = 8 } },
        { { .ip_options = 0 }, { .ip_options = 8 } },
        { { .vnet_len = 12, .needs_csum = true }, { .vnet_len = 12 } },
        { { .vnet_len = 12, .gso_type = GSO_TCPV4, .gso_size = 2, .needs_csum = true }, { .vnet_len = 12 } },
        { { .ipv6 = true }, { .ipv6 = true, .extensions = 8, .ttl = 3 } },
    };

    for (guint i = 0; i < G_N_ELEMENTS(pairs); i++) {
        Rig *rig = rig_new();

        /* A data segment, and then an acknowledgement, which is all padding if padding counts. */
        rig_give(rig, COLO_PRIMARY, frame_tcp(&pairs[i][0], 7, 9, ACK, NULL, 0, "abc", 3));
        rig_give(rig, COLO_SECONDARY, frame_tcp(&pairs[i][1], 7, 9, ACK, NULL, 0, "abc", 3));
        rig_expect(rig, ACK, 7, 3);
        rig_give(rig, COLO_SECONDARY, frame_tcp(&pairs[i][1], 10, 10, ACK, NULL, 0, NULL, 0));
        rig_give(rig, COLO_PRIMARY, frame_tcp(&pairs[i][0], 10, 10, ACK, NULL, 0, NULL, 0));
        rig_expect(rig, ACK, 10, 0);
        rig_end_well(rig);
    }
}
END_TEST

/* Options and window of a data segment are each machine's own business. */
START_TEST(timestamps_differ)
{
    Rig *rig = rig_open(1);

    rig_give(rig, COLO_PRIMARY, frame_tcp(&plain, 1, CLIENT, ACK, "\1\1\x08\x0a" "aaaabbbb", 12, "data", 4));
    rig_give(rig, COLO_SECONDARY, frame_tcp(&plain, 1, CLIENT, ACK, "\1\1\x08\x0a" "ccccdddd", 12, "data", 4));
    rig_expect(rig, ACK, 1, 4);
    rig_end_well(rig);
}
END_TEST

/* The prefix that matches leaves at once */

START_TEST(prefix_leaves_at_once)
{
    for (guint b = 0; b < G_N_ELEMENTS(bases); b++) {
        uint32_t at = bases[b];
        Rig *rig = rig_open(at);

        primary(rig, ACK | PSH | FIN, at, CLIENT, "0123456789");
        secondary(rig, ACK, at, CLIENT, "012");
        rig_expect(rig, ACK, at, 3);
        rig_expect_nothing(rig);
        secondary(rig, ACK, at + 3, CLIENT, "3456");
        rig_expect(rig, ACK, at + 3, 4);
        secondary(rig, ACK, at + 7, CLIENT, "789");
        rig_expect(rig, ACK, at + 7, 3);        /* the FIN stays */
        rig_expect_nothing(rig);
        secondary(rig, ACK | FIN, at + 10, CLIENT, "");
        rig_expect(rig, ACK | PSH | FIN, at + 10, 0);
        rig_end_well(rig);
    }
}
END_TEST

/* The secondary is ahead by less than the primary's segment: its front need not be held for a moment. */
START_TEST(prefix_of_a_segment_that_has_just_come)
{
    Rig *rig = rig_open(1);

    secondary(rig, ACK, 1, CLIENT, "012");
    primary(rig, ACK, 1, CLIENT, "0123456789");
    rig_expect(rig, ACK, 1, 3);
    rig_expect_nothing(rig);
    ck_assert_uint_eq(rig_held(rig, COLO_PRIMARY), 1);
    secondary(rig, ACK, 4, CLIENT, "3456789");
    rig_expect(rig, ACK, 4, 7);
    rig_end_well(rig);
}
END_TEST

START_TEST(prefix_before_a_difference)
{
    Rig *rig = rig_open(1);

    primary(rig, ACK, 1, CLIENT, "0123456789");
    secondary(rig, ACK, 1, CLIENT, "012");
    rig_expect(rig, ACK, 1, 3);
    secondary(rig, ACK, 4, CLIENT, "different");
    rig_expect_asked(rig, 1, COLO_REASON_PAYLOAD);
    rig_expect_nothing(rig);
    rig_checkpoint(rig);
    rig_expect(rig, ACK, 4, 7);
    rig_free(rig);
}
END_TEST

START_TEST(prefix_waits_for_its_acknowledgement)
{
    Rig *rig = rig_open(1);

    primary(rig, ACK, 1, CLIENT + 10, "0123456789");
    secondary(rig, ACK, 1, CLIENT, "012");
    rig_expect_nothing(rig);
    secondary(rig, ACK, 4, CLIENT + 10, "");
    rig_expect(rig, ACK, 1, 3);
    secondary(rig, ACK, 4, CLIENT + 10, "3456789");
    rig_expect(rig, ACK, 4, 7);
    rig_end_well(rig);
}
END_TEST

/* The back half is as old as the whole was. */
START_TEST(cut_does_not_move_the_deadline)
{
    Rig *rig = rig_open(1);
    int64_t deadline = rig->now + RIG_TIMEOUT;

    primary(rig, ACK, 1, CLIENT, "0123456789");
    for (uint32_t i = 0; i < 5; i++) {
        rig_wait(rig, 100 * MS);
        rig_tcp(rig, COLO_SECONDARY, ACK, 1 + i, CLIENT, "0123456789" + i, 1);
        rig_expect(rig, ACK, 1 + i, 1);
        ck_assert(colo_comparator_deadline(rig->c) == deadline);
    }
    ck_assert_uint_eq(rig_held(rig, COLO_PRIMARY), 1);
    rig_wait(rig, deadline - rig->now - 1);
    rig_expect_asked(rig, 0, 0);
    rig_wait(rig, 1);
    rig_expect_asked(rig, 1, COLO_REASON_TIMEOUT);
    rig_checkpoint(rig);
    rig_expect(rig, ACK, 6, 5);
    rig_free(rig);
}
END_TEST

/* A segment behind an authentication header (51), or a routing header (43). */
static void give_sealed(Rig *rig, ColoSide side, uint8_t header, const char *text)
{
    static const Shape v6 = { .ipv6 = true };
    uint8_t body[24 + 20 + 16] = { 6, header == 51 ? 4 : 2 };
    uint32_t len = (uint32_t)strlen(text);

    put16(body + 24, 80);
    put16(body + 26, 4711);
    put32(body + 28, 1);
    put32(body + 32, CLIENT);
    body[36] = 5 << 4;
    body[37] = ACK;
    memcpy(body + 44, text, len);
    rig_give(rig, side, frame_ip(&v6, header, body, 44 + len));
}

/* Half of such a segment would be one that nobody has signed, or with a checksum over another address. */
START_TEST(sealed_segments_are_not_cut)
{
    static const uint8_t headers[] = { 51, 43 };

    for (guint i = 0; i < G_N_ELEMENTS(headers); i++) {
        Rig *rig = rig_new();

        give_sealed(rig, COLO_PRIMARY, headers[i], "abcdef");
        give_sealed(rig, COLO_SECONDARY, headers[i], "abc");
        ck_assert_uint_eq(rig_pending(rig), 0);
        give_sealed(rig, COLO_SECONDARY, headers[i], "abcdef");
        ck_assert_uint_eq(rig_pending(rig), 1);
        ck_assert_uint_eq(rig_next_raw(rig)->size, 14 + 40 + 44 + 6);
        rig_free(rig);
    }
}
END_TEST

START_TEST(signed_segments_are_not_cut)
{
    Rig *rig = rig_open(1);

    rig_give(rig, COLO_PRIMARY, frame_tcp(&plain, 1, CLIENT, ACK, SIGNED, 20, "abcdef", 6));
    rig_give(rig, COLO_SECONDARY, frame_tcp(&plain, 1, CLIENT, ACK, SIGNED, 20, "abc", 3));
    rig_expect_nothing(rig);
    rig_give(rig, COLO_SECONDARY, frame_tcp(&plain, 4, CLIENT, ACK, SIGNED, 20, "def", 3));
    rig_expect(rig, ACK, 1, 6);
    rig_end_well(rig);
}
END_TEST

/* 60,000 bytes in one frame against segments of 1460, with every kind of offload. */
START_TEST(offload_against_segments)
{
    enum { LEN = 60000 };
    uint8_t *bytes = bytes_of(9, LEN);

    for (int variant = 0; variant < 8; variant++) {
        bool ipv6 = variant & 1, needs_csum = variant & 2, vnet = !(variant & 4);
        Shape ours = {
            .ipv6 = ipv6, .vnet_len = vnet ? 12 : 0, .needs_csum = vnet && needs_csum,
            .gso_type = vnet ? (ipv6 ? GSO_TCPV6 : GSO_TCPV4) : 0, .gso_size = vnet ? 1460 : 0,
        };
        Shape theirs = { .ipv6 = ipv6, .vnet_len = ours.vnet_len };
        uint32_t base = 0xffff8000, sent = 0, got = 0;
        Rig *rig = rig_new();

        rig_give(rig, COLO_PRIMARY, frame_tcp(&ours, base, 1, ACK | PSH | FIN, NULL, 0, bytes, LEN));
        while (sent < LEN) {
            uint32_t len = MIN(1460, LEN - sent);
            Seen seen;

            rig_give(rig, COLO_SECONDARY, frame_tcp(&theirs, base + sent, 1, ACK, NULL, 0, bytes + sent, len));
            sent += len;
            seen = rig_next(rig);
            ck_assert_uint_eq(seen.seq, base + got);
            ck_assert_uint_eq(seen.len, len);
            ck_assert_mem_eq(seen.payload, bytes + got, len);
            ck_assert_uint_eq(seen.flags, ACK);
            if (vnet) {
                ck_assert_uint_eq(seen.vnet_flags, needs_csum ? VNET_NEEDS_CSUM : 0);
                ck_assert_uint_eq(seen.gso_type, GSO_NONE);
                ck_assert_uint_eq(seen.gso_size, 0);
            }
            got += len;
            rig_expect_nothing(rig);
        }
        ck_assert_uint_eq(rig_held(rig, COLO_PRIMARY), 1);
        rig_give(rig, COLO_SECONDARY, frame_tcp(&theirs, base + LEN, 1, ACK | FIN, NULL, 0, NULL, 0));
        rig_expect(rig, ACK | PSH | FIN, base + LEN, 0);
        rig_end_well(rig);

        /* And the other way round: one large frame of the secondary's stands for all the primary's small ones. */
        rig = rig_new();
        rig_give(rig, COLO_SECONDARY, frame_tcp(&ours, base, 1, ACK | PSH | FIN, NULL, 0, bytes, LEN));
        for (sent = 0; sent < LEN; sent += 1500) {
            rig_give(rig, COLO_PRIMARY, frame_tcp(&theirs, base + sent, 1, ACK, NULL, 0, bytes + sent, 1500));
            rig_expect(rig, ACK, base + sent, 1500);
        }
        rig_give(rig, COLO_PRIMARY, frame_tcp(&theirs, base + LEN, 1, ACK | FIN, NULL, 0, NULL, 0));
        rig_expect(rig, ACK | FIN, base + LEN, 0);
        rig_end_well(rig);
    }
    g_free(bytes);
}
END_TEST

/* Both sides send large frames, cut at other places. */
START_TEST(offload_against_offload)
{
    enum { LEN = 120000 };
    static const Shape shape = { .vnet_len = 12, .needs_csum = true, .gso_type = GSO_TCPV4, .gso_size = 1448 };
    uint8_t *bytes = bytes_of(10, LEN);
    Rig *rig = rig_new();
    uint32_t got = 0;

    rig_give(rig, COLO_PRIMARY, frame_tcp(&shape, 0, 1, ACK, NULL, 0, bytes, 60000));
    rig_give(rig, COLO_SECONDARY, frame_tcp(&shape, 0, 1, ACK, NULL, 0, bytes, 40000));
    rig_give(rig, COLO_PRIMARY, frame_tcp(&shape, 60000, 1, ACK, NULL, 0, bytes + 60000, 60000));
    rig_give(rig, COLO_SECONDARY, frame_tcp(&shape, 40000, 1, ACK, NULL, 0, bytes + 40000, 60000));
    rig_give(rig, COLO_SECONDARY, frame_tcp(&shape, 100000, 1, ACK, NULL, 0, bytes + 100000, 20000));
    while (rig_pending(rig)) {
        Seen seen = rig_next(rig);

        ck_assert_uint_eq(seen.seq, got);
        ck_assert_mem_eq(seen.payload, bytes + got, seen.len);
        ck_assert_uint_eq(seen.gso_type, GSO_TCPV4);
        ck_assert_uint_eq(seen.gso_size, 1448);
        got += seen.len;
    }
    ck_assert_uint_eq(got, LEN);
    rig_end_well(rig);
    g_free(bytes);
}
END_TEST

/* Repetitions */

START_TEST(repetition_overtakes_what_is_held)
{
    for (guint b = 0; b < G_N_ELEMENTS(bases); b++) {
        uint32_t at = bases[b];
        Rig *rig = rig_open(at);

        primary(rig, ACK, at, CLIENT, "abcd");
        secondary(rig, ACK, at, CLIENT, "abcd");
        rig_expect(rig, ACK, at, 4);
        primary(rig, ACK, at + 4, CLIENT, "efgh");
        rig_expect_nothing(rig);
        primary(rig, ACK, at, CLIENT, "abcd");
        rig_expect(rig, ACK, at, 4);
        primary(rig, ACK, at + 1, CLIENT, "bc");
        rig_expect(rig, ACK, at + 1, 2);
        primary(rig, SYN | ACK, at - 1, CLIENT, "");
        rig_expect(rig, SYN | ACK, at - 1, 0);
        ck_assert_uint_eq(rig_held(rig, COLO_PRIMARY), 1);
        secondary(rig, ACK, at + 4, CLIENT, "efgh");
        rig_expect(rig, ACK, at + 4, 4);
        rig_end_well(rig);
    }
}
END_TEST

/* Also when the repetition is in the queue's way: compared bytes may be repeated with uncompared ones behind them. */
START_TEST(repetition_merged_with_what_is_held)
{
    for (guint b = 0; b < G_N_ELEMENTS(bases); b++) {
        uint32_t at = bases[b];
        Rig *rig = rig_open(at);

        primary(rig, ACK, at, CLIENT, "abcd");
        secondary(rig, ACK, at, CLIENT, "abcd");
        rig_expect(rig, ACK, at, 4);
        primary(rig, ACK, at + 4, CLIENT, "efgh");
        primary(rig, ACK, at, CLIENT, "abcdefgh");
        rig_expect(rig, ACK, at, 4);
        rig_expect_nothing(rig);
        secondary(rig, ACK, at + 4, CLIENT, "efgh");
        rig_expect(rig, ACK, at + 4, 4);
        rig_expect(rig, ACK, at + 4, 4);
        rig_end_well(rig);
    }
}
END_TEST

/* A repetition that acknowledges more than the secondary has must not tell the client so. */
START_TEST(repetition_with_a_new_acknowledgement)
{
    Rig *rig = rig_open(1);

    primary(rig, ACK, 1, CLIENT, "abcd");
    secondary(rig, ACK, 1, CLIENT, "abcd");
    rig_expect(rig, ACK, 1, 4);
    primary(rig, ACK, 5, CLIENT, "efgh");
    primary(rig, ACK, 1, CLIENT + 100, "abcd");
    rig_expect_nothing(rig);
    secondary(rig, ACK, 5, CLIENT + 100, "efgh");
    rig_expect(rig, ACK, 5, 4);
    rig_expect(rig, ACK, 1, 4);
    rig_end_well(rig);
}
END_TEST

/* What is compared, but has not left yet, is not overtaken by a repetition of part of it. */
START_TEST(repetition_of_what_has_not_left)
{
    Rig *rig = rig_open(1);

    primary(rig, ACK, 1, CLIENT + 3, "abc");
    secondary(rig, ACK, 1, CLIENT + 2, "abc");
    primary(rig, ACK, 2, CLIENT + 2, "bc");     /* acknowledges less */
    rig_expect_nothing(rig);
    secondary(rig, ACK, 4, CLIENT + 3, "");
    rig_expect(rig, ACK, 1, 3);
    rig_expect(rig, ACK, 2, 2);
    rig_end_well(rig);
}
END_TEST

START_TEST(repetition_of_what_is_not_compared_yet)
{
    Rig *rig = rig_open(1);

    primary(rig, ACK, 1, CLIENT, "abcd");
    primary(rig, ACK, 1, CLIENT, "abcd");
    primary(rig, ACK, 1, CLIENT, "ab");
    rig_expect_nothing(rig);
    secondary(rig, ACK, 1, CLIENT, "abcd");
    rig_expect(rig, ACK, 1, 4);
    rig_expect(rig, ACK, 1, 4);
    rig_expect(rig, ACK, 1, 2);
    secondary(rig, ACK, 1, CLIENT, "abcd");
    rig_end_well(rig);
}
END_TEST

START_TEST(keep_alive)
{
    Rig *rig = rig_open(1);

    primary(rig, ACK, 1, CLIENT, "abcd");
    secondary(rig, ACK, 1, CLIENT, "abcd");
    rig_expect(rig, ACK, 1, 4);
    primary(rig, ACK, 4, CLIENT, "");           /* one position back */
    rig_expect(rig, ACK, 4, 0);
    rig_tcp(rig, COLO_PRIMARY, ACK, 4, CLIENT, "\0", 1);    /* with a byte of garbage, as some do */
    rig_expect_nothing(rig);
    rig_tcp(rig, COLO_SECONDARY, ACK, 4, CLIENT, "\0", 1);
    rig_expect(rig, ACK, 4, 1);
    rig_tcp(rig, COLO_PRIMARY, ACK, 4, CLIENT, "d", 1);     /* and the byte itself, still */
    rig_expect(rig, ACK, 4, 1);
    rig_end_well(rig);
}
END_TEST

/* The end of the stream */

START_TEST(fin_alone_against_fin_on_data)
{
    for (guint b = 0; b < G_N_ELEMENTS(bases); b++) {
        for (int order = 0; order < 6; order++) {
            uint32_t at = bases[b];
            Rig *rig = rig_open(at);

            /* The whole comes before, between, or behind the two. */
            if (order % 3 == 0) {
                rig_text(rig, order / 3, ACK | FIN | PSH, at, CLIENT, "last");
            }
            rig_text(rig, !(order / 3), ACK, at, CLIENT, "last");
            if (order % 3 == 1) {
                rig_text(rig, order / 3, ACK | FIN | PSH, at, CLIENT, "last");
            }
            rig_text(rig, !(order / 3), ACK | FIN, at + 4, CLIENT, "");
            if (order % 3 == 2) {
                rig_text(rig, order / 3, ACK | FIN | PSH, at, CLIENT, "last");
            }
            if (order / 3 == COLO_SECONDARY) {      /* the primary's are two */
                rig_expect(rig, ACK, at, 4);
                rig_expect(rig, ACK | FIN, at + 4, 0);
            } else if (rig_pending(rig) == 1) {
                rig_expect(rig, ACK | PSH | FIN, at, 4);
            } else {
                rig_expect(rig, ACK, at, 4);
                rig_expect(rig, ACK | PSH | FIN, at + 4, 0);
            }
            rig_end_well(rig);
        }
    }
}
END_TEST

START_TEST(fin_is_not_left_out)
{
    Rig *rig = rig_open(1);

    primary(rig, ACK | FIN, 1, CLIENT, "");
    rig_expect_nothing(rig);
    secondary(rig, ACK, 1, CLIENT, "");         /* an acknowledgement is no FIN */
    rig_expect_nothing(rig);
    rig_wait(rig, RIG_TIMEOUT);
    rig_expect_asked(rig, 1, COLO_REASON_TIMEOUT);
    rig_free(rig);
}
END_TEST

START_TEST(fin_against_data)
{
    for (int order = 0; order < 4; order++) {
        ColoSide ends = order & 1, goes_on = !ends;
        Rig *rig = rig_open(0xfffffffe);

        if (order & 2) {
            rig_text(rig, ends, ACK | FIN, 0xfffffffe, CLIENT, "ab");
            rig_text(rig, goes_on, ACK, 0xfffffffe, CLIENT, "abc");
        } else {
            rig_text(rig, goes_on, ACK, 0xfffffffe, CLIENT, "abc");
            rig_text(rig, ends, ACK | FIN, 0xfffffffe, CLIENT, "ab");
        }
        rig_expect_asked(rig, 1, COLO_REASON_FLAGS);
        while (rig_pending(rig)) {
            Seen seen = rig_next(rig);

            ck_assert(!(seen.flags & FIN));
            ck_assert_int_le((int32_t)(seen.seq + seen.len - 0), 0);    /* "ab" at most */
        }
        rig_free(rig);
    }
}
END_TEST

START_TEST(repeated_fin)
{
    Rig *rig = rig_open(UINT32_MAX);

    primary(rig, ACK | FIN, UINT32_MAX, CLIENT, "");
    secondary(rig, ACK | FIN, UINT32_MAX, CLIENT, "");
    rig_expect(rig, ACK | FIN, UINT32_MAX, 0);
    primary(rig, ACK | FIN, UINT32_MAX, CLIENT, "");
    rig_expect(rig, ACK | FIN, UINT32_MAX, 0);
    secondary(rig, ACK | FIN, UINT32_MAX, CLIENT, "");
    primary(rig, ACK, 0, CLIENT, "");           /* the last ACK, behind the FIN */
    rig_expect(rig, ACK, 0, 0);
    rig_end_well(rig);
}
END_TEST

/* Acknowledgements */

START_TEST(acknowledgements_are_not_counted)
{
    for (guint b = 0; b < G_N_ELEMENTS(bases); b++) {
        uint32_t ack = bases[b];
        Rig *rig = rig_new();

        /* Many of the primary's against one of the secondary's. */
        for (uint32_t i = 0; i < 20; i++) {
            primary(rig, ACK, 1, ack + i, "");
        }
        rig_expect_nothing(rig);
        secondary(rig, ACK, 1, ack + 19, "");
        for (uint32_t i = 0; i < 20; i++) {
            Seen seen = rig_next(rig);

            ck_assert_uint_eq(seen.ack, ack + i);
        }
        /* Many of the secondary's against one of the primary's. */
        for (uint32_t i = 20; i < 40; i++) {
            secondary(rig, ACK, 1, ack + i, "");
            ck_assert_uint_eq(rig_held(rig, COLO_SECONDARY), 0);
        }
        primary(rig, ACK, 1, ack + 39, "");
        ck_assert_uint_eq(rig_next(rig).ack, ack + 39);
        rig_wait(rig, 10 * RIG_TIMEOUT);        /* none is left over to time out */
        rig_end_well(rig);
    }
}
END_TEST

START_TEST(acknowledgement_waits_for_the_secondary)
{
    for (guint b = 0; b < G_N_ELEMENTS(bases); b++) {
        uint32_t ack = bases[b];
        Rig *rig = rig_new();

        secondary(rig, ACK, 1, ack - 1, "");
        primary(rig, ACK, 1, ack, "");
        rig_expect_nothing(rig);
        secondary(rig, ACK, 1, ack - 1, "");
        rig_expect_nothing(rig);
        secondary(rig, ACK, 1, ack, "");
        ck_assert_uint_eq(rig_next(rig).ack, ack);
        rig_end_well(rig);
    }
}
END_TEST

/* The latest is not the highest. */
START_TEST(highest_acknowledgement_counts)
{
    for (guint b = 0; b < G_N_ELEMENTS(bases); b++) {
        uint32_t ack = bases[b];
        Rig *rig = rig_new();

        secondary(rig, ACK, 1, ack + 10, "");
        secondary(rig, ACK, 1, ack - 10, "");   /* a segment that was overtaken */
        primary(rig, ACK, 1, ack + 10, "");
        ck_assert_uint_eq(rig_next(rig).ack, ack + 10);
        primary(rig, ACK, 1, ack + 11, "");
        rig_expect_nothing(rig);
        secondary(rig, ACK, 1, ack + 11, "");
        ck_assert_uint_eq(rig_next(rig).ack, ack + 11);
        rig_end_well(rig);
    }
}
END_TEST

/* Zero is a number like any other, and "none yet" is none. */
START_TEST(acknowledgement_of_zero)
{
    Rig *rig = rig_new();

    primary(rig, ACK, 1, 0, "");
    rig_expect_nothing(rig);
    secondary(rig, ACK, 1, UINT32_MAX, "");
    rig_expect_nothing(rig);
    secondary(rig, ACK, 1, 0, "");
    rig_expect(rig, ACK, 1, 0);
    rig_end_well(rig);
}
END_TEST

/* Data that is the same, with an acknowledgement that is not. */
START_TEST(acknowledgement_on_data)
{
    Rig *rig = rig_open(1);

    secondary(rig, ACK, 1, CLIENT, "abc");
    primary(rig, ACK, 1, CLIENT + 1, "abc");
    rig_expect_nothing(rig);
    secondary(rig, ACK, 4, CLIENT + 1, "");
    rig_expect(rig, ACK, 1, 3);
    rig_end_well(rig);
}
END_TEST

START_TEST(acknowledgement_behind_data_keeps_its_place)
{
    Rig *rig = rig_open(1);

    primary(rig, ACK, 1, CLIENT, "abc");
    primary(rig, ACK, 4, CLIENT, "");
    rig_expect_nothing(rig);
    secondary(rig, ACK, 1, CLIENT, "abc");
    rig_expect(rig, ACK, 1, 3);
    rig_expect(rig, ACK, 4, 0);
    primary(rig, ACK, 4, CLIENT + 5, "");
    primary(rig, ACK, 4, CLIENT + 5, "def");
    secondary(rig, ACK, 4, CLIENT, "def");
    rig_expect_nothing(rig);
    secondary(rig, ACK, 7, CLIENT + 5, "");
    rig_expect(rig, ACK, 4, 0);
    rig_expect(rig, ACK, 4, 3);
    rig_end_well(rig);
}
END_TEST

START_TEST(reasons_of_a_timeout)
{
    Rig *rig = rig_open(1);

    primary(rig, ACK, 1, CLIENT + 1, "");
    rig_wait(rig, RIG_TIMEOUT);
    rig_expect_asked(rig, 1, COLO_REASON_ACK);
    rig_free(rig);

    rig = rig_open(1);
    secondary(rig, ACK, 1, CLIENT, "abc");
    primary(rig, ACK, 1, CLIENT + 1, "abc");
    rig_wait(rig, RIG_TIMEOUT);
    rig_expect_asked(rig, 1, COLO_REASON_ACK);
    rig_free(rig);

    rig = rig_open(1);
    primary(rig, ACK, 1, CLIENT, "abc");
    rig_wait(rig, RIG_TIMEOUT);
    rig_expect_asked(rig, 1, COLO_REASON_TIMEOUT);
    rig_free(rig);

    rig = rig_open(1);
    primary(rig, RST, 1, 0, "");
    rig_wait(rig, RIG_TIMEOUT);
    rig_expect_asked(rig, 1, COLO_REASON_TIMEOUT);
    rig_free(rig);
}
END_TEST

/* Windows */

static Frame *windowed(uint8_t flags, uint32_t seq, uint32_t ack, uint16_t window, const char *text)
{
    Shape s = { .window = window, .shut = !window };

    return frame_tcp(&s, seq, ack, flags, NULL, 0, text, (uint32_t)strlen(text));
}

static void say(Rig *rig, ColoSide side, uint8_t flags, uint32_t seq, uint32_t ack, uint16_t window, const char *text)
{
    rig_give(rig, side, windowed(flags, seq, ack, window, text));
}

/* A pure acknowledgement from either side. */
static void grant(Rig *rig, ColoSide side, uint32_t ack, uint16_t window)
{
    say(rig, side, ACK, 1, ack, window, "");
}

static void expect_window(Rig *rig, uint32_t ack, uint16_t window)
{
    Seen seen = rig_next(rig);

    ck_assert_msg(seen.ack == ack && seen.window == window, "ack %u, window %u, expected ack %u, window %u", seen.ack,
                  seen.window, ack, window);
}

/* Fails the test unless the next frame released is @f, to the byte; ends that. */
static void expect_untouched(Rig *rig, Frame *f)
{
    const Released *r = rig_next_raw(rig);

    ck_assert_uint_eq(r->size, f->size);
    ck_assert_mem_eq(r->data, f->data, f->size);
    frame_free(f);
}

/* A connection at position 1 in which both acknowledge @ack and windows are scaled; both SYNs' windows are 0. */
static Rig *rig_scaled_at(uint32_t ack, uint8_t scale)
{
    Shape s = { .shut = true };
    uint8_t options[] = { 3, 3, scale, 0 };
    Rig *rig = rig_new();

    rig_give(rig, COLO_PRIMARY, frame_tcp(&s, 0, ack, SYN | ACK, options, scale ? 4 : 0, NULL, 0));
    rig_give(rig, COLO_SECONDARY, frame_tcp(&s, 99, ack, SYN | ACK, options, scale ? 4 : 0, NULL, 0));
    expect_window(rig, ack, 0);
    return rig;
}

/* A window that goes beyond the secondary's is told as far as that goes, whoever is first and however they are scaled. */
START_TEST(window_is_narrowed)
{
    static const uint8_t scales[] = { 0, 1, 7, 14 };

    for (guint b = 0; b < G_N_ELEMENTS(bases); b++) {
        for (guint i = 0; i < 2 * G_N_ELEMENTS(scales); i++) {
            uint32_t ack = bases[b], unit = 1u << scales[i / 2];
            Rig *rig = rig_scaled_at(ack, scales[i / 2]);

            if (i % 2) {
                grant(rig, COLO_SECONDARY, ack, 5000);
                grant(rig, COLO_PRIMARY, ack, 60000);
            } else {
                grant(rig, COLO_PRIMARY, ack, 60000);
                grant(rig, COLO_SECONDARY, ack, 5000);
            }
            expect_window(rig, ack, 5000);
            /* As far as the secondary has acknowledged more, it has room for more. */
            grant(rig, COLO_SECONDARY, ack + 1000 * unit, 5000);
            grant(rig, COLO_PRIMARY, ack + 10 * unit, 60000);
            expect_window(rig, ack + 10 * unit, 5990);
            grant(rig, COLO_PRIMARY, ack + 10 * unit + 1, 60000);       /* what is left of a unit does not count */
            expect_window(rig, ack + 10 * unit + 1, 5989);
            grant(rig, COLO_PRIMARY, ack + 1000 * unit, 60000);
            expect_window(rig, ack + 1000 * unit, 5000);
            rig_end_well(rig);
        }
    }
}
END_TEST

START_TEST(window_within_the_secondarys)
{
    for (guint b = 0; b < G_N_ELEMENTS(bases); b++) {
        uint32_t ack = bases[b];
        Rig *rig = rig_scaled_at(ack, b % 2 ? 7 : 0);

        grant(rig, COLO_SECONDARY, ack, 5000);
        grant(rig, COLO_PRIMARY, ack, 5000);
        expect_untouched(rig, windowed(ACK, 1, ack, 5000, ""));
        grant(rig, COLO_PRIMARY, ack, 4999);
        expect_untouched(rig, windowed(ACK, 1, ack, 4999, ""));
        grant(rig, COLO_PRIMARY, ack, 0);
        expect_untouched(rig, windowed(ACK, 1, ack, 0, ""));
        grant(rig, COLO_SECONDARY, ack, UINT16_MAX);
        grant(rig, COLO_PRIMARY, ack, UINT16_MAX);
        expect_untouched(rig, windowed(ACK, 1, ack, UINT16_MAX, ""));
        rig_end_well(rig);
    }
}
END_TEST

/* Of equal acknowledgements the one that allows most counts: windows do not shrink, segments overtake each other. */
START_TEST(window_of_an_overtaken_segment)
{
    Rig *rig = rig_scaled_at(CLIENT, 0);

    grant(rig, COLO_SECONDARY, CLIENT + 100, 5000);
    grant(rig, COLO_SECONDARY, CLIENT + 100, 4000);
    grant(rig, COLO_SECONDARY, CLIENT, 60000);
    grant(rig, COLO_PRIMARY, CLIENT + 100, 60000);
    expect_window(rig, CLIENT + 100, 5000);
    rig_end_well(rig);
}
END_TEST

/* The window of a SYN is never scaled, and stays as it is. */
START_TEST(window_of_a_syn)
{
    static const Shape ours = { .window = 60000 }, theirs = { .window = 6400 };

    for (int repeated = 0; repeated < 2; repeated++) {
        Rig *rig = rig_new();

        for (int i = 0; i < 1 + repeated; i++) {
            rig_give(rig, COLO_PRIMARY, frame_tcp(&ours, 0, CLIENT, SYN | ACK, "\3\3\7\0", 4, NULL, 0));
            rig_give(rig, COLO_SECONDARY, frame_tcp(&theirs, 99, CLIENT, SYN | ACK, "\3\3\7\0", 4, NULL, 0));
            expect_untouched(rig, frame_tcp(&ours, 0, CLIENT, SYN | ACK, "\3\3\7\0", 4, NULL, 0));
        }
        say(rig, COLO_PRIMARY, ACK, 1, CLIENT, 1000, "data");
        say(rig, COLO_SECONDARY, ACK, 1, CLIENT, 0, "data");
        expect_window(rig, CLIENT, 50);
        rig_end_well(rig);
    }
}
END_TEST

/*
 * How the client counts, nobody here knows: the SYN was not seen, or was the guest's, and the client may have refused to scale.
 * What is told must not be too much in any case.
 */
START_TEST(window_of_unknown_scale)
{
    for (guint i = 0; i < 2 * G_N_ELEMENTS(bases); i++) {
        uint32_t ack = bases[i / 2];
        Rig *rig = rig_new();

        if (i % 2) {
            rig_give(rig, COLO_PRIMARY, frame_tcp(&plain, 0, 0, SYN, "\3\3\7\0", 4, NULL, 0));
            rig_give(rig, COLO_SECONDARY, frame_tcp(&plain, 99, 0, SYN, "\3\3\7\0", 4, NULL, 0));
            rig_expect(rig, SYN, 0, 0);
        }
        grant(rig, COLO_SECONDARY, ack, 1000);
        grant(rig, COLO_PRIMARY, ack, 1200);
        expect_window(rig, ack, 1000);
        /* The client sends 900 of the 1000, and the secondary reads none of them. */
        grant(rig, COLO_SECONDARY, ack + 900, 100);
        say(rig, COLO_PRIMARY, ACK, 1, ack + 900, 1200, "a");
        say(rig, COLO_SECONDARY, ACK, 1, ack + 900, 100, "a");
        expect_window(rig, ack + 900, 100);
        say(rig, COLO_SECONDARY, ACK, 2, ack + 950, 50, "b");
        say(rig, COLO_PRIMARY, ACK, 2, ack + 900, 1200, "b");
        expect_window(rig, ack + 900, 50);
        say(rig, COLO_SECONDARY, ACK, 3, ack + 1000, 0, "c");
        say(rig, COLO_PRIMARY, ACK, 3, ack + 1000, 1200, "c");
        expect_window(rig, ack + 1000, 0);
        /* What a checkpoint makes the secondary's counts the same way. */
        rig_checkpoint(rig);
        say(rig, COLO_SECONDARY, ACK, 4, ack + 2100, 100, "d");
        say(rig, COLO_PRIMARY, ACK, 4, ack + 2100, 1200, "d");
        expect_window(rig, ack + 2100, 100);
        rig_end_well(rig);
    }
}
END_TEST

/* Where the primary has no more to say, nobody would tell the client of the room that the secondary gets. */
START_TEST(acknowledgement_waits_for_room)
{
    static const struct {
        uint8_t scale;
        uint16_t window, short_of, enough;      /* the primary's, and two of the secondary's */
    } cases[] = {
        { 0, 60000, 2919, 2920 }, { 0, 5842, 2919, 2920 }, { 0, 5838, 2918, 2919 },
        { 0, 1000, 499, 500 }, { 0, 3, 1, 2 }, { 0, 1, 0, 1 },
        { 7, 1000, 22, 23 }, { 7, 40, 19, 20 }, { 7, 2, 0, 1 }, { 12, 8, 0, 1 }, { 14, UINT16_MAX, 0, 1 },
    };

    for (guint i = 0; i < 2 * G_N_ELEMENTS(cases); i++) {
        uint32_t ack = bases[i % G_N_ELEMENTS(bases)];
        Rig *rig = rig_scaled_at(ack, cases[i / 2].scale);

        grant(rig, COLO_SECONDARY, ack + 1000, 0);
        if (i % 2) {
            grant(rig, COLO_SECONDARY, ack + 1000, cases[i / 2].short_of);
        }
        grant(rig, COLO_PRIMARY, ack + 1000, cases[i / 2].window);
        grant(rig, COLO_SECONDARY, ack + 1000, cases[i / 2].short_of);
        rig_expect_nothing(rig);
        ck_assert_uint_eq(rig_held(rig, COLO_PRIMARY), 1);
        ck_assert(colo_comparator_deadline(rig->c) == rig->now + RIG_TIMEOUT);
        rig_wait(rig, RIG_TIMEOUT - 1);
        if (i % 2) {
            grant(rig, COLO_SECONDARY, ack + 1000, cases[i / 2].enough);
        } else {
            say(rig, COLO_SECONDARY, ACK, 1, ack + 1000, cases[i / 2].enough, "more");
        }
        expect_window(rig, ack + 1000, cases[i / 2].enough);
        rig_expect_nothing(rig);
        ck_assert_uint_eq(rig_held(rig, COLO_PRIMARY), 0);
        rig_expect_asked(rig, 0, 0);
        rig_free(rig);
    }
}
END_TEST

/* Less than a unit of the window's scale cannot be told at all. */
START_TEST(acknowledgement_waits_for_a_unit_of_room)
{
    Rig *rig = rig_scaled_at(CLIENT, 12);

    grant(rig, COLO_SECONDARY, CLIENT, 1);
    grant(rig, COLO_PRIMARY, CLIENT + 1, 100);
    grant(rig, COLO_SECONDARY, CLIENT + 4095, 0);   /* the secondary has room for 4094 */
    rig_expect_nothing(rig);
    grant(rig, COLO_SECONDARY, CLIENT + 4097, 0);
    expect_window(rig, CLIENT + 1, 1);
    rig_end_well(rig);
}
END_TEST

/* Where nobody knows how much a window is: a sixteenth of the primary's. */
START_TEST(acknowledgement_waits_for_room_of_unknown_scale)
{
    Rig *rig = rig_new();

    grant(rig, COLO_SECONDARY, CLIENT, 31);
    grant(rig, COLO_PRIMARY, CLIENT, 500);
    rig_expect_nothing(rig);
    grant(rig, COLO_SECONDARY, CLIENT, 32);
    expect_window(rig, CLIENT, 32);
    grant(rig, COLO_SECONDARY, CLIENT + 100, 0);
    grant(rig, COLO_PRIMARY, CLIENT + 100, 1);
    rig_expect_nothing(rig);
    grant(rig, COLO_SECONDARY, CLIENT + 100, 1);
    expect_window(rig, CLIENT + 100, 1);
    rig_end_well(rig);
}
END_TEST

/* What comes behind it will tell the client the rest. */
START_TEST(acknowledgement_with_something_behind_it)
{
    for (int behind = 0; behind < 5; behind++) {
        Rig *rig = rig_scaled_at(CLIENT, 0);

        grant(rig, COLO_SECONDARY, CLIENT, 100);
        grant(rig, COLO_PRIMARY, CLIENT, 60000);
        rig_expect_nothing(rig);
        switch (behind) {
        case 0:
            grant(rig, COLO_PRIMARY, CLIENT, 60001);
            break;
        case 1:
            say(rig, COLO_PRIMARY, ACK, 1, CLIENT, 60001, "data");
            break;
        case 2:
            say(rig, COLO_PRIMARY, ACK | FIN, 1, CLIENT, 60001, "");
            break;
        case 3:
            say(rig, COLO_PRIMARY, RST | ACK, 1, CLIENT, 60001, "");
            break;
        default:
            grant(rig, COLO_PRIMARY, CLIENT + 1, 60001);        /* which the secondary has not acknowledged */
            break;
        }
        expect_window(rig, CLIENT, 100);
        rig_expect_nothing(rig);
        ck_assert_uint_eq(rig_held(rig, COLO_PRIMARY), 1);
        switch (behind) {
        case 0:
            grant(rig, COLO_SECONDARY, CLIENT, 3000);
            expect_window(rig, CLIENT, 3000);
            break;
        case 1:
            say(rig, COLO_SECONDARY, ACK, 1, CLIENT, 0, "data");
            expect_window(rig, CLIENT, 100);
            break;
        case 2:
            say(rig, COLO_SECONDARY, ACK | FIN, 1, CLIENT, 0, "");
            expect_window(rig, CLIENT, 100);
            break;
        case 3:
            say(rig, COLO_SECONDARY, RST | ACK, 1, CLIENT, 0, "");
            expect_window(rig, CLIENT, 60001);
            break;
        default:
            grant(rig, COLO_SECONDARY, CLIENT + 1, 3000);
            expect_window(rig, CLIENT + 1, 3000);
            break;
        }
        rig_end_well(rig);
    }
}
END_TEST

/* A repetition overtakes it, and does not tell the client what it would. */
START_TEST(acknowledgement_overtaken_by_a_repetition)
{
    Rig *rig = rig_scaled_at(CLIENT, 0);

    say(rig, COLO_PRIMARY, ACK, 1, CLIENT, 60000, "data");
    say(rig, COLO_SECONDARY, ACK, 1, CLIENT, 100, "data");
    expect_window(rig, CLIENT, 100);
    say(rig, COLO_PRIMARY, ACK, 5, CLIENT, 60000, "");
    say(rig, COLO_PRIMARY, ACK, 1, CLIENT, 60000, "data");
    rig_expect(rig, ACK, 1, 4);
    rig_expect_nothing(rig);
    grant(rig, COLO_SECONDARY, CLIENT, 4000);
    expect_window(rig, CLIENT, 4000);
    rig_end_well(rig);
}
END_TEST

START_TEST(room_is_asked_for_at_the_deadline)
{
    Rig *rig = rig_scaled_at(CLIENT, 3);

    grant(rig, COLO_SECONDARY, CLIENT, 0);
    grant(rig, COLO_PRIMARY, CLIENT, 60000);
    rig_wait(rig, RIG_TIMEOUT - 1);
    rig_expect_nothing(rig);
    rig_expect_asked(rig, 0, 0);
    rig_wait(rig, 1);
    rig_expect_asked(rig, 1, COLO_REASON_ACK);
    rig_expect_nothing(rig);
    rig_checkpoint(rig);
    expect_untouched(rig, windowed(ACK, 1, CLIENT, 60000, ""));
    rig_expect_nothing(rig);
    rig_free(rig);
}
END_TEST

START_TEST(data_does_not_wait_for_room)
{
    for (int order = 0; order < 2; order++) {
        Rig *rig = rig_scaled_at(CLIENT, 0);

        grant(rig, COLO_SECONDARY, CLIENT, 0);
        for (int i = 0; i < 2; i++) {
            say(rig, i == order, ACK, 1, CLIENT, i == order ? 0 : 60000, "data");
        }
        rig_expect(rig, ACK, 1, 4);
        for (int i = 0; i < 2; i++) {
            say(rig, i == order, ACK | FIN, 5, CLIENT, i == order ? 0 : 60000, "");
        }
        expect_window(rig, CLIENT, 0);
        rig_end_well(rig);
    }
}
END_TEST

/* Of a segment that is cut each piece says what holds when it leaves. */
START_TEST(window_of_a_front)
{
    Rig *rig = rig_scaled_at(CLIENT, 0);

    say(rig, COLO_PRIMARY, ACK | FIN, 1, CLIENT, 60000, "0123456789");
    say(rig, COLO_SECONDARY, ACK, 1, CLIENT, 0, "012");
    expect_window(rig, CLIENT, 0);
    say(rig, COLO_SECONDARY, ACK, 4, CLIENT, 700, "3456");
    expect_window(rig, CLIENT, 700);
    say(rig, COLO_SECONDARY, ACK, 8, CLIENT, UINT16_MAX, "789");
    expect_window(rig, CLIENT, 60000);
    rig_expect_nothing(rig);
    say(rig, COLO_SECONDARY, ACK | FIN, 11, CLIENT, 0, "");
    expect_window(rig, CLIENT, 60000);
    rig_end_well(rig);
}
END_TEST

START_TEST(window_of_a_repetition)
{
    Rig *rig = rig_scaled_at(CLIENT, 0);

    say(rig, COLO_PRIMARY, ACK, 1, CLIENT, 60000, "0123456789");
    say(rig, COLO_SECONDARY, ACK, 1, CLIENT, 5000, "0123456789");
    expect_window(rig, CLIENT, 5000);
    say(rig, COLO_PRIMARY, ACK, 1, CLIENT, 60000, "0123456789");        /* alone */
    expect_window(rig, CLIENT, 5000);
    say(rig, COLO_PRIMARY, ACK, 11, CLIENT, 60000, "held");
    say(rig, COLO_PRIMARY, ACK, 3, CLIENT, 60000, "234");               /* overtaking what is held */
    expect_window(rig, CLIENT, 5000);
    grant(rig, COLO_SECONDARY, CLIENT + 10, 5000);
    say(rig, COLO_PRIMARY, ACK, 1, CLIENT, 60000, "0123456789held");    /* and its front */
    expect_window(rig, CLIENT, 5010);
    rig_expect_nothing(rig);
    say(rig, COLO_SECONDARY, ACK, 11, CLIENT + 10, 5000, "held");
    expect_window(rig, CLIENT, 5010);
    expect_window(rig, CLIENT, 5010);
    rig_end_well(rig);
}
END_TEST

/* What nobody may change, and what has no window worth the name. */
START_TEST(window_left_alone)
{
    Rig *rig = rig_scaled_at(CLIENT, 0);
    Shape wide = { .window = 60000 }, narrow = { .shut = true };
    Frame *f;

    grant(rig, COLO_SECONDARY, CLIENT, 0);

    rig_give(rig, COLO_PRIMARY, frame_tcp(&wide, 1, CLIENT, ACK, SIGNED, 20, NULL, 0));
    expect_untouched(rig, frame_tcp(&wide, 1, CLIENT, ACK, SIGNED, 20, NULL, 0));
    rig_give(rig, COLO_PRIMARY, frame_tcp(&wide, 1, CLIENT, ACK, SIGNED, 20, "data", 4));
    rig_give(rig, COLO_SECONDARY, frame_tcp(&narrow, 1, CLIENT, ACK, SIGNED, 20, "data", 4));
    expect_untouched(rig, frame_tcp(&wide, 1, CLIENT, ACK, SIGNED, 20, "data", 4));

    /* In two fragments, which leave as they came. */
    f = frame_tcp(&wide, 5, CLIENT, ACK, NULL, 0, "data", 4);
    for (int i = 0; i < 2; i++) {
        wide.fragment = i ? 2 : 0x2000;
        rig_give(rig, COLO_PRIMARY, frame_ip(&wide, 6, f->data + f->l4 + 16 * i, i ? 8 : 16));
    }
    frame_free(f);
    say(rig, COLO_SECONDARY, ACK, 5, CLIENT, 0, "data");
    for (int i = 0; i < 2; i++) {
        f = frame_tcp(&(Shape) { .window = 60000 }, 5, CLIENT, ACK, NULL, 0, "data", 4);
        wide.fragment = i ? 2 : 0x2000;
        expect_untouched(rig, frame_ip(&wide, 6, f->data + f->l4 + 16 * i, i ? 8 : 16));
        frame_free(f);
    }

    say(rig, COLO_PRIMARY, 0, 9, 0, 60000, "no acknowledgement");
    say(rig, COLO_SECONDARY, ACK, 9, CLIENT, 0, "no acknowledgement");
    expect_untouched(rig, windowed(0, 9, 0, 60000, "no acknowledgement"));
    say(rig, COLO_PRIMARY, RST | ACK, 27, CLIENT, 60000, "");
    say(rig, COLO_SECONDARY, RST | ACK, 27, CLIENT, 0, "");
    expect_untouched(rig, windowed(RST | ACK, 27, CLIENT, 60000, ""));
    rig_end_well(rig);
}
END_TEST

/* The checksum of what is narrowed is right, left to offload or not, and so is what comes behind the headers. */
START_TEST(window_of_every_kind_of_frame)
{
    static const Shape shapes[] = {
        { 0 }, { .ipv6 = true }, { .vlans = 1, .pad_to = 80 }, { .vnet_len = 12 }, { .vnet_len = 12, .needs_csum = true },
        { .ipv6 = true, .extensions = 8, .vnet_len = 20, .needs_csum = true, .gso_type = GSO_TCPV6, .gso_size = 3 },
    };

    for (guint i = 0; i < G_N_ELEMENTS(shapes); i++) {
        Shape ours = shapes[i], theirs = shapes[i];
        Rig *rig = rig_new();
        Seen seen;

        ours.window = 60000;
        theirs.window = 5000;
        rig_give(rig, COLO_PRIMARY, frame_tcp(&ours, 1, CLIENT, ACK | PSH, NULL, 0, "0123456789", 10));
        rig_give(rig, COLO_SECONDARY, frame_tcp(&theirs, 1, CLIENT, ACK, NULL, 0, "0123456789", 10));
        seen = rig_next(rig);
        ck_assert_uint_eq(seen.window, 5000);
        ck_assert_uint_eq(seen.flags, ACK | PSH);
        ck_assert_uint_eq(seen.gso_type, ours.gso_type);
        ck_assert_uint_eq(seen.vnet_flags, ours.needs_csum ? VNET_NEEDS_CSUM : 0);
        ck_assert_uint_eq(seen.len, 10);
        ck_assert_mem_eq(seen.payload, "0123456789", 10);
        rig_end_well(rig);
    }
}
END_TEST

/* At a checkpoint nothing is narrowed, and what the primary has room for is what the secondary has. */
START_TEST(window_after_a_checkpoint)
{
    for (guint i = 0; i < 2 * G_N_ELEMENTS(bases); i++) {
        uint32_t ack = bases[i / 2];
        Rig *rig = rig_scaled_at(ack, 0);

        if (i % 2) {
            grant(rig, COLO_SECONDARY, ack, 0);
            grant(rig, COLO_PRIMARY, ack, 50000);
            rig_checkpoint(rig);
            expect_untouched(rig, windowed(ACK, 1, ack, 50000, ""));
        } else {
            grant(rig, COLO_SECONDARY, ack, 5000);
            grant(rig, COLO_PRIMARY, ack, 50000);
            expect_window(rig, ack, 5000);
            rig_checkpoint(rig);
        }
        rig_expect_nothing(rig);
        grant(rig, COLO_PRIMARY, ack, 50000);
        expect_window(rig, ack, 50000);
        grant(rig, COLO_PRIMARY, ack, 60000);           /* of the new epoch */
        expect_window(rig, ack, 50000);
        grant(rig, COLO_SECONDARY, ack, 55000);
        grant(rig, COLO_PRIMARY, ack, 60000);
        expect_window(rig, ack, 55000);

        /* Nor does more than that survive: the secondary may have had room for more than the primary. */
        grant(rig, COLO_SECONDARY, ack, 60000);
        rig_checkpoint(rig);
        grant(rig, COLO_PRIMARY, ack, UINT16_MAX);
        expect_window(rig, ack, 60000);
        rig_checkpoint(rig);
        grant(rig, COLO_SECONDARY, ack + 10, UINT16_MAX);
        rig_checkpoint(rig);
        grant(rig, COLO_PRIMARY, ack, UINT16_MAX);
        expect_window(rig, ack, UINT16_MAX);
        rig_end_well(rig);
    }
}
END_TEST

/* Output from before the checkpoint that comes late is as good. */
START_TEST(window_of_the_old_epoch)
{
    Rig *rig = rig_scaled_at(CLIENT, 0);

    grant(rig, COLO_SECONDARY, CLIENT, 5000);
    rig_epoch(rig, COLO_PRIMARY);
    rig_checkpoint(rig);
    grant(rig, COLO_SECONDARY, CLIENT + 100, 20000);
    grant(rig, COLO_PRIMARY, CLIENT + 100, 30000);
    expect_window(rig, CLIENT + 100, 30000);
    rig_epoch(rig, COLO_PRIMARY);
    grant(rig, COLO_PRIMARY, CLIENT + 100, 40000);
    expect_window(rig, CLIENT + 100, 30000);
    grant(rig, COLO_SECONDARY, CLIENT + 200, 35000);
    grant(rig, COLO_PRIMARY, CLIENT + 200, 40000);
    expect_window(rig, CLIENT + 200, 35000);
    rig_end_well(rig);
}
END_TEST

/* Another connection on the same ports has windows of its own, and another scale. */
START_TEST(window_after_port_reuse)
{
    static const Shape shut = { .shut = true };

    for (int secondary_first = 0; secondary_first < 2; secondary_first++) {
        Rig *rig = rig_scaled_at(CLIENT, 7);

        grant(rig, COLO_SECONDARY, CLIENT, UINT16_MAX);
        grant(rig, COLO_PRIMARY, CLIENT, 60000);
        expect_window(rig, CLIENT, 60000);
        for (int turn = 0; turn < 2; turn++) {
            rig_give(rig, turn != secondary_first, frame_tcp(&shut, turn == secondary_first ? 0x40000000 : 7, CLIENT + 9,
                                                             SYN | ACK, "\3\3\2\0", 4, NULL, 0));
        }
        rig_expect(rig, SYN | ACK, 0x40000000, 0);
        say(rig, COLO_PRIMARY, ACK, 0x40000001, CLIENT + 9, 60000, "a");
        say(rig, COLO_SECONDARY, ACK, 0x40000001, CLIENT + 9, 0, "a");
        expect_window(rig, CLIENT + 9, 0);
        say(rig, COLO_SECONDARY, ACK, 0x40000002, CLIENT + 9 + 400, 5000, "");
        say(rig, COLO_PRIMARY, ACK, 0x40000002, CLIENT + 9, 60000, "");
        expect_window(rig, CLIENT + 9, 5100);
        rig_end_well(rig);
    }
}
END_TEST

/* What is held of the old connection counts as it did there. */
START_TEST(window_before_port_reuse)
{
    static const Shape shut = { .shut = true };
    Rig *rig = rig_scaled_at(CLIENT, 7);

    say(rig, COLO_PRIMARY, ACK | FIN, 1, CLIENT, 60000, "old");
    rig_give(rig, COLO_PRIMARY, frame_tcp(&shut, 0x40000000, CLIENT + 9, SYN | ACK, "\3\3\2\0", 4, NULL, 0));
    say(rig, COLO_SECONDARY, ACK | FIN, 1, CLIENT + 1280, 100, "old");
    expect_window(rig, CLIENT, 110);
    rig_give(rig, COLO_SECONDARY, frame_tcp(&shut, 7, CLIENT + 9, SYN | ACK, "\3\3\2\0", 4, NULL, 0));
    rig_expect(rig, SYN | ACK, 0x40000000, 0);
    rig_end_well(rig);
}
END_TEST

/* A guest that has reset the connection has room for nothing; what it acknowledged may be anything. */
START_TEST(window_of_a_reset)
{
    Rig *rig = rig_scaled_at(CLIENT, 0);

    grant(rig, COLO_SECONDARY, CLIENT, 5000);
    say(rig, COLO_SECONDARY, RST | ACK, 1, CLIENT + 20000, 0, "");
    say(rig, COLO_PRIMARY, ACK, 1, CLIENT + 20000, 60000, "");
    rig_expect_nothing(rig);
    say(rig, COLO_PRIMARY, ACK, 1, CLIENT + 20000, 60000, "");
    expect_window(rig, CLIENT + 20000, 0);
    rig_expect_nothing(rig);
    rig_free(rig);
}
END_TEST

/* The beginning */

START_TEST(isns_differ)
{
    static const uint32_t isns[] = { 0, 1, 0x7fffffff, 0x80000000, 0xfffffffe, UINT32_MAX };

    for (guint i = 0; i < G_N_ELEMENTS(isns); i++) {
        for (guint j = 0; j < G_N_ELEMENTS(isns); j++) {
            for (int variant = 0; variant < 4; variant++) {
                uint8_t flags = variant & 1 ? SYN | ACK : SYN;
                Rig *rig = rig_new();

                if (variant & 2) {
                    secondary(rig, flags, isns[j], CLIENT, "");
                    primary(rig, flags, isns[i], CLIENT, "");
                } else {
                    primary(rig, flags, isns[i], CLIENT, "");
                    rig_expect_nothing(rig);
                    secondary(rig, flags, isns[j], CLIENT, "");
                }
                rig_expect(rig, flags, isns[i], 0);
                /* From here on the rewriter has mapped the secondary's. */
                primary(rig, ACK, isns[i] + 1, CLIENT, "first");
                secondary(rig, ACK, isns[i] + 1, CLIENT, "first");
                rig_expect(rig, ACK, isns[i] + 1, 5);
                rig_end_well(rig);
            }
        }
    }
}
END_TEST

START_TEST(syn_options)
{
    static const char given[] = "\2\4\5\xb4\4\2\x08\x0a" "\1\2\3\4\0\0\0\0" "\1\3\3\7";
    static const char later[] = "\2\4\5\xb4\4\2\x08\x0a" "\1\2\4\4\0\0\0\0" "\1\3\3\7";
    static const char other_scale[] = "\2\4\5\xb4\4\2\x08\x0a" "\1\2\3\4\0\0\0\0" "\1\3\3\6";
    static const char other_mss[] = "\2\4\2\x18\4\2\x08\x0a" "\1\2\3\4\0\0\0\0" "\1\3\3\7";
    const struct {
        const char *options;
        uint32_t len;
        bool same;
    } cases[] = {
        { given, 20, true }, { later, 20, true }, { other_scale, 20, false }, { other_mss, 20, false },
        { given, 16, false }, { given, 4, false }, { "", 0, false },
    };

    for (guint i = 0; i < G_N_ELEMENTS(cases); i++) {
        for (int secondary_first = 0; secondary_first < 2; secondary_first++) {
            Rig *rig = rig_new();

            for (int turn = 0; turn < 2; turn++) {
                if (turn == secondary_first) {
                    rig_give(rig, COLO_PRIMARY, frame_tcp(&plain, 9, 7, SYN | ACK, given, 20, NULL, 0));
                } else {
                    rig_give(rig, COLO_SECONDARY,
                             frame_tcp(&plain, 1234, 7, SYN | ACK, cases[i].options, cases[i].len, NULL, 0));
                }
            }
            if (cases[i].same) {
                rig_expect(rig, SYN | ACK, 9, 0);
                rig_end_well(rig);
            } else {
                rig_expect_nothing(rig);
                rig_expect_asked(rig, 1, COLO_REASON_OPTIONS);
                rig_free(rig);
            }
        }
    }
}
END_TEST

START_TEST(syn_against_syn_ack)
{
    for (int i = 0; i < 4; i++) {
        Rig *rig = rig_new();

        rig_text(rig, i & 1, i & 2 ? SYN : SYN | ACK, 9, CLIENT, "");
        rig_text(rig, !(i & 1), i & 2 ? SYN | ACK : SYN, 99, CLIENT, "");
        rig_expect_nothing(rig);
        rig_expect_asked(rig, 1, COLO_REASON_FLAGS);
        rig_free(rig);
    }
}
END_TEST

/* SYN cookies are of the minute: the answers to a SYN and to its repetition differ, and the client takes the first. */
START_TEST(the_first_of_two_syn_acks)
{
    Rig *rig = rig_new();

    for (uint32_t isn = 1000; isn <= 500000; isn += 499000) {
        primary(rig, SYN | ACK, isn, CLIENT, "");
        secondary(rig, SYN | ACK, isn + 90000, CLIENT, "");
        rig_expect(rig, SYN | ACK, isn, 0);
    }
    for (uint32_t i = 0; i < 5; i++) {
        primary(rig, ACK, 1001 + 5 * i, CLIENT, "hello");
        secondary(rig, ACK, 1001 + 5 * i, CLIENT, "hello");
        if (i == 0) {
            rig_expect_nothing(rig);        /* it begins where nothing is known to begin */
            rig_wait(rig, RIG_TIMEOUT);
            rig_checkpoint(rig);
        }
        rig_expect(rig, ACK, 1001 + 5 * i, 5);
    }
    ck_assert_int_eq(rig->asked, 1);
    rig_free(rig);
}
END_TEST

START_TEST(syn_ack_gated_by_its_acknowledgement)
{
    Rig *rig = rig_new();

    primary(rig, SYN | ACK, 9, CLIENT + 1, "");
    secondary(rig, SYN | ACK, 99, CLIENT, "");
    rig_expect_nothing(rig);
    secondary(rig, SYN | ACK, 99, CLIENT + 1, "");
    rig_expect(rig, SYN | ACK, 9, 0);
    rig_end_well(rig);
}
END_TEST

START_TEST(repeated_syn)
{
    Rig *rig = rig_new();

    /* Each side repeats its own as often as it likes. */
    primary(rig, SYN | ACK, 9, CLIENT, "");
    primary(rig, SYN | ACK, 9, CLIENT, "");
    secondary(rig, SYN | ACK, 99, CLIENT, "");
    rig_expect(rig, SYN | ACK, 9, 0);
    rig_expect(rig, SYN | ACK, 9, 0);
    secondary(rig, SYN | ACK, 99, CLIENT, "");
    secondary(rig, SYN | ACK, 99, CLIENT, "");
    primary(rig, SYN | ACK, 9, CLIENT, "");
    rig_expect(rig, SYN | ACK, 9, 0);
    primary(rig, ACK, 10, CLIENT, "abc");
    secondary(rig, ACK, 10, CLIENT, "abc");
    rig_expect(rig, ACK, 10, 3);
    secondary(rig, SYN | ACK, 99, CLIENT, "");
    primary(rig, ACK, 13, CLIENT, "def");
    rig_expect_nothing(rig);
    secondary(rig, ACK, 13, CLIENT, "def");
    rig_expect(rig, ACK, 13, 3);
    rig_end_well(rig);
}
END_TEST

START_TEST(simultaneous_open)
{
    Rig *rig = rig_new();

    primary(rig, SYN, 9, 0, "");
    secondary(rig, SYN, 99, 0, "");
    rig_expect(rig, SYN, 9, 0);
    primary(rig, SYN | ACK, 9, CLIENT, "");
    rig_expect_nothing(rig);
    secondary(rig, SYN | ACK, 99, CLIENT, "");
    rig_expect(rig, SYN | ACK, 9, 0);
    primary(rig, ACK, 10, CLIENT, "abc");
    secondary(rig, ACK, 10, CLIENT, "abc");
    rig_expect(rig, ACK, 10, 3);
    rig_end_well(rig);
}
END_TEST

/* The same addresses and ports again, with numbers far behind and far before the old ones. */
START_TEST(port_reuse)
{
    static const uint32_t isns[] = { 0x1000, 0x70000000, 0x80000900, 0x90000000, 0xfffffff0 };

    for (guint i = 0; i < G_N_ELEMENTS(isns); i++) {
        for (int secondary_first = 0; secondary_first < 2; secondary_first++) {
            uint32_t isn = isns[i], client = CLIENT + 0x80000000u * (i % 2) + 77;
            Rig *rig = rig_open(0x900);

            primary(rig, ACK | FIN, 0x900, CLIENT, "old");
            secondary(rig, ACK | FIN, 0x900, CLIENT, "old");
            rig_expect(rig, ACK | FIN, 0x900, 3);
            secondary(rig, ACK, 0x904, CLIENT + 1, "");     /* which the primary has not said */

            if (secondary_first) {
                secondary(rig, SYN | ACK, 4, client, "");
                primary(rig, SYN | ACK, isn, client, "");
            } else {
                primary(rig, SYN | ACK, isn, client, "");
                rig_expect_nothing(rig);
                secondary(rig, SYN | ACK, 4, client, "");
            }
            rig_expect(rig, SYN | ACK, isn, 0);
            primary(rig, ACK, isn + 1, client + 5, "new");
            rig_expect_nothing(rig);
            secondary(rig, ACK, isn + 1, client, "new");
            rig_expect_nothing(rig);            /* not by an acknowledgement of the old connection */
            secondary(rig, ACK, isn + 4, client + 5, "");
            rig_expect(rig, ACK, isn + 1, 3);
            rig_end_well(rig);
        }
    }
}
END_TEST

/* The primary drops a connection and opens another while output of the first is held. */
START_TEST(port_reuse_with_old_output_held)
{
    static const uint32_t isns[] = { 0x1000, 0x70000000, 0x80000900, 0x90000000, 0xfffffff0 };

    for (guint i = 0; i < 2 * G_N_ELEMENTS(isns); i++) {
        uint8_t flags = i % 2 ? SYN : SYN | ACK;
        Rig *rig = rig_open(0x900);

        primary(rig, ACK, 0x900, CLIENT, "never sent by the secondary");
        primary(rig, flags, isns[i / 2], CLIENT + 1000, "");
        secondary(rig, flags, 4, CLIENT + 1000, "");
        secondary(rig, ACK, isns[i / 2] + 1, CLIENT + 1000, "");
        while (rig_pending(rig)) {
            ck_assert_msg(rig_next(rig).len == 0, "bytes left that the secondary has not sent");
        }
        rig_wait(rig, RIG_TIMEOUT);
        ck_assert_int_eq(rig->asked, 1);
        rig_checkpoint(rig);
        ck_assert_uint_eq(rig->released->len, 3);   /* SYN-ACK, data, SYN: all of it, once */
        rig_free(rig);
    }
}
END_TEST

/* The new SYN's turn comes when the old output has left, also when that comes out of one segment with more in it. */
START_TEST(port_reuse_behind_old_output)
{
    static const uint32_t isns[] = { 0x1000, 0x70000000, 0x80000900, 0x90000000, 0xfffffff0 };

    for (guint i = 0; i < G_N_ELEMENTS(isns); i++) {
        Rig *rig = rig_open(0x900);

        primary(rig, ACK | FIN, 0x900, CLIENT, "old");
        primary(rig, SYN, isns[i], 0, "");
        primary(rig, SYN, isns[i], 0, "");
        rig_expect_nothing(rig);
        secondary(rig, ACK, 0x900, CLIENT, "ol");
        rig_expect(rig, ACK, 0x900, 2);
        rig_expect_nothing(rig);
        secondary(rig, ACK, 0x908, CLIENT, "never said by the primary");
        secondary(rig, ACK | FIN, 0x902, CLIENT, "d");
        rig_expect(rig, ACK | FIN, 0x902, 1);
        rig_expect_nothing(rig);
        secondary(rig, SYN, 4, 0, "");
        rig_expect(rig, SYN, isns[i], 0);
        rig_expect(rig, SYN, isns[i], 0);
        primary(rig, ACK, isns[i] + 1, CLIENT + 77, "new");
        secondary(rig, ACK, isns[i] + 1, CLIENT + 77, "new");
        rig_expect(rig, ACK, isns[i] + 1, 3);
        rig_end_well(rig);

        /* The secondary's one segment ends the wait and reaches beyond it. */
        rig = rig_open(0x900);
        primary(rig, ACK, 0x900, CLIENT, "old");
        primary(rig, SYN, isns[i], 0, "");
        secondary(rig, ACK, 0x900, CLIENT, "old and more");
        rig_expect(rig, ACK, 0x900, 3);
        rig_expect_nothing(rig);
        ck_assert_uint_eq(rig_held(rig, COLO_SECONDARY), 0);
        secondary(rig, SYN, 4, 0, "");
        rig_expect(rig, SYN, isns[i], 0);
        rig_end_well(rig);
    }
}
END_TEST

/* The primary has forgotten a connection that the secondary knows in TIME-WAIT; the client opens it anew. */
START_TEST(port_reuse_behind_a_reset)
{
    Rig *rig = rig_open(0x900);

    primary(rig, RST, 0x900, 0, "");
    primary(rig, RST | ACK, 0x900, CLIENT, "");
    rig_wait(rig, RIG_TIMEOUT / 4);
    ck_assert_int_eq(rig->asked, 0);
    primary(rig, SYN | ACK, 0x70000000, CLIENT + 1000, "");
    rig_wait(rig, RIG_TIMEOUT / 4);
    rig_expect_asked(rig, 1, COLO_REASON_FLAGS);
    rig_checkpoint(rig);
    rig_expect(rig, RST, 0x900, 0);
    rig_expect(rig, RST | ACK, 0x900, 0);
    rig_expect(rig, SYN | ACK, 0x70000000, 0);
    rig_free(rig);

    /* If it is the guest that opens another, the secondary is only slower. */
    rig = rig_open(0x900);
    primary(rig, RST, 0x900, 0, "");
    primary(rig, SYN, 0x70000000, 0, "");
    rig_wait(rig, RIG_TIMEOUT / 2);
    ck_assert_int_eq(rig->asked, 0);
    secondary(rig, RST, 0x900, 0, "");
    rig_expect(rig, RST, 0x900, 0);
    secondary(rig, SYN, 4, 0, "");
    rig_expect(rig, SYN, 0x70000000, 0);
    rig_end_well(rig);
}
END_TEST

/* RST */

START_TEST(rst_waits_for_the_secondary)
{
    for (int variant = 0; variant < 4; variant++) {
        uint8_t flags = variant & 1 ? RST | ACK : RST;
        Rig *rig = rig_open(1);

        if (variant & 2) {
            secondary(rig, flags, 1, CLIENT, "");
            primary(rig, flags, 1, CLIENT, "");
        } else {
            primary(rig, flags, 1, CLIENT, "");
            rig_expect_nothing(rig);
            secondary(rig, ACK, 1, CLIENT, "");
            rig_expect_nothing(rig);
            secondary(rig, flags, 1, CLIENT, "");
        }
        rig_expect(rig, flags, 1, 0);
        rig_end_well(rig);
    }
}
END_TEST

/* The answer to a SYN for a closed port: RST|ACK, sequence number 0, on both sides. */
START_TEST(rst_from_a_closed_port)
{
    for (int secondary_first = 0; secondary_first < 2; secondary_first++) {
        Rig *rig = rig_new();

        for (int attempt = 0; attempt < 3; attempt++) {
            uint32_t ack = 0xc0000000u * (uint32_t)attempt + 5;     /* each attempt with another client ISN */

            if (secondary_first) {
                secondary(rig, RST | ACK, 0, ack, "");
                primary(rig, RST | ACK, 0, ack, "");
            } else {
                primary(rig, RST | ACK, 0, ack, "");
                rig_expect_nothing(rig);
                secondary(rig, RST | ACK, 0, ack, "");
            }
            rig_expect(rig, RST | ACK, 0, 0);
        }
        rig_end_well(rig);
    }
}
END_TEST

/* It may say why (RFC 9293, section 3.5.3): that is no part of the stream. */
START_TEST(rst_with_text)
{
    for (int variant = 0; variant < 4; variant++) {
        Rig *rig = rig_open(1);

        primary(rig, variant & 1 ? RST | FIN : RST, 1, 0, "because");
        rig_expect_nothing(rig);
        secondary(rig, RST, 1, 0, variant & 2 ? "because" : "");
        ck_assert_uint_eq(rig_next(rig).len, 7);
        primary(rig, ACK, 1, CLIENT, "goes on");
        secondary(rig, ACK, 1, CLIENT, "goes on");
        rig_expect(rig, ACK, 1, 7);
        rig_end_well(rig);
    }
}
END_TEST

/* Each of the secondary's stands for one of the primary's, and for its repetitions. */
START_TEST(rst_is_used_up)
{
    for (int with_ack = 0; with_ack < 2; with_ack++) {
        uint8_t flags = with_ack ? RST | ACK : RST;
        Rig *rig = rig_new();

        secondary(rig, flags, 10, CLIENT, "");
        primary(rig, flags, 10, CLIENT, "");
        rig_expect(rig, flags, 10, 0);
        primary(rig, flags, 10, CLIENT, "");
        rig_expect(rig, flags, 10, 0);
        primary(rig, flags, 20, CLIENT, "");
        rig_expect_nothing(rig);
        secondary(rig, flags, 20, CLIENT, "");
        rig_expect(rig, flags, 20, 0);
        /* A repetition uses nothing up. */
        secondary(rig, flags, 30, CLIENT, "");
        primary(rig, flags, 20, CLIENT, "");
        rig_expect(rig, flags, 20, 0);
        primary(rig, flags, 30, CLIENT, "");
        rig_expect(rig, flags, 30, 0);
        rig_end_well(rig);
    }
}
END_TEST

/* Segments that are under way to a connection which the guest has cut off are answered by a RST each. */
START_TEST(resets_in_a_row)
{
    for (uint32_t n = 1; n <= 4; n++) {
        for (ColoSide first = COLO_PRIMARY; first <= COLO_SECONDARY; first++) {
            Rig *rig = rig_new();

            for (int turn = 0; turn < 2; turn++) {
                ColoSide side = turn ? !first : first;

                for (uint32_t i = 0; i < n; i++) {
                    rig_give(rig, side, frame_tcp(&plain, 1 + 100 * i, 0, RST, NULL, 0, NULL, 0));
                }
            }
            for (uint32_t i = 0; i < n; i++) {
                rig_expect(rig, RST, 1 + 100 * i, 0);
            }
            primary(rig, RST, 1 + 100 * n, 0, "");
            rig_expect_nothing(rig);
            rig_free(rig);
        }
    }
}
END_TEST

/* One with an acknowledgement, of 0 at that, does not repeat one without. */
START_TEST(rst_with_an_acknowledgement_is_another)
{
    for (int first = 0; first < 2; first++) {
        Rig *rig = rig_new();

        primary(rig, first ? RST : RST | ACK, 10, 0, "");
        secondary(rig, first ? RST : RST | ACK, 10, 0, "");
        rig_expect(rig, first ? RST : RST | ACK, 10, 0);
        primary(rig, first ? RST | ACK : RST, 10, 0, "");
        rig_expect_nothing(rig);
        secondary(rig, first ? RST | ACK : RST, 10, 0, "");
        rig_expect(rig, first ? RST | ACK : RST, 10, 0);
        rig_end_well(rig);
    }
}
END_TEST

START_TEST(rst_does_not_overtake)
{
    Rig *rig = rig_open(1);

    primary(rig, ACK, 1, CLIENT, "abc");
    primary(rig, RST, 4, 0, "");
    secondary(rig, ACK, 1, CLIENT, "ab");
    rig_expect(rig, ACK, 1, 2);
    rig_expect_nothing(rig);
    secondary(rig, ACK, 3, CLIENT, "c");
    rig_expect(rig, ACK, 3, 1);
    rig_expect_nothing(rig);
    secondary(rig, RST, 4, 0, "");
    rig_expect(rig, RST, 4, 0);
    rig_end_well(rig);
}
END_TEST

START_TEST(secondary_resets_a_live_connection)
{
    for (int secondary_first = 0; secondary_first < 2; secondary_first++) {
        Rig *rig = rig_open(1);

        if (!secondary_first) {
            primary(rig, ACK, 1, CLIENT, "abc");
        }
        secondary(rig, RST, 1, 0, "");
        if (secondary_first) {
            rig_expect_asked(rig, 0, 0);
            primary(rig, ACK, 1, CLIENT, "abc");
        }
        rig_expect_nothing(rig);
        rig_expect_asked(rig, 1, COLO_REASON_SECONDARY_RESET);
        rig_checkpoint(rig);
        rig_expect(rig, ACK, 1, 3);

        /* After the checkpoint the secondary's RST is undone. */
        primary(rig, RST, 4, 0, "");
        rig_expect_nothing(rig);
        secondary(rig, RST, 4, 0, "");
        rig_expect(rig, RST, 4, 0);
        rig_free(rig);
    }
}
END_TEST

START_TEST(secondary_refuses_a_connection)
{
    Rig *rig = rig_new();

    primary(rig, SYN | ACK, 9, CLIENT, "");
    secondary(rig, RST | ACK, 0, CLIENT, "");
    rig_expect_nothing(rig);
    rig_expect_asked(rig, 1, COLO_REASON_SECONDARY_RESET);
    rig_free(rig);
}
END_TEST

START_TEST(rst_of_an_old_connection_does_not_count)
{
    Rig *rig = rig_open(1);

    primary(rig, RST, 1, 0, "");
    secondary(rig, RST, 1, 0, "");
    rig_expect(rig, RST, 1, 0);
    open_at(rig, 0x40000000);
    primary(rig, RST, 0x40000000, 0, "");
    rig_expect_nothing(rig);
    secondary(rig, RST, 0x40000000, 0, "");
    rig_expect(rig, RST, 0x40000000, 0);
    rig_end_well(rig);
}
END_TEST

/* Nor does one that is left over when the primary opens the next and the secondary has not yet. */
START_TEST(left_over_rst_of_an_old_connection)
{
    Rig *rig = rig_open(1);

    primary(rig, RST, 1, 0, "");
    secondary(rig, RST, 1, 0, "");
    rig_expect(rig, RST, 1, 0);
    secondary(rig, RST, 1, 0, "");
    primary(rig, SYN | ACK, 0x40000000, CLIENT, "");
    rig_expect_asked(rig, 0, 0);
    secondary(rig, SYN | ACK, 77, CLIENT, "");
    rig_expect(rig, SYN | ACK, 0x40000000, 0);
    rig_end_well(rig);
}
END_TEST

/* Flows of their own */

START_TEST(flows_do_not_mix)
{
    static const Shape shapes[] = {
        { 0 }, { .peer_port = 1 }, { .guest_port = 1 }, { .peer_host = 9 }, { .ipv6 = true },
        { .vlans = 1, .vlan = { 5 } }, { .vlans = 1, .vlan = { 6 } }, { .vlans = 2, .vlan = { 5, 7 } },
    };
    Rig *rig = rig_new();

    for (guint i = 0; i < G_N_ELEMENTS(shapes); i++) {
        rig_give(rig, COLO_PRIMARY, frame_tcp(&shapes[i], 1, 1, ACK, NULL, 0, "abc", 3));
    }
    for (guint i = G_N_ELEMENTS(shapes); i > 0; i--) {
        ck_assert_uint_eq(rig_held(rig, COLO_PRIMARY), i);
        rig_expect_nothing(rig);
        rig_give(rig, COLO_SECONDARY, frame_tcp(&shapes[i - 1], 1, 1, ACK, NULL, 0, "abc", 3));
        rig_expect(rig, ACK, 1, 3);
    }
    ck_assert_uint_eq(colo_comparator_flows(rig->c), G_N_ELEMENTS(shapes));
    rig_end_well(rig);
}
END_TEST

/* Small spaces, whole */

/*
 * A stream of four bytes and a FIN, cut in all 16 ways on each side, in all orders of arrival: 16 * 16 pairs of
 * cuts.  The oracle is one line: what has left is what both have sent.  Acknowledgements either stand still
 * or grow with the stream; in that case a primary segment leaves only whole.
 */
enum {
    UNITS = 5,
    CUTS = 1 << (UNITS - 1),
};

typedef struct {
    int n;
    int end[UNITS + 1];     /* of segment i; end[-1] is 0 */
} Cut;

static Cut cut_of(int bits)
{
    Cut cut = { .n = 0 };

    for (int i = 1; i <= UNITS; i++) {
        if (i == UNITS || bits >> (i - 1) & 1) {
            cut.end[cut.n++] = i;
        }
    }
    return cut;
}

static void give_units(Rig *rig, ColoSide side, uint32_t base, int from, int to, bool acks_grow)
{
    bool fin = to == UNITS;

    rig_tcp(rig, side, fin ? ACK | FIN : ACK, base + (uint32_t)from, acks_grow ? CLIENT + (uint32_t)to : CLIENT,
            "last" + from, (uint32_t)(to - from - fin));
}

static void check_run(const Cut *ours, const Cut *theirs, uint32_t order, uint32_t base, bool acks_grow)
{
    int given[2] = { 0, 0 }, sent[2] = { 0, 0 };
    int left = 0;
    Rig *rig = rig_open(base);

    for (int step = 0; step < ours->n + theirs->n; step++) {
        ColoSide side = order >> step & 1 ? COLO_PRIMARY : COLO_SECONDARY;
        const Cut *cut = side == COLO_PRIMARY ? ours : theirs;
        int to = cut->end[given[side]++];
        int may_leave = 0;

        give_units(rig, side, base, sent[side], to, acks_grow);
        sent[side] = to;
        if (acks_grow) {
            for (int i = 0; i < given[COLO_PRIMARY] && ours->end[i] <= sent[COLO_SECONDARY]; i++) {
                may_leave = ours->end[i];
            }
        } else {
            may_leave = MIN(sent[COLO_PRIMARY], sent[COLO_SECONDARY]);
        }
        while (rig_pending(rig)) {
            Seen seen = rig_next(rig);
            bool fin = seen.flags & FIN;

            ck_assert_uint_eq(seen.seq, base + (uint32_t)left);
            ck_assert_uint_ge(seen.seq_len, 1);
            ck_assert_mem_eq(seen.payload, "last" + left, seen.len);
            left += (int)seen.seq_len;
            ck_assert_int_le(left, may_leave);
            ck_assert_int_eq(fin, left == UNITS);
        }
        ck_assert_int_eq(left, may_leave);
    }
    ck_assert_int_eq(left, UNITS);
    rig_end_well(rig);
}

START_TEST(every_cut_in_every_order)
{
    int runs = 0;

    for (int a = 0; a < CUTS; a++) {
        for (int b = 0; b < CUTS; b++) {
            Cut ours = cut_of(a), theirs = cut_of(b);

            for (uint32_t order = 0; order < 1u << (ours.n + theirs.n); order++) {
                if (__builtin_popcount(order) == ours.n) {
                    uint32_t base = 0u - (uint32_t)runs % (UNITS + 2);  /* the wrap wanders through the stream */

                    check_run(&ours, &theirs, order, base, _i);
                    runs++;
                }
            }
        }
    }
    ck_assert_int_eq(runs, 6802);
}
END_TEST

/* Random streams */

enum {
    STREAM = 4000,
};

typedef struct {
    uint32_t sent;          /* units up to which all has been sent */
    uint32_t acked;
} Side;

/* Gives the units [@from, @to) of the stream, with the FIN at its end. */
static void give_stream(Rig *rig, ColoSide side, const uint8_t *bytes, uint32_t base, uint32_t from, uint32_t to,
                        uint32_t ack)
{
    bool fin = to == STREAM + 1 && to > from;

    rig_tcp(rig, side, fin ? ACK | FIN : ACK, base + from, ack, bytes + from, to - from - fin);
}

static void collect(Rig *rig, const uint8_t *bytes, uint32_t base, uint32_t *left, uint32_t may_leave,
                    uint32_t max_ack)
{
    while (rig_pending(rig)) {
        Seen seen = rig_next(rig);
        uint32_t from = seen.seq - base;

        ck_assert_uint_le(from, *left);         /* no gap */
        ck_assert_mem_eq(seen.payload, bytes + from, seen.len);
        ck_assert_int_eq(!!(seen.flags & FIN), seen.seq_len && from + seen.seq_len == STREAM + 1);
        ck_assert_msg(from + seen.seq_len <= may_leave, "unit %u has left, the secondary stands by %u",
                      from + seen.seq_len, may_leave);
        ck_assert_int_le((int32_t)(seen.ack - max_ack), 0);
        *left = MAX(*left, from + seen.seq_len);
    }
}

/*
 * Both sides send the same stream, each cutting, repeating and (the secondary) reordering as it likes; checkpoints in
 * between.  Nothing that the secondary has not sent leaves; everything does in the end; with still acknowledgements
 * whatever may leave does so at once.
 */
static void random_run(GRand *rand)
{
    bool acks_grow = g_rand_boolean(rand), checkpoints = g_rand_boolean(rand);
    bool repetitions = g_rand_boolean(rand), reordering = g_rand_boolean(rand);
    uint32_t longest = g_rand_boolean(rand) ? 1500 : 40;
    uint32_t base = 0u - (uint32_t)g_rand_int_range(rand, 0, STREAM + 2);
    uint32_t client = g_rand_boolean(rand) ? g_rand_int(rand) : 0u - (uint32_t)g_rand_int_range(rand, 0, 100);
    uint8_t *bytes = bytes_of(g_rand_int(rand), STREAM + 1);
    Side sides[2] = { { 0, client }, { 0, client } };
    uint32_t left = 0, may_leave = 0, late_from = 0, late_to = 0;
    Rig *rig = rig_new();

    rig_text(rig, COLO_PRIMARY, SYN | ACK, base - 1, client, "");
    rig_text(rig, COLO_SECONDARY, SYN | ACK, g_rand_int(rand), client, "");
    rig_expect(rig, SYN | ACK, base - 1, 0);

    while (sides[0].sent <= STREAM || sides[1].sent <= STREAM || late_to) {
        ColoSide side = g_rand_boolean(rand) ? COLO_PRIMARY : COLO_SECONDARY;
        Side *s = &sides[side];
        uint32_t from = s->sent, to;

        if (side == COLO_SECONDARY && late_to && g_rand_boolean(rand)) {
            give_stream(rig, side, bytes, base, late_from, late_to, s->acked);
            s->sent = MAX(s->sent, may_leave);
            may_leave = s->sent;
            late_from = late_to = 0;
        } else {
            if (acks_grow && g_rand_int_range(rand, 0, 3) == 0) {
                s->acked += (uint32_t)g_rand_int_range(rand, 0, 50);
            }
            if (repetitions && from && !(side == COLO_SECONDARY && late_to) && g_rand_int_range(rand, 0, 4) == 0) {
                from = (uint32_t)g_rand_int_range(rand, 0, (gint32)from);
            }
            to = from + (uint32_t)g_rand_int_range(rand, 0, (gint32)longest);
            to = MIN(to, STREAM + 1);
            if (side == COLO_SECONDARY && reordering && !late_to && to > from && from == s->sent &&
                g_rand_int_range(rand, 0, 8) == 0) {
                late_from = from;       /* this one comes later */
                late_to = to;
                s->sent = to;
            } else {
                give_stream(rig, side, bytes, base, from, to, s->acked);
                s->sent = MAX(s->sent, to);
            }
            if (side == COLO_SECONDARY && !late_to) {
                may_leave = s->sent;
            }
        }

        collect(rig, bytes, base, &left, may_leave, sides[COLO_SECONDARY].acked);
        if (!acks_grow) {
            ck_assert_uint_eq(left, MIN(sides[COLO_PRIMARY].sent, may_leave));
        }
        if (checkpoints && g_rand_int_range(rand, 0, 60) == 0) {
            rig_checkpoint(rig);
            /* The secondary is the primary's copy: it has sent, and will repeat, what that has. */
            collect(rig, bytes, base, &left, sides[COLO_PRIMARY].sent,
                    (int32_t)(sides[0].acked - sides[1].acked) > 0 ? sides[0].acked : sides[1].acked);
            sides[COLO_SECONDARY] = sides[COLO_PRIMARY];
            may_leave = sides[COLO_PRIMARY].sent;
            late_from = late_to = 0;
        }
    }
    /* A last word from both. */
    if ((int32_t)(sides[0].acked - sides[1].acked) > 0) {
        sides[1].acked = sides[0].acked;
    }
    rig_text(rig, COLO_SECONDARY, ACK, base + STREAM + 1, sides[1].acked, "");
    collect(rig, bytes, base, &left, STREAM + 1, sides[1].acked);
    ck_assert_uint_eq(left, STREAM + 1);
    rig_end_well(rig);
    g_free(bytes);
}

START_TEST(random_streams)
{
    GRand *rand = g_rand_new_with_seed(test_seed("random_streams"));

    for (int run = 0; run < 400; run++) {
        random_run(rand);
    }
    g_rand_free(rand);
}
END_TEST

/* Whatever comes in goes out, once, in the order in which the flow sent it, when a checkpoint settles it. */
START_TEST(nothing_lost_at_a_checkpoint)
{
    GRand *rand = g_rand_new_with_seed(test_seed("nothing_lost_at_a_checkpoint"));

    for (int run = 0; run < 200; run++) {
        Rig *rig = rig_open(1);
        int sent = 0, got = 0;

        for (int i = 0; i < 100; i++) {
            /* Anything at all: positions far apart, RST, SYN, FIN. */
            static const uint8_t flags[] = { ACK, ACK, ACK | FIN, SYN, SYN | ACK, RST, RST | ACK, 0 };
            uint32_t seq = g_rand_boolean(rand) ? g_rand_int(rand) : (uint32_t)g_rand_int_range(rand, 0, 200);
            uint8_t f = flags[g_rand_int_range(rand, 0, G_N_ELEMENTS(flags))];

            if (g_rand_int_range(rand, 0, 3)) {
                rig_tcp(rig, COLO_PRIMARY, f, seq, CLIENT + (uint32_t)g_rand_int_range(rand, 0, 3), "payload",
                        (uint32_t)g_rand_int_range(rand, 0, 8));
                sent++;
            } else {
                rig_tcp(rig, COLO_SECONDARY, f, seq, CLIENT + (uint32_t)g_rand_int_range(rand, 0, 3), "payload",
                        (uint32_t)g_rand_int_range(rand, 0, 8));
            }
        }
        rig_checkpoint(rig);
        while (rig_pending(rig)) {
            rig_next(rig);      /* checks lengths and checksums */
            got++;
        }
        ck_assert_int_ge(got, sent);        /* a cut one leaves as two or more */
        rig_free(rig);
    }
    g_rand_free(rand);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("compare-tcp");
    TCase *tc = tcase_create("data");

    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, either_side_first);
    tcase_add_test(tc, primary_far_ahead);
    tcase_add_test(tc, secondary_far_ahead);
    tcase_add_test(tc, joined_in_the_middle);
    tcase_add_test(tc, joined_at_an_acknowledgement);
    tcase_add_test(tc, different_bytes);
    tcase_add_test(tc, one_wrong_byte_anywhere);
    tcase_add_test(tc, offset_of_a_byte);
    tcase_add_test(tc, offset_in_a_repetition);
    tcase_add_test(tc, offset_of_the_end);
    tcase_add_test(tc, offset_of_a_syn);
    tcase_add_test(tc, offset_of_what_is_missing);
    tcase_add_test(tc, offset_after_gigabytes);
    tcase_add_test(tc, matching_goes_on_after_a_question);
    tcase_add_test(tc, out_of_order_secondary);
    tcase_add_test(tc, repetitions_cut_otherwise);
    tcase_add_test(tc, what_is_not_compared);
    tcase_add_test(tc, timestamps_differ);
    tcase_add_test(tc, prefix_leaves_at_once);
    tcase_add_test(tc, prefix_of_a_segment_that_has_just_come);
    tcase_add_test(tc, prefix_before_a_difference);
    tcase_add_test(tc, prefix_waits_for_its_acknowledgement);
    tcase_add_test(tc, cut_does_not_move_the_deadline);
    tcase_add_test(tc, sealed_segments_are_not_cut);
    tcase_add_test(tc, signed_segments_are_not_cut);
    tcase_add_test(tc, offload_against_segments);
    tcase_add_test(tc, offload_against_offload);
    tcase_add_test(tc, repetition_overtakes_what_is_held);
    tcase_add_test(tc, repetition_merged_with_what_is_held);
    tcase_add_test(tc, repetition_with_a_new_acknowledgement);
    tcase_add_test(tc, repetition_of_what_has_not_left);
    tcase_add_test(tc, repetition_of_what_is_not_compared_yet);
    tcase_add_test(tc, keep_alive);
    tcase_add_test(tc, flows_do_not_mix);
    suite_add_tcase(suite, tc);

    tc = tcase_create("flags");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, fin_alone_against_fin_on_data);
    tcase_add_test(tc, fin_is_not_left_out);
    tcase_add_test(tc, fin_against_data);
    tcase_add_test(tc, repeated_fin);
    tcase_add_test(tc, isns_differ);
    tcase_add_test(tc, syn_options);
    tcase_add_test(tc, syn_against_syn_ack);
    tcase_add_test(tc, the_first_of_two_syn_acks);
    tcase_add_test(tc, syn_ack_gated_by_its_acknowledgement);
    tcase_add_test(tc, repeated_syn);
    tcase_add_test(tc, simultaneous_open);
    tcase_add_test(tc, port_reuse);
    tcase_add_test(tc, port_reuse_with_old_output_held);
    tcase_add_test(tc, port_reuse_behind_old_output);
    tcase_add_test(tc, port_reuse_behind_a_reset);
    tcase_add_test(tc, rst_waits_for_the_secondary);
    tcase_add_test(tc, rst_from_a_closed_port);
    tcase_add_test(tc, rst_with_text);
    tcase_add_test(tc, rst_is_used_up);
    tcase_add_test(tc, resets_in_a_row);
    tcase_add_test(tc, rst_with_an_acknowledgement_is_another);
    tcase_add_test(tc, rst_does_not_overtake);
    tcase_add_test(tc, secondary_resets_a_live_connection);
    tcase_add_test(tc, secondary_refuses_a_connection);
    tcase_add_test(tc, rst_of_an_old_connection_does_not_count);
    tcase_add_test(tc, left_over_rst_of_an_old_connection);
    suite_add_tcase(suite, tc);

    tc = tcase_create("acknowledgements");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, acknowledgements_are_not_counted);
    tcase_add_test(tc, acknowledgement_waits_for_the_secondary);
    tcase_add_test(tc, highest_acknowledgement_counts);
    tcase_add_test(tc, acknowledgement_of_zero);
    tcase_add_test(tc, acknowledgement_on_data);
    tcase_add_test(tc, acknowledgement_behind_data_keeps_its_place);
    tcase_add_test(tc, reasons_of_a_timeout);
    suite_add_tcase(suite, tc);

    tc = tcase_create("windows");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, window_is_narrowed);
    tcase_add_test(tc, window_within_the_secondarys);
    tcase_add_test(tc, window_of_an_overtaken_segment);
    tcase_add_test(tc, window_of_a_syn);
    tcase_add_test(tc, window_of_unknown_scale);
    tcase_add_test(tc, acknowledgement_waits_for_room);
    tcase_add_test(tc, acknowledgement_waits_for_a_unit_of_room);
    tcase_add_test(tc, acknowledgement_waits_for_room_of_unknown_scale);
    tcase_add_test(tc, acknowledgement_with_something_behind_it);
    tcase_add_test(tc, acknowledgement_overtaken_by_a_repetition);
    tcase_add_test(tc, room_is_asked_for_at_the_deadline);
    tcase_add_test(tc, data_does_not_wait_for_room);
    tcase_add_test(tc, window_of_a_front);
    tcase_add_test(tc, window_of_a_repetition);
    tcase_add_test(tc, window_left_alone);
    tcase_add_test(tc, window_of_every_kind_of_frame);
    tcase_add_test(tc, window_after_a_checkpoint);
    tcase_add_test(tc, window_of_the_old_epoch);
    tcase_add_test(tc, window_after_port_reuse);
    tcase_add_test(tc, window_before_port_reuse);
    tcase_add_test(tc, window_of_a_reset);
    suite_add_tcase(suite, tc);

    tc = tcase_create("many");
    tcase_set_timeout(tc, 250);
    tcase_add_loop_test(tc, every_cut_in_every_order, 0, 2);
    tcase_add_test(tc, random_streams);
    tcase_add_test(tc, nothing_lost_at_a_checkpoint);
    suite_add_tcase(suite, tc);
    return run_suite(suite);
}
