# SPDX-License-Identifier: GPL-2.0-or-later
"""Building a QEMU with the suite in it, or with the host mends alone.

    build/qemu-SERIES/pristine          the source as the distribution has it
    build/qemu-SERIES/source[-...]      the same, grafted
    build/qemu-SERIES/build[-...]       where that is built
    build/qemu-SERIES/without/...       the same two without some mend

The grafted tree is brought up to date file by file, so that only what has
changed is compiled again.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import filecmp
import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Iterator, Sequence

from . import graft, source
from .machine import BUILD, ROOT, Failure, Progress, need, reporting, run_logged
from .series import SERIES, Series, add_series_option, own_series

PACKAGES = (
    "gcc", "libc6-dev", "ccache", "make", "meson", "ninja-build", "pkg-config", "python3",
    "libfdt-dev", "libglib2.0-dev", "libgnutls28-dev", "libpixman-1-dev", "libslirp-dev",
    "zlib1g-dev",
    # What the emulator loads at run time.
    "ipxe-qemu", "qemu-system-data", "seabios",
)

FIRMWARE = ("/usr/share/seabios", "/usr/share/qemu", "/usr/lib/ipxe/qemu")

CONFIGURE = (
    "--cc=ccache gcc",
    "--target-list=x86_64-softmmu",
    "--without-default-features",
    "--enable-werror",
    "--enable-system", "--enable-tcg", "--enable-kvm",
    "--enable-slirp", "--enable-replication", "--enable-tools", "--enable-gnutls",
    "--disable-docs",
    # The distribution's firmware; its source package has none.
    "--disable-install-blobs",
    f"--firmwarepath={':'.join(FIRMWARE)}",
)

TARGETS = ("qemu-system-x86_64", "qemu-img", "tests/qtest/test-filter-mirror",
           "tests/qtest/test-filter-redirector", "tests/qtest/test-netfilter")

# Never copied into the grafted tree, nor taken out of it.
SKIPPED = {".git", ".pc", "__pycache__"}


class Paths:
    """Where the files of one kind of build are."""

    def __init__(self, series: str, stock: bool, without: Sequence[str], sanitize: bool,
                 local: bool):
        self.series = SERIES[series]
        self.top = BUILD / f"qemu-{series}{'-local' if local else ''}"
        self.pristine = self.top / "pristine"
        # As seen from the build directory a source tree without some mend has the same
        # name as the whole one, so that ccache knows the files that are the same.
        home = self.top / "without" if without else self.top
        kind = "-stock" if stock else ""
        self.source = home / f"source{kind}"
        self.build = home / f"build{kind}{'-sanitize' if sanitize else ''}"
        self.emulator = self.build / "qemu-system-x86_64"


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """One build at a time: two would get in each other's way."""
    directory.mkdir(parents=True, exist_ok=True)
    with open(directory / ".lock", "w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with Progress("waiting for another build-qemu to end"):
                fcntl.flock(lock, fcntl.LOCK_EX)
        yield


# --------------------------------------------------------------- the grafted tree

def mirror(pristine: Path, target: Path, overlay: dict[str, bytes | None]) -> None:
    """Make `target` a copy of `pristine` with the overlay's files in it.

    A file that is as it should be is not touched. The pristine tree's files are
    compared by size and time, the overlay's by content.
    """
    with Progress(f"bringing {target.name} up to date") as progress:
        changed = _mirror(pristine, target, "", overlay, progress)
        for name, content in overlay.items():
            path = target / name
            if content is not None and not (path.is_file() and path.read_bytes() == content):
                graft.write_file(path, content)
                changed += 1
        progress.done(f"{changed} files changed" if changed else "nothing has changed")


def _mirror(pristine: Path, target: Path, prefix: str, overlay: dict[str, bytes | None],
            progress: Progress) -> int:
    """Copy what is missing or older below `prefix`, remove what is too many."""
    changed = 0
    target.mkdir(parents=True, exist_ok=True)
    wanted = {entry.name: entry for entry in os.scandir(pristine) if entry.name not in SKIPPED} \
        if pristine.is_dir() else {}
    ours = {name[len(prefix):].split("/")[0] for name, content in overlay.items()
            if content is not None and name.startswith(prefix)}

    for entry in os.scandir(target):
        if entry.name in SKIPPED or entry.name in ours:
            continue
        if entry.name not in wanted or prefix + entry.name in overlay:
            _remove(entry)
            changed += 1
    for name in sorted(wanted.keys() | ours):
        path = prefix + name
        entry = wanted.get(name)
        if path in overlay:
            continue
        if entry is None or entry.is_dir(follow_symlinks=False):
            # A directory, the host's or only ours.
            changed += _mirror(pristine / name, target / name, path + "/", overlay, progress)
        elif not _same(entry, target / name):
            _copy(entry, target / name)
            changed += 1
            progress.update(detail=path)
    return changed


def _same(entry: os.DirEntry, copy: Path) -> bool:
    try:
        there = os.lstat(copy)
    except FileNotFoundError:
        return False
    here = entry.stat(follow_symlinks=False)
    if entry.is_symlink():
        return copy.is_symlink() and os.readlink(entry.path) == os.readlink(copy)
    if (here.st_mode, here.st_size) != (there.st_mode, there.st_size):
        return False
    return here.st_mtime_ns == there.st_mtime_ns or filecmp.cmp(entry.path, copy, shallow=False)


def _copy(entry: os.DirEntry, copy: Path) -> None:
    if not os.path.lexists(copy):
        shutil.copy2(entry.path, copy, follow_symlinks=False)
        return
    # Changed back, it is as new to whoever compiles it as any other change: the time is now's.
    # Removed first, because copying does not replace a link, nor a file that may not be written.
    os.unlink(copy)
    shutil.copy(entry.path, copy, follow_symlinks=False)


def _remove(entry: os.DirEntry) -> None:
    if entry.is_dir(follow_symlinks=False):
        shutil.rmtree(entry.path)
    else:
        os.unlink(entry.path)


# --------------------------------------------------------------- configure, ninja

def _environment(series: Series) -> dict[str, str]:
    """Ours; ccache told that two checkouts may share what it has, and Python where the series' tools are."""
    tools = [str(source.unpacked_tool(series, tool) / "usr/lib/python3/dist-packages") for tool in series.tools]
    return {**os.environ, "CCACHE_BASEDIR": str(BUILD), "CCACHE_NOHASHDIR": "1", "PYTHONPATH": ":".join(tools)}


def configure(paths: Paths, sanitize: bool) -> None:
    """Run configure if that has not been done with just these arguments."""
    arguments = [str(paths.source / "configure"), *CONFIGURE, *paths.series.configure]
    if sanitize:
        arguments += paths.series.sanitize
    line = json.dumps(arguments)
    note = paths.build / ".configured-by"
    if note.exists() and note.read_text(encoding="utf-8") == line:
        return
    shutil.rmtree(paths.build, ignore_errors=True)
    paths.build.mkdir(parents=True)
    run_logged(arguments, _log(paths, "configure"), "configuring QEMU", cwd=paths.build,
               env=_environment(paths.series))
    # An emulator that is not installed looks for everything in here.
    for directory in FIRMWARE:
        link = Path(f"{paths.build}/qemu-bundle{directory}")
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(directory)
    note.write_text(line, encoding="utf-8")


def compile_targets(paths: Paths, targets: Sequence[str]) -> None:
    def on_line(progress: Progress, line: str) -> None:
        found = re.match(r"\[(\d+)/(\d+)\] (?:\S+ )?(.*)", line)
        if found:
            progress.update(int(found[1]) / int(found[2]), f"[{found[1]}/{found[2]}]")

    run_logged(["ninja", *targets], _log(paths, "ninja"), "compiling QEMU", on_line=on_line,
               cwd=paths.build, env=_environment(paths.series))


def _log(paths: Paths, what: str) -> Path:
    where = "-".join(paths.build.relative_to(BUILD).parts)
    return BUILD / "log" / f"{where}-{what}.log"


# --------------------------------------------------------------- the whole

def pristine(series: str) -> Path:
    """The distribution's source of that series, fetched if need be."""
    paths = Paths(series, False, (), False, local=False)
    with _locked(paths.top):
        return source.pristine_source(paths.series, paths.pristine)


def build_qemu(series: str = own_series(), stock: bool = False, without: Sequence[str] = (),
               sanitize: bool = False, source_tree: Path | None = None,
               targets: Sequence[str] = ()) -> Path:
    """Build what is not built yet; the emulator's path."""
    if source_tree:
        _, series = graft.tree_version(source_tree)
    paths = Paths(series, stock, without, sanitize, local=source_tree is not None)
    need([*PACKAGES, *paths.series.packages])
    with _locked(paths.top):
        pristine = source_tree or source.pristine_source(paths.series, paths.pristine)
        if graft.is_grafted(pristine, stock, without):
            raise Failure(f"{pristine} is grafted already; --source wants a pristine tree")
        plan = graft.make_plan(pristine, stock, without)
        mirror(pristine, paths.source, plan.all_files())
        configure(paths, sanitize)
        compile_targets(paths, targets or [*TARGETS, *_our_qtests(stock)])
    return paths.emulator


def _our_qtests(stock: bool) -> list[str]:
    if stock:
        return []
    return sorted(f"tests/qtest/{path.stem}" for path in (ROOT / "tests/qtest").glob("colo-*-test.c"))


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="build-qemu",
        description="Build QEMU with the COLO proxy in it, under build/: fetch the distribution's "
                    "source package, graft it, configure it for one target with little else, "
                    "compile what is needed. The last line printed is the emulator's path.")
    parser.add_argument("targets", metavar="TARGET", nargs="*",
                        help="what to compile (default: the emulator, qemu-img, the qtests)")
    add_series_option(parser)
    parser.add_argument("--stock", action="store_true",
                        help="QEMU's own objects, with the host's faults mended")
    parser.add_argument("--source", metavar="DIR", type=Path,
                        help="take this pristine source tree; it is only read")
    parser.add_argument("--without", metavar="STEP", action="append", default=[],
                        help="leave out this mend of the host (scripts/graft --list names them)")
    parser.add_argument("--sanitize", action="store_true",
                        help="with the address and undefined behaviour sanitizers")
    arguments = parser.parse_args()

    with reporting("build-qemu"):
        emulator = build_qemu(arguments.series, arguments.stock, arguments.without,
                              arguments.sanitize, arguments.source and arguments.source.resolve(),
                              arguments.targets)
        sys.stdout.flush()
        print(emulator)


if __name__ == "__main__":
    main()
