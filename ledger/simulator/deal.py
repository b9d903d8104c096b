"""A made-up transaction and how providers spell its parts: what simulated bodies are made of."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any, Final

import msgspec

FIRST: Final = datetime(2026, 6, 1, tzinfo=UTC)
"""When made-up transactions begin."""

_GIVEN: Final = ("Mei", "Arjun", "Siti", "John", "Ettie", "Wei", "Nadia", "Tomás")
_FAMILY: Final = ("Tan", "Nair", "Rahman", "Doe", "Satterfield", "Lim", "Haddad", "Quintero")
_STREETS: Final = ("12 MARINA BOULEVARD, MBFC TOWER 3", "10 ALBERT STREET", "123 ORCHARD ROAD")
_ENCODER: Final = msgspec.json.Encoder(decimal_format="number")


@dataclass(frozen=True, slots=True)
class Deal:
    """What all callbacks of one made-up transaction have in common."""

    id: str
    idempotency_id: str
    amount: Decimal
    fees: Decimal
    currency: str
    customer_id: str
    person: str
    account_no: str
    street: str
    created: datetime
    remarks: str = "INVOICE SETTLEMENT"


def deal(rng: Random, currency: str = "xsgd", created: datetime | None = None) -> Deal:
    """Make up a transaction: fresh ids, 10.00 to 50,000.00, fees up to 5.00, in `currency`.

    Without a time it began at any moment of 120 days.
    """
    at_any_time = FIRST + timedelta(seconds=rng.randrange(120 * 86_400))
    return Deal(
        id=f"contract_{rng.randbytes(16).hex()}",
        idempotency_id=_uuid(rng),
        amount=Decimal(rng.randrange(1_000, 5_000_000)) / 100,
        fees=Decimal(rng.choice((0, 0, 50, 100, 250, 500))) / 100,
        currency=currency,
        customer_id=f"customer_profile_{_uuid(rng)}",
        person=f"{rng.choice(_GIVEN)} {rng.choice(_FAMILY)}",
        account_no=str(rng.randrange(10**11, 10**12)),
        street=rng.choice(_STREETS),
        created=created or at_any_time,
    )


def virtual_account_of(d: Deal) -> dict[str, str]:
    """Describe the virtual account that the deal's customer pays into."""
    return {
        "id": f"virtual_account_{d.customer_id.removeprefix('customer_profile_')}",
        "reference_id": d.person,
        "account_no": d.account_no,
        "bank_short_code": "DBS",
        "bank_name": "DBS Bank",
        "bank_address": f"{d.street}, SINGAPORE 018982",
        "bank_country": "Singapore",
        "swift_bic": "DBSSSGSGXXX",
        "recipient_name": d.person.upper(),
    }


def wrapped(resource_id: str, kind: str, attributes: Mapping[str, Any]) -> bytes:
    """Write the envelope `{"data": {id, type, attributes}}`."""
    return encode({"data": {"id": resource_id, "type": kind, "attributes": attributes}})


def encode(body: Mapping[str, Any]) -> bytes:
    """Write compact JSON; a `Decimal` becomes a number with exactly its digits."""
    return _ENCODER.encode(body)


def amount_text(amount: Decimal) -> str:
    """Spell an amount as StraitsX does: at least one digit after the point."""
    plain = f"{amount.normalize():f}"
    return plain if "." in plain else f"{plain}.0"


def instant(moment: datetime, minutes: int = 0) -> str:
    """Spell a moment in UTC with milliseconds, `minutes` later."""
    later = moment + timedelta(minutes=minutes)
    return later.strftime("%Y-%m-%dT%H:%M:%S.681Z")


def second(moment: datetime, minutes: int = 0) -> str:
    """Spell a moment in UTC without a fraction, `minutes` later."""
    return (moment + timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%SZ")


def singapore(moment: datetime, minutes: int = 0) -> str:
    """Spell a moment in Singapore's time, `minutes` later."""
    later = moment + timedelta(minutes=minutes, hours=8)
    return later.strftime("%Y-%m-%dT%H:%M:%S.033+08:00")


def _uuid(rng: Random) -> str:
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))
