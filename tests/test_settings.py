"""One declaration a setting: options, environment, file, help and documents all follow from it."""

from __future__ import annotations

import argparse
import contextlib
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperbox.config import VALIDATE, Settings
from hyperbox.daemon.options import DAEMON
from hyperbox.errors import ConfigError
from hyperbox.memory.tuning_options import TUNER
from hyperbox.runtime.options import CONTAINERS
from hyperbox.settings import TABLES, InFile, Setting, SettingsTable, add_config, markdown
from hyperbox.storage.image_settings import IMAGES

EVERY: tuple[SettingsTable[Any], ...] = (CONTAINERS, DAEMON, IMAGES, TUNER, VALIDATE)
VARIABLES = [(table, table.variable(setting)) for table in EVERY for setting in table.settings]
PAIRS = [(table, setting) for table in EVERY for setting in table.settings]


def _parser(table: SettingsTable[Any] = VALIDATE) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    add_config(parser)
    table.add_options(parser)
    return parser


def _resolve(*words: str, environment: dict[str, str] | None = None) -> Settings:
    return VALIDATE.resolve(_parser().parse_args(words), environment or {})


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("table", EVERY, ids=lambda table: table.name)
def test_defaults(table: SettingsTable[Any]) -> None:
    assert table.resolve(_parser(table).parse_args([]), {}) == table.declares()


def test_every_table_is_known_to_all_verbs() -> None:
    assert sorted(table.name for table in EVERY) == list(TABLES)
    assert len({variable for _, variable in VARIABLES}) == len(VARIABLES)


@pytest.mark.parametrize("table", EVERY, ids=lambda table: table.name)
def test_help_shows_every_setting_with_its_variable_and_default(table: SettingsTable[Any]) -> None:
    said = "".join(_parser(table).format_help().split())
    for setting in table.settings:
        assert setting.option in said
        default = f"default: {setting.default_text}; " if setting.default_text else ""
        assert f"({default}{table.variable(setting)})".replace(" ", "") in said


def _written(setting: Setting) -> str:
    """Return a value of a setting, as TOML has it, that is not the default."""
    kinds = {"flag": "true", "list": '["a", "b"]', "path": '"/a"', "whole": "", "number": ""}
    if setting.choices:
        return f'"{setting.choices[-1]}"'
    number = setting.most if setting.most is not None else 7
    return kinds.get(setting.kind.name.lower(), '"word"') or str(number)


@pytest.mark.parametrize(("table", "setting"), PAIRS, ids=[f"{t.name}.{s.name}" for t, s in PAIRS])
def test_a_setting_means_the_same_wherever_it_is_set(
    tmp_path: Path, table: SettingsTable[Any], setting: Setting
) -> None:
    value = _written(setting)
    plain = value.strip('"')
    words = [setting.option, plain]
    if setting.kind.name == "FLAG":
        words = [setting.option]
    if setting.kind.name == "LIST":
        plain, words = "a,b", [setting.option, "a", setting.option, "b"]
    found = table.resolve(_parser(table).parse_args(words), {})
    assert found != table.declares()
    assert table.resolve(_parser(table).parse_args([]), {table.variable(setting): plain}) == found
    file = tmp_path / "mine.toml"
    file.write_text(f"[{table.name}]\n{setting.name} = {value}\n")
    arguments = _parser(table).parse_args(["--config", str(file)])
    if setting.in_file is InFile.NONE:
        with pytest.raises(ConfigError, match="cannot be set in a file"):
            table.resolve(arguments, {})
        return
    assert table.resolve(arguments, {}) == found
    assert table.resolve(_parser(table).parse_args([]), {"HYPERBOX_CONFIG": str(file)}) == found
    file.rename(tmp_path / "hyperbox.toml")
    if setting.in_file is InFile.NAMED:
        with pytest.raises(ConfigError, match="a file that only lies in the current directory"):
            table.resolve(_parser(table).parse_args([]), {})
    else:
        assert table.resolve(_parser(table).parse_args([]), {}) == found


def test_command_line_beats_environment_beats_file(tmp_path: Path) -> None:
    (tmp_path / "hyperbox.toml").write_text("[validate]\njobs = 1\nseed = 1\nblocks = 1\n")
    environment = {"HYPERBOX_JOBS": "2", "HYPERBOX_SEED": "2"}
    settings = _resolve("--jobs", "3", environment=environment)
    assert (settings.jobs, settings.seed, settings.blocks) == (3, 2, 1)
    assert not _resolve("--no-strict", environment={"HYPERBOX_STRICT": "1"}).strict


def test_a_file_has_the_tables_of_all_features(tmp_path: Path) -> None:
    text = "[validate]\njobs = 2\n[tuner]\nact = 70\n[daemon]\ninterval = 2\nverbose = true\n"
    (tmp_path / "all.toml").write_text(text)
    words = ["--config", "all.toml"]
    assert _resolve(*words).jobs == 2
    assert TUNER.resolve(_parser(TUNER).parse_args(words), {}).act == 70
    daemon = DAEMON.resolve(_parser(DAEMON).parse_args(words), {})
    assert (daemon.interval, daemon.verbose) == (2, True)


def test_keys_may_have_underscores(tmp_path: Path) -> None:
    (tmp_path / "hyperbox.toml").write_text("[validate]\nrun_directory = 'here'\n")
    assert _resolve().run_directory == Path("here")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("job = 1", r"hyperbox\.toml: validate\.job: unknown key"),
        ("jobs = '1'", r"hyperbox\.toml: validate\.jobs must be a whole number from 1 up, not '1'"),
        ("jobs = 0", "jobs must be a whole number from 1 up"),
        ("jobs = true", "jobs must be a whole number from 1 up"),
        ("jobs = 1.5", "jobs must be a whole number from 1 up"),
        ("strict = 1", "strict must be yes or no"),
        ("kernel = '6.1'", "kernel must be a list of words"),
        ("kernel = [6.1]", "kernel must be a list of words"),
        ("kernel = []", "kernel must be a list of words"),
        ("lane = 'slow'", "lane cannot be 'slow'"),
        ("lane = ''", "lane must be a text"),
        ("jobs = \n", r"hyperbox\.toml: broken TOML: .*line 2"),
        ("[tunerr]\nact = 1", r"hyperbox\.toml: unknown table \[tunerr\]"),
    ],
)
def test_faults_in_the_file_are_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "hyperbox.toml").write_text(f"[validate]\n{text}")
    with pytest.raises(ConfigError, match=message):
        _resolve()


def test_a_key_outside_of_a_table_is_named_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "hyperbox.toml").write_text("jobs = 1\n")
    with pytest.raises(ConfigError, match=r"hyperbox\.toml: 'jobs' stands outside") as caught:
        _resolve()
    assert caught.value.hint == "settings of validate stand below [validate]"


@pytest.mark.parametrize(
    ("words", "environment", "message"),
    [
        (("--jobs", "many"), {}, "--jobs must be a whole number from 1 up, not 'many'"),
        (("--blocks", "0"), {}, "--blocks must be"),
        ((), {"HYPERBOX_JOBS": "-1"}, "HYPERBOX_JOBS must be"),
        ((), {"HYPERBOX_STRICT": "perhaps"}, "HYPERBOX_STRICT must be yes or no"),
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
        _resolve(*words, environment=environment)


@given(
    place=st.sampled_from(VARIABLES),
    value=st.text(alphabet=st.characters(exclude_characters="\0"), max_size=20),
)
def test_any_value_of_a_variable_is_taken_or_is_a_config_error(
    place: tuple[SettingsTable[Any], str], value: str
) -> None:
    table, name = place
    with contextlib.suppress(ConfigError):
        assert isinstance(
            table.resolve(_parser(table).parse_args([]), {name: value}), table.declares
        )


DOCUMENT = Path(__file__).parents[1] / "docs/configuration.md"


@pytest.mark.parametrize("table", EVERY, ids=lambda table: table.name)
def test_the_document_has_the_tables_of_today(table: SettingsTable[Any]) -> None:
    """Where this fails, the lines that it wants are those to paste."""
    wanted = list(markdown(table))
    text = DOCUMENT.read_text()
    found = re.search(rf"^{re.escape(wanted[0])}\n(\|.*\n)*", text, re.MULTILINE)
    assert (found[0] if found else "").splitlines() == wanted
