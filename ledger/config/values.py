"""Single values as the environment and the TOML file write them. Each raises ValueError."""

from __future__ import annotations

import re
from typing import Any, Final

from ledger.runtime.addresses import Network, network

CURRENCY: Final = re.compile(r"[A-Za-z]{2,12}")


def to_truth(value: Any) -> bool:
    """Read true or false, in the words that people use for them."""
    known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    word = str(value).strip().lower()
    if word not in known:
        raise ValueError("expected true or false")
    return known[word]


def to_currency(value: Any) -> str:
    """Read a currency, in capitals or not."""
    if not isinstance(value, str) or not CURRENCY.fullmatch(value.strip()):
        raise ValueError(f"{value!r} is not a currency: expected 2 to 12 letters, as SGD")
    return value.strip().upper()


def to_texts(value: Any) -> tuple[str, ...]:
    """Read a list of texts, or one text with commas between them; blanks around each are cut."""
    if isinstance(value, str):
        value = [word for word in value.split(",") if word.strip()]
    if not isinstance(value, list | tuple) or not all(isinstance(word, str) for word in value):
        raise ValueError("expected texts")
    words = tuple(word.strip() for word in value)
    if "" in words:
        raise ValueError("a text is empty; leave it out")
    return words


def to_networks(value: Any) -> tuple[Network, ...]:
    """Read addresses and blocks of addresses, in a list or with commas between them."""
    return tuple(network(word) for word in to_texts(value))
