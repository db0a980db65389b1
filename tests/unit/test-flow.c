/*
 * Tests of flow.c
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "frames.h"
#include "net/colo/flow.h"

#include <string.h>

#define IDLE 1000
#define CLOSED 100

typedef struct {
    ColoFlow flow;
    uint64_t number;
    bool keep;
} Numbered;

static const uint8_t secret[16] = { 7, 1, 4 };
static GHashTable *gone;        /* numbers of the flows that left */

static void on_gone(ColoFlow *flow, void *opaque)
{
    Numbered *n = (Numbered *)flow;

    ck_assert_ptr_eq(opaque, &gone);
    ck_assert_msg(g_hash_table_add(gone, GUINT_TO_POINTER(n->number)), "flow %u left twice", (guint)n->number);
}

static bool on_may_go(const ColoFlow *flow, void *opaque)
{
    ck_assert_ptr_eq(opaque, &gone);
    return !((const Numbered *)flow)->keep;
}

static ColoFlowTable *new_table(void)
{
    gone = g_hash_table_new(NULL, NULL);
    return colo_flow_table_new(sizeof(Numbered), secret, IDLE, CLOSED, on_may_go, on_gone, &gone);
}

static void end_table(ColoFlowTable *table)
{
    colo_flow_table_free(table);
    g_hash_table_destroy(gone);
}

static ColoFlowKey key_of(uint32_t number)
{
    ColoFlowKey key;

    memset(&key, 0, sizeof(key));
    put32(key.peer, number);
    key.guest_port = 80;
    key.ip_version = 4;
    key.proto = 6;
    return key;
}

static Numbered *get(ColoFlowTable *table, uint32_t number, int64_t now)
{
    ColoFlowKey key = key_of(number);
    Numbered *n = (Numbered *)colo_flow_get(table, &key, now);

    ck_assert(n->number == 0 || n->number == number);
    n->number = number;
    return n;
}

static Numbered *find(ColoFlowTable *table, uint32_t number, int64_t now)
{
    ColoFlowKey key = key_of(number);

    return (Numbered *)colo_flow_find(table, &key, now);
}

/* Ages until nothing more goes. */
static void age(ColoFlowTable *table, int64_t now)
{
    uint32_t before;

    do {
        before = colo_flow_count(table);
        colo_flow_table_age(table, now);
    } while (colo_flow_count(table) != before);
}

START_TEST(get_and_find)
{
    ColoFlowTable *table = new_table();
    Numbered *n;

    ck_assert_ptr_null(find(table, 1, 0));
    n = get(table, 1, 0);
    ck_assert_ptr_eq(get(table, 1, 0), n);
    ck_assert_ptr_eq(find(table, 1, 0), n);
    ck_assert_ptr_null(find(table, 2, 0));
    ck_assert_uint_eq(colo_flow_count(table), 1);
    colo_flow_table_clear(table);
    ck_assert_uint_eq(colo_flow_count(table), 0);
    ck_assert_ptr_null(find(table, 1, 0));
    ck_assert_uint_eq(g_hash_table_size(gone), 1);
    get(table, 2, 0);
    end_table(table);
}
END_TEST

START_TEST(hundred_thousand)
{
    enum { N = 100000 };
    ColoFlowTable *table = new_table();

    for (uint32_t i = 1; i <= N; i++) {
        get(table, i, i);
        ck_assert_uint_eq(colo_flow_count(table), i);   /* none is thrown out to make room */
    }
    for (uint32_t i = 1; i <= N; i++) {
        ck_assert_uint_eq(find(table, i, N)->number, i);
    }
    ck_assert_uint_eq(g_hash_table_size(gone), 0);
    for (uint32_t i = 1; i <= N; i += 2) {      /* every second one stays */
        colo_flow_close(table, &find(table, i, N)->flow);
    }
    age(table, N + CLOSED + 1);
    ck_assert_uint_eq(colo_flow_count(table), N / 2);
    for (uint32_t i = 1; i <= N; i++) {
        ck_assert_int_eq(find(table, i, N + CLOSED + 1) != NULL, i % 2 == 0);
    }
    end_table(table);
}
END_TEST

/* Against a plain table: flows come and go in random order, so that runs are broken everywhere. */
START_TEST(removal_keeps_the_others_findable)
{
    enum { N = 600 };
    GRand *rand = g_rand_new_with_seed(test_seed("removal_keeps_the_others_findable"));
    ColoFlowTable *table = new_table();
    bool there[N + 1] = { false };
    uint32_t count = 0;
    int64_t now = 0;

    for (int step = 0; step < 30000; step++) {
        uint32_t i = (uint32_t)g_rand_int_range(rand, 1, N + 1);
        /* The number of flows swings, so that the table is nearly empty and nearly full by turns. */
        bool growing = step % 4000 < 2000;

        if (g_rand_int_range(rand, 0, 4) < (growing ? 3 : 1)) {
            count += !there[i];
            there[i] = true;
            get(table, i, now);
        } else if (there[i]) {
            /* It alone is old enough to go: the rest is on the other clock. */
            colo_flow_close(table, &find(table, i, now)->flow);
            now += CLOSED + 1;
            for (uint32_t j = 1; j <= N; j++) {
                if (j != i && there[j]) {
                    ck_assert_ptr_nonnull(find(table, j, now));
                }
            }
            colo_flow_table_age(table, now);
            g_hash_table_remove_all(gone);
            there[i] = false;
            count--;
            step += 50;
        }
        ck_assert_uint_eq(colo_flow_count(table), count);
        if (step % 100 == 0) {
            for (uint32_t j = 1; j <= N; j++) {
                Numbered *n = find(table, j, now);

                ck_assert_msg((n != NULL) == there[j], "flow %u is %s", j, n ? "there" : "lost");
                ck_assert(!n || n->number == j);
            }
        }
    }
    end_table(table);
    g_rand_free(rand);
}
END_TEST

START_TEST(idle_flows_go)
{
    ColoFlowTable *table = new_table();

    get(table, 1, 0);
    get(table, 2, 10);
    find(table, 1, 500);
    age(table, 1000);
    ck_assert_uint_eq(colo_flow_count(table), 2);
    age(table, 10 + IDLE);
    ck_assert_uint_eq(colo_flow_count(table), 2);
    age(table, 10 + IDLE + 1);
    ck_assert_uint_eq(colo_flow_count(table), 1);
    ck_assert(g_hash_table_contains(gone, GUINT_TO_POINTER(2)));
    age(table, 500 + IDLE + 1);
    ck_assert_uint_eq(colo_flow_count(table), 0);
    end_table(table);
}
END_TEST

START_TEST(closed_flows_go_sooner)
{
    ColoFlowTable *table = new_table();

    get(table, 1, 0);
    get(table, 2, 0);
    colo_flow_close(table, &get(table, 3, 0)->flow);
    colo_flow_close(table, &get(table, 4, 0)->flow);
    colo_flow_close(table, &get(table, 4, 0)->flow);    /* twice is once */
    colo_flow_reopen(table, &get(table, 4, 0)->flow);
    colo_flow_reopen(table, &get(table, 4, 0)->flow);
    age(table, CLOSED);
    ck_assert_uint_eq(colo_flow_count(table), 4);
    age(table, CLOSED + 1);
    ck_assert_uint_eq(colo_flow_count(table), 3);
    ck_assert(g_hash_table_contains(gone, GUINT_TO_POINTER(3)));
    age(table, IDLE + 1);
    ck_assert_uint_eq(colo_flow_count(table), 0);
    end_table(table);
}
END_TEST

START_TEST(use_keeps_a_closed_flow)
{
    ColoFlowTable *table = new_table();

    colo_flow_close(table, &get(table, 1, 0)->flow);
    colo_flow_close(table, &get(table, 2, 0)->flow);
    for (int64_t now = 0; now < 10 * CLOSED; now += CLOSED / 2) {
        find(table, 1, now);
        age(table, now);
        ck_assert_ptr_nonnull(find(table, 1, now));
    }
    ck_assert_uint_eq(colo_flow_count(table), 1);
    end_table(table);
}
END_TEST

START_TEST(who_may_not_go_stays_another_lifetime)
{
    ColoFlowTable *table = new_table();

    get(table, 1, 0)->keep = true;
    get(table, 2, 1);
    for (int i = 0; i < 10; i++) {
        colo_flow_table_age(table, IDLE + 2);   /* must not be stuck on the first */
    }
    ck_assert_uint_eq(colo_flow_count(table), 1);
    ck_assert_uint_eq(g_hash_table_size(gone), 1);
    {
        ColoFlowKey key = key_of(1);
        Numbered *n;

        age(table, 2 * IDLE + 2);
        ck_assert_uint_eq(colo_flow_count(table), 1);
        n = (Numbered *)colo_flow_get(table, &key, 2 * IDLE + 2);
        n->keep = false;
    }
    age(table, 3 * IDLE + 3);
    ck_assert_uint_eq(colo_flow_count(table), 0);
    end_table(table);
}
END_TEST

/* Ageing is called for each packet: it must do little at a time, and still get everything done. */
START_TEST(ageing_is_little_work_at_a_time)
{
    ColoFlowTable *table = new_table();
    uint32_t calls = 0;

    for (uint32_t i = 1; i <= 1000; i++) {
        get(table, i, 0);
    }
    while (colo_flow_count(table)) {
        uint32_t before = colo_flow_count(table);

        colo_flow_table_age(table, IDLE + 1);
        ck_assert_uint_le(before - colo_flow_count(table), 16);
        ck_assert_uint_lt(calls++, 1001);
    }
    end_table(table);
}
END_TEST

START_TEST(no_callbacks)
{
    ColoFlowTable *table = colo_flow_table_new(sizeof(ColoFlow), secret, IDLE, CLOSED, NULL, NULL, NULL);
    ColoFlowKey key = key_of(1);

    colo_flow_get(table, &key, 0);
    age(table, IDLE + 1);
    ck_assert_uint_eq(colo_flow_count(table), 0);
    colo_flow_get(table, &key, 0);
    colo_flow_table_free(table);
    colo_flow_table_free(NULL);
}
END_TEST

START_TEST(new_flows_are_zero)
{
    ColoFlowTable *table = new_table();

    for (uint32_t i = 1; i < 500; i++) {
        Numbered *n = get(table, i, i * (int64_t)IDLE * 2);

        ck_assert(!n->keep && !n->flow.closing);
        memset(&n->number, 0xff, sizeof(*n) - offsetof(Numbered, number));
        n->number = i;
        n->keep = false;
        age(table, i * (int64_t)IDLE * 2);
    }
    end_table(table);
}
END_TEST

/* Removed by hand, in any order, open ones and closed ones; memory of those that are gone is used again. */
START_TEST(removed_by_hand)
{
    enum { N = 2000 };
    GRand *rand = g_rand_new_with_seed(test_seed("removed_by_hand"));
    ColoFlowTable *table = new_table();
    GHashTable *places = g_hash_table_new(NULL, NULL);
    Numbered *flows[N + 1] = { NULL };
    uint32_t count = 0;

    for (int step = 0; step < 40000; step++) {
        uint32_t i = (uint32_t)g_rand_int_range(rand, 1, N + 1);

        if (!flows[i]) {
            flows[i] = get(table, i, 0);
            ck_assert(!flows[i]->keep && !flows[i]->flow.closing);
            flows[i]->keep = true;
            g_hash_table_add(places, flows[i]);
            count++;
        } else if (g_rand_int_range(rand, 0, 4) == 0) {
            colo_flow_close(table, &flows[i]->flow);
        } else {
            g_hash_table_remove_all(gone);
            colo_flow_remove(table, &flows[i]->flow);
            ck_assert(g_hash_table_size(gone) == 1 && g_hash_table_contains(gone, GUINT_TO_POINTER(i)));
            flows[i] = NULL;
            ck_assert_ptr_null(find(table, i, 0));
            count--;
        }
        ck_assert_uint_eq(colo_flow_count(table), count);
        if (step % 1000 == 0) {
            for (uint32_t j = 1; j <= N; j++) {
                ck_assert_ptr_eq(find(table, j, 0), flows[j]);  /* a flow keeps its place */
            }
        }
    }
    ck_assert_uint_le(g_hash_table_size(places), N);    /* as many as there ever were at once, at most */
    for (uint32_t j = 1; j <= N; j++) {
        if (flows[j]) {
            g_hash_table_remove_all(gone);
            colo_flow_remove(table, &flows[j]->flow);
        }
    }
    ck_assert_uint_eq(colo_flow_count(table), 0);
    age(table, 100 * IDLE);
    g_hash_table_remove_all(gone);
    get(table, 1, 0);
    end_table(table);
    g_hash_table_destroy(places);
    g_rand_free(rand);
}
END_TEST

/* Removing from either list's ends and middle leaves the order of the rest. */
START_TEST(removal_keeps_the_order_of_age)
{
    for (uint32_t removed = 1; removed <= 5; removed++) {
        for (int closed = 0; closed < 2; closed++) {
            ColoFlowTable *table = new_table();

            for (uint32_t i = 1; i <= 5; i++) {
                Numbered *n = get(table, i, 10 * i);

                if (closed) {
                    colo_flow_close(table, &n->flow);
                }
            }
            colo_flow_remove(table, &find(table, removed, 50)->flow);
            for (uint32_t i = 1; i <= 5; i++) {
                age(table, 10 * i + (closed ? CLOSED : IDLE) + 1);
                ck_assert_uint_eq(colo_flow_count(table), 5 - i - (removed > i));
            }
            end_table(table);
        }
    }
}
END_TEST

/* A table that has been emptied is as good as a new one, however many it held. */
START_TEST(cleared)
{
    ColoFlowTable *table = new_table();

    for (uint32_t n = 1; n <= 3000; n = n * 3 + 1) {
        for (uint32_t i = 1; i <= n; i++) {
            Numbered *flow = get(table, i, i);

            ck_assert(!flow->keep);
            flow->keep = true;
            if (i % 3 == 0) {
                colo_flow_close(table, &flow->flow);
            }
            if (i % 7 == 0) {
                colo_flow_remove(table, &flow->flow);
            }
        }
        g_hash_table_remove_all(gone);
        ck_assert_uint_eq(colo_flow_count(table), n - n / 7);
        colo_flow_table_clear(table);
        ck_assert_uint_eq(g_hash_table_size(gone), n - n / 7);      /* each once */
        ck_assert_uint_eq(colo_flow_count(table), 0);
        age(table, 100 * IDLE);
        for (uint32_t i = 1; i <= n; i++) {
            ck_assert_ptr_null(find(table, i, 0));
        }
        g_hash_table_remove_all(gone);
    }
    colo_flow_table_clear(table);
    colo_flow_table_clear(table);
    end_table(table);
}
END_TEST

/* Keys */

static ColoFlowKey key_from(Frame *f, ColoDirection direction)
{
    ColoFlowKey key;
    ColoPacket p;

    memset(&key, 0xcc, sizeof(key));    /* no byte of it may stay as it was */
    ck_assert(colo_packet_parse(&p, f->data, f->size, f->vnet_len));
    colo_flow_key(&key, &p, direction);
    frame_free(f);
    return key;
}

static Frame *some_frame(const Shape *s, int kind)
{
    switch (kind) {
    case 0:
        return frame_tcp(s, 1, 1, ACK, NULL, 0, "x", 1);
    case 1:
        return frame_udp(s, "x", 1);
    default:
        return frame_echo(s, 1, 1, "x", 1);
    }
}

START_TEST(both_directions_are_one_flow)
{
    for (int ipv6 = 0; ipv6 < 2; ipv6++) {
        for (int kind = 0; kind < 3; kind++) {
            Shape out = { .ipv6 = ipv6 }, in = { .ipv6 = ipv6, .to_guest = true };
            ColoFlowKey a, b;

            /* The same service, so that only the addresses and ports change places. */
            out.guest_port = in.guest_port = 443;
            a = key_from(some_frame(&out, kind), COLO_FROM_GUEST);
            b = key_from(some_frame(&in, kind), COLO_TO_GUEST);
            ck_assert_mem_eq(&a, &b, sizeof(a));
            b = key_from(some_frame(&out, kind), COLO_TO_GUEST);
            ck_assert_mem_ne(&a, &b, sizeof(a));
        }
    }
}
END_TEST

START_TEST(what_makes_another_flow)
{
    static const Shape shapes[] = {
        { 0 },
        { .guest_host = 3 },
        { .peer_host = 3 },
        { .guest_port = 81 },
        { .peer_port = 4712 },
        { .vlans = 1, .vlan = { 1 } },
        { .vlans = 1, .vlan = { 2 } },
        { .ipv6 = true },
        { .ipv6 = true, .guest_host = 3 },
    };

    for (guint i = 0; i < G_N_ELEMENTS(shapes); i++) {
        for (guint j = 0; j < G_N_ELEMENTS(shapes); j++) {
            for (int kind = 0; kind < 2; kind++) {
                ColoFlowKey a = key_from(some_frame(&shapes[i], 0), COLO_FROM_GUEST);
                ColoFlowKey b = key_from(some_frame(&shapes[j], kind), COLO_FROM_GUEST);

                ck_assert_int_eq(!memcmp(&a, &b, sizeof(a)), i == j && kind == 0);
            }
        }
    }
}
END_TEST

START_TEST(what_does_not_make_another_flow)
{
    static const Shape shapes[] = {
        { 0 },
        { .ttl = 3 },
        { .tos = 8 },
        { .ip_id = 77 },
        { .ip_options = 8 },
        { .pad_to = 99 },
        { .vnet_len = 12 },
        { .vnet_len = 20, .pad_to = 90, .padding = 4 },
    };
    ColoFlowKey a = key_from(some_frame(&shapes[0], 1), COLO_FROM_GUEST);
    Shape tagged = { .vlans = 1, .vlan = { 5 } }, priority = { .vlans = 1, .vlan = { 0xe005 } };
    ColoFlowKey b;

    for (guint i = 0; i < G_N_ELEMENTS(shapes); i++) {
        b = key_from(some_frame(&shapes[i], 1), COLO_FROM_GUEST);
        ck_assert_mem_eq(&a, &b, sizeof(a));
    }
    /* A tag's priority bits are no part of the network's name. */
    a = key_from(some_frame(&tagged, 1), COLO_FROM_GUEST);
    b = key_from(some_frame(&priority, 1), COLO_FROM_GUEST);
    ck_assert_mem_eq(&a, &b, sizeof(a));
}
END_TEST

/* A fragment and a broken segment have no place among the positions of the connection they look like. */
START_TEST(broken_segments_are_another_flow)
{
    Shape s = { 0 }, fragment = { .fragment = 0x2000 };
    ColoFlowKey stream = key_from(some_frame(&s, 0), COLO_FROM_GUEST);
    ColoFlowKey other = key_from(some_frame(&fragment, 0), COLO_FROM_GUEST);
    Frame *f = some_frame(&s, 0);

    ck_assert_mem_ne(&stream, &other, sizeof(stream));
    f->data[f->l4 + 12] = 0xf0;     /* a header of 60 bytes in 21 */
    other = key_from(f, COLO_FROM_GUEST);
    ck_assert_mem_ne(&stream, &other, sizeof(stream));
}
END_TEST

/* All pieces of a datagram are one flow, though only the first has ports. */
START_TEST(pieces_are_one_flow)
{
    Shape first = { .fragment = 0x2000 }, last = { .fragment = 0x0010, .guest_port = 99 };
    ColoFlowKey a = key_from(some_frame(&first, 1), COLO_FROM_GUEST);
    ColoFlowKey b = key_from(some_frame(&last, 1), COLO_FROM_GUEST);

    ck_assert_mem_eq(&a, &b, sizeof(a));
}
END_TEST

START_TEST(transport_too_short_for_ports)
{
    static const Shape s;

    for (uint32_t len = 0; len < 5; len++) {
        ColoFlowKey key = key_from(frame_ip(&s, 17, "\1\2\3\4", len), COLO_FROM_GUEST);

        ck_assert_uint_eq(key.guest_port, len < 4 ? 0 : 0x0102);
        ck_assert_uint_eq(key.peer_port, len < 4 ? 0 : 0x0304);
    }
}
END_TEST

START_TEST(text)
{
    Shape v4 = { 0 }, v6 = { .ipv6 = true };
    ColoFlowKey a = key_from(some_frame(&v4, 0), COLO_FROM_GUEST);
    ColoFlowKey b = key_from(some_frame(&v6, 0), COLO_FROM_GUEST);
    char first[COLO_FLOW_TEXT], second[COLO_FLOW_TEXT];

    static const struct {
        uint8_t proto;
        const char *beginning;
    } names[] = {
        { 6, "tcp " }, { 17, "udp " }, { 1, "icmp " }, { 58, "icmpv6 " }, { 132, "proto 132 " }, { 0, "proto 0 " },
    };

    for (guint i = 0; i < G_N_ELEMENTS(names); i++) {
        a.proto = names[i].proto;
        ck_assert(g_str_has_prefix(colo_flow_key_format(&a, first), names[i].beginning));
    }
    /* Two at once: no shared buffer. */
    ck_assert_ptr_eq(colo_flow_key_format(&a, first), first);
    colo_flow_key_format(&b, second);
    ck_assert_ptr_nonnull(strstr(first, "10.0.0.2:80 > 10.0.0.1:4711"));
    ck_assert_ptr_nonnull(strstr(second, "fd00"));
    ck_assert_ptr_nonnull(strstr(second, ":80"));
    memset(&b, 0xff, sizeof(b));
    b.ip_version = 6;
    colo_flow_key_format(&b, second);
    ck_assert_uint_lt(strlen(second), COLO_FLOW_TEXT);
    ck_assert_ptr_nonnull(strstr(second, ":65535"));    /* not cut short: the last port is there */
    ck_assert_str_eq(second + strlen(second) - 6, ":65535");
}
END_TEST

/* The hash */

START_TEST(hash_depends_on_the_secret)
{
    static const uint8_t other[16] = { 7, 1, 5 };
    ColoFlowTable *a = colo_flow_table_new(sizeof(ColoFlow), secret, 1, 1, NULL, NULL, NULL);
    ColoFlowTable *b = colo_flow_table_new(sizeof(ColoFlow), other, 1, 1, NULL, NULL, NULL);

    ck_assert(colo_flow_table_hash(a, "bytes", 5) == colo_flow_table_hash(a, "bytes", 5));
    ck_assert(colo_flow_table_hash(a, "bytes", 5) != colo_flow_table_hash(b, "bytes", 5));
    colo_flow_table_free(a);
    colo_flow_table_free(b);
}
END_TEST

/* Every bit of every byte counts, and so does the length, at each length modulo the word. */
START_TEST(hash_sees_every_bit)
{
    ColoFlowTable *table = colo_flow_table_new(sizeof(ColoFlow), secret, 1, 1, NULL, NULL, NULL);
    uint8_t bytes[41] = { 0 };

    for (uint32_t len = 0; len <= 40; len++) {
        uint64_t before = colo_flow_table_hash(table, bytes, len);

        ck_assert(before != colo_flow_table_hash(table, bytes, len + 1));
        for (uint32_t bit = 0; bit < len * 8; bit++) {
            bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
            ck_assert(before != colo_flow_table_hash(table, bytes, len));
            bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        }
    }
    colo_flow_table_free(table);
}
END_TEST

/* SipHash-1-3 written down a second time, byte by byte and variable by variable. */
static uint64_t reference_siphash13(const uint8_t key[16], const uint8_t *in, uint32_t len)
{
    uint64_t k0 = 0, k1 = 0, b = (uint64_t)len << 56;
    uint64_t v0, v1, v2, v3;

#define R(x, n) (((x) << (n)) | ((x) >> (64 - (n))))
#define ROUND() do { \
        v0 += v1; v1 = R(v1, 13); v1 ^= v0; v0 = R(v0, 32); v2 += v3; v3 = R(v3, 16); v3 ^= v2; \
        v0 += v3; v3 = R(v3, 21); v3 ^= v0; v2 += v1; v1 = R(v1, 17); v1 ^= v2; v2 = R(v2, 32); \
    } while (0)
    for (int i = 0; i < 8; i++) {
        k0 |= (uint64_t)key[i] << 8 * i;
        k1 |= (uint64_t)key[8 + i] << 8 * i;
    }
    v0 = k0 ^ 0x736f6d6570736575ULL;
    v1 = k1 ^ 0x646f72616e646f6dULL;
    v2 = k0 ^ 0x6c7967656e657261ULL;
    v3 = k1 ^ 0x7465646279746573ULL;
    for (; len >= 8; in += 8, len -= 8) {
        uint64_t m = 0;

        for (int i = 0; i < 8; i++) {
            m |= (uint64_t)in[i] << 8 * i;
        }
        v3 ^= m;
        ROUND();
        v0 ^= m;
    }
    for (uint32_t i = 0; i < len; i++) {
        b |= (uint64_t)in[i] << 8 * i;
    }
    v3 ^= b;
    ROUND();
    v0 ^= b;
    v2 ^= 0xff;
    ROUND();
    ROUND();
    ROUND();
    return v0 ^ v1 ^ v2 ^ v3;
}

START_TEST(hash_is_siphash)
{
    uint8_t key[16], bytes[64];
    ColoFlowTable *table;

    for (int i = 0; i < 64; i++) {
        bytes[i] = (uint8_t)i;
        key[i % 16] = (uint8_t)(i % 16);
    }
    table = colo_flow_table_new(sizeof(ColoFlow), key, 1, 1, NULL, NULL, NULL);
    for (uint32_t len = 0; len <= 64; len++) {
        ck_assert(colo_flow_table_hash(table, bytes, len) == reference_siphash13(key, bytes, len));
    }
    colo_flow_table_free(table);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("flow");
    TCase *tc = tcase_create("flow");

    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, get_and_find);
    tcase_add_test(tc, hundred_thousand);
    tcase_add_test(tc, removal_keeps_the_others_findable);
    tcase_add_test(tc, idle_flows_go);
    tcase_add_test(tc, closed_flows_go_sooner);
    tcase_add_test(tc, use_keeps_a_closed_flow);
    tcase_add_test(tc, who_may_not_go_stays_another_lifetime);
    tcase_add_test(tc, ageing_is_little_work_at_a_time);
    tcase_add_test(tc, no_callbacks);
    tcase_add_test(tc, new_flows_are_zero);
    tcase_add_test(tc, removed_by_hand);
    tcase_add_test(tc, removal_keeps_the_order_of_age);
    tcase_add_test(tc, cleared);
    tcase_add_test(tc, both_directions_are_one_flow);
    tcase_add_test(tc, what_makes_another_flow);
    tcase_add_test(tc, what_does_not_make_another_flow);
    tcase_add_test(tc, broken_segments_are_another_flow);
    tcase_add_test(tc, pieces_are_one_flow);
    tcase_add_test(tc, transport_too_short_for_ports);
    tcase_add_test(tc, text);
    tcase_add_test(tc, hash_depends_on_the_secret);
    tcase_add_test(tc, hash_sees_every_bit);
    tcase_add_test(tc, hash_is_siphash);
    suite_add_tcase(suite, tc);
    return run_suite(suite);
}
