"""Options that several commands share; each group is one frozen dataclass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Final, TypeAlias

from cyclopts import Group, Parameter

RUN: Final = Group("Run the service", sort_key=1)
ASK: Final = Group("Query a running service", sort_key=2)
TRY: Final = Group("Try it out", sort_key=3)
PROVE: Final = Group("Prove, verify and export", sort_key=4)

Flag: TypeAlias = Annotated[bool, Parameter(negative="", show_default=False)]
Json: TypeAlias = Annotated[bool, Parameter(name="--json", negative="", show_default=False)]
SeveralKinds: TypeAlias = Annotated[
    str | None, Parameter(name="--kind", help="Only this kind, or these: payout,fx_payout.")
]
SeveralStatuses: TypeAlias = Annotated[
    str | None, Parameter(name="--status", help="Only this status, or these: pending,failed.")
]
SourceName: TypeAlias = Annotated[str | None, Parameter(help="Only this source.")]
Currency: TypeAlias = Annotated[
    str | None, Parameter(help="Only this currency, or these: XSGD,USD.")
]
CustomerId: TypeAlias = Annotated[str | None, Parameter(help="Only this customer.")]
Kind: TypeAlias = Annotated[str | None, Parameter(help="Only this kind, like payout.")]
Status: TypeAlias = Annotated[str | None, Parameter(help="Only this status, like completed.")]
From: TypeAlias = Annotated[
    str | None, Parameter(name="--from", help="From this time on, RFC 3339 with a zone.")
]
To: TypeAlias = Annotated[str | None, Parameter(help="Before this time, RFC 3339 with a zone.")]


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceOptions:
    """Which running service to query, and how to show its answer."""

    url: str | None = None
    """The service's address. Otherwise LEDGER_URL, else host and port of the settings."""
    token: str | None = None
    """API token. Otherwise the first of LEDGER_API_TOKENS."""
    json: Json = False
    """Print the service's answer as JSON."""
    at_least: str | None = None
    """Wait up to 5 s until the books have reached these positions: straitsx:25,gokart:3."""


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Paging:
    """How much of a long list to show."""

    limit: int | None = None
    """Rows per page, 1 to 1000 (the service's default is 100)."""
    cursor: str | None = None
    """Continue after the page that named this cursor."""
    all: Flag = False
    """Follow every page to the end."""


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class AsOfOptions:
    """The moment that the answer describes."""

    effective_at: str | None = None
    """Only what the provider dates at or before this time, RFC 3339."""
    recorded_at: str | None = None
    """As the ledger knew it at this time, RFC 3339."""
    position: str | None = None
    """As the ledger knew it at this position: 25 for one source, or straitsx:25,gokart:3."""

    def params(self) -> dict[str, Any]:
        """Return the as-of parameters of a request."""
        return {
            "effective_at": self.effective_at,
            "recorded_at": self.recorded_at,
            "position": self.position,
        }


NOW: Final = ServiceOptions()
FIRST_PAGE: Final = Paging()
LATEST: Final = AsOfOptions()


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Sending:
    """Where callbacks are sent, how fast, and how they are disturbed."""

    url: str | None = None
    """The service's address. Otherwise LEDGER_URL, else host and port of the settings."""
    source: str | None = None
    """Send to this source instead of the provider's own."""
    event: str | None = None
    """Event name to put into the callback URL."""
    secret: str | None = None
    """Sign with this secret instead of the source's first one."""
    rate: float | None = None
    """Callbacks per second; without it, as fast as the answers arrive."""
    concurrency: int | None = None
    """Requests at a time: 8 for made-up callbacks, 1 for samples and files, to keep order."""
    duplicate: Annotated[float, Parameter(show_default=False)] = 0.0
    """Share of the callbacks to send twice, 0 to 1."""
    shuffle: Flag = False
    """Send in random order."""
    conflict: Flag = False
    """Add callbacks that contradict the amount of others."""
    bad_signature: Flag = False
    """Sign wrongly; every callback should then be refused."""
    seed: int | None = None
    """Repeat the random choices of an earlier run."""


SENDING: Final = Sending()
