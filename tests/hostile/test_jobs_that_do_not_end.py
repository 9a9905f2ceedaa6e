"""Programs in real containers that do not end, leave something running, or end in odd ways."""

from __future__ import annotations

import asyncio
import json

import pytest
from kit.attacks import CONTAINERS, LOOK, NOTHING, at_once, only_supervisors

from gridx.messages import JobState

pytestmark = pytest.mark.engine

WORKER = CONTAINERS
KEPT = 32

SYSCALL = """
import ctypes, os, signal, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)
"""
ENDLESS = {
    "busy": "while True: pass",
    "busy in C": "pow(3, 1 << 20_000_000, (1 << 5000) - 1)",
    "asleep": "import time; time.sleep(1000)",
    "deaf to every signal": """
import signal, time
for number in signal.valid_signals() - {9, 19}: signal.signal(number, signal.SIG_IGN)
time.sleep(1000)
""",
    "blocks every signal": SYSCALL + "signal.pthread_sigmask(0, signal.valid_signals()); time.sleep(1000)",
    "stops itself": "import os; os.kill(0, 19)",
    "its children stop, it waits": """
import os, signal
if os.fork() == 0: os.kill(os.getpid(), signal.SIGSTOP)
os.wait()
""",
    "closes everything": "import os, time\nos.closerange(0, 256)\ntime.sleep(1000)",
    "without output and with children in sessions of their own": """
import os, time
os.closerange(0, 3)
for _ in range(20):
    if os.fork() == 0:
        os.setsid()
        while True: os.getpid()
time.sleep(1000)
""",
    "waits for a child of vfork": SYSCALL + "libc.vfork() or time.sleep(1000)",
    "leaves one thread that never ends": """
import threading, time
threading.Thread(target=time.sleep, args=(1000,)).start()
""",
    "cannot exit": SYSCALL + "import atexit\natexit.register(time.sleep, 1000)",
    "raises for ever": """
class Never:
    def __del__(self):
        while True: pass
never = Never()
""",
    "is its own reaper, not dumpable, under another name": SYSCALL
    + """
for option, value in ((36, 1), (4, 0), (1, 0), (15, b"boot.py")): libc.prctl(option, value, 0, 0, 0)
if os.fork() == 0: os.setsid()
time.sleep(1000)
""",
    "forbids itself every call but sleep": SYSCALL
    + """
libc.prctl(38, 1, 0, 0, 0)
print("strict", flush=True)
program = (ctypes.c_uint64 * 3)(0x0000000000000020, 0x0000000F01010015 & 0xFFFFFFFFFFFF, 0x7FFF000000000006)
libc.prctl(22, 2, 0, 0, 0)
time.sleep(1000)
""",
    "plays with clocks": SYSCALL
    + """
time.time = time.monotonic = lambda: 0
timespec = (ctypes.c_long * 2)(0, 0)
assert [libc.clock_settime(clock, timespec) for clock in (0, 1)] == [-1, -1]
signal.setitimer(signal.ITIMER_REAL, 0.0001, 0.0001)
signal.signal(signal.SIGALRM, lambda *_: None)
while True: signal.pause()
""",
    "signals everybody for ever": """
import os, signal
for number in signal.valid_signals() - {9, 19}: signal.signal(number, signal.SIG_IGN)
if os.fork() == 0: os.setsid()
while True:
    for number in (17, 10, 12, 34, 64, 20):
        for target in (-1, 0, 1): os.kill(target, number)
""",
    "is handed on from child to child": """
import os
while True:
    if os.fork(): os.wait4(-1, os.WNOHANG); continue
    os.setsid()
""",
    "holds what it can": """
import fcntl, os, time
file = open("/job/job.py", "r+")
fcntl.flock(file, fcntl.LOCK_EX); fcntl.lockf(file, fcntl.LOCK_EX); fcntl.fcntl(file, fcntl.F_SETLEASE, 1)
for folder in ("/tmp", "/job", "/dev/shm"): fcntl.flock(os.open(folder, os.O_RDONLY), fcntl.LOCK_EX)
time.sleep(1000)
""",
}


async def test_a_program_that_does_not_end_is_ended_and_costs_no_more_than_was_held(grid):
    found = await at_once(grid, ENDLESS, timeout_s=1, cpus=0.1)
    odd = ("is handed on from child to child",)
    assert {name: each.job.state for name, each in found.items() if name not in odd} == {
        name: JobState.TIMED_OUT for name in ENDLESS if name not in odd
    }, {name: (each.job.reason, each.stderr) for name, each in found.items()}
    for name in odd:
        # Its fork bomb may also meet the limit of processes first.
        assert found[name].job.state in (JobState.TIMED_OUT, JobState.FAILED)
    for each in found.values():
        receipt = await grid.bob.receipt(each.job.id)
        assert receipt.charge <= receipt.hold
        assert receipt.charge + receipt.released == receipt.hold
    await only_supervisors(grid)


DAEMONS = {
    "a daemon that holds the output": """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        while True: time.sleep(0.01); os.write(1, b".")
    os._exit(0)
""",
    "a daemon that has let go of everything": """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.closerange(0, 256)
        os.chdir("/tmp")
        time.sleep(1000)
    os._exit(0)
""",
    "a daemon of every session": """
import os, time
for _ in range(30):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            for n in range(1, 65):
                try: __import__("signal").signal(n, 1)
                except (OSError, ValueError): pass
            while True: time.sleep(1)
        os._exit(0)
os.closerange(0, 3)
os._exit(0)
""",
    "a child that is stopped": "import os, time\nif os.fork() == 0: os.kill(os.getpid(), 19)\nos._exit(0)",
    "threads and a storm of inotify": """
import ctypes, os, threading
libc = ctypes.CDLL(None, use_errno=True)
def storm(n):
    fd = libc.inotify_init()
    libc.inotify_add_watch(fd, b"/tmp", 0xfff)
    while True:
        os.close(os.open(f"/tmp/{n}", os.O_CREAT)); os.unlink(f"/tmp/{n}")
for n in range(8): threading.Thread(target=storm, args=(n,), daemon=True).start()
if os.fork() == 0: os.setsid(); storm(9)
os._exit(0)
""",
    "a process that forks for ever": """
import os
if os.fork() == 0:
    os.setsid()
    while True:
        try:
            if os.fork(): os._exit(0)
        except OSError: pass
os._exit(0)
""",
}


async def test_what_a_program_leaves_running_ends_with_it(grid):
    found = await at_once(grid, DAEMONS)
    for each in found.values():
        each.ok()
    await only_supervisors(grid)
    for each in (await at_once(grid, {str(n): LOOK for n in range(len(DAEMONS))})).values():
        assert json.loads(each.ok().stdout) == NOTHING


TOO_MANY = {
    "fork bomb": "import os\nwhile True: os.fork()",
    "10,000 threads": """
import threading, time
for _ in range(10_000): threading.Thread(target=time.sleep, args=(99,), daemon=True).start()
""",
    "10,000 processes": """
import os, time
for _ in range(10_000):
    if os.fork() == 0: os.setsid(); time.sleep(99)
""",
    "a fork bomb that lives on": """
import os
def bomb():
    while True:
        try: os.fork()
        except OSError: pass
try:
    while True: os.fork()
except OSError as error:
    if error.errno != 11: raise
    os.write(1, b"EAGAIN\\n")
    bomb()
""",
}


async def test_processes_past_the_limit_are_refused_inside_and_end(grid):
    lives_on = "a fork bomb that lives on"
    ends = {name: code for name, code in TOO_MANY.items() if name != lives_on}
    found, bombs = await asyncio.gather(
        at_once(grid, ends, timeout_s=120, cpus=0.4, memory_mb=256),
        at_once(grid, {lives_on: TOO_MANY[lives_on]}, timeout_s=5, cpus=0.4, memory_mb=256),
    )
    for name in ends:
        assert found[name].job.state is JobState.FAILED, found[name]
        said = found[name].stderr
        assert b"BlockingIOError: [Errno 11]" in said or b"can't start new thread" in said
    bomb = bombs[lives_on]
    assert (bomb.job.state, bomb.lines[0]) == (JobState.TIMED_OUT, "EAGAIN")
    await only_supervisors(grid)


ODD_ENDS = {
    "exit code 137": ("import os; os._exit(137)", "exit code 137"),
    "exit code 124": ("raise SystemExit(124)", "exit code 124"),
    "killed by itself": ("import os; os.kill(os.getpid(), 9)", "SIGKILL"),
    "segmentation fault": ("import ctypes; ctypes.string_at(0)", "SIGSEGV"),
    "illegal instruction": ("import os; os.kill(os.getpid(), 4)", "SIGILL"),
    "no stack": (
        "import _thread, resource\nresource.setrlimit(resource.RLIMIT_STACK, (1 << 12,) * 2)\n"
        "import os\nos.execv('/bin/true', ['true'] + ['x' * 4000] * 10)",
        "",
    ),
    "an alarm": ("import signal, time; signal.alarm(1); time.sleep(60)", "SIGALRM"),
    "its own processor limit": (
        "import resource\nresource.setrlimit(resource.RLIMIT_CPU, (1, 2))\nwhile True: pass",
        "SIGXCPU",
    ),
    "its own memory limit": (
        "import resource\nresource.setrlimit(resource.RLIMIT_AS, (1 << 26,) * 2)\nopen('/nothing')",
        "exit code 1",
    ),
    "its own limit of descriptors": (
        "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))\nopen('/etc/passwd')",
        "exit code 1",
    ),
    "the session's signal": ("import os, signal; os.killpg(0, signal.SIGHUP)", "SIGHUP"),
    "a real-time signal": ("import os; os.kill(os.getpid(), 63)", "signal 63"),
}


async def test_a_program_that_ends_in_an_odd_way_is_told_so_and_not_a_limit(grid):
    found = await at_once(grid, {name: code for name, (code, _) in ODD_ENDS.items()}, timeout_s=120, cpus=0.4)
    for name, (_, said) in ODD_ENDS.items():
        assert found[name].job.state is JobState.FAILED, (name, found[name])
        assert said in found[name].job.reason, name


WRONG = {
    "nothing": ("", None),
    "white space": ("\n \t\n", None),
    "NUL": ("a\0b", "null bytes"),
    "a syntax error": ("x = (", 'File "/job/job.py", line 1'),
    "a deep nesting": ("(" * 5000, "Error"),
    "a name that is not there": ("def f():\n    return nothing\nf()", "return nothing"),
    "an encoding": ("# coding: nonsense\nprint(1)", None),
    "a mark of the byte order": ("\ufeffprint(1)", None),
    "an exception that cannot be shown": (
        "class E(Exception):\n    def __str__(self): raise E\nraise E",
        "exception str() failed",
    ),
    "an exception group": ("raise ExceptionGroup('many', [ValueError(1), KeyError(2)])", "KeyError"),
    "an exception without an end": ("x = y = ValueError()\nx.__cause__ = y\nraise x", "ValueError"),
    "a hook that fails": ("import sys\nsys.excepthook = None\nraise ValueError('mine')", ""),
    "the exit as text": ("raise SystemExit('no \u202e\x1b[2J')", "no"),
}


async def test_a_program_that_is_wrong_gets_its_own_error(grid):
    found = await at_once(grid, {name: code for name, (code, _) in WRONG.items()})
    for name, (_, said) in WRONG.items():
        each = found[name]
        if said is None:
            each.ok()
        else:
            assert each.job.state is JobState.FAILED, (name, each)
            assert said.encode() in each.stderr, (name, each.stderr)
        assert b"boot" not in each.stderr, (name, each.stderr)
