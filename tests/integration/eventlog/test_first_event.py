"""Law: the same bytes are one event, whatever a version of the program makes of them."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

import orjson
import pytest

from ledger import registry
from ledger.eventlog.appender import APPEND, AppendResult, Log, columns
from ledger.eventlog.identity import check_identity
from ledger.eventlog.new_event import NewEvent, callback_event, operator_event
from ledger.model import Envelope, Handler, Payload, changed
from ledger.receiver.endpoint import UNSUPPORTED, Receiver
from ledger.registry import ParsedCallback, Registry
from ledger.service.web import RECEIVER
from tests.asking import Service, payment, serving
from tests.conftest import Database

MOMENT: Final = datetime(2026, 1, 1, tzinfo=UTC)
BODY: Final = orjson.dumps(payment(1))
FORM: Final = b"type=Withdrawal+on+behalf&id=contract_1&amount=20.0&status=pending&currency=xsgd"
RIGHT: Final = "paymentStatusUpdated"
WRONG: Final = "payoutStatusUpdated"

UNKNOWN: Final = ParsedCallback(Envelope("unknown", "", "unknown"), "unknown", "no handler")
UNREADABLE: Final = ParsedCallback(Envelope("unreadable", "", "unreadable"), "unreadable", "no")
FAILED: Final = ParsedCallback(Envelope("unknown", "", "unknown"), "handler_failed", "a bug")
MISMATCH: Final = ParsedCallback(Envelope("unknown", "", "unknown"), "event_mismatch", "a payment")
OTHER_STATUS: Final = ParsedCallback(
    Envelope("payment", "contract_1", "unknown:done", "idem-1", tail="unknown:done"),
    "unknown_status", "no document names it",
)  # fmt: skip
PAYMENT: Final = ParsedCallback(
    Envelope("payment", "contract_1", "completed", "idem-1", tail="completed")
)
OTHER_TAIL: Final = ParsedCallback(
    Envelope("payment", "contract_1", "completed", "idem-1", tail="completed/2026")
)
OTHER_KIND: Final = ParsedCallback(
    Envelope("user_deposit", "contract_1", "completed", "idem-1", tail="completed")
)
BY_URL: Final = ParsedCallback(
    Envelope("payment", "contract_1", "completed", "idem-1", tail="completed"), is_by_url=True
)


def older(kind: str, **changes: Any) -> Registry:
    """Return the registry of a version with another handler of a kind; with none without changes.

    `changes` are those of the handler.
    """
    latest = registry.load()
    siblings = {
        provider: tuple(
            replace(handler, **changes) if handler.kind == kind else handler
            for handler in handlers
            if changes or handler.kind != kind
        )
        for provider, handlers in latest.handlers.items()
    }
    return replace(latest, handlers=siblings)


def receiver_of(service: Service) -> Receiver:
    app = service.client.app
    assert app is not None
    return app[RECEIVER]


def event(reading: ParsedCallback, path_event: str | None = None, body: bytes = BODY) -> NewEvent:
    return callback_event("straitsx", reading, body, received_at=MOMENT, path_event=path_event)


async def append(database: Database, *batch: NewEvent) -> list[AppendResult]:
    """Append everything as one batch."""
    log = Log(database.service_dsn, database.settings)
    waiting = [log.appenders["straitsx"].append(each) for each in batch]
    running = asyncio.create_task(log.run())
    results = await asyncio.gather(*waiting)
    log.stop()
    await running
    return results


async def stored(database: Database) -> list[Any]:
    """Return the log, each event of which must be the one that its key names."""
    async with database.service() as connection:
        rows: list[Any] = await connection.fetch("SELECT * FROM ledger.events ORDER BY position")
        head = await connection.fetchval(
            "SELECT position FROM ledger.heads WHERE source = 'straitsx'"
        )
    for row in rows:
        check_identity("straitsx", row)
    assert [row["position"] for row in rows] == list(range(1, head + 1))
    return rows


async def duplicates(database: Database) -> list[int]:
    """Return the positions of the duplicates that were recorded, in order."""
    async with database.service() as connection:
        rows = await connection.fetch(
            "SELECT position FROM ledger.deliveries WHERE outcome = 'duplicate' ORDER BY id"
        )
    return [row["position"] for row in rows]


async def test_a_type_that_a_handler_learns_is_a_duplicate_and_is_understood(
    database: Database,
) -> None:
    async with serving(database) as service:
        receiver_of(service).registry = older("payment")
        first = await service.post("straitsx", BODY)
        assert (first["status"], first["reason"], first["position"]) == (
            "quarantined",
            "unknown",
            1,
        )
        receiver_of(service).registry = registry.load()
        for count in (1, 2):
            again = await service.post("straitsx", BODY)
            assert again == {
                "status": "duplicate", "source": "straitsx", "position": 1,
                "event_id": first["event_id"],
            }  # fmt: skip
            assert await duplicates(database) == [1] * count
        await service.fold()
        (row,) = (await service.ask("/v1/transactions"))["transactions"]
        assert (row["id"], row["status"]) == ("contract_0001", "completed")
    assert len(await stored(database)) == 1


def _broken(_payload: Payload) -> Envelope:
    raise ZeroDivisionError


def _with_tail(handler: Handler, payload: Payload) -> Envelope:
    return changed(handler.envelope(payload), tail="another")


def _payment_handler() -> Handler:
    handlers = registry.load().handlers["straitsx"]
    return next(handler for handler in handlers if handler.kind == "payment")


@pytest.mark.parametrize(
    ("changes", "status", "reason"),
    [
        ({"envelope": _broken}, "quarantined", "handler_failed"),
        ({"envelope": lambda body: _with_tail(_payment_handler(), body)}, "accepted", None),
    ],
    ids=["failed", "other tail"],
)
async def test_what_a_handler_reads_differently_now_is_a_duplicate(
    database: Database, changes: dict[str, Any], status: str, reason: str | None
) -> None:
    async with serving(database) as service:
        receiver_of(service).registry = older("payment", **changes)
        first = await service.post("straitsx", BODY, RIGHT)
        assert (first["status"], first.get("reason")) == (status, reason)
        receiver_of(service).registry = registry.load()
        again = await service.post("straitsx", BODY, RIGHT)
        assert (again["status"], again["position"], again["event_id"]) == (
            "duplicate", 1, first["event_id"],
        )  # fmt: skip
    assert len(await stored(database)) == 1


async def test_a_form_that_no_version_read_before_is_a_duplicate(database: Database) -> None:
    (first,) = await append(database, event(UNSUPPORTED, body=FORM))
    async with (
        serving(database) as service,
        service.client.post(
            "/callbacks/straitsx", data=FORM,
            headers={"Content-Type": "application/x-www-form-urlencoded"},
        ) as response,
    ):  # fmt: skip
        again = orjson.loads(await response.read())
    assert (again["status"], again["position"], again["event_id"]) == (
        "duplicate", 1, first.event_id.hex(),
    )  # fmt: skip
    assert len(await stored(database)) == 1


async def test_a_body_that_is_no_json_is_a_duplicate_when_it_comes_again(
    database: Database,
) -> None:
    async with serving(database) as service:
        for path in (None, RIGHT, WRONG):
            reported = await service.post("straitsx", b'{"type": ', path)
            assert reported["position"] == 1
        assert reported["status"] == "duplicate"
    assert await duplicates(database) == [1, 1]


@pytest.mark.parametrize("path", [None, RIGHT])
@pytest.mark.parametrize(
    ("before", "now"),
    [
        (UNKNOWN, PAYMENT), (UNREADABLE, PAYMENT), (UNSUPPORTED, PAYMENT), (FAILED, PAYMENT),
        (OTHER_STATUS, PAYMENT), (OTHER_TAIL, PAYMENT), (OTHER_KIND, PAYMENT), (UNKNOWN, BY_URL),
        (BY_URL, PAYMENT), (UNREADABLE, UNKNOWN), (UNKNOWN, OTHER_STATUS), (PAYMENT, UNKNOWN),
        (UNREADABLE, BY_URL), (PAYMENT, BY_URL), (MISMATCH, PAYMENT), (UNREADABLE, MISMATCH),
    ],
)  # fmt: skip
async def test_the_same_bytes_by_the_same_url_are_one_event(
    database: Database, before: ParsedCallback, now: ParsedCallback, path: str | None
) -> None:
    (first,) = await append(database, event(before, path))
    assert first.fresh
    for number in (1, 2):
        (again,) = await append(database, event(now, path))
        assert (again.position, again.fresh, again.event_id) == (1, False, first.event_id)
        assert again.is_same_resource
        assert await duplicates(database) == [1] * number
    (row,) = await stored(database)
    assert row["event_id"] == first.event_id == event(before, path).event_id


@pytest.mark.parametrize(
    ("before", "its_path", "now", "path"),
    [
        (UNKNOWN, None, PAYMENT, RIGHT),  # a type that decides, decides without an event name too
        (UNREADABLE, None, PAYMENT, RIGHT),
        (OTHER_TAIL, RIGHT, PAYMENT, None),
        (OTHER_TAIL, WRONG, PAYMENT, RIGHT),
    ],
)
async def test_the_same_bytes_by_another_url_are_one_event_where_the_url_decides_nothing(
    database: Database, before: ParsedCallback, its_path: str | None, now: ParsedCallback,
    path: str | None,
) -> None:  # fmt: skip
    await append(database, event(before, its_path))
    (again,) = await append(database, event(now, path))
    assert (again.position, again.fresh, again.is_same_resource) == (1, False, True)


@pytest.mark.parametrize(
    ("before", "its_path", "now", "path"),
    [
        (MISMATCH, WRONG, PAYMENT, RIGHT),  # the first one stays an exception: its money is here
        (PAYMENT, RIGHT, MISMATCH, WRONG),
        (UNKNOWN, WRONG, PAYMENT, RIGHT),  # it may be a mismatch, now that its type is known
        (UNKNOWN, RIGHT, PAYMENT, None),
        (UNKNOWN, None, BY_URL, RIGHT),
        (UNREADABLE, WRONG, BY_URL, RIGHT),
        (OTHER_KIND, WRONG, PAYMENT, RIGHT),
        (BY_URL, RIGHT, PAYMENT, WRONG),
    ],
)
async def test_the_same_bytes_by_another_url_are_one_further_event_where_the_url_decides(
    database: Database, before: ParsedCallback, its_path: str | None, now: ParsedCallback,
    path: str | None,
) -> None:  # fmt: skip
    await append(database, event(before, its_path))
    for is_fresh in (True, False, False):
        (result,) = await append(database, event(now, path))
        assert (result.position, result.fresh) == (2, is_fresh)
    (first,) = await append(database, event(before, its_path))
    assert (first.position, first.fresh) == (1, False)
    assert len(await stored(database)) == 2


async def test_what_the_url_decides_is_another_resource_only_by_another_url(
    database: Database,
) -> None:
    async with serving(database) as service:
        receiver_of(service).registry = older("bank_account")
        body = orjson.dumps(
            {"id": 7, "account_no": "12", "verification_status": "verified",
             "updated_at": "2026-01-01T00:00:00Z"}
        )  # fmt: skip
        paths = ("cpbaVerificationStatusUpdated", "ubaVerificationStatusUpdated")
        await append(database, event(UNREADABLE, paths[0], body))
        receiver_of(service).registry = registry.load()
        again = await service.post("straitsx", body, paths[0])
        assert (again["status"], again["position"]) == ("duplicate", 1)
        assert await duplicates(database) == [1]
        other = await service.post("straitsx", body, paths[1])
        assert (other["status"], other["position"]) == ("accepted", 2)
        for _ in range(2):
            positions = [(await service.post("straitsx", body, path))["position"] for path in paths]
            assert positions == [1, 2]
    assert len(await stored(database)) == 2


async def test_readings_of_the_same_bytes_in_one_batch_are_one_event(database: Database) -> None:
    others = [event(PAYMENT, body=b"other %d" % n) for n in range(3)]
    batch = [
        others[0], event(UNKNOWN), event(PAYMENT), others[1], event(PAYMENT), event(OTHER_TAIL),
        event(MISMATCH, WRONG), event(MISMATCH, WRONG), others[2], event(UNKNOWN),
    ]  # fmt: skip
    results = await append(database, *batch)
    assert [result.fresh for result in results] == [
        True, True, False, True, False, False, False, False, True, False,
    ]  # fmt: skip
    assert {result.position for n, result in enumerate(results) if batch[n].body == BODY} == {2}
    assert await duplicates(database) == [2] * 6
    assert len(await stored(database)) == 4


async def test_further_events_of_one_batch_get_the_next_positions(database: Database) -> None:
    batch = [event(PAYMENT, RIGHT), event(MISMATCH, WRONG), event(PAYMENT, body=b"other")]
    results = await append(database, *batch)
    assert all(result.fresh for result in results)
    assert [result.position for result in results] == [1, 3, 2]
    assert [result.event_id for result in results] == [each.event_id for each in batch]
    assert await duplicates(database) == []
    assert len(await stored(database)) == 3


async def test_decisions_with_the_same_words_are_events_of_their_own(database: Database) -> None:
    decisions = [
        operator_event(
            key=f"straitsx/decision//contract_1/{number}", kind="decision",
            resource_id="contract_1", status="release", body=BODY, received_at=MOMENT,
            provider_at=None,
        )
        for number in (1, 2, 1)
    ]  # fmt: skip
    results = await append(database, event(PAYMENT), *decisions)
    assert [(result.position, result.fresh) for result in results] == [
        (1, True), (2, True), (3, True), (2, False),
    ]  # fmt: skip
    assert await duplicates(database) == [2]


async def test_receivers_of_two_versions_make_one_event_of_a_body(database: Database) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    readings = [UNKNOWN, PAYMENT, OTHER_TAIL, FAILED]
    bodies = [b'{"number": %d}' % number for number in range(120)]
    stated: dict[bytes, set[tuple[int, bytes]]] = {body: set() for body in bodies}
    fresh: dict[bytes, int] = dict.fromkeys(bodies, 0)

    async def receive(number: int) -> None:
        rng = random.Random(seed + number)
        async with database.service() as connection:
            for _ in range(25):
                batch = [
                    event(readings[number % 4], RIGHT, body)
                    for body in rng.choices(bodies, k=rng.choice((1, 8, 20)))
                ]
                row = await connection.fetchrow(APPEND, "straitsx", *columns(batch))
                for n, each in enumerate(batch):
                    is_whole = row["positions"] is None
                    position = row["base"] + n + 1 if is_whole else row["positions"][n]
                    event_id = each.event_id if is_whole else row["event_ids"][n]
                    stated[each.body].add((position, event_id))
                    fresh[each.body] += is_whole or row["fresh"][n]

    await asyncio.gather(*(receive(number) for number in range(8)))
    rows = await stored(database)
    assert {row["body"]: {(row["position"], row["event_id"])} for row in rows} == {
        body: places for body, places in stated.items() if places
    }
    assert len(rows) == len({row["body"] for row in rows})
    assert set(fresh.values()) <= {0, 1}


async def test_a_receiver_waits_for_the_reading_that_another_version_commits(
    database: Database,
) -> None:
    before, now = [columns([event(reading)]) for reading in (UNKNOWN, PAYMENT)]
    async with database.service() as one, database.service() as two, database.service() as reader:
        held = one.transaction()
        await held.start()
        await one.fetchrow(APPEND, "straitsx", *before)
        second = asyncio.create_task(two.fetchrow(APPEND, "straitsx", *now))
        assert await reader.fetch("SELECT position FROM ledger.events") == []
        assert not second.done()
        await held.commit()
        row = await second
    assert (row["positions"], row["fresh"]) == ([1], [False])
    assert row["event_ids"] == [event(UNKNOWN).event_id]
