"""What an image is made of on disk, with the digest of every file: right bytes or an error.

EROFS and overlayfs have no checksums of data, so files are compared with their digests before they
are mounted: once a boot, and again when one of them was written since.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from hyperbox.errors import ImageError
from hyperbox.files import has_sha256, read_sealed, write_sealed

__all__ = ["complete", "files_of", "record", "verify"]

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def record(manifest: Path, files: Mapping[Path, str]) -> None:
    """Write down what an image is made of: the SHA-256 of each file, in hexadecimal digits."""
    top = manifest.parent
    relative = {os.path.relpath(path, top): sha256 for path, sha256 in files.items()}
    # JSON has no bytes: a letter for each one
    names = {os.fsencode(name).decode("latin-1"): sha256 for name, sha256 in relative.items()}
    write_sealed(manifest, {"files": names})


def complete(manifest: Path) -> bool:
    """Whether an image was made whole, and all its files are still there."""
    return manifest.exists() and all(path.exists() for path in files_of(manifest))


def verify(manifest: Path) -> None:
    """Compare an image's files with their digests, unless that was done since they were written.

    Raises
    ------
    ImageError
        If one of them is gone or has other bytes.
    """
    files = files_of(manifest)
    verified = manifest.with_suffix(".verified")
    state = _state(files)
    known = read_sealed(verified) if verified.exists() else None
    if known is not None and known.get("state") == state:
        return
    for path, sha256 in files.items():
        if not path.exists():
            raise _damaged(path, "is gone")
        if not has_sha256(path, sha256):
            raise _damaged(path, "does not have the bytes that it was written with")
    write_sealed(verified, {"state": state})


def files_of(manifest: Path) -> dict[Path, str]:
    """Return the files of an image with their digests.

    Raises
    ------
    ImageError
        If the manifest is damaged.
    """
    document = read_sealed(manifest)
    if document is None:
        raise _damaged(manifest, "is damaged")
    names = document["files"].items()
    return {manifest.parent / os.fsdecode(name.encode("latin-1")): sha256 for name, sha256 in names}


def _state(files: Mapping[Path, str]) -> str:
    """Return a digest that changes with the boot, and when a file is written or replaced."""
    digest = hashlib.sha256(_BOOT_ID.read_bytes())
    for path in files:
        try:
            facts = path.lstat()
        except FileNotFoundError:
            raise _damaged(path, "is gone") from None
        numbers = (facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)
        digest.update(f"{os.fspath(path)!r} {numbers}\n".encode())
    return digest.hexdigest()


def _damaged(path: Path, what: str) -> ImageError:
    return ImageError(
        f"{path} {what}", hint=f"remove {path} and convert the image again: it is made anew"
    )
