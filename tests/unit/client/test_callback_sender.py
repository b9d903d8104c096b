"""The provider simulator tells consistent stories and signs them as the providers do."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from random import Random

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer, unused_port

from ledger import registry
from ledger.client.callback_sender import (
    SendResult,
    Target,
    exit_code,
    headers,
    send,
    slowest,
    summary,
)
from ledger.config.source import Source
from ledger.errors import ServiceUnreachable, SettingsError
from ledger.model import Fact, SourceTerms
from ledger.simulator.simulate import (
    GOKART,
    SCENARIOS,
    SCRIPTS,
    STRAITSX,
    SimulatedCallback,
    chosen,
    conflicting,
    disturb,
    fresh,
    samples,
    story,
)

STRAITSX_SOURCE = Source("straitsx", "straitsx", ("ss_0123456789abcdef",), "Xfers-Signature")
GOKART_SOURCE = Source("gokart", "gokart", ("token",), "X-Callback-Token")
WEBHOOKS_SOURCE = Source(
    "hooks", "gokart", ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",), scheme="standard-webhooks"
)
SOURCES = {"straitsx": STRAITSX_SOURCE, "gokart": GOKART_SOURCE, "hooks": WEBHOOKS_SOURCE}
NOW = datetime(2026, 11, 30, tzinfo=UTC)
Handle = Callable[[web.Request], Awaitable[web.Response]]


def is_authentic(source: Source, headers: Mapping[str, str], body: bytes) -> bool:
    """Tell whether the source's own scheme accepts what was sent."""
    scheme = source.signatures()
    return scheme.refusal(scheme.proof(headers), body, NOW) is None


def fact(callback: SimulatedCallback) -> Fact:
    terms = SourceTerms(callback.provider, callback.provider, "USD")
    return registry.load().dispatch.translate(terms, "callback", callback.event, callback.body)


def stated(name: str, seed: int = 7) -> list[tuple[str, str]]:
    return [(f.kind, f.status) for f in map(fact, story(name, Random(seed)))]


@pytest.mark.parametrize("name", [*SCENARIOS, *SCRIPTS])
def test_the_same_seed_states_the_same_story_and_another_seed_another(name: str) -> None:
    assert story(name, Random(1), 3) == story(name, Random(1), 3)
    assert not {c.body for c in story(name, Random(1))} & {c.body for c in story(name, Random(2))}


@pytest.mark.parametrize("kind", SCRIPTS)
@pytest.mark.parametrize("with_event", [True, False], ids=["event in the URL", "no event"])
def test_every_made_up_body_is_read_as_its_kind_without_a_complaint(
    kind: str, with_event: bool
) -> None:
    for callback in fresh([kind], Random(11), 20):
        event = callback.event if with_event else None
        reading = registry.load().read(callback.provider, event, callback.body)
        assert (reading.envelope.kind, reading.reason) == (kind, None)
        assert set(fact(callback).flags) <= {"dated_by_creation"}


@pytest.mark.parametrize("kind", ["payment", "payout", "customer", "conversion"])
def test_common_bodies_have_at_least_a_kilobyte_and_are_distinct(kind: str) -> None:
    bodies = [callback.body for callback in story(kind, Random(3), 300)]
    assert len(set(bodies)) == 300
    assert min(map(len, bodies)) >= 1024


@pytest.mark.parametrize("kind", SCRIPTS)
def test_every_kind_has_a_sample_that_its_name_chooses(kind: str) -> None:
    found = chosen([kind])
    read = registry.load().read
    assert found
    assert {read(s.provider, None, s.body).envelope.kind for s in found} == {kind}


def test_samples_of_the_documents_come_first_and_in_their_order() -> None:
    main = chosen(())
    assert [sample.provider for sample in main[:25]] == [STRAITSX] * 25
    assert {sample.provider for sample in main[25:]} == {GOKART}
    assert [sample.name[:11] for sample in main[:25]] == [f"straitsx/{n:02}" for n in range(1, 26)]
    assert list(samples()[: len(main)]) == main


def test_samples_are_chosen_by_glob_over_their_names() -> None:
    names = [sample.name for sample in chosen(["straitsx/0[67]*"])]
    assert names == ["straitsx/06-payout-usd", "straitsx/07-payout-sgd"]


def test_a_refund_story_refunds_one_credited_and_one_blocked_payment() -> None:
    assert stated("refund") == [
        ("payment", "pending"), ("payment", "completed"), ("payment", "refunded"),
        ("payment", "pending"), ("payment", "failed"), ("payment", "refunded"),
    ]  # fmt: skip


def test_a_return_story_brings_the_payout_back_under_its_idempotency_id() -> None:
    *_, sent, back = story("return", Random(5))
    assert json.loads(back.body)["transaction_remarks"] == f"RTN {fact(sent).idempotency_id}"
    assert fact(back).amount == fact(sent).amount
    assert fact(back).fees == 0


def test_a_kyc_story_ends_verified_after_a_rejection() -> None:
    statuses = [status for kind, status in stated("kyc") if kind == "customer"]
    assert statuses == ["pending", "rejected", "pending", "verified"]
    assert {kind for kind, _ in stated("kyc")} == {
        "customer", "bank_account", "virtual_account", "limits", "limits_request", "rfi",
    }  # fmt: skip


def test_the_everything_story_has_every_kind() -> None:
    assert {kind for kind, _ in stated("everything")} == set(SCRIPTS)


@pytest.mark.parametrize("kind", [k for k, s in SCRIPTS.items() if s.body.__module__ ==
                                  "ledger.simulator.money"])  # fmt: skip
def test_a_conflict_differs_in_the_amount_and_in_nothing_else(kind: str) -> None:
    (callback,) = fresh([kind], Random(9), 1)
    twin = conflicting(callback)
    assert twin is not None
    first, second = fact(callback), fact(twin)
    assert (first.amount, first.terms) != (second.amount, second.terms)
    assert (first.resource_id, first.status, first.currency, first.customer_id) == (
        second.resource_id, second.status, second.currency, second.customer_id,
    )  # fmt: skip
    assert second.flags == ()


def test_what_names_no_amount_has_no_conflict() -> None:
    assert conflicting(story("customer", Random(1))[0]) is None


def test_disturbing_loses_nothing_and_repeats_the_requested_share_later() -> None:
    callbacks = fresh(list(SCRIPTS), Random(2), 100)
    sent = disturb(callbacks, Random(4), duplicate=0.3, shuffle=True)
    counted = Counter(callback.body for callback in sent)
    assert set(counted) == {callback.body for callback in callbacks}
    assert sorted(counted.values()) == [1] * 70 + [2] * 30
    assert sent[:100] != callbacks[:100]


def test_disturbing_without_shuffle_keeps_the_order_of_first_deliveries() -> None:
    callbacks = fresh(["payment"], Random(2), 50)
    sent = disturb(callbacks, Random(4), duplicate=0.5)
    assert list(dict.fromkeys(sent)) == callbacks
    assert len(sent) == 75


def test_conflicts_come_after_what_they_contradict() -> None:
    callbacks = fresh(["payout"], Random(2), 30)
    sent = disturb(callbacks, Random(4), conflict=True)
    assert sent[:30] == callbacks
    assert [callback.name for callback in sent[30:]] == ["payout completed (conflict)"] * 3


@pytest.mark.parametrize("source", SOURCES.values(), ids=list(SOURCES))
def test_sent_headers_pass_the_receivers_own_check_unless_signed_wrongly(source: Source) -> None:
    body = b'{"a": 1}'
    right = headers(source, body, Target("http://x", SOURCES), NOW)
    wrong = headers(source, body, Target("http://x", SOURCES, bad_signature=True), NOW)
    assert is_authentic(source, right, body)
    assert set(wrong) == set(right)
    assert not is_authentic(source, wrong, body)


def test_a_source_without_a_secret_is_sent_to_unsigned() -> None:
    open_source = Source("straitsx", "straitsx", header="Xfers-Signature")
    found = headers(open_source, b"{}", Target("http://x", {}), NOW)
    assert found == {"Content-Type": "application/json"}


def test_a_given_secret_replaces_the_configured_one() -> None:
    found = headers(GOKART_SOURCE, b"{}", Target("http://x", SOURCES, secret="other"), NOW)
    assert found["X-Callback-Token"] == "other"


def test_a_secret_of_another_scheme_is_reported_without_quoting_it() -> None:
    with pytest.raises(SettingsError, match=r"source hooks.*base64") as caught:
        headers(WEBHOOKS_SOURCE, b"{}", Target("http://x", SOURCES, secret="hush!"), NOW)
    assert "hush" not in str(caught.value)


def test_callbacks_go_to_the_providers_source_whatever_its_name() -> None:
    renamed = {"sg": Source("sg", "straitsx", header="Xfers-Signature")}
    assert Target("http://x", renamed).source_of("straitsx").name == "sg"
    assert Target("http://x", renamed).source_of("gokart").name == "gokart"
    assert Target("http://x", renamed, source="elsewhere").source_of("straitsx").name == "elsewhere"


async def served(handle: Handle) -> TestServer:
    app = web.Application()
    app.router.add_post("/callbacks/{tail:.*}", handle)
    server = TestServer(app)
    await server.start_server()
    return server


async def test_answers_come_in_the_order_of_the_callbacks() -> None:
    paths: list[str] = []

    async def accept(request: web.Request) -> web.Response:
        paths.append(request.path)
        assert is_authentic(STRAITSX_SOURCE, request.headers, await request.read())
        return web.json_response({"status": "accepted", "position": len(paths)})

    server = await served(accept)
    callbacks = fresh(["payment", "payout"], Random(1), 40)
    answers = await send(Target(str(server.make_url("")).rstrip("/"), SOURCES), callbacks)
    await server.close()
    assert [answer.name for answer in answers] == [callback.name for callback in callbacks]
    assert sorted(answer.position or 0 for answer in answers) == list(range(1, 41))
    assert set(paths) == {
        "/callbacks/straitsx/paymentStatusUpdated", "/callbacks/straitsx/payoutStatusUpdated",
    }  # fmt: skip
    assert exit_code(answers, bad_signature=False) == 0


async def test_a_refusal_is_an_answer_with_its_reason() -> None:
    async def refuse(_request: web.Request) -> web.Response:
        return web.json_response({"title": "Unauthorized", "detail": "no"}, status=401)

    server = await served(refuse)
    url = str(server.make_url("")).rstrip("/")
    answers = await send(Target(url, SOURCES), story("payment", Random(1)))
    await server.close()
    (answer,) = answers
    assert (answer.code, answer.status, answer.reason) == (401, "refused", "no")
    assert exit_code(answers, bad_signature=False) == 1
    assert exit_code(answers, bad_signature=True) == 0


async def test_no_one_listening_is_reported_with_what_to_do() -> None:
    url = f"http://127.0.0.1:{unused_port()}"
    with pytest.raises(ServiceUnreachable, match=r"Connection refused.*ledger serve"):
        await send(Target(url, SOURCES), fresh(["payment"], Random(1), 20))


def test_the_summary_counts_by_code_and_status() -> None:
    answers = [
        SendResult("straitsx", "payment", 200, status, position, None, seconds)
        for status, position, seconds in (("accepted", 1, 0.1), ("duplicate", 1, 0.3))
    ]
    found = summary(answers, 5)
    assert found["counts"] == {"200 accepted": 1, "200 duplicate": 1}
    assert (found["seed"], found["sent"], found["answers"][1]["status"]) == (5, 2, "duplicate")
    assert slowest(answers, 0.5) == 0.3
    assert answers[0].line() == "200 accepted    straitsx:1       payment"
