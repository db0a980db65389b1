/*
 * The core without I/O: packets per second, bytes per idle flow, the cost of many flows and of chosen keys
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Theory of operation
 *
 * Both sides' output is made up as it goes: one frame lies ready, and addresses, port and sequence number are written into it for
 * each packet, which costs a few nanoseconds.  The sides take turns of BATCH bytes, as reads from two chardevs do: so one
 * side's packets are held when the other's come, and nothing is flattered.  A packet that is counted has come from both sides
 * and has been released: two frames in, one out.
 *
 * Prints lines of "name value unit", for scripts/bench.
 */

#include <inttypes.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "net/colo/checksum.h"
#include "net/colo/comparator.h"

#define BATCH (64 * 1024)
#define SECOND (1000 * 1000 * 1000LL)

enum {
    ETH = 14,
    IP = 20,
    TCP = 20,
    HEADERS = ETH + IP + TCP,
};

typedef struct {
    ColoComparator *comparator;
    uint8_t frame[COLO_FRAME_MAX];
    uint32_t payload;
    uint32_t *seq[COLO_SIDES];      /* of each flow */
    uint32_t flows;
    uint32_t turn[COLO_SIDES];      /* the flow whose packet is next */
    uint32_t (*pick)(uint32_t flow);        /* its address, from its number */
    uint64_t released;
    uint64_t divergences;
    int64_t now;
} Bench;

static void release(const uint8_t *frame, uint32_t size, uint32_t vnet_len, void *opaque)
{
    Bench *b = opaque;

    (void)frame;
    (void)size;
    (void)vnet_len;
    b->released++;
}

static void diverged(ColoReason reason, const ColoFlowKey *flow, void *opaque)
{
    Bench *b = opaque;

    (void)reason;
    (void)flow;
    b->divergences++;
}

static const ColoComparatorOps ops = { .release = release, .diverged = diverged };

static uint32_t in_order(uint32_t flow)
{
    return 0x0a000000 + flow;
}

/* Any number, but always the same for a flow. */
static uint32_t scattered(uint32_t flow)
{
    flow = (flow ^ flow >> 16) * 0x45d9f3bu;
    flow = (flow ^ flow >> 16) * 0x45d9f3bu;
    return flow ^ flow >> 16;
}

/* Flows that a hash of the low bits alone would throw together. */
static uint32_t colliding(uint32_t flow)
{
    return flow << 12;
}

static void bench_init(Bench *b, uint32_t flows, uint32_t payload, uint32_t (*pick)(uint32_t))
{
    static const uint8_t eth[ETH] = { 2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00 };
    ColoComparatorConfig config = { .timeout = 3 * SECOND, .queue_size = 1024, .secret = "0123456789abcde" };
    uint8_t *ip = b->frame + ETH;
    uint8_t *tcp = ip + IP;

    memset(b, 0, sizeof(*b));
    b->flows = flows;
    b->payload = payload;
    b->pick = pick;
    b->seq[COLO_PRIMARY] = g_new0(uint32_t, flows);
    b->seq[COLO_SECONDARY] = g_new0(uint32_t, flows);
    memcpy(b->frame, eth, ETH);
    ip[0] = 0x45;
    colo_put_be16(ip + 2, (uint16_t)(IP + TCP + payload));
    ip[8] = 64;
    ip[9] = COLO_PROTO_TCP;
    colo_put_be32(ip + 12, 0xc0000201);
    colo_put_be16(tcp, 80);
    colo_put_be16(tcp + 2, 40000);
    tcp[12] = 5 << 4;
    tcp[13] = COLO_TCP_ACK;
    memset(tcp + TCP, 'x', payload);
    b->comparator = colo_comparator_new(&config, &ops, b);
    colo_comparator_set_comparing(b->comparator, true, b->now);
}

static void bench_end(Bench *b)
{
    if (b->divergences) {
        fprintf(stderr, "colo-bench-core: %" PRIu64 " divergences where both sides are the same\n", b->divergences);
        exit(1);
    }
    colo_comparator_free(b->comparator);
    g_free(b->seq[COLO_PRIMARY]);
    g_free(b->seq[COLO_SECONDARY]);
}

static void send_batch(Bench *b, ColoSide side, uint32_t packets)
{
    uint8_t *ip = b->frame + ETH;

    for (uint32_t i = 0; i < packets; i++) {
        uint32_t flow = b->turn[side];

        b->turn[side] = flow + 1 == b->flows ? 0 : flow + 1;
        colo_put_be32(ip + 16, b->pick(flow));
        colo_put_be32(ip + IP + 4, b->seq[side][flow]);
        b->seq[side][flow] += b->payload;
        colo_comparator_packet(b->comparator, side, b->frame, HEADERS + b->payload, 0, b->now);
    }
    colo_comparator_flush(b->comparator);
}

/* Seconds of processor time that it takes to get @packets through. */
static double run(Bench *b, uint64_t packets)
{
    struct timespec from, to;
    uint64_t due = b->released + packets;
    uint64_t batch = MAX(BATCH / (HEADERS + b->payload), 1);

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &from);
    for (uint64_t sent = 0; sent < packets; sent += batch) {
        b->now += 10000;
        send_batch(b, COLO_PRIMARY, (uint32_t)MIN(batch, packets - sent));
        send_batch(b, COLO_SECONDARY, (uint32_t)MIN(batch, packets - sent));
    }
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &to);
    if (b->released != due) {
        fprintf(stderr, "colo-bench-core: %" PRIu64 " packets were not released\n", due - b->released);
        exit(1);
    }
    return (double)(to.tv_sec - from.tv_sec) + (double)(to.tv_nsec - from.tv_nsec) / 1e9;
}

static double through(uint32_t flows, uint32_t payload, uint32_t (*pick)(uint32_t), uint64_t packets)
{
    Bench *b = g_new(Bench, 1);
    double seconds;

    bench_init(b, flows, payload, pick);
    run(b, MAX(flows, 1000));      /* all flows are there, and memory is warm */
    seconds = run(b, packets);
    bench_end(b);
    g_free(b);
    return seconds / (double)packets;
}

static void case_packets(uint64_t packets)
{
    static const struct {
        const char *name;
        uint32_t flows, payload;
    } cells[] = {
        { "packets-64x1", 1, 64 },           { "packets-64x64", 64, 64 },
        { "packets-64x1000", 1000, 64 },     { "packets-1460x1", 1, 1460 },
        { "packets-1460x64", 64, 1460 },     { "packets-1460x1000", 1000, 1460 },
        { "packets-60000x1", 1, 60000 },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cells); i++) {
        uint64_t n = cells[i].payload > 10000 ? packets / 100 : packets;
        double each = through(cells[i].flows, cells[i].payload, in_order, MAX(n, 1));

        printf("%s %.0f packets/s\n", cells[i].name, 1 / each);
    }
}

static void case_flows(uint64_t packets)
{
    double few = through(1000, 64, in_order, packets);
    double many = through(1000 * 1000, 64, in_order, MAX(packets, 1000 * 1000));

    printf("cost-1000-flows %.1f ns/packet\n", few * 1e9);
    printf("cost-1000000-flows %.1f ns/packet\n", many * 1e9);
    printf("cost-ratio %.2f x\n", many / few);
}

static void case_keys(uint64_t packets)
{
    double random = through(100 * 1000, 64, scattered, packets);
    double chosen = through(100 * 1000, 64, colliding, packets);

    printf("cost-random-keys %.1f ns/packet\n", random * 1e9);
    printf("cost-chosen-keys %.1f ns/packet\n", chosen * 1e9);
    printf("cost-ratio-keys %.2f x\n", chosen / random);
}

static size_t memory(void)
{
    struct mallinfo2 info = mallinfo2();

    return info.uordblks + info.hblkhd;
}

/* What a million flows take that have carried a packet each, a while ago. */
static void case_memory(uint64_t packets)
{
    enum { FLOWS = 1000 * 1000 };
    Bench *b = g_new(Bench, 1);
    size_t before;

    (void)packets;
    bench_init(b, FLOWS, 64, in_order);
    before = memory();
    run(b, FLOWS);
    b->now += 600 * SECOND;
    b->turn[COLO_PRIMARY] = b->turn[COLO_SECONDARY] = 0;
    run(b, 1000);
    printf("memory-idle-flow %.1f bytes\n", (double)(memory() - before) / colo_comparator_flows(b->comparator));
    bench_end(b);
    g_free(b);
}

static const struct {
    const char *name;
    void (*run)(uint64_t packets);
} cases[] = {
    { "packets", case_packets },
    { "flows", case_flows },
    { "keys", case_keys },
    { "memory", case_memory },
};

/* One cell of `packets` only, for callgrind: "instructions FLOWSxPAYLOAD". */
static void one_cell(const char *cell, uint64_t packets)
{
    unsigned int flows, payload;

    if (sscanf(cell, "%ux%u", &payload, &flows) != 2 || !flows || payload > 65000) {
        fprintf(stderr, "colo-bench-core: '%s' is no cell; one is PAYLOADxFLOWS, such as 64x1000\n", cell);
        exit(1);
    }
    printf("packets-%s %.0f packets/s\n", cell, 1 / through(flows, payload, in_order, packets));
}

int main(int argc, char **argv)
{
    uint64_t packets = 2 * 1000 * 1000;
    int first = 1;

    if (argc > 2 && !strcmp(argv[1], "--packets")) {
        packets = strtoull(argv[2], NULL, 10);
        first = 3;
    }
    if (argc <= first || !packets) {
        fprintf(stderr, "usage: colo-bench-core [--packets N] CASE|PAYLOADxFLOWS...\ncases:");
        for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
            fprintf(stderr, " %s", cases[i].name);
        }
        fprintf(stderr, "\n");
        return 2;
    }
    for (int arg = first; arg < argc; arg++) {
        size_t i = 0;

        while (i < G_N_ELEMENTS(cases) && strcmp(cases[i].name, argv[arg])) {
            i++;
        }
        if (i < G_N_ELEMENTS(cases)) {
            cases[i].run(packets);
        } else {
            one_cell(argv[arg], packets);
        }
    }
    return 0;
}
