"""`ledger verify`: whatever a superuser changes behind the program's back is found and named."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from ledger import registry
from ledger.books.generations import create_generation, schema_of
from ledger.config.settings import load
from ledger.eventlog.sources import load_terms
from ledger.evidence import checkpoint_file, keys
from ledger.evidence.sealer import SourceSealer
from ledger.rebuild.swap import Rebuild, exclusive_rebuild
from ledger.terminal.progress import Progress
from ledger.verify import evidence
from ledger.verify.database import Verification, VerifyOptions
from ledger.verify.log import LogCheck
from ledger.verify.outcome import CheckResult, overall
from tests import samples
from tests.asking import first_generation, fold_source
from tests.conftest import Database
from tests.evidence import append, append_bodies, as_superuser, stories, with_key

SOURCE = "straitsx"
SIZES = (7, 300, 310)


@dataclass(slots=True)
class Sealed:
    """A log of 310 sealed events with its books, and a copy of its checkpoints kept elsewhere."""

    database: Database
    generation: int
    elsewhere: Path

    async def tamper(self, *statements: str) -> None:
        await as_superuser(self.database, *statements)

    async def verify(self, *, against: bool = False, skip_books: bool = True) -> list[CheckResult]:
        options = VerifyOptions((self.elsewhere,) if against else (), skip_books=skip_books)
        return await Verification(self.database.settings, options, Progress(quiet=True)).examine()

    async def failure(self, **options: Any) -> CheckResult:
        """Return the first failed check; there must be one."""
        found = await self.verify(**options)
        assert overall(found) == "fail", found
        return next(check for check in found if check.outcome == "fail")

    async def seal(self) -> None:
        async with self.database.service() as connection:
            while await SourceSealer(SOURCE, self.database.settings).step(connection):
                pass

    async def fold(self) -> None:
        async with self.database.service() as connection:
            for terms in await load_terms(connection):
                await fold_source(self.database, terms, self.generation)

    @property
    def file(self) -> Path:
        return checkpoint_file.path_of(self.database.settings.data_dir, SOURCE)

    def forget_file(self) -> None:
        """Take away the append-only file, as who owns the machine can."""
        self.file.unlink(missing_ok=True)


@pytest.fixture
async def sealed(database: Database, tmp_path: Path) -> Sealed:
    """Make the log: every sample, then made-up callbacks, sealed in three checkpoints."""
    own = with_key(database, tmp_path / "data")
    bodies = [samples.body(name) for name in samples.names("straitsx")]
    bodies += [orjson.dumps(body) for body in stories(SIZES[-1] - len(bodies))]
    made = Sealed(own, await first_generation(own), tmp_path / "checkpoint.txt")
    done = 0
    for size in SIZES:
        await append_bodies(own, bodies[done:size])
        await made.seal()
        done = size
    await append(own, 3, "gokart")
    async with own.service() as connection:
        await SourceSealer("gokart", own.settings).step(connection)
    await made.fold()
    kept = checkpoint_file.path_of(own.settings.data_dir, SOURCE).read_text("utf-8")
    made.elsewhere.write_text(kept, "utf-8")
    return made


async def test_an_unchanged_log_is_verified_completely(sealed: Sealed) -> None:
    found = await sealed.verify(against=True, skip_books=False)
    assert overall(found) == "ok", found
    stated = {(check.source, check.name): check.message for check in found}
    assert stated[SOURCE, "log"].startswith("310 events, dense")
    assert stated[SOURCE, "seals"] == "3 checkpoints and 1 tile are those of 310 events"
    assert stated[SOURCE, "books"] == "every table is the fold of the log up to 310"
    assert stated["gokart", "books"] == "every table is the fold of the log up to 3"
    async with sealed.database.service() as connection:
        rows = await connection.fetch("SELECT state FROM ledger.generations")
        assert [row["state"] for row in rows] == ["live"]


COLUMNS = {
    "event_id": "bytes", "idempotency_key": "text", "kind": "text", "resource_id": "text",
    "status": "text", "idempotency_id": "text", "provider_at": "time", "path_event": "text",
    "origin": "origin", "verdict": "verdict", "reason": "text", "detail": "text", "peer": "text",
    "headers": "text", "body": "bytes", "received_at": "time", "recorded_at": "time",
}  # fmt: skip


async def test_every_edit_of_one_byte_of_any_column_is_found_at_its_position(
    sealed: Sealed,
) -> None:
    seed = random.randrange(10**6)
    print("seed", seed)
    rng = random.Random(seed)
    for column, sort in COLUMNS.items():
        position = rng.randrange(1, SIZES[-1] + 1)
        async with sealed.database.owner() as connection:
            before = await connection.fetchrow(
                f"SELECT {column} AS it, {_edit(column, sort, rng)} AS new FROM ledger.events "
                "WHERE source = $1 AND position = $2", SOURCE, position,
            )  # fmt: skip
            assert before["it"] != before["new"]
            await _put(connection, column, position, before["new"])
        failure = await sealed.failure()
        assert (failure.source, failure.position) == (SOURCE, position), (column, failure)
        async with sealed.database.owner() as connection:
            await _put(connection, column, position, before["it"])
    assert overall(await sealed.verify()) == "INCOMPLETE"


def _edit(column: str, sort: str, rng: random.Random) -> str:
    match sort:
        case "bytes":
            place = f"{rng.randrange(10**6)} % octet_length({column})"
            flip = rng.randrange(1, 256)
            return f"set_byte({column}, {place}, get_byte({column}, {place}) # {flip})"
        case "text":
            place = f"1 + {rng.randrange(10**6)} % greatest(length({column}), 1)"
            return f"coalesce(overlay({column} placing '~' from {place} for 1), '~')"
        case "time":
            return f"coalesce({column}, now()) + interval '1 microsecond'"
        case "origin":
            return "'operator'"
        case _:
            return f"CASE {column} WHEN 'accepted' THEN 'quarantined' ELSE 'accepted' END"


async def _put(connection: Any, column: str, position: int, value: Any) -> None:
    await connection.execute("ALTER TABLE ledger.events DISABLE TRIGGER events_immutable")
    await connection.execute(
        f"UPDATE ledger.events SET {column} = $3 WHERE source = $1 AND position = $2",
        SOURCE, position, value,
    )  # fmt: skip
    await connection.execute("ALTER TABLE ledger.events ENABLE ALWAYS TRIGGER events_immutable")


AT = "WHERE source = 'straitsx' AND position"


@pytest.mark.parametrize("moment", ["infinity", "-infinity", "20000-01-01", "4000-01-01 BC"])
async def test_an_event_that_cannot_even_be_read_is_named(sealed: Sealed, moment: str) -> None:
    for column in ("received_at", "recorded_at", "provider_at"):
        await sealed.tamper(f"UPDATE ledger.events SET {column} = '{moment}' {AT} = 77")
        failure = await sealed.failure()
        assert failure.position == 77, column


@pytest.mark.parametrize("position", [1, 150, 310])
async def test_a_deleted_event_is_found(sealed: Sealed, position: int) -> None:
    await sealed.tamper(f"DELETE FROM ledger.events {AT} = {position}")
    failure = await sealed.failure()
    assert (failure.name, failure.position) == ("density", position)


async def test_two_swapped_events_are_found(sealed: Sealed) -> None:
    await sealed.tamper(
        f"UPDATE ledger.events SET position = 1000 {AT} = 40",
        f"UPDATE ledger.events SET position = 40 {AT} = 41",
        f"UPDATE ledger.events SET position = 41 {AT} = 1000",
    )
    failure = await sealed.failure()
    assert (failure.name, failure.position) == ("seals", 40)


async def test_a_time_that_runs_backwards_is_found_without_any_seal(sealed: Sealed) -> None:
    await sealed.tamper(
        "DELETE FROM ledger.seals", "DELETE FROM ledger.tiles",
        f"UPDATE ledger.events SET recorded_at = recorded_at - interval '1 day' {AT} = 200",
    )  # fmt: skip
    sealed.forget_file()
    failure = await sealed.failure()
    assert (failure.name, failure.position) == ("order", 200)


async def test_a_cut_tail_is_found(sealed: Sealed) -> None:
    await sealed.tamper(f"DELETE FROM ledger.events {AT} > 305")
    failure = await sealed.failure()
    assert (failure.name, failure.position) == ("density", 306)
    await sealed.tamper("UPDATE ledger.heads SET position = 305 WHERE source = 'straitsx'")
    failure = await sealed.failure()
    assert (failure.name, failure.position) == ("tail", 306)


@pytest.mark.parametrize("also", ["", "DELETE FROM ledger.sources WHERE source = 'straitsx'"])
async def test_a_log_whose_head_was_taken_away_is_not_passed_over(
    sealed: Sealed, also: str
) -> None:
    sealed.forget_file()
    await sealed.tamper("DELETE FROM ledger.heads WHERE source = 'straitsx'", *filter(None, [also]))
    failure = await sealed.failure(skip_books=False)
    assert (failure.name, failure.source, failure.position) == ("head", SOURCE, 1)
    assert "there is an event 310" in failure.message


async def test_books_without_a_table_are_damaged(sealed: Sealed) -> None:
    schema = schema_of(sealed.generation)
    await sealed.tamper(f"DROP TABLE {schema}.entries")
    found = [check for check in await sealed.verify() if check.outcome == "fail"]
    assert found[0].name == "schema"
    assert found[0].message == "relation entries is missing"
    failure = next(check for check in found if check.name != "schema")
    assert (failure.name, failure.source) == ("journal", "gokart")
    assert "damaged" in failure.message


async def test_an_event_beyond_the_head_is_found(sealed: Sealed) -> None:
    await sealed.tamper("UPDATE ledger.heads SET position = 309 WHERE source = 'straitsx'")
    failure = await sealed.failure()
    assert (failure.name, failure.position) == ("head", 310)


async def test_a_tail_cut_with_its_seals_is_found_by_the_checkpoint_file(sealed: Sealed) -> None:
    await sealed.tamper(
        f"DELETE FROM ledger.events {AT} > 300",
        "UPDATE ledger.heads SET position = 300 WHERE source = 'straitsx'",
        "DELETE FROM ledger.seals WHERE source = 'straitsx' AND size > 300",
    )
    failure = await sealed.failure()
    assert (failure.name, failure.position) == ("against", 301)
    assert "signed 310 events" in failure.message
    notes = list(checkpoint_file.read(sealed.file))
    sealed.forget_file()
    failure = await sealed.failure()
    assert failure.name == "seals"
    assert "is gone or was emptied, although 2 checkpoints were signed" in failure.message
    # Who owns the machine can write a file that fits.
    sealed.file.write_text("".join(note + "\n" for note in notes[:2]))
    assert (await sealed.failure()).name == "books", "the books were further"
    async with sealed.database.owner() as connection:
        schema = schema_of(sealed.generation)
        await connection.execute(f"UPDATE {schema}.checkpoints SET position = least(position, 300)")
    assert overall(await sealed.verify()) == "INCOMPLETE"
    failure = await sealed.failure(against=True)
    assert (failure.name, failure.position) == ("against", 301)


async def test_a_rewritten_and_sealed_again_history_is_found_only_by_a_checkpoint_kept_elsewhere(
    sealed: Sealed,
) -> None:
    await sealed.tamper(
        f"UPDATE ledger.events SET peer = '10.0.0.1' {AT} = 123",
        "DELETE FROM ledger.seals WHERE source = 'straitsx'",
        "DELETE FROM ledger.tiles WHERE source = 'straitsx'",
    )
    sealed.forget_file()
    await sealed.seal()
    found = await sealed.verify(skip_books=False)
    assert overall(found) == "ok", "who holds database, key and file can rewrite: nothing is left"
    failure = await sealed.failure(against=True)
    assert (failure.name, failure.position) == ("against", 8)
    assert "up to 7 they agree" in failure.message


SEAL = "source = 'straitsx' AND size = 300"


@pytest.mark.parametrize(
    ("change", "name", "position"),
    [
        ("UPDATE ledger.seals SET root = set_byte(root, 3, get_byte(root, 3) # 1)", "seals", 8),
        ("UPDATE ledger.seals SET note = translate(note, 'ABCDEFGH', 'BCDEFGHA')", "seals", 8),
        ("UPDATE ledger.seals SET note = 'nothing'", "seals", 8),
        ("UPDATE ledger.seals SET vkey = 'x'", "seals", 8),
        ("UPDATE ledger.seals SET leaves = set_byte(leaves, 64, get_byte(leaves, 64) # 1)",
         "seals", 10),
        ("DELETE FROM ledger.seals", "seals", 8),
    ],
)  # fmt: skip
async def test_a_changed_checkpoint_is_found(
    sealed: Sealed, change: str, name: str, position: int
) -> None:
    await sealed.tamper(f"{change} WHERE {SEAL}")
    failure = await sealed.failure()
    assert (failure.name, failure.position) == (name, position)


@pytest.mark.parametrize(
    "change",
    ["UPDATE ledger.tiles SET hashes = set_byte(hashes, 700, get_byte(hashes, 700) # 1)",
     "UPDATE ledger.tiles SET root = set_byte(root, 0, get_byte(root, 0) # 1)",
     "DELETE FROM ledger.tiles"],
)  # fmt: skip
async def test_a_changed_tile_is_found(sealed: Sealed, change: str) -> None:
    await sealed.tamper(change)
    failure = await sealed.failure()
    assert (failure.name, failure.position) == ("tiles", 1)


async def test_a_history_signed_by_another_key_is_found(sealed: Sealed) -> None:
    await sealed.tamper(
        "DELETE FROM ledger.seals WHERE source = 'straitsx'",
        "DELETE FROM ledger.tiles WHERE source = 'straitsx'",
    )
    settings = with_key(sealed.database, sealed.elsewhere.parent / "forger").settings
    async with sealed.database.service() as connection:
        await SourceSealer(SOURCE, settings).step(connection)
    failure = await sealed.failure()
    assert (failure.name, failure.position) == ("seals", 1)
    assert "not signed by a trusted key" in failure.message


BOOKS = {
    "an edited balance": (
        "UPDATE {}.balances SET debits = debits + 1, credits = credits + 1 "
        "WHERE source = 'straitsx' AND account = 'expenses:fees' AND currency = 'XSGD'",
        "balances straitsx expenses:fees XSGD: debits is",
    ),
    "an edited status": (
        "UPDATE {}.transactions SET status = 'refunded' "
        "WHERE source = 'straitsx' AND position = 200",
        "status is refunded, the log says",
    ),
    "an edited state": (
        "UPDATE {}.transactions SET state = state || ' ' "
        "WHERE source = 'straitsx' AND position = 200",
        "state is",
    ),
    "a deleted row": (
        "DELETE FROM {}.history WHERE source = 'straitsx' AND position = 200",
        "only a fold of the log has it",
    ),
    "an invented row": (
        "INSERT INTO {}.limits (source, kind, id, first_position, position, state) "
        "VALUES ('straitsx', 'limits', 'nobody', 1, 1, '')",
        "limits straitsx limits nobody: the log has no cause",
    ),
    "an invented parking": (
        "INSERT INTO {}.parked VALUES ('straitsx', 5, 'payment', 'x', 'because')",
        "parked straitsx 5: the log has no cause",
    ),
}


@pytest.mark.parametrize("name", list(BOOKS))
async def test_books_that_are_not_the_fold_of_the_log_are_found(sealed: Sealed, name: str) -> None:
    statement, stated = BOOKS[name]
    async with sealed.database.owner() as connection:
        schema = schema_of(sealed.generation)
        assert (await connection.execute(statement.format(schema))).endswith(" 1")
    failure = await sealed.failure(skip_books=False)
    assert (failure.name, failure.source) == ("books", SOURCE)
    assert stated in failure.message


async def test_an_edited_entry_is_found_at_its_position_without_folding(sealed: Sealed) -> None:
    async with sealed.database.owner() as connection:
        await connection.execute(
            f"UPDATE {schema_of(sealed.generation)}.entries SET amount = amount + 0.01 "
            "WHERE source = 'straitsx' AND position = 200 AND line = 1"
        )
    failure = await sealed.failure()
    assert (failure.name, failure.position) == ("journal", 200)


async def test_an_edited_balance_is_found_without_folding(sealed: Sealed) -> None:
    async with sealed.database.owner() as connection:
        await connection.execute(
            f"UPDATE {schema_of(sealed.generation)}.balances SET debits = debits + 1 "
            "WHERE source = 'straitsx' AND account = 'expenses:fees' AND currency = 'XSGD'"
        )
    failure = await sealed.failure()
    assert failure.name == "balances"
    assert "the balance of expenses:fees is" in failure.message
    assert re.search(r"\.[0-9]*0 XSGD|\.[0-9]*0$", failure.message) is None


async def test_books_ahead_of_the_log_are_found(sealed: Sealed) -> None:
    async with sealed.database.owner() as connection:
        await connection.execute(
            f"UPDATE {schema_of(sealed.generation)}.checkpoints SET position = 400 "
            "WHERE source = 'straitsx'"
        )
    failure = await sealed.failure()
    assert (failure.name, failure.position) == ("books", 311)


async def test_a_partial_check_is_incomplete_and_never_a_pass(sealed: Sealed) -> None:
    assert overall(await sealed.verify()) == "INCOMPLETE"
    await append(sealed.database, 2)
    found = await sealed.verify(skip_books=False)
    assert overall(found) == "INCOMPLETE"
    assert any("events 311 to 312 are not sealed yet" in check.message for check in found)
    await sealed.seal()
    assert overall(await sealed.verify(skip_books=False)) == "ok"
    (sealed.database.settings.data_dir / keys.FOLDER / keys.TRUSTED_FILE).unlink()
    found = await sealed.verify(skip_books=False)
    assert overall(found) == "fail"
    (failure,) = [check for check in found if check.outcome == "fail"]
    assert failure.name == "keys"
    assert "trusted.txt is gone or empty, although 5 checkpoints were signed" in failure.message


async def test_seals_that_only_the_file_has_are_missed(sealed: Sealed) -> None:
    await sealed.tamper("DELETE FROM ledger.seals", "DELETE FROM ledger.tiles")
    failure = await sealed.failure()
    assert (failure.name, failure.source) == ("seals", "gokart")
    found = [check for check in await sealed.verify() if check.outcome == "fail"]
    assert [check.source for check in found] == ["gokart", SOURCE]
    assert "a checkpoint of 310 events, but ledger.seals has none" in found[1].message


@pytest.mark.parametrize("keep", [None, 0, 1])
async def test_a_file_of_checkpoints_that_is_gone_or_shortened_is_a_failure(
    sealed: Sealed, keep: int | None
) -> None:
    for _ in range(2):
        await append(sealed.database, 1)
        await sealed.seal()
    notes = list(checkpoint_file.read(sealed.file))
    if keep is None:
        sealed.forget_file()
    else:
        sealed.file.write_text("".join(note + "\n" for note in notes[-keep:] if keep))
    failure = await sealed.failure()
    assert (failure.name, failure.source) == ("seals", SOURCE)
    assert ("lacks 4 of 5 checkpoints" if keep else "is gone or was emptied") in failure.message


async def test_a_checkpoint_that_a_crash_kept_from_the_file_is_incomplete(sealed: Sealed) -> None:
    notes = list(checkpoint_file.read(sealed.file))
    sealed.file.write_text("".join(note + "\n" for note in notes[:-1]))
    found = [check for check in await sealed.verify(skip_books=False) if check.outcome != "ok"]
    assert [(check.outcome, check.name) for check in found] == [("INCOMPLETE", "seals")]
    await sealed.seal()
    assert overall(await sealed.verify(skip_books=False)) == "ok"


@pytest.mark.parametrize(
    ("named", "verdict"),
    [
        ({}, "INCOMPLETE"),
        ({"LEDGER_SECRET_GOKART": "s" * 40}, "INCOMPLETE"),
        ({"LEDGER_SOURCES": "straitsx,gokart"}, "fail"),
        ({"LEDGER_SECRETS_RETIRED_STRAITSX": "s" * 40}, "fail"),
        ({"LEDGER_CURRENCY_STRAITSX": "XUSD"}, "fail"),
    ],
)
async def test_terms_are_compared_with_settings_that_name_the_source(
    sealed: Sealed, named: dict[str, str], verdict: str
) -> None:
    """An auditor's machine may know nothing but the database's address."""
    await sealed.tamper(
        """UPDATE ledger.sources SET wallets = '{"payout.sgd": "XUSD"}' WHERE source = 'straitsx'"""
    )
    async with sealed.database.service() as connection:
        (found,) = await evidence.check_terms(connection, load(named))
    assert (found.outcome, found.name, found.source) == (verdict, "sources", SOURCE)


async def test_without_the_settings_of_the_service_changed_terms_are_incomplete(
    sealed: Sealed,
) -> None:
    await sealed.tamper(
        """UPDATE ledger.sources SET wallets = '{"payout.sgd": "XUSD"}' WHERE source = 'straitsx'"""
    )
    found = await sealed.verify(skip_books=False)
    assert overall(found) == "INCOMPLETE", found


async def test_terms_that_are_not_those_of_the_settings_are_named(sealed: Sealed) -> None:
    named = load({"LEDGER_SOURCES": "straitsx,gokart"}).sources
    settings = replace(sealed.database.settings, sources=named)
    sealed.database = replace(sealed.database, settings=settings)
    await sealed.tamper(
        """UPDATE ledger.sources SET wallets = '{"payout.sgd": "XUSD"}' WHERE source = 'straitsx'"""
    )
    found = [check for check in await sealed.verify(skip_books=False) if check.outcome != "ok"]
    assert [(check.outcome, check.name, check.source) for check in found] == [
        ("fail", "sources", SOURCE)
    ]
    assert "wallets is {'payout.sgd': 'XUSD'} in ledger.sources, {} by the settings" in (
        found[0].message
    )


async def test_doubtful_events_are_counted_and_not_kept(sealed: Sealed) -> None:
    own = sealed.database.settings.sources[SOURCE]
    settings = replace(
        sealed.database.settings, sources={SOURCE: replace(own, secrets=("s" * 40,))}
    )
    async with sealed.database.service() as connection:
        authenticity = await evidence.authenticity_of(connection, settings, SOURCE)
        check = LogCheck(connection, SOURCE, SIZES[-1], 0, (), authenticity=authenticity)
        log = await check.run()
    assert {k: (v.first.position, v.count) for k, v in log.doubts.items()} == {
        "forged": (1, SIZES[-1])
    }
    (result,) = evidence.check_senders(SOURCE, authenticity, log)
    assert (result.outcome, result.position) == ("fail", 1)
    assert "and 309 events after it" in result.message


async def test_verifying_drops_no_generation_but_its_own(sealed: Sealed) -> None:
    async with sealed.database.service() as connection:
        await create_generation(connection, registry.load(), "verify-x", "building")
        await connection.execute("UPDATE ledger.generations SET created_at = '2020-01-01'"
                                 " WHERE version = 'verify-x'")  # fmt: skip
        assert overall(await sealed.verify(skip_books=False)) == "ok"
        rows = await connection.fetch("SELECT version FROM ledger.generations ORDER BY generation")
        assert [row["version"] for row in rows][1:] == ["verify-x"]


async def test_what_a_killed_verification_left_is_dropped_a_day_later(sealed: Sealed) -> None:
    async with sealed.database.service() as connection:
        for age in ("1 hour", "2 days"):
            await create_generation(connection, registry.load(), f"verify-{age}", "building")
            await connection.execute(
                "UPDATE ledger.generations SET created_at = now() - $2::text::interval "
                "WHERE version = $1", f"verify-{age}", age,
            )  # fmt: skip
    database = sealed.database
    async with exclusive_rebuild(database.service_dsn) as connection:
        work = Rebuild(database.service_dsn, database.settings, connection, registry.load(), 0)
        await work.build()
        await work.drop()
        rows = await connection.fetch("SELECT version FROM ledger.generations ORDER BY generation")
        assert [row["version"] for row in rows][1:] == ["verify-1 hour"]


async def test_books_that_are_behind_are_compared_where_they_are(sealed: Sealed) -> None:
    await append(sealed.database, 5)
    await sealed.seal()
    found = await sealed.verify(skip_books=False)
    assert overall(found) == "ok", found
    assert any(check.message.endswith("up to 310") for check in found)
    await sealed.fold()
    assert overall(await sealed.verify(skip_books=False)) == "ok"
