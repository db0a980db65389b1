# SPDX-License-Identifier: GPL-2.0-or-later
"""The demo's story: a download survives checkpoints and the death of the primary."""

import time
import unittest

from colokit.pairtest import PairTest

SIZE = 60_000_000


class DownloadTest(PairTest):

    def survives(self, **options) -> None:
        pair = self.start(**options)
        download = self.download(SIZE)
        download.wait_for(SIZE * 2 // 5)
        killed = time.monotonic()
        pair.primary.kill()
        pair.failover()
        self.assert_complete(download)
        self.assertLess(download.gap(killed), 5.0)
        self.assert_complete(self.download(1_000_000, seed=1))
        self.assert_guests_well()

    def test_download_survives_on_a_guest_just_booted(self) -> None:
        """Each copy draws the secret of its TCP timestamps by itself; the client sees one clock all the same."""
        for attempt in range(3):    # by chance, every second one would survive without the rewriter's help
            with self.subTest(attempt=attempt):
                self.survives(cold=True)

    def crosses(self, **options) -> None:
        """Checkpoints in mid-download cost milliseconds; output held until the timeout, seconds."""
        pair = self.start(checkpoint_delay=300, **options)
        download = self.download(SIZE * 2)
        self.assert_complete(download)
        self.assertGreater(pair.checkpoints(), 1)
        self.assertLess(download.gap(0), 1.5, f"logs: {pair.directory}")
        self.assert_guests_well()

    def test_download_crosses_checkpoints_virtio_net(self) -> None:
        self.crosses(device="virtio-net-pci")

    def test_download_crosses_checkpoints_e1000(self) -> None:
        self.crosses(device="e1000")

    def test_download_crosses_checkpoints_rtl8139(self) -> None:
        self.crosses(device="rtl8139")

    def test_download_survives_virtio_net(self) -> None:
        self.survives(device="virtio-net-pci")

    def test_download_survives_e1000(self) -> None:
        self.survives(device="e1000")

    def test_download_survives_rtl8139(self) -> None:
        self.survives(device="rtl8139")


if __name__ == "__main__":
    unittest.main()
