"""Guessing: whoever guesses has to wait, and shuts out nobody else."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from gridx.errors import TooMany
from gridx.services.coordinator.guessing import ADDRESS_FACTOR, GuessLimits, network


class FakeClock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def monotonic(self) -> float:
        return self.seconds

    def now(self) -> datetime:
        return datetime(2030, 1, 1, tzinfo=UTC)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def limits(clock) -> GuessLimits:
    return GuessLimits(failures=3, window_s=60, clock=clock)


def fail(limits: GuessLimits, account: str, address: str, times: int) -> None:
    for _ in range(times):
        limits.begin(account, address)


def test_the_fourth_failure_has_to_wait_until_the_first_is_forgotten(limits, clock):
    fail(limits, "ann", "10.0.0.1", 1)
    clock.seconds += 20
    fail(limits, "ann", "10.0.0.1", 2)
    with pytest.raises(TooMany) as refused:
        limits.begin("ann", "10.0.0.1")
    assert refused.value.details["retry_after_s"] == 40
    clock.seconds += 40
    limits.begin("ann", "10.0.0.1")


def test_the_real_user_elsewhere_is_not_shut_out(limits):
    fail(limits, "ann", "10.0.0.1", 3)
    limits.begin("ann", "10.0.0.2").right()


def test_another_account_from_the_same_address_goes_on(limits):
    fail(limits, "ann", "10.0.0.1", 3)
    limits.begin("bob", "10.0.0.1")


def test_upper_and_lower_case_are_one_account(limits):
    fail(limits, "ann", "10.0.0.1", 3)
    with pytest.raises(TooMany):
        limits.begin("ANN", "10.0.0.1")


def test_a_right_password_forgives_what_failed_before(limits):
    fail(limits, "ann", "10.0.0.1", 2)
    limits.begin("ann", "10.0.0.1").right()
    fail(limits, "ann", "10.0.0.1", 3)


def test_an_attempt_that_found_nothing_out_does_not_count(limits):
    for _ in range(10):
        limits.begin("ann", "10.0.0.1").void()
    fail(limits, "ann", "10.0.0.1", 3)


def test_attempts_count_while_they_are_under_way(limits):
    under_way = [limits.begin("ann", "10.0.0.1") for _ in range(3)]
    with pytest.raises(TooMany):
        limits.begin("ann", "10.0.0.1")
    for guess in under_way:
        guess.void()


def test_an_address_that_tries_many_accounts_has_to_wait_too(limits):
    for number in range(3 * ADDRESS_FACTOR):
        limits.begin(f"user{number}", "10.0.0.1")
    with pytest.raises(TooMany):
        limits.begin("another", "10.0.0.1")


def test_who_signed_in_from_an_address_before_is_not_held_up_by_others_there(limits):
    limits.begin("ann", "10.0.0.1").right()
    for number in range(3 * ADDRESS_FACTOR):
        limits.begin(f"user{number}", "10.0.0.1")
    limits.begin("ann", "10.0.0.1").right()


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("10.0.0.1", "10.0.0.2", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("unknown", "unknown", True),
    ],
)
def test_addresses_of_one_machine_count_as_one(one, other, same):
    assert (network(one) == network(other)) is same
