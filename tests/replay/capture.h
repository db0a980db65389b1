/*
 * Captures: frames from a pcap or pcapng file, with their times
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_REPLAY_CAPTURE_H
#define TESTS_REPLAY_CAPTURE_H

#include <pcap/pcap.h>

#include "net/colo/packet.h"

#define MS (1000 * 1000LL)
#define SECOND (1000 * MS)

/* What ends the program with a message. */
#define REPLAY_ERROR (g_quark_from_static_string("colo-replay"))

typedef struct {
    const char *path;
    pcap_t *pcap;
    uint32_t vnet_len;      /* every frame begins with a virtio-net header of this length */
    int64_t offset;         /* added to every time, ns */

    /* The frame at hand, once capture_next() has returned true. */
    ColoPacket packet;      /* borrowed; good until the next one is read */
    int64_t time;           /* ns */

    uint64_t packets;       /* so far */
    uint64_t snapped;       /* whose end has not been recorded */
    uint64_t unusable;      /* longer than any frame of QEMU's, or shorter than an Ethernet header */
    char *damage;           /* why there is no more although the file goes on, or NULL */
} Capture;

/*
 * Opens the file for reading from its beginning.  NULL, with an error that names the file and the cure, if it cannot be
 * read or is no Ethernet capture.
 */
Capture *capture_open(const char *path, uint32_t vnet_len, int64_t offset, GError **error);
void capture_free(Capture *capture);

/* Reads the next frame that is usable; false at the end, or where the file is damaged. */
bool capture_next(Capture *capture);

/*
 * The virtio-net header that frames of the file begin with, found by trying: filter-dump of QEMU 7.2 records it as if
 * it were part of the Ethernet frame.
 */
bool capture_guess_vnet_len(const char *path, uint32_t *vnet_len, GError **error);

#endif /* TESTS_REPLAY_CAPTURE_H */
