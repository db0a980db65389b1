# SPDX-License-Identifier: GPL-2.0-or-later
"""The proxy's objects in libvirt's domains: at their start, added and removed by way of its monitor, and through a failover."""

import json
import os
import signal
import subprocess
import unittest

from colokit import client, guest
from colokit.couple import BOOT_TIMEOUT, HOSTS
from colokit.libvirt import Domain, Libvirt
from colokit.machine import ROOT, wait_until
from colokit.network import Network
from colokit.pair import MIGRATION_PORT, MIRROR_PORT
from colokit.pairtest import emulator
from colokit.process import new_directory

NETDEV = "hostnet0"         # what libvirt calls it
SIZE = 5_000_000


def proxy(mode: str) -> str:
    return f"colo-proxy,id=f0,netdev={NETDEV},queue=all,mode={mode},addr={HOSTS[0]}:{MIRROR_PORT}"


class LibvirtTest(unittest.TestCase):

    def setUp(self) -> None:
        self.directory = new_directory()
        self.network = self.enterContext(Network())
        self.libvirt = self.enterContext(Libvirt(self.network, self.directory))

    def domain(self, name: str, tap: str | None, *arguments: str) -> Domain:
        domain = Domain(name, emulator(), self.network, self.directory, tap, list(arguments))
        self.libvirt.define(domain)
        return domain

    def qmp(self, name: str, command: str, **arguments) -> object:
        """By way of libvirt's passthrough to the monitor."""
        request = {"execute": command, "arguments": {key.replace("_", "-"): value for key, value in arguments.items()}}
        reply = json.loads(self.libvirt.virsh("qemu-monitor-command", name, json.dumps(request)))
        self.assertNotIn("error", reply)
        return reply["return"]

    def ctl(self, *words: str) -> str:
        command = self.network.hosts.command([str(ROOT / "scripts/colo-ctl"), *words])
        result = subprocess.run(command, env=self.libvirt.environment, capture_output=True, text=True, timeout=120, check=False)
        self.assertEqual(result.returncode, 0, f"{words}: {result.stdout}{result.stderr}")
        return result.stdout

    def wait_ready(self, domain: Domain) -> None:
        wait_until(lambda: guest.READY in domain.console(), BOOT_TIMEOUT, f"the boot of {domain.name}")

    def pid(self, name: str) -> int:
        return int((self.libvirt.base / f"run-libvirt/qemu/{name}.pid").read_text())

    def test_pair(self) -> None:
        """Two domains on taps: started, protected, one killed, the other one goes on."""
        primary = self.domain("colo-a", self.network.taps["primary"], "-object", proxy("primary"))
        secondary = self.domain("colo-b", self.network.taps["secondary"], "-object", proxy("secondary"),
                                "-incoming", f"tcp:{HOSTS[1]}:{MIGRATION_PORT}")
        self.libvirt.virsh("start", "colo-a")
        self.libvirt.virsh("start", "colo-b", "--paused")
        self.wait_ready(primary)
        # The object comes and goes while the guest serves.
        for _ in range(5):
            self.qmp("colo-a", "object-del", id="f0")
            self.assertEqual(self.qmp("colo-a", "query-colo-proxy"), [])
            self.assertEqual(client.request(self.network), b"ready\n")
            self.qmp("colo-a", "object-add", qom_type="colo-proxy", id="f0", netdev=NETDEV, queue="all", mode="primary",
                     addr=f"{HOSTS[0]}:{MIRROR_PORT}")
            self.assertEqual(client.request(self.network), b"ready\n")
        both = ("--primary", "libvirt:colo-a", "--secondary", "libvirt:colo-b")
        self.ctl(*both, "protect")
        facts = json.loads(self.ctl(*both, "status", "--json"))
        self.assertEqual([facts[side]["mode"] for side in ("primary", "secondary")], ["primary", "secondary"])
        self.assertIn("nothing is wrong", self.ctl(*both, "diagnose"))

        download = client.Download(self.network, SIZE)
        download.start()
        wait_until(lambda: download.received > SIZE / 5, 30, "the download")
        os.kill(self.pid("colo-a"), signal.SIGKILL)
        self.ctl("--secondary", "libvirt:colo-b", "failover", "--primary-is-dead")
        self.assertEqual(download.result(60), guest.build().content_sha256(SIZE))
        wait_until(lambda: "shut off" in self.libvirt.virsh("domstate", "colo-a"), 30, "libvirt to see that colo-a is gone")
        self.assertIn("running", self.libvirt.virsh("domstate", "colo-b"))
        for domain in (primary, secondary):
            self.assertEqual(guest.trouble_in(domain.console()), [])

    def test_user_netdev(self) -> None:
        """The objects on a netdev that needs no tap."""
        domain = self.domain("colo-user", None, "-object", f"colo-proxy,id=f0,netdev={NETDEV},queue=all,mode=primary,"
                                                           f"addr={HOSTS[0]}:{MIRROR_PORT}")
        self.libvirt.virsh("start", domain.name)
        self.wait_ready(domain)
        for _ in range(20):
            self.qmp(domain.name, "object-del", id="f0")
            self.qmp(domain.name, "object-add", qom_type="colo-proxy", id="f0", netdev=NETDEV, queue="all", mode="primary",
                     addr=f"{HOSTS[0]}:{MIRROR_PORT}")
        self.assertEqual([item["id"] for item in self.qmp(domain.name, "query-colo-proxy")], ["f0"])
        self.assertEqual(guest.trouble_in(domain.console()), [])


if __name__ == "__main__":
    unittest.main()
