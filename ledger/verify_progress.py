"""How far a long check is: a bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from rich import progress as rich
from rich.console import Console

LINE_SECONDS: Final = 5.0


@dataclass(slots=True)
class Step:
    """One part of the work: told how many events are done."""

    progress: Progress
    name: str
    total: int | None
    task: rich.TaskID | None
    started: float
    told: float

    def advance(self, done: int) -> None:
        """Say that `done` events are done."""
        if self.progress.bars is not None and self.task is not None:
            self.progress.bars.update(self.task, completed=done)
            return
        now = time.monotonic()
        if not self.progress.quiet and now - self.told >= LINE_SECONDS:
            self.told = now
            rate = done / max(now - self.started, 0.001)
            of = f" of {self.total}" if self.total is not None else ""
            sys.stderr.write(f"{self.name}: {done}{of} events, {rate:,.0f}/s\n")

    def done(self) -> None:
        """Say that this part has ended."""
        if self.progress.bars is not None and self.task is not None:
            self.progress.bars.remove_task(self.task)


@dataclass(slots=True)
class Progress:
    """Shows steps on stderr."""

    quiet: bool
    bars: rich.Progress | None = None

    @classmethod
    @contextmanager
    def shown(cls, *, quiet: bool = False) -> Iterator[Progress]:
        """Show progress for the length of a block."""
        if quiet or not sys.stderr.isatty():
            yield cls(quiet)
            return
        columns = (
            rich.TextColumn("{task.description}"),
            rich.BarColumn(),
            rich.MofNCompleteColumn(),
            rich.TimeRemainingColumn(),
        )
        with rich.Progress(*columns, console=Console(file=sys.stderr), transient=True) as bars:
            yield cls(quiet, bars)

    def step(self, name: str, total: int | None) -> Step:
        """Begin a part of the work of `total` events (None: not known)."""
        task = self.bars.add_task(name, total=total) if self.bars is not None else None
        now = time.monotonic()
        return Step(self, name, total, task, now, now)
