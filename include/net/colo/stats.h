/*
 * Counters
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What an object counts.  Plain numbers that only grow, written by the one thread that does the work; a
 * reader in another thread sees each as it was a moment ago.
 */

#ifndef NET_COLO_STATS_H
#define NET_COLO_STATS_H

#include <stdint.h>

typedef struct {
    uint64_t packets;
    uint64_t bytes;
} ColoCount;

static inline void colo_count(ColoCount *count, uint32_t bytes)
{
    count->packets++;
    count->bytes += bytes;
}

#endif /* NET_COLO_STATS_H */
