"""What is planned once per session is planned well, even when its tables are still empty."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ledger import registry
from ledger.books import balance_index, table_sql
from ledger.books.findings import REFRESH
from ledger.books.fold_connections import KEPT_PLANS
from ledger.books.generations import create_generation, use_generation
from ledger.database import connection as db
from tests.conftest import Database

UPDATED = [
    name
    for name, sql in table_sql.tables(registry.load()).items()
    if sql.table.hashed and "state" in sql.columns
]


def scans(plan: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the nodes of a plan that read tables."""
    own = [plan] if "Relation Name" in plan and "Scan" in plan["Node Type"] else []
    return own + [node for part in plan.get("Plans", []) for node in scans(part)]


@pytest.mark.parametrize("grown", [False, True], ids=["empty", "grown"])
async def test_updates_find_rows_by_their_whole_key(database: Database, grown: bool) -> None:
    known = table_sql.tables(registry.load())
    async with db.connected(database.service_dsn, seconds_max=60, **KEPT_PLANS) as connection:
        number = await create_generation(connection, registry.load(), "plans", "live")
        await use_generation(connection, number)
        for name in UPDATED:
            sql = known[name]
            if grown:
                await connection.execute(
                    f"INSERT INTO {name} (source, kind, id, first_position, position, state) "
                    "SELECT 'straitsx', 'payment', n, n, n, '' FROM generate_series(1, 2000) AS n"
                )
                await connection.execute(f"ANALYZE {name}")
            await connection.execute(f"PREPARE {name}_update AS {sql.update}")
            values = ", ".join(["'{}'"] * sql.width)
            reported = await connection.fetchval(
                f"EXPLAIN (FORMAT json) EXECUTE {name}_update ({values})"
            )
            (scan,) = scans(json.loads(reported)[0]["Plan"])
            assert scan["Node Type"] == "Index Scan", name
            assert "hashtextextended(t.id" in scan["Index Cond"].replace("(id", "(t.id"), scan


@pytest.mark.parametrize("grown", [False, True], ids=["empty", "grown"])
async def test_spans_are_summed_by_indexes_alone(database: Database, grown: bool) -> None:
    """What 100 accounts had before was once looked for among all lines, a hundred times."""
    async with balance_index.connected(database.service_dsn, seconds_max=60) as connection:
        number = await create_generation(connection, registry.load(), "plans", "live")
        await use_generation(connection, number)
        if grown:
            await connection.execute(
                "INSERT INTO entries (source, position, line, kind, transaction, account, currency,"
                " amount, effective_at, recorded_at, debits) SELECT 'straitsx', n, 1, 'payment', n,"
                " n % 100, 'XSGD', 1, now(), now(), 1 FROM generate_series(1, 20000) AS n"
            )
            await connection.execute("ANALYZE entries")
        await connection.execute(f"PREPARE summed AS {balance_index.INSERT_BLOCK}")
        await connection.execute(f"PREPARE earlier AS {balance_index.INSERT_EARLIER_BLOCKS}")
        for asked, looks in (
            ("summed ('straitsx', 4096, 8192, 32, 1)", 2),
            ("earlier ('straitsx', '{a,b}', '{XSGD,USD}', 4096, 4096)", 1),
        ):
            reported = await connection.fetchval(f"EXPLAIN (FORMAT json) EXECUTE {asked}")
            found = [
                scan for scan in scans(json.loads(reported)[0]["Plan"])
                if scan["Relation Name"] == "entries"
            ]  # fmt: skip
            assert [scan["Node Type"] for scan in found] == ["Index Scan"] * looks, asked
            assert sum("hashtext(" in scan["Index Cond"] for scan in found) == 1, asked


@pytest.mark.parametrize("grown", [False, True], ids=["empty", "grown"])
async def test_what_is_kept_about_customers_is_found_by_indexes_alone(
    database: Database, grown: bool
) -> None:
    async with db.connected(database.service_dsn, seconds_max=60, **KEPT_PLANS) as connection:
        number = await create_generation(connection, registry.load(), "plans", "live")
        await use_generation(connection, number)
        if grown:
            for table, values in (
                ("transactions", "'payment', n, n, n, ''"),
                ("customers", "'customer', n, n, n, ''"),
                ("limits", "'limits', n, n, n, ''"),
            ):
                await connection.execute(
                    f"INSERT INTO {table} (source, kind, id, first_position, position, state) "
                    f"SELECT 'straitsx', {values} FROM generate_series(1, 2000) AS n"
                )
                await connection.execute(f"ANALYZE {table}")
        await connection.execute(f"PREPARE kept AS {REFRESH}")
        reported = await connection.fetchval(
            "EXPLAIN (FORMAT json) EXECUTE kept ('straitsx', '{a}', '{b}', '{c}', '{1}')"
        )
        found = {
            (scan["Relation Name"], scan["Node Type"]): scan["Index Cond"]
            for scan in scans(json.loads(reported)[0]["Plan"]) if "Index Cond" in scan
        }  # fmt: skip
        expected = {
            "transactions": ("hashtextextended(", "effective_at >="),
            "customers": ("hashtextextended(",), "balances": ("source", "account"),
            "limits": ("hashtextextended(",), "findings": ("hashtextextended(",),
        }  # fmt: skip
        for table, terms in expected.items():
            condition = found[table, "Index Scan"]
            assert all(term in condition for term in terms), (table, condition)
