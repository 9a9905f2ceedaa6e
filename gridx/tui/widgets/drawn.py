"""What every widget of the dashboard can ask: its application and the styles in which it draws."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from textual.widget import Widget

if TYPE_CHECKING:
    from gridx.tui.app import GridApp


class Drawn(Widget):
    """A widget of this dashboard."""

    @property
    def grid(self) -> GridApp:
        """The application, by its own type."""
        return cast("GridApp", self.app)
