/*
 * The secondary's disks, as the primary has them
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The primary writes to them through nodes of the driver `replication`, below each of which is an NBD client of the other node.
 */

#include "qemu/osdep.h"
#include "net/colo-disk.h"
#include "block/block_int.h"
#include "net/colo-host.h"
#include "net/colo-series.h"
#include "qemu/main-loop.h"

static bool asked;
static ColoWatchDisks seen;

/* The primary's next `replication` node, after @bs or from the first one on; NULL after the last. */
static BlockDriverState *next_disk(BlockDriverState *bs)
{
    do {
        bs = bdrv_next_all_states(bs);
    } while (bs && (!bs->drv || strcmp(bs->drv->format_name, "replication") ||
                    g_strcmp0(qdict_get_try_str(bs->options, "mode"), "primary")));
    return bs;
}

/*
 * The graph of the block devices is the main loop's.  Who waits for a disk with the big lock held looks after this context, and no
 * other.
 */
static void in_the_graph(QEMUBHFunc *function)
{
    aio_bh_schedule_oneshot(qemu_get_aio_context(), function, NULL);
}

static void look(void *opaque)
{
    uint32_t open = 0, done = 0;

    for (BlockDriverState *bs = next_disk(NULL); bs; bs = next_disk(bs)) {
        open += qatomic_read(&bs->in_flight);
        done += qatomic_read(&bs->write_gen) + bs->flushed_gen;
    }
    qatomic_set(&seen.open, open);
    qatomic_set(&seen.done, done);
    qatomic_store_release(&seen.looks, seen.looks + 1);
    qatomic_set(&asked, false);
}

ColoWatchDisks colo_disk_look(void)
{
    ColoWatchDisks disks;

    if (!qatomic_xchg(&asked, true)) {
        in_the_graph(look);
    }
    disks.looks = qatomic_load_acquire(&seen.looks);
    disks.open = qatomic_read(&seen.open);
    disks.done = qatomic_read(&seen.done);
    return disks;
}

static void GRAPH_RDLOCK yank_node(BlockDriverState *bs)
{
    YankInstance node = {
        .type = YANK_INSTANCE_TYPE_BLOCK_NODE,
        .u.block_node.node_name = bs->node_name,
    };
    BdrvChild *child;

    colo_host_yank(&node);
    QLIST_FOREACH(child, &bs->children, next) {
        yank_node(child->bs);
    }
}

static void yank_all(void *opaque)
{
    GRAPH_RDLOCK_GUARD_MAINLOOP();
    for (BlockDriverState *bs = next_disk(NULL); bs; bs = next_disk(bs)) {
        yank_node(bs);
    }
}

void colo_disk_break(void)
{
    in_the_graph(yank_all);
}
