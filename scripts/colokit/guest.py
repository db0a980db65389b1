# SPDX-License-Identifier: GPL-2.0-or-later
"""The test guest: Debian's kernel, busybox and our own small programs.

Nothing is installed for it: the packages are fetched with apt-get download and
unpacked under build/guest/.  The kernel is taken out of its compressed image
and started by the PVH entry, which under TCG saves most of the boot.
"""

from __future__ import annotations

import hashlib
import lzma
import re
import shutil
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

from .machine import BUILD, ROOT, Failure, Progress, as_root, need, output_of, run_logged

SOURCES = ROOT / "tests" / "guest"
DIRECTORY = BUILD / "guest"
PACKAGES = ("busybox-static", "seabios", "qemu-system-data")

# The kernel module of each network card, by the name of QEMU's device.
NIC_MODULES = {
    "virtio-net-pci": "virtio_net",
    "e1000": "e1000",
    "rtl8139": "8139cp",
}
# What a disk needs: of IDE or virtio, with an ext4.
DISK_MODULES = ("ata_piix", "sd_mod", "virtio_blk", "ext4")
# What a module needs without saying so.
SILENT_NEEDS = {"virtio_net": ["virtio_pci"], "virtio_blk": ["virtio_pci"], "ext4": ["crc32c_generic"]}

READY = "GUEST READY"

KERNEL_ARGUMENTS = (
    "console=ttyS0 quiet "
    # Little that happens in a test guest makes a panic less worth seeing.
    "oops=panic printk.time=0 "
    # What costs time at boot under TCG and changes nothing that is tested.
    "mitigations=off tsc=reliable no_timer_check nokaslr audit=0 "
    "random.trust_cpu=on cryptomgr.notests rcupdate.rcu_expedited=1"
)

# Words by which a kernel log tells that something is wrong.
TROUBLE = re.compile(
    r"\bBUG\b|\bOops\b|Kernel panic|WARNING: CPU|Bad page|list_(add|del) corruption|"
    r"general protection fault|segfault|Call Trace|soft lockup|CORRUPT")


@dataclass(frozen=True)
class Guest:
    """The files that QEMU starts the test guest from."""

    kernel: Path
    initrd: Path
    firmware: Path
    content_program: Path

    def arguments(self, device: str, append: str = "") -> list[str]:
        """The part of QEMU's command line that boots this guest."""
        line = f"{KERNEL_ARGUMENTS} nic={NIC_MODULES[device]} {append}".strip()
        return ["-L", str(self.firmware), "-kernel", str(self.kernel),
                "-initrd", str(self.initrd), "-append", line]

    def content_sha256(self, size: int, seed: int = 0) -> str:
        """What /stream/SIZE/SEED must hash to, found without the guest."""
        digest = hashlib.sha256()
        process = subprocess.Popen(
            [self.content_program, "content", str(seed), str(size)], stdout=subprocess.PIPE)
        with process:
            while chunk := process.stdout.read(1 << 20):
                digest.update(chunk)
        if process.returncode != 0:
            raise Failure(f"{self.content_program} content {seed} {size} failed")
        return digest.hexdigest()


def trouble_in(log: str) -> list[str]:
    """The lines of a guest's console that tell of a kernel or a memory gone wrong."""
    return [line for line in log.splitlines() if TROUBLE.search(line)]


def build() -> Guest:
    """Make the guest's files where they are missing or older than their sources."""
    files = Guest(kernel=DIRECTORY / "vmlinux", initrd=DIRECTORY / "initrd",
                  firmware=DIRECTORY / "firmware", content_program=DIRECTORY / "bin" / "guestd")
    stamp = DIRECTORY / "stamp"
    wanted = _fingerprint()
    if stamp.exists() and stamp.read_text() == wanted:
        return files

    need(["gcc", "libc6-dev", "dpkg", "apt"])
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    stamp.unlink(missing_ok=True)
    unpacked = _fetch()
    with Progress("building the guest"):
        _extract_kernel(unpacked, files.kernel)
        _copy_firmware(unpacked, files.firmware)
        _compile(files.content_program.parent)
        _write_initrd(unpacked, files.content_program.parent, files.initrd)
    stamp.write_text(wanted)
    return files


def _fingerprint() -> str:
    digest = hashlib.sha256()
    for path in [Path(__file__), *sorted(SOURCES.iterdir())]:
        digest.update(f"{path.name}\n".encode() + path.read_bytes())
    return digest.hexdigest() + "\n"


# --------------------------------------------------------------- packages

def _fetch() -> Path:
    """Fetch and unpack the Debian packages, once; return where they are."""
    unpacked = DIRECTORY / "packages"
    if unpacked.exists():
        return unpacked
    if not shutil.which("apt-get"):
        raise Failure("the guest is made of Debian's packages, and there is no apt-get here")

    fetched = DIRECTORY / "fetched"
    shutil.rmtree(fetched, ignore_errors=True)
    fetched.mkdir()
    log = BUILD / "log" / "guest.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    download = ["apt-get", "--quiet", "-o", "APT::Sandbox::User=root", "download", *PACKAGES]
    try:
        run_logged([*download, _kernel_package()], log, "fetching the guest's packages", cwd=fetched)
    except Failure:
        # The package lists may be missing, or name a version that is gone.
        run_logged(as_root(["apt-get", "--quiet", "update"]), log, "updating the package lists")
        run_logged([*download, _kernel_package()], log, "fetching the guest's packages", cwd=fetched)

    fresh = DIRECTORY / "packages.new"
    shutil.rmtree(fresh, ignore_errors=True)
    for package in sorted(fetched.glob("*.deb")):
        output_of(["dpkg-deb", "--extract", package, fresh])
    fresh.rename(unpacked)
    shutil.rmtree(fetched)
    return unpacked


def _kernel_package() -> str:
    """The package that linux-image-amd64 stands for at present."""
    depends = output_of(["apt-cache", "depends", "linux-image-amd64"])
    found = re.search(r"Depends: (linux-image-\S+)", depends)
    if not found:
        raise Failure("apt knows no linux-image-amd64; run apt-get update, or add Debian's "
                      "main section to /etc/apt/sources.list")
    return found.group(1)


# --------------------------------------------------------------- parts

def _extract_kernel(unpacked: Path, target: Path) -> None:
    """Take the ELF kernel out of the bzImage (see Linux's Documentation/x86/boot)."""
    images = sorted((unpacked / "boot").glob("vmlinuz-*"))
    if len(images) != 1:
        raise Failure(f"{unpacked}/boot should hold one vmlinuz, not {len(images)}; remove "
                      f"{unpacked} to have it fetched again")
    image = images[0].read_bytes()
    setup_sectors = image[0x1f1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    payload = image[start:start + length]
    if not payload.startswith(b"\xfd7zXZ\0"):
        raise Failure(f"{images[0]} is not compressed with xz; guest.py must learn what it is")
    target.write_bytes(lzma.LZMADecompressor().decompress(payload))


def _copy_firmware(unpacked: Path, target: Path) -> None:
    """What the machine needs to start, in one directory for QEMU's -L."""
    share = unpacked / "usr" / "share"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    for source in ("seabios/bios-256k.bin", "qemu/kvmvapic.bin", "qemu/pvh.bin",
                   "qemu/linuxboot_dma.bin"):
        # Some are links to files of packages that are not needed here.
        shutil.copy(share / source, target)


def _compile(target: Path) -> None:
    target.mkdir(exist_ok=True)
    for source in sorted(SOURCES.glob("*.c")):
        output_of(["gcc", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", "-Werror", "-static", "-s",
                   "-o", target / source.stem, source])


def _module_order(modules: dict[str, Path], name: str) -> list[str]:
    """The module and all it depends on, in the order of loading."""
    if name not in modules:
        return []               # built into the kernel
    found = re.search(rb"\0depends=([^\0]*)\0", modules[name].read_bytes())
    needed = [*SILENT_NEEDS.get(name, []), *(found.group(1).decode().split(",") if found else [])]
    order: list[str] = []
    for other in [*filter(None, needed)]:
        order += [each for each in _module_order(modules, other.replace("-", "_"))
                  if each not in order]
    return [*order, name]


class _Archive:
    """A cpio archive of the kind that the kernel unpacks ("newc")."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.entries = 0

    def add(self, name: str, mode: int, content: bytes = b"", device: tuple[int, int] = (0, 0)):
        self.entries += 1
        fields = (self.entries, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(name) + 1, 0)
        self.data += b"070701" + b"".join(b"%08X" % field for field in fields)
        self.data += name.encode() + b"\0"
        self._pad()
        self.data += content
        self._pad()

    def _pad(self) -> None:
        self.data += bytes(-len(self.data) % 4)


def _write_initrd(unpacked: Path, programs: Path, target: Path) -> None:
    modules = {path.stem.replace("-", "_"): path
               for path in (unpacked / "lib" / "modules").glob("*/kernel/**/*.ko")}
    directory, program, plain, link = 0o040755, 0o100755, 0o100644, 0o120777
    archive = _Archive()
    for name in ("dev", "bin", "modules"):
        archive.add(name, directory)
    archive.add("dev/console", 0o020600, device=(5, 1))
    archive.add("init", program, (SOURCES / "init").read_bytes())
    archive.add("bin/busybox", program, (unpacked / "bin" / "busybox").read_bytes())
    archive.add("bin/sh", link, b"busybox")
    for path in sorted(programs.iterdir()):
        archive.add(f"bin/{path.name}", program, path.read_bytes())

    needs = {nic: [nic] for nic in NIC_MODULES.values()} | {"disk": DISK_MODULES}
    wanted: list[str] = []
    for what, names in needs.items():
        order = list(dict.fromkeys(each for name in names for each in _module_order(modules, name)))
        wanted += [name for name in order if name not in wanted]
        archive.add(f"modules/{what}.order", plain, "".join(f"{name}\n" for name in order).encode())
    for name in wanted:
        archive.add(f"modules/{name}", plain, modules[name].read_bytes())
    archive.add("TRAILER!!!", 0)
    target.write_bytes(archive.data)
