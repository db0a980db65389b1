/*
 * The end of a turn of a main loop
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A source that is never ready: before each sleep GLib asks it whether it is, and that is when it does its work.  No further
 * turn is needed for that, as it would be for a bottom half.
 */

#include "qemu/osdep.h"
#include "net/colo-turn.h"

typedef struct {
    GSource parent;
    void (*end)(void *opaque);
    void *opaque;
} Turn;

static gboolean turn_prepare(GSource *source, gint *timeout)
{
    Turn *turn = (Turn *)source;

    turn->end(turn->opaque);
    *timeout = -1;
    return FALSE;
}

static gboolean turn_dispatch(GSource *source, GSourceFunc callback, gpointer opaque)
{
    return G_SOURCE_CONTINUE;
}

static GSourceFuncs turn_funcs = {
    .prepare = turn_prepare,
    .dispatch = turn_dispatch,
};

GSource *colo_turn_new(GMainContext *context, void (*end)(void *opaque), void *opaque)
{
    GSource *source = g_source_new(&turn_funcs, sizeof(Turn));
    Turn *turn = (Turn *)source;

    turn->end = end;
    turn->opaque = opaque;
    /* Before anybody is asked whether there is room. */
    g_source_set_priority(source, G_PRIORITY_HIGH);
    g_source_attach(source, context);
    return source;
}

void colo_turn_free(GSource *turn)
{
    if (turn) {
        g_source_destroy(turn);
        g_source_unref(turn);
    }
}

void colo_turn_wanted(GMainContext *context)
{
    if (!g_main_context_is_owner(context ?: g_main_context_default())) {
        g_main_context_wakeup(context);     /* a vCPU: the main loop may be asleep */
    }
}

void colo_deadline_init(ColoDeadline *deadline, QEMUTimer *timer)
{
    deadline->timer = timer;
    deadline->at = INT64_MAX;
}

void colo_deadline_set(ColoDeadline *deadline, int64_t at)
{
    if (at == deadline->at && (at == INT64_MAX || timer_pending(deadline->timer))) {
        return;
    }
    deadline->at = at;
    if (at == INT64_MAX) {
        timer_del(deadline->timer);
    } else {
        timer_mod_ns(deadline->timer, at);
    }
}

void colo_deadline_end(ColoDeadline *deadline)
{
    timer_free(deadline->timer);
    deadline->timer = NULL;
}
