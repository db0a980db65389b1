/*
 * Tests of suspects.c: what the sides send in different flows
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "rig.h"

#define GRACE (20 * MS)
#define BUSY (RIG_TIMEOUT / 10)

enum { OURS = 81, THEIRS, OTHERS };     /* ports: the primary is ahead, the secondary is, neither */

static void say(Rig *rig, ColoSide side, uint16_t port, uint32_t seq, const char *text)
{
    Shape s = { .guest_port = port };

    rig_give(rig, side, frame_tcp(&s, seq, 7, ACK | (*text ? PSH : 0), NULL, 0, text, (uint32_t)strlen(text)));
}

/* Each side answers one of two clients. */
static Rig *crossed(void)
{
    Rig *rig = rig_new();

    say(rig, COLO_PRIMARY, OURS, 1000, "first");
    rig_wait(rig, 5 * MS);
    say(rig, COLO_SECONDARY, THEIRS, 2000, "first");
    return rig;
}

static void both_say(Rig *rig, int64_t now)
{
    uint32_t seq = (uint32_t)(now / MS) * 10;

    say(rig, COLO_PRIMARY, OTHERS, seq, "0123456789");
    say(rig, COLO_SECONDARY, OTHERS, seq, "0123456789");
}

/* Other clients are answered all the time. */
static void keep_busy(Rig *rig, int64_t until)
{
    while (rig->now < until) {
        both_say(rig, rig->now);
        rig_wait(rig, MS);
    }
}

START_TEST(at_rest)
{
    Rig *rig = crossed();

    rig_expect_asked_after(rig, GRACE, COLO_REASON_PAYLOAD);
    ck_assert_uint_eq(rig->flow.guest_port, OURS);
    rig_checkpoint(rig);
    rig_expect(rig, ACK | PSH, 1000, 5);
    ck_assert_uint_eq(rig_held(rig, COLO_SECONDARY), 0);
    rig_free(rig);
}
END_TEST

/* Whichever of them is ahead first. */
START_TEST(secondary_first)
{
    Rig *rig = rig_new();

    say(rig, COLO_SECONDARY, THEIRS, 2000, "first");
    rig_wait(rig, 1000 * MS);
    say(rig, COLO_PRIMARY, OURS, 1000, "first");
    rig_expect_asked_after(rig, GRACE, COLO_REASON_PAYLOAD);
    rig_free(rig);
}
END_TEST

START_TEST(datagram)
{
    Rig *rig = rig_new();

    rig_udp(rig, COLO_PRIMARY, "answer");
    say(rig, COLO_SECONDARY, THEIRS, 2000, "first");
    rig_wait(rig, GRACE);
    rig_expect_asked(rig, 1, COLO_REASON_PAYLOAD);
    rig_free(rig);
}
END_TEST

/* Copies that work off the same in another order are no different, however long it takes them as long as they do. */
START_TEST(in_another_order)
{
    Rig *rig = rig_new();

    for (int i = 0; i < 10; i++) {
        say(rig, COLO_PRIMARY, (uint16_t)(100 + i), 1000, "answer");
        say(rig, COLO_SECONDARY, (uint16_t)(109 - i), 1000, "answer");
        rig_wait(rig, GRACE - 1);
    }
    rig_wait(rig, 5 * GRACE);
    rig_expect_asked(rig, 0, 0);
    ck_assert_uint_eq(rig_pending(rig), 10);
    rig_free(rig);
}
END_TEST

/* A packet of either side ends the rest, if it is only an acknowledgement. */
START_TEST(stirring)
{
    for (int side = 0; side < COLO_SIDES; side++) {
        Rig *rig = crossed();

        for (int i = 0; i < 5; i++) {
            rig_wait(rig, GRACE - 1);
            say(rig, side, OTHERS, 3000, "");
        }
        rig_expect_asked(rig, 0, 0);
        rig_wait(rig, GRACE);
        rig_expect_asked(rig, 1, COLO_REASON_PAYLOAD);
        rig_free(rig);
    }
}
END_TEST

START_TEST(busy)
{
    Rig *rig = crossed();
    int64_t crossed_at = rig->now;

    keep_busy(rig, crossed_at + BUSY);
    rig_expect_asked(rig, 0, 0);
    keep_busy(rig, crossed_at + BUSY + GRACE + MS);
    rig_expect_asked(rig, 1, COLO_REASON_PAYLOAD);
    ck_assert_uint_eq(rig->flow.guest_port, OURS);
    rig_free(rig);
}
END_TEST

/* A secondary that stands still may go on where the primary has: it is not for this to say. */
START_TEST(frozen)
{
    Rig *rig = crossed();
    int64_t until = rig->now + RIG_TIMEOUT - 6 * MS;

    while (rig->now < until) {
        say(rig, COLO_PRIMARY, OTHERS, (uint32_t)(rig->now / MS) * 10, "0123456789");
        rig_wait(rig, MS);
    }
    rig_expect_asked(rig, 0, 0);
    rig_free(rig);
}
END_TEST

/* What each has sent meets in the end: nothing is left to be held against the primary. */
START_TEST(late)
{
    Rig *rig = crossed();

    rig_wait(rig, GRACE - 1);
    say(rig, COLO_PRIMARY, THEIRS, 2000, "first");
    rig_wait(rig, 5 * GRACE);
    rig_expect_asked(rig, 0, 0);
    say(rig, COLO_SECONDARY, OURS, 1000, "first");
    rig_expect(rig, ACK | PSH, 2000, 5);
    rig_expect(rig, ACK | PSH, 1000, 5);
    rig_free(rig);
}
END_TEST

/* The primary resets what the secondary serves: its daemon is being started anew, the secondary's is again already. */
START_TEST(reset_by_one)
{
    Rig *rig = rig_new();

    rig_give(rig, COLO_PRIMARY, frame_tcp(&(Shape) { .guest_port = OURS }, 1000, 7, RST | ACK, NULL, 0, NULL, 0));
    rig_wait(rig, 5 * GRACE);
    rig_expect_asked(rig, 0, 0);
    say(rig, COLO_SECONDARY, OURS, 1000, "hello");
    rig_wait(rig, GRACE);
    rig_expect_asked(rig, 1, COLO_REASON_FLAGS);
    rig_free(rig);
}
END_TEST

/* The secondary's timer acknowledges when it likes. */
START_TEST(only_to_be_acknowledged)
{
    Rig *rig = rig_new();

    say(rig, COLO_PRIMARY, OURS, 1000, "x");
    say(rig, COLO_SECONDARY, OURS, 1000, "x");
    rig_give(rig, COLO_PRIMARY, frame_tcp(&(Shape) { .guest_port = OURS }, 1001, 50, ACK, NULL, 0, NULL, 0));
    say(rig, COLO_SECONDARY, THEIRS, 2000, "first");
    rig_wait(rig, RIG_TIMEOUT - GRACE);
    rig_expect_asked(rig, 0, 0);
    ck_assert_uint_eq(rig_held(rig, COLO_PRIMARY), 1);
    rig_free(rig);
}
END_TEST

/* A datagram that the secondary alone has sent says nothing about other flows. */
START_TEST(chatter)
{
    Rig *rig = rig_new();

    say(rig, COLO_PRIMARY, OURS, 1000, "first");
    say(rig, COLO_SECONDARY, OTHERS, 1000, "x");
    say(rig, COLO_PRIMARY, OTHERS, 1000, "x");
    rig_udp(rig, COLO_SECONDARY, "time?");
    rig_wait(rig, RIG_TIMEOUT - GRACE);
    rig_expect_asked(rig, 0, 0);
    rig_free(rig);
}
END_TEST

/* Nobody waits for less than a checkpoint costs. */
START_TEST(costly_checkpoint)
{
    Rig *rig = crossed();

    rig_wait(rig, GRACE);
    rig_expect_asked(rig, 1, COLO_REASON_PAYLOAD);
    rig_wait(rig, 50 * MS);
    rig_checkpoint(rig);
    say(rig, COLO_PRIMARY, OTHERS, 1000, "first");
    say(rig, COLO_SECONDARY, THEIRS, 2000, "first");
    rig_expect_asked_after(rig, 100 * MS, COLO_REASON_PAYLOAD);
    rig_free(rig);
}
END_TEST

/* How much of an answer comes before the client has acknowledged some of it is up to windows, which differ. */
START_TEST(rest_of_an_answer)
{
    for (int side = 0; side < COLO_SIDES; side++) {
        static const Shape asked = { .guest_port = OURS };
        Rig *rig = rig_new();

        say(rig, COLO_PRIMARY, OURS, 1000, "some");
        say(rig, COLO_SECONDARY, OURS, 1000, "some");
        ck_assert_uint_eq(rig_pending(rig), 1);
        say(rig, side, OURS, 1004, "rest");
        say(rig, !side, THEIRS, 2000, "first");
        rig_wait(rig, RIG_TIMEOUT - GRACE);
        rig_expect_asked(rig, 0, 0);
        rig_checkpoint(rig);

        rig_give(rig, side, frame_tcp(&asked, side == COLO_PRIMARY ? 1008 : 1004, 8, ACK, NULL, 0, "next", 4));
        say(rig, !side, THEIRS + 10, 2000, "first");
        rig_wait(rig, GRACE);
        rig_expect_asked(rig, 1, COLO_REASON_PAYLOAD);
        rig_free(rig);
    }
}
END_TEST

/* What is said again acknowledges a request that is answered only then. */
START_TEST(answer_behind_a_repetition)
{
    static const Shape asked = { .guest_port = OURS };
    Rig *rig = rig_new();

    say(rig, COLO_PRIMARY, OURS, 1000, "some");
    say(rig, COLO_SECONDARY, OURS, 1000, "some");
    rig_give(rig, COLO_SECONDARY, frame_tcp(&asked, 1004, 8, ACK, NULL, 0, NULL, 0));
    rig_give(rig, COLO_PRIMARY, frame_tcp(&asked, 1000, 8, ACK, NULL, 0, "some", 4));
    ck_assert_uint_eq(rig_pending(rig), 2);
    rig_give(rig, COLO_PRIMARY, frame_tcp(&asked, 1004, 8, ACK, NULL, 0, "next", 4));
    say(rig, COLO_SECONDARY, THEIRS, 2000, "first");
    rig_wait(rig, GRACE);
    rig_expect_asked(rig, 1, COLO_REASON_PAYLOAD);
    rig_free(rig);
}
END_TEST

/* What the secondary has left behind in a connection that is over says nothing for ever. */
START_TEST(left_behind)
{
    Rig *rig = rig_new();

    say(rig, COLO_SECONDARY, THEIRS, 2000, "first");
    rig_wait(rig, RIG_TIMEOUT);
    say(rig, COLO_PRIMARY, OURS, 1000, "first");
    rig_wait(rig, RIG_TIMEOUT - GRACE);
    rig_expect_asked(rig, 0, 0);
    rig_free(rig);

    rig = rig_new();        /* but what comes behind it does */
    say(rig, COLO_SECONDARY, THEIRS, 2000, "first");
    rig_wait(rig, RIG_TIMEOUT);
    say(rig, COLO_PRIMARY, OURS, 1000, "first");
    say(rig, COLO_SECONDARY, THEIRS, 2005, "second");
    rig_wait(rig, GRACE);
    rig_expect_asked(rig, 1, COLO_REASON_PAYLOAD);
    rig_free(rig);
}
END_TEST

/* A gap in the flow itself is no other flow: the secondary will close it. */
START_TEST(gap)
{
    Rig *rig = rig_new();

    say(rig, COLO_PRIMARY, OURS, 1000, "firstsecond");
    say(rig, COLO_SECONDARY, OURS, 1005, "second");
    rig_wait(rig, 200 * MS);
    rig_expect_asked(rig, 0, 0);
    say(rig, COLO_SECONDARY, OURS, 1000, "first");
    rig_expect(rig, ACK | PSH, 1000, 11);
    rig_end_well(rig);
}
END_TEST

/* A side that is not read only seems to be at rest. */
START_TEST(not_read)
{
    Rig *rig = rig_new_at(0, 2);

    say(rig, COLO_PRIMARY, OURS, 1000, "first");
    rig_give(rig, COLO_PRIMARY, frame_tcp(&(Shape) { .guest_port = OURS }, 1005, 8, ACK, NULL, 0, "second", 6));
    ck_assert(!colo_comparator_may_read(rig->c, COLO_PRIMARY));
    say(rig, COLO_SECONDARY, THEIRS, 2000, "first");
    rig_wait(rig, 5 * GRACE);
    rig_expect_asked(rig, 0, 0);
    say(rig, COLO_SECONDARY, OURS, 1000, "first");
    ck_assert(colo_comparator_may_read(rig->c, COLO_PRIMARY));
    rig_wait(rig, 2 * GRACE);
    rig_expect_asked(rig, 1, COLO_REASON_PAYLOAD);
    rig_free(rig);
}
END_TEST

/* What the primary sent before the beginning is what both start from, if the secondary says it again. */
START_TEST(before_the_beginning)
{
    Rig *rig = rig_new();

    say(rig, COLO_PRIMARY, THEIRS, 1000, "old");
    say(rig, COLO_SECONDARY, THEIRS, 1000, "ol");
    say(rig, COLO_SECONDARY, THEIRS, 1002, "dnew");
    say(rig, COLO_PRIMARY, OTHERS, 1000, "old");
    say(rig, COLO_SECONDARY, OTHERS, 1001, "ld");
    ck_assert_uint_eq(rig_held(rig, COLO_SECONDARY), 2);
    rig_epoch(rig, COLO_PRIMARY);
    ck_assert_uint_eq(rig_held(rig, COLO_SECONDARY), 1);
    rig_free(rig);
}
END_TEST

/* Nor does what it has sent before the checkpoint. */
START_TEST(settled)
{
    Rig *rig = crossed();

    rig_checkpoint(rig);
    say(rig, COLO_PRIMARY, OURS, 1005, "second");
    rig_wait(rig, RIG_TIMEOUT - GRACE);
    rig_expect_asked(rig, 0, 0);
    rig_free(rig);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("suspects");
    TCase *tc = tcase_create("suspects");

    tcase_add_test(tc, at_rest);
    tcase_add_test(tc, secondary_first);
    tcase_add_test(tc, datagram);
    tcase_add_test(tc, in_another_order);
    tcase_add_test(tc, stirring);
    tcase_add_test(tc, busy);
    tcase_add_test(tc, frozen);
    tcase_add_test(tc, late);
    tcase_add_test(tc, reset_by_one);
    tcase_add_test(tc, only_to_be_acknowledged);
    tcase_add_test(tc, chatter);
    tcase_add_test(tc, costly_checkpoint);
    tcase_add_test(tc, rest_of_an_answer);
    tcase_add_test(tc, answer_behind_a_repetition);
    tcase_add_test(tc, left_behind);
    tcase_add_test(tc, gap);
    tcase_add_test(tc, not_read);
    tcase_add_test(tc, before_the_beginning);
    tcase_add_test(tc, settled);
    suite_add_tcase(suite, tc);
    return run_suite(suite);
}
