"""Matplotlib figures as SVG that can stand in an HTML page, many to a page.

Matplotlib numbers its groups alike in every figure and writes fonts and sizes for a
document of its own. Here unreferenced ids go, referenced ones get the figure's name as
prefix, text stays text in the page's fonts, and the figure says what it shows.
"""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from xml.etree import ElementTree as ET

import matplotlib as mpl
from matplotlib.figure import Figure

from hyperbox.printing import legible

__all__ = ["SOFT", "as_class", "inline_svg", "plot_style", "standalone"]

SOFT = "#4a4a4a"
"""Colour of labels that stand back."""

_SVG = "http://www.w3.org/2000/svg"
_XLINK_HREF = "{http://www.w3.org/1999/xlink}href"
_FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
_CLASS = "class:"
_REFERENCE = re.compile(r"(?<=url\()#([^\s)]+)")
_STYLE: Any = {  # matplotlib types each key; the style is plain data
    "text.parse_math": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "hyperbox",
    "font.family": ["DejaVu Sans"],
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8a8a8a",
    "axes.linewidth": 0.8,
    "axes.titlesize": 9.0,
    "axes.labelsize": 9.0,
    "axes.labelcolor": "#333333",
    "axes.unicode_minus": True,
    "xtick.color": "#8a8a8a",
    "ytick.color": "#8a8a8a",
    "xtick.labelcolor": "#333333",
    "ytick.labelcolor": "#222222",
    "text.color": "#222222",
    "hatch.linewidth": 0.6,
}


@contextmanager
def plot_style() -> Iterator[None]:
    """Draw figures of the block in the report's style."""
    with mpl.rc_context(_STYLE):
        yield


def as_class(name: str) -> str:
    """Return the id (``gid``) of an artist that becomes its class in the page."""
    return f"{_CLASS}{name}"


def inline_svg(figure: Figure, name: str, label: str, css: str = "") -> str:
    """Return a figure as an ``<svg>`` element for an HTML page.

    Parameters
    ----------
    name
        Unique in the page; prefix of all ids.
    label
        What the figure shows, for screen readers.
    css
        Class of the element.
    """
    stream = io.BytesIO()
    with plot_style(), warnings.catch_warnings():
        # The page's fonts show what matplotlib's own lack.
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        figure.savefig(stream, format="svg", metadata={"Date": None}, transparent=True)
    root = ET.fromstring(stream.getvalue())  # noqa: S314 - written two lines above
    prefix = f"f{hashlib.blake2b(name.encode(), digest_size=6).hexdigest()}"
    for metadata in root.findall(f"{{{_SVG}}}metadata"):
        root.remove(metadata)
    _rename_ids(root, prefix)
    _modernise(root)
    width, height = (float(number) for number in root.attrib["viewBox"].split()[2:])
    root.attrib.pop("version", None)
    root.set("width", f"{width * 4 / 3:.0f}")
    root.set("height", f"{height * 4 / 3:.0f}")
    # Narrow screens scroll a figure rather than shrink its text beyond reading.
    root.set("style", f"min-width: {width:.0f}px")
    root.set("role", "img")
    root.set("aria-label", legible(label))
    if css:
        root.set("class", css)
    return ET.tostring(root, encoding="unicode")


def _rename_ids(root: ET.Element, prefix: str) -> None:
    """Prefix all ids that something refers to, drop all others."""
    used = set()
    for element in root.iter():
        for key, value in element.attrib.items():
            if key == _XLINK_HREF:
                used.add(value.removeprefix("#"))
                element.set(key, f"#{prefix}-{value.removeprefix('#')}")
            else:
                used.update(_REFERENCE.findall(value))
                element.set(key, _REFERENCE.sub(rf"#{prefix}-\1", value))
    for element in root.iter():
        name = element.attrib.pop("id", "")
        if name.startswith(_CLASS):
            element.set("class", name.removeprefix(_CLASS))
        elif name in used:
            element.set("id", f"{prefix}-{name}")


def _modernise(root: ET.Element) -> None:
    """Drop XML namespaces (HTML knows SVG) and indentation, and put the page's fonts."""
    for element in root.iter():
        if not (element.text or "").strip():
            element.text = None
        element.tail = None
        element.tag = element.tag.removeprefix(f"{{{_SVG}}}")
        if _XLINK_HREF in element.attrib:
            element.set("href", element.attrib.pop(_XLINK_HREF))
        style = element.get("style")
        if style and "DejaVu" in style:
            element.set("style", style.replace("'DejaVu Sans'", _FONTS))


def standalone(svg: str) -> str:
    """Return an inline figure as a document of its own, on white."""
    spaces = f'xmlns="{_SVG}" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return svg.replace("<svg ", f"<svg {spaces} ", 1).replace(
        'style="', 'style="background: white; ', 1
    )
