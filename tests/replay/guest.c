/*
 * The guest: which frames it sent, and which were sent to it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Theory of operation
 *
 * A capture has both directions and does not say which is which; addresses do.  Both copies of a guest have the same
 * ones.
 *
 * If nobody says who the guest is, it is the host that takes part in every conversation: a host is an Ethernet
 * address, a conversation two of them that send each other IP packets.  On a link with two hosts that holds for
 * both; then the guest is the one that is asked: all connections are opened to it, and no exchange of datagrams is
 * begun by it.  If that does not tell either, whoever started us has to.
 */

#include "guest.h"

#include <arpa/inet.h>
#include <netinet/ether.h>
#include <string.h>

#define ETH_ADDRESS 6

/* Flows whose beginning is looked at; more would not make it surer. */
#define FLOWS_MAX 65536

typedef struct {
    uint32_t len;           /* 4, 6 or 16 */
    uint8_t bytes[16];
} GuestAddress;

Guest *guest_new(void)
{
    Guest *guest = g_new0(Guest, 1);

    guest->addresses = g_array_new(FALSE, TRUE, sizeof(GuestAddress));
    return guest;
}

void guest_free(Guest *guest)
{
    if (guest) {
        g_array_free(guest->addresses, TRUE);
        g_free(guest);
    }
}

static void add(Guest *guest, const void *bytes, uint32_t len)
{
    GuestAddress address = { .len = len };

    memcpy(address.bytes, bytes, len);
    g_array_append_val(guest->addresses, address);
}

bool guest_add(Guest *guest, const char *text, GError **error)
{
    uint8_t bytes[16];
    struct ether_addr ether;

    if (inet_pton(AF_INET, text, bytes) == 1) {
        add(guest, bytes, 4);
    } else if (inet_pton(AF_INET6, text, bytes) == 1) {
        add(guest, bytes, 16);
    } else if (ether_aton_r(text, &ether)) {
        add(guest, &ether, ETH_ADDRESS);
    } else {
        g_set_error(error, REPLAY_ERROR, 0, "--guest %s: neither an IPv4, an IPv6 nor an Ethernet address", text);
        return false;
    }
    return true;
}

char *guest_text(const Guest *guest)
{
    GString *text = g_string_new(NULL);

    for (guint i = 0; i < guest->addresses->len; i++) {
        const GuestAddress *a = &g_array_index(guest->addresses, GuestAddress, i);
        char buffer[INET6_ADDRSTRLEN];

        if (a->len == ETH_ADDRESS) {
            g_snprintf(buffer, sizeof(buffer), "%02x:%02x:%02x:%02x:%02x:%02x", a->bytes[0], a->bytes[1], a->bytes[2],
                       a->bytes[3], a->bytes[4], a->bytes[5]);
        } else {
            inet_ntop(a->len == 4 ? AF_INET : AF_INET6, a->bytes, buffer, sizeof(buffer));
        }
        g_string_append_printf(text, "%s%s", i ? ", " : "", buffer);
    }
    return g_string_free(text, FALSE);
}

static const uint8_t *ethernet(const ColoPacket *p)
{
    return p->data + p->vnet_len;
}

/* Where an address of @len bytes stands in the packet: the source, with the destination right behind it or before. */
static bool has_address(const ColoPacket *p, const GuestAddress *a, bool source)
{
    const uint8_t *at;

    if (a->len == ETH_ADDRESS) {
        at = ethernet(p) + (source ? ETH_ADDRESS : 0);
    } else if (a->len == 4 && p->ip_version == 4) {
        at = p->data + p->l3 + (source ? 12 : 16);
    } else if (a->len == 16 && p->ip_version == 6) {
        at = p->data + p->l3 + (source ? 8 : 24);
    } else {
        return false;
    }
    return !memcmp(at, a->bytes, a->len);
}

Way guest_way(const Guest *guest, const ColoPacket *p)
{
    Way way = WAY_ELSEWHERE;

    for (guint i = 0; i < guest->addresses->len; i++) {
        const GuestAddress *a = &g_array_index(guest->addresses, GuestAddress, i);

        if (has_address(p, a, true)) {
            return WAY_FROM_GUEST;
        }
        if (has_address(p, a, false)) {
            way = WAY_TO_GUEST;
        }
    }
    return way;
}

/* Deduction */

typedef struct {
    uint64_t candidates[2];     /* hosts that have been in every conversation so far, as numbers */
    int count;                  /* of candidates; -1 before the first conversation */
    uint64_t asked;             /* the host that all exchanges have been begun with */
    bool asked_set;
    bool asked_differ;
    ColoFlowTable *flows;       /* those seen */
} Deduction;

static uint64_t host_number(const uint8_t *address)
{
    uint64_t number = 0;

    for (int i = 0; i < ETH_ADDRESS; i++) {
        number = number << 8 | address[i];
    }
    return number;
}

static void keep_common(Deduction *d, uint64_t a, uint64_t b)
{
    int kept = 0;

    if (d->count < 0) {
        d->candidates[0] = a;
        d->candidates[1] = b;
        d->count = 2;
        return;
    }
    for (int i = 0; i < d->count; i++) {
        if (d->candidates[i] == a || d->candidates[i] == b) {
            d->candidates[kept++] = d->candidates[i];
        }
    }
    d->count = kept;
}

/* The first packet of a flow, in whichever direction, tells who asks whom. */
static void note_asked(Deduction *d, const ColoPacket *p, uint64_t to)
{
    ColoFlowKey key, back;

    colo_flow_key(&key, p, COLO_FROM_GUEST);
    colo_flow_key(&back, p, COLO_TO_GUEST);
    if (p->fragment || colo_flow_count(d->flows) >= FLOWS_MAX || colo_flow_find(d->flows, &key, 0) ||
        colo_flow_find(d->flows, &back, 0)) {
        return;
    }
    colo_flow_get(d->flows, &key, 0);
    if (p->class == COLO_CLASS_TCP && (p->tcp_flags & (COLO_TCP_SYN | COLO_TCP_ACK)) != COLO_TCP_SYN) {
        return;         /* its beginning is not in the capture */
    }
    d->asked_differ |= d->asked_set && d->asked != to;
    d->asked = to;
    d->asked_set = true;
}

static void add_number(Guest *guest, uint64_t number)
{
    uint8_t address[ETH_ADDRESS];

    for (int i = 0; i < ETH_ADDRESS; i++) {
        address[i] = (uint8_t)(number >> 8 * (ETH_ADDRESS - 1 - i));
    }
    add(guest, address, ETH_ADDRESS);
}

bool guest_deduce(Guest *guest, const char *path, uint32_t vnet_len, const uint8_t secret[16], GError **error)
{
    Deduction d = { .count = -1 };
    Capture *capture = capture_open(path, vnet_len, 0, error);
    bool certain;

    if (!capture) {
        return false;
    }
    d.flows = colo_flow_table_new(sizeof(ColoFlow), secret, G_MAXINT64 / 2, G_MAXINT64 / 2, NULL, NULL, NULL);
    while (capture_next(capture)) {
        const ColoPacket *p = &capture->packet;
        uint64_t to = host_number(ethernet(p));
        uint64_t from = host_number(ethernet(p) + ETH_ADDRESS);

        if (p->class != COLO_CLASS_LOCAL && !(ethernet(p)[0] & 1)) {
            keep_common(&d, from, to);
            note_asked(&d, p, to);
        }
    }
    if (d.count == 2 && d.asked_set && !d.asked_differ) {
        d.candidates[0] = d.asked;
        d.count = 1;
    }
    certain = d.count == 1;
    if (certain) {
        add_number(guest, d.candidates[0]);
    } else if (d.count < 0) {
        g_set_error(error, REPLAY_ERROR, 0, "%s: no packets of a guest: nothing in it is IP between two hosts", path);
    } else {
        g_set_error(error, REPLAY_ERROR, 0, "%s: cannot tell which host is the guest (%s); say so with --guest ADDRESS",
                    path, d.count ? "both take part in every conversation, and either begins some"
                                  : "none takes part in every conversation");
    }
    colo_flow_table_free(d.flows);
    capture_free(capture);
    return certain;
}
