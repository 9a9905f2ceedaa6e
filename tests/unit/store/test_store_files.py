"""The database file: whose it is, which version it has, and what is said when it will not do."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import subprocess
import sys
import threading
from contextlib import closing
from typing import NamedTuple

import pytest
from tortoise.backends.sqlite.client import SqliteClient

from gridx.errors import StoreError
from gridx.services.coordinator.store import Store, orm
from gridx.services.coordinator.store.connection import connect_writer
from gridx.services.coordinator.store.migrate import Migration, migrate, migrations

posix = pytest.mark.skipif(os.name == "nt", reason="modes are POSIX's")


def mode(path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@posix
async def test_files_are_the_owners_alone_whatever_the_umask(tmp_path, clock):
    before = os.umask(0)
    try:
        store = await Store.open(tmp_path / "new" / "data" / "grid.db", clock=clock)
        await store.create_user("ann", "hash")
        await store.backup(tmp_path / "new" / "copy.db")
    finally:
        os.umask(before)
    files = sorted((tmp_path / "new").rglob("*"))
    assert {file.name for file in files} >= {
        "grid.db",
        "grid.db-wal",
        "grid.db-shm",
        "grid.db.lock",
        "copy.db",
    }
    assert {mode(file) for file in files if file.is_file()} == {0o600}
    assert mode(tmp_path / "new") == mode(tmp_path / "new" / "data") == 0o700
    await store.close()
    assert not (tmp_path / "new" / "data" / "grid.db-wal").exists()


@posix
async def test_a_file_that_others_could_read_is_closed_to_them(path, clock):
    await (await Store.open(path, clock=clock)).close()
    path.chmod(0o644)
    await (await Store.open(path, clock=clock)).close()
    assert mode(path) == 0o600


async def test_a_second_coordinator_is_told_who_has_the_file(path, clock, store):
    with pytest.raises(
        StoreError, match=rf"grid.db is in use by another coordinator \(process {os.getpid()}\)"
    ):
        await Store.open(path, clock=clock)
    await store.create_user("ann", "hash")
    await store.close()
    await (await Store.open(path, clock=clock)).close()


async def test_another_process_is_kept_out_and_a_killed_one_leaves_nothing_behind(path, clock):
    code = (
        "import asyncio, sys; from pathlib import Path; from gridx.clock import SystemClock;"
        "from gridx.services.coordinator.store import Store\n"
        "async def main():\n"
        "    await Store.open(Path(sys.argv[1]), clock=SystemClock())\n"
        "    print('open', flush=True); await asyncio.sleep(1000)\n"
        "asyncio.run(main())"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        assert await asyncio.to_thread(child.stdout.readline) == "open\n"
        with pytest.raises(StoreError, match=rf"\(process {child.pid}\)"):
            await Store.open(path, clock=clock)
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
    await (await Store.open(path, clock=clock)).close()


async def test_two_stores_can_be_open_in_one_process(tmp_path, clock):
    one = await Store.open(tmp_path / "one.db", clock=clock)
    two = await Store.open(tmp_path / "two.db", clock=clock)
    await one.create_user("ann", "hash")
    assert [user.username for user in await one.users()] == ["ann"]
    assert await two.users() == []
    await one.close()
    assert await two.users() == []
    await two.close()


async def test_a_database_of_a_newer_version_is_refused_untouched(path, clock, tamper):
    await (await Store.open(path, clock=clock)).close()
    tamper("PRAGMA user_version = 99")
    with pytest.raises(StoreError, match="newer Grid-X: it has version 99"):
        await Store.open(path, clock=clock)
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (99,)


async def test_another_programs_database_is_refused(path, clock):
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE notes (text)")
    with pytest.raises(StoreError, match="another program"):
        await Store.open(path, clock=clock)


async def test_a_file_that_is_no_database_is_refused_and_kept(path, clock):
    path.write_bytes(b"my diary, which is longer than a header\n" * 100)
    with pytest.raises(StoreError, match="not a database"):
        await Store.open(path, clock=clock)
    assert path.read_bytes().startswith(b"my diary")


async def test_a_damaged_database_is_refused(path, clock):
    store = await Store.open(path, clock=clock)
    for number in range(50):
        await store.create_user(f"user{number}", "hash" * 100)
    await store.close()
    with path.open("r+b") as file:
        file.seek(4096 * 3)
        file.write(b"\xff" * (path.stat().st_size - 4096 * 3))
    with pytest.raises(StoreError, match="is damaged"):
        await Store.open(path, clock=clock)


async def test_a_folder_that_cannot_be_made_is_said(tmp_path, clock):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        await Store.open(tmp_path / "file" / "grid.db", clock=clock)


async def test_what_was_refused_leaves_no_lock_behind(path, clock):
    path.write_bytes(b"no database" * 1000)
    for _ in range(2):
        with pytest.raises(StoreError, match="not a database"):
            await Store.open(path, clock=clock)


class TestMigrations:
    def test_they_are_applied_in_order_and_once(self, path):
        with closing(connect_writer(path)) as db:
            assert migrate(db, path) == len(migrations())
            assert migrate(db, path) == 0

    @pytest.mark.parametrize("break_at", ["ALTER TABLE users ADD COLUMN two", "a syntax error"])
    def test_one_that_fails_midway_leaves_the_version_before(self, path, break_at):
        steps = migrations()
        broken = Migration(
            len(steps) + 1,
            "broken.sql",
            f"ALTER TABLE users ADD COLUMN two TEXT; UPDATE users SET two = 'x'; {break_at};",
        )
        with closing(connect_writer(path)) as db:
            migrate(db, path)
            db.execute(
                "INSERT INTO users (username, role, password_hash, created_at) VALUES ('a', 'user', '', 0)"
            )
            with pytest.raises(sqlite3.Error):
                migrate(db, path, [*steps, broken])
            assert db.execute("PRAGMA user_version").fetchone() == (len(steps),)
            assert "two" not in [row[1] for row in db.execute("PRAGMA table_info(users)")]
            good = broken._replace(sql="ALTER TABLE users ADD COLUMN two TEXT;")
            assert migrate(db, path, [*steps, good]) == 1
            assert db.execute("SELECT username, two FROM users").fetchall() == [("a", None)]

    def test_what_a_table_held_is_there_when_it_was_made_anew(self, path):
        """Tables that others refer to are dropped and renamed; rows, references, numbers and guards stay."""
        with closing(connect_writer(path)) as db:
            migrate(db, path, migrations()[:1])
            db.executescript(
                """
                INSERT INTO users (username, role, password_hash, created_at) VALUES ('ann', 'user', '', 0);
                INSERT INTO accounts (kind, user_id) VALUES ('user', 1);
                INSERT INTO workers (user_id, identity, name, version, joined_at)
                    VALUES (1, 'x', 'n', '1', 0);
                WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3)
                    INSERT INTO jobs (user_id, state, language, name, cpu_millis, memory_mb, gpus, timeout_s,
                        priority, max_attempts, core_hour, gib_hour, gpu_hour, fee_ppm, hold, created_at)
                    SELECT 1, 'queued', 'python', 'job ' || i, 1000, 512, 0, 60, 0, 3, 1, 1, 1, 0, 7, 0
                    FROM n;
                INSERT INTO job_payloads SELECT id, 'print()', '[]', '{}' FROM jobs;
                INSERT INTO attempts (job_id, number, worker_id, state, gpus, runtime, assigned_at,
                    assigned_mono_ms, boot_id) VALUES (1, 1, 1, 'assigned', '[]', 'r', 0, 0, 'b');
                UPDATE jobs SET state = 'assigned', attempts = 1, attempt_id = 1, worker_id = 1 WHERE id = 1;
                INSERT INTO transactions (kind, job_id, at) SELECT 'hold', id, 0 FROM jobs;
                """
            )
            assert migrate(db, path) == len(migrations()) - 1
            assert db.execute("PRAGMA foreign_keys").fetchone() == (1,)
            assert db.execute("PRAGMA foreign_key_check").fetchall() == []
            found = db.execute("SELECT id, name, state, attempt_id, retries FROM jobs").fetchall()
            assert found == [
                (1, "job 1", "assigned", 1, 0),
                (2, "job 2", "queued", None, 0),
                (3, "job 3", "queued", None, 0),
            ]
            assert db.execute("SELECT job_id, code, inputs FROM job_payloads").fetchall()[0] == (
                1,
                "print()",
                "[]",
            )
            with pytest.raises(sqlite3.IntegrityError, match="never changed"):
                db.execute("UPDATE transactions SET note = 'x'")
            with pytest.raises(sqlite3.IntegrityError, match="FOREIGN KEY"):
                db.execute("INSERT INTO job_payloads (job_id, code, args, env) VALUES (9, '', '', '')")
            assert db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'jobs'").fetchone() == (3,)

    async def test_the_models_say_what_the_tables_are(self, store):
        """Tortoise's own schema, made from the models, has the same columns, keys and references."""
        written = await store._writer.run(_tables)
        context = orm._Schema.context
        assert context is not None and context.apps is not None
        # Table by table: the public way refuses the circle between jobs and attempts.
        generator = context.db().schema_generator(context.db())
        with closing(sqlite3.connect(":memory:")) as db:
            for model in context.apps["grid"].values():
                db.executescript(generator._get_table_sql(model, False)["table_creation_string"])
            generated = _tables(db)
        assert set(generated) == set(written)
        for name, table in generated.items():
            assert table.columns == written[name].columns, name
            assert table.references == written[name].references, name
            # The SQL has unique indexes that no model can say: partial ones, and on bytes.
            assert table.uniques <= written[name].uniques, name


class Table(NamedTuple):
    columns: dict[str, tuple[str, bool]]
    uniques: set[frozenset[str]]
    references: set[tuple[str, str, str]]


def _tables(db: sqlite3.Connection) -> dict[str, Table]:
    names = db.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
    ).fetchall()
    return {name: _table(db, name) for (name,) in names}


def _table(db: sqlite3.Connection, name: str) -> Table:
    def pragma(what: str, of: str = name) -> list[tuple]:
        return db.execute(f"PRAGMA {what}('{of}')").fetchall()

    return Table(
        # A primary key is never null, though SQLite does not say so of each.
        {row[1]: (_affinity(row[2]), bool(row[3] or row[5])) for row in pragma("table_info")},
        {
            frozenset(column[2] for column in pragma("index_info", index[1]))
            for index in pragma("index_list")
            if index[2]
        }
        | {frozenset(row[1] for row in pragma("table_info") if row[5])},
        {(row[3], row[2], row[4]) for row in pragma("foreign_key_list")},
    )


def _affinity(sql_type: str) -> str:
    """SQLite's rules, as far as they are used here."""
    words = {"INT": "INTEGER", "CHAR": "TEXT", "TEXT": "TEXT", "BLOB": "BLOB"}
    return next(affinity for word, affinity in words.items() if word in sql_type)


@pytest.mark.parametrize("failure", [sqlite3.OperationalError("disk I/O error"), asyncio.CancelledError()])
async def test_an_opening_that_fails_half_way_leaves_no_thread_behind(path, clock, monkeypatch, failure):
    async def fail(client):
        raise failure

    def threads() -> set[threading.Thread]:
        # The event loop's own, for blocking calls, live as long as it does.
        return {thread for thread in threading.enumerate() if not thread.name.startswith("asyncio")}

    before = threads()
    with monkeypatch.context() as patch:
        patch.setattr(SqliteClient, "_post_connect", fail)
        with pytest.raises(type(failure)):
            await Store.open(path, clock=clock)
    for thread in threads() - before:
        await asyncio.to_thread(thread.join, 5)
    assert threads() <= before
    await (await Store.open(path, clock=clock)).close()
