"""A real coordinator in the test's process, people who speak HTTP to it, and a worker that a test plays."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from gridx import config, messages
from gridx.messages import (
    PROTOCOL_VERSION,
    Ack,
    Assign,
    Assignment,
    Cancel,
    CoordinatorFrame,
    Finished,
    Frame,
    Hello,
    Offer,
    Output,
    Runtime,
    Started,
    Welcome,
)
from gridx.services.coordinator.app import Coordinator

PASSWORD = "correct horse"


@dataclass
class Answer:
    """A whole HTTP answer."""

    status: int
    headers: Any
    content: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.content)

    @property
    def error(self) -> dict[str, Any]:
        """The inside of the one error shape; fails for anything else."""
        body = self.json
        assert set(body) == {"error"}, body
        assert {"code", "message", "hint"} <= set(body["error"]), body
        assert "Traceback" not in self.content.decode()
        return body["error"]


@dataclass
class Person:
    """Somebody who speaks HTTP to the coordinator; without a token, a stranger."""

    url: str
    session: aiohttp.ClientSession
    name: str = ""
    token: str = ""
    password: str = ""

    @property
    def headers(self) -> dict[str, str]:
        if self.password:
            return {"Authorization": aiohttp.encode_basic_auth(self.name, self.password)}
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    async def ask(self, method: str, path: str, body: Any = None, **more: Any) -> Answer:
        data = body if isinstance(body, bytes | type(None)) else msgspec.json.encode(body)
        headers = self.headers | more.pop("headers", {})
        async with self.session.request(
            method, self.url + path, data=data, headers=headers, **more
        ) as answer:
            return Answer(answer.status, answer.headers, await answer.read())

    async def get(self, path: str, **more: Any) -> Answer:
        return await self.ask("GET", path, **more)

    async def post(self, path: str, body: Any = None, **more: Any) -> Answer:
        return await self.ask("POST", path, body, **more)

    async def submit(self, code: str = "print(1)", **fields: Any) -> int:
        answer = await self.post("/jobs", {"code": code, "timeout_s": 60, "memory_mb": 64, **fields})
        assert answer.status == 201, answer.content
        return answer.json["id"]


@dataclass
class PlayedWorker:
    """A worker at the other end of a real WebSocket; the test decides what it does."""

    socket: aiohttp.ClientWebSocketResponse
    welcome: Welcome
    frames: list[CoordinatorFrame] = field(default_factory=list)

    async def send(self, *frames: Frame) -> None:
        await self.socket.send_str(messages.encode(frames).decode())

    async def receive(self, *kinds: type[Frame]) -> Any:
        """The next frame of these kinds; others are passed over."""
        while True:
            for frame in self.frames:
                if isinstance(frame, kinds):
                    self.frames.remove(frame)
                    return frame
            data = await self.socket.receive_str(timeout=30)
            self.frames.extend(messages.decode_coordinator_frames(data))

    async def assignment(self) -> Assignment:
        """The next attempt that it is given."""
        return (await self.receive(Assign)).attempts[0]

    async def start(self, attempt_id: int) -> None:
        await self.send(Started(attempt_id=attempt_id, runtime="default"))

    async def write(self, attempt_id: int, data: bytes, offset: int = 0, stream: Any = "stdout") -> None:
        await self.send(Output(attempt_id=attempt_id, stream=stream, offset=offset, data=data))

    async def finish(self, attempt_id: int, outcome: Any = "succeeded", **fields: Any) -> None:
        """Hand in the result and wait until it is acknowledged."""
        await self.send(Finished(attempt_id=attempt_id, outcome=outcome, **{"wall_ms": 10, **fields}))
        while attempt_id not in (await self.receive(Ack)).attempt_ids:
            pass

    async def cancelled(self) -> list[int]:
        """The attempts that it is told to kill next."""
        return (await self.receive(Cancel)).attempt_ids


@dataclass
class Grid:
    """A running coordinator and everybody who was connected to it."""

    coordinator: Coordinator
    settings: config.Settings
    session: aiohttp.ClientSession

    @property
    def url(self) -> str:
        return self.coordinator.http_url

    @property
    def stranger(self) -> Person:
        return Person(self.url, self.session)

    @property
    def admin(self) -> Person:
        assert self.coordinator.first_admin is not None
        name, password = self.coordinator.first_admin
        return Person(self.url, self.session, name, password=password)

    async def person(self, name: str) -> Person:
        """A new user, signed in."""
        answer = await self.stranger.post("/auth/register", {"username": name, "password": PASSWORD})
        assert answer.status == 201, answer.content
        return Person(self.url, self.session, name, answer.json["token"])

    async def worker(
        self,
        owner: Person,
        *,
        identity: str = "a" * 32,
        running: Iterable[int] = (),
        spooled: Iterable[int] = (),
        **offer: Any,
    ) -> PlayedWorker:
        """A worker of a user that has said hello and was welcomed."""
        socket = await self.session.ws_connect(self.coordinator.ws_url, headers=owner.headers)
        hello = Hello(
            protocol=PROTOCOL_VERSION,
            version="0",
            identity=identity,
            name=f"{owner.name}-machine",
            running=list(running),
            spooled=list(spooled),
            offer=Offer(
                **{
                    "cpu_millis": 4000,
                    "memory_mb": 4096,
                    "runtimes": [Runtime(name="default", python="3.11", languages=["python"])],
                    **offer,
                }
            ),
        )
        await socket.send_str(messages.encode([hello]).decode())
        frames = messages.decode_coordinator_frames(await socket.receive_str(timeout=30))
        assert isinstance(frames[0], Welcome), frames
        return PlayedWorker(socket, frames[0], frames[1:])


StartGrid = Callable[..., Awaitable[Grid]]


@pytest.fixture
async def start_grid(tmp_path: Path) -> AsyncIterator[StartGrid]:
    """``await start_grid(auth={"registration": "closed"})``: a coordinator with settings of its own."""
    async with AsyncExitStack() as stack:

        async def start(
            *, folder: str = "grid", role: str = "coordinator", **sections: dict[str, Any]
        ) -> Grid:
            flags: dict[tuple[str, ...], Any] = {
                ("role",): role,
                ("data_dir",): str(tmp_path / folder),
                ("coordinator", "host"): "127.0.0.1",
                ("coordinator", "http_port"): 0,
                ("coordinator", "ws_port"): 0,
                ("auth", "hash_memory_mb"): 8,
            }
            for section, values in sections.items():
                flags.update({(section, key): value for key, value in values.items()})
            settings = config.load(None, {"GRIDX_CONFIG": os.devnull}, flags)
            coordinator = Coordinator(settings)
            await coordinator.start()
            stack.push_async_callback(coordinator.stop)
            session = await stack.enter_async_context(
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60))
            )
            return Grid(coordinator, settings, session)

        yield start


@pytest.fixture
async def grid(start_grid: StartGrid) -> Grid:
    """A coordinator with the default settings, on free ports, with fast hashes."""
    return await start_grid()
