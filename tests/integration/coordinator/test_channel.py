"""The workers' WebSocket on a real server: who gets in, what is refused, and that others are served."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging

import aiohttp
import pytest
from aiohttp import web

from gridx import messages
from gridx.errors import GridError
from gridx.messages import (
    MAX_FRAME_BYTES,
    PROTOCOL_VERSION,
    Assign,
    Cancel,
    Drain,
    Finished,
    Hello,
    JobState,
    Rejected,
    Renewed,
    Sample,
    Started,
    Welcome,
)
from gridx.services.coordinator import channel
from gridx.services.coordinator.channel import Channel

IDENTITY = "ab" * 16


class Wire:
    """A worker's end of a connection."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.frames: list = []
        self.close_code: int | None = None

    async def send(self, *frames) -> None:
        await self.socket.send_str(messages.encode(list(frames)).decode())

    async def next(self, kind: type):
        """The next frame of a kind; those of other kinds before it are kept aside."""
        async with asyncio.timeout(30):
            while True:
                for index, frame in enumerate(self.frames):
                    if isinstance(frame, kind):
                        return self.frames.pop(index)
                if not await self.read():
                    pytest.fail(
                        f"the connection was closed ({self.close_code}) before a {kind.__name__} came"
                    )

    async def read(self) -> bool:
        message = await self.socket.receive()
        if message.type is not aiohttp.WSMsgType.TEXT:
            self.close_code = self.socket.close_code
            return False
        self.frames += messages.decode_coordinator_frames(message.data)
        return True

    async def closed(self) -> int | None:
        """Wait until the other side has closed."""
        async with asyncio.timeout(30):
            while await self.read():
                pass
        return self.close_code

    def rejections(self) -> list[Rejected]:
        return [frame for frame in self.frames if isinstance(frame, Rejected)]


@pytest.fixture
async def server(engine, ann):
    """A real server whose every caller is ann; returns the address and the channel."""
    served = Channel(engine.jobs, engine.fleet, engine.store, engine.settings, engine.clock)

    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            return await served.handle(request, ann)
        except GridError as error:
            return web.Response(status=error.status, text=error.message)

    app = web.Application()
    app.router.add_get("/ws/worker", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    yield f"ws://127.0.0.1:{port}/ws/worker", served
    await served.close()
    await runner.cleanup()


@pytest.fixture
async def connect(server):
    async with aiohttp.ClientSession() as session:

        async def open(**options) -> Wire:
            return Wire(await session.ws_connect(server[0], max_msg_size=0, **options))

        yield open


@pytest.fixture
def hello(make_offer):
    def make(**fields) -> Hello:
        return Hello(
            **{
                "protocol": PROTOCOL_VERSION,
                "version": "1.0",
                "identity": IDENTITY,
                "name": "box",
                "offer": make_offer(),
                **fields,
            }
        )

    return make


async def test_a_worker_joins_runs_a_job_and_leaves(engine, ann, connect, hello, caplog):
    caplog.set_level(logging.INFO, "gridx.coordinator")
    wire = await connect()
    await wire.send(hello(), Sample(seq=1, attempts=[]))
    welcome = await wire.next(Welcome)
    assert (welcome.owner, welcome.lease_s) == ("ann", 90.0)
    assert (await wire.next(Renewed)).seq == 1
    assert f"worker {welcome.worker_id} authenticated (owner: ann)" in caplog.text

    job = await engine.submit(ann)
    [attempt] = (await wire.next(Assign)).attempts
    await wire.send(
        Started(attempt_id=attempt.attempt_id, runtime="default"),
        Finished(attempt_id=attempt.attempt_id, outcome="succeeded", wall_ms=5),
    )
    await engine.state(ann, job.id, JobState.SUCCEEDED)
    await wire.next(messages.Ack)

    await engine.jobs.drain_worker(ann, welcome.worker_id)
    await wire.next(Drain)
    await wire.socket.close()
    await engine.until(
        lambda: engine.fleet.worker(welcome.worker_id).state == "offline", "the worker to be offline"
    )


async def test_the_same_identity_is_the_same_worker_and_the_newer_connection_wins(engine, connect, hello):
    first = await connect()
    await first.send(hello())
    id = (await first.next(Welcome)).worker_id
    second = await connect()
    await second.send(hello())
    assert (await second.next(Welcome)).worker_id == id
    rejected = await first.next(Rejected)
    assert "taken this one's place" in rejected.message
    assert await first.closed() == 1008
    await second.send(Sample(seq=1, attempts=[]))
    await second.next(Renewed)
    assert engine.fleet.worker(id).state == "online"


async def test_another_protocol_is_told_what_to_install(connect, hello):
    wire = await connect()
    await wire.send(hello(protocol=PROTOCOL_VERSION + 1, version="9.9"))
    rejected = await wire.next(Rejected)
    assert rejected.code == "protocol_mismatch"
    assert "Install Grid-X" in rejected.hint
    assert await wire.closed() == 1008


async def test_the_first_frame_must_be_a_hello(connect):
    wire = await connect()
    await wire.send(Sample(seq=1, attempts=[]))
    assert (await wire.next(Rejected)).code == "bad_request"
    assert await wire.closed() == 1003


async def test_who_says_nothing_is_closed(connect, monkeypatch):
    monkeypatch.setattr(channel, "HELLO_S", 0.1)
    wire = await connect()
    assert await wire.closed() == 1008


async def test_a_second_hello_is_a_mistake(connect, hello):
    wire = await connect()
    await wire.send(hello())
    await wire.next(Welcome)
    await wire.send(hello())
    assert "one hello" in (await wire.next(Rejected)).message
    await wire.send(Sample(seq=1, attempts=[]))
    await wire.next(Renewed)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        "nonsense",
        "[" * 100_000,
        '[{"type":"conquer"}]',
        '[{"type":"sample","seq":1}]',
        '[{"type":"sample","seq":1,"attempts":[],"extra":1}]',
        '[{"type":"sample","seq":-1,"attempts":[]}]',
        '[{"type":"sample","seq":NaN,"attempts":[]}]',
        '[{"type":"output","attempt_id":1,"stream":"stdin","offset":0,"data":""}]',
        json.dumps([{"type": "sample", "seq": 1, "attempts": []}] * 257),
    ],
)
async def test_what_is_no_message_is_refused_and_after_a_few_the_connection(connect, hello, text):
    wire = await connect()
    await wire.send(hello())
    await wire.next(Welcome)
    for _ in range(channel.MAX_MISTAKES):
        await wire.socket.send_str(text)
    assert await wire.closed() == 1003
    assert len(wire.rejections()) == channel.MAX_MISTAKES
    assert all(one.code in ("bad_request", "invalid_field") for one in wire.rejections())


async def test_binary_and_bad_utf8_are_refused(connect, hello):
    wire = await connect()
    await wire.send(hello())
    await wire.next(Welcome)
    await wire.socket.send_bytes(b"[]")
    assert "text" in (await wire.next(Rejected)).message
    await wire.socket.send_frame(b'[{"type":"\xff"}]', aiohttp.WSMsgType.TEXT)
    assert (await wire.next(Rejected)).code in ("bad_request", "invalid_field")


@pytest.mark.parametrize(
    "claim",
    [
        {"cpu_millis": 10**9},
        {"memory_mb": 10**12},
        {"cpu_millis": -1},
        {"gpus": [{"uuid": "x" * 97, "name": "", "memory_mb": 1}]},
    ],
)
async def test_claims_past_all_bounds_are_refused(engine, connect, hello, claim):
    wire = await connect()
    frame = json.loads(messages.encode([hello()]))
    frame[0]["offer"].update(claim)
    for _ in range(channel.MAX_MISTAKES):
        await wire.socket.send_str(json.dumps(frame))
    assert await wire.closed() == 1003
    assert engine.fleet.view() == []


async def test_a_name_of_a_megabyte_is_refused(engine, connect, hello):
    wire = await connect()
    await wire.send(hello(name="x" * (1 << 20)))
    assert (await wire.next(Rejected)).code == "invalid_field"
    assert engine.fleet.view() == []


async def test_a_message_over_the_cap_closes(engine, connect, hello):
    wire = await connect()
    await wire.send(hello())
    await wire.next(Welcome)
    # The other side closes at the length in the header; whether the rest still leaves here is a race.
    with contextlib.suppress(ConnectionError):
        await wire.socket.send_str("[" + " " * (MAX_FRAME_BYTES + 1) + "]")
    assert await wire.closed() in (1009, 1006)
    await engine.until(lambda: engine.fleet.online() == 0, "the worker to be offline")


async def test_compression_is_not_spoken_so_there_is_no_bomb(connect):
    wire = await connect(compress=15)
    assert not wire.socket.compress


async def test_too_many_messages_close_and_others_are_served_meanwhile(engine, connect, hello):
    flood, calm = await connect(), await connect()
    await calm.send(hello(identity="cd" * 16))
    await calm.next(Welcome)
    await flood.send(hello())
    await flood.next(Welcome)
    reading = asyncio.create_task(flood.closed())
    text = messages.encode([Sample(seq=1, attempts=[])]).decode()
    sent = 0
    while not reading.done() and sent < 20_000:
        try:
            await flood.socket.send_str(text)
        except ConnectionError:
            break
        sent += 1
        if sent % 1000 == 0:
            await calm.send(Sample(seq=sent, attempts=[]))
            await calm.next(Renewed)
    # The engine's clock stands still: nothing refills the allowance.
    assert await reading == 1008
    assert any(one.code == "too_many" for one in flood.rejections())
    await calm.send(Sample(seq=1, attempts=[]))
    await calm.next(Renewed)


async def test_a_reader_that_stops_reading_is_dropped_and_others_go_on(
    engine, ann, connect, hello, monkeypatch
):
    monkeypatch.setattr(channel, "MAX_PENDING_BYTES", 2 << 20)
    deaf, calm = await connect(), await connect()
    await deaf.send(hello())
    deaf_id = (await deaf.next(Welcome)).worker_id
    await calm.send(hello(identity="cd" * 16))
    await calm.next(Welcome)
    for _ in range(64):
        engine.fleet.send(deaf_id, Cancel(attempt_ids=[2**52] * 20_000, reason="noise"))
        await asyncio.sleep(0)
    await engine.until(
        lambda: engine.fleet.worker(deaf_id).state == "offline", "the deaf worker to be dropped"
    )
    await engine.submit(ann)
    await calm.next(Assign)


async def test_a_web_page_is_turned_away(connect):
    with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
        await connect(headers={"Origin": "https://evil.example"})
    assert refusal.value.status == 403


async def test_at_the_stop_workers_are_sent_away_and_what_waits_is_sent_first(engine, server, connect, hello):
    wire = await connect()
    await wire.send(hello())
    id = (await wire.next(Welcome)).worker_id
    engine.fleet.send(id, Drain())
    closing = asyncio.create_task(server[1].close())
    assert await wire.closed() == 1001
    await closing
    assert [type(frame) for frame in wire.frames] == [Drain]
    late = await connect()
    assert await late.closed() == 1001


async def test_output_flows_back_pressure_and_comes_whole(engine, ann, connect, hello):
    wire = await connect()
    await wire.send(hello())
    await wire.next(Welcome)
    job = await engine.submit(ann)
    [attempt] = (await wire.next(Assign)).attempts
    data = bytes(range(256)) * 1024
    await wire.send(Started(attempt_id=attempt.attempt_id, runtime="default"))
    for offset in range(0, 1 << 20, len(data)):
        await wire.send(
            messages.Output(attempt_id=attempt.attempt_id, stream="stdout", offset=offset, data=data)
        )
    await wire.send(Finished(attempt_id=attempt.attempt_id, outcome="succeeded", stdout_bytes=1 << 20))
    await engine.state(ann, job.id, JobState.SUCCEEDED)
    part = await engine.jobs.output(ann, job.id, attempt=1, stream="stdout", offset=0, limit=2 << 20)
    assert part.data == data * 4
