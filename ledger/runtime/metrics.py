"""Prometheus metrics of all processes of one service.

The receiver counts in plain numbers and adds them up twice a second: a counter shared between
processes costs more than the rest of an answer.
"""

from __future__ import annotations

import asyncio
import os
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from prometheus_client import REGISTRY as PROCESS
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest, multiprocess
from prometheus_client.core import GaugeMetricFamily

CALLBACKS: Final = Counter(
    "ledger_callbacks_total", "Requests under /callbacks", ["source", "outcome", "answer"]
)
BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
CALLBACK_SECONDS: Final = Histogram(
    "ledger_callback_seconds", "Time from the requests' headers to their answers", buckets=BOUNDS
)
DELIVERIES_DROPPED: Final = Counter(
    "ledger_deliveries_dropped_total", "Refused or failed deliveries beyond the recording bounds"
)
FOLDED: Final = Counter("ledger_events_folded_total", "Events folded into books", ["source"])
FOLD_FAILURES: Final = Counter(
    "ledger_fold_failures_total", "Turns of folding that failed and are tried again", ["source"]
)
SEALED: Final = Counter("ledger_events_sealed_total", "Events under signed checkpoints", ["source"])

FLUSH_SECONDS: Final = 0.5


@dataclass(slots=True)
class RequestCounters:
    """What one receiver process counted since it last added it to the metrics."""

    outcomes: dict[tuple[str, str, int], int] = field(default_factory=dict)
    within: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    seconds: float = 0

    def count(self, source: str, outcome: str, answer: int, seconds: float) -> None:
        """Count one answered request."""
        key = (source, outcome, answer)
        self.outcomes[key] = self.outcomes.get(key, 0) + 1
        self.within[bisect_left(BOUNDS, seconds)] += 1
        self.seconds += seconds

    def flush(self) -> None:
        """Add what was counted to the metrics and begin anew."""
        for (source, outcome, answer), n in self.outcomes.items():
            CALLBACKS.labels(source, outcome, answer).inc(n)
        self.outcomes.clear()
        # A histogram has no public way to add many observations at once.
        for bucket, n in zip(CALLBACK_SECONDS._buckets, self.within, strict=True):
            bucket.inc(n)
        self.within = [0] * (len(BOUNDS) + 1)
        CALLBACK_SECONDS._sum.inc(self.seconds)
        self.seconds = 0

    async def run(self) -> None:
        """Flush until cancelled, and once more then."""
        try:
            while True:
                await asyncio.sleep(FLUSH_SECONDS)
                self.flush()
        finally:
            self.flush()


class Gauges:
    """Gauges that are read elsewhere when they are asked for: a Prometheus collector."""

    def __init__(self, families: Sequence[GaugeMetricFamily]) -> None:
        self._families = families

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the gauges."""
        yield from self._families


def gauge(
    name: str, about: str, labels: Sequence[str], values: Mapping[tuple[str, ...], float]
) -> GaugeMetricFamily:
    """Make a gauge from label values → value."""
    family = GaugeMetricFamily(name, about, labels=labels)
    for given, value in values.items():
        family.add_metric(given, value)
    return family


def render(gauges: Sequence[GaugeMetricFamily] = ()) -> bytes:
    """Return the exposition text of `gauges`, and of the counters of all processes that share a
    metrics folder."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        counted = generate_latest(PROCESS)
    else:
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        counted = generate_latest(registry)
    own = CollectorRegistry()
    own.register(Gauges(gauges))
    return counted + generate_latest(own)
