"""A small coordinator on a real socket, a sandbox that runs scripts of the test, and workers between them."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from aiohttp import WSMsgType, web

from gridx.clock import SystemClock
from gridx.config import Settings, WorkerSettings
from gridx.errors import (
    Conflict,
    Forbidden,
    GridError,
    InvalidField,
    NotFound,
    Unauthenticated,
)
from gridx.messages import (
    Ack,
    Assign,
    Assignment,
    BlobState,
    CoordinatorFrame,
    ErrorBody,
    ErrorReply,
    Finished,
    Health,
    Hello,
    InputFile,
    Login,
    Output,
    Register,
    Rejected,
    Renewed,
    Resume,
    Runtime,
    Sample,
    Session,
    StreamOffsets,
    User,
    Welcome,
    WorkerFrame,
    decode,
    decode_worker_frames,
    encode,
)
from gridx.services.worker.agent import Agent
from gridx.services.worker.sandbox.base import (
    OutputSink,
    RunOutcome,
    RunRequest,
    SandboxStatus,
    StartedHook,
)
from gridx.services.worker.sightings import Sensors

RUNTIME = Runtime(name="default", python="3.11", languages=["python"])


# -- the other side ----------------------------------------------------------------------------------------


@dataclass
class Grid:
    """A coordinator reduced to what a worker sees of it; what it stores outlives its connections."""

    users: dict[str, str] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)
    registration: str = "open"
    heartbeat_s: float = 0.2
    lease_s: float = 60.0
    renews: bool = True
    acks: bool = True
    mismatch: bool = False
    url: str = ""
    ws_url: str = ""
    hellos: list[Hello] = field(default_factory=list)
    frames: list[WorkerFrame] = field(default_factory=list)
    stored: dict[tuple[int, str], bytearray] = field(default_factory=lambda: defaultdict(bytearray))
    gaps: int = 0
    finished: dict[int, list[Finished]] = field(default_factory=lambda: defaultdict(list))
    over: set[int] = field(default_factory=set)
    """Attempts that are no longer current."""
    sockets: list[web.WebSocketResponse] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    inputs: dict[str, bytes] = field(default_factory=dict)
    """By SHA-256."""
    ranges: list[str] = field(default_factory=list)
    """What was asked of them, one entry a request."""
    cut_after: int | None = None
    """The next request's body, either way, breaks off after so many bytes."""
    stand_still: bool = False
    """Inputs begin to come and then do not."""
    blobs: dict[str, bytearray] = field(default_factory=dict)
    """What workers sent, by SHA-256; whole or not."""
    refuse_file: GridError | None = None
    _runner: web.AppRunner | None = None
    _port: int = 0

    async def start(self) -> None:
        app = web.Application(client_max_size=1 << 30)
        app.router.add_post("/auth/register", self._register)
        app.router.add_post("/auth/login", self._login)
        app.router.add_get("/auth/me", self._me)
        app.router.add_get("/health", self._health)
        app.router.add_get("/ws/worker", self._channel)
        app.router.add_get("/attempts/{id}/inputs/{sha256}", self._input)
        app.router.add_head("/attempts/{id}/files/{sha256}", self._have)
        app.router.add_put("/attempts/{id}/files/{sha256}", self._put)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port)
        await site.start()
        self._port = self._runner.addresses[0][1]
        self.url, self.ws_url = f"http://127.0.0.1:{self._port}", f"ws://127.0.0.1:{self._port}"

    async def stop(self) -> None:
        self.cut()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def cut(self) -> None:
        """Break every connection without a word."""
        for ws in self.sockets:
            transport = ws._req.transport if ws._req else None
            if transport is not None:
                transport.abort()
        self.sockets.clear()

    async def send(self, *frames: CoordinatorFrame) -> None:
        await self.sockets[-1].send_str(encode(list(frames)).decode())

    async def assign(self, *attempt_ids: int, **changes: object) -> None:
        """Assign small attempts of ann's that differ from each other by their ids."""
        await self.send(Assign(attempts=[_assignment(id, **changes) for id in attempt_ids]))

    def about(self, attempt_id: int) -> list[WorkerFrame]:
        """What the worker said of one attempt, in order."""
        return [frame for frame in self.frames if getattr(frame, "attempt_id", None) == attempt_id]

    def of(self, kind: type) -> list:
        return [frame for frame in self.frames if isinstance(frame, kind)]

    def output(self, attempt_id: int, stream: str = "stdout") -> bytes:
        return bytes(self.stored[attempt_id, stream])

    # HTTP

    def _session(self, user: str) -> web.Response:
        token = f"token-{len(self.tokens)}"
        self.tokens[token] = user
        now = datetime.now(UTC)
        body = Session(token=token, expires_at=now + timedelta(days=1), user=_user(user))
        return web.Response(body=encode(body), content_type="application/json")

    async def _register(self, request: web.Request) -> web.Response:
        self.asked.append("register")
        try:
            body = decode(await request.read(), Register)
        except GridError as error:
            return _error(error)
        if self.registration == "closed":
            return _error(Forbidden("Registration is closed here.", "Ask the administrator."))
        if body.username.lower() in self.users:
            return _error(Conflict("The name is taken."))
        self.users[body.username.lower()] = body.password
        return self._session(body.username)

    async def _login(self, request: web.Request) -> web.Response:
        self.asked.append("login")
        body = decode(await request.read(), Login)
        if self.users.get(body.username.lower()) != body.password:
            return _error(Unauthenticated("Wrong name or password."))
        return self._session(body.username)

    async def _me(self, request: web.Request) -> web.Response:
        user = self._caller(request)
        if user is None:
            return _error(Unauthenticated("Not signed in."))
        return web.Response(body=encode(_user(user)), content_type="application/json")

    async def _health(self, request: web.Request) -> web.Response:
        body = Health(status="ok", version="9.9.9", protocol=99)
        return web.Response(body=encode(body), content_type="application/json")

    # files

    async def _input(self, request: web.Request) -> web.StreamResponse:
        data = self.inputs.get(request.match_info["sha256"])
        if self._caller(request) is None or data is None:
            return _error(NotFound("There is no such attempt here, or it is over."))
        wanted = request.headers.get("Range", "")
        self.ranges.append(wanted)
        offset = int(wanted.removeprefix("bytes=").removesuffix("-") or 0)
        response = web.StreamResponse(status=206 if wanted else 200)
        response.content_length = len(data) - offset
        await response.prepare(request)
        cut, self.cut_after = self.cut_after, None
        await response.write(data[offset:][:cut])
        if self.stand_still:
            await asyncio.Event().wait()
        if cut is not None:
            request.transport.abort()
        return response

    async def _have(self, request: web.Request) -> web.Response:
        sha256 = request.match_info["sha256"]
        have = self.blobs.get(sha256, b"")
        if self._caller(request) is None or int(request.match_info["id"]) in self.over:
            return web.Response(status=404)
        whole = hashlib.sha256(have).hexdigest() == sha256
        return web.Response(status=200 if whole else 404, headers={"Gridx-Offset": str(len(have))})

    async def _put(self, request: web.Request) -> web.Response:
        sha256, size = request.match_info["sha256"], int(request.query["size"])
        if self._caller(request) is None or int(request.match_info["id"]) in self.over:
            return _error(NotFound("There is no such attempt here, or it is over."))
        if self.refuse_file is not None:
            return _error(self.refuse_file)
        have = self.blobs.setdefault(sha256, bytearray())
        if int(request.query["offset"]) != len(have):
            return _error(Conflict("Another place.", offset=len(have)))
        self.asked.append("put")
        cut, self.cut_after = self.cut_after, None
        async for piece in request.content.iter_any():
            have += piece
            if cut is not None and len(have) >= cut:
                request.transport.abort()
                return web.Response()
        whole = len(have) == size
        if whole and hashlib.sha256(have).hexdigest() != sha256:
            del self.blobs[sha256]
            return _error(InvalidField("sha256: the file has another.", field="sha256"))
        state = BlobState(sha256=sha256, size=size, offset=len(have), complete=whole)
        return web.Response(body=encode(state), content_type="application/json")

    def _caller(self, request: web.Request) -> str | None:
        return self.tokens.get(request.headers.get("Authorization", "").removeprefix("Bearer "))

    # the channel

    async def _channel(self, request: web.Request) -> web.StreamResponse:
        user = self._caller(request)
        if user is None:
            return _error(Unauthenticated("Not signed in."))
        ws = web.WebSocketResponse(max_msg_size=4 << 20)
        await ws.prepare(request)
        self.sockets.append(ws)
        with suppress(ConnectionError):
            async for message in ws:
                assert message.type is WSMsgType.TEXT
                for frame in decode_worker_frames(message.data):
                    await self._take(ws, user, frame)
        return ws

    async def _take(self, ws: web.WebSocketResponse, user: str, frame: WorkerFrame) -> None:
        self.frames.append(frame)
        reply: list[CoordinatorFrame] = []
        match frame:
            case Hello():
                self.hellos.append(frame)
                if self.mismatch:
                    reply.append(Rejected(code="protocol_mismatch", message="Another protocol."))
                else:
                    reply.append(self._welcome(user, frame))
            case Sample():
                if self.renews:
                    reply.append(Renewed(seq=frame.seq))
            case Output():
                have = self.stored[frame.attempt_id, frame.stream]
                if frame.offset > len(have):
                    self.gaps += 1
                else:
                    have += frame.data[len(have) - frame.offset :]
            case Finished():
                self.finished[frame.attempt_id].append(frame)
                if self.acks:
                    reply.append(Ack(attempt_ids=[frame.attempt_id]))
        if reply:
            await ws.send_str(encode(reply).decode())
        if self.mismatch:
            await ws.close()

    def _welcome(self, user: str, hello: Hello) -> Welcome:
        resume = [
            Resume(
                attempt_id=id,
                current=id not in self.over,
                offsets=StreamOffsets(stdout=len(self.output(id)), stderr=len(self.output(id, "stderr"))),
            )
            for id in [*hello.running, *hello.spooled]
        ]
        return Welcome(
            worker_id=7, owner=user, heartbeat_s=self.heartbeat_s, lease_s=self.lease_s, resume=resume
        )


def _user(name: str) -> User:
    return User(id=1, username=name, role="user", created_at=datetime.now(UTC))


def _error(error: GridError) -> web.Response:
    body = ErrorReply(
        error=ErrorBody(code=error.code, message=error.message, hint=error.hint, details=error.details)
    )
    return web.Response(status=error.status, body=encode(body), content_type="application/json")


# -- the machine -------------------------------------------------------------------------------------------

Script = Callable[[RunRequest, OutputSink, asyncio.Event], Awaitable[RunOutcome]]


async def _hello_world(request: RunRequest, sink: OutputSink, cancel: asyncio.Event) -> RunOutcome:
    await sink("stdout", f"hello {request.job_id}\n".encode())
    return RunOutcome("succeeded", exit_code=0, wall_ms=5)


async def _until_cancelled(request: RunRequest, sink: OutputSink, cancel: asyncio.Event) -> RunOutcome:
    await sink("stdout", b"waiting\n")
    await cancel.wait()
    return RunOutcome("cancelled", wall_ms=5)


class FakeSandbox:
    """Runs scripts of the test in place of programs; knows what is inside."""

    until_cancelled = staticmethod(_until_cancelled)

    def __init__(self) -> None:
        self.script: Script = _hello_world
        self.kind, self.isolated = "docker", True
        self.inside: set[int] = set()
        self.asked: list[RunRequest] = []
        self.most_inside = 0
        self.destroyed: list[int] = []
        self.unready = ""
        self.unfit_because = ""
        self.opened = self.closed = False
        self.runtimes = (RUNTIME,)

    async def open(self) -> None:
        self.opened = True

    async def status(self) -> SandboxStatus:
        return SandboxStatus(self.kind, self.isolated, self.runtimes, unready=self.unready)

    def unfit(self, inputs: Sequence[InputFile], memory_mb: int) -> str:
        return self.unfit_because

    async def run(
        self, request: RunRequest, sink: OutputSink, started: StartedHook, cancel: asyncio.Event
    ) -> RunOutcome:
        self.asked.append(request)
        self.inside.add(request.attempt_id)
        self.most_inside = max(self.most_inside, len(self.inside))
        try:
            await started()
            return await self.script(request, sink, cancel)
        except asyncio.CancelledError:
            self.destroyed.append(request.attempt_id)
            raise
        finally:
            self.inside.discard(request.attempt_id)

    async def sweep(self) -> int:
        return 0

    async def close(self) -> None:
        self.closed = True


class TurnedClock(SystemClock):
    """The machine's clock, which a test may turn forward."""

    ahead_s = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead_s


def _assignment(attempt_id: int, **changes: object) -> Assignment:
    plain = Assignment(
        attempt_id=attempt_id,
        job_id=attempt_id + 100,
        number=1,
        owner="ann",
        name="",
        code="print('hello')",
        language="python",
        args=[],
        env={},
        cpu_millis=100,
        memory_mb=32,
        gpus=[],
        timeout_s=60,
        runtime="default",
        output_cap_bytes=1 << 20,
    )
    return msgspec.structs.replace(plain, **changes)


@pytest.fixture
async def grid() -> AsyncIterator[Grid]:
    grid = Grid()
    await grid.start()
    yield grid
    await grid.stop()


@pytest.fixture
def sandbox() -> FakeSandbox:
    return FakeSandbox()


@pytest.fixture
def clock() -> TurnedClock:
    return TurnedClock()


@pytest.fixture
def spool(tmp_path: Path) -> Callable[[], list[str]]:
    """Names of the files in the worker's spool."""
    return lambda: sorted(path.name for path in (tmp_path / "data" / "spool").iterdir())


@pytest.fixture
def settings(grid: Grid, tmp_path: Path, monkeypatch) -> Callable[..., Settings]:
    """Settings of a worker of the user ann on this grid."""
    monkeypatch.setenv("GRIDX_HOME", str(tmp_path / "home"))
    return lambda *, data="data", **changes: _settings_of(grid, tmp_path / data, **changes)


@pytest.fixture
async def join(
    settings: Callable[..., Settings], sandbox: FakeSandbox, clock: TurnedClock, monkeypatch
) -> AsyncIterator[Callable[..., Awaitable[Agent]]]:
    """Starts workers of the user ann; stops what a test left running."""
    monkeypatch.setattr("gridx.services.worker.agent.LAST_WORDS_S", 0.2)
    monkeypatch.setattr("gridx.services.worker.lookout.LOOK_S", 0.05)
    monkeypatch.setattr("gridx.services.worker.lookout.LOOK_UNREADY_S", 0.05)
    monkeypatch.setattr("gridx.services.worker.steering.WATCH_S", 0.05)
    agents: list[Agent] = []

    async def start(
        *,
        password: str | None = "correct horse",
        token: str | None = None,
        sensors: Sensors | None = None,
        **changes,
    ) -> Agent:
        agent = Agent(
            settings(**changes),
            token=token,
            password=lambda new: password,
            sandbox=sandbox,
            clock=clock,
            rng=random.Random(1),
            sensors=sensors,
        )
        agents.append(agent)
        await agent.start()
        return agent

    yield start
    for agent in agents:
        await agent.stop(drain=False)


def _settings_of(grid: Grid, data: Path, **changes: object) -> Settings:
    worker = WorkerSettings(
        **{
            "user": "ann",
            "name": "one",
            "coordinator_http": grid.url,
            "coordinator_ws": grid.ws_url,
            "cpus": 1.0,
            "memory_mb": 256,
            **changes,
        }
    )
    return Settings(role="worker", data_dir=str(data), worker=worker)
