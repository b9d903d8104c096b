"""The answers about views: which there are, and their rows, typed by their declarations."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Meta

from ledger.model import Table
from ledger.queries.schemas.money import Amount, Cursor, Earlier, Moment, Positions, Schema

ColumnType: TypeAlias = Literal["text", "texts", "integer", "boolean", "amount", "time", "json"]


class ViewColumn(Schema, frozen=True):
    """One column of a view."""

    name: str
    type: ColumnType


class ViewDescription(Schema, frozen=True):
    """One view: a table of the books."""

    table: Annotated[str, Meta(description="Its rows are at `/v1/views/<table>`.")]
    columns: list[ViewColumn]
    key: Annotated[list[str], Meta(description="The columns that identify a row.")]
    filters: Annotated[
        list[str], Meta(description="The columns that are parameters of its list, each `=value`.")
    ]
    needs: Annotated[
        dict[str, list[str]],
        Meta(description="A filter that goes with others only, and the filters that it needs."),
    ]


class Views(Schema, frozen=True):
    """Every view that is listed, by name."""

    views: list[ViewDescription]
    position: Positions


TYPES: Final[dict[str, tuple[ColumnType, Any]]] = {
    "text": ("text", str),
    "text[]": ("texts", list[str]),
    "bigint": ("integer", int),
    "int": ("integer", int),
    "boolean": ("boolean", bool),
    "numeric": ("amount", Amount),
    "timestamptz": ("time", Moment),
    "jsonb": ("json", Any),
}
"""PostgreSQL type of a column → its name in the description, and its type in an answer."""


def row_type(table: Table, columns: dict[str, str]) -> type[Schema]:
    """Make the type of a view's rows; columns outside the key may be null."""
    fields = []
    for name, kind in columns.items():
        _, answered = TYPES[kind]
        fields.append((name, answered if name in table.key else answered | None))
    return _struct(f"{_camel(table.name)}ViewRow", f"One row of the view {table.name}.", fields)


def list_type(table: Table, row: type[Schema]) -> type[Schema]:
    """Make the type of a page of a view."""
    fields = [
        ("rows", list[row]),  # type: ignore[valid-type]
        ("next", Cursor),
        ("position", Positions),
        ("as_of", Earlier, UNSET),
    ]
    about = f"Rows of the view {table.name}, by source and {', '.join(table.order)}."
    return _struct(f"{_camel(table.name)}View", about, fields)


def _camel(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("_"))


def _struct(name: str, about: str, fields: list[Any]) -> type[Schema]:
    made: type[Any] = msgspec.defstruct(
        name, fields, bases=(Schema,), frozen=True, module=__name__, namespace={"__doc__": about}
    )
    return made
