"""The part of the query API's table that is about statements and reconciliation."""

from __future__ import annotations

from typing import Final

from ledger.api import endpoints_reconciliation as endpoints
from ledger.api.endpoints_reconciliation import ReadByRules
from ledger.queries import findings
from ledger.queries.params import Param, Route
from ledger.queries.reconciliation import breaks, runs
from ledger.queries.schemas import reconciliation as schemas
from ledger.reconciliation.items import BREAK_TYPES, TIMING

SOURCE: Final = Param("source", "Only this source.")
CURRENCY: Final = Param(
    "currency",
    "Only this currency, or these, separated by commas; upper or lower case.",
    "currency",
    several=True,
)

FINDINGS: Final = Route(
    "/v1/reconciliation/findings",
    "What looks incomplete, without any statement",
    "reconciliation",
    schemas.Findings,
    ReadByRules(findings.findings),
    (
        SOURCE,
        Param("reason", "Only for this reason.", "choice", findings.REASONS),
        Param("as_of", "Ages as of this moment; now when not given.", "kept_time"),
    ),
    about="Each is also an exception, under its `exception`, where it can be acknowledged.",
)
REPORT: Final = Route(
    "/reconciliation/{source}/{currency}",
    "One wallet's reconciliation as a page fit to print",
    "reconciliation",
    str,
    endpoints.print_report,
    (Param("as", "`csv` for a spreadsheet.", "choice", ("html", "csv")),),
    is_list=False,
    content_types=("text/html", "text/csv"),
    headers=(),
)
OVERVIEW: Final = Route(
    "/reconciliation",
    "All wallets' reconciliations on one page fit to print",
    "reconciliation",
    str,
    endpoints.print_overview,
    (SOURCE, CURRENCY, Param("as", "`csv` for a spreadsheet.", "choice", ("html", "csv"))),
    is_list=False,
    content_types=("text/html", "text/csv"),
    headers=(),
)
BREAK_FILTERS: Final = (
    SOURCE,
    CURRENCY,
    Param(
        "type",
        "Only this type, or these, separated by commas.",
        "choice",
        (*BREAK_TYPES, TIMING),
        several=True,
    ),
    Param("state", "Only in this state.", "choice", ("OPEN", "RESOLVED")),
    Param("owner", "Only what this owner looks after."),
    Param("bucket", "Only of this age.", "choice", ("0-1d", "2-3d", "4-7d", ">7d")),
    Param("id", "Only this one."),
    Param("from", "Dated at or after this.", "time"),
    Param("to", "Dated before this.", "time"),
    Param("amount_min", "Only where the gap, without its sign, is at least this.", "amount"),
    Param("amount_max", "Only where the gap, without its sign, is at most this.", "amount"),
    Param(
        "sort",
        "By the gap without its sign, or by age in days, `-` the largest or oldest first, over "
        "all sources; otherwise by source and id.",
        "choice",
        tuple(breaks.SORTS),
    ),
)
SPREADSHEET: Final = Route(
    "/reconciliation/breaks.csv",
    "Breaks as a spreadsheet to decide in",
    "reconciliation",
    str,
    endpoints.breaks_spreadsheet,
    BREAK_FILTERS,
    is_list=False,
    content_types=("text/csv",),
    headers=(),
    about="The largest first. `decision`, `decision_account`, `decision_note` and "
    "`decision_items` are empty: fill them in, and give the file to `ledger reconcile decide "
    "--from`.",
)
RECONCILIATION: Final = (
    Route(
        "/v1/breaks",
        "Differences between statements and books, and what is in transit",
        "reconciliation",
        schemas.Breaks,
        ReadByRules(breaks.breaks),
        BREAK_FILTERS,
    ),
    Route(
        "/v1/breaks/{id}",
        "One break with both sides, its candidates and every decision and note",
        "reconciliation",
        schemas.BreakDetail,
        ReadByRules(breaks.find_break),
        is_list=False,
    ),
    Route(
        "/v1/matches",
        "Lines and transactions that are the same thing, with the rule that matched them",
        "reconciliation",
        schemas.Matches,
        ReadByRules(breaks.matches),
        (SOURCE, CURRENCY, Param("rule", "Only what this rule matched, as `amount`.")),
    ),
    Route(
        "/v1/reconciliation",
        "The latest reconciliation of each wallet",
        "reconciliation",
        schemas.Runs,
        ReadByRules(runs.runs),
        (SOURCE, CURRENCY),
    ),
    FINDINGS,
    OVERVIEW,
    SPREADSHEET,
    REPORT,
)
