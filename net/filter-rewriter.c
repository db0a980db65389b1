/*
 * filter-rewriter: lets the secondary's connections pass for the primary's
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The decisions are the core's (net/colo/rewriter.c).  Here packets are shown to it, those it wants changed are copied,
 * changed and passed on, and the frame's events are handed to it.
 */

#include "qemu/osdep.h"
#include "crypto/random.h"
#include "net/colo-host.h"
#include "net/colo-report.h"
#include "net/colo-series.h"
#include "net/colo-vmstate.h"
#include "net/colo/rewriter.h"
#include "net/filter.h"
#include "qapi/error.h"
#include "qemu/iov.h"
#include "qemu/main-loop.h"
#include "qemu/timer.h"
#include "qom/object.h"
#include "trace.h"

#define TYPE_FILTER_REWRITER "filter-rewriter"
OBJECT_DECLARE_SIMPLE_TYPE(FilterRewriter, FILTER_REWRITER)

struct FilterRewriter {
    NetFilterState parent_obj;
    bool vnet_hdr;
    ColoRewriter *rewriter;
    ColoRewriterVMState vmstate;
    QEMUBH *bh;                 /* for packets that need wait no longer */
    ColoCount in[2];            /* by ColoDirection */
    ColoCount rewritten[2];
};

/* Packets to the guest that have waited for its SYN-ACK go on. */
static void rewriter_pass_ready(FilterRewriter *s)
{
    NetFilterState *nf = NETFILTER(s);
    ColoPacket *p;

    while ((p = colo_rewriter_ready(s->rewriter))) {
        struct iovec iov = { .iov_base = p->data, .iov_len = p->size };

        qemu_netfilter_pass_to_next(nf->netdev, QEMU_NET_PACKET_FLAG_NONE, &iov, 1, nf);
        colo_packet_free(p);
    }
}

static void rewriter_bh(void *opaque)
{
    rewriter_pass_ready(opaque);
}

static ssize_t rewriter_receive_iov(NetFilterState *nf, NetClientState *sender, unsigned flags,
                                    const struct iovec *iov, int iovcnt, NetPacketSent *sent_cb)
{
    FilterRewriter *s = FILTER_REWRITER(nf);
    ColoDirection direction = sender == nf->netdev ? COLO_TO_GUEST : COLO_FROM_GUEST;
    size_t size = iov_size(iov, iovcnt);
    uint32_t vnet_len = MIN(colo_host_vnet_len(nf, s->vnet_hdr, flags), size);
    g_autofree uint8_t *copy = NULL;
    ColoRewrite rewrite;
    ColoPacket p;

    colo_count(&s->in[direction], size);
    if (size > COLO_FRAME_MAX + vnet_len || colo_rewriter_is_done(s->rewriter)) {
        return 0;
    }
    if (iovcnt > 1) {
        copy = g_malloc(size);
        iov_to_buf(iov, iovcnt, 0, copy, size);
    }
    if (!colo_packet_parse(&p, copy ?: iov[0].iov_base, size, vnet_len)) {
        return 0;
    }
    if (direction == COLO_TO_GUEST) {
        rewriter_pass_ready(s);
    }
    rewrite = colo_rewriter_look(s->rewriter, direction, &p, qemu_clock_get_ns(QEMU_CLOCK_REALTIME));
    if (direction == COLO_FROM_GUEST && colo_rewriter_has_ready(s->rewriter)) {
        qemu_bh_schedule(s->bh);    /* the guest is sending: not now */
    }
    if (rewrite.kind == COLO_REWRITE_WAIT) {
        return size;
    }
    if (rewrite.kind == COLO_REWRITE_NOTHING) {
        return 0;
    }

    if (!copy) {
        copy = g_malloc(size);
        memcpy(copy, p.data, size);
        p.data = copy;
    }
    colo_rewrite(&p, rewrite);
    trace_colo_rewriter_rewrite(direction == COLO_TO_GUEST ? "to guest" : "from guest", p.seq, p.ack, rewrite.add);
    colo_count(&s->rewritten[direction], size);
    struct iovec whole = { .iov_base = copy, .iov_len = size };
    qemu_netfilter_pass_to_next(sender, flags, &whole, 1, nf);
    return size;
}

static void rewriter_handle_event(NetFilterState *nf, int event, Error **errp)
{
    FilterRewriter *s = FILTER_REWRITER(nf);

    trace_colo_rewriter_event(event, colo_rewriter_flows(s->rewriter));
    if (event == COLO_EVENT_CHECKPOINT) {
        colo_rewriter_checkpoint(s->rewriter, qemu_clock_get_ns(QEMU_CLOCK_REALTIME));
    } else if (event == COLO_EVENT_FAILOVER) {
        colo_rewriter_failover(s->rewriter);
    }
    qemu_bh_schedule(s->bh);
}

static void rewriter_setup(NetFilterState *nf, Error **errp)
{
    FilterRewriter *s = FILTER_REWRITER(nf);
    uint8_t secret[16];

    if (!colo_host_check_vnet(nf, s->vnet_hdr, errp) || qcrypto_random_bytes(secret, sizeof(secret), errp) < 0) {
        return;
    }
    s->rewriter = colo_rewriter_new(secret);
    colo_vmstate_begin(&s->vmstate, nf->netdev_id, s->rewriter);
    s->bh = qemu_bh_new(rewriter_bh, s);
}

static void rewriter_cleanup(NetFilterState *nf)
{
    FilterRewriter *s = FILTER_REWRITER(nf);

    if (s->rewriter) {
        colo_vmstate_end(&s->vmstate);
        colo_rewriter_failover(s->rewriter);
        rewriter_pass_ready(s);
        colo_rewriter_free(s->rewriter);
        qemu_bh_delete(s->bh);
    }
}

static ColoProxyInfo *rewriter_report(Object *obj)
{
    FilterRewriter *s = FILTER_REWRITER(obj);
    ColoProxyInfo *info = g_new0(ColoProxyInfo, 1);

    info->type = COLO_PROXY_TYPE_FILTER_REWRITER;
    info->u.filter_rewriter.to_guest = colo_report_count(&s->in[COLO_TO_GUEST]);
    info->u.filter_rewriter.from_guest = colo_report_count(&s->in[COLO_FROM_GUEST]);
    info->u.filter_rewriter.rewritten_to_guest = colo_report_count(&s->rewritten[COLO_TO_GUEST]);
    info->u.filter_rewriter.rewritten_from_guest = colo_report_count(&s->rewritten[COLO_FROM_GUEST]);
    info->u.filter_rewriter.flows = colo_rewriter_flows(s->rewriter);
    return info;
}

static bool rewriter_get_vnet_hdr(Object *obj, Error **errp)
{
    return FILTER_REWRITER(obj)->vnet_hdr;
}

static void rewriter_set_vnet_hdr(Object *obj, bool value, Error **errp)
{
    FILTER_REWRITER(obj)->vnet_hdr = value;
}

static void rewriter_class_init(ObjectClass *oc, ColoClassData *data)
{
    NetFilterClass *nfc = NETFILTER_CLASS(oc);

    object_class_property_add_bool(oc, "vnet_hdr_support", rewriter_get_vnet_hdr, rewriter_set_vnet_hdr);
    colo_host_filter_class_init(oc);
    nfc->setup = rewriter_setup;
    nfc->cleanup = rewriter_cleanup;
    nfc->handle_event = rewriter_handle_event;
    nfc->receive_iov = rewriter_receive_iov;
    COLO_REPORTER_CLASS(oc)->report = rewriter_report;
}

static const TypeInfo filter_rewriter_info = {
    .name = TYPE_FILTER_REWRITER,
    .parent = TYPE_NETFILTER,
    .instance_size = sizeof(FilterRewriter),
    .class_init = rewriter_class_init,
    .interfaces = (InterfaceInfo[]) {
        { TYPE_COLO_REPORTER },
        { }
    },
};

static void filter_rewriter_register(void)
{
    type_register_static(&filter_rewriter_info);
}

type_init(filter_rewriter_register);
