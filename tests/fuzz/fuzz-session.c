/*
 * Fuzzing session.c
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The input is a program either of what a hostile peer says to one session, or of what two honest sessions do with a connection
 * between them that cuts and delays what it carries.  What is to come of a stream is worked out by a reader of its own (the
 * model below, by the letter of docs/protocol.rst), and so is what a session may say.  Asserted, of every session:
 *
 *  - however the stream is cut, down to single bytes, exactly the packets and epochs that lie in it are handed on, in order and
 *    to the byte, none before the hello and none behind the end, and nothing is read outside of the pieces;
 *  - it ends with the byte that the model says, with a hello or an epoch that its owner objects to, or at a silence, and for
 *    nothing else; then and only then there is an error, in printable words, which the peer is told unless it was the peer who
 *    said goodbye; nothing is handed on or said by itself after that;
 *  - silence begins with the connection; whatever comes ends it, but only from the hello on;
 *  - no more packets are taken than there was credit for, and no room is said to be where the peer has given none;
 *  - the outbox gets what was called for, a whole record at a time, and nothing else; it takes no packets once it is long, and
 *    a peer that does not read is given up;
 *  - credit never becomes less, is never more than what is free, and comes back once all has been taken;
 *  - a heartbeat comes when nothing else has for that long, and no oftener, but for a primary's that has agreed to a hello; the
 *    deadline lies ahead.
 *
 * And of two honest ones:
 *
 *  - all that is sent arrives once and in order, and at the end there is room both ways;
 *  - neither ends as long as each way carries something within what the heartbeat leaves of the timeout;
 *  - an end to which nothing is carried any more ends exactly at its timeout, and the other hears of it; a goodbye arrives as
 *    it was said.
 */

#include "fuzz.h"
#include "layout.h"
#include "net/colo/session.h"

#include <string.h>

#define FRAME_MAX 69632u
#define VNET_MAX 20u
#define HEADER 5u
#define HELLO_MIN 32u
#define HELLO_MAX 256u
#define TEXT_MAX 200u
#define PACKET_MAX (1 + VNET_MAX + FRAME_MAX)

#define MS 1000000ll
#define MUCH (16u * 1024 * 1024)        /* in an outbox: no more packets */
#define BYTES_MAX (4 * 1024u)           /* of packets in one execution, but for the last ones: for speed */
#define STREAM_MAX (512 * 1024u)
#define LOG_MAX 256u
#define FIFTY "50 bytes of words, none of them with a meaning, ok"

enum {
    HELLO = 1,
    GOODBYE = 2,
    PACKET = 3,
    EPOCH = 4,
    CREDIT = 5,
    HEARTBEAT = 6,
};

/* What the model finds next in a stream. */
typedef enum {
    NOTHING,                /* that anybody hears of */
    READY,
    A_PACKET,
    AN_EPOCH,
    THE_END,
} What;

/* All that has been said to an end, from the beginning. */
typedef struct {
    uint8_t bytes[STREAM_MAX];
    uint32_t made;
    uint32_t fed;           /* how much of it the session has */
    uint32_t at;            /* what the model has read */
} Stream;

/* What an end has sent: a packet, or with no size an epoch. */
typedef struct {
    uint32_t size;
    uint32_t vnet_len;
    uint64_t number;
} Sent;

/* One session, and what should be true of it. */
typedef struct End {
    ColoSession *session;
    ColoSessionConfig config;
    Stream *in;
    struct End *peer;       /* an honest one; NULL: there is none */
    bool takes;             /* disposes of packets at once */
    bool eager;             /* sends as soon as it may */
    const char *objection;  /* to any peer; NULL: to none */
    bool doubts;            /* objects to some epochs */
    bool ready;
    bool owes_beat;         /* a primary, which says so at once that it has agreed */
    bool over;
    bool parted;            /* ... by the peer's goodbye */

    uint64_t told;          /* credit, as the peer is told */
    uint64_t received;      /* bytes of packets */
    uint64_t took;
    uint64_t may_send;      /* credit, as the peer tells */
    uint64_t sent;

    int64_t heard;          /* last, from the hello on; until then, when it began */
    int64_t beat;           /* the last heartbeat */
    int64_t empty_since;    /* the outbox, if it is empty */
    int64_t ended_at;       /* in silence */

    size_t known;           /* bytes in the outbox, all of them looked at */
    const uint8_t *body;    /* of the latest record there */
    uint32_t body_size;

    Sent log[LOG_MAX];
    uint32_t count;
    uint32_t seen;          /* of the other's log */
    bool waits;             /* something is on its way to this end */
    int64_t waits_since;    /* ... and it has not moved since; before the hello, since it was sent */
} End;

static Stream streams[2];
static End ends[2];
static bool has_flooded;

static uint64_t get64(const uint8_t *at)
{
    return (uint64_t)get32(at) << 32 | get32(at + 4);
}

static void set64(uint8_t *at, uint64_t value)
{
    set32(at, (uint32_t)(value >> 32));
    set32(at + 4, (uint32_t)value);
}

static const uint8_t *pattern(uint64_t which)
{
    static uint8_t bytes[PACKET_MAX + 512];

    if (!bytes[1]) {
        for (uint32_t i = 0; i < sizeof(bytes); i++) {
            bytes[i] = (uint8_t)(i * 7 + i / 256);
        }
    }
    return bytes + which * 37 % 256;
}

/* The model */

static bool length_is_right(uint8_t type, uint32_t size)
{
    switch (type) {
    case HELLO:
        return size <= HELLO_MAX;       /* a shorter one than there can be is read to its end, lest it be something else */
    case GOODBYE:
        return size <= TEXT_MAX;
    case PACKET:
        return size >= 2 && size <= PACKET_MAX;
    case EPOCH:
    case CREDIT:
        return size == 8;
    case HEARTBEAT:
        return size == 0;
    default:
        return false;
    }
}

static bool hello_is_agreeable(const End *e, const uint8_t *body, uint32_t size)
{
    return size >= HELLO_MIN && !memcmp(body, "COLOPRXY", 8) && get16(body + 8) >= 1 && get16(body + 10) <= 1 &&
           body[12] == (e->config.side == COLO_PRIMARY ? 1 : 0);
}

static bool packet_is_right(const uint8_t *body, uint32_t size)
{
    uint32_t vnet_len = body[0], rest = size - 1;

    return vnet_len <= VNET_MAX && rest > vnet_len && rest - vnet_len <= FRAME_MAX;
}

/* What a record of a right length comes to.  NOTHING: nobody hears of it. */
static What meaning_of(End *e, uint8_t type, const uint8_t *body, uint32_t size)
{
    if (type == GOODBYE) {
        e->parted = true;
        return THE_END;
    }
    if ((type == HELLO) == e->ready) {
        return THE_END;
    }
    switch (type) {
    case HELLO:
        if (!hello_is_agreeable(e, body, size)) {
            return THE_END;
        }
        e->ready = true;
        e->may_send = get64(body + 16);
        return READY;
    case PACKET:
        return packet_is_right(body, size) && e->received < e->told ? A_PACKET : THE_END;
    case EPOCH:
        return AN_EPOCH;
    case CREDIT:
        e->may_send = get64(body) > e->may_send ? get64(body) : e->may_send;
        return NOTHING;
    default:
        return NOTHING;
    }
}

/* Reads on in what the session has been fed, up to something that it should speak of.  @record: that. */
static What read_on(End *e, const uint8_t **record)
{
    Stream *in = e->in;
    What what = NOTHING;

    while (what == NOTHING && !e->over && in->fed - in->at >= HEADER) {
        const uint8_t *bytes = *record = in->bytes + in->at;
        uint32_t size = get32(bytes);

        if (!length_is_right(bytes[4], size)) {
            what = THE_END;
        } else if (in->fed - in->at - HEADER < size) {
            break;
        } else {
            in->at += HEADER + size;
            what = meaning_of(e, bytes[4], bytes + HEADER, size);
        }
        e->over = what == THE_END;
    }
    return what;
}

/* What a session says */

/* The type of the record that has come to the outbox since the last look, 0 for none; it must be one, and whole. */
static uint8_t look(End *e)
{
    size_t size = colo_session_size(e->session);
    const uint8_t *record = colo_session_bytes(e->session) + e->known;

    REQUIRE(size >= e->known, "%zu bytes wait, not %zu or more", size, e->known);
    if (size == e->known) {
        return 0;
    }
    REQUIRE(size - e->known >= HEADER && get32(record) <= size - e->known - HEADER, "%zu bytes more", size - e->known);
    e->body = record + HEADER;
    e->body_size = get32(record);
    e->known += HEADER + e->body_size;
    REQUIRE(e->known == size || e->owes_beat, "more than one record");
    if (e->owes_beat) {
        REQUIRE(record[4] == HEARTBEAT && !e->body_size, "record %u where a heartbeat is due", record[4]);
        e->owes_beat = false;
        return look(e);
    }
    return record[4];
}

static void check_first(End *e)
{
    REQUIRE(look(e) == HELLO && e->body_size == HELLO_MIN, "%u bytes", e->body_size);
    REQUIRE(!memcmp(e->body, "COLOPRXY\0\1\0\1", 12), "magic or versions");
    REQUIRE(e->body[12] == (e->config.side == COLO_SECONDARY) && !e->body[13] && !get16(e->body + 14), "role or features");
    REQUIRE(get64(e->body + 24) == e->config.instance, "another instance");
    e->told = get64(e->body + 16);
    REQUIRE(e->told == e->config.credit, "credit of %llu", (unsigned long long)e->told);
}

static void check_state(End *e)
{
    const char *error = colo_session_error(e->session);

    REQUIRE(!!error == e->over, "%s", error ? error : "no error");
    REQUIRE(colo_session_is_ready(e->session) == (e->ready && !e->over), "ready: %d", e->ready);
    REQUIRE((colo_session_deadline(e->session) == INT64_MAX) == e->over, "over: %d", e->over);
    if (!e->over) {
        REQUIRE(colo_session_has_room(e->session) == (e->sent < e->may_send && e->known < MUCH), "%llu sent of %llu",
                (unsigned long long)e->sent, (unsigned long long)e->may_send);
        return;
    }
    for (; *error; error++) {
        REQUIRE(*error >= ' ' && *error <= '~', "byte %d in an error", *error);
    }
}

/* It has just ended: the peer is told why, unless it has parted. */
static void check_end(End *e, uint8_t said)
{
    const char *error = colo_session_error(e->session);
    size_t len;

    REQUIRE(error, "it has not ended");
    TELL("ended: %s", error);
    len = strlen(error);
    if (e->parted) {
        REQUIRE(!said, "record %u answers a goodbye", said);
    } else {
        len = len < TEXT_MAX ? len : TEXT_MAX;
        REQUIRE(said == GOODBYE && e->body_size == len && !memcmp(e->body, error, len), "record %u of %u bytes", said,
                e->body_size);
    }
}

/* The words of a goodbye, if they are plain ones, are found in the error. */
static void check_words(const End *e, const uint8_t *record)
{
    uint32_t size = get32(record);
    char text[TEXT_MAX + 1];

    memcpy(text, record + HEADER, size);
    text[size] = '\0';
    for (char *c = text; *c; c++) {
        if (*c < ' ' || *c > '~' || *c == '"' || *c == '\\') {
            return;
        }
    }
    REQUIRE(strstr(colo_session_error(e->session), text), "\"%s\" is not in \"%s\"", text, colo_session_error(e->session));
}

/* What is done to a session */

static void take(End *e, uint64_t size)
{
    uint8_t said;

    e->took += size;
    colo_session_took(e->session, size);
    said = look(e);
    if (said) {
        REQUIRE(said == CREDIT && e->body_size == 8, "record %u", said);
        REQUIRE(get64(e->body) >= e->told && get64(e->body) <= e->took + e->config.credit, "credit of %llu after %llu",
                (unsigned long long)get64(e->body), (unsigned long long)e->told);
        e->told = get64(e->body);
    }
    REQUIRE(e->took < e->received || e->told > e->received, "%llu taken, no credit", (unsigned long long)e->took);
}

static void note(End *e, uint32_t size, uint32_t vnet_len, uint64_t number)
{
    if (e->peer) {
        e->log[e->count++] = (Sent) { .size = size, .vnet_len = vnet_len, .number = number };
    }
}

static bool is_full(const End *e)
{
    return e->count == LOG_MAX || e->sent >= BYTES_MAX;
}

static void send_packet(End *e, uint32_t size, uint32_t vnet_len)
{
    const uint8_t *bytes = pattern(e->count);

    if (!colo_session_is_ready(e->session) || !colo_session_has_room(e->session) || is_full(e)) {
        return;
    }
    REQUIRE(e->sent < e->may_send, "room, with %llu sent", (unsigned long long)e->sent);
    if (e->peer) {
        REQUIRE(e->sent < e->peer->told, "the other end has told of %llu", (unsigned long long)e->peer->told);
    }
    memcpy(colo_session_append(e->session, size, vnet_len), bytes, size);
    REQUIRE(look(e) == PACKET && e->body_size == 1 + size && e->body[0] == vnet_len, "%u bytes, %u", size, vnet_len);
    REQUIRE(!memcmp(e->body + 1, bytes, size), "a packet of %u bytes", size);
    note(e, size, vnet_len, e->count);
    e->sent += size;
}

static void send_epoch(End *e, uint64_t number)
{
    if (!colo_session_is_ready(e->session) || is_full(e)) {
        return;
    }
    colo_session_send_epoch(e->session, number);
    REQUIRE(look(e) == EPOCH && e->body_size == 8 && get64(e->body) == number, "epoch %llu", (unsigned long long)number);
    note(e, 0, 0, number);
}

/* What the other end has sent next, if it is an honest one. */
static const Sent *next_sent(End *e)
{
    if (!e->peer) {
        return NULL;
    }
    REQUIRE(e->seen < e->peer->count, "%u were sent", e->peer->count);
    return &e->peer->log[e->seen++];
}

static const char *on_ready(uint64_t instance, void *opaque)
{
    End *e = opaque;
    const uint8_t *record;

    REQUIRE(read_on(e, &record) == READY, "not by what has come");
    REQUIRE(instance == get64(record + HEADER + 24), "another instance");
    REQUIRE(!e->peer || instance == e->peer->config.instance, "not that of the other end");
    TELL("ready");
    REQUIRE(!look(e), "it speaks unasked");
    check_state(e);
    if (e->eager) {
        send_packet(e, 60, 0);
    }
    e->over = e->objection;
    e->owes_beat = !e->objection && e->config.side == COLO_PRIMARY;
    return e->objection;
}

static void on_packet(const uint8_t *frame, uint32_t size, uint32_t vnet_len, void *opaque)
{
    End *e = opaque;
    const uint8_t *record;
    const Sent *sent;

    REQUIRE(read_on(e, &record) == A_PACKET, "a packet of %u bytes that has not come", size);
    TELL("a packet of %u bytes, %u of them header", size, vnet_len);
    REQUIRE(!look(e), "it speaks unasked");
    check_state(e);
    REQUIRE(size == get32(record) - 1 && vnet_len == record[HEADER], "%u bytes, %u", size, vnet_len);
    REQUIRE(!memcmp(frame, record + HEADER + 1, size), "other bytes than have come");
    REQUIRE(e->received - e->took < e->config.credit, "%llu bytes and more wait", (unsigned long long)(e->received - e->took));
    e->received += size;
    sent = next_sent(e);
    if (sent) {
        REQUIRE(size == sent->size && vnet_len == sent->vnet_len, "%u bytes, %u", size, vnet_len);
        REQUIRE(!memcmp(frame, pattern(sent->number), size), "other bytes than were sent");
    }
    if (e->takes) {
        take(e, size);
    }
}

static bool on_epoch(uint64_t number, void *opaque)
{
    End *e = opaque;
    const uint8_t *record;
    const Sent *sent;

    REQUIRE(read_on(e, &record) == AN_EPOCH && get64(record + HEADER) == number, "epoch %llu", (unsigned long long)number);
    TELL("epoch %llu", (unsigned long long)number);
    REQUIRE(!look(e), "it speaks unasked");
    check_state(e);
    sent = next_sent(e);
    REQUIRE(!sent || (!sent->size && sent->number == number), "epoch %llu was not sent", (unsigned long long)number);
    e->over = e->doubts && number % 8 == 7;
    return !e->over;
}

static const ColoSessionOps ops = { .ready = on_ready, .packet = on_packet, .epoch = on_epoch };

/* Gives it the next @len bytes as a piece of their own, with nothing before it and nothing behind. */
static void feed(End *e, uint32_t len, int64_t now)
{
    uint32_t left = e->in->made - e->in->fed;
    bool was_over = e->over, going;
    const uint8_t *record = NULL;
    uint8_t *piece, said;
    What what;

    len = len < left ? len : left;
    if (!len) {
        return;
    }
    piece = malloc(len);
    memcpy(piece, e->in->bytes + e->in->fed, len);
    e->in->fed += len;
    going = colo_session_read(e->session, piece, len, now);
    free(piece);
    what = read_on(e, &record);
    said = look(e);
    REQUIRE(!e->owes_beat, "it has not said that it agrees");
    REQUIRE(what == NOTHING || what == THE_END, "%d was not handed on", what);
    REQUIRE(going == !e->over, "%s", going ? "it goes on" : colo_session_error(e->session));
    if (e->ready && !e->over) {
        e->heard = e->waits_since = now;
    }
    if (e->over && !was_over) {
        check_end(e, said);
        if (e->parted) {
            check_words(e, record);
        } else if (e->objection && e->ready) {
            REQUIRE(!strcmp(colo_session_error(e->session), e->objection), "%s", colo_session_error(e->session));
        }
    } else {
        REQUIRE(!said, "record %u", said);
    }
    check_state(e);
}

static void tick(End *e, int64_t now)
{
    bool was_over = e->over, was_empty = !e->known, was_due = now >= colo_session_deadline(e->session);
    bool is_silent = colo_session_is_silent(e->session, now);
    bool going = colo_session_tick(e->session, now);
    uint8_t said = look(e);

    REQUIRE(was_over || is_silent == (now - e->heard >= e->config.heartbeat_timeout), "heard at %lld", (long long)e->heard);
    if (was_over) {
        REQUIRE(!going && !said, "record %u", said);
    } else if (is_silent) {
        REQUIRE(!going, "nothing was heard since %lld", (long long)e->heard);
        e->over = true;
        e->ended_at = now;
        check_end(e, said);
    } else {
        REQUIRE(going, "%s", colo_session_error(e->session));
        REQUIRE(was_due || !said, "record %u ahead of time", said);
        if (said) {
            REQUIRE(said == HEARTBEAT && !e->body_size && was_empty, "record %u", said);
            REQUIRE(now - e->beat >= e->config.heartbeat, "the last heartbeat was at %lld", (long long)e->beat);
            e->beat = now;
        } else {
            REQUIRE(!was_empty || now - e->empty_since < e->config.heartbeat, "no heartbeat since %lld", (long long)e->beat);
        }
        REQUIRE(colo_session_deadline(e->session) > now, "a deadline that has passed");
        REQUIRE(colo_session_deadline(e->session) <= e->heard + e->config.heartbeat_timeout, "silence is noticed too late");
    }
    check_state(e);
}

/* @len bytes leave the outbox, for the other end if there is one. */
static void write_some(End *e, uint32_t len, int64_t now)
{
    len = len < e->known ? len : (uint32_t)e->known;
    if (!len) {
        return;
    }
    if (e->peer) {
        Stream *in = e->peer->in;

        REQUIRE(in->made + len <= STREAM_MAX, "the test's own stream is full");
        memcpy(in->bytes + in->made, colo_session_bytes(e->session), len);
        in->made += len;
    }
    colo_session_wrote(e->session, len);
    e->known -= len;
    REQUIRE(colo_session_size(e->session) == e->known, "%zu bytes, not %zu", colo_session_size(e->session), e->known);
    if (!e->known) {
        e->empty_since = now;
    }
}

static uint64_t credit_of(uint8_t what)
{
    static const uint64_t credits[] = { 100000, 1, 3, 60, 1000, 4096, FRAME_MAX, 1ull << 40 };

    return credits[what % 8];
}

/* @e: its configuration is there.  The rest begins. */
static void begin(End *e, Stream *in, End *peer, int64_t now)
{
    *e = (End) { .config = e->config, .in = in, .peer = peer, .heard = now, .beat = now };
    in->made = in->fed = in->at = 0;
    e->session = colo_session_new(&e->config, &ops, e, now);
    check_first(e);
    check_state(e);
}

/* A hostile peer */

static uint8_t *make(Stream *in, uint8_t type, uint32_t size)
{
    uint8_t *record = in->bytes + in->made;

    set32(record, size);
    record[4] = type;
    in->made += HEADER + size;
    return record + HEADER;
}

static uint64_t some_number(Tape *tape)
{
    uint8_t what = tape_byte(tape);

    return what < 128 ? what : what < 248 ? (uint64_t)(what - 127) << 7 : what < 252 ? UINT64_MAX - (255u - what) : what * MS;
}

static void make_hello(Tape *tape, End *e, uint8_t how)
{
    static const uint32_t sizes[] = { HELLO_MIN, HELLO_MIN, HELLO_MIN - 1, HELLO_MIN + 1, HELLO_MAX, HELLO_MAX + 1, 0, 40 };
    /* In the magic, either version, the role, the byte that is 0, the features, the credit and the instance. */
    static const uint8_t spots[] = { 0, 7, 8, 9, 10, 11, 12, 13, 14, 15, 22, 31 };
    uint32_t size = sizes[how % 8];
    uint8_t body[HELLO_MAX + 1] = "COLOPRXY\0\1\0\1";

    body[12] = e->config.side == COLO_PRIMARY;
    set64(body + 16, how & 8 ? credit_of(tape_byte(tape)) : 100000);
    set64(body + 24, 0x0123456789abcdefull * (how + 1u));
    if (how & 16) {
        uint8_t which = tape_byte(tape);

        body[spots[which % sizeof(spots)]] ^= (uint8_t)(1 + which / sizeof(spots));
    }
    memcpy(make(e->in, HELLO, size), body, size);
}

/* One record more, right or nearly, or bytes as they are. */
static void make_record(Tape *tape, End *e, uint8_t what)
{
    static const uint16_t texts[] = { 0, 1, 20, TEXT_MAX - 1, TEXT_MAX, TEXT_MAX + 1, 256, 5 };
    Stream *in = e->in;
    uint32_t operand = what & 0x1f, vnet_len, size;
    uint8_t *body;

    switch (what >> 5) {
    case 0:
        make_hello(tape, e, (uint8_t)operand);
        break;
    case 1:                                 /* a short packet; the header is now and then longer than all of it */
        vnet_len = tape_byte(tape) % 24;
        body = make(in, PACKET, operand + vnet_len);
        memcpy(body, pattern(operand), operand + vnet_len);
        if (operand + vnet_len) {
            body[0] = (uint8_t)vnet_len;
        }
        break;
    case 2:                                 /* as long as can be, or a little less or more */
        vnet_len = operand & 16 ? tape_byte(tape) % 24 : 0;
        size = operand & 8 ? (uint32_t)tape_byte(tape) << 4 : FRAME_MAX;
        size = 1 + vnet_len + size + (operand & 7) - (size ? 4 : 0);
        body = make(in, PACKET, size);
        memcpy(body, pattern(operand), size);
        body[0] = (uint8_t)vnet_len;
        break;
    case 3:
        if (operand < 16) {
            set64(make(in, operand & 1 ? EPOCH : CREDIT, 8), some_number(tape));
        } else if (operand < 24) {
            make(in, HEARTBEAT, 0);
        } else {
            size = texts[operand % 8];
            body = make(in, GOODBYE, size);
            memset(body, 'a', size);
            if (size) {
                body[size / 2] = tape_byte(tape);
            }
        }
        break;
    case 4:                                 /* any type and length; the body lacks something if that is long */
        size = operand < 12 ? operand : operand < 24 ? PACKET_MAX - 18 + operand : 0x1000000u << (operand - 24);
        set32(in->bytes + in->made, size);
        in->bytes[in->made + 4] = tape_byte(tape);
        in->made += HEADER;
        size = size < 16 ? size : 16;
        memset(in->bytes + in->made, 0, size);
        in->made += size;
        break;
    default:
        for (size = operand; size && !tape_is_over(tape); size--) {
            in->bytes[in->made++] = tape_byte(tape);
        }
        break;
    }
}

/* Packets until there is no more room, and more of the rest until it is given up.  Once in a process, since it takes long. */
static void flood(End *e, int64_t now)
{
    uint64_t sent = e->sent;

    if (has_flooded || !colo_session_is_ready(e->session) || e->may_send < e->sent + 2 * MUCH) {
        return;
    }
    has_flooded = true;
    while (colo_session_has_room(e->session)) {
        REQUIRE(e->sent - sent < MUCH + FRAME_MAX, "there is room without end");
        colo_session_append(e->session, FRAME_MAX, 0)[0] = 0;
        e->sent += FRAME_MAX;
    }
    e->known = colo_session_size(e->session);
    REQUIRE(e->known >= MUCH && e->known < MUCH + 2 * FRAME_MAX, "%zu bytes", e->known);
    tick(e, now);
    if (e->over) {
        return;
    }
    while (colo_session_size(e->session) <= 2 * MUCH) {
        REQUIRE(!colo_session_has_room(e->session), "there is room");
        colo_session_send_epoch(e->session, 1);
    }
    e->known = colo_session_size(e->session);
    REQUIRE(!colo_session_tick(e->session, now), "a peer that does not read");
    e->over = true;
    check_end(e, look(e));
}

/* All that has been made but @kept bytes, in pieces of up to @cut bytes, 0 for whole; the last of many are a longer one. */
static void feed_cut(End *e, uint32_t kept, uint8_t cut, uint32_t *state, int64_t now)
{
    uint32_t pieces = 0;

    while (e->in->made - e->in->fed > kept) {
        feed(e, cut && pieces++ < 64 ? 1 + draw(state) % cut : e->in->made - e->in->fed - kept, now);
    }
}

static void fuzz_hostile(Tape *tape, uint8_t how)
{
    /* Words are no format; and they may be more than a goodbye takes. */
    static const char *const objections[] = {
        "not that one", "%s%n%d 100%", "",
        (FIFTY FIFTY FIFTY FIFTY " and more"),
    };
    End *e = &ends[0];
    uint8_t cut = tape_byte(tape), settings = tape_byte(tape);
    uint32_t state = cut * 2654435761u;
    int64_t now = 1000 * MS;

    e->config = (ColoSessionConfig) {
        .side = how & 2 ? COLO_SECONDARY : COLO_PRIMARY,
        .instance = 0xfedcba9876543210ull,
        .credit = credit_of(settings),
        .heartbeat = 100 * MS,
        .heartbeat_timeout = settings & 8 ? 150 * MS : 500 * MS,
    };
    begin(e, &streams[0], NULL, now);
    e->takes = how & 4;
    e->eager = how & 8;
    e->doubts = how & 32;
    if ((how & 0xc0) == 0xc0) {
        e->objection = objections[settings >> 4 & 3];
    }
    if (how & 16) {
        make_hello(tape, e, 8);
    }
    while (!tape_is_over(tape) && e->in->made < STREAM_MAX / 4) {
        uint8_t what = tape_byte(tape);
        uint32_t operand = what & 0x1f;
        uint64_t untaken = e->received - e->took;

        TELL("at %lld: %02x", (long long)now, what);
        switch (what >> 5) {
        case 0:                             /* lies there until what follows is fed */
            make_record(tape, e, tape_byte(tape));
            break;
        case 1:
            make_record(tape, e, tape_byte(tape));
            feed_cut(e, 0, cut, &state, now);
            break;
        case 2:
            make_record(tape, e, tape_byte(tape));
            feed_cut(e, operand, cut, &state, now);
            break;
        case 3:
            feed(e, 1 + operand * operand * operand, now);
            break;
        case 4:
            now += operand < 16 ? operand * 10 * MS : (operand - 15) * 50 * MS - 1;
            tick(e, now);
            break;
        case 5:
            if (e->over) {
                break;
            }
            if (operand == 31) {
                flood(e, now);
            } else if (operand & 1) {
                send_epoch(e, some_number(tape));
            } else {
                send_packet(e, 21 + operand * (operand == 30 ? tape_byte(tape) : 1), operand < VNET_MAX ? operand : 0);
            }
            break;
        case 6:
            if (untaken && !e->over) {
                take(e, operand == 31 ? untaken : 1 + (operand << 4) % untaken);
            }
            break;
        default:
            write_some(e, operand == 31 ? UINT32_MAX : operand << 1, now);
            break;
        }
    }
    feed_cut(e, 0, cut, &state, now);
    colo_session_free(e->session);
}

/* Two honest ends */

typedef struct {
    int64_t now;
    int64_t delay;          /* as long as something may be on its way without moving */
    bool is_cut[2];         /* nothing is carried to this end any more */
    uint8_t cut;
    uint32_t state;
} Pair;

/* Notes since when something waits to be carried. */
static void look_at_ways(const Pair *p)
{
    for (int i = 0; i < 2; i++) {
        End *e = &ends[i];
        bool waits = e->peer->known || e->in->made > e->in->fed;

        if (waits && !e->waits) {
            e->waits_since = p->now;
        }
        e->waits = waits;
    }
}

/* To this end all that waits for it. */
static void carry(Pair *p, int to)
{
    End *e = &ends[to];

    if (!p->is_cut[to]) {
        write_some(e->peer, UINT32_MAX, p->now);
        feed_cut(e, 0, p->cut, &p->state, p->now);
        look_at_ways(p);
    }
}

/* Lets time pass: what waits is carried when it must be, and both are told the time when they want to know. */
static void advance(Pair *p, int64_t to)
{
    do {
        int64_t next = to;

        for (int i = 0; i < 2; i++) {
            int64_t deadline = colo_session_deadline(ends[i].session);

            next = deadline < next ? deadline : next;
            if (ends[i].waits && !p->is_cut[i] && ends[i].waits_since + p->delay < next) {
                next = ends[i].waits_since + p->delay;
            }
        }
        p->now = next > p->now ? next : p->now;
        for (int i = 0; i < 2; i++) {
            if (ends[i].waits && ends[i].waits_since + p->delay <= p->now) {
                carry(p, i);
            }
        }
        for (int i = 0; i < 2; i++) {
            if (colo_session_deadline(ends[i].session) <= p->now) {
                tick(&ends[i], p->now);
                look_at_ways(p);
            }
        }
    } while (p->now < to);
}

static void check_going(const Pair *p)
{
    for (int i = 0; i < 2; i++) {
        REQUIRE(!ends[i].over || p->is_cut[0] || p->is_cut[1], "end %d: %s", i, colo_session_error(ends[i].session));
    }
}

static void check_silence(Pair *p)
{
    advance(p, p->now + ends[0].config.heartbeat_timeout);
    for (int i = 0; i < 2; i++) {
        End *e = &ends[i];

        if (p->is_cut[i]) {
            REQUIRE(e->over, "end %d has not noticed", i);
            REQUIRE(e->parted || e->ended_at == e->heard + e->config.heartbeat_timeout, "end %d, silent since %lld: %lld", i,
                    (long long)e->heard, (long long)e->ended_at);
        }
    }
    for (int i = 0; i < 2; i++) {
        carry(p, i);
        REQUIRE(ends[i].over, "end %d goes on", i);
    }
}

static void check_drained(Pair *p)
{
    while (ends[0].waits || ends[1].waits || ends[0].received > ends[0].took || ends[1].received > ends[1].took) {
        for (int i = 0; i < 2; i++) {
            carry(p, i);
            if (ends[i].received > ends[i].took) {
                take(&ends[i], ends[i].received - ends[i].took);
            }
        }
        look_at_ways(p);
        check_going(p);
    }
    for (int i = 0; i < 2; i++) {
        const End *e = &ends[i];

        REQUIRE(e->seen == e->peer->count && e->received == e->peer->sent, "end %d has %u of %u", i, e->seen, e->peer->count);
        REQUIRE(colo_session_is_ready(e->session) && colo_session_has_room(e->session), "end %d has no room", i);
    }
}

static void check_goodbye(Pair *p, Tape *tape)
{
    static const char *const texts[] = { "", "it is time", "a line\nand\t\"another\"", "\xc3\xa4" };
    int by = tape_byte(tape) & 1;

    colo_session_say_goodbye(ends[by].session, texts[tape_byte(tape) % 4]);
    REQUIRE(look(&ends[by]) == GOODBYE, "no goodbye");
    look_at_ways(p);
    carry(p, !by);
    REQUIRE(ends[!by].parted, "it has not arrived");
}

static void do_one(Pair *p, Tape *tape, uint8_t what)
{
    uint32_t operand = what & 0xf;
    int which = what >> 4 & 1;
    End *e = &ends[which];

    switch (what >> 5) {
    case 0:
        send_packet(e, 1 + operand * 21, operand);
        break;
    case 1:
        operand = operand << 8 | tape_byte(tape);
        if (operand < 0xf00) {
            send_packet(e, VNET_MAX + 1 + operand, operand % (VNET_MAX + 1));
        } else {
            send_packet(e, VNET_MAX + FRAME_MAX, VNET_MAX);
        }
        break;
    case 2:
        send_epoch(e, some_number(tape));
        break;
    case 3:
        write_some(e, operand * operand + 1, p->now);
        break;
    case 4:
        if (!p->is_cut[which]) {
            feed(e, operand * operand + 1, p->now);
        }
        break;
    case 5:
        if (!e->over && e->received > e->took) {
            take(e, operand == 15 ? e->received - e->took : 1 + (operand << 6) % (e->received - e->took));
        }
        break;
    case 6:
        advance(p, p->now + (e->config.heartbeat_timeout >> 3) * (which ? operand : 1) + operand);
        break;
    default:
        if (operand == 15) {
            p->is_cut[which] = true;
        } else {
            carry(p, which);
        }
        break;
    }
}

static void fuzz_honest(Tape *tape, uint8_t how)
{
    Pair p = { .now = 1000 * MS, .cut = tape_byte(tape), .state = how + 1u };
    uint8_t credits = tape_byte(tape), times = tape_byte(tape);
    int64_t heartbeat = 1 + (times & 0xf) * 10 * MS;
    int64_t timeout = heartbeat + 2 + heartbeat * (times >> 4) / 4;

    for (int i = 0; i < 2; i++) {
        ends[i].config = (ColoSessionConfig) {
            .side = i ? COLO_SECONDARY : COLO_PRIMARY,
            .instance = 0x1122334455667788ull << i,
            .credit = credit_of(i ? credits >> 4 : credits),
            .heartbeat = heartbeat,
            .heartbeat_timeout = timeout,
        };
        begin(&ends[i], &streams[i], &ends[!i], p.now);
        ends[i].takes = how & (2 << i);
        ends[i].eager = how & (8 << i);
    }
    p.delay = timeout - heartbeat - 1;
    look_at_ways(&p);
    if (how & 32) {
        carry(&p, 0);
        carry(&p, 1);
    }
    while (!tape_is_over(tape) && streams[0].made < STREAM_MAX / 2 && streams[1].made < STREAM_MAX / 2) {
        uint8_t what = tape_byte(tape);

        TELL("at %lld: %02x", (long long)p.now, what);
        do_one(&p, tape, what);
        look_at_ways(&p);
        check_going(&p);
    }
    if (p.is_cut[0] || p.is_cut[1]) {
        check_silence(&p);
    } else {
        check_drained(&p);
        if (how & 64) {
            check_goodbye(&p, tape);
        }
    }
    colo_session_free(ends[0].session);
    colo_session_free(ends[1].session);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    Tape tape = { .at = data, .end = data + size };
    uint8_t how = tape_byte(&tape);

    fuzz_begin();
    if (how & 1) {
        fuzz_honest(&tape, how);
    } else {
        fuzz_hostile(&tape, how);
    }
    return 0;
}
