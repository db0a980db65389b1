# SPDX-License-Identifier: GPL-2.0-or-later
"""The survivor of a failover is protected in its turn, and its clients' connections survive that, too."""

import socket
import time
import unittest

from colokit import client
from colokit.client import Dripping
from colokit.pairtest import PairTest, usage

TURNS = 2


class RolesTest(PairTest):

    def begin(self, family: socket.AddressFamily) -> Dripping:
        dripping = Dripping(self.pair.network, family)
        dripping.start()
        self.addCleanup(dripping.join)
        self.addCleanup(dripping.over.set)
        return dripping

    def wait_for_answers(self, dripping: list[Dripping], count: int = 20) -> None:
        wanted = [each.answers + count for each in dripping]
        deadline = time.monotonic() + 60
        while any(each.answers < enough and not each.error for each, enough in zip(dripping, wanted)):
            self.assertLess(time.monotonic(), deadline, f"answers: {[each.answers for each in dripping]}")
            time.sleep(0.02)
        self.assertEqual([each.error for each in dripping], [None] * len(dripping))

    def divergences(self) -> int:
        return self.pair.divergences().total()

    def check_refused(self) -> None:
        """Beside an object that maps connections another one may be a primary's only, and only before it."""
        old = self.pair.comparer
        for mode, place, words in (("primary", "", f"insert=before,position=id={old}"),
                                   ("primary", f",position=id={old}", f"insert=before,position=id={old}"),
                                   ("secondary", ",position=head", f"has a colo-proxy already, '{old}'")):
            said = self.pair.secondary.monitor.human(
                f"object_add colo-proxy,id=other,netdev=hn0,queue=all,mode={mode},addr=127.0.0.1:9{place}")
            self.assertIn(words, said)

    def test_twice_round(self) -> None:
        """The secondary takes over and gets a secondary, which takes over, and so on."""
        pair = self.start(checkpoint_delay=2000)
        connections = [self.begin(socket.AF_INET), self.begin(socket.AF_INET6)]
        self.wait_for_answers(connections)
        for turn in range(TURNS):
            # Made now, so that the secondary has numbers of its own for it.
            connections += [self.begin(socket.AF_INET), self.begin(socket.AF_INET6)]
            self.wait_for_answers(connections)
            download = self.download(3_000_000, seed=turn)
            pair.primary.kill()
            pair.failover()
            self.wait_for_answers(connections)
            self.assert_complete(download)
            if usage() == "proxy":
                self.check_refused()
            pair.change_roles()
            self.wait_for_answers(connections)
            # The new secondary knows the connections: they are no reason for checkpoints.
            before = self.divergences()
            self.wait_for_answers(connections, 50)
            self.assertLessEqual(self.divergences(), before + 2)
        pair.primary.kill()
        pair.failover()
        self.wait_for_answers(connections)
        self.assertEqual(client.request(pair.network, "/"), b"ready\n")
        self.assert_guests_well()

    def test_idle(self) -> None:
        """A connection on which nothing happens is there after a second failover, however soon that comes."""
        pair = self.start()
        with client.connect(pair.network) as connection:
            request = b"GET / HTTP/1.1\r\nHost: guest\r\n\r\n"
            for turn in range(TURNS):
                connection.sendall(request)
                status, _, answer = client.read_header(connection)
                self.assertEqual((status, answer), (200, b"ready\n"))
                pair.primary.kill()
                pair.failover()
                pair.change_roles()
                pair.wait_checkpoints(1, 5)         # nobody has a reason to ask for one
            connection.sendall(request)
            self.assertEqual(client.read_header(connection)[2], b"ready\n")


if __name__ == "__main__":
    unittest.main()
