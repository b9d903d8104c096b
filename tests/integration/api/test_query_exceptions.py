"""Law: an exception shows its present state, and a decision on it is checked, then an event."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from ledger.books.findings import REFRESH_OPEN
from ledger.books.generations import use_generation
from ledger.eventlog.appender import APPEND, columns
from ledger.eventlog.identity import event_id
from ledger.eventlog.new_event import NewEvent
from tests import statements
from tests.asking import Json, Service, payout, problem, serving
from tests.conftest import Database


@pytest.fixture
async def service(database: Database) -> AsyncIterator[Service]:
    async with serving(database) as running:
        yield running


async def conflict(service: Service) -> Json:
    """Make a payout that is both completed and failed; return its exception."""
    await service.post_json("straitsx", payout(1, status="completed"))
    await service.post_json("straitsx", payout(1, status="failed"))
    await service.fold()
    (found,) = (await service.ask("/v1/exceptions"))["exceptions"]
    return dict(found)


async def resolve(service: Service, exception: str, **decision: Any) -> tuple[int, Json]:
    """Decide; return status and answer."""
    path = f"/v1/exceptions/{exception}/resolve"
    async with service.client.post(path, json=decision) as response:
        if response.status == 200:
            return 200, await response.json()
        return await problem(response)


async def test_a_conflict_is_listed_with_its_event(service: Service) -> None:
    found = await conflict(service)
    assert (found["reason"], found["kind"], found["resource_id"]) == (
        "conflict",
        "payout",
        "contract_0001",
    )
    assert (found["state"], found["closed_at"], found["note"]) == ("open", None, None)
    event = await service.ask("/v1/events/straitsx/2")
    assert found["event"] == {"position": 2, "event_id": event["event_id"]}
    assert found["opened_at"] == event["recorded_at"]


async def test_a_kept_event_settles_the_conflict(service: Service) -> None:
    found = await conflict(service)
    status, answer = await resolve(
        service, found["id"], action="keep", keep=1, note="bank confirmed", by="ana"
    )
    assert (status, answer["position"], answer["status"]) == (200, 3, "accepted")
    event = await service.ask("/v1/events/straitsx/3")
    assert (event["origin"], event["event_id"]) == ("operator", answer["event_id"])
    await service.fold()
    (after,) = (await service.ask("/v1/exceptions"))["exceptions"]
    assert after["state"] == "resolved"
    assert after["note"] == "ana: bank confirmed"
    assert after["closed_at"] == event["recorded_at"]
    (row,) = (await service.ask("/v1/transactions"))["transactions"]
    assert (row["status"], row["conflict"]) == ("completed", None)
    (wallet,) = (await service.ask("/v1/wallets"))["wallets"]
    assert (wallet["available"], wallet["held"]) == ("-21", "0")


async def test_an_acknowledged_exception_is_resolved_and_nothing_else_changes(
    service: Service,
) -> None:
    found = await conflict(service)
    before = await service.ask("/v1/balances")
    status, _ = await resolve(service, found["id"], action="acknowledge", note="seen")
    assert status == 200
    await service.fold()
    (after,) = (await service.ask("/v1/exceptions", state="resolved"))["exceptions"]
    assert (after["id"], after["note"]) == (found["id"], "seen")
    assert (await service.ask("/v1/exceptions", state="open"))["exceptions"] == []
    assert (await service.ask("/v1/balances"))["balances"] == before["balances"]


async def test_a_closed_exception_takes_no_decision(service: Service) -> None:
    found = await conflict(service)
    await resolve(service, found["id"], action="acknowledge")
    await service.fold()
    status, answer = await resolve(service, found["id"], action="acknowledge")
    assert status == 409
    assert answer["detail"] == f"exception {found['id']} is resolved already"


async def test_an_exception_that_is_none_is_not_found(service: Service) -> None:
    status, _ = await resolve(service, "0123456789abcdef", action="acknowledge")
    assert status == 404


async def test_a_decision_that_does_not_suit_appends_nothing(service: Service) -> None:
    found = await conflict(service)
    unsuitable: list[tuple[Json, str]] = [
        ({}, "action"),
        ({"action": "delete"}, "delete"),
        ({"action": "keep"}, "keep"),
        ({"action": "keep", "keep": 99}, "keep must be the position of one of its events: 1, 2"),
        ({"action": "keep", "keep": "1"}, "keep"),
        ({"action": "acknowledge", "keep": 1}, "keep"),
        ({"action": "retry"}, "retry"),
        ({"action": "acknowledge", "note": "x" * 401}, "note"),
        ({"action": "acknowledge", "by": "\x00"}, "by"),
        ({"action": "acknowledge", "colour": "red"}, "colour"),
    ]
    for decision, states in unsuitable:
        status, answer = await resolve(service, found["id"], **decision)
        assert (decision, status) == (decision, 400)
        assert states in answer["detail"]
    assert len((await service.ask("/v1/events"))["events"]) == 2


async def test_a_decision_that_cannot_be_read_is_refused(service: Service) -> None:
    found = await conflict(service)
    path = f"/v1/exceptions/{found['id']}/resolve"
    too_long = b'{"action":"acknowledge","note":"' + b"x" * 20_000 + b'"}'
    for body, content_type in (
        (b'{"action":"acknowledge"}', "text/plain"),
        (b"action=acknowledge", "application/x-www-form-urlencoded"),
        (b'{"action":', "application/json"),
        (b"\xff\xfe", "application/json"),
        (too_long, "application/json"),
    ):
        headers = {"Content-Type": content_type}
        async with service.client.post(path, data=body, headers=headers) as response:
            status, _ = await problem(response)
            assert (body[:20], status) == (body[:20], 400)


async def test_exceptions_are_filtered(service: Service) -> None:
    await conflict(service)
    await service.post("straitsx", b"not json")
    await service.post("gokart", b"not json either")
    await service.fold()

    async def reasons(**filters: str) -> list[str]:
        rows = (await service.ask("/v1/exceptions", **filters))["exceptions"]
        return [row["reason"] for row in rows]

    assert await reasons() == ["unreadable", "unreadable", "conflict"]
    assert await reasons(source="straitsx") == ["unreadable", "conflict"]
    assert await reasons(reason="conflict") == ["conflict"]
    assert await reasons(kind="payout") == ["conflict"]
    assert await reasons(state="cleared") == []
    sources = (await service.ask("/v1/status"))["sources"]
    assert {row["source"]: row["exceptions"] for row in sources} == {"gokart": 1, "straitsx": 2}


async def test_parked_events_are_counted_where_balances_are_given(service: Service) -> None:
    await service.post_json("straitsx", payout(1))
    await service.fold()
    await service.post_json("straitsx", payout(1, status="completed"))
    async with service.database.service() as connection:
        await use_generation(connection, service.generation)
        park = "INSERT INTO parked VALUES ('straitsx', 2, 'payout', 'contract_0001', 'a bug')"
        await connection.execute(park)
        await connection.execute("UPDATE checkpoints SET position = 2 WHERE source = 'straitsx'")
    assert (await service.ask("/v1/wallets"))["parked"] == 1
    assert (await service.ask("/v1/balances"))["parked"] == 1
    sources = (await service.ask("/v1/status"))["sources"]
    assert {row["source"]: row["parked"] for row in sources} == {"gokart": 0, "straitsx": 1}
    answer = await service.ask("/v1/transactions/straitsx/contract_0001")
    assert [step["position"] for step in answer["history"]] == [1]
    assert [event["position"] for event in answer["events"]] == [1, 2]


async def test_a_parked_stream_may_be_acknowledged(service: Service) -> None:
    await service.post_json("straitsx", payout(1))
    await service.fold()
    async with service.database.service() as connection:
        await use_generation(connection, service.generation)
        await connection.execute(
            "INSERT INTO exceptions VALUES ('straitsx', 'aaaa', 1, 'opened', 'parked', 'a bug', "
            "'payout', 'contract_0001', 'e', now(), NULL)"
        )
    status, answer = await resolve(service, "aaaa", action="acknowledge")
    assert (status, answer["position"]) == (200, 2)


async def test_an_exception_that_came_back_is_open_again(service: Service) -> None:
    await service.post("straitsx", b"not json")
    await service.fold()
    async with service.database.service() as connection:
        await use_generation(connection, service.generation)
        for position, action in ((1, "opened"), (2, "cleared"), (3, "opened")):
            await connection.execute(
                "INSERT INTO exceptions VALUES ('straitsx', 'aaaa', $1, $2, 'conflict', 'd', "
                "'payout', 'contract_0001', 'e', now(), NULL)",
                position,
                action,
            )
            await connection.execute(REFRESH_OPEN, "straitsx", ["aaaa"])
            opened = await connection.fetchval("SELECT count(*) FROM open_exceptions")
            assert opened == (1 if action == "cleared" else 2)
    (again,) = (await service.ask("/v1/exceptions", reason="conflict"))["exceptions"]
    assert (again["state"], again["event"]["position"], again["closed_at"]) == ("open", 3, None)
    opened = (await service.ask("/v1/exceptions", state="open"))["exceptions"]
    assert [row["reason"] for row in opened] == ["conflict", "unreadable"]
    sources = (await service.ask("/v1/status"))["sources"]
    assert {row["source"]: row["exceptions"] for row in sources} == {"gokart": 0, "straitsx": 2}


async def test_a_part_that_answers_alone_without_the_secret_appends_nothing(
    service: Service, database: Database
) -> None:
    """The parts that know a secret would take what it appends for forged."""
    found = await conflict(service)
    statement = {"source": "straitsx", "currency": "XSGD"}
    withdrawn = f"/v1/statements/straitsx/{'0' * 64}/withdraw"
    async with serving(database, make_books=False, role="query") as alone:
        status, stated = await resolve(alone, found["id"], action="acknowledge")
        assert (status, "LEDGER_SECRET_STRAITSX" in stated["detail"]) == (409, True)
        for path, options in (
            ("/v1/statements", {"params": statement, "data": b"[]"}),
            (withdrawn, {"json": {"by": "ana", "note": "mistaken"}}),
        ):
            async with alone.client.post(path, **options) as response:
                status, stated = await problem(response)
            assert (status, "LEDGER_SECRET_STRAITSX" in stated["detail"]) == (409, True), stated
    known = replace(database.settings.sources["straitsx"], secrets=("s" * 40,))
    async with serving(
        database, make_books=False, role="query", sources={"straitsx": known}
    ) as alone:
        assert (await resolve(alone, found["id"], action="acknowledge"))[0] == 200


async def test_an_exception_of_a_log_of_statements_is_decided_like_any_other(
    service: Service,
) -> None:
    await statements.post_statement(service, statements.statement([]))
    key = "straitsx.statements/unreadable///x"
    odd = NewEvent(
        event_id=event_id(key, b"{"), idempotency_key=key, kind="unreadable", resource_id="",
        status="", origin="statement", reason="invalid_json", detail="cut", body=b"{",
        received_at=datetime.now(UTC),
    )  # fmt: skip
    async with service.database.service() as connection:
        await connection.fetchrow(APPEND, "straitsx.statements", *columns([odd]))
    await service.fold()
    (found,) = (await service.ask("/v1/exceptions", source="straitsx.statements"))["exceptions"]
    status, answer = await resolve(
        service, found["id"], action="acknowledge", note="seen", by="ana"
    )
    assert (status, answer["status"]) == (200, "accepted"), answer
    await service.fold()
    (found,) = (await service.ask("/v1/exceptions", source="straitsx.statements"))["exceptions"]
    assert (found["state"], found["note"]) == ("resolved", "ana: seen")
