/*
 * Scenario: what is decided about a run before it begins
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_SIM_SCENARIO_H
#define TESTS_SIM_SCENARIO_H

#include "draw.h"

/* Classes of events.  Each run has some of them only. */
typedef enum {
    CLASS_LOSS,             /* the client's link loses frames */
    CLASS_DUPLICATION,
    CLASS_REORDERING,
    CLASS_SLOW_LINK,
    CLASS_CHECKPOINTS,      /* others than those asked for */
    CLASS_FAILOVER,
    CLASS_DIVERGENCE,       /* the guests' applications differ */
    CLASS_LIES,             /* the primary repeats other bytes than it sent first */
    CLASS_ABORTS,           /* RST in the middle, and refused connections */
    CLASS_GUEST_OPENS,      /* also both at once */
    CLASS_REUSE,            /* a new connection with the ports of an old one */
    CLASS_HALF_CLOSE,
    CLASS_URGENT,
    CLASS_SACK,
    CLASS_TIMESTAMPS,
    CLASS_WINDOW_SCALE,
    CLASS_SMALL_WINDOWS,    /* slow readers, zero windows, probes */
    CLASS_KEEP_ALIVE,
    CLASS_OFFLOAD,          /* virtio-net headers, frames of 64 KiB, checksums left out */
    CLASS_IPV6,
    CLASS_VLAN,
    CLASS_DATAGRAMS,
    CLASS_FRAGMENTS,
    CLASS_SMALL_QUEUES,
    CLASS_SLOW_SECONDARY,
    CLASS_LATE_START,       /* COLO begins when there are connections already */
    CLASS_RECONNECTS,       /* the secondary's output breaks off, and begins anew */
    CLASSES,
} Class;

extern const char *const class_names[CLASSES];

enum {
    CONNECTIONS_MAX = 12,
    FLOWS_MAX = 6,          /* of datagrams */
    STREAM_MAX = 300000,    /* bytes of one direction */
};

typedef enum {
    OPENS_CLIENT,
    OPENS_GUEST,
    OPENS_BOTH,
    OPENS_REFUSED,          /* the client, and nobody listens */
} Opens;

/* When an end closes its direction. */
typedef enum {
    CLOSES_WHEN_SENT,
    CLOSES_WHEN_DONE,       /* and all of the other direction has come */
    CLOSES_AFTER_PEER,      /* and the other end has closed */
} Closes;

/* The ends of a connection. */
enum {
    GUEST,
    CLIENT,
};

/* One TCP connection.  Arrays of two are by end. */
typedef struct {
    bool ipv6;
    uint16_t vlan;          /* 0: none */
    uint8_t peer_host;
    uint16_t guest_port;
    uint16_t peer_port;
    int after;              /* the connection whose ports it takes over, or -1 */
    int64_t start;
    Opens opens;
    uint64_t salt;          /* of its content */
    uint32_t bytes[2];      /* that it sends */
    uint32_t request;       /* bytes; 0: both send as they like */
    uint32_t response;
    Closes closes[2];
    bool guest_aborts;
    bool client_aborts;
    uint32_t abort_after;   /* bytes received */
    bool urgent;
    bool sack;
    bool timestamps;
    uint32_t leading_nops;  /* before other options, so that they lie at odd offsets, too */
    int scale[2];           /* window scale; -1: not offered */
    uint32_t mss[2];
    uint32_t buffer[2];     /* receive buffer */
    uint32_t reads[2];      /* bytes that the application reads at once; 0: all */
    bool probes_with_byte;
    int64_t keep_alive;     /* interval; 0: none */
    int64_t pause;          /* before the second half of the client's bytes */
} Connection;

typedef enum {
    DATAGRAM_UDP,
    DATAGRAM_ECHO,
} DatagramKind;

/* Datagrams between two addresses: the client asks, the guest answers. */
typedef struct {
    DatagramKind kind;
    bool ipv6;
    uint16_t vlan;
    uint8_t peer_host;
    uint16_t guest_port;
    uint16_t peer_port;
    uint64_t salt;
    int64_t start;
    int64_t interval;
    uint32_t requests;
    uint32_t answers;       /* for each request */
    uint32_t size_max;
} DatagramFlow;

typedef struct {
    uint64_t seed;
    uint32_t classes;       /* bits */
    int64_t faults_end;
    int64_t timeout;
    int64_t quiet;
    int64_t gather;
    uint32_t queue_size;
    uint32_t batch;         /* frames that one read brings at most */
    int64_t lateness;       /* of timers, at most */
    uint32_t vnet_len;
    int64_t link_delay;
    int64_t stream_delay;   /* between the hosts, at most */
    int64_t think;          /* of an application, at most */
    int64_t busy;           /* until a guest takes its input, at most */
    int64_t secondary_lag;  /* added to that, and to think, on the secondary */
    bool readers_differ;    /* one guest's applications are slower to read than the other's, or its buffers are smaller */
    uint32_t loss;          /* percent */
    uint32_t duplication;
    uint32_t reordering;
    int64_t checkpoint_interval;    /* 0: none but those asked for */
    int64_t failover_at;            /* or NEVER */
    int64_t begins_at;              /* COLO; 0: before anything else */
    int64_t divergence_interval;
    int64_t reconnect_interval;
    int connections;
    Connection connection[CONNECTIONS_MAX];
    int flows;
    DatagramFlow flow[FLOWS_MAX];
} Scenario;

static inline bool has_class(const Scenario *s, Class class)
{
    return s->classes >> class & 1;
}

/* @only: classes that may occur. */
void scenario_draw(Scenario *s, uint64_t seed, uint32_t only);

/* The byte at @offset of a content. */
uint8_t content_byte(uint64_t salt, uint32_t offset);
void content_fill(uint64_t salt, uint32_t offset, uint8_t *bytes, uint32_t len);

#endif /* TESTS_SIM_SCENARIO_H */
