"""Saved sign-ins: private, whole, one for each coordinator, and never a password."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gridx import credentials, privatefiles
from gridx.config import ClientSettings, Settings
from gridx.credentials import SignIn
from gridx.errors import ConfigError, SetupError
from gridx.messages import Session, User

ANN = SignIn(user="ann", token="t-ann")


@pytest.fixture
def environ(tmp_path):
    return {"GRIDX_HOME": str(tmp_path / "home")}


def of_url(url="", user=""):
    return Settings(client=ClientSettings(coordinator=url, user=user))


def test_the_folder_is_the_home_or_the_one_that_was_named(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert credentials.home({}) == tmp_path / ".gridx"
    assert credentials.home({"GRIDX_HOME": "/x/y"}).as_posix() == "/x/y"


def test_a_sign_in_is_found_again_by_any_spelling_of_its_coordinator(environ):
    saved = credentials.of_shell(environ)
    assert saved.find("http://host:8081") is None
    saved.save("http://HOST:8081/", ANN)
    for spelling in ("http://host:8081", "host", "host:8081", "http://host"):
        assert credentials.of_shell(environ).find(spelling) == ANN
    assert saved.find("https://host:8081") is None
    assert saved.find("http://host:9999") is None


def test_files_and_folder_are_private(environ, tmp_path):
    before = os.umask(0o022)
    try:
        credentials.of_worker("ann", environ).save("http://a:1", ANN)
    finally:
        os.umask(before)
    home = tmp_path / "home"
    assert home.stat().st_mode & 0o777 == 0o700
    assert {path.name: path.stat().st_mode & 0o777 for path in home.iterdir()} == {"worker_ann.json": 0o600}


def test_a_saved_file_that_others_could_read_is_private_after_the_next_save(environ):
    saved = credentials.of_shell(environ)
    saved.save("http://a:1", ANN)
    saved.path.chmod(0o644)
    saved.save("http://b:1", ANN)
    assert saved.path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("user", "name"),
    [
        ("ann", "worker_ann.json"),
        ("a.b_c@d-e", "worker_a.b_c@d-e.json"),
        ("../../etc/passwd", "worker_..%2f..%2fetc%2fpasswd.json"),
        ("é\n\x00", "worker_%c3%a9%0a%00.json"),
    ],
)
def test_user_names_make_safe_file_names(environ, user, name):
    path = credentials.of_worker(user, environ).path
    assert path.name == name
    assert path.parent == credentials.home(environ)


def test_each_coordinator_has_its_own_and_the_last_is_remembered(environ):
    saved = credentials.of_shell(environ)
    bob = SignIn(user="bob", token="t-bob", expires_at=datetime(2030, 1, 1, tzinfo=UTC))
    saved.save("http://a:1", ANN)
    saved.save("http://b:2", bob)
    assert saved.find("http://a:1") == ANN
    assert saved.last() == ("http://b:2", bob)
    assert saved.forget("http://b:2")
    assert not saved.forget("http://b:2")
    assert saved.last() is None
    assert saved.find("http://a:1") == ANN


def test_a_write_that_fails_leaves_the_old_file_and_no_other(environ, monkeypatch):
    saved = credentials.of_shell(environ)
    saved.save("http://a:1", ANN)

    def full(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(privatefiles.os, "fsync", full)
    with pytest.raises(SetupError, match="No space left on device"):
        saved.save("http://b:2", ANN)
    assert [path.name for path in saved.path.parent.iterdir()] == ["session.json"]
    assert saved.find("http://a:1") == ANN


@pytest.mark.parametrize("damage", [b"", b"{", b"\xff", b"[]", b'{"format": "1"}'])
def test_a_damaged_file_is_no_sign_in_and_is_mended_by_the_next(environ, damage, caplog):
    saved = credentials.of_shell(environ)
    saved.save("http://a:1", ANN)
    saved.path.write_bytes(damage)
    assert saved.find("http://a:1") is None
    assert "is damaged" in caplog.text
    saved.save("http://a:1", ANN)
    assert saved.find("http://a:1") == ANN


def test_a_file_of_another_version_is_left_alone(environ):
    saved = credentials.of_shell(environ)
    saved.save("http://a:1", ANN)
    saved.path.write_text('{"format": 2}')
    with pytest.raises(SetupError, match="another version"):
        saved.save("http://a:1", ANN)
    assert saved.path.read_text() == '{"format": 2}'


def test_the_shell_goes_where_it_is_told_else_where_it_was_last(environ):
    with pytest.raises(ConfigError, match="not known where the grid is"):
        credentials.resolve(of_url(), environ)
    assert credentials.resolve(of_url("http://a:1"), environ) == ("http://a:1", None)
    credentials.of_shell(environ).save("http://a:1", ANN)
    assert credentials.resolve(of_url(), environ) == ("http://a:1", "t-ann")
    assert credentials.resolve(of_url("http://a:1", "Ann"), environ) == ("http://a:1", "t-ann")
    assert credentials.resolve(of_url("http://a:1", "bob"), environ) == ("http://a:1", None)
    assert credentials.resolve(of_url("http://b:2"), environ) == ("http://b:2", None)
    assert credentials.resolve(of_url("http://b:2"), environ | {"GRIDX_TOKEN": "t"}) == ("http://b:2", "t")


def test_a_session_is_remembered_without_what_it_does_not_need(environ, monkeypatch):
    monkeypatch.setenv("GRIDX_HOME", environ["GRIDX_HOME"])
    now = datetime(2030, 1, 1, tzinfo=UTC)
    user = User(id=1, username="ann", role="user", created_at=now)
    credentials.remember("http://a:1", Session(token="t", expires_at=now, user=user))
    assert credentials.of_shell().find("http://a:1") == SignIn(user="ann", token="t", expires_at=now)


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch):
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(credentials.Path, "home", homeless)
    with pytest.raises(SetupError, match="no home folder") as refused:
        credentials.home({})
    assert "GRIDX_HOME" in refused.value.hint
