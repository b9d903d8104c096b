"""How payloads are read: envelopes, casings, texts, money and times, without guessing."""

from __future__ import annotations

import ast
import gc
import re
import tracemalloc
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from time import process_time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import handlers
from ledger import registry
from ledger.errors import InvalidCallback, MalformedBody
from ledger.model import (
    JSON,
    Number,
    Payload,
    as_codes,
    as_instant,
    as_money,
    as_note,
    as_text,
    flags,
    identify,
    joined_id,
    plain,
    returned_ids,
    total,
)
from ledger.payload import RETURNED_IDS_MAX, TEXT_MAX, camel
from ledger.strict_json import parse
from tests.samples import utc

ENVELOPES: list[dict[str, Any]] = [
    {"id": "a1", "type": "t", "amount": "1.0"},
    {"data": {"id": "a1", "type": "t", "attributes": {"amount": "1.0"}}},
    {"id": "a1", "type": "t", "attributes": {"amount": "1.0"}},
]
AMOUNTS = st.decimals(
    min_value=Decimal(-99999999999999999999),
    max_value=Decimal(99999999999999999999),
    allow_nan=False,
    allow_infinity=False,
    places=18,
)


def reason_of(call: Any, *args: Any) -> str:
    with pytest.raises(InvalidCallback) as caught:
        call(*args)
    return caught.value.reason


@pytest.mark.parametrize("root", ENVELOPES)
def test_the_three_envelopes_are_read_alike(root: dict[str, Any]) -> None:
    reported = Payload(root, "someEvent")
    assert (reported.id, reported.type, reported.path_event) == ("a1", "t", "someEvent")
    assert reported.amount("amount") == Decimal(1)


def test_data_that_is_no_object_is_not_an_envelope() -> None:
    reported = Payload({"data": [1], "id": "a", "attributes": "x"})
    assert (reported.id, reported.get("data"), reported.get("attributes")) == ("a", [1], "x")


def test_a_field_is_found_in_either_casing() -> None:
    assert Payload({"customerProfileId": "c"}).text("customer_profile_id") == "c"
    assert Payload({"customer_profile_id": "c"}).text("customer_profile_id") == "c"
    assert Payload({"netAmount": None, "net_amount": "1"}).get("net_amount") == "1"


def test_a_field_beside_the_attributes_is_found_when_they_lack_it() -> None:
    reported = Payload({"id": "r", "customerProfileId": "c", "attributes": {"status": "sent"}})
    assert reported.text("customer_profile_id") == "c"
    both = Payload({"customerProfileId": "outer", "attributes": {"customerProfileId": "inner"}})
    assert both.text("customer_profile_id") == "inner"


def test_two_casings_with_two_values_cannot_be_true() -> None:
    reported = Payload({"net_amount": "1", "netAmount": "2"})
    assert reason_of(reported.get, "net_amount") == "two_values"
    assert Payload({"net_amount": "1", "netAmount": "1"}).get("net_amount") == "1"


def test_every_name_that_handlers_ask_for_has_its_other_spelling() -> None:
    names = {
        node.value
        for path in Path(handlers.__file__).parent.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        and re.fullmatch(r"[a-z0-9]+(_[a-z0-9]+)+", node.value)
    }  # fmt: skip
    assert len(names) > 50
    assert [name for name in sorted(names) if "_" in camel(name)] == []
    assert camel("end_to_end_ref2") == "endToEndRef2"
    assert [camel(name) for name in ("line_1", "a__b", "_a", "A_b")] == [
        "line_1",
        "a__b",
        "_a",
        "A_b",
    ]


def test_an_object_inside_is_flat_and_read_without_type_and_id() -> None:
    inner = Payload({"fee": {"id": [], "type": {}, "data": {"a": 1}, "amount": "2"}}).within("fee")
    assert inner is not None
    assert (inner.id, inner.type, inner.amount("amount")) == (None, None, Decimal(2))
    assert inner.get("data") == {"a": 1}
    assert Payload({"fee": "2"}).within("fee") is None


def test_texts_are_short_words_or_integers_and_empty_is_none() -> None:
    assert as_text("x", "word") == "word"
    assert as_text("x", 12) == "12"
    assert as_text("x", "") is None
    assert as_text("x", None) is None
    assert type(as_text("x", Number("1.5"))) is str
    for value in (True, [], {}, "x" * 513, 10**600):
        assert reason_of(as_text, "x", value) == "bad_x"


def test_a_text_that_is_needed_must_be_there() -> None:
    assert Payload({"a": "b"}).need("a") == "b"
    assert reason_of(Payload({"a": ""}).need, "a") == "missing_a"


def test_notes_never_refuse() -> None:
    assert as_note("x" * 600) == "x" * 512
    for value in (None, "", 5, True, [], {}):
        assert as_note(value) is None
    assert type(as_note(Number("1.5"))) is str


@pytest.mark.parametrize(
    ("lexeme", "expected"),
    [
        ('"13304.95"', "13304.95"),
        ("13304.95", "13304.95"),
        ("13304.950", "13304.95"),
        ('"10000"', "10000"),
        ("10000", "10000"),
        ("10000.0", "10000"),
        ("-0.0", "0"),
        ('"-0"', "0"),
        ('"007"', "7"),
        ("0.1", "0.1"),
        ("9007199254740993.1", "9007199254740993.1"),
        ("99999999999999999999.999999999999999999", "99999999999999999999.999999999999999999"),
    ],
)
def test_money_is_its_exact_lexeme_whether_text_or_number(lexeme: str, expected: str) -> None:
    amount = Payload(parse(b'{"amount":%s}' % lexeme.encode())).money("amount")
    assert amount == Decimal(expected)
    assert plain(amount or Decimal(0)) == expected


@pytest.mark.parametrize(
    "lexeme",
    [
        '""',
        '"$12.71"',
        '"1,000"',
        '" 1"',
        '"1 "',
        '"+1"',
        '".5"',
        '"5."',
        '"1e3"',
        '"1E-7"',
        "1e20",
        "1e-19",
        "1.5e999",
        "1e99999999999",
        "0e9999",
        "-1.0e+1000",
        '"NaN"',
        '"Infinity"',
        '"0x10"',
        '"1_000"',
        '"١٢"',
        '"1\\n"',
        "100000000000000000000",
        '"0.1234567890123456789"',
        "true",
        "[]",
        '{"value":1}',
    ],
)
def test_what_is_not_plainly_an_amount_is_refused(lexeme: str) -> None:
    reported = Payload(parse(b'{"amount":%s}' % lexeme.encode()))
    assert reason_of(reported.money, "amount") == "bad_amount"


@pytest.mark.parametrize(
    ("lexeme", "expected"),
    [
        ("1e-7", "0.0000001"),
        ("1.5E3", "1500"),
        ("-2.50e+1", "-25"),
        ("1e-18", "0.000000000000000001"),
        ("10e-19", "0.000000000000000001"),
        ("1E0019", "10000000000000000000"),
        ("99999999999999999999999999999999999999e-18", "99999999999999999999.999999999999999999"),
        ("0e999", "0"),
        ("-0.0e-5", "0"),
    ],
)
def test_a_number_with_an_exponent_is_its_exact_value(lexeme: str, expected: str) -> None:
    amount = Payload(parse(b'{"amount":%s}' % lexeme.encode())).money("amount")
    assert amount is not None
    assert (amount, plain(amount)) == (Decimal(expected), expected)


def test_absent_money_is_none_and_not_zero() -> None:
    assert as_money("x", None) is None
    assert Payload({}).fees("fees") is None
    assert reason_of(Payload({}).amount, "amount") == "missing_amount"


def test_negative_money_cannot_be_true() -> None:
    assert reason_of(Payload({"amount": "-1"}).amount, "amount") == "negative_amount"
    assert reason_of(Payload({"fees": "-1"}).fees, "fees") == "negative_fees"
    assert Payload({"amount": "-0.0"}).amount("amount") == Decimal(0)


def test_a_total_is_checked_where_both_sides_are_known() -> None:
    reported = Payload({"total": "3"})
    assert reported.fees_within("total", Decimal(1), Decimal(2)) == Decimal(2)
    assert reported.fees_within("absent", Decimal(1), Decimal(1)) == Decimal(1)
    assert reported.fees_within("absent", Decimal(1), None) is None
    assert reason_of(reported.fees_within, "total", Decimal(1), Decimal(1)) == "total_mismatch"


def test_a_stated_total_states_the_fees_that_no_field_names() -> None:
    reported = Payload({"total": "3"})
    assert reported.fees_within("total", Decimal("2.98"), None) == Decimal("0.02")
    assert reason_of(reported.fees_within, "total", Decimal(4), None) == "total_mismatch"


@pytest.mark.parametrize(
    ("body", "stated"),
    [
        (b"\xef\xbb\xbf{}", "the body begins with a byte order mark; send JSON without one"),
        (b'{"a": "\x01"}', "Invalid control character at line 1 column 8"),
        (b"{", "Expecting property name enclosed in double quotes at line 1 column 2"),
    ],
)
def test_what_is_no_json_states_why(body: bytes, stated: str) -> None:
    with pytest.raises(MalformedBody) as refused:
        parse(body)
    assert str(refused.value) == stated


def test_an_unterminated_text_full_of_escapes_is_refused_in_linear_time() -> None:
    body = b'{"a":[' + b"[]," * 70 + b'"' + b'\\"' * 120_000
    started = process_time()
    with pytest.raises(MalformedBody):
        parse(body)
    assert process_time() - started < 2


def test_totals_keep_every_digit_beyond_the_default_precision() -> None:
    large, small = Decimal(99999999999999999999), Decimal("0.000000000000000001")
    assert plain(total(large, small)) == "99999999999999999999.000000000000000001"
    assert total() == Decimal(0)


@given(AMOUNTS)
def test_plain_text_is_canonical_and_reads_back(amount: Decimal) -> None:
    text = plain(amount)
    assert Decimal(text) == amount
    assert as_money("x", text) == amount
    assert "E" not in text
    assert text != "-0"
    assert not ("." in text and text.endswith(("0", ".")))


@given(AMOUNTS, AMOUNTS)
def test_adding_and_taking_away_again_changes_nothing(first: Decimal, second: Decimal) -> None:
    assert total(first, second, second.copy_negate()) == first


def test_plain_text_has_no_exponent_and_no_trailing_zeros() -> None:
    cases = {"1E+3": "1000", "10000.0": "10000", "0.50": "0.5", "-0.00": "0", "1E-7": "0.0000001"}
    assert {text: plain(Decimal(text)) for text in cases} == cases


@pytest.mark.parametrize("lexeme", ["1" * 100_000 + "{}e0", "1e-" + "0" * 100_000 + "{}", "{}e999"])
def test_what_is_no_amount_takes_no_memory(lexeme: str) -> None:
    tracemalloc.start()
    try:
        for n in range(100, 150):
            assert reason_of(as_money, "x", Number(lexeme.format(n))) == "bad_x"
        gc.collect()
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 1_000_000


def test_currencies_are_short_codes_in_upper_case() -> None:
    assert Payload({"currency": "xsgd"}).currency("currency") == "XSGD"
    assert reason_of(Payload({}).currency, "currency") == "missing_currency"
    for text in ("S$", "x", "X SGD", "ſgd", "1SGD", "A" * 13):
        assert reason_of(Payload({"currency": text}).currency, "currency") == "bad_currency", text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2025-04-16T08:15:42.681Z", "2025-04-16T08:15:42.681"),
        ("2025-07-07T15:19:07.898+08:00", "2025-07-07T07:19:07.898"),
        ("2025-06-13T04:24:39Z", "2025-06-13T04:24:39"),
        ("2024-09-18T18:29:26.8469471+00:00", "2024-09-18T18:29:26.846947"),
        ("2025-04-16t08:15:42.681z", "2025-04-16T08:15:42.681"),
        ("2025-04-16T08:15:42z", "2025-04-16T08:15:42"),
        ("2025-04-16t16:15:42+08:00", "2025-04-16T08:15:42"),
        ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00"),
        ("2016-12-31t23:59:60.25z", "2017-01-01T00:00:00.25"),
        ("2017-01-01T07:59:60+08:00", "2017-01-01T00:00:00"),
        ("2024-02-29T12:34:60.0000000Z", "2024-02-29T12:35:00"),
    ],
)
def test_times_are_read_in_utc(text: str, expected: str) -> None:
    assert as_instant("x", text) == utc(expected)


@pytest.mark.parametrize(
    "value",
    [
        "2025-04-16T08:15:42",
        "2025-02-30T00:00:00Z",
        "2025-02-30T23:59:60Z",
        "2025-01-01T23:59:61Z",
        "2025-01-01T23:60:60Z",
        "2025-01-01T23:59:60",
        "9999-12-31T23:59:60Z",
        "14 May 2026 - 9:11 AM",
        1700000000,
        [],
        "x",
    ],
)
def test_what_is_not_a_time_with_a_zone_is_refused(value: Any) -> None:
    assert reason_of(as_instant, "x", value) == "bad_x"


@pytest.mark.parametrize(
    "text",
    [
        "0001-01-01T00:00:00Z",
        "0001-01-01t00:00:00z",
        "0001-01-01T00:00:00",
        "0001-01-01T00:00:00.0000000+08:00",
    ],
)
def test_the_first_moment_of_year_one_is_no_date(text: str) -> None:
    assert as_instant("x", text) is None


def test_a_callback_is_dated_when_it_was_updated_or_else_created() -> None:
    created, updated = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"
    both = {"createdAt": created, "updatedAt": updated}
    assert Payload(both).stated_time() == (utc("2026-01-02T00:00:00"), False)
    assert Payload({"created_at": created}).stated_time() == (utc("2026-01-01T00:00:00"), True)
    assert Payload({}).stated_time() == (None, False)


def test_a_status_is_a_known_word_or_kept_as_stated() -> None:
    known = frozenset({"pending"})
    assert Payload({"status": "Pending"}).status("status", known) == "pending"
    assert Payload({"status": "Held"}).status("status", known) == "unknown:Held"
    assert reason_of(Payload({"status": ""}).status, "status", known) == "missing_status"


def test_events_of_a_stream_differ_by_status_or_also_by_updated_time() -> None:
    reported = Payload({"id": 7, "updated_at": "2026-01-02T08:00:00+08:00"})
    assert identify(reported, "k", "done").tail == "done"
    assert identify(reported, "k", "done", dated=True).tail == "done@2026-01-02T00:00:00+00:00"
    assert identify(reported, "k", "unknown:x", dated=True).tail is None
    assert identify(reported, "k", "done").resource_id == "7"
    assert reason_of(identify, Payload({}), "k", "done") == "missing_id"


def test_an_id_of_several_parts_is_bounded_and_its_own() -> None:
    longest = "c" * (TEXT_MAX - 2)
    assert joined_id(longest, "i") == longest + "/i"
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", joined_id(longest, "id"))
    assert joined_id(longest, "id") != joined_id(longest, "ie")


@given(st.lists(st.tuples(st.text("/%2Fa"), st.text("/%2Fa")), unique=True))
def test_different_parts_make_different_ids(parts: list[tuple[str, str]]) -> None:
    assert len({joined_id(*part) for part in parts}) == len(parts)


@pytest.mark.parametrize(
    ("remarks", "expected"),
    [
        (["RTN po-1"], ["po-1"]),
        (["rtn po-1"], ["po-1"]),
        (["/ROC/RTN po-1"], ["po-1"]),
        (["RTN: po-1", None], ["po-1"]),
        (["RTN-po-1"], ["po-1"]),
        (["RTN/po-1"], ["po-1"]),
        (["RTN \t:- / po_1  "], ["po_1"]),
        (["returned: RTN po-1."], ["po-1.", "po-1"]),
        (["RTN po-1, closed"], ["po-1, closed", "po-1,", "po-1"]),
        (["RTN po 1"], ["po 1", "po"]),
        (["RTN po/1"], ["po/1", "po"]),
        (["RTN Löhne-1 März"], ["Löhne-1 März", "Löhne-1"]),
        (["RTN a RTN b-2"], ["a RTN b-2", "a RTN", "b-2", "a"]),
        (["RTN po-1", "rtn po-1"], ["po-1"]),
        (["RTN po-1", "RTN po-22"], ["po-22", "po-1"]),
        (["RTN RTN RTN po-1"], ["RTN RTN po-1", "RTN po-1", "RTN RTN", "po-1", "RTN"]),
        (["RTN"], []),
        (["RTN :/- "], []),
        (["RTN.po-1"], []),
        (["PARTNER po-1"], None),
        (["RTNS po-1", "RTN1 po-1", "_RTN po-1"], None),
        (["", None, 17, ["RTN po-1"], {"RTN": "RTN po-1"}], None),
        ([], None),
    ],
)
def test_remarks_name_what_may_have_come_back(
    remarks: list[Any], expected: list[str] | None
) -> None:
    assert returned_ids(*remarks) == expected


def test_words_before_the_id_do_not_displace_it_from_the_remarks() -> None:
    named = returned_ids("RTN " * 100 + "po-1 " + "closed " * 10)
    assert named is not None
    assert (len(named), "po-1" in named) == (RETURNED_IDS_MAX, True)
    assert returned_ids(" " * TEXT_MAX + "RTN po-1") == []
    assert returned_ids("RTN " + "x" * TEXT_MAX) == []
    assert returned_ids("RTN " + "x" * (TEXT_MAX - 4)) == ["x" * (TEXT_MAX - 4)]


def test_long_remarks_are_read_in_linear_time() -> None:
    started = process_time()
    for text in ("RTN " * 100_000, "RTN" + " :-/" * 100_000 + ".", "x " * 200_000 + "RTN"):
        assert len(returned_ids(text, text + "!") or []) <= RETURNED_IDS_MAX
    assert process_time() - started < 2


@pytest.mark.parametrize(
    ("value", "codes", "is_read"),
    [
        ([{"code": "NM-001"}, "CR-001"], ["NM-001", "CR-001"], True),
        ("weird", ["weird"], True),
        ({"code": "NM-001"}, ["NM-001"], True),
        (None, [], True),
        ([], [], True),
        ("", [], True),
        ({}, [], True),
        (5, [], False),
        (True, [], False),
        ({"reason": "x"}, [], False),
        (["CR-001", 5], ["CR-001"], False),
        ([{"code": 5}, [], None, ""], [], False),
    ],
)
def test_codes_are_read_in_every_shape_or_known_to_be_unread(
    value: Any, codes: list[str], is_read: bool
) -> None:
    assert as_codes(value) == (codes, is_read)


def test_flags_are_the_names_that_are_raised() -> None:
    assert flags(one=True, two=False, three=True) == ("one", "three")


TOO_MANY_DIGITS = "has more than 20 digits before the point or 18 after it"


@pytest.mark.parametrize(
    ("read", "name", "value", "message"),
    [
        (as_money, "amount", "1e400", "amount '1e400' is not a plain decimal amount"),
        (as_money, "amount", Number("1e400"), f"amount 1e400 {TOO_MANY_DIGITS}"),
        (as_money, "amount", Number("1e20"), f"amount 1e20 {TOO_MANY_DIGITS}"),
        (as_money, "amount", 10**20, f"amount 100000000000000000000 {TOO_MANY_DIGITS}"),
        (as_money, "amount", "9" * 21, f"amount '{'9' * 21}' {TOO_MANY_DIGITS}"),
        (as_money, "amount", "0." + "1" * 19, f"amount '0.{'1' * 19}' {TOO_MANY_DIGITS}"),
        (as_money, "amount", "1 000", "amount '1 000' is not a plain decimal amount"),
        (as_money, "amount", True, "amount true is not an amount"),
        (as_money, "amount", {"a": 1}, "amount an object is not an amount"),
        (as_text, "id", ["x"], "id a list is not a text"),
        pytest.param(as_text, "id", 10**600, "id a vast number is not a text", id="vast"),
        (as_text, "id", "x" * 600, f"id '{'x' * 32}…' is longer than 512 characters"),
        (as_instant, "updated_at", "yesterday", "updated_at 'yesterday' is not a time"),
        (as_instant, "updated_at", 5, "updated_at 5 is not a time"),
        (as_instant, "updated_at", "2026-01-01T00:00:00",
         "updated_at '2026-01-01T00:00:00' names no time zone"),
        (as_text, "account_no", "1234567890" * 60, "account_no is longer than 512 characters"),
    ],
)  # fmt: skip
def test_a_message_shows_the_value_bounded_and_no_personal_data(
    read: Callable[[str, JSON], object], name: str, value: JSON, message: str
) -> None:
    with pytest.raises(InvalidCallback) as caught:
        read(name, value)
    assert caught.value.detail == message


def test_an_unknown_status_is_shown_with_those_that_there_are() -> None:
    body = b'{"id":"c","type":"Direct bank transfer","status":"paused","amount":"1"}'
    found = registry.load().read("straitsx", None, body)
    assert found.detail == (
        "no document names the status 'paused', only completed, expired, failed, pending, refunded"
    )
