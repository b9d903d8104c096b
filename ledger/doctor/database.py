"""The doctor's checks of PostgreSQL: safety, immutability, migrations, positions, clock."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias

import asyncpg

from ledger.database import conditions, pooler
from ledger.database import connection as database
from ledger.database.errors import CONNECTION_LOST
from ledger.database.migrations import pending
from ledger.doctor.check import Check, fail, ok, warn
from ledger.errors import DatabaseRefused, DatabaseUnavailable, MigrationError
from ledger.eventlog.clocks import clock_conditions
from ledger.eventlog.identity import is_statements_log, source_of

Examine: TypeAlias = Callable[[Any], Awaitable[list[Check]]]
"""(connection) → the results"""

MINOR_MIN: Final = {14: 23, 15: 18, 16: 14, 17: 10, 18: 6}
"""Major version → the oldest minor without publicly known holes, as of 2026-11."""

CLOCK_SECONDS_MAX: Final = 1.0
LAG_SECONDS_MAX: Final = 10.0
EVENT_CHANGES: Final = 8 | 16 | 32
"""pg_trigger.tgtype bits of DELETE, UPDATE and TRUNCATE."""

SELECT_SERVER: Final = """
SELECT current_setting('server_version') AS version,
       current_setting('server_version_num')::integer AS number,
       current_setting('data_checksums') AS checksums,
       current_user AS me,
       (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) AS superuser,
       to_regnamespace('ledger') IS NOT NULL AS schema_exists
"""
READ_ONLY: Final = "SET default_transaction_read_only = on"
SELECT_ROOM: Final = """
SELECT least(
       (SELECT sum(CASE name WHEN 'max_connections' THEN setting::bigint ELSE -setting::bigint END)
          FROM pg_settings WHERE name IN ('max_connections', 'superuser_reserved_connections',
                                          'reserved_connections')),
       (SELECT nullif(datconnlimit, -1) FROM pg_database WHERE datname = current_database()),
       (SELECT nullif(rolconnlimit, -1) FROM pg_roles WHERE rolname = current_user))::bigint
"""
"""How many sessions there may be: of the server, of this database, of this role."""
SELECT_CLOCK: Final = "SELECT clock_timestamp()"
SELECT_GRANTS: Final = """
SELECT privilege FROM unnest(ARRAY['UPDATE', 'DELETE', 'TRUNCATE']) AS privilege
 WHERE has_table_privilege(current_user, 'ledger.events', privilege)
"""
SELECT_TRIGGERS: Final = """
SELECT coalesce(bit_or(tgtype::integer), 0) FROM pg_trigger
 WHERE tgrelid = 'ledger.events'::regclass AND NOT tgisinternal AND tgenabled = 'A'
"""
SELECT_HEADS: Final = """
SELECT h.source, h.position AS head, coalesce(e.position, 0) AS last
  FROM ledger.heads AS h
  LEFT JOIN LATERAL (SELECT position FROM ledger.events AS e WHERE e.source = h.source
                      ORDER BY position DESC LIMIT 1) AS e ON true
 ORDER BY h.source
"""
SELECT_SEALS: Final = """
SELECT h.source, h.position - s.size AS events,
       coalesce(extract(epoch FROM clock_timestamp() - e.recorded_at), 0)::float8 AS seconds
  FROM ledger.heads AS h
 CROSS JOIN LATERAL (SELECT coalesce(max(size), 0) AS size FROM ledger.seals AS s
                      WHERE s.source = h.source) AS s
  LEFT JOIN ledger.events AS e ON e.source = h.source AND e.position = s.size + 1
 ORDER BY h.source
"""
SELECT_SEAL_TRIGGERS: Final = """
SELECT count(*) FROM pg_trigger
 WHERE tgrelid IN ('ledger.tiles'::regclass, 'ledger.seals'::regclass)
   AND NOT tgisinternal AND tgenabled = 'A' AND tgtype::integer & 56 = 56
"""
SELECT_LIVE: Final = "SELECT generation FROM ledger.generations WHERE state = 'live'"
USE_BOOKS: Final = "SELECT set_config('search_path', $1, false)"
SELECT_LAGS: Final = """
SELECT h.source, h.position - coalesce(c.position, 0) AS events,
       coalesce(extract(epoch FROM clock_timestamp() - e.recorded_at), 0)::float8 AS seconds,
       (SELECT count(*) FROM parked AS p WHERE p.source = h.source) AS parked
  FROM ledger.heads AS h
  LEFT JOIN checkpoints AS c ON c.source = h.source
  LEFT JOIN ledger.events AS e
    ON e.source = h.source AND e.position = coalesce(c.position, 0) + 1
 ORDER BY h.source
"""


async def examine(dsn: str, where: str, sources: Sequence[str], connections: int) -> list[Check]:
    """Check the database at `dsn`, of which the service needs so many connections.

    Raises DatabaseUnavailable when it does not answer.
    """
    async with database.connected(dsn) as connection:
        server = await connection.fetchrow(SELECT_SERVER)
        found = [*check_server(server, where), *await check_safety(connection)]
        found += [*check_encoding(connection), *await check_pooler(dsn)]
        found += await check_writes(connection)
        await connection.execute(READ_ONLY)
        found += await check_clock(connection)
        found += await check_room(connection, connections)
        if not server["schema_exists"]:
            advice = "run `ledger migrate`, or start `ledger serve`"
            return [*found, fail("migrations", "the database has no ledger yet", advice)]
        superuser = server["superuser"]
        checks: tuple[tuple[str, Examine], ...] = (
            ("migrations", check_migrations),
            ("triggers", check_triggers),
            ("grants", lambda c: check_grants(c, superuser=superuser)),
            ("heads", check_heads),
            ("seals", check_seals),
            ("sources", lambda c: check_sources(c, sources)),
            ("books", check_books),
            ("conditions", check_conditions),
        )
        for name, check in checks:
            found += await _run(name, check, connection)
        return found


async def _run(name: str, check: Examine, connection: Any) -> list[Check]:
    """Run one check; what the role may not see is a warning, not the end of the doctor."""
    try:
        return await check(connection)
    except asyncpg.InsufficientPrivilegeError as error:
        return [warn(name, str(error), "give this role ledger_service, or check as the owner")]
    except CONNECTION_LOST as error:
        raise DatabaseUnavailable(f"the database went away: {error}") from error
    except asyncpg.PostgresError as error:
        return [fail(name, str(error), "run `ledger migrate`; if it stays, restore from a backup")]


def check_server(server: Any, where: str) -> list[Check]:
    """Check the version, the age of the minor version, and checksums."""
    major, minor = divmod(server["number"], 10_000)
    what = f"{where}, PostgreSQL {server['version']}, as {server['me']}"
    found = [ok("database", what)]
    if minor < MINOR_MIN.get(major, 0):
        newest = f"{major}.{MINOR_MIN[major]}"
        found = [warn("database", what, f"update PostgreSQL to {newest} or newer: security fixes")]
    if server["checksums"] == "on":
        found.append(ok("data_checksums", "on"))
    else:
        found.append(warn("data_checksums", "off: a damaged page goes unnoticed",
                          "stop the server and run pg_checksums --enable"))  # fmt: skip
    return found


async def check_safety(connection: Any) -> list[Check]:
    """Check fsync, full_page_writes and synchronous_commit."""
    problems = await database.safety_problems(connection)
    if not problems:
        return [ok("durability", "fsync, full_page_writes and synchronous_commit are on")]
    halves = [problem.partition("; ") for problem in problems]
    return [fail("durability", found, advice) for found, _, advice in halves]


def check_encoding(connection: Any) -> list[Check]:
    """Check that the database holds every text."""
    problem = database.encoding_problem(connection)
    if problem is None:
        return [ok("encoding", "UTF8")]
    found, _, advice = problem.partition("; ")
    return [fail("encoding", found, advice)]


async def check_pooler(dsn: str) -> list[Check]:
    """Check that sessions are kept between here and PostgreSQL."""
    try:
        await pooler.check(dsn)
    except DatabaseRefused as error:
        found, _, advice = str(error).partition("; ")
        return [fail("sessions", found, advice)]
    return [ok("sessions", "every connection has a session of its own")]


async def check_writes(connection: Any) -> list[Check]:
    """Check that callbacks can be committed."""
    problem = await database.read_only_reason(connection)
    if problem is None:
        return [ok("writes", "the database takes them")]
    found, _, advice = problem.partition("; ")
    more = "; meanwhile callbacks are answered 503, and only `ledger serve --role query` works"
    return [fail("writes", found, advice + more)]


async def check_room(connection: Any, needed: int) -> list[Check]:
    """Check that the service gets all connections that it needs."""
    room = await connection.fetchval(SELECT_ROOM)
    found = f"{room} for all clients, the service and a command beside it need up to {needed}"
    if needed <= room:
        return [ok("connections", found)]
    advice = (
        f"raise max_connections by {needed - room} and restart PostgreSQL; or the CONNECTION LIMIT "
        "of the database or role, if that is what is short"
    )
    return [warn("connections", found, advice)]


async def check_clock(connection: Any) -> list[Check]:
    """Compare the database's clock with ours, allowing for the way there and back."""
    before = datetime.now(UTC)
    theirs = await connection.fetchval(SELECT_CLOCK)
    after = datetime.now(UTC)
    apart = max((before - theirs).total_seconds(), (theirs - after).total_seconds(), 0.0)
    difference = f"service and database differ by {apart:.3f} s or less"
    if apart <= CLOCK_SECONDS_MAX:
        return [ok("clock", difference)]
    return [
        warn("clock", difference, "synchronise both machines' clocks (chrony, systemd-timesyncd)")
    ]


async def check_migrations(connection: Any) -> list[Check]:
    """Check that the schema is the one that this version needs."""
    try:
        rest = await pending(connection)
    except MigrationError as error:
        return [fail("migrations", "schema and program disagree", str(error))]
    if rest:
        names = ", ".join(migration.name for migration in rest)
        return [fail("migrations", f"not applied: {names}", "run `ledger migrate`")]
    return [ok("migrations", "all applied, none edited")]


async def check_grants(connection: Any, *, superuser: bool) -> list[Check]:
    """Check that this role may not change the log."""
    held = [row["privilege"] for row in await connection.fetch(SELECT_GRANTS)]
    if not held:
        return [ok("grants", "this role may not UPDATE, DELETE or TRUNCATE ledger.events")]
    rights = f"this role may {', '.join(held)} on ledger.events"
    if superuser:
        return [warn("grants", f"{rights}: it is a superuser, only the triggers hold it back",
                     "give the service a role of its own, a member of ledger_service")]  # fmt: skip
    return [fail("grants", rights, f"REVOKE {', '.join(held)} ON ledger.events FROM this role")]


async def check_triggers(connection: Any) -> list[Check]:
    """Check that UPDATE, DELETE and TRUNCATE of the log are refused by ENABLE ALWAYS triggers."""
    covered = await connection.fetchval(SELECT_TRIGGERS)
    if covered & EVENT_CHANGES == EVENT_CHANGES:
        return [ok("triggers", "ENABLE ALWAYS on UPDATE, DELETE and TRUNCATE of ledger.events")]
    return [fail("triggers", "the log's events_immutable trigger is missing or switched off",
                 "ALTER TABLE ledger.events ENABLE ALWAYS TRIGGER events_immutable; then find out "
                 "who did it")]  # fmt: skip


async def check_heads(connection: Any) -> list[Check]:
    """Check that every log ends at the position of its head row."""
    rows = await connection.fetch(SELECT_HEADS)
    wrong = [row for row in rows if row["head"] != row["last"]]
    if not wrong:
        heads = ", ".join(f"{row['source']}:{row['head']}" for row in rows) or "no log yet"
        return [ok("heads", heads)]
    return [
        fail("heads", f"{row['source']}: the head says {row['head']}, the last event is "
             f"{row['last']}", "stop the service and restore the database from a backup")
        for row in wrong
    ]  # fmt: skip


async def check_seals(connection: Any) -> list[Check]:
    """Check that the seals follow the log, and that no change of them goes unnoticed."""
    if await connection.fetchval(SELECT_SEAL_TRIGGERS) < 2:
        return [fail("seals", "a trigger of ledger.tiles or ledger.seals is missing or off",
                     "enable both with ENABLE ALWAYS, find out who did it, run `ledger verify`")
        ]  # fmt: skip
    rows = await connection.fetch(SELECT_SEALS)
    late = [row for row in rows if row["events"] > 0 and row["seconds"] > LAG_SECONDS_MAX]
    return [
        warn("seals", f"{row['source']}: {row['events']} events, {row['seconds']:.0f} s old, are "
             "not sealed", "see that `ledger serve` or its projector role runs, and its log for "
             "seal_refused")
        for row in late
    ] or [ok("seals", "every event of more than a few seconds ago is under a signed checkpoint")
    ]  # fmt: skip


async def check_books(connection: Any) -> list[Check]:
    """Check that the live books follow the log, and that nothing is parked."""
    generation = await connection.fetchval(SELECT_LIVE)
    if generation is None:
        return [warn("books", "there are none yet", "start `ledger serve`, which builds them")]
    await connection.fetchval(USE_BOOKS, f"books_{int(generation)}, ledger, pg_catalog")
    rows = await connection.fetch(SELECT_LAGS)
    late = [row for row in rows if row["events"] and row["seconds"] > LAG_SECONDS_MAX]
    found = [
        warn("books", f"{row['source']} is {row['events']} events, {row['seconds']:.0f} s behind",
             "see that `ledger serve` or its projector role runs, and its log")
        for row in late
    ] or [ok("books", f"generation {generation} has every event of the last "
             f"{LAG_SECONDS_MAX:.0f} s or is just folding them")]  # fmt: skip
    found += [
        warn("parked", f"{row['source']}: {row['parked']} events are set aside",
             "see `ledger exceptions --reason parked --state open`")
        for row in rows if row["parked"]
    ]  # fmt: skip
    return found


async def check_sources(connection: Any, sources: Sequence[str]) -> list[Check]:
    """Check that every configured source has its log, and that no log lost its source.

    The log of a source's statements belongs to that source.
    """
    kept = {row["source"]: row["head"] for row in await connection.fetch(SELECT_HEADS)}
    missing = [source for source in sources if source not in kept]
    orphans = [log for log, head in kept.items() if head and source_of(log) not in sources]
    found = [
        warn("sources", f"{source} has no log yet", "restart the service") for source in missing
    ]
    found += [
        warn("sources", _without_source(log), "add it to LEDGER_SOURCES or the file LEDGER_CONFIG "
             "names")
        for log in orphans
    ]  # fmt: skip
    return found or [ok("sources", f"{', '.join(sources)}: each has its log")]


def _without_source(log: str) -> str:
    """Describe what a log lacks whose source is not configured."""
    if is_statements_log(log):
        return (
            f"{source_of(log)} has statements but is not configured: none can be imported or "
            "withdrawn, and its reconciliation goes by the default rules"
        )
    return f"{log} has a log but is not configured: its callbacks get 404"


async def check_conditions(connection: Any) -> list[Check]:
    """Check that no process of the service reports a condition that keeps it from its work."""
    return [
        fail("conditions", found.sentence, "see the service's log for its cause, and remove that")
        for found in [*await conditions.current(connection), *await clock_conditions(connection)]
    ] or [ok("conditions", "no process reports that something keeps it from its work")]
