/*
 * Tests of stream.c and queue.h
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "frames.h"
#include "net/colo/stream.h"

#include <string.h>

static const uint32_t bases[] = { 0, 1000, 0x7ffffffc, 0xfffffff0, 0xfffffffa, 0xfffffffe, UINT32_MAX };

/* The stream that all segments here are of: position base + i says text[i]. */
static const char text[] = "abcdefghijklmnopqrstuvwxyz";

static ColoPacket *segment(uint32_t base, uint32_t from, uint32_t to, uint8_t flags)
{
    static const Shape s;
    Frame *f = frame_tcp(&s, base + from, 1, ACK | flags, NULL, 0, text + from, to - from);
    ColoPacket p, *held;

    ck_assert(colo_packet_parse(&p, f->data, f->size, 0));
    held = colo_packet_hold(&p);
    frame_free(f);
    return held;
}

static void forget(ColoQueue *stream, uint32_t seq)
{
    ColoPacket *p;

    while ((p = colo_stream_take_before(stream, seq))) {
        ck_assert_int_le((int32_t)(p->seq_end - seq), 0);
        ck_assert_ptr_null(p->next);
        colo_packet_free(p);
    }
}

static void empty(ColoQueue *stream)
{
    while (stream->head) {
        ColoPacket *p = stream->head;

        colo_queue_remove(stream, p);
        colo_packet_free(p);
    }
    ck_assert_ptr_null(stream->tail);
}

static void check_sorted(const ColoQueue *stream)
{
    const ColoPacket *last = NULL;

    for (const ColoPacket *p = stream->head; p; p = p->next) {
        ck_assert(!last || (int32_t)(p->seq - last->seq) >= 0);
        last = p;
    }
    ck_assert_ptr_eq(stream->tail, last);
}

static void check_says(const ColoQueue *stream, uint32_t base, uint32_t at, bool there)
{
    ColoRun run = colo_stream_run(stream, base + at);

    ck_assert_msg((run.kind != COLO_RUN_NONE) == there, "position %u + %u is %s", base, at,
                  there ? "missing" : "there");
    if (there) {
        ck_assert_int_eq(run.kind, COLO_RUN_BYTES);
        ck_assert_mem_eq(run.bytes, text + at, run.len);
    }
}

/* Four segments with overlaps, in each of the 24 orders, at each base. */
START_TEST(any_order)
{
    static const uint32_t spans[4][2] = { { 0, 5 }, { 3, 8 }, { 5, 6 }, { 8, 12 } };

    for (guint b = 0; b < G_N_ELEMENTS(bases); b++) {
        for (int order = 0; order < 256; order++) {
            int pick[4] = { order & 3, order >> 2 & 3, order >> 4 & 3, order >> 6 & 3 };
            ColoQueue stream = { NULL, NULL };

            if ((1 << pick[0] | 1 << pick[1] | 1 << pick[2] | 1 << pick[3]) != 15) {
                continue;
            }
            for (int i = 0; i < 4; i++) {
                colo_stream_insert(&stream, segment(bases[b], spans[pick[i]][0], spans[pick[i]][1], 0));
                check_sorted(&stream);
            }
            for (uint32_t at = 0; at < 12; at++) {
                check_says(&stream, bases[b], at, true);
            }
            check_says(&stream, bases[b], 12, false);
            ck_assert_int_eq(colo_stream_run(&stream, bases[b] - 1).kind, COLO_RUN_NONE);
            forget(&stream, bases[b] + 5);
            check_sorted(&stream);
            check_says(&stream, bases[b], 0, false);
            for (uint32_t at = 5; at < 12; at++) {
                check_says(&stream, bases[b], at, true);
            }
            forget(&stream, bases[b] + 12);
            ck_assert_ptr_null(stream.head);
            ck_assert_ptr_null(stream.tail);
        }
    }
}
END_TEST

START_TEST(gaps)
{
    for (guint b = 0; b < G_N_ELEMENTS(bases); b++) {
        ColoQueue stream = { NULL, NULL };

        colo_stream_insert(&stream, segment(bases[b], 8, 10, 0));
        colo_stream_insert(&stream, segment(bases[b], 2, 4, 0));
        for (uint32_t at = 0; at < 14; at++) {
            check_says(&stream, bases[b], at, (at >= 2 && at < 4) || (at >= 8 && at < 10));
        }
        ck_assert_ptr_null(colo_stream_take_before(&stream, bases[b] + 3));
        empty(&stream);
    }
}
END_TEST

/* A long segment in front does not hide that shorter ones behind it are done with. */
START_TEST(forgetting_past_a_long_one)
{
    for (guint b = 0; b < G_N_ELEMENTS(bases); b++) {
        ColoQueue stream = { NULL, NULL };

        colo_stream_insert(&stream, segment(bases[b], 0, 20, 0));
        colo_stream_insert(&stream, segment(bases[b], 1, 3, 0));
        colo_stream_insert(&stream, segment(bases[b], 4, 20, 0));
        forget(&stream, bases[b] + 10);
        ck_assert_ptr_ne(stream.head, stream.tail);
        ck_assert_ptr_eq(stream.head->next, stream.tail);
        check_says(&stream, bases[b], 10, true);
        empty(&stream);
    }
}
END_TEST

START_TEST(the_fin_is_a_position)
{
    for (guint b = 0; b < G_N_ELEMENTS(bases); b++) {
        ColoQueue stream = { NULL, NULL };

        colo_stream_insert(&stream, segment(bases[b], 0, 3, FIN));
        check_says(&stream, bases[b], 2, true);
        ck_assert_int_eq(colo_stream_run(&stream, bases[b] + 3).kind, COLO_RUN_FIN);
        ck_assert_int_eq(colo_stream_run(&stream, bases[b] + 4).kind, COLO_RUN_NONE);
        ck_assert_ptr_null(colo_stream_take_before(&stream, bases[b] + 3));
        forget(&stream, bases[b] + 4);
        ck_assert_ptr_null(stream.head);
    }
}
END_TEST

/* Segments a third of the circle apart come from no guest; they must do no harm. */
START_TEST(hostile_positions)
{
    GRand *rand = g_rand_new_with_seed(test_seed("hostile_positions"));

    for (int run = 0; run < 300; run++) {
        ColoQueue stream = { NULL, NULL };
        uint32_t n = 0;

        for (int i = 0; i < 60; i++) {
            ColoPacket *p;

            colo_stream_insert(&stream, segment(g_rand_int(rand), 0, 3, 0));
            n++;
            while ((p = colo_stream_take_before(&stream, g_rand_int(rand)))) {
                colo_packet_free(p);
                n--;
            }
            colo_stream_run(&stream, g_rand_int(rand));
        }
        for (const ColoPacket *p = stream.head; p; p = p->next) {
            ck_assert(p->next || p == stream.tail);
            n--;
        }
        ck_assert_uint_eq(n, 0);
        empty(&stream);
    }
    g_rand_free(rand);
}
END_TEST

START_TEST(queue)
{
    ColoQueue q = { NULL, NULL };
    ColoPacket *p[4];
    ColoPacket *with = segment(0, 0, 1, 0);

    for (int i = 0; i < 4; i++) {
        p[i] = segment(0, 0, 1, 0);
        colo_queue_push(&q, p[i]);
    }
    colo_queue_remove(&q, p[1]);
    ck_assert(q.head == p[0] && p[0]->next == p[2] && q.tail == p[3]);
    colo_queue_remove(&q, p[3]);
    ck_assert(q.tail == p[2] && !p[2]->next);
    colo_queue_replace(&q, p[2], with);
    ck_assert(q.tail == with && p[0]->next == with && !with->next);
    colo_queue_push(&q, p[3]);
    colo_queue_replace(&q, p[0], p[1]);
    ck_assert(q.head == p[1] && p[1]->next == with && with->next == p[3] && q.tail == p[3]);
    empty(&q);
    colo_queue_push(&q, p[0]);
    ck_assert(q.head == p[0] && q.tail == p[0]);
    empty(&q);
    colo_packet_free(p[2]);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("stream");
    TCase *tc = tcase_create("stream");

    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, any_order);
    tcase_add_test(tc, gaps);
    tcase_add_test(tc, forgetting_past_a_long_one);
    tcase_add_test(tc, the_fin_is_a_position);
    tcase_add_test(tc, hostile_positions);
    tcase_add_test(tc, queue);
    suite_add_tcase(suite, tc);
    return run_suite(suite);
}
