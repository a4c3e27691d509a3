"""Log lines: one line whatever is said, and everything can be read back."""

from __future__ import annotations

import io
import json
import logging
import re

from hypothesis import given
from hypothesis import strategies as st

from hyperbox.daemon.logs import LineFormatter, configure, fields, render

KEYS = st.from_regex(r"[a-z_]{1,10}", fullmatch=True)
PAIR = re.compile(r'([a-z_]+)=("(?:[^"\\]|\\.)*"|[^ "]+)(?: |$)')


def parsed(line: str) -> dict[str, str]:
    """Read a line back by its grammar, and nothing but it."""
    found, place = {}, 0
    while place < len(line):
        match = PAIR.match(line, place)
        assert match, line[place:]
        key, value = match.groups()
        found[key] = json.loads(value) if value.startswith('"') else value
        place = match.end()
    return found


@given(st.dictionaries(KEYS, st.text() | st.integers() | st.floats(allow_nan=False)))
def test_whatever_is_said_is_one_line_and_read_back(values: dict[str, object]) -> None:
    line = render(values)
    assert line.isascii()
    assert line.isprintable()
    assert parsed(line) == {key: str(value) for key, value in values.items()}


def test_record_has_time_level_event_and_its_fields() -> None:
    stream = io.StringIO()
    before = logging.getLogger().handlers[:], logging.getLogger().level
    try:
        configure(stream=stream)
        logging.getLogger("hyperbox.test").warning(
            "two words", extra=fields(service="pressure", why="a\nb")
        )
        logging.getLogger("hyperbox.test").debug("not said")
        logging.getLogger("uvicorn.error").warning("not said either")
        try:
            int("x")
        except ValueError:
            logging.getLogger("hyperbox.test").exception("bug")
    finally:
        logging.getLogger().handlers[:], level = before
        logging.getLogger().setLevel(level)
    first, second = (parsed(line) for line in stream.getvalue().splitlines())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", first.pop("time"))
    assert first == {"level": "warning", "event": "two words", "service": "pressure", "why": "a\nb"}
    assert second["exception"].endswith("with base 10: 'x'")


def test_formatter_does_not_change_the_record() -> None:
    record = logging.LogRecord("n", logging.INFO, "f", 1, "%s here", ("args",), None)
    assert 'event="args here"' in LineFormatter().format(record)
    assert record.msg == "%s here"
