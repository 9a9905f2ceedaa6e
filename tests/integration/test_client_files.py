"""The client's files at a real coordinator: sent once and within limits, fetched whole and into place."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from gridx.client import Client
from gridx.client_fetching import _targets
from gridx.errors import GridError, InvalidField, NotFound, QuotaExceeded, TooLarge
from gridx.messages import JobSpec, OutputFile
from tests.integration.conftest import Grid, Person, PlayedWorker

MIB = 1 << 20


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
async def ann(grid: Grid) -> AsyncIterator[Client]:
    person = await grid.person("ann")
    async with Client(grid.url, person.token) as client:
        yield client


@pytest.fixture
async def bob(grid: Grid) -> Person:
    return await grid.person("bob")


@pytest.fixture
async def worker(grid: Grid, bob: Person) -> PlayedWorker:
    return await grid.worker(bob)


async def give_back(worker: PlayedWorker, bob: Person, files: dict[str, bytes]) -> int:
    """Run the next job, which gives these files back."""
    attempt = await worker.assignment()
    await worker.start(attempt.attempt_id)
    for data in set(files.values()):
        path = f"/attempts/{attempt.attempt_id}/files/{digest(data)}?size={len(data)}"
        assert (await bob.ask("PUT", path, data)).status == 200
    named = [OutputFile(path=path, sha256=digest(data), size=len(data)) for path, data in files.items()]
    await worker.finish(attempt.attempt_id, files=named)
    return attempt.job_id


def spec(**fields) -> JobSpec:
    return JobSpec(**{"code": "1", "memory_mb": 64, **fields})


def written(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


async def test_a_file_a_stream_and_bytes_are_the_same_upload(ann, tmp_path):
    data = os.urandom(100_000)
    (tmp_path / "file").write_bytes(data)
    first = await ann.upload(tmp_path / "file")
    assert first == (digest(data), len(data))
    told: list[tuple[int, int]] = []
    for source in (data, io.BytesIO(data), str(tmp_path / "file")):
        assert await ann.upload(source, progress=lambda done, total: told.append((done, total))) == first
    # Nothing was sent any more.
    assert told == [(len(data), len(data))] * 3
    assert (await ann.usage()).input_bytes == len(data)


async def test_a_stream_is_sent_from_where_it_stands(ann):
    stream = io.BytesIO(b"head and tail")
    stream.seek(9)
    assert await ann.upload(stream) == (digest(b"tail"), 4)


async def test_inputs_are_sent_once_and_name_what_a_job_finds(ann, worker, bob, tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d/run").write_text("same")
    (tmp_path / "d/run").chmod(0o755)
    (tmp_path / "copy").write_text("same")
    inputs = await ann.upload_inputs(["d", "copy"], root=tmp_path)
    assert [(one.path, one.executable) for one in inputs] == [("d/run", True), ("copy", False)]
    assert (await ann.usage()).input_bytes == 4
    job = await ann.submit(spec(inputs=inputs))
    assert (await worker.assignment()).inputs == inputs
    assert (await ann.job(job.id)).spec.inputs == inputs


async def test_nothing_is_sent_when_a_file_is_missing_or_too_large(start_grid, tmp_path):
    grid = await start_grid(files={"max_file_mb": 1, "quota_mb": 3})
    person = await grid.person("ann")
    (tmp_path / "good").write_bytes(b"x")
    (tmp_path / "large").write_bytes(bytes(MIB + 1))
    for number in range(3):
        (tmp_path / f"mib{number}").write_bytes(os.urandom(MIB))
    async with Client(grid.url, person.token) as ann:
        with pytest.raises(InvalidField, match="missing cannot be sent"):
            await ann.upload_inputs(["good", "missing"], root=tmp_path)
        with pytest.raises(TooLarge, match=r"large \(1.0 MiB\)"):
            await ann.upload_inputs(["good", "large"], root=tmp_path)
        with pytest.raises(QuotaExceeded, match=r"mib"):
            await ann.upload_inputs(["good", "mib0", "mib1", "mib2"], root=tmp_path)
        assert (await ann.usage()).input_bytes == 0
        await ann.upload_inputs(["mib0", "mib2"], root=tmp_path)
        # What is there counts once.
        with pytest.raises(QuotaExceeded) as caught:
            await ann.upload_inputs(["mib0", "mib1", "good"], root=tmp_path)
        assert "mib1" in caught.value.message
        assert "mib0" not in caught.value.message
        assert (await ann.usage()).input_bytes == 2 * MIB
        await ann.upload_inputs(["mib0", "mib1"], root=tmp_path)
        with pytest.raises(QuotaExceeded) as caught:
            await ann.upload(b"one more")
        assert caught.value.details["allowed"] == 3 * MIB
        assert "gridx files prune" in caught.value.hint
        assert (await ann.prune_uploads()).files == 3
        await ann.upload(b"one more")


async def test_a_quota_holds_when_many_send_at_once(start_grid):
    grid = await start_grid(files={"quota_mb": 1})
    person = await grid.person("ann")
    async with Client(grid.url, person.token) as ann:
        sizes = await asyncio.gather(
            *(ann.upload(os.urandom(MIB // 4)) for _ in range(12)), return_exceptions=True
        )
        assert sum(isinstance(one, tuple) for one in sizes) <= 4
        assert all(isinstance(one, tuple | QuotaExceeded) for one in sizes)
        assert (await ann.usage()).input_bytes <= MIB
        # What did not fit keeps no room.
        await ann.prune_uploads()
        await asyncio.gather(*(ann.upload(os.urandom(MIB // 4)) for _ in range(4)))


async def test_a_file_that_changes_while_it_is_sent_is_told(ann, tmp_path, monkeypatch):
    from gridx import client_sending

    path = tmp_path / "log"
    path.write_bytes(bytes(MIB))
    have = client_sending._have

    async def change(wire, sha256):
        answer = await have(wire, sha256)
        path.write_bytes(b"shorter")
        return answer

    monkeypatch.setattr(client_sending, "_have", change)
    with pytest.raises(InvalidField, match="log changed while it was sent"):
        await ann.upload(path)


async def test_what_had_come_of_another_file_is_sent_anew(grid, ann):
    """A coordinator whose disk lost the middle of a file says at the end that it is not the one."""
    data = os.urandom(9 * MIB)
    path = f"/blobs/{digest(data)}?size={len(data)}"
    person = Person(grid.url, grid.session, "ann", ann.token or "")
    assert (await person.ask("PUT", path, bytes(MIB))).status == 200
    assert await ann.upload(data) == (digest(data), len(data))
    assert (await ann.usage()).input_bytes == len(data)


async def test_files_are_fetched_together_and_one_by_one(ann, worker, bob, tmp_path):
    await ann.submit(spec())
    files = {"a.txt": b"a", "sub/b.bin": os.urandom(3 * MIB), "sub/deep/c": b"", "ü b": b"b"}
    job_id = await give_back(worker, bob, files)
    assert await ann.fetch(job_id, tmp_path / "all") == [tmp_path / "all" / path for path in sorted(files)]
    assert written(tmp_path / "all") == files
    await ann.fetch(job_id, tmp_path / "some", ["sub/", "a.txt"])
    assert sorted(written(tmp_path / "some")) == ["a.txt", "sub/b.bin", "sub/deep/c"]
    assert await ann.fetch_file(job_id, "ü b", tmp_path / "one") == 1
    assert await ann.read_file(job_id, "sub/b.bin") == files["sub/b.bin"]
    for name in ("nothing", "su", "a.txt/x"):
        with pytest.raises(NotFound, match="gave back no"):
            await ann.fetch(job_id, tmp_path / "none", [name])
    assert not (tmp_path / "none").exists()


async def test_a_file_of_another_content_is_not_replaced_unasked(ann, worker, bob, tmp_path):
    await ann.submit(spec())
    job_id = await give_back(worker, bob, {"a": b"new", "b": b"new too"})
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "b").write_bytes(b"my own")
    with pytest.raises(InvalidField, match="there already"):
        await ann.fetch(job_id, folder)
    assert written(folder) == {"b": b"my own"}
    await ann.fetch(job_id, folder, overwrite=True)
    assert written(folder) == {"a": b"new", "b": b"new too"}
    # What is there already is left as it is.
    before = (folder / "a").stat().st_mtime_ns
    await ann.fetch(job_id, folder)
    assert (folder / "a").stat().st_mtime_ns == before


async def test_links_do_not_lead_out_of_the_folder(ann, worker, bob, tmp_path):
    await ann.submit(spec())
    job_id = await give_back(worker, bob, {"sub/a": b"a", "b": b"b"})
    (tmp_path / "elsewhere").mkdir()
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "sub").symlink_to("../elsewhere")
    with pytest.raises(InvalidField, match="outside"):
        await ann.fetch(job_id, folder)
    assert list((tmp_path / "elsewhere").iterdir()) == []
    (folder / "sub").unlink()
    # A link in the place of the file is replaced, not followed.
    (tmp_path / "mine").write_bytes(b"mine")
    (folder / "b").symlink_to("../mine")
    with pytest.raises(InvalidField, match="there already"):
        await ann.fetch(job_id, folder)
    await ann.fetch(job_id, folder, overwrite=True)
    assert (tmp_path / "mine").read_bytes() == b"mine"
    assert not (folder / "b").is_symlink()


async def test_a_folder_that_cannot_be_written_is_an_error_in_words(ann, worker, bob, tmp_path):
    await ann.submit(spec())
    job_id = await give_back(worker, bob, {"a": b"a"})
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidField, match="cannot be written"):
        await ann.fetch(job_id, tmp_path / "file")


LIES = [
    {"path": "../x"},
    {"path": "/tmp/x"},
    {"path": "a\\..\\x"},
    {"path": "a\x00"},
    {"path": "turn\u202e"},
    {"sha256": "../" + "0" * 61},
]


@pytest.mark.parametrize("lie", LIES)
async def test_what_a_lying_coordinator_names_is_not_written(tmp_path, lie):
    async def job(request: web.Request) -> web.Response:
        return web.json_response(
            {
                "id": 1, "name": "", "owner": "ann", "state": "succeeded", "language": "python", "cpus": 1.0,
                "memory_mb": 64, "gpus": 0, "timeout_s": 1, "priority": 0, "max_attempts": 1,
                "created_at": "2030-01-01T00:00:00Z",
            }
        )  # fmt: skip

    async def listed(request: web.Request) -> web.Response:
        file = {"path": "x", "sha256": digest(b"x"), "size": 1, **lie}
        return web.json_response({"job_id": 1, "attempt": 1, "files": [file], "left": []})

    async with serving({"/jobs/1": job, "/jobs/1/files": listed}) as url, Client(url, "t") as client:
        with pytest.raises(GridError, match="not one that this version understands"):
            await client.fetch(1, tmp_path / "folder")
    assert list(tmp_path.iterdir()) == []


async def test_bytes_that_are_not_the_files_are_dropped(tmp_path):
    async def other(request: web.Request) -> web.Response:
        return web.Response(body=b"other", headers={"ETag": f'"{digest(b"these")}"'})

    async with serving({"/jobs/1/files/a": other}) as url, Client(url, "t") as client:
        with pytest.raises(GridError, match="not what the job gave back"):
            await client.fetch_file(1, "a", tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


class serving:  # noqa: N801 - reads like a function
    """A server that answers these addresses."""

    def __init__(self, handlers) -> None:
        app = web.Application()
        app.add_routes([web.get(path, handler) for path, handler in handlers.items()])
        self._runner = web.AppRunner(app)

    async def __aenter__(self) -> str:
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        return f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"

    async def __aexit__(self, *_) -> None:
        await self._runner.cleanup()


NAMES = st.text(st.sampled_from("ab./\\~ \x00ü\u202e:"), min_size=1, max_size=12)


@settings(max_examples=300, deadline=None)
@given(st.lists(NAMES, min_size=1, max_size=4))
def test_no_path_whatever_it_is_gets_out_of_the_folder(tmp_path_factory, paths):
    folder = tmp_path_factory.getbasetemp() / "somewhere"
    files = [OutputFile(path=path, sha256="0" * 64, size=0) for path in paths]
    try:
        targets = _targets(folder, files)
    except InvalidField:
        return
    for target in targets:
        assert target.resolve().is_relative_to(folder.resolve())
        assert target.resolve() != folder.resolve()
