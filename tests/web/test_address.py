"""Whose address a request is held to, behind proxies and behind lies."""

from __future__ import annotations

from ipaddress import IPv4Address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.web.address import client_address, throttle_key

TRUSTED = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("203.0.113.9", [], "203.0.113.9"),
        # Not a trusted peer: whatever it claims is its own invention.
        ("203.0.113.9", ["198.51.100.1"], "203.0.113.9"),
        ("10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        # The caller's own entry stands left of what the proxy saw.
        ("10.0.0.1", ["127.0.0.1, 198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["127.0.0.1", "198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["198.51.100.1, 10.0.0.2"], "198.51.100.1"),
        ("10.0.0.1", ["198.51.100.1, nonsense, 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.1:5555"], "198.51.100.1"),
        ("fd00::1", ["[2001:db8::1]:443"], "2001:db8::1"),
        ("::ffff:10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["fe80::1%eth0"], "10.0.0.1"),
        (None, ["198.51.100.1"], None),
        ("/run/broker.sock", ["198.51.100.1"], None),
    ],
)
def test_the_rightmost_address_that_no_trusted_proxy_has(
    peer: str | None, forwarded: list[str], client: str | None
) -> None:
    assert client_address(peer, forwarded, TRUSTED) == client


@given(st.lists(st.ip_addresses(v=4).map(str), max_size=5), st.ip_addresses(v=4))
def test_a_caller_never_chooses_what_a_trusted_proxy_saw(
    invented: list[str], real: IPv4Address
) -> None:
    if real in TRUSTED[0]:
        return
    assert client_address("10.0.0.1", [", ".join([*invented, str(real)])], TRUSTED) == str(real)


def test_a_v6_host_can_not_spread_its_attempts_over_its_network() -> None:
    assert throttle_key("2001:db8::1") == throttle_key("2001:db8::ffff:1")
    assert throttle_key("2001:db8::1") != throttle_key("2001:db8:0:1::1")
    assert throttle_key("203.0.113.9") == "203.0.113.9"
