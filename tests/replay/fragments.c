/*
 * Fragments: which flow they belong to
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "fragments.h"

#include "net/colo/checksum.h"

/* Datagrams that are remembered; beyond that all are forgotten. */
#define DATAGRAMS_MAX 65536

#define FOR_EVER (G_MAXINT64 / 2)

typedef struct {
    ColoFlow flow;          /* key: of the fragments */
    uint16_t guest_port;
    uint16_t peer_port;
} Datagram;

struct Fragments {
    ColoFlowTable *datagrams;
};

Fragments *fragments_new(const uint8_t secret[16])
{
    Fragments *fragments = g_new0(Fragments, 1);

    fragments->datagrams = colo_flow_table_new(sizeof(Datagram), secret, FOR_EVER, FOR_EVER, NULL, NULL, NULL);
    return fragments;
}

void fragments_free(Fragments *fragments)
{
    colo_flow_table_free(fragments->datagrams);
    g_free(fragments);
}

static bool has_ports(const ColoPacket *p)
{
    return (p->proto == COLO_PROTO_UDP || p->proto == COLO_PROTO_TCP || p->proto == COLO_PROTO_UDPLITE) &&
           p->end - p->l4 >= 4;
}

void fragments_note(Fragments *fragments, const ColoPacket *p, ColoDirection direction)
{
    ColoFlowKey key;
    Datagram *datagram;

    if (!p->fragment || colo_fragment_offset(p) || !has_ports(p)) {
        return;
    }
    if (colo_flow_count(fragments->datagrams) >= DATAGRAMS_MAX) {
        colo_flow_table_clear(fragments->datagrams);
    }
    colo_flow_key(&key, p, direction);
    datagram = (Datagram *)colo_flow_get(fragments->datagrams, &key, 0);
    datagram->guest_port = colo_get_be16(p->data + p->l4 + (direction == COLO_FROM_GUEST ? 0 : 2));
    datagram->peer_port = colo_get_be16(p->data + p->l4 + (direction == COLO_FROM_GUEST ? 2 : 0));
}

void fragments_flow_key(Fragments *fragments, ColoFlowKey *key)
{
    const Datagram *datagram;

    if (key->tag & COLO_KEY_FRAGMENT) {
        key->tag &= (uint16_t)~COLO_KEY_SECONDARY;
        datagram = (const Datagram *)colo_flow_find(fragments->datagrams, key, 0);
        key->tag &= (uint16_t)~COLO_KEY_FRAGMENT;
        key->guest_port = datagram ? datagram->guest_port : 0;
        key->peer_port = datagram ? datagram->peer_port : 0;
    }
}
