"""Proof that one seccomp filter lets nothing through that another one stops.

A filter compares 32-bit words of ``struct seccomp_data`` with constants, some after a mask. Those
comparisons cut the values of each word into finitely many classes, within which the filter cannot
tell two values apart. One representative of every class is run through both filters, so the answer
holds for every system call number, architecture and argument, not for a sample. Pure.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from hyperbox.isolation.classic_bpf import Call, Instruction, executes, run

__all__ = ["Containment", "Violation", "contained"]

_WORD = 0xFFFFFFFF
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16
_LOAD, _AND, _JUMP, _RETURN = 0x20, 0x54, 0x05, 0x06
_JEQ, _JGT, _JGE, _JSET = 0x15, 0x25, 0x35, 0x45
_MOST_CLASSES = 1_000_000


@dataclass(frozen=True)
class Violation:
    """A call that the inner filter executes and the outer one does not, and what each returns."""

    call: Call
    inner: int
    outer: int


@dataclass(frozen=True)
class Containment:
    """The outcome of a proof; it holds if there are no violations.

    `classes` is how many classes of calls there are: each was run through both filters.
    """

    violations: tuple[Violation, ...]
    classes: int

    @property
    def holds(self) -> bool:
        """Return whether the inner filter is contained in the outer one."""
        return not self.violations


@dataclass
class _Comparisons:
    """How programs look at one word: bounds of intervals, and masks with what they are to equal."""

    bounds: set[int]
    masked: set[tuple[int, int]]

    def add(self, code: int, mask: int, k: int) -> None:
        if code == _JSET:
            self.masked.add((mask & k, 0))
        elif mask == _WORD:
            self.bounds |= {k, k + 1}
        elif code == _JEQ:
            self.masked.add((mask, k))
        else:
            raise ValueError("an order of masked values is not analysed")


def contained(
    inner: Sequence[Instruction], outer: Sequence[Instruction], *, most: int = 20
) -> Containment:
    """Return whether every call that `inner` lets through is let through by `outer`.

    Parameters
    ----------
    most
        How many violations are kept.

    Raises
    ------
    ValueError
        If a filter does more than libseccomp's do: arithmetic on a word, or comparisons that make
        more than a million classes for one call.
    """
    violations: list[Violation] = []
    classes = 0
    for call in _classes((inner, outer)):
        classes += 1
        found = run(inner, call)
        if executes(found) and not executes(other := run(outer, call)) and len(violations) < most:
            violations.append(Violation(call, found, other))
    return Containment(tuple(violations), classes)


def _classes(programs: Sequence[Sequence[Instruction]]) -> Iterator[Call]:
    for architecture in _values(programs, {}, _ARCHITECTURE):
        for number in _values(programs, {_ARCHITECTURE: architecture}, _NUMBER):
            words = _comparisons(programs, {_ARCHITECTURE: architecture, _NUMBER: number})
            yield from _calls(number, architecture, words)


def _values(
    programs: Sequence[Sequence[Instruction]], known: Mapping[int, int], offset: int
) -> list[int]:
    comparisons = _comparisons(programs, known).get(offset, _Comparisons({0}, set()))
    return list(_representatives(comparisons))


def _comparisons(
    programs: Sequence[Sequence[Instruction]], known: Mapping[int, int]
) -> dict[int, _Comparisons]:
    words: dict[int, _Comparisons] = {}
    for program in programs:
        _collect(program, known, words)
    return words


def _calls(number: int, architecture: int, words: dict[int, _Comparisons]) -> Iterator[Call]:
    offsets = sorted(words)
    values = [list(_representatives(words[offset])) for offset in offsets]
    count = 1
    for choices in values:
        count *= len(choices)
    if count > _MOST_CLASSES:
        raise ValueError(f"system call {number}: {count} classes of arguments")
    for combination in itertools.product(*values):
        packed = dict(zip(offsets, combination, strict=True))
        arguments = tuple(
            packed.get(_FIRST_ARGUMENT + 8 * place, 0)
            | packed.get(_FIRST_ARGUMENT + 8 * place + 4, 0) << 32
            for place in range(6)
        )
        pointer = packed.get(8, 0) | packed.get(12, 0) << 32
        yield Call(number, architecture, arguments, pointer)


def _collect(
    program: Sequence[Instruction], known: Mapping[int, int], words: dict[int, _Comparisons]
) -> None:
    """Add the comparisons of words that are not known on every path that known words allow."""
    todo: list[tuple[int, int, int, int | None]] = [(0, -1, _WORD, 0)]
    seen = set(todo)
    while todo:
        place, offset, mask, value = todo.pop()
        code, jt, jf, k = program[place]
        following: list[tuple[int, int, int, int | None]]
        if code & 0x07 == _RETURN:
            continue
        if code == _LOAD:
            following = [(place + 1, k, _WORD, known.get(k))]
        elif code == _AND:
            following = [
                (place + 1, offset, mask & k, None if value is None else value & k),
            ]
        elif code == _JUMP:
            following = [(place + 1 + k, offset, mask, value)]
        elif code in (_JEQ, _JGT, _JGE, _JSET):
            ways = _ways(code, value, jt, jf, k)
            if value is None:
                words.setdefault(offset, _Comparisons({0}, set())).add(code, mask, k)
            following = [(place + 1 + way, offset, mask, value) for way in ways]
        else:
            raise ValueError(f"instruction {place}: code {code:#x} is not analysed")
        for state in following:
            if state not in seen:
                seen.add(state)
                todo.append(state)


def _ways(code: int, value: int | None, jt: int, jf: int, k: int) -> tuple[int, ...]:
    if value is None:
        return (jt, jf)
    true = {
        _JEQ: value == k,
        _JGT: value > k,
        _JGE: value >= k,
        _JSET: bool(value & k),
    }[code]
    return (jt if true else jf,)


def _representatives(comparisons: _Comparisons) -> Iterator[int]:
    """Yield one value of every class that is not empty."""
    bounds = sorted(bound for bound in comparisons.bounds if bound <= _WORD)
    masked = sorted(comparisons.masked)
    for low, after in itertools.pairwise([*bounds, _WORD + 1]):
        for truth in itertools.product((True, False), repeat=len(masked)):
            value = _solve(low, after - 1, masked, truth)
            if value is not None:
                yield value


def _solve(
    low: int, high: int, masked: Sequence[tuple[int, int]], truth: Sequence[bool]
) -> int | None:
    """Return a value in [low, high] for which exactly the masks said to be equal are; or None."""
    fixed = bits = 0
    for (mask, k), equal in zip(masked, truth, strict=True):
        if equal:
            if k & ~mask or (bits ^ k) & mask & fixed:
                return None
            fixed, bits = fixed | mask, bits | k
    unequal = [pair for pair, equal in zip(masked, truth, strict=True) if not equal]
    return _falsify(low, high, fixed, bits, unequal)


def _falsify(
    low: int, high: int, fixed: int, bits: int, unequal: Sequence[tuple[int, int]]
) -> int | None:
    """Return a value with fixed bits that differs under each mask; tries one bit after another."""
    for place, (mask, k) in enumerate(unequal):
        if k & ~mask or (bits ^ k) & mask & fixed:
            continue  # differs already
        free = mask & ~fixed
        while free:
            bit = free & -free
            free ^= bit
            found = _falsify(low, high, fixed | bit, bits | (~k & bit), unequal[place + 1 :])
            if found is not None:
                return found
        return None
    return _smallest(low, high, fixed, bits)


def _smallest(low: int, high: int, fixed: int, bits: int) -> int | None:
    """Return the smallest value from low to high whose fixed bits are as given, or None.

    Either low itself fits; or the value agrees with low above some bit, has a 1 there where low has
    a 0, and is as small as can be below. The lowest such bit that works gives the smallest value.
    """
    if not (low ^ bits) & fixed:
        return low
    for place in range(32):
        bit = 1 << place
        above = _WORD & ~((bit << 1) - 1)
        if low & bit or (fixed & bit and not bits & bit) or (low ^ bits) & fixed & above:
            continue
        value = (low & above) | bit | (bits & fixed & (bit - 1))
        return value if value <= high else None
    return None
