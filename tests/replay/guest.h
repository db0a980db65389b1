/*
 * The guest: which frames it sent, and which were sent to it
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_REPLAY_GUEST_H
#define TESTS_REPLAY_GUEST_H

#include "capture.h"
#include "net/colo/flow.h"

/* The guest's addresses, of any kind. */
typedef struct {
    GArray *addresses;      /* of GuestAddress */
} Guest;

typedef enum {
    WAY_FROM_GUEST,
    WAY_TO_GUEST,
    WAY_ELSEWHERE,
} Way;

Guest *guest_new(void);
void guest_free(Guest *guest);

/* Adds an IPv4, IPv6 or Ethernet address; false if @text is none. */
bool guest_add(Guest *guest, const char *text, GError **error);

/*
 * Finds out who the guest is from the primary's capture; an error if that is not certain.
 *
 * @secret: 16 random bytes for a flow table.
 */
bool guest_deduce(Guest *guest, const char *path, uint32_t vnet_len, const uint8_t secret[16], GError **error);

Way guest_way(const Guest *guest, const ColoPacket *p);

/* All its addresses; the caller's to free. */
char *guest_text(const Guest *guest);

#endif /* TESTS_REPLAY_GUEST_H */
