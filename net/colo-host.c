/*
 * What the filters have in common with the host
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "net/colo-compare.h"
#include "net/colo-host.h"
#include "net/colo/packet.h"
#include "migration/failover.h"
#include "net/colo-series.h"
#include "crypto/random.h"
#include "net/queue.h"
#include "qapi/error.h"
#include "qapi/qapi-commands-yank.h"
#include "qemu/error-report.h"
#include "qemu/main-loop.h"
#include "qom/object_interfaces.h"

QEMU_BUILD_BUG_ON(COLO_FRAME_MAX != NET_BUFSIZE);

bool colo_host_lock(void)
{
    bool locked = !bql_locked();

    if (locked) {
        bql_lock();
    }
    return locked;
}

void colo_host_unlock(bool locked)
{
    if (locked) {
        bql_unlock();
    }
}

static bool shutting_down;      /* the big lock's */
static COLOMode last_mode;

void colo_shutting_down(void)
{
    last_mode = get_colo_mode();
    shutting_down = true;
}

COLOMode colo_host_mode(void)
{
    return shutting_down ? last_mode : get_colo_mode();
}

bool colo_host_is_secondary(void)
{
    return colo_host_mode() == COLO_MODE_SECONDARY;
}

bool colo_host_instance(uint64_t *instance, Error **errp)
{
    static bool drawn;
    static uint64_t number;

    drawn = drawn || qcrypto_random_bytes(&number, sizeof(number), errp) == 0;
    *instance = number;
    return drawn;
}

static uint64_t epoch;      /* the big lock's */

void colo_checkpoint_loaded(void)
{
    epoch++;
}

uint64_t colo_host_epoch(void)
{
    return epoch;
}

uint64_t colo_host_headway(void)
{
    return colo_ram_sent();
}

bool colo_host_guest_is_held(void)
{
    return runstate_check(RUN_STATE_COLO) || runstate_check(RUN_STATE_FINISH_MIGRATE);
}

bool colo_host_failover_is_commanded(void)
{
    return failover_get_state() != FAILOVER_STATUS_NONE;
}

static bool turn_asked;
static uint32_t turns;

static void main_loop_turned(void *opaque)
{
    qatomic_set(&turns, turns + 1);
    qatomic_set(&turn_asked, false);
}

uint32_t colo_host_turns(void)
{
    if (!qatomic_xchg(&turn_asked, true)) {
        aio_bh_schedule_oneshot(iohandler_get_aio_context(), main_loop_turned, NULL);
    }
    return qatomic_read(&turns);
}

void colo_host_yank(YankInstance *instance)
{
    YankInstanceList list = { .value = instance };

    qmp_yank(&list, NULL);      /* which fails if there is none: then nobody waits */
}

static void (*host_complete)(UserCreatable *uc, Error **errp);

static void filter_complete(UserCreatable *uc, Error **errp)
{
    ERRP_GUARD();
    NetFilterState *nf = NETFILTER(uc);
    g_autofree char *name = g_strdup_printf("%s '%s'", object_get_typename(OBJECT(nf)),
                                            object_get_canonical_path_component(OBJECT(nf)));
    const char *position = nf->position;

    /* The host takes whatever object has that id for a filter. */
    if (g_str_has_prefix(position, "id=") &&
        !object_dynamic_cast(object_resolve_path_component(object_get_objects_root(), position + 3),
                             TYPE_NETFILTER)) {
        error_setg(errp, "%s: position: there is no filter '%s'; name one of the same netdev", name, position + 3);
        return;
    }
    host_complete(uc, errp);
    if (*errp && !g_str_has_prefix(error_get_pretty(*errp), name)) {
        error_prepend(errp, "%s: ", name);
    }
}

void colo_host_filter_class_init(ObjectClass *oc)
{
    UserCreatableClass *ucc = USER_CREATABLE_CLASS(oc);

    host_complete = ucc->complete;
    ucc->complete = filter_complete;
}

bool colo_host_comes_before(NetFilterState *nf, NetFilterState *other)
{
    NetFilterState *each;

    if (!g_str_has_prefix(nf->position, "id=")) {
        return !strcmp(nf->position, "head");
    }
    /* The first of the two that the chain has. */
    QTAILQ_FOREACH(each, &nf->netdev->filters, next) {
        bool named = !strcmp(object_get_canonical_path_component(OBJECT(each)), nf->position + 3);

        if (named || each == other) {
            return named && (each != other || nf->insert_before_flag);
        }
    }
    return false;
}

uint32_t colo_host_vnet_len(NetFilterState *nf, bool vnet_hdr_support, unsigned flags)
{
    if (!vnet_hdr_support && nf->netdev->vnet_hdr_len && colo_host_mode() != COLO_MODE_NONE) {
        warn_report_once("%s '%s': the guest's packets carry virtio-net headers, so without vnet_hdr_support=on "
                         "for every object of the COLO proxy they cannot be compared, and are not",
                         object_get_typename(OBJECT(nf)), object_get_canonical_path_component(OBJECT(nf)));
    }
    return vnet_hdr_support && !(flags & QEMU_NET_PACKET_FLAG_RAW) ? nf->netdev->vnet_hdr_len : 0;
}

bool colo_host_check_vnet(NetFilterState *nf, bool vnet_hdr_support, Error **errp)
{
    NetFilterState *other;

    QTAILQ_FOREACH(other, &nf->netdev->filters, next) {
        if (object_property_find(OBJECT(other), "vnet_hdr_support") &&
            object_property_get_bool(OBJECT(other), "vnet_hdr_support", NULL) != vnet_hdr_support) {
            error_setg(errp, "%s '%s': vnet_hdr_support=%s, but %s '%s' on the same netdev has it the other way; "
                       "all filters of a netdev need the same", object_get_typename(OBJECT(nf)),
                       object_get_canonical_path_component(OBJECT(nf)), vnet_hdr_support ? "on" : "off",
                       object_get_typename(OBJECT(other)), object_get_canonical_path_component(OBJECT(other)));
            return false;
        }
    }
    return true;
}

void colo_host_pass(NetFilterState *nf, bool vnet_hdr_support, NetClientState *sender, const uint8_t *frame,
                    uint32_t size, uint32_t vnet_len)
{
    static const uint8_t zeros[COLO_VNET_HDR_MAX];
    uint32_t wanted = nf->netdev->vnet_hdr_len;
    uint32_t common = MIN(vnet_len, wanted);
    struct iovec iov[] = {
        { .iov_base = (void *)frame, .iov_len = common },
        { .iov_base = (void *)zeros, .iov_len = MIN(wanted - common, sizeof(zeros)) },
        { .iov_base = (void *)(frame + vnet_len), .iov_len = size - vnet_len },
    };
    struct iovec whole = { .iov_base = (void *)frame, .iov_len = size };

    if (!vnet_hdr_support || vnet_len == wanted) {
        qemu_netfilter_pass_to_next(sender, QEMU_NET_PACKET_FLAG_NONE, &whole, 1, nf);
    } else if (!vnet_len) {
        qemu_netfilter_pass_to_next(sender, QEMU_NET_PACKET_FLAG_RAW, &whole, 1, nf);
    } else {
        qemu_netfilter_pass_to_next(sender, QEMU_NET_PACKET_FLAG_NONE, iov, ARRAY_SIZE(iov), nf);
    }
}
