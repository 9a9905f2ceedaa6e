"""The sandbox without containers: limits, a clean end of everything, and that it says it is no wall."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys

import psutil
import pytest

from gridx.errors import SandboxBroken
from gridx.services.worker.sandbox.process import MARK, ProcessSandbox

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(sys.platform != "linux", reason="limits of Linux"),
]


@pytest.fixture
def box(process_box):
    return process_box


def marked() -> list[psutil.Process]:
    """Processes of this machine that came out of a sandbox of this test's process tree."""
    found = []
    for process in psutil.process_iter():
        try:
            if MARK in process.environ() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


async def test_it_says_that_it_is_no_wall(box):
    status = await box.sandbox.status()
    assert (status.kind, status.isolated, status.unready) == ("process", False, "")
    assert "no wall" in status.warnings[0]
    assert [runtime.name for runtime in status.runtimes] == ["python"]


async def test_a_program_sees_its_arguments_its_environment_and_nothing_of_the_worker_s(box, monkeypatch):
    monkeypatch.setenv("GRIDX_TOKEN", "secret")
    code = "import json, os, sys; print(json.dumps([sys.argv[1:], dict(os.environ), os.listdir('.')]))"
    result = await box.run(code, args=("a",), env={"MINE": "1"}, job_id=7, number=3)
    argv, environ, names = json.loads(result.ok().stdout)
    assert argv == ["a"]
    assert environ.keys() == {"PATH", "HOME", "LANG", "TMPDIR", "MINE", MARK, "GRIDX_JOB", "GRIDX_ATTEMPT"}
    assert (environ["GRIDX_JOB"], environ["GRIDX_ATTEMPT"]) == ("7", "3")
    assert sorted(names) == ["job.py", "out"]
    own = (await box.run("print(open('/proc/self/environ').read())")).ok().stdout
    assert b"secret" not in own


@pytest.mark.parametrize(
    ("code", "exit_code", "signal"),
    [
        ("import sys; sys.exit(3)", 3, None),
        ("import os; os._exit(137)", 137, None),
        ("import ctypes; ctypes.string_at(0)", None, 11),
        ("x = (", 1, None),
        ("1 / 0", 1, None),
    ],
)
async def test_a_program_that_fails_ends_with_its_own_status(box, code, exit_code, signal):
    outcome = (await box.run(code)).outcome
    assert (outcome.outcome, outcome.exit_code, outcome.signal) == ("failed", exit_code, signal)


async def test_threads_exit_handlers_destructors_and_open_files_are_finished(box):
    code = """
import atexit, threading, time
class Last:
    def __del__(self): print("destructor", math.pi > 3)
import math
keep = Last()
atexit.register(print, "exit handler")
threading.Thread(target=lambda: (time.sleep(0.1), print("thread"))).start()
text = open("left.txt", "w")
text.write("unflushed")
class Check:
    def __del__(self): print(open("left.txt").read() in ("", "unflushed"))
"""
    assert (await box.run(code)).ok().lines == ["thread", "exit handler", "destructor True"]
    code = """
import os
pid = os.fork()
file = open("left.txt", "w")
file.write("flushed")
if pid:
    os.waitpid(pid, 0)
    print(open("left.txt").read())
"""
    assert (await box.run(code)).ok().lines == ["flushed"]


async def test_a_program_that_does_not_end_is_timed_out_with_what_it_used(box):
    result = await box.run("print('before')\nwhile True: pass", timeout_s=1)
    assert (result.how, result.stdout) == ("timed_out", b"before\n")
    assert result.outcome.cpu_ms > 0
    assert result.outcome.peak_memory_bytes > 0


async def test_cancel_ends_a_program_at_once(box):
    cancel = asyncio.Event()
    running = asyncio.create_task(box.run("import time; time.sleep(1000)", cancel=cancel))
    await asyncio.wait_for(box.started.wait(), 60)
    cancel.set()
    assert (await running).how == "cancelled"


async def test_a_program_that_takes_more_than_its_memory_is_named_so_with_its_peak(box):
    result = await box.run("x = []\nwhile True: x.append(b'x' * (4 << 20))")
    assert result.how == "out_of_memory"
    assert result.outcome.peak_memory_bytes > 128 << 20


async def test_a_memory_error_is_out_of_memory(box):
    assert (await box.run("bytearray(1 << 50)")).how == "out_of_memory"


async def test_a_fork_bomb_is_ended(box, until):
    result = await box.run("import os\nwhile True: os.fork()", timeout_s=20)
    assert result.how in ("failed", "out_of_memory")
    await until(lambda: not marked(), "every process to be gone")


DETACHED = "import os, time\nif os.fork() == 0:\n os.setsid()\n"


@pytest.mark.parametrize(
    "code",
    [
        f"{DETACHED} if os.fork() == 0: time.sleep(1000)\n os._exit(0)",
        f"{DETACHED} time.sleep(1000)\nos.kill(os.getppid(), 9)\ntime.sleep(1000)",
        "import os, signal, time\nos.kill(os.getppid(), signal.SIGSTOP)\ntime.sleep(1000)",
    ],
    ids=["daemon", "kills its supervisor", "stops its supervisor"],
)
async def test_nothing_of_a_program_is_left_when_it_has_ended(box, until, code):
    result = await box.run(code, timeout_s=1)
    assert result.how in ("succeeded", "failed", "timed_out")
    await until(lambda: not marked(), "every process to be gone")


async def test_a_flood_is_capped_and_ended(box):
    before = psutil.Process().memory_info().rss
    result = await box.run("import os\nwhile True: os.write(2, b'x' * 65536)", output_cap_bytes=65536)
    assert result.how == "failed"
    assert "stderr" in result.outcome.reason
    assert result.stderr.startswith(b"x" * 65536)
    assert len(result.stderr) < 65536 + 200
    assert psutil.Process().memory_info().rss - before < 20 << 20


async def test_a_cancelled_caller_leaves_nothing(box, until):
    running = asyncio.create_task(box.run("import time; time.sleep(1000)"))
    await asyncio.wait_for(box.started.wait(), 60)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert list(box.sandbox._root.iterdir()) == []
    await until(lambda: not marked(), "every process to be gone")


async def test_programs_side_by_side_have_folders_of_their_own(box):
    code = "import os, time; open('mine', 'w').close(); time.sleep(0.3); print(len(os.listdir('.')))"
    results = await asyncio.gather(*(box.run(code) for _ in range(3)))
    assert [result.ok().stdout for result in results] == [b"3\n"] * 3


async def test_folders_that_a_program_closed_are_removed(box):
    code = """
import os
deep = "."
for _ in range(30):
    deep += "/" + "d" * 100
    os.mkdir(deep)
os.makedirs("a/b/c")
os.chmod("a/b", 0)
os.chmod("a", 0)
"""
    (await box.run(code)).ok()
    assert list(box.sandbox._root.iterdir()) == []


async def test_gpus_and_other_runtimes_are_refused(box):
    with pytest.raises(SandboxBroken, match="GPU"):
        await box.run("pass", gpus=("GPU-1",))
    with pytest.raises(SandboxBroken, match="default"):
        await box.run("pass", runtime="default")


async def test_opening_removes_folders_that_an_earlier_run_left(tmp_path):
    (tmp_path / "sandbox" / "17-left" / "below").mkdir(parents=True)
    sandbox = ProcessSandbox(tmp_path)
    await sandbox.open()
    assert list((tmp_path / "sandbox").iterdir()) == []
    await sandbox.close()


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
async def test_with_bubblewrap_a_program_sees_no_file_process_or_network_of_the_machine(tmp_path, make_box):
    sandbox = ProcessSandbox(tmp_path)
    await sandbox.open()
    if not sandbox._bwrap:
        pytest.skip("bubblewrap does not work here")
    box = make_box(sandbox, "python")
    (tmp_path / "secret").write_text("secret")
    code = f"""
import os, socket
print(os.path.exists({str(tmp_path / "secret")!r}), os.path.exists("/root"), os.path.exists("/etc/passwd"))
print(len([p for p in os.listdir("/proc") if p.isdigit()]), os.getcwd(), os.getuid())
try: socket.create_connection(("1.1.1.1", 53), 2)
except OSError as error: print("unreachable")
try: open("/usr/x", "w")
except OSError: print("read-only")
"""
    result = await box.run(code)
    seen = "True" if sys.base_prefix.startswith("/root") else "False"
    assert result.ok().lines == [f"False {seen} False", "2 /job 65534", "unreachable", "read-only"]
    assert (await box.run("x = []\nwhile True: x.append(b'x' * (4 << 20))")).how == "out_of_memory"
    assert (await box.run("while True: pass", timeout_s=1)).how == "timed_out"
    assert list((tmp_path / "sandbox").iterdir()) == []
    await sandbox.close()
