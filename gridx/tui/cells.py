"""Text cut and padded to a number of terminal cells; a wide character is never cut in half."""

from __future__ import annotations

from rich.cells import cell_len, set_cell_size


def fit(text: str, width: int, *, right: bool = False) -> str:
    """``text`` in exactly ``width`` cells; what does not fit ends in an ellipsis."""
    if width <= 0:
        return ""
    length = len(text) if text.isascii() else cell_len(text)
    if length > width:
        return set_cell_size(text, width - 1) + "…"
    blank = " " * (width - length)
    return blank + text if right else text + blank


def wrap_words(text: str, width: int) -> list[tuple[int, int]]:
    """As :func:`wrap`, but between words where there are any; blanks at a break stay with the word before."""
    pieces: list[tuple[int, int]] = []
    start = 0
    while start < len(text) or not pieces:
        end = _reach(text, start, max(1, width))
        if end < len(text) and text[end] != " ":
            blank = text.rfind(" ", start, end)
            end = blank + 1 if blank > start else end
        while end < len(text) and text[end] == " ":
            end += 1
        pieces.append((start, end))
        start = end
    return pieces


def _reach(text: str, start: int, width: int) -> int:
    """Where the text that fits ``width`` cells from ``start`` on ends; at least one character on."""
    used = 0
    for at in range(start, len(text)):
        used += 1 if text[at].isascii() else cell_len(text[at])
        if used > width and at > start:
            return at
    return len(text)


def wrap(text: str, width: int) -> list[tuple[int, int]]:
    """Where to break a line so that each piece fits ``width`` cells: (start, end) of each, at least one."""
    width = max(1, width)
    if text.isascii():
        return [(at, min(at + width, len(text))) for at in range(0, len(text), width)] or [(0, 0)]
    pieces: list[tuple[int, int]] = []
    start = used = 0
    for at, char in enumerate(text):
        cells = cell_len(char)
        if used + cells > width and at > start:
            pieces.append((start, at))
            start, used = at, 0
        used += cells
    pieces.append((start, len(text)))
    return pieces
