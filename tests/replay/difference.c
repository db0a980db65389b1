/*
 * Differences: where the two sides of a flow part
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Theory of operation
 *
 * The comparator says that a flow differs and forgets; here both sides' streams are put together once more, from
 * the captures, to show what it saw.  This is a second implementation on purpose and decides nothing.
 *
 * A byte stream is kept from a little before the first byte that is not compared, so its memory is how far one side
 * is ahead; segments out of order wait until the gap is filled.  Both are bounded.  A side that is too far ahead is
 * kept no further, and if the other comes that far, the search is given up (DIFFERENCE_UNKNOWN).  Offset 0 is the
 * byte behind the SYN; where the capture begins later, it is the first byte that it has of the primary.
 *
 * Datagrams are struck out against each other; what is left over is different, the first against the first.  Fragments
 * are put together first; of a datagram that is not all there, nothing is said.
 */

#include "difference.h"

#include <string.h>

#include "net/colo/seq.h"

/* Bytes kept of one side of a flow, and in all flows together; pieces out of order in one stream. */
#define SIDE_MAX (64 * 1024 * 1024ULL)
#define KEPT_MAX (256 * 1024 * 1024ULL)
#define LATER_MAX 4096
#define DATAGRAMS_MAX 4096
#define ASSEMBLIES_MAX 64

#define IP_MAX 65535
#define UDP_HEADER 8

#define TCP_HEADER 20

/* A piece of a stream that has come too early, or a datagram without its like. */
typedef struct {
    uint64_t at;            /* offset; or the datagram's number */
    int64_t time;
    uint32_t len;
    uint8_t bytes[];
} Piece;

/* A datagram of which fragments have come. */
typedef struct {
    uint32_t id;
    uint32_t total;         /* 0: not known */
    uint32_t have;
    uint8_t bytes[IP_MAX];
} Assembly;

typedef struct {
    GByteArray *bytes;      /* of the stream, from `from` on; all that has come without a gap */
    uint64_t from;
    GQueue pieces;
    int connection;
    bool full;              /* no more is kept: the other side is too far behind */
    uint64_t end;           /* offset of its FIN */
    bool end_set;
    bool reset;
    uint32_t acked_zero;    /* the client's ISN */
    bool acked_zero_set;
    uint64_t acked;         /* bytes of the client's, the SYN counted */
    uint32_t options_len;
    uint8_t options[40];
    bool syn;
    uint64_t datagrams;
    GQueue assemblies;      /* oldest first */
} Side;

struct Difference {
    bool datagrams;
    int connection;
    Side sides[COLO_SIDES];
    uint32_t zero;          /* sequence number of offset 0, if no capture has the SYN */
    bool zero_set;
    uint64_t same;          /* all before this offset is */
    DifferenceKind found;
    int64_t time;
    bool given_up;
    uint64_t kept;          /* of what KEPT_MAX limits */
};

static uint64_t kept_in_all;

const char *difference_name(DifferenceKind kind)
{
    static const char *const names[] = {
        [DIFFERENCE_NONE] = "none",
        [DIFFERENCE_OPTIONS] = "options",
        [DIFFERENCE_BYTES] = "bytes",
        [DIFFERENCE_END] = "end",
        [DIFFERENCE_MISSING] = "missing",
        [DIFFERENCE_RESET] = "reset",
        [DIFFERENCE_ACK] = "ack",
        [DIFFERENCE_UNKNOWN] = "unknown",
    };
    G_STATIC_ASSERT(G_N_ELEMENTS(names) == DIFFERENCES);

    return names[kind];
}

Difference *difference_new(bool datagrams, int connection)
{
    Difference *d = g_new0(Difference, 1);

    d->datagrams = datagrams;
    d->connection = connection;
    for (int side = 0; side < COLO_SIDES; side++) {
        d->sides[side].bytes = g_byte_array_new();
        d->sides[side].connection = -1;
    }
    return d;
}

void difference_free(Difference *d)
{
    if (d) {
        for (int side = 0; side < COLO_SIDES; side++) {
            g_byte_array_free(d->sides[side].bytes, TRUE);
            g_queue_clear_full(&d->sides[side].pieces, g_free);
            g_queue_clear_full(&d->sides[side].assemblies, g_free);
        }
        kept_in_all -= d->kept;
        g_free(d);
    }
}

/* Accounts for @len bytes more; false if that is too much. */
static bool may_keep(Difference *d, uint64_t len)
{
    if (kept_in_all + len > KEPT_MAX) {
        return false;
    }
    d->kept += len;
    kept_in_all += len;
    return true;
}

static void kept_less(Difference *d, uint64_t len)
{
    d->kept -= len;
    kept_in_all -= len;
}

static Piece *piece_new(uint64_t at, int64_t time, const uint8_t *bytes, uint32_t len)
{
    Piece *piece = g_malloc(sizeof(*piece) + len);

    piece->at = at;
    piece->time = time;
    piece->len = len;
    memcpy(piece->bytes, bytes, len);
    return piece;
}

static void found(Difference *d, DifferenceKind kind, int64_t time)
{
    if (d->found == DIFFERENCE_NONE) {
        d->found = kind;
        d->time = time;
    }
}

/* Streams */

static uint64_t stream_end(const Side *s)
{
    return s->from + s->bytes->len;
}

/* Appends what is new of the bytes at @at, which is not behind the stream's end. */
static void append(Difference *d, Side *s, uint64_t at, const uint8_t *bytes, uint32_t len)
{
    uint64_t known = stream_end(s) - at;

    if (known >= len) {
        return;
    }
    s->full = s->bytes->len + len > SIDE_MAX || !may_keep(d, len - known);
    if (!s->full) {
        g_byte_array_append(s->bytes, bytes + known, (guint)(len - known));
    }
}

/* A piece that is no longer too early, or NULL. */
static GList *find_due(const Side *s)
{
    for (GList *link = s->pieces.head; link; link = link->next) {
        if (((Piece *)link->data)->at <= stream_end(s)) {
            return link;
        }
    }
    return NULL;
}

static void append_pieces(Difference *d, Side *s)
{
    GList *due;

    while (!s->full && (due = find_due(s))) {
        Piece *piece = due->data;

        if (piece->at + piece->len > stream_end(s)) {
            append(d, s, piece->at, piece->bytes, piece->len);
        }
        kept_less(d, piece->len);
        g_free(piece);
        g_queue_delete_link(&s->pieces, due);
    }
}

static void stream_bytes(Difference *d, Side *s, int64_t at, const uint8_t *bytes, uint32_t len)
{
    if (at < 0) {
        if (-at >= len) {
            return;
        }
        bytes -= at;
        len = (uint32_t)(len + at);
        at = 0;
    }
    if ((uint64_t)at + len <= stream_end(s) || s->full) {
        return;
    }
    if ((uint64_t)at > stream_end(s)) {
        s->full = s->pieces.length >= LATER_MAX || !may_keep(d, len);
        if (!s->full) {
            g_queue_push_tail(&s->pieces, piece_new((uint64_t)at, 0, bytes, len));
        }
        return;
    }
    append(d, s, (uint64_t)at, bytes, len);
    append_pieces(d, s);
}

/* Forgets what lies well before the first byte that is not compared. */
static void forget_same(Difference *d, Side *s)
{
    uint64_t keep_from = d->same > DIFFERENCE_BEFORE ? d->same - DIFFERENCE_BEFORE : 0;

    if (keep_from > s->from + 65536) {
        guint len = (guint)(keep_from - s->from);

        g_byte_array_remove_range(s->bytes, 0, len);
        kept_less(d, len);
        s->from = keep_from;
    }
}

static void compare_streams(Difference *d, int64_t time)
{
    Side *p = &d->sides[COLO_PRIMARY];
    Side *s = &d->sides[COLO_SECONDARY];
    uint64_t common = MIN(stream_end(p), stream_end(s));

    while (d->found == DIFFERENCE_NONE && d->same < common) {
        if (p->bytes->data[d->same - p->from] != s->bytes->data[d->same - s->from]) {
            found(d, DIFFERENCE_BYTES, time);
        } else {
            d->same++;
        }
    }
    if (d->found == DIFFERENCE_NONE && ((p->full && stream_end(s) >= stream_end(p)) ||
                                        (s->full && stream_end(p) >= stream_end(s)))) {
        d->given_up = true;
        return;
    }
    if ((p->end_set && s->end_set && p->end != s->end) || (p->end_set && stream_end(s) > p->end) ||
        (s->end_set && stream_end(p) > s->end)) {
        found(d, DIFFERENCE_END, time);
    }
    if (d->found == DIFFERENCE_NONE) {
        forget_same(d, p);
        forget_same(d, s);
    }
}

/* The sequence number of offset 0, in the space that @side is in. */
static uint32_t zero_of(Difference *d, ColoSide side, GArray *const handshakes[COLO_SIDES], const ColoPacket *p)
{
    bool mapped = side == COLO_SECONDARY && handshake_is_known(handshakes, d->connection) &&
                  !handshake_is_raw(handshakes, d->connection);
    const GArray *own = handshakes[mapped ? COLO_PRIMARY : side];

    if (d->connection >= 0 && (guint)d->connection < own->len &&
        g_array_index(own, Handshake, d->connection).isn_set[COLO_FROM_GUEST]) {
        return g_array_index(own, Handshake, d->connection).isn[COLO_FROM_GUEST] + 1;
    }
    if (!d->zero_set) {
        d->zero = p->seq;
        d->zero_set = true;
    }
    return d->zero;
}

static void note_ack(Side *s, const GArray *handshakes, int connection, const ColoPacket *p)
{
    if (!s->acked_zero_set) {
        const Handshake *h = connection >= 0 && (guint)connection < handshakes->len
                                 ? &g_array_index(handshakes, Handshake, connection) : NULL;

        s->acked_zero = h && h->isn_set[COLO_TO_GUEST] ? h->isn[COLO_TO_GUEST] : 0;
        s->acked = h && h->isn_set[COLO_TO_GUEST] ? 0 : p->ack;
        s->acked_zero_set = true;
    }
    if (colo_seq_after(p->ack, (uint32_t)(s->acked_zero + s->acked))) {
        s->acked += p->ack - (uint32_t)(s->acked_zero + s->acked);
    }
}

static void stream_packet(Difference *d, ColoSide side, GArray *const handshakes[COLO_SIDES], const ColoPacket *p,
                          int64_t time)
{
    Side *s = &d->sides[side];
    uint32_t zero;
    int64_t at;

    s->connection = handshake_follow(handshakes[side], s->connection, COLO_FROM_GUEST, p);
    if (handshakes[side]->len && s->connection != d->connection) {
        return;
    }
    if (p->tcp_flags & COLO_TCP_RST) {
        s->reset = true;
        return;
    }
    zero = zero_of(d, side, handshakes, p);
    if (p->tcp_flags & COLO_TCP_ACK) {
        note_ack(s, handshakes[side], d->connection, p);
    }
    if (p->tcp_flags & COLO_TCP_SYN) {
        if (side == COLO_PRIMARY || !d->sides[COLO_PRIMARY].syn || !s->syn) {
            s->options_len = colo_packet_tcp_options(p, s->options);
            s->syn = true;
        }
        if (d->sides[COLO_PRIMARY].syn && d->sides[COLO_SECONDARY].syn) {
            const Side *a = &d->sides[COLO_PRIMARY];
            const Side *b = &d->sides[COLO_SECONDARY];

            if (a->options_len != b->options_len || memcmp(a->options, b->options, a->options_len) != 0) {
                found(d, DIFFERENCE_OPTIONS, time);
            }
        }
        return;
    }
    at = (int64_t)stream_end(s) + (int32_t)(p->seq - zero - (uint32_t)stream_end(s));
    stream_bytes(d, s, at, p->data + p->payload, p->payload_len);
    if (p->tcp_flags & COLO_TCP_FIN && at + p->payload_len >= 0 && !s->end_set) {
        s->end = (uint64_t)(at + p->payload_len);
        s->end_set = true;
    }
    compare_streams(d, time);
}

/* Datagrams */

static GList *find_like(const Side *s, const uint8_t *bytes, uint32_t len)
{
    for (GList *link = s->pieces.head; link; link = link->next) {
        const Piece *piece = link->data;

        if (piece->len == len && !memcmp(piece->bytes, bytes, len)) {
            return link;
        }
    }
    return NULL;
}

static void datagram(Difference *d, ColoSide side, const uint8_t *bytes, uint32_t len, int64_t time)
{
    Side *s = &d->sides[side];
    Side *other = &d->sides[!side];
    GList *like = find_like(other, bytes, len);

    s->datagrams++;
    if (like) {
        kept_less(d, len);
        g_free(like->data);
        g_queue_delete_link(&other->pieces, like);
    } else if (s->pieces.length >= DATAGRAMS_MAX || !may_keep(d, len)) {
        d->given_up = true;
    } else {
        g_queue_push_tail(&s->pieces, piece_new(s->datagrams, time, bytes, len));
    }
}

static GList *find_assembly(const Side *s, uint32_t id)
{
    for (GList *link = s->assemblies.head; link; link = link->next) {
        if (((Assembly *)link->data)->id == id) {
            return link;
        }
    }
    return NULL;
}

static void fragment(Difference *d, ColoSide side, const ColoPacket *p, int64_t time)
{
    Side *s = &d->sides[side];
    GList *link = find_assembly(s, p->fragment_id);
    uint32_t offset = colo_fragment_offset(p);
    uint32_t header = p->proto == COLO_PROTO_UDP ? UDP_HEADER : 0;
    Assembly *assembly;

    if (offset + p->payload_len > IP_MAX) {
        return;
    }
    if (!link) {
        if (s->assemblies.length >= ASSEMBLIES_MAX) {
            g_free(g_queue_pop_head(&s->assemblies));
        }
        assembly = g_new0(Assembly, 1);
        assembly->id = p->fragment_id;
        g_queue_push_tail(&s->assemblies, assembly);
        link = s->assemblies.tail;
    }
    assembly = link->data;
    memcpy(assembly->bytes + offset, p->data + p->payload, p->payload_len);
    assembly->have += p->payload_len;
    if (colo_fragment_is_last(p)) {
        assembly->total = offset + p->payload_len;
    }
    if (assembly->total && assembly->have >= assembly->total) {
        if (assembly->total >= header) {
            datagram(d, side, assembly->bytes + header, assembly->total - header, time);
        }
        g_free(assembly);
        g_queue_delete_link(&s->assemblies, link);
    }
}

static void datagram_packet(Difference *d, ColoSide side, const ColoPacket *p, int64_t time)
{
    if (p->fragment) {
        fragment(d, side, p, time);
    } else {
        datagram(d, side, p->data + p->payload, p->payload_len, time);
    }
}

void difference_packet(Difference *d, ColoSide side, GArray *const handshakes[COLO_SIDES], const ColoPacket *p,
                       int64_t time)
{
    if (d->given_up) {
        return;
    }
    if (d->datagrams) {
        datagram_packet(d, side, p, time);
    } else {
        stream_packet(d, side, handshakes, p, time);
    }
}

/* Report */

static void show(DifferenceReport *r, ColoSide side, const uint8_t *bytes, uint64_t from, uint64_t len)
{
    uint64_t skip = r->shown_from - from;

    if (skip < len) {
        r->bytes[side] = bytes + skip;
        r->len[side] = (uint32_t)MIN(len - skip, r->offset - r->shown_from + DIFFERENCE_AFTER);
    }
}

static void show_around(DifferenceReport *r, const uint8_t *bytes[COLO_SIDES], const uint64_t from[COLO_SIDES],
                        const uint64_t len[COLO_SIDES])
{
    r->shown_from = r->offset > DIFFERENCE_BEFORE ? r->offset - DIFFERENCE_BEFORE : 0;
    r->shown_from = MAX(r->shown_from, MAX(from[COLO_PRIMARY], from[COLO_SECONDARY]));
    for (int side = 0; side < COLO_SIDES; side++) {
        show(r, side, bytes[side], from[side], len[side]);
    }
}

static void report_datagrams(Difference *d, DifferenceReport *r)
{
    const Piece *p = g_queue_peek_head(&d->sides[COLO_PRIMARY].pieces);
    const Piece *s = g_queue_peek_head(&d->sides[COLO_SECONDARY].pieces);

    if (!p) {
        return;
    }
    r->kind = s ? DIFFERENCE_BYTES : DIFFERENCE_MISSING;
    r->number = p->at;
    r->time = p->time;
    r->time_set = true;
    while (s && r->offset < p->len && r->offset < s->len && p->bytes[r->offset] == s->bytes[r->offset]) {
        r->offset++;
    }
    r->reach[COLO_PRIMARY] = d->sides[COLO_PRIMARY].datagrams;
    r->reach[COLO_SECONDARY] = d->sides[COLO_SECONDARY].datagrams;
    show_around(r, (const uint8_t *[]) { p->bytes, s ? s->bytes : NULL }, (const uint64_t[]) { 0, 0 },
                (const uint64_t[]) { p->len, s ? s->len : 0 });
}

static void report_stream(Difference *d, DifferenceReport *r)
{
    const Side *p = &d->sides[COLO_PRIMARY];
    const Side *s = &d->sides[COLO_SECONDARY];

    r->offset = d->same;
    r->kind = d->found;
    r->reach[COLO_PRIMARY] = stream_end(p);
    r->reach[COLO_SECONDARY] = stream_end(s);
    if (r->kind == DIFFERENCE_OPTIONS) {
        r->offset = 0;
        show_around(r, (const uint8_t *[]) { p->options, s->options }, (const uint64_t[]) { 0, 0 },
                    (const uint64_t[]) { p->options_len, s->options_len });
        for (int side = 0; side < COLO_SIDES; side++) {
            r->len[side] = d->sides[side].options_len;
        }
        return;
    }
    if (r->kind == DIFFERENCE_END) {
        r->on[COLO_PRIMARY] = p->end_set && (!s->end_set || p->end < s->end);
        r->on[COLO_SECONDARY] = !r->on[COLO_PRIMARY];
        r->offset = r->on[COLO_PRIMARY] ? p->end : s->end;
    }
    if (r->kind == DIFFERENCE_NONE) {
        if (stream_end(p) > stream_end(s) || (p->end_set && !s->end_set)) {
            r->kind = DIFFERENCE_MISSING;
        } else if (p->reset != s->reset) {
            r->kind = DIFFERENCE_RESET;
            r->on[COLO_PRIMARY] = p->reset;
            r->on[COLO_SECONDARY] = s->reset;
        } else if (p->acked > s->acked) {
            r->kind = DIFFERENCE_ACK;
            r->reach[COLO_PRIMARY] = p->acked;
            r->reach[COLO_SECONDARY] = s->acked;
        }
    }
    show_around(r, (const uint8_t *[]) { p->bytes->data, s->bytes->data }, (const uint64_t[]) { p->from, s->from },
                (const uint64_t[]) { p->bytes->len, s->bytes->len });
}

DifferenceReport difference_report(Difference *d)
{
    DifferenceReport r = { .datagrams = d->datagrams, .time = d->time, .time_set = d->found != DIFFERENCE_NONE };

    if (d->given_up && d->found == DIFFERENCE_NONE) {
        r.kind = DIFFERENCE_UNKNOWN;
    } else if (d->datagrams) {
        report_datagrams(d, &r);
    } else {
        report_stream(d, &r);
    }
    return r;
}
