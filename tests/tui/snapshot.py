"""Screens kept as text: what stands where, and in which of the house's styles.

A file has the lines of the screen, and below them, for each look, which cells have which style. Colours are
told by their names in the theme, not by numbers: so looks mostly share their styles, and a file does not
change with every version of the libraries. To keep what is drawn now: ``GRIDX_SNAPSHOTS=rewrite``; to get
pictures to look at as well: ``GRIDX_PICTURES=FOLDER`` (SVG).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from rich.style import Style
from textual.color import Color

from gridx.tui.app import GridApp
from gridx.tui.themes import DARK, LIGHT

FOLDER: Final = Path(__file__).parent / "snapshots"
REWRITE: Final = os.environ.get("GRIDX_SNAPSHOTS") == "rewrite"
PICTURES: Final = os.environ.get("GRIDX_PICTURES", "")
FORE: Final = ("foreground", "primary", "success", "warning", "error", "accent")
BACK: Final = ("background", "surface", "panel", "primary", "error", "warning", "block-cursor-background")
MARK: Final = "=" * 20
LOOKS: Final = ("dark", "light", "plain")
THEMES: Final = {"dark": DARK.name, "light": LIGHT.name}


HEAVY: Final = str.maketrans("━┃┏┓┗┛", "─│╭╮╰╯")
"""Without colour the frame of the pane one is in is heavier; in the files that is a style as any other."""


def text_of(app: GridApp) -> list[str]:
    """The lines of the screen."""
    strips = app.screen._compositor.render_strips()
    return ["".join(s.text for s in strip).translate(HEAVY).rstrip() for strip in strips]


def styles_of(app: GridApp) -> list[str]:
    """A line for each line of the screen that has any style: spans of cells and what they are drawn in."""
    names = _Names(app)
    lines = []
    for y, strip in enumerate(app.screen._compositor.render_strips(), 1):
        spans: list[list] = []
        at = 0
        for segment in strip:
            name = names.of(segment.style, blank=not segment.text.strip())
            if segment.text != segment.text.translate(HEAVY):
                name = f"{name} heavy".strip()
            if spans and spans[-1][2] == name:
                spans[-1][1] += len(segment.text)
            else:
                spans.append([at, at + len(segment.text), name])
            at += len(segment.text)
        told = [f"{start}-{end} {name}" for start, end, name in spans if name]
        if told:
            lines.append(f"{y}: {', '.join(told)}")
    return lines


class _Names:
    """Styles by the names of the theme's colours that are nearest to theirs."""

    def __init__(self, app: GridApp) -> None:
        variables = app.theme_variables
        self._plain = app.no_color
        text, back = Color.parse(variables["foreground"]), Color.parse(variables["background"])
        self._fore = {name: Color.parse(variables[name]) for name in FORE}
        self._fore |= {"muted": text.blend(back, 0.42), "faint": text.blend(back, 0.75)}
        self._back = {name: Color.parse(variables[name]) for name in BACK}
        self._known: dict[tuple[Style | None, bool], str] = {}

    def of(self, style: Style | None, *, blank: bool) -> str:
        """The name of a style; empty for plain text on the background. A blank has no colour of its own."""
        key = (style, blank)
        if key not in self._known:
            self._known[key] = " ".join(self._words(style or Style.null(), blank))
        return self._known[key]

    def _words(self, style: Style, blank: bool) -> Iterator[str]:
        if not self._plain:
            if style.color is not None and not blank:
                name = _nearest(Color.from_rich_color(style.color), self._fore)
                if name != "foreground":
                    yield name
            if style.bgcolor is not None:
                name = _nearest(Color.from_rich_color(style.bgcolor), self._back)
                if name != "background":
                    yield f"on-{name.removeprefix('block-').removesuffix('-background')}"
        for name in ("bold", "dim", "italic", "underline", "reverse"):
            if getattr(style, name) and (not blank or name in ("underline", "reverse")):
                yield name


def _nearest(color: Color, named: dict[str, Color]) -> str:
    def distance(other: Color) -> int:
        return sum((a - b) ** 2 for a, b in zip(color.rgb, other.rgb, strict=True))

    return min(named, key=lambda name: distance(named[name]))


class Kept:
    """The snapshots of one size: compares each with its file, and tells all that differ at the end."""

    def __init__(self, size: str, looks: tuple[str, ...]) -> None:
        self.size, self.looks = size, looks
        self.wrong: list[str] = []

    def picture(self, app: GridApp, name: str, look: str) -> None:
        """Write the screen as it is now as a picture, where that is wanted."""
        if PICTURES:
            _picture(app, Path(PICTURES) / f"{name}-{self.size}-{look}.svg")

    def compare(self, name: str, drawn: dict[str, list[str]]) -> None:
        """Compare what was drawn with what is kept under this name: ``text`` and the styles of each look."""
        path = FOLDER / self.size / f"{name}.txt"
        parts = _read(path)
        new = {**parts, **drawn}
        if REWRITE:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(_written(new), encoding="utf-8")
        elif new != parts:
            self.wrong.append(f"{path.name} at {self.size}:\n{_difference(parts, new)}")

    def check(self) -> None:
        """Fail if anything differed."""
        if self.wrong:
            pytest.fail(
                "\n\n".join([*self.wrong, "GRIDX_SNAPSHOTS=rewrite keeps what is drawn now."]), pytrace=False
            )


def _read(path: Path) -> dict[str, list[str]]:
    """The parts of a file; looks that share their styles have them once."""
    parts: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        if line.startswith(MARK):
            lines = []
            for name in line.removeprefix(MARK).split():
                parts[name] = lines
        else:
            lines.append(line)
    return parts


def _written(parts: dict[str, list[str]]) -> str:
    together: list[tuple[str, list[str]]] = []
    for name in ("text", *LOOKS):
        same = [n for n, (_, lines) in enumerate(together) if lines == parts.get(name)]
        if same:
            together[same[0]] = (f"{together[same[0]][0]} {name}", together[same[0]][1])
        elif name in parts:
            together.append((name, parts[name]))
    return "".join(f"{MARK} {names}\n" + "".join(f"{line}\n" for line in lines) for names, lines in together)


def _difference(old: dict[str, list[str]], new: dict[str, list[str]]) -> str:
    told = []
    for part, lines in new.items():
        before = old.get(part, [])
        for n in range(max(len(lines), len(before))):
            was = before[n] if n < len(before) else ""
            now = lines[n] if n < len(lines) else ""
            if was != now:
                told += [f"  {part} {n + 1}", f"  - {was}", f"  + {now}"]
    return "\n".join(told[:30])


def _picture(app: GridApp, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    svg = re.sub(r"@font-face \{.*?\}", "", app.export_screenshot(title=path.stem), flags=re.DOTALL)
    path.write_text(svg.replace("Fira Code", "DejaVu Sans Mono"), encoding="utf-8")
