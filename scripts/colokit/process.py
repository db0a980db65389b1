# SPDX-License-Identifier: GPL-2.0-or-later
"""A QEMU process of the tests, with its monitor, and the directory that keeps its logs.

The process dies with whoever started it, and keeps what it wrote.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import re
import resource
import shutil
import signal
import subprocess
import time
from datetime import datetime
from pathlib import Path
from typing import Iterator

from .machine import BUILD, Failure, wait_until
from .network import Namespace
from .qmp import Monitor

RUNS = BUILD / "run"
RUNS_KEPT = 40
END_TIMEOUT = 10.0          # a monitor closes before its process is gone
FRAMES = 25                 # of the thread that crashed

PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)
_numbers = itertools.count()


class Qemu:
    """One QEMU process with its monitor and its logs."""

    def __init__(self, role: str, path: Path, host: Namespace, command: list[str], processors: set[int]):
        def prepare() -> None:
            _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            os.sched_setaffinity(0, processors)
            may_be = resource.getrlimit(resource.RLIMIT_CORE)[1]
            resource.setrlimit(resource.RLIMIT_CORE, (may_be, may_be))

        self.role = role
        self.program = command[0]
        self.console_path = Path(f"{path}.console")
        self.trace_path = Path(f"{path}.trace")
        self.output_path = Path(f"{path}.output")
        self.monitor_path = Path(f"{path}.qmp")
        self.probe_path = Path(f"{path}.probe")     # another monitor, for whoever else wants one
        self.stopped = False
        self._monitor: Monitor | None = None
        self.core_directory = Path(f"{path}.core")  # its working directory; a core tells no other way whose it is
        self.core_directory.mkdir(exist_ok=True)
        command = host.command(command)
        Path(f"{path}.command").write_text("\n".join(command) + "\n")
        with open(self.output_path, "wb") as output:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=self.core_directory,
                start_new_session=True, preexec_fn=prepare)

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def check_alive(self) -> None:
        if not self.alive:
            raise Failure(self.end())

    def end(self, timeout: float = END_TIMEOUT) -> str:
        """How it ended, and its last words; that it runs, if it still does."""
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            return f"the {self.role} QEMU still runs"
        last = self.output().strip().splitlines()[-3:] + self._stack()
        return f"the {self.role} QEMU has ended with status {status}" + "".join(f"\n    {line}" for line in last)

    def _stack(self) -> list[str]:
        """Where it crashed, if it has left a core and there is a debugger."""
        cores = list(self.core_directory.iterdir())
        if not cores or not shutil.which("gdb"):
            return []
        said = subprocess.run(["gdb", "-batch", "-ex", f"bt {FRAMES}", "-ex", "info threads", self.program, cores[0]],
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False).stdout
        return [line for line in said.splitlines() if re.match(r"#|\*? +\d+ +Thread", line)]

    @property
    def monitor(self) -> Monitor:
        """The connection to the monitor, made when it is first wanted."""
        if self._monitor is None:
            def connected() -> Monitor | None:
                self.check_alive()
                with contextlib.suppress(Failure):      # the socket is there before somebody listens
                    return Monitor(self.monitor_path, self.role, self.end) if self.monitor_path.exists() else None
            self._monitor = wait_until(connected, 30, f"the {self.role}'s monitor")
        return self._monitor

    def console(self) -> str:
        """What the guest has written to its serial console."""
        return _text(self.console_path)

    def trace(self) -> list[str]:
        """The lines of the trace log, oldest first."""
        return _text(self.trace_path).splitlines()

    def timed_trace(self) -> Iterator[tuple[float, str]]:
        """The same, each line with its time in seconds since 1970 apart."""
        for line in self.trace():
            if found := re.match(r"\d+@(\d+\.\d+):(.*)", line):
                yield float(found[1]), found[2]
            elif found := re.match(r"(\S+)Z (.*)", line):         # since 10.2
                yield datetime.fromisoformat(found[1] + "+00:00").timestamp(), found[2]

    def output(self) -> str:
        """What QEMU itself has said."""
        return _text(self.output_path)

    def figures(self) -> dict[str, float]:
        """Resident memory in MiB and processor time in seconds so far."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        ticks = int(fields[11]) + int(fields[12])
        return {"memory": int(re.search(r"VmRSS:\s+(\d+)", status).group(1)) / 1024,
                "cpu": ticks / os.sysconf("SC_CLK_TCK")}

    def overhead(self) -> float:
        """Seconds of processor time so far of all threads but the guest's processors."""
        guests = {cpu["thread-id"] for cpu in self.monitor.command("query-cpus-fast")}
        ticks = 0
        for task in Path(f"/proc/{self.pid}/task").iterdir():
            if int(task.name) not in guests:
                fields = (task / "stat").read_text().rpartition(")")[2].split()
                ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        """Stop the process as a whole, as if its host had frozen."""
        os.kill(self.pid, signal.SIGSTOP)
        self.stopped = True

    def cont(self) -> None:
        os.kill(self.pid, signal.SIGCONT)
        self.stopped = False

    def kill(self) -> None:
        """End the process as a power cut would."""
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        self.kill()
        if self._monitor:
            self._monitor.close()
            self._monitor = None


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except FileNotFoundError:
        return ""


def new_directory() -> Path:
    """A directory of its own for this run's logs; old ones make room, but not those of a process that still runs."""
    RUNS.mkdir(parents=True, exist_ok=True)
    runs = sorted((path for path in RUNS.iterdir() if path.is_dir()),
                  key=lambda path: path.stat().st_mtime)
    for path in runs[:-RUNS_KEPT]:
        if not Path("/proc", path.name.split("-")[2]).exists():
            shutil.rmtree(path, ignore_errors=True)
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}-{next(_numbers)}"
    directory = RUNS / name
    directory.mkdir()
    return directory
