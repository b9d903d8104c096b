"""Law: a payload answers as the rules of its envelopes and casings say."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ledger import payload
from ledger.errors import InvalidCallback
from ledger.model import Number, Payload, as_note, as_text, inside
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
