/*
 * The outlet: where what a filter has released goes on to the network
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Theory of operation
 *
 * While the guest stands still no netdev takes anything.  The host queues what a filter passes on, up to ten thousand packets, and
 * throws away the rest; but a checkpoint or a failover may release more than that.  So packets wait here until the guest
 * resumes, and go before it sends others.
 */

#include "qemu/osdep.h"
#include "net/colo-host.h"
#include "net/colo-outlet.h"

static void outlet_pass(const uint8_t *frame, uint32_t size, uint32_t vnet_len, void *opaque)
{
    ColoOutlet *outlet = opaque;

    /* The card may have been unplugged. */
    if (outlet->nf->netdev->peer) {
        colo_host_pass(outlet->nf, outlet->vnet_hdr, outlet->nf->netdev->peer, frame, size, vnet_len);
    }
}

static void outlet_vm_state(void *opaque, bool running, RunState state)
{
    ColoOutlet *outlet = opaque;

    if (running) {
        colo_outbox_empty(&outlet->waiting, outlet_pass, outlet);
    }
}

void colo_outlet_open(ColoOutlet *outlet, NetFilterState *nf, bool vnet_hdr)
{
    outlet->nf = nf;
    outlet->vnet_hdr = vnet_hdr;
    outlet->waiting.vnet = true;
    outlet->vm_state = qemu_add_vm_change_state_handler(outlet_vm_state, outlet);
}

void colo_outlet_send(ColoOutlet *outlet, const uint8_t *frame, uint32_t size, uint32_t vnet_len)
{
    if (runstate_is_running()) {
        outlet_pass(frame, size, vnet_len, outlet);
    } else {
        memcpy(colo_outbox_append(&outlet->waiting, size, vnet_len), frame, size);
    }
}

void colo_outlet_close(ColoOutlet *outlet)
{
    if (outlet->nf) {
        qemu_del_vm_change_state_handler(outlet->vm_state);
        colo_outbox_empty(&outlet->waiting, outlet_pass, outlet);
        outlet->nf = NULL;
    }
}
