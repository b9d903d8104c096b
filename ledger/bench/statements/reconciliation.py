"""`ledger bench reconcile`: how long matching a month's lines takes, and in how much memory."""

from __future__ import annotations

import resource
import sys
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any, Final

import orjson

from ledger.config.reconciliation import Rules
from ledger.model import changed
from ledger.reconciliation.coverage import Coverage
from ledger.reconciliation.items import DatedAmount, LedgerMovement, Period, StatementItem, sum_of
from ledger.reconciliation.matching import Matching
from ledger.reconciliation.result import RECONCILED, LedgerBalances, Result, build_result
from ledger.reconciliation.unmatched import add_unmatched
from ledger.terminal import tables

PERIOD: Final = Period(datetime(2026, 6, 1, tzinfo=UTC), datetime(2026, 7, 1, tzinfo=UTC))
SEED: Final = 1


def run(lines: int, *, as_banks: bool, json: bool) -> int:
    """Match as many lines with as many transactions; print the figures.

    With `as_banks` each line is dated by its day and has its ids among its names. Returns 0, or 1
    when the result is not the one that was made up.
    """
    begun = time.perf_counter()
    items, moves = made_up(lines, Random(SEED))  # noqa: S311 - made-up money
    if as_banks:
        items = [as_of_bank(item) for item in items]
    made = time.perf_counter()
    result = reconciled(items, moves)
    done = time.perf_counter()
    is_right = result.state == RECONCILED and result.figures["lines_matched"] == len(items)
    found: dict[str, Any] = {
        "bench": "reconcile",
        "lines": len(items),
        "transactions": len(moves),
        "as_banks": as_banks,
        "made_seconds": round(made - begun, 2),
        "seconds": round(done - made, 2),
        "lines_per_second": round(len(items) / (done - made)),
        "memory_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "state": result.state,
        "sha256": result.sha256,
        "ok": is_right,
    }
    if json:
        sys.stdout.write(orjson.dumps(found).decode() + "\n")
    else:
        tables.show_one(found, tables.console())
    return 0 if is_right else 1


def reconciled(items: list[StatementItem], moves: list[LedgerMovement]) -> Result:
    """Match and build the result, as the reconcile step does."""
    matching = Matching.of(PERIOD, Rules(), items, moves)
    matching.match()
    closing = sum_of(item.amount for item in items)
    balance = sum_of(amount for move in moves for _, amount in move.legs)
    return build_result(
        "bench",
        "XSGD",
        coverage=Coverage(PERIOD, Decimal(0), closing, ()),
        ledger=LedgerBalances(Decimal(0), balance),
        groups=add_unmatched(matching, {}),
        decisions={},
        rules=Rules(),
    )


def made_up(count: int, rng: Random) -> tuple[list[StatementItem], list[LedgerMovement]]:
    """Return about `count` lines and transactions that agree.

    Of ten transactions six are named by their contract, two of those with a fee row beside, two
    by their idempotency id, one by its reference and one by nothing but its amount and time.
    """
    items: list[StatementItem] = []
    moves: list[LedgerMovement] = []
    for n in range(count):
        at = PERIOD.opened_at + (PERIOD.cutoff - PERIOD.opened_at) * rng.random()
        # The last digits make the amount of an unnamed line one of a kind.
        amount = Decimal(rng.randrange(1, 10**8) * 10**6 + n) / 10**8
        fee = Decimal(1) if n % 10 < 2 else Decimal(0)
        legs: tuple[DatedAmount, ...] = ((at, amount - fee),)
        moves.append(
            LedgerMovement("payment", f"contract_{n}", legs, fee, f"idem-{n}", (f"ref-{n}",))
        )
        later = at + timedelta(seconds=rng.randrange(60))
        contract, idempotency, reference = _names(n)
        items.append(
            StatementItem(f"e{n}", "Transfer", amount, later, contract, idempotency, reference)
        )
        if fee:
            items.append(StatementItem(f"f{n}", "Fee", -fee, later, contract))
    return items, moves


def as_of_bank(item: StatementItem) -> StatementItem:
    """Return a line as a bank states it: a day without a time, and names that are not typed."""
    number = item.id[1:]
    own = [name for name in (item.contract, item.idempotency, item.reference) if name]
    return changed(
        item,
        kind="PMNT-RCDT-CHRG" if item.kind == "Fee" else "PMNT-RCDT-ESCT",
        at=item.at.replace(hour=0, minute=0, second=0, microsecond=0),
        contract=None,
        idempotency=None,
        reference=None,
        names=(*own, f"MSG-{number}") if own else (),
        counterparty=f"PAYER {number} PTE LTD",
        description="Transfer as agreed",
        booked_at=item.at.replace(hour=0, minute=0, second=0, microsecond=0),
    )


def _names(n: int) -> tuple[str | None, str | None, str | None]:
    match n % 10:
        case 6 | 7:
            return None, f"idem-{n}", None
        case 8:
            return None, None, f"ref-{n}"
        case 9:
            return None, None, None
        case _:
            return f"contract_{n}", f"idem-{n}", None
