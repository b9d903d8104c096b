"""Sample bodies as payloads, and variants of them, for tests that need no database."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import handlers
from ledger import registry
from ledger.model import Handler, Payload, SourceTerms
from ledger.strict_form import parse_body

ROOT = Path(handlers.__file__).parent / "samples"
MALFORMED = frozenset(
    {"straitsx/03-user_deposit-malformed.json", "gokart/05-missing-comma.json"},
)
ABSENT = object()

STRAITSX = SourceTerms(source="straitsx", provider="straitsx")
GOKART = SourceTerms(source="gokart", provider="gokart", currency="USD")


def names(folder: str) -> list[str]:
    """Return the samples below `folder`, in order, as paths below the samples' root."""
    return sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob(f"{folder}/*.json"))


def readable(provider: str) -> list[str]:
    """Return a provider's samples that are JSON."""
    return [
        name for name in (*names(provider), *names(f"more/{provider}")) if name not in MALFORMED
    ]


def body(name: str) -> bytes:
    """Return a sample's bytes; ".json" may be left out."""
    return (ROOT / (name if name.endswith((".json", ".form")) else name + ".json")).read_bytes()


def payload(name: str, path_event: str | None = None, /, **changes: Any) -> Payload:
    """Return a sample as a payload, its fields changed; ABSENT takes one away."""
    root = copy.deepcopy(parse_body(body(name)))
    apply(Payload(root).fields, changes)
    return Payload(root, path_event)


def apply(fields: Any, changes: dict[str, Any]) -> None:
    """Change fields in place; ABSENT takes one away."""
    for key, value in changes.items():
        if value is ABSENT:
            fields.pop(key, None)
        else:
            fields[key] = value


def all_handlers(provider: str) -> list[Handler]:
    """Return every handler of a provider."""
    return list(registry.load().handlers[provider])


def utc(text: str) -> datetime:
    """Read `2026-01-31T08:00:00` as a time in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)
