"""Checking what an operator decides about whose a transaction is."""

from __future__ import annotations

from typing import Any, Final

from ledger import registry
from ledger.errors import Conflicting, InvalidRequest
from ledger.model import ATTRIBUTE
from ledger.queries.snapshot import Snapshot
from ledger.queries.transactions import kind_of

SELECT_ATTRIBUTED: Final = """
SELECT customer_id FROM decisions
 WHERE source = $1 AND kind = $2 AND id = $3 AND hashtextextended(id, 0) = hashtextextended($3, 0)
   AND action = $4
 ORDER BY position DESC LIMIT 1
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
        raise Conflicting(
            f"no decision attributes {found} {id_}, so there is none to undo"
            if decided is None
            else f"{found} {id_} is attributed to customer {decided} already"
        )
    return {"action": ATTRIBUTE, "kind": found, "resource": id_, "customer_id": customer_id}
