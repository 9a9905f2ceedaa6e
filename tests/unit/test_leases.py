"""Leases as the worker sees them: they end here before they end at the coordinator, whatever is late."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gridx.services.worker.leases import Leases

LEASE_S = 90.0


class Turned:
    def __init__(self) -> None:
        self.time = 1000.0

    def monotonic(self) -> float:
        return self.time


def joined(clock):
    leases = Leases(clock)
    leases.joined(LEASE_S, clock.monotonic())
    return leases


def test_a_lease_runs_from_the_sending_of_the_answered_sample():
    clock = Turned()
    leases = joined(clock)
    leases.begin(1)
    leases.sample_sent(1, [1])
    clock.time += 50
    leases.renewed(1)
    clock.time += 39.9
    assert leases.lapsed() == []
    clock.time += 0.1
    assert leases.lapsed() == [1]


def test_a_sample_that_is_not_answered_renews_nothing():
    clock = Turned()
    leases = joined(clock)
    leases.begin(1)
    clock.time += 60
    leases.sample_sent(1, [1])
    clock.time += 30
    assert leases.lapsed() == [1]


def test_only_what_a_sample_named_is_renewed():
    clock = Turned()
    leases = joined(clock)
    leases.begin(1)
    leases.begin(2)
    clock.time += 60
    leases.sample_sent(1, [1])
    leases.renewed(1)
    clock.time += 60
    assert leases.lapsed() == [2]


def test_answers_to_samples_of_an_earlier_connection_do_not_count():
    clock = Turned()
    leases = joined(clock)
    leases.begin(1)
    clock.time += 80
    leases.sample_sent(1, [1])
    leases.joined(LEASE_S, clock.time)
    leases.renewed(1)
    clock.time += 10
    assert leases.lapsed() == [1]


def test_a_new_attempt_has_its_lease_from_what_was_answered_last():
    clock = Turned()
    leases = joined(clock)
    clock.time += 30
    leases.sample_sent(1, [])
    leases.renewed(1)
    clock.time += 60
    leases.begin(7)
    clock.time += 29.9
    assert leases.lapsed() == []
    clock.time += 0.1
    assert leases.lapsed() == [7]


def test_what_ended_has_no_lease():
    clock = Turned()
    leases = joined(clock)
    leases.begin(1)
    leases.end(1)
    clock.time += 1000
    assert leases.lapsed() == []


@given(
    st.lists(
        st.tuples(st.floats(0, 20), st.floats(0, 20), st.floats(0, 20), st.booleans()),
        min_size=1,
        max_size=40,
    )
)
def test_the_workers_side_always_ends_first(rounds):
    """Each round: a sample is sent, arrives after a while, and its answer may come after another while.

    The coordinator counts from the arrival and the worker from the sending, so whenever the coordinator's
    lease is over, so is the worker's.
    """
    clock = Turned()
    leases = joined(clock)
    clock.time += 1.0
    coordinator_until = clock.time + LEASE_S
    leases.begin(1)
    for seq, (pause, travel, back, answered) in enumerate(rounds):
        clock.time += pause
        if clock.time >= coordinator_until:
            break
        leases.sample_sent(seq, [1])
        clock.time += travel
        if clock.time < coordinator_until:
            coordinator_until = clock.time + LEASE_S
        clock.time += back
        if answered:
            leases.renewed(seq)
    clock.time = max(clock.time, coordinator_until)
    assert leases.lapsed() == [1]
