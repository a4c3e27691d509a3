"""What the verbs that boot a guest for people share: options, preparation, bad news."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hyperbox.errors import ConfigError, HarnessError
from hyperbox.harness.lab.kernel_kit import KernelKit
from hyperbox.harness.lab.kernel_lock import read_matrix
from hyperbox.harness.lab.kernel_selectors import chosen_kernels, expand_kernels
from hyperbox.harness.lab.layers import named_layers
from hyperbox.harness.lab.qemu import find_qemu
from hyperbox.harness.lab.session import keep_console
from hyperbox.harness.lab.vm_laboratory import choose_lane
from hyperbox.harness.model import LEAST_MEMORY_MIB, Lane, MachineRequest
from hyperbox.harness.runs.progress import ProgressDisplay
from hyperbox.printing import complain

__all__ = [
    "Prepared",
    "add_memory",
    "add_options",
    "asked_kernels",
    "exit_status",
    "lost",
    "pair",
    "prepare",
    "progress",
    "standard_input",
    "to_stderr",
    "to_stdout",
]

KERNEL_HELP = (
    "series such as 6.12, set, packaged version such as 6.12.90, path of a bzImage, or host "
    "for the kernel that runs here"
)


@dataclass(frozen=True)
class Prepared:
    """Kernels ready to boot, and how."""

    kits: Sequence[KernelKit]
    lane: Lane
    machine: MachineRequest
    layers: Sequence[str] = ()


def add_options(parser: argparse.ArgumentParser, *, several: bool) -> None:
    """Add what says which kernel runs in which guest."""
    again = "; may be repeated" if several else ""
    parser.add_argument(
        "--kernel",
        action="append" if several else "store",
        metavar="KERNEL",
        help=f"{KERNEL_HELP}{again} (default: the newest series)",
    )
    parser.add_argument(
        "--modules",
        type=Path,
        metavar="DIR",
        help="modules of the bzImage: a lib/modules/RELEASE directory",
    )
    parser.add_argument(
        "--lane",
        choices=("fast", "exact", "kvm", "auto"),
        default="fast",
        help="how time passes in the guest: fast is the host's time, emulated; exact counts "
        "instructions; auto is kvm where it works (default: fast)",
    )
    add_memory(parser)
    parser.add_argument(
        "--cpus",
        type=_processors,
        metavar="N",
        default=MachineRequest.processors,
        help="the guest's processors; more than one not in the exact lane (default: 1)",
    )
    parser.add_argument(
        "--without-module",
        action="append",
        default=[],
        metavar="NAME",
        help="a module that the kernel shall not have; may be repeated",
    )
    parser.add_argument(
        "--layer",
        action="append",
        default=[],
        metavar="NAME",
        help="what the guest has beside its root, such as redis or gcc; may be repeated "
        "(declared in vm-images/layers.toml)",
    )


def add_memory(parser: argparse.ArgumentParser) -> None:
    """Add ``--memory``."""
    parser.add_argument(
        "--memory", type=_memory, metavar="MIB", help="the guest's memory in MiB (default: 768)"
    )


def asked_kernels(arguments: argparse.Namespace) -> Sequence[str]:
    """Return the names of the kernels that the options ask for; ConfigError if one is unknown."""
    asked = arguments.kernel or read_matrix().labels()[-1]
    return expand_kernels([asked] if isinstance(asked, str) else asked)


def prepare(arguments: argparse.Namespace) -> Prepared:
    """Fetch and build what the options ask for; shows progress if it takes a while."""
    names, layers = asked_kernels(arguments), named_layers(arguments.layer)
    if arguments.modules is not None and not any(os.sep in name for name in names):
        raise ConfigError(
            "--modules are those of a bzImage, and no --kernel names one",
            hint="a packaged kernel has its own",
        )
    find_qemu()
    with progress() as step:
        kits = [one.kit for one in chosen_kernels(names, arguments.modules, step)]
    for kit in kits:
        for remark in kit.remarks:
            if "lacks drivers" not in remark:
                complain(f"hyperbox: note: kernel {kit.label}: {remark}")
    lane = choose_lane(arguments.lane, kits).lane
    if lane is Lane.EXACT and arguments.cpus > 1:
        raise ConfigError("the exact lane has one processor", hint="use --lane fast or kvm")
    machine = MachineRequest(
        memory_mib=arguments.memory or MachineRequest.memory_mib,
        processors=arguments.cpus,
        without_modules=tuple(arguments.without_module),
    )
    return Prepared(kits, lane, machine, layers)


@contextlib.contextmanager
def progress() -> Iterator[Callable[[str, float], None]]:
    """Show steps on standard error; where that is not a terminal, all but the boot."""
    with ProgressDisplay() as display:

        def quiet(text: str, fraction: float) -> None:
            if not text.startswith("booting"):
                display.step(text, fraction)

        yield display.step if display.console.is_terminal else quiet


def lost(label: str, error: HarnessError) -> HarnessError:
    """Return the error with the kernel, the crash's fingerprint and where the console is."""
    text = f"kernel {label}: {error.message}"
    if error.fingerprint:
        text += f" [{error.fingerprint}]"
    if error.console:
        try:
            text += f"; console: {keep_console(label, error.console)}"
        except HarnessError as unkept:  # must not hide why the machine is lost
            text += f"; its console is lost: {unkept.message}"
    return HarnessError(text, hint=error.hint)


def pair(text: str, option: str, *, last: bool) -> tuple[str, str]:
    """Split at the colon beside the guest's path: a name on the host may have colons."""
    one, colon, other = text.rpartition(":") if last else text.partition(":")
    if not (one and colon and other):
        form = "FILE:PATH" if last else "PATH:FILE"
        raise ConfigError(f"{option} takes {form}, not {text!r}")
    return one, other


def exit_status(status: int) -> int:
    """Return a command's status as shells do: 128 and more for a signal."""
    return 128 - status if status < 0 else status


def _processors(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text[:4]) > 0):
        raise ConfigError(f"--cpus must be a whole number from 1 up, not {text!r}")
    return int(text[:4])


def _memory(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < LEAST_MEMORY_MIB:
        raise ConfigError(
            f"--memory must be a whole number from {LEAST_MEMORY_MIB} up, not {text!r}"
        )
    return number


def standard_input() -> io.FileIO | None:
    """Return what is piped into hyperbox, unbuffered; None if it is closed or a directory."""
    try:
        return io.FileIO(0, closefd=False)
    except OSError:
        return None


def to_stdout(data: bytes) -> None:
    """Pass output of a guest on at once."""
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def to_stderr(data: bytes) -> None:
    """Pass error output of a guest on at once."""
    sys.stderr.buffer.write(data)
    sys.stderr.buffer.flush()
