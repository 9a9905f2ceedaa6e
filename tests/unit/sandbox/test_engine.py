"""Finding an engine, judging its images, and comparing what it made with what it was asked for."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import hashlib
import io
import json
import socket
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridx.errors import EngineMissing
from gridx.filepaths import RESERVED
from gridx.messages import Runtime
from gridx.services.worker.sandbox import discovery, engine, runtimes
from gridx.services.worker.sandbox.container import (
    bucket,
    job_container,
    limits_of,
    pause_container,
    seccomp,
    tmpfs,
)
from gridx.services.worker.sandbox.discovery import Candidate, Tried, absent, candidates, missing
from gridx.services.worker.sandbox.engine import EngineFacts
from gridx.services.worker.sandbox.inspection import changed_limits, differences
from gridx.services.worker.sandbox.languages import LANGUAGES, spoken
from gridx.services.worker.sandbox.runtimes import RuntimeImage, Unusable, read_image

FACTS = EngineFacts(
    name="Engine",
    version="20.10",
    api="1.41",
    cgroup=1,
    security=("seccomp",),
    runtimes=("runc",),
    default_runtime="runc",
    limits_memory=True,
    limits_swap=True,
    limits_cpu=True,
    limits_pids=True,
    system="linux",
    rootless=False,
)
ROOT = Path(__file__).parents[3]
IMAGE = RuntimeImage(
    Runtime(name="default", python="3.12", languages=["python"]),
    "sha256:" + "0" * 64,
    "/usr/bin/python3",
    ("PATH=/bin", "VERSION=1"),
)


# -- finding an engine ---------------------------------------------------------------------------------------


def test_the_settings_address_is_the_only_one_tried(tmp_path):
    found = candidates("/tmp/x.sock", {"DOCKER_HOST": "tcp://other:1"}, tmp_path)
    assert [candidate.address for candidate in found] == ["unix:///tmp/x.sock"]


def test_the_order_is_docker_host_then_context_then_the_usual_sockets(tmp_path):
    digest = hashlib.sha256(b"mine").hexdigest()
    meta = tmp_path / ".docker" / "contexts" / "meta" / digest
    meta.mkdir(parents=True)
    (meta / "meta.json").write_text(json.dumps({"Endpoints": {"docker": {"Host": "ssh://ann@host"}}}))
    (tmp_path / ".docker" / "config.json").write_text(json.dumps({"currentContext": "mine"}))
    environ = {"DOCKER_HOST": "tcp://10.0.0.1:2375", "XDG_RUNTIME_DIR": "/run/user/7"}
    found = candidates("", environ, tmp_path, platform="linux")
    addresses = [candidate.address for candidate in found]
    assert addresses[:3] == ["tcp://10.0.0.1:2375", "ssh://ann@host", "unix:///var/run/docker.sock"]
    for part in (
        "/run/user/7/docker.sock",
        ".docker/desktop",
        ".colima",
        "podman/podman.sock",
        "/run/podman",
    ):
        assert any(part in address for address in addresses), part
    assert len(addresses) == len(set(addresses))


def test_certificates_come_with_docker_host_and_with_a_context(tmp_path):
    digest = hashlib.sha256(b"mine").hexdigest()
    tls = tmp_path / ".docker" / "contexts" / "tls" / digest / "docker"
    for folder in (tls, tmp_path / "certs"):
        folder.mkdir(parents=True)
        for name in ("ca.pem", "cert.pem", "key.pem"):
            (folder / name).touch()
    meta = tmp_path / ".docker" / "contexts" / "meta" / digest
    meta.mkdir(parents=True)
    endpoint = {"Host": "tcp://far:2376", "SkipTLSVerify": True}
    (meta / "meta.json").write_text(json.dumps({"Endpoints": {"docker": endpoint}}))
    environ = {
        "DOCKER_HOST": "tcp://near:2376",
        "DOCKER_CERT_PATH": str(tmp_path / "certs"),
        "DOCKER_TLS_VERIFY": "1",
        "DOCKER_CONTEXT": "mine",
    }
    near, far, *_ = candidates("", environ, tmp_path)
    assert near.certificates is not None
    assert (near.certificates.cert, near.certificates.verify) == (tmp_path / "certs" / "cert.pem", True)
    assert far.certificates is not None
    assert (far.certificates.key, far.certificates.verify) == (tls / "key.pem", False)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"currentContext": 5}', '{"currentContext": "gone"}'])
def test_a_damaged_docker_configuration_counts_as_none(tmp_path, text):
    (tmp_path / ".docker").mkdir()
    (tmp_path / ".docker" / "config.json").write_text(text)
    assert candidates("", {}, tmp_path, platform="linux")[0].address == "unix:///var/run/docker.sock"


def test_on_windows_it_is_the_pipe(tmp_path):
    assert [c.address for c in candidates("", {}, tmp_path, platform="win32")] == [discovery.WINDOWS_PIPE]


def test_a_socket_that_is_not_there_or_is_a_file_is_not_asked(tmp_path):
    (tmp_path / "file").touch()
    assert absent(Candidate(f"unix://{tmp_path}/nowhere", "")) == "not there"
    assert absent(Candidate(f"unix://{tmp_path}/file", "")) == "not a socket"
    assert absent(Candidate("tcp://10.0.0.1:2375", "")) == ""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        assert absent(Candidate(f"unix://{tmp_path}/s", "")) == ""


@pytest.mark.parametrize(
    ("reason", "platform", "hint"),
    [
        ("permission denied", "linux", "usermod -aG docker"),
        ("not there", "linux", "systemctl start docker"),
        ("not there", "darwin", "Docker Desktop"),
        ("not there", "win32", "Docker Desktop"),
    ],
)
def test_a_missing_engine_says_what_was_tried_and_what_to_type(reason, platform, hint):
    error = missing([Tried(Candidate("unix:///x.sock", "Docker"), reason)], platform=platform)
    assert f"unix:///x.sock (Docker): {reason}" in error.message
    assert hint in error.hint


def test_a_podman_that_is_root_s_is_not_a_matter_of_docker_s_group():
    denied = Tried(Candidate("unix:///run/podman/podman.sock", "Podman"), "permission denied")
    hint = missing([denied], platform="linux").hint
    assert "systemctl --user enable --now podman.socket" in hint
    assert "docker" not in hint


async def test_something_that_answers_and_is_no_engine_is_told_apart(tmp_path):
    async def answer(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
        await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(answer, str(tmp_path / "s"))
    try:
        with pytest.raises(EngineMissing, match=r"worker\.engine"):
            await engine.find_engine(str(tmp_path / "s"))
    finally:
        server.close()


def test_engines_that_cannot_be_checked_or_run_something_else_are_passed_over():
    assert engine.unfit(FACTS) == ""
    podman = dataclasses.replace(FACTS, name="Podman Engine", version="4.3.1")
    assert engine.unfit(podman) == ""
    for version in ("4.2.9", "3.4", "", "next"):
        assert "4.3" in engine.unfit(dataclasses.replace(podman, version=version))
    assert "windows" in engine.unfit(dataclasses.replace(FACTS, system="windows"))


@pytest.mark.parametrize("field", ["limits_memory", "limits_cpu", "limits_pids"])
def test_an_engine_without_a_limit_or_seccomp_runs_no_job(field):
    assert engine.lacks(FACTS) == ""
    assert engine.lacks(dataclasses.replace(FACTS, **{field: False})) != ""
    assert "seccomp" in engine.lacks(dataclasses.replace(FACTS, security=()))


# -- images --------------------------------------------------------------------------------------------------


def image(**config: Any) -> dict[str, Any]:
    return {"Id": "sha256:1", "Os": "linux", "Config": {"Labels": {"gridx.python": "3.12"}, **config}}


def test_an_image_declares_its_runtime_by_labels():
    labels = {"gridx.runtime": "fast", "gridx.python": "3.13", "gridx.interpreter": "/opt/python"}
    read = read_image("any:tag", image(Labels=labels, Env=["A=1"]))
    assert isinstance(read, RuntimeImage)
    assert (read.runtime.name, read.runtime.python, read.interpreter) == ("fast", "3.13", "/opt/python")
    assert (read.id, read.environment, read.runtime.languages) == ("sha256:1", ("A=1",), ["python"])
    assert not read.declared
    more = read_image("any:tag", image(Labels={**labels, "gridx.languages": "javascript, bash,ruby"}))
    assert (more.runtime.languages, more.declared) == (["javascript", "bash"], True)


def test_an_official_image_is_taken_by_its_environment_and_name():
    read = read_image("host:5000/some/python:3.12-slim", image(Labels=None, Env=["PYTHON_VERSION=3.12.4"]))
    assert isinstance(read, RuntimeImage)
    assert (read.runtime.name, read.runtime.python) == ("python", "3.12")


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (image(Volumes={"/data": {}}), "VOLUME"),
        ({**image(), "Os": "windows"}, "Linux"),
        (image(Labels={}), "gridx.python"),
        (image(Labels={"gridx.python": "3"}), "gridx.python"),
        (image(Labels={"gridx.python": "3.12", "gridx.runtime": "../x"}), "name"),
        (image(Labels={"gridx.python": "3.12", "gridx.languages": "ruby"}), "python, bash, javascript"),
    ],
)
def test_an_image_that_cannot_be_used_says_why(found, reason):
    read = read_image("x:y", found)
    assert isinstance(read, Unusable)
    assert reason in read.reason


def test_the_recipes_of_our_runtimes_are_in_the_package_and_say_what_they_speak():
    for tag, wanted, speaks in (
        (runtimes.DEFAULT_IMAGE, ["Dockerfile", "requirements.txt"], "python,bash"),
        (runtimes.NODE_IMAGE, ["Dockerfile"], "javascript,bash"),
    ):
        with tarfile.open(fileobj=io.BytesIO(runtimes.recipe(tag))) as archive:
            assert archive.getnames() == wanted
            dockerfile = archive.extractfile("Dockerfile").read().decode()
        assert f'gridx.languages="{speaks}"' in dockerfile
        assert f"languages={speaks}" in (ROOT / "scripts" / "build-runtime-image").read_text()


def test_every_language_has_a_file_of_its_own_which_no_input_may_take():
    files = [language.file for language in LANGUAGES.values()]
    assert len(set(files)) == len(files)
    assert set(files) < RESERVED
    assert spoken(lambda program: program == "bash") == ["python", "bash"]


# -- the container and its inspection ------------------------------------------------------------------------


def asked(**fields: Any) -> dict[str, Any]:
    defaults: dict[str, Any] = {"pause_id": "pause", "labels": {"gridx.worker": "me"}}
    return job_container(IMAGE, limits_of(512, 1000, 64), FACTS, **{**defaults, **fields})


def echo(body: dict[str, Any]) -> dict[str, Any]:
    """What a faithful engine says of a container."""
    body = copy.deepcopy(body)
    host = body.pop("HostConfig")
    labels = {**body["Labels"], "of.the": "image"}
    return {
        "Image": body["Image"],
        "Config": {**body, "Labels": labels, "Cmd": None, "Volumes": None},
        "HostConfig": {
            **host,
            "Binds": None,
            "CapAdd": None,
            "Runtime": "runc",
            "OomKillDisable": None,
        },
        "Mounts": [],
        "AppArmorProfile": "",
    }


@pytest.mark.parametrize("body", [asked(), asked(gpus=("GPU-1",)), pause_container(IMAGE, FACTS, labels={})])
def test_a_container_as_it_was_asked_for_has_no_differences(body):
    assert differences(body, echo(body), FACTS) == []


def paths(value: Any, above: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    return [
        path
        for name, inner in value.items()
        for path in (paths(inner, (*above, name)) if isinstance(inner, dict) and inner else [(*above, name)])
    ]


EVERY_OPTION = [path for path in paths(asked(gpus=("GPU-1",))) if path[0] not in ("Labels",)]


@pytest.mark.parametrize("path", EVERY_OPTION, ids=".".join)
def test_every_option_that_is_changed_or_dropped_is_seen(path):
    body = asked(gpus=("GPU-1",))
    for change in ("other", 7, True, None):
        found = echo(body)
        place = found if path[0] in ("Image", "HostConfig") else found["Config"]
        for name in path[:-1]:
            place = place[name]
        before = place.get(path[-1])
        off = before is None or before is False or before in ("", [])
        if (change is None and off) or (before == change and type(before) is type(change)):
            continue
        place[path[-1]] = change
        assert differences(body, found, FACTS), (path, change)


@pytest.mark.parametrize(
    ("place", "name", "value"),
    [
        ("HostConfig", "Binds", ["/:/host"]),
        ("HostConfig", "Mounts", [{"Type": "bind", "Source": "/", "Target": "/host"}]),
        ("HostConfig", "CapAdd", ["SYS_ADMIN"]),
        ("HostConfig", "Devices", [{"PathOnHost": "/dev/sda"}]),
        ("HostConfig", "DeviceRequests", [{"DeviceIDs": ["GPU-1"]}]),
        ("HostConfig", "VolumesFrom", ["other"]),
        ("HostConfig", "GroupAdd", ["0"]),
        ("HostConfig", "Sysctls", {"kernel.x": "1"}),
        ("HostConfig", "PortBindings", {"80/tcp": [{}]}),
        ("HostConfig", "ExtraHosts", ["host:10.0.0.1"]),
        ("HostConfig", "Runtime", "other"),
        ("Config", "Volumes", {"/data": {}}),
        ("Config", "Env", ["HTTP_PROXY=http://user:secret@proxy"]),
    ],
)
def test_what_was_not_asked_for_must_not_be_there(place, name, value):
    found = echo(asked())
    found[place][name] = value
    assert any(name in difference for difference in differences(asked(), found, FACTS))


def test_mounts_and_a_missing_profile_of_apparmor_are_seen():
    found = echo(asked())
    found["Mounts"] = [{"Type": "volume", "Destination": "/data"}]
    assert any("Mounts" in difference for difference in differences(asked(), found, FACTS))
    confined = dataclasses.replace(FACTS, security=("apparmor", "seccomp"))
    assert any("AppArmor" in difference for difference in differences(asked(), echo(asked()), confined))


@pytest.mark.parametrize("name", ["MaskedPaths", "ReadonlyPaths"])
def test_paths_of_the_kernel_that_are_not_hidden_are_seen(name):
    found = echo(asked())
    for fewer in ([], None, found["HostConfig"][name][1:]):
        found["HostConfig"][name] = fewer
        assert any(name in difference for difference in differences(asked(), found, FACTS))


def test_on_cgroup_2_swappiness_is_not_asked_for():
    two = dataclasses.replace(FACTS, cgroup=2)
    body = job_container(IMAGE, limits_of(512, 1000, 64), two, pause_id="p", labels={})
    assert "MemorySwappiness" not in body["HostConfig"]
    assert body["HostConfig"]["MemorySwap"] == body["HostConfig"]["Memory"] == 512 << 20


def test_limits_that_an_engine_did_not_change_are_seen():
    limits = limits_of(600, 500, 100)
    found = {
        "HostConfig": {
            "Memory": 600 << 20,
            "MemorySwap": 600 << 20,
            "NanoCpus": 500_000_000,
            "PidsLimit": 100,
        }
    }
    assert changed_limits(limits, found, FACTS) == []
    for name in found["HostConfig"]:
        changed = {"HostConfig": {**found["HostConfig"], name: 1}}
        assert changed_limits(limits, changed, FACTS) == [f"HostConfig.{name} is 1"]


@given(st.integers(32, 4 << 20))
def test_temporary_folders_fit_into_the_memory_and_depend_on_its_bucket_alone(memory_mb):
    limits = limits_of(memory_mb, 1000, 64)
    assert limits.bucket_mb <= memory_mb < 2 * limits.bucket_mb
    sizes = [int(options.split("size=")[1].split("m")[0]) for options in tmpfs(limits).values()]
    assert sum(sizes) <= memory_mb * 5 // 8
    assert tmpfs(limits) == tmpfs(limits_of(bucket(memory_mb), 1000, 64))


def test_the_job_cannot_name_its_image_command_or_mounts():
    body = asked()
    assert body["Image"] == IMAGE.id
    assert body["Entrypoint"][:3] == ["/usr/bin/python3", "-I", "-c"]
    assert not {"Binds", "Mounts", "Devices"} & body["HostConfig"].keys()


def test_an_image_s_environment_cannot_ask_for_gpus():
    greedy = RuntimeImage(IMAGE.runtime, IMAGE.id, "python3", ("NVIDIA_VISIBLE_DEVICES=all",))
    limits = limits_of(512, 1000, 64)
    body = job_container(greedy, limits, FACTS, pause_id="p", labels={})
    assert "NVIDIA_VISIBLE_DEVICES=void" in body["Env"]
    given = job_container(greedy, limits, FACTS, pause_id="p", labels={}, gpus=("GPU-1", "GPU-2"))
    assert given["HostConfig"]["DeviceRequests"][0]["DeviceIDs"] == ["GPU-1", "GPU-2"]


def test_the_seccomp_profile_allows_by_name_and_refuses_the_rest():
    profile = json.loads(seccomp())
    assert profile["defaultAction"] == "SCMP_ACT_ERRNO"
    assert {arch["architecture"] for arch in profile["archMap"]} == {"SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"}
    assert not any(arch["subArchitectures"] for arch in profile["archMap"])
    rules = [rule for rule in profile["syscalls"] if rule["action"] == "SCMP_ACT_ALLOW"]
    allowed = [name for rule in rules for name in rule["names"]]
    forbidden = [
        "add_key",
        "bpf",
        "chroot",
        "clone3",
        "delete_module",
        "fanotify_init",
        "finit_module",
        "fsmount",
        "fsopen",
        "init_module",
        "io_setup",
        "io_uring_enter",
        "io_uring_register",
        "io_uring_setup",
        "ioperm",
        "iopl",
        "kcmp",
        "kexec_file_load",
        "kexec_load",
        "keyctl",
        "mount",
        "mount_setattr",
        "move_mount",
        "open_by_handle_at",
        "open_tree",
        "perf_event_open",
        "pidfd_getfd",
        "pivot_root",
        "process_madvise",
        "process_vm_readv",
        "process_vm_writev",
        "ptrace",
        "quotactl",
        "reboot",
        "request_key",
        "setns",
        "swapon",
        "syslog",
        "umount2",
        "unshare",
        "userfaultfd",
        "vmsplice",
    ]
    assert not set(forbidden) & set(allowed)
