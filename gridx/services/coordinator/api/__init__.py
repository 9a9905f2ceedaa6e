"""The HTTP API: a module a resource, one table of routes, one way in and one shape of errors.

Each request passes the same gate: secrets in the address and pages of other sites are refused, the caller is
found out, the query is read as the route's struct. Only then does the handler run.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from aiohttp import hdrs, web

from gridx.errors import Unavailable
from gridx.messages import MAX_BODY_BYTES
from gridx.services.coordinator.api import (
    admin,
    auth,
    bodies,
    credits,
    errors,
    files,
    health,
    jobs,
    output,
    reference,
    streams,
    workers,
)
from gridx.services.coordinator.api.authentication import (
    authenticate,
    refuse_foreign_origin,
    refuse_secrets_in_address,
)
from gridx.services.coordinator.api.call import Call, NoQuery, Parts, Route, read_query

USERS: Final[tuple[Route, ...]] = (
    *health.ROUTES,
    *auth.ROUTES,
    *jobs.ROUTES,
    *output.ROUTES,
    *files.ROUTES,
    *workers.ROUTES,
    *credits.ROUTES,
    *admin.ROUTES,
    *reference.ROUTES,
    *streams.ROUTES,
)
"""What users ask for."""
WORKERS: Final[tuple[Route, ...]] = (*health.ROUTES[:1], *streams.WORKER_ROUTES)
"""What is answered on the workers' port."""
EVERYBODY: Final[tuple[Route, ...]] = (*USERS, *streams.WORKER_ROUTES)
"""What is answered on the HTTP port: workers, too, since a proxy has but one."""
SECURITY_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""Nothing here is a page that loads or is part of another. No ``Strict-Transport-Security``: it would speak
for every other port of this machine, too."""


def application(parts: Parts, routes: Iterable[Route]) -> web.Application:
    """An application that answers these routes."""
    app = web.Application(middlewares=[errors.middleware(parts.metrics)], client_max_size=MAX_BODY_BYTES)
    routes = tuple(routes)
    app[bodies.HELD] = bodies.Held()
    app[bodies.TURNS] = parts.turns
    app[reference.REFERENCE] = reference.Reference(routes)
    for route in routes:
        app.router.add_route(route.method, route.path, _gate(parts, route), expect_handler=_expected)
    app.on_response_prepare.append(_headers)
    return app


def _gate(parts: Parts, route: Route) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def enter(request: web.Request) -> web.StreamResponse:
        refuse_secrets_in_address(request)
        refuse_foreign_origin(request)
        if parts.stopping and not route.while_stopping:
            raise Unavailable("The coordinator is stopping.", "Try again when it is back.")
        if route.open:
            read_query(request, NoQuery)
            return await route.handler(parts, request)
        caller = await authenticate(parts.accounts, request)
        query = read_query(request, route.query)
        call = Call(parts, request, caller)
        return await (route.handler(call) if route.query is NoQuery else route.handler(call, query))

    return enter


async def _expected(request: web.Request) -> web.StreamResponse | None:
    """Answer ``Expect: 100-continue``, but not for a body that will be refused."""
    if request.headers.get(hdrs.EXPECT, "").lower() != "100-continue":
        return errors.of_http(web.HTTPExpectationFailed())
    if (request.content_length or 0) <= MAX_BODY_BYTES or request.method == hdrs.METH_PUT:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0
    return None


async def _headers(request: web.Request, response: web.StreamResponse) -> None:
    response.headers[hdrs.SERVER] = errors.SERVER
    if response.status != 101:
        response.headers[hdrs.CACHE_CONTROL] = "no-store"
        for name, value in SECURITY_HEADERS.items():
            response.headers.setdefault(name, value)
