"""Which period the statements of one currency cover without a gap. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import datetime
from decimal import Decimal
from heapq import heappop, heappush
from typing import Final

from ledger.model import Record, plain
from ledger.reconciliation.items import Frame, StatementItem

BROKEN_MAX: Final = 5
"""Balances out of line that one run names; the rest follows from them."""


class CoveredFile(Record, frozen=True):
    """One imported statement."""

    sha256: str
    opened_at: datetime
    closed_at: datetime
    opening: Decimal | None
    closing: Decimal | None
    position: int
    """The later import wins where two files say the balance of one moment."""


class StatedBalances(Record, frozen=True):
    """A balance that a statement states at the beginning or the end of its period."""

    at: datetime
    balance: Decimal
    how: str
    """`opens` or `closes`."""
    sha256: str
    """Of the file."""


class Coverage(Record, frozen=True):
    """What the statements of a currency cover without a gap, oldest first."""

    frame: Frame
    opening: Decimal | None
    closing: Decimal | None
    files: tuple[str, ...]
    """SHA-256 of each file, in hex, in order of their periods."""
    missing: tuple[str, ...] = ()
    """What is wrong with the coverage, in words."""
    told: tuple[StatedBalances, ...] = ()
    """Every balance that counts, in order of time."""


def coverage_of(files: Sequence[CoveredFile], since: datetime | None = None) -> Coverage | None:
    """Return what the files cover from the earliest on, up to the first gap; None without files.

    `since` is where to begin instead; a file must begin there, and those before it do not count.

    Files whose period begins later than the run ends are named as missing what is before them,
    and do not count: a window without a statement is never taken for one without a difference.
    """
    files = [file for file in files if since is None or file.opened_at >= since]
    if not files:
        return None
    ordered = sorted(files, key=lambda f: (f.opened_at, f.closed_at, f.sha256))
    run = [ordered[0]]
    end = ordered[0].closed_at
    missing: list[str] = []
    if since is not None and run[0].opened_at != since:
        missing.append(f"no statement begins at {since.isoformat()}, where `since` says to begin")
    for file in ordered[1:]:
        if file.opened_at > end:
            missing.append(
                f"no statement covers {end.isoformat()} to {file.opened_at.isoformat()}; import it"
            )
            break
        run.append(file)
        end = max(end, file.closed_at)
    told = tuple(_told(run))
    first, last = run[0], max((f for f in run if f.closed_at == end), key=lambda f: f.position)
    for file in run:
        if file.opened_at == first.opened_at and file.position > first.position:
            first = file
    if last.closing is None:
        missing.append("the last statement states no closing balance; import one that does")
    shas = tuple(dict.fromkeys(file.sha256 for file in run))
    frame = Frame(first.opened_at, end)
    return Coverage(frame, first.opening, last.closing, shas, tuple(missing), told)


def _told(run: Sequence[CoveredFile]) -> Iterator[StatedBalances]:
    """Yield which balances the files state, in order of time; a newer file silences older ones.

    Of files that meet, both count: what one closes with, the next must open with.
    """
    begins: dict[datetime, list[CoveredFile]] = defaultdict(list)
    ends: dict[datetime, list[CoveredFile]] = defaultdict(list)
    for file in run:
        begins[file.opened_at].append(file)
        ends[file.closed_at].append(file)
    current: list[
        tuple[int, str, CoveredFile]
    ] = []  # a heap: the newest of the open files is on top
    for at in sorted({*begins, *ends}):
        newest = current[0][2] if current else None
        yield from _balances(at, "closes", [(f, f.closing) for f in ends[at] if f is newest])
        for file in begins[at]:
            heappush(current, (-file.position, file.sha256, file))
        while current and current[0][2].closed_at <= at:
            heappop(current)
        newest = current[0][2] if current else None
        yield from _balances(at, "opens", [(f, f.opening) for f in begins[at] if f is newest])


def _balances(
    at: datetime, how: str, found: Sequence[tuple[CoveredFile, Decimal | None]]
) -> Iterator[StatedBalances]:
    for file, balance in found:
        if balance is not None:
            yield StatedBalances(at, balance, how, file.sha256)


def continuity_breaks(
    told: Sequence[StatedBalances], opening: Decimal, lines: Sequence[StatementItem]
) -> list[str]:
    """Name the stated balances that do not follow from the lines before them, the first few."""
    found: list[str] = []
    ordered = sorted((line.at, line.amount) for line in lines)
    place, running = 0, opening
    for each in told:
        while place < len(ordered) and ordered[place][0] < each.at:
            running += ordered[place][1]
            place += 1
        if running != each.balance:
            found.append(
                f"statement {each.sha256[:12]} {each.how} at {each.at.isoformat()} with "
                f"{plain(each.balance)}, but opening and lines before it come to {plain(running)}: "
                "a line is missing, late or one too many; import the whole period anew"
            )
    return found[:BROKEN_MAX]
