"""Issuers that rotate, fail, drip, flood and redirect: keys are cached and bounded."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from broker.adapters.ci_issuers import CiIssuers
from broker.adapters.outbound import new_client
from broker.identity.ci_token import KeysUnavailable
from broker.identity.verification_keys import NoSuitableKey
from tests.ci.conftest import World
from tests.ci.issuer import Answer, LocalIssuer, ec_key


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def issuers(clock: Clock) -> AsyncIterator[CiIssuers]:
    client = new_client(total_seconds=0.5)
    yield CiIssuers(client, clock)
    await client.aclose()


def fetches(issuer: LocalIssuer) -> int:
    return sum(path.endswith("/jwks") for path in issuer.requests)


async def test_keys_are_fetched_once_for_many_jobs(issuers: CiIssuers, issuer: LocalIssuer) -> None:
    url = issuer.issuer("github")
    await asyncio.gather(*(issuers.key(url, "k1", "ES256") for _ in range(50)))
    assert fetches(issuer) == 1


async def test_a_new_key_is_found_at_once_and_random_ids_ask_once_a_minute(
    issuers: CiIssuers, issuer: LocalIssuer, clock: Clock
) -> None:
    url = issuer.issuer("github")
    await issuers.key(url, "k1", "ES256")
    issuer.published["k2"] = ec_key(2)
    assert (await issuers.key(url, "k2", "ES256")).key_id == "k2"
    before = fetches(issuer)
    for number in range(20):
        with pytest.raises(NoSuitableKey):
            await issuers.key(url, f"random-{number}", "ES256")
    assert fetches(issuer) == before
    clock.seconds += 61
    with pytest.raises(NoSuitableKey):
        await issuers.key(url, "random", "ES256")
    assert fetches(issuer) == before + 1


async def test_a_withdrawn_key_is_dead_within_ten_minutes(
    issuers: CiIssuers, issuer: LocalIssuer, clock: Clock
) -> None:
    url = issuer.issuer("github")
    await issuers.key(url, "k1", "ES256")
    issuer.published.clear()
    issuer.published["k2"] = ec_key(2)
    clock.seconds += 599
    with pytest.raises(NoSuitableKey):
        await issuers.key(url, "k1", "ES256")


@pytest.mark.parametrize(
    "answer",
    [
        Answer({"keys": []}),
        Answer({"keys": [{"kty": "oct", "k": "AAAA", "kid": "k1"}]}),
        Answer({"keys": "none"}),
        Answer({"error": "x"}, 500),
        Answer(b"<html>", headers={"Content-Type": "text/html"}),
    ],
    ids=["empty", "symmetric", "no list", "error", "page"],
)
async def test_a_broken_key_set_is_ignored_for_an_hour_at_most(
    issuers: CiIssuers, issuer: LocalIssuer, clock: Clock, answer: Answer
) -> None:
    url = issuer.issuer("github")
    await issuers.key(url, "k1", "ES256")
    issuer.replaced["jwks"] = answer
    clock.seconds += 1800
    assert (await issuers.key(url, "k1", "ES256")).key_id == "k1"
    clock.seconds += 3600
    with pytest.raises(KeysUnavailable):
        await issuers.key(url, "k1", "ES256")


async def test_an_outage_is_served_from_what_is_known_and_heals(
    issuers: CiIssuers, issuer: LocalIssuer, clock: Clock
) -> None:
    url = issuer.issuer("github")
    await issuers.key(url, "k1", "ES256")
    issuer.replaced["jwks"] = Answer({}, 503)
    clock.seconds += 700
    assert (await issuers.key(url, "k1", "ES256")).key_id == "k1"
    issuer.replaced.clear()
    issuer.published["k2"] = ec_key(2)
    clock.seconds += 61
    assert (await issuers.key(url, "k2", "ES256")).key_id == "k2"


async def drip(writer: asyncio.StreamWriter) -> None:
    writer.write(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9999\r\n\r\n"
    )
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.05)


async def flood(writer: asyncio.StreamWriter) -> None:
    size = 50 * 1024 * 1024
    writer.write(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % size
    )
    for _ in range(size // 65536):
        writer.write(b" " * 65536)
        await writer.drain()


@pytest.mark.parametrize("document", ["openid-configuration", "jwks"])
@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Answer(raw=drip), "no answer in time"),
        (Answer(raw=flood), "over 1 MiB"),
        (Answer({}, 302, {"Location": "http://169.254.169.254/latest/"}), "redirect"),
        (Answer(b"x" * 100, headers={"Content-Encoding": "gzip"}), "compressed"),
        (Answer({"keys": [1], "issuer": 1}), "another issuer's|no usable key"),
    ],
    ids=["drip", "50 MB", "redirect", "compressed", "shape"],
)
async def test_a_hostile_answer_is_bounded_and_says_what_was_wrong(
    issuers: CiIssuers, issuer: LocalIssuer, document: str, answer: Answer, reason: str
) -> None:
    issuer.replaced[document] = answer
    started = time.monotonic()
    with pytest.raises(KeysUnavailable, match=reason):
        await issuers.key(issuer.issuer("github"), "k1", "ES256")
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    "uri", ["http://169.254.169.254/jwks", "file:///etc/passwd", "https://u:p@x.test/", 1, None]
)
async def test_keys_come_from_no_address_that_may_not_be_asked(
    issuers: CiIssuers, issuer: LocalIssuer, uri: object
) -> None:
    url = issuer.issuer("github")
    issuer.replaced["openid-configuration"] = Answer({"issuer": url, "jwks_uri": uri})
    with pytest.raises(KeysUnavailable, match="jwks_uri"):
        await issuers.key(url, "k1", "ES256")


async def test_an_issuer_without_keys_to_fetch_refuses_the_job_and_says_when_to_try(
    world: World, issuer: LocalIssuer
) -> None:
    issuer.replaced["jwks"] = Answer({}, 503)
    token = issuer.mint()
    answer = await world.credentials(token)
    assert answer.status_code == 401
    assert answer.json()["code"] == "ci_token_rejected"
    assert answer.headers["retry-after"] == "60"
    issuer.replaced.clear()
    assert (await world.credentials(token)).status_code == 200


async def test_a_key_changed_in_place_is_followed(issuers: CiIssuers, issuer: LocalIssuer) -> None:
    url = issuer.issuer("github")
    known = await issuers.key(url, "k1", "ES256")
    issuer.published["k1"] = ec_key(9)
    changed = await issuers.key_after_rotation(url, known, "ES256")
    assert changed is not None
    assert changed.key != known.key
