"""The client: what the coordinator says arrives as it was said, and a broken line is not the end."""

from __future__ import annotations

import asyncio
import json
import socket
from datetime import UTC, datetime

import pytest
from aiohttp import web

from gridx import client_wire, messages
from gridx.client import Client
from gridx.errors import (
    ConfigError,
    Forbidden,
    InsufficientCredits,
    InvalidField,
    NotFound,
    ProtocolMismatch,
    Unauthenticated,
    Unreachable,
)
from gridx.messages import Attempt, AttemptState, Job, JobSpec, JobState, Ready, User, Watch

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def job(**fields: object) -> Job:
    base = {
        "id": 1,
        "name": "n",
        "owner": "ann",
        "state": JobState.RUNNING,
        "language": "python",
        "cpus": 1.0,
        "memory_mb": 64,
        "gpus": 0,
        "timeout_s": 9,
        "priority": 0,
        "max_attempts": 3,
        "created_at": NOW,
    }
    return Job(**{**base, **fields})


def attempt(number: int, state: AttemptState) -> Attempt:
    over = state not in (AttemptState.ASSIGNED, AttemptState.RUNNING)
    return Attempt(
        id=number,
        number=number,
        state=state,
        worker_id=1,
        worker_name="w",
        worker_owner="bob",
        assigned_at=NOW,
        ended_at=NOW if over else None,
    )


def reply(value: object, status: int = 200) -> web.Response:
    return web.Response(body=messages.encode(value), status=status, content_type="application/json")


@pytest.fixture
async def serve(monkeypatch):
    """Serves handlers by path at a real port; the clients' pauses are short."""
    monkeypatch.setattr(client_wire, "RETRY_DELAYS_S", (0.001, 0.001, 0.001))
    runners, clients = [], []

    async def start(*routes: tuple[str, str, object]) -> Client:
        app = web.Application()
        for method, path, handler in routes:
            app.router.add_route(method, path, handler)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        runners.append(runner)
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        clients.append(Client(f"http://127.0.0.1:{runner.addresses[0][1]}", "token"))
        return clients[-1]

    yield start
    for client in clients:
        await client.close()
    for runner in runners:
        await runner.cleanup()


async def test_an_error_arrives_as_it_was_raised(serve):
    async def refuse(request):
        error = {
            "code": "insufficient_credits",
            "message": "No.",
            "hint": "Earn.",
            "details": {"shortfall": 5},
        }
        return web.json_response({"error": error}, status=402)

    client = await serve(("POST", "/jobs", refuse))
    with pytest.raises(InsufficientCredits) as caught:
        await client.submit(JobSpec(code=""))
    assert (caught.value.message, caught.value.hint) == ("No.", "Earn.")
    assert caught.value.details == {"shortfall": 5}


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (401, "<html>", Unauthenticated),
        (403, "", Forbidden),
        (404, "[]", NotFound),
        (302, "", Unreachable),
        (500, "{}", Unreachable),
    ],
)
async def test_a_server_that_is_no_coordinator_is_told_from_one(serve, status, body, error):
    async def answer(request):
        return web.Response(status=status, text=body, headers={"Location": "/elsewhere"})

    client = await serve(("GET", "/health", answer))
    with pytest.raises(error, match="not as a coordinator"):
        await client.health()


async def test_an_answer_of_another_version_says_so(serve):
    async def answer(request):
        return web.json_response({"status": "ok", "version": "9", "protocol": 9, "novelty": 1})

    client = await serve(("GET", "/health", answer))
    with pytest.raises(ProtocolMismatch, match="novelty"):
        await client.health()


async def test_nothing_that_answers_is_out_of_reach_and_says_where():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        async with Client(url) as client:
            with pytest.raises(Unreachable, match="Nothing answers") as caught:
                await client.health()
    assert url in caught.value.message
    assert f"curl {url}/health" in caught.value.hint


async def test_a_submit_is_sent_again_with_the_same_key_after_the_line_broke(serve):
    keys = []

    async def flaky(request):
        keys.append(request.headers["Idempotency-Key"])
        assert request.headers["Authorization"] == "Bearer token"
        if len(keys) < 3:
            request.transport.abort()
            return web.Response()
        return reply(job(), 201)

    client = await serve(("POST", "/jobs", flaky))
    assert (await client.submit(JobSpec(code="pass"))).id == 1
    assert len(keys) == 3
    assert len(set(keys)) == 1


async def test_a_registration_is_not_sent_twice(serve):
    calls = []

    async def broken(request):
        calls.append(1)
        request.transport.abort()
        return web.Response()

    client = await serve(("POST", "/auth/register", broken))
    with pytest.raises(Unreachable):
        await client.register("ann", "correct horse")
    assert calls == [1]


async def test_text_that_is_no_unicode_is_the_callers_error():
    async with Client("http://127.0.0.1:1") as client:
        with pytest.raises(InvalidField):
            await client.submit(JobSpec(code="\udc80"))


async def test_the_whole_output_is_read_in_parts_of_one_attempt(serve):
    data, asked = bytes(range(256)) * 4, []

    async def part(request):
        asked.append(request.query.get("attempt"))
        offset = int(request.query["offset"])
        return web.Response(body=data[offset : offset + 100], headers={"Gridx-Attempt": "2"})

    client = await serve(("GET", "/jobs/1/output", part))
    assert await client.output(1) == data
    assert asked[0] is None
    assert set(asked[1:]) == {"2"}


class Followed:
    """A coordinator that sends a job's output in pieces and breaks the line in between."""

    def __init__(self, outputs: dict[int, bytes], *, breaks_at: int) -> None:
        self.outputs = outputs
        self.breaks_at = breaks_at
        self.asked: list[tuple[int, int]] = []
        self.attempts = 1

    async def output(self, request):
        number, offset = int(request.query["attempt"]), int(request.query["offset"])
        if "follow" not in request.query:
            return web.Response(body=self.outputs[number][offset:])
        self.asked.append((number, offset))
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(self.outputs[number][offset : offset + self.breaks_at])
        if offset + self.breaks_at < len(self.outputs[number]):
            request.transport.close()
        else:
            self.attempts = min(number + 1, len(self.outputs))
        return response

    async def job(self, request):
        last = len(self.outputs)
        over = [attempt(n, AttemptState.LOST if n < last else AttemptState.SUCCEEDED) for n in self.outputs]
        ended = bool(self.asked) and self.asked[-1][0] == last
        state = JobState.SUCCEEDED if ended and self._all_sent() else JobState.RUNNING
        shown = over[: self.attempts]
        if state is JobState.RUNNING and self.attempts == last:
            shown[-1] = attempt(last, AttemptState.RUNNING)
        return reply(job(state=state, attempt=self.attempts, attempts=shown))

    def _all_sent(self) -> bool:
        number, offset = self.asked[-1]
        return offset + self.breaks_at >= len(self.outputs[number])


async def test_following_goes_on_where_the_line_broke_and_over_attempts(serve):
    grid = Followed({1: b"first attempt", 2: b"second attempt"}, breaks_at=5)
    client = await serve(("GET", "/jobs/1/output", grid.output), ("GET", "/jobs/1", grid.job))
    got = {1: b"", 2: b""}
    async for part in client.follow_attempts(1):
        assert part.offset == len(got[part.attempt])
        got[part.attempt] += part.data
    assert got == grid.outputs
    assert (1, 5) in grid.asked


async def test_waiting_outlives_a_coordinator_that_is_away(serve):
    calls = []

    async def answer(request):
        calls.append(request.query["wait_s"])
        if len(calls) < 6:
            request.transport.abort()
            return web.Response()
        return reply(job(state=JobState.SUCCEEDED if len(calls) > 6 else JobState.QUEUED))

    client = await serve(("GET", "/jobs/1", answer))
    assert (await client.wait(1)).state is JobState.SUCCEEDED
    assert len(calls) == 7


async def test_waiting_with_a_limit_gives_the_job_as_it_is(serve):
    async def answer(request):
        return reply(job())

    client = await serve(("GET", "/jobs/1", answer))
    assert (await client.wait(1, timeout_s=0)).state is JobState.RUNNING


async def test_events_arrive_and_their_end_is_an_error(serve):
    watched: list[list[int]] = []

    async def events(request):
        assert request.headers["Authorization"] == "Bearer token"
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        user = User(id=1, username="ann", role="user", created_at=NOW)
        await ws.send_str(messages.encode(Ready(user=user, version="1")).decode())
        watched.append(messages.decode((await ws.receive()).data, Watch).jobs)
        await ws.close()
        return ws

    client = await serve(("GET", "/events", events))
    async with client.events(watch=lambda: {3, 2}) as stream:
        assert isinstance(await anext(stream), Ready)
        with pytest.raises(Unreachable):
            await anext(stream)
    assert watched == [[2, 3]]


async def test_events_without_a_sign_in_are_refused(serve):
    async def events(request):
        return web.json_response({"error": {"code": "unauthenticated", "message": "Who?"}}, status=401)

    client = await serve(("GET", "/events", events))
    with pytest.raises(Unauthenticated):
        async with client.events():
            pass


async def test_a_backup_is_a_new_file_of_ones_own(serve, tmp_path):
    async def backup(request):
        return web.Response(body=b"database")

    client = await serve(("GET", "/admin/backup", backup))
    target = tmp_path / "copy.db"
    assert await client.backup(target) == 8
    assert target.read_bytes() == b"database"
    assert target.stat().st_mode & 0o777 == 0o600
    with pytest.raises(InvalidField, match="cannot be written"):
        await client.backup(target)


async def test_a_backup_that_fails_leaves_no_file(serve, tmp_path):
    async def refuse(request):
        error = {"code": "forbidden", "message": "Admins only."}
        return web.Response(status=403, text=json.dumps({"error": error}))

    client = await serve(("GET", "/admin/backup", refuse))
    with pytest.raises(Forbidden):
        await client.backup(tmp_path / "copy.db")
    assert not list(tmp_path.iterdir())


async def test_a_user_with_odd_characters_stays_one_part_of_the_path(serve):
    seen = []

    async def balance(request):
        seen.append(request.match_info["user"])
        return web.json_response({"error": {"code": "not_found", "message": "No."}}, status=404)

    client = await serve(("GET", "/credits/{user}", balance))
    with pytest.raises(NotFound):
        await client.balance("a/../b?c")
    assert seen == ["a/../b?c"]


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("grid", "http://grid:8081"),
        ("10.0.0.5:9000", "http://10.0.0.5:9000"),
        ("http://grid:1/", "http://grid:1"),
        ("https://grid.example", "https://grid.example:443"),
        ("::1", "http://[::1]:8081"),
        ("[::1]:9", "http://[::1]:9"),
    ],
)
def test_an_address_is_taken_as_people_type_it(given, url):
    assert Client(given).url == url


@pytest.mark.parametrize(
    "given", ["", "ftp://a", "http://a/path", "http://u:p@a", "a b", "a:x", "a:99999", "http://"]
)
def test_what_is_no_address_is_refused(given):
    with pytest.raises(ConfigError, match="not the address"):
        Client(given)


async def test_clients_may_be_used_from_many_tasks_at_once(serve):
    async def health(request):
        return web.json_response({"status": "ok", "version": "1", "protocol": 1})

    client = await serve(("GET", "/health", health))
    answers = await asyncio.gather(*(client.health() for _ in range(50)))
    assert len(answers) == 50


async def test_waiting_for_many_jobs_keeps_nothing_else_from_being_asked(serve):
    waiting, ended = asyncio.Event(), asyncio.Event()
    polls = 0

    async def show(request):
        nonlocal polls
        polls += 1
        if polls == 100:
            waiting.set()
        await ended.wait()
        return reply(job(state=JobState.SUCCEEDED))

    async def health(request):
        return web.json_response({"status": "ok", "version": "1", "protocol": 1})

    client = await serve(("GET", "/jobs/{id}", show), ("GET", "/health", health))
    waits = [asyncio.create_task(client.wait(number)) for number in range(1, 101)]
    await waiting.wait()
    assert (await client.health()).status == "ok"
    ended.set()
    assert all(done.state is JobState.SUCCEEDED for done in await asyncio.gather(*waits))


async def test_requests_that_wait_for_a_place_have_it_in_turn(serve, monkeypatch):
    monkeypatch.setattr(client_wire, "AT_ONCE", 2)
    served = []

    async def submit(request):
        served.append(messages.decode(await request.read(), JobSpec).name)
        return reply(job())

    client = await serve(("POST", "/jobs", submit))

    async def submitter(name: str) -> None:
        for _ in range(20):
            await client.submit(JobSpec(code="", name=name))

    await asyncio.gather(*(submitter(str(number)) for number in range(8)))
    for earlier, name in enumerate(served[:-16]):
        # Whoever was served is served again before anybody else has been more often than the others.
        assert name in served[earlier + 1 : earlier + 17]
