# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest with two network cards, each with a proxy of its own."""

import re
import unittest
from typing import Any

from colokit.network import Network, batch
from colokit.pair import Pair
from colokit.pairtest import PairTest, emulator, usage
from colokit.process import Qemu

CLIENT_ADDRESS, GUEST_ADDRESS = "10.78.0.1", "10.78.0.2"
GUEST_MAC = "52:54:00:77:00:03"


def again(options: str) -> str:
    """The same for the second card: other names, other ports."""
    options = re.sub(r"\b(id|outdev|indev|primary_in|secondary_in|iothread)=([\w-]+)", r"\1=\2-again", options)
    options = re.sub(r"(port=|:)90(\d\d)\b", r"\g<1>91\2", options)
    return options.replace("netdev=hn0", "netdev=hn1")


def tap(role: str) -> str:
    return f"tap-{role}1"


class PairWithTwo(Pair):

    def __init__(self, network: Network, **options: Any):
        super().__init__(emulator(), network, **options)
        for role in self.hosts:
            self.options.more[role] = ["-netdev", f"tap,id=hn1,vhost=off,ifname={tap(role)},script=no,downscript=no",
                                       "-device", f"{self.options.device},netdev=hn1,mac={GUEST_MAC},romfile="]

    def command_line(self, role: str) -> list[str]:
        return [f"{word} second={GUEST_ADDRESS}/24" if word.startswith("console=") else word for word in super().command_line(role)]

    def _primary_objects(self, wait: bool = True) -> list[tuple[str, str]]:
        objects = super()._primary_objects(wait)
        return objects + [(kind, again(what)) for kind, what in objects]

    def _secondary_objects(self) -> list[tuple[str, str]]:
        objects = super()._secondary_objects()
        return objects + [(kind, again(what)) for kind, what in objects]

    def _remove(self, qemu: Qemu, objects: tuple[str, ...]) -> None:
        super()._remove(qemu, (*objects, *(f"{name}-again" for name in objects)))


class CardsTest(PairTest):

    def setUp(self) -> None:
        network = self.enterContext(Network())
        for role in network.taps:
            network.add_tap(tap(role))
        batch(network.client, f"address add {CLIENT_ADDRESS}/24 dev client")
        self.pair = self.enterContext(PairWithTwo(network, usage=usage(), checkpoint_delay=300))
        self.pair.start()
        self.pair.wait_ready()
        self.pair.start_colo()

    def test_downloads_survive(self) -> None:
        """Downloads by both cards cross checkpoints and a failover."""
        downloads = [self.download(20_000_000, seed, address) for seed, address in enumerate((None, GUEST_ADDRESS))]
        self.pair.wait_checkpoints(3)
        for download in downloads:
            download.wait_for(1_000_000)
        counters = self.pair.counters()
        for name in (self.pair.comparer, f"{self.pair.comparer}-again"):
            self.assertGreater(counters[name].get("compare", counters[name])["released"]["packets"], 0, name)
        self.pair.primary.kill()
        self.pair.failover()
        for download in downloads:
            self.assert_complete(download)
        self.assert_guests_well()


if __name__ == "__main__":
    unittest.main()
