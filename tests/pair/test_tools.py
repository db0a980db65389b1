# SPDX-License-Identifier: GPL-2.0-or-later
"""scripts/bench pair and scripts/soak, for moments only: that they measure, and find nothing wrong where nothing is."""

import random
import unittest

from colokit import pairbench
from colokit.figures import build_programs, kept
from colokit.pairtest import PairTest, emulator, usage
from colokit.soak import Soak, tell_verdict


class ToolsTest(PairTest):

    def setUp(self) -> None:
        build_programs(["colo-bench-client"])

    def test_bench(self) -> None:
        """One round of the workload with all kinds of jobs."""
        name = pairbench.PROXY if usage() == "proxy" else pairbench.OURS
        workload = next(each for each in pairbench.WORKLOADS if each.name == "mix")
        run = pairbench.measure(pairbench.Setup(name, kept(emulator(), "qemu-test"), usage()), workload, 2.0)
        self.assertEqual((run.failures, run.errors, run.trouble), (0, {}, []))
        self.assertGreater(run.requests, 0)
        self.assertGreater(run.cost, 0)

    def test_soak(self) -> None:
        seed = random.SystemRandom().randrange(1 << 32)
        print(f"seed {seed}")
        soak = Soak(self.start(checkpoint_delay=10000), seed, calm=True)
        soak.run(0.2)
        verdict = soak.verdict()
        self.assertTrue(tell_verdict(verdict), verdict)


if __name__ == "__main__":
    unittest.main()
