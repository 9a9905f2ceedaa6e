"""The supervisor inside every sandbox: takes a job on stdin, forks it, pumps its output, cleans up, reports.

Standard library only, and sent in by the worker as one text, so that a runtime needs nothing but Python. In a
container it is PID 1: nothing inside can kill or trace it. What it writes are frames (see ``frames.py``):

    kind (1 byte), length (4 bytes, big-endian), payload
    R ready, S the job's code begins, O stdout, E stderr, U usage so far, X the end
    N the job's files could not be written, so it does not begin
    C the job has ended, its files are next: F a file, D its data, G its end, L what stays behind

What it reads is a request: two lengths (4 bytes each), a JSON header, the job's code, the bytes of its files.
One at a time. A byte while a job runs means that its time is over; the end of stdin, that nobody wants it any
more: all is killed.

A Python job is a fork of this process: the interpreter is warm, so it starts in a millisecond. A job in
another language is such a fork that runs the language's own interpreter. The job's descriptors are /dev/null
and two pipes into this process, so it can forge no frame. This process is not dumpable, so that the job,
which has the same user id, can open nothing below /proc/1.
"""

from __future__ import annotations

import _thread
import atexit
import builtins
import contextlib
import ctypes
import gc
import io
import json
import os
import resource
import select
import signal
import struct
import sys
import time
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    # Run ahead of this text, in the same namespace.
    from gridx.services.worker.sandbox.porter import collect, receive

PROTOCOL = 1
CHUNK = 1 << 16
MAX_HEADER = 16 << 20
MAX_CODE = 8 << 20
USAGE_EVERY_S = 1.0
WATCH_EVERY_S = 0.1
CLEAN_WITHIN_S = 3.0
DRAIN_WITHIN_S = 1.0
LINUX = sys.platform == "linux"

libc = ctypes.CDLL(None, use_errno=True)
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER = 1, 4, 36


class WorkerGone(Exception):
    """Nobody reads the frames, or what came is no request."""


# -- frames --------------------------------------------------------------------------------------------------


def send(kind: bytes, payload: bytes | dict[str, Any] = b"") -> None:
    """Write one frame, whole; waiting here is the back-pressure on the job."""
    if not isinstance(payload, bytes):
        payload = json.dumps(payload).encode()
    data = memoryview(kind + struct.pack(">I", len(payload)) + payload)
    try:
        while data:
            data = data[os.write(1, data) :]
    except OSError:
        raise WorkerGone from None


def read_exactly(count: int) -> bytes | None:
    """Read from stdin; None at its end."""
    parts = []
    while count:
        data = os.read(0, min(count, 1 << 20))
        if not data:
            return None
        parts.append(data)
        count -= len(data)
    return b"".join(parts)


def read_request() -> dict[str, Any] | None:
    """The next job, or None when there will be none."""
    lengths = read_exactly(8)
    if lengths is None:
        return None
    header_length, code_length = struct.unpack(">II", lengths)
    if header_length > MAX_HEADER or code_length > MAX_CODE:
        raise WorkerGone
    header, code = read_exactly(header_length), read_exactly(code_length)
    if header is None or code is None:
        return None
    request: dict[str, Any] = json.loads(header)
    request["code"] = code.decode("utf-8", "surrogatepass")
    return request


# -- what the machine says -----------------------------------------------------------------------------------


def read_number(path: str, word: bytes = b"") -> int | None:
    """A number in a file of the kernel: the first, or the one after a word; None when it is not there."""
    try:
        with open(path, "rb", buffering=0) as file:
            words = file.read(4096).split()
        return int(words[words.index(word) + 1] if word else words[0])
    except (OSError, ValueError, IndexError):
        return None


class Cgroup:
    """Memory of this container as the kernel counts it: cgroup v2, else v1, else nothing is known."""

    def __init__(self) -> None:
        two, one = "/sys/fs/cgroup/memory.", "/sys/fs/cgroup/memory/memory."
        if read_number(two + "current") is not None:
            self.now, self.most, self.events = two + "current", two + "peak", two + "events"
            self.cpu, self.cpu_word, self.cpu_unit = "/sys/fs/cgroup/cpu.stat", b"usage_usec", 1e-6
        else:
            self.cpu, self.cpu_word, self.cpu_unit = "/sys/fs/cgroup/cpuacct/cpuacct.usage", b"", 1e-9
            self.now, self.most = one + "usage_in_bytes", one + "max_usage_in_bytes"
            self.events = one + "oom_control"

    def cpu_s(self) -> float:
        """Processor time of everything that ran here, in seconds."""
        return (read_number(self.cpu, self.cpu_word) or 0) * self.cpu_unit

    def oom_kills(self) -> int:
        return read_number(self.events, b"oom_kill") or 0


def children(pid: int) -> list[int]:
    """Direct children, from the kernel's own list."""
    found: list[int] = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children") as file:
                found += map(int, file.read().split())
    except (OSError, ValueError):
        pass
    return found


def tree() -> list[int]:
    """Every process below this one; orphans come here too, since this is their reaper."""
    found: list[int] = []
    front = children(os.getpid())
    while front:
        found += front
        front = [below for pid in front for below in children(pid)]
    return found


def cpu_of(pids: list[int]) -> float:
    """Seconds of processor time that these processes, which still run, have used."""
    tick, total = os.sysconf("SC_CLK_TCK"), 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
            total += int(fields[11]) + int(fields[12])
        except (OSError, ValueError, IndexError):
            continue
    return total / tick


def resident(pids: list[int]) -> int:
    """Bytes that these processes have in memory; what they share is counted for each."""
    page, total = resource.getpagesize(), 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/statm") as file:
                total += int(file.read().split()[1]) * page
        except (OSError, ValueError, IndexError):
            continue
    return total


# -- killing and cleaning ------------------------------------------------------------------------------------


def reap(watch: Watch) -> bool:
    """Collect who has ended, with what each used. False when no child is left."""
    while True:
        try:
            pid, status, used = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            return False
        if pid == 0:
            return True
        watch.ended(pid, status, used)


def kill_all(watch: Watch) -> bool:
    """Kill everything the job left and wait until it is gone; False when something does not go.

    In a PID namespace of its own "all but this one" is one call, and no fork bomb can outrun it. Elsewhere
    the tree is walked until nobody is left.
    """
    end = time.monotonic() + CLEAN_WITHIN_S
    while True:
        for pid in [-1] if watch.alone else [-watch.main, *tree()]:
            try:
                os.kill(pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                continue
        if not reap(watch):
            return True
        if time.monotonic() > end:
            return False
        time.sleep(0.0005)


def empty(path: str, end: float) -> None:
    """Delete what is in a folder, the folder stays. However deep, wide and forbidden: what is nested is first
    moved up, so that neither paths nor descriptors pile up."""
    try:
        top = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return
    salt, count = os.urandom(8).hex(), 0
    try:
        while names := os.listdir(top):
            for name in names:
                if time.monotonic() > end:
                    raise OSError(f"{path} holds too much")
                try:
                    os.unlink(name, dir_fd=top)
                    continue
                except (IsADirectoryError, PermissionError):
                    os.chmod(name, 0o700, dir_fd=top)
                below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=top)
                try:
                    for inner in os.listdir(below):
                        if time.monotonic() > end:
                            raise OSError(f"{path} holds too much")
                        try:
                            os.unlink(inner, dir_fd=below)
                        except (IsADirectoryError, PermissionError):
                            count += 1
                            os.chmod(inner, 0o700, dir_fd=below)
                            os.rename(inner, f"{salt}-{count}", src_dir_fd=below, dst_dir_fd=top)
                finally:
                    os.close(below)
                os.rmdir(name, dir_fd=top)
    finally:
        os.close(top)


def remove_sysv() -> None:
    """Remove shared memory, semaphores and message queues of System V, which outlive their processes."""
    # Each takes the command IPC_RMID, which is 0; semctl has the number of a semaphore before it.
    for kind, remove in (("shm", libc.shmctl), ("sem", libc.semctl), ("msg", libc.msgctl)):
        try:
            with open(f"/proc/sysvipc/{kind}") as file:
                ids = [int(line.split()[1]) for line in file.readlines()[1:]]
        except FileNotFoundError:
            continue
        for id in ids:
            if remove(id, 0, 0) != 0:
                raise OSError(f"a {kind} of System V stays")


def standing() -> list[Any]:
    """What a job with the same user id can change about this process; a fork of it would inherit it."""
    return [
        os.getpriority(os.PRIO_PROCESS, 0),
        sorted(os.sched_getaffinity(0)),
        os.sched_getscheduler(0),
        [
            resource.getrlimit(limit)
            for limit in sorted(
                {getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")}
            )
        ],
    ]


def clean(folders: list[str], at_first: list[Any]) -> str:
    """Make the place as it was before the job; the reason when that did not succeed, else an empty text."""
    end = time.monotonic() + CLEAN_WITHIN_S
    try:
        for folder in folders:
            empty(folder, end)
        remove_sysv()
        left = [name for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()]
        if left:
            return "processes stay"
        if standing() != at_first:
            return "the supervisor's priority or limits were changed"
    except OSError as error:
        return f"{type(error).__name__}: {error}"
    return ""


# -- the job -------------------------------------------------------------------------------------------------


def become_job(request: dict[str, Any], out: int, err: int) -> None:
    """In the fork: drop everything of the supervisor and take on the job's limits, folder and environment."""
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        try:
            signal.signal(number, signal.SIG_DFL)
        except (OSError, ValueError):
            continue
    if not request["command"]:
        # As every Python program has them.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_IGN)
    os.setsid()
    if LINUX:
        libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)
        libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        try:
            # When memory runs out the job goes, not its supervisor, who is to say so.
            with open("/proc/self/oom_score_adj", "w") as file:
                file.write("1000")
        except OSError:
            pass
    if request["nice"]:
        os.nice(request["nice"])
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.closerange(3, min(resource.getrlimit(resource.RLIMIT_NOFILE)[0], 1 << 16))
    for name, value in request["rlimits"].items():
        limit = getattr(resource, name, None)
        if limit is not None:
            hard = resource.getrlimit(limit)[1]
            value = value if hard == resource.RLIM_INFINITY else min(value, hard)
            try:
                resource.setrlimit(limit, (value, value))
            except (OSError, ValueError):
                continue
    os.umask(0o022)
    os.chdir(request["folder"])
    if request["command"]:
        run_command(request)
    os.environ.clear()
    os.environ.update(request["env"])


def run_command(request: dict[str, Any]) -> None:
    """Become the interpreter of the program's language, as this process finds it. Never returns."""
    command, *options = request["command"]
    for folder in os.get_exec_path():
        try:
            os.execve(
                os.path.join(folder, command),
                [command, *options, request["program"], *request["args"]],
                request["env"],
            )
        except OSError:
            continue
    os.write(2, f"There is no {command} in this runtime.\n".encode())
    os._exit(127)


def run_code(request: dict[str, Any]) -> None:
    """Run the program as ``python -u job.py`` would, and end this process as it would end. Never returns."""
    path = os.path.join(request["folder"], request["program"])
    sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)), "utf-8")
    # Unbuffered, so that output is seen as it comes and none is lost in a crash or a kill. Lone surrogates
    # pass as bytes.
    for name, fd, errors in (("stdout", 1, "surrogatepass"), ("stderr", 2, "backslashreplace")):
        raw: Any = io.FileIO(fd, "wb", closefd=False)
        stream = io.TextIOWrapper(raw, "utf-8", errors=errors, newline="\n", write_through=True)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    setattr(sys, "__stdin__", sys.stdin)  # noqa: B010  typeshed has it as final
    sys.argv = [path, *request["args"]]
    sys.path.insert(0, request["folder"])
    main = ModuleType("__main__")
    main.__dict__.update(__file__=path, __cached__=None, __builtins__=builtins)
    sys.modules["__main__"] = main
    names = main.__dict__
    code = 0
    try:
        # A mark of the byte order is none of the program's.
        exec(compile(request["code"].removeprefix("\ufeff"), path, "exec", dont_inherit=True), names)
    except BaseException as error:
        code = exit_code(error, path)
    del main, names
    try:
        finish()
    except BaseException as error:
        code = exit_code(error, path)
    os._exit(code)


def exit_code(error: BaseException, path: str) -> int:
    """Show what ended the program as the interpreter does; the exit code that it leads to."""
    if isinstance(error, SystemExit):
        if error.code is None or isinstance(error.code, int):
            return (error.code or 0) & 0xFF
        sys.stderr.write(f"{error.code}\n")
        return 1
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename != path:
        trace = trace.tb_next
    error = error.with_traceback(trace)
    try:
        sys.excepthook(type(error), error, trace)
    except BaseException as second:
        second.__context__ = None
        below = second.__traceback__
        second = second.with_traceback(below and below.tb_next)
        sys.stderr.write("Error in sys.excepthook:\n")
        sys.__excepthook__(type(second), second, second.__traceback__)
        sys.stderr.write("\nOriginal exception was:\n")
        sys.__excepthook__(type(error), error, trace)
    return 130 if isinstance(error, KeyboardInterrupt) else 1


def finish() -> None:
    """What the interpreter does at its end, in its order: threads, ``atexit``, destructors, buffers.

    Tearing down every module, which the interpreter does too, would copy most of the supervisor's memory into
    this fork: 6 ms in which nothing happens that a program could see.
    """
    threading: Any = sys.modules.get("threading")
    if threading is not None:
        threading._shutdown()
    atexit._run_exitfuncs()
    sys.modules.pop("__main__", None)
    gc.collect()
    # Where a daemon thread holds on to the program's names, its open files stay; they are written out.
    left = gc.get_objects() if _thread._count() else [sys.stdout, sys.stderr]
    for stream in left:
        if isinstance(stream, (io.TextIOBase, io.BufferedWriter)) and not stream.closed:
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
    libc.fflush(None)


class Pump:
    """One stream of the job: forwards up to one byte past the cap, then only counts."""

    def __init__(self, fd: int, kind: bytes, request: dict[str, Any]) -> None:
        self.fd, self.kind = fd, kind
        # The byte past the cap tells the worker that there was more.
        self.left, self.flood = request["cap"] + 1, request["flood"]
        self.seen, self.tail = 0, b""

    def move(self) -> bool:
        """Forward what is there; False at the end of the stream."""
        data = os.read(self.fd, CHUNK)
        self.seen += len(data)
        if self.left > 0 and data:
            kept = data[: self.left]
            self.left -= len(kept)
            send(self.kind, kept)
        if self.kind == b"E":
            self.tail = (self.tail + data)[-2048:]
        return bool(data)


class Watch:
    """What the job uses: by the container's counters, or, where it has none of its own, by its processes."""

    def __init__(self, request: dict[str, Any]) -> None:
        self.alone, self.memory, self.pids = request["alone"], request["memory"], request["pids"]
        self.cgroup = Cgroup() if request["cgroup"] else None
        if self.cgroup and read_number(self.cgroup.now) is None:
            self.cgroup = None
        self.main = 0
        self.status: int | None = None
        self.peak, self.cpu_s, self.broke = 0, 0.0, ""
        self.kills_before, self.most_before, self.cpu_before = 0, 0, 0.0
        if self.cgroup:
            self.cpu_before = self.cgroup.cpu_s()
            self.kills_before = self.cgroup.oom_kills()
            self.most_before = read_number(self.cgroup.most) or 0

    def ended(self, pid: int, status: int, used: resource.struct_rusage) -> None:
        """A process has ended; what its own children used is in it."""
        if pid == self.main:
            self.status = status
        self.cpu_s += used.ru_utime + used.ru_stime
        self.peak = max(self.peak, used.ru_maxrss * (1024 if LINUX else 1))

    def look(self) -> None:
        """Take a sample; ``broke`` names the limit that was passed, where the kernel does not keep it."""
        if self.cgroup:
            self.peak = max(self.peak, read_number(self.cgroup.now) or 0)
        elif LINUX:
            pids = tree()
            now = resident(pids)
            self.peak = max(self.peak, now)
            if len(pids) > self.pids:
                self.broke = "pids"
            elif now > self.memory:
                self.broke = "memory"

    def usage(self) -> dict[str, int]:
        """Processor time so far and the highest memory seen."""
        used = self.cgroup.cpu_s() - self.cpu_before if self.cgroup else self.cpu_s + cpu_of(tree())
        return {"cpu_ms": round(used * 1000), "peak": self.peak}

    def final(self) -> dict[str, int]:
        """The same at the end. A counter of the kernel that went up is exact; one that did not says nothing
        about this job, since a job before it in this place was larger."""
        kills = 0
        if self.cgroup:
            most = read_number(self.cgroup.most) or 0
            if most > self.most_before:
                self.peak = most
            kills = self.cgroup.oom_kills() - self.kills_before
        return {**self.usage(), "oom_kills": kills}


def memory_error(tail: bytes) -> bool:
    """Whether stderr ends as a program does that got no memory: with the traceback of a MemoryError, numpy's
    own kind included, or with the last words of Node."""
    if b"FATAL ERROR:" in tail and b"JavaScript heap out of memory" in tail:
        return True
    lines = tail.strip().splitlines()
    name = lines[-1].split(b":")[0].rpartition(b".")[2] if lines else b""
    return name in (b"MemoryError", b"_ArrayMemoryError")


def run(request: dict[str, Any], wake: int, at_first: list[Any]) -> bool:
    """Run one job to its end. Returns True in the fork that is to become the job, else False."""
    folder = request["folder"]
    with open(
        os.path.join(folder, request["program"]), "w", encoding="utf-8", errors="surrogatepass"
    ) as file:
        file.write(request["code"])
    with contextlib.suppress(FileExistsError):
        os.mkdir(os.path.join(folder, "out"))
    if trouble := receive(folder, request["inputs"], lambda most: os.read(0, most)):
        send(b"N", {"why": trouble})
        return False
    out, out_in = os.pipe()
    err, err_in = os.pipe()
    watch = Watch(request)
    watch.main = os.fork()
    if watch.main == 0:
        become_job(request, out_in, err_in)
        return True
    os.close(out_in)
    os.close(err_in)
    send(b"S")
    pumps = {out: Pump(out, b"O", request), err: Pump(err, b"E", request)}
    try:
        flooded, wanted = follow(pumps, wake, watch)
        code = os.waitstatus_to_exitcode(watch.status) if watch.status is not None else None
    finally:
        gone = kill_all(watch)
    # Who could still hold the pipes is dead, so their end comes; where that is not certain, not for ever.
    end = time.monotonic() + DRAIN_WITHIN_S
    for fd, pump in pumps.items():
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        while poll.poll(max(0, (end - time.monotonic()) * 1000)) and pump.seen <= pump.flood and pump.move():
            pass
        os.close(fd)
    if wanted and request["wanted"] is not None:
        send(b"C")
        collect(os.path.join(folder, "out"), request["wanted"], send)
    dirt = "" if gone else "processes stay"
    if request["clean"] and not dirt:
        dirt = clean(request["clean"], at_first)
    send(
        b"X",
        {
            "exit_code": code if code is not None and code >= 0 else None,
            "signal": -code if code is not None and code < 0 else None,
            "flooded": flooded,
            "broke": watch.broke,
            "memory_error": memory_error(pumps[err].tail),
            "clean": bool(request["clean"]) and not dirt,
            "dirt": dirt,
            **watch.final(),
        },
    )
    return False


def follow(pumps: dict[int, Pump], wake: int, watch: Watch) -> tuple[str, bool]:
    """Pump until the main process has ended or something ends it.

    Returns:
        The stream that flooded, or "", and whether somebody still wants what the job leaves.
    """
    poll = select.poll()
    for fd in (0, wake, *pumps):
        poll.register(fd, select.POLLIN)
    next_look = time.monotonic()
    next_usage = next_look + USAGE_EVERY_S
    while True:
        for fd, _ in poll.poll(WATCH_EVERY_S * 1000):
            if fd == 0:
                return "", bool(os.read(0, 1))
            if fd == wake:
                os.read(wake, 4096)
                watch.look()
                reap(watch)
            elif not pumps[fd].move():
                poll.unregister(fd)
            elif pumps[fd].seen > pumps[fd].flood:
                return "stdout" if pumps[fd].kind == b"O" else "stderr", True
        now = time.monotonic()
        if watch.status is None and now >= next_look:
            watch.look()
            next_look = now + WATCH_EVERY_S
        if watch.status is not None or watch.broke:
            return "", True
        if now >= next_usage:
            send(b"U", watch.usage())
            next_usage = now + USAGE_EVERY_S


def preload() -> None:
    """In a place that is made ahead, load what function calls begin with: their forks have it then.

    It takes 15 ms, which a call would otherwise take each time. A runtime may lack it.
    """
    if os.getpid() != 1:
        return
    for name in ("traceback", "cloudpickle"):
        with contextlib.suppress(Exception):
            __import__(name)


def serve() -> dict[str, Any] | None:
    """Serve requests until stdin ends. Returns the request in a fork that is to become its job, else None."""
    if LINUX:
        libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
        libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    # The first process of a namespace ignores every signal without a handler that comes from inside it.
    for number in signal.valid_signals():
        try:
            signal.signal(number, signal.SIG_IGN)
        except (OSError, ValueError):
            continue
    wake, wake_in = os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(wake_in, False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(wake_in, warn_on_full_buffer=False)
    at_first = standing() if LINUX else []
    preload()
    try:
        # What is there now is never garbage; a job's own collections need not copy it.
        gc.collect()
        gc.freeze()
        send(
            b"R",
            {
                "protocol": PROTOCOL,
                "python": f"{sys.version_info[0]}.{sys.version_info[1]}",
                "pid": os.getpid(),
            },
        )
        while True:
            request = read_request()
            if request is None:
                return None
            if run(request, wake, at_first):
                return request
    except (WorkerGone, EOFError):
        return None


if __name__ == "__main__":
    job = serve()
    if job is not None:
        run_code(job)
