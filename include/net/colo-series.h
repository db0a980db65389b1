/*
 * The series of QEMU: every difference between them that our files meet
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The newer series' names are used everywhere; here the older ones' stand in for them.  No other file asks for a version.
 * Include it after qemu/osdep.h.
 */

#ifndef NET_COLO_SERIES_H
#define NET_COLO_SERIES_H

#define COLO_SERIES_IS_AT_LEAST(major, minor) \
    (QEMU_VERSION_MAJOR > (major) || (QEMU_VERSION_MAJOR == (major) && QEMU_VERSION_MINOR >= (minor)))

#if COLO_SERIES_IS_AT_LEAST(10, 2)
typedef const void ColoClassData;
#else
typedef void ColoClassData;
#define CharFrontend    CharBackend
#endif

#if COLO_SERIES_IS_AT_LEAST(10, 0)

#include "migration/migration.h"
#include "migration/migration-stats.h"
#include "migration/options.h"
#include "qobject/qdict.h"
#include "qobject/qjson.h"
#include "qobject/qlist.h"
#include "qobject/qnum.h"
#include "qobject/qstring.h"
#include "system/iothread.h"
#include "system/runstate.h"

/* A pointer that may be missing in a QAPI struct or an event: before, it had a flag of its own. */
#define COLO_SET_PRESENT(info, member)  ((void)0)
#define COLO_OPTIONAL(pointer)          (pointer)

/* Of a socket chardev, in JSON. */
#define COLO_RECONNECT_EACH_SECOND      "'reconnect-ms': 1000"

/* Bytes of the guest's memory that have been sent to another node. */
#define colo_ram_sent()                 (stat64_get(&mig_stats.precopy_bytes) + stat64_get(&mig_stats.downtime_bytes))

#else

#include "migration/migration.h"
#include "migration/ram.h"
#include "qapi/qmp/qdict.h"
#include "qapi/qmp/qjson.h"
#include "qapi/qmp/qlist.h"
#include "qapi/qmp/qnum.h"
#include "qapi/qmp/qstring.h"
#include "sysemu/iothread.h"
#include "sysemu/runstate.h"

#define bql_lock()                      qemu_mutex_lock_iothread()
#define bql_locked()                    qemu_mutex_iothread_locked()
#define bql_unlock()                    qemu_mutex_unlock_iothread()

#define COLO_SET_PRESENT(info, member)  ((info)->has_##member = true)
#define COLO_OPTIONAL(pointer)          ((pointer) != NULL), (pointer)

#define COLO_RECONNECT_EACH_SECOND      "'reconnect': 1"

/* The big lock is the graph's. */
#define GRAPH_RDLOCK
#define GRAPH_RDLOCK_GUARD_MAINLOOP()   ((void)0)

#define migrate_checkpoint_delay()      (migrate_get_current()->parameters.x_checkpoint_delay)

#define colo_ram_sent()                 qatomic_read(&ram_counters.transferred)

#endif

#endif /* NET_COLO_SERIES_H */
