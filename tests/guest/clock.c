/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Tells from inside the guest how long the machine has stood still.
 *
 * While it does, the guest's own clock stands still with it; the battery-backed one, which the host keeps, goes on.  Each second
 * of that one brings an interrupt.  The difference between the two clocks, from one report to the next, is what was lost.
 *
 * The words on the console: "clock: SECONDS s, MICROSECONDS us lost", both since the start.
 */
#include <fcntl.h>
#include <linux/rtc.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

int main(void)
{
    int fd = open("/dev/rtc0", O_RDONLY);
    unsigned long seconds = 0, word;
    double began = 0;

    if (fd < 0 || ioctl(fd, RTC_UIE_ON, 0) < 0) {
        perror("clock: /dev/rtc0");
        return 1;
    }
    while (read(fd, &word, sizeof(word)) == sizeof(word)) {
        if (!began) {
            began = now();
            continue;
        }
        seconds += word >> 8;           /* how many there were since the last read */
        printf("clock: %lu s, %.0f us lost\n", seconds, (seconds - (now() - began)) * 1e6);
        fflush(stdout);
    }
    perror("clock: read");
    return 1;
}
