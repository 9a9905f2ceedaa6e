"""What is done to jobs and workers, from whichever screen: ask where it cannot be undone, do it, say so."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from gridx import safetext
from gridx.control import Order
from gridx.credits import format_credits
from gridx.errors import GridError
from gridx.messages import Job, JobSpec, JobState, Worker
from gridx.tui.describe import job_title
from gridx.tui.messages import EditWanted, Submitted

if TYPE_CHECKING:
    from gridx.tui.app import GridApp


def _do(app: GridApp, deed: Coroutine[Any, Any, None], name: str) -> None:
    app.run_worker(_telling(app, deed), name=name, group="deeds")


async def _telling(app: GridApp, deed: Coroutine[Any, Any, None]) -> None:
    try:
        await deed
    except GridError as error:
        app.tell_error(error)


def cancel(app: GridApp, job: Job) -> None:
    """Cancel a job, after asking."""
    if job.state.ended:
        app.tell(f"Job {job.id} has ended already.")
    elif job.state is JobState.CANCELLING:
        app.tell(f"Job {job.id} is being cancelled.")
    else:
        _do(app, _cancel(app, job), "cancel")


async def _cancel(app: GridApp, job: Job) -> None:
    consequence = (
        _of_an_array(job)
        if job.array is not None
        else f"It has not started. The {format_credits(job.hold)} credits held for it are given back."
        if job.state is JobState.QUEUED
        else "It is killed at once. The time that it ran is paid for; what it has written so far stays."
    )
    if await app.ask(f"Cancel job {job.id}, {job_title(job)}?", consequence, "Cancel the job"):
        app.state.put_jobs([await app.client.cancel(job.id)])
        app.changed()


def _of_an_array(job: Job) -> str:
    assert job.array is not None
    return (
        f"{job.array.running} of its elements run and are killed at once; {job.array.queued} wait. "
        f"What ran is paid for. {format_credits(job.hold)} credits are held now."
    )


def retry(app: GridApp, job: Job) -> None:
    """Submit an ended job anew."""
    if job.state.ended:
        _do(app, _retry(app, job), "retry")
    else:
        app.tell(f"Job {job.id} has not ended; there is nothing to retry.")


async def _retry(app: GridApp, job: Job) -> None:
    new = await app.client.retry(job.id)
    app.state.put_jobs([new])
    app.changed()
    array = job.array is not None
    app.tell(
        f"Job {new.id} is what did not succeed of job {job.id}."
        if array
        else f"Job {new.id} is job {job.id} again."
    )
    app.desk.post_message(Submitted(new))


def edit(app: GridApp, job_id: int) -> None:
    """Put a job's spec into the editor."""
    _do(app, _edit(app, job_id), "edit")


async def _edit(app: GridApp, job_id: int) -> None:
    job = await app.client.job(job_id)
    if isinstance(job.spec, JobSpec):
        app.desk.post_message(EditWanted(job.spec, f"from job {job_id}"))


def pause_worker(app: GridApp, worker: Worker) -> None:
    """Give a worker nothing new, after asking."""
    _do(app, _pause(app, worker), "pause")


async def _pause(app: GridApp, worker: Worker) -> None:
    if await app.ask(
        f"Pause worker {worker.id}, {safetext.line(worker.name)}?",
        f"It is given no new jobs until it is resumed. {_running(worker)}",
        "Pause the worker",
    ):
        await _steer(app, worker, Order(do="pause"))


def give_back(app: GridApp, worker: Worker) -> None:
    """Free a worker's machine at once, after asking."""
    _do(app, _give_back(app, worker), "give back")


async def _give_back(app: GridApp, worker: Worker) -> None:
    count = len(worker.jobs)
    running = "The job that it runs is" if count == 1 else f"The {count} jobs that it runs are"
    fate = f"{running} killed there and begin anew elsewhere, unpaid." if count else "It runs nothing now."
    if await app.ask(
        f"Take worker {worker.id}, {safetext.line(worker.name)}, back now?",
        f"{fate} It is given no new jobs until it is resumed.",
        "Give its jobs back",
    ):
        await _steer(app, worker, Order(do="pause", give_back=True))


def resume_worker(app: GridApp, worker: Worker) -> None:
    """Give a paused worker jobs again."""
    _do(app, _resume(app, worker), "resume")


async def _resume(app: GridApp, worker: Worker) -> None:
    state, reason = await _steer(app, worker, Order(do="resume"))
    takes = "is given jobs again" if state == "online" else f"is {state}"
    app.tell(f"{safetext.line(worker.name)} {takes}{f': {safetext.line(reason)}' if reason else ''}.")


def drain_worker(app: GridApp, worker: Worker) -> None:
    """Let a worker finish and leave, after asking."""
    _do(app, _drain(app, worker), "drain")


async def _drain(app: GridApp, worker: Worker) -> None:
    if await app.ask(
        f"Drain worker {worker.id}, {safetext.line(worker.name)}?",
        f"It takes nothing new and leaves the grid. {_running(worker)} Started again, it comes back.",
        "Drain the worker",
    ):
        await _steer(app, worker, Order(do="drain"))


async def _steer(app: GridApp, worker: Worker, order: Order) -> tuple[str, str]:
    """Tell a worker what its owner wants; its state then, and why.

    The one of this process hears it without the coordinator, which learns of it from the worker.
    """
    if app.here.order is not None and app.here.worker_id() == worker.id:
        report = await app.here.order(order)
        worker = replace(worker, state=report.state, state_reason=report.reason)
    elif order.do == "pause":
        worker = await app.client.pause_worker(worker.id, give_back=order.give_back)
    elif order.do == "resume":
        worker = await app.client.resume_worker(worker.id)
    else:
        worker = await app.client.drain_worker(worker.id)
    app.state.put_worker(worker)
    app.changed()
    return worker.state, worker.state_reason


def _running(worker: Worker) -> str:
    count = len(worker.jobs)
    if not count:
        return "It runs nothing now."
    return f"The {count} jobs that it runs go on." if count > 1 else "The job that it runs goes on."
