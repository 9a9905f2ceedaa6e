"""TLS between real processes: everything works over it, and nobody in between is told anything."""

from __future__ import annotations

import asyncio
import re
import stat

import pytest
from kit.certificates import Authority, Impostor

from gridx.client import Client
from gridx.errors import Unreachable, Untrusted
from gridx.known_coordinators import KnownCoordinators, place
from gridx.messages import JobSpec, JobState
from gridx.trust import Trust, certificate_at

AUTO = {"GRIDX_COORDINATOR_TLS": "auto"}
PASSWORD = "correct horse"


def fingerprint_of(node) -> str:
    return node.says(r"Certificate: (SHA256:[0-9A-F:]{95})\n")[1]


@pytest.fixture
def home(processes, monkeypatch):
    """The folder in which this test's own clients keep what they know."""
    folder = processes.folder / "home-of-the-test"
    monkeypatch.setenv("GRIDX_HOME", str(folder))
    return folder


@pytest.fixture
def authority(tmp_path) -> Authority:
    return Authority(tmp_path)


async def test_a_grid_works_over_tls_and_shows_its_certificate_at_each_start(processes, home):
    first = processes.coordinator(**AUTO)
    shown = fingerprint_of(first)
    assert processes.http_url.startswith("https://")
    assert processes.ws_url.startswith("wss://")
    kept = processes.folder / "coordinator" / "tls.pem"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600

    # As people name it: by host and port alone, and as a worker does with --coordinator-ip.
    bare = processes.http_url.removeprefix("https://")
    port, ws_port = bare.rpartition(":")[2], processes.ws_url.split(":")[2].split("/")[0]
    worker = processes.start(
        "desk",
        *("--role", "worker", "--user", "ann", "--data-dir", str(processes.folder / "worker")),
        *("--coordinator-ip", "127.0.0.1", "--http-port", port, "--ws-port", ws_port),
        GRIDX_PASSWORD=PASSWORD,
        GRIDX_WORKER_SANDBOX="process",
    )
    worker.says(rf"connected to wss://127.0.0.1:{ws_port}/ws/worker as worker 1")
    assert shown in worker.text

    said = processes.gridx("login", "ann", user="ann", GRIDX_COORDINATOR=bare, GRIDX_PASSWORD=PASSWORD)
    assert f"Signed in as ann at {processes.http_url}." in said.stdout
    assert shown in said.stderr
    again = processes.gridx("workers", user="ann", GRIDX_COORDINATOR=bare)
    assert shown not in again.stderr
    known = processes.folder / "shell-ann" / "known_coordinators"
    assert known.read_text() == f"127.0.0.1:{port} {shown}\n"
    assert stat.S_IMODE(known.stat().st_mode) == 0o600

    async with Client(processes.http_url) as grid:
        grid.token = (await grid.login("ann", PASSWORD)).token
        async with grid.events() as events:
            job = await grid.submit(JobSpec(code="print('over TLS')", cpus=0.1, memory_mb=64))
            assert await anext(aiter(events))
        written = b"".join([data async for data in grid.follow(job.id)])
        assert written == b"over TLS\n"
        assert (await grid.wait(job.id)).state is JobState.SUCCEEDED

    assert worker.stop() == 0
    assert first.stop() == 0
    processes.nodes.clear()
    assert fingerprint_of(processes.coordinator(**AUTO)) == shown
    async with Client(processes.http_url) as grid:
        assert (await grid.health()).status == "ok"


async def test_who_shows_another_certificate_is_told_nothing(processes, authority, home):
    coordinator = processes.coordinator(**AUTO)
    shown = fingerprint_of(coordinator)
    worker = processes.worker("ann", "desk")
    processes.gridx("login", "ann", user="ann", GRIDX_PASSWORD=PASSWORD)
    async with Client(processes.http_url) as grid:
        token = (await grid.login("ann", PASSWORD)).token
    port, ws_port = int(place(processes.http_url).split(":")[1]), int(place(processes.ws_url).split(":")[1])
    assert coordinator.stop() == 0
    processes.nodes.remove(coordinator)

    # His certificate is even one that this system's CAs vouch for.
    vouched = {"SSL_CERT_FILE": str(authority.file)}
    files = authority.issue("impostor")
    with Impostor(port, files) as impostor, Impostor(ws_port, files) as second:
        for typed in (("jobs",), ("login", "ann")):
            done = processes.gridx(*typed, user="ann", check=False, GRIDX_PASSWORD=PASSWORD, **vouched)
            assert done.returncode == 4
            assert "another than before" in done.stderr
            assert shown in done.stderr
            assert f"gridx trust https://127.0.0.1:{port}" in done.stderr
        worker.says(
            rf"The certificate of 127\.0\.0\.1:\d+ is another .* gridx trust https://127\.0\.0\.1:{port}"
        )
        async with Client(processes.http_url, token) as grid:
            with pytest.raises(Untrusted):
                await grid.me()
            with pytest.raises(Untrusted):
                async with grid.events():
                    pass
        assert impostor.visits >= 4
        assert second.visits >= 1
        assert (impostor.heard, second.heard) == (b"", b"")
        new = await certificate_at(processes.http_url)
        assert new != shown

        # Nobody to ask: it is not taken.
        done = processes.gridx("trust", processes.http_url, user="ann", check=False)
        assert done.returncode == 4
        assert shown in done.stdout
        assert f"--fingerprint {new}" in done.stderr

    # The true one is back; only where a person said so is the other one known now.
    processes.coordinator(**AUTO)
    processes.gridx("jobs", user="ann")
    processes.gridx("trust", processes.http_url, "--fingerprint", new, user="ann")
    assert processes.gridx("jobs", user="ann", check=False).returncode == 4
    said = processes.gridx("trust", processes.http_url, "--yes", user="ann")
    assert f"is known by {shown} from now on" in said.stdout
    processes.gridx("jobs", user="ann")


@pytest.mark.parametrize("scheme", ["http://", ""])
async def test_who_speaks_no_tls_in_place_of_a_coordinator_that_did_is_told_nothing(processes, home, scheme):
    coordinator = processes.coordinator(**AUTO)
    async with Client(processes.http_url) as grid:
        token = (await grid.register("ann", PASSWORD)).token
    where = place(processes.http_url)
    assert coordinator.stop() == 0
    processes.nodes.remove(coordinator)
    with Impostor(int(where.split(":")[1]), None) as impostor:
        async with Client(f"{scheme}{where}", token) as grid:
            with pytest.raises((Untrusted, Unreachable)) as caught:
                await grid.login("ann", PASSWORD)
        assert token.encode() not in impostor.heard
        assert b"HTTP/1.1" not in impostor.heard
    if scheme:
        assert f"gridx trust --forget {where}" in caught.value.hint


async def test_a_certificate_of_a_ca_of_the_system_is_taken_and_not_kept(
    processes, authority, home, monkeypatch
):
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    certificate, key = authority.issue("coordinator")
    processes.coordinator(GRIDX_COORDINATOR_TLS=f"{certificate},{key}")
    async with Client(processes.http_url) as grid:
        await grid.register("ann", PASSWORD)
    assert not KnownCoordinators().path.exists()
    # Another one of the same CA is as good: certificates are renewed.
    processes.nodes.pop().stop()
    certificate, key = authority.issue("renewed")
    processes.coordinator(GRIDX_COORDINATOR_TLS=f"{certificate},{key}")
    async with Client(processes.http_url) as grid:
        await grid.login("ann", PASSWORD)
    # One that is over is none of a CA: it is shown and kept as any other.
    processes.nodes.pop().stop()
    certificate, key = authority.issue("over", days=-1)
    processes.coordinator(GRIDX_COORDINATOR_TLS=f"{certificate},{key}")
    async with Client(processes.http_url) as grid:
        assert await grid.secure() == await certificate_at(processes.http_url)
        assert await grid.secure() == ""


async def test_a_vouched_for_address_whose_certificate_is_not_any_more_is_told_nothing(
    authority, home, monkeypatch, unused_port
):
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    async with Client(f"https://127.0.0.1:{unused_port}", "gridx_secret") as grid:
        with Impostor(unused_port, authority.issue("true")):
            await grid.secure()
        with Impostor(unused_port, authority.issue("over", days=-1)) as impostor:
            with pytest.raises(Untrusted, match="not valid now"):
                await grid.me()
            assert impostor.heard == b""


@pytest.fixture
def unused_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]


async def test_the_other_port_of_a_coordinator_must_have_its_certificate(authority, home, unused_port):
    with Impostor(unused_port, authority.issue("one")):
        shown = await certificate_at(f"https://127.0.0.1:{unused_port}")
    KnownCoordinators().keep("127.0.0.1:1", shown)
    trust = Trust()
    other = await trust.check(f"wss://127.0.0.1:{unused_port}", like="https://127.0.0.1:1")
    assert other.fingerprint.hex(":").upper() == shown.removeprefix("SHA256:")
    assert set(KnownCoordinators().all()) == {"127.0.0.1:1"}


async def test_who_never_ends_a_handshake_is_cut_off_and_others_are_served(processes, home):
    processes.coordinator(**AUTO)
    port = int(place(processes.http_url).split(":")[1])
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100)
    begun = [await asyncio.open_connection("127.0.0.1", port) for _ in range(150)]
    try:
        for number, (_, writer) in enumerate(begun):
            # Nothing, half a greeting, and HTTP without TLS.
            writer.write((b"", hello, b"GET /health HTTP/1.1\r\n")[number % 3])
        closing = asyncio.gather(*(reader.read() for reader, _ in begun), return_exceptions=True)
        async with Client(processes.http_url) as grid:
            while not closing.done():
                assert (await grid.health()).status == "ok"
                await asyncio.sleep(0.1)
    finally:
        for _, writer in begun:
            writer.transport.abort()


async def test_a_standalone_grid_knows_its_own_certificate(processes):
    node = processes.start(
        "alone",
        *("--http-port", "0", "--ws-port", "0", "--tls", "auto", "--user", "ann"),
        *("--data-dir", str(processes.folder / "alone")),
        GRIDX_WORKER_SANDBOX="process",
    )
    node.says(r"connected to wss://127\.0\.0\.1:\d+/ws/worker as worker 1")
    assert "First connection" not in node.text
    assert not (processes.folder / "home-alone" / "known_coordinators").exists()


@pytest.mark.parametrize("given", ["nowhere.crt,nowhere.key", "{ca},{ca}", "{ca}", "on", "a,b,c", ","])
def test_tls_that_cannot_be_is_refused_with_what_to_type(processes, authority, given):
    node = processes.start(
        "coordinator",
        *("--role", "coordinator", "--host", "127.0.0.1", "--http-port", "0", "--ws-port", "0"),
        *("--data-dir", str(processes.folder / "c"), "--tls", given.format(ca=authority.file)),
    )
    assert node.process.wait(60) == 2
    assert re.search(r"CERT,KEY|--tls auto", node.text)
