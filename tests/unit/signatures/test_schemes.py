"""Signatures: what the standard library signs is accepted, and nothing that differs from it."""

from __future__ import annotations

import hmac
import json

import pytest

from ledger.config.settings import Source
from ledger.receiver.endpoint import kept_headers
from ledger.signatures.schemes import Verify, sign, verifier

BODY = b'{"id":"contract_1"}'


def check_of(source: Source) -> Verify:
    return verifier(source.provider, source.secrets)


def source(*secrets: str) -> Source:
    """Return a source that knows these secrets."""
    return Source("straitsx", "straitsx", secrets=secrets, header="Xfers-Signature")


@pytest.mark.parametrize("length", [1, 32, 63, 64, 65, 200])
def test_a_secret_of_any_length_signs_as_the_standard_library_does(length: int) -> None:
    secret = ("s\u00e9cret" * length)[:length]
    signature = hmac.new(secret.encode(), BODY, "sha256").hexdigest()
    verify = check_of(source(secret))
    for _ in range(2):
        assert verify(signature, BODY)
        assert verify(f" {signature.upper()} ", BODY)
        assert not verify(signature, BODY + b" ")
    assert sign(secret, BODY) == signature


def test_each_of_several_secrets_is_accepted() -> None:
    verify = check_of(source("old", "new"))
    assert verify(sign("old", BODY), BODY)
    assert verify(sign("new", BODY), BODY)
    assert not verify(sign("other", BODY), BODY)


@pytest.mark.parametrize("value", [None, "", "0", "\u00e9" * 64, "0" * 64, "\udce9" * 64])
def test_whatever_is_no_signature_is_refused(value: str | None) -> None:
    assert not check_of(source("secret"))(value, BODY)


@pytest.mark.parametrize("space", ["\u2003", "\u00a0", "\x0b", "\n", "\r", " " * 600])
@pytest.mark.parametrize("place", ["{space}{value}", "{value}{space}"])
def test_no_other_space_may_surround_a_signature(place: str, space: str) -> None:
    value = place.format(space=space, value=sign("secret", BODY))
    assert not check_of(source("secret"))(value, BODY)


@pytest.mark.parametrize("before", ["", " ", "\t \t"])
def test_a_signature_is_kept_as_it_is_judged_later(before: str) -> None:
    signer = source("secret")
    value = before + sign("secret", BODY).upper() + before
    assert check_of(signer)(value, BODY)
    kept = json.loads(kept_headers(signer, "application/json", "x", value))
    assert kept["Xfers-Signature"] == sign("secret", BODY).upper()
