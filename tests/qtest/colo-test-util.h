/*
 * What the tests of the COLO proxy's objects have in common: a QEMU without a guest, and the other ends of its sockets
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Every test has a network of two sockets, joined by a hub:
 *
 *     host <-> netdev bn0 [filters] <-> hub <-> netdev bn1 <-> guest
 *
 * so that filters on bn0 see what the test sends as the host as a guest's input (queue=tx), and what it
 * sends as the guest as a guest's output (queue=rx).  Further chardevs are Unix sockets that the test connects to.
 *
 * What reaches the guest is read from a file that a filter-dump on bn1 writes; then a filter-buffer swallows it.
 * (When a socket netdev behind a hub cannot write for a moment, QEMU's hub sends later packets first, into
 * the middle of the one that waits.)
 *
 * The test is one thread and never blocks: whatever it waits for, it goes on writing what is to be written to QEMU
 * and reading what comes, on all of its sockets.
 */

#ifndef COLO_TEST_UTIL_H
#define COLO_TEST_UTIL_H

#include "libqtest.h"

/* Longest frame that QEMU's network layer carries. */
#define COLO_TEST_LONGEST (68 * 1024)

/* TCP flags by their initials. */
enum {
    FIN = 0x01,
    SYN = 0x02,
    RST = 0x04,
    PSH = 0x08,
    ACK = 0x10,
};

/* Headers of a file of filter-dump's (pcap), and of each packet in it: bytes. */
#define CAPTURE_HEADER 24
#define CAPTURE_PACKET_HEADER 16

typedef struct ColoTest ColoTest;

/* The test's end of a socket of QEMU's: a stream of packets each way, as long as there is a connection. */
typedef struct {
    ColoTest *test;
    int fd;
    int capture;            /* file from which to read packets instead, or -1 */
    uint32_t header;        /* bytes before a packet: 4, or 8 with a word for the virtio-net header */
    uint32_t vnet_len;      /* length of the virtio-net header put before frames that are sent */
    bool deaf;              /* what comes is not read */
    bool closed;            /* by QEMU */
    GByteArray *out;        /* to be written */
    size_t written;
    GByteArray *in;         /* what has come and has not been taken */
    size_t taken;
} ColoPeer;

struct ColoTest {
    QTestState *qts;
    char *dir;              /* for sockets and files */
    GPtrArray *peers;
    GPtrArray *messages;    /* patterns: what QEMU is to print on stderr */
    ColoPeer *host;
    ColoPeer *guest;
    bool gone;              /* QEMU */
};

/* Starts QEMU with the network, a chardev (a listening socket) for each word of @chardevs, and further arguments. */
ColoTest *colo_test_start(const char *chardevs, const char *fmt, ...) G_GNUC_PRINTF(2, 3);

/* Has QEMU exit, and waits for that; the peers can still be asked for what has come. */
void colo_test_quit(ColoTest *t);

/*
 * Ends the test, and QEMU.  Fails if QEMU does not exit in order, has printed anything on stderr that was not
 * expected, or has not printed each expected line exactly once.
 */
void colo_test_end(ColoTest *t);

/* QEMU is to print one line that matches the glob pattern. */
void colo_test_expect_message(ColoTest *t, const char *fmt, ...) G_GNUC_PRINTF(2, 3);

/* Waits until @done; fails, saying @what, if that takes a minute. */
typedef bool ColoTestDone(void *opaque);
void colo_test_wait(ColoTest *t, ColoTestDone *done, void *opaque, const char *what);

/* Keeps all sockets going for @ms. */
void colo_test_run(ColoTest *t, int ms);

/* Connections */

/* Connects to a chardev of the test's; with @vnet its stream has a word for the virtio-net header. */
ColoPeer *colo_test_connect(ColoTest *t, const char *chardev, bool vnet);

/* Waits until QEMU has accepted that.  Only for a chardev that is not in an iothread. */
void colo_test_wait_connected(ColoTest *t, const char *chardev);

/* Waits for QEMU to connect to @listener. */
ColoPeer *colo_test_accept(ColoTest *t, int listener);

/* The test's end of a connection that it has made itself. */
ColoPeer *colo_test_adopt(ColoTest *t, int fd);

/* Closes the connection and frees the peer.  What is not written yet never is. */
void colo_peer_close(ColoPeer *p);

/* Sends bytes as they stand, a frame, a frame behind a virtio-net header of p->vnet_len bytes. */
void colo_peer_send_bytes(ColoPeer *p, const void *bytes, size_t len);
void colo_peer_send(ColoPeer *p, const void *frame, size_t size);
void colo_peer_send_frame(ColoPeer *p, GByteArray *frame);

/* Waits until QEMU has taken everything sent. */
void colo_peer_flush(ColoPeer *p);

/* Waits for a packet and takes it: a frame, without its virtio-net header.  Freed by the caller. */
GByteArray *colo_peer_take(ColoPeer *p);

/* Takes a packet, if there is one. */
GByteArray *colo_peer_try_take(ColoPeer *p);

/* Takes a packet, which must be this frame. */
void colo_peer_expect(ColoPeer *p, const void *frame, size_t size);
void colo_peer_expect_frame(ColoPeer *p, const GByteArray *frame);

/* Waits until QEMU has closed the connection; nothing may have come before that. */
void colo_peer_expect_closed(ColoPeer *p);

/* The same, where half a packet may have come. */
void colo_peer_expect_end(ColoPeer *p);

/* True if nothing has come that has not been taken. */
bool colo_peer_is_silent(ColoPeer *p);

/* The stream on a chardev */

/*
 * Sends packets on @in in every way of cutting them into pieces; all must come out of @out, in order.
 *
 * @pair: NULL, or where the same packets go first, in one piece.
 */
void colo_test_splits(ColoPeer *in, ColoPeer *out, ColoPeer *pair);

/*
 * Sends impossible lengths on connections to @chardev.  Each must be complained of in one line that has the
 * object's @name in it, and end the connection.
 */
void colo_test_bad_lengths(ColoTest *t, const char *chardev, bool vnet, const char *name);

/* Objects */

/* object-add with these members, as JSON without braces. */
void colo_test_add(ColoTest *t, const char *fmt, ...) G_GNUC_PRINTF(2, 3);
void colo_test_del(ColoTest *t, const char *id);

/* object-add must fail with an error that has all of @words (separated by |) in it, and leave nothing behind. */
void colo_test_refused(ColoTest *t, const char *words, const char *fmt, ...) G_GNUC_PRINTF(3, 4);

/* A QEMU with this on its command line must say all of @words and exit with status 1. */
void colo_test_refused_at_start(const char *words, const char *arguments);

/* A number that query-colo-proxy tells of the object: "queued", "mirrored.packets". */
uint64_t colo_test_count(ColoTest *t, const char *id, const char *path);

/* Waits until it is @value; until it is that or more. */
void colo_test_wait_count(ColoTest *t, const char *id, const char *path, uint64_t value);
void colo_test_wait_count_at_least(ColoTest *t, const char *id, const char *path, uint64_t value);

/* What query-colo-proxy tells of the object.  Freed by the caller. */
QDict *colo_test_query(ColoTest *t, const char *id);

/* QMP must answer at once. */
void colo_test_assert_responsive(ColoTest *t);

/* Frames */

/* A TCP segment or UDP datagram between guest 10.0.0.2 and a client. */
typedef struct {
    uint32_t client;        /* tells clients apart: becomes address and port */
    bool to_guest;
    uint32_t seq;
    uint32_t ack;
    uint8_t flags;
    uint32_t sack[2];       /* edges of one SACK block; none if both are 0 */
    const void *payload;
    uint32_t len;
} ColoTestPacket;

GByteArray *colo_test_tcp(const ColoTestPacket *packet);
GByteArray *colo_test_udp(uint32_t client, const void *payload, uint32_t len);
/* Who has 10.0.0.@host? */
GByteArray *colo_test_arp(uint8_t host);
/* The mark that says where in a guest's output an epoch begins. */
GByteArray *colo_test_epoch_mark(uint64_t number);

/* Takes a TCP frame apart, after checking its checksums; the payload points into it. */
ColoTestPacket colo_test_parse_tcp(const GByteArray *frame);

/* @len bytes that depend on @seed; the first four of them are @seed, big-endian. */
GByteArray *colo_test_bytes(uint32_t seed, uint32_t len);

#endif /* COLO_TEST_UTIL_H */
