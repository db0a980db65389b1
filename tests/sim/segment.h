/*
 * Segments and datagrams as the models see them, and as frames
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_SIM_SEGMENT_H
#define TESTS_SIM_SEGMENT_H

#include "../unit/frames.h"
#include "draw.h"
#include "scenario.h"

enum {
    SACK_MAX = 4,
    SEGMENT_MAX = 65536,
};

/* What a TCP segment says.  Everything that the models deal in. */
typedef struct {
    uint32_t seq;
    uint32_t ack;
    uint8_t flags;
    uint16_t window;
    uint16_t urgent;
    uint16_t mss;           /* 0: no such option */
    int scale;              /* -1: no such option */
    bool sack_permitted;
    bool timestamps;
    uint32_t time;
    uint32_t echo;
    int sacks;
    uint32_t sack[SACK_MAX][2];
    uint32_t len;
    const uint8_t *payload;
} Segment;

/* Whom a frame is about, and where in the stream its sender put it. */
typedef struct {
    bool tcp;
    int number;             /* of the connection, or of the flow of datagrams */
    uint32_t unit;          /* TCP: of the sender's stream; its SYN is unit 0 */
    uint32_t units;
    uint32_t ack_unit;      /* of the other end's stream */
    int shift;              /* by how many bits the window is scaled */
    uint8_t flags;
    uint32_t datagram;      /* its number in the flow */
    uint32_t from;          /* the bytes of it (ICMP's header counted, UDP's too) that are in this fragment */
    uint32_t to;
    bool stray;             /* an answer to what belongs to no connection */
    uint32_t epoch;         /* of the guest that sent it */
} Meta;

/* A frame under way. */
typedef struct {
    uint8_t *data;
    uint32_t size;
    uint32_t vnet_len;
    Meta meta;
    bool mark;              /* not a frame: a guest has resumed here */
    int64_t at;             /* when it arrives */
} Parcel;

void parcel_free(Parcel *p);

/* A frame taken apart, with every length and checksum in it found right. */
typedef struct {
    bool ipv6;
    uint16_t vlan;
    uint8_t source;         /* last byte of the address */
    uint8_t destination;
    uint8_t proto;
    bool fragment;
    uint32_t fragment_offset;
    bool more_fragments;
    uint32_t id;            /* of the datagram that was cut into fragments */
    uint32_t ip;            /* offsets into the frame */
    uint32_t l4;
    uint32_t end;
    uint32_t source_port;
    uint32_t destination_port;
    uint32_t options;       /* TCP: offset */
    uint32_t options_len;
    uint32_t payload;
    Segment tcp;
    const uint8_t *bytes;   /* what the transport carries */
    uint32_t len;
    bool needs_csum;
    uint8_t gso_type;
    uint32_t gso_size;
} Reading;

/* Returns NULL, or what is wrong with the frame. */
const char *frame_read(Reading *r, const uint8_t *data, uint32_t size, uint32_t vnet_len);

/* How the sender's machine builds its frames. */
typedef struct {
    uint32_t vnet_len;
    bool checksum_offload;
    uint16_t id;
    uint8_t ttl;
} Build;

Parcel *parcel_tcp(const Connection *c, bool to_guest, const Segment *s, Build build);
/* A datagram without fragments.  Echo: requests to the guest, replies from it. */
Parcel *parcel_datagram(const DatagramFlow *f, bool to_guest, uint16_t number, const uint8_t *bytes, uint32_t len,
                        Build build);
/* One fragment of such a parcel: @len bytes of its IP payload from @offset on. */
Parcel *parcel_fragment(const DatagramFlow *f, const Parcel *whole, uint32_t offset, uint32_t len, Build build);

#endif /* TESTS_SIM_SEGMENT_H */
