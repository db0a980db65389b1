/*
 * Fuzzing rewriter.c
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The input is a program of what passes a rewriter: connections that clients and the guest open, use, end and open
 * again, with selective acknowledgements and timestamps; checkpoints, a failover, time.  A model knows, as nobody in
 * the real world does, both guests' initial sequence numbers and clocks, and the client's.  Asserted:
 *
 *  - of a connection that is mapped, the client sees the primary's numbers and the guest its own, in sequence and
 *    acknowledgement numbers, SACK blocks and timestamps; of any other, each sees what the other has sent;
 *  - nothing else in a packet changes, and checksums stay right;
 *  - the client's segments wait for the guest's answer to its SYN, and only then; they come out once, in their order,
 *    mapped, at the latest when a checkpoint or a failover is told of or they have waited for too long;
 *  - a checkpoint leaves nothing mapped and nothing remembered; after a failover mapped connections stay so and others
 *    are left alone;
 *  - the rewriter says that it is done when nothing is mapped any more after a failover, and never takes it back;
 *  - what is closed, or idle for hours, is forgotten.
 *
 * Segments that make no sense may pass as well; their connection is checked no more, the others are.
 */

#include "fuzz.h"
#include "layout.h"
#include "net/colo/rewriter.h"

#include <string.h>

#define SECOND ((int64_t)1000 * 1000 * 1000)
#define IDLE_LIFETIME (3 * 3600 * SECOND)
#define CLOSED_LIFETIME (240 * SECOND)

#define CONNECTIONS 4
#define BYSTANDER CONNECTIONS       /* a flow of its own, whose segments mean nothing */
#define FRAME 256
#define PACKETS 512

/* What the rewriter ought to know of a connection. */
typedef enum {
    UNKNOWN,            /* nothing: it passes as it is */
    UNANSWERED,         /* the client's SYN; what comes behind it waits */
    LATE,               /* the same, but nothing waits any more */
    ANSWERED,           /* the guest's number, not the client's yet */
    MAPPED,
    OLD,                /* a connection before this one, on the same addresses */
} State;

typedef struct {
    State state;
    bool known;         /* it has been begun, so that there are numbers */
    bool active;        /* by the guest */
    bool goes_on;       /* the guest has, after what seemed to be the end */
    bool unasked;       /* the guest's last SYN was no answer */
    bool strange;       /* what it ought to know cannot be told */
    bool stamped;       /* with timestamps */
    bool acknowledged;  /* the client has acknowledged the SYN, and the guest seen it */
    bool guest_fin;
    bool client_fin;
    bool closed;
    int64_t last_used;
    /* Initial sequence numbers and clocks. */
    uint32_t primary, secondary, client;
    uint32_t primary_time, secondary_time, client_time;
} Connection;

/* A segment, in the numbers of whoever sends it. */
typedef struct {
    uint8_t flow;
    uint8_t flags;
    ColoDirection direction;
    uint8_t seq;        /* counted from the initial number */
    uint8_t ack;
    uint8_t len;
    uint8_t sacks;      /* blocks */
    uint8_t layout;     /* of the options */
    bool offload;
    uint8_t tick;       /* of the clocks, since the connection began */
} Segment;

typedef struct {
    Segment s;
    uint8_t frame[FRAME];
    uint32_t size;
    bool waits;
    int64_t arrival;
} Packet;

static struct {
    ColoRewriter *r;
    int64_t now;
    bool failed_over;
    bool done;
    bool strange;       /* a connection has been, since the last checkpoint */
    bool ageing;        /* it is about to forget what is too old */
    uint32_t vnet_len;
    uint32_t begun;     /* connections */
    uint32_t used[2 * PACKETS];     /* the initial sequence numbers of all these */
    uint32_t packets_count;
    uint32_t waiting;
    Connection connections[CONNECTIONS + 1];
} m;

static Packet packets[PACKETS];

static const Build builds[CONNECTIONS + 1] = {
    { .version = 4, .guest = 2, .peer = 1, .guest_port = 80, .peer_port = 4711 },
    { .version = 4, .guest = 2, .peer = 1, .guest_port = 4711, .peer_port = 80 },
    { .version = 6, .guest = 2, .peer = 1, .guest_port = 80, .peer_port = 4711, .extension = true },
    { .version = 4, .guest = 2, .peer = 1, .guest_port = 80, .peer_port = 4711, .vlan = true },
    { .version = 4, .guest = 2, .peer = 9, .guest_port = 80, .peer_port = 4711 },
};

/* Frames */

/* Where the primary's and the secondary's numbers begin differs in the frame only in these. */
typedef struct {
    uint32_t isn;
    uint32_t time;
} Numbers;

static uint32_t put_options(const Segment *s, const Connection *c, Numbers guest, uint8_t options[40])
{
    bool from_guest = s->direction == COLO_FROM_GUEST;
    uint32_t len = 0;
    uint8_t *stamps = NULL;

    memset(options, 1, 40);
    if (s->layout & 1 && c->stamped) {
        len = s->layout & 2 ? 2 : s->layout & 4 ? 1 : 0;        /* also at odd offsets */
        stamps = options + len;
        len += 10;
    }
    if (s->sacks) {
        options[len] = 5;
        options[len + 1] = (uint8_t)(2 + 8 * s->sacks);
        len += 2;
        for (int i = 0; i < 2 * s->sacks; i++) {
            set32(options + len, (from_guest ? c->client : guest.isn) + s->ack + 2u + (uint32_t)i);
            len += 4;
        }
    }
    if (c->stamped && !stamps) {
        len += s->layout & 2;
        stamps = options + len;
        len += 10;
    }
    if (stamps) {
        stamps[0] = 8;
        stamps[1] = 10;
        set32(stamps + 2, (from_guest ? guest.time : c->client_time) + s->tick);
        set32(stamps + 6, s->flags & ACK ? (from_guest ? c->client_time : guest.time) + s->tick : 0);
    }
    return (len + 3) / 4 * 4;
}

/* The segment on the client's side of the rewriter, where the guest's numbers are the primary's, or on the guest's. */
static uint32_t frame_of(const Segment *s, Numbers guest, uint32_t id, uint8_t *frame)
{
    const Connection *c = &m.connections[s->flow];
    bool from_guest = s->direction == COLO_FROM_GUEST;
    uint32_t seq = (from_guest ? guest.isn : c->client) + s->seq;
    uint32_t ack = s->flags & ACK ? (from_guest ? c->client : guest.isn) + s->ack : 0;
    Build b = builds[s->flow];
    uint8_t options[40], payload[32];
    uint32_t options_len = put_options(s, c, guest, options);
    uint32_t size;

    b.to_guest = !from_guest;
    b.vnet_len = m.vnet_len;
    b.id = id;
    memset(payload, s->seq, sizeof(payload));
    size = build_tcp(&b, frame, seq, ack, s->flags, options, options_len, payload, s->len);
    if (b.vnet_len && s->offload) {
        Layout l = layout_of(frame, size, b.vnet_len);

        frame[0] = 1;
        layout_mend(&l, frame, b.vnet_len);
    }
    return size;
}

static Numbers primary_of(const Connection *c)
{
    return (Numbers) { c->primary, c->primary_time };
}

static Numbers secondary_of(const Connection *c)
{
    return (Numbers) { c->secondary, c->secondary_time };
}

static void tell(const Segment *s)
{
    TELL("%s: flow %u, flags %02x, %u + %u, ack %u, %u sacks", s->direction == COLO_FROM_GUEST ? "guest" : "client",
         s->flow, s->flags, s->seq, s->len, s->ack, s->sacks);
}

/* @frame is what has become of packet @id: it must be what the other side expects. */
static void check_outcome(uint32_t id, const uint8_t *frame, uint32_t size, bool mapped)
{
    const Packet *p = &packets[id];
    const Connection *c = &m.connections[p->s.flow];
    bool from_guest = p->s.direction == COLO_FROM_GUEST;
    uint8_t expected[FRAME];
    Layout l = layout_of(frame, size, m.vnet_len);

    REQUIRE(size == p->size && l.kind == KIND_TCP, "%u bytes, not %u", size, p->size);
    REQUIRE(!layout_ip_error(&l, frame) && !layout_tcp_error(&l, frame, m.vnet_len), "a checksum");
    if (c->strange) {
        return;
    }
    if (!mapped) {
        REQUIRE(!memcmp(frame, p->frame, size), "a connection that is none of its business has been rewritten");
        return;
    }
    frame_of(&p->s, from_guest ? primary_of(c) : secondary_of(c), id, expected);
    /* Checksums have been found right; zero may be written in two ways. */
    memcpy(expected + l.l4 + 16, frame + l.l4 + 16, 2);
    REQUIRE(!memcmp(frame, expected, size), "seq %u, ack %u, not %u, %u", l.seq, l.ack, get32(expected + l.l4 + 4),
            get32(expected + l.l4 + 8));
}

/* The model */

/* What the other side makes of @s: state of the connection before the packet's outcome is checked. */
static void note_from_guest(Connection *c, const Segment *s)
{
    if (s->flags & SYN) {
        c->unasked = !(s->flags & ACK);
        if (c->state == UNANSWERED || c->state == LATE || c->state == OLD || c->state == UNKNOWN) {
            c->state = m.failed_over ? UNKNOWN : ANSWERED;
        }
        if (!m.failed_over) {
            return;
        }
    }
    if (c->state == UNANSWERED) {
        c->state = LATE;
    }
    if (c->state == ANSWERED && c->unasked && !m.failed_over && (s->flags & (SYN | RST | ACK)) == ACK) {
        c->strange = m.strange = true;      /* it goes on without an answer that was seen */
    }
    c->goes_on = c->closed && !(s->flags & RST);
    c->guest_fin |= s->flags & FIN;
    c->closed |= (c->guest_fin && c->client_fin) || s->flags & RST;
}

/* Returns whether it waits. */
static bool note_to_guest(Connection *c, const Segment *s)
{
    if (!(s->flags & (ACK | RST)) && s->flags & SYN) {
        if (c->state == UNKNOWN && !m.failed_over) {
            c->state = UNANSWERED;
        }
        return false;
    }
    if (c->state == UNANSWERED && s->flags & ACK && m.waiting < 256) {
        return true;
    }
    if (c->state == ANSWERED && s->flags & ACK && (!c->unasked || m.failed_over || s->flags & (SYN | RST))) {
        c->state = MAPPED;
    }
    if (c->goes_on && c->state == MAPPED && !(s->flags & RST) && !(c->guest_fin && c->client_fin)) {
        c->closed = false;      /* the guest has not believed the client's RST */
    }
    c->acknowledged = s->flags & ACK && (c->state == MAPPED || c->state == UNKNOWN);
    c->client_fin |= s->flags & FIN;
    c->closed |= (c->guest_fin && c->client_fin) || s->flags & RST;
    return false;
}

static bool is_shifted(const Connection *c)
{
    return c->primary != c->secondary || (c->stamped && c->primary_time != c->secondary_time);
}

static void check_done(void)
{
    bool done = colo_rewriter_is_done(m.r);
    bool needed = false;

    for (int i = 0; i < CONNECTIONS; i++) {
        const Connection *c = &m.connections[i];

        needed |= c->state == ANSWERED || (c->state == MAPPED && is_shifted(c));
        /* The connection before may be mapped still. */
        if (c->state == OLD) {
            return;
        }
    }
    REQUIRE(!m.done || done, "it is not done any more");
    REQUIRE(!done || m.failed_over, "done before a failover");
    if (!m.strange && !m.ageing && m.failed_over) {
        REQUIRE(done == !needed, "done: %d", done);
    }
    m.done = done;
    REQUIRE(colo_rewriter_flows(m.r) <= CONNECTIONS + 1, "%u flows", colo_rewriter_flows(m.r));
}

/* Takes out what need wait no longer. */
static void collect(void)
{
    ColoPacket *p;

    while ((p = colo_rewriter_ready(m.r))) {
        uint32_t at = p->l3 + (p->ip_version == 4 ? 4 : 0);
        uint32_t id = p->ip_version == 4 ? get16(p->data + at) : get32(p->data + at) & 0xfffff;
        Connection *c;

        REQUIRE(id < m.packets_count && packets[id].waits, "packet %u has not waited", id);
        for (uint32_t i = 0; i < id; i++) {
            REQUIRE(!packets[i].waits || packets[i].s.flow != packets[id].s.flow, "packet %u overtakes packet %u", id,
                    i);
        }
        TELL("    packet %u comes out", id);
        packets[id].waits = false;
        m.waiting--;
        c = &m.connections[packets[id].s.flow];
        REQUIRE(c->strange || c->state != UNANSWERED, "packet %u comes out too early", id);
        if (c->strange) {
            c->last_used = m.now;
        } else {
            bool closed = c->closed;

            REQUIRE(!note_to_guest(c, &packets[id].s), "it ought to wait on");
            c->last_used = c->closed && !closed ? m.now : c->last_used;
        }
        check_outcome(id, p->data, p->size, c->state == MAPPED);
        colo_packet_free(p);
    }
}

static void check_none_waits(int flow)
{
    for (uint32_t i = 0; m.waiting && i < m.packets_count; i++) {
        REQUIRE(!packets[i].waits || (flow >= 0 && packets[i].s.flow != flow), "packet %u waits still", i);
    }
}

/* A segment passes. */
static void pass(const Segment *s)
{
    uint32_t id = m.packets_count;
    Packet *packet = &packets[id];
    Connection *c = &m.connections[s->flow];
    uint8_t *bytes;
    ColoRewrite rewrite;
    ColoPacket p;
    bool mapped, waits = false;

    if (id == PACKETS) {
        return;
    }
    tell(s);
    m.packets_count++;
    packet->s = *s;
    packet->waits = false;
    packet->size = frame_of(s, s->direction == COLO_FROM_GUEST ? secondary_of(c) : primary_of(c), id, packet->frame);
    bytes = malloc(packet->size);
    memcpy(bytes, packet->frame, packet->size);

    if (s->direction == COLO_FROM_GUEST) {
        note_from_guest(c, s);
    } else {
        waits = note_to_guest(c, s);
    }
    mapped = c->state == MAPPED && !(s->flags & SYN && s->direction == COLO_FROM_GUEST && !m.failed_over);
    if (s->direction == COLO_TO_GUEST && !(s->flags & ACK)) {
        mapped = false;
    }
    c->last_used = m.now;

    REQUIRE(colo_packet_parse(&p, bytes, packet->size, m.vnet_len), "no frame");
    rewrite = colo_rewriter_look(m.r, s->direction, &p, m.now);
    REQUIRE(!memcmp(bytes, packet->frame, packet->size), "looking has changed it");
    if (c->strange) {
        waits = rewrite.kind == COLO_REWRITE_WAIT;
    }
    REQUIRE((rewrite.kind == COLO_REWRITE_WAIT) == waits, "kind %d", rewrite.kind);
    if (waits) {
        TELL("    packet %u waits", id);
        packet->waits = true;
        packet->arrival = m.now;
        m.waiting++;
    } else {
        colo_rewrite(&p, rewrite);
        check_outcome(id, bytes, packet->size, mapped);
    }
    free(bytes);
    collect();
    if (s->direction == COLO_FROM_GUEST) {
        check_none_waits(s->flow);
    }
    check_done();
}

/* What happens */

static void begin(Connection *c, bool active, uint8_t how)
{
    static const uint32_t distances[8] = { 0, 1, 0x7fffffff, 0x80000000, 0xffffffff, 1000, 0xfffff000, 0x12345678 };
    State state = c->state;

    if (m.begun == PACKETS) {
        return;
    }
    m.begun++;
    *c = (Connection) {
        .state = state == UNKNOWN ? UNKNOWN : OLD,
        .known = true,
        .active = active,
        .strange = c->strange,
        .stamped = how & 0x40,
        .last_used = c->last_used,
        .primary = how & 0x80 ? 0xfffffff0u + m.begun : m.begun * 0x1000193u,
        .client = 0xfffffffcu,
        .primary_time = how & 8 ? 0xfffffffeu : 5000,
        .client_time = 77,
    };
    c->secondary = m.failed_over ? c->primary : c->primary + distances[how & 7];
    /* A number that has been used would look like the old connection's. */
    for (uint32_t i = 0; i < 2 * (m.begun - 1); i++) {
        if (m.used[i] == c->secondary) {
            c->primary++;
            c->secondary++;
            i = UINT32_MAX;
        }
    }
    m.used[2 * (m.begun - 1)] = c->secondary;
    m.used[2 * (m.begun - 1) + 1] = c->primary;
    c->secondary_time = m.failed_over ? c->primary_time : c->primary_time + distances[how >> 3 & 7];
}

static void checkpoint(void)
{
    TELL("checkpoint");
    if (!m.failed_over) {
        for (int i = 0; i <= CONNECTIONS; i++) {
            Connection *c = &m.connections[i];

            c->state = UNKNOWN;
            c->strange = false;
            c->known = c->known && !c->closed;
            c->secondary = c->primary;
            c->secondary_time = c->primary_time;
        }
        m.strange = false;
    }
    colo_rewriter_checkpoint(m.r, m.now);
    collect();
    check_none_waits(-1);
    REQUIRE(m.failed_over || !colo_rewriter_flows(m.r), "%u flows", colo_rewriter_flows(m.r));
    check_done();
}

static void failover(void)
{
    TELL("failover");
    m.failed_over = true;
    colo_rewriter_failover(m.r);
    for (int i = 0; i < CONNECTIONS; i++) {
        Connection *c = &m.connections[i];

        if (c->state == UNANSWERED) {
            c->state = LATE;
        }
        if (c->state == LATE) {
            c->strange = true;          /* the two guests differ, and there is nothing to tell by how much */
        }
    }
    collect();
    check_none_waits(-1);
    check_done();
}

static void wait(int64_t ns)
{
    Segment idle = { .flow = BYSTANDER, .flags = RST, .direction = COLO_TO_GUEST };
    bool late = false;

    TELL("%" G_GINT64_FORMAT " ms", ns / (SECOND / 1000));
    m.now += ns;
    for (uint32_t id = 0; m.waiting && id < m.packets_count; id++) {
        Connection *c = &m.connections[packets[id].s.flow];

        if (packets[id].waits && m.now - packets[id].arrival > SECOND) {
            late = true;
            c->state = c->state == UNANSWERED ? LATE : c->state;
        }
    }
    for (int i = 0; i < CONNECTIONS; i++) {
        late |= m.connections[i].state != UNKNOWN && m.now - m.connections[i].last_used > CLOSED_LIFETIME;
    }
    if (late && !m.done) {
        m.ageing = true;
        for (int i = 0; i < 6; i++) {
            pass(&idle);                /* it looks at the time when something passes */
        }
        m.ageing = false;
    }
    for (int i = 0; i < CONNECTIONS; i++) {
        Connection *c = &m.connections[i];

        int64_t lifetime = c->closed && !c->strange ? CLOSED_LIFETIME : IDLE_LIFETIME;

        if (m.now - c->last_used > lifetime) {
            c->state = UNKNOWN;
            c->known = false;
            c->strange = false;
        } else if (m.now - c->last_used > lifetime - lifetime / 16) {
            c->strange = m.strange = true;      /* the table notes use to a sixteenth of that */
        }
    }
    check_done();
    for (uint32_t id = 0; m.waiting && id < m.packets_count; id++) {
        REQUIRE(!packets[id].waits || m.now - packets[id].arrival <= SECOND, "packet %u waits still", id);
    }
}

static void step(Tape *tape)
{
    static const int64_t times[8] = {
        SECOND / 100, SECOND / 10, SECOND / 2, SECOND + 1, 2 * SECOND, 60 * SECOND, CLOSED_LIFETIME + 1,
        IDLE_LIFETIME + 1,
    };
    uint8_t what = tape_byte(tape);
    uint8_t how = tape_byte(tape);
    Segment s = { .flow = what % CONNECTIONS };
    Connection *c = &m.connections[s.flow];

    switch (what >> 2 & 0xf) {
    case 0:
    case 1:                             /* the client opens */
        if (!c->known || c->closed) {
            begin(c, false, how);
        }
        if (!c->active) {
            s.direction = COLO_TO_GUEST;
            s.flags = SYN;
            pass(&s);
        }
        break;
    case 2:                             /* the guest opens */
        if (!c->known || c->closed) {
            begin(c, true, how);
        }
        if (c->active && !c->acknowledged) {
            s.flags = SYN;
            pass(&s);
        }
        break;
    case 3:
    case 4:                             /* the guest answers */
        if (c->known && !c->active && !c->acknowledged) {
            s.flags = SYN | ACK;
            s.ack = 1;
            s.offload = how & 0x80;
            s.layout = how & 7;
            pass(&s);
        }
        break;
    case 5:
    case 6:
    case 7:
    case 8:
    case 9:                             /* the client goes on */
        if (!c->known || c->state == OLD) {
            break;
        }
        s.direction = COLO_TO_GUEST;
        s.flags = c->active && !c->acknowledged ? SYN | ACK : ACK;
        s.seq = c->active && !c->acknowledged ? 0 : 1 + (how & 7);
        s.ack = 1;
        s.layout = how >> 5;
        s.offload = how & 8;
        if (c->acknowledged) {
            uint8_t more = tape_byte(tape);

            s.ack = 1 + (more & 0x1f);
            s.sacks = c->stamped ? (more >> 5) % 4 : (more >> 5) % 5;
            s.tick = how >> 3 & 3;
            s.flags |= (how & 0x1f) == 0x1f ? FIN : 0;
            s.flags |= (how & 0x1f) == 0x1e ? RST : 0;
        }
        if (!(s.flags & SYN)) {
            s.len = how >> 4;
        }
        pass(&s);
        break;
    case 10:
    case 11:
    case 12:                            /* the guest goes on */
        if (!c->known || !c->acknowledged || c->state == OLD) {
            break;
        }
        s.flags = (how & 0x1f) == 0x1f ? ACK | FIN : (how & 0x1f) == 0x1e ? RST : ACK;
        s.seq = 1 + (how & 0xf);
        s.ack = 1 + (how >> 5);
        s.len = how >> 4;
        s.layout = how >> 5;
        s.tick = how & 3;
        s.offload = how & 0x10;
        s.sacks = how == 0x5a;
        pass(&s);
        break;
    case 13:
        wait(times[how & 7]);
        break;
    case 14:
        if (how < 96) {
            checkpoint();
        } else if (how > 224) {
            failover();
        }
        break;
    default:                            /* something that makes no sense */
        c->strange = m.strange = true;
        c->known = true;
        s = (Segment) {
            .flow = s.flow,
            .direction = how & 0x80 ? COLO_TO_GUEST : COLO_FROM_GUEST,
            .flags = how & 0x3f,
            .seq = tape_byte(tape),
            .ack = tape_byte(tape),
            .len = how & 7,
        };
        pass(&s);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t secret[16] = "anything at all";
    static const uint8_t vnet_lens[4] = { 0, 0, 10, 12 };
    Tape tape = { .at = data, .end = data + size };

    fuzz_begin();
    memset(&m, 0, sizeof(m));
    m.now = 1000 * SECOND;
    m.vnet_len = vnet_lens[tape_byte(&tape) % 4];
    m.r = colo_rewriter_new(secret);
    while (!tape_is_over(&tape)) {
        step(&tape);
    }
    if (tape.at != data && data[0] & 4) {
        checkpoint();
        failover();
    }
    colo_rewriter_free(m.r);
    return 0;
}
