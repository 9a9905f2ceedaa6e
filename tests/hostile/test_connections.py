"""Connections that are held, bodies that have no end: cut off, in flat memory, while others are served."""

from __future__ import annotations

import asyncio
import gzip
import zlib

import pytest
from kit.attack import allow_sockets, connect, error_of, exchange, others_are_served, resident_mb

MOST = 600
COORDINATOR = {"GRIDX_COORDINATOR_MAX_CONNECTIONS_PER_ADDRESS": str(MOST)}
WORKER = {"GRIDX_WORKER_REUSE": "true"}
KEPT = 3
MIB = 1 << 20
SLACK_MB = 40
"""What a process may grow by in a test: buffers, and what Python keeps of them."""


def head(method: str, path: str, *more: str) -> bytes:
    return "\r\n".join((f"{method} {path} HTTP/1.1", "Host: x", *more, "", "")).encode()


HELD = {
    "nothing": (b"", b""),
    "half a header": (head("GET", "/health")[:-2], b""),
    "a header that drips": (head("GET", "/health")[:-2], b"X: y\r\n"),
    "a body that drips": (head("POST", "/auth/login", "Content-Length: 16000"), b"x"),
    "a chunked body that drips": (
        head("POST", "/auth/login", "Transfer-Encoding: chunked"),
        b"1\r\nx\r\n",
    ),
    "a body that nobody wants": (head("GET", "/health", "Content-Length: 100000"), b"x"),
    "no more after one request": (head("GET", "/health"), b""),
    "empty lines": (b"", b"\r\n"),
}


async def test_whoever_holds_connections_without_a_whole_request_is_cut_off(grid):
    """500 of each kind at once, each kind from an address of its own."""
    each = 500
    allow_sockets(each * len(HELD))

    async def hold(number: int, first: bytes, piece: bytes) -> None:
        raw = await connect(grid.standing.port, f"127.1.{number}.1")
        dripping = None
        try:
            await raw.send(first)
            dripping = asyncio.create_task(raw.drip(piece)) if piece else None
            await raw.rest()
        finally:
            if dripping is not None:
                dripping.cancel()
            raw.close()

    async with others_are_served(grid.url, grid.bob.token) as others:
        await asyncio.gather(
            *(hold(number, *kind) for number, kind in enumerate(HELD.values()) for _ in range(each))
        )
    assert others.answered > 20


async def test_an_address_has_its_share_of_connections_over_both_ports_and_others_have_theirs(grid, until):
    allow_sockets(MOST)
    ports = (grid.standing.port, grid.standing.ws_port)
    mine = [await connect(ports[n % 2], "127.2.0.1") for n in range(MOST)]
    try:
        for port in ports:
            assert await exchange(port, head("GET", "/health", "Connection: close"), "127.2.0.1") == b""
        assert b"200 OK" in await exchange(ports[0], head("GET", "/health", "Connection: close"), "127.2.0.2")
        assert "127.2.0.1 has 600 connections open" in grid.coordinator.text
        mine.pop().close()

        async def served() -> bool:
            answer = await exchange(ports[0], head("GET", "/health", "Connection: close"), "127.2.0.1")
            return b"200 OK" in answer

        await until(served, "the place of the one that was closed")
    finally:
        for raw in mine:
            raw.close()


async def test_who_asks_much_and_reads_nothing_is_one_connection_and_no_memory(grid):
    before = resident_mb(grid.coordinator)
    asked = head("GET", "/openapi.json") * 1000
    greedy = [await connect(grid.standing.port, "127.2.0.3") for _ in range(40)]
    try:
        async with others_are_served(grid.url, grid.bob.token) as others:
            for raw in greedy:
                raw.writer.write(asked)
            while others.answered < 40:
                await asyncio.sleep(0.05)
        assert resident_mb(grid.coordinator) - before < SLACK_MB
    finally:
        for raw in greedy:
            raw.close()


SLOW = {
    "many arguments": b'{"code":"x","args":[' + b",".join([b'""'] * 990_000) + b"]}",
    "many variables": b'{"code":"x","env":{' + b",".join(b'"A%d":""' % n for n in range(390_000)) + b"}}",
    "many jobs": b'{"jobs":[' + b",".join([b'{"code":""}'] * 110_000) + b"]}",
    "more than may be": b'{"jobs":[' + b",".join([b'{"code":""}'] * 600_000) + b"]}",
}


async def test_bodies_that_take_long_to_read_hold_up_nobody(grid):
    """From two users at once, several each."""
    port = grid.standing.port
    lines = [f"Authorization: Bearer {token}" for token in (grid.bob.token, grid.ann.token)]

    async def send(number: int) -> bytes:
        path = ("/quote", "/jobs", "/jobs/batch", "/jobs/batch")[number % 4]
        body = list(SLOW.values())[number % 4]
        more = (lines[number // 4 % 2], f"Content-Length: {len(body)}", "Connection: close")
        return await exchange(port, head("POST", path, *more) + body, f"127.2.1.{number + 1}")

    async with others_are_served(grid.url, grid.admin.token) as others:
        answers = await asyncio.gather(*(send(number) for number in range(8)))
    assert {answer.split(b" ")[1] for answer in answers} <= {b"422", b"413", b"429"}
    assert others.answered > 8


def token_line(grid) -> str:
    return f"Authorization: Bearer {grid.bob.token}"


async def endless(grid, first: bytes, piece: bytes) -> bytes:
    """Send a body without an end for as long as it is taken; what is answered."""
    raw = await connect(grid.standing.port, "127.2.0.4")
    answer = asyncio.create_task(raw.rest())
    try:
        await raw.send(first)
        sent = 0
        while not answer.done() and sent < 1 << 30:
            try:
                await asyncio.wait_for(raw.send(piece), 30)
            except (ConnectionError, TimeoutError):
                break
            sent += len(piece)
        assert sent < 1 << 30, "it takes without an end"
        return await answer
    finally:
        answer.cancel()
        raw.close()


@pytest.mark.parametrize("path", ["/jobs", "/quote", "/jobs/batch", "/credits/transfer", "/auth/login"])
async def test_a_body_over_the_cap_is_refused_in_flat_memory(grid, path):
    before = resident_mb(grid.coordinator)
    piece = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    chunked = head("POST", path, token_line(grid), "Transfer-Encoding: chunked")
    long = head("POST", path, token_line(grid), f"Content-Length: {1 << 40}")
    async with others_are_served(grid.url, grid.bob.token):
        answers = await asyncio.gather(
            *(endless(grid, chunked, piece) for _ in range(8)),
            *(endless(grid, long, piece) for _ in range(8)),
        )
    for answer in answers:
        # A reset may overtake the answer to somebody who goes on sending.
        if answer:
            assert b" 413 " in answer.split(b"\r\n")[0] or b" 429 " in answer.split(b"\r\n")[0], answer[:200]
            error_of(answer.partition(b"\r\n\r\n")[2])
    assert resident_mb(grid.coordinator) - before < 128 + SLACK_MB


CODINGS = ("gzip", "deflate", "br", "zstd", "gzip, gzip", "x-gzip", "GZIP", "identity, gzip", "\tgzip")


@pytest.mark.parametrize("path", ["/jobs", "/auth/login"])
async def test_a_compressed_body_is_refused_unopened(grid, path):
    zeros = b" " * (50 * MIB)
    bombs = {"deflate": zlib.compress(zeros, 9), "gzip": gzip.compress(zeros, 9)}
    before = resident_mb(grid.coordinator)
    for coding in CODINGS:
        bomb = bombs.get(coding, bombs["gzip"])[:16000]
        headers = (token_line(grid), f"Content-Encoding: {coding}", f"Content-Length: {len(bomb)}")
        answer = await exchange(grid.standing.port, head("POST", path, *headers) + bomb)
        assert b" 413 " in answer.split(b"\r\n")[0], (coding, answer[:200])
        assert "ompressed" in error_of(answer.partition(b"\r\n\r\n")[2])["message"]
    assert resident_mb(grid.coordinator) - before < SLACK_MB


NO_HTTP = {
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 50 + b"\r\n\r\n",
    "SSH": b"SSH-2.0-OpenSSH_9.6\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a version": b"GET / HTTP/9.9\r\n\r\n",
    "a long header": head("GET", "/health", "X: " + "y" * 20_000),
    "many headers": head("GET", "/health", *["X: y"] * 500),
    "a long path": head("GET", "/" + "a" * 20_000),
    "two lengths": head("POST", "/jobs", "Content-Length: 1", "Content-Length: 2"),
    "a length and chunks": head("POST", "/jobs", "Content-Length: 5", "Transfer-Encoding: chunked")
    + b"0\r\n\r\n",
    "a negative length": head("POST", "/jobs", "Content-Length: -1"),
    "a length that is none": head("POST", "/jobs", "Content-Length: 0x10"),
    "an encoding that is none": head("POST", "/jobs", "Transfer-Encoding: xchunked"),
    "a space before the colon": head("GET", "/health", "Content-Length : 5"),
    "a folded header": head("GET", "/health", "X: y", " z"),
    "a NUL in a header": head("GET", "/health", "X: a\x00b"),
    "a bare carriage return": b"GET /health HTTP/1.1\r\nHost: x\r\nX: a\rb\r\n\r\n",
    "a chunk that is none": head("POST", "/auth/login", "Transfer-Encoding: chunked")
    + b"zz\r\nx\r\n0\r\n\r\n",
    "a chunk without an end": head("POST", "/auth/login", "Transfer-Encoding: chunked")
    + b"f" * 30
    + b"\r\nx\r\n",
}


@pytest.mark.parametrize("sent", NO_HTTP.values(), ids=NO_HTTP.keys())
async def test_what_is_no_http_gets_one_answer_and_the_connection_is_over(grid, sent):
    answer = await exchange(grid.standing.port, sent)
    if answer:
        first, _, body = answer.partition(b"\r\n\r\n")
        assert b" 400 " in first.split(b"\r\n")[0], answer[:300]
        assert answer.count(b"HTTP/1.") == 1
        assert b"aiohttp" not in answer.lower()
        error_of(body)
