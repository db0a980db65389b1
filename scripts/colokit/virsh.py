# SPDX-License-Identifier: GPL-2.0-or-later
"""A QEMU's monitor by way of libvirt, which has it already."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import Any

from .machine import Failure
from .qmp import TIMEOUT, Commands


class LibvirtMonitor(Commands):
    """What qmp.Monitor does, for a domain; which libvirt, says LIBVIRT_DEFAULT_URI, as for virsh itself."""

    def __init__(self, domain: str, name: str):
        if not shutil.which("virsh"):
            raise Failure("virsh is not installed: apt-get install libvirt-clients")
        self.domain, self.name = domain, name
        self.events: list[dict[str, Any]] = []
        self.execute("query-status", {})

    def execute(self, name: str, arguments: dict[str, Any], timeout: float = TIMEOUT) -> Any:
        request = json.dumps({"execute": name, "arguments": arguments})
        try:
            result = subprocess.run(["virsh", "--quiet", "qemu-monitor-command", self.domain, request], capture_output=True,
                                    text=True, timeout=timeout, check=False)
        except subprocess.TimeoutExpired:
            raise Failure(f"{self.name}: no answer to {name} within {timeout:g} s") from None
        if result.returncode:
            raise Failure(f"{self.name}: {name}: {result.stderr.strip()}")
        reply = json.loads(result.stdout)
        if "error" in reply:
            raise Failure(f"{self.name}: {name}: {reply['error'].get('desc', reply['error'])}")
        return reply["return"]

    def wait_events(self, timeout: float) -> bool:
        """Libvirt hands QEMU's events on to one that waits for them only; it is asked for that long."""
        result = subprocess.run(["virsh", "qemu-monitor-event", self.domain, "--regex", "--event", "^COLO_", "--timeout",
                                 str(max(1, round(timeout)))], capture_output=True, text=True, check=False)
        for line in result.stdout.splitlines():
            # event COLO_EXIT at 1700000000.123456 for domain 'name': {"mode":"primary",...}
            words = line.split()
            if words[:1] == ["event"]:
                _, _, data = line.partition("': ")
                self.events.append({"event": words[1], "data": json.loads(data or "{}")})
        return bool(self.events)
