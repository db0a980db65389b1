# SPDX-License-Identifier: GPL-2.0-or-later
"""The procedure of the host's docs/COLO-FT.txt, taken from there word by word, and run.

    with Network() as network, Procedure(emulator, network) as nodes:
        nodes.start()                       # steps 1 to 4: a guest with a disk, protected
        nodes.primary.kill()
        nodes.run("Secondary Failover")     # on the survivor, whichever it is
        nodes.resume()                      # the survivor is protected in its turn

What a command needs to run here is put in its place: the accelerator, the tap, the
monitor's socket, the guest's kernel, a disk that is small; and where the document goes on
while the disk's mirror still ends, its end is waited for.  The rest is the document's.
With proxy, one colo-proxy on each side takes the place of the document's filters.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .couple import Couple
from .machine import Failure, need, output_of, wait_until
from .network import Network
from .pair import MIRROR_PORT
from .process import Qemu

DISK_SIZE = 256 << 20
SYNC_TIMEOUT = 120.0
NBD_PORT = 9999         # the document's
PACKAGES = ("e2fsprogs",)

# What takes the place of the document's words; the first is a whole option with its value.
QEMU_OPTIONS = {"-enable-kvm": ["-accel", "tcg"], "-qmp": [], "-netdev": [], "-cpu": ["-cpu", "qemu64"],
                "-m": ["-m", "192"]}
FLAGS = ("-enable-kvm", "-S")           # those that have no value


@dataclass(frozen=True)
class Step:
    """A line of the document: a shell's command, a monitor's, or words."""

    shell: str = ""
    request: dict[str, Any] | None = None
    words: str = ""


class Document:
    """The steps under each of its titles."""

    def __init__(self, path: Path):
        self.path = path
        self.sections: dict[str, list[Step]] = {}
        title = ""
        for line in self._lines(path.read_text(encoding="utf-8")):
            if found := re.fullmatch(r"== (.*) ==|(\d\. [^,]*\b(?:Primary|Secondary)\b.*)", line):
                title = found[1] or found[2].strip(":")
                self.sections[title] = []
            elif title and line.startswith("# "):
                self.sections[title].append(Step(shell=line[2:]))
            elif title and line.startswith("{"):
                self.sections[title].append(Step(request=json.loads(line)))
            elif title and line:
                self.sections[title].append(Step(words=line))

    @staticmethod
    def _lines(text: str) -> list[str]:
        """Without the breaks that a backslash takes back: an option that is cut goes on at the left edge."""
        return re.sub(r"\\\n", "", text).splitlines()

    def steps(self, title: str) -> list[Step]:
        """Under the first title that contains these words."""
        for each, steps in self.sections.items():
            if title in each and any(step.shell or step.request for step in steps):
                return steps
        raise Failure(f"{self.path} has nothing to do under '{title}'")


def _source_of(emulator: Path) -> Path:
    """The source tree of a QEMU in its build directory."""
    settings = emulator.parent / "config-host.mak"
    found = re.search(r"^SRC_PATH=(.+)$", settings.read_text(), re.M) if settings.exists() else None
    if not found:
        raise Failure(f"{emulator} is in no build directory of QEMU's, and the procedure is taken from the documentation of the source tree; "
                      "name one that scripts/build-qemu has built")
    return Path(found[1])


class Procedure(Couple):
    """Two nodes, each with a directory for its images; the document is that of the tree which @emulator was built in."""

    def __init__(self, emulator: Path, network: Network, proxy: bool = False):
        super().__init__(emulator, network)
        self.proxy = proxy
        self.document = Document(_source_of(self.emulator) / "docs/COLO-FT.txt")
        self.started = 0

    def __enter__(self) -> "Procedure":
        need(PACKAGES)
        return self

    # ------------------------------------------------------------ the whole

    def launch(self) -> None:
        """Steps 1 and 2: two QEMUs."""
        self._make_disk()
        self.primary = self._launch("primary")
        self.launch_secondary()

    def start(self) -> None:
        """Steps 1 to 4, and until the guest serves."""
        self.launch()
        self._run(self.secondary, self.document.steps("On Secondary"))
        self._run(self.primary, self.document.steps("On Primary"))
        self.wait_protected()
        self.wait_ready()

    def fail_over(self) -> None:
        """One of the two has been killed: the other one goes on alone, as documented for it."""
        survivor = self.survivor()
        self._run(survivor, self.document.steps(f"{survivor.role.title()} Failover"))
        self.wait_alone(survivor)
        self.note_failover(survivor)

    def resume(self) -> None:
        """The survivor, which is the primary now, is given a secondary on the other node."""
        was_secondary = "secondary" in self.primary.console_path.name
        self.launch_secondary()
        self._run(self.secondary, self.document.steps("On Secondary"))
        self._run(self.primary, self.document.steps(f"{'Secondary' if was_secondary else 'Primary'} resume"))
        self.wait_protected()

    def situation(self) -> str:
        """What each side and the client would say, for one who has to find out why nothing moves."""
        told = [f"logs: {self.directory}"]
        for qemu in self.processes():
            told.append(f"{qemu.role}, started as {qemu.console_path.stem}: {qemu.end(0)}")
            if qemu.alive:
                with contextlib.suppress(Failure):
                    told += [f"  {command}: {json.dumps(qemu.monitor.command(command))}"
                             for command in ("query-status", "query-colo-status", "query-migrate", "query-block-jobs")]
                    told += [f"  {line}" for command in ("info blockstats", "info colo-proxy")
                             for line in qemu.monitor.human(command).splitlines()]
            told += [f"  console: {line}" for line in qemu.console().splitlines()[-3:]]
        told += output_of(self.network.client.command(["ss", "-Htnoi", "state", "established"])).splitlines()
        return "\n".join(told)

    # ------------------------------------------------------------ disks

    def images(self, role: str) -> Path:
        """The role's node has its images here."""
        path = self.directory / self.hosts[role].address
        path.mkdir(exist_ok=True)
        return path

    def _qemu_img(self, *words: str | Path) -> None:
        output_of([self.emulator.parent / "qemu-img", *words])

    def _make_disk(self) -> None:
        """An empty file system, a copy of it on each node."""
        raw = self.directory / "empty.raw"
        with open(raw, "wb") as file:
            file.truncate(DISK_SIZE)
        output_of(["mkfs.ext4", "-q", raw])
        for role in self.hosts:
            self._qemu_img("convert", "-f", "raw", "-O", "qcow2", raw, self.images(role) / "primary.qcow2")
        raw.unlink()

    def read_disk(self) -> Path:
        """The primary's disk as a raw image, as it stands while the guest is stopped for a moment."""
        monitor, raw = self.primary.monitor, self.directory / "disk.raw"
        socket = self.directory / "nbd.sock"
        socket.unlink(missing_ok=True)
        raw.unlink(missing_ok=True)
        monitor.command("stop")
        try:
            monitor.command("nbd-server-start", addr={"type": "unix", "data": {"path": str(socket)}})
            monitor.command("nbd-server-add", device="colo-disk0")
            self._qemu_img("convert", "-O", "raw", f"nbd+unix:///colo-disk0?socket={socket}", raw)
            monitor.command("nbd-server-stop")
        finally:
            monitor.command("cont")
        return raw

    def files_on_disk(self) -> dict[int, bytes]:
        """What the primary's disk holds; a Failure if its file system is not clean, its journal replayed."""
        raw = self.read_disk()
        subprocess.run(["e2fsck", "-E", "journal_only", "-p", raw], capture_output=True, check=False)
        result = subprocess.run(["e2fsck", "-f", "-n", raw], capture_output=True, text=True, check=False)
        if result.returncode:
            raise Failure(f"the file system on the {self.primary.role}'s disk is not clean:\n{result.stdout}")
        target = self.directory / "files"
        target.mkdir(exist_ok=True)
        for old in target.iterdir():
            old.unlink()
        listing = output_of(["debugfs", "-R", "ls -p /", raw])
        names = [name for name in re.findall(r"^/\d+/\d+/\d+/\d+/(\d+)/\d+/$", listing, re.M)]
        script = self.directory / "debugfs"
        script.write_text("".join(f"dump /{name} {target / name}\n" for name in names))
        output_of(["debugfs", "-f", script, raw])
        return {int(name): (target / name).read_bytes() for name in names}

    # ------------------------------------------------------------ the document's commands

    def launch_secondary(self) -> None:
        """Step 2."""
        for step in self.document.steps("2. Secondary"):
            if step.shell.startswith("qemu-img "):
                words = self._words(step.shell, "secondary")
                self._qemu_img(*words[1:-1], str(DISK_SIZE))
        self.secondary = self._launch("secondary")

    def _words(self, command: str, role: str) -> list[str]:
        command = command.replace("$imagefolder", str(self.images(role)))
        return shlex.split(command.replace("$primary_ip", self.hosts["primary"].address))

    def _launch(self, role: str) -> Qemu:
        step = next(step for step in self.document.steps(f"{'1. Primary' if role == 'primary' else '2. Secondary'}")
                    if step.shell.startswith("qemu-system"))
        self.started += 1
        path = self.directory / f"{role}-{self.started}"
        command = [str(self.emulator), "-nodefaults", "-no-user-config", "-display", "none",
                   "-serial", f"file:{path}.console", "-qmp", f"unix:{path}.qmp,server=on,wait=off",
                   "-qmp", f"unix:{path}.probe,server=on,wait=off", "-D", f"{path}.trace",
                   *self.guest.arguments("rtl8139", f"{self.network.guest_arguments()} disk=sda"),
                   "-netdev", f"tap,id=hn0,vhost=off,ifname={self.hosts[role].tap},script=no,downscript=no"]
        words = iter(self._words(step.shell, role)[1:])
        for option in words:
            value = [] if option in FLAGS else [next(words)]
            if option == "-device" and value[0].startswith("rtl8139"):
                value = [f"{value[0]},mac={self.network.guest_mac},romfile="]
            if self.proxy and option in ("-chardev", "-object"):
                continue
            command += QEMU_OPTIONS.get(option, [option, *value])
        if self.proxy:
            command += ["-object", self._colo_proxy(role)]
        return Qemu(role, path, self.network.hosts, command, os.sched_getaffinity(0))

    def _colo_proxy(self, role: str) -> str:
        return f"colo-proxy,id=f{self.started},netdev=hn0,queue=all,mode={role},addr={self.hosts['primary'].address}:{MIRROR_PORT}"

    def _run(self, qemu: Qemu, steps: list[Step]) -> None:
        added = False
        for step in steps:
            if step.words.startswith("Wait until disk is synced"):
                self._wait_synced(qemu)
            if not step.request or step.request["execute"] == "qmp_capabilities":
                continue
            name, arguments = step.request["execute"], self._here(step.request.get("arguments", {}))
            if self.proxy and name.startswith(("chardev-", "object-")):
                if name == "object-add" and not added:
                    added = True
                    self._add_colo_proxy(qemu)
                continue
            said = qemu.monitor.execute(name, arguments)
            if isinstance(said, str) and "rror" in said:
                raise Failure(f"{qemu.role}: {arguments}: {said.strip()}")
            if name == "block-job-cancel":
                # It still changes the graph that the next steps change.
                wait_until(lambda: not qemu.monitor.command("query-block-jobs"), 30, "the end of the disk's mirror")

    def _add_colo_proxy(self, qemu: Qemu) -> None:
        """In place of the filters that a survivor gets: before the one that maps its connections, if there is one."""
        there = [item["name"] for item in qemu.monitor.command("qom-list", path="/objects")
                 if item["type"] == "child<colo-proxy>"]
        primaries = [name for name in there
                     if qemu.monitor.command("qom-get", path=f"/objects/{name}", property="mode") == "primary"]
        for name in primaries:
            qemu.monitor.command("object-del", id=name)
        mapping = [name for name in there if name not in primaries]
        self.started += 1
        what = self._colo_proxy("primary") + (f",insert=before,position=id={mapping[0]}" if mapping else "")
        if said := qemu.monitor.human(f"object_add {what}"):
            raise Failure(f"{qemu.role}: {what}: {said.strip()}")

    def _here(self, arguments: Any) -> Any:
        """The other node's address for the one that the document has for it, wherever that is the target."""
        text = json.dumps(arguments)
        target = self.hosts["secondary"].address
        text = re.sub(r"(nbd://|tcp:|file\.host=)127\.0\.0\.[12]", rf"\g<1>{target}", text)
        return json.loads(text)

    def _wait_synced(self, qemu: Qemu) -> None:
        def ready() -> bool:
            jobs = qemu.monitor.command("query-block-jobs")
            if not jobs:
                raise Failure("the disk is not being mirrored any more")
            return jobs[0]["ready"]
        wait_until(ready, SYNC_TIMEOUT, "the disk's mirror")

