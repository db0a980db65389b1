# SPDX-License-Identifier: GPL-2.0-or-later
"""scripts/mutants: break the core in known ways, one at a time, and see the unit tests fail.

tests/mutants/mutants.py is the table.  The core and its unit tests are copied
to build/mutants/, once for each worker; a mutant is applied to the copy, what
changed is compiled, and the one test program runs that is said to notice.
The copy is put right again before the next.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import importlib.util
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Iterable, Iterator

from .machine import BUILD, ROOT, Failure, Progress, need, reporting

TABLE = ROOT / "tests/mutants/mutants.py"
DIRECTORY = BUILD / "mutants"
PACKAGES = ["gcc", "ccache", "meson", "ninja-build", "pkg-config", "libglib2.0-dev", "check"]
COPIED = ("include/net/colo", "net/colo", "tests/unit")
TEST_TIMEOUT = 60       # seconds for one test program
JOBS = os.cpu_count() or 1


@dataclass(frozen=True)
class Mutant:
    """One fault: an old text in a file of the core, and the new text in its place."""

    name: str
    stands_for: str         # the fault class, in one line
    file: str               # below net/colo/, or include/net/colo/
    old: str                # occurs once in the file
    new: str
    caught_by: str          # "PROGRAM: TEST", as in "compare-tcp: fin_is_not_left_out"
    sanitized: bool = False     # shows under the sanitizers only

    @property
    def path(self) -> Path:
        """Of the file, in the tree."""
        return Path("include/net/colo" if self.file.endswith(".h") and self.file != "comparator-internal.h"
                    else "net/colo") / self.file

    @property
    def program(self) -> str:
        """Of tests/unit/, without its prefix."""
        return self.caught_by.partition(": ")[0]

    @property
    def test(self) -> str:
        """The name of the test in it."""
        return self.caught_by.partition(": ")[2]

    @property
    def tcase(self) -> str | None:
        """The test case that the test is added to; None if there is no such test."""
        source = ROOT / f"tests/unit/test-{self.program}.c"
        if source.exists():
            before, added, _ = source.read_text(encoding="utf-8").partition(f"test(tc, {self.test}")
            if added:
                return before.rpartition('tcase_create("')[2].partition('"')[0]
        return None


def read_table() -> list[Mutant]:
    """All mutants; Failure if one does not fit the core any more."""
    spec = importlib.util.spec_from_file_location("mutants_table", TABLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    mutants = module.MUTANTS
    wrong = []
    for name in {m.name for m in mutants}:
        if sum(m.name == name for m in mutants) > 1:
            wrong.append(f"{name}: there are two of this name")
    for mutant in mutants:
        found = (ROOT / mutant.path).read_text(encoding="utf-8").count(mutant.old)
        if found != 1:
            wrong.append(f"{mutant.name}: its old text occurs {found} times in {mutant.path}")
        if mutant.old == mutant.new:
            wrong.append(f"{mutant.name}: changes nothing")
        if mutant.tcase is None:
            wrong.append(f"{mutant.name}: there is no test {mutant.test} in tests/unit/test-{mutant.program}.c")
    if wrong:
        raise Failure(f"{TABLE.relative_to(ROOT)} does not fit the core:\n" + "\n".join(wrong))
    return mutants


def _kill_session(leader: int) -> None:
    """Kill all processes of a session: libcheck gives each test a process group of its own."""
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(ValueError, ProcessLookupError):
            if os.getsid(int(entry.name)) == leader:
                os.kill(int(entry.name), signal.SIGKILL)


class Worker:
    """A copy of the core, with two builds of it: plain, and under the sanitizers."""

    def __init__(self, number: int):
        self.source = DIRECTORY / str(number) / "source"

    def prepare(self) -> None:
        """Bring the copy up to date.  Files that are right keep their time, so that little is compiled."""
        wanted = set()
        for top in COPIED:
            for path in (ROOT / top).rglob("*"):
                if path.is_file():
                    wanted.add(path.relative_to(ROOT))
                    self._write(path.relative_to(ROOT), path.read_bytes())
        lines = (ROOT / "meson.build").read_text(encoding="utf-8").splitlines(keepends=True)
        mine = "".join(line for line in lines if "subdir('tests/" not in line or "tests/unit" in line)
        self._write(Path("meson.build"), mine.encode())
        for path in self.source.rglob("*"):
            relative = path.relative_to(self.source)
            if path.is_file() and relative not in wanted and relative != Path("meson.build"):
                path.unlink()

    def _write(self, relative: Path, content: bytes) -> None:
        path = self.source / relative
        if not path.exists() or path.read_bytes() != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    def _build(self, program: str, sanitized: bool) -> Path:
        """Compile one test program; Failure with the compiler's words if that fails."""
        directory = self.source.parent / ("sanitized" if sanitized else "plain")
        options = ["-Db_sanitize=address,undefined"] if sanitized else []
        if not (directory / "build.ninja").exists():
            self._run(["meson", "setup", "-Doptimization=1", "-Dwerror=false", *options,
                       str(directory), str(self.source)])
        self._run(["ninja", "-C", str(directory), f"tests/unit/test-{program}"])
        return directory / f"tests/unit/test-{program}"

    @staticmethod
    def _run(argv: list[str]) -> None:
        result = subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL,
                                env={**os.environ, "CC": "ccache gcc"})
        if result.returncode:
            raise Failure(f"{' '.join(argv)} failed:\n{result.stdout}{result.stderr}")

    def outcome(self, program: str, tcase: str, sanitized: bool) -> dict[str, str]:
        """Build and run one test case of a program: what each test that failed says, by its name."""
        executable = self._build(program, sanitized)
        process = subprocess.Popen([executable], cwd=executable.parent, text=True, errors="replace",
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                                   start_new_session=True,
                                   env={**os.environ, "CK_RUN_CASE": tcase, "COLO_TEST_SEED": "1",
                                        "ASAN_OPTIONS": "detect_leaks=1", "UBSAN_OPTIONS": "halt_on_error=1"})
        try:
            text, _ = process.communicate(timeout=TEST_TIMEOUT)
        except subprocess.TimeoutExpired:
            _kill_session(process.pid)
            process.communicate()
            return {"*": f"not within {TEST_TIMEOUT} s"}
        failures = {test: why for test, why in
                    re.findall(r"^\S+:\d+:[FE]:[^:]*:(\w+):\d+: (.*)$", text, re.M)}
        counts = re.search(r"Checks: (\d+), Failures: (\d+), Errors: (\d+)", text)
        if not counts or counts[1] == "0":
            raise Failure(f"{program} has run no test of {tcase}:\n{text}")
        if process.returncode and not failures:
            failures["*"] = f"ended with status {process.returncode}: {text[-300:]}"
        return failures

    def try_mutant(self, mutant: Mutant) -> tuple[bool, str]:
        """Whether it is caught, and by what."""
        content = (ROOT / mutant.path).read_text(encoding="utf-8")
        self._write(mutant.path, content.replace(mutant.old, mutant.new).encode())
        try:
            failures = self.outcome(mutant.program, mutant.tcase, mutant.sanitized)
        finally:
            self._write(mutant.path, content.encode())
        program = f"test-{mutant.program}"
        if mutant.test in failures:
            return True, f"caught by {program}: {mutant.test}"
        if failures:
            others = ", ".join(failures)
            return False, f"not by {program}: {mutant.test}, which passes; {others}: {next(iter(failures.values()))}"
        return False, f"SURVIVED {program}: {mutant.test}"


def check_baseline(worker: Worker, mutants: Iterable[Mutant]) -> None:
    """The core as it is passes all that a mutant is to fail."""
    for program, tcase, sanitized in sorted({(m.program, m.tcase, m.sanitized) for m in mutants}):
        failures = worker.outcome(program, tcase, sanitized)
        if failures:
            raise Failure(f"test-{program} fails without any mutant: {failures}; mend that first")


def run(mutants: list[Mutant], jobs: int) -> Iterator[tuple[Mutant, bool, str]]:
    """Try all of them: for each, whether it was caught, and by what."""
    need(PACKAGES)
    workers: queue.Queue[Worker] = queue.Queue()
    everyone = [Worker(number) for number in range(jobs)]

    def attempt(mutant: Mutant) -> tuple[bool, str]:
        worker = workers.get()
        try:
            return worker.try_mutant(mutant)
        finally:
            workers.put(worker)

    with Progress("without any mutant"):
        for worker in everyone:
            worker.prepare()
            workers.put(worker)
        check_baseline(everyone[0], mutants)
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        for mutant, (caught, how) in zip(mutants, pool.map(attempt, mutants)):
            yield mutant, caught, how


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="mutants",
        description="Break a copy of the core in each way that tests/mutants/mutants.py knows, one at a time, and "
                    "see that the test fails which is said to. The last line counts; exit status 0 if none survived.")
    parser.add_argument("names", metavar="NAME", nargs="*", help="try these only (default: all)")
    parser.add_argument("--list", action="store_true", help="print the table and what each stands for")
    parser.add_argument("--jobs", metavar="N", type=int, default=JOBS, help="at once (default: %(default)s)")
    parser.add_argument("--clean", action="store_true", help="begin with nothing compiled")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    with reporting("mutants"):
        mutants = read_table()
        unknown = set(arguments.names) - {m.name for m in mutants}
        if unknown:
            raise Failure(f"no such mutant: {', '.join(sorted(unknown))}; --list shows them")
        if arguments.names:
            mutants = [m for m in mutants if m.name in arguments.names]
        if arguments.list:
            for mutant in mutants:
                print(f"{mutant.name}: {mutant.stands_for} [{mutant.path}; {mutant.caught_by}]")
            return
        if arguments.clean and DIRECTORY.exists():
            shutil.rmtree(DIRECTORY)
        survived = 0
        for mutant, caught, how in run(mutants, max(arguments.jobs, 1)):
            print(f"{mutant.name}: {how}", flush=True)
            survived += not caught
        print(f"{len(mutants) - survived} caught, {survived} survived")
        sys.exit(1 if survived else 0)


if __name__ == "__main__":
    main()
