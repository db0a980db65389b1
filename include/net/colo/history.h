/*
 * History: what streams have said, to hold repetitions against
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef NET_COLO_HISTORY_H
#define NET_COLO_HISTORY_H

#include "net/colo/packet.h"

typedef struct ColoHistory ColoHistory;

/* @size: how many bytes are remembered at most, of all streams together; a power of two, larger than two packets. */
ColoHistory *colo_history_new(uint32_t size);
void colo_history_free(ColoHistory *h);

/*
 * Remembers what the TCP segment @p says.
 *
 * @last: the stream's own word, 0 in the beginning; brought up to date.
 */
void colo_history_add(ColoHistory *h, uint64_t *last, const ColoPacket *p);

/*
 * What the stream has said at position @seq and behind it, the newest word first; kind COLO_RUN_NONE if nothing, or if it has been
 * forgotten.  The bytes are valid until the next colo_history_add().
 *
 * @patience: how many of the stream's words may be looked at; brought down by those that were.
 */
ColoRun colo_history_run(ColoHistory *h, uint64_t last, uint32_t seq, uint32_t *patience);

#endif /* NET_COLO_HISTORY_H */
