"""A row written as text arrives as it was: whatever is in it, in every type of the books."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import orjson
import pytest

from ledger.database import copy_format
from tests.conftest import Database

KINDS = ("text", "numeric", "timestamptz", "bigint", "int", "jsonb", "text[]", "bytea", "boolean")
SIGNS = ("a", "\\", "\t", "\n", "\r", '"', "'", ",", "{", "}", "ü", "漢", "\x01", "\x7f", "N", " ")
PRINTED = tuple(sign for sign in SIGNS if sign.isprintable())
ODD = (*PRINTED, "\u00a0", "\u2028", "\u3000", "\x7f", "null", "😀")
AT = datetime(2026, 1, 1, tzinfo=UTC)


def word(rng: random.Random, signs: Sequence[str]) -> str:
    return "".join(rng.choice(signs) for _ in range(rng.randrange(8)))


def row(rng: random.Random, *, nulls: bool, signs: Sequence[str] = SIGNS) -> list[Any]:
    """Make up a row with a value of every type."""
    values = [
        word(rng, signs),
        Decimal(rng.randrange(-(10**20), 10**20)).scaleb(-rng.randrange(18)),
        AT + timedelta(microseconds=rng.randrange(10**15)),
        rng.randrange(-(2**63), 2**63),
        rng.randrange(-(2**31), 2**31),
        {"a": word(rng, SIGNS), "b": [rng.randrange(10), None, True], word(rng, SIGNS): {}},
        [word(rng, signs) for _ in range(rng.randrange(3))],
        rng.choice(
            (rng.randbytes(rng.randrange(9)), b'["state",1]', b"", b"a\x00b", b"\\x41", b'"\\n"')
        ),
        rng.random() < 0.5,
    ]
    return [None if nulls and rng.random() < 0.3 else value for value in values]


async def copied(
    database: Database, kinds: Sequence[str], rows: Sequence[Sequence[Any]]
) -> list[list[Any]]:
    """Return rows of columns of these types as they come back from a table."""
    names = [f"c{n}" for n in range(len(kinds))]
    columns = ", ".join(map(" ".join, zip(names, kinds, strict=True)))
    async with database.service() as connection:
        await connection.execute(
            f"CREATE TEMP TABLE t (n int GENERATED ALWAYS AS IDENTITY, {columns})"
        )
        await copy_format.copy(connection, "t", copy_format.encode(kinds, rows), names)
        found = await connection.fetch(f"SELECT {', '.join(names)} FROM t ORDER BY n")
        return [list(record.values()) for record in found]


@pytest.fixture
def rng() -> random.Random:
    seed = random.randrange(2**32)
    print("seed", seed)
    return random.Random(seed)


@pytest.mark.parametrize("signs", [SIGNS, ODD, PRINTED], ids=["any", "odd", "printed"])
@pytest.mark.parametrize("nulls", [False, True])
async def test_what_is_written_is_what_is_read(
    database: Database, rng: random.Random, nulls: bool, signs: Sequence[str]
) -> None:
    rows = [row(rng, nulls=nulls, signs=signs) for _ in range(300)]
    found = await copied(database, KINDS, rows)
    for values in found:
        values[5] = None if values[5] is None else orjson.loads(values[5])
    assert found == rows


HARMLESS = ("", "null", "a,b", "]", "[", ",", "ü漢😀\u2028\x7f", " x ", "{}", "'")


@pytest.mark.parametrize("words", [HARMLESS, (*HARMLESS, '"', "]\n[", "\\", "\\."), SIGNS])
async def test_rows_of_plain_values_are_what_is_read(
    database: Database, rng: random.Random, words: Sequence[str]
) -> None:
    kinds = ("text", "bigint", "numeric", "text", "timestamptz", "boolean", "int", "text")
    rows = []
    for _ in range(300):
        made = row(rng, nulls=True)
        texts = [rng.choice((None, *words)) for _ in range(3)]
        rows.append([texts[0], made[3], made[1], texts[1], made[2], made[8], made[4], texts[2]])
    assert await copied(database, kinds, rows) == rows
    assert await copied(database, ("text",), [[text] for text in (None, *words)]) == [
        [text] for text in (None, *words)
    ]


@pytest.mark.parametrize("signs", [SIGNS, ODD, PRINTED], ids=["any", "odd", "printed"])
async def test_columns_are_read_as_they_were(
    database: Database, rng: random.Random, signs: Sequence[str]
) -> None:
    rows = [row(rng, nulls=True, signs=signs) for _ in range(300)]
    named = ", ".join(f"c{n}" for n in range(len(KINDS)))
    casts = ", ".join(f"c{n}::{kind}" for n, kind in enumerate(KINDS))
    texts = ", ".join(
        f"${n}::text::{copy_format.array_of(kind)}" for n, kind in enumerate(KINDS, 1)
    )
    async with database.service() as connection:
        read = await connection.fetch(
            f"SELECT {casts} FROM unnest({texts}) AS u({named})", *copy_format.arrays(KINDS, rows)
        )
    found = [list(record.values()) for record in read]
    for values in found:
        values[5] = None if values[5] is None else orjson.loads(values[5])
    assert found == rows


def test_no_rows_are_no_text_and_what_has_no_utf8_is_refused() -> None:
    assert copy_format.encode(("text",), []) == b""
    with pytest.raises(UnicodeEncodeError):
        copy_format.encode(("text",), [["\ud800"]])


def test_an_integer_beyond_64_bits_in_a_structure_is_refused() -> None:
    with pytest.raises(TypeError):
        copy_format.encode(("jsonb",), [[{"n": 2**70}]])
