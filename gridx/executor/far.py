"""The program of a call: what the job runs. It is sent as text, with its ticket behind it.

It needs the standard library, and cloudpickle where the call or its result is more than plain data. Parts of
the call that are large are files in ``.gridx``; the result is the file ``out/gridx-result``: a line of JSON
that says what it is, then the pickle.
"""

from __future__ import annotations

import binascii
import json
import os
import sys
import zlib
from typing import TYPE_CHECKING, Any

try:
    import cloudpickle as pickle
except ImportError:
    import pickle

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from types import TracebackType
    from typing import BinaryIO

FOLDER = ".gridx"
RESULT = os.path.join("out", "gridx-result")


def remove(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass


def part(name: str, inline: str | None) -> bytes:
    """A part of the call: from the ticket, or from a file, which is not needed a second time."""
    if inline is not None:
        return zlib.decompress(binascii.a2b_base64(inline))
    path = os.path.join(FOLDER, name)
    with open(path, "rb") as file:
        data = file.read()
    remove(path)
    return data


def buffer(number: int) -> Any:
    """Bytes of an array that travelled beside the pickle; the array may write to them."""
    import mmap

    path = os.path.join(FOLDER, str(number))
    with open(path, "rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    remove(path)
    return data


def save(header: dict[str, str], write: Callable[[BinaryIO], object]) -> None:
    """Write the result, whole or not at all; ``write`` gets the file for what follows the header."""
    os.makedirs("out", exist_ok=True)
    try:
        with open(RESULT + ".part", "wb") as file:
            file.write(json.dumps(header).encode() + b"\n")
            write(file)
        os.replace(RESULT + ".part", RESULT)
    except BaseException:
        remove(RESULT + ".part")
        raise


def pickler(file: BinaryIO, sent: Collection[tuple[str, str]]) -> pickle.Pickler:
    """A pickler in which the caller's own classes are their names: the caller has them."""

    class Pickler(getattr(pickle, "CloudPickler", pickle.Pickler)):  # type: ignore[misc]
        def persistent_id(self, value: Any) -> tuple[str, str] | None:
            if isinstance(value, type):
                name = (value.__module__, value.__qualname__)
                if name in sent:
                    return name
            return None

    made: pickle.Pickler = Pickler(file, protocol=5)
    return made


def text_with_trace(error: BaseException, trace: TracebackType | None) -> str:
    import traceback

    return "".join(traceback.format_exception(type(error), error, trace))


def text_of(value: BaseException) -> str:
    try:
        return str(value)
    except BaseException as error:
        return f"<its text raised {type(error).__name__}>"


def hand_in_error(
    error: BaseException, trace: TracebackType | None, sent: Collection[tuple[str, str]]
) -> None:
    """Save an exception, as it is where it can be pickled, and as text in any case."""
    text = text_with_trace(error, trace)
    kind = type(error)
    header = {
        "kind": "error",
        "type": f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins."),
        "message": text_of(error),
        "traceback": text,
    }
    error.__traceback__ = None
    try:
        save(header, lambda file: pickler(file, sent).dump(error))
    except BaseException:
        save(header, lambda file: None)
    sys.stderr.write(text)


def run(ticket: dict[str, Any]) -> None:
    sent = {tuple(name) for name in ticket["classes"]}
    try:
        buffers = [buffer(number) for number in range(ticket["buffers"])]
        call = pickle.loads(part("call", ticket["call"]), buffers=buffers)
        if ticket["each"]:
            function = pickle.loads(part("function", ticket["function"]))
            value = [function(*arguments) for arguments in call]
        else:
            function, arguments, named = call
            value = function(*arguments, **named)
    except BaseException as error:
        # The first frame is this function's; where none follows, it is all there is.
        trace = error.__traceback__
        hand_in_error(error, (trace and trace.tb_next) or trace, sent)
        sys.exit(1)
    try:
        save({"kind": "value"}, lambda file: pickler(file, sent).dump(value))
    except BaseException as error:
        text = text_with_trace(error, error.__traceback__)
        header = {
            "kind": "unpicklable",
            "type": f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins."),
            "message": text_of(error),
            "traceback": text,
        }
        save(header, lambda file: None)
        sys.stderr.write(text)
        sys.exit(1)
