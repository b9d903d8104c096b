"""The sealer: signed checkpoints that follow the log, over every kill and two sealers at once."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from ledger.database import conditions
from ledger.errors import CannotSeal
from ledger.evidence import checkpoint_file, keys, leaf
from ledger.evidence import store as seals
from ledger.evidence.merkle import leaf_hash, root_of
from ledger.evidence.sealer import EVENTS_MAX, Sealer, SourceSealer, prepare
from ledger.evidence.signed_note import open_checkpoint
from ledger.terminal.progress import Progress
from ledger.verify.database import Verification, VerifyOptions
from tests.conftest import Database, eventually
from tests.evidence import append, as_superuser, with_key

SOURCE = "straitsx"
TORN = b" (torn)\n\n"


@pytest.fixture
async def sealed(database: Database, tmp_path: Path) -> Database:
    """The database with a data directory of its own for keys and checkpoints."""
    return with_key(database, tmp_path)


async def seal_all(database: Database, source: str = SOURCE) -> None:
    sealer = SourceSealer(source, database.settings)
    async with database.service() as connection:
        while await sealer.step(connection):
            pass


async def rows_of(database: Database, table: str) -> list[Any]:
    async with database.service() as connection:
        order = "size" if table == "seals" else "level, tile"
        return list(await connection.fetch(f"SELECT * FROM ledger.{table} ORDER BY {order}"))


async def assert_true(database: Database) -> None:
    """Every note is signed by our key and is the root of the events at its size."""
    async with database.service() as connection:
        events = await seals.events_after(connection, SOURCE, 0, 10**9, 10**12)
    leaves = [leaf.hash_of(event) for event in events]
    previous = 0
    for seal in await rows_of(database, "seals"):
        checkpoint, signers = open_checkpoint(
            seal["note"], keys.trusted_keys(database.settings.data_dir)
        )
        assert len(signers) == 1
        assert str(signers[0]) == seal["vkey"]
        assert (checkpoint.source, checkpoint.size) == (SOURCE, seal["size"])
        assert checkpoint.root == seal["root"] == root_of(leaves[: seal["size"]])
        assert seal["previous"] == previous
        assert seal["leaves"] == b"".join(leaves[previous : seal["size"]])
        previous = seal["size"]
    assert previous == len(leaves)
    for tile in await rows_of(database, "tiles"):
        width = 256 ** (tile["level"] + 1)
        begin = tile["tile"] * width
        assert tile["root"] == root_of(leaves[begin : begin + width])


async def test_a_seal_is_the_signed_root_of_the_events_before_it(sealed: Database) -> None:
    await append(sealed, 3)
    await seal_all(sealed)
    await append(sealed, 700)
    await seal_all(sealed)
    assert [row["size"] for row in await rows_of(sealed, "seals")] == [3, 703]
    assert [(row["level"], row["tile"]) for row in await rows_of(sealed, "tiles")] == [
        (0, 0), (0, 1),
    ]  # fmt: skip
    await assert_true(sealed)


async def test_a_seal_adds_a_thousand_events_at_most(sealed: Database) -> None:
    await append(sealed, 2_300)
    await seal_all(sealed)
    assert [row["size"] for row in await rows_of(sealed, "seals")] == [1_000, 2_000, 2_300]
    assert EVENTS_MAX == 1_000
    await assert_true(sealed)


async def test_the_same_notes_are_in_the_append_only_file(sealed: Database) -> None:
    for count in (3, 300, 5):
        await append(sealed, count)
        await seal_all(sealed)
    path = checkpoint_file.path_of(sealed.settings.data_dir, SOURCE)
    assert list(checkpoint_file.read(path)) == [
        row["note"] for row in await rows_of(sealed, "seals")
    ]


async def test_what_a_crash_kept_from_the_file_is_appended_at_the_next_start(
    sealed: Database,
) -> None:
    for count in (3, 4, 5):
        await append(sealed, count)
        await seal_all(sealed)
    path = checkpoint_file.path_of(sealed.settings.data_dir, SOURCE)
    notes = list(checkpoint_file.read(path))
    whole = path.read_bytes()
    first = len(whole) - sum(len(note.encode()) + 1 for note in notes[1:])
    for cut in (first, first + 10, len(whole) - 1, len(whole) - 2, len(whole) - 9):
        path.write_bytes(whole[:cut])
        await seal_all(sealed)
        assert set(checkpoint_file.read(path)) == set(notes), cut


@pytest.mark.parametrize("left", [None, 0, 10, "checkpoints of straitsx\n\n"[:5], 1])
async def test_a_file_that_lacks_more_than_a_crash_keeps_from_it_is_not_filled_silently(
    sealed: Database, left: int | str | None
) -> None:
    for _ in range(4):
        await append(sealed, 3)
        await seal_all(sealed)
    path = checkpoint_file.path_of(sealed.settings.data_dir, SOURCE)
    notes, whole = list(checkpoint_file.read(path)), path.read_bytes()
    match left:
        case None:
            path.unlink()
        case str():
            path.write_text(left)
        case 1:  # the first checkpoint is left
            path.write_bytes(whole[: len(whole) - sum(len(n.encode()) + 1 for n in notes[1:])])
        case _:
            path.write_bytes(whole[:left])
    before = path.read_bytes() if path.exists() else None
    with pytest.raises(CannotSeal, match="restore it from a backup"):
        await seal_all(sealed)
    assert (path.read_bytes() if path.exists() else None) in (before, (before or b"") + TORN)
    checkpoint_file.begin_again(sealed.settings.data_dir, SOURCE)
    await seal_all(sealed)
    assert list(checkpoint_file.read(path)) == notes


async def test_no_key_is_made_beside_a_log_that_is_not_empty(sealed: Database) -> None:
    """The key is gone, the log was rewritten: nothing that is signed from now on is trusted."""
    await append(sealed, 34)
    await seal_all(sealed)
    shutil.rmtree(sealed.settings.data_dir / "keys")
    shutil.rmtree(sealed.settings.data_dir / "checkpoints")
    await as_superuser(
        sealed, "DELETE FROM ledger.seals", "DELETE FROM ledger.tiles",
        "UPDATE ledger.events SET peer = 'x' WHERE source = 'straitsx' AND position = 9",
    )  # fmt: skip
    sealer = Sealer(sealed.service_dsn, sealed.settings)
    async with sealed.owner() as owner:
        await prepare(owner, sealed.settings)
    async with sealed.service() as connection:
        await sealer.round(connection)
        stated = await conditions.current(connection)
    assert await rows_of(sealed, "seals") == []
    assert [(each.source, each.name) for each in stated] == [(SOURCE, "seal_refused")]
    assert "ledger seal begin-file straitsx" in stated[0].detail
    assert not list(sealed.settings.data_dir.iterdir())
    checkpoint_file.begin_again(sealed.settings.data_dir, SOURCE)
    with pytest.raises(CannotSeal, match="ledger seal rotate"):
        await seal_all(sealed)
    assert not (sealed.settings.data_dir / "keys").exists()
    keys.rotate(sealed.settings.data_dir)
    await seal_all(sealed)
    await assert_true(sealed)


async def test_the_first_key_is_made_for_an_empty_log(database: Database, tmp_path: Path) -> None:
    settings = replace(database.settings, data_dir=tmp_path / "data")
    async with database.owner() as owner:
        await prepare(owner, settings)
    own = replace(database, settings=settings)
    await append(own, 3)
    await seal_all(own)
    await assert_true(own)


async def test_the_folder_is_made_for_an_empty_log_whatever_key_there_is(
    database: Database, tmp_path: Path
) -> None:
    own = replace(database, settings=replace(database.settings, data_dir=tmp_path / "data"))
    kept = keys.create_first(own.settings.data_dir)
    async with own.owner() as owner:
        await prepare(owner, own.settings)
    await append(own, 3)
    await seal_all(own)
    assert keys.trusted_keys(own.settings.data_dir) == [kept.verifier]
    await assert_true(own)


async def rotated(database: Database) -> None:
    """Run `ledger seal rotate` with the settings of a service."""
    given = {
        "LEDGER_DATA_DIR": str(database.settings.data_dir),
        "LEDGER_DATABASE_URL": database.service_dsn,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "ledger", "seal", "rotate",
        env={k: v for k, v in os.environ.items() if not k.startswith("LEDGER_")} | given,
    )  # fmt: skip
    assert await process.wait() == 0


async def test_a_new_key_comes_with_its_folder_only_where_nothing_was_signed(
    database: Database, tmp_path: Path
) -> None:
    """A receiver was started before the first projector, so that no key was made."""
    own = replace(database, settings=replace(database.settings, data_dir=tmp_path / "data"))
    await append(own, 3)
    with pytest.raises(CannotSeal, match="if it was ever there") as refused:
        await seal_all(own)
    assert "although checkpoints were signed" not in str(refused.value)
    await rotated(own)
    await seal_all(own)
    await assert_true(own)
    shutil.rmtree(own.settings.data_dir / "checkpoints")
    await rotated(own)
    assert not (own.settings.data_dir / "checkpoints").exists()
    await append(own, 1, "gokart")
    with pytest.raises(CannotSeal, match="although checkpoints were signed"):
        await seal_all(own, "gokart")


async def test_a_file_that_cannot_be_written_stops_one_source_only(sealed: Database) -> None:
    path = checkpoint_file.path_of(sealed.settings.data_dir, "gokart")
    path.mkdir()
    await append(sealed, 2, "gokart")
    await append(sealed, 3)
    sealer = Sealer(sealed.service_dsn, sealed.settings)
    async with sealed.service() as connection:
        assert await sealer.round(connection) == 3
        (found,) = await conditions.current(connection)
    assert (found.source, found.name) == ("gokart", "seal_refused")
    assert f"{path}: Is a directory" in found.detail


async def test_what_is_from_before_the_marks_is_signed_and_named(sealed: Database) -> None:
    """An upgrade finds a tail that no version marked; after the marks the same is refused."""
    gokart = replace(sealed.settings.sources["gokart"], secrets=("s" * 40,))
    own = replace(sealed, settings=replace(sealed.settings, sources={"gokart": gokart}))
    await append(sealed, 3, "gokart")
    with pytest.raises(CannotSeal, match="carries no proof"):
        await seal_all(own, "gokart")
    await as_superuser(
        sealed, "UPDATE ledger.migrations SET applied_at = now() + interval '1 hour'"
    )
    await seal_all(own, "gokart")
    assert [row["size"] for row in await rows_of(sealed, "seals")] == [3]
    found = [
        each
        for each in await Verification(
            own.settings, VerifyOptions(), Progress(quiet=True)
        ).examine()
        if each.name == "senders"
    ]
    assert [(each.outcome, each.position) for each in found] == [("INCOMPLETE", 1)]
    assert "and 2 events after it" in found[0].message
    assert "unsigned_until" in found[0].advice


async def test_a_key_that_no_list_trusts_does_not_sign(sealed: Database) -> None:
    await append(sealed, 3)
    await seal_all(sealed)
    (sealed.settings.data_dir / "keys" / "trusted.txt").unlink()
    await append(sealed, 3)
    with pytest.raises(CannotSeal, match="does not list the key that signs"):
        await seal_all(sealed)


async def test_a_head_that_is_no_source_writes_no_file(sealed: Database, tmp_path: Path) -> None:
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    outside.mkdir(mode=0o755)
    name = f"../../{outside.name}/x"
    with pytest.raises(CannotSeal, match="cannot be the name of a source"):
        checkpoint_file.path_of(sealed.settings.data_dir, name)
    await append(sealed, 1)
    async with sealed.service() as connection:
        with pytest.raises(asyncpg.CheckViolationError):
            await connection.execute("INSERT INTO ledger.heads (source) VALUES ($1)", name)
    await as_superuser(
        sealed,
        "ALTER TABLE ledger.heads DROP CONSTRAINT heads_source_check",
        f"INSERT INTO ledger.heads (source, position) VALUES ('{name}', 1)",
        f"INSERT INTO ledger.events SELECT '{name}', position, event_id, idempotency_key, kind, "
        "resource_id, status, idempotency_id, provider_at, path_event, origin, verdict, reason, "
        "detail, peer, headers, body, received_at, recorded_at FROM ledger.events",
    )
    async with sealed.service() as connection:
        await Sealer(sealed.service_dsn, sealed.settings).round(connection)
        stated = {each.source: each.name for each in await conditions.current(connection)}
    assert stated == {name: "seal_refused"}
    assert not list(outside.iterdir())
    assert outside.stat().st_mode & 0o777 == 0o755


async def test_a_folder_that_is_there_keeps_its_mode(sealed: Database) -> None:
    for name in ("keys", "checkpoints"):
        (sealed.settings.data_dir / name).chmod(0o750)
    await append(sealed, 1)
    await seal_all(sealed)
    keys.rotate(sealed.settings.data_dir)
    for name in ("keys", "checkpoints"):
        assert (sealed.settings.data_dir / name).stat().st_mode & 0o777 == 0o750


async def test_two_sealers_at_once_sign_one_history(sealed: Database) -> None:
    done = asyncio.Event()

    async def seal() -> None:
        sealer = SourceSealer(SOURCE, sealed.settings)
        async with sealed.service() as connection:
            while not done.is_set() or await sealer.step(connection):
                await sealer.step(connection)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(seal())
        tasks.create_task(seal())
        for _ in range(30):
            await append(sealed, random.randrange(1, 60))
        done.set()
    await assert_true(sealed)
    assert len(await rows_of(sealed, "seals")) > 1


async def test_a_sealer_cancelled_at_any_moment_resumes(sealed: Database) -> None:
    seed = random.randrange(10**6)
    print("seed", seed)
    rng = random.Random(seed)
    for _ in range(25):
        await append(sealed, rng.randrange(1, 200))
        task = asyncio.create_task(Sealer(sealed.service_dsn, sealed.settings).run())
        await asyncio.sleep(rng.random() * 0.06)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    await seal_all(sealed)
    await assert_true(sealed)
    path = checkpoint_file.path_of(sealed.settings.data_dir, SOURCE)
    assert set(checkpoint_file.read(path)) == {
        row["note"] for row in await rows_of(sealed, "seals")
    }


async def test_the_sealer_follows_within_a_second(sealed: Database) -> None:
    task = asyncio.create_task(Sealer(sealed.service_dsn, sealed.settings).run())
    try:
        for size in (2, 4, 6):
            await append(sealed, 2)

            async def is_sealed(size: int = size) -> bool:
                return (await rows_of(sealed, "seals") or [{"size": 0}])[-1]["size"] >= size

            await eventually(is_sealed, 2)
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_an_event_changed_in_the_tail_stops_the_sealing(sealed: Database) -> None:
    await append(sealed, 10)
    await seal_all(sealed)
    await as_superuser(
        sealed, "UPDATE ledger.events SET peer = 'x' WHERE source = 'straitsx' AND position = 9"
    )
    await append(sealed, 1)
    with pytest.raises(CannotSeal, match="not what its checkpoint of 10 events signed"):
        await seal_all(sealed)
    assert [row["size"] for row in await rows_of(sealed, "seals")] == [10]


async def test_an_event_that_cannot_be_read_stops_the_sealing_and_nothing_else(
    sealed: Database,
) -> None:
    await append(sealed, 10)
    await append(sealed, 10, "gokart")
    await as_superuser(
        sealed, "UPDATE ledger.events SET peer = 'x', received_at = '20000-01-01' "
        "WHERE source = 'straitsx' AND position = 9",
    )  # fmt: skip
    sealer = Sealer(sealed.service_dsn, sealed.settings)
    async with sealed.service() as connection:
        assert await sealer.round(connection) == 10
    assert [row["source"] for row in await rows_of(sealed, "seals")] == ["gokart"]


async def test_a_database_restored_from_an_older_backup_is_not_sealed_silently(
    sealed: Database,
) -> None:
    await append(sealed, 10)
    await seal_all(sealed)
    await as_superuser(
        sealed,
        "DELETE FROM ledger.seals",
        "DELETE FROM ledger.events WHERE position > 6",
        "UPDATE ledger.heads SET position = 6 WHERE source = 'straitsx'",
    )
    with pytest.raises(CannotSeal, match="older backup or rewritten"):
        await seal_all(sealed)
    aside = checkpoint_file.begin_again(sealed.settings.data_dir, SOURCE)
    assert aside is not None
    assert len(list(checkpoint_file.read(aside))) == 1
    await seal_all(sealed)
    await assert_true(sealed)


async def test_a_new_key_signs_and_the_old_one_stays_trusted(sealed: Database) -> None:
    await append(sealed, 1)
    await seal_all(sealed)
    keys.rotate(sealed.settings.data_dir)
    await append(sealed, 1)
    await seal_all(sealed)
    first, second = await rows_of(sealed, "seals")
    assert first["vkey"] != second["vkey"]
    assert list(map(str, keys.trusted_keys(sealed.settings.data_dir))) == [
        first["vkey"], second["vkey"],
    ]  # fmt: skip
    await assert_true(sealed)


async def test_key_and_folders_are_for_their_owner_only(sealed: Database) -> None:
    await append(sealed, 1)
    await seal_all(sealed)
    folder = sealed.settings.data_dir / "keys"
    assert (folder / "seal.key").stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700
    assert sorted(path.name for path in folder.iterdir()) == ["seal.key", "trusted.txt"]


@pytest.mark.parametrize("table", ["tiles", "seals"])
@pytest.mark.parametrize(
    "change", ["UPDATE ledger.{} SET source = 'x'", "DELETE FROM ledger.{}", "TRUNCATE ledger.{}"]
)
async def test_seals_cannot_be_changed(sealed: Database, table: str, change: str) -> None:
    await append(sealed, 300)
    await seal_all(sealed)
    async with sealed.service() as connection:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(change.format(table))
    async with sealed.owner() as connection:
        await connection.execute("SET session_replication_role = replica")
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="append-only"):
            await connection.execute(change.format(table))


async def test_every_node_of_a_proof_can_be_read(sealed: Database) -> None:
    for count in (100, 156, 1, 600, 43):
        await append(sealed, count)
        await seal_all(sealed)
    async with sealed.service() as connection:
        events = await seals.events_after(connection, SOURCE, 0, 10**9, 10**12)
        leaves = [leaf_hash(leaf.encode(event)) for event in events]
        expected = {
            (height, index)
            for height in range(10)
            for index in range(900 >> height)
            if height != 9 or (index + 1) << 9 <= 900
        }
        found = await seals.load_nodes(connection, SOURCE, expected)
        for (height, index), node in found.items():
            assert node == root_of(leaves[index << height : (index + 1) << height])


@pytest.fixture(autouse=True)
async def nothing_is_left(sealed: Database) -> AsyncIterator[None]:
    yield
    assert not list(sealed.settings.data_dir.glob("keys/*.new"))
