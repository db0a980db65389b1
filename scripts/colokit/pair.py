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
import ctypes
import itertools
import os
import re
import resource
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Callable, Iterator

from . import guest
from .machine import BUILD, Failure, wait_until
from .network import Namespace, Network
from .qmp import Monitor
from .series import series_of

RUNS = BUILD / "run"
RUNS_KEPT = 40
BOOT_TIMEOUT = 120.0
END_TIMEOUT = 10.0          # a monitor closes before its process is gone
FRAMES = 25                 # of the thread that crashed
COLO_TIMEOUT = 60.0

ROLES = ("primary", "secondary")
DEVICES = tuple(guest.NIC_MODULES)

# "current" and "2016" are the command lines of QEMU's docs/COLO-FT.txt and of
# the proxy's first documentation; "none" is one guest without any protection.
# "twin" has both guests run on the same input, but nothing compared: the
# primary's output leaves at once, the secondary's goes nowhere.  It protects
# nothing; no scheme with two guests can be faster.  "proxy" is one colo-proxy
# on each side.
USAGES = ("current", "2016", "none", "twin", "proxy")

# Both hosts of the documentation are this one.
HOSTS = ("127.0.0.1", "127.0.0.2")
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

PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)
_numbers = itertools.count()


class Qemu:
    """One QEMU process with its monitor and its logs."""

    def __init__(self, role: str, path: Path, host: Namespace, command: list[str], processors: set[int]):
        def prepare() -> None:
            _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            os.sched_setaffinity(0, processors)
            may_be = resource.getrlimit(resource.RLIMIT_CORE)[1]
            resource.setrlimit(resource.RLIMIT_CORE, (may_be, may_be))

        self.role = role
        self.program = command[0]
        self.console_path = Path(f"{path}.console")
        self.trace_path = Path(f"{path}.trace")
        self.output_path = Path(f"{path}.output")
        self.monitor_path = Path(f"{path}.qmp")
        self.probe_path = Path(f"{path}.probe")     # another monitor, for whoever else wants one
        self.stopped = False
        self._monitor: Monitor | None = None
        self.core_directory = Path(f"{path}.core")  # its working directory; a core tells no other way whose it is
        self.core_directory.mkdir(exist_ok=True)
        command = host.command(command)
        Path(f"{path}.command").write_text("\n".join(command) + "\n")
        with open(self.output_path, "wb") as output:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=self.core_directory,
                start_new_session=True, preexec_fn=prepare)

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def check_alive(self) -> None:
        if not self.alive:
            raise Failure(self.end())

    def end(self, timeout: float = END_TIMEOUT) -> str:
        """How it ended, and its last words; that it runs, if it still does."""
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            return f"the {self.role} QEMU still runs"
        last = self.output().strip().splitlines()[-3:] + self._stack()
        return f"the {self.role} QEMU has ended with status {status}" + "".join(f"\n    {line}" for line in last)

    def _stack(self) -> list[str]:
        """Where it crashed, if it has left a core and there is a debugger."""
        cores = list(self.core_directory.iterdir())
        if not cores or not shutil.which("gdb"):
            return []
        said = subprocess.run(["gdb", "-batch", "-ex", f"bt {FRAMES}", "-ex", "info threads", self.program, cores[0]],
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False).stdout
        return [line for line in said.splitlines() if re.match(r"#|\*? +\d+ +Thread", line)]

    @property
    def monitor(self) -> Monitor:
        """The connection to the monitor, made when it is first wanted."""
        if self._monitor is None:
            def connected() -> Monitor | None:
                self.check_alive()
                with contextlib.suppress(Failure):      # the socket is there before somebody listens
                    return Monitor(self.monitor_path, self.role, self.end) if self.monitor_path.exists() else None
            self._monitor = wait_until(connected, 30, f"the {self.role}'s monitor")
        return self._monitor

    def console(self) -> str:
        """What the guest has written to its serial console."""
        return _text(self.console_path)

    def trace(self) -> list[str]:
        """The lines of the trace log, oldest first."""
        return _text(self.trace_path).splitlines()

    def timed_trace(self) -> Iterator[tuple[float, str]]:
        """The same, each line with its time in seconds since 1970 apart."""
        for line in self.trace():
            if found := re.match(r"\d+@(\d+\.\d+):(.*)", line):
                yield float(found[1]), found[2]
            elif found := re.match(r"(\S+)Z (.*)", line):         # since 10.2
                yield datetime.fromisoformat(found[1] + "+00:00").timestamp(), found[2]

    def output(self) -> str:
        """What QEMU itself has said."""
        return _text(self.output_path)

    def figures(self) -> dict[str, float]:
        """Resident memory in MiB and processor time in seconds so far."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        ticks = int(fields[11]) + int(fields[12])
        return {"memory": int(re.search(r"VmRSS:\s+(\d+)", status).group(1)) / 1024,
                "cpu": ticks / os.sysconf("SC_CLK_TCK")}

    def overhead(self) -> float:
        """Seconds of processor time so far of all threads but the guest's processors."""
        guests = {cpu["thread-id"] for cpu in self.monitor.command("query-cpus-fast")}
        ticks = 0
        for task in Path(f"/proc/{self.pid}/task").iterdir():
            if int(task.name) not in guests:
                fields = (task / "stat").read_text().rpartition(")")[2].split()
                ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        """Stop the process as a whole, as if its host had frozen."""
        os.kill(self.pid, signal.SIGSTOP)
        self.stopped = True

    def cont(self) -> None:
        os.kill(self.pid, signal.SIGCONT)
        self.stopped = False

    def kill(self) -> None:
        """End the process as a power cut would."""
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        self.kill()
        if self._monitor:
            self._monitor.close()
            self._monitor = None


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


@dataclass(frozen=True)
class Node:
    """What stands for a host; after a failover the primary is on the other one."""

    address: str
    tap: str


class Pair:
    """A primary and a secondary; see the top of this file."""

    def __init__(self, emulator: Path | str, network: Network, **options: Any):
        self.emulator = Path(emulator).absolute()       # a process has a working directory of its own
        self.network = network
        self.options = Options(**options)
        self.guest = guest.build()
        self.directory = new_directory()
        self.primary: Qemu | None = None
        self.secondary: Qemu | None = None
        self.gone: list[Qemu] = []      # those that others have taken the place of
        self.generation = 0             # how often the roles have changed
        self.nodes = {role: Node(host, network.taps[role]) for role, host in zip(ROLES, HOSTS)}
        if not self.emulator.exists():
            raise Failure(f"there is no {self.emulator}; run scripts/build-qemu")
        self.series = series_of(self.emulator)

    def __enter__(self) -> "Pair":
        return self

    def __exit__(self, kind, value, traceback) -> None:
        for qemu in self.processes():
            qemu.close()
        if isinstance(value, Failure) and str(self.directory) not in str(value):
            value.args = (f"{value}\n(logs: {self.directory})",)

    def processes(self) -> list[Qemu]:
        return [qemu for qemu in (self.primary, self.secondary) if qemu]

    # ------------------------------------------------------------ life

    def start(self) -> None:
        """Start the processes; the primary boots, the secondary waits for it."""
        self.primary = self._launch("primary")
        if self.options.usage == "2016":
            # Its secondary connects only once: the primary must listen before.
            self.primary.monitor.command("query-status")
        if self.options.usage != "none":
            self.secondary = self._launch("secondary")

    def wait_ready(self, progress: Callable[[float], None] = lambda seconds: None) -> float:
        """Wait until the guest serves the client; return the seconds it took."""
        began = time.monotonic()

        def ready() -> bool:
            progress(time.monotonic() - began)
            for qemu in self.processes():
                qemu.check_alive()
            return guest.READY in self.primary.console()

        wait_until(ready, BOOT_TIMEOUT, "the guest's boot")
        return time.monotonic() - began

    def start_colo(self) -> float:
        """Make the secondary the primary's copy; return the seconds it took."""
        began = time.monotonic()
        monitor = self.primary.monitor
        monitor.command("migrate-set-parameters",
                        x_checkpoint_delay=self.options.checkpoint_delay,
                        max_bandwidth=1 << 30)
        for qemu in (self.secondary, self.primary):
            qemu.monitor.command("migrate-set-capabilities", capabilities=[{"capability": "x-colo", "state": True}])
        monitor.command("migrate", uri=f"tcp:{self.nodes['secondary'].address}:{MIGRATION_PORT}")

        def migrated() -> bool:
            for qemu in self.processes():
                qemu.check_alive()
            info = monitor.command("query-migrate")
            if info.get("status") in ("failed", "cancelled", "completed"):
                raise Failure(f"the migration ended as {info['status']}: "
                              f"{info.get('error-desc', 'without a word')}")
            return info.get("status") == "colo"

        wait_until(migrated, COLO_TIMEOUT, "the migration to the secondary")
        wait_until(self.colo_runs, COLO_TIMEOUT, "both guests running under COLO")
        return time.monotonic() - began

    def colo_runs(self) -> bool:
        """Both sides are in COLO state and their guests run."""
        return all(qemu.monitor.command("query-colo-status")["mode"] == qemu.role
                   and qemu.monitor.command("query-status")["running"]
                   for qemu in self.processes())

    def protect_again(self) -> float:
        """The secondary is lost and the primary goes on alone: give it another one; the seconds it took."""
        began = time.monotonic()
        monitor = self.primary.monitor
        monitor.command("x-colo-lost-heartbeat")
        wait_until(lambda: monitor.command("query-colo-status")["mode"] == "none"
                   and monitor.command("query-status")["running"], 30, "the primary alone")
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
        self.primary.close()
        self.gone.append(self.primary)
        self.primary, self.secondary = self.secondary, None
        self.primary.role = "primary"
        self.nodes = dict(zip(ROLES, reversed(self.nodes.values())))
        self.generation += 1

    def new_secondary(self) -> None:
        """Start one that waits for the guest."""
        if self.secondary:
            self.secondary.close()
            self.gone.append(self.secondary)
        self.secondary = self._launch("secondary")

    def kill_primary(self) -> None:
        self.primary.kill()

    def kill_secondary(self) -> None:
        self.secondary.kill()

    def survivor(self) -> Qemu:
        """The only process that still runs."""
        alive = [qemu for qemu in self.processes() if qemu.alive]
        if len(alive) != 1:
            raise Failure(f"{len(alive)} of the pair's processes run; kill one first")
        return alive[0]

    def failover(self) -> float:
        """Tell the survivor that it is alone, as documented; seconds until its guest runs."""
        began = time.monotonic()
        survivor = self.survivor()
        before, after, chardevs = REMOVED[survivor.role]
        if self.options.usage == "proxy":
            before, after, chardevs = ((self.comparer,) if survivor.role == "primary" else ()), (), ()
        self._remove(survivor, before)
        survivor.monitor.command("x-colo-lost-heartbeat")
        wait_until(lambda: survivor.monitor.command("query-colo-status")["mode"] == "none"
                   and survivor.monitor.command("query-status")["running"],
                   30, f"the {survivor.role}'s failover")
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
            for qemu in self.processes():
                qemu.check_alive()
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

    def trouble(self) -> list[str]:
        """What the guests' consoles tell of crashed kernels and corrupted memory."""
        return [f"{qemu.role}: {line}" for qemu in [*self.processes(), *self.gone]
                for line in guest.trouble_in(qemu.console())]

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
            "-netdev", f"tap,id=hn0,vhost=off,ifname={self.nodes[role].tap},"
                       "script=no,downscript=no",
            "-device", f"{options.device},id=e0,netdev=hn0,"
                       f"mac={self.network.guest_mac},romfile=",
        ]
        command += options.more.get(role, [])
        if options.usage != "none":
            objects = self._primary_objects() if role == "primary" else self._secondary_objects()
            command += [word for pair in objects for word in pair]
        if role == "secondary":
            command += ["-incoming", f"tcp:{self.nodes[role].address}:{MIGRATION_PORT}"]
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
        compare0, compare_out = (f"host={self.nodes['primary'].address},port={port}" for port in LOCAL_PORTS)
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
        primary = self.nodes["primary"].address
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
        address = f"{self.nodes['primary'].address}:{MIRROR_PORT}"
        return f"colo-proxy,id=f{self.generation},netdev=hn0,queue=all,mode={role},addr={address}{more}"



# ---------------------------------------------------------------- files

def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except FileNotFoundError:
        return ""


def new_directory() -> Path:
    """A directory of its own for this run's logs; old ones make room, but not those of a process that still runs."""
    RUNS.mkdir(parents=True, exist_ok=True)
    runs = sorted((path for path in RUNS.iterdir() if path.is_dir()),
                  key=lambda path: path.stat().st_mtime)
    for path in runs[:-RUNS_KEPT]:
        if not Path("/proc", path.name.split("-")[2]).exists():
            shutil.rmtree(path, ignore_errors=True)
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}-{next(_numbers)}"
    directory = RUNS / name
    directory.mkdir()
    return directory


@contextlib.contextmanager
def running(emulator: Path | str, **options: Any) -> Iterator[Pair]:
    """A network and a pair in it, booted and under COLO (or unprotected)."""
    with Network() as network, Pair(emulator, network, **options) as pair:
        pair.start()
        pair.wait_ready()
        if pair.secondary:
            pair.start_colo()
        yield pair
