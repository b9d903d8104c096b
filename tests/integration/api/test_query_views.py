"""Law: every table that is listed can be paged and filtered; what is hidden is never shown."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from ledger.queries.views import table_lists
from tests.asking import Service, serving
from tests.conftest import Database

HIDDEN = {"state", "first_position", "used"}


@pytest.fixture
async def service(database: Database) -> AsyncIterator[Service]:
    async with serving(database) as running:
        await running.post_samples("straitsx")
        await running.post_samples("gokart")
        await running.fold()
        yield running


async def test_pages_of_every_view_put_together_are_the_whole_view(service: Service) -> None:
    for name in table_lists():
        whole = (await service.ask(f"/v1/views/{name}", limit=1000))["rows"]
        for limit in (1, 3):
            pages = await service.pages(f"/v1/views/{name}", "rows", limit=limit)
            assert [row for page in pages for row in page] == whole, (name, limit)


async def test_every_filter_finds_the_rows_that_have_the_value_and_no_others(
    service: Service,
) -> None:
    tried = 0
    for name, each in table_lists().items():
        rows = (await service.ask(f"/v1/views/{name}", limit=1000))["rows"]
        for column, filtered in each.filters.items():
            for row in [row for row in rows if row[column] is not None][:3]:
                given = {other: row[other] for other in (*filtered.needs, column)}
                expected = [r for r in rows if given.items() <= _comparable(r).items()]
                answer = await service.ask(f"/v1/views/{name}", **given)
                assert answer["rows"] == expected, (name, given)
                tried += 1
    assert tried > 20


def _comparable(row: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in row.items() if not isinstance(value, list | dict)}


async def test_a_view_states_what_the_list_of_its_own_states(service: Service) -> None:
    for name in ("transactions", "bank_accounts", "rfi", "limits", "entries", "balances"):
        own = {
            tuple(sorted((k, str(v)) for k, v in row.items() if k in ("id", "amount", "debits")))
            for row in (await service.ask(f"/v1/{name}", limit=1000))[name]
        }
        rows = (await service.ask(f"/v1/views/{name}", limit=1000))["rows"]
        if name == "limits":  # The view's id is of customer and id together.
            rows = [row | {"id": row["provider_id"]} for row in rows]
        view = {
            tuple(sorted((k, str(v)) for k, v in row.items() if k in ("id", "amount", "debits")))
            for row in rows
        }
        assert own
        assert own <= view, name


async def test_what_a_declaration_hides_is_in_no_answer(service: Service) -> None:
    described = (await service.ask("/v1/views"))["views"]
    assert {view["table"] for view in described} == set(table_lists())
    assert not {"history", "echoes", "statement_parts", "parked", "links"} & set(table_lists())
    for view in described:
        names = {column["name"] for column in view["columns"]}
        assert not HIDDEN & names
        for row in (await service.ask(f"/v1/views/{view['table']}"))["rows"]:
            assert set(row) == names
    assert "debits" not in (await service.ask("/v1/views/entries"))["rows"][0]


async def test_a_view_that_there_is_none_of_is_not_found(service: Service) -> None:
    for name in ("nothing", "history", "echoes", "checkpoints"):
        status, found = await service.refused(f"/v1/views/{name}")
        assert (status, found["type"]) == (404, "urn:callback-ledger:problem:not-found")


async def test_a_filter_that_no_index_serves_is_refused_and_states_what_it_goes_with(
    service: Service,
) -> None:
    status, found = await service.refused("/v1/views/rfi", id="x")
    assert (status, "together with kind" in found["detail"]) == (400, True)
    status, found = await service.refused("/v1/views/rfi", customer_id="x")
    assert (status, "unknown parameter 'customer_id'" in found["detail"]) == (400, True)
