# SPDX-License-Identifier: GPL-2.0-or-later
"""A libvirtd of our own, with the test guest as its domains.

The daemon is the distribution's; its configuration, state and sockets are in a directory
of ours, which a mount namespace puts in the place of the system's, and it lives in the
hosts' network namespace.  The machine's own libvirt, if it has one, is not touched.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from . import guest
from .machine import Failure, need, wait_until
from .network import Network

PACKAGES = ("libvirt-daemon", "libvirt-daemon-driver-qemu", "libvirt-clients")
SYSTEM = ("/etc/libvirt", "/run/libvirt", "/var/lib/libvirt", "/var/log/libvirt", "/var/cache/libvirt")
QEMU_NAMESPACE = "http://libvirt.org/schemas/domain/qemu/1.0"

# Debian's libvirt wants this user to be there; whoever installs more of it than we do has it.
USER = "libvirt-qemu"
ACCOUNTS = {"/etc/passwd": f"{USER}:x:64055:64055::/nonexistent:/usr/sbin/nologin\n", "/etc/group": f"{USER}:x:64055:\n"}

QEMU_CONF = """\
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
cgroup_controllers = []
namespaces = []
stdio_handler = "file"
"""
LIBVIRTD_CONF = """\
auth_unix_rw = "none"
auth_unix_ro = "none"
"""


class Libvirt:
    """The daemon, as a context manager; virsh() asks it."""

    def __init__(self, network: Network, directory: Path):
        self.network = network
        self.base = directory / "libvirt"

    def __enter__(self) -> "Libvirt":
        need(PACKAGES)
        if not any(line.split()[4] == "/" for line in Path("/proc/self/mountinfo").read_text().splitlines()):
            raise Failure("libvirtd gets mounts of its own, for which / has to be a mount point; in a chroot it is not unless the "
                          "directory was made one first: mount --bind DIRECTORY DIRECTORY")
        places = {system: self.base / system.strip("/").replace("/", "-") for system in SYSTEM}
        for place in places.values():
            place.mkdir(parents=True, exist_ok=True)
        (places["/etc/libvirt"] / "qemu.conf").write_text(QEMU_CONF)
        (places["/etc/libvirt"] / "libvirtd.conf").write_text(LIBVIRTD_CONF)
        for system, line in ACCOUNTS.items():
            text = Path(system).read_text()
            places[system] = self.base / Path(system).name
            places[system].write_text(text if f"{USER}:" in text else text + line)
        self.socket = places["/run/libvirt"] / "libvirt-sock"
        mounts = "".join(f"mount --bind {place} {system} && " for system, place in places.items())
        made = " ".join(SYSTEM)
        self.log = self.base / "libvirtd.log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                self.network.hosts.command(["unshare", "--mount", "sh", "-c", f"mkdir -p {made} && {mounts}exec libvirtd --timeout 600"]),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        try:
            wait_until(self._answers, 60, f"libvirtd's answer (its log: {self.log})")
        except BaseException:
            self._end()
            raise
        return self

    def _answers(self) -> bool:
        if self.process.poll() is not None:
            raise Failure(f"libvirtd has ended: {self.log.read_text(errors='replace')[-500:]}")
        return self.socket.exists() and subprocess.run(
            ["virsh", "uri"], env=self.environment, capture_output=True, check=False).returncode == 0

    def __exit__(self, *exception) -> None:
        """The guests go with the daemon."""
        with contextlib.suppress(Failure):
            for name in self.virsh("list", "--name").split():
                with contextlib.suppress(Failure):
                    self.virsh("destroy", name)
        self._end()

    def _end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)
        self.process.wait()

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "LIBVIRT_DEFAULT_URI": f"qemu+unix:///system?socket={self.socket}"}

    def virsh(self, *words: str) -> str:
        result = subprocess.run(["virsh", "--quiet", *words], env=self.environment, capture_output=True, text=True, timeout=120,
                                check=False)
        if result.returncode:
            raise Failure(f"virsh {' '.join(words)}: {result.stderr.strip()}")
        return result.stdout

    def define(self, domain: "Domain") -> None:
        path = self.base / f"{domain.name}.xml"
        path.write_text(domain.xml())
        self.virsh("define", str(path))


class Domain:
    """The test guest; @arguments are for QEMU as they are, the COLO proxy's objects among them."""

    def __init__(self, name: str, emulator: Path, network: Network, directory: Path, tap: str | None, arguments: list[str]):
        self.name, self.emulator, self.network, self.tap, self.arguments = name, emulator, network, tap, arguments
        self.console_path = directory / f"{name}.console"

    def console(self) -> str:
        return self.console_path.read_text(errors="replace") if self.console_path.exists() else ""

    def xml(self) -> str:
        files = guest.build()
        words = files.arguments("virtio-net-pci", self.network.guest_arguments())
        options = dict(zip(words[::2], words[1::2]))
        ElementTree.register_namespace("qemu", QEMU_NAMESPACE)
        root = ElementTree.fromstring(f"""\
<domain type='qemu'>
  <name>{self.name}</name>
  <memory unit='MiB'>192</memory>
  <vcpu>1</vcpu>
  <os><type arch='x86_64' machine='pc'>hvm</type><kernel/><initrd/><cmdline/></os>
  <features><acpi/></features>
  <cpu mode='custom' match='exact' check='none'><model fallback='forbid'>qemu64</model></cpu>
  <clock offset='utc'/>
  <on_crash>destroy</on_crash>
  <devices>
    <emulator/>
    <controller type='usb' model='none'/>
    <interface><mac address='{self.network.guest_mac}'/><model type='virtio'/></interface>
    <serial type='file'><source path='{self.console_path}'/></serial>
    <memballoon model='none'/>
  </devices>
</domain>""")
        root.find("os/kernel").text = options["-kernel"]
        root.find("os/initrd").text = options["-initrd"]
        root.find("os/cmdline").text = options["-append"]
        root.find("devices/emulator").text = str(self.emulator)
        interface = root.find("devices/interface")
        interface.set("type", "ethernet" if self.tap else "user")
        if self.tap:
            ElementTree.SubElement(interface, "target", dev=self.tap, managed="no")
            ElementTree.SubElement(interface, "driver", name="qemu")      # not vhost, which no filter sees
        more = ElementTree.SubElement(root, f"{{{QEMU_NAMESPACE}}}commandline")
        for word in ["-L", options["-L"], *self.arguments]:
            ElementTree.SubElement(more, f"{{{QEMU_NAMESPACE}}}arg", value=word)
        return ElementTree.tostring(root, encoding="unicode")
