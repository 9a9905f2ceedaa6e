"""joblib on the grid, and with it what scikit-learn does with ``n_jobs``.

    import joblib
    import gridx.joblib

    gridx.joblib.register()
    with joblib.parallel_config("gridx", n_jobs=-1):
        search.fit(x, y)

Needs joblib here (``pip install 'gridx[joblib]'``) and in the runtime; the default one has it.
"""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from joblib.parallel import (
    AutoBatchingMixin,
    ParallelBackendBase,
    SequentialBackend,
    ThreadingBackend,
    register_parallel_backend,
)

from gridx.executor import Executor, GridFuture

AT_LEAST: Final = 2
"""With a single place joblib would run everything here, and nothing on the grid."""


def register(name: str = "gridx", **options: Any) -> None:
    """Make the grid a backend of joblib.

    Args:
        options: for :class:`~gridx.Executor`, like ``cpus``, ``memory_mb`` or ``trust``; those given to
            ``parallel_config`` come on top. ``executor`` names one that is there already.
    """
    register_parallel_backend(name, partial(GridBackend, **options))


class GridBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]
    """Each batch of calls is a job. ``n_jobs=-1`` means as many at once as the fleet has cores for."""

    supports_retrieve_callback = True
    default_n_jobs = -1
    # A job costs some hundredths of a second: batches are large enough that this does not matter.
    MIN_IDEAL_BATCH_DURATION = 0.5
    MAX_IDEAL_BATCH_DURATION = 5.0

    def __init__(
        self,
        nesting_level: int | None = None,
        inner_max_num_threads: int | None = None,
        *,
        executor: Executor | None = None,
        **options: Any,
    ) -> None:
        super().__init__(nesting_level=nesting_level, inner_max_num_threads=inner_max_num_threads)
        self._given = executor
        self._options = {"name": "joblib", **options}
        self._own: Executor | None = None
        self._view: Executor | None = None
        self._open: set[GridFuture[Any]] = set()
        self._aborted = False

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """How many batches may run at once."""
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        if n_jobs is None:
            n_jobs = self.default_n_jobs
        if n_jobs > 0:
            return n_jobs
        return max(AT_LEAST, self._executor().places() + 1 + n_jobs)

    def submit(self, func: Callable[[], Any], callback: Any = None) -> GridFuture[Any]:
        """Send a batch."""
        future = self._executor().submit(func)
        self._open.add(future)
        future.add_done_callback(self._open.discard)
        if callback is not None:
            future.add_done_callback(callback)
        if self._aborted:
            # It was under way, in another thread, when all was ended.
            future.stop()
        return future

    def start_call(self) -> None:
        """A new round of calls begins."""
        self._aborted = False

    def retrieve_result_callback(self, out: concurrent.futures.Future[Any]) -> Any:
        """The results of a batch, or what it raised."""
        return out.result()

    def get_nested_backend(self) -> tuple[ParallelBackendBase, int]:
        """What calls inside of a job use: the cores that the job has."""
        level = (self.nesting_level or 0) + 1
        cores = int(self._options.get("cpus", 1))
        if cores > 1:
            return ThreadingBackend(nesting_level=level), cores
        return SequentialBackend(nesting_level=level), 1

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """End what was sent: its results are not wanted any more."""
        self._aborted = True
        for future in list(self._open):
            future.stop()

    def terminate(self) -> None:
        """Close the connection; the next use opens another."""
        own, self._own, self._view = self._own, None, None
        if own is not None:
            own.shutdown(wait=False)

    def _executor(self) -> Executor:
        if self._view is None:
            if self._given is not None:
                self._view = self._given.with_options(**self._options)
            else:
                self._view = self._own = Executor(**self._options)
        return self._view
