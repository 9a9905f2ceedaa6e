"""Settings: defaults < file < environment < flags; nothing unknown and nothing bad gets in."""

from __future__ import annotations

import tomllib
from decimal import Decimal
from pathlib import Path

import pytest

from gridx import config
from gridx.errors import ConfigError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def toml(tmp_path: Path):
    def write(text: str) -> Path:
        path = tmp_path / "config.toml"
        path.write_text(text)
        return path

    return write


def test_later_sources_win(toml):
    path = toml("[coordinator]\nhttp_port = 1\nws_port = 2\nlease_s = 30\n")
    environ = {"GRIDX_HTTP_PORT": "3", "GRIDX_COORDINATOR_WS_PORT": "4"}
    settings = config.load(path, environ, {("coordinator", "ws_port"): 5, ("coordinator", "host"): None})
    assert settings.coordinator.lease_s == 30
    assert settings.coordinator.http_port == 3
    assert settings.coordinator.ws_port == 5
    assert settings.coordinator.host == ""


@pytest.mark.parametrize(
    ("name", "key", "value", "expected"),
    [
        ("GRIDX_HTTP_PORT", ("coordinator", "http_port"), "9001", 9001),
        ("GRIDX_WS_PORT", ("coordinator", "ws_port"), "0", 0),
        ("GRIDX_DB_PATH", ("coordinator", "db_path"), "/tmp/g.db", "/tmp/g.db"),
        ("GRIDX_LOG_LEVEL", ("log", "level"), "debug", "debug"),
        ("COORDINATOR_HTTP", ("worker", "coordinator_http"), "http://h:1", "http://h:1"),
        ("COORDINATOR_WS", ("worker", "coordinator_ws"), "ws://h:2", "ws://h:2"),
        ("GRIDX_WORKER_GPUS", ("worker", "gpus"), "GPU-a, GPU-b", ["GPU-a", "GPU-b"]),
        ("GRIDX_WORKER_REUSE", ("worker", "reuse"), "no", False),
        ("GRIDX_WORKER_CPUS", ("worker", "cpus"), "1.5", 1.5),
        ("GRIDX_CREDITS_GIB_HOUR", ("credits", "gib_hour"), "0.000001", Decimal("0.000001")),
        ("GRIDX_DATA_DIR", ("data_dir",), "/srv/grid", "/srv/grid"),
    ],
)
def test_every_environment_name_sets_its_key(name, key, value, expected):
    found = config.load(None, {name: value, "GRIDX_CONFIG": "/dev/null"})
    for part in key:
        found = getattr(found, part)
    assert found == expected


@pytest.mark.parametrize(
    ("text", "key", "allowed"),
    [
        ("[coordinator]\nhttp_port = 70000", "coordinator.http_port", "at most 65,535"),
        ("[coordinator]\nhttp_port = '80'", "coordinator.http_port", "a whole number"),
        ("[coordinator]\nlease_s = 0", "coordinator.lease_s", "more than 0"),
        ("[log]\nlevel = 'loud'", "log.level", "one of debug, info, warning, error"),
        ("[auth]\nregistration = true", "auth.registration", "one of open, invite, closed"),
        ("[worker]\ngpus = 'all'", "worker.gpus", "a list of texts"),
        ("[credits]\ncore_hour = -1", "credits.core_hour", "from 0 to"),
        ("[credits]\ncore_hour = 0.0000001", "credits.core_hour", "at most six decimals"),
        ("[credits]\ncore_hour = nan", "credits.core_hour", "from 0 to"),
        ("[credits]\nfee_percent = 101", "credits.fee_percent", "from 0 to 100"),
    ],
)
def test_a_bad_value_names_its_key_and_what_is_allowed(toml, text, key, allowed):
    with pytest.raises(ConfigError) as caught:
        config.load(toml(text), {})
    assert caught.value.details["key"] == key
    assert key in caught.value.message
    assert allowed in caught.value.hint


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("[coordinator]\nhttp_prt = 1", "coordinator.http_port"),
        ("[coordinatr]\nhttp_port = 1", "coordinator.http_port"),
        ("worker = 1", ""),
        ("rolle = 'worker'", "role"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_known_one(toml, text, hint):
    with pytest.raises(ConfigError, match="there is no setting") as caught:
        config.load(toml(text), {})
    assert hint in caught.value.hint


def test_an_unknown_environment_name_is_refused():
    with pytest.raises(ConfigError, match="GRIDX_HTTP_PROT") as caught:
        config.load(None, {"GRIDX_HTTP_PROT": "1", "GRIDX_CONFIG": "/dev/null"})
    assert "GRIDX_HTTP_PORT" in caught.value.hint


def test_secrets_are_no_settings():
    config.load(None, {"GRIDX_PASSWORD": "x", "GRIDX_TOKEN": "y", "GRIDX_CONFIG": "/dev/null"})


@pytest.mark.parametrize("text", ["[", "a = ", "\x00"])
def test_a_broken_file_is_one_sentence(toml, text):
    with pytest.raises(ConfigError, match="not valid TOML"):
        config.load(toml(text), {})


def test_a_named_file_that_is_missing_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="no configuration file"):
        config.load(tmp_path / "none.toml", {})


def test_the_example_lists_every_key_with_its_default():
    example = ROOT / "config.example.toml"
    shown = tomllib.loads(_uncommented(example.read_text()), parse_float=Decimal)
    listed = {
        (name, key) if isinstance(value, dict) else (name,)
        for name, value in shown.items()
        for key in (value if isinstance(value, dict) else [name])
    }
    assert listed == set(config.keys())
    # Loading the example as it stands, and with every key set to what it shows, changes nothing.
    assert config.load(example, {}) == config.Settings()


def test_the_examples_shown_values_are_allowed(toml):
    config.load(toml(_uncommented((ROOT / "config.example.toml").read_text())), {})


def _uncommented(text: str) -> str:
    """The example with its ``#key = value`` lines in force."""
    return "\n".join(
        line[1:] if line.startswith("#") and not line.startswith("# ") and line != "#" else line
        for line in text.splitlines()
    )


def test_a_user_without_a_home_has_no_file_and_must_name_the_data_folder(monkeypatch, tmp_path):
    def homeless(*args: object, **options: object) -> str:
        raise RuntimeError("could not determine the home directory")

    monkeypatch.setattr("platformdirs.user_config_dir", homeless)
    monkeypatch.setattr("platformdirs.user_data_dir", homeless)
    with pytest.raises(ConfigError, match="no home folder") as refused:
        _ = config.load(environ={}).data_path
    assert "GRIDX_DATA_DIR" in refused.value.hint
    assert config.load(environ={"GRIDX_DATA_DIR": str(tmp_path)}).data_path == tmp_path
