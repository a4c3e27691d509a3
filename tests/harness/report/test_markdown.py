"""The Markdown report as a CommonMark renderer reads it: measured text never becomes markup."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from hyperbox.harness.model import Outcome
from hyperbox.harness.report.data import RunData
from hyperbox.harness.report.markdown import markdown
from hyperbox.printing import legible

RENDERER = MarkdownIt("commonmark").enable(["table", "strikethrough"])
HOSTILE = "a|b `c` <b>d</b> *e* __f__ [g](http://h) ![i](j) ~~k~~ &lt; \\\\ $l$ m_n\n# o\n```\np"


class Page(HTMLParser):
    """Tags and text of a rendered page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.html = RENDERER.render(text)
        self.feed(self.html)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def one_line(text: str) -> str:
    return " ".join(legible(text).split())


def hostile(run: RunData, text: str) -> RunData:
    """Put a text wherever measured text can come from."""
    verdict = replace(run.verdicts[0], outcome=Outcome.FAIL, reason=text, remarks=(text, text))
    attempt = {"number": 1, "status": "failed", "reason": text, "warnings": text}
    cells = tuple(replace(cell, attempts=(attempt,)) for cell in run.cells)
    return replace(
        run,
        run_id=one_line(text) or "r",
        verdicts=(verdict,),
        cells=cells,
        problems=(text, text),
        environment={"host": text},
        reproduce=text,
    )


def shape(run: RunData) -> list[str]:
    return Page(markdown(run)).tags


marks = st.sampled_from(
    [*"\\`*_[]~|$<>&#+-=.)(!:@'\"a1 \n\t{}", "&lt;", "&#60;", "```", "**", "__", "![", "](", "<b>"]
)


@settings(max_examples=60, deadline=None)
@given(text=st.lists(marks, max_size=12).map("".join) | st.text(max_size=12))
def test_any_text_stays_text(small_run: RunData, text: str) -> None:
    expected = shape(hostile(small_run, "plain"))
    page = Page(markdown(hostile(small_run, text)))
    assert page.tags == expected
    items = re.findall(r"<li>(.*?)</li>", page.html, re.DOTALL)
    assert [one_line(html.unescape(item)) for item in items] == [one_line(text)] * 2


def test_hostile_text_reads_as_it_was(small_run: RunData) -> None:
    page = Page(markdown(hostile(small_run, HOSTILE)))
    assert page.tags == shape(hostile(small_run, "plain"))
    text = one_line(page.text)
    assert text.count(one_line(HOSTILE)) >= 6


@pytest.mark.parametrize("name", ["run", "troubled_run", "empty_run"])
def test_tables_have_the_columns_of_their_heads(name: str, request: pytest.FixtureRequest) -> None:
    page = Page(markdown(request.getfixturevalue(name)))
    for table in re.findall(r"<table>(.*?)</table>", page.html, re.DOTALL):
        rows = [row.count("<t") for row in re.findall(r"<tr>(.*?)</tr>", table, re.DOTALL)]
        assert len(set(rows)) == 1
    assert not re.search(r"^\|", page.text, re.MULTILINE), "a table that was not seen as one"
