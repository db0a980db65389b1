# SPDX-License-Identifier: GPL-2.0-or-later
"""A primary that falls silent while the secondary reads a checkpoint."""

import fcntl
import re
import struct
import termios
import time
import unittest

from colokit.machine import Failure, wait_until
from colokit.pair import MIGRATION_PORT, Pair
from colokit.pairtest import PairTest, connections_of

ATTEMPTS = 40


def on_the_way(pair: Pair) -> int:
    """Bytes of the frame's that have not been acknowledged by the secondary's host, or not been read by its QEMU."""
    total = 0
    for qemu, waiting in ((pair.primary, termios.TIOCOUTQ), (pair.secondary, termios.FIONREAD)):
        for connection in connections_of(qemu, MIGRATION_PORT):
            with connection:
                total += struct.unpack("i", fcntl.ioctl(connection, waiting, bytes(4)))[0]
    return total


def stop_in_mid_transfer(pair: Pair) -> None:
    """Stop the primary's process after it has begun to send its memory, and before it has ended."""
    def messages() -> list[str]:
        return re.findall(r"colo_(?:receive|send)_message \w+ '([\w-]+)'", "\n".join(pair.secondary.trace()))

    for _ in range(ATTEMPTS):
        seen = len(messages())
        deadline = time.monotonic() + 10
        while not (new := messages()[seen:]) or new[-1] != "vmstate-send":     # no pause: it is over in no time
            if time.monotonic() > deadline:
                raise Failure("no checkpoint began within 10 s")
        pair.primary.stop()
        # What was on its way is read; whatever is still missing then never comes.
        wait_until(lambda: not on_the_way(pair), 10, "the secondary to read what has come")
        time.sleep(0.2)         # and told in the trace
        if messages()[-1] == "vmstate-send":
            return
        pair.primary.cont()
    raise Failure(f"not caught in mid-transfer in {ATTEMPTS} attempts")


class SilentPrimaryTest(PairTest):

    def test_failover_while_loading(self) -> None:
        """The monitor answers, the failover works, and the state of before goes on."""
        pair = self.start(checkpoint_delay=200, run="memory")
        pair.wait_checkpoints(3)
        stop_in_mid_transfer(pair)
        pair.secondary.monitor.command("query-status", 2.0)
        pair.primary.kill()
        pair.failover()
        self.assert_complete(self.download(1_000_000))

        def reports() -> int:
            return len(re.findall(r"memory: \d+ rounds, 0 corrupt", pair.secondary.console()))

        before = reports()
        wait_until(lambda: reports() > before + 1, 60, "the memory check to go on")
        self.assert_guests_well()


if __name__ == "__main__":
    unittest.main()
