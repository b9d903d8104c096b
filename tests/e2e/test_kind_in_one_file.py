"""Promise: a kind of money is one file: declared beside its handler, it behaves like the others.

The kind of this test is the over-the-counter trade (OTC), a contract type that the StraitsX FAQ
names and no callback sample shows. A second handler of the file feeds a kind that exists already.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.e2e.conftest import Serve
from tests.service import Caller, Service, calling

HANDLERS = Path(__file__).parents[2] / "handlers"
OTC = '''"""StraitsX OTC trades, and refunds of fiat, which are payments."""

from typing import Final

from ledger.model import (
    ONE_END, Envelope, Fact, Handler, MoneyKind, Payload, SourceTerms, identify, plain,
)

STATUSES: Final = frozenset({"pending", "completed", "failed"})

MONEY_KIND = MoneyKind(name="otc", ranks=ONE_END, postings="swap", can_come_back=True)


def trade(payload: Payload) -> Envelope:
    return identify(payload, "otc", payload.status("status", STATUSES))


def translate_trade(payload: Payload, terms: SourceTerms) -> Fact:
    return trade(payload).fact(
        customer_id=payload.text("customer_profile_id"),
        amount=payload.amount("sold"),
        currency=payload.currency("sold_currency"),
        fees=payload.fees("fees"),
        terms={
            "target_amount": plain(payload.amount("bought")),
            "target_currency": payload.currency("bought_currency"),
        },
    )


def refund(payload: Payload) -> Envelope:
    return identify(payload, "payment", payload.status("status", STATUSES))


def translate_refund(payload: Payload, terms: SourceTerms) -> Fact:
    return refund(payload).fact(
        amount=payload.amount("amount"), currency=payload.currency("currency"),
        fees=payload.fees("fees"),
    )


def handler(kind, name, envelope, translate) -> Handler:
    return Handler(
        provider="straitsx", kind=kind, events=frozenset(),
        matches=lambda payload: payload.type == name, types=frozenset({name}),
        envelope=envelope, translate=translate, statuses=STATUSES,
    )


HANDLERS = (
    handler("otc", "OTC", trade, translate_trade),
    handler("payment", "FiatRefund", refund, translate_refund),
)
'''
SECRET = "0123456789abcdef" * 2
TOML = f'[sources.straitsx]\nprovider = "straitsx"\nsecrets = ["{SECRET}"]\n'


@pytest.fixture(scope="module")
def service(serve: Serve, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("code")
    shutil.copytree(HANDLERS, folder / "handlers")
    (folder / "handlers" / "straitsx_otc.py").write_text(OTC, encoding="utf-8")
    with serve(TOML, PYTHONPATH=str(folder)) as running:
        yield running


def trade(number: int, status: str = "completed", **given: Any) -> dict[str, Any]:
    known = {
        "id": f"contract_otc_{number}", "type": "OTC", "status": status,
        "idempotency_id": f"otc-{number}", "sold": "1000.0", "sold_currency": "xsgd",
        "fees": "5.0", "bought": "740.5", "bought_currency": "usdc",
        "updated_at": "2026-02-01T10:00:00Z",
    }  # fmt: skip
    return {**known, **given}


async def post(caller: Caller, body: dict[str, Any]) -> int:
    """Post a callback; return its position."""
    answer = await caller.report("straitsx", orjson.dumps(body))
    assert answer["status"] == "accepted", answer
    return int(answer["position"])


async def decide(caller: Caller, path: str, **decision: Any) -> int:
    """Post a decision; return its position."""
    reply = await caller.request("POST", path, json=decision)
    assert reply.status == 200, reply
    return int(reply.json["position"])


async def balances(caller: Caller, position: int) -> dict[str, str]:
    rows = await caller.rows("/v1/balances", "balances", at_least=f"straitsx:{position}")
    return {f"{row['account']} {row['currency']}": row["balance"] for row in rows}


async def shown(caller: Caller, id_: str, position: int) -> Any:
    path = f"/v1/transactions/straitsx/{id_}"
    return await caller.ask(path, at_least=f"straitsx:{position}")


async def test_a_declared_kind_is_posted_decided_returned_and_attributed(service: Service) -> None:
    async with calling(service.url, SECRET) as caller:
        await post(caller, trade(1, "pending"))
        position = await post(caller, trade(1))
        row = await shown(caller, "contract_otc_1", position)
        assert (row["kind"], row["status"], row["amount"]) == ("otc", "completed", "1000")
        found = await balances(caller, position)
        found.pop("assets:wallet:held XSGD", None)
        assert found == {
            "assets:wallet:available XSGD": "-1005", "assets:wallet:available USDC": "740.5",
            "equity:conversion XSGD": "-1000", "equity:conversion USDC": "740.5",
            "expenses:fees XSGD": "5",
        }  # fmt: skip

        first = await post(caller, trade(2))
        position = await post(caller, trade(2, "failed"))
        row = await shown(caller, "contract_otc_2", position)
        assert (row["status"], row["conflict"]["reason"]) == ("conflict", "terminals_disagree")
        (found,) = await caller.rows("/v1/exceptions", "exceptions", kind="otc")
        path = f"/v1/exceptions/{found['id']}/resolve"
        position = await decide(caller, path, action="keep", keep=first, note="asked them")
        row = await shown(caller, "contract_otc_2", position)
        assert (row["status"], row["flags"]) == ("completed", ["decided"])

        returned = {
            "id": "contract_in_1", "type": "Direct bank transfer", "status": "completed",
            "amount": "1000.0", "fees": "0.0", "currency": "xsgd",
            "transaction_remarks": "/ROC/RTN otc-2", "updated_at": "2026-02-03T10:00:00Z",
        }  # fmt: skip
        position = await post(caller, returned)
        assert (await shown(caller, "contract_in_1", position))["flags"] == ["return"]
        row = await shown(caller, "contract_otc_2", position)
        assert (row["flags"], row["details"]["returned_amount"]) == (
            ["decided", "returned"],
            "1000",
        )

        path = "/v1/transactions/straitsx/contract_otc_2/attribute"
        position = await decide(caller, path, customer_id="cust_1", note="theirs")
        row = await shown(caller, "contract_otc_2", position)
        assert row["customer_id"] == "cust_1"
        after = await balances(caller, position)
        assert after["liabilities:customers:cust_1 USDC"] == "740.5"
        assert after["liabilities:customers:cust_1 XSGD"] == "0"
        listed = await caller.rows("/v1/transactions", "transactions", kind="otc,payment")
        assert {row["kind"] for row in listed} == {"otc", "payment"}


async def test_two_handlers_feed_one_kind(service: Service) -> None:
    refund = {
        "id": "contract_refund_1", "type": "FiatRefund", "status": "completed", "amount": "12.5",
        "fees": "0.0", "currency": "usd", "updated_at": "2026-02-01T10:00:00Z",
    }  # fmt: skip
    async with calling(service.url, SECRET) as caller:
        position = await post(caller, refund)
        row = await shown(caller, "contract_refund_1", position)
        assert (row["kind"], row["status"], row["currency"]) == ("payment", "completed", "USD")
        assert (await balances(caller, position))["assets:wallet:available USD"] == "12.5"
