"""A month's rows as files of StraitsX and of banks: the same amounts on the same days in each."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from datetime import date, datetime, tzinfo
from decimal import Decimal
from functools import partial
from zoneinfo import ZoneInfo

import orjson
import pytest

from ledger.simulator.month import month
from ledger.simulator.statement_files import (
    ISO_CURRENCIES,
    Writer,
    account_of,
    bank_csv,
    camt053,
    mt940,
    straitsx_json,
)

Rows = list[tuple[date, Decimal]]
SINGAPORE = ZoneInfo("Asia/Singapore")
UTC = ZoneInfo("UTC")


def rows_of_json(body: bytes, zone: tzinfo) -> Rows:
    amounts = re.findall(r'"amount":([0-9.]+)', body.decode())
    return [
        (
            datetime.fromisoformat(row["createdAt"]).astimezone(zone).date(),
            Decimal(amount) * (1 if row["creditDebitIndicator"] == "Credit" else -1),
        )
        for row, amount in zip(orjson.loads(body)["data"], amounts, strict=True)
    ]


def rows_of_camt(body: bytes) -> Rows:
    entries = re.findall(
        r"<Ntry><Amt Ccy=\"[A-Z]{3}\">(.*?)</Amt><CdtDbtInd>(.*?)</.*?<BookgDt><Dt>(.*?)<",
        body.decode(),
    )
    return [
        (date.fromisoformat(day), Decimal(amount) * (1 if side == "CRDT" else -1))
        for amount, side, day in entries
    ]


def rows_of_mt940(body: bytes) -> Rows:
    entries = re.findall(r"^:61:(\d{6})\d{4}([CD])([\d,]+)N", body.decode(), re.MULTILINE)
    return [
        (
            datetime.strptime(day, "%y%m%d").date(),
            Decimal(amount.replace(",", ".")) * (1 if side == "C" else -1),
        )
        for day, side, amount in entries
    ]


def rows_of_csv(body: bytes) -> Rows:
    def money(text: str) -> Decimal:
        return Decimal(text.replace(",", "") or "0")

    rows = list(csv.DictReader(io.StringIO(body.decode())))
    return [
        (
            datetime.strptime(row["Date"], "%d %b %Y").date(),
            money(row["Credit"]) - money(row["Debit"]),
        )
        for row in reversed(rows)
    ]


@pytest.mark.parametrize("zone", [UTC, SINGAPORE], ids=str)
@pytest.mark.parametrize(
    ("write", "rows_of"),
    [
        (camt053, rows_of_camt),
        (partial(camt053, instruction_ids=True, states_period=False), rows_of_camt),
        (mt940, rows_of_mt940),
        (partial(mt940, structured=True), rows_of_mt940),
        (bank_csv, rows_of_csv),
    ],
    ids=["camt.053", "camt.053 with InstrId", "mt940", "mt940 structured", "csv"],
)
def test_each_format_has_the_amounts_of_the_json_on_their_days(
    zone: ZoneInfo, write: Callable[..., bytes], rows_of: Callable[[bytes], Rows]
) -> None:
    expected = month(3, 400, faults=True)
    found = month(3, 400, faults=True, write=partial(write, zone=zone))
    assert found.planted == expected.planted
    for currency, body in found.statements.items():
        rows = rows_of_json(expected.statements[currency], zone)
        assert rows_of(body) == rows
        assert len(rows) > 5


@pytest.mark.parametrize("write", [camt053, mt940])
def test_balances_of_banks_begin_at_nothing_the_day_before_and_end_with_the_sum(
    write: Writer,
) -> None:
    for currency, body in month(4, 200, faults=True, write=write).statements.items():
        text = body.decode()
        rows = rows_of_camt(body) or rows_of_mt940(body)
        money = ISO_CURRENCIES.get(currency, currency)
        found = re.findall(
            r"<Cd>(?:OPBD|CLBD)</Cd>.*?Ccy=\"(.*?)\">(.*?)<.*?<Dt><Dt>(.*?)<", text
        ) or [
            (ccy, amount.replace(",", "."), f"20{day[:2]}-{day[2:4]}-{day[4:]}")
            for day, ccy, amount in re.findall(r":6[02]F:C(\d{6})([A-Z]{3})([\d,]+)", text)
        ]
        assert [(ccy, Decimal(amount), day) for ccy, amount, day in found] == [
            (money, Decimal(0), "2026-05-31"),
            (money, sum(amount for _, amount in rows), "2026-06-30"),
        ]
        assert account_of(currency) in text


def test_every_row_keeps_one_of_its_names_where_it_has_one() -> None:
    stated = month(5, 300, faults=True)
    for write in (camt053, mt940, bank_csv):
        files = month(5, 300, faults=True, write=write).statements
        for currency, body in stated.statements.items():
            text = files[currency].decode()
            for row in orjson.loads(body)["data"]:
                names = [row.get(key) for key in ("idempotencyId", "contractId")]
                named = next(filter(None, names), None)
                assert named is None or named in text


def test_the_json_of_a_writer_is_the_month_without_one() -> None:
    assert month(6, 200, True).statements == month(6, 200, True, straitsx_json).statements
