"""What comes over the WebSockets of workers and of dashboards: refused, bounded, closed; others go on."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import struct
import zlib
from typing import Any

import aiohttp
import pytest
from kit.attack import Raw, connect, error_of, others_are_served, resident_mb

from gridx.messages import MAX_FRAME_BYTES, PROTOCOL_VERSION
from gridx.services.coordinator.api.streams import MAX_WATCH_BYTES

WORKER = {"GRIDX_WORKER_REUSE": "true"}
KEPT = 3
SOCKETS = ("/ws/worker", "/events")
MIB = 1 << 20
TEXT, BINARY, CLOSE, PING = 1, 2, 8, 9
OFFER = {
    "cpu_millis": 1000,
    "memory_mb": 512,
    "runtimes": [{"name": "default", "python": "3.11", "languages": ["python"]}],
}


def hello(identity: str = "", **fields: Any) -> dict[str, Any]:
    offer = {**OFFER, **fields.pop("offer", {})}
    return {
        "type": "hello",
        "protocol": PROTOCOL_VERSION,
        "version": "0",
        "identity": identity or os.urandom(16).hex(),
        "name": "liar",
        "running": [],
        "spooled": [],
        "offer": offer,
        **fields,
    }


async def upgrade(
    grid, path: str, *headers: str, token: str = "", source: str = "127.6.0.1"
) -> tuple[Raw, bytes]:
    """A connection on which a WebSocket was asked for, and the head of the answer."""
    port = grid.standing.ws_port if path == "/ws/worker" else grid.standing.port
    raw = await connect(port, source)
    key = base64.b64encode(os.urandom(16)).decode()
    lines = [
        *(f"GET {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", "Upgrade: websocket", "Connection: Upgrade"),
        *(f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13", *headers),
    ]
    if token:
        lines.append(f"Authorization: Bearer {token}")
    await raw.send("\r\n".join((*lines, "", "")).encode())
    try:
        return raw, await raw.reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        return raw, error.partial


async def opened(grid, path: str, token: str = "", **more: Any) -> Raw:
    raw, head = await upgrade(grid, path, token=token or grid.bob.token, **more)
    assert b" 101 " in head.split(b"\r\n")[0], head
    return raw


def frame(
    data: bytes, kind: int = TEXT, *, final: bool = True, length: int | None = None, first: int = 0
) -> bytes:
    """One frame as a client sends it, with a mask of zeros."""
    size = len(data) if length is None else length
    head = bytes([(0x80 if final else 0) | first | kind])
    if size < 126:
        head += bytes([0x80 | size])
    elif size < 1 << 16:
        head += bytes([0x80 | 126]) + struct.pack(">H", size)
    else:
        head += bytes([0x80 | 127]) + struct.pack(">Q", size)
    return head + bytes(4) + data


def text(*values: Any) -> bytes:
    return frame(json.dumps(list(values)).encode())


async def next_frame(raw: Raw) -> tuple[int, bytes]:
    """The next frame of the coordinator; (CLOSE, b"") when it just hung up."""
    try:
        first, second = await raw.reader.readexactly(2)
        size = second & 127
        if size >= 126:
            size = int.from_bytes(await raw.reader.readexactly(2 if size == 126 else 8), "big")
        return first & 15, await raw.reader.readexactly(size)
    except (asyncio.IncompleteReadError, ConnectionError):
        return CLOSE, b""


async def until_closed(raw: Raw) -> tuple[int | None, list[dict[str, Any]]]:
    """The code with which the coordinator closes, and what it said before in words."""
    said = []
    while True:
        kind, data = await next_frame(raw)
        if kind == CLOSE:
            return (int.from_bytes(data[:2], "big") if data else None), said
        if kind == TEXT:
            value = json.loads(data)
            said += value if isinstance(value, list) else [value]


def refusals(said: list[dict[str, Any]]) -> list[str]:
    return [each["code"] for each in said if each["type"] == "rejected"]


ORIGINS = ("http://evil.example", "https://evil.example:8081", "null", "http://127.0.0.1", "file://", "")


@pytest.mark.parametrize("path", SOCKETS)
async def test_a_page_of_another_site_gets_no_socket(grid, path):
    for origin in ORIGINS:
        raw, head = await upgrade(grid, path, f"Origin: {origin}", token=grid.bob.token)
        assert b" 403 " in head.split(b"\r\n")[0], (origin, head)
        raw.close()


@pytest.mark.parametrize("path", SOCKETS)
async def test_without_a_token_there_is_no_upgrade(grid, path):
    for headers in ((), ("Authorization: Bearer gridx_" + "x" * 43,), ("Cookie: token=" + grid.bob.token,)):
        raw, head = await upgrade(grid, path, *headers)
        assert b" 401 " in head.split(b"\r\n")[0], head
        size = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        assert error_of(await raw.reader.readexactly(size))["code"] == "unauthenticated"
        raw.close()
    raw, head = await upgrade(grid, path, f"Sec-WebSocket-Protocol: {grid.bob.token}")
    assert b" 401 " in head.split(b"\r\n")[0]
    raw.close()


async def test_a_worker_that_says_nothing_or_half_a_message_is_closed(grid):
    silent = [await opened(grid, "/ws/worker") for _ in range(100)]
    for number, raw in enumerate(silent):
        if number % 3 == 1:
            await raw.send(frame(b'[{"type": "hello"', length=5000))
        elif number % 3 == 2:
            await raw.send(frame(b'[{"type"', final=False))
    async with others_are_served(grid.url, grid.bob.token):
        closed = await asyncio.gather(*(until_closed(raw) for raw in silent))
    assert {code for code, _ in closed} <= {1008, None}
    for raw in silent:
        raw.close()


LARGE = {
    "as it says": lambda cap: frame(b" " * (cap + 1)),
    "only announced": lambda cap: frame(b"", length=1 << 40),
    "of the largest length": lambda cap: frame(b"", length=(1 << 63) - 1),
    "in many pieces": lambda cap: (
        frame(b"[", final=False) + frame(b" " * MIB, 0, final=False) * (cap // MIB + 2)
    ),
}


@pytest.mark.parametrize("path", SOCKETS)
@pytest.mark.parametrize("how", LARGE)
async def test_a_message_over_the_cap_closes_the_connection(grid, path, how):
    before = resident_mb(grid.coordinator)
    cap = MAX_FRAME_BYTES if path == "/ws/worker" else MAX_WATCH_BYTES
    raw = await opened(grid, path)
    try:
        sending = asyncio.create_task(raw.send(LARGE[how](cap)))
        code, _ = await until_closed(raw)
        await asyncio.gather(sending, return_exceptions=True)
        # Who goes on sending may be cut off before the code is read.
        assert code in (1009, None)
    finally:
        raw.close()
    assert resident_mb(grid.coordinator) - before < 60


@pytest.mark.parametrize("path", SOCKETS)
async def test_compression_is_not_spoken_so_50_mib_of_nothing_stay_small(grid, path):
    asked = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"
    raw, head = await upgrade(grid, path, asked, token=grid.bob.token)
    assert b" 101 " in head.split(b"\r\n")[0]
    assert b"permessage-deflate" not in head.lower()
    before = resident_mb(grid.coordinator)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = packer.compress(b" " * (50 * MIB)) + packer.flush(zlib.Z_SYNC_FLUSH)
    await raw.send(frame(bomb[:60_000], first=0x40))
    code, _ = await until_closed(raw)
    assert code in (1002, 1007, 1009)
    assert resident_mb(grid.coordinator) - before < 20
    raw.close()


NO_MESSAGE = {
    "binary": frame(b"[]", BINARY),
    "bad UTF-8": frame(b"\xff\xfe"),
    "no JSON": frame(b"{"),
    "an object": frame(b"{}"),
    "an empty list": frame(b"[]"),
    "100,000 brackets": frame(b"[" * 60_000),
    "a text": frame(b'"hello"'),
    "an unknown type": text({"type": "sudo"}),
    "no type": text({"protocol": 1}),
    "a type twice": frame(b'[{"type": "sample", "type": "hello"}]'),
    "a missing field": text({"type": "sample", "seq": 1}),
    "an unknown field": text({"type": "sample", "seq": 1, "attempts": [], "admin": True}),
    "too many frames": text(*[{"type": "sample", "seq": 1, "attempts": []}] * 300),
    "a long number": frame(b'[{"type": "sample", "seq": ' + b"9" * 5000 + b', "attempts": []}]'),
    "NaN": frame(b'[{"type": "sample", "seq": NaN, "attempts": []}]'),
    "a lone surrogate": frame(b'[{"type": "refused", "attempt_id": 1, "reason": "\\ud800"}]'),
    "nothing": frame(b""),
}


@pytest.mark.parametrize("sent", NO_MESSAGE.values(), ids=NO_MESSAGE.keys())
async def test_what_is_no_message_is_refused_in_words_and_after_a_few_the_connection(grid, sent):
    for path, greeting in (("/ws/worker", text(hello())), ("/events", b"")):
        raw = await opened(grid, path)
        await raw.send(greeting + sent * 8)
        code, said = await until_closed(raw)
        raw.close()
        if sent == NO_MESSAGE["bad UTF-8"] and code == 1007:
            continue
        assert code in (1003, 1007, 1008), (path, code, said)
        assert refusals(said), (path, said)
        assert set(refusals(said)) <= {"bad_request", "invalid_field"}
        assert len(refusals(said)) <= 4
        # And before the hello it is the last word at once.
    raw = await opened(grid, "/ws/worker")
    await raw.send(sent)
    closing = asyncio.create_task(until_closed(raw))
    await raw.send(sent * 8)
    assert (await closing)[0] in (1003, 1007, 1008)
    raw.close()


BROKEN_FRAMES = {
    "a reserved kind": frame(b"x", 3),
    "a reserved bit": frame(b"x", first=0x20),
    "a ping in pieces": frame(b"x", PING, final=False),
    "a long ping": frame(b"x" * 200, PING),
    "a close of one byte": frame(b"x", CLOSE),
    "a close with a code that is none": frame(struct.pack(">H", 1), CLOSE),
    "a close with a reason that is no text": frame(struct.pack(">H", 1000) + b"\xff", CLOSE),
    "a continuation of nothing": frame(b"x", 0),
    "a message within a message": frame(b"[", final=False) + frame(b"[]"),
    "no WebSocket at all": b"GET / HTTP/1.1\r\n\r\n" * 20,
}


@pytest.mark.parametrize("path", SOCKETS)
@pytest.mark.parametrize("sent", BROKEN_FRAMES.values(), ids=BROKEN_FRAMES.keys())
async def test_frames_that_break_the_protocol_close_the_connection(grid, path, sent):
    raw = await opened(grid, path)
    await raw.send(sent)
    await until_closed(raw)
    raw.close()


CLAIMS = {
    "10^6 cores": {"offer": {"cpu_millis": 10**9}},
    "2^63 bytes": {"offer": {"memory_mb": 2**63}},
    "negative memory": {"offer": {"memory_mb": -1}},
    "NaN": {"offer": {"cpu_millis": float("nan")}},
    "a name of 1 MB": {"name": "x" * MIB},
    "an escape in the name": {"name": "\x1b]0;x\x07"},
    "another identity": {"identity": "../../etc/passwd"},
    "10,000 GPUs": {
        "offer": {"gpus": [{"uuid": f"GPU-{n}", "name": "x", "memory_mb": 1} for n in range(10_000)]}
    },
    "a runtime that is none": {"offer": {"runtimes": [{"name": "../x", "python": "3", "languages": []}]}},
    "10^6 attempts": {"running": list(range(1, 10**5))},
    "attempts that are none": {"running": [0, -1]},
    "a protocol of the future": {"protocol": PROTOCOL_VERSION + 1},
    "a protocol that is none": {"protocol": "1"},
    "a user": {"user": "admin"},
    "an owner": {"owner": "admin"},
}


@pytest.mark.parametrize("claim", CLAIMS)
async def test_a_worker_that_claims_what_cannot_be_is_no_worker(grid, claim):
    fleet = {worker.id for worker in await grid.admin.workers()}
    raw = await opened(grid, "/ws/worker")
    await raw.send(text(hello(**json.loads(json.dumps(CLAIMS[claim])))) * 4)
    code, said = await until_closed(raw)
    raw.close()
    assert code in (1003, 1008), (code, said)
    assert set(refusals(said)) <= {"bad_request", "invalid_field", "protocol_mismatch", "too_many"}
    assert refusals(said)
    assert {worker.id for worker in await grid.admin.workers()} == fleet
    assert not [each for each in said if each["type"] == "welcome"]


@pytest.mark.parametrize("path", SOCKETS)
async def test_ten_thousand_messages_a_second_close_the_connection_and_hold_up_nobody(grid, path):
    message = (
        text({"type": "sample", "seq": 1, "attempts": []}) if path == "/ws/worker" else frame(b'{"jobs": []}')
    )
    flood = [await opened(grid, path) for _ in range(4)]
    async with others_are_served(grid.url, grid.bob.token):

        async def pour(raw: Raw) -> int | None:
            if path == "/ws/worker":
                await raw.send(text(hello()))
            closed = asyncio.create_task(until_closed(raw))
            while not closed.done():
                try:
                    await raw.send(message * 1000)
                except ConnectionError:
                    break
                await asyncio.sleep(0)
            return (await closed)[0]

        codes = await asyncio.gather(*(pour(raw) for raw in flood))
    assert set(codes) <= {1008, None}
    for raw in flood:
        raw.close()


async def test_pings_without_end_are_answered_at_most_and_hold_up_nobody(grid):
    raws = [await opened(grid, path) for path in SOCKETS for _ in range(2)]
    before = resident_mb(grid.coordinator)
    async with others_are_served(grid.url, grid.bob.token) as others:
        for raw in raws:
            # Pongs that nobody reads are not to pile up.
            raw.writer.write(frame(b"x" * 100, PING) * 20_000)
        while others.answered < 60:
            await asyncio.sleep(0.02)
    assert resident_mb(grid.coordinator) - before < 40
    for raw in raws:
        raw.close()


async def test_a_reader_that_stops_reading_is_dropped_and_the_others_go_on(grid, until):
    """A dashboard that watches a job's output and takes none of it, beside one that takes all."""
    stuck = await opened(grid, "/events", token=grid.ann.token)
    stuck.writer.transport.pause_reading()
    before = resident_mb(grid.coordinator)
    job = await grid.submit(
        "import time\ntime.sleep(1)\nfor n in range(300): print('x' * 1000, flush=True)", timeout_s=60
    )
    await stuck.send(frame(json.dumps({"jobs": [job.id]}).encode()))
    async with grid.ann.events() as events, others_are_served(grid.url, grid.bob.token):
        await events.watch([job.id])
        took = 0
        while took < 300_000:
            event = await asyncio.wait_for(anext(aiter(events)), 60)
            took += len(event.data) if hasattr(event, "data") else 0
    ended, stdout, _ = await grid.ann.wait(job.id), await grid.ann.output(job.id), b""
    assert ended.state == "succeeded"
    assert len(stdout) == 300 * 1001
    assert resident_mb(grid.coordinator) - before < 40
    stuck.close()


async def test_a_peer_that_is_gone_without_a_word_is_dropped(grid, until):
    """Half open: no pong comes any more. The worker is offline then, however open its connection looks."""
    raw = await opened(grid, "/ws/worker")
    await raw.send(text(hello("f" * 32)))
    _, welcome = await next_frame(raw)
    worker_id = json.loads(welcome)[0]["worker_id"]
    raw.writer.transport.pause_reading()

    async def offline() -> bool:
        return (await grid.admin.worker(worker_id)).state == "offline"

    await until(offline, "the worker to be offline")
    raw.close()


async def test_one_user_has_no_more_sockets_than_the_cap(grid):
    from gridx.services.coordinator.sockets import MAX_PER_USER

    headers = {"Authorization": f"Bearer {grid.bob.token}"}
    statuses = set()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        sockets = []
        try:
            for _ in range(MAX_PER_USER + 3):
                try:
                    sockets.append(await session.ws_connect(grid.url + "/events", headers=headers))
                except aiohttp.WSServerHandshakeError as error:
                    statuses.add(error.status)
            assert len(sockets) <= MAX_PER_USER
            assert statuses == {429}
        finally:
            for socket in sockets:
                socket._response.close()
