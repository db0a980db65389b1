/*
 * colo-compare: lets the primary's output go when the secondary can stand by it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Theory of operation
 *
 * The decisions are the core's (net/colo/comparator.c).  Here are its senses and hands: three links (the primary's output,
 * the secondary's, and what may leave), a timer, and the frame.  All of that runs in one thread, the
 * iothread's; the core is touched from no other.  A turn of that thread reads a batch of packets and hands them to the core;
 * what the core releases is sent over the link, which writes it before the thread sleeps.
 *
 * Backpressure.  A side is read while the core wants to hear from it and what has been released finds a taker.
 *
 * The frame comes and goes as a notifier.  While one is there (or `active=on`, or a foreign frame behind notify_dev), output
 * is compared; otherwise it passes straight through.  Events of the frame are carried into the
 * iothread and waited for, so that the guest does not run on before the new epoch has begun here.
 *
 * A lost secondary.  If its connection breaks, whatever is held asks for a checkpoint at once: either the frame makes it, or
 * it finds its own connection broken and ends COLO.  One that has fallen silent is the watch's to notice (net/colo/watch.c): the
 * frame's connection is broken then; it ends COLO, which lets everything pass.
 */

#include "qemu/osdep.h"
#include "crypto/random.h"
#include "net/colo-compare.h"
#include "net/colo-frame.h"
#include "net/colo-host.h"
#include "net/colo-link.h"
#include "net/colo-report.h"
#include "net/colo-series.h"
#include "net/colo-turn.h"
#include "net/colo/comparator.h"
#include "qapi/error.h"
#include "qapi/qapi-events-colo-proxy.h"
#include "qapi/qapi-types-qom.h"
#include "qapi/visitor.h"
#include "qemu/error-report.h"
#include "qemu/thread.h"
#include "qemu/timer.h"
#include "qom/object_interfaces.h"
#include "trace.h"

#define TYPE_COLO_COMPARE "colo-compare"
OBJECT_DECLARE_SIMPLE_TYPE(ColoCompare, COLO_COMPARE)

/* Released bytes that may wait for a taker before no more is read. */
#define OUTBOX_HIGH (1024 * 1024)

/* Defaults of the properties. */
#define COMPARE_TIMEOUT_MS 3000
#define EXPIRED_SCAN_CYCLE_MS 1000
#define MAX_QUEUE_SIZE 1024
#define PEER_TIMEOUT_MS 3000

/* Xen's frame and this object tell each other these. */
#define XEN_HELLO "COLO_USERSPACE_PROXY_INIT"
#define XEN_WELCOME "COLO_COMPARE_GET_XEN_INIT"
#define XEN_ASK "DO_CHECKPOINT"
#define XEN_CHECKPOINT "COLO_CHECKPOINT"

struct ColoCompare {
    Object parent_obj;

    char *primary_in;
    char *secondary_in;
    char *outdev;
    char *notify_dev;
    IOThread *iothread;
    bool vnet_hdr;
    ColoCompareActive active;
    uint64_t compare_timeout;           /* ms */
    uint32_t expired_scan_cycle;        /* ms; accepted, no longer needed */
    uint32_t max_queue_size;
    uint64_t peer_timeout;              /* ms */

    bool running;                       /* everything below is set up */
    IOThread *thread;                   /* `iothread`, or one of its own */
    AioContext *context;
    ColoComparator *comparator;
    ColoLink in[COLO_SIDES];
    ColoLink out;
    ColoLink notify;
    int64_t now;                        /* ns; when this turn began; 0: nobody has asked yet */
    ColoDeadline deadline;
    ColoFrameWatch watch;               /* while it is there */
    uint64_t epoch;                     /* checkpoints that have been told of since COLO began */
    uint64_t number;                    /* the secondary's epoch, as it has said on this connection last */
    bool doubted;                       /* that was wrong */
    bool stale;                         /* the connection is older than the end of COLO */
    bool secondary_lost;
    ColoPeerLostReason secondary_lost_reason;
    ColoFrameUser frame_user;
    QTAILQ_ENTRY(ColoCompare) next;
};

/* The big lock's. */
static QTAILQ_HEAD(, ColoCompare) compares = QTAILQ_HEAD_INITIALIZER(compares);

static const char *compare_id(ColoCompare *s)
{
    return object_get_canonical_path_component(OBJECT(s));
}

/* The time, the same for all that one turn brings. */
static int64_t compare_now(ColoCompare *s)
{
    s->now = s->now ?: qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
    return s->now;
}

/* The end of a turn: the timer is set to what comes next. */
static void compare_turn_done(ColoCompare *s)
{
    s->now = 0;
    colo_comparator_flush(s->comparator);
    colo_deadline_set(&s->deadline, colo_comparator_deadline(s->comparator));
}

static void compare_timer(void *opaque)
{
    ColoCompare *s = opaque;

    colo_comparator_tick(s->comparator, compare_now(s));
    compare_turn_done(s);
}

/* A lost secondary */

static void compare_lost(ColoCompare *s, ColoPeerLostReason reason)
{
    if (!s->secondary_lost) {
        trace_colo_compare_lost(compare_id(s), ColoPeerLostReason_str(reason));
        s->secondary_lost = true;
        s->secondary_lost_reason = reason;
        qapi_event_send_colo_proxy_peer_lost(compare_id(s), reason);
    }
}

static void compare_silent(void *opaque)
{
    compare_lost(opaque, COLO_PEER_LOST_REASON_SILENT);
}

/* What the core decides */

static void compare_release(const uint8_t *frame, uint32_t size, uint32_t vnet_len, void *opaque)
{
    ColoCompare *s = opaque;
    struct iovec iov = { .iov_base = (void *)frame, .iov_len = size };

    colo_link_send(&s->out, &iov, 1, vnet_len);
}

static void compare_tell_xen(ColoCompare *s, const char *message)
{
    struct iovec iov = { .iov_base = (void *)message, .iov_len = strlen(message) };

    colo_link_send(&s->notify, &iov, 1, 0);
    colo_link_flush(&s->notify);
}

static void compare_diverged(ColoReason reason, const ColoFlowKey *flow, void *opaque)
{
    ColoCompare *s = opaque;

    colo_report_divergence(OBJECT(s), s->comparator);
    if (s->notify_dev) {
        compare_tell_xen(s, XEN_ASK);
        return;
    }
    colo_frame_ask();
}

static const ColoComparatorOps compare_ops = {
    .release = compare_release,
    .diverged = compare_diverged,
};

/* What comes in */

/* The side's guest has resumed from checkpoint @number of its COLO, whose beginning we may not have been told of yet. */
static bool compare_resumed(ColoCompare *s, ColoSide side, uint64_t number)
{
    bool counts = s->notify_dev || colo_frame_is_there();
    int64_t behind = counts ? colo_epochs_behind(s->epoch, number) : 0;

    trace_colo_compare_epoch(compare_id(s), side == COLO_PRIMARY ? "primary" : "secondary", number);
    return colo_comparator_resumed(s->comparator, side, behind, compare_now(s));
}

static void compare_primary_packet(const uint8_t *frame, uint32_t size, uint32_t vnet_len, void *opaque)
{
    ColoCompare *s = opaque;
    uint64_t number;

    if (colo_is_epoch_mark(frame + vnet_len, size - vnet_len, &number)) {
        compare_resumed(s, COLO_PRIMARY, number);
    } else {
        colo_comparator_packet(s->comparator, COLO_PRIMARY, frame, size, vnet_len, compare_now(s));
    }
}

static void compare_secondary_resumed(ColoCompare *s, uint64_t number)
{
    s->number = number;
    if (compare_resumed(s, COLO_SECONDARY, number)) {
        return;
    }
    colo_comparator_secondary_doubted(s->comparator);
    if (!s->doubted) {
        s->doubted = true;
        error_report("%s: the secondary says that it has resumed from checkpoint %" PRIu64 ", and there have been %" PRIu64
                     "; what it sends is not compared until it says what can be", s->in[COLO_SECONDARY].name, number, s->epoch);
    }
}

static void compare_secondary_packet(const uint8_t *frame, uint32_t size, uint32_t vnet_len, void *opaque)
{
    ColoCompare *s = opaque;
    uint64_t number;

    if (colo_is_epoch_mark(frame + vnet_len, size - vnet_len, &number)) {
        compare_secondary_resumed(s, number);
    } else {
        colo_comparator_packet(s->comparator, COLO_SECONDARY, frame, size, vnet_len, compare_now(s));
    }
}

static int compare_may_read(ColoCompare *s, ColoSide side)
{
    return colo_outbox_size(&s->out.outbox) < OUTBOX_HIGH && colo_comparator_may_read(s->comparator, side) ? COLO_LINK_READ
                                                                                                           : 0;
}

static int compare_may_read_primary(void *opaque)
{
    return compare_may_read(opaque, COLO_PRIMARY);
}

static int compare_may_read_secondary(void *opaque)
{
    return compare_may_read(opaque, COLO_SECONDARY);
}

static void compare_read_done(void *opaque)
{
    compare_turn_done(opaque);
}

static void compare_primary_connected(bool connected, void *opaque)
{
    ColoCompare *s = opaque;

    colo_comparator_reconnected(s->comparator, COLO_PRIMARY);
}

static void compare_secondary_connected(bool connected, void *opaque)
{
    ColoCompare *s = opaque;

    colo_comparator_reconnected(s->comparator, COLO_SECONDARY);
    s->number = 0;
    s->doubted = s->stale = false;
    if (connected) {
        s->secondary_lost = false;
        return;
    }
    if (colo_frame_is_there()) {
        compare_lost(s, COLO_PEER_LOST_REASON_CLOSED);
    }
    colo_comparator_peer_lost(s->comparator, compare_now(s));
    compare_turn_done(s);
}

static const ColoLinkOps compare_in_ops[COLO_SIDES] = {
    [COLO_PRIMARY] = {
        .packet = compare_primary_packet,
        .may_read = compare_may_read_primary,
        .read_done = compare_read_done,
        .connected = compare_primary_connected,
    },
    [COLO_SECONDARY] = {
        .packet = compare_secondary_packet,
        .may_read = compare_may_read_secondary,
        .read_done = compare_read_done,
        .connected = compare_secondary_connected,
    },
};

static void compare_checkpoint(ColoCompare *s)
{
    trace_colo_compare_event(compare_id(s), "checkpoint");
    s->epoch++;
    colo_comparator_checkpoint(s->comparator, compare_now(s));
    compare_turn_done(s);
}

static void compare_notify_packet(const uint8_t *message, uint32_t size, uint32_t vnet_len, void *opaque)
{
    ColoCompare *s = opaque;

    if (size == strlen(XEN_HELLO) && !memcmp(message, XEN_HELLO, size)) {
        compare_tell_xen(s, XEN_WELCOME);
    } else if (size == strlen(XEN_CHECKPOINT) && !memcmp(message, XEN_CHECKPOINT, size)) {
        compare_checkpoint(s);
    } else {
        error_report("%s: a message came that is neither %s nor %s", s->notify.name, XEN_HELLO, XEN_CHECKPOINT);
    }
}

static const ColoLinkOps compare_notify_ops = {
    .packet = compare_notify_packet,
};

static const ColoLinkOps compare_out_ops = { 0 };

/* Calls into the iothread */

typedef void CompareCall(ColoCompare *s);

typedef struct {
    ColoCompare *s;
    CompareCall *call;
    QemuEvent done;
} Called;

static void compare_called(void *opaque)
{
    Called *called = opaque;

    called->call(called->s);
    qemu_event_set(&called->done);
}

/* Has @call done in the object's own thread, and waits for it. */
static void compare_call(ColoCompare *s, CompareCall *call)
{
    Called called = { .s = s, .call = call };

    qemu_event_init(&called.done, false);
    aio_bh_schedule_oneshot(s->context, compare_called, &called);
    qemu_event_wait(&called.done);
    qemu_event_destroy(&called.done);
}

static void compare_frame_comes_or_goes(ColoCompare *s)
{
    bool there = colo_frame_is_there();
    bool always = s->active == COLO_COMPARE_ACTIVE_ON || s->notify_dev;

    trace_colo_compare_event(compare_id(s), there ? "the frame is there" : "no frame is there");
    s->epoch = colo_frame_epoch();
    colo_comparator_set_comparing(s->comparator, false, compare_now(s));
    colo_comparator_set_comparing(s->comparator, there || always, compare_now(s));
    compare_turn_done(s);
    if (there && (s->stale || s->number)) {
        colo_comparator_secondary_doubted(s->comparator);
    }
    s->stale = !there && s->in[COLO_SECONDARY].connected;
    if (there && !s->notify_dev) {
        s->secondary_lost = false;
        colo_frame_watch_start(&s->watch);
    } else {
        colo_frame_watch_stop(&s->watch);
    }
}

/* It has no connection any more, which may show there before the secondary's output breaks off here. */
static void compare_frame_gave_up(ColoCompare *s)
{
    if (!s->notify_dev) {
        compare_lost(s, COLO_PEER_LOST_REASON_CLOSED);
    }
}

static void compare_timeout_changed(ColoCompare *s)
{
    colo_comparator_set_timeout(s->comparator, (int64_t)s->compare_timeout * SCALE_MS);
    compare_turn_done(s);
}

static void compare_on_change(ColoFrameUser *user)
{
    compare_call(container_of(user, ColoCompare, frame_user), compare_frame_comes_or_goes);
}

static void compare_on_giving_up(ColoFrameUser *user)
{
    compare_call(container_of(user, ColoCompare, frame_user), compare_frame_gave_up);
}

static void compare_on_checkpoint(ColoFrameUser *user)
{
    compare_call(container_of(user, ColoCompare, frame_user), compare_checkpoint);
}

static const ColoFrameUserOps compare_frame_ops = {
    .changed = compare_on_change,
    .gave_up = compare_on_giving_up,
    .checkpoint = compare_on_checkpoint,
};

/* Life */

static bool compare_open_link(ColoCompare *s, ColoLink *link, const char *property, const char *chardev_id,
                              bool write_vnet, Error **errp)
{
    Chardev *chr = qemu_chr_find(chardev_id);

    if (chr && (!qemu_chr_has_feature(chr, QEMU_CHAR_FEATURE_RECONNECTABLE) ||
                !qemu_chr_has_feature(chr, QEMU_CHAR_FEATURE_GCONTEXT))) {
        error_setg(errp, "colo-compare '%s': %s: chardev '%s' cannot be used, because it cannot be reconnected or "
                   "moved to another thread; use one of type socket", compare_id(s), property, chardev_id);
        return false;
    }
    return colo_link_open(link, OBJECT(s), property, chardev_id, s->vnet_hdr, write_vnet, errp);
}

static bool compare_open_links(ColoCompare *s, Error **errp)
{
    return compare_open_link(s, &s->in[COLO_PRIMARY], "primary_in", s->primary_in, s->vnet_hdr, errp) &&
           compare_open_link(s, &s->in[COLO_SECONDARY], "secondary_in", s->secondary_in, s->vnet_hdr, errp) &&
           compare_open_link(s, &s->out, "outdev", s->outdev, s->vnet_hdr, errp) &&
           (!s->notify_dev ||
            compare_open_link(s, &s->notify, "notify_dev", s->notify_dev, false, errp));
}

static void compare_close_links(ColoCompare *s)
{
    colo_link_close(&s->in[COLO_PRIMARY]);
    colo_link_close(&s->in[COLO_SECONDARY]);
    colo_link_close(&s->out);
    colo_link_close(&s->notify);
}

static bool compare_check_number(ColoCompare *s, const char *property, uint64_t value, Error **errp)
{
    if (!value || value > UINT32_MAX) {
        error_setg(errp, "colo-compare '%s': property '%s' is %" PRIu64 "; it must be from 1 to %" PRIu32,
                   compare_id(s), property, value, UINT32_MAX);
        return false;
    }
    return true;
}

static bool compare_check(ColoCompare *s, Error **errp)
{
    const struct {
        const char *property;
        const char *chardev;
    } devs[] = {
        { "primary_in", s->primary_in },
        { "secondary_in", s->secondary_in },
        { "outdev", s->outdev },
        { "notify_dev", s->notify_dev },
    };

    for (int i = 0; i < ARRAY_SIZE(devs); i++) {
        if (!devs[i].chardev && i < 3) {
            error_setg(errp, "colo-compare '%s': property '%s' is missing; name a chardev", compare_id(s),
                       devs[i].property);
            return false;
        }
        for (int j = 0; j < i; j++) {
            if (devs[i].chardev && !strcmp(devs[i].chardev, devs[j].chardev)) {
                error_setg(errp, "colo-compare '%s': properties '%s' and '%s' both name chardev '%s'; each needs "
                           "one of its own", compare_id(s), devs[j].property, devs[i].property, devs[i].chardev);
                return false;
            }
        }
    }
    return compare_check_number(s, "compare_timeout", s->compare_timeout, errp) &&
           compare_check_number(s, "expired_scan_cycle", s->expired_scan_cycle, errp) &&
           compare_check_number(s, "max_queue_size", s->max_queue_size, errp) &&
           compare_check_number(s, "peer_timeout", s->peer_timeout, errp);
}

static void compare_start(ColoCompare *s)
{
    GMainContext *context = iothread_get_g_main_context(s->thread);

    colo_link_start(&s->out, &compare_out_ops, s, context);
    colo_link_start(&s->in[COLO_PRIMARY], &compare_in_ops[COLO_PRIMARY], s, context);
    colo_link_start(&s->in[COLO_SECONDARY], &compare_in_ops[COLO_SECONDARY], s, context);
    if (s->notify_dev) {
        colo_link_start(&s->notify, &compare_notify_ops, s, context);
    }
    compare_frame_comes_or_goes(s);
    /* The frame may have been there for long: these connections begin in the middle of an epoch. */
    colo_comparator_reconnected(s->comparator, COLO_PRIMARY);
    colo_comparator_reconnected(s->comparator, COLO_SECONDARY);
    if (colo_frame_is_there()) {
        colo_comparator_secondary_doubted(s->comparator);   /* the connection is older than this object */
    }
}

static void compare_stop(ColoCompare *s)
{
    colo_link_stop(&s->in[COLO_PRIMARY]);
    colo_link_stop(&s->in[COLO_SECONDARY]);
    colo_link_stop(&s->notify);
    colo_comparator_free(s->comparator);    /* releases what is held */
    colo_link_flush(&s->out);
    colo_link_stop(&s->out);
    colo_deadline_end(&s->deadline);
    colo_frame_watch_end(&s->watch);
}

static void compare_complete(UserCreatable *uc, Error **errp)
{
    ColoCompare *s = COLO_COMPARE(uc);
    g_autofree char *iothread_id = g_strdup_printf("colo-compare-%s", compare_id(s));
    ColoComparatorConfig config = {
        .timeout = (int64_t)s->compare_timeout * SCALE_MS,
        .quiet = COLO_QUIET_NS,
        .gather = COLO_GATHER_NS,
        .queue_size = s->max_queue_size,
    };

    if (!compare_check(s, errp) || qcrypto_random_bytes(config.secret, sizeof(config.secret), errp) < 0 ||
        !compare_open_links(s, errp)) {
        compare_close_links(s);
        return;
    }
    if (s->iothread) {
        s->thread = s->iothread;
        object_ref(OBJECT(s->thread));
    } else {
        s->thread = iothread_create(iothread_id, errp);
        if (!s->thread) {
            compare_close_links(s);
            return;
        }
    }
    s->context = iothread_get_aio_context(s->thread);
    s->comparator = colo_comparator_new(&config, &compare_ops, s);
    colo_deadline_init(&s->deadline, aio_timer_new(s->context, QEMU_CLOCK_REALTIME, SCALE_NS, compare_timer, s));
    colo_frame_watch_init(&s->watch, s->context, s->comparator, &s->peer_timeout, compare_silent, s);
    s->running = true;

    QTAILQ_INSERT_TAIL(&compares, s, next);
    colo_frame_add_user(&s->frame_user, &compare_frame_ops);
    compare_call(s, compare_start);
}

static void compare_finalize(Object *obj)
{
    ColoCompare *s = COLO_COMPARE(obj);

    if (s->running) {
        colo_frame_remove_user(&s->frame_user);
        QTAILQ_REMOVE(&compares, s, next);
        compare_call(s, compare_stop);
        compare_close_links(s);
        if (s->iothread) {
            object_unref(OBJECT(s->thread));
        } else {
            iothread_destroy(s->thread);
        }
    }
    g_free(s->primary_in);
    g_free(s->secondary_in);
    g_free(s->outdev);
    g_free(s->notify_dev);
}

void colo_compare_cleanup(void)
{
    ColoCompare *s, *next;

    QTAILQ_FOREACH_SAFE(s, &compares, next, next) {
        object_unparent(OBJECT(s));
    }
}

/* Properties */

#define COMPARE_STR_PROPERTY(name) \
    static char *compare_get_##name(Object *obj, Error **errp) \
    { \
        return g_strdup(COLO_COMPARE(obj)->name); \
    } \
    static void compare_set_##name(Object *obj, const char *value, Error **errp) \
    { \
        ColoCompare *s = COLO_COMPARE(obj); \
        \
        g_free(s->name); \
        s->name = g_strdup(value); \
    }

COMPARE_STR_PROPERTY(primary_in)
COMPARE_STR_PROPERTY(secondary_in)
COMPARE_STR_PROPERTY(outdev)
COMPARE_STR_PROPERTY(notify_dev)

static bool compare_get_vnet_hdr(Object *obj, Error **errp)
{
    return COLO_COMPARE(obj)->vnet_hdr;
}

static void compare_set_vnet_hdr(Object *obj, bool value, Error **errp)
{
    COLO_COMPARE(obj)->vnet_hdr = value;
}

static int compare_get_active(Object *obj, Error **errp)
{
    return COLO_COMPARE(obj)->active;
}

static void compare_set_active(Object *obj, int value, Error **errp)
{
    COLO_COMPARE(obj)->active = value;
}

static void compare_get_timeout(Object *obj, Visitor *v, const char *name, void *opaque, Error **errp)
{
    uint64_t value = COLO_COMPARE(obj)->compare_timeout;

    visit_type_uint64(v, name, &value, errp);
}

static void compare_set_timeout(Object *obj, Visitor *v, const char *name, void *opaque, Error **errp)
{
    ColoCompare *s = COLO_COMPARE(obj);
    uint64_t value;

    if (!visit_type_uint64(v, name, &value, errp) || (s->running && !compare_check_number(s, name, value, errp))) {
        return;
    }
    s->compare_timeout = value;
    if (s->running) {
        compare_call(s, compare_timeout_changed);
    }
}

static void compare_get_peer_timeout(Object *obj, Visitor *v, const char *name, void *opaque, Error **errp)
{
    visit_type_uint64(v, name, &COLO_COMPARE(obj)->peer_timeout, errp);
}

static void compare_set_peer_timeout(Object *obj, Visitor *v, const char *name, void *opaque, Error **errp)
{
    ColoCompare *s = COLO_COMPARE(obj);
    uint64_t value;

    if (visit_type_uint64(v, name, &value, errp) && (!s->running || compare_check_number(s, name, value, errp))) {
        qatomic_set(&s->peer_timeout, value);      /* counts from the next look on */
    }
}

static void compare_get_scan_cycle(Object *obj, Visitor *v, const char *name, void *opaque, Error **errp)
{
    visit_type_uint32(v, name, &COLO_COMPARE(obj)->expired_scan_cycle, errp);
}

static void compare_set_scan_cycle(Object *obj, Visitor *v, const char *name, void *opaque, Error **errp)
{
    ColoCompare *s = COLO_COMPARE(obj);
    uint32_t value;

    if (visit_type_uint32(v, name, &value, errp) && (!s->running || compare_check_number(s, name, value, errp))) {
        s->expired_scan_cycle = value;
    }
}

static void compare_get_queue_size(Object *obj, Visitor *v, const char *name, void *opaque, Error **errp)
{
    visit_type_uint32(v, name, &COLO_COMPARE(obj)->max_queue_size, errp);
}

static void compare_set_queue_size(Object *obj, Visitor *v, const char *name, void *opaque, Error **errp)
{
    ColoCompare *s = COLO_COMPARE(obj);

    if (s->running) {
        error_setg(errp, "colo-compare '%s': property '%s' cannot be changed any more; create the object anew",
                   compare_id(s), name);
    } else {
        visit_type_uint32(v, name, &s->max_queue_size, errp);
    }
}

static ColoProxyInfo *compare_report(Object *obj)
{
    ColoCompare *s = COLO_COMPARE(obj);
    ColoProxyInfo *info = g_new0(ColoProxyInfo, 1);
    ColoProxyCompareInfo *compare = &info->u.colo_compare;

    info->type = COLO_PROXY_TYPE_COLO_COMPARE;
    colo_report_comparator(compare, s->comparator);
    compare->queued = colo_outbox_size(&s->out.outbox);
    compare->secondary_connected = s->in[COLO_SECONDARY].connected;
    compare->has_secondary_lost = s->secondary_lost;
    compare->secondary_lost = s->secondary_lost_reason;
    return info;
}

static void compare_init(Object *obj)
{
    ColoCompare *s = COLO_COMPARE(obj);

    s->compare_timeout = COMPARE_TIMEOUT_MS;
    s->expired_scan_cycle = EXPIRED_SCAN_CYCLE_MS;
    s->max_queue_size = MAX_QUEUE_SIZE;
    s->peer_timeout = PEER_TIMEOUT_MS;
}

static void compare_class_init(ObjectClass *oc, ColoClassData *data)
{
    USER_CREATABLE_CLASS(oc)->complete = compare_complete;
    COLO_REPORTER_CLASS(oc)->report = compare_report;

    object_class_property_add_str(oc, "primary_in", compare_get_primary_in, compare_set_primary_in);
    object_class_property_add_str(oc, "secondary_in", compare_get_secondary_in, compare_set_secondary_in);
    object_class_property_add_str(oc, "outdev", compare_get_outdev, compare_set_outdev);
    object_class_property_add_str(oc, "notify_dev", compare_get_notify_dev, compare_set_notify_dev);
    object_class_property_add_link(oc, "iothread", TYPE_IOTHREAD, offsetof(ColoCompare, iothread),
                                   object_property_allow_set_link, OBJ_PROP_LINK_STRONG);
    object_class_property_add_bool(oc, "vnet_hdr_support", compare_get_vnet_hdr, compare_set_vnet_hdr);
    object_class_property_add_enum(oc, "active", "ColoCompareActive", &ColoCompareActive_lookup,
                                   compare_get_active, compare_set_active);
    object_class_property_add(oc, "compare_timeout", "uint64", compare_get_timeout, compare_set_timeout, NULL, NULL);
    object_class_property_add(oc, "expired_scan_cycle", "uint32", compare_get_scan_cycle, compare_set_scan_cycle,
                              NULL, NULL);
    object_class_property_add(oc, "peer_timeout", "uint64", compare_get_peer_timeout, compare_set_peer_timeout,
                              NULL, NULL);
    object_class_property_add(oc, "max_queue_size", "uint32", compare_get_queue_size, compare_set_queue_size,
                              NULL, NULL);
}

static const TypeInfo colo_compare_info = {
    .name = TYPE_COLO_COMPARE,
    .parent = TYPE_OBJECT,
    .instance_size = sizeof(ColoCompare),
    .instance_init = compare_init,
    .instance_finalize = compare_finalize,
    .class_init = compare_class_init,
    .interfaces = (InterfaceInfo[]) {
        { TYPE_USER_CREATABLE },
        { TYPE_COLO_REPORTER },
        { }
    },
};

static void colo_compare_register(void)
{
    type_register_static(&colo_compare_info);
}

type_init(colo_compare_register);
