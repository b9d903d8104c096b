"""Law: every column of every export has the type that its values have."""

from __future__ import annotations

import io
from typing import Annotated, Any

import msgspec
import pytest

from ledger import registry
from ledger.api.routes import EXPORTED, exported_lists
from ledger.export.tables import ENCODERS, columns_of
from ledger.queries.schemas.money import Amount, Moment

PARQUET = {
    "text": "string",
    "texts": "list<element: string>",
    "amount": "decimal128(38, 18)",
    "time": "timestamp[us, tz=UTC]",
    "integer": "int64",
    "boolean": "bool",
    "json": "string",
}
"""Type of a column → its type in Parquet."""

DECLARED = {
    "text": "text", "text[]": "texts", "bigint": "integer", "int": "integer",
    "boolean": "boolean", "numeric": "amount", "timestamptz": "time", "jsonb": "json",
}  # fmt: skip
"""PostgreSQL type that a projection declares → type of the column."""

LISTED = {
    "entries": {
        "source": "text", "position": "integer", "line": "integer", "kind": "text",
        "transaction": "text", "account": "text", "currency": "text", "amount": "amount",
        "effective_at": "time", "recorded_at": "time",
    },
    "balances": {
        "source": "text", "account": "text", "currency": "text", "debits": "amount",
        "credits": "amount", "balance": "amount", "normal": "text",
    },
    "transactions": {
        "source": "text", "kind": "text", "id": "text", "idempotency_id": "text",
        "status": "text", "amount": "amount", "currency": "text", "fees": "amount",
        "customer_id": "text", "effective_at": "time", "flags": "texts", "conflict": "json",
        "return_of": "text", "details": "json", "history": "json",
    },
    "customers": {
        "source": "text", "id": "text", "verification_status": "text", "updated_at": "time",
        "rejection": "json", "registration_type": "text", "country": "text", "details": "json",
        "history": "json", "limits": "json", "limit_requests": "json", "rfi": "json",
        "bank_accounts": "json", "virtual_accounts": "json", "cut": "texts",
    },
    "events": {
        "source": "text", "position": "integer", "event_id": "text", "idempotency_key": "text",
        "kind": "text", "resource_id": "text", "status": "text", "idempotency_id": "text",
        "path_event": "text", "origin": "text", "verdict": "text", "reason": "text",
        "detail": "text", "peer": "text", "headers": "text", "provider_at": "time",
        "received_at": "time", "recorded_at": "time", "body": "text", "leaf": "text",
    },
}  # fmt: skip


def declared() -> dict[str, dict[str, str]]:
    """Return the columns of every view, from what its projection declares."""
    known = registry.load()
    tables = {stream.table.name: stream.table for stream in known.streams.values()}
    tables |= {projection.table.name: projection.table for projection in known.projections}
    return {
        name: {
            column: DECLARED[kind]
            for column, kind in table.columns.items()
            if column not in table.hidden
        }
        for name, table in tables.items()
        if table.is_listed
    }


EXPECTED = declared() | LISTED


def test_everything_that_is_exported_is_looked_at() -> None:
    assert set(exported_lists()) == set(EXPECTED)
    assert set(LISTED) == {*EXPORTED, "events"}


@pytest.mark.parametrize("what", sorted(EXPECTED))
def test_every_column_has_the_type_of_its_values(what: str) -> None:
    exported = exported_lists()[what]
    assert {column.name: column.type for column in exported.columns} == EXPECTED[what]
    parquet = pytest.importorskip("pyarrow.parquet", reason="the extra `analytics` is missing")
    encoder = ENCODERS["parquet"](exported.columns)
    file = parquet.ParquetFile(io.BytesIO(encoder.begin() + encoder.end()))
    assert {field.name: str(field.type) for field in file.schema_arrow} == {
        name: PARQUET[kind] for name, kind in EXPECTED[what].items()
    }


def test_descriptions_and_null_do_not_hide_a_type() -> None:
    about = msgspec.Meta(description="…")
    fields: dict[str, tuple[Any, str]] = {
        "amount": (Annotated[Amount | None, about], "amount"),
        "moment": (Annotated[Moment | None, about] | msgspec.UnsetType, "time"),
        "text": (Annotated[str | None, about], "text"),
        "coded": (Annotated[str, msgspec.Meta(pattern="^x$")] | None, "text"),
        "number": (Annotated[int | None, about], "integer"),
        "yes": (Annotated[bool | None, about], "boolean"),
        "names": (Annotated[list[Annotated[str, about]] | None, about], "texts"),
        "amounts": (list[Amount], "json"),
        "either": (int | str, "json"),
        "object": (Annotated[dict[str, Any] | None, about], "json"),
    }
    made = msgspec.defstruct("Made", [(name, kind) for name, (kind, _) in fields.items()])
    assert {column.name: column.type for column in columns_of(made)} == {
        name: kind for name, (_, kind) in fields.items()
    }
