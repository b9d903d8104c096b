"""Promise: the documents' 25 StraitsX samples, sent verbatim and then again, are told right."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal

import pytest

from tests import samples
from tests.service import Json, Reply, Service, calling, serving

NAMES = samples.names("straitsx")
FX = "d4d1da72-111e-4d52-bdbf-2e74a2d803d5"
HEAD = "straitsx:25"


@dataclass(frozen=True, slots=True)
class Told:
    """A service on an embedded database that was sent the samples twice, and what it said."""

    service: Service
    first: list[Reply]
    again: list[Reply]


async def send_twice(url: str) -> tuple[list[Reply], list[Reply]]:
    async with calling(url) as caller:
        first = [await caller.post("straitsx", samples.body(name)) for name in NAMES]
        again = [await caller.post("straitsx", samples.body(name)) for name in NAMES]
    return first, again


@pytest.fixture(scope="module")
def stated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    with serving(tmp_path_factory.mktemp("samples")) as service:
        yield Told(service, *asyncio.run(send_twice(service.url)))


async def ask(stated: Told, path: str, **params: object) -> Json:
    async with calling(stated.service.url) as caller:
        return await caller.ask(path, **{"at_least": HEAD, **params})


def test_there_are_25_samples() -> None:
    assert len(NAMES) == 25


def test_24_are_accepted_and_the_malformed_one_is_quarantined(stated: Told) -> None:
    assert [reply.status for reply in stated.first] == [200] * 25
    assert [reply.json["position"] for reply in stated.first] == list(range(1, 26))
    statuses = ["accepted"] * 25
    statuses[2] = "quarantined"
    assert [reply.json["status"] for reply in stated.first] == statuses
    assert stated.first[2].json["reason"] == "unreadable"


def test_every_answer_is_json_and_names_its_position(stated: Told) -> None:
    for n, reply in enumerate(stated.first + stated.again):
        assert reply.headers["Content-Type"].startswith("application/json")
        assert reply.headers["Ledger-Position"] == f"straitsx:{n % 25 + 1}"
        assert reply.json["source"] == "straitsx"


def test_resent_they_are_duplicates_with_the_same_positions_and_ids(stated: Told) -> None:
    assert {reply.json["status"] for reply in stated.again} == {"duplicate"}
    for first, again in zip(stated.first, stated.again, strict=True):
        assert again.status == 200
        for name in ("source", "position", "event_id"):
            assert again.json[name] == first.json[name]


async def test_every_body_is_kept_byte_for_byte(stated: Told) -> None:
    async with calling(stated.service.url) as caller:
        for n, name in enumerate(NAMES, 1):
            reply = await caller.request("GET", f"/v1/events/straitsx/{n}/body")
            assert (reply.status, reply.body) == (200, samples.body(name))


async def test_wallets_are_right_to_the_last_decimal(stated: Told) -> None:
    answer = await ask(stated, "/v1/wallets", source="straitsx")
    assert answer["position"]["straitsx"] == 25
    assert {
        wallet["currency"]: (wallet["available"], wallet["held"], wallet["pending_in"])
        for wallet in answer["wallets"]
    } == {
        "XUSD": ("28953.5", "1001.5", "0"),
        "XSGD": ("-12269.37", "0.1", "0"),
        "USD": ("-9900", "0", "0"),
        "SGD": ("-500", "0", "0"),
        "USDC": ("10000", "0", "0"),
    }
    for wallet in answer["wallets"]:
        total = Decimal(wallet["available"]) + Decimal(wallet["held"])
        assert Decimal(wallet["total"]) == total
        assert wallet["reconciliation"]["state"] == "INCOMPLETE"


async def test_every_currency_sums_to_zero_over_all_accounts(stated: Told) -> None:
    rows = (await ask(stated, "/v1/balances", limit=1000))["balances"]
    sums: dict[str, Decimal] = {}
    for row in rows:
        side = Decimal(row["debits"]) - Decimal(row["credits"])
        sums[row["currency"]] = sums.get(row["currency"], Decimal(0)) + side
        balance = side if row["normal"] == "debit" else -side
        assert Decimal(row["balance"]) == balance
    assert set(sums) >= {"XUSD", "XSGD", "USD", "SGD", "USDC"}
    assert set(sums.values()) == {Decimal(0)}


async def test_every_event_leaves_the_journal_balanced(stated: Told) -> None:
    rows = (await ask(stated, "/v1/entries", limit=1000))["entries"]
    sums: dict[tuple[int, str], Decimal] = {}
    for row in rows:
        key = row["position"], row["currency"]
        sums[key] = sums.get(key, Decimal(0)) + Decimal(row["amount"])
    assert len(sums) >= 10
    assert set(sums.values()) == {Decimal(0)}


async def test_the_fx_payout_stated_as_completed_and_failed_is_a_conflict(stated: Told) -> None:
    answer = await ask(stated, f"/v1/transactions/straitsx/{FX}")
    assert answer["status"] == "conflict"
    assert answer["conflict"] is not None
    assert (answer["amount"], answer["currency"], answer["fees"]) == ("1000", "XUSD", "1.5")
    assert [step["position"] for step in answer["history"]] == [9, 10]
    assert [event["position"] for event in answer["events"]] == [9, 10]


async def test_exceptions_are_the_unreadable_one_the_conflict_and_what_looks_incomplete(
    stated: Told,
) -> None:
    rows = (await ask(stated, "/v1/exceptions"))["exceptions"]
    assert [
        (row["reason"], (row["event"] or {}).get("position"), row["state"]) for row in rows
    ] == [
        ("conflict", 10, "open"),
        ("unreadable", 3, "open"),
        ("stuck_pending", 8, "open"),
        *[("unverified_money", None, "open")] * 3,
    ]
    assert (rows[0]["kind"], rows[0]["resource_id"]) == ("fx_payout", FX)


async def test_customers_have_the_status_stated_last(stated: Told) -> None:
    listed = (await ask(stated, "/v1/customers"))["customers"]
    assert {
        row["id"].removeprefix("customer_profile_")[:8]
        for row in listed
        if row["verification_status"] is None
    } == {"74a5cfe1", "af516116", "b2c3d4e5", "c3d4e5f6"}, "known by money only"
    rows = [row for row in listed if row["verification_status"] is not None]
    assert {row["id"].removeprefix("customer_profile_")[:8]: row["verification_status"]
            for row in rows} == {
        "08d5ffe5": "rejected",
        "8bcef957": "verified",
        "989407bb": "verified",
        "a1b2c3d4": "verified",
    }  # fmt: skip
    rejected = rows[0]["rejection"]
    assert rejected["retryable"] is True
    assert rejected["summary"] == "Rejected due to StraitsX policy"


async def test_annual_and_daily_limits_stand_beside_each_other(stated: Told) -> None:
    rows = (await ask(stated, "/v1/limits", source="straitsx"))["limits"]
    assert len(rows) == 1
    row = rows[0]
    assert (row["id"], row["customer_id"]) == ("abc_1234", "customer_profile_12313123")
    names = {
        f"{word}_{period}_{kind}_limit"
        for word in ("total", "available")
        for period in ("annual", "daily")
        for kind in ("payment", "payout")
    }
    assert {name: row["limits"][name] for name in names} == dict.fromkeys(names, "200000")


async def test_the_limit_request_shares_its_id_with_limits_and_is_apart(stated: Told) -> None:
    rows = (await ask(stated, "/v1/limit_requests"))["limit_requests"]
    assert [(row["id"], row["status"]) for row in rows] == [("abc_1234", "approved")]


async def test_accounts_and_requests_have_their_last_status(stated: Told) -> None:
    banks = (await ask(stated, "/v1/bank_accounts"))["bank_accounts"]
    assert [(row["id"], row["verification_status"]) for row in banks] == [("1", "verified")]
    virtual = (await ask(stated, "/v1/virtual_accounts"))["virtual_accounts"]
    assert {row["reference_id"]: row["status"] for row in virtual} == {
        "414186459": "enabled",
        "finaltesting123_usd_biz": "disabled",
    }
    rfi = (await ask(stated, "/v1/rfi"))["rfi"]
    assert [(row["id"], row["status"]) for row in rfi] == [("rfi_request_usy4lc8xoadpl8", "sent")]


async def test_every_request_is_listed_as_a_delivery(stated: Told) -> None:
    async with calling(stated.service.url) as caller:
        rows = await caller.rows("/v1/deliveries", "deliveries", source="straitsx", limit=20)
    outcomes = [row["outcome"] for row in reversed(rows)]
    assert len(rows) == 50
    assert (outcomes.count("accepted"), outcomes.count("quarantined")) == (24, 1)
    assert outcomes.count("duplicate") == 25
    assert sorted(row["position"] for row in rows) == sorted([*range(1, 26)] * 2)
    assert {row["answer"] for row in rows} == {200}


async def test_status_states_that_the_books_are_at_the_head(stated: Told) -> None:
    answer = await ask(stated, "/v1/status")
    row = next(row for row in answer["sources"] if row["source"] == "straitsx")
    assert (row["head"], row["books_position"], row["lag_events"], row["parked"]) == (25, 25, 0, 0)
    assert row["exceptions"] == 2
    assert answer["database"]["safe"] is True
    assert sum("has no secret" in warning for warning in answer["warnings"]) == 2
