/*
 * Tests of session.c
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "frames.h"
#include "net/colo/session.h"

#include <string.h>

#define MS 1000000ll
#define HELLO_RECORD 37     /* bytes, as docs/protocol.rst has it */

/* One end, and what it has been told. */
typedef struct {
    ColoSession *session;
    int ready;
    uint32_t packets;
    uint64_t bytes;
    bool takes;             /* disposes of packets at once */
    bool objects;           /* to whoever comes */
    uint64_t peer_instance;
    uint64_t epoch;         /* the last */
    uint32_t packets_before_epoch;
} End;

static uint32_t size_of(uint32_t number)
{
    return 1 + number * 7919 % 3000;
}

static const char *on_ready(uint64_t instance, void *opaque)
{
    End *e = opaque;

    e->ready++;
    e->peer_instance = instance;
    return e->objects ? "we have had enough of that one" : NULL;
}

static void on_packet(const uint8_t *frame, uint32_t size, uint32_t vnet_len, void *opaque)
{
    End *e = opaque;
    uint8_t *bytes = bytes_of(e->packets, size_of(e->packets));

    ck_assert_uint_eq(size, size_of(e->packets));
    ck_assert_uint_eq(vnet_len, 0);
    ck_assert_mem_eq(frame, bytes, size);
    g_free(bytes);
    e->packets++;
    e->bytes += size;
    if (e->takes) {
        colo_session_took(e->session, size);
    }
}

static bool on_epoch(uint64_t number, void *opaque)
{
    End *e = opaque;

    e->epoch = number;
    e->packets_before_epoch = e->packets;
    return number != 666;
}

static const ColoSessionOps ops = { .ready = on_ready, .packet = on_packet, .epoch = on_epoch };

static const ColoSessionConfig usual = {
    .instance = 0x0102030405060708, .credit = 100000, .heartbeat = 100 * MS, .heartbeat_timeout = 500 * MS,
};

static void begin(End *e, ColoSide side, const ColoSessionConfig *config)
{
    ColoSessionConfig c = *config;

    c.side = side;
    *e = (End) { .takes = true };
    e->session = colo_session_new(&c, &ops, e, 0);
}

static void end(End *e)
{
    colo_session_free(e->session);
}

/* Carries up to @len bytes from one to the other; false once that has ended. */
static bool carry(End *from, End *to, size_t len, int64_t now)
{
    size_t size = MIN(len, colo_session_size(from->session));
    bool going = colo_session_read(to->session, colo_session_bytes(from->session), size, now);

    colo_session_wrote(from->session, size);
    return going;
}

static void carry_all(End *a, End *b, int64_t now)
{
    while (colo_session_size(a->session) || colo_session_size(b->session)) {
        carry(a, b, SIZE_MAX, now);
        carry(b, a, SIZE_MAX, now);
    }
}

static void begin_both(End *a, End *b)
{
    begin(a, COLO_PRIMARY, &usual);
    begin(b, COLO_SECONDARY, &usual);
    carry_all(a, b, 0);
    ck_assert_int_eq(a->ready, 1);
    ck_assert_int_eq(b->ready, 1);
}

static bool send_packet(End *e, uint32_t number)
{
    uint8_t *bytes;

    if (!colo_session_has_room(e->session)) {
        return false;
    }
    bytes = bytes_of(number, size_of(number));
    memcpy(colo_session_append(e->session, size_of(number), 0), bytes, size_of(number));
    g_free(bytes);
    return true;
}

/* The record that the document describes. */
static GByteArray *record(uint8_t type, const void *body, uint32_t size)
{
    GByteArray *array = g_byte_array_new();
    uint8_t header[5] = { (uint8_t)(size >> 24), (uint8_t)(size >> 16), (uint8_t)(size >> 8), (uint8_t)size, type };

    g_byte_array_append(array, header, sizeof(header));
    g_byte_array_append(array, body, size);
    return array;
}

/* A hello as the document describes it: version 1, of a secondary, credit 65536, instance 5. */
static const uint8_t hello[32] = {
    'C', 'O', 'L', 'O', 'P', 'R', 'X', 'Y', 0, 1, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5,
};

static bool give(End *e, uint8_t type, const void *body, uint32_t size)
{
    GByteArray *array = record(type, body, size);
    bool going = colo_session_read(e->session, array->data, array->len, 0);

    g_byte_array_unref(array);
    return going;
}

static void assert_ended(End *e, const char *text)
{
    ck_assert_msg(colo_session_error(e->session) && strstr(colo_session_error(e->session), text),
                  "\"%s\" is not in \"%s\"", text, colo_session_error(e->session));
    ck_assert(!colo_session_is_ready(e->session));
    ck_assert_int_eq(colo_session_deadline(e->session), INT64_MAX);
    ck_assert(!give(e, 6, NULL, 0));
}

START_TEST(hello_to_the_byte)
{
    static const uint8_t ours[HELLO_RECORD] = {
        0, 0, 0, 32, 1, 'C', 'O', 'L', 'O', 'P', 'R', 'X', 'Y', 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0x86, 0xa0,
        1, 2, 3, 4, 5, 6, 7, 8,
    };
    ColoSessionConfig config = usual;
    End a;

    begin(&a, COLO_PRIMARY, &config);
    ck_assert_uint_eq(colo_session_size(a.session), sizeof(ours));
    ck_assert_mem_eq(colo_session_bytes(a.session), ours, sizeof(ours));
    ck_assert(!colo_session_is_ready(a.session));
    ck_assert(!colo_session_has_room(a.session));
    end(&a);
}

START_TEST(packets_in_any_split)
{
    for (size_t piece = 1; piece < 20000; piece = piece < 12 ? piece + 1 : piece * 3) {
        End a, b;
        uint32_t sent = 0;

        begin_both(&a, &b);
        while (b.packets < 200) {
            if (sent < 200 && send_packet(&a, sent)) {
                sent++;
                if (sent == 100) {
                    colo_session_send_epoch(a.session, 77);
                }
            }
            ck_assert(carry(&a, &b, piece, 0));
            ck_assert(carry(&b, &a, piece, 0));
        }
        ck_assert_uint_eq(b.epoch, 77);
        ck_assert_uint_eq(b.packets_before_epoch, 100);
        end(&a);
        end(&b);
    }
}

START_TEST(credit_holds_and_comes_back)
{
    End a, b;
    uint32_t sent = 0;

    begin_both(&a, &b);
    b.takes = false;
    while (send_packet(&a, sent)) {
        sent++;
        carry_all(&a, &b, 0);
    }
    /* The last may go beyond. */
    ck_assert_uint_ge(b.bytes, usual.credit);
    ck_assert_uint_lt(b.bytes, usual.credit + 3001);
    colo_session_took(b.session, b.bytes);
    carry_all(&a, &b, 0);
    ck_assert(send_packet(&a, sent));
    carry_all(&a, &b, 0);
    ck_assert_uint_eq(b.packets, sent + 1);
    ck_assert(colo_session_is_ready(b.session));
    end(&a);
    end(&b);
}

START_TEST(beyond_its_credit)
{
    uint8_t body[1 + 3000] = { 0 };
    End a;
    bool going = true;

    begin(&a, COLO_PRIMARY, &usual);
    a.takes = false;
    ck_assert(give(&a, 1, hello, sizeof(hello)));
    for (uint32_t i = 0; i < 1000 && going; i++) {
        uint32_t size = size_of(i);
        uint8_t *bytes = bytes_of(i, size);

        memcpy(body + 1, bytes, size);
        g_free(bytes);
        going = give(&a, 3, body, 1 + size);
    }
    assert_ended(&a, "no credit");
    ck_assert_uint_lt(a.bytes, usual.credit + 3001);
    end(&a);
}

START_TEST(a_peer_that_reads_nothing)
{
    uint8_t generous[32];
    End a;
    uint32_t sent = 0;

    memcpy(generous, hello, sizeof(hello));
    memset(generous + 16, 0xff, 8);
    begin(&a, COLO_PRIMARY, &usual);
    ck_assert(give(&a, 1, generous, sizeof(generous)));
    while (send_packet(&a, sent)) {
        sent++;
    }
    ck_assert_uint_lt(colo_session_size(a.session), 17 * 1024 * 1024);
    ck_assert(colo_session_tick(a.session, 1));
    while (colo_session_size(a.session) <= 32 * 1024 * 1024) {
        colo_session_send_epoch(a.session, 1);
    }
    ck_assert(!colo_session_tick(a.session, 2));
    assert_ended(&a, "does not read");
    end(&a);
}

/* What the other end is told of why. */
static void assert_told(End *e, const char *text)
{
    g_autofree char *out = g_strndup((const char *)colo_session_bytes(e->session) + HELLO_RECORD + 5,
                                     colo_session_size(e->session) - HELLO_RECORD - 5);

    ck_assert_uint_eq(colo_session_bytes(e->session)[HELLO_RECORD + 4], 2);
    ck_assert_str_eq(out, text);
}

typedef struct {
    int at;                 /* of the hello: this byte is */
    uint8_t value;
    const char *error;
} BadHello;

static const BadHello bad_hellos[] = {
    { 0, 'c', "does not speak" },
    { 9, 0, "version 1 of the protocol, the other 1 to 0" },
    { 11, 2, "version 1 of the protocol, the other 2 to 1" },
    { 12, 0, "both ends have mode=primary" },
    { 12, 2, "does not speak" },
};

START_TEST(disagreeable_hellos)
{
    const BadHello *bad = &bad_hellos[_i];
    uint8_t body[32];
    End a;

    memcpy(body, hello, sizeof(body));
    body[bad->at] = bad->value;
    begin(&a, COLO_PRIMARY, &usual);
    ck_assert(!give(&a, 1, body, sizeof(body)));
    assert_told(&a, colo_session_error(a.session));
    assert_ended(&a, bad->error);
    ck_assert_int_eq(a.ready, 0);
    end(&a);
}

START_TEST(a_later_version_may_say_more)
{
    uint8_t body[40] = { 0 };
    End a;

    memcpy(body, hello, sizeof(hello));
    body[9] = 3;
    begin(&a, COLO_PRIMARY, &usual);
    ck_assert(give(&a, 1, body, sizeof(body)));
    ck_assert(colo_session_is_ready(a.session));
    end(&a);
}

typedef struct {
    bool greeted;
    uint8_t type;
    uint32_t size;
    const char *error;
} BadRecord;

static const BadRecord bad_records[] = {
    { false, 6, 0, "before the hello" },
    { false, 3, 100, "before the hello" },
    { false, 0x20, 100, "does not speak" },
    { false, 1, 257, "does not speak" },
    { true, 1, 32, "second hello" },
    { true, 0, 0, "type 0 and 0 bytes" },
    { true, 7, 0, "type 7 and 0 bytes" },
    { true, 2, 201, "type 2 and 201 bytes" },
    { true, 3, 0, "type 3 and 0 bytes" },
    { true, 3, 1, "type 3 and 1 bytes" },
    { true, 3, 1 + 68 * 1024 + 1, "a packet came of 69633 bytes, 0 of them header" },
    { true, 3, 1 + 68 * 1024 + 20 + 1, "type 3 and 69654 bytes" },
    { true, 4, 7, "type 4 and 7 bytes" },
    { true, 5, 9, "type 5 and 9 bytes" },
    { true, 6, 1, "type 6 and 1 bytes" },
};

START_TEST(impossible_records)
{
    const BadRecord *bad = &bad_records[_i];
    g_autofree uint8_t *body = g_malloc0(bad->size + 1);
    End a;

    begin(&a, COLO_PRIMARY, &usual);
    ck_assert(!bad->greeted || give(&a, 1, hello, sizeof(hello)));
    memcpy(body, hello, MIN(bad->size, sizeof(hello)) * (bad->type == 1));
    ck_assert(!give(&a, bad->type, body, bad->size));
    assert_ended(&a, bad->error);
    ck_assert_uint_eq(a.packets, 0);
    end(&a);
}

START_TEST(headers_longer_than_their_packets)
{
    static const uint8_t bodies[][4] = { { 21, 1, 2, 3 }, { 3, 1, 2, 3 }, { 255, 1, 2, 3 } };
    End a;

    begin(&a, COLO_PRIMARY, &usual);
    ck_assert(give(&a, 1, hello, sizeof(hello)));
    ck_assert(!give(&a, 3, bodies[_i], sizeof(bodies[_i])));
    assert_ended(&a, "of them header");
    end(&a);
}

START_TEST(goodbye_is_told)
{
    End a, b;

    begin_both(&a, &b);
    colo_session_say_goodbye(a.session, "the object\n is deleted");
    ck_assert(!carry(&a, &b, SIZE_MAX, 0));
    assert_ended(&b, "the other end says: the object\\n is deleted");
    end(&a);
    end(&b);
}

/* Somebody we do not want. */
START_TEST(an_instance_is_refused)
{
    End a;

    begin(&a, COLO_PRIMARY, &usual);
    a.objects = true;
    ck_assert(!give(&a, 1, hello, sizeof(hello)));
    ck_assert_uint_eq(a.peer_instance, 5);
    assert_told(&a, "we have had enough of that one");
    assert_ended(&a, "we have had enough of that one");
    ck_assert(!colo_session_has_heard(a.session));
    end(&a);
}

/* Which is how it is known, there, from the end of one that has begun. */
START_TEST(turned_away)
{
    End a, b;

    begin(&a, COLO_PRIMARY, &usual);
    begin(&b, COLO_SECONDARY, &usual);
    a.objects = true;
    carry(&b, &a, SIZE_MAX, 0);
    carry(&a, &b, SIZE_MAX, 0);
    assert_ended(&b, "the other end says: we have had enough of that one");
    ck_assert(!colo_session_has_heard(b.session));
    end(&a);
    end(&b);

    begin_both(&a, &b);
    ck_assert(colo_session_has_heard(b.session));
    end(&a);
    end(&b);
}

START_TEST(an_epoch_that_cannot_be)
{
    static const uint8_t number[8] = { 0, 0, 0, 0, 0, 0, 666 >> 8, 666 & 255 };
    End a;

    begin(&a, COLO_PRIMARY, &usual);
    ck_assert(give(&a, 1, hello, sizeof(hello)));
    ck_assert(!give(&a, 4, number, sizeof(number)));
    ck_assert_uint_eq(a.epoch, 666);
    assert_ended(&a, "an epoch came that cannot be yet");
    end(&a);
}

/* A hello that comes in dribs and drabs is no sign of life. */
START_TEST(a_hello_that_takes_too_long)
{
    GByteArray *array = record(1, hello, sizeof(hello));
    End a;

    begin(&a, COLO_PRIMARY, &usual);
    for (guint i = 0; i < 30; i++) {
        int64_t now = i * 20 * MS;

        ck_assert(!colo_session_is_silent(a.session, now) == (i < 25));
        if (i == 25) {
            ck_assert(!colo_session_tick(a.session, now));
            break;
        }
        ck_assert(colo_session_tick(a.session, now));
        ck_assert(colo_session_read(a.session, array->data + i, 1, now));
    }
    assert_ended(&a, "nothing has been heard");
    g_byte_array_unref(array);
    end(&a);
}

START_TEST(heartbeats)
{
    End a, b;
    int64_t now;

    begin_both(&a, &b);
    ck_assert_int_eq(colo_session_deadline(a.session), 100 * MS);
    for (now = 0; now < 3000 * MS; now += 10 * MS) {
        ck_assert(colo_session_tick(a.session, now));
        ck_assert(colo_session_tick(b.session, now));
        ck_assert(now < 100 * MS || colo_session_size(a.session) || now % (100 * MS));
        carry_all(&a, &b, now);
    }
    /* a falls silent */
    while (colo_session_tick(b.session, now)) {
        ck_assert_int_gt(colo_session_deadline(b.session), now);
        now = colo_session_deadline(b.session);
    }
    ck_assert_int_ge(now, 2990 * MS + 500 * MS - 100 * MS);
    ck_assert_int_le(now, 2990 * MS + 500 * MS);
    assert_ended(&b, "nothing has been heard");
    end(&a);
    end(&b);
}

int main(void)
{
    Suite *suite = suite_create("session");
    TCase *tc = tcase_create("session");

    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, hello_to_the_byte);
    tcase_add_test(tc, packets_in_any_split);
    tcase_add_test(tc, credit_holds_and_comes_back);
    tcase_add_test(tc, beyond_its_credit);
    tcase_add_test(tc, a_peer_that_reads_nothing);
    tcase_add_loop_test(tc, disagreeable_hellos, 0, G_N_ELEMENTS(bad_hellos));
    tcase_add_test(tc, a_later_version_may_say_more);
    tcase_add_loop_test(tc, impossible_records, 0, G_N_ELEMENTS(bad_records));
    tcase_add_loop_test(tc, headers_longer_than_their_packets, 0, 3);
    tcase_add_test(tc, goodbye_is_told);
    tcase_add_test(tc, an_instance_is_refused);
    tcase_add_test(tc, turned_away);
    tcase_add_test(tc, an_epoch_that_cannot_be);
    tcase_add_test(tc, a_hello_that_takes_too_long);
    tcase_add_test(tc, heartbeats);
    suite_add_tcase(suite, tc);
    return run_suite(suite);
}
