/*
 * The watch over the secondary: one that has fallen silent is noticed by what it owes
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef NET_COLO_WATCH_H
#define NET_COLO_WATCH_H

#include <stdbool.h>
#include <stdint.h>

/* How often to look within the timeout. */
#define COLO_WATCH_LOOKS 8

/* The secondary's disks, as the primary has them. */
typedef struct ColoWatchDisks {
    uint32_t looks;         /* changes when they have been looked at */
    uint32_t open;          /* requests that wait for an answer */
    uint32_t done;          /* changes with each that was answered */
} ColoWatchDisks;

/* What there is to be seen at a look. */
typedef struct ColoWatchLook {
    uint64_t headway;       /* changes while the frame gets on with a checkpoint, or the migration before it */
    uint64_t heard;         /* changes with each packet of the secondary's */
    uint32_t turns;         /* changes with the turns of the main loop */
    bool asked;             /* for a checkpoint that has not been made; or the guest stands still for one */
    bool holding;           /* output waits for the secondary's */
    bool stopped;           /* the guest, and not for a checkpoint */
    ColoWatchDisks disks;
} ColoWatchLook;

typedef enum {
    COLO_WATCH_GO_ON,
    COLO_WATCH_ASK,         /* go on; a checkpoint is overdue, and is to be asked for */
    COLO_WATCH_SILENT,      /* the secondary has fallen silent */
} ColoWatchVerdict;

typedef struct ColoWatch {
    ColoWatchLook last;     /* that counted */
    uint32_t still;         /* looks since the frame last made headway */
    uint32_t owing;         /* looks in a row at which a checkpoint was due, since then */
    uint32_t quiet;         /* looks in a row at which there should have been something to hear, and was not, since then */
} ColoWatch;

/* Begins anew, with what is to be seen now. */
void colo_watch_start(ColoWatch *watch, const ColoWatchLook *now);

/*
 * A look, the COLO_WATCH_LOOKS-th part of @timeout after the last one.  The frame makes a checkpoint @delay after the one before it.
 * Both in ms.
 */
ColoWatchVerdict colo_watch_look(ColoWatch *watch, const ColoWatchLook *now, uint64_t timeout, uint64_t delay);

#endif /* NET_COLO_WATCH_H */
