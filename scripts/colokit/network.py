# SPDX-License-Identifier: GPL-2.0-or-later
"""The test network: a bridge with a tap for each QEMU, and a client beside it.

    namespace colo-PID-N-hosts                         namespace colo-PID-N-client
    QEMU primary -- tap-primary ---+
                                   +-- bridge -- hosts ======= client
    QEMU secondary - tap-secondary +                           10.77.0.1, fd77::1

Nothing leaves the two namespaces: they have no route and no other interface.
The kernel takes the interfaces away with the namespaces.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import json
import os
import re
import subprocess
from pathlib import Path
from typing import Iterator, Self

from .machine import Failure, need, output_of

NAMESPACES = Path("/run/netns")
NAME = re.compile(r"colo-(\d+)-\d+-(hosts|client|guest)")
CLONE_NEWNET = 0x40000000

_libc = ctypes.CDLL(None, use_errno=True)
_numbers = itertools.count()


def require_root() -> None:
    """Network namespaces and taps are for root to make."""
    if os.geteuid() != 0:
        raise Failure("network namespaces and taps need root; run this as root")


class Namespace:
    """A network namespace that has a name."""

    def __init__(self, name: str):
        self.name = name
        self.path = NAMESPACES / name

    def command(self, argv: list[str]) -> list[str]:
        """The command that runs argv in this namespace (same process, by exec)."""
        return ["nsenter", f"--net={self.path}", *argv]

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """The calling thread is in this namespace: sockets opened now stay there."""
        with open("/proc/thread-self/ns/net", "rb") as home, open(self.path, "rb") as there:
            _setns(there.fileno())
            try:
                yield
            finally:
                _setns(home.fileno())

    def set(self, **settings: int) -> None:
        """Write to /proc/sys/net; "a__b__c" stands for a/b/c."""
        with self.entered():
            for key, value in settings.items():
                (Path("/proc/sys/net") / key.replace("__", "/")).write_text(f"{value}\n")


def _setns(fd: int) -> None:
    if _libc.setns(fd, CLONE_NEWNET) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"setns: {os.strerror(error)}")


class Namespaces:
    """Namespaces that are made and taken away together: a context manager to build upon."""

    def __init__(self, *roles: str) -> None:
        stem = f"colo-{os.getpid()}-{next(_numbers)}"     # sweep() knows them by it
        self.namespaces = [Namespace(f"{stem}-{role}") for role in roles]

    def __enter__(self) -> Self:
        require_root()
        need(["iproute2", "util-linux"])
        if not os.path.exists("/dev/net/tun"):
            raise Failure("/dev/net/tun is not there; load the tun module (modprobe tun)")
        sweep()
        try:
            for namespace in self.namespaces:
                output_of(["ip", "netns", "add", namespace.name])
            self._furnish()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception) -> None:
        for namespace in self.namespaces:
            if namespace.path.exists():
                _delete(namespace.name)

    def _furnish(self) -> None:
        """Put into the namespaces what belongs there."""
        raise NotImplementedError


class Network(Namespaces):
    """The two namespaces, as a context manager."""

    client_address, client_address6 = "10.77.0.1", "fd77::1"
    guest_address, guest_address6 = "10.77.0.2", "fd77::2"
    prefix, prefix6 = 24, 64
    guest_mac = "52:54:00:77:00:02"
    # Packets that wait in a tap while its QEMU does not read; the kernel drops
    # what comes after.  Enough for a flood of pings and a host frozen for 10 s.
    tap_queue = 20000
    taps = {"primary": "tap-primary", "secondary": "tap-secondary"}

    def __init__(self) -> None:
        super().__init__("hosts", "client")
        self.hosts, self.client = self.namespaces

    def packets(self, role: str) -> int:
        """Packets that have passed the QEMU's tap so far, both ways."""
        found = json.loads(output_of(self.hosts.command(["ip", "-stats", "-json", "link", "show", "dev", self.taps[role]])))
        return sum(found[0]["stats64"][way]["packets"] for way in ("rx", "tx"))

    def add_tap(self, tap: str) -> None:
        """One more port of the bridge."""
        batch(self.hosts, f"""
            tuntap add dev {tap} mode tap
            link set {tap} txqueuelen {self.tap_queue}
            link set {tap} master bridge
            link set {tap} up
        """)

    def guest_arguments(self) -> str:
        """What the guest's command line says about its addresses."""
        return (f"address={self.guest_address}/{self.prefix} "
                f"address6={self.guest_address6}/{self.prefix6}")

    def _furnish(self) -> None:
        # The bridge and the taps are a wire: they say nothing of their own.
        self.hosts.set(ipv6__conf__all__disable_ipv6=1, ipv6__conf__default__disable_ipv6=1)
        self.client.set(ipv6__conf__default__accept_dad=0, ipv6__conf__default__accept_ra=0,
                        ipv6__conf__default__router_solicitations=0)
        batch(self.hosts, f"""
            link set lo up
            link add bridge type bridge stp_state 0 forward_delay 0 mcast_snooping 0
            link add hosts type veth peer name client netns {self.client.name}
            link set hosts master bridge
            link set bridge up
            link set hosts up
        """)
        for tap in self.taps.values():
            self.add_tap(tap)
        batch(self.client, f"""
            link set lo up
            address add {self.client_address}/{self.prefix} dev client
            address add {self.client_address6}/{self.prefix6} dev client nodad
            link set client up
        """)


def batch(namespace: Namespace, commands: str) -> None:
    """Run commands of ip(8) in the namespace, one a line."""
    lines = "".join(f"{line.strip()}\n" for line in commands.strip().splitlines())
    # Not "ip -netns", which would want to mount /sys anew and cannot in a chroot.
    result = subprocess.run(namespace.command(["ip", "-batch", "-"]), input=lines,
                            capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise Failure(f"cannot set up the network: {result.stderr.strip()}")


def _delete(name: str) -> None:
    subprocess.run(["ip", "netns", "delete", name], stderr=subprocess.DEVNULL, check=False)


def sweep() -> None:
    """Remove what processes of ours that are gone have left behind."""
    if not NAMESPACES.is_dir():
        return
    for path in NAMESPACES.iterdir():
        found = NAME.fullmatch(path.name)
        if found and not Path("/proc", found.group(1)).exists():
            _delete(path.name)
