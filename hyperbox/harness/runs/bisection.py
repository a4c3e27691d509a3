"""Which kernel to try next, and what the tries so far say; pure.

Kernels stand in a row whose first is said to be good and whose last is said to be bad. As
with ``git bisect``, kernels that cannot be judged are skipped; the answer is then a range.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Answer", "Mark", "answer", "next_try", "refusal", "tries_left"]


class Mark(StrEnum):
    """What a try says of a kernel."""

    GOOD = "good"
    BAD = "bad"
    SKIP = "skip"


@dataclass(frozen=True)
class Answer:
    """Places in the row: the last good kernel, and those of which one is the first bad."""

    last_good: int
    first_bad: tuple[int, ...]

    @property
    def exact(self) -> bool:
        """Whether nothing in between was skipped."""
        return len(self.first_bad) == 1


def next_try(count: int, marks: Mapping[int, Mark]) -> int | None:
    """Return the place to try next: both ends, then the middle; None if there is an answer.

    Among kernels that were not skipped the one nearest to the middle is taken, the earlier
    of two. Same marks, same place: an interrupted search goes on as it would have done.
    """
    for end in (0, count - 1):
        if end not in marks:
            return end
    low, high = _bracket(count, marks)
    untried = [place for place in range(low + 1, high) if place not in marks]
    return min(untried, key=lambda place: (abs(2 * place - low - high), place), default=None)


def refusal(count: int, marks: Mapping[int, Mark]) -> int | None:
    """Return the end that is not what it was said to be, None if both are or are not tried."""
    for end, expected in ((0, Mark.GOOD), (count - 1, Mark.BAD)):
        if marks.get(end, expected) is not expected:
            return end
    return None


def answer(count: int, marks: Mapping[int, Mark]) -> Answer:
    """Return the answer of a search that has nothing left to try."""
    low, high = _bracket(count, marks)
    return Answer(low, tuple(range(low + 1, high + 1)))


def tries_left(count: int, marks: Mapping[int, Mark]) -> int:
    """Return how many more tries are needed if none is skipped; none if it is refused."""
    if refusal(count, marks) is not None:
        return 0
    ends = sum(end not in marks for end in (0, count - 1))
    low, high = _bracket(count, marks)
    untried = sum(place not in marks for place in range(low + 1, high))
    return ends + math.ceil(math.log2(untried + 1))


def _bracket(count: int, marks: Mapping[int, Mark]) -> tuple[int, int]:
    """Return the places of the last good and the first bad kernel, as far as they are known."""
    low = max((place for place, mark in marks.items() if mark is Mark.GOOD), default=0)
    high = min((place for place, mark in marks.items() if mark is Mark.BAD), default=count - 1)
    if low >= high:
        raise ValueError(f"kernel {low} is good and the earlier kernel {high} is bad")
    return low, high
