"""Statements are read exactly, in either direction, or refused with the line named."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from ledger.config.statement_profile import profile_of
from ledger.statements.model import Reading, Statement, StatementLine, StatementRefused
from ledger.statements.reader import read_statement

JUNE = datetime(2026, 6, 1, tzinfo=UTC), datetime(2026, 7, 1, tzinfo=UTC)


def read(body: bytes | str, **terms: Any) -> Statement:
    profile = profile_of(terms.pop("columns", {}))
    more = {name: terms.pop(name) for name in ("json_format", "bytes_max") if name in terms}
    raw = body.encode() if isinstance(body, str) else body
    return read_statement(raw, Reading(**terms, profile=profile), **more)


def refused(body: bytes | str, **terms: Any) -> str:
    try:
        profile_of(terms.get("columns", {}))
    except ValueError as error:  # a profile is refused before the file is read
        return str(error)
    with pytest.raises(StatementRefused) as caught:
        read(body, **terms)
    return str(caught.value)


def row(n: int, amount: str, balance: str, indicator: str = "Credit", **other: str) -> str:
    stated = {
        "id": f'"line_{n}"',
        "type": '"Bank Transfer In"',
        "contractId": f'"contract_{n}"',
        "idempotencyId": f'"idem_{n}"',
        "creditDebitIndicator": f'"{indicator}"',
        "amount": amount,
        "ledgerBalance": balance,
        "createdAt": f'"2026-06-0{n}T09:00:00.000+08:00"',
    } | other
    return "{" + ",".join(f'"{key}":{value}' for key, value in stated.items()) + "}"


def page(*rows: str, opening: str = "10.5", closing: str = "10.300001") -> str:
    return (
        f'{{"data":[{",".join(rows)}],"meta":{{"openingBalance":{opening},'
        f'"closingBalance":{closing}}}}}'
    )


ROWS = (
    row(1, "0.1", "10.6"),
    row(2, "0.2", "10.8"),
    row(3, "0.499999", "10.300001", "Debit", type='"Fee"'),
)


def test_a_straitsx_page_is_read_by_its_exact_numbers() -> None:
    statement = read(page(*ROWS), currency="xsgd")
    assert (statement.format, statement.currency) == ("straitsx-json", "XSGD")
    assert (statement.opening, statement.closing) == (Decimal("10.5"), Decimal("10.300001"))
    assert [str(line.amount) for line in statement.lines] == ["0.1", "0.2", "-0.499999"]
    assert statement.lines[0] == StatementLine(
        id="line_1",
        number=1,
        kind="Bank Transfer In",
        amount=Decimal("0.1"),
        currency="XSGD",
        effective_at=datetime(2026, 6, 1, 1, tzinfo=UTC),
        contract_id="contract_1",
        idempotency_id="idem_1",
        balance=Decimal("10.6"),
        booked_at=datetime(2026, 6, 1, 1, tzinfo=UTC),
        name="line_1",
    )
    assert statement.opened_at == datetime(2026, 6, 1, 1, tzinfo=UTC)
    assert statement.closed_at == datetime(2026, 6, 3, 1, 0, 0, 1, tzinfo=UTC)


def api(text: str) -> str:
    fields = json.loads(text, parse_float=str, parse_int=str)
    return (
        f'{{"id":"{fields["id"]}","type":"statement_entry","attributes":'
        + text.replace(f'"id":"{fields["id"]}",', "")
        + "}"
    )


@pytest.mark.parametrize(
    "body",
    [
        page(*reversed(ROWS)),
        page(*map(api, ROWS)),
        "[" + ",".join(ROWS) + "]",
        "\n".join(ROWS),
        f"[{page(*ROWS[:2])}, {page(ROWS[2])}]",
        f"{page(ROWS[2])}{page(*reversed(ROWS[:2]))}",
        f"{page(*ROWS[:2])}\n{page(*ROWS[1:])}",
        "\ufeff" + page(*ROWS),
    ],
    ids=["newest first", "json:api", "array", "one by one", "array of pages", "pages newest first",
         "overlapping pages", "byte order mark"],
)  # fmt: skip
def test_every_shape_of_a_straitsx_statement_is_read_alike(body: str) -> None:
    expected = [
        (line.id, line.amount, line.balance) for line in read(page(*ROWS), currency="xsgd").lines
    ]
    statement = read(body, currency="xsgd", window=JUNE)
    assert [(line.id, line.amount, line.balance) for line in statement.lines] == expected


def test_lines_of_one_instant_follow_the_running_balance() -> None:
    same = '"2026-06-01T00:00:00Z"'
    rows = (row(1, "5", "5", createdAt=same), row(2, "5", "0", "Debit", createdAt=same))
    for order in (rows, rows[::-1]):
        statement = read(page(*order, opening="0", closing="0.0"), currency="USD")
        assert [line.id for line in statement.lines] == ["line_1", "line_2"]


def test_a_balance_that_does_not_follow_names_its_line() -> None:
    wrong = page(ROWS[0], row(2, "0.2", "10.800001"), ROWS[2])
    assert refused(wrong, currency="xsgd").startswith("line 2: the running balance is 10.800001")
    assert "line 3: the closing balance is 10.3" in refused(
        page(*ROWS, closing="10.3"), currency="xsgd"
    )
    assert refused(page(*ROWS, opening="10.6"), currency="xsgd").startswith("line 1: ")
    assert refused(page(opening="1", closing="2"), currency="xsgd", window=JUNE).startswith(
        "line 0"
    )


def test_one_and_one_point_nought_are_equal_but_usd_and_xusd_are_not() -> None:
    stated = page(row(1, "1.00", "2.0"), opening="1", closing="2.000")
    assert read(stated, currency="USD").closing == Decimal(2)
    named = page(row(1, "1.00", "2.0", currency='"xusd"'), opening="1", closing="2.000")
    assert read(named, currency="XUSD").currency == read(named).currency == "XUSD"
    assert "about XUSD, not USD" in refused(named, currency="usd")


@pytest.mark.parametrize(
    ("changes", "reported"),
    [
        ({"amount": "NaN"}, "NaN"),
        ({"amount": "1e2"}, "running balance"),
        ({"amount": "1" + "0" * 400}, "longer than 64"),
        ({"amount": "1e400"}, "plain decimal"),
        ({"amount": "null"}, "no amount"),
        ({"amount": "true"}, "not an amount"),
        ({"amount": "-1"}, "cannot be negative"),
        ({"creditDebitIndicator": '"Sideways"'}, "neither Credit nor Debit"),
        ({"creditDebitIndicator": "null"}, "neither Credit nor Debit"),
        ({"createdAt": '"2026-06-01T00:00:00"'}, "no time zone"),
        ({"createdAt": '"yesterday"'}, "not a time"),
        ({"createdAt": "null"}, "no createdAt"),
        ({"createdAt": '"9999-12-31T23:59:59.999999Z"'}, "is dated 9999"),
        ({"contractId": '"a\\u0000b"'}, "NUL"),
        ({"contractId": '"' + "x" * 600 + '"'}, "longer than 512"),
        ({"contractId": '{"a":1}'}, "not a text"),
        ({"amount": '1,"amount":2'}, "same key twice"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_hostile_row_is_refused_by_its_number(changes: dict[str, str], reported: str) -> None:
    stated = {"amount": "0.2", "balance": "10.8"} | changes
    message = refused(page(ROWS[0], row(2, **stated)), currency="xsgd")
    assert reported in message
    assert message.startswith(("line 2", "line 1"))


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[{}", b"[1]", b"\xff{}", b"[]", b"[" * 100_000, b'{"data":[]}', b"[{},,{}]",
     b'{"data":[' + b"[" * 200 + b"]" * 200 + b"]}"],
)  # fmt: skip
def test_what_is_no_statement_is_refused(body: bytes) -> None:
    refused(body, currency="xsgd", format="straitsx-json")


def test_one_id_with_two_contents_is_refused() -> None:
    twin = row(2, "0.1", "10.7", id='"line_1"')
    body = page(ROWS[0], twin, closing="10.7")
    assert "line 2: has the id 'line_1' of line 1" in refused(body, currency="xsgd")


def test_pages_of_different_periods_are_refused() -> None:
    body = page(*ROWS) + page(opening="1", closing="2")
    assert "disagree about opening_balance" in refused(body, currency="xsgd")


def test_a_line_outside_the_period_keeps_its_date_and_counts_within() -> None:
    window = datetime(2026, 6, 2, tzinfo=UTC), datetime(2026, 7, 1, tzinfo=UTC)
    statement = read(page(*ROWS), currency="xsgd", window=window)
    first = statement.lines[0]
    assert (first.effective_at, first.booked_at) == (datetime(2026, 6, 1, 1, tzinfo=UTC), window[0])
    assert [line.booked_at for line in statement.lines[1:]] == [
        line.effective_at for line in statement.lines[1:]
    ]
    assert statement.notes == (
        "1 line (1) is dated outside 2026-06-02 to 2026-06-30, the days of the statement, and "
        "keeps its date; in the balances it counts on the nearest of these days",
    )


def test_a_line_far_outside_the_period_is_refused() -> None:
    window = datetime(2026, 9, 2, tzinfo=UTC), datetime(2026, 10, 1, tzinfo=UTC)
    message = refused(page(*ROWS), currency="xsgd", window=window)
    assert message.startswith("line 1: is dated 2026-06-01T01:00:00+00:00, more than 92 days")


def test_a_period_that_the_file_states_is_used() -> None:
    stated = '{"from":"2026-06-01T00:00:00Z","to":"2026-07-01T00:00:00Z",' + page(*ROWS)[1:]
    statement = read(stated, currency="xsgd")
    assert (statement.opened_at, statement.closed_at) == JUNE


def test_a_file_without_a_currency_wants_one() -> None:
    assert "--currency" in refused(page(*ROWS))


# CSV

SIGNED = (
    "Date,Text,Amount,Balance\n"
    "2026-06-01T10:00:00Z,in,5.000001,6.000001\n"
    "2026-06-02,out,-1,5.000001\n"
)
MAP = {"effective_at": "Date", "amount": "Amount", "balance": "Balance", "description": "Text"}


def test_a_csv_is_read_by_its_map() -> None:
    statement = read(SIGNED, currency="sgd", columns=MAP | {"time_zone": "Asia/Singapore"})
    assert [(line.amount, line.number) for line in statement.lines] == [
        (Decimal("5.000001"), 2),
        (Decimal(-1), 3),
    ]
    assert statement.lines[1].effective_at == datetime(2026, 6, 1, 16, tzinfo=UTC)
    assert statement.lines[0].name != statement.lines[1].name
    assert statement.lines[0].name.startswith("h:")


def test_opening_and_closing_follow_from_the_running_balance() -> None:
    statement = read(SIGNED, currency="sgd", columns=MAP | {"time_zone": "Asia/Singapore"})
    assert (statement.opening, statement.closing) == (Decimal(1), Decimal("5.000001"))
    silent = {name: where for name, where in MAP.items() if name != "balance"}
    bare = read(SIGNED, currency="sgd", columns=silent | {"time_zone": "Asia/Singapore"})
    assert (bare.opening, bare.closing) == (None, None)


def test_debit_and_credit_columns_and_european_writing() -> None:
    body = (
        "Buchung;Soll;Haben;Saldo;Whg\r\n"
        '02.06.2026 00:30;1.234,56;;"1.000.000,00";EUR\r\n'
        "01.06.2026 23:59;;12,5;1.001.234,56;EUR\r\n"
    )
    columns = {
        "effective_at": "Buchung", "debit": "Soll", "credit": "Haben", "balance": "Saldo",
        "currency": "Whg", "decimal": ",", "thousands": ".", "time_format": "%d.%m.%Y %H:%M",
        "time_zone": "Europe/Berlin",
    }  # fmt: skip
    statement = read(b"\xef\xbb\xbf" + body.encode(), columns=columns)
    assert [line.amount for line in statement.lines] == [Decimal("12.5"), Decimal("-1234.56")]
    assert statement.currency == "EUR"
    assert statement.lines[0].effective_at == datetime(2026, 6, 1, 21, 59, tzinfo=UTC)


def test_an_indicator_gives_the_direction() -> None:
    body = "t|a|d\n2026-06-01T00:00:00Z|1|CR\n2026-06-02T00:00:00Z|2|DR\n"
    columns = {"effective_at": "t", "amount": "a", "indicator": "d"}
    assert [x.amount for x in read(body, currency="USD", columns=columns).lines] == [1, -2]
    own = columns | {"credit_word": "DR", "debit_word": "CR"}
    assert [x.amount for x in read(body, currency="USD", columns=own).lines] == [-1, 2]


def test_equal_lines_without_ids_keep_their_own_and_newer_files_give_the_same() -> None:
    head = "t,a\n"
    lines = ["2026-06-01T00:00:00Z,1\n", "2026-06-01T00:00:00Z,1.00\n", "2026-06-02T00:00:00Z,1\n"]
    columns = {"effective_at": "t", "amount": "a"}
    names = [x.name for x in read(head + "".join(lines), currency="USD", columns=columns).lines]
    assert len(set(names)) == 3
    assert names[1] == f"{names[0]}-2"
    more = read(head + "".join(reversed([*lines, "2026-06-03T00:00:00Z,9\n"])), currency="USD",
                columns=columns)  # fmt: skip
    assert {x.name for x in more.lines} > set(names)


@pytest.mark.parametrize(
    ("body", "changes", "reported"),
    [
        ("Date,Amount\n2026-06-01T00:00:00Z,\"1,234\"\n", {}, "line 2: Amount '1,234'"),
        ("Date,Amount\n2026-06-01T00:00:00Z,\"1,2345\"\n", {"thousands": ","}, "not grouped"),
        ("Date,Amount\n2026-06-01T00:00:00Z,1.5\n", {"decimal": ","}, "comma"),
        ("Date,Amount\n2026-06-01T00:00:00Z,NaN\n", {}, "no plain amount"),
        ("Date,Amount\n2026-06-01T00:00:00Z,1e5\n", {}, "no plain amount"),
        ("Date,Amount\n2026-06-01T00:00:00Z,\n", {}, "has no Amount"),
        ("Date,Amount\n2026-06-01T00:00:00Z,--1\n", {}, "no plain amount"),
        ("Date,Amount\n2026-06-01,1\n", {}, "names no zone"),
        ("Date,Amount\n01/06/2026,1\n", {}, "declare time_format"),
        ("Date,Amount\n2026-06-01T00:00:00Z,1,2\n", {}, "line 2: has 3 cells"),
        ("Date,Amount\n2026-06-01T00:00:00Z,\x001\n", {}, "line 2: holds a NUL"),
        ("Date,Amount\n\"2026-06-01T00:00:00Z,1\n", {}, "line 2: unexpected end of data"),
        ("Date,Betrag\n2026-06-01T00:00:00Z,1\n", {}, "no column 'Amount'"),
        ("Date,Amount,Amount\n2026-06-01T00:00:00Z,1,1\n", {}, "2 columns 'Amount'"),
        ("Date,Amount\n2026-06-01T00:00:00Z,1\n", {"time_zone": "Mars/Base"}, "no time zone"),
        ("Date,Amount\n2026-06-01T00:00:00Z,1\n", {"colour": "red"}, "names colour"),
        ("Date,Amount\n2026-06-01T00:00:00Z,1\n", {"debit": "D", "credit": "C"}, "name the amount"),
        ("Date,Amount\n2026-06-01T00:00:00Z,1\n", {"closing": "3", "opening": "1"}, "closing"),
        ("Date,Amount\n", {}, "--from"),
    ],
)  # fmt: skip
def test_a_csv_that_is_not_as_declared_is_refused(
    body: str, changes: dict[str, str], reported: str
) -> None:
    columns = {"effective_at": "Date", "amount": "Amount"} | changes
    assert reported in refused(body, currency="SGD", columns=columns)


def test_two_currencies_in_one_csv_are_refused() -> None:
    body = "t,a,c\n2026-06-01T00:00:00Z,1,USD\n2026-06-01T00:00:00Z,1,XUSD\n"
    columns = {"effective_at": "t", "amount": "a", "currency": "c"}
    assert "about USD, XUSD; choose one (--currency)" in refused(body, columns=columns)


# camt.053


def entry(amount: str, mark: str, ref: str, day: str = "2026-06-01", status: str = "BOOK") -> str:
    return f"""<Ntry><Amt Ccy="SGD">{amount}</Amt><CdtDbtInd>{mark}</CdtDbtInd>
      <Sts><Cd>{status}</Cd></Sts><BookgDt><Dt>{day}</Dt></BookgDt><ValDt><Dt>2026-05-30</Dt></ValDt>
      <AcctSvcrRef>{ref}</AcctSvcrRef><BkTxCd><Domn><Cd>PMNT</Cd><Fmly><Cd>RCDT</Cd>
      <SubFmlyCd>ESCT</SubFmlyCd></Fmly></Domn></BkTxCd>
      <NtryDtls><TxDtls><Refs><EndToEndId>E2E-{ref}</EndToEndId></Refs>
      <RmtInf><Ustrd>Invoice {ref}</Ustrd></RmtInf></TxDtls></NtryDtls></Ntry>"""


def balance(code: str, amount: str, day: str, mark: str = "CRDT") -> str:
    return (
        f"<Bal><Tp><CdOrPrtry><Cd>{code}</Cd></CdOrPrtry></Tp>"
        f'<Amt Ccy="SGD">{amount}</Amt><CdtDbtInd>{mark}</CdtDbtInd><Dt><Dt>{day}</Dt></Dt></Bal>'
    )


def camt(*parts: str, version: str = "02", head: str = "") -> str:
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>{head}'
        f'<Document xmlns="urn:iso:std:iso:20022:tech:xsd:camt.053.001.{version}"><BkToCstmrStmt>'
        f"<Stmt>{''.join(parts)}</Stmt></BkToCstmrStmt></Document>"
    )


PARTS = (
    balance("OPBD", "2.5", "2026-06-01", "DBIT"),
    balance("CLBD", "97.49", "2026-06-02"),
    entry("100.00", "CRDT", "A"),
    entry("50", "CRDT", "Z", status="PDNG"),
    entry("0.01", "DBIT", "B", "2026-06-02"),
)


@pytest.mark.parametrize("version", ["02", "04", "08", "13"])
def test_a_camt_053_is_read_whatever_its_version(version: str) -> None:
    statement = read(camt(*PARTS, version=version))
    assert (statement.format, statement.currency) == ("camt.053", "SGD")
    assert (statement.opening, statement.closing) == (Decimal("-2.5"), Decimal("97.49"))
    assert [(line.id, line.amount) for line in statement.lines] == [
        ("A", Decimal("100.00")),
        ("B", Decimal("-0.01")),
    ]
    assert statement.lines[0].reference == "E2E-A"
    assert statement.lines[0].kind == "PMNT-RCDT-ESCT"
    assert statement.lines[0].description == "Invoice A"
    assert statement.opened_at == datetime(2026, 6, 1, tzinfo=UTC)
    assert statement.closed_at == datetime(2026, 6, 3, tzinfo=UTC)


def test_days_of_a_camt_053_begin_where_the_bank_is() -> None:
    statement = read(camt(*PARTS), columns={"time_zone": "Asia/Singapore"})
    assert statement.lines[0].effective_at == datetime(2026, 5, 31, 16, tzinfo=UTC)


def test_the_last_second_of_a_camt_053_is_in_its_period() -> None:
    stated = "<FrToDt><FrDtTm>2026-06-01T00:00:00+08:00</FrDtTm>{}</FrToDt>"
    statement = read(camt(stated.format("<ToDtTm>2026-06-30T23:59:59.999+08:00</ToDtTm>"), *PARTS))
    assert statement.opened_at == datetime(2026, 5, 31, 16, tzinfo=UTC)
    assert statement.closed_at == datetime(2026, 6, 30, 16, tzinfo=UTC)


def test_the_references_of_one_of_a_batch_are_not_the_batchs() -> None:
    batch = entry("100.00", "CRDT", "A").replace(
        "</TxDtls></NtryDtls>",
        "</TxDtls><TxDtls><Refs><EndToEndId>E2E-other</EndToEndId></Refs></TxDtls></NtryDtls>",
    )
    parts = [*PARTS[:2], batch, PARTS[-1]]
    assert [line.reference for line in read(camt(*parts)).lines] == [None, "E2E-B"]


def test_a_period_longer_than_a_camt_053_states_is_refused() -> None:
    stated = (
        "<FrToDt><FrDtTm>2026-06-01T00:00:00Z</FrDtTm>"
        "<ToDtTm>2026-06-03T00:00:00Z</ToDtTm></FrToDt>"
    )
    given = datetime(2026, 6, 1, tzinfo=UTC), datetime(2026, 6, 4, tzinfo=UTC)
    assert read(camt(stated, *PARTS), window=given).closed_at == given[1]
    later = given[1] + timedelta(seconds=1)
    message = refused(camt(stated, *PARTS), window=(given[0], later))
    assert "states that it covers 2026-06-01" in message


def test_an_empty_file_is_called_empty() -> None:
    assert "the file is empty" in refused(b" \n")


def test_a_reference_shared_by_entries_is_no_id() -> None:
    parts = [*PARTS[:2], entry("100.00", "CRDT", "A"), entry("0.01", "DBIT", "A", "2026-06-02")]
    names = [line.name for line in read(camt(*parts)).lines]
    assert [each[:2] for each in names] == ["h:", "h:"]
    assert len(set(names)) == 2


def test_a_camt_053_that_does_not_add_up_names_its_line() -> None:
    parts = [*PARTS[:4], entry("0.02", "DBIT", "B", "2026-06-02")]
    assert refused(camt(*parts)).startswith("line 3: the closing balance is 97.49")


LAUGHS = '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>'
XXE = '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>'


@pytest.mark.parametrize(
    "body",
    [
        camt(*PARTS, head=LAUGHS).replace("Invoice A", "&b;"),
        camt(*PARTS, head=XXE).replace("Invoice A", "&a;"),
        camt(*PARTS, head='<!DOCTYPE x SYSTEM "http://127.0.0.1:1/x.dtd">'),
        camt(*PARTS)[:-200],
        camt(*PARTS).replace("camt.053", "camt.052"),
        camt(*PARTS).replace("100.00", "NaN"),
        camt(*PARTS).replace("100.00", "1E+400"),
        camt(*PARTS).replace("100.00", "-100.00"),
        camt(*PARTS).replace('<Amt Ccy="SGD">100.00</Amt>', ""),
        camt(*PARTS).replace("Invoice A", "\x00"),
        camt(*PARTS).replace("2026-06-02", "2026-06-31"),
        camt(*PARTS).replace('Ccy="SGD">0.01', 'Ccy="XSGD">0.01'),
        camt(*PARTS).replace("2026-06-02", "9999-12-31"),
        camt(*PARTS).replace('encoding="UTF-8"', 'encoding="UTF-80"'),
        camt("<a>" * 100 + "</a>" * 100),
        "<html></html>",
        '<?xml version="1.0" encoding="utf-7"?><Document/>',
    ],
)
def test_a_hostile_camt_053_is_refused(body: str) -> None:
    begun = time.monotonic()
    refused(body)
    assert time.monotonic() - begun < 2


def test_statements_of_several_currencies_want_one_named() -> None:
    one = camt(*PARTS)
    other = camt(*PARTS).replace('Ccy="SGD"', 'Ccy="USD"')
    inner = other[other.index("<Stmt>") : other.index("</BkToCstmrStmt>")]
    both = one.replace("</BkToCstmrStmt>", inner + "</BkToCstmrStmt>")
    assert "SGD, USD" in refused(both)
    assert read(both, currency="usd").currency == "USD"


# MT940

SWIFT = """{1:F01BANKSGSGXXXX}{4:
:20:STMT1
:25:SG00BANK0123456789
:28C:1/1
:60F:D260531SGD2,5
:61:2606010601C100,00NTRFE2E-A//BANKREF1
:86:Invoice A
of June
:61:260602D0,01NCHGNONREF
:62F:C260602SGD97,49
-}
"""


def test_an_mt940_is_read() -> None:
    statement = read(SWIFT.replace("\n", "\r\n"))
    assert (statement.format, statement.currency) == ("mt940", "SGD")
    assert (statement.opening, statement.closing) == (Decimal("-2.5"), Decimal("97.49"))
    first, fee = statement.lines
    assert (first.amount, first.reference, first.kind) == (Decimal(100), "E2E-A", "NTRF")
    assert "Invoice A" in first.description
    assert (fee.amount, fee.reference, fee.number) == (Decimal("-0.01"), None, 2)
    assert (statement.opened_at, statement.closed_at) == (
        datetime(2026, 6, 1, tzinfo=UTC),
        datetime(2026, 6, 3, tzinfo=UTC),
    )


def test_a_reversal_takes_back() -> None:
    body = SWIFT.replace("260602D0,01", "260602RC0,01")
    assert read(body).lines[1].amount == Decimal("-0.01")


def test_following_statements_of_an_mt940_are_one() -> None:
    more = ":20:STMT2\n:60F:C260602SGD97,49\n:61:260603C1,NTRFX\n:62F:C260603SGD98,49\n-\n"
    statement = read(SWIFT + more)
    assert (len(statement.lines), statement.closing) == (3, Decimal("98.49"))
    gap = more.replace("C260602SGD97,49", "C260602SGD97,48").replace("98,49", "98,48")
    assert refused(SWIFT + gap).startswith("line 3: the statement opens with 97.48")


@pytest.mark.parametrize(
    ("wrong", "reported"),
    [
        (SWIFT.replace("C100,00", "C100.00"), "line 1: :61:"),
        (SWIFT.replace("C100,00", "C1,0,0"), "line 1: :61:"),
        (SWIFT.replace("C100,00", "C10000000000000000000,00"), "line 1: :61:"),
        (SWIFT.replace("D0,01NCHG", "D0,01//"), "line 2: :61:"),
        (SWIFT.replace("SGD97,49", "SGD97.49"), ":62F:"),
        (SWIFT.replace("97,49", "97,48"), "line 2: the closing balance"),
        (SWIFT.replace("260602D", "261302D"), "line 2"),
        (SWIFT.replace("Invoice", "In\x00voice"), "NUL"),
        (SWIFT.replace(":62F:C260602SGD", ":62F:C260602USD"), "about USD, not SGD"),
        (":20:X\n:25:Y\n", "no statement"),
        (SWIFT.replace("of June", "of June\n:86:x" * 101), "line 1: has more than 100 details"),
        (SWIFT + ":20:X\n" * 10_001, "more than 10000 statements"),
    ],
)  # fmt: skip
def test_a_wrong_mt940_is_refused(wrong: str, reported: str) -> None:
    assert reported in refused(wrong)


def test_the_refusal_of_an_unknown_format_lists_the_known_ones() -> None:
    assert "camt.053, csv, mt940, straitsx-json, xlsx" in refused("%PDF-1.7\n1,2\n")
    assert "is no format" in refused("{}", format="ofx")


def test_what_is_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ledger.statements.validation.LINES_MAX", 2)
    assert "more than 2 lines" in refused(page(*ROWS), currency="xsgd")
    assert "larger than 10 bytes" in refused(page(*ROWS), currency="xsgd", bytes_max=10)
