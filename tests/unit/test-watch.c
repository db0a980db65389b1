/*
 * Tests of watch.c
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "frames.h"
#include "net/colo/watch.h"

#define TIMEOUT 800         /* ms: a look is 100 of them */
#define DELAY 2000
#define FOR_EVER 1000       /* looks */

static ColoWatch watch;
static ColoWatchLook now;

static void begin(void)
{
    now = (ColoWatchLook) { .headway = 5, .heard = 7, .turns = UINT32_MAX - 3 };
    colo_watch_start(&watch, &now);
}

static ColoWatchVerdict look_again(void)
{
    return colo_watch_look(&watch, &now, TIMEOUT, DELAY);
}

/* The main loop goes round, as it should. */
static ColoWatchVerdict look(void)
{
    now.turns++;
    return look_again();
}

/* It stands, but for the disks it was there. */
static ColoWatchVerdict look_at_disks(void)
{
    now.disks.looks++;
    return look_again();
}

/* Which of the looks from here on is the first to find that the secondary is silent. */
static int silent_after(ColoWatchVerdict (*each)(void))
{
    for (int n = 1; n <= FOR_EVER; n++) {
        if (each() == COLO_WATCH_SILENT) {
            return n;
        }
    }
    return FOR_EVER;
}

static void expect_to_go_on(int looks, ColoWatchVerdict (*each)(void))
{
    while (looks--) {
        ck_assert_int_eq(each(), COLO_WATCH_GO_ON);
    }
}

/* The time for a checkpoint comes, and it is not made: the frame is reminded, and the secondary owes it from then on. */
START_TEST(nobody_asks)
{
    begin();
    expect_to_go_on(DELAY / 100, look);
    ck_assert_int_eq(look(), COLO_WATCH_ASK);
    ck_assert_int_eq(look(), COLO_WATCH_ASK);
    ck_assert_int_eq(silent_after(look), COLO_WATCH_LOOKS - 2);
}
END_TEST

START_TEST(asked_for)
{
    begin();
    now.asked = true;
    ck_assert_int_eq(silent_after(look), COLO_WATCH_LOOKS);
}
END_TEST

/* What the secondary sends is no headway. */
START_TEST(heard_but_no_checkpoint)
{
    begin();
    now.asked = now.holding = true;
    for (int n = 1; n < COLO_WATCH_LOOKS; n++) {
        now.heard++;
        ck_assert_int_eq(look(), COLO_WATCH_GO_ON);
    }
    now.heard++;
    ck_assert_int_eq(look(), COLO_WATCH_SILENT);
}
END_TEST

START_TEST(headway)
{
    begin();
    now.asked = now.holding = true;
    for (int round = 0; round < 10; round++) {
        expect_to_go_on(COLO_WATCH_LOOKS - 1, look);
        now.headway++;
    }
    ck_assert_int_eq(look(), COLO_WATCH_GO_ON);
    ck_assert_int_eq(silent_after(look), COLO_WATCH_LOOKS);
}
END_TEST

/* Looks at which nothing was owed are none at which it was. */
START_TEST(paid)
{
    begin();
    now.asked = true;
    expect_to_go_on(COLO_WATCH_LOOKS - 1, look);
    now.asked = false;
    ck_assert_int_eq(look(), COLO_WATCH_GO_ON);
    now.asked = true;
    ck_assert_int_eq(silent_after(look), COLO_WATCH_LOOKS);
}
END_TEST

/* Output waits and nothing comes: once a checkpoint is asked for, two looks are enough. */
START_TEST(quiet)
{
    begin();
    now.holding = true;
    expect_to_go_on(COLO_WATCH_LOOKS + 2, look);
    now.asked = true;
    ck_assert_int_eq(silent_after(look), 2);

    begin();
    now.holding = true;
    expect_to_go_on(COLO_WATCH_LOOKS + 2, look);
    now.heard++;
    now.asked = true;
    ck_assert_int_eq(look(), COLO_WATCH_GO_ON);
    now.heard++;
    ck_assert_int_eq(silent_after(look), COLO_WATCH_LOOKS - 1);
}
END_TEST

/* Without output that waits there is no reason why it should say anything. */
START_TEST(nothing_to_say)
{
    begin();
    expect_to_go_on(COLO_WATCH_LOOKS + 2, look);
    now.asked = true;
    ck_assert_int_eq(silent_after(look), COLO_WATCH_LOOKS);
}
END_TEST

/* A slow disk of the primary's own, or anything else that is not the secondary's, says nothing about it. */
START_TEST(main_loop_stands)
{
    begin();
    now.asked = now.holding = true;
    ck_assert_int_eq(silent_after(look_again), FOR_EVER);
    ck_assert_int_eq(silent_after(look_at_disks), FOR_EVER);    /* there are none, or nothing is open */
    now.disks.open = 1;
    ck_assert_int_eq(look_at_disks(), COLO_WATCH_GO_ON);
    ck_assert_int_eq(silent_after(look_again), FOR_EVER);       /* that was how they were when they could last be seen */
    ck_assert_int_eq(silent_after(look), COLO_WATCH_LOOKS - 1);
}
END_TEST

/* Nor does it take back what has been seen. */
START_TEST(looks_that_count)
{
    begin();
    now.asked = true;
    for (int n = 1; n < COLO_WATCH_LOOKS; n++) {
        ck_assert_int_eq(look(), COLO_WATCH_GO_ON);
        expect_to_go_on(20, look_again);
    }
    ck_assert_int_eq(look(), COLO_WATCH_SILENT);
}
END_TEST

/* Headway at a look that does not count is seen at the next that does. */
START_TEST(headway_while_it_stands)
{
    begin();
    now.asked = true;
    expect_to_go_on(COLO_WATCH_LOOKS - 1, look);
    now.headway++;
    expect_to_go_on(3, look_again);
    ck_assert_int_eq(look(), COLO_WATCH_GO_ON);
    ck_assert_int_eq(silent_after(look), COLO_WATCH_LOOKS);
}
END_TEST

/* The main loop waits for the secondary's disks: they owe an answer, whatever was asked for. */
START_TEST(disks)
{
    begin();
    now.disks.open = 3;
    ck_assert_int_eq(silent_after(look_at_disks), COLO_WATCH_LOOKS);
}
END_TEST

/* They are slow, but do answer: by an answer, or by one request fewer, where the answer was an error. */
START_TEST(slow_disks)
{
    begin();
    now.disks.open = 10;
    for (int round = 0; round < 5; round++) {
        expect_to_go_on(COLO_WATCH_LOOKS - 1, look_at_disks);
        now.disks.done++;
        expect_to_go_on(1, look_at_disks);
        expect_to_go_on(COLO_WATCH_LOOKS - 1, look_at_disks);
        now.disks.open--;
        expect_to_go_on(1, look_at_disks);
    }
    now.disks.open++;       /* that is no answer */
    ck_assert_int_eq(silent_after(look_at_disks), COLO_WATCH_LOOKS);
}
END_TEST

/* While the main loop goes round they are not what is waited for. */
START_TEST(busy_disks)
{
    begin();
    now.asked = true;
    now.disks.open = 1;
    for (int n = 1; n < COLO_WATCH_LOOKS; n++) {
        now.disks.looks++;
        now.disks.done++;
        ck_assert_int_eq(look(), COLO_WATCH_GO_ON);
    }
    now.disks.done++;
    ck_assert_int_eq(look(), COLO_WATCH_SILENT);
}
END_TEST

/* Nobody owes anything to a guest that is stopped, nor for the time in which it was. */
START_TEST(stopped)
{
    begin();
    now.asked = now.holding = true;
    expect_to_go_on(COLO_WATCH_LOOKS - 1, look);
    now.stopped = true;
    expect_to_go_on(FOR_EVER, look);
    now.stopped = false;
    ck_assert_int_eq(silent_after(look), COLO_WATCH_LOOKS);

    begin();
    now.stopped = true;             /* or is just being stopped */
    now.disks.open = 1;
    ck_assert_int_eq(silent_after(look_at_disks), COLO_WATCH_LOOKS);
}
END_TEST

/* What was seen before it began does not count. */
START_TEST(begins_anew)
{
    begin();
    now.asked = now.holding = true;
    expect_to_go_on(COLO_WATCH_LOOKS - 1, look);
    colo_watch_start(&watch, &now);
    ck_assert_int_eq(silent_after(look), COLO_WATCH_LOOKS);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("watch");
    TCase *tc = tcase_create("watch");

    tcase_add_test(tc, nobody_asks);
    tcase_add_test(tc, asked_for);
    tcase_add_test(tc, heard_but_no_checkpoint);
    tcase_add_test(tc, headway);
    tcase_add_test(tc, paid);
    tcase_add_test(tc, quiet);
    tcase_add_test(tc, nothing_to_say);
    tcase_add_test(tc, main_loop_stands);
    tcase_add_test(tc, looks_that_count);
    tcase_add_test(tc, headway_while_it_stands);
    tcase_add_test(tc, disks);
    tcase_add_test(tc, slow_disks);
    tcase_add_test(tc, busy_disks);
    tcase_add_test(tc, stopped);
    tcase_add_test(tc, begins_anew);
    suite_add_tcase(suite, tc);
    return run_suite(suite);
}
