/*
 * Flows: keys and the table that finds them
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Theory of operation
 *
 * The table is open addressing with linear probing over slots that hold a flow's hash beside its index, so that a probe
 * touches the flow itself only when the hash fits.  Flows lie in chunks of many, each at its index: a million of them
 * cost what they hold, eight bytes of links, and ten to twenty of slots.  The hash is SipHash-1-3 under a
 * secret of the table's own: whoever chooses addresses and ports (the client, the guest, the other
 * node) cannot choose where they land.  A slot is freed by moving the rest of its run back; there are no
 * tombstones, and a table that has seen a million flows come and go is as quick as a new one.  It doubles at
 * three quarters full; it is never emptied to make room.
 *
 * Flows age on one of two lists, open and closed, each in the order of last use.  The list's head is always the next to
 * go, so ageing never looks at a flow whose time has not come.  Use is noted to a sixteenth of the lifetime: moving a flow to
 * the end of its list touches its neighbours, which with many flows are far from any cache.
 *
 * Turned down: GHashTable (an unkeyed hash, one more allocation and cache miss per flow).
 */

#include "net/colo/flow.h"

#include <string.h>

#include "net/colo/checksum.h"

#define SLOTS_MIN 64
#define CHUNK_FLOWS 256
#define AGE_AT_ONCE 2

typedef struct {
    uint32_t hash;
    uint32_t index;         /* 0: free */
} Slot;

/* Flows in the order of last use, by index; 0: none. */
typedef struct {
    uint32_t oldest;
    uint32_t newest;
    int64_t lifetime;
    int64_t grain;          /* to which use is noted */
} AgeList;

struct ColoFlowTable {
    Slot *slots;
    uint32_t mask;          /* number of slots - 1 */
    uint32_t count;
    GPtrArray *chunks;      /* of CHUNK_FLOWS flows each; index 1 is the first of the first */
    uint32_t unused;        /* index of a flow that was removed, linked by @newer; 0: none */
    uint32_t used;          /* indices that have ever been given out */
    size_t flow_size;
    int64_t now;            /* ns, of the last look */
    uint64_t secret[2];
    AgeList ages[2];        /* open, closing */
    ColoFlowMayGo *may_go;
    ColoFlowGone *gone;
    void *opaque;
};

/* SipHash (Aumasson and Bernstein, 2012) with one compression and three finalisation rounds. */

static inline uint64_t rotl(uint64_t v, unsigned int bits)
{
    return v << bits | v >> (64 - bits);
}

static inline void sip_round(uint64_t v[4])
{
    v[0] += v[1];
    v[2] += v[3];
    v[1] = rotl(v[1], 13) ^ v[0];
    v[3] = rotl(v[3], 16) ^ v[2];
    v[0] = rotl(v[0], 32);
    v[2] += v[1];
    v[0] += v[3];
    v[1] = rotl(v[1], 17) ^ v[2];
    v[3] = rotl(v[3], 21) ^ v[0];
    v[2] = rotl(v[2], 32);
}

static uint64_t siphash13(const uint64_t secret[2], const uint8_t *bytes, size_t len)
{
    uint64_t v[4] = {
        secret[0] ^ 0x736f6d6570736575ULL, secret[1] ^ 0x646f72616e646f6dULL,
        secret[0] ^ 0x6c7967656e657261ULL, secret[1] ^ 0x7465646279746573ULL,
    };
    uint64_t last = (uint64_t)len << 56;
    uint64_t word;
    size_t i;

    for (i = 0; i + 8 <= len; i += 8) {
        memcpy(&word, bytes + i, 8);
        word = GUINT64_FROM_LE(word);
        v[3] ^= word;
        sip_round(v);
        v[0] ^= word;
    }
    for (size_t rest = i; rest < len; rest++) {
        last |= (uint64_t)bytes[rest] << 8 * (rest - i);
    }
    v[3] ^= last;
    sip_round(v);
    v[0] ^= last;
    v[2] ^= 0xff;
    sip_round(v);
    sip_round(v);
    sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

uint64_t colo_flow_table_hash(const ColoFlowTable *table, const void *bytes, size_t len)
{
    return siphash13(table->secret, bytes, len);
}

/* Memory */

static ColoFlow *flow_at(const ColoFlowTable *table, uint32_t index)
{
    uint32_t at = index - 1;
    char *chunk = g_ptr_array_index(table->chunks, at / CHUNK_FLOWS);

    return (ColoFlow *)(chunk + at % CHUNK_FLOWS * table->flow_size);
}

/* A flow that is all zero but for its index. */
static ColoFlow *new_flow(ColoFlowTable *table)
{
    uint32_t index = table->unused;
    ColoFlow *flow;

    if (index) {
        table->unused = flow_at(table, index)->newer;
    } else {
        index = ++table->used;
        if (index > table->chunks->len * CHUNK_FLOWS) {
            g_ptr_array_add(table->chunks, g_malloc(CHUNK_FLOWS * table->flow_size));
        }
    }
    flow = flow_at(table, index);
    memset(flow, 0, table->flow_size);
    flow->index = index;
    return flow;
}

static void free_flow(ColoFlowTable *table, ColoFlow *flow)
{
    flow->newer = table->unused;
    table->unused = flow->index;
}

/* Ageing */

static AgeList *age_list(ColoFlowTable *table, const ColoFlow *flow)
{
    return &table->ages[flow->closing];
}

static void age_unlink(ColoFlowTable *table, ColoFlow *flow)
{
    AgeList *list = age_list(table, flow);

    *(flow->older ? &flow_at(table, flow->older)->newer : &list->oldest) = flow->newer;
    *(flow->newer ? &flow_at(table, flow->newer)->older : &list->newest) = flow->older;
}

static void age_append(ColoFlowTable *table, ColoFlow *flow)
{
    AgeList *list = age_list(table, flow);

    flow->last_used = table->now;
    flow->older = list->newest;
    flow->newer = 0;
    *(list->newest ? &flow_at(table, list->newest)->newer : &list->oldest) = flow->index;
    list->newest = flow->index;
}

static void touch(ColoFlowTable *table, ColoFlow *flow)
{
    if (table->now - flow->last_used >= age_list(table, flow)->grain) {
        age_unlink(table, flow);
        age_append(table, flow);
    }
}

static void set_closing(ColoFlowTable *table, ColoFlow *flow, bool closing)
{
    if (flow->closing != closing) {
        age_unlink(table, flow);
        flow->closing = closing;
        age_append(table, flow);
    }
}

void colo_flow_close(ColoFlowTable *table, ColoFlow *flow)
{
    set_closing(table, flow, true);
}

void colo_flow_reopen(ColoFlowTable *table, ColoFlow *flow)
{
    set_closing(table, flow, false);
}

/* The table */

/* The slot of the flow with this key, or the free slot where it belongs. */
static uint32_t find_slot(const ColoFlowTable *table, const ColoFlowKey *key, uint32_t hash)
{
    uint32_t i = hash & table->mask;

    while (table->slots[i].index) {
        if (table->slots[i].hash == hash && !memcmp(&flow_at(table, table->slots[i].index)->key, key, sizeof(*key))) {
            break;
        }
        i = (i + 1) & table->mask;
    }
    return i;
}

static void grow(ColoFlowTable *table)
{
    Slot *old = table->slots;
    uint32_t old_size = table->mask + 1;

    table->mask = old_size * 2 - 1;
    table->slots = g_new0(Slot, (size_t)old_size * 2);
    for (uint32_t i = 0; i < old_size; i++) {
        if (old[i].index) {
            uint32_t to = old[i].hash & table->mask;

            while (table->slots[to].index) {
                to = (to + 1) & table->mask;
            }
            table->slots[to] = old[i];
        }
    }
    g_free(old);
}

/* Frees a slot.  Whoever probed past it moves into it, so that no probe ends early. */
static void free_slot(ColoFlowTable *table, uint32_t hole)
{
    uint32_t i = hole;

    for (;;) {
        uint32_t home;

        i = (i + 1) & table->mask;
        if (!table->slots[i].index) {
            break;
        }
        home = table->slots[i].hash & table->mask;
        if (((i - home) & table->mask) >= ((i - hole) & table->mask)) {
            table->slots[hole] = table->slots[i];
            hole = i;
        }
    }
    table->slots[hole] = (Slot) { 0 };
}

void colo_flow_remove(ColoFlowTable *table, ColoFlow *flow)
{
    uint32_t slot = find_slot(table, &flow->key, flow->hash);

    g_assert(table->slots[slot].index == flow->index);
    age_unlink(table, flow);
    if (table->gone) {
        table->gone(flow, table->opaque);
    }
    free_slot(table, slot);
    free_flow(table, flow);
    table->count--;
}

ColoFlowTable *colo_flow_table_new(size_t flow_size, const uint8_t secret[16], int64_t idle, int64_t closed,
                                   ColoFlowMayGo *may_go, ColoFlowGone *gone, void *opaque)
{
    ColoFlowTable *table = g_new0(ColoFlowTable, 1);

    g_assert(flow_size >= sizeof(ColoFlow));
    table->flow_size = flow_size;
    memcpy(table->secret, secret, sizeof(table->secret));
    table->ages[false].lifetime = idle;
    table->ages[true].lifetime = closed;
    table->may_go = may_go;
    table->gone = gone;
    table->opaque = opaque;
    for (int closing = 0; closing < 2; closing++) {
        table->ages[closing].grain = table->ages[closing].lifetime / 16;
    }
    table->chunks = g_ptr_array_new_with_free_func(g_free);
    table->mask = SLOTS_MIN - 1;
    table->slots = g_new0(Slot, SLOTS_MIN);
    return table;
}

void colo_flow_table_visit(const ColoFlowTable *table, ColoFlowVisit *visit, void *opaque)
{
    for (int closing = 0; closing < 2; closing++) {
        for (uint32_t index = table->ages[closing].oldest; index; index = flow_at(table, index)->newer) {
            visit(flow_at(table, index), opaque);
        }
    }
}

void colo_flow_table_clear(ColoFlowTable *table)
{
    if (table->gone) {
        colo_flow_table_visit(table, table->gone, table->opaque);
    }
    for (int closing = 0; closing < 2; closing++) {
        table->ages[closing].oldest = table->ages[closing].newest = 0;
    }
    g_ptr_array_set_size(table->chunks, 0);
    table->count = table->used = table->unused = 0;
    table->mask = SLOTS_MIN - 1;
    table->slots = g_renew(Slot, table->slots, SLOTS_MIN);
    memset(table->slots, 0, SLOTS_MIN * sizeof(Slot));
}

void colo_flow_table_free(ColoFlowTable *table)
{
    if (table) {
        colo_flow_table_clear(table);
        g_ptr_array_free(table->chunks, true);
        g_free(table->slots);
        g_free(table);
    }
}

/* An IPv4 key without the zeroes behind its addresses is hashed in half the time. */
static uint32_t hash_key(const ColoFlowTable *table, const ColoFlowKey *key)
{
    const uint8_t *rest = (const uint8_t *)&key->guest_port;
    uint8_t words[16];

    if (key->ip_version != 4) {
        return (uint32_t)siphash13(table->secret, (const uint8_t *)key, sizeof(*key));
    }
    memcpy(words, key->guest, 4);
    memcpy(words + 4, key->peer, 4);
    memcpy(words + 8, rest, 8);
    return (uint32_t)siphash13(table->secret, words, sizeof(words));
}

/* The flow in a slot, which is used. */
static ColoFlow *found(ColoFlowTable *table, uint32_t slot)
{
    uint32_t index = table->slots[slot].index;
    ColoFlow *flow;

    if (!index) {
        return NULL;
    }
    flow = flow_at(table, index);
    touch(table, flow);
    return flow;
}

ColoFlow *colo_flow_find(ColoFlowTable *table, const ColoFlowKey *key, int64_t now)
{
    table->now = now;
    return found(table, find_slot(table, key, hash_key(table, key)));
}

ColoFlow *colo_flow_get(ColoFlowTable *table, const ColoFlowKey *key, int64_t now)
{
    uint32_t hash = hash_key(table, key);
    uint32_t slot = find_slot(table, key, hash);
    ColoFlow *flow;

    table->now = now;
    flow = found(table, slot);
    if (flow) {
        return flow;
    }
    if (table->count >= (table->mask + 1) / 4 * 3) {
        grow(table);
        slot = find_slot(table, key, hash);
    }
    flow = new_flow(table);
    flow->key = *key;
    flow->hash = hash;
    table->slots[slot] = (Slot) { .hash = hash, .index = flow->index };
    table->count++;
    age_append(table, flow);
    return flow;
}

void colo_flow_table_age(ColoFlowTable *table, int64_t now)
{
    table->now = now;
    for (int closing = 0; closing < 2; closing++) {
        AgeList *list = &table->ages[closing];

        for (int i = 0; i < AGE_AT_ONCE && list->oldest; i++) {
            ColoFlow *oldest = flow_at(table, list->oldest);

            if (now - oldest->last_used <= list->lifetime) {
                break;
            }
            if (!table->may_go || table->may_go(oldest, table->opaque)) {
                colo_flow_remove(table, oldest);
            } else {
                touch(table, oldest);
            }
        }
    }
}

uint32_t colo_flow_count(const ColoFlowTable *table)
{
    return table->count;
}

/* Keys */

static bool has_ports(const ColoPacket *p)
{
    switch (p->proto) {
    case COLO_PROTO_TCP:
    case COLO_PROTO_UDP:
    case COLO_PROTO_DCCP:
    case COLO_PROTO_SCTP:
    case COLO_PROTO_UDPLITE:
        return p->end - p->l4 >= 4;
    default:
        return false;
    }
}

void colo_flow_key(ColoFlowKey *key, const ColoPacket *p, ColoDirection direction)
{
    uint8_t *source = direction == COLO_FROM_GUEST ? key->guest : key->peer;
    uint8_t *destination = direction == COLO_FROM_GUEST ? key->peer : key->guest;
    uint16_t *source_port = direction == COLO_FROM_GUEST ? &key->guest_port : &key->peer_port;
    uint16_t *destination_port = direction == COLO_FROM_GUEST ? &key->peer_port : &key->guest_port;
    const uint8_t *ip = p->data + p->l3;

    memset(key, 0, sizeof(*key));
    key->ip_version = p->ip_version;
    key->proto = p->proto;
    if (p->ip_version == 4) {
        memcpy(source, ip + 12, 4);
        memcpy(destination, ip + 16, 4);
    } else if (p->ip_version == 6) {
        memcpy(source, ip + 8, 16);
        memcpy(destination, ip + 24, 16);
    }
    if (p->fragment) {
        key->guest_port = (uint16_t)(p->fragment_id >> 16);
        key->peer_port = (uint16_t)p->fragment_id;
        key->tag = COLO_KEY_FRAGMENT;
    } else if (has_ports(p)) {
        *source_port = colo_get_be16(p->data + p->l4);
        *destination_port = colo_get_be16(p->data + p->l4 + 2);
    }
    /* The innermost tag lies right before the IP header, behind the last Ethernet type but one. */
    if (p->l3 - p->vnet_len > 14) {
        key->tag |= colo_get_be16(p->data + p->l3 - 4) & COLO_KEY_VLAN;
    }
    if (p->class == COLO_CLASS_TCP) {
        key->tag |= COLO_KEY_STREAM;
    }
}

static int format_address(char *text, size_t size, const uint8_t *address, uint8_t ip_version)
{
    if (ip_version == 4) {
        return g_snprintf(text, size, "%u.%u.%u.%u", address[0], address[1], address[2], address[3]);
    }
    return g_snprintf(text, size, "%x:%x:%x:%x:%x:%x:%x:%x",
                      colo_get_be16(address), colo_get_be16(address + 2), colo_get_be16(address + 4),
                      colo_get_be16(address + 6), colo_get_be16(address + 8), colo_get_be16(address + 10),
                      colo_get_be16(address + 12), colo_get_be16(address + 14));
}

static const char *proto_name(uint8_t proto)
{
    switch (proto) {
    case COLO_PROTO_TCP:
        return "tcp";
    case COLO_PROTO_UDP:
        return "udp";
    case COLO_PROTO_ICMP:
        return "icmp";
    case COLO_PROTO_ICMPV6:
        return "icmpv6";
    default:
        return NULL;
    }
}

char *colo_flow_key_format(const ColoFlowKey *key, char text[COLO_FLOW_TEXT])
{
    const char *name = proto_name(key->proto);
    char guest[40], peer[40], number[16];

    format_address(guest, sizeof(guest), key->guest, key->ip_version);
    format_address(peer, sizeof(peer), key->peer, key->ip_version);
    g_snprintf(number, sizeof(number), "proto %u", key->proto);
    g_snprintf(text, COLO_FLOW_TEXT, key->ip_version == 6 ? "%s [%s]:%u > [%s]:%u" : "%s %s:%u > %s:%u",
               name ? name : number, guest, key->guest_port, peer, key->peer_port);
    return text;
}
