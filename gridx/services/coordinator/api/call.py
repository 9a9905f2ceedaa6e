"""What a handler of the API gets: the parts of the coordinator, the request, and who asks."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
from aiohttp import web

from gridx import messages
from gridx.config import Settings
from gridx.errors import InvalidField, NotFound
from gridx.messages import Wire
from gridx.services.coordinator.accounts import Accounts
from gridx.services.coordinator.api.bodies import read_json
from gridx.services.coordinator.channel import Channel
from gridx.services.coordinator.events import Hub
from gridx.services.coordinator.files import Files
from gridx.services.coordinator.fleet import Fleet
from gridx.services.coordinator.jobs import Jobs
from gridx.services.coordinator.metrics import Metrics
from gridx.services.coordinator.sockets import Caller, Sockets
from gridx.services.coordinator.store import Store
from gridx.services.coordinator.store.records import Idempotency
from gridx.services.coordinator.turns import Turns

T = TypeVar("T")

_ID: Final = re.compile(r"[0-9]{1,16}", re.ASCII)
_KEY: Final = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,198}[\x21-\x7e])?")
MAX_ID: Final = 2**53


class NoQuery(Wire, frozen=True):
    """No parameters."""


@dataclass(slots=True)
class Parts:
    """The coordinator's parts, for the handlers."""

    settings: Settings
    store: Store
    accounts: Accounts
    sockets: Sockets
    hub: Hub
    fleet: Fleet
    jobs: Jobs
    files: Files
    channel: Channel
    metrics: Metrics
    folder: Path
    """Where a backup is made before it is sent."""
    stopping: bool = False
    turns: Turns = field(default_factory=Turns)
    backup: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(frozen=True, slots=True)
class Call:
    """One request of somebody who is signed in."""

    parts: Parts
    request: web.Request
    caller: Caller

    def id(self) -> int:
        """The id in the path. Raises NotFound for what cannot be one."""
        text = self.request.match_info["id"]
        if not _ID.fullmatch(text) or not 1 <= int(text) <= MAX_ID:
            raise NotFound("There is nothing of this id.", "Ids are whole numbers from 1 on.")
        return int(text)

    async def body(self, kind: type[T]) -> T:
        """The body, strictly as the type says."""
        return await read_json(self.request, kind, user_id=self.caller.user.id)

    def idempotency(self, *content: object) -> Idempotency | None:
        """The caller's key with a digest of what it stands for: this address and this content.

        Raises:
            InvalidField: the key is empty, too long or not printable.
        """
        key = self.request.headers.get("Idempotency-Key")
        if key is None:
            return None
        if not _KEY.fullmatch(key):
            raise InvalidField(
                "Idempotency-Key: must be 1 to 200 printable ASCII characters.",
                "A random UUID does well.",
                field="Idempotency-Key",
            )
        digest = hashlib.sha256(f"{self.request.method} {self.request.path}\n".encode())
        digest.update(msgspec.json.encode(content, order="deterministic"))
        return Idempotency(key, digest.digest())


Handler = Callable[..., Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Route:
    """One entry of the API's table.

    ``handler`` takes a :class:`Call`, and the query's struct where the route has one. An ``open`` handler is
    for everybody and takes the parts and the request. The rest is for ``/openapi.json``, which is made of it.

    Attributes:
        says: what it does, in a sentence.
        takes: the type of the body's JSON, or the media type of another body; None: there is none.
        gives: the type of the answer's JSON, or the media type of another answer; None: nothing.
        status: of the answer when all went well; several where it tells more.
        keyed: whether an ``Idempotency-Key`` makes sending it again safe.
        headers: of the answer, with what each is.
    """

    method: str
    path: str
    handler: Handler
    query: type[Wire] = NoQuery
    open: bool = False
    while_stopping: bool = False
    """Answered also while the coordinator stops."""
    says: str = ""
    takes: Any = None
    gives: Any = None
    status: tuple[int, ...] = (200,)
    keyed: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)


def reply(value: Any, status: int = 200) -> web.Response:
    """A JSON answer."""
    return web.Response(body=messages.encode(value), status=status, content_type="application/json")


def nothing() -> web.Response:
    """An answer without content."""
    return web.Response(status=204)


def address(request: web.Request) -> str:
    """Where a request comes from."""
    return request.remote or "unknown"


def read_query(request: web.Request, kind: type[Wire]) -> Wire:
    """The query's parameters as their struct. Raises InvalidField by the parameter's name."""
    values: dict[str, str] = {}
    for name, value in request.query.items():
        if name in values:
            raise InvalidField(f"{name}: is given twice.", "Give it once.", field=name)
        values[name] = value
    return messages.convert(values, kind)
