"""All attempts that a worker holds: those that run, and those whose result waits for its acknowledgement.

Capacity is never counted up and down: what is free follows from the attempts that are here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Final

from gridx import safetext
from gridx.errors import SandboxBroken
from gridx.messages import Assignment, Finished, Offer, Refused, Released
from gridx.services.worker.attempt import Attempt, Teller
from gridx.services.worker.inputs import Inputs
from gridx.services.worker.leases import Leases
from gridx.services.worker.outbox import Report
from gridx.services.worker.policy import Standing, refusal, takes_nothing
from gridx.services.worker.sandbox.base import Sandbox
from gridx.services.worker.sending import Sending
from gridx.services.worker.spool import Entry, Spool
from gridx.services.worker.transfer import Transfers

log = logging.getLogger("gridx.worker")

REMEMBERED: Final = 4096
"""Attempts that were here lately, so that a doubled assignment does not run twice."""
KILL_S: Final = 15.0
"""How long the sandboxes may take to go when the worker stops."""


class Attempts:
    """The attempts of one worker.

    Args:
        inputs: where the attempts' input files come from.
        transfers: how the files that they give back reach the coordinator.
        pids: how many processes and threads a job may have.
    """

    def __init__(
        self,
        sandbox: Sandbox,
        spool: Spool,
        inputs: Inputs,
        transfers: Transfers,
        leases: Leases,
        teller: Teller,
        *,
        pids: int,
    ) -> None:
        self.running: dict[int, Attempt] = {}
        """By id; an attempt that is being killed stays until its sandbox is gone."""
        self.reports: dict[int, Report] = {}
        """What there is to tell of those that run and of those that ended; a killed attempt has nothing."""
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._sandbox = sandbox
        self._spool = spool
        self._inputs = inputs
        self._transfers = transfers
        self._sending = Sending(transfers, spool, lambda id: teller.touch(id, hurry=True))
        self._leases = leases
        self._teller = teller
        self._pids = pids
        self._remembered: dict[int, bool] = {}
        """Attempts of this connection, oldest first, and whether the coordinator knows how they ended."""
        self._drops: dict[int, asyncio.Task[None]] = {}
        self._changed = asyncio.Event()
        self._ended_cpu_ms = 0
        self.given_back: dict[int, None] = {}
        """Given back and not acknowledged, oldest first: a broken line must not make it a loss."""
        for entry, end in spool.recovered:
            report = self.reports[end.attempt_id] = Report(entry, end.runtime, end.started)
            report.end(end.finished)

    @property
    def executing(self) -> list[int]:
        """Attempts that run and are still the coordinator's wish."""
        return [id for id, report in self.reports.items() if report.finished is None]

    @property
    def waiting(self) -> list[int]:
        """Attempts that ended and are not acknowledged."""
        return [id for id, report in self.reports.items() if report.finished is not None]

    @property
    def cpu_s(self) -> float:
        """Processor seconds that attempts have used here since the start."""
        return (self._ended_cpu_ms + sum(one.meter.cpu_ms for one in self.running.values())) / 1000

    def take(self, assignment: Assignment, *, offer: Offer, owner: str, standing: Standing) -> None:
        """Run an assignment, or refuse it and say why."""
        id = assignment.attempt_id
        if id in self.reports or id in self._remembered:
            log.debug("attempt %d was assigned twice", id)
            return
        self._remember(id)
        if id in self.running or id in self._drops:
            why = "another attempt of the same number is still being removed here"
            log.warning("attempt %d of job %d is given back: %s", id, assignment.job_id, why)
            self._teller.say(Released(attempt_id=id, reason=why))
            return
        self.given_back.pop(id, None)
        if standing.wanted:
            # It was on its way when the owner's wish came; that is no fault of the machine's.
            why = safetext.line(takes_nothing(standing), limit=190)
            log.info("attempt %d of job %d is given back: %s", id, assignment.job_id, why)
            self._teller.say(Released(attempt_id=id, reason=why))
            return
        held = [attempt.assignment for attempt in self.running.values()]
        reason = refusal(assignment, offer=offer, held=held, owner=owner, standing=standing)
        if reason:
            reason = safetext.line(reason, limit=190)
            log.warning("attempt %d of job %d refused: %s", id, assignment.job_id, reason)
            self._teller.say(Refused(attempt_id=id, reason=reason))
            return
        report = Report(self._spool.entry(id, assignment.output_cap_bytes), assignment.runtime)
        attempt = Attempt(
            assignment,
            report,
            sandbox=self._sandbox,
            spool=self._spool,
            inputs=self._inputs,
            teller=self._teller,
            pids=self._pids,
        )
        self.running[id], self.reports[id] = attempt, report
        self._leases.begin(id)
        self._tasks[id] = asyncio.create_task(self._run(attempt), name=f"attempt {id}")

    def connected(self) -> None:
        """A connection stands: nothing of the one before can come again.

        A number that was here before is now that of another attempt: the coordinator's database is a copy of
        some time ago, and its numbers are given anew. Files may have been lost with it, too, so they are
        asked for again before an end is told.
        """
        self._remembered.clear()
        self._transfers.coordinator_is_back()
        for report in self.reports.values():
            self._sending.begin(report)

    def cancel(self, attempt_ids: Iterable[int], reason: str) -> None:
        """End these as cancelled. One that is not here is answered, too: nobody waits for it in vain."""
        for id in attempt_ids:
            if id in self.reports:
                if self.reports[id].finished is None:
                    log.info("attempt %d is cancelled: %s", id, safetext.line(reason) or "no reason given")
                    self.running[id].cancel(safetext.line(reason))
                elif self._sending.cancel(id):
                    log.info("the files of attempt %d are not sent: it is cancelled", id)
            elif not self._remembered.get(id):
                self._teller.say(
                    Finished(attempt_id=id, outcome="cancelled", reason="It was not running here.")
                )

    def acknowledged(self, attempt_ids: Iterable[int]) -> None:
        """The coordinator has these results, or does not want them; what still runs is killed."""
        for id in attempt_ids:
            self.given_back.pop(id, None)
            report = self.reports.get(id)
            if report is None:
                continue
            self._remember(id, settled=True)
            if report.finished is None:
                self.kill(id, "the coordinator does not want it any more")
            else:
                self._forget(report.entry)

    def disown(self, id: int) -> None:
        """The attempt is over for the coordinator: kill it or drop its result."""
        if id in self.waiting:
            log.info("the result of attempt %d is not wanted any more, or was received before", id)
        self.acknowledged((id,))

    def kill(self, id: int, why: str) -> None:
        """Destroy the sandbox of a running attempt and forget it."""
        report = self.reports.get(id)
        if report is None or report.finished is not None:
            return
        log.warning("attempt %d is killed: %s", id, why)
        self._forget(report.entry)
        if task := self._tasks.get(id):
            task.cancel()

    async def idle(self, *, acknowledged: bool = False) -> None:
        """Wait until nothing runs any more, and, if asked for, until every result is acknowledged."""
        while self.running or (acknowledged and self.reports):
            self._changed.clear()
            await self._changed.wait()

    async def give_back(self, reason: str) -> None:
        """Kill what runs and say so: it runs elsewhere, and that is nobody's failure."""
        released = self.executing
        tasks = [self._tasks[id] for id in released if id in self._tasks]
        for id in released:
            self.given_back[id] = None
            self.kill(id, reason)
        while len(self.given_back) > REMEMBERED:
            del self.given_back[next(iter(self.given_back))]
        if tasks:
            await asyncio.wait(tasks, timeout=KILL_S)
        for id in released:
            self._teller.say(Released(attempt_id=id, reason=safetext.line(reason, limit=190)))

    async def close(self) -> None:
        """Wait for what is still being removed from the disk."""
        await self._sending.close()
        pending = [*self._drops.values(), *self._tasks.values()]
        if pending:
            await asyncio.wait(pending, timeout=KILL_S)

    async def _run(self, attempt: Attempt) -> None:
        try:
            if not await attempt.run():
                self._forget(attempt.report.entry)
            elif self.reports.get(attempt.id) is attempt.report:
                self._sending.begin(attempt.report)
        except SandboxBroken as error:
            # Only while it is being killed; its end does not matter any more.
            log.warning(
                "the sandbox of attempt %d did not go cleanly: %s", attempt.id, safetext.line(str(error))
            )
        except Exception:
            log.exception("attempt %d met an error of the worker and is given back", attempt.id)
            self._forget(attempt.report.entry)
            self._teller.say(Released(attempt_id=attempt.id, reason="the worker met an error of its own"))
        finally:
            self._leases.end(attempt.id)
            self._ended_cpu_ms += attempt.meter.cpu_ms
            self.running.pop(attempt.id, None)
            self._tasks.pop(attempt.id, None)
            self._changed.set()

    def _remember(self, id: int, *, settled: bool = False) -> None:
        self._remembered.pop(id, None)
        self._remembered[id] = settled
        if len(self._remembered) > REMEMBERED:
            del self._remembered[next(iter(self._remembered))]

    def _forget(self, entry: Entry) -> None:
        self._leases.end(entry.attempt_id)
        self._sending.forget(entry.attempt_id)
        if self.reports.pop(entry.attempt_id, None) is None:
            return
        self._changed.set()
        self._drops[entry.attempt_id] = asyncio.create_task(self._drop(entry))

    async def _drop(self, entry: Entry) -> None:
        try:
            await self._spool.call(entry.drop)
        except OSError as error:
            log.warning("the spool of attempt %d stays: %s", entry.attempt_id, safetext.line(str(error)))
        finally:
            del self._drops[entry.attempt_id]
