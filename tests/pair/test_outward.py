# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest that is itself a client: it connects to servers, and asks them, from whatever port it takes."""

import random
import socket
import threading
import unittest

from colokit import client
from colokit.machine import wait_until
from colokit.pairtest import PairTest

RELAY_PORT, ASK_PORT = 5000, 5001
QUESTIONS = 20_000    # at most
RANDOM = 20         # of them, after which the two copies have different random numbers


class OutwardTest(PairTest):

    def setUp(self) -> None:
        self.pair = self.start()
        with self.pair.network.client.entered():
            address = self.pair.network.client_address
            self.listener = socket.create_server((address, RELAY_PORT))
            self.questions = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.questions.bind((address, ASK_PORT))
        self.sent = 0
        for serve in (self.serve_bytes, self.serve_answers):
            threading.Thread(target=serve, daemon=True).start()
        self.addCleanup(self.listener.close)
        self.addCleanup(self.questions.close)

    @staticmethod
    def content(size: int) -> bytes:
        return random.Random(size).randbytes(size)

    def serve_bytes(self) -> None:
        try:
            while True:
                connection = self.listener.accept()[0]
                with connection, connection.makefile() as lines:
                    content = self.content(int(lines.readline()))
                    for at in range(0, len(content), 100_000):
                        connection.sendall(content[at:at + 100_000])
                        self.sent += 100_000
        except OSError:
            pass            # the test is over

    def serve_answers(self) -> None:
        try:
            while True:
                question, who = self.questions.recvfrom(2000)
                self.questions.sendto(question, who)
        except OSError:
            pass

    def test_connection_survives(self) -> None:
        """One that the guest has opened, and the one that it serves from it, in a failover."""
        answers = []
        asking = threading.Thread(target=lambda: answers.append(client.request(self.pair.network, f"/relay/{RELAY_PORT}/20000000")))
        asking.start()
        self.addCleanup(asking.join)
        wait_until(lambda: self.sent > 2_000_000, 30, "a part of what is relayed")
        self.assertEqual(answers, [])
        self.pair.primary.kill()
        self.pair.failover()
        asking.join(60)
        self.assertEqual([len(answer) for answer in answers], [20_000_000])
        self.assertEqual(answers[0], self.content(20_000_000))
        self.assertEqual(client.request(self.pair.network, f"/relay/{RELAY_PORT}/1000"), self.content(1000))
        self.assertEqual(client.request(self.pair.network, f"/ask/{ASK_PORT}"), b"ready\n")
        self.assert_guests_well()

    def test_questions_from_other_ports(self) -> None:
        """The two copies ask from different ports: nobody waits for compare_timeout because of it."""
        asked = 0
        while self.pair.divergences()["payload"] < RANDOM and asked < QUESTIONS:
            self.assertEqual(client.request(self.pair.network, f"/ask/{ASK_PORT}"), b"ready\n")
            asked += 1
        divergences = self.pair.divergences()
        self.assertGreaterEqual(divergences["payload"], RANDOM, divergences)
        self.assertLess(divergences["timeout"], RANDOM // 4, divergences)
        self.assert_guests_well()


if __name__ == "__main__":
    unittest.main()
