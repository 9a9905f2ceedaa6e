"""The audit finds what somebody changed behind the store's back, and says it in words."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from gridx.messages import AttemptState, Dependency
from gridx.services.coordinator.store.audit import CHECKS, audit
from gridx.services.coordinator.store.blobs import Quota
from gridx.services.coordinator.store.records import NewArray


@pytest.fixture
async def busy(grid):
    """Jobs in every stage: 1 succeeded, 2 running, 3 queued, 4 lost an attempt and waits, 5 cancelled,
    6 failed once and is tried again; array 7 with 8 succeeded, 9 running, 10 queued, and 11 waits for it."""
    _, one = await grid.run()
    await grid.store.finish_attempt(one, grid.end(charge=40, fee=4))
    await grid.run()
    await grid.submit()
    fourth, attempt_id = await grid.run()
    await grid.store.requeue_attempt(attempt_id, AttemptState.BROKEN, "", fault=True)
    await grid.store.cancel((await grid.submit()).id, "")
    assert fourth.id == 4
    _, sixth = await grid.run(hold=0, retries=3)
    await grid.store.finish_attempt(sixth, grid.end(AttemptState.FAILED, charge=0))
    new = grid.new_job(array=NewArray(range(3), 3))
    await grid.store.submit(grid.ann, [new], max_queued=1000)
    eighth = await grid.assign(8)
    await grid.store.finish_attempt(eighth, grid.end(charge=30))
    await grid.store.start_attempt(await grid.assign(9), runtime="default")
    await grid.submit(hold=0, after=[Dependency(job_id=7)])
    await grid.store.add_upload(grid.ann, b"1" * 32, 5, Quota(10, 10))
    await grid.sound()
    return grid


UNLOCK = (
    "DROP TRIGGER postings_stay",
    "DROP TRIGGER postings_remain",
    "DROP TRIGGER transactions_stay",
    "DROP TRIGGER transactions_remain",
    "DROP INDEX transactions_one_settle",
)

TAMPERED = [
    (
        "files taken",
        "UPDATE file_usage SET input_bytes = 6",
        "said to be 1 with 6 bytes sent and 0 with 0 bytes from jobs; there are 1 with 5",
    ),
    (
        "given back",
        "INSERT INTO sent_blobs (attempt_id, blob_id) VALUES (1, 1)",
        "Attempt 1 of job 1 is succeeded, but files that it sent",
    ),
    (
        "balances",
        "UPDATE accounts SET balance = balance + 5000000 WHERE user_id = 1",
        "The account ann says 5.00043",
    ),
    (
        "balances",
        "UPDATE accounts SET balance = 0 WHERE kind = 'escrow'",
        "The account escrow says 0 credits",
    ),
    ("overdraft", "UPDATE accounts SET balance = -1 WHERE user_id = 2", "bob is overdrawn: -0.000001"),
    (
        "escrow",
        "UPDATE accounts SET balance = 1 WHERE kind = 'escrow'",
        "the jobs that have not ended hold 0.0005",
    ),
    ("held", "UPDATE accounts SET held = 7 WHERE user_id = 1", "ann says that 0.000007 credits are held"),
    ("earned", "UPDATE accounts SET earned = 1 WHERE user_id = 2", "it was paid 0.000066"),
    ("spent", "UPDATE accounts SET spent = 1 WHERE user_id = 1", "its jobs were charged 0.00007"),
    ("waiting", "UPDATE accounts SET waiting = 9 WHERE user_id = 1", "ann says that 9 jobs wait; 5 do"),
    ("workers' earnings", "UPDATE workers SET earned = 1", "its attempts come to 0.000066"),
    ("sum zero", "UPDATE postings SET amount = amount + 1 WHERE id = 1", "transaction 1 (grant) sum to"),
    ("sum zero", "DELETE FROM postings WHERE transaction_id = 2", "Transaction 2 (hold) has no postings"),
    ("holds", "UPDATE jobs SET hold = 99 WHERE id = 2", "Job 2 should have held 0.000099"),
    (
        "holds",
        "DELETE FROM transactions WHERE job_id = 3",
        "Job 3 should have held 0.0001 credits; 0 transactions",
    ),
    (
        "settlement",
        "UPDATE transactions SET kind = 'settle' WHERE job_id = 1 AND kind = 'release'",
        "Job 1 has ended",
    ),
    (
        "settlement",
        "DELETE FROM transactions WHERE job_id = 5 AND kind = 'release'",
        "0 releases gave back 0.",
    ),
    (
        "early payment",
        "UPDATE jobs SET state = 'queued', ended_at = NULL WHERE id = 5",
        "Job 5 is queued and failed 0 times, but 0.0001 credits of its hold have left escrow",
    ),
    ("charges", "UPDATE jobs SET charge = 41 WHERE id = 1", "Job 1 says it was charged 0.000041"),
    ("payments", "UPDATE attempts SET fee = 0 WHERE id = 1", "the worker's owner got 0.000036"),
    ("payments", "UPDATE attempts SET charge = 50 WHERE id = 1", "Attempt 1 of job 1 was charged 0.00005"),
    ("unpaid ends", "UPDATE attempts SET charge = 5 WHERE state = 'broken'", "is broken and was charged"),
    (
        "live attempts",
        "UPDATE jobs SET state = 'running', attempt_id = 1 WHERE id = 3",
        "has 0 live attempts",
    ),
    (
        "live attempts",
        "UPDATE attempts SET state = 'assigned' WHERE id = 2",
        "Job 2 is running, but its attempt is",
    ),
    (
        "live attempts",
        "UPDATE jobs SET attempt_id = 1 WHERE id = 2",
        "its live attempt is not its current one",
    ),
    (
        "live attempts",
        "UPDATE jobs SET state = 'queued' WHERE id = 2",
        "Job 2 is queued and has 1 live attempts",
    ),
    (
        "ends",
        "UPDATE jobs SET state = 'failed' WHERE id = 1",
        "Job 1 is failed, but its last attempt is succeeded",
    ),
    ("counts", "UPDATE jobs SET attempts = 2 WHERE id = 2", "Job 2 says 2 attempts"),
    (
        "retries",
        "UPDATE jobs SET failures = 2 WHERE id = 6",
        "Job 6 is queued after 2 of 3 retries; 1 of its attempts failed",
    ),
    (
        "counts of arrays",
        "UPDATE arrays SET queued = 2, succeeded = 0",
        "Array 7 says 3 elements, 2, 1, 0, 0, 0 of them queued",
    ),
    ("counts of arrays", "DELETE FROM jobs WHERE id = 10", "its 2 elements say otherwise"),
    ("states of arrays", "UPDATE arrays SET state = 'queued'", "Array 7 is queued with 1, 1, 1, 0, 0"),
    (
        "books of arrays",
        "UPDATE arrays SET held = 100",
        "Array 7 says 0.0003 credits held, 0.00003 charged and 0.0001 left",
    ),
    ("books of arrays", "UPDATE arrays SET open_charge = 1", "Array 7 says 0.0003 credits held"),
    (
        "budgets",
        "UPDATE arrays SET max_credits = 5",
        "Array 7 holds 0.0002 of 0.0003 credits, which does not",
    ),
    (
        "budgets",
        "UPDATE arrays SET held = 99",
        "Array 7 holds 0.000099 of 0.0003 credits, which does not fit",
    ),
    ("dependencies", "UPDATE dependencies SET met = 1", "Job 11 does not wait for job 7 as it should"),
    ("payloads", "DELETE FROM job_payloads WHERE job_id = 3", "Job 3 has lost its program"),
    (
        "output",
        "UPDATE attempts SET stdout_bytes = 3 WHERE id = 1",
        "says 3 + 0 bytes of output; 0 + 0 are stored",
    ),
    (
        "foreign keys",
        "UPDATE jobs SET worker_id = 99 WHERE id = 1",
        "names a row of workers that is not there",
    ),
    ("accounts", "DELETE FROM accounts WHERE user_id = 2", "bob has no account"),
]


@pytest.mark.parametrize(("check", "statement", "words"), TAMPERED)
async def test_what_was_changed_by_hand_is_found(busy, tamper, check, statement, words):
    tamper(*UNLOCK, statement)
    report = await busy.store.audit()
    assert not report.ok
    said = [finding.message for finding in report.findings if finding.check == check]
    assert any(words in message for message in said), report.findings


async def test_every_check_was_seen_to_find_something(busy):
    assert {check.name for check in CHECKS} <= {check for check, _, _ in TAMPERED}


async def test_many_differences_of_a_kind_are_cut_short(busy, tamper):
    await busy.store.submit(busy.ann, [busy.new_job(hold=0)] * 60, max_queued=1000)
    tamper("DELETE FROM job_payloads")
    said = [f.message for f in (await busy.store.audit()).findings if f.check == "payloads"]
    assert len(said) == 51
    assert said[-1] == "There are more of this kind."


async def test_the_ledger_cannot_be_rewritten_by_mistake(busy, tamper):
    for statement in ("UPDATE postings SET amount = 1", "DELETE FROM transactions"):
        with pytest.raises(sqlite3.IntegrityError, match="are never"):
            tamper(statement)


async def test_a_damaged_page_is_found(busy, path):
    await busy.store.close()
    data = bytearray(path.read_bytes())
    at = data.index(b"print('hello')") + 20
    data[at - 200 : at + 200] = b"\xff" * 400
    path.write_bytes(data)
    with closing(sqlite3.connect(path)) as db:
        findings = audit(db).findings
    assert any(finding.check == "integrity" for finding in findings)
    assert any("is damaged" in finding.message for finding in findings)
