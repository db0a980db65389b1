/*
 * The checker: it knows the three rules, what goes in and what comes out
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Theory of operation
 *
 * Each frame of the primary's that has gone into the comparator waits in a list of its flow until all of it has come
 * out.  What comes out is the next piece of one of those frames, byte for byte, or nothing has sent it.  It is the
 * first of them, unless it begins with a repetition of what has come out before (the one freedom in the order).
 *
 * What may come out is known by position.  For each unit of each guest stream there are the values that the secondary
 * can stand by: what it has itself sent since it last became the primary's copy, as far as that has reached the
 * comparator, and what the primary had sent before.  Positions come from the models, which know them, and from no
 * sequence number; so a wrong mapping shows.  The same for acknowledgements (one position), resets, and datagrams (by
 * number).
 *
 * A window may come out narrower than it went in, and must if it lets the client send what the secondary has no room
 * for; but never narrower than the secondary's own.
 */

#include "checker.h"

#include <inttypes.h>
#include <string.h>

#include "world.h"

enum {
    NOTHING = 0x8000,
    VALUE_SYN = 0x100,
    VALUE_FIN = 0x101,
    VALUES = 3,             /* different ones at one position that are remembered */
};

/* What somebody says at one position. */
typedef struct {
    uint16_t value[VALUES];
} Unit;

/* What somebody has said in one connection. */
typedef struct {
    GArray *units;          /* of Unit */
    uint32_t ack;
    bool acked;
    uint32_t edge;          /* behind the last unit that the client was allowed to send */
    uint16_t window;        /* with that acknowledgement, as in the header; of a SYN, nothing */
    bool reset;
    uint8_t syn_options[40];
    uint32_t syn_options_len;
} Said;

/* A frame of the primary's in the comparator. */
typedef struct {
    Parcel parcel;
    Reading r;
    int64_t since;
    uint32_t done;          /* units that have come out */
    uint16_t told;          /* the widest window with any of them */
} Waiting;

typedef struct {
    Said primary;           /* all it has sent */
    Said base;              /* what it had sent when the secondary became its copy */
    Said secondary;         /* what it has sent since */
    uint32_t out;           /* behind the highest unit that has come out */
} Stream;

struct Checker {
    World *world;
    const Scenario *scenario;
    Stream stream[CONNECTIONS_MAX];
    GQueue waiting[CONNECTIONS_MAX];
    GQueue waiting_datagrams[FLOWS_MAX];
    GHashTable *secondary_datagrams;    /* what it has sent, by name; how often */
    bool asked;
    uint32_t epoch;         /* how often the secondary has become the primary's copy */
    uint32_t held;
};

/* Life */

static void said_init(Said *said)
{
    said->units = g_array_new(false, false, sizeof(Unit));
}

static void said_forget(Said *said)
{
    g_array_set_size(said->units, 0);
    said->acked = said->reset = false;
    said->edge = said->window = said->syn_options_len = 0;
}

static void said_copy(Said *to, const Said *from)
{
    GArray *units = to->units;

    g_array_set_size(units, 0);
    g_array_append_vals(units, from->units->data, from->units->len);
    *to = *from;
    to->units = units;
}

Checker *checker_new(World *w, const Scenario *s)
{
    Checker *k = g_new0(Checker, 1);

    k->world = w;
    k->scenario = s;
    for (int i = 0; i < CONNECTIONS_MAX; i++) {
        said_init(&k->stream[i].primary);
        said_init(&k->stream[i].base);
        said_init(&k->stream[i].secondary);
    }
    k->secondary_datagrams = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    return k;
}

static void waiting_free(gpointer data)
{
    Waiting *waiting = data;

    g_free(waiting->parcel.data);
    g_free(waiting);
}

void checker_free(Checker *k)
{
    for (int i = 0; i < CONNECTIONS_MAX; i++) {
        g_array_free(k->stream[i].primary.units, true);
        g_array_free(k->stream[i].base.units, true);
        g_array_free(k->stream[i].secondary.units, true);
        g_queue_clear_full(&k->waiting[i], waiting_free);
    }
    for (int i = 0; i < FLOWS_MAX; i++) {
        g_queue_clear_full(&k->waiting_datagrams[i], waiting_free);
    }
    g_hash_table_destroy(k->secondary_datagrams);
    g_free(k);
}

/* What has been said */

static uint16_t value_of(const Meta *m, const Reading *r, uint32_t unit)
{
    if (unit == 0) {
        return VALUE_SYN;
    }
    if (r->tcp.flags & FIN && unit + 1 == m->unit + m->units) {
        return VALUE_FIN;
    }
    return r->tcp.payload[unit - MAX(m->unit, 1)];
}

static void say_value(Said *said, uint32_t unit, uint16_t value)
{
    Unit *u;

    while (said->units->len <= unit) {
        static const Unit nothing = { { NOTHING, NOTHING, NOTHING } };

        g_array_append_val(said->units, nothing);
    }
    u = &g_array_index(said->units, Unit, unit);
    for (int i = 0; i < VALUES; i++) {
        if (u->value[i] == value) {
            return;
        }
        if (u->value[i] == NOTHING) {
            u->value[i] = value;
            return;
        }
    }
}

static bool has_said(const Said *said, uint32_t unit, uint16_t value)
{
    const Unit *u;

    if (unit >= said->units->len) {
        return false;
    }
    u = &g_array_index(said->units, Unit, unit);
    return u->value[0] == value || u->value[1] == value || u->value[2] == value;
}

/* A SYN's options without the values of timestamps. */
static uint32_t plain_options(const Parcel *p, const Reading *r, uint8_t options[40])
{
    memcpy(options, p->data + r->options, r->options_len);
    for (uint32_t at = 0; at < r->options_len && options[at];) {
        if (options[at] == 8) {
            memset(options + at + 2, 0, 8);
        }
        at += options[at] == 1 ? 1 : options[at + 1];
    }
    return r->options_len;
}

/* Behind the last unit that @m allows the client to send, with this window. */
static uint32_t edge_of(const Meta *m, uint16_t window)
{
    return m->ack_unit + ((uint32_t)window << m->shift);
}

static void say(Said *said, const Parcel *p, const Reading *r)
{
    const Meta *m = &p->meta;

    if (m->flags & RST) {
        said->reset = true;
        if (m->stray) {
            return;
        }
    }
    for (uint32_t unit = m->unit; unit < m->unit + m->units; unit++) {
        say_value(said, unit, value_of(m, r, unit));
    }
    if (m->flags & SYN) {
        said->syn_options_len = plain_options(p, r, said->syn_options);
    }
    if (m->flags & ACK) {
        if (!said->acked || m->ack_unit > said->ack) {
            said->ack = m->ack_unit;
            said->window = 0;
        }
        said->acked = true;
        if (m->ack_unit == said->ack && !(m->flags & (SYN | RST))) {
            said->window = MAX(said->window, r->tcp.window);
        }
        if (!(m->flags & RST)) {
            said->edge = MAX(said->edge, edge_of(m, r->tcp.window));
        }
    }
}

/*
 * What a datagram, or a fragment of one, says: a name for each stretch of eight bytes, counted in @said, up (@by is 1)
 * or down. Returns false if a count is 0 already.
 */
static bool count_datagram(GHashTable *said, const Parcel *p, const Reading *r, int by)
{
    const Meta *m = &p->meta;
    const uint8_t *bytes = p->data + (r->fragment ? r->l4 : r->payload - 8);

    for (uint32_t at = m->from; at < m->to; at += 8) {
        uint32_t len = MIN(8, m->to - at);
        uint64_t word = 0;
        char *name;
        int count;

        if (at > 0) {           /* the transport's header has a checksum, which may be left to offload or not */
            memcpy(&word, bytes + (at - m->from), len);
        }
        name = g_strdup_printf("%d %u %u %u %" PRIx64, m->number, m->datagram, at, len, word);
        count = GPOINTER_TO_INT(g_hash_table_lookup(said, name)) + by;
        if (count < 0) {
            g_free(name);
            return false;
        }
        g_hash_table_insert(said, name, GINT_TO_POINTER(count));
    }
    return true;
}

void checker_primary_sends(Checker *k, const Parcel *p)
{
    Reading r;
    const char *wrong = frame_read(&r, p->data, p->size, p->vnet_len);

    g_assert(!wrong);
    if (p->meta.tcp) {
        say(&k->stream[p->meta.number].primary, p, &r);
    }
}

void checker_loaded(Checker *k)
{
    for (int i = 0; i < k->scenario->connections; i++) {
        said_copy(&k->stream[i].base, &k->stream[i].primary);
        said_forget(&k->stream[i].secondary);
    }
    g_hash_table_remove_all(k->secondary_datagrams);
    k->epoch++;
}

/* In */

static GQueue *queue_of(Checker *k, const Meta *m)
{
    if (!m->tcp) {
        return &k->waiting_datagrams[m->number];
    }
    /* Connections with the same ports are one flow. */
    for (int i = m->number;; i = k->scenario->connection[i].after) {
        if (k->scenario->connection[i].after < 0) {
            return &k->waiting[i];
        }
    }
}

void checker_in(Checker *k, bool primary, const Parcel *p, int64_t now)
{
    Waiting *waiting;
    Reading r;

    g_assert(!frame_read(&r, p->data, p->size, p->vnet_len));
    if (!primary) {
        if (p->meta.epoch != k->epoch) {
            return;         /* sent by a guest that is no more */
        }
        if (p->meta.tcp) {
            say(&k->stream[p->meta.number].secondary, p, &r);
        } else {
            count_datagram(k->secondary_datagrams, p, &r, 1);
        }
        return;
    }
    waiting = g_new0(Waiting, 1);
    waiting->parcel = *p;
    waiting->parcel.data = g_memdup2(p->data, p->size);
    g_assert(!frame_read(&waiting->r, waiting->parcel.data, p->size, p->vnet_len));
    waiting->since = now;
    g_queue_push_tail(queue_of(k, &p->meta), waiting);
    k->held++;
}

/* Out */

/* True if nothing up to @end differs but the window and the checksum. */
static bool same_but_for_window(const uint8_t *a, const uint8_t *b, uint32_t l4, uint32_t end)
{
    return !memcmp(a, b, l4 + 14) && !memcmp(a + l4 + 18, b + l4 + 18, end - l4 - 18);
}

/* What differs between a frame and a piece of it, apart from what cutting and narrowing change; NULL if nothing. */
static const char *difference(const Waiting *w, const Reading *out, const uint8_t *frame, uint32_t vnet_len)
{
    const uint8_t *in = w->parcel.data;
    const Reading *r = &w->r;
    uint32_t done_bytes = w->done ? w->done - (r->tcp.flags & SYN ? 1 : 0) : 0;
    uint32_t units = out->tcp.len + !!(out->tcp.flags & SYN) + !!(out->tcp.flags & FIN);
    bool whole = units == w->parcel.meta.units;
    bool last = w->done + units == w->parcel.meta.units;
    bool narrowed = out->tcp.window < r->tcp.window;
    uint8_t changing = FIN | SYN | PSH | URG;
    uint32_t ip_len = r->l4 - r->ip;

    if (vnet_len != w->parcel.vnet_len || r->l4 != out->l4 || r->options_len != out->options_len) {
        return "the layout of the headers";
    }
    if (memcmp(frame + vnet_len, in + vnet_len, r->ip - vnet_len) != 0) {
        return "the Ethernet header";
    }
    if (r->ipv6
            ? memcmp(frame + r->ip, in + r->ip, 4) != 0 || memcmp(frame + r->ip + 6, in + r->ip + 6, ip_len - 6) != 0
            : memcmp(frame + r->ip, in + r->ip, 2) != 0 || memcmp(frame + r->ip + 4, in + r->ip + 4, 6) != 0 ||
                  memcmp(frame + r->ip + 12, in + r->ip + 12, ip_len - 12) != 0) {
        return "the IP header";
    }
    if (memcmp(frame + r->l4, in + r->l4, 4) != 0 || memcmp(frame + r->l4 + 8, in + r->l4 + 8, 5) != 0 ||
        memcmp(frame + r->options, in + r->options, r->options_len) != 0) {
        return "the TCP header";
    }
    if (out->tcp.seq != r->tcp.seq + w->done || w->done + units > w->parcel.meta.units) {
        return "the position";
    }
    if ((out->tcp.flags & ~changing) != (r->tcp.flags & ~changing) ||
        (out->tcp.flags & SYN) != (w->done ? 0 : r->tcp.flags & SYN) ||
        (out->tcp.flags & FIN) != (last ? r->tcp.flags & FIN : 0) || out->tcp.flags & ~r->tcp.flags) {
        return "the flags";
    }
    if (out->tcp.flags & URG && (uint16_t)(out->tcp.urgent + w->done) != r->tcp.urgent) {
        return "where urgent data ends";
    }
    if (r->tcp.flags & URG && r->tcp.urgent > w->done && !(out->tcp.flags & URG)) {
        return "urgent data";
    }
    if (done_bytes + out->len > r->len || memcmp(out->bytes, r->bytes + done_bytes, out->len) != 0) {
        return "the payload";
    }
    if (out->needs_csum != r->needs_csum ||
        (out->gso_type != r->gso_type && (out->gso_type || out->len > r->gso_size)) ||
        (out->gso_type && out->gso_size != r->gso_size)) {
        return "the offload";
    }
    if (out->tcp.window > r->tcp.window || (narrowed && (r->tcp.flags & (SYN | RST) || !(r->tcp.flags & ACK)))) {
        return "the window";
    }
    if (whole && (narrowed ? !same_but_for_window(frame, in, r->l4, r->end) : memcmp(frame, in, r->end) != 0)) {
        return "something in the headers";
    }
    return NULL;
}

/* The client may send what both guests have room for, and not less. */
static void check_window(Checker *k, const Waiting *w, uint16_t window)
{
    const Meta *m = &w->parcel.meta;
    const Stream *s = &k->stream[m->number];
    uint32_t allowed = MAX(s->secondary.acked ? s->secondary.edge : 0, s->base.acked ? s->base.edge : 0);

    if (edge_of(m, window) > allowed) {
        world_fail(k->world, "connection %d: the client is allowed to send up to unit %u, the secondary has room up to %u",
                   m->number, edge_of(m, window), allowed);
    }
    if (window < w->r.tcp.window && window < s->secondary.window && !s->secondary.reset) {
        world_fail(k->world, "connection %d: a window of %u is narrowed to %u, the secondary's is %u", m->number,
                   w->r.tcp.window, window, s->secondary.window);
    }
}

static void check_commit(Checker *k, const Waiting *w, uint32_t units, uint16_t window)
{
    const Meta *m = &w->parcel.meta;
    const Stream *s = &k->stream[m->number];
    uint32_t from = m->unit + w->done;
    bool acked =
        (s->secondary.acked && m->ack_unit <= s->secondary.ack) || (s->base.acked && m->ack_unit <= s->base.ack);

    if (!k->world->begun || m->epoch < k->epoch) {
        return;             /* nothing is compared yet; or it was in the checkpoint */
    }
    if (m->flags & RST) {
        if (!s->secondary.reset && !s->base.reset) {
            world_fail(k->world, "rule 1: a RST of connection %d has left that the secondary has not sent", m->number);
        }
        return;
    }
    for (uint32_t unit = from; unit < from + units; unit++) {
        uint16_t value = value_of(m, &w->r, unit);

        if (!has_said(&s->secondary, unit, value) && !has_said(&s->base, unit, value)) {
            world_fail(k->world, "rule 1: unit %u of connection %d (%s) has left and the secondary has not sent it",
                       unit, m->number,
                       value == VALUE_SYN ? "SYN" : value == VALUE_FIN ? "FIN" : "a byte");
            return;
        }
    }
    if (m->flags & SYN && w->done == 0) {
        uint8_t options[40];
        uint32_t len = plain_options(&w->parcel, &w->r, options);
        bool same = len == s->secondary.syn_options_len && !memcmp(options, s->secondary.syn_options, len);
        bool base = len == s->base.syn_options_len && !memcmp(options, s->base.syn_options, len);

        if (!same && !base) {
            world_fail(k->world, "rule 1: a SYN of connection %d has left with other options", m->number);
        }
    }
    if (m->flags & ACK && !acked) {
        world_fail(k->world, "rule 1: connection %d: an acknowledgement of unit %u has left, the secondary's is %d",
                   m->number, m->ack_unit, s->secondary.acked ? (int)s->secondary.ack : -1);
    }
    if (m->flags & ACK && !(m->flags & SYN)) {
        check_window(k, w, window);
    }
}

static void check_datagram(Checker *k, const Waiting *w)
{
    if (!k->world->begun || w->parcel.meta.epoch < k->epoch ||
        count_datagram(k->secondary_datagrams, &w->parcel, &w->r, -1)) {
        return;
    }
    world_fail(k->world, "rule 1: datagram %u of flow %d has left and the secondary has not sent it",
               w->parcel.meta.datagram, w->parcel.meta.number);
}

static void complain_unknown(Checker *k, const Meta *m, const Reading *out, const Waiting *first, const uint8_t *frame,
                             uint32_t vnet_len)
{
    if (m->tcp) {
        world_fail(k->world,
                   "rule 2: connection %d: a frame has left (flags %02x, sequence number %u, %u bytes) that the "
                   "primary has not sent so; the first that waits differs in %s",
                   m->number, out->tcp.flags, out->tcp.seq, out->len,
                   first ? difference(first, out, frame, vnet_len) : "that there is none");
    } else {
        world_fail(k->world, "rule 2: flow %d: a datagram has left that the primary has not sent so", m->number);
    }
}

/* True if pieces of both look the same. */
static bool are_alike(const Waiting *a, const Waiting *b)
{
    return a->r.tcp.ack == b->r.tcp.ack && a->r.options_len == b->r.options_len &&
           !memcmp(a->parcel.data + a->r.options, b->parcel.data + b->r.options, a->r.options_len);
}

/* True if what has left of @taken from its unit @from on may as well have been others', to which it is made over then. */
static bool make_over(Checker *k, GQueue *queue, const Waiting *taken, uint32_t from)
{
    if (from == taken->done) {
        return true;
    }
    for (GList *link = queue->head; link; link = link->next) {
        Waiting *w = link->data;
        uint32_t left = w->parcel.meta.units - w->done;
        uint32_t units = MIN(left, taken->done - from);

        if (w == taken || !units || w->r.tcp.seq + w->done != taken->r.tcp.seq + from || !are_alike(w, taken) ||
            taken->told > w->r.tcp.window || (units == left && w->r.tcp.flags & FIN)) {
            continue;
        }
        w->done += units;
        if (make_over(k, queue, taken, from + units)) {
            w->told = MAX(w->told, taken->told);
            if (units == left) {
                g_queue_delete_link(queue, link);
                waiting_free(w);
                k->held--;
            }
            return true;
        }
        w->done -= units;
    }
    return false;
}

/*
 * A piece may fit several frames that wait, and has been taken for one of the first.  If @out shows that it was
 * another's, or several others', it is made over to those.
 */
static bool take_for_another(Checker *k, GQueue *queue, const Reading *out, const uint8_t *frame, uint32_t vnet_len)
{
    for (GList *link = queue->head; link; link = link->next) {
        Waiting *taken = link->data;
        uint32_t from = out->tcp.seq - taken->r.tcp.seq;
        uint32_t done = taken->done;
        bool fits;

        if (from >= done) {
            continue;
        }
        taken->done = from;
        fits = !difference(taken, out, frame, vnet_len);
        taken->done = done;
        if (fits && make_over(k, queue, taken, from)) {
            taken->done = from;
            return true;
        }
    }
    return false;
}

static void segment_out(Checker *k, GQueue *queue, const Meta *m, const Reading *out, const uint8_t *frame,
                        uint32_t vnet_len, bool again)
{
    uint32_t units = out->tcp.len + !!(out->tcp.flags & SYN) + !!(out->tcp.flags & FIN);
    bool first = true;

    for (GList *link = queue->head; link; link = link->next, first = false) {
        Waiting *w = link->data;
        Stream *s = &k->stream[w->parcel.meta.number];
        uint32_t end = w->parcel.meta.unit + w->done + units;

        if (difference(w, out, frame, vnet_len)) {
            continue;
        }
        if (!first && !again && take_for_another(k, queue, out, frame, vnet_len)) {
            segment_out(k, queue, m, out, frame, vnet_len, true);
            return;
        }
        check_commit(k, w, units, out->tcp.window);
        if (!first && (!units || end - units > s->out)) {
            world_fail(k->world, "rule 2: connection %d: units %u to %u have left before what was sent earlier",
                       w->parcel.meta.number, w->parcel.meta.unit + w->done, end);
        }
        s->out = MAX(s->out, end);
        w->done += units;
        w->told = MAX(w->told, out->tcp.window);
        k->world->outcome.frames_narrowed += out->tcp.window < w->r.tcp.window;
        if (w->done == w->parcel.meta.units) {
            g_queue_delete_link(queue, link);
            waiting_free(w);
            k->held--;
        }
        return;
    }
    if (!again && take_for_another(k, queue, out, frame, vnet_len)) {
        segment_out(k, queue, m, out, frame, vnet_len, true);
    } else {
        complain_unknown(k, m, out, g_queue_peek_head(queue), frame, vnet_len);
    }
}

static void datagram_out(Checker *k, GQueue *queue, const Meta *m, const Reading *out, const uint8_t *frame,
                         uint32_t size, uint32_t vnet_len)
{
    Waiting *w = g_queue_pop_head(queue);

    if (!w || w->parcel.size != size || memcmp(w->parcel.data, frame, size) != 0) {
        complain_unknown(k, m, out, NULL, frame, vnet_len);
    } else {
        check_datagram(k, w);
        k->held--;
    }
    if (w) {
        waiting_free(w);
    }
}

void checker_released(Checker *k, const uint8_t *frame, uint32_t size, uint32_t vnet_len)
{
    Reading out;
    Meta m;
    const char *wrong = frame_read(&out, frame, size, vnet_len);

    if (wrong) {
        world_fail(k->world, "rule 2: a frame has left in which %s", wrong);
    } else if (!scenario_find(k->scenario, &out, false, &m)) {
        world_fail(k->world, "rule 2: a frame has left that belongs to nothing");
    } else if (m.tcp) {
        segment_out(k, queue_of(k, &m), &m, &out, frame, vnet_len, false);
    } else {
        datagram_out(k, queue_of(k, &m), &m, &out, frame, size, vnet_len);
    }
}

/* Time */

void checker_asked(Checker *k)
{
    if (k->asked) {
        world_fail(k->world, "rule 3: a second checkpoint is asked for in one epoch");
    }
    k->asked = true;
}

void checker_told(Checker *k)
{
    k->asked = false;
    if (k->held) {
        world_fail(k->world, "rule 2: %u frames are still held after a checkpoint", k->held);
    }
}

static void check_queue(Checker *k, const GQueue *queue, int64_t now, int64_t deadline)
{
    const Waiting *w = g_queue_peek_head((GQueue *)queue);

    if (w && w->parcel.meta.tcp && queue->length > k->scenario->queue_size + k->scenario->batch) {
        world_fail(k->world, "connection %d: %u frames are held", w->parcel.meta.number, queue->length);
    }
    if (!w || k->asked) {
        return;
    }
    if (now > w->since + k->scenario->timeout + k->scenario->lateness) {
        world_fail(k->world,
                   "rule 3: a frame of %s %d (flags %02x, unit %u) is held for %d ms and nothing has been asked for",
                   w->parcel.meta.tcp ? "connection" : "flow", w->parcel.meta.number, w->parcel.meta.flags,
                   w->parcel.meta.unit, (int)((now - w->since) / MS));
    } else if (deadline > w->since + k->scenario->timeout) {
        world_fail(k->world, "rule 3: a frame is held without a deadline");
    }
}

void checker_time(Checker *k, int64_t now, int64_t deadline)
{
    for (int i = 0; i < CONNECTIONS_MAX; i++) {
        check_queue(k, &k->waiting[i], now, deadline);
    }
    for (int i = 0; i < FLOWS_MAX; i++) {
        check_queue(k, &k->waiting_datagrams[i], now, deadline);
    }
    if (k->held == 0 && deadline < now - k->scenario->lateness) {
        world_fail(k->world, "rule 3: the deadline has passed and does not move");
    }
}

uint32_t checker_held(const Checker *k)
{
    return k->held;
}
