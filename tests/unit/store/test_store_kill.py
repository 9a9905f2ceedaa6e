"""Killed in the middle of a load of commits: what was acknowledged is there, and the books balance."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap

from gridx.messages import JobState
from gridx.services.coordinator.store import Store

LOAD = textwrap.dedent(
    """
    import asyncio, sys
    from pathlib import Path
    from gridx.clock import SystemClock
    from gridx.messages import AttemptState, Dependency, JobState
    from gridx.services.coordinator.ledger import Prices
    from gridx.services.coordinator.store import Store
    from msgspec.structs import replace
    from gridx.services.coordinator.store.records import End, NewArray, NewAttempt, NewJob

    job = NewJob("", "python", "", [], {}, 1000, 64, 0, 60, 0, 3, None, None, Prices(1, 1, 1), 10)
    end = End(JobState.SUCCEEDED, AttemptState.SUCCEEDED, charge=4, fee=1)

    async def main():
        store = await Store.open(Path(sys.argv[1]), clock=SystemClock())
        ann = await store.create_user("ann", "", grant=10**9)
        bob = await store.create_user("bob", "")
        worker = await store.join_worker(bob.id, "b" * 32, name="w", version="")

        async def load():
            while True:
                made = (await store.submit(ann.id, [job], max_queued=10**6)).jobs[0]
                print("submitted", made.id, flush=True)
                (attempt,) = await store.assign([NewAttempt(made.id, worker.id, (), "default")])
                await store.start_attempt(attempt.id, runtime="default")
                await store.finish_attempt(attempt.id, end)
                print("finished", made.id, flush=True)

        async def arrays():
            # Each waits for the one before it.
            after = []
            while True:
                many = replace(job, array=NewArray(range(5), 5, max_credits=40), after=after, retries=1)
                made = (await store.submit(ann.id, [many], max_queued=10**6)).jobs[0]
                after = [Dependency(job_id=made.id)]
                while not (await store.array(made.id)).state.ended:
                    for element in await store.elements(made, states=[JobState.QUEUED], limit=5):
                        (attempt,) = await store.assign([NewAttempt(element.id, worker.id, (), "default")])
                        if attempt is not None:
                            await store.finish_attempt(attempt.id, end)
                print("array", made.id, flush=True)

        await asyncio.gather(arrays(), *(load() for _ in range(8)))
    asyncio.run(main())
    """
)


async def test_what_was_acknowledged_survives_kill_9(path, clock):
    child = subprocess.Popen([sys.executable, "-c", LOAD, str(path)], stdout=subprocess.PIPE, text=True)

    def read() -> list[str]:
        lines = [child.stdout.readline() for _ in range(400)]
        child.kill()
        return lines + child.stdout.readlines()

    try:
        told = [line.split() for line in await asyncio.to_thread(read) if line.endswith("\n")]
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
    submitted = {int(number) for what, number in told if what == "submitted"}
    finished = {int(number) for what, number in told if what == "finished"}
    arrays = [int(number) for what, number in told if what == "array"]
    assert finished <= submitted
    assert len(finished) > 50
    store = await Store.open(path, clock=clock)
    try:
        jobs = {job.id: job for job in await store.job_page(user_id=None, limit=10**6)}
        assert submitted <= set(jobs)
        assert all(jobs[number].charge == 4 for number in finished)
        for number in arrays:
            array = await store.array(number)
            assert (array.state, array.succeeded, array.charge) == (JobState.SUCCEEDED, 5, 20)
        assert arrays
        report = await store.audit()
        assert report.findings == []
        # Eight callers, so at most eight jobs more than were told.
        assert len(jobs) <= len(submitted) + 8
    finally:
        await store.close()


async def test_a_backup_under_load_is_one_sound_moment(grid, tmp_path, clock):
    stop = asyncio.Event()

    async def load() -> None:
        while not stop.is_set():
            _, attempt_id = await grid.run(hold=1)
            await grid.store.finish_attempt(attempt_id, grid.end(charge=1))

    await grid.store.grant(grid.ann, 10**6, "")
    loads = [asyncio.create_task(load()) for _ in range(4)]
    for _ in range(3):
        done = (await grid.store.audit()).jobs
        await grid.store.backup(tmp_path / "copy.db")
        copy = await Store.open(tmp_path / "copy.db", clock=clock)
        try:
            report = await copy.audit()
            assert report.findings == []
            assert report.jobs >= done
        finally:
            await copy.close()
    stop.set()
    await asyncio.gather(*loads)
    assert not list(tmp_path.glob("*.part-*"))
    await grid.sound()
