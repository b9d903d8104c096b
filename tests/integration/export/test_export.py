"""Exports: what the query API answers, as files; journals whose own tools compute our balances."""

from __future__ import annotations

import asyncio
import base64
import csv
import io
import os
import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest

from ledger.api.routes import exported_lists
from ledger.books.generations import schema_of
from ledger.errors import (
    DatabaseUnavailable,
    FormatTooNarrow,
    InvalidRequest,
    NotCaughtUp,
    NotFound,
)
from ledger.export import export
from ledger.export import tables as export_files
from ledger.export.journals import account
from tests import samples
from tests.asking import Service, payment, payout, serving
from tests.conftest import Database

Balances = dict[tuple[str, str], Decimal]
"""(the tools' account, currency) → debits less credits"""

LONG = "0.000000000000000001"
JUNE = {"created_at": "2026-06-01T00:00:00Z", "updated_at": "2026-06-01T00:00:00Z"}


@pytest.fixture
async def service(database: Database) -> AsyncIterator[Service]:
    async with serving(database) as running:
        await running.post_samples("straitsx")
        await running.post_samples("gokart")
        for number in range(1, 8):
            await running.post_json("straitsx", payment(number, customer_profile_id=f"c_{number}"))
        await running.post_json("straitsx", payout(20, customer_profile_id='x"; 1:2', **JUNE))
        await running.post_json("straitsx", payout(20, amount="21.0", **JUNE))
        await running.post("straitsx", b'{"broken')
        await running.fold()
        yield running


async def exported(service: Service, out: Path, **options: Any) -> bytes:
    given = {"format": "jsonl", "what": "entries", "params": {}} | options
    request = export.ExportRequest(out=str(out), **given)
    await export.write(service.database.service_dsn, request, exported_lists())
    return await asyncio.to_thread(out.read_bytes)


def rows_of(data: bytes) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in data.splitlines()]


async def answered(service: Service, what: str, **params: Any) -> list[dict[str, Any]]:
    return [row for page in await service.pages(f"/v1/{what}", what, **params) for row in page]


AS_OF: list[dict[str, str]] = [
    {},
    {"source": "straitsx"},
    {"position": "straitsx:9"},
    {"effective_at": "2026-03-01T00:00:00Z"},
    {"source": "straitsx", "position": "12", "effective_at": "2025-12-31T00:00:00Z"},
]


@pytest.mark.parametrize("what", ["entries", "balances", "transactions", "customers"])
async def test_json_lines_are_what_the_api_answers_at_any_as_of(
    service: Service, tmp_path: Path, what: str
) -> None:
    for params in AS_OF:
        options = {"what": what, "params": params, "rows_max": 7}
        found = rows_of(await exported(service, tmp_path / "x", **options))
        assert found == await answered(service, what, **params), params
        assert found or params


@pytest.mark.parametrize("view", ["rfi", "bank_accounts", "virtual_accounts", "limits"])
async def test_views_are_exported_as_the_api_answers_them_at_any_as_of(
    service: Service, tmp_path: Path, view: str
) -> None:
    for params in AS_OF:
        options = {"what": view, "params": params, "rows_max": 1}
        found = rows_of(await exported(service, tmp_path / "x", **options))
        pages = await service.pages(f"/v1/views/{view}", "rows", **params)
        assert found == [row for page in pages for row in page], params
    past = {"source": "straitsx", "position": "0"}
    assert await exported(service, tmp_path / "x", what=view, params=past) == b""


async def test_csv_holds_the_same_rows_and_exact_amounts(service: Service, tmp_path: Path) -> None:
    for what in ("entries", "balances", "transactions", "customers"):
        data = await exported(service, tmp_path / "x", what=what, format="csv")
        found = list(csv.DictReader(io.StringIO(data.decode(), newline="")))
        expected = await answered(service, what)
        assert found == [
            {name: export_files.cell(value) for name, value in row.items()} for row in expected
        ]
    assert any(row["effective_at"] for row in found) if what == "entries" else True


async def test_parquet_holds_the_same_rows_and_exact_amounts(
    service: Service, tmp_path: Path
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="the extra `analytics` is missing")
    await exported(service, tmp_path / "x", format="parquet")
    found = parquet.read_table(tmp_path / "x").to_pylist()
    expected = await answered(service, "entries")
    assert [(r["position"], r["line"], r["account"], r["amount"]) for r in found] == [
        (r["position"], r["line"], r["account"], Decimal(r["amount"])) for r in expected
    ]
    assert found[0]["effective_at"] == datetime.fromisoformat(expected[0]["effective_at"])
    for what in ("balances", "transactions", "customers", "events"):
        await exported(service, tmp_path / what, format="parquet", what=what)
        assert parquet.read_table(tmp_path / what).num_rows > 0


async def test_fees_summed_from_parquet_are_those_of_the_api(
    service: Service, tmp_path: Path
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="the extra `analytics` is missing")
    compute = pytest.importorskip("pyarrow.compute", reason="the extra `analytics` is missing")
    exact = payment(50, amount="12345678901234567890.123456789012345678", fees=LONG)
    await service.post_json("straitsx", exact)
    await service.fold()
    await exported(service, tmp_path / "x", format="parquet", what="transactions")
    table = await asyncio.to_thread(parquet.read_table, tmp_path / "x")
    expected = await answered(service, "transactions")
    fees = [Decimal(row["fees"]) for row in expected if row["fees"] is not None]
    assert compute.sum(table.column("fees")).as_py() == sum(fees)
    assert Decimal(LONG) in fees
    assert len(fees) > 10


async def test_a_sum_that_parquet_cannot_hold_is_named_and_nothing_is_written(
    service: Service, tmp_path: Path
) -> None:
    pytest.importorskip("pyarrow", reason="the extra `analytics` is missing")
    for number in range(100, 103):
        big = payment(number, amount="99999999999999999999.000000000000000001", fees="0")
        await service.post_json("straitsx", big)
    await service.fold()
    with pytest.raises(
        FormatTooNarrow,
        match=r"row \d+ \(source straitsx, account assets:wallet:available, currency XSGD\) does "
        r"not fit into Parquet: its debits, 3\d*\.\d*, has more digits .* export csv or jsonl",
    ):
        await exported(service, tmp_path / "x", format="parquet", what="balances")
    assert os.listdir(tmp_path) == []
    data = await exported(service, tmp_path / "x", what="balances")
    balances = {r["account"]: r["balance"] for r in rows_of(data) if r["currency"] == "XSGD"}
    assert balances["equity:merchant"].endswith("000003")


async def test_json_of_a_view_is_answered_and_exported_as_it_is_stored(
    service: Service, tmp_path: Path
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="the extra `analytics` is missing")
    stored = '{"a": 0.1234567890123456789012345, "b": 123456789012345678901234567890}'
    async with service.database.service() as connection:
        books = schema_of(service.generation)
        await connection.execute(f"UPDATE {books}.limits SET limits = $1", stored)
    async with service.client.get("/v1/views/limits") as response:
        assert f'"limits":{stored}' in await response.text()
    lines = await exported(service, tmp_path / "x", what="limits")
    assert f'"limits":{stored}' in lines.decode()
    text = await exported(service, tmp_path / "x", what="limits", format="csv")
    (row, *_) = csv.DictReader(io.StringIO(text.decode(), newline=""))
    assert row["limits"] == stored
    await exported(service, tmp_path / "x", what="limits", format="parquet")
    table = await asyncio.to_thread(parquet.read_table, tmp_path / "x")
    assert set(table.column("limits").to_pylist()) == {stored}


async def test_events_are_exported_with_their_bytes(service: Service, tmp_path: Path) -> None:
    found = rows_of(await exported(service, tmp_path / "x", what="events"))
    assert [(row["source"], row["position"]) for row in found] == [
        *(("gokart", n) for n in range(1, 6)),
        *(("straitsx", n) for n in range(1, len(found) - 4)),
    ]
    bodies = [base64.b64decode(row["body"]) for row in found if row["source"] == "gokart"]
    assert bodies == [samples.body(name) for name in samples.names("gokart")]
    params = {"position": "3", "source": "straitsx"}
    cut = rows_of(await exported(service, tmp_path / "x", what="events", params=params))
    assert [row["position"] for row in cut] == [1, 2, 3]
    dated = {"effective_at": "2026-01-01T00:00:00Z"}
    with pytest.raises(InvalidRequest, match="not dated by the provider"):
        await exported(service, tmp_path / "x", what="events", params=dated)


async def test_a_refused_export_names_the_reason(service: Service, tmp_path: Path) -> None:
    for params, error, words in (
        ({"position": "straitsx:999"}, InvalidRequest, "beyond the log"),
        ({"source": "nowhere"}, NotFound, "no source 'nowhere'"),
        ({"recorded_at": "2999-01-01T00:00:00Z"}, InvalidRequest, "in the future"),
        ({"effective_at": "tomorrow"}, InvalidRequest, "must be a time"),
    ):
        with pytest.raises(error, match=words):
            await exported(service, tmp_path / "x", params=params)
    with pytest.raises(InvalidRequest, match="--what entries"):
        await exported(service, tmp_path / "x", format="hledger", what="balances")
    await service.post_json("straitsx", payment(90))
    head = len(await answered(service, "events", source="straitsx"))
    with pytest.raises(NotCaughtUp, match=f"not reached straitsx:{head} yet"):
        await exported(service, tmp_path / "x", params={"position": f"straitsx:{head}"})
    dsn = "postgresql://nobody@127.0.0.1:1/nothing"
    request = export.ExportRequest("csv", "entries", str(tmp_path / "x"), {})
    with pytest.raises(DatabaseUnavailable):
        await export.write(dsn, request, exported_lists())
    assert os.listdir(tmp_path) == []


async def balances(service: Service, **params: Any) -> Balances:
    """Ask the API for its balances, under the names that the tools know; debits are positive."""
    found = {}
    for row in await answered(service, "balances", **params):
        sign = 1 if row["normal"] == "debit" else -1
        name = account(row["source"], row["account"])
        found[name, row["currency"]] = sign * Decimal(row["balance"])
    return {key: amount for key, amount in found.items() if amount}


@pytest.mark.parametrize("params", AS_OF)
async def test_beancount_accepts_the_journal_and_computes_our_balances(
    service: Service, tmp_path: Path, params: dict[str, str]
) -> None:
    loader = pytest.importorskip("beancount.loader", reason="beancount is not installed")
    from beancount.core import data, realization

    path = tmp_path / "journal.beancount"
    await exported(service, path, format="beancount", params=params, rows_max=5)
    entries, errors, _ = loader.load_file(str(path))
    assert errors == []
    found: Balances = {}
    for real in realization.iter_children(realization.realize(entries)):
        for position in real.balance:
            found[real.account, position.units.currency] = position.units.number
    assert found == await balances(service, **params)
    assert len(found) > 3
    checked = [entry for entry in entries if isinstance(entry, data.Balance)]
    assert len(checked) == len(await answered(service, "balances", **params))
    written = [entry for entry in entries if isinstance(entry, data.Transaction)]
    positions = {int(each.meta["position"].partition(":")[2]) for each in written}
    assert positions == {row["position"] for row in await answered(service, "entries", **params)}
    assert all(each.links for each in written)


async def test_a_journal_of_nothing_is_a_journal(service: Service, tmp_path: Path) -> None:
    loader = pytest.importorskip("beancount.loader", reason="beancount is not installed")
    params = {"position": "straitsx:0,gokart:0"}
    data = await exported(service, tmp_path / "x", format="beancount", params=params)
    assert loader.load_string(data.decode())[:2] == ([], [])
    data = await exported(service, tmp_path / "x", format="hledger", params=params)
    assert read_hledger(data.decode()) == {}


async def test_beancount_finds_a_changed_amount_in_its_journal(
    service: Service, tmp_path: Path
) -> None:
    loader = pytest.importorskip("beancount.loader", reason="beancount is not installed")
    path = tmp_path / "journal.beancount"
    text = (await exported(service, path, format="beancount")).decode()
    lines = text.split("\n")
    place = next(n for n, line in enumerate(lines) if " balance " in line)
    lines[place] = re.sub(r"  (-?)(\d)", r"  \g<1>9\2", lines[place])
    path.write_text("\n".join(lines))
    _, errors, _ = loader.load_file(str(path))
    assert ["Balance failed" in error.message for error in errors] == [True]


POSTING = re.compile(r'    ([A-Z][A-Za-z0-9:-]*)    (-?\d+(?:\.\d+)?) ("?)([A-Z0-9]+)\3(?: = .*)?')
DIRECTIVE = re.compile(r'account [A-Z][A-Za-z0-9:-]*|commodity ("?)[A-Z0-9]+\1')
HEADER = re.compile(r"\d{4}-\d\d-\d\d \* (\([a-z0-9_-]+:\d+\) [^;]+  ; [^\n]+|balance)")


def read_hledger(text: str) -> Balances:
    """Read a journal by the rules of the format that it uses, apart from the code that made it."""
    comment, directive, empty, *lines = text.split("\n")
    assert comment.startswith("; callback-ledger, true at ")
    assert (directive, empty, lines[-1]) == ("decimal-mark .", "", "")
    sums: Balances = {}
    declared: set[str] = set()
    blocks = "\n".join(lines).strip("\n")
    for block in blocks.split("\n\n") if blocks else ():
        header, *postings = block.split("\n")
        if DIRECTIVE.fullmatch(header):
            declared.update(header for header in block.split("\n") if DIRECTIVE.fullmatch(header))
            continue
        assert HEADER.fullmatch(header), header
        rest: dict[str, Decimal] = {}
        for line in postings:
            found = POSTING.fullmatch(line)
            assert found, line
            name, amount, currency = found[1], Decimal(found[2]), found[4]
            assert {f"account {name}", f"commodity {found[3]}{currency}{found[3]}"} <= declared
            sums[name, currency] = sums.get((name, currency), Decimal(0)) + amount
            rest[currency] = rest.get(currency, Decimal(0)) + amount
        assert not any(rest.values()), block
    return {key: amount for key, amount in sums.items() if amount}


@pytest.mark.parametrize("params", AS_OF)
async def test_the_hledger_journal_holds_our_balances_and_every_entry_balances(
    service: Service, tmp_path: Path, params: dict[str, str]
) -> None:
    data = await exported(service, tmp_path / "x.journal", format="hledger", params=params)
    assert read_hledger(data.decode()) == await balances(service, **params)


HLEDGER = shutil.which("hledger")


def hledger(path: Path, *arguments: str) -> str:
    """Run hledger on a journal; it must accept it."""
    done = subprocess.run(
        [str(HLEDGER), "-f", str(path), *arguments], capture_output=True, text=True, check=False,
        env={"LANG": "C.UTF-8", "HOME": str(path.parent)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(HLEDGER is None, reason="hledger is not installed; its format is read above")
@pytest.mark.parametrize("params", AS_OF)
async def test_hledger_itself_accepts_the_journal_and_computes_our_balances(
    service: Service, tmp_path: Path, params: dict[str, str]
) -> None:
    path = tmp_path / "x.journal"
    await exported(service, path, format="hledger", params=params)
    layout = ("--flat", "--no-total", "--layout=tidy", "--output-format=csv")
    found = {
        (row["account"], row["commodity"]): Decimal(row["value"])
        for row in csv.DictReader(io.StringIO(hledger(path, "balance", *layout)))
        if row["commodity"] and Decimal(row["value"])
    }
    assert found == await balances(service, **params)
    assert hledger(path, "check", "--strict") == ""
