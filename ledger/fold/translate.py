"""From a stored event to what the fold takes: a fact, or the issue that prevents one."""

from __future__ import annotations

from collections.abc import Callable
from operator import itemgetter
from typing import Any, Final, TypeAlias

from ledger.callback_errors import InvalidCallback, MalformedBody
from ledger.fold.change import TranslatedEvent, in_time
from ledger.fold.dispatch import EVENT_MISMATCH, Dispatch
from ledger.model import Issue, SourceTerms

OnFailure: TypeAlias = Callable[[str, int, Exception], None]
"""(source, position, what the handler raised): called for a bug in a handler, to be logged"""

EVENT_COLUMNS: Final = (
    "position", "event_id", "kind", "resource_id", "status", "path_event", "origin", "reason",
    "detail", "body", "received_at", "recorded_at",
)  # fmt: skip
"""What the fold needs of an event, in this order."""

_columns: Final = itemgetter(*EVENT_COLUMNS)


def translate(
    dispatch: Dispatch, terms: SourceTerms, row: Any, on_failure: OnFailure
) -> TranslatedEvent:
    """Translate a row of `ledger.events` into a fact, or into the issue that prevents one."""
    (position, event_id, kind, resource_id, status, path_event, origin, reason, detail, body,
     received_at, recorded_at) = _columns(row)  # fmt: skip
    fact = issue = None
    if reason == "unsupported_encoding" or (
        # These bytes were posted under another event name before, which says what they are.
        reason == EVENT_MISMATCH and dispatch.body_depends_on_url(terms.provider, body)
    ):
        issue = Issue(reason, detail or "")
    else:
        try:
            stated = dispatch.translate(terms, origin, path_event, body)
            fact = in_time(stated, received_at) if origin == "callback" else stated
        except MalformedBody as error:
            issue = Issue("unreadable", str(error))
        except InvalidCallback as error:
            issue = Issue(error.reason, error.detail)
        except Exception as error:  # noqa: BLE001 - a handler's bug costs its own event only
            on_failure(terms.source, position, error)
            issue = Issue("handler_failed", f"{type(error).__name__}: {error}"[:500])
    return TranslatedEvent(
        position, event_id.hex(), kind, resource_id, status, received_at, recorded_at, fact,
        issue,
    )  # fmt: skip
