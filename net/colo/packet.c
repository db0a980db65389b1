/*
 * Packets: one parse, all offsets
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Theory of operation
 *
 * A frame is read once, front to back, by one step per layer: Ethernet with its tags, IPv4 or IPv6 with its
 * extension headers, the transport.  Each step sees a cursor, the bytes that are left, and nothing else; it
 * checks that its header is whole before it reads it and leaves in the packet where that header lies.  The
 * bytes come from a guest, or from the other node, and are believed in nothing: a length that points beyond
 * the frame is cut down to it, a header that is not whole ends the parse, and what was found up to there
 * decides how the packet is dealt with (the table below).
 *
 * Ethernet pads short frames.  Everything here therefore ends where the IP header says that the datagram
 * ends, never where the frame does.
 *
 * A TCP segment is a stretch of sequence space (RFC 9293, section 3.4): SYN takes the unit before its data,
 * FIN the unit behind.  colo_packet_run() reads it that way and colo_packet_cut() cuts it that way; the rest of the
 * core deals in positions and never in "payload plus flags".
 *
 * What ought to be IP and is not whole, or lies under more tags than anyone uses, is compared as it stands.
 */

#include "net/colo/packet.h"

#include <string.h>

#include "net/colo/checksum.h"
#include "net/colo/options.h"

#define ETH_HEADER 14
#define ETH_TYPE_IPV4 0x0800
#define ETH_TYPE_IPV6 0x86dd
#define ETH_TYPE_VLAN 0x8100        /* IEEE 802.1Q */
#define ETH_TYPE_SERVICE_VLAN 0x88a8    /* IEEE 802.1ad */
#define VLAN_TAG 4
#define VLAN_TAGS_MAX 4

#define IPV4_HEADER 20
#define IPV4_MORE_FRAGMENTS 0x2000
#define IPV4_OFFSET_MASK 0x1fff
#define IPV6_HEADER 40
#define IPV6_EXTENSIONS_MAX 16
#define IPV6_FRAGMENT_HEADER 8

#define TCP_HEADER 20
#define SIGNATURE_MIN 16            /* AO's, with all algorithms there are; MD5's is longer */
#define WINDOW_SCALE_MAX 14
#define TCP_WINDOW 14               /* offsets of fields in the header */
#define TCP_CHECKSUM 16
#define TCP_URGENT 18
#define UDP_HEADER 8
#define ICMP_HEADER 8
#define QUOTED_MIN 8                /* bytes of a segment that an ICMP error quotes at least */
#define UDP_LENGTH 4

/* struct virtio_net_hdr (VIRTIO 1.2, section 5.1.6): offsets and bits.  Little-endian. */
#define VNET_FLAGS 0
#define VNET_NEEDS_CSUM 1
#define VNET_GSO_TYPE 1
#define VNET_GSO_SIZE 4
#define VNET_MIN 10

/*
 * Which traffic is compared, and how.  The first row that fits decides; -1 fits anything.  Rows with types
 * look at the first byte of the transport header (ICMP's type).
 */
static const struct {
    int ip_version;
    int proto;
    int type_first;
    int type_last;
    ColoClass class;
} classes[] = {
    /*  IP  protocol            types                                                            class */
    {    4, COLO_PROTO_TCP,      -1,  -1, /* a byte stream */                                    COLO_CLASS_TCP },
    {    6, COLO_PROTO_TCP,      -1,  -1,                                                        COLO_CLASS_TCP },
    {    4, COLO_PROTO_IGMP,     -1,  -1, /* says which groups the host listens to */            COLO_CLASS_LOCAL },
    {    6, COLO_PROTO_ICMPV6,  130, 132, /* multicast listener discovery (RFC 2710) */          COLO_CLASS_LOCAL },
    {    6, COLO_PROTO_ICMPV6,  133, 137, /* neighbour discovery (RFC 4861) */                   COLO_CLASS_LOCAL },
    {    6, COLO_PROTO_ICMPV6,  143, 143, /* multicast listener discovery, v2 (RFC 3810) */      COLO_CLASS_LOCAL },
    {    4, -1,                  -1,  -1, /* UDP, ICMP, SCTP, ... and every fragment */          COLO_CLASS_DATAGRAM },
    {    6, -1,                  -1,  -1,                                                        COLO_CLASS_DATAGRAM },
    {   -1, -1,                  -1,  -1, /* ARP, LLDP, ...: not IP at all */                    COLO_CLASS_LOCAL },
};

static ColoClass classify(const ColoPacket *p, int type)
{
    for (guint i = 0; i < G_N_ELEMENTS(classes); i++) {
        if ((classes[i].ip_version == -1 || classes[i].ip_version == p->ip_version) &&
            (classes[i].proto == -1 || classes[i].proto == p->proto) &&
            (classes[i].type_first == -1 || (type >= classes[i].type_first && type <= classes[i].type_last))) {
            return classes[i].class;
        }
    }
    g_assert_not_reached();
}

/* Units of sequence space that the segment's data and flags take. */
static uint32_t tcp_seq_len(uint32_t payload_len, uint8_t flags)
{
    return payload_len + !!(flags & COLO_TCP_SYN) + !!(flags & COLO_TCP_FIN);
}

/* True if there is an option of one of the two kinds between @at and @end. */
static bool has_option(const uint8_t *data, uint32_t at, uint32_t end, uint8_t kind, uint8_t other)
{
    ColoOption option = { .end = at };

    while (colo_option_next(data, end, &option)) {
        if (option.kind == kind || option.kind == other) {
            return true;
        }
    }
    return false;
}

/* The transport header at p->l4.  Returns false if it is cut short or impossible. */
static bool parse_tcp(ColoPacket *p)
{
    const uint8_t *tcp = p->data + p->l4;
    uint32_t header;

    if (p->end - p->l4 < TCP_HEADER) {
        return false;
    }
    header = (tcp[12] >> 4) * 4;
    if (header < TCP_HEADER || header > p->end - p->l4) {
        return false;
    }
    p->payload = p->l4 + header;
    p->payload_len = p->end - p->payload;
    p->tcp_flags = tcp[13];
    p->seq = colo_get_be32(tcp + 4);
    p->seq_end = p->seq + tcp_seq_len(p->payload_len, p->tcp_flags);
    p->compared = p->seq;
    p->ack = colo_get_be32(tcp + 8);
    if (header >= TCP_HEADER + SIGNATURE_MIN && has_option(tcp, TCP_HEADER, header, COLO_TCP_MD5, COLO_TCP_AO)) {
        p->indivisible = true;          /* the signature is over the whole segment */
    }
    return true;
}

static void parse_transport(ColoPacket *p)
{
    uint32_t left = p->end - p->l4;

    p->payload = p->l4;
    p->payload_len = left;
    if (p->fragment) {
        p->class = classify(p, -1);
        p->class = p->class == COLO_CLASS_TCP ? COLO_CLASS_DATAGRAM : p->class;
        return;
    }
    p->class = classify(p, left ? p->data[p->l4] : -1);
    if (p->class == COLO_CLASS_TCP && !parse_tcp(p)) {
        p->class = COLO_CLASS_DATAGRAM;
    } else if ((p->proto == COLO_PROTO_UDP || p->proto == COLO_PROTO_UDPLITE) && left >= UDP_HEADER) {
        p->udp_len = colo_get_be16(p->data + p->l4 + UDP_LENGTH);
        p->payload += UDP_HEADER;
        p->payload_len -= UDP_HEADER;
    }
}

static void parse_ipv4(ColoPacket *p)
{
    const uint8_t *ip = p->data + p->l3;
    uint32_t left = p->size - p->l3;
    uint32_t header, total, offset;

    if (left < IPV4_HEADER || ip[0] >> 4 != 4) {
        return;
    }
    header = (ip[0] & 0xf) * 4;
    total = colo_get_be16(ip + 2);
    if (header < IPV4_HEADER || header > left || total < header) {
        return;
    }
    offset = colo_get_be16(ip + 6);
    p->ip_version = 4;
    p->proto = ip[9];
    p->fragment_word = offset & (IPV4_MORE_FRAGMENTS | IPV4_OFFSET_MASK);
    p->fragment = p->fragment_word;
    p->fragment_id = colo_get_be16(ip + 4);
    p->l4 = p->l3 + header;
    p->end = p->l3 + MIN(total, left);
    if (header > IPV4_HEADER && has_option(ip, IPV4_HEADER, header, COLO_IPV4_LOOSE_ROUTE, COLO_IPV4_STRICT_ROUTE)) {
        p->indivisible = true;          /* the checksum is over an address that stands elsewhere (RFC 791, section 3.1) */
    }
    parse_transport(p);
}

static void parse_ipv6(ColoPacket *p)
{
    const uint8_t *ip = p->data + p->l3;
    uint32_t left = p->size - p->l3;
    uint32_t at, len;
    uint8_t proto;

    if (left < IPV6_HEADER || ip[0] >> 4 != 6) {
        return;
    }
    p->ip_version = 6;
    p->end = p->l3 + MIN(IPV6_HEADER + (uint32_t)colo_get_be16(ip + 4), left);
    proto = ip[6];
    at = p->l3 + IPV6_HEADER;

    for (int i = 0; i < IPV6_EXTENSIONS_MAX && p->end - at >= 8 && !p->fragment; i++) {
        const uint8_t *ext = p->data + at;

        switch (proto) {
        case COLO_PROTO_ROUTING:
            p->indivisible = true;      /* the checksum is over an address that stands elsewhere (RFC 8200, section 8.1) */
            len = (ext[1] + 1) * 8;
            break;
        case COLO_PROTO_HOPOPTS:
        case COLO_PROTO_DSTOPTS:
        case COLO_PROTO_MOBILITY:
            len = (ext[1] + 1) * 8;
            break;
        case COLO_PROTO_AH:
            p->indivisible = true;
            len = (ext[1] + 2) * 4;
            break;
        case COLO_PROTO_FRAGMENT:
            /* A fragment that is all of its datagram is none (RFC 6946). */
            p->fragment_word = colo_get_be16(ext + 2) & (uint16_t)~6u;
            p->fragment = p->fragment_word;
            p->fragment_id = colo_get_be32(ext + 4);
            len = IPV6_FRAGMENT_HEADER;
            break;
        default:
            len = 0;
            break;
        }
        if (!len || len > p->end - at) {
            break;
        }
        proto = ext[0];
        at += len;
    }
    p->proto = proto;
    p->l4 = at;
    parse_transport(p);
}

bool colo_packet_parse(ColoPacket *p, const uint8_t *data, uint32_t size, uint32_t vnet_len)
{
    uint32_t type;

    memset(p, 0, sizeof(*p));
    p->data = (uint8_t *)data;
    p->size = size;
    p->vnet_len = MIN(vnet_len, size);
    p->end = size;
    p->l3 = p->l4 = p->payload = p->vnet_len;
    p->payload_len = size - p->payload;
    p->class = COLO_CLASS_LOCAL;
    if (size - p->vnet_len < ETH_HEADER) {
        return false;
    }

    p->l3 += ETH_HEADER;
    type = colo_get_be16(data + p->l3 - 2);
    for (int tags = 0; tags < VLAN_TAGS_MAX && size - p->l3 >= VLAN_TAG; tags++) {
        if (type != ETH_TYPE_VLAN && type != ETH_TYPE_SERVICE_VLAN) {
            break;
        }
        p->l3 += VLAN_TAG;
        type = colo_get_be16(data + p->l3 - 2);
    }
    p->l4 = p->payload = p->l3;
    p->payload_len = size - p->payload;

    switch (type) {
    case ETH_TYPE_IPV4:
        p->class = COLO_CLASS_DATAGRAM;
        parse_ipv4(p);
        break;
    case ETH_TYPE_IPV6:
        p->class = COLO_CLASS_DATAGRAM;
        parse_ipv6(p);
        break;
    case ETH_TYPE_VLAN:
    case ETH_TYPE_SERVICE_VLAN:
        p->class = COLO_CLASS_DATAGRAM;
        break;
    default:
        break;
    }
    return true;
}

ColoPacket *colo_packet_hold(const ColoPacket *p)
{
    return colo_packet_hold_in(g_malloc(sizeof(*p) + p->size), p->size, p);
}

ColoPacket *colo_packet_hold_in(void *memory, uint32_t room, const ColoPacket *p)
{
    ColoPacket *copy = memory;

    *copy = *p;
    copy->room = room;
    copy->data = (uint8_t *)(copy + 1);
    memcpy(copy->data, p->data, p->size);
    copy->held = true;
    copy->parts = copy->next = copy->older = copy->newer = NULL;
    return copy;
}

void colo_packet_free(ColoPacket *p)
{
    while (p->parts) {
        ColoPacket *part = p->parts;

        p->parts = part->next;
        g_free(part);
    }
    g_free(p);
}

uint64_t colo_packet_footprint(const ColoPacket *p)
{
    uint64_t bytes = p->size;

    for (const ColoPacket *part = p->parts; part; part = part->next) {
        bytes += part->size;
    }
    return bytes;
}

ColoPacket *colo_packet_assemble(ColoPacket *parts)
{
    const ColoPacket *first = parts;
    ColoPacket *whole;
    uint8_t *data;
    uint32_t len = 0;
    uint32_t word;

    g_assert(parts);
    for (const ColoPacket *part = parts; part; part = part->next) {
        first = colo_fragment_offset(part) ? first : part;
        len += part->payload_len;
    }
    if (first->l4 - first->l3 - (first->ip_version == 6 ? IPV6_HEADER : 0) + len > UINT16_MAX) {
        return NULL;
    }

    whole = g_malloc(sizeof(*whole) + first->l4 + len);
    data = (uint8_t *)(whole + 1);
    memcpy(data, first->data, first->l4);
    for (const ColoPacket *part = parts; part; part = part->next) {
        g_assert(colo_fragment_offset(part) + part->payload_len <= len);
        memcpy(data + first->l4 + colo_fragment_offset(part), part->data + part->l4, part->payload_len);
    }
    if (first->ip_version == 4) {
        word = first->l3 + 6;
        colo_put_be16(data + first->l3 + 2, (uint16_t)(first->l4 - first->l3 + len));
    } else {
        word = first->l4 - IPV6_FRAGMENT_HEADER + 2;
        colo_put_be16(data + first->l3 + 4, (uint16_t)(first->l4 - first->l3 - IPV6_HEADER + len));
    }
    colo_put_be16(data + word, 0);
    colo_packet_parse(whole, data, first->l4 + len, first->vnet_len);
    if (whole->fragment) {
        g_free(whole);
        return NULL;
    }
    whole->indivisible = true;
    whole->parts = parts;
    return whole;
}

/* The ICMP types that tell of a segment's fate on its way. */
static bool is_error(const ColoPacket *p)
{
    uint8_t type = p->data[p->l4];

    return p->proto == COLO_PROTO_ICMP ? type == 3 || type == 11 || type == 12 :      /* unreachable, time, parameter */
           p->proto == COLO_PROTO_ICMPV6 && type >= 1 && type <= 4;                   /* and packet too big */
}

bool colo_packet_quoted(const ColoPacket *p, ColoPacket *quoted)
{
    uint32_t at = p->l4 + ICMP_HEADER;
    uint32_t header = p->ip_version == 4 ? IPV4_HEADER : IPV6_HEADER;
    const uint8_t *ip = p->data + at;
    uint8_t proto;

    if (p->class != COLO_CLASS_DATAGRAM || p->fragment || p->end < at + header + QUOTED_MIN || !is_error(p) ||
        ip[0] >> 4 != p->ip_version) {
        return false;
    }
    if (p->ip_version == 4) {
        header = MAX((ip[0] & 0xfu) * 4, header);
        proto = colo_get_be16(ip + 6) & IPV4_OFFSET_MASK ? 0 : ip[9];
    } else {
        proto = ip[6];
    }
    if (proto != COLO_PROTO_TCP || p->end < at + header + QUOTED_MIN) {
        return false;
    }
    *quoted = *p;
    quoted->class = COLO_CLASS_TCP;
    quoted->proto = proto;
    quoted->l3 = at;
    quoted->l4 = quoted->payload = at + header;
    quoted->payload_len = 0;
    quoted->seq = quoted->seq_end = colo_get_be32(p->data + quoted->l4 + 4);
    return true;
}

bool colo_packet_needs_csum(const ColoPacket *p)
{
    return p->vnet_len >= VNET_MIN && p->data[VNET_FLAGS] & VNET_NEEDS_CSUM;
}

ColoRun colo_packet_run(const ColoPacket *p, uint32_t seq)
{
    uint32_t at = seq - p->seq;
    uint32_t syn = !!(p->tcp_flags & COLO_TCP_SYN);

    if (at >= colo_packet_seq_len(p)) {
        return (ColoRun) { .kind = COLO_RUN_NONE };
    }
    if (at < syn) {
        return (ColoRun) { .kind = COLO_RUN_SYN, .len = 1 };
    }
    at -= syn;
    if (at < p->payload_len) {
        return (ColoRun) {
            .kind = COLO_RUN_BYTES,
            .bytes = p->data + p->payload + at,
            .len = p->payload_len - at,
        };
    }
    return (ColoRun) { .kind = COLO_RUN_FIN, .len = 1 };
}

uint32_t colo_packet_tcp_options(const ColoPacket *p, uint8_t options[40])
{
    uint32_t len = p->payload - p->l4 - TCP_HEADER;
    ColoOption option = { .end = 0 };

    g_assert(p->class == COLO_CLASS_TCP && len <= 40);
    memcpy(options, p->data + p->l4 + TCP_HEADER, len);
    while (colo_option_next(options, len, &option)) {
        if (colo_option_is_timestamps(&option)) {
            memset(options + option.at + 2, 0, COLO_TCP_TIMESTAMPS_LEN - 2);
        }
    }
    return len;
}

uint8_t colo_packet_window_scale(const ColoPacket *p)
{
    ColoOption option = { .end = p->l4 + TCP_HEADER };

    g_assert(p->class == COLO_CLASS_TCP);
    while (colo_option_next(p->data, p->payload, &option)) {
        if (option.kind == COLO_TCP_WINDOW_SCALE && option.end - option.at == COLO_TCP_WINDOW_SCALE_LEN) {
            return MIN(p->data[option.at + 2], WINDOW_SCALE_MAX);
        }
    }
    return 0;
}

uint16_t colo_packet_window(const ColoPacket *p)
{
    g_assert(p->class == COLO_CLASS_TCP);
    return colo_get_be16(p->data + p->l4 + TCP_WINDOW);
}

void colo_packet_set_window(ColoPacket *p, uint16_t window)
{
    uint8_t *tcp = p->data + p->l4;
    uint32_t from = colo_get_be16(tcp + TCP_WINDOW);

    g_assert(p->class == COLO_CLASS_TCP && p->held);
    colo_put_be16(tcp + TCP_WINDOW, window);
    if (!colo_packet_needs_csum(p)) {       /* else the field holds the sum of the pseudo-header, which has not changed */
        colo_checksum_replace32(tcp + TCP_CHECKSUM, from, window);
    }
}

/*
 * Writes the lengths and checksums of the TCP segment whose headers start at @hdr (laid out as in @p)
 * for a payload of @payload_len bytes.
 */
static void finish_segment(const ColoPacket *p, uint8_t *hdr, uint32_t payload_len)
{
    uint8_t *ip = hdr + p->l3;
    uint8_t *tcp = hdr + p->l4;
    uint32_t segment = p->payload - p->l4 + payload_len;
    uint32_t addresses = p->ip_version == 4 ? 12 : 8;
    uint64_t sum = COLO_PROTO_TCP + (uint64_t)segment;

    sum = colo_checksum_add(sum, ip + addresses, p->ip_version == 4 ? 8 : 32);
    if (p->ip_version == 4) {
        colo_put_be16(ip + 2, (uint16_t)(p->l4 - p->l3 + segment));
        colo_put_be16(ip + 10, 0);
        colo_put_be16(ip + 10, (uint16_t)~colo_checksum_fold(colo_checksum_add(0, ip, p->l4 - p->l3)));
    } else {
        colo_put_be16(ip + 4, (uint16_t)(p->l4 - p->l3 - IPV6_HEADER + segment));
    }

    colo_put_be16(tcp + TCP_CHECKSUM, 0);
    if (colo_packet_needs_csum(p)) {
        /* The offload adds the segment's own sum; the field holds the pseudo-header's. */
        colo_put_be16(tcp + TCP_CHECKSUM, colo_checksum_fold(sum));
    } else {
        sum = colo_checksum_add(sum, tcp, segment);
        colo_put_be16(tcp + TCP_CHECKSUM, (uint16_t)~colo_checksum_fold(sum));
    }

    /* What fits in one segment is no longer to be cut by the offload. */
    if (p->vnet_len >= VNET_MIN) {
        uint32_t gso_size = hdr[VNET_GSO_SIZE] | hdr[VNET_GSO_SIZE + 1] << 8;

        if (payload_len <= gso_size) {
            hdr[VNET_GSO_TYPE] = 0;
            hdr[VNET_GSO_SIZE] = hdr[VNET_GSO_SIZE + 1] = 0;
        }
    }
}

uint32_t colo_packet_cut(ColoPacket *p, uint32_t len, uint8_t *head)
{
    uint32_t syn = !!(p->tcp_flags & COLO_TCP_SYN);
    uint32_t bytes = MIN(len - syn, p->payload_len);
    uint8_t flags = p->tcp_flags;
    uint8_t *data;

    g_assert(p->class == COLO_CLASS_TCP && len > 0 && len < colo_packet_seq_len(p));

    memcpy(head, p->data, p->payload + bytes);
    head[p->l4 + 13] = flags & (uint8_t)~(COLO_TCP_FIN | COLO_TCP_PSH);
    finish_segment(p, head, bytes);

    /* The back half keeps its payload where it is; the headers move up to it, and the padding goes. */
    data = p->data + bytes;
    memmove(data, p->data, p->payload);
    p->data = data;
    p->end -= bytes;
    p->size = p->end;
    p->payload_len -= bytes;
    p->tcp_flags = flags & (uint8_t)~COLO_TCP_SYN;
    p->seq += len;
    if (syn) {      /* the window of a SYN is not scaled, that of the rest is (RFC 7323, section 2.2) */
        colo_put_be16(data + p->l4 + TCP_WINDOW, (uint16_t)(colo_packet_window(p) >> colo_packet_window_scale(p)));
    }
    if (flags & COLO_TCP_URG) {
        uint32_t urgent = colo_get_be16(data + p->l4 + TCP_URGENT);     /* counts from the segment's beginning */

        if (urgent <= len) {
            p->tcp_flags &= (uint8_t)~COLO_TCP_URG;
        }
        colo_put_be16(data + p->l4 + TCP_URGENT, (uint16_t)(urgent > len ? urgent - len : 0));
    }
    data[p->l4 + 13] = p->tcp_flags;
    colo_put_be32(data + p->l4 + 4, p->seq);
    finish_segment(p, data, p->payload_len);
    return p->payload + bytes;
}
