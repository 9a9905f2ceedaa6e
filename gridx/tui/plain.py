"""Lines in ASCII alone, for ``--ascii``: what is drawn is translated, whatever drew it.

Frames, bars and glyphs have a stand-in each; any other character, of a job's name or its output, becomes as
many question marks as it has cells, so that the layout stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from rich.cells import cell_len
from rich.segment import Segment
from textual.color import Color
from textual.filter import LineFilter

from gridx.tui.look import ATTEMPT_LOOKS, JOB_LOOKS, WORKER_LOOKS

_STAND_INS: Final[Mapping[str, str]] = {
    **dict.fromkeys("╭╮╰╯┌┐└┘┏┓┗┛┬┴├┤┼╔╗╚╝", "+"),
    **dict.fromkeys("─━═▔", "-"),
    **dict.fromkeys("│┃║▌▐▊▎▍▏▋▉", "|"),
    **dict.fromkeys("▁", "_"),
    **dict.fromkeys("▂", "."),
    **dict.fromkeys("▃▄", "-"),
    **dict.fromkeys("▅▆", "="),
    **dict.fromkeys("▇", "*"),
    **dict.fromkeys("█▀", "#"),
    **dict.fromkeys("·•", "-"),
    "…": "~",
    "›": ">",
    "↑": "^",
    "↓": "v",
    "←": "<",
    "→": ">",
    "°": " ",
    "\u00a0": " ",
    **{
        look.glyph: look.plain
        for look in (*ATTEMPT_LOOKS.values(), *WORKER_LOOKS.values(), *JOB_LOOKS.values())
    },
}


@lru_cache(4096)
def plain(text: str) -> str:
    """``text`` in ASCII, in as many cells."""
    if text.isascii():
        return text
    return "".join(char if char.isascii() else _STAND_INS.get(char) or "?" * cell_len(char) for char in text)


class PlainLines(LineFilter):
    """Translates every segment."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        return [Segment(plain(text), style, control) for text, style, control in segments]
