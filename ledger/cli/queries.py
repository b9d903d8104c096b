"""Commands that query a running service: each option is a parameter of its HTTP API."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeAlias

from cyclopts import App, Parameter

from ledger.cli.options import (
    ASK,
    FIRST_PAGE,
    LATEST,
    NOW,
    AsOfOptions,
    Currency,
    CustomerId,
    Flag,
    From,
    Kind,
    Paging,
    ServiceOptions,
    SeveralKinds,
    SeveralStatuses,
    SourceName,
    Status,
    To,
)  # fmt: skip
from ledger.errors import InvalidRequest

if TYPE_CHECKING:
    from rich.console import Console

PAGE_LIMIT_MAX: Final = 1000

RESERVED: Final = (
    "source", "limit", "cursor", "at_least", "effective_at", "recorded_at", "position",
)  # fmt: skip
"""Parameters of every list, which have options of their own."""

Account: TypeAlias = Annotated[
    str | None, Parameter(help='Only this account, or all with a prefix: "liabilities:*".')
]
Id = Annotated[str | None, Parameter(name="id")]


def status(*, service: ServiceOptions = NOW) -> int:
    """Show each source's log, books, lag and open exceptions, and the warnings of the service."""
    from ledger.terminal import tables

    document, raw = ask_service(service, "/v1/status", {})
    if service.json:
        return write_raw(raw)
    out = tables.console()
    tables.show("sources", document, out)
    rest = {k: v for k, v in document.items() if k not in ("sources", "warnings", "position")}
    tables.show_one(rest, out)
    for warning in document.get("warnings", []):
        tables.line(out, f"warning: {warning}", "yellow")
    return 0


def wallets(
    *, source: SourceName = None, currency: Currency = None, as_of: AsOfOptions = LATEST,
    paging: Paging = FIRST_PAGE, service: ServiceOptions = NOW,
) -> int:  # fmt: skip
    """Show what every wallet holds: available, held, announced, and whether it is reconciled."""
    filters = {"source": source, "currency": currency, **as_of.params()}
    return show_list("wallets", filters, paging, service)


def balances(
    *, source: SourceName = None, account: Account = None, currency: Currency = None,
    customer_id: CustomerId = None, as_of: AsOfOptions = LATEST, paging: Paging = FIRST_PAGE,
    service: ServiceOptions = NOW,
) -> int:  # fmt: skip
    """Show the balance of every account. --account "liabilities:*" selects a prefix."""
    filters = {"source": source, "account": account, "currency": currency,
               "customer_id": customer_id, **as_of.params()}  # fmt: skip
    return show_list("balances", filters, paging, service)


def entries(
    *, source: SourceName = None, account: Account = None, currency: Currency = None,
    transaction: Annotated[str | None, Parameter(help="Only this transaction id.")] = None,
    from_: From = None, to: To = None,
    after: Annotated[
        str | None,
        Parameter(help="Only of events after this position: 25 for one source, or straitsx:25."),
    ] = None,
    as_of: AsOfOptions = LATEST, paging: Paging = FIRST_PAGE,
    service: ServiceOptions = NOW,
) -> int:  # fmt: skip
    """Show journal lines; an amount greater than zero debits the account."""
    filters = {"source": source, "account": account, "currency": currency,
               "transaction": transaction, "from": from_, "to": to, "after": after,
               **as_of.params()}  # fmt: skip
    return show_list("entries", filters, paging, service)


transactions = App(
    name="transactions",
    help="List transactions, show one in full, or decide whose it is.",
    group=ASK,
)


@transactions.default
def transactions_list(
    only_source: Annotated[str | None, Parameter(name="source")] = None, id_: Id = None, /, *,
    source: SourceName = None, kind: SeveralKinds = None, status: SeveralStatuses = None,
    customer_id: CustomerId = None, currency: Currency = None,
    idempotency_id: Annotated[
        str | None, Parameter(help="Only with this idempotency id of the provider.")
    ] = None,
    flag: Annotated[
        str | None, Parameter(help="Only with this flag, or one of these, separated by commas.")
    ] = None,
    from_: From = None, to: To = None,
    amount_min: Annotated[str | None, Parameter(help="Only amounts of at least this.")] = None,
    amount_max: Annotated[str | None, Parameter(help="Only amounts of at most this.")] = None,
    sort: Annotated[
        str | None,
        Parameter(
            help="By the provider's time: effective_at; --sort=-effective_at: the latest first."
        ),
    ] = None,
    changed_after: Annotated[
        str | None,
        Parameter(
            help="Only what changed after this position, in the order of changes: 25 for one "
            "source, or straitsx:25."
        ),
    ] = None,
    totals: Annotated[Flag, Parameter(help="Add count and sum per currency of all.")] = False,
    as_of: AsOfOptions = LATEST, paging: Paging = FIRST_PAGE,
    service: ServiceOptions = NOW,
) -> int:  # fmt: skip
    """List transactions, or show one by SOURCE and ID with its history, entries and events."""
    if only_source and id_:
        return _one(service, ("transactions", only_source, id_), {"kind": kind, **as_of.params()})
    filters = {"source": source or only_source, "kind": kind, "status": status,
               "customer_id": customer_id, "currency": currency,
               "idempotency_id": idempotency_id, "flag": flag, "from": from_, "to": to,
               "amount_min": amount_min, "amount_max": amount_max, "sort": sort,
               "changed_after": changed_after, "totals": "true" if totals else None,
               **as_of.params()}  # fmt: skip
    return show_list("transactions", filters, paging, service)


@transactions.command
def attribute(
    source: str, id_: Annotated[str, Parameter(name="id")], /, *,
    note: str, customer: str | None = None, undo: Flag = False, kind: Kind = None,
    by: str | None = None, service: ServiceOptions = NOW,
) -> int:  # fmt: skip
    """Decide whose a transaction is; the decision itself becomes an event of the log.

    Parameters
    ----------
    source
        The transaction's source.
    id_
        The transaction's id, as `ledger transactions` lists it.
    note
        The reason.
    customer
        The id of the customer whose it is.
    undo
        Take back what was decided: it belongs to whom its facts or `owner_of` name.
    kind
        Which one, where several kinds share the id.
    by
        Who decides.
    """
    if undo == (customer is not None):
        raise InvalidRequest("name the customer with --customer, or take it back with --undo")
    given = {"note": note, "by": by, "kind": kind}
    body = {name: value for name, value in given.items() if value is not None}
    return _decide(
        service, ("transactions", source, id_, "attribute"), {"customer_id": customer, **body}
    )


def customers(
    only_source: Annotated[str | None, Parameter(name="source")] = None, id_: Id = None, /, *,
    source: SourceName = None,
    verification_status: Annotated[
        str | None,
        Parameter(name=["--verification-status", "--status"], help="Only in this state."),
    ] = None,
    as_of: AsOfOptions = LATEST, paging: Paging = FIRST_PAGE, service: ServiceOptions = NOW,
) -> int:  # fmt: skip
    """List customers and their verification, or show one by SOURCE and ID in full."""
    if only_source and id_:
        return _one(service, ("customers", only_source, id_), as_of.params())
    filters = {"source": source or only_source, "verification_status": verification_status,
               **as_of.params()}  # fmt: skip
    return show_list("customers", filters, paging, service)


def events(
    only_source: Annotated[str | None, Parameter(name="source")] = None,
    position: Annotated[int | None, Parameter(name="position")] = None, /, *,
    body: Annotated[Flag, Parameter(help="Write the body byte for byte as it arrived.")] = False,
    source: SourceName = None,
    kind: Kind = None, status: Status = None,
    resource_id: Annotated[str | None, Parameter(help="Only of this resource.")] = None,
    verdict: Annotated[str | None, Parameter(help="accepted or quarantined.")] = None,
    from_: From = None, to: To = None,
    paging: Paging = FIRST_PAGE, service: ServiceOptions = NOW,
) -> int:  # fmt: skip
    """List the log's events, or show one by SOURCE and POSITION; --body gives its raw bytes."""
    if only_source and position is not None:
        segments = ("events", only_source, str(position))
        if body:
            return write_raw(
                ask_service(service, api(*segments, "body"), {}, decode=False)[1], end=b""
            )
        return _one(service, segments, {})
    filters = {"source": source or only_source, "kind": kind, "status": status,
               "resource_id": resource_id, "verdict": verdict, "from": from_, "to": to}  # fmt: skip
    return show_list("events", filters, paging, service)


def deliveries(
    *, source: SourceName = None,
    outcome: Annotated[
        str | None,
        Parameter(help="accepted, quarantined, duplicate, refused or failed."),
    ] = None,
    event: Annotated[
        str | None,
        Parameter(help="Only of this event: position, source:position or id; or URL event name."),
    ] = None,
    from_: From = None, to: To = None, paging: Paging = FIRST_PAGE,
    service: ServiceOptions = NOW,
) -> int:  # fmt: skip
    """List every request that reached the receiver, and its answer."""
    filters = {"source": source, "outcome": outcome, "event": event, "from": from_, "to": to}
    return show_list("deliveries", filters, paging, service)


def views(
    table: Annotated[str | None, Parameter(help="The view whose rows to list.")] = None, /, *,
    source: SourceName = None,
    filter_: Annotated[
        tuple[str, ...],
        Parameter(
            name="--filter", negative="", show_default=False,
            help="Only rows with this value, as column=value; may be given more than once.",
        ),
    ] = (),
    as_of: AsOfOptions = LATEST, paging: Paging = FIRST_PAGE, service: ServiceOptions = NOW,
) -> int:  # fmt: skip
    """List the views of the books, or the rows of one TABLE, as its projection declares it.

    Without TABLE: every view with its columns, and those that --filter takes.
    """
    if table is not None:
        filters = {**_filters_of(filter_), "source": source, **as_of.params()}
        return show_list("rows", filters, paging, service, path=api("views", table))
    if filter_ or source or as_of != LATEST:
        raise InvalidRequest("name the view whose rows to list; `ledger views` lists the views")
    from ledger.terminal import tables

    document, raw = ask_service(service, "/v1/views", {})
    if service.json:
        return write_raw(raw)
    rows = [
        {
            "view": view["table"],
            "columns": [column["name"] for column in view["columns"]],
            "filters": [_filter_text(name, view["needs"]) for name in view["filters"]],
        }
        for view in document["views"]
    ]
    tables.show("views", {**document, "views": rows}, tables.console())
    return 0


def _filter_text(name: str, needs: Mapping[str, Sequence[str]]) -> str:
    """Return a filter's name and, in brackets, the filters that it needs."""
    return f"{name} (with {', '.join(needs[name])})" if name in needs else name


def _filters_of(texts: tuple[str, ...]) -> dict[str, str]:
    """Read filters written as column=value. Raises InvalidRequest."""
    filters: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise InvalidRequest(f"--filter is column=value; it is {text!r}")
        if name in RESERVED:
            raise InvalidRequest(f"use --{name.replace('_', '-')} {value} instead of --filter")
        if name in filters:
            raise InvalidRequest(f"--filter names {name} more than once; give it once")
        filters[name] = value
    return filters


exceptions = App(
    name="exceptions",
    help="List what an operator should look at, or decide on one of them.",
    group=ASK,
)


@exceptions.default
def exceptions_list(
    *, source: SourceName = None,
    state: Annotated[str | None, Parameter(help="open, cleared or resolved.")] = None,
    reason: Annotated[str | None, Parameter(help="Only for this reason.")] = None,
    kind: Kind = None, paging: Paging = FIRST_PAGE, service: ServiceOptions = NOW,
) -> int:  # fmt: skip
    """List what an operator should look at: unreadable, unknown, conflict, mismatch, parked.

    After these, what looks incomplete by now: stuck, returned, drifted, unverified (`ledger
    reconcile findings` lists these with amounts, and as of any moment).
    """
    filters = {"source": source, "state": state, "reason": reason, "kind": kind}
    return show_list("exceptions", filters, paging, service)


@exceptions.command
def resolve(
    exception_id: Annotated[str, Parameter(name="id")], /, *,
    action: Literal["acknowledge", "keep", "retry"], keep: int | None = None,
    note: str | None = None, by: str | None = None, service: ServiceOptions = NOW,
) -> int:  # fmt: skip
    """Decide on one exception; the decision itself becomes an event of the log.

    Parameters
    ----------
    exception_id
        The exception's id, as `ledger exceptions` lists it.
    action
        acknowledge: seen, nothing changes; keep: the facts of event --keep apply (not for
        what looks incomplete by now); retry: fold the parked event again (reasons
        parked and rows_refused).
    keep
        Position of the event whose facts apply.
    note
        The reason.
    by
        Who decides.
    """
    given = {"action": action, "keep": keep, "note": note, "by": by}
    body = {name: value for name, value in given.items() if value is not None}
    return _decide(service, ("exceptions", exception_id, "resolve"), body)


def _decide(service: ServiceOptions, segments: tuple[str, ...], body: Mapping[str, Any]) -> int:
    """Send a decision and print what became of it."""
    from ledger.terminal import tables

    document, raw = ask_service(service, api(*segments), {}, body=body)
    if service.json:
        return write_raw(raw)
    tables.show_one(document, tables.console())
    return 0


COMMANDS: Final = (
    status, wallets, balances, entries, customers, events, deliveries, views,
)  # fmt: skip
"""The commands in the order in which help lists them."""


def api(*segments: str) -> str:
    """Return an address of the query API."""
    from ledger.client.service_client import path_of

    return path_of("v1", *segments)


def show_list(
    name: str, filters: Mapping[str, Any], paging: Paging, service: ServiceOptions,
    path: str | None = None, show: Callable[[dict[str, Any], Console], None] | None = None,
) -> int:  # fmt: skip
    """Request the list `name`, at `/v1/<name>` or `path`, and print it, by `show` if given."""
    from ledger.terminal import tables

    limit = PAGE_LIMIT_MAX if paging.all and paging.limit is None else paging.limit
    params = {**filters, "limit": limit, "cursor": paging.cursor}
    document, raw = ask_service(
        service, path or api(name), params, whole=name if paging.all else None
    )
    if service.json:
        return write_raw(raw)
    out = tables.console()
    if show is not None:
        show(document, out)
    else:
        tables.show(name, document, out)
        if document.get("totals"):
            tables.show("totals", {"totals": document["totals"]}, out)
    if document.get("next") and not sys.stdout.isatty():
        print("ledger: there are more rows; --all shows them", file=sys.stderr)
    return 0


def _one(service: ServiceOptions, segments: tuple[str, ...], params: Mapping[str, Any]) -> int:
    from ledger.terminal import tables

    document, raw = ask_service(service, api(*segments), params)
    if service.json:
        return write_raw(raw)
    tables.show_one(document, tables.console())
    return 0


def write_file(path: Path, raw: bytes) -> None:
    """Write a file whole or not at all."""
    from ledger.runtime.files import replacing

    with replacing(path) as file:
        file.write(raw)


def write_raw(raw: bytes, end: bytes = b"\n") -> int:
    """Write an answer unchanged."""
    sys.stdout.buffer.write(raw if raw.endswith(end) else raw + end)
    sys.stdout.buffer.flush()
    return 0


def ask_service(
    service: ServiceOptions, path: str, params: Mapping[str, Any], *, body: Any = None,
    whole: str | None = None, decode: bool = True,
) -> tuple[dict[str, Any], bytes]:  # fmt: skip
    """Return the service's answer, decoded and unchanged; with `whole`, all pages as one."""
    import asyncio

    import orjson

    given = {name: str(value) for name, value in params.items() if value is not None}
    if service.at_least:
        given["at_least"] = service.at_least
    raw = asyncio.run(_answer(service, path, given, body, whole))
    return (orjson.loads(raw) if decode else {}), raw


async def _answer(
    service: ServiceOptions, path: str, params: dict[str, str], body: Any, whole: str | None
) -> bytes:
    import os

    import msgspec

    from ledger.client.service_client import Client, service_url
    from ledger.config.settings import load

    settings = load(os.environ)
    token = service.token or next(iter(settings.api_tokens), None)
    async with Client(service_url(settings, service.url), token) as client:
        if body is not None:
            return await client.post(path, body)
        if whole is None:
            return await client.get(path, params)
        # Pages are joined as they are: decoding their rows would round what JSON columns hold.
        rows: list[msgspec.Raw] = []
        while True:
            raw = await client.get(path, params)
            page = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
            rows += msgspec.json.decode(page[whole], type=list[msgspec.Raw])
            following = msgspec.json.decode(page["next"]) if "next" in page else None
            if not following:
                return msgspec.json.encode({**page, whole: rows})
            params = {**params, "cursor": following}
