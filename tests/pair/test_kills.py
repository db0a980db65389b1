# SPDX-License-Identifier: GPL-2.0-or-later
"""A few kills at random moments; scripts/kills does as many as one likes."""

import random
import unittest

from colokit.kills import Kills
from colokit.network import Network
from colokit.pairtest import emulator, usage
from colokit.procedure import Procedure

KILLS = 6


class KillsTest(unittest.TestCase):

    def test_kills(self) -> None:
        seed = random.SystemRandom().randrange(1 << 32)
        print(f"seed {seed}")
        network = self.enterContext(Network())
        nodes = self.enterContext(Procedure(emulator(), network, proxy=usage() == "proxy"))
        kills = Kills(nodes, seed)
        kills.run(KILLS)
        self.assertEqual(sum(sum(moments.values()) for moments in kills.killed.values()), KILLS)


if __name__ == "__main__":
    unittest.main()
