"""The machine's apt sources (sources.list(5)): which mirrors of Debian it uses."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from hyperbox.errors import ConfigError, HarnessError
from hyperbox.foreign import read_bytes, read_text

__all__ = ["Source", "machine_sources", "main_mirror", "resolved", "scheme", "security_mirror"]

_MOST_SOURCES = 1 << 20  # bytes; files of a few lines
_APT = Path("/etc/apt")
_DEBIAN_SUITE = re.compile(
    r"(bullseye|bookworm|trixie|forky|duke|sid|unstable|testing|(old){0,2}stable)(-updates)?/?"
)
_SECURITY_SUITE = re.compile(r"(bullseye|bookworm|trixie|forky|(old){0,2}stable)-security/?")
_LIST_LINE = re.compile(r"deb\s+(?:\[[^\]]*\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)\s*(?P<parts>.*)")


@dataclass(frozen=True)
class Source:
    """One entry of the machine's apt sources: a URI with suites and components."""

    uri: str
    suites: tuple[str, ...]
    components: tuple[str, ...]


def machine_sources(directory: Path = _APT) -> tuple[Source, ...]:
    """Read the binary sources of ``sources.list`` and ``sources.list.d`` (both formats)."""
    found: list[Source] = []
    for path in (directory / "sources.list", *sorted(directory.glob("sources.list.d/*"))):
        try:
            text = read_bytes(path, most=_MOST_SOURCES).decode(errors="replace")
        except HarnessError:
            continue
        if path.suffix == ".list":
            found += _one_line_sources(text)
        elif path.suffix == ".sources":
            found += _deb822_sources(text)
    return tuple(found)


def main_mirror(sources: Iterable[Source]) -> str | None:
    """Pick the URI of Debian's main archive: a Debian suite with the component main.

    Foreign repositories may use Debian's suite names; a path ending in ``/debian`` wins.
    """
    return _mirror_for(sources, _DEBIAN_SUITE, "/debian")


def security_mirror(sources: Iterable[Source]) -> str | None:
    """Pick the URI of Debian's security archive."""
    return _mirror_for(sources, _SECURITY_SUITE, "/debian-security")


def _mirror_for(sources: Iterable[Source], suites: re.Pattern[str], ending: str) -> str | None:
    fitting = [
        source.uri.rstrip("/")
        for source in sources
        if "main" in source.components
        and any(suites.fullmatch(one) for one in source.suites)
        and scheme(source.uri)
    ]
    fitting.sort(key=lambda uri: not urlsplit(uri).path.endswith(ending))
    return fitting[0] if fitting else None


def _one_line_sources(text: str) -> Iterator[Source]:
    for line in text.splitlines():
        match = _LIST_LINE.match(line.partition("#")[0].strip())
        if match:
            yield Source(match["uri"], (match["suite"],), tuple(match["parts"].split()))


def _deb822_sources(text: str) -> Iterator[Source]:
    for stanza in re.split(r"\n[ \t]*\n", text):
        fields: dict[str, list[str]] = {}
        key = ""
        for line in stanza.splitlines():
            if line.startswith("#") or not line.strip():
                continue
            if line[0] in " \t":
                fields.setdefault(key, []).extend(line.split())
            else:
                key, _, value = line.partition(":")
                key = key.lower()
                fields[key] = value.split()
        if "deb" not in fields.get("types", []) or fields.get("enabled") in (["no"], ["false"]):
            continue
        for uri in fields.get("uris", []):
            suites, components = fields.get("suites", []), fields.get("components", [])
            yield Source(uri, tuple(suites), tuple(components))


def resolved(uri: str) -> str:
    """Return the URL of a mirror without a final slash, out of a list of mirrors if it names one.

    Raises
    ------
    ConfigError
        If that list cannot be read or has none.
    """
    # Cloud images name their mirrors in a file: mirror+file:/etc/apt/mirrors/debian.list
    if not uri.startswith("mirror+file:"):
        return uri.rstrip("/")
    path = Path(urlsplit(uri).path)
    lines = read_text(path, most=_MOST_SOURCES, refusal=ConfigError).split()
    if not lines or not scheme(lines[0]):
        raise ConfigError(f"the mirror list {path} begins with no URL of a mirror")
    return lines[0].rstrip("/")


def scheme(text: str) -> str:
    """Return the scheme of a URL that can be a word of a sources.list; else nothing."""
    if not (text.isascii() and text.isprintable()) or set(text) & set(' "#<>'):
        return ""
    try:
        return urlsplit(text).scheme
    except ValueError:  # http://[::1
        return ""
