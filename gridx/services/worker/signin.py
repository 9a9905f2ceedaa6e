"""How a worker gets its token: the saved one, else by a password, which registers a name that is new."""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections.abc import Callable
from typing import Final, TypeVar

import aiohttp

from gridx import credentials, safetext
from gridx.address import http_url
from gridx.config import Settings
from gridx.errors import (
    BadRequest,
    Conflict,
    Forbidden,
    GridError,
    InvalidField,
    SetupError,
    TooMany,
    Unauthenticated,
    Unavailable,
    Unreachable,
    Untrusted,
    from_code,
)
from gridx.messages import ErrorReply, Login, Register, Session, User, Wire, decode, encode
from gridx.services.worker.backoff import Backoff, Complaint
from gridx.trust import Trust, changed, not_vouched_for

log = logging.getLogger("gridx.worker")

T = TypeVar("T")

PasswordSource = Callable[[bool], str | None]
"""Gives a password, or None where there is none; called in a thread, since it may ask a person.

With True it is asked once more, by a source that says ``asks``: the name is new, or the first was not right.
"""

TRIES: Final = 4
"""Passwords that a person may type before the process ends."""

TIMEOUT: Final = aiohttp.ClientTimeout(total=30, connect=10)
UNTRUSTED_RETRY_S: Final = 60.0
"""A certificate that changed is looked at again so often: a person has to decide."""
MAX_ANSWER_BYTES: Final = 1 << 20


async def sign_in(
    settings: Settings, password: PasswordSource | None, *, rng: random.Random | None = None
) -> str:
    """A token that the coordinator takes; waits for as long as it is out of reach.

    Raises:
        Unauthenticated: the name is known and the password is wrong, or there is no password.
        Forbidden: the coordinator takes no new users, or not this one.
        SetupError: no user was named, or the token cannot be saved.
    """
    signing = SignIn(settings, password)
    backoff, complaint = Backoff(rng or random.Random()), Complaint(log)  # noqa: S311
    async with aiohttp.ClientSession(timeout=TIMEOUT) as http:
        while True:
            try:
                token = await signing.token(http)
                await signing.check(http, token)
                return token
            except TokenRefused:
                await signing.refused()
            except Untrusted as error:
                complaint.say(f"cannot sign in: {error.message} {error.hint}", UNTRUSTED_RETRY_S)
                await asyncio.sleep(UNTRUSTED_RETRY_S)
            except (Unreachable, Unavailable, TooMany) as error:
                wait_s = backoff.next(at_least_s=float(error.details.get("retry_after_s", 0)))
                complaint.say(f"cannot sign in yet: {error.message}", wait_s)
                await asyncio.sleep(wait_s)


class TokenRefused(Unauthenticated):
    """The coordinator does not take this token any more."""


class SignIn:
    """The sign-in of one worker's user, over the life of the process.

    Args:
        token: one that was got elsewhere and is tried first.
        certificate: the fingerprint of the coordinator in the same process.
    """

    def __init__(
        self,
        settings: Settings,
        password: PasswordSource | None,
        *,
        token: str | None = None,
        certificate: str = "",
    ) -> None:
        named = settings.worker.coordinator_http
        self.url = http_url(named)
        self.trust = Trust(certificate=certificate)
        self._bare = "" if "://" in named else named
        self.user = settings.worker.user
        if not self.user:
            raise SetupError("A worker needs an owner: the user that earns what it does.", "Add --user NAME.")
        self._label = safetext.line(f"worker {settings.worker.name}".strip(), limit=190)
        self._password = password
        self._token = token
        self._saved = credentials.of_worker(self.user)
        self._refused_fresh = False
        self._typed: str | None = None

    async def token(self, http: aiohttp.ClientSession) -> str:
        """The token to use now; may ask for a password. Raises as :func:`sign_in`, and ``Unreachable``."""
        if self._bare:
            self.url = await self.trust.locate(self._bare)
            self._bare = ""
        if self._token is None:
            saved = await asyncio.to_thread(self._saved.find, self.url)
            self._token = saved.token if saved else None
        if self._token is None:
            session = await self._by_password(http)
            if session.notice:
                log.warning("%s", safetext.line(session.notice, limit=500))
            await asyncio.to_thread(self._saved.save, self.url, credentials.of_session(session))
            self._token = session.token
            self._refused_fresh = True
        return self._token

    @property
    def current(self) -> str | None:
        """The token that is used now, where there is one: nobody is asked for a password."""
        return None if self._bare else self._token

    async def check(self, http: aiohttp.ClientSession, token: str) -> None:
        """Ask the coordinator whether it takes the token.

        Raises:
            TokenRefused: it does not.
            Unreachable: it does not answer.
        """
        try:
            await self._ask(http, "GET", "/auth/me", None, User, token=token)
        except Unauthenticated as error:
            raise TokenRefused(error.message, error.hint) from None
        self.accepted()

    def accepted(self) -> None:
        """The token works."""
        self._refused_fresh = False

    async def refused(self) -> None:
        """The token does not work any more: the next one is got with the password.

        Raises:
            Unauthenticated: it was got a moment ago, so another would do no better.
        """
        if self._refused_fresh:
            raise Unauthenticated(
                f"The coordinator signed {self.user} in and then refused the token.",
                "Its administrator may have disabled this user.",
            )
        log.warning("the saved sign-in of %s is not accepted any more; signing in again", self.user)
        self._token = None
        await asyncio.to_thread(self._saved.forget, self.url)

    async def _by_password(self, http: aiohttp.ClientSession) -> Session:
        # Kept while nobody answers: a person types it once, however long that takes.
        if self._typed is None and self._password is not None:
            self._typed = await asyncio.to_thread(self._password, False)
        password = self._typed
        if not password:
            raise Unauthenticated(
                f"There is no password for {self.user}, and no saved sign-in at {self.url} that is valid.",
                "Give --password-file FILE or set GRIDX_PASSWORD.",
            )
        try:
            if getattr(self._password, "asks", False):
                session = await self._with_a_person(http, password)
            else:
                session = await self._register_or_log_in(http, password)
        except (Unreachable, Unavailable, TooMany):
            raise
        except BaseException:
            self._typed = None
            raise
        self._typed = None
        return session

    async def _with_a_person(self, http: aiohttp.ClientSession, password: str) -> Session:
        """Sign in with what was typed; a new name is registered when the same is typed twice.

        A slip of the finger would otherwise make an account that nobody can sign in to.
        """
        assert self._password is not None
        for _ in range(TRIES - 1):
            try:
                login = Login(username=self.user, password=password, label=self._label)
                return await self._ask(http, "POST", "/auth/login", login, Session)
            except Unauthenticated:
                again = await asyncio.to_thread(self._password, True)
            if again == password:
                return await self._register_or_log_in(http, password)
            if not again:
                break
            password = again
        raise Unauthenticated(
            f"{self.user} could not be signed in: no password was right, and none was typed twice.",
            "A new name is registered when its password is typed twice.",
        )

    async def _register_or_log_in(self, http: aiohttp.ClientSession, password: str) -> Session:
        closed: Forbidden | None = None
        unfit: InvalidField | None = None
        try:
            # A new name registers; of two workers that try at once, the second finds the name known.
            register = Register(username=self.user, password=password, label=self._label)
            return await self._ask(http, "POST", "/auth/register", register, Session)
        except Conflict:
            pass
        except Forbidden as error:
            closed = error
        except InvalidField as error:
            # A known user's old password may be shorter than a new one has to be.
            if error.details.get("field") != "password":
                raise
            unfit = error
        try:
            login = Login(username=self.user, password=password, label=self._label)
            return await self._ask(http, "POST", "/auth/login", login, Session)
        except Unauthenticated:
            if closed is not None:
                raise Forbidden(
                    f"{self.user} cannot sign in: {safetext.line(closed.message)} "
                    "If the user exists, the password is not right.",
                    f"Make the account first: gridx --coordinator {self.url} login --register --invite CODE "
                    f"{self.user}, or ask the administrator; then start this worker with its password.",
                ) from None
            if unfit is not None:
                raise Unauthenticated(
                    f"{self.user} cannot be registered: {safetext.line(unfit.message)} "
                    "If the user exists, the password is not right.",
                    "Give another password.",
                ) from None
            raise Unauthenticated(
                f"{self.user} is a known user here, and the password is not right.",
                "Give the right password, or another name with --user.",
            ) from None

    async def _ask(
        self,
        http: aiohttp.ClientSession,
        method: str,
        path: str,
        body: Wire | None,
        answer: type[T],
        *,
        token: str | None = None,
    ) -> T:
        headers = {"Content-Type": "application/json"}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        check = await self.trust.check(self.url)
        try:
            async with http.request(
                method,
                self.url + path,
                data=encode(body) if body is not None else None,
                headers=headers,
                ssl=check,
                allow_redirects=False,
            ) as response:
                data = await response.content.read(MAX_ANSWER_BYTES)
                status = response.status
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            self.trust.forget(self.url)
            raise unreachable(self.url, error) from None
        if status < 300:
            try:
                return decode(data, answer)
            except GridError:
                raise _stranger(self.url) from None
        raise error_of(self.url, data)


def unreachable(url: str, error: BaseException) -> Unreachable | Untrusted:
    """What went wrong on the way to the coordinator, in a sentence."""
    if isinstance(error, aiohttp.ServerFingerprintMismatch):
        return changed(url, error)
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return not_vouched_for(url, error)
    why = safetext.line(str(error) or type(error).__name__)
    if isinstance(error, TimeoutError):
        why = "no answer in time"
    elif isinstance(error, aiohttp.ClientConnectorError) and error.os_error.strerror:
        number = error.os_error.errno or 0
        # asyncio writes "Connect call failed" for every reason; a name that is not found has no such number.
        why = os.strerror(number) if number > 0 else safetext.line(error.os_error.strerror)
    return Unreachable(
        f"The coordinator {url} cannot be reached: {why}.",
        "Is it running, is the address right, and does its firewall let this machine in?",
    )


def error_of(url: str, data: bytes) -> GridError:
    """The error that an answer's body is; one of its own where what answers is no coordinator."""
    try:
        error = decode(data, ErrorReply).error
    except (BadRequest, InvalidField):
        return _stranger(url)
    return from_code(
        error.code,
        safetext.line(error.message, limit=500),
        safetext.line(error.hint, limit=500),
        {key: value for key, value in error.details.items() if key.isidentifier()},
    )


def _stranger(url: str) -> Unreachable:
    return Unreachable(
        f"What answers at {url} is no Grid-X coordinator.",
        "Check the address; users and sign-ins are on port 8081, unless it was changed.",
    )
