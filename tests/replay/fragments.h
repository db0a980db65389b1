/*
 * Fragments: which flow they belong to
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Only the first fragment of a datagram says between which ports it goes; the others have its identification.  The core
 * has a flow for each datagram in fragments, a person expects to see them in the flow that they are part of.
 */

#ifndef TESTS_REPLAY_FRAGMENTS_H
#define TESTS_REPLAY_FRAGMENTS_H

#include "net/colo/flow.h"

typedef struct Fragments Fragments;

Fragments *fragments_new(const uint8_t secret[16]);
void fragments_free(Fragments *fragments);

/* Takes note of a first fragment. */
void fragments_note(Fragments *fragments, const ColoPacket *p, ColoDirection direction);

/* Turns a key of the core's into that of the flow that it is part of: without ports, if they are not known. */
void fragments_flow_key(Fragments *fragments, ColoFlowKey *key);

#endif /* TESTS_REPLAY_FRAGMENTS_H */
