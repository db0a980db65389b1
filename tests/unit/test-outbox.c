/*
 * Tests of outbox.c
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "frames.h"
#include "net/colo/outbox.h"

#include <string.h>

/* Packets are told apart by their number, which their bytes and their size follow from. */
static uint32_t size_of(uint32_t number)
{
    return 1 + number * 37 % 200;
}

static void append(ColoOutbox *box, uint32_t number)
{
    uint8_t *bytes = bytes_of(number, size_of(number));

    memcpy(colo_outbox_append(box, size_of(number), box->vnet ? number % 2 : 0), bytes, size_of(number));
    g_free(bytes);
}

typedef struct {
    bool vnet;
    uint32_t next;          /* number of the packet that must come next */
    ColoOutbox *into;       /* where to put it again, or NULL */
} Expect;

static void on_packet(const uint8_t *frame, uint32_t size, uint32_t vnet_len, void *opaque)
{
    Expect *e = opaque;
    uint8_t *bytes = bytes_of(e->next, size_of(e->next));

    ck_assert_uint_eq(size, size_of(e->next));
    ck_assert_mem_eq(frame, bytes, size);
    ck_assert_uint_eq(vnet_len, e->vnet ? e->next % 2 : 0);
    if (e->into) {
        append(e->into, e->next);
    }
    e->next++;
    g_free(bytes);
}

/* Writes up to @len bytes of the box to @reader. */
static void write_some(ColoOutbox *box, ColoWireReader *reader, size_t len, Expect *e)
{
    uint32_t bad;

    len = MIN(len, colo_outbox_size(box));
    ck_assert(colo_wire_read(reader, colo_outbox_bytes(box), len, on_packet, e, &bad));
    colo_outbox_wrote(box, len);
}

START_TEST(what_goes_in_comes_out)
{
    for (int vnet = 0; vnet < 2; vnet++) {
        for (size_t piece = 1; piece < 700; piece = piece < 20 ? piece + 1 : piece * 2) {
            ColoOutbox box = { .vnet = vnet };
            ColoWireReader *reader = colo_wire_reader_new(vnet);
            Expect e = { .vnet = vnet };

            ck_assert(colo_outbox_is_empty(&box));
            for (uint32_t i = 0; i < 100; i++) {
                append(&box, i);
                ck_assert(!colo_outbox_is_empty(&box));
                write_some(&box, reader, piece, &e);
            }
            while (!colo_outbox_is_empty(&box)) {
                write_some(&box, reader, piece, &e);
            }
            ck_assert_uint_eq(e.next, 100);
            ck_assert_uint_eq(colo_outbox_size(&box), 0);
            colo_outbox_clear(&box);
            colo_wire_reader_free(reader);
        }
    }
}
END_TEST

/* The stream breaks after any number of bytes: the next one begins with the packet that was written in part. */
START_TEST(restart_anywhere)
{
    for (int vnet = 0; vnet < 2; vnet++) {
        size_t total = 0;

        for (size_t cut = 0; cut == 0 || cut <= total; cut++) {
            ColoOutbox box = { .vnet = vnet };
            ColoWireReader *reader = colo_wire_reader_new(vnet);
            Expect e = { .vnet = vnet };

            for (uint32_t i = 0; i < 8; i++) {
                append(&box, i);
            }
            total = colo_outbox_size(&box);
            write_some(&box, reader, cut, &e);
            ck_assert_int_eq(colo_outbox_is_amid(&box), colo_wire_reader_is_amid(reader));
            colo_outbox_restart(&box);
            ck_assert(!colo_outbox_is_amid(&box));
            colo_wire_reader_reset(reader);
            append(&box, 8);
            write_some(&box, reader, SIZE_MAX, &e);
            ck_assert_uint_eq(e.next, 9);
            colo_outbox_clear(&box);
            colo_wire_reader_free(reader);
        }
    }
}
END_TEST

START_TEST(emptied_anywhere)
{
    for (int vnet = 0; vnet < 2; vnet++) {
        size_t total = 0;

        for (size_t cut = 0; cut == 0 || cut <= total; cut++) {
            ColoOutbox box = { .vnet = vnet };
            ColoWireReader *reader = colo_wire_reader_new(vnet);
            Expect e = { .vnet = vnet };
            uint32_t first;

            for (uint32_t i = 0; i < 8; i++) {
                append(&box, i);
            }
            total = colo_outbox_size(&box);
            write_some(&box, reader, cut, &e);
            first = e.next;
            /* The one written in part counts as not written; what takes them out may put them in again. */
            e.into = &box;
            colo_outbox_empty(&box, on_packet, &e);
            ck_assert_uint_eq(e.next, 8);
            e.next = first;
            e.into = NULL;
            ck_assert_int_eq(colo_outbox_is_empty(&box), first == 8);
            colo_outbox_empty(&box, on_packet, &e);
            ck_assert_uint_eq(e.next, 8);
            ck_assert(colo_outbox_is_empty(&box));
            ck_assert_int_eq(box.vnet, vnet);
            colo_outbox_clear(&box);
            colo_wire_reader_free(reader);
        }
    }
}
END_TEST

/* Always a little left in it: it must not grow for ever. */
/* A few at a time, others coming in between. */
START_TEST(taken_a_few_at_a_time)
{
    for (int vnet = 0; vnet < 2; vnet++) {
        for (uint32_t few = 1; few < 8; few++) {
            ColoOutbox box = { .vnet = vnet };
            Expect e = { .vnet = vnet };

            for (uint32_t number = 0; number < 2000; number += 5) {
                for (uint32_t i = 0; i < 5; i++) {
                    append(&box, number + i);
                }
                colo_outbox_take(&box, few, on_packet, &e);
                ck_assert_uint_eq(e.next, MIN(number + 5, number / 5 * few + few));
            }
            colo_outbox_take(&box, UINT32_MAX, on_packet, &e);
            ck_assert_uint_eq(e.next, 2000);
            ck_assert(colo_outbox_is_empty(&box));
            colo_outbox_take(&box, 1, on_packet, &e);
            colo_outbox_clear(&box);
        }
    }
}
END_TEST

START_TEST(never_quite_empty)
{
    ColoOutbox box = { .vnet = false };
    ColoWireReader *reader = colo_wire_reader_new(false);
    Expect e = { 0 };

    append(&box, 0);
    for (uint32_t i = 1; i < 20000; i++) {
        append(&box, i);
        write_some(&box, reader, 4 + size_of(i - 1), &e);
        ck_assert_uint_le(box.allocated, 1024 * 1024);
    }
    ck_assert_uint_eq(e.next, 19999);
    colo_outbox_clear(&box);
    colo_wire_reader_free(reader);
}
END_TEST

/* After a flood its memory goes back. */
/* Much is to be written yet when the room is at an end: nothing is moved about for the little that has been. */
START_TEST(little_written_of_much)
{
    ColoOutbox box = { .vnet = true };
    ColoWireReader *reader = colo_wire_reader_new(true);
    Expect e = { .vnet = true };

    for (uint32_t i = 0; i < 3000; i++) {
        append(&box, i);
        if (i % 100 == 50) {
            write_some(&box, reader, 150, &e);
        }
    }
    write_some(&box, reader, SIZE_MAX, &e);
    ck_assert_uint_eq(e.next, 3000);
    ck_assert(colo_outbox_is_empty(&box));
    colo_outbox_clear(&box);
    colo_wire_reader_free(reader);
}
END_TEST

START_TEST(flood)
{
    ColoOutbox box = { .vnet = false };
    ColoWireReader *reader = colo_wire_reader_new(false);
    Expect e = { 0 };

    for (uint32_t i = 0; i < 50000; i++) {
        append(&box, i);
    }
    write_some(&box, reader, SIZE_MAX, &e);
    ck_assert_uint_eq(e.next, 50000);
    ck_assert_uint_le(box.allocated, 1024 * 1024);
    append(&box, 50000);
    write_some(&box, reader, SIZE_MAX, &e);
    ck_assert_uint_eq(e.next, 50001);
    colo_outbox_clear(&box);
    colo_outbox_clear(&box);
    colo_wire_reader_free(reader);
}
END_TEST

START_TEST(random_use)
{
    GRand *rand = g_rand_new_with_seed(test_seed("random_use"));

    for (int run = 0; run < 300; run++) {
        bool vnet = g_rand_boolean(rand);
        ColoOutbox box = { .vnet = vnet };
        ColoWireReader *reader = colo_wire_reader_new(vnet);
        Expect e = { .vnet = vnet };
        uint32_t given = 0;

        for (int step = 0; step < 400; step++) {
            switch (g_rand_int_range(rand, 0, 20)) {
            case 0:
                colo_outbox_restart(&box);
                colo_wire_reader_reset(reader);
                break;
            case 1:
                colo_outbox_empty(&box, on_packet, &e);
                colo_wire_reader_reset(reader);
                ck_assert_uint_eq(e.next, given);
                break;
            case 2: case 3: case 4: case 5: case 6: case 7: case 8: case 9: case 10:
                append(&box, given++);
                break;
            default:
                write_some(&box, reader, (size_t)g_rand_int_range(rand, 0, 250), &e);
                break;
            }
        }
        write_some(&box, reader, SIZE_MAX, &e);
        ck_assert_uint_eq(e.next, given);
        colo_outbox_clear(&box);
        colo_wire_reader_free(reader);
    }
    g_rand_free(rand);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("outbox");
    TCase *tc = tcase_create("outbox");

    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, what_goes_in_comes_out);
    tcase_add_test(tc, restart_anywhere);
    tcase_add_test(tc, emptied_anywhere);
    tcase_add_test(tc, taken_a_few_at_a_time);
    tcase_add_test(tc, never_quite_empty);
    tcase_add_test(tc, little_written_of_much);
    tcase_add_test(tc, flood);
    tcase_add_test(tc, random_use);
    suite_add_tcase(suite, tc);
    return run_suite(suite);
}
