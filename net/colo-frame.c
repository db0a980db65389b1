/*
 * The frame: who makes the checkpoints
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Theory of operation
 *
 * migration/colo.c comes as a notifier when COLO begins, goes when it ends, and tells of each checkpoint in between; the notifier
 * is how it is asked for one.  Here its calls find their way to everything that compares.
 *
 * The frame waits for the secondary without an end.  What ends it is the watch: so many looks in vain, not the time, make a
 * secondary silent; when the thread that looks has stood still itself, that is one.  When the main loop stands still, a look counts
 * only if it is the secondary's disks that are waited for.
 *
 * Locks: the users are the big lock's.  The list of notifiers has a lock of its own, for they are called from the threads that
 * compare; nothing is waited for while it is held.
 */

#include "qemu/osdep.h"
#include "net/colo-compare.h"
#include "net/colo-frame.h"
#include "net/colo-host.h"
#include "net/colo-series.h"
#include "migration/migration.h"
#include "qemu/main-loop.h"
#include "qemu/thread.h"

/* How often in the timeout the watch looks for a sign of life. */
#define LOOKS 8
#define LOOKS_MOMENT 2

static QTAILQ_HEAD(, ColoFrameUser) users = QTAILQ_HEAD_INITIALIZER(users);

static QemuMutex notifiers_lock;
static NotifierList notifiers = NOTIFIER_LIST_INITIALIZER(notifiers);
static bool is_there;

/* The frame */

static void __attribute__((constructor)) frame_init(void)
{
    qemu_mutex_init(&notifiers_lock);
}

static void tell_changed(void)
{
    ColoFrameUser *user;
    bool locked = colo_host_lock();

    QTAILQ_FOREACH(user, &users, next) {
        user->ops->changed(user);
    }
    colo_host_unlock(locked);
}

void colo_notify_compares_event(void *opaque, int event, Error **errp)
{
    ColoFrameUser *user;
    bool locked = colo_host_lock();

    if (event == COLO_EVENT_CHECKPOINT) {
        QTAILQ_FOREACH(user, &users, next) {
            user->ops->checkpoint(user);
        }
    } else if (event == COLO_EVENT_FAILOVER) {
        qatomic_set(&is_there, false);
        if (!colo_host_failover_is_commanded()) {
            QTAILQ_FOREACH(user, &users, next) {
                user->ops->gave_up(user);
            }
            colo_host_end_wait();       /* the disks have no part in it any more, either */
        }
        tell_changed();
    }
    colo_host_unlock(locked);
}

void colo_compare_register_notifier(Notifier *notify)
{
    qemu_mutex_lock(&notifiers_lock);
    notifier_list_add(&notifiers, notify);
    qatomic_set(&is_there, true);
    qemu_mutex_unlock(&notifiers_lock);
    tell_changed();
}

void colo_compare_unregister_notifier(Notifier *notify)
{
    qemu_mutex_lock(&notifiers_lock);
    notifier_remove(notify);
    qatomic_set(&is_there, !notifier_list_empty(&notifiers));
    qemu_mutex_unlock(&notifiers_lock);
    tell_changed();
}

bool colo_frame_is_there(void)
{
    return qatomic_read(&is_there);
}

void colo_frame_ask(void)
{
    qemu_mutex_lock(&notifiers_lock);
    notifier_list_notify(&notifiers, migrate_get_current());
    qemu_mutex_unlock(&notifiers_lock);
}

void colo_frame_add_user(ColoFrameUser *user, const ColoFrameUserOps *ops)
{
    user->ops = ops;
    QTAILQ_INSERT_TAIL(&users, user, next);
}

void colo_frame_remove_user(ColoFrameUser *user)
{
    QTAILQ_REMOVE(&users, user, next);
}

/* The watch over it */

static void watch_next_look(ColoFrameWatch *w)
{
    timer_mod_ns(w->timer, qemu_clock_get_ns(QEMU_CLOCK_REALTIME) + qatomic_read(w->timeout) * SCALE_MS / LOOKS);
}

static void watch_look(void *opaque)
{
    ColoFrameWatch *w = opaque;
    const ColoComparatorStats *stats = colo_comparator_stats(w->comparator);
    uint64_t timeout = qatomic_read(w->timeout);
    uint64_t headway = stats->checkpoints + colo_host_headway();
    uint64_t heard = stats->in[COLO_SECONDARY].packets;
    uint32_t turns = colo_host_turns();
    ColoHostReplicas replicas = colo_host_replicas();
    bool stands = turns == w->turns;
    bool moved = headway != w->headway;
    bool overdue, due;

    if (stands) {
        if (replicas.looks == w->replicas.looks || !replicas.open) {
            watch_next_look(w);     /* what we wait for is a disk of our own, or something else of this host's */
            return;
        }
        moved |= replicas.done != w->replicas.done || replicas.open < w->replicas.open;
    }
    w->turns = turns;
    w->replicas = replicas;
    w->looks_still = moved ? 0 : w->looks_still + 1;
    overdue = w->looks_still * timeout / LOOKS > migrate_checkpoint_delay();
    due = colo_comparator_has_asked(w->comparator) || colo_host_guest_is_held() || stands || overdue;
    w->looks_owing = due && !moved ? w->looks_owing + 1 : 0;
    w->looks_quiet = (due || stats->held[COLO_PRIMARY]) && !moved && heard == w->heard ? w->looks_quiet + 1 : 0;
    w->headway = headway;
    w->heard = heard;
    if (w->looks_owing >= LOOKS || (w->looks_owing >= LOOKS_MOMENT && w->looks_quiet >= LOOKS)) {
        w->silent(w->opaque);
        colo_host_end_wait();
        return;
    }
    if (overdue) {
        colo_frame_ask();       /* its timer is a clock's that may be set back */
    }
    watch_next_look(w);
}

void colo_frame_watch_init(ColoFrameWatch *w, AioContext *context, const ColoComparator *comparator,
                           const uint64_t *timeout, void (*silent)(void *opaque), void *opaque)
{
    w->comparator = comparator;
    w->timeout = timeout;
    w->silent = silent;
    w->opaque = opaque;
    w->timer = aio_timer_new(context, QEMU_CLOCK_REALTIME, SCALE_NS, watch_look, w);
}

void colo_frame_watch_start(ColoFrameWatch *w)
{
    w->looks_owing = w->looks_quiet = w->looks_still = 0;
    w->turns = colo_host_turns();
    w->replicas = colo_host_replicas();
    watch_next_look(w);
}

void colo_frame_watch_stop(ColoFrameWatch *w)
{
    timer_del(w->timer);
}

void colo_frame_watch_end(ColoFrameWatch *w)
{
    timer_free(w->timer);
    w->timer = NULL;
}
