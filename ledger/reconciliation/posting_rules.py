"""Post the differences that declared rules and tolerances name, without an operator's decision.

A posting is an event of the source's log, by `rule`, and may be reopened like any decision; the
rules leave a break alone that has a decision. The same difference makes the same event in every
run, so the log takes it once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import Any, Final
from urllib.parse import quote

from ledger.config.reconciliation import TOLERANCE, PostingRule, Rules
from ledger.config.source import Source
from ledger.eventlog.appender import APPEND, NOTIFY, columns
from ledger.evidence.authenticity import mark_event
from ledger.model import plain
from ledger.queries.schemas.decisions import PostingRuleAnswer, RulePostings
from ledger.queries.snapshot import DatabaseRow, Snapshot
from ledger.reconciliation.decisions import (
    AVAILABLE,
    DecisionRequest,
    body_of,
    dated_from,
    decision_event,
    request_digest,
)
from ledger.reconciliation.items import AMOUNT, sum_of
from ledger.reconciliation.result import OPEN, Break, Result

BY: Final = "rule"
LINE: Final = "line:"

SELECT_TEXTS: Final = """
SELECT 'line:' || line AS key, row_kind, description FROM statement_lines
 WHERE source = $1 || '.statements' AND currency = $2 AND status = 'stated'
   AND line = ANY ($3::text[])
   AND hashtextextended(line, 0) = ANY (ARRAY(
       SELECT hashtextextended(id, 0) FROM unnest($3::text[]) AS id))
"""

SELECT_POSTED: Final = """
SELECT rule, currency,
       count(*) FILTER (WHERE action IN ('rule', 'tolerance')) AS count,
       coalesce(sum(difference) FILTER (WHERE action IN ('rule', 'tolerance')), 0) AS amount,
       count(*) FILTER (WHERE action NOT IN ('rule', 'tolerance')) AS reopened,
       (array_agg(id ORDER BY decided_position DESC)
           FILTER (WHERE action IN ('rule', 'tolerance')))[:$2] AS breaks,
       max(account) AS account
  FROM adjustments WHERE source = $1 AND rule IS NOT NULL
 GROUP BY rule, currency ORDER BY rule, currency
"""
BREAKS_LISTED: Final = 20
SELECT_CLOSED_UNTIL: Final = """
SELECT max(end_at) FROM closes WHERE source = $1 AND currency = $2 AND status = 'closed'
"""

LineTexts = Mapping[str, tuple[str, str]]
"""Key of a line → its type and its description."""


async def post_by_rules(connection: Any, result: Result, rules: Rules, terms: Source | None) -> int:
    """Append a posting for each difference that a rule or the tolerance takes; return how many.

    `terms` are the source's settings, whose secret marks the events.
    """
    texts = await _line_texts(connection, result, rules)
    ended = await connection.fetchval(SELECT_CLOSED_UNTIL, result.source, result.currency)
    begin = ended if ended is not None and ended < result.coverage.period.cutoff else None
    bodies = list(postings_of(result, rules, texts, begin))
    for body in bodies:
        new_event = decision_event(result.source, body, datetime.now(UTC))
        new_event = mark_event(terms, result.source, new_event)
        await connection.fetchrow(APPEND, result.source, *columns([new_event]))
    if bodies:
        await connection.execute(NOTIFY)
    return len(bodies)


def postings_of(
    result: Result, rules: Rules, texts: LineTexts, begin: datetime | None = None
) -> Iterator[dict[str, Any]]:
    """Yield the body of the event for each open break that the first fitting rule posts.

    Nothing is dated before `begin`, the end of the latest closed month.
    """
    limit = rules.tolerance.get(result.currency)
    for each in result.breaks:
        if not _is_undecided(each):
            continue
        rule = next((r for r in rules.rules if _fits(r, each, result.currency, texts)), None)
        if rule is not None:
            note = f"{rule.name}: {each.type} below {plain(rule.below)}, rules {rules.sha256}"
            body = _body(result, each, "rule", rule.account, note, begin)
            yield body | {"rule": rule.name}
        elif limit and each.type == AMOUNT and abs(each.difference) <= limit:
            note = f"within {plain(limit)}, rules {rules.sha256}"
            body = _body(result, each, "tolerance", rules.difference_account, note, begin)
            yield body | {"rule": TOLERANCE}


def _is_undecided(each: Break) -> bool:
    """Tell whether a break has a difference and no decision; a note is none."""
    return each.state == OPEN and each.difference != 0 and each.action in (None, "note")


def _fits(rule: PostingRule, each: Break, currency: str, texts: LineTexts) -> bool:
    is_small = abs(each.difference) < rule.below
    is_named = each.type in rule.types and rule.currency in ("", currency)
    return is_small and is_named and (not rule.line or _has_line(rule.line, each, texts))


def _has_line(pattern: str, each: Break, texts: LineTexts) -> bool:
    """Tell whether a break has lines and all of them fit the pattern, by type or description.

    Lines that are shown with it, and that another group matches, do not count.
    """
    folded = pattern.casefold()
    own = [item for item in each.items if item not in each.context]
    lines = [texts.get(item, ("", "")) for item in own if item.startswith(LINE)]
    return bool(lines) and all(
        any(fnmatchcase(text.strip().casefold(), folded) for text in both) for both in lines
    )


def _body(
    result: Result, each: Break, action: str, account: str, note: str, begin: datetime | None
) -> dict[str, Any]:
    row = {name: getattr(each, name) for name in Break.__struct_fields__}
    row |= {"currency": result.currency}
    request = DecisionRequest(action, BY, note, account=account)
    legs = [(AVAILABLE, -each.difference), (account, each.difference)]
    body = body_of(row, request, each.items, legs) | dated_from(row, begin)
    return body | {"request": request_digest(each.id, request)}


async def _line_texts(connection: Any, result: Result, rules: Rules) -> LineTexts:
    """Read the types and descriptions of the lines that rules with a pattern may be about."""
    if not any(rule.line for rule in rules.rules):
        return {}
    lines = [
        item.removeprefix(LINE)
        for each in result.breaks if _is_undecided(each)
        for item in each.items if item.startswith(LINE)
    ]  # fmt: skip
    rows = await connection.fetch(SELECT_TEXTS, result.source, result.currency, lines)
    return {row["key"]: (row["row_kind"], row["description"]) for row in rows}


def account_sums(
    legs: Iterable[tuple[str, str, str, str]],
) -> list[tuple[tuple[str, str, str], str, int]]:
    """Add up legs (source, account, currency, amount as text); return key, amount and count."""
    sums: dict[tuple[str, str, str], list[Decimal]] = {}
    for source, account, currency, amount in legs:
        sums.setdefault((source, account, currency), []).append(Decimal(amount))
    return [(key, plain(sum_of(some)), len(some)) for key, some in sorted(sums.items())]


async def read_rules(snapshot: Snapshot, source: str, rules: Rules) -> list[PostingRuleAnswer]:
    """Read the rules of a source and what each posted; those not declared any more come last."""
    posted: dict[str, list[DatabaseRow]] = {}
    for row in await snapshot.rows(SELECT_POSTED, source, BREAKS_LISTED):
        posted.setdefault(row["rule"], []).append(row)
    answers = [
        PostingRuleAnswer(
            source, rule.name, True, list(rule.types), plain(rule.below), rule.currency or None,
            rule.line or None, rule.account, _postings(source, posted.pop(rule.name, ())),
        )
        for rule in rules.rules
    ]  # fmt: skip
    if rules.tolerance or TOLERANCE in posted:
        answers.append(
            PostingRuleAnswer(
                source, TOLERANCE, bool(rules.tolerance), [AMOUNT], None, None, None,
                rules.difference_account, _postings(source, posted.pop(TOLERANCE, ())),
            )
        )  # fmt: skip
    return answers + [
        PostingRuleAnswer(
            source, name, False, [], None, None, None, rows[0]["account"], _postings(source, rows)
        )
        for name, rows in posted.items()
    ]


def _postings(source: str, rows: Sequence[DatabaseRow]) -> list[RulePostings]:
    return [
        RulePostings(
            row["currency"], row["count"], plain(row["amount"]), row["reopened"],
            list(row["breaks"] or ()),
            f"/v1/views/adjustments?source={quote(source)}&rule={quote(row['rule'], safe='')}",
        )
        for row in rows
    ]  # fmt: skip
