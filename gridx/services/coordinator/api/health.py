"""``/health`` and ``/metrics``: for whoever watches the coordinator."""

from __future__ import annotations

import ipaddress

from aiohttp import web

from gridx import __version__
from gridx.errors import Forbidden
from gridx.messages import PROTOCOL_VERSION, Health
from gridx.services.coordinator.api.authentication import authenticate
from gridx.services.coordinator.api.call import Parts, Route, reply


async def health(parts: Parts, request: web.Request) -> web.Response:
    return reply(
        Health(status="stopping" if parts.stopping else "ok", version=__version__, protocol=PROTOCOL_VERSION)
    )


async def metrics(parts: Parts, request: web.Request) -> web.Response:
    if not _from_this_machine(request):
        caller = await authenticate(parts.accounts, request)
        if not caller.admin:
            raise Forbidden("Only an administrator may read this.", "Sign in as one.")
    held = sum(balance.held for balance in await parts.store.balances())
    return web.Response(body=parts.metrics.text(held), headers={"Content-Type": "text/plain; version=0.0.4"})


def _from_this_machine(request: web.Request) -> bool:
    """A proxy on this machine speaks for others, and says so."""
    if "X-Forwarded-For" in request.headers or "Forwarded" in request.headers:
        return False
    try:
        return ipaddress.ip_address(request.remote or "").is_loopback
    except ValueError:
        return False


ROUTES = (
    Route(
        *("GET", "/health", health),
        open=True,
        while_stopping=True,
        says="Whether the coordinator serves, and which version it is; for everybody.",
        gives=Health,
    ),
    Route(
        *("GET", "/metrics", metrics),
        open=True,
        says="Counters for Prometheus; from another machine for administrators.",
        gives="text/plain",
    ),
)
