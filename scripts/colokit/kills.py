# SPDX-License-Identifier: GPL-2.0-or-later
"""scripts/kills: a protected guest with a disk loses its primary and its secondary in turns, at any moment.

Clients work all the while: connections that are to last, each with one request after
the other, downloads, and files that the guest is to keep.  After each kill whatever is
left serves; then all that the clients were told is compared with what the guest
serves and what its disk holds, and colo-ctl brings another secondary in.
"""

from __future__ import annotations

import argparse
import random
import socket
import statistics
import sys
import threading
import time
from pathlib import Path

from . import build, client, ctl
from .client import Dripping, Writer
from .machine import Failure, become_root, reporting, wait_until
from .network import Network
from .node import Node
from .procedure import Procedure
from .series import add_series_option

CHECKPOINT = 0.02           # s after a checkpoint has been asked for, within which it is over
RESYNC = 1.5                # s in which a resync is done, more or less
GAP = 500.0                 # ms from the command to the first answer after it, at the median
DOWNLOAD = 2_000_000
CLIENT_TIMEOUT = 100.0      # s in which a client ends what it has begun

# When each of the two may be killed without the guest being lost.
MOMENTS = {
    "primary": ("working", "in a checkpoint", "while frozen, in the failover"),
    "secondary": ("working", "in a checkpoint", "in a resync", "while frozen"),
}


class Downloads(threading.Thread):
    """One after the other, each of another content."""

    def __init__(self, nodes: Procedure):
        super().__init__(daemon=True, name="downloads")
        self.nodes = nodes
        self.over = threading.Event()
        self.done = 0
        self.error: str | None = None

    def run(self) -> None:
        try:
            while not self.over.is_set():
                download = client.Download(self.nodes.network, DOWNLOAD, self.done)
                download.start()
                if download.result(90) != self.nodes.guest.content_sha256(DOWNLOAD, self.done):
                    raise Failure("a download with wrong bytes")
                self.done += 1
        except Failure as failure:
            self.error = str(failure)


class Kills:
    def __init__(self, nodes: Procedure, seed: int):
        self.nodes = nodes
        self.draw = random.Random(seed)
        self.writer = Writer(nodes.network)
        self.downloads = Downloads(nodes)
        self.connections: list[Dripping] = []
        self.gaps: list[float] = []         # ms
        self.killed = {side: dict.fromkeys(moments, 0) for side, moments in MOMENTS.items()}
        self.began = time.monotonic()

    # ------------------------------------------------------------ the clients

    def connect(self) -> None:
        dripping = Dripping(self.nodes.network, socket.AF_INET if len(self.connections) % 2 else socket.AF_INET6)
        dripping.start()
        self.connections.append(dripping)

    @property
    def workers(self) -> list[threading.Thread]:
        return [self.writer, self.downloads, *self.connections]

    def check_clients(self) -> None:
        """All get on, each of them; of downloads, which take long, it is seen in the end."""
        before = self.progress()
        wait_until(lambda: any(each.error for each in self.workers) or all(now > then for now, then in zip(self.progress(), before)),
                   60, "an answer for every client")
        self.check_errors()

    def check_errors(self) -> None:
        for each in self.workers:
            if each.error:
                raise Failure(f"{each.name}: {each.error}")

    def progress(self) -> list[int]:
        return [self.writer.version, *(each.answers for each in self.connections)]

    def check_files(self) -> None:
        kept = dict(self.writer.kept)
        served = {number: client.request(self.nodes.network, f"/disk/{number}") for number in kept}
        if wrong := self.writer.wrong_in(served, kept):
            raise Failure(f"files that the guest serves wrong: {wrong}")
        kept = dict(self.writer.kept)
        if wrong := self.writer.wrong_in(self.nodes.files_on_disk(), kept):
            raise Failure(f"files that are wrong on the disk: {wrong}")
        if trouble := self.nodes.trouble():
            raise Failure(f"a guest is not well: {trouble[0]}")

    # ------------------------------------------------------------ what happens

    def control(self, command: str, *sides: str) -> None:
        """colo-ctl, for those monitors."""
        arguments = argparse.Namespace(migrate=None, nbd=f"{self.nodes.hosts['secondary'].address}:9999", checkpoint_delay=5000,
                                       primary_is_dead=True)
        for side in sides:
            wait_until(getattr(self.nodes, side).probe_path.exists, 30, f"the {side}'s monitor")
        found = [Node(str(getattr(self.nodes, side).probe_path), side) for side in sides]
        try:
            getattr(ctl, command)(*found, arguments)
        finally:
            for node in found:
                node.monitor.close()

    def to_a_moment(self, moment: str) -> None:
        if moment == "in a checkpoint":
            self.nodes.primary.monitor.command("migrate-set-parameters", x_checkpoint_delay=self.draw.randint(4000, 6000))
            time.sleep(self.draw.uniform(0, CHECKPOINT))
        else:
            time.sleep(self.draw.uniform(0, 1))

    def kill_primary(self, moment: str) -> None:
        primary, secondary = self.nodes.primary, self.nodes.secondary
        self.to_a_moment(moment)
        if moment == "while frozen, in the failover":
            primary.stop()
            late = threading.Timer(self.draw.uniform(0, 0.05), primary.kill)
            late.start()
        else:
            primary.kill()
            late = None
        before, commanded = [each.answers for each in self.connections], time.monotonic()
        self.control("failover", "secondary")
        wait_until(lambda: all(each.answers > then or each.error for each, then in zip(self.connections, before)), 30,
                   "an answer on every connection")
        self.gaps.append((max(each.last for each in self.connections) - commanded) * 1000)
        if late:
            late.join()
        self.nodes.note_failover(secondary)

    def kill_secondary(self, moment: str) -> None:
        if moment == "in a resync":
            self.lose("secondary")
            self.nodes.launch_secondary()
            killing = threading.Event()

            def kill() -> None:
                killing.set()
                self.nodes.secondary.kill()

            late = threading.Timer(self.draw.uniform(0, RESYNC), kill)
            late.start()
            try:
                self.control("resync", "primary", "secondary")
            except Failure:
                if not killing.is_set():
                    raise
            late.join()
            self.alone()
        elif moment == "while frozen":
            # No word comes from it any more, not even of its end: the guest's writes wait for it until the failover.
            self.nodes.secondary.stop()
            self.to_a_moment(moment)
            self.alone()
        else:
            self.to_a_moment(moment)
            self.lose("secondary")

    def lose(self, side: str) -> None:
        getattr(self.nodes, side).kill()
        self.alone()

    def alone(self) -> None:
        """The primary goes on without its secondary."""
        def failed_over() -> bool:
            try:
                self.control("failover", "primary")
                return True
            except Failure:
                return False                # a resync that has not noticed yet
        wait_until(failed_over, 30, "the primary alone")
        self.nodes.note_failover(self.nodes.primary)

    # ------------------------------------------------------------ the whole

    def run(self, kills: int) -> None:
        try:
            self._run(kills)
        finally:
            for each in self.workers:
                each.over.set()
        for each in self.workers:
            each.join(CLIENT_TIMEOUT)
            if each.is_alive():
                raise Failure(f"{each.name}: no answer for {CLIENT_TIMEOUT:g} s")
        self.check_errors()

    def _run(self, kills: int) -> None:
        self.nodes.launch()
        self.control("protect", "primary", "secondary")
        self.nodes.wait_ready()
        self.writer.start()
        self.downloads.start()
        for number in range(kills):
            side = ("primary", "secondary")[number % 2]
            moment = self.draw.choice(MOMENTS[side])
            if number % 20 == 0:
                self.connect()
            self.check_clients()
            getattr(self, f"kill_{side}")(moment)
            self.killed[side][moment] += 1
            self.check_clients()
            self.check_files()
            self.nodes.launch_secondary()
            self.control("resync", "primary", "secondary")
            print(f"{time.monotonic() - self.began:8.1f} s  {number + 1}: the {side}, {moment}"
                  + (f"; {self.gaps[-1]:.0f} ms from the command to the last client's answer" if side == "primary" else ""), flush=True)
        self.check_clients()

    def tell(self) -> bool:
        print()
        for side, moments in self.killed.items():
            print(f"  {side} killed   " + ", ".join(f"{moment}: {count}" for moment, count in moments.items()))
        print(f"  files kept       {self.writer.version}, downloads {self.downloads.done}, "
              f"requests on {len(self.connections)} connections {sum(each.answers for each in self.connections)}: all right")
        gap = statistics.median(self.gaps) if self.gaps else 0.0
        print(f"  gap              {gap:.0f} ms at the median, {max(self.gaps, default=0):.0f} at most, from the command to fail over "
              "to an answer on every connection")
        return gap <= GAP


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="kills",
        description="Kill the primary and the secondary of a guest with a disk in turns, at random moments, while clients work; "
                    "check all they have got and all the disk holds after each. Exit status 0 if nothing was wrong.")
    parser.add_argument("kills", metavar="N", type=int, help="how often")
    parser.add_argument("--seed", type=int, help="what happens when (default: drawn, and printed)")
    parser.add_argument("--emulator", metavar="FILE", type=Path, help="use this QEMU of a build directory; nothing is built")
    parser.add_argument("--four", action="store_true", help="with the four objects instead of one colo-proxy on each side")
    add_series_option(parser)
    arguments = parser.parse_args()
    if arguments.kills < 1:
        parser.error("N must be at least 1")
    if arguments.emulator and not arguments.emulator.exists():
        parser.error(f"there is no {arguments.emulator}; without --emulator one is built")
    with reporting("kills"):
        emulator = (arguments.emulator or build.build_qemu(arguments.series)).resolve()
        become_root("kills")
        seed = arguments.seed if arguments.seed is not None else random.SystemRandom().randrange(1 << 32)
        print(f"kills: --seed {seed}", flush=True)
        with Network() as network, Procedure(emulator, network, proxy=not arguments.four) as nodes:
            kills = Kills(nodes, seed)
            kills.run(arguments.kills)
        well = kills.tell()
    sys.exit(0 if well else 1)


if __name__ == "__main__":
    main()
