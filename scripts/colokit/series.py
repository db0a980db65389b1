# SPDX-License-Identifier: GPL-2.0-or-later
"""The series of QEMU that the suite can be laid over, and what differs between them.

What their sources have in different places or call by different names stands
here and in the tables of mends.py and suite.py; what our C files see of it, in
include/net/colo-series.h.
"""

from __future__ import annotations

import argparse
import platform
from dataclasses import dataclass

@dataclass(frozen=True)
class Series:
    name: str
    release: str                        # Debian's, whose source package it is
    packages: tuple[str, ...] = ()      # that building it needs besides what all need
    tools: tuple[str, ...] = ()         # packages of its release that are used without being installed
    configure: tuple[str, ...] = ()     # arguments besides those for all

    # Words of its source.
    bql_lock: str = "bql_lock();"
    bql_unlock: str = "bql_unlock();"
    bql_locked: str = "bql_locked()"
    system_sources: str = "system_ss"   # meson's set of what system emulators are made of
    command_line: str = "system/vl.c"


SERIES = {series.name: series for series in (
    Series("7.2", "bookworm", configure=("--meson=meson",),
           bql_lock="qemu_mutex_lock_iothread();", bql_unlock="qemu_mutex_unlock_iothread();",
           bql_locked="qemu_mutex_iothread_locked()",
           system_sources="softmmu_ss", command_line="softmmu/vl.c"),
    Series("10.0", "trixie", packages=("python3-venv",), tools=("meson",),
           configure=("--disable-download", "--enable-colo-proxy")),
)}


def own_series() -> str:
    """The series of the release of Debian that the machine runs; elsewhere the oldest one."""
    try:
        release = platform.freedesktop_os_release().get("VERSION_CODENAME")
    except OSError:
        release = None
    return next((series.name for series in SERIES.values() if series.release == release), next(iter(SERIES)))


def add_series_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--series", choices=SERIES, default=own_series(), help="the series of QEMU (default: %(default)s)")
