"""A declared rule posts what it names, once, and nothing else."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from ledger.config.reconciliation import Rules, rules_of
from ledger.model import changed
from ledger.reconciliation.coverage import Coverage
from ledger.reconciliation.items import Period
from ledger.reconciliation.posting_rules import postings_of
from ledger.reconciliation.result import Break, Result

NOON = datetime(2026, 1, 10, 12, tzinfo=UTC)
FEES = {"name": "small fees", "type": "FEE", "below": "1", "account": "expenses:fees"}
MONTHLY = {
    "name": "monthly", "type": ["missing_in_ledger"], "below": "50", "currency": "xsgd",
    "line": "Account Fee*", "account": "expenses:bank",
}  # fmt: skip


def rules(*declared: dict[str, Any], **more: Any) -> Rules:
    return rules_of({"rules": list(declared), **more})


def difference(kind: str, amount: str, *items: str, **more: Any) -> Break:
    made = Break(
        f"{kind}{amount}", kind, "OPEN", items[0] if items else "contract:1", "contract", items,
        Decimal(amount), Decimal(amount), NOON, 0, "0-1d", "operations", "",
    )  # fmt: skip
    return changed(made, **more)


def posted(declared: Rules, *breaks: Break, **texts: tuple[str, str]) -> list[dict[str, Any]]:
    coverage = Coverage(Period(NOON, NOON), None, None, ())
    result = Result("straitsx", "XSGD", "BREAKS", coverage, "", (), breaks, {}, (), "")
    return list(postings_of(result, declared, {f"line:{k}": v for k, v in texts.items()}))


def test_a_rule_posts_differences_of_its_type_below_its_amount() -> None:
    bodies = posted(
        rules(FEES),
        difference("FEE", "0.99"), difference("FEE", "-0.5"), difference("FEE", "1"),
        difference("AMOUNT", "0.5"), difference("FEE", "0.1", state="RESOLVED"),
        difference("FEE", "0.2", action="reopen"), difference("FEE", "0.3", action="note"),
    )  # fmt: skip
    assert [(b["difference"], b["legs"]) for b in bodies] == [
        (amount, [{"account": "assets:wallet:available", "amount": other},
                  {"account": "expenses:fees", "amount": amount}])
        for amount, other in (("0.99", "-0.99"), ("-0.5", "0.5"), ("0.3", "-0.3"))
    ]  # fmt: skip
    first = bodies[0]
    assert (first["action"], first["by"], first["rule"]) == ("rule", "rule", "small fees")
    assert first["note"].startswith("small fees: FEE below 1, rules ")
    assert bodies == posted(rules(FEES), *(
        difference("FEE", b["difference"], action=None) for b in bodies))  # fmt: skip


def test_a_pattern_is_about_the_type_or_the_description_of_every_line() -> None:
    texts = {
        "a": ("account fee", ""), "b": ("DEBIT", "Account fee June"), "c": ("DEBIT", "Payout"),
    }  # fmt: skip
    bodies = posted(
        rules(MONTHLY),
        difference("MISSING_IN_LEDGER", "20", "line:a"),
        difference("MISSING_IN_LEDGER", "21", "line:b"),
        difference("MISSING_IN_LEDGER", "22", "line:c"),
        difference("MISSING_IN_LEDGER", "23", "line:a", "line:c"),
        difference("MISSING_IN_LEDGER", "24", "payment:1"),
        difference("MISSING_IN_LEDGER", "25", "line:unknown"),
        **texts,
    )
    assert [b["difference"] for b in bodies] == ["20", "21"]
    fees = {**MONTHLY, "type": "FEE"}
    fee = difference("FEE", "0.5", "line:a", "line:c", "payment:1")
    assert posted(rules(fees), fee, **texts) == []
    (body,) = posted(rules(fees), changed(fee, context=("line:c",)), **texts)
    assert body["difference"] == "0.5"
    usd = {**MONTHLY, "currency": "USD"}
    assert posted(rules(usd), difference("MISSING_IN_LEDGER", "20", "line:a"), **texts) == []


def test_the_first_rule_that_fits_counts_and_the_tolerance_comes_last() -> None:
    wide = {"name": "wide", "type": ["FEE", "AMOUNT"], "below": "5", "account": "expenses:other"}
    declared = rules(FEES, wide, tolerance={"XSGD": "10"})
    bodies = posted(
        declared, difference("FEE", "0.5"), difference("FEE", "4"), difference("AMOUNT", "4"),
        difference("AMOUNT", "9"), difference("FEE", "9"),
    )  # fmt: skip
    assert [(b["action"], b["rule"], b["difference"]) for b in bodies] == [
        ("rule", "small fees", "0.5"), ("rule", "wide", "4"), ("rule", "wide", "4"),
        ("tolerance", "tolerance", "9"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"type": "CONFLICT"}, "a rule's type is 'CONFLICT'"),
        ({"type": []}, "a rule's type is missing"),
        ({"below": 1}, "decimal amount in quotes"),
        ({"below": "0"}, "posts nothing"),
        ({"account": "assets:wallet:available"}, "none of expenses"),
        ({"name": ""}, "a rule's name is ''"),
        ({"name": "tolerance"}, "another name than tolerance"),
        ({"colour": "red"}, "a rule has name, type, below and account"),
    ],
)
def test_what_is_no_rule_is_refused(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        rules({**FEES, **change})


def test_rules_have_names_of_their_own_and_are_in_the_digest() -> None:
    with pytest.raises(ValueError, match="two rules have the name 'small fees'"):
        rules(FEES, FEES)
    assert len({rules().sha256, rules(FEES).sha256, rules({**FEES, "below": "2"}).sha256}) == 3
