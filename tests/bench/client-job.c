/*
 * The bench client's jobs: read from their words, counted, and reported
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "client.h"

#include <inttypes.h>
#include <netdb.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

static const Kind *const kinds[] = {
    &kind_http, &kind_keep_alive, &kind_download, &kind_upload, &kind_random, &kind_udp, &kind_ping,
};

/* Words */

/* Settings that are numbers; size is looked at by kind later. */
static const struct {
    const char *name;
    size_t offset;
    uint64_t min;
    uint64_t max;
} numbers[] = {
    { "port", offsetof(Job, port), 1, 65535 },
    { "at-once", offsetof(Job, at_once), 1, 20000 },
    { "size", offsetof(Job, size), 0, INT64_MAX },
    { "rate", offsetof(Job, rate), 1, 100000 },
    { "timeout", offsetof(Job, timeout), 1, 100000 },
};

static void set_number(Job *job, const char *name, const char *value)
{
    for (guint i = 0; i < G_N_ELEMENTS(numbers); i++) {
        uint64_t min = numbers[i].min, max = numbers[i].max;
        uint64_t *to = (uint64_t *)((char *)job + numbers[i].offset);
        guint64 number;

        if (!g_str_equal(name, numbers[i].name)) {
            continue;
        }
        if (to == &job->size) {
            min = job->kind->size_min;
            max = job->kind->size_max;
        }
        if (!g_ascii_string_to_unsigned(value, 10, min, max, &number, NULL)) {
            fail("job '%s': %s is to be a number from %" PRIu64 " to %" PRIu64 ", not '%s'", job->word, name, min, max,
                 value);
        }
        *to = number;
    }
}

static void set(Job *job, const char *name, const char *value)
{
    if (!g_strv_contains(job->kind->settings, name)) {
        g_autofree char *known = g_strjoinv(", ", (char **)job->kind->settings);

        fail("job '%s': there is no setting '%s'; %s has %s", job->word, name, job->kind->name, known);
    }
    if (g_str_equal(name, "address")) {
        job->host = g_strdup(value);
    } else if (g_str_equal(name, "path")) {
        job->path = g_strdup(value);
    } else if (g_str_equal(name, "expect")) {
        job->expect = g_strcompress(value);
    } else if (g_str_equal(name, "repeat")) {
        if (!g_str_equal(value, "on") && !g_str_equal(value, "off")) {
            fail("job '%s': repeat is to be on or off, not '%s'", job->word, value);
        }
        job->repeat = g_str_equal(value, "on");
    } else {
        set_number(job, name, value);
    }
}

static const Kind *find_kind(const char *word, const char *name)
{
    g_autoptr(GString) known = g_string_new(NULL);

    for (guint i = 0; i < G_N_ELEMENTS(kinds); i++) {
        if (g_str_equal(name, kinds[i]->name)) {
            return kinds[i];
        }
        g_string_append_printf(known, "%s%s", i ? ", " : "", kinds[i]->name);
    }
    fail("job '%s': there is no kind '%s'; it is to be one of %s", word, name, known->str);
}

static void find_address(Job *job)
{
    struct addrinfo hints = { .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM };
    g_autofree char *port = g_strdup_printf("%" PRIu64, job->port);
    struct addrinfo *found;

    if (!job->host) {
        fail("job '%s': whom to ask is missing; add address=A, IPv4 or IPv6", job->word);
    }
    if (getaddrinfo(job->host, port, &hints, &found)) {
        fail("job '%s': address is to be an IPv4 or IPv6 address in numbers, not '%s'", job->word, job->host);
    }
    memcpy(&job->address, found->ai_addr, found->ai_addrlen);
    job->address_len = found->ai_addrlen;
    freeaddrinfo(found);
}

Job *job_new(const char *word, uint64_t timeout)
{
    g_auto(GStrv) parts = g_strsplit(word, ",", -1);
    Job *job = g_new0(Job, 1);

    job->word = word;
    job->kind = find_kind(word, parts[0] ? parts[0] : "");
    job->port = job->kind->port;
    job->size = job->kind->size;
    job->at_once = 1;
    job->rate = 10;
    job->timeout = timeout;
    job->salt = (uint64_t)g_random_int() << 32 | g_random_int();
    job->latencies = g_array_new(FALSE, FALSE, sizeof(int64_t));
    for (char **part = parts + 1; *part; part++) {
        char *value = strchr(*part, '=');

        if (!value) {
            fail("job '%s': '%s' is no setting; write NAME=VALUE", word, *part);
        }
        *value = '\0';
        set(job, *part, value + 1);
    }
    find_address(job);
    if (!job->path) {
        job->path = g_strdup("/");
    }
    if (!job->expect && g_str_equal(job->path, "/")) {
        job->expect = g_strdup("ready\n");
    }
    return job;
}

/* Counting */

void job_stood_still(Job *job, int64_t since, int64_t time)
{
    job->gap = MAX(job->gap, time - since);
}

void job_succeeded(Job *job, int64_t began, int64_t ended)
{
    int64_t latency = ended - began;

    g_array_append_val(job->latencies, latency);
    job->ended = ended;
}

void job_failed(Job *job, const char *error)
{
    int i;

    job->failures++;
    job->ended = now();
    for (i = 0; i < ERRORS_MAX - 1; i++) {
        if (!job->errors[i].text || g_str_equal(job->errors[i].text, error)) {
            break;
        }
    }
    if (!job->errors[i].text) {
        job->errors[i].text = g_strdup(i == ERRORS_MAX - 1 ? "others" : error);
    }
    job->errors[i].count++;
}

/* Reporting */

static void print_string(const char *text)
{
    putchar('"');
    for (; *text; text++) {
        if (*text == '"' || *text == '\\') {
            printf("\\%c", *text);
        } else if (g_ascii_iscntrl(*text)) {
            printf("\\u%04x", *text);
        } else {
            putchar(*text);
        }
    }
    putchar('"');
}

static int compare(gconstpointer a, gconstpointer b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return (x > y) - (x < y);
}

/* The smallest latency that @percent of all do not exceed. */
static double percentile(const GArray *sorted, guint percent)
{
    guint rank = (guint)(((uint64_t)sorted->len * percent + 99) / 100);

    return (double)g_array_index(sorted, int64_t, rank - 1) / MS;
}

static void print_latencies(GArray *latencies)
{
    double sum = 0;

    if (!latencies->len) {
        printf("\"p50\": null, \"p99\": null, \"max\": null, \"mean\": null");
        return;
    }
    g_array_sort(latencies, compare);
    for (guint i = 0; i < latencies->len; i++) {
        sum += (double)g_array_index(latencies, int64_t, i) / MS;
    }
    printf("\"p50\": %.3f, \"p99\": %.3f, \"max\": %.3f, \"mean\": %.3f", percentile(latencies, 50),
           percentile(latencies, 99), percentile(latencies, 100), sum / latencies->len);
}

void job_print(Job *job, int64_t began)
{
    printf("{\"job\": ");
    print_string(job->word);
    printf(", \"requests\": %u, \"failures\": %" PRIu64 ", \"duplicates\": %" PRIu64 ", \"errors\": {",
           job->latencies->len, job->failures, job->duplicates);
    for (int i = 0; i < ERRORS_MAX && job->errors[i].text; i++) {
        printf("%s", i ? ", " : "");
        print_string(job->errors[i].text);
        printf(": %" PRIu64, job->errors[i].count);
    }
    printf("}, \"bytes\": %" PRIu64 ", \"seconds\": %.6f, ", job->bytes,
           job->ended ? (double)(job->ended - began) / SECOND : 0);
    print_latencies(job->latencies);
    printf(", \"gap\": %.3f}", (double)job->gap / MS);
}
