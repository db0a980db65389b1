# SPDX-License-Identifier: GPL-2.0-or-later
"""Command lines as they stand in the documentation of 2016."""

import unittest

from colokit.pairtest import PairTest


class UsageTest(PairTest):

    def test_usage_2016(self) -> None:
        """Without an iothread and without a rewriter: checkpoints keep the guests alike."""
        pair = self.start(usage="2016", device="e1000", checkpoint_delay=1000)
        self.assert_complete(self.download(5_000_000))
        pair.wait_checkpoints(5)
        self.assert_complete(self.download(5_000_000, seed=1))
        self.assert_guests_well()


if __name__ == "__main__":
    unittest.main()
