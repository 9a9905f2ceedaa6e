"""Files of jobs at the worker: fetched, kept and given back over broken lines, restarts and absences."""

from __future__ import annotations

import asyncio
import hashlib
import os

import pytest

from gridx.errors import NotFound, QuotaExceeded
from gridx.messages import Cancel, FileCaps, Finished, InputFile, LeftFile, Refused, Sending, Started
from gridx.services.worker import transfer
from gridx.services.worker.sandbox.base import RunOutcome

MIB = 1 << 20
OUT = FileCaps(total_bytes=64 * MIB, files=100, depth=4)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr("gridx.services.worker.backoff.FIRST_S", 0.01)
    monkeypatch.setattr("gridx.services.worker.transfer.Backoff.next", lambda self, **_: 0.01)


def given(grid, content: bytes, path: str = "data.csv") -> InputFile:
    """A file that the grid has for jobs."""
    sha256 = hashlib.sha256(content).hexdigest()
    grid.inputs[sha256] = content
    return InputFile(path=path, sha256=sha256, size=len(content))


def reads(sandbox):
    """A script that keeps what the inputs hold."""
    seen: list[dict[str, bytes]] = []

    async def script(request, sink, cancel):
        seen.append({file.path: place.read_bytes() for file, place in request.inputs})
        return RunOutcome("succeeded", exit_code=0, wall_ms=5)

    sandbox.script = script
    return seen


def gives(sandbox, files: dict[str, bytes], **fields):
    """A script that gives files back."""

    async def script(request, sink, cancel):
        out = []
        for path, content in files.items():
            await request.files.begin(path, len(content))
            for start in range(0, len(content), 65536):
                await request.files.write(content[start : start + 65536])
            out.append(await request.files.end())
        return RunOutcome("succeeded", exit_code=0, wall_ms=5, files=tuple(out), **fields)

    sandbox.script = script


def cached(tmp_path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in (tmp_path / "data" / "cache").iterdir()}


# -- in ----------------------------------------------------------------------------------------------------


async def test_inputs_are_fetched_once_and_kept_for_the_next_job(grid, join, sandbox, until):
    seen = reads(sandbox)
    await join()
    one, two = given(grid, os.urandom(3 * MIB), "a/large"), given(grid, b"a,b\n1,2\n")
    await grid.assign(1, inputs=[one, two])
    await until(lambda: grid.finished[1], "the first end")
    assert seen == [{"a/large": grid.inputs[one.sha256], "data.csv": b"a,b\n1,2\n"}]
    assert len(grid.ranges) == 2
    again = InputFile(path="other name", sha256=two.sha256, size=two.size)
    await grid.assign(2, inputs=[again])
    await until(lambda: grid.finished[2], "the second end")
    assert seen[1] == {"other name": b"a,b\n1,2\n"}
    assert len(grid.ranges) == 2


async def test_two_attempts_that_need_one_file_fetch_it_once(grid, join, sandbox, until):
    reads(sandbox)
    await join()
    file = given(grid, os.urandom(MIB))
    await grid.assign(1, 2, inputs=[file])
    await until(lambda: grid.finished[1] and grid.finished[2], "both ends")
    assert grid.ranges == [""]


async def test_a_broken_download_goes_on_where_it_broke_off(grid, join, sandbox, until):
    seen = reads(sandbox)
    await join()
    file = given(grid, os.urandom(3 * MIB))
    grid.cut_after = MIB
    await grid.assign(1, inputs=[file])
    await until(lambda: grid.finished[1], "the end")
    assert seen == [{"data.csv": grid.inputs[file.sha256]}]
    assert len(grid.ranges) > 1
    assert grid.ranges[1].startswith("bytes=")


async def test_a_download_that_stands_still_is_made_anew(grid, join, sandbox, until, monkeypatch):
    monkeypatch.setattr(
        transfer, "TIMEOUT", transfer.aiohttp.ClientTimeout(total=None, connect=10, sock_read=0.2)
    )
    seen = reads(sandbox)
    await join()
    file = given(grid, os.urandom(2 * MIB))
    grid.stand_still, grid.cut_after = True, MIB
    await grid.assign(1, inputs=[file])
    await until(lambda: len(grid.ranges) > 1, "a second try")
    grid.stand_still = False
    await until(lambda: grid.finished[1], "the end")
    assert seen == [{"data.csv": grid.inputs[file.sha256]}]


async def test_what_came_before_a_restart_is_taken_up(grid, join, sandbox, until, tmp_path):
    seen = reads(sandbox)
    first = await join()
    file = given(grid, os.urandom(2 * MIB))
    grid.stand_still, grid.cut_after = True, MIB
    await grid.assign(1, inputs=[file])
    await until(lambda: cached(tmp_path).get(f"{file.sha256}.part") == MIB, "half of the file")
    await first.stop(drain=False)
    grid.stand_still = False
    await join()
    await grid.assign(2, inputs=[file])
    await until(lambda: grid.finished[2], "the end")
    assert seen == [{"data.csv": grid.inputs[file.sha256]}]
    assert grid.ranges[-1] == f"bytes={MIB}-"


async def test_a_file_of_an_earlier_run_that_was_damaged_is_fetched_again(
    grid, join, sandbox, until, tmp_path
):
    seen = reads(sandbox)
    first = await join()
    file = given(grid, b"content " * 1000)
    await grid.assign(1, inputs=[file])
    await until(lambda: grid.finished[1], "the first end")
    await first.stop(drain=False)
    second = await join()
    await grid.assign(2, inputs=[file])
    await until(lambda: grid.finished[2], "the second end")
    assert len(grid.ranges) == 1
    await second.stop(drain=False)
    (tmp_path / "data" / "cache" / file.sha256).write_bytes(bytes(file.size))
    await join()
    await grid.assign(3, inputs=[file])
    await until(lambda: grid.finished[3], "the third end")
    assert len(grid.ranges) == 2
    assert seen == [{"data.csv": grid.inputs[file.sha256]}] * 3


async def test_a_coordinator_that_is_away_for_a_while_is_waited_for(grid, join, sandbox, until):
    seen = reads(sandbox)
    await join()
    file = given(grid, os.urandom(2 * MIB))
    grid.stand_still, grid.cut_after = True, MIB
    await grid.assign(1, inputs=[file])
    await until(lambda: grid.ranges, "the download to begin")
    await grid.stop()
    grid.stand_still = False
    await grid.start()
    await until(lambda: grid.finished[1], "the end")
    assert seen == [{"data.csv": grid.inputs[file.sha256]}]


async def test_a_lost_input_breaks_the_attempt_and_says_which(grid, join, sandbox, until):
    await join()
    file = given(grid, b"gone")
    grid.inputs.clear()
    await grid.assign(1, inputs=[file])
    await until(lambda: grid.finished[1], "the end")
    assert grid.finished[1][0].outcome == "broken"
    assert "data.csv is not at the coordinator any more" in grid.finished[1][0].reason
    assert not sandbox.asked


async def test_an_input_that_is_not_what_was_announced_breaks_the_attempt(
    grid, join, sandbox, until, tmp_path
):
    await join()
    file = given(grid, b"x" * 1000)
    grid.inputs[file.sha256] = b"y" * 1000
    await grid.assign(1, inputs=[file])
    await until(lambda: grid.finished[1], "the end")
    assert "is not what was announced" in grid.finished[1][0].reason
    assert not sandbox.asked
    assert cached(tmp_path) == {}


async def test_an_input_that_never_comes_ends_the_attempt_in_words(grid, join, sandbox, until, monkeypatch):
    monkeypatch.setattr(transfer, "FETCH_PATIENCE_S", 0.3)
    await join()
    file = given(grid, b"x" * 1000)
    grid.cut_after = 0

    async def never(request):
        request.transport.abort()

    grid._input = never
    monkeypatch.setattr(transfer.Transfers, "_get", _unreachable)
    await grid.assign(1, inputs=[file])
    await until(lambda: grid.finished[1], "the end")
    assert grid.finished[1][0].outcome == "broken"
    assert "data.csv does not come" in grid.finished[1][0].reason


async def _unreachable(*args):
    raise transfer.Unreachable("The coordinator cannot be reached.")


async def test_cancel_works_while_inputs_come(grid, join, sandbox, until):
    await join()
    file = given(grid, os.urandom(2 * MIB))
    grid.stand_still, grid.cut_after = True, MIB
    await grid.assign(1, inputs=[file])
    await until(lambda: grid.ranges, "the download to begin")
    await grid.send(Cancel(attempt_ids=[1], reason="enough"))
    await until(lambda: grid.finished[1], "the end")
    assert (grid.finished[1][0].outcome, grid.finished[1][0].wall_ms) == ("cancelled", 0)
    assert not sandbox.asked
    assert not [frame for frame in grid.about(1) if isinstance(frame, Started)]


async def test_inputs_that_do_not_fit_the_job_fail_before_anything_is_fetched(grid, join, sandbox, until):
    sandbox.unfit_because = "The inputs take 900 MiB and the job has 512 MiB; ask for more memory_mb."
    await join()
    await grid.assign(1, inputs=[given(grid, b"x")])
    await until(lambda: grid.finished[1], "the end")
    finished = grid.finished[1][0]
    assert (finished.outcome, finished.reason, finished.wall_ms) == ("failed", sandbox.unfit_because, 0)
    assert (grid.ranges, sandbox.asked) == ([], [])


async def test_inputs_over_the_owner_s_disk_budget_are_refused_in_words(grid, join, sandbox, until, tmp_path):
    seen = reads(sandbox)
    await join(disk_mb=16)
    await grid.assign(1, inputs=[given(grid, os.urandom(20 * MIB))], output_cap_bytes=1000)
    await until(lambda: grid.of(Refused), "the refusal")
    assert "lets jobs use 16 MiB of the disk" in grid.of(Refused)[0].reason
    assert "for the inputs" in grid.of(Refused)[0].reason
    # Files that nobody uses any more make room.
    files = [given(grid, os.urandom(6 * MIB)) for _ in range(3)]
    for number, file in enumerate(files):
        await grid.assign(number + 2, inputs=[file], output_cap_bytes=1000)
        await until(lambda n=number: grid.finished[n + 2], "the end")
    assert len(seen) == 3
    assert set(cached(tmp_path)) == {file.sha256 for file in files[1:]}


@pytest.mark.parametrize(
    ("paths", "why"),
    [
        (["a", "a"], "is there twice"),
        (["a", "a/b"], "a file and a folder"),
        (["job.py"], "job.py"),
        (["out/x"], "out"),
    ],
)
async def test_inputs_that_cannot_lie_together_are_refused(grid, join, sandbox, until, paths, why):
    await join()
    await grid.assign(1, inputs=[given(grid, b"x", path) for path in paths])
    await until(lambda: grid.of(Refused), "the refusal")
    assert why in grid.of(Refused)[0].reason


# -- out ---------------------------------------------------------------------------------------------------


def told(grid, attempt_id: int = 1) -> Finished:
    return grid.finished[attempt_id][-1]


async def test_what_a_job_gives_back_is_at_the_coordinator_before_its_end(grid, join, sandbox, spool, until):
    files = {"model.bin": os.urandom(20 * MIB), "sub/a.txt": b"a", "empty": b""}
    left = LeftFile(path="link", why="it is a symbolic link")
    gives(sandbox, files, left=(left,))
    await join()
    await grid.assign(1, outputs=["*"], out_files=OUT)
    await until(lambda: grid.finished[1], "the end")
    assert {file.path: bytes(grid.blobs[file.sha256]) for file in told(grid).files} == files
    assert told(grid).left == [left]
    assert [type(frame) for frame in grid.about(1)][-2:] == [Sending, Finished]
    await until(lambda: spool() == [], "the spool to be empty")


async def test_a_broken_upload_goes_on_where_it_broke_off(grid, join, sandbox, until):
    content = os.urandom(3 * MIB)
    gives(sandbox, {"model.bin": content})
    await join()
    grid.cut_after = MIB
    await grid.assign(1, outputs=["*"], out_files=OUT)
    await until(lambda: grid.finished[1], "the end")
    assert bytes(grid.blobs[told(grid).files[0].sha256]) == content
    assert grid.asked.count("put") == 2


async def test_files_survive_a_coordinator_that_is_away_and_a_restart_of_the_worker(
    grid, join, sandbox, spool, until
):
    content = os.urandom(2 * MIB)
    gives(sandbox, {"model.bin": content})
    first = await join()
    grid.refuse_file = transfer.Unavailable("The disk is full.")
    await grid.assign(1, outputs=["*"], out_files=OUT)
    await until(lambda: "1.end" in spool(), "the result on disk")
    assert "1.f0" in spool()
    await grid.stop()
    await first.stop(drain=False)
    assert {"1.end", "1.f0"} <= set(spool())
    grid.refuse_file = None
    await grid.start()
    await join()
    await until(lambda: grid.finished[1], "the end")
    assert bytes(grid.blobs[told(grid).files[0].sha256]) == content
    assert len(sandbox.asked) == 1
    await until(lambda: spool() == [], "the spool to be empty")


async def test_a_coordinator_that_is_back_need_not_wait_for_the_next_try(
    grid, join, sandbox, until, monkeypatch
):
    gives(sandbox, {"a": b"content"})
    await join()
    grid.refuse_file = transfer.Unavailable("The disk is full.")
    monkeypatch.setattr("gridx.services.worker.transfer.Backoff.next", lambda self, **_: 3600.0)
    await grid.assign(1, outputs=["*"], out_files=OUT)
    await until(lambda: grid.of(Sending), "the files to be on their way")
    monkeypatch.setattr("gridx.services.worker.link.Backoff.next", lambda self, **_: 0.01)
    grid.refuse_file = None
    grid.cut()
    await until(lambda: grid.finished[1], "the end")
    assert [bytes(data) for data in grid.blobs.values()] == [b"content"]


async def test_files_that_the_coordinator_lost_are_sent_again_after_a_reconnect(grid, join, sandbox, until):
    gives(sandbox, {"a": b"content"})
    await join()
    grid.acks = False
    await grid.assign(1, outputs=["*"], out_files=OUT)
    await until(lambda: grid.finished[1], "the end")
    grid.blobs.clear()
    grid.acks = True
    grid.cut()
    await until(lambda: len(grid.finished[1]) > 1, "the end once more")
    assert [bytes(data) for data in grid.blobs.values()] == [b"content"]


async def test_past_the_owner_s_quota_files_stay_and_are_named(grid, join, sandbox, until):
    gives(sandbox, {"a": b"a", "b": b"b"})
    await join()
    grid.refuse_file = QuotaExceeded("ann has 5 of 5 MiB.", "", used=5, allowed=5, wanted=1)
    await grid.assign(1, outputs=["*"], out_files=OUT)
    await until(lambda: grid.finished[1], "the end")
    assert told(grid).files == []
    assert told(grid).left == [LeftFile(path=path, why="the owner's quota is full") for path in ("a", "b")]


async def test_of_an_attempt_that_is_over_nothing_is_sent_and_its_end_is_told(
    grid, join, sandbox, spool, until
):
    gives(sandbox, {"a": b"a"})
    await join()
    grid.over.add(1)
    await grid.assign(1, outputs=["*"], out_files=OUT)
    await until(lambda: grid.finished[1], "the end")
    assert told(grid).files == []
    await until(lambda: spool() == [], "the spool to be empty")


async def test_cancel_works_while_files_are_sent(grid, join, sandbox, until):
    gives(sandbox, {"a": b"a", "b": b"b"})
    await join()
    grid.refuse_file = transfer.Unavailable("The disk is full.")
    await grid.assign(1, outputs=["*"], out_files=OUT)
    await until(lambda: grid.of(Sending), "the files to be on their way")
    await grid.send(Cancel(attempt_ids=[1], reason="enough"))
    await until(lambda: grid.finished[1], "the end")
    assert (told(grid).outcome, told(grid).files) == ("succeeded", [])
    assert [one.path for one in told(grid).left] == ["a", "b"]
    assert "cancelled" in told(grid).left[0].why


async def test_files_that_the_worker_s_disk_lost_make_the_attempt_broken(
    grid, join, sandbox, until, tmp_path
):
    gives(sandbox, {"a": b"content"})
    await join()
    grid.refuse_file = transfer.Unavailable("The disk is full.")
    await grid.assign(1, outputs=["*"], out_files=OUT)
    await until(lambda: grid.of(Sending), "the files to be on their way")
    (tmp_path / "data" / "spool" / "1.f0").write_bytes(b"changed")
    grid.refuse_file = None
    await until(lambda: grid.finished[1], "the end")
    assert told(grid).outcome == "broken"
    assert "lost what the job gave back" in told(grid).reason


async def test_files_over_the_disk_budget_are_the_machine_s_fault(grid, join, sandbox, spool, until):
    gives(sandbox, {"large": bytes(17 * MIB)})
    await join(disk_mb=16)
    await grid.assign(1, outputs=["*"], out_files=OUT, output_cap_bytes=1000)
    await until(lambda: grid.finished[1], "the end")
    assert told(grid).outcome == "broken"
    assert "16 MiB of the disk" in told(grid).reason
    await until(lambda: spool() == [], "the spool to be empty")


async def test_files_of_a_killed_attempt_are_gone(grid, join, sandbox, spool, until):
    begun = asyncio.Event()

    async def script(request, sink, cancel):
        await request.files.begin("a", 10)
        await request.files.write(b"x")
        begun.set()
        await asyncio.Event().wait()

    sandbox.script = script
    agent = await join()
    await grid.assign(1, outputs=["*"], out_files=OUT)
    await asyncio.wait_for(begun.wait(), 30)
    await agent.stop(drain=False)
    assert spool() == []


def test_a_lost_attempt_is_told_apart_from_a_file_that_has_not_come():
    assert isinstance(transfer._of_status(404, "http://x"), NotFound)
