"""The event loop that every process of the service runs on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


def runner() -> Callable[[Coroutine[Any, Any, None]], None]:
    """Return the fastest event loop's `run` that this platform has."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run
    return uvloop.run
