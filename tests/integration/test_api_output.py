"""Output over HTTP: by offset, and as it comes until there is no more to come."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest


async def running(grid, ann, **fields):
    """A job of Ann's that runs on a played worker."""
    job = await ann.submit(**fields)
    worker = await grid.worker(ann)
    given = await worker.assignment()
    await worker.start(given.attempt_id)
    return job, worker, given.attempt_id


def follow(grid, person, job: int, query: str = ""):
    return grid.session.get(f"{grid.url}/jobs/{job}/output?follow=1{query}", headers=person.headers)


async def read(answer, size: int) -> bytes:
    return await asyncio.wait_for(answer.content.readexactly(size), 60)


async def test_output_is_read_by_stream_and_offset(grid):
    ann = await grid.person("ann")
    job, worker, attempt = await running(grid, ann)
    await worker.write(attempt, b"hello world")
    await worker.write(attempt, b"oh no", stream="stderr")
    await worker.finish(attempt, stdout_bytes=11, stderr_bytes=5)
    answer = await ann.get(f"/jobs/{job}/output")
    assert answer.content == b"hello world"
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    facts = [answer.headers[f"Gridx-{name}"] for name in ("Attempt", "Next-Offset", "Over", "Ended")]
    assert facts == ["1", "11", "1", "1"]
    assert (await ann.get(f"/jobs/{job}/output?stream=stderr")).content == b"oh no"
    part = await ann.get(f"/jobs/{job}/output?offset=6&limit=3")
    assert (part.content, part.headers["Gridx-Next-Offset"]) == (b"wor", "9")
    assert (await ann.get(f"/jobs/{job}/output?offset=1000")).content == b""


async def test_bytes_that_are_no_text_stay_as_they_are(grid):
    ann = await grid.person("ann")
    job, worker, attempt = await running(grid, ann)
    data = bytes(range(256)) + b"\x1b]52;c;evil\x07\xff"
    await worker.write(attempt, data)
    await worker.finish(attempt, stdout_bytes=len(data))
    assert (await ann.get(f"/jobs/{job}/output")).content == data


async def test_followed_output_comes_as_it_is_written_and_ends_with_the_job(grid):
    ann = await grid.person("ann")
    job, worker, attempt = await running(grid, ann)
    async with follow(grid, ann, job) as answer:
        assert answer.status == 200
        assert answer.headers["Transfer-Encoding"] == "chunked"
        await worker.write(attempt, b"one")
        assert await read(answer, 3) == b"one"
        await worker.write(attempt, b"two", offset=3)
        assert await read(answer, 3) == b"two"
        await worker.finish(attempt, stdout_bytes=6)
        assert await asyncio.wait_for(answer.content.read(), 60) == b""
    assert not grid.coordinator._parts.hub._output_waiters


async def test_following_begins_before_the_job_does_and_at_an_offset(grid):
    ann = await grid.person("ann")
    job = await ann.submit()
    async with follow(grid, ann, job, "&offset=2") as answer:
        worker = await grid.worker(ann)
        attempt = (await worker.assignment()).attempt_id
        await worker.start(attempt)
        await worker.write(attempt, b"12345")
        assert await read(answer, 3) == b"345"
        await worker.finish(attempt, stdout_bytes=5)
        assert await asyncio.wait_for(answer.content.read(), 60) == b""


async def test_following_goes_on_with_the_next_attempt(grid):
    ann = await grid.person("ann")
    job, worker, first = await running(grid, ann)
    other = await grid.worker(ann, identity="b" * 32)
    async with follow(grid, ann, job) as answer, follow(grid, ann, job, "&attempt=1") as only_first:
        await worker.write(first, b"first;")
        assert await read(answer, 6) == b"first;"
        await worker.finish(first, "broken", reason="engine gone", stdout_bytes=6)
        assert await asyncio.wait_for(only_first.content.read(), 60) == b"first;"
        second = (await other.assignment()).attempt_id
        await other.start(second)
        await other.write(second, b"second")
        assert await read(answer, 6) == b"second"
        await other.finish(second, stdout_bytes=6)
        assert await asyncio.wait_for(answer.content.read(), 60) == b""
    assert (await ann.get(f"/jobs/{job}/output?attempt=1")).content == b"first;"
    assert (await ann.get(f"/jobs/{job}/output")).content == b"second"
    async with follow(grid, ann, job, "&attempt=2&offset=3") as answer:
        assert await asyncio.wait_for(answer.content.read(), 60) == b"ond"


async def test_following_an_attempt_that_never_begins_ends_with_the_job(grid):
    ann = await grid.person("ann")
    job = await ann.submit()
    async with follow(grid, ann, job, "&attempt=1") as answer:
        await ann.post(f"/jobs/{job}/cancel")
        assert await asyncio.wait_for(answer.content.read(), 60) == b""


async def test_a_long_output_is_followed_whole(grid):
    ann = await grid.person("ann")
    job, worker, attempt = await running(grid, ann)
    data = bytes(i % 251 for i in range(300_000))
    for offset in range(0, len(data), 100_000):
        await worker.write(attempt, data[offset : offset + 100_000], offset)
    await worker.finish(attempt, stdout_bytes=len(data))
    async with follow(grid, ann, job) as answer:
        assert await asyncio.wait_for(answer.content.read(), 60) == data


async def test_a_follower_that_leaves_is_forgotten(grid, until):
    ann = await grid.person("ann")
    job, worker, attempt = await running(grid, ann)
    async with aiohttp.ClientSession() as session:
        answer = await session.get(f"{grid.url}/jobs/{job}/output?follow=1", headers=ann.headers)
        await worker.write(attempt, b"x")
        await read(answer, 1)
        answer.close()
    await until(lambda: not grid.coordinator._parts.hub._output_waiters, "the follower to be forgotten")


async def test_a_revoked_token_ends_what_it_follows(grid):
    ann = await grid.person("ann")
    job, worker, attempt = await running(grid, ann)
    other = await grid.stranger.post("/auth/login", {"username": "ann", "password": "correct horse"})
    headers = {"Authorization": f"Bearer {other.json['token']}"}
    async with grid.session.get(f"{grid.url}/jobs/{job}/output?follow=1", headers=headers) as answer:
        await worker.write(attempt, b"x")
        assert await read(answer, 1) == b"x"
        assert (await grid.stranger.post("/auth/logout", headers=headers)).status == 204
        with pytest.raises(aiohttp.ClientError):
            await asyncio.wait_for(answer.content.read(), 60)


async def test_followed_output_breaks_off_when_the_coordinator_stops(grid):
    ann = await grid.person("ann")
    job, worker, attempt = await running(grid, ann)
    async with follow(grid, ann, job) as answer:
        await worker.write(attempt, b"x")
        assert await read(answer, 1) == b"x"
        await grid.coordinator.stop()
        with pytest.raises(aiohttp.ClientError):
            await asyncio.wait_for(answer.content.read(), 60)
