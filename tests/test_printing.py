"""Texts of others on a terminal: nothing in them is obeyed, and they stay one line."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hyperbox.errors import HarnessError
from hyperbox.printing import legible, one_line, print_error


@given(st.text())
@example("\x1b]0;title\x07")
@example("\x9b2J\x7f\u202e\ud800\ufffe")
def test_nothing_that_a_terminal_obeys_stays(text: str) -> None:
    seen = legible(text)
    assert len(seen) == len(text)
    kinds = {unicodedata.category(one) for one in seen if one not in "\t\n"}
    assert not kinds & {"Cc", "Cs"}
    seen.encode()


@given(st.text())
@example("a\r\nb\x85c\u2028d\x1ee")
def test_one_line_is_one_line_and_keeps_the_words(text: str) -> None:
    seen = one_line(text)
    assert len(seen.splitlines()) <= 1
    assert seen.split() == [legible(word) for word in text.split()]


def test_an_error_is_a_line_and_its_hint_another(capsys: pytest.CaptureFixture[str]) -> None:
    print_error(HarnessError("cannot\nread \x1b[2J", hint="try\tagain"))
    print_error(HarnessError("no hint"))
    assert capsys.readouterr().err.splitlines() == [
        "hyperbox: error: cannot read \N{REPLACEMENT CHARACTER}[2J",
        "hint: try again",
        "hyperbox: error: no hint",
    ]
