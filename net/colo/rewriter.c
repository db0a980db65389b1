/*
 * The rewriter: the secondary's sequence numbers and the client's
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Theory of operation
 *
 * For every connection each guest picks an initial sequence number of its own, and the client knows the
 * primary's only.  For a connection made since the last checkpoint the secondary's stream is therefore shifted
 * against what the client sees by a constant:
 *
 *     offset = secondary's ISN - primary's ISN        (modulo 2^32)
 *
 *     from the client:  acknowledgement number and SACK blocks + offset
 *     from the guest:   sequence number - offset
 *
 * The secondary's ISN is read from its SYN, or SYN-ACK.  The primary's shows in the first acknowledgement that the
 * client makes: it acknowledges the primary's SYN, which is the ISN and one more.  SYNs themselves are not mapped: until the
 * client has acknowledged one there is nothing to map to, and the comparator expects them so.
 *
 * A client's acknowledgement may come before the secondary has made its SYN-ACK.  There is nothing to map it by yet, and a guest
 * that got it unmapped would reset the connection; so it waits, and is handed out again, mapped, once the SYN-ACK has passed.
 * If the guest says something else (the SYN was an old one that came late) or nothing, it goes on as it is.
 *
 * Timestamps (RFC 7323) are shifted likewise: a guest that drew the secret which sets them apart only after COLO began has
 * another one than its copy.  The client drops what seems older than what it has seen (PAWS), so after a failover
 * it would drop everything.  The difference is that between the timestamp of the secondary's first SYN or SYN-ACK and the echo of
 * the primary's that comes with the acknowledgement:
 *
 *     from the client:  echoed timestamp + difference
 *     from the guest:   timestamp - difference
 *
 * An ICMP error to the guest quotes the primary's sequence number; the guest believes it only with its own.  That is how it hears of the
 * path's MTU, and of a connection that a firewall refuses.
 *
 * A checkpoint puts the primary's state into the secondary, ISNs included: nothing is mapped any more, and the
 * table is emptied.  A connection that is not in the table is an ordinary one.
 *
 * After a failover the client goes on with the primary's numbers, so mapped connections stay mapped until they end; a closed one is
 * kept as long as its last segments may be repeated.
 *
 * The survivor may be given a secondary of its own.  That is a copy of a guest whose connections are mapped, and has to map them
 * just so.  The survivor's rewriter therefore saves them with each checkpoint, and they are what the secondary's table
 * holds after it, instead of nothing.
 *
 * States:
 *     made, waiting for the guest's SYN or SYN-ACK (secondary_isn_set is off); acknowledgements wait
 *     waiting for the client's acknowledgement (mapped is off)
 *     mapped
 */

#include "net/colo/rewriter.h"

#include "net/colo/checksum.h"
#include "net/colo/options.h"
#include "net/colo/queue.h"

#define SECOND (1000 * 1000 * 1000LL)
#define IDLE_LIFETIME (3 * 3600 * SECOND)   /* longer than any keep-alive interval */
#define CLOSED_LIFETIME (240 * SECOND)      /* TIME-WAIT (RFC 9293, section 3.4.2) */

/* Packets that may wait, and how long (ns); more, and those that have waited longer, go on as they are. */
#define WAITING_MAX 256
#define WAITING_TIME SECOND

#define TCP_HEADER 20
#define TCP_SEQ 4
#define TCP_ACK 8
#define TCP_CHECKSUM 16
#define ICMP_CHECKSUM 2

typedef struct {
    ColoFlow flow;
    uint32_t secondary_isn;
    uint32_t offset;
    uint32_t secondary_time;    /* timestamp of the SYN with secondary_isn */
    uint32_t time_offset;
    bool secondary_isn_set;
    bool secondary_time_set;
    bool unanswered;        /* made by the client's SYN, and the guest has said nothing yet */
    bool mapped;
    bool opened_by_guest;   /* its last SYN was no answer */
    bool goes_on;           /* the guest has, after what seemed to be the end */
    bool guest_fin;
    bool peer_fin;
} RewriteFlow;

struct ColoRewriter {
    ColoFlowTable *flows;
    uint32_t needed;        /* flows that are mapped, or may come to be */
    bool failed_over;
    ColoQueue waiting;      /* to the guest, for its SYN-ACK */
    uint32_t waiting_count;
    ColoQueue ready;        /* those that need wait no longer */
    GByteArray *loaded;     /* as saved; for the next checkpoint; NULL: nothing */
};

/* A connection as it is saved: its key, the four numbers, big-endian, and a byte of flags. */
#define SAVED_SIZE (sizeof(ColoFlowKey) + 4 * 4 + 1)
#define SAVED_MAPPED 1
#define SAVED_TIME_SET 2
#define SAVED_GUEST_FIN 4
#define SAVED_PEER_FIN 8

/* Whether the flow's state has anything to map.  Before a failover, one without the guest's number may get it yet. */
static bool is_needed(const RewriteFlow *flow)
{
    return flow->secondary_isn_set && !(flow->mapped && !flow->offset && !flow->time_offset);
}

/* @p need wait no longer. */
static void make_ready(ColoRewriter *r, ColoPacket *p)
{
    colo_queue_remove(&r->waiting, p);
    r->waiting_count--;
    p->flow = NULL;
    colo_queue_push(&r->ready, p);
}

/* Nothing that is waited for will come. */
static void end_all_waits(ColoRewriter *r)
{
    while (r->waiting.head) {
        make_ready(r, r->waiting.head);
    }
}

static void flow_gone(ColoFlow *flow, void *opaque)
{
    ColoRewriter *r = opaque;

    r->needed -= is_needed((RewriteFlow *)flow);
}

ColoRewriter *colo_rewriter_new(const uint8_t secret[16])
{
    ColoRewriter *r = g_new0(ColoRewriter, 1);

    r->flows = colo_flow_table_new(sizeof(RewriteFlow), secret, IDLE_LIFETIME, CLOSED_LIFETIME, NULL, flow_gone, r);
    return r;
}

static void forget_loaded(ColoRewriter *r)
{
    if (r->loaded) {
        g_byte_array_unref(r->loaded);
        r->loaded = NULL;
    }
}

void colo_rewriter_free(ColoRewriter *r)
{
    if (r) {
        ColoPacket *p;

        end_all_waits(r);
        colo_flow_table_free(r->flows);
        while ((p = colo_rewriter_ready(r))) {
            colo_packet_free(p);
        }
        forget_loaded(r);
        g_free(r);
    }
}

/* Where the packet's timestamps are: the value, and 4 bytes on the echo.  False if it has none. */
static bool find_timestamps(const ColoPacket *p, uint32_t *at)
{
    ColoOption option = { .end = p->l4 + TCP_HEADER };

    while (colo_option_next(p->data, p->payload, &option)) {
        if (colo_option_is_timestamps(&option)) {
            *at = option.at + 2;
            return true;
        }
    }
    return false;
}

static void note_end(ColoRewriter *r, RewriteFlow *flow, const ColoPacket *p, ColoDirection direction)
{
    if (p->tcp_flags & COLO_TCP_FIN) {
        *(direction == COLO_FROM_GUEST ? &flow->guest_fin : &flow->peer_fin) = true;
    }
    if (p->tcp_flags & COLO_TCP_RST || (flow->guest_fin && flow->peer_fin)) {
        colo_flow_close(r->flows, &flow->flow);
    }
}

/*
 * The guest's SYN or SYN-ACK.  Only the guest knows whether a SYN begins a new connection with the addresses of an old
 * one: it answers with a new number then.
 */
static void guest_opens(ColoRewriter *r, const ColoFlowKey *key, RewriteFlow *flow, const ColoPacket *p, int64_t now)
{
    uint32_t at;

    if (!flow && !r->failed_over) {
        flow = (RewriteFlow *)colo_flow_get(r->flows, key, now);
    }
    if (flow) {
        flow->opened_by_guest = !(p->tcp_flags & COLO_TCP_ACK);
    }
    if (!flow || (flow->secondary_isn_set && flow->secondary_isn == p->seq)) {
        return;
    }
    r->needed -= is_needed(flow);
    flow->mapped = flow->guest_fin = flow->peer_fin = false;
    flow->secondary_isn = p->seq;
    flow->secondary_isn_set = !r->failed_over;
    flow->time_offset = 0;
    flow->secondary_time_set = find_timestamps(p, &at);
    if (flow->secondary_time_set) {
        flow->secondary_time = colo_get_be32(p->data + at);
    }
    r->needed += is_needed(flow);
    if (r->failed_over) {
        colo_flow_close(r->flows, &flow->flow);     /* there is one copy of the new one only */
    } else {
        colo_flow_reopen(r->flows, &flow->flow);
    }
}

/* True for what the client sends to a connection that the guest has not answered yet. */
static bool must_wait(const ColoRewriter *r, const RewriteFlow *flow, const ColoPacket *p)
{
    return flow->unanswered && !r->failed_over && p->tcp_flags & COLO_TCP_ACK && r->waiting_count < WAITING_MAX;
}

/*
 * True if @p acknowledges the primary's SYN, and so tells its ISN.  What answers a SYN, but neither agrees nor refuses, is of a peer
 * that has an older connection with these addresses open still (RFC 9293, section 3.5.1): the guest resets that by the number it is told.
 * After a failover nobody else will ever tell the ISN.
 */
static bool tells_isn(const ColoRewriter *r, const RewriteFlow *flow, const ColoPacket *p)
{
    return flow->secondary_isn_set && p->tcp_flags & COLO_TCP_ACK &&
           (!flow->opened_by_guest || r->failed_over || p->tcp_flags & (COLO_TCP_SYN | COLO_TCP_RST));
}

/* True if both go on with what seemed to be over: the reset was one that the guest does not believe (RFC 5961, section 3). */
static bool is_alive(const RewriteFlow *flow, const ColoPacket *p)
{
    return flow->goes_on && flow->flow.closing && flow->mapped && !(p->tcp_flags & COLO_TCP_RST) &&
           !(flow->guest_fin && flow->peer_fin);
}

static ColoRewrite to_guest(ColoRewriter *r, const ColoFlowKey *key, RewriteFlow *flow, const ColoPacket *p,
                            int64_t now)
{
    uint32_t at;

    if ((p->tcp_flags & (COLO_TCP_SYN | COLO_TCP_ACK | COLO_TCP_RST)) == COLO_TCP_SYN) {
        if (!flow && !r->failed_over) {
            flow = (RewriteFlow *)colo_flow_get(r->flows, key, now);
            flow->unanswered = true;
        } else if (flow && flow->flow.closing && !r->failed_over) {
            flow->unanswered = true;    /* the same addresses again */
        }
        return (ColoRewrite) { .kind = COLO_REWRITE_NOTHING };
    }
    if (!flow) {
        return (ColoRewrite) { .kind = COLO_REWRITE_NOTHING };
    }
    if (must_wait(r, flow, p)) {
        ColoPacket *held = colo_packet_hold(p);

        held->flow = &flow->flow;
        held->arrival = now;
        colo_queue_push(&r->waiting, held);
        r->waiting_count++;
        return (ColoRewrite) { .kind = COLO_REWRITE_WAIT };
    }
    if (!flow->mapped && tells_isn(r, flow, p)) {
        uint32_t primary_isn = p->ack - 1;

        r->needed -= is_needed(flow);
        flow->offset = flow->secondary_isn - primary_isn;
        flow->mapped = true;
        if (flow->secondary_time_set && find_timestamps(p, &at)) {
            flow->time_offset = flow->secondary_time - colo_get_be32(p->data + at + 4);
        }
        r->needed += is_needed(flow);
    }
    if (is_alive(flow, p)) {
        colo_flow_reopen(r->flows, &flow->flow);
    }
    note_end(r, flow, p, COLO_TO_GUEST);
    if (!flow->mapped || (!flow->offset && !flow->time_offset) || !(p->tcp_flags & COLO_TCP_ACK)) {
        return (ColoRewrite) { .kind = COLO_REWRITE_NOTHING };
    }
    return (ColoRewrite) { COLO_REWRITE_ACK, flow->offset, flow->time_offset };
}

/* The guest has answered, or never will: what has waited for that goes on. */
static void end_wait(ColoRewriter *r, RewriteFlow *flow, int64_t now)
{
    ColoPacket *next;

    flow->unanswered = false;
    for (ColoPacket *p = r->waiting.head; p; p = next) {
        next = p->next;
        if (p->flow == &flow->flow) {
            make_ready(r, p);
            colo_rewrite(p, to_guest(r, &flow->flow.key, flow, p, now));
        }
    }
}

/* A guest that goes on has been answered; if no answer has shown the primary's ISN, it came when that was the guest's own. */
static void note_established(ColoRewriter *r, RewriteFlow *flow, const ColoPacket *p)
{
    if (!flow->mapped && flow->opened_by_guest && flow->secondary_isn_set && !r->failed_over &&
        (p->tcp_flags & (COLO_TCP_SYN | COLO_TCP_RST | COLO_TCP_ACK)) == COLO_TCP_ACK) {
        r->needed -= is_needed(flow);
        flow->mapped = true;
        flow->offset = flow->time_offset = 0;
    }
}

static ColoRewrite from_guest(ColoRewriter *r, const ColoFlowKey *key, RewriteFlow *flow, const ColoPacket *p,
                              int64_t now)
{
    if (p->tcp_flags & COLO_TCP_SYN) {
        guest_opens(r, key, flow, p, now);
    }
    if (flow && flow->unanswered) {
        end_wait(r, flow, now);
    }
    if (p->tcp_flags & COLO_TCP_SYN) {
        /* Before a failover the comparator expects the guest's own number, afterwards the client the primary's. */
        if (!r->failed_over) {
            return (ColoRewrite) { .kind = COLO_REWRITE_NOTHING };
        }
    }
    if (!flow) {
        return (ColoRewrite) { .kind = COLO_REWRITE_NOTHING };
    }
    note_established(r, flow, p);
    flow->goes_on = flow->flow.closing && !(p->tcp_flags & COLO_TCP_RST);
    note_end(r, flow, p, COLO_FROM_GUEST);
    if (!flow->mapped || (!flow->offset && !flow->time_offset)) {
        return (ColoRewrite) { .kind = COLO_REWRITE_NOTHING };
    }
    return (ColoRewrite) { COLO_REWRITE_SEQ, 0 - flow->offset, 0 - flow->time_offset };
}

/* An ICMP error to the guest, which believes it only if it quotes what the guest has sent. */
static ColoRewrite error_to_guest(ColoRewriter *r, const ColoPacket *p, int64_t now)
{
    ColoFlowKey key, vlan;
    RewriteFlow *flow;
    ColoPacket quoted;

    if (!colo_packet_quoted(p, &quoted)) {
        return (ColoRewrite) { .kind = COLO_REWRITE_NOTHING };
    }
    colo_flow_key(&vlan, p, COLO_TO_GUEST);
    colo_flow_key(&key, &quoted, COLO_FROM_GUEST);
    key.tag = COLO_KEY_STREAM | (vlan.tag & COLO_KEY_VLAN);
    flow = (RewriteFlow *)colo_flow_find(r->flows, &key, now);
    if (flow && flow->mapped && flow->offset) {
        return (ColoRewrite) { .kind = COLO_REWRITE_QUOTED, .add = flow->offset };
    }
    if (flow && !flow->mapped && flow->secondary_isn_set && flow->opened_by_guest) {
        return (ColoRewrite) { .kind = COLO_REWRITE_QUOTED, .add = flow->secondary_isn - quoted.seq };     /* its SYN */
    }
    return (ColoRewrite) { .kind = COLO_REWRITE_NOTHING };
}

ColoRewrite colo_rewriter_look(ColoRewriter *r, ColoDirection direction, const ColoPacket *p, int64_t now)
{
    ColoFlowKey key;
    RewriteFlow *flow;

    if (colo_rewriter_is_done(r)) {
        return (ColoRewrite) { .kind = COLO_REWRITE_NOTHING };
    }
    if (p->class != COLO_CLASS_TCP) {
        return direction == COLO_TO_GUEST ? error_to_guest(r, p, now) : (ColoRewrite) { .kind = COLO_REWRITE_NOTHING };
    }
    while (r->waiting.head && now - r->waiting.head->arrival > WAITING_TIME) {
        end_wait(r, (RewriteFlow *)r->waiting.head->flow, now);
    }
    colo_flow_table_age(r->flows, now);     /* after that: nothing waits for a flow that goes */
    colo_flow_key(&key, p, direction);
    flow = (RewriteFlow *)colo_flow_find(r->flows, &key, now);
    return direction == COLO_FROM_GUEST ? from_guest(r, &key, flow, p, now) : to_guest(r, &key, flow, p, now);
}

static void add_at(ColoPacket *p, uint32_t at, uint32_t add)
{
    uint32_t from = colo_get_be32(p->data + at);

    colo_put_be32(p->data + at, from + add);
    if (colo_packet_needs_csum(p)) {
        return;     /* the field holds the sum of the pseudo-header, which has not changed */
    }
    if ((at - p->l4) % 2 == 0) {
        colo_checksum_replace32(p->data + p->l4 + TCP_CHECKSUM, from, from + add);
    } else {
        /* At an odd offset each byte counts in the other half of its word (RFC 1071, section 2, B). */
        colo_checksum_replace32(p->data + p->l4 + TCP_CHECKSUM, GUINT32_SWAP_LE_BE(from),
                                GUINT32_SWAP_LE_BE(from + add));
    }
}

static void add_to_sack_blocks(ColoPacket *p, uint32_t add)
{
    ColoOption option = { .end = p->l4 + TCP_HEADER };

    while (colo_option_next(p->data, p->payload, &option)) {
        if (option.kind == COLO_TCP_SACK) {
            for (uint32_t edge = option.at + 2; edge + 4 <= option.end; edge += 4) {
                add_at(p, edge, add);
            }
        }
    }
}

/* @which: 0 for the timestamp's value, 4 for its echo. */
static void add_to_timestamp(ColoPacket *p, uint32_t which, uint32_t add)
{
    uint32_t at;

    if (add && find_timestamps(p, &at)) {
        add_at(p, at + which, add);
    }
}

/* The quoted checksum is left: what is quoted may be cut short, so nobody can verify it. */
static void add_to_quoted(ColoPacket *p, uint32_t add)
{
    ColoPacket quoted;

    if (colo_packet_quoted(p, &quoted)) {
        uint8_t *seq = p->data + quoted.l4 + TCP_SEQ;

        colo_put_be32(seq, quoted.seq + add);
        colo_checksum_replace32(p->data + p->l4 + ICMP_CHECKSUM, quoted.seq, quoted.seq + add);
    }
}

void colo_rewrite(ColoPacket *p, ColoRewrite rewrite)
{
    switch (rewrite.kind) {
    case COLO_REWRITE_NOTHING:
    case COLO_REWRITE_WAIT:
        break;
    case COLO_REWRITE_SEQ:
        add_at(p, p->l4 + TCP_SEQ, rewrite.add);
        add_to_timestamp(p, 0, rewrite.add_time);
        break;
    case COLO_REWRITE_ACK:
        add_at(p, p->l4 + TCP_ACK, rewrite.add);
        add_to_sack_blocks(p, rewrite.add);
        add_to_timestamp(p, 4, rewrite.add_time);
        break;
    case COLO_REWRITE_QUOTED:
        add_to_quoted(p, rewrite.add);
        break;
    }
}

ColoPacket *colo_rewriter_ready(ColoRewriter *r)
{
    ColoPacket *p = r->ready.head;

    if (p) {
        colo_queue_remove(&r->ready, p);
    }
    return p;
}

bool colo_rewriter_has_ready(const ColoRewriter *r)
{
    return r->ready.head;
}

/* Saving and loading */

bool colo_rewriter_must_be_saved(const ColoRewriter *r)
{
    return r->failed_over && r->needed;
}

static void save_flow(ColoFlow *visited, void *opaque)
{
    const RewriteFlow *flow = (const RewriteFlow *)visited;
    GByteArray *out = opaque;
    ColoFlowKey key = flow->flow.key;
    uint8_t numbers[4 * 4];
    uint8_t flags = (flow->mapped ? SAVED_MAPPED : 0) | (flow->secondary_time_set ? SAVED_TIME_SET : 0) |
                    (flow->guest_fin ? SAVED_GUEST_FIN : 0) | (flow->peer_fin ? SAVED_PEER_FIN : 0);

    if (!is_needed(flow)) {
        return;
    }
    key.guest_port = GUINT16_TO_BE(key.guest_port);
    key.peer_port = GUINT16_TO_BE(key.peer_port);
    key.tag = GUINT16_TO_BE(key.tag);
    colo_put_be32(numbers, flow->secondary_isn);
    colo_put_be32(numbers + 4, flow->offset);
    colo_put_be32(numbers + 8, flow->secondary_time);
    colo_put_be32(numbers + 12, flow->time_offset);
    g_byte_array_append(out, (const uint8_t *)&key, sizeof(key));
    g_byte_array_append(out, numbers, sizeof(numbers));
    g_byte_array_append(out, &flags, 1);
}

GByteArray *colo_rewriter_save(const ColoRewriter *r)
{
    GByteArray *out = g_byte_array_new();

    colo_flow_table_visit(r->flows, save_flow, out);
    return out;
}

static void load_flow(ColoRewriter *r, const uint8_t *saved, int64_t now)
{
    const uint8_t *numbers = saved + sizeof(ColoFlowKey);
    uint8_t flags = numbers[4 * 4];
    ColoFlowKey key;
    RewriteFlow *flow;

    memcpy(&key, saved, sizeof(key));
    key.guest_port = GUINT16_FROM_BE(key.guest_port);
    key.peer_port = GUINT16_FROM_BE(key.peer_port);
    key.tag = GUINT16_FROM_BE(key.tag);
    flow = (RewriteFlow *)colo_flow_get(r->flows, &key, now);
    r->needed -= is_needed(flow);       /* named twice: the later counts */
    flow->secondary_isn = colo_get_be32(numbers);
    flow->secondary_isn_set = true;
    flow->offset = colo_get_be32(numbers + 4);
    flow->secondary_time = colo_get_be32(numbers + 8);
    flow->time_offset = colo_get_be32(numbers + 12);
    flow->mapped = flags & SAVED_MAPPED;
    flow->secondary_time_set = flags & SAVED_TIME_SET;
    flow->guest_fin = flags & SAVED_GUEST_FIN;
    flow->peer_fin = flags & SAVED_PEER_FIN;
    r->needed += is_needed(flow);
    if (flow->guest_fin && flow->peer_fin) {
        colo_flow_close(r->flows, &flow->flow);
    }
}

bool colo_rewriter_load(ColoRewriter *r, const uint8_t *bytes, size_t size)
{
    if (size % SAVED_SIZE) {
        return false;
    }
    forget_loaded(r);
    r->loaded = g_byte_array_append(g_byte_array_new(), bytes, (guint)size);
    return true;
}

void colo_rewriter_checkpoint(ColoRewriter *r, int64_t now)
{
    if (r->failed_over) {
        return;
    }
    end_all_waits(r);
    colo_flow_table_clear(r->flows);
    for (guint at = 0; r->loaded && at < r->loaded->len; at += SAVED_SIZE) {
        load_flow(r, r->loaded->data + at, now);
    }
    forget_loaded(r);
}

void colo_rewriter_failover(ColoRewriter *r)
{
    r->failed_over = true;
    end_all_waits(r);
}

bool colo_rewriter_is_done(const ColoRewriter *r)
{
    return r->failed_over && !r->needed;
}

uint32_t colo_rewriter_flows(const ColoRewriter *r)
{
    return colo_flow_count(r->flows);
}
