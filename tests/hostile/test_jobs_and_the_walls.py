"""Programs in real containers that try to write, reach, read or call what is not theirs."""

from __future__ import annotations

import getpass
import json
import os
import platform
import socket
from pathlib import Path

import pytest
from kit.attacks import CONTAINERS, at_once, ended
from kit.hostile import PASSWORD

from gridx.messages import JobSpec, JobState
from gridx.services.worker.sandbox.container import MASKED

pytestmark = pytest.mark.engine

SECRET = "5ecre7-of-the-worker"
WORKER = {
    **CONTAINERS,
    "HTTP_PROXY": f"http://user:{SECRET}@proxy:3128",
    "HTTPS_PROXY": f"http://user:{SECRET}@proxy:3128",
}
KEPT = 32


async def run(grid, code: str, **fields):
    """Run one program as a stranger's."""
    usual = {"cpus": 0.5, "memory_mb": 128, "timeout_s": 60}
    job = await grid.bob.submit(JobSpec(**{"code": code, **usual, **fields}))
    return await ended(grid.bob, job.id)


# -- writing -------------------------------------------------------------------------------------------------

WRITES = r"""
import ctypes, json, os, stat
libc = ctypes.CDLL(None, use_errno=True)
MINE = ("/tmp", "/job", "/job/out", "/dev/shm")
# Of a process itself: what it writes there is its own. The rest of /proc and all of /sys is the kernel's.
OWN = ("/proc/self/", f"/proc/{os.getpid()}/", "/proc/thread-self/", "/proc/1/")
found = {"made": [], "opened": [], "changed": [], "devices": []}
def tried(kind, path, act, *args):
    try: act(path, *args)
    except OSError: return
    found[kind].append(path)
def make(path): os.close(os.open(path + "/gridx-x", os.O_CREAT | os.O_WRONLY)); os.unlink(path + "/gridx-x")
def write(path):
    fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    os.close(fd)
for folder, below, names in os.walk("/"):
    below[:] = [n for n in below if not os.path.islink(os.path.join(folder, n))]
    if folder.startswith("/proc/") and folder.split("/")[2].isdigit() and folder.split("/")[2] != "1":
        below.clear(); continue
    tried("made", folder, make)
    if folder not in MINE: tried("changed", folder, os.chmod, 0o777)
    for name in names:
        path = os.path.join(folder, name)
        try: mode = os.lstat(path).st_mode
        except OSError: continue
        if stat.S_ISLNK(mode) or path.startswith(OWN): continue
        if stat.S_ISCHR(mode) or stat.S_ISBLK(mode): found["devices"].append(path)
        elif path != "/job/job.py": tried("opened", path, write)
for path in ("/", "/etc", "/usr", "/dev", "/proc", "/sys", "/run", "/var/run", "/root", "/sys/fs/cgroup"):
    tried("made", path + "/gridx-d", os.mkdir)
    tried("made", path + "/gridx-l", lambda p: os.symlink("/tmp", p))
for number in ((8, 0), (1, 1), (1, 3), (10, 200)):
    for kind in (stat.S_IFBLK, stat.S_IFCHR):
        tried("made", "/tmp/node", lambda p: os.mknod(p, kind | 0o666, os.makedev(*number)))
os.mkdir("/tmp/cg")
for kind in (b"cgroup", b"cgroup2", b"proc", b"sysfs", b"tmpfs", b"overlay", b"debugfs", b"bpf", b"devpts"):
    if libc.mount(b"none", b"/tmp/cg", kind, 0, b"memory" if kind == b"cgroup" else None) == 0:
        found["made"].append(kind.decode())
for flags in (32 | 4096, 32, 4096):
    if libc.mount(None, b"/", None, flags, None) == 0: found["made"].append("remounted")
# Programs of the job's own are not run from what it can write, and gain nothing.
import shutil
shutil.copy("/bin/true", "/tmp/true"); os.chmod("/tmp/true", 0o6755)
tried("changed", "/tmp/true", lambda p: os.posix_spawn(p, [p], {}))
print(json.dumps(found))
"""
HARMLESS_DEVICES = {f"/dev/{name}" for name in ("full", "null", "random", "tty", "urandom", "zero")}
HARMLESS_DEVICES |= {"/dev/pts/ptmx", "/dev/ptmx"}


async def test_nothing_but_the_job_s_own_folders_can_be_written(grid):
    found = json.loads((await run(grid, WRITES, memory_mb=256)).ok().stdout)
    devices = {path for path in found["devices"] if not path.startswith("/proc/")}
    assert devices <= HARMLESS_DEVICES
    # What the engine hides stands there as the null device.
    masked = {path for path in found["devices"] if path.startswith("/proc/")}
    assert masked <= set(MASKED)
    assert set(found["made"]) - {"/job/out"} == {"/tmp", "/job", "/dev/shm"}
    assert found["opened"] == []
    assert found["changed"] == []


# -- reaching ------------------------------------------------------------------------------------------------

REACHES = r"""
import json, os, socket, struct, sys
ports, path = json.loads(os.environ["PORTS"]), os.environ["SOCKET"]
found = []
def tried(what, act):
    try: act()
    except OSError: return
    found.append(str(what))
def connect(address, family=socket.AF_INET):
    with socket.socket(family) as s:
        s.settimeout(2); s.connect(address)
def send(address, family=socket.AF_INET):
    with socket.socket(family, socket.SOCK_DGRAM) as s:
        s.settimeout(0.5); s.sendto(b"x" * 40, address); s.recv(1)
hosts = ["127.0.0.1", "127.1.2.3", "0.0.0.0", "10.0.0.1", "172.17.0.1", "192.168.0.1", "1.1.1.1"]
for host in (*hosts, "169.254.169.254", "255.255.255.255", "224.0.0.1"):
    for port in (*ports, 22, 53, 80, 443, 2375):
        tried((host, port), lambda: connect((host, port)))
    tried(("udp", host), lambda: send((host, 53)))
for host in ("::1", "fe80::1", "2606:4700:4700::1111", "::ffff:127.0.0.1", "ff02::1"):
    for port in (*ports, 53): tried((host, port), lambda: connect((host, port), socket.AF_INET6))
places = ["/var/run/docker.sock", "/run/containerd/containerd.sock", "\0/containerd-shim", "/dev/log"]
places += ["/run/systemd/notify", "/run/dbus/system_bus_socket", "\0/tmp/.X11-unix/X0"]
for place in (path, "\0" + path, *places):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET):
        def unix():
            with socket.socket(socket.AF_UNIX, kind) as s: s.connect(place)
        tried(place, unix)
for name in ("example.com", "localhost.localdomain", "metadata.google.internal"):
    tried(name, lambda: socket.getaddrinfo(name, 80))
tried("vsock", lambda: socket.socket(40, socket.SOCK_STREAM).connect((2, 1024)))
# Routes may be asked for and not be changed.
def route(kind, body):
    with socket.socket(16, socket.SOCK_RAW, 0) as s:
        s.send(struct.pack("=LHHLL", 16 + len(body), kind, 0x405, 1, 0) + body)
        error = struct.unpack_from("=i", s.recv(4096), 16)[0]
        if error: raise OSError(-error, "no")
named = struct.pack("=BxHiII", 0, 0, 0, 0, 0) + struct.pack("=HH8s", 12, 3, b"dummy0\0\0")
tried("a link", lambda: route(16, named))
given = struct.pack("=BBBBI", 2, 8, 0, 0, 1) + struct.pack("=HH4B", 8, 2, 10, 9, 8, 7)
tried("an address", lambda: route(20, given))
raw = [(2, 3, 1), (2, 3, 255), (2, 10, 0), (10, 3, 58), (17, 3, 3), (17, 2, 3)]
netlink = [(16, 3, n) for n in (2, 4, 6, 9, 10, 12, 15, 16, 20, 21)]
others = [(15, 3, 2), (21, 5, 0), (24, 1, 0), (29, 3, 1), (30, 2, 0), (31, 1, 3), (38, 5, 0), (41, 2, 0)]
others += [(40, 1, 0), (43, 1, 0), (44, 3, 0), (45, 1, 0)]
for family, kind, protocol in (*raw, *netlink, *others):
    tried(("socket", family, kind, protocol), lambda: socket.socket(family, kind, protocol).close())
found += [name for name in os.listdir("/sys/class/net") if name != "lo"]
found += [line for line in open("/proc/net/route").read().splitlines()[1:]]
print(json.dumps(found))
"""


async def test_nothing_can_be_reached(grid, tmp_path):
    path = str(tmp_path / "x")
    with socket.create_server(("0.0.0.0", 0)) as server, socket.socket(socket.AF_UNIX) as near:
        near.bind("\0" + path)
        near.listen()
        ports = [server.getsockname()[1], grid.standing.port, grid.standing.ws_port]
        env = {"PORTS": json.dumps(ports), "SOCKET": path}
        each = await run(grid, REACHES, env=env)
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()
    assert json.loads(each.ok().stdout) == []


# -- reading -------------------------------------------------------------------------------------------------

READS = r"""
import glob, json, os, resource
said = {"environ": dict(os.environ), "texts": []}
paths = ["/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/run/secrets", "/proc/1/environ", "/proc/kmsg"]
paths += ["/proc/keys", "/proc/key-users", "/proc/sched_debug", *glob.glob("/proc/sys/kernel/*name")]
for path in glob.glob("/proc/*/environ") + glob.glob("/proc/*/cmdline") + glob.glob("/proc/self/*") + paths:
    try:
        with open(path, "rb") as file: said["texts"].append(path + " " + file.read(1 << 16).decode("latin-1"))
    except OSError: pass
open_ones = []
for name in ("environ", "mem", "maps", "smaps", "pagemap", "fd", "fd/0", "fd/1", "fdinfo", "cwd", "root/etc",
             "exe", "task/1/mem", "map_files", "io", "stack", "syscall", "auxv", "personality", "ns/net",
             "ns/mnt", "ns/pid", "timers", "mountstats"):
    path = "/proc/1/" + name
    try: os.listdir(path) if os.path.isdir(path) else open(path, "rb").read(1)
    except OSError: continue
    open_ones.append(name)
said["open"] = open_ones
said["fds"] = sorted(int(fd) for fd in os.listdir("/proc/self/fd") if os.path.exists("/proc/self/fd/" + fd))
written = []
for name in ("mem", "oom_score_adj", "oom_adj", "coredump_filter", "timerslack_ns", "autogroup", "comm",
             "clear_refs", "uid_map", "gid_map", "setgroups", "attr/exec", "attr/current", "task/1/comm",
             "sched", "loginuid"):
    try:
        fd = os.open("/proc/1/" + name, os.O_WRONLY)
        os.write(fd, b"0")
    except OSError: continue
    written.append(name)
said["written"] = written
said["there"] = [p for p in json.loads(os.environ["PATHS"]) if os.path.exists(p)]
said["machine"] = [open("/proc/cmdline").read(), glob.glob("/sys/devices/virtual/dmi/*")]
said["core"] = resource.getrlimit(resource.RLIMIT_CORE)
said["processes"] = [p for p in os.listdir("/proc") if p.isdigit()]
for number in range(1, 65):
    try: os.kill(1, number)
    except OSError: pass
print(json.dumps(said))
"""


async def test_nothing_of_the_worker_the_machine_or_the_supervisor_can_be_read(grid, monkeypatch):
    host_paths = [
        str(grid.standing.processes.folder),
        str(Path(__file__).resolve()),
        *(
            "/var/run/docker.sock",
            "/var/lib/docker",
            "/run/secrets/kubernetes.io",
            "/.dockerenv.json",
            "/host",
        ),
        *(str(path) for path in (Path.home() / ".ssh", Path.home() / ".gridx")),
    ]
    tokens = (*grid.standing.tokens.values(), PASSWORD, SECRET, grid.standing.processes.admin_password)
    each = (await run(grid, READS, env={"PATHS": json.dumps(host_paths)})).ok()
    said = json.loads(each.stdout)
    del said["environ"]["PATHS"]
    text = json.dumps({**said, "there": []})
    for secret in (*tokens, grid.url, str(grid.standing.port), "GRIDX_HOME", "PROXY", "proxy"):
        assert secret not in text, secret
    assert set(said["environ"]) == {"PATH", "HOME", "LANG", "USER", "GRIDX_JOB", "GRIDX_ATTEMPT"}
    hosts = {platform.node(), socket.gethostname()} - {"localhost", "sandbox", ""}
    for name in hosts:
        assert not [line for line in said["texts"] if f" {name}\n" in line or f"={name}" in line], name
    if getpass.getuser() != "root":
        assert getpass.getuser() not in text
    assert said["there"] == []
    assert said["open"] == []
    assert said["written"] == []
    assert said["machine"] == ["", []]
    assert said["fds"] == [0, 1, 2]
    assert len(said["processes"]) == 2
    # None is written, and at this limit alone the machine's program for crashes is not started, either.
    assert said["core"] == [1, 1]
    for node in (grid.coordinator, grid.worker):
        limits = Path(f"/proc/{node.process.pid}/limits").read_text()
        (core,) = [line.split() for line in limits.splitlines() if line.startswith("Max core file size")]
        assert core[4] == ("0" if core[5] == "0" else "1")


# -- calling -------------------------------------------------------------------------------------------------

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
