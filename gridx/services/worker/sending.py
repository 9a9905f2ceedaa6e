"""Brings what attempts gave back to the coordinator; only then is their end told.

It goes on for as long as an attempt is wanted, over reconnects and restarts. What the coordinator does not
take stays behind and is named.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from gridx import safetext
from gridx.messages import Finished, LeftFile, OutputFile
from gridx.services.worker.outbox import Report
from gridx.services.worker.spool import Spool
from gridx.services.worker.transfer import Damaged, NotTaken, Over, Transfers

log = logging.getLogger("gridx.worker")

AT_ONCE: Final = 2
"""Attempts whose files are sent at the same time."""
FILES_AT_ONCE: Final = 4
"""Files of one attempt that are sent at the same time."""
MAX_LEFT: Final = 100
LINE_CHARS: Final = 199
CANCELLED: Final = "the job was cancelled before it was sent"


class Sending:
    """Sends the files of attempts that ended.

    Args:
        ready: told when an attempt's end may be told.
    """

    def __init__(self, transfers: Transfers, spool: Spool, ready: Callable[[int], None]) -> None:
        self._transfers, self._spool, self._ready = transfers, spool, ready
        self._room = asyncio.Semaphore(AT_ONCE)
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._cancelled: set[int] = set()

    def begin(self, report: Report) -> None:
        """Send the files of an attempt that ended; what is at the coordinator already is only asked for."""
        id = report.attempt_id
        if id in self._tasks or report.finished is None or not report.finished.files:
            return
        report.ready = None
        task = self._tasks[id] = asyncio.create_task(self._send(report), name=f"files of attempt {id}")
        task.add_done_callback(lambda task: self._over(report, task))

    def cancel(self, id: int) -> bool:
        """Send no more of an attempt's files, and tell its end; False: none are being sent."""
        if id not in self._tasks:
            return False
        self._cancelled.add(id)
        self._tasks[id].cancel()
        return True

    def forget(self, id: int) -> None:
        """Nothing of the attempt is wanted any more."""
        self._cancelled.discard(id)
        if task := self._tasks.get(id):
            task.cancel()

    async def close(self) -> None:
        """Stop; what was not sent is sent after the next start."""
        self._cancelled.clear()
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _send(self, report: Report) -> None:
        assert report.finished is not None
        finished = report.finished
        stays: dict[int, str] = dict.fromkeys(range(len(finished.files)), CANCELLED)
        """Files that are not there yet, and why not."""
        try:
            async with self._room:
                await self._send_all(report, finished.files, stays)
        except Over:
            # Its end is told all the same: it is acknowledged, and then forgotten here.
            stays = dict.fromkeys(stays, "the attempt was over before it was sent")
        except Damaged:
            log.error("what attempt %d gave back is not whole on the disk any more", report.attempt_id)
            report.ready = Finished(
                attempt_id=report.attempt_id,
                outcome="broken",
                reason="The worker lost what the job gave back.",
                stdout_bytes=finished.stdout_bytes,
                stderr_bytes=finished.stderr_bytes,
            )
            return
        except asyncio.CancelledError:
            if report.attempt_id not in self._cancelled:
                raise
            self._cancelled.discard(report.attempt_id)
        report.ready = _told(finished, stays)

    async def _send_all(self, report: Report, files: list[OutputFile], stays: dict[int, str]) -> None:
        """Send files, several at a time, and cross out those that arrived."""
        turns = iter(enumerate(files))

        async def send_next() -> None:
            for number, file in turns:
                place = report.entry.out_path(number)
                try:
                    await self._transfers.upload(report.attempt_id, file, place, self._spool.call)
                except NotTaken as error:
                    stays[number] = str(error)
                else:
                    del stays[number]

        tasks = [asyncio.create_task(send_next()) for _ in range(min(FILES_AT_ONCE, len(files)))]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _over(self, report: Report, task: asyncio.Task[None]) -> None:
        id = report.attempt_id
        self._tasks.pop(id, None)
        if task.cancelled():
            if id not in self._cancelled:
                return
            # Before it had begun.
            self._cancelled.discard(id)
            assert report.finished is not None
            report.ready = _told(report.finished, dict.fromkeys(range(len(report.finished.files)), CANCELLED))
            self._ready(id)
            return
        if (error := task.exception()) is not None:
            log.error("the files of attempt %d could not be sent", id, exc_info=error)
            return
        self._ready(id)


def _told(finished: Finished, stays: Mapping[int, str]) -> Finished:
    """An end as it is told, with what stays behind."""
    sent = [file for number, file in enumerate(finished.files) if number not in stays]
    left = [
        LeftFile(
            path=safetext.line(finished.files[number].path, limit=LINE_CHARS),
            why=safetext.line(why, limit=LINE_CHARS),
        )
        for number, why in stays.items()
    ]
    return msgspec.structs.replace(finished, files=sent, left=[*finished.left, *left][:MAX_LEFT])
