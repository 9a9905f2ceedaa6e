"""Every error a person can meet: a code, a sentence, a hint, an HTTP status and an exit code.

The message says what happened and why; the hint says what to type or change next. ``details`` holds the
same facts for programs (the field's path, the balance, the shortfall).
"""

from __future__ import annotations

from typing import Any, ClassVar

EXIT_OK = 0
EXIT_JOB_FAILED = 1
EXIT_USAGE = 2
EXIT_REFUSED = 3
EXIT_UNREACHABLE = 4
EXIT_INTERRUPTED = 130


class GridError(Exception):
    """Base of all errors that are shown to people.

    Args:
        message: one sentence, what happened and why.
        hint: what to do next; may be empty when there is nothing to do.
        details: facts for programs; JSON values only.
    """

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    exit_code: ClassVar[int] = EXIT_JOB_FAILED

    def __init__(self, message: str, hint: str = "", **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details = details

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class BadRequest(GridError):
    """The request is not what the interface takes: not JSON, not an object, too deep."""

    code, status, exit_code = "bad_request", 400, EXIT_USAGE


class InvalidField(GridError):
    """One field is unknown, missing, of the wrong type or out of range; ``details["field"]`` is its path."""

    code, status, exit_code = "invalid_field", 422, EXIT_USAGE


class Unauthenticated(GridError):
    """No token, a wrong password, or a token that was revoked or has expired."""

    code, status, exit_code = "unauthenticated", 401, EXIT_REFUSED


class InsufficientCredits(GridError):
    """The balance does not cover the hold; ``details`` has ``balance``, ``price`` and ``shortfall``."""

    code, status, exit_code = "insufficient_credits", 402, EXIT_REFUSED


class Forbidden(GridError):
    """The caller is known and may not do this."""

    code, status, exit_code = "forbidden", 403, EXIT_REFUSED


class NotFound(GridError):
    """There is no such thing, or it belongs to somebody else: the answer is the same."""

    code, status, exit_code = "not_found", 404, EXIT_REFUSED


class Conflict(GridError):
    """The thing is in a state in which this cannot be done, or the name is taken."""

    code, status, exit_code = "conflict", 409, EXIT_REFUSED


class TooLarge(GridError):
    """A body, a program or a frame is over its cap."""

    code, status, exit_code = "too_large", 413, EXIT_USAGE


class Unschedulable(GridError):
    """No worker of the fleet could ever run this job as it was asked for."""

    code, status, exit_code = "unschedulable", 422, EXIT_REFUSED


class TooMany(GridError):
    """A rate or a quota; ``details["retry_after_s"]`` says when to try again, where that helps."""

    code, status, exit_code = "too_many", 429, EXIT_REFUSED


class QuotaExceeded(TooMany):
    """Files would take more than one user may have; ``details`` has ``used``, ``allowed`` and ``wanted``."""

    code = "quota_exceeded"


class Unavailable(GridError):
    """The coordinator cannot do this now: it is stopping, or its disk is full."""

    code, status, exit_code = "unavailable", 503, EXIT_UNREACHABLE


class Unreachable(GridError):
    """Nothing answers at the coordinator's address, or the connection broke."""

    code, status, exit_code = "unreachable", 503, EXIT_UNREACHABLE


class Untrusted(GridError):
    """The other side's certificate is not the one that is known; nothing was sent to it."""

    code, status, exit_code = "untrusted", 502, EXIT_UNREACHABLE


class ProtocolMismatch(GridError):
    """Worker and coordinator speak different versions of the protocol."""

    code, status, exit_code = "protocol_mismatch", 426, EXIT_REFUSED


class SetupError(GridError):
    """This machine or its configuration keeps the program from starting."""

    code, status, exit_code = "setup", 500, EXIT_USAGE


class ConfigError(SetupError):
    """A setting is unknown or has a bad value; ``details["key"]`` is its path."""

    code = "config"


class StoreError(SetupError):
    """The database file is locked, newer than the program, damaged or not writable."""

    code = "store"


class EngineMissing(SetupError):
    """No container engine answered; the message lists what was tried."""

    code = "engine_missing"


class ImageMissing(SetupError):
    """The engine answered but does not have the runtime's image."""

    code = "image_missing"


class SandboxBroken(GridError):
    """The machine, not the job, kept an attempt from running; the attempt is tried elsewhere."""

    code = "sandbox_broken"


def _tree(cls: type[GridError]) -> dict[str, type[GridError]]:
    found = {cls.code: cls}
    for child in cls.__subclasses__():
        found.update(_tree(child))
    return found


def from_code(code: str, message: str, hint: str = "", details: dict[str, Any] | None = None) -> GridError:
    """Build the error of a code that came over the wire; an unknown code becomes a plain GridError."""
    return _tree(GridError).get(code, GridError)(message, hint, **(details or {}))
