"""Promise: whose a payout is, a rule declares or an operator decides, and the books follow."""

from __future__ import annotations

import csv
import io
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet
import pytest

from tests.asking import payment, payout
from tests.conftest import eventually
from tests.e2e.conftest import Serve
from tests.e2e.test_auditor import all_is_sealed
from tests.service import Caller, Json, Service, calling

SOURCE = '[sources.straitsx]\nprovider = "straitsx"\n'
RULE = 'owner_of = { field = "idempotency_id", match = "^cust-(.+)-[0-9]+$" }\n'
BY_RECEIPT = 'date_by = "receipt"\n'
MERCHANT = "equity:merchant"
A, B, C = (f"liabilities:customers:{name}" for name in "abc")
RULED, DECIDED = "contract_0002", "contract_0003"
DEPOSIT = "contract_0009"


@pytest.fixture(scope="module")
def service(serve: Serve) -> Iterator[Service]:
    with serve(SOURCE + RULE) as running:
        yield running


def ledger(service: Service, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run a command on the service's settings."""
    return subprocess.run(
        [sys.executable, "-m", "ledger", *arguments], env=service._environment(),
        cwd=service.folder, capture_output=True, check=False, timeout=120,
    )  # fmt: skip


async def balances(caller: Caller, **params: Any) -> dict[str, str]:
    """Return the balances of customers and of the merchant, by account."""
    answer = await caller.ask("/v1/balances", source="straitsx", **params)
    owners = (MERCHANT, "liabilities:customers:")
    return {
        row["account"]: row["balance"]
        for row in answer["balances"]
        if row["account"].startswith(owners)
    }


async def transaction(caller: Caller, id_: str, **params: Any) -> Json:
    return await caller.ask(f"/v1/transactions/straitsx/{id_}", **params)


async def attribute(caller: Caller, id_: str, customer: str | None, note: str = "why") -> Json:
    """Decide over HTTP; return the answer."""
    body = {"customer_id": customer, "note": note, "by": "ana"}
    path = f"/v1/transactions/straitsx/{id_}/attribute"
    reply = await caller.request("POST", path, json=body)
    assert reply.status == 200, reply
    assert reply.headers["Ledger-Position"] == f"straitsx:{reply.json['position']}"
    return reply.json


def exported(service: Service, format_: str, what: str, *options: str) -> bytes:
    done = ledger(service, "export", "--format", format_, "--what", what, *options)
    assert done.returncode == 0, done.stderr
    return done.stdout


def customers_exported(service: Service, folder: Path) -> list[dict[str, str | None]]:
    """Return transaction → customer, as each format of tables has it."""
    text = exported(service, "csv", "transactions").decode()
    from_csv = {row["id"]: row["customer_id"] or None for row in csv.DictReader(io.StringIO(text))}
    lines = exported(service, "jsonl", "transactions").splitlines()
    from_jsonl = {row["id"]: row["customer_id"] for row in map(orjson.loads, lines)}
    path = folder / "transactions.parquet"
    exported(service, "parquet", "transactions", "--out", str(path))
    table = pyarrow.parquet.read_table(path, columns=["id", "customer_id"])
    from_parquet = {row["id"]: row["customer_id"] for row in table.to_pylist()}
    return [from_csv, from_jsonl, from_parquet]


BEFORE = {A: "80", MERCHANT: "-20"}
ONE_DECIDED = {A: "80", B: "-20"}
BOTH_DECIDED = {A: "100", B: "-20", C: "-20"}


async def post_story(caller: Caller) -> None:
    """Post money of customer a, a payout that the rule knows, and one that it does not."""
    paid = payment(1, amount="100.0", fees="0", customer_profile_id="a")
    ruled = payout(2, status="completed", idempotency_id="cust-a-7")
    decided = payout(3, status="completed", idempotency_id="order-7")
    for body in (paid, ruled, decided):
        await caller.report("straitsx", orjson.dumps(body))
    assert await balances(caller, at_least="straitsx:3") == BEFORE
    by_rule = await transaction(caller, RULED)
    assert (by_rule["customer_id"], by_rule["flags"]) == ("a", ["attributed_by_rule"])
    plain = await transaction(caller, DECIDED)
    assert (plain["customer_id"], plain["flags"]) == (None, [])


async def decide_one(caller: Caller) -> Json:
    """Attribute the payout that the rule does not know; return it."""
    answer = await attribute(caller, DECIDED, "b", "their order")
    assert (answer["position"], answer["status"]) == (4, "accepted")
    assert await balances(caller, at_least="straitsx:4") == ONE_DECIDED
    shown = await transaction(caller, DECIDED)
    assert (shown["customer_id"], shown["flags"]) == ("b", ["attributed_by_decision"])
    (decision,) = shown["decisions"]
    assert (decision["action"], decision["customer_id"], decision["note"]) == (
        "attribute", "b", "their order",
    )  # fmt: skip
    moved = {(e["account"], e["amount"]) for e in shown["entries"] if e["position"] == 4}
    assert moved == {(MERCHANT, "-20"), (B, "20")}
    of_b = await caller.ask("/v1/transactions", customer_id="b")
    assert [row["id"] for row in of_b["transactions"]] == [DECIDED]
    assert list(await balances(caller, customer_id="b")) == [B]
    return shown


async def check_as_of(caller: Caller, shown: Json) -> None:
    """Ask for the state before and after the decision; its legs are dated as the payout is."""
    assert await balances(caller, position="straitsx:3") == BEFORE
    assert await balances(caller, position="straitsx:4") == ONE_DECIDED
    then = await transaction(caller, DECIDED, position="straitsx:3")
    assert (then["customer_id"], then["flags"], then["decisions"]) == (None, [], [])
    then = await transaction(caller, DECIDED, position="straitsx:4")
    assert (then["customer_id"], then["decisions"]) == ("b", shown["decisions"])
    at = shown["effective_at"]
    assert await balances(caller, effective_at=at) == ONE_DECIDED
    assert await balances(caller, effective_at=at, position="straitsx:3") == BEFORE
    entries = await caller.ask("/v1/entries", account=B, effective_at=at)
    assert [(each["amount"], each["position"]) for each in entries["entries"]] == [("20", 4)]


def check_exports(service: Service, folder: Path) -> None:
    """Find the customers in every format."""
    owners = {"contract_0001": "a", RULED: "a", DECIDED: "b"}
    assert customers_exported(service, folder) == [owners] * 3
    for tool in ("hledger", "beancount"):
        assert b"Liabilities:Customers:B:" in exported(service, tool, "entries")


async def undo_both(caller: Caller) -> None:
    """Take both decisions back; what was then stays as it was."""
    for id_ in (RULED, DECIDED):
        await attribute(caller, id_, None, "a mistake")
    assert await balances(caller, at_least="straitsx:7") == BEFORE
    undone = await transaction(caller, DECIDED)
    assert (undone["customer_id"], undone["flags"]) == (None, ["attribution_undone"])
    assert [each["customer_id"] for each in undone["decisions"]] == ["b", None]
    by_rule = await transaction(caller, RULED)
    assert (by_rule["customer_id"], by_rule["flags"]) == (
        "a", ["attributed_by_rule", "attribution_undone"],
    )  # fmt: skip
    assert await balances(caller, position="straitsx:5") == BOTH_DECIDED
    of_b = await caller.ask("/v1/transactions", customer_id="b", position="straitsx:5")
    assert [row["id"] for row in of_b["transactions"]] == [DECIDED]
    assert (await caller.ask("/v1/transactions", customer_id="b"))["transactions"] == []
    exceptions = (await caller.ask("/v1/exceptions", state="open"))["exceptions"]
    assert [(each["reason"], each["resource_id"]) for each in exceptions] == [
        ("unverified_money", "a"),
    ]  # fmt: skip


async def test_payouts_move_to_their_customers_and_back(service: Service, tmp_path: Path) -> None:
    async with calling(service.url) as caller:
        await post_story(caller)
        wallets = (await caller.ask("/v1/wallets"))["wallets"]
        shown = await decide_one(caller)
        await check_as_of(caller, shown)
        check_exports(service, tmp_path)
        await attribute(caller, RULED, "c")
        assert await balances(caller, at_least="straitsx:5") == BOTH_DECIDED
        shown = await transaction(caller, RULED)
        assert (shown["customer_id"], shown["flags"]) == ("c", ["attributed_by_decision"])
        for command in ("rebuild", "verify"):
            done = ledger(service, command)
            assert done.returncode == 0, done.stdout + done.stderr
        assert await balances(caller) == BOTH_DECIDED
        await undo_both(caller)
        assert (await caller.ask("/v1/wallets"))["wallets"] == wallets
        await eventually(lambda: all_is_sealed(caller, "straitsx"), 5)
    pack = tmp_path / "pack.tar"
    for command in (["verify"], ["export", "--audit", str(pack)], ["verify", str(pack)]):
        done = ledger(service, *command)
        assert done.returncode == 0, done.stdout + done.stderr
    assert b"its books are the fold of its events" in done.stdout


async def test_the_command_line_decides_and_takes_back(service: Service) -> None:
    async with calling(service.url) as caller:
        body = payout(4, status="completed", idempotency_id="order-8")
        await caller.report("straitsx", orjson.dumps(body))
    where = ("--url", service.url, "--json")
    path = ("transactions", "attribute", "straitsx", body["id"])
    done = ledger(service, *path, "--customer", "b", "--note", "their order", *where)
    assert done.returncode == 0, done.stderr
    position = orjson.loads(done.stdout)["position"]
    barrier = ("--at-least", f"straitsx:{position}")
    shown = ledger(service, "transactions", "straitsx", body["id"], *barrier, *where)
    assert orjson.loads(shown.stdout)["customer_id"] == "b"
    done = ledger(service, *path, "--customer", "b", "--note", "again", *where)
    assert (done.returncode, b"409" in done.stderr) == (2, True)
    done = ledger(service, *path, "--undo", "--note", "a mistake", *where)
    assert done.returncode == 0, done.stderr
    barrier = ("--at-least", f"straitsx:{position + 1}")
    shown = ledger(service, "transactions", "straitsx", body["id"], *barrier, *where)
    assert orjson.loads(shown.stdout)["customer_id"] is None


def deposit(created_at: str) -> bytes:
    """Return a completed deposit, which carries no other time than that of its creation."""
    attributes = {
        "idempotencyId": "in-9", "currency": "xsgd", "amount": "30.0", "fees": "0.0",
        "status": "completed", "createdAt": created_at, "blockedReasons": [],
        "senderInformation": {"transactionRemarks": "rent"},
    }  # fmt: skip
    data = {"id": DEPOSIT, "type": "bankTransfer", "attributes": attributes}
    return orjson.dumps({"data": data})


async def are_different(caller: Caller) -> bool:
    """Return whether the service waits for a decision on books that differ."""
    return "rebuilt_books_differ" in str((await caller.ask("/v1/status"))["warnings"])


def configure(service: Service, toml: str) -> None:
    """Replace the service's settings; they are read at its next start."""
    Path(service.environ["LEDGER_CONFIG"]).write_text(toml, encoding="utf-8")


async def test_other_terms_make_other_books_of_the_same_log(serve: Serve) -> None:
    month_end = "2026-04-30T23:59:59Z"
    with serve(SOURCE) as service:
        async with calling(service.url) as caller:
            ruled = payout(2, status="completed", idempotency_id="cust-a-7")
            decided = payout(3, status="completed", idempotency_id="cust-a-8")
            for body in (orjson.dumps(ruled), orjson.dumps(decided), deposit(month_end)):
                await caller.report("straitsx", body)
            await attribute(caller, DECIDED, "b")
            assert await balances(caller, at_least="straitsx:4") == {MERCHANT: "10", B: "-20"}
            received = await transaction(caller, DEPOSIT)
            assert (received["effective_at"], received["flags"]) == (
                month_end, ["dated_by_creation"],
            )  # fmt: skip
            april = await balances(caller, effective_at=month_end)
            assert april == {MERCHANT: "10", B: "-20"}
        assert service.stop() == 0

        configure(service, SOURCE + RULE + BY_RECEIPT)
        service.start()
        async with calling(service.url) as caller:
            await eventually(lambda: are_different(caller), 30)
            done = ledger(service, "rebuild", "--swap", "--accept-differences")
            assert done.returncode == 0, done.stdout + done.stderr
            assert await balances(caller) == {MERCHANT: "30", A: "-20", B: "-20"}
            shown = await transaction(caller, DECIDED)
            assert (shown["customer_id"], shown["flags"]) == ("b", ["attributed_by_decision"])
            received = await transaction(caller, DEPOSIT)
            (step,) = received["history"]
            assert (received["effective_at"], received["flags"]) == (
                step["received_at"], ["dated_by_receipt"],
            )  # fmt: skip
            april = await balances(caller, effective_at=month_end)
            assert april == {A: "-20", B: "-20"}
            then = await transaction(caller, DEPOSIT, effective_at=step["received_at"])
            assert then["effective_at"] == step["received_at"]
        done = ledger(service, "verify")
        assert done.returncode == 0, done.stdout + done.stderr
