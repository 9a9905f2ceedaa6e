"""``/users`` and ``/admin``: who is here, does everything add up, and a copy of it all."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path
from typing import Final

from aiohttp import web
from msgspec.structs import replace

from gridx.errors import Conflict, Forbidden
from gridx.messages import AuditReport, Register, User, UserPage, UserUpdate
from gridx.services.coordinator.accounts import public
from gridx.services.coordinator.api.call import Call, Route, reply

BACKUP_PREFIX: Final = ".backup-"
PART_BYTES: Final = 256 << 10
STALLED_S: Final = 60.0
"""A reader that takes nothing for so long is dropped."""


async def users(call: Call) -> web.Response:
    _only_admins(call)
    return reply(UserPage(users=[public(user) for user in await call.parts.store.users()]))


async def create(call: Call) -> web.Response:
    _only_admins(call)
    return reply(public(await call.parts.accounts.create(await call.body(Register))), 201)


async def update(call: Call) -> web.Response:
    body = await call.body(UserUpdate)
    name = call.request.match_info["name"]
    return reply(public(await call.parts.accounts.update(call.caller, name, body)))


async def audit(call: Call) -> web.Response:
    _only_admins(call)
    report = await call.parts.store.audit()
    lost = await call.parts.files.disk.audit()
    return reply(replace(report, ok=report.ok and not lost, findings=[*report.findings, *lost]))


async def backup(call: Call) -> web.StreamResponse:
    _only_admins(call)
    parts = call.parts
    if parts.backup.locked():
        raise Conflict("Another backup is being made.", "Try again when it is done.")
    async with parts.backup:
        folder = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix=BACKUP_PREFIX, dir=parts.folder))
        try:
            copy = folder / "grid.db"
            await parts.store.backup(copy)
            return await _send(call, copy)
        finally:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


async def _send(call: Call, copy: Path) -> web.StreamResponse:
    response = web.StreamResponse(
        headers={
            "Content-Type": "application/octet-stream",
            "Content-Disposition": 'attachment; filename="grid.db"',
        }
    )
    response.content_length = (await asyncio.to_thread(copy.stat)).st_size
    with await asyncio.to_thread(copy.open, "rb") as file:
        await response.prepare(call.request)
        while part := await asyncio.to_thread(file.read, PART_BYTES):
            async with asyncio.timeout(STALLED_S):
                await response.write(part)
        await response.write_eof()
    return response


def sweep(folder: Path) -> None:
    """Remove what a backup left that was cut off by the end of the process."""
    for left in folder.glob(f"{BACKUP_PREFIX}*"):
        shutil.rmtree(left, ignore_errors=True)


def _only_admins(call: Call) -> None:
    if not call.caller.admin:
        raise Forbidden("Only an administrator may do this.", "Sign in as one: gridx login admin.")


ROUTES = (
    Route("GET", "/users", users, says="All users; for administrators.", gives=UserPage),
    Route(
        *("POST", "/users", create),
        says="Make an account; for administrators.",
        takes=Register,
        gives=User,
        status=(201,),
    ),
    Route(
        *("PATCH", "/users/{name}", update),
        says="Change a user; one's own password oneself, all else for administrators.",
        takes=UserUpdate,
        gives=User,
    ),
    Route(
        *("GET", "/admin/audit", audit),
        says="Recompute the whole ledger; for administrators.",
        gives=AuditReport,
    ),
    Route(
        *("GET", "/admin/backup", backup),
        says="A copy of the database, as of now; for administrators.",
        gives="application/octet-stream",
    ),
)
