"""The planted month shows the same faults whether its statements are JSON or files of banks.

One service has a source per format and month. Its callbacks are posted, its statements imported
over HTTP, and the breaks that it lists are compared with the faults that were planted.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import Any, Final
from zoneinfo import ZoneInfo

import orjson
import pytest

from ledger.simulator.month import CURRENCIES, Month, month
from ledger.simulator.statement_files import (
    CSV_PROFILE,
    Writer,
    account_of,
    bank_csv,
    camt053,
    mt940,
    straitsx_json,
)
from ledger.simulator.story import Planted, SimulatedRow
from tests.e2e.conftest import Serve
from tests.service import Caller, Service, calling

Json = dict[str, Any]

SINGAPORE: Final = ZoneInfo("Asia/Singapore")
CSV_PERIOD: Final = {"from": "2026-06-01T00:00:00Z", "to": "2026-07-01T00:00:00Z"}
"""A CSV states no period; whoever exported it knows it."""
CONCURRENCY: Final = 64


IN_SINGAPORE: Final = {"columns": '{"time_zone": "Asia/Singapore"}'}


@dataclass(frozen=True, slots=True)
class Form:
    """How the statements of one source are written and imported."""

    write: Writer
    params: Mapping[str, str]


FORMS: Final[Mapping[str, Form]] = {
    "json": Form(straitsx_json, {}),
    "camt": Form(camt053, {}),
    "camt-instr": Form(
        partial(camt053, instruction_ids=True, states_period=False, zone=SINGAPORE),
        IN_SINGAPORE,
    ),
    "mt940": Form(mt940, {}),
    "mt940-structured": Form(partial(mt940, structured=True, zone=SINGAPORE), IN_SINGAPORE),
    "csv": Form(bank_csv, {"profile": "bank", **CSV_PERIOD}),
}
WEAKER: Final[Mapping[str, Mapping[str, str]]] = {}
"""Form → type that was planted → the weaker one that is found, as the file lacks a name: none."""

SMALL, LARGE = 200, 2_000
FORMATS: Final = ("json", "camt", "mt940", "csv")
PLANTED: Final = [
    *((form, 7, SMALL) for form in FORMS),
    *((form, 23, SMALL) for form in FORMATS),
    *(pytest.param(form, 5, LARGE, marks=pytest.mark.soak) for form in FORMATS),
]
CLEAN: Final = [
    *((form, 9, SMALL) for form in FORMS),
    *(pytest.param(form, 4, LARGE, marks=pytest.mark.soak) for form in FORMATS),
]


def source_of(form: str, seed: int, transactions: int) -> str:
    return f"{form}-{seed}-{transactions}"


def settings() -> str:
    """Declare a source for every form of every month."""
    tables = []
    for name in FORMS:
        accounts = "\n".join(f'"{account_of(currency)}" = "{currency}"' for currency in CURRENCIES)
        profile = "\n".join(f'{key} = "{value}"' for key, value in CSV_PROFILE.items())
        for seed, transactions in ((7, SMALL), (23, SMALL), (5, LARGE), (9, SMALL), (4, LARGE)):
            source = f"sources.{source_of(name, seed, transactions)}"
            tables.append(f'[{source}]\nprovider = "straitsx"\n')
            if name != "json":
                tables.append(f"[{source}.accounts]\n{accounts}\n")
            if name == "csv":
                tables.append(f"[{source}.statements.bank]\n{profile}\n")
    return "\n".join(tables)


@pytest.fixture(scope="module")
def service(serve: Serve) -> Iterator[Service]:
    with serve(settings()) as running:
        yield running


async def post_callbacks(caller: Caller, source: str, stated: Month) -> int:
    """Post a month's callbacks, some at a time; return the last position."""
    waiting = asyncio.Semaphore(CONCURRENCY)

    async def post(event: str, body: bytes) -> int:
        async with waiting:
            return int((await caller.report(source, body, event or None))["position"])

    return max(await asyncio.gather(*(post(*each) for each in stated.callbacks)))


async def import_files(caller: Caller, source: str, form: Form, stated: Month) -> None:
    for currency, body in stated.statements.items():
        params = {"source": source, **form.params}
        if form.write is bank_csv:
            params |= {"account": account_of(currency), "currency": currency}
        reply = await caller.request("POST", "/v1/statements", params=params, data=body)
        assert reply.status == 200, (currency, reply.body)
        assert reply.json["status"] == "accepted"
        assert reply.json["withdrawn"] == 0


def reconciled(service: Service, source: str) -> list[Json]:
    """Wait for the reconciliation of a source, as the command does; return its runs."""
    done = subprocess.run(
        [sys.executable, "-m", "ledger", "reconcile", "--source", source, "--url", service.url,
         "--json"],
        env={k: v for k, v in os.environ.items() if not k.startswith("LEDGER_")},
        capture_output=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.stdout, done.stderr
    return list(orjson.loads(done.stdout)["reconciliations"])


class Rows:
    """The rows of a month, to be found by what a listed line shows."""

    def __init__(self) -> None:
        self.by_amount: dict[tuple[str, Decimal], list[SimulatedRow]] = defaultdict(list)

    def write(self, currency: str, rows: Sequence[SimulatedRow]) -> bytes:
        for row in rows:
            self.by_amount[currency, row.amount].append(row)
        return b""

    def ids_of(self, line: Json) -> set[str]:
        """Return the ids of the rows that a line may be: more than one where they are equal."""
        names = {line["contract_id"], line["idempotency_id"], line["reference"]}
        names |= {*line.get("names", ())}
        equal = self.by_amount[line["currency"], Decimal(line["amount"])]
        named = [
            row
            for row in equal
            if {row.contract_id, row.idempotency_id, row.reference} & names - {"", None}
        ]
        nameless = [row for row in equal if not (row.contract_id or row.idempotency_id)]
        return {row.id for row in named or nameless}


@dataclass(frozen=True, slots=True)
class Found:
    """A break that the service lists, with the rows and transactions that it is about."""

    currency: str
    type: str
    ids: frozenset[str]
    detail: str

    def is_of(self, fault: Planted, kind: str) -> bool:
        """Tell whether it is a planted fault, of the type `kind`."""
        expected = {fault.line_id, fault.transaction_id} - {None}
        touched = {currency for currency, _ in fault.differences}
        return self.type == kind and self.currency in touched and bool(expected & self.ids)


async def found_in(caller: Caller, source: str, rows: Rows) -> list[Found]:
    lines = await caller.rows("/v1/statement_lines", "statement_lines", source=source, limit=1000)
    named = {(line["currency"], f"line:{line['line']}"): line for line in lines}
    breaks = await caller.rows("/v1/breaks", "breaks", source=source, limit=1000)
    found = []
    for each in breaks:
        ids: set[str] = set()
        for item in each["items"]:
            line = named.get((each["currency"], item))
            ids |= rows.ids_of(line) if line else {item.partition(":")[2]}
        found.append(Found(each["currency"], each["type"], frozenset(ids), each["detail"]))
    return found


def check_faults(name: str, stated: Month, found: Sequence[Found]) -> None:
    """Compare: every fault is found in each wallet that it touches, and nothing else."""
    weaker = WEAKER.get(name, {})
    types = {fault: weaker.get(fault.type, fault.type) for fault in stated.planted}
    missed = [
        f"missed in {currency}: {fault}"
        for fault, kind in types.items()
        for currency, _ in fault.differences
        if not any(b.currency == currency and b.is_of(fault, kind) for b in found)
    ]
    false = [f"false: {b}" for b in found if not any(b.is_of(f, kind) for f, kind in types.items())]
    assert "\n".join([*missed, *false]) == ""


@pytest.mark.parametrize(("form", "seed", "transactions"), PLANTED)
async def test_the_planted_faults_are_found_with_their_types_and_nothing_else(
    service: Service, form: str, seed: int, transactions: int
) -> None:
    source, rows = source_of(form, seed, transactions), Rows()
    month(seed, transactions, True, rows.write)
    stated = month(seed, transactions, True, FORMS[form].write)
    async with calling(service.url) as caller:
        await post_callbacks(caller, source, stated)
        await import_files(caller, source, FORMS[form], stated)
        runs = await asyncio.to_thread(reconciled, service, source)
        assert {run["currency"] for run in runs} == {*CURRENCIES}
        figures = {(run["figures"]["residual"], run["figures"]["chain"]) for run in runs}
        assert figures == {("0", "0")}
        check_faults(form, stated, await found_in(caller, source, rows))


@pytest.mark.parametrize(("form", "seed", "transactions"), CLEAN)
async def test_a_month_without_faults_is_reconciled(
    service: Service, form: str, seed: int, transactions: int
) -> None:
    source, rows = source_of(form, seed, transactions), Rows()
    month(seed, transactions, False, rows.write)
    stated = month(seed, transactions, False, FORMS[form].write)
    async with calling(service.url) as caller:
        await post_callbacks(caller, source, stated)
        await import_files(caller, source, FORMS[form], stated)
        runs = await asyncio.to_thread(reconciled, service, source)
        check_faults(form, stated, await found_in(caller, source, rows))
        states = {run["currency"]: run["state"] for run in runs}
        assert states == dict.fromkeys(CURRENCIES, "RECONCILED")
