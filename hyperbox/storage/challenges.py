"""What a server asks for with status 401: ``WWW-Authenticate``. Pure.

Follows RFC 9110, section 11.6.1: one header may have several challenges, a challenge several
parameters, all of them separated by commas.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

__all__ = ["Challenge", "parse_challenges"]

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - of a grammar
_QUOTED = r'"(?:[^"\\]|\\.)*"'
_PIECE = re.compile(rf'(?:{_QUOTED}|[^,"])+')
_PARAMETER = re.compile(rf"({_TOKEN})\s*=\s*({_TOKEN}|{_QUOTED})")
_SCHEME = re.compile(rf"({_TOKEN})(?:\s+(.*))?", re.DOTALL)
_MOST = 8 << 10  # bytes of a header; more is refused by most servers, too


@dataclass(frozen=True)
class Challenge:
    """One way to authenticate; scheme and names of parameters are in lower case."""

    scheme: str
    parameters: Mapping[str, str]


def parse_challenges(headers: Iterable[str]) -> tuple[Challenge, ...]:
    """Return the challenges of all ``WWW-Authenticate`` headers; what is none is left out."""
    return tuple(one for header in headers for one in _challenges(header[:_MOST]))


def _challenges(header: str) -> Iterator[Challenge]:
    scheme, parameters = "", dict[str, str]()
    for piece in (found[0].strip() for found in _PIECE.finditer(header)):
        more = _PARAMETER.fullmatch(piece)
        if more is None:
            start = _SCHEME.fullmatch(piece)
            if start is None:
                continue
            if scheme:
                yield Challenge(scheme, parameters)
            scheme, parameters = start[1].lower(), {}
            more = _PARAMETER.fullmatch((start[2] or "").strip())
        if more is not None:
            parameters.setdefault(more[1].lower(), _unquoted(more[2]))
    if scheme:
        yield Challenge(scheme, parameters)


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1]) if text.startswith('"') else text
