"""From what the NVIDIA driver answers to the bars on the screen, with recorded cards."""

from __future__ import annotations

import pynvml

from gridx.clock import SystemClock
from gridx.services.monitor import Monitor
from gridx.tui.local import LocalMachine
from gridx.tui.machine import draw
from gridx.tui.state import MAX_GPU_HISTORIES, History, remember
from tests.kit.nvml import A100, GEFORCE, H100, MIG, RecordedNvml, error
from tests.tui.conftest import picture, shown
from tests.tui.scene import WORKERS, scene


def plain(lines) -> list[str]:
    return ["".join(part.text for part in line).rstrip() for line in lines]


def line_after(lines: list[str], name: str, label: str) -> str:
    """The line with a label below the line with a card's name."""
    start = next(n for n, line in enumerate(lines) if name in line)
    return next(line for line in lines[start:] if line.strip().startswith(label))


async def sampled(tmp_path, *cards):
    """A worker whose machine has these cards, and its history of two samples."""
    from msgspec.structs import replace

    monitor = Monitor(tmp_path, nvml=RecordedNvml(*cards))
    history = History()
    try:
        for _ in range(2):
            sample = await monitor.sample(10)
            worker = replace(WORKERS[0], sample=sample)
            remember(history, worker)
    finally:
        monitor.close()
    return worker.sample, history


async def test_every_metric_of_a_card_is_a_bar_with_its_past(tmp_path):
    sample, history = await sampled(tmp_path, H100, A100)
    lines = plain(draw(sample, history, 100))
    assert "37%" in line_after(lines, "H100", "load")
    assert "1.15 GiB of 79.6 GiB" in line_after(lines, "H100", "mem")
    assert "41 °C" in line_after(lines, "H100", "temp")
    assert "123 of 700 W" in line_after(lines, "H100", "power")
    full, little = line_after(lines, "A100", "power"), line_after(lines, "H100", "power")
    assert "392 of 400 W" in full and full.count("█") > 4 * little.count("█")
    assert all(
        line_after(lines, "A100", label)[-1] in "▁▂▃▄▅▆▇█" for label in ("load", "mem", "temp", "power")
    )


async def test_what_a_card_does_not_tell_has_no_line(tmp_path):
    sample, history = await sampled(tmp_path, GEFORCE, MIG)
    lines = plain(draw(sample, history, 100))
    geforce = lines[next(n for n, line in enumerate(lines) if "1030" in line) :]
    until_next = geforce[: next(n for n, line in enumerate(geforce) if "A100" in line)]
    assert [line.split()[0] for line in until_next] == ["gpu", "mem", "temp"]
    mig = [line.split()[0] for line in lines if line.startswith("  ")][2:]
    assert mig == ["mem", "temp", "power"]


async def test_cards_take_the_form_that_there_is_room_for(tmp_path):
    sample, history = await sampled(tmp_path, *[H100 | {"uuid": f"GPU-{n}"} for n in range(8)])
    for room in (60, 40, 22, 14, 9):
        lines = plain(draw(sample, history, 60, room=room))
        assert len(lines) <= room
        assert all(len(line) <= 60 for line in lines)
        assert ("gpu 7" in "\n".join(lines)) == (room > 9)
    assert "more lines" in lines[-1]


async def test_the_past_of_cards_is_bounded_and_follows_them(tmp_path):
    many = [H100 | {"uuid": f"GPU-{n}"} for n in range(40)]
    sample, history = await sampled(tmp_path, *many)
    assert len(sample.gpus) == 40 and len(history.gpus) == MAX_GPU_HISTORIES
    sample, history = await sampled(tmp_path, A100)
    assert list(history.gpus) == [A100["uuid"]] and len(history.gpus[A100["uuid"]].load.values) == 2


async def test_a_driver_that_fails_in_the_middle_leaves_the_rest_of_the_pane(tmp_path, until, caplog):
    nvml = RecordedNvml(H100, A100)
    app = scene("dark")
    app.local = LocalMachine(tmp_path, SystemClock(), nvml)
    async with app.run_test(size=(200, 60)) as pilot:
        await pilot.press("escape", "4")
        await shown(app, until, "123 of 700 W")
        await shown(app, until, "392 of 400 W")
        nvml.cards[0] = H100 | {"handle": error(pynvml.NVML_ERROR_GPU_IS_LOST)}
        await until(
            lambda: "of 700 W" not in picture(app) and "of 400 W" in picture(app), "the other goes on", 20
        )
        nvml.dead = error(pynvml.NVML_ERROR_UNKNOWN)
        await until(lambda: "392 of 400 W" not in picture(app), "no GPU any more", 20)
        await shown(app, until, "memory")
        assert "the GPUs cannot be read any more" in caplog.text
    await app.client.close()
