"""Reading any table of the books as a list, made from what its projection declares."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import msgspec

from ledger import registry
from ledger.errors import InvalidRequest, RegistryError
from ledger.model import Table
from ledger.payload import plain
from ledger.queries.params import AS_OF_NAMES, COMMON_NAMES, Param, QueryParams
from ledger.queries.schemas.money import Schema
from ledger.queries.schemas.views import (
    TYPES,
    ViewColumn,
    ViewDescription,
    Views,
    list_type,
    row_type,
)
from ledger.queries.snapshot import DatabaseRow, Listing, Snapshot

RESERVED: Final = frozenset({"source"}) | AS_OF_NAMES | COMMON_NAMES
"""Parameters that mean the same in every list, so that no column of that name is a filter."""
SOURCE: Final = Param("source", "Only this source.")
INTEGERS: Final = ("bigint", "int")
FILTERED: Final = ("text", "boolean", *INTEGERS)
"""Types of the columns by which a list can be filtered."""
FRAMEWORK_ORDER: Final = {"first_position": "bigint"}


@dataclass(frozen=True, slots=True)
class Filter:
    """A column by which a view's list is filtered."""

    name: str
    type: str
    needs: tuple[str, ...] = ()
    """The columns that must be given with it, so that an index finds the rows."""
    hashed: bool = False
    """Whether the index has the hash of the column instead of the column."""

    def condition(self, place: int) -> str:
        """Write the condition of this filter, whose parameter is `$place`."""
        parameter = f"${place}"
        kind = "bigint" if self.type in INTEGERS else "text"
        value = f"({parameter}::text)::boolean" if self.type == "boolean" else parameter
        condition = f"{self.name} = {value}"
        if self.hashed:
            condition += f" AND hashtextextended({self.name}, 0) = hashtextextended({parameter}, 0)"
        return f"({parameter}::{kind} IS NULL OR {condition})"

    @property
    def param(self) -> Param:
        """The query parameter."""
        about = f"Only rows with this {self.name}."
        if self.needs:
            about += f" Goes with {' and '.join(self.needs)}."
        if self.type == "boolean":
            return Param(self.name, about, "choice", ("true", "false"))
        return Param(self.name, about, "integer" if self.type in INTEGERS else "text")


@dataclass(frozen=True, slots=True, eq=False)
class TableList:
    """The list of one table's rows, by source and the table's order."""

    table: Table
    columns: Mapping[str, str]
    """What is shown: column → PostgreSQL type."""
    filters: Mapping[str, Filter]
    row: type[Schema]
    answer: type[Schema]
    listing: Listing

    @property
    def params(self) -> tuple[Param, ...]:
        """The query parameters besides the common ones."""
        return (SOURCE, *(filter_.param for filter_ in self.filters.values()))

    @property
    def description(self) -> ViewDescription:
        """The columns, key and filters of the list, for clients."""
        return ViewDescription(
            table=self.table.name,
            columns=[ViewColumn(name, TYPES[kind][0]) for name, kind in self.columns.items()],
            key=list(self.table.key),
            filters=[param.name for param in self.params],
            needs={name: list(each.needs) for name, each in self.filters.items() if each.needs},
        )

    async def read(self, snapshot: Snapshot, params: QueryParams) -> Any:
        """Read one page. Raises InvalidRequest for a filter without those it needs."""
        given = self.filter_values(params)
        rows, following = await self.listing.page(snapshot, params, *given.values())
        return self.page_of(snapshot, rows, following)

    def filter_values(self, params: QueryParams) -> dict[str, Any]:
        """Return the value of each filter, None when it was not given.

        Raises InvalidRequest for a filter without those it needs.
        """
        given: dict[str, Any] = {name: params.values.get(name) for name in self.filters}
        for name, value in given.items():
            missing = [other for other in self.filters[name].needs if given[other] is None]
            if value is not None and missing:
                raise InvalidRequest(
                    f"{name} is a filter only together with {' and '.join(missing)}: the rows of "
                    f"{self.table.name} are found by {', '.join(self.table.key[1:])}"
                )
        return given

    def page_of(
        self, snapshot: Snapshot, rows: Iterable[DatabaseRow], following: str | None
    ) -> Any:
        """Make the answer of rows that have the shown columns as the database returns them."""
        answer: Any = self.answer
        return answer(
            rows=[self._row(row) for row in rows],
            next=following,
            position=snapshot.position,
            as_of=snapshot.as_of,
        )

    def _row(self, row: DatabaseRow) -> Any:
        made: Any = self.row
        return made(*(_value(kind, row[name]) for name, kind in self.columns.items()))


def _value(kind: str, value: Any) -> Any:
    if value is None:
        return None
    match kind:
        case "numeric":
            return plain(value)
        case "jsonb":
            # The stored text itself: decoding it would round its fractions.
            return msgspec.Raw(value)
        case _:
            return value


@cache
def table_lists() -> Mapping[str, TableList]:
    """Return the list of every table that is listed, by name. Raises RegistryError."""
    known = registry.load()
    streams = {stream.table.name: stream.table for stream in known.streams.values()}
    others = {projection.table.name: projection.table for projection in known.projections}
    tables = sorted({**streams, **others}.items())
    return {
        name: table_list(table, stream=name in streams) for name, table in tables if table.is_listed
    }


def table_list(table: Table, *, stream: bool) -> TableList:
    """Make the list of a table. Raises RegistryError for a declaration that cannot be listed."""
    columns = {name: kind for name, kind in table.columns.items() if name not in table.hidden}
    kinds = {**table.columns, **(FRAMEWORK_ORDER if stream else {})}
    _check(table, columns, kinds)
    filters = _filters(table)
    row = row_type(table, columns)
    listing = Listing(
        list_statement(table, columns, kinds, filters.values()),
        {name: int if kinds[name] in INTEGERS else str for name in table.order},
    )
    return TableList(table, columns, filters, row, list_type(table, row), listing)


def _check(table: Table, columns: Mapping[str, str], kinds: Mapping[str, str]) -> None:
    for name, kind in columns.items():
        if kind not in TYPES:
            raise _unfit(table, f"no answer has the type {kind} of {name}; name it in hidden=")
    for name in table.order:
        if kinds.get(name) not in ("text", *INTEGERS):
            raise _unfit(table, f"its rows cannot be listed in the order of {name}")
    for name in table.hidden:
        if name not in table.columns:
            raise _unfit(table, f"hidden= names {name}, which is no column of it")
        if name == "source" or name in table.order:
            raise _unfit(table, f"{name} cannot be hidden: the cursors of its pages show it")
    for name in table.filters:
        if name in RESERVED or columns.get(name) not in FILTERED:
            raise _unfit(table, f"{name} cannot be a filter of its list")


def _unfit(table: Table, reason: str) -> RegistryError:
    return RegistryError(
        f"the table {table.name} is declared as listed, but {reason}; change the declaration, or "
        "set is_listed=False"
    )


def _filters(table: Table) -> dict[str, Filter]:
    """Return the filters that an index serves: the beginning of the key, and those declared."""
    filters = {filter_.name: filter_ for filter_ in _key_filters(table)}
    for name in table.filters:
        if name not in filters or filters[name].needs:
            kind = table.columns[name]
            filters[name] = Filter(name, kind, hashed=kind == "text")
    return filters


def _key_filters(table: Table) -> Iterable[Filter]:
    if table.hashed:
        # Such rows are found by the hash of their id, and then compared.
        if not {"kind", "id"} & set(table.hidden):
            yield Filter("kind", table.columns["kind"], needs=("id",))
            yield Filter("id", table.columns["id"], hashed=True)
        return
    needs: tuple[str, ...] = ()
    for name in table.key[1:]:
        if name in RESERVED or table.columns[name] not in FILTERED:
            return
        yield Filter(name, table.columns[name], needs)
        needs = (*needs, name)


def list_statement(
    table: Table, columns: Iterable[str], kinds: Mapping[str, str], filters: Iterable[Filter]
) -> str:
    """Write the statement of a list: $1 source, $2 rows, then the key after which it begins, then
    the filters. Names come from the projections' code, never from data.
    """
    order = ", ".join(table.order)
    after = [
        f"${place}::{'bigint' if kinds[name] in INTEGERS else 'text'}"
        for place, name in enumerate(table.order, start=3)
    ]
    selected = ", ".join(dict.fromkeys((*columns, *table.order)))
    conditions = [
        "source = $1",
        f"({after[0]} IS NULL OR ({order}) > ({', '.join(after)}))",
        *(filter_.condition(place) for place, filter_ in enumerate(filters, start=3 + len(after))),
    ]
    where = " AND ".join(conditions)
    return f"SELECT {selected} FROM {table.name} WHERE {where} ORDER BY {order} LIMIT $2"  # noqa: S608


async def views(snapshot: Snapshot, params: QueryParams) -> Views:
    """Return every view that is listed, with its columns and filters."""
    descriptions = [table.description for table in table_lists().values()]
    return Views(views=descriptions, position=snapshot.position)
