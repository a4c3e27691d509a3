"""The Python packages that the daemon needs in a guest, as one file that Python imports from.

They are all Python: what is installed here also runs under the guest's own. They stay in a
zip file, so that preparing a guest does not compile what most experiments never import.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

from hyperbox.files import write_bytes
from hyperbox.paths import cache_directory

__all__ = ["FILE_NAME", "guest_packages"]

FILE_NAME = "packages.zip"
"""Where it lies below the project's directory in a guest."""

_PACKAGES = (
    "anyio",
    "click",
    "h11",
    "idna",
    "prometheus_client",
    "starlette",
    "typing_extensions",
    "uvicorn",
)
_DATE = (1980, 1, 1, 0, 0, 0)  # the first that a zip file can hold


def guest_packages() -> Path | None:
    """Return the zip file in the cache, made if it is not there; None if a package is missing.

    Same packages, same bytes.
    """
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for package in _PACKAGES:
            spec = importlib.util.find_spec(package)
            if spec is None or spec.origin is None:
                return None
            for name, path in _files(Path(spec.origin)):
                info = zipfile.ZipInfo(name, _DATE)
                info.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(info, path.read_bytes())
    digest = hashlib.sha256(content.getvalue()).hexdigest()[:16]
    path = cache_directory() / "guest" / f"packages-{digest}.zip"
    if not path.exists() or path.read_bytes() != content.getvalue():
        write_bytes(path, content.getvalue())
    return path


def _files(origin: Path) -> Iterator[tuple[str, Path]]:
    """Return a package's files by their names below the import path; a module is one file."""
    if origin.name != "__init__.py":
        yield origin.name, origin
        return
    top = origin.parent
    for path in sorted(top.rglob("*.py")):
        yield f"{top.name}/{path.relative_to(top).as_posix()}", path
