/*
 * Tests of histogram.c
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "frames.h"
#include "net/colo/histogram.h"

#include <stdlib.h>

#define US 1000LL
#define SECOND (1000 * 1000 * US)
#define MINUTE (60 * SECOND)
#define UNIT 1024LL     /* ns */

/* Here the last bucket begins: 71 minutes. */
#define FINE_END (4260 * SECOND)

START_TEST(nothing_added)
{
    ColoHistogram h = { 0 };

    ck_assert_uint_eq(colo_histogram_count(&h), 0);
    ck_assert_int_eq(h.max, 0);
    ck_assert_int_eq(colo_histogram_quantile(&h, 0), 0);
    ck_assert_int_eq(colo_histogram_quantile(&h, 0.99), 0);
    ck_assert_int_eq(colo_histogram_quantile(&h, 1), 0);
}
END_TEST

/* What did not wait is told apart from what waited for the shortest time. */
START_TEST(zero_is_exact)
{
    ColoHistogram h = { 0 };

    for (int i = 0; i < 99; i++) {
        colo_histogram_add(&h, 0);
    }
    ck_assert_int_eq(colo_histogram_quantile(&h, 1), 0);
    colo_histogram_add(&h, 1);
    ck_assert_uint_eq(colo_histogram_count(&h), 100);
    ck_assert_int_eq(colo_histogram_quantile(&h, 0.99), 0);
    ck_assert_int_eq(colo_histogram_quantile(&h, 1), 1);
    ck_assert_int_eq(h.max, 1);
}
END_TEST

START_TEST(below_zero)
{
    ColoHistogram h = { 0 };

    colo_histogram_add(&h, -1);
    colo_histogram_add(&h, INT64_MIN);
    ck_assert_uint_eq(colo_histogram_count(&h), 2);
    ck_assert_int_eq(colo_histogram_quantile(&h, 1), 0);
    ck_assert_int_eq(h.max, 0);
}
END_TEST

/* What the bucket of @ns tells of it, if the longest of all does not say more. */
static int64_t told(int64_t ns)
{
    ColoHistogram h = { 0 };

    colo_histogram_add(&h, INT64_MAX);
    colo_histogram_add(&h, ns);
    ck_assert_uint_eq(colo_histogram_count(&h), 2);
    ck_assert_int_eq(h.max, INT64_MAX);
    return colo_histogram_quantile(&h, 0.5);
}

/* The table at the head of histogram.c, at the ends of its buckets. */
START_TEST(buckets)
{
    static const struct {
        int64_t units, last;    /* each in units; the last of the bucket of the first */
    } expected[] = {
        { 1, 1 }, { 2, 2 }, { 15, 15 }, { 16, 16 }, { 17, 17 }, { 31, 31 },
        { 32, 33 }, { 33, 33 }, { 34, 35 }, { 62, 63 }, { 63, 63 }, { 64, 67 }, { 67, 67 }, { 68, 71 }, { 127, 127 },
        { 1 << 20, (1 << 20) + (1 << 16) - 1 }, { (1 << 20) + (1 << 16), (1 << 20) + (2 << 16) - 1 },
        { 1LL << 31, (1LL << 31) + (1LL << 27) - 1 }, { (1LL << 32) - (1LL << 27) - 1, (1LL << 32) - (1LL << 27) - 1 },
    };

    for (guint i = 0; i < G_N_ELEMENTS(expected); i++) {
        ck_assert_int_eq(told(expected[i].units * UNIT), expected[i].last * UNIT);
        ck_assert_int_eq(told((expected[i].units - 1) * UNIT + 1), expected[i].last * UNIT);
    }
    ck_assert_int_eq(told(((1LL << 32) - (1LL << 27)) * UNIT), INT64_MAX);
    ck_assert_int_eq(told(1LL << 60), INT64_MAX);
}
END_TEST

static void expect_promise(int64_t got, int64_t exact)
{
    ck_assert_msg(got >= exact && got - exact <= MAX(UNIT - 1, got / 16), "%" G_GINT64_FORMAT " ns are told as %"
                  G_GINT64_FORMAT, exact, got);
}

/* Never too little, never by more too much than the header says, and never less for a longer one. */
START_TEST(every_duration)
{
    int64_t before = 0;

    for (int64_t ns = 0; ns < FINE_END; ns += MAX(ns / 1000, 31)) {
        expect_promise(told(ns), ns);
        ck_assert_int_le(before, told(ns));
        before = told(ns);
    }
}
END_TEST

START_TEST(never_above_the_longest)
{
    ColoHistogram h = { 0 };

    colo_histogram_add(&h, 1500 * US);
    colo_histogram_add(&h, 1501 * US);      /* in the same bucket */
    ck_assert_int_eq(colo_histogram_quantile(&h, 0), 1501 * US);
    ck_assert_int_eq(colo_histogram_quantile(&h, 1), 1501 * US);
    colo_histogram_add(&h, 3 * US);
    ck_assert_int_eq(h.max, 1501 * US);
    expect_promise(colo_histogram_quantile(&h, 0), 3 * US);
}
END_TEST

/* An hour still has a bucket of its own; what the last one holds may be as long as the longest. */
START_TEST(very_long_ones)
{
    ColoHistogram h = { 0 };

    colo_histogram_add(&h, 60 * MINUTE);
    colo_histogram_add(&h, 100 * MINUTE);
    colo_histogram_add(&h, 200 * MINUTE);
    expect_promise(colo_histogram_quantile(&h, 0), 60 * MINUTE);
    ck_assert_int_eq(colo_histogram_quantile(&h, 0.5), 200 * MINUTE);
    colo_histogram_add(&h, INT64_MAX);
    ck_assert_int_eq(colo_histogram_quantile(&h, 1), INT64_MAX);
    ck_assert_uint_eq(colo_histogram_count(&h), 4);
}
END_TEST

static int by_value(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return x < y ? -1 : x > y;
}

/* Against the durations themselves, sorted.  Parts in 64ths, which are exact. */
START_TEST(quantiles)
{
    enum { MOST = 300 };
    GRand *rand = g_rand_new_with_seed(test_seed("quantiles"));
    int64_t all[MOST];

    for (int run = 0; run < 300; run++) {
        ColoHistogram h = { 0 };
        int n = g_rand_int_range(rand, 1, MOST + 1);

        for (int i = 0; i < n; i++) {
            all[i] = (int64_t)g_rand_int(rand) << 10 >> g_rand_int_range(rand, 0, 43);
            all[i] = MIN(all[i], FINE_END);
            colo_histogram_add(&h, all[i]);
        }
        qsort(all, (size_t)n, sizeof(*all), by_value);
        ck_assert_uint_eq(colo_histogram_count(&h), n);
        ck_assert_int_eq(h.max, all[n - 1]);
        for (int part = 0; part <= 64; part++) {
            int rank = MAX((part * n + 63) / 64, 1);
            int64_t got = colo_histogram_quantile(&h, part / 64.0);

            expect_promise(got, all[rank - 1]);
            ck_assert_int_le(got, all[n - 1]);
        }
    }
    g_rand_free(rand);
}
END_TEST

/* After years at a gigabit. */
START_TEST(many)
{
    ColoHistogram h = { 0 };

    colo_histogram_add(&h, 5 * UNIT);
    colo_histogram_add(&h, 9 * UNIT);
    h.buckets[0] = 99ULL << 40;
    h.buckets[5] = 1ULL << 40;
    ck_assert_uint_eq(colo_histogram_count(&h), (100ULL << 40) + 1);
    ck_assert_int_eq(colo_histogram_quantile(&h, 0.5), 0);
    ck_assert_int_eq(colo_histogram_quantile(&h, 0.995), 5 * UNIT);
    ck_assert_int_eq(colo_histogram_quantile(&h, 1), 9 * UNIT);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("histogram");
    TCase *tc = tcase_create("histogram");

    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, nothing_added);
    tcase_add_test(tc, zero_is_exact);
    tcase_add_test(tc, below_zero);
    tcase_add_test(tc, buckets);
    tcase_add_test(tc, every_duration);
    tcase_add_test(tc, never_above_the_longest);
    tcase_add_test(tc, very_long_ones);
    tcase_add_test(tc, quantiles);
    tcase_add_test(tc, many);
    suite_add_tcase(suite, tc);
    return run_suite(suite);
}
