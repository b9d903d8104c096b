"""`ledger doctor`: what an operator would check by hand, every result with what to do next.

Changes nothing and starts nothing: an embedded cluster that is not running stays so.
"""

from __future__ import annotations

import asyncio
import shutil
import socket
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Final

import orjson

from ledger.books import fold_connections
from ledger.client.service_client import Client, service_url
from ledger.config.settings import Settings
from ledger.config.source import PREFIX, secret_name
from ledger.doctor import database as doctor_database
from ledger.doctor import schemas as doctor_schema
from ledger.doctor.check import Check, fail, ok, warn
from ledger.errors import LedgerError, ServerNotFound, ServiceRefused, ServiceUnreachable
from ledger.eventlog import appender as log
from ledger.postgres.attach import database_dsn
from ledger.runtime.secrets import SECRET_BITS_MIN, STRONGER, redact, secret_bits
from ledger.terminal import tables

DISK_BYTES_LOW: Final = 1024**3
DISK_BYTES_WARN: Final = 5 * 1024**3
ANSWER_SECONDS_MAX: Final = 5.0
RECEIVER_CONNECTIONS: Final = 14 + log.CONNECTIONS_MAX
"""Connections of one web process: its queries' pool, deliveries, readiness, metrics, the log."""
FOLD_CONNECTIONS: Final = 2 * fold_connections.CONNECTIONS_MAX
"""Connections that fold all sources; twice, while parked events are tried again."""
SHARED_CONNECTIONS: Final = 10
"""Connections for seals, reconciling, decisions, and the supervision of the folds."""
COMMAND_CONNECTIONS: Final = 8
"""Connections of one `ledger verify`, `rebuild` (with two processes) or `export`."""


def run(settings: Settings, environ: Mapping[str, str], *, json: bool) -> int:
    """Check everything and print it; return 1 when anything fails, else 0."""
    origins = setting_origins(settings, environ)
    checks = asyncio.run(examine(settings))
    if json:
        document = {"settings": origins, "checks": [asdict(check) for check in checks]}
        sys.stdout.write(orjson.dumps(document).decode() + "\n")
    else:
        out = tables.console()
        out.print(tables.table("settings", origins, out))
        out.print()
        out.print(tables.table("checks", [asdict(check) for check in checks], out))
    return int(any(check.verdict == "fail" for check in checks))


async def examine(settings: Settings) -> list[Check]:
    """Return the results of all checks, those of this machine first."""
    return [
        *check_secrets(settings),
        *(warn("settings", warning, "set it before real callbacks come")
          for warning in settings.warnings()),
        check_disk(settings),
        await check_port(settings),
        *await check_database(settings),
    ]  # fmt: skip


def setting_origins(settings: Settings, environ: Mapping[str, str]) -> list[dict[str, str]]:
    """Return name, value and origin (environment, file, default) of every setting; no secrets."""
    name = environ.get(PREFIX + "CONFIG")
    table = tomllib.loads(Path(name).read_text(encoding="utf-8")) if name else {}
    in_file = {key.removeprefix(PREFIX).lower() for key in table}
    rows = []
    for setting in fields(Settings):
        if setting.name == "sources":
            continue
        variable = PREFIX + setting.name.upper()
        rows.append({
            "name": variable,
            "value": _shown(setting.name, getattr(settings, setting.name)),
            "origin": _origin(bool(environ.get(variable)), setting.name in in_file, name),
        })  # fmt: skip
    listed = PREFIX + "SOURCES" in environ
    for source in settings.sources.values():
        described = (
            f"{source.provider}, {', '.join(source.signatures(()).headers)}, "
            f"{_count(source.secrets)}, "
            f"currency {source.terms.currency or 'as the payload states'}"
        )
        given = listed or secret_name(source) in environ
        origin = _origin(given, source.name in table.get("sources", {}), name)
        rows.append({"name": f"source {source.name}", "value": described, "origin": origin})
    return rows


def _origin(in_environment: bool, in_file: bool, name: str | None) -> str:
    if in_environment:
        return "environment"
    return f"file {name}" if in_file else "default"


def _shown(name: str, value: object) -> str:
    if name == "api_tokens" and isinstance(value, tuple):
        return _count(value)
    if name == "metrics_token" and value:
        return _count([str(value)])
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    return "unset" if value is None else redact(str(value))


def _count(secrets: Sequence[str]) -> str:
    return f"{len(secrets)} secret{'s' * (len(secrets) != 1)}, not shown" if secrets else "unset"


def check_secrets(settings: Settings) -> list[Check]:
    """Check how hard secrets and tokens are to guess; fewer than 128 bits is a warning."""
    kept = {f"secret of {source.name}": source.secrets for source in settings.sources.values()}
    kept["API token"] = settings.api_tokens
    kept["metrics token"] = tuple(filter(None, [settings.metrics_token]))
    found = []
    for name, secrets in kept.items():
        weakest = min(map(secret_bits, secrets), default=None)
        if weakest is None:
            continue
        if weakest < SECRET_BITS_MIN:
            found.append(warn(name, f"at most {weakest} bits", STRONGER))
        else:
            found.append(ok(name, f"up to {weakest} bits"))
    return found


def check_disk(settings: Settings) -> Check:
    """Check how much room the data directory has."""
    place = settings.data_dir.absolute()
    while not place.exists():
        place = place.parent
    try:
        usage = shutil.disk_usage(place)
    except OSError as error:
        return fail("disk", f"{place}: {error.strerror}", "make LEDGER_DATA_DIR readable for us")
    free = f"{usage.free / 1024**3:.1f} GiB free of {usage.total / 1024**3:.1f} at {place}"
    if usage.free < DISK_BYTES_LOW:
        return fail("disk", free, "make room now: a full disk answers every callback with 503")
    if usage.free < DISK_BYTES_WARN:
        return warn("disk", free, "make room, or move LEDGER_DATA_DIR to a larger disk")
    return ok("disk", free)


async def check_port(settings: Settings) -> Check:
    """Check whether this service, no program, or another program uses the port."""
    if settings.port == 0:
        return ok("port", "any free one is taken at start")
    place = f"{settings.host}:{settings.port}"
    if _is_free(settings):
        return warn("port", f"{place} is free: the service is not running", "start `ledger serve`")
    token = next(iter(settings.api_tokens), None)
    here = f"http://{_bracketed(settings.host)}:{settings.port}"
    url = service_url(settings, here if settings.on_loopback else None)
    try:
        async with Client(url, token, ANSWER_SECONDS_MAX) as client:
            status = orjson.loads(await client.get("/v1/status"))
            return ok("port", f"{place} is served by callback-ledger {status['version']}")
    except ServiceRefused as error:
        if error.status in (401, 503):
            return warn("port", f"{place}: {error}", "see the service's log")
        return fail("port", f"{place}: {error}", "set LEDGER_PORT to a free port")
    except (ServiceUnreachable, ValueError, KeyError, TypeError):
        return fail("port", f"{place} is used by another program", "end it, or set LEDGER_PORT")


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _is_free(settings: Settings) -> bool:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError:
            return False
        return True


async def check_database(settings: Settings) -> list[Check]:
    """Check the configured database, or the embedded one if it runs."""
    where = "external" if settings.database_url else "embedded"
    try:
        dsn = database_dsn(settings)
        needed = connections_needed(settings)
        return [
            *await doctor_database.examine(dsn, where, list(settings.sources), needed),
            *await doctor_schema.examine(dsn, settings),
        ]
    except ServerNotFound as error:
        return [(fail if error.is_broken else warn)("database", error.found, error.advice)]
    except LedgerError as error:
        advice = "see that it runs and that the settings reach it"
        return [fail("database", redact(str(error)), advice)]


def connections_needed(settings: Settings) -> int:
    """Return how many connections the service and one command beside it may have at a time."""
    receiving = settings.receivers * RECEIVER_CONNECTIONS
    return receiving + FOLD_CONNECTIONS + SHARED_CONNECTIONS + COMMAND_CONNECTIONS
