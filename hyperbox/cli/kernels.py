"""``hyperbox kernels``: list, fetch, lock and update the kernels of the matrix."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from hyperbox.console import TerminalConsole
from hyperbox.errors import ConfigError, ExitCode, HarnessError
from hyperbox.harness.lab.debian_archive import DebianArchive
from hyperbox.harness.lab.kernel_kit import KernelKit, cached_kits, kernel_kits, kernels_directory
from hyperbox.harness.lab.kernel_lock import lock_path, lockable, read_lock, read_matrix, write_lock
from hyperbox.harness.lab.kernel_matrix import KernelRelease, Matrix, Package, newest, releases
from hyperbox.harness.lab.kernel_selectors import expand_kernels
from hyperbox.printing import complain, one_line

__all__ = ["add_parser", "mirror_action"]


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb with its four actions."""
    parser = verbs.add_parser("kernels", help="list, fetch, lock and update kernels")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    one = mirror_action(
        actions, "list", "show the matrix: locked, available and cached versions", _list
    )
    one.add_argument("--refresh", action="store_true", help="fetch the mirror's lists first")
    one.add_argument("--json", action="store_true", help="print JSON")
    one = mirror_action(actions, "fetch", "fetch kernels and build what guests boot", _fetch)
    one.add_argument("series", nargs="*", metavar="KERNEL", help=_KERNEL_HELP)
    one.add_argument("--json", action="store_true", help="print JSON")
    one = mirror_action(actions, "lock", "lock the series that have no locked version yet", _lock)
    one.add_argument("--allow-unsigned", action="store_true", help=_UNSIGNED_HELP)
    one = mirror_action(actions, "update", "lock the newest version of each series", _update)
    one.add_argument("--allow-unsigned", action="store_true", help=_UNSIGNED_HELP)
    one.add_argument("series", nargs="*", metavar="SERIES", help=_SERIES_HELP)


_UNSIGNED_HELP = (
    "take packages that no signed list names any more, with the hash of the mirror's own file; "
    "every report of such a kernel says so"
)
_SERIES_HELP = "a series such as 6.12, a set (default, full), or all"
_KERNEL_HELP = f"{_SERIES_HELP}, a packaged version such as 6.12.90, or host"


def mirror_action(
    actions: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    text: str,
    function: Callable[[argparse.Namespace], int],
) -> argparse.ArgumentParser:
    """Add an action that asks a Debian mirror, and return its parser."""
    parser = actions.add_parser(name, help=text, description=text)
    parser.add_argument(
        "--mirror",
        metavar="URL",
        help="Debian mirror instead of the one this machine uses; may be a snapshot of the archive",
    )
    parser.set_defaults(run=function)
    return parser


def _list(arguments: argparse.Namespace) -> int:
    matrix, locked = read_matrix(), read_lock()
    known, left_out = _known(arguments, matrix)
    available = None if known is None else releases(known, matrix.flavour)
    rows: list[dict[str, object]] = []
    for series in matrix.series:
        pinned = locked.get(series.label)
        found = newest(series.label, available or ())
        kits = cached_kits(series.label)
        rows.append(
            {
                "series": series.label,
                "why": series.why,
                "sets": [name for name, members in matrix.sets.items() if series.label in members],
                "locked": pinned.version if pinned else None,
                "suite": pinned.kernel_package.suite if pinned else None,
                "signed": all(part.listed for part in pinned.packages) if pinned else None,
                "available": found.version if found else None,
                "cached": [kit.version for kit in kits],
                "where": [str(kit.vmlinuz.parent) for kit in kits],
            }
        )
    if arguments.json:
        document = {"lists_known": available is not None, "left_out": left_out, "kernels": rows}
        print(json.dumps(document, indent=2))
    else:
        _print_matrix(rows, lists_known=available is not None)
        _complain_of(left_out)
    return ExitCode.PASS


def _fetch(arguments: argparse.Namespace) -> int:
    labels = expand_kernels(arguments.series or ["default"])
    with _bars() as bars:
        tasks = {label: bars.add_task(label, total=1.0, step="waiting") for label in labels}

        def report(label: str, text: str, fraction: float) -> None:
            bars.update(tasks[label], completed=fraction, step=text)

        kits = kernel_kits(labels, mirror=arguments.mirror, progress=report)
    if arguments.json:
        print(json.dumps([_facts(kit) for kit in kits], indent=2))
    else:
        _print_kits(kits)
    return ExitCode.PASS


def _lock(arguments: argparse.Namespace) -> int:
    labels, locked = read_matrix().labels(), read_lock()
    absent = [label for label in labels if label not in locked]
    if not absent:
        print(one_line(f"{lock_path()}: all {len(labels)} series are locked"))
        return ExitCode.PASS
    return _lock_newest(arguments, absent)


def _update(arguments: argparse.Namespace) -> int:
    return _lock_newest(arguments, read_matrix().expand(arguments.series or ["all"]))


def _lock_newest(arguments: argparse.Namespace, labels: Sequence[str]) -> int:
    matrix, locked = read_matrix(), read_lock()
    archive = _archive(arguments)
    failed: list[HarnessError] = []
    with _bars() as bars:
        task = bars.add_task("kernels", total=1.0, step="")
        packages = archive.refresh(
            matrix.suites,
            matrix.flavour,
            lambda text, done: bars.update(task, completed=done / 2, step=text),
        )
        for number, label in enumerate(labels):
            done = 0.5 + number / len(labels) / 2
            bars.update(task, completed=done, step=f"locking {label}")
            try:
                new = lockable(
                    label,
                    archive,
                    packages,
                    matrix.flavour,
                    kernels_directory(),
                    locked=locked.get(label),
                    allow_unsigned=arguments.allow_unsigned,
                )
            except HarnessError as error:
                failed.append(error)
                continue
            text = _change(label, locked.get(label), new)
            bars.console.print(text, highlight=False, soft_wrap=True)
            locked[label] = new
        bars.update(task, completed=1.0, step="done")
    write_lock({label: locked[label] for label in matrix.labels() if label in locked})
    print(one_line(f"wrote {lock_path()}"))
    _complain_of(archive.left_out)
    for fault in failed:
        complain(f"not locked: {fault.message}")
    for hint in dict.fromkeys(error.hint for error in failed if error.hint):
        complain(f"hint: {hint}")
    return ExitCode.HARNESS_ERROR if failed else ExitCode.PASS


def _complain_of(left_out: Sequence[str]) -> None:
    if left_out:
        said = f"this mirror has no {', '.join(left_out)}"
        complain(f"hyperbox: {said}: its newest kernels may be older than Debian's")


def _change(label: str, old: KernelRelease | None, new: KernelRelease) -> str:
    unlisted = [part.name for part in new.packages if not part.listed]
    text = f"{label}: {new.version}"
    if old == new:
        text += " (unchanged)"
    elif old is not None:
        text += f" (was {old.version})"
    if unlisted:
        source = "kept" if old == new else "taken from the mirror"
        text += f"; no signed list names {', '.join(unlisted)} any more: hash {source}"
    return text


def _print_matrix(rows: Sequence[dict[str, object]], *, lists_known: bool) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("series", "sets", "locked", "available", "cached", "from"):
        table.add_column(title, no_wrap=True)
    for row in rows:
        cached, sets = row["cached"], row["sets"]
        assert isinstance(cached, list)
        assert isinstance(sets, list)
        unknown = "-" if lists_known else "?"
        table.add_row(
            str(row["series"]),
            ", ".join(sets),
            str(row["locked"] or "-"),
            "same" if row["available"] == row["locked"] else str(row["available"] or unknown),
            "yes" if cached == [row["locked"]] else ", ".join(cached) or "-",
            str(row["suite"] or "-") + ("" if row["signed"] in (True, None) else ", unsigned"),
        )
    console = TerminalConsole()
    console.print(table)
    console.print(f"kits lie in {kernels_directory() / 'kits'}", highlight=False, soft_wrap=True)
    if not lists_known:
        console.print("? : no lists of the mirror yet; use --refresh", highlight=False)


def _print_kits(kits: Sequence[KernelKit]) -> None:
    console = TerminalConsole()
    for kit in kits:
        line = f"{kit.label}: {kit.release} ({kit.version}) in {kit.vmlinuz.parent}"
        console.print(line, highlight=False, soft_wrap=True)
        for remark in kit.remarks:
            console.print(f"  note: {remark}", highlight=False, soft_wrap=True, style="yellow")


def _facts(kit: KernelKit) -> dict[str, object]:
    paths = {
        "vmlinuz": kit.vmlinuz,
        "initramfs": kit.initramfs,
        "modules_image": kit.modules_image,
        "config": kit.config,
    }
    files = {name: None if path is None else str(path) for name, path in paths.items()}
    return {**vars(kit), **files, "remarks": list(kit.remarks)}


def _known(
    arguments: argparse.Namespace, matrix: Matrix
) -> tuple[tuple[Package, ...] | None, tuple[str, ...]]:
    """Return the listed packages, None if no lists are there, and the suites left out."""
    try:
        archive = _archive(arguments)
    except ConfigError:
        if arguments.refresh:
            raise
        return None, ()
    if arguments.refresh:
        return archive.refresh(matrix.suites, matrix.flavour), archive.left_out
    return archive.known(), archive.left_out


def _archive(arguments: argparse.Namespace) -> DebianArchive:
    return DebianArchive(kernels_directory() / "apt", mirror=arguments.mirror)


def _bars() -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[step]}", markup=False),
        console=TerminalConsole(stderr=True),
    )
