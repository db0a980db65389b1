/*
 * The comparator: two sides' output in, what may leave out
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef NET_COLO_COMPARATOR_H
#define NET_COLO_COMPARATOR_H

#include "net/colo/flow.h"
#include "net/colo/histogram.h"
#include "net/colo/stats.h"

typedef enum {
    COLO_PRIMARY,
    COLO_SECONDARY,
    COLO_SIDES,
} ColoSide;

/* Why a checkpoint was asked for. */
typedef enum {
    COLO_REASON_PAYLOAD,            /* both sides sent different bytes, or each what the other does not send */
    COLO_REASON_FLAGS,              /* one began, ended or reset its stream where the other did not */
    COLO_REASON_OPTIONS,            /* different SYN options */
    COLO_REASON_TIMEOUT,            /* the secondary did not send the same in time */
    COLO_REASON_ACK,                /* the same, but only its acknowledgement is missing */
    COLO_REASON_QUEUE_FULL,         /* each side waits for the other to be read */
    COLO_REASON_SECONDARY_RESET,    /* the secondary reset a connection that lives */
    COLO_REASON_PEER_LOST,          /* the secondary's output has ended */
    COLO_REASONS,
} ColoReason;

/*
 * What suits ColoComparatorConfig's quiet and gather: a checkpoint stops the guest for 1 to 5 ms, and it takes the guest about 1 ms to
 * answer one more request.
 */
#define COLO_QUIET_NS (1500 * 1000LL)
#define COLO_GATHER_NS (8000 * 1000LL)

typedef struct ColoComparator ColoComparator;

typedef struct {
    /* This frame may leave now.  It is the callee's only until it returns. */
    void (*release)(const uint8_t *frame, uint32_t size, uint32_t vnet_len, void *opaque);
    /* The sides differ: a checkpoint is needed.  At most once until colo_comparator_checkpoint(). */
    void (*diverged)(ColoReason reason, const ColoFlowKey *flow, void *opaque);
} ColoComparatorOps;

typedef struct {
    int64_t timeout;        /* ns that a primary packet is held at most before a checkpoint is asked for */
    int64_t quiet;          /* ns that the primary must have sent nothing before a checkpoint is asked for; 0: it is at once */
    int64_t gather;         /* ns after which it is in any case; the reason is still the first divergence's */
    uint32_t queue_size;    /* packets per side and flow before that side is made to wait */
    uint32_t history;       /* at most so many bytes of what has left are remembered; a power of two; 0: enough for a gigabit */
    bool primary_goes_on;   /* it cannot be made to wait by not being read: when it is too far ahead, a checkpoint is asked for */
    uint8_t secret[16];     /* random; keys the hash */
} ColoComparatorConfig;

typedef struct {
    ColoCount in[COLO_SIDES];
    ColoCount released;
    ColoCount discarded;    /* the secondary's, compared or not */
    uint32_t held[COLO_SIDES];      /* packets, now */
    uint64_t held_bytes[COLO_SIDES];
    uint32_t held_max;              /* the primary's, at most so far */
    uint64_t held_bytes_max;        /* likewise */
    uint64_t checkpoints;           /* loaded */
    uint64_t diverged[COLO_REASONS];
    /* The last divergence; valid once any diverged[] is not 0, and set before it is told of. */
    ColoReason last_reason;
    ColoFlowKey last_flow;
    bool last_offset_set;           /* it was a stream whose beginning was seen */
    uint32_t last_offset;           /* where: how many bytes were the same before, modulo 2^32; of a SYN: 0 */
    int64_t last_at;                /* ns, in the caller's clock */
    /*
     * How long each frame that was released while comparing was held, from when it came; 0: it left at once.  Of a
     * segment that was cut, each piece counts; of a datagram, each fragment.
     */
    ColoHistogram held_times;
} ColoComparatorStats;

/*
 * The comparator has no clock.  Whatever may let held packets go, or ask for a checkpoint, is told the time: @now, ns of one
 * monotonic clock.
 */
ColoComparator *colo_comparator_new(const ColoComparatorConfig *config, const ColoComparatorOps *ops, void *opaque);

/* Whatever is still held is released first. */
void colo_comparator_free(ColoComparator *c);

/*
 * While comparing is off, the primary's output passes straight through and the secondary's is discarded.
 * Switching it off releases everything held; switching it on starts an epoch.  Off at first.
 */
void colo_comparator_set_comparing(ColoComparator *c, bool comparing, int64_t now);
bool colo_comparator_is_comparing(const ColoComparator *c);

/*
 * While holding, nothing is compared: whatever the primary sends waits for the checkpoint that covers it.  It begins and ends with the
 * next checkpoint, or when comparing is switched on.
 */
void colo_comparator_set_holding(ColoComparator *c, bool holding);

/* As in ColoComparatorConfig; good for what is held already, too. */
void colo_comparator_set_timeout(ColoComparator *c, int64_t timeout);

/* A frame from a side; @frame stays the caller's.  It came at @now. */
void colo_comparator_packet(ColoComparator *c, ColoSide side, const uint8_t *frame, uint32_t size,
                            uint32_t vnet_len, int64_t now);

/*
 * All that could be read for now has been handed on.  A packet that is compared in part only is cut here, and its front
 * half leaves; so what one read brings, however the sides have cut it, costs at most one cut for each flow.  The time
 * is that of the call before.
 */
void colo_comparator_flush(ColoComparator *c);

/*
 * A checkpoint has been loaded by the secondary: everything held is released, the secondary's unmatched output
 * forgotten, and a new epoch begins.
 */
void colo_comparator_checkpoint(ColoComparator *c, int64_t now);

/* How far a side that says @number, of which nothing is believed, is behind @told; -2: that cannot be. */
static inline int64_t colo_epochs_behind(uint64_t told, uint64_t number)
{
    return number > told + 1 ? -2 : (int64_t)(told - number);
}

/*
 * The side's stream has come to where its guest resumed: from the checkpoint @behind before the last that was told of here (the beginning
 * counts as one); 0: from that; -1, of the secondary: from the next, of which the word is still to come.  A side that has once said so is
 * taken to be in the old epoch, after each checkpoint, until it says so again.  What the primary sent before the beginning leaves then.
 *
 * Returns: false, and nothing is changed, if there can be no such epoch yet.
 */
bool colo_comparator_resumed(ColoComparator *c, ColoSide side, int64_t behind, int64_t now);

/* The side's connection is new, in the middle of an epoch: no word from before counts any more. */
void colo_comparator_reconnected(ColoComparator *c, ColoSide side);

/* What the secondary sends is of no use until it says in which epoch it is. */
void colo_comparator_secondary_doubted(ColoComparator *c);

/*
 * The secondary's connection has ended: asks for a checkpoint.  Until colo_comparator_reconnected(), whatever is held asks for
 * one without waiting: nothing will come to be compared with it.
 */
void colo_comparator_peer_lost(ColoComparator *c, int64_t now);

/* True from when a checkpoint is needed until there is one. */
bool colo_comparator_has_asked(const ColoComparator *c);

/* Bytes that what the side holds takes, with what is known of each packet. */
uint64_t colo_comparator_memory(const ColoComparator *c, ColoSide side);

/* False if the side is so far ahead that its input should not be read for now. */
bool colo_comparator_may_read(const ColoComparator *c, ColoSide side);

/* When colo_comparator_tick() is wanted next (ns), or INT64_MAX. */
int64_t colo_comparator_deadline(const ColoComparator *c);
void colo_comparator_tick(ColoComparator *c, int64_t now);

uint32_t colo_comparator_flows(const ColoComparator *c);
const ColoComparatorStats *colo_comparator_stats(const ColoComparator *c);

/* "payload", "timeout", ... as the documentation names them. */
const char *colo_reason_name(ColoReason reason);

#endif /* NET_COLO_COMPARATOR_H */
