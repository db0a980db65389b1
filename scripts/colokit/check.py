# SPDX-License-Identifier: GPL-2.0-or-later
"""scripts/check: every test there is, quick ones first, counted in one line at the end.

A suite is a function that runs its tests and reports each to a Tally.  What a
suite cannot do for want of something is reported as skipped, never left out.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import subprocess
import sys
import time
import unittest
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable

from . import build, core, fuzz, guest
from . import mutants as core_mutants
from . import replay as colo_replay
from .machine import BUILD, ROOT, Failure, become_root, need, reporting
from .series import SERIES, STABLE, own_series

TIDY_PACKAGES = ["clang-tidy", "clang"]
REPLAY_PACKAGES = ["tshark", "iproute2", "util-linux"]
PAIR_PACKAGES = ["iproute2"]
SCRIPTS_PACKAGES = ["python3-docutils"]
# The pair tests that do not say which objects they are about, and are about any.
PROXY_TOO = re.compile(r"^pair\.test_(?!usage|proxy|libvirt|loading|barrier|frame\.(Memory|Translations)Test)")
FUZZ_SECONDS = 5            # for each target
QTEST_TIMEOUT = 600         # seconds for one program

# Classes of the simulation's events that give no reason to ask for a checkpoint.
SIM_HARMLESS = ("checkpoints", "ipv6", "vlan", "offload", "timestamps", "sack", "window-scale", "urgent", "half-close",
                "keep-alive", "reuse")

# QEMU's own tests of the objects we replace, built from its tree as they are.
HOST_QTESTS = ("test-filter-mirror", "test-filter-redirector", "test-netfilter")


@dataclass
class Tally:
    """The outcome of every test so far."""

    passed: int = 0
    failures: list[str] = field(default_factory=list)
    skips: list[str] = field(default_factory=list)
    about: str = ""             # which QEMU the tests are run with, if with any

    def ok(self, name: str) -> None:
        self.passed += 1
        print(f"  ok      {name}", flush=True)

    def fail(self, name: str, why: str = "") -> None:
        self.failures.append(self.about + name)
        print(f"  FAILED  {name}", flush=True)
        for line in why.strip().splitlines()[-100:]:
            print(f"          {line[:300]}", flush=True)

    def skip(self, name: str, why: str) -> None:
        self.skips.append(self.about + name)
        print(f"  skipped {name}: {why}", flush=True)

    def count(self) -> int:
        return self.passed + len(self.failures) + len(self.skips)

    def closing_line(self) -> str:
        return f"{self.passed} passed, {len(self.failures)} failed, {len(self.skips)} skipped"


# ---------------------------------------------------------------- the core

def unit(tally: Tally, _: argparse.Namespace) -> None:
    """libcheck on the core, plain and under the sanitizers"""
    for name, options in (("core", ()), ("core-asan", (core.SANITIZED,))):
        directory = core.build(name, *options)
        for program in sorted((directory / "tests/unit").glob("test-*")):
            if not program.is_file() or not os.access(program, os.X_OK):
                continue
            title = f"{name}/{program.name}"
            result = subprocess.run([program], cwd=directory, capture_output=True, text=True,
                                    env={**os.environ, "UBSAN_OPTIONS": "halt_on_error=1"})
            counts = re.search(r"Checks: (\d+), Failures: (\d+), Errors: (\d+)", result.stdout)
            if not counts:
                tally.fail(title, result.stdout + result.stderr)
                continue
            checks, failures, errors = map(int, counts.groups())
            tally.passed += checks - failures - errors
            print(f"  ok      {title}: {checks - failures - errors} of {checks}", flush=True)
            for line in result.stdout.splitlines()[1:]:
                if re.search(r":[FE]:", line):
                    tally.fail(f"{title}: {line}")
            if result.returncode and not failures + errors:
                tally.fail(title, result.stderr)


def sim(tally: Tally, _: argparse.Namespace) -> None:
    """seeded simulation of the core, and small spaces whole"""
    fresh = time.time_ns() // 1000
    harmless = [word for name in SIM_HARMLESS for word in ("--only", name)]
    # Periodic checkpoints would settle what the slow link has put in another order.
    slow = [word for name in (*SIM_HARMLESS, "slow-link") if name != "checkpoints"
            for word in ("--only", name)]
    for name, options, fixed in (("core", (), 4000), ("core-asan", (core.SANITIZED,), 400)):
        program = core.build(name, *options) / "tests/sim/sim"
        for title, arguments in (("small spaces", ["--enumerate"]),
                                 ("the first seeds", ["--seeds", str(fixed)]),
                                 ("few checkpoints without faults",
                                  ["--seeds", str(fixed // 2), "--asked-at-most", str(fixed // 100), *harmless]),
                                 ("few checkpoints with a slow link",
                                  ["--seeds", str(fixed // 2), "--asked-at-most", str(fixed // 400), *slow]),
                                 ("fresh seeds", ["--first", str(fresh), "--minutes", "0.2"])):
            result = subprocess.run([program, *arguments], capture_output=True, text=True,
                                    env={**os.environ, "UBSAN_OPTIONS": "halt_on_error=1:abort_on_error=1"})
            if result.returncode:
                tally.fail(f"{name}/sim, {title}", result.stdout + result.stderr)
            else:
                counts = "; ".join(line.removeprefix("sim: ") for line in result.stdout.splitlines())
                tally.ok(f"{name}/sim, {title}: {counts}")


def mutants(tally: Tally, _: argparse.Namespace) -> None:
    """the core broken in known ways, one at a time: the unit tests notice"""
    for mutant, caught, how in core_mutants.run(core_mutants.read_table(), core_mutants.JOBS):
        if caught:
            tally.ok(f"{mutant.name}: {how}")
        else:
            tally.fail(mutant.name, how)


def tidy(tally: Tally, _: argparse.Namespace) -> None:
    """clang-tidy on the core"""
    need(TIDY_PACKAGES)
    directory = core.build("core")
    for path in sorted((ROOT / "net/colo").glob("*.c")):
        result = subprocess.run(["clang-tidy", "--quiet", "-p", str(directory), str(path)],
                                capture_output=True, text=True)
        if result.returncode or "warning:" in result.stdout:
            tally.fail(f"clang-tidy {path.name}", result.stdout + result.stderr)
        else:
            tally.ok(f"clang-tidy {path.name}")


# ---------------------------------------------------------------- Python tests

class _Reporter(unittest.TestResult):
    """Hands each outcome to a tally as it comes."""

    def __init__(self, tally: Tally, verbose_start: bool):
        super().__init__()
        self.tally = tally
        self.verbose_start = verbose_start
        self.began = 0.0
        self.under_way: unittest.TestCase | None = None

    def startTest(self, test) -> None:
        super().startTest(test)
        self.under_way = test
        self.began = time.monotonic()

    def _name(self, test) -> str:
        took = time.monotonic() - self.began if self.verbose_start else 0.0
        return test.id() + (f" ({took:.1f} s)" if took else "")

    def addSuccess(self, test) -> None:
        self.tally.ok(self._name(test))

    def addFailure(self, test, err) -> None:
        explain = getattr(test, "explain", lambda: "")
        self.tally.fail(self._name(test), f"{self._exc_info_to_string(err, test)}\n{explain()}")

    def addError(self, test, err) -> None:
        self.addFailure(test, err)

    def addSubTest(self, test, subtest, err) -> None:
        if err is not None:
            self.tally.fail(str(subtest), self._exc_info_to_string(err, test))

    def addSkip(self, test, reason) -> None:
        self.tally.skip(test.id(), reason)

    def addExpectedFailure(self, test, err) -> None:
        self.tally.fail(self._name(test), "is marked as an expected failure")

    def addUnexpectedSuccess(self, test) -> None:
        self.tally.ok(self._name(test))


def _run_unittests(tally: Tally, directory: Path, pattern: re.Pattern[str] | None, timed: bool) -> None:
    for path in sorted(directory.glob("test_*.py")):
        spec = importlib.util.spec_from_file_location(f"{directory.name}.{path.stem}", path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        suite = unittest.defaultTestLoader.loadTestsFromModule(module)
        for test in _flatten(suite):
            if pattern and not pattern.search(test.id()):
                _forget(suite, test)
        reporter = _Reporter(tally, timed)
        try:
            suite.run(reporter)
        except KeyboardInterrupt:
            # unittest cleans up after failures only.
            if reporter.under_way:
                reporter.under_way.doCleanups()
                reporter.under_way.doClassCleanups()
            raise


def _flatten(suite: unittest.TestSuite) -> list[unittest.TestCase]:
    return [case for item in suite
            for case in (_flatten(item) if isinstance(item, unittest.TestSuite) else [item])]


def _forget(suite: unittest.TestSuite, test: unittest.TestCase) -> None:
    for item in suite:
        if isinstance(item, unittest.TestSuite):
            _forget(item, test)
    suite._tests = [item for item in suite._tests if item is not test]


def scripts(tally: Tally, arguments: argparse.Namespace) -> None:
    """the graft, where sources come from, the connection to a monitor, the documentation's form"""
    need(SCRIPTS_PACKAGES)
    all_series = [arguments.series] if arguments.series else STABLE
    for series in all_series:
        build.pristine(series)
    os.environ["COLO_SERIES"] = " ".join(all_series)
    _run_unittests(tally, ROOT / "tests/scripts", arguments.pattern, timed=False)


def replay(tally: Tally, arguments: argparse.Namespace) -> None:
    """colo-replay: captures of real TCP/IP stacks through the core, with tshark as second opinion"""
    need(REPLAY_PACKAGES)
    os.environ.setdefault("COLO_REPLAY", str(colo_replay.build()))
    os.environ.setdefault("COLO_REPLAY_SANITIZED", str(colo_replay.build("core-asan", core.SANITIZED)))
    _run_unittests(tally, ROOT / "tests/replay", arguments.pattern, timed=True)


def fuzzing(tally: Tally, _: argparse.Namespace) -> None:
    """the inputs kept by fuzzing, again, and a few seconds of new ones for each target, under the sanitizers"""
    directory = core.build("core-asan", core.SANITIZED)
    for target in fuzz.TARGETS:
        result = subprocess.run([directory / f"tests/fuzz/fuzz-replay-{target}", fuzz.KEPT / target],
                                capture_output=True, text=True, errors="replace")
        title = f"kept inputs of {target}"
        if result.returncode:
            tally.fail(title, result.stdout + result.stderr)
        else:
            tally.ok(f"{title}: {result.stdout.strip()}")
    fuzz.build()
    for target in fuzz.TARGETS:
        outcome = fuzz.fuzz(target, seconds=FUZZ_SECONDS)
        if outcome.found:
            tally.fail(outcome.text(), fuzz.explain(outcome))
        else:
            tally.ok(outcome.text())


def _emulator(arguments: argparse.Namespace) -> Path:
    """QEMU with the objects in it, of the series whose turn it is."""
    return build.build_qemu(arguments.series, sanitize=arguments.sanitize)


def pair(tally: Tally, arguments: argparse.Namespace) -> None:
    """two real guests under COLO, and a client"""
    need(PAIR_PACKAGES)
    os.environ["COLO_QEMU"] = arguments.emulator or str(_emulator(arguments))
    guest.build()
    _run_unittests(tally, ROOT / "tests/pair", arguments.pattern, timed=True)


def proxy(tally: Tally, arguments: argparse.Namespace) -> None:
    """the same with one colo-proxy on each side in place of the four objects"""
    need(PAIR_PACKAGES)
    os.environ["COLO_QEMU"] = arguments.emulator or str(_emulator(arguments))
    guest.build()
    os.environ["COLO_USAGE"] = "proxy"
    try:
        _run_unittests(tally, ROOT / "tests/pair", arguments.pattern or PROXY_TOO, timed=True)
    finally:
        del os.environ["COLO_USAGE"]


# ---------------------------------------------------------------- qtests

def qtest(tally: Tally, arguments: argparse.Namespace) -> None:
    """the objects inside QEMU, without a guest: QEMU's own tests, then ours"""
    emulator = _emulator(arguments)
    ours = sorted(path.stem for path in (ROOT / "tests/qtest").glob("colo-*-test.c"))
    for name in (*HOST_QTESTS, *ours):
        _run_qtest(tally, emulator, name, arguments.pattern)


def _run_qtest(tally: Tally, emulator: Path, name: str, pattern: re.Pattern[str] | None) -> None:
    program = emulator.parent / "tests/qtest" / name
    # Memory that has been freed must not stay for long: some tests look at how much there is.
    environment = {"ASAN_OPTIONS": "quarantine_size_mb=8", **os.environ, "QTEST_QEMU_BINARY": str(emulator),
                   "G_TEST_DBUS_DAEMON": ""}
    chosen = []
    if pattern:
        listed = subprocess.run([program, "-l"], cwd=emulator.parent, capture_output=True, text=True, env=environment).stdout
        paths = [path for path in re.findall(r"^/\S+$", listed, re.M) if pattern.search(f"{name}: {path}")]
        chosen = [word for path in paths for word in ("-p", path)]
        if not chosen:
            return
    log = BUILD / "log" / f"qtest-{name}.log"
    ended = ""
    with open(log, "w+", encoding="utf-8", errors="replace") as out:
        try:
            status = subprocess.run([program, "--tap", "-k", *chosen], cwd=emulator.parent, stdout=out, stderr=out,
                                    stdin=subprocess.DEVNULL, env=environment,
                                    timeout=QTEST_TIMEOUT).returncode
        except subprocess.TimeoutExpired:
            status, ended = 1, f"not within {QTEST_TIMEOUT} s"
        out.seek(0)
        text = out.read()
    plan = re.search(r"^1\.\.(\d+)", text, re.M)
    outcomes = re.findall(r"^(ok|not ok) \d+ (\S+)(.*)$", text, re.M)
    for word, test, rest in outcomes:
        title = f"{name}: {test}"
        if "# SKIP" in rest:
            tally.skip(title, rest.partition("# SKIP")[2].strip())
        elif word == "ok":
            tally.ok(title)
        else:
            tally.fail(title, f"see {log}")
    planned = len(chosen) // 2 if chosen else int(plan[1]) if plan else len(outcomes) + 1
    missing = planned - len(outcomes)
    failed = any(word == "not ok" for word, _, _ in outcomes)
    if missing > 0 or (status and not failed):
        said = "\n".join(line for line in text.splitlines() if not line.startswith("# starting QEMU"))
        tally.fail(f"{name}: {missing} tests did not end, status {status} {ended}; see {log}", said)


# ---------------------------------------------------------------- all

Suite = Callable[[Tally, argparse.Namespace], None]

SUITES: dict[str, Suite] = {
    "unit": unit,
    "fuzz": fuzzing,
    "sim": sim,
    "mutants": mutants,
    "tidy": tidy,
    "scripts": scripts,
    "replay": replay,
}

# These are run with the QEMU of each series.
SUITES_IN_QEMU: dict[str, Suite] = {
    "qtest": qtest,
    "pair": pair,
    "proxy": proxy,
}


def _regex(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"'{text}' is no regular expression: {error}") from error


def parse_arguments() -> argparse.Namespace:
    suites = {**SUITES, **SUITES_IN_QEMU}
    listing = "; ".join(f"{name}: {suite.__doc__}" for name, suite in suites.items())
    parser = argparse.ArgumentParser(
        prog="check",
        description="Build what is needed and run every test. The last line counts them; exit status "
                    "0 if none failed.",
        epilog=f"The suites: {listing}.")
    parser.add_argument("--only", metavar="SUITE", action="append", choices=suites,
                        help="run this suite only (may be repeated)")
    parser.add_argument("--pattern", metavar="REGEX", type=_regex,
                        help="of the scripts, replay, qtest, pair and proxy suites, run only tests whose name fits")
    parser.add_argument("--sanitize", action="store_true",
                        help="let the qtest, pair and proxy suites use a QEMU built with the sanitizers")
    parser.add_argument("--series", choices=SERIES, help=f"the series of QEMU (default: {', '.join(STABLE)}, one after the other)")
    return parser.parse_args()


def _run(tally: Tally, name: str, suite: Suite, arguments: argparse.Namespace) -> None:
    if arguments.only and name not in arguments.only:
        return
    print(f"{tally.about}{name}: {suite.__doc__}", flush=True)
    try:
        suite(tally, arguments)
    except Failure as failure:
        tally.fail(name, str(failure))


def main() -> None:
    arguments = parse_arguments()
    tally = Tally()
    with reporting("check"):
        if not arguments.only or {"pair", "proxy"} & set(arguments.only):
            become_root("check")
        for name, suite in SUITES.items():
            _run(tally, name, suite, arguments)
        # Somebody's own QEMU takes the place of all in which guests run.
        arguments.emulator = os.environ.get("COLO_QEMU")
        wanted = [arguments.series] if arguments.series else [own_series()] if arguments.emulator else STABLE
        for arguments.series in wanted:
            for name, suite in SUITES_IN_QEMU.items():
                own = arguments.emulator if suite is not qtest else None     # whose tests are built with their QEMU
                tally.about = f"QEMU {own or arguments.series}: "
                _run(tally, name, suite, arguments)
        tally.about = ""
        if arguments.pattern and not tally.count():
            tally.fail("check", f"no test's name fits --pattern {arguments.pattern.pattern}; without it, all are run and named")
        for name in tally.failures:
            print(f"failed: {name}")
        for name in tally.skips:
            print(f"skipped: {name}")
        print(tally.closing_line(), flush=True)
        sys.exit(1 if tally.failures else 0)


if __name__ == "__main__":
    main()
