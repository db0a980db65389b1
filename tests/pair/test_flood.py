# SPDX-License-Identifier: GPL-2.0-or-later
"""A flood of pings beside downloads, with the secondary's host frozen in the middle.

COLO_FLOOD_SECONDS says how long (default: 20; the full test: 60).
"""

import json
import multiprocessing
import os
import socket
import sys
import threading
import time
import unittest
from multiprocessing.connection import Connection
from pathlib import Path

from colokit.client import Download, Ping
from colokit.pairtest import PairTest, seconds_from

RATE = 1000             # pings a second
FROZEN = 10.0           # seconds, or a third of the test if that is less
MONITOR_LIMIT = 0.1     # seconds that the primary's monitor may take
DOWNLOAD = 10_000_000


def waited(*processes: int) -> float:
    """For how many seconds their main threads have waited for a processor so far."""
    return sum(int(Path(f"/proc/{each}/schedstat").read_text().split()[1]) for each in processes) / 1e9


def probe(path: str, pid: int, seconds: float, result: Connection) -> None:
    """Ask the monitor of QEMU @pid again and again how its guest is; send the seconds that the slowest answer took.

    Runs in a process of its own: what is measured is the monitor, not the test's other threads; nor how long the
    processors of this machine were others'.
    """
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)
        stream = sock.makefile("rw")
        stream.readline()
        end, worst, command = time.monotonic() + seconds, 0.0, "qmp_capabilities"
        while (asked := time.monotonic()) < end:
            before = waited(pid, os.getpid())
            stream.write(json.dumps({"execute": command}) + "\n")
            stream.flush()
            while "return" not in json.loads(stream.readline()):
                pass    # an event
            took = time.monotonic() - asked - (waited(pid, os.getpid()) - before)
            worst, command = max(worst, took), "query-status"
            time.sleep(0.02)
    result.send(worst)


class FloodTest(PairTest):

    def test_flood(self) -> None:
        """No ping is lost, no download damaged, and the monitor answers at once throughout."""
        seconds = seconds_from("COLO_FLOOD_SECONDS", 20)
        # No periodic checkpoints: one that the freeze falls into stops the guest
        # with it, and a guest that wakes up to ten thousand pings at once drops
        # some of its answers itself, protected or not.
        pair = self.start(checkpoint_delay=3_600_000)
        over = threading.Event()
        downloads: list[Download] = []

        def download_on_and_on() -> None:
            while not over.is_set():
                downloads.append(Download(pair.network, DOWNLOAD, seed=len(downloads)))
                downloads[-1].start()
                downloads[-1].join()

        downloader = threading.Thread(target=download_on_and_on)
        ping = Ping(pair.network, RATE, seconds)
        began = time.monotonic()
        freeze = began + seconds / 3
        thaw = freeze + min(FROZEN, seconds / 3)
        receiver, sender = multiprocessing.Pipe(duplex=False)
        prober = multiprocessing.get_context("fork").Process(
            target=probe, args=(str(pair.primary.probe_path), pair.primary.pid, seconds, sender), daemon=True)

        prober.start()
        downloader.start()
        ping.start()
        try:
            time.sleep(max(0.0, freeze - time.monotonic()))
            pair.secondary.stop()
            time.sleep(max(0.0, thaw - time.monotonic()))
            pair.secondary.cont()
            self.assertTrue(receiver.poll(seconds), "the monitor answers no more")
            worst = receiver.recv()
        finally:
            over.set()
            pair.secondary.cont()
            prober.kill()
            prober.join()
            ping.join()
            downloader.join()

        logs = f"logs: {pair.directory}"
        self.assertIsNone(ping.error)
        self.assertEqual(ping.result.missing, [],
                         f"{ping.result.lost} of {ping.result.sent} pings lost, sent at the "
                         f"seconds given; {logs}")
        self.assertEqual(ping.result.duplicates, 0, logs)
        for download in downloads:
            self.assert_complete(download)
        print(f"[monitor at most {worst * 1000:.0f} ms]", end=" ", file=sys.stderr, flush=True)
        self.assertLessEqual(worst, MONITOR_LIMIT, f"the monitor's slowest answer; {logs}")
        self.assert_guests_well()


if __name__ == "__main__":
    unittest.main()
