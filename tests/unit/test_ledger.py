"""Prices are exact, rounded up once; what leaves one account arrives in others."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridx.config import CreditSettings
from gridx.services.coordinator import ledger
from gridx.services.coordinator.ledger import Prices

DEFAULT = Prices(core_hour=1_000_000, gib_hour=100_000, gpu_hour=10_000_000)

prices = st.builds(
    Prices,
    core_hour=st.integers(0, 10**15),
    gib_hour=st.integers(0, 10**15),
    gpu_hour=st.integers(0, 10**15),
    fee_ppm=st.integers(0, 1_000_000),
)
asked = st.tuples(st.integers(0, 1_024_000), st.integers(0, 4 << 20), st.integers(0, 64))
durations = st.integers(0, 30 * 86_400_000)
amounts = st.integers(0, 2**53)


def exactly(p: Prices, cpu_millis: int, memory_mb: int, gpus: int, ms: int) -> Fraction:
    hour = (
        Fraction(cpu_millis, 1000) * p.core_hour + Fraction(memory_mb, 1024) * p.gib_hour + gpus * p.gpu_hour
    )
    return hour * ms / 3_600_000


def test_an_hour_of_a_core_a_gib_and_a_gpu_costs_what_the_settings_say():
    assert ledger.price_per_hour(DEFAULT, 1000, 1024, 1) == 11_100_000
    assert ledger.cost(DEFAULT, 1000, 1024, 1, 3_600_000) == 11_100_000
    assert ledger.hold(DEFAULT, 1000, 512, 0, 300) == 87_500


def test_the_smallest_use_costs_a_microcredit():
    assert ledger.cost(Prices(1, 0, 0), 1, 0, 0, 1) == 1
    assert ledger.cost(DEFAULT, 1000, 512, 0, 0) == 0


def test_the_settings_become_prices():
    settings = CreditSettings(core_hour=Decimal("1.5"), fee_percent=Decimal("2.5"))
    assert ledger.prices_from(settings) == Prices(1_500_000, 100_000, 10_000_000, 25_000)


@given(prices, asked, durations)
def test_a_cost_is_the_exact_price_rounded_up(p, a, ms):
    assert ledger.cost(p, *a, ms) == ceil(exactly(p, *a, ms))


@given(prices, asked)
def test_an_hour_costs_the_price_per_hour(p, a):
    assert ledger.cost(p, *a, 3_600_000) == ledger.price_per_hour(p, *a)


@given(prices, asked, durations, durations)
def test_longer_never_costs_less_and_parts_never_less_than_the_whole(p, a, one, two):
    both = ledger.cost(p, *a, one + two)
    assert ledger.cost(p, *a, one) <= both
    assert both <= ledger.cost(p, *a, one) + ledger.cost(p, *a, two) <= both + 1


@given(prices, asked, durations)
def test_the_lines_of_a_receipt_add_up_to_what_was_charged(p, a, ms):
    lines = ledger.lines(p, *a, ms)
    assert [line.item for line in lines] == [
        name for name, n in zip(("cpu", "memory", "gpu"), a, strict=True) if n
    ]
    assert sum(line.amount for line in lines) == ledger.cost(p, *a, ms)
    assert all(line.amount >= 0 for line in lines)


@given(
    prices,
    asked,
    st.integers(1, 30 * 86_400),
    st.none() | st.integers(-1000, 10**12),
    st.integers(0, 10**12),
)
def test_a_charge_never_exceeds_the_hold(p, a, timeout_s, coordinator_ms, worker_ms):
    ms = ledger.charged_ms(coordinator_ms, worker_ms, timeout_s)
    assert 0 <= ms <= timeout_s * 1000
    assert ms <= worker_ms
    assert coordinator_ms is None or ms <= max(0, coordinator_ms)
    assert ledger.cost(p, *a, ms) <= ledger.hold(p, *a, timeout_s)


def test_a_worker_that_claims_a_thousand_million_seconds_is_paid_for_what_was_measured():
    assert ledger.charged_ms(1500, 10**12, 300) == 1500


@given(amounts, st.integers(-10, 2**60), st.integers(0, 1_000_000))
def test_a_settlement_divides_the_hold(hold, charge, fee_ppm):
    parts = ledger.settlement(hold, charge, fee_ppm)
    assert parts.charge + parts.released == hold
    assert parts.fee + parts.to_worker == parts.charge
    assert min(parts.charge, parts.released, parts.fee, parts.to_worker) >= 0


@given(amounts, amounts)
def test_postings_sum_to_zero_and_none_is_empty(one, two):
    charge, fee = max(one, two), min(one, two)
    for postings in (
        ledger.hold_postings("ann", "escrow", one),
        ledger.settle_postings("escrow", "bob", "treasury", charge, fee),
        ledger.release_postings("escrow", "ann", two),
        ledger.transfer_postings("ann", "bob", one),
    ):
        assert sum(amount for _, amount in postings) == 0
        assert all(amount for _, amount in postings)


@pytest.mark.parametrize(("fee", "expected"), [(0, 2), (5, 3), (40, 2)])
def test_only_accounts_that_gain_or_lose_have_a_posting(fee, expected):
    assert len(ledger.settle_postings("escrow", "bob", "treasury", 40, fee)) == expected
