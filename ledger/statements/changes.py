"""What an import would change: lines that are new, stated differently, or stated no more. Pure.

A line that a newer file states again has its name. Where the name differs, because a reader reads
more of the file by now or the bank corrected an amount, the line takes the name of the one that it
replaces.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from ledger.model import Record, changed, plain
from ledger.statements.model import StatementLine
from ledger.statements.validation import names_of

CHANGES_MAX: Final = 100
"""Changed and withdrawn lines that one answer lists; their numbers are of all."""

Body = Mapping[str, Any]
"""What the log has of a line: the decoded body of its latest event."""

_SHOWN: Final = ("reference", "idempotency_id", "contract_id", "provider_id")
_NAMES: Final = ("contract_id", "idempotency_id", "reference")


class LineChange(Record, frozen=True):
    """One line of an earlier file that an import changes or withdraws."""

    change: str
    """`changed` or `withdrawn`."""
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


def changed_line(body: Body, line: StatementLine | None = None) -> LineChange:
    """Return the change of a line that the log has: to `line`, or that it is withdrawn."""
    return LineChange(
        "withdrawn" if line is None else "changed",
        str(body["line"]),
        datetime.fromisoformat(body["effective_at"]),
        str(body["amount"]),
        str(body.get("description") or ""),
        next((str(body[name]) for name in _SHOWN if body.get(name)), ""),
        str(body["sha256"]),
        None if line is None else plain(line.amount),
        None if line is None else line.effective_at,
        None if line is None else line.description,
    )


def renamed(
    lines: Sequence[StatementLine], gone: Iterable[Body]
) -> tuple[list[StatementLine], set[str]]:
    """Give lines that the log does not have the names of lines that the file does not have.

    A line takes the name of one of the same time, amount and id; else of the same time and amount,
    if none of their names contradict; else, with an id, of the same time and id. Of several the
    first in `gone` is taken. Returns the lines in their order, and the names of the events taken.
    """
    free = {str(body["id"]): body for body in gone}
    taken: dict[int, Body] = {}
    for key_of_line, key_of_body in _KEYS:
        places: dict[Any, list[str]] = defaultdict(list)
        for name, body in free.items():
            key = key_of_body(body)
            if key is not None:
                places[key].append(name)
        for place, line in enumerate(lines):
            if place in taken:
                continue
            candidates = places.get(key_of_line(line), ())
            match = next((n for n in candidates if n in free and _fits(line, free[n])), None)
            if match is not None:
                taken[place] = free.pop(match)
    result = [
        changed(line, name=str(taken[place]["line"])) if place in taken else line
        for place, line in enumerate(lines)
    ]
    return result, {str(body["id"]) for body in taken.values()}


def _fits(line: StatementLine, body: Body) -> bool:
    """Tell whether the names of the two do not contradict: one is common, or one side has none."""
    if line.id and _provider_id(body) not in ("", line.id):
        return False
    names = {*filter(None, (getattr(line, name) for name in _NAMES)), *line.names}
    known = {*filter(None, (body.get(name) for name in _NAMES)), *(body.get("names") or ())}
    return not names or not known or not names.isdisjoint(known)


def _provider_id(body: Body) -> str:
    """Return the id that the file gave; a line's name was its id before both were kept."""
    line = str(body["line"])
    return str(body.get("provider_id") or ("" if line.startswith("h:") else line))


def _amount(body: Body) -> Decimal:
    return Decimal(body["amount"])


_KeyOfLine = Callable[[StatementLine], Any]
_KeyOfBody = Callable[[Body], Any]
_KEYS: Final[tuple[tuple[_KeyOfLine, _KeyOfBody], ...]] = (
    (
        lambda line: (line.effective_at.isoformat(), line.amount, line.id),
        lambda body: (body["effective_at"], _amount(body), _provider_id(body)),
    ),
    (
        lambda line: (line.effective_at.isoformat(), line.amount),
        lambda body: (body["effective_at"], _amount(body)),
    ),
    (
        lambda line: (line.effective_at.isoformat(), line.id),
        lambda body: (
            (body["effective_at"], _provider_id(body)) if names_of(_provider_id(body)) else None
        ),
    ),
)
"""What the two must share, tried in this order."""
