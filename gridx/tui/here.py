"""What runs in the dashboard's own process: what quitting ends, and a worker that hears directly."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from gridx.control import Order, Report


def _none() -> int:
    return 0


def _nobody() -> int | None:
    return None


@dataclass(frozen=True)
class Here:
    """What quitting ends besides the screen, and how this process's worker is steered."""

    running: Callable[[], int] = _none
    """Attempts that run on this process's worker now."""
    consequence: str = ""
    """What quitting does to them, in a sentence."""
    worker_id: Callable[[], int | None] = _nobody
    """The coordinator's number for this process's worker; None where there is none, or before it has one."""
    order: Callable[[Order], Awaitable[Report]] | None = None
    """Tells this process's worker what its owner wants, also while the coordinator is away."""
    worker_name: str = ""
    """Name of this process's worker; empty where there is none."""
