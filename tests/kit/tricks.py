"""Texts that want to be more than text: markup, sequences that terminals obey, marks, forged lines."""

from __future__ import annotations

import random
import re

FORGED = "2026-01-31T12:00:00Z error gridx.worker the forged line"
TRICKS = [
    "[/b]",
    "[/",
    "[red]x[/red]",
    "[@click=app.quit]x[/]",
    "[TODO] \\[b]",
    "$error {0} %s %n",
    "\x1b]52;c;RVZJTA==\x07",
    "\x1b]0;EVIL-TITLE\x07",
    "\x1b]8;;http://EVIL-LINK\x1b\\x\x1b]8;;\x1b\\",
    "\x1b[2J\x1b[H",
    "\x1b[6n\x1b[c\x1b[>q",
    "\x1b[31;45mEVIL-COLOUR",
    "\x1bP1$r\x1b\\\x1b_Gf=100;RVZJTA==\x1b\\",
    "\x1b]1337;File=:RVZJTA==\x07",
    "\x1bc\x1b#8\x1b(0",
    "\x9b31m\x9d0;EVIL-TITLE\x9c\x90q\x9c\x85",
    "\x1b[?1049l\x1b[?25h\x1b[201~",
    "\r\n" + FORGED,
    "\n" + FORGED + "\r",
    "\x0b\x0c\x08\x08\x07\x0e\x0f\x00",
    "\u202egnp.exe\u202c \u2066x\u2069 \u200f\u061c",
    "a\u200b\u200d\ufeff\u00ad\u2060b",
    "e" + "\u0301" * 10_000,
    "\u2028" + FORGED + "\u2029" + FORGED + "\x85" + FORGED,
    "\U000e0041\U000e007f\ue000\U000f0000",
    "日本語の名前です" * 30,
    "👩‍👩‍👧‍👦🏳️‍🌈",
    "\x1b",
    "\x1b[",
    "\x1b]0;never ended",
    "\x1b[38;2;1;2;3;4;5;6;7;8;9;10;11;12;13;14;15;16",
]
PIECES = [*TRICKS, "plain", " ", "\t", "\n", "\x1b[", "\x1b]", "m", "\x07", "\x9b", "é", "\u0301", "\ud7ff"]


def texts(seed: int, count: int) -> list[str]:
    """Every trick, and so many mixtures of them with characters of any kind."""
    rng = random.Random(seed)
    found = list(TRICKS)
    for _ in range(count):
        parts = [rng.choice(PIECES) if rng.random() < 0.7 else _any(rng) for _ in range(rng.randrange(1, 8))]
        found.append("".join(parts))
    return found


def _any(rng: random.Random) -> str:
    top = rng.choice([0x20, 0xA0, 0x800, 0x3000, 0x11_0000])
    code = rng.randrange(top)
    return "?" if 0xD800 <= code < 0xE000 else chr(code)


def line(text: str, limit: int = 190) -> str:
    """As far as one goes that may stand in a field of one line; the API refuses the rest."""
    return re.sub(r"[\x00-\x1f\x7f]", "", text)[:limit]


def no_nul(text: str, limit: int = 3000) -> str:
    return text.replace("\0", "")[:limit]
