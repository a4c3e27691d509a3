"""What may stand after ``--kernel``: series, sets, versions, files, and the running kernel."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from hyperbox.harness.lab.host_kernel import RUNNING
from hyperbox.harness.lab.kernel_lock import read_matrix
from hyperbox.harness.lab.point_releases import is_point_release

__all__ = ["expand_kernels"]


def expand_kernels(names: Iterable[str]) -> tuple[str, ...]:
    """Return what `kernel_kit` understands, in the order given: sets expanded, paths absolute.

    Raises
    ------
    ConfigError
        If a name is none of these; the hint lists what is known.
    """
    matrix = read_matrix()
    found: list[str] = []
    for name in names:
        if name == RUNNING:
            found.append(name)
        elif os.sep in name or Path(name).is_file():
            found.append(os.path.abspath(name))  # noqa: PTH100 - a symlink's name is kept
        elif is_point_release(name):
            found.append(name)
        else:
            found += matrix.expand([name])
    return tuple(dict.fromkeys(found))
