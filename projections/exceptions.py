"""Exceptions: what an operator should look at, when it began, ended or was resolved.

An exception's state is the action of its latest row. Its id is named by what it is about: a
stream's issue by stream and reason, so that it is one exception however often it comes back;
an event's own (unreadable, unknown, mismatch, what cannot be true, parked) by its position.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from ledger.model import ATTRIBUTE, RETRY, FoldResult, Issue, Projection, Table


def rows(outcome: FoldResult) -> Sequence[tuple[Any, ...]]:
    """Return the exceptions that an event opened, cleared and, as a decision, resolved.

    A decision to retry resolves nothing: books that are folded again show what came of it. One
    that attributes a transaction is about no exception.
    """
    if not (outcome.opened or outcome.cleared or outcome.decided):
        return ()
    found = [_opened(outcome, kind, resource, t) for kind, resource, t in outcome.opened]
    for kind, resource, reason in outcome.cleared:
        name = _stream_id(outcome.source, kind, resource, reason)
        found.append(_row(outcome, name, "cleared", Issue(reason, ""), kind, resource))
    if outcome.decided is not None and outcome.decided[1] not in (RETRY, ATTRIBUTE):
        found.append(_resolved(outcome, *outcome.decided))
    return found


def _opened(outcome: FoldResult, kind: str, resource: str, issue: Issue) -> tuple[Any, ...]:
    if outcome.fact is None:
        name = _digest(f"{outcome.source}|{outcome.position}|{issue.reason}")
    else:
        name = _stream_id(outcome.source, kind, resource, issue.reason)
    return _row(outcome, name, "opened", issue, kind, resource)


def _resolved(outcome: FoldResult, name: str, action: str, note: str) -> tuple[Any, ...]:
    """Return the row of a decision; its details name what it is about."""
    about = outcome.fact.details if outcome.fact else {}
    issue = Issue(str(about.get("reason") or ""), action)
    kind, resource = str(about.get("kind") or ""), str(about.get("resource") or "")
    return _row(outcome, name, "resolved", issue, kind, resource, note)


def _row(
    outcome: FoldResult,
    name: str,
    action: str,
    issue: Issue,
    kind: str,
    resource: str,
    note: str | None = None,
) -> tuple[Any, ...]:
    return (
        outcome.source,
        name,
        outcome.position,
        action,
        issue.reason,
        issue.detail,
        kind,
        resource,
        outcome.event_id,
        outcome.recorded_at,
        note,
    )


def _stream_id(source: str, kind: str, resource: str, reason: str) -> str:
    return _digest(f"{source}|{kind}|{resource}|{reason}")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


PROJECTION = Projection(
    name="exceptions",
    table=Table(
        name="exceptions",
        columns={
            "source": "text",
            "id": "text",
            "position": "bigint",
            "action": "text",
            "reason": "text",
            "detail": "text",
            "kind": "text",
            "resource_id": "text",
            "event_id": "text",
            "at": "timestamptz",
            "note": "text",
        },
        key=("source", "id", "position", "action"),
        indexes=(
            "source, position, id WHERE action = 'opened'",
            "source, reason, position, id WHERE action = 'opened'",
            "source, kind, position, id WHERE action = 'opened'",
            "source, kind, resource_id",
        ),
    ),
    rows=rows,
)
