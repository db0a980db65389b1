# SPDX-License-Identifier: GPL-2.0-or-later
"""scripts/soak: a protected guest under mixed load for as long as one likes, while all sorts of things happen to it.

All that the client gets is verified by the client itself, byte by byte.  Meanwhile, at
random moments: checkpoints, a secondary that freezes for a moment, one that freezes for
good, one that is killed; after the last two the guest is given another secondary.
With --calm nothing but checkpoints happens, and a node that is said to be lost is
a false alarm.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from . import build, guest
from .figures import build_programs, program
from .machine import Failure, become_root, reporting, wait_until
from .pair import DEVICES, Pair, running
from .process import Qemu
from .series import add_series_option

SEGMENT = 10                    # seconds that the client works before it tells what has come of it
REQUEST_TIMEOUT = 30
FROZEN_SHORT = (0.1, 2.0)       # seconds; the pair stays together
SETTLED = 300.0                 # seconds after which a QEMU's memory is to stay what it is
GROWTH = 1.05                   # at most so many times

JOBS = ("http,at-once=2,address={v4}", "http,at-once=2,address={v6}", "keep-alive,at-once=2,address={v4}",
        "download,at-once=1,size=3000000,repeat=on,address={v4}", "download,at-once=1,size=300000,repeat=on,address={v6}",
        "upload,size=5000000,repeat=on,address={v4}", "udp,at-once=1,address={v4}", "ping,rate=10,address={v4}",
        "ping,rate=10,address={v6}")
DIVERGING = "random,at-once=1,address={v4}"     # now and then


@dataclass
class Load(threading.Thread):
    """The client, segment after segment."""

    pair: Pair
    seed: int
    requests: int = 0
    bytes: int = 0
    failures: int = 0
    worst: float = 0.0                  # ms, the longest without progress in a request
    errors: dict[str, int] = field(default_factory=dict)
    broken: str | None = None

    def __post_init__(self) -> None:
        super().__init__(daemon=True, name="load")
        self.over = threading.Event()

    def __hash__(self) -> int:
        return id(self)

    def run(self) -> None:
        draw = random.Random(self.seed)
        try:
            while not self.over.is_set():
                self._segment([*JOBS, DIVERGING] if draw.random() < 0.3 else [*JOBS])
        except (Failure, OSError, ValueError, KeyError) as error:
            self.broken = str(error)

    def _segment(self, jobs: list[str]) -> None:
        network = self.pair.network
        place = {"v4": network.guest_address, "v6": network.guest_address6}
        command = [program("colo-bench-client"), "--seconds", SEGMENT, "--timeout", REQUEST_TIMEOUT,
                   *(job.format(**place) for job in jobs)]
        result = subprocess.run(network.client.command([str(word) for word in command]), capture_output=True, text=True)
        if result.returncode:
            raise Failure(f"client: {result.stderr.strip()}")
        for job in json.loads(result.stdout)["jobs"]:
            self.requests += job["requests"]
            self.bytes += job["bytes"]
            self.failures += job["failures"] + job["duplicates"]
            self.worst = max(self.worst, job["gap"])
            for text, count in job["errors"].items():
                name = f"{job['job'].partition(',')[0]}: {text}"
                self.errors[name] = self.errors.get(name, 0) + count


@dataclass
class Memory:
    """What one process uses, from when it has settled."""

    qemu: Qemu
    began: float = field(default_factory=time.monotonic)
    settled: float | None = None        # MiB
    last: float = 0.0

    def look(self) -> None:
        if self.qemu.alive:
            self.last = self.qemu.figures()["memory"]
            if self.settled is None and time.monotonic() - self.began >= SETTLED:
                self.settled = self.last

    @property
    def grown(self) -> float | None:
        """How many times what it was."""
        return self.last / self.settled if self.settled else None


class Soak:
    def __init__(self, pair: Pair, seed: int, calm: bool):
        self.pair = pair
        self.calm = calm
        self.draw = random.Random(seed)
        self.load = Load(pair, seed)
        self.memories = [Memory(qemu) for qemu in pair.processes()]
        self.counts = {"checkpoint": 0, "frozen for a moment": 0, "frozen": 0, "killed": 0}
        self.began = time.monotonic()
        self.checkpoints = 0            # of secondaries that are gone
        self.reasons: dict[str, int] = {}

    def tell(self, what: str) -> None:
        print(f"{time.monotonic() - self.began:8.1f} s  {what}", flush=True)

    # What happens to the pair

    def checkpoint(self) -> None:
        """Setting the parameter makes a checkpoint at once."""
        self.pair.primary.monitor.command("migrate-set-parameters", x_checkpoint_delay=self.draw.randint(2000, 20000))

    def freeze_for_a_moment(self) -> None:
        self.pair.secondary.stop()
        time.sleep(self.draw.uniform(*FROZEN_SHORT))
        self.pair.secondary.cont()

    def lose(self, how: str) -> None:
        """The secondary freezes or dies; the guest goes on alone, and gets another one."""
        monitor = self.pair.primary.monitor
        if how == "killed":
            self.pair.secondary.kill()
        else:
            self.pair.secondary.stop()
        event = monitor.wait_event("COLO_PROXY_PEER_LOST", 30)
        self.tell(f"the secondary has been {how}; the primary goes on alone ({event['data']['reason']})")
        monitor.wait_event("COLO_EXIT", 30)
        time.sleep(self.draw.uniform(0, 2))
        self.checkpoints += self.pair.checkpoints()
        seconds = self.pair.protect_again()
        self.memories.append(Memory(self.pair.secondary))
        self.tell(f"protected again, in {seconds:.1f} s")

    def something(self) -> None:
        chance = self.draw.random()
        if self.calm or chance < 0.7:
            self.counts["checkpoint"] += 1
            self.checkpoint()
        elif chance < 0.85:
            self.counts["frozen for a moment"] += 1
            self.freeze_for_a_moment()
        else:
            how = self.draw.choice(("frozen", "killed"))
            self.counts[how] += 1
            self.lose(how)

    def check_alarms(self) -> None:
        """What we have done to a secondary has been waited for; whoever is said to be lost now is not."""
        for qemu in self.pair.processes():
            for event in qemu.monitor.poll_events():
                if event["event"] == "COLO_PROXY_PEER_LOST":
                    raise Failure(f"a false alarm: the {qemu.role} takes the other node for lost "
                                  f"({event['data']['reason']})")

    # The whole

    def run(self, minutes: float) -> None:
        end = self.began + minutes * 60
        shown = self.began
        self.load.start()
        try:
            while time.monotonic() < end and not self.load.broken and not self.load.failures:
                time.sleep(self.draw.expovariate(1 / 3))
                self.something()
                self.pair.primary.check_alive()
                self.pair.secondary.check_alive()
                self.check_alarms()
                for memory in self.memories:
                    memory.look()
                if trouble := self.pair.trouble():
                    raise Failure(f"a guest is not well: {trouble[0]}")
                if time.monotonic() > shown + 30:
                    shown = time.monotonic()
                    self.tell(f"{self.load.requests} requests, {self.load.bytes / 1e6:.0f} MB, "
                              f"{self.load.failures} failures")
        finally:
            self.load.over.set()
            self.load.join()
        self.checkpoints += self.pair.checkpoints()
        self.reasons = self.pair.divergences()

    def verdict(self) -> dict:
        grown = [memory.grown for memory in self.memories if memory.grown]
        return {"seconds": round(time.monotonic() - self.began, 1), "requests": self.load.requests,
                "bytes": self.load.bytes, "failures": self.load.failures, "errors": self.load.errors,
                "broken": self.load.broken, "worst_gap_ms": self.load.worst, "checkpoints": self.checkpoints,
                "reasons": self.reasons,
                "happened": self.counts, "memory_growth": max(grown, default=None),
                "memory_mib": {memory.qemu.role: round(memory.last, 1) for memory in self.memories}}


def tell_verdict(verdict: dict) -> bool:
    """Print it; whether all is well."""
    grown = verdict["memory_growth"]
    flat = grown is None or grown <= GROWTH
    rows = [("requests, all right", f"{verdict['requests']}"), ("bytes", f"{verdict['bytes'] / 1e6:.0f} MB"),
            ("failures", f"{verdict['failures']} {verdict['errors'] or ''}"),
            ("longest gap", f"{verdict['worst_gap_ms']:.0f} ms"),
            ("checkpoints", f"{verdict['checkpoints']}"),
            ("  by reason", ", ".join(f"{reason} {count}" for reason, count in verdict["reasons"].items()) or "none"),
            *((f"  {what}" if what != "checkpoint" else "  asked for by us", f"{count}")
              for what, count in verdict["happened"].items()),
            ("memory", f"not looked at: that takes more than {SETTLED / 60:.0f} minutes" if grown is None else
             f"{grown:.3f} times what it was after {SETTLED / 60:.0f} minutes, at most")]
    print()
    for name, value in rows:
        print(f"  {name:<24}{value.strip()}")
    if verdict["broken"]:
        print(f"  {verdict['broken']}")
    return flat and not verdict["failures"] and not verdict["broken"] and verdict["requests"] > 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="soak",
        description="Keep a protected guest under mixed load while checkpoints are made and its secondary is frozen, "
                    "killed and brought back at random moments. The client verifies all it gets. Exit status 0 if nothing "
                    "went wrong and no QEMU's memory grew.")
    parser.add_argument("minutes", metavar="MINUTES", type=float, help="for how long")
    parser.add_argument("--seed", type=int, help="what happens when (default: drawn, and printed)")
    parser.add_argument("--emulator", metavar="FILE", type=Path, help="use this QEMU; nothing is built")
    parser.add_argument("--device", choices=DEVICES, default=DEVICES[0], help="the guest's network card (default: %(default)s)")
    parser.add_argument("--proxy", action="store_true", help="with one colo-proxy on each side instead of the four objects")
    parser.add_argument("--calm", action="store_true", help="do nothing to the secondary: none may be taken for lost")
    parser.add_argument("--heartbeat", metavar="MS", type=int, help="with --proxy: the heartbeat of both sides")
    parser.add_argument("--heartbeat-timeout", metavar="MS", type=int, help="with --proxy: after what silence one is lost")
    parser.add_argument("--json", action="store_true", help="print the result as a last line of JSON")
    add_series_option(parser)
    arguments = parser.parse_args()
    if arguments.minutes <= 0:
        parser.error("MINUTES must be more than 0")
    if arguments.emulator and not arguments.emulator.exists():
        parser.error(f"there is no {arguments.emulator}; without --emulator one is built")
    if not arguments.proxy and (arguments.heartbeat or arguments.heartbeat_timeout):
        parser.error("the four objects have no heartbeat; add --proxy")
    return arguments


def heartbeats(arguments: argparse.Namespace) -> str:
    """The properties of both sides' colo-proxy that were asked for."""
    wanted = {"heartbeat": arguments.heartbeat, "heartbeat_timeout": arguments.heartbeat_timeout}
    return ",".join(f"{name}={value}" for name, value in wanted.items() if value is not None)


def main() -> None:
    arguments = parse_arguments()
    with reporting("soak"):
        emulator = arguments.emulator or build.build_qemu(arguments.series, targets=["qemu-system-x86_64"])
        build_programs(["colo-bench-client"])
        guest.build()
        become_root("soak")
        seed = arguments.seed if arguments.seed is not None else random.SystemRandom().randrange(1 << 32)
        print(f"soak: --seed {seed}", flush=True)
        with running(emulator.resolve(), usage="proxy" if arguments.proxy else "current", device=arguments.device,
                     checkpoint_delay=10000, compare=heartbeats(arguments), secondary=heartbeats(arguments)) as pair:
            soak = Soak(pair, seed, arguments.calm)
            soak.tell(f"the logs are in {pair.directory}")
            soak.run(arguments.minutes)
            wait_until(lambda: pair.colo_runs(), 30, "both guests running under COLO at the end")
            verdict = soak.verdict()
        well = tell_verdict(verdict)
        if arguments.json:
            print(json.dumps(verdict))
        sys.exit(0 if well else 1)


if __name__ == "__main__":
    main()
