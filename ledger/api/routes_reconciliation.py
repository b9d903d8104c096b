"""The part of the query API's table that is about statements and reconciliation."""

from __future__ import annotations

from typing import Final

from ledger.api import endpoints_reconciliation as endpoints
from ledger.api.endpoints import SnapshotRead
from ledger.queries import findings, reconciliation
from ledger.queries.params import Param, Route
from ledger.queries.schemas import reconciliation as schemas
from ledger.queries.schemas.log import Resolution
from ledger.reconciliation.items import BREAK_TYPES, TIMING
from ledger.statements.reader import FORMAT_NAMES

SOURCE: Final = Param("source", "Only this source.")
CURRENCY: Final = Param("currency", "Only this currency; upper or lower case.", "currency")

IMPORT: Final = Route(
    "/v1/statements",
    "Import a provider's statement",
    "reconciliation",
    schemas.Imported,
    endpoints.import_statement,
    (
        Param("source", "The source whose statement it is; must be given."),
        Param("currency", "Where the file names none.", "currency"),
        Param("format", "Recognized from the bytes when not given.", "choice", FORMAT_NAMES),
        Param("from", "Begin of the period of the file, where the file states none.", "time"),
        Param("to", "End of that period, exclusive.", "time"),
        Param("columns", "For CSV: a JSON object, what → column or spelling."),
        Param("again", "Import the file again though it was imported before.", "choice", ("yes",)),
    ),
    is_list=False,
    method="POST",
    takes=bytes,
    about="The body is the file. The same file again changes nothing; a newer file that overlaps "
    "replaces line by line. A file whose balances do not add up is refused, with the line named.",
)
WITHDRAW: Final = Route(
    "/v1/statements/{source}/{sha256}/withdraw",
    "Take a mistaken statement back",
    "reconciliation",
    schemas.Withdrawn,
    endpoints.withdraw,
    is_list=False,
    method="POST",
    takes=schemas.Withdrawal,
    about="It stays in the log but no longer counts; neither do the lines that it stated last. "
    "Where another statement has these lines too, import that one with again=yes.",
)
FILE: Final = Route(
    "/v1/statements/{source}/{sha256}/file",
    "A statement's file, byte for byte as it was imported",
    "reconciliation",
    bytes,
    endpoints.statement_file,
    is_list=False,
    content_types=("application/octet-stream",),
    headers=(),
)
DECIDE: Final = Route(
    "/v1/breaks/{id}/decide",
    "Decide on a break",
    "reconciliation",
    Resolution,
    endpoints.decide_break,
    is_list=False,
    method="POST",
    takes=schemas.BreakDecision,
    about="The decision is an event of the source's log; it posts what the action says.",
)
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
    IMPORT,
    WITHDRAW,
    FILE,
    Route(
        "/v1/statements",
        "Imported statements, the newest first",
        "reconciliation",
        schemas.Statements,
        SnapshotRead(reconciliation.statements),
        (SOURCE, CURRENCY),
    ),
    Route(
        "/v1/statement_lines",
        "Statement lines and what each is matched with",
        "reconciliation",
        schemas.StatementLines,
        SnapshotRead(reconciliation.statement_lines),
        (
            SOURCE,
            CURRENCY,
            Param("contract_id", "Only of this contract."),
            Param("line", "Only the line with this id."),
            Param("matched", "Whether it is in a live match.", "choice", ("yes", "no")),
        ),
    ),
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
    DECIDE,
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
