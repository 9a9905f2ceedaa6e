"""Listings, searches and output."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest

from gridx.messages import AttemptState, JobState
from gridx.services.coordinator.store import array_reads, attempts, filing, job_reads, reads
from gridx.services.coordinator.store.orm import Statement
from gridx.services.coordinator.store.output import CHUNK_BYTES
from gridx.services.coordinator.store.records import OutputChunk


async def ids(store, **asked):
    return [job.id for job in await store.job_page(**{"user_id": None, **asked})]


async def test_a_page_is_newest_first_and_the_next_begins_where_it_ended(grid):
    for number in range(7):
        await grid.submit(user=grid.bob if number == 3 else grid.ann, hold=0)
    assert await ids(grid.store, limit=3) == [7, 6, 5]
    assert await ids(grid.store, limit=3, before=5) == [4, 3, 2]
    assert await ids(grid.store, limit=3, before=2) == [1]
    assert await ids(grid.store, user_id=grid.bob) == [4]
    assert await ids(grid.store, limit=0) == []


async def test_a_page_of_several_states_is_in_order(grid):
    for number in range(9):
        job = await grid.submit(hold=0)
        if number % 3 == 0:
            await grid.store.cancel(job.id, "")
        elif number % 3 == 1:
            await grid.assign(job.id)
    states = [JobState.CANCELLED, JobState.QUEUED]
    assert await ids(grid.store, states=states) == [9, 7, 6, 4, 3, 1]
    assert await ids(grid.store, states=states, limit=3, before=7) == [6, 4, 3]
    assert await ids(grid.store, states=states, user_id=grid.bob) == []
    assert await ids(grid.store, states=[JobState.ASSIGNED], user_id=grid.ann) == [8, 5, 2]


async def test_a_search_is_literal(grid):
    names = ["100%", "a_b", "a\\b", "axb", "Résumé", "'; DROP TABLE jobs; --", "[*?]"]
    for name in names:
        await grid.submit(hold=0, name=name)
    for number, name in enumerate(names, 1):
        assert await ids(grid.store, text=name) == [number]
    assert await ids(grid.store, text="%") == [1]
    assert await ids(grid.store, text="_") == [2]
    assert await ids(grid.store, text="résumé") == [5]
    assert await ids(grid.store, text="nothing like it") == []
    for impossible in ("a\0b", "\ud800", "x" * 10_000):
        assert await ids(grid.store, text=impossible) == []


async def test_a_search_looks_at_name_id_worker_and_state(grid):
    for name in ("alpha", "beta", "gamma"):
        await grid.submit(hold=0, name=name)
    await grid.assign(2)
    await grid.store.cancel(3, "")
    assert await ids(grid.store, text="ALPH") == [1]
    assert await ids(grid.store, text="2") == [2]
    assert await ids(grid.store, text="bob's") == [2]
    assert await ids(grid.store, text="cancel") == [3]
    assert await ids(grid.store, text="cancel", states=[JobState.QUEUED]) == []
    assert await ids(grid.store, text="a", user_id=grid.ann, before=3, limit=1) == [2]


async def test_many_jobs_are_found_by_their_ids(grid):
    made = await grid.store.submit(grid.ann, [grid.new_job(hold=0)] * 700, max_queued=1000)
    assert [job.id for job in await grid.store.jobs_by_id([5, 3, 3, 9999, -1])] == [3, 5]
    assert await grid.store.jobs_by_id(job.id for job in made.jobs) == made.jobs
    assert len(await grid.store.payloads(range(1, 701))) == 700
    assert await grid.store.jobs_by_id([]) == []
    assert await grid.store.machine_faults([]) == {}


async def test_what_was_charged_lately_is_known_after_a_restart(grid, clock, reopen):
    for charge in (0, 30):
        _, attempt_id = await grid.run()
        done = await grid.store.finish_attempt(attempt_id, grid.end(charge=charge))
    await grid.store.close()
    again = await reopen()
    try:
        assert await again.recent_usage(datetime(2029, 1, 1, tzinfo=UTC)) == [
            (grid.ann, done.job.ended_at, 30)
        ]
        assert await again.recent_usage(clock.now()) == []
    finally:
        await again.close()


async def test_live_attempts_come_with_their_jobs(grid):
    waiting = await grid.submit()
    assigned = await grid.assign((await grid.submit()).id)
    _, running = await grid.run()
    cancelled, cancelling = await grid.run()
    await grid.store.cancel(cancelled.id, "")
    _, ended = await grid.run()
    await grid.store.finish_attempt(ended, grid.end())
    live = await grid.store.live_attempts()
    assert [attempt.id for attempt, _ in live] == [assigned, running, cancelling]
    assert all(job.current_attempt_id == attempt.id for attempt, job in live)
    assert await grid.store.waiting_jobs() == [waiting]


class TestOutput:
    async def test_a_stream_grows_by_what_follows(self, grid):
        _, attempt_id = await grid.run()

        async def append(offset, data, stream="stdout"):
            return (await grid.store.append_output([OutputChunk(attempt_id, stream, offset, data)]))[0]

        assert await append(0, b"hello ") == 6
        assert await append(0, b"hello ") == 6
        assert await append(3, b"lo world") == 11
        assert await append(99, b"a gap") == 11
        assert await append(0, b"oops", "stderr") == 4
        assert await append(11, b"") == 11
        assert await grid.store.read_output(attempt_id, "stdout", 0, 100) == b"hello world"
        assert await grid.store.read_output(attempt_id, "stdout", 4, 3) == b"o w"
        assert await grid.store.read_output(attempt_id, "stderr", 0, 100) == b"oops"
        assert await grid.store.read_output(attempt_id, "stdout", 11, 100) == b""
        assert await grid.store.read_output(attempt_id, "stdout", 2**70, 2**70) == b""
        job = await grid.store.job(1)
        assert (job.stdout_bytes, job.stderr_bytes) == (11, 4)
        await grid.sound()

    async def test_chunks_of_one_call_follow_each_other(self, grid):
        _, one = await grid.run()
        _, two = await grid.run()
        lengths = await grid.store.append_output(
            [
                OutputChunk(one, "stdout", 0, b"ab"),
                OutputChunk(two, "stdout", 0, b"x"),
                OutputChunk(one, "stdout", 2, b"cd"),
                OutputChunk(one, "stdout", 9, b"gap"),
                OutputChunk(999, "stdout", 0, b"nobody"),
            ]
        )
        assert lengths == [2, 1, 4, 4, 0]
        assert await grid.store.read_output(one, "stdout", 0, 9) == b"abcd"

    async def test_output_of_any_size_comes_back_from_any_offset(self, grid):
        _, attempt_id = await grid.run()
        whole = bytes(range(256)) * 1500
        at = 0
        for size in (1, 10, 5000, 3, CHUNK_BYTES, 2, 200_000, 4095, 1, 10**9):
            part = whole[at : at + size]
            (stored,) = await grid.store.append_output([OutputChunk(attempt_id, "stdout", at, part)])
            at += len(part)
            assert stored == at
        assert at == len(whole)
        for offset in (0, 1, 4999, CHUNK_BYTES - 1, CHUNK_BYTES, 123_456, at - 1):
            for limit in (1, 70_000, at):
                found = await grid.store.read_output(attempt_id, "stdout", offset, limit)
                assert found == whole[offset : offset + limit]
        await grid.sound()

    async def test_a_program_that_prints_byte_by_byte_makes_few_rows(self, grid):
        _, attempt_id = await grid.run()
        for at in range(300):
            await grid.store.append_output([OutputChunk(attempt_id, "stdout", at, b"x")])
        rows = await grid.store._writer.run(
            lambda db: db.execute("SELECT count(*) FROM output_chunks").fetchone()[0]
        )
        assert rows == 1

    async def test_nothing_is_added_to_an_attempt_that_has_ended(self, grid):
        _, attempt_id = await grid.run()
        await grid.store.append_output([OutputChunk(attempt_id, "stdout", 0, b"in time")])
        await grid.store.requeue_attempt(attempt_id, AttemptState.LOST, "", fault=True)
        late = [OutputChunk(attempt_id, "stdout", 7, b" and late")]
        assert await grid.store.append_output(late) == [7]
        assert await grid.store.read_output(attempt_id, "stdout", 0, 99) == b"in time"


async def test_no_read_and_no_step_of_a_job_looks_through_a_whole_table(grid):
    """But for what reads a whole table on purpose."""
    statements = {
        f"{module.__name__}.{name}": value.sql
        for module in (reads, job_reads, array_reads, filing)
        for name, value in vars(module).items()
        if isinstance(value, Statement) and name not in {"_USERS", "_WORKERS", "_EARNED", "_BALANCES"}
    }
    for user in (False, True):
        for state in (False, True):
            statements[f"page {user} {state}"] = job_reads._page(user, state, False).sql
            statements[f"arrays {user} {state}"] = array_reads._page(user, state, False).sql
            statements[f"elements {state}"] = array_reads._elements(state).sql
    statements["live"] = attempts.LIVE
    for name in ("JOBS", "_PAYLOADS", "_FAULTS", "_ELEMENTS_OF", "_SHARED"):
        by_id = getattr(job_reads, name, None) or getattr(array_reads, name)
        statements[name] = by_id._build([1, 2]).sql(params_inline=False)

    def explain(db):
        found = {}
        for name, sql in statements.items():
            places = len(re.findall(r"\?", sql))
            plan = db.execute(f"EXPLAIN QUERY PLAN {sql}", [1] * places).fetchall()
            found[name] = [row[3] for row in plan]
        return found

    for name, plan in (await grid.store._writer.run(explain)).items():
        newest_first = name in ("page False False", "arrays False False")
        # An index of the open ones alone is walked whole, and that is little.
        scans = [step for step in plan if step.startswith("SCAN") and "arrays_open" not in step]
        assert newest_first or not scans, (name, plan)
        assert not any("TEMP B-TREE" in step for step in plan), (name, plan)


@pytest.mark.parametrize("limit", [1, 2, 3])
async def test_a_limit_is_kept_over_states(grid, limit):
    for _ in range(2):
        job = await grid.submit(hold=0)
        await grid.store.cancel(job.id, "")
        await grid.submit(hold=0)
    states = [JobState.QUEUED, JobState.CANCELLED]
    assert await ids(grid.store, states=states, limit=limit) == [4, 3, 2, 1][:limit]
