"""Which format a client gets, by its Accept header. Pure.

That of metrics is after Prometheus' "Scrape protocol content negotiation": the supported format
with the highest weight, and text 0.0.4 where there is none. Weights and quoted values are
RFC 9110's (5.6.4, 12.4.2). What the header says is only ever compared, never repeated in an answer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["FALLBACK", "OPENMETRICS", "TEXT", "Format", "negotiated", "preferred"]

TEXT = "text/plain"
OPENMETRICS = "application/openmetrics-text"

_ESCAPINGS = ("allow-utf-8", "underscores", "dots", "values")
_WEIGHT = re.compile(r"0(\.[0-9]{0,3})?|1(\.0{0,3})?")


@dataclass(frozen=True)
class Format:
    """A format of metrics: media type, version, and how names are escaped from 1.0.0 on."""

    media: str
    version: str
    escaping: str = ""

    def __str__(self) -> str:
        escaping = f"; escaping={self.escaping}" if self.escaping else ""
        return f"{self.media}; version={self.version}; charset=utf-8{escaping}"


FALLBACK = Format(TEXT, "0.0.4")

_VERSIONS = {
    TEXT: ("0.0.4", "1.0.0"),
    OPENMETRICS: ("1.0.0",),
    "text/*": ("0.0.4",),
    "*/*": ("0.0.4",),
}
"""What is served for each media range, the version of one that names none first."""


def negotiated(accept: str) -> Format:
    """Return the format for an Accept header; of equal weights the first one stands."""
    best, highest = FALLBACK, 0.0
    for entry in _split(accept, ","):
        media, *rest = _split(entry, ";") or [""]
        parameters = dict(_pair(text) for text in reversed(rest))  # of one given twice, the first
        weight = parameters.get("q", "1")
        chosen = _supported(media.lower(), parameters)
        if chosen and _WEIGHT.fullmatch(weight) and float(weight) > highest:
            best, highest = chosen, float(weight)
    return best


def preferred(accept: str, offered: Sequence[str]) -> str:
    """Return the media type that an Accept header likes best; the first one where it likes none.

    Of a type's ranges the most specific one counts (RFC 9110, 12.5.1).
    """
    weights: dict[str, float] = {}
    for entry in _split(accept, ","):
        media, *rest = _split(entry, ";") or [""]
        weight = dict(_pair(text) for text in rest).get("q", "1")
        if _WEIGHT.fullmatch(weight):
            weights.setdefault(media.lower(), float(weight))

    def liked(media: str) -> float:
        ranges = (media, media.partition("/")[0] + "/*", "*/*")
        return next((weights[one] for one in ranges if one in weights), 0.0)

    return max(offered, key=liked)


def _supported(media: str, parameters: dict[str, str]) -> Format | None:
    versions = _VERSIONS.get(media, ())
    if not versions:
        return None
    version = parameters.get("version", versions[0])
    if version not in versions:
        return None
    if media not in (TEXT, OPENMETRICS):
        return FALLBACK
    asked = parameters.get("escaping", "")
    escaping = asked if asked in _ESCAPINGS else "underscores"
    return Format(media, version, "" if version == FALLBACK.version else escaping)


def _split(text: str, separator: str) -> list[str]:
    """Split where the separator stands outside of quotes; a quote may lack its end."""
    parts = re.findall(rf'(?:[^{separator}"]|"(?:\\.|[^"\\])*"?)+', text)
    return [part.strip() for part in parts]


def _pair(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    value = value.strip()
    if len(value) > 1 and value[0] == value[-1] == '"':
        value = re.sub(r"\\(.)", r"\1", value[1:-1])
    return name.strip().lower(), value
