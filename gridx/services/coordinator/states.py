"""The states of jobs and attempts as tables: what may become what. Pure.

The store turns these tables into the guards of its updates, so that an event which comes late, twice or out
of order changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from gridx.messages import ENDED, AttemptState, JobState

LIVE_JOBS: Final = frozenset({JobState.ASSIGNED, JobState.RUNNING, JobState.CANCELLING})
"""The job has exactly one live attempt: its current one."""
OPEN_JOBS: Final = LIVE_JOBS | {JobState.QUEUED}
"""The job has not ended; its hold lies in escrow."""
LIVE_ATTEMPTS: Final = frozenset({AttemptState.ASSIGNED, AttemptState.RUNNING})

PAID: Final = frozenset(
    {
        AttemptState.SUCCEEDED,
        AttemptState.FAILED,
        AttemptState.TIMED_OUT,
        AttemptState.OUT_OF_MEMORY,
        AttemptState.CANCELLED,
    }
)
"""Ends that are the user's doing: the time used is charged, and the job ends with the attempt."""
UNPAID: Final = frozenset(
    {AttemptState.BROKEN, AttemptState.REFUSED, AttemptState.RELEASED, AttemptState.LOST}
)
"""Ends that are the machine's doing: nothing is charged, and the job is tried again."""

RETRIED: Final = frozenset({AttemptState.FAILED, AttemptState.TIMED_OUT, AttemptState.OUT_OF_MEMORY})
"""Ends after which a job with retries left is tried again: the program's own failures."""

LONGEST_DELAY_S: Final = 86_400
"""No pause before a retry is longer, however often it was doubled."""

JOB_END_OF_OUTCOME: Final[Mapping[str, JobState]] = {state.value: JobState(state.value) for state in PAID}
"""How a job ends by the outcome of its attempt. ``broken`` is not in it: such a job is queued again."""

_RUN_ENDS: Final = ENDED - {JobState.LOST}

JOB_TRANSITIONS: Final[Mapping[JobState, frozenset[JobState]]] = {
    JobState.QUEUED: frozenset({JobState.ASSIGNED, JobState.CANCELLED}),
    # Straight from assigned to an end: the end arrived and the word that it had started did not.
    JobState.ASSIGNED: _RUN_ENDS | {JobState.RUNNING, JobState.CANCELLING, JobState.QUEUED, JobState.LOST},
    JobState.RUNNING: _RUN_ENDS | {JobState.CANCELLING, JobState.QUEUED, JobState.LOST},
    # A run that ended by itself before the cancel reached it ended as it did.
    JobState.CANCELLING: _RUN_ENDS,
    **{state: frozenset() for state in ENDED},
}

ATTEMPT_TRANSITIONS: Final[Mapping[AttemptState, frozenset[AttemptState]]] = {
    AttemptState.ASSIGNED: PAID | UNPAID | {AttemptState.RUNNING},
    AttemptState.RUNNING: PAID | UNPAID,
    **{state: frozenset() for state in PAID | UNPAID},
}


def job_sources(target: JobState) -> frozenset[JobState]:
    """States from which a job may come to ``target``."""
    return frozenset(state for state, targets in JOB_TRANSITIONS.items() if target in targets)


def attempt_sources(target: AttemptState) -> frozenset[AttemptState]:
    """States from which an attempt may come to ``target``."""
    return frozenset(state for state, targets in ATTEMPT_TRANSITIONS.items() if target in targets)


def after_fault(job: JobState, faults: int, max_attempts: int) -> JobState:
    """What a live job becomes when its attempt ends unpaid.

    Args:
        job: its state until now.
        faults: attempts that ended by a machine's fault, this one included if it was one.
        max_attempts: that many faults end the job.
    """
    if job is JobState.CANCELLING:
        return JobState.CANCELLED
    return JobState.LOST if faults >= max_attempts else JobState.QUEUED


def after_failure(job: JobState, outcome: AttemptState, failures: int, retries: int) -> JobState:
    """What a live job becomes when its attempt ends paid.

    Args:
        job: its state until now; one that is being cancelled is not tried again.
        outcome: how the attempt ended.
        failures: attempts that were followed by a retry so far.
        retries: how many may be.
    """
    if outcome in RETRIED and job is not JobState.CANCELLING and failures < retries:
        return JobState.QUEUED
    return JOB_END_OF_OUTCOME[outcome]


def retry_delay_s(delay_s: int, failures: int) -> int:
    """The pause after so many failures: ``delay_s`` after the first, twice as long after each later one."""
    return min(LONGEST_DELAY_S, delay_s << min(failures - 1, 32))
