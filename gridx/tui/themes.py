"""The two themes of the house, and the palette in which lines are drawn.

The colours keep apart for the common kinds of colour blindness (after Okabe and Ito): what went well is
bluish green, what went wrong is vermilion, what needs attention is yellow, what runs is blue. State is never
told by colour alone, see :mod:`gridx.tui.look`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from rich.style import Style
from textual.color import Color, ColorParseError
from textual.theme import Theme

DARK: Final = Theme(
    name="gridx-dark",
    primary="#6cb6ff",
    secondary="#4a7fb5",
    accent="#c9a6ff",
    success="#3ecfa4",
    warning="#f2cc60",
    error="#ff8552",
    foreground="#d7dce2",
    background="#11151a",
    surface="#171c23",
    panel="#1e252e",
    dark=True,
    variables={
        "border": "#6cb6ff",
        "border-blurred": "#323c48",
        "block-cursor-background": "#24476b",
        "block-cursor-foreground": "#ffffff",
        "footer-key-foreground": "#6cb6ff",
        "input-selection-background": "#6cb6ff 35%",
        "scrollbar": "#323c48",
        "scrollbar-hover": "#4a7fb5",
        "scrollbar-background": "#11151a",
        "scrollbar-background-hover": "#11151a",
        "scrollbar-background-active": "#11151a",
        "scrollbar-corner-color": "#11151a",
    },
)
LIGHT: Final = Theme(
    name="gridx-light",
    primary="#0860ca",
    secondary="#54759b",
    accent="#7a3fc0",
    success="#00755a",
    warning="#8a6100",
    error="#b8400c",
    foreground="#1f252c",
    background="#fbfbfa",
    surface="#f3f4f4",
    panel="#e9ecee",
    dark=False,
    variables={
        "border": "#0860ca",
        "border-blurred": "#c3c9cf",
        "block-cursor-background": "#cfe3fb",
        "block-cursor-foreground": "#0b1a2b",
        "footer-key-foreground": "#0860ca",
        "input-selection-background": "#0860ca 25%",
        "scrollbar": "#c3c9cf",
        "scrollbar-hover": "#54759b",
        "scrollbar-background": "#fbfbfa",
        "scrollbar-background-hover": "#fbfbfa",
        "scrollbar-background-active": "#fbfbfa",
        "scrollbar-corner-color": "#fbfbfa",
    },
)

MUTED: Final = 0.42
"""How far muted text goes from the foreground towards the background."""


class Palette:
    """Names of colours and weights to styles, for one theme.

    A name is words separated by blanks: a colour (``success``, ``error``, ``warning``, ``primary``,
    ``accent``, ``muted``), and any of ``strong``, ``reverse``, ``underline``, ``cursor`` and ``found``.
    """

    def __init__(self, variables: dict[str, str], *, no_color: bool) -> None:
        def color(name: str) -> Color:
            try:
                return Color.parse(variables[name])
            except (KeyError, ColorParseError):
                return Color.parse("#808080")

        text, back = color("foreground"), color("background")
        self._no_color = no_color
        self._styles: dict[str, Style] = {
            name: Style(color=color(name).rich_color)
            for name in ("success", "error", "warning", "primary", "accent")
        }
        muted = text.blend(back, MUTED)
        cursor = back.blend(color("block-cursor-background"), 1.0)
        self._styles |= {
            "muted": Style(dim=True) if no_color else Style(color=muted.rich_color),
            "faint": Style(dim=True) if no_color else Style(color=text.blend(back, 0.75).rich_color),
            "trough": Style() if no_color else Style(bgcolor=text.blend(back, 0.88).rich_color),
            "strong": Style(bold=True),
            "reverse": Style(reverse=True),
            "underline": Style(underline=True),
            "cursor": Style(reverse=True) if no_color else Style(bgcolor=cursor.rich_color),
            "resting": Style(bold=True)
            if no_color
            else Style(bgcolor=back.blend(color("block-cursor-background"), 0.45).rich_color),
            "found": Style(reverse=True)
            if no_color
            else Style(color=back.rich_color, bgcolor=color("warning").rich_color),
        }
        self.style = lru_cache(256)(self._style)

    def _style(self, names: str) -> Style:
        style = Style.null()
        for name in names.split():
            style += self._styles[name]
        return style
