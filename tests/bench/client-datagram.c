/*
 * The bench client's datagrams: the echo service, and pings
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * No two requests say the same, not even in two runs of this program, so an answer shows which request it is for.
 */

#include "client.h"

#include <errno.h>
#include <linux/icmp.h>
#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

enum {
    ECHO_PORT = 7,
    DATAGRAM_MAX = 65535,
    SIZE_MIN = 8,               /* less would not tell requests apart */
    PAYLOAD_MAX = DATAGRAM_MAX - 20 - 8,
    ICMP_LEN = 8,               /* its header, also ICMPv6's */
    RECEIVE_BUFFER = 8 * 1024 * 1024,
};

/* The content of request @number. */
static uint64_t seed_of(const Job *job, uint64_t number)
{
    return job->salt + number;
}

static bool is_answer(const Job *job, const uint8_t *bytes, size_t len, uint64_t number)
{
    return len == job->size && content_matches(bytes, len, seed_of(job, number), 0);
}

/* The echo service: one datagram under way in each slot */

typedef struct {
    Slot slot;
    uint64_t answered;          /* number of the request before, 0: none */
} Udp;

/* A socket is used again only if the last request was answered, so that answers which come too late come to nobody. */
static void udp_begin(Slot *slot)
{
    static uint8_t bytes[PAYLOAD_MAX];
    size_t size = slot->job->size;

    if (slot->fd < 0 && !slot_connect(slot, SOCK_DGRAM, IPPROTO_UDP)) {
        return;
    }
    slot_watch(slot, EPOLLIN);
    content_fill(bytes, size, seed_of(slot->job, slot->number), 0);
    if (send(slot->fd, bytes, size, 0) < 0) {
        slot_failed(slot, "send: %s", g_strerror(errno));
    }
}

static void udp_ready(Slot *slot, uint32_t events G_GNUC_UNUSED)
{
    static uint8_t bytes[DATAGRAM_MAX];
    ssize_t got = recv(slot->fd, bytes, sizeof(bytes), 0);
    Udp *udp = (Udp *)slot;

    if (got < 0) {
        if (errno != EAGAIN) {
            slot_failed(slot, "receive: %s", g_strerror(errno));
        }
    } else if (is_answer(slot->job, bytes, (size_t)got, slot->number)) {
        slot_moved(slot);
        slot->job->bytes += (uint64_t)got;
        udp->answered = slot->number;
        slot_succeeded(slot, slot->moved);
    } else if (udp->answered && is_answer(slot->job, bytes, (size_t)got, udp->answered)) {
        slot->job->duplicates++;
    } else {
        slot_failed(slot, "wrong bytes");
    }
}

/* Pings: one slot sends them all, at a steady rate and whether they are answered or not */

typedef enum { WAITING, ANSWERED, LOST } PingState;

typedef struct {
    int64_t sent;
    PingState state;
} Ping;

typedef struct {
    Slot slot;
    GArray *pings;              /* Ping; the first is number 0 */
    guint oldest;               /* none before it is waiting */
    guint waiting;              /* how many are */
    uint16_t identifier;
} Pinger;

static bool is_ipv6(const Slot *slot)
{
    return slot->job->address.ss_family == AF_INET6;
}

static void put16(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

static uint16_t get16(const uint8_t *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}

static uint32_t checksum(const uint8_t *bytes, size_t len)
{
    uint32_t sum = 0;

    for (size_t i = 0; i < len; i++) {
        sum += i % 2 ? bytes[i] : (uint32_t)bytes[i] << 8;
    }
    sum = (sum & 0xffff) + (sum >> 16);
    return ~(sum + (sum >> 16)) & 0xffff;
}

static void ping_ends(Pinger *pinger, Ping *ping, PingState state)
{
    ping->state = state;
    pinger->waiting--;
    while (pinger->oldest < pinger->pings->len &&
           g_array_index(pinger->pings, Ping, pinger->oldest).state != WAITING) {
        pinger->oldest++;
    }
}

static void send_ping(Pinger *pinger)
{
    static uint8_t bytes[ICMP_LEN + PAYLOAD_MAX];
    Slot *slot = &pinger->slot;
    Ping ping = { .sent = now(), .state = WAITING };
    guint number = pinger->pings->len;
    size_t len = ICMP_LEN + slot->job->size;

    memset(bytes, 0, ICMP_LEN);
    bytes[0] = is_ipv6(slot) ? ICMP6_ECHO_REQUEST : ICMP_ECHO;
    put16(bytes + 4, pinger->identifier);
    put16(bytes + 6, number);
    content_fill(bytes + ICMP_LEN, slot->job->size, seed_of(slot->job, number), 0);
    if (!is_ipv6(slot)) {
        put16(bytes + 2, checksum(bytes, len));
    }
    if (!pinger->waiting) {
        slot->moved = ping.sent;
    }
    pinger->waiting++;
    g_array_append_val(pinger->pings, ping);
    if (send(slot->fd, bytes, len, 0) < 0) {
        g_autofree char *error = g_strdup_printf("send: %s", g_strerror(errno));

        job_failed(slot->job, error);
        ping_ends(pinger, &g_array_index(pinger->pings, Ping, number), LOST);
    }
}

/* @bytes: ICMP's */
static void take_pong(Pinger *pinger, const uint8_t *bytes, size_t len)
{
    Slot *slot = &pinger->slot;
    uint32_t last = pinger->pings->len - 1;
    uint32_t back;
    Ping *ping;

    if (len < ICMP_LEN || bytes[0] != (is_ipv6(slot) ? ICMP6_ECHO_REPLY : ICMP_ECHOREPLY) ||
        get16(bytes + 4) != pinger->identifier) {
        return;
    }
    back = (last - get16(bytes + 6)) & 0xffff;
    if (back > last) {
        return;
    }
    ping = &g_array_index(pinger->pings, Ping, last - back);
    if (!is_answer(slot->job, bytes + ICMP_LEN, len - ICMP_LEN, last - back)) {
        job_failed(slot->job, "wrong bytes");
        if (ping->state == WAITING) {
            ping_ends(pinger, ping, LOST);
        }
    } else if (ping->state == WAITING) {
        slot_moved(slot);
        slot->job->bytes += len - ICMP_LEN;
        job_succeeded(slot->job, ping->sent, slot->moved);
        ping_ends(pinger, ping, ANSWERED);
    } else if (ping->state == ANSWERED) {
        slot->job->duplicates++;
    }
}

static void receive_pongs(Pinger *pinger)
{
    static uint8_t bytes[DATAGRAM_MAX];
    ssize_t got;

    while ((got = recv(pinger->slot.fd, bytes, sizeof(bytes), 0)) > 0) {
        size_t header = is_ipv6(&pinger->slot) ? 0 : (bytes[0] & 15u) * 4;

        if ((size_t)got > header) {
            take_pong(pinger, bytes + header, (size_t)got - header);
        }
    }
    /* Errors are about pings that will not be answered: these are counted when their time is over. */
}

static void give_up_old(Pinger *pinger, int64_t time)
{
    Slot *slot = &pinger->slot;

    while (pinger->waiting) {
        Ping *ping = &g_array_index(pinger->pings, Ping, pinger->oldest);

        if (time - ping->sent < (int64_t)slot->job->timeout * SECOND) {
            return;
        }
        job_stood_still(slot->job, slot->moved, time);
        job_failed(slot->job, "timed out");
        ping_ends(pinger, ping, LOST);
    }
}

/* When the next ping is to be sent. */
static int64_t next_due(const Pinger *pinger)
{
    return pinger->slot.began + (int64_t)pinger->pings->len * SECOND / (int64_t)pinger->slot.job->rate;
}

static void ping_wake(Slot *slot)
{
    Pinger *pinger = (Pinger *)slot;
    int64_t time = now();
    int64_t wake = NEVER;

    give_up_old(pinger, time);
    while (next_due(pinger) <= time && !time_is_up(next_due(pinger))) {
        send_ping(pinger);
    }
    if (!time_is_up(next_due(pinger))) {
        wake = next_due(pinger);
    } else if (!pinger->waiting) {
        slot_over(slot);
        return;
    }
    if (pinger->waiting) {
        const Ping *oldest = &g_array_index(pinger->pings, Ping, pinger->oldest);

        wake = MIN(wake, oldest->sent + (int64_t)slot->job->timeout * SECOND);
    }
    slot_wake_at(slot, wake);
}

static void ping_ready(Slot *slot, uint32_t events G_GNUC_UNUSED)
{
    receive_pongs((Pinger *)slot);
    ping_wake(slot);
}

/* A raw socket gets every ICMP packet of the guest's: of no interest but the answers, and after a standstill, many. */
static void set_up_socket(const Slot *slot)
{
    struct icmp6_filter filter6;
    struct icmp_filter filter = { .data = ~(1u << ICMP_ECHOREPLY) };

    setsockopt(slot->fd, SOL_SOCKET, SO_RCVBUFFORCE, &(int) { RECEIVE_BUFFER }, sizeof(int));
    if (is_ipv6(slot)) {
        ICMP6_FILTER_SETBLOCKALL(&filter6);
        ICMP6_FILTER_SETPASS(ICMP6_ECHO_REPLY, &filter6);
        setsockopt(slot->fd, IPPROTO_ICMPV6, ICMP6_FILTER, &filter6, sizeof(filter6));
    } else {
        setsockopt(slot->fd, SOL_RAW, ICMP_FILTER, &filter, sizeof(filter));
    }
}

static void ping_begin(Slot *slot)
{
    Pinger *pinger = (Pinger *)slot;

    if (!slot_connect(slot, SOCK_RAW, is_ipv6(slot) ? IPPROTO_ICMPV6 : IPPROTO_ICMP)) {
        return;
    }
    set_up_socket(slot);
    slot_watch(slot, EPOLLIN);
    if (!pinger->pings) {
        pinger->pings = g_array_new(FALSE, FALSE, sizeof(Ping));
    }
    pinger->identifier = (uint16_t)g_random_int();
    ping_wake(slot);
}

/* Kinds */

static const char *const udp_settings[] = { "address", "port", "at-once", "timeout", "size", NULL };
static const char *const ping_settings[] = { "address", "timeout", "rate", "size", NULL };

const Kind kind_udp = {
    .name = "udp",
    .settings = udp_settings,
    .slot_size = sizeof(Udp),
    .port = ECHO_PORT,
    .size = 100,
    .size_min = SIZE_MIN,
    .size_max = PAYLOAD_MAX,
    .begin = udp_begin,
    .ready = udp_ready,
};

const Kind kind_ping = {
    .name = "ping",
    .settings = ping_settings,
    .slot_size = sizeof(Pinger),
    .size = 56,
    .size_min = SIZE_MIN,
    .size_max = PAYLOAD_MAX,
    .begin = ping_begin,
    .ready = ping_ready,
    .wake = ping_wake,
};
