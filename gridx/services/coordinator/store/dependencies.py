"""What a new job waits for: jobs and arrays of its owner. They were there before it: there are no rings."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from gridx.errors import Conflict, NotFound
from gridx.messages import Dependency, JobState
from gridx.services.coordinator.store.aftermath import ENDS

_PARENT = (
    "SELECT state FROM jobs WHERE id = ?1 AND user_id = ?2"
    " UNION ALL SELECT state FROM arrays WHERE id = ?1 AND user_id = ?2"
)


def depend(db: sqlite3.Connection, user_id: int, child_id: int, after: Sequence[Dependency]) -> list[int]:
    """Let a job or array wait for others; returns those that have not ended yet.

    Raises:
        NotFound: there is none of a number, or it is another's.
        Conflict: one has ended that should have succeeded, and did not.
    """
    waits_for: list[int] = []
    # Of one that is named twice, the stricter word counts.
    needs = {one.job_id: one.when for one in sorted(after, key=lambda one: one.when == "success")}
    for parent_id, when in needs.items():
        row = db.execute(_PARENT, (parent_id, user_id)).fetchone()
        if row is None:
            raise NotFound(
                f"after: there is no job {parent_id} of yours.", "gridx jobs lists them.", field="after"
            )
        state = JobState(row[0])
        if state.ended and when == "success" and state is not JobState.SUCCEEDED:
            raise Conflict(
                f"Job {parent_id}, which has to succeed first, {ENDS[state]}.",
                f"gridx retry {parent_id} tries it anew; --after-any {parent_id} goes on all the same.",
                job_id=parent_id,
                state=state.value,
            )
        db.execute(
            "INSERT INTO dependencies (job_id, parent_id, needs, met) VALUES (?, ?, ?, ?)",
            (child_id, parent_id, when, state.ended),
        )
        if not state.ended:
            waits_for.append(parent_id)
    return waits_for
