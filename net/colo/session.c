/*
 * The session: what the two ends of a colo-proxy say to each other
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Theory of operation
 *
 * A stream of records each way, over one connection: a length, a type, a body (docs/protocol.rst).  Both ends begin with a
 * hello, without waiting for the other's; once it has come and is agreeable, the session is ready.  Anything else that comes, or
 * that comes too early, or that is too long, ends the session: the peer is told why in one line, and so is whoever runs this end.
 *
 * Flow control.  A connection that nobody reads stops the heartbeats, too, so it is always read; what keeps the other end from sending more
 * than can be dealt with is credit.  Each side tells how many bytes of packets may have been sent since the beginning; a
 * total, not a difference, so that nothing is lost by saying it once more.  The last packet may go beyond it.
 *
 * Silence.  At every heartbeat a side that has nothing else to write says that it is alive.  Whatever comes after the hello is a sign
 * of life; a side that hears none for heartbeat_timeout gives the other up.
 *
 * What is to be written lies in one buffer.  There is no room for packets while it is long, however much credit the peer gives; a peer
 * that reads nothing and yet has something to say all the time is given up before the rest can add up to much.
 */

#include "net/colo/session.h"

#include <stdarg.h>
#include <string.h>

#include "net/colo/checksum.h"

static const uint8_t magic[8] = "COLOPRXY";

typedef enum {
    RECORD_HELLO = 1,
    RECORD_GOODBYE = 2,
    RECORD_PACKET = 3,
    RECORD_EPOCH = 4,
    RECORD_CREDIT = 5,
    RECORD_HEARTBEAT = 6,
} RecordType;

/* Before every body: its length (4), its type (1). */
#define HEADER 5
#define HELLO_SIZE 32
/* A later version's hello may go on; so far it is read, and no further. */
#define HELLO_MAX 256
/* A packet's body begins with the length of its virtio-net header (1). */
#define PACKET_MAX (1 + COLO_VNET_HDR_MAX + COLO_FRAME_MAX)

/* Bytes that wait to be written: beyond the first there is no room for packets, beyond the second the peer does not read. */
#define OUT_HIGH (16 * 1024 * 1024)
#define OUT_MAX (2 * OUT_HIGH)

struct ColoSession {
    ColoSessionConfig config;
    const ColoSessionOps *ops;
    void *opaque;
    bool ready;
    bool heard;                 /* more than a hello, and why the session has ended */
    char *error;

    uint8_t *out;
    size_t out_allocated;
    size_t out_written;
    size_t out_end;

    uint64_t sent;              /* bytes of packets */
    uint64_t may_send;          /* as much as the peer has told */
    uint64_t received;
    uint64_t took;
    uint64_t granted;           /* as much as we have told */

    int64_t last_beat;          /* ns */
    int64_t last_heard;

    uint32_t filled;            /* bytes of a record that has come in part */
    uint8_t partial[HEADER + PACKET_MAX];
};

/* Sending */

/* Room for a record's body of @size bytes. */
static uint8_t *append(ColoSession *s, RecordType type, uint32_t size)
{
    uint8_t *record;

    if (s->out_end + HEADER + size > s->out_allocated) {
        if (s->out_written) {
            memmove(s->out, s->out + s->out_written, s->out_end - s->out_written);
            s->out_end -= s->out_written;
            s->out_written = 0;
        }
        if (s->out_end + HEADER + size > s->out_allocated) {
            s->out_allocated = MAX(s->out_allocated * 2, s->out_end + HEADER + size);
            s->out = g_realloc(s->out, s->out_allocated);
        }
    }
    record = s->out + s->out_end;
    colo_put_be32(record, size);
    record[4] = (uint8_t)type;
    s->out_end += HEADER + size;
    return record + HEADER;
}

static void say_hello(ColoSession *s)
{
    uint8_t *body = append(s, RECORD_HELLO, HELLO_SIZE);

    memcpy(body, magic, sizeof(magic));
    colo_put_be16(body + 8, COLO_SESSION_VERSION);      /* the latest we speak */
    colo_put_be16(body + 10, COLO_SESSION_VERSION);     /* the earliest */
    body[12] = s->config.side == COLO_SECONDARY;
    body[13] = body[14] = body[15] = 0;
    colo_put_be64(body + 16, s->granted);
    colo_put_be64(body + 24, s->config.instance);
}

void colo_session_say_goodbye(ColoSession *s, const char *why)
{
    uint32_t len = (uint32_t)MIN(strlen(why), COLO_SESSION_TEXT_MAX);

    memcpy(append(s, RECORD_GOODBYE, len), why, len);
}

/* The session is over: the peer is told, and colo_session_error() tells the same. */
static bool G_GNUC_PRINTF(2, 3) refuse(ColoSession *s, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    s->error = g_strdup_vprintf(format, arguments);
    va_end(arguments);
    s->ready = false;
    colo_session_say_goodbye(s, s->error);
    return false;
}

void colo_session_took(ColoSession *s, uint64_t size)
{
    s->took += size;
    if (s->took + s->config.credit - s->granted >= s->config.credit / 4) {
        s->granted = s->took + s->config.credit;
        colo_put_be64(append(s, RECORD_CREDIT, 8), s->granted);
    }
}

bool colo_session_has_room(const ColoSession *s)
{
    return s->sent < s->may_send && colo_session_size(s) < OUT_HIGH;
}

uint8_t *colo_session_append(ColoSession *s, uint32_t size, uint32_t vnet_len)
{
    uint8_t *body = append(s, RECORD_PACKET, 1 + size);

    body[0] = (uint8_t)vnet_len;
    s->sent += size;
    return body + 1;
}

void colo_session_send_epoch(ColoSession *s, uint64_t number)
{
    colo_put_be64(append(s, RECORD_EPOCH, 8), number);
}

/* Receiving */

static bool read_hello(ColoSession *s, const uint8_t *body, uint32_t size)
{
    uint32_t latest, earliest;
    const char *objection;
    bool secondary;

    if (size < HELLO_SIZE || memcmp(body, magic, sizeof(magic)) != 0 || body[12] > 1) {
        return refuse(s, "the other end does not speak colo-proxy's protocol");
    }
    latest = colo_get_be16(body + 8);
    earliest = colo_get_be16(body + 10);
    if (latest < COLO_SESSION_VERSION || earliest > COLO_SESSION_VERSION) {
        return refuse(s, "one end speaks version %d of the protocol, the other %" G_GUINT32_FORMAT " to %" G_GUINT32_FORMAT
                      "; both need the same suite", COLO_SESSION_VERSION, earliest, latest);
    }
    secondary = body[12];
    if (secondary == (s->config.side == COLO_SECONDARY)) {
        return refuse(s, "both ends have mode=%s; one is to be primary, the other secondary",
                      secondary ? "secondary" : "primary");
    }
    s->may_send = colo_get_be64(body + 16);
    s->ready = true;
    objection = s->ops->ready(colo_get_be64(body + 24), s->opaque);
    if (objection) {
        return refuse(s, "%s", objection);
    }
    if (s->config.side == COLO_PRIMARY) {
        append(s, RECORD_HEARTBEAT, 0);     /* so a secondary knows that it is not turned away */
    }
    return true;
}

static bool read_packet(ColoSession *s, const uint8_t *body, uint32_t size)
{
    uint32_t vnet_len = body[0];

    size--;
    if (vnet_len > COLO_VNET_HDR_MAX || vnet_len >= size || size - vnet_len > COLO_FRAME_MAX) {
        return refuse(s, "a packet came of %" G_GUINT32_FORMAT " bytes, %" G_GUINT32_FORMAT " of them header", size, vnet_len);
    }
    if (s->received >= s->granted) {
        return refuse(s, "a packet came that there was no credit for");
    }
    s->received += size;
    s->ops->packet(body + 1, size, vnet_len, s->opaque);
    return true;
}

/* The least and the longest body of each type; none of a type that is not there. */
static bool size_is_possible(uint8_t type, uint32_t size)
{
    switch (type) {
    case RECORD_HELLO:
        return size <= HELLO_MAX;
    case RECORD_GOODBYE:
        return size <= COLO_SESSION_TEXT_MAX;
    case RECORD_PACKET:
        return size > 1 && size <= PACKET_MAX;
    case RECORD_EPOCH:
    case RECORD_CREDIT:
        return size == 8;
    case RECORD_HEARTBEAT:
        return size == 0;
    default:
        return false;
    }
}

static bool read_record(ColoSession *s, uint8_t type, const uint8_t *body, uint32_t size)
{
    if (type == RECORD_GOODBYE) {
        g_autofree char *text = g_strndup((const char *)body, size);
        g_autofree char *safe = g_strescape(text, NULL);

        s->ready = false;
        s->error = g_strdup_printf("the other end says: %s", safe);
        return false;
    }
    if ((type == RECORD_HELLO) == s->ready) {
        return refuse(s, s->ready ? "a second hello came" : "something came before the hello");
    }
    s->heard |= type != RECORD_HELLO;
    switch (type) {
    case RECORD_HELLO:
        return read_hello(s, body, size);
    case RECORD_PACKET:
        return read_packet(s, body, size);
    case RECORD_EPOCH:
        return s->ops->epoch(colo_get_be64(body), s->opaque) || refuse(s, "an epoch came that cannot be yet");
    case RECORD_CREDIT:
        s->may_send = MAX(s->may_send, colo_get_be64(body));
        return true;
    default:
        return true;            /* a heartbeat: that it has come is all it says */
    }
}

/* Bytes that the record at @bytes has, of which @len have come; 0: too few to tell.  False if there is no such record. */
static bool record_size(ColoSession *s, const uint8_t *bytes, size_t len, size_t *size)
{
    *size = 0;
    if (len < HEADER) {
        return true;
    }
    if (!size_is_possible(bytes[4], colo_get_be32(bytes))) {
        return s->ready ? refuse(s, "a record came of type %u and %" G_GUINT32_FORMAT " bytes", bytes[4], colo_get_be32(bytes))
                        : refuse(s, "the other end does not speak colo-proxy's protocol");
    }
    *size = HEADER + (size_t)colo_get_be32(bytes);
    return true;
}

/* Takes one record from the @len bytes, or as much of one as there is.  Returns how much; 0: the session has ended. */
static size_t read_some(ColoSession *s, const uint8_t *bytes, size_t len)
{
    size_t size, taken;

    if (!s->filled) {
        if (!record_size(s, bytes, len, &size)) {
            return 0;
        }
        if (size && size <= len) {
            return read_record(s, bytes[4], bytes + HEADER, (uint32_t)(size - HEADER)) ? size : 0;
        }
    }
    /* Put together: first the header, then as much as it says. */
    if (!record_size(s, s->partial, s->filled, &size)) {
        return 0;
    }
    taken = MIN((size ? size : HEADER) - s->filled, len);
    memcpy(s->partial + s->filled, bytes, taken);
    s->filled += (uint32_t)taken;
    if (!record_size(s, s->partial, s->filled, &size)) {
        return 0;
    }
    if (s->filled == size) {
        s->filled = 0;
        if (!read_record(s, s->partial[4], s->partial + HEADER, (uint32_t)(size - HEADER))) {
            return 0;
        }
    }
    return taken;
}

bool colo_session_read(ColoSession *s, const uint8_t *bytes, size_t len, int64_t now)
{
    while (len && !s->error) {
        size_t taken = read_some(s, bytes, len);

        bytes += taken;
        len -= taken;
    }
    if (s->ready) {
        s->last_heard = now;
    }
    return !s->error;
}

/* Time */

bool colo_session_is_silent(const ColoSession *s, int64_t now)
{
    return now - s->last_heard >= s->config.heartbeat_timeout;
}

bool colo_session_tick(ColoSession *s, int64_t now)
{
    if (s->error) {
        return false;
    }
    if (colo_session_is_silent(s, now)) {
        return refuse(s, "nothing has been heard of the other end for %" G_GINT64_FORMAT " ms",
                      (now - s->last_heard) / 1000000);
    }
    if (colo_session_size(s) > OUT_MAX) {
        return refuse(s, "the other end does not read what it is sent");
    }
    if (now - s->last_beat >= s->config.heartbeat) {
        s->last_beat = now;
        if (!colo_session_size(s)) {
            append(s, RECORD_HEARTBEAT, 0);
        }
    }
    return true;
}

int64_t colo_session_deadline(const ColoSession *s)
{
    return s->error ? INT64_MAX : MIN(s->last_beat + s->config.heartbeat, s->last_heard + s->config.heartbeat_timeout);
}

/* Life */

ColoSession *colo_session_new(const ColoSessionConfig *config, const ColoSessionOps *ops, void *opaque, int64_t now)
{
    ColoSession *s = g_new0(ColoSession, 1);

    s->config = *config;
    s->ops = ops;
    s->opaque = opaque;
    s->granted = config->credit;
    s->last_beat = s->last_heard = now;
    say_hello(s);
    return s;
}

void colo_session_free(ColoSession *s)
{
    if (s) {
        g_free(s->error);
        g_free(s->out);
        g_free(s);
    }
}

const char *colo_session_error(const ColoSession *s)
{
    return s->error;
}

bool colo_session_is_ready(const ColoSession *s)
{
    return s->ready;
}

bool colo_session_has_heard(const ColoSession *s)
{
    return s->heard;
}

const uint8_t *colo_session_bytes(const ColoSession *s)
{
    return s->out + s->out_written;
}

size_t colo_session_size(const ColoSession *s)
{
    return s->out_end - s->out_written;
}

void colo_session_wrote(ColoSession *s, size_t len)
{
    s->out_written += len;
    g_assert(s->out_written <= s->out_end);
    if (s->out_written == s->out_end) {
        s->out_written = s->out_end = 0;
    }
}
