/*
 * Flows: keys and the table that finds them
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef NET_COLO_FLOW_H
#define NET_COLO_FLOW_H

#include "net/colo/packet.h"

/* Which end of the packet is the guest's. */
typedef enum {
    COLO_FROM_GUEST,
    COLO_TO_GUEST,
} ColoDirection;

/* What names a flow, the same for both directions.  No padding: compared and hashed as bytes. */
typedef struct ColoFlowKey {
    uint8_t guest[16];
    uint8_t peer[16];
    uint16_t guest_port;    /* of a fragment: half of its identification */
    uint16_t peer_port;     /* and the other */
    uint8_t ip_version;
    uint8_t proto;
    uint16_t tag;           /* VLAN, or 0; and COLO_KEY_... */
} ColoFlowKey;

#define COLO_KEY_VLAN 0x0fff
/* Keep byte streams and fragments apart from the malformed segments of the same addresses. */
#define COLO_KEY_STREAM 0x8000
#define COLO_KEY_FRAGMENT 0x4000
/* Keeps one side's fragments from the other's. */
#define COLO_KEY_SECONDARY 0x2000

G_STATIC_ASSERT(sizeof(ColoFlowKey) == 40);

/* The part of a flow that the table owns; users embed it as their first member. */
struct ColoFlow {
    ColoFlowKey key;
    int64_t last_used;      /* ns, to a sixteenth of its lifetime */
    uint32_t hash;
    uint32_t index : 31;    /* in the table's memory */
    uint32_t closing : 1;   /* ages on the shorter of the two clocks */
    uint32_t older;         /* index; in the order of last use, among those on the same clock; 0: none */
    uint32_t newer;
};

G_STATIC_ASSERT(sizeof(struct ColoFlow) == 64);

typedef struct ColoFlowTable ColoFlowTable;

/* Asked before a flow goes by age: false keeps it (it is still needed) for another lifetime. */
typedef bool ColoFlowMayGo(const ColoFlow *flow, void *opaque);

/* Called for a flow that leaves the table, by age or with the table; frees what the user put into it. */
typedef void ColoFlowGone(ColoFlow *flow, void *opaque);

/*
 * @flow_size: bytes per flow, ColoFlow included; new flows are zero behind it.
 * @secret: 16 random bytes that key the hash, so that nobody can choose colliding flows.
 * @idle, @closed: how long (ns) a flow stays after its last use, and after colo_flow_close(); up to a sixteenth less.
 * @may_go, @gone: may be NULL.
 */
ColoFlowTable *colo_flow_table_new(size_t flow_size, const uint8_t secret[16], int64_t idle, int64_t closed,
                                   ColoFlowMayGo *may_go, ColoFlowGone *gone, void *opaque);
void colo_flow_table_free(ColoFlowTable *table);

/* Shows each flow to @visit, the open ones first, in the order of last use.  The table must not be changed meanwhile. */
typedef void ColoFlowVisit(ColoFlow *flow, void *opaque);
void colo_flow_table_visit(const ColoFlowTable *table, ColoFlowVisit *visit, void *opaque);

/* Removes all flows. */
void colo_flow_table_clear(ColoFlowTable *table);

/* The key of a parsed IP packet. */
void colo_flow_key(ColoFlowKey *key, const ColoPacket *p, ColoDirection direction);

/* NULL if there is no such flow.  A flow that is found counts as used at @now (ns). */
ColoFlow *colo_flow_find(ColoFlowTable *table, const ColoFlowKey *key, int64_t now);

/* The same, but makes the flow if there is none. */
ColoFlow *colo_flow_get(ColoFlowTable *table, const ColoFlowKey *key, int64_t now);

/* The flow's end has been seen, or its beginning has not: from now on it ages as a closed one. */
void colo_flow_close(ColoFlowTable *table, ColoFlow *flow);

/* A closed flow has come to life. */
void colo_flow_reopen(ColoFlowTable *table, ColoFlow *flow);

/* Removes a flow. */
void colo_flow_remove(ColoFlowTable *table, ColoFlow *flow);

/* Removes the flows whose time is up; a few at a time, so that it can be called for each packet. */
void colo_flow_table_age(ColoFlowTable *table, int64_t now);

uint32_t colo_flow_count(const ColoFlowTable *table);

/* SipHash-1-3 of @len bytes under the table's secret: for what is compared by hash. */
uint64_t colo_flow_table_hash(const ColoFlowTable *table, const void *bytes, size_t len);

/* Writes "tcp 10.0.0.2:80 > 10.0.0.1:4711" or the like; returns @text. */
#define COLO_FLOW_TEXT 128
char *colo_flow_key_format(const ColoFlowKey *key, char text[COLO_FLOW_TEXT]);

#endif /* NET_COLO_FLOW_H */
