# SPDX-License-Identifier: GPL-2.0-or-later
"""What is wrong with a guest's protection, or slow, and what to do about it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Iterator

from .node import Node

LOOK = 3.0                  # s that the counters are watched
MANY_CHECKPOINTS = 2.0      # a second
LONG_HELD = 100.0           # ms that one in a hundred packets waits
ENOUGH = 1000               # packets, to speak of one in a hundred

# Why checkpoints are asked for, and what helps.
REASONS = {
    "payload": "the copies send different bytes: clocks, random numbers, or an order that depends on timing. The last flow tells "
               "which service; if its answers differ by nature (dates, cookies, TLS), checkpoints are what they cost",
    "flags": "one copy begins or ends a connection where the other does not: look for timeouts in that service",
    "options": "the copies answer a SYN with different options: is the kernel the same on both, or the guest just booted?",
    "timeout": "the secondary does not send what the primary has sent: is its host slower, or is its guest starved of processor "
               "time? If it is only slow, raise compare_timeout",
    "ack": "the secondary acknowledges less than the primary: it misses input. Look at the network between the nodes",
    "queue-full": "one copy runs far ahead of the other: raise max_queue_size, or give the slower host more processor time",
    "secondary-reset": "the secondary does not know a connection that the primary has: it misses input, or has run out of room for "
                       "closed connections (many short ones; keep-alive helps)",
    "peer-lost": "the connection to the secondary ended and came back: look at the network between the nodes",
}


@dataclass(frozen=True)
class Finding:
    what: str
    cure: str


def diagnose(nodes: list[Node]) -> bool:
    """Print what is found; whether anything is."""
    findings = [finding for node in nodes for finding in _of_one(node)]
    if len(nodes) == 2:
        findings += _of_both(*nodes)
    findings += _of_counters([node for node in nodes if node.mode != "none"])
    for finding in findings:
        print(f"- {finding.what}\n  {finding.cure}")
    if not findings:
        print("nothing is wrong")
    return bool(findings)


def _of_one(node: Node) -> Iterator[Finding]:
    side, mode, comparison = node.side, node.mode, node.comparison()
    if not node.filters():
        yield Finding(f"the {side} has no object of the COLO proxy",
                      "its QEMU must be started with one: docs/operating.rst")
    elif not node.is_fit(side) and mode != side:
        yield Finding(f"the {side} has objects of the COLO proxy, but not a {side}'s: {', '.join(node.filters())}",
                      "after a failover the survivor is --primary; colo-ctl resync gives it what it lacks")
    if mode == "none" and not node.waits:
        yield Finding(f"the {side} is not in COLO, its guest is not protected",
                      "colo-ctl protect, or after a failover colo-ctl resync; both need a secondary that waits for a guest")
    if node.migration().get("status") == "failed":
        yield Finding(f"the {side}'s last migration has failed: {node.migration().get('error-desc', 'it does not say why')}",
                      "what both QEMUs have said on their standard error tells more; they must have the same devices and netdevs")
    if mode != "none" and not node.runs:
        yield Finding(f"the {side}'s guest stands still",
                      "for a moment that is a checkpoint; if it stays so, the other node may be gone: colo-ctl failover")
    if unfit := node.unfit_disks():
        yield Finding(f"the {side} has disks that are not replicated: {', '.join(unfit)}; the two copies write to them each for itself",
                      "each must be a quorum with an id, or read-only: docs/operating.rst")
    for disk in node.disks():
        if mode == "primary" and not disk.replicated:
            yield Finding(f"the disk {disk.device} is not replicated: after a failover it would hold what it held at the beginning",
                          "colo-ctl unprotect, start another secondary, colo-ctl resync")
    if comparison and comparison.get("secondary-lost"):
        yield Finding(f"the secondary is lost ({comparison['secondary-lost']}); the guest runs unprotected",
                      "colo-ctl failover on the primary, start another secondary, colo-ctl resync")
    elif comparison and mode == "primary" and not comparison["secondary-connected"]:
        yield Finding("the secondary's output does not come: all waits for checkpoints",
                      "look at the network between the nodes, and at what the secondary's QEMU says of its connection")
    if comparison and mode == "primary" and not comparison["comparing"]:
        yield Finding("the guest's output passes without being compared",
                      "the filter is switched off (qom-set its status to on), or the secondary is lost")


def _of_both(primary: Node, secondary: Node) -> Iterator[Finding]:
    if primary.version != secondary.version:
        yield Finding(f"the primary's QEMU is {primary.version}, the secondary's {secondary.version}", "both must be the same")
    if primary.mode == "primary" and secondary.mode == "none":
        yield Finding("the primary is in COLO, this secondary is not: it is another one's, or it has failed over",
                      "if it has, two serve: end one of them at once")
    if primary.runs and primary.mode == "none" and secondary.runs and secondary.mode == "none":
        yield Finding("both guests run, each for itself: two serve the same clients",
                      "end one of the two at once, the one with the older state; then colo-ctl resync")


def _of_counters(nodes: list[Node]) -> Iterator[Finding]:
    """What the counters do while one looks."""
    if not nodes:
        return
    before = [{item["id"]: item for item in node.counters()} for node in nodes]
    compared = [node.comparison() for node in nodes]
    time.sleep(LOOK)
    for node, first in zip(nodes, before):
        for item in node.counters():
            lost = _discarded(item) - _discarded(first.get(item["id"], {}))
            if lost > 0:
                yield Finding(f"{item['id']} on the {node.side} loses packets, {lost / LOOK:.1f} a second: the other end does "
                              "not take them, or is not there", "look at the network between the nodes, and at the other node")
    for node, first in zip(nodes, compared):
        if first and node.mode == "primary":
            yield from _of_comparison(first, node.comparison())


def _discarded(item: dict[str, Any]) -> int:
    """Packets that should have arrived; a comparing object discards what it has compared."""
    return 0 if "compare" in item or item.get("type") == "colo-compare" else item.get("discarded", {"packets": 0})["packets"]


def _of_comparison(first: dict[str, Any], last: dict[str, Any]) -> Iterator[Finding]:
    rate = (last["checkpoints"] - first["checkpoints"]) / LOOK
    if rate > MANY_CHECKPOINTS:
        counts = {item["reason"]: item["count"] for item in first["divergences"]}
        grown = {item["reason"]: item["count"] - counts.get(item["reason"], 0) for item in last["divergences"]}
        reason = max(grown, key=grown.__getitem__, default=None)
        if reason and grown[reason]:
            where = f"; the last in {last['last-flow']}" if "last-flow" in last else ""
            yield Finding(f"{rate:.1f} checkpoints a second, most for the reason {reason}{where}", REASONS[reason])
        else:
            yield Finding(f"{rate:.1f} checkpoints a second, and nobody asked for them: x-checkpoint-delay is short",
                          "raise it: colo-ctl protect --checkpoint-delay 20000, or migrate-set-parameters")
    p99 = last["hold-times"]["p99"] / 1e6
    if p99 > LONG_HELD and last["released"]["packets"] >= ENOUGH:
        yield Finding(f"one in a hundred packets has waited for {p99:.0f} ms and more, since the object was made",
                      "that is the way to the secondary and back, or checkpoints: see the findings above, and ping between the nodes")
