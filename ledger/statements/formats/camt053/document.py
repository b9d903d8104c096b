"""Walk through the XML of a camt.053, entry by entry, and refuse what is none.

defusedxml reads the XML; it refuses DTDs, entities and other attacks on a parser.
"""

from __future__ import annotations

import io
import re
from typing import Final
from xml.etree.ElementTree import Element, ParseError
from xml.parsers.expat import errors as xml_errors
from zoneinfo import ZoneInfo

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import iterparse

from ledger.model import shown
from ledger.statements.formats.camt053.entry import amount_of, entry_of, is_booked, line_of
from ledger.statements.formats.camt053.fields import fields_of, local_name
from ledger.statements.formats.camt053.statement import CamtStatement
from ledger.statements.model import StatementRefused
from ledger.statements.validation import check_line_count, refusal

STATEMENTS_MAX: Final = 10_000
"""Statements (`Stmt`) in one file."""
TAG_BYTES_MAX: Final = 65_536
"""Bytes between `<` and `>`: the parser reads an endless tag again with every piece of it."""
DEPTH_MAX: Final = 64
OTHERS: Final = {
    "BkToCstmrAcctRpt": "a camt.052, the report of a day that is not over",
    "BkToCstmrDbtCdtNtfctn": "a camt.054, a notification of single bookings without balances",
}
"""Messages that banks deliver beside the statement, by their element."""
MESSAGE: Final = "BkToCstmrStmt"
_OTHER_NAMESPACES: Final = {"052": "BkToCstmrAcctRpt", "054": "BkToCstmrDbtCdtNtfctn"}
_NAMESPACE: Final = re.compile(r"camt\.(\d{3})\.")
_ENDLESS: Final = re.compile(rb"<[^<>]{%d}" % TAG_BYTES_MAX)
_BLANKS: Final = re.compile(rb"\s*")


def read_document(body: bytes, where: ZoneInfo | None) -> list[CamtStatement]:
    """Return the statements of a file; `where` is the zone of its days.

    Raises StatementRefused, naming the entry, for what is no camt.053 or not as it must be.
    """
    if _ENDLESS.search(body):
        raise StatementRefused(
            f"a tag is longer than {TAG_BYTES_MAX} bytes, so this is no camt.053; export the "
            "statement again"
        )
    reader = _DocumentReader(where)
    try:
        reader.read(body)
    except ParseError as error:
        raise refusal(reader.entries + 1, _why_unparsed(error)) from error
    except (DefusedXmlException, LookupError, ValueError) as error:
        raise refusal(
            reader.entries + 1,
            f"is not plain XML: {error}; export the statement again, without DTD",
        ) from error
    if not reader.statements:
        raise StatementRefused("the file holds no statement (Stmt); is it a camt.053?")
    return reader.statements


def _why_unparsed(error: ParseError) -> str:
    if error.code == xml_errors.codes[xml_errors.XML_ERROR_JUNK_AFTER_DOC_ELEMENT]:
        return (
            f"is followed by a second XML document ({error}); put each into a file of its own; a "
            "zip of them is read as well"
        )
    return f"is not plain XML: {error}; export the statement again"


class _DocumentReader:
    """Takes what the statements hold, and forgets each element then."""

    def __init__(self, where: ZoneInfo | None) -> None:
        self.where = where
        self.entries = 0
        self.statements: list[CamtStatement] = []

    def read(self, body: bytes) -> None:
        file = io.BytesIO(body)
        file.seek(len(_BLANKS.match(body)[0]))  # type: ignore[index]
        depth = 0
        statement_depth = 0
        statement_node: Element | None = None
        for event, node in iterparse(file, ("start", "end"), forbid_dtd=True):
            if event == "start":
                depth += 1
                if depth > DEPTH_MAX:
                    raise refusal(self.entries + 1, f"is nested deeper than {DEPTH_MAX} elements")
                if statement_node is None and self._begins_statement(node):
                    statement_node, statement_depth = node, depth
                continue
            depth -= 1
            if statement_node is None:
                continue
            if depth == statement_depth:
                self._take(node)
                statement_node.clear()
            elif depth < statement_depth:
                statement_node = None

    def _begins_statement(self, node: Element) -> bool:
        """Return whether an element is a `Stmt`. Raises StatementRefused for another message."""
        name = local_name(node)
        namespace = _NAMESPACE.search(node.tag)
        other = OTHERS.get(name)
        if name in ("Document", MESSAGE) and namespace and namespace[1] != "053":
            other = OTHERS.get(_OTHER_NAMESPACES.get(namespace[1], ""), f"a camt.{namespace[1]}")
        if other is not None:
            raise StatementRefused(f"the file is {other}; export the camt.053, the statement")
        if name == "Document" and "}" in node.tag and not namespace:
            message = node.tag.partition("}")[0].rpartition(":")[2]
            raise StatementRefused(f"the file is {shown(message)}, no camt.053; export that one")
        if name != "Stmt":
            return False
        if len(self.statements) >= STATEMENTS_MAX:
            raise StatementRefused(f"more than {STATEMENTS_MAX} statements; split the file by time")
        self.statements.append(CamtStatement(len(self.statements) + 1, self.where))
        return True

    def _take(self, node: Element) -> None:
        statement = self.statements[-1]
        name = local_name(node)
        if name != "Ntry":
            statement.take(name, fields_of(node))
            return
        self.entries += 1
        check_line_count(self.entries)
        entry = entry_of(self.entries, node)
        amount = amount_of(entry.number, entry.fields)
        mark = entry.fields.first("CdtDbtInd")
        if is_booked(entry):
            statement.booked.add(amount, mark)
            statement.add(line_of(entry, amount, statement.account_currency, self.where))
        else:
            statement.unbooked.add(amount, mark)
