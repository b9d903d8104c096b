"""What `[sources.<name>.pull]` says: where statements are fetched, with which key, how often."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlsplit

ATTEMPTS_MAX: Final = 8
_CURRENCY: Final = re.compile(r"[A-Za-z][A-Za-z0-9]{1,11}")


@dataclass(frozen=True, slots=True)
class Pull:
    """How one provider's statements are fetched. Times are seconds."""

    url: str
    """The API's root, e.g. https://api.straitsx.com/v1 (StraitsX docs, account statement)."""
    key: str = field(repr=False)
    currencies: tuple[str, ...]
    every_seconds: float
    since: datetime | None = None
    """Where the first period begins; without it, at the midnight (UTC) before the first run."""
    delay_seconds: float = 300.0
    """How long after its end a period is asked for, so that late rows are in it."""
    overlap_seconds: float = 3600.0
    """How much of what was fetched is fetched once more, for rows that were entered late."""
    requests_per_second: float = 5.0
    answer_seconds_max: float = 30.0
    attempts_max: int = ATTEMPTS_MAX


def read_pull(body: Any, secret: Callable[[str], str]) -> Pull:
    """Read the table; `secret` resolves what `key` names. Raises ValueError, naming the key."""
    known = {f.name for f in fields(Pull)}
    if not isinstance(body, Mapping) or set(body) - known:
        raise ValueError(f"pull takes only {', '.join(sorted(known))}")
    missing = [f.name for f in fields(Pull) if f.default is MISSING and f.name not in body]
    if missing:
        raise ValueError(f"pull lacks {', '.join(missing)}")
    told = dict(body)
    return Pull(
        url=_url(told.pop("url")),
        key=_key(secret(str(told.pop("key")))),
        currencies=_currencies(told.pop("currencies")),
        since=_since(told.pop("since", None)),
        attempts_max=_count(told.pop("attempts_max", ATTEMPTS_MAX)),
        **{name: _seconds(name, value) for name, value in told.items()},
    )


def _url(value: Any) -> str:
    parts = urlsplit(str(value))
    if parts.scheme == "https" and parts.hostname:
        return str(value).rstrip("/")
    if parts.scheme == "http" and _is_loopback(parts.hostname or ""):
        return str(value).rstrip("/")
    raise ValueError(f"url {value!r}: the key must only travel over https")


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _key(value: str) -> str:
    if not value.isascii() or not value.isprintable():
        raise ValueError("key holds characters that no header can carry")
    return value


def _currencies(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise ValueError('currencies: expected texts, as ["xsgd", "xusd"]')
    if not all(isinstance(each, str) and _CURRENCY.fullmatch(each) for each in value):
        raise ValueError(f"currencies: {value!r} are not currencies")
    return tuple(dict.fromkeys(each.upper() for each in value))


def _since(value: Any) -> datetime | None:
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if value is not None and (not isinstance(value, datetime) or value.tzinfo is None):
        raise ValueError("since: expected a time with a zone, as 2026-06-01T00:00:00Z")
    return value


def _count(value: Any) -> int:
    if not isinstance(value, int) or not 1 <= value <= 100:
        raise ValueError("attempts_max: expected 1 to 100")
    return value


def _seconds(name: str, value: Any) -> float:
    least = {"every_seconds": 60, "delay_seconds": 0, "overlap_seconds": 0}.get(name, 0.1)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name}: expected a number")
    if not least <= value <= 31 * 86_400:
        raise ValueError(f"{name}: expected at least {least}")
    return float(value)
