"""Log lines: one a record, ``key=value`` pairs, to standard error (logfmt).

``time`` is UTC, ``event`` the message, the rest what the caller gave by `fields`. Values
with anything but plain characters are JSON strings, so that a line is a line whatever
it says. The standard library's logging does it all; no package is needed.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from collections.abc import Mapping
from typing import TextIO

__all__ = ["LineFormatter", "configure", "fields", "render"]

_PLAIN = re.compile(r"[A-Za-z0-9_./:@%+,\[\]-]+")
_FIELDS = "hyperbox_fields"


def fields(**values: object) -> dict[str, Mapping[str, object]]:
    """Return what logging's `extra` takes, for example ``extra=fields(service="pressure")``."""
    return {_FIELDS: values}


def render(values: Mapping[str, object]) -> str:
    """Write pairs as one line; keys are words, values anything."""
    return " ".join(f"{key}={_value(value)}" for key, value in values.items())


class LineFormatter(logging.Formatter):
    """Formats a record as `render` does; an exception is one of the values."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's line."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        values: dict[str, object] = {
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        values |= getattr(record, _FIELDS, {})
        if record.exc_info:
            values["exception"] = self.formatException(record.exc_info)
        return render(values)


def configure(level: int = logging.INFO, stream: TextIO | None = None) -> None:
    """Send this process's log to `stream`, standard error by default.

    The web server's own notices are left out: the daemon says what matters, and a hostile
    client could fill the log with them. Its errors stay.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(LineFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for noisy in ("uvicorn", "uvicorn.error", "uvicorn.access", "asyncio"):
        logging.getLogger(noisy).setLevel(max(level, logging.ERROR))


def _value(value: object) -> str:
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text)
