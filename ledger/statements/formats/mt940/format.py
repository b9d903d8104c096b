"""MT940 and MT950, the SWIFT bank statements: messages of one account that follow each other.

Days have no time: they begin at midnight of the declared `time_zone` (UTC without one). A line
counts on its entry date where it has one, else on its value date. The period is that of the
balances: a line dated outside of its message's days is booked within them. MT942, the interim
report of the day, is refused: it has no balances, and the statement repeats its lines.
"""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime
from functools import lru_cache
from itertools import pairwise
from typing import Final
from zoneinfo import ZoneInfo

from ledger.config.statement_profile import StatementProfile, account_number
from ledger.errors import OtherAccount
from ledger.model import as_note, changed, plain, shown, total
from ledger.statements.formats.chain import Balances, chained, is_gap, time_between
from ledger.statements.formats.mt940.details import Details, details_of
from ledger.statements.formats.mt940.fields import (
    Balance,
    Field,
    Line,
    WrongField,
    account_of,
    balance_of,
    fields_of,
    is_iban,
    line_of,
)
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
    agreed_currency,
    booked_within,
    check_line_count,
    checked_statement,
    declared_currency,
    midnight,
    names_of,
    refusal,
    text,
    zone,
)

NAME: Final = "mt940"
MESSAGES_MAX: Final = 10_000
"""Messages in one file."""
DETAILS_MAX: Final = 100
"""`:86:` fields of one line."""
NAME_CHARS_MAX: Final = 140
"""A reference that is longer is a text."""
_BEGIN: Final = re.compile(rb"^[ \t]*:(?:20|25P?|60[FM]):", re.MULTILINE)
_TYPE: Final = re.compile(r"\{2:[IO](\d{3})")
_ONE_WORD: Final = re.compile(r"[^\s/]\S+")
_NUMBERED: Final = re.compile(r"^\d\d", re.MULTILINE)
"""The numbers of the lines of `:NS:`, in which old exports have what `:86:` has today."""
_REPORTS: Final = frozenset({"34F", "13D", "90C", "90D"})
_NO_NAME: Final = re.compile(r"(?:[EKMP]REF|MARF)\+?|0+|NONREF\b.*|STARTUMS", re.ASCII)
"""What banks write in `:61:` for "see `:86:`" and for "none", besides `names_of`'s."""


@dataclasses.dataclass(slots=True)
class _Message:
    """One message: a statement, or a page of one."""

    account: str
    """The text of `:25:`."""
    is_named: bool = False
    """Whether it has a `:25:` of its own."""
    opening: Balance | None = None
    closing: Balance | None = None
    lines: list[StatementLine] = dataclasses.field(default_factory=list)
    first_number: int = 1
    """The number of its first line, or of the one that would be."""
    report_tag: str = ""
    """A field that interim reports have."""

    @property
    def currency(self) -> str:
        """The one that its balances state; "" where they leave it out."""
        balances = (self.opening, self.closing)
        return next((b.currency for b in balances if b is not None and b.currency), "")


class _Reader:
    """Takes a file's fields in order and makes messages of them."""

    def __init__(self, document: str, where: ZoneInfo | None) -> None:
        self.document = document
        self.where = where
        self.messages: list[_Message] = []
        self.line: Line | None = None
        self.details: list[str] = []
        self.number = 0

    def read(self) -> list[_Message]:
        """Return the messages that hold something. Raises StatementRefused."""
        for field in fields_of(self.document):
            try:
                self.take(field)
            except WrongField as error:
                raise self.wrong(field, str(error)) from error
        self.end_line()
        self.end_message()
        return [
            message
            for message in self.messages
            if message.opening or message.closing or message.lines
        ]

    def take(self, field: Field) -> None:
        if field.tag not in ("86", "NS"):
            self.end_line()
        match field.tag:
            case "61":
                self.begin_line(field)
            case "86" | "NS":
                self.add_details(field)
            case "":
                _check_type(field.text)
            case "20":
                self.begin_message()
            case "25" | "25P":
                message = self.begin_message() if self.message().is_named else self.message()
                message.account, message.is_named = field.text, True
            case "60" | "60F" | "60M":
                self.open(field)
            case "62" | "62F" | "62M":
                self.close(field)
            case tag if tag in _REPORTS:
                self.message().report_tag = tag

    def message(self) -> _Message:
        return self.messages[-1] if self.messages else self.begin_message()

    def begin_message(self) -> _Message:
        self.end_message()
        if len(self.messages) == MESSAGES_MAX:
            raise StatementRefused(f"more than {MESSAGES_MAX} statements; split the file by time")
        account = self.messages[-1].account if self.messages else ""
        self.messages.append(_Message(account, first_number=self.number + 1))
        return self.messages[-1]

    def end_message(self) -> None:
        """Refuse a message that lacks a balance: a report of another kind, or a file cut off."""
        if not self.messages:
            return
        message = self.messages[-1]
        if message.opening is None and message.closing is None:
            if message.report_tag:
                raise _interim(f"it has :{message.report_tag}: and no balances")
        elif message.opening is None or message.closing is None:
            lacking = "an opening balance (:60F:)" if message.opening is None else (
                "a closing balance (:62F:)")  # fmt: skip
            raise refusal(max(self.number, 1), f"the statement of {shown(message.account)} that it "
                          f"is in, number {len(self.messages)} of the file, lacks {lacking}; the "
                          "file may be cut off: export it again")  # fmt: skip

    def open(self, field: Field) -> None:
        message = self.message()
        if message.opening is not None or message.closing is not None:
            message = self.begin_message()
        if message.lines:
            raise WrongField("comes after lines of its statement; export the statement again")
        message.opening = balance_of(field.text)

    def close(self, field: Field) -> None:
        message = self.message()
        if message.closing is not None:
            raise WrongField("is a second closing balance; export the statement again")
        message.closing = balance_of(field.text)
        stated = message.opening.currency if message.opening else ""
        if message.closing.currency and stated and message.closing.currency != stated:
            raise WrongField(f"is about {message.closing.currency}, not {stated} as the opening "
                             "balance is; export the statement again")  # fmt: skip

    def begin_line(self, field: Field) -> None:
        self.number += 1
        check_line_count(self.number)
        if self.message().closing is not None:
            raise WrongField("comes after its statement's closing balance; export the statement "
                             "again")  # fmt: skip
        self.line = line_of(field.text)

    def add_details(self, field: Field) -> None:
        """Take what follows a line. What follows a balance is about the statement: left out."""
        if self.line is None:
            return
        self.details.append(field.text if field.tag == "86" else _NUMBERED.sub("", field.text))
        if len(self.details) > DETAILS_MAX:
            raise refusal(self.number, f"has more than {DETAILS_MAX} details (:86:); remove some")

    def end_line(self) -> None:
        if self.line is None:
            return
        details = details_of("\n".join(self.details))
        day = self.line.entry_day or self.line.value_day
        message = self.message()
        at = _midnight(day, self.where)
        message.lines.append(_statement_line(self.line, details, self.number, at, message.currency))
        self.line = None
        self.details.clear()

    def wrong(self, field: Field, what: str) -> StatementRefused:
        """Return the refusal that names the field, and where it is."""
        row = self.document.count("\n", 0, field.begin) + 1
        if field.tag != "61":
            return refusal(row, f":{field.tag}:{shown(field.text)} {what}")
        return refusal(self.number, f":61:{shown(field.text)} in row {row} of the file {what}")


def read(body: bytes, how: Reading) -> Statement:
    """Read the statements of one account, which must follow each other.

    Raises StatementRefused, naming the line (the n-th `:61:`).
    """
    where = zone(how)
    in_file = _Reader(_document(body), where).read()
    account, currency, messages = _selected(in_file, how)
    messages = chained(messages, _order, _amounts)
    _check_follow(messages, where)
    lines: list[StatementLine] = []
    for message in messages:
        lines += _booked(message, where)
        message.lines.clear()  # a million lines need most of the memory there is
    return checked_statement(
        [line if line.currency else changed(line, currency=currency) for line in lines],
        body=body,
        format=NAME,
        currency=currency,
        window=how.window,
        opening=_amounts(messages[0])[0],
        closing=_amounts(messages[-1])[1],
        account=account,
        balance_days=_balance_days(messages),
        where=where,
        are_days=True,
        notes=_notes(len(in_file) - len(messages)),
    )


def _document(body: bytes) -> str:
    """Return the file's text, its lines ending as ours. Raises StatementRefused."""
    document = _decoded(body)
    if "\x00" in document:
        raise refusal(document.count("\n:61:", 0, document.index("\x00")), "holds a NUL character; "
                      "export the statement again")  # fmt: skip
    return document.replace("\r\n", "\n").replace("\r", "\n")


def _decoded(body: bytes) -> str:
    for encoding in ("utf-8-sig", "cp1252"):
        try:
            return body.decode(encoding)
        except UnicodeDecodeError:
            continue
    return body.decode("latin-1")


def _check_type(head: str) -> None:
    """Refuse a message whose head names another type than a statement's."""
    stated = _TYPE.search(head)
    if stated is None or stated[1] in ("940", "950"):
        return
    if stated[1] == "942":
        raise _interim("its head says so")
    raise StatementRefused(
        f"the file holds an MT{stated[1]}, which is no statement; import the account's MT940"
    )


def _interim(why: str) -> StatementRefused:
    return StatementRefused(
        f"the file holds an MT942, an interim report of entries within a day ({why}); import the "
        "statement of the day, an MT940, instead"
    )


def _selected(messages: Sequence[_Message], how: Reading) -> tuple[str, str, list[_Message]]:
    """Return the account, the currency and the messages about them: as given, or the only ones."""
    if not messages:
        raise StatementRefused("the file holds no statement (:20:, :60F:); is it an MT940?")
    pairs = [(account_of(message.account, message.currency), message) for message in messages]
    given = account_number(how.account or "")
    accounts = _sorted(account for account, _ in pairs)
    if given and accounts:
        pairs = [pair for pair in pairs if _is_account(given, *pair)]
        if not pairs:
            raise OtherAccount(_about(accounts, given, "--account"))
    currency = (how.currency or "").upper()
    currencies = _sorted(message.currency for _, message in pairs)
    if currency and currencies:
        pairs = [pair for pair in pairs if pair[1].currency in ("", currency)]
        if currency not in currencies:
            raise OtherAccount(_about(currencies, currency, "--currency"))
    accounts = _sorted(account for account, _ in pairs)
    if len(accounts) > 1:
        raise StatementRefused(f"the file is about {', '.join(accounts)}; choose one (--account)")
    if len(currencies) > 1 and not currency:
        raise StatementRefused(
            f"the file is about {', '.join(currencies)}; choose one (--currency)"
        )
    account = next(iter(accounts), given)
    stated = currency or next(iter(currencies), None)
    return (
        account,
        agreed_currency(None, stated, declared_currency(how, account)),
        [message for _, message in pairs],
    )


def _sorted(texts: Iterable[str]) -> list[str]:
    return sorted({text for text in texts if text})


def _about(stated: Sequence[str], given: str, option: str) -> str:
    return f"the file is about {', '.join(stated)}, not {given[:40]}; choose one of them ({option})"


def _is_account(given: str, account: str, message: _Message) -> bool:
    """Whether an account is the one given, with or without its bank and its currency."""
    full = account_number(message.account.partition("\n")[0])
    return given in (account, full, account.rpartition("/")[2])


def _order(message: _Message) -> tuple[date, date, int]:
    opening, closing = message.opening, message.closing
    return (
        opening.day if opening else date.min,
        closing.day if closing else date.max,
        message.first_number,
    )


def _amounts(message: _Message) -> Balances:
    opening, closing = message.opening, message.closing
    return opening.amount if opening else None, closing.amount if closing else None


def _balance_days(messages: Sequence[_Message]) -> tuple[date, date] | None:
    """Return the days of the balances at both ends, the first one of the evening before."""
    opening, closing = messages[0].opening, messages[0].closing
    last = messages[-1].closing
    if opening is None or closing is None or last is None:
        return None
    is_one_day = opening.day == closing.day < last.day  # which the first message has whole
    return opening.day - DAY if is_one_day else opening.day, last.day


def _check_follow(messages: Sequence[_Message], where: ZoneInfo | None) -> None:
    """Refuse messages unless each opens with what the one before closed with and none is missing.

    Those without balances may only begin where the one before ends.
    """
    for earlier, later in pairwise(messages):
        if earlier.closing is None or later.opening is None:
            _check_meeting(earlier, later, where)
            continue
        if later.opening.amount != earlier.closing.amount:
            raise refusal(
                later.first_number,
                f"the statement opens with {plain(later.opening.amount)}, the one before it closed "
                f"with {plain(earlier.closing.amount)}; one is missing or repeated: export the "
                "statements again",
            )
        ended_at, begins_at = _days(earlier, where)[1], _days(later, where)[0]
        is_one_day = later.closing is not None and later.closing.day == later.opening.day
        if is_gap(ended_at, begins_at, where, may_begin_earlier=not is_one_day):
            raise refusal(
                later.first_number,
                f"no statement of the file is about {time_between(ended_at, begins_at, where)}, "
                "before this one; add that statement, or import each as a file of its own: "
                "reconciling then names what is missing",
            )


def _check_meeting(earlier: _Message, later: _Message, where: ZoneInfo | None) -> None:
    """Refuse two messages, one without balances, unless the one begins where the other ends."""
    ended_at, begins_at = _days(earlier, where)[1], _days(later, where)[0]
    if ended_at != begins_at:
        raise refusal(
            later.first_number,
            f"the statement begins at {begins_at.isoformat()}, the one before it ends at "
            f"{ended_at.isoformat()}, and no balances show that one follows the other; import each "
            "as a file of its own",
        )


def _booked(message: _Message, where: ZoneInfo | None) -> Iterable[StatementLine]:
    """Return the lines, booked within the message's own days, once their sum is right."""
    if message.opening is None or message.closing is None:
        return message.lines
    expected = message.closing.amount
    added = message.opening.amount
    for line in message.lines:
        added = total(added, line.amount)
    if added != expected:
        last = message.first_number + max(len(message.lines) - 1, 0)
        raise refusal(last, f"the closing balance is {plain(expected)}, but the lines add up to "
                      f"{plain(added)}; export the statement again")  # fmt: skip
    return booked_within(message.lines, _days(message, where))


def _days(message: _Message, where: ZoneInfo | None) -> Window:
    """Return the days of a message: the opening balance is of the evening before the first.

    Without balances they are the days of its lines. Raises StatementRefused.
    """
    if message.opening is None or message.closing is None:
        times = [line.effective_at for line in message.lines]
        return min(times), midnight(max(times).astimezone(where or UTC).date() + DAY, where)
    opened, closed = message.opening.day, message.closing.day
    first = opened if opened == closed else opened + DAY
    if closed < opened:
        raise StatementRefused(
            f"the closing balance is of {closed.isoformat()}, before the opening balance of "
            f"{opened.isoformat()}; export the statement again"
        )
    return midnight(first, where), midnight(closed + DAY, where)


@lru_cache(maxsize=1024)
def _midnight(day: date, where: ZoneInfo | None) -> datetime:
    return midnight(day, where)


def _notes(left_out: int) -> list[str]:
    if not left_out:
        return []
    some = "1 statement is" if left_out == 1 else f"{left_out} statements are"
    return [f"{some} of other accounts or currencies and left out"]


def _statement_line(
    line: Line, details: Details, number: int, at: datetime, currency: str
) -> StatementLine:
    supplement = line.supplement
    stated = [details.end_to_end, line.customer_reference, *details.references, line.bank_reference]
    if _ONE_WORD.fullmatch(supplement) and not is_iban(supplement):
        stated.append(supplement)
    names = names_of(*filter(_may_name, stated))
    own = {details.end_to_end, line.customer_reference}
    reference = next((name for name in names if name in own), None)
    return StatementLine(
        id=text(number, "reference", line.bank_reference) or "",
        number=number,
        kind=sys.intern(line.kind),
        amount=line.amount,
        currency=currency,
        effective_at=at,
        reference=text(number, "reference", reference),
        description=as_note(" ".join((*supplement.split(), *details.description.split()))) or "",
        counterparty=sys.intern(as_note(details.counterparty) or ""),
        names=names,
    )


def _may_name(reference: str) -> bool:
    return len(reference) <= NAME_CHARS_MAX and _NO_NAME.fullmatch(reference) is None


def _recognises(head: bytes, profile: StatementProfile) -> bool:
    return head.startswith(b"{1:") or _BEGIN.search(head) is not None


FORMAT: Final = StatementFormat(NAME, _recognises, read)
