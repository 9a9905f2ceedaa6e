"""How long nobody has touched this machine: its terminals, graphical sessions, or what the system counts.

Where that cannot be told it says so, and why: a rule about presence must not be taken to hold because nobody
could look. Everything here may block; see ``sightings``.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

ASK_S: Final = 3.0
"""How long a program of the system may take to answer."""
DEVICES: Final = Path("/dev")
DISPLAYS: Final = ((Path("/tmp/.X11-unix"), "X*"), (Path("/run/user"), "*/wayland-*"))  # noqa: S108
CONTAINERS: Final = (Path("/.dockerenv"), Path("/run/.containerenv"))
UNTOLD: Final = "the system does not say when keyboard and mouse were used"
SESSION_KEYS: Final = ("Class", "Type", "State", "IdleHint", "IdleSinceHintMonotonic")


@dataclass(frozen=True, slots=True)
class Presence:
    """Seconds since the last input; None where it cannot be told, and then ``why``."""

    idle_s: float | None
    why: str = ""


Ask = Callable[..., str | None]
"""Runs a program of the system; its output, or None where there is no such program or it fails."""


def ask(*command: str) -> str | None:
    """What a program of the system prints; None when it is not there, fails or does not answer."""
    with suppress(OSError, subprocess.SubprocessError, UnicodeDecodeError):
        done = subprocess.run(command, capture_output=True, timeout=ASK_S, stdin=subprocess.DEVNULL)
        if done.returncode == 0:
            return done.stdout.decode()
    return None


def look(platform: str = sys.platform, ask: Ask = ask) -> Presence:
    """How long nobody has touched this machine."""
    if platform == "win32":
        return _windows()
    if platform == "darwin":
        return _nearest(_macos(ask), Presence(terminals()))
    if any(mark.exists() for mark in CONTAINERS):
        return Presence(None, "this worker runs in a container, from where nobody can be seen")
    return _nearest(_graphical(ask), Presence(terminals()))


def terminals(devices: Path = DEVICES, now: float | None = None) -> float:
    """Seconds since something was typed at a terminal; since the start of the machine where nothing was.

    The kernel notes each read of what was typed as the device's access time, every eight seconds at most.
    """
    now = time.time() if now is None else now
    paths = [*devices.glob("pts/[0-9]*"), *devices.glob("tty[0-9]*"), *devices.glob("ttys[0-9]*")]
    with suppress(OSError, RuntimeError):
        paths += [devices / user.terminal for user in psutil.users() if user.terminal]
    typed = [psutil.boot_time()]
    for path in paths:
        with suppress(OSError):
            typed.append(path.stat().st_atime)
    return max(0.0, now - max(typed))


def sessions(text: str, now: float) -> float | None:
    """Seconds since a graphical session was used, by ``loginctl show-session``; None when there is none.

    A session that is not idle is being used: its desktop says so only after some minutes without input.

    Args:
        now: seconds of the clock that does not stop, which logind uses, too.
    """
    idle: list[float] = []
    for block in re.split(r"\n\s*\n", text):
        known = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        person = known.get("Class", "").startswith("user")
        graphical = known.get("Type") in ("x11", "wayland", "mir")
        if not (person and graphical) or known.get("State") == "closing":
            continue
        since = known.get("IdleSinceHintMonotonic", "")
        resting = known.get("IdleHint") == "yes" and since.isdecimal()
        idle.append(max(0.0, now - int(since) / 1e6) if resting else 0.0)
    return min(idle, default=None)


def _graphical(ask: Ask) -> Presence:
    """What logind knows of graphical sessions; without it nobody does."""
    listed = ask("loginctl", "list-sessions", "--no-legend")
    if listed is not None:
        ids = [words[0] for line in listed.splitlines() if (words := line.split())]
        properties = [part for key in SESSION_KEYS for part in ("-p", key)]
        shown = ask("loginctl", "show-session", *ids, *properties) if ids else ""
        if shown is not None:
            used = sessions(shown, time.monotonic())
            return Presence(float("inf") if used is None else used)
    for folder, names in DISPLAYS:
        with suppress(OSError):
            if next(folder.glob(names), None) is not None:
                return Presence(
                    None, "a graphical session runs, and the system does not say when it was used"
                )
    return Presence(float("inf"))


def _macos(ask: Ask) -> Presence:
    found = re.search(r'"HIDIdleTime"\s*=\s*(\d+)', ask("ioreg", "-c", "IOHIDSystem", "-d", "4") or "")
    if found is None:
        return Presence(None, UNTOLD)
    return Presence(int(found[1]) / 1e9)


def _windows() -> Presence:
    import ctypes

    windll = getattr(ctypes, "windll", None)
    if windll is None:
        return Presence(None, UNTOLD)

    class LastInput(ctypes.Structure):
        _fields_ = (("size", ctypes.c_uint), ("tick", ctypes.c_uint))

    last = LastInput(ctypes.sizeof(LastInput), 0)
    if not windll.user32.GetLastInputInfo(ctypes.byref(last)):
        return Presence(None, UNTOLD)
    # Both count milliseconds in 32 bits, and begin anew after 49 days.
    return Presence(((windll.kernel32.GetTickCount() - last.tick) & 0xFFFFFFFF) / 1000)


def _nearest(one: Presence, other: Presence) -> Presence:
    """Who was here last, by two ways of looking; both must have been able to look."""
    if one.idle_s is None or other.idle_s is None:
        return one if one.idle_s is None else other
    return min(one, other, key=lambda seen: seen.idle_s or 0.0)
