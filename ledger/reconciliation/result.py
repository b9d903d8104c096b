"""What one reconciliation says: its breaks, its balance sheet, its state and its digest. Pure.

The closing identity: ledger balance = statement balance + in transit + open breaks, residual zero.
Every difference is therefore books - statement: what the books say beyond the statement.
The ledger's balance is read from the journal, not added up from what was matched, so that anything
the matching did not see is a residual.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import ROUND_DOWN, Decimal
from typing import Any, Final

import msgspec

from ledger.config.reconciliation import Rules, bucket_of
from ledger.model import Record, plain
from ledger.reconciliation.classification import is_fee
from ledger.reconciliation.coverage import Coverage, continuity_breaks
from ledger.reconciliation.items import (
    AMOUNT,
    MATCHED,
    MISSING_AT_PROVIDER,
    OPENING,
    TIMING,
    ZERO,
    Frame,
    Group,
    added,
)

RECONCILED: Final = "RECONCILED"
WITH_TIMING: Final = "RECONCILED_WITH_TIMING"
BREAKS: Final = "BREAKS"
INCOMPLETE: Final = "INCOMPLETE"

OPEN: Final = "OPEN"
RESOLVED: Final = "RESOLVED"
RESOLVING: Final = frozenset({"match", "write_off", "post_fee", "void", "tolerance"})
"""Decisions that end a break, when the amounts agree after them."""

_CENT: Final = Decimal("0.01")


class Decided(Record, frozen=True):
    """The latest decision on a break, and what its posting did to the wallet by the cut-off."""

    break_id: str
    anchor: str
    action: str
    by: str
    note: str
    position: int
    at: datetime
    posted: Decimal = ZERO
    before: Decimal = ZERO
    """How much of `posted` is dated before the statement begins."""
    keys: tuple[str, ...] = ()
    """The items that were matched by hand."""


class Break(Record, frozen=True):
    """One difference, or (type TIMING) one thing on its way: books - statement."""

    id: str
    type: str
    state: str
    anchor: str
    rule: str
    items: tuple[str, ...]
    difference: Decimal
    """What the books say beyond the statement, before any decision."""
    gap: Decimal
    """What is left of it at the cut-off, with what was posted; 0 once a decision has ended it."""
    at: datetime
    age_days: int
    bucket: str
    owner: str
    detail: str
    action: str | None = None
    decided_by: str | None = None
    decided_at: datetime | None = None
    note: str | None = None


class LedgerBalances(Record, frozen=True):
    """What the journal says of a wallet: before the statement begins, and at the cut-off."""

    before: Decimal
    balance: Decimal


class Match(Record, frozen=True):
    """Items that are the same thing; `amount` is what they came to in the books."""

    anchor: str
    rule: str
    keys: tuple[str, ...]
    amount: Decimal


class Result(Record, frozen=True):
    """One reconciliation of one currency of one source."""

    source: str
    currency: str
    state: str
    cover: Coverage
    rules_sha256: str
    matches: tuple[Match, ...]
    breaks: tuple[Break, ...]
    """Open, resolved and in transit, sorted by id."""
    figures: Mapping[str, Any]
    reasons: tuple[str, ...]
    sha256: str


def break_id_of(source: str, currency: str, anchor: str) -> str:
    """Name a break: the same thing has the same name in every run."""
    return hashlib.sha256(f"{source}|{currency}|{anchor}".encode()).hexdigest()[:16]


def conclude(
    source: str,
    currency: str,
    *,
    cover: Coverage,
    ledger: LedgerBalances,
    groups: Sequence[Group],
    decided: Mapping[str, Decided],
    rules: Rules,
) -> Result:
    """Say what groups, decisions and balances come to."""
    writer = _Writer(source, currency, cover.frame, rules)
    breaks: list[Break] = []
    used: set[str] = set()
    for group in groups:
        name = break_id_of(source, currency, group.anchor)
        decision = decided.get(name)
        used.add(name)
        if group.verdict == MATCHED and not _is_noted(group, decision):
            if group.told != group.due:
                breaks.append(writer.across(name, group))
            continue
        breaks.append(writer.write(name, group, decision))
    lines = [line for group in groups for line in group.lines]
    opening = _opening(cover, [line.amount for line in lines])
    name = break_id_of(source, currency, "opening")
    # What was decided and posted before the first statement is in the balance that it opens with.
    decided = {n: d for n, d in decided.items() if n in {*used, name} or not _is_carried(d)}
    posted_before = added(d.before for d in decided.values() if d.break_id != name)
    carried = ledger.before - added(group.before for group in groups) - posted_before
    own = decided.get(name)
    difference = carried - (own.before if own else ZERO) - opening
    if difference or own is not None:
        breaks.append(writer.opening(name, difference, own))
    used.add(name)
    breaks += [writer.orphan(d) for n, d in sorted(decided.items()) if n not in used and d.posted]
    breaks.sort(key=lambda each: each.id)
    figures = _figures(cover, ledger, groups, breaks, opening)
    reasons = _reasons(cover, figures, continuity_breaks(cover.told, opening, lines))
    state = _state(breaks, reasons)
    matches = tuple(Match(g.anchor, g.rule, g.keys, g.due) for g in groups if g.verdict == MATCHED)
    result = Result(
        source, currency, state, cover, rules.sha256, matches, tuple(breaks), figures, reasons, ""
    )
    return msgspec.structs.replace(result, sha256=_digest(result))


def _is_noted(group: Group, decision: Decided | None) -> bool:
    """Tell whether a matched group is to be listed: a decision has something to do with it."""
    return decision is not None and (bool(decision.posted) or group.rule == "hand")


def _is_carried(decision: Decided) -> bool:
    return bool(decision.posted) and decision.posted == decision.before


class _Writer(Record, frozen=True):
    """Writes breaks down."""

    source: str
    currency: str
    frame: Frame
    rules: Rules

    def write(self, name: str, group: Group, decision: Decided | None) -> Break:
        kind, detail = group.verdict, group.detail
        posted = decision.posted if decision else ZERO
        gap = group.due + posted - group.told
        is_ended = decision is not None and decision.action in RESOLVING and not gap
        if kind in (MATCHED, TIMING) and posted:
            kind, detail = AMOUNT, "what was posted for it is not needed any more; reopen it"
            is_ended = False
        elif kind == MATCHED:
            kind, detail = AMOUNT, "matched by hand"
        return self._made(
            name, kind, OPEN if not is_ended else RESOLVED, group.anchor, group.rule,
            group.keys, group.difference, gap, group.at or self.frame.opened, detail, decision,
        )  # fmt: skip

    def across(self, name: str, group: Group) -> Break:
        gap = group.due - group.told
        detail = "matched, but on the two sides of the cut-off"
        return self._made(
            name, TIMING, OPEN, group.anchor, group.rule, group.keys, gap, gap,
            group.at or self.frame.opened, detail, None,
        )  # fmt: skip

    def opening(self, name: str, difference: Decimal, decision: Decided | None) -> Break:
        posted = decision.posted if decision else ZERO
        gap = difference + posted
        is_ended = decision is not None and decision.action in RESOLVING and not gap
        detail = "the books begin with another balance than the first statement"
        return self._made(
            name, OPENING, RESOLVED if is_ended else OPEN, "opening", "none", (), difference,
            gap, self.frame.opened, detail, decision,
        )  # fmt: skip

    def orphan(self, decision: Decided) -> Break:
        detail = "what this decision was about is gone; reopen it to take its posting back"
        return self._made(
            decision.break_id, MISSING_AT_PROVIDER, OPEN, decision.anchor, "none",
            (f"adjustment:{decision.break_id}",), decision.posted, decision.posted,
            decision.at, detail, decision,
        )  # fmt: skip

    def _made(
        self, name: str, kind: str, state: str, anchor: str, rule: str, items: tuple[str, ...],
        difference: Decimal, gap: Decimal, at: datetime, detail: str, decision: Decided | None,
    ) -> Break:  # fmt: skip
        age = max(self.frame.cutoff - at, timedelta(0))
        told = (None, None, None, None)
        if decision is not None:
            told = (decision.action, decision.by, decision.at, decision.note)  # type: ignore[assignment]
        return Break(
            name, kind, state, anchor, rule, items, difference, gap, at, age.days,
            bucket_of(age), self.rules.owner_of(kind), detail, *told,
        )  # fmt: skip


def _opening(cover: Coverage, amounts: Iterable[Decimal]) -> Decimal:
    """Return the statement's opening balance, from its closing one where it states none."""
    if cover.opening is not None:
        return cover.opening
    return (cover.closing or ZERO) - added(amounts)


def _figures(
    cover: Coverage,
    ledger: LedgerBalances,
    groups: Sequence[Group],
    breaks: Sequence[Break],
    opening: Decimal,
) -> dict[str, Any]:
    """Return the balance sheet of the run, amounts as exact texts."""
    lines = [line for group in groups for line in group.lines]
    matched = [line for group in groups if group.verdict == MATCHED for line in group.lines]
    moves = sum(len(group.moves) for group in groups)
    matched_moves = sum(len(group.moves) for group in groups if group.verdict == MATCHED)
    fees = added(line.amount for line in matched if is_fee(line))
    inflow = added(line.amount for line in matched if line.amount > 0 and not is_fee(line))
    outflow = added(line.amount for line in matched if line.amount < 0 and not is_fee(line))
    told = added(line.amount for line in lines)
    closing = cover.closing if cover.closing is not None else opening + told
    transit = [each for each in breaks if each.type == TIMING]
    opened = [each for each in breaks if each.type != TIMING and each.state == OPEN]
    in_transit, in_breaks = added(b.gap for b in transit), added(b.gap for b in opened)
    return {
        "opening": plain(opening),
        "matched_in": plain(inflow),
        "matched_out": plain(outflow),
        "fees": plain(fees),
        "unmatched": plain(told - fees - inflow - outflow),
        "closing": plain(closing),
        "ledger": plain(ledger.balance),
        "in_transit": plain(in_transit),
        "in_transit_count": len(transit),
        "breaks": plain(in_breaks),
        "breaks_count": len(opened),
        "resolved_count": sum(1 for b in breaks if b.state == RESOLVED),
        "difference": plain(ledger.balance - closing),
        "residual": plain(ledger.balance - closing - in_transit - in_breaks),
        "chain": plain(closing - opening - told),
        "lines": len(lines),
        "lines_matched": len(matched),
        "transactions": moves,
        "transactions_matched": matched_moves,
        "coverage_count": _share(Decimal(len(matched)), Decimal(len(lines))),
        "coverage_value": _share(
            added(abs(line.amount) for line in matched), added(abs(line.amount) for line in lines)
        ),
        "by_type": _by_type(opened),
    }


def _by_type(breaks: Sequence[Break]) -> list[dict[str, Any]]:
    sums: dict[tuple[str, str], list[Break]] = {}
    for each in breaks:
        sums.setdefault((each.type, each.bucket), []).append(each)
    return [
        {"type": kind, "bucket": bucket, "count": len(some), "owner": some[0].owner,
         "gap": plain(added(each.gap for each in some))}
        for (kind, bucket), some in sorted(sums.items())
    ]  # fmt: skip


def _share(part: Decimal, whole: Decimal) -> str | None:
    """Return a share in percent, rounded down, so that 100 is all; None of nothing."""
    if not whole:
        return None
    return plain((100 * part / whole).quantize(_CENT, rounding=ROUND_DOWN))


def _reasons(cover: Coverage, figures: Mapping[str, Any], broken: Sequence[str]) -> tuple[str, ...]:
    found = [*cover.missing, *broken]
    if broken:
        return tuple(found)
    if figures["chain"] != "0":
        found.append(
            f"the lines and the balances of the statements differ by {figures['chain']}: a line "
            "is missing or one too many; import the whole period anew"
        )
    elif figures["residual"] != "0":
        found.append(f"{figures['residual']} of the ledger's balance is not explained")
    return tuple(found)


def _state(breaks: Sequence[Break], reasons: Sequence[str]) -> str:
    if reasons:
        return INCOMPLETE
    if any(each.state == OPEN and each.type != TIMING for each in breaks):
        return BREAKS
    return WITH_TIMING if any(each.type == TIMING for each in breaks) else RECONCILED


def _digest(result: Result) -> str:
    """Digest everything that the run says; positions and the clock are not in it."""
    told = [
        result.source, result.currency, result.state, result.rules_sha256,
        [result.cover.frame.opened, result.cover.frame.cutoff, result.cover.files],
        [[match.rule, match.keys, plain(match.amount)] for match in result.matches],
        [_without_positions(each) for each in result.breaks],
        result.figures, result.reasons,
    ]  # fmt: skip
    return hashlib.sha256(msgspec.json.encode(told, order="sorted")).hexdigest()


def _without_positions(each: Break) -> list[Any]:
    fields = msgspec.structs.asdict(each)
    return [plain(v) if isinstance(v, Decimal) else v for v in fields.values()]
