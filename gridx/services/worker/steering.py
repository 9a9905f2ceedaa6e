"""What the owner wants of the worker now: pauses, jobs given back, and the rules of the settings.

A pause made at the machine and one made through the coordinator are two: each holds over restarts, and the
machine's works while the coordinator is away. The owner's *resume*, from wherever it comes, ends both.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import msgspec

from gridx import privatefiles
from gridx.config import WorkerSettings
from gridx.messages import Id, Pause
from gridx.services.worker.conversation import Conversation
from gridx.services.worker.owner import Allowed, Verdict, judge
from gridx.services.worker.sightings import Sensors, Sightings

log = logging.getLogger("gridx.worker")

WATCH_S: Final = 3.0
"""How often one looks whether the rules still hold."""
PAUSED_FILE: Final = "worker.paused"
GIVEN_BACK_FILE: Final = "worker.given-back"
OWNER_WANTS_IT: Final = "its owner wants the machine"


class Steering:
    """Steers one worker.

    Args:
        conversation: what the worker does and says.
        data_path: where a pause made at the machine is noted.
        sensors: how the machine is looked at.

    Raises:
        ConfigError: the settings' hours are not understood.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        conversation: Conversation,
        data_path: Path,
        sensors: Sensors | None = None,
    ) -> None:
        self._allowed = Allowed.by(settings)
        self._conversation = conversation
        self._mark = data_path / PAUSED_FILE
        self._note = data_path / GIVEN_BACK_FILE
        self._sightings = Sightings(self._allowed, lambda: conversation.attempts.cpu_s, sensors)
        self._verdict = Verdict()
        self._tasks: set[asyncio.Task[object]] = set()

    async def begin(self) -> None:
        """Stand as the machine was left, and as the rules are now."""
        if await asyncio.to_thread(self._mark.exists):
            log.info("paused at this machine; `gridx worker resume` ends that")
            self._stand(paused_here=True)
        for id in await asyncio.to_thread(_read, self._note):
            self._conversation.attempts.given_back[id] = None
        await self.look()

    async def end(self) -> None:
        """Look no more; note what was given back, for the next start to tell what could not be told."""
        self._sightings.close()
        if self._tasks:
            await asyncio.wait(self._tasks)
        untold = list(self._conversation.attempts.given_back)
        try:
            if untold:
                await asyncio.to_thread(privatefiles.write, self._note, msgspec.json.encode(untold))
            else:
                await asyncio.to_thread(self._note.unlink, missing_ok=True)
        except OSError as error:
            log.warning("what was given back counts as lost: %s", error.strerror)

    # -- the rules -----------------------------------------------------------------------------------------

    async def keep_watching(self) -> None:
        """Open and close the machine by its owner's rules, for ever."""
        while not self._allowed.always:
            await asyncio.sleep(WATCH_S)
            await self.look()

    async def look(self) -> None:
        """Look once."""
        if self._allowed.always:
            return
        seen = await self._sightings.look()
        verdict = self._verdict = judge(self._allowed, seen, was_busy=self._verdict.busy)
        before = self._conversation.standing.closed
        if verdict.closed != before:
            log.info("%s", f"closed: {verdict.closed}" if verdict.closed else "open again")
        self._stand(closed=verdict.closed)
        if self._concerned(verdict):
            await self._give_back(verdict.closed)

    def _concerned(self, verdict: Verdict) -> bool:
        """Whether what runs has to go."""
        return verdict.ends and self._allowed.gives_back and bool(self._conversation.attempts.executing)

    # -- at the machine ------------------------------------------------------------------------------------

    async def pause(self, *, give_back: bool) -> int:
        """Take nothing new until resumed, also after a restart; how many attempts were given back."""
        log.info("paused at this machine: nothing new is taken")
        self._stand(paused_here=True)
        try:
            await asyncio.to_thread(privatefiles.write, self._mark, b"")
        except OSError as error:
            log.warning("the pause does not hold over a restart: %s", error.strerror)
        return await self._give_back(OWNER_WANTS_IT) if give_back else 0

    async def resume(self) -> None:
        """Take jobs again, as far as the rules allow; a pause of the coordinator's ends as well."""
        log.info("resumed at this machine")
        self._stand(paused_here=False, paused=False)
        self._conversation.resume()
        await self._unmark()

    # -- through the coordinator -------------------------------------------------------------------------

    def paused(self, frame: Pause) -> None:
        """The coordinator passes on a wish of the owner's or of an admin's."""
        log.info("paused: nothing new is taken" if frame.paused else "resumed")
        self._stand(paused=frame.paused)
        if frame.give_back:
            self._later(self._give_back(OWNER_WANTS_IT if frame.by_owner else "an administrator wants it"))
        if not frame.paused and frame.by_owner and self._conversation.standing.paused_here:
            self._stand(paused_here=False)
            self._later(self._unmark())

    def _later(self, work: Coroutine[Any, Any, object]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _give_back(self, reason: str) -> int:
        count = len(self._conversation.attempts.executing)
        if count:
            log.info("attempts that are given back: %d; %s", count, reason)
            await self._conversation.attempts.give_back(reason)
        return count

    async def _unmark(self) -> None:
        try:
            await asyncio.to_thread(self._mark.unlink, missing_ok=True)
        except OSError as error:
            log.warning("the worker is paused again when it starts anew: %s", error.strerror)

    def _stand(self, **changes: bool | str) -> None:
        self._conversation.stand(replace(self._conversation.standing, **changes))  # type: ignore[arg-type]


def _read(path: Path) -> list[int]:
    """The attempts that were noted; none where there is no note, or one that is damaged."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[Id])
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return []
