"""The part of the query API's table by which operators act on reconciliations."""

from __future__ import annotations

from typing import Final

from ledger.api import endpoints_decisions as endpoints
from ledger.queries.params import Route
from ledger.queries.schemas import reconciliation as schemas
from ledger.queries.schemas.log import Resolution

DECIDE: Final = Route(
    "/v1/breaks/{id}/decide",
    "Decide on a break",
    "reconciliation",
    Resolution,
    endpoints.decide_break,
    is_list=False,
    method="POST",
    takes=schemas.BreakDecision,
    about="The decision is an event of the source's log; it posts what the action says.",
)
DECISIONS: Final = (DECIDE,)
