"""Check every statement, whatever its format: lines in order of time, exact sums, a period."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from ledger.config.statement_profile import StatementProfile, account_number
from ledger.errors import InvalidCallback
from ledger.model import YEARS, as_currency, as_money, as_text, changed, plain, shown, total
from ledger.statements.model import (
    LINES_MAX,
    Reading,
    Statement,
    StatementLine,
    StatementRefused,
    Window,
    core_of,
    named,
)

MOMENT: Final = timedelta(microseconds=1)
DAY: Final = timedelta(days=1)

SLACK: Final = DAY
"""How far a given period may reach beyond the stated one, whose last day it may include."""

LATE_MAX: Final = timedelta(days=92)
"""How far a line may be dated outside of its statement's period: interest is booked a quarter
after the day from which it counts."""

PLACEHOLDERS: Final = frozenset(
    {"NOTPROVIDED", "NOTAVAILABLE", "NONREF", "NOREF", "NONE", "NULL", "N/A", "NA", "-", "EREF",
     "KREF", "EREF+", "KREF+", "SEEREMITTANCE", "UNKNOWN", "0", "NOTSPECIFIED", "NA."}
)  # fmt: skip
"""What banks write where there is no reference; blanks and case do not count."""

NO_CURRENCY: Final = (
    "the file names no currency; give it (--currency), or the account, if that is declared "
    "(--account)"
)
NOTES_MAX: Final = 20
NUMBERS_MAX: Final = 10
NAMES_MAX: Final = 1_000
"""Names of one line: those of a batch's transactions."""


def checked_statement(
    lines: Sequence[StatementLine],
    *,
    body: bytes,
    format: str,  # noqa: A002 - the word users know
    currency: str,
    window: Window | None,
    opening: Decimal | None,
    closing: Decimal | None,
    account: str = "",
    balance_days: tuple[date, date] | None = None,
    where: ZoneInfo | None = None,
    are_days: bool = False,
    are_ids_unique: bool = False,
    notes: Sequence[str] = (),
) -> Statement:
    """Return the statement made of a file's lines, oldest first, each named and booked, checked.

    `window` is the period that the file states or that is given; without one it is inferred: from
    `balance_days`, the days of opening and closing balance, else from the lines, whose days count
    whole when `are_days`. Days are those of the zone `where`. `are_ids_unique`: the provider gives
    an id to one line only, in all its files. Raises StatementRefused when balances do not add up,
    a line is dated far outside the period, or no period can be known.
    """
    for line in lines:
        if line.effective_at.year not in YEARS:
            raise refusal(line.number, f"is dated {line.effective_at.isoformat()}, outside of "
                          f"{YEARS[0]} to {YEARS[-1]}; correct its time")  # fmt: skip
    currency_code(currency)
    ordered = in_order(lines, opening, closing)
    opening, closing = _balances(ordered, opening, closing)
    opened_at, claimed_from, closed_at = _period(ordered, window, balance_days, where, are_days)
    _in_years(opened_at, closed_at)
    if opened_at >= closed_at:
        raise StatementRefused(
            f"the period ends at {closed_at.isoformat()}, before it begins; correct it"
        )
    is_first_day_unsure = (
        window is None and balance_days is not None and balance_days[0] != balance_days[1]
    )
    booked = named(booked_within(ordered, (claimed_from, closed_at)), are_ids_unique=are_ids_unique)
    return Statement(
        format=format,
        sha256=hashlib.sha256(body).hexdigest(),
        currency=currency,
        opened_at=opened_at,
        closed_at=closed_at,
        opening=opening,
        closing=closing,
        lines=booked,
        body=body,
        account=account,
        claimed_from=claimed_from if is_first_day_unsure else None,
        where=where,
        is_inferred=window is None and balance_days is None,
        notes=(*notes, *_repeated(booked), *_late(booked, (claimed_from, closed_at), where)),
    )


def _period(
    lines: Sequence[StatementLine],
    window: Window | None,
    balance_days: tuple[date, date] | None,
    where: ZoneInfo | None,
    are_days: bool,
) -> tuple[datetime, datetime, datetime]:
    """Return where the period begins, from where on it has every line, and where it ends.

    The day of the opening balance is the one before the first, or the first itself: lines dated on
    it show that it may belong to the period. The statement before has that day as well, so this one
    does not claim to have all its lines, and counts its own on the day after.
    """
    if window is not None:
        return window[0], window[0], window[1]
    if balance_days is not None:
        first, last = balance_days
        if last < first:
            raise StatementRefused(
                f"the closing balance is of {last.isoformat()}, before the opening balance of "
                f"{first.isoformat()}; export the statement again"
            )
        day, end = midnight(first, where), midnight(last + DAY, where)
        following = midnight(first + DAY, where)
        if first == last:
            return day, day, end
        is_in = any(day <= line.effective_at < following for line in lines)
        return (day if is_in else following), following, end
    begin, end = _span(lines)
    if are_days:
        zone_of_days = where or UTC
        last_day = (end - MOMENT).astimezone(zone_of_days).date()
        begin = midnight(begin.astimezone(zone_of_days).date(), where)
        end = midnight(last_day + DAY, where)
    return begin, begin, end


def booked_within(lines: Iterable[StatementLine], window: Window) -> tuple[StatementLine, ...]:
    """Return the lines with `booked_at`: within the period, on the side that is nearer.

    One that is set already stays where it is within the period. Raises StatementRefused for a line
    dated more than LATE_MAX outside.
    """
    begin, end = window
    latest = max(begin, end - MOMENT)
    booked = []
    for line in lines:
        at = line.booked_at or line.effective_at
        if not begin - LATE_MAX <= line.effective_at < end + LATE_MAX:
            raise refusal(line.number, f"is dated {line.effective_at.isoformat()}, more than "
                          f"{LATE_MAX.days} days outside the period {begin.isoformat()} to "
                          f"{end.isoformat()}; import the file with the period that it covers "
                          "(--from, --to)")  # fmt: skip
        booked.append(changed(line, booked_at=min(max(at, begin), latest)))
    return tuple(booked)


def _late(lines: Sequence[StatementLine], window: Window, where: ZoneInfo | None) -> list[str]:
    """Describe how many lines are dated outside the days that the statement has whole."""
    late = [line.number for line in lines if line.booked_at != line.effective_at]
    if not late:
        return []
    one = len(late) == 1
    days = [each.astimezone(where or UTC) for each in (window[0], window[1] - MOMENT)]
    return [
        f"{len(late)} line{'' if one else 's'} ({_numbers(late)}) {'is' if one else 'are'} dated "
        f"outside {days[0].date()} to {days[1].date()}, the days of the statement, and "
        f"{'keeps its date' if one else 'keep their dates'}; in the balances "
        f"{'it counts' if one else 'they count'} on the nearest of these days"
    ]


def _repeated(lines: Sequence[StatementLine]) -> list[str]:
    """Name the lines that are equal, the id included: the file has them, so they count."""
    groups: dict[tuple[object, ...], list[int]] = {}
    count = Counter(line.id for line in lines)
    for line in lines:
        if line.id and count[line.id] > 1:
            groups.setdefault((line.id, *core_of(line), line.description), []).append(line.number)
    notes = [
        f"lines {_numbers(numbers)} are equal, and so are their ids; all of them count"
        for numbers in groups.values()
        if len(numbers) > 1
    ]
    return notes[:NOTES_MAX]


def _numbers(numbers: Sequence[int]) -> str:
    listed = ", ".join(map(str, sorted(numbers)[:NUMBERS_MAX]))
    return listed if len(numbers) <= NUMBERS_MAX else f"{listed} …"


def names_of(*texts: str | None) -> tuple[str, ...]:
    """Return the texts that name something: trimmed, each once, without PLACEHOLDERS."""
    names = (text.strip() for text in texts if text)
    kept = (name for name in names if "".join(name.split()).upper() not in PLACEHOLDERS)
    return tuple(dict.fromkeys(filter(None, kept)))[:NAMES_MAX]


def _in_years(opened_at: datetime, closed_at: datetime) -> None:
    for moment in (opened_at, closed_at):
        if moment.year not in YEARS:
            raise StatementRefused(
                f"the period reaches to {moment.isoformat()}, outside of {YEARS[0]} to "
                f"{YEARS[-1]}; give the period that the file covers (--from, --to)"
            )


def refusal(number: int, what: str) -> StatementRefused:
    """Return the refusal that names a line of the file."""
    return StatementRefused(f"line {number}: {what}")


def check_line_count(number: int) -> None:
    """Raise StatementRefused beyond LINES_MAX lines."""
    if number > LINES_MAX:
        raise StatementRefused(f"more than {LINES_MAX} lines; split the file by time")


def money(number: int, name: str, value: object) -> Decimal | None:
    """Read an amount of line `number` exactly. Raises StatementRefused, naming the line."""
    try:
        return as_money(name, value)
    except InvalidCallback as error:
        raise refusal(number, f"{error}; export the statement with plain decimals") from error


def text(number: int, name: str, value: object) -> str | None:
    """Read an id or a word of line `number`. Raises StatementRefused, naming the line."""
    try:
        return as_text(name, value)
    except InvalidCallback as error:
        raise refusal(number, f"{error}; the provider's export is damaged") from error


def declared_currency(how: Reading, account: str) -> str:
    """Return the wallet that is declared for an account, or for the one given; "" without one."""
    return how.accounts.get(account or account_number(how.account or ""), "")


def agreed_currency(currency: str | None, stated: str | None, declared: str = "") -> str:
    """Return the currency that the file states or the caller gives, else the one declared.

    It is in upper case. Raises StatementRefused when they differ or none is named.
    """
    if currency and stated and currency.upper() != stated.upper():
        raise StatementRefused(
            f"the file is about {stated.upper()}, not {currency.upper()}; import it as such"
        )
    code = stated or currency or declared
    if not code:
        raise StatementRefused(NO_CURRENCY)
    return currency_code(code)


def currency_code(text: str) -> str:
    """Return a currency in upper case. Raises StatementRefused for what callbacks cannot name."""
    code = as_currency(text)
    if code is None:
        raise StatementRefused(
            f"{shown(text)} is no currency code: a letter, then 1 to 11 letters or digits; give "
            "the one of the wallet (--currency)"
        )
    return code


def period(given: Window | None, stated: Window | None) -> Window | None:
    """Return the period given, else the one that the file states; None without either.

    Raises StatementRefused when the one given claims more than the file states.
    """
    if given is None or stated is None:
        return given or stated
    if given[0] < stated[0] - SLACK or given[1] > stated[1] + SLACK:
        raise StatementRefused(
            f"the file states that it covers {stated[0].isoformat()} to {stated[1].isoformat()}, "
            "less than the period given; leave that out (--from, --to)"
        )
    return given


def zone(how: Reading, profile: StatementProfile | None = None) -> ZoneInfo | None:
    """Return the zone declared as `time_zone`, by the profile before the source; None without one.

    `profile` is the one by which the file is read, if not that of `how`. Raises StatementRefused.
    """
    name = (profile or how.profile).time_zone or how.time_zone
    if not name:
        return None
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise StatementRefused(
            f"{shown(name)} is no time zone; name one as Asia/Singapore"
        ) from error


def midnight(day: date, where: ZoneInfo | None) -> datetime:
    """Return the first moment of a day in a time zone (UTC without one), in UTC."""
    return datetime(day.year, day.month, day.day, tzinfo=where or UTC).astimezone(UTC)


def in_order(
    lines: Sequence[StatementLine], opening: Decimal | None, closing: Decimal | None
) -> Sequence[StatementLine]:
    """Return the lines oldest first: in the order that the running balances show, else by time.

    Files are written in either direction, and so may their pages be. Raises StatementRefused,
    naming the first line whose balance does not follow, when no order adds up.
    """
    first_error: StatementRefused | None = None
    for candidate in _orders(lines):
        try:
            check_balances(candidate, opening, closing)
        except StatementRefused as error:
            first_error = first_error or error
        else:
            return candidate
    if first_error is not None:
        raise first_error
    check_balances((), opening, closing)
    return ()


def _orders(lines: Sequence[StatementLine]) -> Iterator[Sequence[StatementLine]]:
    """Return the orders that may be the bank's, the likely one first.

    Balances can fit by chance where a row is missing, so an order whose dates go back more often
    than forth is none.
    """
    if not lines:
        return
    steps = _steps_forth(lines)
    likely, other = lines, lines[::-1]
    if steps < 0 or (not steps and lines[0].effective_at > lines[-1].effective_at):
        likely, other = other, likely
    if any(line.balance is not None for line in lines):
        yield likely
        if not steps:
            yield other
    yield sorted(likely, key=_time)
    yield sorted(other, key=_time)


def _steps_forth(lines: Sequence[StatementLine]) -> int:
    """Return how many more lines are dated after the one before them than before it."""
    times = [line.effective_at for line in lines]
    return sum((after > before) - (after < before) for before, after in pairwise(times))


def _time(line: StatementLine) -> datetime:
    return line.effective_at


def check_balances(
    lines: Sequence[StatementLine], opening: Decimal | None, closing: Decimal | None
) -> None:
    """Refuse lines whose balances do not follow from each other, naming the first one."""
    running = opening
    for line in lines:
        if running is not None:
            running = total(running, line.amount)
            if line.balance is not None and line.balance != running:
                raise refusal(
                    line.number,
                    f"the running balance is {plain(line.balance)}, but it must be "
                    f"{plain(running)} after {plain(line.amount)}; a line is missing, doubled or "
                    "changed: export the statement again",
                )
        elif line.balance is not None:
            running = line.balance
    if closing is not None and running is not None and closing != running:
        raise StatementRefused(
            f"line {lines[-1].number if lines else 0}: the closing balance is {plain(closing)}, "
            f"but the lines add up to {plain(running)}; export the statement again"
        )


def _balances(
    lines: Sequence[StatementLine], opening: Decimal | None, closing: Decimal | None
) -> tuple[Decimal | None, Decimal | None]:
    """Return both balances, from the running balance where the file states them no other way."""
    if lines and opening is None and lines[0].balance is not None:
        opening = total(lines[0].balance, lines[0].amount.copy_negate())
    if lines and closing is None:
        closing = lines[-1].balance
    return opening, closing


def _span(lines: Sequence[StatementLine]) -> Window:
    """Return the period from the first line's time to just after the last line's."""
    if not lines:
        raise StatementRefused("no line and no period; say which period it covers (--from, --to)")
    return min(map(_time, lines)), max(map(_time, lines)) + MOMENT
