"""A migration is killed in the middle: the file is as before, and the next start brings it up to date."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from gridx.services.coordinator.store.migrate import migrations

MIGRATE = """
import os, signal, sys
from pathlib import Path
from gridx.services.coordinator.store.connection import connect_writer
from gridx.services.coordinator.store.migrate import Migration, migrate, migrations

path, how = Path(sys.argv[1]), sys.argv[2]
db = connect_writer(path)
# So small a cache that pages go to the disk before the commit.
db.execute("PRAGMA cache_size = 10")
db.create_function("midway", 0, lambda: os.kill(os.getpid(), signal.SIGKILL) if how == "kill" else 1)
steps = migrations()
if how != "first":
    steps.append(Migration(len(steps) + 1, "next", '''
        CREATE TABLE fresh (id INTEGER PRIMARY KEY, text TEXT);
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
            INSERT INTO fresh SELECT i, hex(randomblob(200)) FROM n;
        SELECT midway();
        CREATE TABLE later (id INTEGER PRIMARY KEY);
    '''))
migrate(db, path, steps)
db.close()
"""


def run(path: Path, how: str) -> int:
    done = subprocess.run([sys.executable, "-c", MIGRATE, str(path), how], capture_output=True, text=True)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode


def test_a_migration_that_is_killed_midway_leaves_the_version_before(tmp_path):
    path = tmp_path / "grid.db"
    before = len(migrations())
    assert run(path, "first") == 0
    assert run(path, "kill") == -signal.SIGKILL
    # It had got as far as the disk.
    assert (tmp_path / "grid.db-wal").stat().st_size > 500_000

    def look() -> tuple[int, set[str], str]:
        with closing(sqlite3.connect(path)) as db:
            tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            version = db.execute("PRAGMA user_version").fetchone()[0]
            return (
                version,
                tables & {"fresh", "later", "jobs"},
                db.execute("PRAGMA integrity_check").fetchone()[0],
            )

    assert look() == (before, {"jobs"}, "ok")
    assert run(path, "next") == 0
    assert look() == (before + 1, {"fresh", "later", "jobs"}, "ok")
