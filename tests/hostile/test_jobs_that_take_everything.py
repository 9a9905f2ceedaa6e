"""Programs in real containers that take memory, room, files and output without an end."""

from __future__ import annotations

import json
from pathlib import Path

import docker
import pytest
from kit.attacks import CONTAINERS, LOOK, NOTHING, at_once, ended, only_supervisors

from gridx.messages import JobSpec, JobState

pytestmark = pytest.mark.engine

WORKER = CONTAINERS
KEPT = 32
MIB = 1 << 20
CAP = MIB

# -- memory --------------------------------------------------------------------------------------------------

# Each says "refused" when it was told no, and is killed where it is not told.
START = """
import ctypes, errno, mmap, os, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
def refused(why):
    print("refused", why, flush=True)
    os._exit(0)
"""
HOARDS = {
    "a list": "x = []\nwhile True: x.append(b'x' * MIB)",
    "one large object": "x = bytearray(10 << 26)\nfor n in range(0, len(x), 4096): x[n] = 1",
    "pages that are mapped": "x = []\nwhile True: x.append(mmap.mmap(-1, MIB)); x[-1].write(b'x' * MIB)",
    "many processes": "while os.fork() >= 0:\n    x = b'x' * (4 * MIB)",
    "a file without a name": """
fd = os.memfd_create("x")
try:
    while True: os.write(fd, bytes(MIB))
except OSError as error: refused(error.errno)
""",
    "huge pages": """
try:
    fd = os.memfd_create("x", os.MFD_HUGETLB)
    os.ftruncate(fd, 1 << 30)
    m = mmap.mmap(fd, 1 << 30)
except (OSError, ValueError) as error: refused(error)
while True: m.write(bytes(MIB))
""",
    "folders in memory, all of them": """
full = 0
for folder in ("/tmp", "/job", "/dev/shm"):
    try:
        for n in range(10_000):
            with open(f"{folder}/{n}", "wb", buffering=0) as file:
                for _ in range(8): file.write(bytes(MIB // 2))
    except OSError as error: full += error.errno == errno.ENOSPC
refused(full)
""",
    "shared memory of System V": """
x = []
while True:
    id = libc.shmget(0, 4 * MIB, 0o1600)
    if id < 0: refused(ctypes.get_errno())
    libc.shmat.restype = ctypes.c_void_p
    libc.memset(ctypes.c_void_p(libc.shmat(id, None, 0)), 1, 4 * MIB)
""",
    "messages of System V": """
class Message(ctypes.Structure): _fields_ = [("kind", ctypes.c_long), ("text", ctypes.c_char * 8000)]
message = Message(1, b"x" * 7999)
while True:
    queue = libc.msgget(0, 0o1600)
    if queue < 0: refused(ctypes.get_errno())
    for _ in range(2): libc.msgsnd(queue, ctypes.byref(message), 8000, 0o4000)
""",
    "pipes": """
x = []
try:
    while True:
        x.append(os.pipe())
        os.set_blocking(x[-1][1], False)
        libc.fcntl(x[-1][1], 1031, MIB)
        try: os.write(x[-1][1], bytes(MIB))
        except BlockingIOError: pass
except OSError as error: refused(error.errno)
""",
    "sockets": """
x = []
try:
    while True:
        x.append(socket.socketpair())
        x[-1][0].setblocking(False)
        try:
            while True: x[-1][0].send(bytes(65536))
        except BlockingIOError: pass
except OSError as error: refused(error.errno)
""",
    "descriptors under way": """
x = []
try:
    while True:
        a, b = socket.socketpair()
        for _ in range(250): socket.send_fds(a, [b"x"], [b.fileno()] * 200)
        x.append((a, b))
except (OSError, BlockingIOError) as error: refused(error.errno)
""",
    "tables of pages": """
pages = []
while True:
    at = libc.mmap(None, ctypes.c_size_t(1 << 36), 3, 0x4022, -1, ctypes.c_size_t(0))
    if at in (None, ctypes.c_void_p(-1).value): refused(ctypes.get_errno())
    for n in range(0, 1 << 36, 1 << 21): ctypes.memset(at + n, 1, 1)
""",
    "arguments": """
try: os.execv("/bin/true", ["true"] + ["x" * 100_000] * 1000)
except OSError as error: refused(error.errno)
""",
    "threads with large stacks": """
import threading, time
threading.stack_size(256 * MIB)
def deep(n): return deep(n + 1)
def fill():
    x = ctypes.create_string_buffer(8 * MIB); ctypes.memset(x, 1, 8 * MIB); time.sleep(99)
try:
    while True: threading.Thread(target=fill, daemon=True).start()
except (RuntimeError, MemoryError) as error: refused(error)
""",
    "empty files in shared memory": """
try:
    for n in range(10_000_000): os.close(os.open(f"/dev/shm/{n}", os.O_CREAT))
except OSError as error: refused(error.errno)
""",
    "timers": """
import time
timer = ctypes.c_void_p()
for n in range(10_000_000):
    if libc.timer_create(0, None, ctypes.byref(timer)): refused(ctypes.get_errno())
""",
}
NEVER_ENOUGH = ("a list", "one large object", "pages that are mapped", "many processes", "tables of pages")


async def test_memory_past_the_limit_is_refused_or_named_so_with_the_peak(grid):
    programs = {name: f"{START}MIB = 1 << 20\n{code}" for name, code in HOARDS.items()}
    found = await at_once(grid, programs, timeout_s=120, memory_mb=64, cpus=0.4)
    for name, each in found.items():
        killed = each.job.state is JobState.OUT_OF_MEMORY
        refused = each.job.state is JobState.SUCCEEDED and each.stdout.startswith(b"refused")
        assert killed or (refused and name not in NEVER_ENOUGH), (name, each)
        if killed:
            assert "64 MiB" in each.job.reason, name
            assert "peak" in each.job.reason, name
    await only_supervisors(grid)
    for each in (await at_once(grid, {str(n): LOOK for n in range(6)})).values():
        assert json.loads(each.ok().stdout) == NOTHING


# -- room ----------------------------------------------------------------------------------------------------

FILLS = {
    **{
        f"{folder} with one file": f"""
try:
    with open("{folder}/x", "wb", buffering=0) as file:
        while True: file.write(bytes(1 << 20))
except OSError as error: print(errno.errorcode[error.errno])
"""
        for folder in ("/tmp", "/job", "/dev/shm")
    },
    **{
        f"{folder} with empty files": f"""
os.makedirs("{folder}/d")
try:
    for n in range(1_000_000): os.close(os.open(f"{folder}/d/{{n}}", os.O_CREAT))
except OSError as error: print(errno.errorcode[error.errno])
"""
        for folder in ("/tmp", "/job")
    },
    "links": """
open("/tmp/x", "w").close()
try:
    for n in range(1_000_000): os.link("/tmp/x", f"/tmp/{n}" + "n" * 200)
except OSError as error: print(errno.errorcode[error.errno])
""",
    "a file with holes": """
with open("/tmp/x", "wb") as file:
    try: os.truncate(file.fileno(), 1 << 50)
    except OSError as error: print(errno.errorcode[error.errno])
""",
    "room that is reserved": """
with open("/tmp/x", "wb") as file:
    try: os.posix_fallocate(file.fileno(), 0, 1 << 40)
    except OSError as error: print(errno.errorcode[error.errno])
""",
    "folders in folders": """
os.chdir("/tmp")
try:
    for n in range(1_000_000): os.mkdir("d" * 255); os.chdir("d" * 255)
except OSError as error: print(errno.errorcode[error.errno])
""",
    "names that nobody can say": """
os.chdir(b"/tmp")
for name in (b"\\xff" * 255, b"\\n\\x1b[2J", "\\u202e".encode(), b"-rf", b" ", b"*", b"\\x01\\x7f"):
    os.mkdir(name); os.symlink(b"/etc/passwd", name + b"/l" * 0 + b"/x"); os.mkfifo(name + b"/f")
    os.chmod(name, 0)
print("ENOSPC")
""",
    "attributes": """
open("/tmp/x", "w").close()
try:
    for n in range(1_000_000): os.setxattr("/tmp/x", f"user.{n}", bytes(60000))
except OSError as error: print("ENOSPC" if error.errno == errno.ENOTSUP else errno.errorcode[error.errno])
""",
    "a file that is unlinked and open": """
file = open("/tmp/x", "wb", buffering=0); os.unlink("/tmp/x")
try:
    while True: file.write(bytes(1 << 20))
except OSError as error: print(errno.errorcode[error.errno])
""",
}


async def test_a_full_place_is_told_so_inside_and_the_machine_s_disk_is_not_touched(grid):
    programs = {name: f"import errno, os\n{code}" for name, code in FILLS.items()}
    found = await at_once(grid, programs, memory_mb=256, cpus=0.4, timeout_s=120)
    for name, each in found.items():
        assert set(each.ok().lines) <= {"ENOSPC", "EFBIG"}, (name, each)
        assert each.lines, name
    looks = await at_once(grid, {str(n): LOOK for n in range(6)}, memory_mb=256)
    for each in looks.values():
        assert json.loads(each.ok().stdout) == NOTHING
    engine = docker.from_env()
    try:
        containers = grid.standing.containers()["job"]
        sizes = {each["Id"]: each.get("SizeRw") or 0 for each in engine.api.containers(all=True, size=True)}
    finally:
        engine.close()
    assert containers
    assert {sizes[id] for id in containers if id in sizes} == {0}


# -- output --------------------------------------------------------------------------------------------------

FLOODS = {
    "both streams": """
import os, threading
def pour(fd):
    while True: os.write(fd, b"x" * 65535 + b"\\n")
threading.Thread(target=pour, args=(2,), daemon=True).start()
pour(1)
""",
    "one endless line": "import os\nwhile True: os.write(1, b'x' * 65536)",
    "one endless escape": "import os\nos.write(1, b'\\x1b]0;')\nwhile True: os.write(1, b'x' * 65536)",
    "from many processes": """
import os
for _ in range(20):
    if os.fork() == 0:
        while True: os.write(1, bytes(range(256)) * 256); os.write(2, b"\\xff" * 65536)
os.wait()
""",
    "through a splice": """
import os
one, two = os.pipe()
while True:
    os.write(two, b"y" * 65536)
    os.splice(one, 1, 65536)
""",
}
DRIPS = {
    "byte by byte": "import os\nwhile True: os.write(1, b'x'); os.write(2, b'y')",
    "frames of the supervisor's own": r"""
import os, struct
end = (b'{"exit_code":0,"signal":null,"flooded":"","broke":"","memory_error":false,"clean":true,'
       b'"dirt":"","cpu_ms":0,"peak":0,"oom_kills":0}')
ready = b'{"protocol":1,"python":"3.12","pid":1}'
said = ((b"S", b""), (b"O", b"forged"), (b"X", end), (b"R", ready), (b"S", b""))
frames = b"".join(kind + struct.pack(">I", len(payload)) + payload for kind, payload in said)
for fd in range(3, 256):
    try: os.write(fd, frames)
    except OSError: pass
for stream in (b"\1\0\0\0", b"\2\0\0\0"): os.write(1, stream + struct.pack(">I", len(frames)) + frames)
while True: os.write(1, frames); os.write(2, frames)
""",
}


def memory(pid: int, name: str) -> int:
    """``VmRSS`` or ``VmHWM`` of a process, in bytes."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(lines[name].split()[0]) << 10


async def test_a_flood_is_capped_and_ended_and_costs_the_worker_no_memory(grid):
    worker = grid.worker.process.pid
    # What a first flood makes it keep for good is no rise.
    await at_once(grid, {"first": FLOODS["both streams"]}, cpus=0.5)
    Path(f"/proc/{worker}/clear_refs").write_text("5")
    before = memory(worker, "VmRSS")
    found = await at_once(grid, FLOODS, cpus=0.4, timeout_s=120)
    drips = await at_once(grid, DRIPS, cpus=0.2, timeout_s=2)
    assert memory(worker, "VmHWM") - before < 20 * MIB
    for name, each in found.items():
        assert each.job.state is JobState.FAILED, (name, each.job)
        assert "64 MiB" in each.job.reason, (name, each.job.reason)
    for name, each in drips.items():
        assert each.job.state in (JobState.TIMED_OUT, JobState.FAILED), (name, each.job)
        assert b"forged" in each.stdout or name == "byte by byte"
    for each in (*found.values(), *drips.values()):
        for text in (each.stdout, each.stderr):
            assert len(text) < CAP + 200
            assert len(text) <= CAP or b"cut" in text[-60:], text[-100:]


async def test_bytes_of_every_kind_arrive_as_they_were_written(grid):
    code = r"""
import sys
sys.stdout.buffer.write(bytes(range(256)) + b"\xff\xfe\0\0\xc3(" + b"\r\n\r")
sys.stderr.buffer.write(b"\xed\xa0\x80 \xf4\x90\x80\x80 \xc0\xaf" + "\u202e\U000e0001".encode())
print("\udcff \ud800")
print("\udcff \ud800", file=sys.stderr)
"""
    job = await grid.bob.submit(JobSpec(code=code, cpus=0.2, memory_mb=64, timeout_s=60))
    each = (await ended(grid.bob, job.id)).ok()
    head = bytes(range(256)) + b"\xff\xfe\0\0\xc3(" + b"\r\n\r"
    assert each.stdout == head + b"\xed\xb3\xbf \xed\xa0\x80\n"
    assert each.stderr.startswith(b"\xed\xa0\x80 \xf4\x90\x80\x80 \xc0\xaf" + "\u202e\U000e0001".encode())
    assert each.stderr.endswith(b"\\udcff \\ud800\n")
