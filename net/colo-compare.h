/*
 * What the COLO frame and the network layer call
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef QEMU_COLO_COMPARE_H
#define QEMU_COLO_COMPARE_H

#include "qemu/notify.h"

/*
 * Tells every colo-compare of an event of the frame's (enum colo_event): a checkpoint that the secondary has loaded,
 * or the end of COLO.  Returns once all have dealt with it.  Any thread but theirs.
 */
void colo_notify_compares_event(void *opaque, int event, Error **errp);

/* Tells that this guest, a secondary's, is about to resume from a checkpoint.  With the big lock held. */
void colo_checkpoint_loaded(void);

/* Tells that the frame ends with QEMU: it can be asked nothing any more, and both guests stay what they were.  With the big lock held. */
void colo_shutting_down(void);

/* The frame that is asked for checkpoints; from its coming to its going, output is compared.  Any thread. */
void colo_compare_register_notifier(Notifier *notify);
void colo_compare_unregister_notifier(Notifier *notify);

/* Removes every colo-compare, when QEMU exits. */
void colo_compare_cleanup(void);

#endif /* QEMU_COLO_COMPARE_H */
