"""The one way to the grid: the HTTP API and the event stream, typed and async.

Dashboard, shell commands and programs of users all stand on this. Every error of the coordinator arrives as
the :class:`~gridx.errors.GridError` that was raised there, and what the network does arrives as
:class:`~gridx.errors.Unreachable`. A submit carries an ``Idempotency-Key``, so that sending it again after a
broken connection cannot make a second job.
"""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import quote

from gridx.client_arrays import ClientArrays
from gridx.client_events import EventStream, open_events
from gridx.client_files import ClientFiles
from gridx.client_follow import FollowedOutput, Patience, follow_attempts, stored_output
from gridx.client_wire import Wire
from gridx.errors import InvalidField, Unreachable
from gridx.messages import (
    AuditReport,
    Balance,
    EntryPage,
    Grant,
    Health,
    Job,
    JobBatch,
    JobPage,
    JobSpec,
    JobState,
    Login,
    Microcredits,
    PauseOrder,
    Quote,
    Receipt,
    Register,
    Session,
    Stream,
    TokenInfo,
    Transfer,
    User,
    UserPage,
    UserUpdate,
    Worker,
    WorkerPage,
)

LONG_POLL_S: Final = 30
"""How long one request of ``wait`` may lie at the coordinator."""
AUDIT_S: Final = 600.0
"""A recomputation of everything may take this long."""


class Client(ClientFiles, ClientArrays):
    """A connection to one coordinator, as one user.

    Args:
        url: ``http://HOST:PORT`` or ``https://HOST:PORT`` of the coordinator. ``HOST`` alone means port 8081,
            and the first request finds out which of both it is.
        token: of a sign-in; without one only ``health``, ``login`` and ``register`` are answered.
        timeout_s: for one request, long polls and followed output excepted.
        certificate: its fingerprint, where it is known from elsewhere than ``known_coordinators``.

    Every method raises :class:`~gridx.errors.GridError`: what the coordinator said, or ``Unreachable``.
    """

    def __init__(
        self, url: str, token: str | None = None, *, timeout_s: float = 30.0, certificate: str = ""
    ) -> None:
        self._wire = Wire(url, token, timeout_s, certificate)
        self._known: tuple[str | None, User] | None = None

    @property
    def url(self) -> str:
        """The coordinator's address, normalised."""
        return self._wire.url

    @property
    def token(self) -> str | None:
        """Sent with every request while it is set."""
        return self._wire.token

    @token.setter
    def token(self, token: str | None) -> None:
        self._wire.token = token

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections; the client can be used again and opens new ones then."""
        await self._wire.close()

    async def secure(self) -> str:
        """Settle whether and how the connection is encrypted, before anything is sent.

        Gives the certificate's fingerprint where it was met for the first time just now, for a person to
        compare; else "".
        """
        await self._wire.secure()
        return self._wire.met()

    # -- accounts ----------------------------------------------------------------------------------------

    async def health(self) -> Health:
        """Whether the coordinator serves; needs no sign-in."""
        return await self._wire.get("/health", Health)

    async def register(self, username: str, password: str, *, invite: str = "", label: str = "") -> Session:
        """Make an account and sign in. Raises Conflict where the name is taken."""
        body = Register(username=username, password=password, invite=invite, label=label)
        return await self._wire.send("POST", "/auth/register", Session, body, safe=False)

    async def login(self, username: str, password: str, *, label: str = "") -> Session:
        """Exchange a password for a token; set it as ``token``, or make a new client with it."""
        body = Login(username=username, password=password, label=label)
        return await self._wire.send("POST", "/auth/login", Session, body)

    async def logout(self) -> None:
        """Revoke the token of this client."""
        await self._wire.tell("POST", "/auth/logout")

    async def me(self) -> User:
        """Whose token this is."""
        user = await self._wire.get("/auth/me", User)
        self._known = (self.token, user)
        return user

    async def tokens(self) -> list[TokenInfo]:
        """One's sign-ins, without their secrets."""
        return await self._wire.get("/auth/tokens", list[TokenInfo])

    async def revoke_token(self, token_id: int) -> None:
        """End one of one's sign-ins."""
        await self._wire.tell("DELETE", f"/auth/tokens/{token_id}")

    # -- jobs --------------------------------------------------------------------------------------------

    async def submit(self, spec: JobSpec, *, idempotency_key: str | None = None) -> Job:
        """Submit a job, or with ``spec.array`` many.

        The same key with the same spec gives the same job, however often it is sent.
        """
        return await self._wire.send("POST", "/jobs", Job, spec, key=idempotency_key or _key())

    async def submit_batch(
        self, specs: Sequence[JobSpec], *, idempotency_key: str | None = None
    ) -> list[Job]:
        """Submit several jobs: all are accepted, or none."""
        body = JobBatch(jobs=list(specs))
        page = await self._wire.send("POST", "/jobs/batch", JobPage, body, key=idempotency_key or _key())
        return page.jobs

    async def quote(self, spec: JobSpec) -> Quote:
        """What a job would cost, and whether it could start at once."""
        return await self._wire.send("POST", "/quote", Quote, spec)

    async def job(self, job_id: int) -> Job:
        """One job with its spec, its attempts and why it waits."""
        return await self._wire.get(f"/jobs/{job_id}", Job)

    async def wait(self, job_id: int, timeout_s: float | None = None) -> Job:
        """Wait for the job's end, over restarts of the coordinator; after ``timeout_s`` as it is then."""
        loop = asyncio.get_running_loop()
        end = None if timeout_s is None else loop.time() + timeout_s
        patience = Patience()
        while True:
            left = LONG_POLL_S if end is None else min(LONG_POLL_S, end - loop.time())
            poll_s = max(0, int(left))
            try:
                job = await self._wire.get(
                    f"/jobs/{job_id}", Job, {"wait_s": poll_s}, timeout_s=poll_s + self._wire.timeout_s
                )
            except Unreachable as error:
                await patience.another_try(error)
                continue
            patience = Patience()
            if job.state.ended or (end is not None and loop.time() >= end):
                return job
            if poll_s == 0:
                await asyncio.sleep(0.1)

    async def jobs(
        self,
        *,
        states: Collection[JobState] = (),
        text: str = "",
        owner: str | None = None,
        limit: int = 50,
        before: int | None = None,
    ) -> JobPage:
        """A page of jobs, newest first: one's own; for an admin all, or those of ``owner``.

        An array is one job here; :meth:`elements` lists what it is made of.
        """
        query = {"state": ",".join(states), "q": text, "owner": owner, "limit": limit, "before": before}
        return await self._wire.get("/jobs", JobPage, query)

    async def cancel(self, job_id: int) -> Job:
        """Ask for the job's end; one that runs is ``cancelling`` until its sandbox is gone."""
        return await self._wire.send("POST", f"/jobs/{job_id}/cancel", Job)

    async def retry(self, job_id: int) -> Job:
        """Submit an ended job anew, as a job of its own; of an array what did not succeed."""
        return await self._wire.send("POST", f"/jobs/{job_id}/retry", Job, key=_key())

    async def receipt(self, job_id: int) -> Receipt:
        """What was held, charged and released, by attempt."""
        return await self._wire.get(f"/jobs/{job_id}/receipt", Receipt)

    async def output(
        self, job_id: int, stream: Stream = "stdout", *, offset: int = 0, attempt: int | None = None
    ) -> bytes:
        """Everything stored of a stream from ``offset``; of the last attempt unless one is named."""
        return await stored_output(self._wire, job_id, stream, offset, attempt)

    async def follow(
        self, job_id: int, stream: Stream = "stdout", *, offset: int = 0
    ) -> AsyncIterator[bytes]:
        """The bytes of a stream as they come, until the job has ended, over broken connections."""
        async for part in self.follow_attempts(job_id, stream, offset=offset):
            yield part.data

    async def follow_attempts(
        self, job_id: int, stream: Stream = "stdout", *, offset: int = 0, attempt: int | None = None
    ) -> AsyncIterator[FollowedOutput]:
        """As :meth:`follow`, with the attempt that wrote the bytes, from the newest or ``attempt`` on."""
        async for part in follow_attempts(self, self._wire, job_id, stream, offset, attempt):
            yield part

    # -- machines ----------------------------------------------------------------------------------------

    async def workers(self) -> list[Worker]:
        """The fleet."""
        return (await self._wire.get("/workers", WorkerPage)).workers

    async def worker(self, worker_id: int) -> Worker:
        """One worker."""
        return await self._wire.get(f"/workers/{worker_id}", Worker)

    async def pause_worker(self, worker_id: int, *, give_back: bool = False) -> Worker:
        """Give the worker nothing new until it is resumed; its owner and admins may.

        Args:
            give_back: what runs there is killed and runs elsewhere; unpaid, and nobody's failure.
        """
        order = PauseOrder(give_back=give_back)
        return await self._wire.send("POST", f"/workers/{worker_id}/pause", Worker, order)

    async def resume_worker(self, worker_id: int) -> Worker:
        """Give a paused worker jobs again."""
        return await self._wire.send("POST", f"/workers/{worker_id}/resume", Worker)

    async def drain_worker(self, worker_id: int) -> Worker:
        """Let the worker finish what it runs, and leave."""
        return await self._wire.send("POST", f"/workers/{worker_id}/drain", Worker)

    # -- credits -----------------------------------------------------------------------------------------

    async def balance(self, user: str | None = None) -> Balance:
        """What one has, in microcredits; of another user for admins."""
        return await self._wire.get(f"/credits/{await self._name(user)}", Balance)

    async def entries(
        self, user: str | None = None, *, limit: int = 50, before: int | None = None
    ) -> EntryPage:
        """A page of one's account, newest first."""
        query = {"limit": limit, "before": before}
        return await self._wire.get(f"/credits/{await self._name(user)}/entries", EntryPage, query)

    async def transfer(self, to: str, amount: Microcredits, note: str = "") -> Balance:
        """Give credits to another user; one's own balance after it."""
        body = Transfer(to=to, amount=amount, note=note)
        return await self._wire.send("POST", "/credits/transfer", Balance, body, key=_key())

    async def grant(self, to: str, amount: Microcredits, note: str = "") -> Balance:
        """Make credits for a user, as an admin; that user's balance after it."""
        body = Grant(to=to, amount=amount, note=note)
        return await self._wire.send("POST", "/credits/grant", Balance, body, key=_key())

    # -- administration ----------------------------------------------------------------------------------

    async def users(self) -> list[User]:
        """All users, for admins."""
        return (await self._wire.get("/users", UserPage)).users

    async def create_user(self, username: str, password: str) -> User:
        """Make an account for somebody, as an admin; also where registration is closed."""
        body = Register(username=username, password=password)
        return await self._wire.send("POST", "/users", User, body, safe=False)

    async def update_user(self, username: str, update: UserUpdate) -> User:
        """Change a user: role, password, shut out or let in. A new password ends that user's sign-ins."""
        return await self._wire.send("PATCH", f"/users/{quote(username, safe='')}", User, update)

    async def audit(self) -> AuditReport:
        """Recompute the whole ledger, as an admin."""
        return await self._wire.get("/admin/audit", AuditReport, timeout_s=AUDIT_S)

    async def backup(self, path: Path) -> int:
        """Save a copy of the database, taken while it runs, to a new file of mode 0600; its bytes.

        Raises:
            InvalidField: the file exists already, or cannot be written.
        """
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        size = 0
        try:
            file = os.fdopen(await asyncio.to_thread(os.open, path, flags, 0o600), "wb")
            try:
                with file:
                    async with self._wire.stream("/admin/backup", {}) as response:
                        async for data in response.content.iter_chunked(1 << 18):
                            await asyncio.to_thread(file.write, data)
                            size += len(data)
            except BaseException:
                await asyncio.to_thread(os.unlink, path)
                raise
        except OSError as error:
            raise InvalidField(
                f"{path} cannot be written: {error.strerror}.", "Name a new file.", field="path"
            ) from None
        return size

    # -- events ------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def events(
        self, *, watch: Callable[[], Collection[int]] | None = None
    ) -> AsyncIterator[EventStream]:
        """What changes from now on: ``async with client.events() as events: async for event in events``.

        Args:
            watch: asked once, at the start, for the jobs whose output is wanted too;
                :meth:`EventStream.watch` changes that later.

        Raises:
            Unreachable: nothing answers, or the stream broke; the caller reconnects and reads what it missed.
        """
        async with open_events(self._wire) as stream:
            if watch is not None:
                await stream.watch(watch())
            yield stream

    async def _name(self, user: str | None) -> str:
        if user is None:
            known = self._known
            me = known[1] if known is not None and known[0] == self.token else await self.me()
            user = me.username
        return quote(user, safe="")


def _key() -> str:
    return uuid.uuid4().hex
