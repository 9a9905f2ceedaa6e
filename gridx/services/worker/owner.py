"""What the owner of the machine allows, and whether it is so now: pure, values in, verdict out."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from gridx import safetext
from gridx.config import WorkerSettings
from gridx.hours import Hours, parse, when

LINE_CHARS: Final = 190
CALM_PART: Final = 0.8
"""A machine that was too busy opens again below this part of the limit, so that it does not flutter."""
GIVES_BACK: Final = "what runs when that ends is given back"


@dataclass(frozen=True, slots=True)
class Allowed:
    """When and how the machine may work for others.

    Attributes:
        hours: when jobs may run, in local time.
        max_load: processors that other programs may use while new jobs are taken; None: all.
        only_when_idle_s: seconds without input after which jobs may run; None: always.
        on_battery: whether jobs may run without mains power.
        gives_back: what runs when that ends is given back; else it is finished.
    """

    hours: Hours = field(default_factory=Hours)
    max_load: float | None = None
    only_when_idle_s: float | None = None
    on_battery: bool = True
    gives_back: bool = False

    @classmethod
    def by(cls, settings: WorkerSettings) -> Allowed:
        """As the settings say. Raises ConfigError where the hours are not understood."""
        return cls(
            hours=parse(settings.hours),
            max_load=settings.max_load,
            only_when_idle_s=settings.only_when_idle_s,
            on_battery=settings.on_battery,
            gives_back=settings.when_closed == "give_back",
        )

    @property
    def always(self) -> bool:
        """Whether nothing has to be looked at."""
        return (
            not self.hours.spans
            and self.max_load is None
            and self.only_when_idle_s is None
            and self.on_battery
        )


@dataclass(frozen=True, slots=True)
class Seen:
    """The machine as it is now.

    Attributes:
        local: the time on the wall.
        load: processors that programs other than jobs use; None: not known yet.
        idle_s: seconds since the last input; None: it cannot be told, for the reason in ``idle_unknown``.
        on_mains: whether it has mains power; None: it cannot be told.
    """

    local: datetime
    load: float | None = None
    idle_s: float | None = None
    idle_unknown: str = ""
    on_mains: bool | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the machine may work now.

    Attributes:
        closed: why it takes nothing new; empty when it does.
        ends: what runs is concerned as well, if the owner wants it given back.
        busy: other programs are the reason.
    """

    closed: str = ""
    ends: bool = False
    busy: bool = False


def judge(allowed: Allowed, seen: Seen, *, was_busy: bool = False) -> Verdict:
    """What follows from what is seen. What is not known does not hold.

    Args:
        was_busy: the verdict before was that other programs keep the machine busy.
    """
    if why := _outside(allowed, seen) or _somebody(allowed, seen) or _no_mains(allowed, seen):
        return Verdict(safetext.line(why, limit=LINE_CHARS), ends=True)
    why = _busy(allowed, seen, CALM_PART if was_busy else 1.0)
    return Verdict(why, busy=bool(why) and seen.load is not None)


def lines(settings: WorkerSettings) -> list[str]:
    """Everything that the owner allows only in part, in words for everybody's screens."""
    allowed = Allowed.by(settings)
    found = []
    if settings.own_jobs_only:
        found.append("jobs of its owner only")
    elif settings.only_users:
        found.append(f"jobs of its owner and of {', '.join(settings.only_users)} only")
    if allowed.hours.spans:
        found.append(f"hours: {allowed.hours}")
    if allowed.only_when_idle_s is not None:
        found.append(f"only when nobody touched the machine for {_duration(allowed.only_when_idle_s)}")
    if not allowed.on_battery:
        found.append("only on mains power")
    if (
        found
        and allowed.gives_back
        and (allowed.hours.spans or allowed.only_when_idle_s or not allowed.on_battery)
    ):
        found.append(GIVES_BACK)
    if allowed.max_load is not None:
        found.append(f"new jobs only while other programs use fewer than {allowed.max_load:g} processors")
    return [safetext.line(line, limit=LINE_CHARS) for line in found]


def _outside(allowed: Allowed, seen: Seen) -> str:
    if allowed.hours.open_at(seen.local):
        return ""
    opens = allowed.hours.next_change(seen.local)
    again = f"; it opens {when(opens, seen.local)}" if opens is not None else ""
    return f"outside its hours{again}"


def _somebody(allowed: Allowed, seen: Seen) -> str:
    wanted_s = allowed.only_when_idle_s
    if wanted_s is None:
        return ""
    if seen.idle_s is None:
        return f"it cannot be told whether somebody is at the machine: {seen.idle_unknown}"
    if seen.idle_s < wanted_s:
        return f"somebody is at the machine; it opens after {_duration(wanted_s)} without input"
    return ""


def _no_mains(allowed: Allowed, seen: Seen) -> str:
    if allowed.on_battery or seen.on_mains:
        return ""
    if seen.on_mains is None:
        return "it cannot be told whether the machine has mains power"
    return "the machine runs on battery"


def _busy(allowed: Allowed, seen: Seen, part: float) -> str:
    if allowed.max_load is None or (seen.load is not None and seen.load < allowed.max_load * part):
        return ""
    if seen.load is None:
        return "it is not known yet how busy the machine is"
    return f"other programs use {allowed.max_load:g} processors or more"


def _duration(seconds: float) -> str:
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"
