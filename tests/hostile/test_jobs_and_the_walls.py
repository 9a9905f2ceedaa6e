"""Programs in real containers that try to write, reach, read or call what is not theirs."""

from __future__ import annotations

import getpass
import json
import platform
import socket
from pathlib import Path

import pytest
from kit.attacks import CONTAINERS, ended
from kit.hostile import PASSWORD

from gridx.messages import JobSpec
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


async def test_nothing_of_the_worker_the_machine_or_the_supervisor_can_be_read(grid):
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
