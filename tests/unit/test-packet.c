/*
 * Tests of packet.c
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "frames.h"
#include "net/colo/packet.h"

#include <string.h>

static ColoPacket parse(const Frame *f)
{
    ColoPacket p;

    ck_assert(colo_packet_parse(&p, f->data, f->size, f->vnet_len));
    return p;
}

/* What must hold for any parse of anything. */
static void check_bounds(const ColoPacket *p)
{
    ck_assert_uint_le(p->vnet_len, p->size);
    ck_assert_uint_le(p->l3, p->size);
    ck_assert_uint_le(p->l3, p->l4);
    ck_assert_uint_le(p->l4, p->payload);
    ck_assert_uint_le(p->payload, p->size);
    ck_assert_uint_le(p->payload_len, p->size - p->payload);
    ck_assert_uint_le(p->end, p->size);
    if (p->class != COLO_CLASS_LOCAL) {
        ck_assert(p->ip_version == 4 || p->ip_version == 6 || p->class == COLO_CLASS_DATAGRAM);
        ck_assert_uint_eq(p->payload + p->payload_len, p->end);
    }
    if (p->class == COLO_CLASS_TCP) {
        uint32_t units = p->payload_len + !!(p->tcp_flags & SYN) + !!(p->tcp_flags & FIN);

        ck_assert(!p->fragment);
        ck_assert_uint_ge(p->payload - p->l4, 20);
        ck_assert_uint_eq(colo_packet_seq_len(p), units);
    }
}

/* Everything the core does with a packet by itself; a sanitizer watches. */
static void use(const ColoPacket *p)
{
    ColoPacket *held = colo_packet_hold(p);

    check_bounds(held);
    colo_packet_needs_csum(held);
    if (held->class == COLO_CLASS_TCP) {
        uint8_t options[40];
        uint8_t sum = 0;

        ck_assert_uint_le(colo_packet_tcp_options(held, options), 40);
        for (uint32_t seq = held->seq - 2; seq != held->seq_end + 2; seq++) {
            ColoRun run = colo_packet_run(held, seq);

            ck_assert((run.kind == COLO_RUN_NONE) == (seq - held->seq >= colo_packet_seq_len(held)));
            if (run.kind == COLO_RUN_BYTES) {
                sum ^= run.bytes[0] ^ run.bytes[run.len - 1];
            }
        }
        if (colo_packet_seq_len(held) > 1) {
            uint8_t *head = g_malloc(held->size);
            uint32_t size = colo_packet_cut(held, 1 + sum % (colo_packet_seq_len(held) - 1), head);
            ColoPacket front;

            ck_assert_uint_le(size, p->size);
            colo_packet_parse(&front, head, size, held->vnet_len);
            g_free(head);
        }
    }
    colo_packet_free(held);
}

/* One of each kind of frame, by number; NULL behind the last. */
static Frame *frame_of_kind(int kind)
{
    static const uint8_t options[] = { 2, 4, 5, 180, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7 };
    static const Shape shapes[] = {
        { 0 },
        { .ipv6 = true },
        { .vlans = 1, .vlan = { 5 } },
        { .vlans = 2, .vlan = { 7, 9 }, .ipv6 = true },
        { .ip_options = 12 },
        { .ip_options = 40, .vnet_len = 12, .needs_csum = true, .gso_type = GSO_TCPV4, .gso_size = 4 },
        { .ipv6 = true, .extensions = 24 },
        { .ipv6 = true, .extensions = 8, .vnet_len = 20, .gso_type = GSO_TCPV6, .gso_size = 4 },
        { .pad_to = 120, .padding = 0xa5 },
        { .fragment = 0x2000 },
        { .fragment = 0x00b9 },
        { .ipv6 = true, .fragment = 1 },
        { .ipv6 = true, .fragment = 0x0500, .extensions = 8 },
        { .vnet_len = 10, .vlans = 1, .vlan = { 4095 } },
    };
    static const uint8_t protos[] = { 2, 33, 43, 44, 47, 50, 51, 59, 132, 135, 136 };
    int shape = kind / 4;

    if (shape < (int)G_N_ELEMENTS(shapes)) {
        const Shape *s = &shapes[shape];

        switch (kind % 4) {
        case 0:
            return frame_tcp(s, 0xfffffffc, 77, PSH | ACK | FIN, options, sizeof(options), "hello world", 11);
        case 1:
            return frame_tcp(s, 5, 77, SYN | ACK, options + 6, 10, NULL, 0);
        case 2:
            return frame_udp(s, "datagram", 8);
        default:
            return frame_echo(s, 1, 2, "ping", 4);
        }
    }
    kind -= 4 * (int)G_N_ELEMENTS(shapes);
    if (kind < 2 * (int)G_N_ELEMENTS(protos)) {
        Shape s = { .ipv6 = kind % 2 };

        return frame_ip(&s, protos[kind / 2], "\x3b\1\0\0\0\0\0\0\6\1\2\3\4\5\6\7\x11\0\0\0\0\0\0\0", 24);
    }
    kind -= 2 * (int)G_N_ELEMENTS(protos);
    switch (kind) {
    case 0:
        return frame_ethernet(&shapes[0], 0x0806, "\0\1\x08\0\6\4\0\1RT\0\0\0\1\n\0\0\2\0\0\0\0\0\0\n\0\0\1", 28);
    case 1:
        return frame_ethernet(&shapes[2], 0x88cc, "lldp", 4);
    default:
        return NULL;
    }
}

/* What is where */

START_TEST(offsets)
{
    static const struct {
        Shape shape;
        uint32_t l3, l4;
    } cases[] = {
        { { 0 }, 14, 34 },
        { { .vlans = 1 }, 18, 38 },
        { { .vlans = 2 }, 22, 42 },
        { { .ip_options = 8 }, 14, 42 },
        { { .ip_options = 40 }, 14, 74 },
        { { .vnet_len = 12 }, 26, 46 },
        { { .vnet_len = 20, .vlans = 1 }, 38, 58 },
        { { .ipv6 = true }, 14, 54 },
        { { .ipv6 = true, .extensions = 8 }, 14, 62 },
        { { .ipv6 = true, .extensions = 40, .vlans = 2, .vnet_len = 10 }, 32, 112 },
    };

    for (guint i = 0; i < G_N_ELEMENTS(cases); i++) {
        Frame *f = frame_tcp(&cases[i].shape, 0xfffffffe, 9, ACK | FIN, "\1\1\1\1", 4, "four", 4);
        ColoPacket p = parse(f);

        ck_assert_uint_eq(p.l3, cases[i].l3);
        ck_assert_uint_eq(p.l4, cases[i].l4);
        ck_assert_uint_eq(p.payload, p.l4 + 24);
        ck_assert_uint_eq(p.payload_len, 4);
        ck_assert_uint_eq(p.end, f->size);
        ck_assert_int_eq(p.class, COLO_CLASS_TCP);
        ck_assert_uint_eq(p.ip_version, cases[i].shape.ipv6 ? 6 : 4);
        ck_assert_uint_eq(p.proto, COLO_PROTO_TCP);
        ck_assert(!p.fragment && !p.held);
        ck_assert_uint_eq(p.tcp_flags, ACK | FIN);
        ck_assert_uint_eq(p.seq, 0xfffffffe);
        ck_assert_uint_eq(p.seq_end, 3);
        ck_assert_uint_eq(p.ack, 9);
        frame_free(f);

        f = frame_udp(&cases[i].shape, "12345", 5);
        p = parse(f);
        ck_assert_uint_eq(p.payload, cases[i].l4 + 8);
        ck_assert_uint_eq(p.payload_len, 5);
        ck_assert_int_eq(p.class, COLO_CLASS_DATAGRAM);
        frame_free(f);

        f = frame_echo(&cases[i].shape, 1, 2, "ping", 4);
        p = parse(f);
        ck_assert_uint_eq(p.payload, cases[i].l4);
        ck_assert_uint_eq(p.payload_len, 12);
        ck_assert_int_eq(p.class, COLO_CLASS_DATAGRAM);
        frame_free(f);
    }
}
END_TEST

START_TEST(padding_is_not_payload)
{
    for (int ipv6 = 0; ipv6 < 2; ipv6++) {
        Shape s = { .ipv6 = ipv6, .pad_to = 100, .padding = 0xee };
        Frame *f = frame_tcp(&s, 1, 1, ACK, NULL, 0, NULL, 0);
        ColoPacket p = parse(f);

        ck_assert_uint_eq(p.payload_len, 0);
        ck_assert_uint_eq(p.seq_end, p.seq);
        ck_assert_uint_lt(p.end, f->size);
        frame_free(f);
        f = frame_udp(&s, "abc", 3);
        p = parse(f);
        ck_assert_uint_eq(p.payload_len, 3);
        frame_free(f);
        f = frame_echo(&s, 1, 1, "abc", 3);
        p = parse(f);
        ck_assert_uint_eq(p.payload_len, 11);
        frame_free(f);
    }
}
END_TEST

START_TEST(what_is_not_compared)
{
    static const Shape v4, v6 = { .ipv6 = true }, tagged = { .vlans = 1 };
    struct {
        Frame *f;
        ColoClass class;
    } cases[64];
    guint n = 0;
    uint8_t icmp6[8] = { 0 };

#define CASE(frame, c) (cases[n].f = (frame), cases[n++].class = (c))
    CASE(frame_ethernet(&v4, 0x0806, "arp arp arp arp arp arp arp ", 28), COLO_CLASS_LOCAL);
    CASE(frame_ethernet(&tagged, 0x0806, "arp arp arp arp arp arp arp ", 28), COLO_CLASS_LOCAL);
    CASE(frame_ethernet(&v4, 0x88cc, "lldp", 4), COLO_CLASS_LOCAL);
    CASE(frame_ethernet(&v4, 0x0026, "length, not a type", 18), COLO_CLASS_LOCAL);
    CASE(frame_ip(&v4, 2, "igmp igmp", 8), COLO_CLASS_LOCAL);
    for (int type = 128; type < 145; type++) {
        bool local = (type >= 130 && type <= 137) || type == 143;

        icmp6[0] = (uint8_t)type;
        CASE(frame_ip(&v6, 58, icmp6, 8), local ? COLO_CLASS_LOCAL : COLO_CLASS_DATAGRAM);
    }
    icmp6[0] = 133;     /* not ICMPv6: means nothing special */
    CASE(frame_ip(&v4, 1, icmp6, 8), COLO_CLASS_DATAGRAM);
    CASE(frame_ip(&v4, 58, icmp6, 8), COLO_CLASS_DATAGRAM);
    CASE(frame_ip(&v6, 2, icmp6, 8), COLO_CLASS_DATAGRAM);
    CASE(frame_ip(&v4, 132, "sctp sctp sctp", 14), COLO_CLASS_DATAGRAM);
    CASE(frame_ip(&v6, 136, "udplite udplite", 15), COLO_CLASS_DATAGRAM);
    CASE(frame_ip(&v4, 33, "dccp", 4), COLO_CLASS_DATAGRAM);
    CASE(frame_ip(&v4, 50, "esp", 3), COLO_CLASS_DATAGRAM);
    CASE(frame_ip(&v4, 253, "", 0), COLO_CLASS_DATAGRAM);
    CASE(frame_ip(&v6, 59, "", 0), COLO_CLASS_DATAGRAM);
    ck_assert_uint_le(n, G_N_ELEMENTS(cases));

    for (guint i = 0; i < n; i++) {
        ColoPacket p = parse(cases[i].f);

        ck_assert_msg(p.class == cases[i].class, "case %u: class %d, expected %d", i, p.class, cases[i].class);
        frame_free(cases[i].f);
    }
}
END_TEST

/* MLD comes behind a hop-by-hop header (RFC 2710, section 3). */
START_TEST(mld_behind_a_router_alert)
{
    static const Shape s = { .ipv6 = true, .extensions = 8 };
    Frame *f = frame_ip(&s, 58, "\x8f\0\0\0\0\0\0\0", 8);
    ColoPacket p = parse(f);

    ck_assert_int_eq(p.class, COLO_CLASS_LOCAL);
    frame_free(f);
}
END_TEST

START_TEST(fragments)
{
    static const struct {
        Shape shape;
        bool fragment;
    } cases[] = {
        { { .fragment = 0x2000 }, true },               /* first */
        { { .fragment = 0x20b9 }, true },               /* middle */
        { { .fragment = 0x00b9 }, true },               /* last */
        { { .fragment = 0x4000 }, false },              /* "don't fragment" is no fragment */
        { { .ipv6 = true, .fragment = 1 }, true },
        { { .ipv6 = true, .fragment = 0x0500 }, true },
        { { .ipv6 = true, .fragment = 0x0501 }, true },
        { { .ipv6 = true, .fragment = 0x0006 }, false },    /* atomic (RFC 6946), reserved bits set */
    };

    for (guint i = 0; i < G_N_ELEMENTS(cases); i++) {
        Frame *f = frame_tcp(&cases[i].shape, 1, 1, ACK, NULL, 0, "data", 4);
        ColoPacket p = parse(f);

        ck_assert_int_eq(p.fragment, cases[i].fragment);
        ck_assert_int_eq(p.class, cases[i].fragment ? COLO_CLASS_DATAGRAM : COLO_CLASS_TCP);
        if (cases[i].fragment) {
            ck_assert_uint_eq(p.payload, f->l4);
            ck_assert_uint_eq(p.payload_len, 24);
            ck_assert_uint_ne(p.fragment_word, 0);
        }
        frame_free(f);
    }
}
END_TEST

START_TEST(authentication_header)
{
    static const Shape s = { .ipv6 = true };
    uint8_t body[24 + 20] = { 6, 4 };   /* 24 bytes: (4 + 2) words; TCP behind it */
    Frame *f;
    ColoPacket p;

    body[24 + 12] = 0x50;
    body[24 + 13] = ACK;
    f = frame_ip(&s, 51, body, sizeof(body));
    p = parse(f);
    ck_assert_int_eq(p.class, COLO_CLASS_TCP);
    ck_assert_uint_eq(p.l4, f->l4 + 24);
    frame_free(f);
}
END_TEST

/* A TCP header that cannot be is compared as a whole, padding left out. */
START_TEST(impossible_tcp_headers)
{
    static const Shape s = { .pad_to = 90, .padding = 0xff };

    for (uint32_t len = 0; len <= 30; len++) {
        for (uint32_t words = 0; words < 16; words++) {
            uint8_t body[30] = { 0 };
            bool possible = len >= 20 && words >= 5 && words * 4 <= len;
            Frame *f;
            ColoPacket p;

            body[12] = (uint8_t)(words << 4);
            body[13] = FIN;
            f = frame_ip(&s, 6, body, len);
            p = parse(f);
            ck_assert_int_eq(p.class, possible ? COLO_CLASS_TCP : COLO_CLASS_DATAGRAM);
            ck_assert_uint_eq(p.payload_len, possible ? len - words * 4 : len);
            use(&p);
            frame_free(f);
        }
    }
}
END_TEST

START_TEST(lengths_that_point_beyond_the_frame)
{
    static const Shape v4, v6 = { .ipv6 = true };
    Frame *f = frame_udp(&v4, "12345678", 8);
    ColoPacket p;

    put16(f->data + f->l3 + 2, 0xffff);
    p = parse(f);
    ck_assert_uint_eq(p.end, f->size);
    ck_assert_uint_eq(p.payload_len, 8);
    put16(f->data + f->l3 + 2, 19);     /* less than its own header */
    p = parse(f);
    check_bounds(&p);
    put16(f->data + f->l3 + 2, 20);
    p = parse(f);
    ck_assert_uint_eq(p.payload_len, 0);
    f->data[f->l3] = 0x4f;              /* a header of 60 bytes in 36 */
    put16(f->data + f->l3 + 2, 60);
    p = parse(f);
    check_bounds(&p);
    f->data[f->l3] = 0x44;              /* of 16 bytes */
    p = parse(f);
    check_bounds(&p);
    frame_free(f);

    f = frame_udp(&v6, "12345678", 8);
    put16(f->data + f->l3 + 4, 0xffff);
    p = parse(f);
    ck_assert_uint_eq(p.payload_len, 8);
    put16(f->data + f->l3 + 4, 0);
    p = parse(f);
    ck_assert_uint_eq(p.payload_len, 0);
    check_bounds(&p);
    frame_free(f);
}
END_TEST

START_TEST(every_truncation)
{
    Frame *f;

    for (int kind = 0; (f = frame_of_kind(kind)); kind++) {
        for (uint32_t size = 0; size <= f->size; size++) {
            uint8_t *exact = g_malloc(size + !size);
            ColoPacket p;
            bool ethernet;

            memcpy(exact, f->data, size);
            ethernet = colo_packet_parse(&p, exact, size, f->vnet_len);
            ck_assert_int_eq(ethernet, size >= f->vnet_len + 14);
            use(&p);
            g_free(exact);
        }
        frame_free(f);
    }
}
END_TEST

START_TEST(every_header_byte_changed)
{
    Frame *f;

    for (int kind = 0; (f = frame_of_kind(kind)); kind++) {
        for (uint32_t at = f->vnet_len + 12; at < f->size && at < f->payload + 8; at++) {
            uint8_t was = f->data[at];
            uint8_t values[12] = { 0, 0xff, (uint8_t)(was - 1), (uint8_t)(was + 1) };

            for (int bit = 0; bit < 8; bit++) {
                values[4 + bit] = was ^ (uint8_t)(1 << bit);
            }
            for (guint v = 0; v < G_N_ELEMENTS(values); v++) {
                ColoPacket p;

                f->data[at] = values[v];
                p = parse(f);
                use(&p);
            }
            f->data[at] = was;
        }
        frame_free(f);
    }
}
END_TEST

START_TEST(random_mutations)
{
    GRand *rand = g_rand_new_with_seed(test_seed("random_mutations"));
    int kinds = 0;
    Frame *f;

    while ((f = frame_of_kind(kinds))) {
        frame_free(f);
        kinds++;
    }
    for (int i = 0; i < 100000; i++) {
        uint32_t size;
        uint8_t *exact;
        ColoPacket p;

        f = frame_of_kind(g_rand_int_range(rand, 0, kinds));
        for (int n = g_rand_int_range(rand, 1, 8); n; n--) {
            f->data[g_rand_int_range(rand, 0, (gint32)f->size)] = (uint8_t)g_rand_int(rand);
        }
        size = g_rand_boolean(rand) ? f->size : (uint32_t)g_rand_int_range(rand, 0, (gint32)f->size + 1);
        exact = g_malloc(size + !size);
        memcpy(exact, f->data, size);
        colo_packet_parse(&p, exact, size, g_rand_int_range(rand, 0, 8) ? f->vnet_len : g_rand_int(rand));
        use(&p);
        g_free(exact);
        frame_free(f);
    }
    g_rand_free(rand);
}
END_TEST

/* Headers one behind the other for as long as the frame goes on. */
START_TEST(endless_headers)
{
    static const Shape v4, v6 = { .ipv6 = true };
    uint8_t *body = g_malloc0(60000);
    Frame *f;
    ColoPacket p;

    f = frame_ip(&v6, 60, body, 60000);     /* hop-by-hop headers (0) of 8 bytes (0) each */
    p = parse(f);
    check_bounds(&p);
    frame_free(f);
    for (int i = 0; i + 4 <= 60000; i += 4) {
        put32(body + i, 0x00018100);        /* 802.1Q tags */
    }
    f = frame_ethernet(&v4, 0x8100, body, 60000);
    p = parse(f);
    check_bounds(&p);
    ck_assert_int_eq(p.class, COLO_CLASS_DATAGRAM);
    frame_free(f);
    g_free(body);
}
END_TEST

START_TEST(vnet_header_longer_than_the_frame)
{
    uint8_t byte = 0;
    ColoPacket p;

    ck_assert(!colo_packet_parse(&p, &byte, 1, 12));
    check_bounds(&p);
    ck_assert_int_eq(p.class, COLO_CLASS_LOCAL);
    ck_assert(!colo_packet_needs_csum(&p));
    ck_assert(!colo_packet_parse(&p, &byte, 0, UINT32_MAX));
    check_bounds(&p);
}
END_TEST

/* Holding */

START_TEST(hold_copies)
{
    static const Shape s = { .vnet_len = 12, .pad_to = 80 };
    Frame *f = frame_tcp(&s, 1, 2, ACK, NULL, 0, "abc", 3);
    uint8_t *copy = g_malloc(f->size);
    ColoPacket p = parse(f);
    ColoPacket *held;
    uint32_t size = f->size;

    memcpy(copy, f->data, size);
    p.arrival = 5;
    held = colo_packet_hold(&p);
    frame_free(f);
    ck_assert(held->held && held->arrival == 5 && held->size == size);
    ck_assert_mem_eq(held->data, copy, size);
    colo_packet_free(held);
    g_free(copy);
}
END_TEST

/* Runs */

START_TEST(runs)
{
    static const Shape s;
    Frame *f = frame_tcp(&s, 0xfffffffe, 0, SYN | FIN, NULL, 0, "abc", 3);
    ColoPacket p = parse(f);
    ColoRun run;

    ck_assert_uint_eq(p.seq_end, 3);
    ck_assert_int_eq(colo_packet_run(&p, 0xfffffffd).kind, COLO_RUN_NONE);
    run = colo_packet_run(&p, 0xfffffffe);
    ck_assert(run.kind == COLO_RUN_SYN && run.len == 1);
    for (uint32_t i = 0; i < 3; i++) {
        run = colo_packet_run(&p, 0xffffffff + i);
        ck_assert(run.kind == COLO_RUN_BYTES && run.len == 3 - i);
        ck_assert_mem_eq(run.bytes, &"abc"[i], run.len);
    }
    run = colo_packet_run(&p, 2);
    ck_assert(run.kind == COLO_RUN_FIN && run.len == 1);
    ck_assert_int_eq(colo_packet_run(&p, 3).kind, COLO_RUN_NONE);
    frame_free(f);

    f = frame_tcp(&s, 9, 0, FIN, NULL, 0, NULL, 0);
    p = parse(f);
    ck_assert_int_eq(colo_packet_run(&p, 9).kind, COLO_RUN_FIN);
    frame_free(f);
    f = frame_tcp(&s, 9, 0, ACK, NULL, 0, NULL, 0);
    p = parse(f);
    ck_assert_int_eq(colo_packet_run(&p, 9).kind, COLO_RUN_NONE);
    frame_free(f);
}
END_TEST

/* Options */

START_TEST(options_without_the_clock)
{
    static const Shape s;
    static const uint8_t given[] = { 2, 4, 5, 180, 1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 3, 3, 7, 0 };
    static const uint8_t expected[] = { 2, 4, 5, 180, 1, 1, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0, 3, 3, 7, 0 };
    Frame *f = frame_tcp(&s, 1, 0, SYN, given, sizeof(given), NULL, 0);
    ColoPacket p = parse(f);
    uint8_t options[40];

    ck_assert_uint_eq(colo_packet_tcp_options(&p, options), sizeof(expected));
    ck_assert_mem_eq(options, expected, sizeof(expected));
    ck_assert_mem_eq(f->data + f->l4 + 20, given, sizeof(given));   /* the packet itself stays as it is */
    frame_free(f);
}
END_TEST

START_TEST(options_at_their_longest)
{
    static const Shape s;
    uint8_t given[40], options[40];
    Frame *f;
    ColoPacket p;

    /* A timestamp cut short at the end, lengths of 0, 1 and beyond the header: taken as they are. */
    static const uint8_t tails[][4] = {
        { 8, 10, 9, 9 }, { 5, 0, 9, 9 }, { 5, 1, 9, 9 }, { 5, 255, 9, 9 }, { 1, 1, 1, 8 }, { 0, 8, 10, 9 },
    };
    for (guint i = 0; i < G_N_ELEMENTS(tails); i++) {
        memset(given, 1, sizeof(given));
        memcpy(given + 36, tails[i], 4);
        f = frame_tcp(&s, 1, 0, SYN, given, sizeof(given), NULL, 0);
        p = parse(f);
        ck_assert_uint_eq(colo_packet_tcp_options(&p, options), 40);
        ck_assert_mem_eq(options, given, 40);
        frame_free(f);
    }
}
END_TEST

/* Windows */

START_TEST(window_scale)
{
    static const struct {
        const char *options;
        uint32_t len;
        uint8_t scale;
    } cases[] = {
        { "", 0, 0 },
        { "\3\3\7\0", 4, 7 },
        { "\1\3\3\7", 4, 7 },
        { "\3\3\0\0", 4, 0 },
        { "\3\3\xe\0", 4, 14 },
        { "\3\3\xf\0", 4, 14 },            /* RFC 7323, section 2.3: counts as 14 */
        { "\3\3\xff\0", 4, 14 },
        { "\2\4\5\xb4\4\2\x08\x0a" "\3\3\3\3\0\0\0\0" "\1\3\3\x9", 20, 9 },    /* as Linux has it */
        { "\2\4\5\xb4\4\2\x08\x0a" "\3\3\3\3\0\0\0\0", 16, 0 },
        { "\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\3\3\5", 40, 5 },
        { "\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1\3\3", 40, 0 },
        { "\3\4\7\7", 4, 0 },              /* another length: it is no such option */
        { "\3\2\7\0", 4, 0 },
        { "\3\0\7\0\3\3\7\0", 8, 0 },      /* nor is it one behind nonsense */
        { "\3\1\7\0\3\3\7\0", 8, 0 },
        { "\x1e\x9\0\0\3\3\7\0", 8, 0 },
        { "\0\3\3\7", 4, 0 },              /* or behind the end */
        { "\0\2\3\3\7\0\0\0", 8, 0 },
    };
    static const Shape shapes[] = { { 0 }, { .ipv6 = true, .vnet_len = 12, .vlans = 1 } };

    for (guint i = 0; i < G_N_ELEMENTS(cases) * G_N_ELEMENTS(shapes); i++) {
        const char *options = cases[i / 2].options;
        Frame *f = frame_tcp(&shapes[i % 2], 1, 0, SYN, options, cases[i / 2].len, "\3\3\5", 3);
        ColoPacket p = parse(f);

        ck_assert_msg(colo_packet_window_scale(&p) == cases[i / 2].scale, "case %u: %u", i / 2,
                      colo_packet_window_scale(&p));
        frame_free(f);
    }
}
END_TEST

/* Nothing else changes, and whoever adds the frame up finds it as right, or as wrong, as it was. */
START_TEST(window_changed)
{
    static const uint16_t windows[] = { 0, 1, 0x7f, 0x80, 0xff, 0x100, 0x1234, 0x7210, 0x8000, 0xfffe, UINT16_MAX };
    static const Shape shapes[] = {
        { 0 },
        { .ipv6 = true },
        { .vlans = 2, .ip_options = 8, .pad_to = 200, .padding = 9 },
        { .ipv6 = true, .extensions = 24 },
        { .vnet_len = 10 },
        { .vnet_len = 12, .needs_csum = true },
        { .vnet_len = 12, .needs_csum = true, .ipv6 = true, .gso_type = GSO_TCPV6, .gso_size = 4 },
    };

    for (guint i = 0; i < G_N_ELEMENTS(shapes); i++) {
        for (guint j = 0; j < G_N_ELEMENTS(windows) * G_N_ELEMENTS(windows); j++) {
            uint16_t from = windows[j / G_N_ELEMENTS(windows)], to = windows[j % G_N_ELEMENTS(windows)];
            Shape s = shapes[i];
            Frame *f;
            ColoPacket p, *held;
            uint8_t *field;

            s.window = from;
            s.shut = !from;
            f = frame_tcp(&s, 0xfffffff0 + j, 77, ACK, "\1\1\x08\x0a" "abcdefgh", 12, "hello", j % 6);
            p = parse(f);
            ck_assert_uint_eq(colo_packet_window(&p), from);
            held = colo_packet_hold(&p);
            colo_packet_set_window(held, to);
            ck_assert_uint_eq(colo_packet_window(held), to);
            ck_assert_uint_eq(frame_check(held->data, held->size, held->vnet_len).window, to);
            put16(f->data + f->l4 + 14, to);
            put16(f->data + f->l4 + 16, be16(held->data + f->l4 + 16));
            ck_assert_uint_eq(held->size, f->size);
            ck_assert_mem_eq(held->data, f->data, f->size);

            /* One that was wrong stays so. */
            field = held->data + f->l4 + 16;
            put16(field, (uint16_t)(be16(field) ^ 0x0100));
            put16(f->data + f->l4 + 16, be16(field));
            colo_packet_set_window(held, from);
            colo_packet_set_window(held, to);
            ck_assert_mem_eq(held->data, f->data, f->size);
            colo_packet_free(held);
            frame_free(f);
        }
    }
}
END_TEST

/* A signature (RFC 2385, RFC 5925) is over the whole segment, so that nothing of it can be changed. */
START_TEST(signed_segments)
{
    static const uint8_t md5[18] = { 19, 18, 9, 9 }, ao[16] = { 29, 16, 1, 1 }, neither[20] = { 30, 16, 19, 18 };
    uint8_t behind[40] = { 1, 1, 8, 10, 19, 18, 29, 16, 0, 0, 0, 0, 1, 1 };
    const struct {
        const uint8_t *options;
        uint32_t len;
        bool is_signed;
    } cases[] = {
        { md5, sizeof(md5), true }, { ao, sizeof(ao), true }, { behind, 32, true }, { behind, 12, false },
        { neither, sizeof(neither), false }, { NULL, 0, false },
    };

    memcpy(behind + 14, md5, sizeof(md5));
    for (guint i = 0; i < 2 * G_N_ELEMENTS(cases); i++) {
        Shape s = { .ipv6 = i % 2 };
        Frame *f = frame_tcp(&s, 1, 2, ACK, cases[i / 2].options, cases[i / 2].len, "hello", 5);
        ColoPacket p = parse(f);

        ck_assert_int_eq(p.indivisible, cases[i / 2].is_signed);
        frame_free(f);
    }
}
END_TEST

/* The checksum of what is routed by its source is over an address that stands in the options until the last hop. */
START_TEST(source_route_is_indivisible)
{
    static const struct {
        uint8_t options[8];
        bool is_routed;
    } cases[] = {
        { { 131, 7, 4, 10, 0, 0, 3 }, true }, { { 1, 137, 7, 4, 10, 0, 0, 3 }, true },
        { { 7, 7, 4, 131, 7, 4, 3 }, false },       /* record route */
        { { 0, 131, 7, 4, 10, 0, 0 }, false },
    };
    Shape s = { .ip_options = 8 };

    for (guint i = 0; i < G_N_ELEMENTS(cases); i++) {
        Frame *f = frame_tcp(&s, 1, 2, ACK, NULL, 0, "hello", 5);
        ColoPacket p;

        memcpy(f->data + f->l3 + 20, cases[i].options, 8);
        p = parse(f);
        ck_assert_int_eq(p.indivisible, cases[i].is_routed);
        frame_free(f);
    }
}
END_TEST

/* Cutting */

static void cut_and_check(const Shape *s, uint32_t seq, uint8_t flags, const uint8_t *payload, uint32_t len,
                          uint32_t at)
{
    Frame *f = frame_tcp(s, seq, 0xabcdef01, flags, "\1\1\x08\x0a" "abcdefgh", 12, payload, len);
    ColoPacket p = parse(f);
    ColoPacket *held = colo_packet_hold(&p);
    uint8_t *head = g_malloc(held->size);
    uint32_t syn = flags & SYN ? 1 : 0;
    uint32_t front_len = MIN(at - syn, len);
    uint32_t size = colo_packet_cut(held, at, head);
    uint8_t *exact = g_malloc(size);
    ColoPacket again;
    Seen front, back;

    memcpy(exact, head, size);
    g_free(head);
    front = frame_check(exact, size, s->vnet_len);
    back = frame_check(held->data, held->size, held->vnet_len);

    ck_assert_uint_eq(size, f->payload + front_len);
    ck_assert_uint_eq(front.seq, seq);
    ck_assert_uint_eq(front.seq_len, at);
    ck_assert_uint_eq(front.len, front_len);
    ck_assert_uint_eq(back.seq, seq + at);
    ck_assert_uint_eq(back.len, len - front_len);
    ck_assert_uint_eq(back.seq_len, colo_packet_seq_len(&p) - at);
    ck_assert_mem_eq(front.payload, payload, front.len);
    ck_assert_mem_eq(back.payload, payload + front.len, back.len);
    ck_assert_uint_eq(front.flags, flags & ~(FIN | PSH));
    ck_assert_uint_eq(back.flags, flags & ~SYN);
    ck_assert_uint_eq(front.ack, 0xabcdef01);
    ck_assert_uint_eq(back.ack, 0xabcdef01);
    ck_assert_uint_eq(front.options_len, 12);
    ck_assert_mem_eq(front.options, f->data + f->l4 + 20, 12);
    ck_assert_mem_eq(back.options, f->data + f->l4 + 20, 12);
    ck_assert_mem_eq(exact + s->vnet_len, f->data + s->vnet_len, 12);       /* Ethernet addresses */
    ck_assert_mem_eq(held->data + s->vnet_len, f->data + s->vnet_len, 12);
    if (s->vnet_len) {
        const Seen *halves[] = { &front, &back };

        for (int i = 0; i < 2; i++) {
            bool segmented = halves[i]->len > s->gso_size;

            ck_assert_uint_eq(halves[i]->vnet_flags, s->needs_csum ? VNET_NEEDS_CSUM : 0);
            ck_assert_uint_eq(halves[i]->gso_type, segmented ? s->gso_type : GSO_NONE);
            ck_assert_uint_eq(halves[i]->gso_size, segmented ? s->gso_size : 0);
        }
        ck_assert_mem_eq(exact + 2, f->data + 2, 2);                    /* hdr_len */
        ck_assert_mem_eq(exact + 6, f->data + 6, s->vnet_len - 6);      /* csum_start, csum_offset, ... */
        ck_assert_mem_eq(held->data + 2, f->data + 2, 2);
        ck_assert_mem_eq(held->data + 6, f->data + 6, s->vnet_len - 6);
    }

    /* What is left in the packet is what a new parse of its bytes finds. */
    ck_assert(colo_packet_parse(&again, held->data, held->size, held->vnet_len));
    ck_assert_int_eq(again.class, COLO_CLASS_TCP);
    ck_assert_uint_eq(again.seq, held->seq);
    ck_assert_uint_eq(again.seq_end, held->seq_end);
    ck_assert_uint_eq(again.tcp_flags, held->tcp_flags);
    ck_assert_uint_eq(again.payload, held->payload);
    ck_assert_uint_eq(again.payload_len, held->payload_len);
    ck_assert_uint_eq(again.end, held->end);
    ck_assert_uint_eq(again.size, held->size);

    g_free(exact);
    colo_packet_free(held);
    frame_free(f);
}

START_TEST(cut_everywhere)
{
    static const Shape shapes[] = {
        { 0 },
        { .ipv6 = true },
        { .vlans = 1, .vlan = { 5 } },
        { .ip_options = 12 },
        { .ipv6 = true, .extensions = 24, .vlans = 2 },
        { .vnet_len = 10 },
        { .vnet_len = 12, .needs_csum = true },
        { .vnet_len = 12, .needs_csum = true, .gso_type = GSO_TCPV4, .gso_size = 4 },
        { .vnet_len = 20, .ipv6 = true, .needs_csum = true, .gso_type = GSO_TCPV6, .gso_size = 4 },
        { .vnet_len = 12, .gso_type = GSO_TCPV4, .gso_size = 4 },
        { .pad_to = 200, .padding = 0x77 },
        { .pad_to = 200, .padding = 0x77, .ipv6 = true },
    };
    static const uint8_t flags[] = { ACK, ACK | PSH, ACK | FIN | PSH, SYN | ACK, SYN | ACK | FIN, ACK | FIN };
    static const uint32_t seqs[] = { 1, 0xfffffff8, UINT32_MAX };
    static const uint32_t lens[] = { 1, 2, 9, 13, 100 };    /* smaller and larger than the headers; odd */
    uint8_t *payload = bytes_of(3, 100);

    for (guint s = 0; s < G_N_ELEMENTS(shapes); s++) {
        for (guint f = 0; f < G_N_ELEMENTS(flags); f++) {
            for (guint l = 0; l < G_N_ELEMENTS(lens); l++) {
                uint32_t units = lens[l] + !!(flags[f] & SYN) + !!(flags[f] & FIN);

                for (uint32_t at = 1; at < units; at++) {
                    cut_and_check(&shapes[s], seqs[at % 3], flags[f], payload, lens[l], at);
                }
            }
        }
    }
    g_free(payload);
}
END_TEST

/* A SYN's window is not scaled; that of what is cut off it is. */
START_TEST(cut_a_syn_with_data)
{
    static const Shape shape = { .window = 6400 };
    static const char *const options[] = { "\3\3\7\0", "\3\3\0\0", "\1\1\1\1" };

    for (guint i = 0; i < G_N_ELEMENTS(options); i++) {
        for (uint32_t at = 1; at < 6; at++) {
            Frame *f = frame_tcp(&shape, 7, 9, SYN | ACK, options[i], 4, "hello", 5);
            ColoPacket p = parse(f);
            ColoPacket *held = colo_packet_hold(&p);
            uint8_t *head = g_malloc(held->size);
            uint32_t size = colo_packet_cut(held, at, head);
            Seen front = frame_check(head, size, 0);
            Seen back = frame_check(held->data, held->size, 0);

            ck_assert(front.flags == (SYN | ACK) && back.flags == ACK);
            ck_assert_uint_eq(front.window, 6400);
            ck_assert_uint_eq(back.window, i ? 6400 : 6400 >> 7);
            g_free(head);
            colo_packet_free(held);
            frame_free(f);
        }
    }
}
END_TEST

START_TEST(cut_an_offload_frame)
{
    uint8_t *payload = bytes_of(4, 60000);
    static const uint32_t at[] = { 1, 2, 1447, 1448, 1449, 29999, 30000, 30001, 58551, 58552, 58553, 59998, 59999 };

    for (int ipv6 = 0; ipv6 < 2; ipv6++) {
        for (int needs_csum = 0; needs_csum < 2; needs_csum++) {
            Shape s = {
                .ipv6 = ipv6, .vnet_len = 12, .needs_csum = needs_csum, .gso_size = 1448,
                .gso_type = ipv6 ? GSO_TCPV6 : GSO_TCPV4,
            };

            for (guint i = 0; i < G_N_ELEMENTS(at); i++) {
                cut_and_check(&s, 0xffff8000, ACK | PSH, payload, 60000, at[i]);
                cut_and_check(&s, 0xffff8000, ACK | FIN, payload, 60000, at[i]);
            }
            cut_and_check(&s, 0xffff8000, ACK | FIN, payload, 60000, 60000);    /* only the FIN stays */
        }
    }
    g_free(payload);
}
END_TEST

/* Cut until one unit is left, as happens when the secondary sends byte by byte. */
START_TEST(cut_again_and_again)
{
    static const Shape shapes[] = {
        { 0 },
        { .ipv6 = true, .vnet_len = 12, .needs_csum = true, .gso_type = GSO_TCPV6, .gso_size = 30 },
    };
    uint8_t *payload = bytes_of(5, 300);

    for (guint s = 0; s < G_N_ELEMENTS(shapes); s++) {
        Frame *f = frame_tcp(&shapes[s], 0xffffff80, 1, ACK | FIN, NULL, 0, payload, 300);
        ColoPacket p = parse(f);
        ColoPacket *held = colo_packet_hold(&p);
        uint8_t *head = g_malloc(held->size);
        Seen seen;

        for (uint32_t i = 0; i < 300; i++) {
            uint32_t size = colo_packet_cut(held, 1, head);

            seen = frame_check(head, size, f->vnet_len);
            ck_assert_uint_eq(seen.seq, 0xffffff80 + i);
            ck_assert_uint_eq(seen.seq_len, 1);
            ck_assert_uint_eq(seen.payload[0], payload[i]);
        }
        seen = frame_check(held->data, held->size, held->vnet_len);
        ck_assert_uint_eq(seen.len, 0);
        ck_assert_uint_eq(seen.flags, ACK | FIN);
        g_free(head);
        colo_packet_free(held);
        frame_free(f);
    }
    g_free(payload);
}
END_TEST

/* The urgent pointer counts from the segment's own sequence number (RFC 9293, section 3.1). */
START_TEST(cut_keeps_the_urgent_pointer)
{
    static const Shape s;

    for (uint32_t urgent = 0; urgent <= 6; urgent++) {
        for (uint32_t at = 1; at < 6; at++) {
            Frame *f = frame_tcp(&s, 100, 1, ACK | URG, NULL, 0, "urgent", 6);
            uint8_t head[64 + 6];
            ColoPacket p, *held;
            uint32_t size;
            Seen front, back;

            put16(f->data + f->l4 + 18, (uint16_t)urgent);
            put16(f->data + f->l4 + 16, (uint16_t)~plain_sum(f->data + f->l4 + 18, 2,
                                                             (uint16_t)~be16(f->data + f->l4 + 16)));
            p = parse(f);
            held = colo_packet_hold(&p);
            size = colo_packet_cut(held, at, head);
            front = frame_check(head, size, 0);
            back = frame_check(held->data, held->size, 0);
            ck_assert(front.flags & URG);
            ck_assert_uint_eq(front.urgent, urgent);
            if (back.flags & URG) {
                ck_assert_uint_eq(back.seq + back.urgent, 100 + urgent);
            } else {
                ck_assert_uint_le(urgent, at);
            }
            colo_packet_free(held);
            frame_free(f);
        }
    }
}
END_TEST

START_TEST(needs_csum)
{
    static const Shape none, without = { .vnet_len = 12 }, with = { .vnet_len = 12, .needs_csum = true };
    Frame *f = frame_udp(&none, "x", 1);
    ColoPacket p = parse(f);

    f->data[0] |= 1;    /* an Ethernet address, not a flag */
    ck_assert(!colo_packet_needs_csum(&p));
    frame_free(f);
    f = frame_udp(&without, "x", 1);
    p = parse(f);
    ck_assert(!colo_packet_needs_csum(&p));
    frame_free(f);
    f = frame_udp(&with, "x", 1);
    p = parse(f);
    ck_assert(colo_packet_needs_csum(&p));
    frame_free(f);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("packet");
    TCase *tc = tcase_create("packet");

    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, offsets);
    tcase_add_test(tc, padding_is_not_payload);
    tcase_add_test(tc, what_is_not_compared);
    tcase_add_test(tc, mld_behind_a_router_alert);
    tcase_add_test(tc, fragments);
    tcase_add_test(tc, authentication_header);
    tcase_add_test(tc, impossible_tcp_headers);
    tcase_add_test(tc, lengths_that_point_beyond_the_frame);
    tcase_add_test(tc, every_truncation);
    tcase_add_test(tc, every_header_byte_changed);
    tcase_add_test(tc, random_mutations);
    tcase_add_test(tc, endless_headers);
    tcase_add_test(tc, vnet_header_longer_than_the_frame);
    tcase_add_test(tc, hold_copies);
    tcase_add_test(tc, runs);
    tcase_add_test(tc, options_without_the_clock);
    tcase_add_test(tc, options_at_their_longest);
    tcase_add_test(tc, window_scale);
    tcase_add_test(tc, window_changed);
    tcase_add_test(tc, signed_segments);
    tcase_add_test(tc, source_route_is_indivisible);
    tcase_add_test(tc, cut_everywhere);
    tcase_add_test(tc, cut_a_syn_with_data);
    tcase_add_test(tc, cut_an_offload_frame);
    tcase_add_test(tc, cut_again_and_again);
    tcase_add_test(tc, cut_keeps_the_urgent_pointer);
    tcase_add_test(tc, needs_csum);
    suite_add_tcase(suite, tc);
    return run_suite(suite);
}
