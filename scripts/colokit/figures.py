# SPDX-License-Identifier: GPL-2.0-or-later
"""What every benchmark of scripts/bench needs: programs, figures of several rounds, tables."""

from __future__ import annotations

import statistics
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Sequence

from . import core
from .machine import BUILD, ROOT, Failure

PACKAGES = ["valgrind"]

BUSY = 0.1                              # part of the machine that others may use without a word

DIRECTORY = BUILD / "bench"             # where the results go
PROGRAMS = BUILD / "core-bench"         # where meson builds tests/bench

DOCUMENT = ROOT / "docs/measurements.rst"


# --------------------------------------------------------------- figures

@dataclass
class Figure:
    """What the rounds showed."""

    values: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def text(self, form: str, scale: float = 1.0) -> str:
        """Median (least..greatest)."""
        shown = [f"{value * scale:{form}}" for value in (self.median, min(self.values), max(self.values))]
        return f"{shown[0]} ({shown[1]}..{shown[2]})"

    def as_json(self) -> dict:
        return {"median": self.median, "min": min(self.values), "max": max(self.values), "rounds": self.values}


# --------------------------------------------------------------- the machine and the programs

def look_for_others(strict: bool) -> None:
    """Whoever else uses the machine spoils the figures: say so, or refuse to go on."""
    def idle_and_all() -> tuple[int, int]:
        times = [int(text) for text in Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:]]
        return times[3] + times[4], sum(times)

    idle, total = idle_and_all()
    time.sleep(0.5)
    idle, total = (now - then for now, then in zip(idle_and_all(), (idle, total)))
    busy = 1 - idle / total if total else 0.0
    if busy > BUSY and strict:
        raise Failure(f"the machine is {busy:.0%} busy with something else: figures for the documentation want it idle")
    if busy > BUSY:
        print(f"bench: the machine is {busy:.0%} busy with something else: these figures will be too low, and spread",
              file=sys.stderr)


def build_programs(names: Sequence[str]) -> None:
    """These programs of tests/bench, compiled as QEMU is (-O2 -g)."""
    directory = core.configure(PROGRAMS.name, "--buildtype=debugoptimized", packages=PACKAGES)
    core.compile_in(directory, *(f"tests/bench/{name}" for name in names))


def program(name: str) -> Path:
    return PROGRAMS / "tests/bench" / name


def kept(emulator: Path, name: str) -> Path:
    """A name of its own for the emulator: a build that ends while we measure puts another file in its place."""
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    link = DIRECTORY / name
    link.unlink(missing_ok=True)
    link.hardlink_to(emulator)
    return link


# --------------------------------------------------------------- telling

def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """The rows as an RST simple table; the first is the heading."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    rule = "  ".join("=" * width for width in widths)
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip() for row in rows]
    return [rule, lines[0], rule, *lines[1:], rule]


def as_text(tables: dict[str, list[str]], note: str) -> str:
    return "\n".join([note, *(line for title, table in tables.items() for line in ("", title, *table))]) + "\n"


def update_document(what: str, tables: dict[str, list[str]], note: str) -> None:
    """Put the tables between the two marks of the document that are for `what`."""
    begin, end = f".. {what}: begin\n", f".. {what}: end\n"
    text = DOCUMENT.read_text(encoding="utf-8")
    if begin not in text or end not in text:
        raise Failure(f"{DOCUMENT.relative_to(ROOT)} lacks the lines '{begin.strip()}' and '{end.strip()}' "
                      "that the tables belong between")
    body = [note, ""]
    for title, table in tables.items():
        body += [f"{title}:", "", *table, ""]
    head, rest = text.split(begin)
    DOCUMENT.write_text(f"{head}{begin}\n" + "\n".join(body) + f"\n{end}{rest.split(end)[1]}", encoding="utf-8")
