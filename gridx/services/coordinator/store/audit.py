"""The audit: everything recomputed from postings, jobs and attempts, each difference said in words.

The first findings say what is wrong in the file, the others what is wrong in the books.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any, Final

from gridx.credits import format_credits
from gridx.messages import AuditFinding, AuditReport
from gridx.services.coordinator.states import LIVE_JOBS, PAID, RETRIED
from gridx.services.coordinator.store import array_checks
from gridx.services.coordinator.store.checks import (
    IN_ENDED,
    IN_LIVE,
    IN_LIVE_ATTEMPTS,
    IN_OPEN,
    Check,
    among,
)
from gridx.services.coordinator.store.postings import ESCROW, TREASURY

MAX_FINDINGS: Final = 50
"""Of each check; a broken database has them by the thousand."""


_NAME = "coalesce((SELECT username FROM users WHERE users.id = accounts.user_id), accounts.kind)"
# What each job's transactions moved into and out of escrow, by kind.
_ESCROWED = f"""
    escrowed AS (
        SELECT transactions.job_id AS job_id,
            coalesce(sum(CASE kind WHEN 'hold' THEN amount END), 0) AS held,
            coalesce(sum(CASE kind WHEN 'settle' THEN -amount END), 0) AS settled,
            coalesce(sum(CASE kind WHEN 'release' THEN -amount END), 0) AS released,
            count(CASE kind WHEN 'hold' THEN 1 END) AS holds,
            count(CASE kind WHEN 'settle' THEN 1 END) AS settles,
            count(CASE kind WHEN 'release' THEN 1 END) AS releases
        FROM transactions JOIN postings ON postings.transaction_id = transactions.id
        WHERE job_id IS NOT NULL AND postings.account_id = {ESCROW} GROUP BY transactions.job_id
    ),
    books AS (
        SELECT jobs.id AS id, array_id, state, hold, charge, failures, coalesce(held, 0) AS held,
            coalesce(settled, 0) AS settled, coalesce(released, 0) AS released, coalesce(holds, 0) AS holds,
            coalesce(settles, 0) AS settles, coalesce(releases, 0) AS releases
        FROM jobs LEFT JOIN escrowed ON escrowed.job_id = jobs.id
    )"""
CHECKS: Final = (
    Check(
        "sum zero",
        "SELECT transactions.id, kind, coalesce(sum(amount), 0), count(amount) FROM transactions"
        " LEFT JOIN postings ON postings.transaction_id = transactions.id"
        " GROUP BY transactions.id HAVING sum(amount) IS NOT 0",
        lambda id_, kind, total, count: (
            f"Transaction {id_} ({kind}) has no postings."
            if not count
            else f"The postings of transaction {id_} ({kind}) sum to {format_credits(total)} credits, not 0."
        ),
    ),
    Check(
        "balances",
        f"SELECT {_NAME}, balance, coalesce(total, 0) FROM accounts LEFT JOIN"
        " (SELECT account_id, sum(amount) AS total FROM postings GROUP BY account_id)"
        " ON account_id = accounts.id WHERE balance <> coalesce(total, 0)",
        lambda name, balance, total: (
            f"The account {name} says {format_credits(balance)} credits; its postings sum to"
            f" {format_credits(total)}."
        ),
    ),
    Check(
        "overdraft",
        f"SELECT {_NAME}, balance FROM accounts WHERE balance < 0 AND kind <> 'mint'",
        lambda name, balance: f"The account {name} is overdrawn: {format_credits(balance)} credits.",
    ),
    Check(
        "accounts",
        "SELECT username FROM users WHERE NOT EXISTS"
        " (SELECT 1 FROM accounts WHERE accounts.user_id = users.id)"
        " UNION ALL SELECT kind FROM (SELECT 'mint' AS kind UNION SELECT 'escrow' UNION SELECT 'treasury')"
        " AS wanted WHERE NOT EXISTS (SELECT 1 FROM accounts WHERE accounts.kind = wanted.kind)",
        lambda name: f"{name} has no account.",
    ),
    Check(
        "escrow",
        "SELECT balance, total FROM accounts,"
        " (SELECT (SELECT coalesce(sum(hold - charge), 0) FROM jobs"
        f" WHERE state IN {IN_OPEN} AND array_id IS NULL)"
        " + (SELECT coalesce(sum(held), 0) FROM arrays) AS total)"
        f" WHERE accounts.id = {ESCROW} AND balance <> total",
        lambda balance, total: (
            f"Escrow has {format_credits(balance)} credits; the jobs that have not ended hold"
            f" {format_credits(total)}."
        ),
    ),
    Check(
        "held",
        f"SELECT {_NAME}, held, coalesce(total, 0) FROM accounts LEFT JOIN"
        " (SELECT owner, sum(amount) AS total"
        f" FROM (SELECT user_id AS owner, hold - charge AS amount FROM jobs WHERE state IN {IN_OPEN}"
        " AND array_id IS NULL UNION ALL SELECT user_id, held FROM arrays) GROUP BY owner)"
        " ON owner = accounts.user_id"
        " WHERE held <> coalesce(total, 0)",
        lambda name, held, total: (
            f"The account {name} says that {format_credits(held)} credits are held; the open jobs hold"
            f" {format_credits(total)}."
        ),
    ),
    Check(
        "spent",
        f"SELECT {_NAME}, spent, coalesce(total, 0) FROM accounts LEFT JOIN (SELECT user_id AS owner,"
        " sum(charge) AS total FROM jobs GROUP BY user_id) ON owner = accounts.user_id"
        " WHERE spent <> coalesce(total, 0)",
        lambda name, spent, total: (
            f"The account {name} says that {format_credits(spent)} credits were spent; its jobs were charged"
            f" {format_credits(total)}."
        ),
    ),
    Check(
        "waiting",
        f"SELECT {_NAME}, waiting, coalesce(total, 0) FROM accounts LEFT JOIN (SELECT user_id AS owner,"
        " count(*) AS total FROM jobs WHERE state = 'queued' GROUP BY user_id) ON owner = accounts.user_id"
        " WHERE waiting <> coalesce(total, 0)",
        lambda name, waiting, total: f"The account {name} says that {waiting} jobs wait; {total} do.",
    ),
    Check(
        "earned",
        f"SELECT {_NAME}, earned, coalesce(total, 0) FROM accounts LEFT JOIN (SELECT account_id,"
        " sum(amount) AS total FROM postings JOIN transactions ON transactions.id = transaction_id"
        " WHERE kind = 'settle' GROUP BY account_id) ON account_id = accounts.id"
        " WHERE accounts.kind = 'user' AND earned <> coalesce(total, 0)",
        lambda name, earned, total: (
            f"The account {name} says that {format_credits(earned)} credits were earned; it was paid"
            f" {format_credits(total)}."
        ),
    ),
    Check(
        "workers' earnings",
        "SELECT workers.id, name, earned, coalesce(total, 0) FROM workers LEFT JOIN (SELECT worker_id,"
        " sum(charge - fee) AS total FROM attempts GROUP BY worker_id) ON worker_id = workers.id"
        " WHERE earned <> coalesce(total, 0)",
        lambda id_, name, earned, total: (
            f"Worker {id_} ({name}) says {format_credits(earned)} credits earned; its attempts come to"
            f" {format_credits(total)}."
        ),
    ),
    Check(
        "holds",
        f"WITH {_ESCROWED} SELECT id, hold, held, holds FROM books"
        " WHERE array_id IS NULL AND (held <> hold OR holds > 1 OR (holds = 0 AND hold > 0))",
        lambda id_, hold, held, holds: (
            f"Job {id_} should have held {format_credits(hold)} credits; {holds} transactions held"
            f" {format_credits(held)}."
        ),
    ),
    Check(
        "settlement",
        f"WITH {_ESCROWED} SELECT id, held, settled, released, settles, releases FROM books"
        " WHERE settles > failures + 1 OR releases > 1"
        f" OR (state IN {IN_ENDED} AND array_id IS NULL AND held <> settled + released)",
        lambda id_, held, settled, released, settles, releases: (
            f"Job {id_} has ended; it held {format_credits(held)} credits, but {settles} settlements paid"
            f" {format_credits(settled)} and {releases} releases gave back {format_credits(released)}."
        ),
    ),
    Check(
        "early payment",
        f"WITH {_ESCROWED} SELECT id, state, failures, settled + released FROM books"
        f" WHERE state IN {IN_OPEN} AND (settles > failures OR settled <> charge OR releases > 0)",
        lambda id_, state, failures, moved: (
            f"Job {id_} is {state} and failed {failures} times, but {format_credits(moved)} credits of its"
            " hold have left escrow."
        ),
    ),
    Check(
        "charges",
        f"WITH {_ESCROWED} SELECT id, books.charge, settled, coalesce(total, 0) FROM books LEFT JOIN"
        " (SELECT job_id, sum(charge) AS total FROM attempts GROUP BY job_id) ON job_id = id"
        " WHERE books.charge <> settled OR books.charge <> coalesce(total, 0)",
        lambda id_, charge, settled, total: (
            f"Job {id_} says it was charged {format_credits(charge)} credits; {format_credits(settled)} were"
            f" settled, and its attempts come to {format_credits(total)}."
        ),
    ),
    Check(
        "payments",
        "SELECT attempts.id, attempts.job_id, attempts.charge, attempts.fee,"
        " coalesce(sum(CASE WHEN account_id = owner.id THEN amount END), 0),"
        f" coalesce(sum(CASE WHEN account_id = {TREASURY} THEN amount END), 0)"
        " FROM attempts JOIN workers ON workers.id = attempts.worker_id"
        " JOIN accounts AS owner ON owner.user_id = workers.user_id"
        " LEFT JOIN transactions ON transactions.attempt_id = attempts.id AND transactions.kind = 'settle'"
        "   AND transactions.job_id = attempts.job_id"
        " LEFT JOIN postings ON postings.transaction_id = transactions.id"
        " GROUP BY attempts.id HAVING attempts.charge - attempts.fee <>"
        " coalesce(sum(CASE WHEN account_id = owner.id THEN amount END), 0)"
        f" OR attempts.fee <> coalesce(sum(CASE WHEN account_id = {TREASURY} THEN amount END), 0)",
        lambda id_, job, charge, fee, paid, taken: (
            f"Attempt {id_} of job {job} was charged {format_credits(charge)} credits with a fee of"
            f" {format_credits(fee)}; the worker's owner got {format_credits(paid)} and the treasury"
            f" {format_credits(taken)}."
        ),
    ),
    Check(
        "unpaid ends",
        f"SELECT id, job_id, state, charge FROM attempts WHERE charge <> 0 AND state NOT IN {among(PAID)}",
        lambda id_, job, state, charge: (
            f"Attempt {id_} of job {job} is {state} and was charged {format_credits(charge)} credits."
        ),
    ),
    Check(
        "live attempts",
        "SELECT jobs.id, jobs.state, count(attempts.id), max(attempts.id IS jobs.attempt_id),"
        " min(attempts.state)"
        f" FROM jobs LEFT JOIN attempts ON attempts.job_id = jobs.id AND attempts.state IN {IN_LIVE_ATTEMPTS}"
        " GROUP BY jobs.id HAVING"
        f" count(attempts.id) <> (jobs.state IN {IN_LIVE})"
        f" OR (jobs.state IN {IN_LIVE} AND NOT max(attempts.id IS jobs.attempt_id))"
        " OR (jobs.state IN ('assigned', 'running') AND min(attempts.state) IS NOT jobs.state)",
        lambda id_, state, count, current, attempt_state: (
            f"Job {id_} is {state} and has {count} live attempts."
            if count != (state in LIVE_JOBS)
            else f"Job {id_} is {state}, but its live attempt is not its current one."
            if not current
            else f"Job {id_} is {state}, but its attempt is {attempt_state}."
        ),
    ),
    Check(
        "ends",
        "SELECT jobs.id, jobs.state, attempts.state FROM jobs"
        " LEFT JOIN attempts ON attempts.id = jobs.attempt_id"
        " WHERE (jobs.state IN ('succeeded', 'failed', 'timed_out', 'out_of_memory')"
        " AND attempts.state IS NOT jobs.state)"
        " OR (jobs.state = 'lost' AND coalesce(attempts.fault, 0) <> 1)"
        f" OR (jobs.state IN ('queued', 'cancelled') AND attempts.state IN {IN_LIVE_ATTEMPTS})",
        lambda id_, state, attempt_state: (
            f"Job {id_} is {state}, but its last attempt is {attempt_state or 'missing'}."
        ),
    ),
    Check(
        "counts",
        "SELECT jobs.id, jobs.attempts, jobs.faults, count(attempts.id), coalesce(sum(attempts.fault), 0),"
        " coalesce(max(number), 0) FROM jobs LEFT JOIN attempts ON attempts.job_id = jobs.id GROUP BY jobs.id"
        " HAVING jobs.attempts <> count(attempts.id) OR jobs.faults <> coalesce(sum(attempts.fault), 0)"
        " OR jobs.attempts <> coalesce(max(number), 0)",
        lambda id_, attempts, faults, count, fault_count, _: (
            f"Job {id_} says {attempts} attempts and {faults} faults; there are {count} and {fault_count}."
        ),
    ),
    Check(
        "retries",
        "SELECT jobs.id, jobs.state, failures, retries, count(attempts.id) FROM jobs LEFT JOIN attempts"
        f" ON attempts.job_id = jobs.id AND attempts.state IN {among(RETRIED)} GROUP BY jobs.id"
        f" HAVING count(attempts.id) <> failures + (jobs.state IN {among(RETRIED)}) OR failures > retries",
        lambda id_, state, failures, retries, count: (
            f"Job {id_} is {state} after {failures} of {retries} retries; {count} of its attempts failed."
        ),
    ),
    Check(
        "payloads",
        "SELECT id FROM jobs WHERE NOT EXISTS (SELECT 1 FROM job_payloads WHERE job_id = jobs.id)"
        " AND NOT EXISTS (SELECT 1 FROM array_payloads WHERE array_payloads.array_id = jobs.array_id)",
        lambda id_: f"Job {id_} has lost its program.",
    ),
    Check(
        "output",
        "SELECT attempts.id, job_id, stdout_bytes, stderr_bytes, coalesce(out, 0), coalesce(err, 0)"
        " FROM attempts LEFT JOIN (SELECT attempt_id,"
        ' sum(CASE stream WHEN 1 THEN length(data) END) AS out, max(CASE stream WHEN 1 THEN "offset"'
        " + length(data) END) AS out_end,"
        ' sum(CASE stream WHEN 2 THEN length(data) END) AS err, max(CASE stream WHEN 2 THEN "offset"'
        " + length(data) END) AS err_end"
        " FROM output_chunks GROUP BY attempt_id) ON attempt_id = attempts.id"
        " WHERE pruned_at IS NULL AND (stdout_bytes <> coalesce(out, 0) OR stderr_bytes <> coalesce(err, 0)"
        " OR stdout_bytes <> coalesce(out_end, 0) OR stderr_bytes <> coalesce(err_end, 0))",
        lambda id_, job, stdout, stderr, out, err: (
            f"Attempt {id_} of job {job} says {stdout} + {stderr} bytes of output; {out} + {err} are stored."
        ),
    ),
    Check(
        "files taken",
        "SELECT username, coalesce(inputs, 0), coalesce(input_bytes, 0), coalesce(outputs, 0),"
        " coalesce(output_bytes, 0), coalesce(in_files, 0), coalesce(in_bytes, 0), coalesce(out_files, 0),"
        " coalesce(out_bytes, 0) FROM users LEFT JOIN file_usage ON file_usage.user_id = users.id"
        " LEFT JOIN (SELECT user_id AS sender, count(*) AS in_files, sum(size) AS in_bytes FROM uploads"
        " JOIN blobs ON blobs.id = blob_id GROUP BY user_id) ON sender = users.id"
        " LEFT JOIN (SELECT user_id AS owner, count(*) AS out_files, sum(size) AS out_bytes FROM"
        " (SELECT attempt_id, blob_id FROM output_files UNION ALL SELECT attempt_id, blob_id FROM sent_blobs)"
        " AS given JOIN blobs ON blobs.id = blob_id JOIN attempts ON attempts.id = given.attempt_id"
        " JOIN jobs ON jobs.id = attempts.job_id GROUP BY user_id) ON owner = users.id"
        " WHERE coalesce(inputs, 0) <> coalesce(in_files, 0)"
        " OR coalesce(input_bytes, 0) <> coalesce(in_bytes, 0)"
        " OR coalesce(outputs, 0) <> coalesce(out_files, 0)"
        " OR coalesce(output_bytes, 0) <> coalesce(out_bytes, 0)",
        lambda name, inputs, input_bytes, outputs, output_bytes, *found: (
            f"The files of {name} are said to be {inputs} with {input_bytes} bytes sent and {outputs} with"
            f" {output_bytes} bytes from jobs; there are {found[0]} with {found[1]} and {found[2]} with"
            f" {found[3]}."
        ),
    ),
    Check(
        "given back",
        "SELECT attempt_id, job_id, state FROM sent_blobs JOIN attempts ON attempts.id = attempt_id"
        " WHERE ended_at IS NOT NULL GROUP BY attempt_id",
        lambda attempt, job, state: (
            f"Attempt {attempt} of job {job} is {state}, but files that it sent were not taken or dropped."
        ),
    ),
    *array_checks.CHECKS,
)


def audit(db: sqlite3.Connection) -> AuditReport:
    """Check everything as of the moment that the connection's read transaction sees."""
    findings = [*_file(db), *_books(db)]

    def number(sql: str) -> int:
        found = _rows(db, sql, 1)
        return 0 if isinstance(found, AuditFinding) else int(found[0][0])

    return AuditReport(
        ok=not findings,
        findings=findings,
        accounts=number("SELECT count(*) FROM accounts"),
        transactions=number("SELECT count(*) FROM transactions"),
        postings=number("SELECT count(*) FROM postings"),
        jobs=number("SELECT count(*) FROM jobs"),
        in_circulation=number("SELECT coalesce(sum(balance), 0) FROM accounts WHERE kind <> 'mint'"),
        held=number(f"SELECT balance FROM accounts WHERE id = {ESCROW}"),
    )


def _rows(db: sqlite3.Connection, sql: str, most: int) -> list[tuple[Any, ...]] | AuditFinding:
    """What a query finds, or that the file is too damaged to tell."""
    try:
        return db.execute(sql).fetchmany(most)
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise
        return AuditFinding(check="integrity", message=f"The file is damaged: {error}.")


def _file(db: sqlite3.Connection) -> Iterator[AuditFinding]:
    lines = _rows(db, f"PRAGMA integrity_check({MAX_FINDINGS})", MAX_FINDINGS)
    if isinstance(lines, AuditFinding):
        yield lines
        return
    for (line,) in lines:
        if line != "ok":
            yield AuditFinding(check="integrity", message=f"The file is damaged: {line}.")
    broken = _rows(db, "PRAGMA foreign_key_check", MAX_FINDINGS)
    for table, row, parent, _ in () if isinstance(broken, AuditFinding) else broken:
        yield AuditFinding(
            check="foreign keys", message=f"Row {row} of {table} names a row of {parent} that is not there."
        )


def _books(db: sqlite3.Connection) -> Iterator[AuditFinding]:
    for check in CHECKS:
        found = _rows(db, check.sql, MAX_FINDINGS + 1)
        if isinstance(found, AuditFinding):
            yield AuditFinding(check=check.name, message=found.message)
            continue
        for row in found[:MAX_FINDINGS]:
            yield AuditFinding(check=check.name, message=check.say(*row))
        if len(found) > MAX_FINDINGS:
            yield AuditFinding(check=check.name, message="There are more of this kind.")
