/*
 * Tests of colo-proxy in a QEMU without a guest: the test is the other node, and speaks what docs/protocol.rst says
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "colo-test-util.h"
#include "net/colo-series.h"
#include "qemu/bswap.h"

/* Bytes of packets that may be under way, each way; so much waits at least for a node that does not read. */
#define CREDIT (16 * 1024 * 1024)

#define BIG 60000

/* What is longer than any test takes: nothing is to happen because of the time. */
#define NEVER 3600000

/* The types of records. */
enum {
    HELLO = 1,
    GOODBYE = 2,
    PACKET = 3,
    EPOCH = 4,
    CREDITS = 5,
    HEARTBEAT = 6,
};

/* Roles in a hello. */
#define IS_PRIMARY "\0"
#define IS_SECONDARY "\1"

/* Records as they are on the wire; what is given is one character, or as many as there are. */
#define HELLO_BODY(magic, latest, earliest, role) \
    magic "\0" latest "\0" earliest role "\0\0\0" "\0\0\0\0\xff\xff\xff\xff" "instance"
#define HELLO_RECORD(magic, latest, earliest, role) "\0\0\0\x20\1" HELLO_BODY(magic, latest, earliest, role)
#define GOOD_HELLO HELLO_RECORD("COLOPRXY", "\1", "\1", IS_SECONDARY)
#define PRIMARY_HELLO HELLO_RECORD("COLOPRXY", "\1", "\1", IS_PRIMARY)
#define HEARTBEAT_RECORD "\0\0\0\0\6"
#define EPOCH_RECORD "\0\0\0\x08\4\0\0\0\0\0\0\0\0"
#define CREDIT_RECORD "\0\0\0\x08\5\0\0\0\0\0\0\0\1"
#define PACKET_RECORD "\0\0\0\x11\3\0" "sixteen letters!"

/* A string with zeros in it, and its length. */
#define BYTES(text) text, sizeof(text) - 1

/* Objects */

static char *path_of(ColoTest *t, const char *name)
{
    return g_build_filename(t->dir, name, NULL);
}

/* 'f0' on bn0, whose address is the socket "node" in the test's directory. */
static void add(ColoTest *t, const char *mode, uint32_t heartbeat, uint32_t heartbeat_timeout)
{
    g_autofree char *path = path_of(t, "node");

    colo_test_add(t, "'qom-type': 'colo-proxy', 'id': 'f0', 'netdev': 'bn0', 'mode': %s, 'addr': %s,"
                  " 'heartbeat': %u, 'heartbeat_timeout': %u", mode, path, heartbeat, heartbeat_timeout);
}

static ColoTest *start_primary(void)
{
    ColoTest *t = colo_test_start("", "%s", "");

    add(t, "primary", NEVER, 2 * NEVER);
    return t;
}

static void expect_message(ColoTest *t, const char *text)
{
    colo_test_expect_message(t, "*warning: colo-proxy 'f0': *%s*", text);
}

static void expect_lost(ColoTest *t, const char *reason)
{
    QDict *event = qtest_qmp_eventwait_ref(t->qts, "COLO_PROXY_PEER_LOST");
    QDict *data = qdict_get_qdict(event, "data");

    g_assert_cmpstr(qdict_get_str(data, "id"), ==, "f0");
    g_assert_cmpstr(qdict_get_str(data, "reason"), ==, reason);
    qobject_unref(event);
}

/* After anything that QMP has answered. */
static void assert_no_event(ColoTest *t)
{
    g_assert_null(qtest_qmp_event_ref(t->qts, "COLO_PROXY_PEER_LOST"));
}

static void wait_connected(ColoTest *t, bool connected)
{
    colo_test_wait_count(t, "f0", "connected", connected);
}

/* Records */

static void append_record(GByteArray *bytes, uint8_t type, const void *body, uint32_t size)
{
    uint8_t header[5];

    stl_be_p(header, size);
    header[4] = type;
    g_byte_array_append(bytes, header, sizeof(header));
    g_byte_array_append(bytes, body, size);
}

static void send_record(ColoPeer *p, uint8_t type, const void *body, uint32_t size)
{
    append_record(p->out, type, body, size);
}

static void send_hello(ColoPeer *p, bool secondary, uint64_t credit)
{
    uint8_t body[32] = "COLOPRXY\0\1\0\1";
    static uint64_t instance;

    body[12] = secondary;
    stq_be_p(body + 16, credit);
    stq_be_p(body + 24, ++instance);
    send_record(p, HELLO, body, sizeof(body));
}

static void send_credit(ColoPeer *p, uint64_t credit)
{
    uint8_t body[8];

    stq_be_p(body, credit);
    send_record(p, CREDITS, body, sizeof(body));
}

static void send_packet(ColoPeer *p, const void *frame, uint32_t size)
{
    g_autoptr(GByteArray) body = g_byte_array_append(g_byte_array_new(), (const uint8_t *)"", 1);

    g_byte_array_append(body, frame, size);
    send_record(p, PACKET, body->data, body->len);
}

/* The record that has come, its type as first byte; NULL: none, or not all of it. */
static GByteArray *try_take_record(ColoPeer *p)
{
    const uint8_t *at = p->in->data + p->taken;
    size_t come = p->in->len - p->taken;
    uint32_t size;

    if (come < 5) {
        return NULL;
    }
    size = ldl_be_p(at);
    g_assert_cmpuint(size, <=, 1 + 20 + COLO_TEST_LONGEST);
    if (come < 5 + size) {
        return NULL;
    }
    p->taken += 5 + size;
    return g_byte_array_append(g_byte_array_new(), at + 4, 1 + size);
}

/* The same, of those that are not about the connection itself. */
static GByteArray *try_take_content(ColoPeer *p)
{
    GByteArray *record;

    while ((record = try_take_record(p))) {
        if (record->data[0] != HEARTBEAT && record->data[0] != CREDITS) {
            return record;
        }
        g_byte_array_unref(record);
    }
    return NULL;
}

typedef struct {
    ColoPeer *peer;
    GByteArray *record;
} Taking;

static bool has_taken(void *opaque)
{
    Taking *taking = opaque;
    bool closed = taking->peer->closed;

    taking->record = try_take_content(taking->peer);
    return taking->record || closed;
}

/* Waits for a record that is not about the connection itself; NULL: it is closed, and none has come. */
static GByteArray *take_content(ColoPeer *p)
{
    Taking taking = { .peer = p };

    colo_test_wait(p->test, has_taken, &taking, "a record");
    return taking.record;
}

static void expect_record(ColoPeer *p, uint8_t type, const void *body, uint32_t size)
{
    g_autoptr(GByteArray) record = take_content(p);

    g_assert_nonnull(record);
    g_assert_cmpuint(record->data[0], ==, type);
    g_assert_cmpmem(record->data + 1, record->len - 1, body, size);
}

/* Returns: the instance it tells. */
static uint64_t expect_hello(ColoPeer *p, bool secondary)
{
    g_autoptr(GByteArray) record = take_content(p);
    uint8_t body[24] = "COLOPRXY\0\1\0\1";

    body[12] = secondary;
    stq_be_p(body + 16, CREDIT);
    g_assert_nonnull(record);
    g_assert_cmpuint(record->data[0], ==, HELLO);
    g_assert_cmpuint(record->len, ==, 1 + 32);
    g_assert_cmpmem(record->data + 1, sizeof(body), body, sizeof(body));
    return ldq_be_p(record->data + 1 + 24);
}

static void expect_packet(ColoPeer *p, const GByteArray *frame)
{
    g_autoptr(GByteArray) body = g_byte_array_append(g_byte_array_new(), (const uint8_t *)"", 1);

    g_byte_array_append(body, frame->data, frame->len);
    expect_record(p, PACKET, body->data, body->len);
}

/* QEMU closes the connection, after saying something like @words if that is not NULL, and nothing else. */
static void expect_closed(ColoPeer *p, const char *words)
{
    g_autoptr(GByteArray) goodbye = take_content(p);

    if (words) {
        g_autofree char *text = NULL;

        g_assert_nonnull(goodbye);
        g_assert_cmpuint(goodbye->data[0], ==, GOODBYE);
        text = g_strndup((const char *)goodbye->data + 1, goodbye->len - 1);
        if (!strstr(text, words)) {
            g_assert_cmpstr(text, ==, words);
        }
        g_assert_null(take_content(p));
    } else {
        g_assert_null(goodbye);
    }
    g_assert_true(p->closed);
    g_assert_true(colo_peer_is_silent(p));
    colo_peer_close(p);
}

/* Nothing of content has come. */
static bool is_quiet(ColoPeer *p)
{
    g_autoptr(GByteArray) record = NULL;

    colo_peer_is_silent(p);
    record = try_take_content(p);
    return !record && colo_peer_is_silent(p);
}

/* A peer that does everything right. */
static ColoPeer *connect_peer(ColoTest *t)
{
    ColoPeer *p = colo_test_connect(t, "node", false);

    expect_hello(p, false);
    send_hello(p, true, UINT64_MAX);
    wait_connected(t, true);
    return p;
}

/* A secondary without COLO has loaded no checkpoint, and says so. */
static void expect_no_epoch(ColoPeer *p)
{
    expect_record(p, EPOCH, "\0\0\0\0\0\0\0", 8);
}

static ColoPeer *accept_peer(ColoTest *t, int listener)
{
    ColoPeer *p = colo_test_accept(t, listener);

    expect_hello(p, true);
    send_hello(p, false, UINT64_MAX);
    expect_no_epoch(p);
    wait_connected(t, true);
    return p;
}

/* It goes, in order. */
static void dismiss_peer(ColoTest *t, ColoPeer *p)
{
    expect_message(t, "the other end says: done");
    send_record(p, GOODBYE, "done", 4);
    expect_closed(p, NULL);
    expect_lost(t, "closed");
    wait_connected(t, false);
}

/* Traffic: numbered packets */

static void send_numbers(ColoPeer *p, uint32_t from, uint32_t to, uint32_t size)
{
    for (uint32_t i = from; i < to; i++) {
        g_autoptr(GByteArray) bytes = colo_test_bytes(i, size);

        colo_peer_send_frame(p, bytes);
    }
}

static void expect_numbers(ColoPeer *p, uint32_t from, uint32_t to, uint32_t size)
{
    for (uint32_t i = from; i < to; i++) {
        g_autoptr(GByteArray) bytes = colo_test_bytes(i, size);

        colo_peer_expect_frame(p, bytes);
    }
}

static void send_packets(ColoPeer *p, uint32_t from, uint32_t to, uint32_t size)
{
    for (uint32_t i = from; i < to; i++) {
        g_autoptr(GByteArray) bytes = colo_test_bytes(i, size);

        send_packet(p, bytes->data, bytes->len);
    }
}

static void expect_packets(ColoPeer *p, uint32_t from, uint32_t to, uint32_t size)
{
    for (uint32_t i = from; i < to; i++) {
        g_autoptr(GByteArray) bytes = colo_test_bytes(i, size);

        expect_packet(p, bytes);
    }
}

/* From the host to the guest, and from the guest to the host. */
static void pass_numbers(ColoTest *t, uint32_t from, uint32_t to, uint32_t size)
{
    send_numbers(t->host, from, to, size);
    expect_numbers(t->guest, from, to, size);
    send_numbers(t->guest, from, to, size);
    expect_numbers(t->host, from, to, size);
}

/* Sends @bytes so that QEMU reads them in pieces. */
static void send_in_pieces(ColoPeer *p, const GByteArray *bytes, size_t piece)
{
    for (size_t at = 0; at < bytes->len; at += piece) {
        colo_peer_send_bytes(p, bytes->data + at, MIN(piece, bytes->len - at));
        colo_peer_flush(p);
    }
}

/* The primary */

static void check_primary(ColoTest *t, ColoPeer *p)
{
    uint64_t packets = 0;

    for (uint32_t size = 4; size <= COLO_TEST_LONGEST; size = size < 1000 ? size * 3 : size + 17157) {
        pass_numbers(t, size, size + 1, size);
        expect_packets(p, size, size + 1, size);
        packets++;
    }
    send_numbers(t->host, 0, 1000, 100);
    expect_numbers(t->guest, 0, 1000, 100);
    expect_packets(p, 0, 1000, 100);
    g_assert_cmpuint(colo_test_count(t, "f0", "input.packets"), ==, packets + 1000);
    g_assert_cmpuint(colo_test_count(t, "f0", "sent.packets"), ==, packets + 1000);
    g_assert_cmpuint(colo_test_count(t, "f0", "output.packets"), ==, packets);
    g_assert_cmpuint(colo_test_count(t, "f0", "discarded.packets"), ==, 0);

    /* What the secondary's guest sends goes nowhere. */
    send_packets(p, 0, 100, 100);
    send_record(p, EPOCH, "\0\0\0\0\0\0\0\0", 8);
    colo_test_wait_count(t, "f0", "received.packets", 100);
    g_assert_cmpuint(colo_test_count(t, "f0", "received.bytes"), ==, 100 * 100);
    g_assert_true(is_quiet(p));
    g_assert_true(colo_peer_is_silent(t->host));
    g_assert_true(colo_peer_is_silent(t->guest));
    assert_no_event(t);
}

static void test_primary_mirrors(void)
{
    ColoTest *t = start_primary();
    ColoPeer *p = connect_peer(t);

    check_primary(t, p);
    dismiss_peer(t, p);
    colo_test_end(t);
}

static void test_primary_tcp(void)
{
    ColoTest *t = colo_test_start("", "%s", "");
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    g_autofree char *addr = NULL;
    ColoPeer *p;

    g_assert_cmpint(bind(fd, (struct sockaddr *)&address, len), ==, 0);
    g_assert_cmpint(getsockname(fd, (struct sockaddr *)&address, &len), ==, 0);
    addr = g_strdup_printf("127.0.0.1:%d", ntohs(address.sin_port));
    close(fd);
    colo_test_add(t, "'qom-type': 'colo-proxy', 'id': 'f0', 'netdev': 'bn0', 'mode': 'primary', 'addr': %s", addr);
    fd = socket(AF_INET, SOCK_STREAM, 0);
    g_assert_cmpint(connect(fd, (struct sockaddr *)&address, len), ==, 0);
    p = colo_test_adopt(t, fd);
    expect_hello(p, false);
    send_hello(p, true, UINT64_MAX);
    wait_connected(t, true);
    send_numbers(t->host, 0, 100, 100);
    expect_numbers(t->guest, 0, 100, 100);
    expect_packets(p, 0, 100, 100);
    dismiss_peer(t, p);
    colo_test_end(t);
}

/* Nobody is there: everything passes, and is counted as not mirrored. */
static void test_primary_alone(void)
{
    ColoTest *t = start_primary();
    ColoPeer *p;

    wait_connected(t, false);
    pass_numbers(t, 0, 100, 100);
    g_assert_cmpuint(colo_test_count(t, "f0", "discarded.packets"), ==, 100);

    /* Somebody is, but has said nothing yet. */
    p = colo_test_connect(t, "node", false);
    expect_hello(p, false);
    pass_numbers(t, 0, 100, 100);
    g_assert_true(is_quiet(p));
    send_hello(p, true, UINT64_MAX);
    wait_connected(t, true);
    g_assert_cmpuint(colo_test_count(t, "f0", "discarded.packets"), ==, 200);
    g_assert_cmpuint(colo_test_count(t, "f0", "sent.packets"), ==, 0);
    send_numbers(t->host, 0, 10, 100);
    expect_packets(p, 0, 10, 100);
    expect_numbers(t->guest, 0, 10, 100);
    dismiss_peer(t, p);
    pass_numbers(t, 200, 300, 100);
    colo_test_end(t);
}

/* A hello of a later version is longer, and is good as long as this one is spoken, too. */
static void test_primary_later_version(void)
{
    ColoTest *t = start_primary();
    ColoPeer *p = colo_test_connect(t, "node", false);
    g_autoptr(GByteArray) body = g_byte_array_new();

    g_byte_array_append(body, (const uint8_t *)BYTES(HELLO_BODY("COLOPRXY", "\x63", "\1", IS_SECONDARY)));
    g_byte_array_set_size(body, 256);
    send_record(p, HELLO, body->data, body->len);
    expect_hello(p, false);
    wait_connected(t, true);
    dismiss_peer(t, p);
    colo_test_end(t);
}

/* No more is sent than there is credit for; what that is about is the total. */
static void test_primary_credit(void)
{
    ColoTest *t = start_primary();
    ColoPeer *p = colo_test_connect(t, "node", false);

    send_hello(p, true, 950);
    expect_hello(p, false);
    wait_connected(t, true);
    expect_message(t, "does not keep up");
    pass_numbers(t, 0, 20, 100);
    expect_packets(p, 0, 10, 100);
    g_assert_cmpuint(colo_test_count(t, "f0", "sent.packets"), ==, 10);
    g_assert_cmpuint(colo_test_count(t, "f0", "discarded.packets"), ==, 10);

    /* Less, and as much, change nothing. */
    send_credit(p, 10);
    send_credit(p, 950);
    colo_peer_flush(p);
    pass_numbers(t, 20, 25, 100);
    g_assert_true(is_quiet(p));
    send_credit(p, 1001);
    colo_peer_flush(p);
    pass_numbers(t, 25, 30, 100);
    expect_packets(p, 25, 26, 100);
    g_assert_true(is_quiet(p));
    send_credit(p, UINT64_MAX);
    colo_peer_flush(p);
    pass_numbers(t, 30, 60, 100);
    expect_packets(p, 30, 60, 100);
    dismiss_peer(t, p);
    colo_test_end(t);
}

/* The same for one that gives all credit there is and reads nothing. */
static void test_primary_deaf_peer(void)
{
    ColoTest *t = start_primary();
    ColoPeer *p = connect_peer(t);
    uint64_t sent;

    expect_message(t, "does not keep up");
    p->deaf = true;
    for (uint32_t i = 0; i < 400; i += 10) {
        send_numbers(t->host, i, i + 10, BIG);
        expect_numbers(t->guest, i, i + 10, BIG);
        colo_test_assert_responsive(t);
    }
    sent = colo_test_count(t, "f0", "sent.packets");
    g_assert_cmpuint(sent, >=, CREDIT / BIG);
    g_assert_cmpuint(sent + colo_test_count(t, "f0", "discarded.packets"), ==, 400);
    g_assert_cmpuint(colo_test_count(t, "f0", "discarded.packets"), >, 50);

    p->deaf = false;
    expect_packets(p, 0, sent, BIG);
    g_assert_true(is_quiet(p));
    send_numbers(t->host, 400, 410, 100);
    expect_packets(p, 400, 410, 100);
    expect_numbers(t->guest, 400, 410, 100);
    dismiss_peer(t, p);
    colo_test_end(t);
}

/* Credit comes back for what has been taken, long before it is used up. */
static void test_primary_gives_credit(void)
{
    ColoTest *t = start_primary();
    ColoPeer *p = connect_peer(t);
    uint64_t granted = CREDIT;
    uint64_t sent = 0;
    GByteArray *record;

    for (uint32_t i = 0; sent < 3 * CREDIT; i += 20) {
        send_packets(p, i, i + 20, BIG);
        sent += 20 * BIG;
        colo_peer_flush(p);
        colo_test_wait_count(t, "f0", "received.packets", i + 20);
        colo_test_run(t, 1);
        while ((record = try_take_record(p))) {
            if (record->data[0] == HEARTBEAT) {
                g_byte_array_unref(record);
                continue;
            }
            g_assert_cmpuint(record->data[0], ==, CREDITS);
            g_assert_cmpuint(record->len, ==, 1 + 8);
            g_assert_cmpuint(ldq_be_p(record->data + 1), >, granted);
            granted = ldq_be_p(record->data + 1);
            g_assert_cmpuint(granted, <=, sent + CREDIT);
            g_byte_array_unref(record);
        }
        g_assert_cmpuint(granted, >, sent + CREDIT / 2);
    }
    dismiss_peer(t, p);
    colo_test_end(t);
}

/* Everything that a peer says, cut everywhere. */
static void test_primary_splits(void)
{
    ColoTest *t = start_primary();
    g_autoptr(GByteArray) bytes = g_byte_array_new();
    g_autoptr(GByteArray) packet = colo_test_bytes(0, COLO_TEST_LONGEST);
    uint64_t packets = 0;
    ColoPeer *p;

    g_byte_array_append(bytes, (const uint8_t *)BYTES(GOOD_HELLO PACKET_RECORD HEARTBEAT_RECORD EPOCH_RECORD CREDIT_RECORD
                                                      HEARTBEAT_RECORD PACKET_RECORD));
    for (size_t piece = 1; piece <= bytes->len; piece++) {
        p = colo_test_connect(t, "node", false);
        expect_hello(p, false);
        send_in_pieces(p, bytes, piece);
        packets += 2;
        colo_test_wait_count(t, "f0", "received.packets", packets);
        wait_connected(t, true);
        dismiss_peer(t, p);
    }

    /* The longest packets, many at once, in pieces of many sizes. */
    g_byte_array_set_size(bytes, 0);
    for (int i = 0; i < 20; i++) {
        g_autoptr(GByteArray) body = g_byte_array_append(g_byte_array_new(), (const uint8_t *)"", 1);

        g_byte_array_append(body, packet->data, packet->len);
        append_record(bytes, PACKET, body->data, body->len);
        append_record(bytes, HEARTBEAT, NULL, 0);
    }
    p = connect_peer(t);
    for (size_t piece = 5000; piece < 20000000; piece *= 3) {
        send_in_pieces(p, bytes, piece);
        packets += 20;
        colo_test_wait_count(t, "f0", "received.packets", packets);
    }
    g_assert_true(is_quiet(p));
    dismiss_peer(t, p);
    colo_test_end(t);
}

/* Peers that do wrong */

typedef struct {
    const char *bytes;
    size_t len;
    const char *words;      /* that QEMU prints */
} Wrong;

#define NO_PROTOCOL "does not speak colo-proxy's protocol"

static const Wrong wrong_hellos[] = {
    { BYTES("GET / HTTP/1.1\r\n\r\n"), NO_PROTOCOL },
    { BYTES("\x16\3\1\2\0\1\0\1\xfc\3\3"), NO_PROTOCOL },
    { BYTES("\0\0\0\0\0"), NO_PROTOCOL },
    { BYTES("\0\0\0\0\x7f"), NO_PROTOCOL },
    { BYTES("\xff\xff\xff\xff\3"), NO_PROTOCOL },
    { BYTES("\0\0\1\1\1"), NO_PROTOCOL },
    { BYTES("\0\0\0\0\1"), NO_PROTOCOL },
    { BYTES("\0\0\0\x1f\1COLOPRXY\0\1\0\1\1\0\0\0\0\0\0\0\0\0\0\0instanc"), NO_PROTOCOL },
    { BYTES(HELLO_RECORD("COLOPROX", "\1", "\1", IS_SECONDARY)), NO_PROTOCOL },
    { BYTES(HELLO_RECORD("coloprxy", "\1", "\1", IS_SECONDARY)), NO_PROTOCOL },
    { BYTES(HELLO_RECORD("COLOPRXY", "\1", "\1", "\2")), NO_PROTOCOL },
    { BYTES(HELLO_RECORD("COLOPRXY", "\3", "\2", IS_SECONDARY)), "version 1 *2 to 3" },
    { BYTES(HELLO_RECORD("COLOPRXY", "\0", "\0", IS_SECONDARY)), "version 1 *0 to 0" },
    { BYTES(HELLO_RECORD("COLOPRXY", "\1", "\1", IS_PRIMARY)), "both ends have mode=primary" },
    { BYTES(PACKET_RECORD), "something came before the hello" },
    { BYTES(HEARTBEAT_RECORD), "something came before the hello" },
    { BYTES(EPOCH_RECORD), "something came before the hello" },
    { BYTES(CREDIT_RECORD), "something came before the hello" },
};

static const Wrong wrong_records[] = {
    { BYTES("\0\0\0\0\0"), "a record came of type 0 and 0 bytes" },
    { BYTES("\0\0\0\0\7"), "a record came of type 7 and 0 bytes" },
    { BYTES("GET / HTTP/1.1\r\n\r\n"), "a record came of type 47 and 1195725856 bytes" },
    { BYTES("\0\0\0\1\6x"), "a record came of type 6 and 1 bytes" },
    { BYTES("\0\0\0\7\5"), "a record came of type 5 and 7 bytes" },
    { BYTES("\0\0\0\x09\4"), "a record came of type 4 and 9 bytes" },
    { BYTES("\0\0\0\xc9\2"), "a record came of type 2 and 201 bytes" },
    { BYTES("\xff\xff\xff\xff\3"), "a record came of type 3 and 4294967295 bytes" },
    { BYTES("\0\1\x10\x16\3"), "a record came of type 3 and 69654 bytes" },
    { BYTES("\0\0\0\0\3"), "a record came of type 3 and 0 bytes" },
    { BYTES("\0\0\0\1\3\0"), "a record came of type 3 and 1 bytes" },
    { BYTES("\0\0\0\3\3\2xx"), "a packet came of 2 bytes, 2 of them header" },
    { BYTES("\0\0\0\x18\3\x15" "twenty-three bytes long"), "a packet came of 23 bytes, 21 of them header" },
    { BYTES("\0\0\0\4\3\xff" "xyz"), "a packet came of 3 bytes, 255 of them header" },
    { BYTES("\0\0\0\x08\4\0\0\0\0\0\0\0\1"), "an epoch came that cannot be yet" },     /* there is no COLO */
    { BYTES(GOOD_HELLO), "a second hello came" },
    { BYTES(PRIMARY_HELLO), "a second hello came" },
};

/* The words as the peer hears them, who gets no glob pattern. */
static const char *words_said(const char *words)
{
    return strchr(words, '*') ? strchr(words, '*') + 1 : words;
}

static void check_good_peer(ColoTest *t)
{
    ColoPeer *p = connect_peer(t);

    pass_numbers(t, 0, 3, 100);
    expect_packets(p, 0, 3, 100);
    dismiss_peer(t, p);
}

static void test_wrong_hellos(void)
{
    ColoTest *t = start_primary();

    for (int i = 0; i < ARRAY_SIZE(wrong_hellos); i++) {
        const Wrong *wrong = &wrong_hellos[i];

        for (int piece = 0; piece < 2; piece++) {
            ColoPeer *p = colo_test_connect(t, "node", false);
            size_t first = piece ? 3 : wrong->len;

            expect_hello(p, false);
            expect_message(t, wrong->words);
            colo_peer_send_bytes(p, wrong->bytes, first);
            colo_peer_flush(p);
            colo_peer_send_bytes(p, wrong->bytes + first, wrong->len - first);
            expect_closed(p, words_said(wrong->words));

            /* The same again is not worth another line. */
            p = colo_test_connect(t, "node", false);
            expect_hello(p, false);
            colo_peer_send_bytes(p, wrong->bytes, wrong->len);
            expect_closed(p, words_said(wrong->words));
            wait_connected(t, false);
            assert_no_event(t);
            check_good_peer(t);
        }
    }
    colo_test_end(t);
}

/* How a connection is used before something wrong comes: nothing is read yet, a packet has been, all comes at once. */
static void check_wrong_record(ColoTest *t, const void *bytes, size_t len, const char *words, int way)
{
    ColoPeer *p = colo_test_connect(t, "node", false);

    expect_hello(p, false);
    send_hello(p, true, UINT64_MAX);
    if (way != 2) {
        colo_peer_flush(p);
        wait_connected(t, true);
    }
    if (way != 0) {
        send_packets(p, 0, 3, 100);
    }
    expect_message(t, words);
    colo_peer_send_bytes(p, bytes, len);
    expect_closed(p, words);
    expect_lost(t, "closed");
    wait_connected(t, false);
    check_good_peer(t);
}

static void test_wrong_records(void)
{
    ColoTest *t = start_primary();
    g_autoptr(GByteArray) longest = g_byte_array_new();
    static const uint8_t zeros[1 + COLO_TEST_LONGEST + 1];

    append_record(longest, PACKET, zeros, sizeof(zeros));
    for (int way = 0; way < 3; way++) {
        for (int i = 0; i < ARRAY_SIZE(wrong_records); i++) {
            check_wrong_record(t, wrong_records[i].bytes, wrong_records[i].len, wrong_records[i].words, way);
        }
        check_wrong_record(t, longest->data, longest->len, "a packet came of 69633 bytes, 0 of them header", way);
    }
    colo_test_end(t);
}

/* A peer goes in the middle of what it says. */
static void test_half_a_record(void)
{
    ColoTest *t = start_primary();
    static const char bytes[] = GOOD_HELLO PACKET_RECORD;
    const size_t hello = sizeof(GOOD_HELLO) - 1;

    for (size_t cut = 0; cut < sizeof(bytes); cut += cut % 5 + 1) {
        ColoPeer *p = colo_test_connect(t, "node", false);

        expect_hello(p, false);
        colo_peer_send_bytes(p, bytes, MIN(cut, sizeof(bytes) - 1));
        colo_peer_flush(p);
        wait_connected(t, cut >= hello);
        expect_message(t, "it was closed there");
        g_assert_cmpint(shutdown(p->fd, SHUT_WR), ==, 0);
        expect_closed(p, NULL);
        if (cut >= hello) {
            expect_lost(t, "closed");
        }
        wait_connected(t, false);
        assert_no_event(t);
        check_good_peer(t);
    }
    colo_test_end(t);
}

/* What a peer gives as its reason is one line, whatever is in it. */
static void test_strange_goodbye(void)
{
    ColoTest *t = start_primary();
    ColoPeer *p = connect_peer(t);

    expect_message(t, "the other end says: one\\ntwo\\033[31m\\377%s%n");
    send_record(p, GOODBYE, BYTES("one\ntwo\033[31m\xff%s%n\0three"));
    expect_closed(p, NULL);
    expect_lost(t, "closed");
    check_good_peer(t);
    colo_test_end(t);
}

/* Whoever comes while somebody is there is turned away, and told. */
static void test_second_peer(void)
{
    ColoTest *t = start_primary();
    ColoPeer *first = connect_peer(t);

    for (int i = 0; i < 20; i++) {
        ColoPeer *second = colo_test_connect(t, "node", false);

        if (i % 2) {
            send_hello(second, true, UINT64_MAX);
        }
        expect_hello(second, false);
        expect_closed(second, "another one is connected already");
        pass_numbers(t, i, i + 1, 100);
        expect_packets(first, i, i + 1, 100);
    }
    assert_no_event(t);
    dismiss_peer(t, first);

    /* But one that has said nothing yet makes room. */
    first = colo_test_connect(t, "node", false);
    for (int i = 0; i < 20; i++) {
        ColoPeer *second = colo_test_connect(t, "node", false);

        expect_hello(first, false);
        expect_closed(first, NULL);
        first = second;
        if (i % 2) {
            colo_peer_send_bytes(first, GOOD_HELLO, i);
            colo_peer_flush(first);
        }
    }
    check_good_peer(t);
    expect_hello(first, false);
    expect_closed(first, NULL);
    colo_test_end(t);
}

/* The secondary */

static void check_secondary(ColoTest *t, ColoPeer *p, uint64_t discarded)
{
    for (uint32_t size = 4; size <= COLO_TEST_LONGEST; size = size < 1000 ? size * 3 : size + 17157) {
        send_packets(p, size, size + 1, size);
        expect_numbers(t->guest, size, size + 1, size);
        send_numbers(t->guest, size, size + 1, size);
        expect_packets(p, size, size + 1, size);
        /* What its own netdev receives is nothing to the guest. */
        send_numbers(t->host, size, size + 1, size);
        colo_test_wait_count(t, "f0", "discarded.packets", ++discarded);
    }
    send_packets(p, 0, 1000, 100);
    expect_numbers(t->guest, 0, 1000, 100);
    send_numbers(t->guest, 0, 1000, 100);
    expect_packets(p, 0, 1000, 100);
    g_assert_true(is_quiet(p));
    g_assert_true(colo_peer_is_silent(t->host));
    g_assert_true(colo_peer_is_silent(t->guest));
}

static void test_secondary(void)
{
    ColoTest *t = colo_test_start("", "%s", "");
    g_autofree char *path = path_of(t, "node");
    int listener = qtest_socket_server(path);
    ColoPeer *p;

    add(t, "secondary", NEVER, 2 * NEVER);
    p = colo_test_accept(t, listener);
    expect_hello(p, true);
    wait_connected(t, false);
    send_hello(p, false, UINT64_MAX);
    expect_no_epoch(p);
    wait_connected(t, true);
    check_secondary(t, p, 0);

    /* It comes back, and what the guest has sent meanwhile has waited. */
    for (uint32_t i = 0; i < 2; i++) {
        uint64_t discarded = colo_test_count(t, "f0", "discarded.packets");

        expect_message(t, "it was closed there");
        colo_peer_close(p);
        expect_lost(t, "closed");
        send_numbers(t->guest, 0, 100, 100);
        colo_peer_flush(t->guest);
        p = accept_peer(t, listener);
        send_numbers(t->guest, 100, 200, 100);
        expect_packets(p, 0, 200, 100);
        g_assert_cmpuint(colo_test_count(t, "f0", "discarded.packets"), ==, discarded);
        check_secondary(t, p, discarded);
    }
    dismiss_peer(t, p);
    close(listener);
    colo_test_end(t);
}

/* It may be there first. */
static void test_secondary_waits_for_primary(void)
{
    ColoTest *t = colo_test_start("", "%s", "");
    g_autofree char *path = path_of(t, "node");
    int listener;
    ColoPeer *p;

    expect_message(t, "no connection to the other node yet: *node*");
    add(t, "secondary", NEVER, 2 * NEVER);
    colo_test_run(t, 2500);
    assert_no_event(t);
    listener = qtest_socket_server(path);
    p = accept_peer(t, listener);
    send_packets(p, 0, 10, 100);
    expect_numbers(t->guest, 0, 10, 100);

    /* The primary's place is empty for a while: two lines in all. */
    expect_message(t, "the other end says: done");
    close(listener);
    unlink(path);
    send_record(p, GOODBYE, "done", 4);
    expect_closed(p, NULL);
    expect_lost(t, "closed");
    colo_test_run(t, 2500);
    listener = qtest_socket_server(path);
    p = accept_peer(t, listener);
    close(listener);
    colo_test_end(t);
}

static void test_secondary_splits(void)
{
    ColoTest *t = colo_test_start("", "%s", "");
    g_autofree char *path = path_of(t, "node");
    int listener = qtest_socket_server(path);
    g_autoptr(GByteArray) hello = g_byte_array_append(g_byte_array_new(), (const uint8_t *)BYTES(PRIMARY_HELLO));
    ColoPeer *p;
    size_t first;

    add(t, "secondary", NEVER, 2 * NEVER);
    p = colo_test_accept(t, listener);
    expect_hello(p, true);
    send_in_pieces(p, hello, 1);
    expect_no_epoch(p);
    wait_connected(t, true);

    send_packets(p, 0, 1, 20);
    first = p->out->len;
    g_byte_array_set_size(p->out, 0);
    for (size_t piece = 1; piece <= 2 * first; piece++) {
        g_autoptr(GByteArray) bytes = p->out;

        send_packets(p, piece, piece + 1, 20);
        colo_peer_send_bytes(p, BYTES(HEARTBEAT_RECORD));
        send_packets(p, piece + 1, piece + 2, 20);
        colo_peer_send_bytes(p, BYTES(CREDIT_RECORD));
        p->out = g_byte_array_new();
        send_in_pieces(p, bytes, piece);
        expect_numbers(t->guest, piece, piece + 2, 20);
    }
    for (size_t piece = 1000; piece < 10000000; piece *= 3) {
        g_autoptr(GByteArray) bytes = p->out;

        send_packets(p, 0, 10, COLO_TEST_LONGEST);
        p->out = g_byte_array_new();
        send_in_pieces(p, bytes, piece);
        expect_numbers(t->guest, 0, 10, COLO_TEST_LONGEST);
    }
    g_assert_true(is_quiet(p));
    close(listener);
    colo_test_end(t);
}

/* A primary that is none is given up, and asked again. */
static void test_secondary_wrong_primary(void)
{
    static const Wrong wrongs[] = {
        { BYTES("SSH-2.0-OpenSSH\r\n"), NO_PROTOCOL },
        { BYTES(GOOD_HELLO), "both ends have mode=secondary" },
        { BYTES(HELLO_RECORD("COLOPRXY", "\2", "\2", IS_PRIMARY)), "version 1 *2 to 2" },
    };
    ColoTest *t = colo_test_start("", "%s", "");
    g_autofree char *path = path_of(t, "node");
    int listener = qtest_socket_server(path);
    ColoPeer *p;

    add(t, "secondary", NEVER, 2 * NEVER);
    expect_message(t, wrongs[0].words);         /* and of the others it does not complain again */
    for (int i = 0; i < ARRAY_SIZE(wrongs); i++) {
        p = colo_test_accept(t, listener);
        expect_hello(p, true);
        colo_peer_send_bytes(p, wrongs[i].bytes, wrongs[i].len);
        expect_closed(p, words_said(wrongs[i].words));
        wait_connected(t, false);
        assert_no_event(t);
    }
    p = accept_peer(t, listener);
    send_packets(p, 0, 10, 100);
    expect_numbers(t->guest, 0, 10, 100);
    close(listener);
    colo_test_end(t);
}

/* A primary that has another secondary turns it away each time; it says so once for each reason, and has lost nobody. */
static void test_secondary_turned_away(void)
{
    static const char *const reasons[] = { "not you", "not you", "not you", "not today", "not today" };
    ColoTest *t = colo_test_start("", "%s", "");
    g_autofree char *path = path_of(t, "node");
    int listener = qtest_socket_server(path);
    ColoPeer *p;

    add(t, "secondary", NEVER, 2 * NEVER);
    expect_message(t, "the other end says: not you");
    expect_message(t, "the other end says: not today");
    for (int i = 0; i < ARRAY_SIZE(reasons); i++) {
        p = colo_test_accept(t, listener);
        expect_hello(p, true);
        send_hello(p, false, UINT64_MAX);
        send_record(p, GOODBYE, reasons[i], strlen(reasons[i]));
        expect_no_epoch(p);
        expect_closed(p, NULL);
        wait_connected(t, false);
        assert_no_event(t);
    }
    p = accept_peer(t, listener);
    send_packets(p, 0, 10, 100);
    expect_numbers(t->guest, 0, 10, 100);
    dismiss_peer(t, p);
    close(listener);
    colo_test_end(t);
}

static bool is_closed(void *opaque)
{
    ColoPeer *p = opaque;

    return p->closed;
}

/* While the guest stands still its input waits, as much as there is credit for. */
static void test_secondary_stopped_guest(void)
{
    const uint32_t count = DIV_ROUND_UP(CREDIT, BIG);
    ColoTest *t = colo_test_start("", "%s", "");
    g_autofree char *path = path_of(t, "node");
    int listener = qtest_socket_server(path);
    ColoPeer *p;

    add(t, "secondary", NEVER, 2 * NEVER);
    p = accept_peer(t, listener);
    qtest_qmp_assert_success(t->qts, "{ 'execute': 'stop' }");
    send_packets(p, 0, count, BIG);
    colo_peer_flush(p);
    colo_test_wait_count(t, "f0", "received.packets", count);
    g_assert_true(colo_peer_is_silent(p));      /* no more credit */
    g_assert_true(colo_peer_is_silent(t->guest));
    g_assert_cmpuint(colo_test_count(t, "f0", "input.packets"), ==, 0);
    qtest_qmp_assert_success(t->qts, "{ 'execute': 'cont' }");
    expect_numbers(t->guest, 0, count, BIG);
    wait_connected(t, true);

    /* What goes beyond ends the connection; what has waited goes with it. */
    qtest_qmp_assert_success(t->qts, "{ 'execute': 'stop' }");
    expect_message(t, "a packet came that there was no credit for");
    send_packets(p, 0, count + 2, BIG);
    colo_test_wait(t, is_closed, p, "QEMU to close the connection");
    colo_peer_close(p);
    expect_lost(t, "closed");
    qtest_qmp_assert_success(t->qts, "{ 'execute': 'cont' }");
    p = accept_peer(t, listener);
    g_assert_true(colo_peer_is_silent(t->guest));
    send_packets(p, 0, 10, 100);
    expect_numbers(t->guest, 0, 10, 100);

    /* An object that goes meanwhile takes it along. */
    qtest_qmp_assert_success(t->qts, "{ 'execute': 'stop' }");
    send_packets(p, 0, 100, BIG);
    colo_test_wait_count_at_least(t, "f0", "received.packets", 50);
    colo_test_del(t, "f0");
    qtest_qmp_assert_success(t->qts, "{ 'execute': 'cont' }");
    pass_numbers(t, 0, 10, 100);
    close(listener);
    colo_test_end(t);
}

/* Silence */

static void check_heartbeats(ColoTest *t, ColoPeer *p, const char *what)
{
    int64_t start, last;
    int beats = 0;
    GByteArray *record;

    /* A second in which nothing happens. */
    start = g_get_monotonic_time();
    for (int i = 0; i < 20; i++) {
        colo_peer_send_bytes(p, BYTES(HEARTBEAT_RECORD));
        colo_test_run(t, 50);
    }
    while ((record = try_take_record(p))) {
        g_assert_cmpuint(record->data[0], ==, HEARTBEAT);
        g_assert_cmpuint(record->len, ==, 1);
        beats++;
        g_byte_array_unref(record);
    }
    g_assert_cmpint(beats, >=, 5);
    g_assert_cmpint(beats, <=, (g_get_monotonic_time() - start) / 100000 + 2);       /* with the one that says hello back */
    wait_connected(t, true);
    assert_no_event(t);

    colo_peer_send_bytes(p, BYTES(HEARTBEAT_RECORD));
    last = g_get_monotonic_time();
    expect_message(t, what);
    expect_closed(p, what);
    expect_lost(t, "silent");
    g_assert_cmpint(g_get_monotonic_time() - last, >=, 990000);
    g_assert_cmpint(g_get_monotonic_time() - last, <=, 10000000);
    wait_connected(t, false);
}

static void test_heartbeats(void)
{
    static const char silent[] = "nothing has been heard of the other end for ";
    ColoTest *t = colo_test_start("", "%s", "");
    g_autofree char *path = path_of(t, "node");
    int listener;
    ColoPeer *p;

    add(t, "primary", 100, 1000);
    check_heartbeats(t, connect_peer(t), silent);
    check_good_peer(t);

    /* One that has never said anything. */
    expect_message(t, silent);
    p = colo_test_connect(t, "node", false);
    expect_hello(p, false);
    expect_closed(p, silent);
    wait_connected(t, false);
    assert_no_event(t);
    check_good_peer(t);
    colo_test_del(t, "f0");

    listener = qtest_socket_server(path);
    add(t, "secondary", 100, 1000);
    check_heartbeats(t, accept_peer(t, listener), silent);
    p = accept_peer(t, listener);
    send_packets(p, 0, 10, 100);
    expect_numbers(t->guest, 0, 10, 100);
    colo_test_del(t, "f0");
    close(listener);
    colo_test_end(t);
}

/* TLS */

static bool has_said_something(void *opaque)
{
    return !colo_peer_is_silent(opaque);
}

/* One key for everybody who has it. */
static void add_credentials(ColoTest *t)
{
    static const char group[] =
        "-----BEGIN DH PARAMETERS-----\n"
        "MIIBCAKCAQEA//////////+t+FRYortKmq/cViAnPTzx2LnFg84tNpWp4TZBFGQz\n"
        "+8yTnc4kmz75fS/jY2MMddj2gbICrsRhetPfHtXV/WVhJDP1H18GbtCFY2VVPe0a\n"
        "87VXE15/V8k1mE8McODmi3fipona8+/och3xWKE2rec1MKzKT0g6eXq8CrGCsyT7\n"
        "YdEIqUuyyOP7uWrat2DX9GgdT0Kj3jlN9K5W7edjcrsZCwenyO4KbXCeAvzhzffi\n"
        "7MA0BM0oNC9hkXL+nOmFg/+OTxIy7vKBg8P+OxtMb61zO7X8vC7CIAXFjvGDfRaD\n"
        "ssbzSibBsu/6iGtCOGEoXJf//////////wIBAg==\n"
        "-----END DH PARAMETERS-----\n";         /* ffdhe2048 of RFC 7919; making one takes long */
    g_autofree char *keys = path_of(t, "keys.psk");
    g_autofree char *parameters = path_of(t, "dh-params.pem");

    g_assert_true(g_file_set_contents(keys, "qemu:00112233445566778899aabbccddeeff\n", -1, NULL));
    g_assert_true(g_file_set_contents(parameters, group, -1, NULL));
    colo_test_add(t, "'qom-type': 'tls-creds-psk', 'id': 'server', 'endpoint': 'server', 'dir': %s", t->dir);
    colo_test_add(t, "'qom-type': 'tls-creds-psk', 'id': 'client', 'endpoint': 'client', 'dir': %s", t->dir);
}

static void add_tls(ColoTest *t, const char *id, const char *netdev, const char *mode, const char *credentials,
                    uint32_t heartbeat, uint32_t heartbeat_timeout)
{
    g_autofree char *path = path_of(t, "node");

    colo_test_add(t, "'qom-type': 'colo-proxy', 'id': %s, 'netdev': %s, 'mode': %s, 'addr': %s, 'tls-creds': %s,"
                  " 'heartbeat': %u, 'heartbeat_timeout': %u", id, netdev, mode, path, credentials, heartbeat,
                  heartbeat_timeout);
}

/*
 * Both nodes are in one QEMU.  The network between them is the guest of both: what the host sends reaches the secondary twice,
 * as what its guest has sent and from the primary, and the latter's comes back as what the primary's guest has sent.
 */
static void test_tls(void)
{
    ColoTest *t = colo_test_start("", "%s", "");
    uint32_t received = 0;

    add_credentials(t);
    for (int i = 0; i < 5; i++) {
        add_tls(t, "f0", "bn0", "primary", "server", 100, 3000);
        add_tls(t, "f1", "bn1", "secondary", "client", 100, 3000);
        wait_connected(t, true);
        colo_test_wait_count(t, "f1", "connected", 1);
        send_numbers(t->host, 0, 20, 1000);
        expect_numbers(t->host, 0, 20, 1000);
        for (received = 20; received < 70; received++) {
            send_numbers(t->host, 0, 1, COLO_TEST_LONGEST);
            expect_numbers(t->host, 0, 1, COLO_TEST_LONGEST);
        }
        colo_test_wait_count(t, "f0", "received.packets", received);
        colo_test_wait_count(t, "f1", "received.packets", received);
        colo_test_run(t, 300);
        wait_connected(t, true);
        colo_test_expect_message(t, "*warning: colo-proxy '%s': *the other end says: the object has been removed*",
                                 i % 2 ? "f1" : "f0");
        colo_test_del(t, i % 2 ? "f0" : "f1");
        colo_test_run(t, 50);
        colo_test_del(t, i % 2 ? "f1" : "f0");
    }
    g_assert_true(colo_peer_is_silent(t->guest));
    colo_test_end(t);
}

/* Objects go, and peers do not come, in the middle of the handshake. */
static void test_tls_handshake(void)
{
    ColoTest *t = colo_test_start("", "%s", "");
    g_autofree char *path = path_of(t, "node");
    ColoPeer *p, *second;
    int listener;

    add_credentials(t);
    for (int i = 0; i < 20; i++) {
        add_tls(t, "f0", "bn0", "primary", "server", NEVER, 2 * NEVER);
        p = colo_test_connect(t, "node", false);
        if (i % 2) {
            colo_peer_send_bytes(p, "\x16\3\1\2", 4);
            colo_peer_flush(p);
        }
        if (i % 4 > 1) {
            second = colo_test_connect(t, "node", false);   /* takes its place */
            expect_closed(p, NULL);
            p = second;
        }
        pass_numbers(t, 0, 10, 100);
        colo_test_del(t, "f0");
        expect_closed(p, NULL);
    }

    /* Who does not speak TLS, and who does not speak. */
    add_tls(t, "f0", "bn0", "primary", "server", 100, 2000);
    expect_message(t, "no connection to the other node yet: *TLS*");
    p = colo_test_connect(t, "node", false);
    colo_peer_send_bytes(p, BYTES(GOOD_HELLO));
    colo_test_wait(t, is_closed, p, "QEMU to close the connection");
    colo_peer_close(p);
    p = colo_test_connect(t, "node", false);
    expect_closed(p, NULL);
    wait_connected(t, false);
    assert_no_event(t);
    add_tls(t, "f1", "bn1", "secondary", "client", 100, 3000);
    wait_connected(t, true);
    colo_test_expect_message(t, "*warning: colo-proxy 'f1': *the other end says: the object has been removed*");
    colo_test_del(t, "f0");
    colo_test_run(t, 50);
    colo_test_del(t, "f1");

    /* The other side of it. */
    listener = qtest_socket_server(path);
    for (int i = 0; i < 20; i++) {
        add_tls(t, "f0", "bn0", "secondary", "client", NEVER, 2 * NEVER);
        p = colo_test_accept(t, listener);
        if (i % 2) {
            colo_test_wait(t, has_said_something, p, "QEMU's part of the handshake");
        }
        colo_test_del(t, "f0");
        colo_test_wait(t, is_closed, p, "QEMU to close the connection");
        colo_peer_close(p);
    }
    add_tls(t, "f0", "bn0", "secondary", "client", 100, 500);
    expect_message(t, "no connection to the other node yet: *TLS*");
    for (int i = 0; i < 2; i++) {
        p = colo_test_accept(t, listener);
        colo_test_wait(t, is_closed, p, "QEMU to close the connection");
        colo_peer_close(p);
    }
    close(listener);
    colo_test_end(t);
}

/* Objects come and go, so often or as often as COLO_ROUNDS says */

static uint32_t rounds_of(uint32_t usual)
{
    const char *wanted = g_getenv("COLO_ROUNDS");

    return wanted ? g_ascii_strtoull(wanted, NULL, 10) : usual;
}

/* With a peer at every stage; nothing is lost between host and guest. */
static void test_primary_add_del(void)
{
    const uint32_t rounds = rounds_of(200), burst = 10;
    ColoTest *t = colo_test_start("", "%s", "");
    g_autofree char *path = path_of(t, "node");
    uint32_t next = 0;

    for (uint32_t i = 0; i < rounds; i++) {
        ColoPeer *p = NULL;

        send_numbers(t->host, next, next + burst, 100);
        send_numbers(t->guest, next, next + burst, 100);
        colo_test_run(t, 0);
        add(t, "primary", NEVER, 2 * NEVER);
        send_numbers(t->host, next + burst, next + 2 * burst, 100);
        send_numbers(t->guest, next + burst, next + 2 * burst, 100);
        if (i % 5 > 0) {
            p = colo_test_connect(t, "node", false);
        }
        if (i % 5 > 1) {
            send_hello(p, true, UINT64_MAX);
            send_packets(p, 0, 10, 100);
        }
        if (i % 5 > 2) {
            colo_peer_send_bytes(p, BYTES("\0\1\0\0\3"));
            p->deaf = i % 2;
            wait_connected(t, true);
        }
        send_numbers(t->host, next + 2 * burst, next + 3 * burst, 100);
        send_numbers(t->guest, next + 2 * burst, next + 3 * burst, 100);
        colo_test_run(t, i % 3);
        colo_test_del(t, "f0");
        send_numbers(t->host, next + 3 * burst, next + 4 * burst, 100);
        send_numbers(t->guest, next + 3 * burst, next + 4 * burst, 100);
        expect_numbers(t->guest, next, next + 4 * burst, 100);
        expect_numbers(t->host, next, next + 4 * burst, 100);
        if (p) {
            p->deaf = false;
            colo_test_wait(t, is_closed, p, "QEMU to close the connection");
            colo_peer_close(p);
        }
        next += 4 * burst;
        g_assert_false(g_file_test(path, G_FILE_TEST_EXISTS));
    }
    assert_no_event(t);
    colo_test_end(t);
}

/* What the guest sends is with the host or with the primary, once, and in order with each. */
static void test_secondary_add_del(void)
{
    const uint32_t rounds = rounds_of(200), burst = 10;
    ColoTest *t = colo_test_start("", "%s", "");
    g_autofree char *path = path_of(t, "node");
    int listener = qtest_socket_server(path);
    uint32_t next = 0;

    for (uint32_t i = 0; i < rounds; i++) {
        ColoPeer *p;
        GByteArray *record;
        uint32_t there = next + burst;

        send_numbers(t->guest, next, next + burst, 100);
        expect_numbers(t->host, next, next + burst, 100);
        add(t, "secondary", NEVER, 2 * NEVER);
        p = accept_peer(t, listener);
        send_packets(p, i * 10, i * 10 + 10, 100);
        send_numbers(t->guest, next + burst, next + 2 * burst, 100);
        if (i % 2) {
            expect_numbers(t->guest, i * 10, i * 10 + 10, 100);
        }
        colo_test_run(t, i % 3);
        colo_test_del(t, "f0");
        send_numbers(t->guest, next + 2 * burst, next + 3 * burst, 100);
        while ((record = take_content(p)) && record->data[0] == PACKET) {
            g_assert_cmpuint(record->len, ==, 2 + 100);
            g_assert_cmpuint(ldl_be_p(record->data + 2), ==, there);
            there++;
            g_byte_array_unref(record);
        }
        g_assert_nonnull(record);
        g_assert_cmpuint(record->data[0], ==, GOODBYE);
        g_byte_array_unref(record);
        expect_closed(p, NULL);
        expect_numbers(t->host, there, next + 3 * burst, 100);
        if (!(i % 2)) {
            colo_peer_is_silent(t->guest);
            while ((record = colo_peer_try_take(t->guest))) {
                g_byte_array_unref(record);
            }
        }
        next += 3 * burst;
    }
    assert_no_event(t);
    close(listener);
    colo_test_end(t);
}

/* An object goes that is still connecting, or is to try again; what comes of that is nobody's any more. */
static void test_secondary_del_connecting(void)
{
    ColoTest *t = colo_test_start("", "%s", "");
    g_autofree char *path = path_of(t, "node");
    int listener = qtest_socket_server(path);
    ColoPeer *busy[2];

    /* The queue of those who wait to be accepted is full. */
    for (int i = 0; i < ARRAY_SIZE(busy); i++) {
        busy[i] = colo_test_connect(t, "node", false);
    }
    for (int i = 0; i < 10; i++) {
        add(t, "secondary", NEVER, 2 * NEVER);
        colo_test_run(t, i);
        colo_test_assert_responsive(t);
        colo_test_del(t, "f0");
        pass_numbers(t, i, i + 1, 100);
    }
    /* Some get through, others find that nobody is there. */
    for (int i = 0; i < 6; i++) {
        ColoPeer *p = colo_test_accept(t, listener);

        colo_test_run(t, 10);
        colo_peer_close(p);
    }
    for (int i = 0; i < ARRAY_SIZE(busy); i++) {
        colo_peer_close(busy[i]);
    }
    close(listener);
    unlink(path);
    colo_test_run(t, 100);

    for (int i = 0; i < 3; i++) {
        expect_message(t, "no connection to the other node yet");
        add(t, "secondary", NEVER, 2 * NEVER);
        colo_test_run(t, 500);
        colo_test_del(t, "f0");
    }
    colo_test_run(t, 1200);
    assert_no_event(t);
    pass_numbers(t, 0, 10, 100);
    colo_test_end(t);
}

static void test_netdev_del(void)
{
    ColoTest *t = start_primary();
    ColoPeer *p = connect_peer(t);
    g_autofree char *path = path_of(t, "node");

    p->deaf = true;
    send_numbers(t->host, 0, 100, BIG);
    colo_test_wait_count(t, "f0", "sent.packets", 100);
    qtest_qmp_assert_success(t->qts, "{ 'execute': 'netdev_del', 'arguments': { 'id': 'bn0' } }");
    p->deaf = false;
    colo_test_wait(t, is_closed, p, "QEMU to close the connection");
    g_assert_false(g_file_test(path, G_FILE_TEST_EXISTS));
    colo_test_end(t);
}

/* What is refused */

#define PROXY(id, netdev, mode) \
    "'qom-type': 'colo-proxy', 'id': '" id "', 'netdev': '" netdev "', 'mode': '" mode "', 'addr': %s"

static void test_refused(void)
{
    ColoTest *t = colo_test_start("", "-object iothread,id=thread");
    g_autofree char *path = path_of(t, "node");
    g_autofree char *other = path_of(t, "other");
    g_autofree char *nowhere = path_of(t, "no/such/directory");
    g_autofree char *taken = NULL;
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    ColoPeer *p;

    g_assert_cmpint(bind(fd, (struct sockaddr *)&address, len), ==, 0);
    g_assert_cmpint(listen(fd, 1), ==, 0);
    g_assert_cmpint(getsockname(fd, (struct sockaddr *)&address, &len), ==, 0);
    taken = g_strdup_printf("127.0.0.1:%d", ntohs(address.sin_port));
    add_credentials(t);

    /* QMP's own schema refuses these before there is an object. */
    colo_test_refused(t, "addr|missing",
                      "'qom-type': 'colo-proxy', 'id': 'f0', 'netdev': 'bn0', 'mode': 'primary'");
    colo_test_refused(t, "mode|missing", "'qom-type': 'colo-proxy', 'id': 'f0', 'netdev': 'bn0', 'addr': %s", path);
    colo_test_refused(t, "netdev|missing", "'qom-type': 'colo-proxy', 'id': 'f0', 'mode': 'primary', 'addr': %s", path);
    colo_test_refused(t, "mode|both", PROXY("f0", "bn0", "both"), path);
    colo_test_refused(t, "policy|trust", PROXY("f0", "bn0", "primary") ", 'policy': 'trust'", path);
    colo_test_refused(t, "heartbeat|uint32", PROXY("f0", "bn0", "primary") ", 'heartbeat': -1", path);

    colo_test_refused(t, "colo-proxy 'f0'|netdev|network backend", PROXY("f0", "nosuch", "primary"), path);
    colo_test_refused(t, "colo-proxy 'f0'|'queue'|all", PROXY("f0", "bn0", "primary") ", 'queue': 'tx'", path);
    colo_test_refused(t, "colo-proxy 'f0'|'queue'|all", PROXY("f0", "bn0", "secondary") ", 'queue': 'rx'", path);
    colo_test_refused(t, "colo-proxy 'f0'|'status'|on", PROXY("f0", "bn0", "secondary") ", 'status': 'off'", path);
    colo_test_refused(t, "colo-proxy 'f0'|position|'thread'",
                      PROXY("f0", "bn0", "primary") ", 'position': 'id=thread'", path);
    colo_test_refused(t, "colo-proxy 'f0'|'reconnect' is 0|from 1 to 4294967295",
                      PROXY("f0", "bn0", "secondary") ", 'reconnect': 0", path);
    colo_test_refused(t, "colo-proxy 'f0'|'heartbeat' is 0|from 1 to 4294967295",
                      PROXY("f0", "bn0", "primary") ", 'heartbeat': 0", path);
    colo_test_refused(t, "colo-proxy 'f0'|'heartbeat_timeout' is 0|from 1 to 4294967295",
                      PROXY("f0", "bn0", "secondary") ", 'heartbeat_timeout': 0", path);
    colo_test_refused(t, "colo-proxy 'f0'|'compare_timeout' is 0|from 1 to 4294967295",
                      PROXY("f0", "bn0", "primary") ", 'compare_timeout': 0", path);
    colo_test_refused(t, "colo-proxy 'f0'|'max_queue_size' is 0|from 1 to 4294967295",
                      PROXY("f0", "bn0", "primary") ", 'max_queue_size': 0", path);
    colo_test_refused(t, "colo-proxy 'f0'|'heartbeat_timeout' is 199|twice 'heartbeat'|100",
                      PROXY("f0", "bn0", "primary") ", 'heartbeat': 100, 'heartbeat_timeout': 199", path);
    colo_test_refused(t, "colo-proxy 'f0'|'heartbeat_timeout' is 4294967295|twice 'heartbeat'|4294967295",
                      PROXY("f0", "bn0", "secondary") ", 'heartbeat': 4294967295, 'heartbeat_timeout': 4294967295",
                      path);
    for (int i = 0; i < 2; i++) {
        const char *addr = i ? "127.0.0.1:" : "sock";

        colo_test_refused(t, "colo-proxy 'f0'|'addr'|address", PROXY("f0", "bn0", "primary"), addr);
        colo_test_refused(t, "colo-proxy 'f0'|'addr'|address", PROXY("f0", "bn0", "secondary"), addr);
    }
    colo_test_refused(t, "colo-proxy 'f0'|'addr'|127.0.0.1:many", PROXY("f0", "bn0", "primary"), "127.0.0.1:many");
    colo_test_refused(t, "colo-proxy 'f0'|'addr'|Address already in use", PROXY("f0", "bn0", "primary"), taken);
    colo_test_refused(t, "colo-proxy 'f0'|'addr'|no/such/directory", PROXY("f0", "bn0", "primary"), nowhere);
    colo_test_refused(t, "colo-proxy 'f0'|'addr'", PROXY("f0", "bn0", "primary") ", 'tls-creds': 'server'", nowhere);
    colo_test_refused(t, "colo-proxy 'f0'|'tls-creds'|'nosuch'|define",
                      PROXY("f0", "bn0", "primary") ", 'tls-creds': 'nosuch'", path);
    colo_test_refused(t, "colo-proxy 'f0'|'tls-creds'|'thread'|define",
                      PROXY("f0", "bn0", "secondary") ", 'tls-creds': 'thread'", path);
    colo_test_refused(t, "colo-proxy 'f0'|'tls-creds'|server endpoint",
                      PROXY("f0", "bn0", "primary") ", 'tls-creds': 'client'", path);
    colo_test_refused(t, "colo-proxy 'f0'|'tls-creds'|client endpoint",
                      PROXY("f0", "bn0", "secondary") ", 'tls-creds': 'server'", path);
    g_assert_false(g_file_test(path, G_FILE_TEST_EXISTS));
    pass_numbers(t, 0, 10, 100);

    /* Nothing of all that is in the way of what is right. */
    colo_test_del(t, "server");
    colo_test_del(t, "client");
    add(t, "primary", NEVER, 2 * NEVER);
    colo_test_refused(t, "f0", PROXY("f0", "bn1", "primary"), other);
    colo_test_refused(t, "colo-proxy 'f1'|netdev 'bn0'|'f0'|remove", PROXY("f1", "bn0", "primary"), other);
    colo_test_refused(t, "colo-proxy 'f1'|netdev 'bn0'|'f0'|remove", PROXY("f1", "bn0", "secondary"), other);
    g_assert_false(g_file_test(other, G_FILE_TEST_EXISTS));
    p = connect_peer(t);
    send_numbers(t->host, 0, 10, 100);
    expect_packets(p, 0, 10, 100);
    expect_numbers(t->guest, 0, 10, 100);
    colo_test_add(t, PROXY("f1", "bn1", "primary"), other);
    close(fd);
    colo_test_end(t);
}

/* What can be changed later on, and what cannot. */
static void test_properties(void)
{
    ColoTest *t = start_primary();
    static const struct {
        const char *name;
        const char *text;
    } fixed[] = {
        { "mode", "secondary" }, { "addr", "/elsewhere" }, { "tls-creds", "other" }, { "reconnect" }, { "heartbeat" },
        { "heartbeat_timeout" }, { "compare_timeout" }, { "max_queue_size" },
    };

    for (int i = 0; i < ARRAY_SIZE(fixed); i++) {
        QObject *value = fixed[i].text ? QOBJECT(qstring_from_str(fixed[i].text)) : QOBJECT(qnum_from_int(7));
        QDict *answer = qtest_qmp(t->qts, "{ 'execute': 'qom-set', 'arguments': { 'path': '/objects/f0',"
                                  " 'property': %s, 'value': %p } }", fixed[i].name, value);
        g_autofree char *words = g_strdup_printf("colo-proxy 'f0': property '%s' cannot be changed", fixed[i].name);

        g_assert_true(qdict_haskey(answer, "error"));
        g_assert_nonnull(strstr(qdict_get_str(qdict_get_qdict(answer, "error"), "desc"), words));
        qobject_unref(answer);
    }
    qtest_qmp_assert_success(t->qts, "{ 'execute': 'qom-set', 'arguments': { 'path': '/objects/f0',"
                             " 'property': 'policy', 'value': 'hold' } }");
    pass_numbers(t, 0, 10, 100);        /* no frame is there, so nothing is held */
    check_good_peer(t);
    colo_test_end(t);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    qtest_add_func("/colo/proxy/primary/mirrors", test_primary_mirrors);
    qtest_add_func("/colo/proxy/primary/tcp", test_primary_tcp);
    qtest_add_func("/colo/proxy/primary/alone", test_primary_alone);
    qtest_add_func("/colo/proxy/primary/later-version", test_primary_later_version);
    qtest_add_func("/colo/proxy/primary/credit", test_primary_credit);
    qtest_add_func("/colo/proxy/primary/deaf-peer", test_primary_deaf_peer);
    qtest_add_func("/colo/proxy/primary/gives-credit", test_primary_gives_credit);
    qtest_add_func("/colo/proxy/primary/splits", test_primary_splits);
    qtest_add_func("/colo/proxy/wrong/hellos", test_wrong_hellos);
    qtest_add_func("/colo/proxy/wrong/records", test_wrong_records);
    qtest_add_func("/colo/proxy/wrong/half-a-record", test_half_a_record);
    qtest_add_func("/colo/proxy/wrong/strange-goodbye", test_strange_goodbye);
    qtest_add_func("/colo/proxy/wrong/second-peer", test_second_peer);
    qtest_add_func("/colo/proxy/secondary/passes", test_secondary);
    qtest_add_func("/colo/proxy/secondary/waits-for-primary", test_secondary_waits_for_primary);
    qtest_add_func("/colo/proxy/secondary/splits", test_secondary_splits);
    qtest_add_func("/colo/proxy/secondary/wrong-primary", test_secondary_wrong_primary);
    qtest_add_func("/colo/proxy/secondary/turned-away", test_secondary_turned_away);
    qtest_add_func("/colo/proxy/secondary/stopped-guest", test_secondary_stopped_guest);
    qtest_add_func("/colo/proxy/heartbeats", test_heartbeats);
    qtest_add_func("/colo/proxy/tls/passes", test_tls);
    qtest_add_func("/colo/proxy/tls/handshake", test_tls_handshake);
    qtest_add_func("/colo/proxy/life/primary-add-del", test_primary_add_del);
    qtest_add_func("/colo/proxy/life/secondary-add-del", test_secondary_add_del);
    qtest_add_func("/colo/proxy/life/del-connecting", test_secondary_del_connecting);
    qtest_add_func("/colo/proxy/life/netdev-del", test_netdev_del);
    qtest_add_func("/colo/proxy/refused", test_refused);
    qtest_add_func("/colo/proxy/properties", test_properties);
    return g_test_run();
}
