"""What a provider may tell: strategies for streams of facts, consistent and contradicting."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Context, Decimal
from typing import Any

from hypothesis import strategies as st

from ledger.model import Fact, SourceTerms, changed, total
from tests.property.driver import at, money, word

_WIDE = Context(prec=99)

MONEY_KINDS = (
    "payment",
    "user_deposit",
    "payout",
    "fx_payout",
    "user_withdrawal",
    "swap",
    "chain_deposit",
    "chain_withdrawal",
)
REFUNDABLE = ("payment", "user_deposit")

minutes = st.integers(0, 10_000)
amounts = st.one_of(
    st.decimals(min_value=0, max_value=10**9, places=6),
    st.builds(lambda n: Decimal(n).scaleb(-18, _WIDE), st.integers(0, 10**38 - 1)),
).map(lambda amount: amount.copy_abs())
"""Amounts up to all the digits that a callback may have: 20 before the point, 18 after."""
fees = st.decimals(min_value=0, max_value=50, places=2).map(lambda d: d.copy_abs())
customers = st.sampled_from([None, "customer_1", "customer_2"])
idempotency_ids = st.sampled_from(["idem-1", "idem-2", "idem-3"])
wallet_maps = st.fixed_dictionaries(
    {},
    optional={
        "payout.sgd": st.just("XSGD"),
        "payment.sgd": st.sampled_from(["XSGD", "USD"]),
        "swap.usdc": st.just("USD"),
        "swap.xsgd": st.just("USD"),
    },
)
terms = st.builds(lambda wallets: SourceTerms("straitsx", "straitsx", "USD", wallets), wallet_maps)


@st.composite
def statuses(draw: Callable[..., Any], kind: str) -> list[str]:
    """Draw the statuses that one transaction may report without contradicting itself."""
    if kind in REFUNDABLE:
        every = ["pending", "failed", "expired", "completed", "refunded"]
        return draw(st.lists(st.sampled_from(every), min_size=1, unique=True))
    ends = draw(st.sampled_from([[], ["completed"], ["failed"]]))
    return ["pending", *ends] if not ends or draw(st.booleans()) else ends


@st.composite
def bases(draw: Callable[..., Any], resource: str, kinds: tuple[str, ...] = MONEY_KINDS) -> Fact:
    """Draw the material of one transaction."""
    kind = draw(st.sampled_from(kinds))
    details: dict[str, Any] = {}
    if kind == "payment":
        returned = draw(st.none() | idempotency_ids)
        details["returned_ids"] = None if returned is None else [returned]
    changes: dict[str, Any] = {}
    if kind == "swap":
        worth = draw(fees)
        changes["terms"] = {"target_amount": f"{worth:f}", "target_currency": "USDC"}
    return money(
        kind,
        "pending",
        0,
        resource_id=resource,
        amount=draw(amounts),
        currency=draw(st.sampled_from(["XSGD", "XUSD", "SGD"])),
        fees=draw(st.none() | fees),
        customer_id=draw(customers),
        idempotency_id=draw(idempotency_ids) if kind == "payout" else None,
        details=details,
        **changes,
    )


@st.composite
def transactions(draw: Callable[..., Any], resource: str | None = None) -> list[Fact]:
    """Draw everything that is told of one transaction, restatements included."""
    base = draw(bases(resource or f"resource_{draw(st.integers(0, 9))}"))
    found = []
    for status in draw(statuses(base.kind)):
        for _ in range(draw(st.integers(1, 2))):
            minute = draw(minutes)
            found.append(
                changed(
                    base,
                    status=status,
                    effective_at=at(minute),
                    fees=draw(st.sampled_from([base.fees, None])),
                    details={**base.details, "note": "abc"[minute % 3]},
                )
            )
    return found


@st.composite
def conversions(draw: Callable[..., Any], resource: str) -> list[Fact]:
    """Draw the callbacks on one conversion, in circles, over several events."""
    found = []
    for n in range(draw(st.integers(1, 4))):
        details = {
            "event": draw(st.sampled_from(["", "install", "purchase"])),
            "callback_id": f"c{n}",
            "reward_points": str(draw(st.integers(0, 90))),
            "member": draw(st.sampled_from(["m-1", "m-2"])),
        }
        found.append(
            word(
                "conversion",
                draw(st.sampled_from(["Pending", "Success", "Rejected"])),
                draw(minutes),
                resource_id=resource,
                amount=draw(fees),
                currency="USD",
                details=details,
            )
        )
    return found


@st.composite
def people(draw: Callable[..., Any], resource: str) -> list[Fact]:
    """Draw what is told of a customer, an account or a limit request, one time each."""
    kind = draw(st.sampled_from(["customer", "bank_account", "virtual_account", "limits_request"]))
    words = {
        "virtual_account": ["pending", "enabled", "disabled"],
        "limits_request": ["pending", draw(st.sampled_from(["approved", "rejected"]))],
    }.get(kind, ["pending", "verified", "rejected"])
    times = draw(st.lists(minutes, min_size=1, max_size=5, unique=True))
    return [
        word(kind, draw(st.sampled_from(words)), minute, resource_id=resource,
             details={"note": draw(st.sampled_from("abc"))})
        for minute in times
    ]  # fmt: skip


@st.composite
def stories(draw: Callable[..., Any]) -> list[Fact]:
    """Draw a log in which nothing contradicts itself and every time is the provider's."""
    found: list[Fact] = []
    for n in range(draw(st.integers(1, 5))):
        report = draw(st.sampled_from([transactions, transactions, conversions, people]))
        found += draw(report(f"resource_{n}"))
    return found


@st.composite
def contradictions(draw: Callable[..., Any], resource: str = "contract_x") -> list[Fact]:
    """Draw a transaction of which two facts cannot both be true; the first comes first."""
    base = draw(bases(resource))
    base = changed(
        base,
        fees=base.fees if base.fees is not None else Decimal(1),
        customer_id=base.customer_id or "customer_1",
    )
    ways: list[dict[str, Any]] = [
        {"amount": total(base.amount or Decimal(0), Decimal(1))},
        {"currency": "USDT"},
        {"fees": (base.fees or Decimal(0)) + 1},
        {"customer_id": "customer_9"},
    ]
    first = changed(base, status="completed", effective_at=at(draw(minutes)))
    if base.kind not in REFUNDABLE and draw(st.booleans()):
        change: dict[str, Any] = {"status": "failed"}
    else:
        change = draw(st.sampled_from(ways))
        if "fees" not in change:
            change = change | {"status": draw(st.sampled_from(["pending", "completed"]))}
    second = changed(first, effective_at=at(draw(minutes)), **change)
    return [first, second]


@st.composite
def troubled_stories(draw: Callable[..., Any]) -> list[Fact]:
    """Draw any log: consistent transactions, contradictions, unknown statuses, in any order."""
    found = draw(stories())
    for n in range(draw(st.integers(0, 2))):
        found += draw(contradictions(f"contract_{n}"))
    return list(draw(st.permutations(found)))


batchings = st.lists(st.integers(1, 7), max_size=12)
