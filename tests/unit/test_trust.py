"""What is known of coordinators' certificates, and how people write it."""

from __future__ import annotations

import ast
import stat
from pathlib import Path

import pytest

import gridx
from gridx.address import named, private, ws_url
from gridx.errors import ConfigError, SetupError
from gridx.known_coordinators import KnownCoordinators, digest, fingerprint, place, written
from gridx.trust import Trust

ONE, OTHER = fingerprint(b"one"), fingerprint(b"other")


@pytest.mark.parametrize(
    "text",
    [
        ONE,
        ONE.lower(),
        ONE.removeprefix("SHA256:"),
        ONE.replace(":", "").removeprefix("SHA256"),
        f" sha256 Fingerprint={ONE.removeprefix('SHA256:')}\n",
        f"SHA-256: {ONE.removeprefix('SHA256:')}",
    ],
)
def test_a_fingerprint_is_taken_as_programs_print_it(text):
    assert written(digest(text)) == ONE


@pytest.mark.parametrize(
    "text", ["", "SHA256:", "AB", ONE[:-1], ONE + "0", "SHA1:" + ONE[7:], "\x1b[31m" + ONE]
)
def test_what_is_no_fingerprint_is_refused(text):
    with pytest.raises(ConfigError) as caught:
        digest(text)
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "where"),
    [
        ("https://Grid.Example", "grid.example:443"),
        ("wss://grid.example:8080/ws/worker", "grid.example:8080"),
        ("https://[::1]:8081", "[::1]:8081"),
        ("http://10.0.0.1:8081", "10.0.0.1:8081"),
    ],
)
def test_a_coordinator_is_known_by_host_and_port(url, where):
    assert place(url) == where


def test_what_was_met_first_stays_until_a_person_says_otherwise(tmp_path):
    known = KnownCoordinators(tmp_path / "home" / "known_coordinators")
    assert known.find("a:1") is None
    assert known.meet("a:1", ONE) == ONE
    assert known.meet("a:1", OTHER) == ONE
    assert known.meet("[::1]:2", OTHER) == OTHER
    assert stat.S_IMODE(known.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(known.path.parent.stat().st_mode) == 0o700
    known.keep("a:1", OTHER)
    assert known.all() == {"a:1": OTHER, "[::1]:2": OTHER}
    assert known.forget("a:1")
    assert not known.forget("a:1")
    assert known.all() == {"[::1]:2": OTHER}


@pytest.mark.parametrize(
    "damage", [b"a:1\n", b"\xff\xfe", f"a:1 {ONE[:-1]}".encode(), f"a {ONE}".encode(), b"x"]
)
def test_a_damaged_file_lets_nobody_in(tmp_path, damage):
    path = tmp_path / "known_coordinators"
    path.write_bytes(f"# mine\n\nb:2 {ONE}\n".encode() + damage)
    known = KnownCoordinators(path)
    for ask in (known.all, lambda: known.find("b:2"), lambda: known.meet("c:3", ONE)):
        with pytest.raises(SetupError, match="known_coordinators"):
            ask()


async def test_without_a_home_folder_what_needs_none_works(monkeypatch):
    monkeypatch.delenv("GRIDX_HOME", raising=False)

    def nowhere(*_):
        raise RuntimeError("no home")

    monkeypatch.setattr(Path, "home", nowhere)
    assert await Trust().check("http://127.0.0.1:8081") is True
    with pytest.raises(SetupError, match="home"):
        KnownCoordinators().meet("a:1", ONE)


def test_an_address_without_a_scheme_stays_open_until_it_is_asked():
    assert named("grid") == "grid:8081"
    assert named("grid:1", 2) == "grid:1"
    assert named("https://grid") == "https://grid:443"
    assert ws_url("grid") == "grid:8080/ws/worker"
    assert ws_url("http://grid") == "ws://grid:8080/ws/worker"
    assert ws_url("https://grid:8081") == "wss://grid:8081/ws/worker"
    assert ws_url("https://grid:8081", 9) == "wss://grid:9/ws/worker"


def test_no_request_is_made_without_saying_how_the_certificate_is_checked():
    """Of the programs that speak to a coordinator. ``ssl=`` has no default that would do."""
    found = 0
    for path in Path(gridx.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            asks = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
            if asks and node.func.attr in ("request", "ws_connect") and len(node.args + node.keywords) > 2:
                found += 1
                assert "ssl" in {word.arg for word in node.keywords}, (path, node.lineno)
    assert found >= 5


@pytest.mark.parametrize(
    ("url", "safe"),
    [
        ("https://10.0.0.1:8081", True),
        ("http://127.8.0.1:8081", True),
        ("http://[::1]:8081", True),
        ("http://localhost:8081", True),
        ("http://10.0.0.1:8081", False),
        ("http://grid.example:8081", False),
    ],
)
def test_what_leaves_this_machine_unencrypted_is_not_private(url, safe):
    assert private(url) is safe
