/*
 * What the objects tell of themselves: query-colo-proxy and "info colo-proxy"
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "monitor/hmp.h"
#include "monitor/monitor.h"
#include "net/colo-report.h"
#include "net/colo-series.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-colo-proxy.h"
#include "qapi/qapi-events-colo-proxy.h"
#include "qemu/timer.h"
#include "qom/object_interfaces.h"
#include "trace.h"

ColoProxyCount *colo_report_count(const ColoCount *count)
{
    ColoProxyCount *copy = g_new(ColoProxyCount, 1);

    copy->packets = count->packets;
    copy->bytes = count->bytes;
    return copy;
}

void colo_report_comparator(ColoProxyCompareInfo *info, const ColoComparator *comparator)
{
    const ColoComparatorStats *stats = colo_comparator_stats(comparator);
    ColoDivergenceCountList **tail = &info->divergences;
    char text[COLO_FLOW_TEXT];

    QEMU_BUILD_BUG_ON((int)COLO_REASONS != (int)COLO_DIVERGENCE_REASON__MAX);
    info->comparing = colo_comparator_is_comparing(comparator);
    info->primary = colo_report_count(&stats->in[COLO_PRIMARY]);
    info->secondary = colo_report_count(&stats->in[COLO_SECONDARY]);
    info->released = colo_report_count(&stats->released);
    info->discarded = colo_report_count(&stats->discarded);
    info->held = stats->held[COLO_PRIMARY];
    info->held_bytes = stats->held_bytes[COLO_PRIMARY];
    info->held_max = stats->held_max;
    info->held_bytes_max = stats->held_bytes_max;
    info->hold_times = g_new(ColoHoldTimes, 1);
    info->hold_times->p50 = colo_histogram_quantile(&stats->held_times, 0.5);
    info->hold_times->p99 = colo_histogram_quantile(&stats->held_times, 0.99);
    info->hold_times->max = stats->held_times.max;
    info->pending = stats->held[COLO_SECONDARY];
    info->flows = colo_comparator_flows(comparator);
    info->checkpoints = stats->checkpoints;
    for (int reason = 0; reason < COLO_REASONS; reason++) {
        if (stats->diverged[reason]) {
            ColoDivergenceCount *count = g_new(ColoDivergenceCount, 1);

            count->reason = reason;
            count->count = stats->diverged[reason];
            QAPI_LIST_APPEND(tail, count);
            info->has_last_reason = true;
        }
    }
    if (info->has_last_reason) {
        info->last_reason = (ColoDivergenceReason)stats->last_reason;
        COLO_SET_PRESENT(info, last_flow);
        info->last_flow = g_strdup(colo_flow_key_format(&stats->last_flow, text));
        info->has_last_offset = stats->last_offset_set;
        info->last_offset = stats->last_offset;
        info->has_last_ago = true;
        info->last_ago = (qemu_clock_get_ns(QEMU_CLOCK_REALTIME) - stats->last_at) / SCALE_MS;
    }
}

void colo_report_divergence(Object *owner, const ColoComparator *comparator)
{
    const char *id = object_get_canonical_path_component(owner);
    const ColoComparatorStats *stats = colo_comparator_stats(comparator);
    ColoReason reason = stats->last_reason;
    char text[COLO_FLOW_TEXT];
    const char *flow;
    uint64_t count = 0;

    for (int i = 0; i < COLO_REASONS; i++) {
        count += stats->diverged[i];
    }
    colo_flow_key_format(&stats->last_flow, text);
    trace_colo_compare_diverged(id, colo_reason_name(reason), text, stats->last_offset);
    flow = reason != COLO_REASON_PEER_LOST ? text : NULL;
    qapi_event_send_colo_proxy_divergence(id, (ColoDivergenceReason)reason, COLO_OPTIONAL(flow), stats->last_offset_set,
                                          stats->last_offset, count);
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

static void print_proxy(Monitor *mon, const ColoProxyProxyInfo *info)
{
    print_count(mon, "input", info->input);
    print_count(mon, "output", info->output);
    print_count(mon, "sent", info->sent);
    print_count(mon, "received", info->received);
    print_count(mon, "discarded", info->discarded);
    if (info->compare) {
        print_compare(mon, info->compare);
    }
    if (info->has_flows) {
        monitor_printf(mon, "  %-22s %12" PRIu32 "\n", "flows", info->flows);
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
        } else if (info->type == COLO_PROXY_TYPE_COLO_PROXY) {
            monitor_printf(mon, ", %s", ColoProxyMode_str(info->u.colo_proxy.mode));
            if (info->u.colo_proxy.compare) {
                print_state(mon, info->u.colo_proxy.compare);
            } else {
                monitor_printf(mon, ": %s", info->u.colo_proxy.connected ? "connected" : "the primary is not connected");
            }
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
        case COLO_PROXY_TYPE_COLO_PROXY:
            print_proxy(mon, &info->u.colo_proxy);
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
