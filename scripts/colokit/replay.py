# SPDX-License-Identifier: GPL-2.0-or-later
"""scripts/colo-replay: builds the program of that name if need be, and becomes it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from . import core
from .machine import reporting

TARGET = "tests/replay/colo-replay"
TROUBLE = 2         # colo-replay's own word for it


def build(name: str = "core", *options: str) -> Path:
    """The program in build/NAME, as the sources have it now; silent if there is nothing to do."""
    directory = core.configure(name, *options)
    core.compile_in(directory, TARGET)
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
