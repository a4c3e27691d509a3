"""One declaration a setting: options, environment, file and help all follow from it."""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperbox.config import Settings, add_options, declarations, resolve
from hyperbox.errors import ConfigError


def _parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_options(parser)
    return parser.parse_args(words)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_defaults() -> None:
    assert resolve(_parse(), {}) == Settings()


def test_help_shows_every_setting_with_its_variable() -> None:
    parser = argparse.ArgumentParser()
    add_options(parser)
    text = "".join(parser.format_help().split())
    for setting in declarations():
        assert setting.option in text
        assert setting.variable in text


def test_command_line_beats_environment_beats_file(tmp_path: Path) -> None:
    (tmp_path / "hyperbox.toml").write_text("jobs = 1\nseed = 1\nblocks = 1\n")
    environment = {"HYPERBOX_JOBS": "2", "HYPERBOX_SEED": "2"}
    settings = resolve(_parse("--jobs", "3"), environment)
    assert (settings.jobs, settings.seed, settings.blocks) == (3, 2, 1)


def test_lists_flags_and_paths() -> None:
    settings = resolve(
        _parse("--kernel", "5.10", "--kernel", "./bzImage", "--strict", "--modules", "m"), {}
    )
    assert settings.kernel == ("5.10", "./bzImage")
    assert settings.strict
    assert settings.modules == Path("m")
    assert resolve(_parse(), {"HYPERBOX_KERNEL": "6.1, 7.3"}).kernel == ("6.1", "7.3")
    assert not resolve(_parse("--no-strict"), {"HYPERBOX_STRICT": "1"}).strict


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("job = 1", r"hyperbox\.toml: unknown key 'job'"),
        ("jobs = '1'", r"hyperbox\.toml: jobs must be a whole number from 1 up, not '1'"),
        ("jobs = 0", "jobs must be a whole number from 1 up"),
        ("jobs = true", "jobs must be a whole number from 1 up"),
        ("strict = 1", "strict must be a yes or no"),
        ("kernel = '6.1'", "kernel must be a list of words"),
        ("kernel = [6.1]", "kernel must be a list of words"),
        ("kernel = []", "kernel must be a list of words"),
        ("lane = 'slow'", "lane cannot be 'slow'"),
        ("allow_host_changes = true", "allow_host_changes cannot be set in a file"),
        ("resume = 'runs/x'", "resume cannot be set in a file"),
        ("target = 'host'", "target cannot be set in a file that only lies in the current"),
        ("suites = 'mine'", "suites cannot be set in a file that only lies in the current"),
        ("jobs = \n", r"hyperbox\.toml: broken TOML: .*line 1"),
    ],
)
def test_faults_in_the_file_are_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "hyperbox.toml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        resolve(_parse(), {})


@pytest.mark.parametrize("named", ["--config", "HYPERBOX_CONFIG"])
def test_a_file_that_is_named_may_choose_programs_of_this_machine(
    tmp_path: Path, named: str
) -> None:
    (tmp_path / "hyperbox.toml").write_text("target = 'host'\nsuites = 'mine'\n")
    words = ("--config", "hyperbox.toml") if named == "--config" else ()
    environment = {} if words else {named: "hyperbox.toml"}
    settings = resolve(_parse(*words), environment)
    assert (settings.target, settings.suites) == ("host", Path("mine"))


@pytest.mark.parametrize(
    ("words", "environment", "message"),
    [
        (("--jobs", "many"), {}, "--jobs must be a whole number from 1 up, not 'many'"),
        (("--blocks", "0"), {}, "--blocks must be"),
        ((), {"HYPERBOX_JOBS": "-1"}, "HYPERBOX_JOBS must be"),
        ((), {"HYPERBOX_STRICT": "perhaps"}, "HYPERBOX_STRICT must be a yes or no"),
        ((), {"HYPERBOX_LANE": "slow"}, "HYPERBOX_LANE cannot be 'slow'"),
        ((), {"HYPERBOX_KERNEL": ", "}, "HYPERBOX_KERNEL must be a list"),
        ((), {"HYPERBOX_CONFIG": "absent.toml"}, "cannot read absent.toml"),
        (("--config", "absent.toml"), {}, "cannot read absent.toml"),
    ],
)
def test_faults_elsewhere_are_named(
    words: tuple[str, ...], environment: dict[str, str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve(_parse(*words), environment)


@given(
    name=st.sampled_from([setting.variable for setting in declarations()]),
    value=st.text(alphabet=st.characters(exclude_characters="\0"), max_size=20),
)
def test_any_value_of_a_variable_is_taken_or_is_a_config_error(name: str, value: str) -> None:
    with contextlib.suppress(ConfigError):
        assert isinstance(resolve(_parse(), {name: value}), Settings)
