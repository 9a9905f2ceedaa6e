"""What waits outside of the scheduler's queue: elements of arrays, failed jobs, jobs behind others."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from gridx.messages import JobState
from gridx.services.coordinator.jobs.arrays import WINDOW, WaitingArray
from gridx.services.coordinator.jobs.held_back import HeldBack, pause_s
from gridx.services.coordinator.ledger import Prices
from gridx.services.coordinator.scheduler import Need, Queue, Rank, WaitingJob
from gridx.services.coordinator.store.records import ArrayRecord, JobRecord

NOW = datetime(2030, 1, 1, tzinfo=UTC)
NEED = Need(1000, 64, 0, "python", None, None)


def job(id: int, **fields) -> JobRecord:
    shape = (1000, 64, 0, 60, 0, 3, None, None, Prices(1, 1, 1), 10, 0, 0, 0, None, None, "")
    base = JobRecord(
        id, 1, "ann", JobState.QUEUED, "", "python", "", *shape, NOW, None, None, None, None, None, 0, 0, None
    )
    return replace(base, **fields)


def array(count: int, *, unit: int = 10, held: int | None = None, running: int = 0) -> ArrayRecord:
    return ArrayRecord(
        id=100,
        user_id=1,
        owner="ann",
        name="",
        count=count,
        first_index=0,
        total_count=count,
        max_fails=None,
        max_credits=held,
        unit=unit,
        hold=count * unit,
        held=count * unit if held is None else held,
        charge=0,
        open_charge=0,
        running_charge=0,
        queued=count - running,
        running=running,
        succeeded=0,
        failed=0,
        cancelled=0,
        state=JobState.QUEUED,
        reason="",
        stop="",
        changes=0,
        created_at=NOW,
        started_at=None,
        ended_at=None,
        retry_of=None,
        model=job(101, array_id=100, array_index=0),
    )


def waiting(record: ArrayRecord) -> WaitingArray:
    return WaitingArray(record, range(101, 101 + record.count), range(record.count))


class TestElements:
    def test_no_more_than_a_window_enters_and_the_next_follow_in_order(self):
        many = waiting(array(WINDOW + 300))
        first = many.enter()
        assert [one.array_index for one in first] == list(range(WINDOW))
        assert (many.hidden, many.first_hidden) == (300, 101 + WINDOW)
        assert many.enter() == []
        for one in first[:10]:
            del many.window[one.id]
        assert [one.id for one in many.enter()] == list(range(101 + WINDOW, 111 + WINDOW))

    def test_a_budget_lets_in_what_it_covers_beside_what_runs(self):
        assert len(waiting(array(10, held=35)).enter()) == 3
        assert len(waiting(array(10, held=35, running=2)).enter()) == 1
        assert len(waiting(array(10, held=29, running=2)).enter()) == 0

    def test_elements_that_cost_nothing_are_not_held_up(self):
        assert len(waiting(array(10, unit=0, held=0)).enter()) == 10

    def test_what_was_parked_is_let_go_when_it_is_covered(self):
        some = waiting(array(10, held=5))
        some.parked[105] = job(105, charge=6)
        assert [one.id for one in some.affordable()] == [105]
        some.parked[106] = job(106, charge=4)
        assert some.affordable() == []


class TestPlaces:
    def queue(self, owner: int, *ids: int) -> Queue:
        made = Queue()
        for id_ in ids:
            made.add(WaitingJob(id_, owner, NEED), 0.0)
        return made

    def test_jobs_that_are_not_in_the_queue_count_for_the_places_of_those_behind_them(self):
        queue = self.queue(1, 5, 50, 5000)
        queue.unseen(1, 100, Rank(0, 100), 1000)
        assert queue.ahead(1, Rank(0, 50), {}) == 1
        assert queue.ahead(1, Rank(0, 5000), {}) == 1002
        assert queue.ahead(1, None, {}) == 1003
        queue.unseen(1, 100, Rank(0, 600), 500)
        assert queue.ahead(1, None, {}) == 503
        queue.unseen(1, 100, None, 0)
        assert queue.ahead(1, None, {}) == 3
        assert not queue._unseen

    def test_others_alternate_with_them_as_with_any(self):
        queue = self.queue(1, 5)
        queue.unseen(1, 100, Rank(0, 100), 1000)
        for id_ in range(10, 30):
            queue.add(WaitingJob(id_, 2, NEED), 0.0)
        assert queue.ahead(2, Rank(0, 29), {}) == 19 + 20
        assert queue.ahead(1, None, {}) == 1001 + 20


class TestHeldBack:
    def test_each_is_let_go_when_its_time_has_come_and_not_before(self):
        held = HeldBack()
        held.later(job(1), 10.0)
        held.later(job(2), 5.0)
        held.later(job(3), 7.0)
        held.remove(3)
        assert held.due(4.9) == []
        assert [one.id for one in held.due(8.0)] == [2]
        assert [one.id for one in held.due(100.0)] == [1]
        assert len(held) == 0

    def test_a_job_is_let_go_by_the_last_of_those_it_waits_for(self):
        held = HeldBack()
        held.behind(job(9), [1, 2])
        assert held.met(9, 1) is None
        assert held.met(9, 1) is None
        assert held.why(job(9), 0.0) == "waits for job 2"
        assert held.met(9, 2) == job(9)
        assert held.met(9, 2) is None

    def test_an_array_counts_with_all_its_elements_and_they_say_why(self):
        held = HeldBack()
        held.behind(array(7), [1, 2, 3, 4, 5])
        assert len(held) == 7
        element = job(103, array_id=100, array_index=2)
        assert held.why(element, 0.0) == "waits for jobs 1, 2, 3 and 2 more"

    @pytest.mark.parametrize("parents", [[1], [1, 2], [1, 2, 3]])
    def test_all_are_named_while_they_are_few(self, parents):
        held = HeldBack()
        held.behind(job(9), parents)
        assert all(str(parent) in held.why(job(9), 0.0) for parent in parents)
        assert "more" not in held.why(job(9), 0.0)

    @given(st.floats(-1e9, 1e9), st.integers(0, 86_400), st.integers(1, 20))
    def test_no_clock_makes_a_pause_longer_than_the_back_off(self, wall_s, delay_s, failures):
        record = job(1, not_before=NOW, retry_delay_s=delay_s, failures=failures, retries=20)
        assert 0 <= pause_s(record, wall_s) <= min(86_400, delay_s * 2 ** (failures - 1))
