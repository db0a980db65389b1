/*
 * The outlet: where what a filter has released goes on to the network
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Theory of operation
 *
 * A network card that sends is told when the netdev is full, and waits.  A filter is not: the host queues what it passes on, up to
 * ten thousand packets, and throws away the rest.  A checkpoint or a failover may release more than that, and while the guest
 * stands still no netdev takes anything.  So packets wait here, and go on when the guest resumes, and in each turn of the main
 * loop after that, as far as the netdev takes them.
 */

#include "qemu/osdep.h"
#include "net/colo-host.h"
#include "net/colo-outlet.h"
#include "net/colo-turn.h"

static void outlet_pass(const uint8_t *frame, uint32_t size, uint32_t vnet_len, void *opaque)
{
    ColoOutlet *outlet = opaque;

    /* The card may have been unplugged. */
    if (outlet->nf->netdev->peer) {
        colo_host_pass(outlet->nf, outlet->vnet_hdr, outlet->nf->netdev->peer, frame, size, vnet_len);
    }
}

static bool outlet_is_ready(const ColoOutlet *outlet)
{
    NetClientState *card = outlet->nf->netdev->peer;

    return !card || qemu_can_send_packet(card);
}

static void outlet_flush(void *opaque)
{
    ColoOutlet *outlet = opaque;

    while (colo_outlet_is_busy(outlet) && outlet_is_ready(outlet)) {
        colo_outbox_take(&outlet->waiting, 1, outlet_pass, outlet);
    }
}

static void outlet_vm_state(void *opaque, bool running, RunState state)
{
    if (running) {
        outlet_flush(opaque);
    }
}

void colo_outlet_open(ColoOutlet *outlet, NetFilterState *nf, bool vnet_hdr)
{
    outlet->nf = nf;
    outlet->vnet_hdr = vnet_hdr;
    outlet->waiting.vnet = true;
    outlet->turn = colo_turn_new(NULL, outlet_flush, outlet);
    outlet->vm_state = qemu_add_vm_change_state_handler(outlet_vm_state, outlet);
}

void colo_outlet_send(ColoOutlet *outlet, const uint8_t *frame, uint32_t size, uint32_t vnet_len)
{
    if (!colo_outlet_is_busy(outlet) && outlet_is_ready(outlet)) {
        outlet_pass(frame, size, vnet_len, outlet);
    } else {
        memcpy(colo_outbox_append(&outlet->waiting, size, vnet_len), frame, size);
    }
}

bool colo_outlet_is_busy(const ColoOutlet *outlet)
{
    return !colo_outbox_is_empty(&outlet->waiting);
}

void colo_outlet_close(ColoOutlet *outlet)
{
    if (outlet->nf) {
        colo_turn_free(outlet->turn);
        qemu_del_vm_change_state_handler(outlet->vm_state);
        colo_outbox_empty(&outlet->waiting, outlet_pass, outlet);
        outlet->nf = NULL;
    }
}
