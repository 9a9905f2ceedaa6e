"""Who asks: a Bearer token or HTTP Basic in the Authorization header, nothing anywhere else."""

from __future__ import annotations

import base64
import binascii
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web

from gridx.errors import BadRequest, Forbidden, Unauthenticated
from gridx.services.coordinator.accounts import Accounts
from gridx.services.coordinator.api.call import address
from gridx.services.coordinator.sockets import Caller

SECRET_PARAMETERS: Final = frozenset({"token", "access_token", "api_key", "apikey", "auth", "password"})
_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})


async def authenticate(accounts: Accounts, request: web.Request) -> Caller:
    """Who sent a request.

    Raises:
        Unauthenticated: no header, or what it says is not right.
        BadRequest: the header cannot be read.
        TooMany: too many wrong passwords.
    """
    header = request.headers.get("Authorization", "")
    scheme, _, value = header.partition(" ")
    value = value.strip()
    if not value:
        raise Unauthenticated(
            "This needs a sign-in.",
            "Send the header Authorization: Bearer TOKEN, or a user and password: curl -u NAME.",
        )
    if scheme.lower() == "bearer":
        return await accounts.bearer(value)
    if scheme.lower() == "basic":
        username, password = _basic(value)
        return await accounts.password(username, password, address(request))
    raise Unauthenticated("This way to sign in is not known.", "Use Bearer with a token, or Basic.")


def refuse_secrets_in_address(request: web.Request) -> None:
    """A token in a query ends in logs and histories; it is refused even when it would not be needed."""
    for name in request.query:
        if name.lower() in SECRET_PARAMETERS:
            raise BadRequest(
                f"The parameter {name} is refused: addresses end up in logs.",
                "Send the header Authorization: Bearer TOKEN, and revoke this token.",
            )


def refuse_foreign_origin(request: web.Request) -> None:
    """A page of another site in a user's browser must not act with that user's sign-in.

    Raises:
        Forbidden: the browser says that the page is from elsewhere.
    """
    origin = request.headers.get("Origin")
    if origin is None or (request.method in _SAFE_METHODS and "Upgrade" not in request.headers):
        return
    if urlsplit(origin).netloc.lower() != request.headers.get("Host", "").lower():
        raise Forbidden(
            "Pages of other sites may not use this grid.", "Use gridx, curl or the Python client."
        )


def _basic(value: str) -> tuple[str, bytes]:
    try:
        name, colon, password = base64.b64decode(value, validate=True).partition(b":")
        username = name.decode()
    except (binascii.Error, ValueError):
        colon, username, password = b"", "", b""
    if not colon or len(username) > 200 or len(password) > 4096:
        raise BadRequest("The Authorization header is not HTTP Basic.", "Use curl -u NAME:PASSWORD.")
    return username, password
