"""The owner's say over a worker: rules that open and close it, and orders given at the machine."""

from __future__ import annotations

import asyncio
import json
import stat
from datetime import UTC, datetime

import pytest

from gridx import control
from gridx.control import CONTROL_FILE, Order, tell
from gridx.errors import Conflict, Forbidden, SetupError, Unavailable
from gridx.messages import Ack, Pause, Released, Resumed, Sample
from gridx.services.worker import agent as agent_module
from gridx.services.worker.presence import Presence
from gridx.services.worker.sandbox.base import RunOutcome
from gridx.services.worker.sightings import Sensors
from gridx.services.worker.steering import GIVEN_BACK_FILE

MONDAY_NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)
MONDAY_NIGHT = datetime(2026, 1, 5, 22, tzinfo=UTC)


class Place:
    """Where the machine stands: a test moves the clock, the people and the plug."""

    def __init__(self) -> None:
        self.local = MONDAY_NOON
        self.idle_s = 9999.0
        self.mains = True
        self.busy_s = 0.0
        self.at = 0.0

    @property
    def sensors(self) -> Sensors:
        return Sensors(
            local_time=lambda: self.local,
            busy_s=lambda: self.busy_s,
            presence=lambda: Presence(self.idle_s),
            on_mains=lambda: self.mains,
            monotonic=self._tick,
        )

    def _tick(self) -> float:
        self.at += 10.0
        return self.at


@pytest.fixture
def place():
    return Place()


@pytest.fixture
def order(settings):
    """Gives an order at the machine, as ``gridx worker`` does."""

    async def give(do: str = "status", **fields):
        return await asyncio.to_thread(tell, settings().data_path, Order(do=do, **fields))

    return give


def last_state(grid):
    """What the worker last said of itself; empty before its first sign of life."""
    samples = grid.of(Sample)
    return (samples[-1].state, samples[-1].state_reason) if samples else ("", "")


# -- rules -------------------------------------------------------------------------------------------------


async def test_a_worker_outside_its_hours_takes_nothing_and_opens_by_itself(
    grid, join, place, sandbox, until
):
    await join(sensors=place.sensors, hours="18:00-08:00")
    # It is told from the first word on.
    assert (grid.hellos[0].state, grid.hellos[0].state_reason) == (
        "closed",
        "outside its hours; it opens at 18:00",
    )
    await until(lambda: grid.of(Sample), "a sign of life")
    assert grid.of(Sample)[0].state == "closed"
    assert last_state(grid) == ("closed", "outside its hours; it opens at 18:00")
    assert grid.hellos[0].offer.rules == ["hours: 18:00-08:00"]
    await grid.assign(1)
    await until(lambda: grid.of(Released), "it to come back")
    why = "the worker takes nothing new: outside its hours; it opens at 18:00"
    assert grid.of(Released)[0].reason == why
    place.local = MONDAY_NIGHT
    await until(lambda: last_state(grid) == ("online", ""), "the worker to open")
    await grid.assign(2)
    await until(lambda: grid.finished[2], "the result")


@pytest.mark.parametrize("when_closed", ["finish", "give_back"])
async def test_an_owner_who_is_back_ends_what_runs_or_lets_it_finish(
    grid, join, place, sandbox, until, when_closed
):
    sandbox.script = sandbox.until_cancelled
    agent = await join(sensors=place.sensors, only_when_idle_s=60.0, when_closed=when_closed)
    await grid.assign(1)
    await until(lambda: 1 in sandbox.inside, "the job to run")
    place.idle_s = 1.0
    await until(lambda: last_state(grid)[0] == "closed", "the worker to close")
    if when_closed == "finish":
        assert sandbox.inside == {1}
        assert not grid.of(Released)
        return
    await until(lambda: grid.of(Released), "the job to be given back")
    assert grid.of(Released)[0] == Released(
        attempt_id=1, reason="somebody is at the machine; it opens after 1 min without input"
    )
    assert sandbox.destroyed == [1]
    await until(lambda: not agent.running, "nothing to run")
    place.idle_s = 61.0
    await until(lambda: last_state(grid)[0] == "online", "the worker to open")


async def test_without_mains_power_a_worker_that_wants_it_closes(grid, join, place, sandbox, until):
    sandbox.script = sandbox.until_cancelled
    await join(sensors=place.sensors, on_battery=False, when_closed="give_back")
    await grid.assign(1)
    await until(lambda: 1 in sandbox.inside, "the job to run")
    place.mains = False
    await until(lambda: grid.of(Released), "the job to be given back")
    assert grid.of(Released)[0].reason == "the machine runs on battery"


async def test_a_busy_machine_takes_nothing_new_but_gives_nothing_back(grid, join, place, sandbox, until):
    sandbox.script = sandbox.until_cancelled
    await join(sensors=place.sensors, max_load=2.0, when_closed="give_back")
    await until(lambda: last_state(grid)[0] == "online", "the load to be known")
    await grid.assign(1)
    await until(lambda: 1 in sandbox.inside, "the job to run")

    def compile_something() -> bool:
        place.busy_s += 1000.0
        return last_state(grid)[0] == "closed"

    await until(compile_something, "the worker to close")
    assert last_state(grid)[1] == "other programs use 2 processors or more"
    assert sandbox.inside == {1}
    await until(lambda: last_state(grid)[0] == "online", "the load to fall")
    assert not grid.of(Released)


async def test_what_jobs_use_is_counted_while_they_run_and_after(grid, join, sandbox, until):
    """It is left out of the machine's own load."""
    halfway, go_on = asyncio.Event(), asyncio.Event()

    async def script(request, sink, cancel):
        request.meter.read(1500)
        halfway.set()
        await go_on.wait()
        request.meter.read(4000)
        return RunOutcome("succeeded", exit_code=0)

    sandbox.script = script
    agent = await join()
    await grid.assign(1)
    await halfway.wait()
    assert agent._conversation.attempts.cpu_s == 1.5
    go_on.set()
    await until(lambda: not agent.running, "the job to end")
    assert agent._conversation.attempts.cpu_s == 4.0


async def test_jobs_of_others_than_the_named_users_are_refused(grid, join, until):
    await join(only_users=["bob"])
    assert grid.hellos[0].offer.only_users == ["bob"]
    await grid.assign(1, owner="cid")
    await grid.assign(2, owner="Bob")
    await grid.assign(3, owner="ann")
    await until(lambda: grid.finished[2] and grid.finished[3], "the results")
    assert not grid.finished[1]


# -- at the machine ------------------------------------------------------------------------------------------


async def test_a_pause_at_the_machine_holds_over_restarts_until_it_is_resumed_there(
    grid, join, order, sandbox, until
):
    sandbox.script = sandbox.until_cancelled
    agent = await join()
    await grid.assign(1)
    await until(lambda: 1 in sandbox.inside, "the job to run")
    report = await order("pause")
    assert (report.state, report.reason, report.given_back) == ("paused", "at the machine, by its owner", 0)
    assert [held.job_id for held in report.running] == [101]
    await until(lambda: last_state(grid) == ("paused", "at the machine, by its owner"), "it to be told")
    assert sandbox.inside == {1}
    await agent.stop(drain=False)

    await join()
    await until(lambda: len(grid.hellos) == 2, "it to be back")
    assert (await order()).state == "paused"
    report = await order("resume")
    assert (report.state, report.reason) == ("online", "")
    # Nobody knows here whether the coordinator keeps a pause, too.
    await until(lambda: grid.of(Resumed), "the coordinator to be told")
    await until(lambda: last_state(grid)[0] == "online", "the worker to open")
    await agent.stop(drain=False)


async def test_a_pause_that_gives_back_answers_when_the_sandboxes_are_gone(grid, join, order, sandbox, until):
    sandbox.script = sandbox.until_cancelled
    await join()
    for id in (1, 2):
        await grid.assign(id)
    await until(lambda: sandbox.inside == {1, 2}, "the jobs to run")
    report = await order("pause", give_back=True)
    assert (report.given_back, report.running) == (2, [])
    assert not sandbox.inside
    await until(lambda: len(grid.of(Released)) == 2, "both to be told")
    assert {frame.reason for frame in grid.of(Released)} == {"its owner wants the machine"}


async def test_the_owner_has_the_machine_back_while_the_coordinator_is_away(
    grid, join, order, sandbox, until
):
    sandbox.script = sandbox.until_cancelled
    await join()
    await grid.assign(1)
    await until(lambda: 1 in sandbox.inside, "the job to run")
    await grid.stop()
    report = await order("pause", give_back=True)
    assert (report.state, report.given_back) == ("paused", 1)
    assert not sandbox.inside
    await until(lambda: report_is_away(order), "the line to be known as broken")
    await order("resume")
    await grid.start()
    await until(lambda: len(grid.hellos) == 2, "the worker to be back")
    # So it is no loss, which would count as the machine's failure.
    assert (grid.hellos[1].running, grid.hellos[1].released) == ([], [1])
    await until(lambda: grid.of(Resumed), "the wish to be told")
    # Once it is acknowledged nobody needs to hear of it again.
    await grid.send(Ack(attempt_ids=[1]))
    grid.cut()
    await until(lambda: len(grid.hellos) == 3, "the worker to be back again")
    assert grid.hellos[2].released == []


async def test_what_a_stopping_worker_could_not_tell_is_told_at_the_next_start(grid, join, sandbox, until):
    sandbox.script = sandbox.until_cancelled
    agent = await join()
    await grid.assign(1)
    await until(lambda: 1 in sandbox.inside, "the job to run")
    await grid.stop()
    await until(lambda: not agent.connected, "the line to break")
    await agent.stop(drain=False)
    await grid.start()
    second = await join()
    await until(lambda: len(grid.hellos) == 2, "the worker to be back")
    assert grid.hellos[1].released == [1]
    await grid.send(Ack(attempt_ids=[1]))
    await until(lambda: not second._conversation.attempts.given_back, "it to be acknowledged")
    await second.stop(drain=False)
    await join()
    await until(lambda: len(grid.hellos) == 3, "the worker to be back again")
    assert grid.hellos[2].released == []


@pytest.mark.parametrize("damage", [b"", b"[0]", b"[1, ", b'["a"]', b"\xff"])
async def test_a_note_that_is_damaged_names_nothing(grid, join, settings, damage):
    folder = settings().data_path
    folder.mkdir(mode=0o700)
    (folder / GIVEN_BACK_FILE).write_bytes(damage)
    await join()
    assert grid.hellos[0].released == []


async def report_is_away(order) -> bool:
    return not (await order()).connected


async def test_a_resume_of_the_owners_elsewhere_ends_the_pause_here_and_an_admins_does_not(
    grid, join, order, until
):
    agent = await join()
    await order("pause")
    await grid.send(Pause(paused=True))
    await until(lambda: agent.standing.paused, "the pause to arrive")
    await grid.send(Pause(paused=False, by_owner=False))
    await until(lambda: not agent.standing.paused, "the resume to arrive")
    assert (await order()).state == "paused"
    await grid.send(Pause(paused=False, by_owner=True))
    await until(lambda: last_state(grid)[0] == "online", "the worker to open")


async def test_a_pause_from_elsewhere_can_give_back(grid, join, sandbox, until):
    sandbox.script = sandbox.until_cancelled
    await join()
    await grid.assign(1)
    await until(lambda: 1 in sandbox.inside, "the job to run")
    await grid.send(Pause(paused=True, give_back=True, by_owner=True))
    await until(lambda: grid.of(Released), "the job to be given back")
    assert grid.of(Released)[0].reason == "its owner wants the machine"
    await until(lambda: last_state(grid)[0] == "paused", "the pause to show")


async def test_a_drain_at_the_machine_finishes_and_leaves_or_is_called_off(grid, join, order, sandbox, until):
    release = asyncio.Event()

    async def script(request, sink, cancel):
        await release.wait()
        return await type(sandbox)().script(request, sink, cancel)

    sandbox.script = script
    agent = await join()
    await grid.assign(1)
    await until(lambda: 1 in sandbox.inside, "the job to run")
    assert (await order("drain")).state == "draining"
    assert (await order("resume")).state == "online"
    await order("drain")
    release.set()
    await agent.wait_left()
    assert grid.finished[1]


async def test_a_drain_does_not_wait_for_a_coordinator_that_stays_away(
    grid, join, order, sandbox, spool, until, monkeypatch
):
    monkeypatch.setattr(agent_module, "AWAY_S", 0.1)
    grid.acks = False
    agent = await join()
    await grid.assign(1)
    await until(lambda: grid.finished[1], "the result")
    await grid.stop()
    await until(lambda: not agent.connected, "the line to break")
    await order("drain")
    await agent.wait_left()
    # The result waits for the next start.
    assert "1.end" in spool()
    await grid.start()


# -- who may ------------------------------------------------------------------------------------------------


async def test_only_who_can_read_the_private_file_gives_orders(grid, join, settings, order):
    agent = await join()
    path = settings().data_path / CONTROL_FILE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    address = json.loads(path.read_bytes())
    path.write_text(json.dumps({**address, "secret": "guessed"}))
    with pytest.raises(Forbidden):
        await order("pause")
    path.write_text(json.dumps(address))
    report = await order()
    assert (report.state, report.worker_id, report.owner, report.connected) == ("online", 7, "ann", True)
    await agent.stop(drain=False)
    assert not path.exists()
    with pytest.raises(SetupError, match="No worker runs on this machine"):
        await order()


@pytest.mark.parametrize(
    "line", [b"", b"\n", b"{}\n", b"[1]\n", b"\xff\n", b"x" * 10_000, b'{"do": "kill"}\n']
)
async def test_nonsense_at_the_door_is_answered_or_dropped_and_harms_nothing(
    grid, join, settings, order, line
):
    await join()
    port = json.loads((settings().data_path / CONTROL_FILE).read_bytes())["port"]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(line)
    writer.write_eof()
    answer = await reader.read()
    assert answer == b"" or b"error" in answer
    writer.close()
    assert (await order()).state == "online"


async def test_a_stale_file_or_a_stranger_on_the_port_is_no_worker(tmp_path, monkeypatch):
    path = tmp_path / CONTROL_FILE
    for text in ("", "{", '{"port": 99999, "secret": "x"}'):
        path.write_text(text)
        with pytest.raises(SetupError):
            await asyncio.to_thread(tell, tmp_path, Order())

    async def stranger(reader, writer):
        await reader.readline()
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async def mute(reader, writer):
        await reader.read()
        writer.close()

    for serve, error in ((stranger, SetupError), (mute, Unavailable)):
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        path.write_text(json.dumps({"port": port, "secret": "x"}))
        monkeypatch.setattr(control, "ANSWER_S", 0.2)
        with pytest.raises(error):
            await asyncio.to_thread(tell, tmp_path, Order())
        server.close()
    # Nobody listens there any more.
    with pytest.raises(SetupError):
        await asyncio.to_thread(tell, tmp_path, Order())


async def test_a_worker_that_stops_takes_no_orders(grid, join, order, sandbox, until):
    async def script(request, sink, cancel):
        await asyncio.Event().wait()

    sandbox.script = script
    agent = await join(drain_s=60.0)
    await grid.assign(1)
    await until(lambda: 1 in sandbox.inside, "the job to run")
    stopping = asyncio.create_task(agent.stop())
    await until(lambda: agent.standing.draining, "it to stop")
    with pytest.raises(Conflict, match="stopping"):
        await order("resume")
    assert (await order()).state == "draining"
    await agent.stop(drain=False)
    await stopping
