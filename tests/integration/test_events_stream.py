"""``/events``: signed in before the upgrade, own things only, closed when one is out."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import aiohttp
import pytest

from gridx import messages
from gridx.messages import CreditsChanged, JobChanged, OutputArrived, Ready, Rejected, WorkerChanged


class Events:
    """An open event stream."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.seen: list = []

    async def next(self):
        event = messages.decode_event(await self.socket.receive_str(timeout=30))
        self.seen.append(event)
        return event

    async def until(self, kind, condition=lambda event: True):
        while True:
            event = await self.next()
            if isinstance(event, kind) and condition(event):
                return event

    async def closed(self) -> int:
        """Wait for the close; its code."""
        while True:
            message = await self.socket.receive(timeout=30)
            if message.type is not aiohttp.WSMsgType.TEXT:
                return self.socket.close_code or 0


def watch(job: int) -> str:
    return messages.encode(messages.Watch(jobs=[job])).decode()


@asynccontextmanager
async def events(grid, person, **headers):
    async with grid.session.ws_connect(grid.url + "/events", headers={**person.headers, **headers}) as socket:
        stream = Events(socket)
        ready = await stream.next()
        assert isinstance(ready, Ready)
        assert ready.user.username == person.name
        yield stream


async def play(grid, person) -> None:
    """A job of a person's own, run on their own machine, with output."""
    worker = await grid.worker(person)
    given = await worker.assignment()
    await worker.start(given.attempt_id)
    await worker.write(given.attempt_id, b"hello")
    await worker.finish(given.attempt_id, stdout_bytes=5)


async def test_a_reader_sees_its_job_live_from_submit_to_end(grid):
    ann = await grid.person("ann")
    async with events(grid, ann) as stream:
        job = await ann.submit()
        assert (await stream.until(JobChanged)).job.id == job
        await stream.socket.send_str(watch(job))
        await stream.until(CreditsChanged, lambda event: event.balance.held > 0)
        await play(grid, ann)
        await stream.until(JobChanged, lambda event: event.job.state.ended)
        output = [event for event in stream.seen if isinstance(event, OutputArrived)]
        assert b"".join(event.data for event in output) == b"hello"
        assert {(event.job_id, event.attempt, event.offset) for event in output} == {(job, 1, 0)}
        await stream.until(CreditsChanged, lambda event: event.balance.held == 0)
        assert any(isinstance(event, WorkerChanged) for event in stream.seen)


async def test_others_see_nothing_of_it_and_an_admin_everything(grid):
    ann, bob = await grid.person("ann"), await grid.person("bob")
    async with events(grid, bob) as others, events(grid, grid.admin) as all_:
        job = await ann.submit()
        for stream in (others, all_):
            await stream.socket.send_str(watch(job))
        await all_.until(JobChanged)
        await play(grid, ann)
        await all_.until(JobChanged, lambda event: event.job.state.ended)
        await all_.until(CreditsChanged, lambda event: event.balance.user == "ann" and not event.balance.held)
        # What comes after Ann's job in Bob's stream shows that nothing of it came before.
        own = await bob.submit()
        first = await others.until(JobChanged)
        assert first.job.id == own
        assert not [event for event in others.seen if isinstance(event, OutputArrived)]
        assert all(event.balance.user == "bob" for event in others.seen if isinstance(event, CreditsChanged))


async def test_without_a_sign_in_there_is_no_upgrade(grid):
    for url in (grid.url + "/events", grid.coordinator.ws_url):
        for headers in ({}, {"Authorization": "Bearer gridx_nonsense"}):
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await grid.session.ws_connect(url, headers=headers)
            assert refused.value.status == 401


@pytest.mark.parametrize(("origin", "status"), [("http://evil.example", 403), ("null", 403)])
async def test_a_page_of_another_site_gets_no_socket(grid, origin, status):
    ann = await grid.person("ann")
    for url in (grid.url + "/events", grid.coordinator.ws_url):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await grid.session.ws_connect(url, headers={**ann.headers, "Origin": origin})
        assert refused.value.status == status
    async with events(grid, ann, Origin=grid.url):
        pass


async def test_without_an_upgrade_it_is_a_bad_request(grid):
    ann = await grid.person("ann")
    answer = await ann.get("/events")
    assert answer.status == 400
    assert answer.error


async def test_signing_out_closes_the_sockets_of_that_token_alone(grid):
    ann = await grid.person("ann")
    session = await grid.stranger.post("/auth/login", {"username": "ann", "password": "correct horse"})
    other = type(ann)(ann.url, ann.session, "ann", session.json["token"])
    async with events(grid, ann) as stays, events(grid, other) as goes:
        assert (await other.post("/auth/logout")).status == 204
        assert await goes.closed() == aiohttp.WSCloseCode.POLICY_VIOLATION
        await ann.submit()
        await stays.until(JobChanged)


@pytest.mark.parametrize("change", [{"disabled": True}, {"password": "battery staple"}])
async def test_who_is_out_has_no_socket_left(grid, change):
    ann = await grid.person("ann")
    worker = await grid.worker(ann)
    async with events(grid, ann) as stream:
        assert (await grid.admin.ask("PATCH", "/users/ann", change)).status == 200
        assert await stream.closed() == aiohttp.WSCloseCode.POLICY_VIOLATION
        while (await worker.socket.receive(timeout=30)).type is aiohttp.WSMsgType.TEXT:
            pass
        assert worker.socket.closed


async def test_a_new_role_asks_to_connect_again(grid):
    ann = await grid.person("ann")
    async with events(grid, ann) as stream:
        assert (await grid.admin.ask("PATCH", "/users/ann", {"role": "admin"})).status == 200
        assert await stream.closed() == aiohttp.WSCloseCode.SERVICE_RESTART
    async with events(grid, ann):
        pass


@pytest.mark.parametrize(
    "message",
    ["nonsense", "[]", "{}", '{"type":"dance"}', '{"type":"watch"}', '{"type":"watch","jobs":[0]}', b"\x00"],
    ids=str,
)
async def test_mistakes_are_told_and_a_few_are_enough(grid, message):
    ann = await grid.person("ann")
    async with events(grid, ann) as stream:
        send = stream.socket.send_bytes if isinstance(message, bytes) else stream.socket.send_str
        await send(message)
        told = await stream.until(Rejected)
        assert told.message
        await send(message)
        await send(message)
        assert await stream.closed() == aiohttp.WSCloseCode.UNSUPPORTED_DATA


async def test_a_message_over_the_cap_closes_the_socket(grid):
    ann = await grid.person("ann")
    async with events(grid, ann) as stream:
        await stream.socket.send_str('{"type":"watch","jobs":[' + "1," * 100_000 + "1]}")
        assert await stream.closed() == aiohttp.WSCloseCode.MESSAGE_TOO_BIG


async def test_a_flood_of_messages_closes_the_socket(grid):
    ann = await grid.person("ann")
    async with events(grid, ann) as stream:
        for _ in range(300):
            try:
                await stream.socket.send_str('{"type":"watch","jobs":[]}')
            except ConnectionError:
                break
        assert await stream.closed() == aiohttp.WSCloseCode.POLICY_VIOLATION


async def test_a_reader_that_stops_reading_holds_up_nobody(grid):
    ann, bob = await grid.person("ann"), await grid.person("bob")
    async with events(grid, ann), events(grid, ann) as quick:
        for number in range(50):
            await ann.submit(name=f"job {number} " + "x" * 150)
        await quick.until(JobChanged, lambda event: event.job.name.startswith("job 49 "))
        assert (await bob.get("/health")).status == 200


async def test_sockets_are_closed_when_the_coordinator_stops(grid):
    ann = await grid.person("ann")
    async with events(grid, ann) as stream:
        stopping = asyncio.create_task(grid.coordinator.stop())
        assert await stream.closed() == aiohttp.WSCloseCode.GOING_AWAY
        await stopping
