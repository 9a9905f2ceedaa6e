"""Takes the orders that a person gives at the machine; see :mod:`gridx.control`."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from gridx import privatefiles, safetext
from gridx.control import CONTROL_FILE, HOST, MAX_ORDER_BYTES, Address, Holding, Order, Reply, Report
from gridx.errors import BadRequest, Forbidden, GridError
from gridx.messages import Assignment, ErrorBody
from gridx.services.worker.conversation import Conversation

log = logging.getLogger("gridx.worker")

ORDER_S: Final = 5.0
"""In which an order must have come."""
AT_ONCE: Final = 16
"""Connections at the same time; more are closed."""


class Reception:
    """Listens on the loopback while the worker runs.

    Args:
        data_path: where the control file is written.
        obey: does what is ordered.
    """

    def __init__(self, data_path: Path, obey: Callable[[Order], Awaitable[Report]]) -> None:
        self._path = data_path / CONTROL_FILE
        self._obey = obey
        self._secret = secrets.token_urlsafe(32)
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen, and write down where. A machine on which that cannot be done still works."""
        try:
            self._server = await asyncio.start_server(self._welcome, HOST, 0, limit=MAX_ORDER_BYTES)
            port = self._server.sockets[0].getsockname()[1]
            address = msgspec.json.encode(Address(port=port, secret=self._secret))
            await asyncio.to_thread(privatefiles.write, self._path, address)
        except OSError as error:
            log.warning("`gridx worker` cannot reach this worker: %s", safetext.line(str(error)))

    async def close(self) -> None:
        """Listen no more."""
        if self._server is None:
            return
        self._server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)
        self._server = None
        with suppress(OSError):
            await asyncio.to_thread(self._path.unlink)

    async def _welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._open) >= AT_ONCE:
            writer.close()
            return
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            async with asyncio.timeout(ORDER_S):
                line = await reader.readline()
            writer.write(msgspec.json.encode(await self._answer(line)))
            await writer.drain()
        except (OSError, TimeoutError, ValueError):
            # Whoever it was has gone, or said nothing that could be answered.
            log.debug("an order did not come through")
        finally:
            self._open.discard(task)
            writer.close()

    async def _answer(self, line: bytes) -> Reply:
        try:
            try:
                order = msgspec.json.decode(line, type=Order)
            except (msgspec.MsgspecError, UnicodeDecodeError):
                raise BadRequest(
                    "The worker does not know this order.", "Is gridx of the same version?"
                ) from None
            if not secrets.compare_digest(order.secret.encode(), self._secret.encode()):
                raise Forbidden("The secret is not the one in the control file.", "Type it once more.")
            return Reply(report=await self._obey(order))
        except GridError as error:
            return Reply(error=ErrorBody(code=error.code, message=error.message, hint=error.hint))


def report(conversation: Conversation, coordinator: str, given_back: int) -> Report:
    """How the worker is now, for the person at the machine."""
    offer, standing = conversation.offer, conversation.standing
    return Report(
        name=conversation.name,
        owner=conversation.owner,
        worker_id=conversation.worker_id,
        coordinator=coordinator,
        connected=conversation.outbox is not None,
        state=standing.state,
        reason=standing.reason,
        rules=offer.rules,
        cpu_millis=offer.cpu_millis,
        memory_mb=offer.memory_mb,
        gpus=len(offer.gpus),
        running=[_holding(attempt.assignment) for attempt in conversation.attempts.running.values()],
        waiting=len(conversation.attempts.waiting),
        given_back=given_back,
    )


def _holding(assignment: Assignment) -> Holding:
    return Holding(
        attempt_id=assignment.attempt_id,
        job_id=assignment.job_id,
        owner=assignment.owner,
        name=assignment.name,
        cpu_millis=assignment.cpu_millis,
        memory_mb=assignment.memory_mb,
        gpus=len(assignment.gpus),
    )
