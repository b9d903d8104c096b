"""Read the XML of a camt.053, entry by entry, and refuse what is none.

The parser of Python's library (expat) calls a method for each element, which takes half the time of
building a tree. A document type declaration (DTD) is refused, so there are no entities to attack
with, and no other file is ever opened.
"""

from __future__ import annotations

import re
from typing import Final
from xml.parsers import expat
from zoneinfo import ZoneInfo

from ledger.model import shown
from ledger.statements.formats.camt053.entry import (
    Entry,
    amount_of,
    is_booked,
    line_of,
    status_of,
)
from ledger.statements.formats.camt053.fields import Fields
from ledger.statements.formats.camt053.statement import CamtStatement
from ledger.statements.model import StatementRefused
from ledger.statements.validation import check_line_count, refusal

STATEMENTS_MAX: Final = 10_000
"""Statements (`Stmt`) in one file."""
TAG_BYTES_MAX: Final = 65_536
"""Bytes between `<` and `>`: the parser reads an endless tag again with every piece of it."""
DEPTH_MAX: Final = 64
MESSAGE: Final = "BkToCstmrStmt"
OTHERS: Final = {
    "BkToCstmrAcctRpt": "a camt.052, the report of a day that is not over",
    "BkToCstmrDbtCdtNtfctn": "a camt.054, a notification of single bookings without balances",
}
"""Messages that banks deliver beside the statement, by their element."""
_OTHER_NUMBERS: Final = {"052": "BkToCstmrAcctRpt", "054": "BkToCstmrDbtCdtNtfctn"}
_NUMBER: Final = re.compile(r"camt\.(\d{3})\.")
_ENDLESS: Final = re.compile(rb"<[^<>]{%d}" % TAG_BYTES_MAX)
_BLANKS: Final = re.compile(rb"\s*")
_UTF_16_MARKS: Final = (b"\xff\xfe", b"\xfe\xff")
_DECLARES_UTF_16: Final = re.compile(
    rb"""(?:\xef\xbb\xbf)?<\?xml[^>]*encoding=["']utf-16""", re.IGNORECASE
)
_JUNK: Final = expat.errors.codes[expat.errors.XML_ERROR_JUNK_AFTER_DOC_ELEMENT]


def read_document(body: bytes, where: ZoneInfo | None) -> list[CamtStatement]:
    """Return the statements of a file; `where` is the zone of its days.

    Raises StatementRefused, naming the entry, for what is no camt.053 or not as it must be.
    """
    if _ENDLESS.search(body):
        raise StatementRefused(
            f"a tag is longer than {TAG_BYTES_MAX} bytes, so this is no camt.053; export the "
            "statement again"
        )
    document = _Document(where)
    try:
        document.parse(body)
    except expat.ExpatError as error:
        raise refusal(document.entries + 1, _why_unparsed(error)) from error
    except (LookupError, ValueError) as error:
        raise refusal(
            document.entries + 1, f"is not plain XML: {error}; export the statement again"
        ) from error
    if not document.statements:
        raise StatementRefused("the file holds no statement (Stmt); is it a camt.053?")
    return document.statements


def _why_unparsed(error: expat.ExpatError) -> str:
    if error.code == _JUNK:
        return (
            f"is followed by a second XML document ({error}); put each into a file of its own; a "
            "zip of them is read as well"
        )
    return f"is not plain XML: {error}; export the statement again"


def _encoding(body: bytes) -> str | None:
    """Return the encoding of a file that declares another one than it has; None = as declared.

    Programs write what they have as text of UTF-16 into a file of UTF-8, and the other way round.
    """
    if body.startswith(_UTF_16_MARKS):
        return "utf-16"
    return "utf-8" if _DECLARES_UTF_16.match(body) else None


class _Document:
    """Takes what the statements hold, element by element, and keeps nothing else."""

    def __init__(self, where: ZoneInfo | None) -> None:
        self.where = where
        self.entries = 0
        self.statements: list[CamtStatement] = []
        self._depth = 0
        self._statement_depth = 0
        """Of the `Stmt` that is open; 0 outside of any."""
        self._fields = Fields()
        """Of the element within it, or of the transaction within that."""
        self._paths: list[str] = []
        """Of the elements that are open within it."""
        self._outer: list[Fields] = []
        self._entry: Entry | None = None
        self._texts: list[str] = []

    def parse(self, body: bytes) -> None:
        """Parse a file. Raises StatementRefused, ExpatError, LookupError or ValueError."""
        body = body[len(_BLANKS.match(body)[0]) :] if body[:1].isspace() else body  # type: ignore[index]
        parser = expat.ParserCreate(_encoding(body), "}")
        parser.buffer_text = True
        parser.StartDoctypeDeclHandler = self._refuse_dtd
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._texts.append
        parser.Parse(body, True)

    def _refuse_dtd(self, *_: object) -> None:
        raise refusal(self.entries + 1, "has a DTD; export the statement again, without it")

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise refusal(self.entries + 1, f"is nested deeper than {DEPTH_MAX} elements")
        if not self._statement_depth:
            self._start_outside(tag)
            return
        name = tag.rpartition("}")[2]
        self._texts.clear()
        within = self._depth - self._statement_depth
        if within == 1:
            self._fields = Fields()
            if name == "Ntry":
                self.entries += 1
                check_line_count(self.entries)
                self._entry = Entry(self.entries, self._fields)
            path = ""
        elif self._entry is not None and name == "TxDtls" and within <= 3 and not self._outer:
            self._outer.append(self._fields)
            self._fields = Fields()
            self._entry.details.append(self._fields)
            path = ""
        else:
            path = f"{self._paths[-1]}/{name}" if self._paths[-1] else name
        self._paths.append(path)
        for key, value in attributes.items():
            self._fields.add(f"{path}@{key.rpartition('}')[2]}", value)

    def _end(self, tag: str) -> None:
        self._depth -= 1
        if not self._statement_depth:
            return
        within = self._depth - self._statement_depth
        if within < 0:  # the statement itself
            self._statement_depth = 0
            return
        path = self._paths.pop()
        if self._texts:
            self._fields.add(path, "".join(self._texts))
            self._texts.clear()
        if within == 0:
            self._take(tag.rpartition("}")[2])
        elif not path:  # a transaction
            self._fields = self._outer.pop()

    def _start_outside(self, tag: str) -> None:
        """Take an element outside of statements. Raises StatementRefused for another message."""
        namespace, _, name = tag.rpartition("}")
        number = _NUMBER.search(namespace)
        other = OTHERS.get(name)
        if name in ("Document", MESSAGE) and number and number[1] != "053":
            other = OTHERS.get(_OTHER_NUMBERS.get(number[1], ""), f"a camt.{number[1]}")
        if other is not None:
            raise StatementRefused(f"the file is {other}; export the camt.053, the statement")
        if name == "Document" and namespace and not number:
            message = namespace.rpartition(":")[2]
            raise StatementRefused(f"the file is {shown(message)}, no camt.053; export that one")
        if name != "Stmt":
            return
        if len(self.statements) >= STATEMENTS_MAX:
            raise StatementRefused(f"more than {STATEMENTS_MAX} statements; split the file by time")
        self.statements.append(CamtStatement(len(self.statements) + 1, self.where))
        self._statement_depth = self._depth
        self._paths.clear()

    def _take(self, name: str) -> None:
        """Take an element of the statement that is complete."""
        statement, entry = self.statements[-1], self._entry
        if entry is None:
            statement.take(name, self._fields)
            return
        self._entry = None
        amount = amount_of(entry.number, entry.fields)
        mark = entry.fields.first("CdtDbtInd")
        if is_booked(entry):
            statement.booked.add(amount, mark)
            statement.add(line_of(entry, amount, statement.account_currency, self.where))
        else:
            statement.leave_out(entry.number, status_of(entry), amount, mark)
