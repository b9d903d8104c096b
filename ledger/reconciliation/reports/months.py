"""Write how the breaks of one wallet go from month to month. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from ledger.reconciliation.reports.page import table

JSON = Mapping[str, Any]

HEADINGS: Final = (
    "month", "state", "closed", "carried in", "opened", "changed", "closed by decision",
    "closed by match", "carried out",
)  # fmt: skip


def month_rows(
    months: Sequence[JSON], amount: Callable[[str | None], str]
) -> Iterator[tuple[str, ...]]:
    """Yield the roll-forwards of a wallet as rows under HEADINGS: each sum with its count."""

    def counted(each: JSON) -> str:
        return f"{amount(each['amount'])} ({each['count']})"

    for month in months:
        yield (
            month["period"], month["state"], "yes" if month["closed"] else "no",
            counted(month["carried_in"]), counted(month["opened"]), amount(month["changed"]),
            counted(month["closed_by_decision"]), counted(month["closed_by_match"]),
            counted(month["carried_out"]),
        )  # fmt: skip


def month_amounts(months: Sequence[JSON]) -> Iterator[tuple[str, str | None]]:
    """Yield every amount of roll-forwards, each with its currency."""
    for month in months:
        sums = (each["amount"] for each in month.values() if isinstance(each, dict))
        yield from ((month["currency"], each) for each in (*sums, month["changed"]))


def month_section(months: Sequence[JSON], amount: Callable[[str | None], str]) -> Iterator[str]:
    """Yield the section of a page; nothing without a month."""
    if months:
        yield "<h2>From month to month: gaps of breaks and in transit (and how many)</h2>"
        yield table(HEADINGS, list(month_rows(months, amount)), numbers=range(3, len(HEADINGS)))
