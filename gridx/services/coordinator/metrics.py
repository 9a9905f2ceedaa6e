"""What Prometheus reads: counts, states, latencies. A registry of its own, so that two coordinators in one
process do not meet in it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

Stats = Callable[[], Mapping[str, float]]

LAG_EVERY_S: Final = 0.25
_LATENCIES_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
_LAGS_S: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)


class _Numbers(Collector):
    """Numbers that are asked for when Prometheus asks."""

    def __init__(self, stats: Stats) -> None:
        self._stats = stats

    def collect(self) -> Iterable[Metric]:
        for name, value in sorted(self._stats().items()):
            kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
            yield kind(f"gridx_{name}", name.replace("_", " ").capitalize(), value=float(value))


class Metrics:
    """The coordinator's own measurements."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._requests = Histogram(
            "gridx_http_request_seconds",
            "Time to answer HTTP requests, by route and status",
            ("method", "route", "status"),
            buckets=_LATENCIES_S,
            registry=self._registry,
        )
        self._lag = Histogram(
            "gridx_loop_lag_seconds",
            "How much later than asked the event loop woke",
            buckets=_LAGS_S,
            registry=self._registry,
        )

        self._held = Gauge(
            "gridx_credits_held_microcredits",
            "Set aside for jobs that have not ended",
            registry=self._registry,
        )

    def watch(self, stats: Stats) -> None:
        """Take in numbers under their names, asked for at each reading."""
        self._registry.register(_Numbers(stats))

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count an answered request."""
        self._requests.labels(method, route, str(status)).observe(seconds)

    def text(self, credits_held: int) -> bytes:
        """Everything in Prometheus' text format; what is held is in microcredits."""
        self._held.set(credits_held)
        return generate_latest(self._registry)

    async def run(self) -> None:
        """Sample the event loop's lag, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + LAG_EVERY_S
            await asyncio.sleep(LAG_EVERY_S)
            self._lag.observe(max(0.0, loop.time() - due))
