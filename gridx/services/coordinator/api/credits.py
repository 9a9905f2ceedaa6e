"""``/credits``: what one has, where it came from, and giving it away."""

from __future__ import annotations

from typing import Annotated

from aiohttp import web
from msgspec import Meta

from gridx.errors import Conflict, Forbidden
from gridx.messages import Balance, Entry, EntryPage, Grant, Id, Transfer, Wire
from gridx.services.coordinator.accounts import no_user
from gridx.services.coordinator.api.call import Call, Route, reply
from gridx.services.coordinator.events import balance_of
from gridx.services.coordinator.store.records import UserRecord


class EntriesQuery(Wire, frozen=True):
    """A page of an account, newest first."""

    limit: Annotated[int, Meta(ge=1, le=500)] = 50
    before: Id | None = None


async def balance(call: Call) -> web.Response:
    user = await _named(call)
    return reply(balance_of(await call.parts.store.balance(user.id)))


async def entries(call: Call, query: EntriesQuery) -> web.Response:
    user = await _named(call)
    found = await call.parts.store.entries(user.id, before=query.before, limit=query.limit + 1)
    shown = [
        Entry(
            id=entry.id,
            transaction_id=entry.transaction_id,
            at=entry.at,
            kind=entry.kind,
            amount=entry.amount,
            job_id=entry.job_id,
            attempt_id=entry.attempt_id,
            note=entry.note,
        )
        for entry in found[: query.limit]
    ]
    return reply(EntryPage(entries=shown, next=shown[-1].id if len(found) > query.limit else None))


async def transfer(call: Call) -> web.Response:
    body = await call.body(Transfer)
    payer = call.caller.user
    payee = await _receiver(call, body.to)
    if payee.id == payer.id:
        raise Conflict("These credits are yours already.", "Name another user.")
    record = await call.parts.store.transfer(
        payer.id, payee.id, body.amount, body.note, idempotency=call.idempotency(body)
    )
    call.parts.hub.credits_changed((payer.id, payee.id))
    return reply(balance_of(record))


async def grant(call: Call) -> web.Response:
    if not call.caller.admin:
        raise Forbidden("Only an administrator may grant credits.", "Ask one.")
    body = await call.body(Grant)
    payee = await _receiver(call, body.to)
    record = await call.parts.store.grant(
        payee.id, body.amount, body.note, idempotency=call.idempotency(body)
    )
    call.parts.hub.credits_changed((payee.id,))
    return reply(balance_of(record))


async def _named(call: Call) -> UserRecord:
    """The user in the path: oneself, or anybody for an admin."""
    return await call.parts.accounts.visible(call.caller, call.request.match_info["user"])


async def _receiver(call: Call, name: str) -> UserRecord:
    user = await call.parts.store.user_by_name(name)
    if user is None or user.disabled:
        raise no_user(name)
    return user


ROUTES = (
    Route("GET", "/credits/{user}", balance, says="What a user has.", gives=Balance),
    Route(
        *("GET", "/credits/{user}/entries", entries, EntriesQuery),
        says="Where a user's credits came from and went.",
        gives=EntryPage,
    ),
    Route(
        *("POST", "/credits/transfer", transfer),
        says="Give credits to another user.",
        takes=Transfer,
        gives=Balance,
        keyed=True,
    ),
    Route(
        *("POST", "/credits/grant", grant),
        says="Make credits for a user; for administrators.",
        takes=Grant,
        gives=Balance,
        keyed=True,
    ),
)
