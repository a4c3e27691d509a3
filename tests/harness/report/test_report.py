"""The report's forms: valid, complete, self-contained, and safe against what guests write."""

from __future__ import annotations

import argparse
import csv
import io
import json
import random
import re
import shlex
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from rich.console import Console

from hyperbox.cli import validate
from hyperbox.errors import ExitCode, HarnessError
from hyperbox.harness.model import Lane, Outcome, Rule, Sample, Scale, Verdict
from hyperbox.harness.report.cell_plots import cell_figure
from hyperbox.harness.report.cells import attempts, flat, metric_rows, reproduce_commands
from hyperbox.harness.report.data import RunData
from hyperbox.harness.report.exports import CSV_COLUMNS, summary, verdicts_csv
from hyperbox.harness.report.forest import forest_plot
from hyperbox.harness.report.history import history
from hyperbox.harness.report.junit import junit_xml
from hyperbox.harness.report.markdown import markdown
from hyperbox.harness.report.matrix import (
    MatrixEntry,
    block_values,
    entries,
    headline,
    release_headline,
)
from hyperbox.harness.report.page import html_page, write_report
from hyperbox.harness.report.tables import headline_text, verdict_table
from hyperbox.harness.verdicts.diagnosis import UNDERPOWERED
from hyperbox.harness.verdicts.gates import decide
from hyperbox.harness.verdicts.wording import relative, typeset

Draw = Callable[[RunData], str]

BESIDE = {
    "release-form.html",
    "report.md",
    "verdicts.csv",
    "summary.json",
    "junit.xml",
    "kcidb.json",
}
VOID = {"meta", "link", "br", "hr", "img", "input", "col", "wbr"}


class Page(HTMLParser):
    """Strict reading: every element is closed in order, no id twice."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str, str]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"attribute twice in <{tag}>"
        for name, value in attrs:
            self.attributes.append((tag, name, value or ""))
            if name == "id":
                self.ids.append(value or "")
            self.references += re.findall(r"url\(#([^)]+)\)", value or "")
            if name == "href" and (value or "").startswith("#"):
                self.references.append((value or "")[1:])
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(params=["run", "troubled_run", "empty_run"])
def any_run(request: pytest.FixtureRequest) -> RunData:
    found = request.getfixturevalue(request.param)
    assert isinstance(found, RunData)
    return found


def test_page_is_well_formed_and_self_contained(any_run: RunData, page_of: Draw) -> None:
    text = page_of(any_run)
    assert text.lstrip().startswith("<!DOCTYPE html>")
    page = Page(text)
    assert len(page.ids) == len(set(page.ids))
    assert set(page.references) <= set(page.ids)
    assert not page.tags & {"script", "link", "iframe", "object", "img"}
    for tag, name, value in page.attributes:
        assert not name.startswith("on"), f"{name} in <{tag}>"
        assert name != "src"
        assert name != "href" or value.startswith("#") or value in BESIDE
        assert "http:" not in value or name.startswith("xmlns")
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", text)


def test_page_tells_everything_in_order(run: RunData, page_of: Draw) -> None:
    text = Page(page_of(run)).text
    for entry in entries(run):
        assert entry.gate.target.split(",")[0] in text
    wanted = [
        "Gates and kernels at a glance",
        "What did not pass",
        "Kernel 5.10",
        "Estimates against targets",
        "Measurements, cell by cell",
        "A/A: the same against the same",
        "Attempts, skips and failures",
        "Kernels and environment",
        "newest of its series taken",
        "What each lane measures",
        "hyperbox validate --kernels 5.10,6.12,7.3 --seed 1 --lane exact",
    ]
    head, _, body = text.partition("Form")  # the last link to a section
    assert "Failed: psi.swap_reduction on 7.3 and psi.no_degradation on 7.3" in head
    places = [body.index(words) for words in wanted]
    assert places == sorted(places)
    assert "exceeds band" in text
    assert "\N{MINUS SIGN}83.1 %" in text


def test_page_is_the_same_every_time(small_run: RunData) -> None:
    assert html_page(small_run) == html_page(small_run)


def test_hostile_text_stays_text(troubled_run: RunData, page_of: Draw) -> None:
    page = Page(page_of(troubled_run))
    assert "b" not in page.tags
    assert "<b>& \N{REPLACEMENT CHARACTER}[31m|panic|" in page.text
    assert "shrink_lruvec+0x1f" in page.text
    assert "6 of the cells are untested" in page.text
    assert "No samples: <b>&" in page.text


def of_gate(run: RunData, place: int) -> list[MatrixEntry]:
    return [entry for entry in entries(run) if entry.gate == run.gates[place]]


def test_figures_show_what_was_measured(run: RunData, troubled_run: RunData) -> None:
    plot = forest_plot(of_gate(run, 2))
    assert "exact" not in plot
    assert all(kernel in plot for kernel in ("5.10", "6.12", "7.3", "PASS", "limit"))
    failed = [e for e in entries(troubled_run) if e.cell and not e.cell.samples]
    assert failed
    assert cell_figure(failed) == ""
    nothing = replace(troubled_run, verdicts=())
    assert forest_plot(of_gate(nothing, 0)) == ""


def test_the_page_opens_with_matrix_and_what_did_not_pass(
    run: RunData, troubled_run: RunData, page_of: Draw
) -> None:
    """Every gate on every kernel, linked to its cell; what is not a PASS again, with the reason."""
    for one, outcomes in (
        (run, {"pass": 12, "fail": 2, "inconclusive": 1}),
        (troubled_run, {"pass": 6, "skip": 1, "error": 1, "inconclusive": 1, "untested": 6}),
    ):
        page = page_of(one)
        grid = page[page.index('<section id="matrix">') : page.index('<section id="open">')]
        tiles = Counter(re.findall(r'<td class="([a-z]+)">', grid))
        assert tiles == outcomes
        linked = re.findall(r'<td class="[a-z]+"><a href="#cell-[^"]+">[^<]', grid)
        assert len(linked) == tiles.total(), "every tile leads to its cell"
        rest = page[page.index('<section id="open">') : page.index('<section id="verdicts">')]
        rows = rest.count("<tr><td")
        assert rows == tiles.total() - tiles["pass"]
    assert "no /proc/pressure: boot with psi=1" in rest
    assert rest.index("ERROR") < rest.index("UNTESTED") < rest.index("SKIP")


def test_remarks_that_help_nobody_choose_stand_in_the_details_only(
    run: RunData, page_of: Draw
) -> None:
    """ "underpowered for smaller effects" filled half of every table beside a PASS far beyond."""
    page = unescape(page_of(run))
    summary, details = page[: page.index('id="cells"')], page[page.index('id="cells"') :]
    text = markdown(run)
    tables, measurements = text.split("## Measurements")
    seen = [remark for entry in entries(run) for remark in entry.remarks]
    hidden = [one for one in seen if one.startswith("perturbed starts spread from")]
    decided = [e for e in entries(run) if e.style.word in ("PASS", "FAIL")]
    hidden += [one for e in decided for one in e.remarks if one.startswith(UNDERPOWERED)]
    assert len(hidden) > 10
    for remark in hidden:
        words = typeset(remark)
        assert words not in summary
        assert words in details
        assert remark.split(" from ")[0] not in tables
        assert remark.split(" from ")[0] in measurements
    assert "exceeds band" in summary


def test_lanes_of_one_kernel_stand_side_by_side(run: RunData) -> None:
    """A cell is kernel x experiment x lane: neither lane hides the other."""
    cell = run.cells[0]
    beside = replace(cell, cell=replace(cell.cell, lane=Lane.KVM))
    verdicts = [v for v in run.verdicts if v.kernel == "5.10" and v.gate == "psi.accuracy"]
    other = replace(verdicts[0], lane=Lane.KVM, outcome=Outcome.FAIL)
    both = replace(run, cells=(*run.cells, beside), verdicts=(*run.verdicts, other))
    found = [e for e in entries(both) if (e.gate.id, e.kernel) == ("psi.accuracy", "5.10")]
    assert [(e.lane, e.style.word) for e in found] == [(Lane.EXACT, "PASS"), (Lane.KVM, "FAIL")]
    assert [e.column.label for e in found] == ["5.10 exact", "5.10 kvm"]
    # What the other lane was never to measure is not missing there.
    kvm = [e.gate.id for e in entries(both) if e.lane is Lane.KVM]
    assert kvm == ["psi.accuracy", "psi.monitor_cpu"]
    # It decides nothing either.
    assert "psi.accuracy on 5.10 kvm" not in headline(both).text
    assert "Beside it, the kvm lane: 0 of 2 pass." in headline(both).text


def test_headlines(run: RunData, troubled_run: RunData, empty_run: RunData) -> None:
    assert headline(run).outcome is Outcome.FAIL
    assert headline(run).code is ExitCode.GATE_FAILED
    assert headline(troubled_run).outcome is Outcome.ERROR
    assert headline(troubled_run).text.startswith("Incomplete: psi.pressure_reduction on 7.3")
    assert headline(empty_run).code is ExitCode.HARNESS_ERROR
    assert headline(empty_run).text.startswith("Nothing was decided")
    good = replace(run, verdicts=tuple(v for v in run.verdicts if v.outcome is Outcome.PASS))
    assert headline(good).text.startswith("Nothing failed, with gaps: 12 of 15 verdicts")
    assert headline(good).outcome is Outcome.INCONCLUSIVE
    one = replace(good, gates=good.gates[:1])
    assert headline(one).text == "Passed: all 3 verdicts on 3 kernels pass."
    single = replace(one, verdicts=one.verdicts[:1], cells=one.cells[:1], kernels=one.kernels[:1])
    assert headline(single).text == "Passed: the one verdict on 1 kernel passes."
    skip = Verdict("psi.accuracy", "5.10", Lane.EXACT, Outcome.SKIP, "no PSI")
    skipped = replace(one, verdicts=(*(v for v in one.verdicts if v.kernel != "5.10"), skip))
    assert headline(skipped).outcome is Outcome.INCONCLUSIVE
    assert "1 skipped with no gate in their place" in headline(skipped).text
    assert "on every kernel" not in headline(skipped).text
    stood_in = tuple(replace(v, stand_in="psi.fallback" * v.is_hole) for v in skipped.verdicts)
    covered = headline(replace(skipped, verdicts=stood_in))
    assert covered.outcome is Outcome.PASS
    assert "1 skipped where another gate passes in their place" in covered.text


def test_a_gate_that_every_kernel_skips_is_named(run: RunData) -> None:
    gone = run.gates[1].id
    skips = tuple(
        replace(v, outcome=Outcome.SKIP, stand_in="x") if v.gate == gone else v
        for v in run.verdicts
    )
    other = replace(run, verdicts=skips)
    assert headline(other).text.endswith(f" Skipped on every kernel: {gone}.")
    assert f"skipped on every kernel: {gone}" in release_headline(other).text
    assert f"Skipped on every kernel: {gone}" in markdown(other)


def test_junit_counts_what_it_holds(any_run: RunData) -> None:
    root = ET.fromstring(junit_xml(any_run))
    assert root.tag == "testsuites"
    kernels = [suite for suite in root if suite.attrib["name"] != "hyperbox.record"]
    assert len(kernels) == len(any_run.kernels)
    assert all(len(suite.findall("testcase")) == len(any_run.gates) for suite in kernels)
    for suite in root:
        assert int(suite.attrib["tests"]) == len(suite.findall("testcase"))
        for tag, attribute in (
            ("failure", "failures"),
            ("error", "errors"),
            ("skipped", "skipped"),
        ):
            assert int(suite.attrib[attribute]) == len(suite.findall(f"testcase/{tag}"))
        assert float(suite.get("time", "0")) >= 0


def test_junit_never_counts_a_hole_as_passed(troubled_run: RunData) -> None:
    root = ET.fromstring(junit_xml(troubled_run))
    passed = [
        case.attrib["name"]
        for case in root.iter("testcase")
        if not any(case.find(tag) is not None for tag in ("failure", "error", "skipped"))
    ]
    outcomes = [verdict.outcome for verdict in troubled_run.verdicts]
    assert len(passed) == outcomes.count(Outcome.PASS)
    messages = [element.attrib["message"] for element in root.iter("skipped")]
    assert sum(message.startswith("UNTESTED") for message in messages) == 6
    assert sum(message.startswith("INCONCLUSIVE") for message in messages) == 1


def test_summary_is_strict_json(any_run: RunData) -> None:
    text = json.dumps(summary(any_run), allow_nan=False)
    shown = json.loads(text)
    assert shown["schema"] == 1
    assert shown["exit_code"] == headline(any_run).code
    assert len(shown["verdicts"]) == len(any_run.gates) * len(any_run.kernels)


def test_numbers_out_of_range_break_no_form(small_run: RunData) -> None:
    verdict = small_run.verdicts[0]
    wild = replace(verdict, estimate=float("inf"), low=float("nan"), high=float("inf"))
    odd = replace(small_run, verdicts=(wild,))
    assert summary(odd)["verdicts"][0]["estimate"] is None
    assert "inf" in markdown(odd)
    assert "inf" in Page(html_page(odd)).text


def test_csv_has_one_line_per_gate_and_kernel(troubled_run: RunData) -> None:
    rows = list(csv.DictReader(io.StringIO(verdicts_csv(troubled_run))))
    assert len(rows) == 15
    assert tuple(rows[0]) == CSV_COLUMNS
    error = next(row for row in rows if row["outcome"] == "ERROR")
    assert error["estimate"] == ""
    assert '"quoted"' in error["reason"]
    good = next(r for r in rows if r["gate"] == "psi.pressure_reduction" and r["kernel"] == "6.12")
    assert float(good["high"]) < float(good["limit"]) == -0.05
    assert float(good["p_met"]) <= 0.00625 < float(good["p_missed"])


def test_markdown_tables_hold_together(any_run: RunData) -> None:
    text = markdown(any_run)
    widths: set[int] = set()
    for line in [*text.splitlines(), ""]:
        if line.startswith("|"):
            widths.add(len(re.findall(r"(?<!\\)\|", line)))
        else:
            assert len(widths) <= 1
            widths = set()
    assert "<b>" not in text
    assert "\x1b" not in text


def test_terminal_table_shows_verdicts_and_reasons(troubled_run: RunData) -> None:
    console = Console(width=200, file=io.StringIO(), color_system=None, record=True)
    console.print(verdict_table(troubled_run))
    console.print(headline_text(troubled_run))
    text = console.export_text()
    for word in (
        "✓ PASS",
        "\N{EN DASH} SKIP",
        "! ERROR",
        "? INCONCLUSIVE",
        "UNTESTED",
        "boot with psi=1",
    ):
        assert word in text
    assert "\x1b" not in text


def test_metric_rows_hide_nothing(run: RunData) -> None:
    cell = run.cells[1]
    stray = Sample(0, 0, "on", "surprise", 3.0)
    rows = metric_rows(run, replace(cell, samples=(*cell.samples, stray)))
    titles = [row.metric.title for row in rows]
    assert titles == [*(m.title for m in cell.experiment.metrics), "surprise (undeclared)"]
    assert rows[0].changes == ("-83.1 %",)
    assert rows[0].gates == ("psi.pressure_reduction",)
    assert rows[-1].arms == ("not measured", "3")
    assert rows[-1].changes == ("",)
    assert metric_rows(run, run.cells[0])[0].arms == ("0 (all 8 alike)",)


@pytest.mark.parametrize("lane", [Lane.EXACT, Lane.FAST])
def test_a_cell_and_its_verdict_tell_one_estimate(run: RunData, lane: Lane) -> None:
    """Of skewed pairs median and Hodges-Lehmann's estimate differ."""
    changes = (-0.5, -0.5, -0.5, -0.49, -0.5, -0.1, -0.05, 0.0)
    gate = next(gate for gate in run.gates if gate.id == "psi.pressure_reduction")
    cell = next(cell for cell in run.cells if cell.experiment.id == gate.experiment)
    samples = [
        Sample(block, place, arm, metric.id, 1000.0 * factor)
        for block, change in enumerate(changes)
        for place, (arm, factor) in enumerate((("off", 1.0), ("on", 1 + change)))
        for metric in cell.experiment.metrics
    ]
    there = replace(cell, cell=replace(cell.cell, lane=lane), samples=tuple(samples))
    verdict = decide(gate, there.experiment, there.cell.kernel, lane, there.samples)
    (row,) = (row for row in metric_rows(run, there) if gate.id in row.gates)
    assert row.changes == (relative(verdict.estimate or 0.0),)


def test_block_values_leave_out_what_the_gate_cannot_use(run: RunData) -> None:
    cell = run.cells[1]
    assert len(block_values(cell, run.gates[2])) == 12
    holed = [s for s in cell.samples if not (s.block == 3 and s.arm == "off")]
    zeroed = [replace(s, value=0.0) if s.block == 5 else s for s in holed]
    blocks = [v.block for v in block_values(replace(cell, samples=tuple(zeroed)), run.gates[2])]
    assert blocks == [0, 1, 2, 4, 6, 7, 8, 9, 10, 11]


def test_attempts_keep_reasons_and_unknown_facts(troubled_run: RunData) -> None:
    failed = next(a for a in attempts(troubled_run) if a.status == "failed")
    assert "panic" in failed.reason
    assert failed.seconds == ""
    assert failed.other == "fingerprint=shrink_lruvec+0x1f"


def test_nested_records_are_flattened() -> None:
    assert flat({"a": {"b": {"c": 1}}, "d": [1, "x"], "e": None}) == {
        "a.b.c": "1",
        "d": "1, x",
        "e": "",
    }


def test_write_report_writes_all_forms(small_run: RunData, tmp_path: Path) -> None:
    directory = tmp_path / "deep" / "report"
    paths = write_report(small_run, directory)
    plots = [f"plots/{gate.id}.svg" for gate in small_run.gates]
    assert [path.relative_to(directory).as_posix() for path in paths] == [
        "report.html",
        "release-form.html",
        "report.md",
        "junit.xml",
        "verdicts.csv",
        *plots,
        "summary.json",
        "kcidb.json",
    ]
    assert sorted(path for path in directory.rglob("*") if path.is_file()) == sorted(paths)
    assert {path.name for path in paths} >= BESIDE, "the page links to them"
    for path in paths:
        if path.suffix == ".svg":
            assert ET.fromstring(path.read_text()).tag == "{http://www.w3.org/2000/svg}svg"
    before = paths[0].read_bytes()
    write_report(small_run, directory)
    assert paths[0].read_bytes() == before


def test_an_unwritable_place_is_one_clear_error(small_run: RunData, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(HarnessError, match="cannot write"):
        write_report(small_run, tmp_path / "file")


def test_surrogates_of_undecodable_bytes_do_not_break_a_report(
    small_run: RunData, tmp_path: Path
) -> None:
    bad = replace(small_run.verdicts[0], outcome=Outcome.ERROR, reason="bytes \udcff\udc00")
    attempt = {"number": 1, "status": "failed", "reason": "bytes \udcff", "log\udcff": "\udcff"}
    cells = (replace(small_run.cells[0], attempts=(attempt,)),)
    write_report(replace(small_run, verdicts=(bad,), cells=cells), tmp_path)


def test_false_alarm_gates_have_a_panel_of_their_own(run: RunData) -> None:
    """A/A gates stand apart: they say how the measurement errs, not what a target does."""
    name = "harness.false_alarm.swap_storm"
    gates = (replace(run.gates[2], id=name, title="The same twice"), *run.gates[3:])
    verdicts = tuple(replace(v, gate=name) for v in run.verdicts if v.gate == run.gates[2].id)
    text = html_page(replace(run, gates=gates, verdicts=verdicts))
    panel = text.index('<section id="false-alarms">')
    assert panel < text.index("The same twice", panel) < text.index('<section id="attempts">')
    forest = text[text.index('<section id="forest">') : text.index('<section id="matrix">')]
    assert name not in forest
    # Interval, power and verdict stand there too: the tables above have the targets only.
    table = text[panel : text.index('<section id="attempts">')]
    assert table.count('data-label="Verdict"') == 3
    assert table.count("% level") == 3
    assert text.count(f"<code>{name}</code></a>") == 3


def test_attempts_say_which_one_counts(run: RunData) -> None:
    first, second = dict(run.cells[0].attempts[0]), dict(run.cells[0].attempts[0])
    first |= {"status": "failed", "reason": "machine lost"}
    second |= {"number": 2}
    third = {**second, "number": 3}
    cell = replace(run.cells[0], attempts=(first, second, third))
    shown = attempts(replace(run, cells=(cell,)))
    assert [a.used for a in shown] == [
        "excluded: failed",
        "counts",
        "excluded: an earlier attempt counts",
    ]
    assert [a.plain for a in shown] == [False, False, False]
    failed = replace(cell, attempts=(first, {**first, "number": 2}))
    used = [a.used for a in attempts(replace(run, cells=(failed,)))]
    assert used == ["excluded: tried again", "counts: no attempt succeeded"]


def test_commands_repeat_a_cell(run: RunData) -> None:
    recorded, again = reproduce_commands(run, run.cells[1])
    assert recorded == f"hyperbox reproduce runs/{run.run_id} --cell 5.10--psi.swap_storm--exact"
    assert again.startswith("hyperbox validate psi.pressure_reduction psi.swap_reduction ")
    assert again.endswith("--kernel 5.10 --lane exact --seed 1")
    published = replace(run, directory=Path("reports/psi"))
    assert reproduce_commands(published, run.cells[1])[0].startswith(
        "hyperbox reproduce reports/psi "
    )
    # Only measured cells of the exact lane can be compared bit for bit: `reproduce` says no.
    host = replace(run.cells[0], cell=replace(run.cells[0].cell, lane=Lane.HOST))
    (alone,) = reproduce_commands(run, host)
    assert "--target host" in alone
    assert len(reproduce_commands(run, replace(run.cells[0], samples=()))) == 1
    parser_accepts(again)


def parser_accepts(command: str) -> None:
    """The command is one that this very version takes."""
    parser = argparse.ArgumentParser()
    validate.add_parser(parser.add_subparsers())
    parser.parse_args(shlex.split(command)[1:])


def test_targets_with_two_limits_and_differences(run: RunData) -> None:
    gate = replace(run.gates[2], rule=Rule.WITHIN, margin=0.02, band_upper=None)
    cell = next(c for c in run.cells if c.cell.key == "6.12--psi.swap_storm--exact")
    for scale, margin, limits in (
        (Scale.RATIO, 0.02, "-2.0 % … +2.0 %"),
        (Scale.DIFFERENCE, 3e6, "-3\N{NO-BREAK SPACE}000\N{NO-BREAK SPACE}000 us … "),
    ):
        asked = replace(gate, scale=scale, margin=margin)
        verdict = decide(asked, cell.experiment, "6.12", Lane.EXACT, cell.samples)
        one = replace(run, gates=(asked,), verdicts=(verdict,), cells=(cell,), kernels=())
        (entry,) = entries(one)
        assert limits in entry.limit_text
        plot = forest_plot([entry])
        assert plot.count("stroke-dasharray") == 2, "both limits"
        assert "equal is good" in plot
        assert cell_figure([entry]).count("M") > 20
        assert len(entry.blocks) == 12


def test_a_verdict_reached_in_spite_of_low_power_is_no_contradiction(run: RunData) -> None:
    """The power is for an effect as small as the target's; a larger one was found."""
    noise = random.Random(1)
    cell = next(c for c in run.cells if c.cell.key == "6.12--psi.swap_storm--exact")
    gate = next(g for g in run.gates if g.id == "psi.pressure_reduction")

    def shown(change: float) -> MatrixEntry:
        samples = [
            Sample(block, place, arm, "some_us", 1e6 * factor * noise.gauss(1, 0.12))
            for block in range(8)
            for place, (arm, factor) in enumerate((("off", 1.0), ("on", change)))
        ]
        mine = replace(cell, samples=tuple(samples))
        verdict = decide(gate, cell.experiment, "6.12", Lane.EXACT, mine.samples)
        one = replace(run, gates=(gate,), verdicts=(verdict,), cells=(mine,), kernels=())
        return entries(one)[0]

    far, near = shown(0.2), shown(0.93)
    assert (far.style.word, near.style.word) == ("PASS", "INCONCLUSIVE")
    (remark,) = (text for text in far.remarks if UNDERPOWERED in text)
    assert "(the verdict stands)" in remark
    assert f"a chance of {far.power_text}" in remark
    assert any(text.startswith(f"{UNDERPOWERED}:") for text in near.remarks)
    assert any(text.startswith(UNDERPOWERED) for text in near.summary_remarks)
    assert not any(text.startswith(UNDERPOWERED) for text in far.summary_remarks)
    assert far.verdict
    assert "does not question a verdict" in html_page(replace(run, verdicts=(far.verdict,)))


def test_the_page_keeps_its_order(run: RunData, troubled_run: RunData) -> None:
    older = replace(run, run_id="older", created="2029-12-01T00:00:00Z")
    text = html_page(replace(run, problems=("odd",)), history(run, [older]))
    assert re.findall('<section id="([^"]+)">', text) == [
        "matrix",
        "open",
        "problems",
        "verdicts",
        "forest",
        "cells",
        "false-alarms",
        "attempts",
        "environment",
        "reproduce",
        "history",
        "form",
    ]
    links = re.findall('href="#([^"]+)"', text[: text.index("<main>")])
    assert links == re.findall('<section id="([^"]+)">', text)
    for cell in run.cells:
        assert f"hyperbox reproduce runs/{run.run_id} --cell {cell.cell.key}\n" in text
    assert 'href="release-form.html"' in text


def test_an_empty_run_claims_nothing(empty_run: RunData) -> None:
    text = Page(html_page(empty_run)).text
    assert "all cells were measured on machines alike" not in text
    assert "No machine is on record." in text
