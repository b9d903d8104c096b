"""The doctor names what is broken and what to do; a sound installation passes."""

from __future__ import annotations

import asyncio
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer, unused_port

from ledger import registry
from ledger.books.generations import create_generation
from ledger.config.settings import Settings, load
from ledger.config.source import Source
from ledger.doctor import database as doctor_database
from ledger.doctor import doctor
from ledger.doctor.check import Check, ok
from ledger.eventlog.sources import ADD_SOURCE, REGISTER_HEAD
from ledger.postgres.server import EmbeddedPostgres
from ledger.registry import STATEMENT
from ledger.runtime.secrets import secret_bits
from tests.conftest import Database

APPEND = """
SELECT ledger.append('straitsx', ARRAY[$1::bytea], ARRAY['k'], ARRAY['payment'], ARRAY['r'],
    ARRAY['completed'], ARRAY[NULL::text], ARRAY[NULL::timestamptz], ARRAY[NULL::text],
    ARRAY['callback'], ARRAY[NULL::text], ARRAY[NULL::text], ARRAY['peer'], ARRAY['{}'],
    ARRAY[$1::bytea], ARRAY[now()])
"""
SOUND = {"database", "data_checksums", "durability", "clock", "migrations", "triggers", "grants",
         "heads", "seals", "sources", "books", "conditions", "connections",
         "encoding", "sessions", "writes"}  # fmt: skip


@pytest.fixture
async def sound(database: Database) -> Database:
    """A database with one event of which the live books know."""
    async with database.service() as connection:
        generation = await create_generation(connection, registry.load(), "doctor", "live")
        await connection.execute(APPEND, b"0123456789abcdef")
        await connection.execute(
            f"INSERT INTO books_{generation}.checkpoints VALUES ('straitsx', 1) "
            "ON CONFLICT (source) DO UPDATE SET position = 1"
        )
    return database


async def examined(database: Database, **settings: Any) -> dict[str, Check]:
    found = await doctor.check_database(replace(database.settings, **settings))
    worst = sorted(found, key=lambda each: ("ok", "warn", "fail").index(each.verdict))
    return {each.name: each for each in worst}


async def change(database: Database, *statements: str) -> None:
    async with database.owner() as owner:
        for statement in statements:
            await owner.execute(statement)


async def test_a_sound_database_passes_every_check(sound: Database) -> None:
    found = await examined(sound)
    assert {name for name, each in found.items() if each.verdict == "ok"} == SOUND
    assert found["heads"].found == "gokart:0, straitsx:1"
    assert found["database"].found.startswith("external, PostgreSQL ")


@pytest.mark.parametrize(
    ("statement", "name", "verdict", "words"),
    [
        ("GRANT UPDATE, DELETE ON ledger.events TO ledger", "grants", "fail", "UPDATE, DELETE"),
        ("ALTER TABLE ledger.events DISABLE TRIGGER events_immutable", "triggers", "fail",
         "missing or switched off"),
        ("ALTER TABLE ledger.events ENABLE TRIGGER events_immutable", "triggers", "fail",
         "missing or switched off"),
        ("UPDATE ledger.heads SET position = 7 WHERE source = 'straitsx'", "heads", "fail",
         "the head says 7, the last event is 1"),
        ("UPDATE ledger.migrations SET sha256 = 'other'", "migrations", "fail", "disagree"),
        ("DELETE FROM ledger.migrations", "migrations", "fail", "not applied"),
        ("DELETE FROM ledger.heads WHERE source = 'gokart'", "sources", "warn", "gokart has no"),
        ("UPDATE ledger.generations SET state = 'previous'", "books", "warn", "there are none"),
        ("REVOKE SELECT ON ledger.heads FROM ledger_service", "heads", "warn",
         "permission denied"),
    ],
)  # fmt: skip
async def test_whatever_is_broken_is_named_with_advice(
    sound: Database, statement: str, name: str, verdict: str, words: str
) -> None:
    await change(sound, statement)
    finding = (await examined(sound))[name]
    assert finding.verdict == verdict
    assert words in finding.found
    assert finding.advice


async def test_an_unsafe_session_fails(sound: Database) -> None:
    async with sound.owner() as owner:
        await owner.execute("SET synchronous_commit = off")
        (finding,) = await doctor_database.check_safety(owner)
    assert finding.verdict == "fail"
    assert "synchronous_commit is off" in finding.found
    assert "set it to on" in finding.advice


async def test_books_that_fall_behind_and_parked_events_are_a_warning(
    sound: Database,
) -> None:
    async with sound.service() as connection:
        generation = await connection.fetchval(doctor_database.SELECT_LIVE)
    await change(
        sound,
        f"UPDATE books_{generation}.checkpoints SET position = 0",
        f"INSERT INTO books_{generation}.parked VALUES ('straitsx', 1, 'payment', 'r', 'boom')",
    )
    async with sound.owner() as owner:
        await owner.execute("SET session_replication_role = replica")
        await owner.execute("ALTER TABLE ledger.events DISABLE TRIGGER events_immutable")
        await owner.execute("UPDATE ledger.events SET recorded_at = now() - interval '1 hour'")
    found = await examined(sound)
    assert found["books"].found.startswith("straitsx is 1 events, 36")
    assert found["parked"].found == "straitsx: 1 events are set aside"


async def test_more_connections_than_there_are_is_a_warning(sound: Database) -> None:
    found = (await examined(sound, receivers=30))["connections"]
    assert (found.verdict, found.found) == (
        "warn",
        "397 for all clients, the service and a command beside it need up to 578",
    )
    assert found.advice.startswith("raise max_connections by 181 ")
    some = sound.settings.sources["gokart"]
    many = {f"gokart-{number}": replace(some, name=f"gokart-{number}") for number in range(300)}
    assert (await examined(sound, sources=many))["connections"].verdict == "ok"


async def test_a_databases_own_limit_of_connections_is_a_warning(sound: Database) -> None:
    async with sound.owner() as owner:
        name = await owner.fetchval("SELECT current_database()")
        await owner.execute(f"ALTER DATABASE {name} CONNECTION LIMIT 9")
    found = (await examined(sound))["connections"]
    assert (found.verdict, found.found.split(",")[0]) == ("warn", "9 for all clients")


async def test_a_log_without_its_source_is_named(sound: Database) -> None:
    found = await examined(sound, sources={"gokart": sound.settings.sources["gokart"]})
    assert found["sources"].found.startswith("straitsx has a log but is not configured")


async def test_the_statements_of_a_source_are_not_a_source_of_their_own(sound: Database) -> None:
    async with sound.service() as connection:
        log = "straitsx.statements"
        await connection.execute(ADD_SOURCE, log, STATEMENT, None, "{}", None, None, "creation")
        await connection.execute(REGISTER_HEAD, log)
        await connection.execute(APPEND.replace("'straitsx'", f"'{log}'"), b"0123456789abcdef")
    found = await examined(sound)
    assert found["sources"] == ok(
        "sources", f"{', '.join(sound.settings.sources)}: each has its log"
    )
    async with sound.service() as connection:
        checks = await doctor_database.check_sources(connection, ["gokart"])
    assert [check.found.split(":")[0] for check in checks] == [
        "straitsx has a log but is not configured",
        "straitsx has statements but is not configured",
    ]


async def test_a_database_without_the_ledger_asks_for_migrate(database: Database) -> None:
    await change(database, "DROP SCHEMA ledger CASCADE")
    finding = (await examined(database))["migrations"]
    assert (finding.verdict, finding.advice[:20]) == ("fail", "run `ledger migrate`")


async def test_a_database_that_does_not_answer_fails(database: Database) -> None:
    dsn = f"postgresql://x@127.0.0.1:{unused_port()}/x"
    finding = (await examined(database, database_url=dsn))["database"]
    assert finding.verdict == "fail"
    assert "cannot connect to the database" in finding.found


@pytest.mark.parametrize(
    ("number", "verdict"), [(180_006, "ok"), (180_005, "warn"), (140_001, "warn"), (190_000, "ok")]
)
def test_an_old_minor_version_is_a_warning(number: int, verdict: str) -> None:
    server = {"version": "x", "number": number, "me": "ledger", "checksums": "on"}
    assert doctor_database.check_server(server, "external")[0].verdict == verdict


def test_missing_checksums_are_named() -> None:
    server = {"version": "18.6", "number": 180_006, "me": "x", "checksums": "off"}
    found = {each.name: each.verdict for each in doctor_database.check_server(server, "external")}
    assert found == {"database": "ok", "data_checksums": "warn"}


async def test_an_embedded_cluster_is_checked_when_it_runs_and_never_started(
    tmp_path: Path,
) -> None:
    settings = replace(load({}), data_dir=tmp_path / "data")
    (absent,) = await doctor.check_database(settings)
    assert (absent.verdict, absent.found[:28]) == ("warn", "embedded, not created yet in")
    assert not settings.data_dir.exists()
    server = EmbeddedPostgres(settings.data_dir)
    await server.start()
    try:
        running = {each.name: each for each in await doctor.check_database(settings)}
    finally:
        await server.stop()
    assert running["database"].found.endswith("as ledger")
    assert running["migrations"].verdict == "fail"
    (stopped,) = await doctor.check_database(settings)
    assert (stopped.verdict, stopped.found[:24]) == ("warn", "embedded, not running in")
    assert server.pid is None


async def test_the_port_is_free_ours_or_another_programs() -> None:
    settings = replace(load({}), port=unused_port())
    assert (await doctor.check_port(settings)).found.endswith("the service is not running")
    app = web.Application()
    app.router.add_get("/v1/status", _status)
    server = TestServer(app, port=settings.port)
    await server.start_server()
    ours = await doctor.check_port(settings)
    await server.close()
    assert ours == Check("ok", "port", f"127.0.0.1:{settings.port} is served by "
                           "callback-ledger 9.9")  # fmt: skip
    other = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
    port = other.sockets[0].getsockname()[1]
    theirs = await doctor.check_port(replace(settings, port=port))
    other.close()
    await other.wait_closed()
    assert (theirs.verdict, theirs.found) == (
        "fail",
        f"127.0.0.1:{port} is used by another program",
    )


async def _status(_request: web.Request) -> web.Response:
    return web.json_response({"version": "9.9"})


@pytest.mark.parametrize(
    ("secret", "bits"),
    [
        ("ss_5572cf13d099", 48),
        ("0123456789abcdef0123456789abcdef", 128),
        ("a" * 64, 16),
        ("Tr0ub4dor&3", 66),
        ("", 0),
    ],
)
def test_secrets_are_judged_by_length_and_characters_without_the_prefix(
    secret: str, bits: int
) -> None:
    assert secret_bits(secret) == bits


def test_weak_secrets_are_a_warning_and_never_shown() -> None:
    weak = Source("straitsx", "straitsx", ("ss_5572cf13d099",), "Xfers-Signature")
    settings = Settings(
        sources={"straitsx": weak}, api_tokens=("t0ken",),
        database_url="postgresql://me:hunter2@db/x?password=hunter3",
    )  # fmt: skip
    found = doctor.check_secrets(settings)
    assert [(each.verdict, each.name) for each in found] == [
        ("warn", "secret of straitsx"), ("warn", "API token"),
    ]  # fmt: skip
    rows = {row["name"]: row["value"] for row in doctor.setting_origins(settings, {})}
    assert rows["LEDGER_DATABASE_URL"] == "postgresql://me:***@db/x?password=***"
    assert rows["LEDGER_API_TOKENS"] == "1 secret, not shown"
    shown = json.dumps(rows) + str(found)
    assert not [word for word in ("5572cf13d099", "t0ken", "hunter") if word in shown]


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:hush:hush:hush@db/x",
        "postgresql://u:hush@hush@db/x",
        "postgresql://u:hush%40hush@db/x",
        "postgresql://db/x?user=u&password=hush&sslmode=require",
        "host=db password='hush hush' user=u",
        "postgresql://u:hush/hush@db/x",
    ],
)
async def test_no_part_of_the_database_s_password_is_printed(url: str) -> None:
    settings = Settings(database_url=url)
    rows = {row["name"]: row["value"] for row in doctor.setting_origins(settings, {})}
    assert "***" in rows["LEDGER_DATABASE_URL"]
    found = [*await doctor.check_database(settings), rows, settings]
    assert "hush" not in str(found)


def test_every_setting_names_its_origin(tmp_path: Path) -> None:
    path = tmp_path / "ledger.toml"
    path.write_text(
        'receivers = 2\nport = 1\n[sources.sg]\nprovider = "straitsx"\nsecrets = ["s3cret"]\n'
    )
    environ = {"LEDGER_CONFIG": str(path), "LEDGER_PORT": "8081"}
    rows = doctor.setting_origins(load(environ), environ)
    origins = {row["name"]: (row["value"], row["origin"]) for row in rows}
    assert origins["LEDGER_PORT"] == ("8081", "environment")
    assert origins["LEDGER_RECEIVERS"] == ("2", f"file {path}")
    assert origins["LEDGER_HOST"] == ("127.0.0.1", "default")
    assert origins["source sg"][1] == f"file {path}"


def test_little_disk_space_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = replace(load({}), data_dir=tmp_path / "not" / "there")
    usage = shutil.disk_usage(tmp_path)
    for free, verdict in ((10**6, "fail"), (2 * 1024**3, "warn"), (50 * 1024**3, "ok")):
        shown = usage._replace(free=free)
        monkeypatch.setattr(shutil, "disk_usage", lambda _place, shown=shown: shown)
        assert doctor.check_disk(settings).verdict == verdict


def test_the_exit_status_is_1_only_when_something_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = replace(load({}), data_dir=tmp_path / "data", port=unused_port())
    assert doctor.run(settings, {}, json=True) == 0
    document = json.loads(capsys.readouterr().out)
    assert {check["verdict"] for check in document["checks"]} == {"ok", "warn"}
    away = replace(settings, database_url=f"postgresql://x@127.0.0.1:{unused_port()}/x")
    assert doctor.run(away, {}, json=False) == 1
    assert "what to do next" in capsys.readouterr().out
