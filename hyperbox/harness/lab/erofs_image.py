"""EROFS images for guests: reproducible, labelled, padded so that an nvdimm can hold them.

Plain lz4 serves every kernel of the matrix: 5.10 and 6.1 know no zstd, and 7.3 refuses the
compression layout that erofs-utils calls legacy.
"""

from __future__ import annotations

import os
import uuid
from pathlib import Path

from hyperbox.errors import HarnessError
from hyperbox.files import replace_file
from hyperbox.processes import require, run

__all__ = ["ALIGNMENT", "LABEL", "make_erofs"]

ALIGNMENT = 2 << 20
"""Bytes; the granularity of an nvdimm."""
LABEL = ".hyperbox-image"
"""The file at the top of an image that says what it is; `vm-images/init.sh` reads it."""
_NAMES = uuid.UUID("68797065-7262-6f78-0000-000000000000")  # "hyperbox"


def make_erofs(
    tree: Path, image: Path, label: str, *, size: int = 0, root_owned: bool = False
) -> None:
    """Write the label into a directory and pack it: same tree, same bytes.

    The file is written under a temporary name, synced and renamed.

    Parameters
    ----------
    size
        Bytes of the image; 0: as many as it takes, in multiples of `ALIGNMENT`.
    root_owned
        Let everything belong to root and have no extended attributes, whoever packs it.

    Raises
    ------
    HarnessError
        If packing fails, or the image is larger than `size`.
    """
    temporary = image.with_name(f".{image.name}.{os.getpid()}")
    mkfs = require("mkfs.erofs", "erofs-utils")
    options = ["-zlz4", "--quiet", "-T0", f"-U{uuid.uuid5(_NAMES, label)}"]
    options += ["--all-root", "-x-1"] if root_owned else []
    try:
        (tree / LABEL).write_text(f"{label}\n")
        (tree / LABEL).chmod(0o644)
        run([mkfs, *options, temporary, tree], timeout=600)
        padded = -(-temporary.stat().st_size // ALIGNMENT) * ALIGNMENT
        if size and padded > size:
            raise HarnessError(f"the {label} image takes {padded} bytes, {size} are allowed")
        os.truncate(temporary, size or padded)
        replace_file(temporary, image)
    except FileNotFoundError as error:
        raise HarnessError(f"cannot pack {tree}: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)
