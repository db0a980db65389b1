# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest with one vCPU is not alone: its devices have threads of their own."""

import re
import subprocess
import tempfile
import unittest
from pathlib import Path

from colokit.pairtest import emulator

# What a BIOS loads from a disk, and where to.
BOOT_SECTOR = 512
BOOT_ADDRESS = 0x7c00
SIGNATURE = b"\x55\xaa"

CODE = bytes.fromhex("66 f0 83 06 00 81 00"     # lock addl $0, 0x8100
                     "ba 01 05"                 # mov $0x501, %dx
                     "ee"                       # out %al, (%dx): the test's device ends QEMU
                     "eb fe")                   # jmp .


class BarrierTest(unittest.TestCase):

    def test_locked_instruction_is_atomic(self) -> None:
        """Linux's barrier between what it gives a virtio device and whether that wants to be told is one for TCG, too.

        A barrier that is missing shows once in a million kicks or never. So this
        looks at what TCG makes of the instruction.
        """
        with tempfile.TemporaryDirectory() as directory:
            disk, log = Path(directory, "disk"), Path(directory, "log")
            disk.write_bytes(CODE.ljust(BOOT_SECTOR - len(SIGNATURE), b"\0") + SIGNATURE)
            subprocess.run([emulator(), "-accel", "tcg", "-smp", "1", "-display", "none", "-nodefaults",
                            "-device", "isa-debug-exit", "-drive", f"file={disk},format=raw",
                            "-d", "op", "-dfilter", f"{BOOT_ADDRESS:#x}+{len(CODE):#x}", "-D", log],
                           timeout=60, check=False)
            operations = log.read_text()
        self.assertIn("$0x8100", operations, "the guest's instruction is not in the log")
        self.assertRegex(operations, r"\bcall atomic_\w*add")
        self.assertNotRegex(operations, re.compile(r"^ qemu_st", re.M))


if __name__ == "__main__":
    unittest.main()
