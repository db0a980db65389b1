# SPDX-License-Identifier: GPL-2.0-or-later
"""colo-proxy, the whole proxy as one object on each side: what it has that the four objects have not.

COLO_LOST_RUNS says how often a peer is lost in each way (default: 1; the full test: 20).
"""

import os
import socket
import struct
import subprocess
import tempfile
import threading
import time
import unittest
from pathlib import Path
from sys import stderr
from typing import Iterator

from colokit import client
from colokit.couple import ROLES
from colokit.machine import need, wait_until
from colokit.network import Network, batch
from colokit.pair import MIGRATION_PORT, MIRROR_PORT, Pair
from colokit.pairtest import PairTest, connections_of, emulator

HEARTBEAT, HEARTBEAT_TIMEOUT = 100, 500     # ms
MORE_RUNS = 3
SLACK = 0.1                                 # seconds, of what noticing may take
TCP_REPAIR = 19
LOOK = 0.5                                  # seconds without a packet: there are no more
HELLO, SECONDARY = 1, 1                     # a record of the protocol between the nodes, and what it says

ETH_P_ALL, SO_TIMESTAMPNS = 3, 35


class ProxyTest(PairTest):

    def start(self, **options) -> Pair:
        return super().start(usage="proxy", **options)

    def take_over(self) -> None:
        """The primary dies in the middle of a download, which does not notice."""
        download = self.download(5_000_000, seed=1)
        wait_until(lambda: download.received > 1_000_000 or download.error, 30, "a part of the download")
        self.pair.primary.kill()
        self.pair.failover()
        self.assert_complete(download)
        self.assert_guests_well()


class NoticeTest(ProxyTest):
    """However the secondary is lost, the primary notices in time, says so, and goes on alone."""

    def lose(self, how: str) -> None:
        pair = self.pair
        if how == "killed":
            pair.secondary.kill()
        elif how == "frozen":
            pair.secondary.stop()
        elif how == "cut off":
            batch(pair.network.hosts, "link set lo down")
        else:
            # Its end of the connections vanishes, and nobody is told.
            for connection in connections_of(pair.secondary, MIRROR_PORT, MIGRATION_PORT):
                with connection:
                    connection.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
            pair.secondary.kill()

    def check(self, how: str, reason: str, also: str | None = None) -> None:
        """@also: what may be noticed in place of the reason, but not each time."""
        beats = f"heartbeat={HEARTBEAT},heartbeat_timeout={HEARTBEAT_TIMEOUT}"
        pair = self.start(compare=beats, secondary=beats)
        monitor = pair.primary.monitor
        runs, seen = int(os.environ.get("COLO_LOST_RUNS", 1)), []
        while len(seen) < runs or (reason not in seen and len(seen) < runs + MORE_RUNS):
            client.request(pair.network, "/")
            wait_until(lambda: pair.comparison()["secondary-connected"], 5, "the secondary's connection")
            for event in monitor.take_events("COLO_PROXY_PEER_LOST"):
                # This machine has stood still; the secondary has connected again.
                print(f"[lost before: {event['data']['reason']}]", end=" ", file=stderr, flush=True)
            began = time.time()
            self.lose(how)
            event = monitor.wait_event("COLO_PROXY_PEER_LOST", 5)
            seen.append(event["data"]["reason"])
            self.assertEqual(event["data"]["id"], "f0")
            self.assertIn(seen[-1], (reason, also))
            stamp = event["timestamp"]
            took = stamp["seconds"] + stamp["microseconds"] / 1e6 - began
            self.assertLess(took, HEARTBEAT_TIMEOUT / 1000 + SLACK, f"{how}: noticed after {took:.3f} s")
            monitor.wait_event("COLO_EXIT", 5)
            client.request(pair.network, "/")
            batch(pair.network.hosts, "link set lo up")
            pair.protect_again()
        self.assertIn(reason, seen)
        self.take_over()

    def test_killed(self) -> None:
        self.check("killed", "closed")

    def test_frozen(self) -> None:
        self.check("frozen", "silent")

    def test_cut_off(self) -> None:
        self.check("cut off", "silent")

    def test_half_open(self) -> None:
        # The next heartbeat finds nobody there; when one of the two stands still for so long, the silence is noticed first.
        self.check("half open", "closed", "silent")


class PastTest(ProxyTest):

    def test_a_secondary_of_the_past_is_turned_away(self) -> None:
        """One that wakes up after the primary has gone on alone is no copy any more, and does not stand in the next one's way."""
        pair = self.start()
        pair.secondary.stop()
        pair.primary.monitor.wait_event("COLO_EXIT", 10)
        self.assertFalse(pair.comparison()["comparing"])
        pair.secondary.cont()
        wait_until(lambda: "COLO has ended for that secondary" in pair.secondary.output(), 10, "the refusal")
        self.assertFalse(pair.comparison()["secondary-connected"])
        pair.protect_again()
        wait_until(lambda: pair.comparison()["secondary-connected"], 5, "the next secondary's connection")
        self.take_over()


    def test_another_secondary_is_turned_away(self) -> None:
        """While COLO's own, which has loaded a checkpoint, is away for a moment, nobody else takes its place, however well it speaks."""
        pair = self.start()
        pair.primary.monitor.command("migrate-set-parameters", x_checkpoint_delay=100)
        pair.wait_checkpoints(2)
        pair.primary.monitor.command("migrate-set-parameters", x_checkpoint_delay=20000)
        pair.secondary.stop()
        for connection in connections_of(pair.primary, MIRROR_PORT):
            with connection:
                if connection.type == socket.SOCK_STREAM and not connection.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    connection.shutdown(socket.SHUT_RDWR)
        wait_until(lambda: not pair.comparison()["secondary-connected"], 2, "the end of the connection")
        with pair.network.hosts.entered():
            stranger = socket.create_connection((pair.hosts["primary"].address, MIRROR_PORT), 2)
        with stranger:
            stranger.sendall(struct.pack(">IB8sHHBBHQQ", 32, HELLO, b"COLOPRXY", 1, 1, SECONDARY, 0, 0, 1 << 20, 4711))
            answer = b"".join(iter(lambda: stranger.recv(4096), b""))
        self.assertIn(b"COLO runs with another secondary", answer)
        pair.secondary.cont()
        wait_until(lambda: pair.comparison()["secondary-connected"], 5, "COLO's own secondary")
        self.take_over()


class Wire(threading.Thread):
    """When what IP packets of the guest's came by at the client."""

    def __init__(self, network: Network):
        super().__init__(daemon=True, name="wire")
        self.guest_mac = bytes.fromhex(network.guest_mac.replace(":", ""))
        self.times: list[float] = []
        self.over = threading.Event()
        with network.client.entered():
            self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        self.socket.bind(("client", 0))
        self.socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self.socket.settimeout(0.1)

    def run(self) -> None:
        with self.socket:
            while not self.over.is_set():
                try:
                    frame, ancillary, _, _ = self.socket.recvmsg(64, 64)
                except TimeoutError:
                    continue
                if frame[6:12] == self.guest_mac and frame[12:14] == b"\x08\x00":
                    seconds, nanoseconds = struct.unpack("qq", ancillary[0][2])
                    self.times.append(seconds + nanoseconds / 1e9)


class HoldTest(ProxyTest):

    def windows(self) -> Iterator[tuple[float, float]]:
        """From when each checkpoint was loaded until the primary's guest went on."""
        loaded = None
        for when, what in self.pair.primary.timed_trace():
            if "colo_receive_message Receive 'vmstate-loaded'" in what:
                loaded = when
            elif loaded and "colo_vm_state_change Change 'stop' => 'run'" in what:
                yield loaded, when
                loaded = None
        if loaded:
            yield loaded, time.time()       # it has not been told yet that the guest goes on

    def test_nothing_leaves_before_its_checkpoint_is_loaded(self) -> None:
        """What leaves does so while the guest stands still for a checkpoint that has been loaded."""
        pair = self.start(compare="policy=hold", checkpoint_delay=20)
        wire = Wire(pair.network)
        pair.wait_checkpoints(3)
        began = time.time()
        wire.start()
        seen = pair.checkpoints()
        while pair.checkpoints() < seen + 100:
            self.assertEqual(client.request(pair.network, "/"), b"ready\n")
        wire.over.set()
        wire.join()
        windows = list(self.windows())
        self.assertGreater(len(wire.times), 100)
        for when in wire.times:
            self.assertTrue(any(first <= when <= last + SLACK / 20 for first, last in windows),
                            f"a packet left at {when:.6f}, {when - began:.3f} s after the beginning")
        self.take_over()

    def wait_for_all_answers(self, ping: client.Ping) -> int:
        """How many the primary holds when both copies have done."""
        def counts() -> list[int]:
            return [self.pair.counters(side)["f0"]["output"]["packets"] for side in ROLES] + [self.pair.comparison()["held"]]

        def done() -> int:
            before = counts()
            time.sleep(LOOK)            # not to synchronise: to see whether anything moves still
            return before[-1] if counts() == before else 0

        ping.wait_sent(30)
        return wait_until(done, 60, "the guests' answers")

    def test_more_than_a_netdev_holds(self) -> None:
        """QEMU's own queue for a netdev drops what comes after ten thousand packets; a checkpoint lets go all that has waited for it."""
        pair = self.start(compare="policy=hold,compare_timeout=600000,max_queue_size=1000000", checkpoint_delay=3_600_000)
        ping = client.Ping(pair.network, 3000, 4, patience=30)
        ping.start()
        held = self.wait_for_all_answers(ping)
        self.assertGreater(held, 11_000)
        pair.primary.monitor.command("migrate-set-parameters", x_checkpoint_delay=1000)
        ping.join()
        self.assertIsNone(ping.error)
        self.assertEqual(ping.result.sent - ping.result.lost, held)     # what a busy guest has not answered is none of ours
        self.take_over()

    def test_switched_while_it_runs(self) -> None:
        """Held, no answer comes before a checkpoint; compared, they come without."""
        pair = self.start(checkpoint_delay=1000)
        monitor = pair.primary.monitor
        for policy in ("hold", "compare", "hold", "compare"):
            before = pair.checkpoints()
            monitor.command("qom-set", path="/objects/f0", property="policy", value=policy)
            wait_until(lambda: pair.checkpoints() > before, 5, "the checkpoint with which it begins")
            wait_until(lambda: pair.primary.monitor.command("query-status")["running"], 5, "the guest")
            began = time.monotonic()
            for _ in range(3):
                client.request(pair.network, "/")
            took = time.monotonic() - began
            if policy == "hold":
                self.assertGreater(took, 1.0)
            else:
                self.assertLess(took, 1.0)


def make_psk(directory: Path) -> dict[str, list[str]]:
    (directory / "keys.psk").write_text(f"colo:{os.urandom(32).hex()}\n")
    return {"primary": ["-object", f"tls-creds-psk,id=tls0,endpoint=server,dir={directory}"],
            "secondary": ["-object", f"tls-creds-psk,id=tls0,endpoint=client,dir={directory},username=colo"]}


def make_x509(directory: Path) -> dict[str, list[str]]:
    """A certificate authority, and a certificate of its for each side."""
    need(["openssl"])

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=directory, check=True, capture_output=True)

    key = ("-newkey", "rsa:2048", "-nodes")
    openssl("req", "-x509", *key, "-keyout", "ca-key.pem", "-out", "ca-cert.pem", "-subj", "/CN=colo test CA")
    for side, use in (("server", "serverAuth"), ("client", "clientAuth")):
        (directory / "extensions").write_text(f"subjectAltName=IP:127.0.0.1\nextendedKeyUsage={use}\n"
                                              "keyUsage=digitalSignature,keyEncipherment\n")
        openssl("req", *key, "-keyout", f"{side}-key.pem", "-out", "request.pem", "-subj", f"/CN=colo {side}")
        openssl("x509", "-req", "-in", "request.pem", "-CA", "ca-cert.pem", "-CAkey", "ca-key.pem", "-CAcreateserial",
                "-extfile", "extensions", "-out", f"{side}-cert.pem")
    return {role: ["-object", f"tls-creds-x509,id=tls0,endpoint={side},dir={directory},verify-peer=yes"]
            for role, side in (("primary", "server"), ("secondary", "client"))}


class TlsTest(ProxyTest):

    def setUp(self) -> None:
        self.directory = Path(self.enterContext(tempfile.TemporaryDirectory()))

    def check(self, more: dict[str, list[str]]) -> None:
        pair = self.start(compare="tls-creds=tls0", secondary="tls-creds=tls0", more=more)
        self.assert_complete(self.download(3_000_000))
        self.assertGreater(pair.comparison()["secondary"]["bytes"], 3_000_000)
        self.take_over()

    def test_psk(self) -> None:
        self.check(make_psk(self.directory))

    def test_x509(self) -> None:
        self.check(make_x509(self.directory))

    def refused(self, **options) -> None:
        """The two do not come together, each says why, and no packet goes from one to the other."""
        network = self.enterContext(Network())
        pair = self.pair = self.enterContext(Pair(emulator(), network, usage="proxy", more=make_psk(self.directory), **options))
        pair.start()
        pair.wait_ready()
        for qemu in pair.processes():
            wait_until(lambda: "colo-proxy 'f0': " in qemu.output(), 10, f"a word of the {qemu.role}'s")
        client.request(network, "/")
        for role in ("primary", "secondary"):
            counters = pair.counters(role)["f0"]
            self.assertFalse(counters["connected"])
            self.assertEqual(counters["sent"]["packets"], 0)
            self.assertEqual(counters["received"]["packets"], 0)

    def test_plain_secondary_is_refused(self) -> None:
        self.refused(compare="tls-creds=tls0")

    def test_plain_primary_is_refused(self) -> None:
        self.refused(secondary="tls-creds=tls0")


if __name__ == "__main__":
    unittest.main()
