# SPDX-License-Identifier: GPL-2.0-or-later
"""The procedure of the host's docs/COLO-FT.txt, with disks: both failovers, resuming on either, roles reversed, twice round."""

import contextlib
import socket
import unittest
from typing import Iterator

from colokit import client
from colokit.client import Writer
from colokit.machine import Failure
from colokit.network import Network
from colokit.pair import wait_until
from colokit.pairtest import emulator, usage
from colokit.procedure import Procedure

class ProcedureTest(unittest.TestCase):

    def setUp(self) -> None:
        network = self.enterContext(Network())
        self.nodes = self.enterContext(Procedure(emulator(), network, proxy=usage() == "proxy"))
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

    def go_on(self) -> None:
        """Everybody gets more answers."""
        with self.explained():
            self.wait_for_answers()

    def wait_for_answers(self) -> None:
        wanted = [each.answers + 10 for each in self.connections]
        files = self.writer.version + 30
        wait_until(lambda: self.writer.error or self.writer.version >= files, 60, "further files")
        wait_until(lambda: all(each.error or each.answers >= enough for each, enough in zip(self.connections, wanted)),
                   60, "answers on the connections")
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


if __name__ == "__main__":
    unittest.main()
