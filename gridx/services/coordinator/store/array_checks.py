"""The checks of arrays and of what waits for what, for the audit."""

from __future__ import annotations

from typing import Final

from gridx.credits import format_credits
from gridx.services.coordinator.store.checks import IN_LIVE, IN_OPEN, Check
from gridx.services.coordinator.store.postings import ESCROW

# What each array's transactions moved into and out of escrow, and its elements by what became of them.
_ARRAYS = f"""
    moved AS (
        SELECT array_id AS moved_id,
            coalesce(sum(CASE kind WHEN 'hold' THEN amount END), 0) AS held_first,
            coalesce(sum(CASE kind WHEN 'settle' THEN -amount END), 0) AS settled,
            coalesce(sum(CASE kind WHEN 'release' THEN -amount END), 0) AS released
        FROM transactions JOIN postings ON postings.transaction_id = transactions.id
        WHERE array_id IS NOT NULL AND postings.account_id = {ESCROW} GROUP BY array_id
    ),
    elements AS (
        SELECT array_id AS of_id, count(*) AS elements, sum(state = 'queued') AS are_queued,
            sum(state IN {IN_LIVE}) AS are_running, sum(state = 'succeeded') AS are_succeeded,
            sum(state = 'cancelled') AS are_cancelled,
            sum(state IN ('failed', 'timed_out', 'out_of_memory', 'lost')) AS are_failed,
            sum(charge) AS charged,
            coalesce(sum(CASE WHEN state IN {IN_OPEN} THEN charge END), 0) AS open_charged,
            coalesce(sum(CASE WHEN state IN {IN_LIVE} THEN charge END), 0) AS running_charged,
            min(id) AS first, max(id) AS last, max(hold) AS most, min(hold) AS least
        FROM jobs WHERE array_id IS NOT NULL GROUP BY array_id
    )"""


def _over(column: str) -> str:
    """Whether the job or array of this number has ended."""
    return (
        f"coalesce((SELECT ended_at IS NOT NULL FROM jobs WHERE jobs.id = {column}),"
        f" (SELECT ended_at IS NOT NULL FROM arrays WHERE arrays.id = {column}))"
    )


CHECKS: Final = (
    Check(
        "counts of arrays",
        f"WITH {_ARRAYS} SELECT id, count, elements, queued, running, succeeded, failed, cancelled"
        " FROM arrays LEFT JOIN elements ON of_id = id WHERE elements IS NOT count OR first <> id + 1"
        " OR last <> id + count OR queued <> are_queued OR running <> are_running"
        " OR succeeded <> are_succeeded OR failed <> are_failed OR cancelled <> are_cancelled",
        lambda id_, count, elements, *counts: (
            f"Array {id_} says {count} elements, {', '.join(map(str, counts))} of them queued, running,"
            f" succeeded, failed and cancelled; its {elements or 0} elements say otherwise."
        ),
    ),
    Check(
        "states of arrays",
        "SELECT id, state, queued, running, succeeded, failed, cancelled FROM arrays WHERE state <> CASE"
        " WHEN queued + running > 0 THEN CASE WHEN stop = 'cancel' THEN 'cancelling'"
        " WHEN queued = count THEN 'queued' ELSE 'running' END"
        " WHEN succeeded = count THEN 'succeeded'"
        " WHEN stop IN ('cancel', 'budget', 'parent') OR (failed = 0 AND stop <> 'fails') THEN 'cancelled'"
        " ELSE 'failed' END OR (stop <> '' AND queued > 0)",
        lambda id_, state, *counts: (
            f"Array {id_} is {state} with {', '.join(map(str, counts))} elements queued, running, succeeded,"
            " failed and cancelled."
        ),
    ),
    Check(
        "books of arrays",
        f"WITH {_ARRAYS} SELECT id, hold, held, arrays.charge, coalesce(held_first, 0), coalesce(settled, 0),"
        " coalesce(released, 0) FROM arrays LEFT JOIN moved ON moved_id = id LEFT JOIN elements ON of_id = id"
        " WHERE hold <> coalesce(held_first, 0) OR arrays.charge <> coalesce(settled, 0)"
        " OR held <> hold - arrays.charge - coalesce(released, 0) OR arrays.charge <> charged"
        " OR open_charge <> open_charged OR running_charge <> running_charged",
        lambda id_, hold, held, charge, first, settled, released: (
            f"Array {id_} says {format_credits(hold)} credits held, {format_credits(charge)} charged and"
            f" {format_credits(held)} left; its transactions held {format_credits(first)}, paid"
            f" {format_credits(settled)} and gave back {format_credits(released)}."
        ),
    ),
    Check(
        "budgets",
        f"WITH {_ARRAYS} SELECT id, hold, held, running, unit FROM arrays LEFT JOIN elements ON of_id = id"
        " WHERE hold <> min(count * unit, coalesce(max_credits, count * unit))"
        " OR most <> unit OR least <> unit OR held > (queued + running) * unit - open_charge"
        " OR held < running * unit - running_charge",
        lambda id_, hold, held, running, unit: (
            f"Array {id_} holds {format_credits(held)} of {format_credits(hold)} credits, which does not fit"
            f" {running} running elements of {format_credits(unit)} each."
        ),
    ),
    Check(
        "dependencies",
        "SELECT jobs.id, parent_id FROM dependencies"
        " JOIN jobs ON jobs.id = dependencies.job_id OR jobs.array_id = dependencies.job_id"
        " WHERE NOT met AND jobs.attempts > 0"
        f" UNION ALL SELECT job_id, parent_id FROM dependencies WHERE NOT {_over('job_id')}"
        f" AND met <> {_over('parent_id')}",
        lambda id_, parent: f"Job {id_} does not wait for job {parent} as it should.",
    ),
)
