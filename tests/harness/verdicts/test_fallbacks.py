"""A skipped gate is answered by its fallback on the same kernel and lane, or by nobody."""

from __future__ import annotations

import pytest

from hyperbox.harness.model import Gate, Lane, Outcome, Rule, Verdict
from hyperbox.harness.verdicts.fallbacks import with_stand_ins

PASS, FAIL, OPEN = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE
SKIP, ERROR = Outcome.SKIP, Outcome.ERROR


def gate(name: str, fallback: str | None = None) -> Gate:
    return Gate(name, name, "t", "e", "m", Rule.COUNT, 0, "on", fallback=fallback)


CHAIN = (gate("a", "b"), gate("b", "c"), gate("c"))
CIRCLE = (gate("a", "b"), gate("b", "a"))


def cell(name: str, outcome: Outcome, kernel: str = "6.12", lane: Lane = Lane.EXACT) -> Verdict:
    return Verdict(name, kernel, lane, outcome, "reason")


@pytest.mark.parametrize(
    ("gates", "others", "stand_in", "words"),
    [
        (CHAIN, [cell("b", PASS)], "b", "reason; b passes in its place"),
        (CHAIN, [cell("b", SKIP), cell("c", PASS)], "c", "reason; c passes in its place"),
        (CHAIN, [cell("b", FAIL), cell("c", PASS)], "", "b, which must stand in, is FAIL"),
        (CHAIN, [cell("b", ERROR)], "", "b, which must stand in, is ERROR"),
        (CHAIN, [cell("b", OPEN)], "", "b, which must stand in, is INCONCLUSIVE"),
        (CHAIN, [cell("b", SKIP), cell("c", SKIP)], "", "c, which must stand in, is SKIP"),
        (CHAIN, [], "", "b, which must stand in, is not part of this run"),
        (CHAIN, [cell("b", PASS, "7.3")], "", "b, which must stand in, is not part of this run"),
        (CHAIN, [cell("b", PASS, lane=Lane.FAST)], "", "is not part of this run"),
        (CHAIN[2:], [cell("b", PASS)], "", "reason; no gate stands in"),
        (CIRCLE, [cell("b", SKIP)], "", "b, which must stand in, is SKIP"),
    ],
)
def test_who_stands_in(
    gates: tuple[Gate, ...], others: list[Verdict], stand_in: str, words: str
) -> None:
    first, *rest = with_stand_ins(gates, [cell(gates[0].id, SKIP), *others])
    assert first.outcome is SKIP
    assert first.stand_in == stand_in
    assert first.is_hole is not bool(stand_in)
    assert words in first.reason
    assert [verdict.outcome for verdict in rest] == [verdict.outcome for verdict in others]


def test_what_is_not_skipped_stays_as_it_is() -> None:
    found = [cell("a", outcome) for outcome in (PASS, FAIL, OPEN, ERROR)]
    assert with_stand_ins(CHAIN, found) == tuple(found)
