"""Read a zip of statement files of one account and currency as one statement.

Banks deliver a month as a zip of daily files. Its members are read one by one, in memory, within
the limits of one file; no member's name is ever used as a path.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import pairwise
from typing import Final

from ledger.errors import OtherAccount
from ledger.model import changed, plain, shown
from ledger.statements.formats.chain import Balances, chained, is_gap, time_between
from ledger.statements.model import Reading, Statement, StatementRefused, core_of
from ledger.statements.validation import NOTES_MAX, check_line_count, checked_statement, period

MEMBERS_MAX: Final = 5_000
"""Files in one zip: those of several accounts for a year, one a day."""
_MAGIC: Final = (b"PK\x03\x04", b"PK\x05\x06")
_OFFICE: Final = "[Content_Types].xml"
"""The member that makes a zip a document of an office program, as XLSX."""
_ADDED_FOLDERS: Final = ("__MACOSX",)
_ADDED_NAMES: Final = ("thumbs.db", "desktop.ini")
_ENCRYPTED: Final = 0x1
_METHODS: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_DAMAGED: Final = (zipfile.BadZipFile, NotImplementedError, ValueError)
_PDF: Final = b"%PDF-"


@dataclass(frozen=True, slots=True)
class _Member:
    """The statement of one file of the zip."""

    name: str
    """As messages show it."""
    statement: Statement

    @property
    def begins_at(self) -> datetime:
        return self.statement.claimed_from or self.statement.opened_at

    def balances(self) -> Balances:
        return self.statement.opening, self.statement.closing

    def key(self) -> tuple[datetime, datetime, str]:
        return self.begins_at, self.statement.closed_at, self.name


def is_archive(body: bytes) -> bool:
    """Return whether a file is a zip of files, and no document of an office program."""
    if not body.startswith(_MAGIC):
        return False
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            return _OFFICE not in archive.namelist()
    except _DAMAGED:
        return True  # and is refused as damaged


def read_archive(
    body: bytes, how: Reading, read_member: Callable[[bytes, Reading], Statement], bytes_max: int
) -> Statement:
    """Read the members of a zip, which must follow each other, by `read_member`.

    With an account or a currency given, members about others are left out. Raises StatementRefused,
    naming the member.
    """
    members: list[_Member] = []
    others: list[StatementRefused] = []
    notes: list[str] = []
    lines = 0
    for name, content in _contents(body, bytes_max, notes):
        try:
            statement = changed(read_member(content, replace(how, window=None)), body=b"")
        except OtherAccount as error:
            others.append(OtherAccount(f"member {name}: {error}"))
        except StatementRefused as error:
            raise StatementRefused(f"member {name}: {error}") from error
        else:
            members.append(_Member(name, statement))
            lines += len(statement.lines)
            check_line_count(lines)
    if not members:
        raise next(iter(others), StatementRefused("the zip holds no statement; export it again"))
    if others:
        notes.append(f"{len(others)} of the zip's files are about other accounts and left out")
    _check_alike(members)
    ordered = chained(_distinct(members, notes), _Member.key, _Member.balances)
    _check_chain(ordered)
    return _joined(ordered, body, how, notes)


def _contents(body: bytes, bytes_max: int, notes: list[str]) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the content of each member that is a statement's file."""
    known: dict[bytes, str] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            members = [each for each in archive.infolist() if not _is_skipped(each)]
            _check_limits(members, bytes_max)
            for member in members:
                content = archive.read(member)
                name = shown(member.filename)
                first = known.setdefault(hashlib.sha256(content).digest(), name)
                if is_archive(content):
                    raise StatementRefused(f"member {name} is a zip itself; unpack it first")
                if content.startswith(_PDF):
                    notes.append(f"member {name} is a PDF and left out")
                elif first != name:
                    notes.append(f"member {name} is a copy of {first} and left out")
                else:
                    yield name, content
    except (*_DAMAGED, EOFError, OSError, zlib.error) as error:
        raise StatementRefused(f"the zip is damaged ({error}); export it again") from error


def _is_skipped(member: zipfile.ZipInfo) -> bool:
    """Return whether a member is a folder, or what an operating system adds to a zip."""
    *folders, name = member.filename.split("/")
    is_added = name.startswith(".") or name.lower() in _ADDED_NAMES
    is_folder = member.filename.endswith("/")
    return is_folder or is_added or any(each in _ADDED_FOLDERS for each in folders)


def _check_limits(members: Sequence[zipfile.ZipInfo], bytes_max: int) -> None:
    """Refuse a zip by what its directory states, before anything is unpacked.

    The library reads no more of a member than the directory states.
    """
    if not members:
        raise StatementRefused("the zip holds no file; export it again")
    if len(members) > MEMBERS_MAX:
        raise StatementRefused(
            f"the zip holds {len(members)} files, more than {MEMBERS_MAX}; split it by time"
        )
    if sum(each.file_size for each in members) > bytes_max:
        raise StatementRefused(
            f"the zip holds more than {bytes_max} bytes when unpacked; split it by time"
        )
    for member in members:
        if member.flag_bits & _ENCRYPTED:
            raise StatementRefused(
                f"member {shown(member.filename)} is encrypted; unpack the zip with its password "
                "and import the files"
            )
        if member.compress_type not in _METHODS:
            raise StatementRefused(
                f"member {shown(member.filename)} is compressed by method "
                f"{member.compress_type}, which is not read; zip the files again"
            )


def _distinct(members: Sequence[_Member], notes: list[str]) -> list[_Member]:
    """Leave out members that state the same as one before: a bank's second export of a day."""
    known: dict[tuple[object, ...], _Member] = {}
    for member in members:
        statement = member.statement
        content = (
            statement.account,
            statement.currency,
            *member.key()[:2],
            *member.balances(),
            *((*core_of(line), line.description) for line in statement.lines),
        )
        first = known.setdefault(content, member)
        if first is not member:
            notes.append(f"member {member.name} repeats {first.name} and is left out")
    return list(known.values())


def _check_alike(members: Sequence[_Member]) -> None:
    """Refuse members of several accounts, currencies or formats."""
    statements = [member.statement for member in members]
    for values, choice in (
        ({each.format for each in statements}, "zip the files of each format apart"),
        ({each.account or "no account" for each in statements}, "choose one (--account)"),
        ({each.currency for each in statements}, "choose one (--currency)"),
    ):
        if len(values) > 1:
            raise StatementRefused(f"the zip is about {', '.join(sorted(values))}; {choice}")


def _check_chain(members: Sequence[_Member]) -> None:
    """Refuse members unless each opens with what the one before closed with and none is missing."""
    for earlier, later in pairwise(members):
        closing, opening = earlier.statement.closing, later.statement.opening
        if closing is None or opening is None:
            _check_meeting(earlier, later)
        elif closing != opening:
            raise StatementRefused(
                f"member {later.name} opens with {plain(opening)}, but {earlier.name}, the one "
                f"before, closes with {plain(closing)}; a file between them is missing: add it, "
                "or import each by itself"
            )
        else:
            _check_gap(earlier, later)


def _check_meeting(earlier: _Member, later: _Member) -> None:
    """Refuse two members without balances unless the one begins where the other ends."""
    ended_at, begins_at = earlier.statement.closed_at, later.begins_at
    if begins_at < ended_at:
        raise StatementRefused(
            f"member {later.name} begins at {begins_at.isoformat()}, before member {earlier.name} "
            f"ends at {ended_at.isoformat()}, and no balances show that one follows the other; "
            "import each by itself"
        )
    if begins_at > ended_at:
        missing = time_between(ended_at, begins_at, later.statement.where)
        raise StatementRefused(
            f"no member is about {missing}, between {earlier.name} and {later.name}, and no "
            "balances show that nothing was booked then; import each by itself"
        )


def _check_gap(earlier: _Member, later: _Member) -> None:
    """Refuse two members between which a business day lies."""
    ended_at, begins_at = earlier.statement.closed_at, later.begins_at
    may_begin_earlier = later.statement.claimed_from is not None
    where = later.statement.where
    if is_gap(ended_at, begins_at, where, may_begin_earlier=may_begin_earlier):
        raise StatementRefused(
            f"no member is about {time_between(ended_at, begins_at, where)}, between "
            f"{earlier.name} and {later.name}; add the file of that time, or import the files one "
            "by one: reconciling then names what is missing"
        )


def _joined(
    members: Sequence[_Member], body: bytes, how: Reading, notes: Sequence[str]
) -> Statement:
    first, last = members[0].statement, members[-1].statement
    lines = [line for member in members for line in member.statement.lines]
    joined = checked_statement(
        lines,
        body=body,
        format=first.format,
        currency=first.currency,
        window=period(how.window, (members[0].begins_at, last.closed_at)),
        opening=first.opening,
        closing=last.closing,
        account=first.account,
        where=first.where,
        are_ids_unique=all(line.name == line.id for line in lines),
    )
    all_notes = [
        *notes,
        *(f"member {member.name}: {note}" for member in members for note in member.statement.notes),
    ]
    if how.window is not None:
        return changed(joined, notes=tuple(all_notes[:NOTES_MAX]))
    return changed(
        joined,
        opened_at=first.opened_at,
        claimed_from=first.claimed_from,
        notes=tuple(all_notes[:NOTES_MAX]),
    )
