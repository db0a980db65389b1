/*
 * Histogram: how long something takes, of any number of durations, in little memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef NET_COLO_HISTOGRAM_H
#define NET_COLO_HISTOGRAM_H

#include <glib.h>
#include <stdint.h>

/* How finely: histogram.c says what these mean. */
#define COLO_HISTOGRAM_UNIT 1024        /* ns */
#define COLO_HISTOGRAM_SUB_BITS 4
#define COLO_HISTOGRAM_BUCKETS ((33 - COLO_HISTOGRAM_SUB_BITS) << COLO_HISTOGRAM_SUB_BITS)

/* All zero is an empty one.  Nothing in it belongs to anybody: it may be copied. */
typedef struct {
    int64_t max;            /* the longest duration added, ns, exactly; 0 if there is none */
    uint64_t buckets[COLO_HISTOGRAM_BUCKETS];
} ColoHistogram;

/* Adds a duration of @ns; what is below 0 counts as 0. */
static inline void colo_histogram_add(ColoHistogram *h, int64_t ns)
{
    uint32_t units, shift;

    if (ns <= 0) {
        h->buckets[0]++;
        return;
    }
    if (ns > h->max) {
        h->max = ns;
    }
    units = (uint32_t)MIN(((uint64_t)ns + COLO_HISTOGRAM_UNIT - 1) / COLO_HISTOGRAM_UNIT, UINT32_MAX);
    shift = 31 - COLO_HISTOGRAM_SUB_BITS - (uint32_t)__builtin_clz(units | 1u << COLO_HISTOGRAM_SUB_BITS);
    h->buckets[(shift << COLO_HISTOGRAM_SUB_BITS) + (units >> shift)]++;
}

/* How many durations have been added. */
uint64_t colo_histogram_count(const ColoHistogram *h);

/*
 * The duration (ns) that the part @q (0 to 1) of all those added does not exceed: the shortest for 0, the median for 0.5, the longest
 * for 1.
 *
 * Returns: never too little, and never more than the longest; if not 0, then too much by less than 1024 ns or a sixteenth of it.
 * For an empty histogram: 0.
 */
int64_t colo_histogram_quantile(const ColoHistogram *h, double q);

#endif /* NET_COLO_HISTOGRAM_H */
