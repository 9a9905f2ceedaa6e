"""Writing what users sent: which files there are, whose they are, which jobs need them, what they take.

A blob is the content of a file, by its SHA-256; its bytes lie beside the database. A user has a blob by an
*upload*, and a job that has not ended needs it by a *use*. A blob that nothing refers to is forgotten.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final, NamedTuple

from gridx.errors import Conflict, InvalidField, QuotaExceeded
from gridx.messages import Freed, InputFile

# A use counts while its job, or array, has not ended.
_OPEN: Final = (
    "(EXISTS (SELECT 1 FROM jobs WHERE jobs.id = input_uses.job_id AND jobs.ended_at IS NULL {of_user})"
    " OR EXISTS (SELECT 1 FROM arrays WHERE arrays.id = input_uses.job_id AND arrays.ended_at IS NULL"
    " {of_user}))"
)
_OPEN_USE: Final = _OPEN.format(of_user="")
_NEEDED: Final = (
    "EXISTS (SELECT 1 FROM input_uses WHERE input_uses.blob_id = uploads.blob_id"
    f" AND {_OPEN.format(of_user='AND user_id = uploads.user_id')})"
)
_UNREFERENCED: Final = (
    "NOT EXISTS (SELECT 1 FROM uploads WHERE uploads.blob_id = blobs.id)"
    " AND NOT EXISTS (SELECT 1 FROM output_files WHERE output_files.blob_id = blobs.id)"
    " AND NOT EXISTS (SELECT 1 FROM sent_blobs WHERE sent_blobs.blob_id = blobs.id)"
    f" AND NOT EXISTS (SELECT 1 FROM input_uses WHERE input_uses.blob_id = blobs.id AND {_OPEN_USE})"
)
_RENEW_AFTER_US: Final = 86_400_000_000
"""The time of last use of what an open job needs is written once a day."""


class Quota(NamedTuple):
    """What one user's files may take."""

    size: int
    """Bytes."""
    files: int


class Taken(NamedTuple):
    """What one user's files take: uploads, and what jobs gave back."""

    inputs: int
    input_bytes: int
    outputs: int
    output_bytes: int

    @property
    def size(self) -> int:
        """Bytes in all."""
        return self.input_bytes + self.output_bytes


NOTHING: Final = Taken(0, 0, 0, 0)


def taken(db: sqlite3.Connection, user_id: int) -> Taken:
    """What a user's files take."""
    row = db.execute(
        "SELECT inputs, input_bytes, outputs, output_bytes FROM file_usage WHERE user_id = ?", (user_id,)
    ).fetchone()
    return Taken(*row) if row else NOTHING


def count(
    db: sqlite3.Connection,
    user_id: int,
    *,
    inputs: int = 0,
    input_bytes: int = 0,
    outputs: int = 0,
    output_bytes: int = 0,
) -> None:
    """Add to what a user's files take."""
    db.execute("INSERT OR IGNORE INTO file_usage (user_id) VALUES (?)", (user_id,))
    db.execute(
        "UPDATE file_usage SET inputs = inputs + ?, input_bytes = input_bytes + ?, outputs = outputs + ?,"
        " output_bytes = output_bytes + ? WHERE user_id = ?",
        (inputs, input_bytes, outputs, output_bytes, user_id),
    )


def check_quota(have: Taken, more: int, quota: Quota) -> None:
    """Refuse another file of ``more`` bytes where it does not fit any more.

    Raises:
        QuotaExceeded: with ``used``, ``allowed`` and ``wanted``.
    """
    if have.size + more > quota.size:
        raise quota_exceeded(have.size, more, quota.size)
    if have.inputs + have.outputs >= quota.files:
        raise QuotaExceeded(
            f"You have {have.inputs + have.outputs:,} files here, and {quota.files:,} are allowed.",
            "gridx files shows them; gridx files prune deletes inputs that no job needs.",
            used=have.inputs + have.outputs,
            allowed=quota.files,
            wanted=1,
        )


def quota_exceeded(used: int, wanted: int, allowed: int) -> QuotaExceeded:
    """The refusal of bytes; every number is one of bytes."""
    return QuotaExceeded(
        f"Your files take {_mib(used)} of {_mib(allowed)} MiB, and {_mib(wanted)} MiB more do not fit.",
        "gridx files shows what takes how much; gridx files prune deletes inputs that no job needs,"
        " gridx files delete ID what a job gave back.",
        used=used,
        allowed=allowed,
        wanted=wanted,
    )


def _mib(size: int) -> str:
    return f"{size / (1 << 20):,.1f}"


def blob(db: sqlite3.Connection, now: int, digest: bytes, size: int) -> int:
    """The blob of this digest, made if it is not there.

    Raises:
        RuntimeError: it is there with another size, which cannot be.
    """
    db.execute("INSERT OR IGNORE INTO blobs (digest, size, created_at) VALUES (?, ?, ?)", (digest, size, now))
    blob_id, known = db.execute("SELECT id, size FROM blobs WHERE digest = ?", (digest,)).fetchone()
    if known != size:
        raise RuntimeError(f"blob {digest.hex()} of {known} bytes came with {size}")
    return int(blob_id)


def add_upload(
    db: sqlite3.Connection, now: int, user_id: int, digest: bytes, size: int, quota: Quota
) -> None:
    """A user has sent a blob; its bytes are on the disk. Once more changes nothing but the time.

    Raises:
        QuotaExceeded: it does not fit any more.
    """
    blob_id = blob(db, now, digest, size)
    if db.execute(
        "UPDATE uploads SET used_at = ? WHERE user_id = ? AND blob_id = ?", (now, user_id, blob_id)
    ).rowcount:
        return
    check_quota(taken(db, user_id), size, quota)
    db.execute("INSERT INTO uploads (user_id, blob_id, used_at) VALUES (?, ?, ?)", (user_id, blob_id, now))
    count(db, user_id, inputs=1, input_bytes=size)


def use_inputs(
    db: sqlite3.Connection,
    now: int,
    user_id: int,
    number: int,
    inputs: Sequence[InputFile],
    field: str = "inputs",
) -> None:
    """Let the job or array of this number have these files, which its owner has uploaded.

    Called in the transaction of the submit, which fails as a whole when a file is not there.

    Args:
        field: what to call the list in a refusal.

    Raises:
        InvalidField: one was not uploaded, or has another size.
    """
    if not inputs:
        return
    known: dict[str, tuple[int, int] | None] = {}
    for place, wanted in enumerate(inputs):
        if wanted.sha256 not in known:
            known[wanted.sha256] = db.execute(
                "SELECT blobs.id, blobs.size FROM blobs JOIN uploads ON uploads.blob_id = blobs.id"
                " WHERE blobs.digest = ? AND uploads.user_id = ?",
                (bytes.fromhex(wanted.sha256), user_id),
            ).fetchone()
        found = known[wanted.sha256]
        if found is None:
            raise InvalidField(
                f"{field}[{place}]: {wanted.path} was not uploaded.",
                "Upload it first; gridx submit --input does both.",
                field=f"{field}[{place}]",
                sha256=wanted.sha256,
            )
        if found[1] != wanted.size:
            raise InvalidField(
                f"{field}[{place}].size: {wanted.path} has {found[1]:,} bytes, not {wanted.size:,}.",
                "Say the size of what was uploaded.",
                field=f"{field}[{place}].size",
            )
    ids = [found[0] for found in known.values() if found is not None]
    db.executemany(
        "UPDATE uploads SET used_at = ? WHERE user_id = ? AND blob_id = ?",
        [(now, user_id, blob_id) for blob_id in ids],
    )
    db.executemany(
        "INSERT OR IGNORE INTO input_uses (job_id, blob_id) VALUES (?, ?)",
        [(number, blob_id) for blob_id in ids],
    )


def delete_upload(db: sqlite3.Connection, now: int, user_id: int, digest: bytes) -> Freed:
    """A user wants a blob no more; what he does not have changes nothing.

    Raises:
        Conflict: a job of his that has not ended needs it.
    """
    row = db.execute(
        f"SELECT uploads.id, size, {_NEEDED} FROM uploads JOIN blobs ON blobs.id = blob_id"
        " WHERE user_id = ? AND digest = ?",
        (user_id, digest),
    ).fetchone()
    if row is None:
        return Freed(files=0, bytes=0)
    upload_id, size, needed = row
    if needed:
        raise Conflict("A job that has not ended needs this file.", "Wait for its end, or cancel it.")
    return _delete(db, user_id, [(upload_id, size)])


def prune_uploads(db: sqlite3.Connection, now: int, user_id: int) -> Freed:
    """Delete a user's uploads that no open job needs."""
    found = db.execute(
        "SELECT uploads.id, size FROM uploads JOIN blobs ON blobs.id = blob_id"
        f" WHERE user_id = ? AND NOT {_NEEDED}",
        (user_id,),
    ).fetchall()
    return _delete(db, user_id, found)


def expire_uploads(db: sqlite3.Connection, now: int, before: int, most: int) -> int:
    """Delete at most ``most`` uploads that were last used before a time and that no open job needs.

    What an open job needs counts as used now.
    """
    db.execute(
        f"UPDATE uploads SET used_at = ? WHERE used_at < ? AND {_NEEDED}", (now, now - _RENEW_AFTER_US)
    )
    found = db.execute(
        "SELECT user_id, uploads.id, size FROM uploads JOIN blobs ON blobs.id = blob_id"
        f" WHERE used_at < ? AND NOT {_NEEDED} ORDER BY used_at LIMIT ?",
        (before, most),
    ).fetchall()
    for user_id, upload_id, size in found:
        _delete(db, user_id, [(upload_id, size)])
    return len(found)


def _delete(db: sqlite3.Connection, user_id: int, found: Sequence[tuple[int, int]]) -> Freed:
    db.executemany("DELETE FROM uploads WHERE id = ?", [(upload_id,) for upload_id, _ in found])
    freed = Freed(files=len(found), bytes=sum(size for _, size in found))
    if found:
        count(db, user_id, inputs=-freed.files, input_bytes=-freed.bytes)
    return freed


def unreferenced(db: sqlite3.Connection, most: int) -> list[bytes]:
    """Digests of at most ``most`` blobs to which nothing refers."""
    return [row[0] for row in db.execute(f"SELECT digest FROM blobs WHERE {_UNREFERENCED} LIMIT ?", (most,))]


def forget_blobs(db: sqlite3.Connection, now: int, digests: Sequence[bytes]) -> list[bytes]:
    """Delete those of these blobs to which nothing refers; returns their digests: the bytes may go now."""
    gone = []
    for digest in digests:
        row = db.execute(f"SELECT id FROM blobs WHERE digest = ? AND {_UNREFERENCED}", (digest,)).fetchone()
        if row is None:
            # Not there at all: what lies on the disk under this name is nobody's.
            if db.execute("SELECT 1 FROM blobs WHERE digest = ?", (digest,)).fetchone() is None:
                gone.append(digest)
            continue
        # Uses of jobs that have ended need nothing any more.
        db.execute("DELETE FROM input_uses WHERE blob_id = ?", row)
        db.execute("DELETE FROM blobs WHERE id = ?", row)
        gone.append(digest)
    return gone
