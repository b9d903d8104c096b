"""What a measurement of receiving works with, and how the load generator gets its phases."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from ledger.bench.baseline import Ports
from ledger.bench.load import Figures, LoadCommand, Supply
from ledger.bench.reads import Gauge
from ledger.bench.run import SOURCE, MeasuredService, Tool
from ledger.errors import MeasurementFailed

CONNECTIONS: Final = 256
PATH: Final = f"/callbacks/{SOURCE}"
ANSWER_SECONDS_MAX: Final = 60.0
SUPPLY_SHARE: Final = 1.5
"""Requests made before a phase, against what the one before would have taken."""
SUPPLY_MAX: Final = 250_000
"""A third of a GiB: more would be made while it is measured, at the expense of the faster one."""


@dataclass(slots=True)
class Stage:
    """Everything that one measurement of receiving works with."""

    service: MeasuredService
    load: Tool
    baseline: Tool
    look: Gauge
    port: int
    others: Ports
    secret: str
    answers: Counter[str] = field(default_factory=Counter)
    rss: list[float] = field(default_factory=list)
    _rates: dict[int, float] = field(default_factory=dict)
    """port → answers per second when it was loaded last"""

    async def supply(self, port: int, seconds: float, rate: float | None = None) -> None:
        """Make the requests of a phase before it, as many as the rate so far lets expect.

        Raises MeasurementFailed when these are too many.
        """
        count = round(seconds * (rate or SUPPLY_SHARE * self._rates.get(port, 0.0)))
        if count > SUPPLY_MAX:
            raise MeasurementFailed(
                f"{seconds} s need {count} requests made beforehand, which is more than "
                f"{SUPPLY_MAX}: measure fewer seconds"
            )
        command = Supply(PATH, self.secret, count)
        await self.load.ask(msgspec.json.encode(command), ANSWER_SECONDS_MAX)

    async def phase(self, port: int, seconds: float, **options: Any) -> Figures:
        """Load the service or a baseline for some seconds."""
        command = LoadCommand(port, PATH, self.secret, seconds, CONNECTIONS, **options)
        line = await self.load.ask(msgspec.json.encode(command), seconds + ANSWER_SECONDS_MAX)
        figures = msgspec.json.decode(line, type=Figures)
        self._rates[port] = figures.counted / figures.seconds
        if port == self.port:
            self.answers.update(figures.answers)
        elif set(figures.answers) != {"200"}:
            raise MeasurementFailed(f"a baseline answered {figures.answers}")
        return figures
