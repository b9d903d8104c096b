"""The kinds and statuses by which lists can be filtered, from the registry."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Final

from ledger import registry
from ledger.fold.dispatch import UNKNOWN
from ledger.registry import UNREADABLE

LOG: Final = ""
"""Stands for the log instead of a table; the log has every kind."""
UNNAMED: Final = "unknown:"
"""Prefix of a status that no document names."""


@cache
def kinds_of(table: str) -> Sequence[str]:
    """Return the kinds of a table of the books, or of the log."""
    known = registry.load()
    if table != LOG:
        return sorted(kind for kind, stream in known.streams.items() if stream.table.name == table)
    handled = {handler.kind for siblings in known.handlers.values() for handler in siblings}
    return sorted({*handled, UNKNOWN, UNREADABLE})


@cache
def statuses_of(table: str, kind: str | None = None) -> Sequence[str]:
    """Return the statuses of a table of the books, or of the log: of one kind, or of all."""
    known = registry.load()
    kinds = kinds_of(table) if kind is None else (kind,)
    statuses = {
        status
        for siblings in known.handlers.values()
        for handler in siblings
        if handler.kind in kinds
        for status in handler.statuses or ()
    }
    if table == LOG:
        return sorted(statuses | ({UNKNOWN, UNREADABLE} & {*kinds}))
    tables = [known.streams[name].table for name in kinds]
    return sorted(
        statuses | {"conflict" for known_table in tables if "conflict" in known_table.columns}
    )


def is_status(text: str, table: str, kind: str | None = None) -> bool:
    """Return whether rows can have this status."""
    return text.startswith(UNNAMED) or text in statuses_of(table, kind)
