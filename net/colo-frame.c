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
 * The frame waits for the secondary without an end.  What ends it is the watch (net/colo/watch.c), which is shown here what there is
 * to be seen.
 *
 * Locks: the users are the big lock's.  The list of notifiers has a lock of its own, for they are called from the threads that
 * compare; nothing is waited for while it is held.
 */

#include "qemu/osdep.h"
#include "net/colo-compare.h"
#include "net/colo-disk.h"
#include "net/colo-frame.h"
#include "net/colo-host.h"
#include "net/colo-series.h"
#include "migration/migration.h"
#include "qemu/main-loop.h"
#include "qemu/thread.h"

static QTAILQ_HEAD(, ColoFrameUser) users = QTAILQ_HEAD_INITIALIZER(users);

static QemuMutex notifiers_lock;
static NotifierList notifiers = NOTIFIER_LIST_INITIALIZER(notifiers);
static bool is_there;
static uint64_t epoch;      /* the big lock's */

static VMChangeStateEntry *vm_state;     /* also the big lock's */
static bool stopped;                    /* the guest, by somebody else */

/* The frame */

static void __attribute__((constructor)) frame_init(void)
{
    qemu_mutex_init(&notifiers_lock);
}

static void tell_changed(void)
{
    ColoFrameUser *user;
    bool locked = colo_host_lock();

    epoch = 0;
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
        epoch++;
        QTAILQ_FOREACH(user, &users, next) {
            user->ops->checkpoint(user);
        }
    } else if (event == COLO_EVENT_FAILOVER) {
        qatomic_set(&is_there, false);
        if (!colo_host_failover_is_commanded()) {
            QTAILQ_FOREACH(user, &users, next) {
                user->ops->gave_up(user);
            }
            colo_frame_end_wait();      /* the disks have no part in it any more, either */
        }
        tell_changed();
    }
    colo_host_unlock(locked);
}

/* A checkpoint that was due while the guest was stopped is made when it goes on. */
static void frame_vm_state(void *opaque, bool running, RunState state)
{
    if (running && stopped) {
        colo_frame_ask();
    }
    qatomic_set(&stopped, !running && !colo_host_guest_is_held());
}

/* Suspending and waking are not among the changes that are told of. */
static void frame_wakes(Notifier *notifier, void *reason)
{
    colo_frame_ask();
}

static Notifier wakes = { .notify = frame_wakes };

static void watch_vm_state(bool watch)
{
    bool locked = colo_host_lock();

    if (vm_state) {
        qemu_del_vm_change_state_handler(vm_state);
        notifier_remove(&wakes);
        vm_state = NULL;
    }
    qatomic_set(&stopped, false);
    if (watch) {
        vm_state = qemu_add_vm_change_state_handler(frame_vm_state, NULL);
        qemu_register_wakeup_notifier(&wakes);
    }
    colo_host_unlock(locked);
}

void colo_compare_register_notifier(Notifier *notify)
{
    qemu_mutex_lock(&notifiers_lock);
    notifier_list_add(&notifiers, notify);
    qatomic_set(&is_there, true);
    qemu_mutex_unlock(&notifiers_lock);
    watch_vm_state(true);
    tell_changed();
}

void colo_compare_unregister_notifier(Notifier *notify)
{
    qemu_mutex_lock(&notifiers_lock);
    notifier_remove(notify);
    qatomic_set(&is_there, !notifier_list_empty(&notifiers));
    qemu_mutex_unlock(&notifiers_lock);
    watch_vm_state(false);
    tell_changed();
}

bool colo_frame_is_there(void)
{
    return qatomic_read(&is_there);
}

uint64_t colo_frame_epoch(void)
{
    return epoch;
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

void colo_frame_end_wait(void)
{
    colo_host_yank(&(YankInstance) { .type = YANK_INSTANCE_TYPE_MIGRATION });
    colo_disk_break();
}

/* The watch over it */

static ColoWatchLook watch_sees(const ColoFrameWatch *w)
{
    const ColoComparatorStats *stats = colo_comparator_stats(w->comparator);

    return (ColoWatchLook) {
        .headway = stats->checkpoints + colo_host_headway(),
        .heard = stats->in[COLO_SECONDARY].packets,
        .turns = colo_host_turns(),
        .asked = colo_comparator_has_asked(w->comparator) || colo_host_guest_is_held(),
        .holding = stats->held[COLO_PRIMARY],
        .stopped = qatomic_read(&stopped) || runstate_check(RUN_STATE_SUSPENDED),
        .disks = colo_disk_look(),
    };
}

static void watch_next_look(ColoFrameWatch *w)
{
    int64_t interval = qatomic_read(w->timeout) * SCALE_MS / COLO_WATCH_LOOKS;

    timer_mod_ns(w->timer, qemu_clock_get_ns(QEMU_CLOCK_REALTIME) + interval);
}

static void watch_look(void *opaque)
{
    ColoFrameWatch *w = opaque;
    ColoWatchLook now = watch_sees(w);

    switch (colo_watch_look(&w->watch, &now, qatomic_read(w->timeout), migrate_checkpoint_delay())) {
    case COLO_WATCH_SILENT:
        w->silent(w->opaque);
        colo_frame_end_wait();
        return;
    case COLO_WATCH_ASK:
        colo_frame_ask();       /* the frame's timer is a clock's that may be set back */
        break;
    case COLO_WATCH_GO_ON:
        break;
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
    ColoWatchLook now = watch_sees(w);

    colo_watch_start(&w->watch, &now);
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
