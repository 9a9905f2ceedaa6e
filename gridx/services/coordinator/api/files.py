"""``/blobs``, ``/limits`` and the files of jobs and attempts."""

from __future__ import annotations

from typing import Annotated, Final

from aiohttp import web
from msgspec import Meta

from gridx import messages
from gridx.messages import (
    BlobState,
    BlobStates,
    Count,
    Digest,
    Digests,
    FileUsage,
    Freed,
    JobFiles,
    Limits,
    Wire,
)
from gridx.services.coordinator.api.bodies import body_pieces
from gridx.services.coordinator.api.call import Call, Route, reply
from gridx.services.coordinator.api.sending import send_file
from gridx.services.coordinator.filestore import Incoming

OFFSET: Final = {"Gridx-Offset": "How many bytes of the file have come."}
FILE: Final = "application/octet-stream"


class PieceQuery(Wire, frozen=True):
    """``size`` of the whole file, and the ``offset`` at which the body begins; it may end before the file."""

    size: Count
    offset: Count = 0


class AttemptQuery(Wire, frozen=True):
    """Which attempt's files, by its number in the job; else those of the last one that came to its end."""

    attempt: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None


class _Address(Wire, frozen=True):
    """A file in the path of a request."""

    sha256: Digest


async def limits(call: Call) -> web.Response:
    return reply(await call.parts.files.limits(call.caller.user))


async def usage(call: Call) -> web.Response:
    return reply(await call.parts.files.usage(call.caller.user))


async def have(call: Call) -> web.Response:
    return _offset(await call.parts.files.have(call.caller.user, _digest(call)))


async def have_all(call: Call) -> web.Response:
    asked = await call.body(Digests)
    return reply(BlobStates(blobs=await call.parts.files.have_all(call.caller.user, asked.sha256)))


async def take(call: Call, query: PieceQuery) -> web.Response:
    coming = _incoming(call, query)
    with call.parts.sockets.opened(call.caller, lambda _: coming.cut()):
        return reply(await call.parts.files.take(call.caller.user, coming))


async def delete(call: Call) -> web.Response:
    freed = await call.parts.files.delete(call.caller.user, _digest(call))
    return reply(freed)


async def prune(call: Call) -> web.Response:
    freed = await call.parts.files.prune(call.caller.user)
    return reply(freed)


async def attempt_input(call: Call) -> web.StreamResponse:
    digest = _digest(call)
    size = await call.parts.files.input_of(call.caller.user, call.id(), digest)
    return await _send(call, digest, size, digest)


async def have_output(call: Call) -> web.Response:
    return _offset(await call.parts.files.have_output(call.caller.user, call.id(), _digest(call)))


async def take_output(call: Call, query: PieceQuery) -> web.Response:
    coming = _incoming(call, query)
    with call.parts.sockets.opened(call.caller, lambda _: coming.cut()):
        return reply(await call.parts.files.take_output(call.caller.user, call.id(), coming))


async def of_job(call: Call, query: AttemptQuery) -> web.Response:
    job = await call.parts.jobs.record(call.caller.user, call.id())
    return reply(await call.parts.files.of_job(job, query.attempt))


async def file_of_job(call: Call, query: AttemptQuery) -> web.StreamResponse:
    job = await call.parts.jobs.record(call.caller.user, call.id())
    file = await call.parts.files.file_of_job(job, query.attempt, call.request.match_info["path"])
    return await _send(call, file.sha256, file.size, file.path.rpartition("/")[2])


async def delete_of_job(call: Call) -> web.Response:
    job_id = call.id()
    await call.parts.jobs.job(call.caller.user, job_id)
    return reply(await call.parts.files.delete_of_job(job_id))


def _digest(call: Call) -> str:
    return messages.convert({"sha256": call.request.match_info["sha256"]}, _Address).sha256


def _incoming(call: Call, query: PieceQuery) -> Incoming:
    def cut() -> None:
        if call.request.transport is not None:
            call.request.transport.abort()

    return Incoming(_digest(call), query.size, query.offset, body_pieces(call.request), cut)


def _offset(state: BlobState) -> web.Response:
    return web.Response(status=200 if state.complete else 404, headers={"Gridx-Offset": str(state.offset)})


async def _send(call: Call, digest: str, size: int, name: str) -> web.StreamResponse:
    files = call.parts.files.disk
    async with files.opened(digest, size) as file:

        def seek(offset: int) -> None:
            file.seek(offset)

        return await send_file(
            call, lambda length: files.read(file, length), size=size, name=name, seek=seek, tag=digest
        )


ROUTES = (
    Route("GET", "/limits", limits, says="Every limit that a submission meets.", gives=Limits),
    Route("GET", "/blobs/usage", usage, says="What one's files take.", gives=FileUsage),
    Route(
        *("HEAD", "/blobs/{sha256}", have),
        says="Whether one has uploaded a file, and how much of it has come.",
        headers=OFFSET,
    ),
    Route(
        *("POST", "/blobs/have", have_all),
        says="The same of many files.",
        takes=Digests,
        gives=BlobStates,
    ),
    Route(
        *("PUT", "/blobs/{sha256}", take, PieceQuery),
        says="Upload a file by its SHA-256, in one go or in pieces that follow each other.",
        takes=FILE,
        gives=BlobState,
    ),
    Route(
        *("DELETE", "/blobs/{sha256}", delete),
        says="Delete an upload that no open job needs.",
        gives=Freed,
    ),
    Route(*("POST", "/blobs/prune", prune), says="Delete all uploads that no open job needs.", gives=Freed),
    Route(
        *("GET", "/jobs/{id}/files", of_job, AttemptQuery),
        says="What a job gave back, and what it left behind.",
        gives=JobFiles,
    ),
    Route(
        *("GET", "/jobs/{id}/files/{path:.+}", file_of_job, AttemptQuery),
        says="One of the files that a job gave back, or a range of it.",
        gives=FILE,
        status=(200, 206),
    ),
    Route(
        *("DELETE", "/jobs/{id}/files", delete_of_job),
        says="Delete what a job, or every element of an array, gave back.",
        gives=Freed,
    ),
    Route(
        *("GET", "/attempts/{id}/inputs/{sha256}", attempt_input),
        says="An input of a live attempt, or a range of it; for its worker.",
        gives=FILE,
        status=(200, 206),
    ),
    Route(
        *("HEAD", "/attempts/{id}/files/{sha256}", have_output),
        says="How much of a file has come that a live attempt gives back; for its worker.",
        headers=OFFSET,
    ),
    Route(
        *("PUT", "/attempts/{id}/files/{sha256}", take_output, PieceQuery),
        says="Send a file that a live attempt gives back; for its worker.",
        takes=FILE,
        gives=BlobState,
    ),
)
