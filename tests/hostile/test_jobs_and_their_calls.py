"""System calls from inside a real container: what leads out is refused, what programs need is let through."""

from __future__ import annotations

import json
import os

import pytest
from kit.attacks import CONTAINERS, Ended, at_once

from gridx.messages import JobState

pytestmark = pytest.mark.engine

WORKER = CONTAINERS
KEPT = 32


async def run(grid, code: str) -> Ended:
    """Run one program as a stranger's."""
    found = await at_once(grid, {"calls": code}, memory_mb=128, cpus=0.5)
    return found["calls"]


# Number on x86-64 and on arm64 (None: not there), and arguments that are harmless where nothing refuses them.
CALLS = {
    "acct": (163, 89, "0"),
    "add_key": (248, 217, "b'user', b'x', b'x', 1, -2"),
    "adjtimex": (159, 171, "0"),
    "bpf": (321, 280, "0, 0, 0"),
    "chroot": (161, 51, "b'/tmp'"),
    "clock_adjtime": (305, 266, "0, 0"),
    "clock_settime": (227, 112, "0, 0"),
    "create_module": (174, None, "0, 0"),
    "delete_module": (176, 106, "b'x', 0"),
    "fanotify_init": (300, 262, "0, 0"),
    "fanotify_mark": (301, 263, "-1, 0, 0, 0, 0"),
    "finit_module": (313, 273, "-1, b'', 0"),
    "fsconfig": (431, 431, "-1, 0, 0, 0, 0"),
    "fsmount": (432, 432, "-1, 0, 0"),
    "fsopen": (430, 430, "b'tmpfs', 0"),
    "fspick": (433, 433, "-100, b'/', 0"),
    "get_kernel_syms": (177, None, "0"),
    "get_mempolicy": (239, 236, "0, 0, 0, 0, 0"),
    "init_module": (175, 105, "0, 0, b''"),
    "io_cancel": (210, 3, "0, 0, 0"),
    "io_destroy": (207, 1, "0"),
    "io_getevents": (208, 4, "0, 0, 0, 0, 0"),
    "io_setup": (206, 0, "1, ctypes.create_string_buffer(8)"),
    "io_submit": (209, 2, "0, 0, 0"),
    "io_uring_enter": (426, 426, "-1, 0, 0, 0, 0, 0"),
    "io_uring_register": (427, 427, "-1, 0, 0, 0"),
    "io_uring_setup": (425, 425, "1, ctypes.create_string_buffer(256)"),
    "ioperm": (173, None, "0, 1, 1"),
    "iopl": (172, None, "3"),
    "ioprio_set": (251, 30, "1, 1, 0"),
    "kcmp": (312, 272, "1, 1, 0, 0, 0"),
    "kexec_file_load": (320, 294, "-1, -1, 0, 0, 0"),
    "kexec_load": (246, 104, "0, 0, 0, 0"),
    "keyctl": (250, 219, "0, -3, 1"),
    "listmount": (458, 458, "0, 0, 0, 0"),
    "lookup_dcookie": (212, 18, "0, 0, 0"),
    "lsm_set_self_attr": (460, 460, "0, 0, 0, 0"),
    "mbind": (237, 235, "0, 0, 0, 0, 0, 0"),
    "migrate_pages": (256, 238, "1, 0, 0, 0"),
    "modify_ldt": (154, None, "0, 0, 0"),
    "mount": (165, 40, "b'none', b'/tmp', b'tmpfs', 0, 0"),
    "mount_setattr": (442, 442, "-100, b'/', 0, 0, 0"),
    "move_mount": (429, 429, "-1, b'', -1, b'', 0"),
    "move_pages": (279, 239, "1, 0, 0, 0, 0, 0"),
    "name_to_handle_at": (303, 264, "-100, b'/tmp', 0, 0, 0"),
    "nfsservctl": (180, 42, "0, 0, 0"),
    "open_by_handle_at": (304, 265, "-100, 0, 0"),
    "open_tree": (428, 428, "-100, b'/', 1"),
    "perf_event_open": (298, 241, "ctypes.create_string_buffer(128), 0, -1, -1, 0"),
    "pidfd_getfd": (438, 438, "-1, 0, 0"),
    "pivot_root": (155, 41, "b'/tmp', b'/tmp'"),
    "process_madvise": (440, 440, "-1, 0, 0, 0, 0"),
    "process_mrelease": (448, 448, "-1, 0"),
    "process_vm_readv": (310, 270, "1, 0, 0, 0, 0, 0"),
    "process_vm_writev": (311, 271, "1, 0, 0, 0, 0, 0"),
    "ptrace": (101, 117, "0, 0, 0, 0"),
    "ptrace of the supervisor": (101, 117, "16, 1, 0, 0"),
    "quotactl": (179, 60, "0, 0, 0, 0"),
    "quotactl_fd": (443, 443, "-1, 0, 0, 0"),
    "reboot": (169, 142, "0xfee1dead, 672274793, 0, 0"),
    "request_key": (249, 218, "b'user', b'x', b'x', -2"),
    "set_mempolicy": (238, 237, "0, 0, 0"),
    "set_mempolicy_home_node": (450, 450, "0, 0, 0, 0"),
    "setdomainname": (171, 162, "b'x', 1"),
    "sethostname": (170, 161, "b'x', 1"),
    "setns": (308, 268, "-1, 0"),
    "settimeofday": (164, 170, "0, 0"),
    "statmount": (457, 457, "0, 0, 0, 0"),
    "swapoff": (168, 225, "b'/tmp'"),
    "swapon": (167, 224, "b'/tmp', 0"),
    "sysfs": (139, None, "3, 0, 0"),
    "syslog": (103, 116, "3, 0, 0"),
    "umount2": (166, 39, "b'/tmp', 0"),
    "unshare nothing": (272, 97, "0"),
    "unshare the user": (272, 97, "0x10000000"),
    "uselib": (134, None, "b'/bin/true'"),
    "userfaultfd": (323, 282, "0"),
    "ustat": (136, None, "0, 0"),
    "vhangup": (153, 58, ""),
    "vmsplice": (278, 75, "-1, 0, 0, 0"),
    "prlimit64 of the supervisor": (302, 261, "1, 7, ctypes.create_string_buffer(16), 0"),
    "setpriority of the supervisor": (141, 140, "0, 1, 19"),
    "setpriority of everybody": (141, 140, "2, 0, 19"),
    "personality of another system": (135, 92, "8"),
    "personality without randomness": (135, 92, "0x0040000"),
    **{
        f"clone into a new {name}": (56, 220, f"{flag | 17}, 0, 0, 0, 0")
        for name, flag in {
            "cgroup": 0x02000000,
            "ipc": 0x08000000,
            "mount": 0x00020000,
            "network": 0x40000000,
            "pid": 0x20000000,
            "user": 0x10000000,
            "uts": 0x04000000,
        }.items()
    },
}
NEWEST_KNOWN = 450
COLUMN = {"x86_64": 0, "aarch64": 1}
REFUSALS = r"""
import ctypes, errno, json, os
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
said = {}
def call(name, number, *args):
    ctypes.set_errno(0)
    args = [ctypes.c_long(a) if isinstance(a, int) else a for a in args]
    result = libc.syscall(ctypes.c_long(number), *args)
    if result == 0 and name.startswith("clone"): os._exit(0)
    said[name] = errno.errorcode.get(ctypes.get_errno()) if result == -1 else str(result)
"""


@pytest.mark.skipif(os.uname().machine not in COLUMN, reason="numbers of system calls are not known here")
async def test_each_call_that_leads_out_is_refused(grid):
    column = COLUMN[os.uname().machine]
    wanted = {name: row for name, row in CALLS.items() if row[column] is not None}
    lines = [f"call({name!r}, {row[column]}, {row[2]})" for name, row in wanted.items()]
    code = "\n".join([REFUSALS, *lines, "print(json.dumps(said))"])
    found = json.loads((await run(grid, code)).ok().stdout)
    # Numbers beyond those that the engine's library knows are answered as by a kernel without them.
    new = {name for name, row in wanted.items() if row[column] > NEWEST_KNOWN}
    assert {name for name in new if found[name] not in ("EPERM", "ENOSYS")} == set()
    assert {name: found[name] for name in wanted if name not in new} == {
        name: "EPERM" for name in wanted if name not in new
    }


FOREIGN = r"""
import ctypes, json, mmap, os, signal
def run(code):
    # mov eax, number; the call; ret
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    call = ctypes.CFUNCTYPE(ctypes.c_int64)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
    pid = os.fork()
    if pid == 0:
        result = call()
        os._exit(0 if result < 0 else 1)
    return os.waitstatus_to_exitcode(os.wait()[1])
print(json.dumps({
    # getpid of 32 bits over the interrupt, and of 64 bits with pointers of 32.
    "int 0x80": run(b"\xb8\x14\0\0\0\xcd\x80\x48\x98\xc3"),
    "x32": run(b"\xb8\x27\0\0\x40\x0f\x05\xc3"),
    "the usual": run(b"\xb8\x27\0\0\0\x0f\x05\xc3"),
}))
"""


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="x86-64 alone has other ways into the kernel")
async def test_calls_of_other_architectures_are_refused(grid):
    found = json.loads((await run(grid, FOREIGN)).ok().stdout)
    assert found.pop("the usual") == 1
    # An error, or killed for it.
    assert all(code == 0 or code < 0 for code in found.values()), found


NEEDED = {
    "threads, and clone3 that is not there": """
import ctypes, threading
libc = ctypes.CDLL(None, use_errno=True)
assert libc.syscall(435, 0, 0) == -1 and ctypes.get_errno() == 38
n = []
threads = [threading.Thread(target=n.append, args=(1,)) for _ in range(20)]
for t in threads: t.start()
for t in threads: t.join()
assert len(n) == 20
""",
    "asyncio, epoll, eventfd, timerfd, signalfd, inotify": """
import asyncio, ctypes, os, select, signal, socket, time
libc = ctypes.CDLL(None, use_errno=True)
async def main():
    server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    assert await reader.read() == b""
    process = await asyncio.create_subprocess_exec("/bin/echo", "hi", stdout=-1)
    assert (await process.communicate())[0] == b"hi\\n"
    server.close()
asyncio.run(main())
poll = select.epoll()
for fd in (os.eventfd(1), libc.timerfd_create(1, 0), libc.inotify_init1(0)): poll.register(fd, select.EPOLLIN)
assert len(poll.poll(1)) == 1
mask = (ctypes.c_ulong * 16)(1 << 9)
assert libc.signalfd(-1, mask, 0) >= 0
fd = os.pidfd_open(os.getpid()); signal.pidfd_send_signal(fd, 0)
""",
    "processes": """
import multiprocessing, subprocess, sys
from concurrent.futures import ProcessPoolExecutor
def square(n): return n * n
if __name__ == "__main__":
    with ProcessPoolExecutor(2) as pool: assert list(pool.map(square, range(4))) == [0, 1, 4, 9]
    assert multiprocessing.get_context("spawn").Pool(1).map(square, [3]) == [9]
    assert subprocess.run([sys.executable, "-c", "print(1)"], capture_output=True).stdout == b"1\\n"
    queue = multiprocessing.Queue(); queue.put(1); assert queue.get() == 1
    lock = multiprocessing.Lock()
    with lock: pass
    from multiprocessing import shared_memory
    block = shared_memory.SharedMemory(create=True, size=100); block.close(); block.unlink()
""",
    "the scientific libraries": """
import numpy, pandas, sqlite3, ssl, tempfile, uuid, zoneinfo
from sklearn.linear_model import LinearRegression
from concurrent.futures import ThreadPoolExecutor
a = numpy.random.default_rng(1).random((300, 300))
assert numpy.allclose(a @ numpy.linalg.inv(a), numpy.eye(300), atol=1e-6)
assert LinearRegression(n_jobs=2).fit(a, a[:, 0]).score(a, a[:, 0]) > 0.99
assert pandas.DataFrame({"k": [1, 1, 2], "v": [1, 2, 3]}).groupby("k").v.sum().tolist() == [3, 3]
m = numpy.memmap(tempfile.NamedTemporaryFile(), dtype="u1", mode="w+", shape=(1 << 20,))
m[:] = 1
m.flush()
with sqlite3.connect("/tmp/x.db") as db: db.execute("create table t (x)")
import getpass, os, resource, time
assert getpass.getuser() == "nobody" and os.path.expanduser("~") == "/job"
os.nice(1)
os.sched_setaffinity(0, os.sched_getaffinity(0))
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
""",
    "limits of its own, sandboxes of its own": """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.syscall(444, 0, 0, 1) >= -1
os.memfd_create("x")
""",
}


async def test_what_programs_need_is_let_through(grid):
    found = await at_once(grid, NEEDED, memory_mb=512, cpus=0.4, timeout_s=120)
    for name, each in found.items():
        assert each.job.state is JobState.SUCCEEDED, (name, each)
