"""The images that jobs may run in: resolved from the owner's list, declared by labels, built by our recipe.

A runtime declares itself with the labels ``gridx.runtime`` (its name), ``gridx.python``, ``gridx.languages``
and ``gridx.interpreter``. An image without them is taken when it tells its Python, as official ones do; what
else it speaks is then looked for in it.
"""

from __future__ import annotations

import asyncio
import io
import re
import tarfile
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import docker.errors
import msgspec

from gridx import safetext
from gridx.errors import ImageMissing, SandboxBroken
from gridx.messages import Runtime
from gridx.services.worker.sandbox.engine import Engine
from gridx.services.worker.sandbox.languages import LANGUAGES
from gridx.services.worker.sandbox.look import languages_of

DEFAULT_IMAGE: Final = "gridx-runtime:default"
NODE_IMAGE: Final = "gridx-runtime:node"
RECIPE: Final = Path(__file__).with_name("runtime")
RECIPES: Final = {DEFAULT_IMAGE: RECIPE, NODE_IMAGE: RECIPE / "node"}
"""The folders with the Dockerfiles of the runtimes that we offer."""

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}\Z")
_PYTHON: Final = re.compile(r"3\.[0-9]{1,2}\Z")


@dataclass(frozen=True, slots=True)
class RuntimeImage:
    """An image that jobs may run in, by its digest: a tag that is moved later changes nothing.

    Attributes:
        environment: what the image itself puts into every container's environment.
    """

    runtime: Runtime
    id: str
    interpreter: str
    environment: tuple[str, ...]
    declared: bool = True
    """Whether it says itself which languages it speaks."""


@dataclass(frozen=True, slots=True)
class Unusable:
    """An image of the list that cannot be used, and why."""

    image: str
    reason: str
    missing: bool


@dataclass(frozen=True, slots=True)
class Listed:
    """What the owner's list of images came to."""

    usable: tuple[RuntimeImage, ...]
    unusable: tuple[Unusable, ...]


def read_image(image: str, found: dict[str, Any]) -> RuntimeImage | Unusable:
    """Judge what the engine says of an image."""
    config = found.get("Config") or {}
    labels = config.get("Labels") or {}
    environment = tuple(str(entry) for entry in config.get("Env") or [])

    def no(reason: str) -> Unusable:
        return Unusable(image, reason, missing=False)

    if config.get("Volumes"):
        return no("it declares a VOLUME, which would be a writable place on the disk")
    if found.get("Os") not in (None, "", "linux"):
        return no("it is no Linux image")
    python = labels.get("gridx.python", "")
    if not python:
        versions = [entry.partition("=")[2] for entry in environment if entry.startswith("PYTHON_VERSION=")]
        python = ".".join(versions[0].split(".")[:2]) if versions else ""
    if not _PYTHON.match(python):
        return no("it does not say what its Python is; give it the label gridx.python")
    name = labels.get("gridx.runtime") or re.split(r"[:@]", image.rpartition("/")[2])[0]
    if not _NAME.match(name):
        return no("its name is not allowed; give it the label gridx.runtime")
    declared = [word.strip() for word in labels.get("gridx.languages", "python").split(",")]
    languages = [word for word in declared if word in LANGUAGES]
    if not languages:
        return no(f"its label gridx.languages names none of {', '.join(LANGUAGES)}")
    id = str(found.get("Id") or "")
    runtime = Runtime(name=name, python=python, languages=languages, image=image[:200], digest=id[:200])
    interpreter = labels.get("gridx.interpreter") or "python3"
    return RuntimeImage(runtime, id, interpreter, environment, "gridx.languages" in labels)


async def list_runtimes(engine: Engine, images: Sequence[str], *, identity: str = "") -> Listed:
    """Look every image of the owner's list up in the engine; of two with one name the first is used.

    Args:
        identity: the worker's, on whose account containers are made.

    Raises:
        EngineAway: the engine does not answer.
    """
    usable: dict[str, RuntimeImage] = {}
    unusable: list[Unusable] = []
    for image in images:
        try:
            found = await engine.call(engine.client.inspect_image, image)
        except docker.errors.NotFound:
            unusable.append(Unusable(image, "the engine does not have it", missing=True))
            continue
        read = read_image(image, found)
        if isinstance(read, Unusable):
            unusable.append(read)
        elif read.runtime.name in usable:
            other = usable[read.runtime.name].runtime.image
            unusable.append(Unusable(image, f"{other} has the same name, {read.runtime.name}", missing=False))
        else:
            if not read.declared:
                languages = await languages_of(engine, read.id, read.interpreter, identity)
                read = replace(read, runtime=msgspec.structs.replace(read.runtime, languages=languages))
            usable[read.runtime.name] = read
    return Listed(tuple(usable.values()), tuple(unusable))


def image_missing(listed: Listed) -> ImageMissing:
    """The error for an engine that has nothing to run jobs in."""
    reasons = "; ".join(f"{safetext.line(bad.image)}: {bad.reason}" for bad in listed.unusable)
    hint = "Type: gridx runtime build, or, without an image registry and as root: scripts/build-runtime-image"
    return ImageMissing(f"No image to run jobs in. {reasons or 'worker.runtimes is empty'}.", hint)


def recipe(tag: str = DEFAULT_IMAGE) -> bytes:
    """The Dockerfile and what it copies, as the archive that the engine builds from."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path in sorted(RECIPES[tag].iterdir()):
            if path.is_file():
                archive.add(path, arcname=path.name)
    return buffer.getvalue()


async def build_runtime(
    engine: Engine, say: Callable[[str], Awaitable[None]], *, tag: str = DEFAULT_IMAGE
) -> RuntimeImage:
    """Build one of our runtimes; takes minutes, and an image registry must be in reach.

    Args:
        tag: which one: one of ``RECIPES``.
        say: takes the engine's lines as they come, safe to print.

    Raises:
        SandboxBroken: the engine could not build it; the message is the engine's own.
    """
    loop = asyncio.get_running_loop()
    lines: asyncio.Queue[str | None] = asyncio.Queue()

    def tell(line: str | None) -> None:
        loop.call_soon_threadsafe(lines.put_nowait, line)

    def build() -> str:
        """The engine's error, or an empty text. In a thread of its own: a pull takes longer than any call."""
        try:
            for step in engine.client.build(
                fileobj=io.BytesIO(recipe(tag)),
                custom_context=True,
                tag=tag,
                rm=True,
                forcerm=True,
                decode=True,
            ):
                if "error" in step:
                    return str(step["error"])
                text = step.get("stream") or step.get("status") or ""
                for line in str(text).splitlines():
                    if clean := safetext.line(line):
                        tell(clean)
            return ""
        except (docker.errors.DockerException, OSError) as error:
            return str(error)
        finally:
            tell(None)

    building = asyncio.create_task(asyncio.to_thread(build))
    while (line := await lines.get()) is not None:
        await say(line)
    if error := await building:
        raise SandboxBroken(
            f"The runtime could not be built: {safetext.line(error, limit=400)}",
            "Without an image registry, on Debian and Ubuntu and as root: scripts/build-runtime-image"
            + (" node" if tag == NODE_IMAGE else ""),
        )
    read = read_image(tag, await engine.call(engine.client.inspect_image, tag))
    if isinstance(read, Unusable):
        raise SandboxBroken(f"The image {tag} cannot be used: {read.reason}.")
    return read
