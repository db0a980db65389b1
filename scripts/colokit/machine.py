# SPDX-License-Identifier: GPL-2.0-or-later
"""The machine we run on: its packages, its terminal, and long-running commands.

Foreseen errors are raised as Failure; a program's main() is wrapped in
`reporting()`, which prints the message and exits with status 1.
"""

from __future__ import annotations

import atexit
import collections
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Iterator, Sequence

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build"

QUIET_INTERVAL = 10.0   # seconds between progress lines where there is no terminal
TTY_INTERVAL = 0.2      # seconds between updates of the line on a terminal


class Failure(Exception):
    """An error we foresaw: the message says what is wrong and what to do."""


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP: like Ctrl-C, which nobody takes for the failure of a test."""

    def __init__(self, signum: int):
        super().__init__()
        self.signum = signum


@contextlib.contextmanager
def reporting(name: str | None = None) -> Iterator[None]:
    """Turn Failure and Ctrl-C into a message and an exit status.

    The message begins with the program's name (default: the module's).

    SIGTERM and SIGHUP are made to end the program in the same way as Ctrl-C, so that
    whatever cleans up on an exception does so then, too.
    """
    def terminated(signum, frame):
        raise Terminated(signum)

    signal.signal(signal.SIGTERM, terminated)
    signal.signal(signal.SIGHUP, terminated)
    name = name or Path(sys.argv[0]).stem
    try:
        yield
    except Failure as failure:
        print(f"{name}: {failure}", file=sys.stderr)
        raise SystemExit(1) from None
    except Terminated as end:
        raise SystemExit(128 + end.signum) from None
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        raise SystemExit(130) from None
    except BrokenPipeError:
        raise SystemExit(1) from None


# --------------------------------------------------------------- progress

class Progress:
    """One long step, told on stderr as it goes.

    On a terminal it is a single line that overwrites itself; elsewhere a
    plain line every ten seconds or so. Either way there is a closing line.

        with Progress("compiling") as progress:
            progress.update(0.5, "file.c")
    """

    def __init__(self, title: str, stream=None):
        self.title = title
        self.stream = stream or sys.stderr
        self.tty = self.stream.isatty()
        self.fraction: float | None = None
        self.detail = ""
        self.outcome = ""
        self.began = self.shown = time.monotonic()
        if self.tty:
            self._show()

    def update(self, fraction: float | None = None, detail: str = "") -> None:
        """Note how far the step is (0 to 1, None: not known) and what it does."""
        if fraction is not None:
            self.fraction = min(max(fraction, 0.0), 1.0)
        self.detail = detail
        now = time.monotonic()
        if now - self.shown >= (TTY_INTERVAL if self.tty else QUIET_INTERVAL):
            self.shown = now
            self._show()

    def done(self, outcome: str = "done") -> None:
        """Choose the word of the closing line, printed when the step ends."""
        self.outcome = outcome

    def _elapsed(self) -> str:
        seconds = time.monotonic() - self.began
        if seconds < 10:
            return f"{seconds:.1f} s"
        minutes, seconds = divmod(int(seconds), 60)
        return f"{minutes} min {seconds:02} s" if minutes else f"{seconds} s"

    def _show(self) -> None:
        parts = [self.title]
        if self.fraction is not None:
            parts.append(f"{self.fraction:4.0%}")
        parts.append(self._elapsed())
        if self.detail:
            parts.append(self.detail)
        self._print("  ".join(parts), last=not self.tty)

    def _print(self, text: str, last: bool) -> None:
        if self.tty:
            text = text[:shutil.get_terminal_size().columns - 1]
            self.stream.write(f"\r\033[K{text}")
        else:
            self.stream.write(text)
        if last:
            self.stream.write("\n")
        self.stream.flush()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, kind, value, traceback) -> None:
        outcome = "failed" if kind else (self.outcome or "done")
        self._print(f"{self.title}: {outcome} ({self._elapsed()})", last=True)


def wait_until(condition: Callable[[], Any], timeout: float, what: str) -> Any:
    """Look again and again until the condition holds; return what it returned."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise Failure(f"{what}: not within {timeout:g} s")
        time.sleep(0.02)
    return value


# --------------------------------------------------------------- commands

def run_logged(argv: Sequence[str], log: Path, title: str,
               on_line: Callable[[Progress, str], None] | None = None,
               cwd: Path | None = None, env: dict[str, str] | None = None,
               append: bool = False) -> None:
    """Run a long command, its output in a log file, its progress on stderr.

    on_line sees every line of output and may call progress.update(). On
    failure the end of the log is shown, and a Failure names its path.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    tail: collections.deque[str] = collections.deque(maxlen=40)
    with open(log, "a" if append else "w", encoding="utf-8") as out, Progress(title) as progress:
        out.write(f"$ {' '.join(map(str, argv))}\n")
        out.flush()
        asks = argv[0] == SUDO      # for a password, on the terminal, which only those of its session have
        try:
            process = subprocess.Popen(
                [str(arg) for arg in argv], cwd=cwd, env=env, stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                text=True, errors="replace", start_new_session=not asks)
        except FileNotFoundError:
            raise Failure(f"{argv[0]} is not installed") from None
        try:
            for line in process.stdout:
                out.write(line)
                tail.append(line.rstrip())
                if on_line:
                    on_line(progress, line.rstrip())
                else:
                    progress.update()
            status = process.wait()
        except BaseException:
            with contextlib.suppress(ProcessLookupError, PermissionError):      # root's ends of Ctrl-C, or by itself
                if asks:
                    process.terminate()
                else:
                    os.killpg(process.pid, signal.SIGTERM)
            process.wait()
            raise
        finally:
            process.stdout.close()
        if status == 0:
            return
        progress.done("failed")
    for line in tail:
        print(f"    {line[:300]}", file=sys.stderr)
    raise Failure(f"{title}: {argv[0]} failed with status {status}; the whole output is in {log}")


def output_of(argv: Sequence[str], **options) -> str:
    """The standard output of a short command; Failure when it fails."""
    try:
        result = subprocess.run([str(arg) for arg in argv], stdin=subprocess.DEVNULL,
                                capture_output=True, text=True, **options)
    except FileNotFoundError:
        raise Failure(f"{argv[0]} is not installed") from None
    if result.returncode != 0:
        raise Failure(f"{' '.join(map(str, argv))} failed: {result.stderr.strip()}")
    return result.stdout


# --------------------------------------------------------------- packages

SUDO = "sudo"


def as_root(argv: Sequence[str]) -> list[str]:
    """The command as root runs it: itself, or with sudo in front."""
    if os.geteuid() == 0:
        return list(argv)
    if shutil.which(SUDO):
        return [SUDO, *argv]
    raise Failure(f"this needs root: {' '.join(argv)}\nrun it as root, or install sudo")


def become_root(module: str) -> None:
    """Go on as root, with sudo, if we are not yet: network namespaces and taps need it.

    What root makes under build/ is given to the owner of the tree in the end, who will want to build there, too.
    """
    if os.geteuid() != 0:
        ours = [f"{name}={value}" for name, value in os.environ.items() if name.startswith("COLO_")]
        command = as_root(["env", f"PYTHONPATH={ROOT / 'scripts'}", "PYTHONDONTWRITEBYTECODE=1", *ours,
                           sys.executable, "-m", f"colokit.{module}", *sys.argv[1:]])
        os.execvp(command[0], command)
    owner = ROOT.stat()
    if owner.st_uid != 0:
        atexit.register(subprocess.run, ["chown", "--recursive", "--no-dereference", "--from=0",
                                         f"{owner.st_uid}:{owner.st_gid}", str(BUILD)], check=False)


def missing(packages: Sequence[str]) -> list[str]:
    """Those of the Debian packages that are not installed."""
    try:
        result = subprocess.run(
            ["dpkg-query", "--show", "--showformat", "${Package} ${db:Status-Abbrev}\n", *packages],
            capture_output=True, text=True)
    except FileNotFoundError:
        raise Failure("dpkg-query is not there: packages can be installed on Debian only; elsewhere "
                      f"see to these yourself: {' '.join(packages)}") from None
    installed = {line.split()[0] for line in result.stdout.splitlines()
                 if re.search(r"\si[i ]", line)}
    return [package for package in packages if package not in installed]


def need(packages: Sequence[str]) -> None:
    """Install those of the packages that are missing; say which."""
    wanted = missing(packages)
    if not wanted:
        return
    print(f"installing {' '.join(wanted)}", file=sys.stderr)
    log = BUILD / "log" / "apt.log"
    # env, because sudo passes no variables on.
    install = as_root(["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "--yes", "--quiet",
                       "--no-install-recommends", "install", *wanted])
    try:
        run_logged(install, log, "installing packages")
    except Failure:
        # The package lists may be missing or too old to be of use.
        run_logged(as_root(["apt-get", "--quiet", "update"]), log, "updating the package lists")
        run_logged(install, log, "installing packages", append=True)
