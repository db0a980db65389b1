# SPDX-License-Identifier: GPL-2.0-or-later
"""Faults of the host that keep COLO from working, and how each is mended.

docs/host-mends.rst tells of each at length.
"""

from __future__ import annotations

from .edits import Cut, Insert, Replace, Step
from .series import SERIES, Series

CHECKPOINT = "static int colo_do_checkpoint_transaction(MigrationState *s,"
DO_VM_STOP = "static int do_vm_stop(RunState state, bool send_stop)"
INCOMING_CHECKPOINT = "static void colo_incoming_process_checkpoint("
SAVE_COMPLETE = "static int ram_save_complete(QEMUFile *f, void *opaque)"
LOADED = """\
    colo_receive_check_message(s->rp_state.from_dst_file,
                       COLO_MESSAGE_VMSTATE_LOADED, &local_err);
"""


def live_state_lock(host: Series, sync_argument: str) -> Step:
    return Step(
        name="live-state-lock",
        reason="At each checkpoint the frame saves the memory without the big lock, but under TCG "
               "the sync of the dirty log that this starts with needs it, and the primary hangs for "
               "good. The lock is taken for the sync alone: a secondary that is slow to read must "
               "not stop the monitor.",
        test="tests/pair: test_first_checkpoint",
        edits=(
            Cut("migration/ram.c", "WITH_RCU_READ_LOCK_GUARD() {", "}\n\n", within=SAVE_COMPLETE,
                text=f"""\
    if (!migration_in_postcopy()) {{
        /* COLO's checkpoints come here without the lock, migrations with it. */
        bool unlocked = !{host.bql_locked};

        if (unlocked) {{
            {host.bql_lock}
        }}
        migration_bitmap_sync_precopy({sync_argument});
        if (unlocked) {{
            {host.bql_unlock}
        }}
    }}

    WITH_RCU_READ_LOCK_GUARD() {{
"""),
        ))


TLB_FLUSH_7_2 = Step(
    name="tlb-flush",
    reason="The fast way of collecting dirty pages clears their bits and leaves TCG's TLBs "
           "believing that they are set, so the next writes are not noticed. Pages that the "
           "secondary has written are then not rolled back, and its guest dies of it.",
    test="tests/pair: test_secondary_memory_is_rolled_back",
    edits=(
        Insert("migration/ram.c", '#include "exec/ram_addr.h"',
               '#include "exec/exec-all.h"\n'),
        Insert("migration/ram.c",
               "cpu_physical_memory_sync_dirty_bitmap(rb, 0, rb->used_length);",
               """\

    /* The bits just taken are clear now: the next write has to be noticed. */
    if (tcg_enabled()) {
        CPUState *cpu;

        CPU_FOREACH(cpu) {
            tlb_reset_dirty(cpu, (uintptr_t)rb->host, rb->used_length);
        }
    }
"""),
    ))


def tlb_flush(file: str, tell: str) -> Step:
    return Step(
        name="tlb-flush",
        reason="The fast way of collecting dirty pages tells TCG's TLBs that their bits are clear now only if it "
               "has found a page that was not known to be dirty. Writes after a sync that found none may go unnoticed.",
        test="tests/pair: test_secondary_runs_its_new_code, at times",
        edits=(
            Cut(file, "if (num_dirty) {", "}", text=f"""\
        /* The bits just taken are clear now, also those of pages that were known to be dirty. */
        {tell}(start, length);
"""),
        ))


MIGRATION_NODELAY = Step(
    name="migration-nodelay",
    reason="A checkpoint is a dialogue of short messages. With Nagle's algorithm on the "
           "connection most of its time goes by waiting for delayed acknowledgements (45 ms "
           "instead of 5 to 10), and the secondary resumes that much before the primary.",
    test="tests/pair: test_migration_sockets_are_nodelay",
    edits=(
        Insert("migration/socket.c", "trace_migration_socket_outgoing_connected(data->hostname);",
               "    qio_channel_set_delay(sioc, false);\n"),
        Insert("migration/socket.c", '"migration-socket-incoming");',
               "    qio_channel_set_delay(QIO_CHANNEL(cioc), false);\n"),
    ))


COMMIT_AFTER_LOAD = Step(
    name="commit-after-load",
    reason="The frame lets the held output go when the secondary has received the new state, "
           "but not loaded it yet. A failover in between resumes the old state, which cannot "
           "stand by what the client has been told. Now the output waits for the loading.",
    test="tests/pair: test_output_waits_for_load",
    edits=(
        Cut("migration/colo.c", "qemu_event_reset(&s->colo_checkpoint_event);",
            "colo_notify_compares_event(NULL, COLO_EVENT_CHECKPOINT, &local_err);",
            within=CHECKPOINT,
            text="    /* Nothing leaves before the secondary can stand by it. */\n" + LOADED),
        Replace("migration/colo.c", LOADED, within=CHECKPOINT, text="""\
    /* What was asked for until now, this checkpoint has given. */
    qemu_event_reset(&s->colo_checkpoint_event);
    colo_notify_compares_event(NULL, COLO_EVENT_CHECKPOINT, &local_err);
"""),
    ))


def lost_secondary(host: Series) -> Step:
    return Step(
        name="lost-secondary",
        reason="When the connection to the secondary breaks, the primary's frame waits for a "
               "failover command, with the output held and, in the middle of a checkpoint, the "
               "guest stopped. Now it tells the comparers to let everything pass and sets the guest "
               "going; the command works as before when it comes.",
        test="tests/pair: test_primary_survives_lost_secondary",
        edits=(
            Insert("migration/colo.c", "/* Hope this not to be too long to wait here */", before=True,
                   text=f"""\
    /*
     * Nobody asked for a failover, so the secondary is lost: until somebody
     * does ask, the guest goes on alone.
     */
    if (failover_get_state() == FAILOVER_STATUS_NONE) {{
        colo_notify_compares_event(NULL, COLO_EVENT_FAILOVER, NULL);

        {host.bql_lock}
        if (failover_get_state() == FAILOVER_STATUS_NONE &&
            (runstate_check(RUN_STATE_COLO) ||
             runstate_check(RUN_STATE_FINISH_MIGRATE))) {{
            vm_start();
        }}
        {host.bql_unlock}
    }}

"""),
        ))


def load_without_lock(host: Series, load: str) -> Step:
    return Step(
        name="load-without-lock",
        reason="While the secondary reads the memory's new pages it holds the big lock, though it "
               "only puts them aside. A primary that falls silent in the middle blocks the monitor, "
               "through which the failover would be commanded.",
        test="tests/pair: test_failover_while_loading",
        edits=(
            Cut("migration/colo.c", load, host.bql_unlock, text=f"""\
    {host.bql_unlock}
    ret = {load};
"""),
            Insert("migration/colo.c", "vmstate_loading = true;", before=True, text=f"""\
    /* A failover has made its choice: the state of before. */
    if (failover_get_state() != FAILOVER_STATUS_NONE) {{
        {host.bql_unlock}
        error_setg(errp, "Failover before the new state was loaded");
        return;
    }}
"""),
        ))


def keep_input(colo_enabled: str, header: str) -> Step:
    return Step(
        name="keep-input",
        reason="When a guest is stopped, the packets on their way to it are thrown away. At a "
               "checkpoint, and at the end of the migration that COLO begins with, that loses one of the "
               "client's now and then, which the mirror has passed to the secondary already.",
        test="tests/pair: test_checkpoints_lose_no_input, test_the_beginning_loses_no_input",
        edits=(
            Insert("net/net.c", '#include "net/colo-compare.h"',
                   text=f'#include "migration/colo.h"\n#include "migration/{header}"\n'),
            Replace("net/net.c", "qemu_flush_or_purge_queued_packets(nc, true);", f"""\
if (((state == RUN_STATE_COLO && migration_in_colo_state()) ||
                 (state == RUN_STATE_FINISH_MIGRATE && {colo_enabled}())) &&
                nc->info->type == NET_CLIENT_DRIVER_NIC) {{
                continue;   /* it is delivered when the guest resumes */
            }}
            qemu_flush_or_purge_queued_packets(nc, true);"""),
        ))


QUIET_SECONDARY = Step(
    name="quiet-secondary",
    reason="After every state it loads, virtio-net has the guest announce itself on the "
           "network. At a checkpoint the guest has not moved, and only the secondary's is told "
           "to: the two diverge. It announces itself at the failover, as after any migration.",
    test="tests/pair: test_secondary_stays_quiet",
    edits=(
        Insert("hw/net/virtio-net.c", '#include "migration/misc.h"',
               '#include "migration/colo.h"\n'),
        Replace("hw/net/virtio-net.c",
                "if (virtio_vdev_has_feature(vdev, VIRTIO_NET_F_GUEST_ANNOUNCE) &&",
                within="static int virtio_net_post_load_device(void *opaque, int version_id)",
                text="if (!migration_incoming_colo_enabled() &&\n"
                     "        virtio_vdev_has_feature(vdev, VIRTIO_NET_F_GUEST_ANNOUNCE) &&"),
    ))


def _forget_code(first: str, last: str) -> Insert:
    """@first: the arguments before the range; @last: what the range ends with."""
    return Insert("migration/ram.c", "memcpy(dst_host, src_host, TARGET_PAGE_SIZE * num);", f"""\
                if (tcg_enabled()) {{
                    ram_addr_t start = block->offset +
                                       ((ram_addr_t)offset << TARGET_PAGE_BITS);

                    tb_invalidate_phys_range({first}start,
                                             start + TARGET_PAGE_SIZE * num{last});
                }}
""")


def keep_translations(post_load: str, indent: str, last: str) -> Step:
    """@post_load: the file with the CPU's, indented so much; @last: see _forget_code()."""
    return Step(
        name="keep-translations",
        reason="With each state it loads, TCG forgets all the code it has translated. At a checkpoint only "
               "some pages change; without this the secondary is slow for 50 to 100 ms after each, and the primary's "
               "output waits for it. Now just the code in those pages is forgotten.",
        test="tests/pair: test_secondary_keeps_its_translations, test_secondary_runs_its_new_code",
        edits=(
            _forget_code("", last),
            Insert(post_load, '#include "hw/core/sysemu-cpu-ops.h"', '#include "migration/colo.h"\n'),
            Replace(post_load, "tb_flush(cpu);",
                    "if (!migration_incoming_in_colo_state()) {  /* whose pages are seen to */\n"
                    f"{indent}    tb_flush(cpu);\n{indent}}}"),
        ))


STALE_TRANSLATIONS = Step(
    name="stale-translations",
    reason="The memory of a checkpoint is loaded behind TCG's back, which goes on running the code that it has "
           "translated from what was there before.",
    test="tests/pair: test_secondary_runs_its_new_code",
    edits=(
        Insert("migration/ram.c", '#include "migration/colo.h"', '#include "exec/translation-block.h"\n#include "system/tcg.h"\n'),
        _forget_code("NULL, ", last=" - 1"),
    ))


CHARDEV_READ_SIZE = Step(
    name="chardev-read-size",
    reason="A socket chardev reads 4 KiB at a time, which makes fifteen reads and as many turns "
           "of the main loop of one offloaded segment. It may read 256 KiB now; how much it does "
           "is still for its user to say.",
    test="tests/qtest/colo-filter-test: /colo/redirector/large-reads",
    edits=(
        Replace("chardev/char-socket.c", "CHR_READ_BUF_LEN", "256 * 1024"),
    ))


def chardev_wakeups(*inserts: Insert) -> Step:
    return Step(
        name="chardev-wakeups",
        reason="While it calls a chardev's reader, GLib takes the chardev out of its poll and puts it back, "
               "to keep it from being read again inside, and wakes the poll each time: four system "
               "calls and a poll for nothing in each read. Nobody reads a chardev inside its reader.",
        test="tests/qtest/colo-compare-test: /colo/compare/few-wakeups",
        edits=inserts)


POSITION_LEAK = Step(
    name="position-leak",
    reason="A filter that is given a position forgets the memory of its first one, the default: some "
           "bytes for each object that comes and goes.",
    test="scripts/check --sanitize: /colo/proxy/refused",
    edits=(
        Replace("net/filter.c", "nf->position = g_strdup(str);",
                "g_free(nf->position);\n    nf->position = g_strdup(str);"),
    ))


IDE_RETRY = Step(
    name="ide-retry",
    reason="An IDE disk that is saved between a command and the start of its DMA has the one who loads "
           "it issue the command again, and does the same itself when it goes on, as a primary does after "
           "each checkpoint: the DMA runs twice, and QEMU crashes or the guest waits for its disk for good.",
    test="tests/qtest/colo-frame-test: /colo/frame/ide-goes-on",
    edits=(
        Insert("hw/ide/pci.c", "const VMStateDescription vmstate_ide_pci = {", before=True, text="""\
/* The retry is for whoever loads the state.  Here the guest has yet to start the DMA. */
static int ide_pci_post_save(void *opaque)
{
    PCIIDEState *d = opaque;

    for (int i = 0; i < ARRAY_SIZE(d->bmdma); i++) {
        if (d->bmdma[i].dma_cb && !(d->bmdma[i].status & BM_STATUS_DMAING)) {
            d->bmdma[i].bus->error_status = 0;
        }
    }
    return 0;
}

"""),
        Insert("hw/ide/pci.c", ".post_load = ide_pci_post_load,", "    .post_save = ide_pci_post_save,\n"),
    ))


def stopped_guest(host: Series) -> Step:
    return Step(
        name="stopped-guest",
        reason="A checkpoint that is due while the guest is stopped sets it going, whoever has stopped it and why; after "
               "an I/O error, a panic, a reset or for a debugger QEMU aborts, on either side, for there is no way from there to a "
               "checkpoint's state. What is told to stop in the midst of one goes on after it, and what is told to go on does so at "
               "once. Now the primary's checkpoint waits until the guest goes on, a stop waits until the checkpoint is over, and a "
               "secondary that can take none says so.",
        test="tests/pair: test_primary_is_stopped, test_stopped_amid_checkpoints, test_secondary_is_in_no_state_for_it, "
             "test_secondary_has_shut_down, test_secondary_disk_is_full",
        edits=(
            Insert("migration/colo.c", "vm_stop_force_state(RUN_STATE_COLO);", within=CHECKPOINT, before=True, text=f"""\
    /* Of a guest that somebody has stopped, a checkpoint is made when it goes on. */
    while (!runstate_is_running()) {{
        if (s->state != MIGRATION_STATUS_COLO ||
            failover_get_state() != FAILOVER_STATUS_NONE) {{
            {host.bql_unlock}
            goto out;
        }}
        qemu_event_reset(&s->colo_checkpoint_event);
        {host.bql_unlock}
        qemu_event_wait(&s->colo_checkpoint_event);
        {host.bql_lock}
    }}
"""),
            Cut("migration/colo.c", "vm_stop_force_state(RUN_STATE_COLO);", "vm_stop_force_state(RUN_STATE_COLO);",
                within=INCOMING_CHECKPOINT, text=f"""\
    if (!secondary_vm_stop(errp)) {{
        {host.bql_unlock}
        return;
    }}
"""),
            Insert("migration/colo.c", INCOMING_CHECKPOINT, before=True, text="""\
/* For a checkpoint, whose state takes the place of the guest's; but requests to a disk that have failed would stay. */
static bool secondary_vm_stop(Error **errp)
{
    static const RunState no_way_from[] = {
        RUN_STATE_IO_ERROR, RUN_STATE_INTERNAL_ERROR, RUN_STATE_GUEST_PANICKED,
        RUN_STATE_DEBUG, RUN_STATE_PRELAUNCH, RUN_STATE_SAVE_VM,
        RUN_STATE_RESTORE_VM
    };
    RunState wanted;

    for (int i = 0; i < ARRAY_SIZE(no_way_from); i++) {
        if (runstate_check(no_way_from[i])) {
            error_setg(errp, "COLO: the guest has been stopped, its state is "
                       "'%s', so it can take no checkpoint",
                       RunState_str(no_way_from[i]));
            return false;
        }
    }
    vm_stop_force_state(RUN_STATE_COLO);
    if (qemu_vmstop_requested(&wanted)) {
        vm_stop(wanted);        /* after the checkpoint */
    }
    if (vm_stop_after_checkpoint() == RUN_STATE_IO_ERROR) {
        error_setg(errp, "COLO: a request to the guest's disk has failed, "
                   "so it can take no checkpoint");
        return false;
    }
    return true;
}

"""),
            Insert("migration/colo.c", "vm_start();", within=INCOMING_CHECKPOINT, before=True, text="""\
    /* Whatever else has happened to the guest has happened to another one. */
    if (vm_stop_after_checkpoint() != RUN_STATE_PAUSED) {
        vm_go_on_after_checkpoint();
    }
"""),
            Insert("migration/colo.c", "/* Make sure VM stopped while failover happened. */", before=True, text="""\
    if (vm_stop_after_checkpoint() != RUN_STATE_SHUTDOWN) {
        vm_go_on_after_checkpoint();
    }
    /* Nor does a way lead from these to running; the primary's end sees to its own shutdown. */
    if (runstate_check(RUN_STATE_INTERNAL_ERROR) ||
        (runstate_check(RUN_STATE_SHUTDOWN) &&
         get_colo_mode() == COLO_MODE_SECONDARY)) {
        runstate_set(RUN_STATE_PAUSED);
    }

"""),
            # The primary need not wait for what will not come.
            Insert("migration/colo.c", "error_report_err(local_err);",
                   within="colo_wait_handle_message(mis, fb, bioc, &local_err);", text="""\
            if (failover_get_state() == FAILOVER_STATUS_NONE) {
                qemu_file_shutdown(mis->to_src_file);
            }
"""),
            Insert(host.runstate, "int vm_stop_force_state(RunState state);", """\

/* What the guest is to be stopped for after COLO's checkpoint; RUN_STATE__MAX: nothing. */
RunState vm_stop_after_checkpoint(void);
/* It is to go on after it, whatever has been said. */
void vm_go_on_after_checkpoint(void);

"""),
            Insert(host.cpus, DO_VM_STOP, before=True, text="""\
static RunState stop_after_checkpoint = RUN_STATE__MAX;

RunState vm_stop_after_checkpoint(void)
{
    return stop_after_checkpoint;
}

void vm_go_on_after_checkpoint(void)
{
    stop_after_checkpoint = RUN_STATE__MAX;
}

"""),
            Insert(host.cpus, "bdrv_drain_all();", within=DO_VM_STOP, before=True, text="""\
    if (runstate_check(RUN_STATE_COLO) && state != RUN_STATE_COLO &&
        state != RUN_STATE_SAVE_VM && state != RUN_STATE_RESTORE_VM) {
        stop_after_checkpoint = state;
    }
"""),
            Insert(host.cpus, "if (!vm_prepare_start(false)) {", within="void vm_start(void)", before=True, text="""\
    RunState wanted = stop_after_checkpoint;

    vm_go_on_after_checkpoint();
"""),
            Insert(host.cpus, "resume_all_vcpus();\n    }\n", within="void vm_start(void)", text="""\
    if (wanted != RUN_STATE__MAX) {
        qemu_system_vmstop_request_prepare();
        qemu_system_vmstop_request(wanted);
    }
"""),
            Replace("monitor/qmp-cmds.c", "vm_start();", within="void qmp_cont(Error **errp)",
                    text="runstate_check(RUN_STATE_COLO) ? vm_go_on_after_checkpoint() : vm_start();"),
        ))


LONE_VCPU = Step(
    name="lone-vcpu",
    reason="TCG makes plain loads and stores of a lone vCPU's locked instructions, since no other vCPU could see "
           "between them. Linux uses one as its memory barrier towards virtio devices, whose thread does run beside "
           "the vCPU: without it, a kick can be lost for good.",
    test="tests/pair: test_locked_instruction_is_atomic",
    edits=(
        Replace("accel/tcg/tcg-accel-ops-mttcg.c", "current_machine->smp.max_cpus > 1",
                text="true /* the devices' threads are others, too */"),
    ))


WAKEUPS_7_2 = chardev_wakeups(
    Insert("chardev/char-io.c", "g_source_add_child_source(source, iwp->src);",
           "        g_source_set_can_recurse(iwp->src, TRUE);\n"),
    Insert("chardev/char-io.c", "g_source_attach(&iwp->parent, context);",
           "    g_source_set_can_recurse(&iwp->parent, TRUE);\n"))

WAKEUPS_10_0 = chardev_wakeups(
    Insert("chardev/char-io.c", "g_source_attach(iwp->src, iwp->context);",
           "        g_source_set_can_recurse(iwp->src, TRUE);\n"))


def _mends(series: str, sync_argument: str, load: str, tlb: Step, input_: Step, translations: Step,
           wakeups: Step) -> tuple[Step, ...]:
    """All of a series: those that are the same for each, and its own."""
    host = SERIES[series]
    return (live_state_lock(host, sync_argument), tlb, MIGRATION_NODELAY, COMMIT_AFTER_LOAD, lost_secondary(host),
            load_without_lock(host, load), input_, QUIET_SECONDARY, translations, CHARDEV_READ_SIZE, wakeups,
            POSITION_LEAK, IDE_RETRY, stopped_guest(host), LONE_VCPU)


MENDS = {
    "7.2": _mends(
        "7.2", sync_argument="rs",
        load="qemu_loadvm_state_main(mis->from_src_file, mis)",
        tlb=TLB_FLUSH_7_2,
        input_=keep_input("migrate_colo_enabled", header="migration.h"),
        translations=keep_translations("cpu.c", indent="    ", last=""),
        wakeups=WAKEUPS_7_2),
    "10.0": _mends(
        "10.0", sync_argument="true",
        load="qemu_loadvm_state_main(mis->from_src_file, mis)",
        tlb=tlb_flush("include/exec/ram_addr.h", tell="cpu_physical_memory_dirty_bits_cleared"),
        input_=keep_input("migrate_colo", header="options.h"),
        translations=keep_translations("hw/core/cpu-system.c", indent="        ", last=" - 1"),
        wakeups=WAKEUPS_10_0),
    "10.2": _mends(
        "10.2", sync_argument="true",
        load="qemu_loadvm_state_main(mis->from_src_file, mis, errp)",
        tlb=tlb_flush("migration/ram.c", tell="physical_memory_dirty_bits_cleared"),
        input_=keep_input("migrate_colo", header="options.h"),
        translations=STALE_TRANSLATIONS,
        wakeups=WAKEUPS_10_0),
}
