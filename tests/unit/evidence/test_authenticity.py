"""Whether events are authentic: signatures and marks, by all secrets of a source, old and new."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest

from ledger.config.settings import Settings, load
from ledger.evidence.authenticity import Authenticity, Doubt, headers_with_mark
from ledger.signatures.hmac_sha256_hex import sign
from ledger.signatures.standard_webhooks import StandardWebhooks

NOW = datetime(2026, 11, 30, tzinfo=UTC)
EARLIER = NOW - timedelta(days=2)
"""Before the marks."""
SECRET = "a" * 40
OLD = "b" * 40
WEBHOOKS = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
BODY = b'{"id": "1"}'


def settings_of(**changes: Any) -> Settings:
    settings = load({"LEDGER_SECRET_STRAITSX": SECRET, "LEDGER_SECRET_GOKART": SECRET})
    sources = {name: replace(each, **changes) for name, each in settings.sources.items()}
    return replace(settings, sources=sources)


def event(**values: Any) -> dict[str, Any]:
    return {
        "position": 5, "event_id": b"0" * 16, "origin": "callback", "path_event": None,
        "reason": None, "headers": "{}", "body": BODY, "recorded_at": NOW,
    } | values  # fmt: skip


def doubt_about(
    log: str, row: dict[str, Any], since: datetime | None = NOW - timedelta(days=1), **changes: Any
) -> Doubt | None:
    authenticity = Authenticity.of(settings_of(**changes), log, since)
    assert authenticity is not None
    return authenticity.doubt(row)


def signed(secret: str, body: bytes = BODY) -> str:
    return orjson.dumps({"Content-Type": "x", "Xfers-Signature": sign(secret, body)}).decode()


def with_mark(
    secret: str = SECRET, log: str = "gokart", origin: str = "callback", path: str | None = None
) -> str:
    source = replace(settings_of().sources["gokart"], secrets=(secret,))
    return headers_with_mark(
        source, log, '{"A":"b"}', origin=origin, path_event=path, event_id=b"0" * 16
    )


def test_a_callback_is_checked_by_its_own_signature_and_every_secret() -> None:
    assert doubt_about("straitsx", event(headers=signed(SECRET))) is None
    assert doubt_about("straitsx", event(headers=signed(OLD)), secrets_retired=(OLD,)) is None
    unknown = doubt_about("straitsx", event(headers=signed(OLD)))
    assert unknown is not None
    assert (unknown.kind, unknown.position) == ("unknown", 5)
    other_body = doubt_about("straitsx", event(headers=signed(SECRET, BODY + b" ")))
    assert other_body is not None
    assert other_body.kind == "unknown"


@pytest.mark.parametrize("origin", ["callback", "operator", "statement"])
@pytest.mark.parametrize("log", ["straitsx", "gokart", "straitsx.statements"])
def test_what_carries_no_proof_is_forged(log: str, origin: str) -> None:
    doubt = doubt_about(log, event(origin=origin, headers='{"User-Agent":"x"}'))
    assert doubt is not None
    assert doubt.kind == "forged"


def test_a_token_of_its_own_is_no_proof_and_never_stored() -> None:
    assert SECRET not in with_mark()
    doubt = doubt_about(
        "gokart", event(headers=orjson.dumps({"X-Callback-Token": SECRET}).decode())
    )
    assert doubt is not None
    assert doubt.kind == "forged"


def test_a_mark_is_of_one_event_of_one_log() -> None:
    assert doubt_about("gokart", event(headers=with_mark())) is None
    assert doubt_about("gokart", event(headers=with_mark(OLD)), secrets_retired=(OLD,)) is None
    assert doubt_about("straitsx", event(headers=with_mark(log="straitsx", origin="operator"),
                                    origin="operator")) is None  # fmt: skip
    for row in (
        event(headers=with_mark(OLD)),
        event(headers=with_mark(), event_id=b"1" * 16),
        event(headers=with_mark(), origin="operator"),
        event(headers=with_mark(), path_event="conversion"),
        event(headers=with_mark(log="straitsx")),
    ):
        doubt = doubt_about("gokart", row)
        assert doubt is not None
        assert doubt.kind == "unknown"


@pytest.mark.parametrize("scheme", ["static-token", "hmac-sha256-hex"])
@pytest.mark.parametrize("recorded", [NOW, EARLIER])
def test_a_mark_is_no_signature_of_the_bytes_that_it_covers(
    scheme: str, recorded: datetime
) -> None:
    """Whoever writes to the database can copy a mark, and knows the bytes that it covers."""
    names = (b"gokart", b"callback", b"", b"0" * 16)
    message = b"callback-ledger mark 1\n" + b"".join(
        len(name).to_bytes(4, "big") + name for name in names
    )
    copied = orjson.loads(with_mark())["Ledger-Mark"]
    assert copied == sign(SECRET, message)
    for header in ("X-Signature", "Xfers-Signature"):
        headers = orjson.dumps({header: copied}).decode()
        row = event(headers=headers, body=message, recorded_at=recorded, event_id=b"2" * 16)
        doubt = doubt_about("gokart", row, scheme=scheme)
        assert doubt is not None
        assert doubt.kind == "unknown"
        assert doubt.is_refused is (recorded == NOW)


def test_events_from_before_there_were_marks_are_unmarked_and_not_forged() -> None:
    doubt = doubt_about("straitsx", event(origin="operator", recorded_at=EARLIER))
    assert doubt is not None
    assert doubt.kind == "unmarked"
    assert not doubt.is_refused
    for infinite in (datetime.max, datetime.min):
        doubt = doubt_about("straitsx", event(origin="operator", recorded_at=infinite))
        assert doubt is not None
        assert doubt.kind == "forged"
    unsigned = doubt_about("straitsx", event(recorded_at=EARLIER))
    assert unsigned is not None
    assert unsigned.kind == "forged", "its provider always signed"


def test_events_declared_to_have_no_proof_need_none() -> None:
    assert doubt_about("straitsx", event(), unsigned_until=5) is None
    assert doubt_about("straitsx", event(position=6), unsigned_until=5) is not None
    assert doubt_about("straitsx.statements", event(), unsigned_until=5) is not None
    assert doubt_about("straitsx.statements", event(), unsigned_statements_until=5) is None


def test_a_source_without_a_secret_claims_nothing_but_cannot_check_what_is_signed() -> None:
    assert doubt_about("straitsx", event(), secrets=()) is None
    doubt = doubt_about("straitsx", event(headers=signed(SECRET)), secrets=())
    assert doubt is not None
    assert doubt.kind == "unknown"


def test_a_proof_of_an_unknown_secret_is_refused_only_after_the_marks() -> None:
    for recorded, is_refused in ((NOW, True), (EARLIER, False)):
        doubt = doubt_about("straitsx", event(headers=signed(OLD), recorded_at=recorded))
        assert doubt is not None
        assert doubt.kind == "unknown"
        assert doubt.is_refused is is_refused


@pytest.mark.parametrize("recorded", [NOW, EARLIER])
def test_a_query_string_is_what_was_signed(recorded: datetime) -> None:
    row = query_string(signed=b"a=1", recorded_at=recorded)
    assert doubt_about("straitsx", row) is None
    assert doubt_about("straitsx", query_string(signed=b"a=2", recorded_at=recorded)) is not None


def test_before_the_marks_a_query_string_came_with_a_signature_over_no_body() -> None:
    row = query_string(signed=b"", recorded_at=EARLIER)
    assert doubt_about("straitsx", row) is None
    assert doubt_about("straitsx", row, since=None) is None
    assert doubt_about("straitsx", query_string(signed=b"", reason=None, recorded_at=EARLIER))
    now = doubt_about("straitsx", query_string(signed=b""))
    assert now is not None
    assert now.is_refused


def query_string(signed: bytes, **values: Any) -> dict[str, Any]:
    """Return the event of a query string, with a signature over `signed`."""
    headers = {"Xfers-Signature": sign(SECRET, signed), "Query": "a=1"}
    row = {"headers": orjson.dumps(headers).decode(), "reason": "unsupported_encoding"}
    return event(**{**row, "body": b"a=1", **values})


@pytest.mark.parametrize("space", ["\u2003", "\u00a0", " \t", "\n"])
def test_a_signature_that_was_kept_with_space_around_it_is_still_found(space: str) -> None:
    headers = orjson.dumps({"Xfers-Signature": space + sign(SECRET, BODY) + space}).decode()
    assert doubt_about("straitsx", event(headers=headers)) is None


def test_a_signature_counts_by_its_own_scheme_after_the_source_has_changed_to_another() -> None:
    webhooks = {"scheme": "standard-webhooks", "secrets": (WEBHOOKS,), "header": ""}
    sent = StandardWebhooks("", (WEBHOOKS,)).sign(BODY, NOW - timedelta(days=300))
    row = event(headers=orjson.dumps(sent).decode())
    before = event(headers=signed(OLD))
    assert doubt_about("straitsx", row, **webhooks) is None
    assert doubt_about("straitsx", before, secrets_retired=(OLD,), **webhooks) is None
    assert doubt_about("straitsx", row, secrets_retired=(WEBHOOKS,)) is None
    assert doubt_about("straitsx", row, scheme="static-token", secrets=(WEBHOOKS,)) is None
    other_id = orjson.dumps(sent | {"webhook-id": "2"}).decode()
    for changed in (event(headers=other_id), row | {"body": b"{}"}, before):
        doubt = doubt_about("straitsx", changed, **webhooks)
        assert doubt is not None
        assert doubt.is_refused


def test_headers_that_are_no_object_prove_nothing() -> None:
    for headers in ("", "[]", '{"Xfers-Signature": 1}'):
        doubt = doubt_about("straitsx", event(headers=headers))
        assert doubt is not None
        assert doubt.kind == "forged"


def test_events_of_a_source_that_is_not_configured_are_not_checked() -> None:
    assert Authenticity.of(settings_of(), "elsewhere", None) is None
