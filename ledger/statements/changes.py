"""What an import would change: lines that are new, stated differently, or stated no more. Pure.

A line that a newer file states again has its name. Where the name differs, because a reader reads
more of the file by now or the bank corrected an amount, the line takes the name of the one that it
replaces.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from itertools import islice
from typing import Any, Final

from ledger.model import Record, changed, plain
from ledger.statements.events import BOOKED, differing_fields
from ledger.statements.model import StatementLine
from ledger.statements.validation import names_of

CHANGES_MAX: Final = 100
"""Changed and withdrawn lines that one answer lists; their numbers are of all."""

SCANNED_MAX: Final = 50
"""Lines of one time and amount that are compared with one line."""

Body = Mapping[str, Any]
"""What the log has of a line: the decoded body of its latest event."""

_SHOWN: Final = ("reference", "idempotency_id", "contract_id", "provider_id")
_NAMES: Final = ("contract_id", "idempotency_id", "reference")


class LineChange(Record, frozen=True):
    """One line of an earlier file that an import changes or withdraws."""

    change: str
    """`changed`; `moved`: nothing but the day on which it counts differs; or `withdrawn`."""
    line: str
    effective_at: datetime
    amount: str
    """As the earlier file states it."""
    description: str
    reference: str
    """The first of its names that the earlier file has."""
    file: str
    """SHA-256 of the file that stated it last, in hex."""
    now_amount: str | None = None
    """As the file states it now; None of one that is withdrawn."""
    now_effective_at: datetime | None = None
    now_description: str | None = None
    booked_at: datetime | None = None
    """When it counts in the balances by the earlier file."""
    now_booked_at: datetime | None = None
    fields: tuple[str, ...] = ()
    """Which of its fields are stated differently."""


def changed_line(body: Body, line: StatementLine | None = None) -> LineChange:
    """Return the change of a line that the log has: to `line`, or that it is withdrawn."""
    fields = () if line is None else differing_fields(line, body)
    stated = "moved" if fields == (BOOKED,) else "changed"
    return LineChange(
        "withdrawn" if line is None else stated,
        str(body["line"]),
        datetime.fromisoformat(body["effective_at"]),
        str(body["amount"]),
        str(body.get("description") or ""),
        next((str(body[name]) for name in _SHOWN if body.get(name)), ""),
        str(body["sha256"]),
        None if line is None else plain(line.amount),
        None if line is None else line.effective_at,
        None if line is None else line.description,
        datetime.fromisoformat(body.get(BOOKED) or body["effective_at"]),
        None if line is None else line.booked_at,
        fields,
    )


def renamed(
    lines: Sequence[StatementLine], gone: Iterable[Body]
) -> tuple[list[StatementLine], set[str]]:
    """Give lines that the log does not have the names of lines that the file does not have.

    A line takes the name of one of the same time and amount that has one of its names or ids; else,
    if none of their names contradict, of one of the same time and amount, or of the same time and
    id. Of several the first in `gone` is taken. Returns the lines in their order, and the names of
    the events taken.
    """
    free = {str(body["id"]): body for body in gone}
    if not free:
        return list(lines), set()
    taken: dict[int, Body] = {}
    for keys_of_line, keys_of_body in _KEYS:
        places: dict[Any, deque[str]] = defaultdict(deque)
        for name, body in free.items():
            for key in keys_of_body(body):
                places[key].append(name)
        for place, line in enumerate(lines):
            if place in taken:
                continue
            known = (places[key] for key in keys_of_line(line) if key in places)
            found = (_first(line, names, free) for names in known)
            match = next(filter(None, found), None)
            if match is not None:
                taken[place] = free.pop(match)
    result = [
        changed(line, name=str(taken[place]["line"])) if place in taken else line
        for place, line in enumerate(lines)
    ]
    return result, {str(body["id"]) for body in taken.values()}


def _first(line: StatementLine, names: deque[str], free: Mapping[str, Body]) -> str | None:
    """Return the first of the events' names that is free and fits, of SCANNED_MAX at most."""
    while names and names[0] not in free:
        names.popleft()
    some = islice(names, SCANNED_MAX)
    return next((name for name in some if name in free and _fits(line, free[name])), None)


def _fits(line: StatementLine, body: Body) -> bool:
    """Tell whether the names of the two do not contradict: one is common, or one side has none."""
    if line.id and _provider_id(body) not in ("", line.id):
        return False
    names, known = _names_of_line(line), _names_of_body(body)
    return not names or not known or not names.isdisjoint(known)


def _names_of_line(line: StatementLine) -> set[str]:
    return {*filter(None, (getattr(line, name) for name in _NAMES)), *line.names}


def _names_of_body(body: Body) -> set[str]:
    return {*filter(None, (body.get(name) for name in _NAMES)), *(body.get("names") or ())}


def _provider_id(body: Body) -> str:
    """Return the id that the file gave; a line's name was its id before both were kept."""
    line = str(body["line"])
    return str(body.get("provider_id") or ("" if line.startswith("h:") else line))


def _amount(body: Body) -> Decimal:
    return Decimal(body["amount"])


def _key_of_line(line: StatementLine) -> tuple[str, Decimal]:
    return line.effective_at.isoformat(), line.amount


def _key_of_body(body: Body) -> tuple[str, Decimal]:
    return str(body["effective_at"]), _amount(body)


_KeysOfLine = Callable[[StatementLine], Iterable[Any]]
_KeysOfBody = Callable[[Body], Iterable[Any]]
_KEYS: Final[tuple[tuple[_KeysOfLine, _KeysOfBody], ...]] = (
    (
        lambda line: [(*_key_of_line(line), name) for name in sorted(_names_of_line(line))],
        lambda body: [(*_key_of_body(body), name) for name in sorted(_names_of_body(body))],
    ),
    (
        lambda line: [(*_key_of_line(line), line.id)],
        lambda body: [(*_key_of_body(body), _provider_id(body))],
    ),
    (lambda line: [_key_of_line(line)], lambda body: [_key_of_body(body)]),
    (
        lambda line: [(line.effective_at.isoformat(), line.id)],
        lambda body: [(body["effective_at"], name) for name in names_of(_provider_id(body))],
    ),
)
"""What the two must share one of, tried in this order."""
