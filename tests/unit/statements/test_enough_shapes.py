"""As many shapes of statement files are proved as the formats have in the field.

Each file that is read is compared with a reader of a few lines in its test, of the same lines and
the same sums; each that is refused, by the line or the part of it that the refusal names.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.unit.statements.test_camt053 import (
    test_what_is_wrong_is_refused_with_its_place_and_its_text as refused_camt053,
)
from tests.unit.statements.test_camt053_shapes import (
    test_every_shape_is_read_like_an_independent_reader_reads_it as read_camt053,
)
from tests.unit.statements.test_mt940 import (
    test_a_shape_is_read_as_a_few_lines_read_it as read_mt940,
)
from tests.unit.statements.test_mt940 import test_a_wrong_file_is_refused as refused_mt940
from tests.unit.statements.test_refused_tables import (
    test_a_table_that_may_be_misread_is_refused as refused_table,
)
from tests.unit.statements.test_shipped_profiles import (
    test_an_export_is_read_by_the_profile_that_ships as read_export,
)
from tests.unit.statements.test_table_shapes import (
    test_a_table_has_the_lines_that_a_plain_reader_finds as read_table,
)

READ_MIN = {read_camt053: 40, read_mt940: 30, read_table: 25, read_export: 7}
REFUSED_MIN = {refused_camt053: 20, refused_mt940: 15, refused_table: 20}


def cases(test: Callable[..., Any]) -> int:
    """Count the files of a parametrized test."""
    return sum(len([*mark.args[1]]) for mark in test.pytestmark)  # type: ignore[attr-defined]


def test_a_hundred_files_are_read_and_fifty_are_refused() -> None:
    for expected in (READ_MIN, REFUSED_MIN):
        assert {test: count for test, count in expected.items() if cases(test) < count} == {}
