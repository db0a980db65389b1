/*
 * The Internet checksum
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Theory of operation: sums are kept in 64 bits and folded once at the end, so that the inner loop has no
 * carry to look after.  A change of a header field brings the checksum up to date from the old and the new
 * value alone (RFC 1624): a packet whose checksum was wrong stays wrong, as the receiver ought to see.
 */

#include "net/colo/checksum.h"

uint64_t colo_checksum_add(uint64_t sum, const uint8_t *bytes, size_t len)
{
    for (; len >= 4; bytes += 4, len -= 4) {
        sum += colo_get_be32(bytes);
    }
    if (len >= 2) {
        sum += colo_get_be16(bytes);
        bytes += 2;
        len -= 2;
    }
    if (len) {
        sum += (uint32_t)bytes[0] << 8;
    }
    return sum;
}

uint16_t colo_checksum_fold(uint64_t sum)
{
    while (sum >> 16) {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    return (uint16_t)sum;
}

void colo_checksum_replace32(uint8_t *field, uint32_t from, uint32_t to)
{
    uint64_t sum = (uint16_t)~colo_get_be16(field);

    sum += (uint64_t)(uint32_t)~from + to;
    colo_put_be16(field, (uint16_t)~colo_checksum_fold(sum));
}
