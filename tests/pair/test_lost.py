# SPDX-License-Identifier: GPL-2.0-or-later
"""A secondary that is lost, in one way or another, never stops the service; and the primary can be protected again."""

import contextlib
import os
import re
import socket
import threading
import time
import unittest
from pathlib import Path

from colokit import client
from colokit.machine import Failure, wait_until
from colokit.pair import COMPARE_PORT, MIRROR_PORT, Pair
from colokit.pairtest import PairTest, connections_of, usage
from colokit.process import Qemu

COMPARE_TIMEOUT = 3.0       # seconds; the defaults of colo-compare
PEER_TIMEOUT = 3.0
SLOW = 6.0                  # longer than either
SLACK = 1.5                 # what a busy machine may add
NEVER = 3_600_000           # ms
ATTEMPTS = 60
FRAME_THREADS = ("live_migration", "mig/src/main")      # as QEMU 7.2 and 10.0 call it


def messages(qemu: Qemu) -> list[str]:
    """What the frame's processes have said to each other, as one of them tells it."""
    return re.findall(r"colo_(?:receive|send)_message \w+ '([\w-]+)'", "\n".join(qemu.trace()))


def break_off(qemu: Qemu, port: int) -> set[tuple[str, int]]:
    """End its connections to the port; return its own ends of them."""
    ends = set()
    for connection in connections_of(qemu, port):
        ends.add(connection.getsockname())
        connection.shutdown(socket.SHUT_RDWR)
        connection.close()
    return ends


def own_ends(qemu: Qemu, port: int) -> set[tuple[str, int]]:
    ends = set()
    for connection in connections_of(qemu, port):
        ends.add(connection.getsockname())
        connection.close()
    return ends


def let_others_go_first(qemu: Qemu, names: tuple[str, ...]) -> None:
    """Threads of those names run only when no other thread wants to on their processor."""
    threads = [int(path.parent.name) for path in Path(f"/proc/{qemu.pid}/task").glob("*/comm")
               if path.read_text(encoding="utf-8").strip() in names]
    if not threads:
        raise Failure(f"the {qemu.role} has no thread of the name {' or '.join(names)}")
    for thread in threads:
        os.sched_setscheduler(thread, os.SCHED_IDLE, os.sched_param(0))


def make_checkpoint(pair: Pair, next_after: int) -> None:
    """And others when so many milliseconds have passed without one."""
    seen = pair.checkpoints()
    for patience in (1, 1, 10):     # what is asked for while another one is under way counts as given
        pair.primary.monitor.command("migrate-set-parameters", x_checkpoint_delay=next_after)
        with contextlib.suppress(Failure):
            pair.wait_checkpoints(seen + 1, timeout=patience)
            return
    raise Failure("no checkpoint is made")


def stop_before_the_word(pair: Pair) -> None:
    """Stop the primary's process when it has sent a checkpoint, and has not been told that it is loaded."""
    for _ in range(ATTEMPTS):
        seen = len(messages(pair.secondary))
        wait_until(lambda: messages(pair.secondary)[seen:], 10, "a checkpoint to begin")
        pair.primary.stop()
        time.sleep(0.3)         # the secondary goes on by itself, as far as it can
        if messages(pair.secondary)[-1] == "vmstate-loaded" and messages(pair.primary)[-1] != "vmstate-loaded":
            return
        pair.primary.cont()
    raise Failure(f"not caught before the word of a checkpoint in {ATTEMPTS} attempts")


class Requests(threading.Thread):
    """A client that makes one request after the other, each on a connection of its own."""

    def __init__(self, pair: Pair):
        super().__init__(daemon=True, name="requests")
        self.pair = pair
        self.over = threading.Event()
        self.done: list[tuple[float, float]] = []   # when each began, and the seconds it took
        self.error: str | None = None

    def run(self) -> None:
        try:
            while not self.over.is_set():
                began = time.monotonic()
                if client.request(self.pair.network, "/") != b"ready\n":
                    self.error = "a wrong answer"
                self.done.append((began, time.monotonic() - began))
        except Exception as error:      # whatever it is, the test must hear of it
            self.error = str(error)

    def wait_for_more(self, count: int = 20) -> None:
        """Wait until so many more have been answered."""
        wanted = len(self.done) + count
        wait_until(lambda: self.error or len(self.done) >= wanted, 30, f"{count} further answers")

    def worst(self, since: float = 0.0) -> float:
        return max((took for began, took in self.done if began >= since), default=0.0)


class LostTest(PairTest):

    def begin(self, **options) -> Requests:
        requests = Requests(self.start(**options))
        requests.start()
        self.addCleanup(requests.join)
        self.addCleanup(requests.over.set)
        requests.wait_for_more()
        return requests

    def lost(self, reason: str, timeout: float) -> None:
        """The loss is told, and the primary goes on alone."""
        monitor = self.pair.primary.monitor
        event = monitor.wait_event("COLO_PROXY_PEER_LOST", timeout)
        self.assertEqual(event["data"], {"id": self.pair.comparer, "reason": reason})
        self.assertEqual(monitor.wait_event("COLO_EXIT", 5)["data"], {"mode": "primary", "reason": "error"})
        wait_until(lambda: not self.pair.comparison()["comparing"], 5, "colo-compare to pass everything through")
        self.assertEqual(self.pair.comparison()["secondary-lost"], reason)
        self.assertIn(f"passing through, the secondary is lost ({reason})", monitor.human("info colo-proxy"))
        self.assertTrue(monitor.command("query-status")["running"])

    def protect_again(self, requests: Requests) -> None:
        """With another secondary, which takes over when the primary dies."""
        pair = self.pair
        began = time.monotonic()
        pair.protect_again()
        requests.wait_for_more()
        info = pair.comparison()
        self.assertTrue(info["comparing"])
        self.assertNotIn("secondary-lost", info)
        self.assertLess(requests.worst(began), COMPARE_TIMEOUT)
        pair.primary.kill()
        pair.failover()
        requests.wait_for_more()
        self.assertIsNone(requests.error)
        self.assert_guests_well()

    def test_hung(self) -> None:
        """Its host freezes."""
        requests = self.begin()
        self.pair.secondary.stop()
        self.lost("silent", COMPARE_TIMEOUT + PEER_TIMEOUT + SLACK)
        requests.wait_for_more()
        self.assertLess(requests.worst(), COMPARE_TIMEOUT + PEER_TIMEOUT / 4 + SLACK)
        self.protect_again(requests)

    def test_hung_while_nobody_asks(self) -> None:
        """No output waits, but the checkpoint that is to be made now and then is not."""
        self.start(checkpoint_delay=500)
        self.pair.secondary.stop()
        self.lost("silent", 0.5 + PEER_TIMEOUT + SLACK)

    def test_hung_in_a_checkpoint(self) -> None:
        """The same with checkpoints so often that one is under way, or soon."""
        requests = self.begin(checkpoint_delay=50)
        self.pair.secondary.stop()
        self.lost("silent", COMPARE_TIMEOUT + PEER_TIMEOUT + SLACK)
        requests.wait_for_more()
        self.assertLess(requests.worst(), COMPARE_TIMEOUT + PEER_TIMEOUT + SLACK)
        self.assertIsNone(requests.error)

    def test_killed(self) -> None:
        requests = self.begin()
        self.pair.secondary.kill()
        self.lost("closed", SLACK)
        requests.wait_for_more()
        self.assertLess(requests.worst(), SLACK)
        self.protect_again(requests)

    def test_frame_cut_off(self) -> None:
        """The frame's connection breaks and the proxy's do not: at the next checkpoint the frame gives up, and nobody is protected."""
        requests = self.begin(checkpoint_delay=500)
        self.pair.primary.monitor.command("yank", instances=[{"type": "migration"}])
        self.lost("closed", SLACK)
        requests.wait_for_more()
        self.assertLess(requests.worst(), SLACK)
        self.assertIsNone(requests.error)

    def test_slow_disk(self) -> None:
        """A checkpoint waits for a disk of the primary's own: no reason to give the secondary up."""
        slow = ["-drive", f"if=none,id=slow,driver=null-co,latency-ns={SLOW * 1e9:.0f}"]
        patient = "heartbeat_timeout=20000" if usage() == "proxy" else ""       # as to a primary that stands still
        requests = self.begin(more={"primary": slow}, secondary=patient)
        monitor = self.pair.primary.monitor
        self.assertEqual(monitor.human('qemu-io slow "aio_read 0 512"'), "")
        began = time.monotonic()
        monitor.command("migrate-set-parameters", 2 * SLOW, x_checkpoint_delay=10000)      # and one now
        requests.wait_for_more()
        self.assertGreater(requests.worst(began - SLACK), SLOW - SLACK)
        for qemu in self.pair.processes():
            self.assertNotIn("COLO_PROXY_PEER_LOST", [event["event"] for event in qemu.monitor.poll_events()])
        self.assertTrue(self.pair.comparison()["comparing"])
        self.assertTrue(self.pair.colo_runs())

    def test_frozen_for_a_moment(self) -> None:
        """A secondary that stands still for less than compare_timeout is not lost."""
        requests = self.begin()
        self.pair.secondary.stop()
        time.sleep(COMPARE_TIMEOUT / 2)     # this is the thing itself, not a wait for another
        self.pair.secondary.cont()
        requests.wait_for_more()
        info = self.pair.comparison()
        self.assertTrue(info["comparing"])
        self.assertNotIn("secondary-lost", info)
        self.assertTrue(self.pair.colo_runs())

    def test_output_cut_off(self) -> None:
        """The secondary's output breaks off, but the frame lives: output leaves by checkpoints until it is connected again."""
        requests = self.begin()
        monitor = self.pair.primary.monitor
        before = self.pair.comparison()["checkpoints"]
        began = time.monotonic()
        port = MIRROR_PORT if self.pair.options.usage == "proxy" else COMPARE_PORT
        break_off(self.pair.secondary, port)
        self.assertEqual(monitor.wait_event("COLO_PROXY_PEER_LOST", SLACK)["data"]["reason"], "closed")
        requests.wait_for_more()
        wait_until(lambda: self.pair.comparison()["secondary-connected"], 10, "the secondary's output")
        requests.wait_for_more()
        self.assertLess(requests.worst(began), COMPARE_TIMEOUT / 2)
        info = self.pair.comparison()
        self.assertTrue(info["comparing"])
        self.assertNotIn("secondary-lost", info)
        self.assertGreater(info["checkpoints"], before)
        self.assertIsNone(requests.error)
        self.assertTrue(self.pair.colo_runs())

    def test_output_cut_off_at_a_checkpoint(self) -> None:
        """The secondary has resumed, the primary has not been told, and just then the output breaks off: the epochs stay in step."""
        pair = self.start(checkpoint_delay=NEVER, apart=True, more={"primary": ["-name", "debug-threads=on"]})
        let_others_go_first(pair.primary, FRAME_THREADS)        # so that the word comes last
        port = MIRROR_PORT if pair.options.usage == "proxy" else COMPARE_PORT
        for _ in range(3):
            make_checkpoint(pair, 500)
            stop_before_the_word(pair)
            ended = break_off(pair.secondary, port)
            wait_until(lambda: own_ends(pair.secondary, port) - ended, 10, "the secondary's output")
            pair.primary.cont()
            for _ in range(2):
                make_checkpoint(pair, NEVER)
                client.request(pair.network)
        divergences = pair.divergences()
        self.assertEqual(divergences["timeout"], 0, divergences)
        wait_until(pair.colo_runs, 5, "both guests running under COLO")

    def test_switched_off_over_a_checkpoint(self) -> None:
        """What was switched off meanwhile compares again: nothing leaves that the secondary, frozen, does not stand by."""
        pair = self.start(checkpoint_delay=NEVER)
        path = "/objects/" + ("f0" if pair.options.usage == "proxy" else "redire1")
        pair.primary.monitor.command("qom-set", path=path, property="status", value="off")
        make_checkpoint(pair, NEVER)
        pair.primary.monitor.command("qom-set", path=path, property="status", value="on")
        make_checkpoint(pair, NEVER)
        client.request(pair.network)
        pair.secondary.stop()
        began = time.monotonic()
        client.request(pair.network)
        self.assertGreater(time.monotonic() - began, COMPARE_TIMEOUT / 2)


if __name__ == "__main__":
    unittest.main()
