"""The documents' own samples, from bytes to balances, in document order."""

from __future__ import annotations

from decimal import Decimal

from ledger import registry
from ledger.errors import InvalidCallback, MalformedBody
from ledger.model import Fact
from tests import samples
from tests.property.driver import GOKART, STRAITSX, Books, stated

PATHS = {"bank_account": "cpbaVerificationStatusUpdated"}


def facts_of(provider: str) -> list[Fact]:
    found, terms = [], STRAITSX if provider == "straitsx" else GOKART
    for name in samples.names(provider):
        path = next((event for word, event in PATHS.items() if word in name), None)
        try:
            found.append(
                registry.load().dispatch.translate(terms, "callback", path, samples.body(name))
            )
        except (MalformedBody, InvalidCallback):
            assert name in samples.MALFORMED
    return found


def documents() -> Books:
    return stated(*facts_of("straitsx"))


def test_all_samples_but_the_broken_one_are_facts() -> None:
    assert len(facts_of("straitsx")) == 24


def test_the_wallets_after_all_samples() -> None:
    books = documents()
    wallets = {
        currency: tuple(books.balance(f"assets:wallet:{part}", currency)
                        for part in ("available", "held"))
        for account, currency in books.sums if account == "assets:wallet:available"
    }  # fmt: skip
    assert wallets == {
        "XUSD": (Decimal("28953.5") - Decimal(0), Decimal("1001.5")),
        "XSGD": (Decimal("-12269.37"), Decimal("0.1")),
        "USD": (Decimal(-9900), Decimal(0)),
        "SGD": (Decimal(-500), Decimal(0)),
        "USDC": (Decimal(10000), Decimal(0)),
    }


def test_every_currency_sums_to_zero_over_all_accounts() -> None:
    books = documents()
    for currency in {currency for _, currency in books.sums}:
        total = sum(books.balance(a, c) for a, c in books.sums if c == currency)
        assert total == 0


def test_the_fx_payout_stated_both_completed_and_failed_is_the_only_conflict() -> None:
    books = documents()
    conflicts = {key: row for key, row in books.rows.items() if row.get("conflict")}
    ((kind, name),) = conflicts
    assert (kind, name) == ("fx_payout", "d4d1da72-111e-4d52-bdbf-2e74a2d803d5")
    assert conflicts[kind, name]["conflict"]["fields"] == ["status"]
    assert [row[4] for row in books.tables["exceptions"]] == ["conflict"]


def test_the_verification_statuses_after_all_samples() -> None:
    books = documents()
    statuses = {name[17:21]: row["verification_status"]
                for (kind, name), row in books.rows.items() if kind == "customer"}  # fmt: skip
    assert statuses == {"8bce": "verified", "a1b2": "verified", "9894": "verified",
                        "08d5": "rejected"}  # fmt: skip
    assert books.rows["bank_account", "1"]["verification_status"] == "verified"


def test_annual_and_daily_limits_stand_beside_each_other_after_all_samples() -> None:
    limits = documents().rows["limits", "customer_profile_12313123/abc_1234"]["limits"]
    assert limits["total_annual_payment_limit"] == "200000"
    assert limits["total_daily_payout_limit"] == "200000"
    assert limits["transaction_size_limit"] is None
    assert len(limits) == 9


def test_virtual_accounts_limit_requests_and_requests_for_information_after_all_samples() -> None:
    rows = documents().rows
    accounts = sorted(row["status"] for (kind, _), row in rows.items() if kind == "virtual_account")
    assert accounts == ["disabled", "enabled"]
    request = rows["limits_request", "customer_profile_12313123/abc_1234"]
    assert (request["status"], request["provider_id"]) == ("approved", "abc_1234")
    (rfi,) = [row for (kind, _), row in rows.items() if kind == "rfi"]
    assert (rfi["status"], rfi["customer_id"]) == ("sent", "customer_profile_123_abc")
    assert rfi["expires_at"].isoformat() == "2025-09-30T16:59:52+00:00"


def test_the_samples_mean_the_same_when_they_are_sent_again() -> None:
    facts = facts_of("straitsx")
    assert stated(*facts, *facts).meaning() == stated(*facts).meaning()


def test_gokart_samples_earn_revenue_and_owe_points() -> None:
    facts = facts_of("gokart")
    assert facts
    books = stated(*facts, terms=GOKART)
    assert books.parked == set()
    assert sum(books.balance(a, c) for a, c in books.sums if c == "PTS") == 0
