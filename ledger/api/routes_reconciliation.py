"""The part of the query API's table that is about statements and reconciliation."""

from __future__ import annotations

from typing import Final

from ledger.api import endpoints_reconciliation as endpoints
from ledger.api.endpoints import SnapshotRead
from ledger.queries import findings, reconciliation
from ledger.queries.params import Param, Route
from ledger.queries.schemas import reconciliation as schemas
from ledger.reconciliation.items import BREAK_TYPES, TIMING

SOURCE: Final = Param("source", "Only this source.")
CURRENCY: Final = Param("currency", "Only this currency; upper or lower case.", "currency")

FINDINGS: Final = Route(
    "/v1/reconciliation/findings",
    "What looks incomplete, without any statement",
    "reconciliation",
    schemas.Findings,
    endpoints.list_findings,
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
RECONCILIATION: Final = (
    Route(
        "/v1/breaks",
        "Differences between statements and books, and what is in transit",
        "reconciliation",
        schemas.Breaks,
        SnapshotRead(reconciliation.breaks),
        (
            SOURCE,
            CURRENCY,
            Param("type", "Only this type.", "choice", (*BREAK_TYPES, TIMING)),
            Param("state", "Only in this state.", "choice", ("OPEN", "RESOLVED")),
            Param("owner", "Only what this owner looks after."),
            Param("bucket", "Only of this age.", "choice", ("0-1d", "2-3d", "4-7d", ">7d")),
            Param("id", "Only this one."),
        ),
    ),
    Route(
        "/v1/reconciliation",
        "The latest reconciliation of each wallet",
        "reconciliation",
        schemas.Runs,
        SnapshotRead(reconciliation.runs),
        (SOURCE, CURRENCY),
    ),
    FINDINGS,
    REPORT,
)
