"""The sources that have a log: what the database knows of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import orjson

from ledger.config.owner_rule import read_owner_rule
from ledger.config.settings import Settings
from ledger.errors import SettingsError
from ledger.eventlog.identity import is_statements_log, source_of
from ledger.model import OwnerRule, SourceTerms
from ledger.registry import STATEMENT

SELECT_SOURCES: Final = """
SELECT source, provider, currency, wallets::text, owner_field, owner_match, date_by
  FROM ledger.sources ORDER BY source
"""
ADD_SOURCE: Final = """
INSERT INTO ledger.sources
       (source, provider, currency, wallets, owner_field, owner_match, date_by)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (source) DO NOTHING
"""
REGISTER_SOURCE: Final = """
INSERT INTO ledger.sources
       (source, provider, currency, wallets, owner_field, owner_match, date_by)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (source) DO UPDATE
   SET provider = EXCLUDED.provider, currency = EXCLUDED.currency, wallets = EXCLUDED.wallets,
       owner_field = EXCLUDED.owner_field, owner_match = EXCLUDED.owner_match,
       date_by = EXCLUDED.date_by
"""
REGISTER_HEAD: Final = "INSERT INTO ledger.heads (source) VALUES ($1) ON CONFLICT DO NOTHING"


async def terms_of(connection: Any, settings: Settings) -> list[SourceTerms]:
    """Return what facts and postings need to know of every source that the database has.

    Those of a configured source come from the settings, whatever the database has; those of a log
    of statements are fixed; those of other sources come from the database. Raises SettingsError.
    """
    rows = await connection.fetch(SELECT_SOURCES)
    return [_configured(settings, row["source"]) or _checked(row) for row in rows]


async def load_terms(connection: Any) -> list[SourceTerms]:
    """Return the terms of every source that has a log, as the database has them.

    Raises SettingsError for an `owner_of` that no settings could have.
    """
    return [_checked(row) for row in await connection.fetch(SELECT_SOURCES)]


def _configured(settings: Settings, source: str) -> SourceTerms | None:
    if source in settings.sources:
        return settings.sources[source].terms
    if is_statements_log(source) and source_of(source) in settings.sources:
        return SourceTerms(source, STATEMENT)
    return None


def _checked(row: Any) -> SourceTerms:
    """Return the terms that a row of ledger.sources has. Raises SettingsError."""
    terms = stored(row)
    rule = terms.owner_of
    if rule is not None:
        try:
            read_owner_rule({"field": rule.field, "match": rule.match})
        except ValueError as error:
            raise SettingsError(
                f"the database cannot be folded: of the source {terms.source} it has {error}; "
                "configure the source, and start the service once"
            ) from error
    return terms


def stored(row: Any) -> SourceTerms:
    """Return the terms that a row of ledger.sources has."""
    field, match = row["owner_field"], row["owner_match"]
    return SourceTerms(
        row["source"], row["provider"], row["currency"], orjson.loads(row["wallets"]),
        None if field is None else OwnerRule(field, match), row["date_by"],
    )  # fmt: skip


async def changed_terms(connection: Any, settings: Settings) -> list[tuple[str, str]]:
    """Return (source, how) for every source whose terms are not those of the settings."""
    found = []
    for row in await connection.fetch(SELECT_SOURCES):
        source, there = row["source"], stored(row)
        here = _configured(settings, source)
        if here is not None and here != there:
            how = ", ".join(
                f"{name} is {getattr(there, name)!r} in ledger.sources, "
                f"{getattr(here, name)!r} by the settings"
                for name in ("provider", "currency", "wallets", "owner_of", "date_by")
                if getattr(there, name) != getattr(here, name)
            )
            found.append((source, how))
    return found


async def register(
    connection: Any, settings: Settings, encode: Callable[[Any], str], *, decides: bool
) -> None:
    """Make every configured source known to the database; its log starts empty.

    Only a service that projects `decides` the terms of a source that is known already.
    """
    statement = REGISTER_SOURCE if decides else ADD_SOURCE
    for source in settings.sources.values():
        terms = source.terms
        owner = terms.owner_of
        await connection.execute(
            statement, terms.source, terms.provider, terms.currency, encode(terms.wallets),
            owner and owner.field, owner and owner.match, terms.date_by,
        )  # fmt: skip
        await connection.execute(REGISTER_HEAD, terms.source)
