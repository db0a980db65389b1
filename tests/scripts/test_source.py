#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of where the source packages come from: the machine's own places, for its release or another one."""

import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from colokit import source                      # noqa: E402
from colokit.machine import Failure             # noqa: E402
from colokit.series import SERIES               # noqa: E402

STANZAS = """\
# a comment of its own

Types: deb
URIs: http://one.invalid/debian
Suites: bookworm
  bookworm-updates bookworm-backports
Components: main
Signed-By: /keys.gpg

Types: deb
URIs: http://two.invalid/security
Suites: bookworm-security
Components: main contrib
"""
LINES = "# nothing\ndeb [arch=amd64 signed-by=/keys.gpg] http://three.invalid/debian stable main contrib\n"

TARGETS = """\
Debian|bookworm|main|/one.sources:1
Debian|bookworm-updates|main|/one.sources:1
Debian|bookworm-backports|main|/one.sources:1
Debian|bookworm-security|main|/one.sources:2
Debian|bookworm-security|contrib|/one.sources:2
Somebody|bookworm|main|/other.list:1
"""

VERSIONS = """\
      qemu | 1:10.2.9+ds-1 | http://one.invalid/debian sid/main Sources
      qemu | 1:10.2.10+ds-2 | http://one.invalid/debian sid/main Sources
      qemu | 1:11.1.3+ds-1 | http://one.invalid/debian sid/main Sources
      qemu | 1:10.20.1+ds-1 | http://one.invalid/debian sid/main Sources
      qemu | 1:10.2.11+ds-1 | http://one.invalid/debian sid/main amd64 Packages
"""


class TestPlaces(unittest.TestCase):

    def entry(self, name: str, text: str, number: int, suites: list[str]) -> str:
        path = Path(self.enterContext(tempfile.TemporaryDirectory())) / name
        path.write_text(text)
        return source._Place(path, number, suites).entry()

    def search(self, release: str) -> list[tuple[str, int, list[str]]]:
        with mock.patch.object(source, "output_of", return_value=TARGETS):
            return [(str(place.file), place.number, place.suites) for place in source._search(release)]

    def test_stanza(self) -> None:
        self.assertEqual(self.entry("x.sources", STANZAS, 1, ["trixie", "trixie-updates"]),
                         "Types: deb deb-src\nURIs: http://one.invalid/debian\nSuites: trixie trixie-updates\n"
                         "Components: main\nSigned-By: /keys.gpg\n")
        self.assertEqual(self.entry("x.sources", STANZAS, 2, ["bookworm-security"]),
                         "Types: deb deb-src\nURIs: http://two.invalid/security\nSuites: bookworm-security\n"
                         "Components: main contrib\n")

    def test_line(self) -> None:
        place = "[arch=amd64 signed-by=/keys.gpg] http://three.invalid/debian trixie main contrib\n"
        self.assertEqual(self.entry("x.list", LINES, 2, ["trixie"]), f"deb {place}deb-src {place}")

    def test_own_release(self) -> None:
        self.assertEqual(self.search("bookworm"), [("/one.sources", 1, ["bookworm", "bookworm-updates"]),
                                                   ("/one.sources", 2, ["bookworm-security"])])

    def test_another_release(self) -> None:
        self.assertEqual(self.search("trixie"), [("/one.sources", 1, ["trixie", "trixie-updates"]),
                                                 ("/one.sources", 2, ["trixie-security"])])

    def test_unstable_is_all_in_one(self) -> None:
        self.assertEqual(self.search("sid"), [("/one.sources", 1, ["sid"])])


class TestVersion(unittest.TestCase):

    def version(self, series: str) -> str:
        with mock.patch.object(source, "output_of", return_value=VERSIONS), \
                mock.patch.object(source, "_prepared", return_value=Path("/nowhere")):
            return source._version_of(SERIES[series])

    def test_newest_of_the_series(self) -> None:
        self.assertEqual(self.version("10.2"), "1:10.2.10+ds-2")

    def test_none_of_the_series(self) -> None:
        with self.assertRaisesRegex(Failure, "11.1.3.*none of 7.2"):
            self.version("7.2")


if __name__ == "__main__":
    unittest.main()
