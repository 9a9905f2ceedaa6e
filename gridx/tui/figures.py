"""Numbers as people read them on a narrow column: spans of time, sizes, bars and small graphs.

Everything here is pure; widths are in terminal cells, and every function keeps to the width it promises.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

EIGHTHS: Final = "▏▎▍▌▋▊▉█"
LEVELS: Final = "▁▂▃▄▅▆▇█"
SIZE_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def age(seconds: float) -> str:
    """How long ago, in the largest whole unit; at most five cells."""
    whole = max(0, int(seconds))
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if whole >= length:
            return f"{min(whole // length, 9999)}{unit}"
    return f"{whole}s"


def span(seconds: float) -> str:
    """How long something took, in two units; at most seven cells."""
    if seconds < 9.95:
        return f"{max(0.0, seconds):.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    for unit, length, small, part in (("d", 86400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1)):
        if whole >= length:
            return f"{min(whole // length, 999)}{unit} {whole % length // part:02d}{small}"
    return f"{whole}s"


def size(count: float) -> str:
    """Bytes with three digits that matter: ``1.25 GiB``; at most eight cells."""
    value = max(0.0, float(count))
    unit = 0
    while value >= 999.5 and unit < len(SIZE_UNITS) - 1:
        value /= 1024
        unit += 1
    if unit == 0:
        return f"{int(value)} B"
    digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:.{digits}f} {SIZE_UNITS[unit]}"


def mebibytes(count: int) -> str:
    """An amount of memory given in MiB."""
    return size(count * (1 << 20))


def cores(millis: int) -> str:
    """Thousandths of a core as cores, without trailing zeros."""
    return f"{millis / 1000:.3f}".rstrip("0").rstrip(".")


def percent(fraction: float) -> str:
    """A fraction as a percentage in four cells, right-aligned."""
    return f"{min(max(fraction, 0.0), 9.99) * 100:3.0f}%"


def bar(fraction: float, width: int) -> tuple[str, str]:
    """A horizontal bar as its filled and its empty part; together ``width`` cells."""
    fraction = min(max(fraction, 0.0), 1.0)
    eighths = round(fraction * width * 8)
    if fraction > 0 and eighths == 0 and width:
        eighths = 1
    whole, part = divmod(eighths, 8)
    filled_text = "█" * whole + (EIGHTHS[part - 1] if part else "")
    return filled_text, " " * (width - len(filled_text))


def graph(values: Sequence[float], width: int, top: float) -> str:
    """The newest ``width`` values as columns of one cell, from 0 to ``top``; padded on the left."""
    shown = values[-width:] if width > 0 else ()
    scale = top if top > 0 else 1.0
    drawn = "".join(LEVELS[min(len(LEVELS) - 1, max(0, int(value / scale * len(LEVELS))))] for value in shown)
    return drawn.rjust(width)
