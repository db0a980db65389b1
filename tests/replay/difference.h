/*
 * Differences: where the two sides of a flow part
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_REPLAY_DIFFERENCE_H
#define TESTS_REPLAY_DIFFERENCE_H

#include "handshake.h"

/* What was found, the first that applies. */
typedef enum {
    DIFFERENCE_NONE,
    DIFFERENCE_OPTIONS,     /* of the SYN */
    DIFFERENCE_BYTES,
    DIFFERENCE_END,         /* one side ended its stream where the other goes on */
    DIFFERENCE_MISSING,     /* the secondary's ends early, without saying so */
    DIFFERENCE_RESET,       /* one side only reset the connection */
    DIFFERENCE_ACK,         /* the secondary has not acknowledged as much */
    DIFFERENCE_UNKNOWN,     /* the sides are too far apart to be looked at */
    DIFFERENCES,
} DifferenceKind;

/* Bytes shown before and from the first that differs. */
#define DIFFERENCE_BEFORE 16
#define DIFFERENCE_AFTER 16

typedef struct Difference Difference;

/* What is to be told of it. */
typedef struct {
    DifferenceKind kind;
    bool datagrams;                 /* offset is in one of them, else in the stream */
    uint64_t offset;
    uint64_t number;                /* of the primary's datagram in its flow, from 1 */
    uint64_t shown_from;            /* offset of the first byte of @bytes */
    const uint8_t *bytes[COLO_SIDES];
    uint32_t len[COLO_SIDES];
    uint64_t reach[COLO_SIDES];     /* acknowledged of the client's stream, or length of its own */
    bool on[COLO_SIDES];            /* the side that has it: the end, the reset */
    int64_t time;                   /* when it could be seen first, ns, if there is such a moment */
    bool time_set;
} DifferenceReport;

/* For a flow, of which only @connection is looked at. */
Difference *difference_new(bool datagrams, int connection);
void difference_free(Difference *d);

/* The next packet of the guest on a side. */
void difference_packet(Difference *d, ColoSide side, GArray *const handshakes[COLO_SIDES], const ColoPacket *p,
                       int64_t time);

DifferenceReport difference_report(Difference *d);
const char *difference_name(DifferenceKind kind);

#endif /* TESTS_REPLAY_DIFFERENCE_H */
