/*
 * What the objects tell of themselves
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef NET_COLO_REPORT_H
#define NET_COLO_REPORT_H

#include "net/colo/comparator.h"
#include "qapi/qapi-types-colo-proxy.h"
#include "qom/object.h"

#define TYPE_COLO_REPORTER "colo-reporter"
typedef struct ColoReporterClass ColoReporterClass;
DECLARE_CLASS_CHECKERS(ColoReporterClass, COLO_REPORTER, TYPE_COLO_REPORTER)

/* The interface of objects that query-colo-proxy asks. */
struct ColoReporterClass {
    InterfaceClass parent_class;
    /* What the object has counted, without its id.  Owned by the caller. */
    ColoProxyInfo *(*report)(Object *obj);
};

/* The counter as QMP has it.  Owned by the caller. */
ColoProxyCount *colo_report_count(const ColoCount *count);

/* What the comparator has counted; whatever else @info has stays as it is.  Any thread: each number is as it was a moment ago. */
void colo_report_comparator(ColoProxyCompareInfo *info, const ColoComparator *comparator);

/* Traces the comparator's last divergence, and tells of it as an event of @owner's.  Any thread. */
void colo_report_divergence(Object *owner, const ColoComparator *comparator);

#endif /* NET_COLO_REPORT_H */
