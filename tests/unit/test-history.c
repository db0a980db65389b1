/*
 * Tests of history.c, and of the repetitions that are held against it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "rig.h"
#include "net/colo/history.h"

#include <string.h>

#define CLIENT 5000u            /* what both sides acknowledge */
#define PATIENT 1000000u
#define SIZE_FIRST (1024 * 1024u)    /* of a history that may grow */

static const Shape plain;

/* Positions of the first byte, for tests that cross the wrap at every point. */
static const uint32_t bases[] = { 1, 1000, 0x7ffffffd, 0x80000000, 0xfffffff0, 0xfffffffd, UINT32_MAX, 0 };

/* The history itself */

static void say(ColoHistory *h, uint64_t *last, uint8_t flags, uint32_t seq, const void *bytes, uint32_t len)
{
    Frame *f = frame_tcp(&plain, seq, CLIENT, flags, NULL, 0, bytes, len);
    ColoPacket p;

    colo_packet_parse(&p, f->data, f->size, 0);
    colo_history_add(h, last, &p);
    frame_free(f);
}

static ColoRun run_at(ColoHistory *h, uint64_t last, uint32_t seq)
{
    uint32_t patience = PATIENT;

    return colo_history_run(h, last, seq, &patience);
}

static void expect_bytes(ColoHistory *h, uint64_t last, uint32_t seq, const char *text)
{
    ColoRun run = run_at(h, last, seq);

    ck_assert_int_eq(run.kind, COLO_RUN_BYTES);
    ck_assert_uint_eq(run.len, strlen(text));
    ck_assert_mem_eq(run.bytes, text, run.len);
}

START_TEST(what_was_said)
{
    for (guint b = 0; b < G_N_ELEMENTS(bases); b++) {
        uint32_t at = bases[b];
        ColoHistory *h = colo_history_new(RIG_HISTORY);
        uint64_t last = 0;

        ck_assert_int_eq(run_at(h, last, at).kind, COLO_RUN_NONE);
        say(h, &last, SYN | ACK, at - 1, NULL, 0);
        say(h, &last, ACK, at, "abc", 3);
        say(h, &last, ACK | FIN, at + 3, "def", 3);
        ck_assert_int_eq(run_at(h, last, at - 2).kind, COLO_RUN_NONE);
        ck_assert_int_eq(run_at(h, last, at - 1).kind, COLO_RUN_SYN);
        ck_assert_uint_eq(run_at(h, last, at - 1).len, 1);
        expect_bytes(h, last, at, "abc");
        expect_bytes(h, last, at + 2, "c");
        expect_bytes(h, last, at + 3, "def");
        expect_bytes(h, last, at + 5, "f");
        ck_assert_int_eq(run_at(h, last, at + 6).kind, COLO_RUN_FIN);
        ck_assert_uint_eq(run_at(h, last, at + 6).len, 1);
        ck_assert_int_eq(run_at(h, last, at + 7).kind, COLO_RUN_NONE);
        colo_history_free(h);
    }
}
END_TEST

/* A SYN and a FIN that have bytes between them. */
START_TEST(syn_bytes_and_fin_in_one)
{
    ColoHistory *h = colo_history_new(RIG_HISTORY);
    uint64_t last = 0;

    say(h, &last, SYN | FIN, UINT32_MAX, "ab", 2);
    ck_assert_int_eq(run_at(h, last, UINT32_MAX).kind, COLO_RUN_SYN);
    expect_bytes(h, last, 0, "ab");
    expect_bytes(h, last, 1, "b");
    ck_assert_int_eq(run_at(h, last, 2).kind, COLO_RUN_FIN);
    ck_assert_int_eq(run_at(h, last, 3).kind, COLO_RUN_NONE);
    colo_history_free(h);
    colo_history_free(NULL);
}
END_TEST

START_TEST(the_newest_word_counts)
{
    ColoHistory *h = colo_history_new(RIG_HISTORY);
    uint64_t last = 0;

    say(h, &last, ACK, 10, "abcdef", 6);
    say(h, &last, ACK, 12, "XY", 2);
    expect_bytes(h, last, 10, "abcdef");        /* up to the end of that word: whoever goes on asks again */
    expect_bytes(h, last, 12, "XY");
    expect_bytes(h, last, 13, "Y");
    expect_bytes(h, last, 14, "ef");
    colo_history_free(h);
}
END_TEST

START_TEST(streams_do_not_mix)
{
    ColoHistory *h = colo_history_new(RIG_HISTORY);
    uint64_t one = 0, two = 0;

    say(h, &one, ACK, 10, "one", 3);
    say(h, &two, ACK, 10, "two", 3);
    say(h, &one, ACK, 13, "more", 4);
    expect_bytes(h, one, 10, "one");
    expect_bytes(h, two, 10, "two");
    ck_assert_int_eq(run_at(h, two, 13).kind, COLO_RUN_NONE);
    colo_history_free(h);
}
END_TEST

/* Each word that is looked at costs one; when nothing is left, nothing is known. */
START_TEST(patience)
{
    ColoHistory *h = colo_history_new(RIG_HISTORY);
    uint64_t last = 0;
    uint32_t left = 10;

    for (uint32_t i = 0; i < 8; i++) {
        say(h, &last, ACK, i, "x", 1);
    }
    ck_assert_int_eq(colo_history_run(h, last, 7, &left).kind, COLO_RUN_BYTES);
    ck_assert_uint_eq(left, 10);                /* found by the first */
    ck_assert_int_eq(colo_history_run(h, last, 0, &left).kind, COLO_RUN_BYTES);
    ck_assert_uint_eq(left, 3);
    ck_assert_int_eq(colo_history_run(h, last, 0, &left).kind, COLO_RUN_NONE);
    ck_assert_uint_eq(left, 0);
    ck_assert_int_eq(colo_history_run(h, last, 7, &left).kind, COLO_RUN_NONE);
    left = 8;
    ck_assert_int_eq(colo_history_run(h, last, 0, &left).kind, COLO_RUN_BYTES);
    left = 7;
    ck_assert_int_eq(colo_history_run(h, last, 0, &left).kind, COLO_RUN_NONE);
    colo_history_free(h);
}
END_TEST

/*
 * Against a plain list: what is found is what was said; what was said within the last part of the ring is found; what
 * was said long ago is not.  Sizes up to the longest, so that records meet the end of the ring in every way.  A large
 * one begins small and grows: whatever is found is right all the same.
 */
START_TEST(the_new_overwrites_the_old)
{
    enum { STREAMS = 5, WORDS = 2000 };
    GRand *rand = g_rand_new_with_seed(test_seed("the_new_overwrites_the_old"));

    for (int run = 0; run < 12; run++) {
        uint32_t size_max = run < 6 ? RIG_HISTORY : 16 * SIZE_FIRST, size = MIN(size_max, SIZE_FIRST);
        ColoHistory *h = colo_history_new(size_max);
        uint32_t longest = run % 3 == 0 ? 65000 : run % 3 == 1 ? 1500 : 20;
        uint64_t last[STREAMS] = { 0 }, said = 0;
        struct {
            int stream;
            uint32_t seq, len;
            uint64_t said;      /* bytes said before it */
        } *words = g_malloc(WORDS * sizeof(*words));
        uint32_t next[STREAMS] = { 0, UINT32_MAX - 100000, 5, 0x7ffffff0, 99 };

        for (int i = 0; i < WORDS; i++) {
            int s = g_rand_int_range(rand, 0, STREAMS), back;
            uint32_t len = (uint32_t)g_rand_int_range(rand, 1, (gint32)longest);
            uint8_t *bytes = bytes_of((uint32_t)i, len);
            ColoRun found;

            say(h, &last[s], ACK, next[s], bytes, len);
            words[i].stream = s;
            words[i].seq = next[s];
            words[i].len = len;
            words[i].said = said;
            next[s] += len;
            said += len;
            g_free(bytes);

            back = g_rand_int_range(rand, 0, i + 1);
            back = g_rand_boolean(rand) ? back : back % 8;
            back = i - back;
            found = run_at(h, last[words[back].stream], words[back].seq);
            if (found.kind == COLO_RUN_NONE) {
                /* 40: of each record's own; the longest may have been left free at the end of the ring. */
                ck_assert_uint_gt(said - words[back].said + (uint64_t)(i - back) * 40 + 40 + 2 * longest, size);
            } else {
                bytes = bytes_of((uint32_t)back, words[back].len);
                ck_assert_uint_eq(found.len, words[back].len);
                ck_assert_mem_eq(found.bytes, bytes, found.len);
                ck_assert_uint_le(said - words[back].said, size_max);
                g_free(bytes);
            }
        }
        g_free(words);
        colo_history_free(h);
    }
    g_rand_free(rand);
}
END_TEST

/* Says @bytes bytes on a stream of its own. */
static void say_much(ColoHistory *h, uint64_t *last, uint32_t *at, uint32_t bytes)
{
    uint8_t *filler = bytes_of(9, 1000);

    for (uint32_t n = 0; n < bytes; n += 1000) {
        say(h, last, ACK, *at, filler, 1000);
        *at += 1000;
    }
    g_free(filler);
}

/* When something is missed there is twice the room from then on, up to the size that was asked for. */
START_TEST(grows_when_something_was_missed)
{
    ColoHistory *h = colo_history_new(4 * SIZE_FIRST);
    uint64_t other = 0;
    uint32_t at = 0;

    for (uint32_t size = SIZE_FIRST; size <= 8 * SIZE_FIRST; size *= 2) {
        uint64_t old = 0, recent = 0;

        say(h, &old, ACK, 1, "old", 3);
        say_much(h, &other, &at, size);
        say(h, &recent, ACK, 1, "recent", 6);
        if (size <= 4 * SIZE_FIRST) {
            ck_assert_int_eq(run_at(h, old, 1).kind, COLO_RUN_NONE);
        }
        say(h, &recent, ACK, 7, "more", 4);
        ck_assert_int_eq(run_at(h, old, 1).kind, COLO_RUN_NONE);    /* what is gone is gone */
        expect_bytes(h, recent, 1, "recent");
        expect_bytes(h, recent, 7, "more");
        say(h, &recent, ACK, 11, "!", 1);
        /* Half of what there is room for now is surely remembered. */
        say_much(h, &other, &at, MIN(size, 2 * SIZE_FIRST) * 3 / 2);
        expect_bytes(h, recent, 1, "recent");
        expect_bytes(h, recent, 11, "!");
    }
    /* Never beyond its size. */
    for (int i = 0; i < 3; i++) {
        uint64_t old = 0;

        say(h, &old, ACK, 1, "old", 3);
        say_much(h, &other, &at, 4 * SIZE_FIRST);
        ck_assert_int_eq(run_at(h, old, 1).kind, COLO_RUN_NONE);
    }
    colo_history_free(h);
}
END_TEST

/* Repetitions through the comparator */

/* A connection whose first byte has position @base, and on which "abcdefgh" has left in two segments. */
static Rig *rig_said(uint32_t base)
{
    Rig *rig = rig_new();

    primary(rig, SYN | ACK, base - 1, CLIENT, "");
    secondary(rig, SYN | ACK, base ^ 0x13572468, CLIENT, "");
    rig_expect(rig, SYN | ACK, base - 1, 0);
    primary(rig, ACK, base, CLIENT, "abcd");
    primary(rig, ACK, base + 4, CLIENT, "efgh");
    secondary(rig, ACK, base, CLIENT, "abcdefgh");
    rig_expect(rig, ACK, base, 4);
    rig_expect(rig, ACK, base + 4, 4);
    rig_expect_nothing(rig);
    return rig;
}

/*
 * The last packet given, @units from position @seq on, has been asked about for @reason.  Before the checkpoint no more
 * of it leaves than its first @good units, with the checkpoint the rest.
 */
static void expect_refused(Rig *rig, ColoReason reason, uint32_t seq, uint32_t units, uint32_t good)
{
    uint32_t left = 0;

    rig_expect_asked(rig, rig->asked, reason);
    ck_assert_int_eq(rig->asked_in_epoch, 1);
    for (int turn = 0; turn < 2; turn++) {
        while (rig_pending(rig)) {
            Seen seen = rig_next(rig);

            ck_assert_uint_eq(seen.seq, seq + left);
            left += seen.seq_len;
            ck_assert(turn || left <= good);
        }
        rig_checkpoint(rig);
    }
    ck_assert_uint_eq(left, units);
    rig_expect_nothing(rig);
}

/* Everything that has left may leave again in any pieces, without the secondary. */
START_TEST(other_boundaries)
{
    for (guint b = 0; b < G_N_ELEMENTS(bases); b++) {
        uint32_t at = bases[b];
        Rig *rig = rig_said(at);

        for (uint32_t from = 0; from < 8; from++) {
            for (uint32_t to = from + 1; to <= 8; to++) {
                rig_tcp(rig, COLO_PRIMARY, ACK, at + from, CLIENT, "abcdefgh" + from, to - from);
                rig_expect(rig, ACK, at + from, to - from);
            }
        }
        primary(rig, SYN | ACK, at - 1, CLIENT, "");
        rig_expect(rig, SYN | ACK, at - 1, 0);
        rig_end_well(rig);
    }
}
END_TEST

/* All of it old; one byte wrong, wherever. */
START_TEST(one_wrong_byte)
{
    for (guint b = 0; b < G_N_ELEMENTS(bases); b++) {
        for (uint32_t wrong = 0; wrong < 8; wrong++) {
            for (int behind = 0; behind < 2; behind++) {
                uint32_t at = bases[b];
                char text[] = "abcdefgh";
                Rig *rig = rig_said(at);

                if (behind) {       /* others are held meanwhile */
                    primary(rig, ACK, at + 8, CLIENT, "ijkl");
                }
                text[wrong] = '!';
                primary(rig, ACK, at, CLIENT, text);
                if (behind) {
                    rig_expect_asked(rig, 1, COLO_REASON_PAYLOAD);
                    while (rig_pending(rig)) {      /* what comes before the wrong byte, at most */
                        Seen seen = rig_next(rig);

                        ck_assert_uint_le(seen.seq + seen.len - at, wrong);
                    }
                    rig_checkpoint(rig);
                    rig_expect(rig, ACK, at + 8, 4);
                    while (rig_pending(rig)) {
                        rig_next(rig);
                    }
                } else {
                    expect_refused(rig, COLO_REASON_PAYLOAD, at, 8, wrong);
                }
                /* That has been said now. */
                primary(rig, ACK, at, CLIENT, text);
                rig_expect(rig, ACK, at, 8);
                rig_expect_asked(rig, 1, COLO_REASON_PAYLOAD);
                primary(rig, ACK, at, CLIENT, "abcdefgh");
                rig_expect_asked(rig, 2, COLO_REASON_PAYLOAD);
                rig_free(rig);
            }
        }
    }
}
END_TEST

/* Old in front, new behind; the old half is wrong. */
START_TEST(partly_old)
{
    for (int secondary_first = 0; secondary_first < 2; secondary_first++) {
        Rig *rig = rig_said(1);

        if (secondary_first) {
            secondary(rig, ACK, 9, CLIENT, "ijkl");
        }
        primary(rig, ACK, 5, CLIENT, "eXghijkl");
        if (!secondary_first) {
            secondary(rig, ACK, 9, CLIENT, "ijkl");
        }
        expect_refused(rig, COLO_REASON_PAYLOAD, 5, 8, 1);
        rig_free(rig);

        rig = rig_said(1);
        if (secondary_first) {
            secondary(rig, ACK, 9, CLIENT, "ijkl");
            primary(rig, ACK, 5, CLIENT, "efghijkl");
            rig_expect(rig, ACK, 5, 8);
        } else {
            primary(rig, ACK, 5, CLIENT, "efghijkl");
            rig_expect(rig, ACK, 5, 4);         /* its front need not wait */
            rig_expect_nothing(rig);
            secondary(rig, ACK, 9, CLIENT, "ijkl");
            rig_expect(rig, ACK, 9, 4);
        }
        rig_end_well(rig);
    }
}
END_TEST

/* The first copy is compared, but held for its acknowledgement: it has been said all the same, and leaves first. */
START_TEST(against_what_is_held)
{
    for (int wrong = 0; wrong < 2; wrong++) {
        Rig *rig = rig_said(1);

        primary(rig, ACK, 9, CLIENT + 1, "ijkl");
        secondary(rig, ACK, 9, CLIENT, "ijkl");
        primary(rig, ACK, 9, CLIENT, wrong ? "ijXl" : "ijkl");
        rig_expect_nothing(rig);
        rig_expect_asked(rig, wrong, COLO_REASON_PAYLOAD);
        secondary(rig, ACK, 13, CLIENT + 1, "");
        rig_expect(rig, ACK, 9, 4);
        if (wrong) {
            rig_expect_nothing(rig);
            rig_checkpoint(rig);
            rig_expect(rig, ACK, 9, 4);
            rig_free(rig);
        } else {
            rig_expect(rig, ACK, 9, 4);
            rig_end_well(rig);
        }
    }
}
END_TEST

/* Several held copies of one stretch, none compared yet: one of them says something else. */
START_TEST(held_copies_that_differ)
{
    for (guint wrong = 0; wrong < 3; wrong++) {
        Rig *rig = rig_said(1);
        guint left = 0;

        primary(rig, ACK, 9, CLIENT, wrong == 0 ? "ijkl!nop" : "ijklmnop");
        primary(rig, ACK, 9, CLIENT, wrong == 1 ? "ijkl!nop" : "ijklmnop");
        primary(rig, ACK, 11, CLIENT, wrong == 2 ? "kl!n" : "klmn");
        rig_expect_asked(rig, 0, 0);
        rig_expect_nothing(rig);
        secondary(rig, ACK, 9, CLIENT, "ijklmnop");
        rig_expect_asked(rig, 1, COLO_REASON_PAYLOAD);
        while (rig_pending(rig)) {
            Seen seen = rig_next(rig);

            left++;
            ck_assert(!memchr(seen.payload, '!', seen.len));
        }
        ck_assert_uint_eq(left, wrong);     /* the good ones before it */
        rig_free(rig);
    }
}
END_TEST

/* A checkpoint lets out what the secondary has never said: that is remembered like all else. */
START_TEST(after_a_checkpoint)
{
    for (int wrong = 0; wrong < 2; wrong++) {
        Rig *rig = rig_said(1);

        primary(rig, ACK, 9, CLIENT, "ijkl");
        rig_checkpoint(rig);
        rig_expect(rig, ACK, 9, 4);
        if (wrong) {
            primary(rig, ACK, 7, CLIENT, "ghijkX");
            expect_refused(rig, COLO_REASON_PAYLOAD, 7, 6, 5);
            rig_free(rig);
        } else {
            primary(rig, ACK, 7, CLIENT, "ghijkl");
            rig_expect(rig, ACK, 7, 6);
            primary(rig, SYN | ACK, 0, CLIENT, "");
            rig_expect(rig, SYN | ACK, 0, 0);
            rig_end_well(rig);
        }
    }
}
END_TEST

/* Output of the old epoch that comes after the checkpoint leaves, and is remembered. */
START_TEST(said_in_the_old_epoch)
{
    Rig *rig = rig_new();

    rig_epoch(rig, COLO_PRIMARY);
    rig_checkpoint(rig);
    primary(rig, ACK, 1, CLIENT, "abcd");
    rig_expect(rig, ACK, 1, 4);
    rig_epoch(rig, COLO_PRIMARY);
    primary(rig, ACK, 2, CLIENT, "bc");
    rig_expect(rig, ACK, 2, 2);
    primary(rig, ACK, 1, CLIENT, "aXcd");
    expect_refused(rig, COLO_REASON_PAYLOAD, 1, 4, 1);
    rig_free(rig);
}
END_TEST

/* Both sides say @bytes bytes, at least, on a connection of their own. */
static void say_elsewhere(Rig *rig, uint32_t bytes)
{
    enum { SEGMENT = 1400 };
    static const Shape other = { .peer_port = 1 };
    uint8_t *filler = bytes_of(1, SEGMENT);

    for (uint32_t said = 0; said < bytes; said += SEGMENT) {
        rig_give(rig, COLO_PRIMARY, frame_tcp(&other, said, 1, ACK, NULL, 0, filler, SEGMENT));
        rig_give(rig, COLO_SECONDARY, frame_tcp(&other, said, 1, ACK, NULL, 0, filler, SEGMENT));
        rig_expect(rig, ACK, said, SEGMENT);
    }
    g_free(filler);
}

/* Nobody remembers: the same bytes are as good as others. */
START_TEST(forgotten)
{
    for (int old = 0; old < 2; old++) {
        Rig *rig = rig_said(1);

        primary(rig, ACK, 1, CLIENT, "abcd");
        rig_expect(rig, ACK, 1, 4);
        say_elsewhere(rig, old ? RIG_HISTORY : RIG_HISTORY / 2);
        primary(rig, ACK, 1, CLIENT, "abcd");
        if (old) {
            expect_refused(rig, COLO_REASON_PAYLOAD, 1, 4, 0);
            /* New bytes are compared as ever. */
            primary(rig, ACK, 9, CLIENT, "ijkl");
            secondary(rig, ACK, 9, CLIENT, "ijkl");
            rig_expect(rig, ACK, 9, 4);
            rig_free(rig);
        } else {
            rig_expect(rig, ACK, 1, 4);
            rig_end_well(rig);
        }
    }
}
END_TEST

/* COLO began in the middle of the connection: what was said before is not known. */
START_TEST(from_before_the_beginning)
{
    Rig *rig = rig_new();

    primary(rig, ACK, 100, CLIENT, "abcd");
    secondary(rig, ACK, 100, CLIENT, "abcd");
    rig_expect(rig, ACK, 100, 4);
    primary(rig, ACK, 96, CLIENT, "wxyz");
    expect_refused(rig, COLO_REASON_PAYLOAD, 96, 4, 0);
    rig_free(rig);
}
END_TEST

/* A byte where the end was, and an end where a byte was. */
START_TEST(kind_changes)
{
    for (guint b = 0; b < G_N_ELEMENTS(bases); b++) {
        uint32_t at = bases[b];
        Rig *rig = rig_said(at);

        primary(rig, ACK | FIN, at + 8, CLIENT, "");
        secondary(rig, ACK | FIN, at + 8, CLIENT, "");
        rig_expect(rig, ACK | FIN, at + 8, 0);
        primary(rig, ACK | FIN, at + 6, CLIENT, "gh");
        rig_expect(rig, ACK | FIN, at + 6, 2);
        primary(rig, ACK, at + 4, CLIENT, "efghi");
        expect_refused(rig, COLO_REASON_FLAGS, at + 4, 5, 4);
        rig_free(rig);

        rig = rig_said(at);
        primary(rig, ACK | FIN, at + 4, CLIENT, "ef");
        expect_refused(rig, COLO_REASON_FLAGS, at + 4, 3, 2);
        rig_free(rig);

        rig = rig_said(at);
        primary(rig, ACK, at - 1, CLIENT, "zabc");      /* the SYN's place */
        expect_refused(rig, COLO_REASON_FLAGS, at - 1, 4, 0);
        rig_free(rig);
    }
}
END_TEST

/* Two ends that are not at the same place. */
START_TEST(another_end)
{
    Rig *rig = rig_said(1);

    primary(rig, ACK | FIN, 9, CLIENT, "");
    secondary(rig, ACK | FIN, 9, CLIENT, "");
    rig_expect(rig, ACK | FIN, 9, 0);
    primary(rig, ACK | FIN, 8, CLIENT, "");
    expect_refused(rig, COLO_REASON_FLAGS, 8, 1, 0);
    rig_free(rig);
}
END_TEST

START_TEST(repeated_syn_options)
{
    static const char given[] = "\2\4\5\xb4\4\2\x08\x0a" "\1\2\3\4\0\0\0\0" "\1\3\3\7";
    static const char later[] = "\2\4\5\xb4\4\2\x08\x0a" "\1\2\4\4\0\0\0\0" "\1\3\3\7";
    static const char other[] = "\2\4\5\xb4\4\2\x08\x0a" "\1\2\4\4\0\0\0\0" "\1\3\3\6";

    for (int variant = 0; variant < 8; variant++) {
        bool held_behind = variant & 1, differs = variant & 2, by_checkpoint = variant & 4;
        Rig *rig = rig_new();

        rig_give(rig, COLO_PRIMARY, frame_tcp(&plain, 9, CLIENT, SYN | ACK, given, 20, NULL, 0));
        if (by_checkpoint) {
            rig_checkpoint(rig);
        } else {
            rig_give(rig, COLO_SECONDARY, frame_tcp(&plain, 99, CLIENT, SYN | ACK, given, 20, NULL, 0));
        }
        rig_expect(rig, SYN | ACK, 9, 0);
        if (held_behind) {
            primary(rig, ACK, 10, CLIENT, "held");
        }
        rig_give(rig, COLO_PRIMARY, frame_tcp(&plain, 9, CLIENT, SYN | ACK, differs ? other : later, 20, NULL, 0));
        if (differs) {
            rig_expect_asked(rig, 1, COLO_REASON_OPTIONS);
            rig_expect_nothing(rig);
        } else {
            rig_expect(rig, SYN | ACK, 9, 0);
            rig_expect_asked(rig, 0, 0);
        }
        rig_free(rig);
    }
}
END_TEST

/* Repeated with fewer options, as some do: both sides do, the secondary first. */
START_TEST(repeated_syn_with_fewer_options)
{
    static const char options[] = "\2\4\5\xb4\4\2\1\1";
    Rig *rig = rig_new();

    rig_give(rig, COLO_PRIMARY, frame_tcp(&plain, 9, CLIENT, SYN | ACK, options, 8, NULL, 0));
    rig_give(rig, COLO_SECONDARY, frame_tcp(&plain, 99, CLIENT, SYN | ACK, options, 8, NULL, 0));
    rig_expect(rig, SYN | ACK, 9, 0);
    rig_give(rig, COLO_SECONDARY, frame_tcp(&plain, 99, CLIENT, SYN | ACK, options, 4, NULL, 0));
    rig_give(rig, COLO_PRIMARY, frame_tcp(&plain, 9, CLIENT, SYN | ACK, options, 4, NULL, 0));
    rig_expect(rig, SYN | ACK, 9, 0);
    rig_end_well(rig);
}
END_TEST

/* Of the connection before it on the same flow nothing counts. */
START_TEST(another_connection)
{
    for (int variant = 0; variant < 3; variant++) {
        Rig *rig = rig_said(100);

        primary(rig, ACK | FIN, 108, CLIENT, "");
        secondary(rig, ACK | FIN, 108, CLIENT, "");
        rig_expect(rig, ACK | FIN, 108, 0);
        /* It begins within the numbers of the old one. */
        primary(rig, SYN | ACK, 104, CLIENT, "");
        secondary(rig, SYN | ACK, 7, CLIENT, "");
        rig_expect(rig, SYN | ACK, 104, 0);
        primary(rig, ACK, 105, CLIENT, "AB");
        secondary(rig, ACK, 105, CLIENT, "AB");
        rig_expect(rig, ACK, 105, 2);
        if (variant == 0) {
            primary(rig, ACK, 105, CLIENT, "fg");       /* was said there, on the old one */
            expect_refused(rig, COLO_REASON_PAYLOAD, 105, 2, 0);
            rig_free(rig);
        } else if (variant == 1) {
            primary(rig, ACK, 100, CLIENT, "abcd");     /* before the new one begins */
            expect_refused(rig, COLO_REASON_PAYLOAD, 100, 4, 0);
            rig_free(rig);
        } else {
            primary(rig, ACK, 105, CLIENT, "AB");
            rig_expect(rig, ACK, 105, 2);
            primary(rig, ACK, 107, CLIENT, "h");        /* nothing that has been said yet */
            rig_expect_nothing(rig);
            secondary(rig, ACK, 107, CLIENT, "h");
            rig_expect(rig, ACK, 107, 1);
            rig_end_well(rig);
        }
    }
}
END_TEST

/* A keep-alive's byte of garbage */

START_TEST(garbage_byte)
{
    for (guint b = 0; b < G_N_ELEMENTS(bases); b++) {
        for (int held = 0; held < 2; held++) {
            uint32_t at = bases[b];
            Rig *rig = rig_said(at);

            if (held) {
                primary(rig, ACK, at + 8, CLIENT, "ijkl");
            }
            rig_tcp(rig, COLO_PRIMARY, ACK, at + 7, CLIENT, "\0", 1);
            rig_expect_nothing(rig);
            rig_expect_asked(rig, 0, 0);
            rig_wait(rig, RIG_TIMEOUT - 1);
            secondary(rig, ACK, at + 7, CLIENT, "?");
            rig_expect_nothing(rig);
            rig_wait(rig, 1);
            rig_expect_asked(rig, 1, COLO_REASON_TIMEOUT);
            rig_checkpoint(rig);
            if (held) {
                rig_expect(rig, ACK, at + 8, 4);
            }
            rig_expect(rig, ACK, at + 7, 1);
            /* The garbage is not what was said there. */
            primary(rig, ACK, at + 7, CLIENT, "h");
            rig_expect(rig, ACK, at + 7, 1);
            rig_expect_asked(rig, 1, COLO_REASON_TIMEOUT);
            rig_free(rig);
        }
    }
}
END_TEST

/* Behind the end, garbage lies in the FIN's place. */
START_TEST(garbage_byte_for_the_end)
{
    Rig *rig = rig_said(1);

    primary(rig, ACK | FIN, 9, CLIENT, "");
    secondary(rig, ACK | FIN, 9, CLIENT, "");
    rig_expect(rig, ACK | FIN, 9, 0);
    primary(rig, ACK, 9, CLIENT, "?");
    rig_expect_nothing(rig);
    rig_expect_asked(rig, 0, 0);
    secondary(rig, ACK, 9, CLIENT, "?");
    rig_expect(rig, ACK, 9, 1);
    primary(rig, ACK | FIN, 9, CLIENT, "");     /* what was said there is the end still */
    rig_expect(rig, ACK | FIN, 9, 0);
    rig_end_well(rig);
}
END_TEST

/* When the byte itself is forgotten, it is as good as garbage: the secondary will say it, too. */
START_TEST(forgotten_keep_alive)
{
    for (int garbage = 0; garbage < 2; garbage++) {
        Rig *rig = rig_said(1);

        say_elsewhere(rig, RIG_HISTORY);
        primary(rig, ACK, 8, CLIENT, garbage ? "?" : "h");
        rig_expect_nothing(rig);
        secondary(rig, ACK, 8, CLIENT, garbage ? "?" : "h");
        rig_expect(rig, ACK, 8, 1);
        rig_end_well(rig);
    }
}
END_TEST

START_TEST(garbage_byte_of_both)
{
    for (int secondary_first = 0; secondary_first < 2; secondary_first++) {
        Rig *rig = rig_said(1);

        for (int turn = 0; turn < 2; turn++) {
            rig_tcp(rig, turn == secondary_first ? COLO_PRIMARY : COLO_SECONDARY, ACK, 8, CLIENT, "\0", 1);
        }
        rig_expect(rig, ACK, 8, 1);
        rig_end_well(rig);
    }
}
END_TEST

/* A byte that the secondary has repeated somewhere else, or before the checkpoint, or on another connection. */
START_TEST(garbage_byte_of_another_place)
{
    Rig *rig = rig_said(1);
    uint32_t at = 8;

    secondary(rig, ACK, 8, CLIENT, "?");
    if (_i == 0) {
        primary(rig, ACK, 9, CLIENT, "ijkl");
        secondary(rig, ACK, 9, CLIENT, "ijkl");
        rig_expect(rig, ACK, 9, 4);
        at = 12;
    } else if (_i == 1) {
        rig_checkpoint(rig);
    } else {
        primary(rig, SYN | ACK, 500, CLIENT, "");
        secondary(rig, SYN | ACK, 600, CLIENT, "");
        rig_expect(rig, SYN | ACK, 500, 0);
        primary(rig, ACK, 501, CLIENT, "new");
        secondary(rig, ACK, 501, CLIENT, "new");
        rig_expect(rig, ACK, 501, 3);
        at = 503;
    }
    primary(rig, ACK, at, CLIENT, "?");
    rig_expect_nothing(rig);
    secondary(rig, ACK, at, CLIENT, "?");
    rig_expect(rig, ACK, at, 1);
    rig_end_well(rig);
}
END_TEST

/*
 * A stream said over and over in random pieces, some with a wrong byte, on both sides of `next`.  Nothing wrong leaves
 * before the checkpoint, and what is right and old leaves at once.
 */
START_TEST(random_repetitions)
{
    enum { STREAM = 600 };
    GRand *rand = g_rand_new_with_seed(test_seed("random_repetitions"));
    uint8_t *truth = bytes_of(77, STREAM);

    for (int run = 0; run < 300; run++) {
        uint32_t base = 0u - (uint32_t)g_rand_int_range(rand, 0, STREAM), compared = 0, sent = 0, theirs = 0;
        Rig *rig = rig_new();
        bool wrong = false;

        while (compared < STREAM && !wrong) {
            uint32_t from = (uint32_t)g_rand_int_range(rand, 0, (gint32)MIN(sent + 1, STREAM - 1));
            uint32_t len = (uint32_t)g_rand_int_range(rand, 2, 60), bad = STREAM;
            uint8_t *said;
            guint before;

            len = MIN(len, STREAM - from);
            if (g_rand_int_range(rand, 0, 3) == 0) {
                uint32_t more = (uint32_t)g_rand_int_range(rand, 0, 60);

                more = MIN(more, STREAM - theirs);
                rig_tcp(rig, COLO_SECONDARY, ACK, base + theirs, CLIENT, truth + theirs, more);
                theirs += more;
            }
            compared = MIN(sent, theirs);
            while (rig_pending(rig)) {
                Seen seen = rig_next(rig);

                ck_assert_mem_eq(seen.payload, truth + (seen.seq - base), seen.len);
            }

            said = g_memdup2(truth + from, len);
            if (from < compared && len > 1 && g_rand_int_range(rand, 0, 40) == 0) {
                uint32_t old = MIN(len, compared - from);

                bad = from + (uint32_t)g_rand_int_range(rand, 0, (gint32)old);
                said[bad - from] ^= 4;
                wrong = true;
            }
            before = rig_pending(rig);
            rig_tcp(rig, COLO_PRIMARY, ACK, base + from, CLIENT, said, len);
            sent = MAX(sent, from + len);
            if (wrong) {
                rig_expect_asked(rig, 1, COLO_REASON_PAYLOAD);
            } else if (from + len <= compared) {
                ck_assert_uint_eq(rig_pending(rig), before + 1);
            }
            while (rig_pending(rig)) {
                Seen seen = rig_next(rig);

                ck_assert_mem_eq(seen.payload, truth + (seen.seq - base), seen.len);
            }
            g_free(said);
        }
        if (!wrong) {
            rig_end_well(rig);
        } else {
            rig_free(rig);
        }
    }
    g_rand_free(rand);
    g_free(truth);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("history");
    TCase *tc = tcase_create("history");

    tcase_add_test(tc, what_was_said);
    tcase_add_test(tc, syn_bytes_and_fin_in_one);
    tcase_add_test(tc, the_newest_word_counts);
    tcase_add_test(tc, streams_do_not_mix);
    tcase_add_test(tc, patience);
    tcase_add_test(tc, the_new_overwrites_the_old);
    tcase_add_test(tc, grows_when_something_was_missed);
    tcase_set_timeout(tc, 60);
    suite_add_tcase(suite, tc);

    tc = tcase_create("repetitions");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, other_boundaries);
    tcase_add_test(tc, one_wrong_byte);
    tcase_add_test(tc, partly_old);
    tcase_add_test(tc, against_what_is_held);
    tcase_add_test(tc, held_copies_that_differ);
    tcase_add_test(tc, after_a_checkpoint);
    tcase_add_test(tc, said_in_the_old_epoch);
    tcase_add_test(tc, forgotten);
    tcase_add_test(tc, from_before_the_beginning);
    tcase_add_test(tc, kind_changes);
    tcase_add_test(tc, another_end);
    tcase_add_test(tc, repeated_syn_options);
    tcase_add_test(tc, repeated_syn_with_fewer_options);
    tcase_add_test(tc, another_connection);
    tcase_add_test(tc, garbage_byte);
    tcase_add_test(tc, garbage_byte_for_the_end);
    tcase_add_test(tc, forgotten_keep_alive);
    tcase_add_test(tc, garbage_byte_of_both);
    tcase_add_loop_test(tc, garbage_byte_of_another_place, 0, 3);
    tcase_add_test(tc, random_repetitions);
    suite_add_tcase(suite, tc);
    return run_suite(suite);
}
