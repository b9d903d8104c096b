"""The result of a reconciliation: its breaks, balance sheet, state and digest. Pure.

The closing identity: ledger balance = statement balance + in transit + open breaks + residual.
Every difference is therefore the books' amount minus the statement's. The ledger balance is read
from the journal, not summed from the matches, so whatever the matching missed is a residual.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import ROUND_DOWN, Decimal
from typing import Any, Final

import msgspec

from ledger.config.reconciliation import Rules, bucket_of
from ledger.model import Record, changed, plain
from ledger.reconciliation.candidates import Candidate, suggest_candidates
from ledger.reconciliation.classification import is_fee
from ledger.reconciliation.coverage import Coverage, continuity_breaks
from ledger.reconciliation.items import (
    AMOUNT,
    MATCHED,
    MISSING_AT_PROVIDER,
    OPENING,
    TIMING,
    ZERO,
    Group,
    Period,
    StatementItem,
    sum_of,
)

RECONCILED: Final = "RECONCILED"
WITH_TIMING: Final = "RECONCILED_WITH_TIMING"
BREAKS: Final = "BREAKS"
INCOMPLETE: Final = "INCOMPLETE"

OPEN: Final = "OPEN"
RESOLVED: Final = "RESOLVED"
RESOLVING: Final = frozenset({"match", "write_off", "post_fee", "void", "tolerance", "rule"})
"""Actions that resolve a break, when the amounts agree after them."""
POSTING: Final = RESOLVING - {"match"}
"""Actions that post to the wallet."""

_CENT: Final = Decimal("0.01")


class LatestDecision(Record, frozen=True):
    """The latest decision on a break, and the amount that it posted to the wallet."""

    break_id: str
    anchor: str
    action: str
    by: str
    note: str
    position: int
    at: datetime
    posted: Decimal = ZERO
    """By the cut-off."""
    before: Decimal = ZERO
    """How much of `posted` is dated before the statement begins."""
    keys: tuple[str, ...] = ()
    """The items that were matched by hand."""
    effective_at: datetime | None = None
    """When what it posted is dated."""


class Break(Record, frozen=True):
    """One difference (books - statement), or one thing in transit (type TIMING)."""

    id: str
    type: str
    state: str
    anchor: str
    rule: str
    items: tuple[str, ...]
    difference: Decimal
    """The books' amount minus the statement's, before any decision."""
    gap: Decimal
    """The difference that remains at the cut-off after postings; 0 once a decision resolved it."""
    at: datetime
    age_days: int
    bucket: str
    owner: str
    detail: str
    action: str | None = None
    decided_by: str | None = None
    decided_at: datetime | None = None
    note: str | None = None
    candidates: tuple[Candidate, ...] = ()
    """What may be its other side, the best first."""
    context: tuple[str, ...] = ()
    """Those of its items that another group matches."""


class LedgerBalances(Record, frozen=True):
    """A wallet's balances by the journal: before the statement begins, and at the cut-off."""

    before: Decimal
    balance: Decimal


class Match(Record, frozen=True):
    """Items that are the same thing; `amount` is their sum in the books."""

    anchor: str
    rule: str
    keys: tuple[str, ...]
    amount: Decimal


class MonthItem(Record, frozen=True):
    """A break or something in transit, as it is at the end of a month."""

    id: str
    type: str
    at: datetime
    gap: Decimal
    """Books - statement; of a resolved break, its difference before the decision."""
    items: tuple[str, ...]
    action: str | None = None
    """The decision that resolved it; None while it is open."""


class MonthEnd(Record, frozen=True):
    """A wallet at the end of a month, as it is known by now."""

    period: str
    """Like `2026-06`."""
    begin: datetime
    end: datetime
    """Exclusive."""
    state: str
    figures: Mapping[str, Any]
    """Balances and counts, amounts as exact texts."""
    changed: tuple[MonthItem, ...]
    """What is open or in transit and was not, or otherwise, a month before; sorted by id."""
    ended: tuple[str, ...]
    """What was open or in transit a month before and is not, sorted."""
    resolved: tuple[MonthItem, ...]
    """Breaks dated in the month that decisions resolved, sorted by id."""
    reasons: tuple[str, ...]
    """Why it is incomplete."""
    sha256: str


class Result(Record, frozen=True):
    """One reconciliation of one currency of one source."""

    source: str
    currency: str
    state: str
    coverage: Coverage
    rules_sha256: str
    matches: tuple[Match, ...]
    breaks: tuple[Break, ...]
    """Open, resolved and in transit, sorted by id."""
    figures: Mapping[str, Any]
    reasons: tuple[str, ...]
    sha256: str
    months: tuple[MonthEnd, ...] = ()
    """The ends of the months that the statements reach, in order."""


def break_id_of(source: str, currency: str, anchor: str) -> str:
    """Return the id of a break; it is the same in every run."""
    return hashlib.sha256(f"{source}|{currency}|{anchor}".encode()).hexdigest()[:16]


def build_result(
    source: str,
    currency: str,
    *,
    coverage: Coverage,
    ledger: LedgerBalances,
    groups: Sequence[Group],
    decisions: Mapping[str, LatestDecision],
    rules: Rules,
) -> Result:
    """Return the result of groups, balances and decisions (by the id of their break)."""
    lines = [line for group in groups for line in group.lines]
    opening = _opening_balance(coverage, lines)
    breaks = _breaks(
        _BreakBuilder(source, currency, coverage.period, rules), ledger, groups, decisions, opening
    )
    figures = _figures(coverage, ledger, groups, breaks, opening)
    continuity = (
        [] if opening is None else continuity_breaks(coverage.stated_balances, opening, lines)
    )
    reasons = _reasons(coverage, figures, continuity)
    matches = tuple(
        Match(group.anchor, group.rule, group.keys, group.ledger_amount)
        for group in groups
        if group.classification == MATCHED
    )
    result = Result(
        source, currency, _state(breaks, reasons), coverage, rules.sha256, matches, tuple(breaks),
        figures, reasons, "",
    )  # fmt: skip
    return msgspec.structs.replace(result, sha256=_digest(result))


def _breaks(
    builder: _BreakBuilder,
    ledger: LedgerBalances,
    groups: Sequence[Group],
    decisions: Mapping[str, LatestDecision],
    opening: Decimal | None,
) -> list[Break]:
    """Return the breaks of the groups, of the opening balance and of decisions, sorted by id."""
    breaks: list[Break] = []
    ids: set[str] = set()
    for group in groups:
        break_id = break_id_of(builder.source, builder.currency, group.anchor)
        ids.add(break_id)
        made = builder.of_group(break_id, group, decisions.get(break_id))
        if made is not None:
            breaks.append(made)
    opening_id = break_id_of(builder.source, builder.currency, "opening")
    ids.add(opening_id)
    # The opening balance contains what was posted before the first statement.
    decisions = {n: d for n, d in decisions.items() if n in ids or not _is_before_opening(d)}
    posted = sum_of(d.before for d in decisions.values() if d.break_id != opening_id)
    carried = ledger.before - sum_of(group.ledger_amount_before for group in groups) - posted
    own = decisions.get(opening_id)
    carried -= own.before if own else ZERO
    if own is not None or (opening is not None and carried != opening):
        breaks.append(builder.of_opening(opening_id, carried, opening, own))
    breaks += [
        builder.of_orphan(decision)
        for break_id, decision in decisions.items()
        if break_id not in ids and decision.posted
    ]
    return sorted(_with_candidates(breaks, groups, builder.rules), key=lambda each: each.id)


def _with_candidates(breaks: Sequence[Break], groups: Sequence[Group], rules: Rules) -> list[Break]:
    """Add to open breaks what may be their other side, among what is in no match."""
    still_open = {each.anchor for each in breaks if each.state == OPEN}
    free = [g for g in groups if g.classification != MATCHED and g.anchor in still_open]
    suggested = suggest_candidates(free, rules.zone)
    return [
        changed(each, candidates=suggested[each.anchor]) if each.anchor in suggested else each
        for each in breaks
    ]


def _is_before_opening(decision: LatestDecision) -> bool:
    return bool(decision.posted) and decision.posted == decision.before


class _BreakBuilder(Record, frozen=True):
    """Makes the breaks of one wallet."""

    source: str
    currency: str
    period: Period
    rules: Rules

    def of_group(
        self, break_id: str, group: Group, decision: LatestDecision | None
    ) -> Break | None:
        """Return the break of a group; None for a match that needs none."""
        if group.classification == MATCHED and not _is_decided(group, decision):
            if group.statement_amount == group.ledger_amount:
                return None
            return self._across_cutoff(break_id, group, decision)
        kind, detail = group.classification, group.detail
        posted = decision.posted if decision else ZERO
        gap = group.difference + posted
        is_resolved = decision is not None and decision.action in RESOLVING and not gap
        if kind in (MATCHED, TIMING) and posted:
            kind, detail = AMOUNT, "what was posted for it is not needed any more; reopen it"
            is_resolved = False
        elif kind == MATCHED:
            kind, detail = AMOUNT, "matched by hand"
        elif gap and decision is not None and self._is_posted_later(decision):
            detail = f"{detail}; decided, and posted when statements reach the open month"
        made = self._break(
            break_id, kind, RESOLVED if is_resolved else OPEN, group.anchor, group.rule,
            group.keys, group.difference, gap, group.at or self.period.opened_at, detail, decision,
        )  # fmt: skip
        return changed(made, context=tuple(line.key for line in group.context))

    def _is_posted_later(self, decision: LatestDecision) -> bool:
        """Tell whether what a decision posted is dated after the statements end."""
        at = decision.effective_at
        return decision.action in POSTING and at is not None and at >= self.period.cutoff

    def of_opening(
        self,
        break_id: str,
        carried: Decimal,
        opening: Decimal | None,
        decision: LatestDecision | None,
    ) -> Break:
        """Return the break of an opening balance that is not the books' balance `carried`."""
        difference = ZERO if opening is None else carried - opening
        gap = difference + (decision.posted if decision else ZERO)
        is_resolved = decision is not None and decision.action in RESOLVING and not gap
        detail = "no statement states an opening balance any more; reopen the decision"
        if opening is not None:
            detail = (
                f"the books begin with {plain(carried)}, the first statement with {plain(opening)};"
                " import the statements before it, begin at a later one (`since`), or write the"
                " difference off"
            )
        return self._break(
            break_id, OPENING, RESOLVED if is_resolved else OPEN, "opening", "none", (),
            difference, gap, self.period.opened_at, detail, decision,
        )  # fmt: skip

    def of_orphan(self, decision: LatestDecision) -> Break:
        """Return the break of a posting whose reason is gone."""
        detail = "the reason for this decision is gone; reopen it to take its posting back"
        return self._break(
            decision.break_id, MISSING_AT_PROVIDER, OPEN, decision.anchor, "none",
            (f"adjustment:{decision.break_id}",), decision.posted, decision.posted,
            decision.at, detail, decision,
        )  # fmt: skip

    def _across_cutoff(self, break_id: str, group: Group, decision: LatestDecision | None) -> Break:
        detail = "matched, but on the two sides of the cut-off"
        return self._break(
            break_id, TIMING, OPEN, group.anchor, group.rule, group.keys, group.difference,
            group.difference, group.at or self.period.opened_at, detail, decision,
        )  # fmt: skip

    def _break(
        self, break_id: str, kind: str, state: str, anchor: str, rule: str, items: tuple[str, ...],
        difference: Decimal, gap: Decimal, at: datetime, detail: str,
        decision: LatestDecision | None,
    ) -> Break:  # fmt: skip
        age = max(self.period.cutoff - at, timedelta(0))
        return Break(
            break_id, kind, state, anchor, rule, items, difference, gap, at, age.days,
            bucket_of(age), self.rules.owner_of(kind), detail,
            action=decision.action if decision else None,
            decided_by=decision.by if decision else None,
            decided_at=decision.at if decision else None,
            note=decision.note if decision else None,
        )  # fmt: skip


def _is_decided(group: Group, decision: LatestDecision | None) -> bool:
    """Tell whether a matched group is listed as a break because of a decision about it."""
    return decision is not None and (bool(decision.posted) or group.rule == "hand")


def _opening_balance(coverage: Coverage, lines: Sequence[StatementItem]) -> Decimal | None:
    """Return the opening balance, from the closing one where the first statement has only that.

    None where it states no balance: nothing is known of what was there before its lines.
    """
    if coverage.opening is not None:
        return coverage.opening
    own = (each for each in coverage.stated_balances if each.sha256 == coverage.files[0])
    stated = next(own, None)
    if stated is None:
        return None
    earlier = (line.amount for line in lines if (line.booked_at or line.at) < stated.at)
    return stated.balance - sum_of(earlier)


def _figures(
    coverage: Coverage,
    ledger: LedgerBalances,
    groups: Sequence[Group],
    breaks: Sequence[Break],
    opening: Decimal | None,
) -> dict[str, Any]:
    """Return the balance sheet of the run, amounts as exact texts."""
    lines = [line for group in groups for line in group.lines]
    matched_groups = [group for group in groups if group.classification == MATCHED]
    matched = [line for group in matched_groups for line in group.lines]
    fees = sum_of(line.amount for line in matched if is_fee(line))
    inflow = sum_of(line.amount for line in matched if line.amount > 0 and not is_fee(line))
    outflow = sum_of(line.amount for line in matched if line.amount < 0 and not is_fee(line))
    lines_total = sum_of(line.amount for line in lines)
    closing = coverage.closing
    if closing is None and opening is not None:
        closing = opening + lines_total
    transit = [each for each in breaks if each.type == TIMING]
    still_open = [each for each in breaks if each.type != TIMING and each.state == OPEN]
    in_transit, in_breaks = sum_of(b.gap for b in transit), sum_of(b.gap for b in still_open)
    return {
        "opening": _plain(opening),
        "matched_in": plain(inflow),
        "matched_out": plain(outflow),
        "fees": plain(fees),
        "unmatched": plain(lines_total - fees - inflow - outflow),
        "closing": _plain(closing),
        "ledger": plain(ledger.balance),
        "in_transit": plain(in_transit),
        "in_transit_count": len(transit),
        "breaks": plain(in_breaks),
        "breaks_count": len(still_open),
        "resolved_count": sum(1 for b in breaks if b.state == RESOLVED),
        "difference": _plain(_minus(ledger.balance, closing)),
        "residual": _plain(_minus(ledger.balance - in_transit - in_breaks, closing)),
        "chain": _plain(_minus(_minus(closing, opening), lines_total)),
        "lines": len(lines),
        "lines_matched": len(matched),
        "transactions": _transactions(groups),
        "transactions_matched": _transactions(matched_groups),
        "coverage_count": _share(Decimal(len(matched)), Decimal(len(lines))),
        "coverage_value": _share(
            sum_of(abs(line.amount) for line in matched), sum_of(abs(line.amount) for line in lines)
        ),
        "by_type": _by_type(still_open),
        "by_rule": _by_rule(matched_groups),
    }


def _plain(amount: Decimal | None) -> str | None:
    return None if amount is None else plain(amount)


def _minus(amount: Decimal | None, other: Decimal | None) -> Decimal | None:
    return None if amount is None or other is None else amount - other


def _transactions(groups: Iterable[Group]) -> int:
    """Count transactions; a fee's break beside the rest of its transaction is not another one."""
    return len({movement.key for group in groups for movement in group.movements})


def _by_type(breaks: Sequence[Break]) -> list[dict[str, Any]]:
    sums: dict[tuple[str, str], list[Break]] = {}
    for each in breaks:
        sums.setdefault((each.type, each.bucket), []).append(each)
    return [
        {"type": kind, "bucket": bucket, "count": len(some), "owner": some[0].owner,
         "gap": plain(sum_of(each.gap for each in some))}
        for (kind, bucket), some in sorted(sums.items())
    ]  # fmt: skip


def _by_rule(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """Count what each rule matched; the value is the sum of the lines without their signs."""
    sums: dict[str, list[Group]] = {}
    for group in groups:
        sums.setdefault(group.rule, []).append(group)
    return [
        {"rule": rule, "count": len(some), "lines": sum(len(group.lines) for group in some),
         "transactions": len({each.key for group in some for each in group.movements}),
         "value": plain(sum_of(abs(line.amount) for group in some for line in group.lines))}
        for rule, some in sorted(sums.items())
    ]  # fmt: skip


def _share(part: Decimal, whole: Decimal) -> str | None:
    """Return a share in percent, rounded down, so that 100 is all; None of nothing."""
    if not whole:
        return None
    return plain((100 * part / whole).quantize(_CENT, rounding=ROUND_DOWN))


def _reasons(
    coverage: Coverage, figures: Mapping[str, Any], continuity: Sequence[str]
) -> tuple[str, ...]:
    """Return why the result is incomplete, one sentence each; () when it is complete."""
    if continuity:
        return (*coverage.missing, *continuity)
    if figures["chain"] not in (None, "0"):
        return (
            *coverage.missing,
            f"the lines and the balances of the statements differ by {figures['chain']}: a line is "
            "missing or duplicate; import the whole period again",
        )
    if figures["residual"] not in (None, "0"):
        return (
            *coverage.missing,
            f"{figures['residual']} of the ledger balance is not explained",
        )
    return coverage.missing


def _state(breaks: Sequence[Break], reasons: Sequence[str]) -> str:
    if reasons:
        return INCOMPLETE
    if any(each.state == OPEN and each.type != TIMING for each in breaks):
        return BREAKS
    return WITH_TIMING if any(each.type == TIMING for each in breaks) else RECONCILED


def _digest(result: Result) -> str:
    """Digest everything that the result states; log positions and the clock are not in it."""
    period = result.coverage.period
    content = [
        result.source, result.currency, result.state, result.rules_sha256,
        [period.opened_at, period.cutoff, result.coverage.files],
        [[match.rule, match.keys, plain(match.amount)] for match in result.matches],
        [_values(each) for each in result.breaks],
        result.figures, result.reasons,
    ]  # fmt: skip
    return hashlib.sha256(msgspec.json.encode(content, order="sorted")).hexdigest()


def _values(each: Break) -> list[Any]:
    values = msgspec.structs.asdict(each) | {"candidates": candidate_documents(each)}
    return [plain(value) if isinstance(value, Decimal) else value for value in values.values()]


def candidate_documents(each: Break) -> list[dict[str, Any]]:
    """Return the candidates of a break as JSON."""
    return [candidate.document() for candidate in each.candidates]
