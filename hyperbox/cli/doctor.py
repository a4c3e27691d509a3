"""``hyperbox doctor``: what this machine can do, what is missing, and what to do."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path

from rich.table import Table
from rich.text import Text

from hyperbox.console import TerminalConsole
from hyperbox.errors import ExitCode, HarnessError, HyperboxError
from hyperbox.harness.lab.accelerator import probe_kvm
from hyperbox.harness.lab.capacity import free_memory
from hyperbox.harness.lab.kernel_kit import cached_kits
from hyperbox.harness.lab.kernel_lock import read_matrix
from hyperbox.harness.lab.qemu import QEMU_VARIABLE, find_qemu
from hyperbox.harness.lab.user_namespace import need_namespace
from hyperbox.journal import UndoOutcome
from hyperbox.linux.undo import KINDS
from hyperbox.paths import cache_directory, project_directory
from hyperbox.printing import one_line
from hyperbox.processes import require
from hyperbox.repair import Repair, damage, repair

__all__ = ["Check", "add_parser", "checks"]

_PROGRAMS = (
    ("setpriv", "util-linux", "starts every process"),
    ("mmdebstrap", "mmdebstrap", "builds the guest's root"),
    ("mkfs.erofs", "erofs-utils", "packs the guest's file systems"),
    ("depmod", "kmod", "indexes a kernel's modules"),
    ("apt-get", "apt", "fetches kernels"),
    ("xz", "xz-utils", "unpacks kernel modules"),
)
_OPTIONAL_PROGRAMS = (("stress-ng", "stress-ng", "loads the host in host-target runs"),)
_GIB = 1 << 30
_CACHE_MEND = "set HYPERBOX_CACHE to a writable directory on a disk with room"


@dataclass(frozen=True)
class Check:
    """One thing looked at: whether it is fine, what was seen, and what to do about it.

    `required` things are needed by `hyperbox validate` with its default settings.
    """

    name: str
    fine: bool
    required: bool
    detail: str
    hint: str = ""


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "doctor",
        help="say what this machine can do and what is missing",
        description="Looks at everything that a validation needs. Exit code 3 if something "
        "required is missing or a change cannot be undone.",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--repair",
        action="store_true",
        help="undo what killed runs changed on this machine, and remove what they left "
        "half-written in runs/",
    )
    parser.set_defaults(run=_run)


def checks() -> Iterator[Check]:
    """Look at everything; changes nothing."""
    yield _python()
    yield _packages("harness", required=True)
    yield _packages("daemon", required=False)
    yield _attempted("project data", lambda: str(project_directory()))
    yield _attempted("qemu", _qemu)
    for program, package, purpose in _PROGRAMS:
        yield _program(program, package, purpose)
    yield _busybox()
    for program, package, purpose in _OPTIONAL_PROGRAMS:
        yield _program(program, package, purpose, required=False)
    yield _kvm()
    yield _attempted("memory", _memory)
    yield _space("cache", cache_directory(), 2 * _GIB, _CACHE_MEND)
    yield _pressure()
    yield Check("root", os.geteuid() == 0, False, f"user id {os.geteuid()}", "run as root")
    yield _attempted("user ids", need_namespace)
    yield _leftovers()
    yield from _changes()


def _run(arguments: argparse.Namespace) -> int:
    undone = repair(KINDS) if arguments.repair else ()
    removed = _halves(clear=True) if arguments.repair else ()
    found = tuple(checks())
    if arguments.json:
        document = {
            "checks": [asdict(check) for check in found],
            "changes": [_facts(one) for one in undone],
            "removed": [str(path) for path in removed],
        }
        print(json.dumps(document, indent=2))
    else:
        for one in undone:
            print(one_line(str(one)))
        for path in removed:
            print(one_line(f"removed {path}"))
        _show(found)
    missing = any(check.required and not check.fine for check in found)
    failed = any(one.outcome is UndoOutcome.FAILED for one in undone)
    return ExitCode.HARNESS_ERROR if missing or failed else ExitCode.PASS


def _show(found: tuple[Check, ...]) -> None:
    table = Table(box=None, pad_edge=False)
    for title in ("", "what", "seen", "what to do"):
        table.add_column(title, overflow="fold")
    for check in found:
        mark = "ok" if check.fine else "MISSING" if check.required else "no"
        hint = "" if check.fine else check.hint
        table.add_row(*(Text(cell) for cell in (mark, check.name, check.detail, hint)))
    TerminalConsole().print(table)


def _python() -> Check:
    version = ".".join(str(part) for part in sys.version_info[:3])
    return Check("python", sys.version_info >= (3, 11), True, version, "install python 3.11")


def _packages(extra: str, *, required: bool) -> Check:
    """Look at the Python packages of one of our extras, as our own package names them."""
    name, wanted = f"{extra} packages", []
    with contextlib.suppress(metadata.PackageNotFoundError):
        for line in metadata.requires("hyperbox") or ():
            package, _, marker = line.partition(";")
            if re.search(rf"extra == ['\"]{extra}['\"]", marker):
                wanted.append(re.split(r"[^\w.-]", package)[0])
    lacking = [package for package in wanted if not _installed(package)]
    detail = f"not installed: {', '.join(lacking)}" if lacking else f"{len(wanted)} installed"
    return Check(name, not lacking, required, detail, f"pip install 'hyperbox[{extra}]'")


def _installed(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


def _attempted(name: str, look: Callable[[], str], *, required: bool = True) -> Check:
    try:
        return Check(name, True, required, look())
    except HyperboxError as error:
        return Check(name, False, required, error.message, error.hint)


def _qemu() -> str:
    found = find_qemu()
    chosen = f", chosen by {QEMU_VARIABLE}" if os.environ.get(QEMU_VARIABLE) else ""
    return f"{found.version_text} ({found.program}{chosen})"


def _program(name: str, package: str, purpose: str, *, required: bool = True) -> Check:
    check = _attempted(name, lambda: require(name, package), required=required)
    return check if check.fine else replace(check, detail=f"{check.detail}: {purpose}")


def _busybox() -> Check:
    path = Path("/bin/busybox")
    static = False
    with contextlib.suppress(OSError), path.open("rb") as stream:
        static = b"ld-linux" not in stream.read(4096)
    hint = "apt-get install --no-install-recommends busybox-static"
    return Check("busybox", static, True, f"static {path}" if static else f"no static {path}", hint)


def _kvm() -> Check:
    hint = "not needed: the exact lane emulates; enable virtualisation for --lane kvm"
    try:
        labels = read_matrix().expand(["default"])
        kits = [kit for label in labels for kit in cached_kits(label)]
        if not kits:
            detail = "not probed: no kernel is in the cache yet"
            return Check("kvm", False, False, detail, "hyperbox kernels fetch")
        probe = probe_kvm(find_qemu(), kits[-1].vmlinuz, kits[-1].initramfs)
    except HyperboxError as error:
        return Check("kvm", False, False, error.message, error.hint)
    except OSError as error:
        detail = f"not probed: the cache cannot be read: {error.strerror or error}"
        return Check("kvm", False, False, detail, _CACHE_MEND)
    return Check("kvm", probe.works, False, probe.reason, hint)


def _memory() -> str:
    free = free_memory()
    detail = f"{free >> 20} MiB free, {_GIB >> 20} MiB wanted"
    if free < _GIB:
        raise HarnessError(detail, hint="end what else runs here")
    return detail


def _space(name: str, directory: Path, wanted: int, hint: str) -> Check:
    try:
        place = next(p for p in (directory, *directory.parents) if p.exists())
        if not place.is_dir():
            return Check(name, False, True, f"{directory}: {place} is not a directory", hint)
        if not os.access(place, os.W_OK | os.X_OK):
            return Check(name, False, True, f"{directory}: cannot write in {place}", hint)
        free = shutil.disk_usage(place).free
    except OSError as error:
        return Check(name, False, True, f"{directory}: {error.strerror or error}", hint)
    detail = f"{directory}: {free >> 20} MiB free, {wanted >> 20} MiB wanted"
    return Check(name, free >= wanted, True, detail, hint)


def _pressure() -> Check:
    hint = "boot with psi=1; needed for `hyperbox psi` and host-target runs only"
    try:
        Path("/proc/pressure/memory").read_text()
    except OSError as error:
        return Check("pressure", False, False, f"/proc/pressure: {error.strerror}", hint)
    return Check("pressure", True, False, "/proc/pressure is readable")


def _leftovers() -> Check:
    found = [str(path) for path in _halves()]
    detail = f"{len(found)} left by killed runs" if found else "nothing left by killed runs"
    return Check("leftovers", not found, False, detail, "hyperbox doctor --repair")


def _changes() -> Iterator[Check]:
    """Return a line for each change of a dead process, or one that says that there is none."""
    found = damage(KINDS)
    if not found:
        yield Check("changes", True, False, "no change of this machine left by killed runs")
    for left in found:
        detail = f"left by a killed run: {left}"
        yield Check("changes", False, False, detail, "hyperbox doctor --repair")


def _facts(one: Repair) -> dict[str, object]:
    return {
        "kind": one.change.kind,
        "subject": one.change.subject,
        "pid": one.change.owner.pid,
        "left": one.left,
        "outcome": one.outcome.name.lower(),
        "reason": one.reason,
    }


def _halves(*, clear: bool = False) -> tuple[Path, ...]:
    """Return what killed runs left in runs/, removed if wanted."""
    runs = sorted(Path("runs").glob("*"))
    if not runs:
        return ()
    # Reading runs takes the harness's packages: the product is repaired without them.
    from hyperbox.harness.runs.leftovers import clear_leftovers, leftovers  # noqa: PLC0415

    return clear_leftovers(runs) if clear else leftovers(runs)
