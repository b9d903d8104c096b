"""Promise: a signed body that is posted again and again, wherever, becomes at most two events.

The signature covers the body; the event name in the URL is not signed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import orjson
import pytest

from ledger.eventlog.sources import load_terms
from ledger.registry import load
from ledger.signatures.hmac_sha256_hex import sign
from tests.asking import first_generation, fold_source, payment
from tests.conftest import Database, eventually
from tests.integration.receiver.test_receiver_limits import receiving
from tests.samples import body as sample
from tests.service import Caller, calling

SECRET = "ss_0123456789abcdef0123456789abcdef"
EVENTS = sorted(load().dispatch.events["straitsx"])
CUSTOMERS = ("cpbaCreated", "cpbaVerificationStatusUpdated")
OWN = ("ubaCreated", "ubaVerificationStatusUpdated")
ACCOUNT = sample("straitsx/24-bank_account-verified")
UNTYPED = {name: value for name, value in payment(9).items() if name != "type"}
SHARED = {**payment(8), "type": "paynowTransaction"}


@dataclass(frozen=True, slots=True)
class Ledger(Caller):
    """A service over a database of its own, and a fold that runs when it is needed."""

    database: Database | None = None
    generation: int = 0

    async def fold(self) -> None:
        """Bring the books to the head of the log."""
        assert self.database is not None
        async with self.database.service() as connection:
            for terms in await load_terms(connection):
                await fold_source(self.database, terms, self.generation)


@pytest.fixture
async def caller(database: Database) -> AsyncIterator[Ledger]:
    source = replace(database.settings.sources["straitsx"], secrets=(SECRET,))
    generation = await first_generation(database)
    async with (
        receiving(database, role="all", sources={"straitsx": source}) as listening,
        calling(listening.url) as plain,
    ):
        yield Ledger(plain.session, plain.url, SECRET, database, generation)


async def everywhere(caller: Ledger, body: bytes) -> list[dict[str, Any]]:
    """Post a body to every documented event's URL and to none, twice."""
    return [await caller.report("straitsx", body, event) for event in (*EVENTS, None) * 2]


async def events(caller: Ledger) -> list[dict[str, Any]]:
    """Return the log, the oldest event first."""
    return (await caller.rows("/v1/events", "events"))[::-1]


async def test_an_event_name_that_the_provider_does_not_document_is_404_and_recorded(
    caller: Ledger,
) -> None:
    body = orjson.dumps(payment(1))
    for event in ("contractPayment", "paymentstatusupdated", "x", "cpba"):
        for _ in range(2):
            reply = await caller.post("straitsx", body, event)
            assert (reply.status, reply.json["status"]) == (404, "refused")

    async def recorded() -> bool:
        found = await caller.rows("/v1/deliveries", "deliveries", outcome="refused")
        stated = {(row["answer"], row["reason"], row["path_event"]) for row in found}
        return len(found) == 8 and (404, "unknown_event", "contractPayment") in stated

    await eventually(recorded)
    assert await events(caller) == []


@pytest.mark.parametrize(
    ("body", "count"),
    [
        (b"not json", 1),
        (b"", 1),
        (b'{"id":"x","type":"newType"}', 1),
        (orjson.dumps(payment(1)), 2),
        (orjson.dumps(UNTYPED), 2),
        (orjson.dumps(SHARED), 2),
        (ACCOUNT, 2),
    ],
    ids=["no JSON", "empty", "new type", "payment", "untyped", "shared", "account"],
)
async def test_one_signed_body_is_never_many_events(
    caller: Ledger, body: bytes, count: int
) -> None:
    await everywhere(caller, body)
    found = await events(caller)
    assert len(found) == count
    understood = [event for event in found if event["kind"] not in ("unreadable", "unknown")]
    assert len(understood) == count - 1
    assert {reported["status"] for reported in await everywhere(caller, body)} == {"duplicate"}
    assert len(await events(caller)) == count


@pytest.mark.parametrize(("first", "second"), [(CUSTOMERS, OWN), (OWN, CUSTOMERS)])
async def test_a_bank_account_posted_again_as_the_other_family_s_is_a_mismatch(
    caller: Ledger, first: tuple[str, str], second: tuple[str, str]
) -> None:
    reported = await caller.report("straitsx", ACCOUNT, first[0])
    assert (reported["status"], reported["position"]) == ("accepted", 1)
    assert (await caller.report("straitsx", ACCOUNT, first[1]))["status"] == "duplicate"
    reported = await caller.report("straitsx", ACCOUNT, second[0])
    assert (reported["status"], reported["reason"]) == ("quarantined", "event_mismatch")
    assert "event 1" in reported["detail"]
    again = await caller.report("straitsx", ACCOUNT, second[1])
    assert (again["status"], again["position"]) == ("duplicate", 2)
    await caller.fold()
    rows = await caller.rows("/v1/bank_accounts", "bank_accounts")
    assert [row["id"].startswith("user:") for row in rows] == [first is OWN]
    (issue,) = await caller.rows("/v1/exceptions", "exceptions")
    assert (issue["reason"], issue["event"]["position"]) == ("event_mismatch", 2)
    assert "event 1" in issue["detail"]


async def test_money_that_only_the_url_states_is_booked_once(caller: Ledger) -> None:
    body = orjson.dumps(SHARED)
    reported = await caller.report("straitsx", body, "paymentStatusUpdated")
    for event in ("payoutStatusUpdated", "userDepositStatusUpdated"):
        await caller.report("straitsx", body, event)
    await caller.fold()
    rows = await caller.rows("/v1/transactions", "transactions")
    assert [(row["kind"], row["id"]) for row in rows] == [("payment", SHARED["id"])]
    assert reported["position"] == 1


async def test_a_signature_over_no_body_is_none_for_a_query(caller: Ledger) -> None:
    query = "type=payout&amount=1000000"
    for proof, answer in ((sign(SECRET, b""), 401), (sign(SECRET, query.encode()), 200)):
        headers = {"Xfers-Signature": proof}
        path = f"/callbacks/straitsx?{query}"
        reply = await caller.request("POST", path, headers=headers)
        assert reply.status == answer
    assert reply.json["reason"] == "unsupported_encoding"
    assert [event["position"] for event in await events(caller)] == [1]
