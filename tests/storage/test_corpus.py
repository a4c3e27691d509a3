"""Whatever others wrote about images: it is read, or refused by an error that is expected."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.storage.parsing import CORPUS, PARSERS, corpus, damaged, parsed

_BATCH = 25


def test_each_parser_has_a_corpus() -> None:
    assert {path.name for path in CORPUS.iterdir()} == set(PARSERS)
    assert all(corpus(name) for name in PARSERS)


@pytest.mark.parametrize("name", PARSERS)
def test_what_was_found_before(name: str) -> None:
    for data in corpus(name):
        parsed(name, data)


@pytest.mark.parametrize("name", PARSERS)
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, (1 << 64) - 1))
def test_what_is_damaged_anew(name: str, seed: int) -> None:
    inputs, chance = corpus(name), random.Random(seed)
    for _ in range(_BATCH):
        parsed(name, damaged(inputs, chance))
