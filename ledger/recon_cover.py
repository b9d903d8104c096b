"""Which period the statements of one currency cover without a gap. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal

from ledger.model import Record
from ledger.recon_items import Frame
from ledger.recon_result import Cover


class File(Record, frozen=True):
    """One imported statement."""

    sha256: str
    opened_at: datetime
    closed_at: datetime
    opening: Decimal | None
    closing: Decimal | None
    position: int
    """The later import wins where two files say the balance of one moment."""


def cover_of(files: Sequence[File]) -> Cover | None:
    """Return what the files cover from the earliest on, up to the first gap; None without files.

    Files whose period begins later than the run ends are named as missing what is before them,
    and do not count: a window without a statement is never taken for one without a difference.
    """
    if not files:
        return None
    ordered = sorted(files, key=lambda f: (f.opened_at, f.closed_at, f.sha256))
    run = [ordered[0]]
    end = ordered[0].closed_at
    missing: list[str] = []
    for file in ordered[1:]:
        if file.opened_at > end:
            missing.append(
                f"no statement covers {end.isoformat()} to {file.opened_at.isoformat()}; import it"
            )
            break
        run.append(file)
        end = max(end, file.closed_at)
    begin = ordered[0].opened_at
    first = max((f for f in run if f.opened_at == begin), key=lambda f: f.position)
    last = max((f for f in run if f.closed_at == end), key=lambda f: f.position)
    if last.closing is None:
        missing.append("the last statement states no closing balance; import one that does")
    shas = tuple(dict.fromkeys(file.sha256 for file in run))
    return Cover(Frame(begin, end), first.opening, last.closing, shas, tuple(missing))
