"""What attackers send: raw bytes from any address of this machine; and others, who are served meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import psutil


def allow_sockets(count: int) -> None:
    """Let this process have that many sockets."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(hard, count + 512) if hard != resource.RLIM_INFINITY else count + 512
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@dataclass
class Raw:
    """One connection, byte by byte."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def rest(self) -> bytes:
        """All that comes until the other side closes."""
        with contextlib.suppress(ConnectionError):
            return await self.reader.read()
        return b""

    async def drip(self, piece: bytes) -> None:
        """Send a piece each second until the other side closes."""
        with contextlib.suppress(ConnectionError):
            while True:
                await asyncio.sleep(1)
                await self.send(piece)

    def close(self) -> None:
        self.writer.transport.abort()


async def connect(port: int, source: str = "127.0.0.2", **tls: Any) -> Raw:
    """Connect from an address of loopback, of which there are many."""
    return Raw(*await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0), **tls))


async def exchange(port: int, sent: bytes, source: str = "127.0.0.2") -> bytes:
    """What is answered to bytes, until the other side closes."""
    raw = await connect(port, source)
    try:
        with contextlib.suppress(ConnectionError):
            await raw.send(sent)
        return await raw.rest()
    finally:
        raw.close()


def session_from(source: str) -> aiohttp.ClientSession:
    """A session of HTTP whose connections come from an address."""
    connector = aiohttp.TCPConnector(local_addr=(source, 0), limit=0)
    return aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=120))


def error_of(body: bytes) -> dict[str, Any]:
    """The inside of the one shape that errors have; fails for anything else."""
    told = json.loads(body)
    assert set(told) == {"error"}, told
    assert {"code", "message", "hint"} <= set(told["error"]), told
    assert told["error"]["message"].endswith("."), told
    assert b"Traceback" not in body
    assert b'File "' not in body
    return told["error"]


def resident_mb(node: Any) -> float:
    """What a process of the grid has in memory."""
    return psutil.Process(node.process.pid).memory_info().rss / (1 << 20)


@dataclass
class Others:
    """People who use the grid while it is attacked: how often they were answered, and how it went."""

    answered: int = 0
    problems: list[str] = field(default_factory=list)

    async def ask(self, url: str, token: str) -> None:
        headers = {"Authorization": f"Bearer {token}"}
        async with session_from("127.9.9.9") as session:
            while True:
                for path in ("/health", "/jobs?limit=1"):
                    try:
                        async with session.get(url + path, headers=headers) as answer:
                            if answer.status != 200:
                                self.problems.append(f"{path}: {answer.status}")
                    except (aiohttp.ClientError, TimeoutError) as error:
                        self.problems.append(f"{path}: {error!r}")
                    self.answered += 1
                await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def others_are_served(url: str, token: str) -> AsyncIterator[Others]:
    """Somebody at another address asks again and again while the block runs, and is answered each time."""
    others = Others()
    asking = asyncio.create_task(others.ask(url, token))
    try:
        yield others
        seen = others.answered
        while others.answered < seen + 4 and not asking.done():
            await asyncio.sleep(0.01)
        assert not others.problems, others.problems[:5]
    finally:
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
