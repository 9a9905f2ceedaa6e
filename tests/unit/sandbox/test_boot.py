"""The supervisor's own tools, and the supervisor as a process without a worker behind it."""

from __future__ import annotations

import contextlib
import json
import os
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gridx.services.worker.sandbox import boot
from gridx.services.worker.sandbox.frames import Began, End, FrameParser, Output, Ready
from gridx.services.worker.sandbox.supervisor import LOADER, greeting

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no fork on Windows")


def never() -> float:
    return time.monotonic() + 60


def test_a_folder_is_emptied_however_deep_wide_and_closed_and_stays(tmp_path):
    top = tmp_path / "top"
    top.mkdir()
    outside = tmp_path / "outside"
    outside.write_text("stays")
    (top / "link").symlink_to(outside)
    (top / "folder-link").symlink_to(tmp_path)
    os.mkfifo(top / "fifo")
    (top / "closed" / "inner").mkdir(parents=True)
    (top / "closed" / "inner" / "file").touch()
    (top / "closed" / "inner").chmod(0)
    (top / "closed").chmod(0)
    (top / os.fsdecode(b"\xff\n")).touch()
    # Deeper than any path may be long: made by steps.
    here = Path.cwd()
    os.chdir(top)
    try:
        for _ in range(1000):
            Path("deep").mkdir()
            os.chdir("deep")
    finally:
        os.chdir(here)
    boot.empty(str(top), never())
    assert list(top.iterdir()) == []
    assert outside.read_text() == "stays"


def test_emptying_gives_up_in_time(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="too much"):
        boot.empty(str(tmp_path), time.monotonic() - 1)


def test_a_folder_that_is_a_link_is_not_followed(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(OSError):
        boot.empty(str(tmp_path / "link"), never())
    assert (tmp_path / "real" / "file").exists()


def test_a_folder_that_is_not_there_is_empty(tmp_path):
    boot.empty(str(tmp_path / "nowhere"), never())


@pytest.mark.parametrize(
    ("tail", "found"),
    [
        (b"Traceback (most recent call last):\n...\nMemoryError\n", True),
        (b"MemoryError: too large", True),
        (b"numpy._core._exceptions._ArrayMemoryError: Unable to allocate 8 PiB\n", True),
        (b"ValueError: MemoryError\n", False),
        (b"MemoryError\nmore\n", False),
        (b"", False),
        (b"\xff\xfe", False),
    ],
)
def test_a_memory_error_is_known_by_the_last_line(tail, found):
    assert boot.memory_error(tail) is found


def test_it_needs_nothing_but_the_standard_library():
    code = "import sys; __name__ = 'boot'; exec(open(sys.argv[1]).read())"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code, boot.__file__], capture_output=True)
    assert done.returncode == 0, done.stderr


class Supervisor:
    """A supervisor with a test at the other end of its pipes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-c", LOADER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.parser = FrameParser()
        self.process.stdin.write(greeting())
        self.process.stdin.flush()

    def ask(self, code: str, **changes: object) -> None:
        header = {
            "program": "job.py",
            "command": [],
            "args": [],
            "inputs": [],
            "wanted": None,
            "env": {},
            "folder": str(self.folder),
            "alone": False,
            "cgroup": False,
            "clean": [],
            "memory": 1 << 30,
            "pids": 64,
            "cap": 1000,
            "flood": 64000,
            "rlimits": {},
            "nice": 0,
            **changes,
        }
        data = json.dumps(header).encode()
        self.process.stdin.write(struct.pack(">II", len(data), len(code)) + data + code.encode())
        self.process.stdin.flush()

    def until(self, kind: type) -> list[object]:
        frames: list[object] = []
        while not any(isinstance(frame, kind) for frame in frames):
            data = os.read(self.process.stdout.fileno(), 65536)
            assert data, self.process.stderr.read()
            frames += self.parser.feed(data)
        return frames


@pytest.fixture
def supervisor(tmp_path):
    made = Supervisor(tmp_path)
    yield made
    made.process.kill()
    made.process.wait()
    for pipe in (made.process.stdin, made.process.stdout, made.process.stderr):
        with contextlib.suppress(BrokenPipeError):
            pipe.close()


def test_jobs_run_one_after_the_other_in_forks_of_one_process(supervisor):
    [ready] = supervisor.until(Ready)
    assert ready.pid == supervisor.process.pid
    for number in range(3):
        supervisor.ask(f"import os; print({number}, os.getppid())")
        frames = supervisor.until(End)
        assert isinstance(frames[0], Began)
        written = b"".join(frame.data for frame in frames if isinstance(frame, Output))
        assert written == f"{number} {supervisor.process.pid}\n".encode()
        assert frames[-1].exit_code == 0
    supervisor.process.stdin.close()
    assert supervisor.process.wait(20) == 0


def test_one_byte_past_the_cap_is_passed_on_and_no_more(supervisor):
    supervisor.ask("print('x' * 5000)")
    frames = supervisor.until(End)
    assert sum(len(frame.data) for frame in frames if isinstance(frame, Output)) == 1001


def test_a_flood_is_ended(supervisor):
    supervisor.ask("while True: print('x' * 5000)")
    end = supervisor.until(End)[-1]
    assert (end.flooded, end.exit_code, end.signal) == ("stdout", None, None)


def test_the_end_of_stdin_ends_the_job_and_then_the_supervisor(supervisor):
    supervisor.ask("import time; print('runs'); time.sleep(1000)")
    supervisor.until(Output)
    supervisor.process.stdin.close()
    end = supervisor.until(End)[-1]
    assert (end.exit_code, end.signal) == (None, None)
    assert supervisor.process.wait(20) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells whether a process can be looked into")
def test_the_supervisor_cannot_be_looked_into_and_its_job_can(supervisor):
    supervisor.until(Ready)
    status = Path(f"/proc/{supervisor.process.pid}/environ").stat()
    assert status.st_uid == 0
    supervisor.ask("import ctypes; print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))")
    frames = supervisor.until(End)
    assert b"".join(frame.data for frame in frames if isinstance(frame, Output)) == b"1\n"


@pytest.mark.parametrize("data", [b"\xff" * 64, b"\0\0\0\4\0\0\0\0nope"], ids=["lengths", "header"])
def test_a_request_that_is_none_ends_it(supervisor, data):
    supervisor.until(Ready)
    supervisor.process.stdin.write(data)
    supervisor.process.stdin.close()
    supervisor.process.wait(20)
