/*
 * TCP sequence numbers
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Sequence space is a circle of 2^32 positions (RFC 9293, section 3.4): "before" and "after" have a
 * meaning only for positions less than half a circle apart.  No other file compares sequence numbers
 * with < or takes their minimum by itself.
 */

#ifndef NET_COLO_SEQ_H
#define NET_COLO_SEQ_H

#include <stdbool.h>
#include <stdint.h>

/* True if position a comes after position b. */
static inline bool colo_seq_after(uint32_t a, uint32_t b)
{
    return (int32_t)(a - b) > 0;
}

/* True if position a comes before position b. */
static inline bool colo_seq_before(uint32_t a, uint32_t b)
{
    return (int32_t)(a - b) < 0;
}

/* The later of two positions. */
static inline uint32_t colo_seq_max(uint32_t a, uint32_t b)
{
    return colo_seq_after(a, b) ? a : b;
}

#endif /* NET_COLO_SEQ_H */
