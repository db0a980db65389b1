/*
 * Streams: what one side of a TCP connection has said and nobody has compared yet
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef NET_COLO_STREAM_H
#define NET_COLO_STREAM_H

#include "net/colo/queue.h"

/* Inserts a segment; @stream is kept sorted by where its segments begin. */
void colo_stream_insert(ColoQueue *stream, ColoPacket *p);

/* The first segment that ends at or before @seq, taken out, or NULL: call until NULL to forget all before @seq. */
ColoPacket *colo_stream_take_before(ColoQueue *stream, uint32_t seq);

/* What the stream says at position @seq; kind COLO_RUN_NONE if nothing has come for it. */
ColoRun colo_stream_run(const ColoQueue *stream, uint32_t seq);

#endif /* NET_COLO_STREAM_H */
