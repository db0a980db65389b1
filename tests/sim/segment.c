/*
 * Segments and datagrams as the models see them, and as frames
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Frames are built by tests/unit/frames.c and read here: the reader shares nothing with the code under test, nor with
 * the builder.
 */

#include "segment.h"

#include <string.h>

enum {
    PROTO_ICMP = 1,
    PROTO_TCP = 6,
    PROTO_UDP = 17,
    PROTO_FRAGMENT = 44,
    PROTO_ICMPV6 = 58,
};

void parcel_free(Parcel *p)
{
    if (p) {
        g_free(p->data);
        g_free(p);
    }
}

static Parcel *parcel_of(Frame *f)
{
    Parcel *p = g_new0(Parcel, 1);

    p->data = f->data;
    p->size = f->size;
    p->vnet_len = f->vnet_len;
    g_free(f);
    return p;
}

/* Sets a word of the transport header and mends the checksum, unless it is left to offload. */
static void set_word(Frame *f, uint32_t at, uint16_t word, bool offload)
{
    uint8_t *field = f->data + f->l4 + at;
    uint8_t *sum = f->data + f->l4 + 16;
    uint32_t all = (uint16_t)~be16(sum) + (uint32_t)(uint16_t)~be16(field) + word;

    put16(field, word);
    if (!offload) {
        all = all % 65536 + all / 65536;
        all = all % 65536 + all / 65536;
        put16(sum, (uint16_t)~all);
    }
}

static uint32_t put_options(const Connection *c, const Segment *s, uint8_t options[40])
{
    uint32_t at = 0;

    /* Not more than fits: 3 blocks beside timestamps (RFC 2018, section 3). */
    if (s->mss || s->sacks || s->timestamps || s->scale >= 0) {
        for (uint32_t i = 0; i < c->leading_nops; i++) {
            options[at++] = 1;
        }
    }
    if (s->mss) {
        options[at] = 2;
        options[at + 1] = 4;
        put16(options + at + 2, s->mss);
        at += 4;
    }
    if (s->scale >= 0) {
        options[at] = 3;
        options[at + 1] = 3;
        options[at + 2] = (uint8_t)s->scale;
        at += 3;
    }
    if (s->sack_permitted) {
        options[at] = 4;
        options[at + 1] = 2;
        at += 2;
    }
    if (s->timestamps) {
        options[at] = 8;
        options[at + 1] = 10;
        put32(options + at + 2, s->time);
        put32(options + at + 6, s->echo);
        at += 10;
    }
    if (s->sacks) {
        uint8_t *kind = options + at;
        int blocks = 0;

        for (at += 2; blocks < s->sacks && at + 8 <= 40; blocks++, at += 8) {
            put32(options + at, s->sack[blocks][0]);
            put32(options + at + 4, s->sack[blocks][1]);
        }
        kind[0] = 5;
        kind[1] = (uint8_t)(2 + 8 * blocks);
    }
    return at;
}

static Shape shape_of(bool ipv6, uint16_t vlan, uint8_t peer_host, uint16_t guest_port, uint16_t peer_port,
                      bool to_guest, Build build)
{
    return (Shape) {
        .ipv6 = ipv6,
        .to_guest = to_guest,
        .peer_host = peer_host,
        .guest_port = guest_port,
        .peer_port = peer_port,
        .vlans = vlan ? 1 : 0,
        .vlan = { vlan },
        .ip_id = build.id,
        .ttl = build.ttl,
        .vnet_len = build.vnet_len,
        .needs_csum = build.vnet_len && build.checksum_offload,
    };
}

Parcel *parcel_tcp(const Connection *c, bool to_guest, const Segment *s, Build build)
{
    Shape shape = shape_of(c->ipv6, c->vlan, c->peer_host, c->guest_port, c->peer_port, to_guest, build);
    uint32_t mss = c->mss[to_guest ? GUEST : CLIENT];
    uint8_t options[40];
    uint32_t options_len = put_options(c, s, options);
    Frame *f;

    if (s->len > mss && build.vnet_len) {
        shape.needs_csum = true;
        shape.gso_type = c->ipv6 ? GSO_TCPV6 : GSO_TCPV4;
        shape.gso_size = (uint16_t)mss;
    }
    if (!to_guest && !shape.needs_csum && !s->len) {
        shape.pad_to = 60;
        shape.padding = (uint8_t)build.id;
    }
    f = frame_tcp(&shape, s->seq, s->ack, s->flags, options, options_len, s->payload, s->len);
    set_word(f, 14, s->window, shape.needs_csum);
    if (s->flags & URG) {
        set_word(f, 18, s->urgent, shape.needs_csum);
    }
    return parcel_of(f);
}

Parcel *parcel_datagram(const DatagramFlow *f, bool to_guest, uint16_t number, const uint8_t *bytes, uint32_t len,
                        Build build)
{
    Shape shape = shape_of(f->ipv6, f->vlan, f->peer_host, f->guest_port, f->peer_port, to_guest, build);
    Parcel *p;

    if (f->kind == DATAGRAM_UDP) {
        return parcel_of(frame_udp(&shape, bytes, len));
    }
    shape.needs_csum = false;
    p = parcel_of(frame_echo(&shape, f->guest_port, number, bytes, len));
    if (to_guest) {
        /* The helper builds replies: type 0 (or 129).  A request is 8 (or 128). */
        Reading r;

        g_assert(!frame_read(&r, p->data, p->size, p->vnet_len));
        p->data[r.l4] = f->ipv6 ? 128 : 8;
        put16(p->data + r.l4 + 2, plain_sum((const uint8_t *)(f->ipv6 ? "\1\0" : "\xf7\xff"), 2,
                                            be16(p->data + r.l4 + 2)));
    }
    return p;
}

Parcel *parcel_fragment(const DatagramFlow *f, const Parcel *whole, uint32_t offset, uint32_t len, Build build)
{
    Shape shape = shape_of(f->ipv6, f->vlan, f->peer_host, 0, 0, false, build);
    Reading r;

    g_assert(!frame_read(&r, whole->data, whole->size, whole->vnet_len) && offset % 8 == 0);
    shape.needs_csum = false;
    shape.fragment = (uint16_t)(f->ipv6 ? offset : offset / 8);
    if (r.l4 + offset + len < r.end) {
        shape.fragment |= f->ipv6 ? 1 : 0x2000;
    }
    return parcel_of(frame_ip(&shape, r.proto, whole->data + r.l4 + offset, len));
}

/* Reading */

static const char *read_options(Reading *r, const uint8_t *data)
{
    Segment *s = &r->tcp;
    uint32_t at = r->options;

    s->scale = -1;
    while (at < r->payload && data[at] != 0) {
        uint32_t len = data[at] == 1 ? 1 : at + 1 < r->payload ? data[at + 1] : 0;

        if (!len || (data[at] != 1 && len < 2) || at + len > r->payload) {
            return "a TCP option is cut short";
        }
        switch (data[at]) {
        case 2:
            s->mss = be16(data + at + 2);
            break;
        case 3:
            s->scale = data[at + 2];
            break;
        case 4:
            s->sack_permitted = true;
            break;
        case 5:
            for (uint32_t i = 2; i + 8 <= len && s->sacks < SACK_MAX; i += 8, s->sacks++) {
                s->sack[s->sacks][0] = be32(data + at + i);
                s->sack[s->sacks][1] = be32(data + at + i + 4);
            }
            break;
        case 8:
            s->timestamps = true;
            s->time = be32(data + at + 2);
            s->echo = be32(data + at + 6);
            break;
        default:
            break;
        }
        at += len;
    }
    return NULL;
}

static const char *read_transport(Reading *r, const uint8_t *data)
{
    const uint8_t *l4 = data + r->l4;
    const uint8_t *ip = data + r->ip;
    uint32_t len = r->end - r->l4;
    uint8_t tail[8] = { 0 };
    uint32_t field = 0;
    uint16_t pseudo;

    if (r->proto == PROTO_TCP && len >= 20) {
        uint32_t header = l4[12] / 16 * 4u;

        if (header < 20 || header > len) {
            return "the TCP header's length is impossible";
        }
        r->source_port = be16(l4);
        r->destination_port = be16(l4 + 2);
        r->options = r->l4 + 20;
        r->options_len = header - 20;
        r->payload = r->l4 + header;
        r->tcp.seq = be32(l4 + 4);
        r->tcp.ack = be32(l4 + 8);
        r->tcp.flags = l4[13];
        r->tcp.window = be16(l4 + 14);
        r->tcp.urgent = be16(l4 + 18);
        field = 16;
    } else if (r->proto == PROTO_UDP && len >= 8) {
        if (be16(l4 + 4) != len) {
            return "the UDP length is wrong";
        }
        r->source_port = be16(l4);
        r->destination_port = be16(l4 + 2);
        r->payload = r->l4 + 8;
        field = 6;
    } else if ((r->proto == PROTO_ICMP || r->proto == PROTO_ICMPV6) && len >= 8) {
        r->source_port = r->destination_port = be16(l4 + 4);
        r->payload = r->l4 + 8;
        field = 2;
    } else {
        return "the transport is unknown or cut short";
    }
    r->bytes = data + r->payload;
    r->len = r->end - r->payload;
    r->tcp.payload = r->bytes;
    r->tcp.len = r->len;

    put32(tail, len);
    tail[7] = r->proto;
    pseudo = r->proto == PROTO_ICMP ? 0 : plain_sum(tail, 8, plain_sum(ip + (r->ipv6 ? 8 : 12), r->ipv6 ? 32 : 8, 0));
    if (r->needs_csum) {
        if (be16(l4 + field) != pseudo) {
            return "the checksum field does not hold the pseudo-header's sum";
        }
    } else if (plain_sum(l4, len, pseudo) != 0xffff) {
        return "the transport checksum is wrong";
    }
    return r->proto == PROTO_TCP ? read_options(r, data) : NULL;
}

static const char *read_vnet(Reading *r, const uint8_t *data, uint32_t vnet_len)
{
    if (!vnet_len) {
        return NULL;
    }
    r->needs_csum = data[0] & VNET_NEEDS_CSUM;
    r->gso_type = data[1];
    r->gso_size = data[4] + data[5] * 256u;
    if (data[0] & ~VNET_NEEDS_CSUM) {
        return "the virtio-net header has strange flags";
    }
    return NULL;
}

static const char *check_vnet(const Reading *r, const uint8_t *data, uint32_t vnet_len)
{
    uint32_t field = r->proto == PROTO_TCP ? 16 : 6;

    if (r->gso_type != GSO_NONE) {
        if (r->gso_type != (r->ipv6 ? GSO_TCPV6 : GSO_TCPV4) || r->proto != PROTO_TCP || !r->needs_csum) {
            return "the segmentation offload does not fit the packet";
        }
        if (!r->gso_size || r->len <= r->gso_size) {
            return "segmentation is asked for where there is nothing to be cut";
        }
        if (data[2] + data[3] * 256u != r->payload - vnet_len) {
            return "the virtio-net header's header length is wrong";
        }
    }
    if (r->needs_csum && (data[6] + data[7] * 256u != r->l4 - vnet_len || data[8] + data[9] * 256u != field)) {
        return "the virtio-net header points to another checksum";
    }
    return NULL;
}

const char *frame_read(Reading *r, const uint8_t *data, uint32_t size, uint32_t vnet_len)
{
    uint32_t at = vnet_len + 12;
    const char *wrong;
    const uint8_t *ip;

    memset(r, 0, sizeof(*r));
    if (size < vnet_len + 14) {
        return "the frame is cut short";
    }
    wrong = read_vnet(r, data, vnet_len);
    if (be16(data + at) == 0x8100 && size >= at + 6) {
        r->vlan = be16(data + at + 2);
        at += 4;
    }
    r->ip = at + 2;
    ip = data + r->ip;
    r->ipv6 = be16(data + at) == 0x86dd;
    if (size < r->ip + (r->ipv6 ? 40 : 20)) {
        return "the IP header is cut short";
    }
    if (r->ipv6) {
        r->source = ip[23];
        r->destination = ip[39];
        r->proto = ip[6];
        r->l4 = r->ip + 40;
        r->end = r->l4 + be16(ip + 4);
        if (r->proto == PROTO_FRAGMENT) {
            r->fragment = true;
            r->proto = data[r->l4];
            r->fragment_offset = be16(data + r->l4 + 2) & 0xfff8u;
            r->more_fragments = data[r->l4 + 3] & 1;
            r->id = be32(data + r->l4 + 4);
            r->l4 += 8;
        }
    } else {
        uint32_t word = be16(ip + 6);

        if (be16(data + at) != 0x0800) {
            return "the Ethernet type is not IP";
        }
        r->source = ip[15];
        r->destination = ip[19];
        r->proto = ip[9];
        r->l4 = r->ip + (ip[0] & 15) * 4u;
        r->end = r->ip + be16(ip + 2);
        r->fragment_offset = word % 0x2000 * 8;
        r->more_fragments = word & 0x2000;
        r->fragment = r->fragment_offset || r->more_fragments;
        r->id = be16(ip + 4);
        if (plain_sum(ip, r->l4 - r->ip, 0) != 0xffff) {
            return "the IPv4 header checksum is wrong";
        }
    }
    if (r->end > size || r->l4 > r->end) {
        return "the IP length is wrong";
    }
    if (r->fragment) {
        r->bytes = data + r->l4;
        r->len = r->end - r->l4;
        return wrong;
    }
    wrong = wrong ? wrong : read_transport(r, data);
    return wrong ? wrong : check_vnet(r, data, vnet_len);
}
