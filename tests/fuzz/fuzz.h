/*
 * What every fuzz target begins with: an input to read, and a way to fail
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A target is a file fuzz-NAME.c with the one function that libFuzzer calls.  The same file, linked with replay.c,
 * replays the inputs that are kept in corpus/NAME/.
 */

#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Fails: libFuzzer, or replay.c, then says with which input. */
#define REQUIRE(condition, ...)                                                                                        \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: not so: %s\n    ", __FILE__, __LINE__, #condition);                                \
            fprintf(stderr, __VA_ARGS__);                                                                              \
            fputc('\n', stderr);                                                                                       \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

/* Tells what is done, if the variable FUZZ_TELL is in the environment: for whoever looks into a finding. */
#define TELL(...)                                                                                                      \
    do {                                                                                                               \
        if (fuzz_tells) {                                                                                              \
            fprintf(stderr, __VA_ARGS__);                                                                              \
            fputc('\n', stderr);                                                                                       \
        }                                                                                                              \
    } while (0)

static bool fuzz_tells __attribute__((unused));

static inline void fuzz_begin(void)
{
    fuzz_tells = getenv("FUZZ_TELL");
}

/* An input that is read front to back; zeros follow its end. */
typedef struct {
    const uint8_t *at;
    const uint8_t *end;
} Tape;

static inline bool tape_is_over(const Tape *tape)
{
    return tape->at == tape->end;
}

static inline uint8_t tape_byte(Tape *tape)
{
    return tape_is_over(tape) ? 0 : *tape->at++;
}

static inline uint16_t tape_half(Tape *tape)
{
    uint8_t high = tape_byte(tape);

    return (uint16_t)(high << 8 | tape_byte(tape));
}

static inline uint32_t tape_word(Tape *tape)
{
    uint32_t high = tape_half(tape);

    return high << 16 | tape_half(tape);
}

/* The next of a series of numbers that looks drawn and is decided by where @state began. */
static inline uint32_t draw(uint32_t *state)
{
    uint32_t x = *state ? *state : 2463534242u;

    x ^= x << 13;
    x ^= x >> 17;
    x ^= x << 5;
    return *state = x;
}

#endif /* TESTS_FUZZ_FUZZ_H */
