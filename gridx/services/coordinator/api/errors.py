"""Every error in one shape: ``{"error": {"code", "message", "hint"}}``, whatever raised it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import hdrs, web
from aiohttp.typedefs import Middleware

from gridx import messages, safetext
from gridx.errors import BadRequest, GridError, NotFound, TooLarge, TooMany, Unauthenticated
from gridx.messages import ErrorBody, ErrorReply
from gridx.services.coordinator.metrics import Metrics

log = logging.getLogger("gridx.coordinator")

SIGN_IN: Final = 'Basic realm="Grid-X", charset="UTF-8"'
SERVER: Final = "gridx"
CLIENT_GONE: Final = 499
"""For the metrics; nobody reads this answer."""


class MethodNotAllowed(GridError):
    """The address exists and does not take this method."""

    code, status = "method_not_allowed", 405


class Refused(GridError):
    """HTTP itself refuses the request."""

    code = "bad_request"


def error_response(error: GridError, status: int | None = None) -> web.Response:
    """The answer that tells an error."""
    body = ErrorReply(
        error=ErrorBody(code=error.code, message=error.message, hint=error.hint, details=error.details)
    )
    response = web.Response(
        body=messages.encode(body), status=status or error.status, content_type="application/json"
    )
    if isinstance(error, Unauthenticated):
        response.headers["WWW-Authenticate"] = SIGN_IN
    if isinstance(error, TooMany) and "retry_after_s" in error.details:
        response.headers["Retry-After"] = str(error.details["retry_after_s"])
    return response


def of_http(error: web.HTTPException) -> web.Response:
    """The answer for what aiohttp refused by itself."""
    if error.status == 404:
        return error_response(
            NotFound("There is nothing at this address.", "The README lists the addresses.")
        )
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        response = error_response(
            MethodNotAllowed(f"This address does not take {safetext.line(error.method)}.", f"Use {allowed}.")
        )
        response.headers["Allow"] = allowed
        return response
    if error.status == 413:
        return error_response(TooLarge("The body is too large.", "Send less."))
    return error_response(Refused(f"{error.reason}.", "See the API section of the README."), error.status)


def internal(method: str, route: str) -> web.Response:
    """The answer when the coordinator is at fault; the log has the traceback, the answer does not."""
    log.exception("%s %s failed", method, route)
    return error_response(
        GridError(
            "Something went wrong in the coordinator.",
            "Its log has the details; trying again is safe with an Idempotency-Key.",
        )
    )


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def middleware(metrics: Metrics) -> Middleware:
    """The outermost layer: errors to answers, and how long each took."""

    @web.middleware
    async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
        begun = time.perf_counter()
        resource = request.match_info.route.resource
        route = resource.canonical if resource is not None else "-"
        status = CLIENT_GONE
        try:
            response = await _answer(request, handler, route)
            status = response.status
        finally:
            # Anybody can invent methods; each label is kept for ever.
            method = request.method if request.method in hdrs.METH_ALL else "other"
            metrics.answered(method, route, status, time.perf_counter() - begun)
        return response

    return answer


async def _answer(request: web.Request, handler: Handler, route: str) -> web.StreamResponse:
    try:
        return await handler(request)
    except GridError as error:
        if error.status >= 500:
            log.error("%s %s: %s", request.method, route, error)
        response = error_response(error)
        if isinstance(error, TooLarge | BadRequest):
            # What is left of the body is of no use, and the next request would stand behind it.
            response.force_close()
        return response
    except web.HTTPException as error:
        return of_http(error)
    except (ConnectionError, asyncio.CancelledError):
        raise
    except Exception:
        return internal(request.method, route)
