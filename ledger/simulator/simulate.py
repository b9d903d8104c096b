"""The provider simulator: samples of every kind, and made-up stories of several callbacks.

Everything here is a pure function of a seeded random generator: the same seed makes the same
stories, byte for byte.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from fnmatch import fnmatch
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Final, TypeAlias

import handlers
from ledger import registry
from ledger.simulator import money
from ledger.simulator import status as state
from ledger.simulator.deal import Deal, deal

STRAITSX: Final = "straitsx"
GOKART: Final = "gokart"
SAMPLES: Final = Path(handlers.__path__[0]) / "samples"

Body: TypeAlias = Callable[[Deal, str, int], bytes]

_MAIN_AMOUNTS: Final = (
    rb'"(?:amount|total_amount|totalAmount|netAmount|net_amount|revenue)"\s*:\s*"?'
)
_AMOUNT: Final = re.compile(rb"(" + _MAIN_AMOUNTS + rb")(\d+)")
_SWAP_AMOUNT: Final = re.compile(rb'("targetCurrencyAmount"\s*:\s*"?)(\d+)')


@dataclass(frozen=True, slots=True)
class SimulatedCallback:
    """One callback to send: the provider that sends it, its URL's event name, its body."""

    provider: str
    event: str | None
    body: bytes
    name: str = ""


@dataclass(frozen=True, slots=True)
class Script:
    """How one kind of callback is made: its provider, event name, body and final status."""

    provider: str
    event: str | None
    body: Body
    final: str
    currency: str = "xsgd"


SCRIPTS: Final[Mapping[str, Script]] = {
    "payment": Script(STRAITSX, "paymentStatusUpdated", money.payment, "completed"),
    "payout": Script(STRAITSX, "payoutStatusUpdated", money.payout, "completed"),
    "fx_payout": Script(STRAITSX, "cpFxPayoutStatusUpdated", money.fx_payout, "completed", "xusd"),
    "user_deposit": Script(STRAITSX, "userDepositStatusUpdated", money.user_deposit, "completed"),
    "user_withdrawal": Script(
        STRAITSX, "userWithdrawalStatusUpdated", money.user_withdrawal, "completed"
    ),
    "swap": Script(STRAITSX, "swapUpdated", money.swap, "completed"),
    "chain_deposit": Script(
        STRAITSX, "stablecoinDepositStatusUpdated", money.chain_deposit, "completed"
    ),
    "chain_withdrawal": Script(
        STRAITSX, "stablecoinWithdrawalStatusUpdated", money.chain_withdrawal, "completed"
    ),
    "customer": Script(STRAITSX, "cpVerificationStatusUpdated", state.customer, "verified"),
    "bank_account": Script(
        STRAITSX, "cpbaVerificationStatusUpdated", state.bank_account, "verified"
    ),
    "virtual_account": Script(
        STRAITSX, "virtualAccountStatusUpdated", state.virtual_account, "enabled"
    ),
    "limits": Script(STRAITSX, "cpTxnLimitsUpdated", state.limits, "Annual"),
    "limits_request": Script(
        STRAITSX, "cpTxnLimitsUpdateRequestStatusUpdated", state.limits_request, "approved"
    ),
    "rfi": Script(STRAITSX, "cpRfiStatusUpdated", state.rfi, "completed"),
    "conversion": Script(GOKART, None, money.conversion, "Success"),
}
"""Kind → how a callback of that kind is made."""


def fresh(kinds: Sequence[str], rng: Random, count: int) -> list[SimulatedCallback]:
    """Make `count` callbacks in their final status, taking the kinds in turn; every id is new."""
    return [_one(kinds[n % len(kinds)], rng) for n in range(count)]


def story(kind: str, rng: Random, n: int = 1) -> list[SimulatedCallback]:
    """Make `n` stories of a scenario (`refund`, `return` …), or make `n` callbacks of a kind.

    Raises KeyError for a name that is neither in SCENARIOS nor in SCRIPTS.
    """
    if kind in SCENARIOS:
        return [callback for _ in range(n) for callback in SCENARIOS[kind](rng)]
    return [_one(kind, rng) for _ in range(n)]


def _one(kind: str, rng: Random) -> SimulatedCallback:
    return _steps(kind, deal(rng, SCRIPTS[kind].currency), ((SCRIPTS[kind].final, 5),))[0]


def _steps(kind: str, d: Deal, steps: Iterable[tuple[str, int]]) -> list[SimulatedCallback]:
    """Write one callback per (status, minutes since the deal began)."""
    script = SCRIPTS[kind]
    return [
        SimulatedCallback(
            script.provider, script.event, script.body(d, status, minutes), f"{kind} {status}"
        )
        for status, minutes in steps
    ]


def _refund(rng: Random) -> list[SimulatedCallback]:
    paid, blocked = deal(rng), deal(rng, "xusd")
    return [
        *_steps("payment", paid, (("pending", 0), ("completed", 2), ("refunded", 90))),
        *_steps("payment", blocked, (("pending", 0), ("failed", 30), ("refunded", 60))),
    ]


def returned(rng: Random, began: datetime | None = None) -> list[SimulatedCallback]:
    """Make a payout that the bank sends back, begun at a given time or at any."""
    sent = deal(rng, created=began)
    back = replace(deal(rng, created=began), amount=sent.amount, fees=sent.fees * 0,
                   customer_id="",  # a bank knows no customer of ours
                   remarks=f"RTN {sent.idempotency_id}")  # fmt: skip
    return [
        *_steps("payout", sent, (("pending", 0), ("completed", 3))),
        *_steps("payment", back, (("completed", 1),)),
    ]


def _kyc(rng: Random) -> list[SimulatedCallback]:
    d = deal(rng)
    resubmitted = (("pending", 0), ("rejected", 30), ("pending", 60), ("verified", 90))
    return [
        *_steps("customer", d, resubmitted),
        *_steps("bank_account", d, (("pending", 0), ("verified", 10))),
        *_steps("virtual_account", d, (("pending", 0), ("enabled", 0))),
        *_steps("limits", d, (("Annual", 0), ("Daily", 1))),
        *_steps("limits_request", d, (("pending", 0), ("approved", 20))),
        *_steps("rfi", d, (("sent", 0), ("received", 40), ("completed", 80))),
    ]


def _swap(rng: Random) -> list[SimulatedCallback]:
    return _steps("swap", deal(rng), (("pending", 0), ("completed", 1)))


def _everything(rng: Random) -> list[SimulatedCallback]:
    made = [callback for scenario in (_refund, returned, _kyc, _swap) for callback in scenario(rng)]
    for kind in ("user_deposit", "user_withdrawal", "chain_deposit", "chain_withdrawal"):
        made += _steps(kind, deal(rng), (("pending", 0), ("completed", 4)))
    made += _steps("payout", deal(rng), (("pending", 0), ("failed", 6)))
    for last in ("completed", "failed"):
        made += _steps("fx_payout", deal(rng, "xusd"), (("pending", 0), (last, 9)))
    rewarded, rejected = deal(rng), deal(rng)
    made += _steps("conversion", rewarded, (("Pending", 0), ("Success", 60)))
    made += _steps("conversion", rejected, (("Pending", 0), ("Success", 60), ("Rejected", 600)))
    return made


SCENARIOS: Final[Mapping[str, Callable[[Random], list[SimulatedCallback]]]] = {
    "refund": _refund,
    "return": returned,
    "kyc": _kyc,
    "swap": _swap,
    "everything": _everything,
}
"""Name → a story of several callbacks that belong together, in the order they happen."""


def conflicting(callback: SimulatedCallback) -> SimulatedCallback | None:
    """Return the same callback with another amount, or None when the callback names no amount."""
    pattern = _SWAP_AMOUNT if _SWAP_AMOUNT.search(callback.body) else _AMOUNT
    body, count = pattern.subn(
        lambda match: match[1] + str(int(match[2]) + 1).encode(), callback.body
    )
    return replace(callback, body=body, name=f"{callback.name} (conflict)") if count else None


def disturb(
    callbacks: Sequence[SimulatedCallback], rng: Random, *, duplicate: float = 0.0,
    shuffle: bool = False, conflict: bool = False,
) -> list[SimulatedCallback]:  # fmt: skip
    """Return the callbacks with a `duplicate` share (0..1) sent twice, reordered, contradicted.

    A repeated callback comes anywhere after its first delivery; with `conflict` one callback
    in ten that names an amount, and at least one, is followed by a contradicting twin.
    """
    sent = list(callbacks)
    if conflict:
        twins = [twin for twin in map(conflicting, callbacks) if twin]
        sent += rng.sample(twins, min(len(twins), max(1, len(twins) // 10)))
    if shuffle:
        rng.shuffle(sent)
    placed = list(enumerate(sent))
    for place, callback in rng.sample(placed, round(len(sent) * duplicate)):
        placed.append((rng.randint(place, len(sent)), callback))
    return [callback for _, callback in sorted(placed, key=lambda pair: pair[0])]


@lru_cache(maxsize=1)
def samples() -> tuple[SimulatedCallback, ...]:
    """Return every sample, those of the documents first, in their order.

    A sample's name is its path without the suffix (`straitsx/06-payout-usd`); those under
    `more/` come last.
    """
    return tuple(
        SimulatedCallback(
            path.parent.name,
            None,
            path.read_bytes(),
            path.relative_to(SAMPLES).with_suffix("").as_posix(),
        )
        for path in sorted(SAMPLES.rglob("*.json"), key=_document_order)
    )


def _document_order(path: Path) -> tuple[bool, bool, str]:
    name = path.relative_to(SAMPLES).as_posix()
    return name.startswith("more/"), not name.startswith(STRAITSX), name


def chosen(patterns: Sequence[str]) -> list[SimulatedCallback]:
    """Return the samples whose kind or name fits one of the patterns; all main ones without any.

    A pattern is a kind (`payout`) or a glob over names (`straitsx/0*`, `*refunded*`).
    """
    if not patterns:
        return [sample for sample in samples() if not sample.name.startswith("more/")]
    return [sample for sample in samples() if _fits(patterns, sample)]


def _fits(patterns: Sequence[str], sample: SimulatedCallback) -> bool:
    kind = registry.load().read(sample.provider, None, sample.body).envelope.kind
    words = (kind, sample.name, sample.name.rpartition("/")[2])
    return any(fnmatch(word, pattern) for word in words for pattern in patterns)
