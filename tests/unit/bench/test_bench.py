"""A measurement counts what happened: distinct signed callbacks, every answer, honest times."""

from __future__ import annotations

import asyncio
import io
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import orjson
import pytest
from rich.console import Console

from ledger import registry
from ledger.bench import report as bench_report
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
    told = list(mixed(3, 2_000))
    assert told == list(mixed(3, 2_000))
    new_events = [new_event(known, callback) for callback in told]
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


def test_the_machine_tells_what_it_was_used_for() -> None:
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


def run(
    *arguments: str, folder: Path, code: int = 0, seconds: float = 200.0, **environ: str
) -> dict[str, Any]:
    """Run `ledger bench` with `folder` for its temporary files, which must be gone afterwards."""
    done = subprocess.run(
        [sys.executable, "-m", "ledger", "bench", *arguments, "--json"],
        env={**os.environ, "TMPDIR": str(folder), **environ},
        capture_output=True,
        timeout=seconds,
    )
    assert done.returncode == code, done.stderr.decode()
    assert list(folder.iterdir()) == []
    return orjson.loads(done.stdout) if done.stdout else {"error": done.stderr.decode()}


def shown(found: dict[str, Any]) -> str:
    out = io.StringIO()
    bench_report.show(found, Console(file=out, width=200))
    return out.getvalue()


def test_a_second_of_receiving_gives_every_figure(tmp_path: Path) -> None:
    found = run("ingest", "--seconds", "1", folder=tmp_path)
    full, half, checked = found["saturation"], found["half_load"], found["verified"]
    assert checked["ok"] is True
    assert checked["answers"] == {"200": checked["events"]}
    assert checked["in_books"] == checked["events"] == found["disk"]["events"] > 0
    # Which of the two is faster in a second of a busy machine is not for a test to say.
    assert min(full["ledger_per_second"], full["noop_per_second"]) > 0
    assert len(full["noop_turns"]) == len(full["ledger_turns"]) + 1 == len(full["fold_turns"]) + 1
    for ratio, turns, others in (
        ("ratio", "ledger_turns", "noop_turns"),
        ("fold_ratio", "fold_turns", "ledger_turns"),
    ):
        pairs = against(full[turns], full[others])
        assert full[ratio] == pytest.approx(median(pairs), abs=0.01)
        assert full[f"{ratio}_turns"] == pytest.approx(pairs, abs=0.01)
    assert set(half["cpu_us_per_callback"]) == set(full["cpu_us_per_callback"])
    assert found["withheld_cores"] >= 0
    assert "withheld by the host" in shown(found)
    assert half["offered_per_second"] == pytest.approx(full["ledger_per_second"] / 2, abs=1)
    assert 0 < half["p50_ms"] <= half["p99_ms"]
    assert 0 <= half["visible_p50_ms"] <= half["visible_p99_ms"]
    assert found["disk"]["log_bytes_per_event"] > found["load"]["body_bytes"] >= BODY_BYTES_MIN
    assert found["memory"]["peak_mib"]["web"] >= found["memory"]["web_start_mib"] > 0
    assert found["machine"]["fdatasync_us"] > 0
    assert "of the no-op handler" in shown(found)


def test_folding_a_short_log_gives_every_figure(tmp_path: Path) -> None:
    found = run("fold", "--events", "500", folder=tmp_path)
    fold, checked = found["fold"], found["verified"]
    assert checked["ok"] is True
    assert checked["in_books"] == found["disk"]["events"] == 500
    assert checked["entries"] > 500
    assert fold["events_per_second"] > 0
    assert fold["copy_per_second"] > 0
    assert fold["projector_cpu_seconds"] > 0
    assert found["disk"]["books_bytes_per_event"] > 0
    assert "COPY of the log" in shown(found)


def test_rebuilding_a_short_log_gives_every_figure(tmp_path: Path) -> None:
    found = run("rebuild", "--events", "6000", folder=tmp_path)
    done, checked = found["rebuild"], found["verified"]
    assert (checked["ok"], checked["differences"], checked["parked"]) == (True, 0, 0)
    assert found["disk"]["events"] >= found["log"]["events"] == 6_000
    assert done["events_per_second"] > 0
    assert done["ratio"] == pytest.approx(
        done["events_per_second"] / done["copy_per_second"], abs=0.01
    )
    assert 0 < done["peak_mib"] < 500
    assert {"sort", "fold", "index", "compare"} <= done["us_per_event"].keys()
    for when in ("peace", "rebuilding"):
        answers = found["traffic"][when]
        assert set(answers["answers"]) == {"200"}
        assert 0 < answers["p50_ms"] <= answers["p99_ms"]
    assert found["traffic"]["differences"] == 0
    assert "COPY of the log" in shown(found)


def test_asking_about_a_short_log_gives_every_figure(tmp_path: Path) -> None:
    found = run("query", "--events", "2000", "--customers", "120", folder=tmp_path)
    assert found["verified"]["ok"] is True
    assert (found["log"]["events"], found["log"]["customers"]) == (2000 + 120 * 9, 120)
    names = {
        "wallets", "customer_balance", "hot_account_as_of", "wallets_as_of", "customers",
        "exceptions", "findings_limit_drift", "reconciliation/findings", "customer",
    }  # fmt: skip
    assert names <= found["peace"].keys() == found["rebuilding"].keys()
    for figures in (*found["peace"].values(), *found["rebuilding"].values()):
        assert 0 < figures["p50_ms"] <= figures["p99_ms"]
    assert "while rebuilding" in shown(found)


@pytest.mark.soak
@pytest.mark.timeout(4 * 3600)
def test_ten_million_events_are_rebuilt_in_bounded_memory_as_fast_as_one_million(
    tmp_path: Path,
) -> None:
    one, ten = (
        run("rebuild", "--events", str(events), folder=tmp_path, seconds=2 * 3600.0)
        for events in (1_000_000, 10_000_000)
    )
    for found in (one, ten):
        print(orjson.dumps(found).decode())
        assert found["verified"]["ok"] is True
        assert found["rebuild"]["peak_mib"] <= 500
    rates = [found["rebuild"]["events_per_second"] for found in (one, ten)]
    assert rates[1] >= 0.8 * rates[0]


def test_a_measurement_that_cannot_start_says_so_and_leaves_nothing_behind(tmp_path: Path) -> None:
    found = run("fold", folder=tmp_path, code=3, LEDGER_PG_BIN=str(tmp_path / "nowhere"))
    assert "nowhere" in found["error"]
