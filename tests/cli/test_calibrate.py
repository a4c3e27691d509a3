"""hyperbox calibrate, as people run it."""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import jsonschema
import pytest

import hyperbox.harness.calibration as package
from hyperbox.cli import calibrate as verb
from hyperbox.cli.main import main
from hyperbox.errors import ExitCode
from hyperbox.harness.calibration.answers import Checks
from hyperbox.harness.calibration.evidence import Evidence, PlantedEffect, SameArms
from hyperbox.harness.calibration.findings import Calibration
from hyperbox.harness.calibration.grid import QUICK, scenarios
from hyperbox.harness.calibration.simulation import calibrate, row_at
from hyperbox.harness.model import Outcome
from hyperbox.harness.report.calibration import calibration_page
from hyperbox.harness.report.calibration_runs import summary
from hyperbox.harness.statistics.proportions import Rate

PROJECT = Path(__file__).resolve().parents[2]
SCHEMA = json.loads((Path(package.__file__).parent / "calibration.schema.json").read_text())
TINY = replace(QUICK, at_limit=1500, elsewhere=50, checked=1, diagnosed=2, releases=100, exact=200)
PLACES = [n for n, s in enumerate(scenarios()) if s.noise.id in ("normal", "lasting_drifting")]
VOID = frozenset(("meta", "br", "link", "hr", "img", "input", "wbr"))


class Balance(HTMLParser):
    """Reads a page and demands that elements nest, and that nothing is loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.ids += [value or "" for name, value in attrs if name == "id"]
        self.loads += [v for n, v in attrs if n in ("src", "href") and v and not v.startswith("#")]
        self.loads += [tag] if tag in ("script", "link", "iframe") else []

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


@pytest.fixture(scope="module")
def found() -> Calibration:
    effects = (
        PlantedEffect("harness.power.<i>", "6.12", "exact", 0.05, 8, 0.05, 0.04, 0.06,
                      Outcome.FAIL, True, True, (1.0, 1.0, 1.0, 1.0), 8, Checks(1, 0, 1, 0)),
        PlantedEffect("harness.power.x", "6.12", "kvm", None, 8, None, None, None,
                      Outcome.INCONCLUSIVE, False, None, (), None, Checks()),
        PlantedEffect("harness.power.y", "7.3", "exact", -0.05, 8, -0.03, -0.06, 0.01,
                      Outcome.INCONCLUSIVE, False, True, (0.3, 0.5, 0.9, 1.0), 20,
                      Checks(1, 0, 1, 0)),
    )  # fmt: skip
    same = SameArms("harness.false_alarm.<i>", "6.12", "exact", 32, 0.0, -0.01, 0.01,
                    Outcome.PASS, False, 4, 1, 0, Checks(1, 0, 1, 0))  # fmt: skip
    seen = Evidence("20261125", (same,), effects, ("a & b",))
    rows = [row_at(place, TINY, 1) for place in PLACES]
    return calibrate(rows, TINY, 1, [seen])


def test_the_page_is_whole_and_loads_nothing(found: Calibration) -> None:
    page = calibration_page(found)
    balance = Balance()
    balance.feed(page)
    assert balance.open == []
    assert balance.loads == []
    assert len(set(balance.ids)) == len(balance.ids)
    assert '<th scope="row">&lt;i&gt;</th><td>6.12</td>' in page
    assert "<td>6.12, kvm</td>" in page
    assert "\N{ALMOST EQUAL TO} 20" in page
    assert "not: x (6.12, kvm), y (7.3)" in page
    assert "a &amp; b" in page
    assert "1 up and" in page
    assert page.count("<svg") >= 5
    jsonschema.validate(json.loads(json.dumps(found.document())), SCHEMA)


def test_no_figure_of_the_page_is_wider_than_a_phone_or_longer_than_a_sheet(
    found: Calibration,
) -> None:
    """Figures scroll in boxes of their own; the error rates are cut between rules, not anywhere."""
    names = ("reduces_at_least", "non_inferior", "within", "at_most", "at_least")
    full = tuple(replace(found.rows[0], rule=name) for name in names for _ in range(14))
    page = calibration_page(replace(found, rows=(*full, *found.rows[1:])))
    figures = re.findall(r'(<div class="scroll"[^>]*>)?(<svg [^>]*>)', page)
    assert len(figures) > 5
    for box, head in figures:
        assert box
        size = re.search(r' height="(\d+)"', head)
        assert size
        assert int(size[1]) < 1000
    assert page.count('aria-label="Error rates, part') == 3


def test_what_no_run_could_show_is_not_told_as_a_number(found: Calibration) -> None:
    nothing = replace(found, evidence=(replace(found.evidence[0], same=(), planted=()),))
    assert "A wrong PASS: not put to the test. A wrong FAIL: not put" in calibration_page(nothing)
    assert "wrong PASS not put to the test" in summary(nothing.evidence[0])


def test_a_broken_promise_is_told_on_the_page_too(found: Calibration) -> None:
    few = Rate(9, 100)
    worse = replace(found, family=replace(found.family, corrected=few))
    page = calibration_page(worse)
    assert "is broken: " in page
    assert "a release of 40 verdicts" in page


def test_writes_json_and_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verb, "QUICK", TINY)
    status = main(["calibrate", "--quick", "--out", str(tmp_path), "--json"])
    printed = json.loads(capsys.readouterr().out)
    jsonschema.validate(printed, SCHEMA)
    assert json.loads((tmp_path / "calibration.json").read_text()) == printed
    assert (tmp_path / "calibration.html").stat().st_size > 10_000
    assert status == (ExitCode.PASS if printed["kept"] else ExitCode.GATE_FAILED)
    assert len(printed["rows"]) == len(tuple(scenarios())) == 92
    promised = [row for row in printed["rows"] if row["promised"]]
    assert {row["false_pass"]["trials"] for row in promised} == {TINY.at_limit}
    # Enough for a rate of twice what is promised to be seen.
    assert Rate(TINY.at_limit // 20, TINY.at_limit).lower > 0.025
    assert all(row["false_pass"]["lower"] <= 0.025 for row in promised)


def test_jobs_do_not_change_the_numbers() -> None:
    alone = [row for row, _ in verb._rows(replace(TINY, at_limit=100), 3, 1)]
    together = [row for row, _ in verb._rows(replace(TINY, at_limit=100), 3, 2)]
    assert alone == together


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--jobs", "0"], "--jobs must be 1 or more"),
        (["--seed", "-1"], "--seed must be 0 or more"),
        (["--run", str(PROJECT / "nowhere")], "nowhere"),
        (["--run", str(PROJECT / "reports" / "psi")], "no gate with a known answer"),
    ],
)
def test_bad_usage(words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate", "--quick", *words]) == ExitCode.BAD_USAGE
    assert complaint in capsys.readouterr().err


_SUITE = """
id = "harness"
title = "The harness itself"

[[experiment]]
id = "harness.loops"
title = "Loops of known length"
program = ["python3", "loop.py", "{arm}"]
changes_machine = false
blocks = 8
arms = [
    { id = "plain", title = "loop" },
    { id = "same", title = "the same loop" },
    { id = "longer", title = "a loop 5 % longer" },
]
metrics = [
    { id = "time", title = "Time", unit = "us" },
    { id = "planted", title = "Planted change", unit = "%", better = "neither" },
]

[[gate]]
id = "harness.false_alarm.loop"
title = "The same loop is the same"
target = "within 2 %"
experiment = "harness.loops"
metric = "time"
rule = "within"
margin = 0.02
arm = "same"
baseline = "plain"

[[gate]]
id = "harness.power.loop"
title = "The longer loop is longer"
target = "found"
experiment = "harness.loops"
metric = "time"
rule = "non_inferior"
margin = 0.02
arm = "longer"
baseline = "plain"
"""

_LOOP = """
import json, os, random, sys
dice = random.Random(os.environ["HYPERBOX_SEED"] + sys.argv[1])
planted = 5 if sys.argv[1] == "longer" else 0
time = 1000 * (1 + planted / 100) * (1 + dice.gauss(0, 0.002))
print(json.dumps({"metrics": {"time": time, "planted": planted}}))
"""


def test_a_real_run_joins_its_evidence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "suites" / "harness").mkdir(parents=True)
    (tmp_path / "suites" / "harness" / "suite.toml").write_text(_SUITE)
    (tmp_path / "loop.py").write_text(_LOOP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(verb, "QUICK", TINY)
    monkeypatch.setattr(verb, "scenarios", lambda: itertools.islice(scenarios(), 20))
    run = ["--suites", str(tmp_path / "suites"), "--run-directory", "run", "--seed", "5"]
    main(["validate", "--target", "host", *run])
    measured = capsys.readouterr()
    main(["calibrate", "--quick", "--run", "run", "--out", "out", "--json"])
    out, error = capsys.readouterr()
    assert out, f"{error}\n{measured.out}\n{measured.err}"
    (seen,) = json.loads(out)["evidence"]
    assert (seen["alarms"]["count"], seen["alarms"]["trials"]) == (0, 1)
    assert seen["above"]["trials"] == 1
    assert (seen["false_pass"]["count"], seen["false_pass"]["trials"]) == (0, 2)
    assert (seen["false_fail"]["count"], seen["false_fail"]["trials"]) == (0, 2)
    (effect,) = seen["planted"]
    assert (effect["planted"], effect["outcome"], effect["found"]) == (0.05, "FAIL", True)
    assert effect["starts"] == 8
    assert "Real run run" in Path("out/calibration.html").read_text()
