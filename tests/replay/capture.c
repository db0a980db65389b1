/*
 * Captures: frames from a pcap or pcapng file, with their times
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Theory of operation
 *
 * libpcap reads the file; what is said of it is ours.  A file is read front to back and never kept: whoever wants
 * another look opens it again, so memory does not depend on its size.
 *
 * A file that ends amid a packet (its recorder was killed) is used up to there.  Times are believed in nothing either:
 * they are cut down to a span in which no sum of two overflows.
 */

#include "capture.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#define TIME_MAX_SECONDS 4000000000LL       /* the year 2096 */

/* Frames that are looked at to find out whether a header leads them. */
#define GUESS_FRAMES 1000

static bool is_regular_file(const char *path, GError **error)
{
    struct stat st;

    if (stat(path, &st) != 0) {
        g_set_error(error, REPLAY_ERROR, 0, "%s: %s", path, g_strerror(errno));
        return false;
    }
    if (!S_ISREG(st.st_mode)) {
        g_set_error(error, REPLAY_ERROR, 0, "%s: not a file; it is read more than once, so record to one first",
                    path);
        return false;
    }
    if (!st.st_size) {
        g_set_error(error, REPLAY_ERROR, 0,
                    "%s: empty; the recorder may still have had everything in its buffer (tcpdump -U, or end it first)",
                    path);
        return false;
    }
    return true;
}

Capture *capture_open(const char *path, uint32_t vnet_len, int64_t offset, GError **error)
{
    char message[PCAP_ERRBUF_SIZE];
    Capture *capture;
    pcap_t *pcap;

    if (!is_regular_file(path, error)) {
        return NULL;
    }
    pcap = pcap_open_offline_with_tstamp_precision(path, PCAP_TSTAMP_PRECISION_NANO, message);
    if (!pcap) {
        g_set_error(error, REPLAY_ERROR, 0,
                    "%s: not a capture that can be read (%s); record one with filter-dump or \"tcpdump -w\"", path,
                    message);
        return NULL;
    }
    if (pcap_datalink(pcap) != DLT_EN10MB) {
        const char *name = pcap_datalink_val_to_name(pcap_datalink(pcap));

        g_set_error(error, REPLAY_ERROR, 0,
                    "%s: link type %s, not Ethernet; record on the one interface that the guest is behind "
                    "(tcpdump -i NAME, not -i any)", path, name ? name : "unknown");
        pcap_close(pcap);
        return NULL;
    }
    capture = g_new0(Capture, 1);
    capture->path = path;
    capture->pcap = pcap;
    capture->vnet_len = vnet_len;
    capture->offset = offset;
    return capture;
}

void capture_free(Capture *capture)
{
    if (capture) {
        pcap_close(capture->pcap);
        g_free(capture->damage);
        g_free(capture);
    }
}

/* With nanosecond precision tv_usec holds nanoseconds. */
static int64_t time_of(const struct pcap_pkthdr *header)
{
    int64_t seconds = CLAMP((int64_t)header->ts.tv_sec, 0, TIME_MAX_SECONDS);
    int64_t ns = CLAMP((int64_t)header->ts.tv_usec, 0, SECOND - 1);

    return seconds * SECOND + ns;
}

bool capture_next(Capture *capture)
{
    struct pcap_pkthdr *header;
    const u_char *bytes;
    int status;

    while (!capture->damage && (status = pcap_next_ex(capture->pcap, &header, &bytes)) != PCAP_ERROR_BREAK) {
        if (status != 1) {
            capture->damage = g_strdup(pcap_geterr(capture->pcap));
            break;
        }
        capture->packets++;
        if (header->caplen < header->len) {
            capture->snapped++;
        }
        capture->time = time_of(header) + capture->offset;
        if (header->caplen <= COLO_FRAME_MAX + COLO_VNET_HDR_MAX &&
            colo_packet_parse(&capture->packet, bytes, header->caplen, capture->vnet_len)) {
            return true;
        }
        capture->unusable++;
    }
    return false;
}

bool capture_guess_vnet_len(const char *path, uint32_t *vnet_len, GError **error)
{
    static const uint32_t lengths[] = { 0, 10, 12, 20 };
    uint32_t known[G_N_ELEMENTS(lengths)] = { 0 };
    Capture *capture = capture_open(path, 0, 0, error);
    uint32_t best = 0;

    if (!capture) {
        return false;
    }
    while (capture->packets < GUESS_FRAMES && capture_next(capture)) {
        for (guint i = 0; i < G_N_ELEMENTS(lengths); i++) {
            ColoPacket p;

            known[i] += colo_packet_parse(&p, capture->packet.data, capture->packet.size, lengths[i]) && p.ip_version;
        }
    }
    for (guint i = 1; i < G_N_ELEMENTS(lengths); i++) {
        best = known[i] > known[best] ? i : best;
    }
    *vnet_len = lengths[best];
    capture_free(capture);
    return true;
}
