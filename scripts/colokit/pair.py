# SPDX-License-Identifier: GPL-2.0-or-later
"""Two QEMUs that run one guest under COLO, both on this machine.

    with Network() as network, Pair(emulator, network) as pair:
        pair.start()            # both processes; the primary boots
        pair.wait_ready()       # the guest serves
        pair.start_colo()       # the secondary has become its copy

The processes die with the pair, and with us.  What they wrote is under
pair.directory and stays there; the oldest runs are removed.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Iterator

from . import guest
from .couple import Couple
from .machine import Failure, wait_until
from .network import Network
from .process import Qemu
from .series import series_of

DEVICES = tuple(guest.NIC_MODULES)

# "current" and "2016" are the command lines of QEMU's docs/COLO-FT.txt and of
# the proxy's first documentation; "none" is one guest without any protection.
# "twin" has both guests run on the same input, but nothing compared: the
# primary's output leaves at once, the secondary's goes nowhere.  It protects
# nothing; no scheme with two guests can be faster.  "proxy" is one colo-proxy
# on each side.
USAGES = ("current", "2016", "none", "twin", "proxy")

MIRROR_PORT, COMPARE_PORT, MIGRATION_PORT = 9003, 9004, 9998
LOCAL_PORTS = (9001, 9005)      # between the primary's own objects: to colo-compare, and from it

# Written to each QEMU's log.  The last are ours, and unknown to a stock build.
TRACE_EVENTS = ("colo_vm_state_change", "colo_send_message", "colo_receive_message",
                "colo_failover_set_state", "colo_compare_event", "colo_proxy_event")

# What the documentation removes on the survivor: objects before the failover,
# objects after it, and chardevs.
REMOVED = {
    "primary": (("comp0", "iothread1", "m0", "redire0", "redire1"), (), ()),
    "secondary": ((), ("f2", "f1"), ("red1", "red0")),
}


@dataclass
class Options:
    """How a pair is put together."""

    device: str = "virtio-net-pci"
    memory: int = 192                   # MiB
    usage: str = "current"
    checkpoint_delay: int = 20000       # ms without a divergence until a checkpoint is made
    run: str = ""                       # programs that the guest starts, comma separated
    cold: bool = False                  # the guest has made no TCP connection before COLO
    compare: str = ""                   # further properties of what compares, "a=b,c=d"
    secondary: str = ""                 # and of the secondary's colo-proxy
    more: dict[str, list[str]] = field(default_factory=dict)    # further arguments, by role
    apart: bool = False                 # each QEMU keeps to one half of the processors, as if that were its host

    def __post_init__(self) -> None:
        if self.device not in DEVICES:
            raise Failure(f"no such network card: {self.device}; known are {', '.join(DEVICES)}")
        if self.usage not in USAGES:
            raise Failure(f"no such usage: {self.usage}; known are {', '.join(USAGES)}")

    @property
    def vnet_hdr(self) -> str:
        """The property for every object: virtio's packets carry a header of their own."""
        return ",vnet_hdr_support=on" if self.device.startswith("virtio") else ""


class Pair(Couple):
    """A primary and a secondary; see the top of this file."""

    def __init__(self, emulator: Path | str, network: Network, **options: Any):
        super().__init__(emulator, network)
        self.options = Options(**options)
        self.series = series_of(self.emulator)
        self.generation = 0             # how often the roles have changed

    # ------------------------------------------------------------ life

    def start(self) -> None:
        """Start the processes; the primary boots, the secondary waits for it."""
        self.primary = self._launch("primary")
        if self.options.usage == "2016":
            # Its secondary connects only once: the primary must listen before.
            self.primary.monitor.command("query-status")
        if self.options.usage != "none":
            self.secondary = self._launch("secondary")

    def start_colo(self) -> float:
        """Make the secondary the primary's copy; return the seconds it took."""
        began = time.monotonic()
        monitor = self.primary.monitor
        monitor.command("migrate-set-parameters",
                        x_checkpoint_delay=self.options.checkpoint_delay,
                        max_bandwidth=1 << 30)
        for qemu in (self.secondary, self.primary):
            qemu.monitor.command("migrate-set-capabilities", capabilities=[{"capability": "x-colo", "state": True}])
        monitor.command("migrate", uri=f"tcp:{self.hosts['secondary'].address}:{MIGRATION_PORT}")

        self.wait_protected()
        return time.monotonic() - began

    def protect_again(self) -> float:
        """The secondary is lost and the primary goes on alone: give it another one; the seconds it took."""
        began = time.monotonic()
        monitor = self.primary.monitor
        monitor.command("x-colo-lost-heartbeat")
        self.wait_alone(self.primary)
        self.new_secondary()
        self.start_colo()
        return time.monotonic() - began

    def change_roles(self) -> float:
        """The secondary has taken over: as the primary it is given a secondary, on the dead one's host; the seconds it took."""
        began = time.monotonic()
        mapping = self.comparer if self.options.usage == "proxy" else "rew0"
        self.exchange()
        # What the clients send is the new secondary's as it comes; it maps it for itself.
        for kind, what in self._primary_objects(wait=False):
            if kind == "-object" and what.startswith(("filter-", "colo-proxy")):
                what += f",insert=before,position=id={mapping}"
            said = self.primary.monitor.human(f"{'chardev-add' if kind == '-chardev' else 'object_add'} {what}")
            if said:
                raise Failure(f"the new primary: {what}: {said.strip()}")
        self.new_secondary()
        self.start_colo()
        return time.monotonic() - began

    def exchange(self) -> None:
        """The primary is dead; who was the secondary is called the primary from now on."""
        self.note_failover(self.secondary)
        self.generation += 1

    def new_secondary(self) -> None:
        """Start one that waits for the guest."""
        self.retire_secondary()
        self.secondary = self._launch("secondary")

    def failover(self) -> float:
        """Tell the survivor that it is alone, as documented; seconds until its guest runs."""
        began = time.monotonic()
        survivor = self.survivor()
        before, after, chardevs = REMOVED[survivor.role]
        if self.options.usage == "proxy":
            before, after, chardevs = ((self.comparer,) if survivor.role == "primary" else ()), (), ()
        self._remove(survivor, before)
        survivor.monitor.command("x-colo-lost-heartbeat")
        self.wait_alone(survivor)
        self._remove(survivor, after)
        for name in chardevs:
            survivor.monitor.command("chardev-remove", id=name)
        return time.monotonic() - began

    def _remove(self, qemu: Qemu, objects: tuple[str, ...]) -> None:
        there = {item["name"] for item in qemu.monitor.command("qom-list", path="/objects")}
        for name in objects:
            if name in there:
                qemu.monitor.command("object-del", id=name)

    # ------------------------------------------------------------ figures

    def checkpoints(self) -> int:
        """How many checkpoints the secondary has loaded."""
        return sum("colo_send_message" in line and "'vmstate-loaded'" in line
                   for line in self.secondary.trace())

    def pauses(self) -> list[float]:
        """How long the primary's guest stood still for each checkpoint so far, in seconds."""
        pauses, stopped = [], None
        for when, what in self.primary.timed_trace():
            found = re.match(r"colo_vm_state_change .*'\w+' => '(\w+)'", what)
            if found and found[1] == "stop":
                stopped = when
            elif found and stopped is not None:
                pauses.append(when - stopped)
                stopped = None
        return pauses

    def wait_checkpoints(self, count: int, timeout: float = 60.0) -> None:
        """Wait until that many have been loaded since the start."""
        def enough() -> bool:
            self.check_alive()
            return self.checkpoints() >= count
        wait_until(enough, timeout, f"checkpoint number {count}, after {self.checkpoints()},")

    def counters(self, role: str = "primary") -> dict[str, dict[str, Any]]:
        """What each of the proxy's objects counts, by the object's name."""
        answer = getattr(self, role).monitor.command("query-colo-proxy")
        return {item["id"]: item for item in answer}

    @property
    def comparer(self) -> str:
        """The id of the object that compares."""
        return f"f{self.generation}" if self.options.usage == "proxy" else "comp0"

    def comparison(self) -> dict[str, Any]:
        """What it counts."""
        counters = self.counters()[self.comparer]
        return counters.get("compare", counters)

    def divergences(self) -> Counter[str]:
        """How often it has asked for a checkpoint, by reason."""
        return Counter({item["reason"]: item["count"] for item in self.comparison()["divergences"]})

    # ------------------------------------------------------------ command lines

    def _path(self, role: str) -> Path:
        """What the names of a process's files begin with."""
        number = len(self.gone)
        return self.directory / (f"{role}-{number + 1}" if number else role)

    def _launch(self, role: str) -> Qemu:
        processors = sorted(os.sched_getaffinity(0))
        half = len(processors) // 2
        if self.options.apart and half:
            processors = processors[:half] if role == "primary" else processors[half:]
        return Qemu(role, self._path(role), self.network.hosts, self.command_line(role), set(processors))

    def command_line(self, role: str) -> list[str]:
        """The whole command of one side."""
        options = self.options
        path = self._path(role)
        command = [
            str(self.emulator), "-name", role, "-nodefaults", "-no-user-config",
            "-display", "none", "-accel", "tcg", "-machine", "pc", "-cpu", "qemu64",
            "-m", str(options.memory), "-smp", "1", "-msg", "timestamp=on",
            "-D", f"{path}.trace",
            "-serial", f"file:{path}.console",
            "-qmp", f"unix:{path}.qmp,server=on,wait=off",
            "-qmp", f"unix:{path}.probe,server=on,wait=off",
        ]
        for event in TRACE_EVENTS:
            command += ["-trace", event]
        command += self.guest.arguments(
            options.device, f"{self.network.guest_arguments()} run={options.run} "
                            f"cold={'yes' if options.cold else ''}")
        command += [
            "-netdev", f"tap,id=hn0,vhost=off,ifname={self.hosts[role].tap},"
                       "script=no,downscript=no",
            "-device", f"{options.device},id=e0,netdev=hn0,"
                       f"mac={self.network.guest_mac},romfile=",
        ]
        command += options.more.get(role, [])
        if options.usage != "none":
            objects = self._primary_objects() if role == "primary" else self._secondary_objects()
            command += [word for pair in objects for word in pair]
        if role == "secondary":
            command += ["-incoming", f"tcp:{self.hosts[role].address}:{MIGRATION_PORT}"]
        return command

    def _primary_objects(self, wait: bool = True) -> list[tuple[str, str]]:
        """Options of the command line; with @wait as documented for it."""
        vnet, usage = self.options.vnet_hdr, self.options.usage
        if usage == "proxy":
            return [("-object", self._proxy("primary"))]
        if usage == "twin":
            return [
                ("-chardev", f"socket,id=mirror0,host=0.0.0.0,port={MIRROR_PORT},server=on,wait=off"),
                ("-object", f"filter-mirror,id=m0,netdev=hn0,queue=tx,outdev=mirror0{vnet}"),
            ]
        old = usage == "2016"
        listens = "server,nowait" if old else "server=on,wait=off"
        waits = "server=on,wait=on" if wait and not old else listens
        more = f",{self.options.compare}" if self.options.compare else ""
        compare0, compare_out = (f"host={self.hosts['primary'].address},port={port}" for port in LOCAL_PORTS)
        return [
            ("-chardev", f"socket,id=mirror0,host=0.0.0.0,port={MIRROR_PORT},{listens}"),
            ("-chardev", f"socket,id=compare1,host=0.0.0.0,port={COMPARE_PORT},{waits}"),
            ("-chardev", f"socket,id=compare0,{compare0},{listens}"),
            ("-chardev", f"socket,id=compare0-0,{compare0}"),
            ("-chardev", f"socket,id=compare_out,{compare_out},{listens}"),
            ("-chardev", f"socket,id=compare_out0,{compare_out}"),
            ("-object", f"filter-mirror,id=m0,netdev=hn0,queue=tx,outdev=mirror0{vnet}"),
            ("-object", f"filter-redirector,netdev=hn0,id=redire0,queue=rx,indev=compare_out{vnet}"),
            ("-object", f"filter-redirector,netdev=hn0,id=redire1,queue=rx,outdev=compare0{vnet}"),
            *([] if old else [("-object", "iothread,id=iothread1")]),
            ("-object", "colo-compare,id=comp0,primary_in=compare0-0,secondary_in=compare1,"
                        f"outdev=compare_out0{'' if old else ',iothread=iothread1'}{vnet}{more}"),
        ]

    def _secondary_objects(self) -> list[tuple[str, str]]:
        vnet, usage = self.options.vnet_hdr, self.options.usage
        if usage == "proxy":
            return [("-object", self._proxy("secondary"))]
        primary = self.hosts["primary"].address
        old = usage == "2016"
        reconnect = "" if old else f",{self.series.reconnect}"
        output = "null,id=red1" if usage == "twin" else f"socket,id=red1,host={primary},port={COMPARE_PORT}{reconnect}"
        return [
            ("-chardev", f"socket,id=red0,host={primary},port={MIRROR_PORT}{reconnect}"),
            ("-chardev", output),
            ("-object", f"filter-redirector,id=f1,netdev=hn0,queue=tx,indev=red0{vnet}"),
            ("-object", f"filter-redirector,id=f2,netdev=hn0,queue=rx,outdev=red1{vnet}"),
            *([] if old else [("-object", f"filter-rewriter,id=rew0,netdev=hn0,queue=all{vnet}")]),
        ]

    def _proxy(self, role: str) -> str:
        more = self.options.compare if role == "primary" else self.options.secondary
        more = more and f",{more}"
        address = f"{self.hosts['primary'].address}:{MIRROR_PORT}"
        return f"colo-proxy,id=f{self.generation},netdev=hn0,queue=all,mode={role},addr={address}{more}"


@contextlib.contextmanager
def running(emulator: Path | str, **options: Any) -> Iterator[Pair]:
    """A network and a pair in it, booted and under COLO (or unprotected)."""
    with Network() as network, Pair(emulator, network, **options) as pair:
        pair.start()
        pair.wait_ready()
        if pair.secondary:
            pair.start_colo()
        yield pair
