"""What is logged during a block, whether or not a command of this process configured logging."""

from __future__ import annotations

import logging
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

from structlog.testing import capture_logs


class _Collector(logging.Handler):
    """Collects what loggers that were bound to the standard library's write."""

    def __init__(self, entries: list[MutableMapping[str, Any]]) -> None:
        super().__init__()
        self.entries = entries

    def emit(self, record: logging.LogRecord) -> None:
        if isinstance(record.msg, dict):
            self.entries.append(record.msg)


@contextmanager
def captured_logs() -> Iterator[list[MutableMapping[str, Any]]]:
    """Collect log entries, each with its `event`, for the length of a block."""
    with capture_logs() as entries:
        collector = _Collector(entries)
        logging.getLogger().addHandler(collector)
        try:
            yield entries
        finally:
            logging.getLogger().removeHandler(collector)
