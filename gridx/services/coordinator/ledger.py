"""Prices and postings: exact integer arithmetic, rounded up once. Pure: values in, values out.

All amounts are microcredits. A cost is a fraction with one denominator for all resources; nothing is rounded
before the sum. What a transaction moves is written as postings, pairs of an account and a signed amount that
sum to zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeVar

from msgspec import Struct

from gridx.config import CreditSettings, microcredits
from gridx.messages import Microcredits, PriceLine

MS_PER_HOUR: Final = 3_600_000
MILLIS: Final = 1000
"""Thousandths of a core in a core."""
MIB_PER_GIB: Final = 1024
PPM: Final = 1_000_000
_UNIT: Final = MILLIS * MIB_PER_GIB
"""Common denominator of an hour's price: thousandths of a core times MiB of a GiB."""

MAX_AMOUNT: Final[Microcredits] = 2**53
"""No account ever holds more: the largest integer that every JSON reader keeps exact."""

Account = TypeVar("Account")
Posting = tuple[Account, Microcredits]
_Size = tuple[int, int, int]
"""Thousandths of a core, MiB, GPUs."""


class Prices(Struct, frozen=True):
    """Microcredits for an hour of one core, one GiB, one GPU; the fee in parts per million of the charge."""

    core_hour: Microcredits
    gib_hour: Microcredits
    gpu_hour: Microcredits
    fee_ppm: int = 0


@dataclass(frozen=True, slots=True)
class Settlement:
    """How a hold is divided at the end: ``charge = fee + to_worker``, ``hold = charge + released``."""

    charge: Microcredits
    fee: Microcredits
    to_worker: Microcredits
    released: Microcredits


def prices_from(settings: CreditSettings) -> Prices:
    """The prices of the settings; a fee finer than a millionth of the charge is rounded down."""
    return Prices(
        core_hour=microcredits(settings.core_hour, "credits.core_hour"),
        gib_hour=microcredits(settings.gib_hour, "credits.gib_hour"),
        gpu_hour=microcredits(settings.gpu_hour, "credits.gpu_hour"),
        fee_ppm=int(settings.fee_percent * PPM / 100),
    )


def _hour(prices: Prices, cpu_millis: int, memory_mb: int, gpus: int) -> int:
    """An hour's price in parts of ``_UNIT`` of a microcredit."""
    return (
        cpu_millis * prices.core_hour * MIB_PER_GIB
        + memory_mb * prices.gib_hour * MILLIS
        + gpus * prices.gpu_hour * _UNIT
    )


def _ceil_div(numerator: int, denominator: int) -> int:
    return -(-numerator // denominator)


def price_per_hour(prices: Prices, cpu_millis: int, memory_mb: int, gpus: int) -> Microcredits:
    """What an hour costs, rounded up."""
    return _ceil_div(_hour(prices, cpu_millis, memory_mb, gpus), _UNIT)


def cost(prices: Prices, cpu_millis: int, memory_mb: int, gpus: int, duration_ms: int) -> Microcredits:
    """What ``duration_ms`` milliseconds cost, exactly, rounded up once."""
    return _ceil_div(_hour(prices, cpu_millis, memory_mb, gpus) * duration_ms, _UNIT * MS_PER_HOUR)


def hold(
    prices: Prices, cpu_millis: int, memory_mb: int, gpus: int, timeout_s: int, retries: int = 0
) -> Microcredits:
    """What is set aside at submit: the cost of the whole timeout, for the first run and each retry."""
    return cost(prices, cpu_millis, memory_mb, gpus, timeout_s * 1000) * (1 + retries)


def lines(prices: Prices, cpu_millis: int, memory_mb: int, gpus: int, duration_ms: int) -> list[PriceLine]:
    """A cost by resource; resources that were not asked for have no line.

    The lines add up to :func:`cost`: each is the difference that its resource makes to the sum, rounded up.
    """
    asked: tuple[tuple[Literal["cpu", "memory", "gpu"], float, str, Microcredits, _Size], ...] = (
        ("cpu", cpu_millis / MILLIS, "core", prices.core_hour, (cpu_millis, 0, 0)),
        ("memory", memory_mb / MIB_PER_GIB, "GiB", prices.gib_hour, (0, memory_mb, 0)),
        ("gpu", gpus, "GPU", prices.gpu_hour, (0, 0, gpus)),
    )
    parts: list[PriceLine] = []
    exact = before = 0
    for item, quantity, unit, per_hour, size in asked:
        if not quantity:
            continue
        exact += _hour(prices, *size) * duration_ms
        total = _ceil_div(exact, _UNIT * MS_PER_HOUR)
        parts.append(
            PriceLine(item=item, quantity=quantity, unit=unit, per_hour=per_hour, amount=total - before)
        )
        before = total
    return parts


def charged_ms(coordinator_ms: int | None, worker_ms: int, timeout_s: int) -> int:
    """The milliseconds that are charged: the smallest of three, and never below zero.

    Args:
        coordinator_ms: the lease, from the assignment to ``finished``, on the coordinator's monotonic clock;
            None when it cannot say (the machine booted in between).
        worker_ms: the worker's own figure; it counts only downward, which a worker has no interest to abuse.
        timeout_s: what was held for.
    """
    measured = worker_ms if coordinator_ms is None else min(coordinator_ms, worker_ms)
    return max(0, min(measured, timeout_s * 1000))


def settlement(hold: Microcredits, charge: Microcredits, fee_ppm: int) -> Settlement:
    """Divide a hold: the charge, never more than the hold; the fee of it, rounded down; the rest."""
    paid = max(0, min(charge, hold))
    fee = paid * fee_ppm // PPM
    return Settlement(charge=paid, fee=fee, to_worker=paid - fee, released=hold - paid)


def _moved(*postings: Posting[Account]) -> list[Posting[Account]]:
    return [posting for posting in postings if posting[1]]


def hold_postings(payer: Account, escrow: Account, amount: Microcredits) -> list[Posting[Account]]:
    """Set aside at submit."""
    return _moved((payer, -amount), (escrow, amount))


def settle_postings(
    escrow: Account, payee: Account, treasury: Account, charge: Microcredits, fee: Microcredits
) -> list[Posting[Account]]:
    """Pay the worker's owner from escrow, and the fee to the treasury."""
    return _moved((escrow, -charge), (payee, charge - fee), (treasury, fee))


def release_postings(escrow: Account, payer: Account, amount: Microcredits) -> list[Posting[Account]]:
    """Give back what was not used."""
    return _moved((escrow, -amount), (payer, amount))


def transfer_postings(payer: Account, payee: Account, amount: Microcredits) -> list[Posting[Account]]:
    """From one account to another; a grant is a transfer from the mint."""
    return _moved((payer, -amount), (payee, amount))
