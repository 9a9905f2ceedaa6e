"""A call on its way: pickled, packed into a job, its large parts as files that are sent once."""

from __future__ import annotations

import binascii
import hashlib
import threading
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final

import msgspec

from gridx.executor.future import GridFuture
from gridx.executor.pickling import Pickled
from gridx.messages import InputFile, JobSpec, Stream

INLINE_BYTES: Final = 24 << 10
"""A part of a call that is longer when packed is a file; a shorter one is in the job's code."""
FOLDER: Final = ".gridx"

OnOutput = Callable[[GridFuture[Any], Stream, bytes], None]


@dataclass(eq=False, slots=True)
class Parcel:
    """Bytes that calls need as a file. They stay here while a call needs them: uploads can be pruned."""

    sha256: str
    data: bytes
    sent: bool = False
    users: int = 0


class Parcels:
    """What calls have in common is kept, hashed and sent once. Safe in any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, Parcel] = {}

    def keep(self, data: bytes | memoryview) -> Parcel:
        """The parcel of these bytes, which are copied if they are new; one more call needs it."""
        digest = hashlib.sha256(data).hexdigest()
        with self._lock:
            parcel = self._known.get(digest)
            if parcel is None:
                parcel = self._known[digest] = Parcel(digest, bytes(data))
            parcel.users += 1
            return parcel

    def leave(self, parcel: Parcel) -> bool:
        """One call less needs it; whether that was the last."""
        with self._lock:
            parcel.users -= 1
            if parcel.users:
                return False
            del self._known[parcel.sha256]
            return True


@dataclass(eq=False)
class InputPaths:
    """Files and folders that the calls of one view are given; looked at, and sent, with the first call."""

    paths: Sequence[Path]
    found: list[InputFile] | None = None


@dataclass(eq=False)
class Call:
    """One call, from submit to its end.

    Attributes:
        job: what the job asks for; its code and its inputs are added.
        parcels: parts that travel as files, by their path in the job's folder.
        over: nothing more is to come of it.
        sent_again: its files were gone when it was submitted, and were sent once more.
    """

    future: GridFuture[Any]
    job: JobSpec
    code: str
    classes: frozenset[tuple[str, str]]
    parcels: dict[str, Parcel] = field(default_factory=dict)
    inputs: InputPaths | None = None
    on_output: OnOutput | None = None
    over: bool = False
    sent_again: bool = False

    def spec(self) -> JobSpec:
        """The job, once everything that it needs is sent."""
        files = [
            InputFile(path=path, sha256=parcel.sha256, size=len(parcel.data))
            for path, parcel in self.parcels.items()
        ]
        return msgspec.structs.replace(
            self.job, code=self.code, inputs=[*files, *(self.inputs.found or [] if self.inputs else [])]
        )


def pack(
    call: Pickled, function: Pickled | None, keep: Callable[[bytes | memoryview], Parcel]
) -> tuple[str, frozenset[tuple[str, str]], dict[str, Parcel]]:
    """The code of a call's job, the classes that go with it, and its files.

    Args:
        call: function, arguments and named arguments; with ``function`` the arguments of each of its calls.
    """
    parcels: dict[str, Parcel] = {}
    classes = call.classes | (function.classes if function else frozenset())

    def part(name: str, data: bytes) -> str | None:
        packed = (
            binascii.b2a_base64(zlib.compress(data, 1), newline=False)
            if len(data) < 16 * INLINE_BYTES
            else b""
        )
        if packed and len(packed) <= INLINE_BYTES:
            return packed.decode()
        parcels[f"{FOLDER}/{name}"] = keep(data)
        return None

    ticket = {
        "call": part("call", call.data),
        "function": part("function", function.data) if function else None,
        "each": function is not None,
        "buffers": len(call.buffers),
        "classes": sorted(classes),
    }
    for number, buffer in enumerate(call.buffers):
        parcels[f"{FOLDER}/{number}"] = keep(buffer)
    return f"{_program()}\n\nrun({ticket!r})\n", classes, parcels


@cache
def _program() -> str:
    return Path(__file__).with_name("far.py").read_text(encoding="utf-8")
