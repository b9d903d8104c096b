"""The bytes that seals cover: documented, unambiguous, and changed by any change of an event."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

import pytest

from ledger.evidence import leaf

EVENT: dict[str, Any] = {
    "source": "straitsx", "position": 7, "event_id": bytes(range(16)),
    "idempotency_key": "straitsx/payment/idem-1/contract_1/completed", "kind": "payment",
    "resource_id": "contract_1", "status": "completed", "idempotency_id": "idem-1",
    "provider_at": datetime(2026, 5, 14, 8, 15, 43, 330_000, UTC), "path_event": None,
    "origin": "callback", "verdict": "accepted", "reason": None, "detail": None,
    "peer": "127.0.0.1", "headers": '{"user-agent":"x"}', "body": b'{"id":"contract_1"}',
    "received_at": datetime(2026, 5, 14, 8, 15, 44, 1, UTC),
    "recorded_at": datetime(2026, 5, 14, 8, 15, 44, 2, UTC),
}  # fmt: skip


def test_the_bytes_are_those_that_the_description_gives() -> None:
    def present(value: bytes) -> bytes:
        return b"\x01" + len(value).to_bytes(8, "big") + value

    expected = b"callback-ledger event 1\n" + b"".join([
        present(b"straitsx"), present(b"7"), present(bytes(range(16))),
        present(b"straitsx/payment/idem-1/contract_1/completed"), present(b"payment"),
        present(b"contract_1"), present(b"completed"), present(b"idem-1"), b"\x00",
        present(b"callback"), present(b"accepted"), b"\x00", b"\x00", present(b"127.0.0.1"),
        present(b'{"user-agent":"x"}'), present(b"1778746543330000"),
        present(b"1778746544000001"), present(b"1778746544000002"),
        present(sha256(b'{"id":"contract_1"}').digest()),
    ])  # fmt: skip
    assert leaf.encode(EVENT) == expected
    assert leaf.hash_of(EVENT) == sha256(b"\x00" + expected).digest()


def test_an_infinite_time_is_covered() -> None:
    for infinite, written in ((datetime.max, b"infinity"), (datetime.min, b"-infinity")):
        event = EVENT | {"provider_at": infinite}
        assert leaf.decode(leaf.encode(event))["provider_at"] == written


def test_every_column_of_an_event_is_covered() -> None:
    assert {*leaf.FIELDS} - {"body_sha256"} | {"body"} == {*EVENT}


@pytest.mark.parametrize("name", list(EVENT))
def test_any_change_of_any_field_changes_the_leaf(name: str) -> None:
    before = leaf.hash_of(EVENT)
    value = EVENT[name]
    for _ in range(20):
        assert leaf.hash_of(EVENT | {name: _changed(value)}) != before
    if value is not None and name not in ("source", "position", "event_id", "body"):
        assert leaf.hash_of(EVENT | {name: None}) != before


def _changed(value: Any) -> Any:
    match value:
        case None:
            return random.choice(["", "x"])
        case bytes():
            at = random.randrange(len(value))
            return value[:at] + bytes([value[at] ^ random.randrange(1, 256)]) + value[at + 1 :]
        case str():
            at = random.randrange(len(value))
            return value[:at] + chr(ord(value[at]) ^ random.choice([1, 2, 4])) + value[at + 1 :]
        case int():
            return value + random.randrange(1, 9)
        case _:
            return value + timedelta(microseconds=random.randrange(1, 9))


def test_moving_a_letter_from_one_field_to_the_next_changes_the_leaf() -> None:
    moved = EVENT | {"kind": "paymen", "resource_id": "tcontract_1"}
    assert leaf.hash_of(moved) != leaf.hash_of(EVENT)


def test_the_bytes_can_be_taken_apart_again() -> None:
    found = leaf.decode(leaf.encode(EVENT))
    assert list(found) == list(leaf.FIELDS)
    assert found["position"] == b"7"
    assert found["path_event"] is None
    assert found["body_sha256"] == sha256(EVENT["body"]).digest()


@pytest.mark.parametrize("bad", [b"", b"x", leaf.encode(EVENT)[:-1], leaf.encode(EVENT) + b"\x00"])
def test_what_is_not_a_leaf_is_refused(bad: bytes) -> None:
    with pytest.raises(ValueError):
        leaf.decode(bad)
