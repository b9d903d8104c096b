"""Folds facts through the real fold (`ledger.fold`) with dictionaries where the books would be.

Nothing here decides anything: what the program writes is kept as it is written, and what it reads
back is what it wrote, through JSON, so that a law broken by a state's encoding shows as well.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec

from ledger import registry
from ledger.fold.batch import Batch, StoredStream, run
from ledger.fold.change import ChangeSet, StreamKey, TranslatedEvent
from ledger.fold.stream_state import StreamState, encode
from ledger.fold.translate import dated
from ledger.model import Fact, SourceTerms, StreamProjection, Table, changed, plain, total

STRAITSX = SourceTerms("straitsx", "straitsx")
GOKART = SourceTerms("gokart", "gokart", "USD")
START = datetime(2026, 1, 1, tzinfo=UTC)
LATER = datetime(2026, 6, 1, tzinfo=UTC)
TYPES = {
    "text": str, "bigint": int, "int": int, "numeric": Decimal, "timestamptz": datetime,
    "boolean": bool,
}  # fmt: skip


def at(minutes: int) -> datetime:
    """Return a provider's time, `minutes` after the start."""
    return START + timedelta(minutes=minutes)


def money(kind: str, status: str, minutes: int = 0, /, **given: Any) -> Fact:
    """Return a money fact: 100 XSGD with a fee of 2, told `minutes` after the start."""
    terms = {
        "swap": {"target_amount": "75.16", "target_currency": "USDC"},
        "fx_payout": {"to_amount": "1583250", "to_currency": "IDR"},
    }
    known: dict[str, Any] = {
        "kind": kind,
        "resource_id": "contract_1",
        "status": status,
        "effective_at": at(minutes),
        "amount": Decimal(100),
        "currency": "XSGD",
        "fees": Decimal(2),
        "terms": terms.get(kind, {}),
    }
    return Fact(**{**known, **given})


def word(kind: str, status: str, minutes: int | None = 0, /, **given: Any) -> Fact:
    """Return a fact about a person, an account or a limit; None minutes: no provider's time."""
    told_at = None if minutes is None else at(minutes)
    known: dict[str, Any] = {"kind": kind, "resource_id": "thing_1", "status": status}
    return Fact(**{**known, "effective_at": told_at, **given})


def keep(fact: Fact, position: int | None, reason: str = "conflict") -> Fact:
    """Return an operator's decision on the stream of `fact`; None only acknowledges."""
    details = {
        "kind": fact.kind,
        "resource": fact.resource_id,
        "reason": reason,
        "exception": "0123456789abcdef",
        "note": "asked the provider",
        "by": "ops",
        "keep": position,
    }
    return Fact("decision", "0123456789abcdef", "keep" if position else "acknowledge",
                details=details)  # fmt: skip


def attribute(fact: Fact, customer_id: str | None) -> Fact:
    """Return an operator's decision on whose the stream of `fact` is; None undoes it."""
    details: dict[str, Any] = {
        "action": "attribute",
        "kind": fact.kind,
        "resource": fact.resource_id,
        "customer_id": customer_id,
        "note": "asked them",
        "by": "ops",
    }
    return Fact("decision", fact.resource_id, "attribute", details=details)


def event_id(fact: Fact) -> str:
    """Name an event by what it tells, as the program names it by its bytes."""
    return hashlib.sha256(repr(fact).encode()).hexdigest()[:32]


def received_at(position: int) -> datetime:
    """Return when we received the event at a position."""
    return LATER + timedelta(seconds=position)


def event(fact: Fact, position: int) -> TranslatedEvent:
    """Place a fact in the log."""
    moment = received_at(position)
    return TranslatedEvent(
        position, event_id(fact), fact.kind, fact.resource_id, fact.status, moment, moment, fact
    )


def check_types(table: Table, row: Mapping[str, Any]) -> None:
    """Check that plain columns hold exactly their own types: COPY is written without a look."""
    for name, value in row.items():
        expected = TYPES.get(table.columns[name])
        assert value is None or expected is None or type(value) is expected, (
            table.name,
            name,
            value,
        )


def translated(facts: Sequence[Fact], terms: SourceTerms, first: int = 1) -> list[TranslatedEvent]:
    """Return the events of a log from position `first` on, dated as the source declares."""
    return [
        changed(event(fact, position), fact=dated(fact, terms, received_at(position)))
        for position, fact in enumerate(facts, first)
    ]


@dataclass
class Books:
    """What the program wrote, and how it would read it back."""

    terms: SourceTerms = STRAITSX
    head: int = 0
    saved: dict[StreamKey, tuple[int, int, bytes]] = field(default_factory=dict)
    rows: dict[StreamKey, Mapping[str, Any]] = field(default_factory=dict)
    tables: dict[str, list[tuple[Any, ...]]] = field(default_factory=lambda: defaultdict(list))
    sums: dict[tuple[str, str], tuple[Decimal, Decimal]] = field(default_factory=dict)
    links: dict[str, set[StreamKey]] = field(default_factory=lambda: defaultdict(set))
    parked: set[StreamKey] = field(default_factory=set)

    def report(self, *facts: Fact, batches: Iterable[int] = ()) -> Books:
        """Append facts to the log and fold them, in batches of the given sizes, then the rest."""
        events = translated(facts, self.terms, self.head + 1)
        self.head += len(events)
        for size in batches:
            if events:
                self._fold(events[:size])
                events = events[size:]
        if events:
            self._fold(events)
        return self

    def _fold(self, events: Sequence[TranslatedEvent]) -> None:
        found = registry.load()
        batch = Batch(self.terms, found.streams, found.projections, events, parked={*self.parked})
        self.keep(run(batch, self))

    def keep(self, change: ChangeSet) -> None:
        """Write down what a batch changed."""
        found = registry.load()
        for stream in change.streams:
            raw = encode(stream.stored)
            self.saved[stream.key] = (stream.first_position, stream.position, raw)
            assert stream.row is not None
            check_types(stream.projection.table, stream.row)
            self.rows[stream.key] = stream.row
        tables = {each.table.name: each.table for each in found.projections}
        for name, made in change.rows.items():
            for row in made:
                check_types(tables[name], dict(zip(tables[name].columns, row, strict=True)))
            self.tables[name] += made
        for (_, account, currency), (debits, credited) in change.sums.get("balances", {}).items():
            known = self.sums.get((account, currency), (Decimal(0), Decimal(0)))
            self.sums[account, currency] = (total(known[0], debits), total(known[1], credited))
        for link, kind, resource in change.links:
            self.links[link].add((kind, resource))
        self.parked |= {park.key for park in change.parked}

    def streams(self, keys: Sequence[StreamKey]) -> Iterable[StoredStream]:
        """Return the saved streams among `keys`."""
        return [(key, *self.saved[key]) for key in keys if key in self.saved]

    def linked(
        self, links: Sequence[str], streams_max: int | None
    ) -> Iterable[tuple[str, StreamKey]]:
        """Return the first streams under each of `links`, or all of them."""
        return [(link, key) for link in links for key in sorted(self.links[link])[:streams_max]]

    def stored(self, key: StreamKey) -> StreamState:
        """Return what a stream's row keeps for the fold."""
        return msgspec.json.decode(self.saved[key][2], type=StreamState)

    def legs(self, key: StreamKey | None = None) -> list[tuple[str, ...]]:
        """Return the dated legs of a stream, or of all, as the row keeps them."""
        keys = [key] if key else sorted(self.saved)
        return [
            (leg.effective_at.isoformat(), leg.account, leg.currency, str(leg.amount))
            for k in keys
            for leg in self.stored(k).legs
        ]

    def balance(self, account: str, currency: str) -> Decimal:
        """Return debits minus credits of an account."""
        debits, credited = self.sums.get((account, currency), (Decimal(0), Decimal(0)))
        return total(debits, credited.copy_negate())

    def balances(self) -> dict[str, str]:
        """Return debits minus credits of every account that is not empty, as plain text."""
        found = {f"{a} {c}": self.balance(a, c) for a, c in sorted(self.sums)}
        return {name: f"{amount.normalize():f}" for name, amount in found.items() if amount}

    def issues(self, key: StreamKey) -> list[str]:
        """Return the reasons of the issues that a stream has now."""
        return self.stored(key).issues

    def account(self, key: StreamKey) -> dict[str, Any]:
        """Return what a transaction's row, legs and issues say, for `naive.Account.summary`."""
        row, details = self.rows[key], self.rows[key]["details"]
        lines = {(leg.effective_at, leg.account, leg.currency): leg.amount
                 for leg in self.stored(key).legs}  # fmt: skip
        if key[0] == "conversion":
            return {"lines": lines}
        returned = details.get("returned_amount")
        return {
            "status": row["status"],
            "lines": lines,
            "fees": row["fees"],
            "flags": {*row["flags"]},
            "issues": {*self.issues(key)},
            "return_of": row["return_of"],
            "returned": None if returned is None else Decimal(returned),
            "returns": details.get("return_count", 0),
            "customer": row["customer_id"],
            "details": {name: details.get(name) for name in ("note", "remark")},
        }

    def meaning(self) -> bytes:
        """Return everything the books mean, as bytes: rows, dated legs, sums, issues.

        Where in the log things stand is left out: it tells the order of arrival.
        """
        rows = {
            "/".join(key): (meant(row), self.legs(key), self.issues(key))
            for key, row in sorted(self.rows.items())
        }
        sums = {f"{a} {c}": map(plain, both) for (a, c), both in self.sums.items() if any(both)}
        listed = {name: [*amounts] for name, amounts in sums.items()}
        return msgspec.json.encode((rows, listed, sorted(self.parked)), order="deterministic")

    def everything(self) -> bytes:
        """Return all that was written, as bytes, positions and states included."""
        tables = {name: sorted(map(repr, rows)) for name, rows in self.tables.items()}
        saved = {"/".join(key): (a, b, raw.decode()) for key, (a, b, raw) in self.saved.items()}
        return self.meaning() + msgspec.json.encode((tables, saved), order="deterministic")


def meant(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a row without where and when it was told how much of a limit was used."""
    used = row.get("used")
    return row if used is None else {**row, "used": {n: u["amount"] for n, u in used.items()}}


def stated(*facts: Fact, terms: SourceTerms = STRAITSX) -> Books:
    """Fold facts into empty books."""
    return Books(terms).report(*facts)


def one(*facts: Fact, terms: SourceTerms = STRAITSX) -> Books:
    """Fold facts, one batch each, into empty books."""
    return Books(terms).report(*facts, batches=[1] * len(facts))


def projection(kind: str) -> StreamProjection:
    """Return the projection that folds a kind."""
    return registry.load().streams[kind]


def again(fact: Fact, **changes: Any) -> Fact:
    """Return a fact told again with something changed."""
    return changed(fact, **changes)
