"""What goes to AWS with a traced call, and what the signature covers."""

from __future__ import annotations

import pytest

from broker.adapters import trace_context
from broker.adapters.sts import StsClient, StsConfig, partition
from broker.adapters.sts.endpoint import from_url
from broker.issuance.sts import StsFailure
from tests.sts.misbehaving import a_call, cuts, refuses, replies

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


async def test_a_traced_call_carries_its_context_unsigned(server, started):
    reset = trace_context.outgoing.set(TRACEPARENT)
    try:
        await started.assume_role(a_call())
    finally:
        trace_context.outgoing.reset(reset)
    await started.assume_role(a_call())
    traced, plain = server.assumed
    assert traced.headers["traceparent"] == TRACEPARENT
    signed = traced.headers["authorization"].split("SignedHeaders=")[1].split(",")[0]
    assert "traceparent" not in signed
    assert "traceparent" not in plain.headers


async def test_each_attempt_is_told_by_how_it_ended(server, monkeypatch):
    seen: list[tuple[str, str | None]] = []
    client = StsClient(
        (StsConfig("aws", "us-east-1", sts_endpoint_url=server.url),),
        observe=lambda result, code: seen.append((result, code)),
    )
    monkeypatch.setattr(
        partition, "resolve", lambda c, region: from_url(c.sts_endpoint_url, region)
    )
    await client.start()
    try:
        seen.clear()
        server.script = [refuses("Throttling"), refuses("ServiceUnavailable", status=503)]
        await client.assume_role(a_call())
        server.script = [refuses("AccessDenied", status=403), cuts, replies("not XML")]
        for _ in range(3):
            with pytest.raises(StsFailure):
                await client.assume_role(a_call())
    finally:
        await client.aclose()
    assert seen == [
        ("throttled", "Throttling"),
        ("server_fault", "ServiceUnavailable"),
        ("ok", None),
        ("refused", "AccessDenied"),
        ("cut", None),
        ("ok", None),
        ("odd", None),
    ]
