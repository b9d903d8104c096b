"""What checks found, what it comes to, and how it is told."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

import orjson

from ledger.terminal import tables

STATUSES: Final = {"ok": 0, "fail": 1, "INCOMPLETE": 3}

Verdict = Literal["ok", "fail", "INCOMPLETE"]


@dataclass(frozen=True, slots=True)
class Checked:
    """What one check found. `position` is the first bad one."""

    verdict: Verdict
    name: str
    found: str
    advice: str = ""
    source: str = ""
    position: int | None = None
    differences: list[dict[str, Any]] = field(default_factory=list)


def overall(found: Iterable[Checked]) -> Verdict:
    """Return what all checks say together: one failure fails, one gap is incomplete."""
    verdicts = {check.verdict for check in found}
    return "fail" if "fail" in verdicts else "INCOMPLETE" if "INCOMPLETE" in verdicts else "ok"


def tell(found: Sequence[Checked], when_ok: str, *, json: bool) -> int:
    """Print what was found; return the exit status."""
    verdict = overall(found)
    if json:
        document = {"verdict": verdict, "checks": [asdict(check) for check in found]}
        sys.stdout.write(orjson.dumps(document).decode() + "\n")
    else:
        out = tables.console()
        out.print(tables.table("evidence", [asdict(check) for check in found], out))
        tables.line(out, _summary(verdict, found, when_ok), verdict)
    return STATUSES[verdict]


def _summary(verdict: Verdict, found: Sequence[Checked], when_ok: str) -> str:
    for check in found:
        if check.verdict == verdict != "ok":
            where = f" at {check.source}:{check.position}" if check.position else ""
            return f"{verdict}{where}: {check.found}"
    return f"ok: {when_ok}"
