"""Encoders of the pressure service: each state of samples fits the schema, each total survives."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as plain

from hyperbox.daemon.service import ServiceState, Status
from hyperbox.daemon.services import pressure_answer, pressure_metrics
from hyperbox.daemon.services.pressure_answer import Sampling
from hyperbox.daemon.services.tuner import families
from hyperbox.linux.pressure import Line, Pressure, Resource, StallKind
from hyperbox.memory.decisions import Action, Decision, StepStatus, TunerState
from hyperbox.memory.psi import PressureHistory, PressureSample
from hyperbox.memory.tuner import StepView, TunerStatus

VALIDATOR = jsonschema.Draft202012Validator(pressure_answer.SCHEMA)
TEN_YEARS_US = 10 * 365 * 86_400 * 1_000_000

percents = st.integers(0, 10_000).map(lambda hundredths: hundredths / 100)
lines = st.builds(Line, percents, percents, percents, st.integers(0, TEN_YEARS_US))
both = st.builds(Pressure, lines, lines)
pressures = st.fixed_dictionaries(
    {Resource.MEMORY: both, Resource.IO: both, Resource.CPU: st.builds(Pressure, lines, st.none())},
    optional={Resource.IRQ: st.builds(Pressure, st.none(), lines)},
)
samples = st.builds(
    PressureSample, st.integers(1, 2**62), st.integers(0, 10**6), st.floats(0, 4e9), pressures
)


@st.composite
def snapshots(draw: st.DrawFn) -> PressureHistory:
    """Samples in order of time whose totals do not fall."""
    times = sorted(draw(st.sets(st.integers(0, 2**62), max_size=8)))
    taken = [draw(samples) for _ in times]
    kept = tuple(
        PressureSample(at, one.late_ns, one.unix_s, one.pressure)
        for at, one in zip(times, taken, strict=True)
    )
    return PressureHistory(kept, history=8)


@given(samples, snapshots(), st.integers(0, 8))
def test_answers_fit_the_schema_and_keep_every_total(
    now: PressureSample, snapshot: PressureHistory, rows: int
) -> None:
    said = pressure_answer.answer(now, snapshot, Sampling(5.0, 3, 9.0, 0.1), {"mode": "off"}, rows)
    read = json.loads(json.dumps(said, allow_nan=False))
    VALIDATOR.validate(read)
    for (resource, kind), line in now.lines().items():
        assert read[f"{kind}_{resource}_us"] == line.total_us
        assert read["avg10"][f"{kind}_{resource}"]["kernel"] == line.avg10
    wanted = snapshot.samples[max(len(snapshot.samples) - rows, 0) :]
    assert [row["time_ns"] for row in read["history"]] == [one.time_ns for one in wanted]


@given(st.sampled_from(ServiceState), st.text(), st.text())
def test_what_is_unavailable_has_a_reason(state: ServiceState, reason: str, hint: str) -> None:
    said = pressure_answer.unavailable(Status(state, reason, hint))
    VALIDATOR.validate(said)
    assert said["reason"]


@pytest.mark.parametrize(
    "change", [{"some_cpu_us": -1}, {"some_memory_us": 1.5}, {"extra": 1}, {"available": "yes"}]
)
def test_schema_refuses_what_is_wrong(change: dict[str, object]) -> None:
    now = PressureSample(1, 0, 1.0, {Resource.CPU: Pressure(Line(0, 0, 0, 1), None)})
    said = pressure_answer.answer(now, PressureHistory(), Sampling(5.0), {"mode": "off"}, 0)
    said |= {"some_memory_us": 1, "full_memory_us": 1}
    VALIDATOR.validate(said)
    with pytest.raises(jsonschema.ValidationError):
        VALIDATOR.validate(said | change)


decisions = st.builds(
    Decision,
    st.integers(0, 2**62),
    st.sampled_from(TunerState),
    st.sampled_from(Action),
    st.text(),
    st.text(),
    *[percents] * 4,
    st.lists(st.text(), max_size=2).map(tuple),
)
steps = st.builds(
    StepView, st.text(), st.text(), st.sampled_from(StepStatus), st.text(), st.integers(0, 99)
)
statuses = st.builds(
    TunerStatus,
    st.sampled_from(TunerState),
    st.booleans(),
    st.lists(steps, max_size=2).map(tuple),
    st.none() | decisions,
    st.lists(decisions, max_size=2).map(tuple),
)
TUNERS: dict[str, Callable[[TunerStatus], dict[str, object]]] = {
    "off": lambda _: {},
    "dry-run": lambda status: status.as_json(),
    "tune": lambda status: status.as_json(),
    "unavailable": lambda _: {"reason": "no pressure", "hint": ""},
    "ended": lambda status: {**status.as_json(), "reason": "it could not go on"},
}


def shown(tuner: dict[str, object]) -> dict[str, object]:
    now = PressureSample(1, 0, 1.0, {Resource.CPU: Pressure(Line(0, 0, 0, 1), None)})
    said = pressure_answer.answer(now, PressureHistory(), Sampling(5.0), tuner, 0)
    return {**said, "some_memory_us": 1, "full_memory_us": 1}


@given(st.sampled_from(sorted(TUNERS)), statuses)
def test_schema_says_all_of_a_tuner_in_every_mode_and_nothing_else(
    mode: str, status: TunerStatus
) -> None:
    tuner = {"mode": mode, **TUNERS[mode](status)}
    VALIDATOR.validate(json.loads(json.dumps(shown(tuner), allow_nan=False)))
    assert not VALIDATOR.is_valid(shown({**tuner, "extra": 1}))
    for missing in tuner:
        rest = {key: value for key, value in tuner.items() if key != missing}
        assert not VALIDATOR.is_valid(shown(rest)), missing
    for name in ("steps", "decisions"):
        for row in tuner.get(name) or ():  # type: ignore[attr-defined]
            for changed in ({**row, "extra": 1}, {**row, next(iter(row)): None}):
                assert not VALIDATOR.is_valid(shown({**tuner, name: [changed]}))


class Collected:
    """What collects nothing but given families."""

    def __init__(self, found: list[Metric]) -> None:
        self.found = found

    def collect(self) -> list[Metric]:
        return self.found


def written(found: list[Metric]) -> tuple[dict[str, float], dict[str, float]]:
    """Write families in both formats and read them back, by sample name and labels."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Collected(found))
    encoders: tuple[Callable[[CollectorRegistry], bytes], ...]
    encoders = (generate_latest, generate_openmetrics)
    texts = [encode(registry).decode() for encode in encoders]
    parses: tuple[Callable[[str], Iterable[Metric]], ...] = (plain, openmetrics)
    first, second = (
        {
            f"{s.name}{sorted(s.labels.items())}": s.value
            for family in parse(text)
            for s in family.samples
        }
        for parse, text in zip(parses, texts, strict=True)
    )
    return first, second


@given(samples, snapshots())
def test_counters_survive_both_formats_to_the_microsecond(
    now: PressureSample, snapshot: PressureHistory
) -> None:
    found = list(pressure_metrics.families(now, snapshot, Sampling(5.0, 3, 9.0, 0.1)))
    first, second = written(found)
    assert first == second
    lines = now.lines()
    wanted = {
        f"node_pressure_{resource}_{word}_seconds_total[]": lines[resource, kind].total_us
        for word, kind in (("waiting", StallKind.SOME), ("stalled", StallKind.FULL))
        for resource in Resource
        if (resource, kind) in lines and (resource, kind) != (Resource.CPU, StallKind.FULL)
    }
    got = {
        name: round(value * 1e6)
        for name, value in first.items()
        if name.startswith("node_pressure_")
    }
    assert got == wanted


def test_tuner_is_told_in_both_formats() -> None:
    last = Decision(1, TunerState.HOLD, Action.KEEP, "zram", "it helped", score=81.5)
    status = TunerStatus(
        TunerState.HOLD,
        dry_run=True,
        steps=(
            StepView("zram", "", StepStatus.KEPT, "", 0),
            StepView("b", "", StepStatus.IDLE, "", 1),
        ),
        last=last,
    )
    first, second = written(list(families(status, {Action.KEEP: 2})))
    assert first == second
    assert first["hyperbox_tuner_state[('hyperbox_tuner_state', 'hold')]"] == 1
    assert first["hyperbox_tuner_state[('hyperbox_tuner_state', 'act')]"] == 0
    assert first["hyperbox_tuner_dry_run[]"] == 1
    assert first["hyperbox_tuner_score_ratio[]"] == 0.815
    assert first["hyperbox_tuner_step_in_force[('step', 'zram')]"] == 1
    assert first["hyperbox_tuner_step_in_force[('step', 'b')]"] == 0
    assert first["hyperbox_tuner_decisions_total[('action', 'keep')]"] == 2
    assert first["hyperbox_tuner_decisions_total[('action', 'apply')]"] == 0
