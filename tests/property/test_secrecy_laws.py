"""Law: no part of a database's password is ever printed, however it is written."""

from __future__ import annotations

import re
from base64 import urlsafe_b64encode
from random import Random
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.runtime.secrets import is_weak, redact

SECRET_CHARS = "QXZ749"
"""Characters that stand in passwords only."""
PASSWORDS = st.text(SECRET_CHARS + ":/?#@&=%'\"\\ +;", min_size=1, max_size=12).map(
    lambda text: f"Q{text}Z"
)


def quoted(password: str, mark: str = "'") -> str:
    """Write a value of a `key=value` connection string."""
    return mark + password.replace("\\", "\\\\").replace(mark, "\\" + mark) + mark


def spelt(password: str) -> list[str]:
    """Write a connection string with this password in every way that people do."""
    encoded = quote(password, safe="")
    return [
        f"postgresql://user:{password}@host/base",
        f"postgres://user:{password}@host:5432/base?sslmode=require",
        f"postgres://user@corp:{password}@host/base",
        f"postgresql://user:{encoded}@host/base",
        f"postgresql://user:{encoded}@[::1]:5432/base",
        f"postgresql://user:{encoded}@one:5432,two:5432/base",
        f"postgresql://host/base?user=user&password={password}",
        f"postgresql://host/base?password={encoded}&sslmode=require",
        f"postgresql://user@host/base?sslpassword={encoded}",
        f"postgresql://user:{password}@host/base?password={password}",
        f"postgresql://user:{password.replace('@', '#')}",
        f"host=host password={quoted(password)} dbname=base",
        f"host=host PASSWORD = {quoted(password)} dbname=base",
        f"host=host password={quoted(password, chr(34))} dbname=base",
        f"host=host dbname=base password={quoted(password)}",
    ]


@given(PASSWORDS)
def test_nothing_of_a_password_is_left(password: str) -> None:
    for text in spelt(password):
        for whole in (text, f"cannot connect to {text}", f"{text}\nsee the log"):
            reported = redact(whole)
            assert not re.search(f"[{SECRET_CHARS}]", re.sub("5432", "", reported)), (
                whole,
                reported,
            )
            assert redact(reported) == reported
            assert "***" in reported


@pytest.mark.parametrize(
    ("text", "reported"),
    [
        ("postgresql://u:pa:ss:word@db/x", "postgresql://u:***@db/x"),
        ("postgresql://u:p@ss@db/x", "postgresql://u:***@db/x"),
        ("postgresql://u:p%40ss@db:5432/x", "postgresql://u:***@db:5432/x"),
        ("host=db password='two words' user=u", "host=db password=*** user=u"),
        (r"host=db password=two\ words user=u", "host=db password=*** user=u"),
        ("postgresql://db/x?user=u&password=p", "postgresql://db/x?user=u&password=***"),
        ("postgresql://u@db:5432/x", "postgresql://u@db:5432/x"),
        ("postgresql://[::1]:5432/x", "postgresql://[::1]:5432/x"),
        ("postgresql://db:5432,db2:5433/x", "postgresql://db:5432,db2:5433/x"),
        ("postgresql:///x?host=/run/postgresql", "postgresql:///x?host=/run/postgresql"),
        ("the books are at position 7", "the books are at position 7"),
    ],
)
def test_what_is_no_password_is_left(text: str, reported: str) -> None:
    assert redact(text) == reported


def test_random_tokens_of_16_bytes_are_never_called_weak() -> None:
    rng = Random(14)
    for _ in range(2_000):
        token = rng.randbytes(16)
        assert not is_weak(urlsafe_b64encode(token).decode().rstrip("="))
        assert not is_weak(token.hex())
