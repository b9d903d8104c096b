"""Write the reconciliations of all wallets as one page and as CSV. Pure."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from html import escape
from typing import Any, Final
from urllib.parse import quote

from ledger.reconciliation.reports import page
from ledger.reconciliation.reports.page import Markup, link, state_mark, table
from ledger.terminal.cells import write_cell
from ledger.terminal.figures import Decimals, dated, local_time, zone_named

JSON = Mapping[str, Any]

WALLET_FIELDS: Final = (
    "source", "currency", "state", "from", "through", "time_zone", "statement", "books",
    "in_transit", "in_transit_count", "breaks", "breaks_count", "residual", "reasons",
)  # fmt: skip
TYPE_FIELDS: Final = ("source", "currency", "type", "age", "owner", "count", "gap")
AMOUNTS: Final[Mapping[str, str]] = {
    "statement": "closing", "books": "ledger", "in_transit": "in_transit", "breaks": "breaks",
    "residual": "residual",
}  # fmt: skip
"""Column of the overview → the figure that it shows."""

INCOMPLETE: Final = "INCOMPLETE"
NO_STATEMENT: Final = "no statement of it is imported"


def csv_of(answer: JSON) -> bytes:
    """Return the wallets, one per row, then their open breaks by type and age."""
    decimals = Decimals(_amounts(answer))
    out = io.StringIO(newline="")
    rows = csv.writer(out, lineterminator="\r\n")
    rows.writerow(WALLET_FIELDS)
    for run in answer["reconciliations"]:
        zone, figures = zone_named(run["time_zone"]), run["figures"]
        row = dict(run)
        for name, figure in AMOUNTS.items():
            row[name] = decimals.text(run["currency"], figures[figure], grouped=False)
        row |= {name: str(figures[name]) for name in ("in_transit_count", "breaks_count")}
        row |= {"from": dated(run["opened_at"], zone), "through": dated(run["through"], zone)}
        row |= {"reasons": "; ".join(run["reasons"])}
        rows.writerow([write_cell(row[name]) for name in WALLET_FIELDS])
    for bare in answer["without_statement"]:
        total = decimals.text(bare["currency"], bare["total"], grouped=False)
        row = {**bare, "state": INCOMPLETE, "books": total, "reasons": NO_STATEMENT}
        rows.writerow([write_cell(row.get(name, "")) for name in WALLET_FIELDS])
    rows.writerow(())
    rows.writerow(TYPE_FIELDS)
    for run, each in _types(answer):
        gap = decimals.text(run["currency"], each["gap"], grouped=False)
        row = {**each, "gap": gap, "age": each["bucket"], "count": str(each["count"])}
        row |= {"source": run["source"], "currency": run["currency"]}
        rows.writerow([write_cell(row[name]) for name in TYPE_FIELDS])
    return out.getvalue().encode()


def html_of(answer: JSON) -> bytes:
    """Return the page: every wallet, then the open breaks by type and age."""
    runs, bare = answer["reconciliations"], answer["without_statement"]
    decimals = Decimals(_amounts(answer))
    zones = sorted({run["time_zone"] for run in runs})
    times = f"Times are in {zones[0]}." if len(zones) == 1 else ""
    states = Counter([run["state"] for run in runs] + [INCOMPLETE for _ in bare])
    parts = [
        "<h1>Reconciliation of all wallets</h1>",
        "<p>"
        + " ".join(f"{state_mark(state)} {count}" for state, count in sorted(states.items()))
        + "</p>",
        f"<p class=soft>Statement + in transit + open breaks + residual = books. {escape(times)}"
        "</p>",
        table(
            ("wallet", "state", "through", "statement", "in transit", "open breaks", "residual",
             "books"),
            [*_rows(runs, decimals, has_zones=len(zones) > 1), *_bare_rows(bare, decimals)],
            numbers={3, 4, 5, 6, 7},
            whole={0, 1, 2},
        ),
        *(
            f"<p>{escape(run['source'])} {escape(run['currency'])}: {escape(reason)}</p>"
            for run in runs
            for reason in (*run["reasons"], *_changed_months(run))
        ),
        *(
            f"<p>{escape(wallet['source'])} {escape(wallet['currency'])}: {NO_STATEMENT}</p>"
            for wallet in bare
        ),
        "<h2>Open breaks by type and age</h2>",
        table(
            ("wallet", "type", "age", "owner", "count", "gap"),
            [
                (
                    _wallet_link(run), each["type"], each["bucket"], each["owner"], each["count"],
                    decimals.text(run["currency"], each["gap"]),
                )
                for run, each in _types(answer)
            ],
            numbers={4, 5},
            whole={0, 2},
        ),
        f"<p>{link('/reconciliation/breaks.csv?state=OPEN', 'All open breaks as a spreadsheet')}"
        "</p>",
    ]  # fmt: skip
    return page.document("Reconciliation of all wallets", parts)


def _changed_months(run: JSON) -> list[str]:
    """Return what changed in months that are closed, in words."""
    return [month["detail"] for month in run.get("changed_months", ())]


def _amounts(answer: JSON) -> Iterator[tuple[str, str | None]]:
    for run in answer["reconciliations"]:
        for figure in AMOUNTS.values():
            yield run["currency"], run["figures"][figure]
        yield from ((run["currency"], each["gap"]) for each in run["figures"]["by_type"])
    yield from ((bare["currency"], bare["total"]) for bare in answer["without_statement"])


def _types(answer: JSON) -> Iterator[tuple[JSON, JSON]]:
    """Yield each run with each of its types and ages, the largest first."""
    for run in answer["reconciliations"]:
        sums = run["figures"]["by_type"]
        for each in sorted(sums, key=lambda each: -abs(Decimal(each["gap"]))):
            yield run, each


def _rows(
    runs: Iterable[JSON], decimals: Decimals, *, has_zones: bool
) -> Iterator[tuple[Any, ...]]:
    for run in runs:
        figures, currency = run["figures"], run["currency"]

        def amount(name: str, figures: JSON = figures, currency: str = currency) -> str:
            value = figures[AMOUNTS[name]]
            return page.NOT_STATED if value is None else decimals.text(currency, value)

        through = local_time(run["through"], zone_named(run["time_zone"]))
        yield (
            _wallet_link(run),
            state_mark(run["state"]),
            f"{through} {run['time_zone']}" if has_zones else through,
            amount("statement"),
            _counted(amount("in_transit"), figures["in_transit_count"], "item"),
            _counted(amount("breaks"), figures["breaks_count"], "break"),
            amount("residual"),
            amount("books"),
        )


def _bare_rows(bare: Sequence[JSON], decimals: Decimals) -> Iterator[tuple[Any, ...]]:
    for wallet in bare:
        name = f"{wallet['source']} {wallet['currency']}"
        total = decimals.text(wallet["currency"], wallet["total"])
        yield name, state_mark(INCOMPLETE), "no statement", "", "", "", "", total


def _counted(amount: str, count: int, noun: str) -> Markup:
    """Return an amount with the number of items that it is of."""
    if not count:
        return Markup(escape(amount))
    words = f"{count} {noun}" if count == 1 else f"{count} {noun}s"
    return Markup(f"{escape(amount)}<br><span class=soft>{words}</span>")


def _wallet_link(run: JSON) -> Markup:
    path = "/".join(quote(run[name], safe="") for name in ("source", "currency"))
    return link(f"/reconciliation/{path}", f"{run['source']} {run['currency']}")
