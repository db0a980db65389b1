/*
 * Fuzzing the comparator: comparator.c, compare-tcp.c, compare-datagram.c, stream.c and all below them
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The input is a program of what happens to a comparator: packets from either side, of few flows, at few positions and
 * with few values, so that the sides often agree; time; checkpoints and the marks of epochs; the switches.  A model
 * notes what each side has said.  Asserted, after each step:
 *
 *  - accounts: the counters are what was given, released and discarded; what is held is what has not left yet, to the
 *    byte;
 *  - nothing invented, nothing lost, nothing twice: a released frame is the primary's to the byte but for a narrower
 *    window, or a piece cut from it, from where the last piece ended, with right lengths and checksums; once nothing is
 *    held all has left;
 *  - order: within a flow packets leave as they came, but for repetitions of bytes sent before;
 *  - output commit: what leaves without a checkpoint the secondary has said, too, in this epoch (each unit of sequence
 *    space at its position, as high an acknowledgement, a SYN with the same options, a RST, the same datagram as
 *    often), or the primary had said it before the epoch;
 *  - windows: what so leaves does not allow the client to send more than either has had room for, however small the
 *    unit in which the client counts them;
 *  - time: a deadline no later than what is held longest allows, kept; one question an epoch, for a reason that is
 *    true; none at all where the sides have said the same, unless the secondary is ahead elsewhere and both have come to rest;
 *  - load: a side waits if, and only if, a queue of its is full or the secondary is early;
 *  - progress: if the secondary says in the end what the primary has said, nothing stays held.
 *
 * A wild run (the input's first bit) may also hold mangled frames and marks that no guest would cause; of it
 * only the accounts and the questions are checked, and that nothing breaks.
 */

#include "fuzz.h"
#include "layout.h"
#include "net/colo/comparator.h"

#include <string.h>

#define MS ((int64_t)1000 * 1000)
#define SECOND (1000 * MS)
#define CLOSED_LIFETIME (240 * SECOND)

#define LEAST_TIMEOUT (100 * MS)
#define GRACE (20 * MS)
#define BUSY_PART 10        /* of the timeout */
#define FLOWS 6
#define WINDOW 96           /* positions of a flow that are used */
#define CONTENTS 8          /* different datagrams */
#define RECORDS 512
#define PIECE_ID 0x8000     /* IP identification: from here on of a datagram in pieces, below it of a record */
#define FRAME 256
#define WINDOW_SCALE 2      /* that SYNs offer; the client makes no use of it */
#define HISTORY (256 * 1024)    /* more than one run can say */

/* What is said at a position of a stream: one of some bytes, or: */
enum {
    VALUE_SYN = 4,
    VALUE_FIN = 5,
};

/* How a flow of the comparator differs from others of the same addresses and ports. */
typedef enum {
    STREAM,
    UDP,
    ICMP,
    SCTP,
    BROKEN_TCP,             /* no whole header */
    PIECE,                  /* of a datagram of three blocks, which may be all of it */
    LOCAL,                  /* not compared */
    SORTS,
    /* Not sorts: where it is noted that the second and the third block have been said. */
    SECOND_BLOCK = SORTS,
    THIRD_BLOCK,
    NOTED,
} Sort;

/* What is said, whichever side says it. */
typedef struct {
    uint8_t flow;
    Sort sort;
    uint8_t pos;            /* STREAM: of the first unit */
    uint8_t variant;        /* which bytes */
    uint8_t len;
    uint8_t ack;
    uint8_t flags;
    uint8_t options;        /* which */
    uint8_t content;        /* which datagram, or which kind of LOCAL */
    uint8_t padding;        /* bytes behind the datagram */
    uint8_t ident;          /* PIECE: which datagram it says it is of */
    uint16_t window;        /* STREAM */
    uint8_t block;          /* PIECE: the first */
    uint8_t blocks;         /* PIECE: how many */
    bool offload;           /* checksum left to it */
    bool own_isn;           /* a secondary's SYN in its own numbers */
} Saying;

/* A packet of the primary's. */
typedef struct {
    Saying said;
    uint32_t units;
    uint32_t left;          /* units that have left */
    uint32_t size;
    uint32_t size_held;
    bool gone;
    bool old;               /* of an epoch that was over when it came */
    int64_t arrival;
    uint8_t frame[FRAME];
} Record;

/* What a side has said of a flow in one epoch. */
typedef struct {
    uint8_t units[WINDOW];  /* bits: values */
    uint8_t syn;            /* bits: with these options, with or without ACK */
    bool rst;
    bool acked;
    uint8_t ack;
    uint32_t edge;          /* behind the last position that the client may send, windows unscaled */
    uint16_t datagrams[NOTED][CONTENTS];
} Said;

typedef struct {
    Said now;               /* the secondary's, in this epoch */
    Said next;              /* and in the one that is about to begin */
    Said settled;           /* the primary's, in epochs that are over; no datagrams */
    Said primary;           /* all the primary's, and which datagrams have left in this epoch */
    uint16_t first[WINDOW]; /* the primary's record that said something there first, and one more */
    uint8_t covered[4];     /* bits: blocks of a datagram that the primary has said in this epoch */
    uint32_t open[SORTS];   /* records that have not left */
    bool spans;             /* the primary has said something, from `start` to before `end` */
    uint8_t start, end;
    bool gap;               /* it has left out something, or begun anew */
    bool met;               /* something has been said that is no SYN of the secondary's */
    bool rescaled;          /* before the primary's SYN, and windows may count otherwise since */
    bool dirty;             /* there may be something to differ about */
} Flow;

static struct {
    ColoComparator *c;
    bool strict;
    bool comparing;
    bool asked;
    bool settling;          /* everything held is to leave */
    bool away;              /* the secondary's connection has ended */
    int64_t now;
    int64_t settled;        /* when this epoch began */
    int64_t heard[COLO_SIDES];          /* when the side has last said something that is compared */
    bool left_uncounted;    /* in it, datagrams of the primary have left with its first mark */
    int64_t timeout;
    uint32_t queue_size;
    uint32_t vnet_len;
    uint16_t window[COLO_SIDES];
    uint32_t epoch;
    bool marks[COLO_SIDES];
    uint32_t next_mark[COLO_SIDES];     /* the epoch that the side's next mark begins */
    bool reads_when_told;
    uint32_t early;         /* packets of the secondary's before the word of the checkpoint */
    uint64_t in[COLO_SIDES], in_bytes[COLO_SIDES];
    uint64_t out, out_bytes, asked_ever;
    uint32_t records_count;
    uint32_t oldest;        /* no record before this is still held */
    uint32_t open;
    uint64_t open_bytes;
    bool pieces;            /* of datagrams have come: what is held is counted otherwise */
    Flow flows[FLOWS];
} m;

static Record records[RECORDS];

/* Frames end where this ends, so that a sanitizer sees any step beyond. */
static uint8_t buffer[FRAME];

static const Build builds[FLOWS] = {
    { .version = 4, .guest = 2, .peer = 1, .guest_port = 8080, .peer_port = 5000 },
    { .version = 4, .guest = 4, .peer = 1, .guest_port = 8081, .peer_port = 5000 },
    { .version = 6, .guest = 2, .peer = 1, .guest_port = 8082, .peer_port = 5000 },
    { .version = 4, .guest = 2, .peer = 1, .guest_port = 8080, .peer_port = 5000, .vlan = true },
    { .version = 6, .guest = 2, .peer = 3, .guest_port = 8084, .peer_port = 5000, .vlan = true, .extension = true },
    { .version = 4, .guest = 3, .peer = 1, .guest_port = 8085, .peer_port = 5000 },
};
static const uint32_t seq_bases[FLOWS] = { 1000, 0xffffffe0u, 0x7fffffe0u, 0xfffffffeu, 0, 0x80000000u - 40 };
static const uint32_t ack_bases[FLOWS] = { 0xfffffff8u, 7000, 0x7ffffff8u, 0, 0xffffffffu, 1 };

static uint8_t byte_at(uint8_t flow, uint32_t pos, uint8_t variant)
{
    return (uint8_t)(flow * 31 + pos * 7 + variant * 101 + 13);
}

/* The epoch that the side is in; one that does not say is in the present one. */
static uint32_t epoch_of(ColoSide side)
{
    return m.marks[side] ? m.next_mark[side] - 1 : m.epoch;
}

static bool is_early(void)
{
    return epoch_of(COLO_SECONDARY) > m.epoch;
}

/* Sayings */

static uint32_t units_of(const Saying *s)
{
    return s->sort == STREAM ? s->len + (s->flags & SYN ? 1u : 0) + (s->flags & FIN ? 1u : 0) : 0;
}

/* What @s says at its unit @i. */
static uint8_t value_of(const Saying *s, uint32_t i)
{
    if (s->flags & SYN) {
        if (i == 0) {
            return VALUE_SYN;
        }
        i--;
    }
    return i < s->len ? s->variant : VALUE_FIN;
}

static uint8_t syn_bit(const Saying *s)
{
    return (uint8_t)(1 << (s->options % 4 + (s->flags & ACK ? 4 : 0)));
}

static bool has_no_units(const Saying *s)
{
    return s->flags & RST || !units_of(s);
}

static bool has_block(const Saying *s, uint8_t block)
{
    return s->block <= block && block < s->block + s->blocks;
}

static uint8_t window_scale(const Saying *s)
{
    return s->options % 4 == 1 ? WINDOW_SCALE : 0;
}

static uint32_t options_of(const Saying *s, ColoSide side, uint8_t options[12])
{
    static const uint8_t kinds[4][12] = {
        { 0 },
        { 3, 3, WINDOW_SCALE, 1 },
        { 1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2 },
        { 2, 4, 0x05, 0xb0 },
    };
    static const uint32_t lens[4] = { 0, 4, 12, 4 };

    memcpy(options, kinds[s->options % 4], 12);
    if (s->options % 4 == 2) {
        options[7] = side == COLO_PRIMARY ? 17 : 99;        /* each has a clock of its own */
    }
    return lens[s->options % 4];
}

static uint16_t window_of(const uint8_t *frame, uint32_t size)
{
    return get16(frame + layout_of(frame, size, m.vnet_len).l4 + 14);
}

/* Checksum included. */
static void set_window(uint8_t *frame, uint32_t size, uint16_t window)
{
    Layout l = layout_of(frame, size, m.vnet_len);

    set16(frame + l.l4 + 14, window);
    layout_mend(&l, frame, m.vnet_len);
}

static uint32_t frame_segment(const Saying *s, const Build *b, ColoSide side, uint8_t *frame)
{
    uint32_t seq = seq_bases[s->flow] + s->pos + (side == COLO_SECONDARY && s->own_isn ? 0x12345 : 0);
    uint32_t ack = s->flags & ACK ? ack_bases[s->flow] + s->ack : 0;
    uint32_t first = s->pos + (s->flags & SYN ? 1u : 0);
    uint8_t options[12], payload[16];
    uint32_t options_len = options_of(s, side, options);
    uint32_t size;

    for (uint32_t i = 0; i < s->len; i++) {
        payload[i] = byte_at(s->flow, first + i, s->variant);
    }
    size = build_tcp(b, frame, seq, ack, s->flags, options, options_len, payload, s->len);
    if (b->vnet_len && s->offload) {
        frame[0] = frame[1] = 1;
        frame[4] = 4;
    }
    set_window(frame, size, s->window);
    return size;
}

static uint32_t frame_datagram(const Saying *s, const Build *b, uint8_t *frame)
{
    static const uint8_t protos[SORTS] = { [UDP] = PROTO_UDP, [ICMP] = PROTO_ICMP, [SCTP] = PROTO_SCTP,
                                           [BROKEN_TCP] = PROTO_TCP };
    uint8_t proto = s->sort == ICMP && b->version == 6 ? PROTO_ICMPV6 : protos[s->sort];
    uint32_t len = 8 + 1 + s->content;
    uint32_t at = build_ip(b, frame, proto, len);

    set16(frame + at, b->guest_port);
    set16(frame + at + 2, b->peer_port);
    set32(frame + at + 4, len << 16);
    memset(frame + at + 8, s->content * 17, s->content + 1u);
    return at + len;
}

/* The datagram is a UDP header and two blocks that depend on the content, the last of them shorter. */
static uint32_t frame_piece(const Saying *s, const Build *with, uint8_t *frame)
{
    Build b = *with;
    uint8_t whole[24];
    uint32_t size = 17u + s->content % 7, from = s->block * 8u;
    uint32_t to = MIN(size, from + s->blocks * 8u);
    uint32_t at;

    set16(whole, b.guest_port);
    set16(whole + 2, b.peer_port);
    set32(whole + 4, size << 16);
    memset(whole + 8, 0x80 + s->content, 16);
    b.id = PIECE_ID + s->ident;
    b.fragment = (uint16_t)(b.version == 4 ? s->block | (to < size ? 0x2000 : 0) : from | (to < size ? 1 : 0));
    at = build_ip(&b, frame, PROTO_UDP, to - from);
    memcpy(frame + at, whole + from, to - from);
    return at + to - from;
}

static uint32_t frame_local(const Saying *s, const Build *b, uint8_t *frame)
{
    uint32_t at;

    switch (s->content % 4) {
    case 0:                             /* not even an Ethernet header */
        memset(frame, 0, b->vnet_len + 13);
        return b->vnet_len + s->len % 14;
    case 1:                             /* group or neighbour business */
        at = build_ip(b, frame, b->version == 4 ? PROTO_IGMP : PROTO_ICMPV6, 8);
        set32(frame + at, 135u << 24);
        set32(frame + at + 4, b->id);
        return at + 8;
    default:                            /* ARP, or whatever */
        memset(frame, 0, b->vnet_len + 14 + 16);
        set16(frame + b->vnet_len + 12, s->content % 4 == 2 ? 0x0806 : 0x88cc);
        set32(frame + b->vnet_len + 14, b->id);
        return b->vnet_len + 14 + s->len;
    }
}

static uint32_t frame_of(const Saying *s, ColoSide side, uint32_t id, uint8_t *frame)
{
    Build b = builds[s->flow];
    uint32_t size;

    b.id = id;
    b.vnet_len = m.vnet_len;
    if (s->sort == LOCAL) {
        return frame_local(s, &b, frame);
    }
    if (s->sort == PIECE) {
        return frame_piece(s, &b, frame);
    }
    size = s->sort == STREAM ? frame_segment(s, &b, side, frame) : frame_datagram(s, &b, frame);
    memset(frame + size, (int)(0xee + side), s->padding);
    return size + s->padding;
}

/* Notes that @side has said @s. */
static void note(Said *said, const Saying *s, ColoSide side)
{
    if (s->sort == PIECE) {
        said->datagrams[SECOND_BLOCK][s->content] += has_block(s, 1);
        said->datagrams[THIRD_BLOCK][s->content] += has_block(s, 2);
        return;
    }
    if (s->sort != STREAM) {
        said->datagrams[s->sort][s->content]++;
        return;
    }
    if (s->flags & ACK) {
        said->ack = said->acked && said->ack > s->ack ? said->ack : s->ack;
        said->acked = true;
        said->edge = MAX(said->edge, s->ack + s->window);
    }
    if (s->flags & RST) {
        said->rst = true;
        return;
    }
    if (s->flags & SYN) {
        said->syn |= syn_bit(s);
    }
    for (uint32_t i = 0; i < units_of(s) && !(side == COLO_SECONDARY && s->own_isn); i++) {
        said->units[s->pos + i] |= (uint8_t)(1 << value_of(s, i));
    }
}

static void add_said(Said *to, const Said *more)
{
    for (int i = 0; i < WINDOW; i++) {
        to->units[i] |= more->units[i];
    }
    to->syn |= more->syn;
    to->rst |= more->rst;
    if (more->acked) {
        to->ack = to->acked && to->ack > more->ack ? to->ack : more->ack;
        to->acked = true;
        to->edge = MAX(to->edge, more->edge);
    }
}

/* What leaves */

static void check_unit(const Record *r, uint32_t i)
{
    const Saying *s = &r->said;
    const Flow *f = &m.flows[s->flow];
    uint8_t bit = (uint8_t)(1 << value_of(s, i));
    bool said;

    if (value_of(s, i) == VALUE_SYN) {
        uint8_t syns = (uint8_t)(syn_bit(s) | syn_bit(s) << 4 | syn_bit(s) >> 4);
        bool again = f->first[s->pos] <= (uint32_t)(r - records);

        /* In a simultaneous open a SYN comes again as a SYN-ACK. */
        said = (f->now.syn & syns && (again || f->now.syn & (s->flags & ACK ? 0xf0 : 0x0f))) ||
               f->settled.units[s->pos] & bit;
    } else {
        said = (f->now.units[s->pos + i] | f->settled.units[s->pos + i]) & bit;
    }
    REQUIRE(said, "flow %u, position %u: value %u has left, but the secondary has not said it", s->flow, s->pos + i,
            value_of(s, i));
}

/* Output commit, for the units @from .. @to of @r; @window goes with them. */
static void check_commit(const Record *r, uint32_t from, uint32_t to, uint16_t window)
{
    const Saying *s = &r->said;
    Flow *f = &m.flows[s->flow];

    if (s->sort != STREAM) {
        REQUIRE(s->sort != PIECE || s->blocks == 3 || f->covered[s->ident] == 7, "flow %u: part of a datagram leaves",
                s->flow);
        note(&f->primary, s, COLO_PRIMARY);
        for (int sort = 0; sort < NOTED; sort++) {
            REQUIRE(f->primary.datagrams[sort][s->content] <= f->now.datagrams[sort][s->content],
                    "flow %u: datagram %u of sort %d has left %u times, the secondary has sent it %u times", s->flow,
                    s->content, sort, f->primary.datagrams[sort][s->content], f->now.datagrams[sort][s->content]);
        }
        return;
    }
    if (s->flags & RST) {
        REQUIRE(f->now.rst || f->settled.rst, "flow %u: a reset that the secondary has not sent", s->flow);
    }
    for (uint32_t i = from; i < to; i++) {
        check_unit(r, i);
    }
    if (s->flags & ACK) {
        REQUIRE((f->now.acked && f->now.ack >= s->ack) || (f->settled.acked && f->settled.ack >= s->ack),
                "flow %u: %u is acknowledged, the secondary only %u", s->flow, s->ack, f->now.ack);
    }
    if (s->flags & ACK && !(s->flags & RST) && !(s->flags & SYN && from == 0) && !f->rescaled) {
        REQUIRE(s->ack + window <= MAX(f->now.edge, f->settled.edge),
                "flow %u: the client may send up to %u, the secondary has room up to %u", s->flow, s->ack + window,
                MAX(f->now.edge, f->settled.edge));
    }
}

/* Packets that came before @r to the same flow may be held still only if it repeats what was said by them. */
static void check_order(const Record *r, uint32_t from, uint32_t to)
{
    uint32_t index = (uint32_t)(r - records);
    const Saying *s = &r->said;
    const Flow *f = &m.flows[s->flow];

    if (s->sort == PIECE) {
        return;         /* pieces leave with the datagram that they make up */
    }
    for (uint32_t i = m.oldest; i < index; i++) {
        const Record *other = &records[i];

        if (other->gone || other->said.flow != s->flow || other->said.sort != s->sort) {
            continue;
        }
        REQUIRE(!m.settling, "packet %u leaves before packet %u", index, i);
        REQUIRE(s->sort == STREAM && !has_no_units(s), "packet %u overtakes packet %u", index, i);
        for (uint32_t unit = from; unit < to; unit++) {
            REQUIRE(f->gap || f->first[s->pos + unit] <= index, "packet %u overtakes packet %u with something new",
                    index, i);
        }
        return;
    }
}

static bool may_be_narrowed(uint8_t flags)
{
    return (flags & (ACK | SYN | RST)) == ACK;
}

/* True if all of @r leaves, with its own window or a narrower one. */
static bool is_whole(const Record *r, const uint8_t *frame, uint32_t size)
{
    uint8_t narrowed[FRAME];

    if (r->left || size != r->size) {
        return false;
    }
    memcpy(narrowed, r->frame, size);
    if (r->said.sort == STREAM && may_be_narrowed(r->said.flags) && window_of(frame, size) < r->said.window) {
        set_window(narrowed, size, window_of(frame, size));
    }
    return !memcmp(frame, narrowed, size);
}

/* A piece of @r that is not all of it. */
static uint32_t check_piece(const Record *r, const uint8_t *frame, uint32_t size)
{
    const Saying *s = &r->said;
    Layout l = layout_of(frame, size, m.vnet_len);
    Layout whole = layout_of(r->frame, r->size, m.vnet_len);
    uint16_t window = window_of(frame, size);
    uint16_t expected = s->flags & SYN && r->left ? s->window >> window_scale(s) : s->window;

    REQUIRE(l.kind == KIND_TCP && l.end == size && !l.cut_short && l.payload == whole.payload, "a piece of %u bytes",
            size);
    REQUIRE(!layout_ip_error(&l, frame) && !layout_tcp_error(&l, frame, m.vnet_len), "a checksum in a piece");
    REQUIRE(l.seq == seq_bases[s->flow] + s->pos + r->left, "a piece from %u on, not %u", l.seq - seq_bases[s->flow],
            s->pos + r->left);
    REQUIRE(l.units && r->left + l.units <= r->units, "a piece of %u units", l.units);
    for (uint32_t i = 0; i < l.end - l.payload; i++) {
        uint32_t unit = r->left + i + (l.flags & SYN ? 1 : 0);
        uint32_t at = unit - (s->flags & SYN ? 1 : 0);

        REQUIRE(frame[l.payload + i] == r->frame[whole.payload + at], "unit %u of a piece", unit);
    }
    REQUIRE(!(l.flags & SYN) == !(s->flags & SYN && r->left == 0), "SYN");
    REQUIRE(!(l.flags & FIN) == !(s->flags & FIN && r->left + l.units == r->units), "FIN");
    REQUIRE(l.ack == whole.ack && !((l.flags ^ s->flags) & (ACK | RST)), "an acknowledgement in a piece");
    REQUIRE(window == expected || (may_be_narrowed(l.flags) && window < expected), "a window of %u in a piece", window);
    return l.units;
}

static Record *record_of(const uint8_t *frame, uint32_t size)
{
    uint32_t last = m.records_count - 1;
    uint32_t at = m.vnet_len + 12;
    uint32_t id;

    if (!records[last].gone && (records[last].said.sort == LOCAL || !m.comparing)) {
        return &records[last];          /* it passes at once */
    }
    REQUIRE(size >= at + 22, "%u bytes", size);
    at += get16(frame + at) == 0x8100 ? 4 : 0;
    id = get16(frame + at) == 0x86dd ? get32(frame + at + 2) & 0xfffff : get16(frame + at + 6);
    if (id >= PIECE_ID) {
        for (uint32_t i = m.oldest; i <= last; i++) {
            Record *r = &records[i];

            if (!r->gone && r->said.sort == PIECE && r->size == size && !memcmp(r->frame, frame, size)) {
                return r;
            }
        }
    }
    REQUIRE(id < m.records_count, "a packet with a number of its own, %u", id);
    return &records[id];
}

static void on_release(const uint8_t *frame, uint32_t size, uint32_t vnet_len, void *opaque)
{
    Record *r;
    uint32_t units;

    (void)opaque;
    TELL("    %u bytes leave", size);
    m.out++;
    m.out_bytes += size;
    if (!m.strict) {
        return;
    }
    REQUIRE(m.records_count && vnet_len == m.vnet_len, "a packet out of nothing, header %u", vnet_len);
    r = m.settling && !m.open ? NULL : record_of(frame, size);
    REQUIRE(r && !r->gone, "a packet leaves twice, or out of nothing");
    units = r->units;
    if (!is_whole(r, frame, size)) {
        REQUIRE(r->units > 1 && r->said.sort == STREAM, "other bytes than the primary's");
        units = check_piece(r, frame, size);
    }
    check_order(r, r->left, r->left + units);
    if (m.comparing && !m.settling && !r->old && r->said.sort != LOCAL) {
        check_commit(r, r->left, r->left + units, r->said.sort == STREAM ? window_of(frame, size) : 0);
    }
    r->left += units;
    if (r->left == r->units) {
        r->gone = true;
        m.open--;
        m.open_bytes -= r->size_held;
        m.flows[r->said.flow].open[r->said.sort]--;
        while (m.oldest < m.records_count && records[m.oldest].gone) {
            m.oldest++;
        }
    } else {
        Layout whole = layout_of(r->frame, r->size, m.vnet_len);
        uint32_t syn = r->said.flags & SYN ? 1 : 0;
        uint32_t bytes = r->left > syn ? MIN(r->left - syn, r->said.len) : 0;

        m.open_bytes -= r->size_held;
        r->size_held = whole.payload + r->said.len - bytes;
        m.open_bytes += r->size_held;
    }
}

static int64_t oldest_deadline(void)
{
    return m.open ? records[m.oldest].arrival + (m.away ? 0 : m.timeout) : INT64_MAX;
}

static bool is_full(void)
{
    for (int flow = 0; flow < FLOWS; flow++) {
        for (int sort = 0; sort < SORTS; sort++) {
            if (m.flows[flow].open[sort] >= m.queue_size) {
                return true;
            }
        }
    }
    return false;
}

static bool has_left(const Flow *f, uint32_t pos)
{
    const Record *r = &records[f->first[pos] ? f->first[pos] - 1 : 0];

    return f->first[pos] && (r->gone || pos - r->said.pos < r->left);
}

/* True if the secondary has said something that the primary has not been let say. */
static bool is_secondary_ahead(void)
{
    for (int flow = 0; flow < FLOWS; flow++) {
        for (uint32_t pos = 0; pos < WINDOW; pos++) {
            /* Behind a gap it may say again what is of another connection. */
            if (m.flows[flow].now.units[pos] && (m.flows[flow].gap || !has_left(&m.flows[flow], pos))) {
                return true;
            }
        }
    }
    return false;
}

/* True if the stream @flow waits, and the secondary goes on with something else or both sides with nothing. */
static bool is_crossed(int flow)
{
    bool at_rest = m.now - MAX(m.heard[COLO_PRIMARY], m.heard[COLO_SECONDARY]) >= GRACE;

    for (uint32_t i = m.oldest; i < m.records_count; i++) {
        const Record *r = &records[i];
        bool busy = m.heard[COLO_SECONDARY] - r->arrival >= m.timeout / BUSY_PART;

        if (!r->gone && r->said.sort == STREAM && r->said.flow == flow && (at_rest || busy)) {
            return is_secondary_ahead();
        }
    }
    return false;
}

static void on_diverged(ColoReason reason, const ColoFlowKey *key, void *opaque)
{
    (void)opaque;
    TELL("    asks: %s", colo_reason_name(reason));
    REQUIRE(!m.asked, "a second question (%s)", colo_reason_name(reason));
    REQUIRE(m.comparing, "a question (%s) while nothing is compared", colo_reason_name(reason));
    m.asked = true;
    m.asked_ever++;
    REQUIRE(reason != COLO_REASON_PEER_LOST || m.away, "the peer is there");
    if (!m.strict || reason == COLO_REASON_PEER_LOST) {
        return;
    }
    if (reason == COLO_REASON_TIMEOUT || reason == COLO_REASON_ACK) {
        REQUIRE(!m.away && m.now >= oldest_deadline(), "%s, too early", colo_reason_name(reason));
    } else if (reason == COLO_REASON_QUEUE_FULL) {
        REQUIRE(m.pieces || is_full(), "no queue of the primary's is full");
    } else if (key->proto == PROTO_TCP && key->tag & COLO_KEY_STREAM) {
        int flow = 0;

        while (builds[flow].guest_port != key->guest_port || builds[flow].vlan != ((key->tag & 0xfff) == 7)) {
            flow++;
            REQUIRE(flow < FLOWS, "port %u", key->guest_port);
        }
        REQUIRE(m.flows[flow].dirty || m.flows[flow].gap || is_crossed(flow), "%s on flow %d, where both have said the same",
                colo_reason_name(reason), flow);
    }
}

/* Checks after each step */

static void check_counters(void)
{
    const ColoComparatorStats *s = colo_comparator_stats(m.c);
    uint64_t asked = 0;

    for (int side = 0; side < COLO_SIDES; side++) {
        REQUIRE(s->in[side].packets == m.in[side] && s->in[side].bytes == m.in_bytes[side], "side %d", side);
    }
    REQUIRE(s->released.packets == m.out && s->released.bytes == m.out_bytes, "released %" G_GUINT64_FORMAT,
            s->released.packets);
    for (int reason = 0; reason < COLO_REASONS; reason++) {
        asked += s->diverged[reason];
    }
    REQUIRE(asked == m.asked_ever, "%" G_GUINT64_FORMAT " questions", asked);
    REQUIRE(colo_comparator_is_comparing(m.c) == m.comparing, "%d", m.comparing);
    REQUIRE(colo_comparator_has_asked(m.c) == m.asked, "%d", m.asked);
    if (!m.strict) {
        REQUIRE(s->discarded.packets + s->held[COLO_SECONDARY] <= m.in[COLO_SECONDARY], "discarded");
        return;
    }
    if (m.pieces) {
        REQUIRE(s->held[COLO_PRIMARY] <= m.open && !s->held[COLO_PRIMARY] == !m.open, "%u held, not %u",
                s->held[COLO_PRIMARY], m.open);
        REQUIRE(s->discarded.packets + s->held[COLO_SECONDARY] + m.early <= m.in[COLO_SECONDARY], "too much discarded");
        REQUIRE(s->held[COLO_SECONDARY] || s->discarded.packets + m.early == m.in[COLO_SECONDARY],
                "too little discarded");
        return;
    }
    REQUIRE(s->held[COLO_PRIMARY] == m.open && s->held_bytes[COLO_PRIMARY] == m.open_bytes,
            "%u held of %" G_GUINT64_FORMAT " bytes, not %u of %" G_GUINT64_FORMAT, s->held[COLO_PRIMARY],
            s->held_bytes[COLO_PRIMARY], m.open, m.open_bytes);
    REQUIRE(s->discarded.packets + s->held[COLO_SECONDARY] + m.early == m.in[COLO_SECONDARY],
            "%" G_GUINT64_FORMAT " discarded, %u held, %u early of %" G_GUINT64_FORMAT, s->discarded.packets,
            s->held[COLO_SECONDARY], m.early, m.in[COLO_SECONDARY]);
    if (!m.early) {
        REQUIRE(s->discarded.bytes + s->held_bytes[COLO_SECONDARY] == m.in_bytes[COLO_SECONDARY], "bytes discarded");
    }
}


static void check_always(void)
{
    bool reads[COLO_SIDES] = {
        colo_comparator_may_read(m.c, COLO_PRIMARY), colo_comparator_may_read(m.c, COLO_SECONDARY),
    };

    check_counters();
    if (!m.comparing) {
        const ColoComparatorStats *s = colo_comparator_stats(m.c);

        REQUIRE(!s->held[COLO_PRIMARY] && !s->held[COLO_SECONDARY], "something is held though nothing is compared");
        return;
    }
    if (!m.strict) {
        return;
    }
    REQUIRE(m.asked || colo_comparator_deadline(m.c) <= oldest_deadline(), "the deadline is too late");
    REQUIRE(m.pieces || reads[COLO_PRIMARY] == !is_full(), "the primary is read: %d", reads[COLO_PRIMARY]);
    REQUIRE(!is_early() || !reads[COLO_SECONDARY], "the secondary is early, and is read on");
    REQUIRE(reads[COLO_PRIMARY] || reads[COLO_SECONDARY] || is_early() || m.asked, "both wait, and nobody asks");
}

/* What is done */

static const char *const side_names[COLO_SIDES] = { "primary", "secondary" };

static void tell(ColoSide side, const Saying *s)
{
    if (s->sort == STREAM) {
        TELL("%s: flow %u, %u + %u (variant %u), flags %02x, ack %u, window %u, options %u%s", side_names[side], s->flow,
             s->pos, s->len, s->variant, s->flags, s->ack, s->window, s->options, s->own_isn ? ", own ISN" : "");
    } else {
        TELL("%s: flow %u, sort %d, content %u, datagram %u, blocks %u + %u", side_names[side], s->flow, s->sort,
             s->content, s->ident, s->block, s->blocks);
    }
}

static uint8_t *place(uint8_t *frame, uint32_t size)
{
    uint8_t *at = buffer + sizeof(buffer) - size;

    memcpy(at, frame, size);
    return at;
}

static void give(ColoSide side, uint8_t *frame, uint32_t size)
{
    m.in[side]++;
    m.in_bytes[side] += size;
    colo_comparator_packet(m.c, side, place(frame, size), size, m.vnet_len, m.now);
    memset(buffer, 0xdd, sizeof(buffer));       /* the frame was the comparator's until now */
}

/* Whether the flow's stream goes on where it was, and whether there is anything to differ about. */
static void note_course(Flow *f, const Saying *s, ColoSide side, uint32_t index)
{
    uint32_t units = units_of(s);

    if (s->variant || s->flags & (SYN | FIN | RST) || s->options) {
        f->dirty = true;
    }
    if (s->flags & SYN && (s->flags & RST || units > 1)) {
        f->gap = true;          /* nonsense; or it says more on a SYN, which the secondary says in numbers of its own */
    }
    if (s->sort == STREAM) {
        f->rescaled = f->rescaled || (side == COLO_PRIMARY && s->flags & SYN && f->met);
        f->met = f->met || side == COLO_PRIMARY || !(s->flags & SYN);
    }
    if (side == COLO_SECONDARY || s->sort != STREAM || s->flags & RST) {
        return;
    }
    for (uint32_t i = 0; i < units; i++) {
        if (!f->first[s->pos + i]) {
            f->first[s->pos + i] = (uint16_t)(index + 1);
        }
    }
    if (!f->spans) {
        f->spans = true;
        f->start = f->end = s->pos;
    } else if (s->flags & SYN) {
        f->gap = true;
    }
    if (units && s->pos < f->start) {
        f->dirty = f->gap = true;       /* said before the comparator came: it knows nothing of it */
    }
    if (s->pos > f->end) {
        f->gap = true;
    }
    f->end = (uint8_t)MAX(f->end, s->pos + units);
}

static void primary_says(const Saying *what)
{
    Flow *f = &m.flows[what->flow];
    Record *r = &records[m.records_count];
    Saying *s = &r->said;

    if (m.records_count == RECORDS || (m.reads_when_told && !colo_comparator_may_read(m.c, COLO_PRIMARY))) {
        return;
    }
    *s = *what;
    s->window = m.window[COLO_PRIMARY];
    r->units = has_no_units(s) ? 0 : units_of(s);
    r->left = 0;
    r->gone = false;
    r->old = epoch_of(COLO_PRIMARY) < m.epoch;
    r->arrival = m.now;
    r->size = r->size_held = frame_of(s, COLO_PRIMARY, m.records_count, r->frame);
    m.open++;
    m.open_bytes += r->size;
    f->open[s->sort]++;
    if (m.comparing) {
        note_course(f, s, COLO_PRIMARY, m.records_count);
        m.heard[COLO_PRIMARY] = s->sort == LOCAL ? m.heard[COLO_PRIMARY] : m.now;
    }
    m.records_count++;
    m.pieces |= s->sort == PIECE;
    for (uint8_t block = s->block; s->sort == PIECE && block < s->block + s->blocks; block++) {
        f->covered[s->ident] |= (uint8_t)(1 << block);
    }
    if (s->sort == STREAM) {
        note(r->old || !m.comparing ? &f->settled : &f->primary, s, COLO_PRIMARY);
    }
    tell(COLO_PRIMARY, s);
    give(COLO_PRIMARY, r->frame, r->size);
    if (m.strict && (s->sort == LOCAL || !m.comparing || r->old)) {
        REQUIRE(r->gone, "what is not compared does not pass");
    }
}

static void secondary_says(const Saying *what)
{
    Saying said = *what;
    const Saying *s = &said;
    Flow *f = &m.flows[s->flow];
    uint8_t frame[FRAME];

    if (m.reads_when_told && !colo_comparator_may_read(m.c, COLO_SECONDARY)) {
        return;
    }
    said.window = m.window[COLO_SECONDARY];
    m.pieces |= s->sort == PIECE;
    if (m.comparing && s->sort != LOCAL) {
        note_course(f, s, COLO_SECONDARY, 0);
        if (is_early()) {
            m.early++;
            note(&f->next, s, COLO_SECONDARY);
        } else {
            m.heard[COLO_SECONDARY] = m.now;
            if (epoch_of(COLO_SECONDARY) == m.epoch) {
                note(&f->now, s, COLO_SECONDARY);
            }
        }
    }
    tell(COLO_SECONDARY, s);
    give(COLO_SECONDARY, frame, frame_of(s, COLO_SECONDARY, 0, frame));
}

/* One side, the other, or both in either order. */
static const int sides_of[4][2] = { { 0, -1 }, { 1, -1 }, { 0, 1 }, { 1, 0 } };

static void says(int who, const Saying *s)
{
    for (int i = 0; i < 2; i++) {
        if (sides_of[who][i] == COLO_PRIMARY) {
            primary_says(s);
        } else if (sides_of[who][i] == COLO_SECONDARY) {
            secondary_says(s);
        }
    }
}

/* What the primary has said is settled; what the secondary has said in this epoch counts no more. */
static void settle_model(void)
{
    for (int i = 0; i < FLOWS; i++) {
        Flow *f = &m.flows[i];

        add_said(&f->settled, &f->primary);
        f->primary = (Said) { .rst = false };
        f->now = f->next;
        f->next = (Said) { .rst = false };
        memset(f->covered, 0, sizeof(f->covered));
    }
    m.asked = false;
    m.early = 0;
    m.left_uncounted = false;
    m.settled = m.now;
}

static void checkpoint(void)
{
    if (!m.comparing && m.strict) {
        return;
    }
    TELL("checkpoint");
    settle_model();
    m.settling = true;
    m.epoch++;
    /* What an early secondary has said is compared with nothing yet: the primary's has all left. */
    colo_comparator_checkpoint(m.c, m.now);
    m.settling = false;
    REQUIRE(!m.strict || !m.open, "%u are held still", m.open);
}

static void set_comparing(bool comparing)
{
    if (m.comparing == comparing) {
        return;
    }
    TELL("comparing: %d", comparing);
    settle_model();
    m.settling = true;
    colo_comparator_set_comparing(m.c, comparing, m.now);
    m.settling = false;
    m.comparing = comparing;
    REQUIRE(!m.strict || !m.open, "%u are held still", m.open);
    for (int side = 0; side < COLO_SIDES; side++) {
        m.marks[side] = comparing && m.marks[side];
        m.next_mark[side] = m.epoch + m.marks[side];
    }
    for (int i = 0; i < FLOWS; i++) {
        m.flows[i].now = m.flows[i].next = (Said) { .rst = false };
        m.flows[i].spans = m.flows[i].gap = m.flows[i].met = m.flows[i].rescaled = false;
        m.flows[i].dirty = false;
    }
}

/* The side's guest has resumed, if it can have done so. */
static void mark(ColoSide side)
{
    int64_t behind = (int64_t)m.epoch - m.next_mark[side];

    if (m.strict && m.next_mark[side] > m.epoch + (m.comparing && side == COLO_SECONDARY)) {
        return;
    }
    if (behind < (side == COLO_SECONDARY ? -1 : 0)) {
        REQUIRE(!colo_comparator_resumed(m.c, side, behind, m.now), "an epoch that cannot be yet");
        return;
    }
    TELL("mark: side %d, epoch %u of %u", side, m.next_mark[side], m.epoch);
    if (side == COLO_PRIMARY && !m.marks[side] && m.next_mark[side] <= m.epoch) {
        /* All that came before is older than what the mark begins. */
        for (int i = 0; i < FLOWS; i++) {
            add_said(&m.flows[i].settled, &m.flows[i].primary);
        }
        m.settling = true;
        m.left_uncounted = true;
    }
    REQUIRE(colo_comparator_resumed(m.c, side, behind, m.now), "an epoch that can be");
    m.marks[side] = true;
    m.next_mark[side]++;
    REQUIRE(!m.strict || !m.settling || !m.open, "%u are held still", m.open);
    m.settling = false;
}

/* What was kept aside of an early secondary is of no use any more. */
static void forget_early(void)
{
    m.early = 0;
    for (int i = 0; i < FLOWS; i++) {
        m.flows[i].next = (Said) { .rst = false };
    }
}

static void reconnected(ColoSide side)
{
    TELL("reconnected: side %d", side);
    m.marks[side] = false;
    m.next_mark[side] = m.epoch + 1;
    if (side == COLO_SECONDARY) {
        forget_early();
        m.away = false;
    }
    colo_comparator_reconnected(m.c, side);
}

/* The secondary counts as one of an epoch that is over, until it says otherwise. */
static void doubted(void)
{
    TELL("doubted, in epoch %u", m.epoch);
    m.marks[COLO_SECONDARY] = true;
    m.next_mark[COLO_SECONDARY] = m.epoch;
    forget_early();
    colo_comparator_secondary_doubted(m.c);
}

static void tick(void)
{
    colo_comparator_tick(m.c, m.now);
    if (m.comparing && m.strict) {
        REQUIRE(m.asked || oldest_deadline() > m.now, "the deadline has passed, and nobody asks");
    }
    check_always();
}

/* Time passes, with a tick whenever one is wanted. */
static void wait(int64_t ns)
{
    int64_t until = m.now + ns;
    int64_t deadline;

    TELL("%" G_GINT64_FORMAT " ms", ns / MS);
    colo_comparator_flush(m.c);
    check_always();
    for (int ticks = 0; (deadline = colo_comparator_deadline(m.c)) <= until; ticks++) {
        REQUIRE(ticks < 2 * RECORDS, "no end of ticks");
        m.now = MAX(m.now, deadline);
        tick();
        REQUIRE(colo_comparator_deadline(m.c) > m.now, "a tick has not moved the deadline");
    }
    m.now = until;
    tick();
    if (ns >= CLOSED_LIFETIME) {
        for (int i = 0; i < FLOWS; i++) {
            m.flows[i].dirty = m.flows[i].gap = true;       /* it may be forgotten */
        }
    }
}

/* The input */

static Saying read_segment(Tape *tape, uint8_t flow)
{
    uint8_t place = tape_byte(tape);
    uint8_t rest = tape_byte(tape);

    return (Saying) {
        .flow = flow,
        .sort = STREAM,
        .pos = place & 0x3f,
        .variant = place >> 6 == 3 ? 1 + (place & 1) : 0,
        .len = rest & 0xf,
        .ack = rest >> 4,
        .flags = place & 0x40 ? ACK | PSH : ACK,
    };
}

static Saying read_any_segment(Tape *tape, uint8_t flow)
{
    Saying s = read_segment(tape, flow);
    uint8_t rest;

    s.flags = tape_byte(tape) & 0x3f;
    rest = tape_byte(tape);
    s.options = s.flags & SYN ? rest & 3 : 0;
    s.own_isn = s.flags & SYN && rest & 4;
    s.padding = rest >> 3 & 7;
    s.offload = rest & 0x40;
    if (!(s.flags & ACK)) {
        s.ack = 0;
    }
    return s;
}

static Saying read_datagram(Tape *tape, uint8_t flow)
{
    uint8_t what = tape_byte(tape);

    return (Saying) {
        .flow = flow,
        .sort = (Sort)(UDP + (what >> 3) % 4),
        .content = what & 7,
        .padding = what >> 5,
    };
}

static Saying read_local(Tape *tape, uint8_t flow)
{
    uint8_t what = tape_byte(tape);

    return (Saying) { .flow = flow, .sort = LOCAL, .content = what & 7, .len = what >> 4 };
}

/* A datagram in pieces, or some of them, or such as overlap. */
static void say_pieces(Tape *tape, int who, uint8_t flow)
{
    static const uint8_t ways[8][3][2] = {
        { { 0, 1 }, { 1, 1 }, { 2, 1 } }, { { 2, 1 }, { 1, 1 }, { 0, 1 } }, { { 0, 2 }, { 2, 1 } },
        { { 2, 1 }, { 0, 2 } },
        { { 1, 2 }, { 0, 1 } }, { { 0, 1 } }, { { 2, 1 } }, { { 0, 2 }, { 1, 2 } },
    };
    uint8_t what = tape_byte(tape);
    const uint8_t(*way)[2] = ways[what >> 5];
    uint8_t whole[1][2] = { { 0, 3 } };
    bool in_one = what >> 5 == 7 && what & 8;

    for (int turn = 0; turn < 2; turn++) {
        for (int i = 0; i < (in_one ? 1 : 3); i++) {
            const uint8_t *piece = in_one ? whole[i] : way[i];
            Saying s = {
                .flow = flow,
                .sort = PIECE,
                .content = what & 7,
                .ident = what >> 3 & 3,
                .block = piece[0],
                .blocks = piece[1],
            };

            if (s.blocks && sides_of[who][turn] == COLO_PRIMARY) {
                primary_says(&s);
            } else if (s.blocks && sides_of[who][turn] == COLO_SECONDARY) {
                secondary_says(&s);
            }
        }
    }
}

/* The other side says what one of the held packets says. */
static void catch_up(uint8_t which)
{
    for (uint32_t i = m.oldest; i < m.records_count; i++) {
        if (!records[i].gone && which-- == 0) {
            Saying s = records[i].said;

            secondary_says(&s);
            return;
        }
    }
}

/* A frame with something wrong in it. */
static void give_mangled(Tape *tape, int who, uint8_t flow)
{
    Saying s = tape_byte(tape) & 1 ? read_datagram(tape, flow) : read_any_segment(tape, flow);
    uint8_t frame[FRAME];
    uint32_t size = frame_of(&s, COLO_PRIMARY, 0, frame);
    uint8_t count = tape_byte(tape);

    for (int i = count & 3; i >= 0; i--) {
        uint8_t at = tape_byte(tape);

        frame[at % size] = tape_byte(tape);
    }
    if (count & 0x80) {
        uint32_t less = tape_byte(tape) & 0x3f;

        size -= MIN(size, less);
    }
    if (who != COLO_SECONDARY) {
        give(COLO_PRIMARY, frame, size);
    }
    if (who != COLO_PRIMARY) {
        give(COLO_SECONDARY, frame, size);
    }
}

static void control(Tape *tape)
{
    static const uint16_t windows[8] = { 0x7210, 0, 1, 5, 20, 100, 3000, UINT16_MAX };
    uint8_t what = tape_byte(tape);

    switch (what % 16) {
    case 0:
    case 1:
    case 2:
        checkpoint();
        break;
    case 3:
    case 4:
    case 5:
        mark(COLO_PRIMARY);
        break;
    case 6:
    case 7:
    case 8:
        mark(COLO_SECONDARY);
        break;
    case 9:
        if (what & 0x20) {
            doubted();
        } else {
            reconnected(what & 0x10 ? COLO_PRIMARY : COLO_SECONDARY);
        }
        break;
    case 10:
        m.away = true;
        colo_comparator_peer_lost(m.c, m.now);
        REQUIRE(m.asked || !m.comparing, "the peer is lost, and nobody asks");
        break;
    case 11:
        set_comparing(!m.comparing);
        break;
    case 12:
        m.timeout = (1 + what / 16) * LEAST_TIMEOUT;
        colo_comparator_set_timeout(m.c, m.timeout);
        break;
    case 13:
        m.window[what >> 4 & 1] = windows[what >> 5];
        break;
    default:
        colo_comparator_flush(m.c);
        break;
    }
}

static void pass_time(Tape *tape)
{
    uint8_t what = tape_byte(tape);

    if (what < 200) {
        wait(what * 5 * MS);
    } else if (what < 250) {
        int64_t deadline = colo_comparator_deadline(m.c);

        wait(deadline > m.now && deadline < INT64_MAX ? deadline - m.now - (what & 1) : 0);
    } else {
        wait(what < 253 ? CLOSED_LIFETIME + SECOND : 4 * 3600 * SECOND);
    }
}

static void step(Tape *tape)
{
    uint8_t what = tape_byte(tape);
    uint8_t flow = (what >> 5) % FLOWS;
    int who = what >> 3 & 3;
    Saying s;

    switch (what & 7) {
    case 0:
    case 1:
        s = read_segment(tape, flow);
        says(who, &s);
        break;
    case 2:
        s = read_any_segment(tape, flow);
        says(who, &s);
        break;
    case 3:
        s = read_datagram(tape, flow);
        says(who, &s);
        break;
    case 4:
        catch_up(what >> 3);
        break;
    case 5:
        pass_time(tape);
        break;
    case 6:
        control(tape);
        break;
    default:
        if (flow % 2) {
            say_pieces(tape, who, flow);
        } else if (m.strict) {
            s = read_local(tape, flow);
            says(who, &s);
        } else {
            give_mangled(tape, who, flow);
        }
        break;
    }
}

/* A datagram that the secondary has said as often as the primary stays held only behind one of which that is not so. */
static void check_datagrams(void)
{
    bool seen[FLOWS][SORTS] = { { false } };

    if (m.now - m.settled >= LEAST_TIMEOUT || is_early() || m.left_uncounted) {
        return;                         /* the secondary's go by age; or nobody knows which have been used up */
    }
    for (uint32_t i = m.oldest; i < m.records_count; i++) {
        const Saying *s = &records[i].said;
        const Flow *f = &m.flows[s->flow];
        uint16_t said = f->now.datagrams[s->sort][s->content], left = f->primary.datagrams[s->sort][s->content];

        if (records[i].gone || s->sort == STREAM || s->sort == PIECE || (s->sort == UDP && m.pieces)) {
            continue;
        }
        REQUIRE(seen[s->flow][s->sort] || said <= left, "flow %u: datagram %u of sort %d is held, though the secondary "
                "has said it", s->flow, s->content, s->sort);
        seen[s->flow][s->sort] = true;
    }
}

/* The secondary says all that the primary has said: nothing may stay held, unless the sides were found to differ. */
static void check_progress(void)
{
    if (!m.strict || !m.comparing) {
        return;
    }
    check_datagrams();
    if (m.asked || is_early()) {
        return;
    }
    for (int i = 0; i < FLOWS; i++) {
        if ((m.flows[i].gap && m.flows[i].open[STREAM]) || m.flows[i].open[PIECE]) {
            return;
        }
    }
    TELL("catching up");
    m.reads_when_told = false;
    m.window[COLO_SECONDARY] = UINT16_MAX;
    while (epoch_of(COLO_SECONDARY) < m.epoch) {
        mark(COLO_SECONDARY);
    }
    for (uint32_t i = m.oldest, end = m.records_count; i < end && !m.asked; i++) {
        if (!records[i].gone) {
            Saying s = records[i].said;

            secondary_says(&s);
        }
    }
    for (int i = 0; i < FLOWS && !m.asked; i++) {
        secondary_says(&(Saying) { .flow = (uint8_t)i, .sort = STREAM, .ack = 15, .flags = ACK });
    }
    colo_comparator_flush(m.c);
    check_always();
    REQUIRE(m.asked || !m.open, "%u are held though the secondary has said the same", m.open);
}

static void begin(Tape *tape)
{
    static const ColoComparatorOps ops = { .release = on_release, .diverged = on_diverged };
    static const uint8_t vnet_lens[4] = { 0, 10, 12, 20 };
    uint8_t how = tape_byte(tape);
    uint8_t more = tape_byte(tape);
    ColoComparatorConfig config = { .history = HISTORY, .secret = "anything at all" };

    fuzz_begin();
    memset(&m, 0, sizeof(m));
    m.strict = !(how & 1);
    m.queue_size = config.queue_size = (how >> 1 & 7) == 7 ? 1024 : 1 + (how >> 1 & 7);
    m.vnet_len = vnet_lens[how >> 4 & 3];
    m.timeout = config.timeout = (1 + (more >> 4)) * LEAST_TIMEOUT;
    m.reads_when_told = more & 4;
    m.window[COLO_PRIMARY] = m.window[COLO_SECONDARY] = 0x7210;
    m.epoch = m.next_mark[COLO_PRIMARY] = m.next_mark[COLO_SECONDARY] = 1;      /* there can be an older one */
    m.now = 1000 * SECOND;
    TELL("%s, queues of %u, timeout %" G_GINT64_FORMAT " ms", m.strict ? "strict" : "wild", m.queue_size,
         m.timeout / MS);
    m.c = colo_comparator_new(&config, &ops, NULL);
    set_comparing(!(more & 8));
    for (int side = 0; side < COLO_SIDES; side++) {
        if (more >> side & 1) {
            mark((ColoSide)side);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    Tape tape = { .at = data, .end = data + size };
    uint32_t batch = size ? 1 + (data[0] >> 6) : 1;

    begin(&tape);
    for (uint32_t i = 1; !tape_is_over(&tape); i++) {
        step(&tape);
        if (i % batch == 0) {
            colo_comparator_flush(m.c);
        }
        check_always();
    }
    colo_comparator_flush(m.c);
    check_progress();
    m.settling = true;
    colo_comparator_free(m.c);
    REQUIRE(!m.strict || !m.open, "%u are held still", m.open);
    return 0;
}
