"""Law: a declaration that cannot be listed is refused at start, with what to change."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ledger.errors import RegistryError
from ledger.model import Table
from ledger.queries.views import table_list

COLUMNS = {"source": "text", "name": "text", "at": "timestamptz", "amount": "numeric"}
TABLE = Table(name="some", columns=COLUMNS, key=("source", "name"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"columns": COLUMNS | {"raw": "bytea"}}, "no answer has the type bytea of raw"),
        ({"key": ("source", "at")}, "cannot be listed in the order of at"),
        ({"hashed": True}, "cannot be listed in the order of first_position"),
        ({"filters": ("amount",)}, "amount cannot be a filter"),
        ({"filters": ("nothing",)}, "nothing cannot be a filter"),
        ({"filters": ("limit",), "columns": COLUMNS | {"limit": "text"}}, "limit cannot be a"),
        ({"filters": ("at",), "hidden": ("at",)}, "at cannot be a filter"),
        ({"hidden": ("nosuch",)}, "hidden= names nosuch, which is no column of it"),
        ({"hidden": ("name",)}, "name cannot be hidden: the cursors of its pages show it"),
        ({"hidden": ("source",)}, "source cannot be hidden: the cursors of its pages show it"),
    ],
)
def test_what_cannot_be_listed_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(RegistryError, match=message):
        table_list(replace(TABLE, **change), stream=False)


def test_the_key_is_filtered_from_its_beginning() -> None:
    table = replace(TABLE, columns=COLUMNS | {"n": "int"}, key=("source", "name", "n"))
    filters = table_list(table, stream=False).filters
    assert {name: each.needs for name, each in filters.items()} == {"name": (), "n": ("name",)}


def test_a_declared_filter_is_offered_wherever_the_column_is_in_the_key() -> None:
    columns = COLUMNS | {"position": "bigint", "kind": "text", "n": "int"}
    after_position = replace(
        TABLE, columns=columns, key=("source", "position", "kind"), filters=("kind",)
    )
    (kind,) = table_list(after_position, stream=False).filters.values()
    assert (kind.name, kind.needs, kind.hashed) == ("kind", (), True)
    third = replace(TABLE, columns=columns, key=("source", "name", "kind", "n"), filters=("kind",))
    made = table_list(third, stream=False)
    assert {name: each.needs for name, each in made.filters.items()} == {
        "name": (), "kind": (), "n": ("name", "kind"),
    }  # fmt: skip
    assert made.description.filters == ["source", "name", "kind", "n"]
    assert made.description.needs == {"n": ["name", "kind"]}


def test_a_hidden_column_of_a_table_found_by_hash_is_no_filter() -> None:
    columns = COLUMNS | {"kind": "text", "id": "text"}
    table = replace(TABLE, columns=columns, key=("source", "kind", "id"), hashed=True)
    assert set(table_list(table, stream=True).filters) == {"kind", "id"}
    assert not table_list(replace(table, hidden=("id",)), stream=True).filters


def test_a_column_named_like_a_common_parameter_is_shown_but_no_filter() -> None:
    table = replace(TABLE, columns=COLUMNS | {"position": "bigint"}, key=("source", "position"))
    made = table_list(table, stream=False)
    assert "position" in made.columns
    assert not made.filters
