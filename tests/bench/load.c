/*
 * The load: one stream of packets down both inputs of what is measured, and what it lets out counted
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Theory of operation
 *
 * What is measured is a program that connects to three sockets in a directory (primary, secondary, out), takes packets
 * from the first two and writes to the third.  It is started from here, found to be ready when a first frame has come
 * through it, and ended when all is out or nothing has come for some seconds.
 *
 * The packets are TCP data segments of so many flows, in turn; each flow's sequence numbers advance.  They lie in a
 * ring of whole rounds, built once.  When both inputs have taken a packet, its place in the ring is made into the
 * packet one lap later: new sequence number, new checksum, the rest stays; so making packets costs next to nothing, and
 * no number repeats.  Both inputs are written without blocking, in big pieces, and neither gets far ahead of the other.
 *
 * What comes out is checked on its way: in order within its flow, of the right
 * length, and now and then byte by byte.  The figures are printed as
 * one JSON object.
 */

#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define VNET_LEN 12
#define HEADERS (14 + 20 + 20)
#define GSO_SIZE 1460

#define RING_BYTES (4 * 1024 * 1024)
#define WRITE_BYTES (64 * 1024)
#define READ_BYTES (256 * 1024)
#define PACKET_MAX (72 * 1024)

/* As much as Linux lets anyone have.  With its default, half of that, inputs run dry while we are waking up. */
#define SOCKET_BUFFER (208 * 1024)

/* How far one input may get ahead of the other: about what a socket holds. */
#define AHEAD_MAX (256 * 1024)

/* Of so many packets that come out, one has its payload looked at. */
#define LOOK_INTO 32

#define FIRST_PORT 1024
#define FIRST_SEQ 1000
#define ACK_NUMBER 5000

/* Seconds for a program to come up. */
#define START_MAX 60

static int option_payload = 1460;
static int option_flows = 1;
static int option_patience = 3;
static gint64 option_packets;
static double option_seconds = 1;
static gboolean option_vnet;

static const GOptionEntry options[] = {
    { "payload", 0, 0, G_OPTION_ARG_INT, &option_payload, "bytes of payload in a packet (1460)", "BYTES" },
    { "flows", 0, 0, G_OPTION_ARG_INT, &option_flows, "TCP connections (1)", "N" },
    { "packets", 0, 0, G_OPTION_ARG_INT64, &option_packets, "send so many, however long it takes", "N" },
    { "seconds", 0, 0, G_OPTION_ARG_DOUBLE, &option_seconds, "send for so long (1)", "SECONDS" },
    { "patience", 0, 0, G_OPTION_ARG_INT, &option_patience, "nothing out for so long is a stall (3)", "SECONDS" },
    { "vnet", 0, 0, G_OPTION_ARG_NONE, &option_vnet, "with virtio-net headers and offloaded segmentation", NULL },
    { NULL }
};

enum { PRIMARY, SECONDARY, OUT, SOCKETS };

static const char *const socket_names[SOCKETS] = { "primary", "secondary", "out" };

typedef struct {
    /* The ring */
    uint8_t *ring;
    uint32_t prefix;            /* bytes before a packet on the wire: its lengths */
    uint32_t segment;           /* where its TCP header begins */
    uint32_t wire_len;          /* all of it, with the prefix */
    uint64_t places;
    uint32_t *sums;             /* of each packet, all but its sequence number */
    uint64_t made;              /* packets */
    uint64_t due;               /* packets to be made in all; UINT64_MAX: not known yet */

    /* What is measured */
    pid_t pid;
    int fds[SOCKETS];
    uint64_t sent[2];           /* bytes down each input */

    /* What comes out */
    uint8_t in[READ_BYTES + PACKET_MAX];
    size_t in_len;
    uint64_t *next;             /* of each flow: the number of the packet to come out next */
    uint64_t released;          /* packets */
    uint64_t wrong;
} Load;

static G_NORETURN void fail(const char *what)
{
    fprintf(stderr, "colo-bench-load: %s\n", what);
    exit(1);
}

static void put16(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

static void put32(uint8_t *p, uint32_t v)
{
    put16(p, v >> 16);
    put16(p + 2, v);
}

static uint32_t get16(const uint8_t *p)
{
    return (uint32_t)p[0] << 8 | p[1];
}

static uint32_t get32(const uint8_t *p)
{
    return get16(p) << 16 | get16(p + 2);
}

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Packets */

static uint32_t sum_of(const uint8_t *bytes, uint32_t len)
{
    uint32_t sum = 0;

    for (uint32_t i = 0; i < len; i++) {
        sum += i % 2 ? bytes[i] : (uint32_t)bytes[i] << 8;
    }
    return sum;
}

static uint16_t fold(uint32_t sum)
{
    while (sum >> 16) {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    return (uint16_t)sum;
}

/* The packet of flow @flow at @p, all but its sequence number; @random fills the payload. */
static uint32_t build_packet(const Load *load, uint8_t *p, uint32_t flow, GRand *random)
{
    uint32_t tcp_len = 20 + (uint32_t)option_payload;
    uint32_t pseudo;

    memset(p, 0, load->wire_len - (uint32_t)option_payload);
    put32(p, load->wire_len - load->prefix);
    if (option_vnet) {
        put32(p + 4, VNET_LEN);
        p += load->prefix;
        p[0] = 1;                               /* checksum wanted */
        p[1] = option_payload > GSO_SIZE;       /* TCP over IPv4 to be cut */
        p[2] = HEADERS;                         /* from here on in the guest's byte order */
        p[4] = option_payload > GSO_SIZE ? GSO_SIZE & 0xff : 0;
        p[5] = option_payload > GSO_SIZE ? GSO_SIZE >> 8 : 0;
        p[6] = 14 + 20;
        p[8] = 16;
        p += VNET_LEN;
    } else {
        p += load->prefix;
    }
    memcpy(p, "\x52\x54\x00\x00\x00\x01\x52\x54\x00\x00\x00\x02\x08\x00", 14);
    p += 14;
    p[0] = 0x45;
    put16(p + 2, 20 + tcp_len);
    put16(p + 6, 0x4000);
    p[8] = 64;
    p[9] = 6;
    memcpy(p + 12, "\x0a\x00\x00\x02\x0a\x01\x00\x01", 8);
    put16(p + 10, (uint16_t)~fold(sum_of(p, 20)));
    pseudo = sum_of(p + 12, 8) + 6 + tcp_len;
    p += 20;
    put16(p, 80);
    put16(p + 2, FIRST_PORT + flow);
    put32(p + 8, ACK_NUMBER);
    p[12] = 5 << 4;
    p[13] = 0x10;
    put16(p + 14, 0xffff);
    for (int i = 0; i < option_payload; i++) {
        p[20 + i] = (uint8_t)(g_rand_int(random) >> 24);
    }
    if (option_vnet) {
        put16(p + 16, fold(pseudo));
        return 0;
    }
    return pseudo + sum_of(p, tcp_len);
}

static void build_ring(Load *load)
{
    uint32_t flows = (uint32_t)option_flows;
    uint64_t round;
    GRand *random = g_rand_new_with_seed(1);

    load->prefix = option_vnet ? 8 : 4;
    load->segment = load->prefix + (option_vnet ? VNET_LEN : 0) + 14 + 20;
    load->wire_len = load->segment + 20 + (uint32_t)option_payload;
    round = (uint64_t)flows * load->wire_len;
    load->places = flows * MAX(1, RING_BYTES / round);
    load->ring = g_malloc(load->places * load->wire_len);
    load->sums = g_new(uint32_t, load->places);
    for (uint64_t i = 0; i < load->places; i++) {
        load->sums[i] = build_packet(load, load->ring + i * load->wire_len, (uint32_t)(i % flows), random);
    }
    g_rand_free(random);
    load->next = g_new0(uint64_t, flows);
}

/* The sequence number of a flow's packet number @number. */
static uint32_t seq_of(uint64_t number)
{
    return FIRST_SEQ + (uint32_t)number * (uint32_t)option_payload;
}

/* Turns what both inputs have taken into what comes a lap later. */
static void make_packets(Load *load)
{
    uint64_t taken = MIN(load->sent[PRIMARY], load->sent[SECONDARY]) / load->wire_len;
    uint64_t end = MIN(taken + load->places, load->due);

    for (; load->made < end; load->made++) {
        uint64_t place = load->made % load->places;
        uint8_t *tcp = load->ring + place * load->wire_len + load->segment;
        uint32_t seq = seq_of(load->made / (uint32_t)option_flows);

        put32(tcp + 4, seq);
        if (!option_vnet) {
            put16(tcp + 16, (uint16_t)~fold(load->sums[place] + (seq >> 16) + (seq & 0xffff)));
        }
    }
}

/* Traffic */

/* How much may be written to an input now. */
static size_t sendable(const Load *load, int side)
{
    uint64_t most = load->made * load->wire_len;
    uint64_t lap = load->places * load->wire_len;
    uint64_t len;

    most = MIN(most, load->sent[!side] + AHEAD_MAX);
    if (most <= load->sent[side]) {
        return 0;
    }
    len = MIN(most - load->sent[side], WRITE_BYTES);
    return MIN(len, lap - load->sent[side] % lap);
}

static bool send_some(Load *load, int side)
{
    uint64_t lap = load->places * load->wire_len;
    size_t len = sendable(load, side);
    ssize_t done;

    if (!len) {
        return false;
    }
    done = send(load->fds[side], load->ring + load->sent[side] % lap, len, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (done < 0) {
        if (errno != EAGAIN) {
            fail("an input was closed");
        }
        return false;
    }
    load->sent[side] += (uint64_t)done;
    return true;
}

/* The payload of packet @number of @flow; in one place of the ring it is always the same. */
static const uint8_t *payload_of(const Load *load, uint32_t flow, uint64_t number)
{
    uint64_t place = (number * (uint32_t)option_flows + flow) % load->places;

    return load->ring + place * load->wire_len + load->segment + 20;
}

static void check_packet(Load *load, const uint8_t *p)
{
    const uint8_t *tcp = p + load->segment;
    uint32_t flow = get16(tcp + 2) - FIRST_PORT;
    uint64_t *next;

    if (get32(p) + load->prefix != load->wire_len || flow >= (uint32_t)option_flows) {
        load->wrong++;
        return;
    }
    next = &load->next[flow];
    if (get32(tcp + 4) != seq_of(*next)) {
        load->wrong++;
        *next += (uint64_t)(int64_t)((int32_t)(get32(tcp + 4) - seq_of(*next)) / option_payload);
    } else if (load->released % LOOK_INTO == 0) {
        load->wrong += memcmp(tcp + 20, payload_of(load, flow, *next), (size_t)option_payload) != 0;
    }
    (*next)++;
}

static bool receive_some(Load *load)
{
    ssize_t got = recv(load->fds[OUT], load->in + load->in_len, READ_BYTES, MSG_DONTWAIT);
    uint8_t *p = load->in;
    size_t len;

    if (got <= 0) {
        if (got == 0 || errno != EAGAIN) {
            fail("the output was closed");
        }
        return false;
    }
    load->in_len += (size_t)got;
    while (load->in_len >= 4) {
        len = load->prefix + get32(p);
        if (len > PACKET_MAX) {
            fail("what comes out is no stream of packets");
        }
        if (len > load->in_len) {
            break;
        }
        check_packet(load, p);
        load->released++;
        load->in_len -= len;
        p += len;
    }
    memmove(load->in, p, load->in_len);
    return true;
}

/* Sends and receives until all is out, or nothing has come out for too long.  When the last came out. */
static double run(Load *load, double start)
{
    double last = start;

    while (load->released < load->due) {
        double time = now();
        bool busy = false;

        if (load->due == UINT64_MAX && time - start >= option_seconds) {
            load->due = load->made;
            continue;
        }
        make_packets(load);
        busy |= send_some(load, PRIMARY);
        busy |= send_some(load, SECONDARY);
        if (receive_some(load)) {
            busy = true;
            last = time;
        }
        if (time - last >= option_patience) {
            break;
        }
        if (!busy) {
            struct pollfd fds[SOCKETS];

            for (int i = 0; i < SOCKETS; i++) {
                fds[i].fd = load->fds[i];
                fds[i].events = i == OUT ? POLLIN : sendable(load, i) ? POLLOUT : 0;
            }
            poll(fds, SOCKETS, 100);
        }
    }
    return load->released < load->due ? last : now();
}

/* What is measured */

static int listen_at(const char *dir, const char *name)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if ((size_t)snprintf(address.sun_path, sizeof(address.sun_path), "%s/%s", dir, name) >= sizeof(address.sun_path)) {
        fail("the directory's name is too long");
    }
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(fd, 1) < 0) {
        fail("cannot listen in the directory");
    }
    return fd;
}

/* The program's connection to @listening. */
static int accept_program(const Load *load, int listening)
{
    struct pollfd waiting = { .fd = listening, .events = POLLIN };

    for (int tenths = 0; poll(&waiting, 1, 100) != 1; tenths++) {
        if (waitpid(load->pid, NULL, WNOHANG)) {
            fail("the program has ended instead of connecting");
        }
        if (tenths == START_MAX * 10) {
            fail("the program does not connect");
        }
    }
    return accept(listening, NULL, NULL);
}

static void start(Load *load, const char *dir, char **command)
{
    int listening[SOCKETS];

    for (int i = 0; i < SOCKETS; i++) {
        listening[i] = listen_at(dir, socket_names[i]);
    }
    load->pid = fork();
    if (load->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        execvp(command[0], command);
        fail("cannot start the program");
    }
    for (int i = 0; i < SOCKETS; i++) {
        load->fds[i] = accept_program(load, listening[i]);
        close(listening[i]);
        setsockopt(load->fds[i], SOL_SOCKET, SO_SNDBUF, &(int) { SOCKET_BUFFER }, sizeof(int));
    }
}

/* An ARP packet, which all let through at once: when it is out, everything is in place. */
static void wait_until_ready(Load *load)
{
    uint8_t frame[8 + VNET_LEN + 60] = { 0 };
    uint8_t *p = frame;
    uint32_t len = 60;

    put32(p, option_vnet ? VNET_LEN + 60 : 60);
    p += 4;
    if (option_vnet) {
        put32(p, VNET_LEN);
        p += 4 + VNET_LEN;
    }
    memcpy(p, "\xff\xff\xff\xff\xff\xff\x52\x54\x00\x00\x00\x02\x08\x06\x00\x01\x08\x00\x06\x04\x00\x01", 22);
    len += (uint32_t)(p - frame);
    if (send(load->fds[PRIMARY], frame, len, MSG_NOSIGNAL) != (ssize_t)len) {
        fail("an input was closed");
    }
    for (uint32_t got = 0; got < len;) {
        struct pollfd waiting = { .fd = load->fds[OUT], .events = POLLIN };
        ssize_t n;

        if (poll(&waiting, 1, START_MAX * 1000) != 1) {
            fail("the program lets nothing through");
        }
        n = recv(load->fds[OUT], frame, len - got, 0);
        if (n <= 0) {
            fail("the output was closed");
        }
        got += (uint32_t)n;
    }
}

/* Seconds of processor time that the program has used. */
static double cpu_time(const Load *load)
{
    clockid_t clock;
    struct timespec t;

    if (clock_getcpuclockid(load->pid, &clock) || clock_gettime(clock, &t)) {
        fail("the program has ended");
    }
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* The most memory that the program has had, KiB. */
static uint64_t peak_memory(const Load *load)
{
    g_autofree char *name = g_strdup_printf("/proc/%d/status", (int)load->pid);
    g_autofree char *text = NULL;
    const char *line;

    if (!g_file_get_contents(name, &text, NULL, NULL) || !(line = strstr(text, "VmHWM:"))) {
        fail("the program has ended");
    }
    return g_ascii_strtoull(line + strlen("VmHWM:"), NULL, 10);
}

static void stop(Load *load)
{
    kill(load->pid, SIGTERM);
    waitpid(load->pid, NULL, 0);
}

int main(int argc, char **argv)
{
    g_autoptr(GOptionContext) context = g_option_context_new("DIRECTORY PROGRAM ARGUMENT...");
    g_autoptr(GError) error = NULL;
    Load *load = g_new0(Load, 1);
    double began, ended, cpu;
    uint64_t memory;

    g_option_context_add_main_entries(context, options, NULL);
    g_option_context_set_strict_posix(context, TRUE);
    if (!g_option_context_parse(context, &argc, &argv, &error)) {
        fail(error->message);
    }
    if (argc < 3 || option_payload < 1 || option_payload > 65495 || option_flows < 1 || option_flows > 60000) {
        fail("wrong arguments, see --help");
    }
    build_ring(load);
    load->due = option_packets ? (uint64_t)option_packets : UINT64_MAX;
    start(load, argv[1], argv + 2);
    wait_until_ready(load);
    memory = peak_memory(load);
    cpu = cpu_time(load);
    began = now();
    ended = run(load, began);
    cpu = cpu_time(load) - cpu;
    printf("{\"sent\": %" PRIu64 ", \"released\": %" PRIu64 ", \"wrong\": %" PRIu64 ", \"seconds\": %.6f, "
           "\"cpu_seconds\": %.6f, \"memory_before\": %" PRIu64 ", \"memory_after\": %" PRIu64 "}\n",
           load->made, load->released, load->wrong, ended - began, cpu, memory, peak_memory(load));
    stop(load);
    return 0;
}
