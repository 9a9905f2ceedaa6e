"""Tortoise for the reads: what it knows of the models, and a connection that cannot write.

What Tortoise knows of the models belongs to the process, so it is set up with the first store, as the global
fallback: a query must work in whatever task it is asked. A store's connection is its own.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from tortoise.backends.sqlite.client import SqliteClient
from tortoise.context import TortoiseContext
from tortoise.exceptions import OperationalError
from tortoise.queryset import ValuesListQuery

from gridx.errors import Unavailable
from gridx.services.coordinator.store.connection import READ_PRAGMAS

MAX_ID: Final = 2**63 - 1
"""What SQLite can compare an id with; nothing has a larger one."""

_ALIAS: Final = "grid"
MAX_IN: Final = 512
"""Ids in one query."""

_MODELS: Final = "gridx.services.coordinator.store.models"


def bounded(value: int) -> int:
    """A number that may come from outside, as one that SQLite can compare with."""
    return max(-1, min(value, MAX_ID))


def storable(text: str) -> bool:
    """Whether a text from outside can be compared with what is stored: no NUL, no lone surrogates."""
    return not any(char == "\0" or "\ud800" <= char <= "\udfff" for char in text)


class _Schema:
    """What Tortoise knows of the models, while any store is open."""

    stores = 0
    context: TortoiseContext | None = None

    @classmethod
    async def enter(cls, path: Path) -> None:
        if cls.context is not None:
            cls.stores += 1
            return
        context = TortoiseContext()
        with context:
            await context.init(
                {
                    "connections": {
                        _ALIAS: {
                            "engine": "tortoise.backends.sqlite",
                            "credentials": {"file_path": str(path)},
                        }
                    },
                    "apps": {_ALIAS: {"models": [_MODELS], "default_connection": _ALIAS}},
                },
                _enable_global_fallback=True,
            )
        cls.context = context
        cls.stores += 1

    @classmethod
    async def leave(cls) -> None:
        cls.stores -= 1
        if not cls.stores and cls.context is not None:
            context, cls.context = cls.context, None
            await context.close_connections()


class Statement:
    """A query written with the models, turned into SQL once; values are bound in the order of its filters.

    To build a query takes Tortoise ten times as long as SQLite needs to answer it.
    """

    def __init__(self, build: Callable[[], ValuesListQuery[Any]]) -> None:
        self._build = build
        self._sql: str | None = None

    @property
    def sql(self) -> str:
        """The SQL with a ``?`` for each value."""
        if self._sql is None:
            self._sql = self._build().sql(params_inline=False)
        return self._sql


class Reader:
    """A store's connection for reads: one query at a time, in a thread of its own."""

    def __init__(self, client: SqliteClient) -> None:
        self._client = client
        self._open = True

    @classmethod
    async def open(cls, path: Path) -> Reader:
        """Connect; the file must have its tables."""
        await _Schema.enter(path)
        client = SqliteClient(str(path), connection_name=_ALIAS, **READ_PRAGMAS)
        try:
            await client.create_connection(with_db=True)
        except BaseException:
            # Half made it has a thread already, which would keep the process from ending.
            await asyncio.shield(client.close())
            await _Schema.leave()
            raise
        return cls(client)

    async def close(self) -> None:
        """Close the connection, and with the last store what Tortoise knows."""
        if self._open:
            self._open = False
            await asyncio.shield(self._client.close())
            await _Schema.leave()

    async def rows(self, statement: Statement, *values: Any) -> Sequence[sqlite3.Row]:
        """Run a statement.

        Raises:
            Unavailable: the store is closed, or the file cannot be read.
        """
        return await self._rows(statement.sql, values)

    async def rows_of_each(
        self, statement: Statement, several: Sequence[Sequence[Any]]
    ) -> Sequence[sqlite3.Row]:
        """Run a statement with each of several lists of values, all as of one moment.

        Of queries one after the other, what moves in between from a later one's rows to an earlier one's is
        seen by none.

        Raises:
            Unavailable: see :meth:`rows`.
        """
        sql = " UNION ALL ".join([f"SELECT * FROM ({statement.sql})"] * len(several))
        return await self._rows(sql, [value for values in several for value in values])

    async def _rows(self, sql: str, values: Sequence[Any]) -> Sequence[sqlite3.Row]:
        if not self._open:
            raise Unavailable("The coordinator is stopping.", "Try again in a moment.", reason="stopping")
        try:
            _, rows = await self._client.execute_query(sql, list(values))
        except (sqlite3.ProgrammingError, sqlite3.InterfaceError):
            raise
        except (OperationalError, sqlite3.Error) as error:
            raise Unavailable(
                f"The coordinator cannot read its database ({error}).",
                "Its operator has to look at the disk.",
                reason="store_failed",
            ) from None
        found: Sequence[sqlite3.Row] = rows
        return found


_Build = Callable[[list[int]], ValuesListQuery[Any]]


class ById:
    """A query for a set of ids, in as few shapes as there are powers of two."""

    def __init__(self, build: _Build) -> None:
        self._build = build
        self._statements: dict[int, Statement] = {}

    async def rows(self, reader: Reader, ids: Iterable[int]) -> list[Any]:
        found: list[Any] = []
        wanted = sorted({bounded(value) for value in ids if value > 0})
        for at in range(0, len(wanted), MAX_IN):
            part = wanted[at : at + MAX_IN]
            size = 1 << (len(part) - 1).bit_length()
            if size not in self._statements:
                places = list(range(size))
                self._statements[size] = Statement(lambda places=places: self._build(places))  # type: ignore[misc]
            # No row has id 0.
            found += await reader.rows(self._statements[size], *part, *[0] * (size - len(part)))
        return found
