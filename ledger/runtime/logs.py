"""Structured logs: named events with allow-listed fields; never bodies, secrets or names."""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Iterator, MutableMapping
from typing import Any, Final

import orjson
import structlog

from ledger.runtime.secrets import redact

FIELDS: Final = frozenset(
    {
        "event", "level", "timestamp", "logger", "exception", "source", "position", "generation",
        "version", "error", "sqlstate", "role", "pid", "code", "host", "port", "seconds", "events",
        "reason", "name", "origin", "database", "warning", "path", "signal", "attempt", "phase",
        "answer", "state", "tries", "data_dir", "user", "major", "mechanism", "next",
    }
)  # fmt: skip
"""Everything else is dropped before it is written."""


def configure(log_format: str | None) -> None:
    """Set up structlog for this process: `console`, `json`, or by whether stderr is a terminal."""
    chosen = log_format or ("console" if sys.stderr.isatty() else "json")
    renderer: Any = structlog.dev.ConsoleRenderer()
    if chosen == "json":
        renderer = structlog.processors.JSONRenderer(serializer=_dumps)
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _trace,
        _allow,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
            foreign_pre_chain=shared,
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    logging.getLogger("aiohttp.server").addFilter(_is_ours)
    for noisy in ("aiohttp.access", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def _is_ours(record: logging.LogRecord) -> bool:
    """Leave out requests that are not HTTP: their error quotes what was sent."""
    error = record.exc_info[1] if record.exc_info else None
    return not type(error).__module__.startswith("aiohttp.http")


def _trace(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Keep where an exception arose and its type, not its message, which may quote a callback."""
    info = event.pop("exc_info", None)
    error = info[1] if isinstance(info, tuple) else info
    if info is True:
        error = sys.exc_info()[1]
    if isinstance(error, BaseException):
        event["exception"] = "".join(_frames(error)).rstrip()
    return event


def _frames(error: BaseException) -> Iterator[str]:
    yield from traceback.format_tb(error.__traceback__)
    yield f"{type(error).__module__}.{type(error).__qualname__}\n"
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    inner = getattr(error, "exceptions", ())
    for related in (*inner, *([cause] if cause else [])):
        yield "of which:\n" if related in inner else "caused by:\n"
        yield from _frames(related)


def _allow(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return {
        name: redact(value) if isinstance(value, str) else value
        for name, value in event.items()
        if name in FIELDS or name.startswith("_")
    }


def _dumps(value: Any, default: Any = None, **_: Any) -> str:
    return orjson.dumps(value, default=default or str).decode()
