/*
 * The replay: two captures through rewriter and comparator
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_REPLAY_REPLAY_H
#define TESTS_REPLAY_REPLAY_H

#include "account.h"
#include "guest.h"

typedef struct {
    const char *path[COLO_SIDES];
    const char *released;       /* file for what leaves, or NULL */
    bool offset_given;
    int64_t offset;             /* ns to add to the secondary's times */
    bool checkpoints;           /* pretend that one is made when the sides differ */
    int64_t pause;              /* ns from asking for one until it is loaded */
    int64_t timeout;            /* ns */
    uint32_t queue_size;
} ReplayOptions;

typedef struct {
    uint64_t packets;           /* in the capture */
    uint64_t from_guest;
    uint64_t to_guest;
    uint64_t snapped;
    uint64_t unusable;
    uint32_t vnet_len;
    char *damage;               /* or NULL */
} CaptureSummary;

typedef struct {
    Guest *guest;
    bool guest_deduced;
    CaptureSummary captures[COLO_SIDES];
    int64_t offset;             /* added to the secondary's times, ns */
    char *offset_from;          /* the packet that both captures have, or NULL */
    int64_t begin;              /* time of the primary's first packet, ns */
    Account *account;
    ColoComparatorStats stats;
    uint64_t unread[COLO_SIDES];        /* packets of the guest that a full comparator has left unread */
} Replay;

/* Reads both captures.  NULL with an error if that cannot be done. */
Replay *replay_run(const ReplayOptions *options, Guest *guest, GError **error);
void replay_free(Replay *replay);

#endif /* TESTS_REPLAY_REPLAY_H */
