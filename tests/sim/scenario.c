/*
 * Scenario: what is decided about a run before it begins
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A third of the runs have nearly all classes of events, a third a few, a third almost none: a fault that needs two
 * things at once is found by the first, one that a third thing hides by the others.
 */

#include "scenario.h"

#include <glib.h>
#include <string.h>

const char *const class_names[] = {
    [CLASS_LOSS] = "loss",
    [CLASS_DUPLICATION] = "duplication",
    [CLASS_REORDERING] = "reordering",
    [CLASS_SLOW_LINK] = "slow-link",
    [CLASS_CHECKPOINTS] = "checkpoints",
    [CLASS_FAILOVER] = "failover",
    [CLASS_DIVERGENCE] = "divergence",
    [CLASS_LIES] = "lies",
    [CLASS_ABORTS] = "aborts",
    [CLASS_GUEST_OPENS] = "guest-opens",
    [CLASS_REUSE] = "reuse",
    [CLASS_HALF_CLOSE] = "half-close",
    [CLASS_URGENT] = "urgent",
    [CLASS_SACK] = "sack",
    [CLASS_TIMESTAMPS] = "timestamps",
    [CLASS_WINDOW_SCALE] = "window-scale",
    [CLASS_SMALL_WINDOWS] = "small-windows",
    [CLASS_KEEP_ALIVE] = "keep-alive",
    [CLASS_OFFLOAD] = "offload",
    [CLASS_IPV6] = "ipv6",
    [CLASS_VLAN] = "vlan",
    [CLASS_DATAGRAMS] = "datagrams",
    [CLASS_FRAGMENTS] = "fragments",
    [CLASS_SMALL_QUEUES] = "small-queues",
    [CLASS_SLOW_SECONDARY] = "slow-secondary",
    [CLASS_LATE_START] = "late-start",
    [CLASS_RECONNECTS] = "reconnects",
};
_Static_assert(sizeof(class_names) / sizeof(class_names[0]) == CLASSES, "each class has a name");

uint8_t content_byte(uint64_t salt, uint32_t offset)
{
    return (uint8_t)(scramble(salt + offset / 8) >> offset % 8 * 8);
}

void content_fill(uint64_t salt, uint32_t offset, uint8_t *bytes, uint32_t len)
{
    uint32_t i = 0;

    while (i < len) {
        uint64_t word = scramble(salt + (offset + i) / 8) >> (offset + i) % 8 * 8;
        uint32_t in_word = 8 - (offset + i) % 8;

        for (; in_word > 0 && i < len; in_word--, i++) {
            bytes[i] = (uint8_t)word;
            word >>= 8;
        }
    }
}

static uint32_t draw_classes(Draw *d)
{
    uint32_t percent = (const uint32_t[]) { 85, 30, 8 }[draw_below(d, 3)];
    uint32_t classes = 0;

    for (int class = 0; class < CLASSES; class++) {
        /* What causes many checkpoints hides other faults, so it is rarer. */
        uint32_t rarer = class == CLASS_DIVERGENCE || class == CLASS_LIES || class == CLASS_RECONNECTS ? 3 : 1;

        classes |= (uint32_t)draw_percent(d, percent / rarer) << class;
    }
    return classes;
}

static void draw_connection(const Scenario *s, Draw *d, Connection *c, int number)
{
    uint32_t most = draw_percent(d, 10) ? STREAM_MAX : draw_percent(d, 50) ? 30000 : 2000;

    c->ipv6 = has_class(s, CLASS_IPV6) && draw_percent(d, 50);
    c->vlan = has_class(s, CLASS_VLAN) && draw_percent(d, 50) ? (uint16_t)draw_between(d, 1, 3) : 0;
    c->peer_host = (uint8_t)draw_between(d, 10, 12);
    c->guest_port = (uint16_t)draw_between(d, 80, 82);
    c->peer_port = (uint16_t)(4000 + number);
    c->after = -1;
    c->start = draw_skewed(d, 0, s->faults_end);
    c->salt = draw_next(d);
    if (has_class(s, CLASS_GUEST_OPENS) && draw_percent(d, 40)) {
        c->opens = draw_percent(d, 70) ? OPENS_GUEST : OPENS_BOTH;
    }
    if (draw_percent(d, 50)) {
        uint32_t exchanges = (uint32_t)draw_skewed(d, 1, 30);

        c->request = (uint32_t)draw_skewed(d, 1, most / exchanges);
        c->response = (uint32_t)draw_skewed(d, 1, most / exchanges);
        c->bytes[0] = exchanges * c->response;
        c->bytes[1] = exchanges * c->request;
    } else {
        c->bytes[0] = (uint32_t)draw_skewed(d, 0, most);
        c->bytes[1] = (uint32_t)draw_skewed(d, 0, most);
    }
    c->closes[0] = CLOSES_WHEN_DONE;
    c->closes[1] = (Closes)draw_between(d, CLOSES_WHEN_DONE, CLOSES_AFTER_PEER);
    if (draw_percent(d, 30)) {
        c->closes[0] = CLOSES_AFTER_PEER;
        c->closes[1] = CLOSES_WHEN_DONE;
    }
    if (has_class(s, CLASS_HALF_CLOSE) && draw_percent(d, 50)) {
        c->closes[draw_below(d, 2)] = CLOSES_WHEN_SENT;
    }
    if (has_class(s, CLASS_ABORTS) && draw_percent(d, 40)) {
        switch (draw_below(d, 3)) {
        case 0:
            c->opens = OPENS_REFUSED;
            break;
        case 1:
            c->guest_aborts = true;
            c->abort_after = (uint32_t)draw_between(d, 0, c->bytes[1]);
            break;
        default:
            c->client_aborts = true;
            c->abort_after = (uint32_t)draw_between(d, 0, c->bytes[0]);
            break;
        }
    }
    c->urgent = has_class(s, CLASS_URGENT) && draw_percent(d, 50);
    c->sack = has_class(s, CLASS_SACK) && draw_percent(d, 70);
    c->timestamps = has_class(s, CLASS_TIMESTAMPS) && draw_percent(d, 70);
    c->leading_nops = draw_below(d, 3);
    for (int end = 0; end < 2; end++) {
        bool small = has_class(s, CLASS_SMALL_WINDOWS) && draw_percent(d, 60);

        c->scale[end] = has_class(s, CLASS_WINDOW_SCALE) ? (int)draw_between(d, -1, 7) : -1;
        c->mss[end] = (uint32_t)(draw_percent(d, 50) ? 1460 : draw_between(d, 200, 1460));
        c->buffer[end] = (uint32_t)(small ? draw_skewed(d, 1, 5000) : draw_between(d, 10000, 200000));
        c->reads[end] = small && draw_percent(d, 50) ? (uint32_t)draw_between(d, c->buffer[end] / 4 + 1, 20000) : 0;
    }
    /* A window of a few bytes and many bytes to go take for ever. */
    for (int end = 0; end < 2; end++) {
        if (c->bytes[1 - end] / c->buffer[end] > 200) {
            c->buffer[end] = 10000;
        }
        if (c->buffer[end] < 5000) {
            c->scale[end] = MIN(c->scale[end], 0);      /* else no window can be told that is not shut */
        }
    }
    c->probes_with_byte = draw_percent(d, 50);
    c->keep_alive = has_class(s, CLASS_KEEP_ALIVE) && draw_percent(d, 50) ? draw_between(d, 50, 500) * MS : 0;
    c->pause = c->keep_alive && draw_percent(d, 50) ? draw_between(d, 100, 2000) * MS : 0;
}

/* Some connections come again, when the old one is over, with the same ports. */
static void draw_reuse(Scenario *s, Draw *d)
{
    for (int i = 1; i < s->connections; i++) {
        Connection *c = &s->connection[i];
        const Connection *before = &s->connection[i - 1];

        if (draw_percent(d, 40) && !before->guest_aborts && !before->client_aborts) {
            c->after = i - 1;
            c->ipv6 = before->ipv6;
            c->vlan = before->vlan;
            c->peer_host = before->peer_host;
            c->guest_port = before->guest_port;
            c->peer_port = before->peer_port;
        }
    }
}

static void draw_flow(const Scenario *s, Draw *d, DatagramFlow *f, int number)
{
    f->kind = draw_percent(d, 60) ? DATAGRAM_UDP : DATAGRAM_ECHO;
    f->ipv6 = has_class(s, CLASS_IPV6) && draw_percent(d, 50);
    f->vlan = has_class(s, CLASS_VLAN) && draw_percent(d, 50) ? (uint16_t)draw_between(d, 1, 3) : 0;
    f->peer_host = (uint8_t)(20 + number);
    f->guest_port = 53;
    f->peer_port = (uint16_t)(5000 + number);
    f->salt = draw_next(d);
    f->start = draw_skewed(d, 0, s->faults_end);
    f->interval = draw_skewed(d, 100 * US, 100 * MS);
    f->requests = (uint32_t)draw_skewed(d, 1, 40);
    f->answers = f->kind == DATAGRAM_UDP ? (uint32_t)draw_skewed(d, 1, 4) : 1;
    f->size_max = has_class(s, CLASS_FRAGMENTS) && draw_percent(d, 70) ? 6000 : 1200;
}

void scenario_draw(Scenario *s, uint64_t seed, uint32_t only)
{
    Draw d = draw_new(seed, 1);

    memset(s, 0, sizeof(*s));
    s->seed = seed;
    s->classes = draw_classes(&d) & only;
    s->faults_end = draw_skewed(&d, 200 * MS, 3 * SECOND);
    s->timeout = draw_between(&d, 400, 3000) * MS;
    s->queue_size = has_class(s, CLASS_SMALL_QUEUES) ? (uint32_t)draw_skewed(&d, 1, 30) : 1024;
    s->batch = (uint32_t)draw_skewed(&d, 1, 40);
    s->lateness = draw_percent(&d, 50) ? 0 : 2 * MS;
    s->vnet_len = has_class(s, CLASS_OFFLOAD) ? (const uint32_t[]) { 10, 12, 20 }[draw_below(&d, 3)] : 0;
    s->link_delay = has_class(s, CLASS_SLOW_LINK) ? draw_between(&d, 5, 100) * MS : draw_skewed(&d, 10 * US, 2 * MS);
    s->stream_delay = draw_skewed(&d, 10 * US, has_class(s, CLASS_SLOW_SECONDARY) ? 50 * MS : 2 * MS);
    s->think = draw_skewed(&d, 1 * US, 5 * MS);
    s->busy = draw_percent(&d, 50) ? 0 : draw_skewed(&d, 1 * US, MS);
    s->secondary_lag = has_class(s, CLASS_SLOW_SECONDARY) ? draw_skewed(&d, 1 * MS, 100 * MS) : 0;
    s->readers_differ = has_class(s, CLASS_SMALL_WINDOWS) && draw_percent(&d, 60);
    s->loss = has_class(s, CLASS_LOSS) ? (uint32_t)draw_skewed(&d, 1, 30) : 0;
    s->duplication = has_class(s, CLASS_DUPLICATION) ? (uint32_t)draw_skewed(&d, 1, 30) : 0;
    s->reordering = has_class(s, CLASS_REORDERING) ? (uint32_t)draw_skewed(&d, 1, 40) : 0;
    s->checkpoint_interval = has_class(s, CLASS_CHECKPOINTS) ? draw_skewed(&d, 3 * MS, SECOND) : 0;
    s->failover_at = has_class(s, CLASS_FAILOVER) ? draw_between(&d, 0, s->faults_end) : NEVER;
    s->begins_at = has_class(s, CLASS_LATE_START) ? draw_skewed(&d, 1 * MS, s->faults_end) : 0;
    if (s->failover_at != NEVER && s->begins_at) {
        s->failover_at = MAX(s->failover_at, s->begins_at + 50 * MS);   /* there is a secondary then */
    }
    s->divergence_interval = has_class(s, CLASS_DIVERGENCE) ? draw_skewed(&d, 5 * MS, SECOND) : 0;
    s->reconnect_interval = has_class(s, CLASS_RECONNECTS) ? draw_skewed(&d, 5 * MS, SECOND) : 0;

    s->connections = (int)draw_skewed(&d, 1, CONNECTIONS_MAX);
    for (int i = 0; i < s->connections; i++) {
        draw_connection(s, &d, &s->connection[i], i);
    }
    if (has_class(s, CLASS_REUSE)) {
        draw_reuse(s, &d);
    }
    s->flows = has_class(s, CLASS_DATAGRAMS) || has_class(s, CLASS_FRAGMENTS) ? (int)draw_skewed(&d, 1, FLOWS_MAX) : 0;
    for (int i = 0; i < s->flows; i++) {
        draw_flow(s, &d, &s->flow[i], i);
    }
    s->quiet = draw_percent(&d, 50) ? 0 : draw_between(&d, 1, 5) * MS;
    s->gather = draw_between(&d, 1, 20) * MS;
}
