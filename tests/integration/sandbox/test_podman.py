"""The same walls, built by Podman: what it is told, what it tells, and what is really there."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import sys
import tempfile
from pathlib import Path

import docker
import pytest
import pytest_asyncio

from gridx.errors import EngineMissing, SandboxBroken
from gridx.services.worker.sandbox import dialect, podman
from gridx.services.worker.sandbox.container import job_container, limits_of
from gridx.services.worker.sandbox.podman import PodmanDialect

from .own_podman import IMAGE, OwnPodman, cannot

pytestmark = [pytest.mark.engine, pytest.mark.asyncio(loop_scope="module")]


@pytest.fixture(scope="module")
def service():
    if why := cannot():
        pytest.skip(why)
    own = OwnPodman(Path(tempfile.mkdtemp(prefix="gridx-podman-", dir="/tmp")))
    try:
        own.load_image()
        yield own
    finally:
        own.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def box(service, make_docker, make_box, containers_of):
    sandbox = make_docker(engine=service.address, warm=0)
    await sandbox.open()
    yield make_box(sandbox, "default")
    await sandbox.close()
    assert containers_of(sandbox) == []


@pytest.fixture
def engine(service):
    client = docker.DockerClient(service.address)
    yield client.api
    client.close()


async def test_what_the_engine_is_and_cannot_do_is_told(box):
    status = await box.sandbox.status()
    assert status.details["engine"].startswith("Podman Engine")
    assert (status.kind, status.isolated, status.unready, status.gpus) == ("docker", True, "", False)
    assert "jobs of its own size" in status.details["limits"]


async def test_a_job_runs_and_the_next_of_its_owner_and_size_finds_its_place(box):
    where = "import os; print(os.readlink('/proc/self/ns/pid'))"
    first = (await box.run(where)).ok().stdout
    assert (await box.run(where)).ok().stdout == first
    assert (await box.run(where, owner="bob")).ok().stdout != first
    assert (await box.run(where, memory_mb=96)).ok().stdout != first
    assert (await box.run(where, cpu_millis=500)).ok().stdout != first


async def test_a_job_has_no_network_no_capabilities_and_nowhere_to_write(box):
    code = """
import json, os, socket
def can(what, *args):
    try: what(*args)
    except OSError: return False
    return True
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(json.dumps({
    "interfaces": os.listdir("/sys/class/net"),
    "reached": can(socket.create_connection, ("1.1.1.1", 53), 2),
    "capabilities": [status["Cap" + kind].strip(" \\t\\n0") for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")],
    "status": [status[name].strip() for name in ("NoNewPrivs", "Seccomp")],
    "written": [p for p in ("/x", "/etc/x", "/var/tmp/x", "/run/x", "/run/secrets/x", "/dev/x", "/usr/x",
                            "/sys/fs/cgroup/x") if can(open, p, "w")],
    "mountable": can(os.chroot, "/tmp"),
    "secrets": os.listdir("/run/secrets"),
    "host": socket.gethostname(), "user": 60578 <= os.getuid() < 61184, "groups": os.getgroups(),
}))
"""
    assert json.loads((await box.run(code)).ok().stdout) == {
        "interfaces": ["lo"],
        "reached": False,
        "capabilities": [""] * 5,
        "status": ["1", "2"],
        "written": [],
        "mountable": False,
        "secrets": [],
        "host": "sandbox",
        "user": True,
        "groups": [65534],
    }


async def test_calls_that_the_profile_refuses_are_refused(box):
    code = """
import ctypes, errno, socket
libc = ctypes.CDLL(None, use_errno=True)
def said(*call):
    ctypes.set_errno(0)
    return errno.errorcode.get(ctypes.get_errno()) if libc.syscall(*call) < 0 else "allowed"
print(said(425, 8, 0), said(435, 0, 0), libc.unshare(0x10000000), libc.ptrace(0, 0, 0, 0))
for family in (40, 17, 38):
    try: socket.socket(family, socket.SOCK_STREAM); print("open")
    except PermissionError: pass
"""
    assert (await box.run(code)).ok().lines == ["EPERM ENOSYS -1 -1"]


async def test_the_writable_folders_are_capped_in_bytes_and_in_files(box):
    code = """
import os
for folder in ("/tmp", "/job"):
    try:
        with open(folder + "/x", "wb", buffering=0) as file:
            while file.tell() < 1 << 30: file.write(bytes(1 << 20))
    except OSError as error: print(error.strerror if folder == "/job" else "full")
    os.unlink(folder + "/x")
    try:
        for number in range(10000): os.close(os.open(f"{folder}/{number}", os.O_CREAT))
    except OSError as error: print(error.strerror)
    options = [l.split()[5] for l in open("/proc/self/mountinfo") if l.split()[4] == folder][0]
    print({"nosuid", "nodev", "noexec"} <= set(options.split(",")))
"""
    full = "No space left on device"
    assert (await box.run(code)).ok().lines == ["full", full, "True", full, full, "True"]


@pytest.mark.parametrize(
    ("code", "how", "said"),
    [
        ("x = []\nwhile True: x.append(b'x' * (8 << 20))", "out_of_memory", "128 MiB"),
        ("while True: pass", "timed_out", "1 s"),
        ("import os, time\nwhile True:\n  if os.fork() == 0: time.sleep(100)", "failed", "exit code 1"),
        ("import sys; sys.exit(3)", "failed", "exit code 3"),
    ],
    ids=["memory", "time", "processes", "status"],
)
async def test_limits_end_a_job_and_say_so(box, code, how, said):
    result = await box.run(code, timeout_s=1 if how == "timed_out" else 60)
    assert result.how == how
    assert said in result.outcome.reason
    assert (await box.run("print('next')")).ok().stdout == b"next\n"


async def test_cancel_ends_a_job(box):
    cancel = asyncio.Event()
    running = asyncio.create_task(box.run("import time; time.sleep(1000)", cancel=cancel))
    await asyncio.wait_for(box.started.wait(), 60)
    cancel.set()
    assert (await running).how == "cancelled"


async def test_places_are_started_ahead(service, make_docker, make_box, containers_of, until):
    sandbox = make_docker(engine=service.address, warm=1)
    await sandbox.open()

    async def ready():
        return (await sandbox.status()).details["places ready"] == "1"

    await until(ready, "a place to be started ahead")
    before = {c["Id"] for c in containers_of(sandbox)}
    (await make_box(sandbox, "default").run("print(1)", memory_mb=512)).ok()
    assert before <= {c["Id"] for c in containers_of(sandbox)}
    await sandbox.close()
    assert containers_of(sandbox) == []


TOLD = {
    "HostConfig.CapDrop": {"cap_drop": []},
    "HostConfig.CapAdd": {"cap_add": ["SYS_PTRACE"]},
    "HostConfig.SecurityOpt": {"no_new_privileges": False},
    "HostConfig.ReadonlyRootfs": {"read_only_filesystem": False},
    "HostConfig.Binds": {
        "mounts": [{"destination": "/host", "type": "bind", "source": "/etc", "options": ["ro"]}]
    },
    "HostConfig.Tmpfs": {"mounts": []},
    "HostConfig.Memory ": {"resource_limits": {"pids": {"limit": 64}}},
    "HostConfig.PidsLimit": {"resource_limits": {"memory": {"limit": 128 << 20}}},
    "HostConfig.NetworkMode": {"netns": {"nsmode": "none"}},
    "HostConfig.PidMode": {"pidns": {"nsmode": "host"}},
    "HostConfig.UTSMode": {"utsns": {"nsmode": "host"}, "hostname": ""},
    "HostConfig.CgroupnsMode": {"cgroupns": {"nsmode": "host"}},
    "HostConfig.Privileged": {"privileged": True},
    "HostConfig.Ulimits": {"r_limits": []},
    "HostConfig.LogConfig": {"log_configuration": {"driver": "k8s-file"}},
    "HostConfig.OomScoreAdj": {"oom_score_adj": 0},
    "Config.User": {"user": "0:0"},
    "Config.Env": {"env": {"HTTP_PROXY": "http://user:secret@proxy"}},
    "Config.WorkingDir": {"work_dir": "/proc"},
    "Config.Entrypoint": {"entrypoint": ["/bin/sh"]},
}
SEEN = {
    "seccomp": {"seccomp_profile_path": "/usr/share/containers/seccomp.json"},
    "seccomp profile is not in force": {"seccomp_profile_path": "unconfined"},
    # By what is told of its size, or by what is seen.
    "ShmSize|ipc namespace": {"ipcns": {"nsmode": "host"}, "shm_size": None},
    "/proc/keys|/proc/kcore|/proc/timer_list": {"unmask": ["ALL"], "mask": []},
}


def telling(monkeypatch, changes):
    """From now on the engine is told something else than was asked for; None: not told at all."""

    def changed(client, path, body):
        if body["labels"]["gridx.kind"] == "job":
            body = {name: value for name, value in {**body, **changes}.items() if value is not None}
        return dialect.post(client, path, body)

    monkeypatch.setattr(podman, "post", changed)


@pytest.mark.parametrize("field", TOLD)
async def test_what_the_engine_tells_of_another_container_gives_it_away(
    box, containers_of, monkeypatch, field
):
    builder, (image,) = box.sandbox._builder, box.sandbox._listed.usable
    speaker, facts = builder._dialect, builder.engine.facts
    (await box.run("print(1)")).ok()
    slot = next(c["Id"] for c in containers_of(box.sandbox) if c["Labels"]["gridx.kind"] == "pause")
    asked = job_container(image, limits_of(128, 1000, 64), facts, pause_id=slot, labels={})
    telling(monkeypatch, TOLD[field])
    id = speaker.create(asked, f"gridx-test-{secrets.token_hex(8)}")
    try:
        assert any(bad.startswith(field.strip()) for bad in speaker.differences(asked, speaker.inspect(id)))
    finally:
        speaker.remove(id)


@pytest.mark.parametrize("said", ["HostConfig.CapDrop", *SEEN])
async def test_a_container_that_is_not_as_it_was_asked_for_has_no_job(box, containers_of, monkeypatch, said):
    client = box.sandbox._engine.client
    begun = []
    begin = client.start

    def start(id):
        begun.append(id)
        begin(id)

    telling(monkeypatch, {**TOLD, **SEEN}[said])
    monkeypatch.setattr(client, "start", start)
    before = {c["Id"] for c in containers_of(box.sandbox) if c["Labels"]["gridx.kind"] == "job"}
    with pytest.raises(SandboxBroken, match=said):
        await box.run("print(1)", owner=f"owner of {said}")
    after = {c["Id"] for c in containers_of(box.sandbox) if c["Labels"]["gridx.kind"] == "job"}
    assert after <= before
    assert not box.started.is_set()
    # What is told is refused before it starts: only its slot did.
    assert len(begun) <= (1 if said in TOLD else 3)


async def test_a_container_in_which_nobody_could_look_has_no_job(box, monkeypatch):
    from gridx.services.worker.sandbox.supervisor import greeting

    monkeypatch.setattr(PodmanDialect, "greeting", lambda self: greeting())
    with pytest.raises(SandboxBroken, match="nobody could look"):
        await box.run("print(1)", owner="unseen")


async def test_a_profile_that_somebody_changed_is_written_again(box):
    (profile,) = box.sandbox._data_path.glob("seccomp-*.json")
    good = profile.read_bytes()
    assert profile.stat().st_mode & 0o777 == 0o600
    profile.write_bytes(b"{}")
    (await box.run("print(1)", owner="after")).ok()
    assert profile.read_bytes() == good


async def test_a_sweep_removes_one_s_own_orphans_and_nothing_else(box, engine, containers_of):
    (await box.run("print(1)")).ok()
    mine = {container["Id"] for container in containers_of(box.sandbox)}

    def leave(**labels):
        host = engine.create_host_config(network_mode="none")
        return engine.create_container(IMAGE, ["sleep", "1000"], labels=labels, host_config=host)["Id"]

    foreign = leave(**{"gridx.worker": "another"})
    orphan = leave(**{"gridx.worker": box.sandbox._identity})
    try:
        assert await box.sandbox.sweep() == 1
        assert {container["Id"] for container in containers_of(box.sandbox)} == mine
        there = {container["Id"] for container in engine.containers(all=True)}
        assert foreign in there
        assert orphan not in there
    finally:
        engine.remove_container(foreign, force=True, v=True)


async def test_a_container_that_somebody_removes_is_the_machine_s_fault(box, engine, containers_of):
    running = asyncio.create_task(box.run("import time; time.sleep(1000)"))
    await asyncio.wait_for(box.started.wait(), 60)
    jobs = [c["Id"] for c in containers_of(box.sandbox) if c["Labels"]["gridx.kind"] == "job"]
    for id in jobs:
        with contextlib.suppress(docker.errors.APIError):
            engine.remove_container(id, force=True, v=True)
    with pytest.raises(SandboxBroken):
        await running
    (await box.run("print(1)")).ok()


WORKER = """
import asyncio, sys
from pathlib import Path
from gridx.config import WorkerSettings
from gridx.services.worker.sandbox.base import RunRequest
from gridx.services.worker.sandbox.docker import DockerSandbox

async def main():
    settings = WorkerSettings(engine=sys.argv[1], warm=0)
    sandbox = DockerSandbox(settings, identity=sys.argv[2], data_path=Path(sys.argv[3]))
    await sandbox.open()
    async def sink(stream, data): print(data.decode(), flush=True)
    async def started(): pass
    request = RunRequest(
        attempt_id=1, job_id=1, owner="ann", code="import time; print('runs'); time.sleep(1000)",
        language="python", args=(), env={}, cpu_millis=1000, memory_mb=128, gpus=(), timeout_s=1000,
        runtime="default", output_cap_bytes=1024,
    )
    await sandbox.run(request, sink, started, asyncio.Event())

asyncio.run(main())
"""


async def test_jobs_end_with_their_worker_and_its_next_start_removes_what_is_left(
    service, make_docker, containers_of, until, tmp_path
):
    sandbox = make_docker(engine=service.address, warm=0)
    worker = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", WORKER, service.address, sandbox._identity, str(tmp_path)),
        stdout=asyncio.subprocess.PIPE,
    )
    assert await worker.stdout.readline() == b"runs\n"
    worker.kill()
    await worker.wait()

    async def over():
        states = {c["Labels"]["gridx.kind"]: c["State"] for c in containers_of(sandbox)}
        return states.get("job") != "running"

    await until(over, "the job's container to end by itself")
    assert containers_of(sandbox)
    await sandbox.open()
    assert containers_of(sandbox) == []
    await sandbox.close()


async def test_an_engine_without_a_limit_says_what_to_type(service, make_docker, monkeypatch):
    import dataclasses

    from gridx.services.worker.sandbox import engine

    def without(client, path, **options):
        answer = real(client, path, **options)
        host = answer.json()["host"]
        host["cgroupControllers"] = ["pids"]
        host["security"]["rootless"] = True
        answer.json = lambda: {"host": host}
        return answer

    real = docker.APIClient.get
    monkeypatch.setattr(
        docker.APIClient,
        "get",
        lambda self, url, **kw: (
            without(self, url, **kw) if url.endswith("/libpod/info") else real(self, url, **kw)
        ),
    )
    with pytest.raises(EngineMissing, match="no memory limits and no processor limits") as caught:
        await make_docker(engine=service.address).open()
    assert "root" in caught.value.hint
    facts = dataclasses.replace((await engine.find_engine(service.address)).facts, cgroup=2)
    assert "Delegate=cpu memory pids" in engine.remedy(facts)


async def test_files_go_in_and_out_and_bash_runs(box, tmp_path):
    (tmp_path / "data").write_bytes(b"3\n1\n2\n" * 100_000)
    code = "sort -n deep/data.txt > out/sorted.txt; ln -s / out/link; exit 3"
    result = await box.run(code, language="bash", inputs={"deep/data.txt": tmp_path / "data"}, memory_mb=256)
    assert (result.how, result.outcome.exit_code) == ("failed", 3)
    [file] = result.outcome.files
    assert (file.path, file.size) == ("sorted.txt", 600_000), result.stderr
    assert result.left == {"link": "it is a symbolic link"}
    late = await box.run("open('out/a', 'w').write('x')\nwhile True: pass", timeout_s=1)
    assert (late.how, late.files) == ("timed_out", {"a": b"x"})
