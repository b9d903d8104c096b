"""Comparing two generations of the books, table by table, in PostgreSQL: nothing is held here."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from ledger import books, registry

DIFFERENCES_MAX: Final = 100
"""Differences told per table; that there is one is what counts."""

POSITIONS_MAX: Final = 20
"""Positions told per difference."""

SORT_MEMORY: Final = "SET LOCAL work_mem = '64MB'"

SELECT_COLUMNS: Final = """
SELECT table_name AS table, column_name AS name, data_type AS kind FROM information_schema.columns
 WHERE table_schema = $1 ORDER BY table_name, ordinal_position
"""
_KEPT: Final = {"parked": ("source", "position"), "links": ("source", "link", "kind", "id")}
"""Tables of the books that no projection declares, with their keys."""

CELL: Final = ("account", "currency", "hours", "width", "span", "moment")
"""What a cell is of, within a source."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A row that two generations do not share. `live` and `rebuilt` hold what differs, or None.

    `positions` are those of the events that explain it, the first POSITIONS_MAX. With an empty
    `key` it is the table itself that differs, in its columns.
    """

    table: str
    key: dict[str, Any]
    live: dict[str, Any] | None
    rebuilt: dict[str, Any] | None
    positions: tuple[int, ...] = ()

    def __str__(self) -> str:
        named = " ".join(str(value) for value in self.key.values())
        if self.live is None or self.rebuilt is None:
            side = "only a fold of the log has it" if self.live is None else "the log has no cause"
            return f"{self.table} {named}: {side}"
        told = ", ".join(
            f"{name} is {_shown(self.live.get(name))}, the log says {_shown(value)}"
            for name, value in self.rebuilt.items()
        )
        return f"{self.table} {named}: {told}"

    def cells(self) -> Iterator[tuple[str, Any, Any]]:
        """Yield (column, live value, rebuilt value); one without a name for a missing row."""
        if self.live is None or self.rebuilt is None:
            yield "", self.live, self.rebuilt
            return
        for name in {**self.live, **self.rebuilt}:
            yield name, self.live.get(name), self.rebuilt.get(name)


async def compare(connection: Any, live: int, other: int, source: str) -> list[Difference]:
    """Return what two generations say differently about one source; [] when they are equal.

    Both must have folded the same events in the connection's snapshot; the caller sees to that.
    Every column counts, those that the fold keeps for itself too. The live books' cells, which
    lag by nature, are compared with sums over their own entries.
    """
    keys = {sql.table.name: sql.table.key for sql in books.tables(registry.load()).values()}
    shapes = [await _shape(connection, generation) for generation in (live, other)]
    found = await _places(connection, live, other, source)
    await connection.execute(SORT_MEMORY)
    for table, key in (keys | _KEPT).items():
        one, two = (shape.get(table, {}) for shape in shapes)
        if one != two:
            found.append(Difference(table, {}, _texts(one), _texts(two)))
        both = [name for name, kind in one.items() if two.get(name) == kind]
        if set(key) <= set(both):
            rows = await connection.fetch(_statement(table, key, both, live, other), source)
            found += [_difference(table, key, row["live"], row["other"]) for row in rows]
    gone = shapes[0].keys() - shapes[1].keys()
    found += [Difference(table, {}, _texts(shapes[0][table]), None) for table in sorted(gone)]
    if "cells" in shapes[0]:
        rows = await connection.fetch(_wrong_cells(live), source)
        found += [_difference("cells", CELL, row["live"], row["other"]) for row in rows]
    return await _explained(connection, live, other, source, found)


async def _places(connection: Any, live: int, other: int, source: str) -> list[Difference]:
    """Compare how far both have folded; live books may claim more events than the log has."""
    both = [await connection.fetchval(_place(generation), source) for generation in (live, other)]
    one, two = ({"position": str(place or 0)} for place in both)
    return [] if one == two else [Difference("checkpoints", {"source": source}, one, two)]


async def _shape(connection: Any, generation: int) -> dict[str, dict[str, str]]:
    """Return table → column → type."""
    found: dict[str, dict[str, str]] = {}
    for row in await connection.fetch(SELECT_COLUMNS, books.schema_of(generation)):
        found.setdefault(row["table"], {})[row["name"]] = row["kind"]
    return found


def _texts(columns: Mapping[str, str]) -> dict[str, Any] | None:
    return {"columns": ", ".join(columns)} if columns else None


def _statement(
    table: str, key: tuple[str, ...], columns: Iterable[str], live: int, other: int
) -> str:
    """Write the comparison of one table. Names come from the projections' code, never from data."""
    one, two = (f"{books.schema_of(generation)}.{table}" for generation in (live, other))
    keys, named = ", ".join(key), ", ".join(columns)
    return f"""
SELECT to_jsonb(a)::text AS live, to_jsonb(b)::text AS other
  FROM (SELECT {named} FROM {one} WHERE source = $1) AS a
  FULL JOIN (SELECT {named} FROM {two} WHERE source = $1) AS b USING ({keys})
 WHERE a IS DISTINCT FROM b
 ORDER BY {keys} LIMIT {DIFFERENCES_MAX}
"""  # noqa: S608


def _place(generation: int) -> str:
    """Write the look-up of how far a generation is."""
    return f"SELECT position FROM {books.schema_of(generation)}.checkpoints WHERE source = $1"  # noqa: S608


def _wrong_cells(generation: int) -> str:
    """Write the comparison of a generation's cells with the sums over its own entries.

    Only what an answer may be read from: spans that are done, of accounts that have cells in any
    currency.
    """
    schema, key = books.schema_of(generation), ", ".join(CELL)
    return f"""
WITH hourly AS MATERIALIZED (
       SELECT account, currency, (e.position - 1) / s.size AS span,
              date_bin('1 hour', e.effective_at, '2000-01-01Z') AS moment,
              sum(e.debits) AS debits, sum(e.debits - e.amount) AS credits
         FROM {schema}.spans AS s
         JOIN {schema}.entries AS e ON e.source = s.source AND e.position <= s.done * s.size
        WHERE s.source = $1 AND e.account IN (SELECT account FROM {schema}.hot WHERE source = $1)
        GROUP BY 1, 2, 3, 4),
     narrow AS MATERIALIZED (
       SELECT 1 AS hours, * FROM hourly
        UNION ALL
       SELECT 24, account, currency, span, date_bin('1 day', moment, '2000-01-01Z'),
              sum(debits), sum(credits)
         FROM hourly GROUP BY 2, 3, 4, 5),
     due AS (
       SELECT hours, 1::bigint AS width, account, currency, span, moment, debits, credits
         FROM narrow
        UNION ALL
       SELECT hours, s.wide, account, currency, span / s.wide, moment, sum(debits), sum(credits)
         FROM narrow JOIN {schema}.spans AS s ON s.source = $1 AND span < s.done / s.wide * s.wide
        GROUP BY 1, 2, 3, 4, 5, 6),
     kept AS (
       SELECT h.account, h.currency, c.hours::int, c.width::bigint, c.span::bigint, c.moment,
              c.debits, c.credits
         FROM {schema}.hot AS h JOIN {schema}.cells AS c ON c.hot = h.id WHERE h.source = $1)
SELECT to_jsonb(a)::text AS live, to_jsonb(b)::text AS other
  FROM kept AS a
  FULL JOIN (SELECT {key}, debits, credits FROM due) AS b USING ({key})
 WHERE a IS DISTINCT FROM b
 ORDER BY {key} LIMIT {DIFFERENCES_MAX}
"""  # noqa: S608


def _difference(
    table: str, key: tuple[str, ...], live: str | None, other: str | None
) -> Difference:
    one, two = _fields(live), _fields(other)
    named = {name: (one or two or {})[name] for name in key}
    if one is None or two is None:
        return Difference(table, named, one, two)
    differing = [name for name in one if one[name] != two[name]]
    return Difference(
        table,
        named,
        {name: one[name] for name in differing},
        {name: two[name] for name in differing},
    )


async def _explained(
    connection: Any, live: int, other: int, source: str, found: Iterable[Difference]
) -> list[Difference]:
    """Add the positions of the events that explain each difference."""
    done: list[Difference] = []
    touched = {int(d.key["position"]) for d in found if d.table == "entries" and d.key}
    for difference in found:
        key, positions = difference.key, []
        if "position" in key:
            positions = [int(key["position"])]
        elif {"kind", "id"} <= key.keys():
            given = (source, key["kind"], key["id"])
            positions = await _positions(connection, _stream(other), given)
        elif {"account", "currency"} <= key.keys():
            given = (source, key["account"], key["currency"])
            if touched:
                both = [_touching(generation) for generation in (live, other)]
                for statement in both:
                    positions += await _positions(connection, statement, (*given, [*touched]))
            positions = positions or await _positions(connection, _account(other), given)
        done.append(replace(difference, positions=tuple(sorted(set(positions)))))
    return done


async def _positions(connection: Any, statement: str, given: tuple[Any, ...]) -> list[int]:
    return [row["position"] for row in await connection.fetch(statement, *given)]


def _stream(generation: int) -> str:
    """Write the look-up of a stream's events."""
    return f"""
SELECT position FROM {books.schema_of(generation)}.history
 WHERE source = $1 AND kind = $2 AND id = $3
   AND hashtextextended(id, 0) = hashtextextended($3, 0)
 ORDER BY position LIMIT {POSITIONS_MAX}
"""  # noqa: S608


def _account(generation: int) -> str:
    """Write the look-up of the latest events of an account."""
    return f"""
SELECT position FROM {books.schema_of(generation)}.entries
 WHERE source = $1 AND account = $2 AND currency = $3
 ORDER BY effective_at DESC LIMIT {POSITIONS_MAX}
"""  # noqa: S608


def _touching(generation: int) -> str:
    """Write the look-up of which events among some touch an account."""
    return f"""
SELECT DISTINCT position FROM {books.schema_of(generation)}.entries
 WHERE source = $1 AND account = $2 AND currency = $3 AND position = ANY ($4::bigint[])
 ORDER BY position LIMIT {POSITIONS_MAX}
"""  # noqa: S608


def _fields(text: str | None) -> dict[str, Any] | None:
    """Read a row; amounts stay the exact texts that they are."""
    return None if text is None else dict(json.loads(text, parse_float=str, parse_int=str))


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "…"
