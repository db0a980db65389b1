/*
 * Tests of rewriter.c
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "frames.h"
#include "net/colo/rewriter.h"

#include <string.h>

#define SECOND (1000 * 1000 * 1000LL)

/* The client's numbers; the two guests' initial sequence numbers are each test's own. */
#define CLIENT 7000u

static const uint8_t secret[16] = "rewriter secret";

/* Pairs of initial sequence numbers: the primary's, the secondary's. */
static const uint32_t isns[][2] = {
    { 1000, 2000 },
    { 2000, 1000 },
    { 0xfffffff0, 5 },
    { 5, 0xfffffff0 },
    { UINT32_MAX, 0 },
    { 0, UINT32_MAX },
    { 0x7fffffff, 0x80000000 },
    { 0x80000000, 0 },
    { 0, 0 },
    { 12345, 12345 },
};

typedef struct {
    ColoRewriter *r;
    int64_t now;
    Shape shape;            /* of all frames; to_guest is set for each */
    uint8_t *data;          /* of the last frame */
    uint32_t size;
    ColoRewrite did;
} Bench;

static Bench bench_new(void)
{
    return (Bench) { .r = colo_rewriter_new(secret), .now = 1000 * SECOND };
}

static void bench_end(Bench *b)
{
    colo_rewriter_free(b->r);
    g_free(b->data);
}

/* Passes @f through the rewriter and takes it apart again. */
static Seen pass_frame(Bench *b, ColoDirection direction, Frame *f)
{
    ColoPacket p;
    uint8_t *before = g_malloc(f->size);
    Seen seen;

    memcpy(before, f->data, f->size);
    ck_assert(colo_packet_parse(&p, f->data, f->size, f->vnet_len));
    b->did = colo_rewriter_look(b->r, direction, &p, b->now);
    ck_assert_mem_eq(before, f->data, f->size);     /* looking changes nothing */
    colo_rewrite(&p, b->did);
    if (b->did.kind == COLO_REWRITE_NOTHING) {
        ck_assert_mem_eq(before, f->data, f->size);
    } else if (f->vnet_len && f->data[0] & VNET_NEEDS_CSUM) {
        ck_assert_mem_eq(before + f->l4 + 16, f->data + f->l4 + 16, 2);
    }
    g_free(before);
    g_free(b->data);
    b->data = f->data;
    b->size = f->size;
    seen = frame_check(f->data, f->size, f->vnet_len);
    g_free(f);
    return seen;
}

/* From the guest; returns the sequence number that comes out. */
static uint32_t out(Bench *b, uint8_t flags, uint32_t seq, uint32_t ack, uint32_t len)
{
    uint8_t *payload = bytes_of(seq, len);
    Seen seen;

    b->shape.to_guest = false;
    seen = pass_frame(b, COLO_FROM_GUEST, frame_tcp(&b->shape, seq, ack, flags, NULL, 0, payload, len));
    ck_assert_uint_eq(seen.ack, flags & ACK ? ack : 0);     /* acknowledges the client: nobody's to change */
    ck_assert_uint_eq(seen.flags, flags);
    ck_assert_uint_eq(seen.len, len);
    ck_assert_mem_eq(seen.payload, payload, len);
    g_free(payload);
    return seen.seq;
}

/* From the client; returns the acknowledgement number that comes out. */
static uint32_t in(Bench *b, uint8_t flags, uint32_t seq, uint32_t ack, uint32_t len)
{
    uint8_t *payload = bytes_of(seq, len);
    Seen seen;

    b->shape.to_guest = true;
    seen = pass_frame(b, COLO_TO_GUEST, frame_tcp(&b->shape, seq, ack, flags, NULL, 0, payload, len));
    ck_assert_uint_eq(seen.seq, seq);
    ck_assert_uint_eq(seen.flags, flags);
    ck_assert_uint_eq(seen.len, len);
    ck_assert_mem_eq(seen.payload, payload, len);
    g_free(payload);
    return seen.ack;
}

/* The client connects to the guest. */
static void open_passive(Bench *b, uint32_t primary_isn, uint32_t secondary_isn)
{
    in(b, SYN, CLIENT, 0, 0);
    ck_assert_uint_eq(out(b, SYN | ACK, secondary_isn, CLIENT + 1, 0), secondary_isn);
    ck_assert_uint_eq(in(b, ACK, CLIENT + 1, primary_isn + 1, 0), secondary_isn + 1);
}

/* The guest connects to the client, which answers what it has seen: the primary's SYN. */
static void open_active(Bench *b, uint32_t primary_isn, uint32_t secondary_isn)
{
    ck_assert_uint_eq(out(b, SYN, secondary_isn, 0, 0), secondary_isn);
    ck_assert_uint_eq(in(b, SYN | ACK, CLIENT, primary_isn + 1, 0), secondary_isn + 1);
}

/* Everything is mapped, in both directions. */
static void check_mapped(Bench *b, uint32_t primary_isn, uint32_t secondary_isn)
{
    for (uint32_t i = 1; i < 2000; i += 333) {
        ck_assert_uint_eq(out(b, ACK | PSH, secondary_isn + i, CLIENT + 1, 33), primary_isn + i);
        ck_assert_uint_eq(in(b, ACK, CLIENT + 1, primary_isn + i + 33, 5), secondary_isn + i + 33);
    }
}

/* Nothing is. */
static void check_untouched(Bench *b)
{
    ck_assert_uint_eq(out(b, ACK, 100, CLIENT, 3), 100);
    ck_assert_int_eq(b->did.kind, COLO_REWRITE_NOTHING);
    ck_assert_uint_eq(in(b, ACK, CLIENT, 103, 3), 103);
    ck_assert_int_eq(b->did.kind, COLO_REWRITE_NOTHING);
}

/* A segment without data that carries timestamps; returns the timestamps that come out. */
static void pass_timestamps(Bench *b, ColoDirection direction, uint8_t flags, uint32_t seq, uint32_t ack,
                            uint32_t times[2])
{
    uint8_t options[12] = { 1, 1, 8, 10 };      /* two no-operations, then the option */
    Seen seen;

    for (int i = 0; i < 8; i++) {
        options[4 + i] = (uint8_t)(times[i / 4] >> (24 - i % 4 * 8));
    }
    b->shape.to_guest = direction == COLO_TO_GUEST;
    seen = pass_frame(b, direction, frame_tcp(&b->shape, seq, ack, flags, options, sizeof(options), NULL, 0));
    ck_assert_uint_eq(seen.options_len, sizeof(options));
    for (int i = 0; i < 2; i++) {
        const uint8_t *t = seen.options + 4 + i * 4;

        times[i] = (uint32_t)t[0] << 24 | (uint32_t)t[1] << 16 | (uint32_t)t[2] << 8 | t[3];
    }
}

static void check_timestamps(Bench *b, ColoDirection direction, uint32_t isn, uint32_t value, uint32_t echo,
                             uint32_t value_wanted, uint32_t echo_wanted)
{
    uint32_t times[2] = { value, echo };

    pass_timestamps(b, direction, ACK, direction == COLO_TO_GUEST ? CLIENT + 1 : isn + 1,
                    direction == COLO_TO_GUEST ? isn + 1 : CLIENT + 1, times);
    ck_assert_uint_eq(times[0], value_wanted);
    ck_assert_uint_eq(times[1], echo_wanted);
}

/* Two copies that drew their timestamp secrets apart: the client must not see time jump at a failover. */
START_TEST(timestamps)
{
    static const uint32_t starts[][2] = {       /* the primary's time and the secondary's, at the SYN-ACK */
        { 1352205630, 3738785275 }, { 3738785275, 1352205630 }, { 0xffffff00, 0x100 }, { 5, 0xfffffff0 },
    };

    for (guint i = 0; i < G_N_ELEMENTS(isns); i++) {
        uint32_t primary = starts[i % G_N_ELEMENTS(starts)][0];
        uint32_t secondary = starts[i % G_N_ELEMENTS(starts)][1];
        uint32_t syn[2] = { 77, 0 };
        uint32_t syn_ack[2] = { secondary, 77 };
        Bench b = bench_new();

        pass_timestamps(&b, COLO_TO_GUEST, SYN, CLIENT, 0, syn);
        pass_timestamps(&b, COLO_FROM_GUEST, SYN | ACK, isns[i][1], CLIENT + 1, syn_ack);
        ck_assert_uint_eq(syn_ack[0], secondary);
        /* The client's own time is nobody's to change. */
        check_timestamps(&b, COLO_TO_GUEST, isns[i][0], 80, primary, 80, secondary);
        check_timestamps(&b, COLO_FROM_GUEST, isns[i][1], secondary + 40, 80, primary + 40, 80);
        check_timestamps(&b, COLO_TO_GUEST, isns[i][0], 90, primary + 40, 90, secondary + 40);
        colo_rewriter_failover(b.r);
        check_timestamps(&b, COLO_FROM_GUEST, isns[i][1], secondary + 500, 90, primary + 500, 90);
        check_timestamps(&b, COLO_TO_GUEST, isns[i][0], 600, primary + 500, 600, secondary + 500);
        bench_end(&b);
    }
}
END_TEST

/* Some packets carry no timestamps, though the connection does: the first acknowledgement, or a reset. */
START_TEST(timestamps_left_out)
{
    for (int echoed = 0; echoed < 2; echoed++) {
        uint32_t syn[2] = { 77, 0 };
        uint32_t syn_ack[2] = { 5000, 77 };
        Bench b = bench_new();

        pass_timestamps(&b, COLO_TO_GUEST, SYN, CLIENT, 0, syn);
        pass_timestamps(&b, COLO_FROM_GUEST, SYN | ACK, 2000, CLIENT + 1, syn_ack);
        if (echoed) {
            check_timestamps(&b, COLO_TO_GUEST, 1000, 80, 9000, 80, 5000);
            check_mapped(&b, 1000, 2000);       /* without any */
            check_timestamps(&b, COLO_FROM_GUEST, 2000, 5040, 80, 9040, 80);
        } else {
            ck_assert_uint_eq(in(&b, ACK, CLIENT + 1, 1001, 0), 2001);
            check_timestamps(&b, COLO_FROM_GUEST, 2000, 5040, 80, 5040, 80);    /* nothing is known of the other's */
        }
        bench_end(&b);
    }
}
END_TEST

START_TEST(timestamps_after_a_checkpoint)
{
    uint32_t syn[2] = { 77, 0 };
    uint32_t syn_ack[2] = { 5000, 77 };
    Bench b = bench_new();

    pass_timestamps(&b, COLO_TO_GUEST, SYN, CLIENT, 0, syn);
    pass_timestamps(&b, COLO_FROM_GUEST, SYN | ACK, 2000, CLIENT + 1, syn_ack);
    check_timestamps(&b, COLO_TO_GUEST, 1000, 80, 9000, 80, 5000);
    colo_rewriter_checkpoint(b.r, b.now);
    check_timestamps(&b, COLO_FROM_GUEST, 1000, 9040, 80, 9040, 80);
    check_timestamps(&b, COLO_TO_GUEST, 1000, 90, 9040, 90, 9040);
    bench_end(&b);
}
END_TEST

START_TEST(passive_open)
{
    for (guint i = 0; i < G_N_ELEMENTS(isns); i++) {
        Bench b = bench_new();

        open_passive(&b, isns[i][0], isns[i][1]);
        check_mapped(&b, isns[i][0], isns[i][1]);
        bench_end(&b);
    }
}
END_TEST

START_TEST(active_open)
{
    for (guint i = 0; i < G_N_ELEMENTS(isns); i++) {
        Bench b = bench_new();

        open_active(&b, isns[i][0], isns[i][1]);
        check_mapped(&b, isns[i][0], isns[i][1]);
        bench_end(&b);
    }
}
END_TEST

/* COLO began between the client's SYN and the guest's answer: a SYN-ACK is as good a beginning. */
START_TEST(syn_ack_alone)
{
    for (guint i = 0; i < G_N_ELEMENTS(isns); i++) {
        Bench b = bench_new();

        ck_assert_uint_eq(out(&b, SYN | ACK, isns[i][1], CLIENT + 1, 0), isns[i][1]);
        ck_assert_uint_eq(in(&b, ACK, CLIENT + 1, isns[i][0] + 1, 0), isns[i][1] + 1);
        check_mapped(&b, isns[i][0], isns[i][1]);
        bench_end(&b);
    }
}
END_TEST

START_TEST(every_kind_of_frame)
{
    static const Shape shapes[] = {
        { .ipv6 = true },
        { .vlans = 1, .vlan = { 7 } },
        { .ip_options = 8 },
        { .ipv6 = true, .extensions = 16 },
        { .vnet_len = 12 },
        { .vnet_len = 12, .needs_csum = true },
        { .vnet_len = 20, .needs_csum = true, .ipv6 = true, .gso_type = GSO_TCPV6, .gso_size = 10 },
        { .pad_to = 120, .padding = 0xdd },
    };

    for (guint s = 0; s < G_N_ELEMENTS(shapes); s++) {
        Bench b = bench_new();

        b.shape = shapes[s];
        open_passive(&b, 0xffffff00, 77);
        check_mapped(&b, 0xffffff00, 77);
        out(&b, ACK, 88, CLIENT, 60000);        /* an offload frame */
        bench_end(&b);
    }
}
END_TEST

START_TEST(other_traffic)
{
    Bench b = bench_new();
    Shape s = { 0 };
    Frame *f;
    ColoPacket p;

    check_untouched(&b);        /* a connection from before COLO */
    ck_assert_uint_eq(colo_rewriter_flows(b.r), 0);
    f = frame_udp(&s, "SYN", 3);
    colo_packet_parse(&p, f->data, f->size, 0);
    ck_assert_int_eq(colo_rewriter_look(b.r, COLO_FROM_GUEST, &p, 0).kind, COLO_REWRITE_NOTHING);
    frame_free(f);
    s.fragment = 0x2000;
    f = frame_tcp(&s, 1, 1, SYN, NULL, 0, NULL, 0);
    colo_packet_parse(&p, f->data, f->size, 0);
    ck_assert_int_eq(colo_rewriter_look(b.r, COLO_FROM_GUEST, &p, 0).kind, COLO_REWRITE_NOTHING);
    frame_free(f);
    ck_assert_uint_eq(colo_rewriter_flows(b.r), 0);
    bench_end(&b);
}
END_TEST

START_TEST(connections_do_not_mix)
{
    Bench b = bench_new();

    open_passive(&b, 1000, 2000);
    b.shape.peer_port = 1;
    check_untouched(&b);
    open_active(&b, 50, 10);
    check_mapped(&b, 50, 10);
    b.shape.peer_port = 0;
    check_mapped(&b, 1000, 2000);
    b.shape.vlans = 1;
    b.shape.vlan[0] = 5;
    check_untouched(&b);
    bench_end(&b);
}
END_TEST

/* SYNs */

START_TEST(repeated_handshake)
{
    Bench b = bench_new();

    in(&b, SYN, CLIENT, 0, 0);
    in(&b, SYN, CLIENT, 0, 0);
    out(&b, SYN | ACK, 2000, CLIENT + 1, 0);
    in(&b, SYN, CLIENT, 0, 0);
    out(&b, SYN | ACK, 2000, CLIENT + 1, 0);
    in(&b, ACK, CLIENT + 1, 1001, 0);
    out(&b, SYN | ACK, 2000, CLIENT + 1, 0);    /* its ACK was lost on the way */
    in(&b, ACK, CLIENT + 1, 1001, 0);
    check_mapped(&b, 1000, 2000);
    bench_end(&b);
}
END_TEST

/* The client's first acknowledgement comes on data. */
START_TEST(handshake_ends_with_data)
{
    Bench b = bench_new();

    in(&b, SYN, CLIENT, 0, 0);
    out(&b, SYN | ACK, 2000, CLIENT + 1, 0);
    ck_assert_uint_eq(in(&b, ACK | PSH, CLIENT + 1, 1001, 100), 2001);
    check_mapped(&b, 1000, 2000);
    bench_end(&b);
}
END_TEST

/* An old SYN on a connection that is alive: the guest answers with a mere acknowledgement. */
START_TEST(duplicate_syn_on_a_live_connection)
{
    Bench b = bench_new();

    open_passive(&b, 1000, 2000);
    check_mapped(&b, 1000, 2000);
    in(&b, SYN, CLIENT, 0, 0);
    ck_assert_uint_eq(out(&b, ACK, 2500, CLIENT + 1, 0), 1500);
    in(&b, SYN, CLIENT + 99999, 0, 0);
    ck_assert_uint_eq(out(&b, ACK, 2500, CLIENT + 1, 0), 1500);
    check_mapped(&b, 1000, 2000);
    bench_end(&b);
}
END_TEST

/* The same on one that a checkpoint has made an ordinary one. */
START_TEST(duplicate_syn_on_an_ordinary_connection)
{
    Bench b = bench_new();

    open_passive(&b, 1000, 2000);
    colo_rewriter_checkpoint(b.r, b.now);
    check_untouched(&b);
    in(&b, SYN, CLIENT, 0, 0);
    ck_assert_uint_eq(out(&b, ACK, 100, CLIENT, 0), 100);
    check_untouched(&b);
    check_untouched(&b);
    bench_end(&b);
}
END_TEST

START_TEST(simultaneous_open)
{
    Bench b = bench_new();

    out(&b, SYN, 2000, 0, 0);
    in(&b, SYN, CLIENT, 0, 0);
    ck_assert_uint_eq(out(&b, SYN | ACK, 2000, CLIENT + 1, 0), 2000);
    ck_assert_uint_eq(in(&b, SYN | ACK, CLIENT, 1001, 0), 2001);
    check_mapped(&b, 1000, 2000);
    bench_end(&b);
}
END_TEST

START_TEST(port_reuse)
{
    for (guint i = 0; i < G_N_ELEMENTS(isns); i++) {
        Bench b = bench_new();

        open_passive(&b, 777777, 888888);
        out(&b, FIN | ACK, 888889, CLIENT + 1, 0);
        in(&b, FIN | ACK, CLIENT + 1, 777779, 0);
        out(&b, ACK, 888890, CLIENT + 2, 0);
        /* In TIME-WAIT the client opens it again, or the guest does. */
        if (i % 2) {
            in(&b, SYN, CLIENT + 5000, 0, 0);
            /* Until the guest has answered, it may still repeat its last segments. */
            ck_assert_uint_eq(out(&b, ACK, 888890, CLIENT + 2, 0), 777779);
            ck_assert_uint_eq(out(&b, SYN | ACK, isns[i][1], CLIENT + 5001, 0), isns[i][1]);
            ck_assert_uint_eq(in(&b, ACK, CLIENT + 5001, isns[i][0] + 1, 0), isns[i][1] + 1);
        } else {
            open_active(&b, isns[i][0], isns[i][1]);
        }
        check_mapped(&b, isns[i][0], isns[i][1]);
        b.now += 1000 * SECOND;         /* it is open again, and does not age as a closed one */
        check_mapped(&b, isns[i][0], isns[i][1]);
        bench_end(&b);
    }
}
END_TEST

/* Acknowledgements that overtake the SYN-ACK */

enum {
    WAITING_MAX = 256,
};

#define WAITING_TIME SECOND

/* From the client; it must be kept. */
static void in_waits(Bench *b, uint8_t flags, uint32_t seq, uint32_t ack, uint32_t len)
{
    ck_assert_uint_eq(in(b, flags, seq, ack, len), ack);
    ck_assert_int_eq(b->did.kind, COLO_REWRITE_WAIT);
}

/* The next one that need wait no longer is this. */
static void expect_ready(Bench *b, uint8_t flags, uint32_t seq, uint32_t ack, uint32_t len)
{
    bool has_ready = colo_rewriter_has_ready(b->r);
    ColoPacket *p = colo_rewriter_ready(b->r);
    uint8_t *payload = bytes_of(seq, len);
    Seen seen;

    ck_assert(has_ready == (p != NULL));
    ck_assert_msg(p != NULL, "nothing is ready");
    seen = frame_check(p->data, p->size, p->vnet_len);
    ck_assert_uint_eq(seen.seq, seq);
    ck_assert_uint_eq(seen.flags, flags);
    ck_assert_uint_eq(seen.ack, ack);
    ck_assert_uint_eq(seen.len, len);
    ck_assert_mem_eq(seen.payload, payload, len);
    g_free(payload);
    colo_packet_free(p);
}

static void expect_none_ready(Bench *b)
{
    ck_assert(!colo_rewriter_has_ready(b->r));
    ck_assert_ptr_null(colo_rewriter_ready(b->r));
}

/* The client has the primary's SYN-ACK before the secondary has made one. */
START_TEST(early_acknowledgement_waits)
{
    for (guint i = 0; i < G_N_ELEMENTS(isns); i++) {
        uint32_t ours = isns[i][0], theirs = isns[i][1];
        Bench b = bench_new();

        in(&b, SYN, CLIENT, 0, 0);
        in_waits(&b, ACK, CLIENT + 1, ours + 1, 0);
        in_waits(&b, ACK | PSH, CLIENT + 1, ours + 1, 50);
        in(&b, SYN, CLIENT, 0, 0);              /* repeated: it needs no mapping */
        ck_assert_int_eq(b.did.kind, COLO_REWRITE_NOTHING);
        in_waits(&b, ACK | FIN, CLIENT + 51, ours + 1, 10);
        expect_none_ready(&b);
        ck_assert_uint_eq(out(&b, SYN | ACK, theirs, CLIENT + 1, 0), theirs);
        expect_ready(&b, ACK, CLIENT + 1, theirs + 1, 0);
        expect_ready(&b, ACK | PSH, CLIENT + 1, theirs + 1, 50);
        expect_ready(&b, ACK | FIN, CLIENT + 51, theirs + 1, 10);
        expect_none_ready(&b);
        check_mapped(&b, ours, theirs);
        bench_end(&b);
    }
}
END_TEST

/* To ask changes nothing, and what waits is not ready. */
START_TEST(has_ready)
{
    Bench b = bench_new();

    ck_assert(!colo_rewriter_has_ready(b.r));
    in(&b, SYN, CLIENT, 0, 0);
    in_waits(&b, ACK, CLIENT + 1, 1001, 0);
    in_waits(&b, ACK, CLIENT + 1, 1001, 5);
    ck_assert(!colo_rewriter_has_ready(b.r));
    out(&b, SYN | ACK, 2000, CLIENT + 1, 0);
    ck_assert(colo_rewriter_has_ready(b.r));
    ck_assert(colo_rewriter_has_ready(b.r));
    expect_ready(&b, ACK, CLIENT + 1, 2001, 0);
    ck_assert(colo_rewriter_has_ready(b.r));
    expect_ready(&b, ACK, CLIENT + 1, 2001, 5);
    ck_assert(!colo_rewriter_has_ready(b.r));
    bench_end(&b);
}
END_TEST

/* The client uses its port again while the old connection is remembered still. */
START_TEST(early_acknowledgement_on_used_addresses)
{
    Bench b = bench_new();

    open_passive(&b, 1000, 2000);
    in(&b, ACK | FIN, CLIENT + 1, 1001, 0);
    out(&b, ACK | FIN, 2001, CLIENT + 2, 0);
    in(&b, SYN, CLIENT + 70000, 0, 0);
    in_waits(&b, ACK, CLIENT + 70001, 5001, 0);
    ck_assert_uint_eq(out(&b, SYN | ACK, 9000, CLIENT + 70001, 0), 9000);
    expect_ready(&b, ACK, CLIENT + 70001, 9001, 0);
    check_mapped(&b, 5000, 9000);
    bench_end(&b);
}
END_TEST

START_TEST(waiting_frames_of_every_kind)
{
    static const Shape shapes[] = {
        { .ipv6 = true }, { .vlans = 2, .vlan = { 7, 8 } }, { .vnet_len = 12, .needs_csum = true },
        { .vnet_len = 20, .ipv6 = true, .extensions = 16 }, { .pad_to = 120, .padding = 0xdd },
    };

    for (guint i = 0; i < G_N_ELEMENTS(shapes); i++) {
        Bench b = bench_new();

        b.shape = shapes[i];
        in(&b, SYN, CLIENT, 0, 0);
        in_waits(&b, ACK, CLIENT + 1, 1001, 9000);
        out(&b, SYN | ACK, 2000, CLIENT + 1, 0);
        expect_ready(&b, ACK, CLIENT + 1, 2001, 9000);
        check_mapped(&b, 1000, 2000);
        bench_end(&b);
    }
}
END_TEST

START_TEST(waiting_timestamps)
{
    uint32_t syn[2] = { 77, 0 }, syn_ack[2] = { 5000, 77 }, early[2] = { 78, 9000 };
    Bench b = bench_new();
    ColoPacket *p;
    Seen seen;

    pass_timestamps(&b, COLO_TO_GUEST, SYN, CLIENT, 0, syn);
    pass_timestamps(&b, COLO_TO_GUEST, ACK, CLIENT + 1, 1001, early);
    ck_assert_int_eq(b.did.kind, COLO_REWRITE_WAIT);
    pass_timestamps(&b, COLO_FROM_GUEST, SYN | ACK, 2000, CLIENT + 1, syn_ack);
    p = colo_rewriter_ready(b.r);
    seen = frame_check(p->data, p->size, 0);
    ck_assert_uint_eq(seen.ack, 2001);
    ck_assert_uint_eq(be32(seen.options + 4), 78);
    ck_assert_uint_eq(be32(seen.options + 8), 5000);
    colo_packet_free(p);
    check_timestamps(&b, COLO_FROM_GUEST, 2000, 5040, 80, 9040, 80);
    bench_end(&b);
}
END_TEST

/* Each connection waits for its own SYN-ACK. */
START_TEST(connections_wait_for_themselves)
{
    Bench b = bench_new();

    for (uint16_t port = 1; port <= 3; port++) {
        b.shape.peer_port = port;
        in(&b, SYN, CLIENT, 0, 0);
        in_waits(&b, ACK, CLIENT + port, 1001, port);
    }
    b.shape.peer_port = 2;
    out(&b, SYN | ACK, 2000, CLIENT + 1, 0);
    expect_ready(&b, ACK, CLIENT + 2, 2001, 2);
    expect_none_ready(&b);
    b.shape.peer_port = 4;
    check_untouched(&b);
    expect_none_ready(&b);
    b.shape.peer_port = 1;
    out(&b, SYN | ACK, 3000, CLIENT + 1, 0);
    b.shape.peer_port = 3;
    out(&b, SYN | ACK, 4000, CLIENT + 1, 0);
    expect_ready(&b, ACK, CLIENT + 1, 3001, 1);
    expect_ready(&b, ACK, CLIENT + 3, 4001, 3);
    expect_none_ready(&b);
    bench_end(&b);
}
END_TEST

/* However much a client sends to connections that the guest does not answer, no more waits than that. */
START_TEST(waiting_is_bounded)
{
    Bench b = bench_new();

    for (int turn = 0; turn < 2; turn++) {
        b.shape.peer_port = (uint16_t)(1 + turn);
        in(&b, SYN, CLIENT, 0, 0);
        for (uint32_t i = 0; i < WAITING_MAX; i++) {
            in_waits(&b, ACK, CLIENT + i, 1001, 1);
        }
        ck_assert_uint_eq(in(&b, ACK, CLIENT + 999, 1001, 1), 1001);
        ck_assert_int_eq(b.did.kind, COLO_REWRITE_NOTHING);
        out(&b, SYN | ACK, 2000, CLIENT + 1, 0);
        for (uint32_t i = 0; i < WAITING_MAX; i++) {
            expect_ready(&b, ACK, CLIENT + i, 2001, 1);
        }
        expect_none_ready(&b);
        check_mapped(&b, 1000, 2000);
    }
    bench_end(&b);
}
END_TEST

/* The guest says nothing: after a while they go on as they are, and if it does answer, the next is mapped. */
START_TEST(waiting_ends_in_time)
{
    Bench b = bench_new();

    in(&b, SYN, CLIENT, 0, 0);
    in_waits(&b, ACK, CLIENT + 1, 1001, 0);
    b.now += WAITING_TIME;
    in_waits(&b, ACK, CLIENT + 1, 1001, 7);
    expect_none_ready(&b);
    b.now++;
    b.shape.peer_port = 9;
    check_untouched(&b);            /* any packet shows that time has passed */
    expect_ready(&b, ACK, CLIENT + 1, 1001, 0);
    expect_ready(&b, ACK, CLIENT + 1, 1001, 7);
    expect_none_ready(&b);
    b.shape.peer_port = 0;
    ck_assert_uint_eq(in(&b, ACK, CLIENT + 1, 1001, 0), 1001);
    ck_assert_int_eq(b.did.kind, COLO_REWRITE_NOTHING);
    out(&b, SYN | ACK, 2000, CLIENT + 1, 0);
    ck_assert_uint_eq(in(&b, ACK, CLIENT + 1, 1001, 0), 2001);
    check_mapped(&b, 1000, 2000);
    bench_end(&b);
}
END_TEST

/* Its connection is forgotten while a packet waits: it goes on as it is. */
START_TEST(waiting_on_a_forgotten_connection)
{
    Bench b = bench_new();

    in(&b, SYN, CLIENT, 0, 0);
    in_waits(&b, ACK, CLIENT + 1, 1001, 3);
    b.shape.peer_port = 8;
    in(&b, SYN, CLIENT, 0, 0);
    in_waits(&b, ACK, CLIENT + 1, 1001, 3);
    b.now += 24 * 3600 * SECOND;
    b.shape.peer_port = 9;
    ck_assert_uint_eq(out(&b, ACK, 100, CLIENT, 3), 100);
    ck_assert_uint_eq(colo_rewriter_flows(b.r), 0);
    b.shape.peer_port = 0;
    expect_ready(&b, ACK, CLIENT + 1, 1001, 3);
    b.shape.peer_port = 8;
    expect_ready(&b, ACK, CLIENT + 1, 1001, 3);
    expect_none_ready(&b);
    bench_end(&b);
}
END_TEST

/* The secondary is a copy of the primary now, which knows the connection: nothing is to be mapped. */
START_TEST(checkpoint_while_waiting)
{
    Bench b = bench_new();

    in(&b, SYN, CLIENT, 0, 0);
    in_waits(&b, ACK, CLIENT + 1, 1001, 3);
    in_waits(&b, ACK, CLIENT + 4, 1001, 4);
    b.shape.peer_port = 9;
    in(&b, SYN, CLIENT, 0, 0);
    in_waits(&b, ACK, CLIENT + 7, 1001, 2);
    colo_rewriter_checkpoint(b.r, b.now);
    expect_ready(&b, ACK, CLIENT + 1, 1001, 3);
    expect_ready(&b, ACK, CLIENT + 4, 1001, 4);
    expect_ready(&b, ACK, CLIENT + 7, 1001, 2);
    expect_none_ready(&b);
    ck_assert_uint_eq(colo_rewriter_flows(b.r), 0);
    check_untouched(&b);
    bench_end(&b);
}
END_TEST

START_TEST(failover_while_waiting)
{
    Bench b = bench_new();

    in(&b, SYN, CLIENT, 0, 0);
    in_waits(&b, ACK, CLIENT + 1, 1001, 3);
    colo_rewriter_failover(b.r);
    expect_ready(&b, ACK, CLIENT + 1, 1001, 3);
    expect_none_ready(&b);
    ck_assert_uint_eq(in(&b, ACK, CLIENT + 1, 1001, 3), 1001);      /* none waits from here on */
    ck_assert_int_eq(b.did.kind, COLO_REWRITE_NOTHING);
    bench_end(&b);

    /* The same, with another connection that is mapped, so that the rewriter is not done. */
    b = bench_new();
    b.shape.peer_port = 9;
    open_passive(&b, 1000, 2000);
    b.shape.peer_port = 0;
    in(&b, SYN, CLIENT, 0, 0);
    in_waits(&b, ACK, CLIENT + 1, 1001, 3);
    colo_rewriter_failover(b.r);
    ck_assert_uint_eq(in(&b, ACK, CLIENT + 1, 1001, 4), 1001);
    ck_assert_int_eq(b.did.kind, COLO_REWRITE_NOTHING);
    expect_ready(&b, ACK, CLIENT + 1, 1001, 3);
    expect_none_ready(&b);
    bench_end(&b);
}
END_TEST

/* With packets that wait, and with packets that nobody has fetched (a leak, or worse, shows under the sanitizers). */
START_TEST(the_end_while_waiting)
{
    for (int fetched = 0; fetched < 3; fetched++) {
        Bench b = bench_new();

        in(&b, SYN, CLIENT, 0, 0);
        in_waits(&b, ACK, CLIENT + 1, 1001, 3);
        in_waits(&b, ACK, CLIENT + 1, 1001, 3);
        if (fetched) {
            out(&b, SYN | ACK, 2000, CLIENT + 1, 0);
        }
        if (fetched == 2) {
            expect_ready(&b, ACK, CLIENT + 1, 2001, 3);
        }
        bench_end(&b);
    }
}
END_TEST

/* The port is closed, on the secondary: it makes of the acknowledgement what it will. */
START_TEST(reset_while_waiting)
{
    Bench b = bench_new();

    in(&b, SYN, CLIENT, 0, 0);
    in_waits(&b, ACK, CLIENT + 1, 1001, 0);
    ck_assert_uint_eq(out(&b, RST | ACK, 0, CLIENT + 1, 0), 0);
    expect_ready(&b, ACK, CLIENT + 1, 1001, 0);
    expect_none_ready(&b);
    ck_assert_uint_eq(out(&b, RST, 1001, 0, 0), 1001);
    open_passive(&b, 1000, 2000);
    check_mapped(&b, 1000, 2000);
    bench_end(&b);
}
END_TEST

/* A client's reset acknowledges nothing, so it does not wait. */
START_TEST(reset_by_the_client_while_waiting)
{
    Bench b = bench_new();

    in(&b, SYN, CLIENT, 0, 0);
    in_waits(&b, ACK, CLIENT + 1, 1001, 0);
    in(&b, RST, CLIENT + 1, 0, 0);
    ck_assert_int_eq(b.did.kind, COLO_REWRITE_NOTHING);
    bench_end(&b);
}
END_TEST

/* An old SYN comes late on a live connection that is an ordinary one: nothing waits once the guest has said a word. */
START_TEST(late_syn_on_an_ordinary_connection)
{
    Bench b = bench_new();

    open_passive(&b, 1000, 2000);
    colo_rewriter_checkpoint(b.r, b.now);
    in(&b, SYN, CLIENT, 0, 0);
    in_waits(&b, ACK, CLIENT + 5, 1500, 5);
    ck_assert_uint_eq(out(&b, ACK, 1500, CLIENT + 5, 0), 1500);     /* the challenge */
    expect_ready(&b, ACK, CLIENT + 5, 1500, 5);
    expect_none_ready(&b);
    check_untouched(&b);
    /* And once more. */
    in(&b, SYN, CLIENT, 0, 0);
    check_untouched(&b);
    bench_end(&b);
}
END_TEST

START_TEST(late_syn_on_a_mapped_connection)
{
    Bench b = bench_new();

    open_passive(&b, 1000, 2000);
    in(&b, SYN, CLIENT, 0, 0);
    in(&b, SYN, CLIENT + 99999, 0, 0);
    check_mapped(&b, 1000, 2000);       /* nothing waits */
    expect_none_ready(&b);
    bench_end(&b);
}
END_TEST

/* Both open at once, and the client's word comes first. */
START_TEST(simultaneous_open_while_waiting)
{
    Bench b = bench_new();

    in(&b, SYN, CLIENT, 0, 0);
    in_waits(&b, SYN | ACK, CLIENT, 1001, 0);
    ck_assert_uint_eq(out(&b, SYN, 2000, 0, 0), 2000);
    expect_ready(&b, SYN | ACK, CLIENT, 2001, 0);
    ck_assert_uint_eq(out(&b, SYN | ACK, 2000, CLIENT + 1, 0), 2000);
    check_mapped(&b, 1000, 2000);
    bench_end(&b);
}
END_TEST

/* RST */

START_TEST(rst_from_the_guest)
{
    Bench b = bench_new();

    open_passive(&b, 1000, 2000);
    ck_assert_uint_eq(out(&b, RST, 2001, 0, 0), 1001);
    ck_assert_uint_eq(out(&b, RST | ACK, 2001, CLIENT + 1, 0), 1001);
    bench_end(&b);
}
END_TEST

START_TEST(rst_from_the_client)
{
    Bench b = bench_new();

    open_passive(&b, 1000, 2000);
    ck_assert_uint_eq(in(&b, RST, CLIENT + 1, 0, 0), 0);    /* acknowledges nothing: nothing to map */
    ck_assert_uint_eq(in(&b, RST | ACK, CLIENT + 1, 1001, 0), 2001);
    bench_end(&b);
}
END_TEST

/* A reset outside the window, which the guest answers by an acknowledgement and is otherwise none the worse for. */
START_TEST(rst_that_the_guest_does_not_believe)
{
    Bench b = bench_new();

    open_passive(&b, 1000, 2000);
    colo_rewriter_failover(b.r);
    in(&b, RST, CLIENT + 0x10000000, 0, 0);
    check_mapped(&b, 1000, 2000);
    b.now += 3600 * SECOND;
    check_mapped(&b, 1000, 2000);
    /* And one that it does, of the client and then of its own; what comes behind was on its way. */
    in(&b, RST, CLIENT + 1, 0, 0);
    ck_assert_uint_eq(out(&b, ACK, 2001, CLIENT + 1, 3), 1001);
    out(&b, RST, 2001, 0, 0);
    ck_assert_uint_eq(in(&b, ACK, CLIENT + 1, 1001, 0), 2001);
    b.now += 300 * SECOND;
    ck_assert_uint_eq(in(&b, ACK, CLIENT + 1, 1001, 0), 1001);
    bench_end(&b);
}
END_TEST

/* It comes out behind a checkpoint, which has made the number the client's, and behind the client's answer. */
START_TEST(repeated_syn_after_a_checkpoint)
{
    Bench b = bench_new();

    colo_rewriter_checkpoint(b.r, b.now);
    ck_assert_uint_eq(in(&b, SYN | ACK, CLIENT, 1001, 0), 1001);
    out(&b, SYN, 1000, 0, 0);
    ck_assert_uint_eq(out(&b, ACK, 1001, CLIENT + 1, 600), 1001);
    ck_assert_uint_eq(in(&b, ACK, CLIENT + 1, 1601, 0), 1601);
    colo_rewriter_failover(b.r);
    ck_assert_uint_eq(in(&b, ACK, CLIENT + 1, 1601, 0), 1601);
    ck_assert_uint_eq(out(&b, ACK, 1601, CLIENT + 1, 600), 1601);
    ck_assert(colo_rewriter_is_done(b.r));
    bench_end(&b);
}
END_TEST

/* The peer has an older connection open and says so; the guest resets that by the number that it is told, as the primary's does. */
START_TEST(half_open_peer)
{
    for (guint i = 0; i < G_N_ELEMENTS(isns); i++) {
        Bench b = bench_new();

        out(&b, SYN, isns[i][1], 0, 0);
        ck_assert_uint_eq(in(&b, ACK, CLIENT, 555555, 0), 555555);
        ck_assert_uint_eq(out(&b, RST, 555555, 0, 0), 555555);
        out(&b, SYN, isns[i][1], 0, 0);
        ck_assert_uint_eq(in(&b, SYN | ACK, CLIENT, isns[i][0] + 1, 0), isns[i][1] + 1);
        check_mapped(&b, isns[i][0], isns[i][1]);
        bench_end(&b);
    }
}
END_TEST

/* The client refuses: RST|ACK of the primary's SYN, which the secondary believes only if it names its own. */
START_TEST(rst_ack_to_an_active_open)
{
    for (guint i = 0; i < G_N_ELEMENTS(isns); i++) {
        Bench b = bench_new();

        out(&b, SYN, isns[i][1], 0, 0);
        ck_assert_uint_eq(in(&b, RST | ACK, 0, isns[i][0] + 1, 0), isns[i][1] + 1);
        bench_end(&b);
    }
}
END_TEST

/* A closed port, tried again until it is open. */
START_TEST(rst_ack_to_a_passive_open)
{
    Bench b = bench_new();

    for (uint32_t i = 0; i < 3; i++) {
        in(&b, SYN, CLIENT + i, 0, 0);
        ck_assert_uint_eq(out(&b, RST | ACK, 0, CLIENT + i + 1, 0), 0);
    }
    open_passive(&b, 1000, 2000);
    check_mapped(&b, 1000, 2000);
    bench_end(&b);
}
END_TEST

/* ICMP errors */

/* An error about the guest's segment with that sequence number, as the client or a router sends it; returns the number that comes out. */
static uint32_t error(Bench *b, uint8_t type, uint32_t seq)
{
    Frame *about;
    Seen seen;

    b->shape.to_guest = false;
    about = frame_tcp(&b->shape, seq, CLIENT, ACK, NULL, 0, "hello", 5);
    b->shape.to_guest = true;
    seen = pass_frame(b, COLO_TO_GUEST, frame_icmp(&b->shape, type, 4, 1400, about->data + about->l3, about->l4 + 8 - about->l3));
    ck_assert_uint_eq(seen.len, about->l4 + 8 - about->l3);
    seen.seq = be32(seen.payload + seen.len - 4);
    frame_free(about);
    return seen.seq;
}

static const Shape error_shapes[] = { { 0 }, { .ip_options = 8 }, { .vlans = 1, .vlan = { 5 } }, { .ipv6 = true } };

START_TEST(errors_of_what_is_mapped)
{
    for (guint i = 0; i < G_N_ELEMENTS(error_shapes); i++) {
        uint8_t type = error_shapes[i].ipv6 ? 2 : 3;        /* too big */
        Bench b = bench_new();

        b.shape = error_shapes[i];
        ck_assert_uint_eq(error(&b, type, 1001), 1001);
        open_passive(&b, 1000, 2000);
        ck_assert_uint_eq(error(&b, type, 1001), 2001);
        ck_assert_uint_eq(error(&b, b.shape.ipv6 ? 128 : 8, 1001), 1001);     /* no error at all */
        colo_rewriter_failover(b.r);
        ck_assert_uint_eq(error(&b, type, 1500), 2500);
        bench_end(&b);
    }
}
END_TEST

/* A firewall refuses what the guest opens. */
START_TEST(errors_of_a_syn)
{
    for (guint i = 0; i < G_N_ELEMENTS(isns); i++) {
        Bench b = bench_new();

        out(&b, SYN, isns[i][1], 0, 0);
        ck_assert_uint_eq(error(&b, 3, isns[i][0]), isns[i][1]);
        bench_end(&b);
    }
}
END_TEST

/* Selective acknowledgements */

static uint32_t put_sack(uint8_t *options, uint32_t before, int blocks, uint32_t first)
{
    uint32_t len = before;

    memset(options, 1, before);
    options[len++] = 5;
    options[len++] = (uint8_t)(2 + 8 * blocks);
    for (int i = 0; i < 2 * blocks; i++) {
        put32(options + len, first + (uint32_t)i * 1000);
        len += 4;
    }
    return len;
}

START_TEST(sack_blocks_at_any_offset)
{
    static const Shape shapes[] = {
        { 0 }, { .ipv6 = true }, { .vnet_len = 12 }, { .vnet_len = 12, .needs_csum = true }, { .vlans = 1 },
    };

    for (guint s = 0; s < G_N_ELEMENTS(shapes); s++) {
        for (guint i = 0; i < G_N_ELEMENTS(isns); i++) {
            for (uint32_t before = 0; before < 6; before++) {
                for (int blocks = 1; blocks <= 4; blocks++) {
                    uint32_t offset = isns[i][1] - isns[i][0];
                    uint8_t options[48] = { 0 };
                    uint32_t len = put_sack(options, before, blocks, isns[i][0] - 500);
                    Shape shape = shapes[s];
                    Bench b;
                    Seen seen;

                    if (len > 40) {
                        continue;
                    }
                    b = bench_new();
                    b.shape = shape;
                    open_passive(&b, isns[i][0], isns[i][1]);
                    shape.to_guest = true;
                    seen = pass_frame(&b, COLO_TO_GUEST,
                                      frame_tcp(&shape, CLIENT + 1, isns[i][0] + 1, ACK, options, len, "abc", 3));
                    ck_assert_uint_eq(seen.ack, isns[i][1] + 1);
                    for (int edge = 0; edge < 2 * blocks; edge++) {
                        ck_assert_uint_eq(be32(seen.options + before + 2 + 4 * edge),
                                          isns[i][0] - 500 + (uint32_t)edge * 1000 + offset);
                    }
                    ck_assert_mem_eq(seen.options, options, before + 2);

                    /* The guest's own are of the client's numbers. */
                    shape.to_guest = false;
                    seen = pass_frame(&b, COLO_FROM_GUEST,
                                      frame_tcp(&shape, isns[i][1] + 1, CLIENT, ACK, options, len, "abc", 3));
                    ck_assert_uint_eq(seen.seq, isns[i][0] + 1);
                    ck_assert_mem_eq(seen.options, options, len);
                    bench_end(&b);
                }
            }
        }
    }
}
END_TEST

/* Behind timestamps, as it really looks; and what only looks like SACK inside another option. */
START_TEST(sack_among_other_options)
{
    static const uint8_t options[] = {
        1, 1, 8, 10, 5, 10, 0, 0, 3, 232, 0, 5,         /* timestamps with a 5 and a 10 in them */
        1, 1, 5, 10, 0, 0, 4, 1, 0, 0, 8, 1,            /* the block 1025 to 2049 */
        253, 12, 5, 10, 0, 0, 4, 1, 0, 0, 8, 1,         /* an experiment */
    };
    uint8_t expected[sizeof(options)];
    Shape s = { .to_guest = true };
    Bench b = bench_new();
    Seen seen;

    memcpy(expected, options, sizeof(options));
    put32(expected + 16, 2025);
    put32(expected + 20, 3049);
    open_passive(&b, 1000, 2000);
    seen = pass_frame(&b, COLO_TO_GUEST, frame_tcp(&s, 1, 1001, ACK, options, sizeof(options), NULL, 0));
    ck_assert_mem_eq(seen.options, expected, sizeof(expected));
    bench_end(&b);
}
END_TEST

/* Lengths that cannot be: nothing behind them is touched, and nothing outside of the header ever. */
START_TEST(broken_options)
{
    static const uint8_t cases[][8] = {
        { 5, 0, 0, 0, 4, 1, 0, 0 }, { 5, 1, 0, 0, 4, 1, 0, 0 }, { 5, 10, 0, 0, 4, 1, 0, 0 },
        { 5, 255, 0, 0, 4, 1, 0, 0 }, { 1, 1, 1, 1, 1, 1, 1, 5 }, { 0, 5, 10, 9, 9, 9, 9, 9 },
        { 5, 2, 5, 3, 9, 0, 0, 0 }, { 3, 0, 5, 4, 1, 1, 0, 0 },
    };

    for (guint i = 0; i < G_N_ELEMENTS(cases); i++) {
        Shape s = { .to_guest = true };
        Bench b = bench_new();
        Seen seen;

        open_passive(&b, 1000, 2000);
        seen = pass_frame(&b, COLO_TO_GUEST, frame_tcp(&s, 1, 1001, ACK, cases[i], 8, "payload", 7));
        ck_assert_uint_eq(seen.ack, 2001);
        ck_assert_mem_eq(seen.options, cases[i], 8);
        ck_assert_mem_eq(seen.payload, "payload", 7);
        bench_end(&b);
    }
}
END_TEST

/* Behind the end of the options lies padding, whatever it looks like. */
START_TEST(nothing_behind_the_end)
{
    static const uint8_t options[16] = { 1, 1, 0, 4, 9, 9, 5, 10, 0, 0, 0, 1, 0, 0, 0, 2 };
    Shape s = { .to_guest = true };
    Bench b = bench_new();
    Seen seen;

    open_passive(&b, 1000, 2000);
    seen = pass_frame(&b, COLO_TO_GUEST, frame_tcp(&s, 1, 1001, ACK, options, 16, "payload", 7));
    ck_assert_uint_eq(seen.ack, 2001);
    ck_assert_mem_eq(seen.options, options, 16);
    bench_end(&b);
}
END_TEST

/* The checkpoint */

START_TEST(checkpoint_ends_all_mapping)
{
    Bench b = bench_new();

    open_passive(&b, 1000, 2000);
    check_mapped(&b, 1000, 2000);
    colo_rewriter_checkpoint(b.r, b.now);
    check_untouched(&b);
    ck_assert_uint_eq(colo_rewriter_flows(b.r), 0);
    ck_assert(!colo_rewriter_is_done(b.r));

    /* And connections made after it are mapped again. */
    b.shape.peer_port = 9;
    open_passive(&b, 5, 6);
    check_mapped(&b, 5, 6);
    bench_end(&b);
}
END_TEST

/* Wherever in its handshake a connection is, the checkpoint makes it an ordinary one. */
START_TEST(checkpoint_in_a_handshake)
{
    for (int stage = 0; stage < 6; stage++) {
        Bench b = bench_new();

        switch (stage) {
        case 0:     /* SYN seen; from here on the secondary has the primary's number */
            in(&b, SYN, CLIENT, 0, 0);
            colo_rewriter_checkpoint(b.r, b.now);
            ck_assert_uint_eq(out(&b, SYN | ACK, 1000, CLIENT + 1, 0), 1000);
            break;
        case 1:     /* SYN-ACK of its own made, undone by the checkpoint */
            in(&b, SYN, CLIENT, 0, 0);
            out(&b, SYN | ACK, 2000, CLIENT + 1, 0);
            colo_rewriter_checkpoint(b.r, b.now);
            break;
        case 2:     /* the same, with the SYN and the SYN-ACK repeated after the checkpoint */
            in(&b, SYN, CLIENT, 0, 0);
            out(&b, SYN | ACK, 2000, CLIENT + 1, 0);
            colo_rewriter_checkpoint(b.r, b.now);
            in(&b, SYN, CLIENT, 0, 0);
            ck_assert_uint_eq(out(&b, SYN | ACK, 1000, CLIENT + 1, 0), 1000);
            break;
        case 3:     /* the guest's SYN */
            out(&b, SYN, 2000, 0, 0);
            colo_rewriter_checkpoint(b.r, b.now);
            ck_assert_uint_eq(in(&b, SYN | ACK, CLIENT, 1001, 0), 1001);
            break;
        case 4:     /* the guest's SYN, repeated with the primary's number */
            out(&b, SYN, 2000, 0, 0);
            colo_rewriter_checkpoint(b.r, b.now);
            out(&b, SYN, 1000, 0, 0);
            ck_assert_uint_eq(in(&b, SYN | ACK, CLIENT, 1001, 0), 1001);
            break;
        default:    /* behind the last ACK */
            open_passive(&b, 1000, 2000);
            colo_rewriter_checkpoint(b.r, b.now);
            break;
        }
        ck_assert_uint_eq(in(&b, ACK, CLIENT + 1, 1001, 0), 1001);
        ck_assert_uint_eq(out(&b, ACK, 1001, CLIENT + 1, 10), 1001);
        ck_assert_uint_eq(in(&b, ACK, CLIENT + 1, 1011, 0), 1011);
        bench_end(&b);
    }
}
END_TEST

/* The failover */

START_TEST(failover_keeps_what_is_mapped)
{
    Bench b = bench_new();

    open_passive(&b, 1000, 2000);
    b.shape.peer_port = 9;
    open_active(&b, 0xfffffff0, 3);
    colo_rewriter_failover(b.r);
    ck_assert(!colo_rewriter_is_done(b.r));
    check_mapped(&b, 0xfffffff0, 3);
    b.shape.peer_port = 0;
    check_mapped(&b, 1000, 2000);
    colo_rewriter_checkpoint(b.r, b.now);      /* there is none any more; if one is told of, it changes nothing */
    check_mapped(&b, 1000, 2000);
    bench_end(&b);
}
END_TEST

/* The survivor's own secondary */

/* What @from saves is there in @to after a checkpoint. */
static void hand_over(Bench *from, Bench *to)
{
    GByteArray *saved = colo_rewriter_save(from->r);

    ck_assert(colo_rewriter_load(to->r, saved->data, saved->len));
    g_byte_array_unref(saved);
    colo_rewriter_checkpoint(to->r, to->now);
}

/* The client goes on with the numbers of a primary that is long gone. */
START_TEST(saved_and_loaded)
{
    for (guint i = 0; i < G_N_ELEMENTS(isns); i++) {
        Bench first = bench_new(), second = bench_new(), third = bench_new();
        uint32_t primary = isns[i][0], secondary = isns[i][1];
        uint32_t syn[2] = { 77, 0 }, syn_ack[2] = { 5000, 77 };

        first.shape.ipv6 = second.shape.ipv6 = third.shape.ipv6 = i % 2;
        pass_timestamps(&first, COLO_TO_GUEST, SYN, CLIENT, 0, syn);
        pass_timestamps(&first, COLO_FROM_GUEST, SYN | ACK, secondary, CLIENT + 1, syn_ack);
        check_timestamps(&first, COLO_TO_GUEST, primary, 80, 9000, 80, 5000);
        ck_assert(!colo_rewriter_must_be_saved(first.r));
        colo_rewriter_failover(first.r);
        ck_assert(colo_rewriter_must_be_saved(first.r));

        open_passive(&second, 1, 2);        /* it knows others, which are ordinary ones after the checkpoint */
        hand_over(&first, &second);
        ck_assert_uint_eq(colo_rewriter_flows(second.r), 1);
        check_mapped(&second, primary, secondary);
        check_timestamps(&second, COLO_FROM_GUEST, secondary, 5040, 80, 9040, 80);
        ck_assert(!colo_rewriter_must_be_saved(second.r));
        hand_over(&first, &second);
        check_mapped(&second, primary, secondary);

        colo_rewriter_failover(second.r);
        ck_assert(colo_rewriter_must_be_saved(second.r));
        hand_over(&second, &third);
        colo_rewriter_failover(third.r);
        check_mapped(&third, primary, secondary);
        check_timestamps(&third, COLO_TO_GUEST, primary, 90, 9040, 90, 5040);
        bench_end(&first);
        bench_end(&second);
        bench_end(&third);
    }
}
END_TEST

/* A connection whose handshake a failover has cut in two, and those of which one side or both are closed. */
START_TEST(saved_at_any_stage)
{
    for (int stage = 0; stage < 4; stage++) {
        Bench first = bench_new(), second = bench_new();

        in(&first, SYN, CLIENT, 0, 0);
        out(&first, SYN | ACK, 2000, CLIENT + 1, 0);
        colo_rewriter_failover(first.r);
        if (stage > 0) {
            in(&first, ACK, CLIENT + 1, 1001, 0);
        }
        if (stage > 1) {
            in(&first, FIN | ACK, CLIENT + 1, 1001, 0);
        }
        if (stage > 2) {
            out(&first, FIN | ACK, 2001, CLIENT + 2, 0);
        }
        hand_over(&first, &second);
        colo_rewriter_failover(second.r);
        ck_assert_uint_eq(in(&second, ACK, CLIENT + 2, 1001, 0), 2001);
        ck_assert_uint_eq(out(&second, ACK, 2002, CLIENT + 2, 0), 1002);
        second.now += 241 * SECOND;
        second.shape.peer_port = 9;
        in(&second, ACK, 1, 1, 0);          /* lets the others age */
        ck_assert_int_eq(colo_rewriter_is_done(second.r), stage == 3);
        bench_end(&first);
        bench_end(&second);
    }
}
END_TEST

START_TEST(loaded_once)
{
    Bench first = bench_new(), second = bench_new();

    open_passive(&first, 1000, 2000);
    colo_rewriter_failover(first.r);
    hand_over(&first, &second);
    check_mapped(&second, 1000, 2000);
    colo_rewriter_checkpoint(second.r, second.now);
    check_untouched(&second);
    bench_end(&first);
    bench_end(&second);
}
END_TEST

/* The other node's bytes: of a wrong length, and of any content. */
START_TEST(loaded_from_a_stranger)
{
    Bench first = bench_new(), second = bench_new();
    GByteArray *saved, *twice;
    uint8_t noise[57 * 20];

    open_passive(&first, 1000, 2000);
    colo_rewriter_failover(first.r);
    hand_over(&first, &second);
    saved = colo_rewriter_save(first.r);
    for (guint len = 1; len < saved->len; len++) {
        ck_assert(!colo_rewriter_load(second.r, saved->data, len));
    }
    ck_assert(colo_rewriter_load(second.r, saved->data, saved->len));
    ck_assert(!colo_rewriter_load(second.r, saved->data, saved->len - 1));
    colo_rewriter_checkpoint(second.r, second.now);     /* what was right has stayed */
    check_mapped(&second, 1000, 2000);
    twice = g_byte_array_append(g_byte_array_new(), saved->data, saved->len);     /* the same connection */
    g_byte_array_append(twice, saved->data, saved->len);
    ck_assert(colo_rewriter_load(second.r, twice->data, twice->len));
    g_byte_array_unref(saved);
    g_byte_array_unref(twice);
    colo_rewriter_checkpoint(second.r, second.now);
    ck_assert_uint_eq(colo_rewriter_flows(second.r), 1);
    for (guint i = 0; i < sizeof(noise); i++) {
        noise[i] = (uint8_t)(i * 167 + i / 5);
    }
    ck_assert(colo_rewriter_load(second.r, noise, sizeof(noise)));
    colo_rewriter_checkpoint(second.r, second.now);
    ck_assert_uint_eq(colo_rewriter_flows(second.r), 20);
    check_untouched(&second);
    colo_rewriter_failover(second.r);
    second.now += 4 * 3600 * SECOND;
    for (int i = 0; i < 20; i++) {
        check_untouched(&second);
    }
    ck_assert(colo_rewriter_is_done(second.r));
    ck_assert(!colo_rewriter_must_be_saved(second.r));
    bench_end(&first);
    bench_end(&second);
}
END_TEST

START_TEST(failover_leaves_new_ones_alone)
{
    Bench b = bench_new();

    open_passive(&b, 1000, 2000);
    colo_rewriter_failover(b.r);
    b.shape.peer_port = 9;
    in(&b, SYN, CLIENT, 0, 0);
    ck_assert_uint_eq(out(&b, SYN | ACK, 50, CLIENT + 1, 0), 50);
    ck_assert_uint_eq(in(&b, ACK, CLIENT + 1, 51, 0), 51);
    ck_assert_uint_eq(out(&b, ACK, 51, CLIENT + 1, 5), 51);
    b.shape.peer_port = 10;
    out(&b, SYN, 60, 0, 0);
    ck_assert_uint_eq(in(&b, SYN | ACK, CLIENT, 61, 0), 61);
    ck_assert_uint_eq(out(&b, ACK, 61, CLIENT + 1, 5), 61);
    ck_assert_uint_eq(colo_rewriter_flows(b.r), 1);
    bench_end(&b);
}
END_TEST

/* With the addresses and ports of a mapped one: there is one copy of the new connection only. */
START_TEST(failover_and_port_reuse)
{
    for (int active = 0; active < 2; active++) {
        Bench b = bench_new();

        open_passive(&b, 1000, 2000);
        colo_rewriter_failover(b.r);
        out(&b, FIN | ACK, 2001, CLIENT + 1, 0);
        in(&b, FIN | ACK, CLIENT + 1, 1002, 0);
        if (active) {
            out(&b, SYN, 50, 0, 0);
            ck_assert_uint_eq(in(&b, SYN | ACK, CLIENT, 51, 0), 51);
        } else {
            in(&b, SYN, CLIENT + 500, 0, 0);
            ck_assert_uint_eq(out(&b, SYN | ACK, 50, CLIENT + 501, 0), 50);
            ck_assert_uint_eq(in(&b, ACK, CLIENT + 501, 12345, 0), 12345);      /* wrong, and the guest's to refuse */
            ck_assert_uint_eq(in(&b, ACK, CLIENT + 501, 51, 0), 51);
        }
        ck_assert_uint_eq(out(&b, ACK, 51, CLIENT + 1, 5), 51);
        ck_assert_uint_eq(in(&b, ACK, CLIENT + 1, 56, 5), 56);
        bench_end(&b);
    }
}
END_TEST

/* The primary dies in a handshake: the client may have its SYN-ACK, or none. */
START_TEST(failover_in_a_handshake)
{
    for (int stage = 0; stage < 4; stage++) {
        Bench b = bench_new();
        uint32_t seen = stage == 1 || stage == 3 ? 1000 : 2000;     /* the SYN that the client has seen */

        switch (stage) {
        case 0:     /* the secondary has not answered: the client has seen nothing either */
            in(&b, SYN, CLIENT, 0, 0);
            colo_rewriter_failover(b.r);
            ck_assert_uint_eq(out(&b, SYN | ACK, 2000, CLIENT + 1, 0), 2000);
            ck_assert_uint_eq(in(&b, ACK, CLIENT + 1, 2001, 0), 2001);
            break;
        case 1:     /* the primary's has left */
            in(&b, SYN, CLIENT, 0, 0);
            out(&b, SYN | ACK, 2000, CLIENT + 1, 0);
            colo_rewriter_failover(b.r);
            ck_assert_uint_eq(in(&b, ACK, CLIENT + 1, 1001, 0), 2001);
            break;
        case 2:     /* it has not; the secondary repeats its own */
            in(&b, SYN, CLIENT, 0, 0);
            out(&b, SYN | ACK, 2000, CLIENT + 1, 0);
            colo_rewriter_failover(b.r);
            ck_assert_uint_eq(out(&b, SYN | ACK, 2000, CLIENT + 1, 0), 2000);
            ck_assert_uint_eq(in(&b, ACK, CLIENT + 1, 2001, 0), 2001);
            break;
        default:    /* an active open that the client answers after the failover */
            out(&b, SYN, 2000, 0, 0);
            colo_rewriter_failover(b.r);
            ck_assert_uint_eq(in(&b, SYN | ACK, CLIENT, 1001, 0), 2001);
            break;
        }
        for (uint32_t i = 1; i < 500; i += 100) {
            ck_assert_uint_eq(out(&b, ACK, 2000 + i, CLIENT + 1, 10), seen + i);
            ck_assert_uint_eq(in(&b, ACK, CLIENT + 1, seen + i + 10, 0), 2000 + i + 10);
        }
        bench_end(&b);
    }
}
END_TEST

/* After a failover the secondary's repeated SYN-ACK goes to the client, which knows the primary's number. */
START_TEST(repeated_syn_ack_after_a_failover)
{
    Bench b = bench_new();

    open_passive(&b, 1000, 2000);
    ck_assert_uint_eq(out(&b, SYN | ACK, 2000, CLIENT + 1, 0), 2000);   /* the comparator expects it so */
    colo_rewriter_failover(b.r);
    ck_assert_uint_eq(out(&b, SYN | ACK, 2000, CLIENT + 1, 0), 1000);
    check_mapped(&b, 1000, 2000);
    bench_end(&b);
}
END_TEST

START_TEST(done_without_connections)
{
    Bench b = bench_new();

    ck_assert(!colo_rewriter_is_done(b.r));
    colo_rewriter_failover(b.r);
    ck_assert(colo_rewriter_is_done(b.r));
    check_untouched(&b);
    bench_end(&b);
}
END_TEST

/* Something passes on another connection once a second, for as long as it takes. */
static void idle_for(Bench *b, int64_t seconds)
{
    b->shape.peer_port = 4242;
    for (int64_t i = 0; i < seconds && !colo_rewriter_is_done(b->r); i++) {
        b->now += SECOND;
        out(b, ACK, 1, CLIENT, 0);
    }
    b->shape.peer_port = 0;
}

START_TEST(done_after_the_last_has_closed)
{
    for (int how = 0; how < 5; how++) {
        Bench b = bench_new();

        open_passive(&b, 1000, 2000);
        colo_rewriter_failover(b.r);
        switch (how) {
        case 0:     /* the guest first */
            out(&b, FIN | ACK, 2001, CLIENT + 1, 0);
            in(&b, ACK, CLIENT + 1, 1002, 0);
            in(&b, FIN | ACK, CLIENT + 1, 1002, 0);
            ck_assert_uint_eq(out(&b, ACK, 2002, CLIENT + 2, 0), 1002);
            break;
        case 1:     /* the client first */
            in(&b, FIN | ACK, CLIENT + 1, 1001, 0);
            out(&b, FIN | ACK, 2001, CLIENT + 2, 0);
            ck_assert_uint_eq(in(&b, ACK, CLIENT + 2, 1002, 0), 2002);
            break;
        case 2:     /* both at once, without an acknowledgement in between, FIN alone */
            out(&b, FIN, 2001, 0, 0);
            in(&b, FIN, CLIENT + 1, 0, 0);
            break;
        case 3:
            out(&b, RST, 2001, 0, 0);
            break;
        default:
            in(&b, RST, CLIENT + 1, 0, 0);
            break;
        }
        ck_assert(!colo_rewriter_is_done(b.r));     /* its last segments may have to be repeated */
        idle_for(&b, 600);
        ck_assert_msg(colo_rewriter_is_done(b.r), "way %d of closing has been forgotten", how);
        check_untouched(&b);
        bench_end(&b);
    }
}
END_TEST

/* Closed on one side only, it lives on. */
START_TEST(half_closed_stays)
{
    for (int side = 0; side < 2; side++) {
        Bench b = bench_new();

        open_passive(&b, 1000, 2000);
        for (int i = 0; i < 2; i++) {           /* repeated, it is still one side's */
            if (side) {
                in(&b, FIN | ACK, CLIENT + 1, 1001, 0);
            } else {
                out(&b, FIN | ACK, 2001, CLIENT + 1, 0);
            }
        }
        idle_for(&b, 3600);
        check_mapped(&b, 1000, 2000);
        bench_end(&b);
    }
}
END_TEST

START_TEST(idle_connections_are_forgotten)
{
    Bench b = bench_new();

    for (uint16_t i = 1; i < 50; i++) {
        b.shape.peer_port = i;
        open_passive(&b, 1000, 2000);
    }
    ck_assert_uint_eq(colo_rewriter_flows(b.r), 49);
    b.now += 24 * 3600 * SECOND;
    b.shape.peer_port = 4242;
    for (int i = 0; i < 50; i++) {
        out(&b, ACK, 1, CLIENT, 0);
    }
    ck_assert_uint_eq(colo_rewriter_flows(b.r), 0);
    bench_end(&b);
}
END_TEST

/* A client that only knocks must not keep every packet coming here for hours: there is nothing to map. */
START_TEST(done_with_unanswered_syns)
{
    Bench b = bench_new();

    in(&b, SYN, CLIENT, 0, 0);
    colo_rewriter_failover(b.r);
    idle_for(&b, 600);
    ck_assert(colo_rewriter_is_done(b.r));
    bench_end(&b);
}
END_TEST

/* Connections of the same number on both sides need no mapping, and do not stand in the way of being done. */
START_TEST(done_with_an_offset_of_zero)
{
    Bench b = bench_new();

    open_passive(&b, 1000, 1000);
    colo_rewriter_failover(b.r);
    for (int i = 0; i < 600; i++) {
        b.now += SECOND;
        out(&b, ACK, 1001, CLIENT + 1, 0);
    }
    ck_assert(colo_rewriter_is_done(b.r));
    bench_end(&b);
}
END_TEST

/* Random ends of random connections: what the client sees is the primary's stream, what the guest sees its own. */
START_TEST(random_connections)
{
    GRand *rand = g_rand_new_with_seed(test_seed("random_connections"));
    Bench b = bench_new();
    struct {
        uint32_t ours, theirs;
        bool mapped;
    } connections[40];

    memset(connections, 0, sizeof(connections));
    for (int step = 0; step < 30000; step++) {
        guint i = (guint)g_rand_int_range(rand, 0, G_N_ELEMENTS(connections));
        uint32_t at = (uint32_t)g_rand_int_range(rand, 1, 100000);

        b.shape.peer_port = (uint16_t)(1 + i);
        b.shape.ipv6 = i % 3 == 0;
        b.now += 1000;
        if (g_rand_int_range(rand, 0, 30) == 0) {
            connections[i].ours = g_rand_int(rand);
            connections[i].theirs = g_rand_int(rand);
            connections[i].mapped = true;
            if (g_rand_boolean(rand)) {
                open_passive(&b, connections[i].ours, connections[i].theirs);
            } else {
                open_active(&b, connections[i].ours, connections[i].theirs);
            }
        } else if (connections[i].mapped) {
            ck_assert_uint_eq(out(&b, ACK, connections[i].theirs + at, CLIENT, 3), connections[i].ours + at);
            ck_assert_uint_eq(in(&b, ACK, CLIENT, connections[i].ours + at, 3), connections[i].theirs + at);
        } else {
            check_untouched(&b);
        }
        if (g_rand_int_range(rand, 0, 1000) == 0) {
            colo_rewriter_checkpoint(b.r, b.now);
            memset(connections, 0, sizeof(connections));
        }
    }
    bench_end(&b);
    g_rand_free(rand);
}
END_TEST

/* Anything at all: no step outside of the frame. */
START_TEST(random_frames)
{
    GRand *rand = g_rand_new_with_seed(test_seed("random_frames"));
    ColoRewriter *r = colo_rewriter_new(secret);

    for (int i = 0; i < 100000; i++) {
        Shape s = { .ipv6 = g_rand_boolean(rand), .peer_port = (uint16_t)g_rand_int_range(rand, 1, 8) };
        ColoDirection direction = g_rand_boolean(rand) ? COLO_TO_GUEST : COLO_FROM_GUEST;
        uint8_t *bytes = bytes_of(g_rand_int(rand), 40);
        ColoPacket p, *ready;
        Frame *f;

        s.to_guest = direction == COLO_TO_GUEST;
        bytes[g_rand_int_range(rand, 0, 40)] = 5;
        f = frame_tcp(&s, g_rand_int(rand), g_rand_int(rand), (uint8_t)g_rand_int(rand) & 0x17, bytes,
                      (uint32_t)g_rand_int_range(rand, 0, 11) * 4, bytes, (uint32_t)g_rand_int_range(rand, 0, 2));
        if (g_rand_int_range(rand, 0, 3) == 0) {
            f->data[g_rand_int_range(rand, 0, (gint32)f->size)] = (uint8_t)g_rand_int(rand);
        }
        ck_assert(colo_packet_parse(&p, f->data, f->size, 0));
        colo_rewrite(&p, colo_rewriter_look(r, direction, &p, i));
        if (i % 7 == 0) {
            while ((ready = colo_rewriter_ready(r))) {
                colo_packet_free(ready);
            }
        }
        frame_free(f);
        g_free(bytes);
        if (i == 50000) {
            colo_rewriter_failover(r);
        }
    }
    colo_rewriter_free(r);
    colo_rewriter_free(NULL);
    g_rand_free(rand);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("rewriter");
    TCase *tc = tcase_create("mapping");

    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, passive_open);
    tcase_add_test(tc, active_open);
    tcase_add_test(tc, syn_ack_alone);
    tcase_add_test(tc, every_kind_of_frame);
    tcase_add_test(tc, other_traffic);
    tcase_add_test(tc, connections_do_not_mix);
    tcase_add_test(tc, repeated_handshake);
    tcase_add_test(tc, handshake_ends_with_data);
    tcase_add_test(tc, duplicate_syn_on_a_live_connection);
    tcase_add_test(tc, duplicate_syn_on_an_ordinary_connection);
    tcase_add_test(tc, simultaneous_open);
    tcase_add_test(tc, port_reuse);
    tcase_add_test(tc, rst_from_the_guest);
    tcase_add_test(tc, rst_from_the_client);
    tcase_add_test(tc, rst_that_the_guest_does_not_believe);
    tcase_add_test(tc, half_open_peer);
    tcase_add_test(tc, repeated_syn_after_a_checkpoint);
    tcase_add_test(tc, errors_of_what_is_mapped);
    tcase_add_test(tc, errors_of_a_syn);
    tcase_add_test(tc, rst_ack_to_an_active_open);
    tcase_add_test(tc, rst_ack_to_a_passive_open);
    tcase_add_test(tc, sack_blocks_at_any_offset);
    tcase_add_test(tc, sack_among_other_options);
    tcase_add_test(tc, broken_options);
    tcase_add_test(tc, nothing_behind_the_end);
    suite_add_tcase(suite, tc);

    tc = tcase_create("waiting");
    tcase_add_test(tc, early_acknowledgement_waits);
    tcase_add_test(tc, has_ready);
    tcase_add_test(tc, early_acknowledgement_on_used_addresses);
    tcase_add_test(tc, waiting_frames_of_every_kind);
    tcase_add_test(tc, waiting_timestamps);
    tcase_add_test(tc, connections_wait_for_themselves);
    tcase_add_test(tc, waiting_is_bounded);
    tcase_add_test(tc, waiting_ends_in_time);
    tcase_add_test(tc, waiting_on_a_forgotten_connection);
    tcase_add_test(tc, checkpoint_while_waiting);
    tcase_add_test(tc, failover_while_waiting);
    tcase_add_test(tc, the_end_while_waiting);
    tcase_add_test(tc, reset_while_waiting);
    tcase_add_test(tc, reset_by_the_client_while_waiting);
    tcase_add_test(tc, late_syn_on_an_ordinary_connection);
    tcase_add_test(tc, late_syn_on_a_mapped_connection);
    tcase_add_test(tc, simultaneous_open_while_waiting);
    suite_add_tcase(suite, tc);

    tc = tcase_create("checkpoint and failover");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, checkpoint_ends_all_mapping);
    tcase_add_test(tc, checkpoint_in_a_handshake);
    tcase_add_test(tc, failover_keeps_what_is_mapped);
    tcase_add_test(tc, saved_and_loaded);
    tcase_add_test(tc, saved_at_any_stage);
    tcase_add_test(tc, loaded_once);
    tcase_add_test(tc, loaded_from_a_stranger);
    tcase_add_test(tc, failover_leaves_new_ones_alone);
    tcase_add_test(tc, failover_and_port_reuse);
    tcase_add_test(tc, failover_in_a_handshake);
    tcase_add_test(tc, repeated_syn_ack_after_a_failover);
    tcase_add_test(tc, done_without_connections);
    tcase_add_test(tc, done_after_the_last_has_closed);
    tcase_add_test(tc, half_closed_stays);
    tcase_add_test(tc, timestamps);
    tcase_add_test(tc, timestamps_left_out);
    tcase_add_test(tc, timestamps_after_a_checkpoint);
    tcase_add_test(tc, idle_connections_are_forgotten);
    tcase_add_test(tc, done_with_unanswered_syns);
    tcase_add_test(tc, done_with_an_offset_of_zero);
    suite_add_tcase(suite, tc);

    tc = tcase_create("random");
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, random_connections);
    tcase_add_test(tc, random_frames);
    suite_add_tcase(suite, tc);
    return run_suite(suite);
}
