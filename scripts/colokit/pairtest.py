# SPDX-License-Identifier: GPL-2.0-or-later
"""What the tests in tests/pair/ have in common.

Each of their files runs by itself, too:

    PYTHONPATH=scripts python3 -m unittest -v tests/pair/test_download.py

as root, with the emulator of scripts/build-qemu or the one in COLO_QEMU.
"""

from __future__ import annotations

import os
import sys
import unittest
from pathlib import Path
from typing import Any

from .client import Download
from .machine import BUILD
from .pair import Pair, running


def emulator() -> Path:
    """The emulator to be tested."""
    return Path(os.environ.get("COLO_QEMU") or BUILD / "qemu-7.2/build/qemu-system-x86_64").resolve()


def seconds_from(variable: str, default: float) -> float:
    """How long a test lasts, where the environment may say so."""
    return float(os.environ.get(variable, default))


class PairTest(unittest.TestCase):
    """Tests that start pairs; each start() is over with the test that made it."""

    pair: Pair | None = None

    def start(self, **options: Any) -> Pair:
        self.pair = self.enterContext(running(emulator(), **options))
        print(f"[{self.id().rpartition('.')[2]}: {self.pair.directory.name}]",
              end=" ", file=sys.stderr, flush=True)
        return self.pair

    def assert_guests_well(self) -> None:
        self.assertEqual(self.pair.trouble(), [], f"logs: {self.pair.directory}")

    def download(self, size: int, seed: int = 0) -> Download:
        """A download that is under way."""
        download = Download(self.pair.network, size, seed)
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
        cls.pair = cls.enterClassContext(running(emulator(), **cls.options))
        print(f"[{cls.__name__}: {cls.pair.directory.name}]", file=sys.stderr, flush=True)

    def tearDown(self) -> None:
        self.assert_guests_well()
