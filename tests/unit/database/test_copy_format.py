"""Rows as COPY's text: what goes in comes back, and what needs escaping is escaped."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from ledger.database.copy_format import arrays, encode

MOMENT = datetime(2026, 1, 2, 3, 4, 5, 678_900, UTC)


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        ("text", "plain", "plain"),
        ("text", None, r"\N"),
        ("text", "", ""),
        ("text", "a\tb\nc\rd\\e", r"a\tb\nc\rd\\e"),
        ("text", r"\N", r"\\N"),
        ("bigint", 9007199254740993, "9007199254740993"),
        ("int", None, r"\N"),
        ("numeric", Decimal("-0.10"), "-0.10"),
        ("numeric", None, r"\N"),
        ("numeric", 5, "5"),
        ("timestamptz", MOMENT, "2026-01-02T03:04:05.678900Z"),
        ("timestamptz", None, r"\N"),
        ("boolean", True, "True"),
        ("boolean", False, "False"),
        ("boolean", None, r"\N"),
        ("jsonb", {"b": 'a"b', "a": None}, r'{"a":null,"b":"a\\"b"}'),
        ("text[]", [], "{}"),
        ("text[]", ["a,b", 'c"d', "e\\f"], r'{"a,b","c\\"d","e\\\\f"}'),
        ("bytea", b"[1,2]", r"\\x5b312c325d"),
        ("bytea", b"\xff\x00", r"\\xff00"),
    ],
)
def test_a_value_is_written_as_postgresql_reads_it(kind: str, value: Any, text: str) -> None:
    assert encode([kind], [(value,)]) == f"{text}\n".encode()
    assert encode([kind, "int"], [(value, 1)] * 2) == f"{text}\t1\n".encode() * 2


def test_columns_with_and_without_nothing_stay_in_order() -> None:
    rows = [("a", 1, Decimal(2), MOMENT), (None, None, None, None), ("b", 3, Decimal("4.5"), None)]
    kinds = ("text", "bigint", "numeric", "timestamptz")
    written = "2026-01-02T03:04:05.678900Z"
    assert encode(kinds, rows).decode().splitlines() == [
        f"a\t1\t2\t{written}", "\\N\t\\N\t\\N\t\\N", "b\t3\t4.5\t\\N",
    ]  # fmt: skip
    assert arrays(kinds, rows) == [
        '{"a",NULL,"b"}', "{1,NULL,3}", "{2,NULL,4.5}", f"{{{written},NULL,NULL}}",
    ]  # fmt: skip


def test_no_rows_are_no_text() -> None:
    assert encode(("text",), []) == b""


def test_half_of_a_surrogate_pair_is_refused() -> None:
    with pytest.raises(UnicodeEncodeError):
        encode(("text",), [("\ud800",)])


def test_whole_numbers_may_be_among_amounts() -> None:
    assert encode(("numeric",), [(5,), (Decimal("1.10"),), (10**20,)]) == (
        b"5\n1.10\n100000000000000000000\n"
    )
