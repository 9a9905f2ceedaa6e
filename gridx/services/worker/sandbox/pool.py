"""Places for jobs: made on demand, started ahead, or used again for the same owner.

Cold costs some 130 ms, warm and reuse a few. A place that had one owner's job in it is never given to another
owner; without ``reuse`` it is used once. One place at a time stands on a slot, so that no two jobs share a
network namespace, not even an empty one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final

from gridx.config import WorkerSettings
from gridx.errors import SandboxBroken
from gridx.services.worker.sandbox.base import RunRequest
from gridx.services.worker.sandbox.container import Limits, limits_of
from gridx.services.worker.sandbox.engine import EngineAway
from gridx.services.worker.sandbox.labels import LABEL_ATTEMPT, LABEL_JOB
from gridx.services.worker.sandbox.place import Builder, Place, Slot
from gridx.services.worker.sandbox.runtimes import RuntimeImage

log = logging.getLogger("gridx.worker")

IDLE_S: Final = 60.0
"""How long a place waits for its owner's next job."""
MAX_IDLE: Final = 16
"""Places that wait for their owner's next job; each holds some 10 MB."""
SPARE_SLOTS: Final = 8
MAX_JOBS: Final = 1000
"""Jobs in one place before it is made anew."""
USUAL_MEMORY_MB: Final = 512
USUAL_CPU_MILLIS: Final = 1000
"""What a job asks for that asks for nothing: the first places that are started ahead are for it."""
REFILL_AFTER_S: Final = 5.0
"""After places could not be started ahead."""


class Pool:
    """Keeps places ready.

    Args:
        images: the runtimes that are offered now.
    """

    def __init__(
        self,
        builder: Builder,
        settings: WorkerSettings,
        images: Callable[[], tuple[RuntimeImage, ...]],
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._builder, self._settings, self._images = builder, settings, images
        self._monotonic = monotonic
        self._slots: list[Slot] = []
        self._warm: list[Place] = []
        self._idle: list[Place] = []
        self._wanted: dict[str, Limits] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._wake = asyncio.Event()
        self._tender: asyncio.Task[None] | None = None
        self._closed = False

    def start(self) -> None:
        """Begin to keep places ready."""
        self._closed = False
        self._tender = asyncio.create_task(self._tend(), name="places")

    @property
    def ready(self) -> int:
        """Places that wait for any owner's job."""
        return len(self._warm)

    @property
    def idle(self) -> int:
        """Places that wait for their owner's next job."""
        return len(self._idle)

    async def take(self, request: RunRequest, image: RuntimeImage) -> Place:
        """A ready place with exactly the request's limits. Survives the caller's cancellation: what was being
        made is kept or removed.

        Raises:
            SandboxBroken: none can be made.
        """
        task = self._spawn(self._take(request, image))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(self._abandoned)
            raise

    def give(self, place: Place, *, clean: bool) -> None:
        """Give a place back after a job that ended by itself. One that is not clean is removed."""
        again = clean and self._settings.reuse and not self._closed and place.jobs < MAX_JOBS
        if again and not place.channel.ended:
            place.idle_since = self._monotonic()
            self._idle.append(place)
            self._wake.set()
        else:
            self._spawn(self.destroy(place))

    async def destroy(self, place: Place) -> None:
        """Remove a place; its slot is free again. Never raises."""
        place.channel.close()
        gone = await self._builder.remove(place.id)
        if gone and not self._closed and len(self._slots) < SPARE_SLOTS + self._settings.warm:
            self._slots.append(place.slot)
        else:
            await self._builder.remove(place.slot.id)

    async def close(self) -> None:
        """Remove everything."""
        self._closed = True
        if self._tender is not None:
            self._tender.cancel()
            await asyncio.gather(self._tender, return_exceptions=True)
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)
        places, self._warm, self._idle = [*self._warm, *self._idle], [], []
        await asyncio.gather(*(self.destroy(place) for place in places))
        self._slots = []
        await self._builder.remove_all()

    def forget(self) -> None:
        """Drop everything without a word to the engine, which is away; the sweep removes it later."""
        for place in (*self._warm, *self._idle):
            place.channel.close()
            self._builder.forget(place.id, place.slot.id)
        for slot in self._slots:
            self._builder.forget(slot.id)
        self._warm, self._idle, self._slots = [], [], []

    # -- taking ----------------------------------------------------------------------------------------------

    async def _take(self, request: RunRequest, image: RuntimeImage) -> Place:
        limits = limits_of(
            request.memory_mb, request.cpu_millis, request.pids, [file for file, _ in request.inputs]
        )
        if request.gpus:
            return self._given(await self._cold(request, image, limits), request)
        while (place := self._fitting(self._idle, image, limits, request.owner)) is not None or (
            place := self._fitting(self._warm, image, limits, None)
        ) is not None:
            self._wake.set()
            if place.limits == limits:
                return self._given(place, request)
            try:
                await self._builder.resize(place, limits)
            except SandboxBroken as error:
                log.info("a place could not be resized and is replaced: %s", error)
                self._spawn(self.destroy(place))
                if isinstance(error, EngineAway):
                    raise
                continue
            return self._given(place, request)
        if limits.job_mb == limits_of(limits.memory_mb, limits.cpu_millis, limits.pids).job_mb:
            self._wanted[image.id] = limits
        self._wake.set()
        return self._given(await self._cold(request, image, limits), request)

    def _given(self, place: Place, request: RunRequest) -> Place:
        place.owner = request.owner
        place.jobs += 1
        return place

    def _fitting(
        self, places: list[Place], image: RuntimeImage, limits: Limits, owner: str | None
    ) -> Place | None:
        """The place used last of those that fit, taken out of the list; what has ended is removed."""
        for place in reversed(places.copy()):
            if place.image.id != image.id or not self._builder.fits(place, limits):
                continue
            if owner is not None and place.owner != owner:
                continue
            places.remove(place)
            if not place.channel.ended:
                return place
            self._spawn(self.destroy(place))
        return None

    async def _cold(self, request: RunRequest, image: RuntimeImage, limits: Limits) -> Place:
        labels = {LABEL_JOB: str(request.job_id), LABEL_ATTEMPT: str(request.attempt_id)}
        return await self._make(image, limits, gpus=request.gpus, labels=labels)

    async def _make(
        self,
        image: RuntimeImage,
        limits: Limits,
        *,
        gpus: tuple[str, ...] = (),
        labels: dict[str, str] | None = None,
    ) -> Place:
        while True:
            # A slot that waited may have died of somebody's clean-up; a fresh one is tried before giving up.
            used = bool(self._slots)
            slot = self._slots.pop() if used else await self._builder.make_slot(image)
            try:
                return await self._builder.make_place(image, limits, slot, gpus=gpus, labels=labels or {})
            except BaseException as error:
                await self._builder.remove(slot.id)
                if not used or not isinstance(error, SandboxBroken) or isinstance(error, EngineAway):
                    raise

    def _abandoned(self, task: asyncio.Task[Place]) -> None:
        """Somebody asked for a place and left before it was made."""
        if not task.cancelled() and task.exception() is None:
            self._spawn(self.destroy(task.result()))

    # -- tending ---------------------------------------------------------------------------------------------

    async def _tend(self) -> None:
        failing = False
        while True:
            self._wake.clear()
            try:
                self._expire()
                await self._fill()
                failing = False
            except SandboxBroken as error:
                # The next job says why, and status() looks at the engine; once is enough here.
                log.log(logging.DEBUG if failing else logging.WARNING, "no place is ready: %s", error.message)
                failing = True
                await asyncio.sleep(REFILL_AFTER_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(IDLE_S / 4):
                    await self._wake.wait()

    def _expire(self) -> None:
        now = self._monotonic()
        old = [place for place in self._idle if now - place.idle_since > IDLE_S or place.channel.ended]
        extra = [place for place in self._idle if place not in old][: -max(MAX_IDLE, self._settings.warm)]
        for place in (*old, *extra):
            self._idle.remove(place)
            self._spawn(self.destroy(place))

    async def _fill(self) -> None:
        """Start places ahead for each runtime, in the size that was missed last."""
        for image in self._images():
            wanted = self._wanted.get(
                image.id, limits_of(USUAL_MEMORY_MB, USUAL_CPU_MILLIS, self._settings.pids)
            )
            while True:
                mine = [place for place in self._warm if place.image.id == image.id]
                stale = [p for p in mine if not self._builder.fits(p, wanted) or p.channel.ended]
                if len(mine) - len(stale) >= self._settings.warm:
                    break
                for place in stale:
                    self._warm.remove(place)
                    self._spawn(self.destroy(place))
                # In a task of its own: cancelled halfway it would leave a container that nobody knows.
                await asyncio.shield(self._spawn(self._start_ahead(image, wanted)))

    async def _start_ahead(self, image: RuntimeImage, limits: Limits) -> None:
        self._warm.append(await self._make(image, limits))

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
