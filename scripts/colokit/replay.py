# SPDX-License-Identifier: GPL-2.0-or-later
"""scripts/colo-replay: builds the program of that name if need be, and becomes it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from .machine import BUILD, ROOT, need, reporting, run_logged

PACKAGES = ["gcc", "meson", "ninja-build", "pkg-config", "libglib2.0-dev", "check", "libpcap-dev"]
TARGET = "tests/replay/colo-replay"
TROUBLE = 2         # colo-replay's own word for it


def build(name: str = "core", *options: str) -> Path:
    """The program in build/NAME, as the sources have it now; silent if there is nothing to do."""
    directory = BUILD / name
    log = BUILD / "log" / "colo-replay.log"
    need(PACKAGES)
    if not (directory / "build.ninja").exists():
        run_logged(["meson", "setup", *options, directory, ROOT], log, f"configuring {name}")
    ninja = ["ninja", "-C", str(directory)]
    plan = subprocess.run([*ninja, "-n", TARGET], capture_output=True, text=True, check=False)
    if "no work to do" not in plan.stdout:
        run_logged([*ninja, TARGET], log, f"compiling colo-replay in {name}")
    return directory / TARGET


def main() -> None:
    try:
        with reporting("colo-replay"):
            program = build()
    except SystemExit:
        sys.exit(TROUBLE)       # 1 would say that something differs
    os.execv(program, ["colo-replay", *sys.argv[1:]])


if __name__ == "__main__":
    main()
