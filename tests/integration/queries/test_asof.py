"""Law: an earlier state is what counted then, whatever came late, and nothing is ever guessed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any

import pytest

from ledger import registry
from ledger.books.generations import use_generation
from ledger.model import Fact
from ledger.queries.as_of import snapshot as reads_asof
from tests.asking import Service, payment, payout, serving
from tests.conftest import Database
from tests.integration.queries.test_asof_oracle import stories
from tests.property.driver import GOKART, STRAITSX, stated

FAR = "2999-01-01T00:00:00Z"


@pytest.fixture
async def service(database: Database) -> AsyncIterator[Service]:
    async with serving(database) as running:
        yield running


def on(day: int) -> dict[str, str]:
    """Return the times of a callback of that day of January."""
    return {
        "created_at": f"2026-01-{day:02}T12:00:00Z",
        "updated_at": f"2026-01-{day:02}T12:00:00Z",
    }


async def available(service: Service, **as_of: Any) -> str:
    """Return what the one wallet had."""
    rows = (await service.ask("/v1/wallets", source="straitsx", **as_of))["wallets"]
    return str(rows[0]["available"]) if rows else "none"


async def test_a_late_callback_changes_what_was_and_not_what_was_known(service: Service) -> None:
    await service.post_json("straitsx", payment(1, amount="100", fees="0", **on(1)))
    await service.post_json("straitsx", payment(2, amount="50", fees="0", **on(5)))
    await service.fold()
    before = (await service.ask("/v1/events/straitsx/2"))["recorded_at"]
    await service.post_json("straitsx", payment(3, amount="10", fees="0", **on(3)))
    await service.fold()
    day_4 = "2026-01-04T00:00:00Z"
    assert await available(service, effective_at=day_4) == "110"
    assert await available(service, effective_at=day_4, position=2) == "100"
    assert await available(service, effective_at=day_4, recorded_at=before) == "100"
    assert await available(service) == "160"
    assert await available(service, position=2) == "150"
    assert await available(service, recorded_at=before) == "150"
    assert await available(service, recorded_at=before, position=1) == "100"
    assert await available(service, recorded_at=before, position=3) == "150"
    assert await available(service, effective_at="2025-12-31T00:00:00Z") == "none"


async def test_the_moment_itself_counts(service: Service) -> None:
    await service.post_json("straitsx", payment(1, amount="100", fees="0", **on(1)))
    await service.fold()
    recorded = (await service.ask("/v1/events/straitsx/1"))["recorded_at"]
    moment = datetime(2026, 1, 1, 12, tzinfo=UTC)
    assert await available(service, effective_at=moment.isoformat()) == "100"
    earlier = (moment - timedelta(microseconds=1)).isoformat()
    assert await available(service, effective_at=earlier) == "none"
    assert await available(service, recorded_at=recorded) == "100"
    before = datetime.fromisoformat(recorded) - timedelta(microseconds=1)
    assert await available(service, recorded_at=before.isoformat()) == "none"


async def test_an_answer_states_what_it_is_as_of(service: Service) -> None:
    for number in (1, 2):
        await service.post_json("straitsx", payment(number))
    await service.fold()
    params = {"position": "straitsx:1", "effective_at": "2026-02-01T08:00:00+08:00"}
    async with service.client.get("/v1/transactions", params=params) as response:
        answer = await response.json()
        assert response.headers["Ledger-Position"] == "gokart:0,straitsx:1"
    assert answer["position"] == {"gokart": 0, "straitsx": 1}
    assert answer["as_of"] == {
        "effective_at": "2026-02-01T00:00:00Z",
        "recorded_at": None,
        "position": {"gokart": 0, "straitsx": 1},
    }
    assert "as_of" not in await service.ask("/v1/transactions")


async def test_before_the_first_event_the_book_is_empty(service: Service) -> None:
    await service.post_samples("straitsx")
    await service.fold()
    for past in ({"position": "straitsx:0"}, {"recorded_at": "2001-01-01T00:00:00Z"},
                 {"effective_at": "2001-01-01T00:00:00Z"}):  # fmt: skip
        for name in ("wallets", "balances", "entries", "transactions", "customers"):
            answer = await service.ask(f"/v1/{name}", **past)
            assert (answer[name], answer["next"]) == ([], None)
        (row, *_) = (await service.ask("/v1/transactions"))["transactions"]
        alone = past | ({"position": "0"} if "position" in past else {})
        path = f"/v1/transactions/{row['source']}/{row['id']}"
        status, found = await service.refused(path, **alone)
        assert (status, "then" in found["detail"]) == (404, True)


async def test_what_is_beyond_the_log_or_the_present_is_refused(service: Service) -> None:
    await service.post_json("straitsx", payment(1))
    await service.fold()
    status, found = await service.refused("/v1/wallets", position="straitsx:2")
    assert (status, found["detail"]) == (
        400, "position 2 is beyond the log of straitsx: it ends at 1"
    )  # fmt: skip
    status, found = await service.refused("/v1/wallets", recorded_at=FAR)
    assert (status, found["detail"][:27]) == (400, "recorded_at is in the futur")
    assert await available(service, position=1) == "9.5"  # no other source has events
    await service.post_json("gokart", {})
    status, found = await service.refused("/v1/wallets", position=1)
    assert (status, "add source=" in found["detail"]) == (400, True)
    status, _ = await service.refused("/v1/wallets", position="nowhere:1")
    assert status == 404
    status, _ = await service.refused("/v1/wallets", position="gokart:0", source="straitsx")
    assert status == 400
    assert await available(service, effective_at=FAR) == "9.5"


async def test_what_the_books_do_not_have_yet_is_503_and_not_less(service: Service) -> None:
    await service.post_json("straitsx", payment(1))
    status, found = await service.refused("/v1/balances", position="straitsx:1")
    assert (status, "straitsx:1" in found["detail"]) == (503, True)


async def test_a_hold_is_remembered_as_known_and_not_as_dated(service: Service) -> None:
    await service.post_json("straitsx", payout(1, **on(1)))
    await service.post_json("straitsx", payout(1, status="completed", **on(3)))
    await service.fold()

    async def figures(**as_of: Any) -> list[tuple[str, str]]:
        rows = (await service.ask("/v1/wallets", source="straitsx", **as_of))["wallets"]
        return [(row["available"], row["held"]) for row in rows]

    day_2 = "2026-01-02T00:00:00Z"
    assert await figures(position=1) == [("-21", "21")]
    assert await figures(position=1, effective_at=day_2) == [("-21", "21")]
    assert await figures(effective_at=day_2) == []
    assert await figures() == [("-21", "0")]
    (row,) = (await service.ask("/v1/transactions", effective_at=day_2))["transactions"]
    assert (row["status"], [step["position"] for step in row["history"]]) == ("pending", [1])


async def test_filters_and_pages_are_about_the_earlier_state(service: Service) -> None:
    for number in range(1, 8):
        await service.post_json("straitsx", payout(number))
    for number in range(1, 8):
        await service.post_json("straitsx", payout(number, status="completed"))
    await service.fold()
    pages = await service.pages(
        "/v1/transactions",
        "transactions",
        source="straitsx",
        position=10,
        status="pending",
        limit=3,
    )
    assert [[row["id"][-1] for row in page] for page in pages] == [["7", "6", "5"], ["4"]]
    pages = await service.pages("/v1/balances", "balances", source="straitsx", position=10, limit=2)
    assert [[row["account"] for row in page] for page in pages] == [
        ["assets:wallet:available", "assets:wallet:held"], ["equity:merchant", "expenses:fees"],
    ]  # fmt: skip
    pages = await service.pages("/v1/entries", "entries", source="straitsx", position=2, limit=3)
    assert [len(page) for page in pages] == [3, 1]
    detail = await service.ask("/v1/transactions/straitsx/contract_0001", position=7)
    assert (detail["status"], {line["position"] for line in detail["entries"]}) == ("pending", {1})
    assert [event["position"] for event in detail["events"]] == [1]


async def test_a_page_that_looked_at_enough_ends_early_and_goes_on(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reads_asof, "STREAMS_AT_ONCE", 2)
    monkeypatch.setattr(reads_asof, "LOOKED_AT_MAX", 4)
    for number in range(1, 10):
        status = "completed" if number == 2 else "pending"
        await service.post_json("straitsx", payout(number, status=status))
    await service.fold()
    pages = await service.pages(
        "/v1/transactions", "transactions", source="straitsx", position=9, status="completed"
    )
    assert [[row["id"] for row in page] for page in pages] == [[], ["contract_0002"], []]


async def test_what_was_parked_later_is_not_counted(service: Service) -> None:
    for number in (1, 2):
        await service.post_json("straitsx", payment(number))
    await service.fold()
    async with service.database.service() as connection:
        await use_generation(connection, service.generation)
        await connection.execute("INSERT INTO parked VALUES ('straitsx', 2, 'payment', 'x', 'y')")
    for position, parked in ((1, 0), (2, 1)):
        answer = await service.ask("/v1/wallets", source="straitsx", position=position)
        assert answer["parked"] == parked


def facts(seed: int) -> list[tuple[str, bytes, str | None, Fact | None]]:
    """Return made-up callbacks with what they say."""
    known, found = registry.load(), []
    for each in stories(Random(seed)):
        terms = STRAITSX if each.provider == "straitsx" else GOKART
        fact = None
        if each.body != b"{nonsense":
            fact = known.dispatch.translate(terms, "callback", each.event, each.body)
        found.append((each.provider, each.body, each.event, fact))
    return found


@pytest.mark.parametrize("seed", [4, 5])
async def test_dated_up_to_a_time_only_what_was_dated_so_counts(
    service: Service, seed: int
) -> None:
    every = facts(seed)
    for source, body, event, _ in every:
        await service.post(source, body, event)
    await service.fold()
    lines = (await service.ask("/v1/entries", limit=1000))["entries"]
    moments = sorted({f.effective_at for *_, f in every if f and f.effective_at})
    for moment in moments[::6]:
        await _check_states(service, every, moment)
        sums: dict[tuple[str, str, str], Decimal] = defaultdict(Decimal)
        for line in lines:
            if datetime.fromisoformat(line["effective_at"]) <= moment:
                key = line["source"], line["account"], line["currency"]
                sums[key] += Decimal(line["amount"])
        rows = await service.ask("/v1/balances", limit=1000, effective_at=moment.isoformat())
        assert {key: amount for key, amount in sums.items() if amount} == {
            (row["source"], row["account"], row["currency"]): amount
            for row in rows["balances"]
            if (amount := Decimal(row["debits"]) - Decimal(row["credits"]))
        }


async def _check_states(service: Service, every: list[Any], moment: datetime) -> None:
    """Compare transactions and customers with books that were told only what is dated so."""
    for source, terms, name in (("straitsx", STRAITSX, "transactions"),
                                ("gokart", GOKART, "transactions"),
                                ("straitsx", STRAITSX, "customers")):  # fmt: skip
        counting = [
            fact
            for its, _, _, fact in every
            if its == source and fact and fact.effective_at and fact.effective_at <= moment
        ]
        made = stated(*counting, terms=terms).rows if counting else {}
        expected = {
            key: row for key, row in made.items()
            if registry.load().streams[key[0]].table.name == name
        }  # fmt: skip
        word = "status" if name == "transactions" else "verification_status"
        if name == "customers":
            paying = {
                ("customer", row["customer_id"]): {word: None}
                for key, row in made.items()
                if registry.load().streams[key[0]].table.name == "transactions"
                and row["customer_id"] is not None
            }
            expected = paying | expected
        at = moment.isoformat()
        rows = (await service.ask(f"/v1/{name}", limit=1000, source=source, effective_at=at))[name]
        assert {(row.get("kind", "customer"), row["id"]): row[word] for row in rows} == {
            key: row[word] for key, row in expected.items()
        }


async def test_a_customer_is_what_it_was(service: Service) -> None:
    for day, status in ((2, "pending"), (4, "verified"), (6, "rejected")):
        await service.post_json(
            "straitsx",
            {
                "data": {
                    "id": "customer_profile_1",
                    "type": "customer_profile",
                    "attributes": {
                        "registrationType": "personal",
                        "verificationStatus": status,
                        "createdAt": "2026-01-01T00:00:00Z",
                        "updatedAt": f"2026-01-{day:02}T00:00:00Z",
                    },
                }
            },
        )
    for total in (100, 200):
        await service.post_json("straitsx", {
            "data": {"id": "limit_1", "type": "transactionLimits", "attributes": {
                "customerProfileId": "customer_profile_1",
                "totalAnnualPaymentLimit": total}}})  # fmt: skip
    await service.fold()
    path = "/v1/customers/straitsx/customer_profile_1"

    async def seen(**as_of: Any) -> tuple[str, list[str], int]:
        found = await service.ask(path, **as_of)
        limits = [each["limits"]["total_annual_payment_limit"] for each in found["limits"]]
        return found["verification_status"], limits, len(found["history"])

    assert await seen() == ("rejected", ["200"], 3)
    assert await seen(position=4) == ("rejected", ["100"], 3)
    assert await seen(position=2) == ("verified", [], 2)
    assert await seen(position="straitsx:1") == ("pending", [], 1)
    assert await seen(effective_at="2026-01-05T00:00:00Z") == ("verified", [], 2)
    assert await seen(effective_at="2026-01-05T00:00:00Z", position=1) == ("pending", [], 1)
    verified = await service.ask("/v1/customers", verification_status="verified",
                                 position="straitsx:2")  # fmt: skip
    assert [row["id"] for row in verified["customers"]] == ["customer_profile_1"]
    status, _ = await service.refused(path, effective_at="2026-01-01T00:00:00Z")
    assert status == 404
