"""Amounts and times are written for people; cells of spreadsheets are texts, never formulas."""

from __future__ import annotations

from datetime import UTC

import pytest

from ledger.terminal.cells import read_cell, write_cell
from ledger.terminal.figures import (
    Decimals,
    break_dated,
    break_time,
    dated,
    line_dated,
    line_time,
    local_time,
    zone_named,
)


def test_decimals_are_as_many_as_the_longest_of_a_currency_has() -> None:
    decimals = Decimals([("SGD", "1.5"), ("SGD", "1234567"), ("XIDR", "12"), ("SGD", None)])
    assert decimals.text("SGD", "1234567") == "1,234,567.0"
    assert decimals.text("SGD", "-1234567", grouped=False) == "-1234567.0"
    assert decimals.text("XIDR", "12") == "12"
    assert decimals.text("SGD", None) == ""
    assert decimals.text("SGD", "0.000000000000000001") == "0.000000000000000001"


def test_times_are_those_of_the_zone_by_its_name() -> None:
    moment = "2026-03-29T00:30:00.25Z"
    assert local_time(moment, zone_named("Asia/Singapore")) == "2026-03-29 08:30"
    assert local_time(moment, zone_named("UTC-03:30")) == "2026-03-28 21:00"
    assert dated(moment, zone_named("UTC+08:00")) == "2026-03-29 08:30:00+08:00"
    assert zone_named("Europe/Atlantis") is zone_named("UTC") is UTC
    assert local_time(None, UTC) == dated(None, UTC) == ""


def test_a_line_at_midnight_of_the_zone_or_of_utc_shows_its_day() -> None:
    zone = zone_named("Asia/Singapore")
    for moment in ("2026-06-25T16:00:00Z", "2026-06-26T00:00:00Z"):
        assert line_time(moment, zone) == line_dated(moment, zone) == "2026-06-26"
    assert line_time("2026-06-26T00:00:00Z", zone_named("America/New_York")) == "2026-06-26"
    assert line_time("2026-06-25T16:01:00Z", zone) == "2026-06-26 00:01"
    assert line_dated("2026-06-25T16:00:01Z", zone) == "2026-06-26 00:00:01+08:00"
    assert line_time(None, zone) == line_dated(None, zone) == ""


def test_a_break_is_dated_by_the_day_where_its_line_is() -> None:
    zone, midnight = zone_named("Asia/Singapore"), "2026-06-25T16:00:00Z"
    of_line = {"at": midnight, "lines": [{"effective_at": midnight}]}
    assert break_time(of_line, zone) == break_dated(of_line, zone) == "2026-06-26"
    of_books = {"at": midnight, "lines": []}
    assert break_time(of_books, zone) == "2026-06-26 00:00"
    assert break_dated(of_books, zone) == "2026-06-26 00:00:00+08:00"


@pytest.mark.parametrize(
    "text", ["=1+1", "+x", "-x", "@x", "'=x", "'", "\t=1", "\r=1", "＝1", "''"]
)
def test_what_would_be_a_formula_is_quoted_and_read_back(text: str) -> None:
    assert write_cell(text) == f"'{text}"
    assert read_cell(write_cell(text)) == text


@pytest.mark.parametrize("text", ["", "-1.50", "12", "ACME", "don't", "2026-01-01", "x'=1"])
def test_other_texts_and_amounts_stay_as_they_are(text: str) -> None:
    assert write_cell(text) == read_cell(text) == text
