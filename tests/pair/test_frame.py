# SPDX-License-Identifier: GPL-2.0-or-later
"""The frame with the host's faults mended: one test for each mend, failing without it."""

import re
import socket
import struct
import time
import unittest

from colokit import client
from colokit.machine import Failure, wait_until
from colokit.pair import COMPARE_PORT, LOCAL_PORTS, MIGRATION_PORT, MIRROR_PORT
from colokit.pairtest import PairTest, SharedPairTest, connections_of, usage
from colokit.process import Qemu

PEER_TIMEOUT = 1000     # ms
LOOK = 2.5              # s; what has not come by then does not come
AT_ONCE = 2.5           # s; less than the time after which a secondary is silent
STOPS = 30


def announcements(capture: bytes, mac: str) -> list[str]:
    """What a pcap file has of a guest telling of itself unasked."""
    address = bytes.fromhex(mac.replace(":", ""))
    found = []
    at = 24
    while at + 16 <= len(capture):
        length = struct.unpack_from("<I", capture, at + 8)[0]
        frame = capture[at + 16:at + 16 + length]
        at += 16 + length
        # A virtio-net header may come first.
        for header in (0, 10, 12):
            if frame[header + 6:header + 12] == address:
                frame = frame[header:]
                break
        kind = frame[12:14]
        if kind == b"\x08\x06" and frame[28:32] == frame[38:42]:
            found.append("gratuitous ARP")
        elif kind == b"\x80\x35":
            found.append("RARP")
        elif kind == b"\x86\xdd" and frame[:2] == b"\x33\x33":
            found.append("IPv6 multicast " + frame[14:].hex())
    return found


class CheckpointTest(SharedPairTest):
    """What can be seen of checkpoints as they come and go."""

    options = {"checkpoint_delay": 300}

    def test_first_checkpoint(self) -> None:
        """Ten checkpoints pass, and the guest serves; without the mend the first never ends."""
        self.pair.wait_checkpoints(10, timeout=30)
        self.assert_complete(self.download(1_000_000))

    def assert_nodelay(self, qemu: Qemu, count: int, *ports: int) -> None:
        connections = connections_of(qemu, *ports)
        self.assertEqual(len(connections), count, f"connections of the {qemu.role} on {ports}")
        for each in connections:
            with each:
                self.assertEqual(each.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY), 1,
                                 f"a socket of the {qemu.role} on one of {ports} waits for more to send")

    def test_migration_sockets_are_nodelay(self) -> None:
        for qemu in self.pair.processes():
            self.assert_nodelay(qemu, 1, MIGRATION_PORT)

    def test_packets_leave_at_once(self) -> None:
        """Nothing that carries packets waits for a delayed acknowledgement, though none says nodelay."""
        if self.pair.options.usage == "proxy":
            self.assert_nodelay(self.pair.primary, 1, MIRROR_PORT)
            self.assert_nodelay(self.pair.secondary, 1, MIRROR_PORT)
            return
        self.assert_nodelay(self.pair.primary, 2, MIRROR_PORT, COMPARE_PORT)
        self.assert_nodelay(self.pair.primary, 4, *LOCAL_PORTS)     # both ends are its own
        self.assert_nodelay(self.pair.secondary, 2, MIRROR_PORT, COMPARE_PORT)

    def test_output_waits_for_load(self) -> None:
        """What compares hears of a checkpoint only after the secondary has loaded it."""
        self.pair.wait_checkpoints(5)
        steps = [found.group(1) or "told" for line in self.pair.primary.trace()
                 if (found := re.search(r"colo_receive_message Receive '(vmstate-\w+)'|"
                                        r"colo_(?:compare|proxy)_event .*checkpoint", line))]
        self.assertGreaterEqual(steps.count("told"), 4)
        for before, step in zip(steps, steps[1:]):
            if step == "told":
                self.assertEqual(before, "vmstate-loaded")

    def test_secondary_stays_quiet(self) -> None:
        """The secondary's guest does not announce itself after checkpoints."""
        monitor = self.pair.secondary.monitor
        capture = self.pair.directory / "secondary-sends.pcap"
        # The last of the filters is the first to see what the guest sends.
        monitor.command("object-add", qom_type="filter-dump", id="dump0", netdev="hn0",
                        queue="rx", file=str(capture))
        try:
            seen = self.pair.checkpoints()
            self.pair.wait_checkpoints(seen + 5)
            client.request(self.pair.network)
            self.pair.wait_checkpoints(seen + 10)
        finally:
            monitor.command("object-del", id="dump0")
        sent = capture.read_bytes()
        self.assertIn(bytes.fromhex(self.pair.network.guest_mac.replace(":", "")), sent, "what it answers is recorded")
        self.assertEqual(announcements(sent, self.pair.network.guest_mac), [])


class StoppedTest(PairTest):

    def test_secondary_is_stopped_by_hand(self) -> None:
        """That it resumes then is no checkpoint: in the epochs to come its output is compared with the primary's of the same."""
        pair = self.start(checkpoint_delay=3_600_000)
        pair.secondary.monitor.command("stop")
        pair.secondary.monitor.command("cont")
        for _ in range(3):
            seen = pair.checkpoints()
            pair.primary.monitor.command("migrate-set-parameters", x_checkpoint_delay=3_600_000)     # makes one at once
            pair.wait_checkpoints(seen + 1)
            client.request(pair.network)
        divergences = pair.divergences()
        self.assertEqual(divergences["timeout"], 0, divergences)


    def test_primary_is_stopped(self) -> None:
        """No checkpoint is made of a guest that somebody has stopped, whatever for; the one that was due is made when it goes on."""
        quick = f"peer_timeout={PEER_TIMEOUT}" if usage() == "current" else ""
        pair = self.start(checkpoint_delay=100, compare=quick)
        monitor = pair.primary.monitor
        pair.wait_checkpoints(2)
        for reset in (False, True):
            monitor.command("stop")
            if reset:       # from the state that follows there is no way to a checkpoint's
                monitor.command("system_reset")
                wait_until(lambda: monitor.command("query-status")["status"] == "prelaunch", 5, "the reset")
            with self.assertRaisesRegex(Failure, "no event COLO_EXIT"):
                monitor.wait_event("COLO_EXIT", LOOK)
            self.assertEqual(monitor.command("query-status")["status"], "prelaunch" if reset else "paused")
            monitor.command("migrate-set-parameters", x_checkpoint_delay=3_600_000)     # nobody else asks for the next
            seen = pair.checkpoints()
            monitor.command("cont")
            pair.wait_checkpoints(seen + 1, timeout=5)
            monitor.command("migrate-set-parameters", x_checkpoint_delay=100)
            pair.wait_checkpoints(seen + 3)
        self.assertEqual(monitor.command("query-colo-status")["mode"], "primary")

    def test_stopped_amid_checkpoints(self) -> None:
        """Whoever says stop in the midst of a checkpoint means it, too."""
        pair = self.start(checkpoint_delay=10)
        monitor = pair.primary.monitor
        for _ in range(STOPS):
            monitor.command("stop")
            wait_until(lambda: monitor.command("query-status")["status"] == "paused", 5, "the stop")
            monitor.command("cont")
            wait_until(lambda: monitor.command("query-status")["status"] == "running", 5, "the guest to go on")
        client.request(pair.network)
        self.assert_guests_well()

    def test_secondary_is_in_no_state_for_it(self) -> None:
        """One that cannot take a checkpoint says so; the primary goes on alone at once, and the secondary can still take over."""
        pair = self.start(checkpoint_delay=3_600_000)
        secondary = pair.secondary.monitor
        secondary.command("stop")
        secondary.command("system_reset")
        wait_until(lambda: secondary.command("query-status")["status"] == "prelaunch", 5, "the reset")
        pair.primary.monitor.command("migrate-set-parameters", x_checkpoint_delay=3_600_000)
        pair.primary.monitor.wait_event("COLO_EXIT", AT_ONCE)
        client.request(pair.network)
        self.assertIn("its state is 'prelaunch'", pair.secondary.output())
        self.assertEqual(secondary.command("query-status")["status"], "prelaunch")
        pair.protect_again()
        client.request(pair.network)


    def test_secondary_has_shut_down(self) -> None:
        """From there no way leads to running, save by a failover."""
        pair = self.start(checkpoint_delay=3_600_000, more={"secondary": ["-action", "reboot=shutdown,shutdown=pause"]})
        secondary = pair.secondary.monitor
        secondary.command("system_reset")
        wait_until(lambda: secondary.command("query-status")["status"] == "shutdown", 5, "the shutdown")
        pair.primary.kill()
        pair.failover()
        self.assertEqual(client.request(pair.network), b"ready\n")
        self.assert_guests_well()


class MemoryTest(PairTest):

    def test_secondary_memory_is_rolled_back(self) -> None:
        """A guest that checks its memory finds it whole after many checkpoints."""
        pair = self.start(checkpoint_delay=300, run="memory")
        pair.wait_checkpoints(25, timeout=60)
        self.assert_guests_well()
        pair.primary.kill()
        pair.failover()

        def reports() -> int:
            return len(re.findall(r"memory: \d+ rounds, 0 corrupt", pair.secondary.console()))

        before = reports()
        wait_until(lambda: reports() > before + 1, 60, "the memory check to go on")
        self.assert_guests_well()


class TranslationsTest(PairTest):

    def test_secondary_keeps_its_translations(self) -> None:
        """TCG does not translate everything anew after each checkpoint."""
        pair = self.start(checkpoint_delay=200)

        def flushes() -> int:
            return int(re.search(r"TB flush count +(\d+)", pair.secondary.monitor.human("info jit"))[1])

        pair.wait_checkpoints(2)
        before = flushes()
        pair.wait_checkpoints(pair.checkpoints() + 5)
        self.assertEqual(flushes(), before)

    def test_secondary_runs_its_new_code(self) -> None:
        """... but what has changed: a guest that writes code runs what it has written, on both sides and after a failover."""
        pair = self.start(checkpoint_delay=100, run="code")

        def reports(qemu: Qemu) -> int:
            return len(re.findall(r"code: \d+ rounds, none stale", qemu.console()))

        for qemu in pair.processes():
            seen = reports(qemu)
            wait_until(lambda: reports(qemu) > seen + 1, 60, f"the {qemu.role}'s code check to go on")
        pair.wait_checkpoints(30)
        self.assert_guests_well()
        pair.primary.kill()
        pair.failover()
        before = reports(pair.secondary)
        wait_until(lambda: reports(pair.secondary) > before + 1, 60, "the code check to go on")
        self.assert_guests_well()


class LostSecondaryTest(PairTest):

    def test_primary_survives_lost_secondary(self) -> None:
        """The secondary dies: the primary goes on at once, told or not."""
        pair = self.start()
        download = self.download(60_000_000)
        download.wait_for(20_000_000)
        killed = time.monotonic()
        pair.secondary.kill()
        self.assert_complete(download)
        self.assertLess(download.gap(killed), 5.0)
        self.assertTrue(pair.primary.monitor.command("query-status")["running"])
        pair.failover()
        self.assert_complete(self.download(1_000_000, seed=1))
        self.assert_guests_well()


if __name__ == "__main__":
    unittest.main()
