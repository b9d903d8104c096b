"""Law: a question is checked whole; nothing in it is guessed or ignored."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from ledger.api.routes import all_routes
from ledger.errors import InvalidRequest
from ledger.queries.as_of.refold import requested_positions
from ledger.queries.params import (
    AsOfParams,
    QueryParams,
    Route,
    after,
    decode_body,
    parse_params,
    write_cursor,
)
from ledger.queries.schemas.log import Attribution

BY_PATH = {route.path: route for route in all_routes()}
TRANSACTIONS = BY_PATH["/v1/transactions"]
EVENTS = BY_PATH["/v1/events"]
EVENT = BY_PATH["/v1/events/{source}/{position}"]


def asked(route: Route = TRANSACTIONS, **query: Any) -> QueryParams:
    """Ask with these query parameters; `from_` is `from`."""
    return parse_params(
        route, {}, [(name.rstrip("_"), str(value)) for name, value in query.items()]
    )


def cursor_of(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode()


def test_an_unknown_parameter_is_refused_and_the_allowed_ones_are_named() -> None:
    with pytest.raises(InvalidRequest, match=r"unknown parameter 'stat'.*customer_id.*status"):
        asked(stat="pending")


def test_a_parameter_given_twice_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="status is given more than once"):
        parse_params(TRANSACTIONS, {}, [("status", "pending"), ("status", "completed")])


@pytest.mark.parametrize("value", ["", "a\x00b", "x" * 577])
def test_a_text_that_no_callback_could_carry_is_refused(value: str) -> None:
    with pytest.raises(InvalidRequest, match="customer_id"):
        asked(customer_id=value)


@pytest.mark.parametrize("value", ["0", "1001", "-1", "ten", "1.0", "", "٣", "9" * 40])
def test_a_limit_outside_1_to_1000_is_refused(value: str) -> None:
    with pytest.raises(InvalidRequest, match="limit must be a number from 1 to 1000"):
        asked(limit=value)


def test_the_limit_is_100_unless_asked_otherwise() -> None:
    assert asked().limit == 100
    assert asked(limit=1000).limit == 1000


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2024-03-31T00:00:00Z", datetime(2024, 3, 31, tzinfo=UTC)),
        ("2024-03-31T08:00:00+08:00", datetime(2024, 3, 31, tzinfo=UTC)),
        ("2024-03-31T08:00:00.5 08:00", datetime(2024, 3, 31, 0, 0, 0, 500_000, tzinfo=UTC)),
    ],
)
def test_a_time_is_read_in_utc_even_when_its_plus_was_not_encoded(
    text: str, moment: datetime
) -> None:
    assert asked(from_=text).time("from") == moment


@pytest.mark.parametrize(
    "text", ["2024-03-31", "2024-03-31T00:00:00", "yesterday", "", "0001-01-01T00:00:00+23:00"]
)
def test_a_time_without_zone_or_out_of_range_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="from"):
        asked(from_=text)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/wallets",
        "/v1/balances",
        "/v1/entries",
        "/v1/transactions",
        "/v1/transactions/{source}/{id}",
        "/v1/customers",
        "/v1/customers/{source}/{id}",
    ],
)
def test_an_as_of_is_read_wherever_it_is_taken(path: str) -> None:
    moment = "2024-03-31T08:00:00+08:00"
    found = asked(BY_PATH[path], effective_at=moment, recorded_at=moment, position="25").as_of
    assert found == AsOfParams(
        datetime(2024, 3, 31, tzinfo=UTC), datetime(2024, 3, 31, tzinfo=UTC), 25
    )
    assert asked(BY_PATH[path]).as_of is None


def test_an_as_of_names_the_positions_of_several_sources() -> None:
    found = asked(position="straitsx:25,gokart:3").as_of
    assert found == AsOfParams(positions={"straitsx": 25, "gokart": 3})
    assert requested_positions(found, {"gokart": 3, "straitsx": 30}) == {
        "straitsx": 25,
        "gokart": 3,
    }


def test_a_bare_position_is_about_one_source() -> None:
    found = AsOfParams(position=25)
    assert requested_positions(found, {"straitsx": 30}) == {"straitsx": 25}
    with pytest.raises(InvalidRequest, match="add source=, or write gokart:25,straitsx:25"):
        requested_positions(found, {"gokart": 3, "straitsx": 30})


def test_a_log_of_statements_does_not_make_a_bare_position_vague() -> None:
    found = AsOfParams(position=25)
    assert requested_positions(found, {"straitsx": 30, "straitsx.statements": 4}) == {
        "straitsx": 25
    }
    assert requested_positions(found, {"straitsx.statements": 4}) == {"straitsx.statements": 25}
    with pytest.raises(InvalidRequest, match=r"write gokart:25,straitsx:25$"):
        requested_positions(found, {"gokart": 3, "straitsx": 30, "straitsx.statements": 4})


def test_a_source_without_events_does_not_make_a_bare_position_vague() -> None:
    found = AsOfParams(position=25)
    assert requested_positions(found, {"gokart": 0, "straitsx": 30}) == {"straitsx": 25}
    assert requested_positions(found, {"gokart": 0}) == {"gokart": 25}
    with pytest.raises(InvalidRequest, match=r"write gokart:25,straitsx:25$"):
        requested_positions(found, {"gokart": 0, "straitsx": 0})


def test_a_position_of_a_source_that_is_not_asked_about_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="position names gokart"):
        requested_positions(AsOfParams(positions={"gokart": 3}), ["straitsx"])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"customer_id": " "}, "Expected `str` that is not blank and has no NUL character"),
        ({"customer_id": "a\0"}, "Expected `str` that is not blank and has no NUL character"),
        ({"note": "a\0"}, "Expected `str` without the NUL character"),
    ],
)
def test_a_body_with_a_text_of_another_pattern_is_refused_in_words(
    changes: dict[str, str], words: str
) -> None:
    raw = orjson.dumps({"customer_id": "c", "note": "n", **changes})
    with pytest.raises(InvalidRequest) as caught:
        decode_body(raw, Attribution, "the decision")
    (name,) = changes
    assert str(caught.value) == f"the decision cannot be read: {words} - at `$.{name}`"


def test_currencies_are_asked_for_in_any_case() -> None:
    assert asked(currency="xsgd").text("currency") == "XSGD"


def test_a_choice_outside_its_list_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="verdict must be one of: accepted, quarantined"):
        asked(EVENTS, verdict="fine")


@pytest.mark.parametrize("position", ["x", "-1", "1.5", "9" * 20, "99999999999999999999"])
def test_a_position_is_digits_that_fit_the_log(position: str) -> None:
    with pytest.raises(InvalidRequest, match="position must be a log position"):
        parse_params(EVENT, {"source": "straitsx", "position": position}, [])


def test_at_least_names_a_position_per_source() -> None:
    assert asked(at_least="straitsx:25, gokart:3").at_least == {"straitsx": 25, "gokart": 3}


@pytest.mark.parametrize(
    "text",
    ["", "straitsx", "straitsx:", "straitsx:x", ":3", "straitsx:1,straitsx:2", "S:1", "a:1,"],
)
def test_a_malformed_barrier_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="at_least"):
        asked(at_least=text)


def test_a_cursor_comes_back_as_it_was_written() -> None:
    assert asked(cursor=write_cursor(["straitsx", 7])).cursor == ("straitsx", 7)


@pytest.mark.parametrize(
    "cursor",
    [
        "!",
        "x",
        cursor_of(b"not json"),
        cursor_of(b"{}"),
        cursor_of(b"[]"),
        cursor_of(b"[1]"),
        cursor_of(b'["straitsx",1.5]'),
        cursor_of(b'["straitsx",true]'),
        cursor_of(b'["straitsx",null]'),
        cursor_of(b'["straitsx",99999999999999999999]'),
        cursor_of(b'["straitsx","\\u0000"]'),
        "A" * 5000,
    ],
)
def test_a_cursor_that_was_never_given_is_refused(cursor: str) -> None:
    with pytest.raises(InvalidRequest, match="cursor"):
        asked(cursor=cursor)


def test_a_cursor_of_another_address_is_refused() -> None:
    params = asked(cursor=write_cursor(["straitsx", "kind", "id"]))
    with pytest.raises(InvalidRequest, match="another address"):
        after(params, "straitsx", (int,))


def test_a_cursor_starts_within_its_source_and_the_next_source_from_its_beginning() -> None:
    params = asked(cursor=write_cursor(["gokart", 7]))
    assert after(params, "gokart", (int,)) == [7]
    assert after(params, "straitsx", (int,)) == [None]
