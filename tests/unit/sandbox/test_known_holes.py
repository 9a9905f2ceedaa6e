"""Parts of an engine with known holes are named by their version, and what an engine lacks is said."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridx.services.worker.sandbox.engine import EngineFacts, _facts, warnings
from gridx.services.worker.sandbox.known_holes import RELEASE, known_holes, version_of

OLD, NEW = "CVE-2024-21626", "CVE-2025-31133"


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("1.1.5+ds1", (1, 1, 5, RELEASE)),
        ("1.1.5+ds1-1+deb12u1", (1, 1, 5, RELEASE)),
        ("1.4.0-rc.2", (1, 4, 0, 2)),
        ("1.0.0-rc93", (1, 0, 0, 93)),
        ("v1.3.3", (1, 3, 3, RELEASE)),
        ("20.10", (20, 10, 0, RELEASE)),
        ("runc version 1.2.8 commit: v1.1.0", (1, 2, 8, RELEASE)),
        ("", None),
        ("unknown", None),
    ],
)
def test_versions_are_read_as_makers_write_them(text, version):
    assert version_of(text) == version


@pytest.mark.parametrize(
    ("version", "old", "new"),
    [
        ("1.0.0-rc93", True, True),
        ("1.1.11", True, True),
        ("1.1.12", False, True),
        ("1.1.15", False, True),
        ("1.2.7", False, True),
        ("1.2.8", False, False),
        ("1.3.2", False, True),
        ("1.3.3", False, False),
        ("1.4.0-rc.2", False, True),
        ("1.4.0-rc.3", False, False),
        ("1.4.0", False, False),
        ("1.9.0", False, False),
        ("2.0.0", False, False),
    ],
)
def test_a_hole_is_there_until_the_version_of_its_line_that_mended_it(version, old, new):
    said = " ".join(known_holes([("runc", version)]))
    assert (OLD in said, NEW in said) == (old, new)
    assert bool(said) == (old or new)


def test_other_parts_are_known_by_their_names():
    assert known_holes([("Engine", "28.2.2"), ("containerd", "1.7.27"), ("docker-init", "0.19.0")]) == []
    assert "CVE-2022-23648" in known_holes([("containerd", "1.5.9")])[0]
    assert "Docker 19.3.8" in known_holes([("Engine", "19.03.8")])[0]
    assert OLD in known_holes([("OCI Runtime (runc)", "runc version 1.1.5+ds1 commit: 1")])[0]
    assert known_holes([("Podman Engine", "4.3.1"), ("OCI Runtime (crun)", "crun version 1.8.1")]) == []


NAMES = st.sampled_from(["runc", "Engine", "containerd"])


@given(st.lists(st.tuples(NAMES, st.text(max_size=40)), max_size=4))
def test_whatever_an_engine_says_of_its_parts_is_no_error(components):
    for sentence in known_holes(components):
        assert sentence.isprintable()


INFO = {
    "SecurityOptions": ["name=seccomp,profile=default"],
    "Runtimes": {"runc": {}, "runsc": {}},
    "DefaultRuntime": "runc",
    "MemoryLimit": True,
    "SwapLimit": True,
    "CpuCfsQuota": True,
    "PidsLimit": True,
    "CgroupVersion": "1",
    "NCPU": 2,
    "MemTotal": 2 << 30,
}
VERSION = {
    "Version": "20.10.24",
    "ApiVersion": "1.41",
    "Components": [
        {"Name": "Engine", "Version": "20.10.24"},
        {"Name": "containerd", "Version": "1.6.20~ds1"},
        {"Name": "runc", "Version": "1.1.5+ds1"},
    ],
}
WELL = {
    **INFO,
    "SecurityOptions": ["name=seccomp", "name=apparmor", "name=userns", "name=cgroupns"],
    "CgroupVersion": "2",
}


def facts(info=INFO, **version) -> EngineFacts:
    return _facts({**VERSION, **version}, info)


def test_what_an_engine_lacks_is_named_and_fits_on_a_line():
    said = warnings(facts())
    for part in ("AppArmor", "user namespaces", "version 1", OLD):
        assert [one for one in said if part in one], part
    assert max(len(one) for one in said) <= 190


def test_an_engine_that_lacks_nothing_has_no_warnings():
    components = [{"Name": "Engine", "Version": "28.2.2"}, {"Name": "runc", "Version": "1.3.3"}]
    assert warnings(facts(WELL, Components=components)) == ()


def test_an_engine_without_root_has_user_namespaces():
    info = {**INFO, "SecurityOptions": ["name=seccomp", "name=rootless"]}
    assert not [one for one in warnings(facts(info)) if "user namespaces" in one]


def test_a_runtime_that_is_not_used_is_no_way_out():
    assert [one for one in warnings(facts()) if "runc" in one]
    assert not [one for one in warnings(facts(), "runsc") if "runc" in one]
    assert not [one for one in warnings(facts({**INFO, "DefaultRuntime": "runsc"})) if "runc" in one]


def test_the_size_of_the_engine_s_machine_is_told_where_it_is_known():
    assert (facts().cpus, facts().memory_bytes) == (2, 2 << 30)
    for odd in (None, "many", -1, 0, 1.5):
        told = facts({**INFO, "NCPU": odd, "MemTotal": odd})
        assert (told.cpus, told.memory_bytes) == (0, 0)
    assert dataclasses.replace(facts(), components=()).behind("") == ()
