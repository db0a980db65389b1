/*
 * filter-redirector: from the netdev to a chardev, and from a chardev to the netdev
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Theory of operation
 *
 * With `outdev`, packets of the filter's direction leave the filter chain for the chardev.  While nobody reads it
 * they go on through the chain instead, those that still wait in the link's outbox first; but a secondary's output goes
 * nowhere then, since no network may see it before a failover.  What waits at a failover is passed on: the client has
 * not had it.
 *
 * With `indev`, what comes from the chardev goes on through the chain as if the netdev or the guest had sent it.  It
 * is read only while the guest runs; while it stands still (a checkpoint is being loaded) what comes stays in the
 * chardev, before the rewriter, whose offsets change with the checkpoint.  A
 * secondary gets its input this way alone: the same input as the primary.  What its own netdev receives is not let through,
 * and what comes before its memory has arrived is of no use to it.
 *
 * Epochs: when a guest under COLO resumes, a mark goes into its output, so that whoever compares it knows which
 * packets are from before the checkpoint, however long they have been on their way.  It says how many checkpoints there have
 * been, and comes first on each new connection, too; save where the primary's still has to write what is older.
 */

#include "qemu/osdep.h"
#include "net/colo-frame.h"
#include "net/colo-host.h"
#include "net/colo-link.h"
#include "net/colo-outlet.h"
#include "net/colo-report.h"
#include "net/colo-series.h"
#include "net/colo-turn.h"
#include "net/filter.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/iov.h"
#include "qemu/main-loop.h"
#include "qom/object.h"
#include "trace.h"

#define TYPE_FILTER_REDIRECTOR "filter-redirector"
OBJECT_DECLARE_SIMPLE_TYPE(FilterRedirector, FILTER_REDIRECTOR)

/* What may wait for a reader that is slow, bytes. */
#define OUTBOX_MAX (64 * 1024 * 1024)

/*
 * What is injected into a guest in one turn of the main loop, bytes.  Between two turns the guest gets to empty the ring of its
 * network card, which may hold no more than a few hundred packets: so many of the size that came last are read.
 */
#define INJECT_MIN (8 * 1024)
#define INJECT_PACKETS 64

struct FilterRedirector {
    NetFilterState parent_obj;
    char *indev;
    char *outdev;
    bool vnet_hdr;
    ColoLink in;
    ColoLink out;
    QEMUBH *lost_bh;
    VMChangeStateEntry *vm_state;
    bool complained;            /* that the reader does not keep up */
    bool marked;                /* the guest's epoch has begun; this one: */
    uint64_t epoch;
    ColoCount input;
    ColoCount redirected;
    ColoCount released;
    ColoOutlet to_network;
    uint32_t marks_waiting;     /* while the outbox is gone through: marks in it that are still to come */
    ColoCount injected;
    uint32_t injected_size;     /* of the last packet, bytes */
    ColoCount discarded;
};

static bool redirector_covers(NetFilterState *nf, NetFilterDirection direction)
{
    return nf->direction == direction || nf->direction == NET_FILTER_DIRECTION_ALL;
}

/* Out */

static void redirector_release(const uint8_t *frame, uint32_t size, uint32_t vnet_len, void *opaque)
{
    FilterRedirector *s = opaque;
    NetFilterState *nf = NETFILTER(s);
    bool from_guest = redirector_covers(nf, NET_FILTER_DIRECTION_RX);

    if (colo_is_epoch_mark(frame + vnet_len, size - vnet_len, NULL)) {
        s->marks_waiting -= !!s->marks_waiting;
        return;
    }
    if (s->marks_waiting || (from_guest && colo_host_is_secondary())) {
        colo_count(&s->discarded, size);
        return;
    }
    colo_count(&s->released, size);
    if (from_guest) {
        colo_outlet_send(&s->to_network, frame, size, vnet_len);
    } else {
        colo_host_pass(nf, s->vnet_hdr, nf->netdev, frame, size, vnet_len);
    }
}

/* Everything that still waits to be redirected goes on through the chain. */
static void redirector_release_all(FilterRedirector *s)
{
    if (!colo_outbox_is_empty(&s->out.outbox)) {
        trace_colo_redirector_release(s->out.name, colo_outbox_size(&s->out.outbox));
        colo_link_cut(&s->out);
        colo_outbox_empty(&s->out.outbox, redirector_release, s);
    }
}

static void redirector_append(const uint8_t *frame, uint32_t size, uint32_t vnet_len, void *opaque)
{
    FilterRedirector *s = opaque;

    memcpy(colo_outbox_append(&s->out.outbox, size, vnet_len), frame, size);
}

static void redirector_find_mark(const uint8_t *frame, uint32_t size, uint32_t vnet_len, void *opaque)
{
    FilterRedirector *s = opaque;

    s->marks_waiting += colo_is_epoch_mark(frame + vnet_len, size - vnet_len, NULL);
    redirector_append(frame, size, vnet_len, s);
}

static void redirector_keep_newest(const uint8_t *frame, uint32_t size, uint32_t vnet_len, void *opaque)
{
    FilterRedirector *s = opaque;

    if (colo_is_epoch_mark(frame + vnet_len, size - vnet_len, NULL)) {
        s->marks_waiting--;
    } else if (s->marks_waiting) {
        colo_count(&s->discarded, size);
    } else {
        redirector_append(frame, size, vnet_len, s);
    }
}

/* The secondary's output waits for a connection.  Of what was sent before the last mark nobody will want to know any more. */
static void redirector_forget_epochs(FilterRedirector *s)
{
    colo_outbox_empty(&s->out.outbox, redirector_find_mark, s);
    colo_outbox_empty(&s->out.outbox, redirector_keep_newest, s);
}

static void redirector_append_mark(FilterRedirector *s)
{
    colo_epoch_mark(colo_outbox_append(&s->out.outbox, COLO_EPOCH_MARK_SIZE, 0), s->epoch);
}

/* The secondary's output has a reader again, who is told first in which epoch it is. */
static void redirector_begin_anew(FilterRedirector *s)
{
    ColoOutbox waiting;

    redirector_forget_epochs(s);
    waiting = s->out.outbox;
    s->out.outbox = (ColoOutbox) { .vnet = waiting.vnet };
    redirector_append_mark(s);
    colo_outbox_empty(&waiting, redirector_append, s);
}

/*
 * The secondary serves alone from now on: what its guest has sent since it was last made a copy goes to the client.  What lies
 * before the last mark is of an epoch that is over, and from a guest that is no more.
 */
static void redirector_fail_over(FilterRedirector *s)
{
    colo_link_cut(&s->out);
    colo_outbox_empty(&s->out.outbox, redirector_find_mark, s);
    redirector_release_all(s);
}

/* Nobody reads any more: not while a packet is being sent, but soon after. */
static void redirector_out_lost(void *opaque)
{
    FilterRedirector *s = opaque;

    if (s->out.connected) {
        return;
    }
    if (colo_host_is_secondary()) {
        redirector_forget_epochs(s);
    } else {
        redirector_release_all(s);
    }
}

static void redirector_out_connected(bool connected, void *opaque)
{
    FilterRedirector *s = opaque;

    s->complained = false;
    if (!connected) {
        qemu_bh_schedule(s->lost_bh);
    } else if (s->marked && colo_host_is_secondary()) {
        redirector_begin_anew(s);
    } else {
        s->marked = false;      /* the next packet comes behind a mark */
    }
}

static const ColoLinkOps redirector_out_ops = {
    .connected = redirector_out_connected,
};

static void redirector_send(FilterRedirector *s, const struct iovec *iov, int iovcnt, uint32_t vnet_len)
{
    colo_link_send(&s->out, iov, iovcnt, vnet_len);
    if (!s->out.connected && !colo_host_is_secondary()) {
        qemu_bh_schedule(s->lost_bh);       /* a secondary's outbox is gone through for each mark, not for each packet */
    }
}

/*
 * Under COLO, and while we are in the chain, the guest's output says in which epoch it is: where that begins, and where we come to it
 * in its midst.  Not more often: what lies before a secondary's last mark is discarded at a failover.
 */
static void redirector_keep_in_step(FilterRedirector *s)
{
    NetFilterState *nf = NETFILTER(s);
    bool is_secondary = colo_host_is_secondary();
    uint64_t epoch = is_secondary ? colo_host_epoch() : colo_frame_epoch();

    if (!s->outdev || !nf->on || !redirector_covers(nf, NET_FILTER_DIRECTION_RX) ||
        (!is_secondary && !colo_frame_is_there())) {
        s->marked = false;
    } else if (!s->marked || s->epoch != epoch) {
        s->marked = true;
        s->epoch = epoch;
        redirector_append_mark(s);
        colo_turn_wanted(NULL);
        if (!s->out.connected) {
            qemu_bh_schedule(s->lost_bh);
        }
    }
}

/* True for a guest's frame that passes itself off as a mark. */
static bool redirector_is_forged(const struct iovec *iov, int iovcnt, uint32_t vnet_len)
{
    uint8_t frame[COLO_EPOCH_MARK_SIZE];

    return iov_size(iov, iovcnt) - vnet_len == sizeof(frame) &&
           iov_to_buf(iov, iovcnt, vnet_len, frame, sizeof(frame)) == sizeof(frame) &&
           colo_is_epoch_mark(frame, sizeof(frame), NULL);
}

static ssize_t redirector_receive_iov(NetFilterState *nf, NetClientState *sender, unsigned flags,
                                      const struct iovec *iov, int iovcnt, NetPacketSent *sent_cb)
{
    FilterRedirector *s = FILTER_REDIRECTOR(nf);
    size_t size = iov_size(iov, iovcnt);
    uint32_t vnet_len = MIN(colo_host_vnet_len(nf, s->vnet_hdr, flags), size);
    bool from_guest = sender != nf->netdev;

    if (!size) {
        return 0;
    }
    colo_count(&s->input, size);
    if (!s->outdev) {
        if (!from_guest && colo_host_is_secondary()) {
            colo_count(&s->discarded, size);
            return size;
        }
        return 0;
    }
    if (!s->out.connected && colo_outbox_is_empty(&s->out.outbox) && !(from_guest && colo_host_is_secondary())) {
        return 0;
    }
    if (redirector_is_forged(iov, iovcnt, vnet_len)) {
        colo_count(&s->discarded, size);
        return size;
    }
    if (colo_outbox_size(&s->out.outbox) > OUTBOX_MAX) {
        if (!s->complained) {
            s->complained = true;
            warn_report("%s: whoever reads the chardev does not keep up, so packets are lost", s->out.name);
        }
        colo_count(&s->discarded, size);
        return size;
    }
    if (from_guest) {
        redirector_keep_in_step(s);
    }
    redirector_send(s, iov, iovcnt, vnet_len);
    colo_count(&s->redirected, size);
    return size;
}

/* In */

static int redirector_may_inject(void *opaque)
{
    FilterRedirector *s = opaque;

    /* Before its memory has come, a guest's input is to be thrown away. */
    if (!runstate_is_running() && !runstate_check(RUN_STATE_INMIGRATE)) {
        return 0;
    }
    return redirector_covers(NETFILTER(s), NET_FILTER_DIRECTION_TX) ?
           MIN(MAX(s->injected_size * INJECT_PACKETS, INJECT_MIN), COLO_LINK_READ) : COLO_LINK_READ;
}

static void redirector_inject(const uint8_t *frame, uint32_t size, uint32_t vnet_len, void *opaque)
{
    FilterRedirector *s = opaque;
    NetFilterState *nf = NETFILTER(s);

    if (runstate_check(RUN_STATE_INMIGRATE) || colo_is_epoch_mark(frame + vnet_len, size - vnet_len, NULL)) {
        colo_count(&s->discarded, size);
        return;
    }
    colo_count(&s->injected, size);
    s->injected_size = size;
    if (redirector_covers(nf, NET_FILTER_DIRECTION_TX)) {
        colo_host_pass(nf, s->vnet_hdr, nf->netdev, frame, size, vnet_len);
    }
    if (redirector_covers(nf, NET_FILTER_DIRECTION_RX) && nf->netdev->peer) {
        colo_host_pass(nf, s->vnet_hdr, nf->netdev->peer, frame, size, vnet_len);
    }
}

static const ColoLinkOps redirector_in_ops = {
    .packet = redirector_inject,
    .may_read = redirector_may_inject,
};

/* The guest and the frame */

static void redirector_vm_state(void *opaque, bool running, RunState state)
{
    FilterRedirector *s = opaque;

    redirector_keep_in_step(s);
    if (running) {
        qemu_notify_event();    /* what had to wait while the guest stood still can be read now */
    }
}

static void redirector_status_changed(NetFilterState *nf, Error **errp)
{
    FilterRedirector *s = FILTER_REDIRECTOR(nf);

    if (!nf->on) {
        redirector_release_all(s);
    }
    redirector_keep_in_step(s);
}

static void redirector_handle_event(NetFilterState *nf, int event, Error **errp)
{
    FilterRedirector *s = FILTER_REDIRECTOR(nf);

    if (event == COLO_EVENT_FAILOVER) {
        colo_link_stop(&s->in);     /* the primary's word counts no more */
        redirector_fail_over(s);
        object_property_set_str(OBJECT(nf), "status", "off", errp);
    }
}

/* Life */

static void redirector_setup(NetFilterState *nf, Error **errp)
{
    FilterRedirector *s = FILTER_REDIRECTOR(nf);
    const char *id = object_get_canonical_path_component(OBJECT(s));

    if (!s->indev && !s->outdev) {
        error_setg(errp, "filter-redirector '%s': properties 'indev' and 'outdev' are both missing; "
                   "name a chardev for at least one", id);
        return;
    }
    if (s->indev && s->outdev && !strcmp(s->indev, s->outdev)) {
        error_setg(errp, "filter-redirector '%s': properties 'indev' and 'outdev' both name chardev '%s'; "
                   "each needs one of its own", id, s->indev);
        return;
    }
    if (!colo_host_check_vnet(nf, s->vnet_hdr, errp) ||
        (s->indev && !colo_link_open(&s->in, OBJECT(s), "indev", s->indev, s->vnet_hdr, s->vnet_hdr, errp))) {
        return;
    }
    if (s->outdev && !colo_link_open(&s->out, OBJECT(s), "outdev", s->outdev, s->vnet_hdr, s->vnet_hdr, errp)) {
        colo_link_close(&s->in);
        return;
    }
    colo_outlet_open(&s->to_network, nf, s->vnet_hdr);
    s->lost_bh = qemu_bh_new(redirector_out_lost, s);
    s->vm_state = qemu_add_vm_change_state_handler(redirector_vm_state, s);
    if (s->indev) {
        colo_link_start(&s->in, &redirector_in_ops, s, NULL);
    }
    if (s->outdev) {
        colo_link_start(&s->out, &redirector_out_ops, s, NULL);
    }
}

static void redirector_cleanup(NetFilterState *nf)
{
    FilterRedirector *s = FILTER_REDIRECTOR(nf);

    if (s->lost_bh) {
        colo_link_stop(&s->in);
        colo_link_stop(&s->out);
        redirector_release_all(s);
        colo_outlet_close(&s->to_network);
        qemu_del_vm_change_state_handler(s->vm_state);
        qemu_bh_delete(s->lost_bh);
        s->lost_bh = NULL;
    }
    colo_link_close(&s->in);
    colo_link_close(&s->out);
}

static ColoProxyInfo *redirector_report(Object *obj)
{
    FilterRedirector *s = FILTER_REDIRECTOR(obj);
    ColoProxyInfo *info = g_new0(ColoProxyInfo, 1);

    info->type = COLO_PROXY_TYPE_FILTER_REDIRECTOR;
    info->u.filter_redirector.input = colo_report_count(&s->input);
    info->u.filter_redirector.redirected = colo_report_count(&s->redirected);
    info->u.filter_redirector.released = colo_report_count(&s->released);
    info->u.filter_redirector.injected = colo_report_count(&s->injected);
    info->u.filter_redirector.discarded = colo_report_count(&s->discarded);
    info->u.filter_redirector.queued = colo_outbox_size(&s->out.outbox);
    return info;
}

static char *redirector_get_indev(Object *obj, Error **errp)
{
    return g_strdup(FILTER_REDIRECTOR(obj)->indev);
}

static void redirector_set_indev(Object *obj, const char *value, Error **errp)
{
    FilterRedirector *s = FILTER_REDIRECTOR(obj);

    g_free(s->indev);
    s->indev = g_strdup(value);
}

static char *redirector_get_outdev(Object *obj, Error **errp)
{
    return g_strdup(FILTER_REDIRECTOR(obj)->outdev);
}

static void redirector_set_outdev(Object *obj, const char *value, Error **errp)
{
    FilterRedirector *s = FILTER_REDIRECTOR(obj);

    g_free(s->outdev);
    s->outdev = g_strdup(value);
}

static bool redirector_get_vnet_hdr(Object *obj, Error **errp)
{
    return FILTER_REDIRECTOR(obj)->vnet_hdr;
}

static void redirector_set_vnet_hdr(Object *obj, bool value, Error **errp)
{
    FILTER_REDIRECTOR(obj)->vnet_hdr = value;
}

static void redirector_finalize(Object *obj)
{
    FilterRedirector *s = FILTER_REDIRECTOR(obj);

    g_free(s->indev);
    g_free(s->outdev);
}

static void redirector_class_init(ObjectClass *oc, ColoClassData *data)
{
    NetFilterClass *nfc = NETFILTER_CLASS(oc);

    object_class_property_add_str(oc, "indev", redirector_get_indev, redirector_set_indev);
    object_class_property_add_str(oc, "outdev", redirector_get_outdev, redirector_set_outdev);
    object_class_property_add_bool(oc, "vnet_hdr_support", redirector_get_vnet_hdr, redirector_set_vnet_hdr);
    colo_host_filter_class_init(oc);
    nfc->setup = redirector_setup;
    nfc->cleanup = redirector_cleanup;
    nfc->status_changed = redirector_status_changed;
    nfc->handle_event = redirector_handle_event;
    nfc->receive_iov = redirector_receive_iov;
    COLO_REPORTER_CLASS(oc)->report = redirector_report;
}

static const TypeInfo filter_redirector_info = {
    .name = TYPE_FILTER_REDIRECTOR,
    .parent = TYPE_NETFILTER,
    .instance_size = sizeof(FilterRedirector),
    .instance_finalize = redirector_finalize,
    .class_init = redirector_class_init,
    .interfaces = (InterfaceInfo[]) {
        { TYPE_COLO_REPORTER },
        { }
    },
};

static void filter_redirector_register(void)
{
    type_register_static(&filter_redirector_info);
}

type_init(filter_redirector_register);
