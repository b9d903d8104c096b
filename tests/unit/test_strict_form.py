"""URL-encoded forms: what is read of them, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from ledger import registry
from ledger.errors import InvalidCallback, MalformedBody
from ledger.fold.translate import translate
from ledger.model import SourceTerms, plain
from ledger.registry import ParsedCallback
from ledger.strict_form import FIELDS_MAX, is_form, parse_body
from tests.samples import STRAITSX, body, utc

PAYOUT = b"type=Withdrawal+on+behalf&id=c1&status=completed&amount=1.5&currency=xsgd"


def read(form: bytes) -> ParsedCallback:
    return registry.load().read("straitsx", None, form)


def stated(form: bytes, reason: str | None = None, terms: SourceTerms = STRAITSX) -> Any:
    """Return the fact of an event that is stored with a reason, or its issue's reason."""
    row = dict.fromkeys(("path_event", "detail")) | {
        "position": 1, "event_id": b"1", "kind": "unreadable", "resource_id": "", "status": "",
        "origin": "callback", "reason": reason, "body": form,
        "received_at": utc("2026-04-01T00:00:00"), "recorded_at": utc("2026-04-01T00:00:00"),
    }  # fmt: skip
    event = translate(registry.load().dispatch, terms, row, lambda *_: None)
    return event.fact or (event.issue and event.issue.reason)


def test_a_form_is_fields_of_texts() -> None:
    form = b"a=1+2&b_c=%C3%A9%2B%26%3d&empty=&name%20x=y"
    assert parse_body(form) == {"a": "1 2", "b_c": "\u00e9+&=", "empty": None, "name x": "y"}
    assert parse_body(b"a=1=2&a=1%3D2") == {"a": "1=2"}


@pytest.mark.parametrize(
    "text",
    [
        b"{}",
        b'\xef\xbb\xbf{"a":"b=c"}',
        b"\xff\xfe{=",
        b"\x01a=b",
        b' {"a": "b=c"}',
        b"[1]",
        b'"a=b"',
        b"1",
        b"null",
        b"",
        b"=a",
        b"a",
        b" a=b",
    ],
)
def test_json_is_no_form(text: bytes) -> None:
    assert not is_form(text)


@pytest.mark.parametrize(
    ("form", "detail"),
    [
        (b"a=%ff", "a field of the form is not UTF-8"),
        (b"a=%c3%28", "a field of the form is not UTF-8"),
        (b"%ff=a", "a field of the form is not UTF-8"),
        (b"a=%ed%a0%80", "a field of the form is not UTF-8"),
        (b"a=\xff", "a field of the form is not UTF-8"),
        (b"a=%", "a % in the form is not followed by two hexadecimal digits"),
        (b"a=%2", "a % in the form is not followed by two hexadecimal digits"),
        (b"a=%zz", "a % in the form is not followed by two hexadecimal digits"),
        (b"a=1&b", "a field of the form is no name, = and value"),
        (b"a=1&", "a field of the form is no name, = and value"),
        (b"a=1&=2", "a field of the form is no name, = and value"),
        (b"a=%00", "a text holds the NUL character"),
        (b"a=1&" * FIELDS_MAX + b"a=1", f"the form has more than {FIELDS_MAX} fields"),
    ],
)
def test_a_form_that_is_not_plainly_one_is_unreadable(form: bytes, detail: str) -> None:
    with pytest.raises(MalformedBody) as refused:
        parse_body(form)
    assert str(refused.value) == detail
    assert (read(form).reason, read(form).detail) == ("unreadable", detail)
    assert stated(form, "unsupported_encoding") == "unreadable"


@pytest.mark.parametrize("name", ["fees", "failure_reason", "customer_profile_id", "updated_at"])
def test_an_empty_field_of_a_form_is_null(name: str) -> None:
    whole = stated(PAYOUT + b"&fees=0.5&failure_reason=x&customer_profile_id=c&external_reference=")
    empty = PAYOUT.replace(b"&id=", f"&{name}=&id=".encode())
    assert stated(empty) == stated(PAYOUT) != whole
    assert (whole.details["external_reference"], whole.customer_id) == (None, "c")


@pytest.mark.parametrize(
    ("name", "reason"),
    [("amount", "missing_amount"), ("currency", "missing_currency"), ("id", "missing_id"),
     ("status", "missing_status"), ("type", "unsupported_encoding")],
)  # fmt: skip
def test_a_field_that_must_be_there_is_missing_where_it_is_empty(name: str, reason: str) -> None:
    given = dict(pair.split(b"=") for pair in PAYOUT.split(b"&")) | {name.encode(): b""}
    assert stated(b"&".join(b"%s=%s" % pair for pair in given.items())) == reason


def test_json_with_a_byte_order_mark_is_no_query_string() -> None:
    parsed = read(b'\xef\xbb\xbf{"a":"b=c"}')
    assert parsed.reason == "unreadable"
    assert "byte order mark" in (parsed.detail or "")


def test_a_pending_payout_in_a_form_whose_fees_are_not_known_yet() -> None:
    fact = stated(body("more/straitsx/payout-pending.form"))
    assert (fact.status, fact.fees, plain(fact.amount)) == ("pending", None, "40.5")


def test_a_field_with_two_values_cannot_be_true() -> None:
    for form in (PAYOUT + b"&amount=1.6", PAYOUT + b"&status=", PAYOUT + b"&%73tatus=failed"):
        with pytest.raises(InvalidCallback):
            parse_body(form)
        assert (read(form).reason, stated(form)) == ("two_values", "two_values")
    assert stated(PAYOUT + b"&amount=1.60&Amount=2&amount=1.60") == "two_values"
    assert stated(PAYOUT + b"&amount=1.5").status == "completed"


@pytest.mark.parametrize(
    "form",
    [
        PAYOUT + b"&sender[name]=x",
        PAYOUT + b"&sender%5Bname%5D=x",
        b"data[type]=Withdrawal+on+behalf&data[id]=1",
        b"id=contract_1&status=completed&amount=10.0",
        b"type=payout&amount=1000000",
        b"type=&id=1",
        b"payload=%7B%22id%22%3A1%7D",
    ],
)
def test_a_form_that_is_no_flat_documented_shape_stays_unsupported(form: bytes) -> None:
    assert read(form).reason == "unsupported_encoding"
    for reason in (None, "unsupported_encoding"):
        assert stated(form, reason) == "unsupported_encoding"
    assert registry.load().read("gokart", None, PAYOUT).reason == "unsupported_encoding"


@pytest.mark.parametrize("form", [b"type=odd&id=1", PAYOUT + b"&a[b]=1"])
def test_the_advice_about_a_form_guesses_nothing(form: bytes) -> None:
    assert read(form).detail == (
        "this is not the flat form of a documented callback; where the account sends another "
        "form, choose JSON as its callback format"
    )


def test_a_payout_in_a_form_has_the_envelope_of_the_json_shape() -> None:
    parsed = read(body("more/straitsx/payout-completed.form"))
    envelope = parsed.envelope
    assert (parsed.reason, envelope.kind, envelope.status, envelope.tail) == (
        None, "payout", "completed", "completed",
    )  # fmt: skip
    assert envelope.idempotency_id == "payout-form-0001"


def test_a_form_that_the_log_keeps_as_unsupported_is_understood_now() -> None:
    form = body("more/straitsx/payout-completed.form")
    assert stated(form, "unsupported_encoding") == stated(form)
    assert stated(form).amount == stated(PAYOUT).amount * 27
    assert stated(b"<xml/>", "unsupported_encoding") == "unsupported_encoding"
