"""Podman's own language, and what a witness inside is believed: everything that is not as asked is seen."""

from __future__ import annotations

import copy
import dataclasses
import errno
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gridx.errors import SandboxBroken
from gridx.messages import Runtime
from gridx.services.worker.sandbox.container import job_container, limits_of, pause_container, seccomp
from gridx.services.worker.sandbox.engine import EngineFacts
from gridx.services.worker.sandbox.frames import FrameParser, Witnessed
from gridx.services.worker.sandbox.podman import (
    PodmanDialect,
    in_docker_s_words,
    specification,
    write_profile,
)
from gridx.services.worker.sandbox.runtimes import RuntimeImage
from gridx.services.worker.sandbox.testimony import doubts

FACTS = EngineFacts(
    name="Podman Engine",
    version="5.2.0",
    api="1.41",
    cgroup=2,
    security=("seccomp", "selinux"),
    runtimes=("crun",),
    default_runtime="crun",
    limits_memory=True,
    limits_swap=True,
    limits_cpu=True,
    limits_pids=True,
    system="linux",
    rootless=False,
)
IMAGE = RuntimeImage(
    Runtime(name="default", python="3.12", languages=["python"]),
    "sha256:" + "0" * 64,
    "/usr/bin/python3",
    ("PATH=/bin", "HOSTNAME=other", "VERSION=1"),
)
JOB = job_container(IMAGE, limits_of(512, 1500, 64), FACTS, pause_id="pause", labels={"gridx.worker": "me"})
PAUSE = pause_container(IMAGE, FACTS, labels={"gridx.worker": "me"})


@pytest.fixture
def dialect(tmp_path):
    return PodmanDialect(None, FACTS, tmp_path)


def told(spec: dict[str, Any]) -> dict[str, Any]:
    """What a faithful Podman says of what it was told to make."""
    spec = json.loads(json.dumps(spec))
    limits = spec["resource_limits"]
    network = spec["netns"]
    return {
        "Path": spec["entrypoint"][0],
        "Args": spec["entrypoint"][1:],
        "Image": spec["image"].removeprefix("sha256:"),
        "Pod": "",
        "Rootfs": "",
        "OCIRuntime": spec.get("oci_runtime", "crun"),
        "ProcessLabel": "system_u:system_r:container_t:s0:c1,c2",
        "AppArmorProfile": "",
        "EffectiveCaps": None,
        "BoundingCaps": None,
        "Mounts": [],
        "Config": {
            "Hostname": spec["hostname"],
            "User": spec["user"],
            "Tty": spec["terminal"],
            "OpenStdin": spec["stdin"],
            "StdinOnce": False,
            "Env": [f"{name}={value}" for name, value in spec["env"].items()],
            "Cmd": None,
            "Volumes": None,
            "WorkingDir": spec["work_dir"],
            "Entrypoint": spec["entrypoint"],
            "Labels": {**spec["labels"], "of.the": "image"},
            "Healthcheck": spec["healthconfig"],
        },
        "HostConfig": {
            "Binds": [],
            "CgroupMode": spec["cgroupns"]["nsmode"],
            "Cgroups": "default",
            "CgroupConf": None,
            "CgroupParent": "",
            "LogConfig": {"Type": spec["log_configuration"]["driver"], "Config": None, "Path": ""},
            "NetworkMode": f"{network['nsmode']}:{network['value']}".rstrip(":"),
            "PortBindings": {},
            "RestartPolicy": {"Name": spec["restart_policy"], "MaximumRetryCount": 0},
            "AutoRemove": spec["remove"],
            "CapAdd": [],
            "CapDrop": ["CAP_CHOWN", "CAP_KILL"],
            "Dns": spec["dns_server"],
            "DnsSearch": spec["dns_search"],
            "ExtraHosts": [],
            "GroupAdd": [],
            "IpcMode": "private",
            "OomScoreAdj": spec["oom_score_adj"],
            "PidMode": spec["pidns"]["nsmode"],
            "Privileged": spec["privileged"],
            "PublishAllPorts": spec["publish_image_ports"],
            "ReadonlyRootfs": spec["read_only_filesystem"],
            "SecurityOpt": ["no-new-privileges"] if spec["no_new_privileges"] else [],
            "Tmpfs": {
                mount["destination"]: ",".join([*mount["options"][:-1], "rprivate"])
                for mount in spec["mounts"]
            },
            "UTSMode": spec["utsns"]["nsmode"],
            "UsernsMode": "",
            "ShmSize": spec["shm_size"],
            "Runtime": "oci",
            "CpuShares": limits["cpu"]["shares"],
            "NanoCpus": limits["cpu"]["quota"] * 10**9 // limits["cpu"]["period"],
            "Memory": limits["memory"]["limit"],
            "MemorySwap": limits["memory"]["swap"],
            "MemorySwappiness": -1,
            "OomKillDisable": limits["memory"]["disableOOMKiller"],
            "PidsLimit": limits["pids"]["limit"],
            "Devices": [],
            "Ulimits": [
                {"Name": f"RLIMIT_{one['type'].upper()}", "Soft": one["soft"], "Hard": one["hard"]}
                for one in spec["r_limits"]
            ],
        },
    }


def judged(dialect: PodmanDialect, asked: dict[str, Any], change=lambda native: None) -> list[str]:
    native = told(specification(dialect.wanted(asked), "name", write_profile(dialect._folder)))
    change(native)
    return dialect.differences(asked, in_docker_s_words(native))


@pytest.mark.parametrize("asked", [JOB, PAUSE], ids=["job", "pause"])
def test_a_container_as_it_was_asked_for_has_no_differences(dialect, asked):
    before = copy.deepcopy(asked)
    assert judged(dialect, asked) == []
    assert asked == before


def test_older_versions_call_every_ipc_namespace_shareable(dialect):
    assert judged(dialect, JOB, lambda native: native["HostConfig"].update(IpcMode="shareable")) == []


CHANGES = {
    "Image": {"Image": "1" * 64},
    "Config.Entrypoint": {"Args": ["-c", "other"]},
    "HostConfig.CapDrop": {"EffectiveCaps": ["CAP_KILL"]},
    "HostConfig.CapDrop ": {"BoundingCaps": ["CAP_KILL"]},
    "HostConfig.Runtime": {"OCIRuntime": "other"},
    "ProcessLabel": {"ProcessLabel": ""},
    "Pod": {"Pod": "pod"},
    "Rootfs": {"Rootfs": "/"},
    "Mounts": {"Mounts": [{"Type": "bind", "Source": "/etc"}]},
    "Config.Hostname": {"Config.Hostname": "machine"},
    "Config.User": {"Config.User": "0:0"},
    "Config.Tty": {"Config.Tty": True},
    "Config.OpenStdin": {"Config.OpenStdin": False},
    "Config.Env": {"Config.Env": ["HTTP_PROXY=http://user:secret@proxy"]},
    "Config.WorkingDir": {"Config.WorkingDir": "/proc"},
    "Config.Labels": {"Config.Labels": {}},
    "Config.Healthcheck": {"Config.Healthcheck": {"Test": ["CMD", "x"]}},
    "Config.Volumes": {"Config.Volumes": {"/data": {}}},
    "Secrets": {"Config.Secrets": [{"Name": "token"}]},
    "SystemdMode": {"Config.SystemdMode": True},
    "Cgroups": {"HostConfig.Cgroups": "disabled"},
    "CgroupConf": {"HostConfig.CgroupConf": {"memory.high": "1"}},
    "LogConfig.Path": {"HostConfig.LogConfig": {"Type": "none", "Path": "/log"}},
    "HostConfig.LogConfig": {"HostConfig.LogConfig": {"Type": "journald"}},
    "HostConfig.Binds": {"HostConfig.Binds": ["/etc:/host"]},
    "HostConfig.CgroupnsMode": {"HostConfig.CgroupMode": "host"},
    "HostConfig.CgroupParent": {"HostConfig.CgroupParent": "/other"},
    "HostConfig.NetworkMode": {"HostConfig.NetworkMode": "host"},
    "HostConfig.RestartPolicy": {"HostConfig.RestartPolicy": {"Name": "always", "MaximumRetryCount": 0}},
    "HostConfig.AutoRemove": {"HostConfig.AutoRemove": True},
    "HostConfig.CapAdd": {"HostConfig.CapAdd": ["CAP_SYS_ADMIN"]},
    "HostConfig.ExtraHosts": {"HostConfig.ExtraHosts": ["host:10.0.0.1"]},
    "HostConfig.GroupAdd": {"HostConfig.GroupAdd": ["0"]},
    "HostConfig.IpcMode": {"HostConfig.IpcMode": "host"},
    "HostConfig.OomScoreAdj": {"HostConfig.OomScoreAdj": 0},
    "HostConfig.PidMode": {"HostConfig.PidMode": "host"},
    "HostConfig.UTSMode": {"HostConfig.UTSMode": ""},
    "HostConfig.UsernsMode": {"HostConfig.UsernsMode": "ns:/proc/1/ns/user"},
    "HostConfig.Privileged": {"HostConfig.Privileged": True},
    "HostConfig.ReadonlyRootfs": {"HostConfig.ReadonlyRootfs": False},
    "HostConfig.SecurityOpt": {"HostConfig.SecurityOpt": []},
    "HostConfig.SecurityOpt ": {"HostConfig.SecurityOpt": ["no-new-privileges", "seccomp=unconfined"]},
    "HostConfig.Tmpfs": {"HostConfig.Tmpfs": {"/tmp": "rw", "/run": "rw"}},
    "HostConfig.ShmSize": {"HostConfig.ShmSize": 1 << 30},
    "HostConfig.CpuShares": {"HostConfig.CpuShares": 0},
    "HostConfig.NanoCpus": {"HostConfig.NanoCpus": 0},
    "HostConfig.Memory": {"HostConfig.Memory": 0},
    "HostConfig.MemorySwap": {"HostConfig.MemorySwap": -1},
    "HostConfig.OomKillDisable": {"HostConfig.OomKillDisable": True},
    "HostConfig.PidsLimit": {"HostConfig.PidsLimit": 0},
    "HostConfig.Devices": {"HostConfig.Devices": [{"PathOnHost": "/dev/sda"}]},
    "HostConfig.Ulimits": {"HostConfig.Ulimits": []},
}


@pytest.mark.parametrize("field", CHANGES)
def test_whatever_is_told_otherwise_is_seen(dialect, field):
    def change(native):
        for path, value in CHANGES[field].items():
            place, _, name = path.rpartition(".")
            (native[place] if place else native)[name] = value

    assert any(bad.startswith(field.strip()) for bad in judged(dialect, JOB, change))


def test_whatever_is_not_told_counts_as_not_done(dialect):
    native = told(specification(dialect.wanted(JOB), "name", write_profile(dialect._folder)))

    def silent(place: str, name: str) -> list[str]:
        told_less = copy.deepcopy(native)
        del (told_less[place] if place else told_less)[name]
        return dialect.differences(JOB, in_docker_s_words(told_less))

    for name in ("Path", "Args", "Image", "OCIRuntime", "ProcessLabel", "EffectiveCaps", "BoundingCaps"):
        assert silent("", name), name
    for name in ("Hostname", "User", "OpenStdin", "Env", "WorkingDir", "Labels", "Healthcheck"):
        assert silent("Config", name), name
    host = native["HostConfig"]
    for name in host:
        if name not in ("CapDrop", "Runtime") and host[name] not in ("", None, False, [], {}, -1):
            assert silent("HostConfig", name), name
    bare = in_docker_s_words({**native, "HostConfig": {}})
    assert len(dialect.differences(JOB, bare)) > 15


def test_a_container_gets_no_more_than_it_was_described_with(dialect, tmp_path):
    spec = specification(dialect.wanted(JOB), "name", write_profile(tmp_path))
    assert spec["env"]["HOSTNAME"] == "sandbox"
    assert (spec["unsetenvall"], spec["httpproxy"], spec["image_volume_mode"]) == (True, False, "ignore")
    assert {mount["destination"] for mount in spec["mounts"]} == {"/tmp", "/job", "/run/secrets"}
    assert {mount["type"] for mount in spec["mounts"]} == {"tmpfs"}
    assert all("notmpcopyup" in mount["options"] for mount in spec["mounts"])
    assert spec["netns"] == {"nsmode": "container", "value": "pause"}
    assert spec["resource_limits"]["cpu"]["quota"] == 150_000
    with pytest.raises(SandboxBroken, match="GPU"):
        gpus = job_container(IMAGE, limits_of(512, 1000, 64), FACTS, pause_id="p", labels={}, gpus=("GPU-1",))
        specification(dialect.wanted(gpus), "name", tmp_path)


def test_the_profile_is_a_file_of_the_worker_alone_and_is_mended(tmp_path):
    folder = tmp_path / "worker"
    path = write_profile(folder)
    assert path.read_text() == seccomp()
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_text("{}")
    assert write_profile(folder) == path
    assert path.read_text() == seccomp()
    assert list(folder.iterdir()) == [path]
    (tmp_path / "file").touch()
    with pytest.raises(SandboxBroken, match="seccomp profile"):
        write_profile(tmp_path / "file")


# -- what is seen inside -------------------------------------------------------------------------------------

READ_ONLY = "ro,nosuid,nodev,noexec,relatime"
WRITABLE = "rw,nosuid,nodev,noexec,relatime"
SEEN = Witnessed(
    pid=1,
    status={
        "Uid": "65534 65534 65534 65534",
        "Gid": "65534 65534 65534 65534",
        "Groups": "65534",
        **{f"Cap{kind}": "0" * 16 for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")},
        "NoNewPrivs": "1",
        "Seccomp": "2",
    },
    namespaces={kind: f"{kind}:[4026599999]" for kind in ("cgroup", "ipc", "mnt", "net", "pid", "uts")},
    mounts=[
        ("/", "ro,relatime", "overlay", ""),
        ("/tmp", WRITABLE, "tmpfs", "rw,seclabel,size=65536k,nr_inodes=16384"),
        ("/job", WRITABLE, "tmpfs", "rw,size=196608k,nr_inodes=16384"),
        ("/run/secrets", READ_ONLY, "tmpfs", "ro,size=4k,nr_inodes=2,mode=555"),
        ("/proc", WRITABLE, "proc", ""),
        ("/proc/sys", READ_ONLY, "proc", ""),
        ("/proc/kcore", "rw,nosuid,noexec", "tmpfs", "rw,size=65536k,mode=755"),
        ("/dev", "rw,nosuid,noexec", "tmpfs", "rw,size=65536k,mode=755"),
        ("/dev/shm", WRITABLE, "tmpfs", "rw,size=32768k"),
        ("/dev/null", "rw,nosuid", "devtmpfs", ""),
        ("/sys", READ_ONLY, "sysfs", ""),
        ("/sys/fs/cgroup", READ_ONLY, "cgroup2", ""),
        ("/etc/hostname", READ_ONLY, "ext4", ""),
    ],
    hidden=["/proc/kcore"],
    interfaces=["lo"],
    refused=dict.fromkeys(
        ("io_uring_setup", "pidfd_getfd", "process_madvise", "ptrace", "socket", "unshare"), errno.EPERM
    ),
    limits={"memory": str(512 << 20), "swap": "0", "processes": "64", "processor": "150000 100000"},
    hostname="sandbox",
)


def speaks(dialect: PodmanDialect, **changes: Any) -> list[str]:
    return dialect.doubts(JOB, msgspec.structs.replace(SEEN, **changes))


def test_what_is_as_it_was_asked_for_raises_no_doubt(dialect):
    assert speaks(dialect) == []
    assert dialect.doubts(JOB, None) == ["nobody could look inside"]


@pytest.mark.parametrize("name", SEEN.status)
def test_a_process_that_is_more_than_nobody_is_seen(dialect, name):
    for value in ("", "0", "000001ffffffffff", "0 0 0 0"):
        if value != SEEN.status[name] and (name, value) != ("Groups", ""):
            assert any(name in doubt for doubt in speaks(dialect, status={**SEEN.status, name: value}))
    left = {other: value for other, value in SEEN.status.items() if other != name}
    assert speaks(dialect, status=left) or name == "Groups"


@pytest.mark.parametrize("call", SEEN.refused)
def test_a_call_that_is_not_refused_is_seen(dialect, call):
    for answer in (0, errno.ENOSYS, errno.EBADF):
        assert any(call in doubt for doubt in speaks(dialect, refused={**SEEN.refused, call: answer}))
    assert speaks(dialect, refused={})


@pytest.mark.parametrize(
    ("kind", "first"),
    [("cgroup", 4026531835), ("ipc", 4026531839), ("pid", 4026531836), ("uts", 4026531838)],
)
def test_a_namespace_of_the_machine_is_seen(dialect, kind, first):
    for there in (f"{kind}:[{first}]", "", "other:[1]"):
        namespaces = {**SEEN.namespaces, kind: there}
        assert speaks(dialect, namespaces=namespaces) == [f"the {kind} namespace is the machine's"]


def test_a_network_another_name_and_another_process_1_are_seen(dialect):
    assert speaks(dialect, interfaces=["eth0", "lo"]) == ["there is a network: eth0, lo"]
    assert speaks(dialect, interfaces=[])
    assert speaks(dialect, hostname="machine")
    assert speaks(dialect, pid=7)


@pytest.mark.parametrize(
    "row",
    [
        ("/", "rw,relatime", "overlay", ""),
        ("/sys", "rw,nosuid", "sysfs", ""),
        ("/proc/sys", "rw,nosuid", "proc", ""),
        ("/sys/fs/cgroup", "rw,nosuid", "cgroup2", ""),
        ("/etc/hostname", "rw,relatime", "ext4", ""),
        ("/tmp", "rw,nosuid,nodev", "tmpfs", "rw,size=65536k,nr_inodes=16384"),
        ("/tmp", WRITABLE, "ext4", ""),
        ("/tmp", WRITABLE, "tmpfs", "rw,nr_inodes=16384"),
        ("/job", WRITABLE, "tmpfs", "rw,size=65536k"),
        ("/job", WRITABLE, "tmpfs", "rw,size=1g,nr_inodes=16384"),
        ("/run/secrets", WRITABLE, "tmpfs", "rw,size=4k,nr_inodes=2"),
        ("/run/secrets/rhsm", READ_ONLY, "ext4", ""),
        ("/host", READ_ONLY, "ext4", ""),
        ("/run/podman/podman.sock", READ_ONLY, "tmpfs", "ro"),
        ("/dev/sda", "rw,nosuid", "devtmpfs", ""),
    ],
    ids=lambda row: f"{row[0]} {row[2]} {row[3]}",
)
def test_a_mount_that_is_another_or_one_too_many_is_seen(dialect, row):
    others = [mount for mount in SEEN.mounts if mount[0] != row[0]]
    assert any(row[0] in doubt for doubt in speaks(dialect, mounts=[*others, row]))


@pytest.mark.parametrize(
    "place", ["/", "/tmp", "/job", "/run/secrets", "/proc", "/proc/sys", "/proc/kcore", "/sys"]
)
def test_a_mount_that_is_missing_or_covered_is_seen(dialect, place):
    assert speaks(dialect, mounts=[mount for mount in SEEN.mounts if mount[0] != place])
    (mount,) = (mount for mount in SEEN.mounts if mount[0] == place)
    assert speaks(dialect, mounts=[*SEEN.mounts, mount])


@pytest.mark.parametrize("name", SEEN.limits)
def test_a_limit_that_is_not_in_force_is_seen(dialect, name):
    for value in ("max", "", "max 100000", "-1 100000", "100000 0"):
        assert any("not in force" in doubt for doubt in speaks(dialect, limits={**SEEN.limits, name: value}))
    assert speaks(dialect, limits={})


def test_swap_is_looked_at_only_where_it_can_be_limited():
    asked = PodmanDialect(None, FACTS, Path()).wanted(JOB)
    limits = {name: value for name, value in SEEN.limits.items() if name != "swap"}
    seen = msgspec.structs.replace(SEEN, limits=limits)
    assert doubts(asked, seen, FACTS)
    assert doubts(asked, seen, dataclasses.replace(FACTS, limits_swap=False)) == []
    one = dataclasses.replace(FACTS, cgroup=1)
    both = msgspec.structs.replace(SEEN, limits={**limits, "memory and swap": str(512 << 20)})
    assert doubts(asked, both, one) == []
    assert doubts(asked, seen, one)


def test_a_witness_speaks_once_and_first():
    ready = msgspec.json.encode({"protocol": 1, "python": "3.12", "pid": 1})
    said = msgspec.json.encode(SEEN)

    def frame(kind: bytes, payload: bytes) -> bytes:
        return kind + len(payload).to_bytes(4, "big") + payload

    assert FrameParser().feed(frame(b"W", said) + frame(b"R", ready))[0] == SEEN
    for order in ((b"W", b"W"), (b"R", b"W")):
        parser = FrameParser()
        with pytest.raises(Exception, match="a frame of kind"):
            for kind in order:
                parser.feed(frame(kind, said if kind == b"W" else ready))
