"""What is dated where nothing can have happened is kept and named, and stops nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ledger.database import conditions
from ledger.doctor import database as doctor_database
from ledger.model import changed
from ledger.reconciliation.runner import FAILED, Reconciler
from ledger.statements.model import Reading
from ledger.statements.reader import read_statement
from ledger.terminal.progress import Progress
from ledger.verify.database import Verification, VerifyOptions
from tests.asking import Json, Service, payment, serving
from tests.conftest import Database, eventually
from tests.dumps import differences, dump, fold_from_zero
from tests.statements import (
    JANUARY,
    append_statement,
    post_statement,
    refused_statement,
    row,
    statement,
)

NOON = "2026-01-10T12:00:00Z"


@pytest.fixture
async def service(database: Database) -> AsyncIterator[Service]:
    async with serving(database) as running:
        yield running


def customer(status: str, at: str | None) -> Json:
    return {
        "data": {
            "id": "cust-1",
            "type": "customer_profile",
            "attributes": {"verificationStatus": status, "updatedAt": at},
        }
    }


def in_(**more: float) -> str:
    return (datetime.now(UTC) + timedelta(**more)).isoformat()


async def reasons(service: Service) -> list[tuple[str, str]]:
    found = (await service.ask("/v1/exceptions"))["exceptions"]
    return [(each["reason"], each["detail"]) for each in found]


@pytest.mark.parametrize(
    "moment",
    ["9999-12-31T23:59:59Z", "1969-12-31T23:59:59Z", in_(days=1, hours=1), in_(days=900)],
    ids=["9999", "1969", "in 25 hours", "in 900 days"],
)
async def test_a_time_that_cannot_be_is_listed_and_freezes_nothing(
    service: Service, moment: str
) -> None:
    await service.post_json("straitsx", customer("pending", NOON))
    await service.post_json("straitsx", customer("rejected", moment))
    await service.post_json("straitsx", payment(1, created_at=moment, updated_at=moment))
    await service.post_json("straitsx", customer("verified", "2026-02-01T00:00:00Z"))
    await service.fold()
    (found,) = (await service.ask("/v1/customers"))["customers"]
    assert found["verification_status"] == "verified"
    listed = await reasons(service)
    assert [reason for reason, _ in listed] == ["time_out_of_range"] * 2
    assert all("it is dated " in detail and " and arrived at " in detail for _, detail in listed)
    assert (await service.ask("/v1/transactions"))["transactions"] == []
    assert len((await service.ask("/v1/events"))["events"]) == 4
    again = await fold_from_zero(service.database.service_dsn, service.database.settings)
    async with service.database.service() as connection:
        one = await dump(connection, service.generation)
        assert differences(one, await dump(connection, again)) == {}


async def test_a_clock_that_is_hours_ahead_is_no_exception(service: Service) -> None:
    await service.post_json("straitsx", customer("verified", in_(hours=23)))
    await service.fold()
    assert await reasons(service) == []


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00Z", "0001-01-01T00:00:00+00:00"])
async def test_the_first_moment_of_year_1_is_no_date(service: Service, moment: str) -> None:
    await service.post_json("straitsx", customer("verified", moment))
    await service.post_json("straitsx", payment(1, created_at=NOON, updated_at=moment))
    await service.fold()
    assert await reasons(service) == []
    (found,) = (await service.ask("/v1/transactions"))["transactions"]
    assert found["effective_at"] == NOON
    (someone,) = (await service.ask("/v1/customers"))["customers"]
    assert someone["updated_at"][:4] == str(datetime.now(UTC).year)


@pytest.mark.parametrize(
    ("window", "message"),
    [
        (("0001-01-01T00:00:00Z", JANUARY[1]), "reaches to 0001-01-01T00:00:00+00:00, outside of"),
        (("1969-12-31T00:00:00Z", JANUARY[1]), "outside of 1970 to 2199"),
        ((JANUARY[0], "9999-12-31T00:00:00Z"), "outside of 1970 to 2199"),
        ((JANUARY[0], in_(days=1, hours=1)), "which is in the future"),
    ],
)
async def test_a_period_that_cannot_be_is_refused(
    service: Service, window: tuple[str, str], message: str
) -> None:
    body = statement([row("r1", "c1", "10", NOON)])
    status, stated = await refused_statement(service, body, window)
    assert (status, message in stated["detail"]) == (422, True), stated
    await post_statement(service, body, (JANUARY[0], in_(hours=23)))


@pytest.mark.parametrize("code", ["S$", "XSGD ", "A" * 500, "XSGD:X", "X", "1SGD", "XS\u00d6"])
async def test_a_currency_that_callbacks_cannot_name_is_refused(
    service: Service, code: str
) -> None:
    body = statement([row("r1", "c1", "10", NOON)])
    status, stated = await refused_statement(service, body, currency=code)
    assert (status, "is no currency code: a letter, then 1 to 11" in stated["detail"]) == (
        422, True,
    ), stated  # fmt: skip
    named = statement([row("r1", "c1", "10", NOON) | {"currency": code}])
    params = {"source": "straitsx", "from": JANUARY[0], "to": JANUARY[1]}
    async with service.client.post("/v1/statements", params=params, data=named) as answer:
        assert answer.status == 422, await answer.text()


async def plant(service: Service, currency: str) -> str:
    """Append a statement of a period that no arithmetic bears, as was once accepted."""
    body = statement([row("old", "c9", "1", NOON)])
    window = (datetime.fromisoformat(JANUARY[0]), datetime.fromisoformat(JANUARY[1]))
    read = read_statement(body, Reading(currency=currency, window=window))
    planted = changed(read, opened_at=datetime(1, 1, 1, tzinfo=UTC))
    await append_statement(service.database.service_dsn, "straitsx", planted)
    return planted.sha256


async def test_a_wallet_that_cannot_be_reconciled_stops_no_other_and_is_named(
    service: Service,
) -> None:
    sha256 = await plant(service, "AAA")
    await service.post_json("straitsx", payment(1, created_at=NOON, updated_at=NOON))
    for source in ("straitsx", "gokart"):
        body = statement([row("r1", "contract_0001", "10", NOON)])
        await post_statement(service, body, source=source)
    await service.fold()
    reconciler = Reconciler(service.database.service_dsn, service.database.settings)
    running = asyncio.create_task(reconciler.run())
    try:

        async def lasting() -> Any:
            async with service.database.service() as connection:
                return await conditions.current(connection)

        (found,) = await eventually(lasting)
        assert (found.source, found.name) == ("straitsx", FAILED)
        assert "AAA: OverflowError: date value out of range; withdraw the statement" in found.detail

        async def reconciled() -> Any:
            stated = (await service.ask("/v1/reconciliation"))["reconciliations"]
            return [(each["source"], each["currency"]) for each in stated] == [
                ("gokart", "XSGD"), ("straitsx", "XSGD"),
            ]  # fmt: skip

        await eventually(reconciled)
        warnings = (await service.ask("/v1/status"))["warnings"]
        assert any("straitsx: reconcile_failed for" in each for each in warnings)
        async with service.database.service() as connection:
            (check,) = await doctor_database.check_conditions(connection)
        assert "reconcile_failed" in str(check)
        # What is withdrawn ends it.
        path = f"/v1/statements/straitsx/{sha256}/withdraw"
        async with service.client.post(path, json={"by": "ann", "note": "slip"}) as answer:
            assert answer.status == 200, await answer.text()
        await service.fold()

        async def over() -> bool:
            return await lasting() == []

        await eventually(over, 40)
    finally:
        running.cancel()
        await asyncio.wait([running])


async def test_verify_names_a_wallet_that_cannot_be_reconciled(service: Service) -> None:
    await plant(service, "AAA")
    await service.fold()
    found = await Verification(
        service.database.settings, VerifyOptions(), Progress(quiet=True)
    ).examine()
    (stated,) = [each for each in found if each.name == "reconciliation"]
    assert stated.outcome == "INCOMPLETE"
    assert "AAA: cannot be reconciled: OverflowError" in stated.message
