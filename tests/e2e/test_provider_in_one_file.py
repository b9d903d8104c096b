"""Promise: a provider is one file: declared there, its callbacks are taken, folded and verified.

The provider of this test signs as Standard Webhooks. Only its file is added to `handlers/`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pytest

from ledger.signatures.standard_webhooks import PREFIX, StandardWebhooks
from tests.conftest import eventually
from tests.e2e.conftest import Serve
from tests.service import Caller, Service, calling

HANDLERS = Path(__file__).parents[2] / "handlers"
ACME = '''"""Acme: payments, signed as Standard Webhooks."""

from typing import Final

from ledger.model import Envelope, Fact, Handler, Payload, Provider, SourceTerms, identify

STATUSES: Final = frozenset({"pending", "completed"})

PROVIDER = Provider(name="acme", scheme="standard-webhooks", default_currency="SGD")


def matches(payload: Payload) -> bool:
    return payload.type == "payment.updated"


def envelope(payload: Payload) -> Envelope:
    return identify(payload, "payment", payload.status("state", STATUSES))


def translate(payload: Payload, terms: SourceTerms) -> Fact:
    return envelope(payload).fact(
        amount=payload.amount("total"), currency=terms.currency, fees=payload.fees("fee")
    )


HANDLER = Handler(
    provider="acme",
    kind="payment",
    events=frozenset(),
    matches=matches,
    types=frozenset({"payment.updated"}),
    envelope=envelope,
    translate=translate,
    statuses=STATUSES,
)
'''
SECRET = PREFIX + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
TOML = f'[sources.acme]\nsecrets = ["{SECRET}"]\ntolerance_seconds = 60\n'
SIGNER = StandardWebhooks("", (SECRET,))


def payment(number: int) -> bytes:
    return orjson.dumps(
        {
            "type": "payment.updated", "id": f"pay_{number}", "state": "completed",
            "total": "100.00", "fee": "1.50", "updated_at": "2026-11-30T10:00:00Z",
        }
    )  # fmt: skip


def signed(body: bytes, seconds: float = 0) -> Mapping[str, str]:
    """Return the headers of a delivery that was made so many seconds from now."""
    return SIGNER.sign(body, datetime.now(UTC) + timedelta(seconds=seconds))


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a copy of `handlers/` and one file more."""
    folder = tmp_path_factory.mktemp("code")
    shutil.copytree(HANDLERS, folder / "handlers")
    (folder / "handlers" / "acme.py").write_text(ACME, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def service(serve: Serve, code: Path) -> Iterator[Service]:
    with serve(TOML, PYTHONPATH=str(code)) as running:
        yield running


async def reasons(caller: Caller) -> list[str]:
    """Return why deliveries were refused, in the order of the alphabet."""
    rows = await caller.rows("/v1/deliveries", "deliveries", source="acme", outcome="refused")
    return sorted(row["reason"] for row in rows)


async def test_a_signed_callback_is_folded_and_any_other_is_refused(service: Service) -> None:
    body = payment(1)
    async with calling(service.url) as caller:
        taken = await caller.post("acme", body, headers=signed(body))
        assert (taken.status, taken.json["status"], taken.json["position"]) == (200, "accepted", 1)
        again = await caller.post("acme", body, headers=signed(body, -30))
        assert (again.status, again.json["status"], again.json["position"]) == (200, "duplicate", 1)

        wrong = {**signed(body), "webhook-signature": "v1,AAAA"}
        refused = [
            (await caller.post("acme", payment(2), headers=headers)).status
            for headers in (wrong, signed(body), signed(payment(2), -61), signed(payment(2), 66))
        ]
        assert refused == [401] * 4
        assert (await caller.post("acme", payment(2), headers={})).status == 401

        async def are_recorded() -> bool:
            return await reasons(caller) == [
                "bad_signature", "bad_signature", "no_signature", "stale_timestamp",
                "stale_timestamp",
            ]  # fmt: skip

        await eventually(are_recorded)
        money = await caller.ask("/v1/transactions", source="acme", at_least="acme:1")
        (row,) = money["transactions"]
        assert (row["kind"], row["status"], row["amount"], row["fees"], row["currency"]) == (
            "payment", "completed", "100", "1.5", "SGD",
        )  # fmt: skip
        (wallet,) = (await caller.ask("/v1/wallets", source="acme"))["wallets"]
        assert wallet["available"] == "98.5"
        (event,) = await caller.rows("/v1/events", "events", source="acme")
        assert event["kind"] == "payment"


async def test_the_command_line_signs_as_the_provider_and_verify_checks_it(
    service: Service, code: Path, tmp_path: Path
) -> None:
    file = tmp_path / "payment.json"
    file.write_bytes(payment(3))
    sent = ledger(service, "send", "--file", str(file), "--source", "acme", "--url", service.url)
    assert (sent.returncode, sent.stdout.split()[:2]) == (0, [b"200", b"accepted"]), sent
    forged = ledger(service, "send", "--file", str(file), "--bad-signature", "--url", service.url)
    assert (forged.returncode, forged.stdout.split()[:2]) == (0, [b"401", b"refused"]), forged
    verified = ledger(service, "verify", "--json")
    assert verified.returncode == 0, verified
    assert b"forged" not in verified.stdout


def ledger(service: Service, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run a command on the service's settings and code."""
    kept = {name: v for name, v in os.environ.items() if not name.startswith("LEDGER_")}
    return subprocess.run(
        [sys.executable, "-m", "ledger", *arguments],
        env=kept | {"LEDGER_DATA_DIR": str(service.data_dir), **service.environ},
        cwd=service.folder, capture_output=True, check=False, timeout=120,
    )  # fmt: skip
