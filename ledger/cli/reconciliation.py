"""Commands about statements and reconciliation; all of them ask a running service."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from cyclopts import App, Parameter

from ledger.cli.options import (
    FIRST_PAGE,
    NOW,
    PROVE,
    Currency,
    Flag,
    Paging,
    ServiceOptions,
    SourceName,
)
from ledger.cli.queries import api, ask_service, show_list, write_file, write_raw
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

    --html and --csv write the report of one wallet: name its --source and --currency.
    """
    from ledger.terminal import tables

    filters = {"source": source, "currency": currency, "limit": 1000}
    document, raw, is_now = _settled(
        service, filters, wait=not no_wait, sealed=html is not None or csv is not None
    )
    runs, bare = document["reconciliations"], document["without_statement"]
    for path, kind in ((html, "html"), (csv, "csv")):
        if path is not None:
            _write_report(service, source, currency, path, kind)
    if service.json:
        write_raw(raw)
    elif csv is None or str(csv) != "-":
        out = tables.console()
        tables.show("reconciliations", document, out)
        for run in runs:
            for reason in run["reasons"]:
                tables.line(out, f"{run['source']} {run['currency']}: {reason}", run["state"])
        for wallet in bare:
            name = f"{wallet['source']} {wallet['currency']}"
            sentence = f"{name}: INCOMPLETE, no statement of it is imported"
            tables.line(out, f"{sentence}; it holds {wallet['total']}", "INCOMPLETE")
    exits = [EXITS.get(run["state"], 3) for run in runs] + [3 for _ in bare]
    return max(exits, default=3) if is_now or no_wait else 3


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
    listed, _ = ask_service(service, "/v1/statements", filters)
    source = filters["source"]
    for log, head in targets.items():
        is_asked = source is None or log == f"{source}.statements"
        if log.endswith(".statements") and is_asked and listed["position"].get(log, 0) < head:
            return None
    return {
        (statement["source"], statement["currency"])
        for statement in listed["statements"]
        if statement["status"] == "imported"
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

    if not source or not currency:
        raise InvalidRequest(f"--{kind} is the report of one wallet: name --source and --currency")
    address = path_of("reconciliation", source, currency.upper())
    _, raw = ask_service(service, address, {"as": kind}, decode=False)
    if str(path) == "-":
        write_raw(raw, end=b"")
    else:
        write_file(path, raw)


@reconcile.command
def breaks(
    *, source: SourceName = None, currency: Currency = None,
    type_: Annotated[
        str | None, Parameter(name="--type", help="Only this type, like AMOUNT.")
    ] = None,
    state: Annotated[
        Literal["OPEN", "RESOLVED"] | None, Parameter(help="Only in this state.")
    ] = None,
    owner: Annotated[str | None, Parameter(help="Only breaks of this owner.")] = None,
    paging: Paging = FIRST_PAGE, service: ServiceOptions = NOW,
) -> int:  # fmt: skip
    """List what differs between statements and books, and what is in transit."""
    filters = {"source": source, "currency": currency, "type": type_, "state": state,
               "owner": owner}  # fmt: skip
    return show_list("breaks", filters, paging, service)


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
