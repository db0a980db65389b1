# SPDX-License-Identifier: GPL-2.0-or-later
"""The demo: a client downloads from a guest whose host dies half way through."""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from . import build, guest
from .client import Download
from .machine import Failure, Progress, become_root, reporting
from .network import Network
from .pair import DEVICES, Pair
from .series import add_series_option

SIZE = 100_000_000
KILL_AT = 0.4           # part of the download that has come when the primary dies
DOWNLOAD_TIMEOUT = 30.0  # seconds without a byte after which it has failed


@dataclass
class Result:
    """What one run showed."""

    survived: bool
    bytes: int
    gap_ms: float
    checkpoints: int
    error: str | None = None

    def as_json(self) -> dict:
        facts = {"survived": self.survived, "gap_ms": round(self.gap_ms, 1),
                 "bytes": self.bytes, "checkpoints": self.checkpoints}
        return facts | ({"error": self.error} if self.error else {})


class Story:
    """Lines with the time since the start of the run in front."""

    def __init__(self) -> None:
        self.began = time.monotonic()

    def tell(self, line: str) -> None:
        print(f"{time.monotonic() - self.began:7.2f} s  {line}", flush=True)


def run(emulator: Path, usage: str, device: str, size: int, keep: bool) -> Result:
    """Tell the whole story once."""
    story = Story()
    expected = guest.build().content_sha256(size)
    with Network() as network, Pair(emulator, network, usage=usage, device=device) as pair:
        pair.start()
        story.tell(f"a primary and a secondary are started, each with a {device}")
        with Progress("booting the guest") as progress:
            pair.wait_ready(lambda seconds: progress.update())
        story.tell(f"the guest on the primary serves at {network.guest_address}")
        pair.start_colo()
        story.tell("COLO runs: the secondary is a copy of the primary and runs beside it")

        download = Download(network, size, timeout=DOWNLOAD_TIMEOUT)
        download.start()
        story.tell(f"the client at {network.client_address} downloads {size / 1e6:.0f} MB")
        download.wait_for(int(size * KILL_AT))
        killed = time.monotonic()
        pair.primary.kill()
        story.tell(f"after {download.received / 1e6:.0f} MB the primary is killed (SIGKILL)")
        pair.failover()
        story.tell("the secondary has been told (x-colo-lost-heartbeat) and carries on alone")

        error = None
        try:
            download.result(DOWNLOAD_TIMEOUT + size / 1e6)
        except Failure as failure:
            error = str(failure)
        equal = download.sha256 == expected
        if error is None and not equal:
            error = "what the client received is not what the guest serves"
        story.tell(error or "the client has everything")
        if trouble := pair.trouble():
            error = f"the guest is not well: {trouble[0]}"
            story.tell(error)
        if error:
            story.tell(f"the logs are in {pair.directory}")
        result = Result(survived=error is None, bytes=download.received,
                        gap_ms=download.gap(killed) * 1000,
                        checkpoints=pair.checkpoints(), error=error)
        print_table([result])
        if keep:
            stay(pair)
    return result


def stay(pair: Pair) -> None:
    """Leave everything up until Ctrl-C, and say how to reach it."""
    network, survivor = pair.network, pair.survivor()
    print(f"""
The {survivor.role} is left running until Ctrl-C. From another terminal, as root:
  a shell where the client is   nsenter --net={network.client.path}
  there, the guest answers at   http://{network.guest_address}/ and http://[{network.guest_address6}]/
  the guest's console           tail -f {survivor.console_path}
  its QEMU is process {survivor.pid}; logs and command lines are in
  {pair.directory}""", flush=True)
    try:
        survivor.process.wait()
        print(f"the {survivor.role} has ended")
    except KeyboardInterrupt:
        print()


def print_table(results: list[Result]) -> None:
    """A row for each fact, a column for each run."""
    rows = [
        ("bytes received", [f"{result.bytes}" for result in results]),
        ("longest gap, ms", [f"{result.gap_ms:.0f}" for result in results]),
        ("checkpoints", [f"{result.checkpoints}" for result in results]),
        ("hash equal", ["yes" if result.survived else "NO" for result in results]),
    ]
    print()
    for name, cells in rows:
        print(f"  {name:<16}" + "".join(f"{cell:>12}" for cell in cells))
    print(flush=True)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="demo",
        description="Build what is needed, start two copies of a guest under COLO, kill the primary "
                    "in the middle of a download, and see whether the client gets it all. "
                    "Exit status 0 if it does.")
    parser.add_argument("--device", choices=DEVICES, default=DEVICES[0],
                        help="the guest's network card (default: %(default)s)")
    parser.add_argument("--runs", metavar="N", type=int, default=1, help="do it N times")
    parser.add_argument("--size", metavar="BYTES", type=int, default=SIZE,
                        help="how much to download (default: %(default)s)")
    parser.add_argument("--stock", action="store_true",
                        help="with QEMU's own objects instead of ours")
    parser.add_argument("--proxy", action="store_true",
                        help="with one colo-proxy on each side instead of the four objects")
    add_series_option(parser)
    parser.add_argument("--emulator", metavar="FILE", type=Path,
                        help="use this qemu-system-x86_64; nothing is built")
    parser.add_argument("--keep", action="store_true",
                        help="leave the survivor up at the end, until Ctrl-C")
    parser.add_argument("--json", action="store_true",
                        help="print the result as a last line of JSON")
    arguments = parser.parse_args()
    if arguments.stock and arguments.proxy:
        parser.error("--stock has no colo-proxy; leave out --proxy")
    if arguments.runs < 1:
        parser.error("--runs must be at least 1")
    if arguments.size < 1_000_000:
        parser.error("--size must be at least 1000000: the primary is to die in mid-download")
    if arguments.keep and arguments.runs > 1:
        parser.error("--keep is for a single run")
    return arguments


def tell_all(arguments: argparse.Namespace) -> int:
    emulator = arguments.emulator or build.build_qemu(arguments.series, stock=arguments.stock)
    guest.build()
    become_root("demo")

    results: list[Result] = []
    for number in range(1, arguments.runs + 1):
        if arguments.runs > 1:
            print(f"--- run {number} of {arguments.runs}", flush=True)
        try:
            results.append(run(emulator.resolve(), "proxy" if arguments.proxy else "current", arguments.device,
                               arguments.size, arguments.keep))
        except Failure as failure:
            print(f"demo: {failure}", file=sys.stderr, flush=True)
            results.append(Result(False, 0, 0.0, 0, str(failure)))

    survived = sum(result.survived for result in results)
    if arguments.runs > 1:
        print(f"{survived} of {arguments.runs} survived; the longest gap was "
              f"{max(result.gap_ms for result in results):.0f} ms")
    if arguments.json:
        facts = results[0].as_json()
        if arguments.runs > 1:
            facts = {"survived": survived == arguments.runs,
                     "gap_ms": max(result.as_json()["gap_ms"] for result in results),
                     "bytes": sum(result.bytes for result in results),
                     "checkpoints": sum(result.checkpoints for result in results),
                     "runs": [result.as_json() for result in results]}
        print(json.dumps(facts))
    return 0 if survived == arguments.runs else 1


def main() -> None:
    arguments = parse_arguments()
    with reporting("demo"):
        sys.exit(tell_all(arguments))


if __name__ == "__main__":
    main()
