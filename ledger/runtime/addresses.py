"""Addresses: who sent a request, directly or through proxies that are trusted.

An IPv4 address that arrives as an IPv6 one (`::ffff:192.0.2.7`) is the IPv4 address.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from typing import Final, TypeAlias

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

CHARS_MAX: Final = 64
FORWARDING: Final = frozenset(
    (
        "forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto",
        "x-forwarded-port", "x-forwarded-server", "x-original-forwarded-for", "x-real-ip",
        "x-client-ip", "x-cluster-client-ip", "x-envoy-external-address", "true-client-ip",
        "cf-connecting-ip", "fastly-client-ip",
    )
)  # fmt: skip
"""Header fields, in lower case, that a proxy adds to what it passes on."""

_WITH_PORT: Final = re.compile(r"\[([^\]]+)\](?::[0-9]{1,5})?|([0-9.]+):[0-9]{1,5}")
_MAPPED: Final = ipaddress.IPv6Network("::ffff:0:0/96")


def network(text: str) -> Network:
    """Return an address or a block (`192.0.2.7`, `10.0.0.0/8`). Raises ValueError, a sentence."""
    try:
        found = ipaddress.ip_network(text.strip(), strict=False)
    except ValueError:
        raise ValueError(
            f"{text!r} is neither an address nor a block of addresses such as 192.0.2.7 or "
            "10.0.0.0/8; names of hosts are not looked up"
        ) from None
    if found.version == 4:
        return found
    block = ipaddress.IPv6Network(found)
    if not block.subnet_of(_MAPPED):
        return block
    return ipaddress.ip_network(f"{block.network_address.ipv4_mapped}/{block.prefixlen - 96}")


def address(text: str | None) -> Address | None:
    """Return the address that a peer or a hop of X-Forwarded-For names; None when it is none.

    Takes what proxies write: `192.0.2.7:1234`, `[2001:db8::7]`, `[2001:db8::7]:1234`.
    """
    written = (text or "").strip()
    if found := _WITH_PORT.fullmatch(written):
        written = found[1] or found[2]
    try:
        parsed = ipaddress.ip_address(written)
    except ValueError:
        return None
    return getattr(parsed, "ipv4_mapped", None) or parsed


def is_within(found: Address | None, networks: Iterable[Network]) -> bool:
    """Return whether an address is in one of these networks."""
    return found is not None and any(found in block for block in networks)


def sender(peer: str | None, forwarded_for: str, proxies: tuple[Network, ...]) -> str | None:
    """Return the address behind trusted proxies; `forwarded_for` is the whole field.

    Read from its end: every trusted proxy adds the address that it was sent from. What is no
    address is returned as it is written, in ASCII and cut to CHARS_MAX, and trusted with nothing.
    """
    found = address(peer)
    hops = forwarded_for.split(",") if proxies else []
    while hops and is_within(found, proxies):
        hop = hops.pop().strip()
        if hop:
            peer, found = hop, address(hop)
    if found is not None:
        return str(found)
    return ascii(peer)[1:-1][:CHARS_MAX] if peer else peer


def is_forwarded(fields: Iterable[str]) -> bool:
    """Return whether a request's header fields show that a proxy passed it on."""
    return any(name.lower() in FORWARDING for name in fields)


def allowed(networks: Sequence[str], peer: str | None) -> bool:
    """Return whether `peer` (an address) is in one of the networks; none allows all."""
    return not networks or is_within(address(peer), map(network, networks))
