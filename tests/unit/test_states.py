"""The tables of states: every state has a row, ends are ends, and nobody comes back from them."""

from __future__ import annotations

import pytest

from gridx.messages import ENDED, AttemptState, JobState
from gridx.services.coordinator.states import (
    ATTEMPT_TRANSITIONS,
    JOB_END_OF_OUTCOME,
    JOB_TRANSITIONS,
    LIVE_ATTEMPTS,
    LIVE_JOBS,
    OPEN_JOBS,
    PAID,
    RETRIED,
    UNPAID,
    after_failure,
    after_fault,
    attempt_sources,
    job_sources,
    retry_delay_s,
)


def test_every_state_has_its_row():
    assert set(JOB_TRANSITIONS) == set(JobState)
    assert set(ATTEMPT_TRANSITIONS) == set(AttemptState)


def test_nothing_follows_an_end():
    assert all(not JOB_TRANSITIONS[state] for state in ENDED)
    assert all(not ATTEMPT_TRANSITIONS[state] for state in PAID | UNPAID)


def test_a_job_is_open_or_ended_and_an_attempt_live_paid_or_unpaid():
    assert set(JobState) == OPEN_JOBS | ENDED
    assert not OPEN_JOBS & ENDED
    assert set(AttemptState) == LIVE_ATTEMPTS | PAID | UNPAID
    assert len(LIVE_ATTEMPTS) + len(PAID) + len(UNPAID) == len(AttemptState)


def test_every_end_can_be_reached_from_queued():
    seen, todo = set(), [JobState.QUEUED]
    while todo:
        state = todo.pop()
        if state not in seen:
            seen.add(state)
            todo += JOB_TRANSITIONS[state]
    assert seen == set(JobState)


@pytest.mark.parametrize("state", sorted(PAID))
def test_a_paid_end_of_an_attempt_ends_the_job_from_any_live_state(state):
    end = JOB_END_OF_OUTCOME[state]
    assert job_sources(end) >= LIVE_JOBS
    assert attempt_sources(state) == LIVE_ATTEMPTS


def test_a_broken_attempt_does_not_end_its_job():
    assert "broken" not in JOB_END_OF_OUTCOME


def test_a_job_that_is_being_cancelled_is_never_queued_again_and_never_lost():
    assert JobState.QUEUED not in JOB_TRANSITIONS[JobState.CANCELLING]
    assert JobState.LOST not in JOB_TRANSITIONS[JobState.CANCELLING]
    assert after_fault(JobState.CANCELLING, 3, 3) is JobState.CANCELLED


def test_the_last_fault_loses_the_job():
    assert after_fault(JobState.RUNNING, 2, 3) is JobState.QUEUED
    assert after_fault(JobState.ASSIGNED, 3, 3) is JobState.LOST


@pytest.mark.parametrize("outcome", sorted(PAID))
def test_what_the_program_did_wrong_is_tried_again_while_there_are_retries(outcome):
    tried = after_failure(JobState.RUNNING, outcome, 1, 2)
    assert tried is (JobState.QUEUED if outcome in RETRIED else JOB_END_OF_OUTCOME[outcome])
    assert after_failure(JobState.RUNNING, outcome, 2, 2) is JOB_END_OF_OUTCOME[outcome]


@pytest.mark.parametrize("outcome", sorted(PAID))
def test_a_cancel_beats_a_retry(outcome):
    assert after_failure(JobState.CANCELLING, outcome, 0, 9).ended


def test_pauses_double_and_end_at_a_day():
    assert [retry_delay_s(5, failures) for failures in (1, 2, 3)] == [5, 10, 20]
    assert retry_delay_s(0, 20) == 0
    assert retry_delay_s(86_400, 20) == retry_delay_s(1, 40) == 86_400
