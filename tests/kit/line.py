"""A line between a worker and its coordinator that a test cuts, slows down, or stops in one direction."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

Direction = Literal["up", "down"]


@dataclass
class Line:
    """A TCP proxy to a coordinator's workers' port. *Up* is from the worker to the coordinator.

    Attributes:
        cut_after: draws how many bytes a connection lives; None: as long as its ends want.
        bytes_per_s: of each direction; None: as fast as it goes.
        delay_s: draws the delay of each piece.
        swallows: take everything and pass nothing on.
        refuses: end every new connection at once.
    """

    port: int
    cut_after: Callable[[], int] | None = None
    bytes_per_s: float | None = None
    delay_s: Callable[[], float] | None = None
    swallows: bool = False
    refuses: bool = False
    connections: int = 0
    url: str = ""
    _passes: dict[Direction, asyncio.Event] = field(default_factory=dict)
    _server: asyncio.Server | None = None
    _tasks: set[asyncio.Task] = field(default_factory=set)
    _ends: set[asyncio.StreamWriter] = field(default_factory=set)

    async def start(self) -> None:
        self._passes = {"up": asyncio.Event(), "down": asyncio.Event()}
        self.heal()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"ws://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def hold(self, *directions: Direction) -> None:
        """Let nothing through for now; as where packets are lost, what is sent arrives when it heals."""
        for direction in directions:
            self._passes[direction].clear()

    def heal(self) -> None:
        """Let everything through again."""
        self.refuses = False
        for passes in self._passes.values():
            passes.set()

    def reset(self) -> None:
        """Break every connection at once, and refuse new ones until it heals."""
        self.refuses = True
        for end in self._ends:
            end.transport.abort()

    async def _serve(self, reader, writer) -> None:
        self._tasks.add(asyncio.current_task())
        self.connections += 1
        if self.refuses:
            writer.transport.abort()
            return
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self.port)
        ends = {writer, there_writer}
        self._ends |= ends
        left = [self.cut_after() if self.cut_after else 1 << 60]
        pumps = {
            asyncio.create_task(self._pump("up", reader, there_writer, left)),
            asyncio.create_task(self._pump("down", there_reader, writer, left)),
        }
        self._tasks |= pumps
        try:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            for end in ends:
                end.transport.abort()
            self._ends -= ends

    async def _pump(self, direction: Direction, reader, writer, left) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(16 << 10):
                if self.swallows:
                    continue
                await self._passes[direction].wait()
                if self.delay_s is not None:
                    await asyncio.sleep(self.delay_s())
                if self.bytes_per_s is not None:
                    await asyncio.sleep(len(data) / self.bytes_per_s)
                writer.write(data[: left[0]])
                left[0] -= len(data)
                if left[0] <= 0:
                    return
                await writer.drain()
            # That one end is gone is news which a line that is held does not bring either.
            await self._passes[direction].wait()
