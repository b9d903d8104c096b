"""Law: what a provider declares about its statements is there, and decides how JSON is read."""

from __future__ import annotations

import pytest

from ledger import registry
from ledger.statements.model import Reading, StatementRefused
from ledger.statements.provider_api import APIS
from ledger.statements.reader import FORMAT_NAMES, read_statement


def test_every_declared_format_and_api_exists() -> None:
    for provider in registry.load().providers.values():
        assert provider.statement_format in (None, *FORMAT_NAMES)
        assert provider.statement_api in (None, *APIS)


def test_json_is_read_as_the_provider_declares_and_other_files_by_their_bytes() -> None:
    def read(body: bytes) -> None:
        read_statement(body, Reading(currency="SGD"), json_format="acme-json")

    with pytest.raises(StatementRefused, match="'acme-json' is no format"):
        read(b'{"data": []}')
    with pytest.raises(StatementRefused, match="camt"):
        read(b"<Document/>")
