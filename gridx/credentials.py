"""Saved sign-ins: the tokens of this person's shell and of the workers on this machine.

``~/.gridx`` (or ``GRIDX_HOME``) holds ``session.json`` for the shell and ``worker_USER.json`` for each user
that workers here belong to. A file has one sign-in for each coordinator, under its URL. A password is never
written.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from gridx import privatefiles, safetext
from gridx.address import http_url
from gridx.config import Settings
from gridx.errors import ConfigError, SetupError
from gridx.messages import Session

log = logging.getLogger("gridx.credentials")

FORMAT: Final = 1
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9_.@-]")


class SignIn(Struct, frozen=True, kw_only=True):
    """One saved token, and whose it is."""

    user: str
    token: str
    expires_at: datetime | None = None


class _Content(Struct, frozen=True, kw_only=True):
    format: int = FORMAT
    last: str = ""
    sign_ins: dict[str, SignIn] = {}


def home(environ: Mapping[str, str] | None = None) -> Path:
    """The folder of the saved sign-ins: ``GRIDX_HOME``, else ``~/.gridx``.

    Raises:
        SetupError: there is no home folder.
    """
    named = (os.environ if environ is None else environ).get("GRIDX_HOME")
    try:
        return Path(named).expanduser() if named else Path.home() / ".gridx"
    except RuntimeError:
        raise SetupError(
            "This user has no home folder for the saved sign-ins.", "Set HOME, or GRIDX_HOME=FOLDER."
        ) from None


class SavedSignIns:
    """One file of sign-ins, by coordinator. Methods read and write the file each time: others may, too."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def find(self, url: str) -> SignIn | None:
        """The sign-in for a coordinator, if one was saved."""
        return self._read().sign_ins.get(http_url(url))

    def where(self, text: str) -> str:
        """The URL of a coordinator that was named without a scheme, if one signed in there by TLS."""
        secure = http_url(text).replace("http://", "https://", 1)
        return secure if "://" not in text and secure in self._read().sign_ins else text

    def last(self) -> tuple[str, SignIn] | None:
        """The coordinator where one signed in last, and that sign-in."""
        content = self._read()
        found = content.sign_ins.get(content.last)
        return (content.last, found) if found else None

    def save(self, url: str, sign_in: SignIn) -> None:
        """Keep a sign-in in place of the one for the same coordinator.

        Raises:
            SetupError: the file or its folder cannot be written.
        """
        content = self._read()
        self._write(_Content(last=http_url(url), sign_ins={**content.sign_ins, http_url(url): sign_in}))

    def forget(self, url: str) -> bool:
        """Remove the sign-in for a coordinator; whether there was one."""
        content = self._read()
        kept = {key: value for key, value in content.sign_ins.items() if key != http_url(url)}
        if len(kept) == len(content.sign_ins):
            return False
        self._write(_Content(last="" if content.last == http_url(url) else content.last, sign_ins=kept))
        return True

    def _read(self) -> _Content:
        try:
            content = msgspec.json.decode(self.path.read_bytes(), type=_Content)
        except FileNotFoundError:
            return _Content()
        except OSError as error:
            raise SetupError(
                f"The saved sign-ins {self.path} cannot be read: {error.strerror}.",
                "Check its owner and mode.",
            ) from None
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            log.warning("%s is damaged and is not used", safetext.line(str(self.path)))
            return _Content()
        if content.format != FORMAT:
            raise SetupError(
                f"The saved sign-ins {self.path} are of another version of Grid-X.",
                "Move the file away and sign in again, or set GRIDX_HOME to another folder.",
            )
        return content

    def _write(self, content: _Content) -> None:
        privatefiles.make_folder(self.path.parent)
        try:
            privatefiles.write(self.path, msgspec.json.format(msgspec.json.encode(content)) + b"\n")
        except OSError as error:
            raise SetupError(
                f"The sign-in cannot be saved in {self.path}: {error.strerror}.",
                "Check the folder's owner and mode, or set GRIDX_HOME to another one.",
            ) from None


def of_worker(user: str, environ: Mapping[str, str] | None = None) -> SavedSignIns:
    """The sign-ins of the workers of one user; what has no place in a file's name is written as ``%xx``."""
    safe = _UNSAFE.sub(lambda match: "".join(f"%{byte:02x}" for byte in match[0].encode()), user)
    return SavedSignIns(home(environ) / f"worker_{safe[:200]}.json")


def of_shell(environ: Mapping[str, str] | None = None) -> SavedSignIns:
    """The sign-ins that ``gridx login`` and the dashboard save."""
    return SavedSignIns(home(environ) / "session.json")


def resolve(settings: Settings, environ: Mapping[str, str] | None = None) -> tuple[str, str | None]:
    """Which coordinator the shell and a viewer speak to, and with which token.

    The URL is the one that was set, else where one signed in last. The token is ``GRIDX_TOKEN``, else the
    saved one for that URL, unless another user was asked for.

    Raises:
        ConfigError: no coordinator was named and nobody ever signed in.
    """
    environ = os.environ if environ is None else environ
    saved = of_shell(environ)
    url = settings.client.coordinator
    if not url:
        last = saved.last()
        if last is None:
            raise ConfigError(
                "It is not known where the grid is.",
                "Set GRIDX_COORDINATOR=http://HOST:8081 and sign in with: gridx login USER",
            )
        url = last[0]
    url = saved.where(url)
    if token := environ.get("GRIDX_TOKEN"):
        return url, token
    sign_in = saved.find(url)
    wanted = settings.client.user
    if sign_in is None or (wanted and wanted.lower() != sign_in.user.lower()):
        return url, None
    return url, sign_in.token


def remember(url: str, session: Session) -> None:
    """Keep a fresh session for the shell. Raises SetupError when it cannot be written."""
    of_shell().save(url, of_session(session))


def of_session(session: Session) -> SignIn:
    """The part of a session that is kept."""
    return SignIn(user=session.user.username, token=session.token, expires_at=session.expires_at)
