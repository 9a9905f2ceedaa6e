"""Writing output: each stream of an attempt as chunks that follow each other."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final

from gridx.messages import Stream
from gridx.services.coordinator.store.records import OutputChunk

CHUNK_BYTES: Final = 64 << 10
"""Most that one row holds; a reader relies on it."""
SMALL_BYTES: Final = 4 << 10
"""A last row shorter than this is filled up instead of followed, so that printing by line makes few rows."""

STREAM_NUMBER: Final[dict[Stream, int]] = {"stdout": 1, "stderr": 2}


def append(db: sqlite3.Connection, now: int, chunks: Sequence[OutputChunk]) -> list[int]:
    """Store what follows what is there; returns for each chunk the stream's stored length after it.

    Bytes that are there already are skipped. A chunk that begins past the end is not stored, and neither is
    anything of an attempt that has ended: the length that comes back says so.
    """
    stored: dict[tuple[int, int], int] = {}
    ended: set[int] = set()
    fresh: dict[tuple[int, int], bytearray] = {}
    lengths: list[int] = []
    for chunk in chunks:
        key = (chunk.attempt_id, STREAM_NUMBER[chunk.stream])
        if key not in stored:
            row = db.execute(
                "SELECT stdout_bytes, stderr_bytes, state IN ('assigned', 'running') FROM attempts"
                " WHERE id = ?",
                (chunk.attempt_id,),
            ).fetchone() or (0, 0, 0)
            stored[key] = row[key[1] - 1]
            if not row[2]:
                ended.add(chunk.attempt_id)
        have = stored[key] + len(fresh.get(key, b""))
        if chunk.attempt_id not in ended and chunk.offset <= have < chunk.offset + len(chunk.data):
            fresh.setdefault(key, bytearray()).extend(chunk.data[have - chunk.offset :])
        lengths.append(stored[key] + len(fresh.get(key, b"")))
    for (attempt_id, stream), data in fresh.items():
        _store(db, attempt_id, stream, stored[attempt_id, stream], bytes(data))
    return lengths


def _store(db: sqlite3.Connection, attempt_id: int, stream: int, length: int, data: bytes) -> None:
    column = "stdout_bytes" if stream == 1 else "stderr_bytes"
    end = length + len(data)
    if length:
        last_id, last = db.execute(
            "SELECT id, data FROM output_chunks WHERE attempt_id = ? AND stream = ?"
            ' ORDER BY "offset" DESC LIMIT 1',
            (attempt_id, stream),
        ).fetchone()
        if len(last) < SMALL_BYTES:
            room = CHUNK_BYTES - len(last)
            db.execute("UPDATE output_chunks SET data = ? WHERE id = ?", (last + data[:room], last_id))
            data = data[room:]
    start = end - len(data)
    db.executemany(
        'INSERT INTO output_chunks (attempt_id, stream, "offset", data) VALUES (?, ?, ?, ?)',
        [
            (attempt_id, stream, start + at, data[at : at + CHUNK_BYTES])
            for at in range(0, len(data), CHUNK_BYTES)
        ],
    )
    changed = db.execute(
        f"UPDATE attempts SET {column} = ? WHERE id = ? AND {column} = ?",
        (end, attempt_id, length),
    ).rowcount
    if changed != 1:
        raise RuntimeError(f"output of attempt {attempt_id}: {changed} rows instead of one")
