/*
 * A small TCP, independent of the code under test
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * RFC 9293 as far as two copies of one machine can show it: how they cut, when they acknowledge and when they repeat is
 * drawn anew each time, from their machine's own luck; what they say is not.  The application lives here, too, since it
 * is hardly more than a rule by which bytes that have come allow others to be sent.
 *
 * Received bytes are not stored: the other end's content is a function of position, and the host checks it
 * as it comes.
 *
 * An end believes in the other: an acknowledgement of what it has never sent, an echo of a timestamp it has never sent,
 * a SACK block out of bounds, are reported at once (host_wrong()).  In this world such a thing comes from the code
 * under test only.
 */

#include "tcp.h"

#include <string.h>

enum {
    RETRANSMIT_FIRST = 200,     /* ms */
    RETRANSMIT_SYN = 500,
    BACKOFF_MAX = 3,
    ECHO_SLACK = 20000,         /* ms that a timestamp may be off after it has been mapped */
};

static int32_t distance(uint32_t from, uint32_t to)
{
    return (int32_t)(to - from);
}

static bool is_open(const Tcp *t)
{
    return t->opened && t->heard && t->una > 0 && !t->over;
}

static void no_timers(Tcp *t)
{
    t->retransmit_at = t->ack_at = t->probe_at = t->application_at = t->keep_alive_at = t->lie_at = NEVER;
}

void tcp_init(Tcp *t, const TcpContext *x, uint64_t salt)
{
    memset(t, 0, sizeof(*t));
    no_timers(t);
    t->versions = 1;
    t->version[0].salt = salt;
    t->scale = -1;
    t->total = x->c->bytes[x->end];
    if (x->c->opens == (x->end == CLIENT ? OPENS_CLIENT : OPENS_GUEST) || x->c->opens == OPENS_BOTH ||
        (x->c->opens == OPENS_REFUSED && x->end == CLIENT)) {
        t->application_at = x->c->start;
    }
}

uint8_t tcp_content(const Tcp *t, uint32_t offset)
{
    int v = t->versions - 1;

    while (v > 0 && offset < t->version[v].from) {
        v--;
    }
    return content_byte(t->version[v].salt, offset);
}

static void fill(const Tcp *t, uint32_t offset, uint8_t *bytes, uint32_t len)
{
    uint32_t at = 0;

    for (int v = 0; v < t->versions && at < len; v++) {
        uint32_t end = v + 1 < t->versions ? t->version[v + 1].from : UINT32_MAX;

        if (offset + at < end) {
            uint32_t part = MIN(len - at, end - offset - at);

            content_fill(t->version[v].salt, offset + at, bytes + at, part);
            at += part;
        }
    }
}

static void wake_application(Tcp *t, const TcpContext *x)
{
    int64_t at = x->now + draw_between(x->draw, 0, x->style->think);

    t->application_at = MIN(t->application_at, at);
}

void tcp_diverge(Tcp *t, const TcpContext *x)
{
    uint32_t from = t->written > 0 ? t->written - 1 : 0;

    if (t->fin_written || t->over || t->versions == VERSIONS_MAX) {
        return;
    }
    t->version[t->versions].from = from;
    t->version[t->versions].salt = draw_next(x->draw);
    t->versions++;
    /* It may say more or less, too, unless the other end counts on it. */
    if (!x->c->request && x->c->closes[x->end] != CLOSES_AFTER_PEER && draw_percent(x->draw, 50)) {
        t->version[t->versions - 1].salt = t->version[t->versions - 2].salt;
        t->total = from + (uint32_t)draw_skewed(x->draw, 0, 1000);
        if (t->opened) {
            wake_application(t, x);
        }
    }
}

/* Sending */

static uint32_t clock_of(const Tcp *t, const TcpContext *x)
{
    return t->clock_offset + (uint32_t)(x->now / MS);
}

static uint32_t right_edge(const Tcp *t)
{
    return 1 + t->read + t->buffer;
}

static uint16_t window_field(const Tcp *t, int shift)
{
    int32_t window = distance(t->got, right_edge(t));

    return (uint16_t)MIN((uint32_t)MAX(window, 0) >> shift, 65535u);
}

/* Sends @units of the stream from @unit on, or an acknowledgement if there are none. */
static void emit(Tcp *t, const TcpContext *x, uint32_t unit, uint32_t units, uint8_t flags)
{
    static uint8_t payload[SEGMENT_MAX];
    uint32_t bytes_from = MAX(unit, 1);
    uint32_t bytes_to = MIN(unit + units, t->fin_written ? t->written - 1 : t->written);
    Segment s = { .scale = -1, .flags = flags, .payload = payload };
    Meta meta = { .tcp = true, .number = x->number, .unit = unit, .units = units, .ack_unit = t->got };
    bool syn = units && unit == 0;

    g_assert(unit + units <= t->written);
    s.seq = t->iss + unit;
    s.len = bytes_to > bytes_from && units ? bytes_to - bytes_from : 0;
    fill(t, bytes_from - 1, payload, s.len);
    if (s.len && unit < t->max && x->end == GUEST && host_lies(x)) {
        payload[draw_below(x->draw, s.len)] ^= 0xff;
    }
    if (units && t->fin_written && unit + units == t->written && unit + units > 1) {
        s.flags |= FIN;
    }
    if (t->heard) {
        s.flags |= ACK;
        s.ack = t->irs + t->got;
    }
    if (syn) {
        s.flags |= SYN;
        s.mss = t->offered_mss;
        if (x->c->scale[x->end] >= 0 && (!t->heard || t->scale >= 0)) {
            s.scale = x->c->scale[x->end];
        }
        s.sack_permitted = x->c->sack && (!t->heard || t->sack);
        s.timestamps = x->c->timestamps && (!t->heard || t->timestamps);
    } else {
        s.timestamps = t->timestamps;
    }
    if (s.timestamps) {
        s.time = clock_of(t, x);
        s.echo = t->recent;
    }
    meta.shift = !syn && t->scale >= 0 ? x->c->scale[x->end] : 0;
    s.window = window_field(t, meta.shift);
    if (t->sack && !syn) {
        for (int i = 0; i < t->holes && i < (t->timestamps ? 3 : 4); i++) {
            s.sack[i][0] = t->irs + t->hole[i].from;
            s.sack[i][1] = t->irs + t->hole[i].to;
            s.sacks++;
        }
    }
    if (x->c->urgent && s.len && x->end == GUEST && scramble(t->version[0].salt + unit / 1000) % 4 == 0) {
        s.flags |= URG;
        s.urgent = (uint16_t)(1 + scramble(unit) % (2 * s.len));
    }
    if (s.len && unit + units == t->written && draw_percent(x->draw, 80)) {
        s.flags |= PSH;
    }
    t->max = MAX(t->max, unit + units);
    if (s.flags & ACK) {
        t->acked = t->got;
        t->unacked = 0;
        t->ack_at = NEVER;
    }
    if (x->c->keep_alive) {
        t->keep_alive_at = x->now + x->c->keep_alive;
    }
    meta.flags = s.flags;
    host_send_segment(x, &s, &meta);
}

static void acknowledge(Tcp *t, const TcpContext *x)
{
    if (t->heard && t->opened) {
        emit(t, x, MAX(t->next, 1), 0, 0);
    }
}

static void start_retransmit_timer(Tcp *t, const TcpContext *x)
{
    int64_t wait = (t->una == 0 ? RETRANSMIT_SYN : RETRANSMIT_FIRST) * MS << MIN(t->backoff, BACKOFF_MAX);

    t->retransmit_at = t->una < t->max && !t->over ? x->now + wait + draw_between(x->draw, 0, 20 * MS) : NEVER;
}

/* How many bytes go into the next segment, this time. */
static uint32_t draw_segment(const Tcp *t, const TcpContext *x)
{
    uint32_t bytes = (uint32_t)draw_between(x->draw, x->style->segment_min, x->style->segment_max);

    if (x->offload && draw_percent(x->draw, x->style->big_percent)) {
        return (uint32_t)draw_between(x->draw, t->mss, 60000);
    }
    return MIN(t->mss, bytes);
}

static void open_end(Tcp *t, const TcpContext *x)
{
    t->iss = draw_sequence(x->draw);
    if (x->before) {
        /* Behind all that the old connection used (RFC 9293, section 3.4.1). */
        t->iss = x->before->iss + x->before->max + 1 + (uint32_t)draw_skewed(x->draw, 0, 1 << 30);
    }
    t->clock_offset = (uint32_t)draw_next(x->draw);
    t->buffer = x->c->buffer[x->end] * x->style->buffer_percent / 100;
    t->buffer = MAX(t->buffer, 1);
    t->opened = true;
    t->written = 1;
    t->first_time = clock_of(t, x);
    t->mss = MIN(x->c->mss[GUEST], x->c->mss[CLIENT]);
    t->offered_mss = (uint16_t)(x->c->mss[x->end] - (x->may_differ && draw_percent(x->draw, 5)));
    t->congestion = x->style->window * t->mss;
}

static void send_syn(Tcp *t, const TcpContext *x)
{
    t->next = 1;
    emit(t, x, 0, 1, 0);
    start_retransmit_timer(t, x);
}

static void output(Tcp *t, const TcpContext *x)
{
    bool sent = false;

    if (!is_open(t)) {
        return;
    }
    for (;;) {
        uint32_t limit = t->una + MIN((uint32_t)MAX(distance(t->una, t->edge), 0), t->congestion);
        uint32_t units, most, segment;

        limit = MIN(limit, t->written);
        if (t->next >= limit) {
            break;
        }
        segment = draw_segment(t, x);
        units = most = limit - t->next;
        units = MIN(units, segment);
        if (x->style->nagle && units < segment && t->una < t->next && t->next == t->max &&
            !(t->fin_written && t->next + units == t->written)) {
            break;
        }
        /* The FIN rides on the last bytes or not. */
        if (t->fin_written && t->next + units == t->written && units > 1 && x->style->lone_fin) {
            units--;
        }
        emit(t, x, t->next, units, 0);
        t->next += units;
        sent = true;
    }
    if (sent && t->retransmit_at == NEVER) {
        start_retransmit_timer(t, x);
    }
    if (t->una == t->next && t->next < t->written && distance(t->next, t->edge) <= 0) {
        if (t->probe_at == NEVER) {
            t->probe_at = x->now + draw_between(x->draw, 100, 250) * MS;
        }
    } else {
        t->probe_at = NEVER;
    }
}

static void retransmit(Tcp *t, const TcpContext *x, uint32_t limit)
{
    uint32_t segment = draw_segment(t, x);
    uint32_t units = MIN(segment, MIN(limit, t->max) - t->una);
    uint32_t window = MAX((uint32_t)MAX(distance(t->una, t->edge), 0), 1);

    if (t->una == 0) {
        send_syn(t, x);
        return;
    }
    units = MIN(units, window);
    if (units) {
        emit(t, x, t->una, units, 0);
        if (t->next < t->una + units) {
            t->next = t->una + units;
        }
    }
}

static void send_reset(const TcpContext *x, uint32_t seq, uint32_t ack, uint8_t flags, const Meta *meta)
{
    Segment s = { .scale = -1, .flags = flags, .seq = seq, .ack = flags & ACK ? ack : 0 };
    Meta m = *meta;

    m.flags = flags;
    host_send_segment(x, &s, &m);
}

/* An answer to a segment that belongs to nothing (RFC 9293, section 3.10.7.1). */
static void refuse(const TcpContext *x, const Segment *s)
{
    Meta meta = { .tcp = true, .number = x->number, .stray = true };
    uint32_t units = s->len + !!(s->flags & SYN) + !!(s->flags & FIN);

    if (s->flags & RST) {
        return;
    }
    if (s->flags & ACK) {
        send_reset(x, s->ack, 0, RST, &meta);
    } else {
        send_reset(x, 0, s->seq + units, RST | ACK, &meta);
    }
}

static void end(Tcp *t)
{
    t->over = true;
    no_timers(t);
}

static void abort_connection(Tcp *t, const TcpContext *x)
{
    Meta meta = { .tcp = true, .number = x->number, .unit = t->max, .ack_unit = t->got };

    t->aborted = true;
    end(t);
    send_reset(x, t->iss + t->max, t->irs + t->got, RST | ACK, &meta);
}

/* The application */

static uint32_t bytes_got(const Tcp *t)
{
    return t->got ? t->got - 1 - t->fin_got : 0;
}

/* Bytes that the application may have written, given what it has read. */
static uint32_t allowance(const Tcp *t, const TcpContext *x)
{
    const Connection *c = x->c;
    uint32_t all = t->total;

    if (!c->request) {
        return all;
    }
    if (x->end == GUEST) {
        return t->read / c->request * c->response;
    }
    return MIN(all, (t->read / c->response + 1) * c->request);
}

static bool wants_to_close(const Tcp *t, const TcpContext *x)
{
    switch (x->c->closes[x->end]) {
    case CLOSES_WHEN_SENT:
        return true;
    case CLOSES_WHEN_DONE:
        return t->read == x->c->bytes[1 - x->end] || t->fin_got;
    case CLOSES_AFTER_PEER:
        return t->fin_got;
    }
    return true;
}

static void application(Tcp *t, const TcpContext *x)
{
    const Connection *c = x->c;
    uint32_t all = t->total;
    uint32_t unread, may, left;

    t->application_at = NEVER;
    if (t->over) {
        return;
    }
    if (!t->opened) {
        if (!x->may_open) {
            t->application_at = x->now + 10 * MS;
            return;
        }
        open_end(t, x);
        send_syn(t, x);
        return;
    }
    if (!is_open(t)) {
        return;
    }

    unread = bytes_got(t) - t->read;
    if (unread && x->now < t->reads_at) {
        t->application_at = t->reads_at;
    } else if (unread) {
        uint32_t edge = right_edge(t);

        unread = MIN(unread, MAX(t->buffer * x->style->read_percent / 100, 1));
        t->read += c->reads[x->end] ? MIN(unread, c->reads[x->end]) : unread;
        t->reads_at = x->now + draw_between(x->draw, 0, x->style->dawdle);
        if (t->read < bytes_got(t)) {
            t->application_at = MAX(x->now + draw_between(x->draw, 0, 2 * x->style->think + 10 * MS), t->reads_at);
        }
        /* A window that was shut, or nearly, opens: the other end wants to know (RFC 9293, section 3.8.6.2.2). */
        if (distance(t->got, edge) < (int32_t)MIN(t->mss, t->buffer / 2 + 1) && !t->fin_got) {
            acknowledge(t, x);
        }
    }
    if ((x->end == GUEST ? c->guest_aborts : c->client_aborts) && t->read >= c->abort_after) {
        abort_connection(t, x);
        return;
    }
    may = allowance(t, x);
    left = may - (t->written - 1 - t->fin_written);
    if (!t->fin_written && left) {
        if (draw_percent(x->draw, x->style->write_percent)) {
            left = (uint32_t)draw_between(x->draw, 1, left);
            t->application_at = x->now + draw_between(x->draw, 0, x->style->think);
        }
        if (x->end == CLIENT && c->pause && t->written - 1 < all / 2 && t->written - 1 + left >= all / 2) {
            t->application_at = x->now + c->pause;
        }
        t->written += left;
    }
    if (!t->fin_written && t->written - 1 == all && wants_to_close(t, x)) {
        t->fin_written = true;
        t->written++;
    }
    output(t, x);
}

/* Receiving */

static void negotiate(Tcp *t, const TcpContext *x, const Segment *s)
{
    t->sack = x->c->sack && s->sack_permitted;
    t->timestamps = x->c->timestamps && s->timestamps;
    t->scale = x->c->scale[x->end] >= 0 && s->scale >= 0 ? s->scale : -1;
    t->recent = s->time;
}

static void hear(Tcp *t, const TcpContext *x, const Segment *s)
{
    t->heard = true;
    t->irs = s->seq;
    t->got = 1;
    negotiate(t, x, s);
}

/* Notes that the units [@from, @to) have come. */
static void note_units(Tcp *t, uint32_t from, uint32_t to)
{
    int n = 0;

    for (int i = 0; i < t->holes; i++) {
        if (t->hole[i].to < from || t->hole[i].from > to) {
            t->hole[n++] = t->hole[i];
        } else {
            from = MIN(from, t->hole[i].from);
            to = MAX(to, t->hole[i].to);
        }
    }
    t->holes = n;
    if (from <= t->got) {
        t->got = MAX(t->got, to);
    } else if (t->holes < HOLES_MAX) {
        /* The newest first, as SACK wants them. */
        memmove(&t->hole[1], &t->hole[0], (size_t)t->holes * sizeof(t->hole[0]));
        t->hole[0].from = from;
        t->hole[0].to = to;
        t->holes++;
    }
}

static void take_data(Tcp *t, const TcpContext *x, const Segment *s, uint32_t unit)
{
    uint32_t units = s->len + !!(s->flags & FIN);
    uint32_t edge = right_edge(t);
    uint32_t before = t->got;
    uint32_t to;

    if (!units) {
        if (distance(unit, t->got) > 0) {
            acknowledge(t, x);      /* a keep-alive, or a probe */
        }
        return;
    }
    to = MIN(unit + units, edge);
    if (distance(t->got, unit + units) <= 0 || distance(unit, edge) <= 0) {
        acknowledge(t, x);          /* nothing new, or nothing that there is room for */
        return;
    }
    if (unit + s->len > unit) {
        host_received(x, unit - 1, s->payload, MIN(s->len, to - unit));
    }
    note_units(t, unit, to);
    if (s->flags & FIN && to == unit + units) {
        uint32_t expected = x->end == GUEST ? x->c->bytes[CLIENT] + 1 : t->fin_unit ? t->fin_unit : to - 1;

        if (to - 1 != expected) {
            host_wrong(x, "gets a FIN at unit %u, not %u", to - 1, expected);
        }
        t->fin_unit = to - 1;
    }
    t->fin_got = t->fin_unit && t->got == t->fin_unit + 1;
    if (t->got == before || before < unit || t->holes || t->fin_got) {
        acknowledge(t, x);
    } else if (++t->unacked >= x->style->ack_every || !x->style->ack_delay) {
        acknowledge(t, x);
    } else if (t->ack_at == NEVER) {
        t->ack_at = x->now + draw_between(x->draw, 0, x->style->ack_delay);
    }
    if (t->got > before) {
        wake_application(t, x);
    }
}

static bool take_ack(Tcp *t, const TcpContext *x, const Segment *s, uint32_t unit, uint32_t units)
{
    uint32_t ack = s->ack - t->iss;
    uint32_t edge = ack + ((uint32_t)s->window << (t->scale >= 0 && !(s->flags & SYN) ? t->scale : 0));

    if (distance(t->max, ack) > 0) {
        host_wrong(x, "gets an acknowledgement of unit %u; it has sent %u units", ack, t->max);
        return false;
    }
    for (int i = 0; i < s->sacks; i++) {
        uint32_t from = s->sack[i][0] - t->iss;
        uint32_t to = s->sack[i][1] - t->iss;

        if (distance(from, to) <= 0 || distance(t->max, to) > 0) {
            host_wrong(x, "gets a SACK block from unit %u to %u; it has sent %u units", from, to, t->max);
            return false;
        }
        if (distance(t->una, from) > 0 && (!t->sacked_from || from < t->sacked_from)) {
            t->sacked_from = from;
        }
    }
    if (t->timestamps && s->timestamps && !(s->flags & SYN)) {
        int32_t early = distance(s->echo, t->first_time);
        int32_t late = distance(clock_of(t, x), s->echo);

        if (early > ECHO_SLACK || late > ECHO_SLACK) {
            host_wrong(x, "gets the echo of a timestamp it has not sent: %u, first was %u, is now %u", s->echo,
                       t->first_time, clock_of(t, x));
            return false;
        }
    }

    if (distance(t->una, ack) > 0) {
        t->congestion += ack - t->una;
        t->una = ack;
        t->next = MAX(t->next, ack);
        t->repeats = 0;
        t->backoff = 0;
        t->sacked_from = t->sacked_from > ack ? t->sacked_from : 0;
        start_retransmit_timer(t, x);
        wake_application(t, x);
    } else if (ack == t->una && !units && t->una < t->max && edge == t->edge && ++t->repeats == 3) {
        retransmit(t, x, t->sacked_from ? t->sacked_from : t->max);
    }
    if (distance(t->window_unit, unit) > 0 || (t->window_unit == unit && distance(t->window_ack, ack) >= 0)) {
        if (distance(t->edge, edge) > 0) {
            t->edge = edge;
        }
        t->window_unit = unit;
        t->window_ack = ack;
    }
    return true;
}

static void take_syn(Tcp *t, const TcpContext *x, const Segment *s)
{
    if (!t->opened) {
        if (s->flags & ACK || x->c->opens == OPENS_REFUSED || !x->may_open) {
            refuse(x, s);
            return;
        }
        open_end(t, x);
        hear(t, x, s);
        t->edge = 1u + s->window;
        send_syn(t, x);
    } else if (!t->heard) {
        if (s->flags & ACK && s->ack != t->iss + 1) {
            host_wrong(x, "gets an acknowledgement of unit %u in answer to its SYN", s->ack - t->iss);
            return;
        }
        if (s->flags & ACK && t->timestamps && distance(s->echo, t->first_time) > ECHO_SLACK) {
            host_wrong(x, "gets the echo of a timestamp it has not sent: %u", s->echo);
            return;
        }
        hear(t, x, s);
        t->edge = 1u + s->window;
        if (s->flags & ACK) {
            t->una = 1;
            t->backoff = 0;
            t->retransmit_at = NEVER;
            acknowledge(t, x);
            wake_application(t, x);
        } else {
            send_syn(t, x);
        }
    } else if (s->seq == t->irs && t->una == 0) {
        if (s->flags & ACK && s->ack == t->iss + 1) {
            t->una = 1;
            t->edge = 1u + s->window;
            t->backoff = 0;
            t->retransmit_at = NEVER;
            acknowledge(t, x);
            wake_application(t, x);
        } else if (!(s->flags & ACK)) {
            send_syn(t, x);
        }
    } else {
        acknowledge(t, x);      /* RFC 9293, section 3.10.7.4: whoever sends it will say whether it is meant */
    }
}

static void take_reset(Tcp *t, const TcpContext *x, const Segment *s)
{
    if (!t->opened) {
        return;
    }
    if (!t->heard) {
        if (!(s->flags & ACK) || s->ack != t->iss + 1) {
            return;
        }
    } else if (s->seq != t->irs + t->got) {
        if (distance(t->irs + t->got, s->seq) > 0 && distance(t->irs + right_edge(t), s->seq) < 0) {
            acknowledge(t, x);  /* RFC 5961, section 3.2 */
        }
        return;
    }
    t->was_reset = true;
    end(t);
}

void tcp_input(Tcp *t, const TcpContext *x, const Segment *s)
{
    uint32_t unit;
    uint32_t units = s->len + !!(s->flags & FIN);

    if (t->over) {
        refuse(x, s);
        return;
    }
    if (s->flags & RST) {
        take_reset(t, x, s);
        return;
    }
    if (s->flags & SYN) {
        take_syn(t, x, s);
        return;
    }
    if (!t->opened) {
        refuse(x, s);
        return;
    }
    if (!t->heard) {
        if (s->flags & ACK && s->ack != t->iss + 1) {
            host_wrong(x, "gets an acknowledgement of unit %u before its SYN is answered", s->ack - t->iss);
        }
        return;
    }
    unit = s->seq - t->irs;
    if (t->timestamps && s->timestamps) {
        if (distance(t->recent, s->time) < 0) {
            acknowledge(t, x);  /* RFC 7323, section 5 */
            return;
        }
        if (distance(unit, t->got) >= 0) {
            t->recent = s->time;
        }
    }
    if (!(s->flags & ACK) || !take_ack(t, x, s, unit, units)) {
        return;
    }
    if (x->c->keep_alive) {
        t->keep_alive_at = x->now + x->c->keep_alive;
    }
    take_data(t, x, s, unit);
    output(t, x);
}

/* Timers */

int64_t tcp_deadline(const Tcp *t)
{
    return MIN(MIN(MIN(t->retransmit_at, t->ack_at), MIN(t->probe_at, t->application_at)), t->keep_alive_at);
}

void tcp_wake(Tcp *t, const TcpContext *x)
{
    if (t->application_at <= x->now) {
        application(t, x);
    }
    if (t->ack_at <= x->now) {
        acknowledge(t, x);
    }
    if (t->retransmit_at <= x->now) {
        t->backoff++;
        t->congestion = t->mss;
        t->repeats = 0;
        t->sacked_from = 0;
        t->next = MAX(t->una, 1);
        retransmit(t, x, t->max);
        start_retransmit_timer(t, x);
    }
    if (t->probe_at <= x->now) {
        t->probe_at = NEVER;
        if (is_open(t) && t->una == t->next && t->next < t->written && distance(t->next, t->edge) <= 0) {
            if (x->c->probes_with_byte) {
                emit(t, x, t->next, 1, 0);
            } else {
                emit(t, x, t->next - 1, 0, 0);
            }
            t->probe_at = x->now + draw_between(x->draw, 100, 250) * MS;
        }
    }
    if (t->keep_alive_at <= x->now) {
        t->keep_alive_at = NEVER;
        if (is_open(t) && !tcp_is_done(t, x) && t->una == t->next) {
            emit(t, x, t->next - 1, 0, 0);
        } else if (!tcp_is_done(t, x)) {
            t->keep_alive_at = x->now + x->c->keep_alive;
        }
    }
}

bool tcp_is_done(const Tcp *t, const TcpContext *x)
{
    if (t->over) {
        return true;
    }
    if (x->c->opens == OPENS_REFUSED && x->end == GUEST) {
        return true;
    }
    return t->fin_written && t->una == t->written && t->fin_got && t->read == bytes_got(t);
}
