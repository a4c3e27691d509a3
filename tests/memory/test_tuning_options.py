"""The tuner's settings: the same names on the command line and in the file, wrong ones named."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from hyperbox.errors import ConfigError
from hyperbox.memory.decisions import Rules
from hyperbox.memory.tuning import TunerOptions
from hyperbox.memory.tuning_options import add_options, options_from


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
    assert "seconds of calm before giving back (default: 60; HYPERBOX_TUNER_RELAX)" in said
    assert "act above this many percent (default: 80; HYPERBOX_TUNER_ACT)" in said


@pytest.mark.parametrize(
    ("observing", "rules", "acting"), [(True, False, False), (False, True, False)]
)
def test_a_verb_has_the_options_that_have_an_effect(
    observing: bool, rules: bool, acting: bool
) -> None:
    parser = argparse.ArgumentParser()
    add_options(parser, observing=observing, rules=rules, acting=acting)
    said = parser.format_help()
    assert "--interval" in said
    assert ("--streaming" in said, "--act" in said) == (observing, rules)
    assert "--swappiness" not in said


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
    ("line", "said"),
    [
        ("swappiness = 19", "swappiness must be a whole number from 20 to 200, not 19"),
        ("swappiness = 60.5", "swappiness must be a whole number"),
        ("act = true", "act must be a number from 1 to 100, not True"),
        ("act = 'high'", "act must be a number from 1 to 100, not 'high'"),
        ("act = 30", "thresholds out of order"),
        ("interval = 0.5", "interval must be a number from 1 to 300, not 0.5"),
        ("interval = nan", "interval must be a number from 1 to 300, not nan"),
        ("fast-swap = 'disk'", "fast-swap cannot be 'disk'"),
        ("streaming = ['relative']", "streaming cannot be 'relative'"),
        ("streaming = '/a'", "streaming must be a list of words, not '/a'"),
        ("cgroup = '/nonexistent'", "no directory /nonexistent"),
        ("cgroup = 'relative'", "cgroup cannot be 'relative'"),
        ("dry-run = 'yes'", "dry-run must be yes or no, not 'yes'"),
        ("strategy = 1", "strategy: unknown key"),
    ],
)
def test_wrong_setting_is_named(tmp_path: Path, line: str, said: str) -> None:
    file = tmp_path / "tuner.toml"
    file.write_text(f"[tuner]\n{line}\n")
    with pytest.raises(ConfigError, match=said):
        parsed("--config", str(file))


def test_near_name_is_offered(tmp_path: Path) -> None:
    file = tmp_path / "tuner.toml"
    file.write_text("[tuner]\nswapiness = 100\n")
    with pytest.raises(ConfigError) as caught:
        parsed("--config", str(file))
    assert caught.value.hint == "did you mean swappiness?"


def test_gap_is_three_intervals_and_more() -> None:
    assert Rules(interval_s=2).gap_ns == 7_000_000_000
