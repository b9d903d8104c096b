"""Prometheus metrics of all processes of one service."""

from __future__ import annotations

import os
from typing import Final

from prometheus_client import REGISTRY as PROCESS
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    generate_latest,
    multiprocess,
)

CALLBACKS: Final = Counter(
    "ledger_callbacks_total", "Requests under /callbacks", ["source", "outcome", "answer"]
)
CALLBACK_SECONDS: Final = Histogram(
    "ledger_callback_seconds",
    "Time from the request's headers to its answer",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
DELIVERIES_DROPPED: Final = Counter(
    "ledger_deliveries_dropped_total", "Refused or failed deliveries beyond the recording bounds"
)
FOLDED: Final = Counter("ledger_events_folded_total", "Events folded into books", ["source"])
SEALED: Final = Counter("ledger_events_sealed_total", "Events under signed checkpoints", ["source"])


def render() -> bytes:
    """Return the exposition text, over all processes when they share a metrics folder."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return generate_latest(PROCESS)
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)
