/*
 * What comparator.c shares with compare-tcp.c and compare-datagram.c
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef NET_COLO_COMPARATOR_INTERNAL_H
#define NET_COLO_COMPARATOR_INTERNAL_H

#include "net/colo/comparator.h"
#include "net/colo/history.h"
#include "net/colo/queue.h"

/* An acknowledgement, and what comes with it. */
typedef struct {
    uint32_t ack;
    uint32_t edge;                  /* behind the last position that it allows the client to send */
} ColoGrant;

/*
 * One TCP connection, as far as the guest's direction goes.  Positions are in the primary's sequence space,
 * into which the rewriter has mapped the secondary's segments; only a secondary's SYN comes with a number of its own.
 * A position is valid only if its bit is set: no number is special.
 */
typedef struct {
    uint32_t next;                  /* all before it is compared, or was sent before the epoch */
    uint32_t primary_isn;
    uint32_t primary_end;           /* behind the last unit that the primary has been let send */
    ColoGrant primary_grant;        /* highest acknowledgement that the primary has been let send */
    ColoGrant secondary_grant;      /* highest acknowledgement that the secondary has made */
    uint32_t primary_rst;           /* sequence number of the last RST that the primary has been let send */
    uint32_t primary_rst_ack;       /* and its acknowledgement */
    uint32_t secondary_isn;         /* in the secondary's own space */
    uint64_t primary_options;       /* of the SYN that was compared, or has left, hashed */
    uint64_t secondary_options;     /* of its SYN, hashed */
    uint64_t said;                  /* what has left, in the history */
    ColoPacket *frontier;           /* first held packet that is not wholly compared */
    uint8_t secondary_probe;        /* its last repetition of the byte before `next` */
    uint8_t window_scale;           /* at most, of both sides, whose SYNs have the same options */
    uint8_t secondary_rsts;         /* RSTs that none of the primary's has left for yet, as far as that can be counted */
    bool next_set : 1;
    bool primary_isn_set : 1;
    bool primary_end_set : 1;
    bool primary_grant_set : 1;
    bool answered_set : 1;          /* that of the flow, where there is room for it */
    bool window_scale_set : 1;
    bool primary_rst_set : 1;
    bool primary_rst_acks : 1;      /* and that it carried an ACK */
    bool secondary_isn_set : 1;
    bool secondary_grant_set : 1;
    bool secondary_syn : 1;         /* a SYN that no SYN of the primary has been compared with yet */
    bool secondary_syn_ack : 1;     /* and that it carried an ACK */
    bool secondary_probe_set : 1;
    bool established : 1;           /* the primary has been let say more than a SYN */
} ColoTcp;

/* A flow as the comparator sees it. */
typedef struct ColoCompareFlow {
    ColoFlow flow;
    uint32_t epoch;                 /* to which the rest belongs */
    uint32_t count[COLO_SIDES];     /* packets in the queues below */
    bool known;                     /* it is not a new one */
    uint8_t spoke;                  /* bits, one for each side: not long ago, see openings.c */
    bool has_front;                 /* it is in the comparator's list of such flows */
    bool impossible;                /* the fragments that have come make up no datagram */
    uint32_t spoke_at;              /* when the last did, in units of 2^20 ns, modulo 2^32 */
    uint32_t answered;              /* TCP: the acknowledgement that came with what the primary has been let say last */
    ColoQueue primary;              /* held, in the order in which they came */
    ColoQueue secondary;            /* not compared yet; for TCP, sorted */
    struct ColoCompareFlow *next_front;
    ColoTcp tcp;
} ColoCompareFlow;

G_STATIC_ASSERT(sizeof(ColoCompareFlow) <= 208);

/* All that a side holds, by arrival. */
typedef struct {
    ColoPacket *oldest;
    ColoPacket *newest;
} ColoHeld;

/* Memory of held packets that is kept to be used again, by how much there is room for. */
typedef struct {
    ColoPacket *first;              /* linked by next */
    uint32_t count;
} ColoSpare;

/* Room for most packets without data, and for most others. */
#define COLO_SPARE_SMALL 192
#define COLO_SPARE_LARGE 1600

/* A flow that the secondary has opened, and when (ns). */
typedef struct {
    ColoFlowKey key;
    int64_t at;
} ColoOpening;

/* So many are remembered: a guest that opens more at once has all of them from ports of its own. */
#define COLO_OPENINGS 64

struct ColoComparator {
    ColoComparatorConfig config;
    const ColoComparatorOps *ops;
    void *opaque;
    bool comparing;
    bool holding;                   /* in this epoch */
    bool hold_next;                 /* and from the next one on */
    bool asked;                     /* for a checkpoint, in this epoch; or it is put off until: */
    int64_t ask_at;                 /* ns; INT64_MAX: it is not */
    int64_t ask_latest;             /* ns; no further than that */
    bool secondary_away;            /* its connection has ended */
    uint32_t epoch;
    int64_t now;                    /* ns, as the caller has said last */
    bool marks_epochs[COLO_SIDES];  /* the side says where its epochs begin */
    int32_t epochs_behind[COLO_SIDES];      /* how many such marks are still to come, if it is one that does */
    bool secondary_early;           /* its mark has come before the word of the checkpoint */
    ColoQueue early;                /* what it has sent since then */
    uint32_t full[COLO_SIDES];      /* flows whose queue is full */
    ColoHeld held[COLO_SIDES];
    ColoSpare small;
    ColoSpare large;
    ColoHeld alone;                 /* the secondary's datagrams, which are not among those */
    ColoCompareFlow *fronts;        /* flows whose first packet is compared in part, and may be cut */
    int64_t suspect_at;             /* when a suspect packet's grace may end next (suspects.c), ns; INT64_MAX: none */
    int64_t crossed_at;             /* when to look whether the sides wait for each other in different flows, likewise */
    int64_t heard_at[COLO_SIDES];   /* when its last packet came, ns */
    int64_t checkpoint_took;        /* the last that was asked for, from the divergence on, ns */
    ColoOpening openings[COLO_OPENINGS];
    uint32_t openings_count;        /* in this epoch; the oldest make room */
    ColoFlowTable *flows;
    ColoHistory *history;
    ColoComparatorStats stats;
};

/* Lets the primary's packet @p of @f go, and accounts for it; takes it out of nothing. */
void colo_compare_release(ColoComparator *c, ColoCompareFlow *f, const ColoPacket *p);

/* Makes a copy of the borrowed @p, which loses its parts to it, that is accounted for as held by @side; puts it into no queue. */
ColoPacket *colo_compare_hold(ColoComparator *c, ColoCompareFlow *f, ColoSide side, ColoPacket *p);

/* Ends such a copy.  It must be in no queue any more. */
void colo_compare_drop(ColoComparator *c, ColoCompareFlow *f, ColoSide side, ColoPacket *p);

/* Counts the secondary's @p as done with, part by part. */
void colo_compare_discard(ColoComparator *c, const ColoPacket *p);

/* The sides differ in @f; if it is a stream, at `next`. */
void colo_compare_diverged(ColoComparator *c, ColoReason reason, const ColoCompareFlow *f);

/* The sides differ in the stream @f, at position @seq. */
void colo_compare_diverged_at(ColoComparator *c, ColoReason reason, const ColoCompareFlow *f, uint32_t seq);

/* The first packet of @f may be cut at the end of the batch. */
void colo_compare_later(ColoComparator *c, ColoCompareFlow *f);

/*
 * Takes the copy @p out of the accounts of @side, without ending it: what it was held for it is part of something
 * else now.
 */
void colo_compare_unhold(ColoComparator *c, ColoCompareFlow *f, ColoSide side, ColoPacket *p);

/* compare-tcp.c */
/* The end of a batch: what is compared of the first packet may leave. */
void colo_compare_tcp_flush(ColoComparator *c, ColoCompareFlow *f);
void colo_compare_tcp(ColoComparator *c, ColoCompareFlow *f, ColoSide side, ColoPacket *p);
/* A new epoch: what the primary has sent so far is what both sides start from. */
void colo_compare_tcp_rebase(ColoCompareFlow *f);
/* More of what the primary sent before the epoch has left; the secondary may be in the new epoch already. */
void colo_compare_tcp_extend_base(ColoComparator *c, ColoCompareFlow *f);
/* The primary's @p has left. */
void colo_compare_tcp_released(ColoComparator *c, ColoCompareFlow *f, const ColoPacket *p);
/* True if @p waits for nothing but the secondary's acknowledgement, or for it to have room. */
bool colo_compare_tcp_waits_for_ack(const ColoCompareFlow *f, const ColoPacket *p);

/* fragments.c */
/*
 * Takes the fragment @p, of the flow @f that its datagram's fragments have in common.  Returns the datagram if they are all there,
 * else NULL.  The datagram carries the fragments as its parts; it is the caller's, who also removes @f.
 */
ColoPacket *colo_compare_fragment(ColoComparator *c, ColoCompareFlow *f, ColoSide side, ColoPacket *p);

/* compare-datagram.c */
void colo_compare_datagram(ColoComparator *c, ColoCompareFlow *f, ColoSide side, ColoPacket *p, int64_t now);

/* suspects.c */
/* How long (ns) what differs may turn out to be swapped or late. */
#define COLO_GRACE (20 * 1000 * 1000LL)

/* Asks for a checkpoint if a grace has ended, and finds out when the next one may. */
void colo_compare_check_suspects(ColoComparator *c);
/* The same if the sides wait for each other in different flows. */
void colo_compare_check_crossed(ColoComparator *c);

/* openings.c */
static inline bool colo_compare_has_spoken(const ColoCompareFlow *f, ColoSide side)
{
    return f->spoke & 1 << side;
}

/* In a new epoch, what one side has opened before may be opened again by either. */
void colo_compare_forget_lone_speaker(ColoCompareFlow *f);
/* @p has come in @f at @now (ns): who has spoken in it long ago does not count any more. */
void colo_compare_note_time(ColoCompareFlow *f, const ColoPacket *p, int64_t now);
/* The side's @p has been dealt with in @f, in which the other one has not spoken: takes note if it opens that. */
void colo_compare_opening(ColoComparator *c, ColoCompareFlow *f, ColoSide side, const ColoPacket *p);

/* The side's @p has been dealt with in @f. */
static inline void colo_compare_note_speaker(ColoComparator *c, ColoCompareFlow *f, ColoSide side, const ColoPacket *p)
{
    if (f->spoke & ~(1 << side)) {
        f->spoke |= 1 << side;
    } else {
        colo_compare_opening(c, f, side, p);
    }
}

/*
 * The primary alone has spoken in @f.  Returns since when (ns) the secondary has had a flow to the same place, from somewhere else, in
 * which it alone has spoken; INT64_MAX: there is none.
 */
int64_t colo_compare_opened_elsewhere(ColoComparator *c, const ColoCompareFlow *f);

#endif /* NET_COLO_COMPARATOR_INTERNAL_H */
