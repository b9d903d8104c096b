"""Promise: no secret, body or personal data leaves the database through logs or error answers."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import orjson
import pytest

from ledger.signatures.hmac_sha256_hex import sign
from tests.asking import payment, payout
from tests.conftest import eventually
from tests.service import Caller, Reply, Service, calling, serving

SECRET, TOKEN, API = "canary-secret-1", "canary-token-2", "canary-api-3"
PERSON = "canary-person-4"
CANARY = b"canary"
ENVIRON = {
    "LEDGER_SECRET_STRAITSX": SECRET,
    "LEDGER_SECRET_GOKART": TOKEN,
    "LEDGER_API_TOKENS": API,
    "LEDGER_BODY_BYTES_MAX": "65536",
}
HEADERS = {"User-Agent": "canary-agent-5", "Cookie": "canary=6", "X-Note": "canary-7"}


def personal(body: dict[str, object]) -> bytes:
    """Fill a body with personal data."""
    return orjson.dumps(
        body
        | {
            "merchant_ref": PERSON,
            "bank_account_no": "canary-account",
            "sender_bank_account_holder_name": PERSON,
            "transaction_remarks": "canary remarks",
        }
    )


async def provoke(caller: Caller) -> list[Reply]:
    """Bring about every answer of the receiver with canaries in body, URL and headers."""
    good = personal(payment(1))
    bodies = [
        good,
        good,
        personal(payment(1, amount="11.0")),
        personal(payment(2, amount="canary-amount", id="contract_canary")),
        personal(payment(3, fees="-1")),
        personal(payout(4, status="canary-status")),
        b'{"canary": canary}',
        b'{"canary-key": 1, "canary-key": 2}',
        orjson.dumps({"id": "canary-id", "type": "canary-type"}),
        b"canary=1&person=canary",
    ]
    replies = []
    for body in bodies:
        signed = HEADERS | {"Xfers-Signature": sign(SECRET, body)}
        for path in ("/callbacks/straitsx", "/callbacks/straitsx/payoutStatusUpdated?q=canary-9"):
            replies.append(await caller.request("POST", path, data=body, headers=signed))
    wrong = HEADERS | {"Xfers-Signature": "canary-signature"}
    static = HEADERS | {"X-Callback-Token": TOKEN}
    for path, headers, data in (
        ("/callbacks/straitsx", wrong, good),
        ("/callbacks/straitsx", HEADERS, good),
        ("/callbacks/canary-source", HEADERS, good),
        ("/callbacks/straitsx/canary%20event", HEADERS, good),
        ("/callbacks/straitsx", HEADERS | {"Content-Encoding": "canary, gzip"}, good),
        ("/callbacks/straitsx", wrong, CANARY * 20_000),
        ("/callbacks/gokart", static, CANARY),
        ("/callbacks/gokart", static | {"X-Callback-Token": "canary-wrong"}, CANARY),
    ):
        replies.append(await caller.request("POST", path, data=data, headers=headers))
    return replies


async def ask_wrongly(caller: Caller) -> list[Reply]:
    """Ask with wrong tokens and questions."""
    found = []
    for path in ("/v1/wallets", "/v1/wallets?canary=1", "/v1/customers/straitsx/canary"):
        for token in (API, "canary-wrong-token"):
            headers = HEADERS | {"Authorization": f"Bearer {token}"}
            found.append(await caller.request("GET", path, headers=headers))
    return found


async def break_database(service: Service, caller: Caller) -> None:
    """Kill the database under load, so that errors with statements in them arise."""
    body = personal(payment(50))
    headers = {"Xfers-Signature": sign(SECRET, body)}

    async def post() -> bool:
        reply = await caller.post("straitsx", body, headers=headers)
        return reply.status == 200

    os.kill(service.postmaster(), signal.SIGKILL)
    await asyncio.gather(*(post() for _ in range(50)))
    await eventually(post)


async def send_garbage(service: Service) -> None:
    """Send what is not HTTP; its parser's errors quote it."""
    for request in (
        b"canary\r\n\r\n",
        b"POST /canary HTTP/9.canary\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nX canary: 1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\ncanary\r\n",
    ):
        reader, writer = await asyncio.open_connection(*service.address)
        writer.write(request)
        assert b" 400 " in await asyncio.wait_for(reader.readline(), 5)
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize("log_format", ["json", "console"])
async def test_canaries_are_in_no_log_no_metric_and_no_refusal(
    tmp_path: Path, log_format: str
) -> None:
    with serving(tmp_path, LEDGER_LOG_FORMAT=log_format, **ENVIRON) as service:
        async with calling(service.url) as caller:
            replies = await provoke(caller) + await ask_wrongly(caller)
            assert {reply.status for reply in replies} >= {200, 401, 404, 413, 415, 400}
            await send_garbage(service)
            await break_database(service, caller)
            authorized = {"Authorization": f"Bearer {API}"}
            status = await caller.request("GET", "/v1/status", headers=authorized)
            metrics = await caller.request("GET", "/metrics")
        assert await asyncio.to_thread(service.stop) == 0
        for reply in replies:
            if reply.status == 401:
                assert CANARY not in reply.body
        assert CANARY not in status.body
        assert (metrics.status, CANARY in metrics.body) == (200, False)
        assert b"postgres_died" in service.reported()
        assert leaks(service.reported()) == []
        assert leaks((service.data_dir / "postgres.log").read_bytes()) == []


def leaks(log: bytes) -> list[bytes]:
    return [line for line in log.splitlines() if CANARY in line]
