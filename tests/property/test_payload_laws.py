"""Law: a payload answers as the rules of its envelopes and casings say."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import quote, quote_plus

from hypothesis import assume, given
from hypothesis import strategies as st

from ledger import payload
from ledger.errors import InvalidCallback
from ledger.model import (
    Number,
    Payload,
    as_instant,
    as_money,
    as_note,
    as_text,
    inside,
    plain,
    returned_ids,
)
from ledger.strict_form import is_form, parse_body
from ledger.strict_json import parse
from tests.property.test_reading_laws import shape

SPELLINGS = {
    "status": "status",
    "net_amount": "netAmount",
    "a_b": "aB",
    "part2_of_all": "part2OfAll",
    "customer_profile_id": "customerProfileId",
    "id": "id",
    "attributes": "attributes",
    "sender_information": "senderInformation",
}
"""Names that a handler may ask for, and their other spelling."""

ODD = ("netAmount", "NetAmount", "net__amount", "_a", "line_1", "line1", "a-b", "", "ß_é")
"""What is no snake_case has no other spelling."""

KEYS = st.sampled_from(
    [*SPELLINGS, *SPELLINGS.values(), *ODD, "data", "type", "x" * 70, "x" * 70 + "Y"]
)
LEAVES = st.sampled_from(
    [None, None, "", "a", "b", "1", 1, True, 0, False, Number("1.5"), "1.5", [], ["a"]]
)
OBJECTS = st.recursive(
    LEAVES, lambda inner: st.dictionaries(KEYS, inner, max_size=6), max_leaves=12
)
ROOTS = st.dictionaries(KEYS, OBJECTS, max_size=8).flatmap(
    lambda fields: st.sampled_from(
        [fields, {"data": {"attributes": fields}}, {"attributes": fields, "netAmount": "outer"}]
    )
)


def reported(root: dict[str, Any], name: str) -> Any:
    """Return what a callback says of `name`, or the reason why it cannot be true."""
    node = root["data"] if isinstance(root.get("data"), dict) else root
    fields = node["attributes"] if isinstance(node.get("attributes"), dict) else node
    other = SPELLINGS.get(name, name)
    stated = [fields[key] for key in (other, name) if fields.get(key) is not None]
    if stated and stated[0] != stated[-1]:
        first, second = payload.named(name, stated[-1]), payload.named(other, stated[0])
        return "two_values", f"{first} and {second} disagree"
    around = [node[key] for key in (name, other) if node.get(key) is not None]
    return next(iter([*stated, *around]), None)


def asked(call: Any, *args: Any) -> Any:
    try:
        return call(*args)
    except InvalidCallback as error:
        return error.reason, error.detail


@given(ROOTS)
def test_a_field_is_found_as_the_rules_say(root: dict[str, Any]) -> None:
    payload = Payload(root) if asked(Payload, root).__class__ is Payload else None
    for name in (*SPELLINGS, *ODD):
        if payload is not None:
            assert shape(asked(payload.get, name)) == shape(reported(root, name))


@given(st.dictionaries(KEYS, OBJECTS, max_size=8))
def test_an_object_inside_is_flat_whatever_it_holds(fields: dict[str, Any]) -> None:
    flat = {name: part for name, part in fields.items() if name not in ("data", "attributes")}
    inner = Payload.inner(fields)
    for name in {*SPELLINGS, *ODD} - {"attributes"}:
        expected = shape(reported(flat, name))
        assert shape(asked(inner.get, name)) == expected
        assert shape(asked(inside, fields, name)) == expected


@given(st.dictionaries(KEYS, OBJECTS, max_size=8))
def test_several_fields_are_read_as_each_alone(fields: dict[str, Any]) -> None:
    payload = Payload.inner(fields)
    for one, several, rule in (
        (payload.note, payload.notes, lambda name: as_note(payload.get(name))),
        (payload.text, payload.texts, lambda name: as_text(name, payload.get(name))),
    ):
        for name in SPELLINGS:
            expected = shape(asked(rule, name))
            assert shape(asked(one, name)) == expected
            answer = asked(several, [name])
            assert shape(answer if isinstance(answer, tuple) else answer[name]) == expected


def test_an_object_of_very_many_fields_is_read_alike() -> None:
    fields = {f"key_{n}": n for n in range(300)} | {"net_amount": "1"}
    assert Payload(fields).get("net_amount") == "1"
    assert Payload(fields | {"netAmount": "2"}).fields["netAmount"] == "2"
    assert asked(Payload(fields | {"netAmount": "2"}).get, "net_amount") == (
        "two_values", "net_amount '1' and netAmount '2' disagree",
    )  # fmt: skip


IDS = (
    st.text("abcXYZ019-_ .", min_size=1, max_size=12)
    .map(str.strip)
    .filter(
        lambda text: (
            text.strip(" -") == text != "" and not re.search(r"\brtn\b", text, re.IGNORECASE)
        )
    )
)
SEPARATORS = st.text(" :-/\t", min_size=1, max_size=4)
WORDS = st.sampled_from(["RTN", "rtn", "Rtn", "rTN"])
BEFORE = st.sampled_from(["", "/ROC/", "returned ", "RTN ", "RTN RTN ", "RTN x RTN y ", "(", "é "])
AFTER = st.sampled_from(["", " closed", ", no such account", ".", "/2", ": x", " RTN", " RTN z"])


@given(BEFORE, WORDS, SEPARATORS, IDS, AFTER)
def test_an_id_after_the_word_is_among_what_remarks_may_name(
    before: str, word: str, separator: str, id_: str, after: str
) -> None:
    named = returned_ids(f"{before}{word}{separator}{id_}{after}")
    assert named is not None
    assert id_ in named
    assert named == sorted(set(named), key=lambda each: (-len(each), named.index(each)))


@given(st.lists(st.text("RTNrtn :/-_.abé1\n", max_size=40), max_size=3))
def test_what_remarks_may_name_follows_the_word_and_ends_where_an_id_can(
    remarks: list[str],
) -> None:
    named = returned_ids(*remarks)
    assert (named is None) is not any(
        re.search(r"(?<!\w)rtn(?!\w)", text, re.IGNORECASE) for text in remarks
    )
    for each in named or ():
        place = rf"(?<!\w)rtn[\s:/-]+{re.escape(each)}(?![\w-])"
        assert any(re.search(place, text, re.IGNORECASE) for text in remarks), each


@given(
    st.integers(0, 10**38 - 1), st.integers(-40, 40), st.sampled_from("eE"), st.booleans(),
    st.sampled_from(["", "+", "0", "+00"]),
)  # fmt: skip
def test_a_number_with_an_exponent_is_its_value_or_beyond_the_bounds(
    digits: int, exponent: int, letter: str, negative: bool, padding: str
) -> None:
    scale = f"{padding}{exponent}" if exponent >= 0 else str(exponent)
    lexeme = f"{'-' if negative else ''}{digits}{letter}{scale}"
    value = Decimal(f"{digits}e{exponent}").copy_sign(Decimal(-1 if negative else 1)) or Decimal(0)
    whole, _, fraction = plain(value).lstrip("-").partition(".")
    expected: Any = value
    if len(whole) > 20 or len(fraction) > 18:
        expected = "bad_x"
    read = asked(as_money, "x", parse(b'{"x": %s}' % lexeme.encode())["x"])
    assert (read[0] if isinstance(read, tuple) else read) == expected
    assert asked(as_money, "x", lexeme)[0] == "bad_x"


OFFSETS = st.integers(-14 * 60, 14 * 60)


@given(
    st.datetimes(datetime(1970, 1, 1), datetime(2199, 1, 1)), OFFSETS, st.booleans(), st.booleans()
)  # fmt: skip
def test_a_time_is_the_same_instant_in_every_zone_and_spelling(
    moment: datetime, offset: int, is_lower: bool, is_leap: bool
) -> None:
    if is_leap:
        moment = moment.replace(second=59)
    local = moment + timedelta(minutes=offset)
    sign, minutes = "-" if offset < 0 else "+", abs(offset)
    text = local.isoformat() + f"{sign}{minutes // 60:02}:{minutes % 60:02}"
    instant = moment.replace(tzinfo=UTC)
    if not offset:
        text = local.isoformat() + "Z"
    if is_leap:
        text, instant = text.replace(":59", ":60", 1), instant + timedelta(seconds=1)
        assume(local.minute != 59)
    assert as_instant("x", text.lower() if is_lower else text) == instant


FORM_TEXTS = st.text(
    st.characters(exclude_categories=("Cs",), exclude_characters="\x00"), max_size=20
)
FORM_NAMES = FORM_TEXTS.filter(lambda name: name != "" and not {"[", "]"} & {*name})


@given(st.dictionaries(FORM_NAMES, FORM_TEXTS, min_size=1, max_size=8), st.booleans())
def test_a_form_is_the_fields_that_were_encoded(fields: dict[str, str], with_plus: bool) -> None:
    encode = quote_plus if with_plus else quote
    pairs = [f"{encode(name, safe='')}={encode(value, safe='')}" for name, value in fields.items()]
    body = "&".join(pairs).encode()
    assert is_form(body)
    stated = {name: value or None for name, value in fields.items()}
    assert parse_body(body) == stated
    assert parse_body(b"&".join([body, body])) == stated


@given(st.dictionaries(KEYS, LEAVES.filter(lambda leaf: not isinstance(leaf, Number))))
def test_json_is_read_as_json_and_never_as_a_form(fields: dict[str, Any]) -> None:
    body = json.dumps(fields).encode()
    assert not is_form(body)
    assert parse_body(body) == parse(body)
