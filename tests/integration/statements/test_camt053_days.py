"""Days of a camt.053, one a file, together in one file or in a zip, are the same lines."""

from __future__ import annotations

from datetime import UTC, datetime

import orjson
import pytest

from ledger.statements.importer import ImportResult, add_statement, exclusive_import
from ledger.statements.model import Reading
from ledger.statements.reader import read_statement
from tests.asking import problem, serving
from tests.camt053 import (
    IBAN,
    OTHER_IBAN,
    account,
    bal,
    document,
    entries,
    ntry,
    period,
    stmt,
    zipped,
)
from tests.conftest import Database

REF = "<AcctSvcrRef>000001</AcctSvcrRef>"


def stated(day: str) -> str:
    return period(f"2026-06-{day}T00:00:00", f"2026-06-{day}T23:59:59")


def midnights(day: str) -> str:
    return period(f"2026-06-{day}T00:00:00", f"2026-06-{day}T00:00:00")


def days(of_opening: tuple[str, str, str], code: str, with_period: bool, twice: bool) -> list[str]:
    """Return Friday, Monday and Tuesday; Monday has an entry of Friday and one of the weekend."""
    shown = midnights if twice else stated
    lines = {
        "05": [ntry("10", day="2026-06-05"), ntry("7", "DBIT", "2026-06-05", REF)],
        "08": [
            ntry("7", "DBIT", "2026-06-05", REF),
            ntry("3", "CRDT", "2026-06-06", REF),
            ntry("4", "CRDT", "2026-06-08", REF),
        ],
        "09": [ntry("5", "CRDT", "2026-06-09", REF), ntry("1", "CRDT", "2026-06-10", REF)],
    }
    balances = {"05": ("100", "103"), "08": ("103", "103"), "09": ("103", "109")}
    return [
        stmt(
            shown(day) if with_period else "",
            account(),
            bal(code, balances[day][0], f"2026-06-{before}"),
            bal("CLBD", balances[day][1], f"2026-06-{day}"),
            *parts,
            id_=f"S-{day}",
        )
        for (day, parts), before in zip(lines.items(), of_opening, strict=True)
    ]


SAME, BEFORE = ("05", "08", "09"), ("04", "05", "08")
PATTERNS = {
    "periods": days(SAME, "OPBD", True, False),
    "two midnights": days(SAME, "OPBD", True, True),
    "opening balance of the day": days(SAME, "OPBD", False, False),
    "opening balance of the day before": days(BEFORE, "OPBD", False, False),
    "previous closing balance": days(BEFORE, "PRCD", False, False),
}


async def imported(database: Database, body: str | bytes) -> ImportResult:
    """Import a file that may neither change nor withdraw a line of an earlier one."""
    raw = body.encode() if isinstance(body, str) else body
    statement = read_statement(raw, Reading())
    async with exclusive_import(database.service_dsn, "bank") as connection:
        return await add_statement(connection, "bank", statement, datetime.now(UTC))


async def unchanged(database: Database, body: str | bytes, count: int) -> None:
    done = await imported(database, body)
    assert (done.status, done.lines, done.new, done.changed, done.withdrawn) == (
        "accepted", count, 0, 0, 0,
    )  # fmt: skip


@pytest.mark.parametrize("name", PATTERNS)
async def test_days_in_any_order_then_all_of_them_are_the_same_lines(
    database: Database, name: str
) -> None:
    friday, monday, tuesday = PATTERNS[name]
    for day in (monday, friday, tuesday):
        count = len(entries(document(day)))
        done = await imported(database, document(day))
        assert (done.status, done.new, done.changed, done.withdrawn) == ("accepted", count, 0, 0)
    await unchanged(database, document(tuesday, friday, monday), 7)
    files = {f"{n}.xml": document(day) for n, day in enumerate(PATTERNS[name])}
    await unchanged(database, zipped(dict(files)), 7)


@pytest.mark.parametrize("name", PATTERNS)
async def test_a_day_after_all_of_them_changes_nothing(database: Database, name: str) -> None:
    files = {f"{n}.xml": document(day) for n, day in enumerate(PATTERNS[name])}
    done = await imported(database, zipped(dict(files)))
    assert (done.status, done.new) == ("accepted", 7)
    for day in PATTERNS[name]:
        await unchanged(database, document(day), len(entries(document(day))))


async def test_a_zip_is_imported_over_http_and_another_account_refused(database: Database) -> None:
    friday, monday, _ = PATTERNS["periods"]
    body = zipped({"mon.xml": document(monday), "fri.xml": document(friday)})
    async with serving(database) as service:
        asked = {"source": "straitsx", "dry_run": "true"}
        async with service.client.post("/v1/statements", params=asked, data=body) as answer:
            shown = orjson.loads(await answer.read())
            assert (answer.status, shown["new"], shown["account"]) == (200, 5, IBAN)
        asked["account"] = OTHER_IBAN
        async with service.client.post("/v1/statements", params=asked, data=body) as answer:
            status, refusal = await problem(answer)
        assert status == 422
        assert f"'mon.xml': the file is about {IBAN}, not {OTHER_IBAN}" in refusal["detail"]
