"""Typed, bounded reading of the JSON documents of images. Pure.

Registries and archives are written by others: a field of the wrong type is refused with the
document's name and the field's, and so is what two readers could understand differently.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeVar

from hyperbox.errors import ImageError
from hyperbox.foreign import parse_json

__all__ = ["MOST_DOCUMENT", "Fields", "parse_document"]

MOST_DOCUMENT = 4 << 20
"""Bytes of a manifest, an index or a configuration at most.

The distribution specification asks registries to take manifests of up to 4 MiB.
"""
T = TypeVar("T")

_MOST_ENTRIES = 10_000  # of a list or a map: an image has at most a few hundred layers


def parse_document(data: bytes, what: str) -> Fields:
    """Return the object that `data` holds.

    Parameters
    ----------
    what
        What the document is, for errors, such as "manifest sha256:...".

    Raises
    ------
    ImageError
        If it is larger than `MOST_DOCUMENT`, not JSON in UTF-8, or not an object; or if it has a
        text with half a surrogate pair, which nothing can write again.
    """
    if len(data) > MOST_DOCUMENT:
        raise ImageError(f"{what} has more than {MOST_DOCUMENT} bytes")
    try:
        value = parse_json(data.decode())
        if b"\\u" in data:
            json.dumps(value, ensure_ascii=False).encode()
    except ValueError as error:  # UnicodeError is one
        raise ImageError(f"{what} is not JSON: {error}") from error
    return Fields(value, what)


class Fields:
    """The fields of one JSON object, read by type; null counts as absent, as in Go's encoder.

    Keys that differ only in case are refused: Go's decoder takes them for one key, so that the
    same bytes would be another image to other tools (CVE-2020-10696's kind of confusion).
    """

    def __init__(self, value: object, where: str) -> None:
        if not isinstance(value, dict):
            raise ImageError(f"{where}: an object is expected")
        if len(value) > _MOST_ENTRIES:
            raise ImageError(f"{where} has more than {_MOST_ENTRIES} keys")
        self.where = where
        self._value: Mapping[str, Any] = {k: v for k, v in value.items() if v is not None}

    def __contains__(self, name: str) -> bool:
        return name in self._value

    def distinct(self, *names: str) -> None:
        """Refuse keys that are one of `names` in other letter case."""
        known = {name.lower(): name for name in names}
        for key in self._value:
            if known.get(key.lower(), key) != key:
                raise ImageError(
                    f"{self.where}: the key {key[:80]!r} is {known[key.lower()]!r} to some readers"
                )

    def text(self, name: str, default: str = "") -> str:
        """Return a string."""
        return self._typed(name, str, "a string", default)

    def whole(self, name: str, default: int | None = None) -> int:
        """Return a whole number from 0 to 2^63 - 1; without a default it must be there."""
        if name not in self._value and default is None:
            raise ImageError(f"{self.where} has no {name!r}")
        found = self._typed(name, int, "a whole number", default or 0)
        if isinstance(found, bool) or not 0 <= found < 1 << 63:
            raise ImageError(f"{self.where}: {name!r} is not a size")
        return found

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a list of strings, by default an empty one."""
        found = self._list(name)
        if not all(isinstance(one, str) for one in found):
            raise ImageError(f"{self.where}: {name!r} is not a list of strings")
        return tuple(found)

    def mapping(self, name: str) -> Mapping[str, str]:
        """Return a map of strings to strings, by default an empty one."""
        found = self._typed(name, dict, "an object", {})
        if len(found) > _MOST_ENTRIES:
            raise ImageError(f"{self.where}: {name!r} has more than {_MOST_ENTRIES} keys")
        if not all(isinstance(one, str) for one in found.values()):
            raise ImageError(f"{self.where}: {name!r} is not a map of strings")
        return dict(found)

    def child(self, name: str) -> Fields | None:
        """Return the object of a field; None if there is none."""
        found = self._value.get(name)
        return None if found is None else Fields(found, f"{self.where}: {name!r}")

    def children(self, name: str) -> tuple[Fields, ...]:
        """Return the objects of a list, by default an empty one."""
        return tuple(
            Fields(one, f"{self.where}: {name}[{place}]")
            for place, one in enumerate(self._list(name))
        )

    def _list(self, name: str) -> list[Any]:
        found: list[Any] = self._typed(name, list, "a list", [])
        if len(found) > _MOST_ENTRIES:
            raise ImageError(f"{self.where}: {name!r} has more than {_MOST_ENTRIES} entries")
        return found

    def _typed(self, name: str, kind: type[T], words: str, default: T) -> T:
        found = self._value.get(name, default)
        if not isinstance(found, kind):
            raise ImageError(f"{self.where}: {name!r} is not {words}")
        return found
