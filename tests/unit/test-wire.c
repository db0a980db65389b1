/*
 * Tests of wire.c
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "frames.h"
#include "net/colo/wire.h"

#include <string.h>

#define LONGEST (68 * 1024)

typedef struct {
    GByteArray *bytes;      /* of all packets, each behind size and vnet_len as the callback gave them */
    int packets;
} Read;

static void on_packet(const uint8_t *frame, uint32_t size, uint32_t vnet_len, void *opaque)
{
    Read *read = opaque;
    uint8_t head[8];

    put32(head, size);
    put32(head + 4, vnet_len);
    g_byte_array_append(read->bytes, head, 8);
    g_byte_array_append(read->bytes, frame, size);
    read->packets++;
}

/* The bytes of a stream, and what a reader must make of them. */
typedef struct {
    bool vnet;
    GByteArray *stream;
    GByteArray *expected;
    int packets;
} Script;

static Script *script_new(bool vnet)
{
    Script *s = g_new0(Script, 1);

    s->vnet = vnet;
    s->stream = g_byte_array_new();
    s->expected = g_byte_array_new();
    return s;
}

static void script_free(Script *s)
{
    g_byte_array_unref(s->stream);
    g_byte_array_unref(s->expected);
    g_free(s);
}

static void script_add(Script *s, uint32_t size, uint32_t vnet_len)
{
    uint8_t *bytes = bytes_of((uint32_t)s->packets++, size);
    uint8_t head[8];

    put32(head, size);
    put32(head + 4, vnet_len);
    g_byte_array_append(s->stream, head, s->vnet ? 8 : 4);
    g_byte_array_append(s->stream, bytes, size);
    g_byte_array_append(s->expected, head, 8);
    g_byte_array_append(s->expected, bytes, size);
    g_free(bytes);
}

/* Feeds the reader pieces of exactly their size, so that a sanitizer sees any step beyond. */
static bool feed(ColoWireReader *reader, const uint8_t *bytes, size_t len, Read *read, uint32_t *bad)
{
    uint8_t *exact = g_malloc(len + !len);
    bool going;

    memcpy(exact, bytes, len);
    going = colo_wire_read(reader, exact, len, on_packet, read, bad);
    g_free(exact);
    return going;
}

static void check_read(const Script *s, const Read *read)
{
    ck_assert_int_eq(read->packets, s->packets);
    ck_assert_uint_eq(read->bytes->len, s->expected->len);
    ck_assert_mem_eq(read->bytes->data, s->expected->data, s->expected->len);
}

START_TEST(every_split_in_three)
{
    for (int vnet = 0; vnet < 2; vnet++) {
        Script *s = script_new(vnet);

        script_add(s, 1, 0);
        script_add(s, 14, vnet ? 12 : 0);
        script_add(s, 20, vnet ? 20 : 0);
        script_add(s, 3, 0);
        for (guint i = 0; i <= s->stream->len; i++) {
            for (guint j = i; j <= s->stream->len; j++) {
                ColoWireReader *reader = colo_wire_reader_new(vnet);
                Read read = { g_byte_array_new(), 0 };
                uint32_t bad = 0;

                ck_assert(feed(reader, s->stream->data, i, &read, &bad));
                ck_assert(feed(reader, s->stream->data + i, j - i, &read, &bad));
                ck_assert(feed(reader, s->stream->data + j, s->stream->len - j, &read, &bad));
                check_read(s, &read);
                g_byte_array_unref(read.bytes);
                colo_wire_reader_free(reader);
            }
        }
        script_free(s);
    }
}
END_TEST

START_TEST(any_piece_size)
{
    for (int vnet = 0; vnet < 2; vnet++) {
        Script *s = script_new(vnet);

        for (uint32_t size = 1; size < 200; size += 7) {
            script_add(s, size, vnet && size >= 12 ? 12 : 0);
        }
        script_add(s, LONGEST, 0);
        script_add(s, 1, vnet);
        script_add(s, LONGEST + (vnet ? 20 : 0), vnet ? 20 : 0);
        script_add(s, LONGEST + (vnet ? 10 : 0), vnet ? 10 : 0);
        for (guint piece = 1; piece < 70000; piece = piece < 40 ? piece + 1 : piece * 2 + 1) {
            ColoWireReader *reader = colo_wire_reader_new(vnet);
            Read read = { g_byte_array_new(), 0 };
            uint32_t bad = 0;

            for (guint at = 0; at < s->stream->len; at += piece) {
                ck_assert(feed(reader, s->stream->data + at, MIN(piece, s->stream->len - at), &read, &bad));
            }
            check_read(s, &read);
            g_byte_array_unref(read.bytes);
            colo_wire_reader_free(reader);
        }
        script_free(s);
    }
}
END_TEST

START_TEST(random_splits)
{
    GRand *rand = g_rand_new_with_seed(test_seed("random_splits"));

    for (int run = 0; run < 200; run++) {
        bool vnet = run % 2;
        Script *s = script_new(vnet);
        ColoWireReader *reader = colo_wire_reader_new(vnet);
        Read read = { g_byte_array_new(), 0 };
        uint32_t bad = 0;

        for (int i = 0; i < 30; i++) {
            uint32_t size = (uint32_t)g_rand_int_range(rand, 1, i % 7 ? 100 : 5000);

            script_add(s, size, vnet ? (uint32_t)g_rand_int_range(rand, 0, (gint32)MIN(size, 20) + 1) : 0);
        }
        for (guint at = 0; at < s->stream->len; ) {
            guint piece = (guint)g_rand_int_range(rand, 0, g_rand_boolean(rand) ? 12 : 3000);

            piece = MIN(piece, s->stream->len - at);
            ck_assert(feed(reader, s->stream->data + at, piece, &read, &bad));
            at += piece;
        }
        check_read(s, &read);
        g_byte_array_unref(read.bytes);
        colo_wire_reader_free(reader);
        script_free(s);
    }
    g_rand_free(rand);
}
END_TEST

/* A stream that goes bad behind one good packet, cut at every place. */
static void check_bad(bool vnet, const uint8_t *tail, guint tail_len, uint32_t bad_value)
{
    for (guint split = 0; split <= 40; split++) {
        Script *s = script_new(vnet);
        ColoWireReader *reader = colo_wire_reader_new(vnet);
        Read read = { g_byte_array_new(), 0 };
        uint32_t bad = 12345;
        bool going;
        guint cut;

        script_add(s, 9, 0);
        g_byte_array_append(s->stream, tail, tail_len);
        g_byte_array_append(s->stream, (const guint8 *)"more bytes that nobody reads", 28);
        cut = MIN(split, s->stream->len);

        going = feed(reader, s->stream->data, cut, &read, &bad);
        if (going) {
            ck_assert_uint_eq(bad, 12345);
            going = feed(reader, s->stream->data + cut, s->stream->len - cut, &read, &bad);
        }
        ck_assert(!going);
        ck_assert_uint_eq(bad, bad_value);
        check_read(s, &read);       /* what came before counts, nothing behind it does */
        ck_assert(!feed(reader, s->stream->data, s->stream->len, &read, &bad));
        ck_assert_int_eq(read.packets, 1);

        /* A new connection begins anew. */
        colo_wire_reader_reset(reader);
        ck_assert(feed(reader, s->stream->data, vnet ? 17 : 13, &read, &bad));
        ck_assert_int_eq(read.packets, 2);
        g_byte_array_unref(read.bytes);
        colo_wire_reader_free(reader);
        script_free(s);
    }
}

START_TEST(impossible_lengths)
{
    static const uint32_t sizes[] = { 0, LONGEST + 21, 0x10000000, 0x7fffffff, 0x80000000, 0xfffffff8, UINT32_MAX };
    uint8_t head[8] = { 0 };

    for (guint i = 0; i < G_N_ELEMENTS(sizes); i++) {
        put32(head, sizes[i]);
        check_bad(false, head, 4, sizes[i]);
        check_bad(true, head, 8, sizes[i]);
    }
    put32(head, LONGEST + 1);
    check_bad(false, head, 4, LONGEST + 1);
    check_bad(true, head, 8, LONGEST + 1);      /* without a virtio-net header it is too long as well */
}
END_TEST

START_TEST(impossible_vnet_lengths)
{
    static const uint32_t cases[][2] = {
        { 10, 11 }, { 1, 2 }, { 100, 21 }, { 100, UINT32_MAX }, { 100, 0x80000000 }, { 100, 0xfffffffc },
        { LONGEST, LONGEST },
    };
    uint8_t head[8];

    for (guint i = 0; i < G_N_ELEMENTS(cases); i++) {
        put32(head, cases[i][0]);
        put32(head + 4, cases[i][1]);
        check_bad(true, head, 8, cases[i][1]);
    }
}
END_TEST

/* A peer that sends a length and then goes: nothing of it may be taken for the next connection's. */
START_TEST(reset_forgets_half_a_packet)
{
    Script *s = script_new(false);

    script_add(s, 30, 0);
    for (guint cut = 0; cut < s->stream->len; cut++) {
        ColoWireReader *reader = colo_wire_reader_new(false);
        Read read = { g_byte_array_new(), 0 };
        uint32_t bad;

        ck_assert(feed(reader, s->stream->data, cut, &read, &bad));
        ck_assert_int_eq(colo_wire_reader_is_amid(reader), cut > 0);
        colo_wire_reader_reset(reader);
        ck_assert(!colo_wire_reader_is_amid(reader));
        ck_assert(feed(reader, s->stream->data, s->stream->len, &read, &bad));
        check_read(s, &read);
        ck_assert(!colo_wire_reader_is_amid(reader));
        g_byte_array_unref(read.bytes);
        colo_wire_reader_free(reader);
    }
    script_free(s);
}
END_TEST

START_TEST(header)
{
    uint8_t head[COLO_WIRE_HEADER_MAX];

    memset(head, 0xcc, sizeof(head));
    ck_assert_uint_eq(colo_wire_header(head, false, 0x00010203, 12), 4);
    ck_assert_mem_eq(head, "\0\1\2\3\xcc", 5);
    ck_assert_uint_eq(colo_wire_header(head, true, 0x00010203, 12), 8);
    ck_assert_mem_eq(head, "\0\1\2\3\0\0\0\x0c", 8);
}
END_TEST

START_TEST(epoch_mark)
{
    uint8_t mark[COLO_EPOCH_MARK_SIZE + 1] = { 0 };
    uint64_t number = 0;
    ColoPacket p;

    colo_epoch_mark(mark, 0x0102030405060708);
    ck_assert_mem_eq(mark, "\0\0\0\0\0\0\0\0\0\0\0\0\x88\xb5" "COLO epoch" "\1\2\3\4\5\6\7\10", COLO_EPOCH_MARK_SIZE);
    ck_assert(colo_is_epoch_mark(mark, COLO_EPOCH_MARK_SIZE, NULL));
    ck_assert(colo_is_epoch_mark(mark, COLO_EPOCH_MARK_SIZE, &number));
    ck_assert_uint_eq(number, 0x0102030405060708);
    ck_assert(!colo_is_epoch_mark(mark, COLO_EPOCH_MARK_SIZE + 1, NULL));
    for (size_t size = 0; size < COLO_EPOCH_MARK_SIZE; size++) {
        uint8_t *exact = g_malloc(size + !size);

        memcpy(exact, mark, size);
        ck_assert(!colo_is_epoch_mark(exact, size, NULL));
        g_free(exact);
    }
    for (guint i = 0; i < COLO_EPOCH_MARK_SIZE; i++) {
        mark[i] ^= 1;
        if (i < COLO_EPOCH_MARK_SIZE - 8) {
            ck_assert(!colo_is_epoch_mark(mark, COLO_EPOCH_MARK_SIZE, NULL));
        } else {
            ck_assert(colo_is_epoch_mark(mark, COLO_EPOCH_MARK_SIZE, &number));
            ck_assert_uint_ne(number, 0x0102030405060708);
        }
        mark[i] ^= 1;
    }
    /* To a reader that does not know it, it is no traffic of the guest's. */
    ck_assert(colo_packet_parse(&p, mark, COLO_EPOCH_MARK_SIZE, 0));
    ck_assert_int_eq(p.class, COLO_CLASS_LOCAL);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("wire");
    TCase *tc = tcase_create("wire");

    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, every_split_in_three);
    tcase_add_test(tc, any_piece_size);
    tcase_add_test(tc, random_splits);
    tcase_add_test(tc, impossible_lengths);
    tcase_add_test(tc, impossible_vnet_lengths);
    tcase_add_test(tc, reset_forgets_half_a_packet);
    tcase_add_test(tc, header);
    tcase_add_test(tc, epoch_mark);
    suite_add_tcase(suite, tc);
    return run_suite(suite);
}
