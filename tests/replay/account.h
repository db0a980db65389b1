/*
 * The account: what each flow sent, what of it left and when
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_REPLAY_ACCOUNT_H
#define TESTS_REPLAY_ACCOUNT_H

#include "difference.h"
#include "durations.h"
#include "fragments.h"
#include "handshake.h"
#include "net/colo/comparator.h"

/* Why the comparator let a packet go. */
typedef enum {
    LEFT_COMPARED,
    LEFT_BY_CHECKPOINT,
    LEFT_AT_END,            /* it never did: the replay was over */
    LEFT_WAYS,
} Left;

/* How far a byte stream has come. */
typedef struct {
    uint32_t end;
    bool end_set;
    uint64_t bytes;         /* of the stream, each counted once */
} Extent;

typedef struct {
    ColoFlow flow;
    ColoCount sent[COLO_SIDES];         /* packets, and bytes of payload, repetitions included */
    Extent extent;                      /* of what the primary sent */
    Extent left_extent;                 /* of what left, in whichever way; counts what was compared only */
    uint64_t left[LEFT_WAYS];           /* the primary's packets, those left in parts counted once */
    GQueue pending;                     /* the primary's packets that have not left */
    Durations held;                     /* of those that did not leave when they came */
    bool diverged;                      /* the comparator said so */
    ColoReason reason;                  /* the first time */
    int64_t diverged_at;
    uint32_t divergences;
    uint32_t diverged_connection;       /* which connection with these addresses it was, from 0 */

    GArray *handshakes[COLO_SIDES];     /* of Handshake: what the survey has found, in order */
    Reader reader;                      /* where the replay is in them */
    Difference *difference;             /* where the streams differ, once looked for */
} Flow;

typedef struct {
    ColoFlowTable *table;
    Fragments *fragments;
    GPtrArray *flows;                   /* in the order of appearance */
    uint64_t local[COLO_SIDES];         /* packets that are not compared */
    uint64_t unexpected;                /* released, but not as anything that came: the core is at fault */
    uint64_t released;                  /* frames, the halves of what was cut counted each */
} Account;

Account *account_new(const uint8_t secret[16]);
void account_free(Account *account);

/* The flow of a packet of, or to, the guest. */
Flow *account_flow_of(Account *account, const ColoPacket *p, ColoDirection direction);

/* A packet of the guest is about to be compared.  @time: of its arrival. */
void account_sent(Account *account, ColoSide side, const ColoPacket *p, int64_t time);
/* The comparator releases @p. */
void account_left(Account *account, const ColoPacket *p, Left how, int64_t now);
void account_diverged(Account *account, ColoReason reason, const ColoFlowKey *key, int64_t now);

typedef enum {
    VERDICT_AGREES,
    VERDICT_DIFFERS,
    VERDICT_UNSETTLED,      /* some left by another flow's checkpoint or never, and no difference was found */
    VERDICTS,
} Verdict;

Verdict flow_verdict(const Flow *flow);
const char *verdict_name(Verdict verdict);

/* Bytes of the primary's stream, or of its datagrams, and those that left because they were compared. */
uint64_t flow_bytes(const Flow *flow);
uint64_t flow_confirmed(const Flow *flow);

#endif /* TESTS_REPLAY_ACCOUNT_H */
