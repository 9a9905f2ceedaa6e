"""Amounts of credits as people write them: integers in microcredits, shown with as many digits as matter."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Final

from gridx.errors import InvalidField
from gridx.messages import MICROCREDITS

MAX_MICROCREDITS: Final = 2**53


def format_credits(amount: int) -> str:
    """An amount in credits, exact, without trailing zeros: ``1_500_000`` is ``1.5``."""
    whole, part = divmod(abs(amount), MICROCREDITS)
    sign = "-" if amount < 0 else ""
    return f"{sign}{whole:,}" + (f".{part:06d}".rstrip("0") if part else "")


def parse_credits(text: str) -> int:
    """Credits as typed (``1.5``) to microcredits, exactly.

    Raises:
        InvalidField: not a number, not positive, or more than six decimals.
    """
    hint = "It must be a number of credits above 0 with at most six decimals, like 2.5."
    try:
        amount = Decimal(text.replace(",", "").strip())
    except InvalidOperation:
        raise InvalidField(f"{text!r} is not an amount of credits.", hint, field="amount") from None
    if not amount.is_finite() or amount <= 0 or amount > MAX_MICROCREDITS // MICROCREDITS:
        raise InvalidField(f"{text!r} is not an amount of credits.", hint, field="amount")
    micro = amount * MICROCREDITS
    if micro != int(micro):
        raise InvalidField(f"{text!r} has more than six decimals.", hint, field="amount")
    return int(micro)
