"""What a provider may tell: strategies for streams of facts, consistent and contradicting."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from decimal import Context, Decimal
from typing import Any

from hypothesis import strategies as st

from ledger.model import Fact, OwnerRule, SourceTerms, changed, total
from tests.property.driver import at, attribute, money, word

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
PAID_OUT = ("payout", "user_withdrawal", "fx_payout")

MINUTES_MAX = 10_000
minutes = st.integers(0, MINUTES_MAX)
amounts = st.one_of(
    st.decimals(min_value=0, max_value=10**9, places=6),
    st.builds(lambda n: Decimal(n).scaleb(-18, _WIDE), st.integers(0, 10**38 - 1)),
).map(lambda amount: amount.copy_abs())
"""Amounts up to all the digits that a callback may have: 20 before the point, 18 after."""
fees = st.decimals(min_value=0, max_value=50, places=2).map(lambda d: d.copy_abs())
customers = st.sampled_from([None, "customer_1", "customer_2"])
idempotency_ids = st.sampled_from(["idem-1", "idem-2", "idem-3"])
currencies = st.sampled_from(["XSGD", "XUSD", "SGD"])
wallet_maps = st.fixed_dictionaries(
    {},
    optional={
        "payout.sgd": st.just("XSGD"),
        "payment.sgd": st.sampled_from(["XSGD", "USD"]),
        "swap.usdc": st.just("USD"),
        "swap.xsgd": st.just("USD"),
    },
)
owner_rules = st.none() | st.builds(
    OwnerRule,
    st.sampled_from(["idempotency_id", "external_reference", "payout_invoice_id"]),
    st.just("^cust-(.+)-[0-9]+$"),
)
terms = st.builds(
    lambda wallets, rule: SourceTerms("straitsx", "straitsx", "USD", wallets, rule),
    wallet_maps,
    owner_rules,
)
"""Sources whose books do not depend on when a callback was received."""
all_terms = st.builds(replace, terms, date_by=st.sampled_from(["creation", "receipt"]))

PAYOUT_NAMES = ["po", "po 1", "po 1 x", "cust-customer_1-1", "cust-customer_3-2", "contract_1"]
REMARKS = [
    *PAYOUT_NAMES[:4], "po 1 x y", "po 2", "contract_0", "nobody knows", "", "po RTN contract_1",
]  # fmt: skip


def candidates(remarks: str) -> list[str]:
    """Return the ids that remarks may name after RTN, longest first."""
    found = []
    for part in remarks.split(" RTN "):
        words = part.split()
        found += [" ".join(words[:count]) for count in range(len(words), 0, -1)]
    return sorted(found, key=len, reverse=True)


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
    if kind in REFUNDABLE:
        remarks = draw(st.none() | st.sampled_from(REMARKS))
        details["returned_ids"] = None if remarks is None else candidates(remarks)
    if kind in PAID_OUT:
        reference = st.sampled_from([None, "cust-customer_2-5", "rent"])
        details["external_reference"], details["payout_invoice_id"] = draw(reference), None
    changes: dict[str, Any] = {}
    if kind in ("swap", "fx_payout"):
        name = "target" if kind == "swap" else "to"
        changes["terms"] = {f"{name}_amount": f"{draw(fees):f}", f"{name}_currency": "USDC"}
    return money(
        kind,
        "pending",
        0,
        resource_id=resource,
        amount=draw(amounts),
        currency=draw(currencies),
        fees=draw(st.none() | fees),
        customer_id=draw(customers),
        idempotency_id=draw(st.sampled_from(PAYOUT_NAMES)) if kind in PAID_OUT else None,
        details=details,
        **changes,
    )


@st.composite
def reports(draw: Callable[..., Any], base: Fact, stated: list[str]) -> list[Fact]:
    """Draw what is said of a transaction: restatements, gaps that others fill, provisional fees.

    What two callbacks of one status and one time say differs in gaps only: nothing but their
    places in the log would decide between them.
    """
    created = draw(st.none() | minutes)
    is_provisional = draw(st.booleans())
    found = []
    for status in stated:
        for _ in range(draw(st.integers(1, 2))):
            is_created = created is not None and draw(st.integers(0, 3)) > 0
            minute = created if created is not None and is_created else draw(minutes)
            gaps = draw(st.integers(0, 15))
            known = base.fees
            if status == "pending" and is_provisional:
                known = Decimal(minute % 4)
            details = {**base.details}
            if "returned_ids" in details and not minute % 5:
                details["returned_ids"] = ["contract_0"]
            if not gaps & 1:
                details.pop("returned_ids", None)
            found.append(
                changed(
                    base,
                    status=status,
                    effective_at=at(minute),
                    fees=known if gaps & 2 else None,
                    customer_id=base.customer_id if gaps & 4 else None,
                    terms=base.terms if gaps & 8 else {},
                    details={**details, "note": "abc"[minute % 3], "remark": _remark(minute)},
                    flags=_flags(status, is_created=is_created),
                )
            )
    return found


def _remark(minute: int) -> str | None:
    return f"said at {minute}" if minute % 2 else None


def _flags(status: str, *, is_created: bool) -> tuple[str, ...]:
    return ("dated_by_creation",) if is_created and status != "pending" else ()


@st.composite
def transactions(draw: Callable[..., Any], resource: str | None = None) -> list[Fact]:
    """Draw everything that is reported of one transaction, restatements included."""
    base = draw(bases(resource or f"resource_{draw(st.integers(0, 9))}"))
    return draw(reports(base, draw(statuses(base.kind))))


@st.composite
def payouts(draw: Callable[..., Any], resource: str, shared: str | None) -> list[Fact]:
    """Draw what is reported of money that is sent, and may come back; its id may be `shared`."""
    kind = draw(st.sampled_from(PAID_OUT))
    base = money(
        kind,
        "pending",
        0,
        resource_id=resource,
        amount=draw(st.sampled_from([Decimal(100), Decimal("153.00"), Decimal(5000)])),
        currency=draw(st.sampled_from(["XSGD", "XSGD", "XSGD", "SGD"])),
        fees=draw(st.none() | fees),
        customer_id=draw(customers),
        idempotency_id=draw(st.sampled_from([*PAYOUT_NAMES, PAYOUT_NAMES[3], *[shared] * 3])),
        details={"external_reference": draw(st.sampled_from([None, "cust-customer_2-5"]))},
    )
    stated = draw(st.sampled_from([["completed"], ["completed"], ["pending"], ["failed"]]))
    return draw(reports(base, ["pending", *stated] if draw(st.booleans()) else stated))


_PARTS = ["0.01", "1", "17", "33.33", "100", "153", "5000", "5000.01", "1E-18"]
_RETURN_STATUSES = [
    *[["completed"]] * 16, ["pending", "completed"], ["completed", "refunded"], ["pending"],
    ["failed"], ["expired"], ["refunded"],
]  # fmt: skip
_returns = st.tuples(
    st.sampled_from(REFUNDABLE),
    st.sampled_from(_PARTS),
    st.sampled_from(_RETURN_STATUSES),
    st.sampled_from([None, None, None, "customer_1", "customer_2", "customer_3"]),
    st.sampled_from([*["XSGD"] * 12, "SGD", "XUSD"]),
    st.sampled_from(REMARKS),
    minutes,
)


@st.composite
def returns(draw: Callable[..., Any], count_max: int = 40) -> list[list[Fact]]:
    """Draw payouts, and up to so many incoming transactions that bring them back, or pretend to."""
    names = [f"contract_{n}" for n in range(4)] + ["po 1"]
    resources = draw(st.lists(st.sampled_from(names), max_size=4, unique=True))
    shared = draw(st.none() | st.sampled_from(PAYOUT_NAMES))
    streams = [draw(payouts(resource, shared)) for resource in resources]
    known = {name for stream in streams for f in stream for name in (f.idempotency_id,) if name}
    mostly = draw(st.sampled_from([*sorted(known), *resources, "po 1 x y", None]))
    count = min(count_max, draw(st.sampled_from([0, 1, 2, 3, 6, 17, 25, 40])))
    drawn = draw(st.lists(_returns, min_size=count, max_size=count))
    for n, (kind, amount, stated, customer, currency, remarks, minute) in enumerate(drawn):
        said = remarks if mostly is None or n % 8 == 7 else mostly
        streams.append(
            [
                money(
                    kind,
                    status,
                    minute + step,
                    resource_id=f"return_{n}",
                    amount=Decimal(amount),
                    currency=currency,
                    fees=Decimal(0),
                    customer_id=customer,
                    details={"returned_ids": candidates(said)},
                )
                for step, status in enumerate(stated)
            ]
        )
    return streams


@st.composite
def attributions(draw: Callable[..., Any], facts: list[Fact]) -> list[Fact]:
    """Draw decisions, in log order, whose money transactions are, some of them taken back."""
    attributable = [fact for fact in facts if fact.kind in MONEY_KINDS]
    if not attributable:
        return []
    customer = st.sampled_from(["customer_1", "customer_3", None])
    drawn = draw(st.lists(st.tuples(st.sampled_from(attributable), customer), max_size=4))
    return [attribute(*each) for each in drawn]


@st.composite
def placed(draw: Callable[..., Any], facts: list[Fact], decisions: list[Fact]) -> list[Fact]:
    """Draw a log of facts in any order, and decisions in theirs.

    Each comes after a fact on what it is about: before, there is nothing to decide on.
    """
    order = list(draw(st.permutations(facts)))
    first: dict[tuple[Any, Any], int] = {}
    for place, fact in enumerate(order):
        first.setdefault((fact.kind, fact.resource_id), place)
    gaps: list[int] = []
    for each in decisions:
        low = 1 + first[each.details["kind"], each.details["resource"]]
        gaps.append(draw(st.integers(max([low, *gaps]), len(order))))
    for gap, each in reversed([*zip(gaps, decisions, strict=True)]):
        order.insert(gap, each)
    return order


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
    kinds = ["customer", "bank_account", "virtual_account", "limits_request", "rfi"]
    kind = draw(st.sampled_from(kinds))
    words = {
        "virtual_account": ["pending", "enabled", "disabled"],
        "limits_request": ["pending", draw(st.sampled_from(["approved", "rejected"]))],
        "rfi": ["sent", "received", "expired", "completed"],
    }.get(kind, ["pending", "verified", "rejected"])
    times = draw(st.lists(minutes, min_size=1, max_size=5, unique=True))
    return [
        word(kind, draw(st.sampled_from(words)), minute, resource_id=resource,
             customer_id=draw(st.sampled_from([None, "customer_1", "customer_2"])),
             details={name: draw(st.sampled_from([None, *"abc"])) for name in ("note", "bank")})
        for minute in times
    ]  # fmt: skip


@st.composite
def stories(draw: Callable[..., Any]) -> list[Fact]:
    """Draw a log in which nothing contradicts itself and every time is the provider's."""
    found: list[Fact] = []
    for n in range(draw(st.integers(1, 5))):
        report = draw(st.sampled_from([transactions, transactions, conversions, people]))
        found += draw(report(f"resource_{n}"))
    if draw(st.booleans()):
        found += [fact for stream in draw(returns(6)) for fact in stream]
    return found


@st.composite
def contradictions(draw: Callable[..., Any], resource: str = "clash_x") -> list[Fact]:
    """Draw a transaction of which two facts cannot both be true; the first comes first."""
    base = draw(bases(resource))
    base = changed(base, fees=base.fees or Decimal(1), customer_id=base.customer_id or "customer_1")
    ways: list[dict[str, Any]] = [
        {"amount": total(base.amount or Decimal(0), Decimal(1))},
        {"currency": "USDT"},
        {"customer_id": "customer_9"},
    ]
    first = changed(base, status="completed", effective_at=at(draw(minutes)))
    if base.kind not in REFUNDABLE and draw(st.booleans()):
        change: dict[str, Any] = {"status": "failed"}
    elif draw(st.booleans()):
        change = {"fees": (base.fees or Decimal(0)) + 1}
    else:
        status = draw(st.sampled_from(["pending", "completed"]))
        change = draw(st.sampled_from(ways)) | {"status": status}
    second = changed(first, effective_at=at(draw(minutes)), **change)
    return [first, second]


@st.composite
def troubled_stories(draw: Callable[..., Any]) -> list[Fact]:
    """Draw any log: consistent transactions, contradictions, decisions, in any order."""
    found = draw(stories())
    for n in range(draw(st.integers(0, 2))):
        found += draw(contradictions(f"clash_{n}"))
    order = list(draw(st.permutations(found)))
    for decision in draw(attributions(found)):
        order.insert(draw(st.integers(0, len(order))), decision)
    return order


@st.composite
def any_logs(draw: Callable[..., Any]) -> list[Fact]:
    """Draw any log, also with facts that the fold refuses and statuses that no document names."""
    order = draw(troubled_stories())
    money_facts = [fact for fact in order if fact.kind in MONEY_KINDS]
    oddities: list[dict[str, Any]] = [{"amount": None}, {"status": "unknown:teleported"}]
    if money_facts:
        odd = st.tuples(st.sampled_from(money_facts), st.sampled_from(oddities))
        for fact, change in draw(st.lists(odd, max_size=2)):
            order.insert(draw(st.integers(0, len(order))), changed(fact, **change))
    return order


batchings = st.lists(st.integers(1, 7), max_size=12)
