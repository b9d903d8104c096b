"""Matching: which statement lines and which movements of the books are the same thing.

Pure, deterministic and exact; an item is in one group at most. In order: what an operator decided,
contract id, idempotency id, reference, the one candidate by amount, direction and time, declared
groups. Whatever could be either of two is AMBIGUOUS, never guessed. The order in which lines and
movements are given changes nothing.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TypeVar

from ledger.config.reconciliation import GroupRule, Rules
from ledger.model import changed
from ledger.reconciliation.classification import Classifier
from ledger.reconciliation.items import (
    AMBIGUOUS,
    AMOUNT,
    CONFLICT,
    CURRENCY,
    DUPLICATE_INTERNAL,
    MISSING_AT_PROVIDER,
    MISSING_IN_LEDGER,
    STATUS,
    TIMING,
    ZERO,
    DatedAmount,
    Frame,
    Group,
    Known,
    LedgerMovement,
    Manual,
    StatementItem,
    added,
    first_within,
    ledger_amounts,
)

T = TypeVar("T")
K = TypeVar("K")


@dataclass(slots=True)
class Matcher:
    """Lines and movements of one currency, on their way from free to grouped."""

    frame: Frame
    rules: Rules
    lines: dict[str, StatementItem]
    """Lines that are in no group yet, by key."""
    moves: dict[str, LedgerMovement]
    """Movements that are in no group yet, by key."""
    groups: list[Group] = field(default_factory=list)
    _judge: Classifier = field(init=False)

    def __post_init__(self) -> None:
        self._judge = Classifier(self.frame, self.rules.settlement)

    @classmethod
    def of(
        cls,
        frame: Frame,
        rules: Rules,
        lines: Iterable[StatementItem],
        moves: Iterable[LedgerMovement],
    ) -> Matcher:
        """Take lines and movements in any order."""
        return cls(
            frame,
            rules,
            {line.key: line for line in sorted(lines, key=lambda line: (line.at, line.id))},
            {m.key: m for m in sorted(moves, key=lambda m: (m.legs[0][0], m.kind, m.id))},
        )

    def match(self, decided: Sequence[Manual] = ()) -> None:
        """Group whatever belongs together."""
        self._by_hand(decided)
        self._by_contract()
        self._by("idempotency", lambda line: line.idempotency, lambda move: _one(move.idempotency))
        self._by("reference", lambda line: line.reference, lambda move: move.references)
        self._by_amount()
        for rule in self.rules.groups:
            if rule.by == "day":
                self._by_day(rule)

    def finish(self, known: Mapping[str, Known], elsewhere: Mapping[str, str]) -> list[Group]:
        """Name what is left and return all groups, sorted by anchor.

        `known` are transactions that free lines name and that moved nothing in this currency;
        `elsewhere` says in which other currency the statement has a free movement's contract.
        """
        done = {(m.kind, m.idempotency, _net(m)) for g in self.groups for m in g.moves}
        for contract, lines in _grouped(self.lines.values(), lambda line: line.contract):
            self._left_lines(f"contract:{contract}", lines, known.get(contract))
        for line in [*self.lines.values()]:
            self._left_lines(line.key, [line], None)
        for name, moves in sorted(_by_key(self.moves.values(), lambda move: move.id).items()):
            self._left_moves(moves, done, elsewhere.get(name))
        return _apart(self.groups)

    def _add(self, groups: Iterable[Group]) -> None:
        for group in groups:
            self.groups.append(group)
            for line in group.lines:
                del self.lines[line.key]
            for move in group.moves:
                del self.moves[move.key]

    def _by_hand(self, decided: Sequence[Manual]) -> None:
        for decision in sorted(decided, key=lambda each: each.position):
            if not all(key in self.lines or key in self.moves for key in decision.keys):
                continue  # an earlier decision has one of them, or it is gone
            lines = [self.lines[key] for key in decision.keys if key in self.lines]
            moves = [self.moves[key] for key in decision.keys if key in self.moves]
            found = self._judge.equal(decision.anchor, "hand", lines, moves)
            if found is None:
                due = ledger_amounts((leg for m in moves for leg in m.legs), self.frame)
                detail = "matched by hand, but the amounts differ now"
                found = Group(
                    decision.anchor, "hand", AMOUNT, tuple(lines), tuple(moves), *due, detail
                )
            self._add([found])

    def _by_contract(self) -> None:
        moves: dict[str, list[LedgerMovement]] = defaultdict(list)
        for move in self.moves.values():
            moves[move.id].append(move)
        for contract, lines in _grouped(self.lines.values(), lambda line: line.contract):
            named = moves.get(contract)
            if named:
                self._add(self._judge.judge(f"contract:{contract}", "contract", lines, named))

    def _by(
        self,
        rule: str,
        of_line: Callable[[StatementItem], str | None],
        of_move: Callable[[LedgerMovement], Sequence[str]],
    ) -> None:
        """Group by a name that lines and movements may share."""
        moves: dict[str, list[LedgerMovement]] = defaultdict(list)
        for move in self.moves.values():
            for name in of_move(move):
                moves[name].append(move)
        for name, told in _grouped(self.lines.values(), of_line):
            free = [move for move in moves.get(name, ()) if move.key in self.moves]
            if free:
                self._add(self._named(rule, name, told, free))

    def _named(
        self, rule: str, name: str, lines: Sequence[StatementItem], moves: Sequence[LedgerMovement]
    ) -> list[Group]:
        anchor = f"{rule}:{name}"
        if len(moves) > 1:
            declared = self._declared_group(anchor, lines, moves) if rule == "reference" else None
            if declared is not None:
                return [declared]
        if len(moves) == 1:
            equal = self._judge.equal(anchor, rule, lines, moves)
            if equal is not None:
                return [equal]
        # A line that names another contract is about something else, whatever else it says.
        own = [line for line in lines if line.contract is None]
        if not own:
            return []
        if len(moves) == 1:
            return self._judge.judge(anchor, rule, own, moves)
        return [self._ambiguous(anchor, rule, own, moves)]

    def _declared_group(
        self, anchor: str, lines: Sequence[StatementItem], moves: Sequence[LedgerMovement]
    ) -> Group | None:
        for rule in self.rules.groups:
            fits = all(line.kind == rule.line for line in lines)
            if rule.by == "reference" and fits and all(m.kind in rule.kinds for m in moves):
                return self._judge.equal(anchor, "group", lines, moves)
        return None

    def _ambiguous(
        self,
        anchor: str,
        rule: str,
        lines: Sequence[StatementItem],
        moves: Sequence[LedgerMovement],
    ) -> Group:
        legs = [leg for move in moves for leg in self._kept(move)]
        detail = f"{len(lines)} lines and {len(moves)} transactions could be each other"
        due = ledger_amounts(legs, self.frame)
        return Group(anchor, rule, AMBIGUOUS, tuple(lines), tuple(moves), *due, detail)

    def _kept(self, move: LedgerMovement) -> Sequence[DatedAmount]:
        return move.legs[first_within(move.legs, self.frame.opened) :]

    def _by_amount(self) -> None:
        """Match a line without a name to the one transaction that it can be, and that alone."""
        lines: dict[Decimal, list[StatementItem]] = defaultdict(list)
        for line in self.lines.values():
            if line.contract is None and line.idempotency is None:
                lines[line.amount].append(line)
        moves: dict[Decimal, list[LedgerMovement]] = defaultdict(list)
        for move in self.moves.values():
            moves[_net(move)].append(move)
        for amount in sorted(lines.keys() & moves.keys()):
            for some, candidates in self._components(lines[amount], moves[amount]):
                if len(some) == 1 and len(candidates) == 1:
                    found = self._judge.equal(some[0].key, "amount", some, candidates)
                    self._add([found] if found is not None else [])
                else:
                    name = hashlib.sha256(
                        "|".join(sorted(line.id for line in some)).encode()
                    ).hexdigest()[:16]
                    self._add([self._ambiguous(f"equal:{name}", "amount", some, candidates)])

    def _components(
        self, lines: Sequence[StatementItem], moves: Sequence[LedgerMovement]
    ) -> Iterator[tuple[list[StatementItem], list[LedgerMovement]]]:
        """Yield the lines and movements that are within reach of each other; both are sorted."""
        window = self.rules.window
        times = [line.at for line in lines]
        part: tuple[list[StatementItem], list[LedgerMovement]] = ([], [])
        end = 0  # lines before this place are in `part` or were out of reach
        for move in moves:
            at = move.legs[0][0]
            low, high = bisect_left(times, at - window), bisect_right(times, at + window)
            if low == high:
                continue
            if low >= end and part[1]:
                yield part
                part = ([], [])
            part[0].extend(lines[max(low, end) : high])
            part[1].append(move)
            end = max(end, high)
        if part[1]:
            yield part

    def _by_day(self, rule: GroupRule) -> None:
        """Match the one line of a day to all transactions of that day, when their sums agree."""
        offset = self.rules.utc_offset
        moves = _by_key(
            [m for m in self.moves.values() if m.kind in rule.kinds],
            lambda move: (move.legs[0][0] + offset).date(),
        )
        lines = _by_key(
            [line for line in self.lines.values() if line.kind == rule.line],
            lambda line: (line.at + offset).date(),
        )
        for day in sorted(lines.keys() & moves.keys()):
            if len(lines[day]) == 1:
                anchor = f"group:{rule.line}:{day.isoformat()}"
                found = self._judge.equal(anchor, "group", lines[day], moves[day])
                self._add([found] if found is not None else [])

    def _left_lines(self, anchor: str, lines: Sequence[StatementItem], known: Known | None) -> None:
        last = max(line.at for line in lines)
        is_recent = last >= self.frame.cutoff - self.rules.settlement
        verdict, detail = MISSING_IN_LEDGER, "no transaction of the books is this"
        if known is not None:
            verdict, detail = STATUS, f"the books hold this {known.kind} as {known.status}"
            if known.currency is not None:
                verdict, detail = CURRENCY, f"the books moved {known.currency} for it"
            elif known.status == "conflict":
                verdict = CONFLICT
        if is_recent and verdict in (MISSING_IN_LEDGER, STATUS):
            verdict = TIMING
        self._add([Group(anchor, "none", verdict, tuple(lines), (), ZERO, ZERO, detail)])

    def _left_moves(
        self,
        moves: Sequence[LedgerMovement],
        done: set[tuple[str, str | None, Decimal]],
        other: str | None,
    ) -> None:
        """Name the movements of one id that nothing on the statement is."""
        seen = [
            leg for m in moves for leg in self._kept(m)
            if self.frame.opened <= leg[0] < self.frame.cutoff
        ]  # fmt: skip
        if not seen:
            for move in moves:
                del self.moves[move.key]  # of another statement
            return
        due = ledger_amounts(seen, self.frame)
        verdict, detail = MISSING_AT_PROVIDER, "no line of the statement is this"
        first = moves[0]
        if other is not None:
            verdict, detail = CURRENCY, f"the statement of {other} has it"
        elif first.idempotency and (first.kind, first.idempotency, _net(first)) in done:
            verdict = DUPLICATE_INTERNAL
            detail = "another transaction with its idempotency id and amount is on the statement"
        elif min(seen)[0] >= self.frame.cutoff - self.rules.settlement:
            verdict, detail = TIMING, "not on the statement yet"
        anchor = f"contract:{first.id}"
        self._add([Group(anchor, "none", verdict, (), tuple(moves), *due, detail)])


def _apart(groups: Sequence[Group]) -> list[Group]:
    """Sort groups and see that no two have the same anchor; one made by hand keeps it."""
    found: list[Group] = []
    taken: set[str] = set()
    for group in sorted(groups, key=lambda g: (g.anchor, g.rule != "hand", g.keys)):
        if group.anchor in taken:
            group = changed(group, anchor=f"{group.anchor}#{group.keys[0]}")
        taken.add(group.anchor)
        found.append(group)
    return found


def _one(name: str | None) -> tuple[str, ...]:
    return (name,) if name else ()


def _net(move: LedgerMovement) -> Decimal:
    return added(amount for _, amount in move.legs)


def _grouped(
    lines: Iterable[StatementItem], name: Callable[[StatementItem], str | None]
) -> list[tuple[str, list[StatementItem]]]:
    """Group lines by a name, those that have one, sorted by it."""
    found: dict[str, list[StatementItem]] = defaultdict(list)
    for line in lines:
        key = name(line)
        if key:
            found[key].append(line)
    return sorted(found.items())


def _by_key(items: Iterable[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    found: dict[K, list[T]] = defaultdict(list)
    for item in items:
        found[key(item)].append(item)
    return found
