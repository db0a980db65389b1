/*
 * Frames for tests: built from a description, and taken apart again, without the code under test
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "frames.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    PROTO_ICMP = 1,
    PROTO_TCP = 6,
    PROTO_UDP = 17,
    PROTO_HOP_BY_HOP = 0,
    PROTO_FRAGMENT = 44,
    PROTO_ICMPV6 = 58,
    PROTO_DESTINATION = 60,
};

uint16_t be16(const uint8_t *p)
{
    return (uint16_t)(p[0] * 256 + p[1]);
}

uint32_t be32(const uint8_t *p)
{
    return be16(p) * 65536u + be16(p + 2);
}

void put16(uint8_t *p, uint16_t v)
{
    p[0] = (uint8_t)(v / 256);
    p[1] = (uint8_t)(v % 256);
}

void put32(uint8_t *p, uint32_t v)
{
    put16(p, (uint16_t)(v / 65536));
    put16(p + 2, (uint16_t)(v % 65536));
}

uint16_t plain_sum(const uint8_t *bytes, uint32_t len, uint32_t start)
{
    uint32_t sum = start;

    for (uint32_t i = 0; i < len; i++) {
        sum += i % 2 ? bytes[i] : bytes[i] * 256u;
        sum = sum % 65536 + sum / 65536;
    }
    return (uint16_t)sum;
}

uint8_t *bytes_of(uint32_t seed, uint32_t len)
{
    uint8_t *bytes = g_malloc(MAX(len, 1));
    uint32_t x = seed * 2654435761u + 12345;

    for (uint32_t i = 0; i < len; i++) {
        x = x * 1664525 + 1013904223;
        bytes[i] = (uint8_t)(x >> 24);
    }
    return bytes;
}

uint32_t test_seed(const char *test)
{
    const char *given = getenv("COLO_TEST_SEED");
    uint32_t seed = given ? (uint32_t)strtoul(given, NULL, 0) : g_random_int();

    printf("%s: COLO_TEST_SEED=%u\n", test, seed);
    fflush(stdout);
    return seed;
}

/* Undefined behaviour fails the test, as a wrong access does.  Called by the sanitizer, if there is one. */
const char *__ubsan_default_options(void);

const char *__ubsan_default_options(void)
{
    return "halt_on_error=1:print_stacktrace=1";
}

int run_suite(Suite *suite)
{
    SRunner *runner = srunner_create(suite);
    int failed;

    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

void frame_free(Frame *f)
{
    g_free(f->data);
    g_free(f);
}

static void put_address(uint8_t *at, const Shape *s, bool guest)
{
    uint8_t host = guest ? (s->guest_host ? s->guest_host : 2) : (s->peer_host ? s->peer_host : 1);

    if (s->ipv6) {
        memset(at, 0, 16);
        put16(at, 0xfd00);
        at[15] = host;
    } else {
        at[0] = 10;
        at[1] = at[2] = 0;
        at[3] = host;
    }
}

/* Everything up to and with the Ethernet type, for @rest bytes behind it. */
static Frame *start(const Shape *s, uint16_t type, uint32_t rest)
{
    Frame *f = g_new0(Frame, 1);
    uint32_t ethernet = 14 + 4 * (uint32_t)s->vlans;
    uint8_t *at;

    f->vnet_len = s->vnet_len;
    f->l3 = f->l4 = f->payload = s->vnet_len + ethernet;
    f->size = s->vnet_len + MAX(ethernet + rest, s->pad_to);
    f->data = g_malloc(f->size);
    memset(f->data, 0, s->vnet_len);
    memset(f->data + s->vnet_len, s->padding, f->size - s->vnet_len);

    at = f->data + s->vnet_len;
    memcpy(at, s->to_guest ? "\x52\x54\0\0\0\2\x52\x54\0\0\0\1" : "\x52\x54\0\0\0\1\x52\x54\0\0\0\2", 12);
    at += 12;
    for (int i = 0; i < s->vlans; i++) {
        put16(at, s->vlans == 2 && i == 0 ? 0x88a8 : 0x8100);
        put16(at + 2, s->vlan[i]);
        at += 4;
    }
    put16(at, type);
    return f;
}

Frame *frame_ethernet(const Shape *shape, uint16_t type, const void *body, uint32_t len)
{
    Frame *f = start(shape, type, len);

    memcpy(f->data + f->l3, body, len);
    return f;
}

Frame *frame_ip(const Shape *s, uint8_t proto, const void *body, uint32_t len)
{
    uint32_t fragment = s->ipv6 && s->fragment ? 8 : 0;
    uint32_t header = s->ipv6 ? 40 + s->extensions + fragment : 20 + s->ip_options;
    Frame *f = start(s, s->ipv6 ? 0x86dd : 0x0800, header + len);
    uint8_t *ip = f->data + f->l3;

    f->l4 = f->payload = f->l3 + header;
    memset(ip, 0, header);
    if (s->ipv6) {
        uint8_t *next = &ip[6];
        uint8_t *at = ip + 40;

        ip[0] = 0x60;
        put16(ip + 4, (uint16_t)(header - 40 + len));
        ip[7] = s->ttl ? s->ttl : 64;
        put_address(ip + 8, s, !s->to_guest);
        put_address(ip + 24, s, s->to_guest);
        /* One hop-by-hop header of 8 bytes and the rest in one for the destination, of padding options. */
        for (uint32_t left = s->extensions; left; ) {
            uint32_t size = next == &ip[6] ? 8 : left;

            *next = next == &ip[6] ? PROTO_HOP_BY_HOP : PROTO_DESTINATION;
            at[1] = (uint8_t)(size / 8 - 1);
            at[2] = 1;
            at[3] = (uint8_t)(size - 4);
            next = at;
            at += size;
            left -= size;
        }
        if (fragment) {
            *next = PROTO_FRAGMENT;
            put16(at + 2, s->fragment);
            put32(at + 4, s->ip_id);
            next = at;
        }
        *next = proto;
    } else {
        ip[0] = (uint8_t)(0x40 | header / 4);
        ip[1] = s->tos;
        put16(ip + 2, (uint16_t)(header + len));
        put16(ip + 4, s->ip_id);
        put16(ip + 6, s->fragment);
        ip[8] = s->ttl ? s->ttl : 64;
        ip[9] = proto;
        put_address(ip + 12, s, !s->to_guest);
        put_address(ip + 16, s, s->to_guest);
        memset(ip + 20, 1, s->ip_options);
        put16(ip + 10, (uint16_t)~plain_sum(ip, header, 0));
    }
    if (len) {
        memcpy(f->data + f->l4, body, len);
    }
    return f;
}

static uint16_t pseudo_sum(const uint8_t *ip, bool ipv6, uint8_t proto, uint32_t len)
{
    uint8_t tail[8] = { 0 };

    put32(tail, len);
    tail[7] = proto;
    return plain_sum(tail, 8, plain_sum(ipv6 ? ip + 8 : ip + 12, ipv6 ? 32 : 8, 0));
}

/* The checksum of the transport, @field bytes behind its beginning, and the virtio-net header. */
static void finish(const Shape *s, Frame *f, uint8_t proto, uint32_t header, uint32_t len, uint32_t field)
{
    uint16_t sum = pseudo_sum(f->data + f->l3, s->ipv6, proto, header + len);

    f->payload = f->l4 + header;
    put16(f->data + f->l4 + field, 0);
    if (!s->needs_csum) {
        sum = (uint16_t)~plain_sum(f->data + f->l4, header + len, sum);
    }
    put16(f->data + f->l4 + field, sum);
    if (s->vnet_len) {
        /* Little-endian, and counted from the frame's beginning. */
        f->data[0] = s->needs_csum ? VNET_NEEDS_CSUM : 0;
        f->data[1] = s->gso_type;
        f->data[2] = (uint8_t)(f->payload - f->vnet_len);
        f->data[4] = (uint8_t)s->gso_size;
        f->data[5] = (uint8_t)(s->gso_size >> 8);
        f->data[6] = (uint8_t)(f->l4 - f->vnet_len);
        f->data[8] = (uint8_t)field;
    }
}

Frame *frame_tcp(const Shape *s, uint32_t seq, uint32_t ack, uint8_t flags, const void *options,
                 uint32_t options_len, const void *payload, uint32_t len)
{
    uint32_t header = 20 + (options_len + 3) / 4 * 4;
    uint8_t *tcp = g_malloc0(header + len);
    Frame *f;

    put16(tcp, s->to_guest ? (s->peer_port ? s->peer_port : 4711) : (s->guest_port ? s->guest_port : 80));
    put16(tcp + 2, s->to_guest ? (s->guest_port ? s->guest_port : 80) : (s->peer_port ? s->peer_port : 4711));
    put32(tcp + 4, seq);
    put32(tcp + 8, flags & ACK ? ack : 0);
    tcp[12] = (uint8_t)(header / 4 << 4);
    tcp[13] = flags;
    put16(tcp + 14, s->shut ? 0 : s->window ? s->window : 0x7210);
    if (options_len) {
        memcpy(tcp + 20, options, options_len);
    }
    if (len) {
        memcpy(tcp + header, payload, len);
    }
    f = frame_ip(s, PROTO_TCP, tcp, header + len);
    finish(s, f, PROTO_TCP, header, len, 16);
    g_free(tcp);
    return f;
}

Frame *frame_udp(const Shape *s, const void *payload, uint32_t len)
{
    uint8_t *udp = g_malloc0(8 + len);
    Frame *f;

    put16(udp, s->to_guest ? (s->peer_port ? s->peer_port : 4711) : (s->guest_port ? s->guest_port : 53));
    put16(udp + 2, s->to_guest ? (s->guest_port ? s->guest_port : 53) : (s->peer_port ? s->peer_port : 4711));
    put16(udp + 4, (uint16_t)(8 + len));
    if (len) {
        memcpy(udp + 8, payload, len);
    }
    f = frame_ip(s, PROTO_UDP, udp, 8 + len);
    finish(s, f, PROTO_UDP, 8, len, 6);
    g_free(udp);
    return f;
}

Frame *frame_icmp(const Shape *s, uint8_t type, uint8_t code, uint32_t rest, const void *payload, uint32_t len)
{
    uint8_t *icmp = g_malloc0(8 + len);
    uint16_t sum;
    Frame *f;

    icmp[0] = type;
    icmp[1] = code;
    put32(icmp + 4, rest);
    if (len) {
        memcpy(icmp + 8, payload, len);
    }
    f = frame_ip(s, s->ipv6 ? PROTO_ICMPV6 : PROTO_ICMP, icmp, 8 + len);
    sum = s->ipv6 ? pseudo_sum(f->data + f->l3, true, PROTO_ICMPV6, 8 + len) : 0;
    put16(f->data + f->l4 + 2, (uint16_t)~plain_sum(f->data + f->l4, 8 + len, sum));
    g_free(icmp);
    return f;
}

Frame *frame_echo(const Shape *s, uint16_t id, uint16_t number, const void *payload, uint32_t len)
{
    return frame_icmp(s, s->ipv6 ? 129 : 0, 0, (uint32_t)id << 16 | number, payload, len);
}

Seen frame_check(const uint8_t *data, uint32_t size, uint32_t vnet_len)
{
    Seen seen = { 0 };
    const uint8_t *at = data + vnet_len;
    const uint8_t *ip, *l4;
    uint32_t left, header, l4_len, field;
    uint16_t sum;

    ck_assert_uint_ge(size, vnet_len + 14 + 20 + 8);
    if (vnet_len) {
        seen.vnet_flags = data[0];
        seen.gso_type = data[1];
        seen.gso_size = (uint16_t)(data[4] + data[5] * 256);
    }
    at += 12;
    while (be16(at) == 0x8100 || be16(at) == 0x88a8) {
        at += 4;
    }
    ip = at + 2;
    left = (uint32_t)(data + size - ip);
    seen.ipv6 = be16(at) == 0x86dd;
    if (seen.ipv6) {
        ck_assert_uint_ge(left, 40);
        header = 40;
        seen.proto = ip[6];
        while (seen.proto == PROTO_HOP_BY_HOP || seen.proto == PROTO_DESTINATION) {
            const uint8_t *ext = ip + header;

            seen.proto = ext[0];
            header += 8 * (ext[1] + 1u);
        }
        ck_assert_uint_le(40u + be16(ip + 4), left);
        l4_len = 40u + be16(ip + 4) - header;
    } else {
        header = (ip[0] & 15) * 4u;
        seen.proto = ip[9];
        ck_assert_uint_le(be16(ip + 2), left);
        ck_assert_uint_ge(be16(ip + 2), header);
        ck_assert_msg(plain_sum(ip, header, 0) == 0xffff, "IPv4 header checksum is wrong");
        l4_len = be16(ip + 2) - header;
    }

    l4 = ip + header;
    if (seen.proto == PROTO_TCP) {
        uint32_t tcp_header = (l4[12] >> 4) * 4u;

        ck_assert_uint_le(tcp_header, l4_len);
        seen.seq = be32(l4 + 4);
        seen.ack = be32(l4 + 8);
        seen.flags = l4[13];
        seen.window = be16(l4 + 14);
        seen.urgent = be16(l4 + 18);
        seen.options = l4 + 20;
        seen.options_len = tcp_header - 20;
        seen.payload = l4 + tcp_header;
        seen.len = l4_len - tcp_header;
        seen.seq_len = seen.len + (seen.flags & SYN ? 1 : 0) + (seen.flags & FIN ? 1 : 0);
        field = 16;
    } else if (seen.proto == PROTO_ICMP || seen.proto == PROTO_ICMPV6) {
        seen.payload = l4 + 8;
        seen.len = l4_len - 8;
        ck_assert_msg(plain_sum(l4, l4_len, seen.ipv6 ? pseudo_sum(ip, true, PROTO_ICMPV6, l4_len) : 0) == 0xffff,
                      "ICMP checksum is wrong");
        return seen;
    } else {
        ck_assert_uint_eq(seen.proto, PROTO_UDP);
        ck_assert_uint_eq(be16(l4 + 4), l4_len);
        seen.payload = l4 + 8;
        seen.len = l4_len - 8;
        field = 6;
    }

    sum = pseudo_sum(ip, seen.ipv6, seen.proto, l4_len);
    if (seen.vnet_flags & VNET_NEEDS_CSUM) {
        ck_assert_msg(be16(l4 + field) == sum, "the field does not hold the pseudo-header's sum: %04x for %04x",
                      be16(l4 + field), sum);
    } else {
        ck_assert_msg(plain_sum(l4, l4_len, sum) == 0xffff, "transport checksum is wrong");
    }
    return seen;
}
