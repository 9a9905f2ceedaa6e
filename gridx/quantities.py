"""Amounts as people type and read them: ``5m``, ``1h30m``, ``512M``, ``1.5G``, ``2.5`` cores, ``1.2 GiB``."""

from __future__ import annotations

import re
from typing import Final

from gridx.errors import InvalidField

SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
MEBIBYTES: Final = {"": 1.0, "K": 1 / 1024, "M": 1.0, "G": 1024.0, "T": 1024.0**2}


def parse_seconds(text: str, field: str = "timeout_s") -> int:
    """Whole seconds of ``90``, ``90s``, ``5m``, ``1h30m`` or ``2d``.

    Raises:
        InvalidField: it is none of these.
    """
    bare = text.strip().lower()
    if re.fullmatch(r"\d{1,9}", bare, re.ASCII):
        return int(bare)
    if re.fullmatch(r"(\d{1,9}[smhd])+", bare, re.ASCII):
        return sum(int(n) * SECONDS[unit] for n, unit in re.findall(r"(\d+)([smhd])", bare))
    raise InvalidField(f"{text!r} is not a duration.", "Write 90, 90s, 5m, 1h30m or 2d.", field=field)


def parse_mebibytes(text: str, field: str = "memory_mb") -> int:
    """Mebibytes, rounded up, of ``512``, ``512M``, ``1G`` or ``1.5GiB``.

    Raises:
        InvalidField: it is none of these.
    """
    found = re.fullmatch(r"(\d{1,12}(?:\.\d{1,6})?)\s*([KMGT]?)(?:I?B)?", text.strip().upper(), re.ASCII)
    if not found:
        raise InvalidField(f"{text!r} is not a size.", "Write 512M, 1G or 1.5G.", field=field)
    return max(1, -int(-float(found[1]) * MEBIBYTES[found[2]] // 1))


def parse_cores(text: str, field: str = "cpus") -> float:
    """Cores of ``1``, ``0.5`` or ``2.25``.

    Raises:
        InvalidField: not a number, or finer than a thousandth.
    """
    bare = text.strip()
    if not re.fullmatch(r"\d{1,6}(\.\d{1,3})?", bare, re.ASCII):
        raise InvalidField(f"{text!r} is not a number of cores.", "Write 1, 0.5 or 2.", field=field)
    return float(bare)


def parse_count(text: str, field: str) -> int:
    """A whole number that is not negative.

    Raises:
        InvalidField: it is not one.
    """
    bare = text.strip()
    if not re.fullmatch(r"\d{1,9}", bare, re.ASCII):
        raise InvalidField(f"{text!r} is not a whole number.", "Write 0, 1 or more.", field=field)
    return int(bare)


def size_words(count: float) -> str:
    """Bytes as people read them, in powers of 1024."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if count < 1024 or unit == "TiB":
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError("the last unit takes everything")
