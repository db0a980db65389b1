/*
 * The options of a TCP or IPv4 header
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Both are laid out alike (RFC 9293, section 3.1; RFC 791, section 3.1): a kind and a length that counts both, except
 * for two kinds of a single byte.
 */

#ifndef NET_COLO_OPTIONS_H
#define NET_COLO_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#define COLO_OPTION_END 0
#define COLO_OPTION_NOP 1

#define COLO_IPV4_LOOSE_ROUTE 131
#define COLO_IPV4_STRICT_ROUTE 137

#define COLO_TCP_WINDOW_SCALE 3
#define COLO_TCP_WINDOW_SCALE_LEN 3
#define COLO_TCP_SACK 5
#define COLO_TCP_TIMESTAMPS 8
#define COLO_TCP_TIMESTAMPS_LEN 10
#define COLO_TCP_MD5 19             /* RFC 2385 */
#define COLO_TCP_AO 29              /* RFC 5925 */

typedef struct {
    uint32_t at;                    /* where it begins */
    uint32_t end;
    uint8_t kind;
} ColoOption;

/*
 * Goes on to the option of @data that begins at or behind @option->end, no-operations skipped.
 *
 * @end: where the options end, from @data on, as @option counts, too
 *
 * Returns: false if there is none, or nothing sensible; @option is left alone then.
 */
static inline bool colo_option_next(const uint8_t *data, uint32_t end, ColoOption *option)
{
    uint32_t at = option->end;

    while (at < end && data[at] == COLO_OPTION_NOP) {
        at++;
    }
    if (at >= end || data[at] == COLO_OPTION_END || end - at < 2 || data[at + 1] < 2 || data[at + 1] > end - at) {
        return false;
    }
    *option = (ColoOption) { .at = at, .end = at + data[at + 1], .kind = data[at] };
    return true;
}

static inline bool colo_option_is_timestamps(const ColoOption *option)
{
    return option->kind == COLO_TCP_TIMESTAMPS && option->end - option->at == COLO_TCP_TIMESTAMPS_LEN;
}

#endif
