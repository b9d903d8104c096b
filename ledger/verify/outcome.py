"""The results of checks: their outcome together, and how they are printed."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

import orjson

from ledger.errors import Tampered
from ledger.terminal import tables

EXIT_STATUSES: Final = {"ok": 0, "fail": 1, "INCOMPLETE": 3}

Outcome = Literal["ok", "fail", "INCOMPLETE"]


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of one check. `position` is the first bad event."""

    outcome: Outcome
    name: str
    message: str
    advice: str = ""
    source: str = ""
    position: int | None = None
    differences: list[dict[str, Any]] = field(default_factory=list)

    def as_row(self) -> dict[str, Any]:
        """Return the result under the names of the public JSON."""
        row = asdict(self)
        return {"verdict": row.pop("outcome"), "name": row.pop("name"),
                "found": row.pop("message"), **row}  # fmt: skip


@dataclass(slots=True)
class Report:
    """Collects the results of checks."""

    results: list[CheckResult] = field(default_factory=list)

    def add(
        self, outcome: Outcome, name: str, message: str, advice: str = "", source: str = ""
    ) -> None:
        """Add a result."""
        self.results.append(CheckResult(outcome, name, message, advice, source))

    def fail(self, error: Tampered, advice: str, source: str = "") -> None:
        """Add a failure."""
        self.results.append(
            CheckResult("fail", error.check, str(error), advice, source, error.position)
        )


def overall(results: Iterable[CheckResult]) -> Outcome:
    """Return the outcome of all checks: a failure fails, else an incomplete one is incomplete."""
    outcomes = {result.outcome for result in results}
    return "fail" if "fail" in outcomes else "INCOMPLETE" if "INCOMPLETE" in outcomes else "ok"


def print_results(results: Sequence[CheckResult], when_ok: str, *, json: bool) -> int:
    """Print the results; return the exit status."""
    outcome = overall(results)
    rows = [result.as_row() for result in results]
    if json:
        document = {"verdict": outcome, "checks": rows}
        sys.stdout.write(orjson.dumps(document).decode() + "\n")
    else:
        out = tables.console()
        out.print(tables.table("evidence", rows, out))
        tables.line(out, _summary(outcome, results, when_ok), outcome)
    return EXIT_STATUSES[outcome]


def _summary(outcome: Outcome, results: Sequence[CheckResult], when_ok: str) -> str:
    for result in results:
        if result.outcome == outcome != "ok":
            where = f" at {result.source}:{result.position}" if result.position else ""
            return f"{outcome}{where}: {result.message}"
    return f"ok: {when_ok}"


def counted(count: int, noun: str) -> str:
    """Return a count with its noun: `1 event`, `2 events`."""
    return f"{count} {noun}{'s' * (count != 1)}"
