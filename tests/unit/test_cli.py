"""``gridx-tui``: flags become settings; what does not go together is refused in a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from gridx import cli
from gridx.errors import ConfigError, GridError, SetupError
from gridx.roles import settled


@pytest.fixture(autouse=True)
def no_settings_of_this_machine(monkeypatch):
    for name in list(__import__("os").environ):
        if name.startswith(("GRIDX_", "COORDINATOR_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("GRIDX_CONFIG", "/dev/null")


def parse(*args: str):
    """The settings of a command line."""
    context = cli.command.make_context("gridx-tui", list(args))
    return cli.settings_from(context.params)


def test_every_flag_of_the_coordinator_reaches_its_setting():
    settings = parse(
        *("--role", "coordinator", "--host", "::1", "--http-port", "0", "--ws-port", "7"),
        *("--db", "/x/g.db", "--data-dir", "/x", "--log-level", "debug", "--log-format", "json"),
    )
    assert settings.role == "coordinator"
    assert (settings.coordinator.host, settings.coordinator.http_port, settings.coordinator.ws_port) == (
        "::1",
        0,
        7,
    )
    assert (settings.coordinator.db_path, settings.data_dir) == ("/x/g.db", "/x")
    assert (settings.log.level, settings.log.format) == ("debug", "json")


@pytest.mark.parametrize(
    ("args", "http", "ws"),
    [
        (("--coordinator-ip", "10.0.0.5"), "10.0.0.5:8081", "10.0.0.5:8080/ws/worker"),
        (("--coordinator-ip", "10.0.0.5:9081"), "10.0.0.5:9081", "10.0.0.5:8080/ws/worker"),
        (
            ("--coordinator-ip", "grid", "--http-port", "9081", "--ws-port", "9080"),
            "grid:9081",
            "grid:9080/ws/worker",
        ),
        (("--coordinator", "http://grid:9081/"), "http://grid:9081", "ws://grid:8080/ws/worker"),
        (("--coordinator", "https://grid"), "https://grid:443", "wss://grid:443/ws/worker"),
        (("--coordinator", "https://grid:8081"), "https://grid:8081", "wss://grid:8081/ws/worker"),
        (
            ("--coordinator", "https://grid:8081", "--ws-port", "8080"),
            "https://grid:8081",
            "wss://grid:8080/ws/worker",
        ),
        (("--coordinator-ip", "::1"), "[::1]:8081", "[::1]:8080/ws/worker"),
    ],
)
def test_a_worker_is_told_where_its_coordinator_is(args, http, ws):
    settings = parse("--role", "worker", "--user", "ann", *args)
    assert settings.worker.coordinator_http == http
    assert settings.worker.coordinator_ws == ws
    assert settings.client.coordinator == http
    assert settings.worker.user == settings.client.user == "ann"


def test_a_worker_looks_for_the_ports_that_its_settings_give_the_coordinator(monkeypatch):
    monkeypatch.setenv("GRIDX_HTTP_PORT", "9081")
    monkeypatch.setenv("GRIDX_WS_PORT", "9080")
    settings = parse("--role", "worker", "--user", "ann", "--coordinator-ip", "grid")
    assert settings.worker.coordinator_http == settings.client.coordinator == "grid:9081"
    assert settings.worker.coordinator_ws == "grid:9080/ws/worker"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--coordinator-ip", "h"), "--role worker"),
        (("--role", "coordinator", "--coordinator-ip", "h"), "runs a coordinator of its own"),
        (("--role", "worker", "--coordinator-ip", "h", "--coordinator", "http://h"), "the same thing"),
        (("--role", "worker", "--coordinator-ip", "a b"), "not the address"),
        (("--http-port", "70000"), "http_port"),
        (("--config", "/does/not/exist.toml"), "exist.toml"),
    ],
)
def test_flags_that_make_no_sense_are_refused(args, words):
    with pytest.raises(ConfigError) as caught:
        parse(*args)
    assert words in str(caught.value)


def test_flags_win_over_the_environment(monkeypatch):
    monkeypatch.setenv("GRIDX_HTTP_PORT", "1")
    monkeypatch.setenv("GRIDX_WS_PORT", "2")
    settings = parse("--http-port", "3")
    assert (settings.coordinator.http_port, settings.coordinator.ws_port) == (3, 2)


@pytest.mark.parametrize(
    ("given", "files"), [("off", ()), ("auto", ()), ("a.crt, b/key", (Path("a.crt"), Path("b/key")))]
)
def test_tls_is_off_or_made_or_ones_own(given, files):
    settings = parse("--tls", given)
    assert settings.coordinator.tls == given
    assert settings.tls_files == files


def test_without_a_terminal_the_dashboard_is_refused():
    done = CliRunner().invoke(cli.command, [])
    assert isinstance(done.exception, SetupError)
    assert "--no-ui" in done.exception.hint
    assert done.exception.exit_code == 2


def test_a_worker_needs_an_owner_and_a_coordinator():
    with pytest.raises(SetupError, match="owner"):
        settled(parse("--role", "worker", "--coordinator-ip", "h"))
    with pytest.raises(SetupError, match="coordinator"):
        settled(parse("--role", "worker", "--user", "ann"))


def test_standalone_stays_on_this_machine_and_has_a_user():
    settings = settled(parse())
    assert settings.coordinator.host == "127.0.0.1"
    assert settings.worker.user


@pytest.mark.parametrize(
    ("content", "password"), [(b"secret\n", "secret"), (b" two words \r\nmore\n", " two words ")]
)
def test_the_first_line_of_a_file_is_the_password(tmp_path, content, password):
    path = tmp_path / "password"
    path.write_bytes(content)
    assert cli.read_password_file(path) == password


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe", None])
def test_a_password_file_without_a_password_is_refused(tmp_path, content):
    path = tmp_path / "password"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(GridError) as caught:
        cli.read_password_file(path)
    assert caught.value.exit_code == 2


def test_help_names_every_flag_of_the_surface():
    text = CliRunner().invoke(cli.command, ["--help"]).output
    for flag in (
        "--role", "--no-ui", "--coordinator-ip", "--coordinator", "--user", "--password-file", "--password",
        "--config", "--host", "--http-port", "--ws-port", "--db", "--data-dir", "--log-level", "--log-format",
        "--ascii",
    ):  # fmt: skip
        assert flag in text
