# SPDX-License-Identifier: GPL-2.0-or-later
"""What one of the two QEMUs has and does, as its monitor tells."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .machine import Failure
from .qmp import Monitor
from .virsh import LibvirtMonitor

FILTERS = ("filter-mirror", "filter-redirector", "filter-rewriter", "colo-compare", "colo-proxy")
ENDED = ("failed", "cancelled", "completed")     # migrations that will not become COLO


@dataclass(frozen=True)
class Disk:
    """A disk of the guest that can be replicated: a quorum."""

    device: str                 # its name in the monitor
    replicated: bool            # the primary's writes go to the secondary


def parse_place(where: str) -> Path | tuple[str, int]:
    """A monitor's place: the path of a unix socket, or HOST:PORT."""
    found = re.fullmatch(r"(?:tcp:)?\[?([^/]+?)\]?:(\d+)", where)
    return (found[1], int(found[2])) if found else Path(where.removeprefix("unix:"))


class Node:
    """One QEMU, by its monitor."""

    def __init__(self, where: str, side: str):
        self.side = side
        self.host: str | None = "127.0.0.1"     # as far as the monitor tells
        self.is_here = True             # as it is, of a path or a domain of libvirt's
        if where.startswith("libvirt:"):
            self.monitor = LibvirtMonitor(where.removeprefix("libvirt:"), side)
        else:
            place = parse_place(where)
            if isinstance(place, tuple):
                self.host, self.is_here = place[0], False
            elif not place.exists():
                raise Failure(f"{side}: there is no {place}; start its QEMU with -qmp unix:{place},server=on,wait=off")
            self.monitor = Monitor(place, side)
        self.command = self.monitor.command

    def host_for(self, option: str) -> str:
        """Where the other node finds this one's host; @option says so if the monitor does not."""
        if self.host is None:
            raise Failure(f"the {self.side}'s monitor is one of this machine, and does not tell by what address the other node reaches "
                          f"it: say so with {option}")
        return self.host

    # ------------------------------------------------------------ state

    @property
    def mode(self) -> str:
        """primary, secondary, or none: what it is in COLO now."""
        return self.command("query-colo-status")["mode"]

    @property
    def runs(self) -> bool:
        return self.command("query-status")["running"]

    @property
    def waits(self) -> bool:
        """It was started to become a secondary."""
        return self.command("query-status")["status"] == "inmigrate"

    @property
    def version(self) -> str:
        number = self.command("query-version")["qemu"]
        return f"{number['major']}.{number['minor']}.{number['micro']}"

    def migration(self) -> dict[str, Any]:
        return self.command("query-migrate")

    def incoming(self) -> str | None:
        """Where it takes a migration, as a URI that its peer can use."""
        for address in self.migration().get("socket-address", []):
            if address.get("type") == "inet":
                host = address["host"]
                if host in ("0.0.0.0", "::"):
                    host = self.host_for("--migrate tcp:HOST:PORT")
                return f"tcp:{f'[{host}]' if ':' in host else host}:{address['port']}"
            if address.get("type") == "unix":
                return f"unix:{address['path']}"
        return None

    # ------------------------------------------------------------ the proxy

    def objects(self) -> dict[str, str]:
        """The types of the objects, by name."""
        return {item["name"]: item["type"].removeprefix("child<").removesuffix(">")
                for item in self.command("qom-list", path="/objects")}

    def filters(self) -> dict[str, str]:
        """Those of the COLO proxy."""
        return {name: kind for name, kind in self.objects().items() if kind in FILTERS}

    def proxies(self, mode: str) -> list[str]:
        """The colo-proxy objects of that mode."""
        return [name for name, kind in self.filters().items() if kind == "colo-proxy" and self.get(name, "mode") == mode]

    def get(self, name: str, prop: str) -> Any:
        return self.command("qom-get", path=f"/objects/{name}", property=prop)

    def is_fit(self, side: str) -> bool:
        """It has the objects for that side."""
        kinds = set(self.filters().values())
        whole = "colo-compare" if side == "primary" else "filter-redirector"
        return bool(self.proxies(side)) or whole in kinds

    def counters(self) -> list[dict[str, Any]]:
        return self.command("query-colo-proxy")

    def comparisons(self) -> list[dict[str, Any]]:
        """What its comparing objects count, one for each netdev."""
        return [item.get("compare", item) for item in self.counters() if item["type"] == "colo-compare" or "compare" in item]

    def comparison(self) -> dict[str, Any] | None:
        """The first of these that has lost its secondary, or the first."""
        found = sorted(self.comparisons(), key=lambda each: "secondary-lost" not in each)
        return found[0] if found else None

    # ------------------------------------------------------------ disks

    def disks(self) -> list[Disk]:
        found = [block["device"] for block in self.command("query-block")
                 if block.get("inserted", {}).get("drv") == "quorum"]
        nodes = {node["node-name"] for node in self.command("query-named-block-nodes")}
        return [Disk(device, replica_of(device) in nodes) for device in sorted(found)]

    def unfit_disks(self) -> list[str]:
        """Those that the guest can write to, and that no secondary would hear of."""
        return [block["device"] or block["qdev"] for block in self.command("query-block")
                if "inserted" in block and "qdev" in block and not block["inserted"]["ro"]
                and (block["inserted"]["drv"] != "quorum" or not block["device"])]

    def child_name(self, node: str) -> str | None:
        """As what that node is a child of a quorum."""
        graph = self.command("x-debug-query-block-graph")
        ids = [each["id"] for each in graph["nodes"] if each["name"] == node]
        names = [edge["name"] for edge in graph["edges"] if edge["child"] in ids and edge["name"].startswith("children.")]
        return names[0] if names else None

    def exports(self) -> list[str]:
        """A secondary's images that take the primary's writes: those of no card of the guest's, below a replication."""
        blocks = self.command("query-block")
        return sorted(block["device"] for block in blocks if "inserted" in block and "qdev" not in block
                      and block["inserted"]["drv"] not in ("replication", "quorum"))


def replica_of(device: str) -> str:
    """The name of the primary's node that sends the disk's writes to the secondary."""
    return f"replica-{device}"


def link_of(device: str) -> str:
    """And of the node below it, which is connected to the secondary."""
    return f"link-{device}"
