/*
 * What comparator.c shares with compare-tcp.c and compare-datagram.c
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef NET_COLO_COMPARATOR_INTERNAL_H
#define NET_COLO_COMPARATOR_INTERNAL_H

#include "net/colo/comparator.h"
#include "net/colo/queue.h"

/*
 * One TCP connection, as far as the guest's direction goes.  Positions are in the primary's sequence space,
 * into which the rewriter has mapped the secondary's segments; only a secondary's SYN comes with a number of its own.
 * A position is valid only if its bit is set: no number is special.
 */
typedef struct {
    uint32_t next;                  /* all before it is compared, or was sent before the epoch */
    uint32_t primary_isn;
    uint32_t primary_end;           /* behind the last unit that the primary has been let send */
    uint32_t primary_ack;           /* highest acknowledgement that the primary has been let send */
    uint32_t secondary_isn;         /* in the secondary's own space */
    uint32_t secondary_ack;         /* highest acknowledgement that the secondary has made */
    uint32_t secondary_rst_ack;
    uint64_t secondary_options;     /* of its SYN, hashed */
    ColoPacket *frontier;           /* first held packet that is not wholly compared */
    bool next_set : 1;
    bool primary_isn_set : 1;
    bool primary_end_set : 1;
    bool primary_ack_set : 1;
    bool secondary_isn_set : 1;
    bool secondary_ack_set : 1;
    bool secondary_syn : 1;         /* a SYN that no SYN of the primary has been compared with yet */
    bool secondary_syn_ack : 1;     /* and that it carried an ACK */
    bool secondary_rst : 1;
    bool secondary_rst_ack_set : 1;
} ColoTcp;

/* A flow as the comparator sees it. */
typedef struct {
    ColoFlow flow;
    uint32_t epoch;                 /* to which the rest belongs */
    uint32_t count[COLO_SIDES];     /* packets in the queues below */
    ColoQueue primary;              /* held, in the order in which they came */
    ColoQueue secondary;            /* not compared yet; for TCP, sorted */
    ColoTcp tcp;
} ColoCompareFlow;

G_STATIC_ASSERT(sizeof(ColoCompareFlow) <= 240);

/* All that a side holds, by arrival. */
typedef struct {
    ColoPacket *oldest;
    ColoPacket *newest;
} ColoHeld;

struct ColoComparator {
    ColoComparatorConfig config;
    const ColoComparatorOps *ops;
    void *opaque;
    bool comparing;
    bool asked;                     /* for a checkpoint, in this epoch */
    uint32_t epoch;
    bool marks_epochs[COLO_SIDES];  /* the side says where its epochs begin */
    uint32_t epochs_behind[COLO_SIDES];     /* how many such marks are still to come */
    bool secondary_early;           /* its mark has come before the word of the checkpoint */
    ColoQueue early;                /* what it has sent since then */
    uint32_t full[COLO_SIDES];      /* flows whose queue is full */
    ColoHeld held[COLO_SIDES];
    ColoHeld alone;                 /* the secondary's datagrams, which are not among those */
    int64_t suspect_at;             /* when the first suspect datagram's grace ends, ns; INT64_MAX: none */
    ColoFlowTable *flows;
    ColoComparatorStats stats;
};

/* Lets the primary's packet @p of @f go, and accounts for it; takes it out of nothing. */
void colo_compare_release(ColoComparator *c, ColoCompareFlow *f, const ColoPacket *p);

/* Makes a copy of the borrowed @p that is accounted for as held by @side; puts it into no queue. */
ColoPacket *colo_compare_hold(ColoComparator *c, ColoCompareFlow *f, ColoSide side, const ColoPacket *p);

/* Ends such a copy.  It must be in no queue any more. */
void colo_compare_drop(ColoComparator *c, ColoCompareFlow *f, ColoSide side, ColoPacket *p);

/* The sides differ in @f. */
void colo_compare_diverged(ColoComparator *c, ColoReason reason, const ColoCompareFlow *f);

/* compare-tcp.c */
void colo_compare_tcp(ColoComparator *c, ColoCompareFlow *f, ColoSide side, ColoPacket *p);
/* A new epoch: what the primary has sent so far is what both sides start from. */
void colo_compare_tcp_rebase(ColoCompareFlow *f);
/* More of what the primary sent before the epoch has left; the secondary may be in the new epoch already. */
void colo_compare_tcp_extend_base(ColoCompareFlow *f);
/* The primary's @p has left. */
void colo_compare_tcp_released(ColoComparator *c, ColoCompareFlow *f, const ColoPacket *p);
/* True if @p waits for nothing but the secondary's acknowledgement. */
bool colo_compare_tcp_waits_for_ack(const ColoCompareFlow *f, const ColoPacket *p);

/* compare-datagram.c */
void colo_compare_datagram(ColoComparator *c, ColoCompareFlow *f, ColoSide side, ColoPacket *p);
/* How long (ns) two different datagrams may turn out to be swapped or late ones. */
#define COLO_DATAGRAM_GRACE (20 * 1000 * 1000LL)

#endif /* NET_COLO_COMPARATOR_INTERNAL_H */
