/*
 * The Internet checksum
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef NET_COLO_CHECKSUM_H
#define NET_COLO_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

static inline uint16_t colo_get_be16(const uint8_t *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}

static inline uint32_t colo_get_be32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static inline uint64_t colo_get_be64(const uint8_t *p)
{
    return (uint64_t)colo_get_be32(p) << 32 | colo_get_be32(p + 4);
}

static inline void colo_put_be16(uint8_t *p, uint16_t v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

static inline void colo_put_be32(uint8_t *p, uint32_t v)
{
    colo_put_be16(p, (uint16_t)(v >> 16));
    colo_put_be16(p + 2, (uint16_t)v);
}

static inline void colo_put_be64(uint8_t *p, uint64_t v)
{
    colo_put_be32(p, (uint32_t)(v >> 32));
    colo_put_be32(p + 4, (uint32_t)v);
}

/* Adds @len bytes, as big-endian 16-bit words, to the one's complement sum @sum (RFC 1071). */
uint64_t colo_checksum_add(uint64_t sum, const uint8_t *bytes, size_t len);

/* Folds a sum to 16 bits; the checksum of a packet is the complement of that. */
uint16_t colo_checksum_fold(uint64_t sum);

/*
 * Brings a checksum field up to date after the 32-bit value @from, at an even offset in what is summed,
 * has become @to (RFC 1624, equation 3).
 */
void colo_checksum_replace32(uint8_t *field, uint32_t from, uint32_t to);

#endif /* NET_COLO_CHECKSUM_H */
