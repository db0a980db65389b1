/*
 * A comparator on a bench: frames in, what it releases and asks for recorded
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The rig owns the clock.  After each call it checks what must hold at all times: at most one question per epoch, told with
 * the time, and whatever is held has a deadline no later than compare_timeout after its arrival.
 */

#ifndef TESTS_UNIT_RIG_H
#define TESTS_UNIT_RIG_H

#include "frames.h"
#include "net/colo/comparator.h"

#define MS (1000 * 1000LL)
#define RIG_TIMEOUT (3000 * MS)
#define RIG_HISTORY (256 * 1024)

typedef struct {
    uint8_t *data;
    uint32_t size;
    uint32_t vnet_len;
} Released;

typedef struct {
    ColoComparator *c;
    int64_t now;
    int64_t gather;         /* as in ColoComparatorConfig */
    GPtrArray *released;    /* of Released */
    guint seen;             /* of them, by rig_next() */
    int asked;              /* since the rig was made */
    int asked_in_epoch;
    int64_t told;           /* checkpoints */
    int64_t resumed[COLO_SIDES];    /* how often the side's guest has */
    ColoReason reason;      /* of the last question */
    ColoFlowKey flow;
    bool batch;             /* no flush after each frame */
    uint32_t size_in;       /* bytes of the primary's frames given */
    uint32_t size_out;      /* and released */
} Rig;

/* Comparing, at time @now, with @queue_size. */
Rig *rig_new_at(int64_t now, uint32_t queue_size);
/* The same with the defaults. */
Rig *rig_new(void);
/* The same with what else @config says; its timeout and history are the rig's. */
Rig *rig_new_with(const ColoComparatorConfig *config);
void rig_free(Rig *rig);
/* The same, for one with which everything has gone well: nothing is held, released unseen, or was asked for. */
void rig_end_well(Rig *rig);

/* Gives a frame to the comparator and ends it. */
void rig_give(Rig *rig, ColoSide side, Frame *f);

/* Lets time pass, with a tick at each deadline and at the end. */
void rig_wait(Rig *rig, int64_t ns);

void rig_checkpoint(Rig *rig);
/* The side has come to where its guest resumed: from the beginning at first, then from each checkpoint. */
void rig_epoch(Rig *rig, ColoSide side);

/* Frames released since the rig was made, or since rig_next() was called for them. */
guint rig_pending(const Rig *rig);
/* The next one, taken apart and checked; fails the test if there is none. */
Seen rig_next(Rig *rig);
/* The next one as it is. */
const Released *rig_next_raw(Rig *rig);

/* Fails the test unless the next frame released is @flags, @seq, @len bytes. */
void rig_expect(Rig *rig, uint8_t flags, uint32_t seq, uint32_t len);
/* ... unless nothing else has been released. */
void rig_expect_nothing(const Rig *rig);
/* ... unless this many checkpoints have been asked for, the last one for @reason. */
void rig_expect_asked(const Rig *rig, int asked, ColoReason reason);

/* ... unless one checkpoint more is asked for, for @reason, when @ns have gone by, and not before. */
void rig_expect_asked_after(Rig *rig, int64_t ns, ColoReason reason);

uint32_t rig_held(const Rig *rig, ColoSide side);

/* Shorthands for a plain flow. */
void rig_tcp(Rig *rig, ColoSide side, uint8_t flags, uint32_t seq, uint32_t ack, const void *payload, uint32_t len);
void rig_text(Rig *rig, ColoSide side, uint8_t flags, uint32_t seq, uint32_t ack, const char *text);
void rig_udp(Rig *rig, ColoSide side, const char *text);

static inline void primary(Rig *rig, uint8_t flags, uint32_t seq, uint32_t ack, const char *text)
{
    rig_text(rig, COLO_PRIMARY, flags, seq, ack, text);
}

static inline void secondary(Rig *rig, uint8_t flags, uint32_t seq, uint32_t ack, const char *text)
{
    rig_text(rig, COLO_SECONDARY, flags, seq, ack, text);
}

#endif /* TESTS_UNIT_RIG_H */
