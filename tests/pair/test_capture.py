# SPDX-License-Identifier: GPL-2.0-or-later
"""What a real pair sends, recorded on both sides as docs/replay.rst says, and replayed."""

import json
import subprocess
import tempfile
import unittest
from pathlib import Path

from colokit import replay
from colokit.machine import wait_until
from colokit.pair import Pair
from colokit.pairtest import PairTest

ATTEMPTS = 3            # a checkpoint amid a recording spoils it
SIZES = (100, 20_000, 2_000_000)


class CaptureTest(PairTest):

    def record(self, pair: Pair, directory: Path) -> list[Path]:
        """Some downloads, as each side's filter-dump sees them."""
        paths = []
        for qemu in pair.processes():
            paths.append(directory / f"{qemu.role}.pcap")
            qemu.monitor.command("object-add", **{"qom-type": "filter-dump", "id": "d0", "netdev": "hn0",
                                                  "file": str(paths[-1])})
        for size in SIZES:
            self.assert_complete(self.download(size, seed=size))
        pair.primary.monitor.command("object-del", id="d0")
        # The secondary may be a moment behind: what the primary has sent is not recorded there before it is compared.
        wait_until(lambda: not pair.comparison()["held"], 10, "the secondary")
        pair.secondary.monitor.command("object-del", id="d0")
        return paths

    def check(self, device: str, header: int) -> None:
        program = replay.build()
        pair = self.start(device=device, checkpoint_delay=100_000)
        with tempfile.TemporaryDirectory() as directory:
            for _ in range(ATTEMPTS):
                before = pair.checkpoints()
                paths = self.record(pair, Path(directory))
                if pair.checkpoints() == before:
                    break
            else:
                self.fail(f"a checkpoint in each of {ATTEMPTS} recordings")
            result = subprocess.run([program, "--json", *paths], capture_output=True, text=True)
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        report = json.loads(result.stdout)
        self.assertEqual(report["guest"], pair.network.guest_mac)
        for side in ("primary", "secondary"):
            # Newer series record frames without it.
            self.assertIn(report[side]["vnet_header"], (0, header))
        streams = [flow["confirmed"] for flow in report["flows"] if flow["flow"].startswith("tcp")]
        self.assertEqual(len(streams), len(SIZES))
        for size, confirmed in zip(SIZES, streams):
            self.assertGreaterEqual(confirmed, size)

    def test_e1000(self) -> None:
        self.check("e1000", 0)

    def test_virtio(self) -> None:
        """Frames of up to 64 KiB, each behind a header that an older filter-dump takes for a part of it."""
        self.check("virtio-net-pci", 12)


if __name__ == "__main__":
    unittest.main()
