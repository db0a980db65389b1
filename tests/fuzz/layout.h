/*
 * Where the parts of a frame lie, by the letter of the standards and without the code under test
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_FUZZ_LAYOUT_H
#define TESTS_FUZZ_LAYOUT_H

#include <stdbool.h>
#include <stdint.h>

enum {
    FIN = 0x01,
    SYN = 0x02,
    RST = 0x04,
    PSH = 0x08,
    ACK = 0x10,
    URG = 0x20,
};

enum {
    PROTO_HOP_BY_HOP = 0,
    PROTO_ICMP = 1,
    PROTO_IGMP = 2,
    PROTO_TCP = 6,
    PROTO_UDP = 17,
    PROTO_ROUTING = 43,
    PROTO_FRAGMENT = 44,
    PROTO_AH = 51,
    PROTO_ICMPV6 = 58,
    PROTO_DESTINATION = 60,
    PROTO_SCTP = 132,
    PROTO_MOBILITY = 135,
    PROTO_UDPLITE = 136,
};

typedef enum {
    KIND_SHORT,             /* no Ethernet header */
    KIND_LOCAL,             /* passes without being compared */
    KIND_TCP,
    KIND_DATAGRAM,
} Kind;

/* Offsets count from the beginning of the frame, its virtio-net header included. */
typedef struct {
    Kind kind;
    int version;            /* 4, 6, or 0 for no IP */
    uint8_t proto;
    uint16_t fragment;      /* offset and "more" bit as in the header, 0 for a whole datagram */
    uint32_t l3;
    uint32_t l4;
    uint32_t payload;
    uint32_t end;           /* of what the IP header speaks of, and the frame has */
    bool cut_short;         /* the IP header speaks of more than there is */
    uint8_t flags;          /* the rest: TCP only */
    uint32_t seq;
    uint32_t ack;
    uint32_t units;         /* of sequence space */
} Layout;

Layout layout_of(const uint8_t *frame, uint32_t size, uint32_t vnet_len);

/* True if the virtio-net header says that the transport checksum is left to whoever sends the frame on. */
bool layout_leaves_checksum(const uint8_t *frame, uint32_t vnet_len);

/* What is wrong with a checksum, as a number: 0 for nothing.  Of a TCP segment, and of an IP header (0 for IPv6). */
uint16_t layout_tcp_error(const Layout *l, const uint8_t *frame, uint32_t vnet_len);
uint16_t layout_ip_error(const Layout *l, const uint8_t *frame);

/* Makes them right. */
void layout_mend(const Layout *l, uint8_t *frame, uint32_t vnet_len);

/* The next option in @at .. @end of a TCP header, no-operations skipped, or false; moves @at behind it. */
typedef struct {
    uint8_t kind;
    uint32_t value;         /* where the value begins */
    uint32_t len;           /* and its length */
} TcpOption;

bool layout_option(const uint8_t *frame, uint32_t *at, uint32_t end, TcpOption *option);

/* One's complement sum of @len bytes and @start, folded to 16 bits. */
uint16_t sum16(const uint8_t *bytes, uint32_t len, uint32_t start);

uint16_t get16(const uint8_t *at);
uint32_t get32(const uint8_t *at);
void set16(uint8_t *at, uint16_t value);
void set32(uint8_t *at, uint32_t value);

/* What build_ip() is told about a frame. */
typedef struct {
    int version;
    uint32_t vnet_len;      /* of a virtio-net header, all zero */
    bool vlan;
    bool extension;         /* IPv6: a destination options header */
    uint8_t guest;          /* last byte of its address */
    uint8_t peer;
    bool to_guest;
    uint16_t guest_port;
    uint16_t peer_port;
    uint32_t id;            /* IP identification, or the flow label; never compared by anyone */
    uint16_t fragment;
} Build;

/* Bytes before the transport header. */
uint32_t build_headers_len(const Build *b);

/* Writes the headers for @len bytes of transport to @frame; returns where the transport begins. */
uint32_t build_ip(const Build *b, uint8_t *frame, uint8_t proto, uint32_t len);

/* A whole segment, checksums included; @payload may be NULL for none.  Returns the frame's size. */
uint32_t build_tcp(const Build *b, uint8_t *frame, uint32_t seq, uint32_t ack, uint8_t flags, const uint8_t *options,
                   uint32_t options_len, const uint8_t *payload, uint32_t len);

#endif /* TESTS_FUZZ_LAYOUT_H */
