/*
 * The checker: it knows the three rules, what goes in and what comes out
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_SIM_CHECKER_H
#define TESTS_SIM_CHECKER_H

#include "segment.h"

typedef struct Checker Checker;
typedef struct World World;

Checker *checker_new(World *w, const Scenario *s);
void checker_free(Checker *k);

/* A guest has sent @p. */
void checker_primary_sends(Checker *k, const Parcel *p);
/* It goes into the comparator now. */
void checker_in(Checker *k, bool primary, const Parcel *p, int64_t now);
/* The comparator has released a frame. */
void checker_released(Checker *k, const uint8_t *frame, uint32_t size, uint32_t vnet_len);
/* It asks for a checkpoint. */
void checker_asked(Checker *k);
/* The secondary has become the primary's copy as it is now; the next guest epoch begins. */
void checker_loaded(Checker *k);
/* The comparator has been told so. */
void checker_told(Checker *k);
/* Nothing may be overdue; @deadline is the comparator's. */
void checker_time(Checker *k, int64_t now, int64_t deadline);
/* How many of the primary's frames it holds, by the checker's own count. */
uint32_t checker_held(const Checker *k);

#endif /* TESTS_SIM_CHECKER_H */
