from __future__ import annotations

from pathlib import Path

import pytest

from hyperbox.errors import KernelFeatureMissing
from hyperbox.files import write_sealed
from hyperbox.storage.ladder import Enabled, choose, probed
from hyperbox.storage.rung import LADDER, Rung

ALL = dict.fromkeys(LADDER, "")


@pytest.mark.parametrize(
    ("enabled", "refused", "chosen"),
    [
        (Enabled.AUTO, (), Rung.EROFS),
        (Enabled.ON, (), Rung.EROFS),
        (Enabled.OFF, (), Rung.COMPOSEFS),
        (Enabled.AUTO, (Rung.EROFS,), Rung.COMPOSEFS),
        (Enabled.AUTO, (Rung.EROFS, Rung.COMPOSEFS), Rung.OVERLAY),
        (Enabled.OFF, (Rung.COMPOSEFS,), Rung.OVERLAY),
    ],
)
def test_the_best_rung_that_works(
    enabled: Enabled, refused: tuple[Rung, ...], chosen: Rung
) -> None:
    answers = ALL | dict.fromkeys(refused, "the kernel says no")
    choice = choose(enabled, answers)
    assert choice.rung is chosen
    assert all(why in choice.reason for why in choice.refused.values())
    assert list(choice.refused) == list(LADDER)[: LADDER.index(chosen)]


def test_no_rung_says_why_of_each() -> None:
    with pytest.raises(KernelFeatureMissing, match="erofs: no; composefs: no; overlay: no"):
        choose(Enabled.AUTO, dict.fromkeys(LADDER, "no"))
    with pytest.raises(KernelFeatureMissing, match="EROFS does not work on this kernel: no"):
        choose(Enabled.ON, ALL | {Rung.EROFS: "no"})


@pytest.mark.root
def test_rungs_are_tried_once_per_boot(tmp_path: Path) -> None:
    record = tmp_path / "rungs.json"
    first = probed(record)
    assert set(first) == set(LADDER)
    stamp = record.stat().st_mtime_ns
    assert probed(record) == first
    assert record.stat().st_mtime_ns == stamp
    write_sealed(record, {"boot": "another", **dict.fromkeys(map(str, LADDER), "of another boot")})
    assert probed(record) == first
