/*
 * The end of a turn of a main loop
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef NET_COLO_TURN_H
#define NET_COLO_TURN_H

#include "qemu/timer.h"

/*
 * Has @end called each time before the thread of @context (NULL: the main loop's) sleeps: what one turn has brought is dealt with
 * at once.
 */
GSource *colo_turn_new(GMainContext *context, void (*end)(void *opaque), void *opaque);
void colo_turn_free(GSource *turn);

/* There is something to do at the end of a turn; whoever is not @context's own thread wakes it. */
void colo_turn_wanted(GMainContext *context);

/* A timer that is set once more after each turn, nearly always to what it is set to already. */
typedef struct ColoDeadline {
    QEMUTimer *timer;
    int64_t at;                 /* ns; INT64_MAX: not set */
} ColoDeadline;

/* Takes over @timer, which is not set. */
void colo_deadline_init(ColoDeadline *deadline, QEMUTimer *timer);
/* INT64_MAX: never.  To be called by the timer's callback, too. */
void colo_deadline_set(ColoDeadline *deadline, int64_t at);
void colo_deadline_end(ColoDeadline *deadline);

#endif /* NET_COLO_TURN_H */
