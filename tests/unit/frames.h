/*
 * Frames for tests: built from a description, and taken apart again, without the code under test
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_UNIT_FRAMES_H
#define TESTS_UNIT_FRAMES_H

#include <check.h>
#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

/* TCP flags by their initials. */
enum {
    FIN = 0x01,
    SYN = 0x02,
    RST = 0x04,
    PSH = 0x08,
    ACK = 0x10,
    URG = 0x20,
};

/* Bits and types of a virtio-net header. */
enum {
    VNET_NEEDS_CSUM = 1,
    GSO_NONE = 0,
    GSO_TCPV4 = 1,
    GSO_TCPV6 = 4,
};

/* All but the transport of a frame.  All zero: a plain IPv4 frame from guest 10.0.0.2 to peer 10.0.0.1. */
typedef struct {
    bool ipv6;
    bool to_guest;          /* source and destination swapped */
    uint8_t guest_host;     /* last byte of the addresses, in place of 2 and 1 */
    uint8_t peer_host;
    uint16_t guest_port;    /* in place of 80 and 4711 */
    uint16_t peer_port;
    int vlans;              /* tags; the outer of two is 802.1ad */
    uint16_t vlan[2];       /* outer first */
    uint32_t ip_options;    /* bytes of IPv4 options, a multiple of 4 */
    uint32_t extensions;    /* bytes of IPv6 extension headers, a multiple of 8 */
    uint16_t fragment;      /* IPv4: offset and flags; IPv6: the same word of a fragment header */
    uint16_t ip_id;
    uint8_t ttl;            /* in place of 64 */
    uint8_t tos;
    uint32_t pad_to;        /* Ethernet padding up to this length, without virtio-net header */
    uint8_t padding;        /* of this byte */
    uint32_t vnet_len;      /* virtio-net header: 0 or 10, 12, 20 */
    bool needs_csum;        /* transport checksum left to offload */
    uint16_t window;        /* TCP, in place of 0x7210 */
    bool shut;              /* a window of 0 */
    uint8_t gso_type;
    uint16_t gso_size;
} Shape;

typedef struct {
    uint8_t *data;          /* exactly @size bytes on the heap, so that a sanitizer sees any step beyond */
    uint32_t size;
    uint32_t vnet_len;
    uint32_t l3;
    uint32_t l4;
    uint32_t payload;
} Frame;

void frame_free(Frame *f);

/* A segment with @options (padded with end-of-list to four bytes). */
Frame *frame_tcp(const Shape *shape, uint32_t seq, uint32_t ack, uint8_t flags, const void *options,
                 uint32_t options_len, const void *payload, uint32_t len);
Frame *frame_udp(const Shape *shape, const void *payload, uint32_t len);
/* An echo reply (ICMP or ICMPv6) with this identifier and sequence number. */
Frame *frame_icmp(const Shape *shape, uint8_t type, uint8_t code, uint32_t rest, const void *payload, uint32_t len);
Frame *frame_echo(const Shape *shape, uint16_t id, uint16_t number, const void *payload, uint32_t len);
/* Any IP protocol; @body behind the IP header as it stands. */
Frame *frame_ip(const Shape *shape, uint8_t proto, const void *body, uint32_t len);
/* Any Ethernet type; @body behind the Ethernet header as it stands. */
Frame *frame_ethernet(const Shape *shape, uint16_t type, const void *body, uint32_t len);

/* What taking a frame apart shows.  The pointers point into it. */
typedef struct {
    bool ipv6;
    uint8_t proto;
    uint32_t seq;
    uint32_t ack;
    uint8_t flags;
    uint16_t window;
    uint16_t urgent;
    const uint8_t *options;
    uint32_t options_len;
    const uint8_t *payload;
    uint32_t len;
    uint32_t seq_len;       /* with SYN and FIN */
    uint8_t vnet_flags;
    uint8_t gso_type;
    uint16_t gso_size;
} Seen;

/*
 * Takes a TCP or UDP frame apart and fails the test if a length or a checksum in it is wrong: the IPv4
 * header's, and the transport's, whole or (with VNET_NEEDS_CSUM) of the pseudo-header.
 */
Seen frame_check(const uint8_t *data, uint32_t size, uint32_t vnet_len);

/* 16-bit one's complement sum, the simplest way there is. */
uint16_t plain_sum(const uint8_t *bytes, uint32_t len, uint32_t start);

/* @len bytes that differ everywhere and depend on @seed. */
uint8_t *bytes_of(uint32_t seed, uint32_t len);

uint16_t be16(const uint8_t *p);
uint32_t be32(const uint8_t *p);
void put16(uint8_t *p, uint16_t v);
void put32(uint8_t *p, uint32_t v);

/* The seed for a random test: COLO_TEST_SEED from the environment, or another one each time; printed. */
uint32_t test_seed(const char *test);

/* Runs @suite and ends it; returns main()'s status. */
int run_suite(Suite *suite);

#endif /* TESTS_UNIT_FRAMES_H */
