"""Forms of exports: names that lead back, cells that run nothing, columns that stay exact."""

from __future__ import annotations

import csv
import io
import re
import sys
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from ledger.errors import FormatTooNarrow, InvalidRequest, MissingExtra
from ledger.export.journals import Beancount, Hledger, SumSize, account, commodity, groups
from ledger.export.jsonl import event_line, read_event, row_line
from ledger.export.tables import Csv, ExportColumn, JsonLines, Parquet, Row, RowEncoder, cell

LEGAL = re.compile(r"(Assets|Liabilities|Equity|Income|Expenses)(:[A-Z0-9][A-Za-z0-9-]*)+")
ROOTS = {"Assets:Suspense": "suspense", "Equity:Memo": "memo", "Equity:Other": ""}


def back(name: str) -> tuple[str, str]:
    """Lead a name back to source and account, apart from the code that made it."""
    start = "Equity:Other" if name.startswith("Equity:Other") else name.split(":")[0]
    for known in ROOTS:
        start = known if name.startswith(known) else start
    rest = [_part(part) for part in name[len(start) :].split(":")[1:]]
    first = ROOTS.get(start, start.lower())
    return rest[-1], ":".join([*([first] if first else []), *rest[:-1]])


def _part(text: str) -> str:
    if not text.startswith("Id-"):
        return "_".join(word.lower() for word in re.findall("[A-Z][a-z0-9]*", text))
    found = re.sub(r"-([0-9A-F]{2})", lambda m: chr(int(m[1], 16)), text[3:])
    return found.encode("latin-1").decode()


@pytest.mark.parametrize(
    "name",
    [
        "assets:wallet:available", "assets:wallet:held", "assets:receivable:gokart",
        "liabilities:customers:customer_1", "liabilities:customers:Customer_1",
        "liabilities:customers:customer", "liabilities:customers:Customer",
        "liabilities:members:-", "liabilities:members:", "liabilities:customers:a:b",
        "liabilities:customers:顧客 7", "liabilities:customers:0x1F", "liabilities:customers:a_b",
        "liabilities:customers:AB", 'liabilities:customers:"; drop', "equity:merchant",
        "equity:conversion", "expenses:fees", "expenses:network_fees", "income:conversions",
        "memo:incoming", "memo:incoming:contra", "memo:beneficiary", "suspense", "other:thing",
    ],
)  # fmt: skip
@pytest.mark.parametrize("source", ["straitsx", "straitsx-sg", "7_up"])
def test_every_account_has_a_legal_name_that_leads_back_to_it(name: str, source: str) -> None:
    made = account(source, name)
    assert LEGAL.fullmatch(made)
    assert back(made) == (source, name)


def test_known_accounts_have_readable_names() -> None:
    assert account("straitsx", "assets:wallet:available") == "Assets:Wallet:Available:Straitsx"
    assert account("straitsx", "expenses:network_fees") == "Expenses:NetworkFees:Straitsx"
    assert account("straitsx", "memo:incoming:contra") == "Equity:Memo:Incoming:Contra:Straitsx"
    assert account("straitsx", "liabilities:customers:customer_1") == (
        "Liabilities:Customers:Id-customer-5F1:Straitsx"
    )


def test_a_currency_without_a_name_in_a_journal_is_refused() -> None:
    assert commodity("XSGD") == "XSGD"
    with pytest.raises(InvalidRequest, match="export jsonl or csv"):
        commodity("€")


LINE = {
    "source": "straitsx", "position": 7, "line": 1, "kind": "payment", "transaction": "c;1|\n\"",
    "account": "equity:merchant", "currency": "X2", "amount": "-0.5",
    "effective_at": "2026-01-02T23:59:59.5Z", "recorded_at": "2026-01-03T00:00:00Z",
}  # fmt: skip


def test_lines_of_an_event_are_grouped_by_transaction_and_time() -> None:
    lines = [LINE, LINE | {"line": 2, "effective_at": "1969-01-01T00:00:00Z"},
             LINE | {"line": 3, "amount": "0.5"}]  # fmt: skip
    found = [(str(day), [row["line"] for row in rows]) for day, rows in groups(lines)]
    assert found == [("1970-01-01", [2]), ("2026-01-02", [1, 3])]


def test_the_content_of_a_callback_cannot_break_out_of_a_journal() -> None:
    ((day, rows),) = groups([LINE])
    assert list(Hledger().entry(day, rows)) == [
        "account Equity:Merchant:Straitsx",
        'commodity "X2"',
        "",
        "2026-01-02 * (straitsx:7) payment | c%3B1%7C%0A%22  ; transaction:c%3B1%7C%0A%22, "
        "effective_at:2026-01-02T23:59:59.5Z, recorded_at:2026-01-03T00:00:00Z",
        '    Equity:Merchant:Straitsx    -0.5 "X2"',
        "",
    ]
    assert list(Beancount().entry(day, rows)) == [
        "1970-01-01 open Equity:Merchant:Straitsx",
        r'2026-01-02 * "payment" "c;1|%0A\"" ^straitsx/7 ^straitsx/payment/c-3B1-7C-0A-22',
        '  position: "straitsx:7"',
        r'  transaction: "c;1|%0A\""',
        '  effective_at: "2026-01-02T23:59:59.5Z"',
        '  recorded_at: "2026-01-03T00:00:00Z"',
        "  Equity:Merchant:Straitsx  -0.5 X2",
        "",
    ]


def line(amount: str, currency: str = "XSGD", name: str = "equity:merchant") -> dict[str, Any]:
    return LINE | {"amount": amount, "currency": currency, "account": name, "transaction": "t"}


def beancount(*lines: dict[str, Any]) -> list[str]:
    """Return the postings and the balances of a journal of one entry."""
    dialect = Beancount()
    ((day, rows),) = groups(lines)
    made = list(dialect.entry(day, rows))
    for row in lines:
        made += dialect.balance(day, row, row["amount"])
    return [text for text in made if text.startswith(("  A", "  E", ";", f"{day} balance"))]


def test_amounts_that_beancount_would_round_are_two_postings_whole_units_first() -> None:
    long = "12345678901.123456789012345678"
    assert beancount(line(long), line("0.5", name="assets:x"), line("-" + long, name="suspense"),
                     line("2.5", "USD"), line("-100000000000", name="assets:x")) == [
        "  Equity:Merchant:Straitsx  12345678901 XSGD",
        "  Assets:Suspense:Straitsx  -12345678901 XSGD",
        "  Equity:Merchant:Straitsx  2.5 USD",
        "  Assets:X:Straitsx  -100000000000 XSGD",
        "  Equity:Merchant:Straitsx  0.123456789012345678 XSGD",
        "  Assets:X:Straitsx  0.5 XSGD",
        "  Assets:Suspense:Straitsx  -0.123456789012345678 XSGD",
        "; not asserted: beancount computes with 28 digits, and this sum can need 29",
        f"; 2026-01-02 balance Equity:Merchant:Straitsx  {long} XSGD",
        "2026-01-02 balance Assets:X:Straitsx  0.5 XSGD",
        "; not asserted: beancount computes with 28 digits, and this sum can need 29",
        f"; 2026-01-02 balance Assets:Suspense:Straitsx  -{long} XSGD",
        "2026-01-02 balance Equity:Merchant:Straitsx  2.5 USD",
        "2026-01-02 balance Assets:X:Straitsx  -100000000000 XSGD",
    ]  # fmt: skip


def test_a_sum_that_may_pass_through_more_digits_is_not_asserted() -> None:
    size = SumSize()
    size.add("-9999999999")
    size.add("0.100000000000000001")
    assert size.digits == 28
    size.add("1")
    assert size.digits == 29


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("=1+1", "'=1+1"), ("+65 1234", "'+65 1234"), ("@SUM(A1)", "'@SUM(A1)"),
        ("-2+3", "'-2+3"), ("\t=1", "'\t=1"), ("-12.5", "-12.5"), ("-7", "-7"), (-7, "-7"),
        ("-", "'-"), ("--7", "'--7"), ("-1e9", "'-1e9"), ("a=b", "a=b"), ("", ""), (None, ""),
        (True, "true"), ({"a": "=1"}, '{"a":"=1"}'), (["x"], '["x"]'), ("12.50", "12.50"),
        (msgspec.Raw(b'{"a": 0.1234567890123456789012345}'), '{"a": 0.1234567890123456789012345}'),
    ],
)  # fmt: skip
def test_no_cell_is_a_formula_and_negative_amounts_stay_amounts(value: Any, shown: str) -> None:
    assert cell(value) == shown


def encoded(encoder: RowEncoder, *pages: list[Row]) -> bytes:
    """Return the file of some pages."""
    return b"".join([encoder.begin(), *map(encoder.encode, pages), encoder.end()])


def test_csv_and_json_lines_have_the_same_rows() -> None:
    columns = (ExportColumn("id", "text"), ExportColumn("amount", "amount"))
    rows = [{"id": 'a,"b"\n', "amount": "1.5"}, {"id": "=x", "amount": None}]
    made = encoded(Csv(columns), rows)
    read = list(csv.reader(io.StringIO(made.decode(), newline="")))
    assert read == [["id", "amount"], ['a,"b"\n', "1.5"], ["'=x", ""]]
    assert encoded(JsonLines(columns), rows) == (
        b'{"id":"a,\\"b\\"\\n","amount":"1.5"}\n{"id":"=x","amount":null}\n'
    )


def test_parquet_keeps_38_digits_and_names_the_row_that_needs_more() -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="the extra `analytics` is not installed")
    columns = (
        ExportColumn("account", "text"), ExportColumn("amount", "amount"),
        ExportColumn("at", "time"),
    )  # fmt: skip
    exact = "-12345678901234567890.123456789012345678"
    row = {"account": "equity:merchant", "amount": exact, "at": "2026-01-01T00:00:00.5Z"}
    empty = {"account": None, "amount": None, "at": None}
    made = encoded(Parquet(columns), [row, empty])
    table = pyarrow.parquet.read_table(pyarrow.BufferReader(made))
    assert table.column("amount").to_pylist() == [Decimal(exact), None]
    moment = datetime(2026, 1, 1, 0, 0, 0, 500_000, UTC)
    assert table.column("at").to_pylist() == [moment, None]
    for wide in ("100000000000000000000", "0.1234567890123456789"):
        encoder = Parquet(columns)
        encoder.encode([row, row])
        with pytest.raises(FormatTooNarrow) as caught:
            encoder.encode([row, row | {"amount": wide}])
        assert str(caught.value) == (
            f"row 4 (account equity:merchant) does not fit into Parquet: its amount, {wide}, has "
            "more digits than decimal128(38, 18) holds; export csv or jsonl, which hold any "
            "amount, or leave the row out by a filter"
        )


def test_parquet_is_made_of_row_groups_as_it_goes() -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="the extra `analytics` is missing")
    encoder = Parquet((ExportColumn("id", "text"),), group_bytes_max=10_000)
    pages = [[{"id": f"{page}-{n}-{'x' * 50}"} for n in range(100)] for page in range(7)]
    parts = [encoder.begin(), *map(encoder.encode, pages), encoder.end()]
    assert [len(part) > 0 for part in parts] == [True, *[False, True] * 3, False, True]
    file = parquet.ParquetFile(io.BytesIO(b"".join(parts)))
    assert [file.metadata.row_group(n).num_rows for n in range(4)] == [200, 200, 200, 100]
    assert file.read().column("id").to_pylist() == [row["id"] for page in pages for row in page]


def test_parquet_without_pyarrow_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match=r"pip install 'callback-ledger\[analytics\]'"):
        Parquet(())


EVENT: dict[str, Any] = {
    "source": "straitsx", "position": 1, "event_id": bytes(16), "idempotency_key": "k",
    "kind": "payment", "resource_id": "", "status": "s", "idempotency_id": None,
    "path_event": None, "origin": "callback", "verdict": "accepted", "reason": None,
    "detail": 'a,"leaf":"b', "peer": "", "headers": "{}", "provider_at": None,
    "received_at": datetime(1, 1, 1, tzinfo=UTC), "recorded_at": datetime(2026, 1, 1, tzinfo=UTC),
    "body": b"\x00\xff",
}  # fmt: skip


def test_an_events_line_leads_back_to_the_event() -> None:
    line = event_line(EVENT)
    found = read_event(line)
    assert {name: found[name] for name in EVENT} == EVENT
    assert event_line(found) == line


@pytest.mark.parametrize(
    ("old", "new"),
    [(b'"position":1', b'"position":1.0'), (b'"position":1', b'"position":true'),
     (b'"k"', b'"\\u006b"'), (b"}\n", b" }\n"), (b"}\n", b"}"), (b"AP8=", b"AP9="),
     (b"2026-01-01T00:00:00Z", b"2026-01-01T00:00:00+00:00"), (b'"peer":""', b'"peer":null'),
     (b'"kind":"payment",', b""), (b"2026-01-01T00:00:00Z", b"2026-01-01T00:00:00")],
)  # fmt: skip
def test_an_event_written_in_another_way_is_refused(old: bytes, new: bytes) -> None:
    line = event_line(EVENT)
    assert line.count(old) == 1
    with pytest.raises(ValueError):
        read_event(line.replace(old, new))


def test_a_row_has_one_way_to_be_written() -> None:
    columns = {"source": "text", "amount": "numeric", "details": "jsonb", "flags": "text[]"}
    row = {"details": {"b": 1, "a": [None]}, "flags": ["x"], "source": "s",
           "amount": Decimal("12.500")}  # fmt: skip
    assert row_line(columns, row) == (
        b'{"source":"s","amount":"12.5","details":{"a":[null],"b":1},"flags":["x"]}\n'
    )
    with pytest.raises(TypeError):
        row_line(columns, row | {"details": {"n": 10**30}})
