"""The three lines around the panes: what grid this is, which panes there are, and what the keys do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from rich.cells import cell_len
from rich.segment import Segment
from textual import events
from textual.strip import Strip

from gridx.tui.cells import fit
from gridx.tui.widgets.drawn import Drawn

FIRST_ACTIONS: Final = ("submit", "back")
"""What stands first in the line of keys, wherever one is."""
LAST_ACTIONS: Final = ("quit", "help")
"""What stands last, and is there however narrow the line is: the help has all that had no room."""


class Part(NamedTuple):
    """A piece of a bar; ``action`` is run when it is clicked."""

    text: str
    style: str = ""
    action: str = ""


class Bar(Drawn):
    """One line of parts from the left, and of parts from the right.

    Where both do not fit, parts of the right go, the last first; ``whole`` says that all of the left stays.
    """

    DEFAULT_CSS = "Bar { height: 1; width: 100%; }"

    def __init__(self, *, whole: bool = False, id: str | None = None) -> None:
        super().__init__(id=id)
        self._whole = whole
        self._left: tuple[Part, ...] = ()
        self._right: tuple[Part, ...] = ()

    def show(self, left: Iterable[Part], right: Iterable[Part] = ()) -> None:
        """Set what the bar shows; nothing is drawn if it is the same."""
        parts = tuple(left), tuple(right)
        if parts != (self._left, self._right):
            self._left, self._right = parts
            self.refresh()

    @property
    def plain(self) -> str:
        """What it says, without styles."""
        return "".join(part.text for part in (*self._left, *self._right))

    def _laid(self) -> Sequence[Part]:
        """The parts with the blank between left and right."""
        width = self.size.width
        right = list(self._right)
        room = width - sum(cell_len(part.text) for part in right)
        least = _cells(self._left) if self._whole else width // 3
        while right and room < least:
            room += cell_len(right.pop().text)
        left: list[Part] = []
        for part in self._left:
            length = cell_len(part.text)
            if length > room:
                left.append(part._replace(text=fit(part.text, room)))
                room = 0
                break
            left.append(part)
            room -= length
        return [*left, Part(" " * room), *right]

    def render_line(self, y: int) -> Strip:
        base = self.rich_style
        palette = self.grid.palette
        if y:
            return Strip.blank(self.size.width, base)
        segments = [
            Segment(part.text, base + palette.style(part.style) if part.style else base)
            for part in self._laid()
        ]
        return Strip(segments).adjust_cell_length(self.size.width, base)

    async def on_click(self, event: events.Click) -> None:
        at = 0
        for part in self._laid():
            at += cell_len(part.text)
            if event.x < at:
                if part.action:
                    event.stop()
                    await self.act(part.action)
                return

    async def act(self, action: str) -> None:
        """Run the action of a clicked part."""
        await self.app.run_action(action, self.screen)


class KeyBar(Bar):
    """The keys that work where the focus is, most particular first: made from the bindings in force."""

    def on_mount(self) -> None:
        self.screen.bindings_updated_signal.subscribe(self, lambda _: self.call_after_refresh(self.update))
        self.update()

    def update(self) -> None:
        """Read the bindings again."""
        if not self.is_attached or self.screen is not self.app.screen:
            return
        parts: list[Part] = []
        seen: set[str] = set()
        shown = [active.binding for active in self.screen.active_bindings.values() if active.enabled]
        for binding in sorted(shown, key=lambda binding: binding.action not in FIRST_ACTIONS):
            if not binding.show or not binding.description or binding.action in seen:
                continue
            seen.add(binding.action)
            key = self.app.get_key_display(binding)
            parts += [Part(f" {key}", "primary strong", binding.action), Part(f" {binding.description} ", "")]
        self.show(parts)

    def _laid(self) -> Sequence[Part]:
        """As many keys as have room with their words, in pairs of key and word; the last ones always."""
        pairs = [self._left[n : n + 2] for n in range(0, len(self._left), 2)]
        last = [pair for pair in pairs if pair[0].action in LAST_ACTIONS]
        room = self.size.width - sum(_cells(pair) for pair in last)
        kept: list[Part] = []
        for pair in pairs:
            if pair in last:
                continue
            room -= _cells(pair)
            if room < 0:
                break
            kept += pair
        return [*kept, *(part for pair in last for part in pair)]

    async def act(self, action: str) -> None:
        """Run the action where its binding is."""
        for active in self.screen.active_bindings.values():
            if active.binding.action == action:
                await self.app.run_action(action, active.node)
                return


def _cells(parts: Sequence[Part]) -> int:
    return sum(cell_len(part.text) for part in parts)
