"""The part of the query API's table that is about statements."""

from __future__ import annotations

from typing import Final

from ledger.api import endpoints_statements as endpoints
from ledger.api.endpoints_reconciliation import ReadByRules
from ledger.queries import statements
from ledger.queries.params import Param, Route
from ledger.queries.schemas import statements as schemas
from ledger.statements.reader import FORMAT_NAMES

SOURCE: Final = Param("source", "Only this source.")
CURRENCY: Final = Param("currency", "Only this currency; upper or lower case.", "currency")

TRUTH: Final = ("true", "yes", "false")

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
        Param(
            "from",
            "Begin of the period of the file, where it states none: a time with a zone, or a day.",
        ),
        Param("to", "End of that period, exclusive: the day after the last, or a time."),
        Param("profile", "How the file is written: one of the source's or a shipped one."),
        Param("columns", "Settings of the profile for this file: a JSON object."),
        Param("account", "Which of several accounts, or the account that the file does not name."),
        Param("dry_run", "Answer what the import would do; nothing is stored.", "choice", TRUTH),
        Param("replace", "Change and withdraw lines of earlier files.", "choice", TRUTH),
        Param(
            "add", "The file states only some lines of its period; withdraw none.", "choice", TRUTH
        ),
        Param("again", "Import it again though it was imported before.", "choice", TRUTH),
    ),
    is_list=False,
    method="POST",
    takes=bytes,
    about="The body is the file. The same file again changes nothing. A file that would change or "
    "withdraw lines of earlier ones is answered with 409 and the list of them, unless `replace` "
    "allows it. A file whose balances do not add up is refused, with the line named.",
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
STATEMENTS: Final = (
    IMPORT,
    WITHDRAW,
    FILE,
    Route(
        "/v1/statements",
        "Imported statements, the newest first",
        "reconciliation",
        schemas.Statements,
        ReadByRules(statements.statements),
        (SOURCE, CURRENCY),
    ),
    Route(
        "/v1/statement_lines",
        "Statement lines and what each is matched with",
        "reconciliation",
        schemas.StatementLines,
        ReadByRules(statements.statement_lines),
        (
            SOURCE,
            CURRENCY,
            Param("contract_id", "Only of this contract."),
            Param("line", "Only the line with this id."),
            Param("account", "Only of this account."),
            Param("matched", "Whether it is in a live match.", "choice", ("yes", "no")),
            Param("matched_by", "Only what this rule matched, as `amount`."),
        ),
    ),
)
