"""Which hosts of URLs are this machine alone: plain http reaches nobody else there."""

from __future__ import annotations

from ipaddress import ip_address


def is_loopback(host: str | None) -> bool:
    """`localhost`, or an address of the loopback interface."""
    if host is None:
        return False
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
