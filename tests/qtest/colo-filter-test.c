/*
 * Tests of filter-mirror, filter-redirector and filter-rewriter in a QEMU without a guest
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "colo-test-util.h"
#include "net/colo-series.h"
#include "qemu/bswap.h"

/* What a filter keeps for a reader that is slow, bytes. */
#define OUTBOX_MAX (64 * 1024 * 1024)

#define BIG 60000

/* Objects, as JSON. */
#define FILTER(type, id, netdev, queue) \
    "'qom-type': '" type "', 'id': '" id "', 'netdev': '" netdev "', 'queue': '" queue "'"
#define MIRROR(id, netdev, queue) FILTER("filter-mirror", id, netdev, queue)
#define REDIRECTOR(id, netdev, queue) FILTER("filter-redirector", id, netdev, queue)
#define REWRITER(id, netdev) FILTER("filter-rewriter", id, netdev, "all")

/* Traffic: numbered packets */

static void send_number(ColoPeer *p, uint32_t number, uint32_t size)
{
    g_autoptr(GByteArray) bytes = colo_test_bytes(number, size);

    colo_peer_send_frame(p, bytes);
}

static void send_numbers(ColoPeer *p, uint32_t from, uint32_t to, uint32_t size)
{
    for (uint32_t i = from; i < to; i++) {
        send_number(p, i, size);
    }
}

/* Takes packets @from to @to - 1, in order and whole. */
static void expect_numbers(ColoPeer *p, uint32_t from, uint32_t to, uint32_t size)
{
    for (uint32_t i = from; i < to; i++) {
        g_autoptr(GByteArray) bytes = colo_test_bytes(i, size);

        colo_peer_expect_frame(p, bytes);
    }
}

/* Sends packets from the host and takes them as the guest. */
static void pass_numbers(ColoTest *t, uint32_t from, uint32_t to, uint32_t size)
{
    send_numbers(t->host, from, to, size);
    expect_numbers(t->guest, from, to, size);
}

/* filter-mirror */

static void check_mirror(const char *queue, bool vnet)
{
    ColoTest *t = colo_test_start("out", "-object filter-mirror,id=f0,netdev=bn0,queue=%s,outdev=out%s", queue,
                                  vnet ? ",vnet_hdr_support=on" : "");
    ColoPeer *out = colo_test_connect(t, "out", vnet);
    bool tx = strcmp(queue, "rx");
    bool rx = strcmp(queue, "tx");

    colo_test_wait_count(t, "f0", "connected", 1);
    for (uint32_t size = 4; size <= COLO_TEST_LONGEST; size = size < 1000 ? size * 3 : size + 17157) {
        send_number(t->host, size, size);
        expect_numbers(t->guest, size, size + 1, size);
        if (tx) {
            expect_numbers(out, size, size + 1, size);
        }
        send_number(t->guest, size + 1, size);
        expect_numbers(t->host, size + 1, size + 2, size);
        if (rx) {
            expect_numbers(out, size + 1, size + 2, size);
        }
    }
    pass_numbers(t, 0, 1000, 100);
    if (tx) {
        expect_numbers(out, 0, 1000, 100);
    }
    g_assert_true(colo_peer_is_silent(out));

    /* What is sent to it is of no interest. */
    colo_peer_send_bytes(out, "noise", 5);
    colo_peer_flush(out);
    pass_numbers(t, 0, 10, 100);
    if (tx) {
        expect_numbers(out, 0, 10, 100);
    }
    g_assert_true(colo_peer_is_silent(out));
    colo_test_end(t);
}

static void test_mirror_copies(void)
{
    check_mirror("tx", false);
    check_mirror("tx", true);
    check_mirror("rx", false);
    check_mirror("all", true);
}

static void test_mirror_reader_away(void)
{
    ColoTest *t = colo_test_start("out", "-object filter-mirror,id=f0,netdev=bn0,queue=tx,outdev=out");
    ColoPeer *out;

    colo_test_expect_message(t, "*warning: filter-mirror 'f0': outdev*nobody reads*");
    pass_numbers(t, 0, 100, 100);
    g_assert_cmpuint(colo_test_count(t, "f0", "input.packets"), ==, 100);
    g_assert_cmpuint(colo_test_count(t, "f0", "discarded.packets"), ==, 100);
    g_assert_cmpuint(colo_test_count(t, "f0", "discarded.bytes"), ==, 100 * 100);
    g_assert_cmpuint(colo_test_count(t, "f0", "mirrored.packets"), ==, 0);

    out = colo_test_connect(t, "out", false);
    colo_test_wait_count(t, "f0", "connected", 1);
    pass_numbers(t, 100, 200, 100);
    expect_numbers(out, 100, 200, 100);
    g_assert_cmpuint(colo_test_count(t, "f0", "mirrored.packets"), ==, 100);

    colo_peer_close(out);
    colo_test_wait_count(t, "f0", "connected", 0);
    colo_test_expect_message(t, "*warning: filter-mirror 'f0': outdev*nobody reads*");
    pass_numbers(t, 200, 300, 100);
    g_assert_cmpuint(colo_test_count(t, "f0", "discarded.packets"), ==, 200);

    out = colo_test_connect(t, "out", false);
    colo_test_wait_count(t, "f0", "connected", 1);
    pass_numbers(t, 300, 400, 100);
    expect_numbers(out, 300, 400, 100);
    g_assert_true(colo_peer_is_silent(out));
    colo_test_end(t);
}

/* A reader goes in the middle of a packet, with many more waiting for it: the next one begins with a whole new one. */
static void test_mirror_reader_changes(void)
{
    ColoTest *t = colo_test_start("out", "-object filter-mirror,id=f0,netdev=bn0,queue=tx,outdev=out");
    ColoPeer *out = colo_test_connect(t, "out", false);

    colo_test_wait_count(t, "f0", "connected", 1);
    out->deaf = true;
    pass_numbers(t, 0, 100, BIG);
    g_assert_cmpuint(colo_test_count(t, "f0", "mirrored.packets"), ==, 100);
    g_assert_cmpuint(colo_test_count(t, "f0", "queued"), >, 0);
    colo_peer_close(out);
    colo_test_wait_count(t, "f0", "connected", 0);
    g_assert_cmpuint(colo_test_count(t, "f0", "queued"), ==, 0);

    out = colo_test_connect(t, "out", false);
    colo_test_wait_count(t, "f0", "connected", 1);
    pass_numbers(t, 200, 300, 500);
    expect_numbers(out, 200, 300, 500);
    g_assert_true(colo_peer_is_silent(out));
    colo_test_end(t);
}

static void test_mirror_deaf_reader(void)
{
    const uint32_t count = OUTBOX_MAX / BIG + 300;
    ColoTest *t = colo_test_start("out", "-object filter-mirror,id=f0,netdev=bn0,queue=tx,outdev=out");
    ColoPeer *out = colo_test_connect(t, "out", false);
    uint64_t mirrored;

    colo_test_wait_count(t, "f0", "connected", 1);
    colo_test_expect_message(t, "*warning: filter-mirror 'f0': outdev*does not keep up*");
    out->deaf = true;
    for (uint32_t i = 0; i < count; i += 10) {
        pass_numbers(t, i, i + 10, BIG);
        colo_test_assert_responsive(t);
    }
    mirrored = colo_test_count(t, "f0", "mirrored.packets");
    g_assert_cmpuint(mirrored + colo_test_count(t, "f0", "discarded.packets"), ==,
                     colo_test_count(t, "f0", "input.packets"));
    g_assert_cmpuint(colo_test_count(t, "f0", "discarded.packets"), >, 100);
    g_assert_cmpuint(colo_test_count(t, "f0", "queued"), <=, OUTBOX_MAX + BIG + 8);
    g_assert_cmpuint(colo_test_count(t, "f0", "queued"), >, OUTBOX_MAX - BIG);

    out->deaf = false;
    expect_numbers(out, 0, mirrored, BIG);
    g_assert_true(colo_peer_is_silent(out));
    colo_test_wait_count(t, "f0", "queued", 0);
    pass_numbers(t, 0, 10, 100);
    expect_numbers(out, 0, 10, 100);
    colo_test_end(t);
}

/* filter-redirector */

static void check_redirector(const char *queue, bool vnet)
{
    ColoTest *t = colo_test_start("in out", "-object filter-redirector,id=f0,netdev=bn0,queue=%s,indev=in,outdev=out%s",
                                  queue, vnet ? ",vnet_hdr_support=on" : "");
    ColoPeer *out = colo_test_connect(t, "out", vnet);
    ColoPeer *in = colo_test_connect(t, "in", vnet);
    bool tx = strcmp(queue, "rx");
    bool rx = strcmp(queue, "tx");

    if (vnet) {
        in->vnet_len = 12;      /* the network has none, so it is taken off */
    }
    colo_test_wait_connected(t, "out");
    for (uint32_t size = 4; size <= COLO_TEST_LONGEST; size = size < 1000 ? size * 3 : size + 17157) {
        send_number(t->host, size, size);
        expect_numbers(tx ? out : t->guest, size, size + 1, size);
        send_number(t->guest, size + 1, size);
        expect_numbers(rx ? out : t->host, size + 1, size + 2, size);
        send_number(in, size + 2, size);
        if (tx) {
            expect_numbers(t->guest, size + 2, size + 3, size);
        }
        if (rx) {
            expect_numbers(t->host, size + 2, size + 3, size);
        }
    }
    send_numbers(t->host, 0, 1000, 100);
    expect_numbers(tx ? out : t->guest, 0, 1000, 100);
    g_assert_true(colo_peer_is_silent(out));
    g_assert_true(colo_peer_is_silent(t->host));
    g_assert_true(colo_peer_is_silent(t->guest));
    colo_test_end(t);
}

static void test_redirector_directions(void)
{
    check_redirector("tx", false);
    check_redirector("tx", true);
    check_redirector("rx", false);
    check_redirector("rx", true);
    check_redirector("all", false);
}

static void check_redirector_splits(bool vnet, uint32_t vnet_len)
{
    ColoTest *t = colo_test_start("in", "-object filter-redirector,id=f0,netdev=bn0,queue=tx,indev=in%s",
                                  vnet ? ",vnet_hdr_support=on" : "");
    ColoPeer *in = colo_test_connect(t, "in", vnet);

    in->vnet_len = vnet_len;
    colo_test_splits(in, t->guest, NULL);
    g_assert_true(colo_peer_is_silent(t->guest));
    colo_test_end(t);
}

static void test_redirector_splits(void)
{
    check_redirector_splits(false, 0);
    check_redirector_splits(true, 0);
    check_redirector_splits(true, 20);
}

static void check_redirector_bad_lengths(bool vnet)
{
    ColoTest *t = colo_test_start("in", "-object filter-redirector,id=f0,netdev=bn0,queue=tx,indev=in%s",
                                  vnet ? ",vnet_hdr_support=on" : "");
    ColoPeer *in;

    colo_test_bad_lengths(t, "in", vnet, "filter-redirector 'f0': indev");
    in = colo_test_connect(t, "in", vnet);
    send_numbers(in, 0, 100, 100);
    expect_numbers(t->guest, 0, 100, 100);
    g_assert_true(colo_peer_is_silent(t->guest));
    colo_test_end(t);
}

static void test_redirector_bad_lengths(void)
{
    check_redirector_bad_lengths(false);
    check_redirector_bad_lengths(true);
}

/* A chardev that connects by itself does so again. */
static void test_redirector_reconnects(void)
{
    ColoTest *t = colo_test_start("", "%s", "");
    g_autofree char *path = g_strdup_printf("%s/listen", t->dir);
    int listener = qtest_socket_server(path);

    qtest_qmp_assert_success(t->qts,
                             "{ 'execute': 'chardev-add', 'arguments': { 'id': 'in', 'backend': { 'type': 'socket',"
                             " 'data': { 'server': false, " COLO_RECONNECT_EACH_SECOND ", 'addr': { 'type': 'unix',"
                             " 'data': { 'path': %s } } } } } }", path);
    colo_test_add(t, REDIRECTOR("f0", "bn0", "tx") ", 'indev': 'in'");
    for (uint32_t i = 0; i < 3; i++) {
        ColoPeer *in = colo_test_accept(t, listener);

        send_number(in, i, 100);
        expect_numbers(t->guest, i, i + 1, 100);
        if (i < 2) {
            colo_test_expect_message(t, "*filter-redirector 'f0': indev* 0 *");
            colo_peer_send_bytes(in, "\0\0\0", 4);
            colo_peer_expect_closed(in);
        }
    }
    close(listener);
    colo_test_end(t);
}

/* A chardev hands on more than 4 KiB at a time: the host's mend chardev-read-size. */
static void test_redirector_large_reads(void)
{
    g_autofree char *log = NULL;
    g_autofree char *text = NULL;
    int fd = g_file_open_tmp("colo-test-XXXXXX", &log, NULL);
    ColoTest *t = colo_test_start("in", "-trace colo_link_read -D %s "
                                  "-object filter-redirector,id=f0,netdev=bn0,queue=tx,indev=in", log);
    ColoPeer *in = colo_test_connect(t, "in", false);
    long largest = 0;

    close(fd);
    send_number(in, 0, BIG);
    expect_numbers(t->guest, 0, 1, BIG);
    colo_test_end(t);

    g_assert_true(g_file_get_contents(log, &text, NULL, NULL));
    for (char *at = text; (at = strstr(at, ": read ")); at++) {
        largest = MAX(largest, strtol(at + 7, NULL, 10));
    }
    g_assert_cmpint(largest, >, 4096);
    unlink(log);
}

/* Half a packet before the connection breaks is nobody's. */
static void test_redirector_half_a_packet(void)
{
    ColoTest *t = colo_test_start("in", "-object filter-redirector,id=f0,netdev=bn0,queue=tx,indev=in");
    g_autoptr(GByteArray) frame = colo_test_bytes(0, 100);

    for (uint32_t cut = 1; cut < 104; cut++) {
        ColoPeer *in = colo_test_connect(t, "in", false);

        send_number(in, 0, 100);
        send_number(in, 1, 100);
        g_byte_array_set_size(in->out, 104 + cut);
        colo_peer_flush(in);
        expect_numbers(t->guest, 0, 1, 100);
        colo_peer_close(in);
    }
    g_assert_cmpuint(colo_test_count(t, "f0", "injected.packets"), ==, 103);
    g_assert_true(colo_peer_is_silent(t->guest));
    colo_test_end(t);
}

/* How many packets a filter-redirector has let go on through the chain. */
static uint64_t went_on(ColoTest *t, const char *id)
{
    return colo_test_count(t, id, "input.packets") - colo_test_count(t, id, "redirected.packets") +
           colo_test_count(t, id, "released.packets");
}

/* While nobody reads, packets go on through the chain; those that waited for the reader that has gone go first. */
static void check_redirector_reader_away(bool tx)
{
    ColoTest *t = colo_test_start("out", "-object filter-redirector,id=f0,netdev=bn0,queue=%s,outdev=out",
                                  tx ? "tx" : "rx");
    ColoPeer *from = tx ? t->host : t->guest;
    ColoPeer *to = tx ? t->guest : t->host;

    for (uint32_t i = 0; i < 100; i++) {
        send_number(from, i, BIG);
        expect_numbers(to, i, i + 1, BIG);
    }
    g_assert_cmpuint(colo_test_count(t, "f0", "input.packets"), ==, 100);
    g_assert_cmpuint(colo_test_count(t, "f0", "redirected.packets"), ==, 0);

    for (uint32_t round = 0; round < 6; round++) {
        ColoPeer *out = colo_test_connect(t, "out", false);
        uint64_t before = went_on(t, "f0");
        GByteArray *frame;
        uint32_t next = 1;
        uint64_t came, waiting;

        colo_test_wait_connected(t, "out");
        send_number(from, 0, BIG);
        expect_numbers(out, 0, 1, BIG);

        out->deaf = true;
        send_numbers(from, 1, 100, BIG);
        colo_peer_flush(from);
        g_assert_true(colo_peer_is_silent(to));
        g_assert_cmpuint(colo_test_count(t, "f0", "queued"), >, 50 * BIG);

        /* New ones come while it goes, in the middle of reading or without having read any. */
        send_numbers(from, 100, 150, BIG);
        if (!tx) {
            colo_peer_flush(from);      /* see colo-test-util.h for what QEMU's hub would make of it */
        }
        out->deaf = round % 2;
        colo_test_run(t, round / 2);
        while ((frame = colo_peer_try_take(out))) {
            g_assert_cmpuint(ldl_be_p(frame->data), ==, next);
            next++;
            g_byte_array_unref(frame);
        }
        waiting = out->deaf ? DIV_ROUND_UP(colo_test_count(t, "f0", "queued"), BIG + 4) : 0;
        colo_peer_close(out);

        /*
         * What was in its socket is lost with it.  The rest comes out, in order and whole; some of what it has read,
         * too, perhaps: when a write breaks off, the chardev does not tell how much of it had gone.
         */
        colo_test_wait_count(t, "f0", "input.packets", 100 + 151 * round + 150);
        colo_test_wait_count(t, "f0", "queued", 0);
        came = went_on(t, "f0") - before;
        g_assert_cmpuint(came, >=, waiting);
        expect_numbers(to, 150 - came, 150, BIG);
        send_number(from, 150, 100);
        expect_numbers(to, 150, 151, 100);
        g_assert_cmpuint(colo_test_count(t, "f0", "discarded.packets"), ==, 0);
    }
    g_assert_true(colo_peer_is_silent(to));
    colo_test_end(t);
}

static void test_redirector_reader_away(void)
{
    check_redirector_reader_away(true);
    check_redirector_reader_away(false);
}

static void test_redirector_deaf_reader(void)
{
    const uint32_t count = OUTBOX_MAX / BIG + 300;
    ColoTest *t = colo_test_start("out", "-object filter-redirector,id=f0,netdev=bn0,queue=tx,outdev=out");
    ColoPeer *out = colo_test_connect(t, "out", false);
    uint64_t redirected;

    colo_test_wait_connected(t, "out");
    colo_test_expect_message(t, "*warning: filter-redirector 'f0': outdev*does not keep up*");
    out->deaf = true;
    for (uint32_t i = 0; i < count; i += 10) {
        send_numbers(t->host, i, i + 10, BIG);
        colo_peer_flush(t->host);
        colo_test_assert_responsive(t);
    }
    colo_test_wait_count(t, "f0", "input.packets", (count + 9) / 10 * 10);
    redirected = colo_test_count(t, "f0", "redirected.packets");
    g_assert_cmpuint(redirected + colo_test_count(t, "f0", "discarded.packets"), ==,
                     colo_test_count(t, "f0", "input.packets"));
    g_assert_cmpuint(colo_test_count(t, "f0", "discarded.packets"), >, 100);
    g_assert_cmpuint(colo_test_count(t, "f0", "queued"), <=, OUTBOX_MAX + BIG + 8);
    g_assert_cmpuint(colo_test_count(t, "f0", "queued"), >, OUTBOX_MAX - BIG);
    g_assert_true(colo_peer_is_silent(t->guest));

    out->deaf = false;
    expect_numbers(out, 0, redirected, BIG);
    g_assert_true(colo_peer_is_silent(out));
    colo_test_wait_count(t, "f0", "queued", 0);
    colo_test_end(t);
}

/* While the guest stands still its input waits in the socket, and its output goes on to where it goes. */
static void test_redirector_stopped_guest(void)
{
    ColoTest *t = colo_test_start("in", "-object filter-redirector,id=f0,netdev=bn0,queue=tx,indev=in");
    ColoPeer *in = colo_test_connect(t, "in", false);

    send_number(in, 0, 100);
    expect_numbers(t->guest, 0, 1, 100);
    for (int i = 0; i < 10; i++) {
        qtest_qmp_assert_success(t->qts, "{ 'execute': 'stop' }");
        send_numbers(in, 1, 200, 1000);
        colo_test_run(t, 10);
        g_assert_cmpuint(colo_test_count(t, "f0", "injected.packets"), ==, 1 + i * 199);
        g_assert_true(colo_peer_is_silent(t->guest));
        qtest_qmp_assert_success(t->qts, "{ 'execute': 'cont' }");
        expect_numbers(t->guest, 1, 200, 1000);
    }
    colo_test_end(t);
}

static void set_status(ColoTest *t, const char *id, const char *status)
{
    g_autofree char *path = g_strdup_printf("/objects/%s", id);

    qtest_qmp_assert_success(t->qts, "{ 'execute': 'qom-set', 'arguments': { 'path': %s, 'property': 'status',"
                             " 'value': %s } }", path, status);
}

static uint64_t file_size(const char *path)
{
    struct stat status;

    g_assert_cmpint(stat(path, &status), ==, 0);
    return status.st_size;
}

/* Switched off it lets go of what it has. */
static void test_redirector_status(void)
{
    ColoTest *t = colo_test_start("out", "-object filter-redirector,id=f0,netdev=bn0,queue=tx,outdev=out,status=off");
    ColoPeer *out = colo_test_connect(t, "out", false);
    uint64_t queued, whole;

    colo_test_wait_connected(t, "out");
    pass_numbers(t, 0, 10, 100);
    set_status(t, "f0", "on");
    send_numbers(t->host, 0, 10, 100);
    expect_numbers(out, 0, 10, 100);

    out->deaf = true;
    send_numbers(t->host, 10, 110, BIG);
    colo_test_wait_count(t, "f0", "redirected.packets", 110);
    queued = colo_test_count(t, "f0", "queued");
    g_assert_cmpuint(queued, >, 50 * BIG);
    set_status(t, "f0", "off");
    /* One that has been written in part comes whole. */
    whole = DIV_ROUND_UP(queued, BIG + 4);
    expect_numbers(t->guest, 110 - whole, 110, BIG);
    pass_numbers(t, 110, 120, 100);

    /* And the stream goes on with a whole packet, if need be on a new connection. */
    out->deaf = false;
    set_status(t, "f0", "on");
    expect_numbers(out, 10, 110 - whole, BIG);
    if (queued % (BIG + 4)) {
        g_autoptr(GByteArray) half = NULL;

        colo_peer_expect_end(out);
        colo_peer_close(out);
        out = colo_test_connect(t, "out", false);
        colo_test_wait_connected(t, "out");
    }
    send_numbers(t->host, 120, 130, 100);
    expect_numbers(out, 120, 130, 100);
    colo_test_end(t);
}

/* While the guest stands still the netdev takes nothing, and the host's own queue would lose what is beyond 10,000 packets. */
static void test_redirector_releases_later(void)
{
    const uint32_t count = 300, size = 3000;
    ColoTest *t = colo_test_start("out", "%s", "");
    ColoPeer *out = colo_test_connect(t, "out", false);
    g_autofree char *file = g_strdup_printf("%s/seen", t->dir);
    uint32_t left;

    /* What leaves the redirector passes the other filter on its way to the queue. */
    colo_test_add(t, "'qom-type': 'filter-dump', 'id': 'seen', 'netdev': 'bn0', 'queue': 'rx', 'file': %s", file);
    colo_test_add(t, REDIRECTOR("f0", "bn0", "rx") ", 'outdev': 'out'");
    colo_test_wait_connected(t, "out");
    out->deaf = true;
    send_numbers(t->guest, 0, count, size);
    colo_test_wait_count(t, "f0", "redirected.packets", count);
    left = DIV_ROUND_UP(colo_test_count(t, "f0", "queued"), size + 4);
    g_assert_cmpuint(left, >, 50);
    qtest_qmp_assert_success(t->qts, "{ 'execute': 'stop' }");
    set_status(t, "f0", "off");
    g_assert_cmpuint(colo_test_count(t, "f0", "released.packets"), ==, left);
    g_assert_cmpuint(file_size(file), ==, CAPTURE_HEADER);
    qtest_qmp_assert_success(t->qts, "{ 'execute': 'cont' }");
    expect_numbers(t->host, count - left, count, size);
    g_assert_cmpuint(file_size(file), ==, CAPTURE_HEADER + left * (CAPTURE_PACKET_HEADER + size));
    unlink(file);
    colo_test_end(t);
}

/* The same for an object that goes: packets are with the reader or with the guest, and nowhere twice. */
static void test_redirector_del_in_the_middle(void)
{
    ColoTest *t = colo_test_start("out", "%s", "");

    for (int round = 0; round < 5; round++) {
        ColoPeer *out = colo_test_connect(t, "out", false);
        uint64_t queued, whole;

        colo_test_add(t, REDIRECTOR("f0", "bn0", "tx") ", 'outdev': 'out'");
        colo_test_wait_connected(t, "out");
        send_number(t->host, 0, 100);
        expect_numbers(out, 0, 1, 100);
        out->deaf = true;
        send_numbers(t->host, 0, 100, BIG - round);
        colo_test_wait_count(t, "f0", "redirected.packets", 101);
        queued = colo_test_count(t, "f0", "queued");
        whole = DIV_ROUND_UP(queued, BIG - round + 4);
        colo_test_del(t, "f0");
        expect_numbers(t->guest, 100 - whole, 100, BIG - round);
        pass_numbers(t, 0, 10, 100);

        out->deaf = false;
        expect_numbers(out, 0, 100 - whole, BIG - round);
        if (queued % (BIG - round + 4)) {
            colo_peer_expect_end(out);
        }
        colo_peer_close(out);
    }
    g_assert_true(colo_peer_is_silent(t->guest));
    colo_test_end(t);
}

/* An object that has read half a packet and goes takes the connection with it: the next one begins with a whole one. */
static void test_redirector_del_in_half_a_packet(void)
{
    ColoTest *t = colo_test_start("in", "%s", "");
    g_autoptr(GByteArray) frame = colo_test_bytes(0, 100);

    for (uint32_t cut = 0; cut < 104; cut += 3) {
        ColoPeer *in = colo_test_connect(t, "in", false);

        colo_test_add(t, REDIRECTOR("f0", "bn0", "tx") ", 'indev': 'in'");
        send_numbers(in, 0, 2, 100);
        g_byte_array_set_size(in->out, 104 + cut);
        colo_peer_flush(in);
        expect_numbers(t->guest, 0, 1, 100);
        colo_test_del(t, "f0");
        if (cut) {
            colo_peer_expect_closed(in);
            colo_peer_close(in);
            in = colo_test_connect(t, "in", false);
        }
        send_numbers(in, 2, 4, 100);
        colo_test_add(t, REDIRECTOR("f0", "bn0", "tx") ", 'indev': 'in'");
        expect_numbers(t->guest, 2, 4, 100);
        colo_test_del(t, "f0");
        colo_peer_close(in);
    }
    g_assert_true(colo_peer_is_silent(t->guest));
    colo_test_end(t);
}

/* The netdev goes, with packets waiting. */
static void test_redirector_netdev_del(void)
{
    ColoTest *t = colo_test_start("out", "-object filter-redirector,id=f0,netdev=bn0,queue=tx,outdev=out");
    ColoPeer *out = colo_test_connect(t, "out", false);

    colo_test_wait_connected(t, "out");
    out->deaf = true;
    send_numbers(t->host, 0, 100, BIG);
    colo_test_wait_count(t, "f0", "redirected.packets", 100);
    qtest_qmp_assert_success(t->qts, "{ 'execute': 'netdev_del', 'arguments': { 'id': 'bn0' } }");
    colo_test_refused(t, "filter-mirror 'f1'|netdev|network backend", MIRROR("f1", "bn0", "tx") ", 'outdev': 'out'");
    colo_test_add(t, MIRROR("f1", "bn1", "tx") ", 'outdev': 'out'");
    colo_test_end(t);
}

static void test_exit_with_packets(void)
{
    ColoTest *t = colo_test_start("out mirror", "-object filter-mirror,id=f1,netdev=bn0,queue=tx,outdev=mirror "
                                  "-object filter-redirector,id=f0,netdev=bn0,queue=tx,outdev=out");
    ColoPeer *out = colo_test_connect(t, "out", false);
    ColoPeer *mirror = colo_test_connect(t, "mirror", false);

    colo_test_wait_connected(t, "mirror");
    colo_test_wait_connected(t, "out");
    out->deaf = mirror->deaf = true;
    send_numbers(t->host, 0, 100, BIG);
    colo_test_wait_count(t, "f0", "redirected.packets", 100);
    g_assert_cmpuint(colo_test_count(t, "f1", "queued"), >, BIG);
    colo_test_end(t);
}

/* A guest may not pass for whoever marks epochs, and no mark reaches a network. */
static void test_redirector_epoch_marks(void)
{
    ColoTest *t = colo_test_start("in out", "-object filter-redirector,id=f0,netdev=bn0,queue=rx,indev=in,outdev=out");
    ColoPeer *in = colo_test_connect(t, "in", false);
    ColoPeer *out = colo_test_connect(t, "out", false);
    g_autoptr(GByteArray) mark = colo_test_epoch_mark(3);

    colo_test_wait_connected(t, "out");
    colo_peer_send_frame(in, mark);
    send_number(in, 0, 100);
    expect_numbers(t->host, 0, 1, 100);
    colo_peer_send_frame(t->guest, mark);
    send_number(t->guest, 1, 100);
    expect_numbers(out, 1, 2, 100);
    g_assert_cmpuint(colo_test_count(t, "f0", "discarded.packets"), ==, 2);

    /* A frame that only resembles one is a frame. */
    mark->data[20] ^= 1;
    colo_peer_send_frame(t->guest, mark);
    colo_peer_expect_frame(out, mark);
    colo_peer_send_frame(in, mark);
    colo_peer_expect_frame(t->host, mark);
    colo_test_end(t);
}

/* All of them */

static void test_add_del_under_traffic(void)
{
    ColoTest *t = colo_test_start("mirror in out", "%s", "");
    ColoPeer *mirror = colo_test_connect(t, "mirror", false);
    ColoPeer *in = colo_test_connect(t, "in", false);
    ColoPeer *out = colo_test_connect(t, "out", false);
    const uint32_t rounds = 100, burst = 40, size = 700;
    const uint32_t count = rounds * 4 * burst;
    g_autofree uint8_t *seen = g_malloc0(count);
    ColoPeer *takers[] = { t->guest, out };
    uint32_t seen_count = 0;
    uint32_t last[2] = { 0, 0 };
    uint32_t next = 0;

    colo_test_wait_connected(t, "mirror");
    colo_test_wait_connected(t, "out");
    for (uint32_t i = 0; i < rounds; i++) {
        send_numbers(t->host, next, next + burst, size);
        next += burst;
        colo_test_run(t, 0);
        colo_test_add(t, MIRROR("f0", "bn0", "tx") ", 'outdev': 'mirror'");
        colo_test_add(t, REWRITER("f1", "bn0"));
        send_numbers(t->host, next, next + burst, size);
        next += burst;
        colo_test_run(t, 0);
        colo_test_add(t, REDIRECTOR("f2", "bn0", "tx") ", 'outdev': 'out'");
        colo_test_add(t, REDIRECTOR("f3", "bn0", "rx") ", 'indev': 'in'");
        send_numbers(t->host, next, next + burst, size);
        send_numbers(in, i * 10, i * 10 + 10, size);
        next += burst;
        colo_test_run(t, i % 3);
        colo_test_del(t, "f2");
        colo_test_del(t, "f0");
        send_numbers(t->host, next, next + burst, size);
        next += burst;
        colo_test_run(t, 0);
        colo_test_del(t, "f1");
        expect_numbers(t->host, i * 10, i * 10 + 10, size);
        colo_test_del(t, "f3");
    }

    /* Each packet is with the guest or with the reader, once, and each of them has got its own in order. */
    colo_peer_flush(t->host);
    while (seen_count < count) {
        colo_test_run(t, 1);
        for (int i = 0; i < 2; i++) {
            GByteArray *frame;

            while ((frame = colo_peer_try_take(takers[i]))) {
                uint32_t number = ldl_be_p(frame->data);

                g_assert_cmpuint(frame->len, ==, size);
                g_assert_cmpuint(number, <, count);
                g_assert_cmpuint(number + 1, >, last[i]);
                g_assert_cmpuint(seen[number], ==, 0);
                last[i] = number + 1;
                seen[number] = 1;
                seen_count++;
                g_byte_array_unref(frame);
            }
        }
    }
    colo_test_run(t, 10);
    g_assert_true(colo_peer_is_silent(t->guest));
    g_assert_true(colo_peer_is_silent(out));
    g_assert_false(mirror->closed);
    colo_test_end(t);
}

static void test_refused(void)
{
    ColoTest *t = colo_test_start("c0 c1 c2", "-object iothread,id=thread -chardev null,id=multi,mux=on");

    /* QMP's own schema refuses these before there is an object. */
    colo_test_refused(t, "netdev|missing", "'qom-type': 'filter-mirror', 'id': 'f0', 'outdev': 'c0'");
    colo_test_refused(t, "netdev|missing", "'qom-type': 'filter-redirector', 'id': 'f0', 'outdev': 'c0'");
    colo_test_refused(t, "netdev|missing", "'qom-type': 'filter-rewriter', 'id': 'f0'");
    colo_test_refused(t, "outdev|missing", MIRROR("f0", "bn0", "tx"));
    colo_test_refused(t, "queue|sideways", MIRROR("f0", "bn0", "sideways") ", 'outdev': 'c0'");
    colo_test_refused(t, "vnet_hdr_support|boolean",
                      MIRROR("f0", "bn0", "tx") ", 'outdev': 'c0', 'vnet_hdr_support': 'yes'");
    colo_test_refused(t, "indev", MIRROR("f0", "bn0", "tx") ", 'outdev': 'c0', 'indev': 'c1'");

    colo_test_refused(t, "filter-mirror 'f0'|netdev|network backend", MIRROR("f0", "nosuch", "tx") ", 'outdev': 'c0'");
    colo_test_refused(t, "filter-redirector 'f0'|netdev|network backend",
                      REDIRECTOR("f0", "nosuch", "tx") ", 'outdev': 'c0'");
    colo_test_refused(t, "filter-rewriter 'f0'|netdev|network backend", REWRITER("f0", "nosuch"));

    colo_test_refused(t, "filter-mirror 'f0'|outdev|'nosuch'|chardev",
                      MIRROR("f0", "bn0", "tx") ", 'outdev': 'nosuch'");
    colo_test_refused(t, "filter-mirror 'f0'|outdev|'char0'|one user",
                      MIRROR("f0", "bn0", "tx") ", 'outdev': 'char0'");
    colo_test_refused(t, "filter-mirror 'f0'|outdev|'multi'|mux",
                      MIRROR("f0", "bn0", "tx") ", 'outdev': 'multi'");
    colo_test_refused(t, "filter-redirector 'f0'|indev|outdev|missing", REDIRECTOR("f0", "bn0", "tx"));
    colo_test_refused(t, "filter-redirector 'f0'|indev|outdev|'c0'",
                      REDIRECTOR("f0", "bn0", "tx") ", 'indev': 'c0', 'outdev': 'c0'");
    colo_test_refused(t, "filter-redirector 'f0'|indev|'nosuch'",
                      REDIRECTOR("f0", "bn0", "tx") ", 'indev': 'nosuch', 'outdev': 'c0'");
    colo_test_refused(t, "filter-redirector 'f0'|outdev|'nosuch'",
                      REDIRECTOR("f0", "bn0", "tx") ", 'indev': 'c0', 'outdev': 'nosuch'");

    colo_test_refused(t, "filter-mirror 'f0'|position|'nosuch'",
                      MIRROR("f0", "bn0", "tx") ", 'outdev': 'c0', 'position': 'id=nosuch'");
    colo_test_refused(t, "filter-mirror 'f0'|position|'thread'",
                      MIRROR("f0", "bn0", "tx") ", 'outdev': 'c0', 'position': 'id=thread'");
    colo_test_refused(t, "filter-mirror 'f0'|position|head|tail|id=",
                      MIRROR("f0", "bn0", "tx") ", 'outdev': 'c0', 'position': 'middle'");
    colo_test_refused(t, "insert|beside",
                      MIRROR("f0", "bn0", "tx") ", 'outdev': 'c0', 'insert': 'beside'");
    colo_test_refused(t, "status|on|off", MIRROR("f0", "bn0", "tx") ", 'outdev': 'c0', 'status': 'maybe'");

    /* Nothing of all that is in the way of what is right. */
    colo_test_add(t, MIRROR("f0", "bn0", "tx") ", 'outdev': 'c0'");
    colo_test_refused(t, "filter-mirror 'f1'|outdev|'c0'|one user", MIRROR("f1", "bn0", "tx") ", 'outdev': 'c0'");
    colo_test_refused(t, "filter-redirector 'f1'|indev|'c0'|one user",
                      REDIRECTOR("f1", "bn1", "tx") ", 'indev': 'c0', 'outdev': 'c1'");
    colo_test_refused(t, "filter-redirector 'f1'|outdev|'c0'|one user",
                      REDIRECTOR("f1", "bn1", "tx") ", 'indev': 'c1', 'outdev': 'c0'");
    colo_test_refused(t, "f0", MIRROR("f0", "bn0", "tx") ", 'outdev': 'c1'");
    colo_test_refused(t, "filter-mirror 'f1'|filter 'f0'|different netdev",
                      MIRROR("f1", "bn1", "tx") ", 'outdev': 'c1', 'position': 'id=f0'");

    /* All filters of a netdev have the same vnet_hdr_support. */
    colo_test_refused(t, "filter-mirror 'f1'|vnet_hdr_support|filter-mirror 'f0'",
                      MIRROR("f1", "bn0", "rx") ", 'outdev': 'c1', 'vnet_hdr_support': true");
    colo_test_refused(t, "filter-redirector 'f1'|vnet_hdr_support|filter-mirror 'f0'",
                      REDIRECTOR("f1", "bn0", "rx") ", 'outdev': 'c1', 'vnet_hdr_support': true");
    colo_test_refused(t, "filter-rewriter 'f1'|vnet_hdr_support|filter-mirror 'f0'",
                      REWRITER("f1", "bn0") ", 'vnet_hdr_support': true");
    colo_test_add(t, REDIRECTOR("f1", "bn1", "rx") ", 'indev': 'c1', 'outdev': 'c2', 'vnet_hdr_support': true");
    colo_test_refused(t, "filter-rewriter 'f2'|vnet_hdr_support|filter-redirector 'f1'", REWRITER("f2", "bn1"));
    colo_test_add(t, REWRITER("f2", "bn0") ", 'position': 'id=f0', 'insert': 'before'");
    colo_test_del(t, "f0");
    colo_test_del(t, "f1");
    colo_test_add(t, REDIRECTOR("f0", "bn1", "tx") ", 'indev': 'c0', 'outdev': 'c1'");
    colo_test_end(t);
}

static void test_refused_at_start(void)
{
    static const char network[] = "-netdev socket,id=bn0,udp=127.0.0.1:1,localaddr=127.0.0.1:0 "
                                  "-chardev null,id=c0";
    static const struct {
        const char *words;
        const char *object;
    } cases[] = {
        { "outdev|missing", "filter-mirror,id=f0,netdev=bn0" },
        { "netdev|missing", "filter-mirror,id=f0,outdev=c0" },
        { "filter-mirror 'f0'|netdev|network backend", "filter-mirror,id=f0,netdev=nosuch,outdev=c0" },
        { "filter-mirror 'f0'|outdev|'nosuch'", "filter-mirror,id=f0,netdev=bn0,outdev=nosuch" },
        { "filter-redirector 'f0'|missing", "filter-redirector,id=f0,netdev=bn0" },
        { "filter-redirector 'f0'|'c0'", "filter-redirector,id=f0,netdev=bn0,indev=c0,outdev=c0" },
        { "filter-redirector 'f0'|outdev|'nosuch'", "filter-redirector,id=f0,netdev=bn0,indev=c0,outdev=nosuch" },
        { "filter-rewriter 'f0'|netdev|network backend", "filter-rewriter,id=f0,netdev=nosuch" },
        { "filter-rewriter 'f1'|vnet_hdr_support", "filter-mirror,id=f0,netdev=bn0,outdev=c0 "
          "-object filter-rewriter,id=f1,netdev=bn0,vnet_hdr_support=on" },
    };

    for (int i = 0; i < ARRAY_SIZE(cases); i++) {
        g_autofree char *arguments = g_strdup_printf("%s -object %s", network, cases[i].object);

        colo_test_refused_at_start(cases[i].words, arguments);
    }
}

/* filter-rewriter */

/* Sends a segment from one end, and takes it at the other. */
static ColoTestPacket exchange(ColoTest *t, ColoTestPacket packet)
{
    g_autoptr(GByteArray) frame = colo_test_tcp(&packet);
    GByteArray *got;
    ColoTestPacket seen;

    colo_peer_send_frame(packet.to_guest ? t->host : t->guest, frame);
    got = colo_peer_take(packet.to_guest ? t->guest : t->host);
    seen = colo_test_parse_tcp(got);
    g_assert_cmpuint(seen.client, ==, packet.client);
    g_assert_cmpuint(seen.to_guest, ==, packet.to_guest);
    g_assert_cmpuint(seen.flags, ==, packet.flags);
    g_assert_cmpmem(seen.payload, seen.len, packet.payload, packet.len);
    seen.payload = NULL;
    g_byte_array_unref(got);
    return seen;
}

/* What leaves the guest with sequence number @seq has @wanted. */
static void assert_out(ColoTest *t, uint32_t client, uint8_t flags, uint32_t seq, const char *payload, uint32_t wanted)
{
    ColoTestPacket seen = exchange(t, (ColoTestPacket) { .client = client, .flags = flags, .seq = seq,
                                                         .ack = 77, .payload = payload, .len = strlen(payload) });

    g_assert_cmpuint(seen.seq, ==, wanted);
    g_assert_cmpuint(seen.ack, ==, 77);
}

/* What comes to the guest with acknowledgement number @ack has @wanted, and so have SACK blocks. */
static void assert_in(ColoTest *t, uint32_t client, uint8_t flags, uint32_t ack, uint32_t wanted)
{
    ColoTestPacket seen = exchange(t, (ColoTestPacket) { .client = client, .to_guest = true, .flags = flags,
                                                         .seq = 77, .ack = ack });

    g_assert_cmpuint(seen.seq, ==, 77);
    g_assert_cmpuint(seen.ack, ==, wanted);
    seen = exchange(t, (ColoTestPacket) { .client = client, .to_guest = true, .flags = flags, .seq = 77, .ack = ack,
                                          .sack = { ack + 10, ack + 20 }, .payload = "request", .len = 7 });
    g_assert_cmpuint(seen.ack, ==, wanted);
    g_assert_cmpuint(seen.sack[0], ==, wanted + 10);
    g_assert_cmpuint(seen.sack[1], ==, wanted + 20);
}

/* The client has been told @primary, the secondary's guest has chosen @secondary. */
static void check_connection(ColoTest *t, uint32_t client, bool from_guest, uint32_t primary, uint32_t secondary)
{
    uint32_t offset = secondary - primary;

    if (from_guest) {
        assert_out(t, client, SYN, secondary, "", secondary);
        assert_in(t, client, SYN | ACK, primary + 1, secondary + 1);
    } else {
        exchange(t, (ColoTestPacket) { .client = client, .to_guest = true, .flags = SYN, .seq = 500 });
        assert_out(t, client, SYN | ACK, secondary, "", secondary);
    }
    assert_in(t, client, ACK, primary + 1, secondary + 1);
    assert_out(t, client, ACK | PSH, secondary + 1, "the answer", primary + 1);
    assert_out(t, client, ACK, secondary + 11, "odd", primary + 11);
    assert_in(t, client, ACK, primary + 14, primary + 14 + offset);
    assert_out(t, client, ACK | FIN, secondary + 14, "", primary + 14);
    assert_in(t, client, ACK | FIN, primary + 15, secondary + 15);
    assert_out(t, client, ACK, secondary + 15, "", primary + 15);
    /* What is repeated after the end is still mapped. */
    assert_out(t, client, RST, secondary + 15, "", primary + 15);
    assert_in(t, client, ACK, primary + 15, secondary + 15);
}

static void check_rewriter(bool vnet)
{
    ColoTest *t = colo_test_start("", "-object filter-rewriter,id=f0,netdev=bn0,queue=all%s",
                                  vnet ? ",vnet_hdr_support=on" : "");
    static const uint32_t numbers[][2] = {
        { 1000, 5000 }, { 5000, 1000 }, { 0xfffffff8, 3 }, { 3, 0xfffffff8 }, { 0, 0x80000000 }, { 7, 7 },
        { 0xffffffff, 0 }, { 0, 0xffffffff },
    };
    g_autoptr(GByteArray) arp = colo_test_arp(9);
    g_autoptr(GByteArray) udp = colo_test_udp(3, "question", 8);

    for (uint32_t i = 0; i < ARRAY_SIZE(numbers); i++) {
        check_connection(t, 100 + i, false, numbers[i][0], numbers[i][1]);
        check_connection(t, 200 + i, true, numbers[i][0], numbers[i][1]);
    }
    g_assert_cmpuint(colo_test_count(t, "f0", "flows"), ==, 2 * ARRAY_SIZE(numbers));

    /* A connection whose beginning it has not seen is left alone, and so is all else. */
    assert_out(t, 300, ACK, 12345, "data", 12345);
    assert_in(t, 300, ACK, 12349, 12349);
    colo_peer_send_frame(t->host, arp);
    colo_peer_expect_frame(t->guest, arp);
    colo_peer_send_frame(t->guest, udp);
    colo_peer_expect_frame(t->host, udp);
    pass_numbers(t, 0, 100, 4);
    pass_numbers(t, 0, 10, COLO_TEST_LONGEST);
    g_assert_cmpuint(colo_test_count(t, "f0", "flows"), ==, 2 * ARRAY_SIZE(numbers));
    colo_test_end(t);
}

static void test_rewriter_connections(void)
{
    check_rewriter(false);
    check_rewriter(true);
}

/* query-colo-proxy */

static void test_query(void)
{
    ColoTest *t = colo_test_start("mirror in out", "-object filter-mirror,id=m0,netdev=bn0,queue=tx,outdev=mirror "
                                  "-object filter-redirector,id=r0,netdev=bn0,queue=tx,indev=in,outdev=out "
                                  "-object filter-rewriter,id=w0,netdev=bn1,queue=all");
    ColoPeer *mirror = colo_test_connect(t, "mirror", false);
    ColoPeer *in = colo_test_connect(t, "in", false);
    ColoPeer *out = colo_test_connect(t, "out", false);
    static const struct {
        const char *id;
        const char *path;
        uint64_t value;
    } counts[] = {
        { "m0", "input.packets", 10 }, { "m0", "input.bytes", 1000 },
        { "m0", "mirrored.packets", 10 }, { "m0", "mirrored.bytes", 1000 },
        { "m0", "discarded.packets", 0 }, { "m0", "queued", 0 }, { "m0", "connected", 1 },
        { "r0", "input.packets", 10 }, { "r0", "input.bytes", 1000 },
        { "r0", "redirected.packets", 10 }, { "r0", "redirected.bytes", 1000 },
        { "r0", "released.packets", 0 }, { "r0", "discarded.packets", 0 }, { "r0", "queued", 0 },
        { "r0", "injected.packets", 7 }, { "r0", "injected.bytes", 350 },
        { "w0", "from-guest.packets", 7 }, { "w0", "from-guest.bytes", 350 },
        { "w0", "to-guest.packets", 3 }, { "w0", "to-guest.bytes", 60 },
        { "w0", "rewritten-to-guest.packets", 0 }, { "w0", "rewritten-from-guest.packets", 0 },
        { "w0", "flows", 0 },
    };
    static const char *const types[][2] = {
        { "m0", "filter-mirror" }, { "r0", "filter-redirector" }, { "w0", "filter-rewriter" },
    };
    g_autofree char *text = NULL;

    colo_test_wait_connected(t, "mirror");
    colo_test_wait_connected(t, "out");
    send_numbers(t->host, 0, 10, 100);
    expect_numbers(mirror, 0, 10, 100);
    expect_numbers(out, 0, 10, 100);
    send_numbers(in, 0, 7, 50);
    expect_numbers(t->guest, 0, 7, 50);
    send_numbers(t->guest, 0, 3, 20);
    expect_numbers(t->host, 0, 3, 20);
    for (int i = 0; i < ARRAY_SIZE(counts); i++) {
        colo_test_wait_count(t, counts[i].id, counts[i].path, counts[i].value);
    }
    for (int i = 0; i < ARRAY_SIZE(types); i++) {
        QDict *info = colo_test_query(t, types[i][0]);

        g_assert_cmpstr(qdict_get_str(info, "type"), ==, types[i][1]);
        qobject_unref(info);
    }

    text = qtest_hmp(t->qts, "info colo-proxy");
    for (int i = 0; i < ARRAY_SIZE(types); i++) {
        g_autofree char *head = g_strdup_printf("%s '%s'", types[i][1], types[i][0]);

        g_assert_nonnull(strstr(text, head));
    }
    g_assert_true(g_regex_match_simple("mirrored +10 packets +1000 bytes", text, 0, 0));
    g_assert_true(g_regex_match_simple("injected +7 packets +350 bytes", text, 0, 0));
    g_assert_true(g_regex_match_simple("from guest +7 packets +350 bytes", text, 0, 0));
    colo_test_end(t);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    qtest_add_func("/colo/mirror/copies", test_mirror_copies);
    qtest_add_func("/colo/mirror/reader-away", test_mirror_reader_away);
    qtest_add_func("/colo/mirror/reader-changes", test_mirror_reader_changes);
    qtest_add_func("/colo/mirror/deaf-reader", test_mirror_deaf_reader);
    qtest_add_func("/colo/redirector/directions", test_redirector_directions);
    qtest_add_func("/colo/redirector/splits", test_redirector_splits);
    qtest_add_func("/colo/redirector/bad-lengths", test_redirector_bad_lengths);
    qtest_add_func("/colo/redirector/reconnects", test_redirector_reconnects);
    qtest_add_func("/colo/redirector/large-reads", test_redirector_large_reads);
    qtest_add_func("/colo/redirector/half-a-packet", test_redirector_half_a_packet);
    qtest_add_func("/colo/redirector/reader-away", test_redirector_reader_away);
    qtest_add_func("/colo/redirector/deaf-reader", test_redirector_deaf_reader);
    qtest_add_func("/colo/redirector/stopped-guest", test_redirector_stopped_guest);
    qtest_add_func("/colo/redirector/status", test_redirector_status);
    qtest_add_func("/colo/redirector/releases-later", test_redirector_releases_later);
    qtest_add_func("/colo/redirector/del-in-the-middle", test_redirector_del_in_the_middle);
    qtest_add_func("/colo/redirector/del-in-half-a-packet", test_redirector_del_in_half_a_packet);
    qtest_add_func("/colo/redirector/netdev-del", test_redirector_netdev_del);
    qtest_add_func("/colo/redirector/epoch-marks", test_redirector_epoch_marks);
    qtest_add_func("/colo/rewriter/connections", test_rewriter_connections);
    qtest_add_func("/colo/filters/add-del-under-traffic", test_add_del_under_traffic);
    qtest_add_func("/colo/filters/exit-with-packets", test_exit_with_packets);
    qtest_add_func("/colo/filters/refused", test_refused);
    qtest_add_func("/colo/filters/refused-at-start", test_refused_at_start);
    qtest_add_func("/colo/filters/query", test_query);
    return g_test_run();
}
