"""``/workers``: the fleet, and what a machine's owner asks of it."""

from __future__ import annotations

from typing import Annotated

from aiohttp import web
from msgspec import Meta

from gridx import messages
from gridx.errors import NotFound
from gridx.messages import Id, PauseOrder, Wire, Worker, WorkerPage
from gridx.services.coordinator.api.bodies import read_body
from gridx.services.coordinator.api.call import Call, Route, reply


class Heartbeat(Wire, frozen=True):
    """A sign of life over HTTP: the attempts that the worker holds."""

    attempts: Annotated[list[Id], Meta(max_length=10_000)]


async def fleet(call: Call) -> web.Response:
    return reply(WorkerPage(workers=call.parts.fleet.view()))


async def show(call: Call) -> web.Response:
    worker = call.parts.fleet.worker(call.id())
    if worker is None:
        raise NotFound("There is no such worker.", "gridx workers lists them.")
    return reply(worker)


async def pause(call: Call) -> web.Response:
    worker_id = call.id()
    data = await read_body(call.request)
    order = messages.decode(data, PauseOrder) if data.strip() else PauseOrder()
    return reply(await call.parts.jobs.pause_worker(call.caller.user, worker_id, give_back=order.give_back))


async def resume(call: Call) -> web.Response:
    return reply(await call.parts.jobs.resume_worker(call.caller.user, call.id()))


async def drain(call: Call) -> web.Response:
    return reply(await call.parts.jobs.drain_worker(call.caller.user, call.id()))


async def heartbeat(call: Call) -> web.Response:
    worker_id = call.id()
    data = await read_body(call.request)
    body = messages.decode(data, Heartbeat) if data.strip() else Heartbeat(attempts=[])
    return reply(await call.parts.jobs.heartbeat(call.caller.user, worker_id, body.attempts))


ROUTES = (
    Route("GET", "/workers", fleet, says="The fleet.", gives=WorkerPage),
    Route("GET", "/workers/{id}", show, says="One worker.", gives=Worker),
    Route(
        *("POST", "/workers/{id}/pause", pause),
        says="Let a worker take no new jobs; for its owner and administrators.",
        takes=PauseOrder | None,
        gives=Worker,
    ),
    Route("POST", "/workers/{id}/resume", resume, says="Let a worker take jobs again.", gives=Worker),
    Route(
        *("POST", "/workers/{id}/drain", drain),
        says="Let a worker finish what it has and leave the grid.",
        gives=Worker,
    ),
    Route(
        *("POST", "/workers/{id}/heartbeat", heartbeat),
        says="A sign of life of a worker, which renews the leases of the attempts that it names.",
        takes=Heartbeat | None,
        gives=Worker,
    ),
)
