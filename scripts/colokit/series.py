# SPDX-License-Identifier: GPL-2.0-or-later
"""The series of QEMU that the suite can be laid over, and what differs between them.

What their sources have in different places or call by different names stands
here and in the tables of mends.py and suite.py; what our C files see of it, in
include/net/colo-series.h.
"""

from __future__ import annotations

import argparse
import platform
import re
from dataclasses import dataclass
from pathlib import Path

from .machine import Failure, output_of


@dataclass(frozen=True)
class Series:
    name: str
    release: str                        # Debian's, whose source package it is
    packages: tuple[str, ...] = ()      # that building it needs besides what all need
    tools: tuple[str, ...] = ()         # packages of its release that are used without being installed
    configure: tuple[str, ...] = ()     # arguments besides those for all
    sanitize: tuple[str, ...] = ("--enable-asan", "--enable-ubsan")
    stable: bool = True                 # a release of Debian keeps it: scripts/check goes through it unasked

    reconnect: str = "reconnect-ms=1000"    # of a socket chardev, every second

    # Words of its source.
    bql_lock: str = "bql_lock();"
    bql_unlock: str = "bql_unlock();"
    bql_locked: str = "bql_locked()"
    system_sources: str = "system_ss"   # meson's set of what system emulators are made of
    command_line: str = "system/vl.c"
    cpus: str = "system/cpus.c"
    runstate: str = "include/system/runstate.h"


SERIES = {series.name: series for series in (
    Series("7.2", "bookworm", configure=("--meson=meson",), sanitize=("--enable-sanitizers",),
           reconnect="reconnect=1",
           bql_lock="qemu_mutex_lock_iothread();", bql_unlock="qemu_mutex_unlock_iothread();",
           bql_locked="qemu_mutex_iothread_locked()",
           system_sources="softmmu_ss", command_line="softmmu/vl.c", cpus="softmmu/cpus.c", runstate="include/sysemu/runstate.h"),
    Series("10.0", "trixie", packages=("python3-venv",), tools=("meson",),
           configure=("--disable-download", "--enable-colo-proxy")),
    Series("10.2", "sid", packages=("python3-venv",), tools=("meson",),
           configure=("--disable-download", "--enable-colo-proxy"), stable=False),
)}

STABLE = tuple(name for name, series in SERIES.items() if series.stable)


def own_series() -> str:
    """The series of the release of Debian that the machine runs; elsewhere the oldest one."""
    try:
        release = platform.freedesktop_os_release().get("VERSION_CODENAME")
    except OSError:
        release = None
    return next((series.name for series in SERIES.values() if series.release == release), next(iter(SERIES)))


def series_of(emulator: Path) -> Series:
    """The series that a QEMU is of."""
    said = output_of([emulator, "--version"])
    name = re.search(r"version (\d+\.\d+)", said)
    if not name or name[1] not in SERIES:
        raise Failure(f"{emulator} is of no series that the suite knows ({', '.join(SERIES)}): {said.splitlines()[0]}")
    return SERIES[name[1]]


def add_series_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--series", choices=SERIES, default=own_series(), help="the series of QEMU (default: %(default)s)")
