"""From a stored event to what the fold takes: a fact, or the issue that prevents one."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from operator import itemgetter
from typing import Any, Final, TypeAlias

from ledger.callback_errors import InvalidCallback, MalformedBody
from ledger.fold.change import TranslatedEvent, in_time
from ledger.fold.dispatch import EVENT_MISMATCH, Dispatch
from ledger.model import Fact, Issue, SourceTerms, changed
from ledger.strict_form import UNSUPPORTED_ENCODING, is_form

OnFailure: TypeAlias = Callable[[str, int, Exception], None]
"""(source, position, what the handler raised): called for a bug in a handler, to be logged"""

EVENT_COLUMNS: Final = (
    "position", "event_id", "kind", "resource_id", "status", "path_event", "origin", "reason",
    "detail", "body", "received_at", "recorded_at",
)  # fmt: skip
"""What the fold needs of an event, in this order."""

BY_RECEIPT: Final = "receipt"
BY_CREATION_FLAG: Final = "dated_by_creation"
BY_RECEIPT_FLAG: Final = "dated_by_receipt"

_columns: Final = itemgetter(*EVENT_COLUMNS)


def dated(fact: Fact, terms: SourceTerms, received_at: datetime) -> Fact:
    """Return a fact with the date that its source declares for what has no time of its own.

    StraitsX gives no updated time of user deposits, chain transactions, virtual accounts and older
    payments (`straitsx-callback-samples`). Money that has no time at all counts at its receipt.
    """
    if fact.effective_at is None and fact.amount is not None:
        return changed(fact, flags=(*fact.flags, BY_RECEIPT_FLAG))
    if terms.date_by != BY_RECEIPT or BY_CREATION_FLAG not in fact.flags:
        return fact
    names = tuple(BY_RECEIPT_FLAG if name == BY_CREATION_FLAG else name for name in fact.flags)
    moment = max(fact.effective_at or received_at, received_at)
    return changed(fact, effective_at=moment, flags=names)


def translate(
    dispatch: Dispatch, terms: SourceTerms, row: Any, on_failure: OnFailure
) -> TranslatedEvent:
    """Translate a row of `ledger.events` into a fact, or into the issue that prevents one."""
    (position, event_id, kind, resource_id, status, path_event, origin, reason, detail, body,
     received_at, recorded_at) = _columns(row)  # fmt: skip
    fact = issue = None
    if (reason == UNSUPPORTED_ENCODING and not is_form(body)) or (
        # These bytes were posted under another event name before, which says what they are.
        reason == EVENT_MISMATCH and dispatch.body_depends_on_url(terms.provider, body)
    ):
        issue = Issue(reason, detail or "")
    else:
        try:
            stated = dispatch.translate(terms, origin, path_event, body)
            if origin == "callback":
                stated = dated(in_time(stated, received_at), terms, received_at)
            fact = stated
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
