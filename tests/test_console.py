"""The console: texts of others in every place that rich has, and sizes that hide nothing."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from hyperbox.console import TerminalConsole

_HOSTILE = "\x1b[2J\x9b31m[red]:boom:[/x]\x07"
_SHOWN = "\ufffd[2J\ufffd31m[red]:boom:[/x]\ufffd"


def _printed(thing: object, **settings: Any) -> str:
    said = io.StringIO()
    TerminalConsole(file=said, **settings).print(thing)
    return said.getvalue()


def _table(text: str) -> Table:
    table = Table(title=text, caption=text)
    table.add_column(text)
    table.add_row(text)
    table.add_row(Text(text))
    table.add_row(Panel(text))
    return table


def test_texts_of_others_are_shown_and_not_obeyed() -> None:
    for thing, times in ((_HOSTILE, 1), (Text(_HOSTILE), 1), (_table(_HOSTILE), 6)):
        text = _printed(thing, width=80)
        assert not {"\x1b", "\x9b", "\x07"} & set(text)
        assert text.count("[red]:boom:[/x]") == times


def test_columns_stand_below_each_other_whatever_is_in_them() -> None:
    table = Table("one", "two")
    table.add_row(_HOSTILE, "x")
    table.add_row("plain", "x")
    rows = [line for line in _printed(table, width=80).splitlines() if "x " in line[-5:]]
    assert len(rows) == 2
    assert len({line.rindex("x") for line in rows}) == 1
    assert _SHOWN in rows[0]


def test_our_own_styles_still_reach_a_terminal() -> None:
    text = _printed(Text("red", style="red"), force_terminal=True, color_system="standard")
    assert "\x1b[31mred\x1b[0m" in text


@pytest.mark.parametrize(
    "columns", ["0", "1", "23", "-1", "abc", "", "\N{SUPERSCRIPT TWO}", "9" * 5000]
)
def test_a_width_at_which_nothing_could_be_read_is_not_one(
    columns: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("LINES", columns)
    table = Table("name", box=None)
    table.add_row("x" * 70)
    assert "x" * 70 in _printed(table)


def test_a_width_that_can_be_read_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "24")
    assert TerminalConsole(file=io.StringIO()).width == 24
