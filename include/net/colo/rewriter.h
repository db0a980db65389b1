/*
 * The rewriter: the secondary's sequence numbers and the client's
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef NET_COLO_REWRITER_H
#define NET_COLO_REWRITER_H

#include "net/colo/flow.h"

typedef struct ColoRewriter ColoRewriter;

/* What is to be done to a packet. */
typedef enum {
    COLO_REWRITE_NOTHING,
    COLO_REWRITE_SEQ,       /* add to the sequence number, and to the timestamp */
    COLO_REWRITE_ACK,       /* add to the acknowledgement number and the SACK blocks, and to the timestamp echoed */
    COLO_REWRITE_QUOTED,    /* add to the sequence number that an ICMP error quotes */
    COLO_REWRITE_WAIT,      /* it has been kept: it goes nowhere until colo_rewriter_ready() returns it */
} ColoRewriteKind;

typedef struct {
    ColoRewriteKind kind;
    uint32_t add;           /* modulo 2^32 */
    uint32_t add_time;      /* in the guest's timestamp units, modulo 2^32 */
} ColoRewrite;

/* @secret: 16 random bytes for the flow table. */
ColoRewriter *colo_rewriter_new(const uint8_t secret[16]);
void colo_rewriter_free(ColoRewriter *r);

/* Looks at a packet, in the order in which they pass, and decides.  @now: ns of a monotonic clock. */
ColoRewrite colo_rewriter_look(ColoRewriter *r, ColoDirection direction, const ColoPacket *p, int64_t now);

/*
 * A packet to the guest that has waited and need wait no longer, rewritten already; NULL if there is none (left).
 * To be asked after each look at a packet from the guest, after a checkpoint and after a failover, until it returns NULL.
 *
 * Returns: a packet that is the caller's, to be ended with colo_packet_free().
 */
ColoPacket *colo_rewriter_ready(ColoRewriter *r);

/* Whether there is one. */
bool colo_rewriter_has_ready(const ColoRewriter *r);

/* Does it, to a packet whose bytes may be written; keeps the checksum right. */
void colo_rewrite(ColoPacket *p, ColoRewrite rewrite);

/*
 * The secondary is the primary's copy now: every connection is an ordinary one, but for those that colo_rewriter_load() has
 * brought.  @now: as above.
 */
void colo_rewriter_checkpoint(ColoRewriter *r, int64_t now);

/* The secondary serves alone now: connections that are mapped stay so, new ones are left alone. */
void colo_rewriter_failover(ColoRewriter *r);

/* True once nothing is mapped any more and nothing will be: packets need not come here again. */
bool colo_rewriter_is_done(const ColoRewriter *r);

/* True as long as something is mapped after a failover, which a new secondary must therefore know of. */
bool colo_rewriter_must_be_saved(const ColoRewriter *r);

/* Returns: the connections that are mapped, as bytes for colo_rewriter_load(); the caller's. */
GByteArray *colo_rewriter_save(const ColoRewriter *r);

/*
 * Brings the connections that another rewriter has saved; they are there from the next checkpoint on, in place of what was
 * brought before.
 *
 * Returns: false, and nothing has been brought, if the bytes are not what colo_rewriter_save() makes.
 */
bool colo_rewriter_load(ColoRewriter *r, const uint8_t *bytes, size_t size);

uint32_t colo_rewriter_flows(const ColoRewriter *r);

#endif /* NET_COLO_REWRITER_H */
