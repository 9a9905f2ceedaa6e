"""Which panes are on the screen, and where: pure, from the size, the role and what was looked at last.

Small terminals show one pane and the others as tabs. Larger ones show two, four or six places; panes that
share a place are tabs of it, and the one that was looked at last is in front.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from gridx.config import Role

LEAST_WIDTH: Final = 60
LEAST_HEIGHT: Final = 16
STACK_HEIGHT: Final = 36
QUAD_WIDTH: Final = 100
QUAD_HEIGHT: Final = 22
WIDE_WIDTH: Final = 170


@dataclass(frozen=True, slots=True)
class Place:
    """A rectangle in fractions of the whole, and the panes that may be in it."""

    left: float
    top: float
    right: float
    bottom: float
    panes: tuple[str, ...]


Arrangement = tuple[Place, ...]

ALL: Final = ("jobs", "submit", "output", "monitor", "workers", "ledger", "log")

_SUBMITTING: Final[Mapping[str, Arrangement]] = {
    "stack": (
        Place(0, 0, 1, 0.5, ("submit", "jobs", "workers", "ledger")),
        Place(0, 0.5, 1, 1, ("output", "monitor", "log")),
    ),
    "quad": (
        Place(0, 0, 0.58, 0.5, ("jobs", "workers", "ledger")),
        Place(0, 0.5, 0.58, 1, ("output", "log")),
        Place(0.58, 0, 1, 0.6, ("submit",)),
        Place(0.58, 0.6, 1, 1, ("monitor",)),
    ),
    "wide": (
        Place(0, 0, 0.44, 0.5, ("jobs",)),
        Place(0, 0.5, 0.44, 1, ("output",)),
        Place(0.44, 0, 0.74, 0.6, ("submit",)),
        Place(0.44, 0.6, 0.74, 1, ("workers", "log")),
        Place(0.74, 0, 1, 0.5, ("monitor",)),
        Place(0.74, 0.5, 1, 1, ("ledger",)),
    ),
}
_OPERATING: Final[Mapping[str, Arrangement]] = {
    "stack": (
        Place(0, 0, 1, 0.5, ("jobs", "workers", "ledger", "submit")),
        Place(0, 0.5, 1, 1, ("log", "output", "monitor")),
    ),
    "quad": (
        Place(0, 0, 0.55, 0.6, ("jobs", "submit")),
        Place(0, 0.6, 0.55, 1, ("log", "output")),
        Place(0.55, 0, 1, 0.5, ("workers",)),
        Place(0.55, 0.5, 1, 1, ("ledger", "monitor")),
    ),
    "wide": (
        Place(0, 0, 0.42, 0.6, ("jobs",)),
        Place(0, 0.6, 0.42, 1, ("log",)),
        Place(0.42, 0, 0.74, 0.5, ("workers",)),
        Place(0.42, 0.5, 0.74, 1, ("ledger", "submit")),
        Place(0.74, 0, 1, 0.5, ("monitor",)),
        Place(0.74, 0.5, 1, 1, ("output",)),
    ),
}
_OFFERING: Final[Mapping[str, Arrangement]] = {
    "stack": (
        Place(0, 0, 1, 0.5, ("monitor", "workers", "submit")),
        Place(0, 0.5, 1, 1, ("jobs", "output", "log", "ledger")),
    ),
    "quad": (
        Place(0, 0, 0.58, 0.5, ("jobs", "workers")),
        Place(0, 0.5, 0.58, 1, ("log", "output")),
        Place(0.58, 0, 1, 0.5, ("monitor", "submit")),
        Place(0.58, 0.5, 1, 1, ("ledger",)),
    ),
    "wide": (
        Place(0, 0, 0.42, 0.5, ("jobs",)),
        Place(0, 0.5, 0.42, 1, ("log",)),
        Place(0.42, 0, 0.72, 0.5, ("monitor",)),
        Place(0.42, 0.5, 0.72, 1, ("workers", "output")),
        Place(0.72, 0, 1, 0.5, ("ledger",)),
        Place(0.72, 0.5, 1, 1, ("submit",)),
    ),
}
_BY_ROLE: Final[Mapping[Role, Mapping[str, Arrangement]]] = {
    "standalone": _SUBMITTING,
    "viewer": _SUBMITTING,
    "coordinator": _OPERATING,
    "worker": _OFFERING,
}
FIRST: Final[Mapping[Role, str]] = {
    "standalone": "submit",
    "viewer": "jobs",
    "coordinator": "jobs",
    "worker": "monitor",
}
"""The pane that has the focus at the start."""

Box = tuple[int, int, int, int]
"""x, y, width, height in cells."""


def shape(width: int, height: int) -> str:
    """Which arrangement a desk of this size takes."""
    if width >= WIDE_WIDTH and height >= QUAD_HEIGHT:
        return "wide"
    if width >= QUAD_WIDTH and height >= QUAD_HEIGHT:
        return "quad"
    if height >= STACK_HEIGHT:
        return "stack"
    return "single"


def plan(
    width: int, height: int, *, role: Role, recent: Sequence[str], zoomed: bool = False
) -> dict[str, Box]:
    """Where each shown pane is.

    Args:
        width, height: of the desk, in cells.
        recent: panes that were looked at, the latest first.
        zoomed: the latest has everything.
    """
    front = recent[0] if recent else FIRST[role]
    kind = shape(width, height)
    if zoomed or kind == "single":
        return {front: (0, 0, width, height)}
    rank = {name: n for n, name in reversed(list(enumerate(recent)))}
    result: dict[str, Box] = {}
    for place in _BY_ROLE[role][kind]:
        shown = min(place.panes, key=lambda name: (rank.get(name, len(ALL)), place.panes.index(name)))
        x, y = round(place.left * width), round(place.top * height)
        result[shown] = (x, y, round(place.right * width) - x, round(place.bottom * height) - y)
    if front not in result:  # a pane that has no place of its own in this arrangement
        result = {front: (0, 0, width, height)}
    return result
