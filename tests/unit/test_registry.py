"""Promise: a bug in a handler costs no callback: it is kept, and understood by a later version."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

import pytest

import handlers
import projections
from ledger import registry
from ledger.database import copy_format
from ledger.errors import RegistryError
from ledger.model import Envelope, Handler, Payload, changed
from tests import samples

BODY = samples.body("straitsx/05-payment-paynow")


def broken(part: str) -> registry.Registry:
    """Return a registry in which one part of the payment's handler raises."""

    def fail(_payload: Payload) -> NoReturn:
        raise ZeroDivisionError("Mei Tan")

    def change(handler: Handler) -> Handler:
        return replace(handler, **{part: fail}) if handler.kind == "payment" else handler

    known = registry.load()
    changed = tuple(change(handler) for handler in known.handlers["straitsx"])
    return replace(known, handlers={**known.handlers, "straitsx": changed})


def test_an_envelope_that_raises_is_quarantined_and_not_an_error() -> None:
    for part in ("envelope", "matches"):
        found = broken(part).read("straitsx", None, BODY)
        assert found.reason == "handler_failed"
        assert found.detail == "reading the envelope raised ZeroDivisionError"
        assert (found.envelope.kind, found.envelope.resource_id) == ("unknown", "")


def returning(**changes: Any) -> registry.Registry:
    """Return a registry in which the payment's handler returns an envelope with changes."""
    known = registry.load()

    def change(handler: Handler) -> Handler:
        if handler.kind != "payment":
            return handler

        def envelope(payload: Payload) -> Envelope:
            return changed(handler.envelope(payload), **changes)

        return replace(handler, envelope=envelope)

    payment = tuple(change(handler) for handler in known.handlers["straitsx"])
    return replace(known, handlers={**known.handlers, "straitsx": payment})


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"resource_id": 5}, "as resource_id what is no text"),
        ({"resource_id": None}, "as resource_id what is no text"),
        ({"status": None}, "as status what is no text"),
        ({"idempotency_id": 5}, "as idempotency_id what is no text"),
        ({"tail": b""}, "as tail what is no text"),
        ({"kind": "payout"}, "an envelope of another kind"),
        ({"kind": "nothing", "status": "unknown:x"}, "an envelope of another kind"),
        ({"provider_at": "2026-01-01"}, "as provider_at what is no time with a zone"),
        ({"provider_at": datetime(2026, 1, 1)}, "as provider_at what is no time with a zone"),
    ],
)
def test_a_wrong_envelope_is_quarantined_and_not_an_error(
    changes: dict[str, Any], problem: str
) -> None:
    found = returning(**changes).read("straitsx", None, BODY)
    assert found.reason == "handler_failed"
    assert found.detail == f"the handler of payment returned {problem}"
    assert found.envelope == Envelope("unknown", "", "unknown")


def test_what_is_no_envelope_is_quarantined_and_not_an_error() -> None:
    known = registry.load()
    wrong = tuple(replace(h, envelope=lambda _: None) for h in known.handlers["straitsx"])
    found = replace(known, handlers={"straitsx": wrong}).read("straitsx", None, BODY)
    assert (found.reason, found.envelope.kind) == ("handler_failed", "unknown")


def test_an_unknown_status_is_quarantined() -> None:
    found = returning(status="unknown:paid").read("straitsx", None, BODY)
    assert (found.reason, found.envelope.status) == ("unknown_status", "unknown:paid")


def test_other_callbacks_are_read_as_ever() -> None:
    body = samples.body("straitsx/06-payout-usd")
    assert broken("envelope").read("straitsx", None, body) == registry.load().read(
        "straitsx", None, body
    )


ACME = """
from ledger.model import Envelope, Fact, Handler, MoneyKind, Payload, Provider, SourceTerms

PROVIDER = Provider(name="acme", scheme="standard-webhooks")


def envelope(payload: Payload) -> Envelope:
    return Envelope("payment", payload.id or "", "completed")


def translate(payload: Payload, terms: SourceTerms) -> Fact:
    return envelope(payload).fact()


def handler(kind: str) -> Handler:
    return Handler("acme", kind, frozenset(), lambda _: True, envelope, translate)


HANDLERS = (handler("payment"), handler("payout"))
"""
OTC = (
    'MoneyKind(name="otc", ranks={"done": 1}, postings="outgoing", brings_back=True, '
    "can_come_back=True)"
)
PAYOUT = 'MoneyKind(name="payout", ranks={"done": 1}, postings="out")'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Yield a folder whose files are handlers too, loaded without those of other tests."""
    monkeypatch.setattr(handlers, "__path__", [*handlers.__path__, str(tmp_path)])
    registry.load.cache_clear()
    yield tmp_path
    for file in tmp_path.glob("*.py"):
        sys.modules.pop(f"handlers.{file.stem}", None)
    registry.load.cache_clear()


def test_one_file_declares_a_provider_and_its_callbacks(folder: Path) -> None:
    (folder / "acme.py").write_text(ACME)
    found = registry.load()
    assert found.providers["acme"].scheme == "standard-webhooks"
    assert [handler.kind for handler in found.handlers["acme"]] == ["payment", "payout"]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"acme", scheme', '"Acme!", scheme', "'Acme!' must be lower case letters"),
        ('"acme", scheme', '"statement", scheme', "'statement' is the service's own"),
        ('"acme", scheme', '"token", scheme', "'token' is the service's own"),
        ('"acme", scheme', '"straitsx", scheme', "the provider straitsx already"),
        ("standard-webhooks", "md5", "'md5'; use one of hmac-sha256-hex, static-token"),
        ("standard-webhooks", "static-token", "header='' cannot be the name of a header"),
        ('webhooks")', 'webhooks", header="X")', "has headers of its own; take away header='X'"),
        ('Provider(name="acme", scheme="standard-webhooks")', "'acme'", "is no Provider"),
        ('PROVIDER = Provider(name="acme", scheme="standard-webhooks")', "",
         "no file declares the provider acme; add PROVIDER"),
        ("HANDLERS = (", f"MONEY_KIND = {PAYOUT}\nHANDLERS = (", "is declared by"),
        ("HANDLERS = (", "MONEY_KIND = 'payout'\nHANDLERS = (", "MONEY_KIND is no MoneyKind"),
        ("HANDLERS = (", f"MONEY_KIND = {PAYOUT.replace('payout', 'otc')}\nHANDLERS = (",
         "there is no posting rule 'out'; use one of chain_deposit, chain_withdrawal"),
        ("HANDLERS = (", f"MONEY_KIND = {OTC}\nHANDLERS = (", "must be among those that"),
        ("HANDLERS = (", f"MONEY_KIND = {OTC.replace('done', 'failed')}\nHANDLERS = (",
         "cannot both bring money back and have it come back"),
        ("HANDLERS = (", "HANDLRES = (", "no file declares a handler of the provider acme; add"),
        ('webhooks")', 'webhooks", default_currency="U$D")', "default_currency='U$D' is not a"),
        ('webhooks")', 'webhooks", default_currency="usd")', "default_currency='usd' is not a"),
        ('webhooks")', 'webhooks", default_currency=5)', "default_currency=5 is not a currency"),
        ("HANDLERS = (", "HANDLERS = [1] or (", "HANDLERS a tuple of them"),
        ("HANDLERS = (", 'HANDLER = handler("x")\nHANDLERS = (', "keep one of them"),
    ],
)  # fmt: skip
def test_a_wrong_declaration_refuses_to_start_and_names_its_file(
    folder: Path, old: str, new: str, words: str
) -> None:
    assert ACME.count(old) == 1
    (folder / "wrong.py").write_text(ACME.replace(old, new))
    with pytest.raises(RegistryError, match=f"^handlers/wrong.py.*{re.escape(words)}"):
        registry.load()


def test_a_file_that_declares_nothing_refuses_to_start(folder: Path) -> None:
    (folder / "empty.py").write_text("HANDLERZ = ()\n")
    with pytest.raises(RegistryError, match=r"^handlers/empty.py declares no HANDLER and no"):
        registry.load()


COUNTS = """
from ledger.model import Projection, Table

PROJECTION = Projection(
    name="counts",
    table=Table("counts", {"source": "text", "day": "date"}, key=("source", "day")),
    rows=lambda outcome: (),
)
"""


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("date", "date", "the column day cannot have the type date"),
        ('"counts",', '"events",', "the name of the table events is the service's own"),
        ('"counts",', '"views",', "the name of the table views is the service's own"),
    ],
)
def test_a_wrong_table_refuses_to_start_and_names_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, words: str
) -> None:
    (tmp_path / "counts.py").write_text(COUNTS.replace(old, new))
    monkeypatch.setattr(projections, "__path__", [*projections.__path__, str(tmp_path)])
    registry.load.cache_clear()
    try:
        with pytest.raises(RegistryError, match=f"^projections/counts.py: {words}"):
            registry.load()
    finally:
        sys.modules.pop("projections.counts", None)
        registry.load.cache_clear()


@pytest.mark.parametrize("kind", registry.COLUMN_TYPES)
def test_every_type_that_a_column_may_have_can_be_written(kind: str) -> None:
    assert copy_format.encode([kind], [(None,)]) == b"\\N\n"
