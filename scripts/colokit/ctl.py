# SPDX-License-Identifier: GPL-2.0-or-later
"""scripts/colo-ctl: a guest's protection, from its beginning to its end, in single commands.

Each command looks first at what there is, does what is missing, and takes back what it
has done if it cannot go on.  Giving it twice does no harm.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import secrets
import subprocess
import sys
import time
from typing import Any, Callable

from .diagnose import diagnose
from .machine import Failure, Progress, reporting, wait_until
from .node import ENDED, Disk, Node, link_of, replica_of

STALL_TIMEOUT = 60.0            # s without anything being copied
COLO_TIMEOUT = 30.0             # s for both guests to run once all has been copied
ALONE_TIMEOUT = 30.0
NBD_PORT = 9999
WATCH_TIMEOUT = 5.0             # s in which a monitor must answer
EVENTS = ("COLO_EXIT", "COLO_PROXY_PEER_LOST", "MONITOR_LOST")


class Stall:
    """Something that takes as long as it takes, if only it goes on."""

    def __init__(self, what: str, seconds: float = STALL_TIMEOUT):
        self.what, self.seconds = what, seconds
        self.seen: Any = None
        self.since = 0.0

    def check(self, now: Any) -> None:
        """A Failure if it has been the same, and not None, for too long."""
        if now != self.seen:
            self.seen, self.since = now, time.monotonic()
        elif time.monotonic() - self.since > self.seconds:
            raise Failure(f"{self.what}: nothing has moved for {self.seconds:g} s; what both QEMUs have said tells more")


class Undo:
    """What has been done so far, to be taken back in reverse if the rest fails."""

    def __init__(self) -> None:
        self.steps: list[tuple[str, Callable[[], Any]]] = []

    def __enter__(self) -> "Undo":
        return self

    def note(self, what: str, take_back: Callable[[], Any]) -> None:
        self.steps.append((what, take_back))

    def __exit__(self, kind, value, traceback) -> None:
        if value is None:
            return
        for what, take_back in reversed(self.steps):
            try:
                take_back()
                print(f"taken back: {what}", file=sys.stderr)
            except Failure as failure:
                print(f"could not take back: {what}: {failure}", file=sys.stderr)


# ---------------------------------------------------------------- protect

def protect(primary: Node, secondary: Node, arguments: argparse.Namespace) -> None:
    """Make the secondary the guest's copy.  Disks must be alike; if they are not: resync."""
    if is_protected(primary, secondary):
        print("protected already")
        return
    check_ready(primary, secondary)
    if primary.disks() and primary.runs:
        raise Failure("the guest runs, and has written to its disks what the secondary's lack; use colo-ctl resync, or start the "
                      "primary's QEMU with -S")
    with Undo() as undo:
        replicate(primary, secondary, pairs_of(primary, secondary), arguments, undo)
        migrate(primary, secondary, arguments, undo)
    print("protected; next: colo-ctl status, or colo-ctl watch")


def is_protected(primary: Node, secondary: Node) -> bool:
    return (primary.mode == "primary" and secondary.mode == "secondary"
            and all(each["secondary-connected"] and "secondary-lost" not in each for each in primary.comparisons()))


def check_ready(primary: Node, secondary: Node) -> None:
    if primary.mode != "none":
        raise Failure(f"the primary is in COLO already, as {primary.mode}; if its secondary is gone: colo-ctl failover")
    if not secondary.waits:
        raise Failure("the secondary does not wait for a guest; start its QEMU anew, with -incoming tcp:0.0.0.0:9998")
    if primary.version != secondary.version:
        raise Failure(f"the primary's QEMU is {primary.version}, the secondary's {secondary.version}; both must be the same")
    for node in (primary, secondary):
        if unfit := node.unfit_disks():
            raise Failure(f"the {node.side} has disks that are not replicated: {', '.join(unfit)}; each must be a quorum with an id, or "
                          "read-only: docs/operating.rst")
        if not node.is_fit(node.side):
            raise Failure(f"the {node.side} has no COLO proxy; start it with "
                          f"-object colo-proxy,id=f0,netdev=NETDEV,queue=all,mode={node.side},addr=HOST:PORT"
                          + (", or use colo-ctl resync, which makes one" if node.side == "primary" else ""))


def pairs_of(primary: Node, secondary: Node) -> list[tuple[Disk, str]]:
    """Each disk of the primary, and the secondary's image that takes its writes."""
    disks, exports = primary.disks(), secondary.exports()
    if len(disks) != len(exports):
        raise Failure(f"the primary has {len(disks)} replicated disks ({', '.join(d.device for d in disks) or 'none'}), the "
                      f"secondary images for {len(exports)} ({', '.join(exports) or 'none'}); see docs/operating.rst")
    return list(zip(disks, exports))


def nbd_address(secondary: Node, arguments: argparse.Namespace) -> tuple[str, str]:
    host, _, port = (arguments.nbd or f"{secondary.host_for('--nbd HOST:PORT')}:{NBD_PORT}").rpartition(":")
    return host.strip("[]"), port


def serve_disks(secondary: Node, pairs: list[tuple[Disk, str]], arguments: argparse.Namespace, undo: Undo) -> None:
    """The secondary takes writes for its images."""
    if not pairs:
        return
    served = {export["id"] for export in secondary.command("query-block-exports")}
    if not served:
        host, port = nbd_address(secondary, arguments)
        try:
            secondary.command("nbd-server-start", addr={"type": "inet", "data": {"host": host, "port": port}})
        except Failure as failure:
            raise Failure(f"the secondary cannot serve its disks at {host}:{port}: {failure}; --nbd names another place") from None
        undo.note("the secondary serves its disks", lambda: secondary.command("nbd-server-stop"))
    for _, image in pairs:
        if image not in served:
            secondary.command("nbd-server-add", device=image, writable=True)


def replicate(primary: Node, secondary: Node, pairs: list[tuple[Disk, str]], arguments: argparse.Namespace, undo: Undo) -> None:
    """The primary's writes go to the secondary as well."""
    unreplicate(primary)                # what an earlier secondary has left behind
    if not pairs:
        return
    serve_disks(secondary, pairs, arguments, undo)
    host, port = nbd_address(secondary, arguments)
    for disk, image in pairs:
        node = replica_of(disk.device)
        primary.command("blockdev-add", **{"node_name": node, "driver": "replication", "mode": "primary", "file": {
            "driver": "nbd", "node-name": link_of(disk.device), "export": image,
            "server": {"type": "inet", "host": host, "port": port}}})
        undo.note(f"{disk.device} has a replica", lambda node=node: primary.command("blockdev-del", node_name=node))
        primary.command("x-blockdev-change", parent=disk.device, node=node)
        undo.note(f"{disk.device} is replicated", lambda disk=disk: part(primary, disk.device))


def part(primary: Node, device: str) -> None:
    """
    The disk is written here only: its child that is the replica goes.  A secondary that has fallen silent, and has not been given
    up yet, would have the disk, and then all of QEMU, wait for its answer; so the connection to it is broken first.
    """
    try:
        primary.command("yank", instances=[{"type": "block-node", "node-name": link_of(device)}])
    except Failure:
        pass                            # there is none any more
    if child := primary.child_name(replica_of(device)):
        primary.command("x-blockdev-change", parent=device, child=child)


def unreplicate(primary: Node) -> None:
    for disk in primary.disks():
        if disk.replicated:
            part(primary, disk.device)
            primary.command("blockdev-del", node_name=replica_of(disk.device))


def migrate(primary: Node, secondary: Node, arguments: argparse.Namespace, undo: Undo) -> None:
    uri = arguments.migrate or secondary.incoming()
    if not uri:
        raise Failure("the secondary does not say where it takes the guest; name it with --migrate URI")
    if arguments.checkpoint_delay:
        primary.command("migrate-set-parameters", x_checkpoint_delay=arguments.checkpoint_delay)
    set_colo(secondary, True)       # before 10.0 the primary's word was enough
    set_colo(primary, True)
    undo.note("the primary is set to COLO", lambda: set_colo(primary, False))
    primary.command("migrate", uri=uri)
    undo.note("the copying of the guest", lambda: stop_migration(primary))
    copied = Stall("the copying of the guest's memory")
    started = Stall("both guests running under COLO", COLO_TIMEOUT)
    with Progress("copying the guest's memory") as progress:
        def both_run() -> bool:
            info = primary.migration()
            if info.get("status") in ENDED:
                raise Failure(f"the copying has {info['status']}: {info.get('error-desc', 'see what both QEMUs say')}")
            ram = info.get("ram")
            if ram and ram["total"]:
                progress.update(1 - ram["remaining"] / ram["total"])
            if info.get("status") == "colo":
                started.check("colo")
            elif ram:
                copied.check(ram["transferred"])
            return primary.mode == "primary" and primary.runs and secondary.mode == "secondary" and secondary.runs
        wait_until(both_run, float("inf"), "both guests running under COLO")


def stop_migration(primary: Node) -> None:
    """Whatever stage it is at; afterwards the guest runs as before."""
    if primary.mode == "primary":
        end_colo(primary)
        return
    primary.command("migrate_cancel")
    wait_until(lambda: primary.migration().get("status", "none") in (*ENDED, "none"), ALONE_TIMEOUT, "the end of the migration")


def end_colo(node: Node) -> None:
    node.command("x-colo-lost-heartbeat")
    wait_until(lambda: node.mode == "none" and node.runs, ALONE_TIMEOUT, "the guest running alone")


def set_colo(node: Node, on: bool) -> None:
    node.command("migrate-set-capabilities", capabilities=[{"capability": "x-colo", "state": on}])


# ---------------------------------------------------------------- failover

def failover(node: Node, arguments: argparse.Namespace) -> None:
    """The other one is gone: this one serves alone."""
    mode = node.mode
    if mode == "none" and node.runs:
        unreplicate(node)               # an earlier attempt may have come no further
        if not node.is_fit("primary"):
            remove_redirectors(node)
        print("it serves alone already")
        return
    if mode == "secondary":
        if not arguments.primary_is_dead:
            raise Failure("this would make the secondary serve. Two that serve are worse than none: be sure that the primary is "
                          "dead (fence it), then say so: --primary-is-dead")
        if node.command("query-block-exports"):
            node.command("nbd-server-stop")
    elif mode != "primary":
        raise Failure("this QEMU is not in COLO, and its guest does not run: there is nothing to take over")
    if mode == "primary":
        unreplicate(node)
    end_colo(node)
    set_colo(node, False)
    if mode == "secondary":
        remove_redirectors(node)
    print("it serves alone, unprotected; next: start another secondary, then colo-ctl resync")


def remove_redirectors(node: Node) -> None:
    """Of a secondary's four objects only the rewriter has work left."""
    chardevs = set()
    for name, kind in node.filters().items():
        if kind == "filter-redirector":
            chardevs |= {node.get(name, end) for end in ("indev", "outdev")} - {""}
            node.command("object-del", id=name)
    for chardev in chardevs:
        node.command("chardev-remove", id=chardev)


# ---------------------------------------------------------------- resync

def resync(primary: Node, secondary: Node, arguments: argparse.Namespace) -> None:
    """Copy the disks to a new secondary, then protect."""
    if is_protected(primary, secondary):
        print("protected already")
        return
    with Undo() as undo:
        make_primary(primary, secondary, undo)
        check_ready(primary, secondary)
        pairs = pairs_of(primary, secondary)
        serve_disks(secondary, pairs, arguments, undo)
        mirror(primary, secondary, pairs, arguments, undo)
        replicate(primary, secondary, pairs, arguments, undo)
        migrate(primary, secondary, arguments, undo)
    print("protected; next: colo-ctl status, or colo-ctl watch")


def make_primary(primary: Node, secondary: Node, undo: Undo) -> None:
    """A survivor that was a secondary has no primary's objects yet; the new secondary tells where it will look for them."""
    if primary.is_fit("primary"):
        return
    rewriters = [name for name, kind in primary.filters().items() if kind == "filter-rewriter"]
    if proxies := primary.proxies("secondary"):
        make_proxies(primary, secondary, proxies, undo)
    elif len(rewriters) == 1:
        make_four(primary, secondary, rewriters[0], undo)
    else:
        raise Failure(f"the survivor has {len(rewriters)} filter-rewriters and no colo-proxy: add a primary's objects to it by hand, "
                      "as docs/usage.rst says")


def make_proxies(primary: Node, secondary: Node, old: list[str], undo: Undo) -> None:
    """Each before the one that maps its netdev's connections."""
    theirs = {secondary.get(name, "netdev"): name for name in secondary.proxies("secondary")}
    ours = {primary.get(name, "netdev"): name for name in old}
    if ours.keys() != theirs.keys():
        raise Failure(f"the survivor has a colo-proxy on {', '.join(sorted(ours))}, the new secondary on "
                      f"{', '.join(sorted(theirs)) or 'no netdev'}; they must be the same")
    taken = primary.objects()
    free = (name for number in range(1, 1000) if (name := f"f{number}") not in taken)
    for netdev, mapping in ours.items():
        add_object(primary, undo, next(free), "colo-proxy", netdev=netdev, queue="all", mode="primary",
                   addr=secondary.get(theirs[netdev], "addr"), insert="before", position=f"id={mapping}")


def make_four(primary: Node, secondary: Node, rewriter: str, undo: Undo) -> None:
    """The documentation's objects, by its names; those within the survivor meet at sockets that only it knows."""
    netdev, vnet = primary.get(rewriter, "netdev"), primary.get(rewriter, "vnet_hdr_support")
    addresses = {chardev["label"]: chardev["filename"] for chardev in secondary.command("query-chardev")}
    redirectors = [name for name, kind in secondary.filters().items() if kind == "filter-redirector"]
    listening = {}
    for name, end in (("mirror0", "indev"), ("compare1", "outdev")):
        found = [addresses[chardev] for each in redirectors if (chardev := secondary.get(each, end)) in addresses]
        match = re.search(r"tcp:\[?(.*?)\]?:(\d+)", found[0]) if len(found) == 1 else None
        if not match:
            raise Failure("the new secondary's redirectors do not tell where they look for the primary; their chardevs must be TCP "
                          "sockets that reconnect")
        listening[name] = {"type": "inet", "data": {"host": match[1], "port": match[2]}}
    token = secrets.token_hex(8)
    for name, label in (("compare0", "in"), ("compare_out", "out")):
        listening[name] = {"type": "unix", "data": {"path": f"colo-{label}-{token}", "abstract": True}}
    for name, address in listening.items():
        add_chardev(primary, undo, name, address, True)
    for name, other in (("compare0-0", "compare0"), ("compare_out0", "compare_out")):
        add_chardev(primary, undo, name, listening[other], False)
    place = {"netdev": netdev, "vnet_hdr_support": vnet, "insert": "before", "position": f"id={rewriter}"}
    add_object(primary, undo, "m0", "filter-mirror", queue="tx", outdev="mirror0", **place)
    add_object(primary, undo, "redire0", "filter-redirector", queue="rx", indev="compare_out", **place)
    add_object(primary, undo, "redire1", "filter-redirector", queue="rx", outdev="compare0", **place)
    add_object(primary, undo, "iothread1", "iothread")
    add_object(primary, undo, "comp0", "colo-compare", primary_in="compare0-0", secondary_in="compare1", outdev="compare_out0",
               iothread="iothread1", vnet_hdr_support=vnet)


def add_chardev(node: Node, undo: Undo, name: str, address: dict[str, Any], server: bool) -> None:
    data = {"addr": address, "server": server} | ({"wait": False} if server else {})
    node.command("chardev-add", id=name, backend={"type": "socket", "data": data})
    undo.note(f"the {node.side} has the chardev {name}", lambda: node.command("chardev-remove", id=name))


def add_object(node: Node, undo: Undo, name: str, kind: str, **properties: Any) -> None:
    node.monitor.execute("object-add", {"qom-type": kind, "id": name, **properties})
    undo.note(f"the {node.side} has {name}", lambda: node.command("object-del", id=name))


def mirror(primary: Node, secondary: Node, pairs: list[tuple[Disk, str]], arguments: argparse.Namespace, undo: Undo) -> None:
    """All that the disks hold goes to the secondary; at the end the guest stands still, and both hold the same."""
    if not pairs:
        return
    host, port = nbd_address(secondary, arguments)
    place = f"[{host}]" if ":" in host else host
    jobs = [f"resync-{disk.device}" for disk, _ in pairs]
    unreplicate(primary)
    for job, (disk, image) in zip(jobs, pairs):
        end_job(primary, job)           # of an earlier attempt
        primary.command("drive-mirror", device=disk.device, job_id=job, target=f"nbd://{place}:{port}/{image}",
                        mode="existing", format="raw", sync="full", auto_dismiss=False)
        undo.note(f"{disk.device} is being copied", lambda job=job: end_job(primary, job))
    with Progress("copying the disks") as progress:
        def synced() -> bool:
            found = {job["device"]: job for job in primary.command("query-block-jobs")}
            for job in jobs:
                if job not in found or job_of(primary, job)["status"] == "concluded":
                    raise Failure(f"the copying of the disks has ended too early: {job_of(primary, job).get('error', job)}")
            total = sum(found[job]["len"] for job in jobs)
            progress.update(sum(found[job]["offset"] for job in jobs) / total if total else 1.0)
            return all(found[job]["ready"] for job in jobs)
        wait_until(synced, float("inf"), "the disks")
    if primary.runs:
        primary.command("stop")
        undo.note("the guest stands still", lambda: primary.command("cont"))
    for job in jobs:
        primary.command("block-job-cancel", device=job)
    for job in jobs:
        wait_until(lambda job=job: job_of(primary, job)["status"] == "concluded", ALONE_TIMEOUT, "the end of the disks' copying")
        if error := job_of(primary, job).get("error"):
            raise Failure(f"{job}: {error}")
        primary.command("job-dismiss", id=job)


def job_of(primary: Node, name: str) -> dict[str, Any]:
    return next((job for job in primary.command("query-jobs") if job["id"] == name), {"status": "gone"})


def end_job(primary: Node, job: str) -> None:
    """Whatever it is at."""
    if job_of(primary, job)["status"] == "gone":
        return
    if job_of(primary, job)["status"] != "concluded":
        primary.command("block-job-cancel", device=job, force=True)
        wait_until(lambda: job_of(primary, job)["status"] in ("concluded", "gone"), ALONE_TIMEOUT, f"the end of {job}")
    if job_of(primary, job)["status"] == "concluded":
        primary.command("job-dismiss", id=job)


# ---------------------------------------------------------------- unprotect

def unprotect(primary: Node, secondary: Node | None, _: argparse.Namespace) -> None:
    """End COLO: the guest goes on at the primary, alone; the secondary's QEMU ends."""
    mode = primary.mode
    if mode != "primary" and not (mode == "none" and primary.runs):
        raise Failure("the guest does not run at --primary; nothing has been ended")
    if secondary and secondary.mode == "secondary":
        if mode != "primary":
            raise Failure("that secondary is not this primary's: it may hold a guest that is nowhere else; nothing has been ended")
        secondary.command("quit")
    unreplicate(primary)
    if mode == "primary":
        end_colo(primary)
    set_colo(primary, False)
    print("the guest runs alone, unprotected" + ("" if secondary else "; its secondary's QEMU may be ended"))


# ---------------------------------------------------------------- status

def status_of(node: Node) -> dict[str, Any]:
    comparison = node.comparison()
    facts = {"mode": node.mode, "running": node.runs, "migration": node.migration().get("status", "none"),
             "disks": {disk.device: "replicated" if disk.replicated else "alone" for disk in node.disks()}}
    if comparison:
        facts |= {"comparing": comparison["comparing"], "secondary_connected": comparison["secondary-connected"],
                  "secondary_lost": comparison.get("secondary-lost"), "checkpoints": comparison["checkpoints"],
                  "divergences": {item["reason"]: item["count"] for item in comparison["divergences"] if item["count"]},
                  "held": comparison["held"], "held_max": comparison["held-max"],
                  "hold_times_ms": {key: value / 1e6 for key, value in comparison["hold-times"].items()},
                  "flows": comparison["flows"], "released": comparison["released"]["packets"]}
    return facts


def show(facts: dict[str, dict[str, Any]], before: dict[str, dict[str, Any]], seconds: float) -> str:
    lines = []
    for side, fact in facts.items():
        lines.append(f"{side + ':':<12}{fact['mode'] if fact['mode'] != 'none' else 'not in COLO'}, "
                     f"guest {'runs' if fact['running'] else 'stands still'}, migration {fact['migration']}")
        for disk, how in fact["disks"].items():
            lines.append(f"  {disk:<24}{how}")
        if "comparing" not in fact:
            continue
        lost = f", lost ({fact['secondary_lost']})" if fact["secondary_lost"] else ""
        lines.append(f"  {'secondary':<24}{'connected' if fact['secondary_connected'] else 'not connected'}{lost}")
        lines.append(f"  {'output':<24}{'compared' if fact['comparing'] else 'passes'}, {fact['released']} packets, "
                     f"{fact['held']} held (at most {fact['held_max']})")
        lines.append(f"  {'held for':<24}" + ", ".join(f"{key} {value:.1f} ms" for key, value in fact["hold_times_ms"].items()))
        reasons = ", ".join(f"{reason} {count}" for reason, count in fact["divergences"].items()) or "none"
        lines.append(f"  {'checkpoints':<24}{fact['checkpoints']}; asked for: {reasons}")
        if "checkpoints" in before.get(side, {}):
            rates = [(key, (fact[key] - before[side][key]) / seconds) for key in ("checkpoints", "released")]
            lines.append(f"  {'a second':<24}" + ", ".join(f"{rate:.1f} {key}" for key, rate in rates))
    return "\n".join(lines)


def status(nodes: list[Node], arguments: argparse.Namespace) -> None:
    before: dict[str, dict[str, Any]] = {}
    while True:
        facts = {node.side: status_of(node) for node in nodes}
        if arguments.json:
            print(json.dumps(facts), flush=True)
        else:
            clear = "\033[H\033[2J" if arguments.every and sys.stdout.isatty() else ""
            print(clear + show(facts, before, arguments.every or 1.0), flush=True)
        if not arguments.every:
            return
        before = facts
        time.sleep(arguments.every)


# ---------------------------------------------------------------- watch

def watch(nodes: list[Node], arguments: argparse.Namespace) -> None:
    """A line of JSON for each event, and the command, if there is one; a monitor that has gone is an event, too."""
    print("watching", file=sys.stderr, flush=True)
    while nodes:
        for node in [*nodes]:
            try:
                node.monitor.wait_events(0.5)
                node.command("query-status", WATCH_TIMEOUT)
                found, node.monitor.events = node.monitor.events, []
            except Failure as failure:
                nodes.remove(node)
                found = [*node.monitor.events, {"event": "MONITOR_LOST", "data": {"reason": str(failure)}}]
            for event in found:
                if event["event"] in EVENTS:
                    tell(node, event, arguments.run)
                    if arguments.once:
                        return
    raise Failure("no monitor is left to watch")


def tell(node: Node, event: dict[str, Any], command: str | None) -> None:
    facts = {"side": node.side, "event": event["event"], **event.get("data", {})}
    print(json.dumps(facts), flush=True)
    if command:
        told = {f"COLO_{key.upper()}": str(value) for key, value in facts.items()}
        subprocess.run(command, shell=True, env=os.environ | told, check=False)


# ---------------------------------------------------------------- the command line

def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="colo-ctl",
        description="Protect a guest with COLO, show how it fares, fail over, bring a new secondary in. A MONITOR is the path of "
                    "the unix socket of a QEMU's -qmp, HOST:PORT, or libvirt:DOMAIN. After a failover the survivor is --primary.")
    parser.add_argument("--primary", metavar="MONITOR", help="the monitor of the QEMU whose guest serves")
    parser.add_argument("--secondary", metavar="MONITOR", help="that of the other one")
    commands = parser.add_subparsers(dest="command", required=True)

    starting = argparse.ArgumentParser(add_help=False)
    starting.add_argument("--migrate", metavar="URI", help="where the secondary takes the guest (default: it is asked)")
    starting.add_argument("--nbd", metavar="HOST:PORT", help="where the secondary is to serve its disks (default: the host of its "
                                                             f"monitor, port {NBD_PORT}; needed if only the primary's is on another machine)")
    starting.add_argument("--checkpoint-delay", metavar="MS", type=int,
                          help="after what time without a divergence a checkpoint is made all the same")
    commands.add_parser("protect", parents=[starting], help="make the secondary the guest's copy; disks must be alike")
    commands.add_parser("resync", parents=[starting], help="copy the disks to a new secondary, then protect")
    one = commands.add_parser("failover", help="the other one is gone: let this one serve alone")
    one.add_argument("--primary-is-dead", action="store_true", help="to a secondary: the primary cannot come back, you have seen to it")
    one = commands.add_parser("status", help="how both fare")
    one.add_argument("--json", action="store_true", help="for programs")
    one.add_argument("--every", metavar="SECONDS", type=float, help="again and again")
    commands.add_parser("unprotect", help="end COLO; the guest goes on at the primary")
    commands.add_parser("diagnose", help="what is wrong, or slow, and what to do about it; exit status 1 if anything is")
    one = commands.add_parser("watch", help="tell when one of the two is lost")
    one.add_argument("--run", metavar="COMMAND", help="run this in a shell then, with COLO_SIDE, COLO_EVENT and COLO_REASON set")
    one.add_argument("--once", action="store_true", help="end after the first")

    arguments = parser.parse_args()
    wanted = {"protect": 2, "resync": 2}.get(arguments.command, 1)
    if sum(bool(place) for place in (arguments.primary, arguments.secondary)) < wanted:
        parser.error(f"{arguments.command} needs --primary {'and' if wanted == 2 else 'or'} --secondary")
    if arguments.command == "failover" and arguments.primary and arguments.secondary:
        parser.error("failover is for the survivor: name that one only")
    if arguments.command == "unprotect" and not arguments.primary:
        parser.error("unprotect needs --primary: the guest goes on there")
    return arguments


def main() -> None:
    arguments = parse_arguments()
    with reporting("colo-ctl"):
        primary = Node(arguments.primary, "primary") if arguments.primary else None
        secondary = Node(arguments.secondary, "secondary") if arguments.secondary else None
        nodes = [node for node in (primary, secondary) if node]
        if primary and secondary and secondary.is_here and not primary.is_here:
            secondary.host = None
        if arguments.command in ("protect", "resync"):
            globals()[arguments.command](primary, secondary, arguments)
        elif arguments.command == "failover":
            failover(nodes[0], arguments)
        elif arguments.command == "unprotect":
            unprotect(primary, secondary, arguments)
        elif arguments.command == "diagnose":
            sys.exit(1 if diagnose(nodes) else 0)
        else:
            {"status": status, "watch": watch}[arguments.command](nodes, arguments)


if __name__ == "__main__":
    main()
