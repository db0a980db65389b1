/*
 * The end of a turn of a main loop
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef NET_COLO_TURN_H
#define NET_COLO_TURN_H

/* Has @end called each time before the thread of @context (NULL: the main loop's) sleeps: what one turn has brought is dealt with at once. */
GSource *colo_turn_new(GMainContext *context, void (*end)(void *opaque), void *opaque);
void colo_turn_free(GSource *turn);

/* There is something to do at the end of a turn; whoever is not @context's own thread wakes it. */
void colo_turn_wanted(GMainContext *context);

#endif /* NET_COLO_TURN_H */
