"""Commands about statements and reconciliation; all of them ask a running service."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from cyclopts import App, Parameter

from ledger.cli.options import (
    FIRST_PAGE,
    NOW,
    PROVE,
    Currency,
    Flag,
    From,
    Paging,
    ServiceOptions,
    SourceName,
    To,
)
from ledger.cli.queries import (
    api,
    ask_service,
    show_list,
    write_file,
    write_raw,
)
from ledger.errors import InvalidRequest

SECONDS_MAX: Final = 600.0
WAIT_SECONDS_MAX: Final = 60.0
SEAL_SECONDS_MAX: Final = 5.0
PAUSE_SECONDS: Final = 0.2
EXITS: Final[Mapping[str, int]] = {
    "RECONCILED": 0, "RECONCILED_WITH_TIMING": 0, "BREAKS": 1, "INCOMPLETE": 3,
}  # fmt: skip
"""State of a wallet → exit status; of several the highest counts."""

reconcile = App(
    name="reconcile",
    help="Show how far statements confirm each wallet. Exit status: 0 reconciled, "
    "1 breaks, 3 incomplete.",
    group=PROVE,
)


@reconcile.default
def reconcile_show(
    *, source: SourceName = None, currency: Currency = None,
    html: Annotated[Path | None, Parameter(help="Write a printable page to this file.")] = None,
    csv: Annotated[
        Path | None,
        Parameter(help="Write CSV to this file; - is standard output.", allow_leading_hyphen=True),
    ] = None,
    no_wait: Annotated[Flag, Parameter(help="Do not wait for what was just imported.")] = False,
    service: ServiceOptions = NOW,
) -> int:  # fmt: skip
    """Show the latest reconciliation of each wallet, waiting for one of the present logs.

    --html and --csv write a report: of one wallet with its --source and --currency, else of all.
    """
    filters = {"source": source, "currency": currency, "limit": 1000}
    document, raw, is_now = _settled(
        service, filters, wait=not no_wait, sealed=html is not None or csv is not None
    )
    for path, kind in ((html, "html"), (csv, "csv")):
        if path is not None:
            _write_report(service, source, currency, path, kind)
    if service.json:
        write_raw(raw)
    elif csv is None or str(csv) != "-":
        _show_wallets(document)
    runs, bare = document["reconciliations"], document["without_statement"]
    exits = [EXITS.get(run["state"], 3) for run in runs] + [3 for _ in bare]
    return max(exits, default=3) if is_now or no_wait else 3


def _show_wallets(document: Mapping[str, Any]) -> None:
    """Print every wallet, why it is incomplete, and its open breaks by type and age."""
    from ledger.terminal import tables
    from ledger.terminal.figures import local_time, zone_named

    runs, bare = document["reconciliations"], document["without_statement"]
    out = tables.console()
    rows = [
        {**run, "through": local_time(run["through"], zone_named(run["time_zone"]))} for run in runs
    ]
    rows += [
        {**wallet, "state": "INCOMPLETE", "figures": {"ledger": wallet["total"]}} for wallet in bare
    ]
    tables.show("reconciliations", {**document, "reconciliations": rows}, out)
    tables.show_zones(runs, out)
    for run in runs:
        for reason in run["reasons"]:
            tables.line(out, f"{run['source']} {run['currency']}: {reason}", run["state"])
        for month in run["changed_months"]:
            tables.line(out, f"{run['source']}: {month['detail']}", "warn")
    for wallet in bare:
        name = f"{wallet['source']} {wallet['currency']}"
        sentence = f"{name}: INCOMPLETE, no statement of it is imported"
        tables.line(out, f"{sentence}; it holds {wallet['total']}", "INCOMPLETE")
    types = [
        {**each, "wallet": f"{run['source']} {run['currency']}", "currency": run["currency"]}
        for run in runs
        for each in run["figures"]["by_type"]
    ]
    if types:
        out.print()
        tables.line(out, "open breaks by type and age", "bold")
        out.print(tables.table("by_type", types, out))


def wait_for_result(service: ServiceOptions, source: str | None) -> None:
    """Wait, for a limited time, until the results have read the logs as they are now."""
    _settled(service, {"source": source, "limit": 1000}, wait=True, sealed=False)


def _settled(
    service: ServiceOptions, filters: Mapping[str, Any], *, wait: bool, sealed: bool
) -> tuple[dict[str, Any], bytes, bool]:
    """Request the runs until they are at the positions that the logs had at the first request.

    With `sealed` also, for a moment, until these positions are sealed: a report names the seals.
    False with the answer when it was not waited for, or in vain.
    """
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    seal_deadline = time.monotonic() + (SEAL_SECONDS_MAX if sealed else 0)
    heads, _ = ask_service(service, "/v1/status", {})
    targets = {source["source"]: source["head"] for source in heads["sources"]}
    while True:
        document, raw = ask_service(service, "/v1/reconciliation", filters)
        runs = document["reconciliations"]
        is_now = wait and _is_settled(runs, targets, _expected(service, filters, targets))
        if not wait or (is_now and (_is_sealed(runs) or time.monotonic() > seal_deadline)):
            return document, raw, is_now
        if time.monotonic() > deadline:
            print("ledger: the reconciliation is behind; see `ledger status`", file=sys.stderr)
            return document, raw, False
        time.sleep(PAUSE_SECONDS)


def _is_sealed(runs: list[dict[str, Any]]) -> bool:
    return all(seal["root"] for run in runs for seal in run["seals"])


def _expected(
    service: ServiceOptions, filters: Mapping[str, Any], targets: Mapping[str, int]
) -> set[tuple[str, str]] | None:
    """Return the wallets that have a statement; None while the books lack some of them."""
    source, currency = filters["source"], filters.get("currency")
    listed, _ = ask_service(service, "/v1/statements", {"source": source, "limit": 1000})
    requested = None if currency is None else {*currency.upper().split(",")}
    for log, head in targets.items():
        is_asked = source is None or log == f"{source}.statements"
        if log.endswith(".statements") and is_asked and listed["position"].get(log, 0) < head:
            return None
    return {
        (statement["source"], statement["currency"])
        for statement in listed["statements"]
        if statement["status"] == "imported"
        and (requested is None or statement["currency"] in requested)
    }


def _is_settled(
    runs: list[dict[str, Any]], targets: Mapping[str, int], expected: set[tuple[str, str]] | None
) -> bool:
    have = {(run["source"], run["currency"]) for run in runs}
    return (
        expected is not None
        and expected <= have
        and all(
            position >= targets.get(name, 0)
            for run in runs
            for name, position in run["positions"].items()
        )
    )


def _write_report(
    service: ServiceOptions, source: str | None, currency: str | None, path: Path, kind: str
) -> None:
    from ledger.client.service_client import path_of

    address, filters = path_of("reconciliation"), {"source": source, "currency": currency}
    if source and currency:
        address, filters = path_of("reconciliation", source, currency.upper()), {}
    _, raw = ask_service(service, address, {"as": kind, **filters}, decode=False)
    if str(path) == "-":
        write_raw(raw, end=b"")
    else:
        write_file(path, raw)


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class BreakFilters:
    """Which breaks to list, and in which order."""

    type: str | None = None
    """Only this type, like AMOUNT, or these: AMOUNT,FEE."""
    state: Literal["OPEN", "RESOLVED"] | None = None
    """Only in this state."""
    owner: str | None = None
    """Only breaks of this owner."""
    bucket: Literal["0-1d", "2-3d", "4-7d", ">7d"] | None = None
    """Only of this age."""
    from_: From = None
    to: To = None
    amount_min: str | None = None
    """Only where the gap, without its sign, is at least this."""
    amount_max: str | None = None
    """Only where the gap, without its sign, is at most this."""
    sort: Annotated[
        Literal["amount", "-amount", "age", "-age"], Parameter(allow_leading_hyphen=True)
    ] = "-amount"
    """By the gap without its sign, or by age; - the largest or oldest first."""

    def params(self) -> dict[str, Any]:
        """Return the parameters of a request."""
        return {
            "type": self.type, "state": self.state, "owner": self.owner, "bucket": self.bucket,
            "from": self.from_, "to": self.to, "amount_min": self.amount_min,
            "amount_max": self.amount_max, "sort": self.sort,
        }  # fmt: skip


EVERY_BREAK: Final = BreakFilters()


@reconcile.command
def breaks(
    only: Annotated[
        str | None,
        Parameter(name="id", help="Show this break whole.", allow_leading_hyphen=True),
    ] = None, /, *,
    source: SourceName = None, currency: Currency = None, filters: BreakFilters = EVERY_BREAK,
    id_: Annotated[str | None, Parameter(name="--id", help="Show this break whole.")] = None,
    csv: Annotated[
        list[str] | None,
        Parameter(
            negative="", consume_multiple=(0, 1), show_default=False,
            help="Write a spreadsheet to decide in, to this file or to standard output (-).",
        ),
    ] = None,
    paging: Paging = FIRST_PAGE, service: ServiceOptions = NOW,
) -> int:  # fmt: skip
    """List what differs between statements and books, and what is in transit.

    --csv writes every break that is selected, with empty columns for decisions; fill them in and
    give the file to `ledger reconcile decide --from`.
    """
    if only == "-" and csv == []:
        only = None
    if only is not None and only.startswith("-"):
        raise InvalidRequest(f"there is no option {only}; `ledger reconcile breaks --help`")
    if only or id_:
        return show_break(only or id_ or "", service=service)
    params = {"source": source, "currency": currency, **filters.params()}
    if csv is not None:
        return _write_spreadsheet(service, params, csv[0] if csv else "-")
    from ledger.terminal.breaks import show_breaks

    return show_list("breaks", params, paging, service, show=show_breaks)


def _write_spreadsheet(service: ServiceOptions, params: Mapping[str, Any], path: str) -> int:
    from ledger.client.service_client import path_of

    address = path_of("reconciliation", "breaks.csv")
    _, raw = ask_service(service, address, params, decode=False)
    if path == "-":
        return write_raw(raw, end=b"")
    write_file(Path(path), raw)
    return 0


@reconcile.command(name="break")
def show_break(
    break_id: Annotated[str, Parameter(name="id")], /, *, service: ServiceOptions = NOW
) -> int:
    """Show one break: both sides, what may belong to it, every decision and note."""
    from ledger.terminal import breaks as terminal_breaks
    from ledger.terminal import tables

    document, raw = ask_service(service, api("breaks", break_id), {})
    if service.json:
        return write_raw(raw)
    terminal_breaks.show_break(document, tables.console())
    return 0


@reconcile.command
def matches(
    *, source: SourceName = None, currency: Currency = None,
    rule: Annotated[str | None, Parameter(help="Only what this rule matched, like amount.")] = None,
    paging: Paging = FIRST_PAGE, service: ServiceOptions = NOW,
) -> int:  # fmt: skip
    """List what is matched, with the rule that matched it, and how much each rule matched."""
    from ledger.terminal.breaks import show_matches

    filters = {"source": source, "currency": currency, "rule": rule}
    return show_list("matches", filters, paging, service, show=show_matches)


@reconcile.command
def findings(
    *, source: SourceName = None,
    reason: Annotated[str | None, Parameter(help="Only for this reason.")] = None,
    as_of: Annotated[str | None, Parameter(help="As of this moment, RFC 3339.")] = None,
    paging: Paging = FIRST_PAGE, service: ServiceOptions = NOW,
) -> int:  # fmt: skip
    """List what looks incomplete without any statement: stuck, returned, drifted, unverified."""
    filters = {"source": source, "reason": reason, "as_of": as_of}
    return show_list("findings", filters, paging, service, path=api("reconciliation", "findings"))
