/*
 * The secondary's disks, as the primary has them
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef NET_COLO_DISK_H
#define NET_COLO_DISK_H

#include "net/colo/watch.h"

/*
 * How they were a moment ago, about when this was called last; they are not looked at while the main loop stands in a system call.
 * Any thread.
 */
ColoWatchDisks colo_disk_look(void);

/* Breaks the connections to them: the guest's writes would wait for a word from there without an end.  Any thread. */
void colo_disk_break(void);

#endif /* NET_COLO_DISK_H */
