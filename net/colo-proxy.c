/*
 * colo-proxy: the whole proxy as one object on each side
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Theory of operation
 *
 * A filter in the netdev's chain, and one connection to the other node (net/colo-peer.c).  The decisions are the core's.
 *
 * The primary.  What the netdev receives is the guest's input: it goes on, and a copy of it to the secondary.  What the guest
 * sends is shown to the comparator there and then, and goes on if it may; if not, the comparator has it, and releases it when
 * the secondary's output has come or a checkpoint has been made.  A secondary that does not keep up with the input misses some,
 * as from a lossy network.
 *
 * The secondary.  Its guest gets what the primary has got, and what it sends goes to the primary, both by way of the rewriter.
 * Its own netdev is not listened to, and sends nothing.  What comes while the guest stands still (a checkpoint is being loaded)
 * waits, as does what the guest sends while the primary does not take it; at a failover the latter goes to the client, who has
 * not had it.
 *
 * Everything is done in the main loop or by whoever holds the big lock, and never waits.  What one turn has brought is settled
 * at its end: the comparator cuts, the timer is set, the connection is written to.
 */

#include "qemu/osdep.h"
#include "crypto/random.h"
#include "net/colo-frame.h"
#include "net/colo-host.h"
#include "net/colo-outlet.h"
#include "net/colo-peer.h"
#include "net/colo-report.h"
#include "net/colo-series.h"
#include "net/colo-turn.h"
#include "net/colo-vmstate.h"
#include "net/colo/comparator.h"
#include "net/colo/outbox.h"
#include "net/colo/rewriter.h"
#include "net/filter.h"
#include "qapi/error.h"
#include "qapi/qapi-events-colo-proxy.h"
#include "qapi/qapi-types-qom.h"
#include "qapi/visitor.h"
#include "qemu/error-report.h"
#include "qemu/iov.h"
#include "qemu/main-loop.h"
#include "qemu/sockets.h"
#include "qom/object.h"
#include "trace.h"

#define TYPE_COLO_PROXY "colo-proxy"
OBJECT_DECLARE_SIMPLE_TYPE(ColoProxy, COLO_PROXY)

/* Bytes of packets that may be under way or wait, each way. */
#define CREDIT (16 * 1024 * 1024)
#define WAITING_MAX (64 * 1024 * 1024)

/*
 * Packets that are injected into the guest in one turn of the main loop.  Between two turns it gets to empty the ring of its
 * network card, which may hold no more than a few hundred.
 */
#define INJECT_MAX 64

/* Defaults of the properties. */
#define RECONNECT_S 1
#define HEARTBEAT_MS 500
#define HEARTBEAT_TIMEOUT_MS 3000
#define COMPARE_TIMEOUT_MS 3000
#define MAX_QUEUE_SIZE 1024
/* How long the frame may make no headway with a checkpoint that is due, if not for heartbeat_timeout. */
#define FRAME_TIMEOUT_MS 3000

/*
 * Memory for output that waits for a frame which waits for the secondary, bytes.  The comparator asks for a checkpoint long
 * before; a guest that goes on sending nevertheless would fill the host's memory, so COLO ends then.
 */
#define OVERFULL (1024 * 1024 * 1024ULL)

struct ColoProxy {
    NetFilterState parent_obj;

    ColoProxyMode mode;
    ColoProxyPolicy policy;
    char *addr;
    char *tls_creds;
    uint32_t reconnect;                 /* s */
    uint32_t heartbeat;                 /* ms */
    uint32_t heartbeat_timeout;         /* ms */
    uint32_t compare_timeout;           /* ms */
    uint32_t max_queue_size;            /* packets */

    char *name;                         /* "colo-proxy 'f0'" */
    SocketAddress *address;
    ColoPeer peer;
    int64_t now;                        /* ns; when this turn began; 0: nobody has asked yet */
    uint8_t *flat;                      /* a packet that comes in pieces is put together here */
    ColoCount input;                    /* to the guest */
    ColoCount output;                   /* from it */
    ColoCount sent;                     /* to the other node */
    ColoCount received;                 /* from there */
    ColoCount discarded;
    ColoOutlet to_client;
    VMChangeStateEntry *vm_state;
    uint64_t epoch;                     /* checkpoints since COLO began; a secondary's: that its guest runs from */
    bool complained;                    /* that the other node does not keep up */
    bool lost;
    ColoPeerLostReason lost_reason;

    /* The primary's. */
    ColoComparator *comparator;
    ColoFrameUser frame_user;
    bool was_there;                     /* the frame, when it was heard of last */
    bool overfull;                      /* it has been given up for what it holds */
    ColoFrameWatch watch;
    uint64_t frame_timeout;             /* ms */
    ColoDeadline deadline;
    uint64_t partner;                   /* the secondary's instance, of the last that connected */
    bool partner_set;
    uint64_t peer_epoch;                /* which the secondary has said last */
    bool peer_epoch_set;
    uint64_t untaken;                   /* bytes of the secondary's for which no credit has been given back */

    /* The secondary's. */
    ColoRewriter *rewriter;
    ColoRewriterVMState vmstate;
    ColoOutbox waiting_in;              /* for the guest to run, or to have taken others */
    ColoOutbox waiting_out;             /* for the primary to take it */
    uint32_t injected;                  /* packets, in this turn */
    QEMUBH *inject_bh;
    bool failed_over;                   /* it serves alone */
};

/* The time, the same for all that one turn brings; after a failover there are no turns any more. */
static int64_t proxy_now(ColoProxy *s)
{
    if (!s->now || s->failed_over) {
        s->now = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
    }
    return s->now;
}

/* The packet in one piece, which is good until the next one. */
static const uint8_t *proxy_flatten(ColoProxy *s, const struct iovec *iov, int iovcnt, size_t size)
{
    if (iovcnt == 1) {
        return iov[0].iov_base;
    }
    iov_to_buf(iov, iovcnt, 0, s->flat, size);
    return s->flat;
}

static void proxy_pass_to_client(const uint8_t *frame, uint32_t size, uint32_t vnet_len, void *opaque)
{
    ColoProxy *s = opaque;

    colo_outlet_send(&s->to_client, frame, size, vnet_len);
}

/* Sends a packet to the other node, or counts it as discarded. */
static void proxy_send(ColoProxy *s, const struct iovec *iov, int iovcnt, size_t size, uint32_t vnet_len)
{
    if (colo_peer_has_room(&s->peer)) {
        colo_peer_send(&s->peer, iov, iovcnt, vnet_len);
        colo_count(&s->sent, size);
        return;
    }
    colo_count(&s->discarded, size);
    if (colo_peer_is_ready(&s->peer) && !s->complained) {
        s->complained = true;
        warn_report("%s: the other node does not keep up, so packets do not reach it until it does", s->name);
    }
}

/* The primary */

static void primary_lost(ColoProxy *s, ColoPeerLostReason reason)
{
    if (!s->lost) {
        s->lost = true;
        s->lost_reason = reason;
        qapi_event_send_colo_proxy_peer_lost(object_get_canonical_path_component(OBJECT(s)), reason);
    }
}

static void primary_turn_ends(ColoProxy *s)
{
    colo_comparator_flush(s->comparator);
    if (colo_comparator_memory(s->comparator, COLO_PRIMARY) > OVERFULL && !s->overfull) {
        s->overfull = true;
        primary_lost(s, COLO_PEER_LOST_REASON_OVERFULL);
        colo_frame_end_wait();
    }
    if (s->untaken && colo_comparator_may_read(s->comparator, COLO_SECONDARY)) {
        colo_peer_took(&s->peer, s->untaken);
        s->untaken = 0;
    }
    colo_deadline_set(&s->deadline, colo_comparator_deadline(s->comparator));
}

static void primary_timer(void *opaque)
{
    ColoProxy *s = opaque;

    colo_comparator_tick(s->comparator, proxy_now(s));
}

static void primary_diverged(ColoReason reason, const ColoFlowKey *flow, void *opaque)
{
    ColoProxy *s = opaque;

    colo_report_divergence(OBJECT(s), s->comparator);
    colo_frame_ask();
}

static const ColoComparatorOps primary_comparator_ops = {
    .release = proxy_pass_to_client,
    .diverged = primary_diverged,
};

static ssize_t primary_receive(ColoProxy *s, bool from_guest, const struct iovec *iov, int iovcnt, size_t size,
                               uint32_t vnet_len)
{
    if (!from_guest) {
        colo_count(&s->input, size);
        proxy_send(s, iov, iovcnt, size, vnet_len);
        return 0;
    }
    colo_count(&s->output, size);
    if (!colo_comparator_is_comparing(s->comparator)) {
        return 0;
    }
    colo_comparator_packet(s->comparator, COLO_PRIMARY, proxy_flatten(s, iov, iovcnt, size), size, vnet_len,
                           proxy_now(s));
    colo_turn_wanted(NULL);
    return size;
}

static void primary_silent(void *opaque)
{
    primary_lost(opaque, COLO_PEER_LOST_REASON_SILENT);
}

static bool primary_holds(ColoProxy *s)
{
    return s->policy == COLO_PROXY_POLICY_HOLD;
}

/*
 * An epoch begins.
 *
 * @amid: COLO has been running before, while we were off: the secondary has missed some input, and has not sent some output, so
 * a checkpoint has to make it the copy again before its word counts.
 */
static void primary_compare_or_not(ColoProxy *s, bool amid)
{
    bool there = colo_frame_is_there();

    colo_comparator_set_comparing(s->comparator, false, proxy_now(s));
    colo_comparator_set_holding(s->comparator, amid || primary_holds(s));
    colo_comparator_set_comparing(s->comparator, there && NETFILTER(s)->on, proxy_now(s));
    colo_comparator_set_holding(s->comparator, primary_holds(s));
    if (there) {
        colo_frame_watch_start(&s->watch);
    } else {
        colo_frame_watch_stop(&s->watch);
    }
    if (amid) {
        if (s->peer_epoch_set) {
            colo_comparator_resumed(s->comparator, COLO_SECONDARY, colo_epochs_behind(s->epoch, s->peer_epoch), proxy_now(s));
        }
        colo_frame_ask();
    }
    colo_turn_wanted(NULL);
}

/*
 * The last secondaries whose COLO has ended, by instance: none of them is a copy any more, whichever object it comes to.  No more of
 * them, for whoever connects can have a new one noted.  The big lock's.
 */
#define SPENT_MAX 64
static uint64_t spent[SPENT_MAX];
static uint64_t spent_count;        /* ever; the oldest makes room */

/* The secondary of the COLO there is, once it has loaded a checkpoint: no other can be.  The big lock's. */
static uint64_t bound_to;
static bool bound;

static bool is_spent(uint64_t instance)
{
    for (uint32_t i = 0; i < MIN(spent_count, SPENT_MAX); i++) {
        if (spent[i] == instance) {
            return true;
        }
    }
    return false;
}

static void primary_spend_partner(ColoProxy *s)
{
    if (s->partner_set && !is_spent(s->partner)) {
        spent[spent_count++ % SPENT_MAX] = s->partner;
    }
    s->partner_set = false;
}

/* Why @instance cannot be this guest's secondary; NULL if it can. */
static const char *primary_objection(uint64_t instance)
{
    if (is_spent(instance)) {
        return "COLO has ended for that secondary; it must be started anew";
    }
    return bound && instance != bound_to ? "COLO runs with another secondary" : NULL;
}

static void primary_on_change(ColoFrameUser *user)
{
    ColoProxy *s = container_of(user, ColoProxy, frame_user);
    bool there = colo_frame_is_there();

    trace_colo_proxy_event(s->name, there ? "the frame is there" : "no frame is there");
    s->lost = s->lost && !there;
    s->overfull = false;
    s->epoch = 0;
    primary_compare_or_not(s, false);
    bound = false;
    if (!there && s->was_there) {
        primary_spend_partner(s);
        colo_peer_drop(&s->peer, "COLO has ended");
        colo_comparator_peer_lost(s->comparator, proxy_now(s));
    }
    s->was_there = there;
}

static void primary_on_giving_up(ColoFrameUser *user)
{
    primary_lost(container_of(user, ColoProxy, frame_user), COLO_PEER_LOST_REASON_CLOSED);
}

static void primary_on_checkpoint(ColoFrameUser *user)
{
    ColoProxy *s = container_of(user, ColoProxy, frame_user);

    trace_colo_proxy_event(s->name, "checkpoint");
    s->epoch++;
    colo_comparator_checkpoint(s->comparator, qemu_clock_get_ns(QEMU_CLOCK_REALTIME));
    colo_turn_wanted(NULL);
}

static const ColoFrameUserOps primary_frame_ops = {
    .changed = primary_on_change,
    .gave_up = primary_on_giving_up,
    .checkpoint = primary_on_checkpoint,
};

static bool primary_setup(ColoProxy *s, Error **errp)
{
    ColoComparatorConfig config = {
        .timeout = (int64_t)s->compare_timeout * SCALE_MS,
        .quiet = COLO_QUIET_NS,
        .gather = COLO_GATHER_NS,
        .queue_size = s->max_queue_size,
        .primary_goes_on = true,
    };

    if (qcrypto_random_bytes(config.secret, sizeof(config.secret), errp) < 0) {
        return false;
    }
    s->comparator = colo_comparator_new(&config, &primary_comparator_ops, s);
    colo_deadline_init(&s->deadline, timer_new_ns(QEMU_CLOCK_REALTIME, primary_timer, s));
    s->frame_timeout = MAX(FRAME_TIMEOUT_MS, s->heartbeat_timeout);
    /* In the context that is looked after even while a checkpoint waits for the disks. */
    colo_frame_watch_init(&s->watch, qemu_get_aio_context(), s->comparator, &s->frame_timeout, primary_silent, s);
    colo_frame_add_user(&s->frame_user, &primary_frame_ops);
    colo_comparator_peer_lost(s->comparator, 0);        /* nobody is there yet */
    return true;
}

static void primary_cleanup(ColoProxy *s)
{
    if (s->was_there) {
        primary_spend_partner(s);               /* nobody here would hear of COLO's end */
    }
    colo_frame_remove_user(&s->frame_user);
    colo_frame_watch_end(&s->watch);
    colo_deadline_end(&s->deadline);
    colo_comparator_free(s->comparator);        /* releases what is held */
}

/* The secondary: in */

static void secondary_pass_to_guest(ColoProxy *s, const uint8_t *frame, uint32_t size, uint32_t vnet_len)
{
    NetFilterState *nf = NETFILTER(s);

    s->injected++;
    colo_count(&s->input, size);
    colo_host_pass(nf, true, nf->netdev, frame, size, vnet_len);
}

/* Packets to the guest that have waited for its SYN-ACK go on. */
static void secondary_pass_ready(ColoProxy *s)
{
    ColoPacket *p;

    while ((p = colo_rewriter_ready(s->rewriter))) {
        secondary_pass_to_guest(s, p->data, p->size, p->vnet_len);
        colo_packet_free(p);
    }
}

/* What the rewriter makes of a packet; if that is another one, @frame points to it, in s->flat. */
static ColoRewriteKind secondary_rewrite(ColoProxy *s, ColoDirection direction, const uint8_t **frame, uint32_t size,
                                         uint32_t vnet_len)
{
    ColoRewrite rewrite;
    ColoPacket p;

    if (colo_rewriter_is_done(s->rewriter) || !colo_packet_parse(&p, *frame, size, vnet_len)) {
        return COLO_REWRITE_NOTHING;
    }
    rewrite = colo_rewriter_look(s->rewriter, direction, &p, proxy_now(s));
    if (rewrite.kind != COLO_REWRITE_NOTHING && rewrite.kind != COLO_REWRITE_WAIT) {
        if (*frame != s->flat) {
            memcpy(s->flat, *frame, size);
            *frame = p.data = s->flat;
        }
        colo_rewrite(&p, rewrite);
        trace_colo_rewriter_rewrite(direction == COLO_TO_GUEST ? "to guest" : "from guest", p.seq, p.ack, rewrite.add);
    }
    return rewrite.kind;
}

static void secondary_inject(ColoProxy *s, const uint8_t *frame, uint32_t size, uint32_t vnet_len)
{
    secondary_pass_ready(s);
    if (secondary_rewrite(s, COLO_TO_GUEST, &frame, size, vnet_len) != COLO_REWRITE_WAIT) {
        secondary_pass_to_guest(s, frame, size, vnet_len);
    }
    colo_peer_took(&s->peer, size);
}

static bool secondary_may_inject(ColoProxy *s)
{
    return runstate_is_running() && s->injected < INJECT_MAX && colo_outbox_is_empty(&s->waiting_in);
}

static void secondary_packet(ColoProxy *s, const uint8_t *frame, uint32_t size, uint32_t vnet_len)
{
    if (runstate_check(RUN_STATE_INMIGRATE)) {
        /* Its memory has not come yet. */
        colo_count(&s->discarded, size);
        colo_peer_took(&s->peer, size);
    } else if (secondary_may_inject(s)) {
        secondary_inject(s, frame, size, vnet_len);
    } else {
        memcpy(colo_outbox_append(&s->waiting_in, size, vnet_len), frame, size);
        qemu_bh_schedule(s->inject_bh);
    }
}

static void secondary_inject_waiting(const uint8_t *frame, uint32_t size, uint32_t vnet_len, void *opaque)
{
    secondary_inject(opaque, frame, size, vnet_len);
}

/* In another turn of the main loop. */
static void secondary_inject_bh(void *opaque)
{
    ColoProxy *s = opaque;

    s->injected = 0;
    secondary_pass_ready(s);
    if (runstate_is_running()) {
        colo_outbox_take(&s->waiting_in, INJECT_MAX, secondary_inject_waiting, s);
        if (!colo_outbox_is_empty(&s->waiting_in)) {
            qemu_bh_schedule(s->inject_bh);
        }
    }
}

/* The secondary: out */

static void secondary_say_epoch(ColoProxy *s)
{
    if (colo_peer_is_ready(&s->peer)) {
        colo_peer_send_epoch(&s->peer, s->epoch);
    }
}

static void secondary_send(const uint8_t *frame, uint32_t size, uint32_t vnet_len, void *opaque)
{
    ColoProxy *s = opaque;
    struct iovec iov = { .iov_base = (void *)frame, .iov_len = size };

    if (colo_outbox_is_empty(&s->waiting_out) && colo_peer_has_room(&s->peer)) {
        colo_peer_send(&s->peer, &iov, 1, vnet_len);
        colo_count(&s->sent, size);
    } else if (colo_outbox_size(&s->waiting_out) < WAITING_MAX) {
        memcpy(colo_outbox_append(&s->waiting_out, size, vnet_len), frame, size);
    } else {
        proxy_send(s, &iov, 1, size, vnet_len);         /* which has no room */
    }
}

static void secondary_send_waiting(ColoProxy *s)
{
    if (!colo_outbox_is_empty(&s->waiting_out) && colo_peer_has_room(&s->peer)) {
        colo_outbox_empty(&s->waiting_out, secondary_send, s);
    }
}

static ssize_t secondary_receive(ColoProxy *s, NetClientState *sender, bool from_guest, unsigned flags,
                                 const struct iovec *iov, int iovcnt, size_t size, uint32_t vnet_len)
{
    const uint8_t *frame;
    ColoDirection direction = from_guest ? COLO_FROM_GUEST : COLO_TO_GUEST;
    ColoRewriteKind kind;

    if (!from_guest && !s->failed_over) {
        colo_count(&s->discarded, size);
        return size;
    }
    colo_count(from_guest ? &s->output : &s->input, size);
    if (colo_rewriter_is_done(s->rewriter)) {
        return 0;
    }
    frame = proxy_flatten(s, iov, iovcnt, size);
    kind = secondary_rewrite(s, direction, &frame, size, vnet_len);
    if (from_guest && colo_rewriter_has_ready(s->rewriter)) {
        qemu_bh_schedule(s->inject_bh);     /* the guest is sending: not now */
    }
    if (kind == COLO_REWRITE_WAIT) {
        return size;
    }
    if (from_guest && !s->failed_over) {
        secondary_send(frame, size, vnet_len, s);
        return size;
    }
    if (kind != COLO_REWRITE_NOTHING) {
        struct iovec whole = { .iov_base = (void *)frame, .iov_len = size };

        qemu_netfilter_pass_to_next(sender, flags, &whole, 1, NETFILTER(s));
        return size;
    }
    return 0;
}

/* The secondary: the frame and the guest */

/* The guest resumes: from a checkpoint, or at the beginning of COLO, or because somebody had stopped it. */
static void secondary_resumes(ColoProxy *s)
{
    if (s->epoch != colo_host_epoch()) {
        s->epoch = colo_host_epoch();
        colo_outbox_clear(&s->waiting_out);     /* from a guest that is no more */
        secondary_say_epoch(s);
    }
    qemu_bh_schedule(s->inject_bh);
}

static void secondary_fail_over(ColoProxy *s)
{
    s->failed_over = true;
    colo_peer_close(&s->peer, "failover: this node serves alone from now on");
    colo_outbox_clear(&s->waiting_in);
    colo_outbox_empty(&s->waiting_out, proxy_pass_to_client, s);
    colo_rewriter_failover(s->rewriter);
    qemu_bh_schedule(s->inject_bh);
}

static bool secondary_setup(ColoProxy *s, Error **errp)
{
    uint8_t secret[16];

    if (qcrypto_random_bytes(secret, sizeof(secret), errp) < 0) {
        return false;
    }
    s->epoch = colo_host_epoch();
    s->rewriter = colo_rewriter_new(secret);
    colo_vmstate_begin(&s->vmstate, NETFILTER(s)->netdev_id, s->rewriter);
    s->waiting_in.vnet = s->waiting_out.vnet = true;
    s->inject_bh = qemu_bh_new(secondary_inject_bh, s);
    return true;
}

static void secondary_cleanup(ColoProxy *s)
{
    colo_vmstate_end(&s->vmstate);
    colo_rewriter_failover(s->rewriter);
    secondary_pass_ready(s);
    colo_rewriter_free(s->rewriter);
    qemu_bh_delete(s->inject_bh);
    colo_outbox_clear(&s->waiting_in);
    colo_outbox_clear(&s->waiting_out);
}

/* The peer */

static const char *proxy_ready(uint64_t instance, void *opaque)
{
    ColoProxy *s = opaque;

    if (s->comparator) {
        const char *objection = primary_objection(instance);

        if (objection) {
            return objection;
        }
        s->partner = instance;
        s->partner_set = true;
        s->lost = false;
        s->peer_epoch_set = false;
        colo_comparator_reconnected(s->comparator, COLO_SECONDARY);
        colo_comparator_secondary_doubted(s->comparator);       /* until it says where it is */
    } else {
        secondary_say_epoch(s);
    }
    s->complained = false;
    return NULL;
}

static void proxy_lost(ColoPeerLostReason reason, void *opaque)
{
    ColoProxy *s = opaque;

    if (!s->comparator) {
        colo_outbox_clear(&s->waiting_in);
        qapi_event_send_colo_proxy_peer_lost(object_get_canonical_path_component(OBJECT(s)), reason);
        return;
    }
    s->untaken = 0;
    primary_lost(s, reason);
    colo_comparator_peer_lost(s->comparator, proxy_now(s));
    if (reason == COLO_PEER_LOST_REASON_SILENT && colo_frame_is_there()) {
        colo_frame_end_wait();      /* it would wait for it without an end */
    }
}

static void proxy_packet(const uint8_t *frame, uint32_t size, uint32_t vnet_len, void *opaque)
{
    ColoProxy *s = opaque;

    colo_count(&s->received, size);
    if (s->comparator) {
        colo_comparator_packet(s->comparator, COLO_SECONDARY, frame, size, vnet_len, proxy_now(s));
        s->untaken += size;
    } else {
        secondary_packet(s, frame, size, vnet_len);
    }
}

static bool proxy_epoch(uint64_t number, void *opaque)
{
    ColoProxy *s = opaque;
    bool can_be;

    trace_colo_proxy_epoch(s->name, number);
    if (!s->comparator) {
        return true;
    }
    if (number && !s->was_there) {
        primary_spend_partner(s);       /* it is of a COLO that this object has not seen */
        return false;
    }
    s->peer_epoch = number;
    s->peer_epoch_set = true;
    can_be = colo_comparator_resumed(s->comparator, COLO_SECONDARY, colo_epochs_behind(s->epoch, number), proxy_now(s));
    if (can_be && number && !bound) {
        bound = true;
        bound_to = s->partner;
    }
    return can_be;
}

static void proxy_turn_ends(void *opaque)
{
    ColoProxy *s = opaque;

    if (s->comparator) {
        primary_turn_ends(s);
    } else {
        s->injected = 0;
        secondary_send_waiting(s);
    }
    s->now = 0;
}

static const ColoPeerOps proxy_peer_ops = {
    .ready = proxy_ready,
    .lost = proxy_lost,
    .packet = proxy_packet,
    .epoch = proxy_epoch,
    .turn_ends = proxy_turn_ends,
};

/* The filter */

static ssize_t proxy_receive_iov(NetFilterState *nf, NetClientState *sender, unsigned flags, const struct iovec *iov,
                                 int iovcnt, NetPacketSent *sent_cb)
{
    ColoProxy *s = COLO_PROXY(nf);
    bool from_guest = sender != nf->netdev;
    size_t size = iov_size(iov, iovcnt);
    uint32_t vnet_len = MIN(colo_host_vnet_len(nf, true, flags), size);

    if (size == vnet_len || size > COLO_FRAME_MAX + vnet_len) {
        return 0;
    }
    return s->comparator ? primary_receive(s, from_guest, iov, iovcnt, size, vnet_len)
                         : secondary_receive(s, sender, from_guest, flags, iov, iovcnt, size, vnet_len);
}

static void proxy_vm_state(void *opaque, bool running, RunState state)
{
    ColoProxy *s = opaque;

    if (running && s->rewriter && !s->failed_over) {
        secondary_resumes(s);
    }
}

static void proxy_status_changed(NetFilterState *nf, Error **errp)
{
    ColoProxy *s = COLO_PROXY(nf);

    if (s->comparator) {
        primary_compare_or_not(s, nf->on && colo_frame_is_there());
    } else if (!nf->on && !s->failed_over) {
        nf->on = true;
        error_setg(errp, "%s: cannot be switched off while its guest is a secondary's; nobody but the primary may hear it",
                   s->name);
    }
}

static void proxy_handle_event(NetFilterState *nf, int event, Error **errp)
{
    ColoProxy *s = COLO_PROXY(nf);

    if (!s->rewriter) {
        return;
    }
    trace_colo_rewriter_event(event, colo_rewriter_flows(s->rewriter));
    if (event == COLO_EVENT_CHECKPOINT) {
        colo_rewriter_checkpoint(s->rewriter, proxy_now(s));
    } else if (event == COLO_EVENT_FAILOVER) {
        secondary_fail_over(s);
    }
}

static bool proxy_check_number(ColoProxy *s, const char *property, uint32_t value, Error **errp)
{
    if (!value) {
        error_setg(errp, "%s: property '%s' is 0; it must be from 1 to %" PRIu32, s->name, property, UINT32_MAX);
        return false;
    }
    return true;
}

/*
 * One on each netdev; but a survivor that is to be protected needs the one that has failed over as well, for its clients'
 * connections, and next to the guest: a new secondary gets what the clients send, and maps it for itself.
 */
static bool proxy_check_others(ColoProxy *s, Error **errp)
{
    NetFilterState *nf = NETFILTER(s), *other;

    QTAILQ_FOREACH(other, &nf->netdev->filters, next) {
        const char *id = object_get_canonical_path_component(OBJECT(other));

        if (!object_dynamic_cast(OBJECT(other), TYPE_COLO_PROXY)) {
            continue;
        }
        if (s->mode != COLO_PROXY_MODE_PRIMARY || !COLO_PROXY(other)->failed_over) {
            error_setg(errp, "%s: netdev '%s' has a colo-proxy already, '%s'; remove that first", s->name, nf->netdev_id, id);
            return false;
        }
        if (!colo_host_comes_before(nf, other)) {
            error_setg(errp, "%s: '%s' still serves the connections of a primary that is gone; this one must come before it: "
                       "insert=before,position=id=%s", s->name, id, id);
            return false;
        }
    }
    return true;
}

static bool proxy_check(ColoProxy *s, Error **errp)
{
    NetFilterState *nf = NETFILTER(s);

    if (nf->direction != NET_FILTER_DIRECTION_ALL) {
        error_setg(errp, "%s: property 'queue' must be all", s->name);
        return false;
    }
    if (s->mode == COLO_PROXY_MODE_PRIMARY && colo_frame_is_there()) {
        error_setg(errp, "%s: COLO runs already, and has been for longer than the object could know of; end it first with "
                   "x-colo-lost-heartbeat", s->name);
        return false;
    }
    if (s->mode == COLO_PROXY_MODE_SECONDARY && !nf->on) {
        error_setg(errp, "%s: property 'status' must be on in a secondary; nobody but the primary may hear its guest", s->name);
        return false;
    }
    if (!s->addr) {
        error_setg(errp, "%s: property 'addr' is missing; name where the primary listens: host:port, or a path", s->name);
        return false;
    }
    if (!proxy_check_number(s, "reconnect", s->reconnect, errp) || !proxy_check_number(s, "heartbeat", s->heartbeat, errp) ||
        !proxy_check_number(s, "heartbeat_timeout", s->heartbeat_timeout, errp) ||
        !proxy_check_number(s, "compare_timeout", s->compare_timeout, errp) ||
        !proxy_check_number(s, "max_queue_size", s->max_queue_size, errp)) {
        return false;
    }
    if (s->heartbeat_timeout < 2 * (uint64_t)s->heartbeat) {
        error_setg(errp, "%s: property 'heartbeat_timeout' is %" PRIu32 "; it must be at least twice 'heartbeat', which is %"
                   PRIu32, s->name, s->heartbeat_timeout, s->heartbeat);
        return false;
    }
    return proxy_check_others(s, errp);
}

static SocketAddress *proxy_parse_address(ColoProxy *s, Error **errp)
{
    ERRP_GUARD();
    SocketAddress *address;

    if (s->addr[0] == '/') {
        address = g_new0(SocketAddress, 1);
        address->type = SOCKET_ADDRESS_TYPE_UNIX;
        address->u.q_unix.path = g_strdup(s->addr);
        return address;
    }
    address = socket_parse(s->addr, errp);
    if (!address) {
        error_prepend(errp, "%s: property 'addr': ", s->name);
        error_append_hint(errp, "It must be host:port, or the path of a unix socket, from / on.\n");
    }
    return address;
}

static void proxy_setup(NetFilterState *nf, Error **errp)
{
    ERRP_GUARD();
    ColoProxy *s = COLO_PROXY(nf);
    bool primary = s->mode == COLO_PROXY_MODE_PRIMARY;
    ColoSessionConfig config = {
        .side = primary ? COLO_PRIMARY : COLO_SECONDARY,
        .credit = CREDIT,
        .heartbeat = (int64_t)s->heartbeat * SCALE_MS,
        .heartbeat_timeout = (int64_t)s->heartbeat_timeout * SCALE_MS,
    };

    s->name = g_strdup_printf("colo-proxy '%s'", object_get_canonical_path_component(OBJECT(s)));
    if (!colo_host_instance(&config.instance, errp) || !proxy_check(s, errp) || !(s->address = proxy_parse_address(s, errp)) ||
        !(primary ? primary_setup(s, errp) : secondary_setup(s, errp))) {
        return;
    }
    s->flat = g_malloc(COLO_FRAME_MAX + COLO_VNET_HDR_MAX);
    colo_outlet_open(&s->to_client, nf, true);
    s->vm_state = qemu_add_vm_change_state_handler(proxy_vm_state, s);
    if (!colo_peer_open(&s->peer, s->name, s->address, s->tls_creds, &config, s->reconnect, &proxy_peer_ops, s, errp)) {
        error_prepend(errp, "%s: ", s->name);
        return;
    }
}

/* Also of one that was refused. */
static void proxy_cleanup(NetFilterState *nf)
{
    ColoProxy *s = COLO_PROXY(nf);

    colo_peer_close(&s->peer, "the object has been removed");
    if (s->comparator) {
        primary_cleanup(s);
    }
    if (s->rewriter) {
        secondary_cleanup(s);
    }
    if (s->vm_state) {
        qemu_del_vm_change_state_handler(s->vm_state);
    }
    colo_outlet_close(&s->to_client);
    qapi_free_SocketAddress(s->address);
    g_free(s->flat);
    g_free(s->name);
}

static ColoProxyInfo *proxy_report(Object *obj)
{
    ColoProxy *s = COLO_PROXY(obj);
    ColoProxyInfo *info = g_new0(ColoProxyInfo, 1);
    ColoProxyProxyInfo *proxy = &info->u.colo_proxy;

    info->type = COLO_PROXY_TYPE_COLO_PROXY;
    proxy->mode = s->mode;
    proxy->connected = colo_peer_is_ready(&s->peer);
    proxy->input = colo_report_count(&s->input);
    proxy->output = colo_report_count(&s->output);
    proxy->sent = colo_report_count(&s->sent);
    proxy->received = colo_report_count(&s->received);
    proxy->discarded = colo_report_count(&s->discarded);
    if (s->comparator) {
        COLO_SET_PRESENT(proxy, compare);
        proxy->compare = g_new0(ColoProxyCompareInfo, 1);
        colo_report_comparator(proxy->compare, s->comparator);
        proxy->compare->secondary_connected = proxy->connected;
        proxy->compare->has_secondary_lost = s->lost;
        proxy->compare->secondary_lost = s->lost_reason;
    } else {
        proxy->has_flows = true;
        proxy->flows = colo_rewriter_flows(s->rewriter);
    }
    return info;
}

/* Properties */

/* True, with an error, if it is too late to set it. */
static bool proxy_is_fixed(ColoProxy *s, const char *property, Error **errp)
{
    if (s->name) {
        error_setg(errp, "%s: property '%s' cannot be changed any more; create the object anew", s->name, property);
    }
    return s->name;
}

static int proxy_get_mode(Object *obj, Error **errp)
{
    return COLO_PROXY(obj)->mode;
}

static void proxy_set_mode(Object *obj, int value, Error **errp)
{
    ColoProxy *s = COLO_PROXY(obj);

    if (!proxy_is_fixed(s, "mode", errp)) {
        s->mode = value;
    }
}

static int proxy_get_policy(Object *obj, Error **errp)
{
    return COLO_PROXY(obj)->policy;
}

/* From the next checkpoint on, which is therefore wanted soon. */
static void proxy_set_policy(Object *obj, int value, Error **errp)
{
    ColoProxy *s = COLO_PROXY(obj);

    s->policy = value;
    if (s->comparator) {
        colo_comparator_set_holding(s->comparator, primary_holds(s));
        colo_frame_ask();
    }
}

static char *proxy_get_addr(Object *obj, Error **errp)
{
    return g_strdup(COLO_PROXY(obj)->addr);
}

static void proxy_set_addr(Object *obj, const char *value, Error **errp)
{
    ColoProxy *s = COLO_PROXY(obj);

    if (!proxy_is_fixed(s, "addr", errp)) {
        g_free(s->addr);
        s->addr = g_strdup(value);
    }
}

static char *proxy_get_tls_creds(Object *obj, Error **errp)
{
    return g_strdup(COLO_PROXY(obj)->tls_creds);
}

static void proxy_set_tls_creds(Object *obj, const char *value, Error **errp)
{
    ColoProxy *s = COLO_PROXY(obj);

    if (!proxy_is_fixed(s, "tls-creds", errp)) {
        g_free(s->tls_creds);
        s->tls_creds = g_strdup(value);
    }
}

/* The numbers, by their places in the object. */
static void proxy_get_number(Object *obj, Visitor *v, const char *name, void *opaque, Error **errp)
{
    visit_type_uint32(v, name, (uint32_t *)((char *)obj + (uintptr_t)opaque), errp);
}

static void proxy_set_number(Object *obj, Visitor *v, const char *name, void *opaque, Error **errp)
{
    ColoProxy *s = COLO_PROXY(obj);

    if (!proxy_is_fixed(s, name, errp)) {
        visit_type_uint32(v, name, (uint32_t *)((char *)obj + (uintptr_t)opaque), errp);
    }
}

static void proxy_init(Object *obj)
{
    ColoProxy *s = COLO_PROXY(obj);

    s->reconnect = RECONNECT_S;
    s->heartbeat = HEARTBEAT_MS;
    s->heartbeat_timeout = HEARTBEAT_TIMEOUT_MS;
    s->compare_timeout = COMPARE_TIMEOUT_MS;
    s->max_queue_size = MAX_QUEUE_SIZE;
}

static void proxy_finalize(Object *obj)
{
    g_free(COLO_PROXY(obj)->addr);
    g_free(COLO_PROXY(obj)->tls_creds);
}

static void proxy_class_init(ObjectClass *oc, ColoClassData *data)
{
    static const struct {
        const char *name;
        uintptr_t at;
    } numbers[] = {
        { "reconnect", offsetof(ColoProxy, reconnect) },
        { "heartbeat", offsetof(ColoProxy, heartbeat) },
        { "heartbeat_timeout", offsetof(ColoProxy, heartbeat_timeout) },
        { "compare_timeout", offsetof(ColoProxy, compare_timeout) },
        { "max_queue_size", offsetof(ColoProxy, max_queue_size) },
    };
    NetFilterClass *nfc = NETFILTER_CLASS(oc);

    object_class_property_add_enum(oc, "mode", "ColoProxyMode", &ColoProxyMode_lookup, proxy_get_mode, proxy_set_mode);
    object_class_property_add_enum(oc, "policy", "ColoProxyPolicy", &ColoProxyPolicy_lookup, proxy_get_policy,
                                   proxy_set_policy);
    object_class_property_add_str(oc, "addr", proxy_get_addr, proxy_set_addr);
    object_class_property_add_str(oc, "tls-creds", proxy_get_tls_creds, proxy_set_tls_creds);
    for (int i = 0; i < ARRAY_SIZE(numbers); i++) {
        object_class_property_add(oc, numbers[i].name, "uint32", proxy_get_number, proxy_set_number, NULL,
                                  (void *)numbers[i].at);
    }
    colo_host_filter_class_init(oc);
    nfc->setup = proxy_setup;
    nfc->cleanup = proxy_cleanup;
    nfc->status_changed = proxy_status_changed;
    nfc->handle_event = proxy_handle_event;
    nfc->receive_iov = proxy_receive_iov;
    COLO_REPORTER_CLASS(oc)->report = proxy_report;
}

static const TypeInfo colo_proxy_info = {
    .name = TYPE_COLO_PROXY,
    .parent = TYPE_NETFILTER,
    .instance_size = sizeof(ColoProxy),
    .instance_init = proxy_init,
    .instance_finalize = proxy_finalize,
    .class_init = proxy_class_init,
    .interfaces = (InterfaceInfo[]) {
        { TYPE_COLO_REPORTER },
        { }
    },
};

static void colo_proxy_register(void)
{
    type_register_static(&colo_proxy_info);
}

type_init(colo_proxy_register);
