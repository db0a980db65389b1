# SPDX-License-Identifier: GPL-2.0-or-later
"""Laying the suite over a QEMU source tree.

Everything is worked out in memory first: a Plan says for each file what it is
to hold. A tree that the plan does not fit is refused as it stands. What was
done to a tree is kept in its file .colo-graft, by which a second run sees that
there is nothing to do.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import tempfile
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Sequence

from .edits import Edit, NotFound, Put, Remove, Step
from .machine import ROOT, Failure, reporting
from .mends import MENDS
from .suite import STEPS

STAMP = ".colo-graft"
ANEW = "Unpack the pristine source anew and graft that (scripts/build-qemu does both)."


@dataclass(frozen=True)
class Plan:
    """What a graft makes of a tree."""
    version: str
    steps: tuple[Step, ...]
    mode: str                           # "suite" or "stock"
    without: tuple[str, ...]
    files: dict[str, bytes | None]      # None: is to be removed
    stamp: bytes

    def all_files(self) -> dict[str, bytes | None]:
        return {**self.files, STAMP: self.stamp}


# --------------------------------------------------------------- what to do

def tree_version(tree: Path) -> tuple[str, str]:
    """The tree's version and the series it belongs to."""
    try:
        version = (tree / "VERSION").read_text(encoding="utf-8").strip()
    except OSError:
        raise Failure(f"{tree} is not a QEMU source tree: it has no file VERSION") from None
    series = ".".join(version.split(".")[:2])
    if series not in MENDS:
        raise Failure(f"{tree} is QEMU {version}, which the suite does not know; it can be laid "
                      f"over {', '.join(MENDS)}")
    return version, series


def choose_steps(series: str, stock: bool, without: Sequence[str], root: Path) -> tuple[Step, ...]:
    """The steps for a series: the mends but those left out, and the suite."""
    names = [mend.name for mend in MENDS[series]]
    for name in without:
        if name not in names:
            raise Failure(f"--without {name}: there is no such mend; there are {', '.join(names)}")
    mends = tuple(mend for mend in MENDS[series] if mend.name not in without)
    return mends if stock else mends + STEPS[series](root)


def _digest_of_steps(steps: Sequence[Step]) -> str:
    """Changes whenever a step would write anything else."""
    digest = hashlib.sha256()
    for step in steps:
        for edit in step.edits:
            digest.update(repr((step.name, edit)).encode())
    return digest.hexdigest()


def _hash(content: bytes | None) -> str | None:
    return None if content is None else hashlib.sha256(content).hexdigest()


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def make_plan(tree: Path, stock: bool = False, without: Sequence[str] = (),
              root: Path = ROOT) -> Plan:
    """Work out what the graft makes of a pristine tree; Failure if it does not fit."""
    version, series = tree_version(tree)
    steps = choose_steps(series, stock, without, root)
    without = tuple(sorted(set(without)))
    mode = "stock" if stock else "suite"

    text_edits: dict[str, list[tuple[Step, Edit]]] = {}
    files: dict[str, bytes | None] = {}
    done: list[str] = []        # what looks grafted already
    amiss: list[str] = []       # what does not fit

    for step in steps:
        for edit in step.edits:
            if isinstance(edit, (Put, Remove)):
                if edit.file in files:
                    raise Failure(f"{edit.file}: two steps want the whole file")
                there = _read(tree / edit.file)
                expected = isinstance(edit, Remove) or edit.replaces
                files[edit.file] = edit.content if isinstance(edit, Put) else None
                if there == files[edit.file]:
                    done.append(f"{edit.file}: step {step.name}")
                elif expected and there is None:
                    amiss.append(f"{edit.file}: step {step.name}: the host's file is missing")
                elif not expected and there is not None:
                    amiss.append(f"{edit.file}: step {step.name}: the file is there already")
            else:
                text_edits.setdefault(edit.file, []).append((step, edit))

    for file, edits in text_edits.items():
        if file in files:
            raise Failure(f"{file}: one step edits what another one replaces")
        content = _read(tree / file)
        if content is None:
            amiss.append(f"{file}: step {edits[0][0].name}: the file is missing")
            continue
        text = content.decode("utf-8", "surrogateescape")
        spans = []
        for step, edit in edits:
            if edit.is_there(text):
                done.append(f"{file}: step {step.name}")
            try:
                spans.append((edit.span(text), step))
            except NotFound as error:
                amiss.append(f"{file}: step {step.name}: {error}")
        spans.sort(key=lambda pair: (pair[0].start, pair[0].end))
        for (one, first), (two, second) in zip(spans, spans[1:]):
            if two.start < one.end:
                raise Failure(f"{file}: the steps {first.name} and {second.name} are in each "
                              "other's way")
        for span, _ in reversed(spans):
            text = text[:span.start] + span.text + text[span.end:]
        files[file] = text.encode("utf-8", "surrogateescape")

    if done:
        raise Failure(f"{tree} is half grafted: without a word of it in {STAMP}, these are done\n"
                      + _listed(done)
                      + (f"and these cannot be\n{_listed(amiss)}" if amiss else "") + ANEW)
    if amiss:
        raise Failure(f"{tree} is not QEMU {version} as the suite knows it\n{_listed(amiss)}"
                      "Nothing was changed. If the tree is not pristine, take one that is; if the "
                      "host has changed there, mends.py or suite.py needs a new anchor.")

    stamp = _stamp(version, steps, mode, without, files)
    return Plan(version, steps, mode, without, files, stamp)


def _listed(lines: Sequence[str], most: int = 8) -> str:
    shown = [f"    {line}\n" for line in lines[:most]]
    if len(lines) > most:
        shown.append(f"    and {len(lines) - most} more\n")
    return "".join(shown)


# --------------------------------------------------------------- the stamp

def _stamp(version: str, steps: Sequence[Step], mode: str, without: Sequence[str],
           files: dict[str, bytes | None], complete: bool = True) -> bytes:
    return (json.dumps({
        "complete": complete,
        "version": version,
        "mode": mode,
        "without": list(without),
        "steps": [step.name for step in steps],
        "digest": _digest_of_steps(steps),
        "files": {name: _hash(files[name]) for name in sorted(files)},
    }, indent=1) + "\n").encode()


def is_grafted(tree: Path, stock: bool = False, without: Sequence[str] = (),
               root: Path = ROOT) -> bool:
    """Whether just this graft has been made of the tree; Failure if another one has."""
    content = _read(tree / STAMP)
    if content is None:
        return False
    try:
        stamp = json.loads(content)
        complete, mode, left_out = stamp["complete"], stamp["mode"], stamp["without"]
        digest, files = stamp["digest"], stamp["files"].items()
    except (ValueError, KeyError, AttributeError, TypeError):
        raise Failure(f"{tree / STAMP} makes no sense. {ANEW}") from None
    if not complete:
        raise Failure(f"{tree} is half grafted: an earlier run was broken off. {ANEW}")

    _, series = tree_version(tree)
    wanted = "stock" if stock else "suite"
    without = sorted(set(without))
    if (mode, left_out) != (wanted, without):
        raise Failure(f"{tree} is grafted already, in another way: {_way(mode, left_out)}, "
                      f"not {_way(wanted, without)}. {ANEW}")
    if digest != _digest_of_steps(choose_steps(series, stock, without, root)):
        raise Failure(f"{tree} is grafted already, by another version of the suite. {ANEW}")
    changed = [name for name, known in files if _hash(_read(tree / name)) != known]
    if changed:
        raise Failure(f"{tree} has been changed since it was grafted:\n{_listed(changed)}{ANEW}")
    return True


def _way(mode: str, without: Sequence[str]) -> str:
    words = ["the mends alone" if mode == "stock" else "the whole suite"]
    words += [f"without {name}" for name in without]
    return " ".join(words)


# --------------------------------------------------------------- doing it

def write_file(path: Path, content: bytes) -> None:
    """Write a file at once or not at all; its mode stays as it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o644
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".graft-")
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(content)
        os.chmod(temporary, mode)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def apply(plan: Plan, tree: Path) -> None:
    """Write what the plan says. The stamp tells if this is broken off."""
    write_file(tree / STAMP, _stamp(plan.version, plan.steps, plan.mode, plan.without,
                                    plan.files, complete=False))
    for name, content in plan.files.items():
        if content is None:
            (tree / name).unlink()
        else:
            write_file(tree / name, content)
    write_file(tree / STAMP, plan.stamp)


def lay_over(tree: Path, stock: bool = False, without: Sequence[str] = (),
             root: Path = ROOT) -> Plan | None:
    """Graft a tree; None if there is nothing to do."""
    if is_grafted(tree, stock, without, root):
        return None
    plan = make_plan(tree, stock, without, root)
    apply(plan, tree)
    return plan


def describe(steps: Sequence[Step], mend_names: Sequence[str]) -> str:
    """The steps, their reasons and their edits, for a person to read."""
    lines = []
    for step in steps:
        lines += ["", f"{'mend' if step.name in mend_names else 'step'} {step.name}"]
        lines += textwrap.wrap(step.reason, 92, initial_indent="    ", subsequent_indent="    ")
        if step.test:
            lines.append(f"    Without it fails: {step.test}")
        lines += [f"      {edit.file}: {edit}" for edit in step.edits]
    return "\n".join(lines)


def print_list(tree: Path, stock: bool, without: Sequence[str]) -> None:
    """What --list says."""
    _, series = tree_version(tree)
    if is_grafted(tree, stock, without):
        steps = choose_steps(series, stock, without, ROOT)
        print(f"{tree}: all of this is done already")
    else:
        plan = make_plan(tree, stock, without)
        steps = plan.steps
        print(f"{tree}: {len(steps)} steps, {len(plan.files)} files")
    print(describe(steps, [mend.name for mend in MENDS[series]]))


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="graft",
        description="Lay the COLO proxy over a pristine QEMU source tree of a series it knows "
                    f"({', '.join(MENDS)}). A tree that it does not fit is left as it is; a tree "
                    "that has it already, too.")
    parser.add_argument("tree", metavar="TREE", type=Path, help="the QEMU source tree")
    parser.add_argument("--list", action="store_true",
                        help="say what would be changed and why; change nothing")
    parser.add_argument("--stock", action="store_true",
                        help="mend the host's faults only; its own objects stay")
    parser.add_argument("--without", metavar="STEP", action="append", default=[],
                        help="leave out this mend (to see the test for it fail)")
    arguments = parser.parse_args()

    with reporting():
        if arguments.list:
            print_list(arguments.tree, arguments.stock, arguments.without)
            return
        plan = lay_over(arguments.tree, arguments.stock, arguments.without)
        if plan:
            print(f"{arguments.tree}: QEMU {plan.version}, {len(plan.steps)} steps, "
                  f"{len(plan.files)} files written")
        else:
            print(f"{arguments.tree}: nothing to do, it is grafted already")


if __name__ == "__main__":
    main()
