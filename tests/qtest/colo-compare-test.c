/*
 * Tests of colo-compare in a QEMU without a guest: the test is both sides' output, and what takes it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "colo-test-util.h"
#include "net/colo-series.h"
#include "qemu/bswap.h"

#define HELLO "COLO_USERSPACE_PROXY_INIT"
#define WELCOME "COLO_COMPARE_GET_XEN_INIT"
#define ASK "DO_CHECKPOINT"
#define CHECKPOINT "COLO_CHECKPOINT"

/* Released bytes that wait for a taker before no more is read. */
#define OUTBOX_HIGH (1024 * 1024)

/* Objects, as JSON. */
#define COMPARE(id) "'qom-type': 'colo-compare', 'id': '" id "'"
#define DEVS "'primary_in': 'pri', 'secondary_in': 'sec', 'outdev': 'out'"

/* A test with one colo-compare, 'comp0', and everybody connected. */
typedef struct {
    ColoTest *t;
    ColoPeer *primary;
    ColoPeer *secondary;
    ColoPeer *out;
    ColoPeer *xen;          /* the frame behind notify_dev; NULL: there is none */
} Compare;

/* What is longer than any test takes: nothing is to happen because of the time. */
#define NO_TIMEOUT ",compare_timeout=3600000"

/* What an object reads at once at most (COLO_LINK_READ), bytes. */
#define READ_SIZE (256 * 1024)

static Compare start(const char *options)
{
    bool vnet = strstr(options, "vnet_hdr_support=on");
    bool xen = strstr(options, "notify_dev=xen");
    Compare c;

    c.t = colo_test_start("pri sec out xen", "-object iothread,id=thread "
                          "-object colo-compare,id=comp0,primary_in=pri,secondary_in=sec,outdev=out%s", options);
    c.out = colo_test_connect(c.t, "out", vnet);
    c.primary = colo_test_connect(c.t, "pri", vnet);
    c.secondary = colo_test_connect(c.t, "sec", vnet);
    c.xen = xen ? colo_test_connect(c.t, "xen", false) : NULL;
    if (vnet) {
        c.primary->vnet_len = 12;
        c.secondary->vnet_len = 10;
    }
    return c;
}

static uint64_t count(Compare *c, const char *path)
{
    return colo_test_count(c->t, "comp0", path);
}

static void wait_count(Compare *c, const char *path, uint64_t value)
{
    colo_test_wait_count(c->t, "comp0", path, value);
}

/* What leaves has left: nothing can overtake this, or come between. */
static void fence(Compare *c)
{
    static uint8_t host;
    g_autoptr(GByteArray) arp = colo_test_arp(++host);

    colo_peer_send_frame(c->primary, arp);
    colo_peer_expect_frame(c->out, arp);
}

static void send_text(ColoPeer *p, const char *text)
{
    colo_peer_send(p, text, strlen(text));
}

static void expect_text(ColoPeer *p, const char *text)
{
    colo_peer_expect(p, text, strlen(text));
}

/* The frame hears nothing, or nothing more, until now. */
static void xen_fence(Compare *c)
{
    send_text(c->xen, HELLO);
    expect_text(c->xen, WELCOME);
}

static void checkpoint(Compare *c)
{
    uint64_t before = count(c, "checkpoints");

    send_text(c->xen, CHECKPOINT);
    wait_count(c, "checkpoints", before + 1);
}

/* Traffic: segments and datagrams of a flow, each known by its number */

static GByteArray *segment(uint32_t client, uint32_t seq, uint32_t ack, uint8_t flags, const char *payload)
{
    return colo_test_tcp(&(ColoTestPacket) { .client = client, .seq = seq, .ack = ack, .flags = flags,
                                             .payload = payload, .len = strlen(payload) });
}

static void send_segment(ColoPeer *p, uint32_t client, uint32_t seq, uint32_t ack, uint8_t flags, const char *payload)
{
    g_autoptr(GByteArray) frame = segment(client, seq, ack, flags, payload);

    colo_peer_send_frame(p, frame);
}

static void expect_segment(ColoPeer *p, uint32_t client, uint32_t seq, uint32_t ack, uint8_t flags,
                           const char *payload)
{
    g_autoptr(GByteArray) frame = segment(client, seq, ack, flags, payload);

    colo_peer_expect_frame(p, frame);
}

static void send_datagram(ColoPeer *p, uint32_t client, const char *payload)
{
    g_autoptr(GByteArray) frame = colo_test_udp(client, payload, strlen(payload));

    colo_peer_send_frame(p, frame);
}

static void expect_datagram(ColoPeer *p, uint32_t client, const char *payload)
{
    g_autoptr(GByteArray) frame = colo_test_udp(client, payload, strlen(payload));

    colo_peer_expect_frame(p, frame);
}

/* Segment @number of a long stream, all of @len bytes. */
static GByteArray *stream_segment(uint32_t client, uint32_t number, uint32_t len)
{
    g_autoptr(GByteArray) payload = colo_test_bytes(number, len);

    return colo_test_tcp(&(ColoTestPacket) { .client = client, .seq = 0xffff0000 + number * len, .ack = 1,
                                             .flags = ACK, .payload = payload->data, .len = len });
}

static void send_stream(ColoPeer *p, uint32_t client, uint32_t from, uint32_t to, uint32_t len)
{
    for (uint32_t i = from; i < to; i++) {
        g_autoptr(GByteArray) frame = stream_segment(client, i, len);

        colo_peer_send_frame(p, frame);
    }
}

static void expect_stream(ColoPeer *p, uint32_t client, uint32_t from, uint32_t to, uint32_t len)
{
    for (uint32_t i = from; i < to; i++) {
        g_autoptr(GByteArray) frame = stream_segment(client, i, len);

        colo_peer_expect_frame(p, frame);
    }
}

/* The stream on the chardevs */

static void check_pass_through(const char *options)
{
    Compare c = start(options);

    g_assert_cmpuint(count(&c, "comparing"), ==, 0);
    colo_test_splits(c.primary, c.out, NULL);
    send_segment(c.secondary, 1, 100, 1, ACK, "what the secondary says");
    send_segment(c.primary, 1, 100, 1, ACK, "what the primary says");
    expect_segment(c.out, 1, 100, 1, ACK, "what the primary says");
    fence(&c);
    wait_count(&c, "discarded.packets", 1);
    g_assert_cmpuint(count(&c, "held"), ==, 0);
    g_assert_cmpuint(count(&c, "held-max"), ==, 0);
    g_assert_cmpuint(count(&c, "pending"), ==, 0);
    g_assert_cmpuint(count(&c, "flows"), ==, 0);
    g_assert_cmpuint(count(&c, "released.packets"), ==, count(&c, "primary.packets"));
    g_assert_true(colo_peer_is_silent(c.out));
    colo_test_end(c.t);
}

static void test_pass_through(void)
{
    check_pass_through("");
    check_pass_through(",active=auto,iothread=thread");
    check_pass_through(",vnet_hdr_support=on");
}

static void test_splits(void)
{
    for (int vnet = 0; vnet < 2; vnet++) {
        Compare c = start(vnet ? ",active=on,vnet_hdr_support=on" NO_TIMEOUT : ",active=on" NO_TIMEOUT);

        colo_test_splits(c.secondary, c.out, c.primary);
        colo_test_splits(c.primary, c.out, c.secondary);
        wait_count(&c, "held", 0);
        wait_count(&c, "pending", 0);
        g_assert_true(colo_peer_is_silent(c.out));
        colo_test_end(c.t);
    }
}

static void check_bad_lengths(bool vnet)
{
    Compare c = start(vnet ? ",active=on,vnet_hdr_support=on,notify_dev=xen" NO_TIMEOUT
                           : ",active=on,notify_dev=xen" NO_TIMEOUT);

    send_datagram(c.primary, 1, "held");
    wait_count(&c, "held", 1);

    colo_peer_close(c.primary);
    colo_test_bad_lengths(c.t, "pri", vnet, "colo-compare 'comp0': primary_in");
    c.primary = colo_test_connect(c.t, "pri", vnet);
    colo_peer_close(c.secondary);
    colo_test_bad_lengths(c.t, "sec", vnet, "colo-compare 'comp0': secondary_in");
    c.secondary = colo_test_connect(c.t, "sec", vnet);
    expect_text(c.xen, ASK);    /* the secondary was gone; once is enough */
    g_assert_true(colo_peer_is_silent(c.xen));
    colo_peer_close(c.xen);
    colo_test_bad_lengths(c.t, "xen", vnet, "colo-compare 'comp0': notify_dev");

    /* All goes on. */
    send_datagram(c.primary, 1, "more");
    send_datagram(c.secondary, 1, "held");
    send_datagram(c.secondary, 1, "more");
    expect_datagram(c.out, 1, "held");
    expect_datagram(c.out, 1, "more");
    colo_test_end(c.t);
}

static void test_bad_lengths(void)
{
    check_bad_lengths(false);
    check_bad_lengths(true);
}

/* Comparing */

/* A connection from its SYN to its end, cut differently on both sides. */
static void check_connection(Compare *c, uint32_t client, uint32_t isn)
{
    uint64_t discarded = count(c, "discarded.packets");

    /* The secondary's SYN-ACK has a number of its own; from there on the rewriter has mapped it. */
    send_segment(c->primary, client, isn, 501, SYN | ACK, "");
    send_segment(c->secondary, client, isn + 77777, 501, SYN | ACK, "");
    expect_segment(c->out, client, isn, 501, SYN | ACK, "");

    send_segment(c->primary, client, isn + 1, 510, ACK, "one two ");
    send_segment(c->secondary, client, isn + 1, 510, ACK, "one two ");
    expect_segment(c->out, client, isn + 1, 510, ACK, "one two ");

    /* Two segments of the secondary's for one of the primary's, and the other way round. */
    send_segment(c->secondary, client, isn + 9, 510, ACK, "thr");
    send_segment(c->secondary, client, isn + 12, 510, ACK, "ee four ");
    wait_count(c, "pending", 2);
    send_segment(c->primary, client, isn + 9, 510, ACK, "three four ");
    expect_segment(c->out, client, isn + 9, 510, ACK, "three four ");
    send_segment(c->primary, client, isn + 20, 510, ACK, "fi");
    send_segment(c->primary, client, isn + 22, 510, ACK | PSH, "ve ");
    send_segment(c->secondary, client, isn + 20, 510, ACK | PSH, "five ");
    expect_segment(c->out, client, isn + 20, 510, ACK, "fi");
    expect_segment(c->out, client, isn + 22, 510, ACK | PSH, "ve ");

    /* A repetition leaves at once, an acknowledgement when the secondary has made it. */
    send_segment(c->primary, client, isn + 20, 510, ACK, "fi");
    expect_segment(c->out, client, isn + 20, 510, ACK, "fi");
    send_segment(c->primary, client, isn + 25, 600, ACK, "");
    fence(c);
    wait_count(c, "held", 1);
    send_segment(c->secondary, client, isn + 25, 700, ACK, "");
    expect_segment(c->out, client, isn + 25, 600, ACK, "");

    /* A front half leaves when the secondary has sent so much. */
    send_segment(c->primary, client, isn + 25, 600, ACK, "abcdefgh");
    fence(c);
    send_segment(c->secondary, client, isn + 25, 600, ACK, "abc");
    expect_segment(c->out, client, isn + 25, 600, ACK, "abc");
    send_segment(c->secondary, client, isn + 28, 600, ACK, "defgh");
    expect_segment(c->out, client, isn + 28, 600, ACK, "defgh");

    /* Data, then FIN; data with FIN. */
    send_segment(c->primary, client, isn + 33, 600, ACK, "end");
    send_segment(c->primary, client, isn + 36, 600, ACK | FIN, "");
    send_segment(c->secondary, client, isn + 33, 600, ACK | FIN, "end");
    expect_segment(c->out, client, isn + 33, 600, ACK, "end");
    expect_segment(c->out, client, isn + 36, 600, ACK | FIN, "");
    fence(c);
    g_assert_cmpuint(count(c, "held"), ==, 0);
    g_assert_cmpuint(count(c, "pending"), ==, 0);
    wait_count(c, "discarded.packets", discarded + 9);
}

static void check_tcp_equal(const char *options)
{
    Compare c = start(options);

    g_assert_cmpuint(count(&c, "comparing"), ==, 1);
    check_connection(&c, 1, 1000);
    check_connection(&c, 2, 0xfffffff0);
    check_connection(&c, 3, 0xffffffff);
    if (c.xen) {
        xen_fence(&c);
    }
    colo_test_end(c.t);
}

static void test_tcp_equal(void)
{
    check_tcp_equal(",active=on" NO_TIMEOUT);
    check_tcp_equal(",active=on,iothread=thread" NO_TIMEOUT);
    check_tcp_equal(",active=on,vnet_hdr_support=on" NO_TIMEOUT);
    check_tcp_equal(",notify_dev=xen" NO_TIMEOUT);
    check_tcp_equal(",notify_dev=xen,active=auto,iothread=thread" NO_TIMEOUT);
}

static void test_tcp_different(void)
{
    Compare c = start(",notify_dev=xen" NO_TIMEOUT);

    for (uint32_t epoch = 0; epoch < 3; epoch++) {
        uint32_t seq = 0xffffffe8 + epoch * 20;

        send_segment(c.primary, 1, seq, 1, ACK, "same1");
        send_segment(c.secondary, 1, seq, 1, ACK, "same1");
        expect_segment(c.out, 1, seq, 1, ACK, "same1");
        send_segment(c.primary, 1, seq + 5, 1, ACK, "white");
        send_segment(c.secondary, 1, seq + 5, 1, ACK, "black");
        expect_text(c.xen, ASK);
        g_assert_cmpuint(count(&c, "divergences.payload"), ==, epoch + 1);

        /* Other flows diverge as well, and more is sent: once asked is enough, and nothing of it leaves. */
        for (uint32_t client = 2; client < 10; client++) {
            send_segment(c.primary, client, 100 + 5 * epoch, 1, ACK, "white");
            send_segment(c.secondary, client, 100 + 5 * epoch, 1, ACK, "black");
        }
        send_segment(c.primary, 1, seq + 10, 1, ACK, "and more..");
        send_datagram(c.primary, 1, "only the primary");
        wait_count(&c, "held", 11);
        wait_count(&c, "secondary.packets", 10 + 11 * epoch);
        fence(&c);
        xen_fence(&c);

        /* What agrees goes on leaving meanwhile. */
        send_datagram(c.primary, 50, "equal");
        send_datagram(c.secondary, 50, "equal");
        expect_datagram(c.out, 50, "equal");

        /* The checkpoint lets everything go, in order, and forgets what the secondary has said. */
        checkpoint(&c);
        expect_segment(c.out, 1, seq + 5, 1, ACK, "white");
        for (uint32_t client = 2; client < 10; client++) {
            expect_segment(c.out, client, 100 + 5 * epoch, 1, ACK, "white");
        }
        expect_segment(c.out, 1, seq + 10, 1, ACK, "and more..");
        expect_datagram(c.out, 1, "only the primary");
        fence(&c);
        g_assert_cmpuint(count(&c, "held"), ==, 0);
        g_assert_cmpuint(count(&c, "pending"), ==, 0);
        xen_fence(&c);
    }
    colo_test_end(c.t);
}

static void test_tcp_reasons(void)
{
    Compare c = start(",notify_dev=xen" NO_TIMEOUT);
    uint8_t sack[] = { 1, 1, 5, 10 };

    /* The primary ends its stream, the secondary goes on. */
    send_segment(c.primary, 1, 100, 1, ACK | FIN, "");
    send_segment(c.secondary, 1, 100, 1, ACK, "more");
    expect_text(c.xen, ASK);
    g_assert_cmpuint(count(&c, "divergences.flags"), ==, 1);
    fence(&c);
    checkpoint(&c);
    expect_segment(c.out, 1, 100, 1, ACK | FIN, "");

    /* The secondary resets what lives. */
    send_segment(c.primary, 2, 100, 1, ACK, "alive");
    send_segment(c.secondary, 2, 100, 1, ACK | RST, "");
    expect_text(c.xen, ASK);
    g_assert_cmpuint(count(&c, "divergences.secondary-reset"), ==, 1);
    fence(&c);
    checkpoint(&c);
    expect_segment(c.out, 2, 100, 1, ACK, "alive");

    /* Both reset. */
    send_segment(c.primary, 3, 100, 1, ACK | RST, "");
    fence(&c);
    send_segment(c.secondary, 3, 100, 1, ACK | RST, "");
    expect_segment(c.out, 3, 100, 1, ACK | RST, "");

    /* SYNs with different options: the secondary's has one. */
    send_segment(c.primary, 4, 100, 1, SYN | ACK, "");
    {
        g_autoptr(GByteArray) frame =
            colo_test_tcp(&(ColoTestPacket) { .client = 4, .seq = 555, .ack = 1, .flags = SYN | ACK,
                                              .sack = { 1, 2 } });

        g_assert_cmpmem(frame->data + 54, sizeof(sack), sack, sizeof(sack));
        colo_peer_send_frame(c.secondary, frame);
    }
    expect_text(c.xen, ASK);
    g_assert_cmpuint(count(&c, "divergences.options"), ==, 1);
    fence(&c);
    checkpoint(&c);
    expect_segment(c.out, 4, 100, 1, SYN | ACK, "");
    xen_fence(&c);
    colo_test_end(c.t);
}

static void test_udp(void)
{
    Compare c = start(",notify_dev=xen" NO_TIMEOUT);

    /* Equal, whichever comes first. */
    send_datagram(c.primary, 1, "alpha");
    fence(&c);
    send_datagram(c.secondary, 1, "alpha");
    expect_datagram(c.out, 1, "alpha");
    send_datagram(c.secondary, 1, "beta");
    wait_count(&c, "pending", 1);
    send_datagram(c.primary, 1, "beta");
    expect_datagram(c.out, 1, "beta");
    g_assert_cmpuint(count(&c, "pending"), ==, 0);

    /* The same again is another datagram. */
    send_datagram(c.primary, 1, "beta");
    fence(&c);
    send_datagram(c.secondary, 1, "beta");
    expect_datagram(c.out, 1, "beta");

    /* Late: longer than the grace for those that differ. */
    send_datagram(c.primary, 1, "gamma");
    wait_count(&c, "held", 1);
    colo_test_run(c.t, 100);
    send_datagram(c.secondary, 1, "gamma");
    expect_datagram(c.out, 1, "gamma");

    /* Swapped. */
    send_datagram(c.primary, 1, "one");
    send_datagram(c.primary, 1, "two");
    send_datagram(c.primary, 1, "three");
    send_datagram(c.secondary, 1, "three");
    send_datagram(c.secondary, 1, "one");
    send_datagram(c.secondary, 1, "two");
    expect_datagram(c.out, 1, "one");
    expect_datagram(c.out, 1, "two");
    expect_datagram(c.out, 1, "three");
    fence(&c);
    xen_fence(&c);
    g_assert_cmpuint(count(&c, "held"), ==, 0);
    g_assert_cmpuint(count(&c, "pending"), ==, 0);

    /* The same payload in another flow is not the same. */
    send_datagram(c.primary, 1, "mine");
    send_datagram(c.secondary, 2, "mine");
    wait_count(&c, "held", 1);
    wait_count(&c, "pending", 1);
    fence(&c);
    xen_fence(&c);
    send_datagram(c.secondary, 1, "mine");
    expect_datagram(c.out, 1, "mine");

    /* Different. */
    send_datagram(c.primary, 3, "heads");
    send_datagram(c.secondary, 3, "tails");
    expect_text(c.xen, ASK);
    g_assert_cmpuint(count(&c, "divergences.payload"), ==, 1);
    fence(&c);
    checkpoint(&c);
    expect_datagram(c.out, 3, "heads");
    g_assert_cmpuint(count(&c, "pending"), ==, 0);
    colo_test_end(c.t);
}

/* What is not a service to the client is not compared. */
static void test_arp(void)
{
    Compare c = start(",notify_dev=xen" NO_TIMEOUT);
    g_autoptr(GByteArray) arp = colo_test_arp(200);

    colo_peer_send_frame(c.secondary, arp);
    colo_peer_send_frame(c.secondary, arp);
    wait_count(&c, "discarded.packets", 2);
    g_assert_true(colo_peer_is_silent(c.out));
    colo_peer_send_frame(c.primary, arp);
    colo_peer_expect_frame(c.out, arp);
    /* A runt, too. */
    send_text(c.secondary, "?");
    send_text(c.primary, "!");
    expect_text(c.out, "!");
    wait_count(&c, "discarded.packets", 3);
    g_assert_cmpuint(count(&c, "held"), ==, 0);
    xen_fence(&c);
    colo_test_end(c.t);
}

/* Time */

static void set_timeout(Compare *c, int64_t ms)
{
    qtest_qmp_assert_success(c->t->qts, "{ 'execute': 'qom-set', 'arguments': { 'path': '/objects/comp0',"
                             " 'property': 'compare_timeout', 'value': %" PRId64 " } }", ms);
}

/* A checkpoint is asked for when the time is over, not before. */
static void assert_asked_after(Compare *c, int64_t begin, int64_t ms)
{
    int64_t passed;

    expect_text(c->xen, ASK);
    passed = g_get_monotonic_time() - begin;
    g_assert_cmpint(passed, >=, ms * 1000);
    g_assert_cmpint(passed, <, (ms + 10000) * 1000);    /* far less, but for a loaded machine */
}

static void test_deadline(void)
{
    Compare c = start(",notify_dev=xen,compare_timeout=300,expired_scan_cycle=100000");
    int64_t begin;

    for (int i = 0; i < 3; i++) {
        begin = g_get_monotonic_time();
        send_datagram(c.primary, 1, "alone");
        assert_asked_after(&c, begin, 300);
        g_assert_cmpuint(count(&c, "divergences.timeout"), ==, 2 * i + 1);
        fence(&c);
        checkpoint(&c);
        expect_datagram(c.out, 1, "alone");

        /* The same bytes, but not the same acknowledgement. */
        begin = g_get_monotonic_time();
        send_segment(c.primary, 1, 100 + 4 * i, 1000 * (i + 1), ACK, "data");
        send_segment(c.secondary, 1, 100 + 4 * i, 1000 * i + 1, ACK, "data");
        assert_asked_after(&c, begin, 300);
        g_assert_cmpuint(count(&c, "divergences.ack"), ==, i + 1);
        fence(&c);
        checkpoint(&c);
        expect_segment(c.out, 1, 100 + 4 * i, 1000 * (i + 1), ACK, "data");

        /* What the secondary sends in time does not count. */
        begin = g_get_monotonic_time();
        send_datagram(c.primary, 2, "first");
        send_datagram(c.secondary, 2, "first");
        expect_datagram(c.out, 2, "first");
        send_datagram(c.primary, 2, "second");
        assert_asked_after(&c, begin, 300);
        g_assert_cmpuint(count(&c, "divergences.timeout"), ==, 2 * i + 2);
        checkpoint(&c);
        expect_datagram(c.out, 2, "second");
    }

    /* What only the secondary has sent is forgotten after that time; nobody is asked for anything. */
    send_datagram(c.secondary, 3, "nobody has seen it");
    wait_count(&c, "pending", 1);
    wait_count(&c, "pending", 0);
    xen_fence(&c);
    colo_test_end(c.t);
}

static void test_deadline_changes(void)
{
    Compare c = start(",notify_dev=xen" NO_TIMEOUT);
    int64_t begin = g_get_monotonic_time();

    send_datagram(c.primary, 1, "alone");
    fence(&c);
    xen_fence(&c);
    set_timeout(&c, 200);
    assert_asked_after(&c, begin, 200);
    colo_test_end(c.t);
}

/* Load */

/* One side is far ahead: it is not read on, and when the other comes all leave in order. */
static void check_backpressure(bool primary_first, uint32_t segments, const char *options, uint32_t queue_size)
{
    Compare c = start(options);
    ColoPeer *first = primary_first ? c.primary : c.secondary;
    ColoPeer *second = primary_first ? c.secondary : c.primary;
    const char *ahead = primary_first ? "held" : "pending";
    const uint32_t len = 1000;

    send_stream(first, 1, 0, segments, len);
    colo_test_wait_count_at_least(c.t, "comp0", ahead, queue_size);
    colo_test_run(c.t, 100);
    /* One read may bring a little more. */
    g_assert_cmpuint(count(&c, ahead), <=, queue_size + READ_SIZE / len);
    g_assert_cmpuint(count(&c, primary_first ? "primary.packets" : "secondary.packets"), ==, count(&c, ahead));
    g_assert_true(colo_peer_is_silent(c.out));
    colo_test_assert_responsive(c.t);

    send_stream(second, 1, 0, segments, len);
    expect_stream(c.out, 1, 0, segments, len);
    fence(&c);
    wait_count(&c, "pending", 0);
    g_assert_cmpuint(count(&c, "held"), ==, 0);
    g_assert_cmpuint(count(&c, "released.packets"), ==, segments + 1);
    g_assert_cmpuint(count(&c, "discarded.packets"), ==, segments);
    g_assert_cmpuint(count(&c, "divergences.payload"), ==, 0);
    colo_test_end(c.t);
}

static void test_backpressure(void)
{
    check_backpressure(true, 5000, ",active=on,max_queue_size=16" NO_TIMEOUT, 16);
    check_backpressure(false, 5000, ",active=on,max_queue_size=16" NO_TIMEOUT, 16);
    check_backpressure(true, 5000, ",active=on,max_queue_size=1,iothread=thread" NO_TIMEOUT, 1);
}

/* A number that the kernel knows of QEMU: the word behind @name in @file of its directory in /proc. */
static uint64_t process_number(Compare *c, const char *file, const char *name)
{
    struct ucred peer;
    socklen_t len = sizeof(peer);
    g_autofree char *path = NULL;
    g_autofree char *text = NULL;
    const char *at;

    g_assert_cmpint(getsockopt(c->out->fd, SOL_SOCKET, SO_PEERCRED, &peer, &len), ==, 0);
    path = g_strdup_printf("/proc/%d/%s", (int)peer.pid, file);
    g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
    at = strstr(text, name);
    g_assert_nonnull(at);
    return g_ascii_strtoull(at + strlen(name) + 1, NULL, 10);
}

/* 200,000 packets of one flow: none is lost, and memory does not grow with their number. */
static void check_long_flow(bool primary_first, const char *options)
{
    const uint32_t segments = 200000, stride = 5000, len = 1000;
    const uint64_t history = 32 * 1024;     /* KiB */
    Compare c = start(options);
    uint64_t before = process_number(&c, "status", "VmHWM:");

    for (uint32_t i = 0; i < segments; i += stride) {
        send_stream(primary_first ? c.primary : c.secondary, 1, i, i + stride, len);
        send_stream(primary_first ? c.secondary : c.primary, 1, i, i + stride, len);
        expect_stream(c.out, 1, i, i + stride, len);
    }
    g_assert_cmpuint(count(&c, "released.packets"), ==, segments);
    g_assert_cmpuint(count(&c, "held-max"), <=, 1024 + READ_SIZE / len);
    g_assert_cmpuint(process_number(&c, "status", "VmHWM:"), <, before + history + 16 * 1024);
    colo_test_end(c.t);
}

static void test_long_flow(void)
{
    check_backpressure(true, 5000, ",active=on" NO_TIMEOUT, 1024);
    check_backpressure(false, 5000, ",active=on,vnet_hdr_support=on" NO_TIMEOUT, 1024);
    check_long_flow(true, ",active=on" NO_TIMEOUT);
    check_long_flow(false, ",active=on,vnet_hdr_support=on" NO_TIMEOUT);
}

/* Host mend chardev-wakeups: reading a chardev wakes nobody, so it writes nothing but packets. */
static void test_few_wakeups(void)
{
    const uint32_t segments = 1000;
    Compare c = start(",active=on,iothread=thread" NO_TIMEOUT);
    uint64_t writes;

    fence(&c);
    writes = process_number(&c, "io", "syscw:");
    for (uint32_t i = 0; i < segments; i++) {
        send_stream(c.primary, 1, i, i + 1, 8);
        send_stream(c.secondary, 1, i, i + 1, 8);
        expect_stream(c.out, 1, i, i + 1, 8);
    }
    g_assert_cmpuint(process_number(&c, "io", "syscw:"), <, writes + segments);
    colo_test_end(c.t);
}

/* Each side is ahead in one flow and has to wait for the other: only a checkpoint helps, and it is asked for. */
static void test_both_full(void)
{
    Compare c = start(",notify_dev=xen,max_queue_size=16" NO_TIMEOUT);

    send_stream(c.primary, 1, 0, 1000, 1000);
    send_stream(c.secondary, 2, 0, 1000, 1000);
    while (count(&c, "primary.packets") < 1000) {
        expect_text(c.xen, ASK);
        g_assert_cmpuint(count(&c, "divergences.queue-full"), ==, count(&c, "checkpoints") + 1);
        checkpoint(&c);
    }
    checkpoint(&c);
    expect_stream(c.out, 1, 0, 1000, 1000);
    g_assert_cmpuint(count(&c, "checkpoints"), >, 2);
    colo_test_end(c.t);
}

/* Nobody takes what is released: then no more is read, and nothing is lost. */
static void test_deaf_outdev(void)
{
    Compare c = start("");
    const uint32_t segments = 20000, len = 1000;

    c.out->deaf = true;
    send_stream(c.primary, 1, 0, segments, len);
    colo_test_wait_count_at_least(c.t, "comp0", "queued", OUTBOX_HIGH);
    colo_test_run(c.t, 100);
    colo_test_assert_responsive(c.t);
    g_assert_cmpuint(count(&c, "queued"), <, 2 * OUTBOX_HIGH);
    g_assert_cmpuint(count(&c, "primary.packets"), <, segments);
    c.out->deaf = false;
    expect_stream(c.out, 1, 0, segments, len);
    fence(&c);
    wait_count(&c, "queued", 0);
    colo_test_end(c.t);
}

static void test_many_flows(void)
{
    Compare c = start(",active=on" NO_TIMEOUT);
    const uint32_t flows = 200000;
    g_autofree bool *seen = g_new0(bool, flows);

    for (uint32_t i = 0; i < flows; i++) {
        send_segment(c.primary, i, i, 1, ACK, "x");
        send_segment(c.secondary, i, i, 1, ACK, "x");
    }
    for (uint32_t i = 0; i < flows; i++) {
        g_autoptr(GByteArray) frame = colo_peer_take(c.out);
        ColoTestPacket packet = colo_test_parse_tcp(frame);

        g_assert_cmpuint(packet.client, <, flows);
        g_assert_cmpuint(packet.seq, ==, packet.client);
        g_assert_false(seen[packet.client]);
        seen[packet.client] = true;
    }
    fence(&c);
    wait_count(&c, "discarded.packets", flows);
    g_assert_cmpuint(count(&c, "flows"), ==, flows);
    g_assert_cmpuint(count(&c, "held"), ==, 0);
    colo_test_assert_responsive(c.t);
    colo_test_end(c.t);
}

/* Connections that come and go */

static void test_primary_reconnects(void)
{
    Compare c = start(",active=on" NO_TIMEOUT);

    send_datagram(c.primary, 1, "zero");
    for (size_t cut = 1; cut < 60; cut += 7) {
        send_datagram(c.primary, 1, "half of this");
        g_byte_array_set_size(c.primary->out, c.primary->out->len - cut);
        colo_peer_flush(c.primary);
        colo_peer_close(c.primary);
        c.primary = colo_test_connect(c.t, "pri", false);
    }
    send_datagram(c.primary, 1, "whole");
    wait_count(&c, "held", 2);
    send_datagram(c.secondary, 1, "zero");
    send_datagram(c.secondary, 1, "whole");
    expect_datagram(c.out, 1, "zero");
    expect_datagram(c.out, 1, "whole");
    g_assert_cmpuint(count(&c, "primary.packets"), ==, 2);
    colo_test_end(c.t);
}

static void test_secondary_reconnects(void)
{
    Compare c = start(",notify_dev=xen" NO_TIMEOUT);

    send_datagram(c.primary, 1, "zero");
    wait_count(&c, "held", 1);
    for (size_t cut = 1; cut < 60; cut += 7) {
        send_datagram(c.secondary, 1, "half of this");
        g_byte_array_set_size(c.secondary->out, c.secondary->out->len - cut);
        colo_peer_flush(c.secondary);
        colo_peer_close(c.secondary);
        if (cut == 1) {
            /* Without the secondary nothing can be compared: asked for once. */
            expect_text(c.xen, ASK);
            g_assert_cmpuint(count(&c, "divergences.peer-lost"), ==, 1);
        }
        c.secondary = colo_test_connect(c.t, "sec", false);
    }
    send_datagram(c.primary, 1, "whole");
    send_datagram(c.secondary, 1, "zero");
    send_datagram(c.secondary, 1, "whole");
    expect_datagram(c.out, 1, "zero");
    expect_datagram(c.out, 1, "whole");
    xen_fence(&c);
    g_assert_cmpuint(count(&c, "secondary.packets"), ==, 2);

    /* A checkpoint without a secondary lets go what is held. */
    send_datagram(c.primary, 1, "held");
    wait_count(&c, "held", 1);
    colo_peer_close(c.secondary);
    fence(&c);
    checkpoint(&c);
    expect_datagram(c.out, 1, "held");
    colo_test_end(c.t);
}

static void test_outdev_reconnects(void)
{
    Compare c = start("");
    g_autoptr(GByteArray) frame = NULL;
    const uint32_t segments = 100, len = 60000;
    uint32_t first;

    /* Nobody there: what is released waits. */
    colo_peer_close(c.out);
    send_stream(c.primary, 1, 0, segments, len);
    colo_test_wait_count_at_least(c.t, "comp0", "queued", OUTBOX_HIGH);
    colo_test_run(c.t, 50);
    g_assert_cmpuint(count(&c, "queued"), <, 2 * OUTBOX_HIGH);
    c.out = colo_test_connect(c.t, "out", false);
    expect_stream(c.out, 1, 0, segments, len);

    /* It goes in the middle of a packet: the next one begins with a whole one, and gets all from there on. */
    c.out->deaf = true;
    send_stream(c.primary, 1, 0, segments, len);
    colo_test_wait_count_at_least(c.t, "comp0", "queued", OUTBOX_HIGH);
    colo_peer_close(c.out);
    c.out = colo_test_connect(c.t, "out", false);
    frame = colo_peer_take(c.out);
    first = (colo_test_parse_tcp(frame).seq - 0xffff0000) / len;
    g_assert_cmpuint(first, <, segments / 2);
    expect_stream(c.out, 1, first + 1, segments, len);
    fence(&c);
    colo_test_end(c.t);
}

static void test_xen_reconnects(void)
{
    Compare c = start(",notify_dev=xen" NO_TIMEOUT);

    for (int i = 0; i < 3; i++) {
        send_text(c.xen, CHECKPOINT);
        g_byte_array_set_size(c.xen->out, c.xen->out->len - 1 - i * 8);
        colo_peer_flush(c.xen);
        colo_peer_close(c.xen);
        /* What is asked for while it is away it hears when it comes. */
        send_segment(c.primary, 1, 100 + 5 * i, 1, ACK, "white");
        send_segment(c.secondary, 1, 100 + 5 * i, 1, ACK, "black");
        wait_count(&c, "divergences.payload", i + 1);
        c.xen = colo_test_connect(c.t, "xen", false);
        expect_text(c.xen, ASK);
        g_assert_cmpuint(count(&c, "checkpoints"), ==, i);
        checkpoint(&c);
        expect_segment(c.out, 1, 100 + 5 * i, 1, ACK, "white");
        xen_fence(&c);
    }
    colo_test_end(c.t);
}

/* The foreign frame */

static void test_notify_protocol(void)
{
    Compare c = start(",notify_dev=xen" NO_TIMEOUT);
    const char *wrong[] = { "COLO_CHECKPOIN", "COLO_CHECKPOINT!", "x", "DO_CHECKPOINT", "colo_checkpoint" };

    g_assert_cmpuint(count(&c, "comparing"), ==, 1);
    for (int i = 0; i < 3; i++) {
        send_text(c.xen, HELLO);
        expect_text(c.xen, WELCOME);
    }
    send_datagram(c.primary, 1, "held");
    wait_count(&c, "held", 1);
    for (int i = 0; i < ARRAY_SIZE(wrong); i++) {
        colo_test_expect_message(c.t, "*colo-compare 'comp0': notify_dev*message*");
        send_text(c.xen, wrong[i]);
        xen_fence(&c);
    }
    g_assert_cmpuint(count(&c, "held"), ==, 1);
    g_assert_cmpuint(count(&c, "checkpoints"), ==, 0);

    /* A checkpoint that nobody has asked for is one. */
    send_text(c.xen, CHECKPOINT);
    expect_datagram(c.out, 1, "held");
    wait_count(&c, "checkpoints", 1);
    send_text(c.xen, CHECKPOINT);
    send_text(c.xen, HELLO);
    expect_text(c.xen, WELCOME);
    g_assert_cmpuint(count(&c, "checkpoints"), ==, 2);
    colo_test_end(c.t);
}

/* With vnet_hdr_support what comes from the frame has a word for the header, what goes to it has not. */
static void test_notify_vnet(void)
{
    Compare c = start(",notify_dev=xen,vnet_hdr_support=on" NO_TIMEOUT);
    uint8_t header[8] = { 0 };

    stl_be_p(header, strlen(HELLO));
    colo_peer_send_bytes(c.xen, header, 8);
    colo_peer_send_bytes(c.xen, HELLO, strlen(HELLO));
    expect_text(c.xen, WELCOME);
    send_datagram(c.primary, 1, "heads");
    send_datagram(c.secondary, 1, "tails");
    expect_text(c.xen, ASK);
    stl_be_p(header, strlen(CHECKPOINT));
    colo_peer_send_bytes(c.xen, header, 8);
    colo_peer_send_bytes(c.xen, CHECKPOINT, strlen(CHECKPOINT));
    expect_datagram(c.out, 1, "heads");
    colo_test_end(c.t);
}

static void mark_epoch(ColoPeer *side, uint64_t number)
{
    g_autoptr(GByteArray) mark = colo_test_epoch_mark(number);

    colo_peer_send_frame(side, mark);
}

/* What a side sent before the checkpoint, and arrives after it, is of the old epoch until its mark comes. */
static void test_epoch_marks(void)
{
    Compare c = start(",notify_dev=xen" NO_TIMEOUT);

    checkpoint(&c);                     /* the connections are from before it */
    mark_epoch(c.primary, 1);
    mark_epoch(c.secondary, 1);
    for (int epoch = 1; epoch < 4; epoch++) {
        send_datagram(c.primary, 1, "equal");
        send_datagram(c.secondary, 1, "equal");
        expect_datagram(c.out, 1, "equal");
        send_datagram(c.primary, 1, "held");
        wait_count(&c, "held", 1);
        checkpoint(&c);
        expect_datagram(c.out, 1, "held");

        send_datagram(c.primary, 1, "old, so it leaves");
        expect_datagram(c.out, 1, "old, so it leaves");
        send_datagram(c.secondary, 1, "new");
        wait_count(&c, "discarded.packets", epoch * 3 - 1);
        mark_epoch(c.primary, epoch + 1);
        send_datagram(c.primary, 1, "new");
        wait_count(&c, "held", 1);
        fence(&c);
        mark_epoch(c.secondary, epoch + 1);
        send_datagram(c.secondary, 1, "new");
        expect_datagram(c.out, 1, "new");
    }
    xen_fence(&c);
    g_assert_true(colo_peer_is_silent(c.out));
    colo_test_end(c.t);
}

/* @asks: nothing has been asked for in this epoch. */
static void reconnect_secondary(Compare *c, bool asks)
{
    colo_peer_close(c->secondary);
    if (asks) {
        expect_text(c->xen, ASK);
    }
    wait_count(c, "secondary-connected", 0);
    c->secondary = colo_test_connect(c->t, "sec", false);
    wait_count(c, "secondary-connected", 1);
}

/* A secondary whose output breaks off says on its next connection in which epoch it is, whatever has been told of here by then. */
static void test_epoch_after_reconnecting(void)
{
    Compare c = start(",notify_dev=xen" NO_TIMEOUT);

    mark_epoch(c.primary, 0);
    for (int epoch = 0; epoch < 3; epoch++) {
        uint64_t before = count(&c, "secondary.packets"), discarded;

        reconnect_secondary(&c, epoch == 0);
        mark_epoch(c.secondary, epoch + 1);             /* it has resumed, and nobody has told us yet */
        send_datagram(c.secondary, 1, "new");
        wait_count(&c, "secondary.packets", before + 1);
        checkpoint(&c);
        mark_epoch(c.primary, epoch + 1);
        send_datagram(c.primary, 1, "new");
        expect_datagram(c.out, 1, "new");

        reconnect_secondary(&c, true);
        mark_epoch(c.secondary, epoch);                 /* what it still has to send is older */
        discarded = count(&c, "discarded.packets");
        send_datagram(c.secondary, 1, "old");
        wait_count(&c, "discarded.packets", discarded + 1);
        send_datagram(c.primary, 1, "old");
        wait_count(&c, "held", 1);
        fence(&c);
        mark_epoch(c.secondary, epoch + 1);
        send_datagram(c.secondary, 1, "old");
        expect_datagram(c.out, 1, "old");
    }
    xen_fence(&c);
    g_assert_true(colo_peer_is_silent(c.out));
    colo_test_end(c.t);
}

/* One that says what cannot be is told of once, and is not believed until it says what can. */
static void test_epoch_that_cannot_be(void)
{
    Compare c = start(",notify_dev=xen" NO_TIMEOUT);

    mark_epoch(c.primary, 0);
    mark_epoch(c.secondary, 0);
    colo_test_expect_message(c.t, "*colo-compare 'comp0': secondary_in*checkpoint 2*0*");
    mark_epoch(c.secondary, 2);
    mark_epoch(c.secondary, UINT64_MAX / 2);
    mark_epoch(c.secondary, UINT64_MAX);
    send_datagram(c.secondary, 1, "a lie");
    wait_count(&c, "discarded.packets", 1);
    send_datagram(c.primary, 1, "a lie");
    wait_count(&c, "held", 1);
    fence(&c);
    checkpoint(&c);
    expect_datagram(c.out, 1, "a lie");
    mark_epoch(c.primary, 1);
    mark_epoch(c.secondary, 1);
    send_datagram(c.secondary, 1, "the truth");
    send_datagram(c.primary, 1, "the truth");
    expect_datagram(c.out, 1, "the truth");
    colo_test_end(c.t);
}

/* Objects that come and go */

/* Holds packets of two flows, 20 in all. */
static void hold_some(Compare *c)
{
    for (int i = 0; i < 10; i++) {
        g_autofree char *text = g_strdup_printf("held %d", i);

        send_datagram(c->primary, 1, text);
        send_segment(c->primary, 2, 100 + 6 * i, 1, ACK, text);
    }
    wait_count(c, "held", 20);
    fence(c);
}

static void expect_held(Compare *c)
{
    for (int i = 0; i < 10; i++) {
        g_autofree char *text = g_strdup_printf("held %d", i);

        expect_datagram(c->out, 1, text);
        expect_segment(c->out, 2, 100 + 6 * i, 1, ACK, text);
    }
    g_assert_true(colo_peer_is_silent(c->out));
}

static void test_del_releases(void)
{
    Compare c = start(",active=on" NO_TIMEOUT);

    /* Twice: the second object has an iothread, which goes after it; the third one's before it. */
    hold_some(&c);
    colo_test_del(c.t, "comp0");
    expect_held(&c);
    colo_test_add(c.t, COMPARE("comp0") ", " DEVS ", 'active': 'on', 'iothread': 'thread'");
    hold_some(&c);
    colo_test_del(c.t, "comp0");
    colo_test_del(c.t, "thread");
    expect_held(&c);
    colo_test_add(c.t, "'qom-type': 'iothread', 'id': 'thread'");
    colo_test_add(c.t, COMPARE("comp0") ", " DEVS ", 'active': 'on', 'iothread': 'thread'");
    hold_some(&c);
    colo_test_del(c.t, "thread");
    colo_test_assert_responsive(c.t);
    colo_test_del(c.t, "comp0");
    expect_held(&c);
    colo_test_end(c.t);
}

static void check_exit_releases(const char *options)
{
    Compare c = start(options);

    hold_some(&c);
    colo_test_quit(c.t);
    expect_held(&c);
    colo_test_end(c.t);
}

static void test_exit_releases(void)
{
    check_exit_releases(",active=on" NO_TIMEOUT);
    check_exit_releases(",active=on,iothread=thread" NO_TIMEOUT);
    check_exit_releases(",notify_dev=xen" NO_TIMEOUT);
}

static void test_add_del_under_traffic(void)
{
    Compare c = start("");
    const uint32_t segments = 4000, len = 400;
    uint32_t in_the_middle = 0;

    colo_test_del(c.t, "comp0");
    for (uint32_t round = 0; round < 100; round++) {
        GByteArray *frame;
        uint32_t next = 0;

        colo_peer_close(c.primary);
        colo_peer_close(c.secondary);
        colo_peer_close(c.out);
        c.primary = colo_test_connect(c.t, "pri", false);
        c.secondary = colo_test_connect(c.t, "sec", false);
        c.out = colo_test_connect(c.t, "out", false);
        send_stream(c.primary, 1, 0, segments, len);
        send_stream(c.secondary, 1, 0, segments, len);
        if (round % 2) {
            colo_test_add(c.t, COMPARE("comp0") ", " DEVS ", 'active': 'on', 'iothread': 'thread'");
        } else {
            colo_test_add(c.t, COMPARE("comp0") ", " DEVS ", 'active': 'on'");
        }
        colo_test_run(c.t, round % 8);
        colo_test_del(c.t, "comp0");

        /* What it has read it has released: the beginning of the stream has come, as far as that was. */
        colo_test_run(c.t, 1);
        while ((frame = colo_peer_try_take(c.out))) {
            g_autoptr(GByteArray) wanted = stream_segment(1, next++, len);

            g_assert_cmpmem(frame->data, frame->len, wanted->data, wanted->len);
            g_byte_array_unref(frame);
        }
        in_the_middle += next > 0 && next < segments;
    }
    g_test_message("%u of 100 were removed in the middle", in_the_middle);
    colo_test_end(c.t);
}

/* Two objects in one thread: they do not know of each other, and one can go. */
static void test_shared_iothread(void)
{
    ColoTest *t = colo_test_start("pri sec out pri1 sec1 out1", "-object iothread,id=thread "
                                  "-object colo-compare,id=comp0,primary_in=pri,secondary_in=sec,outdev=out,"
                                  "iothread=thread,active=on "
                                  "-object colo-compare,id=comp1,primary_in=pri1,secondary_in=sec1,outdev=out1,"
                                  "iothread=thread,active=on");
    Compare c0 = { .t = t, .primary = colo_test_connect(t, "pri", false),
                   .secondary = colo_test_connect(t, "sec", false), .out = colo_test_connect(t, "out", false) };
    Compare c1 = { .t = t, .primary = colo_test_connect(t, "pri1", false),
                   .secondary = colo_test_connect(t, "sec1", false), .out = colo_test_connect(t, "out1", false) };
    const uint32_t segments = 100, len = 1000;

    send_stream(c0.primary, 1, 0, segments, len);
    send_stream(c1.secondary, 1, 0, segments, len);
    colo_test_wait_count(t, "comp0", "held", segments);
    colo_test_wait_count(t, "comp1", "pending", segments);
    fence(&c0);
    fence(&c1);
    send_stream(c1.primary, 1, 0, segments, len);
    expect_stream(c1.out, 1, 0, segments, len);
    colo_test_wait_count(t, "comp0", "held", segments);

    colo_test_del(t, "comp0");
    expect_stream(c0.out, 1, 0, segments, len);
    send_stream(c1.primary, 2, 0, segments, len);
    send_stream(c1.secondary, 2, 0, segments, len);
    expect_stream(c1.out, 2, 0, segments, len);
    colo_test_del(t, "thread");
    send_stream(c1.primary, 3, 0, segments, len);
    send_stream(c1.secondary, 3, 0, segments, len);
    expect_stream(c1.out, 3, 0, segments, len);
    colo_test_end(t);
}

/* Each object goes by its own properties. */
static void test_two_objects(void)
{
    ColoTest *t = colo_test_start("pri sec out pri1 sec1 out1",
                                  "-object colo-compare,id=comp0,primary_in=pri,secondary_in=sec,outdev=out,"
                                  "active=on,max_queue_size=1,compare_timeout=100 "
                                  "-object colo-compare,id=comp1,primary_in=pri1,secondary_in=sec1,outdev=out1,"
                                  "active=on,max_queue_size=1000" NO_TIMEOUT);
    Compare c0 = { .t = t, .primary = colo_test_connect(t, "pri", false),
                   .secondary = colo_test_connect(t, "sec", false), .out = colo_test_connect(t, "out", false) };
    Compare c1 = { .t = t, .primary = colo_test_connect(t, "pri1", false),
                   .secondary = colo_test_connect(t, "sec1", false), .out = colo_test_connect(t, "out1", false) };
    const uint32_t segments = 3000, len = 1000;

    send_stream(c0.primary, 1, 0, segments, len);
    send_stream(c1.primary, 1, 0, segments, len);
    colo_test_wait_count(t, "comp0", "divergences.timeout", 1);
    colo_test_wait_count_at_least(t, "comp1", "held", 1000);
    g_assert_cmpuint(colo_test_count(t, "comp0", "held"), <=, 1 + READ_SIZE / len);
    g_assert_cmpuint(colo_test_count(t, "comp1", "divergences.timeout"), ==, 0);
    send_stream(c0.secondary, 1, 0, segments, len);
    send_stream(c1.secondary, 1, 0, segments, len);
    expect_stream(c0.out, 1, 0, segments, len);
    expect_stream(c1.out, 1, 0, segments, len);
    colo_test_end(t);
}

/* Packets from the guest to the comparison and back, through redirectors and local sockets, as it is put to use. */
static void test_chain(void)
{
    g_autofree char *dir = g_dir_make_tmp("colo-test-XXXXXX", NULL);
    ColoTest *t = colo_test_start("mirror sec",
                                  "-chardev socket,id=c0,path=%s/c0,server=on,wait=off "
                                  "-chardev socket,id=c0-0,path=%s/c0 "
                                  "-chardev socket,id=o0,path=%s/o0,server=on,wait=off "
                                  "-chardev socket,id=o0-0,path=%s/o0 "
                                  "-object filter-mirror,id=m0,netdev=bn0,queue=tx,outdev=mirror "
                                  "-object filter-redirector,id=r0,netdev=bn0,queue=rx,indev=o0 "
                                  "-object filter-redirector,id=r1,netdev=bn0,queue=rx,outdev=c0 "
                                  "-object colo-compare,id=comp0,primary_in=c0-0,secondary_in=sec,outdev=o0-0,"
                                  "active=on" NO_TIMEOUT, dir, dir, dir, dir);
    ColoPeer *mirror = colo_test_connect(t, "mirror", false);
    ColoPeer *secondary = colo_test_connect(t, "sec", false);
    const uint32_t segments = 5000, len = 1000;

    colo_test_wait_count(t, "m0", "connected", 1);
    send_datagram(t->host, 1, "to the guest");
    expect_datagram(t->guest, 1, "to the guest");
    expect_datagram(mirror, 1, "to the guest");

    send_stream(t->guest, 1, 0, segments, len);
    colo_test_wait_count_at_least(t, "comp0", "held", 1024);
    g_assert_true(colo_peer_is_silent(t->host));
    send_stream(secondary, 1, 0, segments, len);
    expect_stream(t->host, 1, 0, segments, len);
    colo_test_end(t);
    {
        g_autofree char *c0 = g_build_filename(dir, "c0", NULL);
        g_autofree char *o0 = g_build_filename(dir, "o0", NULL);

        unlink(c0);
        unlink(o0);
        rmdir(dir);
    }
}

/* Properties */

static void check_property(ColoTest *t, const char *property, const char *value)
{
    QDict *answer = qtest_qmp(t->qts, "{ 'execute': 'qom-get', 'arguments': { 'path': '/objects/comp0',"
                              " 'property': %s } }", property);
    g_autoptr(GString) text = NULL;

    g_assert_true(qdict_haskey(answer, "return"));
    text = qobject_to_json(qdict_get(answer, "return"));
    g_assert_cmpstr(text->str, ==, value);
    qobject_unref(answer);
}

static void test_properties(void)
{
    ColoTest *t = colo_test_start("pri sec out xen", "-object iothread,id=thread "
                                  "-object colo-compare,id=comp0,primary_in=pri,secondary_in=sec,outdev=out");

    check_property(t, "primary_in", "\"pri\"");
    check_property(t, "secondary_in", "\"sec\"");
    check_property(t, "outdev", "\"out\"");
    check_property(t, "notify_dev", "\"\"");
    check_property(t, "iothread", "\"\"");
    check_property(t, "vnet_hdr_support", "false");
    check_property(t, "active", "\"auto\"");
    check_property(t, "compare_timeout", "3000");
    check_property(t, "expired_scan_cycle", "1000");
    check_property(t, "max_queue_size", "1024");
    check_property(t, "peer_timeout", "3000");
    colo_test_del(t, "comp0");

    colo_test_add(t, COMPARE("comp0") ", " DEVS ", 'notify_dev': 'xen', 'iothread': 'thread', 'active': 'on',"
                  " 'vnet_hdr_support': true, 'compare_timeout': 4294967295, 'expired_scan_cycle': 1,"
                  " 'max_queue_size': 4294967295, 'peer_timeout': 500");
    check_property(t, "notify_dev", "\"xen\"");
    check_property(t, "iothread", "\"/objects/thread\"");
    check_property(t, "vnet_hdr_support", "true");
    check_property(t, "active", "\"on\"");
    check_property(t, "compare_timeout", "4294967295");
    check_property(t, "expired_scan_cycle", "1");
    check_property(t, "max_queue_size", "4294967295");
    check_property(t, "peer_timeout", "500");
    colo_test_end(t);
}

/* A property of a living object that must not take a value keeps the one it has. */
static void check_set_refused(ColoTest *t, const char *words, const char *property, const char *value)
{
    g_autofree char *command = g_strdup_printf("{ 'execute': 'qom-set', 'arguments': { 'path': '/objects/comp0',"
                                               " 'property': '%s', 'value': %s } }", property, value);
    QDict *answer = qtest_qmp(t->qts, command, NULL);
    g_auto(GStrv) list = g_strsplit(words, "|", 0);

    g_assert_true(qdict_haskey(answer, "error"));
    for (char **word = list; *word; word++) {
        g_assert_nonnull(strstr(qdict_get_str(qdict_get_qdict(answer, "error"), "desc"), *word));
    }
    qobject_unref(answer);
}

static void test_set_refused(void)
{
    Compare c = start("");

    check_set_refused(c.t, "colo-compare 'comp0'|compare_timeout|from 1", "compare_timeout", "0");
    check_set_refused(c.t, "colo-compare 'comp0'|compare_timeout|from 1", "compare_timeout", "4294967296");
    check_set_refused(c.t, "colo-compare 'comp0'|expired_scan_cycle|from 1", "expired_scan_cycle", "0");
    check_set_refused(c.t, "colo-compare 'comp0'|max_queue_size", "max_queue_size", "0");
    check_set_refused(c.t, "colo-compare 'comp0'|max_queue_size", "max_queue_size", "5");
    check_set_refused(c.t, "colo-compare 'comp0'|peer_timeout|from 1", "peer_timeout", "0");
    check_property(c.t, "compare_timeout", "3000");
    check_property(c.t, "expired_scan_cycle", "1000");
    check_property(c.t, "max_queue_size", "1024");
    set_timeout(&c, 17);
    check_property(c.t, "compare_timeout", "17");
    colo_test_end(c.t);
}

static void test_refused(void)
{
    ColoTest *t = colo_test_start("pri sec out xen c4", "-object iothread,id=thread -chardev null,id=null0 "
                                  "-chardev ringbuf,id=ring0 -chardev file,id=file0,path=/dev/null "
                                  "-chardev udp,id=udp0,host=127.0.0.1,port=9 "
                                  "-chardev socket,id=mux0,host=127.0.0.1,port=0,server=on,wait=off,mux=on");
    static const char *const unfit[] = { "null0", "ring0", "file0", "udp0", "mux0" };
    static const char *const devs[] = { "primary_in", "secondary_in", "outdev", "notify_dev" };
    static const char *const good[] = { "pri", "sec", "out", "xen" };

    for (int i = 0; i < ARRAY_SIZE(devs); i++) {
        g_autoptr(GString) others = g_string_new("");

        for (int j = 0; j < ARRAY_SIZE(devs); j++) {
            if (j != i) {
                g_string_append_printf(others, ", '%s': '%s'", devs[j], good[j]);
            }
        }
        if (i < 3) {
            g_autofree char *object = g_strconcat(COMPARE("comp0"), others->str, NULL);
            g_autofree char *words = g_strdup_printf("%s|missing", devs[i]);

            colo_test_refused(t, words, object, NULL);
        }
        for (int j = 0; j < ARRAY_SIZE(unfit); j++) {
            g_autofree char *object = g_strdup_printf(COMPARE("comp0") "%s, '%s': '%s'", others->str, devs[i],
                                                      unfit[j]);
            g_autofree char *words = g_strdup_printf("colo-compare 'comp0'|%s|'%s'|cannot be used|socket",
                                                     devs[i], unfit[j]);

            colo_test_refused(t, words, object, NULL);
        }
        for (int j = 0; j < ARRAY_SIZE(devs); j++) {
            g_autofree char *object = g_strdup_printf(COMPARE("comp0") "%s, '%s': '%s'", others->str, devs[i],
                                                      good[j]);
            g_autofree char *words = g_strdup_printf("colo-compare 'comp0'|%s|%s|'%s'", devs[i], devs[j], good[j]);

            if (j != i) {
                colo_test_refused(t, words, object, NULL);
            }
        }
        {
            g_autofree char *object = g_strdup_printf(COMPARE("comp0") "%s, '%s': 'nosuch'", others->str, devs[i]);
            g_autofree char *words = g_strdup_printf("colo-compare 'comp0'|%s|'nosuch'|-chardev", devs[i]);
            g_autofree char *taken = g_strdup_printf(COMPARE("comp0") "%s, '%s': 'char0'", others->str, devs[i]);
            g_autofree char *taken_words = g_strdup_printf("colo-compare 'comp0'|%s|'char0'|one user", devs[i]);

            colo_test_refused(t, words, object, NULL);
            colo_test_refused(t, taken_words, taken, NULL);
        }
    }

    colo_test_refused(t, "colo-compare 'comp0'|compare_timeout|from 1", COMPARE("comp0") ", " DEVS
                      ", 'compare_timeout': 0");
    colo_test_refused(t, "colo-compare 'comp0'|compare_timeout|from 1", COMPARE("comp0") ", " DEVS
                      ", 'compare_timeout': 4294967296");
    colo_test_refused(t, "colo-compare 'comp0'|compare_timeout|from 1", COMPARE("comp0") ", " DEVS
                      ", 'compare_timeout': -1");
    colo_test_refused(t, "colo-compare 'comp0'|expired_scan_cycle|from 1", COMPARE("comp0") ", " DEVS
                      ", 'expired_scan_cycle': 0");
    colo_test_refused(t, "expired_scan_cycle", COMPARE("comp0") ", " DEVS ", 'expired_scan_cycle': -1");
    colo_test_refused(t, "expired_scan_cycle", COMPARE("comp0") ", " DEVS ", 'expired_scan_cycle': 4294967296");
    colo_test_refused(t, "colo-compare 'comp0'|max_queue_size|from 1", COMPARE("comp0") ", " DEVS
                      ", 'max_queue_size': 0");
    colo_test_refused(t, "max_queue_size", COMPARE("comp0") ", " DEVS ", 'max_queue_size': -1");
    colo_test_refused(t, "max_queue_size", COMPARE("comp0") ", " DEVS ", 'max_queue_size': 4294967296");
    colo_test_refused(t, "max_queue_size", COMPARE("comp0") ", " DEVS ", 'max_queue_size': 'many'");
    colo_test_refused(t, "active|maybe", COMPARE("comp0") ", " DEVS ", 'active': 'maybe'");
    colo_test_refused(t, "nosuch", COMPARE("comp0") ", " DEVS ", 'iothread': 'nosuch'");
    colo_test_refused(t, "iothread", COMPARE("comp0") ", " DEVS ", 'iothread': 'dump'");
    colo_test_refused(t, "netdev", COMPARE("comp0") ", " DEVS ", 'netdev': 'bn0'");

    /* Nothing of all that is in the way of what is right. */
    colo_test_add(t, COMPARE("comp0") ", " DEVS ", 'notify_dev': 'xen', 'iothread': 'thread'");
    colo_test_refused(t, "comp0", COMPARE("comp0") ", 'primary_in': 'c4', 'secondary_in': 'c4', 'outdev': 'c4'");
    colo_test_refused(t, "colo-compare 'comp1'|primary_in|'xen'|one user",
                      COMPARE("comp1") ", 'primary_in': 'xen', 'secondary_in': 'c4', 'outdev': 'sec'");
    colo_test_refused(t, "filter-mirror 'f0'|outdev|'out'|one user",
                      "'qom-type': 'filter-mirror', 'id': 'f0', 'netdev': 'bn0', 'outdev': 'out'");
    colo_test_del(t, "comp0");
    colo_test_add(t, COMPARE("comp1") ", 'primary_in': 'xen', 'secondary_in': 'c4', 'outdev': 'sec'");
    colo_test_end(t);
}

static void test_refused_at_start(void)
{
    static const char chardevs[] = "-chardev socket,id=pri,host=127.0.0.1,port=0,server=on,wait=off "
                                   "-chardev socket,id=sec,host=127.0.0.1,port=0,server=on,wait=off "
                                   "-chardev socket,id=out,host=127.0.0.1,port=0,server=on,wait=off "
                                   "-chardev null,id=null0";
    static const struct {
        const char *words;
        const char *object;
    } cases[] = {
        { "primary_in|missing", "secondary_in=sec,outdev=out" },
        { "secondary_in|missing", "primary_in=pri,outdev=out" },
        { "outdev|missing", "primary_in=pri,secondary_in=sec" },
        { "colo-compare 'comp0'|primary_in|'nosuch'", "primary_in=nosuch,secondary_in=sec,outdev=out" },
        { "colo-compare 'comp0'|outdev|'nosuch'", "primary_in=pri,secondary_in=sec,outdev=nosuch" },
        { "colo-compare 'comp0'|notify_dev|'nosuch'", "primary_in=pri,secondary_in=sec,outdev=out,notify_dev=nosuch" },
        { "colo-compare 'comp0'|primary_in|secondary_in|'pri'", "primary_in=pri,secondary_in=pri,outdev=out" },
        { "colo-compare 'comp0'|outdev|'null0'|socket", "primary_in=pri,secondary_in=sec,outdev=null0" },
        { "colo-compare 'comp0'|compare_timeout|from 1",
          "primary_in=pri,secondary_in=sec,outdev=out,compare_timeout=0" },
        { "colo-compare 'comp0'|max_queue_size|from 1",
          "primary_in=pri,secondary_in=sec,outdev=out,max_queue_size=0" },
        { "colo-compare 'comp0'|expired_scan_cycle|from 1",
          "primary_in=pri,secondary_in=sec,outdev=out,expired_scan_cycle=0" },
        { "max_queue_size", "primary_in=pri,secondary_in=sec,outdev=out,max_queue_size=-1" },
        { "peer_timeout|from 1", "primary_in=pri,secondary_in=sec,outdev=out,peer_timeout=0" },
        { "nosuch", "primary_in=pri,secondary_in=sec,outdev=out,iothread=nosuch" },
        { "active|maybe", "primary_in=pri,secondary_in=sec,outdev=out,active=maybe" },
    };

    for (int i = 0; i < ARRAY_SIZE(cases); i++) {
        g_autofree char *arguments = g_strdup_printf("%s -object colo-compare,id=comp0,%s", chardevs,
                                                     cases[i].object);

        colo_test_refused_at_start(cases[i].words, arguments);
    }
}

/* query-colo-proxy, and events */

/* The event of a divergence comes, and tells that.  @offset: -1 for none. */
static void expect_divergence(Compare *c, const char *reason, const char *flow, int64_t offset, int64_t count)
{
    QDict *event = qtest_qmp_eventwait_ref(c->t->qts, "COLO_PROXY_DIVERGENCE");
    QDict *data = qdict_get_qdict(event, "data");

    g_assert_cmpstr(qdict_get_str(data, "id"), ==, "comp0");
    g_assert_cmpstr(qdict_get_str(data, "reason"), ==, reason);
    g_assert_cmpstr(qdict_get_str(data, "flow"), ==, flow);
    g_assert_cmpint(qdict_get_try_int(data, "offset", -1), ==, offset);
    g_assert_cmpint(qdict_get_int(data, "count"), ==, count);
    qobject_unref(event);
}

/* However often they diverge, one event a second tells of it, and of the last. */
static void test_divergence_events(void)
{
    Compare c = start(",notify_dev=xen" NO_TIMEOUT);
    const uint32_t first = 0xfffffff0;      /* the stream crosses the wrap */

    send_segment(c.primary, 1, first, 1, SYN | ACK, "");
    send_segment(c.secondary, 1, first + 1000, 1, SYN | ACK, "");
    expect_segment(c.out, 1, first, 1, SYN | ACK, "");
    send_segment(c.primary, 1, first + 1, 1, ACK, "the same, and then: heads");
    send_segment(c.secondary, 1, first + 1, 1, ACK, "the same, and then: tails");
    expect_text(c.xen, ASK);
    expect_divergence(&c, "payload", "tcp 10.0.0.2:80 > 10.1.0.1:10001", 20, 1);
    checkpoint(&c);
    for (int i = 2; i <= 5; i++) {
        send_datagram(c.primary, i, "heads");
        send_datagram(c.secondary, i, "tails");
        expect_text(c.xen, ASK);
        checkpoint(&c);
    }
    qtest_clock_step(c.t->qts, 1000 * 1000 * 1000LL);       /* the monitor's clock, under qtest */
    expect_divergence(&c, "payload", "udp 10.0.0.2:53 > 10.1.0.1:10005", -1, 5);
    colo_test_end(c.t);
}

static void test_query(void)
{
    Compare c = start(",notify_dev=xen" NO_TIMEOUT);
    const uint32_t header = 14 + 20 + 8;
    QDict *info;
    g_autofree char *text = NULL;

    info = colo_test_query(c.t, "comp0");
    g_assert_cmpstr(qdict_get_str(info, "type"), ==, "colo-compare");
    g_assert_false(qdict_haskey(info, "last-reason"));
    g_assert_false(qdict_haskey(info, "last-flow"));
    g_assert_true(qlist_empty(qdict_get_qlist(info, "divergences")));
    qobject_unref(info);

    send_datagram(c.primary, 1, "equal");
    send_datagram(c.secondary, 1, "equal");
    expect_datagram(c.out, 1, "equal");
    for (int i = 0; i < 5; i++) {
        send_datagram(c.primary, 2, "heads");
    }
    send_datagram(c.secondary, 2, "tails");
    send_datagram(c.secondary, 3, "alone");
    expect_text(c.xen, ASK);
    wait_count(&c, "pending", 2);
    g_assert_cmpuint(count(&c, "comparing"), ==, 1);
    g_assert_cmpuint(count(&c, "primary.packets"), ==, 6);
    g_assert_cmpuint(count(&c, "primary.bytes"), ==, 6 * (header + 5));
    g_assert_cmpuint(count(&c, "secondary.packets"), ==, 3);
    g_assert_cmpuint(count(&c, "secondary.bytes"), ==, 3 * (header + 5));
    g_assert_cmpuint(count(&c, "released.packets"), ==, 1);
    g_assert_cmpuint(count(&c, "released.bytes"), ==, header + 5);
    g_assert_cmpuint(count(&c, "discarded.packets"), ==, 1);
    g_assert_cmpuint(count(&c, "held"), ==, 5);
    g_assert_cmpuint(count(&c, "held-bytes"), ==, 5 * (header + 5));
    g_assert_cmpuint(count(&c, "held-max"), ==, 5);
    g_assert_cmpuint(count(&c, "queued"), ==, 0);
    g_assert_cmpuint(count(&c, "flows"), ==, 3);
    g_assert_cmpuint(count(&c, "checkpoints"), ==, 0);
    g_assert_cmpuint(count(&c, "divergences.payload"), ==, 1);
    info = colo_test_query(c.t, "comp0");
    g_assert_cmpstr(qdict_get_str(info, "last-reason"), ==, "payload");
    g_assert_cmpstr(qdict_get_str(info, "last-flow"), ==, "udp 10.0.0.2:53 > 10.1.0.1:10002");
    qobject_unref(info);

    text = qtest_hmp(c.t->qts, "info colo-proxy");
    g_assert_nonnull(strstr(text, "colo-compare 'comp0': comparing"));
    g_assert_true(g_regex_match_simple("primary +6 packets +282 bytes", text, 0, 0));
    g_assert_true(g_regex_match_simple("held +5 packets +235 bytes, at most 5 packets", text, 0, 0));
    g_assert_true(g_regex_match_simple("payload +1\\r?\\n", text, 0, 0));
    g_assert_nonnull(strstr(text, "last: payload in udp 10.0.0.2:53 > 10.1.0.1:10002"));
    g_assert_true(g_regex_match_simple("held for( +[0-9]+\\.[0-9]{3} ms (p50|p99|at most)){3}", text, 0, 0));
    expect_divergence(&c, "payload", "udp 10.0.0.2:53 > 10.1.0.1:10002", -1, 1);
    g_assert_cmpuint(count(&c, "held-bytes-max"), ==, count(&c, "held-bytes"));

    checkpoint(&c);
    g_assert_cmpuint(count(&c, "hold-times.max"), >, 0);
    g_assert_cmpuint(count(&c, "released.packets"), ==, 6);
    g_assert_cmpuint(count(&c, "discarded.packets"), ==, 3);
    g_assert_cmpuint(count(&c, "held"), ==, 0);
    g_assert_cmpuint(count(&c, "held-bytes"), ==, 0);
    g_assert_cmpuint(count(&c, "held-max"), ==, 5);
    g_assert_cmpuint(count(&c, "pending"), ==, 0);
    colo_test_end(c.t);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    qtest_add_func("/colo/compare/pass-through", test_pass_through);
    qtest_add_func("/colo/compare/splits", test_splits);
    qtest_add_func("/colo/compare/bad-lengths", test_bad_lengths);
    qtest_add_func("/colo/compare/tcp-equal", test_tcp_equal);
    qtest_add_func("/colo/compare/tcp-different", test_tcp_different);
    qtest_add_func("/colo/compare/tcp-reasons", test_tcp_reasons);
    qtest_add_func("/colo/compare/udp", test_udp);
    qtest_add_func("/colo/compare/arp", test_arp);
    qtest_add_func("/colo/compare/deadline", test_deadline);
    qtest_add_func("/colo/compare/deadline-changes", test_deadline_changes);
    qtest_add_func("/colo/compare/backpressure", test_backpressure);
    qtest_add_func("/colo/compare/long-flow", test_long_flow);
    qtest_add_func("/colo/compare/few-wakeups", test_few_wakeups);
    qtest_add_func("/colo/compare/both-full", test_both_full);
    qtest_add_func("/colo/compare/deaf-outdev", test_deaf_outdev);
    qtest_add_func("/colo/compare/many-flows", test_many_flows);
    qtest_add_func("/colo/compare/primary-reconnects", test_primary_reconnects);
    qtest_add_func("/colo/compare/secondary-reconnects", test_secondary_reconnects);
    qtest_add_func("/colo/compare/outdev-reconnects", test_outdev_reconnects);
    qtest_add_func("/colo/compare/notify-reconnects", test_xen_reconnects);
    qtest_add_func("/colo/compare/notify-protocol", test_notify_protocol);
    qtest_add_func("/colo/compare/notify-vnet", test_notify_vnet);
    qtest_add_func("/colo/compare/epoch-marks", test_epoch_marks);
    qtest_add_func("/colo/compare/epoch-after-reconnecting", test_epoch_after_reconnecting);
    qtest_add_func("/colo/compare/epoch-that-cannot-be", test_epoch_that_cannot_be);
    qtest_add_func("/colo/compare/del-releases", test_del_releases);
    qtest_add_func("/colo/compare/exit-releases", test_exit_releases);
    qtest_add_func("/colo/compare/add-del-under-traffic", test_add_del_under_traffic);
    qtest_add_func("/colo/compare/shared-iothread", test_shared_iothread);
    qtest_add_func("/colo/compare/two-objects", test_two_objects);
    qtest_add_func("/colo/compare/chain", test_chain);
    qtest_add_func("/colo/compare/properties", test_properties);
    qtest_add_func("/colo/compare/set-refused", test_set_refused);
    qtest_add_func("/colo/compare/refused", test_refused);
    qtest_add_func("/colo/compare/refused-at-start", test_refused_at_start);
    qtest_add_func("/colo/compare/query", test_query);
    qtest_add_func("/colo/compare/divergence-events", test_divergence_events);
    return g_test_run();
}
