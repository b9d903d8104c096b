"""The laws of tables: an amount is read as it was meant or refused, and nothing breaks a reader."""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.config.statement_profile import StatementProfile, profile_of
from ledger.statements.formats.tables.amounts import AmountReader
from ledger.statements.formats.tables.profiles import shipped_profiles
from ledger.statements.model import Reading, StatementRefused
from ledger.statements.reader import read_statement

EXPORTS = sorted((Path(__file__).parents[1] / "unit/statements/exports").glob("*.csv"))

amounts = st.decimals(
    min_value=Decimal(-(10**12)), max_value=Decimal(10**12), allow_nan=False, allow_infinity=False
)
places = st.integers(0, 6)


def rounded(value: Decimal, digits: int) -> Decimal:
    return value.quantize(Decimal(1).scaleb(-digits)) + 0


def german(text: str) -> str:
    return text.translate({ord(","): ".", ord("."): ","})


GROUPED: dict[str, Callable[[Decimal], str]] = {
    "plain": lambda value: f"{value:f}",
    "english": lambda value: f"{value:,f}",
    "german": lambda value: german(f"{value:,f}"),
    "swiss": lambda value: f"{value:,f}".replace(",", "'"),
    "french": lambda value: german(f"{value:,f}").replace(".", "\u202f"),
}
SIGNED: dict[str, Callable[[str], str]] = {
    "minus before": lambda text: text,
    "minus of typographers": lambda text: text.replace("-", "\u2212"),
    "minus behind": lambda text: f"{text[1:]}-" if text[0] == "-" else text,
    "brackets": lambda text: f"({text[1:]})" if text[0] == "-" else text,
    "CR and DR": lambda text: f"{text[1:]} DR" if text[0] == "-" else f"{text} CR",
    "dollars": lambda text: f"-${text[1:]}" if text[0] == "-" else f"${text}",
    "code behind": lambda text: f"{text} EUR",
}
DECLARED = {
    "plain": {"decimal": "."},
    "english": {"decimal": ".", "thousands": ","},
    "german": {"decimal": ",", "thousands": "."},
    "swiss": {"decimal": ".", "thousands": "'"},
    "french": {"decimal": ",", "thousands": "\u202f"},
}
DOUBTFUL = re.compile(r"[1-9]\d{0,2}[.,]\d{3}")
SURE = re.compile(r"[.,](\d{1,2}|\d{4,})$")
DAMAGE = (
    b"", b",", b";", b"\n", b'"', b"-", b".", b"(", b"\xff", b"\x00", b"CR", b"\t", b"sep=;\n",
    b"9" * 30, b"1E-5", b"9999-12-31", b"31 Dec 9999", "\u2212".encode(),
)  # fmt: skip


@given(amounts, places, st.sampled_from(sorted(GROUPED)), st.sampled_from(sorted(SIGNED)))
def test_an_amount_whose_signs_are_declared_is_read_as_it_was_meant(
    value: Decimal, digits: int, grouping: str, signing: str
) -> None:
    meant = rounded(value, digits)
    text = SIGNED[signing](GROUPED[grouping](meant))
    amount = AmountReader(profile_of(DECLARED[grouping])).read(1, "Amount", text)
    assert amount is not None
    assert amount.value == meant


@given(amounts, places, st.sampled_from(sorted(GROUPED)), st.sampled_from(sorted(SIGNED)))
def test_an_amount_whose_signs_are_not_declared_is_read_as_it_was_meant_or_refused(
    value: Decimal, digits: int, grouping: str, signing: str
) -> None:
    meant = rounded(value, digits)
    text = SIGNED[signing](GROUPED[grouping](meant))
    is_doubtful = DOUBTFUL.fullmatch(GROUPED[grouping](abs(meant))) is not None
    amount, message = None, ""
    try:
        amount = AmountReader(StatementProfile()).read(1, "Amount", text)
    except StatementRefused as error:
        message = str(error)
    if amount is None:
        assert repr(text.strip()[:40]) in message
        assert grouping != "plain" or is_doubtful
    else:
        assert amount.value == meant
        assert not is_doubtful


@given(st.lists(st.tuples(amounts, places), min_size=1, max_size=20),
       st.sampled_from(sorted(GROUPED)))  # fmt: skip
def test_a_file_without_declarations_is_read_as_it_was_meant_or_refused(
    values: list[tuple[Decimal, int]], grouping: str
) -> None:
    meant = [rounded(value, digits) for value, digits in values]
    texts = [(n, GROUPED[grouping](value)) for n, value in enumerate(meant, 1)]
    reader = AmountReader(StatementProfile())
    reader.learn(texts)
    is_sure = any(SURE.search(text) for _, text in texts)
    try:
        found = [reader.read(n, "Amount", text) for n, text in texts]
    except StatementRefused:
        assert not is_sure
        return
    assert [each and each.value for each in found] == meant


@given(
    st.sampled_from(EXPORTS),
    st.lists(
        st.tuples(
            st.integers(0, 2_000),
            st.integers(0, 20),
            st.sampled_from(DAMAGE),
        ),
        max_size=8,
    ),
    st.sampled_from([None, *shipped_profiles()]),
)
def test_a_damaged_export_is_read_or_refused(
    path: Path, damage: list[tuple[int, int, bytes]], name: str | None
) -> None:
    body = bytearray(path.read_bytes())
    for at, length, text in damage:
        body[at : at + length] = text
    profile = shipped_profiles()[name] if name else StatementProfile()
    for currency in (None, "EUR"):
        message = ""
        try:
            read_statement(bytes(body), Reading(currency=currency, profile=profile))
        except StatementRefused as error:
            message = str(error)
        assert len(message) < 2_000


@given(st.binary(max_size=400), st.booleans())
def test_any_bytes_are_a_sheet_or_refused(body: bytes, is_ole: bool) -> None:
    magic = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" if is_ole else b"PK\x03\x04"
    with pytest.raises(StatementRefused):
        read_statement(magic + body, Reading("xlsx", "EUR"))
