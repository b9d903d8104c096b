"""Rows as COPY's text: what goes in comes back, and what needs escaping is escaped."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from ledger.database.copy_format import arrays, copied, encode

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
        ("boolean", True, "t"),
        ("boolean", False, "f"),
        ("boolean", None, r"\N"),
        ("jsonb", {"b": 'a"b', "a": None}, r'{"a":null,"b":"a\\"b"}'),
        ("text[]", [], "{}"),
        ("text[]", ["a,b", 'c"d', "e\\f"], r'{"a,b","c\\"d","e\\\\f"}'),
        ("bytea", b"[1,2]", "[1,2]"),
        ("bytea", rb'["a\"b"]', r'["a\\\\"b"]'),
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
        '{"a",null,"b"}', "{1,null,3}", '{"2",null,"4.5"}', f'{{"{written}",null,null}}',
    ]  # fmt: skip


def test_no_rows_are_no_text() -> None:
    assert encode(("text",), []) == b""


def test_half_of_a_surrogate_pair_is_refused() -> None:
    with pytest.raises(UnicodeEncodeError):
        encode(("text",), [("\ud800",)])


def test_rows_of_plain_values_are_written_in_one_call() -> None:
    rows = [("a,b", None, Decimal("1.50"), MOMENT), ("", 2, None, None)]
    kinds = ("text", "bigint", "numeric", "timestamptz")
    assert copied(kinds, rows).data.decode().splitlines() == [
        '"a,b",null,"1.50","2026-01-02T03:04:05.678900Z"', '"",2,null,null',
    ]  # fmt: skip
    assert copied(kinds, [("a\tb", 1, None, None)]).data == b"a\\tb\t1\t\\N\t\\N\n"
    assert copied(("jsonb",), [({},)]).data == b'"{}"\n'
    assert copied(kinds, []).data == b""


def test_whole_numbers_may_stand_among_amounts() -> None:
    assert encode(("numeric",), [(5,), (Decimal("1.10"),), (10**20,)]) == (
        b"5\n1.10\n100000000000000000000\n"
    )
