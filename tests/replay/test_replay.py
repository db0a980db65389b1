# SPDX-License-Identifier: GPL-2.0-or-later
"""colo-replay, and through it the core, on what real TCP/IP stacks said.

Each live test lets a client do the same with two copies of a guest, under conditions
that differ, and replays both captures.  tshark is the second opinion: what it makes of the
primary's capture must be what it makes of the frames that the comparator released.
"""

from __future__ import annotations

import functools
import json
import os
import random
import re
import shutil
import socket
import struct
import subprocess
import tempfile
import threading
import time
import unittest
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

from colokit.machine import BUILD, Failure, output_of
from colokit.stacks import (CLIENT, CLIENT6, GUEST, GUEST6, GUEST_MAC, LINGER_ABORT, PCAP_HEADER, Conditions, Link, ask,
                            get, half_close, ping, put, record)

REPLAY = os.environ.get("COLO_REPLAY", str(BUILD / "core/tests/replay/colo-replay"))
REPLAY_SANITIZED = os.environ.get("COLO_REPLAY_SANITIZED", str(BUILD / "core-asan/tests/replay/colo-replay"))
KEPT = Path(__file__).parent / "captures"
RECORD_KEPT = "COLO_RECORD_CAPTURES" in os.environ

SEED = int(os.environ.get("COLO_TEST_SEED", random.SystemRandom().randrange(2**32)))
HOSTILE_ROUNDS = int(os.environ.get("COLO_HOSTILE_ROUNDS", 60))
AGREE, DIFFER, TROUBLE = 0, 1, 2
FIN, SYN, RST, ACK = 0x01, 0x02, 0x04, 0x10
# The runs do not keep time with each other: nothing is to be late.
PATIENCE = ["--timeout", "60000"]


def setUpModule() -> None:
    print(f"  seed    COLO_TEST_SEED={SEED}", flush=True)


def replay(primary: Path, secondary: Path, *options: str, program: str = REPLAY) -> subprocess.CompletedProcess:
    return subprocess.run([program, *options, str(primary), str(secondary)], capture_output=True, text=True,
                          timeout=120, env={**os.environ, "UBSAN_OPTIONS": "halt_on_error=1"})


@functools.cache
def why_no_link() -> str:
    """Why links cannot be made here; empty if they can."""
    path = BUILD / "replay" / "probe.pcap"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with Link(path, Conditions()):
            return ""
    except (Failure, OSError) as error:
        return f"no namespaces or taps here: {error}"


# ---------------------------------------------------------------- the second opinion

def tshark(path: Path, *arguments: str) -> str:
    return _tshark(path, path.stat().st_mtime_ns, arguments)


@functools.lru_cache(maxsize=16)        # the kept captures are asked for time and again
def _tshark(path: Path, _: int, arguments: tuple[str, ...]) -> str:
    return output_of(["tshark", "-r", str(path), *arguments])


def streams(path: Path, count: int) -> dict[str, bytes]:
    """What tshark puts together of the guest's side of each TCP connection, by the client's address."""
    follow = [argument for number in range(count) for argument in ("-z", f"follow,tcp,raw,{number}")]
    found: dict[str, bytes] = {}
    for part in tshark(path, "-q", *follow).split("Follow: tcp,raw")[1:]:
        nodes = re.findall(r"^Node [01]: (.*):(\d+)$", part, re.M)
        guest = 0 if nodes[0][0].strip("[]") in (GUEST, GUEST6) else 1
        client = ":".join(nodes[1 - guest])
        data = [line for line in part.partition("Node 1:")[2].splitlines()[1:] if re.fullmatch(r"\t?[0-9a-f]+", line)]
        found[client] = b"".join(bytes.fromhex(line) for line in data if line.startswith("\t") == bool(guest))
    return found


def datagrams(path: Path) -> dict[str, list[str]]:
    """The guest's datagrams that tshark has put together from fragments, by kind and client."""
    lines = tshark(path, "-Y", f"(ip.src == {GUEST} or ipv6.src == {GUEST6}) and (udp or icmp or icmpv6.type == 129) "
                   "and (udp.payload or data.data)", "-T", "fields", "-e", "ip.dst", "-e", "ipv6.dst",
                   "-e", "udp.dstport", "-e", "udp.payload", "-e", "data.data")
    found = defaultdict(list)
    for line in lines.splitlines():
        address, address6, port, payload, data = line.split("\t")
        found[f"{address}{address6} {port}"].append(payload or data)
    return found


# The kernel writes 0xffff for 0 now and then, which is the same and tshark finds odd.
BAD = ("(tcp.checksum.status == Bad and not tcp.checksum.ffff) or udp.checksum.status == Bad or "
       "ip.checksum.status == Bad")


def bad_checksums(path: Path) -> str:
    checks = [argument for protocol in ("tcp", "udp", "ip") for argument in ("-o", f"{protocol}.check_checksum:TRUE")]
    return tshark(path, *checks, "-Y", BAD)


# ---------------------------------------------------------------- captures as files

Frame = tuple[int, bytes]       # time in ns, bytes


def read_pcap(path: Path) -> list[Frame]:
    """A capture that stacks.Wire has written."""
    data, at, frames = path.read_bytes(), len(PCAP_HEADER), []
    while at < len(data):
        seconds, ns, length, _ = struct.unpack_from("<IIII", data, at)
        frames.append((seconds * 10**9 + ns, data[at + 16:at + 16 + length]))
        at += 16 + length
    return frames


def write_pcap(path: Path, frames: list[Frame], header: bytes = PCAP_HEADER, order: str = "<", unit: int = 1,
               snap: int = 1 << 18) -> Path:
    path.write_bytes(header + b"".join(
        struct.pack(order + "IIII", time // 10**9, time % 10**9 // unit, min(len(frame), snap), len(frame))
        + frame[:snap]
        for time, frame in frames))
    return path


GUEST_MAC_BYTES = bytes.fromhex(GUEST_MAC.replace(":", ""))


@dataclass
class Segment:
    """A TCP segment in a frame without VLAN tags, taken apart as far as is needed here."""

    frame: bytes
    l3: int
    tcp: int
    end: int

    @classmethod
    def of(cls, frame: bytes) -> "Segment | None":
        if frame[12:14] == b"\x08\x00" and frame[23] == 6:
            return cls(frame, 14, 14 + (frame[14] & 15) * 4, 14 + struct.unpack_from("!H", frame, 16)[0])
        if frame[12:14] == b"\x86\xdd" and frame[20] == 6:
            return cls(frame, 14, 54, 54 + struct.unpack_from("!H", frame, 18)[0])
        return None

    @property
    def from_guest(self) -> bool:
        return self.frame[6:12] == GUEST_MAC_BYTES

    @property
    def port(self) -> int:
        """The client's."""
        return struct.unpack_from("!H", self.frame, self.tcp + (2 if self.from_guest else 0))[0]

    @property
    def numbers(self) -> tuple[int, int]:
        """Sequence and acknowledgement number."""
        return struct.unpack_from("!II", self.frame, self.tcp + 4)

    @property
    def flags(self) -> int:
        return self.frame[self.tcp + 13]

    @property
    def payload_at(self) -> int:
        return self.tcp + (self.frame[self.tcp + 12] >> 4) * 4

    @property
    def seq_end(self) -> int:
        taken = self.end - self.payload_at + (self.flags & FIN) + (self.flags >> 1 & 1)
        return (self.numbers[0] + taken) % 2**32

    def renumbered(self, seq: int, ack: int) -> bytes:
        """The frame with so much added to its numbers, its checksum right; SACK blocks stay what they are."""
        numbers = struct.pack("!II", (self.numbers[0] + seq) % 2**32,
                              (self.numbers[1] + ack) % 2**32 if self.flags & ACK else self.numbers[1])
        segment = bytearray(self.frame[self.tcp:self.tcp + 4] + numbers + self.frame[self.tcp + 12:self.end])
        segment[16:18] = b"\0\0"
        addresses = self.frame[26:34] if self.tcp < 54 else self.frame[22:54]
        data = addresses + struct.pack("!HH", 6, len(segment)) + segment + bytes(len(segment) % 2)
        total = sum(struct.unpack(f"!{len(data) // 2}H", data))
        while total > 0xFFFF:
            total = (total & 0xFFFF) + (total >> 16)
        segment[16:18] = struct.pack("!H", ~total & 0xFFFF)
        return self.frame[:self.tcp] + bytes(segment) + self.frame[self.end:]


def initial_numbers(frames: list[Frame]) -> dict[int, dict[bool, int]]:
    """By the client's port: the guest's (True) and the client's (False) initial sequence numbers."""
    found: dict[int, dict[bool, int]] = defaultdict(dict)
    for _, frame in frames:
        segment = Segment.of(frame)
        if segment and segment.flags & SYN:
            found[segment.port][segment.from_guest] = segment.numbers[0]
    return found


def flow_of(report: dict, port: int) -> dict:
    return next(flow for flow in report["flows"] if re.search(rf":{port}( vlan 7)?$", flow["flow"]))


class ReplayTest(unittest.TestCase):
    """What the tests have in common: a directory, and a source of chance."""

    def setUp(self) -> None:
        (BUILD / "replay").mkdir(parents=True, exist_ok=True)
        self.directory = Path(tempfile.mkdtemp(prefix=f"{self.id().rpartition('.')[2]}-", dir=BUILD / "replay"))
        self.draw = random.Random(f"{SEED} {self.id()}")

    def run(self, result=None):
        before = len(getattr(result, "failures", ())), len(getattr(result, "errors", ()))
        outcome = super().run(result)
        # What a failure was seen in stays.
        if (len(result.failures), len(result.errors)) == before:
            shutil.rmtree(self.directory, ignore_errors=True)
        return outcome

    def report(self, primary: Path, secondary: Path, status: int, *options: str) -> dict:
        result = replay(primary, secondary, "--json", *options)
        self.assertEqual(result.returncode, status, f"seed {SEED}\n{result.stderr}{self.text(primary, secondary)}")
        return json.loads(result.stdout)

    def text(self, primary: Path, secondary: Path) -> str:
        return replay(primary, secondary, *PATIENCE).stdout[-6000:]

    def expect_agreement(self, primary: Path, secondary: Path, *options: str) -> dict:
        """All flows agree, everything leaves by comparison, and tshark finds the same in what has left."""
        released = self.directory / "released.pcap"
        report = self.report(primary, secondary, AGREE, *PATIENCE, "--released", str(released), *options)
        self.assertEqual({flow["verdict"] for flow in report["flows"]}, {"agrees"})
        sent = sum(flow["primary"]["packets"] for flow in report["flows"])
        self.assertEqual(report["left"], {"compared": sent, "checkpoint": 0, "never": 0})
        self.assertEqual(sent + report["primary"]["not_compared"], report["primary"]["from_guest"])
        for flow in report["flows"]:
            self.assertEqual(flow["confirmed"], flow["bytes"], flow["flow"])
            self.assertGreater(flow["secondary"]["packets"], 0, flow["flow"])
        self.expect_second_opinion(report, primary, released)
        return report

    def expect_second_opinion(self, report: dict, primary: Path, released: Path) -> None:
        flows = [flow for flow in report["flows"] if flow["flow"].startswith("tcp")]
        sent, left = streams(primary, len(flows)), streams(released, len(flows))
        self.assertEqual(len(sent), len(flows))
        self.assertEqual(sent.keys(), left.keys())
        for client, data in sent.items():
            self.assertTrue(data == left[client], f"seed {SEED}: what was released of {client} is another stream")
            self.assertEqual(flow_of(report, int(client.rpartition(":")[2]))["confirmed"], len(data), client)
        self.assertEqual(datagrams(primary), datagrams(released))
        self.assertEqual(bad_checksums(primary), "")
        self.assertEqual(bad_checksums(released), "")


# ---------------------------------------------------------------- what clients do

def small_work(link: Link) -> None:
    """A little of everything, in a few kilobytes."""
    stream_work(link)
    datagram_work(link)


def stream_work(link: Link) -> None:
    with link.connected(40001) as sock:         # several requests on one connection
        for size in (1, 100, 2500):
            get(sock, size, size)
        half_close(sock)
    with link.connected(40002) as sock:
        put(sock, 4000, 2)
        half_close(sock)
    with link.connected(40003, ipv6=True) as sock:
        get(sock, 1800, 3)
        close_by_guest(sock)
    with link.connected(40004) as sock:
        get(sock, 300, 4)
        reset_by_guest(sock)
    with link.connected(40005) as sock:
        get(sock, 300, 5)
        reset_by_client(sock)


def datagram_work(link: Link) -> None:
    for ipv6 in (False, True):
        ask(link, 40101, 20, 1, ipv6)
        ask(link, 40101, 3000, 2, ipv6)
        ping(link, 7, 1, 56, ipv6)
        ping(link, 7, 2, 3000, ipv6)


def close_by_guest(sock: socket.socket) -> None:
    """The surest end: late segments find the guest in TIME-WAIT and draw no RST that the other has no reason for."""
    sock.sendall(b"close\n")
    while sock.recv(65536):
        pass


def reset_by_guest(sock: socket.socket) -> None:
    sock.sendall(b"reset\n")
    try:
        sock.recv(1)
    except ConnectionResetError:
        return
    raise Failure("the guest did not reset the connection")


def reset_by_client(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ABORT)


def at_once(*work: Callable[[], None]) -> None:
    """Everything at the same time; the first failure is raised."""
    failures: list[BaseException] = []

    def guarded(one: Callable[[], None]) -> None:
        try:
            one()
        except BaseException as failure:        # noqa: handed on below
            failures.append(failure)

    threads = [threading.Thread(target=guarded, args=(one,), daemon=True) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def wait_for_probe(link: Link) -> None:
    """Until the guest, whose window is shut, has said something again: that is a window probe."""
    silent, seen = 0, -1
    while silent < 10:              # nothing for 50 ms: it is shut
        time.sleep(0.005)
        silent, seen = (silent + 1, seen) if link.wire.carried == seen else (0, link.wire.carried)
    while link.wire.carried == seen:
        time.sleep(0.005)


# ---------------------------------------------------------------- live

class Live(ReplayTest):
    """Two runs with real stacks, recorded and replayed."""

    def setUp(self) -> None:
        super().setUp()
        if why_no_link():
            self.skipTest(why_no_link())

    def pair(self, work: Callable[[Link], None], primary: dict, secondary: dict) -> tuple[Path, Path]:
        seeds = self.draw.randrange(2**32), self.draw.randrange(2**32)
        return (record(self.directory / "primary.pcap", Conditions(seed=seeds[0], **primary), work),
                record(self.directory / "secondary.pcap", Conditions(seed=seeds[1], **secondary), work))

    def test_a_little_of_everything(self) -> None:
        self.expect_agreement(*self.pair(small_work, {}, {"delay": 0.001}))

    def test_other_segmentation(self) -> None:
        def work(link: Link) -> None:
            for number in range(4):
                with link.connected(41000 + number, ipv6=number % 2) as sock:
                    get(sock, 40000 + number, number)
                    put(sock, 30000 + number, number)
                    get(sock, 20000, number)
                    close_by_guest(sock)

        mss = self.draw.randrange(100, 1400)
        chunk = self.draw.randrange(50, 2000)
        self.expect_agreement(*self.pair(work, {"guest_quickack": True}, {"client_mss": mss, "chunk": chunk}))
        self.expect_agreement(*self.pair(work, {"client_mss": mss, "chunk": chunk}, {"guest_quickack": True}))

    def test_loss_and_disorder(self) -> None:
        def transfer(link: Link, port: int) -> None:
            with link.connected(port, ipv6=port % 2) as sock:
                get(sock, 300000, port)
                put(sock, 200000, port)
                close_by_guest(sock)

        def work(link: Link) -> None:
            at_once(*(functools.partial(transfer, link, 42000 + number) for number in range(4)))

        bad = {"loss": 0.01, "swapped": 0.03, "doubled": 0.01, "delay": 0.002}
        self.expect_agreement(*self.pair(work, bad, {}))
        self.expect_agreement(*self.pair(work, {}, bad))
        self.expect_agreement(*self.pair(work, bad, bad))

    def test_small_windows(self) -> None:
        def work(link: Link) -> None:
            with link.connected(43000) as sock:
                sock.sendall(b"get 200000 7\n")
                wait_for_probe(link)
                left = 200000
                while left:
                    left -= len(sock.recv(min(left, 1000)))
                close_by_guest(sock)

        self.expect_agreement(*self.pair(work, {"receive_buffer": 3000}, {"receive_buffer": 20000}))

    def test_big_downloads(self) -> None:
        def download(link: Link, port: int, size: int) -> None:
            with link.connected(port) as sock:
                get(sock, size, port)
                close_by_guest(sock)

        def work(link: Link) -> None:
            at_once(functools.partial(download, link, 44000, 10_000_000),
                    functools.partial(download, link, 44001, 1_000_000))

        report = self.expect_agreement(*self.pair(work, {}, {"chunk": 5000}))
        self.assertEqual(flow_of(report, 44000)["confirmed"], 10_000_000)

    def test_big_upload(self) -> None:
        def work(link: Link) -> None:
            with link.connected(45000) as sock:
                put(sock, 3_000_000, 1)
                close_by_guest(sock)

        self.expect_agreement(*self.pair(work, {}, {"guest_quickack": True}))

    def test_ends(self) -> None:
        def refused(link: Link) -> None:
            with link.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
                sock.bind((CLIENT, 46099))
                if sock.connect_ex((GUEST, 81)) == 0:
                    raise Failure("somebody listens on port 81")

        def work(link: Link) -> None:
            # Not: the client closes while an answer is under way.  Its RST may or may not overtake the guest's FIN.
            for number, end in enumerate((half_close, close_by_guest, reset_by_guest, reset_by_client)):
                for ipv6 in (False, True):
                    with link.connected(46000 + 2 * number + ipv6, ipv6=ipv6) as sock:
                        get(sock, 5000, number)
                        end(sock)
            refused(link)

        self.expect_agreement(*self.pair(work, {}, {"chunk": 400}))

    def test_vlan(self) -> None:
        report = self.expect_agreement(*self.pair(small_work, {"vlan": 7}, {"vlan": 7}))
        self.assertTrue(all(flow["flow"].endswith(" vlan 7") for flow in report["flows"]))

    def test_datagrams_in_disorder(self) -> None:
        self.expect_agreement(*self.pair(datagram_work, {"swapped": 0.3, "late": 0.003}, {"delay": 0.001}))

    def test_datagrams_cut_differently(self) -> None:
        self.expect_agreement(*self.pair(datagram_work, {}, {"guest_mtu": 1300}))

    def test_other_options(self) -> None:
        """A guest with another MTU announces another segment size: that is told, not overlooked."""
        def work(link: Link) -> None:
            with link.connected(47000) as sock:
                get(sock, 1000, 1)
                close_by_guest(sock)

        report = self.report(*self.pair(work, {}, {"guest_mtu": 1400}), DIFFER, *PATIENCE)
        flow = flow_of(report, 47000)
        self.assertEqual((flow["reason"], flow["difference"]["kind"]), ("options", "options"))
        self.assertEqual(report["checkpoints"]["options"], 1)

    def test_a_changed_byte(self) -> None:
        """The tool names the flow and the offset, and no other flow."""
        sizes = {48000 + number: self.draw.randrange(1, 200000) for number in range(4)}

        def work(link: Link) -> None:
            for port, size in sizes.items():
                with link.connected(port, ipv6=port % 2) as sock:
                    get(sock, size, port)
                    close_by_guest(sock)
            for port in (48100, 48101):
                ask(link, port, 900, port)
                ask(link, port, 3000, port)

        port = self.draw.choice(list(sizes))
        offset = self.draw.choice([0, sizes[port] - 1, self.draw.randrange(sizes[port])])
        fault = {port: (offset, 1 << self.draw.randrange(8))}
        primary, secondary = self.pair(work, {}, {"faults": fault, "chunk": 3000})
        self.expect_difference(primary, secondary, port, offset)
        secondary = record(self.directory / "datagram.pcap", Conditions(seed=1, faults={48101: (2000, 1)}), work)
        self.expect_difference(primary, secondary, 48101, 2000)

    def test_an_early_end(self) -> None:
        """The secondary ends its answer early, or the primary does."""
        def work(link: Link) -> None:
            for port in (49000, 49001):
                with link.connected(port) as sock:
                    sock.sendall(b"get 30000 1\n")
                    half_close(sock)

        offset = self.draw.randrange(1, 30000)
        for sides in (({}, {"faults": {49001: (offset, 0)}}), ({"faults": {49001: (offset, 0)}}, {})):
            report = self.report(*self.pair(work, *sides), DIFFER, *PATIENCE)
            self.assertEqual([(flow["flow"].rpartition(":")[2], flow["reason"], flow["difference"]["kind"],
                               flow["difference"]["offset"])
                              for flow in report["flows"] if flow["verdict"] != "agrees"],
                             [("49001", "flags", "end", offset)])

    def expect_difference(self, primary: Path, secondary: Path, port: int, offset: int) -> None:
        for options in ([], ["--checkpoint", "never"]):
            report = self.report(primary, secondary, DIFFER, *PATIENCE, *options)
            flow = flow_of(report, port)
            self.assertEqual([other["flow"] for other in report["flows"] if other["verdict"] == "differs"],
                             [flow["flow"]], f"seed {SEED}\n{self.text(primary, secondary)}")
            self.assertEqual((flow["reason"], flow["difference"]["kind"]), ("payload", "bytes"))
            self.assertEqual(flow["difference"]["offset"], offset)
            at = offset - flow["difference"]["shown_from"]
            ours, theirs = (bytes.fromhex(flow["difference"][side]) for side in ("primary", "secondary"))
            self.assertEqual(ours[:at], theirs[:at])
            self.assertNotEqual(ours[at], theirs[at])
            self.assertEqual(report["checkpoints"]["payload"], 1)
            self.assertEqual(sum(report["checkpoints"].values()), 1)


# ---------------------------------------------------------------- kept captures

class Kept(ReplayTest):
    """Captures in the tree, with what is to be found in them."""

    RUNS = {
        "agrees": (small_work, {"seed": 1}, {"seed": 2, "client_mss": 700, "chunk": 500, "guest_quickack": True}),
        "vlan": (stream_work, {"seed": 3, "vlan": 7}, {"seed": 4, "vlan": 7, "chunk": 300}),
        "changed": (stream_work, {"seed": 5}, {"seed": 6, "faults": {40001: (1000, 4)}}),
    }

    @classmethod
    def setUpClass(cls) -> None:
        if RECORD_KEPT:
            KEPT.mkdir(exist_ok=True)
            for name, (work, *sides) in cls.RUNS.items():
                for side, conditions in zip(("primary", "secondary"), sides):
                    record(KEPT / f"{name}-{side}.pcap", Conditions(**conditions), work)

    def kept(self, name: str) -> tuple[Path, Path]:
        return KEPT / f"{name}-primary.pcap", KEPT / f"{name}-secondary.pcap"

    def expect_flows(self, report: dict) -> None:
        """All that stream_work() does is told of, with the right sizes."""
        sizes = {40001: 1 + 100 + 2500 + len("bye 29\n"), 40002: 65 + len("bye 4009\n"), 40003: 1800, 40004: 300,
                 40005: 300}
        for port, size in sizes.items():
            self.assertEqual(flow_of(report, port)["bytes"], size, port)

    def test_agrees(self) -> None:
        report = self.expect_agreement(*self.kept("agrees"))
        self.expect_flows(report)
        self.assertEqual(report["guest"], "52:54:00:78:00:02")
        self.assertTrue(report["guest_deduced"])

    def test_vlan(self) -> None:
        report = self.expect_agreement(*self.kept("vlan"))
        self.expect_flows(report)
        self.assertTrue(all(flow["flow"].endswith(" vlan 7") for flow in report["flows"]))

    def test_changed(self) -> None:
        for options in ([], ["--checkpoint", "never"]):
            report = self.report(*self.kept("changed"), DIFFER, *PATIENCE, *options)
            self.expect_flows(report)
            differing = [flow for flow in report["flows"] if flow["verdict"] == "differs"]
            self.assertEqual([flow["flow"].rpartition(":")[2] for flow in differing], ["40001"])
            self.assertEqual(differing[0]["difference"]["offset"], 1000)
            self.assertEqual(differing[0]["reason"], "payload")

    def test_text(self) -> None:
        """People get the same as programs."""
        result = replay(*self.kept("changed"), *PATIENCE)
        self.assertEqual(result.returncode, DIFFER)
        self.assertIn("first differs at stream offset 1000\n", result.stdout)
        self.assertRegex(result.stdout, r"tcp 10\.78\.0\.2:80 > 10\.78\.0\.1:40001 .* differs: payload\n")
        self.assertRegex(result.stdout, r"checkpoints payload 1 would have been asked for\n")

    # How a pair's captures look: one client, so its numbers are the same on both sides.

    def as_of_a_pair(self, primary: Path, secondary: Path, mapped: bool) -> Path:
        """The secondary's capture with the primary's client in it; mapped: recorded behind the rewriter."""
        ours, theirs = (initial_numbers(read_pcap(path)) for path in (primary, secondary))
        frames = []
        for at, frame in read_pcap(secondary):
            segment = Segment.of(frame)
            if segment:
                client, guest = (ours[segment.port][side] - theirs[segment.port][side] for side in (False, True))
                guest = guest if mapped else 0
                if segment.from_guest:
                    frame = segment.renumbered(0 if segment.flags & SYN else guest, client)
                else:
                    frame = segment.renumbered(client, guest)
            frames.append((at + 5 * 10**9, frame))
        return write_pcap(self.directory / f"pair-{mapped}.pcap", frames)

    def beginning_at(self, path: Path, guest: int, client: int) -> Path:
        """The capture with these initial sequence numbers in every connection."""
        numbers = initial_numbers(read_pcap(path))
        frames = []
        for at, frame in read_pcap(path):
            segment = Segment.of(frame)
            if segment:
                add = {True: guest - numbers[segment.port][True], False: client - numbers[segment.port][False]}
                frame = segment.renumbered(add[segment.from_guest], add[not segment.from_guest])
            frames.append((at, frame))
        return write_pcap(self.directory / f"at-{guest}-{path.name}", frames)

    def test_numbers_that_wrap(self) -> None:
        primary, secondary = self.kept("agrees")
        for ours, theirs in ((2**32 - 1200, 2**31 - 3), (5, 2**32 - 1), (2**31 - 700, 2**32 - 2000)):
            self.expect_agreement(self.beginning_at(primary, ours, 2**32 - 900),
                                  self.beginning_at(secondary, theirs, 77))

    def test_recorded_at_the_guest(self) -> None:
        primary, secondary = self.kept("agrees")
        self.expect_agreement(primary, self.as_of_a_pair(primary, secondary, mapped=False))

    def test_recorded_behind_the_rewriter(self) -> None:
        primary, secondary = self.kept("agrees")
        self.expect_agreement(primary, self.as_of_a_pair(primary, secondary, mapped=True))

    def test_begun_amid(self) -> None:
        """Connections whose beginning is in neither capture are compared as they are."""
        def is_opening(segment: Segment | None) -> bool:
            return bool(segment and segment.flags & SYN)

        primary, secondary = self.kept("agrees")
        pair = self.as_of_a_pair(primary, secondary, mapped=True)
        cut = [write_pcap(self.directory / f"amid-{path.stem}.pcap",
                          [(at, frame) for at, frame in read_pcap(path) if not is_opening(Segment.of(frame))])
               for path in (primary, pair)]
        self.expect_agreement(*cut, "--guest", GUEST, "--guest", GUEST6)

    def test_pair_with_clocks_and_offset(self) -> None:
        """The clocks are aligned by the input, whatever they say."""
        primary, secondary = self.kept("agrees")
        report = self.expect_agreement(primary, self.as_of_a_pair(primary, secondary, mapped=False))
        begun = [read_pcap(path)[0][0] for path in (primary, secondary)]
        self.assertAlmostEqual(report["offset"], (begun[0] - begun[1]) / 1e9 - 5, delta=0.05)
        told = self.report(primary, secondary, AGREE, *PATIENCE, "--offset", str(report["offset"] + 5))
        self.assertIsNone(told["offset_from"])

    def test_held_for_as_long_as_the_secondary_is_late(self) -> None:
        """A capture against itself, 40 ms late: everything is held for 40 ms."""
        primary, _ = self.kept("agrees")
        for late, held in ((0.040, 40.0), (-0.040, 0.0)):
            report = self.report(primary, primary, AGREE, "--offset", str(late))
            for flow in report["flows"]:
                if not flow["flow"].startswith("tcp"):
                    continue        # fragments wait for each other, too
                self.assertEqual(flow["held"]["packets"], flow["primary"]["packets"] if late > 0 else 0, flow["flow"])
                self.assertAlmostEqual(flow["held"]["max_ms"], held, delta=0.001)
                self.assertAlmostEqual(flow["held"]["p50_ms"], held, delta=held * 0.13)

    def test_later_than_the_timeout(self) -> None:
        primary, _ = self.kept("agrees")
        report = self.report(primary, primary, DIFFER, "--offset", "0.040", "--timeout", "30", "--pause", "5")
        self.assertGreater(report["checkpoints"]["timeout"] + report["checkpoints"]["ack"], 0)
        self.assertEqual({flow["difference"]["kind"] for flow in report["flows"] if flow["verdict"] == "differs"},
                         {"none"})
        self.assertLessEqual(max(flow["held"]["max_ms"] for flow in report["flows"]), 35.001)

    def test_silent_secondary(self) -> None:
        """A secondary that stops amid a stream: what it has not sent is named."""
        primary, _ = self.kept("agrees")
        frames = read_pcap(primary)
        segments = [Segment.of(frame) for _, frame in frames]
        last = max(number for number, segment in enumerate(segments)
                   if segment and segment.from_guest and segment.port == 40001 and len(segment.frame) > 1000)
        secondary = write_pcap(self.directory / "silent.pcap", frames[:last])
        report = self.report(primary, secondary, DIFFER, "--checkpoint", "never")
        flow = flow_of(report, 40001)
        self.assertEqual((flow["reason"], flow["difference"]["kind"]), ("timeout", "missing"))
        self.assertEqual(flow["difference"]["offset"], flow["confirmed"])
        self.assertLess(flow["confirmed"], flow["bytes"])
        self.assertGreater(report["left"]["never"], 0)


    def test_any_changed_byte(self) -> None:
        """A byte of the guest's output in either capture: its flow and its offset are named, and no other."""
        for round_number in range(20):
            side = self.draw.randrange(2)
            paths = list(self.kept("agrees"))
            frames = read_pcap(paths[side])
            numbers = initial_numbers(frames)
            number, segment = self.draw.choice([
                (number, segment) for number, segment in enumerate(map(Segment.of, (frame for _, frame in frames)))
                if segment and segment.from_guest and segment.end > segment.payload_at])
            at = self.draw.randrange(segment.payload_at, segment.end)
            frame = bytearray(segment.frame)
            frame[at] ^= 1 << self.draw.randrange(8)
            frames[number] = frames[number][0], bytes(frame)
            paths[side] = write_pcap(self.directory / f"changed-{round_number}.pcap", frames)
            offset = (segment.numbers[0] - numbers[segment.port][True] - 1 + at - segment.payload_at) % 2**32
            report = self.report(*paths, DIFFER, *PATIENCE)
            self.assertEqual([(flow["flow"].rpartition(":")[2], flow["reason"], flow["difference"]["offset"])
                              for flow in report["flows"] if flow["verdict"] == "differs"],
                             [(str(segment.port), "payload", offset)], f"seed {SEED} round {round_number}")
            self.assertEqual(report["checkpoints"]["payload"], 1)

    def test_changed_datagram(self) -> None:
        primary, secondary = self.kept("agrees")
        frames = read_pcap(secondary)
        number, frame = next((number, frame) for number, (_, frame) in enumerate(frames)
                             if frame[6:12] == GUEST_MAC_BYTES and frame[12:14] == b"\x08\x00" and frame[23] == 17
                             and not struct.unpack_from("!H", frame, 20)[0] & 0x3FFF)
        at = self.draw.randrange(42, len(frame))
        frames[number] = frames[number][0], frame[:at] + bytes([frame[at] ^ 1]) + frame[at + 1:]
        report = self.report(primary, write_pcap(self.directory / "changed.pcap", frames), DIFFER, *PATIENCE)
        flow = flow_of(report, 40101)
        self.assertEqual([other["flow"] for other in report["flows"] if other["verdict"] == "differs"], [flow["flow"]])
        self.assertEqual((flow["reason"], flow["difference"]["unit"], flow["difference"]["datagram"],
                          flow["difference"]["offset"]), ("payload", "datagram", 1, at - 42))

    def test_unacknowledged(self) -> None:
        """A secondary that takes nothing of an upload: the primary's acknowledgements of it do not leave."""
        primary, secondary = self.kept("agrees")
        frames = [(at, frame) for at, frame in read_pcap(secondary)
                  if not (Segment.of(frame) and Segment.of(frame).port == 40002 and Segment.of(frame).from_guest
                          and not Segment.of(frame).flags & SYN)]
        deaf = write_pcap(self.directory / "deaf.pcap", frames)
        released = self.directory / "released.pcap"
        report = self.report(primary, deaf, DIFFER, "--checkpoint", "never", "--released", str(released))
        flow = flow_of(report, 40002)
        self.assertEqual(flow["reason"], "ack")
        self.assertEqual(flow["left"], {"compared": 1, "checkpoint": 0, "never": flow["primary"]["packets"] - 1})
        self.assertEqual(len(self.ends(read_pcap(released))[40002]), 1)

    def test_only_one_resets(self) -> None:
        primary, secondary = self.kept("agrees")
        for side in (1, 0):
            paths = [primary, secondary]
            frames = [(at, frame) for at, frame in read_pcap(paths[side])
                      if not (Segment.of(frame) and Segment.of(frame).port == 40004 and Segment.of(frame).from_guest
                              and Segment.of(frame).flags & RST)]
            paths[side] = write_pcap(self.directory / f"no-reset-{side}.pcap", frames)
            report = self.report(*paths, DIFFER if side else AGREE, *PATIENCE)
            if side:
                flow = flow_of(report, 40004)
                self.assertEqual((flow["reason"], flow["difference"]["kind"]), ("timeout", "reset"))
                self.assertEqual(sum(flow["verdict"] == "differs" for flow in report["flows"]), 1)

    def test_order(self) -> None:
        """What leaves of a connection leaves in the order in which it was sent, whatever was cut."""
        primary, secondary = self.kept("agrees")
        for one, other in ((primary, secondary), (secondary, primary)):
            released = self.directory / "released.pcap"
            self.report(one, other, AGREE, *PATIENCE, "--released", str(released))
            sent, left = (self.ends(read_pcap(path)) for path in (one, released))
            for port, ends in sent.items():
                self.assertEqual([end for end in left[port] if end in ends], ends)

    @staticmethod
    def ends(frames: list[Frame]) -> dict[int, list[tuple[int, int]]]:
        """Where the guest's segments end, and what they acknowledge, by the client's port."""
        found = defaultdict(list)
        for _, frame in frames:
            segment = Segment.of(frame)
            if segment and segment.from_guest:
                found[segment.port].append((segment.seq_end, segment.numbers[1]))
        return found


# ---------------------------------------------------------------- files

class Files(ReplayTest):
    """What people give the tool."""

    def setUp(self) -> None:
        super().setUp()
        self.primary, self.secondary = KEPT / "agrees-primary.pcap", KEPT / "agrees-secondary.pcap"
        self.frames = read_pcap(self.secondary)

    def expect_trouble(self, path: Path, *words: str, options: tuple[str, ...] = ()) -> None:
        result = replay(self.primary, path, *options)
        self.assertEqual(result.returncode, TROUBLE, result.stdout)
        self.assertIn(str(path), result.stderr)
        for word in words:
            self.assertIn(word, result.stderr)
        self.assertEqual(result.stderr.count("\n"), 1)

    def test_not_a_capture(self) -> None:
        path = self.directory / "text"
        path.write_text("This is not a capture at all, only text.\n")
        self.expect_trouble(path, "not a capture", "tcpdump -w")

    def test_empty_file(self) -> None:
        path = self.directory / "empty"
        path.write_bytes(b"")
        self.expect_trouble(path, "empty")

    def test_missing_file(self) -> None:
        self.expect_trouble(self.directory / "missing.pcap", "No such file")

    def test_directory(self) -> None:
        self.expect_trouble(self.directory, "not a file")

    def test_other_link_type(self) -> None:
        cooked = PCAP_HEADER[:20] + struct.pack("<I", 113)
        self.expect_trouble(write_pcap(self.directory / "cooked.pcap", self.frames, cooked), "LINUX_SLL", "-i any")

    def test_no_packets_of_the_guest(self) -> None:
        others = [(at, frame) for at, frame in self.frames if frame[6:12] != GUEST_MAC_BYTES]
        self.expect_trouble(write_pcap(self.directory / "input.pcap", others), "no packets from the guest",
                            "both directions")
        self.expect_trouble(self.primary, "no packets from the guest", "--guest", options=("--guest", "192.0.2.1"))

    def test_guest_that_cannot_be_told(self) -> None:
        turned = [(at, frame[6:12] + frame[:6] + frame[12:].replace(socket.inet_aton(CLIENT), bytes([10, 78, 0, 9])))
                  for at, frame in self.frames]
        path = write_pcap(self.directory / "both.pcap", self.frames + turned)
        result = replay(path, self.secondary)
        self.assertEqual(result.returncode, TROUBLE)
        self.assertIn("--guest", result.stderr)
        self.assertIn(str(path), result.stderr)

    def test_told_guest(self) -> None:
        for guest in ("52:54:00:78:00:02", GUEST, GUEST6):
            report = self.report(self.primary, self.secondary, AGREE, *PATIENCE, "--guest", guest)
            self.assertEqual(report["guest"], guest)
            self.assertFalse(report["guest_deduced"])
        self.assertEqual(replay(self.primary, self.secondary, "--guest", "nobody").returncode, TROUBLE)

    def test_one_guest_many_clients(self) -> None:
        """The guest is the host that all conversations have in common, even if it asks, too."""
        more = [(at, frame.replace(bytes.fromhex("525400780001"), bytes.fromhex("525400780009"))
                 .replace(socket.inet_aton(CLIENT), socket.inet_aton("10.78.0.9"))
                 .replace(socket.inet_pton(socket.AF_INET6, CLIENT6), socket.inet_pton(socket.AF_INET6, "fd78::9")))
                for at, frame in self.frames]
        path = write_pcap(self.directory / "many.pcap", self.frames + more)
        report = self.report(path, path, AGREE)
        self.assertEqual(report["guest"], "52:54:00:78:00:02")

    def test_truncated(self) -> None:
        """What is there is used, and it is said that it is not all."""
        data = self.secondary.read_bytes()
        path = self.directory / "truncated.pcap"
        path.write_bytes(data[:-7])
        text = replay(self.primary, path, *PATIENCE)
        self.assertIn(f"{path}: ends amid a packet", text.stdout)
        self.assertEqual(self.report(path, path, AGREE)["primary"]["packets"], len(self.frames) - 1)

    def test_snapped(self) -> None:
        path = write_pcap(self.directory / "snapped.pcap", self.frames, snap=96)
        result = replay(self.primary, path, *PATIENCE)
        long = sum(len(frame) > 96 for _, frame in self.frames)
        self.assertEqual(result.returncode, DIFFER)
        self.assertIn(f"{path}: {long} packets were recorded in part", result.stdout)

    def test_formats(self) -> None:
        """pcapng; microseconds; the other byte order; virtio-net headers, as filter-dump of QEMU 7.2 leaves them."""
        pcapng = self.directory / "ng.pcapng"
        tshark(self.secondary, "-F", "pcapng", "-w", str(pcapng))
        self.assertEqual(pcapng.read_bytes()[:4], bytes.fromhex("0a0d0d0a"))
        self.expect_agreement(self.primary, pcapng)
        big = struct.pack(">IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1)
        self.expect_agreement(self.primary, write_pcap(self.directory / "big.pcap", self.frames, big, ">", 1000))
        for length in (10, 12):
            path = write_pcap(self.directory / f"vnet-{length}.pcap",
                              [(at, bytes(length) + frame) for at, frame in self.frames])
            self.assertEqual(self.expect_agreement(self.primary, path)["secondary"]["vnet_header"], length)

    def test_usage(self) -> None:
        for arguments in ([], ["one"], ["one", "two", "three"], ["--pause", "-1", "a", "b"],
                          ["--checkpoint", "x", "a", "b"], ["--offset", "soon", "a", "b"],
                          ["--timeout", "0", "a", "b"]):
            result = subprocess.run([REPLAY, *arguments], capture_output=True, text=True)
            self.assertEqual((result.returncode, result.stdout), (TROUBLE, ""), arguments)
            self.assertTrue(result.stderr.startswith("colo-replay: "), result.stderr)
        self.assertIn("--released", subprocess.run([REPLAY, "--help"], capture_output=True, text=True).stdout)
        result = replay(self.primary, self.secondary, "--released", "/nowhere/at/all.pcap")
        self.assertEqual(result.returncode, TROUBLE)
        self.assertIn("--released", result.stderr)

    def test_second_opinion_notices(self) -> None:
        """tshark says so when a checksum is wrong: otherwise its silence would mean nothing."""
        frames = [(at, frame[:-1] + bytes([frame[-1] ^ 1])) if len(frame) > 1000 else (at, frame)
                  for at, frame in self.frames]
        self.assertIn("40002", bad_checksums(write_pcap(self.directory / "bad.pcap", frames)))
        self.assertEqual(bad_checksums(self.secondary), "")

    def test_hostile(self) -> None:
        """Whatever the file says: an answer, in the end, and no step beyond (the sanitizers watch)."""
        for round_number in range(HOSTILE_ROUNDS):
            paths = [self.directory / f"hostile-{original.name}" for original in (self.primary, self.secondary)]
            for original, path in zip((self.primary, self.secondary), paths):
                if self.draw.random() < 0.5:
                    path.write_bytes(self.with_other_bytes(original.read_bytes()))
                else:
                    write_pcap(path, self.with_other_frames(read_pcap(original)))
            options = self.draw.choice([[], ["--checkpoint", "never"], ["--queue", "2"], ["--json", "--timeout", "50"]])
            result = replay(*paths, *options, "--guest", GUEST_MAC, program=REPLAY_SANITIZED)
            said = f"seed {SEED} round {round_number} {options}\n{result.stderr}"
            self.assertIn(result.returncode, (AGREE, DIFFER, TROUBLE), said)
            self.assertNotRegex(result.stderr, "Sanitizer|runtime error|assert|fault of the core", said)

    def with_other_bytes(self, data: bytes) -> bytes:
        changed = bytearray(data)
        for _ in range(self.draw.choice([1, 10, 300])):
            at = self.draw.randrange(24 if self.draw.random() < 0.98 else 0, len(changed))
            changed[at] = self.draw.choice([0, 1, 0x7F, 0x80, 0xFF, self.draw.randrange(256)])
        return bytes(changed)

    def with_other_frames(self, frames: list[Frame]) -> list[Frame]:
        """Some lost, some twice, some elsewhere, some with another word in their headers."""
        changed = []
        for at, frame in frames:
            draw = self.draw.random()
            if draw < 0.05:
                continue
            if draw > 0.7:
                word = self.draw.randrange(14, min(len(frame), 80) - 1)
                frame = frame[:word] + struct.pack("!H", self.draw.choice([0, 1, 0x4000, 0xFFFF])) + frame[word + 2:]
            changed += [(at, frame)] * (2 if draw < 0.1 else 1)
            if draw < 0.2 and len(changed) > 1:
                other = self.draw.randrange(len(changed))
                changed[-1], changed[other] = (changed[-1][0], changed[other][1]), (changed[other][0], changed[-1][1])
        return changed


if __name__ == "__main__":
    unittest.main()
