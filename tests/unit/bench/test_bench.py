"""A measurement counts what happened: distinct signed callbacks, every answer, honest times."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from typing import Any

import orjson
import pytest

from ledger import registry
from ledger.bench.commands import against
from ledger.bench.fold import new_event
from ledger.bench.load import BODY_BYTES_MIN, LOST, Bodies, Link, Load, LoadCommand
from ledger.bench.machine import Process, kibibytes, machine_used, percentile
from ledger.bench.mix import mixed
from ledger.bench.reads import Visibility
from ledger.errors import MeasurementFailed
from ledger.eventlog.identity import identity
from ledger.signatures.hmac_sha256_hex import sign

SECRET = "a secret of the test"


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        ([], 0.5, None),
        ([7.0], 0.99, 7.0),
        ([4.0, 1.0, 3.0, 2.0], 0.5, 2.0),
        ([float(n) for n in range(1, 101)], 0.99, 99.0),
        ([float(n) for n in range(1, 101)], 1.0, 100.0),
        ([1.0, 2.0], 0.0, 1.0),
    ],
)
def test_a_percentile_is_a_value_that_was_measured(
    values: list[float], share: float, expected: float | None
) -> None:
    assert percentile(values, share) == expected


def test_kibibytes_become_mebibytes() -> None:
    assert (kibibytes("2048 kB"), kibibytes(None)) == (2.0, None)


def parts(request: bytes) -> tuple[dict[str, str], bytes]:
    head, _, body = request.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "POST /callbacks/straitsx HTTP/1.1"
    return dict(line.split(": ", 1) for line in lines[1:]), body


def test_every_request_is_another_event_of_at_least_a_kilobyte_with_its_own_signature() -> None:
    bodies = Bodies(5, "/callbacks/straitsx", SECRET)
    known = registry.load()
    kinds, ids = set(), set()
    for _ in range(600):
        headers, body = parts(bodies.next())
        reading = known.read("straitsx", None, body)
        assert reading.reason is None
        assert len(body) >= BODY_BYTES_MIN
        assert headers["Content-Length"] == str(len(body))
        assert headers["Xfers-Signature"] == sign(SECRET, body)
        kinds.add(reading.envelope.kind)
        ids.add(identity("straitsx", reading, body)[1])
    assert kinds == {"payment", "payout"}
    assert len(ids) == 600


def test_requests_made_beforehand_are_sent_first_and_none_is_sent_twice() -> None:
    bodies = Bodies(5, "/x", SECRET)
    bodies.supply(10)
    assert bodies.count == 10
    bodies.supply(4)
    sent = [bodies.next() for _ in range(10)]
    assert bodies.count == 10, "nothing was made while there was a supply"
    sent += [bodies.next() for _ in range(10)]
    assert len(set(sent)) == 20


def test_each_turn_is_compared_with_the_turns_beside_it() -> None:
    slowing = [400.0, 300.0, 200.0, 100.0]
    assert against([210.0, 150.0, 90.0], slowing) == [0.6, 0.6, 0.6]
    assert against([350.0, 300.0], [350.0, 250.0]) == [1.167, 1.2]
    with pytest.raises(MeasurementFailed, match="measure more seconds"):
        against([1.0], [1.0, 0.0])


class Wire(asyncio.Transport):
    """Takes what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []

    def write(self, data: Any) -> None:
        self.written.append(bytes(data))


def answer(status: int, position: int) -> bytes:
    body = b'{"status":"accepted"}'
    return (
        f"HTTP/1.1 {status} OK\r\nLedger-Position: straitsx:{position}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body


def loaded(seconds: float, **options: Any) -> tuple[Load, Link, Wire]:
    command = LoadCommand(1, "/callbacks/straitsx", SECRET, seconds, 1, **options)
    load = Load(command, Bodies(5, command.path, command.secret))
    load._ends = time.monotonic() + seconds
    link, wire = Link(load), Wire()
    link.connection_made(wire)
    return load, link, wire


def test_an_answer_counts_once_however_it_is_cut() -> None:
    whole = answer(200, 41)
    for cut in range(1, len(whole)):
        load, link, wire = loaded(60)
        link.post(b"question", time.monotonic())
        link.data_received(whole[:cut])
        assert load.answers == {}
        link.data_received(whole[cut:])
        assert load.answers == {"200": 1}
        assert [position for _, position in load.acks] == [41]
        assert len(wire.written) == 2, "the next request follows the answer"


def test_answers_after_the_window_are_kept_but_not_counted_into_the_rate() -> None:
    load, link, wire = loaded(-1)
    link.post(b"question", time.monotonic())
    link.data_received(answer(503, 1))
    assert (load.answers, load.counted, len(wire.written)) == ({"503": 1}, 0, 1)


def test_a_late_request_is_measured_from_the_moment_it_was_due() -> None:
    load, link, _ = loaded(60, rate=10.0)
    load._scheduled = True
    due = time.monotonic() - 5
    load._late.append(due)
    link.post(b"question", due - 1)
    link.data_received(answer(200, 1))
    link.data_received(answer(200, 2))
    assert load.latencies[0] >= 6
    assert 5 <= load.latencies[1] < 6


def test_a_lost_connection_leaves_its_request_unknown() -> None:
    load, link, _ = loaded(60)
    link.post(b"question", time.monotonic())
    link.connection_lost(None)
    link.connection_lost(None)
    assert load.answers == {LOST: 1}


def test_a_lag_ends_when_the_books_are_first_seen_at_the_position() -> None:
    seen = Visibility()
    for moment, position in ((1.0, 3), (2.0, 3), (3.0, 9)):
        seen.saw(moment, position)
    assert seen.lags([(0.5, 2), (0.5, 3), (0.5, 4), (3.5, 9)]) == [0.5, 0.5, 2.5, 0.0]
    with pytest.raises(MeasurementFailed, match="position 10 never became visible"):
        seen.lags([(0.0, 10)])


def test_the_mix_is_repeatable_distinct_and_understood() -> None:
    known = registry.load()
    stated = list(mixed(3, 2_000))
    assert stated == list(mixed(3, 2_000))
    new_events = [new_event(known, callback) for callback in stated]
    assert len({each.event_id for each in new_events}) == 2_000
    assert {each.reason for each in new_events} == {None}
    assert {"payment", "payout", "fx_payout", "swap", "customer", "bank_account", "limits"} <= {
        each.kind for each in new_events
    }
    assert {"pending", "completed", "refunded", "failed"} <= {each.status for each in new_events}


def test_the_mix_has_one_customer_with_much_more_than_the_others() -> None:
    payments = [c for c in mixed(3, 2_000) if c.name == "payment completed"]
    owners = [orjson.loads(c.body)["customer_profile_id"] for c in payments]
    share = max(owners.count(owner) for owner in set(owners)) / len(owners)
    assert 0.1 < share < 0.3
    assert len(set(owners)) > len(owners) / 2


def test_the_machine_states_what_it_was_used_for() -> None:
    before, own = machine_used(), time.process_time()
    while time.process_time() < own + 0.2:
        sum(range(10_000))
    after = machine_used()
    assert after.busy >= before.busy + 0.15
    assert after.withheld >= before.withheld >= 0


def test_a_process_is_held_until_it_ends() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    held = Process.of(child.pid)
    assert held is not None
    assert held.alive
    assert held in (Process.of(os.getpid()) or held).children()
    child.communicate(b"\n")
    assert not held.alive
    assert (held.cpu_seconds(), held.memory("VmHWM")) == (0.0, None)
