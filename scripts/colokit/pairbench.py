# SPDX-License-Identifier: GPL-2.0-or-later
"""scripts/bench pair: what protection costs a guest's clients.

The same guest and the same client under five set-ups:

    native   one guest, unprotected
    twin     both guests run on the same input; the primary's output leaves at once and
             the secondary's goes nowhere: no scheme with two guests can be faster
    stock    QEMU's own objects, with the host's faults mended
    ours     the suite
    proxy    the same as one colo-proxy on each side

Each workload meets each set-up on guests booted for it; the set-ups take turns.  The client
works for a second before it is measured: TCG translates code when it is run first.

Each QEMU keeps to its half of the processors, under every set-up: the two halves stand for two
hosts.  Left to itself, the kernel puts a thread where its waker runs, so that both guests now
and then share one processor while another idles; that is not what is to be measured.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Callable, Sequence

from . import build, chart, guest
from .figures import (DIRECTORY, DOCUMENT, Figure, as_text, build_programs, columns, kept, look_for_others, program,
                      update_document)
from .machine import ROOT, Failure, Progress, become_root, need, wait_until
from .pair import Pair, running
from .series import add_series_option

PACKAGES = ["wrk"]
EMULATOR = ["qemu-system-x86_64"]
PICTURE = ROOT / "docs/bench-pair.svg"
WRK_SCRIPT = ROOT / "tests/bench/wrk.lua"

NATIVE, TWIN, STOCK, OURS, PROXY = "native", "twin", "stock", "ours", "proxy"
SETUPS = (NATIVE, TWIN, STOCK, OURS, PROXY)

REQUEST_TIMEOUT = 20            # seconds that the client waits for an answer
WARMING = 1.0                   # seconds
WARMING_PART = 10               # of the size of transfers
IDLE_SECONDS = 8.0              # for the checkpoints of an idle guest
IDLE_DELAY = 200                # ms between two of them
COMPARE_TIMEOUT = 3000.0        # ms; the default of colo-compare

PAUSE_GOAL = 15.0               # ms that an idle guest stands still for a checkpoint, at most

# What the suite is to reach.
THROUGHPUT_GOAL = 0.85          # of twin's, at least
LATENCY_GOAL = (1.5, 1.0)       # p99, at most so many times twin's and so many ms more
CHECKPOINT_GOAL = 1.0           # for 1000 requests, at most
DIVERGING_GOAL = 5.0            # times stock's throughput, at least
PROXY_THROUGHPUT_GOAL = 0.9     # of twin's, at least
PROXY_COST_GOAL = 0.5           # of ours's processor time for a packet, at most


# --------------------------------------------------------------- what is done

@dataclass(frozen=True)
class Workload:
    """What the client does: words of colo-bench-client, or wrk."""

    name: str
    jobs: tuple[str, ...] = ()  # "{v4}" and "{v6}" stand for the guest's addresses
    wrk: str = ""               # the address that wrk asks, instead of jobs
    unit: str = "req/s"         # or MB/s
    diverges: bool = False      # by nature: the answers are random
    dated: bool = False         # the answers tell the time: now and then they differ; what that costs is shown


def _both(name: str, *jobs: str, **options: Any) -> list[Workload]:
    """The same over IPv4 and over IPv6."""
    return [Workload(name, tuple(f"{job},address={{v4}}" for job in jobs), **options),
            Workload(f"{name}-ipv6", tuple(f"{job},address={{v6}}" for job in jobs), **options)]


WORKLOADS = (
    *_both("http-1", "http,at-once=1"),
    *_both("http-8", "http,at-once=8"),
    *_both("http-32", "http,at-once=32"),
    Workload("keep-alive", wrk="{v4}"),
    Workload("keep-alive-ipv6", wrk="{v6}"),
    *_both("download", "download,at-once=4,size=20000000", unit="MB/s"),
    *_both("upload", "upload,size=100000000", unit="MB/s"),
    *_both("udp", "udp,at-once=4,size=100"),
    *_both("ping", "ping,rate=200"),
    Workload("mix", ("http,at-once=2,address={v4}", "http,at-once=2,address={v6}", "keep-alive,at-once=2,address={v4}",
                     "download,at-once=1,size=1000000,repeat=on,address={v4}", "udp,at-once=1,address={v4}",
                     "ping,rate=20,address={v4}", "ping,rate=20,address={v6}")),
    Workload("dates", ("http,at-once=8,path=/date,address={v4}",), dated=True),
    Workload("random", ("random,at-once=8,size=2000,address={v4}",), diverges=True),
)


@dataclass(frozen=True)
class Setup:
    """How the guests are protected."""

    name: str
    emulator: Path
    usage: str
    apart: bool = True          # each QEMU keeps to its half of the processors

    def options(self) -> dict[str, Any]:
        """For the pair."""
        return {"usage": self.usage, "apart": self.apart}


@dataclass
class Run:
    """One round of one workload under one set-up."""

    requests: int = 0
    failures: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    bytes: int = 0
    seconds: float = 0.0
    p50: float = math.inf               # ms
    p99: float = math.inf
    max: float = math.inf
    gap: float = 0.0                    # ms, the longest without progress in a request
    checkpoints: int = 0
    periodic: int = 0                   # of these, those that would have been made anyway, at most
    pauses: list[float] = field(default_factory=list)   # ms that the primary stood still for each
    cost: float = math.nan              # us of processor time for a packet, in the primary's QEMU but not its guest
    trouble: list[str] = field(default_factory=list)    # what the guests' consoles tell
    divergences: dict[str, int] = field(default_factory=dict)   # ours: by reason

    def throughput(self, workload: Workload) -> float:
        done = self.bytes / 1e6 if workload.unit == "MB/s" else self.requests
        return done / self.seconds if self.seconds else 0.0

    @property
    def per_thousand(self) -> float:
        """Checkpoints beyond the periodic ones for 1000 requests."""
        return 1000 * max(0, self.checkpoints - self.periodic) / self.requests if self.requests else math.inf


# --------------------------------------------------------------- measuring

def warm(pair: Pair, workload: Workload) -> None:
    """Have the client do the same for a moment."""
    jobs = tuple(re.sub(r"size=(\d{6,})", lambda found: f"size={int(found[1]) // WARMING_PART}", job)
                 for job in workload.jobs)
    client(pair, replace(workload, jobs=jobs), WARMING)


def client(pair: Pair, workload: Workload, seconds: float) -> Run:
    """Have the client do its work."""
    network = pair.network
    place = {"v4": network.guest_address, "v6": network.guest_address6}
    if workload.wrk:
        address = workload.wrk.format(**place)
        url = f"http://[{address}]/" if ":" in address else f"http://{address}/"
        command = ["wrk", "-t1", "-c8", f"-d{max(1, round(seconds))}s", f"--timeout={REQUEST_TIMEOUT}s", "-s", WRK_SCRIPT,
                   url]
    else:
        command = [program("colo-bench-client"), "--seconds", seconds, "--timeout", REQUEST_TIMEOUT,
                   *(job.format(**place) for job in workload.jobs)]
    result = subprocess.run(network.client.command([str(word) for word in command]), capture_output=True, text=True)
    if result.returncode:
        raise Failure(f"{workload.name}: {result.stderr.strip()}")
    jobs = json.loads(result.stdout.splitlines()[-1] if workload.wrk else result.stdout)["jobs"]
    answered = [job for job in jobs if job["requests"]]
    errors: dict[str, int] = {}
    for job in jobs:
        for text, count in job["errors"].items():
            errors[text] = errors.get(text, 0) + count
    return Run(requests=sum(job["requests"] for job in jobs), failures=sum(job["failures"] for job in jobs),
               errors=errors, bytes=sum(job["bytes"] for job in jobs), seconds=max(job["seconds"] for job in jobs),
               **{name: max((job[name] for job in answered), default=math.inf) for name in ("p50", "p99", "max")},
               gap=max(job["gap"] for job in jobs))


def measure(setup: Setup, workload: Workload, seconds: float) -> Run:
    """Boot the guests, let the client work, and look at what has become of all."""
    with running(setup.emulator, **setup.options()) as pair:
        warm(pair, workload)
        before = pair.checkpoints() if pair.secondary else 0
        paused = len(pair.pauses())
        spent, passed = pair.primary.overhead(), pair.network.packets("primary")
        run = client(pair, workload, seconds)
        passed = pair.network.packets("primary") - passed
        run.cost = 1e6 * (pair.primary.overhead() - spent) / max(passed, 1)
        if pair.secondary:
            run.checkpoints = pair.checkpoints() - before
            run.periodic = 1 + int(run.seconds * 1000 / pair.options.checkpoint_delay)
            run.pauses = [pause * 1000 for pause in pair.pauses()[paused:]]
        run.trouble = pair.trouble() + [f"the {qemu.role} QEMU has ended" for qemu in pair.processes()
                                        if not qemu.alive]
        if setup.name in (OURS, PROXY):
            run.divergences = pair.divergences()
    return run


@dataclass
class Idle:
    """Checkpoints of an idle guest."""

    pauses: list[float]             # ms, as the primary's QEMU tells
    inside: float                   # ms, the mean as the guest itself tells


def measure_idle(setup: Setup) -> Idle:
    with running(setup.emulator, run="clock", checkpoint_delay=IDLE_DELAY, **setup.options()) as pair:
        def lost() -> float:
            """Microseconds that the guest has missed so far; new each second."""
            return float(re.findall(r"clock: \d+ s, (-?\d+) us lost", pair.primary.console())[-1])

        pair.wait_checkpoints(5)
        wait_until(lambda: "us lost" in pair.primary.console(), 10, "the guest's clock")
        time.sleep(1)
        before, lost_before = len(pair.pauses()), lost()
        time.sleep(IDLE_SECONDS)
        pauses, lost_after = pair.pauses()[before:], lost()
    return Idle([pause * 1000 for pause in pauses], (lost_after - lost_before) / 1000 / max(len(pauses), 1))


Results = dict[Workload, dict[str, list[Run]]]


def measure_all(setups: Sequence[Setup], workloads: Sequence[Workload], rounds: int, seconds: float) -> Results:
    results: Results = {workload: {setup.name: [] for setup in setups} for workload in workloads}
    steps = rounds * len(workloads) * len(setups)
    with Progress("workloads on pairs") as progress:
        done = 0
        for number in range(rounds):
            for workload in workloads:
                for setup in setups:
                    progress.update(done / steps, f"round {number + 1}, {workload.name}, {setup.name}")
                    try:
                        run = measure(setup, workload, seconds)
                    except Failure as failure:
                        # Stock may not get so far; that is a result, too.
                        run = Run(failures=1, errors={str(failure).splitlines()[0]: 1})
                    results[workload][setup.name].append(run)
                    done += 1
    return results


# --------------------------------------------------------------- telling

def figure(runs: Sequence[Run], what: Callable[[Run], float]) -> Figure:
    return Figure([what(run) for run in runs])


def ratio(mine: Sequence[Run], theirs: Sequence[Run], what: Callable[[Run], float]) -> Figure:
    """Within each round."""
    return Figure([what(a) / what(b) if what(b) else math.inf for a, b in zip(mine, theirs)])


def number(value: float) -> str:
    """Three digits or so."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def spread(figure: Figure) -> str:
    return f"{number(figure.median)} ({number(min(figure.values))}..{number(max(figure.values))})"


def tables_of(results: Results) -> dict[str, list[str]]:
    names = list(next(iter(results.values())))
    rates = [["workload", "unit", *names]]
    pairs = [(mine, theirs) for mine, theirs in ((OURS, TWIN), (OURS, STOCK), (OURS, NATIVE), (PROXY, TWIN), (PROXY, OURS))
             if mine in names and theirs in names]
    ratios = [["workload", *(f"{mine} / {theirs}" for mine, theirs in pairs)]]
    costs = [["workload", *names]]
    latencies = [["workload", *(f"{name}: p50, p99, max" for name in names)]]
    checkpoints = [["workload", *(f"{name}: for 1000 requests" for name in (STOCK, OURS, PROXY) if name in names),
                    *(f"{name}: pause, ms" for name in (STOCK, OURS, PROXY) if name in names), "why (ours, all rounds)"]]
    faults = [["workload", "set-up", "failures", "longest gap, ms", "what"]]
    for workload, by_name in results.items():
        rates.append([workload.name, workload.unit,
                      *(spread(figure(runs, lambda run: run.throughput(workload))) for runs in by_name.values())])
        ratios.append([workload.name, *(spread(ratio(by_name[mine], by_name[theirs], lambda run: run.throughput(workload)))
                                        for mine, theirs in pairs)])
        costs.append([workload.name, *(spread(figure(runs, lambda run: run.cost)) for runs in by_name.values())])
        latencies.append([workload.name,
                          *(", ".join(number(figure(runs, lambda run, key=key: getattr(run, key)).median)
                                      for key in ("p50", "p99", "max")) for runs in by_name.values())])
        row = [workload.name]
        for name in (STOCK, OURS, PROXY):
            if name in names:
                row.append(spread(figure(by_name[name], lambda run: run.per_thousand)))
        for name in (STOCK, OURS, PROXY):
            if name in names:
                pauses = Figure([pause for run in by_name[name] for pause in run.pauses])
                row.append(spread(pauses) if pauses.values else "none")
        reasons: dict[str, int] = {}
        for run in by_name.get(OURS, ()):
            for reason, count in run.divergences.items():
                reasons[reason] = reasons.get(reason, 0) + count
        row.append(", ".join(f"{reason}: {count}" for reason, count in sorted(reasons.items())) or "none")
        checkpoints.append(row)
        for name, runs in by_name.items():
            what = sorted({text for run in runs for text in [*run.errors, *run.trouble]})
            failures, gap = sum(run.failures for run in runs), max(run.gap for run in runs)
            if failures or what or gap > COMPARE_TIMEOUT:
                faults.append([workload.name, name, str(failures), f"{gap:.0f}", "; ".join(what)[:90] or "stalled"])
    tables = {"Throughput": columns(rates)}
    if len(ratios[0]) > 1:
        tables["Ours beside the others, throughput"] = columns(ratios)
    tables["Microseconds of processor time for a packet, in the primary's QEMU without its guest"] = columns(costs)
    tables["Milliseconds to an answer (of a transfer: until its end)"] = columns(latencies)
    tables["Checkpoints beyond the periodic ones, and how long the primary's guest stood still for each"] = \
        columns(checkpoints)
    if len(faults) > 1:
        tables["What went wrong"] = columns(faults)
    return tables


def idle_table(idle: dict[str, list[Idle]]) -> dict[str, list[str]]:
    rows = [["set-up", "checkpoints", "the guest stood still, ms", "as it tells itself (mean)", "wanted", "reached"]]
    for name, rounds in idle.items():
        pauses = Figure([pause for each in rounds for pause in each.pauses])
        reached = pauses.median <= PAUSE_GOAL and max(each.inside for each in rounds) <= PAUSE_GOAL
        rows.append([name, str(len(pauses.values)), spread(pauses), spread(Figure([each.inside for each in rounds])),
                     f"at most {PAUSE_GOAL:g}" if name != STOCK else "", ("yes" if reached else "no") if name != STOCK else ""])
    return {"Checkpoints of an idle guest": columns(rows)}


def goals_of(results: Results) -> dict[str, list[str]]:
    """What the suite is to reach, and whether it does."""
    rows = [["workload", "goal", "wanted", "got", "reached"]]

    def goal(workload: Workload, what: str, wanted: str, got: float, reached: bool) -> None:
        rows.append([workload.name, what, wanted, number(got), "yes" if reached else "no"])

    def of(name: str, workload: Workload, by_name: dict[str, list[Run]], least: float) -> None:
        """What @name is to reach by itself, and beside twin."""
        mine = by_name[name]
        wrong = sum(run.failures + len(run.trouble) for run in mine)
        goal(workload, f"{name}: nothing goes wrong", "0 failures", wrong, wrong == 0)
        gap = max(run.gap for run in mine)
        goal(workload, f"{name}: nothing stalls", f"at most {COMPARE_TIMEOUT:.0f} ms", gap, gap <= COMPARE_TIMEOUT)
        if workload.diverges or workload.dated:
            return
        got = figure(mine, lambda run: run.per_thousand).median
        goal(workload, f"{name}: checkpoints for 1000 requests", f"at most {CHECKPOINT_GOAL:g}", got, got <= CHECKPOINT_GOAL)
        if TWIN in by_name:
            got = ratio(mine, by_name[TWIN], lambda run: run.throughput(workload)).median
            goal(workload, f"{name} / twin", f"at least {least:g}", got, got >= least)
            times, more = LATENCY_GOAL
            limit = times * figure(by_name[TWIN], lambda run: run.p99).median + more
            got = figure(mine, lambda run: run.p99).median
            goal(workload, f"{name}: p99, ms", f"at most {number(limit)}", got, got <= limit)

    for workload, by_name in results.items():
        rate = lambda run: run.throughput(workload)             # noqa: E731
        if OURS in by_name:
            of(OURS, workload, by_name, THROUGHPUT_GOAL)
        if OURS in by_name and STOCK in by_name:
            got = ratio(by_name[OURS], by_name[STOCK], rate).median
            wanted = DIVERGING_GOAL if workload.diverges else 1.0
            goal(workload, "ours / stock", f"at least {wanted:g}", got, got >= wanted)
        if PROXY in by_name:
            of(PROXY, workload, by_name, PROXY_THROUGHPUT_GOAL)
        if PROXY in by_name and OURS in by_name:
            got = ratio(by_name[PROXY], by_name[OURS], rate).median
            goal(workload, "proxy / ours", "at least 1", got, got >= 1)
            if NATIVE in by_name:
                bare = figure(by_name[NATIVE], lambda run: run.cost).median
                cost = {name: figure(by_name[name], lambda run: run.cost).median - bare for name in (PROXY, OURS)}
                got = cost[PROXY] / cost[OURS] if cost[OURS] > 0 else math.inf
                goal(workload, "proxy / ours, cost for a packet beyond native's", f"at most {PROXY_COST_GOAL:g}", got,
                     got <= PROXY_COST_GOAL)
    return {"What is to be reached": columns(rows)} if len(rows) > 1 else {}


def draw(results: Results) -> str:
    """The picture: a panel for each workload, as parts of native."""
    panels = []
    for workload, by_name in results.items():
        if workload.name.endswith("-ipv6"):
            continue
        bars = []
        for name in (STOCK, OURS, PROXY, TWIN, NATIVE):
            if name in by_name:
                rate = figure(by_name[name], lambda run: run.throughput(workload))
                bars.append((name, rate.median, min(rate.values), max(rate.values)))
        panels.append(chart.Panel(workload.name, [(workload.unit, bars)]))
    return chart.grouped_bars("What the client gets: throughput of a guest, unprotected and protected", panels,
                              order=(STOCK, OURS, PROXY, TWIN, NATIVE))


# --------------------------------------------------------------- the command

def setups_of(arguments: argparse.Namespace) -> list[Setup]:
    wanted = arguments.setup or SETUPS
    ours = arguments.emulator
    if not ours:
        ours = kept(build.build_qemu(arguments.series, targets=EMULATOR), "qemu-pair")
    setups = [Setup(name, ours, usage, not arguments.together)
              for name, usage in ((NATIVE, "none"), (TWIN, "twin"), (OURS, "current"), (PROXY, "proxy"))]
    if STOCK in wanted:
        stock = kept(build.build_qemu(arguments.series, stock=True, targets=EMULATOR), "qemu-pair-stock")
        setups.insert(2, Setup(STOCK, stock, "current", not arguments.together))
    return [setup for setup in setups if setup.name in wanted]


def pair(arguments: argparse.Namespace) -> None:
    workloads = [workload for workload in WORKLOADS
                 if not arguments.workload or workload.name in arguments.workload]
    unknown = set(arguments.workload or []) - {workload.name for workload in WORKLOADS}
    if unknown:
        raise Failure(f"--workload {unknown.pop()}: there are {', '.join(each.name for each in WORKLOADS)}")
    if arguments.rounds < 1 or arguments.seconds <= 0:
        raise Failure("--rounds and --seconds want more than nothing")
    if arguments.update_docs and (arguments.workload or arguments.setup or arguments.quick or arguments.together):
        raise Failure("--update-docs wants the whole measurement: no --workload, --setup, --together or --quick")
    rounds, seconds = (1, 1.0) if arguments.quick else (arguments.rounds, arguments.seconds)

    become_root("bench")
    need(PACKAGES)
    build_programs(["colo-bench-client"])
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    setups = setups_of(arguments)
    guest.build()
    look_for_others(arguments.update_docs)
    results = measure_all(setups, workloads, rounds, seconds)
    idle: dict[str, list[Idle]] = {}
    if not arguments.workload:
        with Progress("checkpoints of an idle guest"):
            for _ in range(rounds):
                for setup in setups:
                    if setup.name in (STOCK, OURS, PROXY):
                        idle.setdefault(setup.name, []).append(measure_idle(setup))

    tables = goals_of(results) | tables_of(results) | (idle_table(idle) if idle else {})
    note = f"Median (least..greatest) of {rounds} round{'s' * (rounds > 1)} of {seconds:g} s, taken in turns."
    text = as_text(tables, note)
    (DIRECTORY / "pair.txt").write_text(text, encoding="utf-8")
    (DIRECTORY / "pair.json").write_text(json.dumps(
        {workload.name: {name: [vars(run) | {"throughput": run.throughput(workload), "unit": workload.unit}
                                for run in runs] for name, runs in by_name.items()}
         for workload, by_name in results.items()} |
        {"idle": {name: [vars(each) for each in rounds] for name, rounds in idle.items()}}, indent=1) + "\n",
        encoding="utf-8")
    sys.stdout.write(text)
    if arguments.plot:
        arguments.plot.write_text(draw(results), encoding="utf-8")
    if arguments.update_docs:
        update_document("pair", tables, note)
        PICTURE.write_text(draw(results), encoding="utf-8")


def add_command(commands: argparse._SubParsersAction) -> None:
    names = ", ".join(workload.name for workload in WORKLOADS)
    command = commands.add_parser(
        "pair", help="a protected guest's clients, beside an unprotected one and QEMU's own objects",
        description="Measure what the clients of a real guest get, under five set-ups in turns: native (one guest), twin "
                    "(two guests on the same input, nothing compared: the ceiling), stock (QEMU's own objects, the host's "
                    "faults mended), ours (the four objects) and proxy (one colo-proxy on each side). The tables are also written to "
                    f"{DIRECTORY.relative_to(ROOT)}/pair.txt, with every round in pair.json. Needs root.")
    command.add_argument("--rounds", type=int, default=3, help="how often each is measured (default: %(default)s)")
    command.add_argument("--seconds", type=float, default=4.0,
                         help="how long each round makes requests (default: %(default)s)")
    command.add_argument("--quick", action="store_true", help="one short round: a try, not a measurement")
    command.add_argument("--workload", metavar="NAME", action="append", help=f"this one only (may be repeated): {names}")
    command.add_argument("--setup", choices=SETUPS, action="append", help="this one only (may be repeated)")
    command.add_argument("--together", action="store_true",
                         help="let both QEMUs run on all processors, instead of each on its half as if on two hosts")
    command.add_argument("--emulator", metavar="FILE", type=Path,
                         help="measure this QEMU as ours, instead of building one")
    command.add_argument("--plot", metavar="FILE", type=Path, help="draw the throughput, as SVG")
    command.add_argument("--update-docs", action="store_true",
                         help=f"bring {DOCUMENT.relative_to(ROOT)} and {PICTURE.relative_to(ROOT)} up to date")
    add_series_option(command)
    command.set_defaults(run=pair)
