/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Runs code that it writes itself, and tells whether what runs is what it has written.
 *
 * A page holds a function that returns a number; the number also stands in an ordinary variable.  The function is written anew
 * from time to time and called very often in between.  In a copy of the machine that takes over the page but goes on with
 * code translated from what was there before, the two differ.
 *
 * The numbers are drawn from the time stamp counter, so that two copies of the guest part ways at once.
 */
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <x86intrin.h>

enum {
    PAGES = 16,
    CALLS = 2000,               /* of each function, until it is written anew */
};

/* Not a constant, so that nobody computes the comparison beforehand. */
static volatile uint32_t numbers[PAGES];

/* mov $number, %eax; ret */
static void write_function(uint8_t *page, uint32_t number)
{
    page[0] = 0xb8;
    memcpy(page + 1, &number, sizeof(number));
    page[5] = 0xc3;
}

int main(void)
{
    const struct timespec pause = { .tv_nsec = 1000 * 1000 };
    uint8_t *pages = mmap(NULL, PAGES * 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    unsigned long rounds = 0, stale = 0;

    if (pages == MAP_FAILED) {
        perror("code: mmap");
        return 1;
    }
    for (;;) {
        for (int i = 0; i < PAGES; i++) {
            numbers[i] = __rdtsc();
            write_function(pages + i * 4096, numbers[i]);
        }
        for (int call = 0; call < CALLS; call++) {
            for (int i = 0; i < PAGES; i++) {
                uint32_t (*function)(void) = (uint32_t (*)(void))(uintptr_t)(pages + i * 4096);

                if (function() != numbers[i]) {
                    stale++;
                }
            }
            if (call % 100 == 0) {
                nanosleep(&pause, NULL);
            }
        }
        rounds++;
        if (stale) {
            printf("code: CORRUPT: %lu calls ran old code\n", stale);
            return 1;
        }
        if (rounds % 20 == 0) {
            printf("code: %lu rounds, none stale\n", rounds);
            fflush(stdout);
        }
    }
}
