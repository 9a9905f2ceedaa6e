"""The machine's own readings: real ones in bounds, rates since the one before, and a system that hangs."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace

import psutil
import pytest

from gridx import messages
from gridx.messages import MachineSample
from gridx.services.monitor import Monitor
from gridx.services.monitor.lane import Lane, Stalled
from gridx.services.monitor.machine import Machine


def counters(monkeypatch, disk, net):
    monkeypatch.setattr(psutil, "disk_io_counters", lambda: disk)
    monkeypatch.setattr(psutil, "net_io_counters", lambda pernic: net)


def card(sent, received):
    return SimpleNamespace(bytes_sent=sent, bytes_recv=received)


async def test_a_sample_of_this_machine_goes_over_the_wire(tmp_path):
    monitor = Monitor(tmp_path / "not" / "made" / "yet")
    sample = await monitor.sample()
    again = await monitor.sample()
    monitor.close()
    assert len(sample.cpu_percent) == psutil.cpu_count()
    assert 0 < sample.memory_used_bytes < sample.memory_total_bytes
    assert 0 < sample.disk_used_bytes < sample.disk_total_bytes
    assert sample.disk_read_bps == sample.net_rx_bps == 0
    for one in (sample, again):
        assert messages.decode(messages.encode(one), MachineSample) == one


def test_rates_are_bytes_a_second_since_the_reading_before(monkeypatch, tmp_path):
    now = [100.0]
    machine = Machine(tmp_path, lambda: now[0])
    counters(
        monkeypatch,
        SimpleNamespace(read_bytes=1000, write_bytes=0),
        {"eth0": card(10, 20), "lo": card(10**9, 10**9), "Loopback Pseudo-Interface 1": card(10**9, 10**9)},
    )
    machine.read()
    now[0] += 2.0
    counters(
        monkeypatch,
        SimpleNamespace(read_bytes=5000, write_bytes=300),
        {"eth0": card(110, 220), "lo": card(10**12, 10**12)},
    )
    sample = machine.read()
    assert (sample.disk_read_bps, sample.disk_write_bps) == (2000.0, 150.0)
    assert (sample.net_tx_bps, sample.net_rx_bps) == (50.0, 100.0)


def test_a_counter_that_was_reset_or_is_missing_is_no_traffic(monkeypatch, tmp_path):
    now = [0.0]
    machine = Machine(tmp_path, lambda: now[0])
    counters(monkeypatch, SimpleNamespace(read_bytes=9000, write_bytes=9000), {"eth0": card(9, 9)})
    machine.read()
    for disk, net in ((SimpleNamespace(read_bytes=5, write_bytes=5), {"eth0": card(1, 1)}), (None, {})):
        now[0] += 1.0
        counters(monkeypatch, disk, net)
        sample = machine.read()
        assert {sample.disk_read_bps, sample.disk_write_bps, sample.net_rx_bps, sample.net_tx_bps} == {0.0}


def test_two_readings_at_one_instant_have_no_rate(tmp_path):
    machine = Machine(tmp_path, lambda: 7.0)
    machine.read()
    assert machine.read().net_rx_bps == 0


def test_odd_percentages_are_put_in_bounds(monkeypatch, tmp_path):
    monkeypatch.setattr(psutil, "cpu_percent", lambda percpu: [float("nan"), -1.0, 250.0, 12.5])
    monkeypatch.setattr(psutil, "getloadavg", lambda: (_ for _ in ()).throw(OSError()))
    sample = Machine(tmp_path).read()
    assert sample.cpu_percent == [0.0, 0.0, 100.0, 12.5]
    assert sample.load is None


async def test_a_system_that_does_not_answer_is_no_sample_and_one_complaint(monkeypatch, tmp_path, caplog):
    release = threading.Event()
    monkeypatch.setattr(psutil, "disk_usage", lambda path: release.wait())
    monitor = Monitor(tmp_path)
    assert await monitor.sample(0.1) is None
    assert await monitor.sample(0.1) is None
    assert caplog.text.count("the machine's state cannot be read") == 1
    release.set()
    monitor.close()


async def test_who_asks_while_a_call_is_on_its_way_gets_its_answer():
    gate, calls = threading.Event(), []

    def slow():
        calls.append(1)
        gate.wait()
        return len(calls)

    lane = Lane("slow", slow)
    with pytest.raises(Stalled):
        await lane.call(0.01)
    with pytest.raises(Stalled):
        await lane.call(0.0)
    gate.set()
    assert await lane.call(60) == 1
    assert await lane.call(60) == 2
    lane.close()


async def test_what_the_function_raises_is_raised_to_the_caller():
    lane = Lane("wrong", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        await lane.call(60)
    lane.close()


async def test_who_asks_while_others_do_gets_an_answer_each_time():
    lane = Lane("shared", lambda: 1)

    async def ask() -> None:
        for _ in range(50):
            assert await lane.call(60) == 1

    await asyncio.gather(*(ask() for _ in range(3)))
    lane.close()
