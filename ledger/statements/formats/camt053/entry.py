"""One entry (`Ntry`) of a camt.053 as a line of the statement.

The amount of the entry counts, not those of the transactions (`TxDtls`) and charges of which it is
made. Sources of the rules: the ISO 20022 message definitions of camt.053.001.02 to .13.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Final
from zoneinfo import ZoneInfo

from ledger.model import as_note, shown
from ledger.statements.formats.camt053.fields import Fields
from ledger.statements.formats.camt053.moments import moment, written
from ledger.statements.model import StatementLine
from ledger.statements.validation import money, names_of, refusal, text

SIGNS: Final = {"CRDT": 1, "DBIT": -1}
BOOKED: Final = frozenset(
    {"BOOK", "BOOKED", "POSTED", "SETTLED", "CLEARED", "COMPLETED", "CONFIRMED", "EXECUTED",
     "PROCESSED", "FINAL", "GEBUCHT", "VERBUCHT", "GEBOEKT"}
)  # fmt: skip
NOT_BOOKED: Final = (
    "PDNG", "INFO", "FUTR", "PEND", "FUTURE", "UNBOOK", "NOT", "UNCONF", "UNCLEAR", "UNPOST",
    "UNSETTLED", "HOLD", "HELD", "BLOCK", "RESERV", "AUTHORI", "MEMO", "EXPECT", "FORECAST",
    "SCHEDUL", "PROVIS", "PROCESSING", "PROGRESS", "WAIT", "PLANNED", "VORGEMERKT", "ATTENTE",
    "REJECT", "FAIL", "CANCEL", "DECLIN", "EXPIR",
)  # fmt: skip
"""Words of a status by which an entry moves nothing (yet); ISO's codes are the first ones."""

REFERENCES: Final = (
    "Refs/EndToEndId", "Refs/InstrId", "Refs/TxId", "Refs/UETR", "Refs/PmtInfId", "Refs/MsgId",
    "RmtInf/Strd/CdtrRefInf/Ref", "RmtInf/Strd/CdtrRefInf/CdtrRef", "RmtInf/Strd/RfrdDocInf/Nb",
    "RmtInf/Strd/RfrdDocInf/RfrdDocNb", "Refs/Prtry/Ref", "Refs/AcctSvcrRef",
    "Refs/AcctOwnrTxId", "Refs/AcctSvcrTxId", "Refs/ClrSysRef", "Refs/MktInfrstrctrTxId",
    "Refs/PrcgId",
)  # fmt: skip
"""What names a transaction; a mandate (`MndtId`) or a cheque book does not."""
BATCH_REFERENCES: Final = ("NtryDtls/Btch/PmtInfId", "NtryDtls/Btch/MsgId")
REMITTANCE: Final = (
    "RmtInf/Ustrd", "AddtlTxInf", "RmtInf/Strd/AddtlRmtInf", "RtrInf/Rsn/Cd", "RtrInf/AddtlInf",
)  # fmt: skip
NAME_PATHS: Final = ("Nm", "Pty/Nm", "Agt/FinInstnId/Nm")
DAYS: Final = ("BookgDt", "ValDt")
RELATED_DAYS: Final = ("RltdDts/TxDtTm", "RltdDts/IntrBkSttlmDt", "RltdDts/AccptncDtTm")
BATCH_TEXTS_MAX: Final = 50
"""Transactions of a batch whose texts make its description."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry as the file has it."""

    number: int
    fields: Fields
    details: list[Fields] = field(default_factory=list)
    """The transactions (`TxDtls`) of which it is made."""


def status_of(entry: Entry) -> str:
    """Return the word of an entry's status; "" without one."""
    return entry.fields.first("Sts/Cd", "Sts/Prtry", "Sts")


def is_booked(entry: Entry) -> bool:
    """Return whether an entry is booked. Raises StatementRefused for a status that is neither."""
    status = status_of(entry)
    word = status.upper()
    if not word or word in BOOKED or word.startswith("BOOK"):
        return True
    if any(each in word for each in NOT_BOOKED):
        return False
    raise refusal(
        entry.number,
        f"Sts {shown(status)} is neither booked (BOOK) nor pending (PDNG); correct it",
    )


def amount_of(number: int, fields: Fields, path: str = "") -> Decimal:
    """Return the amount of entry `number`, or of what is under the path, with its sign.

    Raises StatementRefused.
    """
    words, mark = fields.first("Amt"), fields.first("CdtDbtInd")
    if not words:
        raise refusal(number, f"{path}Amt is missing; export the statement again")
    amount = money(number, f"{path}Amt", plain_decimal(words))
    if amount is None or amount < 0:
        raise refusal(number, f"{path}Amt {shown(words)} has a sign, but CdtDbtInd "
                      f"{shown(mark)} has the direction; export the statement again")  # fmt: skip
    sign = SIGNS.get(mark.upper(), 0)
    if sign == 0 and (amount or mark):
        raise refusal(number, f"{path}CdtDbtInd is {shown(mark)}, neither CRDT nor DBIT; export "
                      "the statement again")  # fmt: skip
    return amount.copy_negate() if sign < 0 and amount else amount


def plain_decimal(words: str) -> str:
    """Return a decimal as XML Schema allows it (`+5`, `5.`, `.5`) as a plain one."""
    unsigned = words.removeprefix("+")
    if unsigned.startswith("."):
        return "0" + unsigned
    return unsigned.removesuffix(".")


def line_of(entry: Entry, amount: Decimal, currency: str, where: ZoneInfo | None) -> StatementLine:
    """Return the line of a booked entry; `currency` is the account's, `where` the zone of its days.

    Raises StatementRefused, naming the entry.
    """
    number, fields, details = entry.number, entry.fields, entry.details
    # The references of one transaction of a batch are not the batch's.
    single = details[0] if len(details) == 1 else Fields()
    return StatementLine(
        id=fields.name(number, "AcctSvcrRef"),
        number=number,
        kind=sys.intern(_kind(entry)),  # as it repeats in a million lines
        amount=amount,
        currency=sys.intern((fields.first("Amt@Ccy") or currency).upper()),
        effective_at=_effective_at(entry, where),
        idempotency_id=next(iter(names_of(single.name(number, "Refs/InstrId"))), None),
        reference=next(iter(names_of(single.name(number, "Refs/EndToEndId"))), None),
        description=as_note(" ".join(dict.fromkeys(_texts(entry)))) or "",
        counterparty=sys.intern(_counterparty(entry)),
        names=names_of(*_references(entry)),
    )


def _effective_at(entry: Entry, where: ZoneInfo | None) -> datetime:
    path = next((each for each in DAYS if written(entry.fields, each)), DAYS[0])
    day = written(entry.fields, path)
    if not day and len(entry.details) == 1:
        day = entry.details[0].first(*RELATED_DAYS)
    if not day:
        raise refusal(
            entry.number,
            "has no date: neither BookgDt nor ValDt has a Dt or DtTm; export the statement again",
        )
    try:
        return moment(day, where).at
    except (ValueError, OverflowError) as error:
        raise refusal(
            entry.number,
            f"{path} {shown(day)} is no date as 2026-06-30; export the statement again",
        ) from error


def _kind(entry: Entry) -> str:
    """Return the bank's code of an entry: domain, family and sub-family, or its own."""
    codes = dict.fromkeys(filter(None, map(_code, (entry.fields, *entry.details[:2]))))
    return next(iter(codes), "")


def _code(fields: Fields) -> str:
    domain = "BkTxCd/Domn"
    parts = (f"{domain}/Cd", f"{domain}/Fmly/Cd", f"{domain}/Fmly/SubFmlyCd")
    codes = [fields.first(part) for part in parts]
    own = fields.first("BkTxCd/Prtry/Cd", "BkTxCd/Prtry")
    if own and (not codes[0] or codes[1] == "NTAV"):  # "not available": its own code is better
        return own
    return "-".join(filter(None, codes)) or own


def _texts(entry: Entry) -> Iterator[str]:
    """Yield the texts by which people know an entry."""
    yield from entry.fields.every("AddtlNtryInf")
    for transaction in entry.details[:BATCH_TEXTS_MAX]:
        yield from transaction.every(*REMITTANCE)
        yield from transaction.every("RmtInf/Strd/CdtrRefInf/Ref", "RmtInf/Strd/RfrdDocInf/Nb")


def _references(entry: Entry) -> Iterator[str]:
    """Yield every reference of an entry and its transactions, those of the parties first."""
    for path in REFERENCES:
        for transaction in entry.details:
            for reference in transaction.get(path, ()):
                yield text(entry.number, path.rpartition("/")[2], reference) or ""
    yield from entry.fields.every(*BATCH_REFERENCES)


def _counterparty(entry: Entry) -> str:
    """Return who paid or was paid; "" for a batch of several parties.

    The parties of a reversal are those of the payment that it takes back.
    """
    incoming = entry.fields.first("CdtDbtInd").upper() == "CRDT"
    if entry.fields.first("RvslInd").lower() in ("true", "1"):
        incoming = not incoming
    names = {_party(transaction, "Dbtr" if incoming else "Cdtr") for transaction in entry.details}
    return names.pop() if len(names) == 1 else ""


def _party(transaction: Fields, role: str) -> str:
    paths = [f"RltdPties/{kind}{role}/{name}" for kind in ("", "Ultmt") for name in NAME_PATHS]
    return as_note(transaction.first(*paths)) or ""
