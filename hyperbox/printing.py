"""What is printed for people: texts of others made harmless, an error as one line.

Guests, cgroups, files and archives choose their texts freely, and a terminal obeys escape
sequences: whatever quotes them goes through `legible` or `one_line`, or through
`hyperbox.console`, which does so itself.
"""

from __future__ import annotations

import contextlib
import re
import sys

from hyperbox.errors import HyperboxError

__all__ = ["complain", "legible", "one_line", "print_error"]

# Control characters but tab and newline, lone surrogates, non-characters, and the marks
# that turn the direction of text.
_ILLEGIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff\u202a-\u202e\u2066-\u2069]"
)


def legible(text: str) -> str:
    """Replace what a guest's text must not bring into a terminal, an XML file or a page."""
    return _ILLEGIBLE.sub("\N{REPLACEMENT CHARACTER}", text)


def one_line(text: str) -> str:
    """Return it legible, with a blank for all that lies between words, line ends included."""
    return legible(" ".join(text.split()))


def complain(text: str) -> None:
    """Print a line on standard error; that nobody reads it is not an error."""
    with contextlib.suppress(OSError):
        print(one_line(text), file=sys.stderr, flush=True)


def print_error(error: HyperboxError) -> None:
    """Print an error on standard error: one line, and its hint as another."""
    complain(f"hyperbox: error: {error.message}")
    if error.hint:
        complain(f"hint: {error.hint}")
