/*
 * Where the parts of a frame lie, by the letter of the standards and without the code under test
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Theory of operation: a second reader of frames, to hold the core's against.  It takes no care to be fast; it is
 * written as a descent, each layer in one function that is given what is left and either goes on or stops.
 */

#include "layout.h"

#include <string.h>

uint16_t get16(const uint8_t *at)
{
    return (uint16_t)(at[0] * 256 + at[1]);
}

uint32_t get32(const uint8_t *at)
{
    return get16(at) * 65536u + get16(at + 2);
}

void set16(uint8_t *at, uint16_t value)
{
    at[0] = (uint8_t)(value / 256);
    at[1] = (uint8_t)(value % 256);
}

void set32(uint8_t *at, uint32_t value)
{
    set16(at, (uint16_t)(value / 65536));
    set16(at + 2, (uint16_t)(value % 65536));
}

/* Carries are left to gather: @len is below 2^16 words. */
uint16_t sum16(const uint8_t *bytes, uint32_t len, uint32_t start)
{
    uint32_t even = 0, odd = 0;
    uint64_t sum;

    for (uint32_t i = 0; i + 1 < len; i += 2) {
        even += bytes[i];
        odd += bytes[i + 1];
    }
    if (len % 2) {
        even += bytes[len - 1];
    }
    sum = (uint64_t)even * 256 + odd + start;
    while (sum > 65535) {
        sum = sum % 65536 + sum / 65536;
    }
    return (uint16_t)sum;
}

/* Reading */

static void read_tcp(Layout *l, const uint8_t *frame)
{
    uint32_t header;

    if (l->l4 + 20 > l->end) {
        return;
    }
    header = frame[l->l4 + 12] / 16 * 4;
    if (header < 20 || l->l4 + header > l->end) {
        return;
    }
    l->kind = KIND_TCP;
    l->payload = l->l4 + header;
    l->seq = get32(frame + l->l4 + 4);
    l->ack = get32(frame + l->l4 + 8);
    l->flags = frame[l->l4 + 13];
    l->units = l->end - l->payload + (l->flags & SYN ? 1 : 0) + (l->flags & FIN ? 1 : 0);
}

static bool is_local_icmpv6(uint8_t type)
{
    return (type >= 130 && type <= 137) || type == 143;
}

static void read_transport(Layout *l, const uint8_t *frame)
{
    l->kind = KIND_DATAGRAM;
    l->payload = l->l4;
    if (l->version == 4 && l->proto == PROTO_IGMP) {
        l->kind = KIND_LOCAL;
    } else if (l->fragment) {
        return;
    } else if (l->version == 6 && l->proto == PROTO_ICMPV6 && l->l4 < l->end && is_local_icmpv6(frame[l->l4])) {
        l->kind = KIND_LOCAL;
    } else if (l->proto == PROTO_TCP) {
        read_tcp(l, frame);
    } else if ((l->proto == PROTO_UDP || l->proto == PROTO_UDPLITE) && l->l4 + 8 <= l->end) {
        l->payload = l->l4 + 8;
    }
}

static void read_ipv4(Layout *l, const uint8_t *frame, uint32_t size)
{
    const uint8_t *ip = frame + l->l3;
    uint32_t header, total;

    if (l->l3 + 20 > size || ip[0] / 16 != 4) {
        return;
    }
    header = ip[0] % 16 * 4;
    total = get16(ip + 2);
    if (header < 20 || l->l3 + header > size || total < header) {
        return;
    }
    l->version = 4;
    l->proto = ip[9];
    l->fragment = get16(ip + 6) & 0x3fff;
    l->l4 = l->l3 + header;
    l->cut_short = l->l3 + total > size;
    l->end = l->cut_short ? size : l->l3 + total;
    read_transport(l, frame);
}

/* The length of the extension header @proto that begins at @ext, 0 if it is none. */
static uint32_t extension_len(uint8_t proto, const uint8_t *ext)
{
    switch (proto) {
    case PROTO_HOP_BY_HOP:
    case PROTO_ROUTING:
    case PROTO_DESTINATION:
    case PROTO_MOBILITY:
        return 8 + 8u * ext[1];
    case PROTO_AH:
        return 8 + 4u * ext[1];
    case PROTO_FRAGMENT:
        return 8;
    default:
        return 0;
    }
}

static void read_ipv6(Layout *l, const uint8_t *frame, uint32_t size)
{
    const uint8_t *ip = frame + l->l3;
    uint32_t total;

    if (l->l3 + 40 > size || ip[0] / 16 != 6) {
        return;
    }
    total = 40u + get16(ip + 4);
    l->version = 6;
    l->proto = ip[6];
    l->l4 = l->l3 + 40;
    l->cut_short = l->l3 + total > size;
    l->end = l->cut_short ? size : l->l3 + total;
    for (int i = 0; i < 16 && !l->fragment && l->l4 + 8 <= l->end; i++) {
        const uint8_t *ext = frame + l->l4;
        uint32_t len = extension_len(l->proto, ext);

        if (!len || l->l4 + len > l->end) {
            break;
        }
        if (l->proto == PROTO_FRAGMENT) {
            l->fragment = get16(ext + 2) & 0xfff9;
        }
        l->proto = ext[0];
        l->l4 += len;
    }
    read_transport(l, frame);
}

Layout layout_of(const uint8_t *frame, uint32_t size, uint32_t vnet_len)
{
    Layout l = { .kind = KIND_SHORT };
    uint32_t at = vnet_len + 12;
    uint16_t type;

    if (vnet_len > size || vnet_len + 14 > size) {
        l.l3 = l.l4 = l.payload = vnet_len > size ? size : vnet_len;
        l.end = size;
        return l;
    }
    for (int tags = 0; tags < 4 && at + 6 <= size && (get16(frame + at) == 0x8100 || get16(frame + at) == 0x88a8);
         tags++) {
        at += 4;
    }
    type = get16(frame + at);
    l = (Layout) { .kind = KIND_LOCAL, .l3 = at + 2, .l4 = at + 2, .payload = at + 2, .end = size };
    /* What ought to be IP, or lies under more tags, is compared whole unless it turns out to be more than that. */
    if (type == 0x0800 || type == 0x86dd || type == 0x8100 || type == 0x88a8) {
        l.kind = KIND_DATAGRAM;
    }
    if (type == 0x0800) {
        read_ipv4(&l, frame, size);
    } else if (type == 0x86dd) {
        read_ipv6(&l, frame, size);
    }
    return l;
}

bool layout_option(const uint8_t *frame, uint32_t *at, uint32_t end, TcpOption *option)
{
    while (*at < end && frame[*at] == 1) {
        ++*at;
    }
    if (*at + 2 > end || frame[*at] == 0 || frame[*at + 1] < 2 || *at + frame[*at + 1] > end) {
        return false;
    }
    *option = (TcpOption) { .kind = frame[*at], .value = *at + 2, .len = frame[*at + 1] - 2u };
    *at += frame[*at + 1];
    return true;
}

/* Checksums */

bool layout_leaves_checksum(const uint8_t *frame, uint32_t vnet_len)
{
    return vnet_len >= 10 && frame[0] % 2;
}

static uint16_t pseudo_header_sum(const Layout *l, const uint8_t *frame)
{
    const uint8_t *ip = frame + l->l3;
    uint32_t sum = PROTO_TCP + (l->end - l->l4);

    return l->version == 4 ? sum16(ip + 12, 8, sum) : sum16(ip + 8, 32, sum);
}

uint16_t layout_tcp_error(const Layout *l, const uint8_t *frame, uint32_t vnet_len)
{
    uint16_t sum = pseudo_header_sum(l, frame);

    if (layout_leaves_checksum(frame, vnet_len)) {
        return sum16((uint8_t[2]) { 0 }, 2, sum + (uint16_t)~get16(frame + l->l4 + 16)) ^ 0xffff;
    }
    return sum16(frame + l->l4, l->end - l->l4, sum) ^ 0xffff;
}

uint16_t layout_ip_error(const Layout *l, const uint8_t *frame)
{
    uint32_t header = frame[l->l3] % 16 * 4;

    return l->version == 4 ? sum16(frame + l->l3, header, 0) ^ 0xffff : 0;
}

void layout_mend(const Layout *l, uint8_t *frame, uint32_t vnet_len)
{
    if (l->version == 4) {
        uint32_t header = frame[l->l3] % 16 * 4;

        set16(frame + l->l3 + 10, 0);
        set16(frame + l->l3 + 10, (uint16_t)~sum16(frame + l->l3, header, 0));
    }
    if (l->kind == KIND_TCP) {
        uint16_t sum = pseudo_header_sum(l, frame);

        set16(frame + l->l4 + 16, 0);
        if (!layout_leaves_checksum(frame, vnet_len)) {
            sum = (uint16_t)~sum16(frame + l->l4, l->end - l->l4, sum);
        }
        set16(frame + l->l4 + 16, sum);
    }
}

/* Writing */

uint32_t build_headers_len(const Build *b)
{
    return b->vnet_len + 14 + (b->vlan ? 4 : 0) + (b->version == 4 ? 20 : 40) + (b->extension ? 8 : 0) +
           (b->version == 6 && b->fragment ? 8 : 0);
}

static void put_address(uint8_t *at, int version, uint8_t host)
{
    if (version == 4) {
        set32(at, 0x0a000000u + host);
    } else {
        memset(at, 0, 16);
        at[0] = 0xfd;
        at[15] = host;
    }
}

uint32_t build_ip(const Build *b, uint8_t *frame, uint8_t proto, uint32_t len)
{
    uint8_t *at = frame + b->vnet_len;
    uint8_t source = b->to_guest ? b->peer : b->guest;
    uint8_t destination = b->to_guest ? b->guest : b->peer;
    uint32_t transport = build_headers_len(b);
    uint8_t *ip, *next;

    memset(frame, 0, transport);
    at[0] = at[6] = 0x52;
    at[5] = destination;
    at[11] = source;
    at += 12;
    if (b->vlan) {
        set16(at, 0x8100);
        set16(at + 2, 7);
        at += 4;
    }
    set16(at, b->version == 4 ? 0x0800 : 0x86dd);
    ip = at + 2;
    if (b->version == 4) {
        ip[0] = 0x45;
        set16(ip + 2, (uint16_t)(20 + len));
        set16(ip + 4, (uint16_t)b->id);
        set16(ip + 6, b->fragment);
        ip[8] = 64;
        ip[9] = proto;
        put_address(ip + 12, 4, source);
        put_address(ip + 16, 4, destination);
        set16(ip + 10, (uint16_t)~sum16(ip, 20, 0));
        return transport;
    }
    set32(ip, 0x60000000u + b->id);
    set16(ip + 4, (uint16_t)(transport - (uint32_t)(ip + 40 - frame) + len));
    ip[7] = 64;
    put_address(ip + 8, 6, source);
    put_address(ip + 24, 6, destination);
    next = ip + 6;
    at = ip + 40;
    if (b->extension) {
        *next = PROTO_DESTINATION;
        memcpy(at, (uint8_t[8]) { 0, 0, 1, 4 }, 8);
        next = at;
        at += 8;
    }
    if (b->fragment) {
        *next = PROTO_FRAGMENT;
        set16(at + 2, b->fragment);
        set32(at + 4, b->id);
        next = at;
    }
    *next = proto;
    return transport;
}

uint32_t build_tcp(const Build *b, uint8_t *frame, uint32_t seq, uint32_t ack, uint8_t flags, const uint8_t *options,
                   uint32_t options_len, const uint8_t *payload, uint32_t len)
{
    uint32_t header = 20 + options_len;
    uint32_t l4 = build_ip(b, frame, PROTO_TCP, header + len);
    uint8_t *tcp = frame + l4;
    Layout l = { .kind = KIND_TCP, .version = b->version, .l4 = l4, .end = l4 + header + len };
    uint16_t sum;

    set16(tcp, b->to_guest ? b->peer_port : b->guest_port);
    set16(tcp + 2, b->to_guest ? b->guest_port : b->peer_port);
    set32(tcp + 4, seq);
    set32(tcp + 8, ack);
    tcp[12] = (uint8_t)(header / 4 * 16);
    tcp[13] = flags;
    set16(tcp + 14, 0x7210);
    set32(tcp + 16, 0);
    if (options_len) {
        memcpy(tcp + 20, options, options_len);
    }
    if (len) {
        memcpy(tcp + header, payload, len);
    }
    l.l3 = b->vnet_len + (b->vlan ? 18 : 14);
    sum = pseudo_header_sum(&l, frame);
    set16(tcp + 16, (uint16_t)~sum16(tcp, header + len, sum));
    return l.end;
}
