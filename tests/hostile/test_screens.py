"""Texts of jobs, workers and users that want to be more than text, on real terminals and in real logs."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import sys
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from kit.hostile import PASSWORD
from kit.terminal import COLOUR, SCREEN, Terminal, obeyed
from kit.tricks import FORGED, line, no_nul, texts

from gridx.messages import PROTOCOL_VERSION, JobSpec, JobState

COORDINATOR = {"GRIDX_LOG_FORMAT": "json", "GRIDX_LOG_LEVEL": "debug"}
WORKER = {"GRIDX_WORKER_SANDBOX": "process", "GRIDX_LOG_LEVEL": "debug"}
KEPT = 32
SMALL = {"cpus": 0.1, "memory_mb": 64, "timeout_s": 60}


@dataclass
class Evil:
    """A worker of bob's that says what it likes wherever a worker may say anything."""

    grid: Any
    said: list[str]
    told: int = 0
    ended: set[int] = field(default_factory=set)

    def next(self) -> str:
        self.told += 1
        return self.said[self.told % len(self.said)]

    def offer(self) -> dict[str, Any]:
        one = line(self.next())
        return {
            "cpu_millis": 8000,
            "memory_mb": 8192,
            "runtimes": [
                {"name": "evil", "python": "3.12", "languages": ["python", "x"], "image": one, "digest": one}
            ],
            "warnings": [line(self.next()) for _ in range(30)],
            "rules": [line(self.next()) for _ in range(15)],
            "gpus": [{"uuid": "GPU-1", "name": line(self.next()), "memory_mb": 1}],
        }

    async def serve(self) -> None:
        headers = {"Authorization": f"Bearer {self.grid.standing.tokens['bob']}"}
        async with (
            aiohttp.ClientSession(headers=headers) as http,
            http.ws_connect(self.grid.ws_url, max_msg_size=0) as ws,
        ):
            hello = {
                "type": "hello",
                "protocol": PROTOCOL_VERSION,
                "version": line(self.next()),
                "identity": "e" * 32,
                "name": line("EVIL " + self.next()),
                "offer": self.offer(),
            }
            await ws.send_json([hello])
            async for message in ws:
                for frame in json.loads(message.data):
                    if frame["type"] == "assign":
                        for attempt in frame["attempts"]:
                            await self.run(ws, attempt["attempt_id"])

    async def run(self, ws: aiohttp.ClientWebSocketResponse, id: int) -> None:
        out = "".join(self.said).encode("utf-8", "surrogatepass") + b"\xff\xfe\x00"
        data = base64.b64encode(out[:60_000]).decode()
        frames: list[dict[str, Any]] = [
            {"type": "accepted", "attempt_id": id},
            {"type": "started", "attempt_id": id, "runtime": "evil"},
            *(
                {"type": "output", "attempt_id": id, "stream": stream, "offset": 0, "data": data}
                for stream in ("stdout", "stderr")
            ),
            {
                "type": "sample",
                "seq": id,
                "attempts": [id],
                "state": "unready",
                "state_reason": line(self.next()),
            },
            {
                "type": "finished",
                "attempt_id": id,
                "outcome": "failed",
                "exit_code": 1,
                "reason": no_nul(self.next()),
                "stdout_bytes": len(out[:60_000]),
                "stderr_bytes": len(out[:60_000]),
                "left": [{"path": line(self.next()) or "x", "why": line(self.next())} for _ in range(20)],
            },
            {"type": "sample", "seq": id + 1, "attempts": [], "state": "online"},
        ]
        for frame in frames:
            await ws.send_json([frame])


@pytest.fixture
async def staged(grid, until):
    """A grid in which everything that others may name and say is hostile; bob is signed in at a shell."""
    said = texts(20260131, 60)
    evil = Evil(grid, said)
    serving = asyncio.create_task(evil.serve())
    try:

        async def there() -> bool:
            return any(each.name.startswith("EVIL") for each in await grid.bob.workers())

        await until(there, "the hostile worker", 20)
        jobs = []
        for number in range(24):
            text = said[number * 3 % len(said)]
            spec = JobSpec(
                code=f"# {no_nul(text)}\nprint(1)".replace("\r", ""),
                name=line(text),
                args=[no_nul(text)],
                env={"EVIL": no_nul(text)},
                runtime="evil",
                **SMALL,
            )
            jobs.append((await grid.bob.submit(spec)).id)
        for text in said[:10]:
            await grid.bob.transfer("ann", 1, line(text, 150))
            await grid.ann.transfer("bob", 2, line(text, 150))

        async def over() -> bool:
            return not [id for id in jobs if not (await grid.bob.job(id)).state.ended]

        await until(over, "the jobs to end")
        processes = grid.standing.processes
        await asyncio.to_thread(processes.gridx, "login", "bob", user="bob", GRIDX_PASSWORD=PASSWORD)
        yield grid, jobs
    finally:
        assert not serving.done() or serving.cancelled() or serving.exception() is None
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


async def in_a_terminal(grid, *args: str) -> tuple[int, Terminal]:
    environ = grid.standing.processes.shell_environ("bob")
    terminal = Terminal([sys.executable, "-m", "gridx", *args], environ)
    code = await asyncio.to_thread(terminal.wait)
    terminal.close()
    return code, terminal


COLOURS = {
    "\x1b[0m",
    "\x1b[1m",
    "\x1b[2m",
    "\x1b[4m",
    *(f"\x1b[{n}m" for n in (*range(30, 38), *range(90, 98))),
}


def harmless(terminal: Terminal, what: object) -> None:
    assert obeyed(terminal.text, COLOUR) == [], what
    assert set(COLOUR.findall(terminal.text)) <= COLOURS, what
    assert not re.search(rf"(?m)^{re.escape(FORGED)}", terminal.words) or "output" in str(what), what


async def test_nothing_that_a_shell_prints_is_obeyed_by_its_terminal(staged):
    grid, jobs = staged
    # One that shows all kinds; the others go where each text is another.
    some = [str(id) for id in jobs[:4]]
    commands = [
        ("jobs",),
        ("jobs", "--json"),
        ("workers",),
        ("workers", "--json"),
        ("credits",),
        *(("show", id) for id in some),
        ("show", some[0], "--json"),
        *(("output", id) for id in some[:2]),
        ("output", "--stderr", some[0]),
        ("wait", some[0]),
        ("retry", "1" + "\x1b[31;45m\u202e"),
        ("show", "\x9b31m[/b]"),
        ("submit", "/nowhere/\x1b]0;EVIL-TITLE\x07\u202e"),
        ("transfer", "\x1b[2J\u202e", "1"),
        ("--coordinator", "http://\x1b[2J\u202e:1", "jobs"),
        ("\x1b[31;45m\u202e",),
        ("jobs", "--\x1b[2J\u202e"),
    ]
    places = asyncio.Semaphore(3)

    async def one(command: tuple[str, ...]) -> None:
        async with places:
            code, terminal = await in_a_terminal(grid, *command)
        assert code in (0, 1, 2, 3, 4), (command, terminal.words)
        assert terminal.sent, command
        assert "Traceback" not in terminal.words or command[0] == "output", (command, terminal.words)
        harmless(terminal, command)

    await asyncio.gather(*(one(command) for command in commands))


async def test_raw_output_alone_is_given_as_it_is(staged):
    grid, jobs = staged
    _, terminal = await in_a_terminal(grid, "output", "--raw", str(jobs[0]))
    assert "\x1b]52;c;RVZJTA==\x07" in terminal.text
    # So what the other tests look for is found where it is.
    assert obeyed(terminal.text, COLOUR)
    assert obeyed(terminal.text, SCREEN)


def screen_is_harmless(terminal: Terminal) -> None:
    """What came from outside does not get out of the dashboard: none of its sequences, none of its marks."""
    assert obeyed(terminal.text, SCREEN) == []
    for evil in (
        "\x1b]52",
        "EVIL-TITLE\x07",
        "\x1b]8;;http://EVIL",
        "\x1b]1337",
        "\x1b_G",
        "\x1bP1",
        "\x1b#8",
    ):
        assert evil not in terminal.text, ascii(evil)
    for evil in ("\x1b[31;45m", "\x1b[6n", "\x1b[>q", "\x1bc", "\x1b[201~"):
        assert evil not in terminal.text, ascii(evil)


async def test_nothing_that_the_dashboard_shows_is_obeyed_by_its_terminal(staged, until):
    grid, _ = staged
    environ = grid.standing.processes.shell_environ("bob")
    command = ["--role", "viewer", "--coordinator", grid.url, "--user", "bob"]
    terminal = Terminal([sys.executable, "-m", "gridx.cli", *command], environ, size=(160, 50))
    try:
        await until(lambda: "EVIL" in terminal.words, "the dashboard")
        for keys in (
            "\x1b",
            "1",
            "j",
            "\r",
            "\x1b",
            "j",
            "\r",
            "\x1b",
            "3",
            "G",
            "4",
            "\x1b",
            "5",
            "G",
            "6",
            "7",
            "?",
        ):
            before = len(terminal.sent)
            terminal.type(keys)
            with_answer = asyncio.create_task(_said_more(terminal, before))
            await asyncio.wait({with_answer}, timeout=1)
            with_answer.cancel()
            assert terminal.process.poll() is None, terminal.words[-2000:]
        screen_is_harmless(terminal)
        # Nothing of what was shown has done anything: it still runs, and ends when it is told to.
        terminal.type("\x1b\x1b")
        terminal.type("\x11")
        assert await asyncio.to_thread(terminal.wait) == 0, terminal.words[-4000:]
        assert "Traceback" not in terminal.words
        screen_is_harmless(terminal)
    finally:
        terminal.close()


async def _said_more(terminal: Terminal, before: int) -> None:
    while len(terminal.sent) == before:
        await asyncio.sleep(0.02)


async def test_a_long_line_and_many_lines_leave_the_screen_answering(grid, until):
    processes = grid.standing.processes
    await asyncio.to_thread(processes.gridx, "login", "ann", user="ann", GRIDX_PASSWORD=PASSWORD)
    code = "print('x' * (900 << 10)); print('\\u202e' * 1000)"
    many = "for n in range(100_000): print(n)"
    ids = [(await grid.ann.submit(JobSpec(code=text, name="long", **SMALL))).id for text in (code, many)]
    for id in ids:
        assert (await grid.ann.wait(id)).state is JobState.SUCCEEDED
    command = ["--role", "viewer", "--coordinator", grid.url, "--user", "ann"]
    environ = processes.shell_environ("ann")
    terminal = Terminal([sys.executable, "-m", "gridx.cli", *command], environ, size=(120, 40))
    try:
        await until(lambda: "99999" in terminal.words, "the end of the many lines")
        terminal.type("\x1b1j")
        await until(lambda: "x" * 50 in terminal.words, "the long line")
        before = len(terminal.sent)
        terminal.type("?")
        await until(lambda: len(terminal.sent) > before, "an answer to a key", 10)
        screen_is_harmless(terminal)
    finally:
        terminal.close()


async def test_a_coordinator_that_dies_is_told_on_the_screen_and_comes_back(grid, until):
    processes = grid.standing.processes
    await asyncio.to_thread(processes.gridx, "login", "ann", user="ann", GRIDX_PASSWORD=PASSWORD)
    command = ["--role", "viewer", "--coordinator", grid.url, "--user", "ann"]
    environ = processes.shell_environ("ann")
    terminal = Terminal([sys.executable, "-m", "gridx.cli", *command], environ)
    try:
        await until(lambda: "desk" in terminal.words, "the dashboard")
        await asyncio.to_thread(grid.coordinator.kill)
        await until(lambda: "disconnected since" in terminal.words, "what it says of a dead coordinator")
        await asyncio.to_thread(grid.standing.rise)
        job = await grid.ann.submit(JobSpec(code="print('after')", name="after-it-came-back", **SMALL))
        await until(lambda: "after-it-came-back" in terminal.words, "what is new after it came back")
        assert (await grid.ann.wait(job.id)).state is JobState.SUCCEEDED
        assert terminal.process.poll() is None
    finally:
        terminal.close()


TEXT_LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ (debug|info|warning|error|critical) [a-z_.]+ ")


async def test_no_line_of_a_log_is_anybody_s_but_the_program_s(staged):
    grid, _ = staged
    # A worker's log names jobs' ends; the coordinator's names workers and what they say.
    specs = [
        JobSpec(code=f"raise SystemExit({line(text)!r})", name=line(text), runtime="python", **SMALL)
        for text in texts(3, 10)
    ]
    await asyncio.gather(*(grid.ann.wait(job.id) for job in await grid.ann.submit_batch(specs)))
    for node in (grid.coordinator, grid.worker):
        assert obeyed(node.text, re.compile(r"(?!)")) == []
    for text in grid.coordinator.text.splitlines():
        if text.startswith("{"):
            assert {"time", "level", "logger", "message"} <= set(json.loads(text))
        else:
            # What a start prints for people.
            assert FORGED not in text, text
    for text in grid.worker.text.splitlines():
        if FORGED in text:
            assert TEXT_LINE.match(text), text
            assert not text.startswith(FORGED), text
