# SPDX-License-Identifier: GPL-2.0-or-later
"""scripts/fuzz: the fuzz targets of tests/fuzz under libFuzzer and the sanitizers.

A run begins with the inputs that are kept in tests/fuzz/corpus and with what earlier runs
have found to be worth it, in build/fuzz-corpus. What a target objects to is left in
build/fuzz-findings, to be looked into, mended, and kept under a name that says what it is.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import subprocess
import tempfile
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from . import core
from .machine import BUILD, ROOT, Failure, Progress, reporting, run_logged

PACKAGES = ["clang", "libclang-rt-dev"]

# Each target, and the longest input that is made for it: what is longer is only slower.
TARGETS = {"packet": 384, "wire": 128, "comparator": 160, "rewriter": 160, "session": 160}

KEPT = ROOT / "tests/fuzz/corpus"
PROGRAMS = BUILD / "fuzz"
GROWN = BUILD / "fuzz-corpus"
FINDINGS = BUILD / "fuzz-findings"

# Shorter stacks of allocations and less memory kept back: a third quicker, and enough to find what is wrong.
ENVIRONMENT = {"ASAN_OPTIONS": "malloc_context_size=4:quarantine_size_mb=8"}


@dataclass
class Outcome:
    """What the jobs of one target have done so far."""

    target: str
    seed: int
    executions: int = 0
    began: float = field(default_factory=time.monotonic)
    seconds: float = 0.0
    covered: int = 0
    edges: int = 0
    inputs: list[Path] = field(default_factory=list)    # what it objected to
    said: list[str] = field(default_factory=list)       # why

    @property
    def found(self) -> bool:
        return bool(self.inputs or self.said)

    def text(self) -> str:
        rate = self.executions / max(self.seconds, 0.001)
        return (f"{self.target}: {self.executions:,} executions in {self.seconds:.0f} s ({rate:,.0f}/s), "
                f"seed {self.seed}, {self.covered} of {self.edges} edges covered, {len(self.inputs)} findings")


def program(target: str) -> Path:
    """The libFuzzer program."""
    return PROGRAMS / "tests/fuzz" / f"fuzz-{target}"


def build() -> None:
    """The libFuzzer programs, in build/fuzz."""
    directory = core.configure(PROGRAMS.name, "-Dfuzz=true", packages=PACKAGES, env={**os.environ, "CC": "clang"})
    core.compile_in(directory, "fuzzers")


def _arguments(target: str, seed: int, runs: int | None, seconds: int | None) -> list[str]:
    directories = [GROWN / target, *([KEPT / target] if (KEPT / target).is_dir() else [])]
    return [str(program(target)), f"-seed={seed}", f"-max_len={TARGETS[target]}", "-entropic=0", "-reload=1",
            "-print_final_stats=1", f"-artifact_prefix={FINDINGS}/{target}-",
            *([f"-runs={runs}"] if runs is not None else []),
            *([f"-max_total_time={seconds}"] if seconds is not None else []),
            *map(str, directories)]


def _watch(process: subprocess.Popen, outcome: Outcome, lock: threading.Lock, progress: Progress,
           runs: int | None) -> None:
    """Read what one job says until it ends."""
    done = 0
    lines: deque[str] = deque(maxlen=400)
    for line in process.stderr:
        lines.append(line.rstrip())
        with lock:
            if found := re.match(r"#(\d+)\s.*?(?:cov: (\d+))?", line):
                outcome.executions += int(found[1]) - done
                done = int(found[1])
                if covered := re.search(r"cov: (\d+)", line):
                    outcome.covered = max(outcome.covered, int(covered[1]))
                progress.update(outcome.executions / runs if runs else None,
                                f"{outcome.executions:,} executions, {outcome.covered} edges")
            elif found := re.search(r"\((\d+) inline 8-bit counters\)", line):
                outcome.edges = int(found[1])
            elif found := re.match(r"stat::number_of_executed_units: (\d+)", line):
                outcome.executions += int(found[1]) - done
                done = int(found[1])
            elif found := re.search(r"Test unit written to (\S+)", line):
                outcome.inputs.append(Path(found[1]))
    if process.wait() != 0:
        with lock:
            outcome.said += lines


def fuzz(target: str, runs: int | None = None, seconds: int | None = None, jobs: int = 1,
         seed: int | None = None) -> Outcome:
    """Run one target, for so many executions of all its jobs together or for so long."""
    for directory in (GROWN / target, FINDINGS):
        directory.mkdir(parents=True, exist_ok=True)
    outcome = Outcome(target, seed if seed is not None else random.randrange(1, 2**31 - jobs))
    lock = threading.Lock()
    with Progress(f"fuzzing {target}") as progress:
        processes = [subprocess.Popen(
            _arguments(target, outcome.seed + job, runs and (runs + job) // jobs, seconds),
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace",
            env={**os.environ, **ENVIRONMENT}) for job in range(jobs)]
        try:
            watchers = [threading.Thread(target=_watch, args=(process, outcome, lock, progress, runs))
                        for process in processes]
            for watcher in watchers:
                watcher.start()
            for watcher in watchers:
                watcher.join()
        finally:
            for process in processes:
                process.kill()
                process.wait()
        outcome.seconds = time.monotonic() - outcome.began
        if outcome.found:
            progress.done("found something")
    return outcome


def explain(outcome: Outcome) -> str:
    """What was found, and what to do with it."""
    wanted = re.compile(r"not so:|^    [^#\s]|ERROR: |runtime error:|^    #\d+ .*/(net/colo|tests/fuzz)/[^/]*\.c:")
    lines = [line for line in outcome.said if wanted.search(line)][:25] or outcome.said[-25:]
    for path in outcome.inputs:
        lines += [f"the input is in {path}; what happens in it:",
                  f"    FUZZ_TELL=1 {program(outcome.target)} {path}",
                  f"once mended, keep it as {KEPT.relative_to(ROOT) / outcome.target}/A-NAME-THAT-SAYS-WHAT-IT-IS"]
    return "\n".join(lines)


def keep(target: str) -> None:
    """Make the kept inputs as few as cover what all inputs cover; those with names of their own stay."""
    KEPT.joinpath(target).mkdir(parents=True, exist_ok=True)
    GROWN.joinpath(target).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=BUILD) as scratch:
        chosen = Path(scratch) / "chosen"
        chosen.mkdir()
        named = [path for path in (KEPT / target).iterdir() if not re.fullmatch("[0-9a-f]{40}", path.name)]
        for path in named:
            shutil.copy(path, chosen)
        run_logged([str(program(target)), "-set_cover_merge=1", "-use_counters=0", f"-max_len={TARGETS[target]}",
                    str(chosen), str(KEPT / target), str(GROWN / target)], BUILD / f"log/fuzz-keep-{target}.log",
                   f"choosing inputs of {target}", env={**os.environ, **ENVIRONMENT})
        for path in (KEPT / target).iterdir():
            path.unlink()
        for path in chosen.iterdir():
            shutil.copy(path, KEPT / target)
    files = list((KEPT / target).iterdir())
    print(f"{target}: {len(files)} inputs of {sum(path.stat().st_size for path in files):,} bytes are kept")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="fuzz", description="Fuzz the core with libFuzzer under the address and undefined behaviour sanitizers. "
                                 "Exit status 1 if anything was found.")
    parser.add_argument("target", nargs="*", metavar="TARGET",
                        help=f"of {', '.join(TARGETS)} (default: all)")
    parser.add_argument("--runs", type=int, default=10_000_000, metavar="N",
                        help="executions of each target (default: %(default)s)")
    parser.add_argument("--seconds", type=int, metavar="S", help="instead: how long for each target")
    parser.add_argument("--jobs", type=int, default=1, metavar="J",
                        help="processes that share the executions of a target (default: %(default)s)")
    parser.add_argument("--seed", type=int, help="of the first job; the others follow (default: another one each time)")
    parser.add_argument("--keep", action="store_true",
                        help="run nothing; choose from all inputs found so far the few to be kept in tests/fuzz/corpus")
    arguments = parser.parse_args()
    for target in arguments.target:
        if target not in TARGETS:
            parser.error(f"there is no target {target}; there are {', '.join(TARGETS)}")
    if arguments.runs < 1 or arguments.jobs < 1:
        parser.error("--runs and --jobs take numbers from 1 on")
    return arguments


def main() -> None:
    arguments = parse_arguments()
    with reporting("fuzz"):
        build()
        targets = arguments.target or list(TARGETS)
        if arguments.keep:
            for target in targets:
                keep(target)
            return
        found = 0
        for target in targets:
            outcome = fuzz(target, None if arguments.seconds else arguments.runs, arguments.seconds, arguments.jobs,
                           arguments.seed)
            print(outcome.text(), flush=True)
            if outcome.found:
                found += 1
                print(explain(outcome), flush=True)
        if found:
            raise Failure(f"something was found by {found} of {len(targets)} targets")


if __name__ == "__main__":
    main()
