"""Hostile and broken programs in real containers, and that the next job is none the worse for them."""

from __future__ import annotations

import asyncio
import json
import os
import socket

import psutil
import pytest
import pytest_asyncio

pytestmark = [pytest.mark.engine, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def _the_next_job_runs(box):
    yield
    assert (await box.run("print('next')")).ok().stdout == b"next\n"


# -- what a program is told and may do -----------------------------------------------------------------------


async def test_a_program_sees_its_arguments_its_environment_and_nothing_of_the_worker(box, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://user:secret@proxy:3128")
    monkeypatch.setenv("GRIDX_TOKEN", "secret")
    result = await box.run(
        "import json, os, sys; print(json.dumps([sys.argv, dict(os.environ), os.getcwd(), os.listdir('.')]))",
        args=("a", "b c"),
        env={"MINE": "1"},
        job_id=7,
        number=3,
    )
    argv, environ, folder, names = json.loads(result.ok().stdout)
    assert argv == ["/job/job.py", "a", "b c"]
    assert environ == {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": "/job",
        "LANG": "C.UTF-8",
        "USER": "nobody",
        "MINE": "1",
        "GRIDX_JOB": "7",
        "GRIDX_ATTEMPT": "3",
    }
    assert (folder, sorted(names)) == ("/job", ["job.py", "out"])


async def test_the_libraries_of_the_runtime_work_with_threads(box):
    code = """
import numpy, pandas, cloudpickle
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from concurrent.futures import ThreadPoolExecutor
x, y = load_iris(return_X_y=True)
assert RandomForestClassifier(n_estimators=10, n_jobs=2).fit(x, y).score(x, y) > 0.9
a = numpy.random.default_rng(1).random((200, 200))
assert numpy.allclose(a @ numpy.linalg.inv(a), numpy.eye(200), atol=1e-6)
assert pandas.DataFrame({"k": [1, 1, 2], "v": [1, 2, 3]}).groupby("k").v.sum().tolist() == [3, 3]
assert cloudpickle.loads(cloudpickle.dumps(lambda x: x + 1))(1) == 2
print(sum(ThreadPoolExecutor(4).map(lambda n: n * n, range(10))))
"""
    assert (await box.run(code, memory_mb=512)).ok().stdout == b"285\n"


async def test_multiprocessing_works_by_fork_and_by_spawn(box):
    code = """
import multiprocessing
def square(n): return n * n
if __name__ == "__main__":
    for method in ("fork", "spawn"):
        with multiprocessing.get_context(method).Pool(2) as pool:
            print(pool.map(square, [1, 2, 3]))
"""
    assert (await box.run(code)).ok().lines == ["[1, 4, 9]"] * 2


async def test_output_comes_while_the_program_runs(box):
    cancel = asyncio.Event()
    seen = asyncio.Event()

    async def sink(stream, data):
        seen.set()

    async def started():
        return

    code = "import time\nprint('.', end='')\ntime.sleep(60)"
    running = asyncio.create_task(box.sandbox.run(box.request(code), sink, started, cancel))
    await asyncio.wait_for(seen.wait(), 30)
    assert not running.done()
    cancel.set()
    assert (await running).outcome == "cancelled"


# -- how programs end ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "exit_code", "signal"),
    [
        ("import sys; sys.exit(3)", 3, None),
        ("import sys; sys.exit('no')", 1, None),
        ("import os; os._exit(137)", 137, None),
        ("import ctypes; ctypes.string_at(0)", None, 11),
        ("import os; os.kill(os.getpid(), 9)", None, 9),
        ("import os; os.abort()", None, 6),
        ("raise KeyboardInterrupt", 130, None),
    ],
)
async def test_a_program_that_fails_ends_with_its_own_status(box, code, exit_code, signal):
    outcome = (await box.run(code)).outcome
    assert (outcome.outcome, outcome.exit_code, outcome.signal) == ("failed", exit_code, signal)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("x = (", b'File "/job/job.py", line 1'),
        ("a\0b", b"null bytes"),
        ("def f():\n    return 1 / 0\nf()", b"return 1 / 0"),
        ("x = '\ud800'", b"surrogates not allowed"),
        ("(" * 5000, b"Error"),
    ],
)
async def test_a_program_that_is_wrong_fails_with_its_traceback(box, code, said):
    result = await box.run(code)
    assert result.how == "failed"
    assert result.outcome.exit_code == 1
    assert said in result.stderr
    assert b"boot" not in result.stderr


async def test_an_empty_program_succeeds(box):
    assert (await box.run("")).ok().stdout == b""


async def test_bytes_of_any_kind_are_kept_as_they_are(box):
    code = r"import sys; sys.stdout.buffer.write(b'\xff\x00\xc3('); print('\ud800\x1b[2J')"
    assert (await box.run(code)).ok().stdout == b"\xff\x00\xc3(\xed\xa0\x80\x1b[2J\n"


@pytest.mark.parametrize(
    "code",
    [
        "while True: pass",
        "import time; time.sleep(1000)",
        "import signal, time\n"
        "for n in signal.valid_signals() - {9, 19}: signal.signal(n, signal.SIG_IGN)\n"
        "time.sleep(1000)",
    ],
    ids=["busy", "asleep", "deaf"],
)
async def test_a_program_that_does_not_end_is_timed_out_with_its_output(box, code):
    result = await box.run(f"print('before', end='', flush=True)\n{code}", timeout_s=1)
    assert result.how == "timed_out"
    assert result.stdout == b"before"
    assert 1000 <= result.outcome.wall_ms < 3000
    assert result.outcome.exit_code is result.outcome.signal is None
    assert result.outcome.peak_memory_bytes > 0


async def test_cancel_ends_a_program_at_once(box):
    cancel = asyncio.Event()
    running = asyncio.create_task(box.run("import time; time.sleep(1000)", cancel=cancel))
    await asyncio.wait_for(box.started.wait(), 60)
    cancel.set()
    assert (await running).how == "cancelled"


async def test_cancel_before_there_is_a_place_runs_nothing(box):
    cancel = asyncio.Event()
    cancel.set()
    result = await box.run("print('no')", cancel=cancel, owner="never seen", memory_mb=64)
    assert (result.how, result.stdout) == ("cancelled", b"")


async def test_what_a_program_leaves_running_is_dead_when_it_has_ended(box):
    code = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(1000)
    os._exit(0)
print("parent")
"""
    assert (await box.run(code)).ok().stdout == b"parent\n"
    look = "import os; print(sorted(int(p) for p in os.listdir('/proc') if p.isdigit())[:-1])"
    assert (await box.run(look)).ok().stdout == b"[1]\n"


# -- limits --------------------------------------------------------------------------------------------------


async def test_a_program_that_takes_ten_times_its_memory_is_named_so_with_its_peak(box):
    result = await box.run("x = []\nwhile True: x.append(b'x' * (8 << 20))")
    assert result.how == "out_of_memory"
    assert "128 MiB" in result.outcome.reason
    assert 100 << 20 < result.outcome.peak_memory_bytes <= 128 << 20


@pytest.mark.parametrize(
    "code",
    [
        "bytearray(1 << 50)",
        "import numpy; numpy.zeros(1 << 50)",
        "import os\nif os.fork() == 0:\n    x = b'x' * (1 << 30)\nraise SystemExit(os.wait()[1] != 0)",
    ],
    ids=["MemoryError", "numpy's", "in a child"],
)
async def test_running_out_of_memory_in_another_way_is_named_so_too(box, code):
    assert (await box.run(code)).how == "out_of_memory"


async def test_a_peak_is_of_the_job_and_not_of_the_one_before(box):
    large = await box.run("x = b'x' * (64 << 20)")
    small = await box.run("pass")
    assert large.outcome.peak_memory_bytes > 64 << 20 > 2 * small.outcome.peak_memory_bytes


@pytest.mark.parametrize(
    "code",
    [
        "import os\nwhile True: os.fork()",
        "import threading, time\n"
        "for _ in range(10000): threading.Thread(target=time.sleep, args=(99,), daemon=True).start()",
    ],
    ids=["fork bomb", "threads"],
)
async def test_processes_and_threads_past_the_limit_are_refused_inside(box, code):
    result = await box.run(code)
    assert result.how == "failed"
    assert b"unavailable" in result.stderr or b"can't start new thread" in result.stderr


@pytest.mark.parametrize("folder", ["/tmp", "/job", "/dev/shm"])
async def test_a_full_folder_is_told_so_and_the_machine_s_disk_is_not_touched(box, folder):
    code = f"""
import errno
try:
    with open("{folder}/x", "wb", buffering=0) as file:
        while True: file.write(bytes(1 << 20))
except OSError as error:
    print(errno.errorcode[error.errno])
"""
    assert (await box.run(code)).ok().lines[0] in ("ENOSPC", "EFBIG")


async def test_a_million_empty_files_are_refused_inside(box):
    code = """
import errno, os
os.mkdir("/tmp/d")
try:
    for n in range(1_000_000): os.close(os.open(f"/tmp/d/{n}", os.O_CREAT))
except OSError as error:
    print(errno.errorcode[error.errno])
"""
    assert (await box.run(code)).ok().lines == ["ENOSPC"]


async def test_a_flood_is_capped_ended_and_costs_the_worker_no_memory(box):
    code = """
import os, threading
def pour(fd):
    while True: os.write(fd, b"x" * 65536)
threading.Thread(target=pour, args=(2,), daemon=True).start()
pour(1)
"""
    await box.run("pass")
    before = psutil.Process().memory_info().rss
    kept = {"stdout": 0, "stderr": 0}

    async def sink(stream, data):
        kept[stream] += len(data)

    async def started():
        return

    outcome = await box.sandbox.run(box.request(code), sink, started, asyncio.Event())
    assert psutil.Process().memory_info().rss - before < 20 << 20
    assert outcome.outcome == "failed"
    assert "64 MiB" in outcome.reason
    for length in kept.values():
        assert 1 << 20 < length < (1 << 20) + 200


async def test_output_past_the_cap_is_dropped_with_a_marker_and_the_program_goes_on(box):
    result = await box.run("for _ in range(100): print('x' * 99)\nraise SystemExit(5)", output_cap_bytes=1024)
    assert result.outcome.exit_code == 5
    assert result.stdout.startswith((b"x" * 99 + b"\n") * 10)
    head, marker = result.stdout[:1024], result.stdout[1024:]
    assert len(head) == 1024
    assert b"1024 bytes" in marker


async def test_output_at_exactly_the_cap_has_no_marker(box):
    result = await box.run("print('x' * 1023)", output_cap_bytes=1024)
    assert result.ok().stdout == b"x" * 1023 + b"\n"


# -- walls ---------------------------------------------------------------------------------------------------


async def test_nothing_outside_the_job_s_own_folders_is_writable(box):
    code = """
import os
for folder, below, names in os.walk("/"):
    if folder in ("/proc", "/sys"): below.clear(); continue
    try:
        with open(os.path.join(folder, "x"), "w"): print(folder)
    except OSError: pass
for path in ("/etc/passwd", "/usr/bin/python3", "/proc/sys/kernel/hostname", "/sys/power/state"):
    try:
        with open(path, "a"): print(path)
    except OSError: pass
"""
    found = set((await box.run(code)).ok().lines)
    assert found == {"/tmp", "/job", "/job/out", "/dev/shm"}


async def test_no_address_can_be_reached(box):
    with socket.create_server(("127.0.0.1", 0)) as server:
        code = f"""
import socket
here = ("127.0.0.1", {server.getsockname()[1]})
for address in (here, ("10.0.0.1", 80), ("1.1.1.1", 53), ("169.254.169.254", 80)):
    try: socket.create_connection(address, 5); print("reached", address)
    except OSError as error: pass
try: socket.getaddrinfo("example.com", 80); print("resolved")
except OSError: pass
print([line.split()[1] for line in open("/etc/resolv.conf") if line.startswith("nameserver")])
"""
        assert (await box.run(code)).ok().lines == ["['127.0.0.1']"]


SYSCALLS = {
    "add_key": (248, "0, 0, 0, 0, 0"),
    "bpf": (321, "0, 0, 0"),
    "chroot": (161, "b'/tmp'"),
    "clone into a user namespace": (56, "0x10000011, 0, 0, 0, 0"),
    "fanotify_init": (300, "0, 0"),
    "init_module": (175, "0, 0, 0"),
    "io_uring_enter": (426, "0, 0, 0, 0, 0"),
    "io_uring_register": (427, "0, 0, 0, 0"),
    "io_uring_setup": (425, "1, ctypes.create_string_buffer(256)"),
    "ioprio_set": (251, "1, 1, 0"),
    "kcmp": (312, "1, 1, 0, 0, 0"),
    "kexec_load": (246, "0, 0, 0, 0"),
    "keyctl": (250, "0, 0, 0, 0, 0"),
    "mount": (165, "b'none', b'/tmp', b'tmpfs', 0, 0"),
    "move_mount": (429, "0, 0, 0, 0, 0"),
    "name_to_handle_at": (303, "-100, b'/tmp', 0, 0, 0"),
    "open_by_handle_at": (304, "0, 0, 0"),
    "perf_event_open": (298, "0, 0, -1, -1, 0"),
    "pidfd_getfd": (438, "0, 0, 0"),
    "pivot_root": (155, "b'/tmp', b'/tmp'"),
    "prlimit64 of the supervisor": (302, "1, 7, ctypes.create_string_buffer(16), 0"),
    "process_vm_readv": (310, "1, 0, 0, 0, 0, 0"),
    "process_vm_writev": (311, "1, 0, 0, 0, 0, 0"),
    "ptrace": (101, "16, 1, 0, 0"),
    "quotactl": (179, "0, 0, 0, 0"),
    "reboot": (169, "0xfee1dead, 672274793, 0, 0"),
    "request_key": (249, "0, 0, 0, 0"),
    "setns": (308, "0, 0"),
    "setpriority of the supervisor": (141, "0, 1, 19"),
    "settimeofday": (164, "0, 0"),
    "swapon": (167, "b'/tmp', 0"),
    "syslog": (103, "3, 0, 0"),
    "umount2": (166, "b'/tmp', 0"),
    "unshare": (272, "0x10000000"),
    "userfaultfd": (323, "0"),
    "vmsplice": (278, "0, 0, 0, 0"),
}


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="numbers of system calls of x86-64")
async def test_system_calls_that_lead_out_are_refused_one_by_one(box):
    calls = "\n".join(f"call({name!r}, {number}, {args})" for name, (number, args) in SYSCALLS.items())
    code = f"""
import ctypes, errno
libc = ctypes.CDLL(None, use_errno=True)
def call(name, number, *args):
    result = libc.syscall(number, *args)
    if result == 0 and name.startswith("clone"): __import__("os")._exit(0)
    print(name, "|", errno.errorcode.get(ctypes.get_errno()) if result == -1 else result)
{calls}
"""
    found = dict(line.split(" | ") for line in (await box.run(code)).ok().lines)
    assert found == dict.fromkeys(SYSCALLS, "EPERM")


async def test_the_flags_of_clone3_cannot_be_read_so_it_is_not_there(box):
    code = """
import ctypes
print(ctypes.CDLL(None, use_errno=True).syscall(435, 0, 0), ctypes.get_errno())
"""
    assert (await box.run(code)).ok().lines == ["-1 38"]


async def test_sockets_of_other_families_are_refused(box):
    code = """
import socket
vsock, packet, alg = (40, 1, 0), (17, 3, 3), (38, 5, 0)
tipc, can, bluetooth = (30, 1, 0), (29, 3, 1), (31, 3, 1)
raw = [(2, 3, 1), (2, 3, 255), (10, 3, 58)]
netlink = [(16, 3, protocol) for protocol in (2, 6, 9, 12, 15, 21)]
for family in (vsock, packet, alg, tipc, can, bluetooth, *raw, *netlink):
    try: socket.socket(*family); print("open", family)
    except PermissionError: pass
"""
    assert (await box.run(code)).ok().stdout == b""


async def test_the_supervisor_is_out_of_the_program_s_reach(box):
    code = """
import os, signal
print(sorted(int(fd) for fd in os.listdir("/proc/self/fd") if os.path.exists("/proc/self/fd/" + fd)))
for name in ("environ", "mem", "maps", "fd", "fd/0", "fd/1", "cwd", "exe", "root/etc", "task/1/mem", "io"):
    path = "/proc/1/" + name
    try:
        os.listdir(path) if os.path.isdir(path) else os.close(os.open(path, os.O_RDONLY))
        print("open", name)
    except OSError: pass
for name in ("oom_score_adj", "mem", "timerslack_ns", "coredump_filter", "autogroup"):
    try: os.write(os.open("/proc/1/" + name, os.O_WRONLY), b"1"); print("written", name)
    except OSError: pass
for number in signal.valid_signals():
    os.kill(1, number)
print("alive")
"""
    assert (await box.run(code)).ok().lines == ["[0, 1, 2]", "alive"]


async def test_two_programs_at_once_see_nothing_of_each_other(box):
    code = """
import os, socket, time
server = socket.create_server(("127.0.0.1", 4242))
for folder in ("/tmp", "/dev/shm", "/job"):
    open(f"{folder}/{os.environ['GRIDX_JOB']}", "w").close()
time.sleep(1)
processes = [p for p in os.listdir("/proc") if p.isdigit()]
print(sorted(os.listdir("/tmp") + os.listdir("/dev/shm")), len(processes))
"""
    one, two = await asyncio.gather(
        box.run(code, owner="ann", job_id=1), box.run(code, owner="bob", job_id=2)
    )
    assert one.ok().lines == ["['1', '1'] 2"]
    assert two.ok().lines == ["['2', '2'] 2"]
