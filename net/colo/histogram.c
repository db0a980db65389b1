/*
 * Histogram: how long something takes, of any number of durations, in little memory
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Theory of operation
 *
 * Buckets whose width grows with what they hold: fine enough for microseconds, wide enough for hours, and few.  A duration is
 * first rounded up to whole units of 1024 ns, so that bucket 0 holds nothing but 0: what did not wait at all.  The
 * first 32 numbers of units have a bucket each; from there on every power of two is divided into 16 (2^SUB_BITS) buckets
 * of equal width.  With s the number of low bits that are not looked at,
 *
 *     units          0 ... 31    32 ... 63    64 ... 127    ...    2^31 ... 2^32 - 1
 *     s                     0            1             2                          27
 *     bucket         0 ... 31    32 ... 47    48 ...  63              448 ...    463
 *
 * and the bucket is 16 s + (units >> s): the leading one of the 5 bits that are left is worth 16, and so counts s on by one.
 * Adding costs one count of leading zeros and three writes, whatever is added.  The last bucket begins at 71 minutes, and
 * takes all that is longer.
 *
 * A quantile is told as the longest duration of its bucket, for it is a promise ("99 % waited no longer"), and such may be too
 * careful but not broken.  How long the longest was is known exactly.
 */

#include "net/colo/histogram.h"

#define SUB_BUCKETS (1u << COLO_HISTOGRAM_SUB_BITS)

/* The longest duration (ns) that goes into @bucket; not for the last one, which has no end. */
static int64_t upper_bound(uint32_t bucket)
{
    uint32_t shift = MAX(bucket / SUB_BUCKETS, 1) - 1;
    int64_t beyond = (int64_t)(bucket - shift * SUB_BUCKETS + 1) << shift;

    return (beyond - 1) * COLO_HISTOGRAM_UNIT;
}

uint64_t colo_histogram_count(const ColoHistogram *h)
{
    uint64_t count = 0;

    for (uint32_t bucket = 0; bucket < COLO_HISTOGRAM_BUCKETS; bucket++) {
        count += h->buckets[bucket];
    }
    return count;
}

int64_t colo_histogram_quantile(const ColoHistogram *h, double q)
{
    double wanted = q * (double)colo_histogram_count(h);
    uint64_t seen = 0;

    for (uint32_t bucket = 0; bucket < COLO_HISTOGRAM_BUCKETS - 1; bucket++) {
        seen += h->buckets[bucket];
        if (seen && (double)seen >= wanted) {
            return MIN(upper_bound(bucket), h->max);
        }
    }
    return h->max;
}
