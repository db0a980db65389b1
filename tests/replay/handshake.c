/*
 * Handshakes: the numbers with which both captures begin a connection
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The theory of operation is in handshake.h.
 */

#include "handshake.h"

#include <stdlib.h>

#include "net/colo/seq.h"

/* Connections that are told apart on one pair of addresses and ports; later ones are compared as they are. */
#define CONNECTIONS_MAX 4096
static Handshake *get(const GArray *all, int connection)
{
    return all && connection >= 0 && (guint)connection < all->len ? &g_array_index(all, Handshake, connection) : NULL;
}

void handshake_learn(GArray *all, ColoDirection direction, const ColoPacket *p)
{
    Handshake *h = get(all, (int)all->len - 1);
    bool syn = p->tcp_flags & COLO_TCP_SYN && !(p->tcp_flags & COLO_TCP_RST);
    bool opens = syn && !(p->tcp_flags & COLO_TCP_ACK);

    if (syn && all->len < CONNECTIONS_MAX) {
        if (!h || (opens && h->isn_set[direction] && h->isn[direction] != p->seq)) {
            g_array_set_size(all, all->len + 1);
            h = get(all, (int)all->len - 1);
        }
        if (opens || !h->next_set) {
            h->isn[direction] = p->seq;
            h->isn_set[direction] = true;
        }
    } else if (h && direction == COLO_FROM_GUEST && h->isn_set[COLO_FROM_GUEST] && !h->next_set &&
               !(p->tcp_flags & COLO_TCP_RST)) {
        h->next = p->seq;
        h->next_set = true;
    }
}

/* True if @p begins what is seen of the connection in its direction. */
static bool begins(const Handshake *h, ColoDirection direction, const ColoPacket *p)
{
    if (p->tcp_flags & COLO_TCP_SYN) {
        return h->isn_set[direction] && h->isn[direction] == p->seq;
    }
    /* A guest that refuses a connection sends no SYN in it. */
    return direction == COLO_FROM_GUEST && p->tcp_flags & COLO_TCP_RST && p->tcp_flags & COLO_TCP_ACK &&
           !h->isn_set[COLO_FROM_GUEST] && h->isn_set[COLO_TO_GUEST] && h->isn[COLO_TO_GUEST] + 1 == p->ack;
}

int handshake_follow(const GArray *all, int current, ColoDirection direction, const ColoPacket *p)
{
    if (p->tcp_flags & (COLO_TCP_SYN | COLO_TCP_RST)) {
        for (int i = MAX(current, 0); all && (guint)i < all->len; i++) {
            if (begins(get(all, i), direction, p)) {
                return i;
            }
        }
    }
    return current;
}

uint32_t handshake_shift(GArray *const handshakes[COLO_SIDES], int connection)
{
    const Handshake *primary = get(handshakes[COLO_PRIMARY], connection);
    const Handshake *secondary = get(handshakes[COLO_SECONDARY], connection);

    if (!primary || !secondary || !primary->isn_set[COLO_TO_GUEST] || !secondary->isn_set[COLO_TO_GUEST]) {
        return 0;
    }
    return primary->isn[COLO_TO_GUEST] - secondary->isn[COLO_TO_GUEST];
}

bool handshake_is_known(GArray *const handshakes[COLO_SIDES], int connection)
{
    const Handshake *primary = get(handshakes[COLO_PRIMARY], connection);
    const Handshake *secondary = get(handshakes[COLO_SECONDARY], connection);

    return primary && secondary && primary->isn_set[COLO_FROM_GUEST] && secondary->isn_set[COLO_FROM_GUEST];
}

static uint32_t distance(uint32_t a, uint32_t b)
{
    return MIN(a - b, b - a);
}

bool handshake_is_raw(GArray *const handshakes[COLO_SIDES], int connection)
{
    const Handshake *secondary = get(handshakes[COLO_SECONDARY], connection);

    return handshake_is_known(handshakes, connection) &&
           (!secondary->next_set ||
            distance(secondary->next, secondary->isn[COLO_FROM_GUEST]) <=
                distance(secondary->next, get(handshakes[COLO_PRIMARY], connection)->isn[COLO_FROM_GUEST]));
}

void reader_init(Reader *reader)
{
    *reader = (Reader) { .input = -1, .output = { -1, -1 }, .opened = -1 };
}

void reader_clear(Reader *reader)
{
    if (reader->parked) {
        g_ptr_array_free(reader->parked, TRUE);
    }
}

static void free_parked(gpointer p)
{
    if (p) {
        colo_packet_free(p);
    }
}

/* Keeps the first acknowledgement of a connection. */
static void park(Reader *reader, int connection, const ColoPacket *p)
{
    if (!reader->parked) {
        reader->parked = g_ptr_array_new_with_free_func(free_parked);
    }
    if ((guint)connection >= reader->parked->len) {
        g_ptr_array_set_size(reader->parked, connection + 1);
    }
    if (!reader->parked->pdata[connection]) {
        reader->parked->pdata[connection] = colo_packet_hold(p);
    }
}

bool reader_input(Reader *reader, GArray *const handshakes[COLO_SIDES], const ColoPacket *p)
{
    int connection = handshake_follow(handshakes[COLO_PRIMARY], reader->input, COLO_TO_GUEST, p);
    bool acks = p->tcp_flags & COLO_TCP_ACK && !(p->tcp_flags & COLO_TCP_RST);

    if (connection != reader->input) {
        reader->input = connection;
        reader->input_end_set = reader->input_acked = false;
    }
    reader->input_end = reader->input_end_set ? colo_seq_max(reader->input_end, p->seq_end) : p->seq_end;
    reader->input_end_set = true;
    reader->input_acked |= acks;

    if (!handshake_is_raw(handshakes, connection)) {
        return false;
    }
    if (connection <= reader->opened || (p->tcp_flags & (COLO_TCP_SYN | COLO_TCP_ACK)) == COLO_TCP_SYN) {
        return true;
    }
    if (acks) {
        park(reader, connection, p);
    }
    return false;
}

bool reader_may_answer(const Reader *reader, GArray *const handshakes[COLO_SIDES], const ColoPacket *p)
{
    int connection = handshake_follow(handshakes[COLO_SECONDARY], reader->output[COLO_SECONDARY], COLO_FROM_GUEST, p);
    const Handshake *primary = get(handshakes[COLO_PRIMARY], connection);
    const Handshake *secondary = get(handshakes[COLO_SECONDARY], connection);

    if (!primary || !secondary || !primary->isn_set[COLO_TO_GUEST] || !secondary->isn_set[COLO_TO_GUEST] ||
        !(p->tcp_flags & COLO_TCP_ACK) || connection < reader->input) {
        return true;
    }
    if (connection > reader->input || !reader->input_end_set ||
        colo_seq_after(p->ack + handshake_shift(handshakes, connection), reader->input_end)) {
        return false;
    }
    return reader->input_acked || p->tcp_flags & (COLO_TCP_SYN | COLO_TCP_RST);
}

ColoPacket *reader_answered(Reader *reader, GArray *const handshakes[COLO_SIDES], const ColoPacket *p)
{
    int connection = handshake_follow(handshakes[COLO_SECONDARY], reader->output[COLO_SECONDARY], COLO_FROM_GUEST, p);
    ColoPacket *parked = NULL;

    reader->output[COLO_SECONDARY] = connection;
    if (p->tcp_flags & COLO_TCP_SYN && connection > reader->opened) {
        reader->opened = connection;
        if (reader->parked && (guint)connection < reader->parked->len) {
            parked = reader->parked->pdata[connection];
            reader->parked->pdata[connection] = NULL;
        }
    }
    return parked;
}
