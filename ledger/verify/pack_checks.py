"""The parts of checking an audit pack: its events, its books against them, its journal."""

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
from ledger.verify.log import Claim

BATCH_BYTES: Final = 16 * 1024 * 1024
TOLD_MAX: Final = 400


@dataclass(slots=True)
class EventsCheck:
    """Checks the events of one source and hands them to the fold."""

    reader: PackReader
    packed: Packed
    claims: Sequence[Claim]
    fold: OfflineFold | None
    beyond: list[Claim] = field(default_factory=list)
    """Checkpoints kept elsewhere that the pack does not reach."""
    _frontier: Frontier = field(default_factory=Frontier)
    _recorded_at: datetime | None = None

    def run(self, progress: Callable[[int], None]) -> bytes:
        """Return the root over all events. Raises Tampered at the first that does not fit."""
        open_claims: dict[int, list[Claim]] = {}
        for claim in self.claims:
            open_claims.setdefault(claim.size, []).append(claim)
        self._check_claims(open_claims)
        for batch in self._batches():
            for event in batch:
                self._event(event)
                self._check_claims(open_claims)
            if self.fold is not None:
                self.fold.add(batch)
            progress(self._frontier.size)
        if self._frontier.size != self.packed.position:
            told = f"{ABOUT} names {self.packed.position} events, there are {self._frontier.size}"
            raise Tampered("tail", min(self._frontier.size, self.packed.position) + 1, told)
        self.beyond = [claim for claims in open_claims.values() for claim in claims]
        return self._frontier.root()

    def compare_beyond(self, signed: Checkpoint) -> None:
        """Compare checkpoints kept elsewhere with the pack's own, which may cover more events."""
        same = [claim for claim in self.beyond if claim.size == signed.size]
        for claim in same:
            if claim.root != signed.root:
                told = f"the pack's checkpoint of {signed.size} is not that of {claim.where}"
                raise Tampered("against", None, told)
        self.beyond = [claim for claim in self.beyond if claim not in same]

    def _batches(self) -> Iterator[list[dict[str, Any]]]:
        rows: list[dict[str, Any]] = []
        size = 0
        folder = events_folder(self.packed.source)
        for position, (name, number, line) in enumerate(self.reader.lines(folder), 1):
            try:
                rows.append(read_event(line))
            except ValueError as error:
                told = f"event {position} ({name}, line {number}) cannot be read: {error}"
                raise Tampered("events", position, told) from error
            size += len(line)
            if len(rows) >= BATCH_EVENTS or size > BATCH_BYTES:
                yield rows
                rows, size = [], 0
        if rows:
            yield rows

    def _event(self, event: Mapping[str, Any]) -> None:
        position, source = self._frontier.size + 1, self.packed.source
        if event["source"] != source or event["position"] != position:
            raise Tampered("density", position, f"event {position} of {source} is missing")
        check_identity(source, event)
        recorded_at = event["recorded_at"]
        if self._recorded_at is not None and recorded_at < self._recorded_at:
            told = f"event {position} was recorded before the one before it"
            raise Tampered("order", position, told)
        self._recorded_at = recorded_at
        if event["hashed"].hex() != event["leaf"]:
            told = (
                f"event {position} is not the one whose leaf {event['leaf'][:16]}… stands with it"
            )
            raise Tampered("seals", position, told)
        self._frontier.append(event["hashed"])

    def _check_claims(self, open_claims: dict[int, list[Claim]]) -> None:
        size = self._frontier.size
        for claim in open_claims.pop(size, ()):
            if claim.root != self._frontier.root():
                told = f"the first {size} events are not those that {claim.where} has signed"
                raise Tampered("against", None, told)


@dataclass(slots=True)
class BooksCheck:
    """Compares the parts of the books as they are made with those in the pack."""

    reader: PackReader
    source: str
    seen: set[str] = field(default_factory=set)
    found: list[Tampered] = field(default_factory=list)
    _bad: set[str] = field(default_factory=set)

    def put(self, name: str, data: bytes) -> None:
        """Take a part that the events make; the first difference of each table is kept."""
        self.seen.add(name)
        table = name.split("/")[2]
        member = self.reader.members.get(name)
        is_as_long = member is not None and member.size == len(data)
        if is_as_long and b"".join(self.reader.bytes_of(name)) == data:
            return
        if table not in self._bad:
            self._bad.add(table)
            self.found.append(self._difference(name, table, data))

    def unexpected(self) -> list[Tampered]:
        """Return what the pack has beyond what the events make."""
        return [
            Tampered("books", None, f"{name}: no event of the pack has a part in it")
            for name in sorted(books_of(self.reader, self.source) - self.seen)
        ]

    def _difference(self, name: str, table: str, data: bytes) -> Tampered:
        if name not in self.reader.members:
            return Tampered("books", None, f"{name} is missing; the events make it")
        mine = data.splitlines(keepends=True)
        theirs = _lines_of(self.reader, name)
        for number, (made, kept) in enumerate(zip_longest(mine, theirs), 1):
            if made != kept:
                told = f"{name}, line {number}: {_told(kept)}; the events say {_told(made)}"
                return Tampered("books", _position(made, kept), told)
        return Tampered("books", None, f"{name} differs from what the events make")


def check_journal(reader: PackReader, each: Packed) -> int:
    """Check that the pack's entries balance at every position; return how many there are.

    Raises Tampered.
    """
    sums: dict[str, Decimal] = {}
    place = count = 0
    for name, number, line in reader.lines(books_folder(each.source, "entries")):
        try:
            entry = orjson.loads(line)
            position, currency = int(entry["position"]), str(entry["currency"])
            amount = Decimal(entry["amount"])
        except (ValueError, TypeError, KeyError, InvalidOperation) as error:
            told = f"{name}, line {number} cannot be read: {error}"
            raise Tampered("journal", None, told) from error
        if position != place:
            _check_sums(place, sums)
            if not place < position <= each.position:
                raise Tampered("journal", position, f"{name}, line {number} is out of order")
            place, sums = position, {}
        sums[currency] = total(sums.get(currency, Decimal(0)), amount)
        count += 1
    _check_sums(place, sums)
    return count


def _check_sums(position: int, sums: Mapping[str, Decimal]) -> None:
    for currency, rest in sums.items():
        if rest:
            told = f"the entries of event {position} are off by {rest} {currency}"
            raise Tampered("journal", position, told)


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


def _told(line: bytes | None) -> str:
    text = "nothing" if line is None else line.decode("utf-8", "replace").rstrip("\n")
    return text if len(text) <= TOLD_MAX else text[: TOLD_MAX - 1] + "…"


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
