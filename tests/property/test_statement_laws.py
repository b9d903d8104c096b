"""The laws of statements: what was written is read, whatever the format and the direction."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.config.statement_profile import profile_of
from ledger.model import plain, total
from ledger.statements.model import Reading, Statement, StatementRefused
from ledger.statements.reader import read_statement

FIRST = datetime(2026, 6, 1, tzinfo=UTC)
WINDOW = FIRST, FIRST + timedelta(days=31)

amounts = st.decimals(
    min_value=Decimal(-(10**12)), max_value=Decimal(10**12), places=6, allow_nan=False
)
short_amounts = amounts.map(lambda a: (a / 10**4).quantize(Decimal("0.01")))
moments = st.integers(0, 30 * 86_400).map(lambda s: FIRST + timedelta(seconds=s))


def rows(of: st.SearchStrategy[Decimal]) -> st.SearchStrategy[list[tuple[datetime, Decimal]]]:
    return st.lists(st.tuples(moments, of), min_size=1, max_size=30).map(
        lambda found: sorted(found, key=lambda each: each[0])
    )


def balances(opening: Decimal, stated: Sequence[tuple[datetime, Decimal]]) -> list[Decimal]:
    found = [opening]
    for _, amount in stated:
        found.append(total(found[-1], amount))
    return found


def read(body: str, **terms: dict[str, str] | tuple[datetime, datetime]) -> Statement:
    profile = profile_of(terms.pop("columns", None) or {})  # type: ignore[arg-type]
    return read_statement(body.encode(), Reading(currency="XSGD", profile=profile, **terms))  # type: ignore[arg-type]


def agrees(statement: Statement, stated: Sequence[tuple[datetime, Decimal]]) -> None:
    assert [(line.effective_at, line.amount) for line in statement.lines] == list(stated)
    assert len({line.name for line in statement.lines}) == len(stated)
    if statement.opening is not None and statement.closing is not None:
        assert total(statement.opening, *(a for _, a in stated)) == statement.closing


def straitsx(stated: Sequence[tuple[datetime, Decimal]], opening: Decimal, newest: bool) -> str:
    running = balances(opening, stated)
    found = [
        f'{{"id":"l{n}","type":"x","creditDebitIndicator":"{"Debit" if amount < 0 else "Credit"}",'
        f'"amount":{abs(amount):f},"ledgerBalance":{running[n + 1]:f},'
        f'"createdAt":"{at.isoformat()}"}}'
        for n, (at, amount) in enumerate(stated)
    ]
    body = ",".join(reversed(found) if newest else found)
    meta = f'"meta":{{"openingBalance":{opening:f},"closingBalance":{running[-1]:f}}}'
    return f'{{"data":[{body}],{meta}}}'


@given(rows(amounts), amounts, st.booleans())
def test_a_written_straitsx_statement_is_read(
    stated: list[tuple[datetime, Decimal]], opening: Decimal, newest: bool
) -> None:
    statement = read(straitsx(stated, opening, newest), window=WINDOW)
    agrees(statement, stated)
    assert {line.id for line in statement.lines} == {f"l{n}" for n in range(len(stated))}
    assert statement.closing == balances(opening, stated)[-1]


@given(rows(amounts), amounts, st.data())
def test_a_changed_amount_is_always_found(
    stated: list[tuple[datetime, Decimal]], opening: Decimal, data: st.DataObject
) -> None:
    body = straitsx(stated, opening, newest=False)
    n = data.draw(st.integers(0, len(stated) - 1))
    moved = stated[n][1] + data.draw(st.sampled_from([Decimal("0.000001"), Decimal(-1)]))
    if (moved < 0) != (stated[n][1] < 0):
        return
    marked = (
        f'"id":"l{n}","type":"x","creditDebitIndicator":"{"Debit" if moved < 0 else "Credit"}",'
    )
    wrong = body.replace(
        f'{marked}"amount":{abs(stated[n][1]):f}', f'{marked}"amount":{abs(moved):f}'
    )
    assert wrong != body
    with pytest.raises(StatementRefused, match=r"^line \d+: "):
        read(wrong, window=WINDOW)


@given(rows(amounts), amounts, st.booleans(), st.sampled_from([",", ";", "\t", "|"]))
def test_a_written_csv_is_read(
    stated: list[tuple[datetime, Decimal]], opening: Decimal, newest: bool, delimiter: str
) -> None:
    running = balances(opening, stated)
    file = io.StringIO()
    writer = csv.writer(file, delimiter=delimiter)
    writer.writerow(["When", "In", "Out", "Left", "What"])
    found = [
        [at.isoformat(), f"{amount:,f}" if amount >= 0 else "",
         f"{-amount:,f}" if amount < 0 else "", f"{running[n + 1]:,f}",
         f'said "so", {n}; then|\tmore']
        for n, (at, amount) in enumerate(stated)
    ]  # fmt: skip
    writer.writerows(reversed(found) if newest else found)
    columns = {"effective_at": "When", "credit": "In", "debit": "Out", "balance": "Left",
               "thousands": ",", "description": "What"}  # fmt: skip
    agrees(read(file.getvalue(), columns=columns, window=WINDOW), stated)


def days(stated: Sequence[tuple[datetime, Decimal]]) -> list[tuple[datetime, Decimal]]:
    return [(at.replace(hour=0, minute=0, second=0), amount) for at, amount in stated]


@given(rows(amounts), amounts)
def test_a_written_camt_053_is_read(
    stated: list[tuple[datetime, Decimal]], opening: Decimal
) -> None:
    def marked(amount: Decimal) -> str:
        mark = "DBIT" if amount < 0 else "CRDT"
        return f'<Amt Ccy="XSGD">{abs(amount):f}</Amt><CdtDbtInd>{mark}</CdtDbtInd>'

    def balance(code: str, amount: Decimal, day: datetime) -> str:
        return (
            f"<Bal><Tp><CdOrPrtry><Cd>{code}</Cd></CdOrPrtry></Tp>{marked(amount)}"
            f"<Dt><Dt>{day.date()}</Dt></Dt></Bal>"
        )

    entries = "".join(
        f"<Ntry>{marked(amount)}<Sts>BOOK</Sts><BookgDt><DtTm>{at.isoformat()}</DtTm></BookgDt></Ntry>"
        for at, amount in stated
    )
    closing = balances(opening, stated)[-1]
    body = (
        '<Document xmlns="urn:iso:std:iso:20022:tech:xsd:camt.053.001.08"><BkToCstmrStmt><Stmt>'
        f"{balance('OPBD', opening, FIRST)}{balance('CLBD', closing, stated[-1][0])}{entries}"
        "</Stmt></BkToCstmrStmt></Document>"
    )
    statement = read(body)
    agrees(statement, stated)
    assert (statement.opening, statement.closing) == (opening, closing)


@given(rows(short_amounts), short_amounts)
def test_a_written_mt940_is_read(stated: list[tuple[datetime, Decimal]], opening: Decimal) -> None:
    def swift(amount: Decimal) -> str:
        return f"{abs(amount):f}".replace(".", ",")

    def mark(amount: Decimal) -> str:
        return "D" if amount < 0 else "C"

    closing = balances(opening, stated)[-1]
    lines = [
        f":61:{at:%y%m%d%m%d}{mark(amount)}{swift(amount)}NTRFREF{n}\n:86:line {n}\n"
        for n, (at, amount) in enumerate(stated)
    ]
    body = (
        f":20:S\n:60F:{mark(opening)}260531SGD{swift(opening)}\n{''.join(lines)}"
        f":62F:{mark(closing)}{stated[-1][0]:%y%m%d}SGD{swift(closing)}\n"
    )
    statement = read_statement(body.encode(), Reading(currency="SGD"))
    agrees(statement, days(stated))
    assert plain(statement.closing or Decimal(0)) == plain(closing)


@given(st.binary(max_size=300), st.sampled_from(["straitsx-json", "csv", "camt.053", "mt940"]))
def test_any_bytes_are_a_statement_or_refused(body: bytes, form: str) -> None:
    columns = {"effective_at": "a", "amount": "b"} if form == "csv" else {}
    prefixes = {
        "csv": b"a,b\n",
        "mt940": b":20:X\n:60F:C260531SGD1,\n:61:",
        "camt.053": b"<Document",
    }
    for begun in (b"", prefixes.get(form, b'{"data":[')):
        with pytest.raises(StatementRefused):
            read_statement(begun + body, Reading(form, "XSGD", profile=profile_of(columns)))
