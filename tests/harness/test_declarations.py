"""Suites are read as they stand, and every fault is named by file and entry."""

from __future__ import annotations

import contextlib
import copy
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperbox.errors import ConfigError, near
from hyperbox.harness.declarations import load_suite, load_suites, parse_suite
from hyperbox.harness.model import MachineRequest, Rule

_TEXT = """
id = "demo"
title = "A demonstration"

[[experiment]]
id = "demo.load"
title = "A load, tuned and not"
program = ["python3", "suites/demo/load.py", "{arm}"]
prepare = ["true"]
blocks = 12
timeout_s = 20
limit_s = 900
changes_machine = false
default = false
arms = [{ id = "off", title = "untuned" }, { id = "on", title = "tuned" }]
metrics = [
    { id = "time", title = "Time", unit = "us" },
    { id = "rate", title = "Rate", unit = "1/s", better = "higher" },
    { id = "load", title = "Load", unit = "1", better = "neither", least = -1, most = 2.5 },
]
[experiment.machine]
memory_mib = 1024
processors = 2
commandline = "psi=0"
mitigations = false
without_modules = ["nbd"]
modules = "own"

[[gate]]
id = "demo.faster"
title = "Tuned is faster"
target = "5-15 % faster"
experiment = "demo.load"
metric = "time"
rule = "reduces_at_least"
margin = 0.05
arm = "on"
baseline = "off"
band_upper = 0.15

[[gate]]
id = "demo.limit"
title = "Below a limit"
target = "< 100 us"
experiment = "demo.load"
metric = "time"
rule = "at_most"
margin = 100
arm = "on"
"""


def _data() -> dict[str, Any]:
    return tomllib.loads(_TEXT)


def _write(top: Path, name: str, text: str) -> Path:
    path = top / name / "suite.toml"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    return path


def test_every_key_arrives(tmp_path: Path) -> None:
    suite = load_suite(_write(tmp_path, "demo", _TEXT))
    (experiment,) = suite.experiments
    assert (suite.id, suite.title) == ("demo", "A demonstration")
    assert experiment.suite == "demo"
    assert experiment.program == ("python3", "suites/demo/load.py", "{arm}")
    assert experiment.prepare == ("true",)
    assert (experiment.blocks, experiment.timeout_s) == (12, 20.0)
    assert experiment.limit == 900.0
    assert experiment.machine == MachineRequest(
        memory_mib=1024,
        processors=2,
        commandline="psi=0",
        mitigations=False,
        without_modules=("nbd",),
        modules="own",
    )
    assert not experiment.default
    assert not experiment.changes_machine
    assert [arm.id for arm in experiment.arms] == ["off", "on"]
    assert experiment.metric("rate").better == "higher"
    rate, load = experiment.metric("rate"), experiment.metric("load")
    assert (rate.least, rate.most, load.least, load.most) == (0.0, None, -1.0, 2.5)
    assert [load.holds(value) for value in (-1.1, -1, 2.5, 2.6)] == [False, True, True, False]
    assert (rate.range_text(), load.range_text()) == ("at least 0", "-1 to 2.5")
    faster, limit = suite.gates
    assert faster.rule is Rule.REDUCES_AT_LEAST
    assert (faster.baseline, faster.band_upper) == ("off", 0.15)
    assert (limit.baseline, limit.margin) == (None, 100.0)


@pytest.mark.parametrize(
    ("place", "key", "value", "message"),
    [
        ((), "id", "No Id", "suite.toml: id 'No Id' is not an id"),
        ((), "id", "a--b", "is not an id"),
        ((), "colour", 1, "suite.toml: unknown key 'colour'"),
        ((), "title", "", "title must be text"),
        ((), "experiment", [], "experiment is empty"),
        ((), "experiment", 3, "experiment must be a list of tables"),
        (("experiment", 0), "block", 3, "experiment 'demo.load': unknown key 'block'"),
        (("experiment", 0), "blocks", 0, "blocks must be a whole number from 1 up"),
        (("experiment", 0), "blocks", True, "blocks must be a whole number from 1 up"),
        (("experiment", 0), "timeout_s", "soon", "timeout_s must be a number"),
        (("experiment", 0), "timeout_s", float("inf"), "timeout_s must be a number"),
        (("experiment", 0), "limit_s", 0, "limit_s must be a number from 0.1 up"),
        (("experiment", 0), "program", "python3", "program must be a list of words"),
        (("experiment", 0), "program", [], "program is empty"),
        (("experiment", 0), "program", ["true"], "program does not use {arm}"),
        (("experiment", 0), "changes_machine", "no", "changes_machine must be true or false"),
        (("experiment", 0), "machine", 3, "machine must be a table"),
        (("experiment", 0), "default", True, "2 processors cannot be had in the exact lane"),
        (("experiment", 0, "machine"), "memory", 512, "machine: unknown key 'memory'"),
        (("experiment", 0, "machine"), "memory_mib", 128, "memory_mib must be 256 or more"),
        (("experiment", 0, "machine"), "processors", 0, "processors must be a whole number"),
        (("experiment", 0, "machine"), "mitigations", "off", "mitigations must be true or false"),
        (("experiment", 0, "metrics", 0), "better", "less", "metrics 'time': better 'less' does"),
        (("experiment", 0, "metrics", 0), "least", None, "least must be a number"),
        (("experiment", 0, "metrics", 0), "most", -1, "most must lie above least, which is 0"),
        (("experiment", 0, "metrics", 1), "id", "time", "metric 'time' is declared twice"),
        (("experiment", 0, "arms", 1), "id", "off", "arm 'off' is declared twice"),
        (("gate", 0), "experiment", "demo.lood", "gate 'demo.faster': experiment 'demo.lood' does"),
        (("gate", 0), "metric", "tim", "metric 'tim' does not exist"),
        (("gate", 0), "rule", "at_last", "rule 'at_last' does not exist"),
        (("gate", 0), "arm", "tuned", "arm 'tuned' does not exist"),
        (("gate", 0), "baseline", "on", "arm and baseline are both 'on'"),
        (("gate", 0), "baseline", "base", "baseline 'base' does not exist"),
        (("gate", 0), "margin", 5, "margin must be a fraction"),
        (("gate", 0), "margin", "5 %", "margin must be a number"),
        (("gate", 0), "band_upper", 0.01, "band_upper must lie between margin and 1"),
        (("gate", 0), "metric", "rate", "is better higher: a reduction is not a gain"),
        (("gate", 0), "metric", "load", "has no better side"),
        (("gate", 1), "baseline", "off", "baseline has no meaning"),
        (("gate", 1), "band_upper", 0.5, "has no band"),
        (("gate", 0), "rule", "within", "rule within has no band"),
        (("gate", 0), "scale", "log", "scale 'log' does not exist"),
        (("gate", 1), "scale", "difference", "scale has no meaning"),
        (("gate", 1), "id", "demo.faster", "gate 'demo.faster' is declared twice"),
    ],
)
def test_faults_are_named(
    place: tuple[str | int, ...], key: str, value: object, message: str
) -> None:
    data = _data()
    entry: Any = data
    for step in place:
        entry = entry[step]
    entry[key] = value
    with pytest.raises(ConfigError) as caught:
        parse_suite(data, Path("suite.toml"))
    assert message in caught.value.message
    assert caught.value.exit_code == 64


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("demo.limit", None), ""),
        (("demo.limt", None), "gate 'demo.faster': fallback 'demo.limt' does not exist"),
        (("demo.faster", None), "fallbacks in a circle: demo.faster -> demo.faster"),
        (("demo.limit", "demo.faster"), "demo.faster -> demo.limit -> demo.faster"),
        (("other.faster", None), ""),
        (("other.faster", "Not An Id"), "fallback 'Not An Id' is not an id"),
    ],
)
def test_fallbacks_exist_and_end(tmp_path: Path, names: tuple[str, str], message: str) -> None:
    text = _TEXT
    for at, name in zip(('rule = "reduces_at_least"', 'rule = "at_most"'), names, strict=True):
        if name is not None:
            text = text.replace(at, f'fallback = "{name}"\n{at}')
    _write(tmp_path, "demo", text)
    _write(tmp_path, "other", _TEXT.replace("demo", "other"))
    if message:
        with pytest.raises(ConfigError, match=message):
            load_suites(tmp_path)
    else:
        assert load_suites(tmp_path)[0].gates[0].fallback == names[0]


def test_differences_have_margins_in_the_metrics_unit() -> None:
    data = _data()
    data["gate"][0] |= {"scale": "difference", "margin": 5, "band_upper": 20}
    gate = parse_suite(data, Path("suite.toml")).gates[0]
    assert (gate.scale, gate.margin, gate.is_paired, gate.is_ratio) == (
        "difference",
        5,
        True,
        False,
    )
    for changes, message in (
        ({"margin": -1}, "margin must be 0 or more"),
        ({"band_upper": 5}, "band_upper must lie above margin"),
    ):
        spoiled = copy.deepcopy(data)
        spoiled["gate"][0] |= changes
        with pytest.raises(ConfigError, match=message):
            parse_suite(spoiled, Path("suite.toml"))


def test_equivalence_may_use_a_metric_without_a_better_side() -> None:
    data = _data()
    del data["gate"][0]["band_upper"]
    data["gate"][0] |= {"rule": "within", "metric": "load"}
    assert parse_suite(data, Path("suite.toml")).gates[0].rule is Rule.WITHIN


@pytest.mark.parametrize(
    ("place", "key"),
    [
        ((), "title"),
        (("experiment", 0), "program"),
        (("gate", 0), "baseline"),
        (("gate", 1), "arm"),
    ],
)
def test_missing_keys_are_named(place: tuple[str | int, ...], key: str) -> None:
    data = _data()
    entry: Any = data
    for step in place:
        entry = entry[step]
    del entry[key]
    with pytest.raises(ConfigError, match=key):
        parse_suite(data, Path("suite.toml"))


def test_broken_toml_has_file_and_line(tmp_path: Path) -> None:
    path = _write(tmp_path, "demo", 'id = "demo"\ntitle = \n')
    with pytest.raises(ConfigError, match=r"suite\.toml: broken TOML: .*line 2"):
        load_suite(path)


def test_text_in_another_encoding_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "suite.toml"
    path.write_bytes(b'id = "\xff"')
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_suite(path)


def test_ids_are_unique_over_all_suites(tmp_path: Path) -> None:
    _write(tmp_path, "one", _TEXT)
    _write(tmp_path, "two", _TEXT.replace('id = "demo"', 'id = "other"'))
    with pytest.raises(ConfigError, match=r"two/suite\.toml: experiment 'demo\.load'.*one"):
        load_suites(tmp_path)


def test_no_suite_at_all_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no suite\.toml below"):
        load_suites(tmp_path)


def test_the_projects_own_suites_load() -> None:
    assert load_suites()


def test_near_matches_come_first() -> None:
    assert near("psi.acuracy", ["psi.accuracy", "erofs.storage"]) == "did you mean psi.accuracy?"
    assert near("zzz", ["b", "a"]) == "known: a, b"
    assert near("zzz", []) == ""


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@given(data=st.data(), value=_JSON)
def test_whatever_a_value_is_it_loads_or_is_a_config_error(data: st.DataObject, value: Any) -> None:
    document = copy.deepcopy(_data())
    entry: Any = document
    while True:
        key = data.draw(
            st.sampled_from(sorted(entry))
            if isinstance(entry, dict)
            else st.integers(0, len(entry) - 1)
        )
        if not isinstance(entry[key], (dict, list)) or data.draw(st.booleans()):
            entry[key] = value
            break
        entry = entry[key]
    with contextlib.suppress(ConfigError):
        parse_suite(document, Path("suite.toml"))


@pytest.mark.parametrize("value", ["a\nb", 5, "a\0"])
def test_command_line_is_one_line(value: object) -> None:
    data = _data()
    data["experiment"][0]["machine"]["commandline"] = value
    with pytest.raises(ConfigError, match="commandline must be one line"):
        parse_suite(data, Path("suite.toml"))
