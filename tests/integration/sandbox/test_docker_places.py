"""Places that are started ahead or used again: quick, and the next job finds nothing of the last."""

from __future__ import annotations

import asyncio
import json

import pytest
import pytest_asyncio

pytestmark = [pytest.mark.engine, pytest.mark.asyncio(loop_scope="module")]

# A program sees which place it is in by the time at which the supervisor started.
WHERE = "print(open('/proc/1/stat').read().split()[21])"


async def place_of(box, **fields) -> str:
    return (await box.run(WHERE, **fields)).ok().stdout.decode()


async def test_the_same_owner_s_next_job_runs_in_the_same_place(box):
    assert await place_of(box) == await place_of(box)


async def test_another_owner_s_job_never_runs_in_a_place_that_was_used(box):
    used = {await place_of(box, owner="ann") for _ in range(2)}
    assert await place_of(box, owner="bob") not in used
    assert await place_of(box, owner="ann") in used


async def test_the_next_job_finds_nothing_of_the_last(box):
    leave = """
import ctypes, mmap, os, socket, subprocess, sys, time
from multiprocessing import shared_memory
for folder in ("/tmp", "/job", "/dev/shm"):
    for n in range(100): open(f"{folder}/{n}", "w").write("secret")
    os.symlink("/etc/passwd", f"{folder}/link")
    os.mkfifo(f"{folder}/fifo")
    os.link(f"{folder}/1", f"{folder}/hard")
    deep = folder
    for _ in range(60):
        deep += "/" + "d" * 60
        os.mkdir(deep)
        open(deep + "/file", "w").close()
        if len(deep) > 3500: break
    os.makedirs(f"{folder}/closed/inner")
    os.chmod(f"{folder}/closed/inner", 0)
    os.chmod(f"{folder}/closed", 0)
    open(f"{folder}/\\udcff\\n\\u202e", "w").close()
shared_memory.SharedMemory(name="left", create=True, size=4096)
libc = ctypes.CDLL(None, use_errno=True)
print(libc.shmget(1234, 4096, 0o1666) >= 0, libc.semget(1234, 1, 0o1666) >= 0, libc.msgget(1234, 0o1666) >= 0)
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"], start_new_session=True)
server = socket.socket(socket.AF_UNIX)
server.bind("\\0left")
os._exit(0)
"""
    look = """
import json, os
print(json.dumps({
    "tmp": os.listdir("/tmp"), "job": sorted(os.listdir("/job")), "shm": os.listdir("/dev/shm"),
    "mqueue": os.listdir("/dev/mqueue"),
    "sysv": [len(open(f"/proc/sysvipc/{k}").readlines()) for k in ("shm", "sem", "msg")],
    "processes": sorted(int(p) for p in os.listdir("/proc") if p.isdigit() and int(p) != os.getpid()),
    "sockets": [l for l in open("/proc/net/unix") if "left" in l],
    "modes": [oct(os.stat(f).st_mode & 0o7777) for f in ("/tmp", "/job", "/dev/shm")],
}))
"""
    before = await place_of(box)
    assert (await box.run(leave)).ok().lines == ["True True True"]
    found = json.loads((await box.run(look)).ok().stdout)
    assert found == {
        "tmp": [],
        "job": ["job.py", "out"],
        "shm": [],
        "mqueue": [],
        "sysv": [1, 1, 1],
        "processes": [1],
        "sockets": [],
        "modes": ["0o1777"] * 3,
    }
    assert await place_of(box) == before


async def test_a_job_s_own_state_of_the_interpreter_is_gone_with_it(box):
    assert (
        await box.run("import sys, builtins, os; sys.left = builtins.left = 1; os.environ['left'] = '1'")
    ).ok()
    code = "import sys, builtins, os; print([hasattr(x, 'left') for x in (sys, builtins)], os.getenv('left'))"
    assert (await box.run(code)).ok().lines == ["[False, False] None"]


@pytest.mark.parametrize(
    "code",
    [
        "import os; os.sched_setaffinity(1, {0})",
        "import os; os.sched_setscheduler(1, os.SCHED_BATCH, os.sched_param(0))",
        "import os\nfor n in range(8000): os.close(os.open(f'/dev/shm/{n}', os.O_CREAT))\n"
        "for n in range(4000): os.mkdir(f'/tmp/{n}')",
    ],
    ids=["affinity", "scheduler", "many files"],
)
async def test_a_place_is_used_again_only_when_it_is_as_before(box, code):
    before = await place_of(box)
    await box.run(code)
    result = await box.run(
        "import os; print(sorted(os.sched_getaffinity(1)) == sorted(os.sched_getaffinity(0)),"
        "os.sched_getscheduler(0), len(os.listdir('/tmp')), len(os.listdir('/dev/shm')))\n" + WHERE
    )
    same, where = result.ok().lines
    assert same == "True 0 0 0"
    if "sched" in code:
        assert f"{where}\n" != before


async def test_a_place_that_was_killed_is_not_used_again(box):
    before = await place_of(box)
    assert (await box.run("while True: pass", timeout_s=1)).how == "timed_out"
    assert await place_of(box) != before


async def test_limits_are_changed_for_the_job_that_comes(box):
    code = (
        """
import os
for path in ("memory/memory.limit_in_bytes", "memory.max"):
    if os.path.exists("/sys/fs/cgroup/" + path): print(open("/sys/fs/cgroup/" + path).read().strip())
for path in ("pids/pids.max", "pids.max"):
    if os.path.exists("/sys/fs/cgroup/" + path): print(open("/sys/fs/cgroup/" + path).read().strip())
"""
        + WHERE
    )
    memory, pids, place = (await box.run(code, memory_mb=128)).ok().lines
    assert (int(memory), int(pids)) == (128 << 20, 64)
    memory, pids, same = (await box.run(code, memory_mb=200, pids=100, cpu_millis=500)).ok().lines
    assert (int(memory), int(pids), same) == (200 << 20, 100, place)
    assert (await box.run("x = []\nwhile True: x.append(b'x' * (8 << 20))")).how == "out_of_memory"


@pytest.mark.parametrize("memory_mb", [64, 100, 2048])
async def test_the_temporary_folders_fit_into_the_memory(box, memory_mb):
    code = """
import os
for folder in ("/tmp", "/job", "/dev/shm"):
    try:
        with open(folder + "/x", "wb", buffering=0) as file:
            while file.tell() < (40 << 20): file.write(bytes(1 << 20))
    except OSError: pass
    os.unlink(folder + "/x")
"""
    (await box.run(code, memory_mb=memory_mb)).ok()


@pytest_asyncio.fixture(loop_scope="module")
async def open_box(make_docker, make_box, containers_of):
    """Sandboxes with other settings; each is closed and has left nothing."""
    opened = []

    async def enter(**settings):
        sandbox = make_docker(**settings)
        await sandbox.open()
        opened.append(sandbox)
        return make_box(sandbox, "default")

    yield enter
    for sandbox in opened:
        await sandbox.close()
        assert containers_of(sandbox) == []


async def test_without_reuse_a_place_is_used_once(open_box):
    box = await open_box(reuse=False, warm=0)
    assert len({await place_of(box) for _ in range(3)}) == 3


async def test_a_warm_place_is_ready_before_the_job_comes_and_replaced_after(open_box, until, containers_of):
    box = await open_box(warm=1, reuse=False)

    async def ready():
        return (await box.sandbox.status()).details["places ready"] == "1"

    await until(ready, "a place to be started ahead")
    before = {c["Id"] for c in containers_of(box.sandbox) if c["Labels"]["gridx.kind"] == "job"}
    assert (await box.run("print(1)", memory_mb=512)).ok()
    await until(ready, "the place to be replaced")

    async def replaced():
        found = {c["Id"] for c in containers_of(box.sandbox) if c["Labels"]["gridx.kind"] == "job"}
        return len(found) == 1 and not found & before

    await until(replaced, "the used place to be gone")


async def test_a_cancelled_caller_leaves_no_container(open_box, until, containers_of):
    box = await open_box(warm=0)
    for wait_for_start in (False, True):
        running = asyncio.create_task(box.run("import time; time.sleep(1000)"))
        if wait_for_start:
            await asyncio.wait_for(box.started.wait(), 60)
        else:
            await until(lambda: containers_of(box.sandbox), "a container to be made")
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

        async def gone():
            return not [c for c in containers_of(box.sandbox) if c["Labels"]["gridx.kind"] == "job"]

        await until(gone, "the container to be removed")


async def test_many_owners_at_once_each_get_their_own(open_box):
    box = await open_box()
    results = await asyncio.gather(*(box.run(f"print({n})", owner=f"owner{n}") for n in range(6)))
    assert [result.ok().stdout for result in results] == [f"{n}\n".encode() for n in range(6)]


async def test_a_job_finds_no_connection_of_another_owner_s_in_the_network_it_inherits(open_box):
    leave = """
import os, socket
server = socket.create_server(("127.0.0.1", 4321))
near = socket.create_connection(server.getsockname())
far, _ = server.accept()
near.close(); far.close()
print(os.readlink("/proc/self/ns/net"))
raise SystemExit(0)
"""
    look = """
import os
print(os.readlink("/proc/self/ns/net"))
for kind in ("tcp", "tcp6", "udp", "unix"): print(kind, open("/proc/net/" + kind).read().count("\\n") - 1)
"""
    box = await open_box(warm=0, reuse=False)
    (network,) = (await box.run(leave, owner="ann")).ok().lines
    (await box.run("pass", owner="ann")).ok()
    found = (await box.run(look, owner="bob")).ok().lines
    assert found == [network, "tcp 0", "tcp6 0", "udp 0", "unix 0"]


async def test_what_the_kernel_counts_for_a_user_is_each_job_s_own(box):
    take = """
import ctypes, os, sys, time
libc = ctypes.CDLL(None, use_errno=True)
taken = []
while (fd := libc.inotify_init()) >= 0: taken.append(fd)
print(len(taken), flush=True)
while not os.path.exists("/tmp/never"): time.sleep(0.05)
"""
    cancel = asyncio.Event()
    taking = asyncio.create_task(box.run(take, owner="ann", cancel=cancel))
    await asyncio.wait_for(box.started.wait(), 60)
    try:
        code = "import ctypes, os; print(ctypes.CDLL(None).inotify_init() >= 0, os.getuid())"
        here, mine = (await box.run(code, owner="bob")).ok().stdout.split()
    finally:
        cancel.set()
    assert int((await taking).lines[0]) > 10
    assert here == b"True"
    assert (await box.run("import os; print(os.getuid())", owner="cid")).ok().stdout.strip() != mine
