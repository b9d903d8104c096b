"""Law: what is asked about money is answered exactly, from the books, at a named position."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator
from decimal import Decimal

import pytest

from ledger.books.balance_index import SHARD_BITS
from ledger.books.generations import use_generation
from tests.asking import Service, payment, payout, serving
from tests.conftest import Database

INCOMPLETE = {
    "state": "INCOMPLETE",
    "through": None,
    "statement_balance": None,
    "difference": None,
    "breaks": None,
}


AGAIN = """
INSERT INTO entries
SELECT source, position + $1, line, kind, transaction, account, currency, amount, effective_at,
       recorded_at, debits
  FROM entries WHERE source = 'straitsx' AND position <= 3
"""


@pytest.fixture
async def service(database: Database) -> AsyncIterator[Service]:
    async with serving(database) as running:
        yield running


async def test_the_25_samples_make_the_documented_wallets(service: Service) -> None:
    await service.post_samples("straitsx")
    await service.fold()
    answer = await service.ask("/v1/wallets")
    figures = {
        wallet["currency"]: (wallet["available"], wallet["held"], wallet["total"])
        for wallet in answer["wallets"]
    }
    assert figures == {
        "SGD": ("-500", "0", "-500"),
        "USD": ("-9900", "0", "-9900"),
        "USDC": ("10000", "0", "10000"),
        "XSGD": ("-12269.37", "0.1", "-12269.27"),
        "XUSD": ("28953.5", "1001.5", "29955"),
    }
    assert all(wallet["reconciliation"] == INCOMPLETE for wallet in answer["wallets"])
    assert answer["position"] == {"gokart": 0, "straitsx": 25}
    assert answer["parked"] == 0
    assert answer["next"] is None


async def test_every_currency_sums_to_zero_over_all_accounts(service: Service) -> None:
    await service.post_samples("straitsx")
    await service.post_samples("gokart")
    await service.fold()
    sums: dict[tuple[str, str], Decimal] = defaultdict(Decimal)
    for row in (await service.ask("/v1/balances", limit=1000))["balances"]:
        debits, credited = Decimal(row["debits"]), Decimal(row["credits"])
        sums[row["source"], row["currency"]] += debits - credited
        expected = debits - credited if row["normal"] == "debit" else credited - debits
        assert Decimal(row["balance"]) == expected
    assert len(sums) == 7
    assert set(sums.values()) == {Decimal(0)}


async def test_an_announced_payment_is_pending_in_and_not_in_the_total(service: Service) -> None:
    await service.post_json("straitsx", payment(1, status="pending"))
    await service.fold()
    (wallet,) = (await service.ask("/v1/wallets"))["wallets"]
    assert (wallet["available"], wallet["pending_in"], wallet["total"]) == ("0", "10", "0")


async def test_a_wallet_that_came_back_to_zero_is_still_listed(service: Service) -> None:
    await service.post_json("straitsx", payment(1, fees="0.0"))
    await service.post_json("straitsx", payout(2, amount="10", fees="0", status="completed"))
    await service.fold()
    (wallet,) = (await service.ask("/v1/wallets"))["wallets"]
    assert (wallet["currency"], wallet["available"], wallet["total"]) == ("XSGD", "0", "0")


async def test_accounts_are_found_exactly_and_by_prefix(service: Service) -> None:
    await service.post_json("straitsx", payment(1, customer_profile_id="cust_1"))
    await service.post_json("straitsx", payment(2, customer_profile_id="custX1"))
    await service.fold()

    async def accounts(account: str) -> list[str]:
        rows = (await service.ask("/v1/balances", account=account))["balances"]
        return [row["account"] for row in rows]

    assert await accounts("liabilities:customers:cust_1") == ["liabilities:customers:cust_1"]
    assert await accounts("liabilities:*") == [
        "liabilities:customers:custX1",
        "liabilities:customers:cust_1",
    ]
    assert await accounts("liabilities:customers:cust_*") == ["liabilities:customers:cust_1"]
    assert await accounts("liabilities:customers:%*") == []
    assert await accounts("liabilities") == []


async def test_a_customers_balance_is_what_we_owe_it(service: Service) -> None:
    await service.post_json("straitsx", payment(1, customer_profile_id="cust_1"))
    await service.fold()
    answer = await service.ask("/v1/balances", customer_id="cust_1", currency="xsgd")
    (row,) = answer["balances"]
    assert row == {
        "source": "straitsx",
        "account": "liabilities:customers:cust_1",
        "currency": "XSGD",
        "debits": "0",
        "credits": "10",
        "balance": "10",
        "normal": "credit",
    }


async def test_entries_state_what_each_event_changed(service: Service) -> None:
    await service.post_json("straitsx", payment(1, status="pending"))
    position = await service.post_json("straitsx", payment(1))
    await service.fold()
    answer = await service.ask("/v1/entries", transaction="contract_0001")
    assert [entry["position"] for entry in answer["entries"]] == [1] * 2 + [2] * 5
    credited = await service.ask("/v1/entries", account="assets:wallet:available")
    assert [(e["position"], e["currency"], e["amount"]) for e in credited["entries"]] == [
        (position, "XSGD", "9.5")
    ]
    nothing = await service.ask("/v1/entries", to="2026-01-01T00:00:01Z")
    assert nothing["entries"] == []
    everything = await service.ask("/v1/entries", from_="2026-01-01T00:00:01Z")
    assert everything["entries"] == answer["entries"]


async def test_the_lines_of_an_account_are_found_in_every_part_of_a_long_journal(
    service: Service,
) -> None:
    for number in range(1, 4):
        await service.post_json("straitsx", payment(number, fees="0"))
    await service.fold()
    head = 10 * 2**SHARD_BITS
    async with service.database.service() as connection:
        await use_generation(connection, service.generation)
        for place in (2, 3, 5, 9):
            await connection.execute(AGAIN, place * 2**SHARD_BITS)
        await connection.execute("UPDATE checkpoints SET position = $1", head)
    async with service.database.owner() as connection:
        await connection.execute("UPDATE ledger.heads SET position = $1", head)
    expected = {"account": "assets:wallet:available", "source": "straitsx"}
    whole = (await service.ask("/v1/entries", **expected))["entries"]
    places = [entry["position"] for entry in whole]
    assert len(places) == 3 + 4 * 3
    assert places == sorted(places)
    assert places[-1] >> SHARD_BITS == 9
    for limit in (1, 2, 4, 7):
        pages = await service.pages("/v1/entries", "entries", limit=limit, **expected)
        assert [entry for page in pages for entry in page] == whole
        then = {"position": f"straitsx:{head}", **expected}
        pages = await service.pages("/v1/entries", "entries", limit=limit, **then)
        assert [entry for page in pages for entry in page] == whole
    until = await service.ask("/v1/entries", position=f"straitsx:{3 * 2**SHARD_BITS}", **expected)
    assert [entry["position"] for entry in until["entries"]] == places[:6]
    assert {entry["account"] for entry in whole} == {"assets:wallet:available"}


async def test_a_transaction_is_stated_with_its_history_entries_and_events(
    service: Service,
) -> None:
    first = await service.post("straitsx", b'{"id":"c/1","type":"Direct bank transfer",'
                               b'"idempotency_id":"i","amount":"10.10","fees":null,'
                               b'"status":"pending","currency":"xsgd",'
                               b'"created_at":"2026-01-01T08:00:00+08:00"}')  # fmt: skip
    await service.fold()
    answer = await service.ask("/v1/transactions/straitsx/c%2F1")
    assert {
        name: answer[name] for name in ("source", "kind", "id", "idempotency_id", "status")
    } == {
        "source": "straitsx",
        "kind": "payment",
        "id": "c/1",
        "idempotency_id": "i",
        "status": "pending",
    }
    assert (answer["amount"], answer["currency"], answer["fees"]) == ("10.1", "XSGD", None)
    assert answer["effective_at"] == "2026-01-01T00:00:00Z"
    assert answer["customer_id"] is None
    assert answer["conflict"] is None
    (step,) = answer["history"]
    assert (step["position"], step["status"]) == (1, "pending")
    assert step["event_id"] == first["event_id"]
    assert step["effective_at"] == "2026-01-01T00:00:00Z"
    assert {(e["account"], e["amount"]) for e in answer["entries"]} == {
        ("memo:incoming", "10.1"),
        ("memo:incoming:contra", "-10.1"),
    }
    (event,) = answer["events"]
    assert (event["position"], event["event_id"]) == (1, first["event_id"])
    assert (event["kind"], event["verdict"]) == ("payment", "accepted")
    assert event["path_event"] is None
    assert answer["position"] == {"gokart": 0, "straitsx": 1}


async def test_a_conflict_is_stated_and_its_money_held(service: Service) -> None:
    await service.post_json("straitsx", payout(1, status="completed"))
    await service.post_json("straitsx", payout(1, status="failed"))
    await service.fold()
    (row,) = (await service.ask("/v1/transactions"))["transactions"]
    assert row["conflict"] is not None
    assert [step["status"] for step in row["history"]] == ["completed", "failed"]
    (wallet,) = (await service.ask("/v1/wallets"))["wallets"]
    assert (wallet["available"], wallet["held"]) == ("-21", "21")


async def test_transactions_are_filtered_and_newest_first(service: Service) -> None:
    await service.post_json("straitsx", payment(1, customer_profile_id="cust_1"))
    await service.post_json("straitsx", payout(2))
    await service.post_json("straitsx", payment(3, currency="xusd", status="pending"))
    await service.fold()

    async def ids(**filters: str) -> list[str]:
        rows = (await service.ask("/v1/transactions", **filters))["transactions"]
        return [row["id"] for row in rows]

    assert await ids() == ["contract_0003", "contract_0002", "contract_0001"]
    assert await ids(kind="payout") == ["contract_0002"]
    assert await ids(status="pending") == ["contract_0003", "contract_0002"]
    assert await ids(customer_id="cust_1") == ["contract_0001"]
    assert await ids(currency="xusd") == ["contract_0003"]
    assert await ids(idempotency_id="idem-0002") == ["contract_0002"]
    assert await ids(source="gokart") == []
    # From is inclusive, to exclusive; both are the provider's time.
    assert await ids(from_="2026-01-01T00:00:02Z") == ["contract_0003", "contract_0002"]
    assert await ids(to="2026-01-01T00:00:02Z") == ["contract_0001"]


async def test_an_idempotency_id_that_two_transactions_share_is_flagged(service: Service) -> None:
    await service.post_json("straitsx", payment(1, idempotency_id="testing"))
    await service.post_json("straitsx", payment(2, idempotency_id="testing"))
    await service.post_json("straitsx", payment(3))
    await service.post_json("straitsx", payout(4, idempotency_id="idem-0003"))
    await service.fold()
    rows = (await service.ask("/v1/transactions"))["transactions"]
    flagged = [row["id"] for row in rows if "idempotency_id_reused" in row["flags"]]
    assert flagged == ["contract_0002", "contract_0001"]
    found = await service.ask("/v1/transactions", flag="idempotency_id_reused")
    assert [row["id"] for row in found["transactions"]] == flagged
    one = await service.ask("/v1/transactions/straitsx/contract_0001")
    assert one["flags"].count("idempotency_id_reused") == 1


async def test_an_id_of_several_kinds_needs_its_kind(service: Service) -> None:
    await service.post_json("straitsx", payment(1))
    await service.post_json("straitsx", payout(1))
    await service.fold()
    path = "/v1/transactions/straitsx/contract_0001"
    status, found = await service.refused(path)
    assert status == 409
    assert "payment, payout" in found["detail"]
    assert (await service.ask(path, kind="payout"))["amount"] == "20"
    assert (await service.ask(path, kind="payment"))["amount"] == "10"


async def test_a_returned_payout_is_linked_to_its_payout(service: Service) -> None:
    await service.post_json("straitsx", payout(1, status="completed"))
    await service.post_json(
        "straitsx", payment(2, amount="20", fees="0", transaction_remarks="RTN idem-0001")
    )
    await service.fold()
    returned = await service.ask("/v1/transactions/straitsx/contract_0002")
    assert returned["return_of"] is not None
