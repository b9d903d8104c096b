"""Law: what a rebuild says of the live books is true, and nothing wrong is ever made live."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest

from ledger.books import balance_index, fold_version
from ledger.books.generations import SELECT_LIVE, SELECT_POSITIONS, use_generation
from ledger.cli import main as cli
from ledger.errors import NoBooks
from ledger.eventlog.sources import load_terms
from ledger.rebuild import swap as rebuild
from ledger.rebuild.coordinator import BulkRebuild
from ledger.rebuild.plan import drop_generation
from ledger.rebuild.second_generation import SecondFold
from ledger.rebuild.swap import Rebuild, exclusive_rebuild
from ledger.registry import load as load_registry
from ledger.simulator.simulate import SimulatedCallback
from tests.asking import first_generation, fold_source, payment, payout
from tests.conftest import Database
from tests.dumps import differences, dump
from tests.integration.books.test_projection_worker import append, callbacks, fill, seeded

SET_OLDER = "UPDATE ledger.generations SET version = 'older' WHERE generation = {}"
GENERATIONS = "SELECT generation, version, state FROM ledger.generations ORDER BY 1"


@dataclass(frozen=True, slots=True)
class Done:
    """What the command said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        found = orjson.loads(self.out)
        assert isinstance(found, dict)
        return found


Command = Callable[..., Awaitable[Done]]


@pytest.fixture
def command(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Command:  # fmt: skip
    """Run `ledger rebuild` on the test's database."""
    monkeypatch.setenv("LEDGER_DATABASE_URL", database.service_dsn)
    monkeypatch.setenv("LEDGER_DATA_DIR", str(tmp_path))

    async def run(*flags: str) -> Done:
        capsys.readouterr()
        code = await asyncio.to_thread(cli.run, ["rebuild", *flags])
        reported = capsys.readouterr()
        return Done(code, reported.out, reported.err)

    return run


@pytest.fixture
async def live(database: Database) -> int:
    """Fill the logs with everything that can happen, and fold them into live books."""
    await fill(database, seeded(), 2)
    async with database.service() as connection:
        for row in await connection.fetch(GENERATIONS):
            await drop_generation(connection, row["generation"])
    generation = await first_generation(database)
    await fold(database, generation)
    return generation


async def fold(database: Database, generation: int) -> None:
    async with database.service() as connection:
        for terms in await load_terms(connection):
            await fold_source(database, terms, generation)


async def generations(database: Database) -> list[tuple[int, str]]:
    async with database.service() as connection:
        return [(row["generation"], row["state"]) for row in await connection.fetch(GENERATIONS)]


async def change(database: Database, generation: int, statement: str) -> Any:
    async with database.service() as connection:
        await use_generation(connection, generation)
        return await connection.fetchrow(statement)


async def test_without_a_flag_equal_books_are_kept_for_a_later_swap(
    database: Database, live: int, command: Command
) -> None:
    done = await command("--json")
    assert (done.code, done.err) == (0, "")
    reported = done.json
    assert (reported["verdict"], reported["then"], reported["differences"]) == ("equal", "kept", [])
    assert (reported["live"], reported["generation"]) == (live, live + 1)
    assert {row["source"] for row in reported["sources"]} == {"straitsx", "gokart"}
    assert reported["events"] == sum(row["position"] for row in reported["sources"]) > 100
    assert await generations(database) == [(live, "live"), (live + 1, "building")]
    swapped = (await command("--swap", "--json")).json
    assert (swapped["then"], swapped["events"]) == ("swapped", 0)
    assert await generations(database) == [(live, "previous"), (live + 1, "live")]
    async with database.service() as connection:
        assert differences(await dump(connection, live), await dump(connection, live + 1)) == {}
        rows = await connection.fetch(GENERATIONS)
        assert len({row["version"] for row in rows}) == 1


async def test_verify_only_compares_and_drops(
    database: Database, live: int, command: Command
) -> None:
    done = await command("--verify-only")
    assert done.code == 0
    assert "every table is equal" in done.out
    assert f"generation {live + 1} was dropped; {live} is live as before" in done.out
    assert await generations(database) == [(live, "live")]


CORRUPTIONS = {
    "a balance": (
        "balances",
        "UPDATE balances SET debits = debits + 0.01 WHERE (source, account, currency) = ("
        "SELECT source, account, currency FROM entries ORDER BY position LIMIT 1) "
        "RETURNING source, account, currency",
        "debits",
    ),
    "an entry": (
        "entries",
        "UPDATE entries SET amount = amount + 1 WHERE (source, position, line) = ("
        "SELECT source, position, line FROM entries ORDER BY position DESC LIMIT 1) "
        "RETURNING source, position, line, account, currency",
        "amount",
    ),
    "a status": (
        "transactions",
        "UPDATE transactions SET status = 'refunded' WHERE (source, kind, id) = ("
        "SELECT source, kind, id FROM transactions WHERE status = 'completed' LIMIT 1) "
        "RETURNING source, kind, id, first_position",
        "status",
    ),
    "what the fold keeps": (
        "transactions",
        "UPDATE transactions SET state = state || ' ' WHERE (source, kind, id) = ("
        "SELECT source, kind, id FROM transactions LIMIT 1) "
        "RETURNING source, kind, id, first_position",
        "state",
    ),
    "how an amount is written": (
        "entries",
        "UPDATE entries SET amount = (amount::text || CASE WHEN amount = trunc(amount) "
        "THEN '.0' ELSE '0' END)::numeric WHERE (source, position, line) = ("
        "SELECT source, position, line FROM entries ORDER BY position LIMIT 1) "
        "RETURNING source, position, line, account, currency",
        "amount",
    ),
    "nothing for no text": (
        "exceptions",
        "UPDATE exceptions SET note = '' WHERE (source, id, position, action) = ("
        "SELECT source, id, position, action FROM exceptions WHERE note IS NULL LIMIT 1) "
        "RETURNING source, id, position, action",
        "note",
    ),
    "a number for its text": (
        "transactions",
        "UPDATE transactions SET details = jsonb_set(details, '{account_no}', "
        "to_jsonb((details->>'account_no')::numeric)) WHERE (source, kind, id) = ("
        "SELECT source, kind, id FROM transactions "
        "WHERE details->>'account_no' ~ '^[1-9][0-9]{0,20}$' LIMIT 1) "
        "RETURNING source, kind, id, first_position",
        "details",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", CORRUPTIONS)
async def test_what_was_changed_by_hand_is_found_and_named(
    database: Database, live: int, command: Command, what: str
) -> None:
    table, statement, column = CORRUPTIONS[what]
    row = dict(await change(database, live, statement))
    done = await command("--json")
    assert done.code == 1, done
    (found,) = done.json["differences"]
    assert (found["table"], found["column"], found["source"]) == (table, column, row["source"])
    key = {name: str(value) for name, value in row.items() if name in found["key"]}
    assert {name: str(value) for name, value in found["key"].items()} == key
    assert found["live"] != found["rebuilt"]
    explaining = row.get("position") or row.get("first_position")
    if explaining is not None:
        assert found["positions"][0] == explaining
    else:
        rows = await change(
            database, live,
            "SELECT array_agg(position) AS all FROM entries WHERE "
            f"(source, account, currency) = ('{row['source']}', '{row['account']}', "
            f"'{row['currency']}')",
        )  # fmt: skip
        assert found["positions"]
        assert set(found["positions"]) <= set(rows["all"])


@pytest.mark.parametrize(
    ("statement", "side"),
    [
        ("DELETE FROM history WHERE (source, position, kind, id) = ("
         "SELECT source, position, kind, id FROM history ORDER BY 1, 2, 3, 4 LIMIT 1) "
         "RETURNING position", "live"),
        ("INSERT INTO parked VALUES ('straitsx', 3, 'payment', 'p', 'no') RETURNING position",
         "rebuilt"),
        ("INSERT INTO history SELECT * FROM history WHERE (source, position) = ("
         "SELECT source, position FROM history ORDER BY 1, 2 LIMIT 1) RETURNING position",
         "rebuilt"),
    ],
)  # fmt: skip
async def test_a_row_that_one_side_lacks_is_stated_with_the_side_that_has_it(
    database: Database, live: int, command: Command, statement: str, side: str
) -> None:
    row = await change(database, live, statement)
    done = await command("--json")
    assert done.code == 1
    (found,) = done.json["differences"]
    assert (found["column"], found["positions"], found[side]) == (None, [row["position"]], None)


@pytest.mark.parametrize("source", ["straitsx", "gokart"])
async def test_books_that_claim_more_events_than_the_log_has_are_found_and_put_right(
    database: Database, live: int, command: Command, source: str
) -> None:
    """Else the next events would never be folded, neither by the live books nor by new ones."""
    before = await positions(database, live)
    await change(
        database, live,
        f"UPDATE checkpoints SET position = 999999 WHERE source = '{source}' RETURNING 1",
    )  # fmt: skip
    done = await command("--json")
    assert done.code == 1
    (found,) = done.json["differences"]
    assert (found["table"], found["key"], found["column"], found["live"], found["rebuilt"]) == (
        "checkpoints", {"source": source}, "position", "999999", str(before[source]),
    )  # fmt: skip
    assert (await command("--swap", "--accept-differences")).code == 0
    assert await positions(database, live + 1) == before
    back = await command("--rollback")
    assert back.code == 3
    assert "claim more events" in back.err
    assert (live + 1, "live") in await generations(database)


CELLS = {
    "a wrong sum": "UPDATE cells SET debits = debits + 1 WHERE hours = 24 AND hot = "
    "(SELECT min(id) FROM hot) RETURNING 1",
    "a lost cell": "DELETE FROM cells WHERE width > 1 RETURNING 1",
    "a currency that is not known to be busy": "DELETE FROM cells WHERE hot = (SELECT max(id) "
    "FROM hot WHERE account = 'assets:wallet:available') RETURNING 1",
    "a span too many": "UPDATE spans SET done = done + 1 WHERE source = 'straitsx' RETURNING 1",
    "an account that never was busy": "INSERT INTO hot (source, account, currency) "
    "SELECT source, account, currency FROM entries WHERE account = 'assets:wallet:held' "
    "ORDER BY position LIMIT 1 ON CONFLICT DO NOTHING RETURNING 1",
}


FORGOTTEN = """
DELETE FROM hot WHERE account = 'assets:wallet:available' AND id = (
       SELECT max(id) FROM hot WHERE account = 'assets:wallet:available') RETURNING 1
"""


@pytest.mark.parametrize("what", CELLS)
async def test_sums_kept_for_answers_about_earlier_times_are_compared_with_the_entries(
    database: Database, command: Command, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(balance_index, "BLOCK_POSITIONS", 40)
    monkeypatch.setattr(balance_index, "WIDE_BLOCKS", 2)
    monkeypatch.setattr(
        balance_index, "INDEXED_ENTRIES_MIN", 4 if what != "an account that never was busy" else 40
    )
    bodies = [orjson.dumps(payment(n)) for n in range(190)]
    make = payout if what == "an account that never was busy" else payment
    seldom = orjson.dumps(make(999, currency="usd"))
    stated = [seldom, *bodies] if what.startswith(("an account", "a currency")) else bodies
    await append(database, [SimulatedCallback("straitsx", None, body) for body in stated])
    live = await first_generation(database)
    await fold(database, live)
    await fold(database, live)  # spans are summed behind the fold
    assert await change(database, live, "SELECT 1 FROM cells WHERE width = 2")
    assert (await command("--verify-only")).code == 0
    assert await change(database, live, CELLS[what])
    if what == "a currency that is not known to be busy":
        assert await change(database, live, FORGOTTEN)
    done = await command("--verify-only", "--json")
    assert done.code == 1, done
    assert {found["table"] for found in done.json["differences"]} == {"cells"}


async def test_books_are_compared_without_sums_of_their_own_and_get_them_before_they_are_live(
    database: Database, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(balance_index, "BLOCK_POSITIONS", 40)
    monkeypatch.setattr(balance_index, "INDEXED_ENTRIES_MIN", 4)
    bodies = [orjson.dumps(payment(n)) for n in range(90)]
    await append(database, [SimulatedCallback("straitsx", None, body) for body in bodies])
    live = await first_generation(database)
    await fold(database, live)
    await fold(database, live)  # spans are summed behind the fold
    count = "SELECT count(*) AS cells, (SELECT sum(done) FROM spans) AS spans FROM cells"
    before = dict(await change(database, live, count))
    assert before["spans"] == 2
    assert before["cells"] > 2
    assert (await command("--json")).json["then"] == "kept"
    assert dict(await change(database, live + 1, count)) == {"cells": 0, "spans": None}
    assert (await command("--swap")).code == 0
    assert dict(await change(database, live + 1, count)) == before


async def test_a_source_that_nothing_is_known_of_any_more_is_not_left_out_of_new_books(
    database: Database, live: int, command: Command
) -> None:
    async with database.owner() as connection:
        await connection.execute("DELETE FROM ledger.sources WHERE source = 'gokart'")
    done = await command("--swap")
    assert done.code == 3
    assert "gokart has books, but ledger.sources does not say" in done.err
    assert await generations(database) == [(live, "live")]


async def test_different_books_are_swapped_only_when_stated_to(
    database: Database, live: int, command: Command
) -> None:
    await change(database, live, CORRUPTIONS["a balance"][1])
    refused = await command("--swap")
    assert refused.code == 1
    assert "not swapped, because the books differ" in refused.out
    assert "--accept-differences" in refused.out
    assert await generations(database) == [(live, "live"), (live + 1, "building")]
    accepted = await command("--swap", "--accept-differences", "--json")
    assert (accepted.code, accepted.json["then"]) == (0, "swapped")
    assert accepted.json["verdict"] == "different"
    assert await generations(database) == [(live, "previous"), (live + 1, "live")]
    clean = await command("--verify-only", "--json")
    assert (clean.code, clean.json["verdict"]) == (0, "equal")


async def test_a_rollback_brings_the_books_before_back_at_the_present_position(
    database: Database, live: int, command: Command
) -> None:
    assert (await command("--swap")).code == 0
    new = live + 1
    await append(database, callbacks(seeded(), 1))
    await fold(database, new)
    async with database.service() as connection:
        head = dict(await connection.fetch("SELECT source, position FROM ledger.heads"))
    done = await command("--rollback", "--json")
    assert (done.code, done.json["generation"], done.json["live"]) == (0, live, new)
    assert await generations(database) == [(live, "live"), (new, "previous")]
    async with database.service() as connection:
        await use_generation(connection, live)
        assert dict(await connection.fetch(SELECT_POSITIONS)) == head
        assert differences(await dump(connection, live), await dump(connection, new)) == {}
    assert (await command("--rollback")).code == 0
    assert await generations(database) == [(live, "previous"), (new, "live")]


async def test_previous_books_that_differ_are_rolled_back_to_only_when_stated_to(
    database: Database, live: int, command: Command
) -> None:
    await change(database, live, CORRUPTIONS["a balance"][1])
    swapped = await command("--swap", "--accept-differences")
    assert "`ledger rebuild --rollback --accept-differences` brings it back" in swapped.out
    refused = await command("--rollback")
    assert refused.code == 1
    assert "`ledger rebuild --rollback --accept-differences` makes it live" in refused.out
    assert await generations(database) == [(live, "previous"), (live + 1, "live")]
    done = await command("--rollback", "--accept-differences", "--json")
    assert (done.code, done.json["verdict"], done.json["then"]) == (0, "different", "swapped")
    assert await generations(database) == [(live, "live"), (live + 1, "previous")]


async def test_the_previous_books_stay_until_the_next_swap_and_no_longer(
    database: Database, live: int, command: Command
) -> None:
    await command("--swap")
    await command("--verify-only")
    assert await generations(database) == [(live, "previous"), (live + 1, "live")]
    await command("--swap")
    assert await generations(database) == [(live + 1, "previous"), (live + 2, "live")]


async def test_there_is_nothing_to_roll_back_to_before_a_swap_or_without_books(
    database: Database, command: Command
) -> None:
    none = await command()
    assert none.code == 3
    assert "there are no books yet; start `ledger serve`" in none.err
    await first_generation(database)
    done = await command("--rollback")
    assert done.code == 3
    assert "no previous books" in done.err


async def test_books_of_another_version_are_not_rolled_back_to(
    database: Database, live: int, command: Command
) -> None:
    await command("--swap")
    async with database.service() as connection:
        await connection.execute("UPDATE ledger.generations SET version = 'x' WHERE state = "
                                 "'previous'")  # fmt: skip
    done = await command("--rollback")
    assert done.code == 3
    assert "another version of this program" in done.err
    assert (live + 1, "live") in await generations(database)


@pytest.mark.parametrize(
    "flags",
    [("--swap", "--verify-only"), ("--rollback", "--swap"), ("--accept-differences",),
     ("--processes", "0"), ("--nonsense",)],
)  # fmt: skip
async def test_flags_that_contradict_each_other_are_a_usage_error(
    command: Command, flags: tuple[str, ...]
) -> None:
    done = await command(*flags)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("ledger: ")


async def test_a_second_rebuild_at_the_same_time_is_refused(
    database: Database, live: int, command: Command
) -> None:
    async with exclusive_rebuild(database.service_dsn):
        done = await command("--swap")
    assert done.code == 3
    assert "Another rebuild of this database is running" in done.err
    assert await generations(database) == [(live, "live")]
    assert (await command("--swap")).code == 0


async def test_another_version_differs_as_it_should_and_states_so(
    database: Database, live: int, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    await change(database, live, "ALTER TABLE balances ADD COLUMN colour text")
    fees = "UPDATE balances SET debits = debits + 1 WHERE account = 'expenses:fees'"
    await change(database, live, fees)
    monkeypatch.setattr(fold_version, "current_version", lambda _terms: "changed")
    done = await command("--swap")
    assert done.code == 1
    assert "expenses:fees" in done.out
    assert "colour" not in done.out
    assert "folded by another version of this program" in done.out
    done = await command("--swap", "--accept-differences", "--json")
    assert (done.code, done.json["version"]) == (0, "changed")
    async with database.service() as connection:
        assert (await connection.fetchrow(SELECT_LIVE))["version"] == "changed"


async def become_older(database: Database, live: int, *statements: str) -> None:
    """Make the live books those of another version, with other tables, columns or rows."""
    async with database.service() as connection:
        await use_generation(connection, live)
        for statement in (SET_OLDER.format(live), *statements):
            await connection.execute(statement)


INTERNALS = {
    "the states": "UPDATE transactions SET state = '\\x00'",
    "the links": "DELETE FROM links",
    "a column that it lacks": "ALTER TABLE customers DROP COLUMN verification_status",
    "a column of its own": "ALTER TABLE balances ADD COLUMN colour text DEFAULT 'red'",
    "a column of another type": "ALTER TABLE returns ALTER COLUMN count TYPE bigint",
    "a table that it lacks": "DROP TABLE named_customers",
    "empty fields": """UPDATE transactions SET details = details || '{"a": [], "b": null}'""",
    "a table of its own": "CREATE TABLE colours AS SELECT 'straitsx' AS source, 'red' AS colour",
}


async def test_books_of_another_version_are_equal_where_both_have_the_same(
    database: Database, live: int, command: Command
) -> None:
    """What only the fold reads does not count, and no table or column that one of them lacks."""
    await become_older(database, live, *INTERNALS.values())
    done = await command("--json")
    assert (done.code, done.json["verdict"], done.json["live_version"]) == (0, "equal", "older")
    assert done.json["differences"] == []
    assert (await command("--swap")).code == 0
    assert await generations(database) == [(live, "previous"), (live + 1, "live")]


@pytest.mark.parametrize("statement", INTERNALS.values(), ids=INTERNALS)
async def test_within_one_version_everything_counts(
    database: Database, live: int, command: Command, statement: str
) -> None:
    async with database.service() as connection:
        await use_generation(connection, live)
        await connection.execute(statement)
    done = await command("--verify-only", "--json")
    assert (done.code, done.json["verdict"]) == (1, "different")


async def test_rows_that_another_version_folded_otherwise_are_listed_before_the_swap(
    database: Database, live: int, command: Command
) -> None:
    """Each with the transaction, what differs in it, and the events that explain it."""
    row = await change(
        database, live,
        "UPDATE transactions SET status = 'odd', details = details - 'express' || "
        """'{"colour": "red"}' WHERE (kind, id) = (SELECT kind, id FROM transactions """
        "WHERE kind = 'payout' ORDER BY id LIMIT 1) RETURNING kind, id",
    )  # fmt: skip
    gone = await change(
        database, live,
        "DELETE FROM entries WHERE (source, position, line) = (SELECT source, position, line "
        "FROM entries ORDER BY source, position, line LIMIT 1) RETURNING source, position, line",
    )  # fmt: skip
    await become_older(database, live)
    done = await command("--swap", "--json")
    assert (done.code, done.json["then"]) == (1, "refused")
    listed = {(d["table"], d["column"]): d for d in done.json["differences"]}
    assert {*listed} == {
        ("transactions", "status"), ("transactions", "details.colour"),
        ("transactions", "details.express"), ("entries", None),
    }  # fmt: skip
    colour = listed["transactions", "details.colour"]
    assert colour["key"] == {"source": "straitsx", "kind": row["kind"], "id": row["id"]}
    assert (colour["live"], colour["rebuilt"]) == ("red", None)
    assert colour["positions"] == listed["transactions", "status"]["positions"] != []
    assert listed["entries", None]["key"] == {name: str(v) if isinstance(v, int) else v
                                              for name, v in dict(gone).items()}  # fmt: skip
    assert listed["entries", None]["live"] is None

    shown = await command("--swap")
    assert shown.code == 1
    assert "folded by another version of this program" in shown.out
    assert "details.colour" in shown.out
    done = await command("--swap", "--accept-differences", "--json")
    assert (done.code, done.json["then"]) == (0, "swapped")
    async with database.service() as connection:
        assert (await connection.fetchrow(SELECT_LIVE))["version"] == done.json["version"]


async def test_an_unfinished_rebuild_of_another_version_is_dropped(
    database: Database, live: int, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await command()).code == 0
    monkeypatch.setattr(fold_version, "current_version", lambda _terms: "changed")
    assert (await command("--verify-only")).code == 0
    assert await generations(database) == [(live, "live")]


async def test_books_that_are_ahead_of_those_made_live_since_are_made_again(
    database: Database, live: int, command: Command
) -> None:
    assert (await command()).code == 0
    await append(database, callbacks(seeded(), 1))
    await fold(database, live + 1)
    done = await command("--swap", "--json")
    assert (done.code, done.json["generation"], done.json["verdict"]) == (0, live + 1, "equal")
    assert done.json["events"] > 0
    async with database.service() as connection:
        one, two = await dump(connection, live), await dump(connection, live + 1)
    assert differences(one, two) == {}


async def test_while_the_log_grows_and_is_folded_the_rebuild_ends_at_the_live_position(
    database: Database, live: int, command: Command
) -> None:
    rng = seeded()
    stop = asyncio.Event()

    async def traffic() -> None:
        while not stop.is_set():
            await append(database, callbacks(rng, 1))
            await fold(database, live)

    busy = asyncio.create_task(traffic())
    try:
        for _ in range(3):
            done = await command("--verify-only", "--json")
            assert (done.code, done.json["verdict"]) == (0, "equal"), done
        done = await command("--swap", "--json")
        assert (done.code, done.json["then"]) == (0, "swapped"), done
    finally:
        stop.set()
        await busy
    await fold(database, live + 1)
    async with database.service() as connection:
        await fold(database, live)
        assert differences(await dump(connection, live), await dump(connection, live + 1)) == {}


async def test_no_answer_goes_back_in_time_at_a_swap(
    database: Database, live: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The live books may advance until the moment of the swap, and never unseen."""
    sound = SecondFold.fold_until
    stated = 0

    async def fold_until(self: SecondFold, position: int, done: int = -1) -> None:
        nonlocal stated
        await sound(self, position, done)
        if stated < 40:
            stated += 1
            body = orjson.dumps(payment(5000 + stated))
            await append(database, [SimulatedCallback("straitsx", None, body)])
            try:
                async with asyncio.timeout(0.3):
                    await fold(database, live)
            except TimeoutError:
                held.append(stated)

    held: list[int] = []
    monkeypatch.setattr(SecondFold, "fold_until", fold_until)
    async with exclusive_rebuild(database.service_dsn) as connection:
        work = Rebuild(database.service_dsn, database.settings, connection, load_registry())
        await work.build()
        await work.swap()
        before = await positions(database, live)
        after = await positions(database, live + 1)
    assert held
    assert all(after[source] >= place for source, place in before.items())


async def positions(database: Database, generation: int) -> dict[str, int]:
    async with database.service() as connection:
        await use_generation(connection, generation)
        return dict(await connection.fetch(SELECT_POSITIONS))


async def test_rows_that_the_database_refuses_leave_the_work_to_the_ordinary_fold(
    database: Database, live: int, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ledger.rebuild import coordinator
    from ledger.rebuild.plan import CannotBulkLoad

    async def refuse(_load: BulkRebuild) -> None:
        raise CannotBulkLoad("a row")

    monkeypatch.setattr(coordinator.BulkRebuild, "run", refuse)
    done = await command("--swap", "--json")
    assert (done.code, done.json["verdict"], done.json["then"]) == (0, "equal", "swapped")
    assert (await generations(database))[-1][1] == "live"


async def test_a_rebuild_without_a_live_generation_states_so(database: Database) -> None:
    async with exclusive_rebuild(database.service_dsn) as connection:
        work = Rebuild(database.service_dsn, database.settings, connection, load_registry())
        with pytest.raises(NoBooks):
            await work.build()
    assert rebuild.VERSION == "rebuild-"
