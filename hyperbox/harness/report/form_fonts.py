"""The form's fonts: DejaVu, which matplotlib brings, and for other scripts one of the machine's.

DejaVu makes a form the same everywhere. It has no Chinese, Japanese or Korean characters: where
a form needs some and Debian's fonts-droid-fallback or fonts-wqy-microhei is installed, that font
is embedded for them, and for them only; else U+FFFD stands in their place and is on record.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from html import escape
from pathlib import Path
from typing import cast

import matplotlib as mpl
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFError, TTFont

__all__ = ["FALLBACKS", "Lost", "advice", "font_markup", "recording", "register", "told"]

FALLBACKS = (
    Path("/usr/share/fonts/truetype/droid/DroidSansFallbackFull.ttf"),
    Path("/usr/share/fonts/truetype/wqy/wqy-microhei.ttc"),
)
"""TrueType fonts, the first that is there is taken (ReportLab embeds no other outlines)."""

_OWN = {"hb": "DejaVuSans", "hb-bold": "DejaVuSans-Bold", "hb-mono": "DejaVuSansMono"}
_INSTEAD = "\N{REPLACEMENT CHARACTER}"

Lost = set[str]
"""Characters that no font of the form has."""

_lost: ContextVar[Lost | None] = ContextVar("lost", default=None)
_fallback: ContextVar[str | None] = ContextVar("fallback", default=None)


def register(fallbacks: Sequence[Path] = FALLBACKS) -> None:
    """Make the fonts known to ReportLab; of `fallbacks` the first that can be read."""
    for name, font in _OWN.items():
        _register(name, Path(mpl.get_data_path()) / "fonts" / "ttf" / f"{font}.ttf")
    known = (path for path in fallbacks if path.is_file() and _register(f"hb-{path.stem}", path))
    found = next(known, None)
    _fallback.set(None if found is None else f"hb-{found.stem}")


@contextmanager
def recording() -> Iterator[Lost]:
    """Return the characters that get lost while the block sets text."""
    lost: Lost = set()
    token = _lost.set(lost)
    try:
        yield lost
    finally:
        _lost.reset(token)


def font_markup(text: str, font: str = "hb") -> str:
    """Return text as ReportLab's markup: each run in a font that has it, nothing read as markup."""
    runs = itertools.groupby(text, key=lambda character: _font_of(character, font))
    return "".join(_run(name, "".join(characters), font) for name, characters in runs)


def told(text: str, font: str = "hb") -> str:
    """Return text for where only one font can be used, with U+FFFD for what it lacks."""
    return "".join(c if _has(font, c) else _INSTEAD for c in text)


def advice() -> str:
    """Say what would help where characters are lost; "" if it is there already."""
    if _fallback.get():
        return ""
    return "With Debian's package fonts-droid-fallback most of them can be printed."


def _run(name: str | None, text: str, font: str) -> str:
    if name is None:
        lost = _lost.get()
        if lost is not None:
            lost.update(text)
        return _INSTEAD * len(text)
    return escape(text) if name == font else f'<font name="{name}">{escape(text)}</font>'


def _font_of(character: str, font: str) -> str | None:
    names = (font, "hb", _fallback.get())
    return next((name for name in names if name and _has(name, character)), None)


def _has(font: str, character: str) -> bool:
    return character.isspace() or ord(character) in _glyphs(font)


@lru_cache(maxsize=16)
def _glyphs(font: str) -> frozenset[int]:
    face = cast(TTFont, pdfmetrics.getFont(font)).face
    return frozenset(face.charToGlyph)


def _register(name: str, path: Path) -> bool:
    if name not in pdfmetrics.getRegisteredFontNames():
        try:
            pdfmetrics.registerFont(TTFont(name, str(path)))
        except (TTFError, OSError):
            return False
    return True
