"""Law: as of every position, each table's rows are those that it had when the books stood there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from functools import partial
from random import Random
from typing import Any

import orjson
import pytest

from ledger.queries.as_of import snapshot as reads_as_of
from ledger.queries.views import table_lists
from ledger.simulator.simulate import STRAITSX, SimulatedCallback
from tests import statements
from tests.asking import Service, payment, serving
from tests.conftest import Database
from tests.every_position import EveryPosition, Step, decide

CUSTOMERS = ("customer_profile_a", "customer_profile_b", "customer_profile_c")


def callback(event: str, body: dict[str, Any]) -> SimulatedCallback:
    """Return a callback of StraitsX."""
    return SimulatedCallback(STRAITSX, event, orjson.dumps(body))


def bank_account(rng: Random, id_: int, day: int) -> SimulatedCallback:
    """Report a bank account, which any customer may have by now, or none."""
    return callback("cpbaVerificationStatusUpdated", {
        "id": id_, "account_no": f"88{id_}", "bank_abbrev": "BCA",
        "disabled": rng.choice([True, False]),
        "verification_status": rng.choice(["pending", "verified", "rejected", "lost"]),
        "customer_profile_id": rng.choice([*CUSTOMERS, None]),
        "updated_at": f"2026-01-{day:02}T00:00:00Z",
    })  # fmt: skip


def virtual_account(rng: Random, id_: int, day: int) -> SimulatedCallback:
    """Report a virtual account."""
    return callback("virtualAccountStatusUpdated", {"data": {
        "id": f"virtual_account_{id_}", "type": "virtual_bank_account", "attributes": {
            "referenceId": f"ref {id_}", "currency": "USD",
            "status": rng.choice(["pending", "enabled", "disabled", "lost"]),
            "customerProfileId": rng.choice([*CUSTOMERS, None]),
            "instructions": {"accountNo": f"77{id_}", "bankName": rng.choice(["DBS", "OCBC"])},
            "createdAt": f"2026-01-{day:02}T00:00:00Z",
    }}})  # fmt: skip


def limits(rng: Random, id_: int, _: int) -> SimulatedCallback:
    """Report limits: several customers have some of the same id."""
    period = rng.choice(["Annual", "Daily"])
    total = rng.randrange(1_000, 9_000)
    return callback("cpTxnLimitsUpdated", {"data": {
        "id": f"limit_{id_}", "type": "transactionLimits", "attributes": {
            "customerProfileId": rng.choice([*CUSTOMERS, None]),
            f"total{period}PaymentLimit": total,
            f"available{period}PaymentLimit": total - rng.randrange(1_000),
            "transactionSizeLimit": rng.choice([None, 5]),
    }}})  # fmt: skip


def limits_request(rng: Random, id_: int, day: int) -> SimulatedCallback:
    """Report a request for higher limits, which may end twice."""
    return callback("cpTxnLimitsUpdateRequestStatusUpdated", {"data": {
        "id": f"limit_request_{id_}", "type": "transactionLimitsUpdateRequest", "attributes": {
            "status": rng.choice(["pending", "approved", "rejected"]),
            "customerProfileId": rng.choice([*CUSTOMERS, None]),
            "createdAt": "2026-01-01T00:00:00Z", "updatedAt": f"2026-01-{day:02}T00:00:00Z",
    }}})  # fmt: skip


def rfi(rng: Random, id_: int, day: int) -> SimulatedCallback:
    """Report a request for information."""
    return callback("cpRfiStatusUpdated", {
        "id": f"rfi_{id_}", "type": "rfiRequest", "customerProfileId": rng.choice(CUSTOMERS),
        "attributes": {"activeRfRequest": {
            "createdAt": "2026-01-01T00:00:00Z", "expiryDate": f"2026-02-{day:02}T00:00:00Z",
            "status": rng.choice(["sent", "received", "expired", "completed"]),
            "rfQuestions": [], "rfProgressSummary": {"acceptedQuestions": day},
            "totalQuestions": 1,
        }}})  # fmt: skip


def customer(rng: Random, id_: int, day: int) -> SimulatedCallback:
    """Report a customer."""
    return callback("cpVerificationStatusUpdated", {"data": {
        "id": CUSTOMERS[id_ % len(CUSTOMERS)], "type": "customer_profile", "attributes": {
            "registrationType": "personal",
            "verificationStatus": rng.choice(["pending", "verified", "rejected"]),
            "createdAt": "2026-01-01T00:00:00Z", "updatedAt": f"2026-01-{day:02}T00:00:00Z",
    }}})  # fmt: skip


KINDS = (bank_account, virtual_account, limits, limits_request, rfi, customer)


def stories_of_people(rng: Random, count: int) -> list[Step]:
    """Make up callbacks about a few streams of every kind, with decisions between them."""
    steps: list[Step] = []
    for n in range(count):
        make = KINDS[n % len(KINDS)]
        steps.append(make(rng, rng.randrange(1, 4), rng.randrange(1, 28)))
        if n % 9 == 8:
            steps.append(partial(decide, rng=rng))
    return steps


@pytest.fixture
async def service(database: Database) -> AsyncIterator[Service]:
    async with serving(database) as running:
        yield running


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", [1, 2])
async def test_tables_of_people_are_as_of_every_position_what_they_were(
    service: Service, seed: int
) -> None:
    rng = Random(seed)
    positions = EveryPosition(service, customers=CUSTOMERS, with_transactions=False)
    await positions.play(stories_of_people(rng, 48))
    assert len(positions.recorded) > 40
    await positions.check()
    await positions.check_filters(rng, 150)


async def write_off(service: Service, action: str = "write_off") -> None:
    """Decide on the first break that there is."""
    await statements.reconcile(service)
    breaks = (await service.ask("/v1/breaks"))["breaks"]
    await statements.decide(service, breaks[0]["id"], action)


async def close_month(service: Service) -> None:
    """Close January with whatever is open in it."""
    await statements.reconcile(service)
    breaks = (await service.ask("/v1/breaks", state="OPEN"))["breaks"]
    accept = [each["id"] for each in breaks if each["type"] != "TIMING"]
    body = {"period": "2026-01", "by": "ann", "accept": accept}
    async with service.client.post("/v1/reconciliation/closes", json=body) as answer:
        assert answer.status == 200, await answer.text()


async def reopen_month(service: Service) -> None:
    """Reopen January."""
    path, body = "/v1/reconciliation/closes/2026-01/reopen", {"by": "bob", "note": "late"}
    async with service.client.post(path, json=body) as answer:
        assert answer.status == 200, await answer.text()


async def test_statements_and_decisions_on_breaks_are_what_they_were(service: Service) -> None:
    first = statements.row("s1", "contract_0001", "9.5", "2026-01-01T00:00:01Z")
    second = statements.row("s2", "contract_0002", "7", "2026-01-02T00:00:00Z")
    more = statements.row("s3", "nobody", "3", "2026-01-03T00:00:00Z")

    def imported(*rows: dict[str, Any]) -> Step:
        return lambda each: statements.post_statement(each, statements.statement(list(rows)))

    names = (
        "statements", "statement_lines", "adjustments", "closes", "entries", "balances",
        "exceptions",
    )  # fmt: skip
    positions = EveryPosition(
        service, lists=[f"/v1/views/{name}" for name in names], with_transactions=False
    )
    await positions.play(
        [
            callback("paymentStatusUpdated", payment(1)),
            imported(first),
            imported(first, second),
            write_off,
            imported(first, second, more),
            partial(write_off, action="reopen"),
            close_month,
            callback("paymentStatusUpdated", payment(2)),
            reopen_month,
            close_month,
        ]
    )
    assert len(positions.recorded) == 11
    rows = positions.recorded[-1][1]
    assert [len(rows[f"/v1/views/{name}"]["rows"]) for name in names[:4]] == [3, 3, 1, 1]
    await positions.check()
    await positions.check_filters(Random(1), 60)


async def answer_text(service: Service, path: str, **params: Any) -> bytes:
    """Return the bytes of a page's rows."""
    async with service.client.get(path, params=params) as response:
        assert response.status == 200, await response.text()
        text = await response.read()
    return text[: text.index(b'"next"')]


async def test_rows_of_then_have_the_same_bytes_as_rows_of_now(service: Service) -> None:
    await service.post_samples("straitsx")
    await service.post_samples("gokart")
    await service.fold()
    place = (await service.ask("/v1/status"))["position"]
    position = ",".join(f"{source}:{at}" for source, at in place.items())
    for name in table_lists():
        path = f"/v1/views/{name}"
        then = await answer_text(service, path, limit=1000, position=position)
        assert then == await answer_text(service, path, limit=1000), name


async def test_a_filter_finds_rows_that_had_the_value_and_have_another_now(
    service: Service,
) -> None:
    rng = Random(7)
    first, second = bank_account(rng, 1, 1), bank_account(rng, 1, 2)
    one = orjson.loads(first.body) | {"verification_status": "pending"}
    other = orjson.loads(second.body) | {"verification_status": "verified"}
    await service.post_json("straitsx", one | {"customer_profile_id": "a"})
    await service.post_json("straitsx", other | {"customer_profile_id": "b"})
    await service.fold()

    async def found(path: str, **params: Any) -> list[str]:
        answer = await service.ask(path, source="straitsx", **params)
        rows = answer["rows" if "views" in path else "bank_accounts"]
        return [f"{row['customer_id']} {row['verification_status']}" for row in rows]

    for path in ("/v1/views/bank_accounts", "/v1/bank_accounts"):
        assert await found(path, verification_status="pending") == []
        assert await found(path, verification_status="pending", position=1) == ["a pending"]
        assert await found(path, verification_status="verified", position=1) == []
        dated = {"verification_status": "pending", "effective_at": "2026-01-01T12:00:00Z"}
        assert await found(path, **dated) == ["a pending"]
        assert await found(path, **dated, position=0) == []
    assert await found("/v1/bank_accounts", customer_id="a") == []
    assert await found("/v1/bank_accounts", customer_id="a", position=1) == ["a pending"]
    assert await found("/v1/bank_accounts", customer_id="b", position=1) == []
    detail = await service.ask("/v1/customers/straitsx/a", position=1)
    assert [row["verification_status"] for row in detail["bank_accounts"]] == ["pending"]
    status, _ = await service.refused("/v1/customers/straitsx/a")
    assert status == 404


async def test_limits_are_dated_by_when_they_were_received(service: Service) -> None:
    await service.post("straitsx", limits(Random(1), 1, 1).body)
    await service.fold()
    received = (await service.ask("/v1/events/straitsx/1"))["received_at"]
    before = (datetime.fromisoformat(received) - timedelta(microseconds=1)).isoformat()
    for path, name in (("/v1/views/limits", "rows"), ("/v1/limits", "limits")):
        assert (await service.ask(path, effective_at=before))[name] == []
        (row,) = (await service.ask(path, effective_at=received))[name]
        assert row == (await service.ask(path))[name][0]


async def test_a_page_of_a_view_reads_a_bounded_number_of_streams(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reads_as_of, "STREAMS_AT_ONCE", 2)
    monkeypatch.setattr(reads_as_of, "LOOKED_AT_MAX", 4)
    for number in range(1, 10):
        await service.post("straitsx", limits_request(Random(number), number % 3 + 1, 1).body)
        await service.post("straitsx", rfi(Random(number), number, 1).body)
    await service.fold()
    pages = await service.pages("/v1/views/rfi", "rows", source="straitsx", position=2)
    assert [[row["id"] for row in page] for page in pages] == [["rfi_1"], [], []]
    status, found = await service.refused("/v1/views/rfi", source="straitsx", position=99)
    assert (status, "beyond the log" in found["detail"]) == (400, True)


async def test_what_a_view_cannot_know_is_refused_and_not_empty(service: Service) -> None:
    await service.post_samples("straitsx")
    await service.fold()
    moment = "2026-01-01T00:00:00Z"
    status, found = await service.refused("/v1/views/exceptions", effective_at=moment)
    assert (status, found["detail"]) == (
        400,
        "the rows of exceptions are not dated by the provider: use recorded_at or position",
    )
    opened = (await service.ask("/v1/views/exceptions"))["rows"]
    first = min(row["position"] for row in opened)
    then = await service.ask("/v1/views/exceptions", source="straitsx", position=first)
    assert then["rows"] == [row for row in opened if row["position"] <= first]
    assert then["as_of"]["position"] == {"straitsx": first}


async def test_views_of_money_are_dated_as_the_lists_are(service: Service) -> None:
    await service.post_samples("straitsx")
    await service.fold()
    lines = (await service.ask("/v1/entries", limit=1000))["entries"]
    for moment in sorted({line["effective_at"] for line in lines})[::3]:
        for name in ("entries", "balances"):
            listed = (await service.ask(f"/v1/{name}", limit=1000, effective_at=moment))[name]
            view = await service.ask(f"/v1/views/{name}", limit=1000, effective_at=moment)
            rows = [row for row in view["rows"] if _is_moved(row)]
            pairs = list(zip(rows, listed, strict=True))
            assert [(row, own) for row, own in pairs if not row.items() <= own.items()] == []


def _is_moved(row: dict[str, Any]) -> bool:
    """Return whether a row is a journal line, or a balance with anything in it."""
    return (row.get("debits"), row.get("credits")) != ("0", "0")
