"""The writer: one commit for many, nobody answered before it, and what it does when the disk will not."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from gridx.errors import Conflict, Unavailable
from gridx.services.coordinator.store import Store, writer


async def count(store, table: str) -> int:
    return await store._writer.run(lambda db: db.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


async def test_what_arrives_together_is_committed_together(grid, monkeypatch):
    batches = []
    original = writer.Writer._transaction

    def counted(self, batch):
        batches.append(len(batch))
        return original(self, batch)

    monkeypatch.setattr(writer.Writer, "_transaction", counted)
    await asyncio.gather(*(grid.submit(hold=1) for _ in range(100)))
    assert sum(batches) == 100
    assert len(batches) < 30
    await grid.sound()


async def test_an_operation_that_is_refused_rolls_back_alone(store):
    results = await asyncio.gather(
        *(store.create_user("same" if n % 2 else f"user{n}", "hash", grant=1) for n in range(20)),
        return_exceptions=True,
    )
    assert sum(isinstance(result, Conflict) for result in results) == 9
    assert await count(store, "users") == 11
    assert (await store.audit()).findings == []


async def test_an_operation_that_fails_rolls_back_alone_and_tells_its_caller(store, caplog):
    def half(db):
        db.execute("UPDATE accounts SET balance = balance - 5 WHERE kind = 'mint'")
        raise ZeroDivisionError("half done")

    good = [store.create_user(f"user{n}", "hash") for n in range(3)]
    results = await asyncio.gather(store._writer.run(half), *good, return_exceptions=True)
    assert isinstance(results[0], ZeroDivisionError)
    assert await count(store, "users") == 3
    assert (await store.audit()).findings == []
    assert "a write failed" in caplog.text


async def test_the_answer_comes_after_the_commit(store, path):
    await store.create_user("ann", "hash")
    with sqlite3.connect(path) as other:
        assert other.execute("SELECT username FROM users").fetchall() == [("ann",)]
    other.close()


async def test_commits_reach_the_disk_before_they_are_answered(store):
    asked = ("synchronous", "journal_mode", "foreign_keys", "wal_autocheckpoint")
    values = await store._writer.run(
        lambda db: [db.execute(f"PRAGMA {name}").fetchone()[0] for name in asked]
    )
    assert values == [2, "wal", 1, 0]
    reader = store._reader._client
    found = [(await reader.execute_query(f"PRAGMA {name}"))[1][0][0] for name in asked[1:]]
    assert found == ["wal", 1, 0]


async def test_reads_cannot_write(store):
    from tortoise.exceptions import OperationalError

    from gridx.services.coordinator.store.models import User

    with pytest.raises(OperationalError, match="readonly"):
        await User.create(
            using_db=store._reader._client, username="eve", role="admin", password_hash="", created_at=0
        )


async def test_callers_that_are_cancelled_break_nothing(grid):
    rng = random.Random(5)

    async def submit(number: int) -> None:
        await grid.submit(hold=1, name=str(number))

    tasks = [asyncio.create_task(submit(n)) for n in range(200)]
    while any(not task.done() for task in tasks):
        rng.choice(tasks).cancel()
        await asyncio.sleep(0)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    answered = sum(not isinstance(result, BaseException) for result in results)
    assert answered < 200
    # What was handed over is written even so; it is behind all of it.
    await grid.store.grant(grid.ann, 1, "")
    jobs = await grid.store.job_page(user_id=None, limit=1000)
    assert answered <= len(jobs) <= 200
    assert (await grid.store.balance(grid.ann)).held == len(jobs)
    await grid.submit(hold=1)
    await grid.sound()


async def test_reads_that_are_cancelled_break_nothing(grid):
    tasks = [asyncio.create_task(grid.store.users()) for _ in range(50)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert [task.cancelled() for task in tasks[:2]] == [True, False]
    assert len(await grid.store.users()) == 2


async def test_past_its_capacity_callers_wait_and_all_are_served(path, clock, monkeypatch):
    monkeypatch.setattr(writer, "CAPACITY", 3)
    store = await Store.open(path, clock=clock)
    try:
        deepest = 0

        async def create(number: int) -> None:
            nonlocal deepest
            await store.create_user(f"user{number}", "hash")
            deepest = max(deepest, len(store._writer._queue))

        await asyncio.gather(*(create(n) for n in range(50)))
        assert await count(store, "users") == 50
        assert deepest <= 3
    finally:
        await store.close()


async def test_closing_finishes_what_was_accepted_and_refuses_the_rest(path, clock):
    store = await Store.open(path, clock=clock)
    tasks = [asyncio.create_task(store.create_user(f"user{n}", "hash")) for n in range(100)]
    await asyncio.sleep(0)
    await asyncio.gather(store.close(), store.close())
    await asyncio.gather(*tasks)
    for refused in (store.create_user("late", "hash"), store.users(), store.audit()):
        with pytest.raises(Unavailable, match="stopping"):
            await refused
    again = await Store.open(path, clock=clock)
    assert len(await again.users()) == 100
    await again.close()


async def test_an_audit_does_not_hold_up_the_end(path, clock, monkeypatch):
    from gridx.services.coordinator.store import audit

    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n WHERE i < 0"
    monkeypatch.setattr(audit, "CHECKS", (audit.Check("endless", endless, str),))
    store = await Store.open(path, clock=clock)
    running = asyncio.create_task(store.audit())
    await asyncio.sleep(0)
    await store.close()
    with pytest.raises(Unavailable):
        await running


class TestFullDisk:
    async def limit(self, store, pages: int) -> None:
        await store._writer.run(lambda db: db.execute(f"PRAGMA max_page_count = {pages}").fetchall())

    async def test_a_full_disk_refuses_with_a_reason_and_recovers(self, grid):
        size = await grid.store._writer.run(lambda db: db.execute("PRAGMA page_count").fetchone()[0])
        await self.limit(grid.store, size + 4)
        big = {"code": "x" * 10_000, "hold": 1}
        results = await asyncio.gather(*(grid.submit(**big) for _ in range(20)), return_exceptions=True)
        refused = [result for result in results if isinstance(result, Unavailable)]
        made = [result for result in results if not isinstance(result, BaseException)]
        assert len(made) + len(refused) == 20
        assert len(refused) >= 18
        assert refused[0].details == {"reason": "disk_full"}
        assert "disk is full" in refused[0].message
        # What is small still fits, reads work, and nothing is half there.
        await grid.store.set_worker_paused(grid.worker.id, True)
        assert len(await grid.store.waiting_jobs()) == len(made)
        await grid.sound()
        await self.limit(grid.store, 1_000_000)
        await asyncio.gather(*(grid.submit(**big) for _ in range(20)))
        assert len(await grid.store.waiting_jobs()) == len(made) + 20
        await grid.sound()


def test_a_log_whose_index_cannot_grow_is_a_full_disk():
    error = sqlite3.OperationalError("disk I/O error")
    for code, seen in (
        (sqlite3.SQLITE_IOERR_SHMSIZE, sqlite3.SQLITE_FULL),
        (sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR),
    ):
        error.sqlite_errorcode = code
        assert writer._code(error) == seen


FAILING_DISK = textwrap.dedent(
    """
    import asyncio, resource, signal, sys
    from pathlib import Path
    from gridx.clock import SystemClock
    from gridx.errors import Unavailable
    from gridx.services.coordinator.store import Store

    async def main():
        store = await Store.open(Path(sys.argv[1]), clock=SystemClock())
        told = asyncio.Event()
        store.on_failure(lambda error: (print("failure", error), told.set()))
        # Writes past this size fail with EFBIG, which is an I/O error to SQLite.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (700_000, 700_000))
        async def create(number):
            user = await store.create_user(f"user{number}", "hash" * 500)
            print("made", user.username)
        for number in range(5):
            await create(number)
        results = await asyncio.gather(*(create(n) for n in range(5, 600)), return_exceptions=True)
        await asyncio.wait_for(told.wait(), 30)
        try:
            await store.create_user("after", "hash")
        except Unavailable as error:
            print("refused", error.details["reason"])
        print("readable", len(await store.users()))
        await store.close()
    asyncio.run(main())
    """
)


@pytest.mark.skipif(sys.platform == "win32", reason="file size limits are POSIX's")
async def test_an_io_error_at_commit_acknowledges_nothing_more(path: Path, clock):
    """Many at once, so that some are in the commit that fails."""
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", FAILING_DISK, str(path)],
        capture_output=True,
        text=True,
        timeout=100,
    )
    lines = done.stdout.splitlines()
    assert any(line.startswith("failure disk I/O error") for line in lines), done.stdout + done.stderr
    assert "refused store_failed" in lines
    acknowledged = {line.split()[1] for line in lines if line.startswith("made")}
    assert 5 <= len(acknowledged) < 600
    store = await Store.open(path, clock=clock)
    try:
        assert {user.username for user in await store.users()} >= acknowledged
        assert (await store.audit()).findings == []
    finally:
        await store.close()


async def test_a_locked_file_refuses_for_now(store, path, monkeypatch):
    await store._writer.run(lambda db: db.execute("PRAGMA busy_timeout = 1").fetchall())
    with sqlite3.connect(path, isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable, match="Another program"):
            await store.create_user("ann", "hash")
        other.execute("ROLLBACK")
    other.close()
    await store.create_user("ann", "hash")


async def test_the_log_is_copied_and_does_not_grow_without_end(grid, monkeypatch, path):
    monkeypatch.setattr(writer, "CHECKPOINT_COMMITS", 10)
    for _ in range(100):
        await grid.submit(hold=1, code="x" * 5000)
    assert path.with_name("grid.db-wal").stat().st_size < 60 * 10 * 4096
