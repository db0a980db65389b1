/*
 * The account: what each flow sent, what of it left and when
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Theory of operation
 *
 * Everything here is taken from what goes into the comparator and from what its callbacks give out.  Each packet of the
 * primary is noted when it goes in and struck out when it comes out; one that was cut comes out front half first,
 * and is struck out with its last.  What comes out and was never noted is a fault of the core, and counted.
 */

#include "account.h"

#include <string.h>

#include "net/colo/seq.h"

/* A packet of the primary that has not left. */
typedef struct {
    int64_t time;
    uint32_t seq;           /* TCP: of what has not left of it */
    uint32_t seq_end;
    uint32_t ack;
    uint32_t hash;          /* anything else: of its frame */
    uint32_t connection;
} Pending;

/* Flows live as long as the account. */
#define FOR_EVER (G_MAXINT64 / 2)

static void flow_gone(ColoFlow *opaque_flow, void *opaque)
{
    Flow *flow = (Flow *)opaque_flow;

    (void)opaque;
    g_queue_clear_full(&flow->pending, g_free);
    durations_clear(&flow->held);
    reader_clear(&flow->reader);
    difference_free(flow->difference);
    for (int side = 0; side < COLO_SIDES; side++) {
        g_array_free(flow->handshakes[side], TRUE);
    }
}

Account *account_new(const uint8_t secret[16])
{
    Account *account = g_new0(Account, 1);

    account->table = colo_flow_table_new(sizeof(Flow), secret, FOR_EVER, FOR_EVER, NULL, flow_gone, NULL);
    account->fragments = fragments_new(secret);
    account->flows = g_ptr_array_new();
    return account;
}

void account_free(Account *account)
{
    if (account) {
        g_ptr_array_free(account->flows, TRUE);
        fragments_free(account->fragments);
        colo_flow_table_free(account->table);
        g_free(account);
    }
}

/* @key: as the core has it. */
static Flow *flow_with(Account *account, ColoFlowKey key)
{
    Flow *flow;

    fragments_flow_key(account->fragments, &key);
    flow = (Flow *)colo_flow_find(account->table, &key, 0);
    if (!flow) {
        flow = (Flow *)colo_flow_get(account->table, &key, 0);
        g_queue_init(&flow->pending);
        reader_init(&flow->reader);
        for (int side = 0; side < COLO_SIDES; side++) {
            flow->handshakes[side] = g_array_new(FALSE, TRUE, sizeof(Handshake));
        }
        g_ptr_array_add(account->flows, flow);
    }
    return flow;
}

Flow *account_flow_of(Account *account, const ColoPacket *p, ColoDirection direction)
{
    ColoFlowKey key;

    fragments_note(account->fragments, p, direction);
    colo_flow_key(&key, p, direction);
    return flow_with(account, key);
}

static uint32_t frame_hash(const ColoPacket *p)
{
    uint32_t hash = 2166136261u;        /* FNV-1a; only to tell a flow's own packets apart */

    for (uint32_t i = p->vnet_len; i < p->end; i++) {
        hash = (hash ^ p->data[i]) * 16777619u;
    }
    return hash;
}

/* @p has been sent, or has left: the stream has come so far.  Returns how many of its bytes are new. */
static uint64_t extend(Extent *extent, const ColoPacket *p)
{
    uint32_t end = p->seq_end - !!(p->tcp_flags & COLO_TCP_FIN);    /* behind the last byte */
    uint32_t fresh = p->payload_len;

    if (p->tcp_flags & COLO_TCP_RST) {
        return 0;
    }
    if (p->tcp_flags & COLO_TCP_SYN) {
        extent->end_set = false;
    }
    if (extent->end_set) {
        fresh = colo_seq_after(end, extent->end) ? MIN(end - extent->end, p->payload_len) : 0;
        end = colo_seq_max(end, extent->end);
    }
    extent->end = end;
    extent->end_set = true;
    return fresh;
}

void account_sent(Account *account, ColoSide side, const ColoPacket *p, int64_t time)
{
    Flow *flow;
    Pending *pending;

    if (p->class == COLO_CLASS_LOCAL) {
        account->local[side]++;
        return;
    }
    flow = account_flow_of(account, p, COLO_FROM_GUEST);
    flow->sent[side].packets++;
    flow->sent[side].bytes += p->payload_len;
    if (side != COLO_PRIMARY) {
        return;
    }
    pending = g_new0(Pending, 1);
    pending->time = time;
    if (p->class == COLO_CLASS_TCP) {
        flow->extent.bytes += extend(&flow->extent, p);
        flow->reader.output[side] = handshake_follow(flow->handshakes[side], flow->reader.output[side],
                                                     COLO_FROM_GUEST, p);
        pending->seq = p->seq;
        pending->seq_end = p->seq_end;
        pending->ack = p->ack;
    } else {
        pending->hash = frame_hash(p);
    }
    pending->connection = (uint32_t)MAX(flow->reader.output[side], 0);
    g_queue_push_tail(&flow->pending, pending);
}

/* The pending packet that @p is, or is the front of. */
static GList *find_pending(const Flow *flow, const ColoPacket *p)
{
    uint32_t hash = p->class == COLO_CLASS_TCP ? 0 : frame_hash(p);

    for (GList *link = flow->pending.head; link; link = link->next) {
        const Pending *pending = link->data;

        if (p->class == COLO_CLASS_TCP
                ? pending->seq == p->seq && pending->ack == p->ack && !colo_seq_after(p->seq_end, pending->seq_end) &&
                      (p->seq_end != p->seq || pending->seq_end == pending->seq)
                : pending->hash == hash) {
            return link;
        }
    }
    return NULL;
}

void account_left(Account *account, const ColoPacket *p, Left how, int64_t now)
{
    Flow *flow;
    GList *link;
    Pending *pending;
    uint64_t fresh;

    account->released += how != LEFT_AT_END;
    if (p->class == COLO_CLASS_LOCAL) {
        return;
    }
    flow = account_flow_of(account, p, COLO_FROM_GUEST);
    link = find_pending(flow, p);
    if (!link) {
        /* A fragment may be in another flow by now, that of a later datagram with the same identification. */
        account->unexpected += !p->fragment;
        return;
    }
    fresh = p->class == COLO_CLASS_TCP ? extend(&flow->left_extent, p) : p->payload_len;
    flow->left_extent.bytes += how == LEFT_COMPARED ? fresh : 0;

    pending = link->data;
    if (p->class == COLO_CLASS_TCP && p->seq_end != pending->seq_end) {
        pending->seq = p->seq_end;
        return;
    }
    flow->left[how]++;
    if (how != LEFT_AT_END && now > pending->time) {
        durations_add(&flow->held, now - pending->time);
    }
    g_free(pending);
    g_queue_delete_link(&flow->pending, link);
}

void account_diverged(Account *account, ColoReason reason, const ColoFlowKey *key, int64_t now)
{
    Flow *flow = flow_with(account, *key);
    const Pending *oldest = g_queue_peek_head(&flow->pending);

    if (!flow->divergences++) {
        flow->diverged = true;
        flow->reason = reason;
        flow->diverged_at = now;
        flow->diverged_connection = oldest ? oldest->connection : (uint32_t)MAX(flow->reader.output[COLO_PRIMARY], 0);
    }
}

Verdict flow_verdict(const Flow *flow)
{
    if (flow->diverged || (flow->difference && difference_report(flow->difference).kind != DIFFERENCE_NONE)) {
        return VERDICT_DIFFERS;
    }
    return flow->left[LEFT_BY_CHECKPOINT] || flow->left[LEFT_AT_END] || flow->pending.length ? VERDICT_UNSETTLED
                                                                                            : VERDICT_AGREES;
}

const char *verdict_name(Verdict verdict)
{
    static const char *const names[] = {
        [VERDICT_AGREES] = "agrees",
        [VERDICT_DIFFERS] = "differs",
        [VERDICT_UNSETTLED] = "unsettled",
    };
    G_STATIC_ASSERT(G_N_ELEMENTS(names) == VERDICTS);

    return names[verdict];
}

uint64_t flow_bytes(const Flow *flow)
{
    return flow->flow.key.tag & COLO_KEY_STREAM ? flow->extent.bytes : flow->sent[COLO_PRIMARY].bytes;
}

uint64_t flow_confirmed(const Flow *flow)
{
    return flow->left_extent.bytes;
}
