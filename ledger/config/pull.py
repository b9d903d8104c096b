"""The settings of `[sources.<name>.pull]`: where and how often to fetch statements."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from ledger.config.conversion import convert_table

ATTEMPTS_MAX: Final = 8
CURRENCY: Final = re.compile(r"[A-Za-z][A-Za-z0-9]{1,11}")
MONTH_SECONDS: Final = 31 * 86_400


class Pull(msgspec.Struct, frozen=True):
    """How one provider's statements are fetched. Times are seconds."""

    url: str
    """The API's root, e.g. https://api.straitsx.com/v1 (StraitsX docs, account statement)."""
    key: str
    currencies: tuple[str, ...]
    every_seconds: Annotated[float, Meta(ge=60, le=MONTH_SECONDS)]
    since: Annotated[datetime, Meta(tz=True)] | None = None
    """Where the first period begins; without it, at the midnight (UTC) before the first run."""
    delay_seconds: Annotated[float, Meta(ge=0, le=MONTH_SECONDS)] = 300.0
    """How long after its end a period is asked for, so that late rows are in it."""
    overlap_seconds: Annotated[float, Meta(ge=0, le=MONTH_SECONDS)] = 3600.0
    """How much of what was fetched is fetched once more, for rows that were entered late."""
    requests_per_second: Annotated[float, Meta(ge=0.1, le=MONTH_SECONDS)] = 5.0
    answer_seconds_max: Annotated[float, Meta(ge=0.1, le=MONTH_SECONDS)] = 30.0
    attempts_max: Annotated[int, Meta(ge=1, le=100)] = ATTEMPTS_MAX

    def __repr__(self) -> str:
        return f"Pull({self.url!r}, currencies={self.currencies})"


def read_pull(table: Mapping[str, Any], secret: Callable[[str], str]) -> Pull:
    """Read the table; `secret` resolves what `key` names. Raises ValueError, naming the key."""
    known = Pull.__struct_fields__
    unknown = sorted(set(table) - set(known))
    if unknown:
        raise ValueError(
            f"pull.{unknown[0]} is unknown; pull takes only {', '.join(sorted(known))}"
        )
    required = [field.name for field in msgspec.structs.fields(Pull) if field.required]
    missing = [name for name in required if name not in table]
    if missing:
        raise ValueError(f"pull lacks {', '.join(missing)}")
    pull = convert_table(table, Pull, secrets=("key",), prefix="pull.")
    if not _is_safe(pull.url):
        raise ValueError(f"pull.url = {pull.url!r}: the key must only travel over https")
    key = secret(pull.key)
    if not key.isascii() or not key.isprintable():
        raise ValueError("pull.key holds characters that no header can carry")
    currencies = _currencies(pull.currencies)
    return msgspec.structs.replace(pull, url=pull.url.rstrip("/"), key=key, currencies=currencies)


def _currencies(values: tuple[str, ...]) -> tuple[str, ...]:
    if not values:
        raise ValueError('pull.currencies is empty: expected texts, as ["xsgd", "xusd"]')
    for value in values:
        if not CURRENCY.fullmatch(value):
            raise ValueError(f"pull.currencies: {value!r} is not a currency")
    return tuple(dict.fromkeys(value.upper() for value in values))


def _is_safe(url: str) -> bool:
    """Tell whether a key that is sent there cannot be read on the way."""
    parts = urlsplit(url)
    if parts.scheme == "http":
        return _is_loopback(parts.hostname or "")
    return parts.scheme == "https" and bool(parts.hostname)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
