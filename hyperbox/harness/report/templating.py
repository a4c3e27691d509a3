"""The environment of all pages: measured text is cleaned and escaped, nothing is loaded."""

from __future__ import annotations

from pathlib import Path

import jinja2
from markupsafe import Markup

from hyperbox.harness.report.outcome_styles import outcome_css
from hyperbox.harness.verdicts.wording import typeset
from hyperbox.printing import legible

__all__ = ["environment"]

_TEMPLATES = Path(__file__).parent / "templates"


def environment(most_text: int | None = None) -> jinja2.Environment:
    """Return the environment of a page's template; texts beyond `most_text` characters are cut."""

    def finished(value: object) -> object:
        """Clean every text that goes into the page, but not markup, which is made here."""
        if not isinstance(value, str) or isinstance(value, Markup):
            return value
        if most_text is not None and len(value) > most_text:
            value = f"{value[:most_text]}… (cut here)"
        return legible(value)

    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=finished,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {"typeset": typeset, "css_string": _css_string}
    found.globals["outcome_css"] = outcome_css
    return found


def _css_string(text: str) -> Markup:
    """Return text as a string of CSS, every character that could end it escaped."""
    escaped = (c if c.isascii() and c.isalnum() else f"\\{ord(c):06x}" for c in legible(text))
    return Markup(f'"{"".join(escaped)}"')  # noqa: S704 - nothing but letters and escapes is left
