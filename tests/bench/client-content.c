/*
 * The bench client's content: a stream of bytes that guestd makes, too, see tests/guest/guestd.c
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <string.h>

#include "client.h"

static uint64_t content_word(uint64_t seed, uint64_t index)
{
    uint64_t z = (index + 1) * 0x9e3779b97f4a7c15u + seed;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    return z ^ (z >> 27);
}

void content_fill(uint8_t *bytes, size_t len, uint64_t seed, uint64_t offset)
{
    uint64_t word;

    for (size_t at = 0; at < len; at += sizeof(word)) {
        word = content_word(seed, (offset + at) / sizeof(word));
        memcpy(bytes + at, &word, MIN(len - at, sizeof(word)));
    }
}

bool content_matches(const uint8_t *bytes, size_t len, uint64_t seed, uint64_t offset)
{
    while (len) {
        uint64_t word = content_word(seed, offset / sizeof(word));
        size_t skip = offset % sizeof(word);
        size_t n = MIN(sizeof(word) - skip, len);

        /* Nearly always it is a whole word, and a constant length makes comparing it cheap. */
        if (n == sizeof(word) ? memcmp(bytes, &word, sizeof(word)) : memcmp(bytes, (uint8_t *)&word + skip, n)) {
            return false;
        }
        bytes += n;
        len -= n;
        offset += n;
    }
    return true;
}
