"""Audit packs: whole, the same bytes every time, and nothing in them can be changed unnoticed."""

from __future__ import annotations

import asyncio
import io
import random
import subprocess
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import orjson
import pytest

from ledger import registry
from ledger.books import table_sql
from ledger.database import connection as db
from ledger.errors import BadNote, InvalidRequest, NotCaughtUp, Tampered
from ledger.evidence import checkpoint_file, keys
from ledger.evidence.sealer import SourceSealer
from ledger.evidence.signed_note import Signer, open_checkpoint, open_note
from ledger.export import offline_fold as shelf
from ledger.export import pack as export_pack
from ledger.export import pack_file as pack
from ledger.export.jsonl import event_line, read_event, row_line
from ledger.export.offline_fold import LINKS, PARKED
from ledger.export.pack_file import SUM_OF_SUMS, SUMS, PackReader, PackWriter
from ledger.export.pack_manifest import about_text
from ledger.statements.model import Reading
from ledger.statements.reader import read_statement
from ledger.terminal.progress import Progress
from ledger.verify.outcome import CheckResult, overall
from ledger.verify.pack import PackCheck, PackOptions
from tests import samples
from tests.asking import first_generation, fold_source, serving
from tests.conftest import Database, with_database
from tests.dumps import load_terms
from tests.evidence import append, append_bodies, as_superuser, stories, with_key
from tests.statements import (
    JANUARY,
    append_statement,
    post_statement,
    reconcile,
    row,
    statement,
)

SIZES = (7, 40, 60)
RECONCILED = ("statements", "statement_lines", "statement_parts", "adjustments", "closes")
NOON = "2026-01-10T12:00:00Z"


@dataclass(slots=True)
class Ledger:
    """A log of both providers, sealed three times, and where packs of it go."""

    database: Database
    folder: Path

    async def seal(self) -> None:
        async with self.database.service() as connection:
            for source in ("straitsx", "gokart"):
                while await SourceSealer(source, self.database.settings).step(connection):
                    pass

    async def pack(self, name: str = "pack.tar", **expected: Any) -> Path:
        path = self.folder / name
        given = export_pack.PackRequest(**expected)
        dsn = self.database.service_dsn
        await export_pack.write_file(self.database.settings, dsn, path, given, quiet=True)
        return path

    @property
    def notes(self) -> Path:
        return checkpoint_file.path_of(self.database.settings.data_dir, "straitsx")


@pytest.fixture
async def ledger(database: Database, tmp_path: Path) -> Ledger:
    """Make the log: every sample of both providers, then made-up callbacks."""
    own = with_key(database, tmp_path / "data")
    made = Ledger(own, tmp_path)
    bodies = [samples.body(name) for name in samples.names("straitsx")]
    bodies += [samples.body(name) for name in samples.names("more/straitsx")]
    bodies = bodies[: SIZES[-1]]
    bodies += [orjson.dumps(body) for body in stories(SIZES[-1] - len(bodies))]
    done = 0
    for size in SIZES:
        await append_bodies(own, bodies[done:size])
        await made.seal()
        done = size
    await append_bodies(own, [samples.body(name) for name in samples.names("gokart")], "gokart")
    await made.seal()
    return made


def check(path: Path, **options: Any) -> list[CheckResult]:
    with pack.open_pack(path) as file:
        return PackCheck(PackReader(file), PackOptions(**options), Progress(quiet=True)).examine()


def verdict(path: Path, **options: Any) -> str:
    return overall(check(path, **options))


def failure(path: Path, **options: Any) -> CheckResult:
    found = check(path, **options)
    assert overall(found) == "fail", found
    return next(each for each in found if each.outcome == "fail")


def members(path: Path) -> dict[str, bytes]:
    """Open a pack with what everybody has."""
    with tarfile.open(path, "r:") as tar:
        return {each.name: tar.extractfile(each).read() for each in tar}  # type: ignore[union-attr]


def repack(path: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    """Forge a pack: members changed, every hash made right again."""
    found = members(path)
    change(found)
    out = io.BytesIO()
    writer = PackWriter(out)
    for name, data in found.items():
        if name not in (SUMS, SUM_OF_SUMS):
            writer.add(name, data)
    writer.close()
    forged = path.with_name("forged.tar")
    forged.write_bytes(out.getvalue())
    return forged


async def test_a_pack_holds_and_needs_nothing_but_itself(ledger: Ledger) -> None:
    path = await ledger.pack()
    found = check(path)
    assert overall(found) == "ok", found
    stated = {(each.source, each.name): each.message for each in found}
    assert stated["straitsx", "log"] == (
        "60 events, dense, in order of time, each with its own body"
    )
    assert stated["straitsx", "seals"].startswith("the 60 events are signed by callback-ledger+")
    assert stated["straitsx", "books"] == "every table is the fold of the events up to 60"
    assert stated["gokart", "books"] == "every table is the fold of the events up to 5"
    (key,) = [each for each in found if each.name == "keys"]
    assert "compare it with a key that reached you another way" in key.advice


async def test_every_tool_opens_a_pack_and_its_sums_are_right(ledger: Ledger) -> None:
    found = members(await ledger.pack())
    sums = dict(reversed(line.split("  ")) for line in found[SUMS].decode().splitlines())
    assert sums == {
        name: sha256(data).hexdigest()
        for name, data in found.items() if name not in (SUMS, SUM_OF_SUMS)
    }  # fmt: skip
    assert {"about.json", "keys/trusted.txt", "checkpoints/straitsx.txt"} <= found.keys()
    about = orjson.loads(found["about.json"])
    assert [(s["source"], s["position"], s["currency"]) for s in about["sources"]] == [
        ("gokart", 5, "USD"), ("straitsx", 60, None),
    ]  # fmt: skip


async def test_the_bodies_in_a_pack_are_the_bytes_that_came(ledger: Ledger) -> None:
    lines = members(await ledger.pack())["events/gokart/000001.jsonl"].splitlines()
    bodies = [read_event(line + b"\n")["body"] for line in lines]
    assert bodies == [samples.body(name) for name in samples.names("gokart")]


async def test_every_table_in_a_pack_is_that_of_the_live_books(ledger: Ledger) -> None:
    generation = await first_generation(ledger.database)
    async with ledger.database.service() as connection:
        for terms in await load_terms(connection):
            await fold_source(ledger.database, terms, generation)
        await connection.execute(f"SET search_path = books_{generation}, ledger")
        found = members(await ledger.pack())
        declared = {name: sql.columns for name, sql in table_sql.tables(registry.load()).items()}
        for table, all_columns in (declared | {"parked": PARKED, "links": LINKS}).items():
            columns = {name: kind for name, kind in all_columns.items() if name != "state"}
            rows = await connection.fetch(f"SELECT {', '.join(columns)} FROM {table}")
            live = sorted(row_line(columns, stated(columns, row)) for row in rows)
            packed = [
                line
                for source in ("gokart", "straitsx")
                for line in found.get(f"books/{source}/{table}/000001.jsonl", b"").splitlines(True)
            ]
            assert sorted(packed) == live, table
            empty = ("parked", "rfi", "links", "echoes", "decisions", *RECONCILED)
            assert live or table in empty, table


async def test_a_pack_holds_the_log_of_statements_and_folds_it(ledger: Ledger) -> None:
    body = statement([row("r1", "nobody", "10", NOON)])
    window = tuple(datetime.fromisoformat(each) for each in JANUARY)
    read = read_statement(body, Reading(currency="XSGD", window=window))  # type: ignore[arg-type]
    await append_statement(ledger.database.service_dsn, "straitsx", read)
    async with ledger.database.service() as connection:
        sealer = SourceSealer("straitsx.statements", ledger.database.settings)
        assert await sealer.step(connection) == 3
    path = await ledger.pack()
    assert verdict(path) == "ok"
    found = members(path)
    (line,) = found["books/straitsx.statements/statement_lines/000001.jsonl"].splitlines()
    assert orjson.loads(line)["contract_id"] == "nobody"


async def test_a_closed_month_in_a_pack_is_proved(ledger: Ledger) -> None:
    async with serving(ledger.database) as service:
        await post_statement(service, statement([row("r1", None, "10", NOON)]), currency="EUR")
        await reconcile(service)
        (opened,) = (await service.ask("/v1/breaks", currency="EUR"))["breaks"]
        body = {"period": "2026-01", "by": "ann", "currency": "EUR", "accept": [opened["id"]]}
        async with service.client.post("/v1/reconciliation/closes", json=body) as answer:
            assert answer.status == 200, await answer.text()
        await service.fold()
    await ledger.seal()
    async with ledger.database.service() as connection:
        sealer = SourceSealer("straitsx.statements", ledger.database.settings)
        assert await sealer.step(connection) == 3
    path = await ledger.pack()
    assert verdict(path) == "ok"
    table = "books/straitsx/closes/000001.jsonl"
    (line,) = members(path)[table].splitlines()
    close = orjson.loads(line)
    assert (close["id"], close["status"], close["statement_balance"], close["accepted"]) == (
        "EUR:2026-01", "closed", "10", [opened["id"]],
    )  # fmt: skip
    for changes in (
        {"statement_balance": "11"}, {"status": "reopened"}, {"accepted": []}, {"open": []},
        {"sha256": "00" * 32}, {"books_position": 1}, {"by": "bob"},
    ):  # fmt: skip
        found = failure(repack(path, edit(table, 1, **changes)))
        assert (found.name, table in found.message) == ("books", True), changes

    def without(found: dict[str, bytes]) -> None:
        del found[table]

    assert "is missing; the events make it" in failure(repack(path, without)).message
    size = len(members(path)[EVENTS].splitlines())
    event = orjson.loads(members(path)[EVENTS].splitlines()[-1])
    assert (event["kind"], event["position"]) == ("close", size)
    found = failure(repack(path, edit(EVENTS, size, body="e30=")))
    assert (found.name, found.position) == ("identity", size)


def stated(columns: Mapping[str, str], row: Any) -> dict[str, Any]:
    """Return a row as the fold made it: what PostgreSQL keeps as jsonb comes as text."""
    return {
        name: orjson.loads(row[name]) if kind == "jsonb" and row[name] else row[name]
        for name, kind in columns.items()
    }


async def test_an_event_whose_rows_cannot_be_written_is_listed_and_stops_nothing(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = members(await ledger.pack(sources=("straitsx",)))

    def picky(columns: Mapping[str, str], row: Mapping[str, Any]) -> bytes:
        if row.get("kind") == "swap" and "status" in row:
            raise TypeError("no JSON can hold this")
        return row_line(columns, row)

    monkeypatch.setattr(shelf, "row_line", picky)
    path = await ledger.pack(sources=("straitsx",))
    found = members(path)
    listed = [orjson.loads(line) for line in found[EXCEPTIONS].splitlines()]
    refused = [row for row in listed if row["detail"] == "rows_refused: TypeError"]
    assert {(row["kind"], row["reason"]) for row in refused} == {("swap", "parked")}
    assert found["books/straitsx/parked/000001.jsonl"].count(b"rows_refused: TypeError") > 0
    assert (
        found["books/straitsx/limits/000001.jsonl"] == whole["books/straitsx/limits/000001.jsonl"]
    )
    assert verdict(path) == "ok"


EXCEPTIONS = "books/straitsx/exceptions/000001.jsonl"


async def test_the_same_log_packs_to_the_same_bytes_from_another_database(
    ledger: Ledger, cluster: Any
) -> None:
    first = await ledger.pack("first.tar", positions={"straitsx": 60, "gokart": 5})
    name = "copied_pack"
    async with db.connected(cluster.owner_dsn, seconds_max=60) as owner:
        await owner.execute(f"CREATE DATABASE {name} TEMPLATE ledger_template")
    try:
        dsn = with_database(cluster.owner_dsn, name)
        async with ledger.database.owner() as old, db.connected(dsn, seconds_max=60) as new:
            await new.execute("DELETE FROM ledger.heads")
            for table in ("heads", "events", "seals", "tiles"):
                rows = await old.fetch(f"SELECT * FROM ledger.{table}")
                if rows:
                    await new.copy_records_to_table(
                        table, schema_name="ledger", records=[tuple(row) for row in rows]
                    )
            await new.execute("SET timezone = 'Asia/Singapore'")
        settings = replace(ledger.database.settings, fold_events_max=3)
        second = ledger.folder / "second.tar"
        await export_pack.write_file(settings, dsn, second, export_pack.PackRequest(), quiet=True)
    finally:
        async with db.connected(cluster.owner_dsn, seconds_max=60) as owner:
            await owner.execute(f"DROP DATABASE {name} WITH (FORCE)")
    assert first.read_bytes() == second.read_bytes()


async def test_how_events_are_cut_into_batches_and_tables_into_parts_changes_no_line(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = members(await ledger.pack())
    monkeypatch.setattr(export_pack, "EVENTS_MAX", 3)
    monkeypatch.setattr(shelf, "BATCH_EVENTS", 2)
    assert members(await ledger.pack()) == whole
    monkeypatch.setattr(pack, "PART_BYTES", 2_000)
    path = await ledger.pack()
    cut = members(path)
    assert len(cut) > len(whole) + 20
    assert verdict(path) == "ok"
    for folder_ in {name.rpartition("/")[0] for name in whole if name.endswith(".jsonl")}:
        parts = [data for name, data in sorted(cut.items()) if name.startswith(folder_ + "/")]
        assert b"".join(parts) == whole[f"{folder_}/000001.jsonl"]


async def test_a_pack_up_to_any_position_is_covered_by_a_later_checkpoint(ledger: Ledger) -> None:
    for position in (1, 7, 8, 33, 59):
        path = await ledger.pack(sources=("straitsx",), positions={"straitsx": position})
        found = check(path, against=(ledger.notes,))
        about = orjson.loads(members(path)["about.json"])
        assert about["sources"][0]["checkpoint"] == next(s for s in SIZES if s >= position)
        assert overall(check(path)) == "ok", found
        stated = {each.name: each.message for each in found if each.outcome == "ok"}
        assert stated["books"] == f"every table is the fold of the events up to {position}"


async def test_events_that_are_not_sealed_are_left_out_and_counted(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_pack, "SEAL_SECONDS_MAX", 0)
    await append(ledger.database, 3)
    path = ledger.folder / "tail.tar"
    dsn, settings = ledger.database.service_dsn, ledger.database.settings
    done = await export_pack.write_file(settings, dsn, path, export_pack.PackRequest(), quiet=True)
    assert (done.position, done.unsealed) == ({"gokart": 5, "straitsx": 60}, {"straitsx": 3})
    with pytest.raises(NotCaughtUp, match="sealed up to 60, not 62"):
        await ledger.pack(positions={"straitsx": 62})
    with pytest.raises(InvalidRequest, match="positions 1 to 63, not 64"):
        await ledger.pack(positions={"straitsx": 64})
    with pytest.raises(InvalidRequest, match="no source 'nowhere'"):
        await ledger.pack(sources=("nowhere",))


async def test_the_export_waits_for_the_sealer(ledger: Ledger) -> None:
    await append(ledger.database, 3)
    packing = asyncio.create_task(ledger.pack())
    await ledger.seal()
    path = await packing
    assert orjson.loads(members(path)["about.json"])["sources"][1]["position"] == 63


async def test_a_log_that_is_not_what_was_sealed_is_not_packed(ledger: Ledger) -> None:
    await as_superuser(
        ledger.database,
        "UPDATE ledger.events SET peer = 'x' WHERE source = 'straitsx' AND position = 5",
    )
    with pytest.raises(Tampered, match="not those that were sealed"):
        await ledger.pack()
    assert not list(ledger.folder.glob("*.tar")) + list(ledger.folder.glob(".*"))


async def test_a_flip_of_any_byte_of_a_pack_fails(ledger: Ledger) -> None:
    path = await ledger.pack(sources=("gokart",), positions={"gokart": 1})
    data = bytearray(path.read_bytes())
    with pack.open_pack(path) as file:
        reader = PackReader(file)
        reader.scan()
    structural = {place for m in reader.members.values() for place in (m.offset, m.offset - 1)}
    structural |= {p for m in reader.members.values() for p in range(m.offset - 512, m.offset, 7)}
    structural |= {min(m.offset + m.size, len(data) - 1) for m in reader.members.values()}
    structural |= {0, 148, 156, 257, 345, 511, len(data) - 1024, len(data) - 1}
    seed = random.randrange(10**6)
    print("seed", seed)
    rng = random.Random(seed)
    places = structural | set(rng.sample(range(len(data)), 600))
    flipped = path.with_name("flipped.tar")
    for place in sorted(places):
        kept = data[place]
        data[place] ^= 1 << rng.randrange(8)
        flipped.write_bytes(data)
        assert verdict(flipped) == "fail", place
        data[place] = kept
    assert len(places) > 700


async def test_what_is_cut_off_added_or_doubled_fails(ledger: Ledger) -> None:
    path = await ledger.pack(sources=("gokart",))
    data = path.read_bytes()
    for wrong in (data[:-1], data[:-512], data[: len(data) // 2], data + b"\0", data + data, b""):
        path.write_bytes(wrong)
        assert verdict(path) == "fail"


@pytest.mark.parametrize("member", ["events/straitsx", "books/straitsx/balances"])
async def test_a_damaged_member_is_named(ledger: Ledger, member: str) -> None:
    path = await ledger.pack()
    data = path.read_bytes()
    with pack.open_pack(path) as file:
        reader = PackReader(file)
        reader.scan()
    place = reader.members[f"{member}/000001.jsonl"].offset + 700
    path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    assert failure(path).message == f"{member}/000001.jsonl is not what SHA256SUMS says"


def edit(name: str, line: int, **changes: Any) -> Callable[[dict[str, bytes]], None]:
    """Return a forgery: fields of one line of a member changed."""

    def change(found: dict[str, bytes]) -> None:
        lines = found[name].splitlines(keepends=True)
        row = orjson.loads(lines[line - 1]) | changes
        lines[line - 1] = orjson.dumps(row) + b"\n"
        found[name] = b"".join(lines)

    return change


EVENTS = "events/straitsx/000001.jsonl"


@pytest.mark.parametrize(
    ("field", "value", "name"),
    [
        ("body", "e30=", "identity"),
        ("idempotency_key", "straitsx/payment//x/y", "identity"),
        ("event_id", "00" * 16, "identity"),
        ("kind", "payout", "identity"),
        ("peer", "10.0.0.1", "seals"),
        ("headers", "{}", "seals"),
        ("received_at", "2026-01-01T00:00:00Z", "seals"),
        ("leaf", "00" * 32, "seals"),
        ("position", 18, "density"),
        ("source", "gokart", "density"),
        ("position", "17", "events"),
        ("more", 1, "events"),
        ("recorded_at", "2001-01-01T00:00:00Z", "order"),
        ("received_at", "yesterday", "events"),
    ],
)
async def test_a_forged_event_is_named_though_every_hash_is_made_right(
    ledger: Ledger, field: str, value: Any, name: str
) -> None:
    path = await ledger.pack(sources=("straitsx",))
    found = failure(repack(path, edit(EVENTS, 17, **{field: value})))
    assert (found.source, found.name, found.position) == ("straitsx", name, 17)


async def test_an_event_forged_with_its_leaf_does_not_have_the_root_that_was_signed(
    ledger: Ledger,
) -> None:
    path = await ledger.pack(sources=("straitsx",))

    def change(found: dict[str, bytes]) -> None:
        lines = found[EVENTS].splitlines(keepends=True)
        lines[16] = event_line(read_event(lines[16]) | {"peer": "10.0.0.1"})
        found[EVENTS] = b"".join(lines)

    found = failure(repack(path, change))
    assert (found.name, found.message) == (
        "seals", "the 60 events are not those that checkpoints/straitsx.txt signed",
    )  # fmt: skip


async def test_a_forged_row_of_the_books_is_named(ledger: Ledger) -> None:
    path = await ledger.pack(sources=("straitsx",))
    table = "books/straitsx/balances/000001.jsonl"
    found = failure(repack(path, edit(table, 1, debits="1000000")))
    assert (found.name, found.message.startswith(f'{table}, line 1: {{"source":"straitsx"')) == (
        "books", True,
    )  # fmt: skip
    assert '"debits":"1000000"' in found.message
    assert "; the events make {" in found.message


async def test_an_entry_that_does_not_balance_is_named_by_its_position(ledger: Ledger) -> None:
    path = await ledger.pack(sources=("straitsx",))
    table = "books/straitsx/entries/000001.jsonl"
    third = orjson.loads(members(path)[table].splitlines()[2])
    found = check(repack(path, edit(table, 3, amount="123456")))
    bad = {each.name: each.position for each in found if each.outcome == "fail"}
    assert bad == {"journal": third["position"], "books": third["position"]}


async def test_parts_left_out_or_slipped_in_are_found(ledger: Ledger) -> None:
    path = await ledger.pack()

    def without(found: dict[str, bytes]) -> None:
        del found["books/straitsx/history/000001.jsonl"]

    assert "is missing; the events make it" in failure(repack(path, without)).message
    for name in ("books/straitsx/history/000002.jsonl", "books/straitsx/made_up/000001.jsonl",
                 "events/other/000001.jsonl", "readme.txt"):  # fmt: skip
        forged = repack(path, lambda found, name=name: found.update({name: b"{}\n"}))
        assert name in failure(forged).message

    def cut(found: dict[str, bytes]) -> None:
        found[EVENTS] = b"".join(found[EVENTS].splitlines(keepends=True)[:-1])

    assert failure(repack(path, cut)).position == 60


async def test_a_pack_signed_by_another_key_fails_against_the_one_kept_elsewhere(
    ledger: Ledger, tmp_path: Path
) -> None:
    path = await ledger.pack()
    (mine,) = keys.trusted_keys(ledger.database.settings.data_dir)
    assert verdict(path, keys=(str(mine),)) == "ok"
    trusted = ledger.database.settings.data_dir / "keys" / "trusted.txt"
    found = check(path, trusted=trusted)
    assert (overall(found), [each for each in found if each.name == "keys"]) == ("ok", [])
    other = keys.rotate(tmp_path / "elsewhere").verifier
    failures = [each for each in check(path, keys=(str(other),)) if each.outcome == "fail"]
    assert [(each.name, each.source) for each in failures] == [
        ("about", ""), ("seals", "gokart"), ("seals", "straitsx"),
    ]  # fmt: skip
    assert all("signed by no trusted key" in each.message for each in failures)
    (tmp_path / "none.txt").write_text("# nobody\n")
    for options, words in (
        ({"trusted": tmp_path / "none.txt"}, "holds no key"), ({"keys": ("x",)}, "cannot be read"),
    ):  # fmt: skip
        with pytest.raises(InvalidRequest, match=words):
            check(path, **options)


async def test_checkpoints_kept_elsewhere_contradict_a_rewritten_pack(
    ledger: Ledger, tmp_path: Path
) -> None:
    path = await ledger.pack()
    found = check(path, against=(ledger.notes,))
    assert overall(found) == "ok"
    assert "3 checkpoints kept elsewhere: no contradiction" in [each.message for each in found]
    kept = tmp_path / "kept.txt"
    first = "callback-ledger/straitsx\n7\n"
    notes = ledger.notes.read_text("utf-8")
    kept.write_text(notes.replace(first, first.replace("7", "8")))
    found = failure(path, against=(kept,))
    assert (found.name, "first 8 events" in found.message) == ("against", True)
    early = await ledger.pack(positions={"straitsx": 7, "gokart": 5})
    assert verdict(early, against=(ledger.notes,)) == "INCOMPLETE"


async def test_a_pack_of_another_version_of_the_program_is_folded_by_this_one(
    ledger: Ledger,
) -> None:
    path = await ledger.pack(sources=("straitsx",))
    signer = keys.signing_key(ledger.database.settings.data_dir)

    def older(found: dict[str, bytes]) -> None:
        about = edited(found["about.json"], {"version": "0" * 16})
        found["about.json"] = about
        found["about.note.txt"] = signer.sign(about_text(about)).encode()

    forged = repack(path, older)
    found = check(forged)
    assert overall(found) == "ok"
    (books,) = [each for each in found if each.name == "books"]
    assert "folded by another version, and this program makes the same" in books.message
    different = repack(forged, edit("books/straitsx/balances/000001.jsonl", 1, debits="5"))
    found = check(different)
    assert overall(found) == "INCOMPLETE"
    (books,) = [each for each in found if each.name == "books"]
    assert "folded by another version" in books.message


def edited(about: bytes, changes: Mapping[str, Any], number: int | None = None) -> bytes:
    """Return the first member with fields changed: its own, or those of a source."""
    content = orjson.loads(about)
    (content if number is None else content["sources"][number]).update(changes)
    return orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


@pytest.mark.parametrize(
    ("number", "field", "value"),
    [
        (None, "format", "callback-ledger audit pack 1"),
        (None, "format", "another"),
        (None, "program", "callback-ledger 9"),
        (None, "version", "0" * 16),
        (None, "more", 1),
        (None, "sources", {}),
        (1, "source", "straitsz"),
        (1, "provider", "gokart"),
        (0, "currency", "SGD"),
        (0, "currency", None),
        (1, "currency", "XSGD"),
        (1, "wallets", {"XSGD": "other"}),
        (1, "position", 59),
        (1, "position", 61),
        (1, "checkpoint", 61),
        (1, "consistency", ["AA=="]),
        (1, "owner_of", {"field": "idempotency_id", "match": "(.+)"}),
        (1, "date_by", "receipt"),
        (1, "more", 1),
    ],
)
async def test_a_changed_field_of_what_a_pack_is_about_fails_and_is_named(
    ledger: Ledger, number: int | None, field: str, value: Any
) -> None:
    def change(found: dict[str, bytes]) -> None:
        found["about.json"] = edited(found["about.json"], {field: value}, number)

    forged = repack(await ledger.pack(), change)
    found = failure(forged, skip_books=True)
    name = field if number is None else f"sources[{number}].{field}"
    if field == "sources":
        name = "sources[0].source"
    assert (found.name, found.message.startswith(f"about.json: {name} is ")) == ("about", True)
    assert "was signed" in found.message
    assert "absent was" not in found.message


async def test_every_field_of_what_a_pack_is_about_is_signed(ledger: Ledger) -> None:
    found = members(await ledger.pack())
    (key,) = keys.trusted_keys(ledger.database.settings.data_dir)
    text, signers = open_note(found["about.note.txt"].decode(), [key])
    assert signers == [key]
    about = orjson.loads(found["about.json"])
    names = [*about.keys() - {"sources"}]
    names += [
        f"sources[{n}].{name}" for n, source in enumerate(about["sources"]) for name in source
    ]
    assert sorted(line.partition(" ")[0] for line in text.splitlines()[1:]) == sorted(names)
    with pytest.raises(BadNote, match="not a checkpoint"):
        open_checkpoint(found["about.note.txt"].decode(), [key])


async def test_other_bytes_and_other_notes_about_a_pack_fail(ledger: Ledger) -> None:
    path = await ledger.pack()
    signer = keys.signing_key(ledger.database.settings.data_dir)

    def respelled(found: dict[str, bytes]) -> None:
        found["about.json"] = found["about.json"].replace(b'"version"', b' "version"')

    def doubled(found: dict[str, bytes]) -> None:
        found["about.json"] = b'{"version": "1",' + found["about.json"].removeprefix(b"{")

    def checkpoint(found: dict[str, bytes]) -> None:
        found["about.note.txt"] = found["checkpoints/straitsx.txt"]

    def by_another_key(found: dict[str, bytes]) -> None:
        other = Signer.generate().sign(about_text(found["about.json"]))
        found["about.note.txt"] = other.encode()

    def of_another_text(found: dict[str, bytes]) -> None:
        note = found["about.note.txt"]
        found["about.note.txt"] = note.replace(b"callback-ledger audit", b"callback-ledger Audit")

    def of_nothing(found: dict[str, bytes]) -> None:
        found["about.note.txt"] = signer.sign("callback-ledger about.json\n").encode()

    for change in (respelled, doubled, checkpoint, by_another_key, of_another_text, of_nothing):
        assert failure(repack(path, change), skip_books=True).name == "about", change


async def test_a_pack_that_does_not_sign_what_it_is_about_is_incomplete(ledger: Ledger) -> None:
    def older(found: dict[str, bytes]) -> None:
        del found["about.note.txt"]
        found["about.json"] = edited(
            found["about.json"], {"format": "callback-ledger audit pack 1"}
        )

    found = check(repack(await ledger.pack(), older))
    (about,) = [each for each in found if each.outcome != "ok"]
    assert (about.outcome, about.name) == ("INCOMPLETE", "about")
    assert about.message.startswith("about.json is not signed, as in packs of older versions")


def without_note(found: dict[str, bytes]) -> None:
    del found["about.note.txt"]


def unsigned(found: dict[str, bytes], **changes: Any) -> None:
    """Make a pack one of the format that signs nothing, with terms of gokart changed."""
    without_note(found)
    about = edited(found["about.json"], {"format": "callback-ledger audit pack 1"})
    found["about.json"] = edited(about, changes, 0)


async def test_a_pack_whose_note_was_removed_fails(ledger: Ledger) -> None:
    found = failure(repack(await ledger.pack(), without_note), skip_books=True)
    assert (found.name, found.message) == (
        "about", "about.note.txt is missing, and packs of this format have it",
    )  # fmt: skip


async def test_other_books_of_an_unsigned_pack_may_be_those_of_other_terms(
    ledger: Ledger,
) -> None:
    found = check(repack(await ledger.pack(), partial(unsigned, currency="SGD")))
    assert overall(found) == "INCOMPLETE"
    version, books = (
        next(each for each in found if (each.source, each.name) == key)
        for key in (("", "version"), ("gokart", "books"))
    )
    others = "folded by another version or with other terms than about.json has, and this program "
    assert "another version" not in version.message
    assert books.message.startswith(f"{others}makes other books: ")
    (same,) = [e for e in found if (e.source, e.name) == ("straitsx", "books")]
    assert same.message.endswith(f"{others}makes the same")


async def test_a_pack_of_a_machine_without_the_sealing_key_says_that_it_is_not_signed(
    ledger: Ledger,
) -> None:
    settings = replace(ledger.database.settings, data_dir=ledger.folder / "nowhere")
    path = ledger.folder / "pack.tar"
    done = await export_pack.write_file(
        settings, ledger.database.service_dsn, path, export_pack.PackRequest(), quiet=True
    )
    assert not done.is_signed
    assert orjson.loads(members(path)["about.json"])["format"] == "callback-ledger audit pack 1"
    assert [each.name for each in check(path) if each.outcome != "ok"] == ["about"]


async def test_a_pack_is_signed_by_a_key_that_has_sealed_nothing_yet(ledger: Ledger) -> None:
    rotated = keys.rotate(ledger.database.settings.data_dir).verifier
    path = await ledger.pack()
    found = check(path)
    assert overall(found) == "ok"
    (about,) = [each.message for each in found if each.name == "about"]
    assert about == f"every field of about.json is signed by {rotated}"
    trusted = ledger.database.settings.data_dir / "keys" / "trusted.txt"
    assert verdict(path, trusted=trusted) == "ok"


FORMATS = {"gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT, "ustar": tarfile.USTAR_FORMAT}


def archive(found: Mapping[str, bytes], tar_format: int, **fields: Any) -> bytes:
    """Return an archive of members, packed by another program."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tar_format) as tar:
        for name, data in found.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for field, value in fields.items():
                setattr(info, field, value)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def container(path: Path) -> CheckResult:
    """Return the result about the container of a pack that holds."""
    found = check(path)
    assert overall(found) == "ok", found
    (result,) = [each for each in found if each.name == "container"]
    return result


@pytest.mark.parametrize("name", [*FORMATS])
async def test_a_pack_that_another_program_packed_again_holds_and_says_so(
    ledger: Ledger, name: str
) -> None:
    path = await ledger.pack(sources=("straitsx",))
    found = members(path)
    assert not container(path).advice
    in_order = archive(found, FORMATS[name], mtime=1.5, uid=1000, uname="auditor")
    backwards = archive(dict(reversed(found.items())), FORMATS[name])
    ours = {"mode": 0o600, "mtime": 0}
    for data in (in_order, backwards, archive(found, FORMATS[name], **ours)):
        path.write_bytes(data)
        assert container(path).advice == (
            "the archive is not as it was written: another program packed its members again, "
            "unchanged"
        )


def run(*words: str | Path) -> None:
    subprocess.run(words, check=True)


async def test_a_pack_that_tar_unpacked_and_packed_holds_and_says_so(ledger: Ledger) -> None:
    path = await ledger.pack(sources=("straitsx",))
    folder = ledger.folder / "unpacked"
    folder.mkdir()
    run("tar", "-xf", path, "-C", folder)
    again = ledger.folder / "again.tar"
    run("tar", "-cf", again, "-C", folder, ".")
    assert "packed its members again" in container(again).advice
    run("gzip", "-1", again)
    with pytest.raises(InvalidRequest, match="is compressed; run `gunzip`"):
        check(again.with_suffix(".tar.gz"))


async def test_members_in_another_order_are_a_pack_that_was_packed_again(ledger: Ledger) -> None:
    path = await ledger.pack(sources=("straitsx",))
    found = members(path)
    names = [*found]
    out = io.BytesIO()
    for name in (names[1], names[0], *names[2:]):
        data = found[name]
        out.write(pack.header(name, len(data)) + data + bytes(-len(data) % 512))
    path.write_bytes(out.getvalue() + pack.END)
    assert "packed its members again" in container(path).advice


@pytest.mark.parametrize("name", [*FORMATS])
async def test_a_pack_that_was_packed_again_with_changes_fails(ledger: Ledger, name: str) -> None:
    path = await ledger.pack(sources=("gokart",))
    found = members(path)
    data = archive(found, FORMATS[name])

    def forged(**changes: bytes) -> bytes:
        return archive(found | changes, FORMATS[name])

    lines = found["events/gokart/000001.jsonl"]
    without = {key: value for key, value in found.items() if key != "keys/trusted.txt"}
    linked = io.BytesIO(data)
    with tarfile.open(fileobj=linked, mode="a", format=FORMATS[name]) as tar:
        info = tarfile.TarInfo("readme.txt")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(info)
    for wrong in (
        forged(**{"events/gokart/000001.jsonl": lines.replace(b"5", b"6", 1)}),
        forged(**{"readme.txt": b"more"}), forged(**{SUMS: b""}),
        archive(without, FORMATS[name]), linked.getvalue(), data + b"x", data[: len(data) // 2],
        data + data,
    ):  # fmt: skip
        path.write_bytes(wrong)
        assert verdict(path) == "fail"
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        last = tar.getmembers()[-1]
    hidden = bytearray(data)
    hidden[last.offset_data + last.size] = 1  # in the padding of a member
    path.write_bytes(hidden)
    assert verdict(path) == "fail"


async def test_a_pack_whose_books_are_not_folded_again_is_incomplete(ledger: Ledger) -> None:
    assert verdict(await ledger.pack(), skip_books=True) == "INCOMPLETE"


async def test_an_earlier_pack_stays_when_a_new_one_cannot_be_finished(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = await ledger.pack()
    before = path.read_bytes()

    def fail(*_: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(shelf.OfflineFold, "finish", fail)
    with pytest.raises(OSError, match="no space"):
        await ledger.pack()
    assert path.read_bytes() == before
    assert sorted(each.name for each in ledger.folder.iterdir()) == ["data", "pack.tar"]
    assert path.stat().st_mode & 0o777 == 0o600
