"""The console of every verb: rich, but texts of others stay text and no size hides them."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable, Iterator
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from hyperbox.printing import legible

__all__ = ["TerminalConsole"]

_LEAST = {"COLUMNS": 24, "LINES": 1}
_NUMBER = re.compile("[0-9]{1,4}")


class TerminalConsole(Console):
    """Takes no markup and no emoji names, and replaces control characters.

    A size in the environment at which nothing could be read (rich prints nothing at all with
    ``COLUMNS=0``) counts as not given: the terminal is asked, and 80 columns if there is none.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings, markup=False, emoji=False, _environ=dict(_environment()))

    def on_broken_pipe(self) -> None:
        """Raise what the command line expects of any output; rich would end it with 1."""
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    def render_str(self, text: str, **settings: Any) -> Text:
        """Return a cell, a title or a line as rich text, replaced before it is measured."""
        return super().render_str(legible(text), **settings)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Return the segments of anything; rich's own control codes stay."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(legible(segment.text), segment.style)


def _environment() -> Iterator[tuple[str, str]]:
    for name, value in os.environ.items():
        least = _LEAST.get(name)
        if least is None or (_NUMBER.fullmatch(value) and int(value) >= least):
            yield name, value
