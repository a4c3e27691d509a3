"""A kernel of the user's own: a bzImage and, optionally, its modules.

The header is the one of the Linux/x86 boot protocol (Documentation/arch/x86/boot.rst).
"""

from __future__ import annotations

import re
import struct
from pathlib import Path

from hyperbox.errors import ConfigError
from hyperbox.foreign import read_bytes
from hyperbox.harness.lab.kernel_tree import KernelTree

__all__ = ["custom_kernel", "image_release"]

_MAGIC_AT = 0x202
_HEADER_END = 0x212
_RELEASE = re.compile(r"[0-9][A-Za-z0-9.+~_-]{0,63}")


def custom_kernel(path: Path, modules: Path | None = None) -> KernelTree:
    """Check a bzImage and find its configuration and modules.

    Parameters
    ----------
    modules
        ``lib/modules/<release>``, a directory that holds ``<release>``, or what was given
        as ``INSTALL_MOD_PATH``. Without it, all drivers must be built in.

    Raises
    ------
    ConfigError
        If a file is unreadable or corrupt, or the modules belong to another kernel.
    """
    image = read_bytes(path, refusal=ConfigError)
    release = _checked(path, image)
    found = None if modules is None else _modules_of(release, modules)
    return KernelTree(release, path, _config_of(release, path, found), found)


def image_release(image: bytes) -> str:
    """Return the release (``uname -r``) from the header of a bzImage.

    Raises
    ------
    ValueError
        If it is not a bzImage or cut short; the text says why.
    """
    if len(image) < _HEADER_END:
        raise ValueError("it is too short for a kernel")
    if image[_MAGIC_AT : _MAGIC_AT + 4] != b"HdrS":
        raise ValueError("it has no Linux boot header (is it a vmlinux or a compressed file?)")
    (protocol,) = struct.unpack_from("<H", image, 0x206)
    if protocol < 0x200:
        raise ValueError(f"its boot protocol {protocol >> 8}.{protocol & 255:02} is too old")
    setup_sectors = image[0x1F1] or 4
    (paragraphs,) = struct.unpack_from("<I", image, 0x1F4)
    whole = (setup_sectors + 1) * 512 + paragraphs * 16
    if len(image) < whole:
        raise ValueError(f"it is cut short: {len(image)} of {whole} bytes")
    (pointer,) = struct.unpack_from("<H", image, 0x20E)
    start = pointer + 0x200
    if pointer == 0 or start >= (setup_sectors + 1) * 512:
        raise ValueError("its header names no kernel version")
    words = image[start : start + 256].partition(b"\0")[0].decode("ascii", "replace").split()
    if not words or not _RELEASE.fullmatch(words[0]):
        raise ValueError("the kernel version in its header is not readable")
    return words[0]


def _checked(path: Path, image: bytes) -> str:
    try:
        return image_release(image)
    except ValueError as error:
        raise ConfigError(
            f"{path} is not a bootable kernel: {error}",
            hint="use arch/x86/boot/bzImage of a build, or /boot/vmlinuz-VERSION",
        ) from error


def _modules_of(release: str, directory: Path) -> Path:
    for candidate in (directory / release, directory / "lib/modules" / release):
        if candidate.is_dir():
            return candidate
    if directory.name == release and directory.is_dir():
        return directory
    if not directory.is_dir():
        raise ConfigError(f"the modules directory {directory} does not exist")
    raise ConfigError(
        f"{directory} has no modules of kernel {release}",
        hint="use lib/modules/RELEASE, or the INSTALL_MOD_PATH of make modules_install",
    )


def _config_of(release: str, image: Path, modules: Path | None) -> Path | None:
    # Beside a distribution's image, in a build tree, or beside the modules.
    candidates = [image.with_name(f"config-{release}"), image.parent / "config"]
    if image.parent.as_posix().endswith("arch/x86/boot"):
        candidates.append(image.parent.parents[2] / ".config")
    if modules is not None:
        candidates.append(modules / "config")
    return next((path for path in candidates if path.is_file()), None)
