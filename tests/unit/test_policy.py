"""What the owner allows: every assignment is checked here, whatever the coordinator believes."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridx.messages import MAX_CODE_BYTES, Assignment, Gpu, Offer, Runtime
from gridx.services.worker.policy import Caps, Standing, refusal

GPUS = [Gpu(uuid=f"GPU-{n}", name="H100", memory_mb=80_000) for n in range(2)]
OFFER = Offer(
    cpu_millis=2000,
    memory_mb=1024,
    gpus=GPUS,
    runtimes=[Runtime(name="default", python="3.11", languages=["python"])],
)
ONE = Assignment(
    attempt_id=1,
    job_id=1,
    number=1,
    owner="bob",
    name="",
    code="pass",
    language="python",
    args=[],
    env={},
    cpu_millis=1000,
    memory_mb=512,
    gpus=[],
    timeout_s=10,
    runtime="default",
    output_cap_bytes=1024,
)


def why(held=(), offer=OFFER, owner="ann", standing=None, **changes):
    assignment = msgspec.structs.replace(ONE, **changes)
    return refusal(assignment, offer=offer, held=list(held), owner=owner, standing=standing or Standing())


def offering(**changes):
    return msgspec.structs.replace(OFFER, **changes)


def test_what_fits_is_taken():
    assert why() == ""
    assert why(held=[ONE]) == ""
    assert why(gpus=["GPU-0", "GPU-1"]) == ""


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"cpu_millis": 2500}, "needs 2.5 cores; 2 are free"),
        ({"memory_mb": 2048}, "needs 2,048 MiB of memory; 1,024 are free"),
        ({"gpus": ["GPU-9"]}, "the worker does not offer the GPU GPU-9"),
        ({"gpus": ["GPU-0", "GPU-0"]}, "the same GPU is asked for twice"),
        ({"runtime": "other"}, "the worker has no runtime other"),
        ({"language": "perl"}, "the runtime default does not run perl"),
        (
            {"code": "é" * (MAX_CODE_BYTES // 2 + 1)},
            "the program has 1,048,578 bytes; the worker takes 1,048,576",
        ),
    ],
)
def test_what_does_not_fit_is_refused_in_words(changes, reason):
    assert why(**changes) == reason


def test_a_gpu_is_one_jobs_alone():
    held = [msgspec.structs.replace(ONE, gpus=["GPU-0"], cpu_millis=100, memory_mb=32)]
    assert why(held, gpus=["GPU-0"]) == "the GPU GPU-0 is in use"
    assert why(held, gpus=["GPU-1"]) == ""


@pytest.mark.parametrize(
    ("standing", "state", "reason"),
    [
        (Standing(), "online", ""),
        (Standing(paused=True), "paused", "it is paused"),
        (Standing(unready="no engine"), "unready", "no engine"),
        (Standing(paused=True, unready="no engine"), "paused", "it is paused"),
        (Standing(paused_here=True, paused=True), "paused", "at the machine, by its owner"),
        (Standing(closed="outside its hours", unready="no engine"), "closed", "outside its hours"),
        (Standing(closed="outside its hours", paused=True), "paused", "it is paused"),
        (Standing(draining=True, paused=True), "draining", "it finishes what runs and then leaves"),
    ],
)
def test_a_standing_has_one_state_and_its_reason(standing, state, reason):
    assert (standing.state, standing.reason) == (state, reason)
    assert why(standing=standing) == (f"the worker takes nothing new: {reason}" if reason else "")
    # What comes while somebody wants nothing to come is given back; an engine that is away is a refusal.
    assert standing.wanted == (state in ("paused", "closed", "draining"))


@pytest.mark.parametrize("offer", [offering(own_jobs_only=True), offering(isolated=False)])
def test_own_jobs_only_is_the_owners_whatever_the_case(offer):
    assert why(offer=offer).startswith("the worker runs jobs of ann only")
    assert why(offer=offer, owner="BOB") == ""


def test_jobs_of_named_users_are_taken_and_the_owners():
    offer = offering(only_users=["Bob", "cid"])
    assert why(offer=offer) == ""
    assert why(offer=offer, owner="BOB") == ""
    assert why(offer=offer, owner="ann") == ""
    other = msgspec.structs.replace(ONE, owner="dan")
    told = refusal(other, offer=offer, held=[], owner="ann", standing=Standing())
    assert told == "the worker does not run jobs of dan: its owner has named others"
    assert (
        refusal(
            msgspec.structs.replace(ONE, owner="ANN"), offer=offer, held=[], owner="ann", standing=Standing()
        )
        == ""
    )


def test_caps_are_the_smaller_of_what_is_there_and_what_is_allowed():
    assert Caps().of_cpu(4000) == 4000
    assert Caps(cpu_millis=1500).of_cpu(4000) == 1500
    assert Caps(cpu_millis=8000).of_cpu(4000) == 4000
    assert Caps(memory_mb=100).of_memory(50) == 50
    assert Caps(gpus=("GPU-1", "GPU-9")).of_gpus(GPUS) == [GPUS[1]]
    assert Caps(gpus=()).of_gpus(GPUS) == []
    assert Caps().of_gpus(GPUS) == GPUS


assignments = st.builds(
    lambda cpu, memory, gpus: msgspec.structs.replace(ONE, cpu_millis=cpu, memory_mb=memory, gpus=gpus),
    st.integers(100, 3000),
    st.integers(32, 2000),
    st.lists(st.sampled_from(["GPU-0", "GPU-1", "GPU-2"]), max_size=3),
)


@given(st.lists(assignments, max_size=12))
def test_what_is_taken_never_exceeds_what_is_offered(wanted):
    held = []
    for assignment in wanted:
        if not refusal(assignment, offer=OFFER, held=held, owner="ann", standing=Standing()):
            held.append(assignment)
    assert sum(one.cpu_millis for one in held) <= OFFER.cpu_millis
    assert sum(one.memory_mb for one in held) <= OFFER.memory_mb
    used = [uuid for one in held for uuid in one.gpus]
    assert len(used) == len(set(used))
    assert set(used) <= {gpu.uuid for gpu in GPUS}
