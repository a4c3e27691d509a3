"""Which accelerator works, found by booting a probe.

``/dev/kvm`` may exist and not work (a paravirtual-only KVM dies at the first emulated
instruction), so a 512-byte boot sector is run: it writes a value to QEMU's debug exit
port, which becomes the exit status.
"""

from __future__ import annotations

import functools
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from hyperbox.errors import HarnessError
from hyperbox.harness.lab.qemu import Qemu
from hyperbox.processes import run

__all__ = ["Accelerator", "probe_kvm"]

# mov al, 0x2a; out 0xf4, al; hlt - then zeros up to the boot signature.
_BOOT_SECTOR = b"\xb0\x2a\xe6\xf4\xf4".ljust(510, b"\0") + b"\x55\xaa"
_EXPECTED_STATUS = (0x2A << 1) | 1


@dataclass(frozen=True)
class Accelerator:
    """Whether KVM works here, and why (not)."""

    kvm: bool
    reason: str


@functools.cache
def probe_kvm(qemu: Qemu) -> Accelerator:
    """Boot the probe under KVM once per process."""
    device = Path("/dev/kvm")
    if not device.exists():
        return Accelerator(kvm=False, reason="/dev/kvm does not exist")
    if not os.access(device, os.R_OK | os.W_OK):
        return Accelerator(kvm=False, reason="/dev/kvm may not be opened by this user")
    with tempfile.NamedTemporaryFile(prefix="hyperbox-probe-") as disk:
        disk.write(_BOOT_SECTOR)
        disk.flush()
        command = [qemu.program, "-accel", "kvm", "-M", "pc", "-m", "16M", "-display", "none"]
        command += ["-nodefaults", "-no-user-config", "-no-reboot"]
        command += ["-device", "isa-debug-exit,iobase=0xf4,iosize=1"]
        command += ["-drive", f"file={disk.name},format=raw,if=ide,readonly=on,snapshot=on"]
        try:
            done = run(command, timeout=20, check=False)
        except HarnessError:
            return Accelerator(kvm=False, reason="the probe did not end within 20 s under KVM")
    if done.status == _EXPECTED_STATUS:
        return Accelerator(kvm=True, reason="the probe booted under KVM")
    said = done.stderr.decode(errors="replace").strip().splitlines()
    detail = said[0] if said else f"exit status {done.status}"
    return Accelerator(kvm=False, reason=f"the probe failed under KVM: {detail}")
