"""The engine and the walls around it: refused containers, foreign containers, an engine that goes away."""

from __future__ import annotations

import asyncio
import secrets
import sys

import docker
import pytest
from kit.wire import Wire

from gridx.config import WorkerSettings
from gridx.errors import EngineMissing, ImageMissing, SandboxBroken, SetupError
from gridx.services.worker.sandbox import open_sandbox

pytestmark = pytest.mark.engine

IMAGE = "gridx-runtime:default"


@pytest.fixture
def engine():
    client = docker.from_env()
    yield client.api
    client.close()


@pytest.fixture
async def opened(make_docker, containers_of):
    sandboxes = []

    async def enter(**settings):
        sandbox = make_docker(**{"warm": 0, **settings})
        await sandbox.open()
        sandboxes.append(sandbox)
        return sandbox

    yield enter
    for sandbox in sandboxes:
        await sandbox.close()
        assert containers_of(sandbox) == []


MUTATIONS = {
    "HostConfig.CapDrop": lambda body: body["HostConfig"].pop("CapDrop"),
    "HostConfig.CapAdd": lambda body: body["HostConfig"].update(CapAdd=["SYS_PTRACE"]),
    "HostConfig.SecurityOpt": lambda body: body["HostConfig"].update(SecurityOpt=["no-new-privileges"]),
    "HostConfig.ReadonlyRootfs": lambda body: body["HostConfig"].update(ReadonlyRootfs=False),
    "HostConfig.Binds": lambda body: body["HostConfig"].update(Binds=["/etc:/host:ro"]),
    "HostConfig.Memory": lambda body: body["HostConfig"].update(Memory=0, MemorySwap=0),
    "HostConfig.NetworkMode": lambda body: body["HostConfig"].update(NetworkMode="none"),
    "HostConfig.PidMode": lambda body: body["HostConfig"].update(PidMode="host"),
    "Config.User": lambda body: body.update(User="0:0"),
    "Config.Env": lambda body: body["Env"].append("HTTP_PROXY=http://user:secret@proxy"),
    "Config.WorkingDir": lambda body: body.update(WorkingDir="/proc"),
}


@pytest.mark.parametrize("field", MUTATIONS)
async def test_a_container_that_is_not_as_it_was_asked_for_is_refused(
    opened, make_box, containers_of, monkeypatch, field
):
    sandbox = await opened()
    box = make_box(sandbox, "default")
    client = sandbox._engine.client
    create = client.create_container_from_config

    def changed(body, name):
        if body["Labels"]["gridx.kind"] == "job":
            body = {**body, "HostConfig": dict(body["HostConfig"]), "Env": list(body["Env"])}
            MUTATIONS[field](body)
        return create(body, name)

    monkeypatch.setattr(client, "create_container_from_config", changed)
    with pytest.raises(SandboxBroken, match=field):
        await box.run("print(1)")
    assert [c for c in containers_of(sandbox) if c["Labels"]["gridx.kind"] == "job"] == []


async def test_a_sweep_removes_one_s_own_orphans_and_nothing_else(opened, make_box, engine, containers_of):
    sandbox = await opened()
    box = make_box(sandbox, "default")
    (await box.run("print(1)")).ok()
    mine = {container["Id"] for container in containers_of(sandbox)}

    def leave(**labels):
        host = engine.create_host_config(network_mode="none")
        made = engine.create_container(IMAGE, ["sleep", "1000"], labels=labels, host_config=host)
        engine.start(made["Id"])
        return made["Id"]

    foreign = [leave(), leave(**{"gridx.worker": "another"})]
    orphan = leave(**{"gridx.worker": sandbox._identity})
    try:
        assert await sandbox.sweep() == 1
        assert {container["Id"] for container in containers_of(sandbox)} == mine
        there = {container["Id"] for container in engine.containers()}
        assert there.issuperset(foreign)
        assert orphan not in there
    finally:
        for id in foreign:
            engine.remove_container(id, force=True, v=True)


WORKER = """
import asyncio, sys
from gridx.config import WorkerSettings
from gridx.services.worker.sandbox.base import RunRequest
from gridx.services.worker.sandbox.docker import DockerSandbox
from pathlib import Path

async def main():
    sandbox = DockerSandbox(WorkerSettings(warm=1), identity=sys.argv[1], data_path=Path(sys.argv[2]))
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
    make_docker, containers_of, until, tmp_path
):
    sandbox = make_docker(warm=0)
    worker = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", WORKER, sandbox._identity, str(tmp_path)), stdout=asyncio.subprocess.PIPE
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


async def test_a_container_that_somebody_removes_is_the_machine_s_fault(
    opened, make_box, engine, containers_of
):
    sandbox = await opened()
    box = make_box(sandbox, "default")
    running = asyncio.create_task(box.run("import time; time.sleep(1000)"))
    await asyncio.wait_for(box.started.wait(), 60)
    for container in containers_of(sandbox):
        engine.remove_container(container["Id"], force=True, v=True)
    with pytest.raises(SandboxBroken):
        await running
    # The next one makes do without the slot that is gone, too.
    assert (await box.run("print(1)")).ok()


async def test_a_slot_that_died_while_it_waited_is_replaced(opened, make_box, engine, containers_of, until):
    sandbox = await opened(reuse=False)
    box = make_box(sandbox, "default")
    (await box.run("print(1)")).ok()

    async def alone():
        return [c["Labels"]["gridx.kind"] for c in containers_of(sandbox)] == ["pause"]

    await until(alone, "the place to be gone and its slot to wait")
    engine.remove_container(containers_of(sandbox)[0]["Id"], force=True, v=True)
    (await box.run("print(2)")).ok()


@pytest.mark.parametrize("how", ["stopped", "hung"])
async def test_an_engine_that_goes_away_breaks_the_attempt_and_comes_back_by_itself(
    tmp_path, make_docker, make_box, containers_of, until, monkeypatch, how
):
    from gridx.services.worker.sandbox import dialogue, engine

    monkeypatch.setattr(dialogue, "SILENCE_S", 1.5)
    monkeypatch.setattr(engine, "PING_WITHIN_S", 1.0)
    monkeypatch.setattr(engine, "CALL_WITHIN_S", 2.0)
    async with Wire(tmp_path) as wire:
        sandbox = make_docker(engine=wire.path, warm=0)
        await sandbox.open()
        box = make_box(sandbox, "default")
        assert (await sandbox.status()).unready == ""
        running = asyncio.create_task(box.run("import time; time.sleep(1000)"))
        await asyncio.wait_for(box.started.wait(), 60)
        if how == "stopped":
            await wire.cut()
        else:
            wire.freeze()
        with pytest.raises(SandboxBroken):
            await running
        status = await sandbox.status()
        assert "engine" in status.unready
        assert status.runtimes == ()
        if how == "stopped":
            await wire.mend()
        else:
            wire.thaw()
        assert (await sandbox.status()).unready == ""
        await until(lambda: not containers_of(sandbox), "what was cut off to be removed")
        assert (await box.run("print('back')")).ok()
        await sandbox.close()
        assert containers_of(sandbox) == []


async def test_no_engine_says_what_was_tried_and_auto_falls_back_and_says_why(tmp_path):
    nowhere = str(tmp_path / "nowhere.sock")
    settings = WorkerSettings(engine=nowhere, sandbox="docker")
    with pytest.raises(EngineMissing, match=r"nowhere\.sock"):
        await open_sandbox(settings, identity="test", data_path=tmp_path)
    sandbox = await open_sandbox(WorkerSettings(engine=nowhere), identity="test", data_path=tmp_path)
    status = await sandbox.status()
    assert (status.kind, status.isolated) == ("process", False)
    assert any("nowhere.sock" in warning for warning in status.warnings)
    await sandbox.close()


async def test_auto_takes_containers_where_there_are_some(tmp_path):
    sandbox = await open_sandbox(WorkerSettings(warm=0), identity=secrets.token_hex(8), data_path=tmp_path)
    status = await sandbox.status()
    assert (status.kind, status.isolated) == ("docker", True)
    assert [runtime.name for runtime in status.runtimes] == ["default"]
    assert status.runtimes[0].digest.startswith("sha256:")
    await sandbox.close()


async def test_missing_images_and_unknown_oci_runtimes_are_told_with_what_to_type(make_docker):
    with pytest.raises(ImageMissing, match="nothing:here") as caught:
        await make_docker(runtimes=["nothing:here"]).open()
    assert "gridx runtime build" in caught.value.hint
    with pytest.raises(SetupError, match="runsc-not-there"):
        await make_docker(oci_runtime="runsc-not-there").open()


async def test_an_image_with_a_volume_is_refused(make_docker, engine):
    made = engine.create_container(IMAGE, ["true"])
    tag = f"gridx-test-{secrets.token_hex(4)}"
    engine.commit(made["Id"], repository=tag, tag="volume", changes=["VOLUME /data"])
    engine.remove_container(made["Id"])
    try:
        with pytest.raises(ImageMissing, match="VOLUME"):
            await make_docker(runtimes=[f"{tag}:volume"]).open()
    finally:
        engine.remove_image(f"{tag}:volume", force=True)


async def test_a_runtime_or_a_language_that_is_not_offered_is_refused(opened, make_box):
    box = make_box(await opened(), "default")
    with pytest.raises(SandboxBroken, match="other"):
        await box.run("print(1)", runtime="other")
    with pytest.raises(SandboxBroken, match="cobol"):
        await box.run("print(1)", language="cobol")
