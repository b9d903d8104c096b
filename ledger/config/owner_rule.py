"""The setting `owner_of` of a source: how its payouts name their customer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from ledger.config.owner_expression import check_expression
from ledger.model import OwnerRule

FIELDS: Final = ("idempotency_id", "external_reference", "payout_invoice_id")
"""The texts of a payout that its sender chooses."""
MATCH_CHARS_MAX: Final = 200
EXAMPLE: Final = '{ field = "idempotency_id", match = "^cust-(.+)-[0-9]+$" }'


def read_owner_rule(table: Mapping[str, Any]) -> OwnerRule:
    """Read the table `owner_of`. Raises ValueError, which says what to write instead."""
    if set(table) != {"field", "match"}:
        raise ValueError(f"owner_of takes a field and a match, as {EXAMPLE}")
    name, expression = table["field"], table["match"]
    if name not in FIELDS:
        raise ValueError(f"owner_of.field = {name!r} is none of {', '.join(FIELDS)}")
    if not isinstance(expression, str) or not 0 < len(expression) <= MATCH_CHARS_MAX:
        raise ValueError(
            f"owner_of.match is no text of 1 to {MATCH_CHARS_MAX} characters; write an expression, "
            f"as {EXAMPLE}"
        )
    try:
        groups = re.compile(expression).groups
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(
            f"owner_of.match = {expression!r} is no regular expression: {error}; write one as "
            "Python's re module reads it"
        ) from error
    if groups != 1:
        raise ValueError(
            f"owner_of.match = {expression!r} has {groups} groups; put exactly one around the "
            "customer's id, and write (?:...) for any other"
        )
    try:
        check_expression(expression)
    except ValueError as error:
        raise ValueError(f"owner_of.match = {expression!r} {error}") from error
    return OwnerRule(name, expression)
