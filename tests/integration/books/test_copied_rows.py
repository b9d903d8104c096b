"""Law: PostgreSQL reads back what was written, by COPY and through arrays of texts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import orjson

from ledger.database.copy_format import array_of, arrays, encode
from tests.conftest import Database

KINDS = ("text", "bigint", "numeric", "timestamptz", "boolean", "jsonb", "text[]", "bytea")
HOSTILE = "a\tb\nc\rd\\e\\N\\.\"'{},\x01\x7f\u2028é😀"
MOMENT = datetime(2026, 1, 2, 3, 4, 5, 678_900, UTC)
ROWS: list[tuple[Any, ...]] = [
    (HOSTILE, -(2**63), Decimal("-123456789012345678901234567890.000000000000000001"), MOMENT,
     True, {HOSTILE: [HOSTILE, None, 1, True]}, [HOSTILE, "", "NULL", " "], HOSTILE.encode()),
    ("\\N", 2**63 - 1, Decimal("0.00"), datetime.max.replace(tzinfo=UTC), False, [], [], b""),
    ("", 0, Decimal(0), datetime(1, 1, 1, tzinfo=UTC), None, {}, ["\\"], bytes(range(256))),
    ("\\.", 1, Decimal("1E+3"), MOMENT, True, "\\x", ["{}"], b"\\x41"),
    (None,) * 8,
]  # fmt: skip


async def source() -> AsyncIterator[bytes]:
    yield encode(KINDS, ROWS)


async def test_hostile_values_come_back_as_they_were(database: Database) -> None:
    named = "abcdefgh"
    columns = ", ".join(f"{name} {kind}" for name, kind in zip(named, KINDS, strict=True))
    casts = ", ".join(f"u.{name}::{kind}" for name, kind in zip(named, KINDS, strict=True))
    texts = ", ".join(f"${n}::text::{array_of(kind)}" for n, kind in enumerate(KINDS, 1))
    async with database.service() as connection:
        await connection.execute(
            f"CREATE TEMP TABLE read (n int GENERATED ALWAYS AS IDENTITY, {columns})"
        )
        await connection.copy_to_table("read", source=source(), columns=list(named))
        await connection.execute(
            f"INSERT INTO read ({', '.join(named)}) SELECT {casts} "
            f"FROM unnest({texts}) AS u({', '.join(named)})",
            *arrays(KINDS, ROWS),
        )
        found = [tuple(row)[1:] for row in await connection.fetch("SELECT * FROM read ORDER BY n")]
    shown = [
        (*row[:5], None if row[5] is None else orjson.loads(row[5]), *row[6:]) for row in found
    ]
    assert shown == ROWS + ROWS
