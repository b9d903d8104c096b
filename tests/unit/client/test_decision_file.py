"""A file of decisions is read as spreadsheets save it."""

from __future__ import annotations

import pytest

from ledger.client.decision_file import DecisionFile, read_decisions
from ledger.errors import InvalidRequest

ONE, TWO, THREE = "0123456789abcdef", "1123456789abcdef", "2123456789abcdef"
FILE = (
    "id,type,decision,decision_account,decision_note,decision_items\r\n"
    f"{ONE},FEE,write_off,expenses:bank,Café fee,\r\n"
    f"{TWO},AMOUNT,,,,\r\n"
    f'{THREE},AMOUNT,match,,"two, with a comma","line:a b; payment:contract_1"\r\n'
)
READ = [
    (2, {"id": ONE, "action": "write_off", "by": "ann", "note": "Café fee",
         "account": "expenses:bank"}),
    (4, {"id": THREE, "action": "match", "by": "ann", "note": "two, with a comma",
         "items": ["line:a b", "payment:contract_1"]}),
]  # fmt: skip


def read(text: str, encoding: str = "utf-8", note: str | None = None) -> DecisionFile:
    return read_decisions(text.encode(encoding), "ann", note)


SEMICOLONS = FILE.replace(",", ";").replace("two; with a comma", "two, with a comma")


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (FILE, "utf-8"),
        (FILE, "utf-8-sig"),
        (FILE, "utf-16"),
        (FILE, "cp1252"),
        (SEMICOLONS, "utf-8-sig"),
        (SEMICOLONS, "cp1252"),
        (FILE.replace("\r\n", "\n"), "utf-8"),
        (FILE.replace("decision_note", " Decision Note ").replace("id,", "ID,", 1), "utf-8"),
        (FILE.replace("write_off", " Write-off"), "utf-8"),
    ],
)
def test_spreadsheets_change_encoding_separator_and_spelling(text: str, encoding: str) -> None:
    found = read(text, encoding)
    assert (found.rows, found.refused, found.without_decision) == (READ, [], 1)


def test_rows_above_the_names_and_blank_columns_do_not_matter() -> None:
    shifted = "".join(f",{line}\r\n" for line in FILE.splitlines())
    found = read("sep=,\r\nField,Value\r\nstate,BREAKS\r\n\r\n" + shifted)
    assert [line for line, _ in found.rows] == [6, 8]
    assert [row for _, row in found.rows] == [row for _, row in READ]


def test_a_note_over_several_lines_keeps_the_lines_of_the_rows_after_it() -> None:
    found = read(FILE.replace("Café fee", '"one\r\ntwo"'))
    assert [(line, row["note"]) for line, row in found.rows] == [
        (2, "one\r\ntwo"), (5, "two, with a comma"),
    ]  # fmt: skip


def test_a_row_that_is_no_decision_is_refused_with_its_line() -> None:
    found = read(
        "id,decision,decision_note\n"
        f"{ONE},forgive,why\n1.23457E+15,void,why\n{TWO},void,\n{THREE},void,why\n"
    )
    assert [(each.line, each.id) for each in found.refused] == [
        (2, ONE), (3, "1.23457E+15"), (4, TWO),
    ]  # fmt: skip
    reasons = [each.reason for each in found.refused]
    assert "decision is 'forgive', none of match" in reasons[0]
    assert "import that column as text" in reasons[1]
    assert "decision_note" in reasons[2]
    assert [line for line, _ in found.rows] == [5]
    assert read(f"id,decision\n{ONE},void\n", note="checked").rows[0][1]["note"] == "checked"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no row has the names id and decision"),
        (f"break,decision\n{ONE},void\n", "the file begins with 'break, decision'"),
        (f"id,decision,decision\n{ONE},void,void\n", "two columns are called decision"),
    ],
)
def test_a_file_without_the_columns_is_refused(text: str, reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        read(text)


def test_cells_that_were_quoted_against_formulas_are_read_as_they_were() -> None:
    found = read(FILE.replace("Café fee", "'=as agreed"))
    assert found.rows[0][1]["note"] == "=as agreed"
    assert read(FILE.replace("Café fee", "'quoted' by us")).rows[0][1]["note"] == "'quoted' by us"
