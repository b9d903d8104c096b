"""A file without a currency is of the wallet that the source declares for its account."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from ledger.config.statement_profile import profile_of
from ledger.errors import StatementRefused
from ledger.statements.model import Reading
from ledger.statements.reader import read_statement
from tests.statements import row, statement

ACCOUNTS = {"003-912345-6": "SGD", "SG0002": "XUSD"}
DBS = """Account Details For:,DBS Business Multi-Currency Account 003-912345-6
Statement as at:,30 Jun 2026

Date,Transaction Description 1,Transaction Description 2,Debit,Credit,Running Balance
01-Jun-2026,INWARD PAYNOW,INV-2201,,"1,150.00","11,150.00"
"""
COLUMN = "d,a,account\n2026-06-01,5,SG 0002\n"
NAMELESS = "d,a\n2026-06-01,5\n"
SWIFT = ":20:X\n:25:{}\n:28C:1\n:60F:C2606010,\n:61:2606010601C5,NTRFA-1\n:62F:C2606015,\n-\n"
PROFILE = {"effective_at": "d", "amount": "a", "time_zone": "UTC"}


@pytest.mark.parametrize(
    ("body", "settings", "account", "currency"),
    [
        (DBS, {}, None, "SGD"),
        (COLUMN, PROFILE | {"account": "account"}, None, "XUSD"),
        (NAMELESS, PROFILE, "sg 0002", "XUSD"),
        (SWIFT.format("SG0002"), {}, None, "XUSD"),
        (SWIFT.format(""), {}, "SG0002", "XUSD"),
    ],
)
def test_the_declared_wallet_is_the_currency(
    body: str, settings: Mapping[str, str], account: str | None, currency: str
) -> None:
    how = Reading(account=account, profile=profile_of(dict(settings)), accounts=ACCOUNTS)
    found = read_statement(body.encode(), how)
    assert found.currency == currency
    assert {line.currency for line in found.lines} == {currency}
    assert found.account in ACCOUNTS


@pytest.mark.parametrize("account", [None, "SG0003"])
def test_without_a_declared_account_the_currency_is_asked_for(account: str | None) -> None:
    how = Reading(account=account, profile=profile_of(PROFILE), accounts=ACCOUNTS)
    with pytest.raises(StatementRefused, match=r"give it \(--currency\), or the account"):
        read_statement(NAMELESS.encode(), how)


def test_a_currency_of_the_file_is_kept_beside_the_declared_wallet() -> None:
    """The wallet follows from the account, as for every file."""
    body = SWIFT.format("SG0002").replace("C2606010,", "C260601USD0,")
    found = read_statement(body.encode(), Reading(accounts=ACCOUNTS))
    assert found.currency == "USD"


def test_pages_of_straitsx_without_a_currency_are_of_the_account_given() -> None:
    body = statement([row("r1", "c1", "10", "2026-01-10T12:00:00Z")])
    assert read_statement(body, Reading(account="SG0002", accounts=ACCOUNTS)).currency == "XUSD"
