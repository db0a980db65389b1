/*
 * The bench client: what its jobs, their slots and the kinds of requests have in common
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_BENCH_CLIENT_H
#define TESTS_BENCH_CLIENT_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

/* Time is in microseconds. */
#define MS INT64_C(1000)
#define SECOND (1000 * MS)
#define NEVER INT64_MAX

enum {
    ERRORS_MAX = 8,             /* kinds of errors that a job tells apart */
};

typedef struct Job Job;
typedef struct Slot Slot;

/* What a job can be. */
typedef struct {
    const char *name;
    const char *const *settings;    /* that its word may have */
    size_t slot_size;
    uint64_t port;
    uint64_t size;                  /* default, and what it may be */
    uint64_t size_min;
    uint64_t size_max;
    bool once;                      /* each slot makes one request, unless told to repeat */
    void (*begin)(Slot *slot);      /* a request */
    void (*ready)(Slot *slot, uint32_t events);
    void (*wake)(Slot *slot);       /* its time has come; NULL: that means that the request has timed out */
} Kind;

extern const Kind kind_http, kind_keep_alive, kind_download, kind_upload, kind_random, kind_udp, kind_ping;

/* What is to be done, and what has come of it. */
struct Job {
    const char *word;
    const Kind *kind;
    struct sockaddr_storage address;
    socklen_t address_len;

    /* Settings */
    char *host;
    char *path;
    char *expect;               /* NULL: anything */
    uint64_t port;
    uint64_t at_once;
    uint64_t size;
    uint64_t rate;              /* per second */
    uint64_t timeout;           /* seconds */
    bool repeat;
    uint64_t salt;              /* makes its requests unlike those of other jobs, and of other runs */

    uint64_t begun;             /* requests */
    uint64_t failures;
    uint64_t duplicates;
    uint64_t bytes;             /* payload that has come, or gone if it is an upload */
    int64_t ended;              /* when the last request did */
    int64_t gap;                /* longest time without progress */
    GArray *latencies;          /* int64_t, of the requests that succeeded */
    struct {
        char *text;
        uint64_t count;
    } errors[ERRORS_MAX];
};

/* One of the requests that a job has under way at once; the kind's own structure begins with it. */
struct Slot {
    Job *job;
    int fd;                     /* -1: none */
    uint32_t events;            /* waited for */
    uint64_t number;            /* of the request, counted in its job from 1 */
    int64_t began;
    int64_t moved;              /* when it last made progress */
    int64_t wake;               /* when to look after it */
    bool pausing;               /* between two requests */
};

/* client-job.c */

/* The job that @word describes; ends the program if that is none. */
Job *job_new(const char *word, uint64_t timeout);
void job_succeeded(Job *job, int64_t began, int64_t ended);
void job_failed(Job *job, const char *error);
/* Nothing has moved from @since until @time. */
void job_stood_still(Job *job, int64_t since, int64_t time);
/* What has come of it, as JSON. */
void job_print(Job *job, int64_t began);

/* client.c */

G_NORETURN void fail(const char *format, ...) G_GNUC_PRINTF(1, 2);
static inline int64_t now(void)
{
    return g_get_monotonic_time();
}
/* Whether no further requests are to begin. */
bool time_is_up(int64_t time);
/* Connects a socket and takes it for @slot's.  If that goes wrong, the request has failed. */
bool slot_connect(Slot *slot, int type, int protocol);
void slot_watch(Slot *slot, uint32_t events);
void slot_wake_at(Slot *slot, int64_t time);
void slot_close(Slot *slot);
/* The request has made progress. */
void slot_moved(Slot *slot);
/* The request ended well; its answer was complete at @ended.  Begins the next one. */
void slot_succeeded(Slot *slot, int64_t ended);
/* The request has gone wrong.  Its connection is closed, and after a pause comes the next one. */
void slot_failed(Slot *slot, const char *format, ...) G_GNUC_PRINTF(2, 3);
/* The slot has nothing left to do. */
void slot_over(Slot *slot);

/* client-content.c: the same bytes as guestd makes them */

/* Fills @bytes with the content of @seed from @offset, which is a multiple of 8. */
void content_fill(uint8_t *bytes, size_t len, uint64_t seed, uint64_t offset);
/* Whether @bytes are the content of @seed from @offset. */
bool content_matches(const uint8_t *bytes, size_t len, uint64_t seed, uint64_t offset);

#endif /* TESTS_BENCH_CLIENT_H */
