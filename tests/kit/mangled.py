"""A line that brings messages twice, late and out of order; a real one does so only over a reconnect."""

from __future__ import annotations

import asyncio
import contextlib
import random
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web


@dataclass
class Mangled:
    """A proxy of the workers' WebSocket. The hello and the welcome go first and once.

    Attributes:
        share: how many of the messages something is done to, from 0 to 1.
        most: after so many it brings everything as it should.
        done: to how many something was done, by what.
    """

    target: str
    rng: random.Random
    share: float = 0.3
    most: int = 100
    url: str = ""
    done: dict[str, int] = field(default_factory=lambda: {"twice": 0, "late": 0, "again": 0})
    _runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application()
        app.router.add_get("/ws/worker", self._serve)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"ws://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        await self._runner.cleanup()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        near = web.WebSocketResponse(max_msg_size=16 << 20)
        await near.prepare(request)
        headers = {"Authorization": request.headers["Authorization"]}
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(self.target, headers=headers, max_msg_size=16 << 20) as far,
        ):
            pumps = [asyncio.create_task(self._pump(near, far)), asyncio.create_task(self._pump(far, near))]
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            await near.close()
        return near

    async def _pump(self, source, sink) -> None:
        # The hello and the welcome.
        await sink.send_str(await source.receive_str())
        late: list[str] = []
        past: list[str] = []
        with contextlib.suppress(ConnectionError):
            async for message in source:
                if message.type is not aiohttp.WSMsgType.TEXT:
                    return
                what = self._what()
                if what == "late":
                    late.append(message.data)
                    continue
                await sink.send_str(message.data)
                if what == "twice":
                    await sink.send_str(message.data)
                elif what == "again" and past:
                    await sink.send_str(self.rng.choice(past))
                while late:
                    await sink.send_str(late.pop(0))
                past = [*past[-20:], message.data]

    def _what(self) -> str:
        if sum(self.done.values()) >= self.most or self.rng.random() > self.share:
            return ""
        what = self.rng.choice(list(self.done))
        self.done[what] += 1
        return what
