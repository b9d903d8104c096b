"""Whole lists as files: `GET /v1/exports/{what}.{format}`, streamed from one snapshot.

Nothing is sent before the first chunk is complete, so that what is refused is answered as a
problem. An export that fails later, or whose client stops reading, ends with its connection: the
client sees that the file was cut off.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

import structlog
from aiohttp import web
from msgspec import UnsetType

from ledger.api.endpoints import QUERY, positions_text
from ledger.api.problems import PRIVATE
from ledger.errors import InvalidRequest, Overloaded
from ledger.export.lists import ExportedList, Query, TableExport, make_encoder
from ledger.queries.params import AT_LEAST, QueryParams, Route
from ledger.queries.snapshot import Snapshot, read_consistent

LOGGER = structlog.get_logger(__name__)

CONTENT_TYPES: Final[Mapping[str, str]] = {
    "csv": "text/csv",
    "jsonl": "application/x-ndjson",
    "parquet": "application/vnd.apache.parquet",
}
"""Format → content type."""

CHUNK_BYTES: Final = 256 * 1024
"""How much is sent at once; so much of a file is there before its first byte is sent."""

ROWS_MAX: Final = 500
"""Rows that are read at once: short statements, so that other requests are answered in between."""

STALLED_SECONDS_MAX: Final = 30.0
"""How long a client may leave unread what was sent."""

SECONDS_MAX: Final = 3600.0
"""How long one export may take: its snapshot keeps the database from cleaning up."""

ABOUT_PAGES: Final = frozenset({"totals"})
"""Parameters of lists that are not about which rows there are."""


class _CutOff(Exception):
    """The export failed after its beginning was sent."""


@dataclass(frozen=True, slots=True)
class ExportEndpoint:
    """The endpoint of one list's exports."""

    exported: ExportedList

    async def __call__(self, request: web.Request, params: QueryParams) -> web.StreamResponse:
        """Answer with the list as a file.

        Raises InvalidRequest for an unknown format, Overloaded when too many exports are running.
        """
        format_ = params.need("format")
        if format_ not in CONTENT_TYPES:
            raise InvalidRequest(
                f"there is no format {ascii(format_)[:40]}; the formats are: "
                f"{', '.join(CONTENT_TYPES)}"
            )
        slots = request.app[QUERY].exports
        if slots.locked():
            raise Overloaded("other exports are running; repeat the request when they have ended")
        query = [(name, value) for name, value in request.query.items() if name != AT_LEAST.name]
        response = web.StreamResponse()
        response.content_type = CONTENT_TYPES[format_]

        async def respond(snapshot: Snapshot) -> None:
            await self._respond(request, response, snapshot, query, format_)

        try:
            async with slots, asyncio.timeout(SECONDS_MAX):
                await read_consistent(request.app[QUERY].pool, params.at_least, respond)
        except (_CutOff, TimeoutError) as error:
            if not response.prepared:
                raise
            # Its kind only: the message may name a customer.
            cause = type(error.__cause__ or error).__name__
            LOGGER.warning("export_cut_off", path=request.path, error=cause)
        return response

    async def _respond(
        self, request: web.Request, response: web.StreamResponse, snapshot: Snapshot, query: Query,
        format_: str,
    ) -> None:  # fmt: skip
        then, _ = await self.exported.select(snapshot, query)
        response.headers.update(self._headers(then, format_))
        if request.method == "HEAD":
            await response.prepare(request)
            return
        encoder = await make_encoder(format_, self.exported)
        table = TableExport(self.exported, then, query, encoder, ROWS_MAX)
        await send(request, response, table.chunks())

    def _headers(self, then: Snapshot, format_: str) -> dict[str, str]:
        as_of = None if isinstance(then.as_of, UnsetType) else then.as_of
        headers = {
            **PRIVATE,
            "Ledger-Position": positions_text(then.position),
            "Ledger-Books": then.books,
            "Content-Disposition": f'attachment; filename="{self.exported.name}.{format_}"',
        }
        if as_of is not None and not isinstance(as_of.warnings, UnsetType):
            headers["Ledger-Warning"] = ascii("; ".join(as_of.warnings))[1:-1]
        return headers


async def send(
    request: web.Request,
    response: web.StreamResponse,
    chunks: AsyncGenerator[bytes, None],
    *,
    stalled_seconds_max: float = STALLED_SECONDS_MAX,
) -> None:
    """Send a file. As long as nothing was sent, what `chunks` raises is raised.

    Later, any failure ends the connection, and raises _CutOff.
    """
    ready = bytearray()
    try:
        async with aclosing(chunks):
            async for chunk in chunks:
                ready += chunk
                if len(ready) >= CHUNK_BYTES:
                    async with asyncio.timeout(stalled_seconds_max):
                        await response.prepare(request)
                        await response.write(bytes(ready))
                    ready.clear()
        async with asyncio.timeout(stalled_seconds_max):
            await response.prepare(request)
            await response.write(bytes(ready))
            await response.write_eof()
    except BaseException as error:
        if not response.prepared:
            raise
        if request.transport is not None:
            request.transport.abort()
        if not isinstance(error, Exception):
            raise
        raise _CutOff from error


def export_route(exported: ExportedList) -> Route:
    """Return the address of one list's exports, made from the list's own parameters."""
    name, listed = exported.name, exported.route
    return Route(
        f"/v1/exports/{name}.{{format}}",
        f"All {name.replace('_', ' ')} as a file",
        "exports",
        bytes,
        ExportEndpoint(exported),
        tuple(param for param in listed.params if param.name not in ABOUT_PAGES),
        is_list=False,
        is_dated=listed.is_dated,
        content_types=tuple(CONTENT_TYPES.values()),
        headers=("Ledger-Position", "Ledger-Books", "Content-Disposition"),
        about=f"As `ledger export --what {name}`: every row that `{listed.path}` lists, with its "
        "parameters, streamed from one snapshot. A file that cannot be finished is cut off: its "
        "connection ends without the end of the body. The header `Ledger-Warning` names what a "
        "wrong clock leaves out.",
    )
