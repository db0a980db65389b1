# SPDX-License-Identifier: GPL-2.0-or-later
"""colo-ctl, from a guest's protection to its end, with disks and without."""

import json
import os
import re
import socket
import subprocess
import threading
import unittest

from colokit import client
from colokit.machine import ROOT, wait_until
from colokit.network import Namespace, Network
from colokit.pair import Pair
from colokit.pairtest import emulator, usage
from colokit.procedure import Procedure
from colokit.process import Qemu

LOOKS = 5


class Control:
    """The command, as somebody on one of the hosts would call it."""

    def __init__(self, test: unittest.TestCase, hosts: Namespace):
        self.test, self.hosts = test, hosts

    def command(self, words: tuple[str, ...], monitors: dict[str, Qemu | str]) -> list[str]:
        places = [word for side, node in monitors.items()
                  for word in (f"--{side}", node if isinstance(node, str) else str(node.probe_path))]
        return self.hosts.command([str(ROOT / "scripts/colo-ctl"), *places, *words])

    def run(self, *words: str, **monitors: Qemu | str) -> subprocess.CompletedProcess:
        return subprocess.run(self.command(words, monitors), capture_output=True, text=True, timeout=120, check=False)

    def __call__(self, *words: str, ok: bool = True, **monitors: Qemu | str) -> str:
        """What it says; it must go well, or must not."""
        result = self.run(*words, **monitors)
        self.test.assertEqual(result.returncode == 0, ok, f"{words}: {result.stdout}{result.stderr}")
        return result.stdout + result.stderr

    def status(self, **monitors: Qemu | str) -> dict:
        return json.loads(self("status", "--json", **monitors))


class CtlTest(unittest.TestCase):

    def begin(self, **options) -> tuple[Pair, Control]:
        """Two QEMUs, and a guest that serves unprotected."""
        network = self.enterContext(Network())
        pair = self.enterContext(Pair(emulator(), network, usage=usage(), **options))
        pair.start()
        pair.wait_ready()
        return pair, Control(self, network.hosts)

    def test_life(self) -> None:
        pair, ctl = self.begin()
        both = {"primary": pair.primary, "secondary": pair.secondary}
        self.assertIn("not protected", ctl("diagnose", ok=False, primary=pair.primary))
        self.assertIn("--primary and --secondary", ctl("protect", ok=False, primary=pair.primary))
        self.assertIn("protected; next", ctl("protect", **both))
        self.assertIn("protected already", ctl("protect", **both))
        self.assertIn("nothing is wrong", ctl("diagnose", **both))
        facts = ctl.status(**both)
        self.assertEqual([facts[side]["mode"] for side in both], ["primary", "secondary"])
        self.assertTrue(facts["primary"]["comparing"])
        self.assertIn("compared", ctl("status", **both))

        download = client.Download(pair.network, 5_000_000)
        download.start()
        wait_until(lambda: download.received > 1_000_000, 30, "the download")
        pair.primary.kill()
        self.assertIn("--primary-is-dead", ctl("failover", ok=False, secondary=pair.secondary))
        ctl("failover", "--primary-is-dead", secondary=pair.secondary)
        self.assertIn("alone already", ctl("failover", "--primary-is-dead", secondary=pair.secondary))
        self.assertEqual(download.result(60), pair.guest.content_sha256(5_000_000))
        pair.exchange()
        pair.new_secondary()
        both = {"primary": pair.primary, "secondary": pair.secondary}
        ctl("resync", **both)
        self.assertEqual(client.request(pair.network), b"ready\n")
        ctl("unprotect", **both)
        pair.secondary.process.wait(10)
        self.assertEqual(ctl.status(primary=pair.primary)["primary"]["mode"], "none")
        self.assertEqual(client.request(pair.network), b"ready\n")
        self.assertEqual(pair.trouble(), [])

    def test_secondary_lost(self) -> None:
        """It is told of, a command is run, and another one comes in its place."""
        pair, ctl = self.begin()
        ctl("protect", primary=pair.primary, secondary=pair.secondary)
        note = pair.directory / "note"
        words = ("watch", "--once", "--run", f'echo "$COLO_SIDE $COLO_EVENT $COLO_REASON" > {note}')
        watch = self.enterContext(subprocess.Popen(ctl.command(words, {"primary": pair.primary}), stdout=subprocess.PIPE,
                                                   stderr=subprocess.PIPE, text=True))
        self.addCleanup(watch.kill)
        self.assertEqual(watch.stderr.readline(), "watching\n")
        pair.secondary.kill()
        self.assertEqual(json.loads(watch.communicate(timeout=30)[0])["reason"], "closed")
        self.assertEqual(note.read_text(), "primary COLO_PROXY_PEER_LOST closed\n")
        self.assertIn("the secondary is lost (closed)", ctl("diagnose", ok=False, primary=pair.primary))
        ctl("failover", primary=pair.primary)
        pair.new_secondary()
        ctl("resync", primary=pair.primary, secondary=pair.secondary)
        self.assertEqual(client.request(pair.network), b"ready\n")
        pair.primary.kill()
        ctl("failover", "--primary-is-dead", secondary=pair.secondary)
        self.assertEqual(client.request(pair.network), b"ready\n")

    def test_diagnosed(self) -> None:
        """Answers that differ by nature: it is said why there are so many checkpoints, and where."""
        pair, ctl = self.begin()
        both = {"primary": pair.primary, "secondary": pair.secondary}
        ctl("protect", **both)
        over = threading.Event()

        def ask() -> None:
            while not over.is_set():
                client.request(pair.network, "/clock")

        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        self.addCleanup(asking.join)
        self.addCleanup(over.set)
        # It looks for a few seconds; on a busy machine too little happens in some of them to be worth a word.
        finding = rf"checkpoints a second, most for the reason payload; the last in tcp {pair.network.guest_address}:80 "
        for _ in range(LOOKS):
            said = ctl.run("diagnose", **both)
            if re.search(finding, said.stdout):
                break
        self.assertRegex(said.stdout, finding)
        self.assertNotEqual(said.returncode, 0)

    def test_tcp_monitors(self) -> None:
        """Two monitors on the network, as from a third host."""
        places = {"primary": "127.0.0.1:4444", "secondary": "127.0.0.2:4444"}
        _, ctl = self.begin(more={side: ["-qmp", f"tcp:{place},server=on,wait=off"] for side, place in places.items()})
        ctl("protect", **places)
        facts = ctl.status(**places)
        self.assertEqual([facts[side]["mode"] for side in places], ["primary", "secondary"])
        said = ctl("status", ok=False, primary="127.0.0.1:4445")
        self.assertIn("cannot connect to 127.0.0.1:4445", said)
        self.assertIn("there is no /nowhere; start its QEMU with -qmp unix:/nowhere", ctl("status", ok=False, primary="/nowhere"))

    def test_link_broken(self) -> None:
        """Both are in COLO still, and neither is the other's any more: nobody is told that all is well."""
        pair, ctl = self.begin()
        both = {"primary": pair.primary, "secondary": pair.secondary}
        ctl("protect", **both)
        pair.primary.monitor.command("yank", instances=[{"type": "migration"}])
        pair.primary.monitor.command("migrate-set-parameters", x_checkpoint_delay=1000)     # it is noticed at the next
        pair.primary.monitor.wait_event("COLO_EXIT")
        self.assertEqual([ctl.status(**both)[side]["mode"] for side in both], ["primary", "secondary"])
        self.assertIn("colo-ctl failover", ctl("protect", ok=False, **both))
        self.assertIn("nothing has been ended", ctl("unprotect", ok=False, primary=pair.secondary, secondary=pair.primary))

    def test_monitor_taken(self) -> None:
        """Somebody else has it: that is said, and nobody waits for ever."""
        pair, ctl = self.begin()
        with socket.socket(socket.AF_UNIX) as other:
            other.connect(str(pair.primary.probe_path))
            self.assertIn('"QMP"', other.recv(4096).decode())
            self.assertIn("somebody else is connected", ctl("status", ok=False, primary=pair.primary))

    def test_undone(self) -> None:
        """What cannot be done leaves things as they were."""
        pair, ctl = self.begin()
        both = {"primary": pair.primary, "secondary": pair.secondary}
        said = ctl("protect", "--migrate", "tcp:127.0.0.9:1", ok=False, **both)
        self.assertIn("taken back: the primary is set to COLO", said)
        self.assertEqual(client.request(pair.network), b"ready\n")
        ctl("protect", **both)
        self.assertEqual(client.request(pair.network), b"ready\n")

    def test_disks(self) -> None:
        """Copied, replicated, taken over, and copied back."""
        network = self.enterContext(Network())
        nodes = self.enterContext(Procedure(emulator(), network, proxy=usage() == "proxy"))
        ctl = Control(self, network.hosts)
        nodes.launch()
        said = ctl("protect", "--migrate", "tcp:127.0.0.9:1", ok=False, primary=nodes.primary, secondary=nodes.secondary)
        self.assertIn("taken back: colo-disk0 is replicated", said)
        ctl("protect", "--checkpoint-delay", "1000", primary=nodes.primary, secondary=nodes.secondary)
        nodes.wait_ready()
        self.assertEqual(ctl.status(primary=nodes.primary)["primary"]["disks"], {"colo-disk0": "replicated"})
        files = {number: os.urandom(5000) for number in range(5)}

        def keep(*numbers: int) -> None:
            for number in numbers:
                client.request(network, f"/disk/{number}", files[number])

        keep(0, 1)
        # Its host freezes: the guest's writes, and whoever touches the disk, would wait for it.
        nodes.secondary.stop()
        writing = threading.Thread(target=keep, args=(2,), daemon=True)
        writing.start()
        nodes.primary.monitor.wait_event("COLO_PROXY_PEER_LOST")
        ctl("failover", primary=nodes.primary)
        writing.join(30)
        self.assertFalse(writing.is_alive())
        nodes.note_failover(nodes.primary)
        nodes.launch_secondary()
        self.assertIn("colo-ctl resync", ctl("protect", ok=False, primary=nodes.primary, secondary=nodes.secondary))
        ctl("resync", primary=nodes.primary, secondary=nodes.secondary)
        keep(3)
        nodes.primary.kill()
        ctl("failover", "--primary-is-dead", secondary=nodes.secondary)
        nodes.note_failover(nodes.secondary)
        keep(4)
        self.assertEqual(nodes.files_on_disk(), files)
        nodes.launch_secondary()
        ctl("resync", primary=nodes.primary, secondary=nodes.secondary)
        nodes.primary.kill()
        ctl("failover", "--primary-is-dead", secondary=nodes.secondary)
        nodes.note_failover(nodes.secondary)
        self.assertEqual(nodes.files_on_disk(), files)
        self.assertEqual(nodes.trouble(), [])


if __name__ == "__main__":
    unittest.main()
