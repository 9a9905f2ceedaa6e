"""How a person at a machine speaks to the worker that runs there, whether or not its coordinator is in reach.

The worker listens on a port of the loopback and writes it down, with a secret, in ``worker.control`` in its
data folder. Only who may read that file can give orders. One line of JSON goes each way, and the connection
ends.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from gridx.errors import GridError, SetupError, Unavailable, from_code
from gridx.messages import ErrorBody

CONTROL_FILE: Final = "worker.control"
HOST: Final = "127.0.0.1"
MAX_ORDER_BYTES: Final = 4096
MAX_REPLY_BYTES: Final = 4 << 20
CONNECT_S: Final = 5.0
ANSWER_S: Final = 60.0
"""Sandboxes of what is given back must be gone before there is an answer."""


class Address(Struct, frozen=True, kw_only=True):
    """What stands in the control file."""

    port: Annotated[int, Meta(ge=1, le=65535)]
    secret: str


class Order(Struct, frozen=True, kw_only=True):
    """What a person wants of the worker."""

    secret: str = ""
    do: Literal["status", "pause", "resume", "drain"] = "status"
    give_back: bool = False


class Holding(Struct, frozen=True, kw_only=True):
    """One attempt that runs on this machine."""

    attempt_id: int
    job_id: int
    owner: str
    name: str
    cpu_millis: int
    memory_mb: int
    gpus: int


class Report(Struct, frozen=True, kw_only=True):
    """How the worker is, and why: answer to every order."""

    name: str
    owner: str
    worker_id: int | None
    """The coordinator's number for it; null before the first connection."""
    coordinator: str
    connected: bool
    state: Literal["online", "paused", "closed", "draining", "unready"]
    reason: str
    rules: list[str]
    cpu_millis: int
    memory_mb: int
    gpus: int
    running: list[Holding]
    waiting: int
    """Results that the coordinator does not have yet."""
    given_back: int = 0
    """Attempts that this order gave back."""


class Reply(Struct, frozen=True, kw_only=True):
    """A report, or what went wrong."""

    report: Report | None = None
    error: ErrorBody | None = None


def tell(data_path: Path, order: Order) -> Report:
    """Give an order to the worker whose data folder this is. Blocks.

    Raises:
        SetupError: no worker runs with this folder, or its control file may not be read.
        Unavailable: it does not answer.
        GridError: what the worker said.
    """
    address = _address(data_path)
    line = msgspec.json.encode(msgspec.structs.replace(order, secret=address.secret)) + b"\n"
    try:
        with socket.create_connection((HOST, address.port), CONNECT_S) as connection:
            connection.settimeout(ANSWER_S)
            connection.sendall(line)
            answer = _read(connection)
    except ConnectionRefusedError:
        raise _nobody(data_path) from None
    except OSError as error:
        raise Unavailable(
            f"The worker on this machine does not answer: {error.strerror or error}.", "Try again."
        ) from None
    try:
        reply = msgspec.json.decode(answer, type=Reply)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        # Something else got the port of a worker that was killed.
        raise _nobody(data_path) from None
    if reply.error is not None:
        raise from_code(reply.error.code, reply.error.message, reply.error.hint)
    if reply.report is None:
        raise _nobody(data_path)
    return reply.report


def _address(data_path: Path) -> Address:
    path = data_path / CONTROL_FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=Address)
    except (FileNotFoundError, NotADirectoryError, msgspec.MsgspecError, UnicodeDecodeError):
        raise _nobody(data_path) from None
    except OSError as error:
        raise SetupError(
            f"{path} cannot be read: {error.strerror}.", "Type it as the user who runs the worker."
        ) from None


def _read(connection: socket.socket) -> bytes:
    parts = bytearray()
    while len(parts) <= MAX_REPLY_BYTES and (part := connection.recv(65536)):
        parts += part
    return bytes(parts)


def _nobody(data_path: Path) -> GridError:
    return SetupError(
        f"No worker runs on this machine with the data folder {data_path}.",
        "Start one: gridx-tui --role worker. Does it use another folder? Name that with --data-dir.",
    )
