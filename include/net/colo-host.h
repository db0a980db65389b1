/*
 * The host: what the filters have in common with it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef NET_COLO_HOST_H
#define NET_COLO_HOST_H

#include "migration/colo.h"
#include "net/filter.h"
#include "net/net.h"
#include "qapi/qapi-types-yank.h"

/* Takes the big lock, unless this thread has it: colo_host_unlock() wants to know. */
bool colo_host_lock(void);
void colo_host_unlock(bool locked);

/*
 * What this QEMU's guest is in COLO.  When QEMU exits, the filters are there for longer than the migration that tells, so that
 * it is what it was last.
 */
COLOMode colo_host_mode(void);

/* True while this QEMU's guest is a secondary: what it sends must not reach a network. */
bool colo_host_is_secondary(void);

/* A random number, @instance, that tells this QEMU from any other there ever was.  False with an error if there is none to be had. */
bool colo_host_instance(uint64_t *instance, Error **errp);

/* The checkpoints that this guest, a secondary's, has resumed from since COLO began.  With the big lock held. */
uint64_t colo_host_epoch(void);

/*
 * Grows while the frame gets on with a checkpoint or the migration before it, by what it has sent of the guest's memory:
 * that it has asked the other node for something is no headway.  Any thread.
 */
uint64_t colo_host_headway(void);

/* True while the frame has the guest stopped.  Any thread. */
bool colo_host_guest_is_held(void);

/* True from the command to fail over until the frame begins anew.  Any thread. */
bool colo_host_failover_is_commanded(void);

/*
 * Grows if the main loop has made a turn since the last call.  If not, it waits for something itself, with the big lock held.
 * Any thread.
 */
uint32_t colo_host_turns(void);

/* Breaks the connections of @instance, if it has any.  Any thread. */
void colo_host_yank(YankInstance *instance);

/* Makes a class of filters refuse what is wrong with `netdev` and `position` in words that name the object. */
void colo_host_filter_class_init(ObjectClass *oc);

/* Whether @nf, which is being added to the netdev of @other, will come before it. */
bool colo_host_comes_before(NetFilterState *nf, NetFilterState *other);

/* Length of the virtio-net header of a packet that passes @nf with @flags. */
uint32_t colo_host_vnet_len(NetFilterState *nf, bool vnet_hdr_support, unsigned flags);

/* Refuses a filter whose vnet_hdr_support is not that of the others on its netdev. */
bool colo_host_check_vnet(NetFilterState *nf, bool vnet_hdr_support, Error **errp);

/*
 * Passes a packet on behind @nf, as sent by @sender.  With @vnet_hdr_support its virtio-net header, of @vnet_len
 * bytes, is brought to the length that the netdev has now; without, the packet is passed as it is.
 */
void colo_host_pass(NetFilterState *nf, bool vnet_hdr_support, NetClientState *sender, const uint8_t *frame,
                    uint32_t size, uint32_t vnet_len);

#endif /* NET_COLO_HOST_H */
