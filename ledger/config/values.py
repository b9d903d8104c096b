"""Single values as the environment and the TOML file write them. Each raises ValueError."""

from __future__ import annotations

from typing import Any

from ledger.runtime.addresses import Network, network


def to_truth(value: Any) -> bool:
    """Read true or false, in the words that people use for them."""
    known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if str(value).lower() not in known:
        raise ValueError("expected true or false")
    return known[str(value).lower()]


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
