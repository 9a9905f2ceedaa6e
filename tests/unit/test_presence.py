"""How long nobody has touched the machine, by what each system says; an honest no where it says nothing."""

from __future__ import annotations

import os
import time

import psutil
import pytest

from gridx.services.worker import presence
from gridx.services.worker.presence import Presence

ONE_AT_WORK = """Class=user
Type=wayland
State=active
IdleHint=no
IdleSinceHintMonotonic=0

Class=greeter
Type=x11
State=online
IdleHint=no
"""
TWO_AWAY = """Class=user
Type=x11
State=online
IdleHint=yes
IdleSinceHintMonotonic=400000000

Class=user
Type=wayland
State=active
IdleHint=yes
IdleSinceHintMonotonic=900000000

Class=user
Type=tty
State=active
IdleHint=no

Class=user
Type=wayland
State=closing
IdleHint=no
"""


@pytest.fixture
def outside(monkeypatch, tmp_path):
    """A machine of its own, with no container around, no terminal in use and no display."""
    monkeypatch.setattr(presence, "CONTAINERS", ())
    monkeypatch.setattr(presence, "DISPLAYS", ())
    monkeypatch.setattr(presence, "terminals", lambda: 5000.0)
    monkeypatch.setattr(presence.time, "monotonic", lambda: 1000.0)
    return monkeypatch


def answers(**known: str | None):
    """A machine on which these programs answer so; the first word after the program tells them apart."""

    def ask(*command: str) -> str | None:
        return known.get(command[1].replace("-", "_"), known.get(command[0]))

    return ask


def test_the_last_graphical_session_that_was_used_counts():
    assert presence.sessions(ONE_AT_WORK, 1000.0) == 0
    assert presence.sessions(TWO_AWAY, 1000.0) == 100
    assert presence.sessions("", 1000.0) is None
    assert presence.sessions("nonsense\nClass=user\nType=x11\nIdleHint=yes\n", 1000.0) == 0


def test_a_linux_machine_asks_its_sessions_and_its_terminals(outside):
    sat = answers(list_sessions="1 1000 ann seat0\n", show_session=TWO_AWAY)
    assert presence.look("linux", sat) == Presence(100.0)
    outside.setattr(presence, "terminals", lambda: 7.0)
    assert presence.look("linux", sat) == Presence(7.0)
    outside.setattr(presence, "terminals", lambda: 5000.0)
    assert presence.look("linux", answers(list_sessions="")) == Presence(5000.0)


def test_without_logind_a_display_is_a_riddle_and_a_machine_without_one_is_none(outside, tmp_path):
    silent = answers()
    assert presence.look("linux", silent) == Presence(5000.0)
    (tmp_path / "X0").touch()
    outside.setattr(presence, "DISPLAYS", ((tmp_path, "X*"),))
    seen = presence.look("linux", silent)
    assert seen.idle_s is None
    assert "a graphical session runs" in seen.why


def test_from_inside_a_container_nobody_is_seen(outside, tmp_path):
    outside.setattr(presence, "CONTAINERS", (tmp_path,))
    seen = presence.look("linux", answers(list_sessions=""))
    assert seen.idle_s is None
    assert "container" in seen.why


def test_a_mac_says_it_in_nanoseconds(outside):
    text = '| |   "HIDIdleTime" = 12500000000\n| |   "HIDParameters" = {"HIDIdleTime"=0}'
    assert presence.look("darwin", answers(ioreg=text)) == Presence(12.5)
    assert presence.look("darwin", answers(ioreg="nothing")).idle_s is None
    assert presence.look("darwin", answers()).why == presence.UNTOLD


def test_windows_that_does_not_tell_is_said(outside):
    assert presence.look("win32") == Presence(None, presence.UNTOLD)


def test_what_was_typed_at_any_terminal_counts(tmp_path, monkeypatch):
    now = time.time()
    (tmp_path / "pts").mkdir()
    for name, ago in (("pts/3", 50), ("tty1", 90), ("ttys002", 70), ("tty", 1), ("pts/ptmx", 1)):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (now - ago, now))
    monkeypatch.setattr(psutil, "users", list)
    monkeypatch.setattr(psutil, "boot_time", lambda: now - 4000)
    assert presence.terminals(tmp_path, now) == pytest.approx(50, abs=0.01)
    (tmp_path / "pts/3").unlink()
    assert presence.terminals(tmp_path, now) == pytest.approx(70, abs=0.01)
    assert presence.terminals(tmp_path / "none", now) == pytest.approx(4000, abs=0.01)
    # A clock that was set back makes nobody come before now.
    assert presence.terminals(tmp_path, now - 1000) == 0


def test_programs_of_the_system_that_fail_or_are_missing_say_nothing():
    assert presence.ask("true") == ""
    assert presence.ask("false") is None
    assert presence.ask("no-such-program-here") is None


def test_this_machine_answers_one_way_or_the_other():
    seen = presence.look()
    assert (seen.idle_s is None) == bool(seen.why)
