/*
 * Tests of openings.c
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "rig.h"

#define GRACE (20 * MS)
#define REMEMBERED 64
#define CROWD 300

/* What a guest begins from @port of its own, to a name server or with a SYN to a web server. */
static void ask(Rig *rig, ColoSide side, uint16_t port)
{
    Shape s = { .guest_port = port, .peer_port = 53 };

    rig_give(rig, side, frame_udp(&s, "who", 3));
}

static void open_to(Rig *rig, ColoSide side, uint16_t port, uint16_t peer_port)
{
    Shape s = { .guest_port = port, .peer_port = peer_port };

    rig_give(rig, side, frame_tcp(&s, side == COLO_PRIMARY ? 1000 : 2000, 0, SYN, NULL, 0, NULL, 0));
}

START_TEST(datagrams)
{
    for (int side = 0; side < COLO_SIDES; side++) {
        Rig *rig = rig_new();

        ask(rig, side, 4000);
        rig_wait(rig, 5 * MS);
        ask(rig, !side, 5000);
        rig_expect_asked_after(rig, GRACE, COLO_REASON_PAYLOAD);
        ck_assert_uint_eq(rig->flow.guest_port, 4000 + 1000 * side);
        rig_checkpoint(rig);
        ck_assert_uint_eq(rig_pending(rig), 1);
        rig_free(rig);
    }
}
END_TEST

START_TEST(connections)
{
    for (int side = 0; side < COLO_SIDES; side++) {
        Rig *rig = rig_new();

        open_to(rig, side, 4000, 443);
        rig_wait(rig, 5 * MS);
        open_to(rig, !side, 5000, 443);
        rig_expect_asked_after(rig, GRACE, COLO_REASON_FLAGS);
        rig_free(rig);
    }
}
END_TEST

/* One that is late is found, too, and gives the primary's no less than a grace. */
START_TEST(late)
{
    Rig *rig = rig_new();

    ask(rig, COLO_PRIMARY, 4000);
    rig_wait(rig, 1000 * MS);
    ask(rig, COLO_SECONDARY, 5000);
    rig_expect_asked_after(rig, GRACE, COLO_REASON_PAYLOAD);
    rig_free(rig);
}
END_TEST

/* However soon somebody else's has ended. */
START_TEST(grace_of_its_own)
{
    Rig *rig = rig_new();

    rig_udp(rig, COLO_PRIMARY, "one");
    rig_udp(rig, COLO_SECONDARY, "other");
    rig_wait(rig, 15 * MS);
    ask(rig, COLO_PRIMARY, 4000);
    ask(rig, COLO_SECONDARY, 5000);
    rig_udp(rig, COLO_PRIMARY, "other");
    rig_udp(rig, COLO_SECONDARY, "one");
    rig_expect_asked_after(rig, GRACE, COLO_REASON_PAYLOAD);
    rig_free(rig);
}
END_TEST

/* The same ports in another order. */
START_TEST(in_another_order)
{
    Rig *rig = rig_new();

    ask(rig, COLO_PRIMARY, 4000);
    ask(rig, COLO_SECONDARY, 5000);
    open_to(rig, COLO_PRIMARY, 4000, 443);
    open_to(rig, COLO_SECONDARY, 5000, 443);
    rig_wait(rig, GRACE - 1);
    ask(rig, COLO_PRIMARY, 5000);
    ask(rig, COLO_SECONDARY, 4000);
    open_to(rig, COLO_PRIMARY, 5000, 443);
    open_to(rig, COLO_SECONDARY, 4000, 443);
    ck_assert_uint_eq(rig_pending(rig), 4);
    rig_wait(rig, 2 * GRACE);
    rig_expect_asked(rig, 0, 0);
    rig_free(rig);
}
END_TEST

/* One of the secondary's that has found its like speaks against nothing any more; nor does one to another place. */
START_TEST(merely_slow)
{
    Rig *rig = rig_new();

    ask(rig, COLO_SECONDARY, 5000);
    ask(rig, COLO_PRIMARY, 5000);
    open_to(rig, COLO_SECONDARY, 5000, 443);
    open_to(rig, COLO_PRIMARY, 5000, 443);
    open_to(rig, COLO_SECONDARY, 6000, 80);
    ck_assert_uint_eq(rig_pending(rig), 2);
    ask(rig, COLO_PRIMARY, 4000);
    open_to(rig, COLO_PRIMARY, 4000, 443);
    rig_wait(rig, RIG_TIMEOUT - 1);
    rig_expect_asked(rig, 0, 0);
    rig_wait(rig, 1);
    rig_expect_asked(rig, 1, COLO_REASON_TIMEOUT);
    rig_free(rig);
}
END_TEST

/* Answers come from the port that was asked. */
START_TEST(answers)
{
    static const Shape one = { .guest_port = 8080 }, other = { .guest_port = 8081 };
    Rig *rig = rig_new();

    rig_give(rig, COLO_PRIMARY, frame_tcp(&one, 1000, 5, SYN | ACK, NULL, 0, NULL, 0));
    rig_give(rig, COLO_SECONDARY, frame_tcp(&other, 2000, 5, SYN | ACK, NULL, 0, NULL, 0));
    ask(rig, COLO_PRIMARY, 67);
    ask(rig, COLO_SECONDARY, 1023);
    rig_wait(rig, RIG_TIMEOUT - 1);
    rig_expect_asked(rig, 0, 0);
    rig_free(rig);
}
END_TEST

/* A port that has been used before may be used again, by either. */
START_TEST(used_before)
{
    for (int quiet = 0; quiet < 2; quiet++) {
        Rig *rig = rig_new();

        ask(rig, COLO_PRIMARY, 4000);
        ask(rig, COLO_SECONDARY, 4000);
        ask(rig, COLO_SECONDARY, 5000);
        ask(rig, COLO_PRIMARY, 5000);
        rig_wait(rig, quiet ? 1010 * MS : 900 * MS);        /* two that merely go on, if not */
        ask(rig, COLO_PRIMARY, 4000);
        ask(rig, COLO_SECONDARY, 5000);
        rig_wait(rig, 2 * GRACE);
        rig_expect_asked(rig, quiet, COLO_REASON_PAYLOAD);
        rig_free(rig);
    }
}
END_TEST

/* What goes on over a checkpoint is not opened by that. */
START_TEST(goes_on_over_a_checkpoint)
{
    Rig *rig = rig_new();

    ask(rig, COLO_PRIMARY, 4000);
    ask(rig, COLO_SECONDARY, 4000);
    ask(rig, COLO_PRIMARY, 5000);
    ask(rig, COLO_SECONDARY, 5000);
    rig_checkpoint(rig);
    ask(rig, COLO_PRIMARY, 4000);
    ask(rig, COLO_SECONDARY, 5000);
    rig_wait(rig, 2 * GRACE);
    rig_expect_asked(rig, 0, 0);
    rig_free(rig);
}
END_TEST

/* A secondary that is slower than that is slow, and nothing else. */
START_TEST(slow_secondary)
{
    Rig *rig = rig_new();

    ask(rig, COLO_PRIMARY, 5000);
    rig_wait(rig, 1500 * MS);
    ask(rig, COLO_SECONDARY, 5000);
    ask(rig, COLO_PRIMARY, 4000);
    rig_wait(rig, 2 * GRACE);
    rig_expect_asked(rig, 0, 0);
    rig_free(rig);
}
END_TEST

/* A connection that was quiet for a while is not opened by what comes on it. */
START_TEST(quiet_connection)
{
    static const Shape shape = { .guest_port = 5000, .peer_port = 443 };
    Rig *rig = rig_new();

    open_to(rig, COLO_SECONDARY, 5000, 443);
    open_to(rig, COLO_PRIMARY, 5000, 443);
    ck_assert_uint_eq(rig_pending(rig), 1);
    rig_wait(rig, 1200 * MS);
    rig_give(rig, COLO_SECONDARY, frame_tcp(&shape, 1001, 7, ACK, NULL, 0, NULL, 0));
    open_to(rig, COLO_PRIMARY, 4000, 443);
    rig_wait(rig, 2 * GRACE);
    rig_expect_asked(rig, 0, 0);
    rig_free(rig);
}
END_TEST

/* What comes out of its order in time is not late by years. */
START_TEST(kept_aside)
{
    Rig *rig = rig_new();

    rig_epoch(rig, COLO_SECONDARY);
    ask(rig, COLO_PRIMARY, 5000);
    ask(rig, COLO_SECONDARY, 5000);
    rig_epoch(rig, COLO_SECONDARY);         /* it has resumed, and the word of it is still to come */
    ask(rig, COLO_SECONDARY, 5000);
    rig_wait(rig, 5 * MS);
    ask(rig, COLO_PRIMARY, 5000);
    rig_checkpoint(rig);
    ask(rig, COLO_PRIMARY, 4000);
    rig_wait(rig, 2 * GRACE);
    rig_expect_asked(rig, 0, 0);
    rig_free(rig);
}
END_TEST

/* What the secondary alone has asked says nothing any more once it has been given up. */
START_TEST(long_ago)
{
    Rig *rig = rig_new();

    ask(rig, COLO_SECONDARY, 5000);
    rig_wait(rig, RIG_TIMEOUT);
    ask(rig, COLO_PRIMARY, 4000);
    rig_wait(rig, 2 * GRACE);
    rig_expect_asked(rig, 0, 0);
    rig_free(rig);
}
END_TEST

/* From another address: IPv6 guests take one at random now and then (RFC 8981). */
START_TEST(from_another_address)
{
    Shape ours = { .ipv6 = true, .guest_host = 7, .guest_port = 4000 }, theirs = { .ipv6 = true, .guest_host = 8, .guest_port = 4000 };
    Rig *rig = rig_new();

    rig_give(rig, COLO_PRIMARY, frame_udp(&ours, "who", 3));
    rig_give(rig, COLO_SECONDARY, frame_udp(&theirs, "who", 3));
    rig_wait(rig, GRACE);
    rig_expect_asked(rig, 1, COLO_REASON_PAYLOAD);
    rig_free(rig);
}
END_TEST

/* So many wait that not all are looked at each time; what else is suspect is. */
START_TEST(crowd)
{
    Rig *rig = rig_new();

    for (uint16_t i = 0; i < CROWD; i++) {
        ask(rig, COLO_PRIMARY, 10000 + i);
    }
    rig_udp(rig, COLO_PRIMARY, "one");
    rig_udp(rig, COLO_SECONDARY, "two");
    open_to(rig, COLO_SECONDARY, 5000, 443);
    rig_expect_asked_after(rig, GRACE, COLO_REASON_PAYLOAD);
    rig_free(rig);

    rig = rig_new();
    for (uint16_t i = 0; i < CROWD; i++) {
        ask(rig, COLO_PRIMARY, 10000 + i);
    }
    open_to(rig, COLO_PRIMARY, 4000, 443);
    open_to(rig, COLO_SECONDARY, 5000, 443);
    rig_wait(rig, 5 * GRACE);
    rig_expect_asked(rig, 0, 0);
    for (uint16_t i = 0; i < CROWD; i++) {
        ask(rig, COLO_SECONDARY, 10000 + i);
    }
    rig_wait(rig, GRACE);
    rig_expect_asked(rig, 1, COLO_REASON_FLAGS);
    rig_free(rig);
}
END_TEST

/* A checkpoint makes what the secondary had opened one's own. */
START_TEST(forgotten_at_a_checkpoint)
{
    Rig *rig = rig_new();

    ask(rig, COLO_SECONDARY, 5000);
    rig_checkpoint(rig);
    ask(rig, COLO_PRIMARY, 4000);
    rig_wait(rig, RIG_TIMEOUT - 1);
    rig_expect_asked(rig, 0, 0);
    rig_checkpoint(rig);
    ck_assert_uint_eq(rig_pending(rig), 1);
    rig_free(rig);
}
END_TEST

/* Nor does what one side has said before speak for it. */
START_TEST(one_side_before_a_checkpoint)
{
    Rig *rig = rig_new();

    ask(rig, COLO_SECONDARY, 4000);
    rig_checkpoint(rig);
    ask(rig, COLO_PRIMARY, 4000);
    ask(rig, COLO_SECONDARY, 5000);
    rig_wait(rig, GRACE);
    rig_expect_asked(rig, 1, COLO_REASON_PAYLOAD);
    rig_free(rig);
}
END_TEST

/* The last are remembered. */
START_TEST(many)
{
    for (int more = 0; more < 2; more++) {
        Rig *rig = rig_new();

        ask(rig, COLO_SECONDARY, 5000);
        for (uint16_t i = 0; i < REMEMBERED - 1 + more; i++) {
            open_to(rig, COLO_SECONDARY, 6000, 80 + i);
        }
        ask(rig, COLO_PRIMARY, 4000);
        rig_wait(rig, GRACE);
        rig_expect_asked(rig, !more, COLO_REASON_PAYLOAD);
        rig_free(rig);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("openings");
    TCase *tc = tcase_create("openings");

    tcase_add_test(tc, datagrams);
    tcase_add_test(tc, connections);
    tcase_add_test(tc, late);
    tcase_add_test(tc, grace_of_its_own);
    tcase_add_test(tc, in_another_order);
    tcase_add_test(tc, merely_slow);
    tcase_add_test(tc, answers);
    tcase_add_test(tc, used_before);
    tcase_add_test(tc, goes_on_over_a_checkpoint);
    tcase_add_test(tc, slow_secondary);
    tcase_add_test(tc, quiet_connection);
    tcase_add_test(tc, kept_aside);
    tcase_add_test(tc, long_ago);
    tcase_add_test(tc, from_another_address);
    tcase_add_test(tc, crowd);
    tcase_add_test(tc, forgotten_at_a_checkpoint);
    tcase_add_test(tc, one_side_before_a_checkpoint);
    tcase_add_test(tc, many);
    suite_add_tcase(suite, tc);
    return run_suite(suite);
}
