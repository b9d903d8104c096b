"""The manifest of a pack says by which terms its events are folded."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from ledger.errors import Tampered
from ledger.export.pack_manifest import about, describe, read_about
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
        {"owner_of": {"field": "amount", "match": "(x)"}},
        {"owner_of": {"field": "external_reference"}},
        {"date_by": "month"},
    ],
)
def test_a_pack_whose_terms_no_settings_could_have_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(Tampered):
        read_about(member(**changes))
