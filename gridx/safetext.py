"""Untrusted text to printable text: the only way by which outside text reaches a terminal or a log.

Names, output and errors of jobs, workers and users may hold escape sequences that move the cursor, write the
clipboard or answer for the user, marks that turn text around, and stacks of combining marks that overflow a
line. What is dropped: C0 controls but newline and tab, DEL, C1 controls, bidirectional controls, zero-width
and other format characters, lone surrogates, unassigned and private code points that terminals disagree on.
Escape sequences go as a whole, so that no tail of them ("[2J") stays behind.
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from typing import Final

MAX_COMBINING: Final = 4
"""Combining marks kept on one base character; scripts in real use need no more."""

MAX_CHARS: Final = 1 << 20

# CSI, then OSC/DCS/SOS/PM/APC up to their terminator (or the end of the text), then two-character escapes.
_ESCAPES: Final = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"
    r"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c|(?=\x1b)|\Z)"
    r"|\x1b[ -/]*[0-~]?"
)
_DROPPED_CATEGORIES: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_MARKS: Final = frozenset({"Mn", "Me"})
_PLAIN: Final = re.compile(r"[\x20-\x7e\n\t]*\Z")


def clean(text: str, *, limit: int = MAX_CHARS) -> str:
    """Text of several lines, safe to print. Newlines and tabs stay; ``limit`` is in characters.

    A text that was cut ends in an ellipsis.
    """
    cut = len(text) > limit
    if cut:
        text = text[:limit]
    if not _PLAIN.match(text):
        text = _strip(_ESCAPES.sub("", text.replace("\r\n", "\n")))
    return text + "…" if cut else text


def line(text: str, *, limit: int = 200) -> str:
    """Text for one line: as :func:`clean`, with every run of white space a single blank."""
    return clean(" ".join(clean(text, limit=limit * 8).split()), limit=limit)


def name(path: object, *, limit: int = 200) -> str:
    """A file's name or path in a line; what is not UTF-8 of it becomes U+FFFD."""
    return line(str(path).encode("utf-8", "surrogateescape").decode("utf-8", "replace"), limit=limit)


def decode(data: bytes, *, limit: int = MAX_CHARS) -> str:
    """Bytes of output, safe to print; what is not UTF-8 becomes U+FFFD."""
    return clean(data.decode("utf-8", "replace"), limit=limit)


def _strip(text: str) -> str:
    kept: list[str] = []
    marks = 0
    for char in text:
        if char in "\n\t":
            marks = 0
            kept.append(char)
            continue
        category = unicodedata.category(char)
        if category in _DROPPED_CATEGORIES:
            continue
        if category in _MARKS:
            marks += 1
            if marks > MAX_COMBINING or not kept:
                continue
        else:
            marks = 0
        kept.append(char)
    return "".join(kept)


def _last_character(text: str) -> str:
    """The last character of a clean text with the marks on it; empty for no text."""
    start = len(text) - 1
    while start > 0 and unicodedata.category(text[start]) in _MARKS:
        start -= 1
    return text[max(start, 0) :]


class StreamCleaner:
    """Cleans bytes chunk by chunk; characters and escapes split between chunks are put together."""

    _LONGEST_TAIL: Final = 4096

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._tail = ""
        self._base = ""

    def feed(self, data: bytes, *, final: bool = False) -> str:
        """Clean the next chunk. An unfinished escape is held back until it ends or proves to be endless."""
        text = self._tail + self._decoder.decode(data, final)
        self._tail = ""
        before = self._base
        if not final:
            start = max(text.rfind("\x1b"), *(text.rfind(c) for c in "\x9b\x9d\x90\x98\x9e\x9f"))
            if start >= 0:
                match = _ESCAPES.match(text, start)
                if match is None or match.end() == len(text):
                    self._tail = (
                        text[start:] if len(text) - start <= self._LONGEST_TAIL else text[start : start + 2]
                    )
                    text = text[:start]
            elif text.endswith("\r"):
                text, self._tail = text[:-1], "\r"
        # Marks belong to the character before them, also where that came with an earlier chunk.
        cleaned = clean(self._base + text, limit=len(self._base) + len(text) + 1)
        self._base = _last_character(cleaned)
        return cleaned[len(before) :]
