"""The fleet: what is free, who gets nothing and why, and how failures are forgotten."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from gridx.config import Settings
from gridx.errors import TooMany
from gridx.messages import Gpu, MachineSample, Offer, Runtime, Sample, Worker
from gridx.services.coordinator import fleet as fleet_module
from gridx.services.coordinator.backoff import HALF_LIFE_S, LONGEST_S, Backoff
from gridx.services.coordinator.fleet import Fleet
from gridx.services.coordinator.live import Live
from gridx.services.coordinator.store.records import WorkerRecord

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Clock:
    seconds = 50.0

    def monotonic(self) -> float:
        return self.seconds

    def now(self) -> datetime:
        return NOW


@dataclass
class Hub:
    told: list[Worker] = field(default_factory=list)

    def worker_changed(self, worker: Worker) -> None:
        self.told.append(worker)


class Link:
    def __init__(self) -> None:
        self.sent: list = []
        self.error = None

    def send(self, *frames) -> None:
        self.sent.extend(frames)

    def reject(self, error) -> None:
        self.error = error

    def hang_up(self, why) -> None:
        raise AssertionError(why)


OFFER = Offer(
    cpu_millis=4000,
    memory_mb=4096,
    gpus=[Gpu(uuid="a", name="", memory_mb=1), Gpu(uuid="b", name="", memory_mb=1)],
    runtimes=[Runtime(name="default", python="3.11", languages=["python", "ruby"])],
)


def record(id: int = 1, **fields) -> WorkerRecord:
    return WorkerRecord(
        **{
            "id": id,
            "user_id": 7,
            "owner": "ann",
            "identity": f"{id:032x}",
            "name": "box",
            "version": "1",
            "joined_at": NOW,
            "paused": False,
            **fields,
        }
    )


def live(id: int, *, worker: int = 1, owner: int = 7, cpus: int = 1000, gpus: tuple[str, ...] = ()) -> Live:
    attempt = SimpleNamespace(id=id, worker_id=worker, gpus=gpus, number=1)
    job = SimpleNamespace(id=id * 10, user_id=owner, cpu_millis=cpus, memory_mb=512)
    return Live(attempt, job, lease_until=0.0, assigned_at=0.0, weight=2.0)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def hub():
    return Hub()


@pytest.fixture
def fleet(clock, hub):
    return Fleet(SimpleNamespace(), hub, Settings(), clock)


def test_free_is_what_no_live_attempt_has(fleet):
    fleet.connect(record(), OFFER, Link())
    one, two = live(1, cpus=1500, gpus=("a",)), live(2)
    fleet.begin(one)
    fleet.begin(two)
    [machine] = fleet.machines()
    assert (machine.free_cpu_millis, machine.free_memory_mb, machine.free_gpus) == (1500, 3072, ("b",))
    assert fleet.worker(1).jobs == [10, 20]
    fleet.end(one)
    fleet.end(one)
    [machine] = fleet.machines()
    assert (machine.free_cpu_millis, machine.free_gpus) == (3000, ("a", "b"))


def test_an_offer_that_shrinks_below_what_runs_leaves_nothing_free(fleet):
    fleet.connect(record(), OFFER, Link())
    fleet.begin(live(1, cpus=3000))
    fleet.offering(1, Offer(cpu_millis=1000, memory_mb=256))
    assert fleet.machines()[0].free_cpu_millis == -2000
    assert fleet.worker(1).free_cpu_millis == 0


def test_a_gpu_that_is_offered_twice_is_one(fleet):
    twice = Gpu(uuid="a", name="", memory_mb=1)
    fleet.connect(record(), Offer(cpu_millis=1000, memory_mb=512, gpus=[twice, twice]), Link())
    assert (fleet.machines()[0].gpus, fleet.machines()[0].free_gpus) == (1, ("a",))


def test_a_user_has_so_many_workers_and_no_more(fleet, monkeypatch):
    monkeypatch.setattr(fleet_module, "MAX_WORKERS", 2)
    for id in (1, 2):
        fleet.admit(7, f"{id:032x}")
        fleet.connect(record(id), OFFER, Link())
    fleet.admit(7, f"{2:032x}")
    fleet.admit(8, f"{3:032x}")
    with pytest.raises(TooMany):
        fleet.admit(7, f"{3:032x}")


def test_what_runs_is_counted_by_owner(fleet):
    fleet.connect(record(), OFFER, Link())
    for id, owner in ((1, 5), (2, 5), (3, 6)):
        fleet.begin(live(id, owner=owner))
    assert fleet.running() == {5: 4.0, 6: 2.0}
    fleet.end(fleet.live(1))
    assert fleet.running() == {5: 2.0, 6: 2.0}


def test_leases_are_renewed_for_the_workers_own_attempts_only(fleet, clock):
    fleet.connect(record(1), OFFER, Link())
    fleet.connect(record(2), OFFER, Link())
    mine, others = live(1), live(2, worker=2)
    fleet.begin(mine)
    fleet.begin(others)
    assert fleet.renew(1, [1, 2, 3]) == [2, 3]
    assert mine.lease_until == clock.seconds + 90
    assert others.lease_until == 0


@pytest.mark.parametrize(
    ("paused", "drained", "told", "state", "closed"),
    [
        (False, False, "online", "online", ""),
        (True, False, "online", "paused", "paused"),
        (False, True, "online", "draining", "draining"),
        (False, False, "unready", "unready", "unready"),
        (False, True, "paused", "paused", "paused"),
    ],
)
def test_who_takes_nothing_says_so(fleet, paused, drained, told, state, closed):
    fleet.connect(record(paused=paused), OFFER, Link())
    if drained:
        fleet.drained(1)
    fleet.sampled(1, Sample(seq=1, attempts=[], state=told, state_reason="why"))
    assert fleet.worker(1).state == state
    assert fleet.machines()[0].closed == closed


def test_a_worker_that_joins_closed_is_given_nothing_from_the_first_moment(fleet):
    fleet.connect(record(), OFFER, Link(), "closed", "outside its \x1b[1mhours")
    assert (fleet.worker(1).state, fleet.worker(1).state_reason) == ("closed", "outside its hours")
    assert (fleet.machines()[0].closed, fleet.machines()[0].why) == ("closed", "outside its hours")
    fleet.connect(record(), OFFER, Link())
    assert fleet.machines()[0].closed == ""


def test_a_worker_that_is_away_is_known_but_no_machine(fleet, clock):
    link = Link()
    fleet.connect(record(), OFFER, link)
    fleet.disconnect(1, link)
    clock.seconds += 5
    worker = fleet.worker(1)
    assert (worker.state, worker.last_seen_s, worker.free_cpu_millis) == ("offline", 5.0, 0)
    assert fleet.machines() == []
    assert fleet.languages() == {"python", "ruby"}


def test_an_older_connection_that_ends_late_changes_nothing(fleet):
    older, newer = Link(), Link()
    fleet.connect(record(), OFFER, older)
    fleet.connect(record(), OFFER, newer)
    assert older.error is not None
    assert not fleet.disconnect(1, older)
    assert fleet.worker(1).state == "online"


def test_without_a_wall_or_by_its_owners_wish_a_machine_is_private(fleet):
    for fields in ({"isolated": False}, {"own_jobs_only": True}):
        fleet.connect(record(), Offer(cpu_millis=1, memory_mb=1, **fields), Link())
        assert fleet.machines()[0].private
    fleet.connect(record(), OFFER, Link())
    assert not fleet.machines()[0].private


def test_failures_are_seen_with_their_reason_and_pass(fleet, clock):
    fleet.connect(record(), OFFER, Link())
    fleet.broke(1, "the \x1b[31mengine\x1b[0m hung")
    assert fleet.machines()[0].closed == "pausing after failures"
    assert fleet.worker(1).state == "online"
    assert fleet.worker(1).state_reason == "gets nothing for 1 s after failures; the last: the engine hung"
    clock.seconds += 1
    assert fleet.machines()[0].closed == ""
    assert fleet.worker(1).state_reason == ""


def test_changes_of_many_attempts_are_told_together(fleet, hub):
    fleet.connect(record(), OFFER, Link())
    hub.told.clear()
    for id in range(1, 50):
        fleet.begin(live(id, cpus=1))
    assert hub.told == []
    fleet.tell()
    assert [len(worker.jobs) for worker in hub.told] == [49]
    fleet.tell()
    assert len(hub.told) == 1


def test_a_sample_is_told_and_kept(fleet, hub):
    fleet.connect(record(), OFFER, Link())
    hub.told.clear()
    sample = MachineSample(
        cpu_percent=[1.0],
        load=None,
        memory_used_bytes=1,
        memory_total_bytes=2,
        swap_used_bytes=0,
        disk_used_bytes=0,
        disk_total_bytes=0,
        disk_read_bps=0,
        disk_write_bps=0,
        net_rx_bps=0,
        net_tx_bps=0,
        gpus=[],
    )
    fleet.sampled(1, Sample(seq=1, attempts=[], sample=sample))
    fleet.sampled(1, Sample(seq=2, attempts=[]))
    assert [worker.sample for worker in hub.told] == [sample]
    assert fleet.worker(1).sample == sample


# -- back-off --------------------------------------------------------------------------------------------


def test_each_failure_in_a_row_doubles_the_pause_up_to_a_limit():
    backoff, now, pauses = Backoff(), 0.0, []
    for _ in range(12):
        backoff.failed(now, "x")
        pauses.append(backoff.left_s(now))
        now += pauses[-1]
    assert pauses[:4] == pytest.approx([1, 2, 4, 8], rel=0.1)
    assert pauses == sorted(pauses)
    assert pauses[-1] == LONGEST_S


def test_what_fails_during_a_pause_says_nothing_new():
    backoff = Backoff()
    for _ in range(64):
        backoff.failed(0.0, "x")
    assert backoff.left_s(0.0) == 1


def test_success_and_time_make_pauses_shorter_again():
    backoff, now = Backoff(), 0.0
    for _ in range(6):
        backoff.failed(now, "x")
        now += backoff.left_s(now)
    fresh = Backoff()
    for _ in range(6):
        backoff.succeeded(now)
    backoff.failed(now, "x")
    assert backoff.left_s(now) < 2
    for _ in range(6):
        fresh.failed(now, "x")
        now += fresh.left_s(now)
    now += 10 * HALF_LIFE_S
    fresh.failed(now, "x")
    assert fresh.left_s(now) == pytest.approx(1, abs=0.1)
