/*
 * Hosts: the client and the two guests
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A host is a set of TCP ends, one per connection of the scenario, and an application that answers datagrams.  What a
 * guest is at a moment lies in its Memory, which a checkpoint copies; how its machine does things (Style, Draw) does
 * not.
 */

#include "host.h"

#include <string.h>

#include "world.h"

enum {
    PROTO_TCP = 6,
};

static void draw_style(Host *h)
{
    Draw *d = &h->draw;
    Style *s = &h->style;

    s->segment_max = (uint32_t)draw_between(d, 100, 1460);
    s->segment_min = draw_percent(d, 50) ? s->segment_max : (uint32_t)draw_between(d, 1, s->segment_max);
    if (draw_percent(d, 50)) {
        s->segment_min = s->segment_max = 1460;
    }
    s->big_percent = h->scenario->vnet_len ? (uint32_t)draw_between(d, 0, 80) : 0;
    s->window = (uint32_t)draw_between(d, 2, 20);
    s->ack_delay = draw_percent(d, 30) ? 0 : draw_between(d, 1, 60) * MS;
    s->ack_every = (uint32_t)draw_between(d, 1, 4);
    s->write_percent = (uint32_t)draw_between(d, 0, 80);
    s->think = h->scenario->think;
    s->nagle = draw_percent(d, 50);
    s->lone_fin = draw_percent(d, 50);
    s->checksum_percent = h->scenario->vnet_len ? (uint32_t)draw_between(d, 0, 100) : 0;
    s->buffer_percent = s->read_percent = 100;
    if (h->end == GUEST && h->scenario->readers_differ) {
        s->dawdle = draw_percent(d, 50) ? 0 : draw_skewed(d, 1 * MS, 200 * MS);
        s->buffer_percent = draw_percent(d, 50) ? 100 : (uint32_t)draw_between(d, 50, 100);
        s->read_percent = draw_percent(d, 50) ? 100 : (uint32_t)draw_between(d, 25, 100);
    }
}

static const Tcp *before(const Host *h, int number)
{
    while ((number = h->scenario->connection[number].after) >= 0) {
        if (h->memory.tcp[number].opened) {
            return &h->memory.tcp[number];
        }
    }
    return NULL;
}

static TcpContext context(Host *h, int number, int64_t now)
{
    return (TcpContext) {
        .host = h,
        .draw = &h->draw,
        .style = &h->style,
        .c = &h->scenario->connection[number],
        .number = number,
        .end = h->end,
        .now = now,
        .before = before(h, number),
        .may_open = world_may_open(h->world, number),
        .offload = h->scenario->vnet_len,
        .may_differ = h->end == GUEST && has_class(h->scenario, CLASS_DIVERGENCE) && now < h->scenario->faults_end,
    };
}

void host_init(Host *h, World *w, const char *name, int end, uint64_t purpose)
{
    h->name = name;
    h->world = w;
    h->scenario = &w->scenario;
    h->end = end;
    h->draw = draw_new(w->scenario.seed, purpose);
    draw_style(h);
    if (end == GUEST && purpose == PURPOSE_SECONDARY) {
        h->style.think += w->scenario.secondary_lag;
    }
    for (int i = 0; i < h->scenario->connections; i++) {
        TcpContext x = context(h, i, 0);

        tcp_init(&h->memory.tcp[i], &x, scramble(x.c->salt + (uint64_t)end));
        h->got[i] = end == CLIENT ? g_byte_array_new() : NULL;
    }
    for (int i = 0; i < h->scenario->flows; i++) {
        h->request_at[i] = end == CLIENT ? h->scenario->flow[i].start : NEVER;
    }
}

void host_clear(Host *h)
{
    for (int i = 0; i < h->scenario->connections; i++) {
        if (h->got[i]) {
            g_byte_array_free(h->got[i], true);
        }
    }
}

static Build draw_build(Host *h)
{
    return (Build) {
        .vnet_len = h->scenario->vnet_len,
        .checksum_offload = draw_percent(&h->draw, h->style.checksum_percent),
        .id = (uint16_t)draw_next(&h->draw),
        .ttl = 64,
    };
}

static void send(Host *h, Parcel *p, const Meta *meta)
{
    p->meta = *meta;
    world_output(h->world, h, p);
}

/* What the TCP calls */

void host_send_segment(const TcpContext *x, const Segment *s, const Meta *meta)
{
    Host *h = x->host;

    send(h, parcel_tcp(x->c, h->end == CLIENT, s, draw_build(h)), meta);
}

void host_received(const TcpContext *x, uint32_t offset, const uint8_t *bytes, uint32_t len)
{
    Host *h = x->host;
    GByteArray *got = h->got[x->number];

    if (h->end == GUEST) {
        uint64_t salt = scramble(x->c->salt + CLIENT);

        for (uint32_t i = 0; i < len; i++) {
            if (bytes[i] != content_byte(salt, offset + i)) {
                host_wrong(x, "gets a wrong byte at offset %u of what the client sends", offset + i);
                return;
            }
        }
        return;
    }
    if (got->len < offset + len) {
        g_byte_array_set_size(got, offset + len);
    }
    memcpy(got->data + offset, bytes, len);
}

bool host_lies(const TcpContext *x)
{
    return world_lies(x->host->world, x->host, x->number);
}

void host_wrong(const TcpContext *x, const char *format, ...)
{
    va_list arguments;
    char text[200];

    va_start(arguments, format);
    g_vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    world_fail(x->host->world, "connection %d: the %s %s", x->number, x->host->name, text);
}

/* Datagrams */

uint32_t answer_size(const DatagramFlow *f, uint32_t request, uint32_t answer)
{
    return 1 + (uint32_t)(scramble(f->salt + request * 1000 + answer) % f->size_max);
}

static uint32_t request_size(const DatagramFlow *f, uint32_t request)
{
    return 8 + (uint32_t)(scramble(f->salt ^ request) % 500);
}

static void send_request(Host *h, int number, int64_t now)
{
    const DatagramFlow *f = &h->scenario->flow[number];
    uint32_t request = h->requests[number]++;
    uint8_t bytes[600];
    uint32_t len = request_size(f, request);
    Meta meta = { .number = number, .datagram = request };

    content_fill(f->salt + request, 0, bytes, len);
    put32(bytes, request);
    send(h, parcel_datagram(f, true, (uint16_t)request, bytes, len, draw_build(h)), &meta);
    h->request_at[number] =
        h->requests[number] < f->requests ? now + draw_between(&h->draw, 0, 2 * f->interval) : NEVER;
}

static void take_request(Host *h, int number, const Reading *r, int64_t now)
{
    const DatagramFlow *f = &h->scenario->flow[number];

    for (uint32_t i = 0; i < f->answers && h->memory.answers < ANSWERS_MAX; i++) {
        h->memory.answer[h->memory.answers++] = (Answer) {
            .flow = number,
            .request = be32(r->bytes),
            .answer = i,
            .at = now + draw_between(&h->draw, 0, h->style.think),
        };
    }
}

static void send_answer(Host *h, const Answer *a)
{
    const DatagramFlow *f = &h->scenario->flow[a->flow];
    Build build = draw_build(h);
    uint32_t number = a->request * 4 + a->answer;
    uint32_t len = f->kind == DATAGRAM_ECHO ? request_size(f, a->request) : answer_size(f, a->request, a->answer);
    Meta meta = { .number = a->flow, .datagram = number };
    uint8_t *bytes = g_malloc(len);
    Parcel *whole;
    uint32_t total, mtu;

    if (f->kind == DATAGRAM_ECHO) {
        content_fill(f->salt + a->request, 0, bytes, len);
        put32(bytes, a->request);
    } else {
        content_fill(scramble(f->salt + h->memory.datagram_salt) + number, 0, bytes, len);
    }
    if (len > 1400) {
        build.checksum_offload = false;
    }
    whole = parcel_datagram(f, false, (uint16_t)a->request, bytes, len, build);
    g_free(bytes);
    meta.to = total = len + 8;
    if (len <= 1400) {
        send(h, whole, &meta);
        return;
    }
    mtu = (uint32_t)draw_between(&h->draw, 70, 180) * 8;
    for (meta.from = 0; meta.from < total; meta.from = meta.to) {
        meta.to = MIN(meta.from + mtu, total);
        send(h, parcel_fragment(f, whole, meta.from, meta.to - meta.from, build), &meta);
    }
    parcel_free(whole);
}

static void take_answer(Host *h, int number, const Reading *r)
{
    const DatagramFlow *f = &h->scenario->flow[number];

    if (f->kind == DATAGRAM_ECHO) {
        uint32_t request = r->len >= 4 ? be32(r->bytes) : UINT32_MAX;

        if (request >= h->requests[number] || r->len != request_size(f, request)) {
            world_fail(h->world, "flow %d: the client gets an echo of what it has never sent", number);
        }
    }
}

/* In and out */

bool scenario_find(const Scenario *s, const Reading *r, bool to_guest, Meta *meta)
{
    uint32_t guest_port = to_guest ? r->destination_port : r->source_port;
    uint32_t peer_port = to_guest ? r->source_port : r->destination_port;
    uint8_t peer_host = to_guest ? r->source : r->destination;

    for (int i = 0; i < s->flows; i++) {
        const DatagramFlow *f = &s->flow[i];

        if (f->peer_host == peer_host && f->ipv6 == r->ipv6 && f->vlan == r->vlan) {
            *meta = (Meta) { .number = i };
            return true;
        }
    }
    for (int i = 0; i < s->connections; i++) {
        const Connection *c = &s->connection[i];

        if (r->proto == PROTO_TCP && c->peer_host == peer_host && c->guest_port == guest_port &&
            c->peer_port == peer_port && c->ipv6 == r->ipv6 && c->vlan == r->vlan) {
            *meta = (Meta) { .number = i, .tcp = true };
            return true;
        }
    }
    return false;
}

/* Of the connections with the same ports, the one that a segment is for. */
static int current_of(Host *h, int number, const Segment *s)
{
    const Scenario *scenario = h->scenario;
    int current = number;

    for (int next = number; next < scenario->connections; next++) {
        if (next != number && scenario->connection[next].after != current) {
            break;
        }
        if (next == number || h->memory.tcp[next].opened || h->world->closed_at[next] != NEVER) {
            current = next;
        } else if ((s->flags & (SYN | ACK)) == SYN && world_may_open(h->world, next) &&
                   !(h->memory.tcp[current].heard && h->memory.tcp[current].irs == s->seq)) {
            return next;
        } else {
            break;
        }
    }
    return current;
}

void host_input(Host *h, const Reading *r, int64_t now)
{
    Meta meta;

    if (!scenario_find(h->scenario, r, h->end == GUEST, &meta)) {
        world_fail(h->world, "the %s gets a frame that belongs to nothing", h->name);
    } else if (meta.tcp) {
        int number = current_of(h, meta.number, &r->tcp);
        TcpContext x = context(h, number, now);

        tcp_input(&h->memory.tcp[number], &x, &r->tcp);
    } else if (h->end == GUEST) {
        take_request(h, meta.number, r, now);
    } else if (!r->fragment) {
        take_answer(h, meta.number, r);
    }
}

/* Time */

int64_t host_deadline(const Host *h)
{
    int64_t deadline = NEVER;

    for (int i = 0; i < h->scenario->connections; i++) {
        deadline = MIN(deadline, tcp_deadline(&h->memory.tcp[i]));
    }
    for (int i = 0; i < h->memory.answers; i++) {
        deadline = MIN(deadline, h->memory.answer[i].at);
    }
    for (int i = 0; i < h->scenario->flows; i++) {
        deadline = MIN(deadline, h->request_at[i]);
    }
    return deadline;
}

void host_wake(Host *h, int64_t now)
{
    for (int i = 0; i < h->scenario->connections; i++) {
        if (tcp_deadline(&h->memory.tcp[i]) <= now) {
            TcpContext x = context(h, i, now);

            tcp_wake(&h->memory.tcp[i], &x);
        }
    }
    for (int i = 0; i < h->memory.answers;) {
        Answer a = h->memory.answer[i];

        if (a.at <= now) {
            h->memory.answers--;
            memmove(&h->memory.answer[i], &h->memory.answer[i + 1],
                    (size_t)(h->memory.answers - i) * sizeof(h->memory.answer[0]));
            send_answer(h, &a);
        } else {
            i++;
        }
    }
    for (int i = 0; i < h->scenario->flows; i++) {
        if (h->request_at[i] <= now) {
            send_request(h, i, now);
        }
    }
}

void host_diverge(Host *h, int64_t now)
{
    int number = (int)draw_below(&h->draw, (uint32_t)h->scenario->connections);
    TcpContext x = context(h, number, now);

    if (draw_percent(&h->draw, 20)) {
        h->memory.datagram_salt = draw_next(&h->draw);
    }
    tcp_diverge(&h->memory.tcp[number], &x);
}

bool host_is_done(Host *h, int number)
{
    TcpContext x = context(h, number, 0);

    return tcp_is_done(&h->memory.tcp[number], &x);
}
