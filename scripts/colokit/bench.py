# SPDX-License-Identifier: GPL-2.0-or-later
"""scripts/bench: how fast the suite is, beside QEMU's own objects, in one run.

What is measured takes turns, round by round, so that whatever else the machine does
meets all alike.  A figure is the median of the rounds with its least and greatest;
a ratio is taken within each round, and its median and spread are of those.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Iterable, Sequence

from . import build, chart, pairbench
from .figures import (DIRECTORY, DOCUMENT, Figure, as_text, build_programs, columns, kept, look_for_others, program,
                      update_document)
from .machine import ROOT, Failure, Progress, output_of, reporting
from .mends import MENDS
from .series import add_series_option

EMULATOR = ["qemu-system-x86_64"]

PICTURE = ROOT / "docs/bench-compare.svg"

OURS, SHIPPED, MENDED, RELAY = "ours", "stock", "stock, mended", "relay"

PAYLOADS = (64, 1460, 60000)
FLOWS = (1, 64, 1000)
OFFLOADED = 1460                        # bytes of payload beyond which a frame is left to segmentation offload

# One flow for long: every packet has to come out, and memory must stay what it was.
LONG_PAYLOAD, LONG_FLOWS, LONG_PACKETS = 1460, 1, 200_000

CORE_CASES = ("packets", "flows", "keys", "memory")
CORE_PACKETS = 2_000_000
# Instructions are counted between runs of so many packets: what both have in common is no packet's.
COUNTED = {"64x1": (10_000, 30_000), "64x1000": (10_000, 30_000), "1460x64": (10_000, 30_000), "60000x1": (100, 300)}

# What the suite is to reach: (traffic, beside what, at least how many times as much) and (figure, at most or at least).
CHARDEV_GOALS = (("1460x64", SHIPPED, 3.0), ("64x1000", SHIPPED, 3.0), ("60000x1", SHIPPED, 2.0),
                 ("1460x64", RELAY, 0.4))
CORE_GOALS = (("packets-64x1", "at least", 5e6), ("packets-64x1000", "at least", 5e6), ("cost-ratio", "at most", 3.0),
              ("memory-idle-flow", "at most", 256.0), ("cost-ratio-keys", "at most", 1.1))


# --------------------------------------------------------------- what is measured

@dataclass(frozen=True)
class Cell:
    """One kind of traffic."""

    payload: int
    flows: int
    packets: int = 0                    # 0: for as long as a round takes

    @property
    def name(self) -> str:
        return f"{self.payload}x{self.flows}" + (f"x{self.packets}" if self.packets else "")

    @property
    def vnet(self) -> bool:
        return self.payload > OFFLOADED

    def options(self, seconds: float) -> list[str]:
        length = ["--packets", str(self.packets)] if self.packets else ["--seconds", str(seconds)]
        return ["--payload", str(self.payload), "--flows", str(self.flows), *length,
                *(["--vnet"] if self.vnet else [])]


LONG = Cell(LONG_PAYLOAD, LONG_FLOWS, LONG_PACKETS)
CELLS = [*(Cell(payload, flows) for payload in PAYLOADS for flows in FLOWS), LONG]


@dataclass(frozen=True)
class Subject:
    """Something to be measured."""

    name: str
    program: Path
    options: str | None = None          # of colo-compare; None: no QEMU but the relay

    def command(self, cell: Cell, directory: str) -> list[str]:
        sockets = [f"{directory}/{name}" for name in ("primary", "secondary", "out")]
        if self.options is None:
            return [str(self.program), *sockets]
        vnet = ",vnet_hdr_support=on" if cell.vnet else ""
        return [str(self.program), "-machine", "none", "-nodefaults", "-display", "none",
                *(word for name, path in zip(("pri", "sec", "out"), sockets)
                  for word in ("-chardev", f"socket,id={name},path={path}")),
                "-object", "iothread,id=thread",
                "-object", "colo-compare,id=comp0,primary_in=pri,secondary_in=sec,outdev=out,iothread=thread"
                           f"{self.options}{vnet}"]


@dataclass
class Measured:
    """All rounds of one subject with one kind of traffic."""

    runs: list[dict] = field(default_factory=list)

    def figure(self, what) -> Figure:
        return Figure([what(run) for run in self.runs])

    @property
    def rate(self) -> Figure:
        """Packets a second, until the last one came out."""
        return self.figure(lambda run: run["released"] / run["seconds"] if run["released"] else 0.0)

    @property
    def processor(self) -> Figure:
        """Seconds of processor time for a packet."""
        return self.figure(lambda run: run["cpu_seconds"] / run["released"] if run["released"] else math.inf)

    @property
    def released(self) -> float:
        """The part that came out, in the worst round."""
        return min(run["released"] / run["sent"] for run in self.runs)

    @property
    def disordered(self) -> float:
        """The part that came out, but not in its place, in the worst round."""
        return max(run["wrong"] / max(run["released"], 1) for run in self.runs)

    def over(self, other: "Measured") -> Figure:
        return Figure([mine / theirs if theirs else math.inf
                       for mine, theirs in zip(self.rate.values, other.rate.values)])


Chardevs = dict[Cell, dict[str, Measured]]
Core = dict[str, tuple[Figure, str]]


# --------------------------------------------------------------- measuring

def subjects(series: str, emulator: Path | None) -> list[Subject]:
    chardevs = [mend.name for mend in MENDS[series] if mend.name.startswith("chardev-")]
    return [
        Subject(OURS, emulator or kept(build.build_qemu(series, targets=EMULATOR), "qemu"), ",active=on"),
        Subject(SHIPPED, kept(build.build_qemu(series, stock=True, without=chardevs, targets=EMULATOR),
                              "qemu-stock"), ""),
        Subject(MENDED, kept(build.build_qemu(series, stock=True, targets=EMULATOR), "qemu-stock-mended"), ""),
        Subject(RELAY, program("colo-bench-relay")),
    ]


def run_load(subject: Subject, cell: Cell, seconds: float) -> dict:
    """One round of one subject."""
    with tempfile.TemporaryDirectory(prefix="colo-bench-") as directory:
        command = [program("colo-bench-load"), *cell.options(seconds), directory, *subject.command(cell, directory)]
        result = json.loads(output_of(command))
    if subject.name == OURS and (result["released"] < result["sent"] or result["wrong"]):
        raise Failure(f"ours, {cell.name}: of {result['sent']} packets {result['released']} came out, "
                      f"{result['wrong']} not in their places; this must not be: see {' '.join(map(str, command))}")
    return result


def measure_chardevs(measured_by: Sequence[Subject], cells: Sequence[Cell], rounds: int,
                     seconds: float) -> Chardevs:
    results: Chardevs = {cell: {subject.name: Measured() for subject in measured_by} for cell in cells}
    with Progress("packets through chardevs") as progress:
        for number in range(rounds):
            for at, cell in enumerate(cells):
                progress.update((number + at / len(cells)) / rounds, f"round {number + 1}, {cell.name}")
                for subject in measured_by:
                    results[cell][subject.name].runs.append(run_load(subject, cell, seconds))
    return results


def core_figures(arguments: Iterable[str]) -> list[tuple[str, float, str]]:
    """The lines `name value unit` that colo-bench-core prints."""
    lines = output_of([program("colo-bench-core"), *arguments]).splitlines()
    return [(name, float(value), unit) for name, value, unit in map(str.split, lines)]


def count_instructions(cell: str, runs: tuple[int, int]) -> float:
    """Instructions for a packet (from both sides), from callgrind."""
    counts = []
    for packets in runs:
        result = subprocess.run(
            ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", program("colo-bench-core"),
             "--packets", str(packets), cell], capture_output=True, text=True)
        found = re.search(r"Collected : (\d+)", result.stderr)
        if result.returncode or not found:
            raise Failure(f"callgrind failed: {result.stderr.strip()}")
        counts.append(int(found[1]))
    return (counts[1] - counts[0]) / (runs[1] - runs[0])


def measure_core(rounds: int, packets: int) -> Core:
    results: Core = {}
    with Progress("the core alone") as progress:
        for number in range(rounds):
            for at, case in enumerate(CORE_CASES):
                progress.update((number + at / len(CORE_CASES)) / (rounds + 1), f"round {number + 1}, {case}")
                for name, value, unit in core_figures(["--packets", str(packets), case]):
                    results.setdefault(name, (Figure(), unit))[0].values.append(value)
        for cell, runs in COUNTED.items():
            progress.update(rounds / (rounds + 1), f"callgrind, {cell}")
            results[f"instructions-{cell}"] = Figure([count_instructions(cell, runs)]), "instructions/packet"
    return results


# --------------------------------------------------------------- telling

def thousands(measured: Measured) -> str:
    figure = measured.rate
    return figure.text(".0f" if figure.median >= 100e3 else ".1f", 1e-3) + ("" if measured.released == 1 else " [*]")


def chardev_tables(results: Chardevs) -> dict[str, list[str]]:
    names = list(next(iter(results.values())))
    others = [name for name in names if name != OURS]
    rates = [["payload x flows", *names]]
    ratios = [["payload x flows", *(f"ours / {name}" for name in others), "ours, Gbit/s"]]
    processor = [["payload x flows", *names]]
    faults = [["payload x flows", "", "released", "out of order"]]
    for cell, by_name in results.items():
        ours = by_name[OURS]
        rates.append([cell.name, *(thousands(by_name[name]) for name in names)])
        ratios.append([cell.name, *(ours.over(by_name[name]).text(".2f") for name in others),
                       f"{ours.rate.median * cell.payload * 8 / 1e9:.2f}"])
        processor.append([cell.name, *(by_name[name].processor.text(".0f", 1e9) for name in names)])
        for name in names:
            if by_name[name].released < 1 or by_name[name].disordered:
                faults.append([cell.name, name, f"{by_name[name].released:.2%}", f"{by_name[name].disordered:.3%}"])
    tables = {
        "Thousands of packets released per second ([*]: until it stalled)": columns(rates),
        "Ours beside the others": columns(ratios),
        "Nanoseconds of processor time per packet released": columns(processor),
    }
    if len(faults) > 1:
        tables["Where not all came out, or not in order (worst round)"] = columns(faults)
    if LONG in results:
        memory = [["", "released", "peak memory before, KiB", "after"]]
        for name, measured in results[LONG].items():
            memory.append([name, f"{measured.released:.2%}",
                           *(measured.figure(lambda run, key=key: run[key]).text(".0f")
                             for key in ("memory_before", "memory_after"))])
        tables[f"One flow of {LONG.packets} packets of {LONG.payload} bytes"] = columns(memory)
    return tables


def core_tables(results: Core) -> dict[str, list[str]]:
    rows = [["figure", "median (least..greatest)", "unit"]]
    for name, (figure, unit) in results.items():
        form = ".0f" if figure.median >= 1000 else ".1f" if figure.median >= 10 else ".2f"
        shown = figure.text(form) if len(figure.values) > 1 else f"{figure.median:{form}}"
        rows.append([name, shown, unit])
    return {"The core without I/O": columns(rows)}


def goal_table(chardevs: Chardevs, core: Core) -> dict[str, list[str]]:
    """What the suite is to reach, and whether it does."""
    rows = [["figure", "wanted", "median", "reached"]]
    for cell, by_name in chardevs.items():
        for name, other, wanted in CHARDEV_GOALS:
            if name == cell.name:
                got = by_name[OURS].over(by_name[other]).median
                rows.append([f"{name}: ours / {other}", f"at least {wanted:g}", f"{got:.2f}",
                             "yes" if got >= wanted else "no"])
        if cell == LONG:
            got = by_name[OURS].released
            rows.append([f"{LONG.name}: released", "all", f"{got:.2%}", "yes" if got == 1 else "no"])
    for name, bound, wanted in CORE_GOALS:
        if name in core:
            got = core[name][0].median
            reached = got >= wanted if bound == "at least" else got <= wanted
            rows.append([name, f"{bound} {wanted:,g}", f"{got:,.2f}" if got < 1000 else f"{got:,.0f}",
                         "yes" if reached else "no"])
    return {"What is to be reached": columns(rows)} if len(rows) > 1 else {}


def draw(results: Chardevs) -> str:
    """The picture: a panel for each payload, a group for each number of flows."""
    panels = []
    for payload in PAYLOADS:
        groups = [(f"{cell.flows} flow{'s' * (cell.flows > 1)}",
                   [(name, measured.rate.median, min(measured.rate.values), max(measured.rate.values))
                    for name, measured in by_name.items()])
                  for cell, by_name in results.items() if cell.payload == payload and cell != LONG]
        if groups:
            panels.append(chart.Panel(f"{payload} bytes", groups))
    return chart.grouped_bars("Packets per second through chardevs", panels, order=(SHIPPED, MENDED, OURS, RELAY))


# --------------------------------------------------------------- the command

def compare(arguments: argparse.Namespace) -> None:
    cells = [cell for cell in CELLS if not arguments.cell or cell.name in arguments.cell]
    unknown = set(arguments.cell or []) - {cell.name for cell in CELLS}
    if unknown:
        raise Failure(f"--cell {unknown.pop()}: there are {', '.join(cell.name for cell in CELLS)}")
    if arguments.plot and arguments.only == "core":
        raise Failure("--plot shows packets through chardevs; leave out --only core")
    if arguments.update_docs and (arguments.only or arguments.cell or arguments.quick):
        raise Failure("--update-docs wants the whole measurement: no --only, --cell or --quick")
    if arguments.rounds < 1 or arguments.seconds <= 0:
        raise Failure("--rounds and --seconds want more than nothing")
    rounds, seconds, packets = arguments.rounds, arguments.seconds, CORE_PACKETS
    if arguments.quick:
        rounds, seconds, packets = 1, 0.1, CORE_PACKETS // 20

    build_programs(["colo-bench-core", "colo-bench-load", "colo-bench-relay"])
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    results: Chardevs = {}
    core: Core = {}
    tables: dict[str, list[str]] = {}
    figures: dict[str, dict] = {}
    picture = ""
    if arguments.only != "core":
        measured_by = subjects(arguments.series, arguments.emulator)
        look_for_others(arguments.update_docs)
        results = measure_chardevs(measured_by, cells, rounds, seconds)
        tables |= chardev_tables(results)
        picture = draw(results)
        figures["chardevs"] = {
            cell.name: {name: {"packets_per_second": measured.rate.as_json(),
                               "cpu_seconds_per_packet": measured.processor.as_json(), "runs": measured.runs}
                        for name, measured in by_name.items()}
            for cell, by_name in results.items()}
    if arguments.only != "chardevs":
        look_for_others(arguments.update_docs)
        core = measure_core(rounds, packets)
        tables |= core_tables(core)
        figures["core"] = {name: figure.as_json() | {"unit": unit} for name, (figure, unit) in core.items()}

    tables = goal_table(results, core) | tables
    note = f"Median (least..greatest) of {rounds} round{'s' * (rounds > 1)}, taken in turns."
    text = as_text(tables, note)
    (DIRECTORY / "compare.txt").write_text(text, encoding="utf-8")
    (DIRECTORY / "compare.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(text)
    if arguments.plot:
        arguments.plot.write_text(picture, encoding="utf-8")
    if arguments.update_docs:
        update_document("compare", tables, note)
        PICTURE.write_text(picture, encoding="utf-8")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description="Measure the suite.")
    commands = parser.add_subparsers(metavar="WHAT", required=True)
    command = commands.add_parser(
        "compare", help="colo-compare beside QEMU's own and a bare relay; the core without I/O",
        description="Measure colo-compare alone in QEMU: the same packets down both inputs as fast as they are taken, "
                    "beside QEMU's own object (as shipped, and with our mends of the chardevs) and "
                    "beside a program that reads both inputs and writes one out. Then the core without I/O. The tables "
                    f"are also written to {DIRECTORY.relative_to(ROOT)}/compare.txt, with every round in compare.json.")
    command.add_argument("--rounds", type=int, default=5, help="how often each is measured (default: %(default)s)")
    command.add_argument("--seconds", type=float, default=1.0,
                         help="how long each round sends (default: %(default)s)")
    command.add_argument("--quick", action="store_true", help="one short round: a try, not a measurement")
    command.add_argument("--only", choices=("chardevs", "core"), help="measure this part only")
    command.add_argument("--cell", metavar="PAYLOADxFLOWS", action="append",
                         help=f"this traffic only (may be repeated): {', '.join(cell.name for cell in CELLS)}")
    command.add_argument("--emulator", metavar="FILE", type=Path,
                         help="measure this QEMU as ours, instead of building one")
    command.add_argument("--plot", metavar="FILE", type=Path, help="draw packets per second, as SVG")
    command.add_argument("--update-docs", action="store_true",
                         help=f"bring {DOCUMENT.relative_to(ROOT)} and {PICTURE.relative_to(ROOT)} up to date")
    add_series_option(command)
    command.set_defaults(run=compare)
    pairbench.add_command(commands)
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    with reporting("bench"):
        arguments.run(arguments)


if __name__ == "__main__":
    main()
