"""The future of a call: the standard library's, with the job behind it."""

from __future__ import annotations

import concurrent.futures
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from gridx.messages import Job, Stream

if TYPE_CHECKING:
    from gridx.executor.session import Session

T = TypeVar("T")


class GridFuture(concurrent.futures.Future[T], Generic[T]):
    """What :meth:`Executor.submit` gives.

    ``cancel()`` is the standard library's: it succeeds while the call waits, on the grid too, and does
    nothing to one that runs. :meth:`stop` ends that one as well.

    Attributes:
        job_id: of the job, as ``gridx show`` knows it; None until the coordinator has accepted it.
    """

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.job_id: int | None = None
        self._session = session
        self._turn = threading.Lock()
        self._told = False
        self._asked = False

    def cancel(self) -> bool:
        """Cancel the call if it has not begun to run; whether it is cancelled now."""
        if not super().cancel():
            return False
        self._begin()
        with self._turn:
            first, self._asked = not self._asked, True
        if first:
            self._session.cancel(self)
        return True

    def stop(self) -> bool:
        """Cancel the call also if it runs: its job is killed, and the result is ``JobCancelled``.

        False if it has ended already. Returns at once; ``result()`` waits for the end.
        """
        if self.cancel():
            return True
        if self.done():
            return False
        self._session.cancel(self)
        return True

    def job(self) -> Job | None:
        """The job as it is now, why it waits included; None while there is none.

        Raises:
            GridError: what the coordinator said, or Unreachable.
        """
        number = self.job_id
        return None if number is None else self._session.ask(lambda grid: grid.job(number))

    def output(self, stream: Stream = "stdout") -> bytes:
        """What the call has printed so far, of its last attempt; it may still run.

        Raises:
            GridError: what the coordinator said, or Unreachable.
        """
        number = self.job_id
        return b"" if number is None else self._session.ask(lambda grid: grid.output(number, stream))

    def fetch(self, folder: str | Path, *, overwrite: bool = False) -> list[Path]:
        """Save the files that the call wrote into ``out/`` below a folder; where each lies now.

        Raises:
            GridError: what the coordinator said, or Unreachable.
        """
        from gridx.executor.results import fetch_files

        number = self.job_id
        if number is None:
            return []
        return self._session.ask(lambda grid: fetch_files(grid, number, Path(folder), overwrite=overwrite))

    def __reduce__(self) -> Any:
        raise TypeError("A future stays in its program: give the call its result().")

    def _begin(self) -> bool:
        """Say that the call runs, or that it was cancelled, to whoever waits; whether it is to run."""
        with self._turn:
            first, self._told = not self._told, True
        if first:
            return self.set_running_or_notify_cancel()
        return not self.cancelled()

    def _end(self, value: T | None, error: BaseException | None) -> None:
        """Give the result, in the session's thread; one that was cancelled has none."""
        if not self._begin() or self.done():
            return
        if error is not None:
            try:
                self.set_exception(error)
            finally:
                # As the standard library does: the traceback of whoever asks would otherwise keep this alive.
                del error
        else:
            self.set_result(value)  # type: ignore[arg-type]
