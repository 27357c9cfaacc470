"""The client's network address, through proxies that are trusted by name.

A caller can write anything into X-Forwarded-For: it is read only when the peer
itself is a trusted proxy, and then from the right, as each proxy appends what it
saw. The first address that is not a trusted proxy is the client.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address

# Longer chains are hostile: no real path has as many proxies.
_MAX_HOPS = 32


# Brackets, the longest v6 address and a port.
_MAX_ADDRESS = 64


def parse_address(text: str) -> Address | None:
    """An address as proxies write it: bare, `[v6]:port` or `v4:port`; v4-mapped v6 becomes v4."""
    text = text.strip()
    return _parsed(text) if len(text) <= _MAX_ADDRESS else None


# The same callers come again, and ipaddress is written in Python: 3 µs a parse, two a request.
@lru_cache(maxsize=4096)
def _parsed(text: str) -> Address | None:
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            return None
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
    return address


def client_address(
    peer: str | None, forwarded_for: Sequence[str], trusted: Sequence[Network]
) -> str | None:
    """The address to hold a request to; None where the peer has none (a Unix socket).

    `forwarded_for` are the header's values in the order received. An entry that
    is no address ends the walk: what stands left of it was vouched for by nobody.
    """
    if peer is None:
        return None
    address = parse_address(peer)
    if address is None:
        return None
    if not trusted or not _within(address, trusted):
        return str(address)
    hops = ",".join(forwarded_for).split(",")[-_MAX_HOPS:]
    for hop in reversed(hops):
        claimed = parse_address(hop)
        if claimed is None:
            break
        address = claimed
        if not _within(address, trusted):
            break
    return str(address)


def throttle_key(ip: str | None) -> str:
    """What attempts are counted under: a v6 host owns at least a /64, so it is one key."""
    if ip is None:
        return "unknown"
    address = ip_address(ip)
    if isinstance(address, IPv6Address):
        return str(ip_network((address, 64), strict=False))
    return ip


def _within(address: Address, networks: Sequence[Network]) -> bool:
    return any(address in network for network in networks)
