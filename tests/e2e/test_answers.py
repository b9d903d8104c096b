"""Promise: every request is answered as the table of answers says, and listed as a delivery."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Iterator

import orjson
import pytest

from ledger.signatures.hmac_sha256_hex import sign
from tests import samples
from tests.asking import payment, payout
from tests.conftest import eventually
from tests.e2e.conftest import Serve
from tests.service import Caller, Json, Reply, Service, calling

LIMIT = 65_536
OLD, NEW, TOKEN = "ss_old_secret", "ss_new_secret", "gokart static token"
TOML = f"""
body_bytes_max = {LIMIT}
refused_per_second_max = 1000
[sources.straitsx]
provider = "straitsx"
secrets = ["{OLD}", "{NEW}"]
[sources.gokart]
provider = "gokart"
header = "X-Callback-Token"
secrets = ["{TOKEN}"]
currency = "USD"
[sources.walled]
provider = "straitsx"
secrets = ["{OLD}"]
allow_ips = ["192.0.2.0/24"]
[sources.hostile]
provider = "straitsx"
secrets = ["{OLD}"]
[sources.many]
provider = "straitsx"
secrets = ["{OLD}"]
"""
HOSTILE = {
    "nothing": b"",
    "a blank": b" ",
    "a number": b"1",
    "a list": b"[]",
    "null": b"null",
    "a text": b'"contract"',
    "an empty object": b"{}",
    "cut off": samples.body("straitsx/01-payment-xusd")[:-3],
    "followed by more": samples.body("straitsx/01-payment-xusd") + b"{}",
    "a byte order mark": b"\xef\xbb\xbf" + samples.body("straitsx/01-payment-xusd"),
    "UTF-16": samples.body("straitsx/01-payment-xusd").decode().encode("utf-16"),
    "Latin-1": '{"id": "contract_\xe9"}'.encode("latin-1"),
    "a NUL byte": b'{"id": "contract_\x00"}',
    "an escaped NUL": b'{"id": "contract_\\u0000", "type": "Direct bank transfer"}',
    "half a surrogate pair": b'{"id": "contract_\\ud800", "type": "Direct bank transfer"}',
    "the same key twice": b'{"id": "contract_1", "id": "contract_2"}',
    "NaN": b'{"id": "contract_1", "amount": NaN}',
    "infinity": b'{"id": "contract_1", "amount": -Infinity}',
    "a huge exponent": b'{"type": "Direct bank transfer", "amount": 1e' + b"9" * 80 + b"}",
    "5000 digits": b'{"id": "contract_1", "amount": ' + b"9" * 5_000 + b"}",
    "30000 levels": b"[" * 30_000,
    "30000 objects": b'{"a":' * 10_000,
    "no id": b'{"type": "Direct bank transfer", "status": "completed", "amount": "1"}',
    "an unknown type": b'{"id": "x1", "type": "lottery", "status": "won"}',
    "a type that is no text": b'{"id": "x1", "type": {"a": 1}, "status": "completed"}',
    "no type": b'{"id": "x1", "status": "completed"}',
    "deep in data": b'{"data": {"data": {"data": {}}}}',
    "a prototype": b'{"__proto__": {"id": "contract_1"}, "constructor": 1}',
}


@pytest.fixture(scope="module")
def service(serve: Serve) -> Iterator[Service]:
    with serve(TOML) as running:
        yield running


@pytest.fixture
async def caller(service: Service) -> AsyncIterator[Caller]:
    async with calling(service.url, OLD, connections=200) as opened:
        yield opened


def encode(body: Json) -> bytes:
    return orjson.dumps(body)


async def delivery(caller: Caller, source: str, reason: str) -> Json:
    """Wait until a refusal is listed; return it."""

    async def find() -> Json | None:
        rows = await caller.rows("/v1/deliveries", "deliveries", outcome="refused")
        found = (row for row in rows if row["source"] == source and reason in row["reason"])
        return next(found, None)

    return await eventually(find)


def check_refused(reply: Reply, answer: int) -> None:
    assert reply.status == answer, reply
    assert reply.headers["Content-Type"].startswith("application/json")
    assert "Ledger-Position" not in reply.headers
    assert reply.json["status"] == "refused"


@pytest.mark.parametrize("secret", [OLD, NEW])
async def test_every_active_secret_works(caller: Caller, secret: str) -> None:
    body = encode(payment(1, id=f"contract_{secret}"))
    reply = await caller.post("straitsx", body, headers={"Xfers-Signature": sign(secret, body)})
    assert (reply.status, reply.json["status"]) == (200, "accepted")
    assert reply.headers["Ledger-Position"] == f"straitsx:{reply.json['position']}"


BODY = encode(payment(2))


@pytest.mark.parametrize(
    ("signature", "reason"),
    [
        (None, "no_signature"),
        ("", "no_signature"),
        ("0" * 64, "bad_signature"),
        (sign("another", BODY), "bad_signature"),
        (sign(OLD, BODY + b" "), "bad_signature"),
        (sign(OLD, BODY)[:-1], "bad_signature"),
        (sign(OLD, BODY) + "0", "bad_signature"),
        ("sha256=" + sign(OLD, BODY), "bad_signature"),
        ("\u00e9" * 64, "bad_signature"),
    ],
)
async def test_a_missing_or_wrong_signature_is_401_and_stores_nothing(
    caller: Caller, signature: str | None, reason: str
) -> None:
    before = await caller.ask("/v1/events", source="straitsx", limit=1)
    headers = {} if signature is None else {"Xfers-Signature": signature}
    reply = await caller.post("straitsx", BODY, headers=headers)
    check_refused(reply, 401)
    assert reply.json["reason"] == "not authenticated"
    after = await caller.ask("/v1/events", source="straitsx", limit=1)
    assert after["position"] == before["position"]
    row = await delivery(caller, "straitsx", reason)
    assert (row["answer"], row["position"], row["body_bytes"]) == (401, None, len(BODY))


async def test_gokart_proves_itself_with_a_static_header(caller: Caller) -> None:
    body = samples.body("gokart/02-success")
    good = await caller.post("gokart", body, headers={"X-Callback-Token": TOKEN})
    assert (good.status, good.json["status"]) == (200, "accepted")
    for headers in ({}, {"X-Callback-Token": "another"}, {"Xfers-Signature": sign(TOKEN, body)}):
        check_refused(await caller.post("gokart", body, headers=headers), 401)
    at = good.headers["Ledger-Position"]
    balances = await caller.ask("/v1/balances", source="gokart", at_least=at)
    assert {(row["account"], row["currency"], row["balance"]) for row in balances["balances"]} == {
        ("assets:receivable:gokart", "USD", "60"),
        ("income:conversions", "USD", "60"),
        ("expenses:rewards", "PTS", "45"),
        ("liabilities:members:421f91c7-0000-4ca5-bf9d-af3e6fbe7c61", "PTS", "45"),
    }


async def test_an_unknown_source_is_404_and_listed(caller: Caller) -> None:
    check_refused(await caller.post("nobody", BODY), 404)
    row = await delivery(caller, "unknown", "unknown_source")
    assert (row["answer"], "nobody" in row["reason"]) == (404, True)


async def test_a_slash_at_the_end_loses_no_callback(caller: Caller) -> None:
    for path in ("/callbacks/straitsx/", "/callbacks/straitsx/paymentStatusUpdated/"):
        body = encode(payment(len(path)))
        headers = {"Xfers-Signature": sign(OLD, body)}
        reply = await caller.request("POST", path, data=body, headers=headers)
        assert (reply.status, reply.json["status"]) == (200, "accepted")


@pytest.mark.parametrize("event", ["a%20b", "%00", "x" * 65, "a/b"])
async def test_a_path_that_is_none_is_404(caller: Caller, event: str) -> None:
    reply = await caller.request("POST", f"/callbacks/straitsx/{event}", data=BODY)
    check_refused(reply, 404)


async def test_paths_above_the_sources_are_404(caller: Caller) -> None:
    for path in ("/callbacks", "/callbacks/"):
        check_refused(await caller.request("POST", path, data=BODY), 404)


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_another_method_is_405_and_states_which_would_do(caller: Caller, method: str) -> None:
    reply = await caller.request(method, "/callbacks/straitsx")
    check_refused(reply, 405)
    assert reply.headers["Allow"] == "POST"
    await delivery(caller, "straitsx", "method")


async def chunks(body: bytes) -> AsyncIterator[bytes]:
    for n in range(0, len(body), 8_192):
        yield body[n : n + 8_192]
        await asyncio.sleep(0)


@pytest.mark.parametrize("is_chunked", [False, True])
async def test_a_body_at_the_limit_is_taken_and_one_byte_more_is_413(
    caller: Caller, is_chunked: bool
) -> None:
    for size, answer in ((LIMIT, 200), (LIMIT + 1, 413), (LIMIT * 4, 413)):
        body = encode(payment(3, id=f"contract_{is_chunked}"))
        body = body[:-1] + b" " * (size - len(body)) + b"}"
        data = chunks(body) if is_chunked else body
        headers = {"Xfers-Signature": sign(OLD, body)}
        reply = await caller.request("POST", "/callbacks/straitsx", data=data, headers=headers)
        if answer == 413:
            check_refused(reply, 413)
        else:
            assert (reply.status, reply.json["status"]) == (200, "accepted")
    row = await delivery(caller, "straitsx", "too_large")
    assert row["answer"] == 413


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "gzip, identity", "zstd"])
async def test_a_compressed_body_is_415(caller: Caller, encoding: str) -> None:
    body = gzip.compress(BODY)
    headers = {"Xfers-Signature": sign(OLD, body), "Content-Encoding": encoding}
    check_refused(await caller.post("straitsx", body, headers=headers), 415)


async def test_a_gzip_bomb_is_refused_unopened(caller: Caller) -> None:
    body = gzip.compress(b" " * 20_000_000)
    assert len(body) < LIMIT
    headers = {"Xfers-Signature": sign(OLD, body), "Content-Encoding": "gzip"}
    check_refused(await caller.post("straitsx", body, headers=headers), 415)


async def test_another_address_than_those_allowed_is_403(caller: Caller) -> None:
    check_refused(await caller.post("walled", BODY), 403)
    headers = {"Xfers-Signature": sign(OLD, BODY), "X-Forwarded-For": "192.0.2.7"}
    check_refused(await caller.post("walled", BODY, headers=headers), 403)
    row = await delivery(caller, "walled", "address")
    assert (row["answer"], row["peer"]) == (403, "127.0.0.1")


async def test_a_body_that_contradicts_its_path_is_quarantined(caller: Caller) -> None:
    body = encode(payment(4))
    reported = await caller.report("straitsx", body, "payoutStatusUpdated")
    assert (reported["status"], reported["reason"]) == ("quarantined", "event_mismatch")
    at = f"straitsx:{reported['position']}"
    found = await caller.ask("/v1/exceptions", reason="event_mismatch", at_least=at)
    assert found["exceptions"][0]["event"]["position"] == reported["position"]
    event = await caller.ask(f"/v1/events/straitsx/{reported['position']}")
    assert (event["path_event"], event["verdict"]) == ("payoutStatusUpdated", "quarantined")
    right = await caller.report("straitsx", body, "paymentStatusUpdated")
    assert (right["status"], right["position"]) == ("accepted", reported["position"] + 1)


async def test_a_form_is_quarantined_with_advice(caller: Caller) -> None:
    body = b"id=contract_1&status=completed&amount=10.0"
    headers = {
        "Xfers-Signature": sign(OLD, body),
        "Content-Type": "application/x-www-form-urlencoded",
    }
    reply = await caller.post("straitsx", body, headers=headers)
    assert (reply.status, reply.json["status"]) == (200, "quarantined")
    assert reply.json["reason"] == "unsupported_encoding"
    assert "choose JSON" in reply.json["detail"]


async def test_a_payout_in_a_flat_form_is_read_like_json(caller: Caller) -> None:
    body = samples.body("more/straitsx/payout-completed.form")
    headers = {"Xfers-Signature": sign(OLD, body)}
    for content_type in ("application/x-www-form-urlencoded", "text/plain"):
        reply = await caller.post(
            "straitsx", body, headers=headers | {"Content-Type": content_type}
        )
        assert reply.status == 200
    assert reply.json["status"] == "duplicate"
    at = f"straitsx:{reply.json['position']}"
    found = await caller.ask("/v1/transactions", idempotency_id="payout-form-0001", at_least=at)
    (row,) = found["transactions"]
    assert (row["kind"], row["status"], row["amount"]) == ("payout", "completed", "40.5")
    assert "dated_by_creation" in row["flags"]


async def test_an_object_is_json_whatever_type_was_reported(caller: Caller) -> None:
    body = encode(payment(6))
    headers = {
        "Xfers-Signature": sign(OLD, body),
        "Content-Type": "application/x-www-form-urlencoded",
    }
    reply = await caller.post("straitsx", body, headers=headers)
    assert (reply.status, reply.json["status"]) == (200, "accepted")
    same = await caller.report("straitsx", body)
    assert (same["status"], same["position"]) == ("duplicate", reply.json["position"])


async def test_callbacks_that_are_only_a_query_are_kept_each(caller: Caller) -> None:
    places = set()
    for n in (1, 2):
        query = f"id=contract_{n}&status=completed"
        headers = {"Xfers-Signature": sign(OLD, query.encode())}
        event = f"paymentStatusUpdated?{query}"
        reply = await caller.post("straitsx", b"", event=event, headers=headers)
        assert (reply.status, reply.json["reason"]) == (200, "unsupported_encoding")
        places.add(reply.json["position"])
    assert len(places) == 2


async def test_a_payment_without_a_sender_is_known_by_its_url(caller: Caller) -> None:
    body = encode(payment(77, type="paynowTransaction", status="expired", sender_information=None))
    assert b"sender_information" in body
    stripped = body.replace(b'"sender_information"', b'"no_sender"')
    reported = await caller.report("straitsx", stripped, event="paymentStatusUpdated")
    assert reported["status"] == "accepted"
    assert (await caller.report("straitsx", stripped))["reason"] == "unknown"


async def test_an_unknown_status_is_kept_and_moves_nothing(caller: Caller) -> None:
    reported = await caller.report(
        "straitsx", encode(payout(5, status="teleported", id="contract_tel"))
    )
    assert (reported["status"], reported["reason"]) == ("quarantined", "unknown_status")
    at = f"straitsx:{reported['position']}"
    entries = await caller.ask("/v1/entries", transaction="contract_tel", at_least=at)
    assert entries["entries"] == []


@pytest.mark.parametrize(
    "changes",
    [{"amount": "-1"}, {"fees": "-0.5"}, {"amount": "1_000"}, {"amount": None}, {"currency": ""}],
)
async def test_what_cannot_be_true_is_listed_and_moves_nothing(
    caller: Caller, changes: Json
) -> None:
    name = f"contract_{'_'.join(f'{k}_{v}' for k, v in changes.items())}".replace(".", "")
    reported = await caller.report("straitsx", encode(payment(6, id=name, **changes)))
    at = f"straitsx:{reported['position']}"
    entries = await caller.ask("/v1/entries", transaction=name, at_least=at)
    assert entries["entries"] == []
    found = await caller.rows("/v1/exceptions", "exceptions", source="straitsx")
    assert reported["position"] in [row["event"]["position"] for row in found]


async def test_hostile_bodies_are_kept_listed_and_stop_no_one(caller: Caller) -> None:
    positions = {}
    for name, body in HOSTILE.items():
        reply = await caller.post("hostile", body)
        assert (reply.status, reply.json["status"]) == (200, "quarantined"), (name, reply)
        positions[reply.json["position"]] = body
    last = await caller.report("hostile", encode(payment(7)))
    assert (last["status"], last["position"]) == ("accepted", len(HOSTILE) + 1)
    at = f"hostile:{last['position']}"
    wallets = await caller.ask("/v1/wallets", source="hostile", at_least=at)
    assert [(w["currency"], w["available"]) for w in wallets["wallets"]] == [("XSGD", "9.5")]
    assert wallets["parked"] == 0
    found = await caller.rows("/v1/exceptions", "exceptions", source="hostile")
    assert sorted(row["event"]["position"] for row in found) == sorted(positions)
    for position, body in positions.items():
        kept = await caller.request("GET", f"/v1/events/hostile/{position}/body")
        assert (kept.status, kept.body) == (200, body)


async def test_two_hundred_copies_at_once_make_one_event(caller: Caller) -> None:
    body = encode(payment(8))
    replies = await asyncio.gather(*(caller.post("many", body) for _ in range(200)))
    assert {reply.status for reply in replies} == {200}
    statuses = [reply.json["status"] for reply in replies]
    assert (statuses.count("accepted"), statuses.count("duplicate")) == (1, 199)
    assert {(r.json["position"], r.json["event_id"]) for r in replies} == {
        (1, replies[0].json["event_id"])
    }
    events = await caller.ask("/v1/events", source="many")
    assert [event["position"] for event in events["events"]] == [1]
    rows = await caller.rows("/v1/deliveries", "deliveries", source="many", limit=1000)
    assert sum(row["count"] for row in rows) == 200
    assert len(rows) == 101
    wallets = await caller.ask("/v1/wallets", source="many", at_least="many:1")
    assert [(w["currency"], w["available"]) for w in wallets["wallets"]] == [("XSGD", "9.5")]


async def test_the_same_state_with_another_amount_is_another_event(caller: Caller) -> None:
    first = await caller.report("straitsx", encode(payout(9)))
    other = await caller.report("straitsx", encode(payout(9, amount="21.0")))
    assert (first["status"], other["status"]) == ("accepted", "accepted")
    assert other["position"] == first["position"] + 1
    at = f"straitsx:{other['position']}"
    found = await caller.ask("/v1/transactions/straitsx/contract_0009", at_least=at)
    assert (found["status"], found["conflict"] is not None) == ("conflict", True)
