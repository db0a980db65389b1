# SPDX-License-Identifier: GPL-2.0-or-later
"""scripts/coverage: which lines and branches of the core its tests reach.

The core is built for it in build/coverage, with the unit tests and the
simulation; both run there, and gcovr reads what they have left.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from . import core
from .machine import BUILD, ROOT, Failure, Progress, output_of, reporting

DIRECTORY = BUILD / "coverage"
PACKAGES = ["gcovr"]
SEEDS = 300             # of the simulation

# Conditions that hold unless the core itself is wrong: their other branch is never to be taken.
ASSERTIONS = r".*\bg_assert(_not_reached)?\(.*"


@dataclass
class FileCoverage:
    """What has been reached of one file."""

    name: str
    lines: int = 0
    lines_reached: int = 0
    branches: int = 0
    branches_reached: int = 0
    lines_missed: list[int] = field(default_factory=list)
    branches_missed: list[int] = field(default_factory=list)     # the lines they are in

    def add(self, other: "FileCoverage") -> None:
        """Count the other's with ours."""
        self.lines += other.lines
        self.lines_reached += other.lines_reached
        self.branches += other.branches
        self.branches_reached += other.branches_reached

    @property
    def line_rate(self) -> float:
        return 100 * self.lines_reached / max(self.lines, 1)

    @property
    def branch_rate(self) -> float:
        return 100 * self.branches_reached / self.branches if self.branches else 100.0


def build() -> None:
    """Everything that runs, with counters in it, and the counters at zero."""
    core.configure(DIRECTORY.name, "-Db_coverage=true", "-Dbuildtype=debug", packages=PACKAGES)
    for path in DIRECTORY.rglob("*.gcda"):
        path.unlink()
    targets = [line.partition(":")[0] for line in
               output_of(["ninja", "-C", DIRECTORY, "-t", "targets", "all"]).splitlines()]
    wanted = [target for target in targets if re.fullmatch(r"tests/unit/test-[a-z-]+|tests/sim/sim", target)]
    core.compile_in(DIRECTORY, *wanted)


def run_tests(seeds: int) -> None:
    """The unit tests and the simulation; Failure if one of them fails: figures of a broken core say nothing."""
    commands = [[path] for path in sorted((DIRECTORY / "tests/unit").glob("test-*"))
                if path.is_file() and os.access(path, os.X_OK)]
    if seeds:
        commands.append([DIRECTORY / "tests/sim/sim", "--seeds", str(seeds)])
    with Progress("running") as progress:
        for number, command in enumerate(commands):
            progress.update(number / len(commands), command[0].name)
            result = subprocess.run(command, cwd=DIRECTORY, capture_output=True, text=True, errors="replace")
            if result.returncode:
                raise Failure(f"{command[0].name} fails:\n{result.stdout[-2000:]}{result.stderr[-2000:]}")


def read_counters() -> list[FileCoverage]:
    """What gcovr makes of the counters, file by file."""
    report = DIRECTORY / "coverage.json"
    output_of(["gcovr", "--root", ROOT, "--filter", f"{re.escape(str(ROOT))}/net/colo/", "--exclude-throw-branches",
               "--exclude-unreachable-branches", "--exclude-branches-by-pattern", ASSERTIONS,
               "--exclude-lines-by-pattern", ASSERTIONS, "--json", report, DIRECTORY / "libcolo-core.a.p"])
    files = []
    for entry in json.loads(report.read_text(encoding="utf-8"))["files"]:
        one = FileCoverage(Path(entry["file"]).name)
        for line in entry["lines"]:
            if line.get("gcovr/noncode") or line.get("gcovr/excluded"):
                continue
            one.lines += 1
            one.lines_reached += line["count"] > 0
            if not line["count"]:
                one.lines_missed.append(line["line_number"])
            one.branches += len(line["branches"])
            reached = sum(branch["count"] > 0 for branch in line["branches"])
            one.branches_reached += reached
            if line["count"] and reached < len(line["branches"]):
                one.branches_missed.append(line["line_number"])
        files.append(one)
    return sorted(files, key=lambda one: one.name)


def print_table(files: list[FileCoverage], total: FileCoverage, missed: bool) -> None:
    print(f"{'net/colo/':22} {'lines':>13} {'%':>6} {'branches':>13} {'%':>6}")
    for one in (*files, total):
        print(f"{one.name:22} {one.lines_reached:6}/{one.lines:<6} {one.line_rate:6.1f} "
              f"{one.branches_reached:6}/{one.branches:<6} {one.branch_rate:6.1f}")
    if missed:
        for one in files:
            for numbers, what in ((one.lines_missed, "line"), (one.branches_missed, "branch")):
                source = (ROOT / "net/colo" / one.name).read_text(encoding="utf-8").splitlines()
                for number in numbers:
                    print(f"{one.name}:{number}: {what} not reached: {source[number - 1].strip()}")
    print("(left out: the branches of g_assert(), which are never to be taken)")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="coverage",
        description="Build the core with counters, run the unit tests and the simulation, and print which share of "
                    "its lines and branches they reach. Exit status 1 below the limits.")
    parser.add_argument("--lines", metavar="PERCENT", type=float, default=95, help="limit (default: %(default)s)")
    parser.add_argument("--branches", metavar="PERCENT", type=float, default=90, help="limit (default: %(default)s)")
    parser.add_argument("--missed", action="store_true", help="print the lines and branches that are not reached")
    parser.add_argument("--seeds", metavar="N", type=int, default=SEEDS,
                        help="of the simulation; 0: the unit tests alone (default: %(default)s)")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    with reporting("coverage"):
        build()
        run_tests(arguments.seeds)
        files = read_counters()
        if not files:
            raise Failure("gcovr has found no counters of the core; remove build/coverage and try again")
        total = FileCoverage("total")
        for one in files:
            total.add(one)
        print_table(files, total, arguments.missed)
        if total.line_rate < arguments.lines or total.branch_rate < arguments.branches:
            raise Failure(f"below {arguments.lines:g} % of lines or {arguments.branches:g} % of branches; "
                          "--missed shows what is not reached")
        sys.exit(0)


if __name__ == "__main__":
    main()
