"""The search itself: any row, any skips, killed anywhere."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperbox.errors import ConfigError, HarnessError, WorkloadError
from hyperbox.harness.lab.debian_archive import MirrorSilent, PackageGone
from hyperbox.harness.runs.bisection import (
    Answer,
    Mark,
    answer,
    next_try,
    refusal,
    tries_left,
)
from hyperbox.harness.runs.bisection_log import BisectionLog, Candidate, Question
from hyperbox.harness.runs.bisector import Judgement, NothingToBisect, bisect

QUESTION = Question("1.0", "2.0", "fast", command=("true",))


@dataclass(frozen=True)
class World:
    """Kernels before `first` are good, the others bad; some cannot be judged."""

    count: int
    first: int
    skips: frozenset[int]

    def mark(self, place: int) -> Mark:
        if place in self.skips:
            return Mark.SKIP
        return Mark.GOOD if place < self.first else Mark.BAD

    def row(self) -> list[Candidate]:
        return [Candidate(f"1.{n}-1", f"1.{n}", f"linux-{n}", True) for n in range(self.count)]


@st.composite
def worlds(draw: st.DrawFn, most: int = 80) -> World:
    count = draw(st.integers(2, most))
    inner = st.integers(1, count - 2) if count > 2 else st.nothing()
    return World(count, draw(st.integers(1, count - 1)), frozenset(draw(st.sets(inner))))


def search(world: World) -> Mapping[int, Mark]:
    marks: dict[int, Mark] = {}
    while (place := next_try(world.count, marks)) is not None:
        assert place not in marks
        marks[place] = world.mark(place)
    return marks


@given(worlds())
def test_the_answer_is_right_and_no_wider_than_the_skips_make_it(world: World) -> None:
    marks = search(world)
    found = answer(world.count, marks)
    assert found.last_good < world.first
    assert world.first in found.first_bad
    assert set(found.first_bad[:-1]) <= world.skips
    assert world.mark(found.last_good) is Mark.GOOD
    assert world.mark(found.first_bad[-1]) is Mark.BAD
    assert found.exact == (len(found.first_bad) == 1)


@given(worlds())
def test_without_skips_it_takes_the_logarithm_of_tries(world: World) -> None:
    plain = World(world.count, world.first, frozenset())
    marks = search(plain)
    assert len(marks) <= 2 + math.ceil(math.log2(world.count - 1 or 1))
    assert len(marks) <= tries_left(world.count, {})
    assert tries_left(world.count, marks) == 0


@given(worlds(most=30), st.lists(st.integers(0, 12), max_size=6), st.booleans())
@settings(max_examples=20, deadline=None)
def test_killed_anywhere_it_goes_on_to_the_same_answer(
    world: World, kills: list[int], after: bool
) -> None:
    """A kill comes before the try that it names, or after it and before it is on record."""
    with tempfile.TemporaryDirectory() as name:
        whole = BisectionLog.create(Path(name, "whole"), QUESTION, world.row())
        expected = bisect(whole, lambda kernel, _: judged(world, kernel), lambda _: None)
        directory = Path(name, "killed")
        BisectionLog.create(directory, QUESTION, world.row())
        for patience in [*kills, 10**9]:
            log = BisectionLog.open(directory)
            left = [patience]

            def judge(kernel: Candidate, _: Path, left: list[int] = left) -> Judgement:
                if left[0] == 0 and not after:
                    raise KeyboardInterrupt
                found = judged(world, kernel)
                if left[0] == 0:
                    raise KeyboardInterrupt
                left[0] -= 1
                return found

            try:
                found = bisect(log, judge, lambda _: None)
            except KeyboardInterrupt:
                continue
            assert found == expected
        again = BisectionLog.open(directory)
        assert [(one.place, one.mark) for one in again.tries] == [
            (one.place, one.mark) for one in whole.tries
        ]
        assert again.row == whole.row


def judged(world: World, kernel: Candidate) -> Judgement:
    mark = world.mark(int(kernel.release.partition(".")[2]))
    return Judgement(mark, f"it is {mark}")


@pytest.mark.parametrize(
    ("marks", "wrong"),
    [
        ({}, None),
        ({0: Mark.GOOD}, None),
        ({0: Mark.GOOD, 3: Mark.BAD}, None),
        ({0: Mark.BAD}, 0),
        ({0: Mark.SKIP}, 0),
        ({0: Mark.GOOD, 3: Mark.GOOD}, 3),
        ({0: Mark.GOOD, 3: Mark.SKIP}, 3),
    ],
)
def test_ends_must_be_what_they_are_said_to_be(marks: dict[int, Mark], wrong: int | None) -> None:
    assert refusal(4, marks) == wrong
    assert (tries_left(4, marks) == 0) == (wrong is not None)


def test_contradictions_are_not_searched() -> None:
    with pytest.raises(ValueError, match="kernel 2 is good and the earlier kernel 1 is bad"):
        answer(4, {0: Mark.GOOD, 1: Mark.BAD, 2: Mark.GOOD, 3: Mark.BAD})


def test_a_range_is_given_when_the_middle_cannot_be_judged() -> None:
    marks = search(World(5, 2, frozenset({1, 2, 3})))
    assert answer(5, marks) == Answer(0, (1, 2, 3, 4))


def test_nothing_to_bisect_says_why_and_says_it_again(tmp_path: Path) -> None:
    world = World(5, 2, frozenset())
    log = BisectionLog.create(tmp_path, QUESTION, world.row())

    def all_good(_kernel: Candidate, _directory: Path) -> Judgement:
        return Judgement(Mark.GOOD, "PASS: fine")

    for _ in range(2):
        with pytest.raises(NothingToBisect, match=r"1\.4-1 is said to be bad, but is good \(PASS"):
            bisect(BisectionLog.open(tmp_path), all_good, lambda _: None)
    assert len(BisectionLog.open(log.directory).tries) == 2


def test_a_kernel_that_left_the_mirror_is_skipped_and_trouble_is_not(tmp_path: Path) -> None:
    world = World(5, 2, frozenset())
    BisectionLog.create(tmp_path, QUESTION, world.row())
    trouble: list[Exception] = [PackageGone("linux-2 is gone"), MirrorSilent("no answer", hint="x")]

    def judge(kernel: Candidate, directory: Path) -> Judgement:
        assert directory.parent == tmp_path / "tries"
        if kernel.version not in ("1.0-1", "1.4-1") and trouble:
            raise trouble.pop(0)
        return judged(world, kernel)

    with pytest.raises(MirrorSilent) as caught:
        bisect(BisectionLog.open(tmp_path), judge, lambda _: None)
    assert caught.value.hint == f"x; go on with: hyperbox bisect --resume {tmp_path}"
    log = BisectionLog.open(tmp_path)
    assert bisect(log, judge, lambda _: None) == Answer(1, (2, 3))
    assert log.tries[2].mark is Mark.SKIP
    assert log.tries[2].reason == "linux-2 is gone"


def test_two_at_once_are_refused(tmp_path: Path) -> None:
    log = BisectionLog.create(tmp_path, QUESTION, World(2, 1, frozenset()).row())
    with (
        log.exclusive(),
        pytest.raises(HarnessError, match="another hyperbox"),
        BisectionLog.open(tmp_path).exclusive(),
    ):
        pass


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"format": 1', '"format": 2'),
        ('"row"', '"raw"'),
        ('"place": 0', '"place": 9'),
        ('"mark": "good"', '"mark": "fine"'),
        ("{", "["),
    ],
)
def test_a_damaged_log_is_one_clear_line(tmp_path: Path, old: str, new: str) -> None:
    log = BisectionLog.create(tmp_path, QUESTION, World(2, 1, frozenset()).row())
    log.add(0, Mark.GOOD, "fine", 1.0)
    assert BisectionLog.open(tmp_path).question == QUESTION
    path = tmp_path / "bisect.json"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(HarnessError, match=r"bisect\.json"):
        BisectionLog.open(tmp_path)


@pytest.mark.parametrize(
    ("row", "tries"), [(0, {}), (1, {}), (9, {0: "good", 3: "bad", 5: "good", 8: "bad"})]
)
def test_a_log_that_cannot_be_searched_is_damaged(
    tmp_path: Path, row: int, tries: dict[int, str]
) -> None:
    log = BisectionLog.create(tmp_path, QUESTION, World(9, 1, frozenset()).row()[:row])
    for place, mark in tries.items():
        log.add(place, Mark(mark), "so", 1.0)
    with pytest.raises(HarnessError, match=r"bisect\.json is damaged"):
        BisectionLog.open(tmp_path)


def test_directories_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a bisection"):
        BisectionLog.open(tmp_path)
    BisectionLog.create(tmp_path, QUESTION, World(2, 1, frozenset()).row())
    with pytest.raises(ConfigError, match="holds a bisection already"):
        BisectionLog.create(tmp_path, QUESTION, World(2, 1, frozenset()).row())


def test_trouble_of_the_command_itself_is_no_mark(tmp_path: Path) -> None:
    log = BisectionLog.create(tmp_path, QUESTION, World(2, 1, frozenset()).row())

    def judge(_kernel: Candidate, _directory: Path) -> Judgement:
        raise WorkloadError("cannot start in the guest: nosuch")

    with pytest.raises(WorkloadError):
        bisect(log, judge, lambda _: None)
    assert BisectionLog.open(tmp_path).tries == ()
