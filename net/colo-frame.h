/*
 * The frame: who makes the checkpoints
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef NET_COLO_FRAME_H
#define NET_COLO_FRAME_H

#include "block/aio.h"
#include "net/colo/comparator.h"
#include "net/colo/watch.h"
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

/* How many of its checkpoints have been told of since COLO began here.  With the big lock held. */
uint64_t colo_frame_epoch(void);

/* Asks for a checkpoint.  Any thread. */
void colo_frame_ask(void);

/*
 * Breaks the connections to the other node on which the frame and the disks would wait for a word from there without an end.
 * Any thread.
 */
void colo_frame_end_wait(void);

/* The watch over the frame: net/colo/watch.c decides, here is what it looks at. */
typedef struct ColoFrameWatch {
    const ColoComparator *comparator;
    void (*silent)(void *opaque);
    void *opaque;
    const uint64_t *timeout;    /* ms; may change */
    QEMUTimer *timer;
    ColoWatch watch;
} ColoFrameWatch;

/* @silent is called in @context, once; the frame's connection is broken then, so that it ends COLO. */
void colo_frame_watch_init(ColoFrameWatch *watch, AioContext *context, const ColoComparator *comparator,
                           const uint64_t *timeout, void (*silent)(void *opaque), void *opaque);
/* In the thread of its context, as what follows. */
void colo_frame_watch_start(ColoFrameWatch *watch);
void colo_frame_watch_stop(ColoFrameWatch *watch);
void colo_frame_watch_end(ColoFrameWatch *watch);

#endif /* NET_COLO_FRAME_H */
