/*
 * What the objects tell of themselves: query-colo-proxy and "info colo-proxy"
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "monitor/hmp.h"
#include "monitor/monitor.h"
#include "net/colo-report.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-colo-proxy.h"
#include "qom/object_interfaces.h"

ColoProxyCount *colo_report_count(const ColoCount *count)
{
    ColoProxyCount *copy = g_new(ColoProxyCount, 1);

    copy->packets = count->packets;
    copy->bytes = count->bytes;
    return copy;
}

static int report_object(Object *obj, void *opaque)
{
    ColoProxyInfoList ***tail = opaque;
    ColoProxyInfo *info;

    if (object_dynamic_cast(obj, TYPE_COLO_REPORTER)) {
        info = COLO_REPORTER_CLASS(object_get_class(obj))->report(obj);
        info->id = g_strdup(object_get_canonical_path_component(obj));
        QAPI_LIST_APPEND(*tail, info);
    }
    return 0;
}

ColoProxyInfoList *qmp_query_colo_proxy(Error **errp)
{
    ColoProxyInfoList *list = NULL;
    ColoProxyInfoList **tail = &list;

    object_child_foreach(object_get_objects_root(), report_object, &tail);
    return list;
}

static void print_count(Monitor *mon, const char *what, const ColoProxyCount *count)
{
    monitor_printf(mon, "  %-22s %12" PRIu64 " packets %16" PRIu64 " bytes\n", what, count->packets, count->bytes);
}

static void print_mirror(Monitor *mon, const ColoProxyMirrorInfo *info)
{
    print_count(mon, "input", info->input);
    print_count(mon, "mirrored", info->mirrored);
    print_count(mon, "discarded", info->discarded);
    monitor_printf(mon, "  %-22s %12" PRIu64 " bytes, %s\n", "queued", info->queued,
                   info->connected ? "connected" : "nobody reads");
}

static void print_redirector(Monitor *mon, const ColoProxyRedirectorInfo *info)
{
    print_count(mon, "input", info->input);
    print_count(mon, "redirected", info->redirected);
    print_count(mon, "released", info->released);
    print_count(mon, "injected", info->injected);
    print_count(mon, "discarded", info->discarded);
    monitor_printf(mon, "  %-22s %12" PRIu64 " bytes\n", "queued", info->queued);
}

static void print_rewriter(Monitor *mon, const ColoProxyRewriterInfo *info)
{
    print_count(mon, "to guest", info->to_guest);
    print_count(mon, "from guest", info->from_guest);
    print_count(mon, "rewritten to guest", info->rewritten_to_guest);
    print_count(mon, "rewritten from guest", info->rewritten_from_guest);
    monitor_printf(mon, "  %-22s %12" PRIu32 "\n", "flows", info->flows);
}

static void print_compare(Monitor *mon, const ColoProxyCompareInfo *info)
{
    print_count(mon, "primary", info->primary);
    print_count(mon, "secondary", info->secondary);
    print_count(mon, "released", info->released);
    print_count(mon, "discarded", info->discarded);
    monitor_printf(mon, "  %-22s %12" PRIu32 " packets %16" PRIu64 " bytes, at most %" PRIu32 " packets\n", "held",
                   info->held, info->held_bytes, info->held_max);
    monitor_printf(mon, "  %-22s %12.3f ms p50 %12.3f ms p99 %12.3f ms at most\n", "held for",
                   info->hold_times->p50 * 1e-6, info->hold_times->p99 * 1e-6, info->hold_times->max * 1e-6);
    monitor_printf(mon, "  %-22s %12" PRIu32 " packets\n", "pending", info->pending);
    monitor_printf(mon, "  %-22s %12" PRIu64 " bytes\n", "queued", info->queued);
    monitor_printf(mon, "  %-22s %12" PRIu32 "\n", "flows", info->flows);
    monitor_printf(mon, "  %-22s %12" PRIu64 "\n", "checkpoints", info->checkpoints);
    for (ColoDivergenceCountList *e = info->divergences; e; e = e->next) {
        monitor_printf(mon, "  asked for: %-11s %12" PRIu64 "\n", ColoDivergenceReason_str(e->value->reason),
                       e->value->count);
    }
    if (info->last_flow) {
        monitor_printf(mon, "  last: %s in %s", ColoDivergenceReason_str(info->last_reason), info->last_flow);
        if (info->has_last_offset) {
            monitor_printf(mon, " at byte %" PRIu32, info->last_offset);
        }
        monitor_printf(mon, ", %.1f s ago\n", info->last_ago * 1e-3);
    }
}

static void print_state(Monitor *mon, const ColoProxyCompareInfo *info)
{
    monitor_printf(mon, ": %s", info->comparing ? "comparing" : "passing through");
    if (info->has_secondary_lost) {
        monitor_printf(mon, ", the secondary is lost (%s)", ColoPeerLostReason_str(info->secondary_lost));
    } else if (!info->secondary_connected) {
        monitor_printf(mon, ", no secondary is connected");
    }
}

void hmp_info_colo_proxy(Monitor *mon, const QDict *qdict)
{
    ColoProxyInfoList *list = qmp_query_colo_proxy(NULL);

    for (ColoProxyInfoList *e = list; e; e = e->next) {
        const ColoProxyInfo *info = e->value;

        monitor_printf(mon, "%s '%s'", ColoProxyType_str(info->type), info->id);
        if (info->type == COLO_PROXY_TYPE_COLO_COMPARE) {
            print_state(mon, &info->u.colo_compare);
        }
        monitor_printf(mon, "\n");
        switch (info->type) {
        case COLO_PROXY_TYPE_FILTER_MIRROR:
            print_mirror(mon, &info->u.filter_mirror);
            break;
        case COLO_PROXY_TYPE_FILTER_REDIRECTOR:
            print_redirector(mon, &info->u.filter_redirector);
            break;
        case COLO_PROXY_TYPE_FILTER_REWRITER:
            print_rewriter(mon, &info->u.filter_rewriter);
            break;
        case COLO_PROXY_TYPE_COLO_COMPARE:
            print_compare(mon, &info->u.colo_compare);
            break;
        default:
            g_assert_not_reached();
        }
    }
    qapi_free_ColoProxyInfoList(list);
}

static const TypeInfo colo_reporter_info = {
    .name = TYPE_COLO_REPORTER,
    .parent = TYPE_INTERFACE,
    .class_size = sizeof(ColoReporterClass),
};

static void colo_report_register(void)
{
    type_register_static(&colo_reporter_info);
}

type_init(colo_report_register);
