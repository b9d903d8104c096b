"""The providers' APIs from which statements are fetched, by the name that a Provider declares."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import aiohttp

from ledger.config.pull import Pull
from ledger.statements import straitsx_api


@dataclass(frozen=True, slots=True)
class StatementApi:
    """How statements are fetched from one API."""

    open_session: Callable[[Pull], AbstractAsyncContextManager[aiohttp.ClientSession]]
    fetch_statement: Callable[
        [aiohttp.ClientSession, Pull, str, datetime, datetime], Awaitable[bytes]
    ]
    """Session, configuration, currency and period (from inclusive, to exclusive) → a file."""


APIS: Final[Mapping[str, StatementApi]] = {
    "straitsx": StatementApi(straitsx_api.open_session, straitsx_api.fetch_statement),
}
"""Name as `Provider.statement_api` has it → API."""
