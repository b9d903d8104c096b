"""Promise: a view is one file, to ask as well; nothing else has to know of it."""

from __future__ import annotations

import asyncio
import csv
import io
import shutil
import subprocess
import sys
from pathlib import Path

import orjson
import pyarrow.parquet

import projections
from tests.asking import payment
from tests.conftest import eventually
from tests.e2e.conftest import Serve
from tests.service import Caller, Service, calling

TOML = """
[sources.straitsx]
provider = "straitsx"
"""
PAID = '''"""Completed payments, one row each: a view that came later."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ledger.model import FoldResult, Projection, Table


def rows(outcome: FoldResult) -> Sequence[tuple[Any, ...]]:
    """Return the row of a completed payment."""
    fact = outcome.fact
    if fact is None or fact.kind != "payment" or fact.status != "completed":
        return ()
    return [(
        outcome.source, outcome.resource_id, outcome.position, fact.customer_id, fact.amount,
        fact.effective_at, (fact.amount or 0) > 100, ["paid", fact.kind], {"fees": str(fact.fees)},
        "for nobody",
    )]


PROJECTION = Projection(
    name="paid",
    table=Table(
        name="paid",
        columns={
            "source": "text", "id": "text", "number": "bigint", "customer": "text",
            "amount": "numeric", "at": "timestamptz", "is_large": "boolean", "tags": "text[]",
            "about": "jsonb", "remark": "text",
        },
        key=("source", "id", "number"),
        filters=("customer", "is_large"),
        hidden=("remark",),
    ),
    rows=rows,
)
'''
DATED = '''"""Payments with their place and time: a view that can be read as it was."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ledger.model import FoldResult, Projection, Table


def rows(outcome: FoldResult) -> Sequence[tuple[Any, ...]]:
    """Return the row of a payment."""
    fact = outcome.fact
    if fact is None or fact.kind != "payment":
        return ()
    return [(outcome.source, outcome.position, fact.amount, fact.effective_at)]


PROJECTION = Projection(
    name="dated",
    table=Table(
        name="dated",
        columns={
            "source": "text", "position": "bigint", "amount": "numeric",
            "effective_at": "timestamptz",
        },
        key=("source", "position"),
    ),
    rows=rows,
)
'''
COUNT = 7
COLUMNS = ["source", "id", "number", "customer", "amount", "at", "is_large", "tags", "about"]


def ledger(service: Service, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run a command of the service's own installation."""
    return subprocess.run(
        [sys.executable, "-m", "ledger", *arguments], env=service._environment(),
        cwd=service.folder, capture_output=True, check=False, timeout=60,
    )  # fmt: skip


async def post_payments(caller: Caller) -> None:
    """Post payments of two customers, the odd ones large."""
    for n in range(COUNT):
        body = payment(n, amount="250.10" if n % 2 else "10.5", customer_profile_id=f"c{n % 2}")
        await caller.report("straitsx", orjson.dumps(body))


async def check_api(caller: Caller) -> None:
    """List, filter and page the view over HTTP, and find it in the description of the API."""
    described = await caller.ask("/v1/views", at_least=f"straitsx:{COUNT}")
    (view,) = [each for each in described["views"] if each["table"] == "paid"]
    assert [column["name"] for column in view["columns"]] == COLUMNS
    assert {column["name"]: column["type"] for column in view["columns"]} == {
        "source": "text", "id": "text", "number": "integer", "customer": "text",
        "amount": "amount", "at": "time", "is_large": "boolean", "tags": "texts", "about": "json",
    }  # fmt: skip
    assert view["filters"] == ["source", "id", "number", "customer", "is_large"]
    whole = await caller.ask("/v1/views/paid")
    assert [row["number"] for row in whole["rows"]] == list(range(1, COUNT + 1))
    assert whole["position"]["straitsx"] == COUNT
    first = whole["rows"][0]
    assert list(first) == COLUMNS
    assert (first["amount"], first["is_large"], first["tags"], first["about"]) == (
        "10.5", False, ["paid", "payment"], {"fees": "0.5"},
    )  # fmt: skip
    assert await caller.rows("/v1/views/paid", "rows", limit=2) == whole["rows"]
    large = await caller.rows("/v1/views/paid", "rows", limit=1, is_large="true")
    assert [row["number"] for row in large] == [2, 4, 6]
    assert large == await caller.rows("/v1/views/paid", "rows", customer="c1")
    asked = await caller.ask("/v1/views/paid", id=first["id"], number=1)
    assert asked["rows"] == [first]
    document = await caller.ask("/openapi.json")
    row = document["components"]["schemas"]["PaidViewRow"]["properties"]
    assert row["amount"]["anyOf"][0]["pattern"] == r"^-?\d+(\.\d+)?$"
    assert row["number"] == {"type": "integer"}
    taken = document["paths"]["/v1/views/paid"]["get"]["parameters"]
    assert {"customer", "is_large", "limit", "cursor"} <= {param["name"] for param in taken}


async def check_as_of(caller: Caller) -> None:
    """Read a view with positions as it was; of one that keeps none this is refused."""
    then = await caller.ask("/v1/views/dated", position=f"straitsx:{COUNT - 2}")
    assert [row["position"] for row in then["rows"]] == list(range(1, COUNT - 1))
    assert then["as_of"]["position"]["straitsx"] == COUNT - 2
    moment = then["rows"][2]["effective_at"]
    dated = await caller.ask("/v1/views/dated", effective_at=moment)
    assert [row["position"] for row in dated["rows"]] == [
        row["position"] for row in then["rows"] if row["effective_at"] <= moment
    ]
    for name, value in (("position", "straitsx:1"), ("effective_at", moment)):
        answer = await caller.request("GET", "/v1/views/paid", params={name: value})
        problem = orjson.loads(answer.body)
        assert (answer.status, problem["detail"].endswith("for the present only")) == (400, True)


def check_command_line(service: Service) -> None:
    """Show the view as a table, as JSON and page by page."""
    where = ("--url", service.url)
    listed = ledger(service, "views", *where)
    assert b"paid" in listed.stdout
    shown = ledger(service, "views", "paid", "--filter", "customer=c1", *where)
    assert (shown.returncode, shown.stdout.count(b"250.1")) == (0, 3)
    assert b"for nobody" not in shown.stdout
    place = ("--position", "straitsx:2")
    earlier = ledger(service, "views", "dated", *place, "--json", *where)
    assert [row["position"] for row in orjson.loads(earlier.stdout)["rows"]] == [1, 2]
    wrong = ledger(service, "views", *place, *where)
    assert (wrong.returncode, b"name the view" in wrong.stderr) == (2, True)
    whole = ledger(service, "views", "paid", "--all", "--limit", "2", "--json", *where)
    assert [row["number"] for row in orjson.loads(whole.stdout)["rows"]] == list(
        range(1, COUNT + 1)
    )


def check_exports(service: Service) -> None:
    """Export the view in every form of a table."""
    lines = ledger(service, "export", "--format", "jsonl", "--what", "paid").stdout.splitlines()
    assert [orjson.loads(line)["number"] for line in lines] == list(range(1, COUNT + 1))
    text = ledger(service, "export", "--format", "csv", "--what", "paid").stdout.decode()
    header, *rows = csv.reader(io.StringIO(text))
    assert (header, len(rows), rows[1][4]) == (COLUMNS, COUNT, "250.1")
    earlier = ledger(
        service, "export", "--format", "jsonl", "--what", "dated", "--position", "straitsx:2"
    )
    assert [orjson.loads(line)["position"] for line in earlier.stdout.splitlines()] == [1, 2]
    refused = ledger(
        service, "export", "--format", "jsonl", "--what", "paid", "--position", "straitsx:2"
    )
    assert (refused.returncode, b"for the present only" in refused.stderr) == (2, True)
    file = service.folder / "paid.parquet"
    done = ledger(service, "export", "--format", "parquet", "--what", "paid", "--out", str(file))
    assert done.returncode == 0, done.stderr
    table = pyarrow.parquet.read_table(file)
    assert table.column_names == COLUMNS
    assert str(table.schema.field("amount").type) == "decimal128(38, 18)"


async def test_a_view_is_listed_filtered_paged_exported_and_shown_by_one_file(
    serve: Serve, tmp_path: Path
) -> None:
    own = Path(projections.__file__).parent
    shutil.copytree(own, tmp_path / "projections", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "projections" / "paid.py").write_text(PAID, "utf-8")
    (tmp_path / "projections" / "dated.py").write_text(DATED, "utf-8")
    with serve(TOML, PYTHONPATH=str(tmp_path)) as service:
        async with calling(service.url) as caller:
            await post_payments(caller)

            async def folded() -> bool:
                answer = await caller.request(
                    "GET", "/v1/views/paid", params={"at_least": f"straitsx:{COUNT}"}
                )
                return answer.status == 200

            await eventually(folded)
            await check_api(caller)
            await check_as_of(caller)
        await asyncio.to_thread(check_command_line, service)
        await asyncio.to_thread(check_exports, service)
