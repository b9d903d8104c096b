"""A simulated wallet's rows as statement files: as StraitsX writes them, and as banks do.

Banks write days of a time zone without times, ISO 4217 currencies (a token's account is one of its
money) and one or two references of an entry: what the JSON of StraitsX names and a file leaves
out is lost.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, timedelta, tzinfo
from decimal import Decimal
from typing import Final, TypeAlias
from xml.sax.saxutils import escape

from ledger.model import plain, total
from ledger.simulator.deal import singapore
from ledger.simulator.story import OPENED_AT, PERIOD, SimulatedRow

Writer: TypeAlias = Callable[[str, Sequence[SimulatedRow]], bytes]
"""(currency in upper case, its rows oldest first) → the file; the account opens at nothing."""

ISO_CURRENCIES: Final[Mapping[str, str]] = {"XSGD": "SGD", "XUSD": "USD", "USDC": "USD"}
"""Token → the money that a bank's file names for it."""
CSV_PROFILE: Final[Mapping[str, str]] = {
    "format": "csv", "effective_at": "Date", "time_format": "%d %b %Y", "time_zone": "UTC",
    "description": "Description", "reference": "Reference", "debit": "Debit", "credit": "Credit",
    "balance": "Balance", "thousands": ",",
}  # fmt: skip
"""How `bank_csv` writes, as a profile of statement files declares it."""

_LEAST: Final = Decimal("0.000001")
_DAY: Final = timedelta(days=1)
_FEE: Final = "Fee"
_SUBFIELD_CHARACTERS: Final = 27
"""What a subfield ?20 to ?29 of a structured `:86:` holds."""


def account_of(currency: str) -> str:
    """Return the account number of a currency in the files of banks."""
    return f"SIM{currency}0001"


def straitsx_json(currency: str, rows: Sequence[SimulatedRow]) -> bytes:
    """Write the account statement of StraitsX, with every id, time and running balance."""
    units, parts = 0, []
    for row in rows:
        units += int(row.amount / _LEAST)
        parts.append(_json_row(row, units))
    lines = ",\n".join(parts)
    return (
        f'{{"currency":"{currency.lower()}","from":"{OPENED_AT.isoformat()}",'
        f'"to":"{(OPENED_AT + PERIOD).isoformat()}","meta":{{"openingBalance":0,'
        f'"closingBalance":{plain(units * _LEAST)}}},"data":[\n{lines}\n]}}\n'
    ).encode()


def camt053(
    currency: str,
    rows: Sequence[SimulatedRow],
    *,
    zone: tzinfo = UTC,
    instruction_ids: bool = False,
    states_period: bool = True,
) -> bytes:
    """Write a camt.053.001.08 of one statement.

    EndToEndId is the row's first name; with `instruction_ids` InstrId is its contract. Without
    `states_period` only the days of the balances tell the period.
    """
    first, last = _days(zone)
    ccy = ISO_CURRENCIES.get(currency, currency)
    period = (
        f"<FrToDt><FrDtTm>{first}T00:00:00</FrDtTm><ToDtTm>{last}T23:59:59</ToDtTm></FrToDt>"
        if states_period
        else ""
    )
    closing = total(*(row.amount for row in rows))
    entries = "\n".join(_entry(row, ccy, zone, instruction_ids) for row in rows)
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<Document xmlns="urn:iso:std:iso:20022:tech:xsd:camt.053.001.08"><BkToCstmrStmt>'
        f"<GrpHdr><MsgId>SIM-{currency}</MsgId><CreDtTm>{last}T23:59:59</CreDtTm></GrpHdr>"
        f"<Stmt><Id>SIM-{currency}-1</Id>{period}"
        f"<Acct><Id><Othr><Id>{account_of(currency)}</Id></Othr></Id><Ccy>{ccy}</Ccy></Acct>\n"
        f"{_balance('OPBD', Decimal(0), ccy, first - _DAY)}{_balance('CLBD', closing, ccy, last)}\n"
        f"{entries}\n</Stmt></BkToCstmrStmt></Document>\n"
    ).encode()


def mt940(
    currency: str, rows: Sequence[SimulatedRow], *, zone: tzinfo = UTC, structured: bool = False
) -> bytes:
    """Write an MT940 of one statement, with the first name of an entry as EREF in `:86:`.

    The end-to-end reference of a payment is the customer reference, where its 16 characters
    hold it. With `structured` the `:86:` has the subfields of German banks.
    """
    first, last = _days(zone)
    ccy = ISO_CURRENCIES.get(currency, currency)
    closing = total(*(row.amount for row in rows))
    parts = [
        f":20:SIM{currency}",
        f":25:{account_of(currency)}",
        ":28C:1/1",
        f":60F:{_mt940_balance(Decimal(0), ccy, first - _DAY)}",
    ]
    for row in rows:
        parts += [_mt940_entry(row, zone), f":86:{_mt940_details(row, structured)}"]
    parts.append(f":62F:{_mt940_balance(closing, ccy, last)}")
    return ("\r\n".join(parts) + "\r\n-\r\n").encode()


def bank_csv(currency: str, rows: Sequence[SimulatedRow], *, zone: tzinfo = UTC) -> bytes:
    """Write the CSV of a bank's website, newest row first, as CSV_PROFILE describes it."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(["Date", "Description", "Reference", "Debit", "Credit", "Balance"])
    balance, written = Decimal(0), []
    for row in rows:
        balance = total(balance, row.amount)
        amount = f"{row.amount.copy_abs():,f}"
        sides = ["", amount] if row.amount > 0 else [amount, ""]
        day = f"{row.at.astimezone(zone):%d %b %Y}"
        written.append([day, row.kind, _name(row), *sides, f"{balance:,f}"])
    writer.writerows(reversed(written))
    return out.getvalue().encode()


def _json_row(row: SimulatedRow, units: int) -> str:
    side = "Debit" if row.amount < 0 else "Credit"
    named = f'"contractId":"{row.contract_id}",' if row.contract_id else ""
    named += f'"idempotencyId":"{row.idempotency_id}",' if row.idempotency_id else ""
    named += f'"transactionReference":"{row.reference}",' if row.reference else ""
    return (
        f'{{"id":"{row.id}","type":"{row.kind}",{named}"creditDebitIndicator":"{side}",'
        f'"amount":{plain(row.amount.copy_abs())},"ledgerBalance":{plain(units * _LEAST)},'
        f'"createdAt":"{singapore(row.at)}"}}'
    )


def _days(zone: tzinfo) -> tuple[date, date]:
    """Return the first and the last day of the month, as they are in a zone."""
    ended_at = OPENED_AT + PERIOD - timedelta(microseconds=1)
    return OPENED_AT.astimezone(zone).date(), ended_at.astimezone(zone).date()


def _name(row: SimulatedRow) -> str:
    """Return the one name that a bank's file has for a row; "" where it has none."""
    return row.idempotency_id or row.contract_id or row.reference


def _entry(row: SimulatedRow, ccy: str, zone: tzinfo, instruction_ids: bool) -> str:
    day = row.at.astimezone(zone).date()
    side = "CRDT" if row.amount > 0 else "DBIT"
    family = "RCDT" if row.amount > 0 else "ICDT"
    code = "CHRG" if row.kind == _FEE else "ESCT"
    instruction = f"<InstrId>{row.contract_id}</InstrId>" if instruction_ids else ""
    return (
        f'<Ntry><Amt Ccy="{ccy}">{plain(row.amount.copy_abs())}</Amt><CdtDbtInd>{side}</CdtDbtInd>'
        f"<Sts><Cd>BOOK</Cd></Sts><BookgDt><Dt>{day}</Dt></BookgDt><ValDt><Dt>{day}</Dt></ValDt>"
        f"<AcctSvcrRef>{row.id}</AcctSvcrRef><BkTxCd><Domn><Cd>PMNT</Cd><Fmly><Cd>{family}</Cd>"
        f"<SubFmlyCd>{code}</SubFmlyCd></Fmly></Domn></BkTxCd><NtryDtls><TxDtls><Refs>"
        f"{instruction if row.contract_id else ''}"
        f"<EndToEndId>{_name(row) or 'NOTPROVIDED'}</EndToEndId></Refs>"
        f"<RmtInf><Ustrd>{escape(row.kind)}</Ustrd></RmtInf></TxDtls></NtryDtls></Ntry>"
    )


def _balance(code: str, amount: Decimal, ccy: str, day: date) -> str:
    side = "DBIT" if amount < 0 else "CRDT"
    return (
        f"<Bal><Tp><CdOrPrtry><Cd>{code}</Cd></CdOrPrtry></Tp>"
        f'<Amt Ccy="{ccy}">{plain(amount.copy_abs())}</Amt><CdtDbtInd>{side}</CdtDbtInd>'
        f"<Dt><Dt>{day}</Dt></Dt></Bal>"
    )


def _mt940_balance(amount: Decimal, ccy: str, day: date) -> str:
    return f"{'D' if amount < 0 else 'C'}{day:%y%m%d}{ccy}{_comma(amount)}"


def _mt940_entry(row: SimulatedRow, zone: tzinfo) -> str:
    day = row.at.astimezone(zone)
    side = "D" if row.amount < 0 else "C"
    code = "NCHG" if row.kind == _FEE else "NTRF"
    reference = row.reference if 0 < len(row.reference) <= 16 else "NONREF"
    bank = row.id.replace("entry_", "E")
    return f":61:{day:%y%m%d%m%d}{side}{_comma(row.amount)}{code}{reference}//{bank}"


def _mt940_details(row: SimulatedRow, structured: bool) -> str:
    name = _name(row) or "NOTPROVIDED"
    if not structured:
        return f"/EREF/{name}/REMI/{row.kind}"
    code = "808" if row.kind == _FEE else "166" if row.amount > 0 else "116"
    words = f"EREF+{name}", f"SVWZ+{row.kind}"
    pieces = [
        word[start : start + _SUBFIELD_CHARACTERS]
        for word in words
        for start in range(0, len(word), _SUBFIELD_CHARACTERS)
    ]
    subfields = "".join(f"?{20 + n}{piece}" for n, piece in enumerate(pieces))
    return f"{code}?00{row.kind.upper()}{subfields}"


def _comma(amount: Decimal) -> str:
    """Spell an amount without its sign; the comma is there even without decimals."""
    whole, _, decimals = plain(amount.copy_abs()).partition(".")
    return f"{whole},{decimals}"
