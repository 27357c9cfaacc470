"""What is asked again, what never is, and what each breakage is told as."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from datetime import UTC, datetime

import pytest

from broker.adapters.sts import StsClient, StsConfig, exchange, partition
from broker.adapters.sts.answer import Reply
from broker.adapters.sts.connection import NotSent, Timeouts
from broker.adapters.sts.endpoint import from_url
from broker.adapters.sts.exchange import exchange as ask
from broker.adapters.sts.refusal import Asked
from broker.adapters.sts.sigv4 import Signer
from broker.errors import AwsThrottled, AwsUnavailable, StartupError
from broker.issuance.sts import StsFailure
from tests.sts.misbehaving import (
    SECRET,
    SESSION,
    TOKEN,
    Behaviour,
    Misbehaving,
    a_call,
    cuts,
    cuts_midway,
    good,
    good_answer,
    hangs,
    http,
    refuses,
    replies,
    resets,
)


async def failure_of(client: StsClient, **changes: object) -> StsFailure:
    with pytest.raises(StsFailure) as caught:
        await client.assume_role(a_call(**changes))
    return caught.value


async def test_a_good_answer_is_taken_whole(server, started):
    minted = await started.assume_role(a_call())
    assert minted.credentials.access_key_id == "ASIAEXAMPLE000000001"
    assert minted.credentials.secret_access_key == SECRET
    assert minted.credentials.session_token == TOKEN
    assert minted.assumed_role_arn == f"arn:aws:sts::111122223333:assumed-role/DataReader/{SESSION}"
    assert minted.assumed_role_id == f"AROAEXAMPLE0000000001:{SESSION}"
    assert minted.request_id == "req-good"
    assert minted.packed_policy_percent == 12
    assert len(server.assumed) == 1


def without_length(body: str) -> Behaviour:
    """As simple HTTP/1.0 servers and some proxies answer: the body ends with the connection."""

    async def reply(_: object, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.0 200 OK\r\nContent-Type: text/xml\r\n\r\n" + body.encode())
        await writer.drain()
        writer.close()

    return reply


async def test_a_body_that_ends_with_the_connection_is_taken_when_it_is_whole(server, started):
    server.script = [without_length(good_answer())]
    minted = await started.assume_role(a_call())
    assert minted.credentials.secret_access_key == SECRET
    server.script = [without_length(good_answer()[:-40])]
    failure = await failure_of(started)
    assert failure.outcome_unknown
    assert isinstance(failure.error, AwsUnavailable)


async def test_the_request_says_exactly_what_was_asked(server, started):
    await started.assume_role(
        a_call(tags=(("a", "b c"), ("é", "/=+")), policy_arns=("arn:aws:iam::aws:policy/X",))
    )
    params = server.assumed[0].params
    assert params["Action"] == "AssumeRole"
    assert params["RoleArn"] == a_call().role_arn
    assert params["DurationSeconds"] == "3600"
    assert params["Tags.member.1.Value"] == "b c"
    assert params["Tags.member.2.Key"] == "é"
    assert params["PolicyArns.member.1.arn"] == "arn:aws:iam::aws:policy/X"
    assert params["TransitiveTagKeys.member.1"] == "broker:issuance"
    assert params["SourceIdentity"] == "p-abcdefghijklmnop"
    assert params["ExternalId"] == "canary-external-id"


@pytest.mark.parametrize(
    "passing",
    [
        refuses("Throttling", "Rate exceeded"),
        replies("Rate exceeded", 429),
        replies("<html>overloaded</html>", 503),
        refuses("InternalFailure", "Oops", 500),
        replies("", 502),
    ],
)
async def test_what_passes_by_itself_is_asked_again(server, started, passing):
    server.script = [passing, passing]
    minted = await started.assume_role(a_call())
    assert minted.credentials.secret_access_key == SECRET
    assert len(server.assumed) == 3


async def test_a_lasting_throttle_is_told_as_one(server, started):
    server.script = [refuses("Throttling", "Rate exceeded")] * 9
    failure = await failure_of(started)
    assert isinstance(failure.error, AwsThrottled)
    assert failure.error.retry_after > 0
    assert failure.sts_code == "Throttling"
    assert not failure.outcome_unknown
    assert len(server.assumed) == 3


async def test_a_throttle_in_other_words_is_one_too(server, started):
    server.script = [replies("slow down", 429)] * 9
    assert isinstance((await failure_of(started)).error, AwsThrottled)


async def test_a_lasting_fault_of_sts_ends(server, started):
    server.script = [replies("<html/>", 503)] * 9
    failure = await failure_of(started)
    assert isinstance(failure.error, AwsUnavailable)
    assert not failure.outcome_unknown
    assert not failure.alarm
    assert len(server.assumed) == 3


@pytest.mark.parametrize("cut", [cuts, cuts_midway, resets, hangs])
async def test_a_line_that_breaks_after_the_request_is_never_asked_again(server, started, cut):
    server.script = [cut]
    failure = await failure_of(started)
    assert isinstance(failure.error, AwsUnavailable)
    assert failure.outcome_unknown
    assert len(server.assumed) == 1


async def test_a_kept_connection_that_breaks_is_not_asked_again_either(server, started):
    """Whether the peer had the request cannot be known from a connection closed on it."""
    await started.assume_role(a_call())
    server.script = [cuts]
    assert (await failure_of(started)).outcome_unknown
    first, second = server.assumed
    assert second.connection == first.connection


async def test_an_answer_that_drips_is_given_up_in_bounded_time(server, started):
    async def drips(_, writer):
        for byte in http(good_answer()):
            writer.write(bytes([byte]))
            with contextlib.suppress(ConnectionError):
                await writer.drain()
            await asyncio.sleep(0.05)

    server.script = [drips]
    async with asyncio.timeout(5):
        failure = await failure_of(started)
    assert failure.outcome_unknown
    assert len(server.assumed) == 1


async def test_whatever_adds_up_the_whole_call_ends_in_time(server, started, monkeypatch):
    monkeypatch.setattr(partition, "WHOLE_CALL_SECONDS", 0.2)
    server.script = [hangs]
    failure = await failure_of(started)
    assert isinstance(failure.error, AwsUnavailable)
    assert failure.outcome_unknown
    assert len(server.assumed) == 1


async def test_redirects_are_not_followed(server, started):
    other = Misbehaving()
    await other.start()
    server.script = [replies("", 307, Location=other.url + "/")]
    failure = await failure_of(started)
    assert failure.alarm
    assert other.assumed == []
    await other.stop()


async def test_an_unreachable_sts_has_minted_nothing(client, server):
    await server.stop()
    await client.start()
    failure = await failure_of(client)
    assert isinstance(failure.error, AwsUnavailable)
    assert "broker doctor" in failure.error.detail
    assert not failure.outcome_unknown
    assert not failure.alarm


async def test_a_proxy_that_refuses_has_let_nothing_through(monkeypatch):
    connects: list[bytes] = []

    async def refuse(reader, writer):
        connects.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    proxy = await asyncio.start_server(refuse, "127.0.0.1", 0)
    port = proxy.sockets[0].getsockname()[1]
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{port}")
    client = StsClient((StsConfig("aws", "us-east-1", "https://sts.example.invalid"),))
    await client.start()
    failure = await failure_of(client)
    assert not failure.outcome_unknown
    assert "proxy" in failure.error.detail
    assert len(connects) == 6, "three tries at the start, three for the call"
    assert all(head.startswith(b"CONNECT sts.example.invalid:443 ") for head in connects)
    assert not any(b"AWS4-HMAC" in head for head in connects)
    await client.aclose()
    proxy.close()
    await proxy.wait_closed()


class Unreachable:
    """A pool whose connections fail until `after` attempts were made."""

    def __init__(self, after: int) -> None:
        self.after = after
        self.attempts = 0

    async def post(self, endpoint, headers, body, *, within):
        self.attempts += 1
        assert 0 < within <= exchange.TOTAL_SECONDS
        if self.attempts <= self.after:
            raise NotSent("refused")
        return Reply(200, b"", None, None)


def now() -> datetime:
    return datetime.now(UTC)


async def ask_over(pool) -> None:
    endpoint = from_url("http://127.0.0.1:1", "us-east-1")
    signer = Signer("AKIA", "secret", None)
    await ask(pool, endpoint, b"", signer, Asked(None, None, "us-east-1", now()), now)


async def test_a_connection_that_never_came_about_is_tried_again():
    pool = Unreachable(after=2)
    await ask_over(pool)
    assert pool.attempts == 3


async def test_but_not_for_ever():
    pool = Unreachable(after=99)
    with pytest.raises(StsFailure) as caught:
        await ask_over(pool)
    assert pool.attempts == 3
    assert not caught.value.outcome_unknown


async def test_a_pause_that_would_pass_the_total_is_not_begun(monkeypatch):
    monkeypatch.setattr(exchange, "PAUSES", (60.0, 60.0))
    pool = Unreachable(after=99)
    async with asyncio.timeout(5):
        with pytest.raises(StsFailure):
            await ask_over(pool)
    assert pool.attempts == 1


async def test_many_at_once_share_few_connections_and_mix_nothing_up(server, started):
    async def one(n: int) -> None:
        name = f"person-{n:03d}-iss-abcdef"
        minted = await started.assume_role(a_call(role_session_name=name))
        assert minted.assumed_role_arn.endswith(f"/{name}")

    for _ in range(4):
        await asyncio.gather(*(one(n) for n in range(16)))
    assert len(server.assumed) == 64
    assert server.connections <= 17


async def test_no_secret_reaches_the_log(server, started, caplog):
    caplog.set_level(logging.DEBUG, logger="broker")
    server.script = [
        replies(good_answer(source_identity="p-other")),
        refuses("AccessDenied", "User: x is not authorized", 403),
        cuts_midway,
        good,
    ]
    for _ in range(3):
        failure = await failure_of(started)
        caplog.records.append(
            logging.makeLogRecord({"msg": f"{failure!r} {failure.error.log_detail}"})
        )
    minted = await started.assume_role(a_call())
    told = f"{minted!r} {a_call()!r}" + "".join(r.getMessage() for r in caplog.records)
    for canary in (SECRET, TOKEN, "canary-external-id", "canary-base-secret-key", "base-token"):
        assert canary not in told


async def test_plain_http_to_another_machine_stops_the_start():
    client = StsClient((StsConfig("aws", "us-east-1", sts_endpoint_url="http://sts.example.com"),))
    with pytest.raises(StartupError, match="plain http to another machine"):
        await client.start()
    await client.aclose()


async def test_timeouts_are_aws_advice_by_default():
    assert Timeouts() == Timeouts(connect=2.0, read=5.0)
