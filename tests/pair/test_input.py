# SPDX-License-Identifier: GPL-2.0-or-later
"""Input that comes while checkpoints are made."""

import socket
import struct
import time
import unittest

from colokit.client import SO_RCVBUFFORCE, _checksum
from colokit.pairtest import PairTest

WINDOW = 60             # pings under way; Linux drops its answers when it has some 200 to send
SECONDS = 8.0
PATIENCE = 5.0          # seconds without an answer until what is missing counts as lost


def ping_without_pause(sock: socket.socket, seconds: float, identifier: int = 4711) -> set[int]:
    """Keep WINDOW pings under way for that long; the numbers of those that are never answered."""
    missing: set[int] = set()
    number = 0
    sock.settimeout(PATIENCE)
    end = time.monotonic() + seconds
    while time.monotonic() < end or missing:
        while len(missing) < WINDOW and time.monotonic() < end:
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

    def test_checkpoints_lose_no_input(self) -> None:
        """Every ping is answered, though there is one to be read whenever the guest is stopped."""
        pair = self.start(checkpoint_delay=50)
        with pair.network.client.entered():
            sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        with sock:
            sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 26)
            sock.connect((pair.network.guest_address, 0))
            seen = pair.checkpoints()
            missing = ping_without_pause(sock, SECONDS)
        self.assertEqual(missing, set(), f"logs: {pair.directory}")
        self.assertGreater(pair.checkpoints() - seen, 50)
        self.assert_guests_well()


if __name__ == "__main__":
    unittest.main()
