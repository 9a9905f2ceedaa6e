"""The unfolded array of the job list: its elements, a page of them, read again as the array goes on.

Elements are not told one by one by the event stream, only their array is; so while one is unfolded, its page
is read again when the array changed, at most once a second.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from gridx.errors import GridError
from gridx.tui.feed import PAGE

if TYPE_CHECKING:
    from gridx.tui.panes.jobs import JobsPane

READ_EVERY_S: Final = 1.0


class Elements:
    """Which array is unfolded, and which page of it is known."""

    def __init__(self, pane: JobsPane, on_read: Callable[[], None]) -> None:
        self._pane = pane
        self._on_read = on_read
        self.array_id: int | None = None
        self.ids: frozenset[int] = frozenset()
        self.next: int | None = None
        """Where the page after this one begins."""
        self._after: list[int | None] = [None]
        """Where this page began, and all before it."""
        self._waiting = False

    def unfold(self, array_id: int) -> None:
        """Show this array's elements from the first on."""
        self.array_id, self.ids, self.next, self._after = array_id, frozenset(), None, [None]
        self._read_now()

    def fold(self) -> None:
        """Show the list of jobs again."""
        self.array_id = None

    @property
    def later_pages(self) -> bool:
        """Whether this is not the first page."""
        return len(self._after) > 1

    def page(self, step: int) -> None:
        """The page after this one, or the one before."""
        if step > 0 and self.next is not None:
            self._after.append(self.next)
        elif step < 0 and self.later_pages:
            self._after.pop()
        else:
            return
        self._read_now()

    def changed(self) -> None:
        """Something about the array changed: read its page soon."""
        if self.array_id is not None and not self._waiting:
            self._waiting = True
            self._pane.set_timer(READ_EVERY_S, self._read_now)

    def _read_now(self) -> None:
        self._waiting = False
        if self.array_id is not None:
            self._pane.run_worker(self._read(self.array_id), exclusive=True, group="elements")

    async def _read(self, array_id: int) -> None:
        try:
            page = await self._pane.grid.client.elements(array_id, after=self._after[-1], limit=PAGE)
        except GridError as error:
            self._pane.grid.tell_error(error)
            return
        if self.array_id == array_id:
            self._pane.state.put_jobs(page.jobs)
            self.ids, self.next = frozenset(job.id for job in page.jobs), page.next
            self._on_read()
