/*
 * The bench client: one host's clients of the test guest's services, all they get checked and timed
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Theory of operation
 *
 * Each job has so many slots, and each slot one request under way.  When that has ended, the slot begins the next one,
 * until the time is up or the job's work is done.  One thread waits for all sockets (epoll, level-triggered) and for
 * the time at which a slot is to be looked after: because its request has taken too long, because a pause after a
 * failure is over, or because a ping is due.
 *
 * A request that fails is no failure of this program: it is counted by what went wrong, and the slot goes on.  The
 * figures are printed as one JSON object.
 */

#include "client.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>

/* After a failure, so that a server that is gone is not hammered. */
#define PAUSE (10 * MS)

static double option_seconds = 10;
static gint64 option_timeout = 30;
static char **option_jobs;

static const GOptionEntry options[] = {
    { "seconds", 0, 0, G_OPTION_ARG_DOUBLE, &option_seconds, "begin new requests for so long (10)", "SECONDS" },
    { "timeout", 0, 0, G_OPTION_ARG_INT64, &option_timeout, "a request that takes longer has failed (30)", "SECONDS" },
    { G_OPTION_REMAINING, 0, 0, G_OPTION_ARG_STRING_ARRAY, &option_jobs, NULL, NULL },
    { NULL }
};

static const char description[] =
    "Jobs run beside each other. Each is a kind and its settings, for example http,address=10.0.0.2,at-once=8\n"
    "\n"
    "  http         GET, a connection for each request: at-once (1), path (/), expect\n"
    "  keep-alive   GET on persistent connections: at-once (1), path (/), expect\n"
    "  download     /stream/SIZE/NUMBER, one in each slot, every byte checked: at-once (1), size (20000000), repeat\n"
    "  upload       the answer must be its SHA-256: at-once (1), size (100000000), repeat\n"
    "  random       /random/SIZE, whose hash must be right: at-once (1), size (2000)\n"
    "  udp          the echo service: at-once (1), size (100)\n"
    "  ping         ICMP or ICMPv6 echo, needs root: rate (10) a second, size (56)\n"
    "\n"
    "  address=A    of the guest, IPv4 or IPv6          port=N      (80, udp: 7)\n"
    "  at-once=N    requests under way                  timeout=N   seconds, instead of --timeout\n"
    "  expect=TEXT  the answer must be this; \\n and \\054 (a comma) can be written so\n"
    "  repeat=on    download, upload: go on for --seconds instead of one for each slot\n"
    "\n"
    "Prints a JSON object; requests that failed are counted there and do not change the exit status.\n";

/* The loop, of which there is one */
static int epoll = -1;
static GPtrArray *slots;
static guint slots_busy;
static int64_t began;
static int64_t next_wake = NEVER;   /* no slot wants to be woken before */

void fail(const char *format, ...)
{
    va_list args;

    fprintf(stderr, "colo-bench-client: ");
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, "\n");
    exit(1);
}

bool time_is_up(int64_t time)
{
    return time - began >= (int64_t)(option_seconds * SECOND);
}

/* Slots */

void slot_watch(Slot *slot, uint32_t events)
{
    struct epoll_event event = { .events = events, .data.ptr = slot };

    if (events == slot->events) {
        return;
    }
    if (epoll_ctl(epoll, slot->events ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, slot->fd, &event) < 0) {
        fail("epoll: %s", g_strerror(errno));
    }
    slot->events = events;
}

void slot_wake_at(Slot *slot, int64_t time)
{
    slot->wake = time;
    next_wake = MIN(next_wake, time);
}

bool slot_connect(Slot *slot, int type, int protocol)
{
    const Job *job = slot->job;

    slot->fd = socket(job->address.ss_family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, protocol);
    if (slot->fd < 0) {
        /* Our own host's fault, not the guest's. */
        fail("job '%s': cannot have a socket: %s%s", job->word, g_strerror(errno),
             type == SOCK_RAW ? "; pings need root" : "");
    }
    if (connect(slot->fd, (const struct sockaddr *)&job->address, job->address_len) < 0 && errno != EINPROGRESS) {
        slot_failed(slot, "connect: %s", g_strerror(errno));
        return false;
    }
    return true;
}

/* This ends watching it, too. */
void slot_close(Slot *slot)
{
    if (slot->fd >= 0) {
        close(slot->fd);
    }
    slot->fd = -1;
    slot->events = 0;
}

void slot_moved(Slot *slot)
{
    int64_t time = now();

    job_stood_still(slot->job, slot->moved, time);
    slot->moved = time;
}

void slot_over(Slot *slot)
{
    slot_close(slot);
    slot->wake = NEVER;
    slots_busy--;
}

static bool has_work(const Job *job, int64_t time)
{
    return job->kind->once && !job->repeat ? job->begun < job->at_once : !time_is_up(time);
}

static void slot_next(Slot *slot)
{
    Job *job = slot->job;
    int64_t time = now();

    if (!has_work(job, time)) {
        slot_over(slot);
        return;
    }
    slot->number = ++job->begun;
    slot->began = time;
    slot->moved = time;
    slot->pausing = false;
    slot_wake_at(slot, time + (int64_t)job->timeout * SECOND);
    job->kind->begin(slot);
}

void slot_succeeded(Slot *slot, int64_t ended)
{
    job_succeeded(slot->job, slot->began, ended);
    slot_next(slot);
}

void slot_failed(Slot *slot, const char *format, ...)
{
    struct linger at_once = { .l_onoff = 1 };
    g_autofree char *error = NULL;
    va_list args;

    va_start(args, format);
    error = g_strdup_vprintf(format, args);
    va_end(args);
    slot_moved(slot);
    job_failed(slot->job, error);
    /* A reset: the guest is told, and nothing of the connection stays here. */
    setsockopt(slot->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
    slot_close(slot);
    slot->pausing = true;
    slot_wake_at(slot, slot->moved + PAUSE);
}

static void slot_wake(Slot *slot)
{
    if (slot->pausing) {
        slot_next(slot);
    } else if (slot->job->kind->wake) {
        slot->job->kind->wake(slot);
    } else {
        slot_failed(slot, "timed out");
    }
}

/* The loop */

static void wake_slots(void)
{
    int64_t time = now();

    if (time < next_wake) {
        return;
    }
    next_wake = NEVER;
    for (guint i = 0; i < slots->len; i++) {
        Slot *slot = g_ptr_array_index(slots, i);

        if (slot->wake <= time) {
            slot_wake(slot);
        }
        next_wake = MIN(next_wake, slot->wake);
    }
}

static void run(void)
{
    struct epoll_event events[256];

    while (slots_busy) {
        int64_t wait = next_wake - now();
        int n = epoll_wait(epoll, events, G_N_ELEMENTS(events), (int)CLAMP((wait + MS - 1) / MS, 0, 60000));

        if (n < 0 && errno != EINTR) {
            fail("epoll: %s", g_strerror(errno));
        }
        /* A slot has one socket and touches no other slot, so none of these events is about a socket that is closed. */
        for (int i = 0; i < n; i++) {
            Slot *slot = events[i].data.ptr;

            slot->job->kind->ready(slot, events[i].events);
        }
        wake_slots();
    }
}

static void add_slots(Job *job)
{
    for (uint64_t i = 0; i < job->at_once; i++) {
        Slot *slot = g_malloc0(job->kind->slot_size);

        slot->job = job;
        slot->fd = -1;
        slot->wake = NEVER;
        g_ptr_array_add(slots, slot);
    }
}

static void allow_many_files(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static void parse_options(int argc, char **argv)
{
    g_autoptr(GOptionContext) context = g_option_context_new("JOB...");
    g_autoptr(GError) error = NULL;

    g_option_context_add_main_entries(context, options, NULL);
    g_option_context_set_description(context, description);
    if (!g_option_context_parse(context, &argc, &argv, &error)) {
        fail("%s; see --help", error->message);
    }
    if (!option_jobs) {
        fail("no job given; name one, such as http,address=10.0.0.2 (see --help)");
    }
    if (!(option_seconds >= 0 && option_seconds <= 1e6)) {
        fail("--seconds is to be a number from 0 to 1000000");
    }
    if (option_timeout < 1 || option_timeout > 100000) {
        fail("--timeout is to be a number from 1 to 100000");
    }
}

int main(int argc, char **argv)
{
    g_autoptr(GPtrArray) jobs = g_ptr_array_new();

    parse_options(argc, argv);
    allow_many_files();
    epoll = epoll_create1(EPOLL_CLOEXEC);
    slots = g_ptr_array_new();
    for (char **word = option_jobs; *word; word++) {
        Job *job = job_new(*word, (uint64_t)option_timeout);

        g_ptr_array_add(jobs, job);
        add_slots(job);
    }
    slots_busy = slots->len;
    began = now();
    for (guint i = 0; i < slots->len; i++) {
        slot_next(g_ptr_array_index(slots, i));
    }
    run();
    printf("{\"seconds\": %.6f, \"jobs\": [", (double)(now() - began) / SECOND);
    for (guint i = 0; i < jobs->len; i++) {
        printf("%s\n  ", i ? "," : "");
        job_print(g_ptr_array_index(jobs, i), began);
    }
    printf("\n]}\n");
    return 0;
}
