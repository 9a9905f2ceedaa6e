"""One machine's sample and history as lines of bars, graphs and figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from gridx import safetext
from gridx.messages import GpuSample, MachineSample
from gridx.tui import figures
from gridx.tui.cells import fit
from gridx.tui.state import GpuHistory, History
from gridx.tui.widgets.bars import Part

LABEL: Final = 7
FIGURE: Final = 20
BUSY: Final = 0.9
"""From this part on a bar is coloured as a warning."""
HOT_C: Final = 100.0
"""Where a GPU's bar of temperature is full; cards slow themselves down somewhat below."""
WARM: Final = 0.85
MIB: Final = 1 << 20

Line = list[Part]
Lines = list[Line]


def draw(sample: MachineSample, history: History, width: int, *, room: int = 99) -> Lines:
    """The machine in lines of ``width`` cells, the most telling first, in at most ``room`` lines.

    GPUs take as many lines each as there is room for: all four metrics with their past, two of them, or one
    line with everything in figures.
    """
    bars = _Bars(width)
    first = _processor_and_memory(sample, history, bars, cores=2 if room < 12 else 6)
    last = _disk_and_network(sample, history, bars)
    if len(first) + max(1, len(sample.gpus)) + len(last) > room:
        last = [last[0], *_traffic(sample)]
    lines = [*first, *_gpus(sample.gpus, history, bars, room - len(first) - len(last)), *last]
    if not sample.gpus:
        lines.append([_label("gpu"), Part("none", "muted")])
    if len(lines) <= room:
        return lines
    left = len(lines) - room + 1
    return [*lines[: room - 1], [_label(""), Part(f"and {left} more lines", "muted")]]


def _processor_and_memory(sample: MachineSample, history: History, bars: _Bars, *, cores: int) -> Lines:
    cpu = sample.cpu_percent
    mean = sum(cpu) / len(cpu) / 100 if cpu else 0.0
    load = "" if sample.load is None else f"load {sample.load:.2f}"
    lines = [
        bars.line("cpu", mean, f"{mean:4.0%} {load}", history.cpu),
        *_cores(cpu, bars.width, most=cores),
        bars.line("memory", *_part(sample.memory_used_bytes, sample.memory_total_bytes), history.memory),
    ]
    if sample.swap_used_bytes:
        lines.append([_label("swap"), Part(figures.size(sample.swap_used_bytes))])
    return lines


def _disk_and_network(sample: MachineSample, history: History, bars: _Bars) -> Lines:
    return [
        bars.line("disk", *_part(sample.disk_used_bytes, sample.disk_total_bytes), ()),
        bars.rate("read", sample.disk_read_bps, history.disk_read),
        bars.rate("write", sample.disk_write_bps, history.disk_write),
        bars.rate("net in", sample.net_rx_bps, history.receive),
        bars.rate("net out", sample.net_tx_bps, history.send),
    ]


def _traffic(sample: MachineSample) -> Lines:
    """Disk and network in two lines of figures, where there is no room for bars."""
    pairs = (
        ("disk io", "read", sample.disk_read_bps, "write", sample.disk_write_bps),
        ("network", "in", sample.net_rx_bps, "out", sample.net_tx_bps),
    )
    return [
        [
            _label(label),
            Part(f"{first} ", "muted"),
            Part(fit(f"{figures.size(came)}/s", 11)),
            Part(f"{second} ", "muted"),
            Part(f"{figures.size(went)}/s"),
        ]
        for label, first, came, second, went in pairs
    ]


def _gpus(gpus: Sequence[GpuSample], history: History, bars: _Bars, room: int) -> Lines:
    """The GPUs in the fullest form that fits; the shortest where none does."""
    lines: Lines = []
    for form in (_whole_gpu, _half_gpu, _gpu_line):
        lines = []
        for number, gpu in enumerate(gpus):
            lines += form(gpu, number, bars, history.gpus.get(gpu.uuid) or GpuHistory())
        if len(lines) <= room:
            break
    return lines


def _label(text: str) -> Part:
    return Part(fit(text, LABEL) + " ", "muted")


def _part(used: int | None, total: int | None) -> tuple[float, str]:
    """How much of something is used, as a fraction and in figures of the same unit."""
    fraction = used / total if used is not None and total else 0.0
    return fraction, f"{figures.size(used or 0)} of {figures.size(total or 0)}"


class _Bars:
    """Lines of the same columns: label, bar, figure, graph."""

    def __init__(self, width: int) -> None:
        self.width = width
        left = max(0, width - LABEL - FIGURE - 3)
        self.graph = left // 2 if left >= 16 else 0
        self.bar = left - self.graph

    def line(
        self,
        label: str,
        part: float,
        figure: str,
        past: Sequence[float],
        *,
        top: float = 1.0,
        warn: float = BUSY,
    ) -> Line:
        """A bar of a fraction, and the graph of its past up to ``top``."""
        filled, rest = figures.bar(part, self.bar)
        return [
            _label(label),
            Part(filled, "warning" if part >= warn else "primary"),
            Part(rest, "trough"),
            Part(" " + fit(figure, FIGURE) + " "),
            self._graph(past, top),
        ]

    def rate(self, label: str, bps: float, past: Sequence[float]) -> Line:
        """Bytes a second: against the most of its past, since a line or a disk does not tell what it can."""
        shown = list(past)[-max(self.graph, 1) :]
        most = max([*shown, bps, float(MIB)])
        return self.line(label, bps / most, f"{figures.size(bps)}/s", past, top=most, warn=2.0)

    def _graph(self, past: Sequence[float], top: float) -> Part:
        return Part(figures.graph(list(past), self.graph, top), "faint")


def _cores(cpu: Sequence[float], width: int, most: int) -> Lines:
    """Each core as one column; as many lines as the cores need, up to ``most``."""
    room = max(1, width - LABEL - 1)
    lines: Lines = []
    for number, start in enumerate(range(0, len(cpu), room)):
        if number == most:
            lines[-1][-1] = Part(fit(f"and {len(cpu) - start} more", room), "muted")
            break
        drawn = figures.graph(cpu[start : start + room], min(room, len(cpu) - start), 100.0)
        lines.append([_label("cores" if number == 0 else ""), Part(drawn, "primary")])
    return lines


def _name(gpu: GpuSample) -> str:
    return safetext.line(gpu.name, limit=40)


def _celsius(gpu: GpuSample) -> str:
    return "" if gpu.temperature_c is None else f"{gpu.temperature_c:.0f} °C"


def _watts(gpu: GpuSample) -> str:
    if gpu.power_w is None:
        return ""
    return (
        f"{gpu.power_w:.0f} W"
        if gpu.power_limit_w is None
        else f"{gpu.power_w:.0f} of {gpu.power_limit_w:.0f} W"
    )


def _load_and_memory(gpu: GpuSample, bars: _Bars, past: GpuHistory) -> Lines:
    lines: Lines = []
    if gpu.utilisation_percent is not None:
        part = gpu.utilisation_percent / 100
        lines.append(bars.line("  load", part, f"{gpu.utilisation_percent:4.0f}%", past.load.values))
    if gpu.memory_used_bytes is not None and gpu.memory_total_bytes:
        part, figure = _part(gpu.memory_used_bytes, gpu.memory_total_bytes)
        lines.append(bars.line("  mem", part, figure, past.memory.values))
    return lines


def _whole_gpu(gpu: GpuSample, number: int, bars: _Bars, past: GpuHistory) -> Lines:
    """Its name and a line for each metric that it tells."""
    lines: Lines = [[_label(f"gpu {number}"), Part(fit(_name(gpu), max(1, bars.width - LABEL - 1)))]]
    lines += _load_and_memory(gpu, bars, past)
    if gpu.temperature_c is not None:
        part = max(0.0, gpu.temperature_c / HOT_C)
        lines.append(bars.line("  temp", part, _celsius(gpu), past.celsius.values, top=HOT_C, warn=WARM))
    if gpu.power_w is not None:
        top = gpu.power_limit_w or max([*past.watts.values, gpu.power_w, 1.0])
        lines.append(
            bars.line("  power", gpu.power_w / top, _watts(gpu), past.watts.values, top=top, warn=2.0)
        )
    if len(lines) == 1:
        lines[0].append(Part(" tells nothing of itself", "muted"))
    return lines


def _half_gpu(gpu: GpuSample, number: int, bars: _Bars, past: GpuHistory) -> Lines:
    """Its name with temperature and power, and bars of load and memory."""
    words = " · ".join(word for word in (_name(gpu), _celsius(gpu), _watts(gpu)) if word)
    head: Line = [_label(f"gpu {number}"), Part(fit(words, max(1, bars.width - LABEL - 1)))]
    return [head, *_load_and_memory(gpu, bars, past)]


def _gpu_line(gpu: GpuSample, number: int, bars: _Bars, past: GpuHistory) -> Lines:
    """One line: the bar of its load, and all else in figures."""
    load, memory = gpu.utilisation_percent, gpu.memory_used_bytes
    said = [
        f"{load:3.0f}%" if load is not None else " -- ",
        figures.size(memory) if memory is not None else "",
        _celsius(gpu),
        f"{gpu.power_w:.0f} W" if gpu.power_w is not None else "",
    ]
    room = max(1, bars.width - LABEL - 1 - bars.bar - 1)
    filled, rest = figures.bar((load or 0) / 100, bars.bar)
    style = "warning" if (load or 0) / 100 >= BUSY else "primary"
    words = fit(" ".join(word for word in said if word), room)
    return [[_label(f"gpu {number}"), Part(filled, style), Part(rest, "trough"), Part(f" {words}")]]
