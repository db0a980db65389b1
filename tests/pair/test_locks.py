# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest whose clients contend for a lock, as a database's do: its copies may give it to different ones."""

import select
import socket
import unittest

from colokit import client
from colokit.pairtest import PairTest

CLIENTS = 2
DIVERGENCES = 10
ROUNDS = 1000       # at most


class LocksTest(PairTest):

    def setUp(self) -> None:
        self.pair = self.start()
        self.clients = [client.connect(self.pair.network) for _ in range(CLIENTS)]
        for each in self.clients:
            self.addCleanup(each.close)

    @staticmethod
    def ask(sock: socket.socket, path: str) -> None:
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: guest\r\n\r\n".encode())

    def assert_answered(self, sock: socket.socket) -> None:
        status, length, rest = client.read_header(sock)
        while len(rest) < length:
            rest += sock.recv(length - len(rest))
        self.assertEqual((status, rest), (200, b"ready\n"))

    def test_lock_given_to_another(self) -> None:
        """Each copy waits for the client that it has answered: nobody waits for compare_timeout because of it."""
        for rounds in range(ROUNDS):
            divergences = self.pair.divergences()
            if divergences["payload"] >= DIVERGENCES or divergences["timeout"]:
                break
            waiting = list(self.clients)
            for each in waiting:
                self.ask(each, "/lock")
            while waiting:
                ready = select.select(waiting, [], [], client.TIMEOUT)[0]
                self.assertEqual(len(ready), 1, "how many have been given the lock")
                self.assert_answered(ready[0])
                self.ask(ready[0], "/unlock")
                self.assert_answered(ready[0])
                waiting.remove(ready[0])
        self.assertGreaterEqual(divergences["payload"], DIVERGENCES, f"{divergences} in {rounds} rounds")
        self.assertEqual(divergences["timeout"], 0, divergences)
        self.assert_guests_well()


if __name__ == "__main__":
    unittest.main()
