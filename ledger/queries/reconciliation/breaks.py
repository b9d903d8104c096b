"""Reading breaks, with both sides and what was decided, and matches."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any, Final, TypeAlias
from urllib.parse import quote

import msgspec
from msgspec.structs import replace as replace_fields

from ledger.config.reconciliation import Rules
from ledger.errors import Conflicting, InvalidRequest, NotFound
from ledger.payload import plain
from ledger.queries.params import QueryParams, marked_after, write_cursor
from ledger.queries.reconciliation.items import read_items, read_steps
from ledger.queries.schemas.money import from_row
from ledger.queries.schemas.reconciliation import (
    BreakAnswer,
    BreakDetail,
    Breaks,
    BreakTotal,
    BreakTypeTotal,
    CandidateAnswer,
    MatchAnswer,
    Matches,
    ReconciledTransaction,
    RuleSum,
    RuleTotal,
)
from ledger.queries.snapshot import DatabaseRow, Listing, Snapshot, group_rows

AMOUNT: Final = re.compile(r"\d{1,60}(\.\d{1,60})?", re.ASCII)


def _selected(first: int) -> str:
    """Return the conditions of a list of breaks; `first` is the number of its first parameter."""
    n = range(first, first + 10)
    return f"""
   AND (${n[0]}::text[] IS NULL OR currency = ANY (${n[0]}))
   AND (${n[1]}::text[] IS NULL OR type = ANY (${n[1]}))
   AND (${n[2]}::text IS NULL OR state = ${n[2]})
   AND (${n[3]}::text IS NULL OR owner = ${n[3]})
   AND (${n[4]}::text IS NULL OR bucket = ${n[4]})
   AND (${n[5]}::text IS NULL OR id = ${n[5]})
   AND (${n[6]}::timestamptz IS NULL OR at >= ${n[6]})
   AND (${n[7]}::timestamptz IS NULL OR at < ${n[7]})
   AND (${n[8]}::numeric IS NULL OR abs(gap) >= ${n[8]})
   AND (${n[9]}::numeric IS NULL OR abs(gap) <= ${n[9]})
"""


COLUMNS: Final = """
SELECT id, source, currency, type, state, anchor, rule, items, difference, gap, at, age_days,
       bucket, owner, detail, action, decided_by, decided_at, note, candidates::text AS candidates,
       abs(gap)::text AS size
  FROM ledger.recon_breaks"""
# All take: $1 source, $2 rows, then the key of the last row seen, then the filters.
SELECT_BREAKS: Final = f"""{COLUMNS}
 WHERE source = $1 AND ($3::text IS NULL OR id > $3) {_selected(4)}
 ORDER BY id LIMIT $2
"""
SELECT_SMALLEST: Final = f"""{COLUMNS}
 WHERE source = $1 AND ($3::text IS NULL OR (abs(gap), id) > ($3::text::numeric, $4::text))
 {_selected(5)} ORDER BY abs(gap), id LIMIT $2
"""
SELECT_LARGEST: Final = f"""{COLUMNS}
 WHERE source = $1 AND ($3::text IS NULL OR (abs(gap), id) < ($3::text::numeric, $4::text))
 {_selected(5)} ORDER BY abs(gap) DESC, id DESC LIMIT $2
"""
SELECT_YOUNGEST: Final = f"""{COLUMNS}
 WHERE source = $1 AND ($3::integer IS NULL OR (age_days, id) > ($3, $4::text))
 {_selected(5)} ORDER BY age_days, id LIMIT $2
"""
SELECT_OLDEST: Final = f"""{COLUMNS}
 WHERE source = $1 AND ($3::integer IS NULL OR (age_days, id) < ($3, $4::text))
 {_selected(5)} ORDER BY age_days DESC, id DESC LIMIT $2
"""
SELECT_TOTALS: Final = f"""
SELECT currency, type, count(*) AS count, sum(difference) AS difference, sum(gap) AS gap
  FROM ledger.recon_breaks WHERE source = $1 {_selected(2)}
 GROUP BY currency, type ORDER BY currency, type
"""  # noqa: S608 - made of the numbers of parameters
SELECT_MATCHES: Final = """
SELECT $1::text AS source, currency, anchor, min(rule) AS rule,
       array_agg(item ORDER BY item) AS items
  FROM ledger.recon_matches
 WHERE source = $1 AND ($3::text IS NULL OR (currency, anchor) > ($3, $4::text))
   AND ($5::text[] IS NULL OR currency = ANY ($5)) AND ($6::text IS NULL OR rule = $6)
 GROUP BY currency, anchor ORDER BY currency, anchor LIMIT $2
"""
SELECT_RULES: Final = """
SELECT source, currency, figures->>'by_rule' AS by_rule FROM ledger.recon_runs
 WHERE source = $1 AND ($2::text[] IS NULL OR currency = ANY ($2)) ORDER BY currency
"""

BREAKS_MAX: Final = 10_000
"""Breaks that one printed page holds."""

BREAKS: Final = Listing(SELECT_BREAKS, {"id": str})
MATCHES: Final = Listing(SELECT_MATCHES, {"currency": str, "anchor": str})
SORTS: Final[Mapping[str, tuple[str, str]]] = {
    "amount": (SELECT_SMALLEST, "size"),
    "-amount": (SELECT_LARGEST, "size"),
    "age": (SELECT_YOUNGEST, "age_days"),
    "-age": (SELECT_OLDEST, "age_days"),
}
"""Orders of the list of breaks → its statement, and the column of its key beside the id."""

BEFORE_IDS: Final = ""
AFTER_IDS: Final = "g"
"""Ids are hex: they come after BEFORE_IDS and before AFTER_IDS."""

NAMED_IN_VAIN: Final = frozenset({"STATUS", "CONFLICT", "CURRENCY"})
"""Types of breaks whose lines may name a transaction that did not move this wallet."""

RulesBySource: TypeAlias = Mapping[str, Rules]


async def breaks(snapshot: Snapshot, params: QueryParams, rules: RulesBySource) -> Breaks:
    """Read what differs between statements and books, or is in transit."""
    filters = _filters_of(params)
    if params.text("sort"):
        rows, following = await _sorted_page(snapshot, params, filters)
    else:
        rows, following = await BREAKS.page(snapshot, params, *filters)
    totals, by_type = await _totals(snapshot, params, filters)
    return Breaks(
        breaks=await _whole_breaks(snapshot, rows, rules),
        totals=totals,
        totals_by_type=by_type,
        next=following,
        position=snapshot.position,
    )


async def find_break(snapshot: Snapshot, params: QueryParams, rules: RulesBySource) -> BreakDetail:
    """Read one break, whole. Raises NotFound."""
    break_id = params.need("id")
    filters = (None, None, None, None, None, break_id, None, None, None, None)
    for source in snapshot.places:
        rows = await snapshot.rows(SELECT_BREAKS, source, 1, None, *filters)
        if rows:
            (found,) = await _whole_breaks(snapshot, rows, rules)
            return BreakDetail(**msgspec.structs.asdict(found), position=snapshot.position)
    raise NotFound(f"there is no break {break_id!r}; /v1/breaks lists them")


async def breaks_to_decide(
    snapshot: Snapshot, params: QueryParams, rules: RulesBySource
) -> list[BreakAnswer]:
    """Read every break that the filters select, in the order of `sort`, the largest first.

    Raises Conflicting when there are more than BREAKS_MAX.
    """
    order = {"sort": params.text("sort") or "-amount"}
    params = replace(params, values={**params.values, **order}, limit=BREAKS_MAX)
    rows, following = await _sorted_page(snapshot, params, _filters_of(params))
    if following is not None:
        raise Conflicting(
            f"more than {BREAKS_MAX} breaks are selected, too many for one file; narrow it, for "
            "example with source, currency, type or amount_min"
        )
    return await _whole_breaks(snapshot, rows, rules)


def _filters_of(params: QueryParams) -> tuple[Any, ...]:
    """Return the arguments of the filters of a list of breaks."""
    return (
        params.texts("currency"),
        params.texts("type"),
        params.text("state"),
        params.text("owner"),
        params.text("bucket"),
        params.text("id"),
        params.time("from"),
        params.time("to"),
        params.amount("amount_min"),
        params.amount("amount_max"),
    )


async def _sorted_page(
    snapshot: Snapshot, params: QueryParams, filters: Sequence[Any]
) -> tuple[list[DatabaseRow], str | None]:
    """Fetch one page in the order of `sort`, of all requested sources together; and its cursor.

    Equal ones are in the order of their sources and ids.
    """
    sort = params.need("sort")
    statement, column = SORTS[sort]
    rows: list[DatabaseRow] = []
    for source in _requested(snapshot, params):
        start = _sorted_start(params, source, sort)
        rows += await snapshot.rows(statement, source, params.limit + 1, *start, *filters)
    rows.sort(
        key=lambda row: (Decimal(row[column]), row["source"], row["id"]),
        reverse=sort.startswith("-"),
    )
    if len(rows) <= params.limit:
        return rows, None
    last = rows[params.limit - 1]
    return rows[: params.limit], write_cursor([last["source"], sort, last[column], last["id"]])


def _sorted_start(params: QueryParams, source: str, sort: str) -> tuple[Any, Any]:
    """Return the key after which the rows of a source begin, by the cursor of any source."""
    if params.cursor is None:
        return None, None
    last = str(params.cursor[0])
    kind = str if SORTS[sort][1] == "size" else int
    value, break_id = marked_after(params, last, sort, [kind, str])
    if isinstance(value, str) and not AMOUNT.fullmatch(value):
        raise InvalidRequest("cursor is not one that this address gave; start again without it")
    if source == last:
        return value, break_id
    # Of the rows with the cursor's value, those of sources before its own are the smaller ones.
    return value, AFTER_IDS if source < last else BEFORE_IDS


def _requested(snapshot: Snapshot, params: QueryParams) -> list[str]:
    requested = params.text("source")
    return list(snapshot.places) if requested is None else [snapshot.check(requested)]


async def _totals(
    snapshot: Snapshot, params: QueryParams, filters: Sequence[Any]
) -> tuple[list[BreakTotal], list[BreakTypeTotal]]:
    """Count and add up the whole list: by currency, and by currency and type."""
    sums: dict[tuple[str, ...], list[DatabaseRow]] = {}
    for source in _requested(snapshot, params):
        for row in await snapshot.rows(SELECT_TOTALS, source, *filters):
            keys: tuple[tuple[str, ...], ...] = (row["currency"],), (row["currency"], row["type"])
            for key in keys:
                sums.setdefault(key, []).append(row)
    totals: list[BreakTotal] = []
    by_type: list[BreakTypeTotal] = []
    for (currency, *types), rows in sorted(sums.items()):
        count = sum(row["count"] for row in rows)
        difference, gap = (
            plain(sum((row[name] for row in rows), Decimal(0))) for name in ("difference", "gap")
        )
        if types:
            by_type.append(BreakTypeTotal(currency, types[0], count, difference, gap))
        else:
            totals.append(BreakTotal(currency, count, difference, gap))
    return totals, by_type


async def all_breaks(
    snapshot: Snapshot, source: str, currency: str, rules: RulesBySource
) -> list[BreakAnswer]:
    """Read every break of a wallet. Raises Conflicting when there are more than BREAKS_MAX."""
    filters = ([currency], *(None,) * 9)
    listed = await snapshot.rows(SELECT_BREAKS, source, BREAKS_MAX + 1, None, *filters)
    if len(listed) > BREAKS_MAX:
        raise Conflicting(
            f"{currency} of {source} has more than {BREAKS_MAX} breaks, too many for one page; "
            "read them in pages: /v1/breaks"
        )
    return await _whole_breaks(snapshot, listed, rules)


async def _whole_breaks(
    snapshot: Snapshot, rows: Sequence[DatabaseRow], rules: RulesBySource
) -> list[BreakAnswer]:
    """Return breaks with both sides, their candidates and their history, in the order given."""
    listed: dict[tuple[str, str], BreakAnswer] = {}
    for (source,), group in group_rows(rows, "source").items():
        keys = [(row["currency"], item) for row in group for item in _items_of(row)]
        items = await read_items(snapshot, source, keys)
        steps = await read_steps(snapshot, source, [row["id"] for row in group])
        for row in group:
            names = _items_of(row)
            lines = items.lines_of(row["currency"], names)
            moves = items.transactions_of(row["currency"], names)
            listed[source, row["id"]] = from_row(
                BreakAnswer,
                row,
                lines=lines,
                transactions=_parts(moves, row["difference"] + _sum(line.amount for line in lines)),
                candidates=_candidates(row["candidates"]),
                history=steps.get(row["id"], []),
                time_zone=zone_name(rules, source),
                href=f"/v1/breaks/{quote(row['id'], safe='')}",
            )
    return [listed[row["source"], row["id"]] for row in rows]


def _candidates(stored: str) -> list[CandidateAnswer]:
    """Read stored candidates; none where the row was edited: `ledger verify` names it."""
    try:
        return msgspec.json.decode(stored, type=list[CandidateAnswer])
    except msgspec.DecodeError:
        return []


def _parts(
    moves: Sequence[ReconciledTransaction], amount: Decimal
) -> Sequence[ReconciledTransaction]:
    """Return transactions with the part of their amounts that a break is about.

    It is the one that adds up to `amount`: the whole, what is left without the fee, or the fee
    alone, where the amount and the fee of a transaction are two breaks; else the whole.
    """
    charged = _sum(move.fee for move in moves)
    whole = _sum(move.amount for move in moves)
    if not charged or whole == amount:
        return moves
    if whole + charged == amount:
        return [
            replace_fields(move, amount=plain(_sum((move.amount, move.fee))), fee=None)
            for move in moves
        ]
    if charged == -amount:
        return [replace_fields(move, amount=plain(-_sum((move.fee,)))) for move in moves]
    return moves


def _sum(amounts: Iterable[str | None]) -> Decimal:
    """Add exact decimal texts up; null counts nothing."""
    return sum((Decimal(amount) for amount in amounts if amount is not None), Decimal(0))


def _items_of(row: DatabaseRow) -> list[str]:
    """Return the items of a break, and the transaction that its lines name in vain."""
    is_named = row["type"] in NAMED_IN_VAIN and row["anchor"].startswith("contract:")
    has_lines_only = all(item.startswith("line:") for item in row["items"])
    return [*row["items"], row["anchor"]] if is_named and has_lines_only else list(row["items"])


def zone_name(rules: RulesBySource, source: str) -> str:
    """Return the name of the zone in which people see the times of a source."""
    return str(rules.get(source, Rules()).zone)


async def matches(snapshot: Snapshot, params: QueryParams, rules: RulesBySource) -> Matches:
    """Read what is matched, and by which rule."""
    filters = params.texts("currency"), params.text("rule")
    rows, following = await MATCHES.page(snapshot, params, *filters)
    listed: list[MatchAnswer] = []
    for (source,), group in group_rows(rows, "source").items():
        keys = [(row["currency"], item) for row in group for item in row["items"]]
        items = await read_items(snapshot, source, keys)
        for row in group:
            lines = items.lines_of(row["currency"], row["items"])
            listed.append(
                from_row(
                    MatchAnswer,
                    row,
                    amount=plain(_sum(line.amount for line in lines)),
                    lines=lines,
                    transactions=items.transactions_of(row["currency"], row["items"]),
                    time_zone=zone_name(rules, source),
                )
            )
    return Matches(
        matches=listed,
        totals=await _rule_totals(snapshot, params),
        next=following,
        position=snapshot.position,
    )


async def _rule_totals(snapshot: Snapshot, params: QueryParams) -> list[RuleTotal]:
    """Read what each rule matched in each wallet, as the latest runs counted it."""
    rule = params.text("rule")
    return [
        RuleTotal(**msgspec.structs.asdict(each), source=row["source"], currency=row["currency"])
        for source in _requested(snapshot, params)
        for row in await snapshot.rows(SELECT_RULES, source, params.texts("currency"))
        for each in msgspec.json.decode(row["by_rule"] or "[]", type=list[RuleSum])
        if rule is None or each.rule == rule
    ]
