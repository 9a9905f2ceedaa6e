"""How long files and output are kept, what a start tidies, and that the audit looks at the disk."""

from __future__ import annotations

import hashlib
import os
from datetime import timedelta
from pathlib import Path

import pytest

from gridx.clock import SystemClock
from gridx.messages import LeftFile, OutputFile
from gridx.services.coordinator.app import Coordinator
from gridx.services.coordinator.retention import Retention
from tests.integration.conftest import Grid, Person, PlayedWorker


class Later(SystemClock):
    """The same clock, some days on."""

    def __init__(self, days: float) -> None:
        self._by = timedelta(days=days)

    def now(self):
        return super().now() + self._by

    def monotonic(self) -> float:
        return super().monotonic() + self._by.total_seconds()


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def upload(who: Person, data: bytes, *, of: bytes | None = None) -> None:
    whole = data if of is None else of
    answer = await who.ask("PUT", f"/blobs/{digest(whole)}?size={len(whole)}", data)
    assert answer.status == 200, answer.content


async def have(who: Person, data: bytes) -> int:
    return (await who.ask("HEAD", f"/blobs/{digest(data)}")).status


def folder(grid: Grid) -> Path:
    return grid.settings.db_path.with_name("grid.db-blobs")


def stored(grid: Grid) -> set[str]:
    return {path.name for path in folder(grid).glob("??/*")}


async def sweep(grid: Grid, days: float) -> None:
    """What the coordinator would do so many days from now."""
    parts = grid.coordinator._parts
    assert parts is not None
    await Retention(parts.store, parts.files.disk, grid.settings.files.keep_days, Later(days)).sweep()


async def findings(grid: Grid) -> list[str]:
    return [one["message"] for one in (await grid.admin.get("/admin/audit")).json["findings"]]


async def done(worker: PlayedWorker, bob: Person, data: bytes) -> None:
    """Run the next job: it prints and gives back one file and leaves another."""
    attempt = await worker.assignment()
    await worker.start(attempt.attempt_id)
    await worker.write(attempt.attempt_id, b"printed")
    await bob.ask("PUT", f"/attempts/{attempt.attempt_id}/files/{digest(data)}?size={len(data)}", data)
    await worker.finish(
        attempt.attempt_id,
        stdout_bytes=7,
        files=[OutputFile(path="a", sha256=digest(data), size=len(data))],
        left=[LeftFile(path="b", why="it is a link")],
    )


async def test_what_was_not_used_for_the_time_goes_and_what_a_job_needs_stays(grid):
    ann, bob = await grid.person("ann"), await grid.person("bob")
    unused, used = os.urandom(100), os.urandom(200)
    await upload(ann, unused)
    await upload(ann, used)
    inputs = [{"path": "a", "sha256": digest(used), "size": len(used)}]
    job_id = await ann.submit(inputs=inputs)
    await sweep(grid, 13)
    assert stored(grid) == {digest(unused), digest(used)}
    await sweep(grid, 15)
    assert stored(grid) == {digest(used)}
    assert (await have(ann, unused), await have(ann, used)) == (404, 200)
    # Nor is it deleted by hand while the job is open.
    assert (await ann.ask("DELETE", f"/blobs/{digest(used)}")).status == 409
    assert (await ann.post("/blobs/prune")).json == {"files": 0, "bytes": 0}
    await ann.post(f"/jobs/{job_id}/cancel")
    assert (await bob.post("/blobs/prune")).json["files"] == 0
    assert (await ann.post("/blobs/prune")).json == {"files": 1, "bytes": 200}
    assert stored(grid) == set()
    assert await findings(grid) == []


async def test_files_and_output_of_a_job_are_deleted_and_it_says_so(grid):
    ann, bob = await grid.person("ann"), await grid.person("bob")
    worker = await grid.worker(bob)
    job_id = await ann.submit()
    await done(worker, bob, b"result")
    await sweep(grid, 13)
    assert (await ann.get(f"/jobs/{job_id}/output")).content == b"printed"
    await sweep(grid, 15)
    answer = await ann.get(f"/jobs/{job_id}/output")
    assert answer.status == 404
    assert "14 days" in answer.error["message"]
    job = (await ann.get(f"/jobs/{job_id}")).json
    assert (job["state"], job["stdout_bytes"], job["files"]) == ("succeeded", 7, 0)
    assert (await ann.get(f"/jobs/{job_id}/files")).json["files"] == []
    assert (await ann.get(f"/jobs/{job_id}/files/a")).status == 404
    assert (await ann.get("/blobs/usage")).json["output_bytes"] == 0
    assert stored(grid) == set()
    assert await findings(grid) == []
    # Once more finds nothing.
    await sweep(grid, 15)


async def test_what_one_job_gave_back_stays_while_another_has_the_same(grid):
    ann, bob = await grid.person("ann"), await grid.person("bob")
    worker = await grid.worker(bob)
    first, second = await ann.submit(), await ann.submit()
    await done(worker, bob, b"same")
    await done(worker, bob, b"same")
    await ann.ask("DELETE", f"/jobs/{first}/files")
    assert (await ann.get(f"/jobs/{second}/files/a")).content == b"same"
    usage = (await ann.get("/blobs/usage")).json
    assert usage["output_bytes"] == 4
    assert usage["largest"] == [{"job_id": second, "name": "", "files": 1, "bytes": 4}]


async def test_a_piece_that_nobody_goes_on_with_is_dropped_after_a_day(grid):
    ann = await grid.person("ann")
    data = os.urandom(1000)
    await upload(ann, data[:600], of=data)
    assert (await ann.get("/blobs/usage")).json["input_bytes"] == 1000
    await sweep(grid, 0.9)
    assert len(list((folder(grid) / "partial").iterdir())) == 1
    await sweep(grid, 1.1)
    assert not list((folder(grid) / "partial").iterdir())
    assert (await ann.get("/blobs/usage")).json["input_bytes"] == 0


async def test_a_start_removes_files_without_a_row_and_keeps_pieces(start_grid):
    grid = await start_grid()
    ann = await grid.person("ann")
    kept, piece = os.urandom(100), os.urandom(1000)
    await upload(ann, kept)
    await upload(ann, piece[:600], of=piece)
    await grid.coordinator.stop()
    stray = digest(b"stray")
    (folder(grid) / stray[:2]).mkdir(mode=0o700, exist_ok=True)
    (folder(grid) / stray[:2] / stray).write_bytes(b"stray")
    (folder(grid) / "partial" / f"a99-{stray}").write_bytes(b"of an attempt that is over")
    (folder(grid) / "notes.txt").write_text("the operator's own")
    again = Coordinator(grid.settings)
    await again.start()
    try:
        assert stored(grid) == {digest(kept)}
        assert [path.name.partition("-")[2] for path in (folder(grid) / "partial").iterdir()] == [
            digest(piece)
        ]
        assert (folder(grid) / "notes.txt").exists()
        back = Person(again.http_url, grid.session, "ann", ann.token)
        answer = await back.ask("PUT", f"/blobs/{digest(piece)}?size=1000&offset=600", piece[600:])
        assert answer.json["complete"]
    finally:
        await again.stop()


@pytest.mark.parametrize("change", ["gone", "short"])
async def test_the_audit_finds_a_file_that_is_lost_and_an_upload_mends_it(grid, change):
    ann = await grid.person("ann")
    data = os.urandom(500)
    await upload(ann, data)
    path = folder(grid) / digest(data)[:2] / digest(data)
    if change == "gone":
        path.unlink()
    else:
        path.write_bytes(data[:100])
    assert any(digest(data) in message for message in await findings(grid))
    assert await have(ann, data) == 404
    await upload(ann, data)
    assert await have(ann, data) == 200
    assert await findings(grid) == []
    assert (await ann.get("/blobs/usage")).json["input_bytes"] == 500


async def test_a_lost_file_is_an_error_in_words_for_who_fetches_it(grid):
    ann, bob = await grid.person("ann"), await grid.person("bob")
    worker = await grid.worker(bob)
    job_id = await ann.submit()
    await done(worker, bob, b"result")
    (folder(grid) / digest(b"result")[:2] / digest(b"result")).unlink()
    answer = await ann.get(f"/jobs/{job_id}/files/a")
    assert answer.status == 503
    assert "lost" in answer.error["message"]
