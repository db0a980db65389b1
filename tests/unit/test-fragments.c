/*
 * Tests of fragments.c
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "rig.h"

#include <string.h>

#define GRACE (20 * MS)

enum {
    ICMPV6 = 58,
    LEN = 240,              /* of most datagrams here, the transport header included */
};

static const Shape plain;

/* Every kind of frame that a fragment may lie in. */
static const Shape shapes[] = {
    { 0 },
    { .ip_options = 8 },
    { .vlans = 2, .vlan = { 5, 6 } },
    { .vnet_len = 12 },
    { .pad_to = 400, .padding = 0xee },
    { .ipv6 = true },
    { .ipv6 = true, .extensions = 8 },
    { .ipv6 = true, .extensions = 40, .vlans = 1, .vlan = { 9 }, .vnet_len = 20 },
};

/* What an IP header carries, to be cut. */
typedef struct {
    Shape shape;
    uint8_t proto;
    uint8_t *body;
    uint32_t len;
} Datagram;

static Datagram datagram_of(const Shape *shape, Frame *whole, uint8_t proto, uint16_t id)
{
    Datagram d = { .shape = *shape, .proto = proto, .len = whole->size - whole->l4 };

    d.shape.ip_id = id;
    d.body = g_memdup2(whole->data + whole->l4, d.len);
    frame_free(whole);
    return d;
}

/* Of @len bytes with its header; its payload depends on @seed. */
static Datagram udp_datagram(const Shape *shape, uint16_t id, uint32_t len, uint32_t seed)
{
    uint8_t *payload = bytes_of(seed, len - 8);
    Shape unpadded = *shape;
    Datagram d;

    unpadded.pad_to = 0;
    d = datagram_of(&unpadded, frame_udp(&unpadded, payload, len - 8), 17, id);
    d.shape.pad_to = shape->pad_to;
    g_free(payload);
    return d;
}

static Datagram tcp_datagram(uint16_t id, uint8_t flags, uint32_t seq, uint32_t ack, const char *text)
{
    return datagram_of(&plain, frame_tcp(&plain, seq, ack, flags, NULL, 0, text, (uint32_t)strlen(text)), 6, id);
}

/* The bytes [@from, @to) of it; @more as the header says. */
static Frame *piece_saying(const Datagram *d, uint32_t from, uint32_t to, bool more)
{
    Shape s = d->shape;

    s.fragment = (uint16_t)(s.ipv6 ? from | more : from / 8 | (more ? 0x2000u : 0));
    return frame_ip(&s, d->proto, d->body + from, to - from);
}

static Frame *piece(const Datagram *d, uint32_t from, uint32_t to)
{
    return piece_saying(d, from, to, to < d->len);
}

static void give(Rig *rig, ColoSide side, const Datagram *d, uint32_t from, uint32_t to)
{
    rig_give(rig, side, piece(d, from, to));
}

/* All of it, in pieces of @size bytes; in one if that is all of it. */
static void give_all(Rig *rig, ColoSide side, const Datagram *d, uint32_t size)
{
    if (size >= d->len) {
        rig_give(rig, side, frame_ip(&d->shape, d->proto, d->body, d->len));
        return;
    }
    for (uint32_t at = 0; at < d->len; at += size) {
        give(rig, side, d, at, MIN(at + size, d->len));
    }
}

/* Fails the test unless the next frame released is @f, as it came; ends it. */
static void expect_frame(Rig *rig, Frame *f)
{
    const Released *r = rig_next_raw(rig);

    ck_assert_uint_eq(r->size, f->size);
    ck_assert_uint_eq(r->vnet_len, f->vnet_len);
    ck_assert_mem_eq(r->data, f->data, f->size);
    frame_free(f);
}

static void expect_piece(Rig *rig, const Datagram *d, uint32_t from, uint32_t to)
{
    expect_frame(rig, piece(d, from, to));
}

static void expect_all(Rig *rig, const Datagram *d, uint32_t size)
{
    if (size >= d->len) {
        expect_frame(rig, frame_ip(&d->shape, d->proto, d->body, d->len));
        return;
    }
    for (uint32_t at = 0; at < d->len; at += size) {
        expect_piece(rig, d, at, MIN(at + size, d->len));
    }
}

static void check_nothing_held(const Rig *rig)
{
    const ColoComparatorStats *stats = colo_comparator_stats(rig->c);

    for (int side = 0; side < COLO_SIDES; side++) {
        ck_assert_uint_eq(stats->held[side], 0);
        ck_assert_uint_eq(stats->held_bytes[side], 0);
    }
    ck_assert_uint_eq(stats->released.packets, stats->in[COLO_PRIMARY].packets);
    ck_assert_uint_eq(stats->released.bytes, stats->in[COLO_PRIMARY].bytes);
    ck_assert_uint_eq(stats->discarded.packets, stats->in[COLO_SECONDARY].packets);
    ck_assert_uint_eq(stats->discarded.bytes, stats->in[COLO_SECONDARY].bytes);
}

static void end_well(Rig *rig)
{
    ck_assert_uint_eq(rig_pending(rig), 0);     /* rig_expect_nothing() cannot take fragments apart */
    check_nothing_held(rig);
    rig_end_well(rig);
}

/* The same datagram */

START_TEST(cut_alike)
{
    for (guint i = 0; i < G_N_ELEMENTS(shapes); i++) {
        Datagram ours = udp_datagram(&shapes[i], 5, LEN, 1), theirs = udp_datagram(&shapes[i], 77, LEN, 1);
        Rig *rig = rig_new();

        give_all(rig, COLO_PRIMARY, &ours, 80);
        ck_assert_uint_eq(rig_pending(rig), 0);
        give(rig, COLO_SECONDARY, &theirs, 0, 80);
        give(rig, COLO_SECONDARY, &theirs, 80, 160);
        ck_assert_uint_eq(rig_pending(rig), 0);
        give(rig, COLO_SECONDARY, &theirs, 160, LEN);
        expect_all(rig, &ours, 80);
        end_well(rig);
        g_free(ours.body);
        g_free(theirs.body);
    }
}
END_TEST

/* However each side cuts, or does not; whoever is first. */
START_TEST(cut_differently)
{
    static const uint32_t sizes[] = { 8, 16, 24, 120, 232, LEN };

    for (guint i = 0; i < G_N_ELEMENTS(shapes); i++) {
        Datagram ours = udp_datagram(&shapes[i], 5, LEN, 1), theirs = udp_datagram(&shapes[i], 77, LEN, 1);

        for (guint a = 0; a < G_N_ELEMENTS(sizes); a++) {
            for (guint b = 0; b < G_N_ELEMENTS(sizes); b++) {
                Rig *rig = rig_new();

                give_all(rig, COLO_PRIMARY, &ours, sizes[a]);
                ck_assert_uint_eq(rig_pending(rig), 0);
                give_all(rig, COLO_SECONDARY, &theirs, sizes[b]);
                expect_all(rig, &ours, sizes[a]);
                give_all(rig, COLO_SECONDARY, &theirs, sizes[b]);
                ck_assert_uint_eq(rig_pending(rig), 0);
                give_all(rig, COLO_PRIMARY, &ours, sizes[a]);
                expect_all(rig, &ours, sizes[a]);
                end_well(rig);
            }
        }
        g_free(ours.body);
        g_free(theirs.body);
    }
}
END_TEST

START_TEST(different_bytes)
{
    for (guint i = 0; i < G_N_ELEMENTS(shapes); i++) {
        for (uint32_t wrong = 8; wrong < LEN; wrong += 77) {
            Datagram ours = udp_datagram(&shapes[i], 5, LEN, 1), theirs = udp_datagram(&shapes[i], 5, LEN, 1);
            Rig *rig = rig_new();

            theirs.body[wrong] ^= 1;
            give_all(rig, COLO_PRIMARY, &ours, 80);
            give_all(rig, COLO_SECONDARY, &theirs, 40);
            rig_wait(rig, GRACE - 1);
            rig_expect_asked(rig, 0, 0);
            rig_wait(rig, 1);
            rig_expect_asked(rig, 1, COLO_REASON_PAYLOAD);
            ck_assert_uint_eq(rig_pending(rig), 0);
            ck_assert_uint_eq(rig->flow.peer_port, 4711);       /* the datagram's flow, not the fragments' */
            rig_checkpoint(rig);
            expect_all(rig, &ours, 80);
            check_nothing_held(rig);
            rig_free(rig);
            g_free(ours.body);
            g_free(theirs.body);
        }
    }
}
END_TEST

/* Two datagrams of the same bytes are not the same if those bytes have another place. */
START_TEST(the_same_bytes_elsewhere)
{
    static const Shape here = { .fragment = 0x2000 }, there = { .fragment = 0x2001 };
    Rig *rig = rig_new();

    rig_give(rig, COLO_PRIMARY, frame_ip(&here, 17, "12345678", 8));
    rig_give(rig, COLO_SECONDARY, frame_ip(&there, 17, "12345678", 8));
    ck_assert_uint_eq(rig_pending(rig), 0);
    rig_free(rig);
}
END_TEST

/* All orders of four pieces; they leave as they came. */
START_TEST(every_order_of_four)
{
    static const uint32_t ends[] = { 0, 8, 80, 200, LEN };

    for (guint i = 0; i < G_N_ELEMENTS(shapes); i++) {
        Datagram d = udp_datagram(&shapes[i], 5, LEN, 1);

        for (int order = 0; order < 256; order++) {
            int pick[4] = { order & 3, order >> 2 & 3, order >> 4 & 3, order >> 6 & 3 };

            if ((1 << pick[0] | 1 << pick[1] | 1 << pick[2] | 1 << pick[3]) != 15) {
                continue;
            }
            for (int first = 0; first < COLO_SIDES; first++) {
                Rig *rig = rig_new();

                for (int side = first; side != first + 2; side++) {
                    for (int n = 0; n < 4; n++) {
                        ck_assert_uint_eq(rig_pending(rig), 0);
                        give(rig, side % 2, &d, ends[pick[n]], ends[pick[n] + 1]);
                    }
                }
                for (int n = 0; n < 4; n++) {
                    expect_piece(rig, &d, ends[pick[n]], ends[pick[n] + 1]);
                }
                end_well(rig);
            }
        }
        g_free(d.body);
    }
}
END_TEST

/* Fragments of several datagrams on their way at once; each leaves for itself. */
START_TEST(interleaved)
{
    Datagram d[3];
    Rig *rig = rig_new();

    for (uint32_t n = 0; n < 3; n++) {
        d[n] = udp_datagram(&plain, (uint16_t)n, LEN, n);
    }
    for (uint32_t at = 0; at < LEN; at += 80) {
        for (int n = 0; n < 3; n++) {
            give(rig, COLO_PRIMARY, &d[n], at, at + 80);
        }
    }
    ck_assert_uint_eq(rig_held(rig, COLO_PRIMARY), 3);
    for (uint32_t at = 0; at < LEN; at += 24) {
        give(rig, COLO_SECONDARY, &d[0], at, at + 24);
        give(rig, COLO_SECONDARY, &d[2], at, at + 24);
    }
    expect_all(rig, &d[0], 80);
    ck_assert_uint_eq(rig_pending(rig), 0);     /* the third does not overtake the second */
    give_all(rig, COLO_SECONDARY, &d[1], 160);
    expect_all(rig, &d[1], 80);
    expect_all(rig, &d[2], 80);
    end_well(rig);
    for (int n = 0; n < 3; n++) {
        g_free(d[n].body);
    }
}
END_TEST

/* What does not belong together: another identification, protocol, address or tag, or the other side's. */
START_TEST(datagrams_do_not_mix)
{
    static const struct {
        Shape shape;
        uint16_t id;
        uint8_t proto;
    } others[] = {
        { { 0 }, 6, 17 }, { { 0 }, 5, 18 }, { { .peer_host = 9 }, 5, 17 }, { { .guest_host = 9 }, 5, 17 },
        { { .vlans = 1, .vlan = { 4 } }, 5, 17 }, { { .ipv6 = true }, 5, 17 },
    };

    for (guint i = 0; i < G_N_ELEMENTS(others); i++) {
        Datagram d = udp_datagram(&plain, 5, LEN, 1), other = d;
        Rig *rig = rig_new();

        other.shape = others[i].shape;
        other.shape.ip_id = others[i].id;
        other.proto = others[i].proto;
        give(rig, COLO_PRIMARY, &d, 0, 80);
        give(rig, COLO_PRIMARY, &other, 80, LEN);
        give(rig, COLO_SECONDARY, &d, 80, LEN);
        ck_assert_uint_eq(rig_held(rig, COLO_PRIMARY), 2);
        ck_assert_uint_eq(rig_held(rig, COLO_SECONDARY), 1);
        give(rig, COLO_SECONDARY, &d, 0, 80);
        ck_assert_uint_eq(rig_held(rig, COLO_SECONDARY), 1);
        ck_assert_uint_eq(rig_pending(rig), 0);
        give(rig, COLO_PRIMARY, &d, 80, LEN);
        expect_piece(rig, &d, 0, 80);
        expect_piece(rig, &d, 80, LEN);
        rig_free(rig);
        g_free(d.body);
    }
}
END_TEST

/* The flow of a datagram's fragments goes when the datagram is whole. */
START_TEST(flows_of_fragments_go)
{
    Rig *rig = rig_new();

    for (uint32_t n = 0; n < 100; n++) {
        Datagram d = udp_datagram(&plain, (uint16_t)n, LEN, n);

        give_all(rig, COLO_PRIMARY, &d, 80);
        give_all(rig, COLO_SECONDARY, &d, 160);
        expect_all(rig, &d, 80);
        ck_assert_uint_eq(colo_comparator_flows(rig->c), 1);
        g_free(d.body);
    }
    end_well(rig);
}
END_TEST

/* The longest datagram that IP allows, and the first that it does not. */
START_TEST(longest)
{
    for (int ipv6 = 0; ipv6 < 2; ipv6++) {
        Shape s = { .ipv6 = ipv6 };
        /* IPv4 counts its header, IPv6 the extension headers: the fragment's own is still there. */
        uint32_t limit = ipv6 ? UINT16_MAX - 8 : UINT16_MAX - 20;
        Datagram d = { .shape = s, .proto = 99, .body = bytes_of(1, limit + 1), .len = limit };
        Rig *rig = rig_new();

        give_all(rig, COLO_PRIMARY, &d, 1480);
        give_all(rig, COLO_SECONDARY, &d, 32768);
        expect_all(rig, &d, 1480);
        rig_expect_asked(rig, 0, 0);
        check_nothing_held(rig);

        d.len = limit + 1;
        give_all(rig, COLO_SECONDARY, &d, 32768);
        rig_expect_asked(rig, 0, 0);
        give_all(rig, COLO_PRIMARY, &d, 32768);
        rig_expect_asked(rig, 1, COLO_REASON_PAYLOAD);
        ck_assert_uint_eq(rig_pending(rig), 0);
        rig_checkpoint(rig);
        expect_all(rig, &d, 32768);
        check_nothing_held(rig);
        rig_free(rig);
        g_free(d.body);
    }
}
END_TEST

/* What the datagram is */

/* Segments in fragments are part of the stream. */
START_TEST(segments)
{
    for (int variant = 0; variant < 8; variant++) {
        bool ours_cut = variant & 1, theirs_cut = variant & 2, secondary_first = variant & 4;
        Datagram d = tcp_datagram(5, ACK | FIN, 100, 50, "a segment in pieces");
        Rig *rig = rig_new();

        for (int turn = 0; turn < 2; turn++) {
            ColoSide side = turn == secondary_first ? COLO_PRIMARY : COLO_SECONDARY;

            ck_assert_uint_eq(rig_pending(rig), 0);
            give_all(rig, side, &d, (side == COLO_PRIMARY ? ours_cut : theirs_cut) ? 16 : d.len);
        }
        expect_all(rig, &d, ours_cut ? 16 : d.len);
        /* Once more: a repetition leaves at once, and is nothing new of the secondary's. */
        give_all(rig, COLO_PRIMARY, &d, 8);
        expect_all(rig, &d, 8);
        give_all(rig, COLO_SECONDARY, &d, 8);
        end_well(rig);
        g_free(d.body);
    }
}
END_TEST

/* The pieces cannot be cut again: a segment that came in pieces leaves when all of it is compared. */
START_TEST(segment_compared_in_part)
{
    for (int repeated = 0; repeated < 2; repeated++) {
        Datagram d = tcp_datagram(5, ACK, 100, 50, "0123456789"), again = tcp_datagram(6, ACK, 98, 50, "yz0123");
        Rig *rig = rig_new();

        rig_text(rig, COLO_SECONDARY, ACK, 90, 50, "qrstuvwxyz");
        rig_text(rig, COLO_PRIMARY, ACK, 90, 50, "qrstuvwxyz");
        rig_expect(rig, ACK, 90, 10);
        give_all(rig, COLO_PRIMARY, &d, 16);
        if (repeated) {         /* behind it, with compared bytes in front */
            give_all(rig, COLO_PRIMARY, &again, 8);
        }
        rig_text(rig, COLO_SECONDARY, ACK, 100, 50, "012");
        ck_assert_uint_eq(rig_pending(rig), 0);
        rig_text(rig, COLO_SECONDARY, ACK, 103, 50, "3456789");
        expect_all(rig, &d, 16);
        if (repeated) {
            expect_all(rig, &again, 8);
        }
        end_well(rig);
        g_free(d.body);
        g_free(again.body);
    }
}
END_TEST

START_TEST(segment_with_other_bytes)
{
    Datagram d = tcp_datagram(5, ACK, 100, 50, "a segment in pieces");
    Rig *rig = rig_new();

    rig_text(rig, COLO_SECONDARY, ACK, 100, 50, "a segment in PIECES");
    give_all(rig, COLO_PRIMARY, &d, 16);
    rig_expect_asked(rig, 1, COLO_REASON_PAYLOAD);
    ck_assert_uint_eq(rig_pending(rig), 0);
    rig_checkpoint(rig);
    expect_all(rig, &d, 16);
    check_nothing_held(rig);
    rig_free(rig);
    g_free(d.body);
}
END_TEST

START_TEST(acknowledgement_in_pieces)
{
    Datagram d = tcp_datagram(5, ACK, 100, 60, "");
    Rig *rig = rig_new();

    give_all(rig, COLO_PRIMARY, &d, 8);
    rig_text(rig, COLO_SECONDARY, ACK, 100, 59, "");
    ck_assert_uint_eq(rig_pending(rig), 0);
    give_all(rig, COLO_SECONDARY, &d, 16);
    expect_all(rig, &d, 8);
    end_well(rig);
    g_free(d.body);
}
END_TEST

START_TEST(echo)
{
    for (int ipv6 = 0; ipv6 < 2; ipv6++) {
        Shape s = { .ipv6 = ipv6 };
        Datagram d = datagram_of(&s, frame_echo(&s, 1, 2, "a long ping that came in pieces", 31), ipv6 ? ICMPV6 : 1, 5);
        Rig *rig = rig_new();

        give_all(rig, COLO_PRIMARY, &d, 16);
        give_all(rig, COLO_SECONDARY, &d, 24);
        expect_all(rig, &d, 16);
        end_well(rig);
        g_free(d.body);
    }
}
END_TEST

/* A neighbour advertisement is no service to the client, in pieces or not. */
START_TEST(local_in_pieces)
{
    static const Shape s = { .ipv6 = true, .ip_id = 5 };
    uint8_t body[32] = { 136 };
    Datagram d = { .shape = s, .proto = ICMPV6, .body = body, .len = sizeof(body) };
    Rig *rig = rig_new();

    give(rig, COLO_PRIMARY, &d, 16, 32);
    ck_assert_uint_eq(rig_pending(rig), 0);
    give(rig, COLO_PRIMARY, &d, 0, 16);
    expect_piece(rig, &d, 16, 32);
    expect_piece(rig, &d, 0, 16);
    give_all(rig, COLO_SECONDARY, &d, 8);
    end_well(rig);
}
END_TEST

/* What makes up no datagram */

START_TEST(a_piece_is_missing)
{
    for (int missing = 0; missing < 3; missing++) {
        Datagram d = udp_datagram(&plain, 5, LEN, 1);
        Rig *rig = rig_new();
        int64_t deadline = rig->now + RIG_TIMEOUT;

        give_all(rig, COLO_SECONDARY, &d, LEN);
        for (uint32_t n = 0; n < 3; n++) {
            if ((int)n != missing) {
                give(rig, COLO_PRIMARY, &d, 80 * n, 80 * n + 80);
                rig_wait(rig, 100 * MS);
            }
        }
        rig_wait(rig, deadline - rig->now - 1);
        rig_expect_asked(rig, 0, 0);
        rig_wait(rig, 1);
        rig_expect_asked(rig, 1, COLO_REASON_TIMEOUT);
        ck_assert_uint_eq(rig_pending(rig), 0);
        rig_checkpoint(rig);
        for (uint32_t n = 0; n < 3; n++) {
            if ((int)n != missing) {
                expect_piece(rig, &d, 80 * n, 80 * n + 80);
            }
        }
        check_nothing_held(rig);
        /* The missing one comes after all: it is one with a piece missing, now. */
        give(rig, COLO_PRIMARY, &d, 80 * (uint32_t)missing, 80 * (uint32_t)missing + 80);
        ck_assert_uint_eq(rig_pending(rig), 0);
        rig_wait(rig, RIG_TIMEOUT);
        rig_expect_asked(rig, 2, COLO_REASON_TIMEOUT);
        rig_free(rig);
        g_free(d.body);
    }
}
END_TEST

/* Nobody has seen what the secondary alone has sent: it goes by age, and makes up nothing with what comes later. */
START_TEST(a_piece_of_the_secondary_is_missing)
{
    for (int early = 0; early < 3; early++) {
        Datagram d = udp_datagram(&plain, 5, LEN, 1);
        uint32_t at = 80 * (uint32_t)early;
        Rig *rig = rig_new();

        give(rig, COLO_SECONDARY, &d, at, at + 80);
        rig_wait(rig, RIG_TIMEOUT / 2);
        give(rig, COLO_SECONDARY, &d, (at + 80) % LEN, (at + 80) % LEN + 80);
        rig_wait(rig, RIG_TIMEOUT / 2);
        ck_assert_uint_eq(rig_held(rig, COLO_SECONDARY), 1);
        give(rig, COLO_SECONDARY, &d, (at + 160) % LEN, (at + 160) % LEN + 80);
        give_all(rig, COLO_PRIMARY, &d, 80);
        ck_assert_uint_eq(rig_pending(rig), 0);
        /* The first piece once more makes it whole. */
        give(rig, COLO_SECONDARY, &d, at, at + 80);
        expect_all(rig, &d, 80);
        end_well(rig);
        g_free(d.body);
    }
}
END_TEST

/* What an attack looks like (RFC 5722), and what a broken guest might send: each after two good pieces of 240 bytes. */
static const struct {
    uint32_t from;
    uint32_t to;
    bool more;
} impossible[] = {
    { 0, 80, true },            /* a repetition; may be one of its own, may be not */
    { 0, 8, true }, { 72, 88, true }, { 8, 160, true }, { 80, 88, true }, { 152, LEN, false }, { 8, LEN, false },
    { 160, 160, true }, { 160, 160, false }, { LEN, LEN, false },       /* empty */
    { 80, 120, false }, { 80, 160, false },     /* ends before what is there */
};

START_TEST(impossible_datagrams)
{
    for (guint i = 0; i < 2 * G_N_ELEMENTS(impossible); i++) {
        const Shape s = { .ipv6 = i % 2 };
        Datagram d = udp_datagram(&s, 5, LEN, 1);
        Rig *rig = rig_new();

        /* The secondary's mean nothing. */
        give(rig, COLO_SECONDARY, &d, 0, 80);
        give(rig, COLO_SECONDARY, &d, 80, 160);
        rig_give(rig, COLO_SECONDARY,
                 piece_saying(&d, impossible[i / 2].from, impossible[i / 2].to, impossible[i / 2].more));
        give(rig, COLO_SECONDARY, &d, 160, LEN);
        rig_expect_asked(rig, 0, 0);
        ck_assert_uint_eq(rig_held(rig, COLO_SECONDARY), 4);
        rig_wait(rig, RIG_TIMEOUT);
        ck_assert_uint_eq(rig_held(rig, COLO_SECONDARY), 0);

        give(rig, COLO_PRIMARY, &d, 0, 80);
        give(rig, COLO_PRIMARY, &d, 80, 160);
        rig_expect_asked(rig, 0, 0);
        rig_give(rig, COLO_PRIMARY,
                 piece_saying(&d, impossible[i / 2].from, impossible[i / 2].to, impossible[i / 2].more));
        rig_expect_asked(rig, 1, COLO_REASON_PAYLOAD);
        give(rig, COLO_PRIMARY, &d, 160, LEN);          /* what would complete it */
        give_all(rig, COLO_SECONDARY, &d, 80);
        ck_assert_uint_eq(rig_pending(rig), 0);
        rig_checkpoint(rig);
        expect_piece(rig, &d, 0, 80);
        expect_piece(rig, &d, 80, 160);
        expect_frame(rig, piece_saying(&d, impossible[i / 2].from, impossible[i / 2].to, impossible[i / 2].more));
        expect_piece(rig, &d, 160, LEN);
        check_nothing_held(rig);

        /* The identification is used again: all is well. */
        give_all(rig, COLO_PRIMARY, &d, 80);
        give_all(rig, COLO_SECONDARY, &d, 120);
        expect_all(rig, &d, 80);
        rig_expect_asked(rig, 1, COLO_REASON_PAYLOAD);
        check_nothing_held(rig);
        rig_free(rig);
        g_free(d.body);
    }
}
END_TEST

/* What they make up begins with another fragment header, first or later, last or not. */
START_TEST(fragments_in_fragments)
{
    for (uint16_t word = 1; word <= 9; word += 4) {
        const Shape s = { .ipv6 = true };
        Datagram d = { .shape = s, .proto = 44, .body = bytes_of(word, LEN), .len = LEN };
        Rig *rig = rig_new();

        d.shape.ip_id = 5;
        memcpy(d.body, (uint8_t[]) { 17, 0, 0, (uint8_t)word, 0, 0, 0, 9 }, 8);
        give_all(rig, COLO_SECONDARY, &d, 80);
        ck_assert_uint_eq(rig_held(rig, COLO_SECONDARY), 3);
        give(rig, COLO_PRIMARY, &d, 0, 80);
        give(rig, COLO_PRIMARY, &d, 80, 160);
        rig_expect_asked(rig, 0, 0);
        give(rig, COLO_PRIMARY, &d, 160, LEN);
        rig_expect_asked(rig, 1, COLO_REASON_PAYLOAD);
        rig_checkpoint(rig);
        expect_all(rig, &d, 80);
        check_nothing_held(rig);
        rig_free(rig);
        g_free(d.body);
    }
}
END_TEST

/* The last piece comes first, and others reach beyond it, or are last, too. */
START_TEST(behind_the_end)
{
    static const struct {
        uint32_t from;
        uint32_t to;
        bool more;
    } beyond[] = { { 160, LEN, true }, { 80, LEN, false }, { 80, 160, false }, { 8, 24, false }, { 160, 160, false } };

    for (guint i = 0; i < G_N_ELEMENTS(beyond); i++) {
        Datagram d = udp_datagram(&plain, 5, LEN, 1);
        Rig *rig = rig_new();

        rig_give(rig, COLO_PRIMARY, piece_saying(&d, 80, 160, false));
        rig_give(rig, COLO_PRIMARY, piece_saying(&d, beyond[i].from, beyond[i].to, beyond[i].more));
        rig_give(rig, COLO_PRIMARY, piece_saying(&d, 0, 8, true));
        rig_expect_asked(rig, 1, COLO_REASON_PAYLOAD);
        ck_assert_uint_eq(rig_pending(rig), 0);
        rig_free(rig);
        g_free(d.body);
    }
}
END_TEST

/* Time, epochs, order */

/* What is put together is as old as its first piece. */
START_TEST(deadline_of_the_first_piece)
{
    for (int in_pieces = 0; in_pieces < 2; in_pieces++) {
        Datagram d = udp_datagram(&plain, 5, LEN, 1);
        Rig *rig = rig_new();
        int64_t deadline = rig->now + RIG_TIMEOUT;

        if (in_pieces) {
            give(rig, COLO_PRIMARY, &d, 160, LEN);
            rig_wait(rig, 500 * MS);
            rig_text(rig, COLO_PRIMARY, ACK, 1, 1, "younger than the first piece");
            rig_wait(rig, 500 * MS);
            give(rig, COLO_PRIMARY, &d, 0, 160);
        } else {
            give_all(rig, COLO_PRIMARY, &d, LEN);
        }
        ck_assert(colo_comparator_deadline(rig->c) == deadline);
        rig_wait(rig, deadline - rig->now - 1);
        rig_expect_asked(rig, 0, 0);
        rig_wait(rig, 1);
        rig_expect_asked(rig, 1, COLO_REASON_TIMEOUT);
        ck_assert_uint_eq(rig->flow.proto, 17);
        rig_free(rig);
        g_free(d.body);
    }
}
END_TEST

/* The secondary's, put together, goes by the age of its first piece, too. */
START_TEST(age_of_the_secondary)
{
    Datagram d = udp_datagram(&plain, 5, LEN, 1);
    Rig *rig = rig_new();
    int64_t deadline = rig->now + RIG_TIMEOUT;

    give(rig, COLO_SECONDARY, &d, 160, LEN);
    rig_wait(rig, 500 * MS);
    rig_udp(rig, COLO_SECONDARY, "younger");
    rig_wait(rig, 500 * MS);
    give(rig, COLO_SECONDARY, &d, 0, 160);
    ck_assert_uint_eq(rig_held(rig, COLO_SECONDARY), 2);
    ck_assert(colo_comparator_deadline(rig->c) == deadline);
    rig_wait(rig, deadline - rig->now);
    ck_assert_uint_eq(rig_held(rig, COLO_SECONDARY), 1);
    rig_wait(rig, 500 * MS);
    end_well(rig);
    g_free(d.body);
}
END_TEST

/* A checkpoint comes between two pieces: the first leaves with it, the rest with the next. */
START_TEST(across_a_checkpoint)
{
    for (int whole_secondary = 0; whole_secondary < 2; whole_secondary++) {
        Datagram d = udp_datagram(&plain, 5, LEN, 1);
        Rig *rig = rig_new();

        give(rig, COLO_PRIMARY, &d, 0, 160);
        if (whole_secondary) {
            give_all(rig, COLO_SECONDARY, &d, 160);
        } else {
            give(rig, COLO_SECONDARY, &d, 0, 160);
        }
        rig_checkpoint(rig);
        expect_piece(rig, &d, 0, 160);
        give(rig, COLO_PRIMARY, &d, 160, LEN);
        give(rig, COLO_SECONDARY, &d, 160, LEN);
        ck_assert_uint_eq(rig_pending(rig), 0);
        rig_wait(rig, RIG_TIMEOUT);
        rig_expect_asked(rig, 1, COLO_REASON_TIMEOUT);
        rig_checkpoint(rig);
        expect_piece(rig, &d, 160, LEN);
        check_nothing_held(rig);
        rig_free(rig);
        g_free(d.body);
    }
}
END_TEST

/* A secondary's datagram that was put together before a checkpoint stands for nothing after it. */
START_TEST(whole_before_a_checkpoint)
{
    Datagram d = udp_datagram(&plain, 5, LEN, 1);
    Rig *rig = rig_new();

    give_all(rig, COLO_SECONDARY, &d, 160);
    rig_checkpoint(rig);
    give_all(rig, COLO_PRIMARY, &d, 80);
    ck_assert_uint_eq(rig_pending(rig), 0);
    give_all(rig, COLO_SECONDARY, &d, 80);
    expect_all(rig, &d, 80);
    end_well(rig);
    g_free(d.body);
}
END_TEST

/* With marks: pieces of the old epoch are known for what they are. */
START_TEST(across_epochs)
{
    Datagram d = udp_datagram(&plain, 5, LEN, 1);
    Rig *rig = rig_new();

    rig_epoch(rig, COLO_PRIMARY);
    rig_epoch(rig, COLO_SECONDARY);
    give(rig, COLO_PRIMARY, &d, 0, 80);
    give(rig, COLO_SECONDARY, &d, 0, 80);
    rig_checkpoint(rig);
    expect_piece(rig, &d, 0, 80);
    give(rig, COLO_PRIMARY, &d, 80, 160);       /* of the old epoch still: leaves */
    expect_piece(rig, &d, 80, 160);
    give(rig, COLO_SECONDARY, &d, 80, 160);     /* is dropped */
    ck_assert_uint_eq(rig_held(rig, COLO_SECONDARY), 0);
    rig_epoch(rig, COLO_PRIMARY);
    rig_epoch(rig, COLO_SECONDARY);
    give_all(rig, COLO_PRIMARY, &d, 120);
    give_all(rig, COLO_SECONDARY, &d, 80);
    expect_all(rig, &d, 120);

    /* The secondary's mark, and pieces, before the word of the checkpoint. */
    give(rig, COLO_PRIMARY, &d, 0, 80);
    rig_epoch(rig, COLO_SECONDARY);
    give_all(rig, COLO_SECONDARY, &d, 80);
    ck_assert_uint_eq(rig_pending(rig), 0);
    rig_checkpoint(rig);
    expect_piece(rig, &d, 0, 80);
    rig_epoch(rig, COLO_PRIMARY);
    ck_assert_uint_eq(rig_held(rig, COLO_SECONDARY), 1);
    give_all(rig, COLO_PRIMARY, &d, 80);
    expect_all(rig, &d, 80);
    end_well(rig);
    g_free(d.body);
}
END_TEST

START_TEST(switching_off_releases)
{
    Datagram d = udp_datagram(&plain, 5, LEN, 1), other = udp_datagram(&plain, 6, LEN, 2);
    Rig *rig = rig_new();

    give(rig, COLO_PRIMARY, &d, 0, 160);
    give_all(rig, COLO_PRIMARY, &other, 80);
    colo_comparator_set_comparing(rig->c, false, rig->now);
    /* By age; what was put together leaves together. */
    expect_piece(rig, &d, 0, 160);
    expect_all(rig, &other, 80);
    give(rig, COLO_PRIMARY, &d, 160, LEN);
    expect_piece(rig, &d, 160, LEN);
    give(rig, COLO_SECONDARY, &d, 0, 160);
    end_well(rig);
    g_free(d.body);
    g_free(other.body);
}
END_TEST

/* Whoever sends no end of pieces is made to wait, and goes by age. */
START_TEST(pieces_are_bounded)
{
    enum { QUEUE = 8 };
    Datagram d = udp_datagram(&plain, 5, LEN, 1);

    for (int side = 0; side < COLO_SIDES; side++) {
        Rig *rig = rig_new_at(0, QUEUE);

        for (uint32_t n = 1; n <= QUEUE; n++) {
            ck_assert(colo_comparator_may_read(rig->c, side));
            give(rig, side, &d, 8 * n, 8 * n + 8);
        }
        ck_assert(!colo_comparator_may_read(rig->c, side));
        rig_wait(rig, RIG_TIMEOUT);
        if (side == COLO_PRIMARY) {
            rig_expect_asked(rig, 1, COLO_REASON_TIMEOUT);
            rig_checkpoint(rig);
        }
        ck_assert(colo_comparator_may_read(rig->c, side));
        ck_assert_uint_eq(rig_held(rig, side), 0);
        rig_free(rig);
    }
    g_free(d.body);
}
END_TEST

/* Random */

enum {
    DATAGRAMS = 12,
};

typedef struct {
    int of;                 /* which datagram */
    uint32_t from;
    uint32_t to;
} Piece;

static void shuffle(GArray *pieces, guint window, GRand *rand)
{
    for (guint i = 0; i < pieces->len; i++) {
        guint other = i + (guint)g_rand_int_range(rand, 0, (gint32)window);
        Piece kept = g_array_index(pieces, Piece, i);

        other = MIN(other, pieces->len - 1);
        g_array_index(pieces, Piece, i) = g_array_index(pieces, Piece, other);
        g_array_index(pieces, Piece, other) = kept;
    }
}

static GArray *cut_at_random(const Datagram *d, GRand *rand)
{
    GArray *pieces = g_array_new(false, false, sizeof(Piece));

    for (int n = 0; n < DATAGRAMS; n++) {
        for (uint32_t at = 0; at < d[n].len; ) {
            Piece p = { .of = n, .from = at, .to = at + 8 * (uint32_t)g_rand_int_range(rand, 1, 12) };

            p.to = MIN(p.to, d[n].len);
            g_array_append_val(pieces, p);
            at = p.to;
        }
    }
    shuffle(pieces, (guint)g_rand_int_range(rand, 1, 30), rand);
    return pieces;
}

/*
 * Many datagrams of one flow in one go, cut and shuffled on each side for itself.  None leaves before the secondary
 * has sent all of it; everything leaves in the end, each piece once and its datagram's pieces together.
 */
START_TEST(random_pieces)
{
    GRand *rand = g_rand_new_with_seed(test_seed("random_pieces"));

    for (int run = 0; run < 300; run++) {
        Shape s = { .ipv6 = g_rand_boolean(rand) };
        Datagram d[DATAGRAMS];
        uint32_t theirs[DATAGRAMS] = { 0 }, ours[DATAGRAMS] = { 0 };
        GArray *pieces[COLO_SIDES];
        guint given[COLO_SIDES] = { 0 };
        Rig *rig = rig_new();

        for (int n = 0; n < DATAGRAMS; n++) {
            d[n] = udp_datagram(&s, (uint16_t)n, (uint32_t)g_rand_int_range(rand, 17, 300), (uint32_t)n);
        }
        pieces[0] = cut_at_random(d, rand);
        pieces[1] = cut_at_random(d, rand);
        while (given[0] < pieces[0]->len || given[1] < pieces[1]->len) {
            ColoSide side = g_rand_boolean(rand);
            const Piece *p;

            if (given[side] == pieces[side]->len) {
                continue;
            }
            p = &g_array_index(pieces[side], Piece, given[side]++);
            if (p->from == 0 && p->to == d[p->of].len) {
                give_all(rig, side, &d[p->of], UINT32_MAX);
            } else {
                give(rig, side, &d[p->of], p->from, p->to);
            }
            if (side == COLO_SECONDARY) {
                theirs[p->of] += p->to - p->from;
            }
            while (rig_pending(rig)) {
                const Released *r = rig_next_raw(rig);
                uint32_t id, len;

                if (s.ipv6) {
                    bool cut = r->data[14 + 6] == 44;

                    len = be16(r->data + 14 + 4) - (cut ? 8u : 0u);
                    id = cut ? be32(r->data + 14 + 40 + 4) : UINT32_MAX;
                } else {
                    len = be16(r->data + 14 + 2) - 20u;
                    id = be16(r->data + 14 + 4);
                }
                if (id != UINT32_MAX) {
                    ck_assert_uint_lt(id, DATAGRAMS);
                    ours[id] += len;
                    ck_assert_uint_le(ours[id], d[id].len);
                    ck_assert_msg(theirs[id] == d[id].len,
                                  "datagram %u has left, the secondary has sent %u of %u bytes",
                                  id, theirs[id], d[id].len);
                }
            }
        }
        end_well(rig);
        for (int n = 0; n < DATAGRAMS; n++) {
            g_free(d[n].body);
        }
        g_array_free(pieces[0], true);
        g_array_free(pieces[1], true);
    }
    g_rand_free(rand);
}
END_TEST

/* Anything at all: lengths and offsets at random.  Nothing is lost, nothing stays, no step beyond. */
START_TEST(random_nonsense)
{
    GRand *rand = g_rand_new_with_seed(test_seed("random_nonsense"));
    Datagram d = udp_datagram(&plain, 0, LEN, 1);

    for (int run = 0; run < 300; run++) {
        Rig *rig = rig_new();

        for (int i = 0; i < 200; i++) {
            Shape s = { .ipv6 = g_rand_boolean(rand), .ip_id = (uint16_t)g_rand_int_range(rand, 0, 3) };
            uint32_t at = 8 * (uint32_t)g_rand_int_range(rand, 0, g_rand_int_range(rand, 0, 20) ? 6 : 0x2000);
            bool more = g_rand_boolean(rand);

            s.fragment = (uint16_t)(s.ipv6 ? at | more : at / 8 | (more ? 0x2000u : 0));
            rig_give(rig, g_rand_boolean(rand), frame_ip(&s, g_rand_boolean(rand) ? 17 : 6, d.body,
                                                          (uint32_t)g_rand_int_range(rand, 0, 40)));
            if (g_rand_int_range(rand, 0, 40) == 0) {
                rig_wait(rig, RIG_TIMEOUT / 3);
            }
            if (rig->asked_in_epoch && g_rand_boolean(rand)) {
                rig_checkpoint(rig);
            }
        }
        rig_checkpoint(rig);
        check_nothing_held(rig);
        rig_free(rig);
    }
    g_rand_free(rand);
    g_free(d.body);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("fragments");
    TCase *tc = tcase_create("datagrams");

    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, cut_alike);
    tcase_add_test(tc, cut_differently);
    tcase_add_test(tc, different_bytes);
    tcase_add_test(tc, the_same_bytes_elsewhere);
    tcase_add_test(tc, every_order_of_four);
    tcase_add_test(tc, interleaved);
    tcase_add_test(tc, datagrams_do_not_mix);
    tcase_add_test(tc, flows_of_fragments_go);
    tcase_add_test(tc, longest);
    tcase_add_test(tc, echo);
    tcase_add_test(tc, local_in_pieces);
    suite_add_tcase(suite, tc);

    tc = tcase_create("segments");
    tcase_add_test(tc, segments);
    tcase_add_test(tc, segment_compared_in_part);
    tcase_add_test(tc, segment_with_other_bytes);
    tcase_add_test(tc, acknowledgement_in_pieces);
    suite_add_tcase(suite, tc);

    tc = tcase_create("impossible");
    tcase_add_test(tc, a_piece_is_missing);
    tcase_add_test(tc, a_piece_of_the_secondary_is_missing);
    tcase_add_test(tc, impossible_datagrams);
    tcase_add_test(tc, fragments_in_fragments);
    tcase_add_test(tc, behind_the_end);
    suite_add_tcase(suite, tc);

    tc = tcase_create("time");
    tcase_add_test(tc, deadline_of_the_first_piece);
    tcase_add_test(tc, age_of_the_secondary);
    tcase_add_test(tc, across_a_checkpoint);
    tcase_add_test(tc, whole_before_a_checkpoint);
    tcase_add_test(tc, across_epochs);
    tcase_add_test(tc, switching_off_releases);
    tcase_add_test(tc, pieces_are_bounded);
    suite_add_tcase(suite, tc);

    tc = tcase_create("random");
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, random_pieces);
    tcase_add_test(tc, random_nonsense);
    suite_add_tcase(suite, tc);
    return run_suite(suite);
}
