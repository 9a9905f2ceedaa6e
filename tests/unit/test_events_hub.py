"""The hub: each reader is told what it may know, in order, and no reader holds up another."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest
from aiohttp import WSCloseCode

from gridx import messages
from gridx.messages import (
    CreditsChanged,
    Event,
    Job,
    JobChanged,
    JobState,
    OutputArrived,
    Worker,
    WorkerChanged,
)
from gridx.services.coordinator import events as module
from gridx.services.coordinator.events import Hub, Subscriber
from gridx.services.coordinator.store.records import BalanceRecord

ANN, BOB, ADMIN = 1, 2, 3


class Balances:
    """Stands for the store: the balance counts how often it was read."""

    def __init__(self) -> None:
        self.reads = 0

    async def balance(self, user_id: int) -> BalanceRecord:
        self.reads += 1
        return BalanceRecord(user_id, f"user{user_id}", self.reads, 0, 0, 0)


@pytest.fixture
def hub() -> Hub:
    return Hub(Balances())


def job(id: int, state: JobState = JobState.QUEUED, **fields) -> Job:
    base = {
        "name": "",
        "owner": "ann",
        "language": "python",
        "cpus": 1.0,
        "memory_mb": 64,
        "gpus": 0,
        "timeout_s": 60,
        "priority": 0,
        "max_attempts": 3,
        "created_at": datetime(2030, 1, 1, tzinfo=UTC),
    }
    return Job(id=id, state=state, **{**base, **fields})


def worker(id: int, state="online") -> Worker:
    return Worker(id=id, name="w", owner="ann", state=state)


async def taken(reader: Subscriber) -> list[Event]:
    return [messages.decode_event(event) for event in await reader.take()]


def nothing(reader: Subscriber) -> bool:
    return not reader._pending


def ignore(code: WSCloseCode) -> None:
    pytest.fail(f"closed: {code}")


async def test_a_job_is_told_to_its_owner_and_to_admins_alone(hub):
    with (
        hub.subscribed(ANN, False, ignore) as ann,
        hub.subscribed(BOB, False, ignore) as bob,
        hub.subscribed(ADMIN, True, ignore) as admin,
    ):
        hub.job_changed(ANN, 7, lambda: job(7))
        assert await taken(ann) == await taken(admin) == [JobChanged(job=job(7))]
        assert nothing(bob)


async def test_a_worker_is_told_to_everybody(hub):
    with hub.subscribed(ANN, False, ignore) as ann, hub.subscribed(BOB, False, ignore) as bob:
        hub.worker_changed(worker(1))
        assert await taken(ann) == await taken(bob) == [WorkerChanged(worker=worker(1))]


async def test_output_is_told_to_who_watches_the_job_and_may(hub):
    with (
        hub.subscribed(ANN, False, ignore) as ann,
        hub.subscribed(BOB, False, ignore) as bob,
        hub.subscribed(ADMIN, True, ignore) as admin,
    ):
        for reader in (ann, bob, admin):
            hub.watch(reader, [7])
        hub.output_arrived(ANN, 7, 1, "stdout", 0, b"hello")
        hub.output_arrived(ANN, 8, 1, "stdout", 0, b"not watched")
        expected = [OutputArrived(job_id=7, attempt=1, stream="stdout", offset=0, data=b"hello")]
        assert await taken(ann) == await taken(admin) == expected
        assert nothing(bob)


async def test_watching_others_ends_watching_the_first(hub):
    with hub.subscribed(ANN, False, ignore) as ann:
        hub.watch(ann, [7])
        hub.watch(ann, [8])
        hub.output_arrived(ANN, 7, 1, "stdout", 0, b"x")
        assert nothing(ann)
        assert list(hub._watchers) == [8]
    assert not hub._watchers
    assert not hub._readers


async def test_a_slow_reader_gets_the_newest_state_after_the_output_before_it(hub):
    with hub.subscribed(ANN, False, ignore) as ann:
        hub.watch(ann, [7])
        hub.job_changed(ANN, 7, lambda: job(7, JobState.RUNNING))
        hub.output_arrived(ANN, 7, 1, "stdout", 0, b"last words")
        hub.job_changed(ANN, 7, lambda: job(7, JobState.SUCCEEDED))
        first, second = await taken(ann)
        assert isinstance(first, OutputArrived)
        assert second.job.state is JobState.SUCCEEDED


async def test_a_reader_that_does_not_keep_up_is_closed_and_holds_no_memory(hub, monkeypatch):
    monkeypatch.setattr(module, "MAX_PENDING_BYTES", 10_000)
    closed = []
    with hub.subscribed(ANN, False, closed.append) as slow, hub.subscribed(ANN, False, ignore) as quick:
        hub.watch(slow, [7])
        while not closed:
            hub.output_arrived(ANN, 7, 1, "stdout", 0, b"x" * 1000)
        assert closed[0] is WSCloseCode.TRY_AGAIN_LATER
        assert nothing(slow)
        hub.job_changed(ANN, 7, lambda: job(7))
        assert await taken(quick) == [JobChanged(job=job(7))]


async def test_balances_that_move_often_are_read_once_and_told_to_their_owner(hub):
    task = asyncio.create_task(hub.run())
    try:
        with hub.subscribed(ANN, False, ignore) as ann, hub.subscribed(BOB, False, ignore) as bob:
            for _ in range(100):
                hub.credits_changed([ANN])
            (told,) = await taken(ann)
            assert isinstance(told, CreditsChanged)
            assert told.balance.user == "user1"
            assert hub._store.reads == 1
            assert nothing(bob)
    finally:
        task.cancel()


async def test_nothing_is_encoded_when_nobody_reads(hub, monkeypatch):
    monkeypatch.setattr(module, "encode", lambda _: pytest.fail("encoded"))
    hub.job_changed(ANN, 7, lambda: job(7))
    hub.worker_changed(worker(1))
    hub.output_arrived(ANN, 7, 1, "stdout", 0, b"x")


async def test_an_event_is_encoded_once_for_all(hub, monkeypatch):
    encoded = []
    monkeypatch.setattr(module, "encode", lambda event: encoded.append(event) or messages.encode(event))
    with hub.subscribed(ANN, False, ignore), hub.subscribed(ANN, False, ignore):
        hub.job_changed(ANN, 7, lambda: job(7))
    assert len(encoded) == 1


async def test_a_waiter_wakes_on_what_happened_since_it_looked(hub):
    with hub.watching(7, output=False) as change:
        change.looked()
        hub.job_changed(ANN, 7, lambda: job(7))
        await change.wait(60)
    assert not hub._state_waiters


async def test_who_waits_for_the_state_is_not_woken_by_output(hub):
    with hub.watching(7, output=False) as change:
        hub.output_arrived(ANN, 7, 1, "stdout", 0, b"x")
        assert not change._event.is_set()


@pytest.mark.parametrize("what", ["state", "output", "close"])
async def test_who_waits_for_output_is_woken_by_the_first_change(hub, what):
    with hub.watching(7, output=True) as change:
        waiting = asyncio.create_task(change.wait(60))
        await asyncio.sleep(0)
        if what == "state":
            hub.job_changed(ANN, 7, lambda: job(7))
        elif what == "output":
            hub.output_arrived(ANN, 7, 1, "stderr", 0, b"x")
        else:
            hub.close()
        await waiting


async def test_closing_sends_every_reader_away(hub):
    closed = []
    with hub.subscribed(ANN, False, closed.append), hub.subscribed(BOB, False, closed.append):
        hub.close()
    assert closed == [WSCloseCode.GOING_AWAY] * 2


async def test_an_element_of_an_array_is_told_to_who_watches_it_or_its_array_and_to_nobody_unasked(hub):
    with (
        hub.subscribed(ANN, False, ignore) as plain,
        hub.subscribed(ANN, False, ignore) as of_array,
        hub.subscribed(ANN, False, ignore) as of_element,
        hub.subscribed(BOB, False, ignore) as bob,
    ):
        hub.watch(of_array, [17])
        hub.watch(of_element, [20])
        hub.watch(bob, [17, 20])
        hub.job_changed(ANN, 20, lambda: job(20), 17)
        assert nothing(plain)
        assert nothing(bob)
        for reader in (of_array, of_element):
            (told,) = await taken(reader)
            assert told.job.id == 20
        hub.job_changed(ANN, 17, lambda: job(17))
        assert [told.job.id for told in await taken(plain)] == [17]


async def test_who_waits_for_an_element_is_woken_when_all_of_them_may_have_ended(hub):
    with hub.watching(20, output=False) as one, hub.watching(40, output=True) as other:
        hub.elements_changed(17, 10)
        assert one._event.is_set()
        assert not other._event.is_set()
