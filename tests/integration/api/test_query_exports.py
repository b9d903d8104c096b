"""Law: an export over HTTP is the file that `ledger export` writes, or a problem document."""

from __future__ import annotations

import asyncio
import csv
import io
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from ledger.api.endpoints import EXPORTS_MAX, QUERY
from ledger.api.routes import exported_lists
from ledger.export.export import ExportRequest, write
from ledger.queries.snapshot import open_snapshot
from tests.asking import Json, Service, payment, payout, problem, serving
from tests.conftest import Database

TYPES = {
    "csv": "text/csv",
    "jsonl": "application/x-ndjson",
    "parquet": "application/vnd.apache.parquet",
}


@pytest.fixture
async def service(database: Database) -> AsyncIterator[Service]:
    async with serving(database) as running:
        await running.post_samples("straitsx")
        await running.post_samples("gokart")
        for number in range(1, 8):
            await running.post_json("straitsx", payment(number, customer_profile_id=f"c_{number}"))
        await running.post_json("straitsx", payout(20))
        await running.post("straitsx", b'{"broken')
        await running.fold()
        yield running


async def downloaded(service: Service, file: str, **params: str) -> bytes:
    async with service.client.get(f"/v1/exports/{file}", params=params) as response:
        assert response.status == 200, await response.text()
        return await response.read()


async def rows_of(service: Service, what: str, **params: str) -> list[Json]:
    data = await downloaded(service, f"{what}.jsonl", **params)
    return [orjson.loads(line) for line in data.splitlines()]


@pytest.mark.parametrize("form", TYPES)
async def test_every_export_is_the_file_that_the_command_writes(
    service: Service, tmp_path: Path, form: str
) -> None:
    if form == "parquet":
        pytest.importorskip("pyarrow", reason="the extra `analytics` is not installed")
    for what in exported_lists():
        path = tmp_path / f"{what}.{form}"
        request = ExportRequest(form, what, str(path), {})
        done = await write(service.database.service_dsn, request, exported_lists())
        async with service.client.get(f"/v1/exports/{what}.{form}") as response:
            assert response.status == 200, await response.text()
            assert await response.read() == await asyncio.to_thread(path.read_bytes), what
        headers = response.headers
        assert headers["Content-Type"] == TYPES[form]
        assert headers["Content-Disposition"] == f'attachment; filename="{what}.{form}"'
        places = ",".join(f"{source}:{place}" for source, place in done.position.items())
        assert headers["Ledger-Position"] == places
        assert headers["Ledger-Books"].startswith(f"{service.generation}/")
        assert headers["Cache-Control"] == "no-store"
        assert "Ledger-Warning" not in headers


FILTERS: list[tuple[str, dict[str, str]]] = [
    ("transactions", {"status": "completed", "currency": "xsgd"}),
    ("transactions", {"customer_id": "c_3"}),
    ("transactions", {"kind": "payment", "from": "2026-01-01T00:00:03Z"}),
    ("transactions", {"source": "straitsx", "position": "9"}),
    ("transactions", {"status": "completed,pending", "amount_min": "10", "sort": "effective_at"}),
    ("transactions", {"changed_after": "straitsx:9"}),
    ("entries", {"after": "straitsx:9", "account": "equity:merchant"}),
    ("entries", {"account": "liabilities:*", "effective_at": "2026-03-01T00:00:00Z"}),
    ("balances", {"customer_id": "c_3"}),
    ("balances", {"recorded_at": "2001-01-01T00:00:00Z"}),
    ("customers", {"verification_status": "verified"}),
]


@pytest.mark.parametrize(("what", "params"), FILTERS)
async def test_an_export_takes_the_filters_of_its_list(
    service: Service, what: str, params: dict[str, str]
) -> None:
    expected = await service.ask(f"/v1/{what}", limit=1000, **params)
    assert await rows_of(service, what, **params) == expected[what]
    assert expected[what] or "recorded_at" in params
    async with service.client.get(f"/v1/exports/{what}.csv", params=params) as response:
        listed = response.headers["Ledger-Position"]
    assert listed == ",".join(f"{s}:{p}" for s, p in expected["position"].items())


@pytest.mark.parametrize(
    "params", [{}, {"source": "straitsx"}, {"source": "straitsx", "position": "9"}]
)
async def test_a_view_takes_the_filters_of_its_list(
    service: Service, params: dict[str, str]
) -> None:
    for view in ("limits", "bank_accounts", "exceptions"):
        expected = await service.ask(f"/v1/views/{view}", limit=1000, **params)
        assert await rows_of(service, view, **params) == expected["rows"]
        assert expected["rows"] or params


@pytest.mark.parametrize(
    "params",
    [
        {"kind": "payment"},
        {"verdict": "quarantined"},
        {"source": "gokart"},
        {"status": "completed", "source": "straitsx"},
        {"resource_id": "contract_0003"},
        {"from": "2001-01-01T00:00:00Z"},
        {"to": "2001-01-01T00:00:00Z"},
        {"from": "2001-01-01T00:00:00Z", "to": "2999-01-01T00:00:00Z", "kind": "payout"},
    ],
)
async def test_events_take_the_filters_of_their_list(
    service: Service, params: dict[str, str]
) -> None:
    expected = await service.ask("/v1/events", limit=1000, **params)
    rows = await rows_of(service, "events", **params)
    assert sorted((row["source"], row["position"]) for row in rows) == sorted(
        (row["source"], row["position"]) for row in expected["events"]
    )
    assert rows or params == {"to": "2001-01-01T00:00:00Z"}


async def test_events_are_exported_as_of_a_position_but_not_of_the_providers_time(
    service: Service,
) -> None:
    rows = await rows_of(service, "events", position="straitsx:3,gokart:0")
    assert [(row["source"], row["position"]) for row in rows] == [
        ("straitsx", 1), ("straitsx", 2), ("straitsx", 3),
    ]  # fmt: skip
    at = "2026-01-01T00:00:00Z"
    status, found = await service.refused("/v1/exports/events.csv", effective_at=at)
    assert status == 400
    assert "not dated by the provider" in found["detail"]


async def test_what_is_refused_is_a_problem_document(service: Service) -> None:
    for path, params, status, words in (
        ("nothing.csv", {}, 404, "there is no /v1/exports/nothing.csv"),
        ("entries", {}, 404, "there is no /v1/exports/entries"),
        ("entries.xlsx", {}, 400, "the formats are: csv, jsonl, parquet"),
        ("entries.csv", {"status": "completed"}, 400, "unknown parameter 'status'"),
        ("entries.csv", {"limit": "5"}, 400, "unknown parameter 'limit'"),
        ("entries.csv", {"cursor": "x"}, 400, "unknown parameter 'cursor'"),
        ("transactions.csv", {"totals": "true"}, 400, "unknown parameter 'totals'"),
        ("entries.csv", {"from": "x"}, 400, "from must be a time"),
        ("entries.csv", {"source": "nowhere"}, 404, "no source 'nowhere'"),
        ("entries.csv", {"position": "straitsx:999"}, 400, "beyond the log"),
        ("transactions.jsonl", {"kind": "x"}, 400, "is no kind"),
        ("transactions.jsonl", {"status": "x"}, 400, "is no status"),
        ("limits.csv", {"id": "abc_1234"}, 400, "only together with kind"),
    ):
        code, found = await service.refused(f"/v1/exports/{path}", **params)
        assert (path, params, code) == (path, params, status), found
        assert words in found["detail"]
    async with service.client.post("/v1/exports/entries.csv") as response:
        assert (await problem(response))[0] == 405


async def test_an_export_waits_for_a_position(service: Service) -> None:
    position = await service.post_json("straitsx", payment(90))
    exporting = asyncio.create_task(
        rows_of(service, "entries", at_least=f"straitsx:{position}", source="straitsx")
    )
    await service.fold()
    assert (await exporting)[-1]["position"] == position


async def test_a_value_that_parquet_cannot_hold_is_refused_with_its_row(service: Service) -> None:
    pytest.importorskip("pyarrow", reason="the extra `analytics` is not installed")
    for number in (100, 101):
        await service.post_json("straitsx", payment(number, amount="9" * 20, fees="0"))
    await service.fold()
    status, found = await service.refused("/v1/exports/balances.parquet", source="straitsx")
    assert status == 400
    assert (
        "row 1 (source straitsx, account assets:wallet:available, currency XSGD)"
        in (found["detail"])
        or "account assets:wallet:available" in found["detail"]
    )
    assert "export csv or jsonl" in found["detail"]
    data = await downloaded(service, "balances.csv", source="straitsx")
    sums = [row["debits"] for row in csv.DictReader(io.StringIO(data.decode(), newline=""))]
    assert max(map(len, sums)) > 20


async def test_parquet_without_its_package_is_not_implemented(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    status, found = await service.refused("/v1/exports/entries.parquet")
    assert status == 501
    assert found["type"] == "urn:callback-ledger:problem:not-installed"
    assert "pip install" in found["detail"]


async def test_more_exports_than_there_may_be_are_asked_to_come_again(service: Service) -> None:
    app: Any = service.client.app
    for _ in range(EXPORTS_MAX):
        await app[QUERY].exports.acquire()
    async with service.client.get("/v1/exports/entries.csv") as response:
        status, _ = await problem(response)
        assert (status, response.headers["Retry-After"]) == (503, "1")
    app[QUERY].exports.release()
    assert await downloaded(service, "entries.csv")


async def test_head_answers_with_the_headers_alone(service: Service) -> None:
    async with service.client.head("/v1/exports/entries.csv") as response:
        assert response.status == 200
        assert response.headers["Content-Type"] == "text/csv"
        assert response.headers["Ledger-Position"]
        assert await response.read() == b""


async def test_all_pages_are_of_one_snapshot(service: Service) -> None:
    before = (await service.ask("/v1/entries", limit=1000))["entries"]
    async with service.database.service() as connection, open_snapshot(connection) as snapshot:
        rows: list[Any] = []
        async for page in exported_lists()["entries"].pages(snapshot, [], 7):
            if not rows:
                await service.post_json("straitsx", payment(91))
                await service.fold()
            rows += page
    assert rows == before
    assert len((await service.ask("/v1/entries", limit=1000))["entries"]) > len(before)
