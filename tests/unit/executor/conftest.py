"""An executor over a grid that is pretended: real pickles, real processes, and ends as a test wants them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from kit.pretended import PretendedGrid

from gridx.executor import Executor, pool


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> Iterator[PretendedGrid]:
    grid = PretendedGrid()
    monkeypatch.setattr(pool, "opener", lambda *args, **kwargs: grid.open)
    yield grid
    grid.close()


@pytest.fixture
def executor_of(pretended: PretendedGrid) -> Iterator[Callable[..., Executor]]:
    """Makes executors with arguments of a test's own; they are shut down at its end."""
    made: list[Executor] = []

    def make(**options: object) -> Executor:
        made.append(Executor(**options))
        return made[-1]

    yield make
    pretended.away = False
    for executor in made:
        executor.shutdown(wait=False)
        for future in list(executor._session._open):
            future.stop()
    for executor in made:
        executor.shutdown()


@pytest.fixture
def executor(executor_of: Callable[..., Executor]) -> Executor:
    return executor_of()
