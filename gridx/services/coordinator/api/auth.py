"""``/auth``: become somebody, and stop being it."""

from __future__ import annotations

from aiohttp import web

from gridx.messages import Login, Register, Session, TokenInfo, User
from gridx.services.coordinator.accounts import public
from gridx.services.coordinator.api.bodies import MAX_STRANGER_BYTES, read_json
from gridx.services.coordinator.api.call import Call, Parts, Route, address, nothing, reply


async def register(parts: Parts, request: web.Request) -> web.Response:
    body = await read_json(request, Register, MAX_STRANGER_BYTES)
    return reply(await parts.accounts.register(body, address(request)), 201)


async def login(parts: Parts, request: web.Request) -> web.Response:
    body = await read_json(request, Login, MAX_STRANGER_BYTES)
    caller = await parts.accounts.password(body.username, body.password.encode(), address(request))
    return reply(await parts.accounts.open_session(caller.user, body.label))


async def logout(call: Call) -> web.Response:
    if call.caller.token is not None:
        await call.parts.accounts.revoke(call.caller.user.id, call.caller.token.id)
    return nothing()


async def me(call: Call) -> web.Response:
    return reply(public(call.caller.user))


async def tokens(call: Call) -> web.Response:
    return reply(await call.parts.accounts.tokens(call.caller))


async def revoke(call: Call) -> web.Response:
    await call.parts.accounts.revoke(call.caller.user.id, call.id())
    return nothing()


ROUTES = (
    Route(
        *("POST", "/auth/register", register),
        open=True,
        says="Make an account and sign in.",
        takes=Register,
        gives=Session,
        status=(201,),
    ),
    Route(
        *("POST", "/auth/login", login),
        open=True,
        says="Exchange a password for a token.",
        takes=Login,
        gives=Session,
    ),
    Route("POST", "/auth/logout", logout, says="Revoke the token that is sent.", status=(204,)),
    Route("GET", "/auth/me", me, says="Who one is.", gives=User),
    Route("GET", "/auth/tokens", tokens, says="One's sign-ins, without secrets.", gives=list[TokenInfo]),
    Route("DELETE", "/auth/tokens/{id}", revoke, says="End one of one's sign-ins.", status=(204,)),
)
