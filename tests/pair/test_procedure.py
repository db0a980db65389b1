# SPDX-License-Identifier: GPL-2.0-or-later
"""The procedure of the host's docs/COLO-FT.txt, with disks: both failovers, resuming on either, roles reversed, twice round."""

import contextlib
import ctypes
import os
import socket
import struct
import time
import unittest
from pathlib import Path
from typing import Iterator

from colokit import client
from colokit.client import Writer
from colokit.machine import Failure, output_of, wait_until
from colokit.network import Network
from colokit.pairtest import connections_of, emulator, usage
from colokit.procedure import NBD_PORT, Procedure
from colokit.process import Qemu

SO_ATTACH_FILTER = 26       # the socket module does not name it
NOTICED = 20.0              # s; compare_timeout, the time until a secondary is silent, and what a slow machine adds


def make_deaf(connection: socket.socket) -> None:
    """Nothing that comes on it is taken any more, nor acknowledged: a filter of one instruction, to return 0."""
    instruction = ctypes.create_string_buffer(struct.pack("=HBBI", 0x06, 0, 0, 0))
    connection.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("@HP", 1, ctypes.addressof(instruction)))


@contextlib.contextmanager
def disk_of_its_own(path: Path) -> Iterator[None]:
    """One whose size can be changed."""
    output_of(["mount", "-t", "tmpfs", "-o", "size=1g", "colo", path])
    try:
        yield
    finally:
        output_of(["umount", "--lazy", path])


class ProcedureTest(unittest.TestCase):

    def setUp(self) -> None:
        network = self.enterContext(Network())
        self.nodes = self.enterContext(Procedure(emulator(), network, proxy=usage() == "proxy"))
        self.enterContext(disk_of_its_own(self.nodes.images("secondary")))
        self.nodes.start()
        self.writer = Writer(network)
        self.writer.start()
        self.addCleanup(self.writer.join)
        self.addCleanup(self.writer.over.set)
        self.connections: list[client.Dripping] = []
        self.connect()
        self.go_on()

    def connect(self) -> None:
        """One more connection that is to last."""
        dripping = client.Dripping(self.nodes.network, socket.AF_INET)
        dripping.start()
        self.addCleanup(dripping.join)
        self.addCleanup(dripping.over.set)
        self.connections.append(dripping)

    @contextlib.contextmanager
    def explained(self) -> Iterator[None]:
        """What fails in here tells where everybody stood."""
        try:
            yield
        except Failure as failure:
            self.fail(f"{failure}\n{self.nodes.situation()}")

    def go_on(self, timeout: float = 60.0) -> None:
        """Everybody gets more answers."""
        with self.explained():
            self.wait_for_answers(timeout)

    def wait_for_answers(self, timeout: float) -> None:
        wanted = [each.answers + 10 for each in self.connections]
        files = self.writer.version + 30
        wait_until(lambda: self.writer.error or self.writer.version >= files, timeout, "further files")
        wait_until(lambda: all(each.error or each.answers >= enough for each, enough in zip(self.connections, wanted)),
                   timeout, "answers on the connections")
        errors = [each.error for each in (self.writer, *self.connections) if each.error]
        if errors:
            raise Failure("\n".join(errors))

    def fail_over(self, victim: str) -> None:
        """Kill one in the middle of the work; what was on the disk is, and the service goes on."""
        getattr(self.nodes, victim).kill()
        kept = dict(self.writer.kept)
        with self.explained():
            self.nodes.fail_over()
        self.go_on()
        files = {number: client.request(self.nodes.network, f"/disk/{number}") for number in kept}
        self.assertEqual(self.writer.wrong_in(files, kept), [], "files as the guest reads them")
        kept = dict(self.writer.kept)
        self.assertEqual(self.writer.wrong_in(self.nodes.files_on_disk(), kept), [], "files as they are on the disk")
        self.go_on()

    def resume(self) -> None:
        with self.explained():
            self.nodes.resume()
        self.connect()
        self.go_on()

    def test_primary_dies(self) -> None:
        """The secondary takes over and is given a secondary, on the other node, and that takes over: twice round."""
        for _ in range(3):
            self.fail_over("primary")
            self.resume()
        self.fail_over("primary")
        self.assertEqual(self.nodes.trouble(), [])

    def test_secondary_dies(self) -> None:
        """The primary goes on alone and is given another secondary, twice; the last one takes over, and loses one in its turn."""
        for _ in range(2):
            self.fail_over("secondary")
            self.resume()
        self.fail_over("primary")
        self.resume()
        self.fail_over("secondary")
        self.resume()
        self.fail_over("primary")
        self.assertEqual(self.nodes.trouble(), [])

    def notice(self) -> None:
        """The secondary is still there in some way: nobody but the primary itself can say that it goes on without."""
        with self.explained():
            self.nodes.primary.monitor.wait_event("COLO_EXIT", NOTICED)
        self.go_on(NOTICED)

    def replace_secondary(self) -> None:
        """By another one, which takes over."""
        self.fail_over("secondary")
        self.resume()
        self.fail_over("primary")
        self.assertEqual(self.nodes.trouble(), [])

    def go_on_alone(self) -> None:
        self.notice()
        self.replace_secondary()

    def checkpoint_often(self) -> None:
        """What is noticed at the next checkpoint is noticed soon."""
        self.nodes.primary.monitor.command("migrate-set-parameters", x_checkpoint_delay=2000)

    def replicas(self, qemu: Qemu) -> list[socket.socket]:
        """Its ends of the connections between the disk and its copy."""
        connections = connections_of(qemu, NBD_PORT)
        for connection in connections:
            self.addCleanup(connection.close)
        return connections

    def test_secondary_freezes(self) -> None:
        """Its disk is no answer to wait for, either."""
        self.nodes.secondary.stop()
        self.go_on_alone()

    def test_frozen_while_all_waits(self) -> None:
        """A command of the monitor's waits for all disks, and with it the main loop: no heartbeat is looked for meanwhile."""
        self.nodes.secondary.stop()
        wait_until(self.writer_waits, NOTICED, "a write that waits for the secondary's disk")
        self.nodes.primary.monitor.command("stop", NOTICED)
        self.nodes.primary.monitor.command("cont")
        self.go_on_alone()

    def writer_waits(self) -> bool:
        """Many times as long as a file takes, and none is done."""
        before = self.writer.version
        time.sleep(0.2)
        return self.writer.version == before

    def test_replica_falls_silent(self) -> None:
        """Its disk only: at the next checkpoint the primary waits for that, with the big lock held."""
        self.checkpoint_often()
        connections = self.replicas(self.nodes.secondary)
        self.assertTrue(connections)
        for connection in connections:
            make_deaf(connection)
        self.go_on_alone()

    def test_secondary_disk_is_full(self) -> None:
        """Its guest is stopped for that, and can take no checkpoint."""
        secondary, disk = self.nodes.secondary, self.nodes.images("secondary")
        self.nodes.primary.monitor.command("migrate-set-parameters", x_checkpoint_delay=3_600_000)     # which would make room again
        secondary.stop()        # nothing is added meanwhile
        there = os.statvfs(disk)
        output_of(["mount", "-o", f"remount,size={(there.f_blocks - there.f_bfree) * there.f_frsize}", disk])
        secondary.cont()
        with self.explained():
            wait_until(lambda: secondary.monitor.command("query-status")["status"] == "io-error"
                       or "it can take no checkpoint" in secondary.output(), NOTICED, "a disk that is full")
        self.checkpoint_often()
        self.notice()
        self.assertIn("it can take no checkpoint", secondary.output())
        output_of(["mount", "-o", "remount,size=1g", disk])
        self.replace_secondary()

    def test_frame_breaks(self) -> None:
        """The frame's connection only: a copy that is none any more is not to be written."""
        self.checkpoint_often()
        self.nodes.primary.monitor.command("yank", instances=[{"type": "migration"}])
        wait_until(lambda: not self.replicas(self.nodes.primary), NOTICED, "the disk's parting from its copy")
        self.go_on_alone()


if __name__ == "__main__":
    unittest.main()
