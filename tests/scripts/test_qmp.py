#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of the connection to a monitor, with monitors that behave as QEMU's do at times."""

import json
import socket
import sys
import tempfile
import threading
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from colokit.machine import Failure             # noqa: E402
from colokit.qmp import ATTEMPTS, Monitor       # noqa: E402

GREETING = {"QMP": {"version": {"qemu": {"micro": 0, "minor": 0, "major": 0}, "package": ""}, "capabilities": []}}
EVENT = {"event": "RESUME", "timestamp": {"seconds": 0, "microseconds": 0}}


class FakeMonitor(threading.Thread):
    """Sends an event too early, on so many connections: before its greeting, or its first answer; later ones are as they should be."""

    def __init__(self, path: Path, hasty: int, greets: bool):
        super().__init__(daemon=True)
        self.hasty = hasty
        self.greets = greets            # before the event
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(str(path))
        self.server.listen(8)

    def run(self) -> None:
        while True:
            try:
                connection, _ = self.server.accept()
            except OSError:
                return
            with connection:
                def say(what: dict) -> None:
                    connection.sendall(json.dumps(what).encode() + b"\n")
                try:
                    if self.hasty and not self.greets:
                        say(EVENT)
                    say(GREETING)
                    while text := connection.recv(4096):    # the client waits for each answer
                        if self.hasty and self.greets:
                            say(EVENT)
                        request = json.loads(text)
                        if request["execute"] == "quit":
                            break
                        say({"return": {}, **({"id": request["id"]} if "id" in request else {})})
                except OSError:
                    pass                        # it has hung up
                self.hasty = max(self.hasty - 1, 0)

    def close(self) -> None:
        self.server.shutdown(socket.SHUT_RDWR)
        self.server.close()


class QmpTest(unittest.TestCase):

    def connect(self, hasty: int = 0, greets: bool = True) -> Monitor:
        path = Path(self.enterContext(tempfile.TemporaryDirectory())) / "qmp"
        server = FakeMonitor(path, hasty, greets)
        server.start()
        self.addCleanup(server.close)
        monitor = Monitor(path, "fake", lambda: "it was told to")
        self.addCleanup(monitor.close)
        return monitor

    def test_event_before_the_greeting(self) -> None:
        self.check(greets=False)

    def test_event_before_the_answer(self) -> None:
        self.check(greets=True)

    def test_gone(self) -> None:
        """Whoever knows how it has ended is asked."""
        with self.assertRaisesRegex(Failure, "fake: quit: the monitor has gone; it was told to"):
            self.connect().command("quit")

    def check(self, greets: bool) -> None:
        for hasty in (0, 1, ATTEMPTS - 1):
            self.assertEqual(self.connect(hasty, greets).command("query-status"), {})
        with self.assertRaisesRegex(Failure, "cannot connect"):
            self.connect(ATTEMPTS, greets)


if __name__ == "__main__":
    unittest.main()
