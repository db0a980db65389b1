/*
 * The bench client's requests over HTTP/1.1
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A request's text lies in `out` until it is sent; an upload's body follows it through there, piece by piece.  Of the
 * answer, the header is kept, and the body is checked as it comes.  Unless the connection is to stay, the guest closes
 * it: that we wait for, so that TIME-WAIT is the guest's and no port here stays taken.
 */

#include "client.h"

#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#define READ_BYTES (256 * 1024)
#define WRITE_BYTES (64 * 1024)         /* a multiple of 8 */

enum {
    HTTP_PORT = 80,
    HEADER_MAX = 4096,
    HASH_DIGITS = 16,
    RANDOM_MAX = 1000000,
};

#define ANY_LENGTH UINT64_MAX
#define TRANSFER_MAX UINT64_C(1000000000000)

typedef struct Http Http;

/* Whether the answer's next bytes, which follow http->got, are right. */
typedef bool Check(Http *http, const uint8_t *bytes, size_t len);

struct Http {
    Slot slot;
    bool stays;                 /* the connection, when the request has ended */
    bool connected;

    /* The request */
    GByteArray *out;
    size_t sent;                /* of out */
    uint64_t body_len;
    uint64_t body_made;
    GChecksum *checksum;        /* of the body made so far */

    /* The answer */
    Check *check;
    uint64_t wanted;            /* length of its body */
    char header[HEADER_MAX + 1];
    size_t header_len;
    bool in_body;
    uint64_t length;            /* of its body, by its header */
    uint64_t got;
    int64_t complete;           /* when all of it had come; 0: not yet */
    const char *expect;
    uint64_t hash;
    char digits[HASH_DIGITS + 1];
};

/* Checks */

static bool check_text(Http *http, const uint8_t *bytes, size_t len)
{
    return !http->expect || memcmp(bytes, http->expect + http->got, len) == 0;
}

static bool check_content(Http *http, const uint8_t *bytes, size_t len)
{
    return content_matches(bytes, len, http->slot.number, http->got);
}

/* FNV-1a, 64 bits: the hash of what @hash is the hash of, followed by @bytes. */
static uint64_t hash_add(uint64_t hash, const uint8_t *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        hash = (hash ^ bytes[i]) * 0x100000001b3u;
    }
    return hash;
}

/* Random bytes, and then their hash. */
static bool check_random(Http *http, const uint8_t *bytes, size_t len)
{
    uint64_t size = http->slot.job->size;
    size_t random = http->got < size ? MIN(len, size - http->got) : 0;
    char right[HASH_DIGITS + 1];

    if (http->got == 0) {
        http->hash = 0xcbf29ce484222325u;
    }
    http->hash = hash_add(http->hash, bytes, random);
    if (len > random) {
        memcpy(http->digits + (http->got + random - size), bytes + random, len - random);
    }
    if (http->got + len < http->wanted) {
        return true;
    }
    snprintf(right, sizeof(right), "%016" PRIx64, http->hash);
    return memcmp(http->digits, right, HASH_DIGITS) == 0;
}

/* Sending */

/* The next piece of an upload, if there is one. */
static void make_body(Http *http)
{
    size_t len = MIN(http->body_len - http->body_made, WRITE_BYTES);

    http->sent = 0;
    g_byte_array_set_size(http->out, (guint)len);
    if (len) {
        content_fill(http->out->data, len, http->slot.number, http->body_made);
        g_checksum_update(http->checksum, http->out->data, (gssize)len);
        http->body_made += len;
    }
}

static bool all_sent(const Http *http)
{
    return http->sent == http->out->len && http->body_made == http->body_len;
}

static void send_some(Http *http)
{
    Slot *slot = &http->slot;
    ssize_t done = send(slot->fd, http->out->data + http->sent, http->out->len - http->sent, MSG_NOSIGNAL);

    if (done < 0 && errno != EAGAIN) {
        slot_failed(slot, "send: %s", g_strerror(errno));
        return;
    }
    if (done > 0) {
        slot_moved(slot);
        http->connected = true;
        slot->job->bytes += http->body_made ? (uint64_t)done : 0;
        http->sent += (size_t)done;
    }
    if (http->sent == http->out->len) {
        make_body(http);
    }
    slot_watch(slot, all_sent(http) ? EPOLLIN : EPOLLIN | EPOLLOUT);
}

/* Receiving */

static bool read_length(const char *header, uint64_t *length)
{
    static const char name[] = "\r\nContent-Length:";

    for (const char *line = strstr(header, "\r\n"); line; line = strstr(line + 2, "\r\n")) {
        if (g_ascii_strncasecmp(line, name, strlen(name)) == 0) {
            *length = g_ascii_strtoull(line + strlen(name), NULL, 10);
            return true;
        }
    }
    return false;
}

/* Looks at the header, now that it is there.  Returns false if the request has failed by it. */
static bool judge_header(Http *http)
{
    Slot *slot = &http->slot;
    int status;

    if (sscanf(http->header, "HTTP/1.%*d %d", &status) != 1) {
        slot_failed(slot, "no HTTP header");
    } else if (status != 200) {
        slot_failed(slot, "status %d", status);
    } else if (!all_sent(http)) {
        slot_failed(slot, "answered before all was sent");
    } else if (!read_length(http->header, &http->length)) {
        slot_failed(slot, "no Content-Length");
    } else if (http->wanted != ANY_LENGTH && http->length != http->wanted) {
        slot_failed(slot, "wrong length");
    } else {
        if (http->body_len) {
            http->expect = g_checksum_get_string(http->checksum);
        }
        http->in_body = true;
        return true;
    }
    return false;
}

/* Takes the header's part of @bytes and says how much that was; SIZE_MAX: the request has failed. */
static size_t take_header(Http *http, const uint8_t *bytes, size_t len)
{
    size_t before = http->header_len;
    size_t n = MIN(len, HEADER_MAX - before);
    const char *end;

    memcpy(http->header + before, bytes, n);
    http->header_len += n;
    http->header[http->header_len] = '\0';
    end = strstr(http->header, "\r\n\r\n");
    if (end) {
        return judge_header(http) ? (size_t)(end + 4 - http->header) - before : SIZE_MAX;
    }
    if (http->header_len == HEADER_MAX) {
        slot_failed(&http->slot, "no HTTP header");
        return SIZE_MAX;
    }
    return n;
}

/* Returns false if the request has failed by it. */
static bool take_body(Http *http, const uint8_t *bytes, size_t len)
{
    if (len > http->length - http->got) {
        slot_failed(&http->slot, "more than the answer");
        return false;
    }
    if (!http->check(http, bytes, len)) {
        slot_failed(&http->slot, "wrong bytes");
        return false;
    }
    http->got += len;
    if (!http->body_len) {
        http->slot.job->bytes += len;
    }
    return true;
}

static void take(Http *http, const uint8_t *bytes, size_t len)
{
    size_t header = http->in_body ? 0 : take_header(http, bytes, len);

    if (header == SIZE_MAX || !http->in_body || !take_body(http, bytes + header, len - header)) {
        return;
    }
    if (http->got == http->length && !http->complete) {
        http->complete = http->slot.moved;
        if (http->stays) {
            slot_succeeded(&http->slot, http->complete);
        }
    }
}

static void receive_some(Http *http)
{
    static uint8_t bytes[READ_BYTES];
    Slot *slot = &http->slot;
    ssize_t got = recv(slot->fd, bytes, sizeof(bytes), 0);

    if (got < 0) {
        if (errno != EAGAIN) {
            slot_failed(slot, "%s: %s", http->connected ? "receive" : "connect", g_strerror(errno));
        }
        return;
    }
    slot_moved(slot);
    if (got > 0) {
        take(http, bytes, (size_t)got);
    } else if (http->complete) {
        slot_close(slot);
        slot_succeeded(slot, http->complete);
    } else {
        slot_failed(slot, http->header_len ? "short answer" : "closed without an answer");
    }
}

static void http_ready(Slot *slot, uint32_t events)
{
    Http *http = (Http *)slot;

    /* An answer that comes too early is looked at first: it may say why sending goes no further. */
    if (events & (EPOLLIN | EPOLLERR | EPOLLHUP)) {
        receive_some(http);
    } else {
        send_some(http);
    }
}

/* Requests */

static void forget_the_last(Http *http)
{
    if (!http->out) {
        http->out = g_byte_array_new();
        http->checksum = g_checksum_new(G_CHECKSUM_SHA256);
    }
    g_checksum_reset(http->checksum);
    http->sent = 0;
    http->body_len = 0;
    http->body_made = 0;
    http->header_len = 0;
    http->in_body = false;
    http->got = 0;
    http->complete = 0;
}

/* Begins the request that begins with the lines that @format says. */
static void request(Http *http, const char *format, ...) G_GNUC_PRINTF(2, 3);
static void request(Http *http, const char *format, ...)
{
    Slot *slot = &http->slot;
    const char *host = slot->job->host;
    g_autofree char *lines = NULL, *text = NULL;
    va_list args;

    va_start(args, format);
    lines = g_strdup_vprintf(format, args);
    va_end(args);
    text = g_strdup_printf(strchr(host, ':') ? "%s\r\nHost: [%s]\r\n%s\r\n" : "%s\r\nHost: %s\r\n%s\r\n", lines, host,
                           http->stays ? "" : "Connection: close\r\n");
    g_byte_array_set_size(http->out, 0);
    g_byte_array_append(http->out, (const uint8_t *)text, (guint)strlen(text));
    if (slot->fd >= 0) {
        send_some(http);
    } else if (slot_connect(slot, SOCK_STREAM, IPPROTO_TCP)) {
        setsockopt(slot->fd, IPPROTO_TCP, TCP_NODELAY, &(int) { 1 }, sizeof(int));
        http->connected = false;
        slot_watch(slot, EPOLLIN | EPOLLOUT);
    }
}

static void begin_get(Http *http)
{
    const Job *job = http->slot.job;

    forget_the_last(http);
    http->check = check_text;
    http->expect = job->expect;
    http->wanted = job->expect ? strlen(job->expect) : ANY_LENGTH;
    request(http, "GET %s HTTP/1.1", job->path);
}

static void begin_http(Slot *slot)
{
    begin_get((Http *)slot);
}

static void begin_keep_alive(Slot *slot)
{
    Http *http = (Http *)slot;

    http->stays = true;
    begin_get(http);
}

static void begin_download(Slot *slot)
{
    Http *http = (Http *)slot;

    forget_the_last(http);
    http->check = check_content;
    http->wanted = slot->job->size;
    request(http, "GET /stream/%" PRIu64 "/%" PRIu64 " HTTP/1.1", slot->job->size, slot->number);
}

static void begin_upload(Slot *slot)
{
    Http *http = (Http *)slot;

    forget_the_last(http);
    http->body_len = slot->job->size;
    http->check = check_text;
    http->wanted = 2 * (uint64_t)g_checksum_type_get_length(G_CHECKSUM_SHA256);
    request(http, "PUT /upload HTTP/1.1\r\nContent-Length: %" PRIu64, http->body_len);
}

static void begin_random(Slot *slot)
{
    Http *http = (Http *)slot;

    forget_the_last(http);
    http->check = check_random;
    http->wanted = slot->job->size + HASH_DIGITS;
    request(http, "GET /random/%" PRIu64 " HTTP/1.1", slot->job->size);
}

/* Kinds */

#define ANY_TCP "address", "port", "at-once", "timeout"
static const char *const get_settings[] = { ANY_TCP, "path", "expect", NULL };
static const char *const transfer_settings[] = { ANY_TCP, "size", "repeat", NULL };
static const char *const random_settings[] = { ANY_TCP, "size", NULL };

const Kind kind_http = {
    .name = "http",
    .settings = get_settings,
    .slot_size = sizeof(Http),
    .port = HTTP_PORT,
    .begin = begin_http,
    .ready = http_ready,
};

const Kind kind_keep_alive = {
    .name = "keep-alive",
    .settings = get_settings,
    .slot_size = sizeof(Http),
    .port = HTTP_PORT,
    .begin = begin_keep_alive,
    .ready = http_ready,
};

const Kind kind_download = {
    .name = "download",
    .settings = transfer_settings,
    .slot_size = sizeof(Http),
    .port = HTTP_PORT,
    .size = 20000000,
    .size_max = TRANSFER_MAX,
    .once = true,
    .begin = begin_download,
    .ready = http_ready,
};

const Kind kind_upload = {
    .name = "upload",
    .settings = transfer_settings,
    .slot_size = sizeof(Http),
    .port = HTTP_PORT,
    .size = 100000000,
    .size_min = 1,
    .size_max = TRANSFER_MAX,
    .once = true,
    .begin = begin_upload,
    .ready = http_ready,
};

const Kind kind_random = {
    .name = "random",
    .settings = random_settings,
    .slot_size = sizeof(Http),
    .port = HTTP_PORT,
    .size = 2000,
    .size_max = RANDOM_MAX,
    .begin = begin_random,
    .ready = http_ready,
};
