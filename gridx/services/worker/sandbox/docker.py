"""The sandbox in containers: the wall between a stranger's job and the machine."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from gridx import safetext
from gridx.config import WorkerSettings
from gridx.errors import EngineMissing, SandboxBroken, SetupError
from gridx.messages import InputFile
from gridx.services.worker.sandbox.base import (
    OutputSink,
    RunOutcome,
    RunRequest,
    SandboxStatus,
    StartedHook,
)
from gridx.services.worker.sandbox.container import JOB_FOLDER, TMP, unfit
from gridx.services.worker.sandbox.dialect import dialect_of
from gridx.services.worker.sandbox.dialogue import Dialogue
from gridx.services.worker.sandbox.engine import Engine, EngineAway, find_engine, lacks, remedy, warnings
from gridx.services.worker.sandbox.judgement import Ending, judge, out_of_memory, outcome
from gridx.services.worker.sandbox.place import Builder, Place
from gridx.services.worker.sandbox.pool import Pool
from gridx.services.worker.sandbox.runtimes import Listed, RuntimeImage, image_missing, list_runtimes
from gridx.services.worker.sandbox.supervisor import Surroundings, encode_request

log = logging.getLogger("gridx.worker")

LOOK_EVERY_S: Final = 30.0
"""How often the images are looked up again: one may have been built or removed meanwhile."""
CLEANED: Final = (TMP, JOB_FOLDER, "/dev/shm", "/dev/mqueue")  # noqa: S108


class DockerSandbox:
    """Runs attempts in hardened containers, of Docker or of Podman.

    Args:
        identity: the worker's own; labels its containers, and only those are ever removed.
        data_path: the worker's data folder.
    """

    def __init__(self, settings: WorkerSettings, *, identity: str, data_path: Path) -> None:
        self._settings, self._identity, self._data_path = settings, identity, data_path
        self._listed = Listed((), ())
        self._looked_at = 0.0
        self._away = ""
        self._engine: Engine | None = None

    async def open(self) -> None:
        engine = await find_engine(self._settings.engine)
        try:
            if reason := lacks(engine.facts):
                raise EngineMissing(
                    f"Jobs cannot run in containers here: {reason}.",
                    remedy(engine.facts),
                )
            oci = self._settings.oci_runtime
            if oci and oci not in engine.facts.runtimes:
                known = ", ".join(engine.facts.runtimes)
                raise SetupError(
                    f"The container engine has no runtime {oci}; it has {safetext.line(known)}.",
                    "Install it and tell the engine of it, or leave worker.oci_runtime empty.",
                )
            self._listed = await list_runtimes(engine, self._settings.runtimes, identity=self._identity)
            self._looked_at = time.monotonic()
            if not self._listed.usable:
                raise image_missing(self._listed)
            self._dialect = dialect_of(engine, self._data_path)
            self._builder = Builder(engine, self._dialect, self._identity, oci)
            await self._builder.sweep()
        except BaseException:
            await engine.close()
            raise
        self._engine = engine
        self._pool = Pool(self._builder, self._settings, lambda: self._listed.usable)
        self._pool.start()

    async def status(self) -> SandboxStatus:
        engine = self._opened()
        unready = await engine.ping()
        if unready:
            self._lost(unready)
        else:
            unready = await self._back()
        facts = engine.facts
        return SandboxStatus(
            "docker",
            isolated=True,
            runtimes=() if unready else tuple(image.runtime for image in self._listed.usable),
            warnings=(
                *warnings(facts, self._settings.oci_runtime),
                *(f"{bad.image}: {bad.reason}." for bad in self._listed.unusable),
            ),
            unready=unready,
            details={
                "engine": f"{facts.name} {facts.version}",
                "address": f"{engine.candidate.address} ({engine.candidate.source})",
                "api": facts.api,
                "cgroup": str(facts.cgroup),
                "security": ", ".join(facts.security),
                "oci runtime": self._settings.oci_runtime or facts.default_runtime,
                "parts": ", ".join(f"{name} {version}" for name, version in facts.components[1:]),
                "machine": f"{facts.cpus} processors, {facts.memory_bytes >> 20} MiB",
                "places ready": str(self._pool.ready),
                "places kept": str(self._pool.idle),
                **self._dialect.notes,
            },
            gpus=self._dialect.gpus,
            cpu_millis=facts.cpus * 1000 or None,
            memory_bytes=facts.memory_bytes or None,
        )

    def unfit(self, inputs: Sequence[InputFile], memory_mb: int) -> str:
        return unfit(inputs, memory_mb)

    async def run(
        self, request: RunRequest, sink: OutputSink, started: StartedHook, cancel: asyncio.Event
    ) -> RunOutcome:
        self._opened()
        image = self._image(request)
        place = await self._take(request, image, cancel)
        if place is None:
            return RunOutcome("cancelled")
        ending: Ending | None = None
        try:
            around = Surroundings(
                folder=JOB_FOLDER,
                alone=True,
                cgroup=True,
                clean=CLEANED if self._settings.reuse and not place.gpus else (),
                # Its user's number has no name in any image, and programs ask for one.
                env={"USER": "nobody"},
            )
            dialogue = Dialogue(
                place.line,
                request,
                sink,
                started,
                kill=lambda: self._builder.kill(place),
                check=self._check,
            )
            ending = await dialogue.run(encode_request(request, around), cancel)
            if ending.how == "vanished":
                return await self._vanished(request, place, ending)
            return judge(request, ending)
        except EngineAway as error:
            self._lost(error.message)
            raise
        finally:
            if ending is not None and ending.how == "ended" and ending.end is not None:
                # The job has ended by itself and its supervisor has killed what it left; what remains is an
                # empty container, which is used again or removed while the result is on its way.
                if ending.end.dirt:
                    log.info("attempt %d left its place unclean: %s", request.attempt_id, ending.end.dirt)
                self._pool.give(place, clean=ending.end.clean)
            elif self._away:
                # Nobody would hear that it is to go; the sweep removes it when the engine is back.
                place.channel.close()
                self._builder.forget(place.id, place.slot.id)
            else:
                await asyncio.shield(asyncio.create_task(self._pool.destroy(place)))

    async def sweep(self) -> int:
        self._opened()
        return await self._builder.sweep()

    async def close(self) -> None:
        if self._engine is None:
            return
        engine, self._engine = self._engine, None
        if self._away or await engine.ping():
            # Nothing can be removed now; the next start's sweep does it.
            self._pool.forget()
            self._builder.forget()
        await self._pool.close()
        await engine.close()

    # -- parts of a run --------------------------------------------------------------------------------------

    def _opened(self) -> Engine:
        if self._engine is None:
            raise SandboxBroken("The sandbox is not open.")
        return self._engine

    def _image(self, request: RunRequest) -> RuntimeImage:
        for image in self._listed.usable:
            if image.runtime.name == request.runtime and request.language in image.runtime.languages:
                return image
        raise SandboxBroken(
            f"This worker does not offer the runtime {request.runtime} for {safetext.line(request.language)}."
        )

    async def _take(self, request: RunRequest, image: RuntimeImage, cancel: asyncio.Event) -> Place | None:
        """A place, or None when the attempt was cancelled before there was one."""
        take = asyncio.create_task(self._pool.take(request, image))
        cancelled = asyncio.create_task(cancel.wait())
        try:
            await asyncio.wait({take, cancelled}, return_when=asyncio.FIRST_COMPLETED)
            if take.done():
                return await take
            return None
        except SandboxBroken as error:
            # The image may have been built anew, and the old one be gone.
            self._looked_at = 0.0
            if isinstance(error, EngineAway):
                self._lost(error.message)
            raise
        finally:
            for task in (take, cancelled):
                task.cancel()
            await asyncio.gather(take, cancelled, return_exceptions=True)

    async def _vanished(self, request: RunRequest, place: Place, ending: Ending) -> RunOutcome:
        """The supervisor ended without a word: killed with its job for memory, or by somebody else."""
        state = (await self._builder.inspect(place.id)).get("State") or {}
        if state.get("OOMKilled"):
            return out_of_memory(request, ending)
        if ending.how == "cancelled":
            return outcome(ending, "cancelled")
        code = state.get("ExitCode")
        raise SandboxBroken(
            f"The sandbox ended by itself (exit code {code}). {place.channel.last_words()}".strip(),
            "Somebody may have removed the container, or the engine was restarted.",
        )

    # -- the engine comes and goes ---------------------------------------------------------------------------

    async def _check(self) -> None:
        """Called in a silence: whether the engine can still be heard."""
        if reason := await self._opened().ping():
            raise EngineAway(reason)

    def _lost(self, reason: str) -> None:
        if not self._away:
            log.warning("the container engine is away: %s", reason)
            self._pool.forget()
        self._away = reason

    async def _back(self) -> str:
        """The engine answers. Clean up after an absence, look at the images now and then; why not ready."""
        engine = self._opened()
        try:
            if self._away:
                await self._builder.sweep()
                log.info("the container engine is back")
                self._away = ""
                self._looked_at = 0.0
            if time.monotonic() - self._looked_at > LOOK_EVERY_S:
                self._listed = await list_runtimes(engine, self._settings.runtimes, identity=self._identity)
                self._looked_at = time.monotonic()
        except SandboxBroken as error:
            return error.message
        return "" if self._listed.usable else image_missing(self._listed).message
