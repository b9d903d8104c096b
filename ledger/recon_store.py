"""Writing down what was reconciled: derived, replaced by each run, never older than before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import orjson

from ledger import books
from ledger.recon_result import Result

LOCK_RUN: Final = "SELECT pg_advisory_xact_lock(hashtextextended($1 || '|' || $2, 7))"
SELECT_RUN: Final = """
SELECT positions::text AS positions, generation, rules_sha256, sha256
  FROM ledger.recon_runs WHERE source = $1 AND currency = $2
"""
UPSERT_RUN: Final = """
INSERT INTO ledger.recon_runs AS r
       (source, currency, state, opened_at, closed_at, positions, generation, files, figures,
        reasons, rules_sha256, sha256)
VALUES ($1, $2, $3, $4, $5, $6::text::jsonb, $7, $8::text::jsonb, $9::text::jsonb,
        $10::text::jsonb, $11, $12)
ON CONFLICT (source, currency) DO UPDATE
   SET state = EXCLUDED.state, opened_at = EXCLUDED.opened_at, closed_at = EXCLUDED.closed_at,
       positions = EXCLUDED.positions, generation = EXCLUDED.generation, files = EXCLUDED.files,
       figures = EXCLUDED.figures, reasons = EXCLUDED.reasons,
       rules_sha256 = EXCLUDED.rules_sha256, sha256 = EXCLUDED.sha256
"""
SELECT_MATCHES: Final = """
SELECT item, anchor, rule FROM ledger.recon_matches WHERE source = $1 AND currency = $2
"""
SELECT_OTHERS: Final = """
SELECT currency, positions::text AS positions, generation FROM ledger.recon_runs
 WHERE source = $1 AND currency <> ALL ($2::text[])
"""
DELETE_RUN: Final = "DELETE FROM ledger.recon_runs WHERE source = $1 AND currency = $2"
DELETE_ALL_MATCHES: Final = "DELETE FROM ledger.recon_matches WHERE source = $1 AND currency = $2"
DELETE_MATCHES: Final = """
DELETE FROM ledger.recon_matches
 WHERE source = $1 AND currency = $2 AND item = ANY ($3::text[])
"""
DELETE_BREAKS: Final = "DELETE FROM ledger.recon_breaks WHERE source = $1 AND currency = $2"
BREAK_COLUMNS: Final = (
    "source", "currency", "id", "type", "state", "anchor", "rule", "items", "difference", "gap",
    "at", "age_days", "bucket", "owner", "detail", "action", "decided_by", "decided_at", "note",
)  # fmt: skip


async def write(
    connection: Any, result: Result, positions: Mapping[str, int], generation: int
) -> bool:
    """Replace the stored run of a wallet, all or nothing; False when a later one is there."""
    place = result.source, result.currency
    async with connection.transaction():
        await connection.execute(LOCK_RUN, *place)
        stored = await connection.fetchrow(SELECT_RUN, *place)
        if stored is not None and await _is_later(connection, stored, positions, generation):
            return False
        if stored is None or stored["sha256"] != result.sha256:
            await _write_matches(connection, result)
            await _write_breaks(connection, result)
        cover = result.cover
        await connection.execute(
            UPSERT_RUN, *place, result.state, cover.frame.opened, cover.frame.cutoff,
            _json(positions), generation, _json(cover.files), _json(result.figures),
            _json(result.reasons), result.rules_sha256, result.sha256,
        )  # fmt: skip
    return True


async def forget(
    connection: Any, source: str, kept: Sequence[str], positions: Mapping[str, int], generation: int
) -> None:
    """Remove the runs of currencies that have no statement any more."""
    for row in await connection.fetch(SELECT_OTHERS, source, list(kept)):
        place = source, row["currency"]
        async with connection.transaction():
            await connection.execute(LOCK_RUN, *place)
            stored = await connection.fetchrow(SELECT_RUN, *place)
            if stored is not None and not await _is_later(
                connection, stored, positions, generation
            ):
                for statement in (DELETE_RUN, DELETE_ALL_MATCHES, DELETE_BREAKS):
                    await connection.execute(statement, *place)


async def _is_later(
    connection: Any, stored: Any, positions: Mapping[str, int], generation: int
) -> bool:
    """Tell whether what is stored must stay. A roll back makes an earlier generation live."""
    known = orjson.loads(stored["positions"])
    if stored["generation"] != generation:
        live = await connection.fetchrow(books.SELECT_LIVE)
        return live is None or bool(live["generation"] != generation)
    return any(known.get(source, 0) > position for source, position in positions.items())


async def _write_matches(connection: Any, result: Result) -> None:
    """Bring the live matches to what they are now; only what changed is written."""
    place = result.source, result.currency
    wanted = {key: (group.anchor, group.rule) for group in result.matches for key in group.keys}
    have = {
        row["item"]: (row["anchor"], row["rule"])
        for row in await connection.fetch(SELECT_MATCHES, *place)
    }
    gone = [item for item, told in have.items() if wanted.get(item) != told]
    if gone:
        await connection.execute(DELETE_MATCHES, *place, gone)
    new = [(*place, item, *told) for item, told in wanted.items() if have.get(item) != told]
    if new:
        await connection.copy_records_to_table(
            "recon_matches", schema_name="ledger", records=new,
            columns=["source", "currency", "item", "anchor", "rule"],
        )  # fmt: skip


async def _write_breaks(connection: Any, result: Result) -> None:
    await connection.execute(DELETE_BREAKS, result.source, result.currency)
    if not result.breaks:
        return
    records = []
    for each in result.breaks:
        told = msgspec.structs.asdict(each) | {
            "source": result.source, "currency": result.currency, "items": list(each.items),
        }  # fmt: skip
        records.append(tuple(told[name] for name in BREAK_COLUMNS))
    await connection.copy_records_to_table(
        "recon_breaks", schema_name="ledger", records=records, columns=list(BREAK_COLUMNS)
    )


def _json(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
