"""camt.053, the ISO 20022 bank statement: every version, amounts as they are written.

A file holds one or several statements, of one or several accounts and currencies; those of one
account and currency follow each other and are read as one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from itertools import pairwise
from typing import Final

from ledger.config.statement_profile import StatementProfile, account_number
from ledger.errors import OtherAccount
from ledger.model import plain
from ledger.statements.formats.camt053.document import read_document
from ledger.statements.formats.camt053.statement import CamtStatement
from ledger.statements.formats.camt053.summary import Totals, check_summary
from ledger.statements.formats.chain import LONGEST_DAY, chained, is_gap, time_between
from ledger.statements.model import (
    Reading,
    Statement,
    StatementFormat,
    StatementLine,
    StatementRefused,
    Window,
)
from ledger.statements.validation import (
    DAY,
    NAMES_MAX,
    NOTES_MAX,
    booked_within,
    checked_statement,
    period,
    zone,
)

NAME: Final = "camt.053"
_BEGINNINGS: Final = (b"<", b"\xff\xfe<\x00", b"\xfe\xff\x00<", b"\x00<")
_LATEST: Final = datetime.max.replace(tzinfo=UTC)


def read(body: bytes, how: Reading) -> Statement:
    """Read the statements of one account and currency, which must follow each other.

    The profile may declare `time_zone`, the zone of days and of times without an offset (default
    UTC). Raises StatementRefused, naming the entry or the statement, and the field.
    """
    where = zone(how)
    statements = read_document(body, where)
    _check_summaries(statements)
    account, currency, chosen = _selected(statements, how)
    notes = _notes(chosen)
    chosen = _distinct(chosen, notes)
    chosen = _merged_pages(chained(chosen, _order, CamtStatement.amounts))
    _check_chain(chosen)
    windows = _windows(chosen)
    stated = _stated(chosen, windows)
    return checked_statement(
        list(_booked_lines(chosen, windows)),
        body=body,
        format=NAME,
        currency=currency,
        window=period(how.window, stated),
        opening=chosen[0].amounts()[0],
        closing=chosen[-1].amounts()[1],
        account=account,
        balance_days=None if stated else _balance_days(chosen),
        where=where,
        are_days=True,
        notes=notes,
    )


def _selected(
    statements: Sequence[CamtStatement], how: Reading
) -> tuple[str, str, list[CamtStatement]]:
    """Return the account, the currency and its statements. Raises StatementRefused."""
    given = account_number(how.account or "")
    accounts = _sorted(each.account for each in statements)
    if given and accounts:
        statements = [each for each in statements if each.account == given]
        if not statements:
            raise OtherAccount(f"the file is about {', '.join(accounts)}, not {given[:40]}")
    elif len(accounts) > 1:
        raise StatementRefused(f"the file is about {', '.join(accounts)}; choose one (--account)")
    currencies = _sorted(each for statement in statements for each in statement.currencies())
    if not currencies:
        raise StatementRefused("the file names no currency (Ccy); export the statement again")
    if how.currency is None and len(currencies) > 1:
        raise StatementRefused(
            f"the file is about {', '.join(currencies)}; choose one (--currency)"
        )
    currency = how.currency.upper() if how.currency else currencies[0]
    if currency not in currencies:
        raise OtherAccount(f"the file is about {', '.join(currencies)}, not {currency[:40]}")
    chosen = [each.of_currency(currency) for each in statements if currency in each.currencies()]
    return given or next(iter(accounts), ""), currency, chosen


def _sorted(texts: Iterable[str]) -> list[str]:
    return sorted({text for text in texts if text})


def _check_summaries(statements: Sequence[CamtStatement]) -> None:
    """Refuse totals that neither the entries of a page nor those of all its pages have."""
    of_pages: dict[object, tuple[Totals, Totals]] = {}
    for statement in statements:
        if statement.page:
            booked, unbooked = of_pages.get(_whole(statement), (Totals(), Totals()))
            of_pages[_whole(statement)] = (booked + statement.booked, unbooked + statement.unbooked)
    for statement in statements:
        if statement.summary is None:
            continue
        totals = [statement.booked, statement.booked + statement.unbooked]
        if statement.page:
            booked, unbooked = of_pages[_whole(statement)]
            totals += [booked, booked + unbooked]
        check_summary(statement.label, statement.summary, totals)


def _whole(page: CamtStatement) -> object:
    """Return what the pages of one statement have in common."""
    return page.account, page.stated


def _order(statement: CamtStatement) -> tuple[datetime, datetime, int, int, int]:
    return (
        statement.begins_at() or _LATEST,
        statement.ends_at() or _LATEST,
        statement.sequence,
        statement.page,
        statement.number,
    )


def _distinct(statements: Sequence[CamtStatement], notes: list[str]) -> list[CamtStatement]:
    """Leave out statements that are copies of one before: banks deliver some twice."""
    alike = Counter(each.outline() for each in statements)
    known: dict[object, CamtStatement] = {}
    kept: list[CamtStatement] = []
    for statement in statements:
        if not statement.id or alike[statement.outline()] == 1:
            kept.append(statement)
            continue
        first = known.setdefault((statement.outline(), statement.content()), statement)
        if first is statement:
            kept.append(statement)
        else:
            notes.append(f"{statement.label} is a copy of statement {first.number} and left out")
    return kept


def _merged_pages(statements: Sequence[CamtStatement]) -> list[CamtStatement]:
    """Join the pages that each repeat the balances of the whole statement."""
    result: list[CamtStatement] = []
    for statement in statements:
        earlier = result[-1] if result else None
        if (
            earlier is not None
            and earlier.page < statement.page
            and earlier.page
            and earlier.amounts() == statement.amounts() != (None, None)
            and earlier.begins_at() == statement.begins_at()
        ):
            result[-1] = replace(earlier.merged_with(statement), page=statement.page)
        else:
            result.append(statement)
    return result


def _check_chain(statements: Sequence[CamtStatement]) -> None:
    """Refuse several statements unless each adds up and follows the one before, none missing."""
    for earlier, later in pairwise(statements):
        earlier.check_sum()
        closing, opening = earlier.amounts()[1], later.amounts()[0]
        if closing is None or opening is None:
            if not _is_next_page(earlier, later) and not _is_met(earlier, later):
                raise StatementRefused(
                    f"nothing shows that {later.label} follows {earlier.label}: one has no booked "
                    "balance, and the one does not begin where the other ends; import each as a "
                    "file of its own"
                )
        elif closing != opening:
            raise StatementRefused(
                f"{later.label} opens with {plain(opening)}, but {earlier.label}, the one before, "
                f"closes with {plain(closing)}; one between them is missing: import the file that "
                "has it, or each statement as a file of its own"
            )
        else:
            _check_gap(earlier, later)
    if len(statements) > 1 or statements[-1].left_out:  # the sum of a single one is checked later
        statements[-1].check_sum()


def _is_next_page(earlier: CamtStatement, later: CamtStatement) -> bool:
    return 0 < earlier.page < later.page


def _is_met(earlier: CamtStatement, later: CamtStatement) -> bool:
    """Return whether a statement begins where the one before ends."""
    ended_at = earlier.ends_at()
    return ended_at is not None and ended_at == later.begins_at()


def _check_gap(earlier: CamtStatement, later: CamtStatement) -> None:
    """Refuse two statements between which a business day lies, or may lie."""
    ended_at, begins_at = earlier.ends_at(), later.begins_at()
    if ended_at is None or begins_at is None:
        if _is_next_page(earlier, later):
            return
        raise StatementRefused(
            f"nothing shows that {later.label} follows {earlier.label}: a balance has no date, and "
            "no period (FrToDt) is stated; import each as a file of its own"
        )
    where = later.where
    if is_gap(ended_at, begins_at, where, may_begin_earlier=later.may_begin_earlier()):
        raise StatementRefused(
            f"no statement of the file is about {time_between(ended_at, begins_at, where)}, "
            f"between {earlier.label} and {later.label}; import the file that has that time, and "
            "each statement as a file of its own: reconciling then names what is missing"
        )


def _windows(statements: Sequence[CamtStatement]) -> list[Window | None]:
    """Return each statement's period: as stated, else by its balances, after the one before."""
    windows: list[Window | None] = []
    for statement in statements:
        earlier = windows[-1] if windows else None
        begins_at, ends_at = statement.begins_at(), statement.ends_at()
        if statement.window() is None and earlier is not None and ends_at is not None:
            begins_at = _begin_after(earlier, statement, begins_at, ends_at)
        if begins_at is None or ends_at is None or begins_at >= ends_at:
            windows.append(None)
        else:
            windows.append((begins_at, ends_at))
    return windows


def _begin_after(
    earlier: Window, statement: CamtStatement, begins_at: datetime | None, ends_at: datetime
) -> datetime:
    """Return where an inferred period begins: no earlier than the one before ends."""
    if earlier[1] >= ends_at:
        return earlier[0]  # pages share a day
    if begins_at is None or begins_at <= earlier[1]:
        return earlier[1]
    is_met = statement.may_begin_earlier() and begins_at - earlier[1] <= LONGEST_DAY
    return earlier[1] if is_met else begins_at


def _stated(statements: Sequence[CamtStatement], windows: Sequence[Window | None]) -> Window | None:
    """Return the period that the file states, at least at one end; None where it states none."""
    if statements[0].window() is None and statements[-1].window() is None:
        return None
    begins, ends = windows[0], windows[-1]
    return (begins[0], ends[1]) if begins and ends else None


def _balance_days(statements: Sequence[CamtStatement]) -> tuple[date, date] | None:
    """Return the days of the balances at both ends, where both are stated."""
    first, last = statements[0], statements[-1]
    opening_day, closing_day = first.opening_day(), last.closing_day()
    if opening_day is None or closing_day is None:
        return None
    if first is not last and opening_day == first.closing_day():
        opening_day -= DAY  # a first statement of one day has that day
    return opening_day, closing_day


def _booked_lines(
    statements: Sequence[CamtStatement], windows: Sequence[Window | None]
) -> Iterable[StatementLine]:
    """Yield the lines, of several statements each within its own period."""
    for statement, window in zip(statements, windows, strict=True):
        if window is None or len(statements) == 1:
            yield from statement.lines
        else:
            yield from booked_within(statement.lines, window)


def _notes(statements: Sequence[CamtStatement]) -> list[str]:
    """Describe what is left out of the lines."""
    notes = []
    left_out = sum(statement.unbooked.count for statement in statements)
    if left_out:
        some = "1 entry is" if left_out == 1 else f"{left_out} entries are"
        notes.append(f"{some} not booked (pending or for information) and left out")
    full = [
        line.number
        for statement in statements
        for line in statement.lines
        if len(line.names) == NAMES_MAX
    ]
    notes += [
        f"line {number} has {NAMES_MAX} references or more; the first {NAMES_MAX} count"
        for number in full[:NOTES_MAX]
    ]
    return notes


def _recognises(head: bytes, profile: StatementProfile) -> bool:
    return head.startswith(_BEGINNINGS)


FORMAT: Final = StatementFormat(NAME, _recognises, read)
