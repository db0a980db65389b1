/*
 * Luck: everything random in a simulated run comes from one seed
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_SIM_DRAW_H
#define TESTS_SIM_DRAW_H

#include <stdbool.h>
#include <stdint.h>

#define US 1000LL
#define MS (1000 * US)
#define SECOND (1000 * MS)
#define NEVER INT64_MAX

typedef struct {
    uint64_t state;
} Draw;

/* A source of its own for each @purpose, so that what one draws does not change what another gets. */
Draw draw_new(uint64_t seed, uint64_t purpose);

uint64_t draw_next(Draw *d);

/* 0 to @n - 1 */
uint32_t draw_below(Draw *d, uint32_t n);

/* @from to @to, both included */
int64_t draw_between(Draw *d, int64_t from, int64_t to);

bool draw_percent(Draw *d, uint32_t percent);

/* Mostly near @from; each doubling of the distance is as likely as the one before. */
int64_t draw_skewed(Draw *d, int64_t from, int64_t to);

/* A TCP sequence number, often near the wrap. */
uint32_t draw_sequence(Draw *d);

/* A number that looks random and depends on @x only. */
uint64_t scramble(uint64_t x);

#endif /* TESTS_SIM_DRAW_H */
