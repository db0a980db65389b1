/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Keeps checking its own memory while it changes it.
 *
 * Each page of a large area is filled with one word, which is made from the
 * page's number and from how often that page has been written; how often is
 * kept in a table apart.  A page and the table agree as long as memory is of
 * one moment.  If a checkpoint leaves some pages of the secondary as they were
 * after the secondary itself wrote to them, while it brings others back to the
 * primary's, page and table stop agreeing.
 *
 * Which page comes next is drawn from the time stamp counter, so that two
 * copies of the guest part ways at once.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <x86intrin.h>

enum {
    PAGES = 4096,
    WORDS = 4096 / sizeof(uint64_t),
    ROUNDS_PER_REPORT = 1 << 19,
    WORST_TO_REPORT = 20,
};

static uint64_t word_of(uint32_t page, uint32_t writes)
{
    return ((uint64_t)page << 32 | writes) * 0x9e3779b97f4a7c15u;
}

static void fill(volatile uint64_t *words, uint64_t word)
{
    for (int i = 0; i < WORDS; i++) {
        words[i] = word;
    }
}

int main(void)
{
    static uint32_t writes[PAGES];
    uint64_t state = __rdtsc();
    uint64_t rounds = 0;
    int corrupt = 0;
    uint64_t (*area)[WORDS] = mmap(NULL, (size_t)PAGES * 4096,
                                   PROT_READ | PROT_WRITE,
                                   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (area == MAP_FAILED) {
        perror("memory: mmap");
        return EXIT_FAILURE;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (uint32_t page = 0; page < PAGES; page++) {
        fill(area[page], word_of(page, 0));
    }
    printf("memory: checking %d pages\n", PAGES);

    for (;;) {
        uint32_t page;
        uint64_t expected;

        state = (state ^ __rdtsc()) * 6364136223846793005u + 1442695040888963407u;
        page = (state >> 33) % PAGES;
        expected = word_of(page, writes[page]);

        for (int i = 0; i < WORDS; i++) {
            uint64_t found = ((volatile uint64_t *)area[page])[i];

            if (found != expected) {
                if (corrupt++ < WORST_TO_REPORT) {
                    printf("memory: CORRUPT page %u word %d: %016llx, not %016llx\n",
                           page, i, (unsigned long long)found,
                           (unsigned long long)expected);
                }
                break;
            }
        }
        writes[page]++;
        fill(area[page], word_of(page, writes[page]));

        if (++rounds % ROUNDS_PER_REPORT == 0) {
            printf("memory: %llu rounds, %d corrupt\n",
                   (unsigned long long)rounds, corrupt);
        }
    }
}
