"""The part of the query API's table by which operators act on reconciliations."""

from __future__ import annotations

from typing import Final

from ledger.api import endpoints_closes
from ledger.api import endpoints_decisions as endpoints
from ledger.api.endpoints import SnapshotRead
from ledger.queries.params import Param, Route
from ledger.queries.schemas import closes
from ledger.queries.schemas import reconciliation as schemas
from ledger.queries.schemas.decisions import (
    DecisionAnswer,
    DecisionList,
    ListedDecision,
    PostingRules,
)
from ledger.reconciliation.closing.answers import read_close_page

DRY_RUN: Final = ("true", "false")

DECIDE: Final = Route(
    "/v1/breaks/{id}/decide",
    "Decide on a break",
    "reconciliation",
    DecisionAnswer,
    endpoints.decide_break,
    is_list=False,
    method="POST",
    takes=schemas.BreakDecision,
    about="The decision is an event of the source's log; it posts what the action says. The answer "
    "comes when the reconciliation's result contains it, after a few seconds at the latest.",
)
DECIDE_SEVERAL: Final = Route(
    "/v1/breaks/decide",
    "Decide on several breaks",
    "reconciliation",
    DecisionList,
    endpoints.decide_breaks,
    (Param("dry_run", "`true`: only report what it would do and post.", "choice", DRY_RUN),),
    is_list=False,
    method="POST",
    takes=list[ListedDecision],
    about=f"A JSON list of 1 to {endpoints.DECISIONS_MAX} decisions, each an event of its own. One "
    "that is refused stops no other. The same list again does nothing twice.",
)
RULES: Final = Route(
    "/v1/reconciliation/rules",
    "The rules that post differences without a decision, and what they posted",
    "reconciliation",
    PostingRules,
    endpoints.list_rules,
    (Param("source", "Only this source."),),
    is_list=False,
    about="Declared as `[[sources.<name>.reconcile.rules]]`. A posting is an event by `rule`; "
    "`reopen` takes it back, and then the rules leave that break alone.",
)
SOURCE: Final = Param("source", "Only this source.")
CURRENCY: Final = Param("currency", "Only this currency; upper or lower case.", "currency")
PERIOD: Final = Param("period", "Only this month, like 2026-06.")
CLOSE: Final = Route(
    "/v1/reconciliation/closes",
    "Close a month",
    "reconciliation",
    closes.CloseResult,
    endpoints_closes.close_month,
    (Param("dry_run", "`true`: only report what stands in the way.", "choice", DRY_RUN),),
    is_list=False,
    method="POST",
    takes=closes.CloseOrder,
    about="Each wallet with a statement must be reconciled through the end of the month in the "
    "source's time zone, or its open breaks be named in `accept`; otherwise 409 with `obstacles`.",
)
REOPEN: Final = Route(
    "/v1/reconciliation/closes/{period}/reopen",
    "Reopen a closed month",
    "reconciliation",
    closes.ReopenResult,
    endpoints_closes.reopen_month,
    is_list=False,
    method="POST",
    takes=closes.ReopenOrder,
    about="Only the latest closed month of a wallet: the later ones rest on it.",
)
CLOSES: Final = Route(
    "/v1/reconciliation/closes",
    "Closed months, with what changed each since",
    "reconciliation",
    closes.Closes,
    SnapshotRead(read_close_page),
    (SOURCE, CURRENCY, PERIOD),
)
ROLL_FORWARD: Final = Route(
    "/v1/reconciliation/roll-forward",
    "How the breaks of each wallet go from month to month",
    "reconciliation",
    closes.RollForwards,
    endpoints_closes.list_roll_forwards,
    (SOURCE, CURRENCY, PERIOD),
    is_list=False,
)
DECISIONS: Final = (RULES, DECIDE, DECIDE_SEVERAL, CLOSES, CLOSE, REOPEN, ROLL_FORWARD)
