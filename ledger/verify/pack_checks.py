"""Check the events of an audit pack, its books against them, and its journal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal, InvalidOperation
from itertools import zip_longest
from typing import Any, Final

import orjson

from ledger.errors import Tampered
from ledger.eventlog.identity import check_identity
from ledger.evidence.merkle import Frontier
from ledger.evidence.signed_note import Checkpoint
from ledger.export.jsonl import read_event
from ledger.export.offline_fold import BATCH_EVENTS, OfflineFold
from ledger.export.pack_file import PackReader, part_name
from ledger.export.pack_manifest import ABOUT, Packed, books_folder, events_folder
from ledger.payload import total
from ledger.verify.claims import Claim, OpenClaims

BATCH_BYTES: Final = 16 * 1024 * 1024
LINE_CHARACTERS_MAX: Final = 400


@dataclass(slots=True)
class EventsCheck:
    """Checks the events of one source and hands them to the fold."""

    reader: PackReader
    packed: Packed
    claims: Sequence[Claim]
    fold: OfflineFold | None
    beyond: list[Claim] = field(default_factory=list)
    """The claims about more events than the pack has."""
    _tree: Frontier = field(default_factory=Frontier)
    _recorded_at: datetime | None = None
    """Of the event before."""
    _open_claims: OpenClaims = field(init=False)

    def __post_init__(self) -> None:
        self._open_claims = OpenClaims(self.claims)

    def run(self, on_progress: Callable[[int], None]) -> bytes:
        """Return the root over all events. Raises Tampered at the first that does not fit."""
        self._check_claims()
        for batch in self._batches():
            for event in batch:
                self._check_event(event)
                self._check_claims()
            if self.fold is not None:
                self.fold.add(batch)
            on_progress(self._tree.size)
        if self._tree.size != self.packed.position:
            message = f"{ABOUT} names {self.packed.position} events, there are {self._tree.size}"
            raise Tampered("tail", min(self._tree.size, self.packed.position) + 1, message)
        self.beyond = self._open_claims.beyond()
        return self._tree.root()

    def compare_beyond(self, signed: Checkpoint) -> None:
        """Compare the claims beyond the pack's events with its checkpoint, where that reaches.

        Raises Tampered.
        """
        same = [claim for claim in self.beyond if claim.size == signed.size]
        for claim in same:
            if claim.root != signed.root:
                message = f"the pack's checkpoint of {signed.size} is not that of {claim.where}"
                raise Tampered("against", None, message)
        self.beyond = [claim for claim in self.beyond if claim not in same]

    def _batches(self) -> Iterator[list[dict[str, Any]]]:
        rows: list[dict[str, Any]] = []
        size = 0
        folder = events_folder(self.packed.source)
        for position, (name, number, line) in enumerate(self.reader.lines(folder), 1):
            try:
                rows.append(read_event(line))
            except ValueError as error:
                message = f"event {position} ({name}, line {number}) cannot be read: {error}"
                raise Tampered("events", position, message) from error
            size += len(line)
            if len(rows) >= BATCH_EVENTS or size > BATCH_BYTES:
                yield rows
                rows, size = [], 0
        if rows:
            yield rows

    def _check_event(self, event: Mapping[str, Any]) -> None:
        position, source = self._tree.size + 1, self.packed.source
        if event["source"] != source or event["position"] != position:
            raise Tampered("density", position, f"event {position} of {source} is missing")
        check_identity(source, event)
        recorded_at = event["recorded_at"]
        if self._recorded_at is not None and recorded_at < self._recorded_at:
            message = f"event {position} was recorded before the one before it"
            raise Tampered("order", position, message)
        self._recorded_at = recorded_at
        if event["hashed"].hex() != event["leaf"]:
            message = f"event {position} does not have the leaf {event['leaf'][:16]}… of its line"
            raise Tampered("seals", position, message)
        self._tree.append(event["hashed"])

    def _check_claims(self) -> None:
        claim = self._open_claims.contradiction(self._tree)
        if claim is not None:
            message = f"the first {claim.size} events are not those that {claim.where} has signed"
            raise Tampered("against", None, message)


@dataclass(slots=True)
class BooksCheck:
    """Compares the members of the books that the fold makes with those in the pack."""

    reader: PackReader
    source: str
    made: set[str] = field(default_factory=set)
    """The names of the members that the fold made."""
    differences: list[Tampered] = field(default_factory=list)
    """The first difference of each table."""
    _differing: set[str] = field(default_factory=set)
    """The tables with a difference."""

    def compare(self, name: str, data: bytes) -> None:
        """Compare a member that the fold made; keep the first difference of each table."""
        self.made.add(name)
        table = name.split("/")[2]
        member = self.reader.members.get(name)
        is_as_long = member is not None and member.size == len(data)
        if is_as_long and b"".join(self.reader.bytes_of(name)) == data:
            return
        if table not in self._differing:
            self._differing.add(table)
            self.differences.append(self._difference(name, table, data))

    def unexpected(self) -> list[Tampered]:
        """Return the members of the pack that the fold does not make."""
        return [
            Tampered("books", None, f"{name}: the events of the pack do not make it")
            for name in sorted(books_of(self.reader, self.source) - self.made)
        ]

    def _difference(self, name: str, table: str, data: bytes) -> Tampered:
        if name not in self.reader.members:
            return Tampered("books", None, f"{name} is missing; the events make it")
        expected_lines = data.splitlines(keepends=True)
        packed_lines = _lines_of(self.reader, name)
        for number, (expected, line) in enumerate(zip_longest(expected_lines, packed_lines), 1):
            if expected != line:
                message = f"{name}, line {number}: {_shortened(line)}; the events make "
                return Tampered("books", _position(expected, line), message + _shortened(expected))
        return Tampered("books", None, f"{name} differs from what the events make")


def check_journal(reader: PackReader, packed: Packed) -> int:
    """Check that the pack's entries balance at every position; return how many there are.

    Raises Tampered.
    """
    sums: dict[str, Decimal] = {}
    current = count = 0
    for name, number, line in reader.lines(books_folder(packed.source, "entries")):
        try:
            entry = orjson.loads(line)
            position, currency = int(entry["position"]), str(entry["currency"])
            amount = Decimal(entry["amount"])
        except (ValueError, TypeError, KeyError, InvalidOperation) as error:
            message = f"{name}, line {number} cannot be read: {error}"
            raise Tampered("journal", None, message) from error
        if position != current:
            _check_sums(current, sums)
            if not current < position <= packed.position:
                raise Tampered("journal", position, f"{name}, line {number} is out of order")
            current, sums = position, {}
        sums[currency] = total(sums.get(currency, Decimal(0)), amount)
        count += 1
    _check_sums(current, sums)
    return count


def _check_sums(position: int, sums: Mapping[str, Decimal]) -> None:
    for currency, rest in sums.items():
        if rest:
            message = f"the entries of event {position} are off by {rest} {currency}"
            raise Tampered("journal", position, message)


def part_names(reader: PackReader, folder: str) -> list[str]:
    """Return the parts of a table that a pack has, in order."""
    names: list[str] = []
    while (name := part_name(folder, len(names) + 1)) in reader.members:
        names.append(name)
    return names


def books_of(reader: PackReader, source: str) -> set[str]:
    """Return every member that claims to be of a source's books."""
    return {name for name in reader.members if name.startswith(books_folder(source, ""))}


def _lines_of(reader: PackReader, name: str) -> Iterator[bytes]:
    folder, _, _ = name.rpartition("/")
    return (line for member, _, line in reader.lines(folder) if member == name)


def _shortened(line: bytes | None) -> str:
    text = "nothing" if line is None else line.decode("utf-8", "replace").rstrip("\n")
    return text if len(text) <= LINE_CHARACTERS_MAX else text[: LINE_CHARACTERS_MAX - 1] + "…"


def _position(*lines: bytes | None) -> int | None:
    """Return the log position that a row names, if it names one."""
    for line in lines:
        try:
            position = orjson.loads(line or b"{}").get("position")
        except (ValueError, AttributeError):
            continue
        if isinstance(position, int):
            return position
    return None
