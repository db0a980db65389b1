# SPDX-License-Identifier: GPL-2.0-or-later
"""Input that comes while checkpoints are made."""

import socket
import struct
import threading
import time
import unittest
from typing import Callable

from colokit.client import SO_RCVBUFFORCE, _checksum
from colokit.network import Network
from colokit.pairtest import PairTest

WINDOW = 60             # pings under way; Linux drops its answers when it has some 200 to send
SECONDS = 8.0
BEGINNINGS = 6
PATIENCE = 5.0          # seconds without an answer until what is missing counts as lost


def ping_without_pause(sock: socket.socket, goes_on: Callable[[], bool], identifier: int = 4711) -> set[int]:
    """Keep WINDOW pings under way for that long; the numbers of those that are never answered."""
    missing: set[int] = set()
    number = 0
    sock.settimeout(PATIENCE)
    while goes_on() or missing:
        while len(missing) < WINDOW and goes_on():
            body = struct.pack("!HHI", identifier, number & 0xffff, number) + bytes(48)
            sock.send(struct.pack("!BBH", 8, 0, _checksum(b"\x08\0\0\0" + body)) + body)
            missing.add(number)
            number += 1
        try:
            packet = sock.recv(65536)
        except TimeoutError:
            break
        icmp = packet[(packet[0] & 15) * 4:]
        kind, _, _, answered, _, which = struct.unpack_from("!BBHHHI", icmp)
        if kind == 0 and answered == identifier:
            missing.discard(which)
    return missing


class InputTest(PairTest):

    def socket_in(self, network: Network) -> socket.socket:
        """For pings."""
        with network.client.entered():
            sock = self.enterContext(socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP))
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 26)
        sock.connect((network.guest_address, 0))
        return sock

    def test_checkpoints_lose_no_input(self) -> None:
        """Every ping is answered, though there is one to be read whenever the guest is stopped."""
        pair = self.start(checkpoint_delay=50)
        sock = self.socket_in(pair.network)
        end = time.monotonic() + SECONDS
        seen = pair.checkpoints()
        missing = ping_without_pause(sock, lambda: time.monotonic() < end)
        self.assertEqual(missing, set(), f"logs: {pair.directory}")
        self.assertGreater(pair.checkpoints() - seen, 50)
        self.assert_guests_well()

    def test_the_beginning_loses_no_input(self) -> None:
        """The same while one secondary after the other is made the guest's copy."""
        pair = self.start(checkpoint_delay=100_000)
        sock = self.socket_in(pair.network)
        over = threading.Event()
        missing: list[set[int]] = []
        pinger = threading.Thread(target=lambda: missing.append(ping_without_pause(sock, lambda: not over.is_set())))
        pinger.start()
        self.addCleanup(pinger.join)
        self.addCleanup(over.set)
        for _ in range(BEGINNINGS):
            pair.secondary.kill()
            pair.primary.monitor.wait_event("COLO_EXIT", 10)
            pair.protect_again()
        over.set()
        pinger.join()
        self.assertEqual(missing, [set()], f"logs: {pair.directory}")
        self.assert_guests_well()


if __name__ == "__main__":
    unittest.main()
