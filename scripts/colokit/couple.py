# SPDX-License-Identifier: GPL-2.0-or-later
"""A primary and a secondary on two hosts, and how their roles change; what starts them is in pair.py and procedure.py."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

from . import guest
from .machine import Failure, wait_until
from .network import Network
from .node import ENDED
from .process import Qemu, new_directory

BOOT_TIMEOUT = 120.0
COLO_TIMEOUT = 60.0
FAILOVER_TIMEOUT = 30.0
LAST_LINES = 12             # of a QEMU's, in a report

ROLES = ("primary", "secondary")

# Both hosts of the documentation are this one.
HOSTS = ("127.0.0.1", "127.0.0.2")


@dataclass(frozen=True)
class Host:
    """What stands for one; after a failover the primary is on the other."""

    address: str
    tap: str


class Couple:
    """Two QEMUs that run one guest; they die with the couple, and their logs stay."""

    def __init__(self, emulator: Path | str, network: Network):
        self.emulator = Path(emulator).absolute()       # a process has a working directory of its own
        if not self.emulator.exists():
            raise Failure(f"there is no {self.emulator}; run scripts/build-qemu")
        self.network = network
        self.guest = guest.build()
        self.directory = new_directory()
        self.primary: Qemu | None = None
        self.secondary: Qemu | None = None
        self.gone: list[Qemu] = []      # those that others have taken the place of
        self.hosts = {role: Host(address, network.taps[role]) for role, address in zip(ROLES, HOSTS)}

    def __enter__(self) -> Any:
        return self

    def __exit__(self, kind, value, traceback) -> None:
        for qemu in self.processes():
            qemu.close()
        if isinstance(value, Failure) and str(self.directory) not in str(value):
            value.args = (f"{value}\n(logs: {self.directory})",)

    def processes(self) -> list[Qemu]:
        return [qemu for qemu in (self.primary, self.secondary) if qemu]

    def check_alive(self) -> None:
        for qemu in self.processes():
            qemu.check_alive()

    def wait_ready(self, progress: Callable[[float], None] = lambda seconds: None) -> float:
        """Wait until the guest serves the client; return the seconds it took."""
        began = time.monotonic()

        def ready() -> bool:
            progress(time.monotonic() - began)
            self.check_alive()
            return guest.READY in self.primary.console()

        wait_until(ready, BOOT_TIMEOUT, "the guest's boot")
        return time.monotonic() - began

    def wait_protected(self) -> None:
        """The migration has begun: wait until both guests run under COLO."""
        def protected() -> bool:
            self.check_alive()
            info = self.primary.monitor.command("query-migrate")
            if info.get("status") in ENDED:
                raise Failure(f"the migration ended as {info['status']}: {info.get('error-desc', 'without a word')}")
            return self.colo_runs()

        wait_until(protected, COLO_TIMEOUT, "both guests running under COLO")

    def colo_runs(self) -> bool:
        """Both sides are in COLO state and their guests run."""
        return all(qemu.monitor.command("query-colo-status")["mode"] == qemu.role
                   and qemu.monitor.command("query-status")["running"]
                   for qemu in self.processes())

    def survivor(self) -> Qemu:
        """The only process that still runs."""
        alive = [qemu for qemu in self.processes() if qemu.alive]
        if len(alive) != 1:
            raise Failure(f"{len(alive)} of the two QEMUs run; kill one first")
        return alive[0]

    @staticmethod
    def wait_alone(qemu: Qemu) -> None:
        """It has been told to go on without the other one: wait until its guest runs."""
        wait_until(lambda: qemu.monitor.command("query-colo-status")["mode"] == "none"
                   and qemu.monitor.command("query-status")["running"],
                   FAILOVER_TIMEOUT, f"the {qemu.role} alone")

    def note_failover(self, survivor: Qemu) -> None:
        """It is the primary from now on, on whichever host, and has no secondary."""
        if survivor is self.secondary:
            survivor.role = "primary"
            self.primary, self.secondary = self.secondary, self.primary
            self.hosts = dict(zip(ROLES, reversed(self.hosts.values())))
        self.retire_secondary()

    def retire_secondary(self) -> None:
        """Its place is free."""
        if self.secondary:
            self.secondary.close()
            self.gone.append(self.secondary)
            self.secondary = None

    def said(self) -> list[str]:
        """What each QEMU has said last."""
        return [f"{qemu.role}: {line}" for qemu in [*self.gone, *self.processes()]
                for line in qemu.output().splitlines()[-LAST_LINES:]]

    def trouble(self) -> list[str]:
        """What the guests' consoles tell of crashed kernels and corrupted memory."""
        return [f"{qemu.role}: {line}" for qemu in [*self.processes(), *self.gone]
                for line in guest.trouble_in(qemu.console())]
