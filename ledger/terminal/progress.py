"""How far a long check is: a bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from rich import progress as rich
from rich.text import Text

from ledger.terminal import tables

LINE_SECONDS: Final = 5.0


class _Rate(rich.ProgressColumn):
    """How many are done per second."""

    def render(self, task: rich.Task) -> Text:
        """Return the rate of a task, nothing before there is one."""
        return Text("" if task.speed is None else f"{task.speed:,.0f}/s", style="progress.data")


@dataclass(slots=True)
class ProgressStep:
    """The progress of one step of the work, counted in events."""

    progress: Progress
    name: str
    total: int | None
    task: rich.TaskID | None
    started: float
    shown_at: float

    def advance(self, done: int) -> None:
        """Show that `done` events are done."""
        if self.progress.bars is not None and self.task is not None:
            self.progress.bars.update(self.task, completed=done)
            return
        now = time.monotonic()
        if not self.progress.quiet and now - self.shown_at >= LINE_SECONDS:
            self.shown_at = now
            rate = done / max(now - self.started, 0.001)
            of = f" of {self.total}" if self.total is not None else ""
            left = ""
            if self.total and done:
                left = f", {(self.total - done) / max(rate, 0.001):.0f} s left"
            sys.stderr.write(f"{self.name}: {done}{of} events, {rate:,.0f}/s{left}\n")

    def done(self) -> None:
        """Stop showing this step: it has ended."""
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
            _Rate(),
            rich.TimeRemainingColumn(),
        )
        with rich.Progress(*columns, console=tables.console(sys.stderr), transient=True) as bars:
            yield cls(quiet, bars)

    def step(self, name: str, total: int | None) -> ProgressStep:
        """Begin a part of the work of `total` events (None: not known)."""
        task = self.bars.add_task(name, total=total) if self.bars is not None else None
        now = time.monotonic()
        return ProgressStep(self, name, total, task, now, now)


@dataclass(slots=True)
class Stages:
    """Shows work of several stages, one step at a time."""

    progress: Progress
    name: str = ""
    step: ProgressStep | None = None

    def report(self, stage: str, done: int, total: int) -> None:
        """Show how far a stage is; another name begins another stage."""
        if self.step is None or self.name != stage:
            self.done()
            self.name, self.step = stage, self.progress.step(stage, total)
        self.step.advance(done)

    def done(self) -> None:
        """Stop showing the last stage: it has ended."""
        if self.step is not None:
            self.step.done()
            self.step = None
