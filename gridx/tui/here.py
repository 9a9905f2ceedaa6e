"""What runs in the dashboard's own process, for the question that is asked before it is ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


def _none() -> int:
    return 0


@dataclass(frozen=True)
class Here:
    """What quitting ends besides the screen."""

    running: Callable[[], int] = _none
    """Attempts that run on this process's worker now."""
    consequence: str = ""
    """What quitting does to them, in a sentence."""
    worker_name: str = ""
    """Name of this process's worker; empty where there is none."""
