"""One attempt from its assignment to a result that waits for its acknowledgement.

What the sandbox says is a result, whatever it is. What keeps the sandbox from running the job is the
machine's fault: the attempt is *broken*, costs nobody, and is tried elsewhere.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

from gridx import safetext
from gridx.errors import SandboxBroken
from gridx.messages import Accepted, Assignment, Finished, InputFile, Refused, Stream, WorkerFrame
from gridx.services.worker.inputs import Inputs
from gridx.services.worker.outbox import Report
from gridx.services.worker.outfiles import OutFiles
from gridx.services.worker.sandbox.base import Meter, RunOutcome, RunRequest, Sandbox
from gridx.services.worker.spool import End, Spool

log = logging.getLogger("gridx.worker")

REASON_CHARS: Final = 3900
MAX_COUNT: Final = 2**53


class Teller(Protocol):
    """Where an attempt says what happened; it forgets what it hears while there is no connection."""

    def say(self, frame: WorkerFrame) -> None:
        """Tell the coordinator."""

    def touch(self, attempt_id: int, *, hurry: bool = False) -> None:
        """There is more to tell of this attempt."""

    async def doubt(self) -> None:
        """The sandbox broke: look at it before the end is told, or the next attempt would be given to it."""


class Attempt:
    """One execution of a job on this machine.

    Args:
        report: what there is to tell; its spool entry takes the output.
        pids: how many processes and threads the job may have.
    """

    def __init__(
        self,
        assignment: Assignment,
        report: Report,
        *,
        sandbox: Sandbox,
        spool: Spool,
        inputs: Inputs,
        teller: Teller,
        pids: int,
    ) -> None:
        self.assignment = assignment
        self.report = report
        self.meter = Meter()
        self._sandbox = sandbox
        self._spool = spool
        self._inputs = inputs
        self._teller = teller
        self._pids = pids
        self._cancel = asyncio.Event()
        self._cancel_reason = ""

    @property
    def id(self) -> int:
        """The attempt's id: the fencing token."""
        return self.assignment.attempt_id

    def cancel(self, reason: str) -> None:
        """Kill the job; the attempt then ends as cancelled, and says so."""
        self._cancel_reason = self._cancel_reason or reason
        self._cancel.set()

    async def run(self) -> bool:
        """Run to the end; whether there is a result. False: refused, the disk has no room.

        When the calling task is cancelled the sandbox is destroyed first, and there is no result.
        """
        assignment = self.assignment
        unfit = self._sandbox.unfit(assignment.inputs, assignment.memory_mb)
        needed = [] if unfit else assignment.inputs
        reason = await self._spool.call(self._spool.no_room, self.report.entry)
        reason = reason or (await self._hold(needed) if needed else "")
        if reason:
            log.warning("attempt %d of job %d refused: %s", self.id, assignment.job_id, reason)
            self._teller.say(Refused(attempt_id=self.id, reason=safetext.line(reason, limit=190)))
            return False
        try:
            self._teller.say(Accepted(attempt_id=self.id))
            outcome = RunOutcome("failed", reason=unfit) if unfit else await self._outcome()
            if outcome.outcome == "broken":
                await self._teller.doubt()
        finally:
            if needed:
                await asyncio.shield(asyncio.ensure_future(self._inputs.release(needed)))
        await self._finish(outcome)
        return True

    async def _hold(self, needed: Sequence[InputFile]) -> str:
        """Have room for the input files, or say why there is none. Cancelled meanwhile, it holds nothing."""
        holding = asyncio.create_task(self._inputs.hold(needed))
        try:
            return await asyncio.shield(holding)
        except asyncio.CancelledError:
            if not await holding:
                await self._inputs.release(needed)
            raise

    async def _outcome(self) -> RunOutcome:
        files = OutFiles(self._spool, self.report.entry)
        try:
            inputs = await self._fetch()
            if inputs is None:
                return RunOutcome("cancelled")
            return await self._sandbox.run(
                self._request(inputs, files), self._write, self._started, self._cancel
            )
        except SandboxBroken as error:
            return RunOutcome("broken", reason=str(error))
        except Exception as error:
            log.exception("attempt %d met an error of the worker", self.id)
            return RunOutcome("broken", reason=f"The worker met an error of its own: {type(error).__name__}.")
        finally:
            files.close()

    async def _fetch(self) -> tuple[tuple[InputFile, Path], ...] | None:
        """The job's input files, here; None when it was cancelled before they were."""
        if self._cancel.is_set():
            return None
        if not self.assignment.inputs:
            return ()
        fetching = asyncio.create_task(self._inputs.fetch(self.id, self.assignment.inputs))
        cancelled = asyncio.create_task(self._cancel.wait())
        try:
            await asyncio.wait((fetching, cancelled), return_when=asyncio.FIRST_COMPLETED)
            return await fetching if fetching.done() else None
        finally:
            for task in (fetching, cancelled):
                task.cancel()
            await asyncio.gather(fetching, cancelled, return_exceptions=True)

    def _request(self, inputs: tuple[tuple[InputFile, Path], ...], files: OutFiles) -> RunRequest:
        assignment = self.assignment
        return RunRequest(
            attempt_id=assignment.attempt_id,
            job_id=assignment.job_id,
            number=assignment.number,
            owner=assignment.owner,
            code=assignment.code,
            language=assignment.language,
            args=tuple(assignment.args),
            env={**assignment.env, **_place_in_array(assignment)},
            cpu_millis=assignment.cpu_millis,
            memory_mb=assignment.memory_mb,
            gpus=tuple(assignment.gpus),
            timeout_s=assignment.timeout_s,
            runtime=assignment.runtime,
            output_cap_bytes=assignment.output_cap_bytes,
            pids=self._pids,
            meter=self.meter,
            inputs=inputs,
            outputs=tuple(assignment.outputs),
            out_files=assignment.out_files,
            files=files,
        )

    async def _write(self, stream: Stream, data: bytes) -> None:
        entry = self.report.entry
        if stream in entry.cut:
            return
        try:
            await self._spool.call(entry.write, stream, data)
        except OSError as error:
            raise SandboxBroken(
                f"The worker could not keep the output: {error.strerror or error}."
            ) from error
        self._teller.touch(self.id)

    async def _started(self) -> None:
        self.report.started = True
        log.info("attempt %d of job %d started", self.id, self.assignment.job_id)
        self._teller.touch(self.id, hurry=True)

    async def _finish(self, outcome: RunOutcome) -> None:
        reason = outcome.reason or (self._cancel_reason if outcome.outcome == "cancelled" else "")
        lengths = self.report.entry.lengths
        finished = Finished(
            attempt_id=self.id,
            outcome=outcome.outcome,
            exit_code=outcome.exit_code,
            signal=outcome.signal,
            reason=safetext.clean(reason, limit=REASON_CHARS),
            wall_ms=_count(outcome.wall_ms),
            cpu_ms=None if outcome.cpu_ms is None else _count(outcome.cpu_ms),
            peak_memory_bytes=None
            if outcome.peak_memory_bytes is None
            else _count(outcome.peak_memory_bytes),
            stdout_bytes=lengths["stdout"],
            stderr_bytes=lengths["stderr"],
            files=list(outcome.files),
            left=list(outcome.left),
        )
        end = End(
            attempt_id=self.id, started=self.report.started, runtime=self.report.runtime, finished=finished
        )
        try:
            await self._spool.call(self.report.entry.end, end)
        except OSError as error:
            # Sent from memory all the same: if the worker dies before it is acknowledged, the job runs again.
            log.warning("the result of attempt %d is not on disk: %s", self.id, safetext.line(str(error)))
        self.report.end(finished)
        log.info(
            "attempt %d of job %d ended: %s%s",
            self.id,
            self.assignment.job_id,
            finished.outcome,
            f" ({safetext.line(finished.reason)})" if finished.reason else "",
        )
        self._teller.touch(self.id, hurry=True)


def _place_in_array(assignment: Assignment) -> dict[str, str]:
    """What tells an element of an array which one it is."""
    if assignment.array_index is None or assignment.array_count is None:
        return {}
    return {"GRIDX_INDEX": str(assignment.array_index), "GRIDX_COUNT": str(assignment.array_count)}


def _count(number: int) -> int:
    return min(max(int(number), 0), MAX_COUNT)
