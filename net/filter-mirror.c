/*
 * filter-mirror: a copy of the guest's traffic to a chardev
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Theory of operation
 *
 * Every packet goes on as if the filter were not there; a copy is sent over the link.  The mirror never waits for whoever
 * reads: while nobody does, or while the reader is too far behind, packets are not mirrored, which is said
 * once and counted.  (A secondary that misses input makes up for it as for a loss on the network.)
 */

#include "qemu/osdep.h"
#include "net/colo-host.h"
#include "net/colo-link.h"
#include "net/colo-report.h"
#include "net/colo-series.h"
#include "net/filter.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/iov.h"
#include "qom/object.h"

#define TYPE_FILTER_MIRROR "filter-mirror"
OBJECT_DECLARE_SIMPLE_TYPE(FilterMirror, FILTER_MIRROR)

/* What may wait for a reader that is slow, bytes. */
#define OUTBOX_MAX (64 * 1024 * 1024)

struct FilterMirror {
    NetFilterState parent_obj;
    char *outdev;
    bool vnet_hdr;
    ColoLink out;
    bool complained;            /* that nobody reads, or not fast enough */
    ColoCount in;
    ColoCount mirrored;
    ColoCount discarded;        /* not mirrored */
};

static void filter_mirror_connected(bool connected, void *opaque)
{
    FilterMirror *s = opaque;

    s->complained = false;
    if (!connected) {
        /* Whoever comes next has no use for what was meant for the last one. */
        colo_outbox_clear(&s->out.outbox);
    }
}

static const ColoLinkOps filter_mirror_link_ops = {
    .connected = filter_mirror_connected,
};

static void filter_mirror_complain(FilterMirror *s, const char *why)
{
    if (!s->complained) {
        s->complained = true;
        warn_report("%s: %s, so packets are not mirrored until it does", s->out.name, why);
    }
}

static ssize_t filter_mirror_receive_iov(NetFilterState *nf, NetClientState *sender, unsigned flags,
                                         const struct iovec *iov, int iovcnt, NetPacketSent *sent_cb)
{
    FilterMirror *s = FILTER_MIRROR(nf);
    size_t size = iov_size(iov, iovcnt);
    uint32_t vnet_len = colo_host_vnet_len(nf, s->vnet_hdr, flags);

    if (!size) {
        return 0;
    }
    colo_count(&s->in, size);
    if (!s->out.connected) {
        filter_mirror_complain(s, "nobody reads the chardev");
        colo_count(&s->discarded, size);
    } else if (colo_outbox_size(&s->out.outbox) > OUTBOX_MAX) {
        filter_mirror_complain(s, "whoever reads the chardev does not keep up");
        colo_count(&s->discarded, size);
    } else {
        colo_link_send(&s->out, iov, iovcnt, vnet_len);
        colo_count(&s->mirrored, size);
    }
    return 0;
}

static void filter_mirror_setup(NetFilterState *nf, Error **errp)
{
    FilterMirror *s = FILTER_MIRROR(nf);

    if (!s->outdev) {
        error_setg(errp, "filter-mirror '%s': property 'outdev' is missing; name the chardev to mirror to",
                   object_get_canonical_path_component(OBJECT(s)));
        return;
    }
    if (!colo_host_check_vnet(nf, s->vnet_hdr, errp) ||
        !colo_link_open(&s->out, OBJECT(s), "outdev", s->outdev, s->vnet_hdr, s->vnet_hdr, errp)) {
        return;
    }
    colo_link_start(&s->out, &filter_mirror_link_ops, s, NULL);
}

static void filter_mirror_cleanup(NetFilterState *nf)
{
    FilterMirror *s = FILTER_MIRROR(nf);

    colo_link_flush(&s->out);
    colo_link_stop(&s->out);
    colo_link_close(&s->out);
}

static ColoProxyInfo *filter_mirror_report(Object *obj)
{
    FilterMirror *s = FILTER_MIRROR(obj);
    ColoProxyInfo *info = g_new0(ColoProxyInfo, 1);

    info->type = COLO_PROXY_TYPE_FILTER_MIRROR;
    info->u.filter_mirror.input = colo_report_count(&s->in);
    info->u.filter_mirror.mirrored = colo_report_count(&s->mirrored);
    info->u.filter_mirror.discarded = colo_report_count(&s->discarded);
    info->u.filter_mirror.queued = colo_outbox_size(&s->out.outbox);
    info->u.filter_mirror.connected = s->out.connected;
    return info;
}

static char *filter_mirror_get_outdev(Object *obj, Error **errp)
{
    return g_strdup(FILTER_MIRROR(obj)->outdev);
}

static void filter_mirror_set_outdev(Object *obj, const char *value, Error **errp)
{
    FilterMirror *s = FILTER_MIRROR(obj);

    g_free(s->outdev);
    s->outdev = g_strdup(value);
}

static bool filter_mirror_get_vnet_hdr(Object *obj, Error **errp)
{
    return FILTER_MIRROR(obj)->vnet_hdr;
}

static void filter_mirror_set_vnet_hdr(Object *obj, bool value, Error **errp)
{
    FILTER_MIRROR(obj)->vnet_hdr = value;
}

static void filter_mirror_finalize(Object *obj)
{
    g_free(FILTER_MIRROR(obj)->outdev);
}

static void filter_mirror_class_init(ObjectClass *oc, ColoClassData *data)
{
    NetFilterClass *nfc = NETFILTER_CLASS(oc);

    object_class_property_add_str(oc, "outdev", filter_mirror_get_outdev, filter_mirror_set_outdev);
    object_class_property_add_bool(oc, "vnet_hdr_support", filter_mirror_get_vnet_hdr, filter_mirror_set_vnet_hdr);
    colo_host_filter_class_init(oc);
    nfc->setup = filter_mirror_setup;
    nfc->cleanup = filter_mirror_cleanup;
    nfc->receive_iov = filter_mirror_receive_iov;
    COLO_REPORTER_CLASS(oc)->report = filter_mirror_report;
}

static const TypeInfo filter_mirror_info = {
    .name = TYPE_FILTER_MIRROR,
    .parent = TYPE_NETFILTER,
    .instance_size = sizeof(FilterMirror),
    .instance_finalize = filter_mirror_finalize,
    .class_init = filter_mirror_class_init,
    .interfaces = (InterfaceInfo[]) {
        { TYPE_COLO_REPORTER },
        { }
    },
};

static void filter_mirror_register(void)
{
    type_register_static(&filter_mirror_info);
}

type_init(filter_mirror_register);
