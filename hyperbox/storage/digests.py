"""Digests: names of content that anybody can check. Pure.

Follows "Digests" of the OCI image specification, descriptor.md.
"""

from __future__ import annotations

import hashlib
import re

from hyperbox.errors import ImageError

__all__ = ["algorithm", "check_digest", "digest_of", "hexadecimal", "new_hash"]

_LENGTHS = {"sha256": 64, "sha512": 128}
_DIGEST = re.compile(r"(sha256|sha512):([0-9a-f]+)")


def check_digest(text: str, where: str) -> str:
    """Return a digest as it is if it is one that can be verified here.

    Parameters
    ----------
    where
        What has it, for the error.

    Raises
    ------
    ImageError
        If it is anything else, such as another algorithm or upper-case digits: what is compared
        by bytes, and becomes the name of a file, has one form.
    """
    found = _DIGEST.fullmatch(text)
    if found is None or len(found[2]) != _LENGTHS[found[1]]:
        raise ImageError(f"{where}: {text[:160]!r} is not a sha256 or sha512 digest")
    return text


def algorithm(digest: str) -> str:
    """Return the algorithm of a checked digest: ``sha256`` or ``sha512``."""
    return digest.partition(":")[0]


def hexadecimal(digest: str) -> str:
    """Return the digits of a checked digest."""
    return digest.partition(":")[2]


def new_hash(digest: str) -> hashlib._Hash:
    """Return a hash object to verify content that should have `digest`."""
    return hashlib.new(algorithm(digest))


def digest_of(data: bytes) -> str:
    """Return the SHA-256 digest of `data`."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
