/*
 * Tests of checksum.c and seq.h
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "frames.h"
#include "net/colo/checksum.h"
#include "net/colo/seq.h"

#include <string.h>

/* The example of RFC 1071, section 3. */
START_TEST(known_sum)
{
    static const uint8_t bytes[] = { 0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7 };

    ck_assert_uint_eq(colo_checksum_fold(colo_checksum_add(0, bytes, sizeof(bytes))), 0xddf2);
}
END_TEST

START_TEST(every_length_at_every_alignment)
{
    uint8_t *bytes = bytes_of(1, 80);

    for (uint32_t from = 0; from < 8; from++) {
        for (uint32_t len = 0; len < 70; len++) {
            /* A copy of exactly that size: nothing beyond it may be read. */
            uint8_t *exact = g_malloc(from + len + !(from + len));

            memcpy(exact + from, bytes, len);
            ck_assert_uint_eq(colo_checksum_fold(colo_checksum_add(0, exact + from, len)),
                              plain_sum(bytes, len, 0));
            g_free(exact);
        }
    }
    g_free(bytes);
}
END_TEST

START_TEST(long_sum_does_not_overflow)
{
    uint32_t len = 4 * 1024 * 1024 + 2;
    uint8_t *bytes = g_malloc(len);

    memset(bytes, 0xff, len);
    ck_assert_uint_eq(colo_checksum_fold(colo_checksum_add(UINT32_MAX, bytes, len)), 0xffff);
    g_free(bytes);
}
END_TEST

START_TEST(replacing_is_the_same_as_summing_anew)
{
    static const uint32_t corners[] = { 0, 1, 0xffff, 0x10000, 0xffff0000, 0xfffeffff, 0x80000000, UINT32_MAX };
    uint32_t seed = test_seed("replacing_is_the_same_as_summing_anew");
    GRand *rand = g_rand_new_with_seed(seed);

    for (int i = 0; i < 20000; i++) {
        uint8_t bytes[16];
        uint32_t at = 4 + 2 * (uint32_t)g_rand_int_range(rand, 0, 5);
        uint32_t to = i % 2 ? g_rand_int(rand) : corners[g_rand_int_range(rand, 0, G_N_ELEMENTS(corners))];
        uint32_t from;

        for (guint b = 0; b < sizeof(bytes); b++) {
            bytes[b] = i % 3 ? (uint8_t)g_rand_int(rand) : (g_rand_boolean(rand) ? 0xff : 0);
        }
        bytes[15] |= 1;     /* a sum of nothing but zeros never occurs: there are addresses in it */
        if (i % 5 == 0) {
            put32(bytes + at, corners[g_rand_int_range(rand, 0, G_N_ELEMENTS(corners))]);
        }
        put16(bytes, 0);
        put16(bytes, (uint16_t)~plain_sum(bytes, sizeof(bytes), 0x1234));
        from = be32(bytes + at);
        put32(bytes + at, to);
        colo_checksum_replace32(bytes, from, to);
        ck_assert_msg(plain_sum(bytes, sizeof(bytes), 0x1234) == 0xffff, "%08x to %08x, field %04x", from, to,
                      be16(bytes));
    }
    g_rand_free(rand);
}
END_TEST

/* RFC 1624, section 4: where the older formula gives 0xffff in place of 0. */
START_TEST(replacing_gives_no_negative_zero)
{
    uint8_t field[2];

    put16(field, 0xdd2f);
    colo_checksum_replace32(field, 0x5555, 0x3285);
    ck_assert_uint_eq(be16(field), 0);
}
END_TEST

START_TEST(wrong_stays_wrong)
{
    uint8_t field[2];

    put16(field, 0x1111);
    colo_checksum_replace32(field, 77, 78);
    colo_checksum_replace32(field, 78, 77);
    ck_assert_uint_eq(be16(field), 0x1111);
}
END_TEST

START_TEST(sequence_order_across_the_wrap)
{
    static const uint32_t bases[] = { 0, 1, 1000, 0x7fffffff, 0x80000000, 0x80000001, 0xffffff00, UINT32_MAX };
    static const uint32_t steps[] = { 1, 2, 1000, 0x10000, 0x7ffffffe, 0x7fffffff };

    for (guint i = 0; i < G_N_ELEMENTS(bases); i++) {
        uint32_t a = bases[i];

        ck_assert(!colo_seq_after(a, a) && !colo_seq_before(a, a));
        ck_assert_uint_eq(colo_seq_max(a, a), a);
        for (guint j = 0; j < G_N_ELEMENTS(steps); j++) {
            uint32_t b = a + steps[j];

            ck_assert(colo_seq_after(b, a) && !colo_seq_after(a, b));
            ck_assert(colo_seq_before(a, b) && !colo_seq_before(b, a));
            ck_assert_uint_eq(colo_seq_max(a, b), b);
            ck_assert_uint_eq(colo_seq_max(b, a), b);
        }
    }
}
END_TEST

START_TEST(big_endian_at_any_alignment)
{
    uint8_t bytes[9] = { 0, 0xfe, 0xdc, 0xba, 0x98, 0, 0, 0, 0 };

    ck_assert_uint_eq(colo_get_be16(bytes + 1), 0xfedc);
    ck_assert_uint_eq(colo_get_be32(bytes + 1), 0xfedcba98);
    colo_put_be32(bytes + 3, 0x80000001);
    ck_assert_uint_eq(be32(bytes + 3), 0x80000001);
    colo_put_be16(bytes + 7, 0xff80);
    ck_assert_uint_eq(be16(bytes + 7), 0xff80);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("checksum");
    TCase *tc = tcase_create("checksum");

    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, known_sum);
    tcase_add_test(tc, every_length_at_every_alignment);
    tcase_add_test(tc, long_sum_does_not_overflow);
    tcase_add_test(tc, replacing_is_the_same_as_summing_anew);
    tcase_add_test(tc, replacing_gives_no_negative_zero);
    tcase_add_test(tc, wrong_stays_wrong);
    tcase_add_test(tc, sequence_order_across_the_wrap);
    tcase_add_test(tc, big_endian_at_any_alignment);
    suite_add_tcase(suite, tc);
    return run_suite(suite);
}
