"""A client of the running service: one session, a deadline on every wait, problems as errors."""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final
from urllib.parse import quote

import aiohttp
import orjson

from ledger.config.settings import Settings
from ledger.errors import ServiceRefused, ServiceUnreachable

SECONDS_MAX: Final = 30.0
DETAIL_MAX: Final = 300


def service_url(settings: Settings, given: str | None) -> str:
    """Return where the service answers: --url, else LEDGER_URL, else HOST:PORT of the settings."""
    url = given or settings.url
    if not url:
        host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(  # noqa: S104
            settings.host, settings.host
        )
        if settings.port == 0:
            raise ServiceUnreachable(
                "LEDGER_PORT=0 leaves open where the service listens; name it with --url"
            )
        url = (
            f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"
        )
    if not url.startswith(("http://", "https://")):
        url = f"http://{url}"
    return url.rstrip("/")


def path_of(*segments: str) -> str:
    """Join path segments, each quoted, so that an id with slashes stays one segment."""
    return "/" + "/".join(quote(segment, safe="") for segment in segments)


class Client:
    """A client of one running service. Use it as an async context."""

    def __init__(
        self, url: str, token: str | None = None, seconds_max: float = SECONDS_MAX
    ) -> None:
        self.url = url
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._timeout = aiohttp.ClientTimeout(total=seconds_max)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Client:
        self._session = aiohttp.ClientSession(headers=self._headers, timeout=self._timeout)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        if self._session is not None:
            await self._session.close()

    async def get(self, path: str, params: Mapping[str, str] | None = None) -> bytes:
        """Return the raw answer to a query. Raises ServiceUnreachable or ServiceRefused."""
        return await self.ask("GET", path, params=params)

    async def post(self, path: str, body: Any) -> bytes:
        """Return the raw answer to a JSON command. Raises ServiceUnreachable, ServiceRefused."""
        return await self.ask("POST", path, json=body)

    async def ask(self, method: str, path: str, **options: Any) -> bytes:
        """Do one request; an answer outside 2xx raises ServiceRefused with its problem."""
        if self._session is None:
            raise ServiceUnreachable("the client is not open")
        try:
            async with self._session.request(method, self.url + path, **options) as answer:
                body = await answer.read()
        except TimeoutError as error:
            raise ServiceUnreachable(
                f"{self.url} did not answer in {self._timeout.total:g} s; see `ledger doctor`"
            ) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise ServiceUnreachable(unreachable(self.url, error)) from error
        if not 200 <= answer.status < 300:
            raise ServiceRefused(answer.status, problem(answer.status, body), body)
        return body


def unreachable(url: str, error: Exception) -> str:
    """Return one line on why nothing answers at `url` and what to do."""
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    number = cause.errno if isinstance(cause, OSError) else None
    text = os.strerror(number) if number and number > 0 else getattr(cause, "strerror", None)
    reason = " ".join((text or str(cause) or type(cause).__name__).split())
    return (
        f"no service answers at {url} ({reason}); start one with `ledger serve`, or name it "
        "with --url or LEDGER_URL"
    )


def problem(status: int, body: bytes) -> str:
    """Return a problem document (RFC 9457), or any other refusal, as one line with what to do."""
    try:
        document = orjson.loads(body)
    except ValueError:
        document = {}
    names = ("title", "detail") if isinstance(document, dict) else ()
    texts = dict.fromkeys(str(document[name]) for name in names if document.get(name))
    text = ": ".join(texts) or body.decode("utf-8", "replace")
    text = " ".join(text.split())[:DETAIL_MAX].rstrip(".")
    advice = "; give the token with --token or LEDGER_API_TOKENS" if status in (401, 403) else ""
    return f"the service answered {status}: {text or 'nothing'}{advice}"
