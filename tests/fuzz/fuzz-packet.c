/*
 * Fuzzing packet.c, and what is done to a packet by itself: flow.c's keys, colo_rewrite()
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The input is a frame, behind a few bytes that say how to look at it.  Asserted:
 *
 *  - the parse agrees with an independent one (layout.c) on every offset and every field;
 *  - colo_packet_run() tells, for every position, what the frame says there, and NONE outside of it;
 *  - a held copy is the packet over again;
 *  - cut anywhere, and cut again, a segment becomes segments in their own right: nothing but lengths, positions, flags,
 *    checksums, urgent pointer, offload and (of what is cut off a SYN) the window's scale differs from the whole, the
 *    units follow each other without gap or change, and checksums that were right are right in each piece;
 *  - another window changes that and the checksum, which stays exactly as wrong as it was;
 *  - a flow's key is the same from either side and holds the packet's addresses and ports;
 *  - a rewrite changes what it should and nothing else, leaves what is wrong with a checksum exactly as wrong as it
 *    was, and the opposite rewrite undoes it.
 */

#include "fuzz.h"
#include "layout.h"
#include "net/colo/flow.h"
#include "net/colo/rewriter.h"

#include <string.h>

#define CUTS 3

/* A frame as it was, and what there is to know about it. */
typedef struct {
    const uint8_t *data;
    uint32_t size;
    uint32_t vnet_len;
    Layout l;
} Whole;

static void check_parse(const Whole *w, const ColoPacket *p, bool parsed)
{
    static const ColoClass classes[] = {
        [KIND_SHORT] = COLO_CLASS_LOCAL,
        [KIND_LOCAL] = COLO_CLASS_LOCAL,
        [KIND_TCP] = COLO_CLASS_TCP,
        [KIND_DATAGRAM] = COLO_CLASS_DATAGRAM,
    };
    const Layout *l = &w->l;

    REQUIRE(parsed == (l->kind != KIND_SHORT), "size %u", w->size);
    REQUIRE(p->data == w->data && p->size == w->size && !p->held, "size %u", p->size);
    REQUIRE(p->vnet_len <= p->l3 && p->l3 <= p->l4 && p->l4 <= p->payload && p->end <= p->size, "%u %u %u %u %u",
            p->l3, p->l4, p->payload, p->end, p->size);
    REQUIRE(p->class == classes[l->kind], "%d, not %d", p->class, classes[l->kind]);
    REQUIRE(p->ip_version == l->version, "%d, not %d", p->ip_version, l->version);
    REQUIRE(p->l3 == l->l3, "%u, not %u", p->l3, l->l3);
    if (l->version) {
        REQUIRE(p->proto == l->proto, "%u, not %u", p->proto, l->proto);
        REQUIRE(p->fragment_word == l->fragment && p->fragment == !!l->fragment, "%04x, not %04x", p->fragment_word,
                l->fragment);
        REQUIRE(p->l4 == l->l4, "%u, not %u", p->l4, l->l4);
        REQUIRE(p->end == l->end, "%u, not %u", p->end, l->end);
        REQUIRE(p->payload == l->payload, "%u, not %u", p->payload, l->payload);
        REQUIRE(p->payload_len == l->end - l->payload, "%u, not %u", p->payload_len, l->end - l->payload);
    }
    if (l->kind == KIND_TCP) {
        REQUIRE(p->tcp_flags == l->flags, "%02x, not %02x", p->tcp_flags, l->flags);
        REQUIRE(p->seq == l->seq && p->ack == l->ack, "%u %u, not %u %u", p->seq, p->ack, l->seq, l->ack);
        REQUIRE(colo_packet_seq_len(p) == l->units, "%u, not %u", colo_packet_seq_len(p), l->units);
    }
    REQUIRE(colo_packet_needs_csum(p) == layout_leaves_checksum(w->data, p->vnet_len), "flags %02x", w->data[0]);
}

/* What the frame says at unit @at: its kind, and for a byte which. */
static ColoRunKind unit_of(const Whole *w, uint32_t at, uint8_t *byte)
{
    const Layout *l = &w->l;

    if (l->flags & SYN) {
        if (at == 0) {
            return COLO_RUN_SYN;
        }
        at--;
    }
    if (at < l->end - l->payload) {
        *byte = w->data[l->payload + at];
        return COLO_RUN_BYTES;
    }
    return COLO_RUN_FIN;
}

static void check_run(const Whole *w, const ColoPacket *p, uint32_t at)
{
    ColoRun run = colo_packet_run(p, w->l.seq + at);
    uint8_t byte = 0;

    if (at >= w->l.units) {
        REQUIRE(run.kind == COLO_RUN_NONE, "%d at %u of %u", run.kind, at, w->l.units);
        return;
    }
    REQUIRE(run.kind == unit_of(w, at, &byte), "%d at %u of %u", run.kind, at, w->l.units);
    REQUIRE(run.len >= 1 && at + run.len <= w->l.units, "%u at %u of %u", run.len, at, w->l.units);
    if (run.kind == COLO_RUN_BYTES) {
        REQUIRE(*run.bytes == byte, "%02x, not %02x", *run.bytes, byte);
        REQUIRE(run.bytes + run.len == w->data + w->l.end, "the run ends early, or late");
    } else {
        REQUIRE(run.len == 1, "%u", run.len);
    }
}

static void check_runs(const Whole *w, const ColoPacket *p, uint32_t *random)
{
    uint32_t step = w->l.units / 32 + 1;

    for (uint32_t at = draw(random) % step; at < w->l.units; at += step) {
        check_run(w, p, at);
    }
    check_run(w, p, 0);
    check_run(w, p, w->l.units);
    if (w->l.units) {
        check_run(w, p, w->l.units - 1);
    }
    check_run(w, p, UINT32_MAX);
    check_run(w, p, draw(random));
}

/* What @a and @b say of their bytes, wherever these are. */
static bool same_fields(const ColoPacket *a, const ColoPacket *b)
{
    return a->size == b->size && a->vnet_len == b->vnet_len && a->l3 == b->l3 && a->l4 == b->l4 &&
           a->payload == b->payload && a->payload_len == b->payload_len && a->end == b->end && a->class == b->class &&
           a->ip_version == b->ip_version && a->proto == b->proto && a->fragment == b->fragment &&
           a->fragment_word == b->fragment_word && a->fragment_id == b->fragment_id && a->tcp_flags == b->tcp_flags &&
           a->seq == b->seq && a->seq_end == b->seq_end && a->ack == b->ack;
}

static void check_hold(const Whole *w, const ColoPacket *p)
{
    ColoPacket *copy = colo_packet_hold(p);

    REQUIRE(copy->held && copy->data != p->data && !memcmp(copy->data, w->data, w->size), "a copy that is none");
    REQUIRE(same_fields(copy, p), "a copy with other fields");
    colo_packet_free(copy);
}

/* The scale of windows that the options offer. */
static uint8_t window_scale(const Whole *w)
{
    uint32_t at = w->l.l4 + 20;
    TcpOption option;

    while (layout_option(w->data, &at, w->l.payload, &option)) {
        if (option.kind == 3 && option.len == 1) {
            return MIN(w->data[option.value], 14);
        }
    }
    return 0;
}

/* Options as they are, but for the values of timestamps. */
static void check_options(const Whole *w, const ColoPacket *p)
{
    const Layout *l = &w->l;
    uint32_t first = l->l4 + 20, at = first;
    uint8_t expected[40], options[40];
    bool is_signed = false;
    TcpOption option;

    memcpy(expected, w->data + first, l->payload - first);
    while (layout_option(w->data, &at, l->payload, &option)) {
        is_signed = is_signed || ((option.kind == 19 || option.kind == 29) && l->payload - first >= 16);
        if (option.kind == 8 && option.len == 8) {
            memset(expected + (option.value - first), 0, 8);
        }
    }
    REQUIRE(colo_packet_tcp_options(p, options) == l->payload - first, "not %u", l->payload - first);
    REQUIRE(!memcmp(options, expected, l->payload - first), "other options");
    REQUIRE(colo_packet_window_scale(p) == window_scale(w), "%u, not %u", colo_packet_window_scale(p), window_scale(w));
    REQUIRE(p->indivisible || !is_signed, "a signature has not been seen");
}

static void check_key(const Whole *w, const ColoPacket *p)
{
    const Layout *l = &w->l;
    uint32_t addresses = l->version == 4 ? 4 : 16;
    uint32_t source = l->l3 + (l->version == 4 ? 12 : 8);
    ColoFlowKey key, back, again;
    char text[COLO_FLOW_TEXT];

    memset(&key, 0xa5, sizeof(key));
    colo_flow_key(&key, p, COLO_FROM_GUEST);
    colo_flow_key(&back, p, COLO_TO_GUEST);
    again = back;
    memcpy(again.guest, back.peer, 16);
    memcpy(again.peer, back.guest, 16);
    if (!l->fragment) {     /* its identification stands there */
        again.guest_port = back.peer_port;
        again.peer_port = back.guest_port;
    }
    REQUIRE(!memcmp(&key, &again, sizeof(key)), "the other direction is another flow");

    if (l->version) {
        REQUIRE(!memcmp(key.guest, w->data + source, addresses), "source address");
        REQUIRE(!memcmp(key.peer, w->data + source + addresses, addresses), "destination address");
    }
    REQUIRE(key.ip_version == l->version && key.proto == l->proto, "%u %u", key.ip_version, key.proto);
    REQUIRE(!(key.tag & COLO_KEY_STREAM) == (l->kind != KIND_TCP), "%04x", key.tag);
    if (l->kind == KIND_TCP || (l->proto == PROTO_UDP && !l->fragment && l->end - l->l4 >= 4)) {
        REQUIRE(key.guest_port == get16(w->data + l->l4) && key.peer_port == get16(w->data + l->l4 + 2), "%u %u",
                key.guest_port, key.peer_port);
    }
    REQUIRE(colo_flow_key_format(&key, text) == text && strlen(text) > 10 && strlen(text) < sizeof(text) - 1,
            "\"%.*s\"", COLO_FLOW_TEXT, text);
}

/* Cutting */

/* The pieces' headers are the whole's but for these fields, which are made equal here before they are compared. */
static void forget_what_may_differ(const Whole *w, uint8_t *header)
{
    if (w->vnet_len >= 10) {
        header[1] = header[4] = header[5] = 0;
    }
    set16(header + w->l.l3 + (w->l.version == 4 ? 2 : 4), 0);
    if (w->l.version == 4) {
        set16(header + w->l.l3 + 10, 0);
    }
    set32(header + w->l.l4 + 4, 0);
    header[w->l.l4 + 13] = 0;
    if (w->data[w->l.l4 + 13] & 2) {        /* the window of a SYN is not scaled, that of what is cut off behind it is */
        set16(header + w->l.l4 + 14, 0);
    }
    set32(header + w->l.l4 + 16, 0);
}

/* Of the piece that begins with unit @from. */
static void check_headers(const Whole *w, const uint8_t *piece, uint32_t from)
{
    uint16_t window = get16(w->data + w->l.l4 + 14);
    uint8_t *ours = malloc(w->l.payload);
    uint8_t *theirs = malloc(w->l.payload);

    memcpy(ours, w->data, w->l.payload);
    memcpy(theirs, piece, w->l.payload);
    if (w->l.flags & SYN && from) {
        set16(ours + w->l.l4 + 14, (uint16_t)(window >> window_scale(w)));
    }
    forget_what_may_differ(w, ours);
    forget_what_may_differ(w, theirs);
    REQUIRE(!memcmp(ours, theirs, w->l.payload), "a cut has changed another field of the headers");
    free(ours);
    free(theirs);
}

static void check_offload(const Whole *w, const uint8_t *piece, uint32_t payload_len)
{
    uint32_t gso_size;

    if (w->vnet_len < 10) {
        return;
    }
    gso_size = w->data[4] + w->data[5] * 256u;
    if (payload_len > gso_size) {
        REQUIRE(piece[1] == w->data[1] && !memcmp(piece + 4, w->data + 4, 2), "gso %u %u", piece[1], piece[4]);
    } else {
        REQUIRE(piece[1] == 0 && piece[4] == 0 && piece[5] == 0, "gso %u %u", piece[1], piece[4]);
    }
}

static void check_urgent(const Whole *w, const Whole *piece, uint32_t from)
{
    uint32_t whole = get16(w->data + w->l.l4 + 18), here = get16(piece->data + piece->l.l4 + 18);

    if (!(w->l.flags & URG)) {
        REQUIRE(!(piece->l.flags & URG) && here == whole, "urgent %u", here);
    } else if (piece->l.flags & URG) {
        REQUIRE(from + here == whole, "urgent %u at %u, not %u", here, from, whole);
    } else {
        REQUIRE(from && whole <= from, "urgent %u at %u forgotten", whole, from);
    }
}

/* @frame is the piece of @w that holds the units @from .. @to. */
static void check_piece(const Whole *w, const uint8_t *frame, uint32_t size, uint32_t from, uint32_t to)
{
    Whole piece = { .data = frame, .size = size, .vnet_len = w->vnet_len, .l = layout_of(frame, size, w->vnet_len) };
    const Layout *l = &piece.l;
    uint8_t flags = w->l.flags;

    REQUIRE(l->kind == KIND_TCP && l->l4 == w->l.l4 && l->payload == w->l.payload, "a piece that is no segment");
    REQUIRE(l->end == size && !l->cut_short, "lengths: %u of %u", l->end, size);
    REQUIRE(l->seq == w->l.seq + from && l->units == to - from, "%u, %u units, not %u, %u", l->seq, l->units,
            w->l.seq + from, to - from);
    for (uint32_t at = from; at < to; at++) {
        uint8_t there = 0, here = 0;

        REQUIRE(unit_of(w, at, &there) == unit_of(&piece, at - from, &here) && there == here, "unit %u differs", at);
    }
    flags &= (uint8_t)~((from ? SYN : 0) | (to < w->l.units ? FIN | PSH : 0));
    REQUIRE((l->flags | URG) == (flags | URG), "flags %02x of %02x", l->flags, w->l.flags);
    check_urgent(w, &piece, from);
    check_offload(w, frame, l->end - l->payload);
    check_headers(w, frame, from);
    if (!w->l.cut_short) {
        if (!layout_ip_error(&w->l, w->data)) {
            REQUIRE(!layout_ip_error(l, frame), "IP checksum");
        }
        if (!layout_tcp_error(&w->l, w->data, w->vnet_len)) {
            REQUIRE(!layout_tcp_error(l, frame, w->vnet_len), "TCP checksum");
        }
    }
}

/* A packet that has been cut says of itself what its bytes say. */
static void check_fields(const ColoPacket *p)
{
    ColoPacket fresh;

    REQUIRE(p->held, "no longer a held one");
    REQUIRE(colo_packet_parse(&fresh, p->data, p->size, p->vnet_len), "a piece that is no frame");
    REQUIRE(same_fields(p, &fresh), "fields of the back half");
}

static void check_cuts(const Whole *w, const ColoPacket *p, uint32_t *random)
{
    ColoPacket *rest = colo_packet_hold(p);
    uint8_t *head = malloc(w->size);
    uint32_t from = 0;

    for (int i = 0; i < CUTS && w->l.units - from > 1; i++) {
        uint32_t left = w->l.units - from;
        uint32_t len = 1 + draw(random) % (left - 1);
        uint32_t size;

        if (draw(random) % 4 == 0) {
            len = draw(random) % 2 ? 1 : left - 1;
        }
        size = colo_packet_cut(rest, len, head);
        check_piece(w, head, size, from, from + len);
        from += len;
        check_piece(w, rest->data, rest->size, from, w->l.units);
        check_fields(rest);
    }
    free(head);
    colo_packet_free(rest);
}

/* Rewriting */

static void add32(uint8_t *at, uint32_t add)
{
    set32(at, get32(at) + add);
}

/* What @rewrite ought to make of the frame, checksum left aside. */
static void rewrite_plainly(const Layout *l, uint8_t *frame, ColoRewrite rewrite)
{
    bool acks = rewrite.kind == COLO_REWRITE_ACK;
    uint32_t at = l->l4 + 20;
    bool timestamped = false;
    TcpOption option;

    add32(frame + l->l4 + (acks ? 8 : 4), rewrite.add);
    while (layout_option(frame, &at, l->payload, &option)) {
        if (option.kind == 5 && acks) {
            for (uint32_t i = 0; i + 4 <= option.len; i += 4) {
                add32(frame + option.value + i, rewrite.add);
            }
        } else if (option.kind == 8 && option.len == 8 && !timestamped) {
            add32(frame + option.value + (acks ? 4 : 0), rewrite.add_time);
            timestamped = true;
        }
    }
}

static bool same_checksum(const uint8_t *a, const uint8_t *b)
{
    return get16(a) % 0xffff == get16(b) % 0xffff;      /* there are two ways to write zero */
}

static void check_rewrite(const Whole *w, const ColoPacket *p, ColoRewrite rewrite)
{
    ColoPacket *q = colo_packet_hold(p);
    uint8_t *expected = malloc(w->size);
    uint8_t *checksum = expected + w->l.l4 + 16;
    uint16_t error = layout_tcp_error(&w->l, w->data, w->vnet_len);

    memcpy(expected, w->data, w->size);
    rewrite_plainly(&w->l, expected, rewrite);
    colo_rewrite(q, rewrite);
    REQUIRE(layout_tcp_error(&w->l, q->data, w->vnet_len) % 0xffff == error % 0xffff, "error %04x, not %04x",
            layout_tcp_error(&w->l, q->data, w->vnet_len), error);
    if (layout_leaves_checksum(w->data, w->vnet_len)) {
        REQUIRE(!memcmp(checksum, q->data + w->l.l4 + 16, 2), "the pseudo-header's sum has changed");
    }
    memcpy(checksum, q->data + w->l.l4 + 16, 2);
    REQUIRE(!memcmp(expected, q->data, w->size), "kind %d, + %u, + %u", rewrite.kind, rewrite.add, rewrite.add_time);

    rewrite.add = 0 - rewrite.add;
    rewrite.add_time = 0 - rewrite.add_time;
    colo_rewrite(q, rewrite);
    REQUIRE(same_checksum(q->data + w->l.l4 + 16, w->data + w->l.l4 + 16), "checksum %04x",
            get16(q->data + w->l.l4 + 16));
    memcpy(q->data + w->l.l4 + 16, w->data + w->l.l4 + 16, 2);
    REQUIRE(!memcmp(w->data, q->data, w->size), "not undone");
    free(expected);
    colo_packet_free(q);
}

static void check_window(const Whole *w, const ColoPacket *p, uint16_t window)
{
    ColoPacket *q = colo_packet_hold(p);
    uint8_t *expected = malloc(w->size);
    uint16_t error = layout_tcp_error(&w->l, w->data, w->vnet_len);

    memcpy(expected, w->data, w->size);
    set16(expected + w->l.l4 + 14, window);
    REQUIRE(colo_packet_window(q) == get16(w->data + w->l.l4 + 14), "%u", colo_packet_window(q));
    colo_packet_set_window(q, window);
    REQUIRE(layout_tcp_error(&w->l, q->data, w->vnet_len) % 0xffff == error % 0xffff, "error %04x, not %04x",
            layout_tcp_error(&w->l, q->data, w->vnet_len), error);
    if (!layout_leaves_checksum(w->data, w->vnet_len)) {
        memcpy(expected + w->l.l4 + 16, q->data + w->l.l4 + 16, 2);
    }
    REQUIRE(!memcmp(expected, q->data, w->size), "window %u", window);
    free(expected);
    colo_packet_free(q);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t vnet_lens[] = { 0, 0, 0, 10, 12, 20 };
    Tape tape = { .at = data, .end = data + size };
    uint8_t how = tape_byte(&tape);
    uint8_t vnet_len = how % 8 < sizeof(vnet_lens) ? vnet_lens[how % 8] : tape_byte(&tape);
    uint32_t random = tape_half(&tape);
    uint32_t left = (uint32_t)(tape.end - tape.at);
    uint8_t *frame = malloc(left);
    Whole w = { .data = frame, .size = left };
    ColoPacket p;
    bool parsed;

    memcpy(frame, tape.at, left);
    w.vnet_len = vnet_len < left ? vnet_len : left;
    w.l = layout_of(frame, left, vnet_len);
    if (how & 8) {
        layout_mend(&w.l, frame, w.vnet_len);
        w.l = layout_of(frame, left, vnet_len);
    }

    parsed = colo_packet_parse(&p, frame, left, vnet_len);
    check_parse(&w, &p, parsed);
    if (w.l.kind == KIND_TCP || w.l.kind == KIND_DATAGRAM) {
        check_key(&w, &p);
        check_hold(&w, &p);
    }
    if (w.l.kind == KIND_TCP) {
        check_runs(&w, &p, &random);
        check_options(&w, &p);
        check_cuts(&w, &p, &random);
        check_window(&w, &p, (uint16_t)draw(&random));
        check_rewrite(&w, &p, (ColoRewrite) { COLO_REWRITE_SEQ, draw(&random), how & 16 ? draw(&random) : 0 });
        check_rewrite(&w, &p, (ColoRewrite) { COLO_REWRITE_ACK, draw(&random), how & 16 ? draw(&random) : 0 });
    }
    free(frame);
    return 0;
}
