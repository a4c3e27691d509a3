"""QEMU's command line and what differs between its versions.

Follows QEMU's invocation manual; FACTS behind the choices: the root is an nvdimm because
virtio-blk makes instruction-counted time random; ``ioeventfd=off`` keeps notifications
inside virtual time; ``cx16=off`` because QEMU 7.2's TCG miscompiles cmpxchg16b.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hyperbox.errors import ConfigError, HarnessError
from hyperbox.files import sha256_file
from hyperbox.harness.lab.protocol import PORT_NAME
from hyperbox.harness.model import Lane, MachineRequest
from hyperbox.processes import require, run

__all__ = [
    "KVM_CPU",
    "QEMU_VARIABLE",
    "Connections",
    "GuestHardware",
    "Qemu",
    "command_line",
    "find_qemu",
]

MEBIBYTE = 1 << 20
QEMU_VARIABLE = "HYPERBOX_QEMU"
"""Environment variable that names another QEMU than the one on PATH."""
KVM_CPU = "host,-arch-capabilities"  # some hosts offer the feature and refuse its MSR
# What a kernel cannot go on measuring after ends it at once, with a report on the console
# (warnings included); an unknown NMI is the host's question what a silent guest is doing.
_TRUST = (
    "loglevel=5 panic=-1 oops=panic softlockup_panic=1 unknown_nmi_panic=1 "
    "sysctl.kernel.hung_task_panic=1 sysctl.kernel.panic_on_rcu_stall=1"
)
KERNEL_COMMAND_LINE = f"console=ttyS0 {_TRUST} psi=1 tsc=reliable random.trust_cpu=on"

# When a guest goes idle, QEMU's main thread lets the clock leap to the next timer. It may see
# the guest halted before the instructions up to there are counted: those come on top (about
# once in 50,000 times on two CPUs). Recording (QEMU: docs/system/replay.rst) keeps the two
# threads apart; nobody wants the record.
_ICOUNT = "shift=0,sleep=off,rr=record,rrfile=/dev/null"


@dataclass(frozen=True)
class Qemu:
    """A QEMU build: its program, version and hash (different builds count differently)."""

    program: Path
    version: tuple[int, int, int]
    sha256: str

    @property
    def version_text(self) -> str:
        """Return the version as ``7.2.22``."""
        return ".".join(map(str, self.version))

    @property
    def cpu(self) -> str:
        """CPU model for emulation, without cmpxchg16b where TCG miscompiles it."""
        return "max,cx16=off" if self.version < (8, 0, 0) else "max"

    @property
    def machine(self) -> str:
        """Machine type; without an HPET where one that the guest has disabled ticks on.

        That costs idle guests CPU time, and hides that they stand still. Seen in 10.0 and
        11.1, not in 7.2.
        """
        hpet = ",hpet=off" if self.version >= (8, 0, 0) else ""
        return f"pc,memory-backend=ram,nvdimm=on{hpet}"

    def migrate_in(self, descriptor: int) -> str:
        """Return the migration address that restores from an inherited file's beginning.

        ``file:`` exists from 8.2 on. ``fd:`` would read from where the descriptor stands.
        """
        if self.version >= (8, 2, 0):
            return f"file:/proc/self/fd/{descriptor}"
        return f"exec:cat /proc/$PPID/fd/{descriptor}"


@dataclass(frozen=True)
class GuestHardware:
    """What a guest is made of; equal hardware and images make equal guests.

    `memory` is in bytes; `images` are read-only files padded to 2 MiB, attached as
    nvdimms; `extra_commandline` is appended to the kernel's command line. For `processors`
    and `mitigations` see `hyperbox.harness.model.MachineRequest`.
    """

    lane: Lane
    vmlinuz: Path
    initramfs: Path
    images: tuple[Path, ...]
    memory: int = MachineRequest.memory_mib * MEBIBYTE
    processors: int = 1
    mitigations: bool = True
    extra_commandline: str = ""

    @property
    def commandline(self) -> str:
        """The kernel's whole command line."""
        parts = (
            KERNEL_COMMAND_LINE,
            "" if self.mitigations else "mitigations=off",
            self.extra_commandline,
        )
        return " ".join(part for part in parts if part)


def find_qemu() -> Qemu:
    """Find qemu-system-x86_64 and ask its version.

    ``HYPERBOX_QEMU`` names the program, by path or by a name on PATH. It may be a script
    that runs a QEMU unpacked elsewhere, if it ends in ``exec``. A script's hash does not
    change with what it runs, so what it says of its build goes into the hash as well.

    Raises
    ------
    MissingDependency
        If it is not installed.
    ConfigError
        If ``HYPERBOX_QEMU`` names no program.
    HarnessError
        If its version cannot be understood.
    """
    return _examined(_program())


def _program() -> Path:
    named = os.environ.get(QEMU_VARIABLE)
    if not named:
        return Path(require("qemu-system-x86_64", "qemu-system-x86"))
    found = shutil.which(named)
    if found is None:
        raise ConfigError(
            f"{QEMU_VARIABLE} names no program: {named}",
            hint="use the path of a qemu-system-x86_64, or unset it",
        )
    return Path(found).absolute()


@functools.cache
def _examined(program: Path) -> Qemu:
    text = run([program, "--version"], timeout=30).text()
    match = re.search(r"version (\d+)\.(\d+)\.(\d+)", text)
    if match is None:
        raise HarnessError(f"{program} --version says nothing usable: {text[:80]!r}")
    major, minor, micro = (int(part) for part in match.groups())
    return Qemu(program, (major, minor, micro), _build_hash(program, text))


def _build_hash(program: Path, version: str) -> str:
    """Return the program's SHA-256; of a script, that of it and what it says it runs."""
    with program.open("rb") as stream:
        script = stream.read(2) == b"#!"
    digest = sha256_file(program)
    if not script:
        return digest
    return hashlib.sha256(f"{digest}\n{version}".encode()).hexdigest()


@dataclass(frozen=True)
class Connections:
    """Where a guest's ends are on the host: files, and descriptors that QEMU inherits."""

    serial_log: Path
    mailbox: Path
    agent_fd: int
    monitor_fd: int


def command_line(
    qemu: Qemu,
    hardware: GuestHardware,
    *,
    ram_file: Path,
    ram_shared: bool,
    connections: Connections,
    incoming: bool,
) -> list[str]:
    """Return the command line of a guest.

    `ram_shared` writes the guest's memory through to `ram_file` (to make a snapshot);
    otherwise the file is mapped copy-on-write (a clone). `incoming` starts stopped and
    waits for a migration.
    """
    if hardware.lane is Lane.EXACT and hardware.processors > 1:
        raise ConfigError(
            f"the exact lane has one processor, not {hardware.processors}",
            hint="use the fast lane, or KVM",
        )
    words = [str(qemu.program), *_accelerator(qemu, hardware.lane)]
    words += ["-M", qemu.machine, "-smp", str(hardware.processors)]
    most = max(8 << 10, hardware.memory // MEBIBYTE + (4 << 10))  # of which images take some
    words += ["-m", f"{hardware.memory // MEBIBYTE}M,slots=16,maxmem={most}M"]
    share = "on" if ram_shared else "off"
    backend = f"memory-backend-file,id=ram,size={hardware.memory},mem-path={_value(ram_file)}"
    words += ["-object", f"{backend},share={share}"]
    words += ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
    # Notified of a panic, QEMU only sends an event: the guest goes on to the end of its report.
    words += ["-device", "pvpanic", "-action", "panic=none"]
    words += ["-global", "migration.send-configuration=off"]  # see `migration`
    words += ["-seed", "1", "-rtc", "base=2030-01-01T00:00:00,clock=vm"]
    words += ["-kernel", str(hardware.vmlinuz), "-initrd", str(hardware.initramfs)]
    words += ["-append", hardware.commandline]
    words += [
        "-chardev",
        f"file,id=serial,path={_value(connections.serial_log)}",
        "-serial",
        "chardev:serial",
    ]
    words += ["-device", "pvpanic-pci"]  # to stop the guest where it says so
    words += ["-device", "virtio-serial-pci,ioeventfd=off"]
    words += ["-chardev", f"socket,id=agent,fd={connections.agent_fd}"]
    words += ["-device", f"virtserialport,chardev=agent,name={PORT_NAME}"]
    words += ["-chardev", f"socket,id=qmp,fd={connections.monitor_fd}", *_monitor(qemu)]
    for index, image in enumerate((*hardware.images, connections.mailbox)):
        words += _nvdimm(index, image)
    return words + (["-incoming", "defer", "-S"] if incoming else [])


def _accelerator(qemu: Qemu, lane: Lane) -> Sequence[str]:
    if lane is Lane.EXACT:
        return ("-accel", "tcg,tb-size=512", "-icount", _ICOUNT, "-cpu", qemu.cpu)
    if lane is Lane.FAST:
        return ("-accel", "tcg,thread=multi,tb-size=512", "-cpu", qemu.cpu)
    if lane is Lane.KVM:
        return ("-accel", "kvm", "-cpu", KVM_CPU)
    raise HarnessError(f"lane {lane} is not a virtual machine's")


def _monitor(qemu: Qemu) -> Sequence[str]:
    if qemu.version >= (11, 0, 0):
        return ("-object", "monitor-qmp,id=monitor,chardev=qmp")
    return ("-mon", "chardev=qmp,mode=control")


def _value(path: Path) -> str:
    """Return a path as a value among QEMU's options: commas doubled (qemu(1), "-drive file")."""
    return str(path).replace(",", ",,")


def _nvdimm(index: int, image: Path) -> Sequence[str]:
    size = image.stat().st_size
    if size % (2 * MEBIBYTE):
        raise HarnessError(f"image {image} is not padded to 2 MiB ({size} bytes)")
    backend = f"memory-backend-file,id=image{index},share=on,readonly=on"
    return (
        "-object",
        f"{backend},mem-path={_value(image)},size={size}",
        "-device",
        f"nvdimm,id=nvdimm{index},memdev=image{index},unarmed=on",
    )
