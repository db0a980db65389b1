/*
 * Luck: everything random in a simulated run comes from one seed
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The generator is a counter (Weyl sequence) whose values are scrambled by SplitMix64's finisher: small, and good
 * enough that nearby seeds have nothing in common.
 */

#include "draw.h"

#define GOLDEN 0x9e3779b97f4a7c15ULL

uint64_t scramble(uint64_t x)
{
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ULL;
    x = (x ^ x >> 27) * 0x94d049bb133111ebULL;
    return x ^ x >> 31;
}

Draw draw_new(uint64_t seed, uint64_t purpose)
{
    return (Draw) { scramble(scramble(seed + GOLDEN) + purpose * GOLDEN) };
}

uint64_t draw_next(Draw *d)
{
    d->state += GOLDEN;
    return scramble(d->state);
}

uint32_t draw_below(Draw *d, uint32_t n)
{
    return (uint32_t)(draw_next(d) % n);
}

int64_t draw_between(Draw *d, int64_t from, int64_t to)
{
    return from + (int64_t)(draw_next(d) % (uint64_t)(to - from + 1));
}

bool draw_percent(Draw *d, uint32_t percent)
{
    return draw_below(d, 100) < percent;
}

int64_t draw_skewed(Draw *d, int64_t from, int64_t to)
{
    int64_t span = 1;
    int doublings = 0;

    while (span <= to - from) {
        span *= 2;
        doublings++;
    }
    for (doublings = (int)draw_below(d, (uint32_t)doublings + 1); doublings > 0 && span > 1; doublings--) {
        span /= 2;
    }
    return from + (int64_t)(draw_next(d) % (uint64_t)(span < to - from + 1 ? span : to - from + 1));
}

uint32_t draw_sequence(Draw *d)
{
    uint32_t any = (uint32_t)draw_next(d);

    switch (draw_below(d, 4)) {
    case 0:
        return any;
    case 1:
        return 0u - any % 16;
    case 2:
        return 0u - any % 20000;
    default:
        return 0x80000000u - any % 20000;
    }
}
