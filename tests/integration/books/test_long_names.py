"""Names as long as they may be: they go through log, books, rebuild and pack like short ones."""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson
import pytest

from ledger.books.generations import schema_of, use_generation
from ledger.errors import BooksDisagree, NotCaughtUp
from ledger.evidence.sealer import SourceSealer
from ledger.export import pack as export_pack
from ledger.export import pack_file as pack
from ledger.export.pack_file import PackReader
from ledger.payload import TEXT_MAX
from ledger.statements.model import Reading
from ledger.statements.reader import read_statement
from ledger.terminal.progress import Progress
from ledger.verify.outcome import overall
from ledger.verify.pack import PackCheck, PackOptions
from tests import samples
from tests.asking import Json, Service, payment, payout, serving
from tests.conftest import Database
from tests.evidence import with_key
from tests.statements import JANUARY, append_statement, row, statement

SOURCES = ("straitsx", "gokart", "straitsx.statements")
SELECT_KEYS = """
SELECT i.indexrelid::regclass::text AS name, i.indrelid::regclass::text AS table,
       array_agg(a.attname::text ORDER BY a.attnum) AS columns
  FROM pg_index AS i
  JOIN pg_class AS c ON c.oid = i.indrelid
  JOIN pg_namespace AS n ON n.oid = c.relnamespace
  JOIN pg_attribute AS a ON a.attrelid = i.indexrelid
 WHERE n.nspname IN ('ledger', $1) AND a.atttypid = 'text'::regtype
 GROUP BY 1, 2 ORDER BY 2, 1
"""
SHORT = frozenset(
    {"source", "kind", "currency", "action", "reason", "state", "name", "version", "id", "digest",
     "rule"}
)  # fmt: skip
"""Columns of a few characters, or of one identifier, by which most keys end."""


@pytest.fixture
async def service(database: Database, tmp_path: Path) -> AsyncIterator[Service]:
    settings = with_key(database, tmp_path / "data").settings
    async with serving(replace(database, settings=settings)) as running:
        yield running


def long_text(rng: random.Random) -> str:
    """Return a text that no compression shortens, of four bytes per character."""
    return "".join(chr(rng.randrange(0x20000, 0x2A6DF)) for _ in range(TEXT_MAX))


async def post_everything(service: Service, rng: random.Random) -> dict[str, str]:
    """Post one callback of every kind whose names are as long as they may be."""
    names = {
        what: long_text(rng)
        for what in ("payout", "idempotency", "payment", "customer", "swap", "account", "bank",
                     "limits", "request", "rfi", "conversion", "member", "line", "contract")
    }  # fmt: skip
    who = {"customer_profile_id": names["customer"]}
    await service.post_json(
        "straitsx",
        payout(1, id=names["payout"], idempotency_id=names["idempotency"], status="completed",
               **who),
    )  # fmt: skip
    await service.post_json(
        "straitsx", payment(2, id=names["payment"], idempotency_id=long_text(rng), **who)
    )
    for sample, changes, event in (
        ("straitsx/13-swap-completed", {"id": names["swap"], "idempotencyId": long_text(rng),
                                        "customerProfileId": names["customer"]}, None),
        ("straitsx/17-customer-personal", {"id": names["customer"]}, None),
        ("straitsx/12-virtual_account-enabled",
         {"id": names["account"], "referenceId": long_text(rng)}, None),
        ("straitsx/24-bank_account-verified", {"id": names["bank"]}, "ubaCreated"),
        ("straitsx/20-limits-daily",
         {"id": names["limits"], "customerProfileId": names["customer"]}, None),
        ("straitsx/21-limits_request-approved",
         {"id": names["request"], "customerProfileId": names["customer"]}, None),
        ("straitsx/25-rfi-sent",
         {"id": names["rfi"], "customerProfileId": names["customer"]}, None),
    ):  # fmt: skip
        await service.post("straitsx", changed(sample, changes), event)
    conversion = {"conversionId": names["conversion"], "pubMemberId": names["member"]}
    await service.post("gokart", changed("gokart/02-success", conversion))
    await service.post_json("straitsx", payout(3, status="s" * TEXT_MAX, id=long_text(rng)))
    await import_line(service, names)
    return names


def changed(sample: str, changes: dict[str, str]) -> bytes:
    """Return a sample with some fields changed, wherever they are."""
    left = dict(changes)

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            for key in node.keys() & left.keys():
                node[key] = left.pop(key)
            for child in node.values():
                walk(child)

    root = orjson.loads(samples.body(sample))
    walk(root)
    node = root.get("data", root)
    node.update(left)
    return orjson.dumps(root)


async def import_line(service: Service, names: dict[str, str]) -> None:
    stated = row(names["line"], names["payout"], "10", "2026-01-10T12:00:00Z")
    stated["idempotencyId"] = names["idempotency"]
    window = tuple(datetime.fromisoformat(each) for each in JANUARY)
    read = read_statement(
        statement([stated]),
        Reading(currency="XSGD", window=window),  # type: ignore[arg-type]
    )
    await append_statement(service.database.service_dsn, "straitsx", read)


async def seal(service: Service) -> None:
    async with service.database.service() as connection:
        for source in SOURCES:
            while await SourceSealer(source, service.database.settings).step(connection):
                pass


async def make_pack(service: Service, path: Path) -> Path:
    database = service.database
    expected = export_pack.PackRequest()
    await export_pack.write_file(
        database.settings, database.service_dsn, path, expected, quiet=True
    )
    return path


async def rebuilt(service: Service) -> tuple[int, Json, str]:
    """Run `ledger rebuild --verify-only`; return its status, its answer and its log."""
    settings = service.database.settings
    environ = {n: v for n, v in os.environ.items() if not n.startswith("LEDGER_")} | {
        "LEDGER_DATABASE_URL": service.database.service_dsn,
        "LEDGER_DATA_DIR": str(settings.data_dir),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "ledger", "rebuild", "--verify-only", "--json",
        env=environ, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, orjson.loads(out), err.decode()


async def test_the_longest_names_go_through_every_stage(service: Service, tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    names = await post_everything(service, random.Random(seed))
    await service.fold()
    status = {row["source"]: row for row in (await service.ask("/v1/status"))["sources"]}
    assert [(s, status[s]["lag_events"], status[s]["parked"]) for s in SOURCES] == [
        (source, 0, 0) for source in SOURCES
    ]
    for kind, amount in (("payout", "20"), ("payment", "10"), ("swap", "13304.95")):
        found = await service.ask(f"/v1/transactions/straitsx/{quote(names[kind], safe='')}")
        assert (found["kind"], found["amount"], found["status"]) == (kind, amount, "completed")
        assert len(found["entries"]) >= 2
    converted = quote(names["conversion"], safe="")
    assert (await service.ask(f"/v1/transactions/gokart/{converted}"))["status"] == "Success"
    person = await service.ask(f"/v1/customers/straitsx/{quote(names['customer'], safe='')}")
    assert [len(person[name]) for name in ("limits", "limit_requests", "rfi")] == [1, 1, 1]
    account = f"liabilities:customers:{names['customer']}"
    asked = await service.ask("/v1/balances", account=account, currency="XSGD")
    assert [each["account"] for each in asked["balances"]] == [account]
    same = await service.ask("/v1/transactions", idempotency_id=names["idempotency"])
    assert [each["id"] for each in same["transactions"]] == [names["payout"]]
    (line,) = (await service.ask("/v1/statement_lines", line=names["line"]))["statement_lines"]
    assert line["contract_id"] == names["payout"]

    code, reported, log = await rebuilt(service)
    assert (code, reported["verdict"], reported["differences"]) == (0, "equal", [])
    assert "bulk_rebuild_abandoned" not in log

    await seal(service)
    path = await make_pack(service, tmp_path / "pack.tar")
    with pack.open_pack(path) as file:
        checked = PackCheck(PackReader(file), PackOptions(), Progress(quiet=True)).examine()
    assert overall(checked) == "ok", checked


async def test_lists_of_the_longest_names_have_pages(service: Service) -> None:
    rng = random.Random(7)
    for number in range(1, 4):
        who = {"customer_profile_id": long_text(rng)}
        await service.post_json("straitsx", payment(number, id=long_text(rng), **who))
        stated = changed("straitsx/17-customer-personal", {"id": who["customer_profile_id"]})
        await service.post("straitsx", stated)
        await service.post_json("straitsx", payout(10 + number, id=long_text(rng)))
    await service.fold()
    for path, name in (
        ("/v1/transactions", "transactions"), ("/v1/customers", "customers"),
        ("/v1/balances", "balances"), ("/v1/entries", "entries"),
        ("/v1/exceptions", "exceptions"), ("/v1/reconciliation/findings", "findings"),
    ):  # fmt: skip
        whole = (await service.ask(path))[name]
        pages = await service.pages(path, name, limit=1)
        assert [each for page in pages for each in page] == whole, path
        assert whole, path


async def test_a_decision_on_a_finding_with_the_longest_name_is_understood(
    service: Service,
) -> None:
    limits = {
        "customerProfileId": long_text(random.Random(3)), "totalDailyPaymentLimit": 100,
        "availableDailyPaymentLimit": 40,
    }  # fmt: skip
    stated = {"id": "limits_1", "type": "transactionLimits", "attributes": limits}
    await service.post_json("straitsx", {"data": stated})
    await service.fold()
    (found,) = (await service.ask("/v1/exceptions"))["exceptions"]
    path = f"/v1/exceptions/{found['id']}/resolve"
    async with service.client.post(path, json={"action": "acknowledge"}) as answer:
        assert answer.status == 200, await answer.text()
    await service.fold()
    (after,) = (await service.ask("/v1/exceptions"))["exceptions"]
    assert (after["id"], after["state"]) == (found["id"], "resolved")


async def test_no_key_holds_two_texts_that_callbacks_choose(service: Service) -> None:
    """Two identifiers of 512 characters are longer than what an index can hold."""
    async with service.database.owner() as connection:
        rows = await connection.fetch(SELECT_KEYS, schema_of(service.generation))
    wide = [
        (row["name"], sorted(set(row["columns"]) - SHORT))
        for row in rows
        if len(set(row["columns"]) - (SHORT - {"id"})) > 1
    ]
    assert rows
    assert wide == []


async def test_no_pack_is_made_that_sets_other_events_apart_than_the_books(
    service: Service, tmp_path: Path
) -> None:
    await service.post_json("straitsx", payment(1))
    position = await service.post_json("straitsx", payout(2))
    await service.fold()
    await seal(service)
    await make_pack(service, tmp_path / "before.tar")
    async with service.database.owner() as connection:
        await use_generation(connection, service.generation)
        await connection.execute(
            "INSERT INTO parked VALUES ('straitsx', $1, 'payout', 'contract_0002', 'rows_refused')",
            position,
        )
    with pytest.raises(BooksDisagree, match=f"event {position} of straitsx is parked"):
        await make_pack(service, tmp_path / "pack.tar")
    assert not (tmp_path / "pack.tar").exists()


async def test_a_pack_waits_for_books_that_are_behind(service: Service, tmp_path: Path) -> None:
    await service.post_json("straitsx", payment(1))
    await seal(service)
    with pytest.raises(
        NotCaughtUp, match="the books of straitsx are at 0, the pack would end at 1"
    ):
        await make_pack(service, tmp_path / "pack.tar")
    await service.fold()
    await make_pack(service, tmp_path / "pack.tar")
