"""The manifest of a pack says by which terms its events are folded."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest

from ledger.errors import Tampered
from ledger.export.pack_manifest import about, about_text, changed_fields, describe, read_about
from ledger.model import OwnerRule, SourceTerms

RULE = OwnerRule("external_reference", "^cust-(.+)$")
TERMS = SourceTerms("straitsx", "straitsx", "USD", {"payout.sgd": "XSGD"}, RULE, "receipt")


def member(**changes: Any) -> bytes:
    """Return a manifest with one source, whose keys are changed; those that are None, left out."""
    content = orjson.loads(about("v", [describe(TERMS, 3, 3)]))
    source = {**content["sources"][0], **changes}
    kept = {key: value for key, value in source.items() if key not in changes or value is not None}
    return orjson.dumps({**content, "sources": [kept]})


def test_a_manifest_has_every_term_of_a_source() -> None:
    (source,) = read_about(about("v", [describe(TERMS, 3, 3)])).sources
    assert source.terms == TERMS


def test_a_pack_of_a_version_without_rules_is_folded_without_them() -> None:
    (source,) = read_about(member(owner_of=None, date_by=None)).sources
    assert source.terms == SourceTerms("straitsx", "straitsx", "USD", {"payout.sgd": "XSGD"})


@pytest.mark.parametrize(
    "changes",
    [
        {"owner_of": {"field": "external_reference", "match": "(x"}},
        {"owner_of": {"field": "external_reference", "match": "x" * 500}},
        {"owner_of": {"field": "external_reference", "match": "^(?:x+)+(y)$"}},
        {"owner_of": {"field": "amount", "match": "(x)"}},
        {"owner_of": {"field": "external_reference"}},
        {"date_by": "month"},
    ],
)
def test_a_pack_whose_terms_no_settings_could_have_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(Tampered):
        read_about(member(**changes))


@pytest.mark.parametrize("sign", "\u2028\u2029\u0085\x0b\x0c\x1c\x1d\x1e\r\n")
def test_any_sign_in_a_field_is_signed_and_a_change_of_it_is_named(sign: str) -> None:
    terms = replace(TERMS, owner_of=OwnerRule("external_reference", f"^x{sign}(.+)$"))
    other = replace(TERMS, wallets={f"payout.sgd{sign}": "XSGD"})
    for each in (terms, other):
        data = about("v", [describe(each, 3, 3)])
        assert changed_fields(data, about_text(data)) == []
    changed = changed_fields(
        about("v", [describe(terms, 3, 3)]), about_text(about("v", [describe(other, 3, 3)]))
    )
    assert [change.partition(" ")[0] for change in changed] == [
        "sources[0].wallets", "sources[0].owner_of",
    ]  # fmt: skip


@pytest.mark.parametrize("line", ["", "word", " ", "format", "x y\nformat"])
def test_a_signed_text_with_other_lines_differs(line: str) -> None:
    data = about("v", [describe(TERMS, 3, 3)])
    assert changed_fields(data, about_text(data) + line + "\n")


@pytest.mark.parametrize("data", [b"[" * 900 + b"]" * 900, b'{"x":' * 900 + b"1" + b"}" * 900])
def test_a_manifest_that_no_program_writes_is_refused(data: bytes) -> None:
    text = about_text(about("v", [describe(TERMS, 3, 3)]))
    with pytest.raises(Tampered):
        changed_fields(data, text)
    with pytest.raises(Tampered):
        read_about(data)
