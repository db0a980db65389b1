/*
 * A small TCP, independent of the code under test
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_SIM_TCP_H
#define TESTS_SIM_TCP_H

#include "segment.h"

enum {
    HOLES_MAX = 8,
    VERSIONS_MAX = 6,
};

/*
 * One end of a connection.  No pointers: a checkpoint copies it.
 *
 * Positions are units of the stream, counted from its SYN: unit 0 is the SYN, unit 1 the first byte, and the FIN is
 * the unit behind the last byte.  Only segments carry sequence numbers.
 */
typedef struct {
    bool opened;            /* has a number of its own, and has sent its SYN */
    bool heard;             /* knows the other end's */
    bool over;              /* reset by either end */
    bool was_reset;         /* by the other end */
    bool aborted;           /* by this end */
    uint32_t iss;
    uint32_t irs;

    /* Sending */
    uint32_t una;           /* first unit not acknowledged */
    uint32_t next;          /* to be sent */
    uint32_t max;           /* behind the last unit ever sent */
    uint32_t written;       /* behind the last unit that the application has written */
    bool fin_written;
    uint32_t total;         /* bytes that the application has to say */
    uint16_t offered_mss;
    uint32_t edge;          /* of the other end's window */
    uint32_t window_unit;   /* of the segment that said so */
    uint32_t window_ack;
    uint32_t congestion;    /* window, bytes */
    uint32_t repeats;       /* acknowledgements of the same */
    uint32_t sacked_from;   /* where the first hole ends, or 0 */
    uint32_t backoff;
    /* What the application writes: from byte `from` on, this content. */
    int versions;
    struct {
        uint32_t from;
        uint64_t salt;
    } version[VERSIONS_MAX];

    /* Receiving */
    uint32_t got;           /* units up to which all has come */
    uint32_t fin_unit;      /* of the other end's stream, or 0 if that is not known yet */
    bool fin_got;
    uint32_t read;          /* bytes, by the application */
    int64_t reads_at;       /* and not before then */
    uint32_t buffer;
    int holes;              /* stretches that have come behind a hole */
    struct {
        uint32_t from;
        uint32_t to;
    } hole[HOLES_MAX];
    uint32_t unacked;       /* segments since the last acknowledgement */
    uint32_t acked;         /* the last acknowledgement sent, units */

    /* Options in use */
    bool sack;
    bool timestamps;
    int scale;              /* of windows that come in; -1: none either way */
    uint32_t mss;
    uint32_t clock_offset;
    uint32_t first_time;    /* first timestamp sent */
    uint32_t recent;        /* timestamp to be echoed */

    /* Timers; NEVER if they do not run. */
    int64_t retransmit_at;
    int64_t ack_at;
    int64_t probe_at;
    int64_t application_at;
    int64_t keep_alive_at;
    int64_t lie_at;
} Tcp;

/* How one machine does what its copy may do otherwise. */
typedef struct {
    uint32_t segment_min;   /* of the bytes it puts into one segment */
    uint32_t segment_max;
    uint32_t big_percent;   /* with offload: this often up to 64 KiB */
    uint32_t window;        /* initial congestion window, segments */
    int64_t ack_delay;
    uint32_t ack_every;     /* segments */
    uint32_t write_percent; /* the application writes piece by piece this often */
    int64_t think;          /* at most */
    int64_t dawdle;         /* between two reads, at most */
    uint32_t buffer_percent;    /* of the connection's receive buffer */
    uint32_t read_percent;  /* of that, the application reads at once */
    bool nagle;
    bool lone_fin;
    uint32_t checksum_percent;  /* left to offload */
} Style;

typedef struct Host Host;

/* The TCP's surroundings. */
typedef struct {
    Host *host;
    Draw *draw;
    const Style *style;
    const Connection *c;
    int number;
    int end;                /* GUEST or CLIENT */
    int64_t now;
    const Tcp *before;      /* the last connection with these ports, or NULL */
    bool may_open;          /* and it is over */
    bool offload;
    bool may_differ;        /* from its copy, in what it says */
} TcpContext;

/* Called by the TCP. */
void host_send_segment(const TcpContext *x, const Segment *s, const Meta *meta);
void host_received(const TcpContext *x, uint32_t offset, const uint8_t *bytes, uint32_t len);
/* Whether a repetition is to have a wrong byte. */
bool host_lies(const TcpContext *x);
void host_wrong(const TcpContext *x, const char *format, ...) G_GNUC_PRINTF(2, 3);

void tcp_init(Tcp *t, const TcpContext *x, uint64_t salt);
void tcp_input(Tcp *t, const TcpContext *x, const Segment *s);
int64_t tcp_deadline(const Tcp *t);
void tcp_wake(Tcp *t, const TcpContext *x);
/* From here on the application writes something else. */
void tcp_diverge(Tcp *t, const TcpContext *x);
/* All is said and acknowledged, or the connection is reset. */
bool tcp_is_done(const Tcp *t, const TcpContext *x);
/* The byte that the application wrote, or would write. */
uint8_t tcp_content(const Tcp *t, uint32_t offset);

#endif /* TESTS_SIM_TCP_H */
