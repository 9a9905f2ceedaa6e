"""Values to JSON and back: strict, and a refusal names the field's path and what is allowed."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Annotated, Any, Final, TypeVar, get_type_hints

import msgspec
from msgspec import Meta

from gridx.errors import BadRequest, GridError, InvalidField
from gridx.messages.bounds import MAX_BATCH
from gridx.messages.events import Event
from gridx.messages.frames import CoordinatorFrame, WorkerFrame
from gridx.messages.refusals import in_words

T = TypeVar("T")

_encoder = msgspec.json.Encoder()
_worker_frames: msgspec.json.Decoder[list[WorkerFrame]] = msgspec.json.Decoder(
    Annotated[list[WorkerFrame], Meta(min_length=1, max_length=MAX_BATCH)]
)
_coordinator_frames: msgspec.json.Decoder[list[CoordinatorFrame]] = msgspec.json.Decoder(
    Annotated[list[CoordinatorFrame], Meta(min_length=1, max_length=MAX_BATCH)]
)
_event: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)
encode = _encoder.encode

SEE: Final = "The README lists fields and bounds under API in short."


def _refusal(
    error: msgspec.MsgspecError | UnicodeDecodeError | RecursionError, kind: object = None
) -> GridError:
    """Turn a decoder's complaint into the field's path and a sentence."""
    if isinstance(error, msgspec.ValidationError):
        text, _, path = str(error).partition(" - at `")
        # The key of a mapping is told as "key` in `$.env".
        field = path.rstrip("`").removeprefix("key` in `").removeprefix("$").removeprefix(".")
        if "unknown field `" in text or "missing required field `" in text:
            name = text.split("`")[1]
            field = f"{field}.{name}" if field else name
        if not field and ", got `" in text:
            return BadRequest(f"What was sent {in_words(text)}.", "Send what the README names.")
        field = field or "body"
        return InvalidField(f"{field}: {in_words(text)}.", _known(text, field, kind), field=field)
    return BadRequest(f"This is not valid JSON: {error}.", "Send one JSON value, encoded as UTF-8.")


def _known(text: str, field: str, kind: object) -> str:
    """The hint; of a field that is not known it says which ones are, where the value's type tells."""
    if "unknown field `" not in text or "." in field or not isinstance(kind, type):
        return SEE
    names = getattr(kind, "__struct_encode_fields__", ())
    return f"Known are {', '.join(names)}." if names else "Nothing is taken here."


def decode(data: bytes | str, kind: type[T]) -> T:
    """Decode one JSON value of a known type.

    Raises:
        BadRequest: not JSON, not UTF-8, nested too deep.
        InvalidField: a field is unknown, missing, of the wrong type or out of range.
    """
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _refusal(error, kind) from None


def convert(values: Mapping[str, str], kind: type[T]) -> T:
    """Read the parameters of a query, which are all text, as the fields of a struct.

    Raises:
        InvalidField: a parameter is unknown, missing, not of its type or out of range.
    """
    kinds: type = kind
    hints = _types_of(kinds) if values else {}
    for name, value in values.items():
        # Taken for none of a number otherwise. What is not given is left out.
        if value.lower() == "null" and "str" not in str(hints.get(name, "str")):
            raise InvalidField(f"{name}: null is no value here.", "Leave it out.", field=name)
    try:
        return msgspec.convert(dict(values), kind, strict=False)
    except msgspec.ValidationError as error:
        raise _refusal(error, kind) from None


@functools.cache
def _types_of(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def decode_worker_frames(data: bytes | str) -> list[WorkerFrame]:
    """Decode what a worker sent: a batch of 1 to ``MAX_BATCH`` frames. Raises as :func:`decode`."""
    try:
        return _worker_frames.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _refusal(error) from None


def decode_coordinator_frames(data: bytes | str) -> list[CoordinatorFrame]:
    """Decode what the coordinator sent a worker. Raises as :func:`decode`."""
    try:
        return _coordinator_frames.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _refusal(error) from None


def decode_event(data: bytes | str) -> Event:
    """Decode one event of ``/events``. Raises as :func:`decode`."""
    try:
        return _event.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _refusal(error) from None
