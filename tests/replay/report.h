/*
 * The report: what a replay has shown, for people and for programs
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_REPLAY_REPORT_H
#define TESTS_REPLAY_REPORT_H

#include "replay.h"

void report_text(const Replay *replay, const ReplayOptions *options);
void report_json(const Replay *replay, const ReplayOptions *options);

/* True if all that the primary sent left because the secondary sent the same. */
bool report_all_agree(const Replay *replay);

#endif /* TESTS_REPLAY_REPORT_H */
