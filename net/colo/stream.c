/*
 * Streams: what one side of a TCP connection has said and nobody has compared yet
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Theory of operation
 *
 * Segments stay as they came, in a queue sorted by where they begin; overlaps and repetitions are allowed, and
 * the first segment that covers a position speaks for it.  A guest sends in order nearly always, so a new
 * segment belongs at the tail; its place is looked for from the front only when it does not.  Positions are
 * compared by colo_seq_*(), so a stream may wrap; what it holds spans less than half of sequence space because
 * TCP's window does (RFC 7323, section 2.3).
 */

#include "net/colo/stream.h"

#include "net/colo/seq.h"

void colo_stream_insert(ColoQueue *stream, ColoPacket *p)
{
    ColoPacket **at = &stream->head;

    if (!stream->tail || !colo_seq_before(p->seq, stream->tail->seq)) {
        colo_queue_push(stream, p);
        return;
    }
    while (!colo_seq_before(p->seq, (*at)->seq)) {
        at = &(*at)->next;
    }
    p->next = *at;
    *at = p;
}

ColoPacket *colo_stream_take_before(ColoQueue *stream, uint32_t seq)
{
    for (ColoPacket *p = stream->head; p && colo_seq_before(p->seq, seq); p = p->next) {
        if (!colo_seq_after(p->seq_end, seq)) {
            colo_queue_remove(stream, p);
            return p;
        }
    }
    return NULL;
}

ColoRun colo_stream_run(const ColoQueue *stream, uint32_t seq)
{
    for (const ColoPacket *p = stream->head; p && !colo_seq_after(p->seq, seq); p = p->next) {
        if (colo_seq_after(p->seq_end, seq)) {
            return colo_packet_run(p, seq);
        }
    }
    return (ColoRun) { .kind = COLO_RUN_NONE };
}
