"""Fuzzing of parsers: inputs made from real ones and from what was found, by seed.

Ten thousand inputs cost hypothesis half a minute to draw value by value, and a second if it
draws seeds. A test gets a batch of inputs; what was found before is an example of its own.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

from hypothesis import example, given, settings
from hypothesis import strategies as st

__all__ = ["fuzzed", "mutants"]

_BATCH = 40
_LARGEST = 8192  # bytes of an input that others are made from; larger ones are examples only
_PIECES = (
    *(bytes([byte]) for byte in b'\0\n\r\t "\\{}[]<>:=-+#0\xff'),
    *(text.encode() for text in ("\u2028", "\x85", "\ufeff", "\x1b[31m")),
    *(b"\\ud800", b"1e999", b"NaN", b"9" * 400, b"[" * 200),
)


def fuzzed(
    corpus: Sequence[bytes], inputs: int = 10_000
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Let a test take so many inputs in parts, as the argument `batch`, and the corpus first."""

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        for found in corpus:
            test = example(batch=(found,))(test)
        small = [found for found in corpus if len(found) <= _LARGEST]
        seeds = st.integers(0, 2**64 - 1)
        batches = seeds.map(lambda seed: tuple(mutants(small, seed)))
        return settings(max_examples=inputs // _BATCH)(given(batch=batches)(test))

    return decorate


def mutants(corpus: Sequence[bytes], seed: int) -> Iterator[bytes]:
    """Return a batch of inputs; the same seed, the same inputs."""
    dice = random.Random(seed)
    for _ in range(_BATCH):
        made = bytearray(dice.choice(corpus))
        for _ in range(dice.choice((1, 1, 2, 3, 8))):
            dice.choice(_WAYS)(made, corpus, dice)
        yield bytes(made)


def _piece(made: Sequence[int], dice: random.Random) -> slice:
    begin = dice.randint(0, len(made))
    return slice(begin, begin + dice.choice((1, 1, 4, 30, len(made))))


def _flip(made: bytearray, _corpus: Sequence[bytes], dice: random.Random) -> None:
    if made:
        made[dice.randrange(len(made))] ^= 1 << dice.randrange(8)


def _cut(made: bytearray, _corpus: Sequence[bytes], dice: random.Random) -> None:
    del made[_piece(made, dice)]


def _repeat(made: bytearray, _corpus: Sequence[bytes], dice: random.Random) -> None:
    part = _piece(made, dice)
    made[part] = made[part] * dice.choice((2, 3, 20))


def _insert(made: bytearray, _corpus: Sequence[bytes], dice: random.Random) -> None:
    place = dice.randint(0, len(made))
    made[place:place] = dice.choice(_PIECES)


def _splice(made: bytearray, corpus: Sequence[bytes], dice: random.Random) -> None:
    other = dice.choice(corpus)
    made[_piece(made, dice)] = other[_piece(other, dice)]


_WAYS = (_flip, _cut, _repeat, _insert, _splice)
