"""Accounts: who may sign in, with a password or a token, and who is out.

A token is 256 random bits; the database has only its SHA-256, so a copy of the file opens nothing. What was
checked once is remembered for a while (tokens by their digest, passwords by a keyed digest that dies with the
process), and forgotten the moment anything about the user or the token changes: all such changes pass here.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import logging
import secrets
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal, TypeVar

import msgspec

from gridx import safetext
from gridx.clock import Clock
from gridx.config import Settings
from gridx.errors import Conflict, Forbidden, GridError, InvalidField, NotFound, Unauthenticated
from gridx.messages import Microcredits, Register, Session, TokenInfo, User, UserName, UserUpdate
from gridx.services.coordinator import weak
from gridx.services.coordinator.grants import NOTE, SignUpGrants
from gridx.services.coordinator.guessing import GuessLimits
from gridx.services.coordinator.passwords import Passwords
from gridx.services.coordinator.sockets import CHANGED, Caller, Sockets
from gridx.services.coordinator.store import Store
from gridx.services.coordinator.store.records import TokenRecord, UserRecord

log = logging.getLogger("gridx.coordinator")
T = TypeVar("T")

TOKEN_PREFIX: Final = "gridx_"  # noqa: S105 - what tokens begin with
MAX_TOKEN_CHARS: Final = 100
MAX_REMEMBERED: Final = 10_000
PASSWORD_REMEMBERED_S: Final = 300.0
TOUCH_EVERY_S: Final = 15.0
"""Last uses are written, and sockets of expired tokens closed, this often."""
LOCAL_LABEL: Final = "this machine"
NO_PASSWORD: Final = "!"  # noqa: S105 - no hash
"""Stored in place of a hash: no password matches."""

INVITES: Final = "\0invites"
"""In place of an account's name, which cannot be this, for guesses at invites."""
MAX_TOKENS: Final = 256
"""Sign-ins of one user; with a further one, the one that was not used for longest ends."""

WRONG: Final = "The user name or the password is not right."
WRONG_HINT: Final = (
    "Check both. A new user: gridx login --register NAME. An administrator can set a new password:"
    " gridx admin password NAME."
)


@dataclass(frozen=True, slots=True)
class _Known:
    """A password that was right a moment ago."""

    user: UserRecord
    until: float


class Accounts:
    """Users and their ways in.

    Args:
        store: where users and tokens are.
        sockets: what is closed when somebody is out.
        settings: ``auth`` and the sign-up grant.
    """

    def __init__(self, store: Store, sockets: Sockets, settings: Settings, clock: Clock) -> None:
        self._store = store
        self._sockets = sockets
        self._settings = settings.auth
        self._role = settings.role
        self._grants = SignUpGrants(store, settings.credits, clock)
        self._clock = clock
        self._passwords = Passwords(
            threads=settings.auth.hash_threads, memory_mb=settings.auth.hash_memory_mb
        )
        self._limits = GuessLimits(
            failures=settings.auth.login_failures, window_s=settings.auth.login_window_s, clock=clock
        )
        self._tokens: OrderedDict[bytes, tuple[TokenRecord, UserRecord]] = OrderedDict()
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        self._checks: dict[tuple[bytes, str], asyncio.Task[Caller]] = {}
        self._secret = secrets.token_bytes(32)
        self._changes = 0
        self._used: dict[int, datetime] = {}

    # -- start and end ------------------------------------------------------------------------------------

    async def first_admin(self) -> tuple[str, str] | None:
        """Make the admin when there is none; its name and password, to be shown this once."""
        if any(user.role == "admin" for user in await self._store.users()):
            return None
        name = user_name(self._settings.admin_user)
        password = secrets.token_urlsafe(12)
        stored = await self._passwords.hash(password.encode())
        await self._store.create_user(name, stored, role="admin")
        return name, password

    async def run(self) -> None:
        """Write last uses and close what has expired, for ever."""
        while True:
            await asyncio.sleep(TOUCH_EVERY_S)
            self._sockets.close_expired(self._clock.now())
            await self.write_uses()

    async def write_uses(self) -> None:
        """Write when tokens were last used, all at once."""
        used, self._used = self._used, {}
        if not used:
            return
        try:
            await self._store.touch_tokens(used)
        except GridError as error:
            # It is for people to look at; nothing depends on it. The next round tries again.
            self._used = used | self._used
            log.warning("last uses of tokens could not be written: %s", error)

    def close(self) -> None:
        """End the hashing threads."""
        self._passwords.close()

    # -- ways in ------------------------------------------------------------------------------------------

    async def bearer(self, token: str) -> Caller:
        """Who a token belongs to.

        Raises:
            Unauthenticated: unknown, revoked or expired, or its user is disabled.
        """
        digest = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
        found = self._tokens.get(digest)
        while found is None and len(token) <= MAX_TOKEN_CHARS:
            changes = self._changes
            found = await self._store.token_by_digest(digest)
            if found is None:
                break
            if changes != self._changes:
                found = None
                continue
            _remember(self._tokens, digest, found)
        if found is None:
            raise Unauthenticated(
                "This token is not known: it was revoked, or it is not of this grid.",
                "Sign in again: gridx login NAME.",
            )
        record, user = found
        now = self._clock.now()
        if record.expires_at <= now:
            raise Unauthenticated("This token has expired.", "Sign in again: gridx login NAME.")
        _refuse_disabled(user)
        self._used[record.id] = now
        return Caller(user, record, self._sockets.moment(user.id))

    async def password(self, username: str, password: bytes, address: str) -> Caller:
        """Who signs in with a name and a password, from an address.

        Raises:
            Unauthenticated: the name is unknown, the password wrong (the answer is the same), or the
                account is disabled.
            TooMany: too many failed from this address, or the line of checks is full.
        """
        key = self._key(username, password)
        known = self._known.get(key)
        if known is not None and known.until > self._clock.monotonic():
            return Caller(known.user, moment=self._sockets.moment(known.user.id))
        # The same question asked many times at once, as by parallel requests, is answered by one hash.
        check = self._checks.get((key, address))
        if check is None:
            check = asyncio.create_task(self._check(key, username, password, address))
            self._checks[key, address] = check
            check.add_done_callback(lambda done: self._checked((key, address), done))
        return await asyncio.shield(check)

    def _checked(self, which: tuple[bytes, str], done: asyncio.Task[Caller]) -> None:
        del self._checks[which]
        if not done.cancelled():
            done.exception()  # looked at, also when every caller has gone

    async def _check(self, key: bytes, username: str, password: bytes, address: str) -> Caller:
        guess = self._limits.begin(username, address)
        try:
            user = await self._store.user_by_name(username)
            stored = user.password_hash if user else None
            right = await self._passwords.verify(password, stored)
            # A hash takes long: what holds is how the user is now.
            user = await self._user_now(username)
        except Exception:
            guess.void()
            raise
        if user is None or not right or user.password_hash != stored:
            log.info("sign-in as %s from %s failed", safetext.line(username, limit=64), address)
            raise Unauthenticated(WRONG, WRONG_HINT)
        guess.right()
        _refuse_disabled(user)
        _remember(self._known, key, _Known(user, self._clock.monotonic() + PASSWORD_REMEMBERED_S))
        return Caller(user, moment=self._sockets.moment(user.id))

    async def _user_now(self, username: str) -> UserRecord | None:
        """A user as no change that has been made meanwhile contradicts."""
        while True:
            changes = self._changes
            user = await self._store.user_by_name(username)
            if changes == self._changes:
                return user

    def _key(self, username: str, password: bytes) -> bytes:
        name = username.casefold().encode("utf-8", "surrogatepass")
        return hmac.digest(self._secret, len(name).to_bytes(4, "big") + name + password, "sha256")

    # -- sessions -----------------------------------------------------------------------------------------

    async def register(self, body: Register, address: str) -> Session:
        """Make a user by their own wish, with the sign-up grant if there is one left, and sign them in.

        Raises:
            Forbidden: registration is closed, or the invite is not one.
            Conflict: the name is taken.
            InvalidField: the password would be guessed soon.
        """
        mode = self._settings.registration
        if mode == "closed":
            raise Forbidden(
                "Nobody can register here by themselves.",
                "An administrator can make the account: gridx admin create NAME.",
            )
        if mode == "invite":
            self._check_invite(body.invite, address)
        stored = await self._hash_of_new(body)
        async with self._grants.gift(address) as gift:
            user = await self._make(body, stored, gift.amount)
            gift.given = True
        if gift.notice:
            log.warning("%s from %s got no sign-up grant: a cap is reached", user.username, address)
        return msgspec.structs.replace(await self.open_session(user, body.label), notice=gift.notice)

    def _check_invite(self, invite: str, address: str) -> None:
        """Raises Forbidden for what is no invite, and TooMany for who guesses at them."""
        guess = self._limits.begin(INVITES, address)
        given = invite.encode("utf-8", "surrogatepass")
        # All are compared, so that the time says nothing about any.
        fits = [hmac.compare_digest(given, known.encode()) for known in self._settings.invites]
        if not any(fits):
            raise Forbidden(
                "Registering here needs an invite, and none that is valid was given.",
                "Ask whoever runs the grid for a code, then: gridx login --register --invite CODE NAME.",
            )
        guess.right()

    async def create(self, body: Register) -> UserRecord:
        """Make a user by an administrator's wish, with the sign-up grant. Raises as :meth:`register`."""
        return await self._make(body, await self._hash_of_new(body), self._grants.amount)

    async def _hash_of_new(self, body: Register) -> str:
        if await self._store.user_by_name(body.username) is not None:
            raise _taken(body.username)
        weak.check(body.username, body.password)
        return await self._passwords.hash(body.password.encode())

    async def _make(self, body: Register, stored: str, grant: Microcredits) -> UserRecord:
        user = await self._store.create_user(body.username, stored, grant=grant, note=NOTE)
        log.info("user %s was made", user.username)
        return user

    async def open_session(self, user: UserRecord, label: str) -> Session:
        """A new token for a user who has proved who they are."""
        tokens = sorted(await self._store.tokens_of(user.id), key=self._last_use)
        for unused in tokens[: max(0, len(tokens) + 1 - MAX_TOKENS)]:
            with contextlib.suppress(NotFound):
                await self.revoke(user.id, unused.id)
        token = TOKEN_PREFIX + secrets.token_urlsafe(32)
        expires_at = self._clock.now() + timedelta(days=self._settings.token_days)
        record = await self._store.create_token(
            user.id, hashlib.sha256(token.encode()).digest(), label=label, expires_at=expires_at
        )
        return Session(token=token, expires_at=record.expires_at, user=public(user))

    def _last_use(self, token: TokenRecord) -> datetime:
        return self._used.get(token.id) or token.last_used_at or token.created_at

    async def tokens(self, caller: Caller) -> list[TokenInfo]:
        """The caller's tokens that are not revoked."""
        return [
            TokenInfo(
                id=token.id,
                label=token.label,
                created_at=token.created_at,
                expires_at=token.expires_at,
                last_used_at=self._used.get(token.id, token.last_used_at),
                current=caller.token is not None and caller.token.id == token.id,
            )
            for token in await self._store.tokens_of(caller.user.id)
        ]

    async def revoke(self, user_id: int, token_id: int) -> None:
        """End a token; what was opened with it is closed at once.

        Raises:
            NotFound: the user has no such token.
        """
        revoked = await self._store.revoke_token(user_id, token_id)
        self._forget(user_id)
        if not revoked:
            raise NotFound("There is no such token.", "GET /auth/tokens lists them.")
        self._sockets.close_token(user_id, token_id)

    async def local_session(self, username: str) -> str:
        """A token for a user of this machine, who needs no password; a new name becomes a user.

        Raises:
            Unauthenticated: the account is disabled.
            InvalidField: the name cannot be a user's.
        """
        name = user_name(username)
        user = await self._store.user_by_name(name)
        if user is None:
            # Whoever starts a grid on their own machine may do everything in it.
            role: Literal["user", "admin"] = "admin" if self._role == "standalone" else "user"
            with contextlib.suppress(Conflict):
                user = await self._store.create_user(
                    name, NO_PASSWORD, role=role, grant=self._grants.amount, note=NOTE
                )
            user = user or await self._found(name)
        _refuse_disabled(user)
        for token in await self._store.tokens_of(user.id):
            if token.label == LOCAL_LABEL:
                await self.revoke(user.id, token.id)
        return (await self.open_session(user, LOCAL_LABEL)).token

    # -- users --------------------------------------------------------------------------------------------

    async def update(self, caller: Caller, name: str, change: UserUpdate) -> UserRecord:
        """Change a user; a new password or disabling ends all their sessions at once.

        Raises:
            NotFound: no such user, or the caller may not know.
            Forbidden: the caller is no admin and it is more than their own password.
            Conflict: nobody would be left to administer.
        """
        user = await self.visible(caller, name)
        if not caller.admin and (change.role is not None or change.disabled is not None):
            raise Forbidden("Only an administrator may change this of a user.", "Ask one.")
        if user.role == "admin" and not user.disabled and (change.role == "user" or change.disabled):
            others = [u for u in await self._store.users() if u.role == "admin" and not u.disabled]
            if len(others) < 2:
                raise Conflict(
                    f"{user.username} is the only administrator.", "Make another one administrator first."
                )
        stored = None
        if change.password is not None:
            weak.check(user.username, change.password)
            stored = await self._passwords.hash(change.password.encode())
        updated = await self._store.update_user(
            user.id, role=change.role, disabled=change.disabled, password_hash=stored
        )
        self._forget(user.id)
        if updated.disabled or stored is not None:
            self._sockets.close_user(user.id)
        elif updated.role != user.role:
            self._sockets.close_user(user.id, CHANGED)
        return updated

    async def visible(self, caller: Caller, name: str) -> UserRecord:
        """A user by name: the caller, or anybody for an admin. Others are NotFound, as if missing."""
        if not caller.admin and name.casefold() != caller.user.username.casefold():
            shown = safetext.line(name, limit=64)
            raise NotFound(
                f"There is no user {shown}, or their account is not yours to see.",
                f"Your own name is {caller.user.username}.",
            )
        return await self._found(name)

    async def _found(self, name: str) -> UserRecord:
        user = await self._store.user_by_name(name)
        if user is None:
            raise no_user(name)
        return user

    def _forget(self, user_id: int) -> None:
        """Forget all that was remembered of a user, and what is being looked up right now."""
        self._changes += 1
        for digest in [d for d, (_, user) in self._tokens.items() if user.id == user_id]:
            del self._tokens[digest]
        for key in [k for k, known in self._known.items() if known.user.id == user_id]:
            del self._known[key]


def _remember(memory: OrderedDict[bytes, T], key: bytes, value: T) -> None:
    memory[key] = value
    while len(memory) > MAX_REMEMBERED:
        memory.popitem(last=False)


def _refuse_disabled(user: UserRecord) -> None:
    if user.disabled:
        raise Unauthenticated("This account is disabled.", "An administrator can enable it again.")


def _taken(name: str) -> Conflict:
    return Conflict(f"The name {name} is taken.", "Sign in with its password, or choose another name.")


def user_name(text: str) -> str:
    """A text as a user's name. Raises InvalidField when it cannot be one."""
    try:
        return msgspec.convert(text, UserName)
    except msgspec.ValidationError:
        raise InvalidField(
            f"{safetext.line(text, limit=80)!r} cannot be a user name.",
            "It must be 1 to 64 letters, digits and _ . @ -, beginning with a letter or a digit.",
            field="username",
        ) from None


def no_user(name: str) -> NotFound:
    """The one answer about a user who is not there, or not for the caller to see."""
    return NotFound(f"There is no user {safetext.line(name, limit=64)}.", "Check the name.")


def public(user: UserRecord) -> User:
    """What others may see of a user."""
    return User(
        id=user.id,
        username=user.username,
        role=user.role,
        created_at=user.created_at,
        disabled=user.disabled,
    )
