"""What a worker does with the attempts it is given: runs them, tells all of it, and gives them back."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from gridx.errors import SandboxBroken, SetupError
from gridx.messages import (
    Accepted,
    Ack,
    Cancel,
    Drain,
    Finished,
    Offering,
    Output,
    Pause,
    Refused,
    Released,
    Renewed,
    Runtime,
    Sample,
    Started,
)
from gridx.services.worker.disk import MIN_FREE_BYTES
from gridx.services.worker.sandbox.base import RunOutcome
from gridx.services.worker.spool import marker


def states(grid):
    return [(sample.state, sample.state_reason) for sample in grid.of(Sample)]


async def test_a_job_runs_from_its_assignment_to_its_acknowledged_result(grid, join, sandbox, spool, until):
    await join()
    await grid.assign(1)
    await until(lambda: grid.finished[1], "the result")
    assert [type(frame) for frame in grid.about(1)] == [Accepted, Started, Output, Finished]
    assert grid.output(1) == b"hello 101\n"
    finished = grid.finished[1][0]
    assert (finished.outcome, finished.exit_code, finished.stdout_bytes) == ("succeeded", 0, 10)
    await until(lambda: spool() == [], "the spool to be empty")


async def test_the_sandbox_gets_what_was_assigned_and_the_owners_own_limits(grid, join, sandbox, until):
    await join(pids=17)
    await grid.assign(1, number=3, args=["a", "b"], env={"X": "1"}, cpu_millis=250, memory_mb=64, timeout_s=9)
    await until(lambda: grid.finished[1], "the result")
    request = sandbox.asked[0]
    assert (request.attempt_id, request.job_id, request.number, request.owner) == (1, 101, 3, "ann")
    assert (request.args, request.env, request.pids) == (("a", "b"), {"X": "1"}, 17)
    assert (request.cpu_millis, request.memory_mb, request.timeout_s) == (250, 64, 9)


async def test_several_run_at_once_and_what_does_not_fit_is_refused_with_the_numbers(
    grid, join, sandbox, until
):
    sandbox.script = sandbox.until_cancelled
    agent = await join(cpus=1.0, memory_mb=256)
    await grid.assign(1, 2, cpu_millis=400)
    await grid.assign(3, cpu_millis=400)
    await grid.assign(4, memory_mb=300)
    await until(lambda: len(grid.of(Refused)) == 2, "the refusals")
    reasons = {frame.attempt_id: frame.reason for frame in grid.of(Refused)}
    assert reasons == {
        3: "needs 0.4 cores; 0.2 are free",
        4: "needs 300 MiB of memory; 192 are free",
    }
    await until(lambda: sandbox.inside == {1, 2}, "both to run")
    assert sorted(agent.running) == [1, 2]
    await grid.send(Cancel(attempt_ids=[1, 2], reason="enough"))
    await until(lambda: grid.finished[1] and grid.finished[2], "both to end")
    # What they held is free again.
    await grid.assign(5, cpu_millis=1000)
    await until(lambda: sandbox.inside == {5}, "the next to run")


async def test_output_of_both_streams_arrives_while_the_job_runs(grid, join, sandbox, until):
    go_on = asyncio.Event()

    async def script(request, sink, cancel):
        await sink("stdout", b"one ")
        await sink("stderr", b"oops")
        await go_on.wait()
        await sink("stdout", b"two")
        return RunOutcome("failed", exit_code=3)

    sandbox.script = script
    await join()
    await grid.assign(1)
    await until(lambda: (grid.output(1), grid.output(1, "stderr")) == (b"one ", b"oops"), "the first output")
    assert not grid.finished[1]
    go_on.set()
    await until(lambda: grid.finished[1], "the result")
    assert grid.output(1) == b"one two"
    assert (grid.finished[1][0].outcome, grid.finished[1][0].exit_code) == ("failed", 3)


async def test_output_past_the_cap_is_cut_and_says_so(grid, join, sandbox, until):
    async def script(request, sink, cancel):
        for _ in range(40):
            await sink("stdout", b"x" * 1000)
        return RunOutcome("succeeded", exit_code=0)

    sandbox.script = script
    await join()
    await grid.assign(1, output_cap_bytes=4096)
    await until(lambda: grid.finished[1], "the result")
    assert grid.output(1) == b"x" * 4096 + marker(4096)
    assert grid.finished[1][0].stdout_bytes == len(grid.output(1))


async def test_a_flood_arrives_whole_and_never_keeps_another_attempt_waiting(grid, join, sandbox, until):
    async def script(request, sink, cancel):
        for number in range(64 if request.attempt_id == 1 else 1):
            await sink("stdout", bytes([number]) * (32 << 10))
        return RunOutcome("succeeded", exit_code=0)

    sandbox.script = script
    await join()
    await grid.assign(1, 2, output_cap_bytes=4 << 20)
    await until(lambda: grid.finished[1] and grid.finished[2], "both results")
    assert grid.output(1) == b"".join(bytes([number]) * (32 << 10) for number in range(64))
    assert grid.gaps == 0
    order = [frame.attempt_id for frame in grid.of(Finished)]
    assert order == [2, 1]


async def test_no_more_output_is_on_its_way_than_the_window_allows(grid, join, sandbox, until):
    async def script(request, sink, cancel):
        await sink("stdout", b"x" * (512 << 10))
        return RunOutcome("succeeded", exit_code=0)

    sandbox.script = script
    grid.heartbeat_s = 30.0
    await join()
    await until(lambda: grid.of(Sample), "the first sample")
    grid.renews = False
    await grid.assign(1)
    await until(lambda: len(grid.output(1)) == 64 << 10, "the window to fill")
    frames = len(grid.frames)
    # Its answers come now, and with each of them the next piece.
    grid.renews = True
    await grid.send(Renewed(seq=max(sample.seq for sample in grid.of(Sample))))
    await until(lambda: grid.finished[1], "the result")
    assert len(grid.output(1)) == 512 << 10
    assert len(grid.frames) > frames


async def test_cancel_kills_the_job_and_is_answered_by_its_end(grid, join, sandbox, until):
    sandbox.script = sandbox.until_cancelled
    await join()
    await grid.assign(1)
    await until(lambda: grid.output(1) == b"waiting\n", "the job to run")
    await grid.send(Cancel(attempt_ids=[1], reason="its owner does not want it"))
    await until(lambda: grid.finished[1], "the end")
    assert grid.finished[1][0].outcome == "cancelled"
    assert grid.finished[1][0].reason == "its owner does not want it"


async def test_cancel_of_what_is_not_here_is_answered_too(grid, join, until):
    await join()
    await grid.send(Cancel(attempt_ids=[99]))
    await until(lambda: grid.finished[99], "the answer")
    assert grid.finished[99][0].outcome == "cancelled"


async def test_what_the_machine_breaks_is_broken_and_the_worker_goes_on(grid, join, sandbox, until):
    async def script(request, sink, cancel):
        await sink("stdout", b"so far")
        if request.attempt_id == 1:
            raise SandboxBroken("The engine went away.", "Start it.")
        raise ZeroDivisionError

    sandbox.script = script
    await join()
    await grid.assign(1)
    await until(lambda: grid.finished[1], "the end")
    assert grid.finished[1][0].outcome == "broken"
    assert grid.finished[1][0].reason == "The engine went away. Start it."
    assert grid.output(1) == b"so far"
    await grid.assign(2)
    await until(lambda: grid.finished[2], "the other end")
    assert grid.finished[2][0].outcome == "broken"
    assert "ZeroDivisionError" in grid.finished[2][0].reason


async def test_an_assignment_that_comes_twice_runs_once(grid, join, sandbox, until):
    await join()
    await grid.assign(1)
    await grid.assign(1)
    await until(lambda: grid.finished[1], "the result")
    await grid.assign(1)
    await grid.assign(2)
    await until(lambda: grid.finished[2], "the next result")
    assert [request.attempt_id for request in sandbox.asked] == [1, 2]
    assert len(grid.finished[1]) == 1


async def test_an_acknowledged_attempt_that_still_runs_is_killed(grid, join, sandbox, spool, until):
    sandbox.script = sandbox.until_cancelled
    await join()
    await grid.assign(1)
    await until(lambda: 1 in sandbox.inside, "the job to run")
    await grid.send(Ack(attempt_ids=[1]))
    await until(lambda: sandbox.destroyed == [1], "the sandbox to go")
    await until(lambda: spool() == [], "the spool to be empty")
    assert not grid.finished[1]


async def test_a_worker_without_a_wall_runs_its_owners_jobs_only(grid, join, sandbox, until):
    sandbox.kind, sandbox.isolated = "process", False
    await join()
    assert grid.hellos[0].offer.isolated is False
    await grid.assign(1, owner="bob")
    await grid.assign(2, owner="Ann")
    await until(lambda: grid.finished[2], "the owner's result")
    assert [(frame.attempt_id, frame.reason) for frame in grid.of(Refused)] == [
        (1, "the worker runs jobs of ann only: its sandbox is no wall")
    ]


async def test_a_full_disk_refuses_jobs_and_says_so(grid, join, monkeypatch, until):
    agent = await join()
    full = SimpleNamespace(free=MIN_FREE_BYTES)
    monkeypatch.setattr("gridx.services.worker.disk.shutil.disk_usage", lambda path: full)
    await grid.assign(1)
    await until(lambda: grid.of(Refused), "the refusal")
    assert grid.of(Refused)[0].reason == "the worker's disk is full: 2 MiB more are needed for the output"
    await until(lambda: not agent.running, "nothing to run")


async def test_jobs_use_no_more_of_the_disk_than_the_owner_allows(grid, join, sandbox, until):
    sandbox.script = sandbox.until_cancelled
    await join(disk_mb=16)
    await grid.assign(1, output_cap_bytes=5 << 20)
    await until(lambda: 1 in sandbox.inside, "the job to run")
    # Ten of sixteen are set aside for what the first may still write.
    await grid.assign(2, output_cap_bytes=5 << 20)
    await until(lambda: grid.of(Refused), "the refusal")
    why = "the worker's owner lets jobs use 16 MiB of the disk: 4 MiB more are needed for the output"
    assert grid.of(Refused)[0].reason == why
    await grid.send(Cancel(attempt_ids=[1]))
    await until(lambda: grid.finished[1], "the first to end")
    await grid.assign(3, output_cap_bytes=5 << 20)
    await until(lambda: 3 in sandbox.inside, "the next to run")


async def test_a_lease_that_is_not_renewed_ends_with_the_sandbox(grid, join, sandbox, spool, clock, until):
    sandbox.script = sandbox.until_cancelled
    agent = await join()
    await grid.assign(1)
    await until(lambda: 1 in sandbox.inside, "the job to run")
    grid.renews = False
    clock.ahead_s += grid.lease_s + 1
    await until(lambda: sandbox.destroyed == [1], "the sandbox to go")
    await until(lambda: not agent.running and spool() == [], "nothing to be left")
    assert not grid.finished[1]
    assert not grid.of(Released)


async def test_a_renewed_lease_goes_on(grid, join, sandbox, clock, until):
    sandbox.script = sandbox.until_cancelled
    grid.heartbeat_s = 0.05
    await join()
    await grid.assign(1)
    await until(lambda: 1 in sandbox.inside, "the job to run")
    for _ in range(3):
        clock.ahead_s += grid.lease_s * 0.75
        seen = len(grid.of(Sample))
        await until(lambda seen=seen: len(grid.of(Sample)) > seen + 2, "renewed samples")
    assert sandbox.inside == {1}
    assert all(1 in sample.attempts for sample in grid.of(Sample)[-2:])


async def test_a_paused_worker_finishes_what_runs_and_takes_nothing_new(grid, join, sandbox, until):
    sandbox.script = sandbox.until_cancelled
    await join()
    await grid.assign(1)
    await until(lambda: 1 in sandbox.inside, "the job to run")
    await grid.send(Pause(paused=True))
    await until(lambda: ("paused", "it is paused") in states(grid), "the worker to say so")
    await grid.assign(2)
    await until(lambda: grid.of(Released), "it to come back")
    assert grid.of(Released)[0].reason == "the worker takes nothing new: it is paused"
    assert sandbox.inside == {1}
    await grid.send(Pause(paused=False))
    await until(lambda: grid.of(Sample)[-1].state == "online", "the worker to be back")
    await grid.assign(3)
    await until(lambda: sandbox.inside == {1, 3}, "the next to run")


async def test_a_sandbox_that_cannot_run_is_told_and_is_back_by_itself(grid, join, sandbox, until):
    await join()
    sandbox.unready = "the engine does not answer"
    await until(lambda: ("unready", sandbox.unready) in states(grid), "the worker to say so")
    await grid.assign(1)
    await until(lambda: grid.of(Refused), "the refusal")
    assert "the engine does not answer" in grid.of(Refused)[0].reason
    sandbox.unready = ""
    await until(lambda: grid.of(Sample)[-1].state == "online", "the worker to be back")
    await grid.assign(2)
    await until(lambda: grid.finished[2], "the result")
    # What it runs when it can was offered all the time.
    assert not grid.of(Offering)


async def test_a_changed_offer_is_told(grid, join, sandbox, until):
    await join()
    sandbox.runtimes = (
        *sandbox.runtimes,
        Runtime(name="extra", python="3.12", languages=["python"]),
    )
    await until(lambda: grid.of(Offering), "the new offer")
    assert [runtime.name for runtime in grid.of(Offering)[0].offer.runtimes] == ["default", "extra"]
    await grid.assign(1, runtime="extra")
    await until(lambda: grid.finished[1], "the result")


async def test_told_to_drain_it_finishes_and_leaves(grid, join, sandbox, until):
    finish = asyncio.Event()

    async def script(request, sink, cancel):
        await finish.wait()
        return RunOutcome("succeeded", exit_code=0)

    sandbox.script = script
    agent = await join()
    await grid.assign(1)
    await until(lambda: 1 in sandbox.inside, "the job to run")
    await grid.send(Drain())
    await until(lambda: grid.of(Sample)[-1].state == "draining", "the worker to say so")
    left = asyncio.create_task(agent.wait_left())
    assert not left.done()
    finish.set()
    await asyncio.wait_for(left, 30)
    assert grid.finished[1][0].outcome == "succeeded"
    await until(lambda: not agent.connected, "the connection to be closed")


async def test_a_drain_can_be_taken_back(grid, join, sandbox, until):
    sandbox.script = sandbox.until_cancelled
    await join()
    await grid.assign(1)
    await until(lambda: 1 in sandbox.inside, "the job to run")
    await grid.send(Drain())
    await until(lambda: grid.of(Sample)[-1].state == "draining", "the worker to say so")
    await grid.send(Pause(paused=False))
    await until(lambda: grid.of(Sample)[-1].state == "online", "the worker to stay")
    await grid.assign(2)
    await until(lambda: sandbox.inside == {1, 2}, "the next to run")


async def test_stopping_waits_for_what_runs(grid, join, sandbox, until):
    finish = asyncio.Event()

    async def script(request, sink, cancel):
        await finish.wait()
        await sink("stdout", b"made it")
        return RunOutcome("succeeded", exit_code=0)

    sandbox.script = script
    agent = await join(drain_s=60.0)
    await grid.assign(1)
    await until(lambda: 1 in sandbox.inside, "the job to run")
    stopping = asyncio.create_task(agent.stop())
    await until(lambda: grid.of(Sample)[-1].state == "draining", "the worker to say so")
    finish.set()
    await asyncio.wait_for(stopping, 30)
    assert grid.output(1) == b"made it"
    assert grid.finished[1][0].outcome == "succeeded"
    assert not grid.of(Released)
    assert sandbox.closed


async def test_past_its_patience_a_stopping_worker_gives_back(grid, join, sandbox, spool, until):
    sandbox.script = sandbox.until_cancelled
    agent = await join(drain_s=0.1)
    await grid.assign(1)
    await until(lambda: 1 in sandbox.inside, "the job to run")
    await asyncio.wait_for(agent.stop(), 30)
    assert sandbox.destroyed == [1]
    assert [(frame.attempt_id, frame.reason) for frame in grid.of(Released)] == [(1, "the worker stops")]
    assert not grid.finished[1]
    assert spool() == []


async def test_told_twice_to_stop_it_gives_back_at_once(grid, join, sandbox, until):
    sandbox.script = sandbox.until_cancelled
    agent = await join(drain_s=3600.0)
    await grid.assign(1)
    await until(lambda: 1 in sandbox.inside, "the job to run")
    first = asyncio.create_task(agent.stop())
    await until(lambda: grid.of(Sample)[-1].state == "draining", "the worker to say so")
    await asyncio.wait_for(agent.stop(), 30)
    await first
    assert sandbox.destroyed == [1]
    assert [frame.attempt_id for frame in grid.of(Released)] == [1]


async def test_a_second_worker_on_one_data_folder_refuses_to_start(join):
    await join()
    with pytest.raises(SetupError, match="Another worker uses the data folder"):
        await join()
