/*
 * Durations: how long things took, in a fixed space
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Counts by size, eight steps for each doubling, so a quantile is right to within 9 percent; the largest is exact.
 */

#ifndef TESTS_REPLAY_DURATIONS_H
#define TESTS_REPLAY_DURATIONS_H

#include <glib.h>

#define DURATIONS_STEPS 8
#define DURATIONS_BUCKETS (64 * DURATIONS_STEPS)

typedef struct {
    uint64_t count;
    int64_t max;
    uint32_t *buckets;      /* NULL while there is nothing to count */
} Durations;

static inline guint durations_bucket(int64_t ns)
{
    guint bits = g_bit_storage((gulong)ns);     /* at least 1 */
    guint step = bits > 3 ? (guint)(ns >> (bits - 4)) & (DURATIONS_STEPS - 1) : 0;

    return (bits - 1) * DURATIONS_STEPS + step;
}

static inline void durations_add(Durations *d, int64_t ns)
{
    if (!d->buckets) {
        d->buckets = g_new0(uint32_t, DURATIONS_BUCKETS);
    }
    ns = MAX(ns, 0);
    d->buckets[durations_bucket(ns)]++;
    d->count++;
    d->max = MAX(d->max, ns);
}

/* The smallest duration of the step in which the median lies. */
static inline int64_t durations_median(const Durations *d)
{
    uint64_t seen = 0;

    for (guint i = 0; d->count && i < DURATIONS_BUCKETS; i++) {
        seen += d->buckets[i];
        if (seen * 2 >= d->count) {
            guint shift = i / DURATIONS_STEPS;
            int64_t low = shift ? (int64_t)1 << shift : 0;

            return shift > 2 ? low + (low / DURATIONS_STEPS) * (i % DURATIONS_STEPS) : low;
        }
    }
    return 0;
}

static inline void durations_clear(Durations *d)
{
    g_free(d->buckets);
}

#endif /* TESTS_REPLAY_DURATIONS_H */
