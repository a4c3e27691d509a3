"""The tuner's settings: the same names on the command line and in the file, wrong ones named."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from hyperbox.errors import ConfigError
from hyperbox.memory.decisions import Rules
from hyperbox.memory.tuning import TunerOptions
from hyperbox.memory.tuning_options import add_options, from_table, options_from


def parsed(*words: str) -> TunerOptions:
    parser = argparse.ArgumentParser()
    add_options(parser)
    return options_from(parser.parse_args(words))


def test_defaults_are_the_targets() -> None:
    options = parsed()
    assert options == TunerOptions()
    rules = options.rules
    assert (rules.interval_s, rules.act, rules.watch, rules.calm) == (5, 80, 40, 20)
    assert (rules.relax_s, rules.confirm) == (60, 2)


def test_help_names_the_defaults_in_force() -> None:
    parser = argparse.ArgumentParser()
    add_options(parser)
    said = " ".join(parser.format_help().split())
    assert "seconds of calm before giving back (default 60)" in said
    assert "act above this many percent (default 80)" in said


def test_command_line_wins_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "tuner.toml"
    file.write_text(
        '[tuner]\ninterval = 2\nact = 70\nfast-swap = "none"\nstreaming = ["/a", "/b"]\n'
        f'cgroup = "{tmp_path}"\ndry-run = true\nzram-mib = 64\n'
    )
    options = parsed("--config", str(file), "--act", "90")
    assert (options.rules.interval_s, options.rules.act) == (2, 90)
    assert (options.fast_swap, options.zram_mib, options.dry_run) == ("none", 64, True)
    assert options.streaming == (Path("/a"), Path("/b"))
    assert options.group == tmp_path


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"swappiness": 19}, "swappiness cannot be 19"),
        ({"swappiness": 60.5}, "swappiness cannot be"),
        ({"act": True}, "act cannot be True"),
        ({"act": "high"}, "act cannot be 'high'"),
        ({"act": 30}, "thresholds out of order"),
        ({"interval": 0.5}, "interval cannot be 0.5"),
        ({"interval": float("nan")}, "interval cannot be nan"),
        ({"fast-swap": "disk"}, "fast swap cannot be 'disk'"),
        ({"streaming": ["relative"]}, "streaming cannot be 'relative'"),
        ({"streaming": "/a"}, "streaming cannot be '/a'"),
        ({"cgroup": "/nonexistent"}, "no directory /nonexistent"),
        ({"dry-run": "yes"}, "dry-run cannot be 'yes'"),
        ({"strategy": 1}, "unknown key 'strategy'"),
    ],
)
def test_wrong_setting_is_named(table: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        from_table(table, "tuner.toml: ")


def test_near_name_is_offered() -> None:
    with pytest.raises(ConfigError) as caught:
        from_table({"swapiness": 100}, "")
    assert caught.value.hint == "did you mean swappiness?"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tuner = 1", "must be a table"),
        ("[tunerr]\nact = 90", "unknown table or key 'tunerr'"),
        ("act = 90", "unknown table or key 'act'"),
        ("x", "Expected '='"),
        (None, "No such"),
    ],
)
def test_wrong_file_is_named(tmp_path: Path, text: str | None, said: str) -> None:
    file = tmp_path / "tuner.toml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigError, match=said) as caught:
        parsed("--config", str(file))
    assert str(file) in caught.value.message


def test_gap_is_three_intervals_and_more() -> None:
    assert Rules(interval_s=2).gap_ns == 7_000_000_000
