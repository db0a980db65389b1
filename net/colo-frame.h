/*
 * The frame: who makes the checkpoints
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef NET_COLO_FRAME_H
#define NET_COLO_FRAME_H

#include "net/colo-host.h"
#include "net/colo/comparator.h"
#include "qemu/queue.h"
#include "qemu/timer.h"

typedef struct ColoFrameUser ColoFrameUser;

/* What the frame does, as the primary's comparers hear it.  All come with the big lock held, in whatever thread has it. */
typedef struct ColoFrameUserOps {
    /* COLO begins or ends: colo_frame_is_there() tells. */
    void (*changed)(ColoFrameUser *user);
    /* The frame has lost its connection to the secondary and ends COLO, unasked; changed() follows. */
    void (*gave_up)(ColoFrameUser *user);
    /* The secondary has loaded a checkpoint; the primary's guest stands still until this returns. */
    void (*checkpoint)(ColoFrameUser *user);
} ColoFrameUserOps;

struct ColoFrameUser {
    const ColoFrameUserOps *ops;
    QTAILQ_ENTRY(ColoFrameUser) next;
};

/* With the big lock held. */
void colo_frame_add_user(ColoFrameUser *user, const ColoFrameUserOps *ops);
void colo_frame_remove_user(ColoFrameUser *user);

/* True while COLO runs on this side as the primary.  Any thread. */
bool colo_frame_is_there(void);

/* Asks for a checkpoint.  Any thread. */
void colo_frame_ask(void);

/*
 * The watch over the frame: a secondary that has fallen silent is noticed by what it owes.
 *
 * A checkpoint was asked for, or is to be made by now, or the guest stands still for one, and the frame makes no headway with it
 * for the timeout; or for a moment only, if nothing has come from the secondary for the timeout although output waits for it.
 * Or all of QEMU waits for disks, the secondary's among them, and no request is done for the timeout.
 */
typedef struct ColoFrameWatch {
    const ColoComparator *comparator;
    void (*silent)(void *opaque);
    void *opaque;
    const uint64_t *timeout;    /* ms; may change */
    QEMUTimer *timer;
    uint64_t headway;           /* the frame's, at the last look */
    uint64_t heard;             /* packets of the secondary's, at the last look */
    uint32_t turns;             /* the main loop's, at the last look */
    ColoHostReplicas replicas;  /* then, too */
    int looks_still;            /* since when the frame makes no headway */
    int looks_owing;            /* since when a checkpoint is due and makes no headway */
    int looks_quiet;            /* since when output waits and nothing has been heard either */
} ColoFrameWatch;

/* @silent is called in @context, once; the frame's connection is broken then, so that it ends COLO. */
void colo_frame_watch_init(ColoFrameWatch *watch, AioContext *context, const ColoComparator *comparator,
                           const uint64_t *timeout, void (*silent)(void *opaque), void *opaque);
/* In the thread of its context, as what follows. */
void colo_frame_watch_start(ColoFrameWatch *watch);
void colo_frame_watch_stop(ColoFrameWatch *watch);
void colo_frame_watch_end(ColoFrameWatch *watch);

#endif /* NET_COLO_FRAME_H */
