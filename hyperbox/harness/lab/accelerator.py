"""Which accelerator works, found by booting a probe.

``/dev/kvm`` may exist and not work: a paravirtual-only KVM dies at the first emulated
instruction or hangs when the kernel leaves real mode. So two probes are run, the cheap
one first: a 512-byte boot sector that writes to QEMU's debug exit port, which becomes the
exit status; then a real kernel with its initramfs, which says so and powers off.
"""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from pathlib import Path

from hyperbox.errors import HarnessError
from hyperbox.harness.lab.nameless import in_memory, inherited_path
from hyperbox.harness.lab.qemu import KVM_CPU, Qemu
from hyperbox.processes import Completed, run

__all__ = ["Accelerator", "boot_kernel", "boot_probe", "probe_kvm"]

# mov al, 0x2a; out 0xf4, al; hlt - then zeros up to the boot signature.
_BOOT_SECTOR = b"\xb0\x2a\xe6\xf4\xf4".ljust(510, b"\0") + b"\x55\xaa"
_EXPECTED_STATUS = (0x2A << 1) | 1


@dataclass(frozen=True)
class Accelerator:
    """Whether an accelerator works here, and why (not)."""

    works: bool
    reason: str


@functools.cache
def probe_kvm(
    qemu: Qemu, vmlinuz: Path | None = None, initramfs: Path | None = None
) -> Accelerator:
    """Boot the probes under KVM, once per process and kernel.

    Without a kernel only the boot sector is tried: a "no" is then certain, a "yes" not.
    """
    device = Path("/dev/kvm")
    if not device.exists():
        return Accelerator(works=False, reason="/dev/kvm does not exist")
    if not os.access(device, os.R_OK | os.W_OK):
        return Accelerator(works=False, reason="/dev/kvm may not be opened by this user")
    sector = boot_probe(qemu, "kvm")
    if not sector.works or vmlinuz is None or initramfs is None:
        return sector
    return boot_kernel(qemu, "kvm", vmlinuz, initramfs)


def boot_kernel(
    qemu: Qemu, accelerator: str, vmlinuz: Path, initramfs: Path, *, timeout: float = 10.0
) -> Accelerator:
    """Boot a kernel under ``kvm`` or ``tcg`` up to its initramfs; `timeout` in seconds."""
    cpu = KVM_CPU if accelerator == "kvm" else qemu.cpu
    command: list[str | Path] = [
        qemu.program,
        "-accel",
        accelerator,
        "-cpu",
        cpu,
        "-M",
        "pc",
        "-m",
        "256M",
    ]
    command += ["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]
    command += ["-kernel", vmlinuz, "-initrd", initramfs, "-serial", "stdio"]
    command += ["-append", "console=ttyS0 quiet panic=-1 hyperbox.probe"]
    try:
        done = run(command, timeout=timeout, check=False)
    except HarnessError:
        return Accelerator(
            works=False, reason=f"a kernel does not boot under {accelerator} in {timeout:g} s"
        )
    if b"probe booted" in done.stdout:
        return Accelerator(works=True, reason=f"a kernel booted under {accelerator}")
    return _failure(accelerator, done)


def boot_probe(qemu: Qemu, accelerator: str) -> Accelerator:
    """Boot the probe under ``kvm`` or ``tcg`` and say what happened."""
    with in_memory("probe") as disk:
        disk.write(_BOOT_SECTOR)
        command: list[str | Path] = [qemu.program, "-accel", accelerator, "-M", "pc", "-m", "16M"]
        command += ["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]
        command += ["-device", "isa-debug-exit,iobase=0xf4,iosize=1"]
        command += ["-drive", f"file={inherited_path(disk)},format=raw,if=ide,snapshot=on"]
        try:
            done = run(command, timeout=20, check=False, pass_fds=[disk.fileno()])
        except HarnessError:
            return Accelerator(
                works=False, reason=f"the probe did not end within 20 s under {accelerator}"
            )
    if done.status == _EXPECTED_STATUS:
        return Accelerator(works=True, reason=f"the probe booted under {accelerator}")
    return _failure(accelerator, done)


def _failure(accelerator: str, done: Completed) -> Accelerator:
    said = done.stderr.decode(errors="replace").strip().splitlines()
    errors = [line for line in said if "warning:" not in line]
    detail = errors[0] if errors else f"exit status {done.status}"
    return Accelerator(works=False, reason=f"the probe failed under {accelerator}: {detail}")
