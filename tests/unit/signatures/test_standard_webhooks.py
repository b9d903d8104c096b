"""Standard Webhooks: the vectors of its own libraries' tests, and what they refuse is refused.

Vectors: github.com/standard-webhooks/standard-webhooks, libraries/go/webhook_symmetric_test.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest

from ledger.signatures.scheme import BAD_SIGNATURE, NO_SIGNATURE, STALE_TIMESTAMP
from ledger.signatures.standard_webhooks import PREFIX, StandardWebhooks, signature

SECRET = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
BODY = b'{"test": 2432232314}'
SENT = {
    "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
    "webhook-timestamp": "1614265330",
    "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
}
AT = datetime.fromtimestamp(1614265330, UTC)
OTHER = "v1,Ceo5qEr07ixe2NLpvHk3FH9bwy/WavXrAFQ/9tdO6mc="
SCHEME = StandardWebhooks("", (PREFIX + SECRET,))


def refused(
    changes: Mapping[str, str], body: bytes = BODY, at: datetime = AT,
    scheme: StandardWebhooks = SCHEME,
) -> str | None:  # fmt: skip
    """Return why the published message, with some headers changed, is refused."""
    return scheme.refusal(scheme.proof(SENT | dict(changes)), body, at)


@pytest.mark.parametrize("secret", [SECRET, PREFIX + SECRET])
def test_the_published_vector_is_signed_and_accepted(secret: str) -> None:
    scheme = StandardWebhooks("", (secret,))
    found = signature(scheme.key(secret), SENT["webhook-id"], SENT["webhook-timestamp"], BODY)
    assert found == SENT["webhook-signature"]
    assert refused({}, scheme=scheme) is None


@pytest.mark.parametrize("name", SENT)
def test_each_of_the_headers_is_needed(name: str) -> None:
    assert refused({name: ""}) == BAD_SIGNATURE
    assert refused(dict.fromkeys(SENT, "")) == NO_SIGNATURE


@pytest.mark.parametrize(
    "changes",
    [
        {"webhook-signature": OTHER},
        {"webhook-signature": "v1,"},
        {"webhook-signature": SENT["webhook-signature"].removeprefix("v1,")},
        {"webhook-signature": SENT["webhook-signature"].replace("v1,", "v2,")},
        {"webhook-signature": SENT["webhook-signature"].replace("v1,", "v1a,")},
        {"webhook-signature": f"{SENT['webhook-signature']} {OTHER * 10}"},
        {"webhook-signature": "v1,\udce9"},
        {"webhook-id": "msg_other"},
        {"webhook-id": "msg_\udce9"},
        {"webhook-timestamp": "1614265331"},
        {"webhook-timestamp": "1614265330.0"},
        {"webhook-timestamp": "-1"},
        {"webhook-timestamp": "\u0661\u0662"},
        {"webhook-timestamp": "soon"},
    ],
)
def test_any_other_header_is_refused(changes: Mapping[str, str]) -> None:
    assert refused(changes) == BAD_SIGNATURE


def test_another_body_is_refused() -> None:
    assert refused({}, BODY + b" ") == BAD_SIGNATURE


def test_one_signature_of_a_list_is_enough() -> None:
    several = " ".join([OTHER, OTHER.replace("v1", "v2"), SENT["webhook-signature"], OTHER])
    assert refused({"webhook-signature": several}) is None


def test_each_of_several_secrets_is_accepted() -> None:
    rotated = StandardWebhooks("", ("whsec_c2VjcmV0LW9mLWEtcm90YXRlZC1lbmRwb2ludA==", SECRET))
    assert refused({}, scheme=rotated) is None
    assert refused(rotated.sign(BODY, AT), scheme=rotated) is None
    assert refused(rotated.sign(BODY, AT)) == BAD_SIGNATURE


@pytest.mark.parametrize("seconds", [-1, 1])
def test_the_time_of_the_attempt_may_be_five_minutes_off_and_no_more(seconds: int) -> None:
    assert refused({}, at=AT + timedelta(seconds=300 * seconds)) is None
    assert refused({}, at=AT + timedelta(seconds=301 * seconds)) == STALE_TIMESTAMP
    strict = StandardWebhooks("", (SECRET,), tolerance_seconds=10)
    assert refused({}, at=AT + timedelta(seconds=11 * seconds), scheme=strict) == STALE_TIMESTAMP


def test_a_wrong_signature_is_refused_as_such_whatever_its_time() -> None:
    assert refused({"webhook-signature": OTHER}, at=AT + timedelta(days=1)) == BAD_SIGNATURE


def test_a_part_of_the_body_cannot_pass_for_the_id_of_the_message() -> None:
    body = b'{"remark":"x.1614265330.{}"}'
    key = SCHEME.key(SECRET)
    signed = signature(key, "msg_1", "1614265300", body)
    shifted = {
        "webhook-id": 'msg_1.1614265300.{"remark":"x',
        "webhook-timestamp": "1614265330",
        "webhook-signature": signed,
    }
    assert signed == signature(key, shifted["webhook-id"], "1614265330", b'{}"}')
    assert refused(shifted, b'{}"}') == BAD_SIGNATURE


def test_what_is_kept_proves_the_sender_years_later() -> None:
    kept = SCHEME.kept(SCHEME.proof({name: f" {value} " for name, value in SENT.items()}))
    assert kept == SENT
    stored = SCHEME.stored_proof(kept)
    assert stored is not None
    assert SCHEME.proves(stored, BODY)
    assert not SCHEME.proves(stored, BODY + b" ")
    assert SCHEME.stored_proof({"webhook-id": "1"}) is None


@pytest.mark.parametrize("secret", ["whsec_", "whsec_!!!", "plain text", "whsec_abc"])
def test_a_secret_that_is_no_base64_is_refused_without_quoting_it(secret: str) -> None:
    with pytest.raises(ValueError, match="base64") as caught:
        StandardWebhooks("", (secret,))
    assert not StandardWebhooks.can_use(secret)
    assert secret not in str(caught.value).replace("whsec_ ", "")


def test_the_same_body_is_sent_again_under_the_same_id() -> None:
    first, again = (SCHEME.sign(BODY, AT + timedelta(seconds=each)) for each in (0, 60))
    assert first["webhook-id"] == again["webhook-id"]
    assert first["webhook-timestamp"] != again["webhook-timestamp"]
    assert SCHEME.sign(BODY + b" ", AT)["webhook-id"] != first["webhook-id"]
