"""Jobs beside each other and one after the other: none sees, takes or inherits anything of another."""

from __future__ import annotations

import asyncio
import json

import pytest
from kit.attacks import CONTAINERS, LOOK, NOTHING, ended, only_supervisors

from gridx.messages import JobSpec, JobState

pytestmark = pytest.mark.engine

WORKER = CONTAINERS
KEPT = 32
SMALL = {"cpus": 0.5, "memory_mb": 128, "timeout_s": 60}

# Both take the same names, and look around again and again until they are cancelled.
BESIDE = r"""
import ctypes, json, os, socket, sys, time
libc = ctypes.CDLL(None, use_errno=True)
mine = os.environ["MINE"]
got = {}
def take(name, act):
    try: got[name] = act() is not None
    except OSError as error: got[name] = str(error)
server, datagrams = socket.socket(), socket.socket(type=socket.SOCK_DGRAM)
abstract = socket.socket(socket.AF_UNIX)
take("port", lambda: server.bind(("0.0.0.0", 4242)) or server.listen() or True)
take("datagrams", lambda: datagrams.bind(("0.0.0.0", 4242)) or True)
take("abstract", lambda: abstract.bind("\0shared") or True)
take("shm", lambda: open("/dev/shm/shared", "x").write(mine))
take("tmp", lambda: open("/tmp/shared", "x").write(mine))
take("shmget", lambda: None if libc.shmget(7, 4096, 0o3600) < 0 else 1)
take("msgget", lambda: None if libc.msgget(7, 0o3600) < 0 else 1)
take("semget", lambda: None if libc.semget(7, 1, 0o3600) < 0 else 1)
watches = 0
while (fd := libc.inotify_init()) >= 0 and watches < 100: watches += 1
take("inotify", lambda: watches or None)
KINDS = ("net", "ipc", "pid", "mnt", "uts", "cgroup")
others = set()
while True:
    others |= {p for p in os.listdir("/proc") if p.isdigit()} - {"1", str(os.getpid())}
    try: datagrams.setblocking(False); others.add(datagrams.recv(100).decode())
    except BlockingIOError: pass
    for pid in range(2, 300):
        if pid != os.getpid():
            try: os.kill(pid, 9); others.add(f"killed {pid}")
            except ProcessLookupError: pass
    time.sleep(0.05)
    seen = {
        "processes": sorted(others),
        "files": {f: sorted(os.listdir(f)) for f in ("/tmp", "/dev/shm", "/dev/mqueue")},
        "read": [open("/tmp/shared").read(), open("/dev/shm/shared").read()],
        "sockets": [line.split()[-1] for line in open("/proc/net/unix").read().splitlines()[1:]],
        "sysv": [len(open(f"/proc/sysvipc/{k}").readlines()) - 1 for k in ("shm", "sem", "msg")],
        "user": os.getuid(),
        "spaces": {k: os.readlink("/proc/self/ns/" + k) for k in KINDS},
    }
    print(json.dumps([got, seen]), flush=True)
"""


async def test_two_jobs_at_once_see_nothing_of_each_other(grid, until):
    people = {"ann": grid.ann, "bob": grid.bob}
    jobs = {
        name: await person.submit(JobSpec(code=BESIDE, env={"MINE": name}, **SMALL))
        for name, person in people.items()
    }

    async def looks() -> list[int]:
        said = [await person.output(jobs[name].id) for name, person in people.items()]
        return [text.count(b"\n") for text in said]

    async def at_once() -> bool:
        return min(await looks()) > 0

    await until(at_once, "both to run")
    before = await looks()

    async def again() -> bool:
        return all(now > then + 2 for now, then in zip(await looks(), before, strict=True))

    await until(again, "both to look around while the other runs")
    said = {}
    for name, person in people.items():
        await person.cancel(jobs[name].id)
        each = await ended(person, jobs[name].id)
        assert each.job.state is JobState.CANCELLED
        said[name] = json.loads(each.stdout[: each.stdout.rindex(b"\n")].splitlines()[-1])
    for name, (got, seen) in said.items():
        assert set(got.values()) == {True}, (name, got)
        assert seen["processes"] == []
        assert seen["files"] == {"/tmp": ["shared"], "/dev/shm": ["shared"], "/dev/mqueue": []}
        assert seen["read"] == [name, name]
        assert [place for place in seen["sockets"] if place.startswith("@")] == ["@shared"]
        assert seen["sysv"] == [1, 1, 1]
    (_, ann), (_, bob) = said.values()
    assert ann["user"] != bob["user"]
    assert {kind for kind in ann["spaces"] if ann["spaces"][kind] == bob["spaces"][kind]} == set()


LEAVE = {
    "files": r"""
for folder in ("/tmp", "/job", "/dev/shm"):
    for n in range(200): open(f"{folder}/{n}", "w").write("secret")
    os.symlink("/etc/passwd", f"{folder}/link"); os.mkfifo(f"{folder}/fifo")
    os.link(f"{folder}/1", f"{folder}/hard")
    socket.socket(socket.AF_UNIX).bind(f"{folder}/socket")
    os.makedirs(f"{folder}/closed/inner")
    os.chmod(f"{folder}/closed/inner", 0); os.chmod(f"{folder}/closed", 0)
    for name in (b"\xff\n\x1b[2J", "\u202e".encode() * 80, b"n" * 255, b"-rf", b" ", b"..."):
        os.mkdir(os.fsencode(folder) + b"/" + name)
""",
    "deep folders": r"""
os.chdir("/tmp")
for n in range(1000): os.mkdir("d" * 200); open("f", "w").close(); os.chdir("d" * 200)
os.chdir("/dev/shm")
for n in range(1000): os.mkdir("d"); os.chmod(".", 0o300) if n else None; os.chdir("d")
""",
    "many files": r"""
for folder in ("/tmp/a", "/tmp/b", "/job/c"):
    os.makedirs(folder)
    for n in range(900): os.close(os.open(f"{folder}/{n}", os.O_CREAT))
""",
    "its own program, gone or another": r"""
os.unlink("/job/job.py"); os.mkdir("/job/job.py"); os.symlink("/etc/passwd", "/job/job.py/job.py")
""",
    "its own program, a link": r"""
os.unlink("/job/job.py"); os.symlink("/dev/shm/elsewhere", "/job/job.py"); os.mkfifo("/dev/shm/elsewhere")
""",
    "objects of the kernel": r"""
for n in range(500):
    libc.shmget(n + 1, 4096, 0o1000); libc.semget(n + 1, 3, 0o1666)
    libc.msgsnd(libc.msgget(n + 1, 0o1000), ctypes.create_string_buffer(64), 8, 0o4000)
libc.mq_open(b"/left", 0o102, 0o600, None)
from multiprocessing import shared_memory, resource_tracker
shared_memory.SharedMemory(name="left", create=True, size=4096)
libc.sem_open(b"/left", 0o100, 0o600, 1)
os.memfd_create("left"); os.openpty(); os.eventfd(1); libc.timerfd_create(1, 0); libc.inotify_init()
timer = ctypes.c_void_p()
for n in range(100): libc.timer_create(0, None, ctypes.byref(timer))
import fcntl
for folder in ("/tmp", "/job", "/dev/shm"): fcntl.flock(os.open(folder, os.O_RDONLY), fcntl.LOCK_EX)
""",
    "sockets": r"""
kept = []
for n in range(40):
    server = socket.socket(); server.bind(("127.0.0.1", 5000 + n)); server.listen()
    near = socket.create_connection(server.getsockname()); far, _ = server.accept()
    near.sendall(b"secret" * 1000)
    if n % 2: near.close(); far.close(); server.close()
    else: kept += [near, far, server]
abstract = socket.socket(socket.AF_UNIX); abstract.bind("\0left"); abstract.listen()
""",
    "processes": r"""
for n in range(20):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            libc.prctl(15, b"python3", 0, 0, 0); libc.prctl(4, 0, 0, 0, 0)
            for number in range(1, 65):
                try: signal.signal(number, signal.SIG_IGN)
                except (OSError, ValueError): pass
            time.sleep(1000)
        os._exit(0)
""",
    "itself, changed": r"""
import builtins, resource
builtins.left = sys.left = 1
os.environ["LEFT"] = "1"
sys.path.insert(0, "/tmp"); open("/tmp/json.py", "w").write("raise SystemExit('taken over')")
os.makedirs("/job/.local/lib/python3.12/site-packages", exist_ok=True)
open("/job/sitecustomize.py", "w").write("print('taken over')")
open("/tmp/usercustomize.py", "w").write("1/0")
os.umask(0o777); os.nice(15); os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
for name in ("NOFILE", "FSIZE", "CPU"): resource.setrlimit(getattr(resource, "RLIMIT_" + name), (20, 20))
""",
    "the supervisor, stirred": r"""
for number in range(1, 65):
    for _ in range(50):
        try: os.kill(1, number)
        except OSError: pass
for n in range(300):
    if os.fork() == 0: os._exit(n % 256)
    os.wait()
try: os.sched_setscheduler(1, os.SCHED_BATCH, os.sched_param(0))
except OSError: pass
try: os.sched_setaffinity(1, {0})
except OSError: pass
libc.syscall(314 if os.uname().machine == "x86_64" else 274, 1, ctypes.create_string_buffer(48), 0)
""",
}
HEAD = """
import ctypes, os, signal, socket, sys, time
libc = ctypes.CDLL(None, use_errno=True)
"""
# The state of the interpreter and of the process, besides what LOOK sees.
SELF = """
import builtins, json, os, resource, sys
print(json.dumps([
    hasattr(builtins, "left"), hasattr(sys, "left"), os.getenv("LEFT"), os.umask(0o022), os.nice(0),
    os.sched_getscheduler(0), os.sched_getaffinity(0) == os.sched_getaffinity(1),
    [resource.getrlimit(limit) for limit in (resource.RLIMIT_NOFILE, resource.RLIMIT_CPU)], sys.path[0],
]))
"""


async def test_the_next_job_finds_nothing_of_the_last(grid):
    for name, code in LEAVE.items():
        job = await grid.bob.submit(JobSpec(code=f"{HEAD}{code}\nos._exit(7)", name=name, **SMALL))
        left = await ended(grid.bob, job.id)
        assert left.job.state is JobState.FAILED, (name, left)
        assert "exit code 7" in left.job.reason, (name, left)
        looked = await ended(grid.bob, (await grid.bob.submit(JobSpec(code=LOOK, **SMALL))).id)
        found = json.loads(looked.ok().stdout)
        assert found == NOTHING, name
        seen = await ended(grid.bob, (await grid.bob.submit(JobSpec(code=SELF, **SMALL))).id)
        assert json.loads(seen.ok().stdout) == [
            *(False, False, None, 0o022, 0, 0, True, [[256, 256], [-1, -1]], "/job"),
        ], name
    await only_supervisors(grid)


async def test_another_owner_s_job_never_gets_a_place_that_was_used(grid):
    where = "import os; print(os.readlink('/proc/self/ns/pid'))"
    places = {}
    for name, person in (("ann", grid.ann), ("bob", grid.bob)):
        jobs = await asyncio.gather(*(person.submit(JobSpec(code=where, **SMALL)) for _ in range(4)))
        places[name] = {(await ended(person, job.id)).ok().stdout for job in jobs}
    assert places["ann"].isdisjoint(places["bob"])
