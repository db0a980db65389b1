/*
 * Handshakes: the numbers with which both captures begin a connection
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Theory of operation
 *
 * In a pair under COLO the client's connection is one, and what it sends to the secondary is what it sent to the
 * primary.  Two captures may as well be of two runs, with the same addresses and the same bytes, but then the
 * *client* has chosen another initial sequence number (ISN) each time, which the rewriter knows nothing of: it maps
 * the guest's. So what the secondary acknowledges is shifted by the difference of the client's ISNs first; in a pair
 * under COLO that is 0.
 *
 * The rest is the rewriter's: it is shown the secondary's output, and as input the primary's, whose
 * acknowledgements are in the space that everything is mapped into.
 *
 * Captures are merged by time, but two runs do not keep time with each other, and clocks are never quite right.  What
 * holds in a pair whatever the clocks say is cause and effect, and it is kept here:
 *
 *     - the secondary cannot acknowledge what the client has not sent yet: its packet waits until the primary's
 *       capture has come to that input;
 *     - the client acknowledges a SYN once it has got it, and it gets none before both sides have sent it: the rewriter
 *       is shown the client's first acknowledgement when it has seen the secondary's SYN, and the rest afterwards.
 *
 * A capture taken behind the rewriter holds the secondary's stream in the primary's space (but its SYN, which the
 * rewriter lets pass).  That shows in where the stream goes on after the SYN, and such a connection is not mapped
 * again.  A connection whose SYN is not in both captures is compared as it is.
 *
 * A checkpoint that the pair really made takes the secondary's open connections over to the primary's space.  Nothing
 * in a capture tells of that for sure: both ISNs may be close together, for Linux makes them of a secret that both
 * copies share and of the time.  So captures are good from one checkpoint to the next.
 *
 * A pair of addresses and ports may serve several connections in turn; the first of one capture is taken to be the
 * first of the other.
 */

#ifndef TESTS_REPLAY_HANDSHAKE_H
#define TESTS_REPLAY_HANDSHAKE_H

#include "net/colo/comparator.h"

/* One connection in one capture.  Arrays are by ColoDirection. */
typedef struct {
    uint32_t isn[2];
    uint32_t next;          /* the guest's sequence number in its first segment behind the SYN */
    bool isn_set[2];
    bool next_set;
} Handshake;

/* Where the replay is, for one flow.  Connections are counted from 0; -1: before the first. */
typedef struct {
    int input;              /* the connection that the primary's input belongs to */
    int output[COLO_SIDES]; /* ... each side's output ... */
    int opened;             /* the last one whose SYN from the secondary the rewriter has seen */
    uint32_t input_end;     /* how far the client has come in that of `input` */
    bool input_end_set;
    bool input_acked;       /* it has acknowledged anything in it */
    GPtrArray *parked;      /* first acknowledgements that the rewriter is not shown yet, by connection */
} Reader;

/* The survey: @p is the next TCP packet of its flow in a capture; @all grows with each new connection. */
void handshake_learn(GArray *all, ColoDirection direction, const ColoPacket *p);

/* The connection that @p belongs to, if the last packet of its direction belonged to @current. */
int handshake_follow(const GArray *all, int current, ColoDirection direction, const ColoPacket *p);

/* What to add to the secondary's acknowledgements in a connection. */
uint32_t handshake_shift(GArray *const handshakes[COLO_SIDES], int connection);

/* True if both captures have the guest's SYN of a connection, so that one's numbers can be mapped to the other's. */
bool handshake_is_known(GArray *const handshakes[COLO_SIDES], int connection);

/* True if the secondary's packets of a known connection are in a space of its own: the rewriter is to map them. */
bool handshake_is_raw(GArray *const handshakes[COLO_SIDES], int connection);

void reader_init(Reader *reader);
void reader_clear(Reader *reader);

/*
 * Input, from the primary's capture.  Returns true if the rewriter may be shown it; if it has been parked, or is of
 * no use to the rewriter, false.
 */
bool reader_input(Reader *reader, GArray *const handshakes[COLO_SIDES], const ColoPacket *p);

/* True if the input that the secondary's @p answers has come. */
bool reader_may_answer(const Reader *reader, GArray *const handshakes[COLO_SIDES], const ColoPacket *p);

/* The rewriter has seen the secondary's @p.  Returns what it may be shown now, the caller's to free, or NULL. */
ColoPacket *reader_answered(Reader *reader, GArray *const handshakes[COLO_SIDES], const ColoPacket *p);

#endif /* TESTS_REPLAY_HANDSHAKE_H */
