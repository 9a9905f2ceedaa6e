"""What one check of the audit is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from gridx.messages import ENDED, AttemptState, JobState
from gridx.services.coordinator.states import LIVE_ATTEMPTS, LIVE_JOBS, OPEN_JOBS


def among(states: frozenset[JobState] | frozenset[AttemptState]) -> str:
    """An SQL list of states."""
    return "(" + ", ".join(f"'{state.value}'" for state in sorted(states)) + ")"


class Check(NamedTuple):
    """A query whose every row is a finding, and the sentence for a row."""

    name: str
    sql: str
    say: Callable[..., str]


IN_OPEN: Final = among(OPEN_JOBS)
IN_LIVE: Final = among(LIVE_JOBS)
IN_ENDED: Final = among(ENDED)
IN_LIVE_ATTEMPTS: Final = among(LIVE_ATTEMPTS)
