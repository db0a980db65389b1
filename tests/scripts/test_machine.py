# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of what the programs in scripts/ do to the machine, and of how they end."""

import os
import signal
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from colokit import machine, process                # noqa: E402

INTERRUPTED = """\
import os, signal, unittest
class Test(unittest.TestCase):
    def test_first(self):
        self.addCleanup(print, "cleaned up")
        os.kill(os.getpid(), signal.{signal})
        signal.pause()
    def test_second(self):
        print("went on")
"""
# Python leaves SIGINT alone where a shell has had it ignored for what it runs in the background.
PROGRAM = """\
import pathlib, signal, sys
from colokit import check, machine
signal.signal(signal.SIGINT, signal.default_int_handler)
with machine.reporting("program"):
    check._run_unittests(check.Tally(), pathlib.Path(sys.argv[1]), None, timed=False)
"""


class MachineTest(unittest.TestCase):

    def setUp(self) -> None:
        self.directory = Path(self.enterContext(tempfile.TemporaryDirectory()))

    def test_a_signal_ends_it(self) -> None:
        """In the middle of a test, which is no failed test then, and is cleaned up after."""
        for name, status in (("SIGINT", 130), ("SIGTERM", 128 + signal.SIGTERM), ("SIGHUP", 128 + signal.SIGHUP)):
            (self.directory / "test_it.py").write_text(INTERRUPTED.format(signal=name))
            result = subprocess.run([sys.executable, "-B", "-c", PROGRAM, self.directory], capture_output=True, text=True, timeout=60,
                                    env={**os.environ, "PYTHONPATH": str(ROOT / "scripts")})
            self.assertEqual(result.returncode, status, name + result.stderr)
            self.assertEqual(result.stdout, "cleaned up\n", name)

    def test_sudo_has_the_terminal(self) -> None:
        """It may ask for a password there; whoever is in another session has none."""
        sudo = self.directory / "sudo"
        sudo.write_text('#!/bin/sh\nread -r _ _ _ _ _ session _ <"/proc/$$/stat"; echo "$session"; exec "$@"\n')
        sudo.chmod(0o755)
        log = self.directory / "log"
        with (mock.patch.dict(os.environ, PATH=f"{self.directory}:{os.environ['PATH']}"),
              mock.patch("os.geteuid", return_value=1000), mock.patch("sys.stderr")):
            machine.run_logged(machine.as_root(["true"]), log, "asking")
        self.assertIn(f"\n{os.getsid(0)}\n", log.read_text())

    def test_root_is_told_what_we_were_told(self) -> None:
        with (mock.patch("os.geteuid", return_value=1000), mock.patch("shutil.which", return_value="/usr/bin/sudo"),
              mock.patch.dict(os.environ, COLO_QEMU="/some/qemu"), mock.patch("os.execvp", side_effect=SystemExit) as execvp):
            with self.assertRaises(SystemExit):
                machine.become_root("check")
        self.assertIn("COLO_QEMU=/some/qemu", execvp.call_args[0][1])

    def test_logs_are_kept(self) -> None:
        """Of the last runs, and of all of a process that still runs."""
        gone = subprocess.Popen(["true"])
        gone.wait()
        with mock.patch.object(process, "RUNS", self.directory), mock.patch.object(process, "RUNS_KEPT", 3):
            for number in range(6):
                (self.directory / f"20260101-000000-{gone.pid}-{number}").mkdir()
            ours = [process.new_directory() for _ in range(6)]
        self.assertTrue(all(path.exists() for path in ours))
        self.assertEqual(len(list(self.directory.iterdir())), len(ours))


if __name__ == "__main__":
    unittest.main()
