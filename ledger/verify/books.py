"""Verifying the books: the journal balances, balances are its sums, and all is a fold of the log.

The log is folded once more into a generation of its own, in bulk as far as the live books are and
then by the ordinary fold up to a position of theirs; both are compared in one snapshot.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from ledger.books import store as books
from ledger.errors import Tampered

SELECT_UNBALANCED: Final = """
SELECT position, currency, trim_scale(sum(amount))::text AS off FROM entries WHERE source = $1
 GROUP BY position, currency HAVING sum(amount) <> 0 ORDER BY position, currency LIMIT 1
"""
SELECT_WRONG_BALANCE: Final = """
SELECT account, currency, trim_scale(b.debits - b.credits)::text AS told,
       trim_scale(e.amount)::text AS summed
  FROM (SELECT * FROM balances WHERE source = $1) AS b
  FULL JOIN (SELECT account, currency, sum(amount) AS amount FROM entries WHERE source = $1
              GROUP BY account, currency) AS e USING (account, currency)
 WHERE coalesce(b.debits - b.credits, 0) <> coalesce(e.amount, 0)
 ORDER BY account, currency LIMIT 1
"""
SELECT_COUNTS: Final = """
SELECT (SELECT count(*) FROM entries WHERE source = $1) AS entries,
       (SELECT count(*) FROM parked WHERE source = $1) AS parked
"""


@dataclass(frozen=True, slots=True)
class Balanced:
    """What was found true of a source's journal."""

    position: int
    entries: int
    parked: int


async def check_journal(connection: Any, source: str, generation: int, head: int) -> Balanced:
    """Check that the journal balances at every position and that balances are its sums.

    Raises Tampered.
    """
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        await _use(connection, generation)
        position = int(await connection.fetchval(books.SELECT_CHECKPOINT, source) or 0)
        if position > head:
            told = f"the books are at {position}, but the log ends at {head}"
            raise Tampered("books", head + 1, told)
        row = await connection.fetchrow(SELECT_UNBALANCED, source)
        if row is not None:
            told = f"the entries of event {row['position']} are off by {row['off']} "
            raise Tampered("journal", row["position"], told + row["currency"])
        row = await connection.fetchrow(SELECT_WRONG_BALANCE, source)
        if row is not None:
            told = (
                f"the balance of {row['account']} is {row['told'] or 'missing'} "
                f"{row['currency']}, its entries add up to {row['summed'] or 'none'}"
            )
            raise Tampered("balances", None, told)
        counts = await connection.fetchrow(SELECT_COUNTS, source)
        return Balanced(position, counts["entries"], counts["parked"])


async def _use(connection: Any, generation: int) -> None:
    await connection.execute(f"SET LOCAL search_path = {books.schema_of(generation)}, ledger")
