"""Days of a bank account as its files: MT940 and camt.053, with dates as banks write them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Decimal
from typing import Literal

ONE_DAY = timedelta(days=1)
Layout = Literal["mt940", "camt", "camt-period"]
"""`camt-period` states its period (FrToDt), `camt` has nothing but the days of its balances."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One booking: when it is dated, and by which names it goes."""

    amount: str
    day: date
    """The entry date; in a file without one the value date."""
    name: str = ""
    """The end-to-end reference."""
    reference: str = "NONREF"
    """The bank's own, which may repeat."""
    has_entry_date: bool = True
    value_day: date | None = None


@dataclass(frozen=True, slots=True)
class BankDay:
    """One file: the account between two closing balances."""

    opening_day: date
    """The day of the closing balance before."""
    closing_day: date
    opening: str
    entries: Sequence[Entry] = field(default_factory=tuple)
    account: str = "SG0011112222"
    currency: str = "SGD"

    @property
    def closing(self) -> Decimal:
        """The balance after the entries."""
        return Decimal(self.opening) + sum(Decimal(entry.amount) for entry in self.entries)

    def body(self, layout: Layout) -> bytes:
        """Write the file."""
        if layout == "mt940":
            return _mt940(self)
        return camt_of([self], has_period=layout == "camt-period")


def amounts_in(body: bytes) -> list[Decimal]:
    """Read the signed amounts of a file, without the reader that is tested."""
    text = body.decode()
    mt940 = re.findall(r"^:61:\d{6}(?:\d{4})?([CD])([\d,]+)N", text, re.MULTILINE)
    camt = [
        ("C" if side == "CRDT" else "D", amount)
        for amount, side in re.findall(
            r"<Ntry><Amt[^>]*>([\d.]+)</Amt><CdtDbtInd>(CRDT|DBIT)", text
        )
    ]
    return [
        Decimal(amount.replace(",", ".")) * (1 if side == "C" else -1)
        for side, amount in mt940 or camt
    ]


def camt_of(days: Sequence[BankDay], *, has_period: bool = False) -> bytes:
    """Write a camt.053 with a statement for each of some accounts or days."""
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<Document xmlns="urn:iso:std:iso:20022:tech:xsd:camt.053.001.02"><BkToCstmrStmt>'
        + "".join(_camt_statement(day, has_period) for day in days)
        + "</BkToCstmrStmt></Document>"
    ).encode()


def _mt940(day: BankDay) -> bytes:
    parts = [
        f":20:{day.closing_day:%y%m%d}",
        f":25:{day.account}",
        f":28C:{day.closing_day:%j}/1",
        f":60F:{_mt940_balance(Decimal(day.opening), day.opening_day, day.currency)}",
    ]
    for entry in day.entries:
        value_day = entry.value_day or entry.day
        entry_date = f"{entry.day:%m%d}" if entry.has_entry_date else ""
        amount = Decimal(entry.amount)
        side = "D" if amount < 0 else "C"
        parts.append(
            f":61:{value_day:%y%m%d}{entry_date}{side}{_comma(amount)}NTRFNONREF//{entry.reference}"
        )
        parts.append(f":86:/EREF/{entry.name or 'NOTPROVIDED'}/REMI/as agreed")
    parts.append(f":62F:{_mt940_balance(day.closing, day.closing_day, day.currency)}")
    return ("\r\n".join(parts) + "\r\n-\r\n").encode()


def _mt940_balance(amount: Decimal, day: date, currency: str) -> str:
    return f"{'D' if amount < 0 else 'C'}{day:%y%m%d}{currency}{_comma(amount)}"


def _comma(amount: Decimal) -> str:
    return f"{abs(amount):.2f}".replace(".", ",")


def _camt_statement(day: BankDay, has_period: bool) -> str:
    first = day.opening_day + ONE_DAY
    period = (
        f"<FrToDt><FrDtTm>{first}T00:00:00</FrDtTm>"
        f"<ToDtTm>{day.closing_day}T23:59:59</ToDtTm></FrToDt>"
    )
    return (
        f"<Stmt><Id>{day.account}-{day.closing_day}</Id>{period if has_period else ''}"
        f"<Acct><Id><IBAN>{day.account}</IBAN></Id><Ccy>{day.currency}</Ccy></Acct>"
        + _camt_balance("OPBD", Decimal(day.opening), day.opening_day, day.currency)
        + _camt_balance("CLBD", day.closing, day.closing_day, day.currency)
        + "".join(_camt_entry(entry, day.currency) for entry in day.entries)
        + "</Stmt>"
    )


def _camt_balance(code: str, amount: Decimal, day: date, currency: str) -> str:
    side = "DBIT" if amount < 0 else "CRDT"
    return (
        f"<Bal><Tp><CdOrPrtry><Cd>{code}</Cd></CdOrPrtry></Tp>"
        f'<Amt Ccy="{currency}">{abs(amount):.2f}</Amt><CdtDbtInd>{side}</CdtDbtInd>'
        f"<Dt><Dt>{day}</Dt></Dt></Bal>"
    )


def _camt_entry(entry: Entry, currency: str) -> str:
    amount = Decimal(entry.amount)
    side = "DBIT" if amount < 0 else "CRDT"
    value_day = entry.value_day or entry.day
    booked = f"<BookgDt><Dt>{entry.day}</Dt></BookgDt>" if entry.has_entry_date else ""
    return (
        f'<Ntry><Amt Ccy="{currency}">{abs(amount):.2f}</Amt><CdtDbtInd>{side}</CdtDbtInd>'
        f"<Sts>BOOK</Sts>{booked}<ValDt><Dt>{value_day}</Dt></ValDt>"
        f"<AcctSvcrRef>{entry.reference}</AcctSvcrRef>"
        f"<NtryDtls><TxDtls><Refs><EndToEndId>{entry.name or 'NOTPROVIDED'}</EndToEndId></Refs>"
        "</TxDtls></NtryDtls></Ntry>"
    )
