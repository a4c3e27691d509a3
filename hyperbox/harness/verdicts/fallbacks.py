"""Who stands in where a gate is skipped: a SKIP answers nothing by itself. Pure.

A kernel that cannot do what a gate judges gives a SKIP. The gate's fallback must have passed on
that kernel, in the same lane; a fallback that is skipped too hands on to its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from hyperbox.harness.model import Gate, Lane, Outcome, Verdict

__all__ = ["with_stand_ins"]

_Place = tuple[str, str, Lane]


def with_stand_ins(gates: Sequence[Gate], verdicts: Sequence[Verdict]) -> tuple[Verdict, ...]:
    """Return the verdicts in their order; each SKIP says who stands in, or why nobody does."""
    known = {(one.gate, one.kernel, one.lane): one for one in verdicts}
    next_of = {gate.id: gate.fallback for gate in gates}
    return tuple(
        _resolved(one, next_of, known) if one.outcome is Outcome.SKIP else one for one in verdicts
    )


def _resolved(
    verdict: Verdict, next_of: Mapping[str, str | None], known: Mapping[_Place, Verdict]
) -> Verdict:
    name = next_of.get(verdict.gate)
    if name is None:
        return _told(verdict, "no gate stands in")
    passed = {verdict.gate}
    while True:
        found = known.get((name, verdict.kernel, verdict.lane))
        if found is None:
            return _told(verdict, f"{name}, which must stand in, is not part of this run")
        if found.outcome is Outcome.PASS:
            return replace(_told(verdict, f"{name} passes in its place"), stand_in=name)
        passed.add(name)
        after = next_of.get(name)
        if found.outcome is not Outcome.SKIP or after is None or after in passed:
            return _told(verdict, f"{name}, which must stand in, is {found.outcome}")
        name = after


def _told(verdict: Verdict, words: str) -> Verdict:
    return replace(verdict, reason=f"{verdict.reason}; {words}")
