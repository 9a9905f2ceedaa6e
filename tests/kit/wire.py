"""A socket in front of the container engine that a test cuts or freezes: an engine that stops or hangs."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from pathlib import Path


class Wire:
    """A socket in front of the engine that can be cut or frozen."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / f"{secrets.token_hex(4)}.sock")
        self._pairs: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._flows = asyncio.Event()
        self._flows.set()

    async def __aenter__(self) -> Wire:
        await self.mend()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._flows.set()
        await self.cut()
        await asyncio.wait_for(asyncio.gather(*self._tasks, return_exceptions=True), 30)

    async def mend(self) -> None:
        self._flows.set()
        self._server = await asyncio.start_unix_server(self._serve, self.path)

    async def cut(self) -> None:
        """As a stopped engine: nothing listens, connections end."""
        self._server.close()
        for writer in list(self._pairs):
            writer.close()
        Path(self.path).unlink(missing_ok=True)

    def freeze(self) -> None:
        """As an engine that hangs: connections are taken, nothing comes back."""
        self._flows.clear()

    def thaw(self) -> None:
        self._flows.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_unix_connection("/var/run/docker.sock")
        pair = {writer, up_writer}
        self._pairs |= pair
        self._tasks.add(asyncio.current_task())

        async def pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError):
                while data := await source.read(65536):
                    await self._flows.wait()
                    target.write(data)
                    await target.drain()
                if target.can_write_eof():
                    target.write_eof()

        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(pump(reader, up_writer), pump(up_reader, writer))
        for each in pair:
            each.close()
        self._pairs -= pair
