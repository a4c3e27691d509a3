"""Metric sets and variants: what is written out, and what is refused with the nearest name."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from hyperbox.errors import ConfigError
from hyperbox.harness.declarations import load_suites, parse_suite
from hyperbox.harness.model import Suite
from hyperbox.harness.runs.plan import select

_SUITE = """
id = "storage"
title = "Storage"

[[metric_set]]
id = "start"
metrics = [
    { id = "start_ms", title = "Time until ready", unit = "ms" },
    { id = "fetched", title = "Bytes fetched", unit = "B" },
]

[[experiment]]
id = "storage.start"
title = "Start of {image} at {rtt_ms} ms"
vary = { image = ["debian", "python-3.13"], rtt_ms = [1, 50] }
program = ["measure", "--image={image}", "--rtt={rtt_ms}", "--arm", "{arm}"]
machine = { commandline = "image={image}" }
arms = [{ id = "lazy", title = "lazy" }, { id = "pull", title = "all of {image} first" }]
metrics = [{ set = "start" }, { id = "cpu_ms", title = "CPU time", unit = "ms" }]

[[experiment]]
id = "storage.plain"
title = "Plain"
program = ["measure"]
arms = [{ id = "only", title = "only" }]
metrics = [{ id = "first", title = "First", unit = "1" }, { set = "start" }]

[[gate]]
id = "storage.faster"
title = "{image} starts faster"
target = "half the time at {rtt_ms} ms"
experiment = "storage.start"
metric = "start_ms"
rule = "reduces_at_least"
margin = 0.5
arm = "lazy"
baseline = "pull"

[[gate]]
id = "storage.near"
title = "Near"
target = "1 s"
experiment = "storage.start"
variant = { rtt_ms = 1 }
metric = "start_ms"
rule = "at_most"
margin = 1000
arm = "lazy"

[[gate]]
id = "storage.one"
title = "{image}"
target = "2 s"
experiment = "storage.start.debian.rtt_ms_50"
metric = "start_ms"
rule = "at_most"
margin = 2000
arm = "lazy"
"""


def _parsed(text: str = _SUITE) -> Suite:
    return parse_suite(tomllib.loads(text), Path("suite.toml"))


def test_a_metric_set_stands_where_it_is_named() -> None:
    by_id = {one.id: one for one in _parsed().experiments}
    assert [m.id for m in by_id["storage.plain"].metrics] == ["first", "start_ms", "fetched"]
    varied = by_id["storage.start.debian.rtt_ms_1"]
    assert [m.id for m in varied.metrics] == ["start_ms", "fetched", "cpu_ms"]


def test_an_experiment_that_varies_is_one_for_each_combination() -> None:
    *varied, _plain = _parsed().experiments
    assert [one.id for one in varied] == [
        "storage.start.debian.rtt_ms_1",
        "storage.start.debian.rtt_ms_50",
        "storage.start.python-3.13.rtt_ms_1",
        "storage.start.python-3.13.rtt_ms_50",
    ]
    last = varied[-1]
    assert last.title == "Start of python-3.13 at 50 ms"
    assert last.program == ("measure", "--image=python-3.13", "--rtt=50", "--arm", "{arm}")
    assert last.machine.commandline == "image=python-3.13"
    assert last.arms[1].title == "all of python-3.13 first"


def test_a_gate_judges_all_variants_or_those_it_names() -> None:
    gates = _parsed().gates
    assert [(gate.id, gate.experiment) for gate in gates] == [
        ("storage.faster.debian.rtt_ms_1", "storage.start.debian.rtt_ms_1"),
        ("storage.faster.debian.rtt_ms_50", "storage.start.debian.rtt_ms_50"),
        ("storage.faster.python-3.13.rtt_ms_1", "storage.start.python-3.13.rtt_ms_1"),
        ("storage.faster.python-3.13.rtt_ms_50", "storage.start.python-3.13.rtt_ms_50"),
        ("storage.near.debian", "storage.start.debian.rtt_ms_1"),
        ("storage.near.python-3.13", "storage.start.python-3.13.rtt_ms_1"),
        ("storage.one", "storage.start.debian.rtt_ms_50"),
    ]
    assert (gates[3].title, gates[3].target) == (
        "python-3.13 starts faster",
        "half the time at 50 ms",
    )
    assert gates[-1].title == "debian"


def test_a_gate_that_names_one_variant_keeps_its_id() -> None:
    text = _SUITE.replace("{ rtt_ms = 1 }", '{ rtt_ms = [50], image = "debian" }')
    gate = next(gate for gate in _parsed(text).gates if gate.id == "storage.near")
    assert gate.experiment == "storage.start.debian.rtt_ms_50"


def test_a_title_without_the_values_gets_them() -> None:
    first = _parsed(_SUITE.replace("Start of {image} at {rtt_ms} ms", "Start")).experiments[0]
    assert first.title == "Start, image debian, rtt_ms 1"


def test_variants_are_selected_together_or_one_by_one() -> None:
    suites = (_parsed(),)
    assert len(select(suites, ["storage.faster"])[1]) == 4
    assert len(select(suites, ["storage.faster.debian"])[1]) == 2
    assert [gate.id for gate in select(suites, ["storage.one"])[1]] == ["storage.one"]
    with pytest.raises(ConfigError) as caught:
        select(suites, ["storage.fast"])
    assert "did you mean storage.faster or " in caught.value.hint


@pytest.mark.parametrize(
    ("old", "new", "message", "hint"),
    [
        ('[{ set = "start" }, { id', '[{ set = "strat" }, { id', "'strat'", "mean start"),
        ('{ set = "start" }, { id', '{ set = "start", unit = "1" }, { id', "'start'", "alone"),
        ('[{ set = "start" }, { id', "[{ set = [1] }, { id", "[1]", "known: start"),
        ('id = "start"\n', "", "metric_set is not one", "[[metric_set]]"),
        ('id = "start"\n', 'id = "start"\nunit = "1"\n', "metric_set is not one", ""),
        ("[[experiment]]", '[[metric_set]]\nid = "x"\nmetrics = [1]\n[[experiment]]', "'x'", ""),
        ('image = ["debian", "python-3.13"]', "image = []", "vary image is not a list", ""),
        ('"python-3.13"]', '"Python 3"]', "vary image is not a list of values", "lower-case"),
        ('"python-3.13"]', '"debian"]', "vary image has a value twice", ""),
        ('"python-3.13"]', f'"{"x" * 70}"]', "is not an id", "at most 80"),
        ("rtt_ms = [1, 50]", "rtt_ms = [true]", "vary rtt_ms is not a list of values", ""),
        ("vary = { image", 'vary = { arm = ["a"], image', "vary 'arm' is not a name", ""),
        ("vary = { image", 'vary = { none = ["a"], image', "vary none changes nothing", "{none}"),
        ("--rtt={rtt_ms}", "--rtt={rrt_ms}", "{rrt_ms} is nothing that varies", "mean rtt_ms"),
        ("variant = { rtt_ms = 1 }", "variant = { rtt = 1 }", "variant names 'rtt'", "mean rtt_ms"),
        ("variant = { rtt_ms = 1 }", "variant = { rtt_ms = 5 }", "no variant has rtt_ms = 5", "50"),
        ("variant = { rtt_ms = 1 }", "variant = { rtt_ms = [{}] }", "no variant has rtt_ms", ""),
        ("variant = { rtt_ms = 1 }", "variant = 1", "variant is not a table", "variant ="),
        ('"storage.start.debian.rtt_ms_50"', '"storage.plain"\nvariant = {}', "does not vary", ""),
        ('"storage.start.debian.rtt_ms_50"', '"storage.strat"', "does not exist", "storage.start"),
    ],
)
def test_what_does_not_exist_is_refused_with_the_nearest(
    old: str, new: str, message: str, hint: str
) -> None:
    assert old in _SUITE
    with pytest.raises(ConfigError) as caught:
        _parsed(_SUITE.replace(old, new))
    assert message in caught.value.message
    assert caught.value.message.startswith("suite.toml: ")
    assert hint in caught.value.hint


@pytest.mark.parametrize("key", ["experiment", "gate", "metric_set"])
@pytest.mark.parametrize("value", ["1", "[1]", '"x"', "{ id = 1 }", "[{}]", "[[1]]"])
def test_what_is_no_table_is_refused_and_breaks_nothing(key: str, value: str) -> None:
    start, _, _rest = _SUITE.partition("[[metric_set]]")
    data = tomllib.loads(f"{start}{key} = {value}") | {
        other: table
        for other, table in tomllib.loads(_SUITE).items()
        if other not in ("id", "title", key)
    }
    with pytest.raises(ConfigError):
        parse_suite(data, Path("suite.toml"))


def test_our_own_suites_have_the_ids_of_published_runs() -> None:
    gates = {gate.id for suite in load_suites() for gate in suite.gates}
    assert {"psi.accuracy", "psi.mixed_stall_reduction", "psi.against_senpai"} <= gates
    assert {"harness.false_alarm.processor", "harness.power.network", "harness.power.swap"} <= gates
