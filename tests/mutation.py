"""Inputs for parsers: sound documents, damaged as others damage them."""

from __future__ import annotations

import random
from collections.abc import Sequence

from hypothesis import strategies as st

_BATCH = 50  # Hypothesis takes a millisecond for an input of its own, a parser some 50 us
_TOKENS = (
    *('"', "'", "{", "}", "[", "]", ":", ",", "=", ".", "-", "\\", "\n", "\n\n", "\0", " ", "#"),
    *("null", "true", "1e999", "-1", "1e308", "NaN", "Infinity", "0x1", "1_0", "[[a]]", "a.b.c="),
    *("9" * 400, "9" * 5000, "[" * 150, '{"a":' * 150, "a." * 150),
    *("\u2028", "\x85", "\ufeff", "\U0010ffff", "\u00b2", "\u0663", "\x1b[2J", "\\ud800"),
    *("../", "/etc/shadow", "linux", "linux-", "6.12", "~", "+", "1:", "2147483648"),
)


def batches(corpus: Sequence[str]) -> st.SearchStrategy[list[str]]:
    """Return lists of 50 inputs, each a text of the corpus with a few pieces changed."""
    seeds = st.integers(0, (1 << 64) - 1)
    return seeds.map(lambda seed: _damaged(corpus, random.Random(seed)))


def _damaged(corpus: Sequence[str], chance: random.Random) -> list[str]:
    return [_mutated(chance.choice(corpus), corpus, chance) for _ in range(_BATCH)]


def _mutated(text: str, corpus: Sequence[str], chance: random.Random) -> str:
    for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
        start = chance.randint(0, len(text))
        end = min(len(text), start + chance.choice((0, 0, 1, 1, 2, 8, 40)))
        other = chance.choice(corpus)
        place = chance.randint(0, len(other))
        new = chance.choice(
            (
                "",
                chance.choice(_TOKENS),
                chance.choice(_TOKENS),
                chr(chance.randrange(0xD800)),
                other[place : place + chance.choice((1, 8, 40, 200))],
            )
        )
        text = text[:start] + new + text[end:]
    return text[: chance.randint(0, len(text))] if chance.random() < 0.1 else text
