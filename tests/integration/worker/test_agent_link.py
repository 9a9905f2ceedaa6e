"""The worker's connection: broken, refused, taken over, dead silent; nothing is doubled or lost."""

from __future__ import annotations

import asyncio
import logging

import pytest

from gridx.errors import Conflict, Unauthenticated
from gridx.messages import Finished, Output, Rejected, Released, Sample, Started
from gridx.services.worker.sandbox.base import RunOutcome


@pytest.fixture
def paced(sandbox):
    """The job writes a piece whenever the test says so, and ends when told to."""
    pieces: asyncio.Queue[bytes | None] = asyncio.Queue()

    async def script(request, sink, cancel):
        while (piece := await pieces.get()) is not None:
            await sink("stdout", piece)
        return RunOutcome("succeeded", exit_code=0, wall_ms=7)

    sandbox.script = script
    return pieces


async def test_a_broken_connection_is_made_again_and_the_job_never_notices(grid, join, sandbox, paced, until):
    await join()
    await grid.assign(1)
    paced.put_nowait(b"one ")
    await until(lambda: grid.output(1) == b"one ", "the first piece")
    for number in range(3):
        grid.cut()
        paced.put_nowait(b"more%d " % number)
        await until(lambda n=number: len(grid.hellos) == n + 2, "the worker to be back")
    paced.put_nowait(None)
    await until(lambda: grid.finished[1], "the result")
    assert grid.output(1) == b"one more0 more1 more2 "
    assert grid.gaps == 0
    assert [hello.running for hello in grid.hellos[1:]] == [[1], [1], [1]]
    assert len({hello.identity for hello in grid.hellos}) == 1
    assert len(sandbox.asked) == 1


async def test_what_the_coordinator_has_is_not_sent_again(grid, join, paced, until):
    await join()
    await grid.assign(1)
    paced.put_nowait(b"x" * 1000)
    await until(lambda: len(grid.output(1)) == 1000, "the first piece")
    grid.cut()
    await until(lambda: len(grid.hellos) == 2, "the worker to be back")
    paced.put_nowait(b"y" * 10)
    paced.put_nowait(None)
    await until(lambda: grid.finished[1], "the result")
    assert sum(len(frame.data) for frame in grid.of(Output)) == 1010
    assert grid.finished[1][0].stdout_bytes == 1010


async def test_while_the_coordinator_is_away_jobs_go_on_and_results_are_kept(
    grid, join, sandbox, paced, spool, until
):
    agent = await join()
    await grid.assign(1)
    paced.put_nowait(b"before ")
    await until(lambda: grid.output(1) == b"before ", "the first piece")
    await grid.stop()
    await until(lambda: not agent.connected, "the worker to notice")
    paced.put_nowait(b"meanwhile")
    paced.put_nowait(None)
    await until(lambda: "1.end" in spool(), "the result to be on disk")
    await grid.start()
    await until(lambda: grid.finished[1], "the result")
    assert grid.hellos[-1].spooled == [1]
    assert grid.output(1) == b"before meanwhile"
    await until(lambda: spool() == [], "the spool to be empty")


async def test_a_result_is_told_until_it_is_acknowledged(grid, join, sandbox, spool, until):
    grid.acks = False
    await join()
    await grid.assign(1)
    await until(lambda: grid.finished[1], "the result")
    assert "1.end" in spool()
    grid.cut()
    await until(lambda: len(grid.finished[1]) == 2, "the result again")
    # An unacknowledged result is still held: nobody else should run it meanwhile.
    await until(lambda: 1 in grid.of(Sample)[-1].attempts, "a sample that names it")
    grid.acks = True
    grid.cut()
    await until(lambda: spool() == [], "the spool to be empty")
    assert all(end == grid.finished[1][0] for end in grid.finished[1])


async def test_a_result_outlives_its_process(grid, join, sandbox, spool, until):
    grid.acks = False
    first = await join()
    await grid.assign(1)
    await until(lambda: grid.finished[1], "the result")
    await first.stop(drain=False)
    assert sorted(spool()) == ["1.end", "1.stdout"]
    grid.acks = True
    grid.finished.clear()
    grid.stored.clear()
    seen = len(grid.frames)

    await join()
    await until(lambda: grid.finished[1], "the result from the disk")
    assert grid.hellos[-1].spooled == [1]
    told = [type(f) for f in grid.frames[seen:] if getattr(f, "attempt_id", None) == 1]
    assert told == [Started, Output, Finished]
    assert grid.output(1) == b"hello 101\n"
    await until(lambda: spool() == [], "the spool to be empty")
    assert len(sandbox.asked) == 1


async def test_what_ran_when_the_process_died_is_not_named(grid, join, sandbox, spool, settings, until):
    folder = settings().data_path / "spool"
    folder.mkdir(parents=True)
    (folder / "5.stdout").write_bytes(b"half a ")
    await join()
    assert (grid.hellos[0].running, grid.hellos[0].spooled) == ([], [])
    assert spool() == []


async def test_attempts_that_are_not_current_any_more_are_dropped_at_the_reconnect(
    grid, join, sandbox, paced, spool, until
):
    agent = await join()
    await grid.assign(1)
    await until(lambda: 1 in sandbox.inside, "the job to run")
    grid.over.add(1)
    grid.cut()
    await until(lambda: sandbox.destroyed == [1], "the sandbox to go")
    await until(lambda: not agent.running and spool() == [], "nothing to be left")
    assert not grid.finished[1]


async def test_a_number_that_is_given_anew_is_another_attempt(grid, join, sandbox, until):
    """As after the coordinator's database was restored from a copy."""
    agent = await join()
    await grid.assign(1, job_id=101)
    await until(lambda: grid.finished[1] and not agent._conversation.attempts.reports, "the first to be over")
    grid.cut()
    await until(lambda: len(grid.hellos) == 2, "the worker to be back")
    grid.stored.clear()
    await grid.assign(1, job_id=102)
    await until(lambda: len(grid.finished[1]) == 2, "the second to end")
    assert [request.job_id for request in sandbox.asked] == [101, 102]
    assert grid.output(1) == b"hello 102\n"


async def test_a_number_that_is_given_anew_too_soon_is_given_back(grid, join, sandbox, until):
    gone = asyncio.Event()

    async def will_not_go(request, sink, cancel):
        try:
            await asyncio.Event().wait()
        finally:
            await gone.wait()

    sandbox.script = will_not_go
    await join()
    await grid.assign(1, job_id=101)
    await until(lambda: 1 in sandbox.inside, "the job to run")
    grid.over.add(1)
    grid.cut()
    await until(lambda: len(grid.hellos) == 2, "the worker to be back")
    await grid.assign(1, job_id=102)
    await until(lambda: grid.of(Released), "it to be given back")
    gone.set()
    await until(lambda: not sandbox.inside, "the first to go")
    assert [request.job_id for request in sandbox.asked] == [101]


async def test_an_attempt_that_was_lost_on_the_way_is_given_back_at_once(
    grid, join, sandbox, paced, monkeypatch, until
):
    """Named in the hello, and gone before the welcome: the coordinator need not wait for its lease to end."""
    agent = await join()
    await grid.assign(1)
    await until(lambda: 1 in sandbox.inside, "the job to run")
    joined = agent._conversation.joined

    def joined_late(hello, sent_at, welcome):
        agent._conversation.attempts.kill(1, "its lease ran out")
        return joined(hello, sent_at, welcome)

    monkeypatch.setattr(agent._conversation, "joined", joined_late)
    grid.cut()
    await until(lambda: grid.of(Released), "it to be given back")
    assert grid.of(Released)[0].attempt_id == 1


async def test_a_dead_silent_line_is_given_up(grid, join, until, monkeypatch, caplog):
    grid.heartbeat_s = 0.05
    monkeypatch.setattr("gridx.services.worker.link.GRACE_S", 0.1)
    await join()
    await until(lambda: grid.of(Sample), "the first sample")
    grid.renews = False
    await until(lambda: len(grid.hellos) > 1, "a new connection")
    assert "nothing was heard" in caplog.text


async def test_a_coordinator_that_is_away_at_the_start_is_waited_for(grid, join, caplog, until):
    await grid.stop()
    agent = await join()
    assert not agent.connected
    assert "cannot be reached" in caplog.text
    await grid.start()
    await until(lambda: agent.connected, "the worker to join")


async def test_a_newer_connection_with_the_same_identity_ends_this_worker(grid, join, until):
    agent = await join()
    await grid.send(
        Rejected(code="conflict", message="Another connection took over.", hint="Give it its own folder.")
    )
    await grid.sockets[-1].close()
    error = await asyncio.wait_for(agent.wait_failed(), 30)
    assert isinstance(error, Conflict)
    assert "took over" in error.message
    assert error.exit_code != 0


async def test_a_refused_frame_ends_nothing(grid, join, until):
    agent = await join()
    await grid.send(Rejected(code="conflict", message="This frame makes no sense."))
    await grid.assign(1)
    await until(lambda: grid.finished[1], "the result")
    assert len(grid.hellos) == 1
    assert agent.connected


async def test_another_protocol_is_told_once_with_what_to_install(grid, join, caplog, until):
    grid.mismatch = True
    agent = await join()
    assert not agent.connected
    text = "The coordinator is Grid-X 9.9.9 and speaks protocol 99; this worker is "
    assert caplog.text.count(text) == 1
    assert "Install Grid-X 9.9.9 here." in caplog.text


async def test_a_frame_that_is_not_understood_is_a_reason_to_connect_anew(grid, join, caplog, until):
    await join()
    await grid.sockets[-1].send_str('[{"type": "surprise"}]')
    await until(lambda: len(grid.hellos) == 2, "a new connection")
    assert "is not understood" in caplog.text


async def test_signed_out_in_mid_life_it_signs_in_again(grid, join, until):
    await join()
    grid.tokens.clear()
    grid.cut()
    await until(lambda: len(grid.hellos) == 2, "the worker to be back")
    assert grid.asked == ["register", "register", "login"]


async def test_signed_out_and_without_a_password_it_ends_and_says_why(grid, join, until):
    token = "given"
    grid.tokens[token] = "ann"
    agent = await join(password=None, token=token)
    grid.tokens.clear()
    grid.cut()
    error = await asyncio.wait_for(agent.wait_failed(), 30)
    assert isinstance(error, Unauthenticated)
    assert "--password-file" in error.hint
    assert error.exit_code == 3


async def test_connections_and_starts_are_logged_for_people(grid, join, sandbox, caplog, until):
    caplog.set_level(logging.INFO, "gridx.worker")
    await join()
    await grid.assign(1)
    await until(lambda: grid.finished[1], "the result")
    assert f"connected to {grid.ws_url}/ws/worker as worker 7 (owner: ann)" in caplog.text
    assert "attempt 1 of job 101 started" in caplog.text
    assert "attempt 1 of job 101 ended: succeeded" in caplog.text
