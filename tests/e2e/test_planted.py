"""Promise: whatever a role plants in the database is impossible or named, and stays in there.

A real service, attacked through PostgreSQL as its own role and as a superuser. Around its data
directory lies a tree that no attack may change.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import orjson
import pytest

from ledger.database import connection as db
from ledger.eventlog.appender import APPEND, time_texts
from ledger.eventlog.identity import identity
from ledger.registry import ParsedCallback
from ledger.registry import load as load_registry
from ledger.service.projector import CHECK_SECONDS
from tests.asking import payment
from tests.conftest import eventually, with_database
from tests.e2e.conftest import Serve
from tests.service import Caller, Service, calling

SECRET = secrets.token_hex(20)
TOKEN = secrets.token_hex(20)
PLACES = ("../../precious", "{tree}/precious", "../precious", "..", ".", "", "precious/../../keys")


@pytest.fixture
def service(serve: Serve) -> Iterator[Service]:
    environ = {"LEDGER_SECRET_STRAITSX": SECRET, "LEDGER_SECRET_GOKART": TOKEN}
    with serve("", **environ) as running:
        (running.folder / "precious").mkdir()
        (running.folder / "precious" / "deed.txt").write_text("mine")
        yield running


def snapshot(service: Service) -> dict[str, tuple[int, str]]:
    """Return path → mode and digest of everything around the data directory."""
    found = {}
    for path in sorted(service.folder.rglob("*")):
        if service.data_dir in (path, *path.parents) or path == service.log:
            continue
        digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        found[str(path.relative_to(service.folder))] = (path.stat().st_mode, digest)
    return found


def ledger(service: Service, *arguments: str) -> tuple[int, dict[str, Any]]:
    """Run a command with --json on the service's settings; return exit status and document."""
    done = subprocess.run(
        [sys.executable, "-m", "ledger", *arguments, "--json"],
        env={k: v for k, v in os.environ.items() if not k.startswith("LEDGER_")}
        | {"LEDGER_DATA_DIR": str(service.data_dir), **service.environ},
        capture_output=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.stdout, done.stderr.decode()
    return done.returncode, orjson.loads(done.stdout)


def failures(service: Service) -> list[dict[str, Any]]:
    """Verify; return what failed. Nothing around the data directory changes by it."""
    before = snapshot(service)
    code, found = ledger(service, "verify")
    assert snapshot(service) == before
    failed = [check for check in found["checks"] if check["verdict"] == "fail"]
    assert (code == 1) == bool(failed), found
    return failed


async def connect(service: Service) -> Any:
    return await db.connect(service.environ["LEDGER_DATABASE_URL"], seconds_max=60)


async def stated(caller: Caller, count: int, first: int = 1) -> int:
    """Post payments; return the position of the last, once it is folded and sealed."""
    position = 0
    for n in range(first, first + count):
        position = (await caller.report("straitsx", orjson.dumps(payment(n))))["position"]
    await caller.ask("/v1/status", at_least=f"straitsx:{position}")
    await eventually(lambda: is_sealed(caller, position))
    return position


async def is_sealed(caller: Caller, position: int) -> bool:
    reply = await caller.request("GET", "/v1/seals/straitsx")
    return reply.status == 200 and reply.json["size"] >= position


async def forge(connection: Any, body: bytes, headers: str, **changes: Any) -> None:
    """Append an event as the service's role can, without any receiver."""
    source = changes.get("source", "straitsx")
    reading: ParsedCallback = load_registry().read("straitsx", None, body)
    key, event_id = identity(source, reading, body)
    envelope = reading.envelope
    (provider_at,) = time_texts([envelope.provider_at])
    one = [event_id, key, envelope.kind, envelope.resource_id, envelope.status,
           envelope.idempotency_id, provider_at, None, changes.get("origin", "callback"),
           None, None, "127.0.0.1", headers, body]  # fmt: skip
    now = await connection.fetchval("SELECT now()")
    await connection.fetchrow(APPEND, source, *([each] for each in one), time_texts([now]))


async def test_a_service_whose_database_is_not_touched_is_verified_whole(service: Service) -> None:
    async with calling(service.url, SECRET) as caller:
        await stated(caller, 3)
        reply = await caller.post(
            "gokart", b'{"id": 1}', headers={"X-Callback-Token": TOKEN}
        )  # fmt: skip
        assert reply.status == 200
        await caller.ask("/v1/status", at_least=f"gokart:{reply.json['position']}")
    before = snapshot(service)
    code, found = ledger(service, "verify")
    assert (code, found["verdict"]) == (0, "ok"), found
    senders = [check for check in found["checks"] if check["name"] == "senders"]
    assert len(senders) == 2
    assert all(check["found"].startswith("every event carries a proof") for check in senders)
    assert snapshot(service) == before


@pytest.mark.parametrize("proof", ["none", "of another body", "made up", "mark made up"])
async def test_a_forged_payment_is_named_and_not_sealed(service: Service, proof: str) -> None:
    body = orjson.dumps(payment(999, amount="1000000.00"))
    async with calling(service.url, SECRET) as caller:
        last = await stated(caller, 3)
        connection = await connect(service)
        genuine = await connection.fetchval("SELECT headers FROM ledger.events LIMIT 1")
        headers = {
            "none": "{}",
            "of another body": genuine,
            "made up": orjson.dumps({"Xfers-Signature": "0" * 64}).decode(),
            "mark made up": orjson.dumps({"Ledger-Mark": "0" * 64}).decode(),
        }[proof]
        await forge(connection, body, headers)
        await connection.close()
        await caller.ask("/v1/status", at_least=f"straitsx:{last + 1}")

        async def is_refused() -> bool:
            status = await caller.ask("/v1/status")
            return any("seal_refused" in warning for warning in status["warnings"])

        await eventually(is_refused)
        assert not await is_sealed(caller, last + 1)
        assert (await caller.report("straitsx", orjson.dumps(payment(4))))["position"] == last + 2
    code, found = ledger(service, "verify")
    assert code == (1 if proof == "none" else 3), found
    (named,) = [c for c in found["checks"] if c["name"] == "senders" and c["verdict"] != "ok"]
    assert (named["source"], named["position"]) == ("straitsx", last + 1)


async def test_a_forged_decision_and_statement_are_named(service: Service) -> None:
    async with calling(service.url, SECRET) as caller:
        last = await stated(caller, 2)
        connection = await connect(service)
        for origin in ("operator", "statement"):
            body = orjson.dumps({"type": "decision", "of": origin})
            await forge(connection, body, "{}", origin=origin)
        await connection.close()
        await caller.ask("/v1/status", at_least=f"straitsx:{last + 2}")
    (named,) = [each for each in failures(service) if each["name"] == "senders"]
    assert named["position"] == last + 1
    assert "and 1 event after it" in named["found"]


async def test_no_row_deletes_or_writes_a_file(service: Service) -> None:
    """A generation that is being built, with folders and sources outside, and other terms."""
    async with calling(service.url, SECRET) as caller:
        await stated(caller, 3)
        before = snapshot(service)
        connection = await connect(service)
        places = [place.format(tree=service.folder) for place in PLACES]
        for n, place in enumerate(places):
            await connection.execute(f"CREATE SCHEMA books_{90 + n}")
            await connection.execute(
                f"CREATE TABLE books_{90 + n}.checkpoints (source text, position bigint);"
                f"CREATE TABLE books_{90 + n}.load_plan AS SELECT 'straitsx' AS source, "
                f"1::bigint AS target, 1::bigint AS chunk, 1 AS partitions, NULL::int AS linked, "
                f"$p${place}$p$::text AS folder, $p${place}$p$::text AS token"
            )
            await connection.execute(
                "INSERT INTO ledger.generations (generation, version, state, created_at) "
                "VALUES ($1, $2, 'building', '2020-01-01')",
                90 + n, f"{('rebuild-', 'verify-')[n % 2]}planted{n}",
            )  # fmt: skip
        await connection.execute(
            """UPDATE ledger.sources SET wallets = '{"payout.sgd": "XUSD"}' """
            "WHERE source = 'straitsx'"
        )
        named = failures(service)
        assert [(each["name"], each["source"]) for each in named] == [("sources", "straitsx")]
        kept = await connection.fetchval("SELECT count(*) FROM ledger.generations")
        assert kept == 1 + len(places), "verifying drops only what it made"
        await connection.execute(
            "UPDATE ledger.sources SET wallets = '{}' WHERE source = 'straitsx'"
        )
        code, _ = ledger(service, "rebuild", "--verify-only")
        assert code == 0
        assert await connection.fetchval("SELECT count(*) FROM ledger.generations") == 1
        await connection.close()
        assert snapshot(service) == before
        assert (service.data_dir / "keys" / "seal.key").exists()
        assert await stated(caller, 2, 10) == 5
    assert failures(service) == []


async def test_no_statement_is_taken_from_a_table(service: Service) -> None:
    """A load that was begun, its plan and its list of tables planted."""
    async with calling(service.url, SECRET) as caller:
        await stated(caller, 3)
        connection = await connect(service)
        version = "rebuild-" + await connection.fetchval(
            "SELECT version FROM ledger.generations WHERE state = 'live'"
        )
        injected = "entries; CREATE TABLE books_90.planted ()"
        await connection.execute("CREATE SCHEMA books_90")
        await connection.execute("SET search_path = books_90")
        await connection.execute(
            "CREATE TABLE checkpoints (source text, position bigint);"
            "CREATE TABLE load_done (source text, stage text, number int, events bigint);"
            "CREATE TABLE load_moved (source text, partition int, kind text, id text, target int);"
            "CREATE TABLE load_links (source text, partition int, link text, kind text, id text);"
            "CREATE TABLE load_plan AS SELECT '../../precious/x'::text AS source, "
            "3::bigint AS target, 2000::bigint AS chunk, 1 AS partitions, NULL::int AS linked, "
            "'../../precious'::text AS folder, '../../precious'::text AS token;"
            "CREATE TABLE load_indexes (name text, n int, statement text)"
        )
        await connection.execute(
            "INSERT INTO load_indexes VALUES ($1, 0, 'CREATE TABLE books_90.planted ()')", injected
        )
        await connection.execute(
            "INSERT INTO ledger.generations (generation, version, state) "
            "VALUES (90, $1, 'building')", version,
        )  # fmt: skip
        before = snapshot(service)
        code, found = ledger(service, "rebuild", "--verify-only")
        assert (code, found["verdict"]) == (0, "equal")
        assert await connection.fetchval("SELECT to_regclass('books_90.planted')") is None
        await connection.close()
        assert snapshot(service) == before
    assert failures(service) == []


async def test_terms_changed_and_put_back_do_not_stop_the_books(service: Service) -> None:
    async with calling(service.url, SECRET) as caller:
        last = await stated(caller, 2)
        connection = await connect(service)
        for wallets in ('{"payout.sgd": "XUSD"}', "{}"):
            await connection.execute(
                "UPDATE ledger.sources SET wallets = $1::text::jsonb WHERE source = 'straitsx'",
                wallets,
            )
            # Longer than the projector looks at the terms: events are folded all the while.
            until = time.monotonic() + 3 * CHECK_SECONDS
            while time.monotonic() < until:
                last = await stated(caller, 1, last + 1)
        live = await connection.fetchval(
            "SELECT generation FROM ledger.generations WHERE state = 'live'"
        )
        await connection.close()
        assert live == 1, "the books are folded by the settings"
    assert b"OtherVersion" not in service.reported()
    assert failures(service) == []


async def test_the_service_role_cannot_name_a_file_of_checkpoints(service: Service) -> None:
    connection = await connect(service)
    for name in ("../../x", "/tmp/x", "a/b", "A", ""):
        with pytest.raises(asyncpg.CheckViolationError):
            await connection.execute("INSERT INTO ledger.heads (source) VALUES ($1)", name)
    await connection.close()


async def test_a_policy_that_hides_a_balance_is_named_and_the_books_are_not_read(
    service: Service,
) -> None:
    async with calling(service.url, SECRET) as caller:
        await stated(caller, 3)
        connection = await connect(service)
        await connection.execute(
            "ALTER TABLE books_1.balances ENABLE ROW LEVEL SECURITY;"
            "ALTER TABLE books_1.balances FORCE ROW LEVEL SECURITY;"
            "CREATE POLICY hide ON books_1.balances USING (account NOT LIKE 'assets%')"
        )
        await connection.close()
    found = [each["found"] for each in failures(service) if each["name"] == "schema"]
    assert "policy balances.hide: this program does not make it" in found


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("CREATE OR REPLACE FUNCTION ledger.refuse_change() RETURNS trigger LANGUAGE plpgsql AS "
         "'BEGIN RETURN NULL; END'", "function refuse_change() is"),
        ("CREATE OR REPLACE FUNCTION ledger.position_at(p_source text, p_moment timestamptz) "
         "RETURNS bigint LANGUAGE sql STABLE AS 'SELECT 1::bigint'", "function position_at("),
        ("ALTER TABLE ledger.heads DROP CONSTRAINT heads_source_check;"
         "INSERT INTO ledger.heads (source, position) VALUES ('../../precious/x', 1)",
         "constraint ledger.heads.heads_source_check is missing"),
    ],
)  # fmt: skip
async def test_what_a_superuser_plants_is_named(
    service: Service, cluster: Any, statement: str, named: str
) -> None:
    before = snapshot(service)
    async with calling(service.url, SECRET) as caller:
        await stated(caller, 2)
        name = urlsplit(service.environ["LEDGER_DATABASE_URL"]).path.removeprefix("/")
        async with db.connected(with_database(cluster.owner_dsn, name)) as owner:
            assert await owner.fetchval("SELECT current_database()") == name
            await owner.execute(statement)
        await stated(caller, 2, 10)
    assert any(each["found"].startswith(named) for each in failures(service))
    assert snapshot(service) == before
