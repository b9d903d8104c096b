"""Files as banks write them are imported by a profile: named, declared, or found by the header."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import openpyxl
import orjson
import pytest

from ledger.config.statement_profile import profile_of
from tests.asking import Service, problem, serving
from tests.conftest import Database

EXPORTS = Path(__file__).parents[2] / "unit/statements/exports"
OWN = profile_of({
    "effective_at": "Buchungstag", "amount": "Betrag", "decimal": ",", "time_format": "%d.%m.%Y",
    "time_zone": "Europe/Berlin", "names": ["Referenz"],
})  # fmt: skip
GERMAN = b"Buchungstag;Betrag;Referenz\n01.06.2026;1.234,50;R-1\n02.06.2026;-34,50;R-2\n"


@pytest.fixture
async def service(database: Database) -> AsyncIterator[Service]:
    sources = dict(database.settings.sources)
    sources["straitsx"] = replace(sources["straitsx"], statements={"mybank": OWN})
    async with serving(database, sources=sources) as running:
        yield running


async def post(service: Service, body: bytes, **params: str) -> tuple[int, dict[str, Any]]:
    stated = {"source": "straitsx"} | params
    async with service.client.post("/v1/statements", params=stated, data=body) as answer:
        if answer.status != 200:
            return await problem(answer)
        return answer.status, orjson.loads(await answer.read())


async def test_a_profile_of_the_source_is_named_or_found(service: Service) -> None:
    status, done = await post(service, GERMAN, currency="EUR", profile="mybank", dry_run="true")
    assert (status, done["new"], done["closing"]) == (200, 2, None)
    assert done["opened_at"] == "2026-05-31T22:00:00Z"
    status, found = await post(service, GERMAN, currency="EUR", dry_run="true")
    assert found["notes"][0].startswith("read by the profile mybank of the source")
    assert found["opened_at"] == done["opened_at"]


async def test_a_shipped_profile_is_named_or_found(service: Service) -> None:
    body = (EXPORTS / "uob.csv").read_bytes()
    for params in ({"profile": "uob"}, {}):
        status, done = await post(service, body, dry_run="true", **params)
        assert (status, done["new"], done["currency"]) == (200, 3, "SGD")
        assert (done["account"], done["opening"], done["closing"]) == (
            "3013308841", "4000", "5002.1"
        )  # fmt: skip


async def test_settings_of_the_request_win_over_the_profile(service: Service) -> None:
    columns = orjson.dumps({"time_zone": "UTC"}).decode()
    status, done = await post(
        service, GERMAN, currency="EUR", profile="mybank", columns=columns, dry_run="true"
    )
    assert (status, done["opened_at"]) == (200, "2026-06-01T00:00:00Z")


async def test_an_unknown_profile_is_a_wrong_request(service: Service) -> None:
    status, refusal = await post(service, GERMAN, currency="EUR", profile="nobank")
    assert status == 400
    assert "is no profile of straitsx; it is one of mybank, dbs" in refusal["detail"]


async def test_an_imported_table_keeps_its_names_and_fees(service: Service) -> None:
    status, done = await post(service, (EXPORTS / "wise.csv").read_bytes())
    assert (status, done["new"]) == (200, 4)
    await service.fold()
    lines = (await service.ask("/v1/statement_lines", currency="EUR"))["statement_lines"]
    assert {(each["row_kind"], each["amount"], each["provider_id"]) for each in lines} >= {
        ("", "-100", "TRANSFER-901"),
        ("Fee", "-1.2", "TRANSFER-901"),
    }
    assert {each["counterparty"] for each in lines} == {"Ode Ltd", "Cafe Uno", "Nils Berg"}


async def test_a_spreadsheet_is_imported(service: Service) -> None:
    book = openpyxl.Workbook()
    sheet = book.worksheets[0]
    for row in (("Buchungstag", "Betrag", "Referenz"), (date(2026, 6, 1), 12.5, "R-1")):
        sheet.append(row)
    file = io.BytesIO()
    book.save(file)
    status, done = await post(service, file.getvalue(), currency="EUR")
    assert (status, done["format"], done["new"]) == (200, "xlsx", 1)
