"""One machine's sample and history as lines of bars, graphs and figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from gridx import safetext
from gridx.messages import GpuSample, MachineSample
from gridx.tui import figures
from gridx.tui.cells import fit
from gridx.tui.state import History
from gridx.tui.widgets.bars import Part

LABEL: Final = 7
FIGURE: Final = 20
BUSY: Final = 0.9
"""From this part on a bar is coloured as a warning."""

Lines = list[list[Part]]


def draw(sample: MachineSample, history: History, width: int, *, room: int = 99) -> Lines:
    """The machine in lines of ``width`` cells, the most telling first; about ``room`` lines."""
    cpu = sample.cpu_percent
    mean = sum(cpu) / len(cpu) / 100 if cpu else 0.0
    load = "" if sample.load is None else f"load {sample.load:.2f}"
    total = sample.memory_total_bytes
    memory = sample.memory_used_bytes / total if total else 0.0
    disk = sample.disk_used_bytes / sample.disk_total_bytes if sample.disk_total_bytes else 0.0
    draw_bar = _Bars(width)
    lines: Lines = [
        draw_bar.line("cpu", mean, f"{mean:4.0%} {load}", history.cpu, 1.0),
        *_cores(cpu, width, most=2 if room < 12 else 6),
        draw_bar.line(
            "memory",
            memory,
            f"{figures.size(sample.memory_used_bytes)} of {figures.size(total)}",
            history.memory,
            1.0,
        ),
    ]
    for number, gpu in enumerate(sample.gpus):
        lines += _gpu(gpu, number, draw_bar, history if len(sample.gpus) == 1 else History())
    lines += [
        draw_bar.line(
            "disk",
            disk,
            f"{figures.size(sample.disk_used_bytes)} of {figures.size(sample.disk_total_bytes)}",
            (),
            1.0,
        ),
        _rates("disk io", "read", sample.disk_read_bps, "write", sample.disk_write_bps),
        _rates("network", "in", sample.net_rx_bps, "out", sample.net_tx_bps),
    ]
    if sample.swap_used_bytes:
        lines.append([Part(fit("swap", LABEL), "muted"), Part(f" {figures.size(sample.swap_used_bytes)}")])
    if not sample.gpus:
        lines.append([Part(fit("gpu", LABEL), "muted"), Part(" none", "muted")])
    return lines


class _Bars:
    """Lines of the same columns: label, bar, figure, graph."""

    def __init__(self, width: int) -> None:
        self.figure = FIGURE
        left = max(0, width - LABEL - self.figure - 3)
        self.graph = left // 2 if left >= 16 else 0
        self.bar = left - self.graph

    def line(self, label: str, part: float, figure: str, history: Sequence[float], top: float) -> list[Part]:
        filled, rest = figures.bar(part, self.bar)
        style = "warning" if part >= BUSY else "primary"
        graph = figures.graph(list(history), self.graph, top)
        return [
            Part(fit(label, LABEL) + " ", "muted"),
            Part(filled, style),
            Part(rest, "trough"),
            Part(" " + fit(figure, self.figure) + " "),
            Part(graph, "faint"),
        ]


def _cores(cpu: Sequence[float], width: int, most: int) -> Lines:
    """Each core as one column; as many lines as the cores need, up to ``most``."""
    room = max(1, width - LABEL - 1)
    lines: Lines = []
    for number, start in enumerate(range(0, len(cpu), room)):
        if number == most:
            lines[-1][-1] = Part(fit(f"and {len(cpu) - start} more", room), "muted")
            break
        label = "cores" if number == 0 else ""
        drawn = figures.graph(cpu[start : start + room], min(room, len(cpu) - start), 100.0)
        lines.append([Part(fit(label, LABEL) + " ", "muted"), Part(drawn, "primary")])
    return lines


def _rates(label: str, first: str, first_bps: float, second: str, second_bps: float) -> list[Part]:
    return [
        Part(fit(label, LABEL) + " ", "muted"),
        Part(f"{first} ", "muted"),
        Part(fit(f"{figures.size(first_bps)}/s", 11)),
        Part(f"{second} ", "muted"),
        Part(f"{figures.size(second_bps)}/s"),
    ]


def _gpu(gpu: GpuSample, number: int, bars: _Bars, history: History) -> Lines:
    used, total = gpu.memory_used_bytes, gpu.memory_total_bytes
    busy = gpu.utilisation_percent
    words = [safetext.line(gpu.name, limit=40)]
    words += [f"{gpu.temperature_c:.0f} °C"] if gpu.temperature_c is not None else []
    words += [f"{gpu.power_w:.0f} W"] if gpu.power_w is not None else []
    lines: Lines = [[Part(fit(f"gpu {number}", LABEL) + " ", "muted"), Part(" · ".join(words))]]
    if busy is not None:
        lines.append(bars.line("  load", busy / 100, f"{busy:4.0f}%", history.gpu, 1.0))
    if used is not None and total:
        lines.append(
            bars.line("  mem", used / total, f"{figures.size(used)} of {figures.size(total)}", (), 1.0)
        )
    return lines
