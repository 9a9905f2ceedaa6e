"""GPUs through a recorded driver: cards that tell all, little or nothing, and a driver that dies."""

from __future__ import annotations

import threading

import pynvml
import pytest

from gridx.messages import Gpu, GpuSample
from gridx.services.monitor import Gpus, Monitor
from gridx.services.monitor.gpus import RETRY_S
from tests.kit.nvml import A100, GEFORCE, H100, MIG, RecordedNvml, error


class Turned:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_card_is_read_with_its_units():
    reading = Gpus(RecordedNvml(H100)).read()
    assert reading.gpus == (Gpu(uuid=H100["uuid"], name="NVIDIA H100 80GB HBM3", memory_mb=81559),)
    assert reading.samples == (
        GpuSample(
            uuid=H100["uuid"],
            name="NVIDIA H100 80GB HBM3",
            utilisation_percent=37.0,
            memory_used_bytes=1_234_567_168,
            memory_total_bytes=85_520_809_984,
            temperature_c=41.0,
            power_w=123.456,
            power_limit_w=700.0,
        ),
    )


@pytest.mark.parametrize(
    ("recorded", "metric"),
    [
        ("utilisation", "utilisation_percent"),
        ("temperature", "temperature_c"),
        ("power", "power_w"),
        ("memory", "memory_used_bytes"),
        ("power_limit", "power_limit_w"),
    ],
)
def test_a_metric_that_a_card_lacks_is_none_and_the_others_are_there(recorded, metric):
    card = H100 | {recorded: error(pynvml.NVML_ERROR_NOT_SUPPORTED)}
    [sample] = Gpus(RecordedNvml(card)).read().samples
    assert getattr(sample, metric) is None
    others = {
        "utilisation_percent",
        "temperature_c",
        "power_w",
        "memory_used_bytes",
        "power_limit_w",
    } - {metric}
    assert all(getattr(sample, other) is not None for other in others)


@pytest.mark.parametrize("value", [float("nan"), -5, 101, 4_000_000_000])
def test_a_number_that_is_none_is_not_told(value):
    [sample] = Gpus(RecordedNvml(H100 | {"utilisation": value})).read().samples
    assert sample.utilisation_percent is None


def test_cards_of_several_kinds_are_read_side_by_side():
    samples = Gpus(RecordedNvml(H100, A100, GEFORCE, MIG)).read().samples
    told = [
        (s.utilisation_percent, s.temperature_c, s.power_w, s.power_limit_w, s.memory_total_bytes is not None)
        for s in samples
    ]
    assert told == [
        (37.0, 41.0, 123.456, 700.0, True),
        (98.0, 63.0, 391.73, 400.0, True),
        (None, 52.0, None, None, True),
        (None, 33.0, 36.702, 250.0, True),
    ]


def test_old_drivers_speak_bytes_and_bad_names_are_made_safe():
    card = H100 | {"uuid": H100["uuid"].encode(), "name": b"Tesla\x1b[2J K80\xff"}
    [gpu] = Gpus(RecordedNvml(card)).read().gpus
    assert (gpu.uuid, gpu.name) == (H100["uuid"], "Tesla K80�")


def test_a_card_that_fell_off_the_bus_does_not_hide_the_others():
    lost = H100 | {"handle": error(pynvml.NVML_ERROR_GPU_IS_LOST)}
    odd = H100 | {"uuid": "no such/uuid"}
    assert [gpu.uuid for gpu in Gpus(RecordedNvml(lost, odd, H100)).read().gpus] == [H100["uuid"]]


@pytest.mark.parametrize(
    "code",
    [
        pynvml.NVML_ERROR_LIBRARY_NOT_FOUND,
        pynvml.NVML_ERROR_DRIVER_NOT_LOADED,
        pynvml.NVML_ERROR_NO_PERMISSION,
    ],
)
def test_no_driver_is_no_gpu_and_is_not_asked_every_time(code):
    nvml, clock = RecordedNvml(H100), Turned()
    nvml.init_error = error(code)
    gpus = Gpus(nvml, clock)
    for _ in range(5):
        assert gpus.read().gpus == ()
    assert nvml.inits == 1
    clock.now += RETRY_S
    nvml.init_error = None
    assert len(gpus.read().gpus) == 1


def test_a_driver_that_dies_is_no_gpu_until_it_is_back(caplog):
    nvml, clock = RecordedNvml(H100), Turned()
    gpus = Gpus(nvml, clock)
    assert len(gpus.read().gpus) == 1
    nvml.dead = error(pynvml.NVML_ERROR_UNKNOWN)
    assert gpus.read().gpus == ()
    assert "cannot be read any more" in caplog.text
    nvml.dead = None
    assert gpus.read().gpus == ()
    clock.now += RETRY_S
    assert len(gpus.read().gpus) == 1
    assert (nvml.inits, nvml.shutdowns) == (2, 1)
    gpus.close()
    gpus.close()
    assert nvml.shutdowns == 2


def test_this_machines_own_driver_answers_or_there_is_none():
    for gpu in Gpus().read().gpus:
        assert gpu.uuid


async def test_a_driver_that_hangs_costs_the_gpus_and_nothing_else(tmp_path, caplog):
    nvml = RecordedNvml(H100)
    nvml.hang = threading.Event()
    monitor = Monitor(tmp_path, nvml=nvml)
    try:
        for _ in range(3):
            sample = await monitor.sample(0.2)
            assert sample is not None
            assert sample.gpus == []
            assert sample.memory_total_bytes > 0
        assert caplog.text.count("the GPUs' state cannot be read") == 1
        assert threading.active_count() < 20
    finally:
        nvml.hang.set()
        nvml.hang = None
    while not (sample := await monitor.sample()).gpus:
        pass
    assert sample.gpus[0].power_w == 123.456
    assert [gpu.uuid for gpu in await monitor.gpus()] == [H100["uuid"]]
    monitor.close()
