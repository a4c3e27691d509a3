"""What may stand after ``--kernel``: series, sets, versions, files, and the running kernel.

Names that come to the same build are one kernel, and builds of one release are two.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hyperbox.errors import ConfigError
from hyperbox.harness.lab.custom_kernel import custom_kernel
from hyperbox.harness.lab.debian_archive import DebianArchive
from hyperbox.harness.lab.host_kernel import RUNNING, running_kernel
from hyperbox.harness.lab.kernel_kit import KernelKit, cached_kits, kernel_kit, kernels_directory
from hyperbox.harness.lab.kernel_lock import read_lock, read_matrix
from hyperbox.harness.lab.kernel_matrix import KernelRelease, Matrix
from hyperbox.harness.lab.kernel_tree import build_id, digests
from hyperbox.harness.lab.point_releases import find_release, is_point_release, point_releases

__all__ = ["ChosenKernel", "chosen_kernels", "distinct_labels", "expand_kernels", "foreseen_labels"]

_DIGITS = 8


@dataclass(frozen=True)
class ChosenKernel:
    """A kernel ready to boot and the selector that it was asked for with."""

    selector: str
    kit: KernelKit


def expand_kernels(names: Iterable[str], modules: Path | None = None) -> tuple[str, ...]:
    """Return what `kernel_kit` understands, in the order given: sets expanded, paths absolute.

    The name of a packaged kernel means that kernel, also where a file of this name is at hand.

    Raises
    ------
    ConfigError
        If a name is none of these (the hint lists what is known), or there are `modules` and no
        bzImage that they could belong to.
    """
    matrix = read_matrix()
    found: list[str] = []
    for name in names:
        if os.sep in name or (Path(name).is_file() and not _is_packaged(name, matrix)):
            found.append(os.path.abspath(name))  # noqa: PTH100 - a symlink's name is kept
        elif name == RUNNING or is_point_release(name):
            found.append(name)
        else:
            found += matrix.expand([name])
    if modules is not None and not any(os.sep in selector for selector in found):
        raise ConfigError(
            f"--modules {modules} is for a bzImage, and {', '.join(found)} is not the path of one",
            hint="add --kernel PATH; a packaged kernel and the running one have their own modules",
        )
    return tuple(dict.fromkeys(found))


def chosen_kernels(
    selectors: Sequence[str], modules: Path | None, progress: Callable[[str, float], None]
) -> tuple[ChosenKernel, ...]:
    """Fetch and build kernels: each build once, with a label of its own; see `distinct_labels`.

    Parameters
    ----------
    selectors
        As of `expand_kernels`.
    modules
        Modules of the bzImages among them.
    progress
        Called with a text and the fraction done.

    Raises
    ------
    ConfigError, MissingDependency, HarnessError
        As of `kernel_kit`.
    """
    kits = [
        kernel_kit(name, modules=modules if os.sep in name else None, progress=progress)
        for name in selectors
    ]
    labels = distinct_labels([(kit.label, kit.build) for kit in kits])
    found: dict[str, ChosenKernel] = {}
    for selector, kit, label in zip(selectors, kits, labels, strict=True):
        named = replace(kit, label=label, remarks=(*kit.remarks, *_shadow(selector)))
        found.setdefault(kit.build, ChosenKernel(selector, named))
    return tuple(found.values())


def foreseen_labels(
    selectors: Sequence[str], modules: Path | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the labels that `chosen_kernels` would give, and remarks; nothing is fetched.

    Raises
    ------
    ConfigError, MissingDependency
        If a file is not a kernel, or the running kernel's image is not there.
    """
    known = [_foreseen(selector, modules) for selector in selectors]
    labels = distinct_labels([(label, build) for label, build, _ in known])
    remarks = [remark for *_, remark in known if remark]
    remarks += [remark for selector in selectors for remark in _shadow(selector)]
    return tuple(dict.fromkeys(labels)), tuple(dict.fromkeys(remarks))


def distinct_labels(kernels: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """Return for every (label, build) the label under which that build is measured; pure.

    It is the first label that the build was given. Where two builds share it, the first digits
    of the build follow: "6.14.0-rc2@1f2e3d4c".
    """
    own: dict[str, str] = {}
    for label, build in kernels:
        own.setdefault(build, label)
    builds = Counter(own.values())
    return tuple(
        f"{own[build]}@{build[:_DIGITS]}" if builds[own[build]] > 1 else own[build]
        for _, build in kernels
    )


def _is_packaged(name: str, matrix: Matrix) -> bool:
    """Whether a name is known as that of a packaged kernel, or of the running one."""
    if is_point_release(name):
        return _known_release(name) is not None
    return name == RUNNING or name in (*matrix.labels(), *matrix.sets)


def _shadow(selector: str) -> tuple[str, ...]:
    """Say that a file was not meant."""
    if os.sep in selector or not Path(selector).is_file():
        return ()
    return (f"{selector} means the packaged kernel; write ./{selector} for the file of that name",)


def _foreseen(selector: str, modules: Path | None) -> tuple[str, str, str]:
    """Return label and build of a kernel, and a remark where it is not at hand."""
    if selector == RUNNING or os.sep in selector:
        place = running_kernel() if selector == RUNNING else (Path(selector), modules)
        tree = custom_kernel(*place)
        return tree.release, build_id(digests(tree)), ""
    series = not is_point_release(selector)
    release = read_lock().get(selector) if series else _known_release(selector)
    missing = f"kernel {selector} is not in the cache: it will be fetched"
    if release is None:
        return selector, selector, "" if cached_kits(selector) else missing
    hashes = [package.sha256 for package in release.packages]
    label = selector if series else release.version
    build = build_id(hashes) if all(hashes) else release.version
    cached = [kit.build for one in (release.series, label) for kit in cached_kits(one)]
    return label, build, "" if build in cached else missing


def _known_release(name: str) -> KernelRelease | None:
    """Find a packaged kernel in the lock, then in the lists that were fetched before."""
    locked = tuple(read_lock().values())
    with contextlib.suppress(ConfigError):
        return find_release(name, locked, {})
    packages = DebianArchive(kernels_directory() / "apt").known() or ()
    with contextlib.suppress(ConfigError):
        return find_release(name, point_releases(packages, read_matrix().flavour, locked), {})
    return None
