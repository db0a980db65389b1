/*
 * The world: a client, two guests, the core between them, and time
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Theory of operation
 *
 *     client == link ==> tap --+--> primary ---- output ----> comparator == link ==> client
 *                              |                                  |
 *                              +-- mirror --> rewriter --> secondary --> rewriter --> output
 *
 * The links lose, repeat and reorder frames; everything else is reliable and in order, with delays.  One step of the
 * loop goes to the next moment at which anything happens and does what is due.  Nothing else knows the time.
 *
 * A checkpoint takes the steps of CheckpointStep, with other things happening in between.  Where COLO begins late, the
 * first of them is that beginning: until then there is the primary alone, and nothing is compared.  At a failover the primary is
 * gone with all that had not left it; after a while the secondary takes over, and what it has sent meanwhile goes out.
 *
 * First faults happen.  Then they stop, and everything must come to its end, with some progress within each PATIENCE.
 */

#include "world.h"

#include <inttypes.h>
#include <string.h>

#define PATIENCE (30 * SECOND)
/* Longer than anything of the old connection is under way, apart from what the comparator holds. */
#define REUSE_WAIT (1500 * MS)

static const char *const step_names[] = {
    [CHECKPOINT_NONE] = "begins",
    [CHECKPOINT_PRIMARY_PAUSES] = "primary pauses",
    [CHECKPOINT_SECONDARY_PAUSES] = "secondary pauses",
    [CHECKPOINT_LOADED] = "loaded",
    [CHECKPOINT_SECONDARY_RESUMES] = "secondary resumes",
    [CHECKPOINT_COMPARATOR_TOLD] = "comparator told",
    [CHECKPOINT_PRIMARY_RESUMES] = "primary resumes",
};

void world_trace(World *w, const char *format, ...)
{
    va_list arguments;

    if (!w->trace) {
        return;
    }
    fprintf(w->trace, "%11.6f ", (double)w->now / (double)SECOND);
    va_start(arguments, format);
    vfprintf(w->trace, format, arguments);
    va_end(arguments);
    fputc('\n', w->trace);
}

void world_fail(World *w, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    g_vsnprintf(w->outcome.failure, sizeof(w->outcome.failure), format, arguments);
    va_end(arguments);
    w->outcome.failed = true;
    world_trace(w, "FAILED: %s", w->outcome.failure);
    longjmp(w->over, 1);
}

static void trace_frame(World *w, const char *what, const uint8_t *data, uint32_t size, uint32_t vnet_len)
{
    Reading r;
    const char *wrong;

    if (!w->trace) {
        return;
    }
    wrong = frame_read(&r, data, size, vnet_len);
    if (wrong) {
        world_trace(w, "%-22s broken: %s", what, wrong);
    } else if (r.proto == 6 && !r.fragment) {
        Meta m = { .number = -1 };
        bool to_guest = r.destination == 2;
        char sacks[100] = "";

        scenario_find(&w->scenario, &r, to_guest, &m);
        for (int i = 0; i < r.tcp.sacks; i++) {
            size_t at = strlen(sacks);

            g_snprintf(sacks + at, sizeof(sacks) - at, " sack %u-%u", r.tcp.sack[i][0], r.tcp.sack[i][1]);
        }
        world_trace(w, "%-22s c%d %s%s%s%s%s%s seq %u len %u ack %u win %u%s ts %u %u", what, m.number,
                    r.tcp.flags & SYN ? "S" : "", r.tcp.flags & FIN ? "F" : "", r.tcp.flags & RST ? "R" : "",
                    r.tcp.flags & PSH ? "P" : "", r.tcp.flags & URG ? "U" : "", r.tcp.flags & ACK ? "." : "",
                    r.tcp.seq, r.tcp.len, r.tcp.ack, r.tcp.window, sacks, r.tcp.time, r.tcp.echo);
    } else {
        world_trace(w, "%-22s datagram %u > %u proto %u id %u offset %u%s len %u", what, r.source, r.destination,
                    r.proto, r.id, r.fragment_offset, r.more_fragments ? "+" : "", r.len);
    }
}

static Parcel *parcel_copy(const uint8_t *frame, uint32_t size, uint32_t vnet_len)
{
    Parcel *p = g_new0(Parcel, 1);

    p->data = g_memdup2(frame, size);
    p->size = size;
    p->vnet_len = vnet_len;
    return p;
}

static int64_t head_at(const GQueue *queue)
{
    const Parcel *p = g_queue_peek_head((GQueue *)queue);

    return p ? p->at : NEVER;
}

static bool faults(const World *w)
{
    return w->now < w->scenario.faults_end;
}

/* The link between client and guest */

static void insert_by_arrival(GQueue *queue, Parcel *p)
{
    GList *at = queue->tail;

    while (at && ((Parcel *)at->data)->at > p->at) {
        at = at->prev;
    }
    if (at) {
        g_queue_insert_after(queue, at, p);
    } else {
        g_queue_push_head(queue, p);
    }
}

static void link_send(World *w, bool to_client, Parcel *p)
{
    const Scenario *s = &w->scenario;
    int64_t *last = &w->link_last[to_client];

    if (faults(w) && draw_percent(&w->draw, s->loss)) {
        trace_frame(w, "  lost:", p->data, p->size, p->vnet_len);
        parcel_free(p);
        return;
    }
    if (faults(w) && draw_percent(&w->draw, s->duplication)) {
        Parcel *copy = parcel_copy(p->data, p->size, p->vnet_len);

        copy->meta = p->meta;
        copy->at = w->now + s->link_delay + draw_between(&w->draw, 0, 3 * s->link_delay);
        insert_by_arrival(to_client ? &w->to_client : &w->to_guest, copy);
    }
    if (faults(w) && draw_percent(&w->draw, s->reordering)) {
        p->at = w->now + s->link_delay + draw_between(&w->draw, 0, 3 * s->link_delay + MS);
    } else {
        p->at = w->now + s->link_delay + draw_between(&w->draw, 0, s->link_delay / 10);
        p->at = *last = MAX(*last, p->at);
    }
    insert_by_arrival(to_client ? &w->to_client : &w->to_guest, p);
}

/* In order, whatever happens. */
static void stream_send(World *w, GQueue *stream, Parcel *p)
{
    const Parcel *last = g_queue_peek_tail(stream);

    p->at = w->now + draw_skewed(&w->draw, 1 * US, w->scenario.stream_delay);
    if (last) {
        p->at = MAX(p->at, last->at);
    }
    g_queue_push_tail(stream, p);
}

static void send_mark(World *w, ColoSide side, uint32_t epoch)
{
    Parcel *p = g_new0(Parcel, 1);

    p->mark = true;
    p->meta.epoch = epoch;
    stream_send(w, &w->output[side], p);
}

/* Where the last mark is; -1: there is none. */
static int last_mark(const GQueue *output)
{
    int at = (int)output->length - 1;

    for (const GList *link = output->tail; link && !((const Parcel *)link->data)->mark; link = link->prev) {
        at--;
    }
    return at;
}

/* The rewriter and the secondary */

static void take_ready(World *w)
{
    ColoPacket *p;

    while ((p = colo_rewriter_ready(w->rewriter))) {
        g_queue_push_tail(&w->ready, parcel_copy(p->data, p->size, p->vnet_len));
        colo_packet_free(p);
        w->outcome.frames_ready++;
    }
}

/* Returns false if the rewriter has kept the packet. */
static bool rewrite(World *w, ColoDirection direction, Parcel *p)
{
    ColoRewrite what;
    ColoPacket packet;

    if (colo_rewriter_is_done(w->rewriter)) {
        return true;
    }
    colo_packet_parse(&packet, p->data, p->size, p->vnet_len);
    what = colo_rewriter_look(w->rewriter, direction, &packet, w->now);
    if (what.kind == COLO_REWRITE_WAIT) {
        w->outcome.frames_waited++;
        return false;
    }
    colo_rewrite(&packet, what);
    return true;
}

static void host_gets(World *w, Host *h, const Parcel *p)
{
    Reading r;
    const char *wrong = frame_read(&r, p->data, p->size, p->vnet_len);
    g_autofree char *what = g_strdup_printf("to %s:", h->name);

    trace_frame(w, what, p->data, p->size, p->vnet_len);
    if (wrong) {
        world_fail(w, "the %s gets a frame in which %s", h->name, wrong);
    }
    host_input(h, &r, w->now);
}

/* Into the ring of a guest's network card. */
static void to_ring(World *w, ColoSide side, Parcel *p)
{
    const Scenario *s = &w->scenario;
    const Parcel *last = g_queue_peek_tail(&w->ring[side]);

    p->at = w->now + draw_skewed(&w->draw, 0, s->busy + (side == COLO_SECONDARY ? s->secondary_lag : 0));
    p->at = last ? MAX(p->at, last->at) : p->at;
    g_queue_push_tail(&w->ring[side], p);
}

static void to_secondary(World *w, Parcel *p)
{
    if (rewrite(w, COLO_TO_GUEST, p)) {
        to_ring(w, COLO_SECONDARY, p);
    } else {
        trace_frame(w, "waits in the rewriter:", p->data, p->size, p->vnet_len);
        parcel_free(p);
    }
}

/* What the secondary sends must look as if the primary had sent it. */
static void check_mapping(World *w, const Parcel *p)
{
    const Tcp *primary = &w->guest[COLO_PRIMARY].memory.tcp[p->meta.number];
    Reading r;
    const char *wrong = frame_read(&r, p->data, p->size, p->vnet_len);

    if (wrong) {
        world_fail(w, "the rewriter has made a frame in which %s", wrong);
    }
    if (p->meta.tcp && !p->meta.stray && !(r.tcp.flags & (SYN | RST)) && primary->opened &&
        r.tcp.seq != primary->iss + p->meta.unit) {
        world_fail(
            w, "connection %d: the secondary's unit %u has left the rewriter as sequence number %u, which is unit %d",
            p->meta.number, p->meta.unit, r.tcp.seq, (int)(r.tcp.seq - primary->iss));
    }
}

void world_output(World *w, Host *h, Parcel *p)
{
    g_autofree char *what = g_strdup_printf("%s sends:", h->name);

    trace_frame(w, what, p->data, p->size, p->vnet_len);
    if (h->end == CLIENT) {
        link_send(w, false, p);
    } else if (h == &w->guest[COLO_PRIMARY]) {
        p->meta.epoch = w->epoch[COLO_PRIMARY];
        checker_primary_sends(w->checker, p);
        stream_send(w, &w->output[COLO_PRIMARY], p);
    } else {
        p->meta.epoch = w->epoch[COLO_SECONDARY];
        rewrite(w, COLO_FROM_GUEST, p);
        take_ready(w);
        if (w->failed_over) {
            link_send(w, true, p);
        } else {
            check_mapping(w, p);
            stream_send(w, &w->output[COLO_SECONDARY], p);
        }
    }
}

/* The comparator */

static void on_release(const uint8_t *frame, uint32_t size, uint32_t vnet_len, void *opaque)
{
    World *w = opaque;

    if (w->primary_is_dead) {
        return;
    }
    trace_frame(w, "released:", frame, size, vnet_len);
    w->outcome.frames_released++;
    checker_released(w->checker, frame, size, vnet_len);
    link_send(w, true, parcel_copy(frame, size, vnet_len));
}

static void on_diverged(ColoReason reason, const ColoFlowKey *flow, void *opaque)
{
    World *w = opaque;
    char text[COLO_FLOW_TEXT];

    if (w->primary_is_dead) {
        return;
    }
    world_trace(w, "a checkpoint is asked for: %s, %s", colo_reason_name(reason), colo_flow_key_format(flow, text));
    w->outcome.asked[reason]++;
    checker_asked(w->checker);
    w->wanted = true;
}

static void comparator_takes_mark(World *w, ColoSide side, const Parcel *p)
{
    bool begun = colo_comparator_is_comparing(w->comparator);

    if (!colo_comparator_resumed(w->comparator, side, begun ? (int64_t)w->told - p->meta.epoch : 0, w->now)) {
        world_fail(w, "epoch %u of the %s is refused after %u", p->meta.epoch, w->guest[side].name, w->told);
    }
}

static void comparator_takes(World *w, ColoSide side, Parcel *p)
{
    if (p->mark) {
        world_trace(w, "comparator reads: the mark of the %s", w->guest[side].name);
        comparator_takes_mark(w, side, p);
    } else {
        trace_frame(w, side == COLO_PRIMARY ? "comparator reads P:" : "comparator reads S:", p->data, p->size,
                    p->vnet_len);
        checker_in(w->checker, side == COLO_PRIMARY, p, w->now);
        w->outcome.frames_in += side == COLO_PRIMARY;
        colo_comparator_packet(w->comparator, side, p->data, p->size, p->vnet_len, w->now);
    }
    parcel_free(p);
}

/* There is something to be read from @side. */
static bool is_readable(const World *w, ColoSide side)
{
    const Parcel *p = g_queue_peek_head((GQueue *)&w->output[side]);

    return !w->primary_is_dead && !(w->cut_off && side == COLO_SECONDARY) && p && colo_comparator_may_read(w->comparator, side);
}

static void comparator_reads(World *w, ColoSide side)
{
    uint32_t batch = (uint32_t)draw_between(&w->draw, 1, w->scenario.batch);
    Parcel *p;

    while (batch-- && (p = g_queue_peek_head(&w->output[side])) && p->at <= w->now) {
        g_queue_pop_head(&w->output[side]);
        comparator_takes(w, side, p);
    }
    colo_comparator_flush(w->comparator);
    checker_time(w->checker, w->now, colo_comparator_deadline(w->comparator));
}

static void tick(World *w)
{
    colo_comparator_tick(w->comparator, w->now);
    w->tick_late = draw_between(&w->draw, 0, w->scenario.lateness);
    if (colo_comparator_deadline(w->comparator) <= w->now) {
        world_fail(w, "rule 3: a tick has not moved the deadline");
    }
    checker_time(w->checker, w->now, colo_comparator_deadline(w->comparator));
}

/* Checkpoints and failover */

static void resume(World *w, ColoSide side)
{
    Parcel *p;

    w->running[side] = true;
    w->loaded_anew = w->loaded_anew && side != COLO_SECONDARY;
    send_mark(w, side, w->epoch[side]);
    w->marked = side == COLO_SECONDARY ? w->epoch[side] : w->marked;
    if (side == COLO_PRIMARY) {
        while ((p = g_queue_pop_tail(&w->tap))) {
            p->at = w->now;
            g_queue_push_head(&w->to_guest, p);
        }
    }
}

static void copy_guest(World *w)
{
    w->guest[COLO_SECONDARY].memory = w->guest[COLO_PRIMARY].memory;
    g_queue_clear_full(&w->ring[COLO_SECONDARY], (GDestroyNotify)parcel_free);
    for (const GList *link = w->ring[COLO_PRIMARY].head; link; link = link->next) {
        const Parcel *p = link->data;
        Parcel *copy = parcel_copy(p->data, p->size, p->vnet_len);

        copy->at = p->at;
        g_queue_push_tail(&w->ring[COLO_SECONDARY], copy);
    }
}

/* COLO begins.  What the primary has sent by then has passed, for it has stood still a while. */
static void begin_comparing(World *w)
{
    Parcel *p;

    while ((p = g_queue_pop_head(&w->output[COLO_PRIMARY]))) {
        comparator_takes(w, COLO_PRIMARY, p);
    }
    colo_comparator_set_comparing(w->comparator, true, w->now);
    w->told = w->epoch[COLO_SECONDARY];
}

static void checkpoint_step(World *w)
{
    Draw *d = &w->draw;

    world_trace(w, "checkpoint: %s", step_names[w->step]);
    switch (w->step) {
    case CHECKPOINT_NONE:
        w->wanted = false;
        break;
    case CHECKPOINT_PRIMARY_PAUSES:
        w->running[COLO_PRIMARY] = false;
        break;
    case CHECKPOINT_SECONDARY_PAUSES:
        w->running[COLO_SECONDARY] = false;
        break;
    case CHECKPOINT_LOADED:
        copy_guest(w);
        w->epoch[COLO_PRIMARY]++;
        w->epoch[COLO_SECONDARY]++;
        w->loaded_anew = true;
        checker_loaded(w->checker);
        colo_rewriter_checkpoint(w->rewriter, w->now);
        take_ready(w);
        if (!w->begun) {
            begin_comparing(w);
        }
        break;
    case CHECKPOINT_SECONDARY_RESUMES:
        resume(w, COLO_SECONDARY);
        break;
    case CHECKPOINT_COMPARATOR_TOLD:
        if (w->begun) {
            colo_comparator_checkpoint(w->comparator, w->now);
            w->told++;
            checker_told(w->checker);
            w->outcome.checkpoints++;
        }
        w->begun = true;
        break;
    case CHECKPOINT_PRIMARY_RESUMES:
        resume(w, COLO_PRIMARY);
        w->step = CHECKPOINT_NONE;
        w->step_at = NEVER;
        return;
    }
    w->step++;
    w->step_at = w->now + draw_skewed(d, 0, 3 * MS);
}

static void begin_checkpoint(World *w, int64_t at)
{
    if (w->step == CHECKPOINT_NONE && !w->primary_is_dead && w->begun) {
        w->step_at = MIN(w->step_at, at);
    }
}

static void primary_dies(World *w)
{
    Parcel *p;

    world_trace(w, "the primary dies");
    w->failover_at = NEVER;
    w->primary_is_dead = true;
    w->running[COLO_PRIMARY] = false;
    w->step = CHECKPOINT_NONE;
    w->step_at = w->periodic_at = NEVER;
    w->takeover_at = w->now + draw_skewed(&w->draw, 0, 300 * MS);
    g_queue_clear_full(&w->output[COLO_PRIMARY], (GDestroyNotify)parcel_free);
    g_queue_clear_full(&w->tap, (GDestroyNotify)parcel_free);
    /* Some of what was on its way is lost with it; the rest has not left the secondary yet. */
    for (guint lost = draw_below(&w->draw, g_queue_get_length(&w->output[COLO_SECONDARY]) + 1); lost > 0; lost--) {
        parcel_free(g_queue_pop_head(&w->output[COLO_SECONDARY]));
    }
    while ((p = g_queue_peek_tail(&w->mirror)) && draw_percent(&w->draw, 70)) {
        parcel_free(g_queue_pop_tail(&w->mirror));
    }
}

static void take_over(World *w)
{
    int old;
    Parcel *p;

    world_trace(w, "the secondary takes over");
    w->takeover_at = NEVER;
    if (w->loaded_anew) {
        resume(w, COLO_SECONDARY);
    }
    w->failed_over = w->outcome.failed_over = true;
    w->running[COLO_SECONDARY] = true;
    g_queue_clear_full(&w->mirror, (GDestroyNotify)parcel_free);
    colo_rewriter_failover(w->rewriter);
    take_ready(w);
    /* What was sent before the last mark is a guest's that is no more. */
    old = last_mark(&w->output[COLO_SECONDARY]);
    for (int i = 0; (p = g_queue_pop_head(&w->output[COLO_SECONDARY])); i++) {
        if (i <= old) {
            parcel_free(p);
        } else {
            link_send(w, true, p);
        }
    }
}

/* What waits for the connection is of one epoch, of which the new connection is told first. */
static void connect_output(World *w)
{
    GQueue waiting = w->output[COLO_SECONDARY];
    int old = last_mark(&waiting);
    Parcel *p;

    g_queue_init(&w->output[COLO_SECONDARY]);
    send_mark(w, COLO_SECONDARY, w->marked);
    for (int i = 0; (p = g_queue_pop_head(&waiting)); i++) {
        if (i <= old) {
            parcel_free(p);
        } else {
            stream_send(w, &w->output[COLO_SECONDARY], p);
        }
    }
    colo_comparator_reconnected(w->comparator, COLO_SECONDARY);
}

static void break_output_or_connect(World *w)
{
    if (w->cut_off || !w->begun || w->primary_is_dead) {
        w->reconnect_at = faults(w) ? w->now + draw_between(&w->draw, 1, 2 * w->scenario.reconnect_interval) : NEVER;
    } else {
        w->reconnect_at = w->now + draw_skewed(&w->draw, 1, 50 * MS);
    }
    if (w->cut_off) {
        world_trace(w, "the secondary's output is connected again");
        w->cut_off = false;
        if (!w->primary_is_dead) {
            connect_output(w);
        }
    } else if (w->begun && !w->primary_is_dead) {
        world_trace(w, "the secondary's output breaks off");
        w->cut_off = true;
        for (guint lost = draw_below(&w->draw, g_queue_get_length(&w->output[COLO_SECONDARY]) + 1); lost > 0; lost--) {
            parcel_free(g_queue_pop_head(&w->output[COLO_SECONDARY]));
        }
        colo_comparator_reconnected(w->comparator, COLO_SECONDARY);
        colo_comparator_peer_lost(w->comparator, w->now);
    }
}

static void diverge(World *w)
{
    const Scenario *s = &w->scenario;

    w->divergence_at = faults(w) ? w->now + draw_between(&w->draw, 1, 2 * s->divergence_interval) : NEVER;
    if (w->primary_is_dead) {
        return;
    }
    world_trace(w, "the guests diverge");
    host_diverge(&w->guest[draw_below(&w->draw, COLO_SIDES)], w->now);
}

bool world_lies(World *w, const Host *h, int number)
{
    if (h != &w->guest[COLO_PRIMARY] || !has_class(&w->scenario, CLASS_LIES) || !faults(w) ||
        !draw_percent(&w->draw, 10)) {
        return false;
    }
    world_trace(w, "the primary repeats another byte");
    w->lied[number] = true;
    return true;
}

/* Input */

static void to_guest(World *w, Parcel *p)
{
    if (w->failed_over) {
        to_secondary(w, p);
    } else if (w->primary_is_dead) {
        parcel_free(p);
    } else if (!w->running[COLO_PRIMARY]) {
        g_queue_push_tail(&w->tap, p);
    } else {
        if (w->begun) {
            stream_send(w, &w->mirror, parcel_copy(p->data, p->size, p->vnet_len));
        }
        to_ring(w, COLO_PRIMARY, p);
    }
}

/* Ends */

static Host *survivor(World *w)
{
    return &w->guest[w->primary_is_dead ? COLO_SECONDARY : COLO_PRIMARY];
}

static bool is_over(World *w, int number)
{
    Host *guest = survivor(w);
    bool reset = guest->memory.tcp[number].over || w->client.memory.tcp[number].over;

    if (!reset && !(host_is_done(guest, number) && host_is_done(&w->client, number))) {
        return false;
    }
    return reset || host_is_done(&w->guest[COLO_SECONDARY], number);
}

bool world_may_open(const World *w, int number)
{
    int after = w->scenario.connection[number].after;

    return after < 0 ||
           (w->closed_at[after] != NEVER && w->now > w->closed_at[after] + w->scenario.timeout + REUSE_WAIT);
}

static bool all_is_over(World *w)
{
    bool all = true;

    for (int i = 0; i < w->scenario.connections; i++) {
        if (w->closed_at[i] == NEVER && is_over(w, i)) {
            w->closed_at[i] = w->now;
            world_trace(w, "connection %d is over", i);
        }
        all = all && w->closed_at[i] != NEVER;
    }
    for (int i = 0; i < w->scenario.flows; i++) {
        all = all && w->client.requests[i] == w->scenario.flow[i].requests;
    }
    if (!all || w->to_client.head || w->to_guest.head || w->tap.head || w->mirror.head || w->ready.head ||
        (w->ring[COLO_PRIMARY].head && !w->primary_is_dead) || w->ring[COLO_SECONDARY].head ||
        w->step != CHECKPOINT_NONE || w->takeover_at != NEVER) {
        return false;
    }
    if (survivor(w)->memory.answers || w->guest[COLO_SECONDARY].memory.answers) {
        return false;
    }
    /* What only the secondary has sent may wait for ever. */
    return w->primary_is_dead ||
           (!w->output[COLO_PRIMARY].head && !is_readable(w, COLO_SECONDARY) && !checker_held(w->checker));
}

static void check_connection(World *w, int number)
{
    const Connection *c = &w->scenario.connection[number];
    Tcp *client = &w->client.memory.tcp[number];
    Tcp *guest = &survivor(w)->memory.tcp[number];
    const GByteArray *got = w->client.got[number];
    bool may_end_early = c->guest_aborts || c->client_aborts || c->opens == OPENS_REFUSED;

    w->outcome.bytes_received += got->len;
    if (client->was_reset && !c->guest_aborts && c->opens != OPENS_REFUSED) {
        world_fail(w, "connection %d was reset", number);
    }
    if (guest->was_reset && !c->client_aborts) {
        world_fail(w, "connection %d was reset by the client", number);
    }
    if (!may_end_early && (got->len != guest->total || !client->fin_got || !guest->fin_got)) {
        world_fail(w, "connection %d has ended with %u of %u bytes", number, got->len, guest->total);
    }
    if (!w->lied[number]) {
        for (uint32_t i = 0; i < got->len && i + 1 < client->got; i++) {
            if (got->data[i] != tcp_content(guest, i)) {
                world_fail(w, "connection %d: the client has got another byte at offset %u than the guest stands by",
                           number, i);
            }
        }
    }
}

static void check_end(World *w)
{
    colo_rewriter_failover(w->rewriter);    /* so that nothing has to wait any more */
    take_ready(w);
    if (w->outcome.frames_ready != w->outcome.frames_waited) {
        world_fail(w, "%" PRIu64 " frames have waited in the rewriter, %" PRIu64 " have left it",
                   w->outcome.frames_waited, w->outcome.frames_ready);
    }
    for (int i = 0; i < w->scenario.connections; i++) {
        check_connection(w, i);
    }
    if (!w->primary_is_dead) {
        const ColoComparatorStats *stats = colo_comparator_stats(w->comparator);

        if (stats->held[COLO_PRIMARY] || stats->held_bytes[COLO_PRIMARY]) {
            world_fail(w, "the comparator counts %u frames as held", stats->held[COLO_PRIMARY]);
        }
    }
}

static void describe_stuck(World *w)
{
    char text[300] = "";

    for (int i = 0; i < w->scenario.connections; i++) {
        if (w->closed_at[i] == NEVER && strlen(text) < 200) {
            const Tcp *g = &survivor(w)->memory.tcp[i];
            const Tcp *s = &w->guest[COLO_SECONDARY].memory.tcp[i];
            const Tcp *c = &w->client.memory.tcp[i];
            size_t at = strlen(text);

            g_snprintf(text + at, sizeof(text) - at,
                       "; c%d guest %u/%u/%u got %u, secondary %u/%u/%u got %u, client %u/%u/%u got %u", i, g->una,
                       g->max, g->written, g->got, s->una, s->max, s->written, s->got, c->una, c->max, c->written,
                       c->got);
        }
    }
    world_fail(w,
               "progress: it does not come to an end; %u frames held; under way: %u %u %u %u %u %u %u, answers %d %d%s",
               checker_held(w->checker), w->to_client.length, w->to_guest.length, w->tap.length, w->mirror.length,
               w->ready.length, w->output[COLO_PRIMARY].length, w->output[COLO_SECONDARY].length,
               w->guest[COLO_PRIMARY].memory.answers, w->guest[COLO_SECONDARY].memory.answers, text);
}

/* Time */

static int64_t comparator_deadline(const World *w)
{
    int64_t deadline = colo_comparator_deadline(w->comparator);

    return w->primary_is_dead || deadline == NEVER ? NEVER : deadline + w->tick_late;
}

static int64_t next_moment(const World *w)
{
    int64_t next = MIN(head_at(&w->to_client), head_at(&w->to_guest));

    next = MIN(next, host_deadline(&w->client));
    for (ColoSide side = COLO_PRIMARY; side < COLO_SIDES; side++) {
        if (w->running[side]) {
            next = MIN(next, MIN(host_deadline(&w->guest[side]), head_at(&w->ring[side])));
        }
        if (is_readable(w, side)) {
            next = MIN(next, head_at(&w->output[side]));
        }
    }
    if (w->running[COLO_SECONDARY]) {
        next = MIN(next, w->ready.head ? w->now : head_at(&w->mirror));
    }
    next = MIN(next, comparator_deadline(w));
    next = MIN(next, MIN(w->step_at, w->periodic_at));
    next = MIN(next, MIN(w->failover_at, w->takeover_at));
    next = MIN(next, MIN(w->divergence_at, w->reconnect_at));
    return MAX(next, w->now);
}

static void step(World *w)
{
    Parcel *p;

    while (w->running[COLO_SECONDARY] && (p = g_queue_pop_head(&w->ready))) {
        to_ring(w, COLO_SECONDARY, p);
    }
    if (head_at(&w->to_client) <= w->now) {
        p = g_queue_pop_head(&w->to_client);
        host_gets(w, &w->client, p);
        parcel_free(p);
    }
    if (head_at(&w->to_guest) <= w->now) {
        to_guest(w, g_queue_pop_head(&w->to_guest));
    }
    if (w->running[COLO_SECONDARY] && !w->failed_over && head_at(&w->mirror) <= w->now) {
        to_secondary(w, g_queue_pop_head(&w->mirror));
    }
    host_wake(&w->client, w->now);
    for (ColoSide side = COLO_PRIMARY; side < COLO_SIDES; side++) {
        if (w->running[side]) {
            if (head_at(&w->ring[side]) <= w->now) {
                p = g_queue_pop_head(&w->ring[side]);
                host_gets(w, &w->guest[side], p);
                parcel_free(p);
            }
            host_wake(&w->guest[side], w->now);
        }
        if (is_readable(w, side) && head_at(&w->output[side]) <= w->now) {
            comparator_reads(w, side);
        }
    }
    if (comparator_deadline(w) <= w->now) {
        tick(w);
    }
    if (w->wanted) {
        begin_checkpoint(w, w->now + draw_skewed(&w->draw, 0, MS));
    }
    if (w->periodic_at <= w->now) {
        w->periodic_at = faults(w) ? w->now + draw_between(&w->draw, 1, 2 * w->scenario.checkpoint_interval) : NEVER;
        begin_checkpoint(w, w->now);
    }
    if (w->step_at <= w->now) {
        checkpoint_step(w);
    }
    if (w->failover_at <= w->now) {
        primary_dies(w);
    }
    if (w->takeover_at <= w->now) {
        take_over(w);
    }
    if (w->divergence_at <= w->now) {
        diverge(w);
    }
    if (w->reconnect_at <= w->now) {
        break_output_or_connect(w);
    }
}

/* A number that grows as long as anything gets done. */
static uint64_t progress_of(World *w)
{
    uint64_t progress = 0;

    for (int i = 0; i < w->scenario.connections; i++) {
        const Tcp *guest = &survivor(w)->memory.tcp[i];
        const Tcp *client = &w->client.memory.tcp[i];

        progress += guest->una + guest->got + guest->read + guest->over;
        progress += client->una + client->got + client->read + client->over + client->opened;
    }
    for (int i = 0; i < w->scenario.flows; i++) {
        progress += w->client.requests[i];
    }
    return progress;
}

static void run(World *w)
{
    uint64_t idle = 0, progress = UINT64_MAX;
    int64_t limit = NEVER;

    while (!all_is_over(w)) {
        int64_t next = next_moment(w);

        if (!faults(w) && progress_of(w) != progress) {
            progress = progress_of(w);
            limit = w->now + PATIENCE;
        }
        if (next > limit) {
            describe_stuck(w);
        }
        idle = next > w->now ? 0 : idle + 1;
        if (idle > 100000) {
            world_fail(w, "time stands still");
        }
        w->now = next;
        step(w);
    }
    check_end(w);
}

/* Life */

static World *world_new(uint64_t seed, uint32_t classes, FILE *trace)
{
    static const ColoComparatorOps ops = { .release = on_release, .diverged = on_diverged };
    static const uint8_t secret[16] = "of no importance";
    ColoComparatorConfig config = { .secret = "of no importance" };
    World *w = g_new0(World, 1);
    const Scenario *s = &w->scenario;

    scenario_draw(&w->scenario, seed, classes);
    w->trace = trace;
    w->draw = draw_new(seed, PURPOSE_WORLD);
    w->now = 1;
    config.timeout = s->timeout;
    config.quiet = s->quiet;
    config.gather = s->gather;
    config.queue_size = s->queue_size;
    w->comparator = colo_comparator_new(&config, &ops, w);
    w->rewriter = colo_rewriter_new(secret);
    w->checker = checker_new(w, s);
    for (int i = 0; i < CONNECTIONS_MAX; i++) {
        w->closed_at[i] = NEVER;
    }
    host_init(&w->client, w, "client", CLIENT, PURPOSE_CLIENT);
    host_init(&w->guest[COLO_PRIMARY], w, "primary", GUEST, PURPOSE_PRIMARY);
    host_init(&w->guest[COLO_SECONDARY], w, "secondary", GUEST, PURPOSE_SECONDARY);
    w->step_at = s->begins_at ? s->begins_at : NEVER;
    w->takeover_at = NEVER;
    w->failover_at = s->failover_at;
    w->periodic_at = s->checkpoint_interval ? draw_between(&w->draw, 0, s->checkpoint_interval) : NEVER;
    w->divergence_at = s->divergence_interval ? draw_between(&w->draw, 0, s->divergence_interval) : NEVER;
    w->reconnect_at = s->reconnect_interval ? draw_between(&w->draw, 0, s->reconnect_interval) : NEVER;
    return w;
}

static void world_free(World *w)
{
    GQueue *queues[] = { &w->to_client, &w->to_guest, &w->tap, &w->mirror, &w->ready, &w->output[COLO_PRIMARY],
                         &w->output[COLO_SECONDARY], &w->ring[COLO_PRIMARY], &w->ring[COLO_SECONDARY] };

    if (!w->outcome.failed) {           /* else the run may have ended in the midst of the core's work */
        w->primary_is_dead = true;      /* whatever is still held goes nowhere */
        colo_comparator_free(w->comparator);
        colo_rewriter_free(w->rewriter);
    }
    checker_free(w->checker);
    for (size_t i = 0; i < G_N_ELEMENTS(queues); i++) {
        g_queue_clear_full(queues[i], (GDestroyNotify)parcel_free);
    }
    host_clear(&w->client);
    g_free(w);
}

Outcome world_run(uint64_t seed, uint32_t classes, FILE *trace)
{
    World *w = world_new(seed, classes, trace);
    Outcome outcome;

    if (!setjmp(w->over)) {
        w->running[COLO_PRIMARY] = true;
        if (!w->scenario.begins_at) {
            w->begun = w->running[COLO_SECONDARY] = true;
            colo_comparator_set_comparing(w->comparator, true, w->now);
            colo_comparator_resumed(w->comparator, COLO_PRIMARY, 0, w->now);
            colo_comparator_resumed(w->comparator, COLO_SECONDARY, 0, w->now);
        }
        run(w);
    }
    w->outcome.simulated = w->now;
    outcome = w->outcome;
    world_free(w);
    return outcome;
}
