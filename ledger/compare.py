"""Comparing two generations of the books, table by table, in PostgreSQL: nothing is held here."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from ledger import books, registry

DIFFERENCES_MAX: Final = 100
"""Differences told per table; that there is one is what counts."""

_KEPT: Final = {"parked": ("source", "position"), "links": ("source", "link", "kind", "id")}
"""Tables of the books that no projection declares, with their keys."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A row that two generations do not share. `live` and `rebuilt` hold what differs, or None."""

    table: str
    key: dict[str, Any]
    live: dict[str, Any] | None
    rebuilt: dict[str, Any] | None

    def __str__(self) -> str:
        named = " ".join(str(value) for value in self.key.values())
        if self.live is None or self.rebuilt is None:
            side = "only a fold of the log has it" if self.live is None else "the log has no cause"
            return f"{self.table} {named}: {side}"
        told = ", ".join(
            f"{name} is {_shown(self.live[name])}, the log says {_shown(self.rebuilt[name])}"
            for name in self.live
        )
        return f"{self.table} {named}: {told}"


async def compare(connection: Any, live: int, other: int, source: str) -> list[Difference]:
    """Return what two generations say differently about one source; [] when they are equal.

    Both must be at the same position in the connection's snapshot; the caller sees to that.
    Every column counts, those that the fold keeps for itself too.
    """
    keys = {sql.table.name: sql.table.key for sql in books.tables(registry.load()).values()}
    found: list[Difference] = []
    for table, key in (keys | _KEPT).items():
        rows = await connection.fetch(_statement(table, key, live, other), source)
        found += [_difference(table, key, row["live"], row["other"]) for row in rows]
    return found


def _statement(table: str, key: tuple[str, ...], live: int, other: int) -> str:
    """Write the comparison of one table. Names come from the projections' code, never from data."""
    one, two = (f"{books.schema_of(generation)}.{table}" for generation in (live, other))
    keys = ", ".join(key)
    return f"""
SELECT to_jsonb(a)::text AS live, to_jsonb(b)::text AS other
  FROM (SELECT * FROM {one} WHERE source = $1) AS a
  FULL JOIN (SELECT * FROM {two} WHERE source = $1) AS b USING ({keys})
 WHERE a IS DISTINCT FROM b
 ORDER BY {keys} LIMIT {DIFFERENCES_MAX}
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


def _fields(text: str | None) -> dict[str, Any] | None:
    """Read a row; amounts stay the exact texts that they are."""
    return None if text is None else dict(json.loads(text, parse_float=str, parse_int=str))


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "…"
