"""How a program ends: every error as a sentence and an exit code, never as a traceback.

A :class:`~gridx.errors.GridError` is shown with its hint. Anything else is a defect of this program: its
traceback goes to a file, and the sentence names the file.
"""

from __future__ import annotations

import errno
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Final

import click

from gridx import safetext
from gridx.errors import EXIT_INTERRUPTED, EXIT_JOB_FAILED, EXIT_USAGE, GridError

EXIT_BROKEN_PIPE: Final = 141
"""As a program that SIGPIPE ended: the reader of the output went away."""
MAX_LOG_BYTES: Final = 1 << 20
FULL: Final = (errno.ENOSPC, errno.EDQUOT)
"""The disk, or the user's part of it, has no room."""


def ending(run: Callable[[], int]) -> int:
    """Run a program and say how it ended: its own exit code, or that of the error that ended it."""
    _have_streams()
    try:
        code = run()
        sys.stdout.flush()  # here: what cannot be written shall be told as everything else is
        return code
    except click.UsageError as error:
        error.show()
        return EXIT_USAGE
    except click.ClickException as error:
        complain(error.format_message())
        return EXIT_USAGE
    except (KeyboardInterrupt, click.Abort):
        return EXIT_INTERRUPTED
    except GridError as error:
        complain(error.message, error.hint)
        return error.exit_code
    except BrokenPipeError:
        _silence()
        return EXIT_BROKEN_PIPE
    except SystemExit:
        # click's answer to a broken pipe, and to nothing else when it is called from a program.
        return EXIT_BROKEN_PIPE
    except Exception as error:
        if isinstance(error, OSError) and error.errno in FULL:
            complain(f"Something could not be written: {os.strerror(error.errno)}.", "Make room for it.")
            _silence()
            return EXIT_JOB_FAILED
        what = str(error) or "no reason given"
        complain(
            f"Grid-X has a defect: {type(error).__name__}: {what}.", f"The details are in {_keep(error)}."
        )
        return EXIT_JOB_FAILED


def _have_streams() -> None:
    """A program may be started without a stdout or stderr; it runs all the same."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115


def complain(message: str, hint: str = "") -> None:
    """Say on stderr what happened and what to type next."""
    try:
        print(safetext.clean(message), file=sys.stderr)  # noqa: T201
        if hint:
            print(safetext.clean(hint), file=sys.stderr)  # noqa: T201
    except (OSError, ValueError):
        return  # nobody reads stderr any more; the exit code still tells


def _keep(error: Exception) -> str:
    """Append the traceback to a file for a report; where, in words."""
    from gridx import credentials  # here: it loads what --help need not

    try:
        path = credentials.home() / "errors.log"
    except GridError as unknown:
        return f"no file: {unknown.message}"
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    text = f"{when} {' '.join(sys.argv[:1])}\n" + "".join(traceback.format_exception(error)) + "\n"
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = path.exists() and path.stat().st_size > MAX_LOG_BYTES
        flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if fresh else os.O_APPEND)
        with os.fdopen(os.open(path, flags, 0o600), "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(safetext.clean(text))
    except OSError as reason:
        return f"no file, for {path} cannot be written ({reason.strerror})"
    return str(path)


def _silence() -> None:
    """Keep the interpreter's last flush from complaining about the reader that went away."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):
        return  # stdout is no file: there is nothing to flush
