"""What an earlier run of the coordinator left, taken up at a start: what waits, lives, was consumed."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from gridx.clock import Clock
from gridx.config import Settings
from gridx.messages import JobState
from gridx.services.coordinator.fleet import Fleet
from gridx.services.coordinator.jobs.backlog import Backlog, weight_of
from gridx.services.coordinator.jobs.held_back import by_child
from gridx.services.coordinator.live import Ask, Live
from gridx.services.coordinator.store import Store
from gridx.services.coordinator.store.records import AttemptRecord, JobRecord

USAGE_HALF_LIVES: Final = 10
"""How far back usage is read; what is older counts for less than a thousandth."""


async def take_up(store: Store, fleet: Fleet, backlog: Backlog, settings: Settings, clock: Clock) -> None:
    """Fill the fleet and the backlog from the store, before anything is placed."""
    await fleet.load()
    waits_for = by_child(await store.unmet_dependencies())
    for array in await store.open_arrays():
        fresh = await store.fresh_elements(array.id)
        ids, indices = zip(*fresh, strict=True) if fresh else ((), ())
        backlog.add_array(array, ids, indices, waits_for=waits_for.get(array.id, ()))
    live = await store.live_attempts()
    waiting = await store.waiting_jobs()
    open_ids = [job.id for job in waiting] + [job.id for _, job in live]
    for job_id, worker_ids in (await store.machine_faults(open_ids)).items():
        backlog.broke(job_id, worker_ids)
    for attempt, job in live:
        fleet.begin(_revive(attempt, job, store.boot_id, settings.coordinator.lease_s, clock.monotonic()))
    for job in waiting:
        backlog.add(job, waits_for=waits_for.get(job.id, ()))
    past = timedelta(seconds=settings.scheduler.half_life_s * USAGE_HALF_LIVES)
    for user_id, ended_at, cost in await store.recent_usage(clock.now() - past):
        backlog.used(user_id, cost, ended_at)


def _revive(attempt: AttemptRecord, job: JobRecord, boot_id: str, lease_s: float, now: float) -> Live:
    """An attempt that lived when the coordinator went away: its worker has a whole lease to come back."""
    live = Live(attempt, job, now + lease_s, now, weight_of(job))
    live.stored = {"stdout": attempt.stdout_bytes, "stderr": attempt.stderr_bytes}
    live.running_since = now
    if attempt.started_at is not None:
        live.started = live.accepted = True
        if attempt.boot_id == boot_id:
            live.running_since = attempt.assigned_mono_ms / 1000
    if job.state is JobState.CANCELLING:
        live.asked = Ask.CANCEL
        live.give_up_at = now + 2 * lease_s
    return live
