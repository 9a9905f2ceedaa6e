"""``/jobs`` and ``/quote``: submit, look, wait, cancel, try again, and what it cost."""

from __future__ import annotations

import asyncio
from typing import Annotated, Final

from aiohttp import web
from msgspec import Meta

from gridx.errors import InvalidField
from gridx.messages import (
    Count,
    ElementOutputs,
    Id,
    Job,
    JobBatch,
    JobPage,
    JobSpec,
    JobState,
    Quote,
    Receipt,
    UserName,
    Wire,
)
from gridx.services.coordinator.api.call import Call, Route, reply

MAX_WAIT_S: Final = 60


class JobsQuery(Wire, frozen=True):
    """Which jobs: newest first, by pages. ``state`` is one or several, with commas; ``q`` is in the name.

    An array is one job here. With ``array``, its number, it is the array's elements that are listed, in the
    order of their indices and from behind the id ``after`` on; or the one of an ``index``.
    """

    state: Annotated[str, Meta(max_length=200)] = ""
    q: Annotated[str, Meta(max_length=200, pattern=r"\A[^\x00]*\Z")] = ""
    owner: UserName | None = None
    limit: Annotated[int, Meta(ge=1, le=500)] = 50
    before: Id | None = None
    array: Id | None = None
    index: Count | None = None
    after: Id | None = None


class OutputsQuery(Wire, frozen=True):
    """Which elements: those of these states, from behind the id ``after`` on."""

    state: Annotated[str, Meta(max_length=200)] = ""
    after: Id | None = None
    limit: Annotated[int, Meta(ge=1, le=500)] = 500


class JobQuery(Wire, frozen=True):
    """``wait_s``: answer when the job has ended, or after so many seconds."""

    wait_s: Annotated[float, Meta(ge=0, le=MAX_WAIT_S)] = 0


async def submit(call: Call) -> web.Response:
    spec = await call.body(JobSpec)
    jobs, replayed = await call.parts.jobs.submit(call.caller.user, [spec], call.idempotency(spec))
    return reply(jobs[0], 200 if replayed else 201)


async def submit_batch(call: Call) -> web.Response:
    batch = await call.body(JobBatch)
    jobs, replayed = await call.parts.jobs.submit(call.caller.user, batch.jobs, call.idempotency(batch))
    return reply(JobPage(jobs=jobs), 200 if replayed else 201)


async def quote(call: Call) -> web.Response:
    return reply(await call.parts.jobs.quote(call.caller.user, await call.body(JobSpec)))


async def page(call: Call, query: JobsQuery) -> web.Response:
    if query.array is not None:
        return reply(
            await call.parts.jobs.elements(
                call.caller.user,
                query.array,
                states=_states(query.state),
                index=query.index,
                after=query.after,
                limit=query.limit,
            )
        )
    found = await call.parts.jobs.page(
        call.caller.user,
        states=_states(query.state),
        text=query.q,
        owner=query.owner,
        before=query.before,
        limit=query.limit,
    )
    return reply(found)


async def outputs(call: Call, query: OutputsQuery) -> web.Response:
    found = await call.parts.jobs.outputs(
        call.caller.user, call.id(), states=_states(query.state), after=query.after, limit=query.limit
    )
    return reply(found)


def _states(text: str) -> tuple[JobState, ...]:
    try:
        return tuple(JobState(part) for part in text.split(",") if part)
    except ValueError:
        raise InvalidField(
            "state: is not a state of a job.", f"It is any of {', '.join(JobState)}.", field="state"
        ) from None


async def show(call: Call, query: JobQuery) -> web.Response:
    parts, user, job_id = call.parts, call.caller.user, call.id()
    loop = asyncio.get_running_loop()
    end = loop.time() + query.wait_s
    signed_out = asyncio.Event()
    with parts.hub.watching(job_id, output=False) as change:

        def sign_out(_: object) -> None:
            signed_out.set()
            change.wake()

        job = await parts.jobs.job(user, job_id)
        if job.state.ended or not query.wait_s:
            return reply(job)
        with parts.sockets.opened(call.caller, sign_out):
            while True:
                left = end - loop.time()
                if job.state.ended or left <= 0 or parts.hub.closing or signed_out.is_set():
                    return reply(job)
                await change.wait(left)
                change.looked()
                job = await parts.jobs.job(user, job_id)


async def cancel(call: Call) -> web.Response:
    return reply(await call.parts.jobs.cancel(call.caller.user, call.id()))


async def retry(call: Call) -> web.Response:
    job, replayed = await call.parts.jobs.retry(call.caller.user, call.id(), call.idempotency())
    return reply(job, 200 if replayed else 201)


async def receipt(call: Call) -> web.Response:
    return reply(await call.parts.jobs.receipt(call.caller.user, call.id()))


ROUTES = (
    Route(
        *("POST", "/jobs", submit),
        says="Submit a job. 200 where the Idempotency-Key came before: the job of that time.",
        takes=JobSpec,
        gives=Job,
        status=(201, 200),
        keyed=True,
    ),
    Route(
        *("GET", "/jobs", page, JobsQuery),
        says="One's jobs, newest first, by pages; everybody's to an administrator. Or an array's elements.",
        gives=JobPage,
    ),
    Route(
        *("POST", "/jobs/batch", submit_batch),
        says="Submit several jobs, all or none.",
        takes=JobBatch,
        gives=JobPage,
        status=(201, 200),
        keyed=True,
    ),
    Route("POST", "/quote", quote, says="What a job would cost.", takes=JobSpec, gives=Quote),
    Route(
        *("GET", "/jobs/{id}", show, JobQuery),
        says="One job; with ``wait_s`` when it has ended, or after that time.",
        gives=Job,
    ),
    Route(
        *("GET", "/jobs/{id}/outputs", outputs, OutputsQuery),
        says="What an array's elements wrote, in their order; what wrote much is read by itself.",
        gives=ElementOutputs,
    ),
    Route(
        *("POST", "/jobs/{id}/cancel", cancel),
        says="Cancel a job, or all of an array; one that has ended stays as it is.",
        gives=Job,
    ),
    Route(
        *("POST", "/jobs/{id}/retry", retry),
        says="Submit the spec of a job that has ended once more; of an array what did not succeed.",
        gives=Job,
        status=(201, 200),
        keyed=True,
    ),
    Route(
        *("GET", "/jobs/{id}/receipt", receipt),
        says="What a job cost, attempt by attempt.",
        gives=Receipt,
    ),
)
