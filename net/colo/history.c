/*
 * History: what streams have said, to hold repetitions against
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Theory of operation
 *
 * A guest may send a stretch of its stream again, cut in another way, and the client may have missed the first copy.  So a
 * repetition may leave only if it says what was said before; what that was is remembered here for as long as there is room.
 *
 * One ring of bytes serves all streams.  Records are written one behind the other and never freed: the new overwrites
 * the old.  A place in the ring is counted from the beginning of time, so it is known whether it has been overwritten.  Each
 * record tells where the same stream's record before it is, and the stream itself keeps the place of its last: one
 * number for each flow, nothing to clean up when a flow goes.
 *
 * The ring is small enough for a cache in the beginning.  When something is searched for that has been overwritten, it is doubled,
 * up to a limit: where clients are far away and networks lose packets more has to be remembered than elsewhere.
 *
 * A search goes back through the stream's records.  When its patience is at an end it gives up, as if the rest were forgotten:
 * otherwise a guest that repeats old bytes all the time could keep us busy with each.
 *
 * Turned down: keeping the held packets themselves (a list for each flow, an age for each packet, and memory that is
 * cold when it comes to be used again); digests (a repetition may begin and end anywhere).
 */

#include "net/colo/history.h"

#include <string.h>

#define SIZE_FIRST (1024 * 1024)

typedef struct {
    uint64_t before;        /* place of the stream's record before this one; 0: none */
    uint32_t seq;           /* position of the first unit */
    uint32_t len;           /* bytes, which follow */
    uint8_t flags;          /* SYN and FIN */
} Record;

struct ColoHistory {
    uint64_t end;           /* the place of the next record; never 0 */
    uint64_t lost;          /* what lies before this place was overwritten before the ring grew */
    uint32_t size;
    uint32_t size_max;
    bool missed;            /* something was searched for that has been overwritten since the ring last grew */
    uint8_t *ring;
};

ColoHistory *colo_history_new(uint32_t size)
{
    ColoHistory *h = g_new(ColoHistory, 1);

    g_assert((size & (size - 1)) == 0 && size > 2 * COLO_FRAME_MAX);
    h->size = MIN(size, SIZE_FIRST);
    h->size_max = size;
    h->missed = false;
    h->lost = 0;
    h->end = h->size;
    h->ring = g_malloc(h->size);
    return h;
}

void colo_history_free(ColoHistory *h)
{
    if (h) {
        g_free(h->ring);
        g_free(h);
    }
}

static Record *record_at(const ColoHistory *h, uint64_t place)
{
    return (Record *)(h->ring + (place & (h->size - 1)));
}

/* Twice the room.  A record that lies in one piece does so there, too. */
static void grow(ColoHistory *h)
{
    uint8_t *ring = g_malloc(h->size * 2);
    uint64_t from = h->end - h->size;

    while (from != h->end) {
        uint32_t len = (uint32_t)MIN(h->size - (from & (h->size - 1)), h->end - from);

        memcpy(ring + (from & (h->size * 2 - 1)), h->ring + (from & (h->size - 1)), len);
        from += len;
    }
    g_free(h->ring);
    h->ring = ring;
    h->lost = MAX(h->lost, h->end - h->size);
    h->size *= 2;
}

void colo_history_add(ColoHistory *h, uint64_t *last, const ColoPacket *p)
{
    uint32_t size = (uint32_t)(sizeof(Record) + p->payload_len + 7) & ~7u;
    uint32_t left;
    Record *record;

    if (h->missed && h->size < h->size_max) {
        grow(h);
    }
    h->missed = false;
    left = h->size - (uint32_t)(h->end & (h->size - 1));
    if (size > left) {
        h->end += left;     /* a record lies in one piece */
    }
    record = record_at(h, h->end);
    *record = (Record) {
        .before = *last,
        .seq = p->seq,
        .len = p->payload_len,
        .flags = p->tcp_flags & (COLO_TCP_SYN | COLO_TCP_FIN),
    };
    memcpy(record + 1, p->data + p->payload, p->payload_len);
    *last = h->end;
    h->end += size;
}

ColoRun colo_history_run(ColoHistory *h, uint64_t last, uint32_t seq, uint32_t *patience)
{
    for (; *patience && last && last >= h->lost && h->end - last <= h->size; --*patience) {
        const Record *record = record_at(h, last);
        uint32_t syn = !!(record->flags & COLO_TCP_SYN);
        uint32_t at = seq - record->seq;

        if (at < syn) {
            return (ColoRun) { .kind = COLO_RUN_SYN, .len = 1 };
        }
        at -= syn;
        if (at < record->len) {
            return (ColoRun) {
                .kind = COLO_RUN_BYTES,
                .bytes = (const uint8_t *)(record + 1) + at,
                .len = record->len - at,
            };
        }
        if (at == record->len && record->flags & COLO_TCP_FIN) {
            return (ColoRun) { .kind = COLO_RUN_FIN, .len = 1 };
        }
        last = record->before;
    }
    h->missed = last && last >= h->lost && *patience;
    return (ColoRun) { .kind = COLO_RUN_NONE };
}
