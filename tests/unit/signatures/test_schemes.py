"""Signatures: what the standard library signs is accepted, and nothing that differs from it."""

from __future__ import annotations

import hmac
from datetime import UTC, datetime

import pytest

from ledger.signatures.hmac_sha256_hex import HmacSha256Hex, sign
from ledger.signatures.scheme import Scheme
from ledger.signatures.schemes import SCHEMES
from ledger.signatures.static_token import StaticToken

BODY = b'{"id":"contract_1"}'
NOW = datetime(2026, 11, 30, tzinfo=UTC)


def signed_by(*secrets: str) -> Scheme:
    """Return the scheme of a source that knows these secrets."""
    return HmacSha256Hex("Xfers-Signature", secrets)


def is_accepted(scheme: Scheme, value: str, body: bytes = BODY) -> bool:
    return scheme.refusal((value,), body, NOW) is None


@pytest.mark.parametrize("length", [1, 32, 63, 64, 65, 200])
def test_a_secret_of_any_length_signs_as_the_standard_library_does(length: int) -> None:
    secret = ("s\u00e9cret" * length)[:length]
    signature = hmac.new(secret.encode(), BODY, "sha256").hexdigest()
    scheme = signed_by(secret)
    for _ in range(2):
        assert is_accepted(scheme, signature)
        assert is_accepted(scheme, f" {signature.upper()} ")
        assert not is_accepted(scheme, signature, BODY + b" ")
    assert sign(secret, BODY) == signature
    assert scheme.sign(BODY, NOW) == {"Xfers-Signature": signature}


def test_each_of_several_secrets_is_accepted() -> None:
    for scheme in (signed_by("old", "new"), StaticToken("X-Token", ("old", "new"))):
        for secret in ("old", "new"):
            signer = type(scheme)(scheme.headers[0], (secret,))
            assert is_accepted(scheme, *signer.sign(BODY, NOW).values())
        other = type(scheme)(scheme.headers[0], ("other",))
        assert not is_accepted(scheme, *other.sign(BODY, NOW).values())


@pytest.mark.parametrize("value", ["", "0", "\u00e9" * 64, "0" * 64, "\udce9" * 64])
def test_whatever_is_no_signature_is_refused(value: str) -> None:
    assert not is_accepted(signed_by("secret"), value)
    assert not is_accepted(StaticToken("X-Token", ("secret",)), value)


@pytest.mark.parametrize("space", ["\u2003", "\u00a0", "\x0b", "\n", "\r", " " * 600])
@pytest.mark.parametrize("place", ["{space}{value}", "{value}{space}"])
def test_no_other_space_may_surround_a_signature(place: str, space: str) -> None:
    value = place.format(space=space, value=sign("secret", BODY))
    assert not is_accepted(signed_by("secret"), value)


@pytest.mark.parametrize("before", ["", " ", "\t \t"])
def test_a_signature_is_kept_as_it_is_checked_later(before: str) -> None:
    scheme = signed_by("secret")
    value = before + sign("secret", BODY).upper() + before
    assert is_accepted(scheme, value)
    kept = scheme.kept((value,))
    assert kept == {"Xfers-Signature": sign("secret", BODY).upper()}
    stored = scheme.stored_proof(kept)
    assert stored is not None
    assert scheme.proves(stored, BODY)
    assert not scheme.proves(stored, BODY + b" ")


def test_a_token_is_never_kept() -> None:
    scheme = StaticToken("X-Token", ("secret",))
    assert scheme.kept(("secret",)) == {}
    assert scheme.stored_proof({"X-Token": "secret"}) is None


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=list(SCHEMES))
def test_without_a_secret_everything_is_accepted_and_nothing_is_proved(
    scheme: type[Scheme],
) -> None:
    without = scheme("X-Proof", ())
    proof = without.proof({"X-Proof": "0" * 64, "webhook-id": "1"})
    assert without.refusal(proof, BODY, NOW) is None
    assert not without.proves(proof, BODY)
