"""The release-validation form as PDF: A4 pages to be printed, signed and kept.

Made by ReportLab (BSD licence, Python only), with the fonts that matplotlib brings, so that
a run gives the same bytes on every machine: no clock or path of the machine gets in, and no
font, but for Chinese, Japanese or Korean text (see `hyperbox.harness.report.form_fonts`).
(A renderer of the HTML form, such as WeasyPrint, would take fonts and Pango of the machine.)
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

from reportlab.lib.colors import Color, HexColor
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import (
    CondPageBreak,
    Flowable,
    KeepTogether,
    Paragraph,
    SimpleDocTemplate,
    Spacer,
    Table,
)

from hyperbox.harness.report.form import Form
from hyperbox.harness.report.form_fonts import (
    Lost,
    advice,
    font_markup,
    recording,
    register,
    told,
)
from hyperbox.harness.report.matrix import MatrixEntry
from hyperbox.harness.report.outcome_styles import OutcomeStyle
from hyperbox.harness.verdicts.wording import typeset
from hyperbox.printing import legible

__all__ = ["form_pdf"]

_INK, _SOFT, _LINE = HexColor("#1c2127"), HexColor("#5a6270"), HexColor("#c4cad2")
_MARGIN, _FOOT = 15 * mm, 18 * mm
_WIDTH = A4[0] - 2 * _MARGIN
_PADDING = 6  # points, of every frame of platypus
_LONG_NAME = 25  # characters that fit beside each other in the column of gates
_MOST_TEXT = 600  # characters of one cell: a row must fit on a page
_DATE = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)")

_Cell = Paragraph | str
_Look = tuple[str, tuple[int, int], tuple[int, int], *tuple[Any, ...]]
_Rows = Iterable[Sequence[_Cell]]


def form_pdf(form: Form) -> bytes:
    """Return the form as a PDF file; the same run gives the same bytes.

    Every page names the run, its number and how many there are; table heads are repeated.
    """
    register()
    pages = _built(form, 0)[0]
    return _built(form, pages)[1]


def _built(form: Form, total: int) -> tuple[int, bytes]:
    """Lay the form out; the number of pages is known only after the first time."""
    stream = io.BytesIO()
    title = f"Release validation {legible(form.run.run_id)}"
    document = SimpleDocTemplate(
        stream,
        pagesize=A4,
        leftMargin=_MARGIN - _PADDING,
        rightMargin=_MARGIN - _PADDING,
        topMargin=_MARGIN,
        bottomMargin=_FOOT,
        title=title,
        author=f"hyperbox {legible(form.run.hyperbox_version)}",
        subject=legible(form.release.text),
        creator="hyperbox report",
        lang="en",
        invariant=1,
    )

    def footed(canvas: Canvas, _: object) -> None:
        canvas.setDateFormatter(lambda *_: _pdf_date(form.run.created))
        canvas.setFont("hb", 7.5)
        canvas.setFillColor(_SOFT)
        canvas.drawString(_MARGIN, 10 * mm, told(title[:90]))
        number = f"page {canvas.getPageNumber()} of {total}"
        canvas.drawRightString(A4[0] - _MARGIN, 10 * mm, number)

    document.build(_story(form), onFirstPage=footed, onLaterPages=footed)
    return document.page, stream.getvalue()


def _story(form: Form) -> list[Flowable]:
    with recording() as lost:
        head = list(_head(form))
        rest = [
            *_gates(form),
            *_verdicts(form),
            *_deviations(form),
            *_excluded(form),
            *_problems(form),
            *_environment(form),
            KeepTogether(list(_sign_off(form))),
        ]
    return [*head, *_unprintable(lost), *rest]


def _unprintable(lost: Lost) -> Iterable[Flowable]:
    """Say which characters are missing, since a form that is signed must not hide it."""
    if lost:
        points = [f"U+{ord(character):04X}" for character in sorted(lost)]
        more = f" and {len(points) - 12} more" if len(points) > 12 else ""
        yield Spacer(0, 4)
        yield _text(
            f"Characters that no font of this form has stand as �: "
            f"{', '.join(points[:12])}{more}. release-form.html has them. {advice()}"
        )


def _head(form: Form) -> Iterable[Flowable]:
    yield _text("hyperbox", "soft")
    yield _text("Release validation", "title")
    yield Spacer(0, 8)
    ink = HexColor(form.style.ink)
    said = _paragraph(f"{form.style.symbol} {form.release.text}", _style("said", ink))
    yield Table(
        [[said]],
        [_WIDTH],
        style=[
            ("BOX", (0, 0), (-1, -1), 1.4, ink),
            *((f"{side}PADDING", (0, 0), (-1, -1), 7) for side in ("TOP", "BOTTOM", "LEFT")),
        ],
    )
    yield Spacer(0, 6)
    yield _text(form.headline.text)
    yield Spacer(0, 4)
    yield _table((26, 154), None, ((_small(name), value) for name, value in form.facts))


def _gates(form: Form) -> Iterable[Flowable]:
    yield from _heading("Gates over all kernels", "section")
    head = ("Gate", "Target", "Estimates", "Kernels", "Verdict")
    rows = [
        (
            _named(row.gate.id, row.gate.title),
            row.gate.target,
            row.range_text,
            _lines(row.where),
            _badge(row.style),
        )
        for row in form.gates
    ]
    yield _table((46, 40, 27, 36, 31), head, rows, "The run declares no gates.")


def _verdicts(form: Form) -> Iterable[Flowable]:
    yield from _heading("Verdicts", "section")
    for label, entries in form.tables:
        yield from _heading(f"Kernel {label}", "kernel")
        head = ("Gate", "Limit", "Estimate", "Interval", "n", "Power", "Verdict")
        yield _table(
            (52, 20, 21, 32, 9, 15, 31),
            head,
            map(_verdict, entries),
            "The run declares no gates.",
            numbers=(1, 2, 3, 4, 5),
        )
    yield from _left_out(form.verdicts_left_out, "verdicts", "verdicts.csv")


def _verdict(entry: MatrixEntry) -> Sequence[_Cell]:
    verdict = entry.verdict
    level = f"{100 * verdict.level:.1f} % level" if verdict and verdict.level is not None else ""
    return (
        _named(entry.gate.id, entry.gate.target),
        _number(entry.limit_text),
        _number(entry.estimate_text, strong=True),
        _number(entry.interval_text, level),
        _number(str(verdict.n) if verdict else ""),
        _number(entry.power_text),
        _badge(entry.style),
    )


def _deviations(form: Form) -> Iterable[Flowable]:
    yield from _heading("Deviations", "section")
    if not form.deviations:
        yield _text("None: every gate passed on every kernel.")
        return
    head = ("Gate", "Kernel", "Verdict and reason", "Accepted because (initials)")
    rows = [
        (_named(entry.gate.id), entry.column.label, _badge(entry.style, entry.reason), "")
        for entry in form.deviations
    ]
    yield _table((44, 18, 66, 52), head, rows, ruled=True)
    yield from _left_out(form.deviations_left_out, "deviations", "verdicts.csv")


def _excluded(form: Form) -> Iterable[Flowable]:
    yield from _heading("Attempts that were skipped, failed or excluded", "section")
    if not form.excluded:
        yield _text("None: every attempt was measured, and counts.")
        return
    head = ("Cell", "No.", "Status", "Reason", "Use")
    rows = (
        (_named(one.cell), one.number, one.status, f"{one.reason} {one.other}", one.used)
        for one in form.excluded
    )
    yield _table((50, 9, 19, 68, 34), head, rows)
    yield from _left_out(form.excluded_left_out, "attempts", "report.html")


def _problems(form: Form) -> Iterable[Flowable]:
    if form.run.problems:
        yield from _heading("What could not be read", "section")
        for problem in form.run.problems[:20]:
            yield _text(f"\N{EN DASH} {problem}")
        yield from _left_out(len(form.run.problems) - 20, "sentences", "summary.json")


def _environment(form: Form) -> Iterable[Flowable]:
    yield from _heading("Environment", "section")
    head = ("Kernel", "Release and package", "SHA-256", "Remarks")
    rows = (
        (
            record.get("label", "?"),
            _named(record.get("release", ""), record.get("version", "")),
            _named(record.get("sha256", "")),
            record.get("remarks", ""),
        )
        for record in form.kernels
    )
    yield _table((16, 54, 62, 48), head, rows, "No kernel is on record.")
    yield Spacer(0, 6)
    yield _table((30, 150), ("Machine", "Value"), form.machine, "No environment is on record.")


def _sign_off(form: Form) -> Iterable[Flowable]:
    yield from _heading("Sign-off", "section")
    yield _text(
        "\N{BALLOT BOX} The run directory with all samples, logs and configurations is kept."
    )
    again = f"\N{BALLOT BOX} The run can be repeated: {_code(form.run.reproduce)}"
    yield Paragraph(again, _style("body"))
    yield Spacer(0, 4)
    head = ("Role", "Name", "Decision", "Date", "Signature")
    decision = "\N{BALLOT BOX} yes\N{EM SPACE}\N{BALLOT BOX} no"
    rows = [(role, "", decision, "", "") for role in form.signatories]
    widths = [width * mm for width in (32, 46, 32, 28, 42)]
    cells = [[_text(name, "head") for name in head], *([_text(c) for c in row] for row in rows)]
    yield Table(
        cells,
        widths,
        [None, *(15 * mm for _ in rows)],
        style=[("GRID", (0, 0), (-1, -1), 0.8, _INK), ("VALIGN", (0, 1), (-1, -1), "BOTTOM")],
    )


def _table(
    widths: Sequence[float],
    head: Sequence[str] | None,
    rows: _Rows,
    empty: str = "",
    *,
    numbers: Sequence[int] = (),
    ruled: bool = False,
) -> Table:
    """Return a table of `widths` in mm, its head repeated on every page; `numbers` are columns."""
    titles = (
        []
        if head is None
        else [
            [
                _text(name, "head-number" if at in numbers else "head")
                for at, name in enumerate(head)
            ]
        ]
    )
    cells = [[_text(c) if isinstance(c, str) else c for c in row] for row in rows]
    look: list[_Look] = [
        ("VALIGN", (0, 0), (-1, -1), "TOP"),
        ("LEFTPADDING", (0, 0), (-1, -1), 0),
        ("RIGHTPADDING", (0, 0), (-1, -1), 8),
        ("TOPPADDING", (0, 0), (-1, -1), 2.5),
        ("BOTTOMPADDING", (0, 0), (-1, -1), 3.5),
        ("LINEBELOW", (0, 0), (-1, -1), 0.4, _LINE),
    ]
    if titles:
        look.append(("LINEBELOW", (0, 0), (-1, 0), 0.8, _SOFT))
    if ruled:
        look += [
            ("LINEBEFORE", (-1, 0), (-1, -1), 0.4, _LINE),
            ("LEFTPADDING", (-1, 0), (-1, -1), 5),
        ]
    if not cells and empty:
        cells = [[_text(empty), *(_text("") for _ in widths[1:])]]
        look.append(("SPAN", (0, 1), (-1, 1)))
    return Table(
        [*titles, *cells], [width * mm for width in widths], repeatRows=len(titles), style=look
    )


def _heading(text: str, style: str = "section") -> Iterable[Flowable]:
    """Return a heading that is not left alone at the foot of a page."""
    yield CondPageBreak(36 * mm)
    yield _text(text, style)


def _left_out(count: int, what: str, where: str) -> Iterable[Flowable]:
    if count > 0:
        yield _text(f"{count} further {what} are in {where}.", "soft")


def _badge(style: OutcomeStyle, reason: str = "") -> Paragraph:
    word = f'<font name="hb-bold" color="{style.ink}">{style.symbol} {style.word}</font>'
    return Paragraph(word + (f"<br/>{_markup(reason)}" if reason else ""), _style("body"))


def _named(name: str, title: str = "") -> Paragraph:
    """Return an identifier, and below it what it is."""
    below = f'<br/><font color="#5a6270" size="7">{_markup(title)}</font>' if title else ""
    return Paragraph(_code(name) + below, _style("body"))


def _code(text: str) -> str:
    """Return markup for what is copied as it stands: no typographic minus signs."""
    size = 7.5 if len(text) > _LONG_NAME else 8
    return (
        f'<font name="hb-mono" size="{size}">{font_markup(_cut(legible(text)), "hb-mono")}</font>'
    )


def _number(text: str, below: str = "", *, strong: bool = False) -> Paragraph:
    number = f'<font name="hb-bold">{_markup(text)}</font>' if strong else _markup(text)
    number += f'<br/><font color="#5a6270" size="7">{_markup(below)}</font>' if below else ""
    return Paragraph(number, _style("number"))


def _lines(lines: Sequence[str]) -> Paragraph:
    return Paragraph("<br/>".join(map(_markup, lines)), _style("body"))


def _small(text: str) -> Paragraph:
    return _text(text, "soft")


def _text(text: str, style: str = "body") -> Paragraph:
    return _paragraph(text, _style(style))


def _paragraph(text: str, style: ParagraphStyle) -> Paragraph:
    return Paragraph(_markup(text), style)


def _markup(text: str) -> str:
    """Keep measured text from becoming markup, and a row from outgrowing its page."""
    return font_markup(typeset(_cut(legible(text))))


def _cut(text: str) -> str:
    return text if len(text) <= _MOST_TEXT else f"{text[:_MOST_TEXT]}… (cut here)"


@lru_cache(maxsize=32)
def _style(name: str, ink: Color = _INK) -> ParagraphStyle:
    size = {"title": 18.0, "section": 12.0, "said": 10.5, "kernel": 9.5}.get(name, 8.0)
    bold = name in ("title", "section", "said", "kernel", "head", "head-number")
    before = {"section": 12.0, "kernel": 7.0}.get(name, 0.0)
    return ParagraphStyle(
        name,
        fontName="hb-bold" if bold else "hb",
        fontSize=size,
        leading=1.3 * size,
        textColor=_SOFT if name.startswith(("soft", "head")) else ink,
        spaceBefore=before,
        spaceAfter=before / 3,
        alignment=2 if name.endswith("number") else 0,
    )


def _pdf_date(created: str) -> str:
    """Return the run's time as PDF writes it; the run is the only clock of the form."""
    found = _DATE.match(created)
    return f"D:{''.join(found.groups())}Z" if found else "D:19700101000000Z"
