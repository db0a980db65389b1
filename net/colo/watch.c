/*
 * The watch over the secondary: one that has fallen silent is noticed by what it owes
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Theory of operation
 *
 * The frame waits for the secondary without an end, and with it the guest.  What it owes is a checkpoint that is due, because it was
 * asked for, because the guest stands still for it already, or because the time for it has come.  If the frame makes no headway
 * with it for the timeout, the secondary is silent.  A few looks are enough if nothing at all has come from there for
 * the timeout although output waited for it.
 *
 * A guest that somebody else has stopped is owed no checkpoint, for the frame makes none of it; but to stop it, QEMU waits for the disks.
 *
 * So many looks in vain, not the time, make a secondary silent: when the thread that looks has stood still itself, that is one.
 *
 * When the main loop stands still, all of QEMU waits for something.  For the secondary if requests to its disks are open: one
 * that is answered is headway.  Otherwise, or if that cannot be seen, it is something of this host's own, a slow disk for example,
 * and the look does not count.
 */

#include "net/colo/watch.h"

/* Looks at which a checkpoint must have been due, if the secondary is not heard either. */
#define LOOKS_MOMENT 2

void colo_watch_start(ColoWatch *w, const ColoWatchLook *now)
{
    *w = (ColoWatch) { .last = *now };
}

static bool waits_for_disks(const ColoWatch *w, const ColoWatchLook *now)
{
    return now->disks.looks != w->last.disks.looks && now->disks.open;
}

static bool disks_moved(const ColoWatch *w, const ColoWatchLook *now)
{
    return now->disks.done != w->last.disks.done || now->disks.open < w->last.disks.open;
}

ColoWatchVerdict colo_watch_look(ColoWatch *w, const ColoWatchLook *now, uint64_t timeout, uint64_t delay)
{
    bool stands = now->turns == w->last.turns;
    bool moved = now->headway != w->last.headway;
    bool heard = now->heard != w->last.heard;
    bool overdue, due;

    if (stands) {
        if (!waits_for_disks(w, now)) {
            return COLO_WATCH_GO_ON;
        }
        moved |= disks_moved(w, now);
    }
    w->last = *now;
    if (moved || (now->stopped && !stands)) {
        w->still = w->owing = w->quiet = 0;
        return COLO_WATCH_GO_ON;
    }
    w->still++;
    overdue = w->still * timeout / COLO_WATCH_LOOKS > delay;
    due = now->asked || stands || overdue;
    w->owing = due ? w->owing + 1 : 0;
    w->quiet = (due || now->holding) && !heard ? w->quiet + 1 : 0;
    if (w->owing >= COLO_WATCH_LOOKS || (w->owing >= LOOKS_MOMENT && w->quiet >= COLO_WATCH_LOOKS)) {
        return COLO_WATCH_SILENT;
    }
    return overdue ? COLO_WATCH_ASK : COLO_WATCH_GO_ON;
}
