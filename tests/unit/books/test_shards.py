"""Law: statements look entries up by the same shards as the index of entries by account has."""

from __future__ import annotations

from ledger.books import balance_index
from ledger.books.balance_index import SHARD_BITS
from ledger.queries import money
from ledger.queries.as_of import money as as_of_money
from ledger.reconciliation import loader
from projections.entries import PROJECTION

SHARD = f"position >> {SHARD_BITS} << 32) + hashtext("


def test_the_index_of_entries_by_account_has_the_shards_of_every_statement() -> None:
    assert SHARD in PROJECTION.table.indexes[0]
    for statement in (
        balance_index.INSERT_BLOCK,
        balance_index.INSERT_EARLIER_BLOCKS,
        balance_index.SELECT_BLOCK_SUMS,
        balance_index.SELECT_PLAIN_SUMS,
        money.SELECT_LINES,
        as_of_money.SELECT_LINES_THEN,
        loader.SELECT_MOVEMENTS,
    ):
        assert SHARD in statement
