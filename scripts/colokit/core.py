# SPDX-License-Identifier: GPL-2.0-or-later
"""The core and its own programs, which meson.build at the top describes: each way to build them has a directory under build/."""

from __future__ import annotations

from pathlib import Path
from typing import Sequence

from .machine import BUILD, ROOT, need, output_of, run_logged

PACKAGES = ["gcc", "meson", "ninja-build", "pkg-config", "libglib2.0-dev", "check", "libpcap-dev"]
SANITIZED = "-Db_sanitize=address,undefined"


def configure(name: str, *options: str, packages: Sequence[str] = (), env: dict[str, str] | None = None) -> Path:
    """build/NAME, set up with these options of meson's if it is not yet; @packages beside those that each way needs."""
    directory = BUILD / name
    need([*PACKAGES, *packages])
    if not (directory / "build.ninja").exists():
        run_logged(["meson", "setup", *options, str(directory), str(ROOT)], _log(name), f"configuring {name}", env=env)
    return directory


def compile_in(directory: Path, *targets: str) -> None:
    """All, or these; silent if there is nothing to do."""
    ninja = ["ninja", "-C", str(directory), *targets]
    if "no work to do" not in output_of([*ninja, "-n"]):
        run_logged(ninja, _log(directory.name), f"compiling {directory.name}", append=True)


def build(name: str, *options: str) -> Path:
    """All of it, in build/NAME."""
    directory = configure(name, *options)
    compile_in(directory)
    return directory


def _log(name: str) -> Path:
    return BUILD / "log" / f"{name}.log"
