"""Checking what an operator decides about whose a transaction is."""

from __future__ import annotations

from typing import Any, Final

from ledger import registry
from ledger.errors import Conflicting, InvalidRequest
from ledger.model import ATTRIBUTE
from ledger.queries.snapshot import DatabaseRow, Snapshot
from ledger.queries.transactions import kind_of

SELECT_ATTRIBUTED: Final = """
SELECT d.customer_id, d.position,
       EXISTS (SELECT FROM parked AS p
                WHERE p.source = $1 AND p.kind = $2 AND p.resource_id = $3
                  AND hashtextextended(p.resource_id, 0) = hashtextextended($3, 0)
                  AND p.position < d.position) AS waits
  FROM decisions AS d
 WHERE d.source = $1 AND d.kind = $2 AND d.id = $3
   AND hashtextextended(d.id, 0) = hashtextextended($3, 0) AND d.action = $4
 ORDER BY d.position DESC LIMIT 1
"""


async def prepare_attribution(
    snapshot: Snapshot, source: str, id_: str, kind: str | None, customer_id: str | None
) -> dict[str, Any]:
    """Check an attribution against its transaction; return the details of its event.

    Raises NotFound, InvalidRequest for a transaction that belongs to no customer, and Conflicting
    when several kinds share the id and none is named, or when it is decided so already.
    """
    found = await kind_of(snapshot, source, id_, kind)
    if registry.load().streams[found].decide is None:
        raise InvalidRequest(f"a {found} belongs to no customer, so none can be named")
    latest = await snapshot.row(SELECT_ATTRIBUTED, source, found, id_, ATTRIBUTE)
    decided = latest["customer_id"] if latest else None
    if decided == customer_id:
        raise Conflicting(_refusal(found, id_, latest))
    return {"action": ATTRIBUTE, "kind": found, "resource": id_, "customer_id": customer_id}


def _refusal(kind: str, id_: str, latest: DatabaseRow | None) -> str:
    """Say why a decision would change nothing; `latest` is the last one on the transaction."""
    if latest is None or latest["customer_id"] is None:
        return f"no decision attributes {kind} {id_}, so there is none to undo"
    customer, position = latest["customer_id"], latest["position"]
    if latest["waits"]:
        return (
            f"the decision at position {position} attributes {kind} {id_} to customer {customer}; "
            "it waits, because an event of the transaction is parked: retry that exception, and "
            "it applies"
        )
    return f"{kind} {id_} is attributed to customer {customer} already"
