/*
 * What a rewriter knows, as part of the migrated state of its machine
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A survivor's connections may be mapped; its own secondary must go on with that (net/colo/rewriter.c).  The survivor's rewriter
 * therefore saves them with each checkpoint, as long as there are any: as a section of the machine's state,
 * colo-rewriter/NETDEV.  The other node must have a rewriter on a netdev of the same name.
 */

#ifndef NET_COLO_VMSTATE_H
#define NET_COLO_VMSTATE_H

#include "migration/vmstate.h"
#include "net/colo-series.h"
#include "net/colo/rewriter.h"

typedef struct {
    ColoRewriter *rewriter;
    char *name;
    VMStateField fields[2];
    VMStateDescription description;
    VMChangeStateEntry *vm_state;
    bool saved;                 /* since COLO began */
} ColoRewriterVMState;

/* @netdev: its name; @rewriter must live until the end. */
void colo_vmstate_begin(ColoRewriterVMState *state, const char *netdev, ColoRewriter *rewriter);
void colo_vmstate_end(ColoRewriterVMState *state);

#endif /* NET_COLO_VMSTATE_H */
