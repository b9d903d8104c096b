"""Customers by the hundred thousand: what a provider tells of each, for measuring lists."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import orjson

from ledger.simulator.simulate import STRAITSX, SimulatedCallback

EVENTS_EACH: Final = 9
"""Callbacks about one customer."""

UNVERIFIED_EVERY: Final = 10
DRIFTING_EVERY: Final = 10
STUCK_EVERY: Final = 10
"""One customer in so many has money without being verified, limits that drift, a payout that waits
for ever."""

STEP: Final = timedelta(seconds=1)
PAID_ON: Final = datetime(2026, 1, 5, 4, tzinfo=UTC)


def callbacks_of(first: int, count: int, limits_at: datetime) -> Iterator[SimulatedCallback]:
    """Tell of the customers from number `first` on; of each all there is, one after the other.

    `limits_at` is when the callbacks about limits arrive: what is used is counted up to then.
    """
    for number in range(first, first + count):
        at = (PAID_ON + STEP * (number % 86_400)).isoformat()
        today = (limits_at - timedelta(minutes=1)).isoformat()
        yield from _of(f"customer_{number:07}", number, at, today)


def _of(name: str, number: int, at: str, today: str) -> Iterator[SimulatedCallback]:
    is_verified = number % UNVERIFIED_EVERY != 0
    used = 10 + (number % DRIFTING_EVERY == 0)
    stays = "pending" if number % STUCK_EVERY == 0 else "completed"
    owner = {"customerProfileId": name}
    yield _typed("customer_profile", name, {
        "registrationType": "personal", "country": "SG", "createdAt": at, "updatedAt": at,
        "verificationStatus": "verified" if is_verified else "pending",
    })  # fmt: skip
    yield _typed("virtual_bank_account", f"va_{name}", {
        "currency": "USD", "status": "enabled", "referenceId": f"ref_{name}", "createdAt": at,
        "instructions": {"accountNo": f"88{number:07}"},
    })  # fmt: skip
    yield SimulatedCallback(STRAITSX, "cpbaVerificationStatusUpdated", orjson.dumps({
        "id": f"bank_{name}", "account_no": f"77{number:07}", "bank_abbrev": "DBS",
        "verification_status": "verified", "customer_profile_id": name, "updated_at": at,
    }))  # fmt: skip
    yield _money("Direct bank transfer", f"pay_{name}", "completed", today, {
        "amount": "10.0", "customer_profile_id": name,
        "payment_method": {"id": f"va_{name}", "account_no": f"88{number:07}"},
    })  # fmt: skip
    yield _money("Withdrawal on behalf", f"out_{name}", stays, at, {
        "amount": "1.0", "customer_profile_id": name, "account_no": "1234567890",
    })  # fmt: skip
    yield _typed("transactionLimits", f"limits_{name}", {
        **owner, "totalDailyPaymentLimit": 100, "availableDailyPaymentLimit": 100 - used,
    })  # fmt: skip
    yield _typed("transactionLimitsUpdateRequest", f"request_{name}", {
        **owner, "status": "approved", "createdAt": at, "updatedAt": at,
    })  # fmt: skip
    asked = {"status": "sent", "createdAt": at, "expiryDate": at}
    yield SimulatedCallback(STRAITSX, None, orjson.dumps({
        "id": f"rfi_{name}", "type": "rfiRequest", **owner,
        "attributes": {"activeRfRequest": asked},
    }))  # fmt: skip
    yield SimulatedCallback(STRAITSX, None, b'{"nobody": "understands", "number": %d}' % number)


def _typed(kind: str, name: str, attributes: dict[str, Any]) -> SimulatedCallback:
    body = {"data": {"id": name, "type": kind, "attributes": attributes}}
    return SimulatedCallback(STRAITSX, None, orjson.dumps(body))


def _money(kind: str, name: str, status: str, at: str, more: dict[str, Any]) -> SimulatedCallback:
    body = {
        "id": name, "type": kind, "status": status, "currency": "xsgd", "fees": "0.0",
        "idempotency_id": f"idem_{name}", "created_at": at, "updated_at": at, **more,
    }  # fmt: skip
    return SimulatedCallback(STRAITSX, None, orjson.dumps(body))
