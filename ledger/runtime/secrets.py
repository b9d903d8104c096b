"""Secrets: how hard they are to guess, and how to print what may hold one."""

from __future__ import annotations

import math
import re
from typing import Final
from urllib.parse import urlsplit

SECRET_BITS_MIN: Final = 128
STRONGER: Final = "use 32 random hexadecimal digits or more: openssl rand -hex 32"
HIDDEN: Final = "***"

_PREFIX: Final = re.compile(r"\A(?:ss|whsec)_")
_SCHEME: Final = r"postgres(?:ql)?://"
_IN_QUERY: Final = re.compile(rf"({_SCHEME}[^\n]*?[?&]\w*password=)[^\n]*", re.IGNORECASE)
_IN_URL: Final = re.compile(rf"({_SCHEME}[^:\n]*):[^\n]*@", re.IGNORECASE)
_WITHOUT_HOST: Final = re.compile(
    rf"({_SCHEME}[^:\[\s@/]*):(?!\*\*\*|[0-9]{{1,5}}(?:[/?,\s'\"]|$))[^\n]*", re.IGNORECASE
)
"""User and password without an `@`: what follows the colon is no port."""
_IN_WORDS: Final = re.compile(
    r"""(\b\w*password\s*=\s*)
        (?: '(?:\\.|[^'\\])*(?:'|$) | "(?:\\.|[^"\\])*(?:"|$) | \\(?:.|$) | [^'"\\\n] )+?
        (?= \s+\w+\s*= | \s*$ )""",
    re.IGNORECASE | re.MULTILINE | re.VERBOSE,
)


_HOST: Final = re.compile(r"(?:\[[^\]]*\]|[^:\[\]]*)(?::[0-9]{1,5})?")


def redact(text: str) -> str:
    """Return `text` without the passwords of the connection strings in it.

    Takes URLs with any characters in the password, encoded or not, passwords in the query, and
    `key=value` texts with quotes. What could belong to a password is left out with it, up to the
    end of its line; the rest of the text stays.
    """
    text = _IN_QUERY.sub(rf"\1{HIDDEN}", text)
    text = _IN_URL.sub(rf"\1:{HIDDEN}@", text)
    text = _WITHOUT_HOST.sub(rf"\1:{HIDDEN}", text)
    return _IN_WORDS.sub(rf"\1{HIDDEN}", text)


def secret_bits(secret: str) -> int:
    """Return how many bits `secret` has at most, estimated from its length and its characters.

    A provider's prefix (`ss_`, `whsec_`) does not count, nor do more than a few repeats.
    """
    text = _PREFIX.sub("", secret, count=1)
    if re.fullmatch(r"[0-9a-f]*|[0-9A-F]*", text):
        alphabet = 16
    else:
        classes = ((r"[a-z]", 26), (r"[A-Z]", 26), (r"[0-9]", 10), (r"[^A-Za-z0-9]", 4))
        alphabet = sum(size for pattern, size in classes if re.search(pattern, text))
        if re.search(r"[a-z]", text) and re.search(r"[A-Z]", text):
            alphabet = max(alphabet, 64)  # base64, whichever of its characters are absent
    length = min(len(text), 4 * len(set(text)))
    return int(length * math.log2(max(alphabet, 2)))


def is_weak(secret: str) -> bool:
    """Return whether a secret or token has fewer than SECRET_BITS_MIN bits."""
    return secret_bits(secret) < SECRET_BITS_MIN


def is_database_url(text: str) -> bool:
    """Return whether every part of a database's URL is where readers of URLs look for it.

    An unencoded `/`, `?` or `#` would make a part of the password a port, a name or a parameter,
    which error messages quote.
    """
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    hosts = parts.netloc.rpartition("@")[2].split(",")
    return (
        parts.scheme in ("postgresql", "postgres")
        and "#" not in text
        and "@" not in parts.path
        and all(_HOST.fullmatch(host) for host in hosts)
        and all("=" in pair for pair in parts.query.split("&") if pair)
    )
