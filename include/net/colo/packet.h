/*
 * Packets: one parse, all offsets
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef NET_COLO_PACKET_H
#define NET_COLO_PACKET_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

/* Longest frame that QEMU's network layer carries (NET_BUFSIZE), without a virtio-net header. */
#define COLO_FRAME_MAX (68 * 1024)

/* Longest virtio-net header there is (virtio_net_hdr_v1_hash). */
#define COLO_VNET_HDR_MAX 20

/* IP protocol numbers (IANA) that the parser knows by name. */
enum {
    COLO_PROTO_HOPOPTS = 0,
    COLO_PROTO_ICMP = 1,
    COLO_PROTO_IGMP = 2,
    COLO_PROTO_TCP = 6,
    COLO_PROTO_UDP = 17,
    COLO_PROTO_DCCP = 33,
    COLO_PROTO_ROUTING = 43,
    COLO_PROTO_FRAGMENT = 44,
    COLO_PROTO_AH = 51,
    COLO_PROTO_ICMPV6 = 58,
    COLO_PROTO_DSTOPTS = 60,
    COLO_PROTO_SCTP = 132,
    COLO_PROTO_MOBILITY = 135,
    COLO_PROTO_UDPLITE = 136,
};

/* TCP flags (RFC 9293, section 3.1). */
enum {
    COLO_TCP_FIN = 0x01,
    COLO_TCP_SYN = 0x02,
    COLO_TCP_RST = 0x04,
    COLO_TCP_PSH = 0x08,
    COLO_TCP_ACK = 0x10,
    COLO_TCP_URG = 0x20,
};

/* How a packet is dealt with by the comparator: the outcome of the table in packet.c. */
typedef enum {
    COLO_CLASS_LOCAL,       /* not a service to the client: the primary's passes, the secondary's is dropped */
    COLO_CLASS_TCP,         /* part of a byte stream */
    COLO_CLASS_DATAGRAM,    /* compared as a whole, payload against payload */
} ColoClass;

typedef struct ColoFlow ColoFlow;
typedef struct ColoPacket ColoPacket;

/*
 * A frame and what its one parse found.  All offsets count from @data, where the virtio-net header
 * (@vnet_len bytes, often none) leads the Ethernet frame.
 *
 * A packet is *borrowed* as long as @data points into somebody else's buffer, and *held* once
 * colo_packet_hold() has made a copy.
 */
struct ColoPacket {
    uint8_t *data;
    uint32_t size;          /* bytes at @data, virtio-net header and padding included */
    uint32_t vnet_len;
    uint32_t l3;            /* IP header */
    uint32_t l4;            /* transport header */
    uint32_t payload;       /* what the transport carries; for a datagram that has none of its own, l4 */
    uint32_t payload_len;   /* without Ethernet padding */
    uint32_t end;           /* where the IP datagram ends */
    ColoClass class;
    uint8_t ip_version;     /* 4, 6, or 0 for anything else */
    uint8_t proto;
    bool fragment;          /* a piece of an IP datagram; has no transport header to look at */
    bool held;              /* not borrowed */
    bool indivisible;       /* must not be cut: put together from fragments, signed, or routed by its source */
    uint16_t fragment_word; /* offset and "more" bit, as in the header */
    uint16_t udp_len;       /* UDP: the header's length field, which the receiver goes by; UDP-Lite: its checksum coverage */
    uint32_t fragment_id;   /* the identification its fellows share */
    uint8_t tcp_flags;
    uint32_t seq;           /* TCP: position of the first unit of sequence space */
    uint32_t seq_end;       /* TCP: position behind the last, SYN and FIN counted */
    uint32_t ack;           /* TCP: valid with COLO_TCP_ACK */

    /* For whoever holds it. */
    uint32_t room;          /* bytes that there is memory for, behind the packet */
    int64_t arrival;        /* in the caller's clock, ns */
    int64_t suspect;        /* datagram: when the other side was first seen to differ, ns */
    bool suspected;         /* and that it was */
    bool opens;             /* it begins a flow, from a port that may be the guest's choice */
    bool matched;           /* datagram: the other side sent the same */
    uint32_t compared;      /* TCP: position up to which it has been compared */
    ColoPacket *parts;      /* the fragments that it was put together from, by next; released in its place */
    ColoFlow *flow;
    ColoPacket *next;       /* in the queue of its flow */
    ColoPacket *older;      /* among all that its side holds, by arrival */
    ColoPacket *newer;
};

/*
 * Parses the frame in @data (@size bytes, @vnet_len of them virtio-net header) into @p, which borrows it.
 * Reads nothing outside of @data, whatever the bytes say; what is cut short or contradicts itself is
 * parsed as far as it makes sense and classed accordingly (a TCP segment with an impossible header is a
 * datagram: compared whole).
 *
 * Returns: false if there is not even an Ethernet header.
 */
bool colo_packet_parse(ColoPacket *p, const uint8_t *data, uint32_t size, uint32_t vnet_len);

/*
 * A copy of @p, with its bytes but without its parts, to keep.  Owned by the caller; colo_packet_free() ends it, and the parts it
 * has come to have.
 */
ColoPacket *colo_packet_hold(const ColoPacket *p);
void colo_packet_free(ColoPacket *p);

/* The same, in @memory that has room for a ColoPacket and @room bytes (at least p->size), and is ended with free(). */
ColoPacket *colo_packet_hold_in(void *memory, uint32_t room, const ColoPacket *p);

/* Bytes that a held packet takes, its parts included. */
uint64_t colo_packet_footprint(const ColoPacket *p);

/* Bytes of its datagram that a fragment carries, from which offset on, and whether it is the last. */
static inline uint32_t colo_fragment_offset(const ColoPacket *p)
{
    return p->ip_version == 4 ? (p->fragment_word & 0x1fffu) * 8 : p->fragment_word & 0xfff8u;
}

static inline bool colo_fragment_is_last(const ColoPacket *p)
{
    return !(p->fragment_word & (p->ip_version == 4 ? 0x2000u : 1u));
}

/*
 * Puts a datagram together from its fragments (@parts, linked by next, in any order, which cover it without overlap and become
 * its parts).
 *
 * Returns: the datagram, which the caller ends with colo_packet_free(), and which counts as borrowed until then; NULL if it
 * would be longer than IP allows, or a fragment itself (@parts are still the caller's then).
 */
ColoPacket *colo_packet_assemble(ColoPacket *parts);

/*
 * What an ICMP error quotes of a TCP segment that its receiver has sent (RFC 792; RFC 4443, section 3), in @quoted, which borrows @p's
 * bytes: addresses, ports and sequence number, for no more need be there.
 *
 * Returns: false if @p is no such error.
 */
bool colo_packet_quoted(const ColoPacket *p, ColoPacket *quoted);

/* True for a guest's offloaded checksum: the TCP/UDP field holds the pseudo-header's sum only. */
bool colo_packet_needs_csum(const ColoPacket *p);

/*
 * Cuts the TCP segment @p after @len units of its sequence space (0 < @len < all of it).  Both halves are
 * segments in their own right: lengths, checksums and the offload header are right in each, SYN stays
 * in front and FIN behind.
 *
 * @head: receives the front half; must have room for p->size bytes.
 * Returns: the size of the front half in @head; @p becomes the back half, in place (a held packet only).
 */
uint32_t colo_packet_cut(ColoPacket *p, uint32_t len, uint8_t *head);

/* Units of sequence space that @p takes. */
static inline uint32_t colo_packet_seq_len(const ColoPacket *p)
{
    return p->seq_end - p->seq;
}

/* The window field of a TCP segment, as it stands there. */
uint16_t colo_packet_window(const ColoPacket *p);

/* Changes the window field, and the checksum with it (RFC 1624), in the packet's own bytes (a held packet only). */
void colo_packet_set_window(ColoPacket *p, uint16_t window);

/* The window scale that a SYN offers (RFC 7323, section 2.2), at most 14; 0 if it offers none: then windows are not scaled. */
uint8_t colo_packet_window_scale(const ColoPacket *p);

/* What a TCP segment says at one position of its stream. */
typedef enum {
    COLO_RUN_NONE,
    COLO_RUN_SYN,
    COLO_RUN_BYTES,
    COLO_RUN_FIN,
} ColoRunKind;

typedef struct {
    ColoRunKind kind;
    const uint8_t *bytes;
    uint32_t len;           /* in units of sequence space */
} ColoRun;

/* What @p says at position @seq and behind it, up to the next change of kind. */
ColoRun colo_packet_run(const ColoPacket *p, uint32_t seq);

/*
 * Copies the options of a TCP segment to @options (at most 40 bytes) with the values of timestamps,
 * which differ between two machines by nature, made zero.
 *
 * Returns: their length.
 */
uint32_t colo_packet_tcp_options(const ColoPacket *p, uint8_t options[40]);

#endif /* NET_COLO_PACKET_H */
