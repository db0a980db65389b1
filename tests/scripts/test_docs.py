#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The documentation is what a reader's program takes it for."""

import subprocess
import sys
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class DocsTest(unittest.TestCase):

    def test_restructuredtext(self) -> None:
        """No table is broken, no link leads nowhere."""
        for path in [ROOT / "README.rst", *sorted((ROOT / "docs").glob("*.rst"))]:
            with self.subTest(path.name):
                result = subprocess.run([sys.executable, "-m", "docutils", "--report=2", "--halt=5", path],
                                        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
                self.assertEqual((result.returncode, result.stderr), (0, ""))


if __name__ == "__main__":
    unittest.main()
