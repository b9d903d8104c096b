"""Which period the statements of one currency cover without a gap. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from heapq import heappop, heappush
from typing import Final

from ledger.model import Record, changed, plain
from ledger.reconciliation.items import Period, StatementItem

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
DAY_MAX: Final = timedelta(hours=25)
"""The longest day there is, by a clock that is put back."""
CONTINUITY_BREAKS_MAX: Final = 5
"""Balances that do not follow that one run names; later ones follow from them."""


class CoveredFile(Record, frozen=True):
    """One imported statement."""

    sha256: str
    opened_at: datetime
    closed_at: datetime
    opening: Decimal | None
    closing: Decimal | None
    position: int
    """Of the import: the later one counts where two files state the balance of one time."""
    claimed_from: datetime | None = None
    """Of an inferred period: from when on the file has every line. None of a stated one."""


class StatedBalance(Record, frozen=True):
    """A balance that a statement states at the beginning or the end of its period."""

    at: datetime
    balance: Decimal
    how: str
    """`opens` or `closes`."""
    sha256: str
    """Of the file."""


class Coverage(Record, frozen=True):
    """What the statements of a currency cover without a gap."""

    period: Period
    opening: Decimal | None
    closing: Decimal | None
    files: tuple[str, ...]
    """SHA-256 of each file, in hex, in order of their periods."""
    missing: tuple[str, ...] = ()
    """What the coverage lacks, one sentence each."""
    stated_balances: tuple[StatedBalance, ...] = ()
    """Every balance that counts, in order of time."""


def coverage_of(
    files: Sequence[CoveredFile],
    since: datetime | None = None,
    business_time: Callable[[datetime], timedelta] = lambda moment: moment - EPOCH,
) -> Coverage | None:
    """Return what the files cover from the earliest on, up to the first gap; None without files.

    `since` is where to begin instead: a file must begin there, and earlier ones do not count. Files
    after a gap do not count either, and the gap is named as missing: a time without a statement is
    never taken for one without a difference. No gap is a time in which no business day passes, if
    the balances on both sides of it are equal. `business_time` is the business time up to a moment.
    """
    files = [file for file in _begun(files) if since is None or file.opened_at >= since]
    if not files:
        return None
    ordered = sorted(files, key=lambda f: (f.opened_at, f.closed_at, f.sha256))
    run = [ordered[0]]
    end = ordered[0].closed_at
    missing: list[str] = []
    if since is not None and run[0].opened_at != since:
        missing.append(f"no statement begins at {since.isoformat()}, which is where `since` begins")
    for file in ordered[1:]:
        if file.opened_at > end and not _is_joined(run, file, business_time):
            missing.append(
                f"no statement covers {end.isoformat()} to {file.opened_at.isoformat()}; import it"
            )
            break
        run.append(file)
        end = max(end, file.closed_at)
    balances = tuple(_stated_balances(run))
    first, last = run[0], _last(run)
    for file in run:
        if file.opened_at == first.opened_at and file.position > first.position:
            first = file
    if last.closing is None:
        missing.append("the last statement states no closing balance; import one that does")
    shas = tuple(dict.fromkeys(file.sha256 for file in run))
    period = Period(first.opened_at, end)
    return Coverage(period, first.opening, last.closing, shas, tuple(missing), balances)


def _begun(files: Sequence[CoveredFile]) -> list[CoveredFile]:
    """Return the files with their beginnings settled.

    An inferred period may begin on the day of the opening balance. Where another file has that day,
    the balance is that of its end.
    """
    ends = sorted((file.opened_at, file.closed_at) for file in files)
    begun = []
    for file in files:
        claimed_from = file.claimed_from or file.opened_at
        is_taken = file.opened_at < claimed_from and any(
            begin <= file.opened_at < end and (begin, end) != (file.opened_at, file.closed_at)
            for begin, end in ends
        )
        begun.append(changed(file, opened_at=claimed_from) if is_taken else file)
    return begun


def _last(run: Sequence[CoveredFile]) -> CoveredFile:
    """Return the file that reaches furthest; of several the latest import."""
    end = max(file.closed_at for file in run)
    return max((file for file in run if file.closed_at == end), key=lambda file: file.position)


def _is_joined(
    run: Sequence[CoveredFile], file: CoveredFile, business_time: Callable[[datetime], timedelta]
) -> bool:
    """Tell whether nothing can be missing between the files so far and the next one."""
    last = _last(run)
    if last.closing is None or last.closing != file.opening:
        return False
    if business_time(last.closed_at) == business_time(file.opened_at):
        return True
    # The day of the opening balance may be the first of an inferred period.
    return file.claimed_from is not None and file.opened_at - last.closed_at <= DAY_MAX


def _stated_balances(run: Sequence[CoveredFile]) -> Iterator[StatedBalance]:
    """Yield the balances that count, in order of time: where files overlap, those of the newest.

    Of files that meet, both count: what one closes with, the next must open with.
    """
    begins: dict[datetime, list[CoveredFile]] = defaultdict(list)
    ends: dict[datetime, list[CoveredFile]] = defaultdict(list)
    for file in run:
        begins[file.opened_at].append(file)
        ends[file.closed_at].append(file)
    current: list[tuple[int, str, CoveredFile]] = []  # a heap, the newest of the open files first
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
    at: datetime, how: str, files: Sequence[tuple[CoveredFile, Decimal | None]]
) -> Iterator[StatedBalance]:
    for file, balance in files:
        if balance is not None:
            yield StatedBalance(at, balance, how, file.sha256)


def continuity_breaks(
    stated_balances: Sequence[StatedBalance], opening: Decimal, lines: Sequence[StatementItem]
) -> list[str]:
    """Describe the first stated balances that do not follow from the lines before them."""
    dated = dated_continuity_breaks(stated_balances, opening, lines)
    return [sentence for _, sentence in dated][:CONTINUITY_BREAKS_MAX]


def dated_continuity_breaks(
    stated_balances: Sequence[StatedBalance], opening: Decimal, lines: Sequence[StatementItem]
) -> list[tuple[datetime, str]]:
    """Describe every stated balance that does not follow from the lines before it, in order."""
    breaks: list[tuple[datetime, str]] = []
    ordered = sorted((line.booked_at or line.at, line.amount) for line in lines)
    index, running = 0, opening
    for stated in stated_balances:
        while index < len(ordered) and ordered[index][0] < stated.at:
            running += ordered[index][1]
            index += 1
        if running != stated.balance:
            sentence = (
                f"statement {stated.sha256[:12]} {stated.how} at {stated.at.isoformat()} with "
                f"{plain(stated.balance)}, but the opening balance and the lines before it add up "
                f"to {plain(running)}: a line is missing, late or duplicate; import the whole "
                "period again"
            )
            breaks.append((stated.at, sentence))
    return breaks
