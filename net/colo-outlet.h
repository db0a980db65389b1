/*
 * The outlet: where what a filter has released goes on to the network
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef NET_COLO_OUTLET_H
#define NET_COLO_OUTLET_H

#include "net/colo-series.h"
#include "net/colo/outbox.h"
#include "net/filter.h"

/* All zero is a closed one.  All calls with the big lock held. */
typedef struct ColoOutlet {
    NetFilterState *nf;
    bool vnet_hdr;              /* the filter's vnet_hdr_support */
    ColoOutbox waiting;
    VMChangeStateEntry *vm_state;
} ColoOutlet;

void colo_outlet_open(ColoOutlet *outlet, NetFilterState *nf, bool vnet_hdr);

/* Passes a packet on behind the filter, as sent by its guest; when the guest runs again, if it stands still. */
void colo_outlet_send(ColoOutlet *outlet, const uint8_t *frame, uint32_t size, uint32_t vnet_len);

/* What waits goes to the host's queue, which may lose some.  Safe on a closed one. */
void colo_outlet_close(ColoOutlet *outlet);

#endif /* NET_COLO_OUTLET_H */
