"""As-of for what belongs to customers: lists of their accounts, limits and requests as they were.

A stream shows the customer that was named last, so the streams of a customer are looked for among
all that ever named it. The key of limits and limit requests has their customer: it never changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from ledger.queries.as_of.snapshot import page, rows_then
from ledger.queries.as_of.views import StreamRows
from ledger.queries.params import QueryParams
from ledger.queries.schemas.money import (
    BankAccount,
    BankAccounts,
    Limit,
    LimitRequest,
    LimitRequests,
    Limits,
    Rfi,
    Rfis,
    Schema,
    VirtualAccount,
    VirtualAccounts,
    from_row,
)
from ledger.queries.snapshot import DatabaseRow, Snapshot
from ledger.queries.views import table_lists

# $1 source, $2 rows, $3 $4 the key, $5 customer, $6 position, $7 kind
SELECT_NAMED_THEN: Final = """
SELECT DISTINCT kind, id FROM named_customers
 WHERE source = $1 AND ($3::text IS NULL OR (kind, id) > ($3, $4::text))
   AND customer_id = $5 AND hashtextextended(customer_id, 0) = hashtextextended($5, 0)
   AND position <= $6 AND kind = $7
 ORDER BY kind, id LIMIT $2
"""
# As above; there is no $7.
SELECT_LIMITS_THEN: Final = """
SELECT kind, id FROM limits
 WHERE source = $1 AND ($3::text IS NULL OR (kind, id) > ($3, $4::text))
   AND customer_id = $5 AND hashtextextended(customer_id, 0) = hashtextextended($5, 0)
   AND first_position <= $6
 ORDER BY kind, id LIMIT $2
"""
SELECT_LIMIT_REQUESTS_THEN: Final = """
SELECT kind, id FROM limit_requests
 WHERE source = $1 AND ($3::text IS NULL OR (kind, id) > ($3, $4::text))
   AND customer_id = $5 AND first_position <= $6
 ORDER BY kind, id LIMIT $2
"""


@dataclass(frozen=True, slots=True)
class StreamList:
    """A list of a table with one row per stream, each of which belongs to a customer."""

    table: str
    """Its name, which the list and its field in the answer have too."""
    row: type[Schema]
    answer: type[Schema]
    of_customer: str
    """The statement that finds the streams of one customer."""
    kind: str | None = None
    """The kind that the statement takes; None when it takes none."""
    status: str | None = "status"
    """The column by which the list is filtered."""

    async def read(self, snapshot: Snapshot, params: QueryParams) -> Any:
        """Read one page of the rows as they were; filters are about the rows of then."""
        customer = params.text("customer_id")
        status = None if self.status is None else params.text(self.status)

        async def candidates(
            source: str, count: int, start: Sequence[Any]
        ) -> Sequence[DatabaseRow]:
            if customer is None:
                statement = StreamRows(table_lists()[self.table]).candidates
                rows = await snapshot.rows(statement, source, count, *start, None, None)
            else:
                more = () if self.kind is None else (self.kind,)
                place = snapshot.places[source].books
                rows = await snapshot.rows(
                    self.of_customer, source, count, *start, customer, place, *more
                )
            return rows

        async def evaluate(
            source: str, keys: Sequence[DatabaseRow]
        ) -> Sequence[DatabaseRow | None]:
            made = await rows_then(snapshot, source, [(key["kind"], key["id"]) for key in keys])
            return [row if row is not None and is_listed(row) else None for row in made]

        def is_listed(row: DatabaseRow) -> bool:
            return customer in (None, row["customer_id"]) and (
                status is None or row[self.status or ""] == status
            )

        key = {"kind": str, "id": str}
        rows, following = await page(snapshot, params, key, candidates, evaluate)
        answer: Any = self.answer
        return answer(
            **{self.table: [from_row(self.row, row) for row in rows]},
            next=following,
            position=snapshot.position,
            as_of=snapshot.as_of,
        )


bank_accounts: Final = StreamList(
    "bank_accounts",
    BankAccount,
    BankAccounts,
    SELECT_NAMED_THEN,
    kind="bank_account",
    status="verification_status",
).read
virtual_accounts: Final = StreamList(
    "virtual_accounts", VirtualAccount, VirtualAccounts, SELECT_NAMED_THEN, kind="virtual_account"
).read
limits: Final = StreamList("limits", Limit, Limits, SELECT_LIMITS_THEN, status=None).read
limit_requests: Final = StreamList(
    "limit_requests", LimitRequest, LimitRequests, SELECT_LIMIT_REQUESTS_THEN
).read
rfi: Final = StreamList("rfi", Rfi, Rfis, SELECT_NAMED_THEN, kind="rfi").read
