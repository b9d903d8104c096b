"""Law: what a stream's row keeps for the fold changes with intent only.

Every version of the program reads what its own fold kept: a change here folds every log again.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from ledger import registry
from ledger.errors import InvalidCallback
from ledger.fold.views import _cause

MONEY = [
    "kind id facts materials details idempotency_ids unknown dropped keep decided_at "
    "attributed_at attributed_to is_attributed references",
    "status material effective_at positions event_id details flags fees latest earlier",
    "amount currency customer_id terms",
]
TIMED = ["status updated_at position customer_id details unknown"]
STORED = {
    "adjustment": [
        "currency position effective_at details words", "action by note at position request",
    ],
    "bank_account": TIMED,
    "chain_deposit": MONEY,
    "chain_withdrawal": MONEY,
    "close": ["status currency position details words", "action by note at position"],
    "conversion": [
        "events unknown dropped",
        "status sent_at callback_id position revenue currency points member idempotency_id flags "
        "details earlier",
    ],
    "customer": TIMED,
    "fx_payout": MONEY,
    "limits": ["provider_id customer_id limits dropped used customers", "amount position at"],
    "limits_request": [
        "statuses unknown keep decided_at provider_id", "updated_at positions event_id customer_id",
    ],
    "payment": MONEY,
    "payout": MONEY,
    "rfi": ["status updated_at customer details counts unknown", "value rank at position"],
    "statement": ["status currency details at"],
    "statement_line": [
        "status amount currency effective_at idempotency_id details at versions",
    ],
    "statement_part": ["file part parts"],
    "swap": MONEY,
    "user_deposit": MONEY,
    "user_withdrawal": MONEY,
    "virtual_account": [
        "statuses customer details unknown", "first_at last_at first_position last_position flags",
        "value rank at position",
    ],
}  # fmt: skip
"""Kind → the fields of its state, then those of the types within it, in their order."""


def spelled(kind: Any) -> Iterator[str]:
    """Return the stored field names of a type and of the types in its fields."""
    for part in (kind, *typing.get_args(kind)):
        if dataclasses.is_dataclass(part) and isinstance(part, type):
            yield " ".join(each.name for each in dataclasses.fields(part))
        elif isinstance(part, type) and issubclass(part, msgspec.Struct):
            yield " ".join(each.encode_name for each in msgspec.structs.fields(part))
        else:
            if part is not kind:
                yield from spelled(part)
            continue
        for hint in typing.get_type_hints(part).values():
            yield from spelled(hint)


@pytest.mark.parametrize("kind", STORED)
def test_a_stored_state_keeps_its_names_and_their_order(kind: str) -> None:
    projection = registry.load().streams[kind]
    assert list(dict.fromkeys(spelled(projection.state))) == STORED[kind]


def test_every_kind_of_stream_has_its_names_written_down() -> None:
    assert STORED.keys() == registry.load().streams.keys()


def test_an_error_is_kept_under_the_name_that_earlier_books_have() -> None:
    assert _cause(InvalidCallback("bad_amount", "a payment of 0")) == (
        "CannotBeTrue: a payment of 0"
    )
    assert _cause(ValueError("odd")) == "ValueError: odd"
