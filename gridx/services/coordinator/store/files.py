"""Writing what jobs gave back: files that a worker sends, taken over with the end, kept for a time."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final, NamedTuple

from gridx import safetext
from gridx.errors import NotFound, TooLarge
from gridx.messages import FileCaps, Freed, LeftFile, OutputFile
from gridx.services.coordinator.store import blobs
from gridx.services.coordinator.store.blobs import Quota

MAX_LEFT: Final = 100
"""Names of files that did not come back, of each attempt; the worker sends no more either."""
PRUNE_BYTES: Final = 8 << 20
"""Printed output that one step of pruning deletes, so that others get to write soon."""
NEVER_CAME: Final = "its worker did not send it"

_OWNER: Final = (
    "SELECT jobs.user_id, attempts.state IN ('assigned', 'running') AND jobs.attempt_id = attempts.id"
    " FROM attempts JOIN jobs ON jobs.id = attempts.job_id WHERE attempts.id = ?"
)

_NO_FILES: Final = "UPDATE jobs SET files = 0, file_bytes = 0 WHERE files > 0 AND"


class Outputs(NamedTuple):
    """What came back of an attempt; ``missing`` are digests that were named and never sent."""

    files: int
    size: int
    missing: tuple[str, ...] = ()


def add_sent(
    db: sqlite3.Connection,
    now: int,
    attempt_id: int,
    digest: bytes,
    size: int,
    caps: FileCaps,
    quota: Quota,
) -> None:
    """A worker has sent a blob for an attempt that has not ended; its bytes are on the disk.

    Raises:
        NotFound: the attempt is over, or not the job's current one.
        TooLarge: more than one attempt may give back.
        QuotaExceeded: more than the job's owner may have.
    """
    user_id = _owner_of_live(db, attempt_id)
    blob_id = blobs.blob(db, now, digest, size)
    if db.execute(
        "SELECT 1 FROM sent_blobs WHERE attempt_id = ? AND blob_id = ?", (attempt_id, blob_id)
    ).fetchone():
        return
    files, total = db.execute(
        "SELECT count(*), coalesce(sum(size), 0) FROM sent_blobs JOIN blobs ON blobs.id = blob_id"
        " WHERE attempt_id = ?",
        (attempt_id,),
    ).fetchone()
    check_caps(files, total, size, caps)
    blobs.check_quota(blobs.taken(db, user_id), size, quota)
    db.execute("INSERT INTO sent_blobs (attempt_id, blob_id) VALUES (?, ?)", (attempt_id, blob_id))
    blobs.count(db, user_id, outputs=1, output_bytes=size)


def check_caps(files: int, total: int, more: int, caps: FileCaps) -> None:
    """Refuse another file of an attempt that has sent ``files`` with ``total`` bytes.

    Raises:
        TooLarge: it is one too many, or too large.
    """
    if files >= caps.files:
        raise TooLarge(
            f"The job gave back {files:,} files, and {caps.files:,} are allowed.", "Put them into an archive."
        )
    if total + more > caps.total_bytes:
        raise TooLarge(
            f"The job's files have more than the {caps.total_bytes:,} bytes that one job may give back.",
            "Let it write less into out/.",
        )


def _owner_of_live(db: sqlite3.Connection, attempt_id: int) -> int:
    row = db.execute(_OWNER, (attempt_id,)).fetchone()
    if row is None or not row[1]:
        raise NotFound("There is no such attempt, or it is over.", "Its files are not wanted any more.")
    return int(row[0])


def take_outputs(
    db: sqlite3.Connection,
    now: int,
    attempt_id: int,
    files: Sequence[OutputFile],
    left: Sequence[LeftFile],
) -> Outputs:
    """Turn what an attempt sent into what its job gave back, in the transaction of its end.

    Of ``files`` those are taken that were sent, with the size that they were sent with; the others are noted
    as left behind. What was sent and is not named is dropped. The job's ``files`` and ``file_bytes`` are set.
    """
    sent = {
        digest.hex(): (blob_id, size)
        for blob_id, digest, size in db.execute(
            "SELECT blobs.id, digest, size FROM sent_blobs JOIN blobs ON blobs.id = blob_id"
            " WHERE attempt_id = ?",
            (attempt_id,),
        )
    }
    if not (sent or files or left):
        return Outputs(0, 0)
    rows: dict[str, tuple[int, int]] = {}
    missing: dict[str, str] = {}
    for file in files:
        found = sent.get(file.sha256)
        if found is None or found[1] != file.size:
            missing[file.path] = file.sha256
        else:
            rows.setdefault(file.path, found)
    db.executemany(
        "INSERT INTO output_files (attempt_id, path, blob_id) VALUES (?, ?, ?)",
        [(attempt_id, path, blob_id) for path, (blob_id, _) in rows.items()],
    )
    behind = [*((path, NEVER_CAME) for path in missing), *((one.path, one.why) for one in left)]
    db.executemany(
        "INSERT INTO left_files (attempt_id, path, why) VALUES (?, ?, ?)",
        [(attempt_id, safetext.line(path), safetext.line(why)) for path, why in behind[:MAX_LEFT]],
    )
    user_id, _ = db.execute(_OWNER, (attempt_id,)).fetchone()
    total = sum(size for _, size in rows.values())
    _drop(db, attempt_id, user_id, [size for _, size in sent.values()])
    blobs.count(db, user_id, outputs=len(rows), output_bytes=total)
    db.execute(
        "UPDATE jobs SET files = ?, file_bytes = ? WHERE id = (SELECT job_id FROM attempts WHERE id = ?)",
        (len(rows), total, attempt_id),
    )
    return Outputs(len(rows), total, tuple(dict.fromkeys(missing.values())))


def drop_sent(db: sqlite3.Connection, attempt_id: int) -> None:
    """Forget what was sent for an attempt that gives nothing back: it broke, was lost or given back."""
    sizes = [
        row[0]
        for row in db.execute(
            "SELECT size FROM sent_blobs JOIN blobs ON blobs.id = blob_id WHERE attempt_id = ?", (attempt_id,)
        )
    ]
    if sizes:
        user_id, _ = db.execute(_OWNER, (attempt_id,)).fetchone()
        _drop(db, attempt_id, user_id, sizes)


def drop_stale(db: sqlite3.Connection, now: int) -> None:
    """Forget what was sent for attempts that are over without having taken it."""
    stale = db.execute(
        "SELECT DISTINCT attempt_id FROM sent_blobs JOIN attempts ON attempts.id = attempt_id"
        " WHERE attempts.ended_at IS NOT NULL"
    ).fetchall()
    for (attempt_id,) in stale:
        drop_sent(db, attempt_id)


def _drop(db: sqlite3.Connection, attempt_id: int, user_id: int, sizes: Sequence[int]) -> None:
    if sizes:
        db.execute("DELETE FROM sent_blobs WHERE attempt_id = ?", (attempt_id,))
        blobs.count(db, user_id, outputs=-len(sizes), output_bytes=-sum(sizes))


def delete_outputs(db: sqlite3.Connection, now: int, job_id: int) -> Freed:
    """Delete the files of all attempts of a job, or of an array; what was left behind stays on record."""
    attempts = db.execute(
        "SELECT attempts.id FROM attempts JOIN jobs ON jobs.id = attempts.job_id"
        " WHERE jobs.id = ? OR jobs.array_id = ?",
        (job_id, job_id),
    ).fetchall()
    freed = [_delete_files(db, attempt_id) for (attempt_id,) in attempts]
    db.execute(f"{_NO_FILES} (id = ? OR array_id = ?)", (job_id, job_id))
    return Freed(files=sum(one.files for one in freed), bytes=sum(one.bytes for one in freed))


def _delete_files(db: sqlite3.Connection, attempt_id: int) -> Freed:
    files, size = db.execute(
        "SELECT count(*), coalesce(sum(size), 0) FROM output_files JOIN blobs ON blobs.id = blob_id"
        " WHERE attempt_id = ?",
        (attempt_id,),
    ).fetchone()
    if files:
        user_id, _ = db.execute(_OWNER, (attempt_id,)).fetchone()
        db.execute("DELETE FROM output_files WHERE attempt_id = ?", (attempt_id,))
        blobs.count(db, user_id, outputs=-files, output_bytes=-size)
    return Freed(files=files, bytes=size)


def expire_outputs(db: sqlite3.Connection, now: int, before: int, most: int) -> int:
    """Delete printed output and files of at most ``most`` attempts whose jobs ended before a time.

    The lengths of the output stay on record, so that a job still says how much it had printed.
    """
    found = db.execute(
        "SELECT attempts.id, stdout_bytes + stderr_bytes FROM attempts JOIN jobs ON jobs.id = attempts.job_id"
        " WHERE attempts.ended_at < ? AND attempts.ended_at IS NOT NULL AND attempts.pruned_at IS NULL"
        " AND jobs.ended_at < ? ORDER BY attempts.ended_at LIMIT ?",
        (before, before, most),
    )
    pruned = 0
    size = 0
    for attempt_id, printed in found.fetchall():
        if size > PRUNE_BYTES:
            break
        _delete_files(db, attempt_id)
        db.execute("DELETE FROM left_files WHERE attempt_id = ?", (attempt_id,))
        db.execute("DELETE FROM output_chunks WHERE attempt_id = ?", (attempt_id,))
        db.execute(f"{_NO_FILES} id = (SELECT job_id FROM attempts WHERE id = ?)", (attempt_id,))
        db.execute("UPDATE attempts SET pruned_at = ? WHERE id = ?", (now, attempt_id))
        pruned += 1
        size += printed
    return pruned
