"""Statement parts: where in the log the bytes of each imported file are."""

from __future__ import annotations

from ledger.model import Record, RecordedFact, Related, SourceTerms, StreamProjection, Table, View


class Part(Record, frozen=True):
    """The state: which part of which file it is."""

    file: str
    part: int
    parts: int


def fold(state: Part | None, seen: RecordedFact) -> Part:
    """Return the part; the same bytes are the same part."""
    details = seen.fact.details
    return Part(str(details["sha256"]), int(details["part"]), int(details["parts"]))


def view(state: Part, related: Related, terms: SourceTerms) -> View:
    """Return the row of a part; nothing is posted."""
    return View({"file": state.file, "part": state.part, "parts": state.parts})


PROJECTION = StreamProjection(
    name="statement_parts",
    kinds=frozenset({"statement_part"}),
    table=Table(
        name="statement_parts",
        columns={
            "source": "text",
            "kind": "text",
            "id": "text",
            "file": "text",
            "part": "bigint",
            "parts": "bigint",
        },
        key=("source", "kind", "id"),
        mode="replace",
        is_listed=False,
    ),
    state=Part,
    fold=fold,
    view=view,
)
