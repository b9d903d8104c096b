"""Prometheus metrics of all processes of one service.

The receiver counts in plain numbers and adds them to the metrics twice a second: a counter shared
between processes takes some 5 µs, and each answer would need two.
"""

from __future__ import annotations

import asyncio
import os
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from prometheus_client import REGISTRY as PROCESS
from prometheus_client import CollectorRegistry, Counter, generate_latest, multiprocess
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.samples import Sample

CALLBACKS: Final = Counter(
    "ledger_callbacks_total", "Requests under /callbacks", ["source", "outcome", "answer"]
)
BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
# The histogram ledger_callback_seconds is made of these two: prometheus_client's own has no way to
# add many observations at once.
CALLBACK_SECONDS_WITHIN: Final = Counter(
    "ledger_callback_seconds_within", "Answers by the bound that their time is within", ["le"]
)
CALLBACK_SECONDS_SUM: Final = Counter("ledger_callback_seconds_sum", "Time of all answers")
DELIVERIES_DROPPED: Final = Counter(
    "ledger_deliveries_dropped_total", "Refused or failed deliveries beyond the recording bounds"
)
FOLDED: Final = Counter("ledger_events_folded_total", "Events folded into books", ["source"])
FOLD_FAILURES: Final = Counter(
    "ledger_fold_failures_total", "Folding turns that failed and are retried", ["source"]
)
SEALED: Final = Counter("ledger_events_sealed_total", "Events under signed checkpoints", ["source"])

FLUSH_SECONDS: Final = 0.5
_LE: Final = (*map(str, BOUNDS), "+Inf")


@dataclass(slots=True)
class RequestCounters:
    """What one receiver process counted since it last added that to the metrics."""

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
        """Add the counts to the metrics and start from zero."""
        for (source, outcome, answer), n in self.outcomes.items():
            CALLBACKS.labels(source, outcome, answer).inc(n)
        self.outcomes.clear()
        for le, n in zip(_LE, self.within, strict=True):
            CALLBACK_SECONDS_WITHIN.labels(le).inc(n)
        self.within = [0] * (len(BOUNDS) + 1)
        CALLBACK_SECONDS_SUM.inc(self.seconds)
        self.seconds = 0

    async def run(self) -> None:
        """Flush until cancelled, and once more then."""
        try:
            while True:
                await asyncio.sleep(FLUSH_SECONDS)
                self.flush()
        finally:
            self.flush()


class Families:
    """Metrics that are known already: a Prometheus collector."""

    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
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
    counted = PROCESS
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        counted = CollectorRegistry()
        multiprocess.MultiProcessCollector(counted)  # type: ignore[no-untyped-call]
    families = {family.name: family for family in counted.collect()}
    within = families.pop("ledger_callback_seconds_within", None)
    seconds = families.pop("ledger_callback_seconds_sum", None)
    exposed = CollectorRegistry()
    exposed.register(Families([*families.values(), _callback_seconds(within, seconds), *gauges]))
    return generate_latest(exposed)


def _callback_seconds(within: Metric | None, seconds: Metric | None) -> HistogramMetricFamily:
    """Make the histogram of how long answers took, of what the two counters count."""
    counts = {sample.labels.get("le"): sample.value for sample in _totals(within)}
    buckets, total = [], 0.0
    for le in _LE:
        total += counts.get(le, 0.0)
        buckets.append((le, total))
    family = HistogramMetricFamily(
        "ledger_callback_seconds", "Time from the requests' headers to their answers"
    )
    family.add_metric([], buckets, sum_value=sum(sample.value for sample in _totals(seconds)))
    return family


def _totals(family: Metric | None) -> list[Sample]:
    return [s for s in (family.samples if family else ()) if s.name.endswith("_total")]
