"""camt.053, the ISO 20022 bank statement: every version, streamed, amounts from their lexemes.

defusedxml reads the XML; it refuses DTDs, entities and other attacks on a parser. The amount of an
entry (`Ntry`) counts, not the details into which the bank breaks it down.
"""

from __future__ import annotations

import io
import re
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Final
from xml.etree.ElementTree import Element, ParseError
from zoneinfo import ZoneInfo

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import iterparse

from ledger.config.statement_profile import StatementProfile
from ledger.model import as_note, changed
from ledger.statements.model import (
    Reading,
    Statement,
    StatementFormat,
    StatementLine,
    StatementRefused,
    Window,
)
from ledger.statements.validation import (
    check_line_count,
    checked_statement,
    midnight,
    money,
    period,
    refusal,
    text,
    zone,
)

NAME: Final = "camt.053"
NAMESPACE: Final = "urn:iso:std:iso:20022:tech:xsd:camt.053."
STATEMENTS_MAX: Final = 10_000
"""Statements (`Stmt`) in one file."""
TAG_BYTES_MAX: Final = 65_536
"""Bytes between `<` and `>`: the parser reads an endless tag again with every piece of it."""
_ENDLESS: Final = re.compile(rb"<[^<>]{%d}" % TAG_BYTES_MAX)
_DAY: Final = timedelta(days=1)
_SIGNS: Final = {"CRDT": 1, "DBIT": -1}
_OPENING: Final = ("OPBD", "PRCD")
_DEPTH_MAX: Final = 64
_LATEST: Final = datetime.max.replace(tzinfo=UTC)


@dataclass(slots=True)
class _Account:
    """One `Stmt` of the file: its entries, balances by type code, and period."""

    where: ZoneInfo | None
    lines: list[StatementLine] = field(default_factory=list)
    balances: dict[str, tuple[Decimal, str, Window]] = field(default_factory=dict)
    window: Window | None = None
    currency: str = ""

    @property
    def opening(self) -> Decimal | None:
        """The booked balance before the first entry."""
        return next((self.balances[c][0] for c in _OPENING if c in self.balances), None)

    @property
    def closing(self) -> Decimal | None:
        """The booked balance after the last entry."""
        return self.balances["CLBD"][0] if "CLBD" in self.balances else None

    def period(self) -> Window | None:
        """Return the stated period, or the days from the opening to the closing balance."""
        if self.window is not None or "CLBD" not in self.balances:
            return self.window
        closed_at = self.balances["CLBD"][2][1]
        opened_at = self.balances.get("OPBD", self.balances["CLBD"])[2][0]
        return min([opened_at, *(line.effective_at for line in self.lines)]), closed_at


def read(body: bytes, how: Reading) -> Statement:
    """Read the statements of one currency, which must follow each other.

    `columns` may declare `time_zone`, the zone of days without a time (default UTC). Raises
    StatementRefused, naming the entry.
    """
    accounts = _accounts(body, zone(how.profile))
    chosen = _of_currency(accounts, how.currency)
    for earlier, later in pairwise(chosen):
        if earlier.closing is None or earlier.closing != later.opening:
            raise StatementRefused(
                "the file holds several statements that do not follow each other; split it"
            )
    periods = [account.period() for account in chosen]
    first, last = periods[0], periods[-1]
    begins, ends = chosen[0].window, chosen[-1].window
    stated = (begins[0], ends[1]) if begins and ends else None
    return checked_statement(
        [line for account in chosen for line in account.lines],
        body=body,
        format=NAME,
        currency=chosen[0].currency,
        window=period(how.window, stated) or ((first[0], last[1]) if first and last else None),
        opening=chosen[0].opening,
        closing=chosen[-1].closing,
    )


def _of_currency(accounts: list[_Account], currency: str | None) -> list[_Account]:
    currencies = sorted({account.currency for account in accounts})
    if not accounts:
        raise StatementRefused("the file holds no statement (Stmt); is it a camt.053?")
    if currency is None and len(currencies) > 1:
        raise StatementRefused(
            f"the file is about {', '.join(currencies)}; choose one (--currency)"
        )
    requested = currency.upper() if currency else currencies[0]
    chosen = [account for account in accounts if account.currency == requested]
    if not chosen or not requested:
        raise StatementRefused(f"the file is about {', '.join(currencies)}, not {requested}")
    return sorted(chosen, key=lambda account: (account.period() or (_LATEST,))[0])


def _accounts(body: bytes, where: ZoneInfo | None) -> list[_Account]:
    if _ENDLESS.search(body):
        raise StatementRefused(
            f"a tag is longer than {TAG_BYTES_MAX} bytes, so this is no camt.053; export the "
            "statement again"
        )
    accounts: list[_Account] = []
    number = depth = 0
    try:
        for event, node in iterparse(io.BytesIO(body), ("start", "end"), forbid_dtd=True):
            depth += 1 if event == "start" else -1
            if depth > _DEPTH_MAX:
                raise StatementRefused(f"line {number + 1}: nested deeper than {_DEPTH_MAX}")
            name = node.tag.rpartition("}")[2]
            if event == "start":
                _started(accounts, name, node, where)
            elif accounts and name == "Ntry":
                number += 1
                check_line_count(number)
                _entry(accounts[-1], number, node)
                node.clear()
            elif accounts:
                _take_header(accounts[-1], name, node)
    except (ParseError, DefusedXmlException, LookupError, ValueError) as error:
        raise StatementRefused(
            f"line {number + 1}: not plain XML: {error}; export the statement again, without DTD"
        ) from error
    for account in accounts:
        _settle_currency(account)
        _settle_ids(account)
    return accounts


def _settle_ids(account: _Account) -> None:
    """Drop references that several entries share: some banks number batches, not entries."""
    count = Counter(line.id for line in account.lines)
    account.lines = [changed(line, id="") if count[line.id] > 1 else line for line in account.lines]


def _started(accounts: list[_Account], name: str, node: Element, where: ZoneInfo | None) -> None:
    if name == "Document" and not node.tag.startswith("{" + NAMESPACE):
        raise StatementRefused(f"the file is {node.tag[:80]}, not a camt.053; export that one")
    if name == "Stmt":
        if len(accounts) >= STATEMENTS_MAX:
            raise StatementRefused(f"more than {STATEMENTS_MAX} statements; split the file by time")
        accounts.append(_Account(where))


def _take_header(account: _Account, name: str, node: Element) -> None:
    """Take what a statement has besides its entries: currency, period, balances."""
    match name:
        case "Acct":
            account.currency = _word(node, "Ccy") or account.currency
        case "FrToDt":
            account.window = (
                _moment(node, "FrDtTm", account.where),
                _moment(node, "ToDtTm", account.where, ends=True),
            )
        case "Bal":
            code = _word(node, "Tp/CdOrPrtry/Cd") or ""
            amount, currency = _amount(0, node)
            account.balances[code] = amount, currency, _days(0, node, "Dt", account.where)


def _settle_currency(account: _Account) -> None:
    currencies = {line.currency for line in account.lines}
    currencies |= {currency for _, currency, _ in account.balances.values()} | {account.currency}
    currencies.discard("")
    if len(currencies) != 1:
        raise StatementRefused(
            f"one statement of the file is about {', '.join(sorted(currencies)) or 'no currency'}; "
            "export one account at a time"
        )
    account.currency = currencies.pop().upper()


def _entry(account: _Account, number: int, node: Element) -> None:
    """Take an entry that is booked; pending and informational ones (PDNG, INFO) move nothing."""
    status = _word(node, "Sts/Cd") or _word(node, "Sts") or "BOOK"
    if status != "BOOK":
        return
    amount, currency = _amount(number, node)
    if _word(node, "RvslInd") == "true" and _word(node, "CdtDbtInd") is None:
        raise refusal(number, "is a reversal without a direction; export the statement again")
    at = "BookgDt" if node.find("{*}BookgDt") is not None else "ValDt"
    details = node.findall("{*}NtryDtls/{*}TxDtls")
    # The references of one transaction of a batch are not the batch's.
    within = details[0] if len(details) == 1 else node
    account.lines.append(
        StatementLine(
            id=text(number, "AcctSvcrRef", _word(node, "AcctSvcrRef")) or "",
            number=number,
            kind=_kind(node),
            amount=amount,
            currency=currency.upper(),
            effective_at=_days(number, node, at, account.where)[0],
            contract_id=None,
            idempotency_id=_known(text(number, "InstrId", _word(within, "Refs/InstrId"))),
            reference=_known(text(number, "EndToEndId", _word(within, "Refs/EndToEndId"))),
            description=as_note(_described(node, within)) or "",
        )
    )


def _kind(node: Element) -> str:
    """Return the bank's code of an entry: domain, family and sub-family, or its own."""
    code = "BkTxCd/Domn"
    parts = [_word(node, f"{code}/{p}") for p in ("Cd", "Fmly/Cd", "Fmly/SubFmlyCd")]
    return "-".join(filter(None, parts)) or _word(node, "BkTxCd/Prtry/Cd") or ""


def _described(node: Element, within: Element) -> str:
    remittance = [(line.text or "").strip() for line in within.findall("{*}RmtInf/{*}Ustrd")]
    return " ".join(filter(None, [_word(node, "AddtlNtryInf") or "", *remittance]))


def _known(reference: str | None) -> str | None:
    return None if reference in (None, "NOTPROVIDED") else reference


def _word(node: Element, path: str) -> str | None:
    """Return the text under a path of local names, trimmed; None when absent or blank."""
    element = node.find("/".join("{*}" + step for step in path.split("/")))
    return None if element is None or not element.text else element.text.strip() or None


def _amount(number: int, node: Element) -> tuple[Decimal, str]:
    element = node.find("{*}Amt")
    sign = _SIGNS.get(_word(node, "CdtDbtInd") or "")
    if element is None or sign is None:
        raise refusal(number, "lacks an amount or its direction (CRDT, DBIT)")
    amount = money(number, "Amt", (element.text or "").strip().removeprefix("+") or None)
    if amount is None or amount < 0:
        raise refusal(number, "has no amount, or a negative one; export the statement again")
    return amount if sign > 0 else amount.copy_negate() or Decimal(0), element.get("Ccy") or ""


def _moment(node: Element, name: str, where: ZoneInfo | None, *, ends: bool = False) -> datetime:
    """Read a period's beginning or end; an end at a day's last second includes that second."""
    words = _word(node, name) or ""
    try:
        moment = datetime.fromisoformat(words)
        if ends and (moment.hour, moment.minute, moment.second) == (23, 59, 59):
            moment = moment.replace(microsecond=0) + timedelta(seconds=1)
        return (moment if moment.tzinfo else moment.replace(tzinfo=where or UTC)).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise refusal(0, f"{words[:40]!r} is no time; export the statement again") from error


def _days(number: int, node: Element, name: str, where: ZoneInfo | None) -> Window:
    """Return a day (`Dt`) from midnight to midnight, or a time (`DtTm`) twice."""
    inner = node.find("{*}" + name)
    words = "" if inner is None else _word(inner, "Dt") or _word(inner, "DtTm") or ""
    try:
        value = datetime.fromisoformat(words)
        if len(words) > len("2026-06-01"):
            moment = value if value.tzinfo else value.replace(tzinfo=where or UTC)
            return moment.astimezone(UTC), moment.astimezone(UTC)
        return midnight(value, where), midnight(value + _DAY, where)
    except (ValueError, OverflowError) as error:
        raise refusal(number, f"{words[:40]!r} is no date; export the statement again") from error


def _recognises(head: bytes, profile: StatementProfile) -> bool:
    return head.startswith(b"<")


FORMAT: Final = StatementFormat(NAME, _recognises, read)
