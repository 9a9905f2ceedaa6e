"""Files over HTTP: sent in pieces, taken up again, seen by their owner alone, within what is allowed."""

from __future__ import annotations

import asyncio
import hashlib
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import Grid, Person

MIB = 1 << 20


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def put(who: Person, data: bytes, *, sha256: str = "", size: int | None = None, offset: int = 0) -> Any:
    """Send a piece of a file, by default the whole."""
    length = len(data) if size is None else size
    return await who.ask("PUT", f"/blobs/{sha256 or digest(data)}?size={length}&offset={offset}", data)


async def have(who: Person, sha256: str) -> tuple[int, int]:
    """Status of a HEAD, and how much has come."""
    answer = await who.ask("HEAD", f"/blobs/{sha256}")
    return answer.status, int(answer.headers["Gridx-Offset"])


def blob_folder(grid: Grid) -> Path:
    return grid.settings.db_path.with_name("grid.db-blobs")


def stored(grid: Grid) -> dict[str, int]:
    """Whole files on the disk, and their sizes."""
    return {path.name: path.stat().st_size for path in blob_folder(grid).glob("??/*")}


@pytest.fixture
async def ann(grid: Grid) -> Person:
    return await grid.person("ann")


@pytest.fixture
async def bob(grid: Grid) -> Person:
    return await grid.person("bob")


async def test_a_file_is_sent_in_one_go_and_is_there(grid, ann):
    data = os.urandom(3 * MIB)
    assert await have(ann, digest(data)) == (404, 0)
    answer = await put(ann, data)
    assert answer.status == 200, answer.content
    assert answer.json == {"sha256": digest(data), "size": len(data), "offset": len(data), "complete": True}
    assert await have(ann, digest(data)) == (200, len(data))
    assert stored(grid) == {digest(data): len(data)}
    usage = (await ann.get("/blobs/usage")).json
    assert usage["input_bytes"] == len(data)
    assert usage["output_bytes"] == 0


async def test_files_and_folders_are_the_coordinators_alone(grid, ann):
    data = b"secret"
    await put(ann, data)
    assert stat.S_IMODE(blob_folder(grid).stat().st_mode) == 0o700
    path = blob_folder(grid) / digest(data)[:2] / digest(data)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_an_empty_file_is_a_file(grid, ann):
    assert (await put(ann, b"")).json["complete"]
    assert await have(ann, digest(b"")) == (200, 0)


async def test_pieces_follow_each_other_and_another_offset_is_told_where_to_go_on(ann):
    data = os.urandom(2 * MIB + 17)
    name = digest(data)
    first = await put(ann, data[:MIB], sha256=name, size=len(data))
    assert first.json == {"sha256": name, "size": len(data), "offset": MIB, "complete": False}
    assert await have(ann, name) == (404, MIB)
    wrong = await put(ann, data[: 2 * MIB], sha256=name, size=len(data))
    assert wrong.status == 409
    assert wrong.error["details"]["offset"] == MIB
    gap = await put(ann, data[MIB + 5 :], sha256=name, size=len(data), offset=MIB + 5)
    assert gap.status == 409
    rest = await put(ann, data[MIB:], sha256=name, size=len(data), offset=MIB)
    assert rest.json["complete"]


async def test_what_others_have_sent_is_missing_like_what_nobody_has(grid, ann, bob):
    data = os.urandom(1000)
    await put(ann, data)
    assert await have(bob, digest(data)) == (404, 0) == await have(bob, digest(b"nobody's"))
    freed = await bob.ask("DELETE", f"/blobs/{digest(data)}")
    assert freed.json == {"files": 0, "bytes": 0}
    # He has to send all of it himself; there is one copy then.
    assert (await put(bob, data)).json["complete"]
    assert stored(grid) == {digest(data): 1000}
    await ann.ask("DELETE", f"/blobs/{digest(data)}")
    assert await have(ann, digest(data)) == (404, 0)
    assert await have(bob, digest(data)) == (200, 1000)
    await bob.ask("DELETE", f"/blobs/{digest(data)}")
    assert stored(grid) == {}


async def test_bytes_of_another_hash_are_refused_and_dropped(grid, ann):
    answer = await put(ann, b"these", sha256=digest(b"those"))
    assert answer.status == 422
    assert "hash" in answer.error["message"]
    assert await have(ann, digest(b"those")) == (404, 0)
    assert stored(grid) == {}
    assert not list((blob_folder(grid) / "partial").iterdir())


async def test_more_bytes_than_said_are_refused_and_dropped(grid, ann):
    data = os.urandom(3 * MIB)
    answer = await put(ann, data, size=MIB)
    assert answer.status == 422
    assert not list((blob_folder(grid) / "partial").iterdir())
    # One that says less later than it has sent already.
    await put(ann, data[:MIB], sha256=digest(data), size=len(data))
    answer = await put(ann, b"", sha256=digest(data), size=1000, offset=MIB)
    assert answer.status == 422
    assert (await put(ann, data)).json["complete"]


async def test_two_uploads_of_one_file_at_once_end_in_one_file(grid, ann):
    data = os.urandom(4 * MIB)

    async def send() -> None:
        offset = 0
        while offset < len(data):
            answer = await put(
                ann, data[offset : offset + MIB], sha256=digest(data), size=len(data), offset=offset
            )
            if answer.status == 409:
                offset = answer.error["details"]["offset"]
            else:
                assert answer.status == 200, answer.content
                offset = answer.json["offset"]

    await asyncio.gather(*(send() for _ in range(4)))
    assert stored(grid) == {digest(data): len(data)}
    assert (await ann.get("/blobs/usage")).json["input_bytes"] == len(data)


async def test_wrong_bytes_do_no_harm_to_right_ones_of_the_same_name_at_the_same_time(grid, ann):
    data = os.urandom(MIB)
    wrong = bytes(MIB)

    async def send(content: bytes) -> None:
        offset = 0
        for _ in range(20):
            end = offset + MIB // 8
            answer = await put(ann, content[offset:end], sha256=digest(data), size=MIB, offset=offset)
            if answer.status == 409:
                offset = answer.error["details"]["offset"]
            elif answer.status == 200 and not answer.json["complete"]:
                offset = answer.json["offset"]
            elif answer.status == 200:
                return
            else:
                assert answer.status == 422, answer.content
                offset = 0

    for _ in range(5):
        await asyncio.gather(*(send(content) for content in (data, wrong, data, wrong)))
        while (await have(ann, digest(data)))[0] != 200:
            await send(data)
        path = blob_folder(grid) / digest(data)[:2] / digest(data)
        assert path.read_bytes() == data
        await ann.post("/blobs/prune")


@pytest.mark.parametrize("name", ["", "abc", "A" * 64, "g" * 64, "..%2f..%2fgrid.db", "0" * 63 + "%0a"])
async def test_a_name_that_is_no_hash_is_refused(ann, name):
    answer = await ann.ask("PUT", f"/blobs/{name}?size=1", b"x")
    assert answer.status in (404, 405, 422)
    assert answer.error["hint"]


@pytest.mark.parametrize("query", ["", "size=-1", "size=1&offset=-1", "size=99999999999999999999", "size=x"])
async def test_sizes_that_are_none_are_refused(ann, query):
    answer = await ann.ask("PUT", f"/blobs/{'0' * 64}?{query}", b"x")
    assert answer.status == 422


async def test_of_many_files_is_told_at_once_how_much_has_come(ann, bob):
    whole, part, others = os.urandom(100), os.urandom(200), os.urandom(300)
    await put(ann, whole)
    await put(ann, part[:50], sha256=digest(part), size=200)
    await put(bob, others)
    asked = [digest(others), digest(part), digest(whole), *(f"{number:064x}" for number in range(600))]
    states = (await ann.post("/blobs/have", {"sha256": asked})).json["blobs"]
    assert [one["sha256"] for one in states] == asked
    assert [(one["offset"], one["complete"]) for one in states[:4]] == [
        (0, False),
        (50, False),
        (100, True),
        (0, False),
    ]
    assert (await ann.post("/blobs/have", {"sha256": ["x"]})).status == 422
    assert (await ann.post("/blobs/have", {"sha256": asked * 4})).status == 422


async def test_limits_are_told_beforehand(ann):
    limits = (await ann.get("/limits")).json
    assert limits["file_bytes"] == 1024 * MIB
    assert limits["quota_bytes"] == 5120 * MIB
    assert limits["out_files"]["files"] == 1000


async def test_a_stranger_sends_and_sees_nothing(grid):
    for method, path in (
        ("PUT", f"/blobs/{'0' * 64}?size=1"),
        ("HEAD", f"/blobs/{'0' * 64}"),
        ("GET", "/limits"),
        ("GET", "/blobs/usage"),
        ("GET", f"/attempts/1/inputs/{'0' * 64}"),
        ("GET", "/jobs/1/files"),
    ):
        assert (await grid.stranger.ask(method, path)).status == 401


def raw_put(who: Person, data: bytes, *, length: int, offset: int = 0, more: str = "") -> bytes:
    """The head of a request that sends ``data``."""
    return (
        f"PUT /blobs/{digest(data)}?size={len(data)}&offset={offset} HTTP/1.1\r\nHost: x\r\n"
        f"Authorization: Bearer {who.token}\r\nContent-Length: {length}\r\n{more}\r\n"
    ).encode()


async def connect(grid: Grid) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", int(grid.url.rpartition(":")[2]))


async def test_a_connection_that_stands_still_makes_room_for_the_next(grid, ann, until):
    """A client whose line broke unseen comes back by another connection, and goes on."""
    data = os.urandom(MIB)
    reader, writer = await connect(grid)
    writer.write(raw_put(ann, data, length=MIB) + data[: MIB // 2])
    await writer.drain()

    async def come() -> bool:
        return (await have(ann, digest(data)))[1] > 0

    await until(come, "some of it to come")
    answer = await put(ann, data)
    # It waited for the first to be cut off; how much of that had come it is told.
    assert answer.status == 409
    offset = answer.error["details"]["offset"]
    assert 0 < offset <= MIB // 2
    rest = await put(ann, data[offset:], sha256=digest(data), size=MIB, offset=offset)
    assert rest.json["complete"]
    assert await reader.read() == b""
    writer.close()


async def test_a_body_that_breaks_off_keeps_what_has_come(grid, ann, until):
    data = os.urandom(MIB)
    _, writer = await connect(grid)
    writer.write(raw_put(ann, data, length=MIB) + data[: 3 * MIB // 4])
    await writer.drain()

    async def come() -> bool:
        return (await have(ann, digest(data)))[1] >= MIB // 2

    await until(come, "most of it to come")
    writer.transport.abort()
    offset = (await have(ann, digest(data)))[1]
    while True:
        answer = await put(ann, data[offset:], sha256=digest(data), size=MIB, offset=offset)
        if answer.status != 409:
            break
        offset = answer.error["details"]["offset"]
    assert answer.json["complete"]
    assert offset >= MIB // 2


async def test_an_upload_ends_with_the_sign_in(grid, ann, until):
    data = os.urandom(MIB)
    reader, writer = await connect(grid)
    writer.write(raw_put(ann, data, length=MIB) + data[: MIB // 2])
    await writer.drain()

    async def come() -> bool:
        return (await have(ann, digest(data)))[1] > 0

    await until(come, "some of it to come")
    assert (await ann.post("/auth/logout")).status == 204
    # It is cut off; a body that is late would be answered.
    assert await reader.read() == b""
    writer.close()


async def test_who_asks_before_sending_is_told_to_go_on(grid, ann):
    data = os.urandom(20 * MIB)
    reader, writer = await connect(grid)
    writer.write(raw_put(ann, data, length=len(data), more="Expect: 100-continue\r\nConnection: close\r\n"))
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(data)
    assert (await reader.read()).startswith(b"HTTP/1.1 200")
    writer.close()
    assert await have(ann, digest(data)) == (200, len(data))


async def test_a_compressed_body_is_refused(ann):
    answer = await ann.ask("PUT", f"/blobs/{digest(b'x')}?size=1", b"x", headers={"Content-Encoding": "gzip"})
    assert answer.status == 413


async def test_a_user_begins_so_many_files_and_no_more(ann):
    for number in range(64):
        name = digest(str(number).encode())
        assert (await put(ann, b"x", sha256=name, size=2)).status == 200
    answer = await put(ann, b"x", sha256="f" * 64, size=2)
    assert answer.status == 429
    assert "gridx files prune" in answer.error["hint"]
    await ann.post("/blobs/prune")
    assert (await put(ann, b"whole")).json["complete"]
