# SPDX-License-Identifier: GPL-2.0-or-later
"""What the tests in tests/pair/ have in common.

Each of their files runs by itself, too:

    PYTHONPATH=scripts python3 -m unittest -v tests/pair/test_download.py

as root, with the emulator of scripts/build-qemu or the one in COLO_QEMU, and with
the four objects or what COLO_USAGE says.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import sys
import unittest
from pathlib import Path
from typing import Any

from .client import Download
from .machine import BUILD, Failure
from .pair import Pair, running
from .process import Qemu
from .series import own_series

SYS_PIDFD_GETFD = 438

_libc = ctypes.CDLL(None, use_errno=True)


def emulator() -> Path:
    """The emulator to be tested."""
    return Path(os.environ.get("COLO_QEMU") or BUILD / f"qemu-{own_series()}/build/qemu-system-x86_64").resolve()


def seconds_from(variable: str, default: float) -> float:
    """How long a test lasts, where the environment may say so."""
    return float(os.environ.get(variable, default))


def usage() -> str:
    """How the guests are protected where a test does not say: the four objects, or colo-proxy."""
    return os.environ.get("COLO_USAGE") or "current"


def sockets_of(qemu: Qemu) -> list[socket.socket]:
    """Copies of a process's open sockets."""
    sockets = []
    pidfd = os.pidfd_open(qemu.pid)
    try:
        for entry in Path(f"/proc/{qemu.pid}/fd").iterdir():
            try:
                if not os.readlink(entry).startswith("socket:"):
                    continue
            except FileNotFoundError:
                continue
            copy = _libc.syscall(SYS_PIDFD_GETFD, pidfd, int(entry.name), 0)
            if copy >= 0:
                sockets.append(socket.socket(fileno=copy))
    finally:
        os.close(pidfd)
    return sockets


def connections_of(qemu: Qemu, *ports: int) -> list[socket.socket]:
    """Copies of a process's TCP connections from or to one of the ports."""
    found = []
    for each in sockets_of(qemu):
        try:
            ends = {each.getsockname()[1], each.getpeername()[1]} if each.family == socket.AF_INET else set()
        except OSError:         # it listens
            ends = set()
        if ends & set(ports):
            found.append(each)
        else:
            each.close()
    return found


class PairTest(unittest.TestCase):
    """Tests that start pairs; each start() is over with the test that made it."""

    pair: Pair | None = None

    def start(self, **options: Any) -> Pair:
        self.pair = self.enterContext(running(emulator(), **{"usage": usage(), **options}))
        print(f"[{self.id().rpartition('.')[2]}: {self.pair.directory.name}]",
              end=" ", file=sys.stderr, flush=True)
        return self.pair

    def tearDown(self) -> None:
        """What the objects have counted stays with the logs."""
        for qemu in self.pair.processes() if self.pair else ():
            if qemu.alive and not qemu.stopped:
                with contextlib.suppress(Failure), open(self.pair.directory / f"{qemu.role}.counters", "w") as out:
                    out.write(qemu.monitor.human("info colo-proxy"))

    def explain(self) -> str:
        """For the report of a failure."""
        return "\n".join(["the last lines of the QEMUs:", *self.pair.said()]) if self.pair else ""

    def assert_guests_well(self) -> None:
        self.assertEqual(self.pair.trouble(), [], f"logs: {self.pair.directory}")

    def download(self, size: int, seed: int = 0, address: str | None = None) -> Download:
        """A download that is under way."""
        download = Download(self.pair.network, size, seed, address=address)
        download.start()
        self.addCleanup(download.join)
        return download

    def assert_complete(self, download: Download, timeout: float = 120) -> None:
        """The download ends, and what came is what the guest serves."""
        self.assertEqual(download.result(timeout),
                         self.pair.guest.content_sha256(download.size, download.seed),
                         f"logs: {self.pair.directory}")


class SharedPairTest(PairTest):
    """Tests that leave their pair as they found it share one per class."""

    options: dict[str, Any] = {}

    @classmethod
    def setUpClass(cls) -> None:
        cls.pair = cls.enterClassContext(running(emulator(), **{"usage": usage(), **cls.options}))
        print(f"[{cls.__name__}: {cls.pair.directory.name}]", file=sys.stderr, flush=True)

    def tearDown(self) -> None:
        self.assert_guests_well()
