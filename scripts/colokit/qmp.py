# SPDX-License-Identifier: GPL-2.0-or-later
"""A synchronous QMP client, thin on top of the package in QEMU's own tree."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from pathlib import Path
from typing import Any, Callable

from .machine import BUILD, Failure

TIMEOUT = 30.0
CONNECT_TIMEOUT = 10.0
ATTEMPTS = 5


def _package():
    """QEMU's qemu.qmp: from whichever tree under build/ there is, or wherever Python (PYTHONPATH) finds it."""
    for place in [*sorted(str(tree.parents[1]) for tree in BUILD.glob("*/*/python/qemu/qmp")), None]:
        sys.path[:0] = [place] if place else []
        try:
            # Both share one event loop; QEMU's wrapper expects it to be set.
            asyncio.set_event_loop(asyncio.new_event_loop())
            from qemu.qmp import QMPError, legacy
            return legacy, QMPError
        except ImportError:
            del sys.path[:1 if place else 0]
    raise Failure("QEMU's Python package qemu.qmp is not there: set PYTHONPATH to the directory python of a QEMU source tree, or run "
                  "scripts/build-qemu")


class Commands:
    """What can be told to a monitor, however one reaches it."""

    def execute(self, name: str, arguments: dict[str, Any], timeout: float = TIMEOUT) -> Any:
        """Run a command whose arguments are named as they are."""
        raise NotImplementedError

    def command(self, name: str, timeout: float = TIMEOUT, /, **arguments: Any) -> Any:
        """Run a command; "_" in an argument's name stands for "-"."""
        return self.execute(name, {key.replace("_", "-"): value for key, value in arguments.items()}, timeout)

    def human(self, line: str, timeout: float = TIMEOUT) -> str:
        """Run a command of the human monitor and return what it prints."""
        return self.command("human-monitor-command", timeout, command_line=line)


class Monitor(Commands):
    """A connection to one QEMU's monitor.  For use by one thread, the one that made it."""

    def __init__(self, place: Path | tuple[str, int], name: str, how_ended: Callable[[], str] = lambda: "has that QEMU ended?"):
        """@place: the path of a unix socket, or a host and a port; @how_ended: asked when the monitor has gone."""
        legacy, self._error = _package_once()
        self.name = name
        self._how_ended = how_ended
        self.events: list[dict[str, Any]] = []
        self._qmp = legacy.QEMUMonitorProtocol(place if isinstance(place, tuple) else str(place), nickname=name)
        try:
            self._connect(place if isinstance(place, tuple) else str(place))
        except asyncio.TimeoutError:
            raise Failure(f"{name}: {place} does not greet: somebody else is connected to it, and a QEMU's -qmp serves one at a time; "
                          "give it another one") from None
        except self._error as error:
            where = ":".join(map(str, place)) if isinstance(place, tuple) else place
            raise Failure(f"{name}: cannot connect to {where}: {error}") from None

    def _connect(self, address: str | tuple[str, int]) -> None:
        client = self._qmp._qmp
        client.await_greeting = client.negotiate = True
        for attempt in range(1, ATTEMPTS + 1):
            try:
                self._qmp._sync(client.connect(address), CONNECT_TIMEOUT)
                return
            except self._error as error:
                # QEMU may send an event before its greeting (to one who comes just after another one) or before its first
                # answer; the package takes it for what it waits for.
                if attempt == ATTEMPTS or not isinstance(getattr(error, "exc", None), self._error):
                    raise

    def close(self) -> None:
        with contextlib.suppress(Exception):   # the other end may be dead
            self._qmp.close()

    def execute(self, name: str, arguments: dict[str, Any], timeout: float = TIMEOUT) -> Any:
        try:
            return self._qmp._sync(self._qmp._qmp.execute(name, arguments), timeout)
        except asyncio.TimeoutError:
            raise Failure(f"{self.name}: no answer to {name} within {timeout:g} s") from None
        except self._error as error:
            ended = "disconnect" in str(error).lower()
            raise Failure(f"{self.name}: {name}: {f'the monitor has gone; {self._how_ended()}' if ended else error}") from None

    def poll_events(self) -> list[dict[str, Any]]:
        """All events so far, oldest first."""
        self._qmp._sync(asyncio.sleep(0))      # let the loop read what has come
        self.events += self._qmp.get_events()
        return self.events

    def take_events(self, name: str) -> list[dict[str, Any]]:
        """All events of that name so far, which are taken out of self.events."""
        taken = [event for event in self.poll_events() if event["event"] == name]
        self.events = [event for event in self.events if event["event"] != name]
        return taken

    def wait_event(self, name: str, timeout: float = TIMEOUT) -> dict[str, Any]:
        """The first event of that name, which is taken out of self.events."""
        deadline = time.monotonic() + timeout
        while True:
            for event in self.poll_events():
                if event["event"] == name:
                    self.events.remove(event)
                    return event
            if not self.wait_events(deadline - time.monotonic()):
                raise Failure(f"{self.name}: no event {name} within {timeout:g} s")

    def wait_events(self, timeout: float) -> bool:
        """Wait for one more event, which self.events has then; false if none came."""
        try:
            if timeout <= 0:
                raise asyncio.TimeoutError
            self.events.append(self._qmp.pull_event(timeout))
        except asyncio.TimeoutError:
            return False
        except self._error as error:
            raise Failure(f"{self.name}: the connection to the monitor has ended: {error}") from None
        return True


_found = None


def _package_once():
    global _found
    _found = _found or _package()
    return _found
