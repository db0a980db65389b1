/*
 * The bare relay: reads both inputs and writes one of them out, nothing else; the limit of what colo-compare can reach
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include <glib.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define READ_BYTES (64 * 1024)

static G_NORETURN void fail(const char *what)
{
    fprintf(stderr, "colo-bench-relay: %s\n", what);
    exit(1);
}

static int connect_to(const char *path)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (g_strlcpy(address.sun_path, path, sizeof(address.sun_path)) >= sizeof(address.sun_path) || fd < 0 ||
        connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
        fail("cannot connect");
    }
    return fd;
}

static void write_all(int fd, const uint8_t *bytes, ssize_t len)
{
    while (len > 0) {
        ssize_t done = send(fd, bytes, (size_t)len, MSG_NOSIGNAL);

        if (done <= 0) {
            exit(0);
        }
        bytes += done;
        len -= done;
    }
}

int main(int argc, char **argv)
{
    static uint8_t bytes[READ_BYTES];
    struct pollfd in[2];
    int out;

    if (argc != 4) {
        fail("usage: colo-bench-relay PRIMARY SECONDARY OUT");
    }
    for (int i = 0; i < 2; i++) {
        in[i] = (struct pollfd) { .fd = connect_to(argv[1 + i]), .events = POLLIN };
    }
    out = connect_to(argv[3]);
    while (poll(in, 2, -1) > 0) {
        for (int i = 0; i < 2; i++) {
            ssize_t len = in[i].revents ? recv(in[i].fd, bytes, sizeof(bytes), 0) : 0;

            if (in[i].revents && len <= 0) {
                return 0;
            }
            if (i == 0) {
                write_all(out, bytes, len);
            }
        }
    }
    return 0;
}
